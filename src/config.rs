//! What is meant: what was typed and `events.yml`, validated, as one [`Config`].
//!
//! [`Source::read`] goes on after a mistake, so that all of them are told at once. Text becomes values in the modules below.

mod actions;
mod build;
mod duration;
mod entry;
mod file;
mod filter;
mod how;
mod machine;
mod nearest;
mod never;
mod reader;
mod source;
mod url;
mod user;
mod values;
mod yaml;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::glob::{Case, Globs};
use crate::model::{Engine, Entry};

pub(crate) use build::docker_host;
pub use build::{Built, Explained, Files, Fired, Variables};
pub use entry::ENTRY;
pub(crate) use machine::host_name;
pub use machine::read_file;
pub(crate) use nearest::nearest;
pub use source::Source;
pub(crate) use url::masked;
pub use yaml::Place;

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
    /// The longest that an event stream is kept before it is renewed.
    pub stream_max_age: Duration,
    /// Patterns of names whose values are secrets, in the cache and on a command's standard input; empty: nothing is masked.
    pub redact: Vec<String>,
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
    /// Read every document back after each full comparison, and say what differed.
    pub selfcheck: bool,
    /// Docker's list filters: which containers are reported.
    pub filters: Vec<(String, String)>,
    /// How long the containers of an engine that is down stay.
    pub forget_after: Duration,
    /// About how many entries `<p>:events` and `<p>:runs` keep.
    pub stream_maxlen: u64,
}

/// Where Redis answers, and as whom.
#[derive(Clone, PartialEq, Eq)]
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

impl fmt::Debug for CacheTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheTarget")
            .field("place", &self.place)
            .field("database", &self.database)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .finish()
    }
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

/// Something is wrong with what the user gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Where it was given.
    pub origin: Origin,
    /// The field of the file, `entry #2, timeout`.
    pub field: Option<String>,
    /// What is wrong with it.
    pub mistake: Mistake,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{}", self.mistake)
    }
}

impl std::error::Error for ConfigError {}

/// Why nothing can be made of what the user gave.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Refused {
    /// All that is wrong; not empty.
    pub mistakes: Vec<ConfigError>,
    /// What is probably not meant, a line each.
    pub warnings: Vec<String>,
}

/// Where a value was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// By this option, without its dashes.
    Option(&'static str),
    /// By this variable of the environment.
    Variable(String),
    /// In this file, and where there, unless it concerns the whole file.
    File(PathBuf, Option<Place>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Option(name) => write!(f, "--{name}"),
            Origin::Variable(name) => f.write_str(name),
            Origin::File(path, None) => write!(f, "{}", path.display()),
            Origin::File(path, Some(Place { line, column })) => {
                write!(f, "{}:{line}:{column}", path.display())
            }
        }
    }
}

/// What is wrong with a value, wherever it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// What is wrong.
    pub problem: String,
    /// What was expected; empty where the problem says it.
    pub expected: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl Mistake {
    fn new(problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Mistake {
            problem: problem.into(),
            expected: expected.into(),
            nearest: None,
        }
    }

    fn near(mut self, meant: Option<impl Into<String>>) -> Self {
        self.nearest = meant.map(Into::into);
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        if let Some(meant) = &self.nearest {
            write!(f, "; did you mean `{meant}`?")?;
        }
        if !self.expected.is_empty() {
            write!(f, "; expected {}", self.expected)?;
        }
        Ok(())
    }
}

/// The most commands at once that may be asked for; a thread each.
const MAX_WORKERS: u64 = 1024;

/// Is this fit to be a host's id, an engine's name, a prefix? They become parts of keys whose other parts are split off by `:`.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 128
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Is this a glob?
fn glob(pattern: &str) -> Result<(), Mistake> {
    match Globs::new([pattern], Case::Counts) {
        Ok(_) => Ok(()),
        Err(error) => Err(Mistake::new(
            format!("`{}` is no glob: {}", cut(pattern), error),
            "a text in which `*` stands for anything, `?` for a character, `[ab]` for one of them, `{ab,cd}` for one of these",
        )),
    }
}

/// A text for a message: its first line, cut to a sane length.
fn cut(text: &str) -> String {
    const LENGTH: usize = 80;
    let line = text.lines().next().unwrap_or("");
    let mut shown: String = line
        .chars()
        .take(LENGTH)
        .flat_map(shown_character)
        .collect();
    if line.chars().nth(LENGTH).is_some() || text.len() > line.len() {
        shown.push('…');
    }
    shown
}

fn shown_character(c: char) -> Vec<char> {
    match c.is_control() {
        true => c.escape_default().collect(),
        false => vec![c],
    }
}
