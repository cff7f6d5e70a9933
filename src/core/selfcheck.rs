//! `--selfcheck`: did the events tell all that the inspects show? Keeps every document, which costs what they weigh.
//!
//! A document that is not what the last one was, although no event touched the container in between, is a doubt; the event may still be on its way, so
//! a doubt is told only when a moment has passed without it on a stream that did not break meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Time;
use super::engine::SETTLE;
use crate::model::{ContainerId, Document};

/// What the inspects of one engine said last.
#[derive(Debug, Default)]
pub struct Selfcheck {
    last: HashMap<ContainerId, (u64, Arc<Document>)>,
    doubts: VecDeque<Doubt>,
}

#[derive(Debug)]
struct Doubt {
    due: Time,
    id: ContainerId,
    revision: u64,
    gaps: u64,
    what: String,
}

impl Selfcheck {
    /// A container is so, as of this revision of it. `gaps` is how many were known by then.
    pub fn saw(
        &mut self,
        now: Time,
        id: &ContainerId,
        document: Option<&Arc<Document>>,
        revision: u64,
        gaps: u64,
    ) {
        let Some(new) = document else {
            self.last.remove(id);
            return;
        };
        let last = self.last.insert(id.clone(), (revision, new.clone()));
        let Some((_, old)) =
            last.filter(|(before, old)| *before == revision && old.digest != new.digest)
        else {
            return;
        };
        self.doubts.push_back(Doubt {
            due: now + SETTLE,
            id: id.clone(),
            revision,
            gaps,
            what: changed(&old, new),
        });
    }

    /// A container is still so, as of this revision of it.
    pub fn saw_same(&mut self, id: &ContainerId, revision: u64) {
        if let Some((before, _)) = self.last.get_mut(id) {
            *before = revision;
        }
    }

    /// When a doubt is old enough. `told_by` is when the stream has told what came before it; no stream tells anything where there is none.
    pub fn deadline(&self, told_by: Option<Time>) -> Option<Time> {
        let doubt = self.doubts.front()?;
        told_by.map(|told_by| doubt.due.max(told_by))
    }

    /// The doubts that no event has dispelled, as lines for the log. `revision` is a container's newest, `gaps` how many are known by now.
    pub fn settle(
        &mut self,
        now: Time,
        revision: impl Fn(&ContainerId) -> u64,
        gaps: u64,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(doubt) = self.doubts.front()
            && doubt.due <= now
        {
            if revision(&doubt.id) <= doubt.revision {
                let why = match gaps > doubt.gaps {
                    true => "after a known gap",
                    false => "no event told of it",
                };
                lines.push(format!(
                    "selfcheck: container `{}` differs from what was known: {}; {why}",
                    doubt.id.short(),
                    doubt.what
                ));
            }
            self.doubts.pop_front();
        }
        lines
    }
}

/// The names of the fields in which two documents differ.
fn changed(old: &Document, new: &Document) -> String {
    let (old, new): (HashMap<_, _>, HashMap<_, _>) =
        (old.fields.iter().collect(), new.fields.iter().collect());
    let mut names: Vec<&str> = old
        .keys()
        .chain(new.keys())
        .filter(|name| old.get(*name) != new.get(*name))
        .copied()
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(memory: u64) -> Arc<Document> {
        Arc::new(Document {
            fields: [("hostconfig_memory", memory.to_string().as_str())]
                .into_iter()
                .collect(),
            digest: memory,
            ..Document::default()
        })
    }

    #[test]
    fn a_change_without_an_event_is_told_once_and_one_with_a_late_event_is_not() {
        let mut check = Selfcheck::default();
        let (a, b) = (ContainerId::from("a"), ContainerId::from("b"));
        for id in [&a, &b] {
            check.saw(Time::ZERO, id, Some(&document(1)), 5, 0);
            check.saw(Time::ZERO, id, Some(&document(1)), 5, 0);
            check.saw(Time::ZERO, id, Some(&document(2)), 5, 0);
        }
        assert!(check.settle(Time::ZERO, |_| 5, 0).is_empty());
        let told_late = |id: &ContainerId| if *id == b { 6 } else { 5 };
        assert_eq!(
            check.settle(SETTLE, told_late, 0),
            [
                "selfcheck: container `a` differs from what was known: hostconfig_memory; no event told of it"
            ]
        );
        assert!(check.settle(SETTLE * 2, |_| 5, 0).is_empty());
        check.saw(SETTLE, &a, Some(&document(3)), 7, 0);
        assert_eq!(
            check.deadline(Some(Time::ZERO)),
            None,
            "an event came before"
        );
        check.saw(SETTLE, &a, Some(&document(4)), 7, 0);
        let lines = check.settle(SETTLE * 2, |_| 0, 1);
        assert!(lines[0].ends_with("after a known gap"), "{lines:?}");
    }
}
