//! What was said of containers lately: their names, which events of other objects lack, and how they ended, where the event cannot be believed.
//!
//! moby copies a container's labels over the attributes of its events (`daemon/events.go`), so a label `exitCode` hides the real one. It shows itself
//! in every other event of the container, which has no exit code of its own; then only an inspect after the end knows better.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::{ContainerId, Event, Summary};

/// So many containers are remembered after they are gone: for the events that follow a container's end, and jobs that wait. About 300 kB.
const MEMORY: usize = 1024;

/// The containers that events told of last.
#[derive(Debug, Default)]
pub struct Known {
    order: VecDeque<ContainerId>,
    containers: HashMap<ContainerId, Acquaintance>,
}

#[derive(Debug, Default)]
struct Acquaintance {
    name: Arc<str>,
    image: Arc<str>,
    /// A label stands where the exit code of its events should.
    hidden: bool,
    /// Its last end, while its exit code is hidden.
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    revision: u64,
    exit_code: Option<i64>,
}

impl Known {
    /// An event of this container was told; `labels_lie` is what the last inspect said of its labels.
    pub fn heard(&mut self, id: &ContainerId, event: &Event, revision: u64, labels_lie: bool) {
        if !self.containers.contains_key(id) {
            if self.order.len() == MEMORY
                && let Some(oldest) = self.order.pop_front()
            {
                self.containers.remove(&oldest);
            }
            self.order.push_back(id.clone());
        }
        let container = self.containers.entry(id.clone()).or_default();
        for (attribute, known) in [
            ("name", &mut container.name),
            ("image", &mut container.image),
        ] {
            if let Some(said) = event.attribute(attribute).filter(|said| **known != **said) {
                *known = said.into();
            }
        }
        let ends = event.verb() == "die";
        container.hidden |= labels_lie || (!ends && event.attribute("exitCode").is_some());
        if ends && container.hidden {
            container.end = Some(End {
                revision,
                exit_code: None,
            });
        }
    }

    /// An inspect that was asked for at this revision found the container so.
    pub fn seen(&mut self, id: &ContainerId, asked: u64, summary: &Summary) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.name.clone_from(&summary.name);
        container.image.clone_from(&summary.image);
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
        let container = self.containers.get(&ContainerId::from(id))?;
        Some((&container.name, &container.image))
    }

    /// Is the exit code of this container's events hidden by a label?
    pub fn hides_exit_code(&self, id: &str) -> bool {
        self.containers
            .get(&ContainerId::from(id))
            .is_some_and(|container| container.hidden)
    }

    /// The hidden exit code of the end that this revision stands for, if an inspect still showed it.
    pub fn exit_code(&self, id: &str, revision: u64) -> Option<i64> {
        let container = self.containers.get(&ContainerId::from(id))?;
        let end = container.end.as_ref()?;
        end.exit_code.filter(|_| end.revision == revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, attributes: &[(&str, &str)]) -> Event {
        Event {
            kind: "container".into(),
            action: action.into(),
            id: "c".into(),
            attributes: attributes
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            time_ns: 1,
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
        known.heard(&id, &event("die", &[("exitCode", "3")]), 1, false);
        assert!(!known.hides_exit_code("c"));
        known.heard(&id, &event("start", &[("exitCode", "77")]), 2, false);
        assert!(known.hides_exit_code("c"));
        known.heard(&id, &event("die", &[("exitCode", "77")]), 3, false);
        known.seen(&id, 2, &ended(1));
        assert_eq!(known.exit_code("c", 3), None, "asked before the end");
        known.seen(&id, 3, &ended(5));
        assert_eq!(known.exit_code("c", 3), Some(5));
        assert_eq!(known.exit_code("c", 1), None, "of another end");
        let again = Summary {
            running: true,
            ..ended(0)
        };
        known.heard(&id, &event("die", &[("exitCode", "77")]), 4, false);
        known.seen(&id, 4, &again);
        assert_eq!(known.exit_code("c", 4), None, "it runs again already");
    }

    #[test]
    fn names_follow_events_and_inspects_and_the_oldest_are_forgotten() {
        let mut known = Known::default();
        let id = ContainerId::from("c");
        let create = event("create", &[("name", "web"), ("image", "ubuntu")]);
        known.heard(&id, &create, 1, false);
        assert_eq!(known.names("c"), Some(("web", "ubuntu")));
        known.heard(&id, &event("rename", &[("name", "www")]), 2, false);
        assert_eq!(known.names("c"), Some(("www", "ubuntu")));
        known.seen(&id, 2, &ended(0));
        assert_eq!(known.names("c"), Some(("web", "")));
        for number in 0..MEMORY {
            let other = ContainerId::from(format!("c{number}").as_str());
            known.heard(&other, &create, 3, false);
        }
        assert_eq!(known.names("c"), None);
        assert_eq!(known.containers.len(), MEMORY);
    }
}
