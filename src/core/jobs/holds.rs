//! What jobs wait for before their commands may run: that the store holds the state that their event led to, and that an inspect has seen it.
//!
//! Both are waited for from the event on, wherever the job stands in its queue meanwhile, and neither for long.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Key, Lane};
use crate::core::Time;

/// How long a job waits for the store.
pub(super) const WRITE_FIRST: Time = Time::from_millis(250);

/// How long it waits for the inspect.
pub(super) const LOOK_FIRST: Time = Time::from_secs(1);

/// A job that is free to run now: its queue and its number.
pub(super) type Freed = (Key, u64);

/// All jobs that wait for something.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// By container, then by the job's number.
    needs: HashMap<Lane, BTreeMap<u64, Need>>,
    lanes: HashMap<u64, Lane>,
    /// Both limits of each job, as far as they still count.
    limits: BTreeSet<(Time, u64)>,
}

#[derive(Debug)]
struct Need {
    key: Key,
    /// The change of the container.
    revision: u64,
    /// Until when it waits for the store to hold that,
    written: Option<Time>,
    /// and for an inspect that was asked for after it.
    seen: Option<Time>,
}

impl Holds {
    /// The job waits from now on.
    pub fn add(
        &mut self,
        now: Time,
        (key, id): Freed,
        lane: &Lane,
        revision: u64,
        write_first: bool,
    ) {
        let need = Need {
            key,
            revision,
            written: write_first.then_some(now + WRITE_FIRST),
            seen: Some(now + LOOK_FIRST),
        };
        let limits = [need.written, need.seen].into_iter().flatten();
        self.limits.extend(limits.map(|at| (at, id)));
        self.lanes.insert(id, lane.clone());
        let container = self.needs.entry(lane.clone()).or_default();
        container.insert(id, need);
    }

    /// The job does not wait any more.
    pub fn remove(&mut self, id: u64) {
        if let Some(lane) = self.lanes.remove(&id)
            && let Some(container) = self.needs.get_mut(&lane)
        {
            if let Some(need) = container.remove(&id) {
                for at in [need.written, need.seen].into_iter().flatten() {
                    self.limits.remove(&(at, id));
                }
            }
            if container.is_empty() {
                self.needs.remove(&lane);
            }
        }
    }

    /// The store holds this change of a container, and all before it.
    pub fn written(&mut self, lane: &Lane, revision: u64) -> Vec<Freed> {
        self.meet(lane, |need| {
            if need.revision <= revision {
                need.written = None;
            }
        })
    }

    /// An inspect that was asked for after this change of a container, and all before it, was answered.
    pub fn seen(&mut self, lane: &Lane, revision: u64) -> Vec<Freed> {
        self.meet(lane, |need| {
            if need.revision <= revision {
                need.seen = None;
            }
        })
    }

    /// Nobody waits for the store any more.
    pub fn store_is_down(&mut self) -> Vec<Freed> {
        let lanes: Vec<Lane> = self.needs.keys().cloned().collect();
        let mut freed = Vec::new();
        for lane in lanes {
            freed.extend(self.meet(&lane, |need| need.written = None));
        }
        freed
    }

    /// Who has waited long enough.
    pub fn expire(&mut self, now: Time) -> Vec<Freed> {
        let mut freed = Vec::new();
        while let Some((at, id)) = self.limits.first().copied()
            && at <= now
        {
            self.limits.pop_first();
            if let Some(lane) = self.lanes.get(&id).cloned() {
                freed.extend(self.meet(&lane, |need| {
                    need.written.take_if(|until| *until <= now);
                    need.seen.take_if(|until| *until <= now);
                }));
            }
        }
        freed
    }

    /// When the next one has waited long enough.
    pub fn deadline(&self) -> Option<Time> {
        self.limits.first().map(|(at, _)| *at)
    }

    /// What a container's jobs wait for has changed.
    fn meet(&mut self, lane: &Lane, change: impl Fn(&mut Need)) -> Vec<Freed> {
        let Some(container) = self.needs.get_mut(lane) else {
            return Vec::new();
        };
        let mut freed = Vec::new();
        container.retain(|id, need| {
            let before = [need.written, need.seen];
            change(need);
            let after = [need.written, need.seen];
            for (before, after) in before.into_iter().zip(after) {
                if let (Some(at), None) = (before, after) {
                    self.limits.remove(&(at, *id));
                }
            }
            let waits = after != [None, None];
            if !waits {
                self.lanes.remove(id);
                freed.push((need.key, *id));
            }
            waits
        });
        if container.is_empty() {
            self.needs.remove(lane);
        }
        freed
    }
}
