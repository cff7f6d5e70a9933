//! A seeded random test: engines, their threads and the store answer in any order, late, wrongly or not at all; then all faults end, and after some
//! minutes the store must hold exactly what the engines have.
//!
//! `SEED=17` runs one seed alone, `SEEDS=1000` so many, from `FROM` on (they are printed when they fail).

use std::collections::BTreeMap;

use super::docker::Told;
use super::store::Fate;
use super::world::{World, settings};
use crate::core::backoff::Random;
use crate::core::engine::Counters;
use crate::core::{StreamEnd, Time};
use crate::model::{EngineIndex, Entry, Filter};

/// How many seeds are tried when nobody says otherwise.
const SEEDS: u64 = 150;

/// Steps of the noisy phase of each.
const STEPS: usize = 1500;

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
        }
    }
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
    restarts: u64,
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
        settings.entries = Some(vec![
            Entry {
                name: "all".into(),
                filter: Filter {
                    types: vec!["start".into(), "die".into()],
                    ..Filter::default()
                },
                command: Some("true".into()),
                log: None,
                timeout: Time::from_secs(60),
                grace: Time::from_secs(5),
                concurrency: 3,
            }
            .into(),
        ]);
        if let Some(cache) = &mut settings.cache {
            cache.all = random.draw().is_multiple_of(2);
            cache.filtered = random.draw().is_multiple_of(3);
            cache.forget_after = Time::from_secs(5 + random.draw() % 60);
        }
        if random.draw().is_multiple_of(6) {
            settings.cache = None;
        }
        Simulation {
            world: World::new(settings),
            random,
            faults,
            waited: Time::ZERO,
            ids: 0,
            counted: vec![Counters::default(); engines],
            restarts: 0,
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
    }

    /// Everything that waits is answered, in the order in which it was asked.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            let mut any = false;
            for at in 0..self.world.dockers.len() {
                any |= self.world.open_stream(at);
                any |= self.world.hear(at);
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

    // ---- what happens

    fn noise(&mut self) {
        let at = self.engine();
        match self.random.draw() % 20 {
            0..=2 => self.containers(at),
            3..=6 => {
                self.world.hear(at);
            }
            7 => {
                self.world.open_stream(at);
            }
            8..=9 => {
                if self.faults.hangs && self.one_in(20) {
                    self.world.hang(at);
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
                    self.world.end_run(*id, 0);
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
            _ => {
                self.world.end_stream_if_read(at);
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
            (6, _) => docker.emit(now, "container", "exec_start", &id, told),
            (7, _) => {
                docker.change(now, &id, "pause", told);
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
                self.world.end_stream(at, StreamEnd::Closed);
                self.ids += 1;
                self.replaced[at] = true;
                let id = format!("R{}", self.ids);
                let runs = std::mem::take(&mut self.world.dockers[at].runs);
                self.world.dockers[at] = super::docker::Docker::new(&id);
                self.world.dockers[at].runs = runs;
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
                docker.unheard.extend(docker.runs.iter().cloned());
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

    fn restart(&mut self) {
        self.restarts += 1;
        self.count();
        self.world.new_process();
    }

    fn count(&mut self) {
        for (at, counted) in self.counted.iter_mut().enumerate() {
            let counters = self.world.counters(at);
            counted.gaps += counters.gaps;
            counted.drift += counters.drift;
        }
    }

    // ---- the end of all faults

    fn quiet(&mut self) {
        self.faults.breaks = false;
        self.world.store.up = true;
        for at in 0..self.world.dockers.len() {
            self.revive(at);
            for which in (0..self.world.threads[at].hung.len()).rev() {
                self.world.unhang(at, which);
                self.world.unhang(at, which);
            }
        }
        let interval = self.world.settings.interval;
        // Leases of others run out, delays of retries end, each stream is renewed once, and each engine is compared twice.
        for round in 0..4 {
            for _ in 0..40 {
                self.drain();
                self.pass(interval / 20);
            }
            for at in 0..self.world.dockers.len() {
                if round == 0 {
                    self.world.end_stream(at, StreamEnd::Renewal);
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
        for at in 0..self.world.dockers.len() {
            self.judge_runs(at)
                .map_err(|text| format!("engine {at}: {text}; counted {:?}", self.counted[at]))?;
        }
        Ok(())
    }

    /// Every start and every end reached the handlers once, unless somebody said that events may be missing.
    fn judge_runs(&self, at: usize) -> Result<(), String> {
        let counted = &self.counted[at];
        let mut ran: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, text, _) in self.world.ran.iter().filter(|(engine, ..)| *engine == at) {
            *ran.entry(text).or_default() += 1;
        }
        let gap = counted.gaps > 0;
        let faultless = !self.faults.drops
            && !self.faults.clock
            && !self.faults.replaced
            && !self.world.broke
            && self.restarts == 0;
        if gap && faultless {
            return Err("a gap was counted although there was none".into());
        }
        for text in &self.world.dockers[at].runs {
            match ran.remove(text.as_str()) {
                None if !gap
                    && !self.replaced[at]
                    && self.restarts == 0
                    && !self.world.dockers[at].unheard.contains(text) =>
                {
                    return Err(format!("no handler ever heard of `{text}`"));
                }
                Some(times) if times > 1 + self.restarts => {
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

fn run(seed: u64) {
    let mut simulation = Simulation::new(seed);
    simulation.world.broke = simulation.faults.breaks;
    let faults = simulation.faults;
    // What happened before the agent came is none of its business.
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
