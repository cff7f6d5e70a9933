//! What people use today, under the same load in the same run: `docker events` in a shell loop, and a script with Python's packages.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::engine::Engine;
use crate::kit::TempDir;
use crate::kit::process::{Process, try_run};
use crate::kit::redis::Redis;
use crate::stage::{Agent, Notices, engine, footprint, ids, median};
use crate::table::{Table, row};

const CONTAINERS: usize = 100;

/// How often the agent is measured beside each of the others, which take their time.
const TIMES: usize = 5;

/// Looking at memory stops those who use it for a moment: seldom.
const LOOK: Duration = Duration::from_millis(50);

pub fn measure(table: &mut Table) {
    let load = Load::new();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench");
    let shell = || try_run("sh", &["-c", "command -v docker && command -v redis-cli"]);
    let programs = [
        (
            "shell loop",
            "sh".into(),
            scripts.join("today.sh"),
            shell().map(drop),
        ),
        ("Python", python(), scripts.join("today.py"), packages()),
    ];
    let mut ours: Vec<Took> = Vec::new();
    for (name, program, script, there) in programs {
        if let Err(why) = there {
            let why = why.lines().last().unwrap_or_default();
            table.note(format!("skipped: rows beside {name}: {why}"));
            continue;
        }
        let theirs = load.put_on_script(&program, &script);
        // A hundred events are over in some hundredths of a second.
        ours.extend((0..TIMES).map(|_| load.put_on_agent()));
        add(table, name, &ours, &theirs);
    }
}

fn add(table: &mut Table, name: &'static str, ours: &[Took], theirs: &Took) {
    let middle = |part: fn(&Took) -> f64| median(&ours.iter().map(part).collect::<Vec<_>>());
    let (report, rate) = (middle(|took| took.report), middle(|took| took.rate));
    let what = format!("first report of {CONTAINERS} containers");
    table.add(row(what, report, "s").beside(name, theirs.report));
    let what = format!("events a second, {CONTAINERS} at once, each of another container");
    table.add(row(what, rate, "").beside(name, theirs.rate).at_least(10.0));
    let memory = middle(|took| took.memory);
    table.add(
        row("memory meanwhile, at most", memory, "MB")
            .beside(name, theirs.memory)
            .at_most(0.167),
    );
}

/// What a mirror took for a load.
struct Took {
    /// Seconds from exec to the end of the first report.
    report: f64,
    /// Events a second.
    rate: f64,
    /// MB, the most that was seen.
    memory: f64,
}

/// Some containers, and an event of each at the same time.
struct Load {
    engine: Engine,
    redis: Redis,
    _folder: TempDir,
}

impl Load {
    fn new() -> Load {
        let folder = TempDir::new();
        Load {
            engine: engine(&folder, "docker.sock", CONTAINERS),
            redis: Redis::start(),
            _folder: folder,
        }
    }

    fn put_on_agent(&self) -> Took {
        self.put(|| {
            let agent = Agent::watch(&self.engine.url(), &self.redis.url(), &[]);
            (agent.pid(), Box::new(agent))
        })
    }

    fn put_on_script(&self, program: &Path, script: &Path) -> Took {
        self.put(|| {
            let mut command = Command::new(program);
            command
                .arg(script)
                .env("DOCKER_HOST", self.engine.url())
                .env("REDIS_PORT", self.redis.port().to_string());
            let script = Script(Process::start(command.process_group(0)));
            (script.0.pid(), Box::new(script))
        })
    }

    fn put(&self, start: impl FnOnce() -> (u32, Box<dyn std::any::Any>)) -> Took {
        self.redis.flush();
        let notices = Notices::of(&self.redis);
        let began = Instant::now();
        let (pid, process) = start();
        let (mut memory, mut looked): (f64, _) = (0.0, began);
        let mut wait = |wanted: &str, mut left: usize| {
            crate::stage::until(wanted, || {
                if looked.elapsed() >= LOOK {
                    memory = memory.max(footprint(pid));
                    looked = Instant::now();
                }
                let come = notices.so_far();
                left -= come
                    .iter()
                    .filter(|one| one.text.starts_with(wanted))
                    .count()
                    .min(left);
                left == 0
            });
        };
        wait("refresh_containers", 1);
        let report = began.elapsed().as_secs_f64();
        crate::stage::until("it listens", || self.engine.subscribers() > 0);
        let began = Instant::now();
        for id in ids(&self.engine) {
            self.engine.update(&id, u64::from(pid));
        }
        wait("update_container", CONTAINERS);
        let rate = CONTAINERS as f64 / began.elapsed().as_secs_f64();
        // One that is faster than a look is looked at all the same.
        let memory = memory.max(footprint(pid));
        drop(process);
        crate::stage::until("it is gone", || self.engine.subscribers() == 0);
        Took {
            report,
            rate,
            memory,
        }
    }
}

/// It ends with all that it started.
struct Script(Process);

impl Drop for Script {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.pid() as i32);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// Where the packages are, or will be.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-python/bin/python")
}

/// Sees to the two packages, in a place of their own.
fn packages() -> Result<(), String> {
    let python = python();
    let python = python.to_string_lossy();
    let there = || try_run(&python, &["-c", "import docker, redis"]).map(drop);
    there().or_else(|_| {
        let folder = python.trim_end_matches("/bin/python");
        try_run("python3", &["-m", "venv", folder])?;
        let wanted = ["docker==7.1.0", "redis==5.2.1"];
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ];
        try_run(&python, &[&pip[..], &wanted].concat())?;
        there()
    })
}
