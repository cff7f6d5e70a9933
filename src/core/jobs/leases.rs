//! `once: true`: the leases on commands that one of the agents which see an event is to run.
//!
//! A job asks for its lease when it is the first of its line: whoever has the lease of a container's event has the container's turn on all agents.
//! Another agent's is asked for again and again, until that one says that the command has ended, or is dead. A lease that was granted is renewed
//! until the command has ended for good, and no command starts without one that still runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::holds::Freed;
use crate::core::Time;
use crate::store::{OnceAsk, OnceState, OnceWish};

/// A lease runs so long in the store from when it is granted, and here from when it was asked for.
const LEASE: Time = Time::from_secs(10);

/// How often a lease is renewed, or asked for again.
const AGAIN: Time = Time::from_secs(2);

/// When the store comes back, those who had leases say so before anybody takes one that ran out meanwhile.
const RETURN: Time = Time::from_secs(3);

/// The most leases in one request: about a millisecond of the store's time.
const REQUEST: usize = 256;

/// All leases that are wanted or ours, by the number of the run.
#[derive(Debug)]
pub(super) struct Leases {
    all: HashMap<u64, Lease>,
    /// When the store is to be told or asked of each.
    due: BTreeSet<(Time, u64)>,
    /// Those that are wanted, by when their job came.
    wanted: BTreeSet<(Time, u64)>,
    asked_at: Time,
    /// How long a job waits for a store that is away.
    patience: Time,
    /// Since when it is.
    down_since: Option<Time>,
    /// It was there before.
    was_open: bool,
    /// No lease that may be another's is asked for before.
    ask_from: Time,
}

#[derive(Debug)]
struct Lease {
    key: u128,
    /// The job's queue and present number.
    place: Freed,
    /// When the job came.
    came: Time,
    state: State,
    /// Until when it is ours for certain.
    until: Time,
    due: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// We want it; `true` when another agent was found to have it.
    Wanted(bool),
    /// We have it, and the command does not run.
    Ours,
    /// We have it, and the command runs.
    Running,
    /// The command has ended, which the store is to be told.
    Done,
}

/// What the store's answer means for a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It may start.
    Ours(Freed),
    /// Another agent runs it; said once.
    Theirs(Freed),
    /// It may start no more: the lease has gone to another agent.
    Lost(Freed),
    /// Another agent has run it.
    Done(Freed),
    /// It runs, and another agent, which took us for dead, has begun it as well.
    Twice(Freed),
}

impl Leases {
    pub fn new(patience: Time) -> Self {
        Leases {
            all: HashMap::new(),
            due: BTreeSet::new(),
            wanted: BTreeSet::new(),
            asked_at: Time::ZERO,
            patience,
            down_since: Some(Time::ZERO),
            was_open: false,
            ask_from: Time::ZERO,
        }
    }

    // ---- what becomes of jobs

    /// A job is the first of its line, and no lease of its own is known to run.
    pub fn want(&mut self, run: u64, key: u128, place: Freed, came: Time) {
        let lease = self.all.entry(run).or_insert(Lease {
            key,
            place,
            came,
            state: State::Wanted(false),
            until: Time::ZERO,
            due: None,
        });
        lease.place = place;
        if lease.due.is_none() {
            self.set_due(run, Some(self.ask_from));
            self.set_state(run, State::Wanted(false));
        }
    }

    /// May this command start? If not, its lease is asked for once more.
    pub fn may_start(&mut self, now: Time, run: u64) -> bool {
        let ours = self
            .all
            .get(&run)
            .filter(|lease| lease.state == State::Ours);
        let may = ours.is_some_and(|lease| lease.until > now);
        if ours.is_some() && !may {
            self.set_state(run, State::Wanted(false));
            self.set_due(run, Some(now));
        }
        may
    }

    /// The command runs from now on.
    pub fn started(&mut self, run: u64) {
        self.set_state(run, State::Running);
    }

    /// It failed and will be tried again, as this job.
    pub fn again(&mut self, run: u64, place: Freed) {
        if let Some(lease) = self.all.get_mut(&run) {
            lease.place = place;
            self.set_state(run, State::Ours);
        }
    }

    /// It has ended for good: nobody is to run it any more.
    pub fn ended(&mut self, run: u64) {
        self.set_state(run, State::Done);
        self.set_due(run, Some(Time::ZERO));
    }

    /// Nothing will come of the job here. If another agent has it as well, that one runs it when our lease has run out.
    pub fn forget(&mut self, run: u64) {
        self.set_due(run, None);
        if let Some(lease) = self.all.remove(&run) {
            self.wanted.remove(&(lease.came, run));
        }
    }

    /// Nothing is started any more.
    pub fn close(&mut self) {
        let idle = self.all.iter().filter(|(_, lease)| lease.is_idle());
        let idle: Vec<u64> = idle.map(|(run, _)| *run).collect();
        idle.into_iter().for_each(|run| self.forget(run));
    }

    // ---- what the store is asked, and answers

    /// What to ask it now.
    pub fn next(&mut self, now: Time) -> Option<Arc<[OnceAsk]>> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        let runs: Vec<u64> = due.take(REQUEST).map(|(_, run)| *run).collect();
        if runs.is_empty() || self.down_since.is_some() {
            return None;
        }
        self.asked_at = now;
        let mut asks = Vec::new();
        for run in runs {
            self.set_due(run, Some(now + AGAIN));
            if let Some(lease) = self.all.get(&run) {
                let wish = match lease.state {
                    State::Done => OnceWish::Done,
                    _ => OnceWish::Lease,
                };
                let key = lease.key;
                asks.push(OnceAsk { key, run, wish });
            }
        }
        Some(asks.into())
    }

    /// What it answered.
    pub fn answered(&mut self, asks: &[OnceAsk], states: &[OnceState]) -> Vec<Answer> {
        let mut answers = Vec::new();
        for (ask, state) in asks.iter().zip(states) {
            let Some(lease) = self.all.get_mut(&ask.run) else {
                continue;
            };
            if *state == OnceState::Ours {
                lease.until = self.asked_at + LEASE;
            }
            let place = lease.place;
            match (lease.state, state) {
                (State::Done, _) if ask.wish == OnceWish::Done => self.forget(ask.run),
                (State::Done, _) => {}
                (State::Wanted(_), OnceState::Ours) => {
                    self.set_state(ask.run, State::Ours);
                    answers.push(Answer::Ours(place));
                }
                (State::Ours | State::Running, OnceState::Ours) => {}
                (State::Wanted(true), OnceState::Theirs) => {}
                (State::Wanted(false), OnceState::Theirs) => {
                    self.set_state(ask.run, State::Wanted(true));
                    answers.push(Answer::Theirs(place));
                }
                (State::Ours, OnceState::Theirs) => {
                    self.set_state(ask.run, State::Wanted(true));
                    answers.push(Answer::Lost(place));
                }
                (State::Wanted(_) | State::Ours, OnceState::Done) => {
                    self.forget(ask.run);
                    answers.push(Answer::Done(place));
                }
                (State::Running, OnceState::Theirs | OnceState::Done) => {
                    self.set_due(ask.run, None);
                    answers.push(Answer::Twice(place));
                }
            }
        }
        answers
    }

    /// The store does not answer. What has not started waits for its lease again.
    pub fn store_is_down(&mut self, now: Time) -> Vec<Freed> {
        self.down_since.get_or_insert(now);
        let ours = self.all.iter();
        let ours = ours.filter(|(_, lease)| lease.state == State::Ours);
        let ours: Vec<(u64, Freed)> = ours.map(|(run, lease)| (*run, lease.place)).collect();
        for (run, _) in &ours {
            self.set_state(*run, State::Wanted(false));
        }
        ours.into_iter().map(|(_, place)| place).collect()
    }

    /// It answers.
    pub fn store_is_open(&mut self, now: Time) {
        self.down_since = None;
        if std::mem::replace(&mut self.was_open, true) {
            self.ask_from = now + RETURN;
        }
        let due = self.all.iter().filter(|(_, lease)| lease.due.is_some());
        let due: Vec<(u64, bool)> = due
            .map(|(run, lease)| (*run, matches!(lease.state, State::Wanted(_))))
            .collect();
        for (run, wanted) in due {
            let at = if wanted { self.ask_from } else { now };
            self.set_due(run, Some(at));
        }
    }

    /// When there is something to ask.
    pub fn ask_at(&self) -> Option<Time> {
        let due = self.due.first().map(|(at, _)| *at);
        due.filter(|_| self.down_since.is_none())
    }

    /// The store is still to be told that a command has ended.
    pub fn has_news(&self) -> bool {
        self.all.values().any(|lease| lease.state == State::Done)
    }

    /// The next job that has waited too long for a store that is away.
    pub fn late(&mut self, now: Time) -> Option<Freed> {
        let (_, run) = *self.wanted.first()?;
        let at = self.deadline()?;
        let place = self.all.get(&run).map(|lease| lease.place);
        place.filter(|_| at <= now)
    }

    /// When one has.
    pub fn deadline(&self) -> Option<Time> {
        let (came, _) = self.wanted.first()?;
        Some(self.down_since?.max(*came).saturating_add(self.patience))
    }

    // ---- its parts

    fn set_state(&mut self, run: u64, state: State) {
        if let Some(lease) = self.all.get_mut(&run) {
            lease.state = state;
            match state {
                State::Wanted(_) => self.wanted.insert((lease.came, run)),
                _ => self.wanted.remove(&(lease.came, run)),
            };
        }
    }

    fn set_due(&mut self, run: u64, due: Option<Time>) {
        if let Some(lease) = self.all.get_mut(&run) {
            if let Some(at) = std::mem::replace(&mut lease.due, due) {
                self.due.remove(&(at, run));
            }
            self.due.extend(due.map(|at| (at, run)));
        }
    }
}

impl Lease {
    /// No command runs or ran under it.
    fn is_idle(&self) -> bool {
        matches!(self.state, State::Wanted(_) | State::Ours)
    }
}
