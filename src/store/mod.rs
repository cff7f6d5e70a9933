//! What the writer can ask of the central store, in the domain's words; [`redis`] answers.
//!
//! One thread calls, one request at a time. Every request has one deadline in all (5 s), however many replies it reads. Who may write a host is
//! decided here too: each transaction renews the host's lease and refuses to run when anybody else wrote that lease, when it ran out, or when
//! the store lost it.

mod commands;
mod encode;
mod errors;
mod explained;
mod fence;
pub mod keys;
mod link;
mod lost;
#[cfg(test)]
pub mod memory;
mod once;
mod open;
pub mod redis;
mod rivals;
mod scan;
mod search;
mod sweep;
mod take;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::{ContainerId, Document, EngineIndex, Event, Exit, Words};

pub use once::{OnceAsk, OnceState, OnceWish};

/// The operations on the central store. After an `Err` the connection is gone, and nothing but [`Store::open`] may be called.
pub trait Store: Send {
    /// Connects, checks that the store answers and may be written, and says what became of the leases and of a transaction whose reply was lost.
    fn open(&mut self) -> Result<Opened, StoreError>;

    /// Tries to become the writer of each of these hosts, and reads what the store holds of those it got.
    fn take(&mut self, claims: &[Claim]) -> Result<Vec<Taken>, StoreError>;

    /// Runs one transaction for hosts whose leases are ours.
    fn apply(&mut self, batch: &Batch) -> Result<Applied, StoreError>;

    /// Renews leases, `<p>:alive` and the engines' keys of these hosts in one transaction, then asks which hosts are overdue.
    fn beat(&mut self, claims: &[Claim]) -> Result<Beaten, StoreError>;

    /// Reads what the store says of one host, to be compared with what is so.
    fn audit(&mut self, host: EngineIndex) -> Result<Audit, StoreError>;

    /// Marks dead hosts as lost and expires those that have been silent for two intervals; one bounded step.
    fn bury(&mut self, overdue: &[String]) -> Result<Vec<Burial>, StoreError>;

    /// Removes keys and members of shared sets that no manifest explains, and restores members that one does, if this agent is the janitor; once an interval.
    fn sweep(&mut self) -> Result<Swept, StoreError>;

    /// Takes, renews or ends leases on commands that only one agent is to run; answers who has each of them, in the same order.
    fn once(&mut self, asks: &[OnceAsk]) -> Result<Vec<OnceState>, StoreError>;

    /// Gives the leases of these hosts back, with `status` `stopped`.
    fn release(&mut self, hosts: &[EngineIndex]) -> Result<(), StoreError>;
}

/// A wish to write, or to go on writing, a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Which.
    pub host: EngineIndex,
    /// Its id; the first claim of a host tells it.
    pub id: Arc<str>,
    /// `<engine id>@<engine's host name>`, once the engine said it: no other host id may report the same engine.
    pub identity: Option<Arc<str>>,
}

/// What [`Store::open`] found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Opened {
    /// `host:port/db` or the socket's path, never with a password.
    pub address: String,
    /// Did the transaction whose reply was lost run? `None` when there was none, or when its hosts' leases are gone, so that nobody knows.
    pub ran: Option<bool>,
    /// Hosts that were ours and whose lease is not what we wrote last: they must be taken anew.
    pub lost: Vec<EngineIndex>,
}

/// The answer to one claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Which.
    pub host: EngineIndex,
    /// Ours with what was found, or held by somebody else.
    pub outcome: Result<Box<Found>, Holder>,
}

/// Who holds what we claimed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holder {
    /// Another agent writes this host; its lease's text.
    Agent(String),
    /// This very engine is reported under another host id.
    Host(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Agent(lease) => {
                write!(f, "another agent (lease `{lease}`) reports this host id")
            }
            Holder::Host(host) => write!(
                f,
                "this engine is reported under the host id `{host}` already"
            ),
        }
    }
}

/// What the store held of a host when its lease became ours.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Found {
    /// It was a member of `<p>:hosts`.
    pub known: bool,
    /// `status` of its hash; empty when there is none.
    pub status: String,
    /// `engine_id` of its hash.
    pub engine_id: String,
    /// Seconds since `last_update`, by Redis's clock.
    pub age_s: Option<u64>,
    /// `resume`, where it still lives.
    pub resume_ns: Option<i64>,
    /// Its containers, as the store has them.
    pub audit: Audit,
    /// `running_jobs` of its hash: commands that ran when the last agent wrote last, a line of JSON each.
    pub running_jobs: String,
    /// What ran according to the store: what changed meanwhile is inferred from it.
    pub runs: Vec<FoundRun>,
}

/// A container as the last report left it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRun {
    /// The container.
    pub id: ContainerId,
    /// `name`, without a slash.
    pub name: String,
    /// `config_image`.
    pub image: String,
    /// `state_startedat`. Empty where keys of it are gone: then nobody knows whether it ran.
    pub started_at: String,
}

/// What the store says of one host's containers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Audit {
    /// Members of `<p>:hosts:<host>:containers`.
    pub running: Words,
    /// Members of `<p>:hosts:<host>:stopped`.
    pub stopped: Words,
    /// `<p>:hosts:<host>:names`: names and ids, which alternate.
    pub names: Words,
    /// `<p>:hosts:<host>:manifest`: ids and images, which alternate.
    pub manifest: Words,
    /// The host is in `<p>:hosts`.
    pub listed: bool,
    /// `<p>:hosts:<host>`, but for the fields that the store sets itself.
    pub fields: BTreeMap<String, String>,
    /// For a self-check only: the digest of each container's JSON, and whether its hash names this host.
    pub documents: Vec<(ContainerId, Option<u64>, bool)>,
}

/// One transaction.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Batch {
    /// What is to change, host by host; each host at most once.
    pub hosts: Vec<HostBatch>,
}

/// One host's share of a transaction, applied in the order of the fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostBatch {
    /// Whose.
    pub host: EngineIndex,
    /// Names that no longer stand for any container of the host; removed before the puts name theirs.
    pub names_left: Vec<Arc<str>>,
    /// Containers that are gone: keys and memberships.
    pub drops: Vec<Gone>,
    /// Containers that are so.
    pub puts: Vec<Put>,
    /// Images of which, after drops and puts, no container of the host runs any more.
    pub images_left: Vec<Arc<str>>,
    /// Containers whose document did not change: their keys get their time to live again. [`Applied::Done`] names those that have no key.
    pub touches: Vec<ContainerId>,
    /// Running containers (and their images) to add to the shared sets again.
    pub reassert: Vec<(ContainerId, Arc<str>)>,
    /// Fields of the host's hash, beside those that the store sets itself (`last_update`, when `stamp`).
    pub fields: Vec<(&'static str, String)>,
    /// Fields of the host's hash that do not belong there.
    pub fields_left: Vec<String>,
    /// Say that this host is one of those that report.
    pub enlist: bool,
    /// Move `last_update` to the store's own clock.
    pub stamp: bool,
    /// Renew the time to live of the host's own keys.
    pub renew: bool,
    /// Renew the day of the shared sets.
    pub renew_shared: bool,
    /// The new value of `resume`.
    pub resume_ns: Option<i64>,
    /// Remove the host itself (after its drops): its keys, its lease and its place in `<p>:hosts` and `<p>:alive`.
    pub forget: bool,
    /// Entries for the streams.
    pub happened: Vec<Happening>,
    /// Notices, sent last, in this order.
    pub notices: Vec<Notice>,
}

impl HostBatch {
    /// Nothing to do for this host yet.
    pub fn new(host: EngineIndex) -> Self {
        HostBatch {
            host,
            names_left: Vec::new(),
            drops: Vec::new(),
            puts: Vec::new(),
            images_left: Vec::new(),
            touches: Vec::new(),
            reassert: Vec::new(),
            fields: Vec::new(),
            fields_left: Vec::new(),
            enlist: false,
            stamp: false,
            renew: false,
            renew_shared: false,
            resume_ns: None,
            forget: false,
            happened: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// A container whose document and place are to be as given, whatever the store held before; what is said to stand there already is not put there again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// The container.
    pub id: ContainerId,
    /// Its document.
    pub document: Arc<Document>,
    /// The image that the store has it under now, where that is another (or where it ran and no longer does).
    pub image_left: Option<Arc<str>>,
    /// The last document that was written has the same fields: they are written over. [`Applied::Done`] names those that have others as well.
    pub shaped: bool,
    /// Whether it runs, and under which image, stands in the store already,
    pub placed: bool,
    /// and so does its name.
    pub named: bool,
}

/// A container to remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gone {
    /// The container.
    pub id: ContainerId,
    /// The image that the store has it under, where that is known.
    pub image: Option<Arc<str>>,
}

/// An entry of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// `<p>:events`: an event of the engine, or one that a resync made up.
    Event {
        /// The event.
        event: Arc<Event>,
        /// Found by a resync or replayed after an outage.
        inferred: bool,
    },
    /// `<p>:events`: this many events may be missing here.
    Gap {
        /// At least so many were dropped by us; 0 when the engine dropped them and nobody counted.
        dropped: u64,
        /// Why.
        reason: String,
    },
    /// `<p>:runs`: a command was started, or ended.
    Run(Arc<RunRecord>),
}

/// What a handler did, for `<p>:runs`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunRecord {
    /// The run's id.
    pub run: String,
    /// The entry's name.
    pub entry: Arc<str>,
    /// The event's word.
    pub word: String,
    /// The container's name or the object's id.
    pub subject: String,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// How it ended; `None` when it was started.
    pub end: Option<RunEnd>,
}

/// How a command ended, for `<p>:runs`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunEnd {
    /// By what.
    pub exit: Exit,
    /// How long it took, in ms.
    pub took_ms: u64,
    /// The last of its output, as text.
    pub output: String,
}

/// A line on `<p>_events`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// `new_host:<host>`
    NewHost,
    /// `new_container:<host>:<cid>`
    NewContainer(ContainerId),
    /// `update_container:<host>:<cid>`
    UpdateContainer(ContainerId),
    /// `delete_container:<host>:<cid>`
    DeleteContainer(ContainerId),
    /// `refresh_containers:<host>`
    RefreshContainers,
    /// `host_down:<host>`
    HostDown,
    /// `host_up:<host>`
    HostUp,
    /// `expired_host:<host>`
    ExpiredHost,
}

/// What became of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It ran.
    Done {
        /// Containers whose keys were to be renewed and had none (or lacked one of the two), and those that have fields which nobody wrote here: they are
        /// to be written anew.
        missing: Vec<(EngineIndex, ContainerId)>,
    },
    /// It did not run, because these hosts are not ours any more; the others are still ours and nothing of the batch was written.
    Fenced(Fenced),
}

/// Hosts that ceased to be ours.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Fenced {
    /// Their lease ran out or was flushed: what the store held may be lost.
    pub lost: Vec<EngineIndex>,
    /// Somebody else's lease stands there.
    pub held: Vec<(EngineIndex, Holder)>,
}

/// What a heartbeat found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Beaten {
    /// The leases were renewed; these host ids' own time is over.
    Done {
        /// Ids of hosts whose agents have not renewed their lease in time, and are not ours.
        overdue: Vec<String>,
    },
    /// Nothing was renewed.
    Fenced(Fenced),
}

/// What was done about a dead host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Burial {
    /// This agent was the first to mark it as `lost`.
    Lost(String),
    /// This agent expired it, and removed so many containers.
    Expired(String, usize),
}

/// What a janitor's round did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Swept {
    /// Keys, and members of shared sets, that were removed.
    pub removed: usize,
    /// Members that were added to shared sets.
    pub restored: usize,
}

/// Why a request failed. The connection is dropped with every error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// One line: ``failed to <verb> <noun> `<operand>`: <cause>``, with the remedy where the user can act. Two errors of one cause have one text.
    pub text: String,
    /// The transaction may have run: its reply was lost. [`Store::open`] will say.
    pub uncertain: bool,
    /// It ran longer than its deadline: the next one should be smaller.
    pub timed_out: bool,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StoreError {}
