//! The agent is killed at any moment, frozen, started twice: it converges, and its handlers miss nothing that happened while it was away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::faults_setting::{Diary, HOST, agent, engine_with, settle};
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::process::try_run;
use crate::kit::proxy::{Proxy, Way};
use crate::kit::redis::Redis;
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

/// What happened to which container: `start <id>`, `die <id>`.
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

/// Starts and ends a container, and notes both.
fn churn(engine: &Engine, round: usize, away: bool, events: &Events) {
    let name = format!("churn-{round}");
    let id = engine.run(Spec::named(&name).image(&format!("i{}", round % 4)));
    engine.kill(&id, 9);
    engine.destroy(&id);
    lock(events).extend(["start", "die"].map(|word| Told {
        event: format!("{word} {id}"),
        cut_off: format!("run for {word} of {name} on h: was cut off"),
        away,
    }));
}

/// How often each handler ran.
fn counts(diary: &Diary) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in diary.lines() {
        let event = line.trim_end_matches(" 1").to_owned();
        *counts.entry(event).or_default() += 1;
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
        .unwrap_or(20);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = seed.map_or(1, |seed| seed.as_nanos() as u64) | 1;
    println!("seed {seed}, {kills} kills");
    let mut dice = Dice(seed);
    let engine = Arc::new(engine_with(10));
    let redis = Redis::start();
    let diary = Diary::of("start, die");
    let events = Events::default();
    let start = || {
        let args = ["-updateInterval=60s", &diary.arg()];
        agent(&engine.url(), &redis.url(), &args)
    };
    let mut agent = start();
    settle(&redis, &engine, seconds(30));
    let (mut round, mut logs) = (0, String::new());
    for kill in 0..kills {
        // It is killed while things happen, up to half a second after the first of them.
        let over = Arc::new(AtomicBool::new(false));
        let worker = {
            let (engine, over, events) = (engine.clone(), over.clone(), events.clone());
            std::thread::spawn(move || {
                let mut at = round;
                while !over.load(Ordering::SeqCst) {
                    churn(&engine, at, false, &events);
                    at += 1;
                    std::thread::sleep(Duration::from_millis(15));
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
        for _ in 0..dice.below(8) {
            churn(&engine, round, true, &events);
            round += 1;
        }
        expire_lease(&redis);
        agent = start();
        // Half of them live long enough to do all that there is to do; the others are killed while they do it.
        if kill % 2 == 0 {
            wait_for_all(&diary, &events, || logs.clone() + &agent.log());
            wait_until(
                seconds(30),
                "Redis knows that nothing is left to do",
                || {
                    let get = |words: &[&str]| redis.query::<String>(words);
                    get(&["HGET", "docker:hosts:h", "running_jobs"]).is_empty()
                        && get(&["GET", "docker:hosts:h:resume"])
                            == get(&["HGET", "docker:hosts:h", "last_event"])
                },
            );
        } else {
            let mut events = lock(&events);
            events[before..]
                .iter_mut()
                .for_each(|told| told.away = false);
            drop(events);
            std::thread::sleep(Duration::from_millis(dice.below(400)));
        }
    }
    wait_for_all(&diary, &events, || logs.clone() + &agent.log());
    settle(&redis, &engine, seconds(60));
    let events = lock(&events);
    let counts = counts(&diary);
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
fn wait_for_all(diary: &Diary, events: &Events, logs: impl Fn() -> String) {
    wait_until(seconds(60), "a handler ran for each event", || {
        let counts = counts(diary);
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
    let args = ["-updateInterval=60s", &config.display().to_string()];
    let mut first = agent(&engine.url(), &redis.url(), &args);
    settle(&redis, &engine, seconds(30));
    engine.run(Spec::named("first"));
    engine.run(Spec::named("second"));
    let running = || redis.query::<Option<String>>(&["HGET", "docker:hosts:h", "running_jobs"]);
    wait_until(seconds(30), "Redis knows what runs", || {
        running() == Some("slow\tstart\tfirst".into())
    });
    wait_until(seconds(30), "it runs", || done.exists());
    first.kill9();
    // Its command goes on without it, which nobody can know; here it ends.
    for pid in std::fs::read_to_string(&pids).unwrap_or_default().lines() {
        // Some have ended by themselves.
        let _ = try_run("kill", &["-9", pid]);
    }
    expire_lease(&redis);
    let second = agent(&engine.url(), &redis.url(), &args);
    let line = "handler `slow`, run for start of first on h: was cut off when the last agent ended";
    second.wait_log(line, seconds(30));
    wait_until(seconds(30), "what had waited has run, once", || {
        let done = std::fs::read_to_string(&done).unwrap_or_default();
        (done == "first\nsecond\n").then_some(()).ok_or(done)
    });
    wait_until(seconds(30), "both stand in the stream of runs", || {
        let runs: Vec<(String, BTreeMap<String, String>)> =
            redis.query(&["XRANGE", "docker:runs", "-", "+"]);
        let told: Vec<String> = runs
            .iter()
            .map(|(_, run)| format!("{} {} {}", run["entry"], run["subject"], run["exit"]))
            .collect();
        (told == ["slow first cut off", "slow second 0"])
            .then_some(())
            .ok_or(format!("{told:?}"))
    });
    wait_until(seconds(30), "nothing runs", || running() == Some("".into()));
    assert_eq!(second.log().matches("was cut off").count(), 1);
    settle(&redis, &engine, seconds(30));
}

#[test]
fn fault_20_an_agent_that_was_frozen_longer_than_all_lives_overwrites_nothing_newer() {
    need!(redis);
    let engine = engine_with(6);
    let redis = Redis::start();
    let proxy = Proxy::tcp(&redis.url());
    let mut old = agent(&engine.url(), &proxy.redis_url(), &["-updateInterval=1s"]);
    settle(&redis, &engine, seconds(30));
    // A transaction of the old one hangs on the wire, and will arrive when another agent writes the host.
    let id = engine.running().into_iter().next().unwrap_or_default();
    proxy.stall(Way::Requests, true);
    engine.rename(&id, "old");
    wait_until(seconds(10), "the old one has seen it", || {
        engine.requests(&crate::engine::Route::Inspect) > 6
    });
    old.freeze();
    let new = agent(&engine.url(), &redis.url(), &["-updateInterval=1s"]);
    new.wait_log("Reported 6 containers to the Cache", LEASE * 3);
    engine.rename(&id, "new");
    engine.run(Spec::named("later"));
    settle(&redis, &engine, seconds(30));
    let boot = || {
        let lease: String = redis.query(&["GET", "docker:hosts:h:lease"]);
        lease.split(':').next().unwrap_or_default().to_owned()
    };
    let before = boot();
    proxy.stall(Way::Requests, false);
    old.thaw();
    old.wait_log("host `h` is not written: another agent", seconds(30));
    settle(&redis, &engine, seconds(30));
    assert_eq!(boot(), before, "the old one took the lease back");
    assert!(!new.log().contains("has lost host"), "{}", new.log());
    drop(new);
    engine.rename(&id, "newest");
    settle(&redis, &engine, seconds(30));
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

    /// Commands that write, but for the one that changes nothing and proves that one may.
    fn writes(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quoted = |line: &&String| {
            let words = ["SET", "HSET", "HDEL", "SADD", "SREM", "DEL", "ZADD", "ZREM"];
            let more = ["XADD", "PUBLISH", "EXPIRE", "PEXPIRE"];
            let mut words = words.iter().chain(&more);
            words.any(|word| line.contains(&format!("\"{word}\"")))
                && !line.contains("\"docker:containers:\" \"\" \"XX\"")
        };
        lines.iter().filter(quoted).cloned().collect()
    }

    fn seen(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[test]
fn fault_21_the_second_agent_of_one_id_says_so_and_writes_nothing_until_the_first_is_gone() {
    need!(redis);
    let engine = engine_with(4);
    let redis = Redis::start();
    let folder = TempDir::new();
    let path = folder.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap_or_else(|error| panic!("{error}"));
    manager
        .set_read_timeout(Some(seconds(30)))
        .unwrap_or_else(|error| panic!("{error}"));
    let status = |wanted: &str| {
        let mut buffer = [0; 4096];
        let deadline = Instant::now() + seconds(30);
        let mut said = Vec::new();
        while Instant::now() < deadline {
            let length = manager.recv(&mut buffer).unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with("STATUS=") && text.contains(wanted) {
                return;
            }
            said.push(text);
        }
        panic!("no status says `{wanted}`: {said:?}");
    };
    let monitor = Monitor::of(&redis);
    let mut first = agent(&engine.url(), &redis.url(), &["-updateInterval=1s"]);
    settle(&redis, &engine, seconds(30));
    let args = [
        format!("-id={HOST}"),
        format!("-docker={}", engine.url()),
        format!(
            "-cache={}",
            redis.socket_url().replace("redis+unix", "unix")
        ),
        "-updateInterval=1s".to_owned(),
    ];
    let notify = path.display().to_string();
    let mut second = Agent::start_with(&args, &[("NOTIFY_SOCKET", &notify)]);
    second.wait_log("host `h` is not written: another agent", seconds(30));
    second.wait_log("give each agent an --id of its own", seconds(30));
    status("host `h` is not written: another agent");
    // Many of its questions and several intervals later it still has written nothing.
    let seen = monitor.seen();
    engine.run(Spec::named("more"));
    wait_until(seconds(60), "it asked for the lease many times", || {
        monitor.seen() > seen + 30
    });
    assert_eq!(monitor.writes(), [""; 0]);
    assert_eq!(second.log().matches("is not written").count(), 1);
    // A clean stop: at once.
    let began = Instant::now();
    assert!(first.stop(seconds(10)).success());
    second.wait_log("Reported 5 containers to the Cache", seconds(10));
    println!("taken over {:?} after the request to stop", began.elapsed());
    assert!(began.elapsed() < seconds(5));
    settle(&redis, &engine, seconds(30));
    // A kill: when the lease has run out.
    let third = agent(&engine.url(), &redis.url(), &["-updateInterval=1s"]);
    third.wait_log("host `h`", seconds(30));
    let began = Instant::now();
    second.kill9();
    third.wait_log("Reported 5 containers to the Cache", seconds(20));
    println!("taken over {:?} after the kill", began.elapsed());
    assert!(began.elapsed() < seconds(15));
    settle(&redis, &engine, seconds(30));
}
