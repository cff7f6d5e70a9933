//! One engine: its connection, what it runs, and what it must be asked.
//!
//! State is level-triggered: an event says "look at this container", the answer to an inspect says what is so. Lists only say where to look, and
//! which containers are gone that no event has touched since the list was asked for. Events are edge-triggered and passed on as they come; where
//! the state of a container proves that an event is missing, one is inferred, after a moment in which the real one may still arrive.

mod connection;
mod documents;
mod events;
mod inference;
mod looks;
mod rounds;
mod witness;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;

use super::Time;
use super::backoff::{Backoff, Complaints};
use super::continuity::Continuity;
use super::known::Known;
use super::message::{Effect, Generation};
use crate::model::{ContainerId, Document, EngineIndex, Event, Hello, Summary};
use crate::store::FoundRun;

use documents::{Last, Remembered};
use inference::Inferred;
use witness::Witness;

/// The most containers in one ask: small enough that a resync never stands long before an event's container.
const ASK: usize = 32;

/// How long an event may lag behind the state that it led to, before it counts as lost.
pub const SETTLE: Time = Time::from_secs(2);

/// dockerd closes its streams when it stops, and the next connect may start it again through its socket unit.
const AFTER_CLOSE: Time = Time::from_secs(2);

/// A connection that lived so long was a good one: the next failure begins with short delays again.
const GOOD: Time = Time::from_secs(10);

/// How long to wait before an inspect or a list that failed is asked for again.
const ASK_AGAIN: Time = Time::from_secs(1);

/// An engine that answered nothing for so long is not one whose answers there must be room for.
pub const STUCK: Time = Time::from_secs(1);

/// For which answers there is room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// So many documents wait for the store that no more may.
    None,
    /// A resync would only get ahead of the store.
    Urgent,
    /// Whatever there is to ask.
    All,
}

/// What an engine's machine is told at its birth.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Time between two resyncs.
    pub interval: Time,
    /// Stopped containers are reported as well.
    pub all: bool,
    /// Lists are filtered: membership has to be asked for.
    pub filtered: bool,
    /// An entry asks for labels.
    pub labels: bool,
    /// Handlers want to know of each container that is there before the agent.
    pub existing: bool,
    /// Commands want the documents of containers.
    pub documents: bool,
}

/// What follows from an input, beside effects; the core passes it on.
#[derive(Debug)]
pub enum Outcome {
    /// To be done.
    Effect(Effect),
    /// This container is so.
    State(ContainerId, Report, u64),
    /// This happened. `revision` is what the store must have reached before a handler runs.
    Event {
        /// What.
        event: Arc<Event>,
        /// Found by a resync, or told only after an outage.
        inferred: bool,
        /// The change of its container that it stands for.
        revision: u64,
    },
    /// Events may be missing: why.
    Gap(String),
    /// The engine answers (again).
    Up,
    /// The engine does not answer.
    Down,
    /// Another engine answers at the address: nothing that was known holds.
    Replaced,
    /// A resync is due, and the engine cannot be asked: what is known stays.
    Unreachable,
    /// All containers of a resync were looked at: compare with the store, then close.
    Looked,
    /// The containers that the comparison named were looked at again.
    Repaired,
}

/// What there is to report of a container.
#[derive(Debug)]
pub enum Report {
    /// This.
    Document(Arc<Document>),
    /// What was reported of it last, by the document's digest.
    Same(u64),
    /// Nothing (any more).
    Nothing,
}

/// What the last agent that watched this engine left in the store.
#[derive(Debug)]
pub struct Predecessor {
    /// The engine's own id; where another one answers now, nothing else here counts.
    pub engine_id: String,
    /// Where it stopped.
    pub resume_ns: Option<i64>,
    /// What it had left running, where that is young enough to infer from.
    pub runs: Option<Vec<FoundRun>>,
}

/// Counters of one engine; they stand in the host's hash and are said at SIGUSR1.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Events told, each once.
    pub events: u64,
    /// Times that events may have been missed.
    pub gaps: u64,
    /// Full resyncs that reached the engine.
    pub resyncs: u64,
    /// Differences that a resync found and no event had told.
    pub drift: u64,
    /// Streams opened after the first, renewals not counted.
    pub reconnects: u64,
}

#[derive(Debug)]
enum Link {
    /// Not asked to start yet.
    Idle,
    Waiting(Time),
    Connecting,
    Live {
        since: Time,
    },
}

/// Where the question what a container is like stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    Idle,
    Queued {
        urgent: bool,
    },
    Asked {
        again: bool,
    },
    /// The inspect hangs; another thread waits for it.
    Slow {
        again: bool,
    },
}

/// What the handlers know of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Nothing,
    /// It runs; since when is known once an inspect came after the event.
    Running(Option<Arc<str>>),
}

/// An answer that need not be read again, should it come again.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Its digest.
    answer: NonZeroU64,
    /// The digest of the document that was made from it.
    document: u64,
}

#[derive(Debug)]
struct Container {
    look: Look,
    /// Raised by each event; the store has caught up when it holds what an inspect after it said.
    revision: u64,
    /// When the revision was raised.
    touched: Option<Time>,
    /// The revision when the inspect under way was asked for.
    asked: u64,
    /// What the last inspect said; `None` before the first, or when it is gone.
    facts: Option<Summary>,
    /// The answer that the facts are from.
    seen: Option<Seen>,
    /// The last document, where commands want it.
    last: Option<Last>,
    /// There is no such container any more; the facts are its last ones.
    gone: bool,
    member: bool,
    told: Told,
    /// The revision of its last start or end: what was asked before says nothing of whether one of them is missing.
    told_at: u64,
    /// It may have been there before us: that it runs is no surprise.
    old: bool,
    /// It may have been there before us, and no handler was told of it: as soon as it is seen to run, one is.
    existing: bool,
    /// All that is known of it is what the last agent wrote.
    inherited: bool,
    /// Its state and what was told of it differ, and until when an event may yet explain it.
    suspect: Option<Time>,
    witness: Witness,
}

#[derive(Debug)]
struct Round {
    number: u64,
    stage: Stage,
    waiting: HashSet<ContainerId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Listing,
    Looking,
    /// The core compares with the store.
    Comparing,
    Repairing,
}

/// One engine's machine.
#[derive(Debug)]
pub struct Engine {
    index: EngineIndex,
    rules: Rules,
    link: Link,
    generation: Generation,
    /// The generation under which questions are asked: answers of another one are worth nothing. A renewal of the stream does not change it.
    epoch: Generation,
    /// What was asked under an older one than this was asked of threads that were told to end.
    answers_from: Generation,
    hello: Option<Box<Hello>>,
    /// The id of the engine that the last agent watched here.
    predecessor: Option<String>,
    api_version: Arc<str>,
    continuity: Continuity,
    connected_at: Time,
    down: bool,
    /// Nothing came of it since a list was asked for, or since it did not answer a ping.
    silent: bool,
    ever_up: bool,
    error: String,
    complaints: Complaints,
    backoff: Backoff,

    containers: HashMap<ContainerId, Container>,
    known: Known,
    remembered: Remembered,
    urgent: VecDeque<ContainerId>,
    background: VecDeque<ContainerId>,
    /// Containers whose inspect failed, and when they are asked for again.
    failed: VecDeque<(Time, ContainerId)>,
    /// The first document of all, where documents are kept.
    model: Option<Arc<str>>,
    /// Asks that the syncer works on, oldest first: how many of the inspects of each it has not answered. It answers them in their order.
    asks: VecDeque<usize>,
    /// When one of them was answered last, or the first was asked.
    asks_moved: Time,
    listing: Option<u64>,
    list_at: Time,
    list_complaints: Complaints,
    round: Option<Round>,
    round_wanted: bool,
    rounds: u64,
    /// Where in the interval its resyncs are due.
    place: Time,
    /// When the next one is.
    tick: Time,
    revisions: u64,
    suspects: VecDeque<(Time, ContainerId)>,
    inferred: Inferred,
    /// The first look at the engine is under way: what runs was there before us.
    baseline: bool,
    /// A gap was said, so that differences are no surprise until the round of this number has looked at everything.
    heals: Option<u64>,
    /// Until when it had its say: what it found may still be waiting to be told.
    excused_until: Time,
    last_event_ns: i64,
    counters: Counters,
}

impl Engine {
    /// An engine that nobody has asked yet; its resyncs are due at this `place` in the interval.
    pub fn new(index: EngineIndex, rules: Rules, place: Time) -> Self {
        Engine {
            index,
            rules,
            link: Link::Idle,
            generation: 0,
            answers_from: 0,
            epoch: 0,
            hello: None,
            predecessor: None,
            api_version: "".into(),
            continuity: Continuity::new(None),
            connected_at: Time::ZERO,
            down: false,
            silent: false,
            ever_up: false,
            error: String::new(),
            complaints: Complaints::default(),
            backoff: Backoff::new(Time::from_millis(200), Time::from_secs(10)),
            containers: HashMap::new(),
            known: Known::default(),
            remembered: Remembered::default(),
            urgent: VecDeque::new(),
            background: VecDeque::new(),
            failed: VecDeque::new(),
            model: None,
            asks: VecDeque::new(),
            asks_moved: Time::ZERO,
            listing: None,
            list_at: Time::ZERO,
            list_complaints: Complaints::default(),
            round: None,
            round_wanted: false,
            rounds: 0,
            place,
            tick: Time::MAX,
            revisions: 0,
            suspects: VecDeque::new(),
            inferred: Inferred::default(),
            baseline: true,
            heals: None,
            excused_until: Time::ZERO,
            last_event_ns: 0,
            counters: Counters::default(),
        }
    }

    /// Begins to watch, where a predecessor stopped or at the engine's present.
    pub fn start(&mut self, now: Time, last: Option<Predecessor>) {
        if !matches!(self.link, Link::Idle) {
            return;
        }
        self.link = Link::Waiting(now);
        let Some(last) = last else {
            return;
        };
        self.continuity = Continuity::new(last.resume_ns);
        self.predecessor = Some(last.engine_id);
        let runs = last.runs;
        let existing = self.rules.existing;
        for run in runs.iter().flatten() {
            let container = self.container(&run.id);
            if run.started_at.is_empty() {
                // It may have run, as what runs when nothing is known.
                continue;
            }
            container.told = Told::Running(Some(run.started_at.as_str().into()));
            container.existing = existing;
            container.inherited = true;
            container.facts = Some(Summary {
                name: run.name.as_str().into(),
                image: run.image.as_str().into(),
                running: true,
                started_at: run.started_at.as_str().into(),
                ..Summary::default()
            });
        }
        self.baseline = runs.is_none();
    }

    /// The file was read again, and may ask for more.
    pub fn obey(&mut self, now: Time, rules: &Rules) {
        let labels = rules.labels && !self.rules.labels;
        let documents = rules.documents && !self.rules.documents;
        self.rules = rules.clone();
        if (labels || documents) && self.is_started() {
            // What was not kept has to be looked at again.
            self.read_anew();
            self.want_round(now);
        }
    }

    /// It is watched no more: all is forgotten, and nothing that is still said of it counts.
    pub fn retire(&mut self) {
        let epoch = self.epoch + 1;
        *self = Engine {
            generation: self.generation + 1,
            epoch,
            answers_from: epoch,
            ..Engine::new(self.index, self.rules.clone(), self.place)
        };
    }

    /// It is to be reached in another way, by other threads: a new connection, to whoever answers there.
    pub fn moved(&mut self, now: Time) {
        if !self.is_started() {
            return;
        }
        if matches!(self.link, Link::Live { .. }) {
            self.continuity.ended(self.clock_ns(now));
        }
        self.generation += 1;
        self.hang_up(now);
        self.answers_from = self.epoch;
        self.asks.clear();
        self.listing = None;
        self.backoff.reset();
        self.complaints.clear();
        self.link = Link::Waiting(now);
    }

    /// Was it started?
    pub fn is_started(&self) -> bool {
        !matches!(self.link, Link::Idle)
    }

    /// What the engine said of itself, once it did.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_deref()
    }

    /// `<engine id>@<host name>`, once the engine said it.
    pub fn identity(&self) -> Option<Arc<str>> {
        let hello = self.hello.as_ref()?;
        match hello.engine_id.is_empty() {
            true => None,
            false => Some(identity(hello).into()),
        }
    }

    /// Does it answer, as far as we know?
    pub fn is_down(&self) -> bool {
        self.down
    }

    /// Why it does not.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// The stamp of the newest event.
    pub fn last_event_ns(&self) -> i64 {
        self.last_event_ns
    }

    /// Where a successor is to take up.
    pub fn resume_ns(&self) -> Option<i64> {
        self.continuity.resume_ns()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the last inspect said of a container.
    pub fn facts(&self, id: &str) -> Option<&Summary> {
        let container = self.containers.get(id)?;
        container.facts.as_ref()
    }

    /// What was said of containers lately, also of those that are gone.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// This was made up, or came late.
    pub fn note_inferred(&mut self, event: &Event) {
        self.known.inferred(event);
    }

    /// The newest change of a container that an event told of.
    pub fn revision(&self, id: &ContainerId) -> u64 {
        self.containers
            .get(id)
            .map_or(u64::MAX, |container| container.revision)
    }

    /// Is this container to be reported? One whose first inspect has not come back may be.
    pub fn reports(&self, id: &ContainerId) -> bool {
        self.containers.get(id).is_some_and(|container| {
            let facts = container.facts.as_ref();
            let shown = facts.is_none_or(|facts| facts.running || self.rules.all);
            container.member && !container.gone && shown
        })
    }

    /// Look at this container before all others; the change that an inspect has to have seen then.
    pub fn look_first(&mut self, now: Time, id: &ContainerId) -> u64 {
        self.touch(now, id)
    }

    /// The store lacks this container: look at it again.
    pub fn look_again(&mut self, now: Time, id: &ContainerId) {
        if self.containers.contains_key(id) {
            self.touch(now, id);
        }
    }

    /// The store was away when this container was looked at, or has forgotten what it was told: look at it again, after all that is more urgent.
    pub fn look_later(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.get_mut(id) {
            container.seen = None;
            self.look_in_turn(id);
        }
    }

    /// What was answered before is to be read again, even if it is the same.
    pub fn read_anew(&mut self) {
        for container in self.containers.values_mut() {
            container.seen = None;
        }
    }

    /// Does all that is due, and asks the engine what there is to ask, as far as there is `room` for the answers. `true`: there is more to ask as
    /// soon as there is room.
    pub fn settle(&mut self, now: Time, room: Room, out: &mut Vec<Outcome>) -> bool {
        if let Link::Waiting(at) = self.link
            && at <= now
        {
            self.connect(out);
        }
        if self.continuity.deadline().is_some_and(|at| at <= now)
            && self.continuity.replay_over().is_some()
        {
            let why = "the engine no longer has all events since the last one seen";
            self.gap(now, why, out);
        }
        while let Some((at, id)) = self.suspects.front().cloned()
            && at <= now
        {
            self.suspects.pop_front();
            self.infer(now, at, id, out);
        }
        if self.tick <= now {
            self.tick = self.next_place(now);
            if !self.is_live() || self.in_round() {
                out.push(Outcome::Unreachable);
            }
            self.want_round(now);
        }
        self.is_live() && self.ask(now, room, out)
    }

    fn is_live(&self) -> bool {
        matches!(self.link, Link::Live { .. })
    }

    /// From when on whatever happened has been told, if it ever is; `None` when no stream is open.
    pub fn told_by(&self) -> Option<Time> {
        match self.link {
            Link::Live { since } => Some(since + SETTLE),
            _ => None,
        }
    }

    /// When [`Engine::settle`] has something to do although nothing happened.
    pub fn deadline(&self) -> Option<Time> {
        let link = match self.link {
            Link::Waiting(at) => Some(at),
            _ => None,
        };
        let live = self.is_live();
        let list = (live && self.round_wanted && self.round.is_none() && self.listing.is_none())
            .then_some(self.list_at);
        let failed = self.failed.front().filter(|_| live).map(|(at, _)| *at);
        [
            link,
            self.continuity.deadline(),
            self.suspects.front().map(|(at, _)| *at),
            Some(self.tick).filter(|tick| *tick != Time::MAX),
            list,
            failed,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn identity(hello: &Hello) -> String {
    format!("{}@{}", hello.engine_id, hello.host_name)
}
