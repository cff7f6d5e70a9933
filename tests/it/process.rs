//! The agent as a process: how it starts, what it costs while nothing happens, what it says when asked, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::engine::{Behaviour, Engine, Route};
use crate::kit::agent::Agent;
use crate::kit::manager::Manager;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::process::lives;
use crate::kit::proxy::Proxy;
use crate::kit::redis::Redis;
use crate::kit::{TempDir, seconds, wait_until};

/// Longer than anything takes on a loaded machine.
const SOON: Duration = Duration::from_secs(60);

fn engine() -> Engine {
    Engine::listen(&Place::Tcp("127.0.0.1:0".into())).unwrap()
}

/// Writes a cluster of these engines, with these entries.
fn cluster(folder: &TempDir, engines: &[(&str, &str)], entries: &str) -> String {
    let mut text = "cluster:\n".to_owned();
    for (name, url) in engines {
        text += &format!("  {name}: {url}\n");
    }
    text += "events:\n";
    text += &entries.replace("DIR", &folder.path().display().to_string());
    folder.write("events.yml", &text).display().to_string()
}

/// Asks it to stop; how long it took, and that it was a success.
#[track_caller]
fn stop(agent: &mut Agent) -> Duration {
    let asked = Instant::now();
    let status = agent.stop(SOON);
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(0), "{}", agent.log());
    took
}

/// The best of three: a machine that is busy with other tests may be late, but not each time.
#[track_caller]
fn fast_enough(limit: Duration, mut once: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    while took.len() < 3 {
        took.push(once());
        if took.last() < Some(&limit) {
            return;
        }
    }
    panic!("it took {took:?}, never less than {limit:?}");
}

#[test]
fn a_stop_takes_less_than_a_second_with_a_stream_open_and_an_engine_hung() {
    need!(redis);
    fast_enough(seconds(1), || {
        let redis = Redis::start();
        let folder = TempDir::new();
        let (good, hung, half) = (engine(), engine(), engine());
        good.run(Spec::named("web"));
        hung.misbehave(Route::Every, Behaviour::Hang);
        half.run(Spec::named("stuck"));
        half.misbehave(Route::Inspect, Behaviour::Hang);
        let engines = [
            ("good", &*good.url()),
            ("hung", &*hung.url()),
            ("half", &*half.url()),
        ];
        let file = cluster(&folder, &engines, "  - {type: start, log: x}\n");
        let mut agent = Agent::start(&[file, format!("--cache={}", redis.url())]);
        wait_until(SOON, "the streams are open and the others hang", || {
            good.subscribers() == 1
                && half.requests(&Route::Inspect) > 0
                && hung.requests(&Route::Every) > 0
                && redis.query::<bool>(&["EXISTS", "docker:hosts:good:containers"])
        });
        let took = stop(&mut agent);
        let log = agent.log();
        assert!(!log.contains("did not end in time"), "{log}");
        // The leases are given back, so that a successor need not wait.
        for host in ["good", "hung", "half"] {
            assert!(
                !redis.query::<bool>(&["EXISTS", &format!("docker:hosts:{host}:lease")]),
                "{host}: {log}"
            );
        }
        took
    });
}

#[test]
fn a_stop_does_not_wait_for_a_redis_that_hangs() {
    need!(redis);
    fast_enough(Duration::from_millis(1500), || {
        let mut redis = Redis::start();
        let engine = engine();
        let mut agent = Agent::watch("h", &engine.url(), &redis.url(), Agent::SELDOM_S);
        oracle::settle(&redis, "docker", SOON, || {
            vec![Host::up("h", engine.running())]
        });
        redis.freeze();
        let id = engine.run(Spec::named("web"));
        engine.stop(&id);
        stop(&mut agent)
    });
}

#[test]
fn running_commands_have_their_graces_and_no_more() {
    let folder = TempDir::new();
    let engine = engine();
    let file = cluster(
        &folder,
        &[("foo", &engine.url())],
        r#"
  - name: tidy
    type: start
    grace: 20s
    command: |
      trap 'sleep 0.3; echo tidied > DIR/tidied; exit 0' TERM
      echo $$ > DIR/tidy; while :; do sleep 0.1; done
  - name: deaf
    type: start
    grace: 500ms
    command: |
      trap '' TERM
      echo $$ > DIR/deaf; while :; do sleep 1000; done
"#,
    );
    let mut agent = Agent::start(&[file, "--cache=none".into()]);
    wait_until(SOON, "the stream is open", || engine.subscribers() == 1);
    engine.run(Spec::named("web"));
    let pid = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    wait_until(SOON, "both commands run", || {
        pid("tidy").ends_with('\n') && pid("deaf").ends_with('\n')
    });
    let took = stop(&mut agent);
    // Both graces run at once; who is done before the end of his is not waited for.
    assert!(
        took >= Duration::from_millis(500) && took < seconds(15),
        "{took:?}"
    );
    assert_eq!(pid("tidied"), "tidied\n");
    assert!(
        !lives(&pid("tidy")) && !lives(&pid("deaf")),
        "a command outlived the agent"
    );
    let log = agent.log();
    assert_eq!(
        log.matches("was ended because the agent stops").count(),
        2,
        "{log}"
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = TempDir::new();
    let engine = engine();
    let file = cluster(
        &folder,
        &[("foo", &engine.url())],
        r#"
  - type: start
    grace: 1h
    command: |
      trap 'echo termed > DIR/termed' TERM
      echo $$ > DIR/pid; while [ ! -e DIR/over ]; do sleep 0.1; done
"#,
    );
    let mut agent = Agent::start(&[file, "--cache=none".into()]);
    wait_until(SOON, "the stream is open", || engine.subscribers() == 1);
    engine.run(Spec::named("web"));
    wait_until(SOON, "the command runs", || folder.join("pid").exists());
    agent.signal(Signal::TERM);
    wait_until(SOON, "the first signal was passed on", || {
        folder.join("termed").exists()
    });
    assert!(agent.exited().is_none(), "{}", agent.log());
    agent.signal(Signal::INT);
    let asked = Instant::now();
    assert_eq!(agent.wait_exit(SOON).code(), Some(0));
    assert!(asked.elapsed() < seconds(10), "{:?}", asked.elapsed());
    // Whoever it had left to itself is ours to end.
    folder.write("over", "");
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    wait_until(SOON, "the command has ended", || !lives(&pid));
}

#[test]
fn it_says_how_things_are_when_asked() {
    need!(redis);
    let redis = Redis::start();
    let folder = TempDir::new();
    let engine = engine();
    let nowhere = format!("unix://{}", folder.join("nowhere").display());
    let file = cluster(
        &folder,
        &[("foo", &engine.url()), ("bar", &nowhere)],
        "  - {type: start, command: 'touch DIR/ran; exec sleep 1000', grace: 10ms}\n",
    );
    let mut agent = Agent::start(&[file, format!("--cache={}", redis.url())]);
    wait_until(SOON, "the stream is open", || engine.subscribers() == 1);
    engine.run(Spec::named("web"));
    wait_until(
        SOON,
        "the command runs and the container is written",
        || {
            folder.join("ran").exists()
                && redis.query::<bool>(&["EXISTS", "docker:hosts:foo:containers"])
        },
    );
    agent.signal(Signal::USR1);
    agent.wait_log(
        &format!("engine `bar` ({nowhere}): down; 0 containers in the Cache; events 0, "),
        SOON,
    );
    let log = agent.log();
    for text in [
        "watching 2 engines, bar is down; the Cache is connected; 1 commands run, 0 jobs wait, 0 were dropped",
        &format!(
            "engine `foo` ({}): up; 1 containers in the Cache; events 3, gaps 0, resyncs 1, ",
            engine.url()
        ),
    ] {
        assert!(log.contains(text), "{text} is not in\n{log}");
    }
    stop(&mut agent);
}

#[test]
fn it_starts_while_nobody_answers_and_says_so_once() {
    need!(redis);
    let mut redis = Redis::start();
    let fake = engine();
    let (to_redis, to_engine) = (Proxy::tcp(&redis.url()), Proxy::tcp(&fake.url()));
    to_redis.refuse(true);
    to_engine.refuse(true);
    let started = Instant::now();
    let mut agent = Agent::watch(
        "h",
        &to_engine.url(),
        &to_redis.redis_url(),
        Agent::SELDOM_S,
    );
    // Redis is tried at least once a second, an engine at least every ten.
    wait_until(SOON, "both were tried again and again", || {
        to_redis.accepted() >= 8 && to_engine.accepted() >= 4
    });
    let log = agent.log();
    let about = |log: &str, what: &str| {
        let lines = log.lines().filter(|line| line.contains(what));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let redis_place = to_redis.redis_url().replace("redis://", "");
    assert_eq!(about(&log, &redis_place).len(), 1, "{log}");
    // What the kernel says of a connection that is closed at once depends on who was faster; each wording is told once.
    let told = about(&log, "engine `h`");
    let wordings: std::collections::BTreeSet<&str> = told.iter().map(|line| &line[20..]).collect();
    assert!(told.len() <= 2 && told.len() == wordings.len(), "{log}");
    assert_eq!(log.lines().count(), 1 + told.len(), "{log}");
    // Delays grow: it is no busy loop.
    let tries = to_redis.accepted();
    assert!(
        tries as f64 <= 6.0 + 3.0 * started.elapsed().as_secs_f64(),
        "{tries} tries"
    );

    to_redis.refuse(false);
    agent.wait_log("the Cache answers again", SOON);
    to_engine.refuse(false);
    agent.wait_log("Started monitoring Docker events (h)", SOON);
    fake.run(Spec::named("web"));
    let host = || vec![Host::up("h", fake.running())];
    oracle::settle(&redis, "docker", SOON, host);

    // Once more, while it runs.
    redis.kill9();
    to_redis.cut();
    to_engine.refuse(true);
    to_engine.cut();
    let (redis_tries, engine_tries) = (to_redis.accepted(), to_engine.accepted());
    wait_until(SOON, "both were tried again and again", || {
        to_redis.accepted() >= redis_tries + 5 && to_engine.accepted() >= engine_tries + 3
    });
    redis.restart();
    to_engine.refuse(false);
    fake.run(Spec::named("web-2"));
    oracle::settle(&redis, "docker", SOON, host);
    let log = agent.log();
    assert_eq!(log.matches("the Cache answers again").count(), 2, "{log}");
    assert_eq!(
        log.matches("Started monitoring Docker events (h)").count(),
        2,
        "{log}"
    );
    // Each wording once before and once after, and how the stream ended.
    assert!(about(&log, "engine `h`").len() <= 5, "{log}");
    let complaints = about(&log, "warning: failed to");
    let of_redis = complaints.iter().filter(|line| line.contains(&redis_place));
    assert!(of_redis.count() <= 3, "{log}");
    stop(&mut agent);
}

#[test]
fn a_redis_that_takes_no_writes_is_told_once_and_not_besieged() {
    need!(redis);
    let redis = Redis::start();
    let proxy = Proxy::tcp(&redis.url());
    let engine = engine();
    engine.run(Spec::named("web"));
    let mut agent = Agent::watch("h", &engine.url(), &proxy.redis_url(), Agent::SELDOM_S);
    let host = || vec![Host::up("h", engine.running())];
    oracle::settle(&redis, "docker", SOON, host);
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    engine.run(Spec::named("web-2"));
    agent.wait_log("OOM", SOON);
    let (began, before) = (Instant::now(), proxy.accepted());
    wait_until(SOON, "it was tried again and again", || {
        proxy.accepted() >= before + 6
    });
    let tries = (proxy.accepted() - before) as f64;
    assert!(
        tries <= 6.0 + 3.0 * began.elapsed().as_secs_f64(),
        "{tries} tries in {:?}",
        began.elapsed()
    );
    let log = agent.log();
    assert_eq!(log.matches("OOM").count(), 1, "{log}");
    assert!(!log.contains("answers again"), "{log}");
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    oracle::settle(&redis, "docker", SOON, host);
    agent.wait_log("the Cache answers again", SOON);
    stop(&mut agent);
}

/// The program as users get it, where it was built after the last change of its sources.
fn release() -> Option<PathBuf> {
    let program = Path::new(Agent::PROGRAM)
        .parent()?
        .parent()?
        .join("release/docker-cache");
    let built = fs::metadata(&program).ok()?.modified().ok()?;
    (built > newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))).then_some(program)
}

fn newest(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let times = entries.map(|entry| match entry.path().is_dir() {
        true => newest(&entry.path()),
        false => entry
            .metadata()
            .and_then(|file| file.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Starts the release's program where there is one, without what the test's own environment would tell it.
fn start_best(args: &[String]) -> (Agent, bool) {
    let release = release();
    let program = release.clone().unwrap_or(Agent::PROGRAM.into());
    let mut command = Command::new(program);
    for (name, _) in Agent::command().get_envs() {
        command.env_remove(name);
    }
    (Agent::spawn(command.args(args)), release.is_some())
}

#[test]
fn an_idle_agent_costs_next_to_nothing() {
    need!(redis);
    let redis = Redis::start();
    let (one, two) = (engine(), engine());
    for number in 0..10 {
        one.run(Spec::named(&format!("one-{number}")));
        two.run(Spec::named(&format!("two-{number}")));
    }
    let folder = TempDir::new();
    let engines = [("one", &*one.url()), ("two", &*two.url())];
    let file = cluster(&folder, &engines, "  - {type: oom, command: 'true'}\n");
    let cache = format!("--cache={}", redis.url());
    let seldom = format!("--update-interval={}s", Agent::SELDOM_S);
    let (mut agent, released) = start_best(&[file, cache, seldom]);
    let hosts = || {
        vec![
            Host::up("one", one.running()),
            Host::up("two", two.running()),
        ]
    };
    oracle::settle(&redis, "docker", SOON, hosts);
    let mut threads = vec![
        "signals", "reload", "core", "writer", "read:one", "read:two", "sync:one", "sync:two",
    ];
    threads.push("docker-cache");
    threads.sort();
    assert_eq!(agent.threads(), threads);
    // Each heartbeat counts the lease on; a busy machine stretches the time, not what is done in it.
    let beats = || -> u64 {
        let lease: String = redis.query(&["GET", "docker:hosts:one:lease"]);
        lease
            .rsplit(':')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    let settled = beats();
    wait_until(SOON, "the start is over", || beats() > settled);
    let asked = || (one.requests(&Route::Every), one.requests(&Route::Ping));
    let (first, ticks, (all, pings)) = (beats(), agent.cpu_ticks(), asked());
    wait_until(SOON, "three heartbeats have passed", || {
        beats() >= first + 3
    });
    let (beaten, used) = (beats() - first, agent.cpu_ticks() - ticks);
    // Six seconds: a hundredth of one core would be six ticks.
    assert!(
        used <= 3,
        "{used} ticks of processor time in {beaten} heartbeats"
    );
    let (all, pings) = (asked().0 - all, asked().1 - pings);
    assert!(
        all == pings && pings <= 1 + beaten / 5,
        "an idle engine is asked nothing but, each 10 s, whether it is there: {all}, {pings}"
    );
    // The tests' own build is larger, and its code counts too.
    let limit_kb = if released { 8 * 1024 } else { 20 * 1024 };
    assert!(
        agent.rss_kb() < limit_kb,
        "{} kB resident, released: {released}",
        agent.rss_kb()
    );
    stop(&mut agent);
}

#[test]
fn reconnects_leave_no_descriptor_open() {
    need!(redis);
    let redis = Redis::start();
    let folder = TempDir::new();
    // Ten engines five times each: the delays of one alone would grow to ten seconds.
    let fakes: Vec<Engine> = (0..10).map(|_| engine()).collect();
    let urls: Vec<(String, String)> = fakes
        .iter()
        .enumerate()
        .map(|(at, fake)| (format!("e{at}"), fake.url()))
        .collect();
    let engines: Vec<(&str, &str)> = urls.iter().map(|(name, url)| (&**name, &**url)).collect();
    let file = cluster(&folder, &engines, "  - {type: oom, log: x}\n");
    let mut agent = Agent::start(&[file, format!("--cache={}", redis.url())]);
    for fake in &fakes {
        fake.run(Spec::named("web"));
    }
    let hosts = || -> Vec<Host> {
        let pairs = fakes.iter().zip(&urls);
        pairs
            .map(|(fake, (name, _))| Host::up(name, fake.running()))
            .collect()
    };
    oracle::settle(&redis, "docker", SOON, hosts);
    let reconnect = |count: u64| {
        let connects = |fake: &Engine| fake.requests(&Route::Events);
        let before: Vec<u64> = fakes.iter().map(connects).collect();
        fakes.iter().for_each(Engine::cut_all);
        wait_until(SOON, &format!("all are back for the {count}. time"), || {
            fakes
                .iter()
                .zip(&before)
                .all(|(fake, before)| connects(fake) > *before && fake.subscribers() == 1)
        });
    };
    // Everything that is opened once is open after the first time.
    reconnect(1);
    oracle::settle(&redis, "docker", SOON, hosts);
    let (before, threads) = (agent.fds(), agent.threads());
    for count in 2..=6 {
        reconnect(count);
    }
    oracle::settle(&redis, "docker", SOON, hosts);
    // A kept connection more or less, none a reconnect.
    wait_until(SOON, "no descriptor is left open", || match agent.fds() {
        now if now <= before + 2 => Ok(()),
        now => Err(format!("{before} before, {now} after 50 reconnects")),
    });
    assert_eq!(agent.threads(), threads);
    stop(&mut agent);
}

#[test]
fn the_service_manager_is_told() {
    need!(redis);
    let mut redis = Redis::start();
    let manager = Manager::new();
    let wait_for = |wanted: &str| manager.hears("", wanted);
    let engine = engine();
    let url = engine.url();
    let docker = format!("--docker={url}");
    let cache = format!("--cache={}", redis.url());
    engine.refuse();
    // It is ready when it runs, not when others do.
    redis.kill9();
    let mut agent = Agent::start_with(
        &["--id=h", &docker, &cache],
        &[
            ("NOTIFY_SOCKET", &*manager.path()),
            ("WATCHDOG_USEC", "3000000"),
        ],
    );
    let heard = wait_for("READY=1");
    assert!(
        heard
            .iter()
            .all(|message| !message.contains("the Cache is connected")),
        "{heard:?}"
    );
    let heard = wait_for("h is down");
    assert!(
        heard
            .last()
            .is_some_and(|message| message.starts_with(&format!("STATUS=watching h@{url}"))),
        "{heard:?}"
    );
    redis.restart();
    wait_for("the Cache is connected");
    engine.come_up().unwrap();
    let heard = wait_for(&format!("STATUS=watching h@{url}; the Cache is connected"));
    assert!(
        !heard.last().is_some_and(|message| message.contains("down")),
        "{heard:?}"
    );
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    // A signal that has nothing to do is no reload, and no end.
    agent.signal(Signal::HUP);
    agent.wait_log("there is nothing to read again", SOON);
    agent.signal(Signal::TERM);
    wait_for("STOPPING=1");
    assert_eq!(agent.wait_exit(SOON).code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_is_no_reason_to_stop() {
    let engine = engine();
    let folder = TempDir::new();
    let file = cluster(
        &folder,
        &[("foo", &engine.url())],
        "  - {type: start, command: 'echo $FROM_CONTAINER >> DIR/out'}\n",
    );
    // `head` goes away after the first line, as a pager does.
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "{ \"$0\" \"$@\" & echo $! > \"$PIDFILE\"; wait; } 2>&1 | head -n 1",
    ]);
    shell.arg(Agent::PROGRAM).args([&*file, "--cache=none"]);
    let pidfile = folder.join("pid");
    let mut shell = Agent::spawn(shell.env("PIDFILE", &pidfile));
    wait_until(SOON, "the stream is open", || engine.subscribers() == 1);
    for number in 0..3 {
        engine.run(Spec::named(&format!("web-{number}")));
    }
    let out = || fs::read_to_string(folder.join("out")).unwrap_or_default();
    wait_until(SOON, "all three were handled", || {
        out().lines().count() == 3
    });
    let pid = fs::read_to_string(&pidfile).unwrap();
    crate::kit::process::run("kill", &[pid.trim()]);
    wait_until(SOON, "it has ended", || !lives(&pid));
    shell.wait_exit(SOON);
}
