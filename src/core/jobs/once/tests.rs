//! Several agents that see the same events, and one store: the rules one by one, and all of them at random.
//!
//! `SEED=17` runs one seed alone, `SEEDS=1000` so many.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::{Trigger, Waiting};
use super::*;
use crate::core::backoff::Random;
use crate::model::{EngineIndex, Entry, Exit, Order, Queueing};
use crate::store::OnceWish;

const E: EngineIndex = EngineIndex(0);
const LEASE: Time = Time::from_secs(10);
const DONE: Time = Time::from_secs(600);
const PATIENCE: Time = Time::from_secs(300);

fn seconds(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

/// Who has a command, and until when; nobody any more when it was done.
type Keys = HashMap<u128, (Option<(usize, u64)>, Time)>;

struct Agent {
    jobs: Jobs,
    /// Events that it has seen.
    seen: i64,
    running: BTreeMap<u64, Waiting>,
    /// The store answers it.
    open: bool,
    dead: bool,
}

/// Agents with one entry, a store and a clock.
struct Cluster {
    now: Time,
    agents: Vec<Agent>,
    keys: Keys,
    random: Random,
    order: Order,
    /// The container of each event.
    events: Vec<String>,
    /// Which events were begun, by agent.
    begun: Vec<(usize, i64)>,
    ended: BTreeSet<i64>,
    said: Vec<String>,
}

impl Cluster {
    fn new(agents: usize, queueing: Queueing, seed: u64) -> Self {
        let order = queueing.order;
        let entry = Arc::new(Entry {
            command: Some("true".into()),
            once: true,
            queueing,
            ..Entry::default()
        });
        let agent = |_| {
            let mut jobs = Jobs::new(std::slice::from_ref(&entry), 64, PATIENCE);
            jobs.store_is_open(Time::ZERO);
            Agent {
                jobs,
                seen: 0,
                running: BTreeMap::new(),
                open: true,
                dead: false,
            }
        };
        Cluster {
            now: Time::ZERO,
            agents: (0..agents).map(agent).collect(),
            keys: Keys::new(),
            random: Random::new(seed),
            order,
            events: Vec::new(),
            begun: Vec::new(),
            ended: BTreeSet::new(),
            said: Vec::new(),
        }
    }

    /// An event happens; nobody has seen it yet.
    fn event(&mut self, container: &str) {
        self.events.push(container.to_owned());
    }

    /// An agent sees the next event.
    fn see(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let Some(container) = self.events.get(agent.seen as usize) else {
            return;
        };
        agent.seen += 1;
        let event = Event {
            kind: "container".into(),
            action: "die".into(),
            id: container.as_str().into(),
            attributes: Default::default(),
            time_ns: agent.seen,
            ..Event::default()
        };
        let trigger = Trigger {
            place: 0,
            engine: E,
            once: Some(name("engine", &event, "entry")),
            event: Arc::new(event),
            inferred: false,
            revision: 0,
            write_first: false,
            hidden: false,
        };
        agent.jobs.add(self.now, trigger);
    }

    fn see_all(&mut self) {
        for at in 0..self.agents.len() {
            while !self.agents[at].dead && self.agents[at].seen < self.events.len() as i64 {
                self.see(at);
            }
        }
    }

    /// An agent asks what it has to ask, once; `lost`: the answer does not arrive.
    fn ask(&mut self, at: usize, lost: bool) -> bool {
        let (now, agent) = (self.now, &mut self.agents[at]);
        if !agent.open || agent.dead {
            return false;
        }
        let Some(asks) = agent.jobs.ask(now) else {
            return false;
        };
        self.keys.retain(|_, (_, until)| *until > now);
        let answer = |ask: &OnceAsk| {
            let own = Some((at, ask.run));
            let (owner, until) = self.keys.entry(ask.key).or_insert((own, now + LEASE));
            match ask.wish {
                OnceWish::Done => (*owner, *until) = (None, now + DONE),
                OnceWish::Lease if *owner == own => *until = now + LEASE,
                OnceWish::Lease => {}
            }
            match owner {
                None => OnceState::Done,
                owner if *owner == own => OnceState::Ours,
                _ => OnceState::Theirs,
            }
        };
        let states: Vec<OnceState> = asks.iter().map(answer).collect();
        match lost {
            true => self.close(at),
            false => self.agents[at].jobs.answered(now, &asks, &states),
        }
        true
    }

    fn close(&mut self, at: usize) {
        self.agents[at].open = false;
        self.agents[at].jobs.store_is_down(self.now);
    }

    fn open(&mut self, at: usize) {
        self.agents[at].open = true;
        self.agents[at].jobs.store_is_open(self.now);
    }

    /// An agent starts what may start.
    fn start(&mut self, at: usize) -> usize {
        let mut count = 0;
        while let Some(job) = self.agents[at].jobs.start(self.now) {
            let others = self.agents.iter().filter(|agent| !agent.dead);
            for other in others.flat_map(|agent| agent.running.values()) {
                assert_ne!(other.event, job.event, "two run at once");
                let beside = self.order == Order::None || other.event.id != job.event.id;
                assert!(beside, "two of one container run at once");
            }
            self.begun.push((at, job.event.time_ns));
            self.agents[at].running.insert(job.id, job);
            count += 1;
        }
        for outcome in self.agents[at].jobs.outcomes() {
            self.said.push(match outcome {
                Outcome::Left(job, why) => format!("{at}: {} {why:?}", job.event.time_ns),
                Outcome::Twice(job) => format!("{at}: {} twice", job.event.time_ns),
                Outcome::End(id) => format!("{at}: end {id}"),
            });
        }
        count
    }

    fn end(&mut self, at: usize, id: u64, exit: &Exit) {
        let agent = &mut self.agents[at];
        let job = agent.running.remove(&id).expect("it runs");
        let ended = agent.jobs.ended(self.now, id, exit, &mut self.random);
        if ended.expect("it runs").again.is_none() && *exit != Exit::Cancelled {
            self.ended.insert(job.event.time_ns);
        }
    }

    /// Ends all that runs.
    fn end_all(&mut self, at: usize) {
        let ids: Vec<u64> = self.agents[at].running.keys().copied().collect();
        for id in ids {
            self.end(at, id, &Exit::Code(0));
        }
    }

    fn kill(&mut self, at: usize) {
        self.agents[at].dead = true;
        self.agents[at].running.clear();
    }

    /// All ask and start until nothing more follows.
    fn quiet(&mut self) {
        while (0..self.agents.len())
            .any(|at| !self.agents[at].dead && (self.ask(at, false) | (self.start(at) > 0)))
        {
        }
    }

    fn pass(&mut self, time: Time) {
        let until = self.now + time;
        while self.now < until {
            self.now += seconds(1);
            self.quiet();
        }
    }

    fn begun(&mut self) -> Vec<(usize, i64)> {
        std::mem::take(&mut self.begun)
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }
}

#[test]
fn the_name_of_a_command_is_the_same_in_every_version() {
    let event = |time_ns| Event {
        kind: "container".into(),
        action: "die".into(),
        id: "c1".into(),
        attributes: Default::default(),
        time_ns,
        ..Event::default()
    };
    let found = name("engine@machine", &event(1), "mail");
    assert_eq!(format!("{found:032x}"), "b5a98702ea28fd5df3ee845f2f0d3d27");
    let others = [
        name("engine@machin", &event(1), "email"),
        name("engine@machine", &event(2), "mail"),
        name("engine@machine", &event(1), "mails"),
    ];
    assert!(!others.contains(&found));
}

#[test]
fn one_of_two_agents_runs_an_event_and_the_other_drops_it() {
    let mut cluster = Cluster::new(2, Queueing::default(), 1);
    cluster.event("a");
    cluster.see_all();
    cluster.quiet();
    assert_eq!(cluster.begun(), [(0, 1)]);
    cluster.pass(seconds(30));
    cluster.end_all(0);
    cluster.pass(seconds(3));
    assert_eq!(cluster.said(), ["1: 1 Elsewhere"]);
    assert_eq!(cluster.begun(), []);
    for agent in &cluster.agents {
        assert_eq!((agent.jobs.waiting(), agent.jobs.has_news()), (0, false));
        assert_eq!((agent.jobs.ask_at(), agent.jobs.deadline()), (None, None));
        assert_eq!(agent.jobs.first_unstarted(E), None);
    }
}

#[test]
fn a_containers_events_run_in_order_whoever_runs_them() {
    let mut cluster = Cluster::new(2, Queueing::default(), 1);
    cluster.event("a");
    cluster.event("a");
    cluster.event("b");
    cluster.see(1);
    cluster.quiet();
    cluster.see_all();
    cluster.quiet();
    assert_eq!(cluster.begun(), [(1, 1), (0, 3)]);
    cluster.end_all(1);
    cluster.pass(seconds(3));
    assert_eq!(
        cluster.begun().iter().map(|(_, n)| *n).collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn another_agent_runs_what_a_dead_one_began() {
    let mut cluster = Cluster::new(2, Queueing::default(), 1);
    cluster.event("a");
    cluster.see_all();
    cluster.quiet();
    cluster.kill(0);
    cluster.begun();
    cluster.pass(seconds(9));
    assert_eq!(cluster.begun(), []);
    cluster.pass(seconds(3));
    assert_eq!(cluster.begun(), [(1, 1)]);
}

#[test]
fn a_command_that_a_stop_cut_off_is_left_to_another_agent_and_one_that_failed_is_not() {
    let mut cluster = Cluster::new(2, Queueing::default(), 1);
    cluster.event("a");
    cluster.event("b");
    cluster.see_all();
    cluster.quiet();
    assert_eq!(cluster.begun(), [(0, 1), (0, 2)]);
    cluster.agents[0].jobs.close();
    cluster.end(0, 1, &Exit::Cancelled);
    cluster.end(0, 2, &Exit::Code(1));
    assert!(cluster.agents[0].jobs.has_news());
    cluster.pass(seconds(12));
    assert!(!cluster.agents[0].jobs.has_news());
    assert_eq!(cluster.begun(), [(1, 1)]);
    assert_eq!(cluster.said(), ["1: 2 Elsewhere"]);
}

#[test]
fn a_try_after_a_failure_keeps_the_lease() {
    let queueing = Queueing {
        retries: 1,
        backoff: seconds(60),
        ..Queueing::default()
    };
    let mut cluster = Cluster::new(2, queueing, 1);
    cluster.event("a");
    cluster.see_all();
    cluster.quiet();
    cluster.end(0, 1, &Exit::Code(1));
    cluster.pass(seconds(120));
    assert_eq!(cluster.begun(), [(0, 1), (0, 1)]);
    cluster.end_all(0);
    cluster.pass(seconds(3));
    assert_eq!(cluster.said(), ["1: 1 Elsewhere"]);
}

#[test]
fn a_lease_that_may_have_run_out_starts_nothing() {
    let queueing = Queueing {
        concurrency: 1,
        ..Queueing::default()
    };
    let mut cluster = Cluster::new(1, queueing, 1);
    cluster.event("a");
    cluster.event("b");
    cluster.see_all();
    cluster.quiet();
    assert_eq!(cluster.begun(), [(0, 1)]);
    // Both were granted; the agent stands still for longer than a lease.
    cluster.now += seconds(11);
    cluster.end_all(0);
    assert_eq!(cluster.start(0), 0);
    cluster.quiet();
    assert_eq!(cluster.begun(), [(0, 2)]);
    // And the store goes away before the next one.
    cluster.event("c");
    cluster.see_all();
    cluster.quiet();
    cluster.close(0);
    cluster.end_all(0);
    assert_eq!(cluster.start(0), 0);
    cluster.open(0);
    cluster.pass(seconds(2));
    assert_eq!(cluster.begun(), []);
    cluster.pass(seconds(1));
    assert_eq!(cluster.begun(), [(0, 3)]);
}

#[test]
fn after_an_outage_those_who_run_something_say_so_before_anybody_else_may_ask() {
    let mut cluster = Cluster::new(2, Queueing::default(), 1);
    cluster.event("a");
    cluster.see_all();
    cluster.quiet();
    assert_eq!(cluster.begun(), [(0, 1)]);
    cluster.close(0);
    cluster.close(1);
    cluster.pass(seconds(60));
    cluster.open(1);
    cluster.pass(seconds(2));
    cluster.open(0);
    cluster.pass(seconds(60));
    assert_eq!(cluster.begun(), []);
}

#[test]
fn who_waits_too_long_for_the_store_is_dropped_and_that_is_said_once() {
    let mut cluster = Cluster::new(1, Queueing::default(), 1);
    cluster.pass(seconds(1000));
    cluster.close(0);
    for container in ["a", "a", "b"] {
        cluster.event(container);
    }
    cluster.see_all();
    cluster.pass(seconds(100));
    cluster.event("c");
    cluster.see_all();
    cluster.pass(seconds(199));
    assert_eq!(cluster.said(), [] as [&str; 0]);
    cluster.pass(seconds(1));
    assert_eq!(cluster.said(), ["0: 1 Late(3)"]);
    assert_eq!(cluster.agents[0].jobs.dropped_total, 3);
    assert_eq!(cluster.agents[0].jobs.deadline(), Some(seconds(1400)));
    cluster.open(0);
    cluster.pass(seconds(3));
    assert_eq!(cluster.begun(), [(0, 4)]);
}

#[test]
fn a_cooldown_counts_for_all_agents() {
    let queueing = Queueing {
        cooldown: seconds(60),
        order: Order::None,
        ..Queueing::default()
    };
    let mut cluster = Cluster::new(2, queueing, 1);
    cluster.event("a");
    cluster.see_all();
    cluster.quiet();
    cluster.event("a");
    cluster.see_all();
    cluster.pass(seconds(30));
    assert_eq!(cluster.begun(), [(0, 1)]);
    assert_eq!(cluster.said(), ["0: 2 Cooldown", "1: 2 Cooldown"]);
    // What another agent began may run although it began the cooldown.
    cluster.kill(0);
    cluster.pass(seconds(12));
    assert_eq!(cluster.begun(), [(1, 1)]);
}

#[test]
fn who_is_taken_for_dead_says_so_and_goes_on() {
    let mut cluster = Cluster::new(2, Queueing::default(), 1);
    cluster.event("a");
    cluster.see_all();
    cluster.quiet();
    // Only the first loses the store, for longer than its lease.
    cluster.close(0);
    cluster.agents[0].running.clear();
    cluster.pass(seconds(12));
    assert_eq!(cluster.begun(), [(0, 1), (1, 1)]);
    cluster.open(0);
    cluster.pass(seconds(10));
    assert_eq!(cluster.said(), ["0: 1 twice"]);
}

/// Events, ends, lost answers, short outages and deaths, in any order.
fn trial(seed: u64) {
    let mut random = Random::new(seed);
    let mut below = move |n: usize| (random.draw() % n as u64) as usize;
    let queueing = Queueing {
        concurrency: 1 + below(4),
        order: [Order::Container, Order::None][below(2)],
        ..Queueing::default()
    };
    let mut cluster = Cluster::new(3, queueing, seed);
    let mut deaths = below(3);
    for _ in 0..600 {
        let at = below(3);
        match below(12) {
            0 | 1 => cluster.event(["a", "b", "c", "d"][below(4)]),
            2..=4 if !cluster.agents[at].dead => cluster.see(at),
            5 | 6 => {
                let ids: Vec<u64> = cluster.agents[at].running.keys().copied().collect();
                if !ids.is_empty() {
                    let code = below(2) as i32;
                    cluster.end(at, ids[below(ids.len())], &Exit::Code(code));
                }
            }
            7 => cluster.now += Time::from_millis(below(1500) as u64),
            8 if below(10) == 0 && deaths > 0 && !cluster.agents[at].dead => {
                deaths -= 1;
                cluster.kill(at);
            }
            9 if below(4) == 0 && cluster.agents[at].open => cluster.close(at),
            10 => drop(cluster.ask(at, below(10) == 0)),
            _ if !cluster.agents[at].dead => drop(cluster.start(at)),
            _ => {}
        }
        // Nobody is without the store for as long as a lease lasts.
        if below(10) == 0 {
            for at in 0..3 {
                if !cluster.agents[at].open {
                    cluster.open(at);
                }
                cluster.ask(at, false);
            }
        }
    }
    for at in 0..3 {
        cluster.open(at);
    }
    cluster.see_all();
    for _ in 0..cluster.events.len() * 8 {
        cluster.pass(seconds(3));
        (0..3).for_each(|at| cluster.end_all(at));
        if cluster.ended.len() == cluster.events.len() {
            break;
        }
    }
    let events = cluster.events.len();
    assert_eq!(cluster.ended.len(), events, "not all were run to their end");
    let twice = cluster.begun.len() - events;
    let dead = cluster.agents.iter().filter(|agent| agent.dead).count();
    assert!(twice <= dead * 4, "{twice} began twice, {dead} agents died");
    let mut last: HashMap<&str, i64> = HashMap::new();
    for (_, event) in cluster
        .begun
        .iter()
        .filter(|_| cluster.order == Order::Container)
    {
        let container = &*cluster.events[*event as usize - 1];
        let before = last.insert(container, *event);
        assert!(before <= Some(*event), "{container} out of order");
    }
    cluster.pass(seconds(3));
    for agent in cluster.agents.iter().filter(|agent| !agent.dead) {
        assert_eq!((agent.jobs.waiting(), agent.jobs.has_news()), (0, false));
    }
}

#[test]
fn whatever_happens_each_event_runs_to_its_end_once() {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| trial(seed)) {
            let text = panic.downcast_ref::<String>().map_or("", |text| text);
            panic!("SEED={seed}: {text}");
        }
    }
}
