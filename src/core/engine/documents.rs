//! The last documents of containers, for the commands that run for them: kept only where there are such.
//!
//! A container that is watched has its own beside it. Of those that are watched no more the latest are remembered, for jobs that wait and for what
//! follows an end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Engine;
use crate::model::{ContainerId, Document};

/// So many containers are remembered that are watched no more,
const REMEMBERED: usize = 1024;

/// and so many bytes of their documents.
const BYTES: usize = 8 << 20;

/// What the last inspect that found a container said of it.
#[derive(Clone, Debug)]
pub(super) struct Last {
    json: Arc<str>,
    /// The change of the container after which it was asked for.
    asked: u64,
    /// Since then there was no such container.
    gone: bool,
}

impl Last {
    /// There is no such container any more.
    pub(super) fn outlived(&mut self) {
        self.gone = true;
    }
}

/// Containers that are watched no more, the first to be forgotten first.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// In the order in which they came, each with its number.
    order: VecDeque<(u64, ContainerId)>,
    documents: HashMap<ContainerId, (u64, Last)>,
    bytes: usize,
    next: u64,
}

impl Remembered {
    pub(super) fn keep(&mut self, id: &ContainerId, last: Last) {
        self.take(id);
        self.next += 1;
        self.bytes += last.json.len();
        self.order.push_back((self.next, id.clone()));
        self.documents.insert(id.clone(), (self.next, last));
        while self.documents.len() > REMEMBERED || self.bytes > BYTES {
            let Some((number, oldest)) = self.order.pop_front() else {
                break;
            };
            if self.has(number, &oldest) {
                self.take(&oldest);
            }
        }
        // Some were taken out, and stand here still.
        if self.order.len() > 2 * REMEMBERED {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|(number, id)| self.has(*number, id));
            self.order = order;
        }
    }

    fn has(&self, number: u64, id: &ContainerId) -> bool {
        let kept = self.documents.get(id);
        kept.is_some_and(|(kept, _)| *kept == number)
    }

    pub(super) fn take(&mut self, id: &ContainerId) -> Option<Last> {
        let (_, last) = self.documents.remove(id)?;
        self.bytes -= last.json.len();
        Some(last)
    }
}

impl Engine {
    /// The JSON of a container's last document, and whether the container is gone since. Of one that is not, only what was asked for after this
    /// change of it.
    pub fn document(&self, id: &str, revision: u64) -> Option<(&Arc<str>, bool)> {
        let id = ContainerId::from(id);
        let watched = self.containers.get(&id);
        let last = watched
            .and_then(|container| container.last.as_ref())
            .or_else(|| self.remembered.documents.get(&id).map(|(_, last)| last))?;
        (last.gone || last.asked >= revision).then_some((&last.json, last.gone))
    }

    /// An inspect found a container so.
    pub(super) fn keep_document(&mut self, id: &ContainerId, asked: u64, document: &Document) {
        if !self.rules.documents {
            return;
        }
        self.container(id).last = Some(Last {
            json: document.json.clone(),
            asked,
            gone: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(bytes: usize) -> Last {
        Last {
            json: "x".repeat(bytes).into(),
            asked: 1,
            gone: true,
        }
    }

    fn id(number: usize) -> ContainerId {
        ContainerId::from(format!("c{number}").as_str())
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let mut remembered = Remembered::default();
        for number in 0..3 * REMEMBERED {
            remembered.keep(&id(number), last(100));
        }
        assert_eq!(remembered.documents.len(), REMEMBERED);
        assert_eq!(remembered.bytes, 100 * REMEMBERED);
        assert!(remembered.take(&id(2 * REMEMBERED - 1)).is_none());
        assert!(remembered.take(&id(2 * REMEMBERED)).is_some());
        // One comes and goes all the time.
        for _ in 0..10 * REMEMBERED {
            remembered.keep(&id(0), last(100));
            assert!(remembered.take(&id(0)).is_some());
        }
        assert!(remembered.order.len() <= 2 * REMEMBERED);
        remembered.keep(&id(0), last(BYTES));
        assert_eq!(remembered.documents.len(), 1);
        remembered.keep(&id(1), last(1));
        assert_eq!((remembered.documents.len(), remembered.bytes), (1, 1));
    }
}
