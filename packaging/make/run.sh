#!/bin/sh
# All the set-up there is: builds the agent, finds or starts a Redis, and runs the agent in the foreground against the local
# Docker. This shell becomes the agent at the end, so that signals and the exit code are the agent's own; what was started for it
# ends with it.
cd "$(dirname "$0")/../.."
. packaging/make/lib.sh

need_cargo
cargo build --release --locked

DOCKER_HOST=${DOCKER_CACHE_DOCKER:-${DOCKER_HOST:-}}
fake=
if ! have_engine; then
    say "No Docker engine on this machine: watching a fake one, whose containers come and go."
    fake_engine
    fake=yes
fi
set -- -docker "$engine"

if [ -n "${DOCKER_CACHE_CACHE:-}" ]; then
    # The agent reads it by itself; it may hold a password, which is for no command line.
    # shellcheck disable=SC2016
    try='redis-cli -u "$DOCKER_CACHE_CACHE"'
elif [ -z "$fake" ] && redis_says 6379 PING +PONG; then
    set -- "$@" -cache redis://localhost:6379
    try="redis-cli"
else
    # Also for the fake engine: what is not real goes into nobody's Redis.
    private_redis
    set -- "$@" -cache "redis://127.0.0.1:$port"
    try="redis-cli -p $port"
    say "Started a Redis of our own on port $port, which ends with the agent."
fi

host=${DOCKER_CACHE_ID:-$(uname -n)}
prefix=${DOCKER_CACHE_PREFIX:-docker}
say "
Try in another terminal:
  $try smembers $prefix:hosts
  $try hget $prefix:hosts:$host containers_running
  $try smembers $prefix:hosts:$host:containers
  $try hgetall $prefix:containers:ID
  $try subscribe ${prefix}_events
"
exec target/release/docker-cache "$@"
