//! One entry's queue: what waits, in which order, what runs, and what has to make way.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::cooldown::Cooldown;
use super::turns::Turn;
use super::{Lane, Waiting};
use crate::core::Time;
use crate::model::{EngineIndex, Entry, Order};

/// The jobs of one entry.
#[derive(Debug)]
pub(super) struct Queue {
    pub entry: Arc<Entry>,
    /// The entry is no longer in the file: what runs ends, and that was all.
    pub retired: bool,
    /// Jobs by their numbers, so the oldest first.
    pub waiting: BTreeMap<u64, Waiting>,
    /// With [`Order::Container`]: who comes after whom.
    lanes: HashMap<Lane, Line>,
    /// Jobs that may start now.
    ready: BTreeSet<u64>,
    /// Jobs that came to their turn and may lack a lease, since this was looked at last.
    pub front: Vec<u64>,
    /// Commands that run; `true` for those that are told to end.
    running: BTreeMap<u64, bool>,
    /// How many of those that wait, wait to be tried again.
    retrying: usize,
    pub cooldown: Cooldown,
    pub collected: Option<Collected>,
    /// What the jobs that wait take.
    bytes: usize,
    /// Jobs did not fit, and it is not half empty since.
    pub overflows: bool,
    /// Where it stands among the others.
    pub turn: Turn,
}

/// The events that become one job, with `debounce`.
#[derive(Debug)]
pub(super) struct Collected {
    /// The job, for the newest of them.
    pub job: Waiting,
    /// When the first came.
    pub first: Time,
    /// When no more are waited for.
    pub due: Time,
}

/// The jobs of one container.
#[derive(Debug, Default)]
struct Line {
    running: Option<u64>,
    jobs: VecDeque<u64>,
}

impl Queue {
    pub fn new(entry: Arc<Entry>) -> Self {
        Queue {
            entry,
            retired: false,
            waiting: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            front: Vec::new(),
            running: BTreeMap::new(),
            retrying: 0,
            cooldown: Cooldown::default(),
            collected: None,
            bytes: 0,
            overflows: false,
            turn: Turn::default(),
        }
    }

    /// Where it stands now.
    pub fn turn_now(&self) -> Turn {
        let fits = self.running.len() < self.entry.queueing.concurrency;
        Turn {
            resting: self.running.is_empty() && !self.retired && self.entry.command.is_some(),
            first: self.ready.first().copied().filter(|_| fits),
        }
    }

    pub fn runs_nothing(&self) -> bool {
        self.running.is_empty()
    }

    /// How many jobs have not started.
    pub fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.collected.is_some())
    }

    /// Does one more job fit in, where so many may wait of so many bytes in all?
    pub fn has_room(&mut self, job: &Waiting, (count, bytes): (usize, usize)) -> bool {
        self.overflows &= self.waiting.len() > count / 2 || self.bytes > bytes / 2;
        self.waiting.len() < count && self.bytes + job.bytes() <= bytes
    }

    /// A job joins the end of its container's line.
    pub fn push(&mut self, job: Waiting) {
        self.join(job, VecDeque::push_back);
    }

    /// A job that failed comes before whatever else its container waits for.
    pub fn push_front(&mut self, job: Waiting) {
        self.join(job, VecDeque::push_front);
    }

    fn join(&mut self, job: Waiting, at: impl Fn(&mut VecDeque<u64>, u64)) {
        let id = job.id;
        let mut behind = None;
        if self.in_order() {
            let line = self.lanes.entry(job.lane.clone()).or_default();
            at(&mut line.jobs, id);
            behind = line.jobs.get(1).copied();
        }
        self.retrying += usize::from(job.due.is_some());
        self.bytes += job.bytes();
        self.waiting.insert(id, job);
        self.offer(id);
        if let Some(id) = behind {
            self.offer(id);
        }
    }

    /// What the job waited for has come.
    pub fn free(&mut self, id: u64) {
        if let Some(job) = self.waiting.get_mut(&id) {
            job.held = false;
            if job.due.take().is_some() {
                self.retrying -= 1;
            }
        }
        if let Some(collected) = self.collected.as_mut().filter(|of| of.job.id == id) {
            collected.job.held = false;
        }
        self.offer(id);
    }

    /// Another agent has taken it: whether it may run is settled. `false` when that was known.
    pub fn take(&mut self, id: u64) -> bool {
        let job = self.waiting.get_mut(&id);
        job.is_some_and(|job| !std::mem::replace(&mut job.taken, true))
    }

    /// It has its lease, or has it no longer.
    pub fn lease(&mut self, id: u64, ours: bool) {
        if let Some(job) = self.waiting.get_mut(&id) {
            job.ours = ours;
        }
        self.offer(id);
    }

    /// The job that came to its turn, if it is still so and all that it lacks is a lease.
    pub fn lacks_lease(&self, id: u64) -> Option<&Waiting> {
        let job = self.waiting.get(&id)?;
        (!job.ours && self.has_turn(job)).then_some(job)
    }

    /// The job that may start first starts.
    pub fn start(&mut self) -> Option<Waiting> {
        let job = self.remove(*self.ready.first()?)?;
        self.running.insert(job.id, false);
        if self.in_order() {
            let line = self.lanes.entry(job.lane.clone()).or_default();
            line.running = Some(job.id);
            self.next_in(&job.lane);
        }
        Some(job)
    }

    /// The job that would start first.
    pub fn first(&self) -> Option<&Waiting> {
        self.waiting.get(self.ready.first()?)
    }

    /// A command ended; `true` when it had been told to.
    pub fn ended(&mut self, id: u64, lane: &Lane) -> bool {
        let told = self.running.remove(&id).unwrap_or(false);
        if let Some(line) = self.lanes.get_mut(lane)
            && line.running == Some(id)
        {
            line.running = None;
            self.next_in(lane);
        }
        told
    }

    /// Takes a job out that has not started.
    pub fn remove(&mut self, id: u64) -> Option<Waiting> {
        let job = self.waiting.remove(&id)?;
        self.ready.remove(&id);
        self.bytes -= job.bytes();
        self.retrying -= usize::from(job.due.is_some());
        if let Some(line) = self.lanes.get_mut(&job.lane) {
            match line.jobs.front() == Some(&id) {
                true => drop(line.jobs.pop_front()),
                false => line.jobs.retain(|other| *other != id),
            }
            self.next_in(&job.lane);
        }
        Some(job)
    }

    /// The entry is gone: gives back what has not started.
    pub fn retire(&mut self) -> (Vec<Waiting>, Option<Collected>) {
        self.retired = true;
        let ids: Vec<u64> = self.waiting.keys().copied().collect();
        let jobs = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        (jobs, self.collected.take())
    }

    /// An engine is watched no more: gives back what has not started of it. What was collected of others as well goes on.
    pub fn drop_engine(&mut self, engine: EngineIndex) -> (Vec<Waiting>, Option<Collected>) {
        let of_it = self.waiting.values().filter(|job| job.engine == engine);
        let ids: Vec<u64> = of_it.map(|job| job.id).collect();
        let jobs = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        let only = |collected: &mut Collected| {
            let job = &collected.job;
            job.engine == engine && job.engines().all(|of| of == engine)
        };
        (jobs, self.collected.take_if(only))
    }

    /// With `on_busy: skip`: can a job of this container not start because of this entry's others?
    pub fn is_busy(&self, lane: &Lane) -> bool {
        self.lanes.contains_key(lane) || self.slots_wanted() >= self.entry.queueing.concurrency
    }

    /// With `on_busy: replace`: what a new job of this container takes the place of: the jobs that are to be dropped, and the commands that are to
    /// be ended, which count as told from here on.
    pub fn make_way(&mut self, lane: &Lane) -> (Vec<Waiting>, Vec<u64>) {
        let (mut dropped, mut ended) = (Vec::new(), Vec::new());
        if let Some(line) = self.lanes.get(lane) {
            let running = line.running;
            let jobs: Vec<u64> = line.jobs.iter().copied().collect();
            dropped.extend(jobs.into_iter().filter_map(|id| self.remove(id)));
            ended.extend(running.filter(|id| self.running.insert(*id, true) == Some(false)));
        }
        let concurrency = self.entry.queueing.concurrency;
        if self.in_order() {
            if self.slots_wanted() >= concurrency {
                ended.extend(self.end_oldest());
            }
            return (dropped, ended);
        }
        // Of those that wait and those that run, the newest stay: what waits came later than what runs, but the oldest of it is in the way.
        while self.slots_wanted() + self.retrying >= concurrency {
            let oldest = self.waiting.keys().next().copied();
            match oldest.and_then(|id| self.remove(id)) {
                Some(job) => dropped.push(job),
                None => match self.end_oldest() {
                    Some(id) => ended.push(id),
                    None => break,
                },
            }
        }
        (dropped, ended)
    }

    fn in_order(&self) -> bool {
        self.entry.queueing.order == Order::Container
    }

    /// How many commands would run now if there were slots without end.
    fn slots_wanted(&self) -> usize {
        let ending = self.running.values().filter(|told| **told).count();
        self.running.len() - ending + self.waiting.len() - self.retrying
    }

    fn end_oldest(&mut self) -> Option<u64> {
        let (id, told) = self.running.iter_mut().find(|(_, told)| !**told)?;
        *told = true;
        Some(*id)
    }

    /// A container's next job may be ready now; a line without any is forgotten.
    fn next_in(&mut self, lane: &Lane) {
        let Some(line) = self.lanes.get(lane) else {
            return;
        };
        match line.jobs.front().copied() {
            Some(id) => self.offer(id),
            None if line.running.is_none() => drop(self.lanes.remove(lane)),
            None => {}
        }
    }

    /// Puts a job where it belongs: among those that may start, or not.
    fn offer(&mut self, id: u64) {
        let Some(job) = self.waiting.get(&id) else {
            return;
        };
        let turn = self.has_turn(job);
        if turn && !job.ours {
            self.front.push(id);
        }
        match turn && job.ours {
            true => self.ready.insert(id),
            false => self.ready.remove(&id),
        };
    }

    /// Is it the first of its line, and has all come that it waited for (but a lease)?
    fn has_turn(&self, job: &Waiting) -> bool {
        let first = match self.lanes.get(&job.lane) {
            Some(line) => line.running.is_none() && line.jobs.front() == Some(&job.id),
            None => true,
        };
        first && !job.held && job.due.is_none()
    }
}
