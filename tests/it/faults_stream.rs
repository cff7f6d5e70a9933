//! Faults of the event stream: cut, silent, with holes, told by a clock that jumps.
// Measured figures are for who runs a test by hand.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::engine::containers::Spec;
use crate::engine::events::{QUEUE, RING};
use crate::engine::{Behaviour, Engine, Route};
use crate::kit::agent::Agent;
use crate::kit::docker::Dockerd;
use crate::kit::http::post;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::proxy::Proxy;
use crate::kit::scene::{SOON, Scene};
use crate::kit::{seconds, wait_until};

fn gaps_said(agent: &Agent) -> usize {
    agent.log().matches("events may be missing").count()
}

/// Nobody reaches the engine, which goes on.
fn cut_off(engine: &Engine) {
    engine.refuse();
    engine.cut_all();
}

/// Streams come and go; waits until this many more were opened than before.
fn streams_later(engine: &Engine, count: u64) {
    let before = engine.requests(&Route::Events);
    wait_until(seconds(60), "the stream is renewed", || {
        engine.requests(&Route::Events) >= before + count
    });
}

#[test]
fn fault_1_a_stream_cut_at_every_byte_of_an_event_neither_takes_half_a_line_nor_loses_nor_doubles()
{
    need!(redis);
    let scene = Scene::new();
    // Each engine's stream is cut a few times, at other bytes than those of the others: one engine alone would wait longer after each cut.
    const CUTS: usize = 4;
    let size = chunk_size();
    let count = size.div_ceil(CUTS) + 1;
    let engines: Vec<(String, Engine)> = (0..count)
        .map(|at| (format!("e{at}"), scene.engine(&format!("s{at}"))))
        .collect();
    let urls: Vec<String> = engines.iter().map(|(_, engine)| engine.url()).collect();
    let named: Vec<(&str, &str)> = engines
        .iter()
        .zip(&urls)
        .map(|((name, _), url)| (name.as_str(), url.as_str()))
        .collect();
    let ids: Vec<String> = engines
        .iter()
        .map(|(_, engine)| engine.run(Spec::named("c")))
        .collect();
    let agent = scene.watch(&named, &[]);
    let all: Vec<(&str, &Engine)> = engines
        .iter()
        .map(|(name, one)| (name.as_str(), one))
        .collect();
    scene.settle(seconds(60), &all);

    let mut wanted = Vec::new();
    for (at, ((name, engine), id)) in engines.iter().zip(&ids).enumerate() {
        engine.forget_events();
        engine.slice(at % 7 == 0);
        for cut in (0..CUTS)
            .map(|turn| turn * count + at)
            .filter(|cut| *cut <= size)
        {
            engine.cut_stream_after(cut);
        }
        engine.pause(id);
        wanted.push(format!("{name} pause c inferred"));
    }
    wait_until(seconds(120), "all cuts were made", || {
        engines.iter().all(|(_, engine)| engine.cuts_left() == 0)
    });
    let lines: Vec<&str> = wanted.iter().map(String::as_str).collect();
    scene.expect_runs(SOON, &lines);
    for ((name, engine), id) in engines.iter().zip(&ids) {
        engine.unpause(id);
        wanted.push(format!("{name} unpause c"));
    }
    // Some streams may be between two cuts still: then that one is told late.
    wait_until(SOON, "the handlers heard of the end too", || {
        scene.runs().len() == wanted.len()
    });
    scene.settle(SOON, &all);
    assert!(
        scene.runs().values().all(|times| *times == 1),
        "{:?}",
        scene.runs()
    );
    assert_eq!(gaps_said(&agent), 0, "{}", agent.log());
    println!(
        "{} cuts of an event of {size} bytes, {count} engines",
        size + 1
    );
}

/// How many bytes a `pause` of a container `c` has on the wire.
fn chunk_size() -> usize {
    let engine = Engine::listen(&crate::engine::http::Place::Tcp("127.0.0.1:0".into()));
    let engine = engine.unwrap_or_else(|error| panic!("failed to listen: {error}"));
    let id = engine.run(Spec::named("c"));
    let stream = crate::kit::http::Stream::open(engine.place(), "/v1.41/events");
    wait_until(seconds(5), "the stream is subscribed", || {
        engine.subscribers() == 1
    });
    engine.pause(&id);
    let mut stream = stream;
    let line = stream.line().unwrap_or_default();
    format!("{:x}\r\n\r\n", line.len()).len() + line.len()
}

#[test]
fn timed_fault_2_a_stream_that_goes_silent_without_a_fin_is_noticed_in_time_resumed_and_counted() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let id = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &["--stream-max-age=2s"]);
    // Just told something: its silence is young.
    engine.rename(&id, "b");
    scene.expect_runs(SOON, &["h rename b"]);
    let began = Instant::now();
    engine.silence_streams();
    engine.pause(&id);
    scene.expect_runs(seconds(60), &["h rename b", "h pause b inferred"]);
    let took = began.elapsed();
    println!("a silent stream of 2 s was noticed after {took:?}");
    // The end that was asked for, 2 s of patience, and a connect.
    assert!(took < seconds(2 + 2 + 1), "{took:?}");
    scene.settle(SOON, &[("h", &engine)]);
    agent.wait_log("nothing came on the event stream", seconds(1));
    scene.expect_number(SOON, "h", "reconnects", 1);
    assert_eq!(scene.number("h", "gaps"), 0);
}

#[test]
fn fault_3_more_events_than_the_engine_remembers_are_a_known_gap_and_handlers_get_the_differences()
{
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let stays = engine.run(Spec::named("stays"));
    let goes = engine.run(Spec::named("goes"));
    let removed = engine.run(Spec::named("removed").auto_remove());
    let again = engine.run(Spec::named("again"));
    let agent = scene.report(&engine, &[]);
    engine.pause(&stays);
    scene.expect_runs(SOON, &["h pause stays"]);

    cut_off(&engine);
    engine.stop(&goes);
    engine.stop(&removed);
    engine.restart_container(&again);
    engine.run(Spec::named("comes"));
    let passing = engine.run(Spec::named("passing").auto_remove());
    engine.stop(&passing);
    for _ in 0..RING + 44 {
        engine.top(&stays);
    }
    let began = Instant::now();
    engine.come_up().unwrap();
    scene.expect_runs(
        SOON,
        &[
            "h pause stays",
            "h die goes inferred",
            "h die removed inferred",
            "h die again inferred",
            "h start again inferred",
            "h start comes inferred",
        ],
    );
    println!(
        "healed, and the differences told, after {:?}",
        began.elapsed()
    );
    scene.settle(SOON, &[("h", &engine)]);
    scene.expect_number(SOON, "h", "gaps", 1);
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
}

#[test]
fn fault_3_a_real_engine_that_goes_on_unseen_for_more_events_than_it_remembers() {
    need!(redis, dockerd);
    let scene = Scene::new();
    let dockerd = Dockerd::start();
    let stays = dockerd.run("stays", &[], &[]);
    let goes = dockerd.run("goes", &[], &[]);
    let proxy = Proxy::unix(&dockerd.docker.url);
    let agent = scene.watch(&[("h", &proxy.url())], &[]);
    let place = dockerd.docker.place();
    let settle = || {
        oracle::settle(&scene.redis, "docker", SOON, || {
            vec![Host::up("h", dockerd.docker.running()).at(&place)]
        });
    };
    settle();
    let prefix = &dockerd.docker.prefix;
    let name = format!("{prefix}seen");
    dockerd.docker.docker(&["rename", &stays, &name]);
    let first = format!("h rename {name}");
    scene.expect_runs(SOON, &[&first]);

    proxy.refuse(true);
    proxy.cut();
    dockerd.docker.docker(&["stop", &goes]);
    dockerd.run("comes", &[], &[]);
    for number in 0..RING + 4 {
        let path = format!("/containers/{stays}/rename?name={prefix}r{number}");
        assert_eq!(post(&place, &path).status, 204);
    }
    proxy.refuse(false);
    settle();
    // What the engine still remembers is told late; what it does not is inferred from the difference.
    let differences = [
        first,
        format!("h die {prefix}goes inferred"),
        format!("h start {prefix}comes inferred"),
    ];
    wait_until(SOON, "the differences are told", || {
        let runs = scene.runs();
        differences.iter().all(|line| runs.get(line) == Some(&1))
    });
    settle();
    let mut wanted = Vec::from(differences);
    wanted.extend((4..RING + 4).map(|number| format!("h rename {prefix}r{number} inferred")));
    let lines: Vec<&str> = wanted.iter().map(String::as_str).collect();
    scene.expect_runs(SOON, &lines);
    scene.expect_number(SOON, "h", "gaps", 1);
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
}

#[test]
fn fault_4_fewer_events_than_the_engine_remembers_are_resumed_without_a_gap_each_once() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let a = engine.run(Spec::named("a"));
    let b = engine.run(Spec::named("b"));
    let agent = scene.report(&engine, &[]);
    engine.pause(&a);
    scene.expect_runs(SOON, &["h pause a"]);

    cut_off(&engine);
    engine.unpause(&a);
    engine.die(&b, 3);
    let c = engine.run(Spec::named("c"));
    for _ in 0..100 {
        engine.top(&c);
    }
    engine.rename(&c, "d");
    engine.come_up().unwrap();
    let mut wanted = vec![
        "h pause a",
        "h unpause a inferred",
        "h die b inferred",
        "h start c inferred",
        "h rename d inferred",
    ];
    scene.expect_runs(SOON, &wanted);
    // Once more, at once: the same events stand in the replay again.
    streams_cut(&engine);
    engine.pause(&c);
    wanted.push("h pause d");
    scene.expect_runs(SOON, &wanted);
    scene.settle(SOON, &[("h", &engine)]);
    replay_judged();
    assert_eq!(scene.number("h", "gaps"), 0);
    assert_eq!(gaps_said(&agent), 0, "{}", agent.log());
}

/// Cuts what is open and waits until the agent is back.
fn streams_cut(engine: &Engine) {
    engine.cut_all();
    streams_later(engine, 1);
    wait_until(SOON, "the stream is subscribed again", || {
        engine.subscribers() == 1
    });
}

/// The replay of the last connect is judged 2 s after it; whatever there is to say of it was said by now.
fn replay_judged() {
    let until = Instant::now() + seconds(3);
    wait_until(seconds(30), "the judgement is over", || {
        Instant::now() > until
    });
}

#[test]
fn fault_5_an_event_dropped_while_we_listened_is_found_at_the_next_renewal_counted_and_healed() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let a = engine.run(Spec::named("a"));
    let b = engine.run(Spec::named("b"));
    let agent = scene.report(&engine, &["--stream-max-age=2s"]);
    engine.pause(&a);
    scene.expect_runs(SOON, &["h pause a"]);

    engine.drop_next_events(2);
    engine.unpause(&a);
    engine.rename(&b, "c");
    engine.pause(&b);
    let wanted = [
        "h pause a",
        "h unpause a inferred",
        "h rename c inferred",
        "h pause c",
    ];
    scene.expect_runs(SOON, &wanted);
    scene.settle(SOON, &[("h", &engine)]);
    scene.expect_number(SOON, "h", "gaps", 1);
    streams_later(&engine, 3);
    assert_eq!(
        scene.number("h", "gaps"),
        1,
        "what was found once is not found again"
    );
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
    scene.expect_runs(SOON, &wanted);
}

#[test]
fn fault_5_a_frozen_reader_loses_events_and_finds_them_at_the_next_renewal() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let a = engine.run(Spec::named("a"));
    let b = engine.run(Spec::named("b"));
    // Frozen for less than its leases live.
    let mut agent = scene.report(&engine, &["--stream-max-age=4s"]);
    streams_later(&engine, 1);
    wait_until(SOON, "the stream is subscribed", || {
        engine.subscribers() == 1
    });
    agent.freeze();
    let mut told = 0;
    while engine.events_dropped() == 0 {
        engine.top(&a);
        told += 1;
        assert!(told < 20 * QUEUE, "no event was dropped");
    }
    engine.pause(&a);
    engine.stop(&b);
    println!("{told} events until the first was dropped");
    // What is younger than a second may still have been on its way.
    let stopped = Instant::now();
    wait_until(SOON, "a moment is over", || {
        stopped.elapsed() > Duration::from_millis(1500)
    });
    agent.thaw();
    scene.expect_runs(SOON, &["h pause a inferred", "h die b inferred"]);
    scene.settle(SOON, &[("h", &engine)]);
    wait_until(SOON, "the gap is counted", || {
        scene.number("h", "gaps") >= 1
    });
    // The thawed agent renews the stream at once, and again when it is due: each may show what was lost before.
    streams_later(&engine, 2);
    replay_judged();
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
}

#[test]
fn fault_5_what_was_lost_while_the_engine_was_asked_for_its_clock_is_not_taken_for_live() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let a = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &[]);
    // So it is for an agent that was frozen between question and answer.
    engine.misbehave(Route::Info, Behaviour::Late(Duration::from_millis(2500)));
    let asked = engine.requests(&Route::Info);
    for _ in 0..RING {
        engine.top(&a);
    }
    wait_until(SOON, "the stream is to be renewed", || {
        engine.requests(&Route::Info) > asked
    });
    engine.behave(&Route::Info);
    let was_asked = Instant::now();
    wait_until(SOON, "a moment is over", || {
        was_asked.elapsed() > Duration::from_secs(1)
    });
    engine.drop_next_events(1);
    engine.rename(&a, "b");
    scene.expect_runs(SOON, &["h rename b inferred"]);
    scene.expect_number(SOON, "h", "gaps", 1);
    scene.settle(SOON, &[("h", &engine)]);
    replay_judged();
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
}

#[test]
fn fault_5_a_dropped_event_is_found_before_the_engine_forgets_it_however_rare_renewals_are() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let a = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &[]);
    engine.drop_next_events(1);
    engine.rename(&a, "b");
    // As many as it can tell without forgetting that one.
    for _ in 1..RING {
        engine.top(&a);
    }
    scene.expect_runs(SOON, &["h rename b inferred"]);
    scene.expect_number(SOON, "h", "gaps", 1);
    scene.settle(SOON, &[("h", &engine)]);
    replay_judged();
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
    assert_eq!(scene.number("h", "drift"), 0, "{}", agent.log());
    scene.expect_runs(SOON, &["h rename b inferred"]);
}

#[test]
fn fault_5_what_the_engine_dropped_and_forgot_is_found_by_the_next_resync_and_told_as_inferred() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let ids = ["a", "b", "c", "d"].map(|name| engine.run(Spec::named(name)));
    let agent = scene.report(&engine, &["-updateInterval=3s"]);
    // The next one is three seconds away: it finds all of it.
    let resyncs = scene.number("h", "resyncs");
    wait_until(SOON, "a resync is over", || {
        scene.number("h", "resyncs") > resyncs
    });
    for id in &ids {
        engine.drop_next_events(1);
        match &*scene.field(id, "name") {
            "/a" => engine.rename(id, "renamed"),
            "/b" => engine.pause(id),
            "/c" => engine.health(id, "unhealthy"),
            _ => engine.connect(id, "net"),
        }
    }
    // It forgets them in one moment, faster than anybody could ask for them.
    engine.ring_size(0);
    engine.ring_size(RING);
    for _ in 0..RING + 44 {
        engine.top(&ids[0]);
    }
    let wanted = ["h rename renamed inferred", "h pause b inferred"];
    scene.expect_runs(SOON, &wanted);
    // No entry asks for these.
    agent.wait_log("Uncaught event: type health_status", SOON);
    agent.wait_log("Uncaught event: type network/connect", SOON);
    scene.expect_number(SOON, "h", "gaps", 1);
    scene.settle(SOON, &[("h", &engine)]);
    replay_judged();
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
    assert!(scene.number("h", "drift") > 0, "{}", agent.log());
    scene.expect_runs(SOON, &wanted);
}

#[test]
fn fault_5_a_burst_while_the_next_stream_subscribes_is_told_whole() {
    burst_while_the_next_stream_subscribes(Duration::ZERO);
}

#[test]
fn fault_5_a_burst_while_an_engine_under_load_opens_the_next_stream_is_told_whole() {
    burst_while_the_next_stream_subscribes(Duration::from_millis(1200));
}

/// Of the burst the next stream, whose headers come so late, has the last 256 and what comes after; the one before it has all.
fn burst_while_the_next_stream_subscribes(late: Duration) {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let id = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &[]);
    let pass = |time: Duration| {
        let until = Instant::now() + time;
        wait_until(SOON, "time passes", || Instant::now() > until);
    };
    let mut told = 0;
    let mut rename = || {
        engine.rename(&id, &format!("b{told}"));
        told += 1;
        told
    };
    engine.misbehave(Route::Events, Behaviour::Hang);
    let streams = engine.requests(&Route::Events);
    wait_until(SOON, "the stream is renewed before its time", || {
        rename();
        engine.requests(&Route::Events) > streams
    });
    pass(late);
    engine.misbehave(Route::Events, Behaviour::Late(Duration::from_millis(400)));
    // Whoever takes the new one for complete as soon as it is there leaves the old one now.
    rename();
    pass(Duration::from_millis(100));
    let told = (0..3 * RING).map(|_| rename()).last().unwrap_or_default();
    wait_until(SOON, "the last one is told", || {
        scene.field(&id, "name") == format!("/b{}", told - 1)
    });
    replay_judged();
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
    assert_eq!(engine.events_dropped(), 0);
    let entries: Vec<(String, BTreeMap<String, String>)> =
        scene.redis.query(&["XRANGE", "docker:events", "-", "+"]);
    let renamed = entries
        .iter()
        .filter(|(_, entry)| entry["action"] == "rename");
    assert_eq!(renamed.count(), told);
}

#[test]
fn timed_fault_5_a_renewal_during_a_storm_misses_nothing() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let id = engine.run(Spec::named("a"));
    // While this answer is waited for, the engine tells more events than it would keep for who does not read.
    engine.misbehave(Route::Info, Behaviour::Late(Duration::from_millis(1500)));
    let agent = scene.watch(&[("h", &engine.url())], &["--stream-max-age=8s"]);
    scene.settle(SOON, &[("h", &engine)]);
    let streams = engine.requests(&Route::Events);
    let began = Instant::now();
    let mut told = 0;
    wait_until(seconds(60), "the stream is renewed twice", || {
        // As many as the engine remembers in 128 ms, however slow this machine is just now.
        while told < began.elapsed().as_millis() * 2 {
            engine.top(&id);
            told += 1;
        }
        engine.requests(&Route::Events) >= streams + 2
    });
    engine.pause(&id);
    scene.expect_runs(SOON, &["h pause a"]);
    replay_judged();
    assert_eq!(gaps_said(&agent), 0, "{}", agent.log());
    assert_eq!(engine.events_dropped(), 0, "the engine never waited for us");
    assert_eq!(scene.number("h", "reconnects"), 0);
    println!("{told} events in {:?}", began.elapsed());
}

#[test]
fn fault_11_an_engine_whose_clock_steps_back_an_hour_loses_nothing_and_replays_nothing_for_ever() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let a = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &["--stream-max-age=4s"]);
    engine.pause(&a);
    let mut wanted = vec!["h pause a".to_owned()];
    // A replay is under way or not; what came while the clock was set may be marked or not.
    let expect = |wanted: &[String]| {
        let mut runs = Vec::new();
        wait_until(SOON, "the handler was run for all it should", || {
            let all = scene.runs();
            runs = all
                .iter()
                .map(|(run, times)| (run.trim_end_matches(" inferred").to_owned(), *times))
                .collect();
            let missing = |run: &&String| !runs.iter().any(|(found, _)| found == *run);
            let missing: Vec<_> = wanted.iter().filter(missing).collect();
            missing
                .is_empty()
                .then_some(())
                .ok_or(format!("missing {missing:?} of {runs:?}"))
        });
        let once = runs.iter().all(|(_, times)| *times == 1);
        assert!(once && runs.len() == wanted.len(), "{runs:?}");
    };
    expect(&wanted);
    // Back, forward again, back again: while it listens, while it does not, and between the two.
    for (turn, ms) in [-3_600_000, 0, -3_600_000].into_iter().enumerate() {
        engine.clock_offset(ms);
        engine.rename(&a, &format!("live{turn}"));
        wanted.push(format!("h rename live{turn}"));
        expect(&wanted);
        streams_later(&engine, 2);
        cut_off(&engine);
        engine.rename(&a, &format!("away{turn}"));
        engine.come_up().unwrap();
        wanted.push(format!("h rename away{turn}"));
        expect(&wanted);
        cut_off(&engine);
        engine.clock_offset(ms - 1_800_000);
        engine.rename(&a, &format!("both{turn}"));
        engine.come_up().unwrap();
        wanted.push(format!("h rename both{turn}"));
        expect(&wanted);
    }
    scene.settle(SOON, &[("h", &engine)]);
    streams_later(&engine, 2);
    expect(&wanted);
    replay_judged();
    let log = agent.log();
    // The first time it steps back while nobody listens, it can tell again nothing that it told before: all that is younger than its clock.
    assert_eq!(gaps_said(&agent), 1, "{log}");
    assert!(log.lines().count() < 100, "{log}");
}

#[test]
fn fault_11_a_clock_that_steps_back_while_an_engine_idles_is_no_gap_and_while_no_agent_listens_is_one()
 {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let (a, b) = (engine.run(Spec::named("a")), engine.run(Spec::named("b")));
    let options = ["--stream-max-age=2s"];
    let mut agent = scene.report(&engine, &options);
    engine.pause(&a);
    scene.expect_runs(SOON, &["h pause a"]);
    engine.clock_offset(-3_600_000);
    streams_later(&engine, 3);
    replay_judged();
    assert_eq!(gaps_said(&agent), 0, "{}", agent.log());

    agent.kill9();
    engine.clock_offset(-7_200_000);
    engine.rename(&a, "renamed");
    engine.stop(&b);
    let agent = scene.watch(&[("h", &engine.url())], &options);
    scene.expect_number(SOON, "h", "gaps", 1);
    scene.settle(SOON, &[("h", &engine)]);
    // What it told meanwhile cannot be told from what the last agent knew; what differs can.
    let mut wanted = vec!["h pause a", "h die b inferred"];
    scene.expect_runs(SOON, &wanted);
    engine.unpause(&a);
    wanted.push("h unpause renamed");
    scene.expect_runs(SOON, &wanted);
    streams_later(&engine, 3);
    replay_judged();
    assert_eq!(gaps_said(&agent), 1, "{}", agent.log());
    scene.expect_runs(SOON, &wanted);
}

#[test]
fn fault_11_a_clock_that_steps_back_to_before_old_events_makes_no_news_of_them() {
    need!(redis);
    let scene = Scene::new();
    let steps = [10_000, 300_000, 3_600_000];
    let engines = steps.map(|step| (format!("h{}", step / 1000), scene.engine(&step.to_string())));
    // What was told just before, just after and some time after the moment to which the clock is to be set back.
    let ids = steps.map(|_| Vec::new());
    let ids: Vec<Vec<String>> = std::iter::zip(steps, ids)
        .zip(&engines)
        .map(|((step, mut ids), (_, engine))| {
            for (name, ms) in [("before", -60_000), ("after", 1500), ("later", 9000)] {
                engine.clock_offset(ms - step);
                ids.push(engine.run(Spec::named(name)));
            }
            engine.clock_offset(0);
            ids
        })
        .collect();
    let urls = engines.each_ref().map(|(_, engine)| engine.url());
    let named: Vec<(&str, &str)> = std::iter::zip(&engines, &urls)
        .map(|((name, _), url)| (name.as_str(), url.as_str()))
        .collect();
    let agent = scene.watch(&named, &["--stream-max-age=10m"]);
    let all: Vec<(&str, &Engine)> = engines.iter().map(|(name, it)| (&**name, it)).collect();
    scene.settle(SOON, &all);
    let mut wanted = Vec::new();
    let mut expect = |words: &[&str]| {
        for (name, _) in &engines {
            wanted.extend(words.iter().map(|word| format!("{name} {word}")));
        }
        let lines: Vec<&str> = wanted.iter().map(String::as_str).collect();
        scene.expect_runs(SOON, &lines);
    };
    for ((_, engine), ids) in engines.iter().zip(&ids) {
        engine.pause(&ids[0]);
    }
    expect(&["pause before"]);
    for ((step, (_, engine)), ids) in steps.iter().zip(&engines).zip(&ids) {
        engine.clock_offset(-step);
        streams_cut(engine);
        replay_judged();
        engine.unpause(&ids[0]);
    }
    expect(&["unpause before"]);
    // The one renewal of such a stream that comes soon.
    for ((_, engine), ids) in engines.iter().zip(&ids) {
        let before = engine.requests(&Route::Events);
        wait_until(SOON, "the stream is renewed", || {
            engine.top(&ids[0]);
            engine.requests(&Route::Events) > before
        });
    }
    replay_judged();
    for ((_, engine), ids) in engines.iter().zip(&ids) {
        cut_off(engine);
        engine.stop(&ids[1]);
        engine.come_up().unwrap();
    }
    expect(&["die after inferred"]);
    scene.settle(SOON, &all);
    replay_judged();
    expect(&[]);
    // What the engine told last before the step it cannot tell again while its clock is an hour before it.
    let gaps = engines
        .each_ref()
        .map(|(name, _)| scene.number(name, "gaps"));
    assert_eq!(gaps, [0, 0, 1], "{}", agent.log());
}

#[test]
fn fault_11_a_step_back_that_is_passed_before_the_next_agent_listens_hides_nothing() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let ids = ["a", "b", "c"].map(|name| engine.run(Spec::named(name)));
    let options = ["--stream-max-age=10m"];
    let mut agent = scene.report(&engine, &options);
    engine.pause(&ids[0]);
    scene.expect_runs(SOON, &["h pause a"]);
    let told_ns = engine.now_ns();
    engine.update(&ids[0], 1 << 20);
    wait_until(SOON, "the store knows how far it came", || {
        let resume: Option<i64> = scene.redis.query(&["GET", "docker:hosts:h:resume"]);
        resume.is_some_and(|resume_ns| resume_ns >= told_ns)
    });
    agent.kill9();
    engine.clock_offset(-10_000);
    engine.rename(&ids[0], "renamed");
    engine.pause(&ids[1]);
    engine.stop(&ids[2]);
    engine.clock_offset(0);
    let agent = scene.watch(&[("h", &engine.url())], &options);
    let wanted = [
        "h pause a",
        "h rename renamed inferred",
        "h pause b inferred",
        "h die c inferred",
    ];
    scene.expect_runs(SOON, &wanted);
    scene.settle(SOON, &[("h", &engine)]);
    replay_judged();
    scene.expect_runs(SOON, &wanted);
    assert_eq!(scene.number("h", "gaps"), 0, "{}", agent.log());
}

#[test]
fn fault_11_a_step_back_that_is_passed_while_an_engine_is_cut_off_that_told_nothing_yet_is_a_gap() {
    need!(redis);
    let scene = Scene::new();
    let (engine, brief, idle) = (scene.engine("d"), scene.engine("b"), scene.engine("i"));
    let ids = ["a", "b", "c"].map(|name| engine.run(Spec::named(name)));
    let engines = [("h", &engine), ("brief", &brief), ("idle", &idle)];
    let urls = engines.map(|(_, engine)| engine.url());
    let agent = scene.watch(
        &[("h", &urls[0]), ("brief", &urls[1]), ("idle", &urls[2])],
        &["--stream-max-age=10m"],
    );
    scene.settle(SOON, &engines);
    let began_ns = engine.now_ns();
    for (_, engine) in engines {
        cut_off(engine);
        engine.clock_offset(-10_000);
    }
    engine.rename(&ids[0], "renamed");
    engine.pause(&ids[1]);
    engine.stop(&ids[2]);
    let passing = brief.run(Spec::named("passing").auto_remove());
    brief.stop(&passing);
    wait_until(SOON, "the engine's clock is where it was", || {
        engine.now_ns() > began_ns
    });
    for (_, engine) in engines {
        engine.come_up().unwrap();
    }
    // These the next look shows; what came and went it does not.
    let wanted = [
        "h rename renamed inferred",
        "h pause b inferred",
        "h die c inferred",
    ];
    scene.expect_runs(SOON, &wanted);
    scene.expect_number(SOON, "h", "gaps", 1);
    scene.expect_number(SOON, "brief", "gaps", 1);
    scene.settle(SOON, &engines);
    replay_judged();
    scene.expect_runs(SOON, &wanted);
    assert_eq!(scene.number("idle", "gaps"), 0, "{}", agent.log());
    assert_eq!(gaps_said(&agent), 2, "{}", agent.log());
}

#[test]
fn fault_11_a_clock_of_ours_that_is_an_hour_off_changes_nothing() {
    need!(redis);
    let scene = Scene::new();
    // The engines' clocks are an hour before and behind ours, which is the same.
    let (fast, slow) = (scene.engine("f"), scene.engine("s"));
    fast.clock_offset(3_600_000);
    slow.clock_offset(-3_600_000);
    let engines = [("fast", &fast), ("slow", &slow)];
    let ids = engines.map(|(_, engine)| engine.run(Spec::named("a")));
    let agent = scene.watch(
        &[("fast", &fast.url()), ("slow", &slow.url())],
        &["--stream-max-age=4s"],
    );
    scene.settle(SOON, &engines);
    for ((_, engine), id) in engines.iter().zip(&ids) {
        engine.pause(id);
        streams_later(engine, 2);
        cut_off(engine);
        engine.unpause(id);
        engine.come_up().unwrap();
    }
    let wanted = [
        "fast pause a",
        "slow pause a",
        "fast unpause a inferred",
        "slow unpause a inferred",
    ];
    scene.expect_runs(SOON, &wanted);
    scene.settle(SOON, &engines);
    streams_later(&fast, 2);
    scene.expect_runs(SOON, &wanted);
    assert_eq!(gaps_said(&agent), 0, "{}", agent.log());
}
