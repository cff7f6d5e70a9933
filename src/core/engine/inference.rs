//! What no event told: where the state of a container proves that one is missing, it is made up, after a moment in which the real one may still come.

use std::sync::Arc;

use super::{Engine, Look, Outcome, SETTLE, Told};
use crate::core::Time;
use crate::model::{ContainerId, Event, Summary};

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
        let excused = self.heals.is_some() || now <= self.excused_until;
        if !actions.is_empty() && !excused {
            self.counters.drift += 1;
            self.gap(now, "a resync found what no event had told", out);
        }
        for action in actions {
            out.push(Outcome::Event {
                event: Arc::new(inferred(&id, action, &facts, clock_ns)),
                inferred: true,
                revision: 0,
            });
        }
        self.tidy(&id);
    }
}

pub(super) fn inferred(id: &ContainerId, action: &str, facts: &Summary, time_ns: i64) -> Event {
    let mut attributes = vec![
        ("image".into(), (&*facts.image).into()),
        ("name".into(), (&*facts.name).into()),
    ];
    if action == "die" && !facts.running && facts.exit_code != 0 {
        attributes.push(("exitCode".into(), facts.exit_code.to_string().into()));
    }
    Event {
        kind: "container".into(),
        action: action.into(),
        id: id.as_str().into(),
        attributes,
        time_ns,
    }
}
