//! The queues of the entries: what may start now, in which order, and what has to wait for what.
//!
//! Each entry has a queue of its own, and in it (unless its `order` is `none`) a line for each container: one command of it at a time, in the order of
//! its events. An entry runs as many commands at once as its `concurrency` says, as long as there are slots for more than one each. The first
//! command of an entry takes a slot but needs none, so there may be as many more as there are entries: one whose commands hang holds up only itself.
//!
//! The way of a job: collected (`debounce`), left out (`cooldown`, `on_busy`), waiting in line, held until the store and an inspect have come after
//! its event, with `once` until no other agent can run it, running, and when it failed waiting again (`retries`).

mod cooldown;
mod holds;
mod job;
mod leases;
mod once;
mod queue;
#[cfg(test)]
mod random;
mod reload;
#[cfg(test)]
mod tests;
mod turns;
mod unstarted;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Time;
use super::backoff::{self, Random};
use crate::model::{ContainerId, Debounce, ENGINE, EngineIndex, Entry, Exit, OnBusy};

use holds::{Freed, Holds};
use job::{Key, Lane};
use leases::Leases;
use queue::{Collected, Queue};
use turns::Turns;
use unstarted::Unstarted;

pub use job::{Begun, Ended, Outcome, Trigger, Waiting, Why};
pub use once::name;
pub use reload::Reloaded;

/// The most jobs of one entry that wait: ten times the greatest burst that is promised to be run whole.
const WAITING: usize = 100_000;

/// And the most bytes of them, which are fewer jobs only where events have many labels, or long ones.
const WAITING_BYTES: usize = 160 << 20;

/// All entries' queues.
#[derive(Debug)]
pub struct Jobs {
    queues: HashMap<Key, Queue>,
    /// The queues of the entries, in the order of the file.
    places: Vec<Key>,
    next_key: Key,
    turns: Turns,
    workers: usize,
    running: BTreeMap<u64, Waiting>,
    next: u64,
    holds: Holds,
    leases: Leases,
    /// When a job is tried again, or no more events are collected for it.
    timers: BTreeSet<(Time, Key, u64)>,
    unstarted: Unstarted,
    /// Jobs that did not fit, since the start.
    pub dropped_total: u64,
    outcomes: Vec<Outcome>,
    closed: bool,
}

impl Jobs {
    /// Empty queues for these entries, on so many threads; with `once`, a job waits so long for a store that is away.
    pub fn new(entries: &[Arc<Entry>], workers: usize, patience: Time) -> Self {
        let mut jobs = Jobs {
            queues: HashMap::new(),
            places: Vec::new(),
            next_key: 1,
            turns: Turns::default(),
            workers: workers.max(1),
            running: BTreeMap::new(),
            next: 1,
            holds: Holds::default(),
            leases: Leases::new(patience),
            timers: BTreeSet::new(),
            unstarted: Unstarted::default(),
            dropped_total: 0,
            outcomes: Vec::new(),
            closed: false,
        };
        for entry in entries {
            let key = jobs.open(entry.clone());
            jobs.places.push(key);
        }
        jobs
    }

    // ---- what comes in

    /// An event triggered an entry.
    pub fn add(&mut self, now: Time, trigger: Trigger) {
        let Some(queue) = self.queue(trigger.place) else {
            return;
        };
        let debounce = queue.entry.queueing.debounce;
        let earlier = queue.collected.take();
        let number = earlier.as_ref().map(|collected| collected.job.id);
        if let Some(id) = number {
            self.holds.remove(id);
        }
        let Some(job) = self.job(now, trigger, number, 1) else {
            return;
        };
        match debounce {
            Some(debounce) => self.collect(now, debounce, job, earlier),
            None => self.enqueue(now, job),
        }
    }

    /// A job that another agent did not bring to its end, to be tried once more. That it may run was settled when it ran first; and a successor of
    /// ours need not take up before its event, which would bring back all that came after it.
    pub fn add_again(&mut self, now: Time, trigger: Trigger, begun: Begun) {
        if self.queue(trigger.place).is_some()
            && let Some(mut job) = self.job(now, trigger, None, begun.attempt + 1)
        {
            self.unstarted.remove_all(&job.stamps);
            job.stamps.clear();
            job.count = begun.count;
            job.begun = Some(begun.run);
            self.push(job);
        }
    }

    /// The store holds this change of a container (and all before it).
    pub fn written(&mut self, engine: EngineIndex, container: &ContainerId, revision: u64) {
        let lane: Lane = (engine, container.0.clone());
        let freed = self.holds.written(&lane, revision);
        self.free(freed);
    }

    /// An inspect that was asked for after this change of a container (and all before it) was answered, and be it that there is no such container.
    pub fn seen(&mut self, engine: EngineIndex, container: &ContainerId, revision: u64) {
        let lane: Lane = (engine, container.0.clone());
        let freed = self.holds.seen(&lane, revision);
        self.free(freed);
    }

    /// Nobody waits for the store any more, but with `once`.
    pub fn store_is_down(&mut self, now: Time) {
        let freed = self.holds.store_is_down();
        self.free(freed);
        for place in self.leases.store_is_down(now) {
            self.lease(place, false);
        }
    }

    /// A command ended: its container's next one may start, unless it failed and is tried again.
    pub fn ended(&mut self, now: Time, id: u64, exit: &Exit, random: &mut Random) -> Option<Ended> {
        let job = self.running.remove(&id)?;
        let key = job.key;
        let queue = self.queues.get_mut(&key)?;
        let told = queue.ended(id, &job.lane);
        let wanted = matches!(exit, Exit::Code(0) | Exit::Cancelled | Exit::Replaced) || told;
        let tries_left = job.attempt <= queue.entry.queueing.retries && !job.last_try;
        let mut again = None;
        if !wanted && tries_left && !queue.retired && !self.closed {
            let first = queue.entry.queueing.backoff;
            let delay = backoff::retry_delay(first, job.attempt, random);
            let due = now.saturating_add(delay);
            let id = self.next;
            self.next += 1;
            queue.push_front(Waiting {
                id,
                attempt: job.attempt + 1,
                due: Some(due),
                stamps: BTreeMap::new(),
                ..job.clone()
            });
            self.timers.insert((due, key, id));
            again = Some(delay);
        }
        if job.once.is_some() {
            // A command that this agent's end cut off, or that it did not try again for that, is left to another one.
            let cut = *exit == Exit::Cancelled || self.closed && !wanted && tries_left;
            match again {
                Some(_) => self.leases.again(job.run, (key, self.next - 1)),
                None if cut => self.leases.forget(job.run),
                None => self.leases.ended(job.run),
            }
        }
        let over = queue.retired && queue.runs_nothing();
        self.turn(key);
        if over {
            self.queues.remove(&key);
        }
        Some(Ended { job, again })
    }

    /// Nothing more is started.
    pub fn close(&mut self) {
        self.closed = true;
        self.timers.clear();
        self.holds = Holds::default();
        self.leases.close();
    }

    // ---- what comes out

    /// The next job that may start now, if any; it counts as running from here on.
    pub fn start(&mut self, now: Time) -> Option<Waiting> {
        if self.closed {
            return None;
        }
        self.wake(now);
        loop {
            let free = self.workers.saturating_sub(self.running.len());
            let key = self.turns.next(free, self.workers)?;
            let queue = self.queues.get_mut(&key)?;
            let first = queue.first()?;
            let (id, lane) = (first.id, first.lane.clone());
            let (run, is_leased) = (first.run, first.once.is_some());
            // One that came before the last command was started may have its turn only now.
            if first.attempt == 1
                && !first.taken
                && queue.cooldown.covers(now, &lane)
                && let Some(job) = queue.remove(id)
            {
                self.left(job, Why::Cooldown);
                self.turn(key);
                continue;
            }
            if is_leased && !self.leases.may_start(now, run) {
                self.lease((key, id), false);
                continue;
            }
            let job = queue.start()?;
            let cooldown = queue.entry.queueing.cooldown;
            queue.cooldown.begin(now, &lane, cooldown);
            self.turn(key);
            self.unstarted.remove_all(&job.stamps);
            self.leases.started(run);
            self.running.insert(id, job.clone());
            return Some(job);
        }
    }

    /// What else followed since this was asked last.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// The stamp of an engine's first event that has a job not yet started.
    pub fn first_unstarted(&self, engine: EngineIndex) -> Option<i64> {
        self.unstarted.first(engine)
    }

    /// How many commands run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The commands of one engine that run, oldest first.
    pub fn running_of(&self, engine: EngineIndex) -> impl Iterator<Item = &Waiting> {
        let jobs = self.running.values();
        jobs.filter(move |job| job.engine == engine)
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.queues.values().map(Queue::len).sum()
    }

    /// When something is due although nothing happened.
    pub fn deadline(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        let late = self.leases.deadline();
        let held = self.holds.deadline();
        held.into_iter().chain(timer).chain(late).min()
    }

    // ---- the way of a job

    /// A job for an event, which counts as not started from here on, and waits for the store and the inspect.
    fn job(
        &mut self,
        now: Time,
        trigger: Trigger,
        number: Option<u64>,
        attempt: u32,
    ) -> Option<Waiting> {
        let key = *self.places.get(trigger.place)?;
        let id = number.unwrap_or(self.next);
        self.next = self.next.max(id + 1);
        let event = trigger.event;
        let engine = trigger.engine;
        let container = event.container().filter(|id| !id.is_empty());
        let object = match &*event.kind {
            // That it has no id before it answers for the first time must not change the order.
            ENGINE => ENGINE,
            _ => container.unwrap_or(&event.id),
        };
        let lane: Lane = (engine, object.into());
        let held = container.is_some() && trigger.revision > 0;
        if held {
            let (revision, write_first) = (trigger.revision, trigger.write_first);
            self.holds.add(now, (key, id), &lane, revision, write_first);
        }
        let mut stamps = BTreeMap::new();
        // Our own events are in no replay.
        if !event.is_own() {
            stamps.insert(engine, event.time_ns);
            self.unstarted.add(engine, event.time_ns);
        }
        Some(Waiting {
            id,
            run: id,
            attempt,
            count: 1,
            entry: self.queues.get(&key)?.entry.clone(),
            engine,
            event,
            inferred: trigger.inferred,
            revision: trigger.revision,
            hidden: trigger.hidden,
            begun: None,
            key,
            lane,
            held,
            last_try: false,
            once: trigger.once.map(|once| (now, once)),
            ours: trigger.once.is_none(),
            taken: false,
            due: None,
            stamps,
        })
    }

    /// With `debounce`: the job stands for those before it as well, and waits for those that may come.
    fn collect(
        &mut self,
        now: Time,
        debounce: Debounce,
        mut job: Waiting,
        earlier: Option<Collected>,
    ) {
        let mut first = now;
        if let Some(earlier) = earlier {
            first = earlier.first;
            self.timers.remove(&(earlier.due, job.key, job.id));
            job.count += earlier.job.count;
            for (engine, stamp) in earlier.job.stamps {
                if let Some(other) = job.stamps.insert(engine, stamp) {
                    job.stamps.insert(engine, stamp.min(other));
                    self.unstarted.remove(engine, stamp.max(other));
                }
            }
        }
        let quiet = now.saturating_add(debounce.quiet);
        let due = quiet.min(first.saturating_add(debounce.max));
        self.timers.insert((due, job.key, job.id));
        if let Some(queue) = self.queues.get_mut(&job.key) {
            queue.collected = Some(Collected { job, first, due });
        }
    }

    /// A job comes to its entry's queue: may it wait there?
    fn enqueue(&mut self, now: Time, job: Waiting) {
        let Some(queue) = self.queues.get_mut(&job.key) else {
            return;
        };
        if queue.cooldown.covers(now, &job.lane) {
            return self.left(job, Why::Cooldown);
        }
        match queue.entry.queueing.on_busy {
            OnBusy::Queue => {}
            OnBusy::Skip if queue.is_busy(&job.lane) => return self.left(job, Why::Busy),
            OnBusy::Skip => {}
            OnBusy::Replace => {
                let (dropped, ended) = queue.make_way(&job.lane);
                self.outcomes.extend(ended.into_iter().map(Outcome::End));
                for old in dropped {
                    self.left(old, Why::Replaced);
                }
            }
        }
        self.push(job);
    }

    fn push(&mut self, job: Waiting) {
        let key = job.key;
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        if queue.has_room(&job, (WAITING, WAITING_BYTES)) {
            queue.push(job);
            return self.turn(key);
        }
        self.dropped_total += 1;
        match std::mem::replace(&mut queue.overflows, true) {
            false => {
                let why = Why::Full(queue.waiting.len());
                self.left(job, why);
            }
            true => self.forget(&job),
        }
    }

    /// Does what is due.
    fn wake(&mut self, now: Time) {
        let freed = self.holds.expire(now);
        self.free(freed);
        while let Some((at, key, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let queue = self.queues.get_mut(&key);
            let collected =
                queue.and_then(|queue| queue.collected.take_if(|collected| collected.job.id == id));
            match collected {
                Some(collected) => self.enqueue(now, collected.job),
                None => self.free(vec![(key, id)]),
            }
        }
        self.drop_late(now);
    }

    fn free(&mut self, freed: Vec<Freed>) {
        for (key, id) in freed {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.free(id);
                self.turn(key);
            }
        }
    }

    /// A job that will not run.
    fn left(&mut self, job: Waiting, why: Why) {
        self.forget(&job);
        self.outcomes.push(Outcome::Left(job, why));
    }

    fn forget(&mut self, job: &Waiting) {
        if job.held {
            self.holds.remove(job.id);
        }
        if let Some(due) = job.due {
            self.timers.remove(&(due, job.key, job.id));
        }
        if job.once.is_some() {
            self.leases.forget(job.run);
        }
        self.unstarted.remove_all(&job.stamps);
    }

    // ---- the queues

    fn open(&mut self, entry: Arc<Entry>) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.queues.insert(key, Queue::new(entry));
        self.turn(key);
        key
    }

    /// The queue of the entry at this place. Those who come to a closed door are counted.
    fn queue(&mut self, place: usize) -> Option<&mut Queue> {
        if self.closed {
            self.dropped_total += 1;
            return None;
        }
        self.queues.get_mut(self.places.get(place)?)
    }

    /// A queue may stand elsewhere among the others now.
    fn turn(&mut self, key: Key) {
        if let Some(queue) = self.queues.get_mut(&key) {
            for id in std::mem::take(&mut queue.front) {
                if let Some(job) = queue.lacks_lease(id)
                    && let Some((came, once)) = job.once
                {
                    self.leases.want(job.run, once, (key, id), came);
                }
            }
            let now = queue.turn_now();
            let before = std::mem::replace(&mut queue.turn, now);
            if before != now {
                self.turns.change(key, before, now);
            }
        }
    }
}
