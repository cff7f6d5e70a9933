//! What has to last: entries whose `for` says how long an engine must be down, or up again, before they run.
//!
//! The opposite ends the wait. An entry that wants to know of both hears of neither where the second came before the first had lasted: for it,
//! nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Time;
use crate::model::{EngineIndex, Event};

/// The entries that wait.
#[derive(Debug, Default)]
pub struct Lasting {
    /// By engine and the entry's place: until when, and what has to last so long.
    waiting: BTreeMap<(EngineIndex, usize), (Time, Arc<Event>)>,
}

impl Lasting {
    /// An engine went down, or came up again, and these entries want to know it when it has lasted so long. Those that need not wait are given back.
    pub fn turned(
        &mut self,
        now: Time,
        engine: EngineIndex,
        event: &Arc<Event>,
        entries: impl Iterator<Item = (usize, Time)>,
    ) -> Vec<usize> {
        let mut opposite = BTreeSet::new();
        self.waiting.retain(|(waits_for, entry), _| {
            let ends = *waits_for == engine;
            if ends {
                opposite.insert(*entry);
            }
            !ends
        });
        let mut at_once = Vec::new();
        for (entry, lasting) in entries {
            if lasting.is_zero() {
                at_once.push(entry);
            } else if !opposite.contains(&entry) {
                let wait = (now + lasting, event.clone());
                self.waiting.insert((engine, entry), wait);
            }
        }
        at_once
    }

    /// What has lasted long enough by now, oldest first.
    pub fn over(&mut self, now: Time) -> Vec<(EngineIndex, usize, Arc<Event>)> {
        let mut over = Vec::new();
        self.waiting.retain(|(engine, entry), (until, event)| {
            let lasts = *until > now;
            if !lasts {
                over.push((*until, *engine, *entry, event.clone()));
            }
            lasts
        });
        over.sort_by_key(|(until, ..)| *until);
        over.into_iter()
            .map(|(_, engine, entry, event)| (engine, entry, event))
            .collect()
    }

    /// When [`Lasting::over`] has something to give.
    pub fn deadline(&self) -> Option<Time> {
        self.waiting.values().map(|(until, _)| *until).min()
    }

    /// An engine is watched no more.
    pub fn drop_engine(&mut self, engine: EngineIndex) {
        self.waiting.retain(|(of, _), _| *of != engine);
    }

    /// The file was read again: where each entry stands now, if it is as it was.
    pub fn reload(&mut self, places: &[Option<usize>]) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting
            .filter_map(|((engine, entry), wait)| {
                Some(((engine, places.get(entry).copied()??), wait))
            })
            .collect();
    }

    /// Nobody waits any more.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: EngineIndex = EngineIndex(0);

    fn event(action: &str) -> Arc<Event> {
        Arc::new(Event {
            kind: "engine".into(),
            action: action.into(),
            ..Event::default()
        })
    }

    fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    fn turn(
        lasting: &mut Lasting,
        seconds: u64,
        action: &str,
        entries: &[(usize, u64)],
    ) -> Vec<usize> {
        let entries = entries.iter().map(|(entry, s)| (*entry, at(*s)));
        lasting.turned(at(seconds), E, &event(action), entries)
    }

    fn over(lasting: &mut Lasting, seconds: u64) -> Vec<(usize, String)> {
        lasting
            .over(at(seconds))
            .into_iter()
            .map(|(_, entry, event)| (entry, event.action.to_string()))
            .collect()
    }

    #[test]
    fn what_lasts_is_told_once_and_in_the_order_of_its_time() {
        let mut lasting = Lasting::default();
        let entries = [(0, 30), (1, 0), (2, 10)];
        assert_eq!(turn(&mut lasting, 100, "down", &entries), [1]);
        assert_eq!(lasting.deadline(), Some(at(110)));
        assert_eq!(over(&mut lasting, 109), []);
        assert_eq!(
            over(&mut lasting, 130),
            [(2, "down".into()), (0, "down".into())]
        );
        assert_eq!(lasting.deadline(), None);
        assert_eq!(over(&mut lasting, 999), []);
    }

    #[test]
    fn the_opposite_ends_the_wait_and_begins_that_of_others() {
        let mut lasting = Lasting::default();
        turn(&mut lasting, 0, "down", &[(0, 30)]);
        turn(&mut lasting, 29, "up", &[(1, 5)]);
        assert_eq!(over(&mut lasting, 33), []);
        assert_eq!(over(&mut lasting, 34), [(1, "up".into())]);
    }

    #[test]
    fn who_waits_for_both_hears_nothing_of_a_short_absence() {
        let mut lasting = Lasting::default();
        turn(&mut lasting, 0, "down", &[(0, 30)]);
        turn(&mut lasting, 29, "up", &[(0, 30)]);
        assert_eq!(lasting.deadline(), None);
        turn(&mut lasting, 100, "down", &[(0, 30)]);
        assert_eq!(over(&mut lasting, 130), [(0, "down".into())]);
        turn(&mut lasting, 140, "up", &[(0, 30)]);
        turn(&mut lasting, 150, "down", &[(0, 30)]);
        turn(&mut lasting, 160, "up", &[(0, 30)]);
        assert_eq!(over(&mut lasting, 190), [(0, "up".into())]);
    }

    #[test]
    fn a_new_file_moves_what_waits_and_an_engine_takes_its_own_along() {
        let mut lasting = Lasting::default();
        turn(&mut lasting, 0, "down", &[(0, 30), (1, 30), (2, 40)]);
        lasting.reload(&[Some(5), None, Some(0)]);
        assert_eq!(over(&mut lasting, 30), [(5, "down".into())]);
        lasting.drop_engine(EngineIndex(1));
        assert_eq!(lasting.deadline(), Some(at(40)));
        lasting.drop_engine(E);
        assert_eq!(lasting.deadline(), None);
    }

    #[test]
    fn engines_do_not_end_each_others_waits() {
        let mut lasting = Lasting::default();
        turn(&mut lasting, 0, "down", &[(0, 30)]);
        let other = lasting.turned(
            at(1),
            EngineIndex(1),
            &event("up"),
            [(0, at(30))].into_iter(),
        );
        assert_eq!(other, [] as [usize; 0]);
        assert_eq!(over(&mut lasting, 40).len(), 2);
    }
}
