//! What happened: the stream of events, and the notices; what is inferred after an outage.

use std::collections::HashMap;

use redis::Value;

use crate::engine::containers::Spec;
use crate::kit::TempDir;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::redis::Redis;
use crate::kit::scene::{SOON, Stage};
use crate::kit::{seconds, wait_until};

/// An entry of a stream.
type Entry = HashMap<String, String>;

fn entries(redis: &Redis) -> Vec<Entry> {
    let entries: Vec<(String, Entry)> = redis.query(&["XRANGE", "docker:events", "-", "+"]);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// `action origin` of each entry about a container.
fn actions(redis: &Redis, id: &str) -> Vec<String> {
    let about = |entry: &Entry| entry["id"] == id;
    let told = |entry: Entry| format!("{} {}", entry["action"], entry["origin"]);
    let entries = entries(redis).into_iter();
    entries
        .filter(|entry| entry.contains_key("id"))
        .filter(about)
        .map(told)
        .collect()
}

#[track_caller]
fn wait_for(redis: &Redis, id: &str, wanted: &[&str]) {
    wait_until(SOON, "the stream has these entries", || {
        let found = actions(redis, id);
        (found == wanted)
            .then_some(())
            .ok_or(format!("it has {found:?}, not {wanted:?}"))
    });
}

#[test]
fn the_stream_has_every_event_but_noise() {
    need!(redis);
    let stage = Stage::start(Agent::SELDOM_S, &[], |_| {});
    let id = stage.engine.run(Spec::named("a").image("web:1"));
    stage.engine.exec(&id, "mysql -phunter2");
    stage.engine.top(&id);
    stage.engine.oom(&id);
    stage.engine.pause(&id);
    stage.engine.unpause(&id);
    stage.engine.rename(&id, "b");
    stage.engine.health(&id, "unhealthy");
    stage.engine.connect(&id, "net");
    stage.engine.kill(&id, 9);
    stage.engine.destroy(&id);
    let wanted = [
        "create seen",
        "start seen",
        "oom seen",
        "pause seen",
        "unpause seen",
        "rename seen",
        "health_status: unhealthy seen",
        "kill seen",
        "die seen",
        "destroy seen",
    ];
    wait_for(&stage.redis, &id, &wanted);
    let entries = entries(&stage.redis);
    let die = entries
        .iter()
        .find(|entry| entry["action"] == "die")
        .unwrap();
    assert_eq!(die["host"], "h");
    assert_eq!(die["type"], "container");
    assert_eq!(die["name"], "b");
    assert_eq!(die["image"], "web:1");
    assert!(die["time"].len() == 19, "ns: {}", die["time"]);
    let network = |entry: &&Entry| entry["type"] == "network";
    assert!(entries.iter().filter(network).count() >= 2);
    stage.settle();
}

#[test]
fn the_stream_keeps_about_so_many() {
    need!(redis);
    let stage = Stage::start(Agent::SELDOM_S, &["--stream-maxlen", "100"], |_| {});
    let id = stage.engine.run(Spec::named("a"));
    for round in 1..=300 {
        stage.engine.update(&id, round << 20);
    }
    wait_until(SOON, "the last one is there", || {
        stage.field(&id, "hostconfig_memory") == (300u64 << 20).to_string()
    });
    wait_until(SOON, "the stream is cut", || {
        // Redis cuts whole nodes of a hundred entries.
        let length: usize = stage.redis.query(&["XLEN", "docker:events"]);
        (100..=200)
            .contains(&length)
            .then_some(())
            .ok_or(format!("{length} entries"))
    });
    stage.settle();
}

#[test]
fn a_first_report_says_only_that_the_host_is_new() {
    need!(redis);
    let stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        for number in 0..100 {
            engine.run(Spec::named(&format!("c{number}")));
        }
    });
    let told = stage.notices.until("refresh_containers:h", SOON);
    assert_eq!(told, ["new_host:h", "refresh_containers:h"]);
    stage.settle();
    assert_eq!(entries(&stage.redis), [], "what was before is no event");
}

/// An agent with handlers, for whom things are inferred, and two containers.
fn with_handlers(folder: &TempDir, interval_s: u64, options: &[&str]) -> (Stage, String, String) {
    let file = folder.write("events.yml", "events:\n  - type: '*'\n    log: seen\n");
    let file = file.to_string_lossy().into_owned();
    let options = [options, &[&file]].concat();
    let mut ids = Vec::new();
    let stage = Stage::start(interval_s, &options, |engine| {
        ids.extend(["a", "b"].map(|name| engine.run(Spec::named(name))));
    });
    stage.settle();
    let [a, b] = [ids.remove(0), ids.remove(0)];
    (stage, a, b)
}

#[test]
fn what_happened_without_an_agent_is_replayed_or_inferred() {
    need!(redis);
    let folder = TempDir::new();
    let (mut stage, a, b) = with_handlers(&folder, Agent::SELDOM_S, &[]);
    stage.agent.stop(SOON);
    stage.engine.kill(&a, 9);
    // What the engine does not tell either is inferred from what Redis holds.
    stage.engine.quiet(true);
    stage.engine.kill(&b, 9);
    let c = stage.engine.run(Spec::named("c"));
    stage.engine.quiet(false);
    stage.successor();
    wait_for(&stage.redis, &a, &["kill inferred", "die inferred"]);
    wait_for(&stage.redis, &b, &["die inferred"]);
    wait_for(&stage.redis, &c, &["start inferred"]);
    stage.settle();
}

#[test]
fn a_restarted_container_is_inferred_to_have_died_and_started() {
    need!(redis);
    let folder = TempDir::new();
    let (mut stage, a, b) = with_handlers(&folder, Agent::SELDOM_S, &[]);
    stage.agent.stop(SOON);
    stage.engine.quiet(true);
    stage.engine.restart_container(&a);
    stage.engine.quiet(false);
    stage.successor();
    wait_for(&stage.redis, &a, &["die inferred", "start inferred"]);
    stage.settle();
    assert_eq!(actions(&stage.redis, &b), [""; 0]);
}

#[test]
fn without_handlers_it_is_inferred_as_well_and_nothing_of_what_ran_on() {
    need!(redis);
    let mut ids = Vec::new();
    let mut stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        ids.extend(["a", "b"].map(|name| engine.run(Spec::named(name))));
    });
    stage.settle();
    stage.agent.stop(SOON);
    stage.engine.quiet(true);
    stage.engine.kill(&ids[1], 9);
    stage.engine.quiet(false);
    stage.successor();
    wait_for(&stage.redis, &ids[1], &["die inferred"]);
    assert_eq!(actions(&stage.redis, &ids[0]), [""; 0]);
    stage.settle();
}

/// Stops the agent, lets things happen that no event tells and then `spoil`: a successor takes what is so as it is.
fn nothing_is_inferred(options: &[&str], spoil: impl FnOnce(&Stage)) {
    let folder = TempDir::new();
    let (mut stage, a, b) = with_handlers(&folder, 2, options);
    stage.agent.stop(SOON);
    stage.engine.kill(&a, 9);
    stage.engine.quiet(true);
    let c = stage.engine.run(Spec::named("c"));
    spoil(&stage);
    stage.successor();
    stage.agent.wait_log("Reported 2 containers", SOON);
    // What is inferred takes its time: when this one is, all before it would be.
    stage.engine.kill(&b, 9);
    wait_for(&stage.redis, &b, &["die inferred"]);
    assert_eq!(actions(&stage.redis, &a), [""; 0]);
    assert_eq!(actions(&stage.redis, &c), [""; 0]);
    stage.settle();
}

#[test]
fn nothing_is_inferred_from_what_is_too_old() {
    need!(redis);
    nothing_is_inferred(&["--replay-max-age", "1s"], |stage| {
        let updated: u64 = stage.host_field("last_update").parse().unwrap();
        wait_until(SOON, "the last report is too old", || {
            let now: (u64, u64) = stage.redis.query(&["TIME"]);
            now.0 > updated + 1
        });
    });
}

#[test]
fn nothing_is_inferred_from_an_empty_redis() {
    need!(redis);
    nothing_is_inferred(&[], |stage| stage.redis.flush());
}

#[test]
fn nothing_is_inferred_from_what_somebody_deleted() {
    need!(redis);
    let folder = TempDir::new();
    let (mut stage, a, b) = with_handlers(&folder, Agent::SELDOM_S, &[]);
    let [c, d] = ["c", "d"].map(|name| stage.engine.run(Spec::named(name)));
    stage.settle();
    stage.agent.stop(SOON);
    let hash = |id: &str| format!("docker:containers:{id}");
    let removals: [&[&str]; 3] = [
        &["DEL", &hash(&a)],
        &["SREM", "docker:hosts:h:containers", &b],
        &["HDEL", &hash(&c), "state_startedat"],
    ];
    for removal in removals {
        assert_eq!(stage.redis.query::<u64>(removal), 1, "{removal:?}");
    }
    stage.engine.quiet(true);
    stage.engine.kill(&d, 9);
    stage.engine.quiet(false);
    stage.successor();
    // When this is inferred, all of the others would be.
    wait_for(
        &stage.redis,
        &d,
        &["create seen", "start seen", "die inferred"],
    );
    for id in [&a, &b] {
        assert_eq!(actions(&stage.redis, id), [""; 0]);
    }
    assert_eq!(actions(&stage.redis, &c), ["create seen", "start seen"]);
    stage.settle();
}

#[test]
fn nothing_is_inferred_from_what_has_run_out() {
    need!(redis);
    let folder = TempDir::new();
    let (mut stage, a, b) = with_handlers(&folder, 2, &[]);
    stage.agent.stop(SOON);
    wait_until(SOON, "three intervals are over", || {
        stage.redis.keys("docker:hosts:h:containers").is_empty()
    });
    assert!(!stage.host_field("last_update").is_empty());
    stage.successor();
    stage.agent.wait_log("Reported 2 containers", SOON);
    stage.engine.quiet(true);
    stage.engine.kill(&b, 9);
    stage.engine.quiet(false);
    wait_for(&stage.redis, &b, &["die inferred"]);
    assert_eq!(actions(&stage.redis, &a), [""; 0]);
    stage.settle();
}

#[test]
fn nothing_is_inferred_across_a_change_of_engine() {
    need!(redis);
    nothing_is_inferred(&[], |stage| stage.engine.engine_id("another"));
}

#[test]
fn what_vanished_while_the_engine_was_down_is_inferred() {
    need!(redis);
    let folder = TempDir::new();
    let (stage, a, b) = with_handlers(&folder, Agent::SELDOM_S, &[]);
    stage.engine.go_down();
    stage.notices.until("host_down:h", SOON);
    stage.engine.kill(&a, 9);
    stage.engine.destroy(&a);
    stage.engine.come_up().unwrap();
    stage
        .notices
        .until(&format!("delete_container:h:{a}"), seconds(60));
    wait_for(&stage.redis, &a, &["die inferred"]);
    assert_eq!(actions(&stage.redis, &b), [""; 0]);
    stage.settle();
}

#[test]
fn events_that_the_engine_dropped_are_found_and_counted() {
    need!(redis);
    let stage = Stage::start(1, &[], |_| {});
    stage.engine.drop_next_events(3);
    let id = stage.engine.run(Spec::named("a"));
    stage.settle();
    wait_until(SOON, "it is counted", || {
        let drift = stage.host_field("drift");
        (drift == "1").then_some(()).ok_or(drift)
    });
    let wanted: Value = stage.redis.query(&["XLEN", "docker:events"]);
    assert!(matches!(wanted, Value::Int(1..)), "{wanted:?}");
    let gaps = |entry: &Entry| entry["action"] == "gap";
    assert!(entries(&stage.redis).iter().any(gaps));
    assert_eq!(actions(&stage.redis, &id), ["start inferred"]);
}
