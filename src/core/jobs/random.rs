//! All rules at once: random events, ends, answers and reloads, against a model that is slow and obvious: lists, and a scan for every question.
//!
//! `SEED=17` runs one seed alone, `SEEDS=1000` so many.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::model::{Event, Order, Queueing};

const SEEDS: u64 = 300;
const STEPS: usize = 400;
const ENGINES: usize = 2;

/// A job of the model.
#[derive(Clone, Debug)]
struct Plain {
    id: u64,
    lane: Lane,
    attempt: u32,
    stamps: Vec<(EngineIndex, i64)>,
    revision: u64,
    came: Time,
    written: bool,
    seen: bool,
    due: Time,
    told: bool,
}

impl Plain {
    fn is_held(&self, now: Time) -> bool {
        let waited = now.saturating_sub(self.came);
        let written = self.written || waited >= holds::WRITE_FIRST;
        let seen = self.seen || waited >= holds::LOOK_FIRST;
        self.revision > 0 && !(written && seen)
    }
}

/// An entry of the model.
#[derive(Clone, Debug)]
struct Shelf {
    entry: Arc<Entry>,
    retired: bool,
    /// In the order in which they come to their turn, container by container.
    waiting: Vec<Plain>,
    running: Vec<Plain>,
    group: Option<(Plain, Time, Time)>,
    cool: HashMap<Lane, Time>,
}

impl Shelf {
    fn new(entry: &Arc<Entry>) -> Self {
        Shelf {
            entry: entry.clone(),
            retired: false,
            waiting: Vec::new(),
            running: Vec::new(),
            group: None,
            cool: HashMap::new(),
        }
    }

    fn queueing(&self) -> &Queueing {
        &self.entry.queueing
    }

    fn in_order(&self) -> bool {
        self.queueing().order == Order::Container
    }

    fn wanted(&self, at: Time) -> usize {
        let running = self.running.iter().filter(|job| !job.told).count();
        running + self.waiting.iter().filter(|job| job.due <= at).count()
    }

    fn covers(&self, now: Time, lane: &Lane) -> bool {
        self.cool.get(lane).is_some_and(|until| *until > now)
    }

    /// The oldest job that may start now.
    fn first(&self, now: Time) -> Option<u64> {
        if self.running.len() >= self.queueing().concurrency {
            return None;
        }
        let mut lanes = HashSet::new();
        let mut ids = Vec::new();
        if self.in_order() {
            lanes.extend(self.running.iter().map(|job| &job.lane));
        }
        for job in &self.waiting {
            let turn = !self.in_order() || lanes.insert(&job.lane);
            if turn && job.due <= now && !job.is_held(now) {
                ids.push(job.id);
            }
        }
        ids.into_iter().min()
    }

    fn take(&mut self, id: u64) -> Plain {
        let at = self.waiting.iter().position(|job| job.id == id);
        self.waiting.remove(at.expect("it waits"))
    }

    fn tell_oldest(&mut self, said: &mut Said) -> bool {
        let oldest = self.running.iter_mut().filter(|job| !job.told);
        let oldest = oldest.min_by_key(|job| job.id);
        oldest.map(|job| said.end(job)).is_some()
    }

    /// A job comes to the queue.
    fn come(&mut self, now: Time, at: Time, job: Plain, said: &mut Said) {
        if self.covers(now, &job.lane) {
            return said.left(&job, "Cooldown");
        }
        let concurrency = self.queueing().concurrency;
        let mine = |other: &Plain| other.lane == job.lane;
        match self.queueing().on_busy {
            OnBusy::Queue => {}
            OnBusy::Skip => {
                let lane = self.in_order()
                    && (self.waiting.iter().any(mine) || self.running.iter().any(mine));
                if lane || self.wanted(at) >= concurrency {
                    return said.left(&job, "Busy");
                }
            }
            OnBusy::Replace if self.in_order() => {
                let running = self.running.iter_mut();
                for other in running.filter(|other| mine(other) && !other.told) {
                    said.end(other);
                }
                for old in self.waiting.extract_if(.., |other| mine(other)) {
                    said.left(&old, "Replaced");
                }
                if self.wanted(at) >= concurrency {
                    self.tell_oldest(said);
                }
            }
            OnBusy::Replace => {
                while self.wanted(Time::MAX) >= concurrency {
                    let oldest = self.waiting.iter().map(|job| job.id).min();
                    match oldest {
                        Some(id) => said.left(&self.take(id), "Replaced"),
                        None if self.tell_oldest(said) => {}
                        None => break,
                    }
                }
            }
        }
        self.waiting.push(job);
    }

    fn unstarted(&self) -> impl Iterator<Item = (EngineIndex, i64)> {
        let group = self.group.iter().map(|(job, ..)| job);
        let jobs = self.waiting.iter().chain(group);
        jobs.flat_map(|job| job.stamps.iter().copied())
    }
}

struct Trial {
    random: Random,
    jobs: Jobs,
    now: Time,
    shelves: Vec<Shelf>,
    next: u64,
    stamp: i64,
    workers: usize,
    revision: u64,
    said: Said,
    /// Events that are done with; each only once.
    fates: HashSet<i64>,
    /// The newest event of each container that an entry ran.
    last: HashMap<(Arc<str>, Lane), i64>,
}

/// What must follow.
#[derive(Default)]
struct Said {
    words: Vec<String>,
    /// Stamps of events that nothing more will come of.
    gone: Vec<i64>,
}

impl Said {
    fn left(&mut self, job: &Plain, why: &str) {
        self.words.push(format!("{} {why}", job.id));
        self.gone.extend(job.stamps.iter().map(|(_, stamp)| *stamp));
    }

    fn end(&mut self, job: &mut Plain) {
        job.told = true;
        self.words.push(format!("end {}", job.id));
    }
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let workers = 1 + random.draw() as usize % 6;
        let count = 1 + random.draw() as usize % 4;
        let entries: Vec<_> = (0..count).map(|n| any_entry(&mut random, n)).collect();
        Trial {
            jobs: Jobs::new(&entries, workers, Time::from_secs(300)),
            now: Time::ZERO,
            shelves: entries.iter().map(Shelf::new).collect(),
            next: 1,
            stamp: 0,
            workers,
            revision: 0,
            said: Said::default(),
            fates: HashSet::new(),
            last: HashMap::new(),
            random,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        (self.random.draw() % n.max(1) as u64) as usize
    }

    fn lane(&mut self) -> Lane {
        let engine = EngineIndex(self.below(ENGINES) as u32);
        (engine, ["a", "b", "c"][self.below(3)].into())
    }

    fn step(&mut self) {
        match self.below(12) {
            0..=4 => self.add(),
            5..=6 => self.end(),
            7 => self.see(),
            8..=9 => {
                let time = Time::from_millis(self.random.draw() % 400);
                self.pass(time);
            }
            10 if self.below(20) == 0 => self.reload(),
            _ => self.run(),
        }
    }

    // ---- the same, to both

    fn add(&mut self) {
        let place = self.below(self.shelves.iter().filter(|shelf| !shelf.retired).count());
        let lane = self.lane();
        self.stamp += 1;
        self.revision += 1;
        let revision = self.revision * u64::from(self.below(3) > 0);
        let write_first = self.below(2) == 0;
        let event = Event {
            kind: "container".into(),
            id: (&*lane.1).into(),
            time_ns: self.stamp,
            ..Event::default()
        };
        let trigger = Trigger {
            place,
            engine: lane.0,
            event: event.into(),
            inferred: false,
            revision,
            write_first,
            hidden: false,
            once: None,
        };
        let again = self.below(30) == 0;
        let attempt = if again { 2 } else { 1 };
        let begun = Begun {
            run: "r".into(),
            attempt: 1,
            count: 1,
        };
        match again {
            true => self.jobs.add_again(self.now, trigger, begun),
            false => self.jobs.add(self.now, trigger),
        }
        let mut job = Plain {
            id: self.next,
            stamps: vec![(lane.0, self.stamp)],
            lane,
            attempt,
            revision,
            came: self.now,
            written: !write_first,
            seen: false,
            due: Time::ZERO,
            told: false,
        };
        let now = self.now;
        let shelf = &mut self.shelves[place];
        let debounce = shelf.queueing().debounce.filter(|_| !again);
        if let Some(debounce) = debounce {
            let mut first = now;
            if let Some((old, since, _)) = shelf.group.take() {
                job.id = old.id;
                job.stamps.extend(old.stamps);
                first = since;
            }
            let due = (now + debounce.quiet).min(first + debounce.max);
            self.next = self.next.max(job.id + 1);
            shelf.group = Some((job, first, due));
        } else if again {
            self.next += 1;
            // No successor has to take up before its event.
            self.said
                .gone
                .extend(job.stamps.drain(..).map(|(_, stamp)| stamp));
            shelf.waiting.push(job);
        } else {
            self.next += 1;
            shelf.come(now, now, job, &mut self.said);
        }
    }

    fn end(&mut self) {
        let running: Vec<(usize, u64)> = (0..self.shelves.len())
            .flat_map(|at| self.shelves[at].running.iter().map(move |job| (at, job.id)))
            .collect();
        if running.is_empty() {
            return;
        }
        let (at, id) = running[self.below(running.len())];
        let shelf = &mut self.shelves[at];
        let place = shelf.running.iter().position(|job| job.id == id);
        let mut job = shelf.running.remove(place.expect("it runs"));
        let exit = match self.random.draw() % 4 {
            0 => Exit::Code(0),
            1 => Exit::TimedOut,
            2 if job.told => Exit::Replaced,
            _ => Exit::Code(3),
        };
        let ended = self.jobs.ended(self.now, id, &exit, &mut self.random);
        let again = ended.expect("it runs").again;
        let shelf = &mut self.shelves[at];
        let failed = !matches!(exit, Exit::Code(0) | Exit::Replaced) && !job.told;
        let tries = failed && !shelf.retired && job.attempt <= shelf.queueing().retries;
        assert_eq!(again.is_some(), tries, "{exit:?} of {job:?}");
        if let Some(delay) = again {
            job.id = self.next;
            self.next += 1;
            job.attempt += 1;
            job.due = self.now + delay;
            job.revision = 0;
            job.stamps.clear();
            shelf.waiting.insert(0, job);
        }
        self.shelves
            .retain(|of| !of.retired || !of.running.is_empty());
    }

    fn see(&mut self) {
        let lane = self.lane();
        let revision = self.revision - self.random.draw() % (self.revision + 1).min(8);
        let id = ContainerId(lane.1.clone());
        let what = self.below(9);
        match what {
            0..=3 => self.jobs.seen(lane.0, &id, revision),
            4..=7 => self.jobs.written(lane.0, &id, revision),
            _ => self.jobs.store_is_down(self.now),
        }
        for shelf in &mut self.shelves {
            let group = shelf.group.iter_mut().map(|(job, ..)| job);
            for job in shelf.waiting.iter_mut().chain(group) {
                let is_it = job.lane == lane && job.revision <= revision;
                match what {
                    0..=3 => job.seen |= is_it,
                    4..=7 => job.written |= is_it,
                    _ => job.written = true,
                }
            }
        }
    }

    fn reload(&mut self) {
        let mut left: Vec<Shelf> = std::mem::take(&mut self.shelves);
        let mut entries: Vec<Arc<Entry>> = left
            .iter()
            .filter(|shelf| !shelf.retired)
            .map(|shelf| shelf.entry.clone())
            .collect();
        match self.below(3) {
            0 if entries.len() > 1 => drop(entries.swap_remove(0)),
            1 => entries.insert(0, any_entry(&mut self.random, 90 + self.stamp as usize)),
            _ => {
                let number = self.below(entries.len());
                let name = entries[number].name.trim_start_matches('e').parse();
                entries[number] = any_entry(&mut self.random, name.expect("a number"));
            }
        }
        let done = self.jobs.reload(&entries);
        let mut kept = 0;
        for entry in &entries {
            let same = |shelf: &Shelf| !shelf.retired && shelf.entry == *entry;
            let shelf = match left.iter().position(same) {
                Some(at) => {
                    kept += 1;
                    left.remove(at)
                }
                None => Shelf::new(entry),
            };
            self.shelves.push(shelf);
        }
        let mut dropped = 0;
        for mut shelf in left {
            let unstarted = shelf.unstarted().map(|(_, stamp)| stamp);
            self.said.gone.extend(unstarted);
            dropped += shelf.waiting.len() + usize::from(shelf.group.is_some());
            shelf.waiting.clear();
            shelf.group = None;
            shelf.retired = true;
            if !shelf.running.is_empty() {
                self.shelves.push(shelf);
            }
        }
        assert_eq!((done.kept, done.dropped), (kept, dropped));
        assert_eq!(done.kept + done.new, entries.len());
    }

    /// Time goes from one deadline to the next, as it does for the core.
    fn pass(&mut self, time: Time) {
        let target = self.now + time;
        let mut spins = 0;
        while let Some(at) = self.jobs.deadline()
            && at <= target
        {
            spins = if at > self.now { 0 } else { spins + 1 };
            assert!(spins < 3, "it spins");
            self.now = self.now.max(at);
            self.run();
        }
        self.now = target;
        self.run();
    }

    // ---- what must come of it

    /// All starts that can.
    fn run(&mut self) {
        self.wake();
        while let Some(job) = self.jobs.start(self.now) {
            let at = self.turn().expect("nothing might have started");
            let id = self.shelves[at].first(self.now).expect("it has a turn");
            assert_eq!(job.id, id, "another's turn");
            let plain = self.shelves[at].take(id);
            self.started(at, &job, plain);
        }
        assert_eq!(self.turn(), None, "one might have started");
        self.compare();
    }

    /// What was collected long enough comes to the queue.
    fn wake(&mut self) {
        let now = self.now;
        for shelf in &mut self.shelves {
            if let Some((job, _, due)) = shelf.group.take_if(|(.., due)| *due <= now) {
                shelf.come(now, due, job, &mut self.said);
            }
        }
    }

    /// Whose turn it is; those that come too soon after another of their container lose it.
    fn turn(&mut self) -> Option<usize> {
        loop {
            let running: usize = self.shelves.iter().map(|shelf| shelf.running.len()).sum();
            let free = self.workers.saturating_sub(running);
            let rests = |shelf: &&Shelf| !shelf.retired && shelf.running.is_empty();
            let kept = self.shelves.iter().filter(rests).count();
            let kept = kept.min(self.workers / 2);
            let mut turns: Vec<(u64, usize)> = Vec::new();
            for (at, shelf) in self.shelves.iter().enumerate() {
                let may = rests(&shelf) || free > kept;
                turns.extend(shelf.first(self.now).filter(|_| may).map(|id| (id, at)));
            }
            let (id, at) = turns.into_iter().min()?;
            let shelf = &mut self.shelves[at];
            let job = shelf.waiting.iter().find(|job| job.id == id);
            let job = job.expect("it waits");
            if job.attempt > 1 || !shelf.covers(self.now, &job.lane) {
                return Some(at);
            }
            let job = shelf.take(id);
            self.said.left(&job, "Cooldown");
        }
    }

    fn started(&mut self, at: usize, job: &Waiting, plain: Plain) {
        let shelf = &mut self.shelves[at];
        let entry = &shelf.entry;
        assert_eq!((&job.entry, job.attempt), (entry, plain.attempt));
        assert_eq!(job.lane, plain.lane);
        assert!(!shelf.retired && shelf.running.len() < entry.queueing.concurrency);
        let beside = shelf.running.iter().any(|other| other.lane == plain.lane);
        assert!(
            !shelf.in_order() || !beside,
            "two at once for {:?}",
            plain.lane
        );
        if let Some((_, newest)) = plain.stamps.first() {
            assert_eq!(job.event.time_ns, *newest);
            assert_eq!(job.count, plain.stamps.len() as u64);
            if shelf.in_order() && entry.queueing.debounce.is_none() {
                let last = self
                    .last
                    .insert((entry.name.clone(), job.lane.clone()), *newest);
                assert!(last < Some(*newest), "out of order");
            }
        }
        let cooldown = entry.queueing.cooldown;
        shelf.cool.insert(plain.lane.clone(), self.now + cooldown);
        self.said
            .gone
            .extend(plain.stamps.iter().map(|(_, stamp)| *stamp));
        shelf.running.push(plain);
        let all = self.shelves.iter().map(|shelf| shelf.running.len());
        assert!(all.sum::<usize>() <= self.workers + self.shelves.len());
    }

    /// Nothing differs that one can ask for.
    fn compare(&mut self) {
        let mut told: Vec<String> = Vec::new();
        for outcome in self.jobs.outcomes() {
            told.push(match outcome {
                Outcome::End(id) => format!("end {id}"),
                Outcome::Left(job, why) => format!("{} {why:?}", job.id),
                Outcome::Twice(job) => format!("{} twice", job.id),
            });
        }
        told.sort();
        self.said.words.sort();
        assert_eq!(told, std::mem::take(&mut self.said.words));
        for stamp in self.said.gone.drain(..) {
            assert!(
                self.fates.insert(stamp),
                "event {stamp} was done with before"
            );
        }
        for engine in (0..ENGINES as u32).map(EngineIndex) {
            let stamps = self.shelves.iter().flat_map(Shelf::unstarted);
            let first = stamps
                .filter(|(of, _)| *of == engine)
                .map(|(_, stamp)| stamp);
            assert_eq!(self.jobs.first_unstarted(engine), first.min());
        }
        let waiting = self
            .shelves
            .iter()
            .map(|shelf| shelf.waiting.len() + usize::from(shelf.group.is_some()));
        assert_eq!(self.jobs.waiting(), waiting.sum::<usize>());
        let running = self.shelves.iter().map(|shelf| shelf.running.len());
        assert_eq!(self.jobs.running(), running.sum::<usize>());
    }

    /// Whatever waits runs, sooner or later.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            self.run();
            while self.jobs.running() > 0 {
                self.end();
                self.run();
            }
            match self.jobs.deadline() {
                Some(at) => self.pass(at.saturating_sub(self.now)),
                None => break,
            }
        }
        assert_eq!((self.jobs.waiting(), self.jobs.running()), (0, 0));
        assert_eq!(self.fates.len() as i64, self.stamp, "events are lost");
        assert!(self.jobs.queues.len() == self.jobs.places.len());
    }
}

fn any_entry(random: &mut Random, number: usize) -> Arc<Entry> {
    let mut below = |n: u64| random.draw() % n;
    let some = |yes: bool, time: u64| Time::from_millis(if yes { time } else { 0 });
    let queueing = Queueing {
        concurrency: 1 + below(4) as usize,
        order: [Order::Container, Order::None][below(2) as usize],
        on_busy: [OnBusy::Queue, OnBusy::Skip, OnBusy::Replace][below(3) as usize],
        debounce: (below(4) == 0).then(|| {
            let quiet = Time::from_millis(50 + below(400));
            Debounce {
                quiet,
                max: quiet * (1 + below(5) as u32),
            }
        }),
        cooldown: some(below(4) == 0, 100 + below(2000)),
        retries: (below(2) * below(4)) as u32,
        backoff: Time::from_millis(1 + below(300)),
    };
    Arc::new(Entry {
        name: format!("e{number}").into(),
        command: Some("true".into()),
        queueing,
        ..Entry::default()
    })
}

fn trial(seed: u64) {
    let mut trial = Trial::new(seed);
    for _ in 0..STEPS {
        trial.step();
        trial.compare();
    }
    trial.finish();
}

#[test]
fn whatever_happens_the_queues_do_what_their_rules_say() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| trial(seed)) {
            let text = panic.downcast_ref::<String>().map_or("", |text| text);
            panic!("SEED={seed}: {text}");
        }
    }
}
