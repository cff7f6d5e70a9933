//! Events of which nobody can tell yet which entries they trigger, because only an inspect knows what a filter asks for. They wait for it, but not for
//! long, and what happens to the same container meanwhile waits behind them: nothing overtakes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Time;
use crate::model::{Cause, EngineIndex, Event};

/// How long an event waits for an inspect.
pub const PATIENCE: Time = Time::from_secs(1);

/// The most events that wait, of all containers: a burst of some seconds.
const WAITING: usize = 10_000;

/// An event on its way to the entries.
#[derive(Clone, Debug)]
pub struct News {
    /// The event.
    pub event: Arc<Event>,
    /// It was found by a resync or told only after an outage.
    pub inferred: bool,
    /// The change of its container that it stands for.
    pub revision: u64,
    /// Why its container died, as it was known then.
    pub asked: Option<Cause>,
    /// When it was told.
    pub at: Time,
}

type Lane = (EngineIndex, Arc<str>);

/// All events that wait.
#[derive(Debug, Default)]
pub struct Undecided {
    lanes: HashMap<Lane, VecDeque<News>>,
    /// Until when the first of a lane waits, oldest first; some have gone already.
    due: VecDeque<(Time, Lane)>,
    waiting: usize,
}

impl Undecided {
    /// Does an event of this container wait?
    pub fn has(&self, engine: EngineIndex, container: &str) -> bool {
        // Nearly always, nothing waits at all.
        self.waiting > 0 && self.lanes.contains_key(&(engine, container.into()))
    }

    /// There is no room for another one.
    pub fn is_full(&self) -> bool {
        self.waiting >= WAITING
    }

    /// Adds an event behind those of its container.
    pub fn push(&mut self, engine: EngineIndex, container: &str, news: News) {
        let lane: Lane = (engine, container.into());
        self.due.push_back((news.at + PATIENCE, lane.clone()));
        self.lanes.entry(lane).or_default().push_back(news);
        self.waiting += 1;
    }

    /// Takes all events of a container, oldest first.
    pub fn take(&mut self, engine: EngineIndex, container: &str) -> VecDeque<News> {
        if self.waiting == 0 {
            return VecDeque::new();
        }
        let lane = self.lanes.remove(&(engine, container.into()));
        let lane = lane.unwrap_or_default();
        self.waiting -= lane.len();
        lane
    }

    /// Gives back those that go on waiting; none came in between.
    pub fn put_back(&mut self, engine: EngineIndex, container: &str, news: VecDeque<News>) {
        if !news.is_empty() {
            self.waiting += news.len();
            self.lanes.insert((engine, container.into()), news);
        }
    }

    /// An engine is watched no more: nobody waits for its events.
    pub fn drop_engine(&mut self, engine: EngineIndex) {
        self.lanes.retain(|(of, _), _| *of != engine);
        self.waiting = self.lanes.values().map(VecDeque::len).sum();
    }

    /// A container with an event that has waited long enough.
    pub fn pop_due(&mut self, now: Time) -> Option<(EngineIndex, Arc<str>)> {
        self.due.front().filter(|(at, _)| *at <= now)?;
        self.due.pop_front().map(|(_, lane)| lane)
    }

    /// When the next one has.
    pub fn deadline(&self) -> Option<Time> {
        self.due.front().map(|(at, _)| *at)
    }

    /// The stamp of an engine's first event that waits.
    pub fn first_ns(&self, engine: EngineIndex) -> Option<i64> {
        let lanes = self.lanes.iter().filter(|((of, _), _)| *of == engine);
        // Our own are in no replay.
        let events = lanes.flat_map(|(_, lane)| lane);
        let events = events.filter(|news| !news.event.is_own());
        events.map(|news| news.event.time_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: EngineIndex = EngineIndex(0);

    fn news(ns: i64, at: Time) -> News {
        News {
            event: Arc::new(Event {
                time_ns: ns,
                ..Event::default()
            }),
            inferred: false,
            revision: 1,
            asked: None,
            at,
        }
    }

    fn stamps(lane: &VecDeque<News>) -> Vec<i64> {
        lane.iter().map(|news| news.event.time_ns).collect()
    }

    #[test]
    fn a_containers_events_stay_in_order_each_with_its_own_deadline() {
        let later = Time::from_millis(300);
        let mut undecided = Undecided::default();
        undecided.push(E, "a", news(1, Time::ZERO));
        undecided.push(E, "a", news(2, later));
        undecided.push(EngineIndex(1), "a", news(3, later));
        assert!(undecided.has(E, "a") && !undecided.has(E, "b"));
        assert_eq!(undecided.first_ns(E), Some(1));
        assert_eq!(undecided.pop_due(PATIENCE - later), None);
        assert_eq!(undecided.deadline(), Some(PATIENCE));
        assert_eq!(undecided.pop_due(PATIENCE), Some((E, "a".into())));
        let mut lane = undecided.take(E, "a");
        assert_eq!(stamps(&lane), [1, 2]);
        lane.pop_front();
        undecided.put_back(E, "a", lane);
        assert_eq!(undecided.first_ns(E), Some(2));
        assert_eq!(undecided.deadline(), Some(PATIENCE + later));
        assert_eq!(stamps(&undecided.take(E, "a")), [2]);
        assert_eq!(undecided.first_ns(E), None);
        assert_eq!(undecided.first_ns(EngineIndex(1)), Some(3));
    }

    #[test]
    fn there_is_an_end_to_the_room() {
        let mut undecided = Undecided::default();
        for n in 0..WAITING as i64 {
            assert!(!undecided.is_full());
            undecided.push(E, &format!("c{}", n % 7), news(n, Time::ZERO));
        }
        assert!(undecided.is_full());
        assert!(!undecided.take(E, "c0").is_empty());
        assert!(!undecided.is_full());
    }
}
