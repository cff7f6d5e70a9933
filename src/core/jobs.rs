//! The queues of the entries: what may start now, in which order, and what has to wait for the store.
//!
//! Each entry has a queue of its own, and in it a lane for each container: one lane runs one command at a time, in the order of its events, and an
//! entry runs as many lanes at once as its `concurrency` says. When fewer slots are free than there are entries that run nothing, each of those
//! has a slot kept for it: an entry whose commands hang holds up only itself.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Time;
use crate::model::{ContainerId, EngineIndex, Entry, Event};

/// The most jobs of one entry that wait.
const WAITING: usize = 10_000;

/// How long a job waits for the store to hold the state that its event led to.
const WRITE_FIRST: Time = Time::from_millis(250);

/// How long it waits, in all, where it has to know what an inspect says as well.
const LOOK_FIRST: Time = Time::from_secs(1);

/// What a lane is keyed by: the engine and the object's id.
type Lane = (EngineIndex, Arc<str>);

/// What a job waits for before its command may run; the number is the change of its container that its event stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// For nothing.
    Nothing,
    /// That the store holds that change.
    Written(u64),
    /// The same, and it is told the exit code that an inspect found, because the event's own is hidden.
    Document(u64),
}

/// A job that waits, or the one that runs.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its number in this process.
    pub id: u64,
    /// The place of its entry.
    pub entry: usize,
    /// Where the event happened.
    pub engine: EngineIndex,
    /// The event.
    pub event: Arc<Event>,
    /// The event was found by a resync or told only after an outage.
    pub inferred: bool,
    /// The change of the container whose inspect knows the exit code that the event hides.
    pub document: Option<u64>,
    /// The change of the container that the store must hold first, and until when to wait for it.
    hold: Option<(ContainerId, u64, Time)>,
}

#[derive(Debug)]
struct Queue {
    entry: Arc<Entry>,
    lanes: HashMap<Lane, VecDeque<Waiting>>,
    /// Lanes with a job at their head that may start, oldest first.
    ready: VecDeque<Lane>,
    busy: HashSet<Lane>,
    waiting: usize,
    /// Dropped since the last one that fitted.
    dropped: u64,
}

/// All entries' queues.
#[derive(Debug)]
pub struct Jobs {
    queues: Vec<Queue>,
    workers: usize,
    running: BTreeMap<u64, (Lane, Waiting)>,
    next: u64,
    /// Lanes whose head waits for the store, in the order of their deadlines.
    held: VecDeque<(Time, usize, Lane)>,
    /// Stamps of events with jobs that have not started.
    unstarted: Vec<BTreeMap<i64, usize>>,
    /// Jobs that did not fit, since the start.
    pub dropped_total: u64,
    closed: bool,
}

/// What became of a job that was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// It waits.
    Queued,
    /// The queue was full; `true` for the first of a burst.
    Dropped(bool),
}

impl Jobs {
    /// Empty queues for these entries, on so many threads, for so many engines.
    pub fn new(entries: &[Arc<Entry>], workers: usize, engines: usize) -> Self {
        Jobs {
            queues: entries
                .iter()
                .map(|entry| Queue {
                    entry: entry.clone(),
                    lanes: HashMap::new(),
                    ready: VecDeque::new(),
                    busy: HashSet::new(),
                    waiting: 0,
                    dropped: 0,
                })
                .collect(),
            workers: workers.max(1),
            running: BTreeMap::new(),
            next: 1,
            held: VecDeque::new(),
            unstarted: vec![BTreeMap::new(); engines],
            dropped_total: 0,
            closed: false,
        }
    }

    /// An event triggered an entry.
    pub fn add(
        &mut self,
        now: Time,
        entry: usize,
        engine: EngineIndex,
        event: &Arc<Event>,
        inferred: bool,
        hold: Hold,
    ) -> Added {
        let queue = &mut self.queues[entry];
        if queue.waiting >= WAITING || self.closed {
            queue.dropped += 1;
            self.dropped_total += 1;
            return Added::Dropped(queue.dropped == 1);
        }
        queue.dropped = 0;
        queue.waiting += 1;
        let id = self.next;
        self.next += 1;
        let container = event.container().filter(|id| !id.is_empty());
        let (revision, patience) = match hold {
            Hold::Nothing => (None, Time::ZERO),
            Hold::Written(revision) => (Some(revision), WRITE_FIRST),
            Hold::Document(revision) => (Some(revision), LOOK_FIRST),
        };
        let document = revision.filter(|_| matches!(hold, Hold::Document(_)));
        let hold = match (revision, container) {
            (Some(revision), Some(id)) => Some((id.into(), revision, now + patience)),
            _ => None,
        };
        *self.unstarted[engine.at()]
            .entry(event.time_ns)
            .or_default() += 1;
        let lane: Lane = (engine, container.unwrap_or(&event.id).into());
        let jobs = queue.lanes.entry(lane.clone()).or_default();
        jobs.push_back(Waiting {
            id,
            entry,
            engine,
            event: event.clone(),
            inferred,
            document,
            hold,
        });
        if jobs.len() == 1 && !queue.busy.contains(&lane) {
            self.offer(entry, lane);
        }
        Added::Queued
    }

    /// The store holds this change of a container (and all before it).
    pub fn written(&mut self, engine: EngineIndex, container: &ContainerId, revision: u64) {
        let lane: Lane = (engine, container.as_str().into());
        for entry in 0..self.queues.len() {
            let Some(jobs) = self.queues[entry].lanes.get_mut(&lane) else {
                continue;
            };
            let mut released = false;
            for (place, job) in jobs.iter_mut().enumerate() {
                if let Some((_, needed, _)) = &job.hold
                    && *needed <= revision
                {
                    job.hold = None;
                    released |= place == 0;
                }
            }
            if released && !self.queues[entry].busy.contains(&lane) {
                self.queues[entry].ready.push_back(lane.clone());
            }
        }
    }

    /// The store is down: nobody waits for it.
    pub fn release_all(&mut self) {
        for entry in 0..self.queues.len() {
            let queue = &mut self.queues[entry];
            let mut free = Vec::new();
            for (lane, jobs) in &mut queue.lanes {
                let held = jobs.front().is_some_and(|job| job.hold.is_some());
                for job in jobs.iter_mut() {
                    job.hold = None;
                }
                if held && !queue.busy.contains(lane) {
                    free.push((jobs.front().map_or(0, |job| job.id), lane.clone()));
                }
            }
            free.sort();
            queue.ready.extend(free.into_iter().map(|(_, lane)| lane));
        }
        self.held.clear();
    }

    /// A command ended: its lane goes on.
    pub fn ended(&mut self, id: u64) -> Option<Waiting> {
        let (lane, job) = self.running.remove(&id)?;
        self.queues[job.entry].busy.remove(&lane);
        self.offer(job.entry, lane);
        Some(job)
    }

    /// The next job that may start now, if any; it counts as running from here on.
    pub fn start(&mut self, now: Time) -> Option<Waiting> {
        self.let_go(now);
        if self.closed {
            return None;
        }
        let free = self.workers.saturating_sub(self.running.len());
        let resting = |queue: &Queue| queue.busy.is_empty();
        let reserved = self.queues.iter().filter(|queue| resting(queue)).count();
        let entry = self
            .queues
            .iter()
            .enumerate()
            .filter(|(_, queue)| {
                !queue.ready.is_empty()
                    && queue.busy.len() < queue.entry.concurrency
                    && match resting(queue) {
                        true => free > 0,
                        false => free > reserved.min(self.workers / 2),
                    }
            })
            .min_by_key(|(_, queue)| queue.ready.front().and_then(|lane| queue.head(lane)))
            .map(|(entry, _)| entry)?;
        let queue = &mut self.queues[entry];
        let lane = queue.ready.pop_front()?;
        let jobs = queue.lanes.get_mut(&lane)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            queue.lanes.remove(&lane);
        }
        queue.waiting -= 1;
        queue.busy.insert(lane.clone());
        self.running.insert(job.id, (lane, job.clone()));
        let stamps = &mut self.unstarted[job.engine.at()];
        if let Some(count) = stamps.get_mut(&job.event.time_ns) {
            *count -= 1;
            if *count == 0 {
                stamps.remove(&job.event.time_ns);
            }
        }
        Some(job)
    }

    /// The stamp of an engine's first event that has a job not yet started.
    pub fn first_unstarted(&self, engine: EngineIndex) -> Option<i64> {
        self.unstarted[engine.at()].keys().next().copied()
    }

    /// How many commands run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The commands of one engine that run, oldest first.
    pub fn running_of(&self, engine: EngineIndex) -> impl Iterator<Item = &Waiting> {
        let jobs = self.running.values().map(|(_, job)| job);
        jobs.filter(move |job| job.engine == engine)
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting).sum()
    }

    /// Nothing more is started.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// When a job has waited long enough for the store.
    pub fn deadline(&self) -> Option<Time> {
        self.held.front().map(|(at, _, _)| *at)
    }

    /// Puts a lane that is not busy where its head belongs: among the ready ones, or among those that wait for the store.
    fn offer(&mut self, entry: usize, lane: Lane) {
        let queue = &mut self.queues[entry];
        match queue.lanes.get(&lane).and_then(|jobs| jobs.front()) {
            Some(Waiting {
                hold: Some((_, _, until)),
                ..
            }) => {
                let place = self.held.partition_point(|(at, _, _)| at <= until);
                self.held.insert(place, (*until, entry, lane));
            }
            Some(_) => queue.ready.push_back(lane),
            None => {}
        }
    }

    /// Frees the lanes whose head has waited long enough.
    fn let_go(&mut self, now: Time) {
        while let Some((at, _, _)) = self.held.front()
            && *at <= now
        {
            let Some((_, entry, lane)) = self.held.pop_front() else {
                break;
            };
            let queue = &mut self.queues[entry];
            if queue.busy.contains(&lane) {
                continue;
            }
            if let Some(job) = queue.lanes.get_mut(&lane).and_then(|jobs| jobs.front_mut())
                && job.hold.as_ref().is_some_and(|(_, _, until)| *until <= now)
            {
                job.hold = None;
                queue.ready.push_back(lane);
            }
        }
    }
}

impl Queue {
    fn head(&self, lane: &Lane) -> Option<u64> {
        self.lanes
            .get(lane)
            .and_then(|jobs| jobs.front())
            .map(|job| job.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Filter;

    const E: EngineIndex = EngineIndex(0);

    fn entries(concurrency: &[usize]) -> Vec<Arc<Entry>> {
        concurrency
            .iter()
            .map(|concurrency| {
                Arc::new(Entry {
                    name: "e".into(),
                    filter: Filter::default(),
                    command: Some("true".into()),
                    log: None,
                    timeout: Time::from_secs(60),
                    grace: Time::from_secs(5),
                    concurrency: *concurrency,
                })
            })
            .collect()
    }

    fn event(container: &str, ns: i64) -> Arc<Event> {
        Arc::new(Event {
            kind: "container".into(),
            action: "die".into(),
            id: container.into(),
            attributes: Vec::new(),
            time_ns: ns,
        })
    }

    fn started(jobs: &mut Jobs, now: Time) -> Vec<(u64, String)> {
        std::iter::from_fn(|| jobs.start(now))
            .map(|job| (job.id, job.event.id.to_string()))
            .collect()
    }

    #[test]
    fn one_container_runs_in_order_and_others_beside_it() {
        let mut jobs = Jobs::new(&entries(&[8]), 64, 1);
        for (container, ns) in [("a", 1), ("a", 2), ("b", 3)] {
            jobs.add(
                Time::ZERO,
                0,
                E,
                &event(container, ns),
                false,
                Hold::Nothing,
            );
        }
        assert_eq!(
            started(&mut jobs, Time::ZERO),
            [(1, "a".into()), (3, "b".into())]
        );
        assert_eq!(jobs.first_unstarted(E), Some(2));
        jobs.ended(1);
        assert_eq!(started(&mut jobs, Time::ZERO), [(2, "a".into())]);
        assert_eq!(jobs.first_unstarted(E), None);
    }

    #[test]
    fn an_entry_that_hangs_leaves_room_for_the_others() {
        let mut jobs = Jobs::new(&entries(&[8, 8, 8]), 4, 1);
        for n in 0..20 {
            jobs.add(
                Time::ZERO,
                0,
                E,
                &event(&format!("a{n}"), n),
                false,
                Hold::Nothing,
            );
        }
        let hung = started(&mut jobs, Time::ZERO);
        assert_eq!(
            hung.len(),
            2,
            "half of the slots are kept for entries at rest"
        );
        jobs.add(Time::ZERO, 1, E, &event("b", 30), false, Hold::Nothing);
        jobs.add(Time::ZERO, 2, E, &event("c", 31), false, Hold::Nothing);
        assert_eq!(started(&mut jobs, Time::ZERO).len(), 2);
    }

    #[test]
    fn a_job_waits_for_its_revision_but_not_for_ever() {
        let mut jobs = Jobs::new(&entries(&[8]), 64, 1);
        jobs.add(Time::ZERO, 0, E, &event("a", 1), false, Hold::Written(7));
        jobs.add(Time::ZERO, 0, E, &event("b", 2), false, Hold::Written(8));
        assert!(started(&mut jobs, Time::ZERO).is_empty());
        jobs.written(E, &"a".into(), 6);
        assert!(started(&mut jobs, Time::ZERO).is_empty());
        jobs.written(E, &"a".into(), 7);
        assert_eq!(started(&mut jobs, Time::ZERO), [(1, "a".into())]);
        assert_eq!(jobs.deadline(), Some(WRITE_FIRST));
        assert_eq!(started(&mut jobs, WRITE_FIRST), [(2, "b".into())]);
        assert!(started(&mut jobs, WRITE_FIRST * 2).is_empty());
    }

    #[test]
    fn a_full_queue_drops_and_says_so_once() {
        let mut jobs = Jobs::new(&entries(&[1]), 64, 1);
        for n in 0..WAITING as i64 {
            assert_eq!(
                jobs.add(Time::ZERO, 0, E, &event("a", n), false, Hold::Nothing),
                Added::Queued
            );
        }
        assert_eq!(
            jobs.add(Time::ZERO, 0, E, &event("a", 0), false, Hold::Nothing),
            Added::Dropped(true)
        );
        assert_eq!(
            jobs.add(Time::ZERO, 0, E, &event("a", 0), false, Hold::Nothing),
            Added::Dropped(false)
        );
        assert_eq!((jobs.dropped_total, jobs.waiting()), (2, WAITING));
    }

    #[test]
    fn a_store_that_goes_down_frees_all_who_wait_for_it_once() {
        let mut jobs = Jobs::new(&entries(&[8]), 64, 1);
        jobs.add(Time::ZERO, 0, E, &event("a", 1), false, Hold::Written(7));
        jobs.release_all();
        assert_eq!(started(&mut jobs, Time::ZERO), [(1, "a".into())]);
        jobs.written(E, &"a".into(), 7);
        jobs.ended(1);
        assert!(started(&mut jobs, WRITE_FIRST).is_empty());
    }
}
