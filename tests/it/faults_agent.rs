//! The agent lacks descriptors, a disk, memory.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::memory::MemoryGroup;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::process::Process;
use crate::kit::redis::Redis;
use crate::kit::scene::{SOON, engine_with, settle};
use crate::kit::{TempDir, seconds, wait_until};

/// The agent of the host `h`, started by a shell that limits it first.
fn limited(limit: &str, docker: &str, cache: &str, more: &[&str]) -> Process {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{limit}; exec \"$@\""), "sh"])
        .arg(Agent::PROGRAM)
        .arg("-id=h")
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
    settle(&redis, &engine, SOON);
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
    wait_until(SOON, "its handlers run", || {
        let diary = std::fs::read_to_string(folder.join("diary")).unwrap_or_default();
        diary.lines().filter(|line| *line == "after").count() == 6
    });
    settle(&redis, &engine, SOON);
    assert!(limited.exited().is_none());
    println!("{} descriptors at rest", before);
}

#[test]
fn fault_22_a_log_on_a_full_disk_stops_nothing() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let mut full = limited("exec >/dev/full 2>&1", &engine.url(), &redis.url(), &[]);
    settle(&redis, &engine, SOON);
    engine.run(Spec::named("more"));
    engine.cut_all();
    engine.run(Spec::named("yet-more"));
    settle(&redis, &engine, SOON);
    assert!(full.exited().is_none());
}

#[test]
fn fault_22_a_log_that_nobody_reads_stops_nothing_and_says_later_what_is_lost() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let folder = TempDir::new();
    let config = folder.write("events.yml", "events:\n  - type: oom\n    log: seen\n");
    let log = folder.join("log").display().to_string();
    // Open for reading too, the pipe is never at its end; and nobody reads.
    let stalled = format!("mkfifo {log}; exec 2<>{log}");
    let mut unread = limited(
        &stalled,
        &engine.url(),
        &redis.url(),
        &[&config.to_string_lossy()],
    );
    settle(&redis, &engine, seconds(30));
    // Each is a line of the log, and all are more than the pipe holds.
    let id = engine.run(Spec::named("more"));
    for number in 0..2000 {
        engine.rename(&id, &format!("name-{number}"));
    }
    let began = Instant::now();
    settle(&redis, &engine, seconds(60));
    println!("right after {:?}", began.elapsed());
    let pipe = std::fs::File::open(&log).unwrap_or_else(|error| panic!("{log}: {error}"));
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        for line in lines.filter(|line| line.contains("lines of the log are lost")) {
            let _ = say.send(line);
        }
    });
    let lost = wait_for_line(&said, || engine.rename(&id, "later"));
    println!("{lost}");
    assert!(unread.exited().is_none());
}

/// What is said at last, while things go on.
fn wait_for_line(said: &Receiver<String>, go_on: impl Fn()) -> String {
    let mut found = None;
    wait_until(seconds(30), "somebody reads again", || {
        go_on();
        found = said.try_recv().ok();
        found.is_some()
    });
    found.unwrap_or_default()
}

#[test]
fn fault_22_without_memory_for_a_batch_it_ends_with_a_clear_last_line_and_its_successor_heals() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let settled = || {
        let hosts = [Host::up("h", engine.running())];
        oracle::check(&redis, "docker", &hosts).is_ok()
    };
    // Address space for its threads and little else.
    let limit = "ulimit -v 60000; export MALLOC_ARENA_MAX=1";
    let mut poor = limited(limit, &engine.url(), &redis.url(), &[]);
    wait_until(SOON, "it works within its means", settled);
    for at in 0..3 {
        let large = "x".repeat(7 << 20);
        engine.run(Spec::named(&format!("large-{at}")).label("large", &large));
    }
    let status = poor.wait_exit(seconds(90));
    println!("{status}: {}", poor.log().lines().last().unwrap_or(""));
    assert!(!status.success());
    let log = poor.log();
    assert!(log.contains("memory allocation of"), "{log}");
    // Documents so large may come after the first report: their inspects take longer than others are made to wait for.
    let _rich = Agent::watch("h", &engine.url(), &redis.url(), 20);
    wait_until(seconds(120), "all is right", settled);
}

#[test]
fn fault_22_killed_by_the_kernel_for_its_memory_it_leaves_nothing_that_its_successor_does_not_heal()
{
    need!(redis, memory_group);
    let memory = MemoryGroup::of(24 << 20).expect("one could be made a moment ago");
    let (redis, engine) = (Redis::start(), engine_with(5));
    let mut poor = limited(&memory.enter(), &engine.url(), &redis.url(), &[]);
    settle(&redis, &engine, SOON);
    for at in 0..3 {
        let large = "x".repeat(7 << 20);
        engine.run(Spec::named(&format!("large-{at}")).label("large", &large));
    }
    let status = poor.wait_exit(seconds(60));
    assert_eq!(status.signal(), Some(9), "{}", poor.log());
    // Documents so large may come after the first report: their inspects take longer than others are made to wait for.
    let _rich = Agent::watch("h", &engine.url(), &redis.url(), 20);
    wait_until(seconds(120), "all is right", || {
        oracle::check(&redis, "docker", &[Host::up("h", engine.running())])
    });
}
