//! Load: events flow while Redis is away, storms. The engine is never made to wait, and memory stays bounded.
// Measured figures are for who runs a test by hand.
#![allow(clippy::print_stdout)]

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::docker::Dockerd;
use crate::kit::http::{Stream, get, post};
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
    let ids = twenty(&engine);
    let agent = scene.watch(
        &[("h", &engine.url()), ("calm", &calm.url())],
        &["-updateInterval=5s"],
    );
    let rss_before = agent.rss_kb();
    let both = [("h", &engine), ("calm", &calm)];
    scene.settle(LATER, &both);
    scene.redis.kill9();

    let (mut calls, mut control) = (Vec::new(), Vec::new());
    // They flow, at 2,000 a second: a storm is another fault. Another engine tells as many.
    let mut flow = |without: &Engine| {
        let began = Instant::now();
        let others = twenty(without);
        for number in 0..EVENTS / 2 {
            let at = number as usize % ids.len();
            for (engine, id, calls) in [
                (&engine, &ids[at], &mut calls),
                (without, &others[at], &mut control),
            ] {
                let called = Instant::now();
                engine.update(id, number << 20);
                calls.push(called.elapsed());
            }
            let next = began + Duration::from_micros(500) * number as u32;
            sleep(next.saturating_duration_since(Instant::now()));
        }
    };
    // Handlers of the engine of the events itself: the control, which has its Redis, has as many to carry.
    let own = Pulse::of(&scene, "h", &engine).of_handlers();
    own.is_in_time("without Redis", || flow(own.control()));
    // Handlers of another engine, and of a control that has nothing else to do; the other events go to a bare reader.
    let other = Pulse::of(&scene, "calm", &calm).of_handlers();
    let bare = scene.engine("b");
    read_beside(&bare);
    other.is_in_time("without Redis, another engine", || flow(&bare));
    let (calls, control): (Times, Times) =
        (calls.into_iter().collect(), control.into_iter().collect());
    println!(
        "an event cost the engine: {calls}; {rss_before} kB before, {} kB after",
        agent.rss_kb()
    );
    println!("an event cost the control: {control}");
    let spared = spared(&engine);
    let few = Duration::from_millis(10).max(control.percentile(99) * 2);
    assert!(calls.percentile(99) < few, "{calls}, control: {control}");
    let most = WAITS.max(control.worst() * 2);
    assert!(calls.worst() < most, "{calls}, control: {control}");
    assert!(agent.rss_kb() < 128 << 10, "{} kB", agent.rss_kb());
    drop((own, other));
    scene.redis.restart();
    scene.settle(LATER, &both);
    assert!(!spared || scene.number("h", "gaps") == 0, "{}", agent.log());
}

fn twenty(engine: &Engine) -> Vec<String> {
    (0..20)
        .map(|number| engine.run(Spec::named(&format!("c{number}"))))
        .collect()
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
    // The quietest of fifteen rounds. What is left of a difference is the engine's own work for the agent's inspects, and noise.
    let quietest = |times: &[Duration]| {
        let rounds = times.chunks(RENAMES / 15);
        let medians = rounds.map(|round| round.iter().copied().collect::<Times>().median());
        medians.min().unwrap_or_default()
    };
    let (with, without) = (quietest(&watched), quietest(&alone));
    // An engine that waits does so for each event that its queue has no room for: for hundreds.
    let waits = |times: &[Duration]| times.iter().filter(|time| **time >= WAITS).count();
    let (waited, granted) = (waits(&watched), waits(&alone) * 2 + RENAMES / 100);
    for (which, times) in [("alone", alone), ("watched", watched)] {
        let times: Times = times.into_iter().collect();
        println!("a rename {which}: {times}");
    }
    println!("the quietest round: {with:?} with, {without:?} without; {waited} waits of {granted}");
    let bound = without * 5 / 4 + Duration::from_millis(1);
    assert!(with < bound, "{with:?} with, {without:?} without");
    assert!(
        waited <= granted,
        "{waited} of {RENAMES}, {granted} granted"
    );
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
    // A control: a storm that an engine tells to nobody but such a reader.
    read_beside(&bare);
    let alone = storm(&bare, &checked(&bare));
    let bare_before = mirrored(&scene, &engine, &ids);
    let before = engine.events_published();
    let blown = storm(&engine, &ids);
    ids.iter().for_each(|id| engine.update(id, 64 << 20));
    let ended = Instant::now();
    all_show(&scene, &ids, 64 << 20);
    let right = ended.elapsed();
    let count = engine.events_published() - before;
    let looped = bare_before.max(mirrored(&scene, &engine, &ids));
    println!(
        "{count} events in {blown:?}, {alone:?} without the agent, right {right:?} after the end, {looped:?} a bare loop, {} kB",
        agent.rss_kb()
    );
    assert!(count >= 10_000, "{count}");
    // It is a storm, and the engine is not held up in it.
    assert!(
        blown < seconds(10) && blown < alone * 3 + seconds(1),
        "{blown:?}, {alone:?}"
    );
    // Where a second is too short, it is for whoever does nothing but that work as well: the agent takes about as long as such a loop.
    assert!(
        right < seconds(1).max(looped * 2),
        "{right:?}, a bare loop {looped:?}"
    );
    assert!(agent.rss_kb() < 128 << 10, "{} kB", agent.rss_kb());
    let spared = spared(&engine);
    scene.settle(LATER, &[("h", &engine)]);
    assert!(!spared || scene.number("h", "gaps") == 0, "{}", agent.log());
}

/// How long it takes to inspect these containers and to write what is found, one after the other and nothing else.
fn mirrored(scene: &Scene, engine: &Engine, ids: &[String]) -> Duration {
    let mut redis = scene.redis.connect();
    let began = Instant::now();
    for id in ids {
        let reply = get(engine.place(), &format!("/v1.41/containers/{id}/json"));
        let mut fields: Vec<(String, String)> = Vec::new();
        for (part, within) in reply.json().as_object().into_iter().flatten() {
            for (name, value) in within.as_object().into_iter().flatten() {
                fields.push((format!("{part}_{name}"), value.to_string()));
            }
        }
        let key = format!("bare:{id}");
        let mut all = redis::pipe();
        all.atomic()
            .del(&key)
            .hset_multiple(&key, &fields)
            .set(format!("{key}:json"), &reply.body);
        all.publish("bare_events", &key);
        all.exec(&mut redis).expect("a transaction");
    }
    let took = began.elapsed();
    // The oracle knows nothing of it.
    for id in ids {
        scene
            .redis
            .query::<()>(&["DEL", &format!("bare:{id}"), &format!("bare:{id}:json")]);
    }
    took
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
