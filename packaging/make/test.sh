#!/bin/sh
# Sees to what the tests need, then runs them all, those whose verdict is a time last and alone. What this machine cannot offer is
# skipped by the tests that need it, by name, and counted at the end; under CI it fails instead.
cd "$(dirname "$0")/../.."
. packaging/make/lib.sh

# Starts the machine's engine as the system does where there is one, else our own for the time of the tests: with the storage
# driver it chooses, else with the one that works everywhere, and without a bridge where the kernel refuses one.
start_engine() {
    if [ -d /run/systemd/system ]; then
        systemctl start docker && wait_for 30 engine_answers && return
        fail "failed to start docker: see \`journalctl -u docker\`"
    fi
    say "starting dockerd; it ends with the tests"
    mkdir -p target
    for settings in '' '"storage-driver": "vfs"' '"storage-driver": "vfs", "bridge": "none", "iptables": false, "ip6tables": false'; do
        set --
        if [ -n "$settings" ]; then
            echo "{$settings}" >target/dockerd.json
            set -- --config-file target/dockerd.json
        fi
        child target/dockerd.log dockerd "$@"
        dockerd=$!
        wait_for 30 engine_settled && engine_answers && return
        kill "$dockerd" 2>/dev/null || true
        wait "$dockerd" || true
    done
    tail -n 20 target/dockerd.log >&2
    say "failed to start \`dockerd\`: the tests that need an engine have none"
}

engine_answers() { docker version >/dev/null 2>&1; }

# Called by wait_for.
# shellcheck disable=SC2317
engine_settled() { engine_answers || ! kill -0 "$dockerd" 2>/dev/null; }

case ${CI:-false} in
false | 0) ;;
*) export DOCKER_CACHE_TESTS=required ;;
esac

need_cargo
offer redis-server redis-server || say "no redis-server here"
offer busybox busybox-static || say "no busybox here"
offer podman podman || say "no podman here"
offer haproxy haproxy || say "no haproxy here"
offer jq jq || say "no jq here"
# The tests start one of their own, whatever started this machine.
offer systemd-analyze systemd || say "no systemd here"
if offer dockerd docker.io && offer docker docker-cli; then
    if [ "$(id -u)" = 0 ] && ! engine_answers; then start_engine; fi
else
    say "no Docker here"
fi

mkdir -p target
log=target/test.log
{
    code=0
    # Most of them wait for servers most of the time.
    RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}" cargo test --locked --workspace --no-fail-fast -- --skip timed_ || code=$?
    # Those whose verdict is a time, one after the other, with nothing beside them.
    cargo test --locked --test it timed_ -- --test-threads=1 || code=$?
    echo $code >target/test.code
} 2>&1 | tee "$log"
skipped=$(grep -cE '(^|\.\.\. )skipped: ' "$log") || true
[ "$skipped" = 0 ] || say "$skipped tests were skipped: this machine lacks what they need, see the lines \`skipped: …\` above"
exit "$(cat target/test.code)"
