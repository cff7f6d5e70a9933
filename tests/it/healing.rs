//! Whatever happens to what Redis holds: it is as it should be again, soon.

use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::proxy::{Proxy, Way};
use crate::kit::redis::Redis;
use crate::kit::scene::{SOON, Stage, engine};
use crate::kit::{seconds, wait_until};

fn two(interval_s: u64) -> (Stage, String) {
    let mut id = String::new();
    let stage = Stage::start(interval_s, &[], |engine| {
        id = engine.run(Spec::named("a"));
        engine.run(Spec::named("b").image("other:1"));
    });
    stage.settle();
    (stage, id)
}

#[test]
fn a_flush_is_noticed_without_an_event_or_a_resync() {
    need!(redis);
    let (stage, _) = two(Agent::SELDOM_S);
    stage.notices.until("refresh_containers:h", SOON);
    stage.redis.flush();
    let told = stage.notices.until("refresh_containers:h", SOON);
    assert_eq!(told, ["new_host:h", "refresh_containers:h"]);
    stage.settle();
}

#[test]
fn a_flush_again_and_again_while_containers_come_and_go() {
    need!(redis);
    let (stage, _) = two(Agent::SELDOM_S);
    for round in 0..30 {
        let id = stage.engine.run(Spec::named(&format!("c{round}")));
        stage.redis.flush();
        if round % 2 == 0 {
            stage.engine.kill(&id, 9);
        }
    }
    stage.settle();
}

#[test]
fn keys_of_another_type_are_replaced() {
    need!(redis);
    let (stage, id) = two(1);
    let container = format!("docker:containers:{id}");
    for key in [
        &container,
        "docker:hosts:h",
        "docker:hosts:h:containers",
        "docker:hosts:h:names",
        "docker:containers",
    ] {
        stage.redis.query::<()>(&["SET", key, "x"]);
        wait_until(seconds(60), &format!("{key} is healed"), || {
            oracle::check(&stage.redis, "docker", &[stage.host()])
        });
    }
}

#[test]
fn redis_comes_back_empty_or_with_what_it_held_long_ago() {
    need!(redis);
    let (mut stage, id) = two(Agent::SELDOM_S);
    stage.redis.save();
    stage.redis.kill9();
    stage.engine.kill(&id, 9);
    stage.engine.run(Spec::named("c"));
    stage.redis.restart();
    stage.settle();
    stage.redis.restart_empty();
    stage.engine.run(Spec::named("d"));
    stage.settle();
}

#[test]
fn redis_that_hangs_for_a_while_gets_what_happened_meanwhile() {
    need!(redis);
    let (mut stage, id) = two(Agent::SELDOM_S);
    stage.redis.freeze();
    stage.engine.rename(&id, "renamed");
    let gone = stage.engine.run(Spec::named("c"));
    stage.engine.kill(&gone, 9);
    stage.agent.wait_log("failed to", SOON);
    stage.redis.thaw();
    wait_until(SOON, "the new name shows", || {
        stage.field(&id, "name") == "/renamed"
    });
    stage.settle();
}

#[test]
fn an_agent_may_start_before_redis_and_its_engine() {
    need!(redis);
    let (engine, mut redis) = (engine(), Redis::start());
    engine.run(Spec::named("a"));
    engine.go_down();
    redis.kill9();
    let agent = Agent::watch("h", &engine.url(), &redis.url(), Agent::SELDOM_S);
    agent.wait_log("is redis-server running there?", SOON);
    agent.wait_log("is the engine running?", SOON);
    engine.come_up().unwrap();
    agent.wait_log("Started monitoring", SOON);
    engine.run(Spec::named("b"));
    redis.restart();
    oracle::settle(&redis, "docker", SOON, || {
        vec![Host::up("h", engine.running())]
    });
    let log = agent.log();
    assert_eq!(
        log.matches("is redis-server running there?").count(),
        1,
        "once a change: {log}"
    );
}

#[test]
fn replies_that_are_lost_and_connections_that_are_cut_leave_nothing_wrong() {
    need!(redis);
    let (engine, redis) = (engine(), Redis::start());
    let wire = Proxy::tcp(&redis.url());
    let agent = Agent::watch("h", &engine.url(), &wire.redis_url(), Agent::SELDOM_S);
    agent.wait_log("Reported", SOON);
    let mut last = None;
    for round in 0..40 {
        let id = engine.run(Spec::named(&format!("c{round}")));
        match round % 4 {
            0 => wire.cut(),
            1 => wire.cut_after(Way::Replies, 7 * round),
            2 => wire.cut_after(Way::Requests, 97 * round),
            _ => {}
        }
        engine.rename(&id, &format!("d{round}"));
        if let Some(last) = last.replace(id) {
            engine.kill(&last, 9);
        }
    }
    oracle::settle(&redis, "docker", SOON, || {
        vec![Host::up("h", engine.running())]
    });
}
