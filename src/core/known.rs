//! What was said of containers lately: names and labels, which events of other objects lack; and how and why they ended, which no single event tells.
//!
//! moby copies a container's labels over the attributes of its events (`daemon/events.go`), so a label `exitCode` hides the real one. It shows itself
//! in every other event of the container, which has no exit code of its own; then only an inspect after the end knows better. Of a hidden `signal`
//! nobody knows anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::{Cause, ContainerId, Event, LabelList, Summary, signal_number};

/// So many containers are remembered after they are gone: for the events that follow a container's end, and jobs that wait. About 500 kB.
const MEMORY: usize = 1024;

/// A container that ends so long after it was asked to, ends because of that.
const ASKED_NS: i64 = 3_600 * 1_000_000_000;

/// The kernel's killing for want of memory is told so long before the end that it led to.
const OOM_NS: i64 = 10 * 1_000_000_000;

/// The containers that events told of last.
#[derive(Debug, Default)]
pub struct Known {
    /// Which of them was heard of when; the first is forgotten first.
    order: BTreeMap<u64, ContainerId>,
    heard: u64,
    containers: HashMap<ContainerId, Acquaintance>,
}

#[derive(Debug, Default)]
struct Acquaintance {
    heard: u64,
    name: Arc<str>,
    image: Arc<str>,
    labels: Option<LabelList>,
    stop_signal: Option<u8>,
    /// A label stands where the exit code of its events should.
    hides_exit_code: bool,
    hides_signal: bool,
    /// Its last end, while its exit code is hidden.
    end: Option<End>,
    /// When it was last asked to end since its last start, by each signal.
    asked: Vec<(Asked, i64)>,
    /// When it last ran out of memory since then.
    oom_ns: Option<i64>,
}

/// A way to ask a container to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// Beyond doubt.
    Plainly,
    /// By this signal, which may be the one that its image names for that.
    By(u8),
}

#[derive(Debug)]
struct End {
    revision: u64,
    exit_code: Option<i64>,
}

impl Known {
    /// An event of this container was told; `facts` are what the last inspect said of it.
    pub fn heard(
        &mut self,
        id: &ContainerId,
        event: &Event,
        revision: u64,
        facts: Option<&Summary>,
    ) {
        let container = self.remember(id);
        for (attribute, known) in [
            ("name", &mut container.name),
            ("image", &mut container.image),
        ] {
            if let Some(said) = event.attribute(attribute).filter(|said| **known != **said) {
                *known = said.into();
            }
        }
        if let Some(facts) = facts {
            container.note(facts);
        }
        let verb = event.verb();
        container.hides_exit_code |= verb != "die" && event.attribute("exitCode").is_some();
        container.hides_signal |= verb != "kill" && event.attribute("signal").is_some();
        match verb {
            "start" => container.started(),
            "stop" => container.asked(Asked::Plainly, event.time_ns),
            "kill" => {
                let signal = event.attribute("signal").and_then(signal_number);
                let asked = match signal.filter(|_| !container.hides_signal) {
                    // HUP, USR1 and their like ask for something else.
                    Some(signal) if !matches!(signal, 2 | 3 | 9 | 15) => Asked::By(signal),
                    _ => Asked::Plainly,
                };
                container.asked(asked, event.time_ns);
            }
            "oom" => container.oom_ns = Some(event.time_ns),
            "die" if container.hides_exit_code => {
                container.end = Some(End {
                    revision,
                    exit_code: None,
                });
            }
            _ => {}
        }
    }

    /// An event of this container, which may be gone, is about to be made up from these facts.
    pub fn recall(&mut self, id: &ContainerId, facts: &Summary) {
        let container = self.remember(id);
        container.name.clone_from(&facts.name);
        container.image.clone_from(&facts.image);
        container.note(facts);
    }

    /// Of this container an event was made up, since none told of it.
    pub fn inferred(&mut self, event: &Event) {
        if event.verb() == "start"
            && let Some(container) = self.containers.get_mut(&*event.id)
        {
            container.started();
        }
    }

    /// An inspect that was asked for at this revision found the container so.
    pub fn seen(&mut self, id: &ContainerId, asked: u64, summary: &Summary) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.name.clone_from(&summary.name);
        container.image.clone_from(&summary.image);
        container.note(summary);
        if let Some(end) = &mut container.end
            && end.revision <= asked
            && end.exit_code.is_none()
            && !summary.running
        {
            end.exit_code = Some(summary.exit_code);
        }
    }

    /// Its name, without a slash, and its image.
    pub fn names(&self, id: &str) -> Option<(&str, &str)> {
        let container = self.containers.get(id)?;
        Some((&container.name, &container.image))
    }

    /// Its labels, once an inspect told them and where anybody asks for them.
    pub fn labels(&self, id: &str) -> Option<&LabelList> {
        self.containers.get(id)?.labels.as_ref()
    }

    /// Is the exit code of this container's events hidden by a label?
    pub fn hides_exit_code(&self, id: &str) -> bool {
        let container = self.containers.get(id);
        container.is_some_and(|container| container.hides_exit_code)
    }

    /// The hidden exit code of the end that this revision stands for, if an inspect still showed it.
    pub fn exit_code(&self, id: &str, revision: u64) -> Option<i64> {
        let end = self.containers.get(id)?.end.as_ref()?;
        end.exit_code.filter(|_| end.revision == revision)
    }

    /// Why a container ends at this time, where it does not end by itself.
    pub fn cause(&self, id: &str, time_ns: i64) -> Option<Cause> {
        let container = self.containers.get(id)?;
        // What was heard before is before, whatever the engine's clock did.
        let within = |ns: i64, span: i64| time_ns.saturating_sub(ns) <= span;
        let ends = |asked: Asked| match asked {
            Asked::Plainly => true,
            Asked::By(signal) => container.stop_signal == Some(signal),
        };
        let mut asked = container.asked.iter();
        if asked.any(|(asked, ns)| ends(*asked) && within(*ns, ASKED_NS)) {
            return Some(Cause::Stop);
        }
        let oom = container.oom_ns.filter(|ns| within(*ns, OOM_NS));
        oom.map(|_| Cause::Oom)
    }

    /// Moves a container to the end of those that may be forgotten.
    fn remember(&mut self, id: &ContainerId) -> &mut Acquaintance {
        self.heard += 1;
        match self.containers.get(id) {
            Some(container) => drop(self.order.remove(&container.heard)),
            None if self.containers.len() == MEMORY => {
                if let Some((_, oldest)) = self.order.pop_first() {
                    self.containers.remove(&oldest);
                }
            }
            None => {}
        }
        self.order.insert(self.heard, id.clone());
        let container = self.containers.entry(id.clone()).or_default();
        container.heard = self.heard;
        container
    }
}

impl Acquaintance {
    fn note(&mut self, facts: &Summary) {
        self.hides_exit_code |= facts.hides_exit_code;
        self.hides_signal |= facts.hides_signal;
        self.stop_signal = facts.stop_signal.or(self.stop_signal);
        if facts.labels.is_some() {
            self.labels.clone_from(&facts.labels);
        }
    }

    fn started(&mut self) {
        self.asked.clear();
        self.oom_ns = None;
    }

    fn asked(&mut self, asked: Asked, time_ns: i64) {
        self.asked.retain(|(other, _)| *other != asked);
        self.asked.push((asked, time_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn event(action: &str, attributes: &[(&str, &str)]) -> Event {
        Event {
            kind: "container".into(),
            action: action.into(),
            id: "c".into(),
            attributes: attributes.iter().copied().collect(),
            time_ns: 1,
            ..Event::default()
        }
    }

    fn ended(exit_code: i64) -> Summary {
        Summary {
            name: "web".into(),
            exit_code,
            ..Summary::default()
        }
    }

    #[test]
    fn a_label_that_hides_the_exit_code_is_found_in_other_events() {
        let mut known = Known::default();
        let id = ContainerId::from("c");
        known.heard(&id, &event("die", &[("exitCode", "3")]), 1, None);
        assert!(!known.hides_exit_code("c"));
        known.heard(&id, &event("start", &[("exitCode", "77")]), 2, None);
        assert!(known.hides_exit_code("c"));
        known.heard(&id, &event("die", &[("exitCode", "77")]), 3, None);
        known.seen(&id, 2, &ended(1));
        assert_eq!(known.exit_code("c", 3), None, "asked before the end");
        known.seen(&id, 3, &ended(5));
        assert_eq!(known.exit_code("c", 3), Some(5));
        assert_eq!(known.exit_code("c", 1), None, "of another end");
        let again = Summary {
            running: true,
            ..ended(0)
        };
        known.heard(&id, &event("die", &[("exitCode", "77")]), 4, None);
        known.seen(&id, 4, &again);
        assert_eq!(known.exit_code("c", 4), None, "it runs again already");
    }

    #[test]
    fn names_follow_events_and_inspects_and_the_oldest_are_forgotten() {
        let mut known = Known::default();
        let id = ContainerId::from("c");
        let create = event("create", &[("name", "web"), ("image", "ubuntu")]);
        known.heard(&id, &create, 1, None);
        assert_eq!(known.names("c"), Some(("web", "ubuntu")));
        known.heard(&id, &event("rename", &[("name", "www")]), 2, None);
        assert_eq!(known.names("c"), Some(("www", "ubuntu")));
        known.seen(&id, 2, &ended(0));
        assert_eq!(known.names("c"), Some(("web", "")));
        let other = |number: usize| ContainerId::from(format!("c{number}").as_str());
        for number in 0..MEMORY - 1 {
            known.heard(&other(number), &create, 3, None);
        }
        known.heard(&id, &event("kill", &[]), 4, None);
        known.heard(&other(MEMORY), &create, 5, None);
        assert!(known.names("c").is_some(), "it was heard of just now");
        assert!(known.names("c0").is_none());
        for number in 0..MEMORY {
            known.heard(&other(number), &create, 6, None);
        }
        assert_eq!(known.names("c"), None);
        assert_eq!(
            (known.containers.len(), known.order.len()),
            (MEMORY, MEMORY)
        );
    }

    /// What happened to the container, second by second, and why it ends at the time behind it.
    #[test]
    fn a_container_ends_by_itself_unless_somebody_asked_for_it_or_memory_ran_out() {
        let hour = 3600;
        for (story, at, cause) in [
            (&[][..], 5, None),
            (&[(0, "stop", "")], 1, Some(Cause::Stop)),
            (&[(0, "kill", "9")], 1, Some(Cause::Stop)),
            (&[(0, "kill", "15")], hour, Some(Cause::Stop)),
            (&[(0, "kill", "15")], hour + 1, None),
            (&[(0, "kill", "SIGINT")], 1, Some(Cause::Stop)),
            (&[(0, "kill", "3")], 1, Some(Cause::Stop)),
            // Podman names no signal.
            (&[(0, "kill", "")], 1, Some(Cause::Stop)),
            (&[(0, "kill", "1")], 1, None),
            (&[(0, "kill", "10")], 1, None),
            // The stop signal of its image.
            (&[(0, "kill", "28")], 1, Some(Cause::Stop)),
            (&[(0, "kill", "28"), (1, "kill", "1")], 2, Some(Cause::Stop)),
            (&[(0, "kill", "15"), (1, "start", "")], 2, None),
            (
                &[(0, "kill", "15"), (1, "die", ""), (2, "start", "")],
                3,
                None,
            ),
            (&[(0, "oom", "")], 10, Some(Cause::Oom)),
            (&[(0, "oom", "")], 11, None),
            (&[(0, "oom", ""), (1, "start", "")], 2, None),
            (&[(0, "oom", ""), (1, "kill", "15")], 2, Some(Cause::Stop)),
            // The engine's clock was set back in between.
            (&[(9 * hour, "kill", "15")], 1, Some(Cause::Stop)),
        ] {
            let mut known = Known::default();
            let facts = Summary {
                stop_signal: signal_number("SIGWINCH"),
                ..ended(0)
            };
            for (second, action, signal) in story {
                let signal = ("signal", *signal);
                let attributes = &[signal][usize::from(signal.1.is_empty())..];
                let mut event = event(action, attributes);
                event.time_ns = second * SECOND;
                known.heard(&"c".into(), &event, 1, Some(&facts));
            }
            assert_eq!(known.cause("c", at * SECOND), cause, "{story:?}, {at}");
        }
    }

    #[test]
    fn a_kill_whose_signal_a_label_hides_may_have_asked_for_the_end() {
        let id = ContainerId::from("c");
        let kill = event("kill", &[("signal", "1")]);
        let mut known = Known::default();
        known.heard(&id, &event("start", &[("signal", "1")]), 1, None);
        known.heard(&id, &kill, 2, None);
        assert_eq!(known.cause("c", 1), Some(Cause::Stop));
        let mut known = Known::default();
        let facts = Summary {
            hides_signal: true,
            ..Summary::default()
        };
        known.heard(&id, &kill, 1, Some(&facts));
        assert_eq!(known.cause("c", 1), Some(Cause::Stop));
        known.inferred(&event("start", &[]));
        assert_eq!(known.cause("c", 1), None, "that was another run");
    }
}
