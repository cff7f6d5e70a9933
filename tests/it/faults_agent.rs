//! The agent lacks descriptors, a disk, memory; one of its threads panics or hangs.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::faults_setting::{HOST, agent, engine_with, settle};
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::process::Process;
use crate::kit::redis::Redis;
use crate::kit::{TempDir, seconds, wait_until};

/// The agent of `HOST`, started by a shell that limits it first.
fn limited(limit: &str, docker: &str, cache: &str, more: &[&str]) -> Process {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{limit}; exec \"$@\""), "sh"])
        .arg(Agent::PROGRAM)
        .arg(format!("-id={HOST}"))
        .arg(format!("-docker={docker}"))
        .arg(format!("-cache={cache}"))
        .arg("-updateInterval=2s")
        .args(more)
        .env_remove("RUST_BACKTRACE");
    Process::start(&mut command)
}

fn fds(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.pid())).map_or(0, Iterator::count)
}

#[test]
fn fault_22_with_64_descriptors_commands_that_find_none_say_so_and_all_else_goes_on() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let folder = TempDir::new();
    let mut text = "events:\n".to_owned();
    for at in 0..6 {
        text += &format!(
            "  - name: e{at}\n    type: start\n    concurrency: 8\n    command: echo $FROM_CONTAINER >> {}; sleep 0.3\n",
            folder.join("diary").display()
        );
    }
    let config = folder.write("events.yml", &text).display().to_string();
    let mut limited = limited("ulimit -n 64", &engine.url(), &redis.url(), &[&config]);
    settle(&redis, &engine, seconds(30));
    wait_until(seconds(20), "it rests", || fds(&limited) < 25);
    let before = fds(&limited);
    // 300 commands, 48 at once, each with several descriptors; and the streams break while there are none.
    for at in 0..50 {
        engine.run(Spec::named(&format!("storm-{at}")));
        if at == 25 {
            engine.cut_all();
        }
    }
    limited.wait_log("could not be started", seconds(60));
    settle(&redis, &engine, seconds(120));
    wait_until(seconds(120), "all descriptors came back", || {
        let now = fds(&limited);
        (now <= before + 2)
            .then_some(())
            .ok_or(format!("{before} before, {now} now"))
    });
    engine.run(Spec::named("after"));
    wait_until(seconds(30), "its handlers run", || {
        let diary = std::fs::read_to_string(folder.join("diary")).unwrap_or_default();
        diary.lines().filter(|line| *line == "after").count() == 6
    });
    settle(&redis, &engine, seconds(30));
    assert!(limited.exited().is_none());
    println!("{} descriptors at rest", before);
}

#[test]
fn fault_22_a_log_on_a_full_disk_stops_nothing() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let mut full = limited("exec >/dev/full 2>&1", &engine.url(), &redis.url(), &[]);
    settle(&redis, &engine, seconds(30));
    engine.run(Spec::named("more"));
    engine.cut_all();
    engine.run(Spec::named("yet-more"));
    settle(&redis, &engine, seconds(30));
    assert!(full.exited().is_none());
}

#[test]
fn fault_22_without_memory_for_a_batch_it_ends_with_a_clear_last_line_and_its_successor_heals() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let settled = || {
        let hosts = [Host::up(HOST, engine.running())];
        oracle::check(&redis, "docker", &hosts).is_ok()
    };
    // Address space for its threads and little else.
    let limit = "ulimit -v 60000; export MALLOC_ARENA_MAX=1";
    let mut poor = limited(limit, &engine.url(), &redis.url(), &[]);
    wait_until(seconds(30), "it works within its means", settled);
    for at in 0..3 {
        let large = "x".repeat(7 << 20);
        engine.run(Spec::named(&format!("large-{at}")).label("large", &large));
    }
    let status = poor.wait_exit(seconds(60));
    println!("{status}: {}", poor.log().lines().last().unwrap_or(""));
    assert!(!status.success());
    let log = poor.log();
    assert!(log.contains("memory allocation of"), "{log}");
    // Documents so large may come after the first report: their inspects take longer than others are made to wait for.
    let _rich = agent(&engine.url(), &redis.url(), &["-updateInterval=20s"]);
    wait_until(seconds(120), "all is right", settled);
}

/// Two engines, `first` and `second`, watched by one agent whose threads fail when they are told to.
struct Pair {
    first: Engine,
    second: Engine,
    redis: Redis,
    folder: TempDir,
    config: String,
}

impl Pair {
    fn new() -> Pair {
        let (first, second) = (engine_with(3), engine_with(4));
        second.host_name("other");
        let folder = TempDir::new();
        let text = format!(
            "cluster:\n  foo: {}\n  bar: {}\nevents: []\n",
            first.url(),
            second.url()
        );
        let config = folder.write("events.yml", &text).display().to_string();
        Pair {
            first,
            second,
            redis: Redis::start(),
            folder,
            config,
        }
    }

    fn start(&self, more: &[(&str, &str)]) -> Process {
        let mut command = Command::new(Agent::PROGRAM);
        command
            .arg(format!("-cache={}", self.redis.url()))
            .arg("-updateInterval=20s")
            .arg(&self.config)
            .env("DOCKER_CACHE_TEST_FAULT", self.folder.join("fault"))
            .envs(more.iter().copied())
            .stdin(Stdio::null());
        Process::start(&mut command)
    }

    /// From now on the first thread of this name to work fails so.
    fn order(&self, fault: &str) {
        // Whole or not at all.
        let draft = self.folder.write("draft", fault);
        std::fs::rename(draft, self.folder.join("fault"))
            .unwrap_or_else(|error| panic!("failed to order `{fault}`: {error}"));
    }

    fn is_done(&self) -> bool {
        !Path::new(&self.folder.join("fault")).exists()
    }

    fn check(&self) -> Result<(), String> {
        let hosts = [
            Host::up("foo", self.first.running()).at(self.first.place()),
            Host::up("bar", self.second.running()).at(self.second.place()),
        ];
        oracle::check(&self.redis, "docker", &hosts)
    }
}

#[test]
fn fault_22_a_panic_in_an_engines_thread_starts_that_engine_anew_and_the_other_never_notices() {
    need!(redis);
    let pair = Pair::new();
    let mut agent = pair.start(&[]);
    wait_until(seconds(30), "all is reported", || pair.check());
    for thread in ["read:foo", "sync:foo", "read:foo", "sync:foo"] {
        let told = agent.log().len();
        pair.order(&format!("panic {thread}"));
        let hurt = pair.first.run(Spec::named(&format!("hurt-{told}")));
        agent.wait_log_from(told, &format!("thread `{thread}` panicked at"), seconds(30));
        let began = Instant::now();
        let other = pair.second.run(Spec::named(&format!("other-{told}")));
        let key = format!("docker:containers:{other}");
        wait_until(seconds(10), "the other engine goes on", || {
            pair.redis.query::<bool>(&["EXISTS", &key])
        });
        println!("{thread}: the other was {:?} late", began.elapsed());
        wait_until(seconds(60), "the engine itself is back", || pair.check());
        println!("{thread}: right again after {:?}", began.elapsed());
        pair.first.kill(&hurt, 9);
        wait_until(seconds(30), "and told of", || pair.check());
        let log = agent.log();
        assert!(!log[told..].contains("engine `bar`"), "{}", &log[told..]);
        assert_eq!(log[told..].matches("panicked at").count(), 1);
    }
    assert!(agent.exited().is_none());
}

#[test]
fn fault_22_a_panic_in_core_or_writer_ends_the_agent_with_a_clear_last_line_and_its_successor_heals()
 {
    need!(redis);
    let pair = Pair::new();
    for thread in ["core", "writer"] {
        let mut agent = pair.start(&[]);
        wait_until(seconds(60), "all is reported", || pair.check());
        pair.order(&format!("panic {thread}"));
        pair.first.run(Spec::named(&format!("doomed-{thread}")));
        let status = agent.wait_exit(seconds(30));
        assert_eq!(status.code(), Some(1));
        let log = agent.log();
        let lines: Vec<&str> = log.lines().rev().take(2).collect();
        assert!(
            lines[1].contains(&format!("thread `{thread}` panicked at src/threads.rs")),
            "{log}"
        );
        let last = format!("thread `{thread}` has ended; so does the agent, to be started anew");
        assert!(lines[0].contains(&last), "{log}");
        assert!(pair.is_done());
    }
    let mut last = pair.start(&[]);
    wait_until(seconds(60), "its successor heals", || pair.check());
    assert!(last.exited().is_none());
}

#[test]
fn fault_22_the_watchdog_is_fed_while_redis_hangs_and_not_while_core_does() {
    need!(redis);
    let mut pair = Pair::new();
    let path = pair.folder.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap_or_else(|error| panic!("{error}"));
    let limited = manager.set_read_timeout(Some(seconds(3)));
    limited.unwrap_or_else(|error| panic!("{error}"));
    let notify = path.display().to_string();
    let _agent = pair.start(&[("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", "900000")]);
    // Every 150 ms; three seconds without a word are none at all.
    let fed = |wanted: usize| {
        let mut buffer = [0; 4096];
        let mut count = 0;
        while count < wanted {
            match manager.recv(&mut buffer) {
                Ok(length) if &buffer[..length] == b"WATCHDOG=1" => count += 1,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        count
    };
    wait_until(seconds(60), "all is reported", || pair.check());
    assert_eq!(fed(5), 5);
    pair.redis.freeze();
    // Long enough for the writer to give up more than once.
    assert_eq!(fed(80), 80);
    pair.redis.thaw();
    wait_until(seconds(60), "all is right again", || pair.check());
    pair.order("hang core");
    pair.first.run(Spec::named("more"));
    wait_until(seconds(30), "core hangs", || pair.is_done());
    let left = fed(100);
    assert!(left < 100, "it is fed although core hangs");
    println!("{left} more that were under way");
}
