//! Whose turn it is: the entry whose oldest job may start. An entry that runs nothing need not wait for a slot, so that others cannot hold it up; and
//! while slots are few, half of them at most are kept for such entries.

use std::collections::BTreeSet;

use super::Key;

/// Where a queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Turn {
    /// It runs nothing, but may: at once, and while it can a slot is kept for it.
    pub resting: bool,
    /// Its oldest job that may start now.
    pub first: Option<u64>,
}

/// All queues that have a turn, without a look at any other.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How many queues rest, with jobs or without.
    at_rest: usize,
    /// Those of them with a job that may start, oldest first.
    resting: BTreeSet<(u64, Key)>,
    /// The others with such a job.
    going: BTreeSet<(u64, Key)>,
}

impl Turns {
    /// A queue stood there and stands here now.
    pub fn change(&mut self, key: Key, before: Turn, after: Turn) {
        if before.resting {
            self.at_rest -= 1;
        }
        if let Some(first) = before.first {
            self.set(before.resting).remove(&(first, key));
        }
        if after.resting {
            self.at_rest += 1;
        }
        if let Some(first) = after.first {
            self.set(after.resting).insert((first, key));
        }
    }

    /// The queue whose job starts next, when so many of all workers are free.
    pub fn next(&self, free: usize, workers: usize) -> Option<Key> {
        let resting = self.resting.first();
        let kept = self.at_rest.min(workers / 2);
        let going = self.going.first().filter(|_| free > kept);
        resting.into_iter().chain(going).min().map(|(_, key)| *key)
    }

    fn set(&mut self, resting: bool) -> &mut BTreeSet<(u64, Key)> {
        match resting {
            true => &mut self.resting,
            false => &mut self.going,
        }
    }
}
