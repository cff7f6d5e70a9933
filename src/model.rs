//! Plain data of the domain: engines, events, documents, entries of `events.yml`, jobs.
//!
//! Nothing here does anything but hold and describe; every other module may know it.

mod entry;
mod fields;
mod signal;
mod term;
mod words;

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

pub use entry::{
    Cause, Debounce, Entry, ExitCodes, Filter, Labels, OnBusy, Order, Patterns, Queueing, Running,
    User,
};
pub use fields::Fields;
pub use signal::signal_number;
pub use term::Term;
pub use words::Words;

/// An engine's place in the configuration. Everything that concerns one engine is keyed by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct EngineIndex(pub u32);

impl EngineIndex {
    /// The index as it is used to look into a slice.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// Where an engine answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// `unix:///var/run/docker.sock`: the path, opened anew at each connect.
    Unix(PathBuf),
    /// `tcp://host:port` and `http://host:port`.
    Tcp {
        /// Name or address; an IPv6 address without its brackets.
        host: String,
        /// 2375 unless given.
        port: u16,
    },
}

/// One engine to watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Engine {
    /// Its name in `cluster`, else the agent's `--id`; the host id in Redis.
    pub name: Arc<str>,
    /// The URL as the user wrote it; shown in logs, in `docker_url` and in `ENGINE_<NAME>`.
    pub url: Arc<str>,
    /// What the URL means.
    pub address: Address,
}

/// The variable under which commands find the URL of the engine of this name: `ENGINE_` and the name in upper case, other characters than letters and digits as `_`.
pub fn engine_variable(name: &str) -> String {
    variable("ENGINE_", name)
}

/// The variable under which commands find a label of their container, made in the same way: `LABEL_COM_EXAMPLE_ROLE`.
pub fn label_variable(name: &str) -> String {
    variable("LABEL_", name)
}

fn variable(prefix: &str, name: &str) -> String {
    let name = name.chars().map(|c| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    });
    prefix.chars().chain(name).collect()
}

/// A container's full id, 64 hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ContainerId(pub Arc<str>);

impl From<&str> for ContainerId {
    fn from(text: &str) -> Self {
        ContainerId(text.into())
    }
}

/// A map by id can be asked with a plain text.
impl Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl ContainerId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve characters, as `docker ps` shows them.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an engine says of itself when a stream is opened, from `/_ping`, `/info` and `/version`.
/// Every field of `/info` may be missing; a missing text is empty, a missing number 0.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Hello {
    /// The version spoken on this connection: the lower of ours and theirs, `1.41`.
    pub api_version: String,
    /// Docker's own id of the engine; it gets copied between machines, so it alone proves nothing.
    pub engine_id: String,
    /// The host name of the engine's machine.
    pub host_name: String,
    /// `28.5.2;git-abc1234;go1.24.1`.
    pub docker_version: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// `6.1.0-18-amd64`.
    pub kernel: String,
    /// `x86_64`.
    pub architecture: String,
    /// Number of processors.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// The engine's own clock when it answered, in ns since 1970.
    pub clock_ns: i64,
}

/// One event of an engine's stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Event {
    /// Docker's `Type`: `container`, `network`, `image`, …
    pub kind: Term,
    /// Docker's `Action`, as it was sent (`health_status: unhealthy`), but a command line that an `exec_*` carries is cut off: it may hold secrets.
    pub action: Term,
    /// `Actor.ID`: the container's, network's, image's id.
    pub id: Box<str>,
    /// `Actor.Attributes`, in the order they came; a container's labels are among them, over the event's own.
    pub attributes: Fields,
    /// `timeNano`: ns since 1970 in the engine's clock.
    pub time_ns: i64,
    /// Docker's `scope`, or that Docker never sent it.
    pub scope: Scope,
}

/// Whose event it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Scope {
    /// The engine's own.
    #[default]
    Local,
    /// The swarm's.
    Swarm,
    /// Nobody sent it: the agent made it up.
    MadeUp,
}

impl Scope {
    /// Docker's word for it; what is made up is made up of one engine.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Swarm => "swarm",
            Scope::Local | Scope::MadeUp => "local",
        }
    }
}

/// The action of an event that says of a container: it ran already when the agent saw its engine first.
pub const EXISTING: &str = "existing";

/// The kind of events that tell what becomes of an engine itself.
pub const ENGINE: &str = "engine";

impl Event {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.first(name)
    }

    /// The action's word: `health_status` of `health_status: unhealthy`.
    pub fn verb(&self) -> &str {
        self.action.split(':').next().unwrap_or("").trim_end()
    }

    /// The word that an entry's `type` is compared with: `die`, `network/connect`.
    pub fn word(&self) -> String {
        match &*self.kind {
            "container" => self.verb().to_owned(),
            kind => format!("{kind}/{}", self.verb()),
        }
    }

    /// The id of the container that the event is about: its own, or that of a network's `connect` and `disconnect`.
    pub fn container(&self) -> Option<&str> {
        match &*self.kind {
            "container" => Some(&self.id),
            "network" => self.attribute("container"),
            _ => None,
        }
    }

    /// Is it one of the agent's own, that no engine ever sends: `existing`, and what becomes of an engine itself?
    pub fn is_own(&self) -> bool {
        match &*self.kind {
            "container" => &*self.action == EXISTING,
            kind => kind == ENGINE,
        }
    }

    /// Is this an event that changes nothing one could see from outside the container: `exec_*`, `top`, `attach` and the like?
    pub fn is_noise(&self) -> bool {
        &*self.kind == "container"
            && (self.verb().starts_with("exec_")
                || matches!(
                    self.verb(),
                    // Podman says `exec` for Docker's `exec_start`.
                    "exec"
                        | "top"
                        | "attach"
                        | "detach"
                        | "resize"
                        | "export"
                        | "commit"
                        | "copy"
                        | "archive-path"
                        | "extract-to-dir"
                        | "checkpoint"
                        | "prune"
                ))
    }
}

/// One row of a list of containers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The container.
    pub id: ContainerId,
    /// Docker's `State` is neither `created`, `exited` nor `dead`: the container stands in Docker's default list.
    pub running: bool,
    /// The list's filters let it through: it is to be reported.
    pub member: bool,
}

/// Names, as globs without regard to case, of environment variables and labels whose values are secrets, unless the user says otherwise. Traefik's
/// users stand in labels, with the digests of their passwords.
pub const DEFAULT_SECRETS: &str = "*PASSWORD*,*PASSWD*,*PASSPHRASE*,*SECRET*,*TOKEN*,*CREDENTIAL*,*APIKEY*,*[._-]KEY,*[._-]PASS,*[._-]PWD,*AUTH.USERS";

/// What an inspect said of a container, ready for Redis: secrets masked, volatile fields left out.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Document {
    /// The inspect flattened to two levels, `config_image` -> `ubuntu`; in the order of the answer (an address found elsewhere comes last), without `host`.
    pub fields: Fields,
    /// A digest of the names of its fields, in whatever order: two documents with one shape have the same fields.
    pub shape: u64,
    /// The inspect as compact JSON text; handlers keep it when the document is written and gone.
    pub json: Arc<str>,
    /// A digest of `json`: two documents with one digest are one document.
    pub digest: u64,
    /// A digest of the answer that it was made from, which holds more than the document does.
    pub answer: Option<NonZeroU64>,
    /// What core needs to know of it.
    pub summary: Summary,
}

impl Document {
    /// About how much memory the document takes, in bytes.
    pub fn size(&self) -> usize {
        let ends = self.fields.len() * size_of::<(u32, u32)>();
        self.fields.bytes() + ends + self.json.len() + size_of::<Document>()
    }
}

/// What an answer is known by when it is to be compared with the next one.
pub fn answer_digest(answer: &[u8]) -> NonZeroU64 {
    NonZeroU64::new(xxh3_64(answer)).unwrap_or(NonZeroU64::MAX)
}

/// What a document's JSON is known by when the document itself is gone; the same in every process of one version.
pub fn digest(json: &str) -> u64 {
    xxh3_64(json.as_bytes())
}

/// The few facts of a document that core keeps when the document itself is gone.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// The container's name, without the leading slash.
    pub name: Arc<str>,
    /// `Config.Image`, the reference it was started by.
    pub image: Arc<str>,
    /// Running, paused or restarting: the container stands in Docker's default list.
    pub running: bool,
    /// `State.Paused`.
    pub paused: bool,
    /// `State.Health.Status`; empty where nothing is checked.
    pub health: Arc<str>,
    /// `NetworkSettings.Networks`: names and ids.
    pub networks: Arc<[(Box<str>, Box<str>)]>,
    /// `State.StartedAt` as Docker wrote it; tells one run from the next.
    pub started_at: Arc<str>,
    /// The same in ns since 1970, where it is a time.
    pub started_ns: Option<i64>,
    /// `State.ExitCode`.
    pub exit_code: i64,
    /// The container has a label `exitCode`, which replaces the events' own attribute of that name.
    pub hides_exit_code: bool,
    /// The same with `signal`.
    pub hides_signal: bool,
    /// `Config.StopSignal`, where there is one.
    pub stop_signal: Option<u8>,
    /// `Config.Labels`, in plain: filters ask for them, and commands are told them, and nobody else; `None` where nobody asks for them.
    pub labels: Option<LabelList>,
}

/// Labels of a container, names and values.
pub type LabelList = Arc<[(Box<str>, Box<str>)]>;

/// One command to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Unique in this process; each try of a job has its own.
    pub id: u64,
    /// What the run is called in the log, in the store and to the command: unique over agents and their restarts, the same for all tries of a job.
    pub run: String,
    /// What is to be run, and how.
    pub entry: Arc<Entry>,
    /// What it is about, for the log: a container's name, else the object's id.
    pub subject: String,
    /// The event's word, for the log.
    pub word: String,
    /// The engine it came from, for the log.
    pub engine: Arc<str>,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// Variables beside `PATH`, `HOME`, `LANG` and `TZ`, and those of the entry.
    pub environment: Vec<(Cow<'static, str>, String)>,
    /// What it finds on its standard input.
    pub input: Vec<u8>,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// We ended it: it ran longer than its `timeout`.
    TimedOut,
    /// We ended it: the agent stops.
    Cancelled,
    /// We ended it: a newer event took its place.
    Replaced,
    /// It never ran: why.
    NotStarted(String),
    /// Nobody knows: the agent that ran it ended before it did.
    CutOff,
}

impl Exit {
    /// A word for programs: the exit status, or what happened instead.
    pub fn word(&self) -> String {
        match self {
            Exit::Code(code) => code.to_string(),
            Exit::Signal(signal) => format!("signal {signal}"),
            Exit::TimedOut => "timeout".to_owned(),
            Exit::Cancelled => "cancelled".to_owned(),
            Exit::Replaced => "replaced".to_owned(),
            Exit::NotStarted(_) => "not started".to_owned(),
            Exit::CutOff => "cut off".to_owned(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "killed by signal {signal}"),
            Exit::TimedOut => f.write_str("timed out and was killed"),
            Exit::Cancelled => f.write_str("was ended because the agent stops"),
            Exit::Replaced => f.write_str("was ended because a newer event takes its place"),
            Exit::NotStarted(why) => write!(f, "could not be started: {why}"),
            Exit::CutOff => f.write_str("was cut off when the last agent ended"),
        }
    }
}

/// What a command left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// How it ended.
    pub exit: Exit,
    /// The last 4 KiB of what it wrote to its standard output and error, together, in the order read.
    pub output: Vec<u8>,
    /// It wrote more than that.
    pub cut: bool,
    /// From start to end.
    pub took: Duration,
}
