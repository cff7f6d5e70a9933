//! The machine's words: everything that can happen, and everything it can ask for.

use std::sync::Arc;

use crate::model::{ContainerId, Document, EngineIndex, Event, Hello, Job, Row, Run};
use crate::store::{
    Applied, Audit, Batch, Beaten, Burial, Claim, Opened, StoreError, Swept, Taken,
};

/// Counts an engine's connections: what belongs to an older one than the present is thrown away.
pub type Generation = u64;

/// Everything that can happen.
#[derive(Debug)]
pub enum Input {
    /// The reader opened a stream.
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
        event: Box<Event>,
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
        result: Result<Vec<Row>, String>,
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
    /// SIGUSR1: say how things are.
    Report,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

/// How a stream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// At the time that we ourselves had asked for; the next connect is a renewal.
    Renewal,
    /// The engine closed it, probably because it stops.
    Closed,
    /// Nothing came for longer than the stream was to last at all: the connection died without a word.
    Silent,
    /// It broke, or never began: why, with the remedy.
    Failed(String),
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
    /// Give the leases back.
    Release(Vec<EngineIndex>),
}

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
    /// Open a stream; answered by `Connected` and, in the end, by `Disconnected`.
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
        ids: Vec<ContainerId>,
        /// Ask as well whether the list's filters let each of them through.
        check_filters: bool,
    },
    /// Ask the store; answered by `Stored`.
    Store(StoreRequest),
    /// Run a command; answered by `Ended`.
    Run(Box<Job>),
    /// End all commands, each with its grace.
    CancelRuns,
    /// Write a line to the log.
    Log(Level, String),
    /// Tell the service manager how things are.
    Status(String),
    /// All is done that was to be done before the end.
    Stopped,
}
