//! Inspects that fail, or hang: what becomes of their container, and of the others of its engine.
// Measured figures are for who runs a test by hand.
#![allow(clippy::print_stdout)]

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::engine::containers::Spec;
use crate::engine::{Behaviour, Engine, Route};
use crate::faults_engine::nothing_leaked;
use crate::kit::need::need;
use crate::kit::pulse::Pulse;
use crate::kit::scene::{SOON, Scene};
use crate::kit::times::Times;
use crate::kit::{seconds, wait_until};

/// An inspect may take half a second before its container is given a thread of its own.
const PATIENCE: Duration = Duration::from_millis(500);

#[test]
fn timed_fault_9_churn_404_and_an_inspect_that_hangs_make_only_that_container_late() {
    need!(redis);
    const CHURN: usize = 60;
    let scene = Scene::new();
    let engine = scene.engine("d");
    let stuck = engine.run(Spec::named("stuck"));
    // The other containers of the same engine.
    let pulse = Pulse::of(&scene, "h", &engine);
    let agent = scene.report(&engine, &["-updateInterval=2s"]);
    let (threads, fds) = (agent.threads(), agent.fds());

    let mut wanted = vec!["h rename renamed".to_owned()];
    pulse.is_in_time_but_for(PATIENCE, "an inspect begins to hang", || {
        engine.misbehave(Route::InspectOf(stuck.clone()), Behaviour::Hang);
        engine.rename(&stuck, "renamed");
        sleep(seconds(3));
    });
    pulse.is_in_time("an inspect hangs", || {
        for number in 0..CHURN {
            let id = engine.run(Spec::named(&format!("rm{number}")).auto_remove());
            sleep(Duration::from_millis(number as u64 % 4 * 10));
            engine.stop(&id);
            for word in ["start", "die", "destroy"] {
                wanted.push(format!("h {word} rm{number}"));
            }
        }
        // Resyncs go on without it.
        for _ in 0..2 {
            let before = scene.number("h", "resyncs");
            wait_until(SOON, "a resync is closed", || {
                scene.number("h", "resyncs") > before
            });
        }
    });
    let lines: Vec<&str> = wanted.iter().map(String::as_str).collect();
    scene.expect_runs(SOON, &lines);
    let name = || scene.field(&stuck, "name");
    assert_eq!(name(), "/stuck", "it keeps its last state");
    engine.behave(&Route::InspectOf(stuck.clone()));
    scene.settle(SOON, &[("h", &engine)]);
    assert_eq!(name(), "/renamed");
    nothing_leaked(&agent, &threads, fds);
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

#[test]
fn fault_9_the_inspect_of_another_container_is_taken_for_none() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let [one, other] = ["one", "other"].map(|name| engine.run(Spec::named(name)));
    let _agent = scene.report(&engine, &["-updateInterval=60s"]);
    let route = Route::InspectOf(one.clone());
    let asked = engine.requests(&route);
    engine.misbehave(route.clone(), Behaviour::Another(other.clone()));
    engine.rename(&one, "renamed");
    wait_until(SOON, "it is asked again and again", || {
        engine.requests(&route) >= asked + 3
    });
    let stands = |id: &str| (scene.field(id, "id"), scene.field(id, "name"));
    assert_eq!(stands(&one), (one.clone(), "/one".to_owned()));
    assert_eq!(stands(&other), (other.clone(), "/other".to_owned()));
    engine.behave(&route);
    scene.settle(SOON, &[("h", &engine)]);
}

#[test]
fn fault_9_an_inspect_that_hangs_for_more_than_a_minute_is_asked_seldom_and_holds_up_nothing() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let (stuck, other) = (
        engine.run(Spec::named("stuck")),
        engine.run(Spec::named("other")),
    );
    let agent = scene.report(&engine, &["-updateInterval=2s"]);
    let (threads, fds) = (agent.threads(), agent.fds());
    let route = Route::InspectOf(stuck.clone());
    let asked = engine.requests(&route);
    let resyncs = scene.number("h", "resyncs");
    engine.misbehave(route.clone(), Behaviour::Hang);
    engine.rename(&stuck, "renamed");
    let began = Instant::now();
    for turn in 0.. {
        let name = format!("turn-{turn}");
        engine.rename(&other, &name);
        wait_until(SOON, "another container's change shows", || {
            scene.field(&other, "name") == format!("/{name}")
        });
        if began.elapsed() > seconds(70) {
            break;
        }
        sleep(seconds(1));
    }
    let asked = engine.requests(&route) - asked;
    let resyncs = scene.number("h", "resyncs") - resyncs;
    println!("asked {asked} times, {resyncs} resyncs");
    assert!(asked <= 5, "asked {asked} times");
    assert!(resyncs >= 20, "{resyncs} resyncs");
    engine.behave(&route);
    scene.settle(SOON, &[("h", &engine)]);
    nothing_leaked(&agent, &threads, fds);
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

/// Renames these containers all at once, and says how long after that each shows in Redis.
#[track_caller]
fn renamed(scene: &Scene, engine: &Engine, ids: &[String], turn: &str, shows: &[String]) -> Times {
    let name = |id: &String| format!("{turn}-{}", &id[..12]);
    let began = Instant::now();
    ids.iter().for_each(|id| engine.rename(id, &name(id)));
    let mut redis = scene.redis.connect();
    let mut left: Vec<&String> = shows.iter().collect();
    let mut times = Vec::new();
    wait_until(seconds(120), "all names show", || {
        let mut all = redis::pipe();
        for id in &left {
            all.hget(format!("docker:containers:{id}"), "name");
        }
        let found: Vec<Option<String>> = all.query(&mut redis).unwrap_or_default();
        let mut found = found.into_iter();
        left.retain(|id| {
            let shown = found.next().flatten() == Some(format!("/{}", name(id)));
            times.extend(shown.then(|| began.elapsed()));
            !shown
        });
        left.is_empty()
            .then_some(())
            .ok_or(format!("{} are left", left.len()))
    });
    times.into_iter().collect()
}

/// The first ids hang, spread among the others; those are given back.
fn hang_every(engine: &Engine, ids: &[String], nth: usize) -> (Vec<String>, Vec<String>) {
    let numbered: Vec<(usize, String)> = ids.iter().cloned().enumerate().collect();
    let (hung, others): (Vec<_>, Vec<_>) = numbered.into_iter().partition(|(at, _)| at % nth == 0);
    let ids = |of: Vec<(usize, String)>| of.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    let (hung, others) = (ids(hung), ids(others));
    for id in &hung {
        engine.misbehave(Route::InspectOf(id.clone()), Behaviour::Hang);
    }
    (hung, others)
}

#[test]
fn timed_fault_9_of_200_containers_20_whose_inspects_hang_make_the_others_hardly_late() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let ids: Vec<String> = (0..200)
        .map(|number| engine.run(Spec::named(&format!("c{number}"))))
        .collect();
    let agent = scene.report(&engine, &[]);
    let control = renamed(&scene, &engine, &ids, "control", &ids);
    println!("control: {control}");
    let (hung, others) = hang_every(&engine, &ids, 10);
    let times = renamed(&scene, &engine, &ids, "hung", &others);
    println!("{} inspects hang, the others: {times}", hung.len());
    // Half a second for the first of them, a twentieth for each other; on a busy machine some others are taken for slow.
    let granted = PATIENCE + Duration::from_millis(50) * hung.len() as u32;
    assert!(
        times.median() <= control.worst() + granted,
        "{times}, control: {control}"
    );
    assert!(
        times.worst() <= control.worst() * 2 + granted + seconds(1),
        "{times}, control: {control}"
    );
    // They all hang still, and nobody waits for them.
    let times = renamed(&scene, &engine, &others, "later", &others);
    for id in &hung {
        engine.behave(&Route::InspectOf(id.clone()));
    }
    scene.settle(SOON, &[("h", &engine)]);
    let control = renamed(&scene, &engine, &others, "again", &others);
    println!("they hang still, the others: {times}, control: {control}");
    assert!(
        times.worst() <= control.worst() + PATIENCE,
        "{times}, control: {control}"
    );
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

#[test]
fn timed_fault_9_where_some_inspects_hang_and_all_others_are_slow_these_come_all_the_same() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let ids: Vec<String> = (0..60)
        .map(|number| engine.run(Spec::named(&format!("c{number}"))))
        .collect();
    let agent = scene.report(&engine, &[]);
    let late = Duration::from_millis(100);
    engine.misbehave(Route::Inspect, Behaviour::Late(late));
    let control = renamed(&scene, &engine, &ids, "control", &ids);
    println!("control: {control}");
    let (hung, others) = hang_every(&engine, &ids, 6);
    let times = renamed(&scene, &engine, &ids, "hung", &others);
    println!("{} inspects hang, the others: {times}", hung.len());
    assert!(
        times.worst() <= control.worst() * 2 + seconds(2),
        "{times}, control: {control}"
    );
    engine.behave(&Route::Inspect);
    for id in &hung {
        engine.behave(&Route::InspectOf(id.clone()));
    }
    scene.settle(SOON, &[("h", &engine)]);
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

#[test]
fn timed_fault_9_the_engine_s_word_on_a_filter_that_hangs_makes_only_that_container_late() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let stuck = engine.run(Spec::named("stuck"));
    let pulse = Pulse::of(&scene, "h", &engine);
    let agent = scene.report(&engine, &["--filter", "status=running"]);
    pulse.is_in_time_but_for(PATIENCE, "a list of one container hangs", || {
        engine.misbehave(Route::ListOf(stuck.clone()), Behaviour::Hang);
        engine.rename(&stuck, "renamed");
        sleep(seconds(3));
    });
    assert_eq!(scene.field(&stuck, "name"), "/stuck");
    engine.behave(&Route::ListOf(stuck.clone()));
    scene.settle(SOON, &[("h", &engine)]);
    assert_eq!(scene.field(&stuck, "name"), "/renamed");
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}
