//! What a measurement stands on: a folder, a Redis, the agent as a process of its own, and what the kernel says of it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use redis::Connection;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;

/// A wait that reaches it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that vanishes.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        let name = format!("docker-cache-bench-{}-{}", std::process::id(), unique());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A program that ends with us.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        Process(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}")),
        )
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Time on a processor so far, all threads together.
    pub fn cpu(&self) -> Duration {
        cpu(self.pid())
    }

    /// Resident memory now and at its peak, in MB.
    pub fn memory(&self) -> (f64, f64) {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            number.unwrap_or(f64::NAN) / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).map_or(0, Iterator::count)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process and its ended threads took of the processors. The kernel counts in ticks of 10 ms; living threads are known to the nanosecond.
fn cpu(pid: u32) -> Duration {
    let mut total = 0u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += text
            .split_whitespace()
            .next()
            .and_then(|ns| ns.parse::<u64>().ok())
            .unwrap_or(0);
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Duration::from_nanos(total).max(Duration::from_millis(10 * (ticks(11) + ticks(12))))
}

/// A `redis-server` without persistence.
pub struct Redis {
    _process: Process,
    pub port: u16,
    _folder: Folder,
}

impl Redis {
    pub fn start() -> Redis {
        let folder = Folder::new();
        let port = free_port();
        let process = Process::start(
            Command::new("redis-server")
                .args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--dir",
                ])
                .arg(folder.join(""))
                .stdout(Stdio::null()),
        );
        let redis = Redis {
            _process: process,
            port,
            _folder: folder,
        };
        until("redis-server answers", || redis.try_connect().is_some());
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn try_connect(&self) -> Option<Connection> {
        let client = redis::Client::open(self.url()).ok()?;
        let mut connection = client.get_connection_with_timeout(PATIENCE).ok()?;
        redis::cmd("PING").exec(&mut connection).ok()?;
        Some(connection)
    }

    pub fn connect(&self) -> Connection {
        self.try_connect().expect("a connection to Redis")
    }

    pub fn flush(&self) {
        redis::cmd("FLUSHALL")
            .exec(&mut self.connect())
            .expect("FLUSHALL");
    }

    /// Number of commands, bytes received, and seconds of processor so far.
    pub fn spent(&self) -> Spent {
        let mut connection = self.connect();
        let text: String = redis::cmd("INFO")
            .arg("everything")
            .query(&mut connection)
            .expect("INFO");
        let field = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.trim().parse().ok())
                .unwrap_or(0.0)
        };
        Spent {
            commands: field("total_commands_processed"),
            bytes: field("total_net_input_bytes"),
            cpu: field("used_cpu_user") + field("used_cpu_sys"),
        }
    }

    /// The times at which notices of this beginning come; the subscription stands when this returns.
    pub fn notices(&self, beginnings: &'static [&'static str]) -> Receiver<(Instant, String)> {
        let (sender, receiver) = channel();
        let (ready, is_ready) = channel();
        let mut connection = self.connect();
        std::thread::spawn(move || listen(&mut connection, beginnings, &ready, &sender));
        is_ready.recv().expect("a subscription");
        receiver
    }
}

/// What Redis has spent.
#[derive(Clone, Copy)]
pub struct Spent {
    pub commands: f64,
    pub bytes: f64,
    pub cpu: f64,
}

fn listen(
    connection: &mut Connection,
    beginnings: &[&str],
    ready: &Sender<()>,
    sender: &Sender<(Instant, String)>,
) {
    let mut pubsub = connection.as_pubsub();
    pubsub.subscribe("docker_events").expect("a subscription");
    let _ = ready.send(());
    while let Ok(message) = pubsub.get_message() {
        let now = Instant::now();
        let text: String = message.get_payload().unwrap_or_default();
        if beginnings
            .iter()
            .any(|beginning| text.starts_with(beginning))
            && sender.send((now, text)).is_err()
        {
            return;
        }
    }
}

/// The agent that is measured.
pub struct Agent {
    pub process: Process,
    pub started: Instant,
}

impl Agent {
    /// Starts the agent against these, with further arguments.
    pub fn start(engine: Option<&Engine>, redis: Option<&Redis>, arguments: &[&str]) -> Agent {
        let mut command = Command::new(binary());
        if let Some(engine) = engine {
            command.args(["--docker", &engine.url()]);
        }
        command.args(["--cache", &redis.map_or("none".to_owned(), Redis::url)]);
        let mut command = with_descriptors(&command, arguments);
        let started = Instant::now();
        let process = Process::start(
            command
                .env("RUST_LOG", "warn")
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        Agent { process, started }
    }
}

/// The same command with room for many sockets.
fn with_descriptors(command: &Command, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -n 65536 2>/dev/null || ulimit -n $(ulimit -Hn); exec \"$@\"",
        "sh",
    ]);
    shell
        .arg(command.get_program())
        .args(command.get_args())
        .args(arguments);
    shell
}

/// The static binary where it was built, else the ordinary one.
pub fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let built = [
        "x86_64-unknown-linux-musl/release/docker-cache",
        "release/docker-cache",
    ];
    let found = built
        .iter()
        .map(|name| root.join(name))
        .find(|path| path.exists());
    found.expect("a built agent: `make static` or `make`")
}

/// A fake engine on a socket in this folder, with so many running containers.
pub fn engine(folder: &Folder, name: &str, containers: usize) -> Engine {
    let engine = Engine::listen(&Place::Unix(folder.join(name))).expect("a socket");
    for number in 0..containers {
        engine.run(spec(number));
    }
    engine
}

/// A container whose inspect is as large as real ones, about 6 kB.
pub fn spec(number: usize) -> Spec {
    let mut spec = Spec::named(&format!("web-{number}")).image(&format!(
        "registry.example.com/team/app-{}:1.{}",
        number % 40,
        number % 7
    ));
    for at in 0..20 {
        spec = spec.label(
            &format!("com.example.service.{at}"),
            "a value of some thirty letters",
        );
    }
    for at in 0..20 {
        spec = spec.env(
            &format!("SETTING_NUMBER_{at}"),
            "another value of some forty letters or so",
        );
    }
    spec
}

/// A port that nobody has.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

/// Waits for it.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The next of these, in time.
pub fn next<T>(receiver: &Receiver<T>, what: &str) -> T {
    receiver
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// The n-th part of sorted samples: `quantile(&mut samples, 0.5)` is the median.
pub fn quantile(samples: &mut [Duration], part: f64) -> Duration {
    samples.sort_unstable();
    samples[((samples.len() - 1) as f64 * part).round() as usize]
}

/// One line of `/proc/cpuinfo`: the processor's name.
pub fn processor() -> String {
    let info = std::fs::File::open("/proc/cpuinfo").map(BufReader::new);
    let mut lines = info
        .into_iter()
        .flat_map(|info| info.lines().map_while(Result::ok));
    let line = lines.find(|line| line.starts_with("model name"));
    line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        .unwrap_or_default()
}
