//! A job from the event that triggers an entry to the end of its command, and what else can become of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::Time;
use crate::model::{EngineIndex, Entry, Event};

/// What a job takes beside its event's attributes: measured.
const JOB: usize = 1150;

/// What an attribute takes beside its texts.
const PAIR: usize = 16;

/// What a line is for: the engine and the object's id.
pub(super) type Lane = (EngineIndex, Arc<str>);

/// A queue's own number: the places in the file change when it is read again.
pub(super) type Key = u64;

/// An event that triggers an entry.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The place of the entry in the file.
    pub place: usize,
    /// Where the event happened.
    pub engine: EngineIndex,
    /// The event.
    pub event: Arc<Event>,
    /// It was found by a resync or told only after an outage.
    pub inferred: bool,
    /// The change of its container that the event stands for. The job waits for an inspect that saw it; 0 when there is none to wait for.
    pub revision: u64,
    /// It also waits for the store to hold that change.
    pub write_first: bool,
    /// The event hides its exit code, which that inspect knows.
    pub hidden: bool,
    /// With `once`: what all agents call the entry's command for this event.
    pub once: Option<u128>,
}

/// A job that another agent began and did not bring to its end.
#[derive(Clone, Debug)]
pub struct Begun {
    /// What its run is called.
    pub run: Arc<str>,
    /// The try that was cut off.
    pub attempt: u32,
    /// How many events it stands for.
    pub count: u64,
}

/// A job that waits, or one that runs.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The number of this try in this process.
    pub id: u64,
    /// The number of the first try.
    pub run: u64,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// How many events it stands for.
    pub count: u64,
    /// Its entry.
    pub entry: Arc<Entry>,
    /// Where the event happened.
    pub engine: EngineIndex,
    /// The event; the newest of them.
    pub event: Arc<Event>,
    /// The event was found by a resync or told only after an outage.
    pub inferred: bool,
    /// The change of its container that the event stands for.
    pub revision: u64,
    /// The event hides its exit code, which an inspect after that change knows.
    pub hidden: bool,
    /// What the run is called where another agent began it.
    pub begun: Option<Arc<str>>,
    pub(super) key: Key,
    pub(super) lane: Lane,
    /// The store or an inspect has not come yet.
    pub(super) held: bool,
    /// It is not tried again, should it fail.
    pub(super) last_try: bool,
    /// With `once`: when it came, and what all agents call it.
    pub(super) once: Option<(Time, u128)>,
    /// No other agent is to run it: always so without `once`.
    pub(super) ours: bool,
    /// Another agent was found to have taken it.
    pub(super) taken: bool,
    /// It failed, and is tried again then.
    pub(super) due: Option<Time>,
    /// The oldest of its events, by engine, as long as none of its tries has started.
    pub(super) stamps: BTreeMap<EngineIndex, i64>,
}

impl Waiting {
    /// The engines whose events it stands for.
    pub fn engines(&self) -> impl Iterator<Item = EngineIndex> {
        self.stamps.keys().copied()
    }

    /// How many bytes it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let pairs = self.event.attributes.iter();
        let pairs = pairs.map(|(name, value)| PAIR + name.len() + value.len());
        JOB + pairs.sum::<usize>()
    }

    /// With `once`: what all agents call it.
    pub fn once(&self) -> Option<u128> {
        self.once.map(|(_, once)| once)
    }
}

/// What else followed, beside jobs that may start.
#[derive(Debug)]
pub enum Outcome {
    /// This command is to be ended: a newer event takes its place.
    End(u64),
    /// This job will not run.
    Left(Waiting, Why),
    /// `once`: it runs, and another agent took this one for dead and runs it as well.
    Twice(Waiting),
}

/// Why a job will not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// `cooldown`: its container had a command lately.
    Cooldown,
    /// `on_busy: skip`: others run or wait.
    Busy,
    /// `on_busy: replace`: a newer event took its place.
    Replaced,
    /// So many wait that there is no room; said of the first of a burst.
    Full(usize),
    /// `once`: another agent ran it.
    Elsewhere,
    /// `once`: the store was away for too long; so many at once, said of the first.
    Late(usize),
}

/// A command that ended.
#[derive(Debug)]
pub struct Ended {
    /// What ran.
    pub job: Waiting,
    /// In how long it will be tried again.
    pub again: Option<Time>,
}
