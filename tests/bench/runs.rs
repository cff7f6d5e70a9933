//! How fast handlers run.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use crate::bare::Docker;
use crate::engine::{Engine, Route};
use crate::kit::TempDir;
use crate::kit::process::run;
use crate::kit::redis::Redis;
use crate::stage::{Agent, Notices, engine, ids, length, median, timed, until, until_by};
use crate::table::{Table, row};

pub fn measure(table: &mut Table) {
    rate(table);
    delay(table);
}

/// How many `sh -c :` a second, so many at once.
fn rate(table: &mut Table) {
    const AT_ONCE: usize = 4;
    const RUNS: usize = 3_000;
    let folder = TempDir::new();
    let engine = engine(&folder, "docker.sock", 100);
    let file =
        format!("events: [{{type: pause, command: ':', concurrency: {AT_ONCE}, order: none}}]");
    let file = folder.write("events.yml", &file);
    let redis = Redis::start();
    let notices = Notices::of(&redis);
    let file = file.to_string_lossy();
    let more = ["--stream-maxlen", "100000", &*file];
    let _agent = Agent::watch(&engine.url(), &redis.url(), &more);
    notices.until("refresh_containers");
    let ids = ids(&engine);
    // A connection for each look, and one each millisecond, took a tenth of the machine.
    let mut connection = redis.connect();
    let look = Duration::from_millis(5);
    let looped = Looped::new(&folder, AT_ONCE);
    let [mut ours, mut bare] = [const { Vec::new() }; 2];
    for _ in 0..9 {
        // A run writes an entry when it begins and one when it has ended.
        let ended = length(&mut connection, "docker:runs") + 2 * RUNS;
        ours.push(timed(|| {
            pause(&engine, &ids, RUNS);
            until_by(look, "all have run", || {
                length(&mut connection, "docker:runs") >= ended
            });
        }));
        bare.push(timed(|| looped.run(RUNS)));
    }
    table.add(
        row(
            "runs of `sh -c :` a second, four at once",
            RUNS as f64 / median(&ours),
            "",
        )
        .beside("bare spawning", RUNS as f64 / median(&bare))
        .at_least(0.85),
    );
}

fn pause(engine: &Engine, ids: &[String], times: usize) {
    for number in 0..times {
        engine.emit(&ids[number % ids.len()], "pause", &[]);
    }
}

/// An engine, and threads that each spawn a shell for one of its events, and the next one when that has ended.
struct Looped {
    engine: Engine,
    ids: Vec<String>,
    ended: Receiver<()>,
}

impl Looped {
    fn new(folder: &TempDir, at_once: usize) -> Looped {
        let engine = engine(folder, "bare.sock", 100);
        let mut events = Docker::connect(engine.place()).events();
        let (sender, jobs) = unbounded();
        std::thread::spawn(move || while events.event().is_some() && sender.send(()).is_ok() {});
        let (sender, ended) = unbounded();
        for _ in 0..at_once {
            let (jobs, ended) = (jobs.clone(), sender.clone());
            std::thread::spawn(move || {
                for () in jobs {
                    let _ = shell(":").status();
                    let _ = ended.send(());
                }
            });
        }
        let ids = ids(&engine);
        Looped { engine, ids, ended }
    }

    fn run(&self, runs: usize) {
        pause(&self.engine, &self.ids, runs);
        self.ended.iter().take(runs).for_each(drop);
    }
}

/// From an event to the first thing that its command does.
fn delay(table: &mut Table) {
    let folder = TempDir::new();
    let (watched, looped) = (
        Listened::new(&folder, "ours"),
        Listened::new(&folder, "bare"),
    );
    let (mut events, command) = (
        Docker::connect(looped.engine.place()).events(),
        looped.command(),
    );
    std::thread::spawn(move || {
        while events.event().is_some() {
            let _ = shell(&command).status();
        }
    });
    let file = format!(
        "events: [{{type: pause, command: '{}'}}]",
        watched.command()
    );
    let file = folder.write("events.yml", &file);
    let _agent = Agent::watch(&watched.engine.url(), "none", &[&file.to_string_lossy()]);
    until("it listens", || {
        let known = watched.engine.requests(&Route::Inspect) >= CONTAINERS as u64;
        known && watched.engine.subscribers() > 0
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut sides = [watched, looped];
    let mut samples = [const { Vec::new() }; 2];
    for number in 0..400 {
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            samples.push(side.sample(number));
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    let [ours, bare] = samples.map(|samples| median(&samples) * 1e6);
    let what = "event to a handler's first act, median";
    table.add(
        row(what, ours, "us")
            .beside("bare spawning", bare)
            .at_most(1.5),
    );
}

const CONTAINERS: usize = 50;

/// An engine, and a pipe on which one hears that a command runs.
struct Listened {
    engine: Engine,
    ids: Vec<String>,
    fifo: String,
    heard: Lines<BufReader<std::fs::File>>,
}

impl Listened {
    fn new(folder: &TempDir, name: &str) -> Listened {
        let engine = engine(folder, &format!("{name}.sock"), CONTAINERS);
        let fifo = folder
            .join(&format!("{name}.fifo"))
            .to_string_lossy()
            .into_owned();
        run("mkfifo", &[&fifo]);
        // Opened both ways, it has no end.
        let file = OpenOptions::new().read(true).write(true).open(&fifo);
        Listened {
            ids: ids(&engine),
            engine,
            heard: BufReader::new(file.expect("a pipe")).lines(),
            fifo,
        }
    }

    fn command(&self) -> String {
        format!("echo > {}", self.fifo)
    }

    fn sample(&mut self, number: usize) -> f64 {
        timed(|| {
            self.engine
                .emit(&self.ids[number % self.ids.len()], "pause", &[]);
            self.heard.next();
        })
    }
}

/// The same shell as the agent's. It has no more of an environment than that gives: a path for libraries, as cargo sets it, makes each start up to a quarter longer.
fn shell(command: &str) -> Command {
    let mut shell = Command::new(Path::new("/bin/sh"));
    shell
        .args(["-c", command])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    shell
}
