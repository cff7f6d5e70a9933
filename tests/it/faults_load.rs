//! Load: events flow while Redis is away, storms. The engine is never made to wait, and memory stays bounded.
// Measured figures are for who runs a test by hand.
#![allow(clippy::print_stdout)]

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::docker::Dockerd;
use crate::kit::http::{Stream, post};
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::pulse::Pulse;
use crate::kit::scene::Scene;
use crate::kit::times::Times;
use crate::kit::{seconds, wait_until};

/// So long an engine waits for one who does not read, and a little less.
const WAITS: Duration = Duration::from_millis(95);

/// After so many events a busy machine may need so long.
const LATER: Duration = seconds(60);

#[test]
fn timed_fault_7_redis_down_while_20000_events_flow_makes_no_engine_wait_and_no_handler_late() {
    need!(redis);
    const EVENTS: u64 = 20_000;
    let mut scene = Scene::new();
    let (engine, calm) = (scene.engine("d"), scene.engine("c"));
    let ids: Vec<String> = (0..20)
        .map(|number| engine.run(Spec::named(&format!("c{number}"))))
        .collect();
    let agent = scene.watch(
        &[("h", &engine.url()), ("calm", &calm.url())],
        &["-updateInterval=5s"],
    );
    let rss_before = agent.rss_kb();
    let both = [("h", &engine), ("calm", &calm)];
    scene.settle(LATER, &both);
    scene.redis.kill9();

    let mut calls = Vec::new();
    // They flow, at 2,000 a second: a storm is another fault.
    let mut flow = || {
        let began = Instant::now();
        for number in 0..EVENTS / 2 {
            let id = &ids[number as usize % ids.len()];
            let called = Instant::now();
            engine.update(id, number << 20);
            calls.push(called.elapsed());
            let next = began + Duration::from_micros(500) * number as u32;
            sleep(next.saturating_duration_since(Instant::now()));
        }
    };
    // Handlers of the engine of the events itself, and of another.
    let own = Pulse::of(&scene, "h", &engine).of_handlers();
    own.is_in_time("without Redis", &mut flow);
    let other = Pulse::of(&scene, "calm", &calm).of_handlers();
    other.is_in_time("without Redis, another engine", &mut flow);
    let calls: Times = calls.into_iter().collect();
    println!(
        "an event cost the engine: {calls}; {rss_before} kB before, {} kB after",
        agent.rss_kb()
    );
    let spared = spared(&engine);
    assert!(calls.percentile(99) < Duration::from_millis(10), "{calls}");
    assert!(calls.worst() < WAITS, "{calls}");
    assert!(agent.rss_kb() < 128 << 10, "{} kB", agent.rss_kb());
    drop((own, other));
    scene.redis.restart();
    scene.settle(LATER, &both);
    assert!(!spared || scene.number("h", "gaps") == 0, "{}", agent.log());
}

#[test]
fn timed_fault_7_docker_rename_takes_as_long_with_redis_down_as_with_no_agent_at_all() {
    need!(redis, dockerd);
    // More than a queue of 1,024 and the buffers of a socket hold.
    const RENAMES: usize = 1500;
    const CONTAINERS: usize = 8;
    let mut scene = Scene::new();
    let engines = [Dockerd::start(), Dockerd::start()];
    let ids = [0, 1].map(|at: usize| {
        let run = |number| engines[at].run(&format!("c{number}"), &[], &[]);
        (0..CONTAINERS).map(run).collect::<Vec<String>>()
    });
    let rename = |at: usize, number: usize| {
        let (id, prefix) = (&ids[at][number % CONTAINERS], &engines[at].docker.prefix);
        let path = format!("/containers/{id}/rename?name={prefix}r{number}");
        let began = Instant::now();
        let reply = post(&engines[at].docker.place(), &path);
        assert_eq!(reply.status, 204, "{}", reply.body);
        began.elapsed()
    };
    // One of the two has an agent; its handlers' commands would only compete for the processors.
    let place = engines[0].docker.place();
    let agent = Agent::watch("real", &engines[0].docker.url, &scene.redis.url(), 5);
    let settle = |scene: &Scene| {
        oracle::settle(&scene.redis, "docker", LATER, || {
            vec![Host::up("real", engines[0].docker.running()).at(&place)]
        });
    };
    settle(&scene);
    scene.redis.kill9();
    let (mut watched, mut alone) = (Vec::new(), Vec::new());
    for number in 0..RENAMES {
        watched.push(rename(0, number));
        alone.push(rename(1, number));
    }
    let (watched, alone): (Times, Times) =
        (watched.into_iter().collect(), alone.into_iter().collect());
    println!("a rename alone: {alone}");
    println!("a rename watched: {watched}");
    // What is left of a difference is the engine's own work for the agent's inspects, and noise.
    let (with, without) = (watched.median(), alone.median());
    let bound = without * 5 / 4 + Duration::from_millis(1);
    assert!(with < bound, "{with:?} with, {without:?} without");
    assert!(watched.percentile(99) < WAITS, "{watched}");
    scene.redis.restart();
    settle(&scene);
    assert_eq!(scene.number("real", "gaps"), 0, "{}", agent.log());
}

#[test]
fn timed_fault_8_a_storm_of_health_checks_drops_nothing_and_is_over_within_a_second_of_its_end() {
    need!(redis);
    let scene = Scene::new();
    let (engine, bare) = (scene.engine("d"), scene.engine("bare"));
    let ids = checked(&engine);
    let agent = scene.report(&engine, &[]);
    read_beside(&engine);
    // Two controls: a storm that an engine tells to nobody but such a reader, and as many changes with no storm before them.
    read_beside(&bare);
    let alone = storm(&bare, &checked(&bare));
    let change_all = |memory: u64| {
        ids.iter().for_each(|id| engine.update(id, memory));
        let ended = Instant::now();
        all_show(&scene, &ids, memory);
        ended.elapsed()
    };
    let calm = change_all(32 << 20);
    let before = engine.events_published();
    let blown = storm(&engine, &ids);
    let right = change_all(64 << 20);
    let count = engine.events_published() - before;
    let calm = calm.max(change_all(96 << 20));
    println!(
        "{count} events in {blown:?}, {alone:?} without the agent, right {right:?} after the end, {calm:?} without a storm, {} kB",
        agent.rss_kb()
    );
    assert!(count >= 10_000, "{count}");
    // It is a storm, and the engine is not held up in it.
    assert!(
        blown < seconds(10) && blown < alone * 3 + seconds(1),
        "{blown:?}, {alone:?}"
    );
    // On a machine so busy that even without a storm it takes long, a second is too short; more than five are none of this test's.
    assert!(calm < seconds(5), "{calm:?} without a storm");
    assert!(right < seconds(1).max(calm * 3), "{right:?}, {calm:?}");
    assert!(agent.rss_kb() < 128 << 10, "{} kB", agent.rss_kb());
    let spared = spared(&engine);
    scene.settle(LATER, &[("h", &engine)]);
    assert!(!spared || scene.number("h", "gaps") == 0, "{}", agent.log());
}

/// Puts 300 containers with health checks there.
fn checked(engine: &Engine) -> Vec<String> {
    (0..300)
        .map(|number| engine.run(Spec::named(&format!("c{number}")).health_check()))
        .collect()
}

/// Ten rounds of their checks, of which some come out otherwise than before: how long the engine took to tell of them.
fn storm(engine: &Engine, ids: &[String]) -> Duration {
    let began = Instant::now();
    for round in 0..10 {
        for id in ids {
            engine.exec(id, "/bin/sh -c check");
            if round % 3 == 0 {
                let health = ["healthy", "unhealthy"][round % 2];
                engine.health(id, health);
            }
        }
    }
    began.elapsed()
}

/// Starts a thread that reads the events of this engine and does nothing else, as its only other reader beside an agent: the control of [`spared`].
fn read_beside(engine: &Engine) {
    let others = engine.subscribers();
    let mut stream = Stream::open(engine.place(), "/v1.41/events");
    wait_until(LATER, "the bare reader is subscribed", || {
        engine.subscribers() > others
    });
    // It ends with its engine, or with the events.
    std::thread::spawn(move || while stream.chunk().is_some() {});
}

/// Did the engine drop none for us? A few it may only where it dropped some for a bare reader, too, at the same time; then that is a gap.
#[track_caller]
fn spared(engine: &Engine) -> bool {
    let dropped = engine.events_dropped_each();
    let [ours, ref beside @ ..] = dropped[..] else {
        panic!("nobody reads");
    };
    let bare: u64 = beside.iter().sum();
    let all = engine.events_published();
    println!("{ours} of {all} events were dropped, for a bare reader {bare}");
    assert!(
        ours == 0 || (bare > 0 && ours <= all / 1000),
        "{ours} of {all} events were dropped, for a bare reader {bare}"
    );
    ours == 0
}

/// Waits until Redis shows this memory for all containers.
fn all_show(scene: &Scene, ids: &[String], memory: u64) {
    let mut redis = scene.redis.connect();
    wait_until(LATER, "the last events show", || {
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
fn timed_fault_8_one_engine_s_storm_costs_the_others_nothing() {
    need!(redis);
    let scene = Scene::new();
    let (storm, calm) = (scene.engine("s"), scene.engine("c"));
    let id = storm.run(Spec::named("a"));
    let pulse = Pulse::of(&scene, "calm", &calm);
    let agent = scene.watch(&[("storm", &storm.url()), ("calm", &calm.url())], &[]);
    let both: [(&str, &Engine); 2] = [("storm", &storm), ("calm", &calm)];
    scene.settle(LATER, &both);
    read_beside(&storm);
    pulse.is_in_time("a storm elsewhere", || {
        (0..10_000).for_each(|_| storm.top(&id));
    });
    spared(&storm);
    scene.settle(LATER, &both);
    assert_eq!(scene.number("calm", "gaps"), 0, "{}", agent.log());
}
