//! Faults of the engine itself: away, killed, frozen, hung, slow in parts, replaced by another.
// Measured figures are for who runs a test by hand.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::engine::containers::Spec;
use crate::engine::{Behaviour, Route};
use crate::kit::agent::Agent;
use crate::kit::docker::Dockerd;
use crate::kit::manager::Manager;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::pulse::Pulse;
use crate::kit::scene::{SOON, Scene, hosts};
use crate::kit::{seconds, wait_until};

/// Waits until a host is said to be down.
#[track_caller]
fn wait_down(scene: &Scene, host: &str) {
    wait_until(SOON, "the engine is said to be down", || {
        scene.host_field(host, "status") == "down"
    });
}

fn real(name: &str, dockerd: &Dockerd) -> Host {
    Host::up(name, dockerd.docker.running()).at(&dockerd.docker.place())
}

/// No thread and no file more than before; connections that are kept may be one more or less.
pub fn nothing_leaked(agent: &Agent, threads: &[String], fds: usize) {
    wait_until(SOON, "threads and files are as they were", || {
        let now = (agent.threads(), agent.fds());
        let fits = now.0 == threads && now.1 <= fds + 2;
        fits.then_some(())
            .ok_or(format!("{now:?}, before: {threads:?}, {fds}"))
    });
}

#[test]
fn timed_fault_6_dockerd_stopped_killed_or_frozen_for_a_minute_heals_and_delays_no_other_engine() {
    need!(redis, dockerd);
    let scene = Scene::new();
    let calm = scene.engine("calm");
    let pulse = Pulse::of(&scene, "calm", &calm);
    let mut dockerd = Dockerd::live_restore();
    let dies = dockerd.run("dies", &[], &[]);
    dockerd.run("lives", &[], &[]);
    let agent = scene.watch(
        &[("real", &dockerd.docker.url), ("calm", &calm.url())],
        &["-updateInterval=2s"],
    );
    let settled = |dockerd: &Dockerd| {
        oracle::settle(&scene.redis, "docker", SOON, || {
            vec![real("real", dockerd), hosts(&[("calm", &calm)]).remove(0)]
        });
    };
    settled(&dockerd);
    let (threads, fds) = (agent.threads(), agent.fds());

    // A container dies while dockerd is down: nobody tells, the list shows.
    let pid = dockerd.pid_of(&dies);
    let name = format!("real die {}dies inferred", dockerd.docker.prefix);
    pulse.is_in_time("dockerd stopped", || {
        dockerd.stop();
        dockerd.kill_container(pid);
        wait_down(&scene, "real");
        dockerd.restart();
        scene.expect_runs(SOON, &[&name]);
    });
    settled(&dockerd);

    pulse.is_in_time("dockerd killed", || {
        dockerd.kill9();
        wait_down(&scene, "real");
        dockerd.restart();
    });
    settled(&dockerd);

    // Frozen: it accepts and does not answer.
    pulse.is_in_time("dockerd frozen", || {
        dockerd.freeze();
        let frozen = Instant::now();
        wait_until(seconds(60), "a frozen engine is said to be down", || {
            scene.host_field("real", "status") == "down"
        });
        println!("frozen, and down after {:?}", frozen.elapsed());
        assert!(frozen.elapsed() < seconds(30), "{:?}", frozen.elapsed());
        agent.wait_log("it did not answer in time", seconds(1));
        sleep(seconds(60).saturating_sub(frozen.elapsed()));
        assert_eq!(scene.host_field("real", "status"), "down");
        dockerd.thaw();
        dockerd.run("comes", &[], &[]);
    });
    settled(&dockerd);
    nothing_leaked(&agent, &threads, fds);
    assert_eq!(scene.runs().get(&name), Some(&1));
}

#[test]
fn timed_fault_6_a_dockerd_that_freezes_while_nothing_happens_is_down_within_half_a_minute() {
    need!(redis, dockerd);
    let scene = Scene::new();
    let mut dockerd = Dockerd::start();
    dockerd.run("a", &[], &[]);
    // Its next resync is minutes away, and so is the end of its stream.
    let _agent = scene.watch(&[("real", &dockerd.docker.url)], &[]);
    let settled = |dockerd: &Dockerd| {
        oracle::settle(&scene.redis, "docker", SOON, || vec![real("real", dockerd)]);
    };
    settled(&dockerd);
    dockerd.freeze();
    let frozen = Instant::now();
    wait_until(seconds(100), "a frozen engine is said to be down", || {
        scene.host_field("real", "status") == "down"
    });
    println!("frozen, and down after {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < seconds(30), "{:?}", frozen.elapsed());
    dockerd.thaw();
    settled(&dockerd);
    assert_eq!(scene.number("real", "gaps"), 0);
}

#[test]
fn timed_fault_6_an_engine_that_freezes_in_the_middle_of_a_comparison_is_down_within_half_a_minute()
{
    need!(redis);
    const CONTAINERS: u64 = 3000;
    let scene = Scene::new();
    let engine = scene.engine("d");
    for number in 0..CONTAINERS {
        engine.run(Spec::named(&format!("c{number}")));
    }
    // Slow enough to be in the middle of it for long.
    engine.misbehave(Route::Inspect, Behaviour::Late(Duration::from_millis(10)));
    let agent = scene.watch(&[("h", &engine.url())], &[]);
    wait_until(SOON, "a comparison is under way", || {
        engine.requests(&Route::Inspect) > 300
    });
    engine.misbehave(Route::Every, Behaviour::Hang);
    engine.behave(&Route::Inspect);
    let frozen = Instant::now();
    let asked = engine.requests(&Route::Inspect);
    wait_until(seconds(100), "a frozen engine is said to be down", || {
        scene.host_field("h", "status") == "down"
    });
    let vain = engine.requests(&Route::Inspect) - asked;
    println!(
        "frozen after {asked} inspects, and down after {:?} and {vain} more",
        frozen.elapsed()
    );
    assert!(asked < CONTAINERS / 2, "{asked} of them were over");
    assert!(frozen.elapsed() < seconds(30), "{:?}", frozen.elapsed());
    engine.behave(&Route::Every);
    scene.settle(seconds(60), &[("h", &engine)]);
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

#[test]
fn timed_fault_6_an_engine_that_freezes_over_a_list_is_down_within_half_a_minute_whatever_it_said_before()
 {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let id = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &["-updateInterval=2s"]);
    let asked = engine.requests(&Route::List);
    engine.misbehave(Route::List, Behaviour::Hang);
    wait_until(SOON, "a list is asked for", || {
        engine.requests(&Route::List) > asked
    });
    // It is not taken for dead as long as it says something.
    engine.rename(&id, "b");
    scene.expect_runs(SOON, &["h rename b"]);
    engine.misbehave(Route::Every, Behaviour::Hang);
    let frozen = Instant::now();
    wait_until(seconds(100), "a frozen engine is said to be down", || {
        scene.host_field("h", "status") == "down"
    });
    println!("frozen, and down after {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < seconds(30), "{:?}", frozen.elapsed());
    engine.behave(&Route::Every);
    engine.behave(&Route::List);
    scene.settle(SOON, &[("h", &engine)]);
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

#[test]
fn timed_fault_6_an_engine_that_is_slow_over_its_list_holds_up_no_longer_where_there_is_a_filter() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let id = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &["-updateInterval=2s", "--filter=status=running"]);
    let asked = engine.requests(&Route::List);
    // One list in time, and another that would be; what is asked of the one container is not late.
    engine.misbehave(Route::ListOf(id.clone()), Behaviour::Late(Duration::ZERO));
    engine.misbehave(Route::List, Behaviour::Late(seconds(14)));
    wait_until(SOON, "a list is asked for", || {
        engine.requests(&Route::List) > asked
    });
    let began = Instant::now();
    engine.rename(&id, "b");
    wait_until(seconds(60), "what is behind the lists is asked for", || {
        scene.field(&id, "name") == "/b"
    });
    println!("held up for {:?}", began.elapsed());
    assert!(began.elapsed() < seconds(23), "{:?}", began.elapsed());
    engine.behave(&Route::List);
    scene.settle(SOON, &[("h", &engine)]);
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

#[test]
fn timed_fault_6_an_engine_that_accepts_and_does_not_answer_is_down_soon_and_leaks_nothing() {
    need!(redis);
    let scene = Scene::new();
    let (calm, hung) = (scene.engine("c"), scene.engine("d"));
    let id = hung.run(Spec::named("a"));
    let pulse = Pulse::of(&scene, "calm", &calm);
    let both = [("calm", &calm), ("hung", &hung)];
    let agent = scene.watch(
        &[("calm", &calm.url()), ("hung", &hung.url())],
        &["-updateInterval=2s"],
    );
    scene.settle(SOON, &both);
    let (threads, fds) = (agent.threads(), agent.fds());
    for turn in 0..2 {
        pulse.is_in_time("an engine that hangs", || {
            let began = Instant::now();
            hung.misbehave(Route::Every, Behaviour::Hang);
            // First it hangs in the middle of what is open, then on new connections as well.
            hung.rename(&id, &format!("while{turn}"));
            sleep(seconds(1));
            hung.cut_all();
            wait_down(&scene, "hung");
            println!("said to be down after {:?}", began.elapsed());
            hung.behave(&Route::Every);
        });
        scene.settle(seconds(60), &both);
    }
    nothing_leaked(&agent, &threads, fds);
    scene.expect_runs(SOON, &["hung rename while0", "hung rename while1"]);
}

#[test]
fn fault_10_a_list_older_than_an_event_neither_deletes_nor_revives() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let first = engine.run(Spec::named("first"));
    let agent = scene.report(&engine, &["-updateInterval=1s"]);
    let mut listener = scene.redis.connect();
    let mut channel = listener.as_pubsub();
    channel.subscribe("docker_events").unwrap();

    // Each answer is made at once and comes late: what happens meanwhile is newer.
    engine.misbehave(Route::List, Behaviour::Late(Duration::from_millis(700)));
    let mut ended = vec![first];
    let mut running: Vec<String> = Vec::new();
    engine.stop(&ended[0]);
    for round in 0..5 {
        let asked = engine.requests(&Route::List);
        wait_until(SOON, "a list is asked for", || {
            engine.requests(&Route::List) > asked
        });
        let fresh: Vec<String> = (0..3)
            .map(|number| engine.run(Spec::named(&format!("c{round}-{number}"))))
            .collect();
        engine.stop(&fresh[0]);
        if let Some(old) = running.pop() {
            engine.stop(&old);
            ended.push(old);
        }
        ended.push(fresh[0].clone());
        running.extend_from_slice(&fresh[1..]);
    }
    let asked = engine.requests(&Route::List);
    wait_until(SOON, "two more lists are asked for", || {
        engine.requests(&Route::List) > asked + 1
    });
    engine.behave(&Route::List);
    scene.settle(SOON, &[("h", &engine)]);

    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    scene
        .redis
        .query::<()>(&["PUBLISH", "docker_events", "end"]);
    loop {
        let text: String = channel.get_message().unwrap().get_payload().unwrap();
        if text == "end" {
            break;
        }
        if let [what, _, id] = text.split(':').collect::<Vec<_>>()[..] {
            told.entry(id.to_owned()).or_default().push(what.to_owned());
        }
    }
    let count = |id: &str, what: &str| {
        let all = told.get(id).into_iter().flatten();
        all.filter(|told| *told == what).count()
    };
    for id in &running {
        assert_eq!(count(id, "delete_container"), 0, "{id}: {:?}", told.get(id));
        assert_eq!(count(id, "new_container"), 1, "{id}: {:?}", told.get(id));
    }
    for id in &ended {
        // One that ended before it was looked at was never there.
        assert!(
            count(id, "delete_container") <= 1,
            "{id}: {:?}",
            told.get(id)
        );
        assert!(count(id, "new_container") <= 1, "{id}: {:?}", told.get(id));
    }
    assert!(
        scene.runs().values().all(|times| *times == 1),
        "{:?}",
        scene.runs()
    );
    assert_eq!(scene.number("h", "drift"), 0, "{}", agent.log());
}

#[test]
fn fault_10_names_swapped_by_three_renames_never_point_at_the_wrong_container() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let ids = [
        engine.run(Spec::named("left")),
        engine.run(Spec::named("right")),
    ];
    let _agent = scene.report(&engine, &["-updateInterval=1s"]);
    let done = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut redis = scene.redis.connect();
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                let mut all = redis::pipe();
                all.atomic().hgetall("docker:hosts:h:names");
                for id in &ids {
                    all.hget(format!("docker:containers:{id}"), "name");
                }
                let (names, left, right): (BTreeMap<String, String>, String, String) =
                    all.query(&mut redis).unwrap();
                let own = |id: &String| if *id == ids[0] { &left } else { &right };
                for (name, id) in &names {
                    assert_eq!(&format!("/{name}"), own(id), "{names:?}, {ids:?}");
                }
                looks += 1;
            }
            looks
        });
        let mut names = ["left", "right"];
        for turn in 0..60 {
            engine.rename(&ids[0], "between");
            engine.rename(&ids[1], names[0]);
            engine.rename(&ids[0], names[1]);
            names.swap(0, 1);
            // Sometimes it keeps pace, sometimes it does not.
            if turn % 4 == 0 {
                scene.settle(SOON, &[("h", &engine)]);
            }
        }
        scene.settle(SOON, &[("h", &engine)]);
        done.store(true, Ordering::Relaxed);
        watching
            .join()
            .unwrap_or_else(|_| panic!("a name pointed at the wrong container"))
    });
    println!("{looks} looks");
}

#[test]
fn fault_13_another_engine_at_the_same_address_is_noticed_and_never_mixed_with_the_old_one() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    for number in 0..40 {
        engine.run(Spec::named(&format!("c{number}")).image("old:1"));
    }
    let manager = Manager::new();
    let variables = [("NOTIFY_SOCKET", &*manager.path())];
    let agent = scene.watch_with(&[("h", &engine.url())], &["-updateInterval=2s"], &variables);
    scene.settle(SOON, &[("h", &engine)]);
    let old = engine.running();
    drop(engine);
    let other = scene.engine("d");
    other.host_name("another");
    for number in 20..60 {
        other.run(Spec::named(&format!("c{number}")).image("new:1"));
    }
    let mut mixed = Vec::new();
    wait_until(SOON, "the new engine's containers stand there", || {
        let found: BTreeSet<String> = scene
            .redis
            .query(&["SMEMBERS", "docker:hosts:h:containers"]);
        if !found.is_subset(&old) && !found.is_disjoint(&old) {
            mixed.push(found.len());
        }
        found == other.running()
    });
    assert!(mixed.is_empty(), "both at once: {mixed:?}");
    scene.settle(SOON, &[("h", &other)]);
    agent.wait_log("another engine answers at", seconds(1));
    manager.hears("STATUS=", "another engine");
    assert!(
        scene.runs().is_empty(),
        "nothing is inferred: {:?}",
        scene.runs()
    );
}

#[test]
fn fault_13_one_engine_under_two_host_ids_is_reported_once_and_said_by_the_other() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    engine.run(Spec::named("a"));
    let mut first = Agent::watch("agent", &engine.url(), &scene.redis.url(), 2);
    scene.settle(SOON, &[("agent", &engine)]);
    let manager = Manager::new();
    let variables = [("NOTIFY_SOCKET", &*manager.path())];
    let second = scene.watch_with(
        &[("manager", &engine.url())],
        &["-updateInterval=2s"],
        &variables,
    );
    second.wait_log("host `manager` is not written", SOON);
    let said = manager.hears("STATUS=", "host `manager` is not written");
    assert!(said[said.len() - 1].contains("`agent`"), "{said:?}");
    engine.run(Spec::named("b"));
    scene.expect_runs(SOON, &["manager start b"]);
    scene.settle(SOON, &[("agent", &engine)]);
    // The other takes over, and buries what the first has left.
    assert!(first.stop(seconds(10)).success());
    scene.settle(SOON, &[("manager", &engine)]);
    engine.run(Spec::named("c"));
    scene.expect_runs(SOON, &["manager start b", "manager start c"]);
    scene.settle(SOON, &[("manager", &engine)]);
}

#[test]
fn fault_13_a_copied_engine_id_on_another_machine_is_another_engine() {
    need!(redis);
    let scene = Scene::new();
    let (one, two) = (scene.engine("a"), scene.engine("b"));
    for (engine, name) in [(&one, "one"), (&two, "two")] {
        engine.engine_id("COPIED");
        engine.host_name(name);
        engine.run(Spec::named(name));
    }
    let agent = scene.watch(
        &[("one", &one.url()), ("two", &two.url())],
        &["-updateInterval=2s"],
    );
    scene.settle(SOON, &[("one", &one), ("two", &two)]);
    assert!(!agent.log().contains("is not written"), "{}", agent.log());
}
