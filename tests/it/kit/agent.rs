//! The agent itself, as a user starts it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use super::process::{Process, try_run};

/// A running agent; it is asked to stop when the test ends, and killed when the test fails, so that Redis stays as the failure left it.
pub struct Agent {
    process: Process,
}

impl Agent {
    /// The program.
    pub const PROGRAM: &'static str = env!("CARGO_BIN_EXE_docker-cache");

    /// An interval in which no resync comes by chance: with a usual one it may come at any moment after the first report. Holds where a test says no other.
    pub const SELDOM_S: u64 = 86_400;

    /// Starts it with these arguments and no configuration from the environment of the test, but for `--selfcheck`: a change that no event told of
    /// fails the test.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Agent {
        Agent::start_with(args, &[])
    }

    /// Starts it with variables as well.
    pub fn start_with<S: AsRef<OsStr>>(args: &[S], variables: &[(&str, &str)]) -> Agent {
        let mut command = Agent::command();
        command.env("DOCKER_CACHE_SELFCHECK", "true");
        Agent::spawn(command.args(args).envs(variables.iter().copied()))
    }

    /// Starts what [`Agent::command`] began, or the program under another name.
    pub fn spawn(command: &mut Command) -> Agent {
        Agent {
            process: Process::start(command),
        }
    }

    /// Reports this engine under this id to this Redis, resyncing every so many seconds.
    pub fn watch(id: &str, docker: &str, cache: &str, interval_s: u64) -> Agent {
        Agent::watch_with::<&str>(id, docker, cache, interval_s, &[])
    }

    /// The same with further options.
    pub fn watch_with<S: AsRef<OsStr>>(
        id: &str,
        docker: &str,
        cache: &str,
        interval_s: u64,
        options: &[S],
    ) -> Agent {
        let args = [
            format!("-id={id}"),
            format!("-docker={docker}"),
            format!("-cache={cache}"),
            format!("-updateInterval={interval_s}s"),
        ];
        let args = args.iter().map(OsStr::new);
        let options = options.iter().map(AsRef::as_ref);
        Agent::start(&args.chain(options).collect::<Vec<&OsStr>>())
    }

    /// The command without arguments, cleared of what the test's own environment would tell it. It resyncs seldom.
    pub fn command() -> Command {
        let mut command = Command::new(Agent::PROGRAM);
        let interval = format!("{}s", Agent::SELDOM_S);
        command.env("DOCKER_CACHE_UPDATE_INTERVAL", interval);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let told =
                text.starts_with("DOCKER_") || text.ends_with("_PROXY") || text.ends_with("_proxy");
            if told || ["RUST_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"].contains(&&*text) {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it wrote.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for a text in its log.
    #[track_caller]
    pub fn wait_log(&self, wanted: &str, limit: Duration) {
        self.process.wait_log(wanted, limit);
    }

    /// Waits for a text in its log behind the first so many bytes.
    #[track_caller]
    pub fn wait_log_from(&self, from: usize, wanted: &str, limit: Duration) {
        self.process.wait_log_from(from, wanted, limit);
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks it to stop and waits for that.
    #[track_caller]
    pub fn stop(&mut self, limit: Duration) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait_exit(limit)
    }

    /// Waits for its end, which somebody else has caused.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait_exit(limit)
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Kills it; it can give nothing back.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops its time.
    pub fn freeze(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets its time go on.
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Resident memory, in kB.
    pub fn rss_kb(&self) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Names of its threads, sorted.
    pub fn threads(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .entries("task")
            .iter()
            .filter_map(|task| std::fs::read_to_string(task.join("comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Interrupts whatever its threads wait for: each gets a SIGUSR1 of its own.
    #[track_caller]
    pub fn interrupt_threads(&self) {
        // Of tgkill(2), for which no crate here has a safe name.
        let number = match cfg!(target_arch = "x86_64") {
            true => 234,
            false => 131,
        };
        for task in self.entries("task") {
            let thread = task.file_name().and_then(OsStr::to_str).unwrap_or("0");
            let script = format!("exit(syscall({number}, {}, {thread}, 10) != 0)", self.pid());
            // A thread may have ended just now.
            let _ = try_run("perl", &["-e", &script]);
        }
    }

    /// How many files it has open.
    pub fn fds(&self) -> usize {
        self.entries("fd").len()
    }

    /// Processor time it used so far, in ticks of a hundredth of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.read("stat");
        // The name in parentheses may hold spaces; what follows it is split by them. utime and stime are fields 14 and 15 of all.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields = rest.split_whitespace().skip(11).take(2);
        fields.filter_map(|field| field.parse::<u64>().ok()).sum()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap_or_default()
    }

    fn entries(&self, name: &str) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(format!("/proc/{}/{name}", self.pid()));
        folder.map_or(Vec::new(), |all| {
            all.flatten().map(|entry| entry.path()).collect()
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.kill9();
            eprintln!(
                "--- the agent `{}` wrote:\n{}---",
                self.process.command,
                self.log()
            );
        } else {
            self.process.end(Duration::from_secs(5));
            let log = self.log();
            let untold = log
                .lines()
                .find(|line| line.contains("no event told of it"));
            assert_eq!(untold, None, "{log}");
        }
    }
}
