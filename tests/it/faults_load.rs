//! Load: events flow while Redis is away, storms. The engine is never made to wait, and memory stays bounded.
// Measured figures are for who runs a test by hand.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::docker::Dockerd;
use crate::kit::http::post;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::scene::Scene;
use crate::kit::{seconds, wait_until};

/// What ends up right within a second or three does so within this on two busy processors.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn fault_7_redis_down_while_20000_events_flow_makes_no_engine_wait_and_no_handler_late() {
    need!(redis);
    const EVENTS: u64 = 20_000;
    let mut scene = Scene::new();
    let engine = scene.engine("d");
    let ids: Vec<String> = (0..20)
        .map(|number| engine.run(Spec::named(&format!("c{number}"))))
        .collect();
    let agent = scene.watch(&[("h", &engine.url())], &["-updateInterval=5s"]);
    scene.settle(SOON, &[("h", &engine)]);
    let rss_before = agent.rss_kb();
    scene.redis.kill9();

    let (mut worst, mut late) = (Duration::ZERO, Duration::ZERO);
    let began = Instant::now();
    let mut wanted = Vec::new();
    for number in 0..EVENTS {
        let id = &ids[number as usize % ids.len()];
        let called = Instant::now();
        if number % 4000 == 2000 {
            engine.rename(id, &format!("r{number}"));
            wanted.push(format!("h rename r{number}"));
            wait_until(SOON, "the handler runs", || {
                scene.runs().contains_key(&wanted[wanted.len() - 1])
            });
            late = late.max(called.elapsed());
        } else {
            engine.update(id, number << 20);
            worst = worst.max(called.elapsed());
        }
    }
    println!(
        "{EVENTS} events in {:?}; the engine waited {worst:?} at most, a handler {late:?}; {} kB before, {} kB after",
        began.elapsed(),
        rss_before,
        agent.rss_kb()
    );
    let spared = spared(&engine);
    assert!(worst < seconds(1), "{worst:?}");
    assert!(late < seconds(2), "{late:?}");
    assert!(agent.rss_kb() < 128 << 10, "{} kB", agent.rss_kb());
    scene.redis.restart();
    scene.settle(SOON, &[("h", &engine)]);
    let lines: Vec<&str> = wanted.iter().map(String::as_str).collect();
    scene.expect_runs(SOON, &lines);
    assert!(!spared || scene.number("h", "gaps") == 0, "{}", agent.log());
}

#[test]
fn fault_7_docker_rename_takes_as_long_with_redis_down_as_with_no_agent_at_all() {
    need!(redis, dockerd);
    // More than a queue of 1,024 and the buffers of a socket hold.
    const RENAMES: usize = 1800;
    let mut scene = Scene::new();
    let dockerd = Dockerd::start();
    let id = dockerd.run("a", &[], &[]);
    let place = dockerd.docker.place();
    let rename = |number: usize| {
        let name = format!("{}r{number}", dockerd.docker.prefix);
        let began = Instant::now();
        let reply = post(&place, &format!("/containers/{id}/rename?name={name}"));
        assert_eq!(reply.status, 204, "{}", reply.body);
        began.elapsed()
    };
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let alone = median((0..200).map(rename).collect());
    // The handler's commands would only compete for the processors.
    let url = format!("-docker={}", dockerd.docker.url);
    let cache = format!("-cache={}", scene.redis.url());
    let agent = crate::kit::agent::Agent::start(&["-id=real", &url, &cache, "-updateInterval=5s"]);
    let settle = |scene: &Scene| {
        oracle::settle(&scene.redis, "docker", SOON, || {
            vec![Host::up("real", dockerd.docker.running()).at(&place)]
        });
    };
    settle(&scene);
    scene.redis.kill9();
    let times: Vec<Duration> = (200..RENAMES).map(rename).collect();
    let slow = times
        .iter()
        .filter(|time| **time > Duration::from_millis(95))
        .count();
    let watched = median(times);
    println!(
        "a rename takes {alone:?} alone, {watched:?} watched; {slow} of {RENAMES} took 100 ms"
    );
    assert!(
        watched < 4 * alone + Duration::from_millis(10),
        "{alone:?}, {watched:?}"
    );
    assert!(slow < RENAMES / 20, "{slow} renames waited");
    scene.redis.restart();
    settle(&scene);
    assert_eq!(scene.number("real", "gaps"), 0, "{}", agent.log());
}

#[test]
fn fault_8_a_storm_of_health_checks_drops_nothing_and_is_over_within_a_second_of_its_end() {
    need!(redis);
    const CONTAINERS: usize = 300;
    const ROUNDS: usize = 10;
    let scene = Scene::new();
    let engine = scene.engine("d");
    let ids: Vec<String> = (0..CONTAINERS)
        .map(|number| engine.run(Spec::named(&format!("c{number}")).health_check()))
        .collect();
    let agent = scene.watch(&[("h", &engine.url())], &[]);
    scene.settle(SOON, &[("h", &engine)]);
    let before = engine.events_published();
    let began = Instant::now();
    for round in 0..ROUNDS {
        for id in &ids {
            engine.exec(id, "/bin/sh -c check");
            if round % 3 == 0 {
                engine.health(
                    id,
                    if round % 2 == 0 {
                        "healthy"
                    } else {
                        "unhealthy"
                    },
                );
            }
        }
    }
    for id in &ids {
        engine.update(id, 64 << 20);
    }
    let ended = Instant::now();
    let count = engine.events_published() - before;
    all_show(&scene, &ids, 64 << 20);
    println!(
        "{count} events in {:?}, right {:?} after the end, {} kB",
        ended - began,
        ended.elapsed(),
        agent.rss_kb()
    );
    assert!(count >= 9_000, "{count}");
    assert!(ended.elapsed() < seconds(10), "{:?}", ended.elapsed());
    assert!(agent.rss_kb() < 128 << 10, "{} kB", agent.rss_kb());
    let spared = spared(&engine);
    scene.settle(SOON, &[("h", &engine)]);
    assert!(!spared || scene.number("h", "gaps") == 0, "{}", agent.log());
}

/// Did the engine drop none for us? On a machine so busy that our reader is not run for 100 ms it may drop a few; then that is a gap.
fn spared(engine: &Engine) -> bool {
    let (dropped, all) = (engine.events_dropped(), engine.events_published());
    println!("{dropped} of {all} events were dropped");
    assert!(
        dropped <= all / 1000,
        "{dropped} of {all} events were dropped"
    );
    dropped == 0
}

/// Waits until Redis shows this memory for all containers.
fn all_show(scene: &Scene, ids: &[String], memory: u64) {
    let mut redis = scene.redis.connect();
    wait_until(SOON, "the last events show", || {
        let mut all = redis::pipe();
        for id in ids {
            all.hget(format!("docker:containers:{id}"), "hostconfig_memory");
        }
        let found: Vec<Option<u64>> = all.query(&mut redis).unwrap_or_default();
        let right = found.iter().filter(|found| **found == Some(memory)).count();
        (right == ids.len())
            .then_some(())
            .ok_or(format!("{right} of {}", ids.len()))
    });
}

#[test]
fn fault_8_one_engine_s_storm_costs_the_others_nothing() {
    need!(redis);
    let scene = Scene::new();
    let (storm, calm) = (scene.engine("s"), scene.engine("c"));
    let id = storm.run(Spec::named("a"));
    let other = calm.run(Spec::named("b"));
    let agent = scene.watch(&[("storm", &storm.url()), ("calm", &calm.url())], &[]);
    let both: [(&str, &Engine); 2] = [("storm", &storm), ("calm", &calm)];
    scene.settle(SOON, &both);
    let mut worst = Duration::ZERO;
    std::thread::scope(|scope| {
        let blowing = scope.spawn(|| (0..10_000).for_each(|_| storm.top(&id)));
        let mut turn = 0;
        while !blowing.is_finished() {
            turn += 1;
            let began = Instant::now();
            calm.update(&other, turn << 20);
            all_show(&scene, std::slice::from_ref(&other), turn << 20);
            worst = worst.max(began.elapsed());
        }
    });
    println!("a change elsewhere showed after {worst:?} at the latest");
    assert!(worst < seconds(2), "{worst:?}");
    scene.settle(SOON, &both);
    assert_eq!(scene.number("calm", "gaps"), 0, "{}", agent.log());
    spared(&storm);
}
