//! Full resyncs: a list, a look at each container, the comparison with the store, its repair.
//!
//! Each engine has its place in the interval, drawn at its birth, and a resync is due whenever the time comes to it, whatever else wanted one since
//! the last. So engines that begin together, or find their store again together, resync apart within the interval, and none waits longer than that.

use std::collections::HashSet;

use super::{ASK_AGAIN, Container, Engine, Look, Outcome, SETTLE, Stage};
use crate::core::Time;
use crate::core::message::{Effect, Generation, Level, Unlisted};
use crate::model::{ContainerId, Row};

impl Engine {
    /// A full resync is due, as soon as the one under way is over.
    pub fn want_round(&mut self, now: Time) {
        if !self.round_wanted {
            self.round_wanted = true;
            self.list_at = self.list_at.max(now);
        }
    }

    /// A list was answered.
    pub fn listed(
        &mut self,
        now: Time,
        generation: Generation,
        result: Result<Vec<Row>, Unlisted>,
        out: &mut Vec<Outcome>,
    ) {
        if generation < self.answers_from {
            return;
        }
        let Some(asked) = self.listing.take() else {
            return;
        };
        if generation != self.epoch {
            self.round = None;
            return self.want_round(now);
        }
        let rows = match result {
            Ok(rows) => rows,
            Err(Unlisted { error, timed_out }) => {
                self.round = None;
                self.want_round(now);
                self.list_at = now + ASK_AGAIN;
                if self.list_complaints.is_new(&error) {
                    out.push(Outcome::Effect(Effect::Log(Level::Warn, error.clone())));
                }
                if timed_out && self.silent {
                    self.error = error;
                    self.does_not_answer(out);
                }
                return;
            }
        };
        self.list_complaints.clear();
        self.answers(out);
        let listed: HashSet<&ContainerId> = rows.iter().map(|row| &row.id).collect();
        // Lists are made without the containers' locks: one that an event touched a moment before may be missing although it is there. And of one that
        // ended before our time an inspect may still tell how, and its labels.
        let recent = |container: &Container| {
            container.inherited || container.touched.is_some_and(|at| at + SETTLE > now)
        };
        let mut missing: Vec<(ContainerId, bool)> = self
            .containers
            .iter()
            .filter(|(id, container)| container.revision <= asked && !listed.contains(id))
            .map(|(id, container)| (id.clone(), recent(container)))
            .collect();
        missing.sort_unstable();
        let mut waiting = HashSet::new();
        for (id, recent) in missing {
            match recent {
                true => self.look_in_turn(&id),
                false => {
                    // An answer that is still on its way is older than the list, and is not the last word.
                    if let Look::Asked { again } | Look::Slow { again } =
                        &mut self.container(&id).look
                    {
                        *again = true;
                    }
                    self.gone(now, &id, 0, out);
                    self.tidy(&id);
                }
            }
        }
        for row in &rows {
            let container = self.container(&row.id);
            if container.revision <= asked {
                container.member = row.member;
            }
            if !matches!(container.look, Look::Slow { .. }) {
                waiting.insert(row.id.clone());
            }
            self.look_in_turn(&row.id);
        }
        if let Some(round) = &mut self.round {
            round.stage = Stage::Looking;
            round.waiting = waiting;
        }
        self.looked(now, out);
    }

    /// These containers' documents are to be written again, although they did not change.
    pub fn repair(&mut self, now: Time, ids: &[ContainerId], out: &mut Vec<Outcome>) {
        let mut waiting = HashSet::new();
        for id in ids {
            self.container(id).seen = None;
            self.look_in_turn(id);
            if !matches!(self.container(id).look, Look::Slow { .. }) {
                waiting.insert(id.clone());
            }
        }
        match &mut self.round {
            Some(round) if round.stage == Stage::Comparing => {
                round.stage = Stage::Repairing;
                round.waiting = waiting;
                self.looked(now, out);
            }
            _ => {}
        }
    }

    /// The round has nothing more to ask: it is over as far as the engine is concerned.
    pub fn end_round(&mut self, now: Time) {
        self.round = None;
        self.tick = self.next_place(now);
    }

    /// The round's work with the engine is done, and what is left of it is the store's.
    pub fn waits_for_store(&self) -> bool {
        self.round.as_ref().is_some_and(|round| {
            matches!(round.stage, Stage::Comparing | Stage::Repairing) && round.waiting.is_empty()
        })
    }

    /// The round under way; each has its own number.
    pub fn round(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.number)
    }

    /// Is a resync under way?
    pub fn in_round(&self) -> bool {
        self.round.is_some() || self.round_wanted
    }

    /// When the time comes to its place again.
    pub(super) fn next_place(&self, now: Time) -> Time {
        let interval = self.rules.interval;
        let past = (now + interval - self.place).as_nanos() % interval.as_nanos();
        now + interval - Time::from_nanos(past as u64)
    }

    pub(super) fn looked(&mut self, now: Time, out: &mut Vec<Outcome>) {
        let Some(round) = &mut self.round else {
            return;
        };
        if !round.waiting.is_empty() {
            return;
        }
        match round.stage {
            Stage::Looking => {
                round.stage = Stage::Comparing;
                self.counters.resyncs += 1;
                self.baseline = false;
                if self.heals.is_some_and(|heals| heals <= round.number) {
                    self.heals = None;
                    self.excused_until = now + 2 * SETTLE;
                }
                out.push(Outcome::Looked);
            }
            Stage::Repairing => out.push(Outcome::Repaired),
            Stage::Listing | Stage::Comparing => {}
        }
    }
}
