//! The helpers do what their names say: a fault that is never injected proves nothing.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use redis::RedisResult;
use rustix::process::Signal;
use serde_json::Value;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::docker::{Dockerd, Machine};
use crate::kit::http::{Stream, get};
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::process::Process;
use crate::kit::proxy::{Proxy, Way};
use crate::kit::redis::{Redis, ask};
use crate::kit::{seconds, wait_until};

#[test]
fn redis_is_killed_frozen_flushed_and_comes_back_with_its_dump() {
    need!(redis);
    let mut redis = Redis::start();
    redis.query::<()>(&["SET", "a", "1"]);
    redis.save();
    redis.query::<()>(&["SET", "b", "2"]);
    redis.kill9();
    assert_eq!(redis.dump(), "it does not answer\n");
    redis.restart();
    assert_eq!(redis.keys(""), BTreeSet::from(["a".into()]));
    redis.flush();
    assert!(redis.keys("").is_empty());
    redis.restart_empty();
    assert!(redis.keys("").is_empty());

    let mut connection = redis.connect();
    connection
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    redis.freeze();
    let answer: RedisResult<String> = ask(&mut connection, &["PING"]);
    assert!(answer.is_err_and(|error| error.is_timeout()));
    redis.thaw();
    assert_eq!(redis.query::<String>(&["PING"]), "PONG");
    assert!(
        redis::Client::open(redis.socket_url())
            .unwrap()
            .get_connection()
            .is_ok()
    );
}

#[test]
fn the_wire_to_redis_stalls_cuts_and_loses_replies() {
    need!(redis);
    let redis = Redis::start();
    let proxy = Proxy::tcp(&redis.url());
    let connect = || {
        let connection = redis::Client::open(proxy.redis_url())
            .unwrap()
            .get_connection()
            .unwrap();
        connection
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        connection
    };
    let mut connection = connect();
    proxy.slice(true);
    let _: () = ask(&mut connection, &["SET", "a", "1"]).unwrap();
    proxy.slice(false);

    proxy.lose(Way::Replies, true);
    let answer: RedisResult<()> = ask(&mut connection, &["SET", "a", "2"]);
    assert!(answer.is_err(), "the reply is lost");
    assert_eq!(
        redis.query::<String>(&["GET", "a"]),
        "2",
        "and the command was carried out"
    );
    proxy.lose(Way::Replies, false);

    let mut connection = connect();
    proxy.stall(Way::Requests, true);
    let answer: RedisResult<()> = ask(&mut connection, &["SET", "a", "3"]);
    assert!(answer.is_err());
    assert_eq!(
        redis.query::<String>(&["GET", "a"]),
        "2",
        "the command waits on the wire"
    );
    proxy.stall(Way::Requests, false);
    wait_until(seconds(5), "the command arrives", || {
        redis.query::<String>(&["GET", "a"]) == "3"
    });

    let mut connection = connect();
    proxy.cut_after(Way::Replies, 3);
    let answer: RedisResult<String> = ask(&mut connection, &["PING"]);
    assert!(
        answer.is_err_and(|error| !error.is_timeout()),
        "the reply is cut in the middle"
    );
    assert_eq!(
        ask::<String>(&mut connect(), &["PING"]).unwrap(),
        "PONG",
        "once"
    );
    proxy.refuse(true);
    let refused = redis::Client::open(proxy.redis_url()).unwrap();
    let answer = refused
        .get_connection()
        .and_then(|mut connection| ask::<()>(&mut connection, &["PING"]));
    assert!(answer.is_err());
}

#[test]
fn the_wire_to_an_engine_carries_streams() {
    let engine = Engine::listen(&Place::Tcp("127.0.0.1:0".into())).unwrap();
    let proxy = Proxy::unix(&engine.url());
    let mut stream = Stream::open(proxy.place(), "/v1.41/events");
    wait_until(seconds(5), "the stream is subscribed", || {
        engine.subscribers() == 1
    });
    let id = engine.run(Spec::named("a"));
    assert_eq!(
        stream.actions_until("start"),
        ["create", "connect", "start"]
    );
    proxy.cut();
    assert!(stream.event().is_none());
    wait_until(seconds(5), "the engine sees the cut", || {
        engine.subscribers() == 0
    });
    let path = format!("/v1.41/containers/{id}/json");
    assert_eq!(get(proxy.place(), &path).json()["Id"], *id);
}

#[test]
fn a_private_engine_is_killed_and_comes_back_with_its_containers() {
    need!(dockerd);
    let mut dockerd = Dockerd::live_restore();
    let id = dockerd.run("a", &[], &[]);
    let doomed = dockerd.run("b", &[], &[]);
    assert_eq!(
        dockerd.docker.running(),
        BTreeSet::from([id.clone(), doomed.clone()])
    );
    let pid = dockerd.pid_of(&doomed);
    dockerd.kill9();
    assert!(dockerd.docker.try_docker(&["ps"]).is_err());
    dockerd.kill_container(pid);
    dockerd.restart();
    assert_eq!(
        dockerd.docker.running(),
        BTreeSet::from([id.clone()]),
        "live-restore keeps one"
    );

    let mut stream = Stream::open(&dockerd.docker.place(), "/v1.41/events");
    dockerd.docker.docker(&["kill", &id]);
    assert_eq!(stream.actions_until("die"), ["kill", "die"]);
    dockerd.freeze();
    let place = dockerd.docker.place();
    assert!(place.connect().is_ok(), "a frozen engine accepts");
    dockerd.thaw();
    assert_eq!(get(&place, "/_ping").body, "OK");
}

#[test]
fn the_machines_engine_is_left_as_it_was() {
    need!(docker);
    let machine = Machine::get();
    let prefix = machine.docker.prefix.clone();
    let network = machine.network("net");
    let id = machine.docker.run("a", &["--network", &network], &[]);
    assert_eq!(machine.docker.own_running(), BTreeSet::from([id.clone()]));
    let row = get(
        &machine.docker.place(),
        &format!("/v1.24/containers/{id}/json"),
    )
    .json();
    assert_eq!(row["Name"], format!("/{prefix}a"));
    let url = machine.docker.url.clone();
    drop(machine);
    for list in [["ps", "-a"], ["images", "-a"], ["network", "ls"]] {
        let args = [["-H", &url], list].concat();
        let left = crate::kit::process::run("docker", &args);
        assert!(!left.contains(&prefix), "{left}");
    }
}

/// An engine with one container, and what an agent would make of its inspect.
fn one_container() -> (Engine, Value) {
    let engine = Engine::listen(&Place::Tcp("127.0.0.1:0".into())).unwrap();
    let id = engine.run(Spec::named("a").health_check());
    let mut json = get(engine.place(), &format!("/containers/{id}/json")).json();
    json.as_object_mut().unwrap().remove("ExecIDs");
    json["State"]["Health"]
        .as_object_mut()
        .unwrap()
        .remove("Log");
    (engine, json)
}

/// Writes what an agent would have to write for one host with this container.
fn write_one_host(redis: &Redis, json: &Value) {
    let text = |path: &str| json.pointer(path).and_then(Value::as_str).unwrap();
    let (id, image) = (text("/Id"), text("/Config/Image"));
    let (status, started) = (text("/State/Status"), text("/State/StartedAt"));
    let json = json.to_string();
    redis.query::<()>(&["SET", &format!("d:containers:{id}:json"), &json]);
    let lines = [
        "SADD d:hosts h".to_owned(),
        "HSET d:hosts:h containers_running 1 docker_version x last_update 1 update_interval 120 status up".to_owned(),
        "HSET d:hosts:h docker_url x engine_id x api_version x os x kernel x architecture x agent_version x".to_owned(),
        format!("SADD d:hosts:h:containers {id}"),
        format!("HSET d:hosts:h:names a {id}"),
        format!("HSET d:hosts:h:manifest {id} {image}"),
        "SET d:hosts:h:lease b:1 PX 10000".to_owned(),
        "SET d:engines:x@x h PX 10000".to_owned(),
        "ZADD d:alive 1 h".to_owned(),
        format!("SADD d:containers {id}"),
        format!("HSET d:containers:{id} id {id} host h name /a config_image {image}"),
        format!("HSET d:containers:{id} state_status {status} state_startedat {started}"),
        format!("SADD d:images {image}"),
        format!("SADD d:images:{image}:hosts h"),
        format!("SADD d:images:{image}:containers {id}"),
        "XADD d:events * host h".to_owned(),
        "SET another prefix".to_owned(),
    ];
    lines.iter().for_each(|line| write(redis, line));
    for key in redis.keys("d:") {
        if key != "d:events" && key != "d:alive" && redis.query::<i64>(&["TTL", &key]) < 0 {
            write(redis, &format!("EXPIRE {key} 360"));
        }
    }
}

fn write(redis: &Redis, line: &str) {
    redis.query::<redis::Value>(&line.split(' ').collect::<Vec<_>>());
}

#[test]
fn the_oracle_passes_what_is_right_and_names_each_thing_that_is_wrong() {
    need!(redis);
    let redis = Redis::start();
    let (engine, json) = one_container();
    let hosts = [Host::up("h", engine.running()).at(engine.place())];
    write_one_host(&redis, &json);
    assert_eq!(oracle::check(&redis, "d", &hosts), Ok(()));
    // One whole state, spoilt in one place at a time; CID stands for the container's id.
    let spoilt = [
        ("SADD d:containers ghost", "d:containers: found"),
        (
            "SREM d:hosts:h:containers CID",
            "d:hosts:h:containers: found",
        ),
        ("SADD d:hosts dead", "d:hosts: found"),
        ("HSET d:hosts:h containers_running 2", "containers_running"),
        ("HSET d:hosts:h status down", "status"),
        ("HDEL d:hosts:h kernel", "has no field kernel"),
        ("HSET d:hosts:h:names old CID", "d:hosts:h:names: found"),
        ("HDEL d:hosts:h:manifest CID", "d:hosts:h:manifest: found"),
        ("SADD d:hosts:h:stopped CID", "d:hosts:h:stopped: found"),
        ("DEL d:hosts:h:lease", "d:hosts:h:lease is not there"),
        ("DEL d:engines:x@x", "engines: reported under"),
        ("HSET d:containers:CID host other", "host: found"),
        ("HSET d:containers:CID state_status exited", "state_status"),
        ("HSET d:containers:CID execids []", "execids"),
        ("PERSIST d:containers:CID", "has no TTL"),
        ("EXPIRE d:containers:CID:json 4000", "lives"),
        ("SET d:containers:CID:json { EX 10", "Id: found"),
        ("SADD d:images gone", "d:images: found"),
        (
            "SADD d:images:gone:hosts h",
            "d:images:gone:hosts should not be there",
        ),
        (
            "SET d:containers:ghost x",
            "d:containers:ghost should not be there",
        ),
        ("SET d:surprise 1", "d:surprise should not be there"),
        ("DEL d:alive", "d:alive: found"),
        ("DEL d:containers", "d:containers: found"),
    ];
    for (line, wanted) in spoilt {
        redis.flush();
        write_one_host(&redis, &json);
        write(&redis, &line.replace("CID", json["Id"].as_str().unwrap()));
        let said = oracle::check(&redis, "d", &hosts).unwrap_err();
        assert!(said.contains(wanted), "{line} led to: {said}");
    }
    // A change that the agent missed.
    redis.flush();
    write_one_host(&redis, &json);
    engine.rename(json["Id"].as_str().unwrap(), "b");
    let said = oracle::check(&redis, "d", &hosts).unwrap_err();
    assert!(
        said.contains("Name and the engine's: found String(\"/a\")"),
        "{said}"
    );
}

#[test]
fn a_wait_ends_at_its_deadline_and_tells_what_was_so() {
    let failed = catch_unwind(AssertUnwindSafe(|| {
        wait_until(Duration::from_millis(20), "pigs fly", || {
            Err("they have no wings".to_owned())
        });
    }));
    let message = *failed.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("until pigs fly") && message.contains("no wings"),
        "{message}"
    );
}

#[test]
fn a_program_is_watched_signalled_and_ended() {
    let mut program = Process::start(Command::new("sh").args([
        "-c",
        "trap 'echo told >&2; exit 3' TERM; echo begun; while :; do sleep 0.05; done",
    ]));
    program.wait_log("begun\n", seconds(5));
    assert!(program.exited().is_none());
    program.signal(Signal::TERM);
    assert_eq!(program.wait_exit(seconds(5)).code(), Some(3));
    program.wait_log("told\n", seconds(5));
    let missing = catch_unwind(AssertUnwindSafe(|| {
        program.wait_log("never", Duration::ZERO)
    }));
    let message = *missing.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("`never`") && message.contains("begun"),
        "{message}"
    );
}

#[test]
fn recordings_of_every_engine_are_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/docker");
    for version in ["20.10.24", "26.1.5", "28.5.2", "podman/4.3.1"] {
        let events = std::fs::read_to_string(folder.join(version).join("events.jsonl")).unwrap();
        for action in [
            "create",
            "start",
            "die",
            "rename",
            "pause",
            "unpause",
            "kill",
            "health_status",
        ] {
            let told = events.contains(&format!(r#""Action":"{action}"#));
            assert!(told, "{version} tells no {action}");
        }
    }
}
