//! What the engine is asked about single containers: in which order, how much at once, and what the answers say.

use std::collections::HashSet;
use std::sync::Arc;

use super::{
    ASK, ASK_AGAIN, Container, Engine, Look, Outcome, Report, Room, Round, STUCK, Seen, Stage,
    Told, Witness,
};
use crate::core::Time;
use crate::core::message::{Effect, Generation, Inspected, Inspection, Level};
use crate::model::{ContainerId, Document, Summary};

impl Engine {
    /// Look at this container, before all that only a resync wants.
    pub(super) fn touch(&mut self, now: Time, id: &ContainerId) -> u64 {
        self.revisions += 1;
        let revision = self.revisions;
        let container = self.container(id);
        container.revision = revision;
        container.touched = Some(now);
        match &mut container.look {
            Look::Asked { again } | Look::Slow { again } => *again = true,
            Look::Queued { urgent: true } => {}
            look => {
                *look = Look::Queued { urgent: true };
                self.urgent.push_back(id.clone());
            }
        }
        revision
    }

    /// Look at this container once more, before all that only a resync wants.
    pub(super) fn look_soon(&mut self, id: &ContainerId) {
        let container = self.container(id);
        if container.look == Look::Idle {
            container.look = Look::Queued { urgent: true };
            self.urgent.push_back(id.clone());
        }
    }

    /// What the dead connection was asked is asked anew: its answers come to nothing.
    pub(super) fn ask_anew(&mut self) {
        let mut asked = Vec::new();
        for (id, container) in &mut self.containers {
            if matches!(container.look, Look::Asked { .. } | Look::Slow { .. }) {
                container.look = Look::Queued { urgent: true };
                asked.push(id.clone());
            }
        }
        asked.sort_unstable();
        self.urgent.extend(asked);
    }

    /// Look at this container when nothing more urgent is to be looked at.
    pub(super) fn look_in_turn(&mut self, id: &ContainerId) {
        let container = self.container(id);
        if container.look == Look::Idle {
            container.look = Look::Queued { urgent: false };
            self.background.push_back(id.clone());
        }
    }

    pub(super) fn container(&mut self, id: &ContainerId) -> &mut Container {
        // One that was heard of before and forgotten had ended: that it runs again is news, even during the first look.
        let old = self.baseline && self.known.names(id.as_str()).is_none();
        let existing = old && self.rules.existing;
        let remembered = &mut self.remembered;
        self.containers
            .entry(id.clone())
            .or_insert_with(|| Container {
                look: Look::Idle,
                revision: 0,
                touched: None,
                asked: 0,
                facts: None,
                seen: None,
                last: remembered.take(id),
                gone: false,
                member: true,
                told: Told::Nothing,
                told_at: 0,
                old,
                existing,
                inherited: false,
                suspect: None,
                witness: Witness::default(),
            })
    }

    pub(super) fn ask(&mut self, now: Time, room: Room, out: &mut Vec<Outcome>) -> bool {
        if self.round_wanted
            && self.round.is_none()
            && self.listing.is_none()
            && self.list_at <= now
        {
            self.round_wanted = false;
            self.listing = Some(self.revisions);
            self.silent = true;
            // A gap that is told from now on is not healed by this list.
            self.list_at = now + ASK_AGAIN;
            self.rounds += 1;
            self.round = Some(Round {
                number: self.rounds,
                stage: Stage::Listing,
                waiting: HashSet::new(),
            });
            out.push(Outcome::Effect(Effect::List {
                engine: self.index,
                generation: self.epoch,
                api_version: self.api_version.clone(),
            }));
        }
        while let Some((at, id)) = self.failed.front().cloned()
            && at <= now
        {
            self.failed.pop_front();
            self.touch(now, &id);
        }
        // Two asks at the most: one that is being worked on, and one of touched containers behind it.
        while self.asks.is_empty() || (self.asks.len() < 2 && !self.urgent.is_empty()) {
            let urgent = !self.urgent.is_empty();
            if room == Room::None || (room == Room::Urgent && !urgent) {
                return urgent || !self.background.is_empty();
            }
            let inspections = self.next_inspections(urgent);
            if inspections.is_empty() && !urgent {
                break;
            }
            if inspections.is_empty() {
                continue;
            }
            if self.asks.is_empty() {
                self.asks_moved = now;
            }
            self.asks.push_back(inspections.len());
            out.push(Outcome::Effect(Effect::Inspect {
                engine: self.index,
                generation: self.epoch,
                api_version: self.api_version.clone(),
                inspections,
                check_filters: urgent && self.rules.filtered,
            }));
        }
        false
    }

    /// Is an answer to an inspect on its way?
    pub fn is_asked(&self) -> bool {
        !self.asks.is_empty()
    }

    /// How many answers to inspects may arrive at any moment; none from an engine that has not answered for a while.
    pub fn expected(&self, now: Time) -> usize {
        match self.asks_moved + STUCK > now {
            true => self.asks.iter().sum(),
            false => 0,
        }
    }

    pub(super) fn next_inspections(&mut self, urgent: bool) -> Vec<Inspection> {
        let mut inspections = Vec::new();
        let queue = match urgent {
            true => &mut self.urgent,
            false => &mut self.background,
        };
        while inspections.len() < ASK
            && let Some(id) = queue.pop_front()
        {
            if let Some(container) = self.containers.get_mut(&id)
                && container.look == (Look::Queued { urgent })
            {
                container.look = Look::Asked { again: false };
                container.asked = container.revision;
                // Of one that an event touched there is news to read.
                let seen = container.seen.filter(|_| !urgent);
                let known = seen.map(|seen| seen.answer);
                inspections.push(Inspection { id, known });
            }
        }
        inspections
    }

    /// An inspect was answered, or moved out of the way.
    pub fn inspected(
        &mut self,
        now: Time,
        generation: Generation,
        id: &ContainerId,
        by_slow: bool,
        result: Inspected,
        out: &mut Vec<Outcome>,
    ) {
        if generation < self.answers_from {
            return;
        }
        if !by_slow {
            self.answered(now);
        }
        // What was asked on a dead connection has been asked for anew.
        if generation != self.epoch {
            return;
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let mut again = match container.look {
            Look::Asked { again } if !by_slow => again,
            Look::Slow { again } if by_slow => again,
            _ => return,
        };
        let asked = container.asked;
        container.look = Look::Idle;
        // It is not forgotten before it was asked for again.
        let failed = matches!(result, Inspected::Failed(_));
        let mut unread = false;
        match result {
            Inspected::Slow => {
                container.look = Look::Slow { again };
                again = false;
            }
            Inspected::Failed(error) => {
                out.push(Outcome::Effect(Effect::Log(Level::Debug, error)));
                self.failed.push_back((now + ASK_AGAIN, id.clone()));
            }
            Inspected::Found { document, member } => {
                self.found(now, id, asked, document, member, out);
            }
            Inspected::Same { member } => unread = !self.same(now, id, asked, member, out),
            Inspected::Gone => self.gone(now, id, asked, out),
        }
        if again {
            self.look_soon(id);
        } else if !failed {
            self.tidy(id);
        }
        if !unread
            && let Some(round) = &mut self.round
            && round.waiting.remove(id)
        {
            self.looked(now, out);
        }
    }

    /// One inspect of the oldest ask was answered: the syncer goes through them in order.
    pub(super) fn answered(&mut self, now: Time) {
        self.asks_moved = now;
        if let Some(left) = self.asks.front_mut() {
            *left -= 1;
            if *left == 0 {
                self.asks.pop_front();
            }
        }
    }

    fn found(
        &mut self,
        now: Time,
        id: &ContainerId,
        asked: u64,
        document: Arc<Document>,
        member: Option<bool>,
        out: &mut Vec<Outcome>,
    ) {
        let mut facts = document.summary.clone();
        facts.labels = facts.labels.filter(|_| self.rules.labels);
        self.keep_document(id, asked, &document);
        self.container(id).seen = document.answer.map(|answer| Seen {
            answer,
            document: document.digest,
        });
        let report = match self.learn(now, id, asked, facts, member) {
            true => Report::Document(document),
            false => Report::Nothing,
        };
        out.push(Outcome::State(id.clone(), report, asked));
    }

    /// The engine answered what it had answered before. False where that is to be read again since.
    fn same(
        &mut self,
        now: Time,
        id: &ContainerId,
        asked: u64,
        member: Option<bool>,
        out: &mut Vec<Outcome>,
    ) -> bool {
        let container = self.container(id);
        let (Some(facts), Some(seen)) = (container.facts.clone(), container.seen) else {
            self.look_soon(id);
            return false;
        };
        self.keep_same(id, asked);
        let report = match self.learn(now, id, asked, facts, member) {
            true => Report::Same(seen.document),
            false => Report::Nothing,
        };
        out.push(Outcome::State(id.clone(), report, asked));
        true
    }

    /// An inspect says this of a container. Is it to be reported?
    fn learn(
        &mut self,
        now: Time,
        id: &ContainerId,
        asked: u64,
        facts: Summary,
        member: Option<bool>,
    ) -> bool {
        let all = self.rules.all;
        self.known.seen(id, asked, &facts);
        let container = self.container(id);
        container.gone = false;
        container.inherited = false;
        container.member = member.unwrap_or(container.member);
        let changed = container
            .witness
            .looked(asked, container.facts.as_ref(), &facts);
        let (running, started) = (facts.running, facts.started_at.clone());
        container.facts = Some(facts);
        let strange = match (&container.told, running) {
            _ if asked < container.told_at => false,
            (Told::Running(Some(told)), true) => *told != started,
            (Told::Running(None), true) => {
                container.told = Told::Running(Some(started));
                false
            }
            (Told::Nothing, true) if container.old => {
                container.told = Told::Running(Some(started));
                false
            }
            (Told::Nothing, true) | (Told::Running(_), false) => true,
            (Told::Nothing, false) => false,
        };
        container.old = false;
        // One that does not run will be told of by its start.
        container.existing &= running;
        let strange = strange || container.existing || changed;
        let report = container.member && (running || all);
        if strange {
            self.suspect(now, id);
        } else {
            container.suspect = None;
        }
        report
    }

    pub(super) fn gone(&mut self, now: Time, id: &ContainerId, asked: u64, out: &mut Vec<Outcome>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let Some(facts) = &mut container.facts {
            facts.running = false;
        }
        container.gone = true;
        container.seen = None;
        if let Some(last) = &mut container.last {
            last.outlived();
        }
        match container.told {
            Told::Nothing => container.suspect = None,
            Told::Running(_) => self.suspect(now, id),
        }
        out.push(Outcome::State(id.clone(), Report::Nothing, asked));
    }

    /// Drops what need not be remembered: neither running, nor asked for, nor suspected.
    pub(super) fn tidy(&mut self, id: &ContainerId) {
        let all = self.rules.all;
        let idle = |container: &Container| {
            let facts = container.facts.as_ref();
            let stopped = facts.is_none_or(|facts| !facts.running);
            container.look == Look::Idle
                && stopped
                && !(all && facts.is_some() && !container.gone)
                && container.suspect.is_none()
                && container.told == Told::Nothing
        };
        if self.containers.get(id).is_some_and(idle)
            && let Some(last) = self.containers.remove(id).and_then(|gone| gone.last)
        {
            self.remembered.keep(id, last);
        }
    }
}
