//! A seeded random test: engines, their threads and the store answer in any order, late, wrongly or not at all; then all faults end, and after some
//! minutes the store must hold exactly what the engines have.
//!
//! `SEED=17` runs one seed alone, `SEEDS=1000` so many, from `FROM` on (they are printed when they fail).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::docker::Told;
use super::store::Fate;
use super::world::{World, settings};
use crate::core::backoff::Random;
use crate::core::engine::Counters;
use crate::core::{StreamEnd, Time};
use crate::model::{Debounce, EngineIndex, Entry, Filter, OnBusy, Order, Queueing};

/// How many seeds are tried when nobody says otherwise.
const SEEDS: u64 = 150;

/// Steps of the noisy phase of each.
const STEPS: usize = 1500;

/// The reader renews a stream that told so many events (`reader.rs`).
const MANY: usize = 192;

fn take(texts: &mut Vec<&str>, is_it: impl Fn(&str) -> bool) -> bool {
    let place = texts.iter().position(|text| is_it(text));
    place.map(|place| texts.remove(place)).is_some()
}

/// What may go wrong with one seed.
#[derive(Clone, Copy, Debug)]
struct Faults {
    /// Events that streams drop, and that nobody ever tells.
    drops: bool,
    /// Streams that end by themselves, engines that die or come back without their ring, deaths that nobody saw.
    breaks: bool,
    /// Another engine at the address.
    replaced: bool,
    /// The engine's clock jumps.
    clock: bool,
    /// Inspects that hang.
    hangs: bool,
    /// The store goes away, loses replies, everything, or our lease.
    store: bool,
    /// The agent is killed and started anew.
    restarts: bool,
    /// Engines leave the file and come back, at other addresses too.
    reloads: bool,
}

impl Faults {
    fn new(random: &mut Random) -> Self {
        let quiet = random.draw().is_multiple_of(5);
        let mut some = || !quiet && random.draw().is_multiple_of(2);
        Faults {
            drops: some(),
            breaks: some(),
            replaced: some(),
            clock: some(),
            hangs: some(),
            store: some(),
            restarts: some(),
            reloads: some(),
        }
    }
}

/// What runs for every start and every end, each in its own way. Only `all` is sure to run once for each; `one` needs a cache.
fn entries() -> Vec<Arc<Entry>> {
    let queueing = Queueing {
        concurrency: 3,
        ..Queueing::default()
    };
    let again = Queueing {
        retries: 2,
        backoff: Time::from_millis(200),
        ..queueing.clone()
    };
    let newest = Queueing {
        on_busy: OnBusy::Replace,
        concurrency: 1,
        ..again.clone()
    };
    let quiet = Queueing {
        debounce: Some(Debounce {
            quiet: Time::from_millis(100),
            max: Time::from_secs(1),
        }),
        order: Order::None,
        ..again.clone()
    };
    let seldom = Queueing {
        cooldown: Time::from_secs(5),
        on_busy: OnBusy::Skip,
        ..queueing.clone()
    };
    let entry = |(name, queueing): (&str, Queueing)| {
        let filter = Filter {
            types: ["start", "die", "rename", "pause", "engine/*"].into(),
            ..Filter::default()
        };
        Arc::new(Entry {
            name: name.into(),
            filter,
            existing: true,
            command: Some("true".into()),
            once: name == "one",
            queueing,
            ..Entry::default()
        })
    };
    let all = [
        ("one", again.clone()),
        ("all", queueing),
        ("again", again),
        ("newest", newest),
        ("quiet", quiet),
        ("seldom", seldom),
    ];
    all.map(entry).to_vec()
}

struct Simulation {
    world: World,
    random: Random,
    faults: Faults,
    /// Time since everything that waited was let through.
    waited: Time,
    ids: u64,
    /// What ended processes had counted.
    counted: Vec<Counters>,
    /// How many gaps each engine has counted in this process, and when the last one was.
    gaps: Vec<(u64, Option<Time>)>,
    restarts: u64,
    /// How many commands had run when each process but the first began, and when the engine left the file; by engine.
    lives: Vec<Vec<usize>>,
    /// How often each engine left the file: it may have told something meanwhile, and its jobs were dropped.
    left: Vec<u64>,
    /// Engines that were replaced by others: what the old ones had not told is lost without a word.
    replaced: Vec<bool>,
    /// Settles in a row in which time did not pass.
    spins: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::new(&mut random);
        let engines = 1 + random.draw() as usize % 3;
        let mut settings = settings(&["a", "b", "c"][..engines]);
        settings.seed = seed;
        settings.workers = 4;
        settings.interval = Time::from_secs(20);
        settings.entries = Some(entries());
        if let Some(cache) = &mut settings.cache {
            cache.all = random.draw().is_multiple_of(2);
            cache.filtered = random.draw().is_multiple_of(3);
            cache.forget_after = Time::from_secs(5 + random.draw() % 60);
        }
        if random.draw().is_multiple_of(6) {
            settings.cache = None;
            settings.entries.get_or_insert_default().remove(0);
        }
        Simulation {
            world: World::new(settings),
            random,
            faults,
            waited: Time::ZERO,
            ids: 0,
            counted: vec![Counters::default(); engines],
            gaps: vec![(0, None); engines],
            restarts: 0,
            lives: vec![Vec::new(); engines],
            left: vec![0; engines],
            replaced: vec![false; engines],
            spins: 0,
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.draw().is_multiple_of(n)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.random.draw() % n.max(1) as u64) as usize
    }

    fn engine(&mut self) -> usize {
        self.below(self.world.dockers.len())
    }

    // ---- time

    fn pass(&mut self, time: Time) {
        let target = self.world.now + time;
        self.settle();
        while let Some(at) = self.world.deadline()
            && at <= target
        {
            self.spins = if at > self.world.now {
                0
            } else {
                self.spins + 1
            };
            assert!(self.spins < 100, "the core spins at {:?}", self.world.now);
            self.world.now = self.world.now.max(at);
            self.settle();
        }
        self.world.now = target;
        self.settle();
        self.waited += time;
        if self.waited > Time::from_millis(600) && !self.faults.breaks {
            self.drain();
        }
    }

    fn settle(&mut self) {
        self.world.settle();
        self.world.check();
        for (at, (count, when)) in self.gaps.iter_mut().enumerate() {
            let gaps = self.world.counters(at).gaps;
            if gaps > *count {
                *when = Some(self.world.now);
            }
            *count = gaps;
        }
    }

    /// Everything that waits is answered, in the order in which it was asked.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            let mut any = self.world.haunt();
            for at in 0..self.world.dockers.len() {
                any |= self.world.open_stream(at);
                any |= self.hear(at);
                any |= self.world.compute(at);
                any |= self.world.answer(at);
            }
            any |= self.world.serve(Fate::Served);
            if let Some(id) = self.world.running.keys().next().copied() {
                any |= self.world.end_run(id, 0);
            }
            self.settle();
            if !any {
                self.waited = Time::ZERO;
                return;
            }
        }
        panic!("there is no end to it at {:?}", self.world.now);
    }

    /// One event arrives; the reader renews the stream when it told many.
    fn hear(&mut self, at: usize) -> bool {
        let heard = self.world.hear(at);
        if self.world.dockers[at]
            .stream
            .as_ref()
            .is_some_and(|stream| stream.fresh >= MANY)
        {
            self.world.renew(at);
        }
        heard
    }

    // ---- what happens

    /// What the engines told before the agent came, within two hours.
    fn history(&mut self) {
        for at in 0..self.world.dockers.len() {
            let mut ago: Vec<u64> = (0..self.below(6))
                .map(|_| 1 + self.random.draw() % 7200)
                .collect();
            ago.sort_unstable();
            let now = self.world.now;
            while let Some(ago) = ago.pop() {
                self.ids += 1;
                let id = format!("c{}", self.ids);
                let docker = &mut self.world.dockers[at];
                docker.skew_ns = -(ago as i64) * 1_000_000_000;
                docker.create(now, &id, &format!("n-{id}"), "image0", Told::Yes);
                docker.start(now, &id, Told::Yes);
            }
            let docker = &mut self.world.dockers[at];
            docker.skew_ns = 0;
            let runs = std::mem::take(&mut docker.runs);
            docker.before = runs.into_iter().map(|(_, text)| text).collect();
        }
    }

    fn noise(&mut self) {
        let at = self.engine();
        match self.random.draw() % 20 {
            0..=2 => self.containers(at),
            3..=6 => {
                self.hear(at);
            }
            7 => {
                self.world.open_stream(at);
            }
            8..=9 => {
                if self.faults.hangs && self.one_in(20) {
                    self.world.hang(at);
                } else if self.faults.hangs && self.one_in(20) {
                    self.world.answers_no_ping(at);
                } else {
                    self.world.compute(at);
                }
            }
            10..=12 => {
                self.world.compute(at);
                self.world.answer(at);
            }
            13 => {
                let which = self.below(self.world.threads[at].hung.len());
                self.world.unhang(at, which);
            }
            14..=15 => self.serve(),
            16 => {
                let runs: Vec<u64> = self.world.running.keys().copied().collect();
                if let Some(id) = runs.get(self.below(runs.len())) {
                    let code = i32::from(self.one_in(3));
                    self.world.end_run(*id, code);
                }
            }
            17 => {
                let time = match self.random.draw() % 12 {
                    0 => 2500,
                    1 => 700,
                    _ => self.random.draw() % 60,
                };
                if time > 500 && !self.faults.breaks {
                    self.drain();
                }
                self.pass(Time::from_millis(time));
            }
            18 => self.trouble(at),
            _ if self.one_in(3) => {
                self.world.haunt();
            }
            _ if self.one_in(2) => {
                self.world.overlap(at);
            }
            _ => {
                self.world.renew(at);
            }
        }
        if !self.one_in(4) {
            self.settle();
        }
    }

    fn serve(&mut self) {
        let fate = match self.faults.store && self.one_in(8) {
            true if self.one_in(2) => Fate::LostAfter,
            true => Fate::LostBefore,
            false => Fate::Served,
        };
        self.world.serve(fate);
    }

    fn containers(&mut self, at: usize) {
        if !self.world.dockers[at].alive {
            return;
        }
        let told = match self.faults.drops && self.one_in(15) {
            true if self.one_in(3) => Told::Never,
            true => Told::Dropped,
            false => Told::Yes,
        };
        let now = self.world.now;
        let ids: Vec<String> = self.world.dockers[at].containers.keys().cloned().collect();
        let new = ids.is_empty() || (ids.len() < 12 && self.one_in(5));
        if new {
            self.ids += 1;
            let id = format!("c{}", self.ids);
            let image = format!("image{}", self.random.draw() % 3);
            let member = !self.one_in(3);
            let docker = &mut self.world.dockers[at];
            docker.create(now, &id, &format!("n-{id}"), &image, told);
            if let Some(container) = docker.containers.get_mut(&id) {
                container.member = member;
            }
            docker.start(now, &id, told);
            return;
        }
        let id = ids[self.below(ids.len())].clone();
        let other = ids[self.below(ids.len())].clone();
        let pick = self.random.draw() % 10;
        let burst = self.one_in(3);
        let docker = &mut self.world.dockers[at];
        let running = docker.containers[&id].running;
        match (pick, running) {
            (0..=1, true) => {
                docker.emit(now, "container", "kill", &id, told);
                docker.die(now, &id, 137, told);
            }
            (0..=3, false) => docker.start(now, &id, told),
            (2, true) => {
                docker.die(now, &id, 1, told);
                docker.start(now, &id, told);
                docker.emit(now, "container", "restart", &id, told);
            }
            (3, true) => {
                docker.die(now, &id, 0, told);
                docker.destroy(now, &id, told);
            }
            (4, false) => docker.destroy(now, &id, told),
            (5, _) if id != other => {
                let (mine, theirs) = (
                    docker.containers[&id].name.clone(),
                    docker.containers[&other].name.clone(),
                );
                docker.rename(now, &id, "between", told);
                docker.rename(now, &other, &mine, told);
                docker.rename(now, &id, &theirs, told);
            }
            (6, _) => {
                // Sometimes so many that the engine forgets what was before.
                let count = if burst { 100 } else { 1 };
                for _ in 0..count {
                    docker.emit(now, "container", "exec_start", &id, Told::Yes);
                }
            }
            (7, true) => {
                let paused = docker.containers[&id].paused;
                let action = if paused { "unpause" } else { "pause" };
                docker.change(now, &id, action, told);
            }
            (8, _) => docker.emit(now, "network", "connect", &id, told),
            _ => docker.change(now, &id, "update", told),
        }
    }

    /// Something goes wrong, or right again.
    fn trouble(&mut self, at: usize) {
        let faults = self.faults;
        match self.random.draw() % 16 {
            0..=1 if faults.breaks => {
                let end = match self.random.draw() % 3 {
                    0 => StreamEnd::Closed,
                    1 => StreamEnd::Silent,
                    _ => StreamEnd::Failed("connection reset".into()),
                };
                self.world.end_stream(at, end);
            }
            2 if faults.breaks => {
                let docker = &mut self.world.dockers[at];
                if docker.alive {
                    docker.alive = false;
                    self.world.end_stream(at, StreamEnd::Closed);
                }
            }
            3..=5 => self.revive(at),
            6 if faults.replaced && self.one_in(2) => {
                // Whoever asks next is answered by another one, be it at a renewal.
                let kept = match self.one_in(2) {
                    true => self.world.dockers[at].stream.take(),
                    false => None,
                };
                self.world.end_stream(at, StreamEnd::Closed);
                self.ids += 1;
                self.replaced[at] = true;
                let id = format!("R{}", self.ids);
                let runs = std::mem::take(&mut self.world.dockers[at].runs);
                self.world.dockers[at] = super::docker::Docker::new(&id);
                self.world.dockers[at].runs = runs;
                self.world.dockers[at].stream = kept;
                self.world.renew(at);
                if let Some((.., hello)) = &mut self.world.threads[at].order {
                    *hello = None;
                }
            }
            7 if faults.clock && self.one_in(4) => {
                let step = (self.random.draw() % 7200) as i64 - 3600;
                self.world.dockers[at].skew_ns += step * 1_000_000_000;
            }
            8 if faults.store => self.world.store.up = false,
            9..=10 => self.world.store.up = true,
            11 if faults.store && self.one_in(2) => match self.random.draw() % 3 {
                0 => self.world.store.flush(),
                1 => {
                    let host = &mut self.world.store.hosts[at];
                    host.lease = Some(("other:1".into(), self.world.now + Time::from_secs(3)));
                }
                _ => self.world.store.hosts[at].lease = None,
            },
            12 if faults.drops => {
                let lost = match &mut self.world.dockers[at].stream {
                    Some(stream) => stream.wire.pop_front().is_some(),
                    None => false,
                };
                if lost {
                    let engine = EngineIndex(at as u32);
                    self.world.step(crate::core::Input::Overrun { engine });
                }
            }
            13 if faults.restarts && self.one_in(6) => self.restart(),
            15 if faults.reloads => self.reload(),
            14 if faults.breaks && self.one_in(4) => {
                let time = Time::from_secs(1 + self.random.draw() % 40);
                self.pass(time);
            }
            _ => {}
        }
    }

    fn revive(&mut self, at: usize) {
        let random = self.random.draw();
        let now = self.world.now;
        let no_events = self.world.counters(at).events == 0;
        let docker = &mut self.world.dockers[at];
        if docker.alive {
            return;
        }
        docker.alive = true;
        if random.is_multiple_of(2) {
            // Its ring is gone, and with it those whom nobody saw die.
            docker.ring.clear();
            if no_events {
                // Who never heard anything cannot tell that he missed something.
                docker
                    .unheard
                    .extend(docker.runs.iter().map(|(_, text)| text.clone()));
            }
            let ids: Vec<String> = docker.containers.keys().cloned().collect();
            for id in &ids {
                if !docker.containers[id].running {
                    continue;
                }
                docker.die(now, id, 0, Told::Never);
                if random.is_multiple_of(4) {
                    docker.start(now, id, Told::Never);
                }
            }
        }
    }

    /// Another file: any of the engines, at least one, some of them at another address.
    fn reload(&mut self) {
        let mut words: Vec<String> = Vec::new();
        let all = self.world.names.clone();
        for name in &all {
            if !self.one_in(3) {
                let elsewhere = if self.one_in(3) { "=elsewhere" } else { "" };
                words.push(format!("{name}{elsewhere}"));
            }
        }
        if words.is_empty() {
            words.push(all[0].clone());
        }
        self.change_file(&words);
        if self.one_in(3) {
            // Again, before anything came of it.
            self.change_file(&all);
        }
    }

    fn change_file(&mut self, words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let engines = settings(&words).engines;
        for at in 0..self.world.names.len() {
            let named = |engine: &crate::model::Engine| *engine.name == self.world.names[at];
            if self.world.is_watched(at) && !engines.iter().any(named) {
                self.count_engine(at);
                self.left[at] += 1;
                self.lives[at].push(self.world.ran.len());
            }
        }
        self.world.settings.engines = engines;
        self.world.reload();
    }

    fn restart(&mut self) {
        // A process numbers its engines as they stand in the file.
        let all = self.world.names.clone();
        self.change_file(&all);
        self.restarts += 1;
        for lives in &mut self.lives {
            lives.push(self.world.ran.len());
        }
        self.count();
        // No agent listens, and the engines go on.
        for at in 0..self.world.dockers.len() {
            let docker = &mut self.world.dockers[at];
            // What the engine dropped, or had not told a process that could not reach it, the next one cannot know of.
            docker.unheard.append(&mut docker.dropped);
            if docker.stream.is_none() {
                let before = docker.runs.iter().map(|(_, text)| text.clone());
                docker.unheard.extend(before);
            }
            docker.stream = None;
            docker.next = None;
            if self.faults.clock && self.one_in(2) {
                let back = (self.random.draw() % 7200) as i64;
                self.world.dockers[at].skew_ns -= back * 1_000_000_000;
            }
            for _ in 0..self.below(4) {
                self.containers(at);
            }
        }
        self.world.new_process();
    }

    fn count(&mut self) {
        for at in 0..self.counted.len() {
            self.count_engine(at);
        }
    }

    fn count_engine(&mut self, at: usize) {
        let counters = self.world.counters(at);
        self.counted[at].gaps += counters.gaps;
        self.counted[at].drift += counters.drift;
    }

    // ---- the end of all faults

    fn quiet(&mut self) {
        self.faults.breaks = false;
        self.world.store.up = true;
        let all = self.world.names.clone();
        self.change_file(&all);
        for at in 0..self.world.dockers.len() {
            self.revive(at);
            for which in (0..self.world.threads[at].hung.len()).rev() {
                self.world.unhang(at, which);
                self.world.unhang(at, which);
            }
        }
        let interval = self.world.settings.interval;
        // Leases of others run out, delays of retries end, each stream is renewed twice, and each engine is compared twice.
        for round in 0..4 {
            for _ in 0..40 {
                self.drain();
                self.pass(interval / 20);
            }
            for at in 0..self.world.dockers.len() {
                // The first one may have been under way before the last event was dropped.
                if round < 2 {
                    self.world.renew(at);
                }
            }
        }
        self.drain();
        self.count();
    }

    fn judge(&self) -> Result<(), String> {
        if self.world.settings.cache.is_some() {
            self.world.compare()?;
        }
        self.judge_queues()?;
        for at in 0..self.world.dockers.len() {
            self.judge_runs(at)
                .and_then(|()| self.judge_own(at))
                .map_err(|text| format!("engine {at}: {text}; counted {:?}", self.counted[at]))?;
        }
        Ok(())
    }

    /// Nothing waits for ever, and entries that leave nothing out ran for the same events.
    fn judge_queues(&self) -> Result<(), String> {
        let jobs = &self.world.core.jobs;
        let left = (jobs.waiting(), jobs.running());
        let events = &self.world.events;
        let all = events.get("all");
        let differ = |name: &&&str| events.get(**name) != all;
        match ["again", "quiet"].iter().find(differ) {
            _ if left != (0, 0) => Err(format!("{left:?} jobs wait and run in the end")),
            // What an agent leaves behind, its successor begins once more; not all entries had come equally far.
            Some(name) if self.restarts + self.left.iter().sum::<u64>() == 0 => {
                Err(format!("{name} ran for others: {events:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Every start and every end reached the handlers once, unless somebody said that events may be missing.
    fn judge_runs(&self, at: usize) -> Result<(), String> {
        let counted = &self.counted[at];
        let begun_anew = self.restarts + self.left[at];
        let mut ran: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, text, _) in self.world.ran.iter().filter(|(engine, ..)| *engine == at) {
            if !text.contains(" existing ") && !text.contains(" engine/") {
                *ran.entry(text).or_default() += 1;
            }
        }
        // Where streams break, a replay may come later than it can be told from what just happened.
        let mut before = self.world.dockers[at].before.iter();
        if !self.world.broke
            && let Some(text) = before.find(|text| ran.contains_key(text.as_str()))
        {
            return Err(format!("handlers ran for `{text}`, from before the agent"));
        }
        let gap = counted.gaps > 0;
        let faultless = !self.faults.drops
            && !self.faults.clock
            && !self.faults.replaced
            && !self.world.broke
            && begun_anew == 0;
        if gap && faultless {
            return Err("a gap was counted although there was none".into());
        }
        // What handlers were told before a process ended in the middle of it, and what the store lost of where it was, nobody promises.
        let lasting = begun_anew == 0
            || (self.left[at] == 0 && self.world.settings.cache.is_some() && !self.faults.store);
        let told = self.world.dockers[at].runs.iter().map(|(_, text)| &**text);
        let told: BTreeSet<&str> = told.collect();
        // What was made up in their stead.
        let mut made_up: Vec<&str> = ran
            .keys()
            .filter(|text| !told.contains(**text))
            .copied()
            .collect();
        for (when, text) in &self.world.dockers[at].runs {
            let what = text.split_once(' ').map(|(_, what)| what);
            let covered = self.gaps[at].1.is_some_and(|gap| gap >= *when);
            match ran.remove(text.as_str()) {
                None if !covered
                    && !take(&mut made_up, |made_up| {
                        made_up.split_once(' ').map(|(_, what)| what) == what
                    })
                    && !self.replaced[at]
                    && lasting
                    && !self.world.dockers[at].unheard.contains(text) =>
                {
                    return Err(format!("no handler ever heard of `{text}`"));
                }
                Some(times) if times > 1 + begun_anew => {
                    return Err(format!("handlers ran {times} times for `{text}`"));
                }
                _ => {}
            }
        }
        match ran.is_empty() || gap {
            true => Ok(()),
            false => Err(format!("handlers ran for what never was: {ran:?}")),
        }
    }
}

impl Simulation {
    /// Of what no engine sends, each process told what it had to, and told it once.
    fn judge_own(&self, at: usize) -> Result<(), String> {
        let mut gaps = 0;
        let mut told = BTreeSet::new();
        let ends = self.lives[at].iter().copied().chain([self.world.ran.len()]);
        let mut begin = 0;
        for end in ends {
            told.clear();
            let mut down = false;
            let ran = &self.world.ran[begin..end];
            begin = end;
            for (_, text, _) in ran.iter().filter(|(engine, ..)| *engine == at) {
                let words: Vec<&str> = text.split(' ').collect();
                match words[1] {
                    "engine/gap" => gaps += 1,
                    "engine/down" | "engine/up" => {
                        if down == (words[1] == "engine/down") {
                            return Err(format!("`{text}` for the second time"));
                        }
                        down = !down;
                    }
                    "existing" if told.contains(words[2]) => {
                        return Err(format!("`{text}` of what was told of before"));
                    }
                    "rename" | "pause" => {}
                    _ => {
                        told.insert(words[2]);
                    }
                }
            }
            if end == self.world.ran.len() && down {
                return Err("an engine that answers was not told to be up".into());
            }
        }
        let counted = self.counted[at].gaps;
        // Those that one resync heals are told once.
        if gaps > counted || (gaps == 0 && counted > 0 && self.restarts + self.left[at] == 0) {
            return Err(format!("{gaps} gaps were told"));
        }
        let now = self.world.counters(at).gaps.to_string();
        let stored = self.world.store.hosts[at].fields.get("gaps");
        if self.world.settings.cache.is_some() && stored != Some(&now) {
            return Err(format!("{now} gaps are {stored:?} in the store"));
        }
        let containers = &self.world.dockers[at].containers;
        let mut running = containers.iter().filter(|(_, of)| of.running);
        match running.find(|(id, _)| !told.contains(id.as_str())) {
            Some((id, _)) => Err(format!("nobody was told that {id} runs")),
            None => Ok(()),
        }
    }
}

fn run(seed: u64) {
    let mut simulation = Simulation::new(seed);
    simulation.world.broke = simulation.faults.breaks;
    let faults = simulation.faults;
    // What happened before the agent came is none of its business.
    simulation.history();
    simulation.drain();
    simulation.pass(Time::from_millis(100));
    simulation.drain();
    for _ in 0..STEPS {
        simulation.noise();
    }
    simulation.quiet();
    if let Err(text) = simulation.judge() {
        panic!("{faults:?}\n{text}");
    }
}

#[test]
fn whatever_happens_the_store_is_right_in_the_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("FROM").unwrap_or(0);
            from..from + number("SEEDS").unwrap_or(SEEDS)
        }
    };
    let mut failed = Vec::new();
    for seed in seeds.clone() {
        let ran = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = ran {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            failed.push(format!("SEED={seed}: {}", text.unwrap_or_default()));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed:\n{}",
        failed.len(),
        seeds.count(),
        failed.join("\n")
    );
}
