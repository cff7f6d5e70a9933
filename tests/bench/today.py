"""A mirror as one writes it with Python's docker and redis packages. For tests/bench/today.rs, which sets DOCKER_HOST and REDIS_PORT."""

import json
import os

import docker
import redis

engine = docker.from_env()
cache = redis.Redis(port=int(os.environ["REDIS_PORT"]))


def flat(document):
    fields = {}
    for key, value in document.items():
        parts = value if isinstance(value, dict) else {"": value}
        for name, part in parts.items():
            if part is not None:
                text = part if isinstance(part, str) else json.dumps(part)
                fields[f"{key}_{name}".strip("_").lower()] = text
    return fields


def put(container, notice):
    key = f"containers:{container.id}"
    pipe = cache.pipeline(transaction=True)
    pipe.delete(key)
    pipe.hset(key, mapping=flat(container.attrs))
    pipe.set(key + ":json", json.dumps(container.attrs))
    pipe.publish("docker_events", f"{notice}:python:{container.id}")
    pipe.execute()


for one in engine.containers.list():
    put(one, "new_container")
cache.publish("docker_events", "refresh_containers:python")
for event in engine.events(decode=True, filters={"type": "container"}):
    try:
        put(engine.containers.get(event["Actor"]["ID"]), "update_container")
    except docker.errors.NotFound:
        cache.delete(f"containers:{event['Actor']['ID']}")
