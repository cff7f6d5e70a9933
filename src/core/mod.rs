//! The one place where decisions are made: a pure machine that takes one [`Input`] at a time and hands out [`Effect`]s.
//!
//! No socket, no clock, no thread, no file, no logger: time is an argument, everything else an effect. The way of an event: `engine` judges it and
//! says which container to look at; the answer to that look goes into the host's `outbox`, the event itself to `rules`, which find the entries it
//! triggers, and so into `jobs`; `link` decides what the store is asked next. [`Core::step`] takes in what happened; [`Core::settle`], called once
//! after a burst of steps, does what follows from it and from the time.

pub mod backoff;
pub mod continuity;
pub mod engine;
pub mod jobs;
pub mod known;
pub mod link;
pub mod message;
pub mod outbox;
pub mod rules;
mod selfcheck;
mod store;
mod tell;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{self, EngineIndex, Entry, Event};
use crate::store::{Happening, Notice};

use backoff::Random;
use engine::{Engine, Outcome};
use jobs::{Added, Hold, Jobs};
use link::{Link, Tenancy};
use outbox::{Outbox, Wanted};
use rules::{Rules, Subject};
use selfcheck::Selfcheck;

pub use message::{
    Effect, Generation, Input, Inspected, Level, Since, StoreReply, StoreRequest, StreamEnd,
};

/// Time since the process started, by a clock that never goes back.
pub type Time = std::time::Duration;

/// Documents that wait for the store may take so many bytes; beyond, their containers are inspected again later.
const BUDGET: usize = 32 << 20;

/// A resync may be so far ahead of the store: enough that the store never waits for it.
const AHEAD: usize = 1 << 20;

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
    /// This program's version, for the host's hash.
    pub version: &'static str,
    /// For jitter.
    pub seed: u64,
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
    engine: Engine,
    outbox: Outbox,
    /// When it ceased to answer.
    down_since: Option<Time>,
    /// A full report of this tenancy was written.
    reported: bool,
    /// Resyncs that were closed; a tenth of the shared memberships is said again with each.
    turn: u64,
    /// When the day of the shared sets was last renewed.
    shared_at: Time,
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
    /// Bytes of documents that wait for the store, all hosts together.
    waiting_bytes: usize,
    /// Engines that something happened to since they were settled last.
    woken: BTreeSet<EngineIndex>,
    /// Engines that have more to ask as soon as the store has taken what waits.
    starved: BTreeSet<EngineIndex>,
    /// Hosts with something to write.
    writable: BTreeSet<EngineIndex>,
    /// Whose turn it is.
    next_host: EngineIndex,
    start_at: Option<Time>,
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

impl Core {
    /// The machine at rest; the first [`Core::settle`] starts it.
    pub fn new(settings: Settings) -> Self {
        let entries = settings.entries.clone().unwrap_or_default();
        let cache = settings.cache.as_ref();
        let rules = engine::Rules {
            interval: settings.interval,
            all: cache.is_some_and(|cache| cache.all),
            filtered: cache.is_some_and(|cache| cache.filtered),
        };
        let sites: Vec<Site> = settings
            .engines
            .iter()
            .enumerate()
            .map(|(index, engine)| {
                let index = EngineIndex(index as u32);
                Site {
                    index,
                    name: engine.name.clone(),
                    url: engine.url.clone(),
                    engine: Engine::new(index, rules.clone()),
                    outbox: Outbox::new(index),
                    down_since: None,
                    reported: false,
                    turn: 0,
                    shared_at: Time::ZERO,
                    resume_ns: None,
                    selfcheck: cache
                        .filter(|cache| cache.selfcheck)
                        .map(|_| Selfcheck::default()),
                    replaced: false,
                    closing: None,
                    unchecked: false,
                }
            })
            .collect();
        Core {
            random: Random::new(settings.seed),
            link: cache.map(|_| Link::new(sites.len(), settings.interval)),
            rules: Rules::new(&entries),
            jobs: Jobs::new(&entries, settings.workers, sites.len()),
            waiting_bytes: 0,
            woken: (0..sites.len() as u32).map(EngineIndex).collect(),
            starved: BTreeSet::new(),
            writable: BTreeSet::new(),
            next_host: EngineIndex(0),
            start_at: Some(Time::ZERO),
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
            | Input::Inspected { engine, .. } => *engine,
            Input::Stored(_) | Input::Ended { .. } | Input::Report | Input::Stop => EngineIndex(0),
        };
        let engine = &mut self.sites[index.at()].engine;
        match input {
            Input::Connected {
                generation, hello, ..
            } => engine.connected(now, generation, hello, &mut out),
            Input::Event {
                generation, event, ..
            } => engine.event(now, generation, *event, &mut out),
            Input::Disconnected {
                generation, end, ..
            } => engine.disconnected(now, generation, end, &mut self.random, &mut out),
            Input::Overrun { .. } => engine.overrun(now, &mut out),
            Input::Listed {
                generation, result, ..
            } => engine.listed(now, generation, result, &mut out),
            Input::Inspected {
                generation,
                id,
                by_slow,
                result,
                ..
            } => engine.inspected(now, generation, &id, by_slow, result, &mut out),
            Input::Stored(reply) => return self.stored(now, reply, effects),
            Input::Ended { job, run } => return self.ended(job, run),
            Input::Report => return self.report(effects),
            Input::Stop => return self.stop(now, effects),
        }
        self.woken.insert(index);
        self.follow(now, index, out, effects);
    }

    /// Does what follows from the steps before and from the time.
    pub fn settle(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.stopping.is_none() {
            self.start_engines(now, effects);
            let room = match self.waiting_bytes {
                ..AHEAD => engine::Room::All,
                AHEAD..BUDGET => engine::Room::Urgent,
                _ => engine::Room::None,
            };
            if room != engine::Room::None {
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
            for index in due {
                let mut out = Vec::new();
                if self.sites[index.at()].engine.settle(now, room, &mut out) {
                    self.starved.insert(index);
                }
                self.follow(now, index, out, effects);
            }
            self.forget_lost_engines(now, effects);
            self.tell_doubts(now, effects);
        }
        while let Some(job) = self.jobs.start(now) {
            // The store is told what runs: should we crash, our successor runs it no second time, and knows that it was cut off.
            self.writable.insert(job.engine);
            effects.push(Effect::Run(Box::new(self.job(job))));
        }
        self.ask_store(now, effects);
        self.say_status(effects);
        self.finish(now, effects);
    }

    /// When [`Core::settle`] has something to do although nothing happened.
    pub fn deadline(&self) -> Option<Time> {
        let engines = self.sites.iter().filter_map(|site| {
            let forget = self.forget_at(site);
            let check = site.selfcheck.as_ref().and_then(Selfcheck::deadline);
            [site.engine.deadline(), forget, check]
                .into_iter()
                .flatten()
                .min()
        });
        let start = self
            .start_at
            .filter(|_| self.sites.iter().any(|site| !site.engine.is_started()));
        let stop = self.stopping.as_ref().filter(|stop| !stop.released);
        engines
            .filter(|_| self.stopping.is_none())
            .chain(start)
            .chain(self.link.as_ref().and_then(Link::deadline))
            .chain(self.jobs.deadline())
            .chain(stop.map(|stop| stop.release_by))
            .min()
    }

    fn start_engines(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(at) = self.start_at else {
            return;
        };
        if at == Time::ZERO {
            if self.settings.entries.is_some() {
                effects.push(Effect::Log(
                    Level::Info,
                    "Listening to events...".to_owned(),
                ));
            }
            let wait = self.link.is_some();
            self.start_at = Some(if wait { now + WAIT_FOR_STORE } else { now });
        }
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            for (index, site) in self.sites.iter_mut().enumerate() {
                site.engine.start(now, None);
                self.woken.insert(EngineIndex(index as u32));
            }
        }
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
                Outcome::State(id, document, revision) => {
                    self.state(now, index, id, document, revision);
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
                    self.happened(index, Happening::Gap { dropped: 0, reason });
                }
                Outcome::Up => self.up(now, index, effects),
                Outcome::Down => self.down(now, index),
                Outcome::Replaced => self.replaced(now, index, effects),
                Outcome::Unreachable => self.close(now, index, false),
                Outcome::Looked => self.looked(now, index),
                Outcome::Repaired => self.close(now, index, true),
            }
        }
    }

    /// A container is so.
    fn state(
        &mut self,
        now: Time,
        index: EngineIndex,
        id: model::ContainerId,
        document: Option<Arc<model::Document>>,
        revision: u64,
    ) {
        let Some(link) = &self.link else {
            return self.jobs.written(index, &id, revision);
        };
        if !link.is_open() || !link.is_ours(index) {
            // Nobody waits for a store that does not take it; but one may wait for the document.
            self.jobs.written(index, &id, revision);
        }
        if matches!(link.tenancy(index), Tenancy::Held(..) | Tenancy::Off) {
            return;
        }
        let site = &mut self.sites[index.at()];
        if let Some(check) = &mut site.selfcheck {
            let gaps = site.engine.counters().gaps;
            check.saw(now, &id, document.as_ref(), revision, gaps);
        }
        let wanted = self.outbox(index, |outbox| outbox.want(&id, document, revision));
        let Some(link) = &mut self.link else {
            return;
        };
        match wanted {
            Wanted::Later => {
                self.writable.insert(index);
            }
            Wanted::Already => match link.last_flight() {
                Some(flight) => flight.settled.push((index, id, revision)),
                None => self.jobs.written(index, &id, revision),
            },
        }
    }

    /// Changes what waits for the store, and keeps count of the bytes.
    fn outbox<T>(&mut self, index: EngineIndex, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let outbox = &mut self.sites[index.at()].outbox;
        let before = outbox.bytes();
        let done = change(outbox);
        self.waiting_bytes = self.waiting_bytes + outbox.bytes() - before;
        done
    }

    /// Something happened: into the stream, and to the handlers.
    fn event(
        &mut self,
        now: Time,
        index: EngineIndex,
        event: Arc<Event>,
        inferred: bool,
        revision: u64,
        effects: &mut Vec<Effect>,
    ) {
        if !event.is_noise() {
            let event = event.clone();
            self.happened(index, Happening::Event { event, inferred });
        }
        if self.settings.entries.is_none() {
            return;
        }
        let site = &self.sites[index.at()];
        let (container, image) = tell::names(&event, &site.engine);
        let matches = self.rules.matches(Subject {
            event: &event,
            engine: &site.name,
            container: &container,
            image: &image,
        });
        if !matches.caught {
            let level = match event.is_noise() {
                true => Level::Debug,
                false => Level::Info,
            };
            effects.push(Effect::Log(level, tell::uncaught(&event, site, &container)));
        }
        let wait = self
            .link
            .as_ref()
            .is_some_and(|link| link.is_open() && link.is_ours(index));
        let hidden = event.verb() == "die"
            && event
                .container()
                .is_some_and(|id| site.engine.known().hides_exit_code(id));
        let hold = match revision {
            0 => Hold::Nothing,
            revision if hidden => Hold::Document(revision),
            revision if wait => Hold::Written(revision),
            _ => Hold::Nothing,
        };
        for place in matches.entries {
            let entry = self.rules.entry(place).clone();
            if let Some(text) = &entry.log {
                let site = &self.sites[index.at()];
                effects.push(Effect::Log(
                    Level::Info,
                    tell::logged(&entry.name, text, &event, site, &container),
                ));
            }
            if entry.command.is_none() {
                continue;
            }
            let added = self.jobs.add(now, place, index, &event, inferred, hold);
            if added == Added::Dropped(true) && self.stopping.is_none() {
                effects.push(Effect::Log(
                    Level::Warn,
                    format!(
                        "handler `{}`: 10000 jobs wait already; dropping what does not fit",
                        entry.name
                    ),
                ));
            }
        }
    }

    fn happened(&mut self, index: EngineIndex, happening: Happening) {
        let Some(link) = &self.link else {
            return;
        };
        if !matches!(link.tenancy(index), Tenancy::Held(..) | Tenancy::Off) {
            self.sites[index.at()].outbox.happened(happening);
            self.writable.insert(index);
        }
    }

    fn up(&mut self, now: Time, index: EngineIndex, effects: &mut Vec<Effect>) {
        self.status_stale = true;
        let site = &mut self.sites[index.at()];
        let was_down = site.down_since.take().is_some();
        effects.push(Effect::Log(
            Level::Info,
            format!("Started monitoring Docker events ({})", site.name),
        ));
        if let Some(link) = &mut self.link {
            link.claim(now);
        }
        match &mut self.link {
            // The host was forgotten: it will be a new one.
            Some(link) if *link.tenancy(index) == Tenancy::Off => {
                link.set_tenancy(index, Tenancy::Wanted(now));
            }
            Some(_) if was_down => {
                site.outbox.keep();
                site.outbox.notify(Notice::HostUp);
                self.writable.insert(index);
            }
            _ => {}
        }
    }

    fn down(&mut self, now: Time, index: EngineIndex) {
        self.status_stale = true;
        let site = &mut self.sites[index.at()];
        site.down_since = Some(now);
        if self.link.is_some() {
            site.outbox.notify(Notice::HostDown);
            self.writable.insert(index);
        }
    }

    /// Another engine answers: nothing of the old one may stand beside what the new one has.
    fn replaced(&mut self, now: Time, index: EngineIndex, effects: &mut Vec<Effect>) {
        if let Some(link) = &mut self.link {
            link.claim(now);
        }
        self.status_stale = true;
        let site = &mut self.sites[index.at()];
        site.replaced = true;
        effects.push(Effect::Log(
            Level::Warn,
            format!(
                "engine `{}`: another engine answers at {}; its containers replace those of the old one",
                site.name, site.url
            ),
        ));
        let outbox = &site.outbox;
        let old: Vec<_> = outbox.known().chain(outbox.waiting()).cloned().collect();
        for id in old {
            self.state(now, index, id, None, 0);
        }
    }

    /// A resync has looked at everything: compare with the store, where that is ours.
    fn looked(&mut self, now: Time, index: EngineIndex) {
        let site = &self.sites[index.at()];
        let known = site.outbox.known();
        let mut left: Vec<model::ContainerId> = known
            .filter(|id| !site.engine.reports(id))
            .cloned()
            .collect();
        left.sort_unstable();
        for id in left {
            self.state(now, index, id, None, 0);
        }
        match &mut self.link {
            Some(link) if link.is_ours(index) && link.is_open() => link.audit(index),
            _ => self.go_on(now, index),
        }
    }

    /// The store is not there, or not ours: the engine's round does not wait for it. Once the store is back there will be another.
    fn go_on(&mut self, now: Time, index: EngineIndex) {
        let site = &mut self.sites[index.at()];
        site.unchecked = true;
        site.engine.end_round(now, &mut self.random);
    }

    /// Ends a resync in the store.
    fn close(&mut self, now: Time, index: EngineIndex, stamp: bool) {
        let link = self.link.as_ref().filter(|link| link.is_ours(index));
        let open = link.is_some_and(Link::is_open);
        if stamp && !open {
            return self.go_on(now, index);
        }
        if link.is_none() {
            return;
        }
        let site = &mut self.sites[index.at()];
        if stamp {
            site.closing = site.engine.round();
        }
        if !stamp && site.outbox.is_closing() {
            return;
        }
        site.turn += 1;
        let hour = Time::from_secs(3600);
        let renew = now.saturating_sub(site.shared_at) >= hour;
        if renew {
            site.shared_at = now;
        }
        // Ten turns must be over long before the day of the shared sets is.
        let turns = if self.settings.interval > hour { 1 } else { 10 };
        site.outbox.close(stamp, (site.turn, turns), renew);
        self.writable.insert(index);
    }

    /// When this host leaves the store, if that is for us to do.
    fn forget_at(&self, site: &Site) -> Option<Time> {
        let after = self.settings.cache.as_ref()?.forget_after;
        let since = site.down_since?;
        let ours = self.link.as_ref()?.is_ours(site.index);
        (ours && !site.outbox.is_forgotten()).then_some(since + after)
    }

    /// What a self-check found.
    fn tell_doubts(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for site in &mut self.sites {
            let engine = &site.engine;
            if let Some(check) = &mut site.selfcheck {
                let lines = check.settle(now, |id| engine.revision(id), engine.counters().gaps);
                effects.extend(lines.into_iter().map(|line| Effect::Log(Level::Warn, line)));
            }
        }
    }

    /// Engines that have been away for longer than `forget_after` take their host with them.
    fn forget_lost_engines(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for index in (0..self.sites.len() as u32).map(EngineIndex) {
            let site = &self.sites[index.at()];
            if self.forget_at(site).is_some_and(|at| at <= now) {
                let site = &mut self.sites[index.at()];
                effects.push(Effect::Log(
                    Level::Warn,
                    format!(
                        "engine `{}` has been down for too long; its host leaves the Cache",
                        site.name
                    ),
                ));
                site.reported = false;
                self.outbox(index, Outbox::forget);
                self.writable.insert(index);
            }
        }
    }

    fn ended(&mut self, job: u64, run: model::Run) {
        if let Some(job) = self.jobs.ended(job) {
            let (subject, _) = tell::names(&job.event, &self.sites[job.engine.at()].engine);
            let record = tell::record(&job, &self.rules.entry(job.entry).name, subject, run);
            self.happened(job.engine, Happening::Run(Arc::new(record)));
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
        self.jobs.close();
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

    fn finish(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let running = self.jobs.running();
        let left = self.link.as_ref().is_none_or(Link::has_left);
        if let Some(stop) = &mut self.stopping {
            stop.released |= left || stop.release_by <= now;
            if stop.released && running == 0 && !stop.said {
                stop.said = true;
                effects.push(Effect::Stopped);
            }
        }
    }
}
