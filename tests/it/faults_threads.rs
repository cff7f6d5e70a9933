//! Threads of the agent panic or hang: what the others, the watchdog and systemd make of it.

use std::time::Instant;

use crate::engine::containers::Spec;
use crate::engine::{Behaviour, Engine, Route};
use crate::kit::agent::Agent;
use crate::kit::manager::Manager;
use crate::kit::need::need;
use crate::kit::pulse::Pulse;
use crate::kit::redis::Redis;
use crate::kit::scene::{SOON, Scene, engine_with, settle};
use crate::kit::systemd::Systemd;
use crate::kit::{seconds, wait_until};

/// Two engines, `foo` and `bar`, watched by one agent whose threads fail when they are told to.
struct Pair {
    first: Engine,
    second: Engine,
    scene: Scene,
}

impl Pair {
    fn new() -> Pair {
        let (first, second) = (engine_with(3), engine_with(4));
        second.host_name("other");
        Pair {
            first,
            second,
            scene: Scene::new(),
        }
    }

    fn start(&self, more: &[(&str, &str)]) -> Agent {
        let fault = self.scene.path("fault").display().to_string();
        let variables = [&[("DOCKER_CACHE_TEST_FAULT", &*fault)], more].concat();
        let named = [("foo", &*self.first.url()), ("bar", &*self.second.url())];
        self.scene
            .watch_with(&named, &["-updateInterval=20s"], &variables)
    }

    /// From now on the first thread of this name to work fails so.
    fn order(&self, fault: &str) {
        // Whole or not at all.
        let draft = self.scene.path("draft");
        std::fs::write(&draft, fault)
            .and_then(|()| std::fs::rename(draft, self.scene.path("fault")))
            .unwrap_or_else(|error| panic!("failed to order `{fault}`: {error}"));
    }

    fn is_done(&self) -> bool {
        !self.scene.path("fault").exists()
    }

    fn settle(&self) {
        let both = [("foo", &self.first), ("bar", &self.second)];
        self.scene.settle(seconds(60), &both);
    }
}

#[test]
fn timed_fault_22_a_panic_in_an_engines_thread_starts_that_engine_anew_and_the_other_never_notices()
{
    need!(redis);
    let pair = Pair::new();
    let pulse = Pulse::of(&pair.scene, "bar", &pair.second);
    let mut agent = pair.start(&[]);
    pair.settle();
    for thread in [
        "read:foo", "sync:foo", "slow:foo", "next:foo", "read:foo", "sync:foo",
    ] {
        let told = agent.log().len();
        let hurt = pulse.is_in_time(&format!("a panic of {thread}"), || {
            let hurt = pair.first.create(Spec::named(&format!("hurt-{told}")));
            pair.order(&format!("panic {thread}"));
            match thread {
                // An inspect that takes longer than others are made to wait for.
                "slow:foo" => pair
                    .first
                    .misbehave(Route::InspectOf(hurt.clone()), Behaviour::Late(seconds(1))),
                // About as many events as an engine remembers: its stream is renewed before its time.
                "next:foo" => (0..250).for_each(|_| pair.first.top(&hurt)),
                _ => {}
            }
            pair.first.start(&hurt);
            agent.wait_log_from(told, &format!("thread `{thread}` panicked at"), SOON);
            hurt
        });
        pair.settle();
        pair.first.behave(&Route::InspectOf(hurt.clone()));
        pair.first.kill(&hurt, 9);
        pair.settle();
        let log = agent.log();
        assert!(!log[told..].contains("engine `bar`"), "{}", &log[told..]);
        assert_eq!(log[told..].matches("panicked at").count(), 1);
    }
    assert!(agent.exited().is_none());
}

#[test]
fn fault_22_a_panic_in_a_handlers_thread_is_the_failure_of_that_run_alone() {
    need!(redis);
    let pair = Pair::new();
    let mut agent = pair.start(&[]);
    pair.settle();
    pair.order("panic handler:1");
    pair.first.run(Spec::named("doomed"));
    let told = "for start of doomed on foo: could not be started: panicked at src/threads.rs";
    agent.wait_log(told, SOON);
    // The thread lives, and serves the next one.
    pair.first.run(Spec::named("next"));
    pair.second.run(Spec::named("other"));
    pair.scene
        .expect_runs(SOON, &["foo start next", "bar start other"]);
    pair.settle();
    assert_eq!(agent.log().matches("panicked at").count(), 1);
    assert!(agent.exited().is_none());
}

#[test]
fn fault_22_a_panic_in_core_or_writer_ends_the_agent_with_a_clear_last_line_and_its_successor_heals()
 {
    need!(redis);
    let pair = Pair::new();
    for thread in ["core", "writer"] {
        let mut agent = pair.start(&[]);
        pair.settle();
        pair.order(&format!("panic {thread}"));
        pair.first.run(Spec::named(&format!("doomed-{thread}")));
        let status = agent.wait_exit(SOON);
        assert_eq!(status.code(), Some(1));
        let log = agent.log();
        // The others may have their say between the two.
        let panicked = format!("thread `{thread}` panicked at src/threads.rs");
        assert!(log.contains(&panicked), "{log}");
        let last = format!("thread `{thread}` has ended; so does the agent, to be started anew");
        assert!(log.trim_end().ends_with(&last), "{log}");
        assert!(pair.is_done());
    }
    let mut last = pair.start(&[]);
    pair.settle();
    assert!(last.exited().is_none());
}

/// Starts an agent whose watchdog is to be fed every 150 ms, and waits for its first report.
fn fed(pair: &Pair, manager: &Manager) -> Agent {
    let agent = pair.start(&[
        ("NOTIFY_SOCKET", &*manager.path()),
        ("WATCHDOG_USEC", "900000"),
    ]);
    pair.settle();
    assert!(manager.fed_within(seconds(3)) >= 5);
    agent
}

#[test]
fn fault_22_the_watchdog_is_fed_while_redis_hangs_and_not_while_core_does() {
    need!(redis);
    let (mut pair, manager) = (Pair::new(), Manager::new());
    let _agent = fed(&pair, &manager);
    pair.scene.redis.freeze();
    // Long enough for the writer to give up more than once.
    for _ in 0..4 {
        assert!(manager.fed_within(seconds(3)) >= 5);
    }
    pair.scene.redis.thaw();
    pair.settle();
    pair.order("hang core");
    pair.first.run(Spec::named("more"));
    wait_until(SOON, "core hangs", || pair.is_done());
    assert_eq!(manager.fed_within(seconds(3)), 0);
}

#[test]
fn fault_22_the_watchdog_is_fed_no_more_when_the_writer_has_hung_for_longer_than_any_deadline() {
    need!(redis);
    let (pair, manager) = (Pair::new(), Manager::new());
    let _agent = fed(&pair, &manager);
    pair.order("hang writer");
    pair.first.run(Spec::named("more"));
    wait_until(SOON, "the writer hangs", || pair.is_done());
    let began = Instant::now();
    wait_until(seconds(90), "it is fed no more", || {
        manager.fed_within(seconds(3)) == 0
    });
    println!("fed no more {:?} after the writer hung", began.elapsed());
}

#[test]
fn fault_22_systemd_starts_an_agent_anew_that_panicked_or_hung_and_it_heals() {
    need!(redis, systemd);
    let (redis, engine) = (Redis::start(), engine_with(3));
    let args = [
        "-id=h".to_owned(),
        format!("-docker={}", engine.url()),
        format!("-cache={}", redis.url()),
        "-updateInterval=20s".to_owned(),
    ];
    let systemd = Systemd::start(&args);
    settle(&redis, &engine, seconds(60));
    let starts = || systemd.log().matches("Started monitoring").count();
    for (turn, fault) in ["panic core", "panic writer", "hang core"]
        .iter()
        .enumerate()
    {
        let began = Instant::now();
        systemd.order(fault);
        engine.run(Spec::named(&format!("while-{turn}")));
        // A hang is noticed when the watchdog's half minute is over.
        wait_until(
            seconds(90),
            &format!("it is started after `{fault}`"),
            || {
                let starts = starts();
                (starts == turn + 2)
                    .then_some(())
                    .ok_or(format!("started {starts} times"))
            },
        );
        println!("{fault}: started anew after {:?}", began.elapsed());
        settle(&redis, &engine, seconds(60));
    }
}
