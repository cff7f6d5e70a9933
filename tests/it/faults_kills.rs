//! The agent is killed at any moment, frozen, started twice: it converges, and its handlers miss nothing that happened while it was away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Value;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::manager::Manager;
use crate::kit::need::need;
use crate::kit::process::try_run;
use crate::kit::proxy::{Proxy, Way};
use crate::kit::redis::{Redis, ask};
use crate::kit::scene::{SOON, Scene, engine_with, settle};
use crate::kit::{TempDir, seconds, wait_until};

/// A lease lives 10 s; this is how much longer a successor may take.
const LEASE: Duration = Duration::from_secs(10);

/// A small generator of numbers, so that a run can be told by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What happened to which container: `h start churn-1`, `h die churn-1`.
#[derive(Clone, Debug)]
struct Told {
    event: String,
    /// How the agent would say that it cut its handler off.
    cut_off: String,
    /// The agent was away from before it until after it.
    away: bool,
}

type Events = Arc<Mutex<Vec<Told>>>;

fn lock(events: &Events) -> MutexGuard<'_, Vec<Told>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most containers that come and go while an agent of a round lives. Seven events each, six more of them while it is away, and of two agents the
/// first may do nothing at all: all that still fits into the 256 events that an engine remembers. Beyond, events may rightly be missing.
const CHURNS: usize = 10;

/// Starts and ends a container, and notes both.
fn churn(engine: &Engine, round: usize, away: bool, events: &Events) {
    let name = format!("churn-{round}");
    let id = engine.run(Spec::named(&name).image(&format!("i{}", round % 4)));
    engine.kill(&id, 9);
    engine.destroy(&id);
    lock(events).extend(["start", "die", "destroy"].map(|word| Told {
        event: format!("h {word} {name}"),
        cut_off: format!(" for {word} of {name} on h: was cut off"),
        away,
    }));
}

/// How often each handler ran, told late or not.
fn counts(scene: &Scene) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (run, times) in scene.runs() {
        let event = run.trim_end_matches(" inferred").to_owned();
        *counts.entry(event).or_default() += times;
    }
    counts
}

/// Gives the lease of a dead agent up at once: ten seconds of waiting a round would prove nothing more.
fn expire_lease(redis: &Redis) {
    redis.query::<()>(&["DEL", "docker:hosts:h:lease"]);
}

#[test]
fn fault_19_killed_again_and_again_it_converges_and_every_handler_runs_once_for_what_it_slept_through()
 {
    need!(redis);
    let kills: usize = std::env::var("DOCKER_CACHE_TEST_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(100);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = seed.map_or(1, |seed| seed.as_nanos() as u64) | 1;
    println!("seed {seed}, {kills} kills");
    let mut dice = Dice(seed);
    let (scene, engine) = (Scene::new(), Arc::new(engine_with(10)));
    let redis = &scene.redis;
    let events = Events::default();
    let start = || scene.watch(&[("h", &engine.url())], &["-updateInterval=60s"]);
    let mut agent = start();
    settle(redis, &engine, SOON);
    let (mut round, mut logs) = (0, String::new());
    for kill in 0..kills {
        // It is killed while things happen, up to half a second after the first of them.
        let over = Arc::new(AtomicBool::new(false));
        let worker = {
            let (engine, over, events) = (engine.clone(), over.clone(), events.clone());
            std::thread::spawn(move || {
                let mut at = round;
                while !over.load(Ordering::SeqCst) && at < round + CHURNS {
                    churn(&engine, at, false, &events);
                    at += 1;
                    std::thread::sleep(Duration::from_millis(40));
                }
                at
            })
        };
        std::thread::sleep(Duration::from_millis(dice.below(500)));
        agent.kill9();
        logs += &agent.log();
        over.store(true, Ordering::SeqCst);
        round = worker.join().unwrap_or_default();
        // Commands that were running go on without it; what they write belongs to the events of before.
        let before = lock(&events).len();
        for _ in 0..dice.below(7) {
            churn(&engine, round, true, &events);
            round += 1;
        }
        expire_lease(redis);
        agent = start();
        // Half of them live long enough to do all that there is to do; the others are killed while they do it.
        if kill % 2 == 0 {
            wait_for_all(&scene, &events, || logs.clone() + &agent.log());
            wait_until(SOON, "Redis knows that nothing is left to do", || {
                let get = |words: &[&str]| redis.query::<String>(words);
                get(&["HGET", "docker:hosts:h", "running_jobs"]).is_empty()
                    && get(&["GET", "docker:hosts:h:resume"])
                        == get(&["HGET", "docker:hosts:h", "last_event"])
            });
        } else {
            let mut events = lock(&events);
            events[before..]
                .iter_mut()
                .for_each(|told| told.away = false);
            drop(events);
            std::thread::sleep(Duration::from_millis(dice.below(400)));
        }
    }
    wait_for_all(&scene, &events, || logs.clone() + &agent.log());
    settle(redis, &engine, seconds(60));
    let events = lock(&events);
    let counts = counts(&scene);
    let away: Vec<&String> = events.iter().filter(|e| e.away).map(|e| &e.event).collect();
    let wrong: Vec<_> = away
        .iter()
        .filter(|event| counts.get(**event) != Some(&1))
        .collect();
    let twice = counts.values().filter(|count| **count > 1).count();
    println!(
        "{} events, {} while it was away; {} handlers ran, {twice} of them more than once; {} reported as cut off",
        events.len(),
        away.len(),
        counts.len(),
        logs.matches("was cut off").count()
    );
    assert!(!away.is_empty());
    assert_eq!(wrong, [&&""; 0], "not once, although it was away");
    let known: BTreeSet<&String> = events.iter().map(|told| &told.event).collect();
    let foreign: Vec<_> = counts.keys().filter(|key| !known.contains(key)).collect();
    assert_eq!(foreign, [""; 0], "nobody did this");
}

/// Waits until a handler ran for each event, or was said to have been cut off.
#[track_caller]
fn wait_for_all(scene: &Scene, events: &Events, logs: impl Fn() -> String) {
    wait_until(seconds(60), "a handler ran for each event", || {
        let counts = counts(scene);
        let events = lock(events);
        let mut missing: Vec<_> = events
            .iter()
            .filter(|told| !counts.contains_key(&told.event))
            .collect();
        if !missing.is_empty() {
            let logs = logs();
            missing.retain(|told| !logs.contains(&told.cut_off));
        }
        match missing.as_slice() {
            [] => Ok(()),
            some => Err(format!("{} of {}: {some:?}", some.len(), events.len())),
        }
    });
}

#[test]
fn fault_19_after_a_kill_jobs_that_waited_run_and_one_that_ran_is_reported_as_cut_off() {
    need!(redis);
    let engine = engine_with(2);
    let redis = Redis::start();
    let folder = TempDir::new();
    let (pids, done) = (folder.join("pids"), folder.join("done"));
    let config = folder.write(
        "events.yml",
        &format!(
            "events:\n  - name: slow\n    type: start\n    concurrency: 1\n    command: echo $$ >> {}; echo $FROM_CONTAINER >> {}; test $FROM_CONTAINER != first || exec sleep 60\n",
            pids.display(),
            done.display()
        ),
    );
    let start = || Agent::watch_with("h", &engine.url(), &redis.url(), 60, &[&config]);
    let mut first = start();
    settle(&redis, &engine, SOON);
    engine.run(Spec::named("first"));
    engine.run(Spec::named("second"));
    let running = || redis.query::<Option<String>>(&["HGET", "docker:hosts:h", "running_jobs"]);
    wait_until(SOON, "Redis knows what runs", || {
        let running = running().unwrap_or_default();
        running.starts_with(r#"{"entry":"slow","run":""#)
            && running.contains(r#","subject":"first","inferred":false,"event":{"Type":"container","Action":"start","#)
            && running.lines().count() == 1
    });
    wait_until(SOON, "it runs", || done.exists());
    first.kill9();
    // Its command goes on without it, which nobody can know; here it ends.
    for pid in std::fs::read_to_string(&pids).unwrap_or_default().lines() {
        // Some have ended by themselves.
        let _ = try_run("kill", &["-9", pid]);
    }
    expire_lease(&redis);
    let second = start();
    let line = "-1 for start of first on h: was cut off when the last agent ended";
    second.wait_log(line, SOON);
    wait_until(SOON, "what had waited has run, once", || {
        let done = std::fs::read_to_string(&done).unwrap_or_default();
        (done == "first\nsecond\n").then_some(()).ok_or(done)
    });
    wait_until(SOON, "both stand in the stream of runs", || {
        let runs: Vec<(String, BTreeMap<String, String>)> =
            redis.query(&["XRANGE", "docker:runs", "-", "+"]);
        let told: Vec<String> = runs
            .iter()
            .filter(|(_, run)| run["what"] == "end")
            .map(|(_, run)| format!("{} {} {}", run["entry"], run["subject"], run["exit"]))
            .collect();
        (told == ["slow first cut off", "slow second 0"])
            .then_some(())
            .ok_or(format!("{told:?}"))
    });
    wait_until(SOON, "nothing runs", || running() == Some("".into()));
    assert_eq!(second.log().matches("was cut off").count(), 1);
    settle(&redis, &engine, SOON);
}

#[test]
fn fault_20_an_agent_that_was_frozen_longer_than_all_lives_overwrites_nothing_newer() {
    need!(redis);
    let engine = engine_with(6);
    let redis = Redis::start();
    let proxy = Proxy::tcp(&redis.url());
    let mut old = Agent::watch("h", &engine.url(), &proxy.redis_url(), 1);
    settle(&redis, &engine, SOON);
    // A transaction of the old one hangs on the wire, and will arrive when another agent writes the host.
    let id = engine.running().into_iter().next().unwrap_or_default();
    proxy.stall(Way::Requests, true);
    engine.rename(&id, "old");
    wait_until(seconds(10), "the old one has seen it", || {
        engine.requests(&crate::engine::Route::Inspect) > 6
    });
    old.freeze();
    let new = Agent::watch("h", &engine.url(), &redis.url(), 1);
    new.wait_log("Reported 6 containers to the Cache", LEASE * 3);
    engine.rename(&id, "new");
    engine.run(Spec::named("later"));
    settle(&redis, &engine, SOON);
    let boot = || {
        let lease: String = redis.query(&["GET", "docker:hosts:h:lease"]);
        lease.split(':').next().unwrap_or_default().to_owned()
    };
    let before = boot();
    proxy.stall(Way::Requests, false);
    old.thaw();
    old.wait_log("host `h` is not written: another agent", SOON);
    settle(&redis, &engine, SOON);
    assert_eq!(boot(), before, "the old one took the lease back");
    assert!(!new.log().contains("has lost host"), "{}", new.log());
    drop(new);
    engine.rename(&id, "newest");
    settle(&redis, &engine, SOON);
    assert_ne!(boot(), before);
}

/// The commands that reach Redis over its socket, as `MONITOR` shows them.
struct Monitor(Arc<Mutex<Vec<String>>>);

impl Monitor {
    fn of(redis: &Redis) -> Monitor {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port()))
            .unwrap_or_else(|error| panic!("failed to connect: {error}"));
        stream
            .write_all(b"MONITOR\r\n")
            .unwrap_or_else(|error| panic!("failed to ask: {error}"));
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if line.contains("unix:") {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.push(line);
                }
            }
        });
        Monitor(lines)
    }

    /// Commands that may write, but for the one that changes nothing and proves that one may: all that neither Redis says only read, nor only talk about
    /// the connection and its transaction.
    fn writes(&self, redis: &Redis) -> Vec<String> {
        let mut lines = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        lines.retain(|line| !line.contains("\"docker:containers:\" \"\" \"XX\""));
        let name = |line: &String| -> String {
            let words = line.split_once("] \"").map_or("", |(_, words)| words);
            words.split('"').next().unwrap_or("").to_uppercase()
        };
        let names: BTreeSet<String> = lines.iter().map(name).collect();
        let harmless = |name: &&String| {
            let talk = ["PING", "TIME", "MULTI", "EXEC", "WATCH", "UNWATCH"];
            let flag = || redis.query::<Value>(&["COMMAND", "INFO", name]);
            talk.contains(&name.as_str()) || format!("{:?}", flag()).contains("(\"readonly\")")
        };
        let harmless: BTreeSet<&String> = names.iter().filter(harmless).collect();
        lines.retain(|line| !harmless.contains(&name(line)));
        lines
    }

    fn seen(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[test]
fn timed_fault_21_the_second_agent_of_one_id_says_so_and_writes_nothing_until_the_first_is_gone() {
    need!(redis);
    let engine = engine_with(4);
    let redis = Redis::start();
    let manager = Manager::new();
    let monitor = Monitor::of(&redis);
    let mut first = Agent::watch("h", &engine.url(), &redis.url(), 1);
    settle(&redis, &engine, SOON);
    let args = [
        "-id=h".to_owned(),
        format!("-docker={}", engine.url()),
        format!(
            "-cache={}",
            redis.socket_url().replace("redis+unix", "unix")
        ),
        "-updateInterval=1s".to_owned(),
    ];
    let mut second = Agent::start_with(&args, &[("NOTIFY_SOCKET", &*manager.path())]);
    second.wait_log("host `h` is not written: another agent", SOON);
    second.wait_log("give each agent an --id of its own", SOON);
    manager.hears("STATUS=", "host `h` is not written: another agent");
    // Many of its questions and several intervals later it still has written nothing.
    let seen = monitor.seen();
    engine.run(Spec::named("more"));
    wait_until(seconds(60), "it asked for the lease many times", || {
        monitor.seen() > seen + 30
    });
    assert_eq!(monitor.writes(&redis), [""; 0]);
    assert_eq!(second.log().matches("is not written").count(), 1);
    // A clean stop: at once. It asks twice a second, and then lists the engine, a second after its last list at the earliest.
    let began = Instant::now();
    assert!(first.stop(seconds(10)).success());
    second.wait_log("Reported 5 containers to the Cache", seconds(10));
    let took = began.elapsed();
    println!("taken over {took:?} after the request to stop");
    assert!(took < seconds(2), "{took:?}");
    settle(&redis, &engine, SOON);
    // A kill: when the lease has run out.
    let third = Agent::watch("h", &engine.url(), &redis.url(), 1);
    third.wait_log("host `h`", SOON);
    let began = Instant::now();
    second.kill9();
    third.wait_log("Reported 5 containers to the Cache", seconds(20));
    let took = began.elapsed();
    println!("taken over {took:?} after the kill");
    assert!(took < seconds(12), "{took:?}");
    settle(&redis, &engine, SOON);
}

#[test]
fn the_monitor_knows_whatever_may_write() {
    need!(redis);
    let redis = Redis::start();
    let monitor = Monitor::of(&redis);
    let client = redis::Client::open(redis.socket_url());
    let mut connection = client
        .and_then(|client| client.get_connection())
        .unwrap_or_else(|error| panic!("failed to connect: {error}"));
    let (reads, writes) = (
        [
            "GET k",
            "HGETALL k",
            "PTTL k",
            "SCAN 0",
            "TIME",
            "WATCH k",
            "UNWATCH",
        ],
        [
            "APPEND k x",
            "GETDEL k",
            "INCR k",
            "COPY k l",
            "RENAME k l",
            "SPOP s",
            "PERSIST k",
            "UNLINK k",
            "PUBLISH c x",
            "EVAL return 0",
            "XADD x * a b",
            "FLUSHALL",
            "getset k x",
        ],
    );
    for line in reads.iter().chain(&writes) {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words[0] == "EVAL" {
            words = vec!["EVAL", "return 0", "0"];
        }
        ask::<Value>(&mut connection, &words).ok();
    }
    wait_until(SOON, "all were seen", || {
        monitor.writes(&redis).len() == writes.len() && monitor.seen() >= reads.len() + writes.len()
    });
}

#[test]
fn fault_21_a_flush_gives_no_host_from_an_agent_that_lives_to_another_of_its_id() {
    need!(redis);
    let (engine, other, mut redis) = (engine_with(4), engine_with(2), Redis::start());
    let _first = Agent::watch("h", &engine.url(), &redis.url(), 60);
    settle(&redis, &engine, SOON);
    let socket = redis.socket_url().replace("redis+unix", "unix");
    let second = Agent::watch("h", &other.url(), &socket, 60);
    second.wait_log("host `h` is not written: another agent", SOON);
    let boot = |redis: &Redis| -> Option<String> {
        let lease: Option<String> = redis.query(&["GET", "docker:hosts:h:lease"]);
        Some(lease?.split(':').next().unwrap_or("").to_owned())
    };
    let before = boot(&redis);
    for round in 0..8 {
        // It asks twice a second, and has to see that the first is back.
        let monitor = Monitor::of(&redis);
        wait_until(SOON, "the second has asked again", || monitor.seen() > 30);
        match round % 4 {
            0 => redis.query::<()>(&["DEL", "docker:hosts:h:lease"]),
            3 => redis.restart_empty(),
            _ => redis.flush(),
        }
        wait_until(SOON, "one of them has the host", || boot(&redis).is_some());
        assert_eq!(boot(&redis), before, "round {round}");
        settle(&redis, &engine, SOON);
    }
}
