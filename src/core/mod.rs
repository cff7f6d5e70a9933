//! The one place where decisions are made: a pure machine that takes one [`Input`] at a time and hands out [`Effect`]s.
//!
//! No socket, no clock, no thread, no file, no logger: time is an argument, everything else an effect. The way of an event: `engine` judges it and
//! says which container to look at; the answer to that look goes into the host's `outbox`, the event itself to `rules`, which find the entries it
//! triggers, and so into `jobs`; `link` decides what the store is asked next. [`Core::step`] takes in what happened; [`Core::settle`], called once
//! after a burst of steps, does what follows from it and from the time.

pub mod backoff;
mod commands;
pub mod continuity;
mod cutoff;
pub mod engine;
pub mod environment;
mod handling;
mod hosts;
pub mod input;
pub mod jobs;
pub mod known;
pub mod lasting;
pub mod link;
pub mod message;
pub mod outbox;
mod reload;
pub mod rules;
mod selfcheck;
mod store;
pub mod tell;
#[cfg(test)]
mod tests;
mod undecided;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{self, Address, EngineIndex, Entry};
use crate::store::Happening;

use backoff::Random;
use engine::{Engine, Outcome, Room};
use jobs::Jobs;
use lasting::Lasting;
use link::Link;
use outbox::Outbox;
use rules::Rules;
use selfcheck::Selfcheck;
use undecided::Undecided;

pub use message::{
    Effect, Generation, Input, Inspected, Inspection, Level, Reload, Since, StoreReply,
    StoreRequest, StreamEnd, Unlisted,
};

/// Time since the process started, by a clock that never goes back.
pub type Time = std::time::Duration;

/// Documents that wait for the store may take so many bytes; beyond, their containers are inspected later, or again.
const BUDGET: usize = 32 << 20;

/// A resync may be so far ahead of the store: enough that the store never waits for it.
const AHEAD: usize = 1 << 20;

/// So many answers to inspects may be on their way, all engines together: a thousand engines that are looked at all at once would fill the memory.
const EXPECTED: usize = 256;

/// How long engines wait at the start for the store to say where the last agent stopped.
const WAIT_FOR_STORE: Time = Time::from_secs(2);

/// How long the store may take to take the leases back at the end.
const RELEASE: Time = Time::from_millis(700);

/// What the machine is told at its birth.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engines, by their index.
    pub engines: Vec<model::Engine>,
    /// The cache, unless it is switched off.
    pub cache: Option<CacheSettings>,
    /// The entries of `events.yml`; `None` without a file.
    pub entries: Option<Vec<Arc<Entry>>>,
    /// The most commands at once.
    pub workers: usize,
    /// Time between two resyncs.
    pub interval: Time,
    /// How far back a successor takes up where the last agent stopped.
    pub replay_max_age: Time,
    /// Names this process in the ids of its runs: 8 hex digits.
    pub boot: String,
    /// This program's version, for the host's hash.
    pub version: &'static str,
    /// For jitter.
    pub seed: u64,
    /// This machine's clock at the time 0, in ns since 1970: for events of an engine that has never told its own.
    pub clock_ns: i64,
}

/// What the machine has to know of the cache.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// Stopped containers are reported as well.
    pub all: bool,
    /// Lists are filtered.
    pub filtered: bool,
    /// Compare with what the events told, and read every document back.
    pub selfcheck: bool,
    /// How long the containers of an engine that is down stay.
    pub forget_after: Time,
}

/// One engine with what the core keeps beside it.
#[derive(Debug)]
struct Site {
    index: EngineIndex,
    name: Arc<str>,
    url: Arc<str>,
    address: Address,
    engine: Engine,
    outbox: Outbox,
    /// Containers whose documents were too much to be kept for a store that is away.
    postponed: BTreeSet<model::ContainerId>,
    /// It left the file: nothing is asked of it until it comes back, and only then is its slot used again.
    retired: bool,
    /// It was in the file before: what ran when its host was written last runs on.
    back: bool,
    /// It is watched at another address than before, and has not answered there.
    moved: bool,
    /// Until when it waits for the store to say where the last agent stopped; known once it is settled.
    start_at: Option<Time>,
    /// When it ceased to answer.
    down_since: Option<Time>,
    /// A full report of this tenancy was written.
    reported: bool,
    /// When the day of the shared sets was last renewed.
    shared_at: Time,
    /// When the host was taken: what it wrote, it wrote since.
    taken_at: Time,
    resume_ns: Option<i64>,
    selfcheck: Option<Selfcheck>,
    /// Another engine took the place of the one that was watched at first.
    replaced: bool,
    /// The round whose end waits to be written.
    closing: Option<u64>,
    /// A round ended without the store, which was away.
    unchecked: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    random: Random,
    sites: Vec<Site>,
    link: Option<Link>,
    rules: Rules,
    jobs: Jobs,
    undecided: Undecided,
    lasting: Lasting,
    /// Bytes of documents that wait for the store, all hosts together.
    waiting_bytes: usize,
    /// Engines that something happened to since they were settled last.
    woken: BTreeSet<EngineIndex>,
    /// Engines that have more to ask as soon as there is room for the answers.
    starved: BTreeSet<EngineIndex>,
    /// Which of them is next.
    next_starved: EngineIndex,
    /// When there may be room although nothing happened.
    room_at: Option<Time>,
    /// There was room for nothing.
    full: bool,
    /// Hosts with something to write.
    writable: BTreeSet<EngineIndex>,
    /// Whose turn it is.
    next_host: EngineIndex,
    /// Until when what is to be written waits for more.
    gather_until: Option<Time>,
    /// How soon the store is told of commands.
    pace: store::Pace,
    /// It was settled once.
    begun: bool,
    status: String,
    /// Something changed that the status line tells of.
    status_stale: bool,
    stopping: Option<Stopping>,
}

#[derive(Debug)]
struct Stopping {
    release_by: Time,
    released: bool,
    said: bool,
}

impl Settings {
    /// What an engine's machine is told of them.
    fn rules(&self) -> engine::Rules {
        let cache = self.cache.as_ref();
        let mut entries = self.entries.iter().flatten();
        engine::Rules {
            interval: self.interval,
            all: cache.is_some_and(|cache| cache.all),
            filtered: cache.is_some_and(|cache| cache.filtered),
            labels: entries.clone().any(|entry| entry.asks_for_labels()),
            existing: entries.clone().any(|entry| entry.existing),
            documents: entries.any(|entry| entry.command.is_some()),
        }
    }
}

impl Site {
    fn new(
        index: EngineIndex,
        engine: &model::Engine,
        settings: &Settings,
        random: &mut Random,
    ) -> Self {
        let cache = settings.cache.as_ref();
        let place = random.between(Time::ZERO, settings.interval);
        Site {
            index,
            name: engine.name.clone(),
            url: engine.url.clone(),
            address: engine.address.clone(),
            engine: Engine::new(index, settings.rules(), place),
            outbox: Outbox::new(index),
            postponed: BTreeSet::new(),
            retired: false,
            back: false,
            moved: false,
            start_at: None,
            down_since: None,
            reported: false,
            shared_at: Time::ZERO,
            taken_at: Time::ZERO,
            resume_ns: None,
            selfcheck: cache
                .filter(|cache| cache.selfcheck)
                .map(|_| Selfcheck::default()),
            replaced: false,
            closing: None,
            unchecked: false,
        }
    }
}

impl Core {
    /// The machine at rest; the first [`Core::settle`] starts it.
    pub fn new(settings: Settings) -> Self {
        let entries = settings.entries.clone().unwrap_or_default();
        let cache = settings.cache.as_ref();
        let mut random = Random::new(settings.seed);
        let sites: Vec<Site> = settings
            .engines
            .iter()
            .enumerate()
            .map(|(index, engine)| {
                Site::new(EngineIndex(index as u32), engine, &settings, &mut random)
            })
            .collect();
        Core {
            random,
            link: cache.map(|_| Link::new(sites.len(), settings.interval)),
            rules: Rules::new(&entries),
            jobs: Jobs::new(&entries, settings.workers, settings.replay_max_age),
            undecided: Undecided::default(),
            lasting: Lasting::default(),
            waiting_bytes: 0,
            woken: (0..sites.len() as u32).map(EngineIndex).collect(),
            starved: BTreeSet::new(),
            next_starved: EngineIndex(0),
            room_at: None,
            full: false,
            writable: BTreeSet::new(),
            next_host: EngineIndex(0),
            gather_until: None,
            pace: store::Pace::default(),
            begun: false,
            status: String::new(),
            status_stale: true,
            stopping: None,
            sites,
            settings,
        }
    }

    /// Takes in what happened.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let mut out = Vec::new();
        let index = match &input {
            Input::Connected { engine, .. }
            | Input::Event { engine, .. }
            | Input::Disconnected { engine, .. }
            | Input::Overrun { engine }
            | Input::Listed { engine, .. }
            | Input::Unanswered { engine, .. }
            | Input::Inspected { engine, .. } => *engine,
            Input::Stored(_)
            | Input::Ended { .. }
            | Input::Reload(_)
            | Input::Report
            | Input::Stop => EngineIndex(0),
        };
        let engine = &mut self.sites[index.at()].engine;
        let connected = matches!(input, Input::Connected { .. });
        match input {
            Input::Connected {
                generation, hello, ..
            } => engine.connected(now, generation, hello, &mut out),
            Input::Event {
                generation, event, ..
            } => engine.event(now, generation, event, &mut out),
            Input::Disconnected {
                generation, end, ..
            } => engine.disconnected(now, generation, end, &mut self.random, &mut out),
            Input::Overrun { .. } => engine.overrun(now, &mut out),
            Input::Listed {
                generation, result, ..
            } => engine.listed(now, generation, result, &mut out),
            Input::Unanswered {
                generation, error, ..
            } => engine.unanswered(now, generation, error, &mut out),
            Input::Inspected {
                generation,
                id,
                by_slow,
                result,
                ..
            } => engine.inspected(now, generation, &id, by_slow, result, &mut out),
            Input::Stored(reply) => return self.stored(now, reply, effects),
            Input::Ended { job, run } => return self.ended(now, job, run, effects),
            Input::Reload(reload) => return self.reload(now, *reload, effects),
            Input::Report => return self.report(effects),
            Input::Stop => return self.stop(now, effects),
        }
        self.woken.insert(index);
        self.follow(now, index, out, effects);
        if connected {
            self.sites[index.at()].moved = false;
        }
    }

    /// Does what follows from the steps before and from the time.
    pub fn settle(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.stopping.is_none() {
            self.start_engines(now, effects);
            let room = self.room();
            // Where there was room for nothing, some have more to ask than a resync wants to know.
            if std::mem::replace(&mut self.full, room == Room::None) && !self.full {
                self.woken.append(&mut self.starved);
            }
            let due: Vec<EngineIndex> = (0..self.sites.len() as u32)
                .map(EngineIndex)
                .filter(|index| {
                    self.woken.contains(index)
                        || self.sites[index.at()]
                            .engine
                            .deadline()
                            .is_some_and(|at| at <= now)
                })
                .collect();
            self.woken.clear();
            let expected = self.sites.iter().map(|site| site.engine.expected(now));
            let mut expected = expected.sum();
            for index in due {
                self.settle_engine(now, index, room, &mut expected, effects);
            }
            while room == Room::All
                && expected < EXPECTED
                && let Some(index) = self.pop_starved()
            {
                self.settle_engine(now, index, room, &mut expected, effects);
            }
            let waits = room == Room::All && !self.starved.is_empty();
            self.room_at = waits.then_some(now + engine::STUCK);
            self.decide_due(now, effects);
            self.tell_lasting(now, effects);
            self.forget_lost_engines(now, effects);
            self.tell_doubts(now, effects);
        }
        while let Some(job) = self.jobs.start(now) {
            self.begin(job, effects);
        }
        self.tell_jobs(effects);
        self.ask_store(now, effects);
        self.say_status(effects);
        self.finish(now, effects);
    }

    /// Settles one engine; `expected` is how many answers are on their way, all engines together.
    fn settle_engine(
        &mut self,
        now: Time,
        index: EngineIndex,
        room: Room,
        expected: &mut usize,
        effects: &mut Vec<Effect>,
    ) {
        let room = match room {
            Room::All if *expected >= EXPECTED => Room::Urgent,
            room => room,
        };
        let mut out = Vec::new();
        let engine = &mut self.sites[index.at()].engine;
        *expected -= engine.expected(now);
        if engine.settle(now, room, &mut out) {
            self.starved.insert(index);
        }
        *expected += engine.expected(now);
        self.follow(now, index, out, effects);
    }

    /// The next engine that has more to ask; they take turns.
    fn pop_starved(&mut self) -> Option<EngineIndex> {
        let after = self.starved.range(self.next_starved..).next();
        let index = *after.or(self.starved.first())?;
        self.starved.remove(&index);
        self.next_starved = EngineIndex(index.0 + 1);
        Some(index)
    }

    /// When [`Core::settle`] has something to do although nothing happened.
    pub fn deadline(&self) -> Option<Time> {
        let engines = self.sites.iter().filter_map(|site| {
            let forget = self.forget_at(site);
            let check = site.selfcheck.as_ref();
            let check = check.and_then(|check| check.deadline(site.engine.told_by()));
            [site.engine.deadline(), forget, check]
                .into_iter()
                .flatten()
                .min()
        });
        let idle = self.watched().filter(|site| !site.engine.is_started());
        let start = idle.filter_map(|site| site.start_at);
        let stop = self.stopping.as_ref().filter(|stop| !stop.released);
        let asks = self.link.as_ref().is_some_and(Link::is_free);
        let once = self.jobs.ask_at().filter(|_| asks);
        let gather = self.gather_until.filter(|_| asks);
        engines
            .chain(start)
            .chain(self.undecided.deadline())
            .chain(gather)
            .chain(self.room_at)
            .filter(|_| self.stopping.is_none())
            .chain(self.link.as_ref().and_then(Link::deadline))
            .chain(self.jobs.deadline())
            .chain(self.lasting.deadline())
            .chain(once)
            .chain(stop.map(|stop| stop.release_by))
            .min()
    }

    fn start_engines(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.begun, true) && self.settings.entries.is_some() {
            effects.push(Effect::Log(
                Level::Info,
                "Listening to events...".to_owned(),
            ));
        }
        let wait = match self.link {
            Some(_) => WAIT_FOR_STORE,
            None => Time::ZERO,
        };
        let idle = |site: &&mut Site| !site.retired && !site.engine.is_started();
        for site in self.sites.iter_mut().filter(idle) {
            if *site.start_at.get_or_insert(now + wait) <= now {
                site.engine.start(now, None);
                self.woken.insert(site.index);
            }
        }
    }

    /// The engines that are watched.
    fn watched(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| !site.retired)
    }

    /// Passes on what followed from an engine's input.
    fn follow(
        &mut self,
        now: Time,
        index: EngineIndex,
        out: Vec<Outcome>,
        effects: &mut Vec<Effect>,
    ) {
        for outcome in out {
            match outcome {
                Outcome::Effect(Effect::Log(level, text)) => {
                    let name = &self.sites[index.at()].name;
                    effects.push(Effect::Log(level, format!("engine `{name}`: {text}")));
                }
                Outcome::Effect(effect) => effects.push(effect),
                Outcome::State(id, report, revision) => {
                    self.decide_known(now, index, id.as_str(), revision, effects);
                    self.state(now, index, id, report, revision);
                }
                Outcome::Event {
                    event,
                    inferred,
                    revision,
                } => self.event(now, index, event, inferred, revision, effects),
                Outcome::Gap(reason) => {
                    let name = &self.sites[index.at()].name;
                    effects.push(Effect::Log(
                        Level::Warn,
                        format!("engine `{name}`: events may be missing ({reason}); comparing everything"),
                    ));
                    self.engine_event(now, index, "gap", &reason, effects);
                    self.happened(index, Happening::Gap { dropped: 0, reason });
                }
                Outcome::Up => self.up(now, index, effects),
                Outcome::Down => self.down(now, index, effects),
                Outcome::Replaced => self.replaced(now, index, effects),
                Outcome::Unreachable => self.unreachable(now, index),
                Outcome::Looked => self.looked(now, index),
                Outcome::Repaired => self.close(now, index, true),
            }
        }
    }

    fn stop(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.stopping.is_some() {
            return;
        }
        let waiting = self.jobs.waiting();
        if waiting > 0 {
            effects.push(Effect::Log(
                Level::Warn,
                format!("stopping; {waiting} jobs that waited are not started"),
            ));
        }
        // What has run meanwhile is told, or a successor would run it again.
        self.pace = store::Pace::default();
        self.gather_until = Some(now);
        self.ask_store(now, effects);
        self.jobs.close();
        self.lasting.clear();
        effects.push(Effect::CancelRuns);
        if let Some(link) = &mut self.link {
            link.leave();
        }
        self.stopping = Some(Stopping {
            release_by: now + RELEASE,
            released: false,
            said: false,
        });
    }

    /// The store can be told that commands have ended which one agent is to run.
    fn has_ends_to_tell(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_open) && self.jobs.has_news()
    }

    fn finish(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let running = self.jobs.running();
        let left = self.stopping.is_some()
            && self.link.as_ref().is_none_or(Link::has_left)
            && !self.has_ends_to_tell();
        if let Some(stop) = &mut self.stopping {
            stop.released |= left || stop.release_by <= now;
            if stop.released && running == 0 && !stop.said {
                stop.said = true;
                effects.push(Effect::Stopped);
            }
        }
    }
}
