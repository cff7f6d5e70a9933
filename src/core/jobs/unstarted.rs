//! Events with jobs that have not started: a successor has to take up before the first of them.

use std::collections::BTreeMap;

use crate::model::EngineIndex;

/// Their stamps, by engine, each as often as there are jobs.
#[derive(Debug, Default)]
pub(super) struct Unstarted(BTreeMap<EngineIndex, BTreeMap<i64, usize>>);

impl Unstarted {
    /// An event of this stamp has a job that has not started.
    pub fn add(&mut self, engine: EngineIndex, stamp: i64) {
        let stamps = self.0.entry(engine).or_default();
        *stamps.entry(stamp).or_default() += 1;
    }

    /// One job less.
    pub fn remove(&mut self, engine: EngineIndex, stamp: i64) {
        if let Some(stamps) = self.0.get_mut(&engine)
            && let Some(count) = stamps.get_mut(&stamp)
        {
            *count -= 1;
            if *count == 0 {
                stamps.remove(&stamp);
            }
        }
    }

    /// A job has started, or never will: nobody need run it for these events.
    pub fn remove_all(&mut self, stamps: &BTreeMap<EngineIndex, i64>) {
        for (engine, stamp) in stamps {
            self.remove(*engine, *stamp);
        }
    }

    /// The first stamp.
    pub fn first(&self, engine: EngineIndex) -> Option<i64> {
        self.0.get(&engine)?.keys().next().copied()
    }
}
