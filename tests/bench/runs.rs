//! How fast handlers run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bare::Docker;
use crate::engine::Engine;
use crate::stage::{Agent, Folder, Redis, engine, quantile, until};
use crate::table::Table;

pub fn measure(table: &mut Table) {
    rate(table);
    delay(table);
}

/// `sh -c :`, as often as it goes.
fn rate(table: &mut Table) {
    const RUNS: usize = 3_000;
    const AT_ONCE: usize = 4;
    let folder = Folder::new();
    let engine = engine(&folder, "docker.sock", 100);
    let ids: Vec<String> = engine.running().into_iter().collect();
    let spawning = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| (0..RUNS / AT_ONCE).for_each(|_| drop(shell(":").status())));
            }
        });
        RUNS as f64 / start.elapsed().as_secs_f64()
    };
    let file = folder.write(
        "events.yml",
        &format!("events: [{{type: pause, command: ':', concurrency: {AT_ONCE}, order: none}}]"),
    );
    let redis = Redis::start();
    let handling = || {
        redis.flush();
        let agent = Agent::start(
            Some(&engine),
            Some(&redis),
            &[
                "--stream-maxlen",
                "100000",
                file.to_str().unwrap_or_default(),
            ],
        );
        let notices = redis.notices(&["refresh_containers"]);
        let _ = notices.recv_timeout(Duration::from_secs(5));
        let mut connection = redis.connect();
        let start = Instant::now();
        for number in 0..RUNS {
            engine.emit(&ids[number % ids.len()], "pause", &[]);
        }
        until("all have run", || {
            let ended: u64 = redis::cmd("XLEN")
                .arg("docker:runs")
                .query(&mut connection)
                .expect("XLEN");
            ended >= 2 * RUNS as u64
        });
        drop(agent);
        RUNS as f64 / start.elapsed().as_secs_f64()
    };
    let (first, ours, second) = (spawning(), handling(), spawning());
    table.ratio_at_least(
        "runs of `sh -c :` a second, four at once",
        (ours, ""),
        ((first + second) / 2.0, ""),
        0.85,
    );
}

/// From an event to the first thing that its command does.
fn delay(table: &mut Table) {
    let folder = Folder::new();
    let engine = engine(&folder, "docker.sock", 50);
    let fifo = folder.join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    let keep = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("a fifo");
    let mut heard = BufReader::new(keep).lines();
    let command = format!("echo > {}", fifo.display());
    let mut limits = {
        let (mut events, command) = (Docker::connect(&engine).events(), command.clone());
        let samples = 200;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..samples {
                    events.event();
                    let _ = shell(&command).status();
                }
            });
            sample(&engine, samples, || drop(heard.next()))
        })
    };
    let file = folder.write(
        "events.yml",
        &format!("events: [{{type: pause, command: '{command}'}}]"),
    );
    let agent = Agent::start(Some(&engine), None, &[file.to_str().unwrap_or_default()]);
    until("it listens", || {
        engine.subscribers() > 0 && engine.requests(&crate::engine::Route::Inspect) >= 50
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut ours = sample(&engine, 200, || drop(heard.next()));
    drop(agent);
    let us = |samples: &mut [Duration]| quantile(samples, 0.5).as_secs_f64() * 1e6;
    table.ratio(
        "event to command, median",
        (us(&mut ours), "us"),
        (us(&mut limits), "us"),
        1.5,
    );
}

fn sample(engine: &Engine, samples: usize, mut heard: impl FnMut()) -> Vec<Duration> {
    let ids: Vec<String> = engine.running().into_iter().collect();
    (0..samples)
        .map(|number| {
            let start = Instant::now();
            engine.emit(&ids[number % ids.len()], "pause", &[]);
            heard();
            let took = start.elapsed();
            std::thread::sleep(Duration::from_millis(3));
            took
        })
        .collect()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new(Path::new("/bin/sh"));
    shell
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    shell
}
