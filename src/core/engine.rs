//! One engine: its connection, what it runs, and what it must be asked.
//!
//! State is level-triggered: an event says "look at this container", the answer to an inspect says what is so. Lists only say where to look, and
//! which containers are gone that no event has touched since the list was asked for. Events are edge-triggered and passed on as they come; where
//! the state of a container proves that an event is missing, one is inferred, after a moment in which the real one may still arrive.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Time;
use super::backoff::{Backoff, Complaints, Random};
use super::continuity::{Continuity, Gap, Verdict};
use super::known::Known;
use super::message::{Effect, Generation, Inspected, Level, StreamEnd};
use crate::model::{ContainerId, Document, EngineIndex, Event, Hello, Row, Summary};
use crate::store::FoundRun;

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
}

/// What follows from an input, beside effects; the core passes it on.
#[derive(Debug)]
pub enum Outcome {
    /// To be done.
    Effect(Effect),
    /// This container is so, or is not to be reported.
    State(ContainerId, Option<Arc<Document>>, u64),
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
    Connecting {
        renewal: bool,
    },
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
    /// There is no such container any more; the facts are its last ones.
    gone: bool,
    member: bool,
    told: Told,
    /// The revision of its last start or end: what was asked before says nothing of whether one of them is missing.
    told_at: u64,
    /// It may have been there before us: that it runs is no surprise.
    old: bool,
    /// Its state and what was told of it differ, and until when an event may yet explain it.
    suspect: Option<Time>,
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
    /// The generation under which questions are asked; a renewal of the stream does not change it.
    epoch: Generation,
    hello: Option<Box<Hello>>,
    /// The id of the engine that the last agent watched here.
    predecessor: Option<String>,
    api_version: Arc<str>,
    continuity: Continuity,
    connected_at: Time,
    down: bool,
    ever_up: bool,
    error: String,
    complaints: Complaints,
    backoff: Backoff,

    containers: HashMap<ContainerId, Container>,
    known: Known,
    urgent: VecDeque<ContainerId>,
    background: VecDeque<ContainerId>,
    /// Containers whose inspect failed, and when they are asked for again.
    failed: VecDeque<(Time, ContainerId)>,
    /// Asks that the syncer works on, oldest first: how many of the inspects of each it has not answered. It answers them in their order.
    asks: VecDeque<usize>,
    listing: Option<u64>,
    list_at: Time,
    list_complaints: Complaints,
    round: Option<Round>,
    round_wanted: bool,
    rounds: u64,
    tick: Time,
    revisions: u64,
    suspects: VecDeque<(Time, ContainerId)>,
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
    /// An engine that nobody has asked yet.
    pub fn new(index: EngineIndex, rules: Rules) -> Self {
        Engine {
            index,
            rules,
            link: Link::Idle,
            generation: 0,
            epoch: 0,
            hello: None,
            predecessor: None,
            api_version: "".into(),
            continuity: Continuity::new(None),
            connected_at: Time::ZERO,
            down: false,
            ever_up: false,
            error: String::new(),
            complaints: Complaints::default(),
            backoff: Backoff::new(Time::from_millis(200), Time::from_secs(10)),
            containers: HashMap::new(),
            known: Known::default(),
            urgent: VecDeque::new(),
            background: VecDeque::new(),
            failed: VecDeque::new(),
            asks: VecDeque::new(),
            listing: None,
            list_at: Time::ZERO,
            list_complaints: Complaints::default(),
            round: None,
            round_wanted: false,
            rounds: 0,
            tick: Time::MAX,
            revisions: 0,
            suspects: VecDeque::new(),
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
        for run in runs.iter().flatten() {
            let container = self.container(&run.id);
            container.told = Told::Running(Some(run.started_at.as_str().into()));
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
        self.containers
            .get(&ContainerId::from(id))
            .and_then(|container| container.facts.as_ref())
    }

    /// What was said of containers lately, also of those that are gone.
    pub fn known(&self) -> &Known {
        &self.known
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

    /// The store lacks this container: look at it again.
    pub fn look_again(&mut self, now: Time, id: &ContainerId) {
        if self.containers.contains_key(id) {
            self.touch(now, id);
        }
    }

    // ---- the connection

    /// The reader opened a stream.
    pub fn connected(
        &mut self,
        now: Time,
        generation: Generation,
        hello: Box<Hello>,
        out: &mut Vec<Outcome>,
    ) {
        if generation != self.generation {
            return;
        }
        let renewal = matches!(self.link, Link::Connecting { renewal: true });
        let predecessor = self.predecessor.take().unwrap_or_default();
        let replaced = match &self.hello {
            // An engine need not say who it is.
            Some(old) if old.engine_id.is_empty() || hello.engine_id.is_empty() => false,
            Some(old) => identity(old) != identity(&hello),
            None => !predecessor.is_empty() && predecessor != hello.engine_id,
        };
        self.link = Link::Live { since: now };
        self.connected_at = now;
        self.api_version = hello.api_version.as_str().into();
        let clock_ns = hello.clock_ns;
        self.hello = Some(hello);
        if replaced {
            self.forget_all();
            self.continuity = Continuity::new(Some(clock_ns));
            out.push(Outcome::Replaced);
        }
        self.continuity.connected(now, clock_ns, renewal);
        if !renewal || replaced {
            self.epoch = generation;
            self.ask_anew();
            self.counters.reconnects += u64::from(self.ever_up);
            self.want_round(now);
            self.tick = now + self.rules.interval;
        }
        if self.down || !self.ever_up {
            self.down = false;
            self.ever_up = true;
            self.error.clear();
            self.complaints.clear();
            out.push(Outcome::Up);
        }
    }

    /// The stream is over, or was never opened.
    pub fn disconnected(
        &mut self,
        now: Time,
        generation: Generation,
        end: StreamEnd,
        random: &mut Random,
        out: &mut Vec<Outcome>,
    ) {
        if generation != self.generation {
            return;
        }
        let lived = match self.link {
            Link::Live { since } => Some(now.saturating_sub(since)),
            _ => None,
        };
        if let Some(lived) = lived {
            self.continuity.ended(now, self.clock_ns(now));
            if lived >= GOOD {
                self.backoff.reset();
                self.complaints.clear();
            }
        }
        if end == StreamEnd::Renewal && lived.is_some() {
            self.connect(true, out);
            return;
        }
        // Whatever was asked on the dead connection is asked again on the next.
        self.epoch = 0;
        self.round = None;
        self.tick = self.tick.min(now + self.rules.interval);
        let delay = match (&end, lived) {
            (StreamEnd::Closed, Some(_)) => AFTER_CLOSE.max(self.backoff.next(random)),
            (_, Some(lived)) if lived >= GOOD => Time::ZERO,
            _ => self.backoff.next(random),
        };
        self.link = Link::Waiting(now + delay);
        let (what, level) = match end {
            StreamEnd::Renewal | StreamEnd::Closed => {
                ("the engine closed the event stream".to_owned(), Level::Info)
            }
            StreamEnd::Silent => (
                "nothing came on the event stream for longer than it was to last".to_owned(),
                Level::Warn,
            ),
            StreamEnd::Failed(error) => (error, Level::Warn),
        };
        self.error.clone_from(&what);
        if self.complaints.is_new(&what) {
            out.push(Outcome::Effect(Effect::Log(level, what)));
        }
        if lived.is_none() && !self.down {
            self.down = true;
            out.push(Outcome::Down);
        }
    }

    /// The inbox lost events of this engine.
    pub fn overrun(&mut self, now: Time, out: &mut Vec<Outcome>) {
        self.continuity.heal(self.clock_ns(now));
        self.gap(now, "events came faster than they could be taken", out);
    }

    fn gap(&mut self, now: Time, why: &str, out: &mut Vec<Outcome>) {
        self.counters.gaps += 1;
        self.heals = Some(self.rounds + 1);
        self.want_round(now);
        out.push(Outcome::Gap(why.to_owned()));
    }

    fn connect(&mut self, renewal: bool, out: &mut Vec<Outcome>) {
        self.generation += 1;
        self.link = Link::Connecting { renewal };
        out.push(Outcome::Effect(Effect::Connect {
            engine: self.index,
            generation: self.generation,
            since: self.continuity.since(),
        }));
    }

    /// The engine's clock as far as we know it.
    fn clock_ns(&self, now: Time) -> i64 {
        let clock_ns = self.hello.as_ref().map_or(0, |hello| hello.clock_ns);
        clock_ns + now.saturating_sub(self.connected_at).as_nanos() as i64
    }

    /// Another engine answers: whatever was known is gone, and nothing may be inferred from it.
    fn forget_all(&mut self) {
        self.containers.clear();
        self.known = Known::default();
        self.urgent.clear();
        self.background.clear();
        self.failed.clear();
        self.suspects.clear();
        self.round = None;
        self.baseline = true;
    }

    // ---- events

    /// The stream told an event.
    pub fn event(
        &mut self,
        now: Time,
        generation: Generation,
        event: Event,
        out: &mut Vec<Outcome>,
    ) {
        if generation != self.generation {
            return;
        }
        let (verdict, gap) = self.continuity.judge(&event);
        if gap == Some(Gap::Dropped) {
            self.gap(now, "the engine dropped events although we listened", out);
        }
        if verdict == Verdict::Seen {
            return;
        }
        self.counters.events += 1;
        self.last_event_ns = event.time_ns;
        let container = event.container().map(ContainerId::from);
        let noise = event.is_noise();
        let mut revision = 0;
        if let Some(id) = container.filter(|id| !noise && !id.as_str().is_empty()) {
            revision = self.touch(now, &id);
            let told = match (&*event.kind, event.verb()) {
                // Nobody is told it; what was told before stands.
                _ if verdict == Verdict::Old => None,
                ("container", "start") => Some(Told::Running(None)),
                ("container", "die") => Some(Told::Nothing),
                _ => None,
            };
            let container = self.container(&id);
            let facts = container.facts.as_ref();
            let labels_lie = facts.is_some_and(|facts| facts.labels_lie);
            if let Some(told) = told {
                container.told = told;
                container.told_at = revision;
                container.old = false;
                // Whether that was all, the next look will tell.
                container.suspect = None;
            }
            if &*event.kind == "container" {
                self.known.heard(&id, &event, revision, labels_lie);
            }
        }
        if verdict != Verdict::Old {
            out.push(Outcome::Event {
                event: Arc::new(event),
                inferred: verdict == Verdict::Late,
                revision,
            });
        }
    }

    /// Look at this container, before all that only a resync wants.
    fn touch(&mut self, now: Time, id: &ContainerId) -> u64 {
        self.revisions += 1;
        let revision = self.revisions;
        let container = self.container(id);
        container.revision = revision;
        container.touched = Some(now);
        match &mut container.look {
            Look::Asked { again } | Look::Slow { again } => *again = true,
            Look::Queued { urgent: true } => {}
            look => {
                *look = Look::Queued { urgent: true };
                self.urgent.push_back(id.clone());
            }
        }
        revision
    }

    /// Look at this container once more, before all that only a resync wants.
    fn look_soon(&mut self, id: &ContainerId) {
        let container = self.container(id);
        if container.look == Look::Idle {
            container.look = Look::Queued { urgent: true };
            self.urgent.push_back(id.clone());
        }
    }

    /// What the dead connection was asked is asked anew: its answers come to nothing.
    fn ask_anew(&mut self) {
        let mut asked = Vec::new();
        for (id, container) in &mut self.containers {
            if matches!(container.look, Look::Asked { .. } | Look::Slow { .. }) {
                container.look = Look::Queued { urgent: true };
                asked.push(id.clone());
            }
        }
        asked.sort_unstable();
        self.urgent.extend(asked);
    }

    /// Look at this container when nothing more urgent is to be looked at.
    fn look_in_turn(&mut self, id: &ContainerId) {
        let container = self.container(id);
        if container.look == Look::Idle {
            container.look = Look::Queued { urgent: false };
            self.background.push_back(id.clone());
        }
    }

    fn container(&mut self, id: &ContainerId) -> &mut Container {
        let old = self.baseline;
        self.containers
            .entry(id.clone())
            .or_insert_with(|| Container {
                look: Look::Idle,
                revision: 0,
                touched: None,
                asked: 0,
                facts: None,
                gone: false,
                member: true,
                told: Told::Nothing,
                told_at: 0,
                old,
                suspect: None,
            })
    }

    // ---- resyncs

    /// A full resync is due, as soon as the one under way is over.
    pub fn want_round(&mut self, now: Time) {
        if !self.round_wanted {
            self.round_wanted = true;
            self.list_at = self.list_at.max(now);
        }
    }

    /// A list was answered.
    pub fn listed(
        &mut self,
        now: Time,
        generation: Generation,
        result: Result<Vec<Row>, String>,
        out: &mut Vec<Outcome>,
    ) {
        let Some(asked) = self.listing.take() else {
            return;
        };
        if generation != self.epoch {
            self.round = None;
            return self.want_round(now);
        }
        let rows = match result {
            Ok(rows) => rows,
            Err(error) => {
                self.round = None;
                self.want_round(now);
                self.list_at = now + ASK_AGAIN;
                if self.list_complaints.is_new(&error) {
                    out.push(Outcome::Effect(Effect::Log(Level::Warn, error)));
                }
                return;
            }
        };
        self.list_complaints.clear();
        let listed: HashSet<&ContainerId> = rows.iter().map(|row| &row.id).collect();
        // Lists are made without the containers' locks: one that an event touched a moment before may be missing although it is there.
        let recent = |container: &Container| container.touched.is_some_and(|at| at + SETTLE > now);
        let mut missing: Vec<(ContainerId, bool)> = self
            .containers
            .iter()
            .filter(|(id, container)| container.revision <= asked && !listed.contains(id))
            .map(|(id, container)| (id.clone(), recent(container)))
            .collect();
        missing.sort_unstable();
        let mut waiting = HashSet::new();
        for (id, recent) in missing {
            match recent {
                true => self.look_in_turn(&id),
                false => self.gone(now, &id, 0, out),
            }
        }
        for row in &rows {
            let container = self.container(&row.id);
            if container.revision <= asked {
                container.member = row.member;
            }
            if !matches!(container.look, Look::Slow { .. }) {
                waiting.insert(row.id.clone());
            }
            self.look_in_turn(&row.id);
        }
        if let Some(round) = &mut self.round {
            round.stage = Stage::Looking;
            round.waiting = waiting;
        }
        self.looked(now, out);
    }

    /// These containers' documents are to be written again, although they did not change.
    pub fn repair(&mut self, now: Time, ids: &[ContainerId], out: &mut Vec<Outcome>) {
        let mut waiting = HashSet::new();
        for id in ids {
            self.look_in_turn(id);
            if !matches!(self.container(id).look, Look::Slow { .. }) {
                waiting.insert(id.clone());
            }
        }
        match &mut self.round {
            Some(round) if round.stage == Stage::Comparing => {
                round.stage = Stage::Repairing;
                round.waiting = waiting;
                self.looked(now, out);
            }
            _ => {}
        }
    }

    /// The round has nothing more to ask: it is over as far as the engine is concerned.
    pub fn end_round(&mut self, now: Time, random: &mut Random) {
        self.round = None;
        self.plan(now, random);
    }

    /// The round's work with the engine is done, and what is left of it is the store's.
    pub fn waits_for_store(&self) -> bool {
        self.round.as_ref().is_some_and(|round| {
            matches!(round.stage, Stage::Comparing | Stage::Repairing) && round.waiting.is_empty()
        })
    }

    /// The round under way; each has its own number.
    pub fn round(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.number)
    }

    /// Is a resync under way?
    pub fn in_round(&self) -> bool {
        self.round.is_some() || self.round_wanted
    }

    fn plan(&mut self, now: Time, random: &mut Random) {
        let interval = self.rules.interval;
        self.tick = now + random.between(interval - interval / 10, interval);
    }

    fn looked(&mut self, now: Time, out: &mut Vec<Outcome>) {
        let Some(round) = &mut self.round else {
            return;
        };
        if !round.waiting.is_empty() {
            return;
        }
        match round.stage {
            Stage::Looking => {
                round.stage = Stage::Comparing;
                self.counters.resyncs += 1;
                self.baseline = false;
                if self.heals.is_some_and(|heals| heals <= round.number) {
                    self.heals = None;
                    self.excused_until = now + SETTLE;
                }
                out.push(Outcome::Looked);
            }
            Stage::Repairing => out.push(Outcome::Repaired),
            Stage::Listing | Stage::Comparing => {}
        }
    }

    // ---- inspects

    /// An inspect was answered, or moved out of the way.
    pub fn inspected(
        &mut self,
        now: Time,
        generation: Generation,
        id: &ContainerId,
        by_slow: bool,
        result: Inspected,
        out: &mut Vec<Outcome>,
    ) {
        if !by_slow {
            self.answered();
        }
        // What was asked on a dead connection has been asked for anew.
        if generation != self.epoch {
            return;
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let mut again = match container.look {
            Look::Asked { again } if !by_slow => again,
            Look::Slow { again } if by_slow => again,
            _ => return,
        };
        let asked = container.asked;
        container.look = Look::Idle;
        // It is not forgotten before it was asked for again.
        let failed = matches!(result, Inspected::Failed(_));
        match result {
            Inspected::Slow => {
                container.look = Look::Slow { again };
                again = false;
            }
            Inspected::Failed(error) => {
                out.push(Outcome::Effect(Effect::Log(Level::Debug, error)));
                self.failed.push_back((now + ASK_AGAIN, id.clone()));
            }
            Inspected::Found { document, member } => {
                self.found(now, id, asked, document, member, out);
            }
            Inspected::Gone => self.gone(now, id, asked, out),
        }
        if again {
            self.look_soon(id);
        } else if !failed {
            self.tidy(id);
        }
        if let Some(round) = &mut self.round
            && round.waiting.remove(id)
        {
            self.looked(now, out);
        }
    }

    /// One inspect of the oldest ask was answered: the syncer goes through them in order.
    fn answered(&mut self) {
        if let Some(left) = self.asks.front_mut() {
            *left -= 1;
            if *left == 0 {
                self.asks.pop_front();
            }
        }
    }

    fn found(
        &mut self,
        now: Time,
        id: &ContainerId,
        asked: u64,
        document: Arc<Document>,
        member: Option<bool>,
        out: &mut Vec<Outcome>,
    ) {
        let all = self.rules.all;
        self.known.seen(id, asked, &document.summary);
        let container = self.container(id);
        container.gone = false;
        container.member = member.unwrap_or(container.member);
        container.facts = Some(document.summary.clone());
        let running = document.summary.running;
        let started = &document.summary.started_at;
        let strange = match (&container.told, running) {
            _ if asked < container.told_at => false,
            (Told::Running(Some(told)), true) => told != started,
            (Told::Running(None), true) => {
                container.told = Told::Running(Some(started.clone()));
                false
            }
            (Told::Nothing, true) if container.old => {
                container.told = Told::Running(Some(started.clone()));
                false
            }
            (Told::Nothing, true) | (Told::Running(_), false) => true,
            (Told::Nothing, false) => false,
        };
        container.old = false;
        let report = container.member && (running || all);
        if strange {
            self.suspect(now, id);
        } else {
            container.suspect = None;
        }
        out.push(Outcome::State(
            id.clone(),
            report.then_some(document),
            asked,
        ));
    }

    fn gone(&mut self, now: Time, id: &ContainerId, asked: u64, out: &mut Vec<Outcome>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let Some(facts) = &mut container.facts {
            facts.running = false;
        }
        container.gone = true;
        match container.told {
            Told::Nothing => container.suspect = None,
            Told::Running(_) => self.suspect(now, id),
        }
        out.push(Outcome::State(id.clone(), None, asked));
        self.tidy(id);
    }

    /// Drops what need not be remembered: neither running, nor asked for, nor suspected.
    fn tidy(&mut self, id: &ContainerId) {
        let all = self.rules.all;
        let idle = |container: &Container| {
            let facts = container.facts.as_ref();
            let stopped = facts.is_none_or(|facts| !facts.running);
            container.look == Look::Idle
                && stopped
                && !(all && facts.is_some() && !container.gone)
                && container.suspect.is_none()
                && container.told == Told::Nothing
        };
        if self.containers.get(id).is_some_and(idle) {
            self.containers.remove(id);
        }
    }

    // ---- what no event told

    fn suspect(&mut self, now: Time, id: &ContainerId) {
        let container = self.container(id);
        if container.suspect.is_none() {
            container.suspect = Some(now + SETTLE);
            self.suspects.push_back((now + SETTLE, id.clone()));
        }
    }

    /// The moment is over in which the event might still have come.
    fn infer(&mut self, now: Time, at: Time, id: ContainerId, out: &mut Vec<Outcome>) {
        let clock_ns = self.clock_ns(now);
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        if container.suspect != Some(at) {
            // An event explained it.
            return;
        }
        container.suspect = None;
        if container.look != Look::Idle {
            return self.suspect(now, &id);
        }
        let facts = container.facts.clone().unwrap_or_default();
        let actions: &[&str] = match (&container.told, facts.running) {
            (Told::Nothing, true) => &["start"],
            (Told::Running(_), false) => &["die"],
            (Told::Running(Some(told)), true) if *told != facts.started_at => &["die", "start"],
            _ => &[],
        };
        container.told = match facts.running {
            true => Told::Running(Some(facts.started_at.clone())),
            false => Told::Nothing,
        };
        let excused = self.heals.is_some() || now <= self.excused_until;
        if !actions.is_empty() && !excused {
            self.counters.drift += 1;
            self.gap(now, "a resync found what no event had told", out);
        }
        for action in actions {
            out.push(Outcome::Event {
                event: Arc::new(inferred(&id, action, &facts, clock_ns)),
                inferred: true,
                revision: 0,
            });
        }
        self.tidy(&id);
    }

    // ---- time

    /// Does all that is due, and asks the engine what there is to ask, as far as there is `room` for the answers. `true`: there is more to ask as
    /// soon as there is room.
    pub fn settle(&mut self, now: Time, room: Room, out: &mut Vec<Outcome>) -> bool {
        if let Link::Waiting(at) = self.link
            && at <= now
        {
            self.connect(false, out);
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
            self.tick = now + self.rules.interval;
            if !self.is_live() || self.in_round() {
                out.push(Outcome::Unreachable);
            }
            self.want_round(now);
        }
        self.is_live() && self.ask(now, room, out)
    }

    fn is_live(&self) -> bool {
        self.epoch != 0
            && matches!(
                self.link,
                Link::Live { .. } | Link::Connecting { renewal: true }
            )
    }

    fn ask(&mut self, now: Time, room: Room, out: &mut Vec<Outcome>) -> bool {
        if self.round_wanted
            && self.round.is_none()
            && self.listing.is_none()
            && self.list_at <= now
        {
            self.round_wanted = false;
            self.listing = Some(self.revisions);
            // A gap that is told from now on is not healed by this list.
            self.list_at = now + ASK_AGAIN;
            self.rounds += 1;
            self.round = Some(Round {
                number: self.rounds,
                stage: Stage::Listing,
                waiting: HashSet::new(),
            });
            out.push(Outcome::Effect(Effect::List {
                engine: self.index,
                generation: self.epoch,
                api_version: self.api_version.clone(),
            }));
        }
        while let Some((at, id)) = self.failed.front().cloned()
            && at <= now
        {
            self.failed.pop_front();
            self.touch(now, &id);
        }
        // Two asks at the most: one that is being worked on, and one of touched containers behind it.
        while self.asks.is_empty() || (self.asks.len() < 2 && !self.urgent.is_empty()) {
            let urgent = !self.urgent.is_empty();
            if room == Room::None || (room == Room::Urgent && !urgent) {
                return urgent || !self.background.is_empty();
            }
            let ids = self.next_ids(urgent);
            if ids.is_empty() && !urgent {
                break;
            }
            if ids.is_empty() {
                continue;
            }
            self.asks.push_back(ids.len());
            out.push(Outcome::Effect(Effect::Inspect {
                engine: self.index,
                generation: self.epoch,
                api_version: self.api_version.clone(),
                ids,
                check_filters: urgent && self.rules.filtered,
            }));
        }
        false
    }

    fn next_ids(&mut self, urgent: bool) -> Vec<ContainerId> {
        let mut ids = Vec::new();
        let queue = match urgent {
            true => &mut self.urgent,
            false => &mut self.background,
        };
        while ids.len() < ASK
            && let Some(id) = queue.pop_front()
        {
            if let Some(container) = self.containers.get_mut(&id)
                && container.look == (Look::Queued { urgent })
            {
                container.look = Look::Asked { again: false };
                container.asked = container.revision;
                ids.push(id);
            }
        }
        ids
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

fn inferred(id: &ContainerId, action: &str, facts: &Summary, time_ns: i64) -> Event {
    let mut attributes = vec![
        ("image".into(), (&*facts.image).into()),
        ("name".into(), (&*facts.name).into()),
    ];
    if action == "die" && !facts.running && facts.exit_code != 0 {
        attributes.push(("exitCode".into(), facts.exit_code.to_string().into()));
    }
    Event {
        kind: "container".into(),
        action: action.into(),
        id: id.as_str().into(),
        attributes,
        time_ns,
    }
}
