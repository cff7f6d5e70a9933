//! Programs that a test starts: their output is collected, they may be signalled, and they end with the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Does the process of this id run? A zombie does not.
pub fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("Z", |(_, rest)| &rest[..1]);
    state != "Z" && state != "X"
}

/// A running program.
pub struct Process {
    /// How it was started, for messages.
    pub command: String,
    child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grew: Condvar,
    /// Outputs that are not at their end.
    open: AtomicUsize,
}

impl Process {
    /// Starts it with its output collected and nothing to read.
    pub fn start(command: &mut Command) -> Process {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start `{shown}`: {error}"));
        let log = Arc::new(Log::default());
        collect(child.stdout.take(), &log);
        collect(child.stderr.take(), &log);
        Process {
            command: shown,
            child,
            log,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote so far, both outputs in the order read.
    pub fn log(&self) -> String {
        self.log
            .text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until it wrote this text.
    #[track_caller]
    pub fn wait_log(&self, wanted: &str, limit: Duration) {
        self.wait_log_from(0, wanted, limit);
    }

    /// Waits until it wrote this text behind the first so many bytes.
    #[track_caller]
    pub fn wait_log_from(&self, from: usize, wanted: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut text = self.log.text.lock().unwrap_or_else(PoisonError::into_inner);
        while !text[from..].contains(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "`{}` did not write `{wanted}` within {limit:?} but:\n{text}",
                self.command
            );
            let waited = self.log.grew.wait_timeout(text, left);
            text = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends it a signal; one that has ended already gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none()
            && let Some(pid) = Pid::from_raw(self.child.id() as i32)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        super::wait_until(limit, &format!("`{}` ends", self.command), || {
            status = self.exited();
            status.is_some()
        });
        self.hear_out();
        status.unwrap_or_default()
    }

    /// Its last words may still be on their way; what it left behind may hold the pipes for longer.
    fn hear_out(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.log.open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to end (TERM), and after `grace` makes it.
    pub fn end(&mut self, grace: Duration) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let deadline = Instant::now() + grace;
        while self.exited().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.kill9();
    }

    /// Makes it end (KILL), and waits for that and for its last words.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.hear_out();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Runs a command to its end; the test fails when it fails. Answers its standard output.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    try_run(program, args).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command to its end; `Err` tells how it failed.
pub fn try_run(program: &str, args: &[&str]) -> Result<String, String> {
    let shown = format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("failed to start `{shown}`: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "failed to run `{shown}` ({}): {text}",
            output.status
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn collect(stream: Option<impl Read + Send + 'static>, log: &Arc<Log>) {
    let Some(stream) = stream else { return };
    let log = log.clone();
    log.open.fetch_add(1, Ordering::Relaxed);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let mut text = log.text.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&String::from_utf8_lossy(&line));
            drop(text);
            line.clear();
            log.grew.notify_all();
        }
        log.open.fetch_sub(1, Ordering::Release);
    });
}
