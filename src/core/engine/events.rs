//! Events as they come: judged, remembered, passed on, and turned into a look at their container.

use std::sync::Arc;

use super::{Engine, Outcome, Told};
use crate::core::Time;
use crate::core::continuity::{Gap, Verdict};
use crate::core::message::Generation;
use crate::model::Event;

impl Engine {
    /// The stream told an event.
    pub fn event(
        &mut self,
        now: Time,
        generation: Generation,
        event: Event,
        out: &mut Vec<Outcome>,
    ) {
        if generation != self.generation {
            return;
        }
        self.answers(out);
        let inferred = &mut self.inferred;
        let (verdict, gap) = self.continuity.judge(now, &event, || inferred.take(&event));
        if gap == Some(Gap::Dropped) {
            self.gap(now, "the engine dropped events although we listened", out);
        }
        if verdict == Verdict::Seen {
            return;
        }
        self.counters.events += 1;
        self.last_event_ns = event.time_ns;
        let container = match event.is_noise() {
            true => None,
            false => self.about(&event),
        };
        let mut revision = 0;
        if let Some(id) = container.filter(|id| !id.as_str().is_empty()) {
            revision = self.touch(now, &id);
            let told = match (&*event.kind, event.verb()) {
                // Nobody is told it; what was told before stands.
                _ if verdict == Verdict::Old => None,
                ("container", "start") => Some(Told::Running(None)),
                ("container", "die") => Some(Told::Nothing),
                _ => None,
            };
            let container = self.container(&id);
            if verdict != Verdict::Old {
                container.witness.heard(&event, revision);
            }
            if let Some(told) = told {
                container.told = told;
                container.told_at = revision;
                container.old = false;
                container.existing = false;
                // Whether that was all, the next look will tell.
                container.suspect = None;
            }
            if &*event.kind == "container" {
                let facts = self.containers.get(&id).and_then(|it| it.facts.as_ref());
                self.known.heard(&id, &event, revision, facts);
            }
        }
        if verdict != Verdict::Old {
            out.push(Outcome::Event {
                event: Arc::new(event),
                inferred: verdict == Verdict::Late,
                revision,
            });
        }
    }
}
