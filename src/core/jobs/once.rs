//! `once: true`: what the store knows of the jobs of all agents, and what that means for ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::holds::Freed;
use super::leases::Answer;
use super::{Jobs, Key, Outcome, Waiting, Why};
use crate::core::Time;
use crate::model::Event;
use crate::store::{OnceAsk, OnceState};

/// What all agents call an entry's command for an event of an engine. It is FNV-1a, as every version of this program has to find the same.
pub fn name(engine: &str, event: &Event, entry: &str) -> u128 {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let time = event.time_ns.to_string();
    let words = [engine, &event.kind, &event.action, &event.id, &time, entry];
    // This byte ends a word: it stands in no text.
    let words = words.iter().map(|word| word.bytes().chain([0xff]));
    words.flatten().fold(START, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    })
}

impl Jobs {
    /// The store answers.
    pub fn store_is_open(&mut self, now: Time) {
        self.leases.store_is_open(now);
    }

    /// What the store answered to [`Jobs::ask`].
    pub fn answered(&mut self, now: Time, asks: &[OnceAsk], states: &[OnceState]) {
        for answer in self.leases.answered(asks, states) {
            match answer {
                Answer::Ours(place) => self.lease(place, true),
                Answer::Theirs(place) => self.taken(now, place),
                Answer::Lost(place) => {
                    self.lease(place, false);
                    self.taken(now, place);
                }
                Answer::Done(place) => {
                    self.taken(now, place);
                    self.drop_job(place, Why::Elsewhere);
                }
                Answer::Twice((_, id)) => {
                    let job = self.running.get(&id).cloned();
                    self.outcomes.extend(job.map(Outcome::Twice));
                }
            }
        }
    }

    /// What to ask the store now, with `once`.
    pub fn ask(&mut self, now: Time) -> Option<Arc<[OnceAsk]>> {
        self.leases.next(now)
    }

    /// When there is something to ask it.
    pub fn ask_at(&self) -> Option<Time> {
        self.leases.ask_at()
    }

    /// With `once`, the store is still to be told of an end.
    pub fn has_news(&self) -> bool {
        self.leases.has_news()
    }

    /// Drops what has waited too long for a lease.
    pub(super) fn drop_late(&mut self, now: Time) {
        let mut late: BTreeMap<Key, (Waiting, usize)> = BTreeMap::new();
        while let Some((key, id)) = self.leases.late(now) {
            let Some(job) = self.remove((key, id)) else {
                break;
            };
            self.forget(&job);
            self.dropped_total += 1;
            late.entry(key).or_insert((job, 0)).1 += 1;
            // The next one of its line may be as old.
            self.turn(key);
        }
        let late = late.into_values();
        let late = late.map(|(job, count)| Outcome::Left(job, Why::Late(count)));
        self.outcomes.extend(late);
    }

    /// Has this job its lease?
    pub(super) fn lease(&mut self, (key, id): Freed, ours: bool) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.lease(id, ours);
            self.turn(key);
        }
    }

    /// Another agent has taken this job: that counts for its container here as well.
    fn taken(&mut self, now: Time, (key, id): Freed) {
        if let Some(queue) = self.queues.get_mut(&key)
            && queue.take(id)
            && let Some(lane) = queue.waiting.get(&id).map(|job| job.lane.clone())
        {
            let cooldown = queue.entry.queueing.cooldown;
            queue.cooldown.begin(now, &lane, cooldown);
        }
    }

    fn drop_job(&mut self, place: Freed, why: Why) {
        if let Some(job) = self.remove(place) {
            self.left(job, why);
            self.turn(place.0);
        }
    }

    fn remove(&mut self, (key, id): Freed) -> Option<Waiting> {
        self.queues.get_mut(&key)?.remove(id)
    }
}

#[cfg(test)]
mod tests;
