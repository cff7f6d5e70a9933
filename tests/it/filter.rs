//! `--filter`: the engine decides which containers are reported, at each resync and after each event.

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::docker::Machine;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::redis::Redis;
use crate::kit::scene::{SOON, Stage};

fn labelled(engine: &Engine, name: &str, value: &str) -> String {
    engine.run(Spec::named(name).label("tier", value))
}

#[track_caller]
fn holds(stage: &Stage, running: &[&String]) {
    oracle::settle(&stage.redis, "docker", SOON, || {
        let running = running.iter().map(|id| (*id).clone()).collect();
        vec![Host::up("h", running)]
    });
}

#[test]
fn only_members_are_reported_from_the_list_and_after_events() {
    need!(redis);
    let mut first = String::new();
    let stage = Stage::start(Agent::SELDOM_S, &["--filter", "label=tier=web"], |engine| {
        first = labelled(engine, "a", "web");
        labelled(engine, "b", "db");
    });
    holds(&stage, &[&first]);
    let foreign = labelled(&stage.engine, "c", "db");
    stage.engine.update(&foreign, 1 << 26);
    let second = labelled(&stage.engine, "d", "web");
    stage
        .notices
        .until(&format!("new_container:h:{second}"), SOON);
    holds(&stage, &[&first, &second]);
    stage.engine.die(&first, 0);
    let told = stage
        .notices
        .until(&format!("delete_container:h:{first}"), SOON);
    assert!(
        !told.iter().any(|notice| notice.contains(&foreign)),
        "{told:?}"
    );
    holds(&stage, &[&second]);
}

#[test]
fn all_filters_must_let_a_container_through() {
    need!(redis);
    let options = ["--filter", "label=tier=web", "--filter", "name=front"];
    let mut id = String::new();
    let stage = Stage::start(Agent::SELDOM_S, &options, |engine| {
        id = labelled(engine, "front1", "web");
        labelled(engine, "back1", "web");
        labelled(engine, "front2", "db");
    });
    holds(&stage, &[&id]);
}

#[test]
fn a_renamed_container_joins_and_leaves() {
    need!(redis);
    let mut id = String::new();
    let stage = Stage::start(Agent::SELDOM_S, &["--filter", "name=web"], |engine| {
        id = engine.run(Spec::named("db"));
    });
    holds(&stage, &[]);
    stage.engine.rename(&id, "web");
    stage.notices.until(&format!("new_container:h:{id}"), SOON);
    holds(&stage, &[&id]);
    stage.engine.rename(&id, "db");
    stage
        .notices
        .until(&format!("delete_container:h:{id}"), SOON);
    holds(&stage, &[]);
}

#[test]
fn a_list_that_is_older_than_the_start_does_not_hide_a_member() {
    need!(redis);
    let stage = Stage::start(Agent::SELDOM_S, &["--filter", "label=tier=web"], |_| {});
    let id = stage.engine.create(Spec::named("a").label("tier", "web"));
    stage.engine.stale_list(true);
    stage.engine.start(&id);
    stage.notices.until(&format!("new_container:h:{id}"), SOON);
    stage.engine.stale_list(false);
    holds(&stage, &[&id]);
}

#[test]
fn stopped_members_too_with_all() {
    need!(redis);
    let mut id = String::new();
    let options = ["--all", "--filter", "label=tier=web"];
    let stage = Stage::start(Agent::SELDOM_S, &options, |engine| {
        id = labelled(engine, "a", "web");
        let other = labelled(engine, "b", "db");
        engine.die(&other, 0);
    });
    stage.engine.die(&id, 0);
    stage
        .notices
        .until(&format!("update_container:h:{id}"), SOON);
    oracle::settle(&stage.redis, "docker", SOON, || {
        vec![Host::up("h", [].into()).stopped([id.clone()].into())]
    });
}

#[test]
fn a_real_engine_filters_in_the_same_way() {
    need!(redis, docker);
    let (redis, machine) = (Redis::start(), Machine::get());
    let docker = &machine.docker;
    let first = docker.run("a", &["--label", "tier=web"], &[]);
    docker.run("b", &["--label", "tier=db"], &[]);
    let filter = machine.filter();
    let options = ["--filter", &filter, "--filter", "label=tier=web"];
    let _agent = Agent::watch_with("h", &docker.url, &redis.url(), Agent::SELDOM_S, &options);
    let is = |ids: &[&String]| {
        oracle::settle(&redis, "docker", SOON, || {
            let running = ids.iter().map(|id| (*id).clone()).collect();
            vec![Host::up("h", running)]
        });
    };
    is(&[&first]);
    let second = docker.run("c", &["--label", "tier=web"], &[]);
    docker.run("d", &[], &[]);
    is(&[&first, &second]);
    docker.docker(&["kill", &first]);
    is(&[&second]);
}
