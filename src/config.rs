//! What is meant: what was typed and `events.yml`, validated, as one [`Config`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Engine, Entry};

/// All that the agent needs to know, checked; nothing in here can be wrong any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The engines to watch, in the order of the file; at least one.
    pub engines: Vec<Engine>,
    /// Where the cache is, unless it is switched off.
    pub cache: Option<CacheConfig>,
    /// The handlers, unless there is no file.
    pub handlers: Option<HandlersConfig>,
    /// Time between two full resyncs of an engine.
    pub update_interval: Duration,
    /// How far back, in the engine's clock, a new agent takes up where the last one stopped.
    pub replay_max_age: Duration,
    /// The log's form.
    pub log_format: LogFormat,
}

/// The central Redis and what is kept there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// The URL as it was given, without a password; for messages.
    pub shown_url: String,
    /// Where and as whom to connect.
    pub target: CacheTarget,
    /// The first word of every key.
    pub prefix: String,
    /// Report stopped containers as well.
    pub all: bool,
    /// Docker's list filters: which containers are reported.
    pub filters: Vec<(String, String)>,
    /// Patterns of names whose values are secrets; empty: nothing is masked.
    pub redact: Vec<String>,
    /// How long the containers of an engine that is down stay.
    pub forget_after: Duration,
    /// About how many entries `<p>:events` and `<p>:runs` keep.
    pub stream_maxlen: u64,
}

/// Where Redis answers, and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheTarget {
    /// Host and port, or a socket's path.
    pub place: CachePlace,
    /// The database's number.
    pub database: i64,
    /// The user, where ACLs are in use.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
}

/// How to reach Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CachePlace {
    /// `redis://host:port`
    Tcp {
        /// Name or address.
        host: String,
        /// 6379 unless given.
        port: u16,
    },
    /// `unix:///path` and `redis+unix:///path`
    Unix(PathBuf),
}

/// The handlers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandlersConfig {
    /// The file they come from, as it was given.
    pub file: PathBuf,
    /// The entries, in the order of the file.
    pub entries: Vec<Arc<Entry>>,
    /// The most commands that run at once, all entries together.
    pub workers: usize,
}

/// The log's form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// `2013/12/27 16:30:32 Started …`, or with priorities and no time under journald.
    Text,
    /// One JSON object a line.
    Json,
}
