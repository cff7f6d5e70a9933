//! The entries of `events.yml`: for which events, what to run, and how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An entry: what to run, and for which events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its `name`, else its number in the file, from 1: `#3`.
    pub name: Arc<str>,
    /// What it wants to see.
    pub filter: Filter,
    /// `not`: what it does not want to see, whatever `filter` says; an event that matches any of these is none of its own.
    pub not: Vec<Filter>,
    /// `for`: how long `engine/down` and `engine/up` must last.
    pub lasting: Duration,
    /// `existing`: it runs once for each container that runs already when the agent first sees its engine. Without a `type` it runs for nothing
    /// else: `filter.types` refuses everything then.
    pub existing: bool,
    /// `once`: of all agents that see an event, one runs it.
    pub once: bool,
    /// The shell command, where there is one.
    pub command: Option<Arc<str>>,
    /// The text to log, where there is one.
    pub log: Option<Arc<str>>,
    /// How its commands are queued.
    pub queueing: Queueing,
    /// How one command is run.
    pub running: Running,
}

impl Default for Entry {
    /// What holds where the file says nothing.
    fn default() -> Self {
        Entry {
            name: "".into(),
            filter: Filter::default(),
            not: Vec::new(),
            lasting: Duration::ZERO,
            existing: false,
            once: false,
            command: None,
            log: None,
            queueing: Queueing::default(),
            running: Running::default(),
        }
    }
}

impl Entry {
    /// Does any of its filters name labels?
    pub fn asks_for_labels(&self) -> bool {
        let mut filters = self.not.iter().chain([&self.filter]);
        filters.any(|filter| !filter.labels.labels.is_empty())
    }
}

/// Filters; all fields that are given must match, and of the values of one field any. An empty field matches everything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Filter {
    /// `type`: globs, in lower case, for the event's word (`die`, `network/connect`, `health_status: unhealthy`). `*` means every word but our
    /// own, which begin with `engine/`.
    pub types: Patterns,
    /// `from_engine`: globs for the engine's name.
    pub engines: Patterns,
    /// `from_container`: globs for the container's name, without a leading slash.
    pub containers: Patterns,
    /// `image`: globs for the image's reference, as the container was started by it.
    pub images: Patterns,
    /// `image_contains`: texts of which the image's reference contains one.
    pub image_contains: Vec<String>,
    /// `labels`.
    pub labels: Labels,
    /// `exit_code`.
    pub exit_codes: ExitCodes,
    /// `cause`.
    pub causes: Vec<Cause>,
}

/// Globs without regard to case. Of the plain ones any must match (where there is none, everything does), of those with a `!` none may.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Patterns {
    /// Those without a `!`.
    pub any: Vec<String>,
    /// Those with a `!`, which is taken off.
    pub none: Vec<String>,
}

impl Patterns {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

impl<const N: usize> From<[&str; N]> for Patterns {
    /// Plain globs.
    fn from(any: [&str; N]) -> Self {
        Patterns {
            any: any.map(str::to_owned).to_vec(),
            none: Vec::new(),
        }
    }
}

/// Which labels a container must have.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Labels {
    /// Each a label's name, and a glob for its value, or none where any value will do.
    pub labels: Vec<(String, Option<String>)>,
    /// They were given as a map: all of them must match. As a list, any.
    pub all: bool,
}

/// Ranges of exit codes, both ends included. Of the plain ones any must match (where there is none, everything does), of those with a `!` none may.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ExitCodes {
    /// Those without a `!`.
    pub any: Vec<(i64, i64)>,
    /// Those with a `!`.
    pub none: Vec<(i64, i64)>,
}

/// Why a container died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// By itself, and not well: its exit code is not 0, and nobody had asked it to end.
    Crash,
    /// Somebody stopped or killed it.
    Stop,
    /// The kernel, for want of memory.
    Oom,
}

/// How the commands of an entry are queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queueing {
    /// `concurrency`: how many of them may run at once.
    pub concurrency: usize,
    /// `order`.
    pub order: Order,
    /// `on_busy`.
    pub on_busy: OnBusy,
    /// `debounce` and `debounce_max`.
    pub debounce: Option<Debounce>,
    /// `cooldown`: so long after a command of a container was started, events of that container start no other.
    pub cooldown: Duration,
    /// `retries`: so many more tries when a command fails.
    pub retries: u32,
    /// `backoff`: how long to wait before the first of them; each further wait is twice as long, an hour at most.
    pub backoff: Duration,
}

impl Default for Queueing {
    fn default() -> Self {
        Queueing {
            concurrency: 8,
            order: Order::Container,
            on_busy: OnBusy::Queue,
            debounce: None,
            cooldown: Duration::ZERO,
            retries: 0,
            backoff: Duration::from_secs(1),
        }
    }
}

/// In which order the commands of an entry run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Those of one container one after the other, as their events came.
    Container,
    /// In any order, also at once.
    None,
}

/// What becomes of an event whose command cannot start at once: one of the same container runs or waits (with [`Order::Container`]), or as many as
/// may run at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBusy {
    /// It waits.
    Queue,
    /// It is dropped.
    Skip,
    /// It takes the place of those before it: what waits is dropped, what runs is ended.
    Replace,
}

/// Many events, one command: for the newest of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Debounce {
    /// The command runs when the entry has seen no event for so long,
    pub quiet: Duration,
    /// or so long after the first.
    pub max: Duration,
}

/// How one command is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    /// `timeout`: how long it may run.
    pub timeout: Duration,
    /// `grace`: how long it has between TERM and KILL.
    pub grace: Duration,
    /// `shell`: the program and its arguments; the command is the last one. At least a program.
    pub shell: Arc<[String]>,
    /// `dir`: where it runs; the agent's own directory unless given.
    pub dir: Option<PathBuf>,
    /// `env`: variables beside those that every command gets.
    pub env: Vec<(String, String)>,
    /// `user`: as whom it runs; as the agent unless given.
    pub user: Option<User>,
}

impl Default for Running {
    fn default() -> Self {
        Running {
            timeout: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            shell: ["/bin/sh", "-c"].map(str::to_owned).into(),
            dir: None,
            env: Vec::new(),
            user: None,
        }
    }
}

/// Somebody to run a command as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The name or number that was given.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// The user's own group; there are no others.
    pub gid: u32,
    /// `HOME` of the command.
    pub home: PathBuf,
}
