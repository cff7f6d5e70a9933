//! Helpers that stand up the real thing: servers of their own, the machine's engine, an agent, faults between them, and the oracle that says what
//! must be so in the end.
//!
//! What a helper starts ends with it, whatever becomes of the test. When a test fails, each helper prints what it knows: an agent its command and its
//! log, a Redis its state.
// Each test takes what it needs; the kit is whole.
#![allow(dead_code)]
// What a failed test's helpers know is for its reader.
#![allow(clippy::print_stderr)]

pub mod agent;
pub mod docker;
pub mod http;
pub mod listen;
pub mod manager;
pub mod memory;
pub mod need;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod pulse;
pub mod redis;
pub mod scene;
pub mod stand;
pub mod systemd;
pub mod times;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a condition says of itself.
pub trait Verdict {
    /// Why it does not hold yet.
    fn verdict(self) -> Result<(), String>;
}

impl Verdict for bool {
    fn verdict(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("it is false".into())
        }
    }
}

impl Verdict for Result<(), String> {
    fn verdict(self) -> Result<(), String> {
        self
    }
}

/// Waits until the condition holds; after `limit` the test fails with what the condition said last.
#[track_caller]
pub fn wait_until<V: Verdict>(limit: Duration, what: &str, mut condition: impl FnMut() -> V) {
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let Err(why) = condition().verdict() else {
            return;
        };
        assert!(
            began.elapsed() < limit,
            "waited {limit:?} in vain until {what}:\n{why}"
        );
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// Seconds, where a test has many of them.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A folder that goes with its owner. Its path is short: the path of a unix socket has 107 bytes.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one below `$TMPDIR` or `/tmp`.
    pub fn new() -> TempDir {
        let path = std::env::temp_dir().join(unique("dct"));
        std::fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("failed to create `{}`: {error}", path.display()));
        TempDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("failed to write `{}`: {error}", path.display()));
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is still mounted below belongs to whoever mounted it, and that helper has said so already.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A name that no other test of this or another process has.
pub fn unique(word: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{word}-{}-{count}", std::process::id())
}

/// A free TCP port of 127.0.0.1. Another process may take it before it is used: whoever uses it tries again with another.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .unwrap_or_else(|error| panic!("failed to find a free port: {error}"))
}
