//! What a measurement stands on beside the tests' kit: the agent as users run it, and what the kernel and Redis say that something took.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use redis::Connection;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::TempDir;
use crate::kit::agent::Agent as Tested;
use crate::kit::process::Process;
use crate::kit::redis::{Redis, ask};

/// A wait that reaches it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The agent that is measured.
pub struct Agent {
    process: Process,
    pub started: Instant,
}

impl Agent {
    /// Starts it for this engine and this cache, with further arguments.
    pub fn watch(docker: &str, cache: &str, more: &[&str]) -> Agent {
        Agent::start(&[&["--docker", docker, "--cache", cache], more].concat())
    }

    pub fn start(arguments: &[&str]) -> Agent {
        let mut command = Command::new(binary());
        command.env("RUST_LOG", "warn").args(arguments);
        // A resync may come at any moment after the first report: none amid what is measured, unless a measurement says when.
        command.env("DOCKER_CACHE_UPDATE_INTERVAL", "24h");
        let started = Instant::now();
        let process = Process::start(&mut command);
        Agent { process, started }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Seconds on a processor so far.
    pub fn cpu(&self) -> f64 {
        cpu(self.pid())
    }

    /// Resident memory now and at its peak, in MB.
    pub fn memory(&self) -> (f64, f64) {
        let status = proc(self.pid(), "status");
        (kilobytes(&status, "VmRSS:"), kilobytes(&status, "VmHWM:"))
    }

    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).map_or(0, Iterator::count)
    }
}

/// The static binary where it was built, else the one that was built for this run.
pub fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = root.join("target/x86_64-unknown-linux-musl/release/docker-cache");
    match built.exists() {
        true => built,
        false => Tested::PROGRAM.into(),
    }
}

/// Seconds on a processor so far, all threads together. Living threads are known to the nanosecond, ended ones to the tick of 10 ms.
pub fn cpu(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let living: f64 = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum();
    let stat = proc(pid, "stat");
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<f64>().ok())
        .sum();
    (living / 1e9).max(ticks / 100.0)
}

/// What a process and all below it hold, in MB, each shared page counted once.
pub fn footprint(pid: u32) -> f64 {
    let own = kilobytes(&proc(pid, "smaps_rollup"), "Pss:");
    let children = proc(pid, &format!("task/{pid}/children"));
    let below = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok());
    // One that ended meanwhile holds nothing.
    (if own.is_nan() { 0.0 } else { own }) + below.map(footprint).sum::<f64>()
}

fn proc(pid: u32, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

/// A line's kB as MB.
fn kilobytes(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    number.unwrap_or(f64::NAN) / 1024.0
}

/// What Redis has spent so far.
#[derive(Clone, Copy)]
pub struct Spent {
    pub commands: f64,
    pub bytes: f64,
    /// Seconds.
    pub cpu: f64,
}

impl Spent {
    pub fn of(redis: &Redis) -> Spent {
        let text: String = redis.query(&["INFO", "everything"]);
        let field = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.trim().parse().ok())
                .unwrap_or(f64::NAN)
        };
        Spent {
            commands: field("total_commands_processed"),
            bytes: field("total_net_input_bytes"),
            cpu: field("used_cpu_user") + field("used_cpu_sys"),
        }
    }

    /// What it spent since.
    pub fn since(redis: &Redis, before: Spent) -> Spent {
        let now = Spent::of(redis);
        Spent {
            commands: now.commands - before.commands,
            bytes: now.bytes - before.bytes,
            cpu: now.cpu - before.cpu,
        }
    }
}

/// A notice, and when it came by both clocks.
pub struct Notice {
    pub at: Instant,
    pub clock: SystemTime,
    pub text: String,
}

/// What Redis tells on the agents' channel.
pub struct Notices(Receiver<Notice>);

impl Notices {
    /// The subscription stands when this returns.
    pub fn of(redis: &Redis) -> Notices {
        let (sender, receiver) = channel();
        let (ready, is_ready) = channel();
        let mut connection = redis.connect();
        connection.set_read_timeout(None).expect("no limit");
        std::thread::spawn(move || {
            let mut pubsub = connection.as_pubsub();
            pubsub.subscribe("docker_events").expect("a subscription");
            let _ = ready.send(());
            while let Ok(message) = pubsub.get_message() {
                let notice = Notice {
                    at: Instant::now(),
                    clock: SystemTime::now(),
                    text: message.get_payload().unwrap_or_default(),
                };
                if sender.send(notice).is_err() {
                    return;
                }
            }
        });
        is_ready.recv().expect("a subscription");
        Notices(receiver)
    }

    /// Takes all up to the first with this in it.
    pub fn until(&self, wanted: &str) -> Notice {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left) {
                Ok(notice) if notice.text.contains(wanted) => return notice,
                Ok(_) => {}
                Err(_) => panic!("no notice `{wanted}` within {PATIENCE:?}"),
            }
        }
    }

    /// Takes what has come so far.
    pub fn so_far(&self) -> Vec<Notice> {
        self.0.try_iter().collect()
    }
}

/// A fake engine on a socket in this folder, with so many running containers.
pub fn engine(folder: &TempDir, name: &str, containers: usize) -> Engine {
    let engine = Engine::listen(&Place::Unix(folder.join(name))).expect("a socket");
    for number in 0..containers {
        engine.run(spec(number));
    }
    engine
}

/// A container whose inspect is as large as real ones, about 6 kB.
fn spec(number: usize) -> Spec {
    let (app, minor) = (number % 40, number % 7);
    let image = format!("registry.example.com/team/app-{app}:1.{minor}");
    let mut spec = Spec::named(&format!("web-{number}")).image(&image);
    for at in 0..20 {
        let text = "a value of some thirty letters";
        spec = spec.label(&format!("com.example.service.{at}"), text);
        let text = "another value of some forty letters or so";
        spec = spec.env(&format!("SETTING_NUMBER_{at}"), text);
    }
    spec
}

/// The ids of its running containers.
pub fn ids(engine: &Engine) -> Vec<String> {
    engine.running().into_iter().collect()
}

/// Length of a stream.
pub fn length(connection: &mut Connection, stream: &str) -> usize {
    ask(connection, &["XLEN", stream]).expect("XLEN")
}

/// Waits for what is being timed, and so looks each millisecond.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_by(Duration::from_millis(1), what, condition);
}

/// Looks only so often, where looking takes part of what is measured.
pub fn until_by(every: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(every);
    }
}

/// The n-th part of the samples: `quantile(&samples, 0.5)` is the median.
pub fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    let at = (last * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// The one in the middle.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// How long something took, in seconds.
pub fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
