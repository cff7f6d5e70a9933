//! The machine's words: everything that can happen, and everything it can ask for.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::model::{
    ContainerId, Document, Engine, EngineIndex, Entry, Event, Hello, Job, Row, Run,
};
use crate::store::{
    Applied, Audit, Batch, Beaten, Burial, Claim, OnceAsk, OnceState, Opened, StoreError, Swept,
    Taken,
};

/// Counts an engine's connections: what belongs to an older one than the present is thrown away.
pub type Generation = u64;

/// Everything that can happen.
#[derive(Debug)]
pub enum Input {
    /// The reader opened a stream, or renewed it: then all that the last one told came before.
    Connected {
        /// Whose.
        engine: EngineIndex,
        /// Of which [`Effect::Connect`].
        generation: Generation,
        /// What the engine said of itself.
        hello: Box<Hello>,
    },
    /// The stream told an event.
    Event {
        /// Whose.
        engine: EngineIndex,
        /// On which connection.
        generation: Generation,
        /// What it told.
        event: Event,
    },
    /// The stream is over, or could not be opened.
    Disconnected {
        /// Whose.
        engine: EngineIndex,
        /// Which connection.
        generation: Generation,
        /// How it ended.
        end: StreamEnd,
    },
    /// The inbox had no room for events of this engine: some are lost.
    Overrun {
        /// Whose.
        engine: EngineIndex,
    },
    /// A list was answered.
    Listed {
        /// Whose.
        engine: EngineIndex,
        /// On which connection.
        generation: Generation,
        /// The rows, or why there are none.
        result: Result<Vec<Row>, Unlisted>,
    },
    /// The engine did not answer so small a question as whether it is there; told twice where it does not.
    Unanswered {
        /// Which.
        engine: EngineIndex,
        /// On which connection.
        generation: Generation,
        /// In words.
        error: String,
    },
    /// An inspect was answered, or moved out of the way.
    Inspected {
        /// Whose.
        engine: EngineIndex,
        /// On which connection.
        generation: Generation,
        /// Which container.
        id: ContainerId,
        /// By the thread that waits for inspects that hang; not the answer to an ask any more.
        by_slow: bool,
        /// What was answered.
        result: Inspected,
    },
    /// The store answered the one request it was given.
    Stored(StoreReply),
    /// A command ended.
    Ended {
        /// Which.
        job: u64,
        /// How.
        run: Run,
    },
    /// SIGHUP: `events.yml` was read again, and is right; answered by [`Effect::Reloaded`].
    Reload(Box<Reload>),
    /// SIGUSR1: say how things are.
    Report,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

/// What `events.yml` says now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reload {
    /// The engines to watch; at least one.
    pub engines: Vec<Engine>,
    /// The entries.
    pub entries: Vec<Arc<Entry>>,
}

/// How a stream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// The engine closed it, probably because it stops.
    Closed,
    /// Nothing came for longer than the stream was to last at all: the connection died without a word.
    Silent,
    /// It broke, or never began: why, with the remedy.
    Failed(String),
}

impl From<String> for StreamEnd {
    fn from(why: String) -> Self {
        StreamEnd::Failed(why)
    }
}

/// Why a list was not answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unlisted {
    /// In words, with the remedy.
    pub error: String,
    /// No answer came within the limit.
    pub timed_out: bool,
}

/// A container that is to be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspection {
    /// Which.
    pub id: ContainerId,
    /// The digest of the answer that is known. Where it is answered the same again, nobody needs to read it.
    pub known: Option<NonZeroU64>,
}

/// The answer to one inspect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inspected {
    /// The container's state; `member` is false when the filters of the list leave it out.
    Found {
        /// The document.
        document: Arc<Document>,
        /// Do the list's filters let it through? `None` when that was not asked.
        member: Option<bool>,
    },
    /// It was answered to the letter what is known; only where an [`Inspection`] says what that is.
    Same {
        /// As above.
        member: Option<bool>,
    },
    /// There is no such container (404).
    Gone,
    /// No answer within 500 ms: another thread waits for it now; the answer will come as another input.
    Slow,
    /// It failed: why.
    Failed(String),
}

/// The store's answer to a [`StoreRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreReply {
    /// To [`StoreRequest::Open`].
    Opened(Opened),
    /// To [`StoreRequest::Take`].
    Taken(Vec<Taken>),
    /// To [`StoreRequest::Apply`].
    Applied(Applied),
    /// To [`StoreRequest::Beat`].
    Beaten(Beaten),
    /// To [`StoreRequest::Audit`].
    Audited(EngineIndex, Box<Audit>),
    /// To [`StoreRequest::Bury`].
    Buried(Vec<Burial>),
    /// To [`StoreRequest::Sweep`].
    Swept(Swept),
    /// To [`StoreRequest::Once`].
    Once(Vec<OnceState>),
    /// To [`StoreRequest::Release`].
    Released,
    /// To any of them: the connection is gone.
    Failed(StoreError),
}

/// A request to the store; there is at most one under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreRequest {
    /// Connect.
    Open,
    /// Become the writer of these hosts.
    Take(Vec<Claim>),
    /// Run a transaction.
    Apply(Arc<Batch>),
    /// Renew the leases.
    Beat(Vec<Claim>),
    /// Read what the store says of a host.
    Audit(EngineIndex),
    /// See to dead hosts.
    Bury(Vec<String>),
    /// See to the shared sets.
    Sweep,
    /// Take, renew and end leases on commands.
    Once(Arc<[OnceAsk]>),
    /// Give the leases back.
    Release(Vec<EngineIndex>),
}

/// Stamps of events are not strictly in order; a resume begins this much earlier, in ns.
pub const MARGIN_NS: i64 = 2_000_000_000;

/// From when on a stream is to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// From the engine's present on.
    Now,
    /// From this time of the engine's clock on, in ns; all that the engine still has when its clock stands before `newest_ns`.
    At {
        /// Where to begin.
        oldest_ns: i64,
        /// The newest stamp seen.
        newest_ns: i64,
    },
}

impl Since {
    /// Where to begin, in ns of an engine's clock that stands so. An engine whose clock was set back is asked for all it has: it stops looking at
    /// the first event that is too old, and what it stamped since is older than what we remember.
    pub fn begin_ns(self, clock_ns: i64) -> i64 {
        match self {
            Since::Now => clock_ns,
            Since::At { newest_ns, .. } if clock_ns < newest_ns => 1,
            Since::At { oldest_ns, .. } => oldest_ns,
        }
    }

    /// A stream that begins at this is open: a renewal begins there as well.
    pub fn opened(self, clock_ns: i64) -> Self {
        match self {
            Since::Now => Since::At {
                oldest_ns: clock_ns,
                newest_ns: clock_ns,
            },
            at @ Since::At { .. } => at,
        }
    }

    /// An event was told: a renewal is to tell it once more.
    pub fn told(&mut self, time_ns: i64) {
        if let Since::At {
            oldest_ns,
            newest_ns,
        } = self
        {
            *oldest_ns = (time_ns - MARGIN_NS).max(1).min(*oldest_ns);
            *newest_ns = time_ns;
        }
    }
}

/// How loud a line of the log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Something is wrong and needs somebody.
    Error,
    /// Something is wrong and will be tried again.
    Warn,
    /// What one wants to know of every day.
    Info,
    /// What one wants to know when looking for a fault.
    Debug,
}

/// Everything that the machine can ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// From now on this is the engine of that index: a new one, or one that is to be reached in another way. Those of the start are known without it.
    Watch {
        /// Which; the next one that was never given, or one that was.
        index: EngineIndex,
        /// Who and where.
        engine: Box<Engine>,
    },
    /// Ask this engine nothing more.
    Unwatch {
        /// Which.
        index: EngineIndex,
    },
    /// All is as the new file says.
    Reloaded,
    /// Open a stream; answered by `Connected`, once more at each renewal, and in the end by `Disconnected`.
    Connect {
        /// Whose.
        engine: EngineIndex,
        /// The new connection's number.
        generation: Generation,
        /// From when on.
        since: Since,
    },
    /// List the containers; answered by `Listed`.
    List {
        /// Whose.
        engine: EngineIndex,
        /// On which connection.
        generation: Generation,
        /// The version to speak.
        api_version: Arc<str>,
    },
    /// Inspect these containers (32 at most); each is answered by `Inspected`.
    Inspect {
        /// Whose.
        engine: EngineIndex,
        /// On which connection.
        generation: Generation,
        /// The version to speak.
        api_version: Arc<str>,
        /// Which.
        inspections: Vec<Inspection>,
        /// Ask as well whether the list's filters let each of them through.
        check_filters: bool,
    },
    /// Ask the store; answered by `Stored`.
    Store(StoreRequest),
    /// Run a command; answered by `Ended`.
    Run(Box<Job>),
    /// End this command, with its grace: a newer event takes its place.
    EndRun(u64),
    /// End all commands, each with its grace.
    CancelRuns,
    /// Write a line to the log.
    Log(Level, String),
    /// Tell the service manager how things are.
    Status(String),
    /// All is done that was to be done before the end.
    Stopped,
}
