//! What no event told: where the state of a container proves that one is missing, it is made up, after a moment in which the real one may still come.
//! In the same way handlers that want to know it are told of containers that were there before us: unless their start still comes, once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::witness::Change;
use super::{Engine, Look, Outcome, SETTLE, Told};
use crate::core::Time;
use crate::model::{ContainerId, EXISTING, Event, Summary};

/// How many of the last inferred events are remembered: as many as the engine remembers itself.
const MEMORY: usize = 256;

/// The last events that were inferred, should they come after all: a stream may be late, and a renewal shows what the last one left out.
#[derive(Default, Debug)]
pub(super) struct Inferred(VecDeque<(ContainerId, Box<str>, i64)>);

impl Inferred {
    /// This was inferred, when the engine's clock stood so.
    fn keep(&mut self, id: &ContainerId, word: &str, clock_ns: i64) {
        if self.0.len() == MEMORY {
            self.0.pop_front();
        }
        self.0.push_back((id.clone(), word.into(), clock_ns));
    }

    /// Is this event one of them? It comes but once.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let place = self.0.iter().position(|(id, word, clock_ns)| {
            event.container() == Some(id.as_str())
                && event.time_ns <= *clock_ns
                && **word == event.word()
        });
        place.and_then(|place| self.0.remove(place)).is_some()
    }
}

impl Engine {
    pub(super) fn suspect(&mut self, now: Time, id: &ContainerId) {
        let container = self.container(id);
        if container.suspect.is_none() {
            container.suspect = Some(now + SETTLE);
            self.suspects.push_back((now + SETTLE, id.clone()));
        }
    }

    /// The moment is over in which the event might still have come.
    pub(super) fn infer(&mut self, now: Time, at: Time, id: ContainerId, out: &mut Vec<Outcome>) {
        let clock_ns = self.clock_ns(now);
        let told = self.told_by().is_some_and(|by| by <= now);
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        if container.suspect != Some(at) {
            // An event explained it.
            return;
        }
        container.suspect = None;
        if container.look != Look::Idle {
            return self.suspect(now, &id);
        }
        let facts = container.facts.clone().unwrap_or_default();
        let gone = container.gone;
        let actions: &[&str] = match (&container.told, facts.running) {
            (Told::Nothing, true) => &["start"],
            (Told::Running(_), false) => &["die"],
            (Told::Running(Some(told)), true) if *told != facts.started_at => &["die", "start"],
            _ => &[],
        };
        container.told = match facts.running {
            true => Told::Running(Some(facts.started_at.clone())),
            false => Told::Nothing,
        };
        let existing =
            std::mem::take(&mut container.existing) && facts.running && actions.is_empty();
        let excused = self.heals.is_some() || now <= self.excused_until;
        let changes = match told {
            true => container.witness.lost(&facts),
            false => Vec::new(),
        };
        let waits = container.witness.waits();
        let lost = !actions.is_empty() || !changes.is_empty();
        if lost && !excused {
            self.counters.drift += 1;
            self.gap(now, "a resync found what no event had told", out);
        }
        if existing {
            let since_ns = facts.started_ns.unwrap_or(clock_ns);
            let connected_ns = self.hello.as_ref().map_or(0, |hello| hello.clock_ns);
            if since_ns >= connected_ns {
                // Its start was lost, and a renewal may show it.
                self.inferred.keep(&id, "start", clock_ns);
            }
            out.push(Outcome::Event {
                event: Arc::new(made_up(&id, EXISTING, &facts, gone, since_ns)),
                inferred: false,
                revision: 0,
            });
        }
        if lost {
            self.known.recall(&id, &facts);
        }
        let ends = actions.iter();
        let ends = ends.map(|action| made_up(&id, action, &facts, gone, clock_ns));
        let changes = changes.into_iter();
        let changes = changes.map(|change| change.event(&id, &facts, clock_ns));
        for event in ends.chain(changes) {
            self.inferred.keep(&id, &event.word(), clock_ns);
            out.push(Outcome::Event {
                event: Arc::new(event),
                inferred: true,
                revision: 0,
            });
        }
        if waits {
            self.suspect(now, &id);
        }
        self.tidy(&id);
    }
}

fn made_up(
    id: &ContainerId,
    action: &'static str,
    facts: &Summary,
    gone: bool,
    time_ns: i64,
) -> Event {
    let mut own = Vec::new();
    // Of one that is gone, the last facts may be from before its end.
    if action == "die" && !facts.running && (!gone || facts.exit_code != 0) {
        own.push(("exitCode", facts.exit_code.to_string()));
    }
    Change::new(action, own).event(id, facts, time_ns)
}
