//! What no event told: where the state of a container proves that one is missing, it is made up, after a moment in which the real one may still come.
//! In the same way handlers that want to know it are told of containers that were there before us: unless their start still comes, once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Engine, Look, Outcome, SETTLE, Told};
use crate::core::Time;
use crate::model::{ContainerId, EXISTING, Event, Scope, Summary};

/// How many of the last inferred events are remembered: as many as the engine remembers itself.
const MEMORY: usize = 256;

/// The last events that were inferred, should they come after all: a stream may be late, and a renewal shows what the last one left out.
#[derive(Default, Debug)]
pub(super) struct Inferred(VecDeque<(ContainerId, &'static str, i64)>);

impl Inferred {
    /// This was inferred, when the engine's clock stood so.
    fn keep(&mut self, id: &ContainerId, action: &'static str, clock_ns: i64) {
        if self.0.len() == MEMORY {
            self.0.pop_front();
        }
        self.0.push_back((id.clone(), action, clock_ns));
    }

    /// Is this event one of them? It comes but once.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let place = self.0.iter().position(|(id, action, clock_ns)| {
            *event.id == *id.as_str()
                && *event.kind == *"container"
                && *action == event.verb()
                && event.time_ns <= *clock_ns
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
        if !actions.is_empty() && !excused {
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
        for action in actions {
            self.inferred.keep(&id, action, clock_ns);
            out.push(Outcome::Event {
                event: Arc::new(made_up(&id, action, &facts, gone, clock_ns)),
                inferred: true,
                revision: 0,
            });
        }
        self.tidy(&id);
    }
}

fn made_up(id: &ContainerId, action: &str, facts: &Summary, gone: bool, time_ns: i64) -> Event {
    let mut attributes = vec![
        ("image".into(), (&*facts.image).into()),
        ("name".into(), (&*facts.name).into()),
    ];
    // Of one that is gone, the last facts may be from before its end.
    if action == "die" && !facts.running && (!gone || facts.exit_code != 0) {
        attributes.push(("exitCode".into(), facts.exit_code.to_string().into()));
    }
    Event {
        kind: "container".into(),
        action: action.into(),
        id: id.as_str().into(),
        attributes,
        time_ns,
        scope: Scope::MadeUp,
    }
}
