//! How long things live: while the agent and its engine live, while the engine is away, after the agent.

use std::time::Instant;

use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::docker::Dockerd;
use crate::kit::listen::{Monitor, Notices};
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::redis::Redis;
use crate::kit::scene::{SOON, Stage};
use crate::kit::{seconds, wait_until};

/// Keys whose names tell that they belong to one host or container and live for three intervals.
fn own_keys(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.keys("docker:containers:").into_iter().collect();
    keys.extend(
        ["hosts:h", "hosts:h:containers", "hosts:h:names"].map(|key| format!("docker:{key}")),
    );
    keys
}

#[test]
fn keys_live_for_three_intervals_and_are_renewed() {
    need!(redis);
    let stage = Stage::start(1, &[], |engine| {
        engine.run(Spec::named("a"));
    });
    let began = Instant::now();
    for _ in 0..6 {
        stage.notices.until("refresh_containers:h", SOON);
        for key in own_keys(&stage.redis) {
            let ttl_ms: i64 = stage.redis.query(&["PTTL", &key]);
            // The host itself outlives the search for its agent, should that die.
            let most_ms = match key.as_str() {
                "docker:hosts:h" => 30_000,
                _ => 3000,
            };
            assert!((1..=most_ms).contains(&ttl_ms), "{key} lives {ttl_ms} ms");
        }
    }
    assert!(began.elapsed() > seconds(3), "they were renewed");
    assert_eq!(stage.host_field("update_interval"), "1");
    let day: i64 = stage.redis.query(&["TTL", "docker:containers"]);
    assert!((86_000..=86_400).contains(&day), "{day}");
    stage.settle();
}

#[test]
fn while_the_engine_is_down_its_keys_live_on() {
    need!(redis);
    let mut id = String::new();
    let stage = Stage::start(1, &[], |engine| id = engine.run(Spec::named("a")));
    let monitor = Monitor::of(&stage.redis);
    stage.engine.go_down();
    stage.notices.until_so("host_down:h", SOON, || {
        let status = stage.host_field("status");
        (status == "down").then_some(()).ok_or(status)
    });
    let updated = stage.host_field("last_update");
    let began = Instant::now();
    let key = format!("docker:containers:{id}");
    while began.elapsed() < seconds(4) {
        monitor.until("a renewal", SOON, |words| {
            words[0] == "EXPIRE" && words[1] == key
        });
    }
    assert_eq!(stage.host_field("last_update"), updated, "nobody was asked");
    let told = stage.notices.so_far();
    assert_eq!(told, [""; 0], "nothing is refreshed");
    oracle::settle(&stage.redis, "docker", SOON, || {
        vec![stage.host().status("down")]
    });

    stage.engine.come_up().unwrap();
    stage.notices.until_so("host_up:h", SOON, || {
        let status = stage.host_field("status");
        (status == "up").then_some(()).ok_or(status)
    });
    stage.settle();
}

#[test]
fn containers_of_an_engine_that_is_down_are_not_said_to_have_gone() {
    need!(redis, dockerd);
    let redis = Redis::start();
    let mut engine = Dockerd::live_restore();
    let stays = engine.run("a", &[], &[]);
    let dies = engine.run("b", &[], &[]);
    let pid = engine.pid_of(&dies);
    let notices = Notices::of(&redis, "docker_events");
    let _agent = Agent::watch("h", &engine.docker.url, &redis.url(), Agent::SELDOM_S);
    notices.until("refresh_containers:h", SOON);
    engine.kill9();
    notices.until("host_down:h", SOON);
    engine.kill_container(pid);
    oracle::settle(&redis, "docker", SOON, || {
        vec![Host::up("h", [stays.clone(), dies.clone()].into()).status("down")]
    });
    engine.restart();
    let told = notices.until(&format!("delete_container:h:{dies}"), seconds(60));
    assert_eq!(told[0], "host_up:h");
    oracle::settle(&redis, "docker", SOON, || {
        vec![Host::up("h", engine.docker.running())]
    });
    assert_eq!(engine.docker.running(), [stays].into());
}

#[test]
fn an_engine_that_stays_away_takes_its_host_along_and_brings_it_back() {
    need!(redis);
    let stage = Stage::start(1, &["--forget-after", "2s"], |engine| {
        engine.run(Spec::named("a"));
        engine.run(Spec::named("b").image("other:1"));
    });
    stage.engine.go_down();
    stage.notices.until("host_down:h", SOON);
    let told = stage.notices.until("expired_host:h", SOON);
    assert_eq!(told, ["expired_host:h"]);
    oracle::settle(&stage.redis, "docker", SOON, Vec::new);

    // From now on it only tries to reach the engine: a second of that must not cost a tenth of a processor.
    let ticks = stage.agent.cpu_ticks();
    let began = Instant::now();
    wait_until(SOON, "a second is over", || began.elapsed() > seconds(1));
    assert!(stage.agent.cpu_ticks() - ticks < 10, "it spins");

    stage.engine.come_up().unwrap();
    let told = stage.notices.until("refresh_containers:h", SOON);
    assert_eq!(told, ["new_host:h", "refresh_containers:h"]);
    stage.settle();
}

#[test]
fn after_a_clean_stop_a_successor_starts_at_once() {
    need!(redis);
    let mut stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        engine.run(Spec::named("a"));
    });
    assert!(stage.agent.stop(SOON).success());
    assert_eq!(stage.host_field("status"), "stopped");
    for gone in ["docker:hosts:h:lease", "docker:engines:*"] {
        assert_eq!(stage.redis.keys(gone), [].into(), "{gone}");
    }
    for key in own_keys(&stage.redis) {
        let ttl_s: i64 = stage.redis.query(&["TTL", &key]);
        assert!(
            (1..=3 * Agent::SELDOM_S as i64).contains(&ttl_s),
            "{key} lives {ttl_s} s"
        );
    }
    stage.notices.until("refresh_containers:h", SOON);
    stage.engine.run(Spec::named("b"));
    let began = Instant::now();
    stage.successor();
    let told = stage.notices.until("refresh_containers:h", SOON);
    assert!(began.elapsed() < seconds(5), "nothing was waited for");
    assert_eq!(told, ["refresh_containers:h"]);
    stage.settle();
}

#[test]
fn after_a_kill_a_successor_starts_when_the_lease_is_over() {
    need!(redis);
    let mut stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        engine.run(Spec::named("a"));
    });
    stage.agent.kill9();
    let gone = stage.engine.run(Spec::named("b"));
    stage.engine.die(&gone, 1);
    stage.engine.run(Spec::named("c"));
    stage.successor();
    stage.agent.wait_log("another agent", SOON);
    stage
        .agent
        .wait_log("Reported 2 containers", seconds(12) + SOON);
    stage.settle();
}
