//! Which containers had a command of an entry so lately that they get no other.

use std::collections::{HashMap, VecDeque};

use super::Lane;
use crate::core::Time;

/// One entry's containers; they are forgotten as soon as their time is over.
#[derive(Debug, Default)]
pub(super) struct Cooldown {
    until: HashMap<Lane, Time>,
    /// The same, by time.
    order: VecDeque<(Time, Lane)>,
}

impl Cooldown {
    /// A command of this container was started.
    pub fn begin(&mut self, now: Time, lane: &Lane, lasts: Time) {
        self.forget(now);
        if lasts > Time::ZERO {
            let until = now.saturating_add(lasts);
            self.until.insert(lane.clone(), until);
            self.order.push_back((until, lane.clone()));
        }
    }

    /// Is this container to be left alone?
    pub fn covers(&mut self, now: Time, lane: &Lane) -> bool {
        self.forget(now);
        self.until.contains_key(lane)
    }

    fn forget(&mut self, now: Time) {
        while let Some((at, _)) = self.order.front()
            && *at <= now
            && let Some((at, lane)) = self.order.pop_front()
        {
            // It may have been started once more.
            if self.until.get(&lane) == Some(&at) {
                self.until.remove(&lane);
            }
        }
    }
}
