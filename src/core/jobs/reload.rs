//! The file was read again: what did not change goes on as if nothing had happened.

use std::sync::Arc;

use super::queue::Collected;
use super::{Jobs, Key, Waiting};
use crate::model::{EngineIndex, Entry};

/// What became of the entries.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reloaded {
    /// Entries that are as they were.
    pub kept: usize,
    /// Entries that are new, or changed.
    pub new: usize,
    /// Entries that are gone, or changed.
    pub gone: usize,
    /// The place of each that was there before, where it is as it was.
    pub places: Vec<Option<usize>>,
    /// Jobs of those that had not started, and never will.
    pub dropped: usize,
}

impl Jobs {
    /// From now on these are the entries. Those that did not change keep what waits and what runs, what they have collected and their cooldowns. What
    /// waits for others is dropped, what runs for them ends by itself and is not tried again.
    pub fn reload(&mut self, entries: &[Arc<Entry>]) -> Reloaded {
        let mut old: Vec<Option<Key>> = self.places.drain(..).map(Some).collect();
        let mut done = Reloaded {
            places: vec![None; old.len()],
            ..Reloaded::default()
        };
        for (place, entry) in entries.iter().enumerate() {
            let kept = old.iter_mut().enumerate().find_map(|(was, key)| {
                let kept = key.take_if(|key| {
                    let queue = self.queues.get(key);
                    queue.is_some_and(|queue| same((was, &queue.entry), (place, entry)))
                });
                Some((was, kept?))
            });
            let key = match kept {
                Some((was, key)) => {
                    done.kept += 1;
                    done.places[was] = Some(place);
                    self.rename(key, entry);
                    key
                }
                None => {
                    done.new += 1;
                    self.open(entry.clone())
                }
            };
            self.places.push(key);
        }
        for key in old.into_iter().flatten() {
            done.gone += 1;
            done.dropped += self.retire(key);
        }
        self.dropped_total += done.dropped as u64;
        done
    }

    /// An engine is watched no more. What waits for it is dropped, what runs for it ends by itself and is not tried again. Says how many jobs are dropped.
    pub fn drop_engine(&mut self, engine: EngineIndex) -> usize {
        let of_it = |job: &&mut Waiting| job.engine == engine;
        for job in self.running.values_mut().filter(of_it) {
            job.last_try = true;
        }
        let keys: Vec<Key> = self.queues.keys().copied().collect();
        let mut dropped = 0;
        for key in keys {
            if let Some(queue) = self.queues.get_mut(&key) {
                let gone = queue.drop_engine(engine);
                dropped += self.drop_jobs(key, gone);
            }
        }
        self.dropped_total += dropped as u64;
        dropped
    }

    /// An entry without a name is called by its number, which may be another now.
    fn rename(&mut self, key: Key, entry: &Arc<Entry>) {
        if let Some(queue) = self.queues.get_mut(&key)
            && queue.entry.name != entry.name
        {
            queue.entry = entry.clone();
            let collected = queue.collected.as_mut().map(|collected| &mut collected.job);
            for job in queue.waiting.values_mut().chain(collected) {
                job.entry = entry.clone();
            }
        }
    }

    /// Takes a queue out of service; says how many jobs are dropped.
    fn retire(&mut self, key: Key) -> usize {
        let Some(queue) = self.queues.get_mut(&key) else {
            return 0;
        };
        let gone = queue.retire();
        let over = queue.runs_nothing();
        let dropped = self.drop_jobs(key, gone);
        if over {
            self.queues.remove(&key);
        }
        dropped
    }

    /// Jobs that were taken out of a queue.
    fn drop_jobs(
        &mut self,
        key: Key,
        (mut dropped, collected): (Vec<Waiting>, Option<Collected>),
    ) -> usize {
        if let Some(collected) = collected {
            self.timers.remove(&(collected.due, key, collected.job.id));
            dropped.push(collected.job);
        }
        for job in &dropped {
            self.forget(job);
        }
        self.turn(key);
        dropped.len()
    }
}

/// Is it one entry, in the places where it stood and stands?
fn same((was, old): (usize, &Entry), (place, new): (usize, &Entry)) -> bool {
    let unnamed = |place: usize, entry: &Entry| *entry.name == *format!("#{}", place + 1);
    if !(unnamed(was, old) && unnamed(place, new)) {
        return old == new;
    }
    // Copied only where it looks alike.
    let alike = old.filter == new.filter && old.command == new.command && old.log == new.log;
    alike
        && *new
            == Entry {
                name: new.name.clone(),
                ..old.clone()
            }
}
