//! Several agents at one Redis: dead hosts, and who may write what.

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::TempDir;
use crate::kit::agent::Agent;
use crate::kit::listen::Notices;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::proxy::Proxy;
use crate::kit::redis::Redis;
use crate::kit::scene::{SOON, Stage, engine};
use crate::kit::{seconds, wait_until};

/// Engines with a container each, and agents that report them as `h0`, `h1`, …
fn cluster(count: usize, redis: &Redis, interval_s: u64) -> Vec<(Agent, Engine)> {
    let one = |number: usize| {
        let engine = engine();
        engine.run(Spec::named("a"));
        let own = format!("own{number}:1");
        engine.run(Spec::named("b").image(&own));
        let id = format!("h{number}");
        let agent = Agent::watch(&id, &engine.url(), &redis.url(), interval_s);
        (agent, engine)
    };
    let hosts: Vec<_> = (0..count).map(one).collect();
    for (agent, _) in &hosts {
        agent.wait_log("Reported", SOON);
    }
    hosts
}

fn reported(hosts: &[(Agent, Engine)]) -> Vec<Host> {
    let host = |(number, (_, engine)): (usize, &(Agent, Engine))| {
        Host::up(&format!("h{number}"), engine.running())
    };
    hosts.iter().enumerate().map(host).collect()
}

#[test]
fn a_dead_host_is_lost_and_then_expired_once() {
    need!(redis);
    let redis = Redis::start();
    let mut hosts = cluster(4, &redis, 8);
    oracle::settle(&redis, "docker", SOON, || reported(&hosts));
    let notices = Notices::of(&redis, "docker_events");
    let (mut agent, engine) = hosts.pop().unwrap();
    agent.kill9();
    notices.until_so("host_down:h3", seconds(12) + SOON, || {
        let status: String = redis.query(&["HGET", "docker:hosts:h3", "status"]);
        (status == "lost").then_some(()).ok_or(status)
    });
    for id in engine.running() {
        let key = format!("docker:containers:{id}");
        assert!(redis.query::<bool>(&["EXISTS", &key]), "it may well run on");
    }
    let told = notices.until("expired_host:h3", seconds(16) + SOON);
    assert!(!told.contains(&"host_down:h3".to_owned()), "once: {told:?}");
    oracle::settle(&redis, "docker", SOON, || reported(&hosts));
    for number in 0..3 {
        notices.until(&format!("refresh_containers:h{number}"), SOON);
    }
    let told = notices.so_far().concat();
    assert!(!told.contains("h3"), "once: {told}");
    let buried = |(agent, _): &&(Agent, Engine)| agent.log().contains("host `h3` has expired");
    assert_eq!(hosts.iter().filter(buried).count(), 1);
}

#[test]
fn a_dead_host_is_said_to_be_lost_however_short_its_interval() {
    need!(redis);
    let redis = Redis::start();
    let mut hosts = cluster(2, &redis, 1);
    let notices = Notices::of(&redis, "docker_events");
    let (mut agent, _engine) = hosts.pop().unwrap();
    agent.kill9();
    let told = notices.until("expired_host:h1", seconds(14) + SOON);
    assert!(told.contains(&"host_down:h1".to_owned()), "{told:?}");
    oracle::settle(&redis, "docker", SOON, || reported(&hosts));
}

#[test]
fn a_stopped_host_expires_without_being_lost() {
    need!(redis);
    let redis = Redis::start();
    let mut hosts = cluster(2, &redis, 2);
    let notices = Notices::of(&redis, "docker_events");
    let (mut agent, _engine) = hosts.pop().unwrap();
    agent.stop(SOON);
    let told = notices.until("expired_host:h1", SOON);
    assert!(!told.contains(&"host_down:h1".to_owned()), "{told:?}");
    oracle::settle(&redis, "docker", SOON, || reported(&hosts));
}

#[test]
fn a_host_that_comes_back_from_the_dead_writes_itself_anew() {
    need!(redis);
    let redis = Redis::start();
    let mut hosts = cluster(2, &redis, 2);
    let notices = Notices::of(&redis, "docker_events");
    hosts[1].0.freeze();
    notices.until("expired_host:h1", seconds(12) + SOON);
    oracle::settle(&redis, "docker", SOON, || reported(&hosts[..1]));
    hosts[1].1.run(Spec::named("c"));
    hosts[1].0.thaw();
    oracle::settle(&redis, "docker", SOON, || reported(&hosts));
}

#[test]
fn of_two_agents_with_one_id_the_second_says_so_and_writes_nothing() {
    need!(redis);
    let mut stage = Stage::start(2, &[], |engine| {
        engine.run(Spec::named("a"));
    });
    let other = engine();
    other.run(Spec::named("x"));
    let second = Agent::watch("h", &other.url(), &stage.redis.url(), 2);
    second.wait_log("is not written: another agent", SOON);
    stage.settle();
    stage.notices.so_far();
    for _ in 0..3 {
        stage.notices.until("refresh_containers:h", SOON);
        oracle::check(&stage.redis, "docker", &[stage.host()]).unwrap();
    }
    other.run(Spec::named("y"));
    stage.settle();
    assert_eq!(second.log().matches("is not written").count(), 1);

    // It takes over when the first one stops.
    stage.agent.stop(SOON);
    oracle::settle(&stage.redis, "docker", SOON, || {
        vec![Host::up("h", other.running())]
    });
}

#[test]
fn one_engine_is_not_reported_under_two_host_ids() {
    need!(redis);
    let mut stage = Stage::start(2, &[], |engine| {
        engine.run(Spec::named("a"));
    });
    let second = Agent::watch("i", &stage.engine.url(), &stage.redis.url(), 2);
    second.wait_log("under the host id `h` already", SOON);
    for id in stage.engine.running() {
        let host: String = stage
            .redis
            .query(&["HGET", &format!("docker:containers:{id}"), "host"]);
        assert_eq!(host, "h", "the second wrote a container of the first");
    }
    stage.settle();
    stage.agent.stop(SOON);
    wait_until(
        seconds(12) + SOON,
        "the second takes over, and the first expires",
        || {
            oracle::check(
                &stage.redis,
                "docker",
                &[Host::up("i", stage.engine.running())],
            )
        },
    );
}

#[test]
fn a_second_host_id_of_an_engine_that_answers_at_last_is_gone_at_once() {
    need!(redis);
    let stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        engine.run(Spec::named("a"));
    });
    let proxy = Proxy::unix(&stage.engine.url());
    proxy.refuse(true);
    let second = Agent::watch("i", &proxy.url(), &stage.redis.url(), Agent::SELDOM_S);
    wait_until(SOON, "its engine is down", || {
        let status: Option<String> = stage.redis.query(&["HGET", "docker:hosts:i", "status"]);
        status.as_deref() == Some("down")
    });
    proxy.refuse(false);
    second.wait_log("under the host id `h` already", SOON);
    stage.settle();
}

#[test]
fn one_agent_reports_a_whole_cluster_one_engine_of_which_is_down() {
    need!(redis);
    let (foo, bar, redis) = (engine(), engine(), Redis::start());
    foo.run(Spec::named("a"));
    bar.run(Spec::named("a"));
    bar.go_down();
    let folder = TempDir::new();
    let text = format!(
        "cluster:\n  foo: {}\n  bar: {}\nevents: []\n",
        foo.url(),
        bar.url()
    );
    let file = folder.write("events.yml", &text);
    let args = [
        file.to_string_lossy().into_owned(),
        format!("-cache={}", redis.url()),
    ];
    let agent = Agent::start(&args);
    agent.wait_log("Reported 1 containers", SOON);
    let status = || redis.query::<Option<String>>(&["HGET", "docker:hosts:bar", "status"]);
    wait_until(SOON, "bar is down", || status() == Some("down".into()));
    let id = foo.run(Spec::named("b"));
    wait_until(SOON, "foo goes on", || {
        redis.query::<bool>(&["SISMEMBER", "docker:containers", &id])
    });
    bar.come_up().unwrap();
    oracle::settle(&redis, "docker", SOON, || {
        vec![
            Host::up("foo", foo.running()),
            Host::up("bar", bar.running()),
        ]
    });
}
