#!/bin/sh
# A mirror as one writes it in a shell: docker, redis-cli and a loop. For tests/bench/today.rs, which sets DOCKER_HOST and REDIS_PORT.
cache() { redis-cli -p "$REDIS_PORT" "$@" >/dev/null; }

put() {
    docker inspect "$1" | cache -x SET "containers:$1"
    cache PUBLISH docker_events "$2:shell:$1"
}

docker ps -q --no-trunc | while read -r id; do put "$id" new_container; done
cache PUBLISH docker_events refresh_containers:shell
docker events --filter type=container --format '{{.Actor.ID}}' | while read -r id; do put "$id" update_container; done
