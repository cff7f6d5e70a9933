//! `events.yml` was read again: what left it ends, what is new begins, and all else goes on as if nothing had happened.
//!
//! An engine keeps its index, and with it its slot everywhere, for as long as the process lives: one that leaves the file is only retired, and found
//! again by its name when it comes back. So an index never means another engine, and whatever is still on its way finds its own slot, or nobody.

use std::sync::Arc;

use super::rules::Rules;
use super::{Core, Effect, Level, Reload, Site, Time};
use crate::model::{self, EngineIndex, Entry};

/// The most names that one line gives.
const NAMES: usize = 20;

impl Core {
    /// The file says this now.
    pub(super) fn reload(&mut self, now: Time, reload: Reload, effects: &mut Vec<Effect>) {
        if self.stopping.is_none() {
            let (mut changes, entries) = self.change_entries(now, reload.entries);
            let (more, engines) = self.change_engines(now, &reload.engines, effects);
            changes.extend(more);
            let dropped = entries + engines;
            effects.push(Effect::Log(Level::Info, summary(&changes)));
            if dropped > 0 {
                let (jobs, are) = match dropped {
                    1 => ("job", "is"),
                    _ => ("jobs", "are"),
                };
                let text = format!(
                    "{dropped} {jobs} that waited for what left the file {are} not started"
                );
                effects.push(Effect::Log(Level::Warn, text));
            }
        }
        effects.push(Effect::Reloaded);
    }

    /// Says what changed, and how many jobs are dropped.
    fn change_entries(&mut self, now: Time, entries: Vec<Arc<Entry>>) -> (Changes, usize) {
        let done = self.jobs.reload(&entries);
        self.lasting.reload(&done.places);
        self.rules = Rules::new(&entries);
        let old = self.settings.entries.replace(entries.clone());
        let rules = self.settings.rules();
        for site in &mut self.sites {
            site.engine.obey(now, &rules);
            self.woken.insert(site.index);
        }
        let old = old.unwrap_or_default();
        (
            entries_that_changed(&old, &entries, &done.places),
            done.dropped,
        )
    }

    /// Says what changed, and how many jobs are dropped.
    fn change_engines(
        &mut self,
        now: Time,
        engines: &[model::Engine],
        effects: &mut Vec<Effect>,
    ) -> (Changes, usize) {
        let mut dropped = 0;
        let (mut added, mut moved, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        // What leaves goes first: an engine may be watched under another name now.
        for at in 0..self.sites.len() {
            let site = &self.sites[at];
            if !site.retired && !engines.iter().any(|engine| engine.name == site.name) {
                removed.push(site.name.to_string());
                dropped += self.retire(site.index, effects);
            }
        }
        for engine in engines {
            let found = self.sites.iter_mut().find(|site| site.name == engine.name);
            let Some(site) = found else {
                added.push(engine.name.to_string());
                self.add(now, engine, effects);
                continue;
            };
            let same = site.address == engine.address;
            site.url = engine.url.clone();
            site.address = engine.address.clone();
            let index = site.index;
            if site.retired {
                added.push(engine.name.to_string());
                site.retired = false;
                site.back = true;
                if let Some(link) = &mut self.link {
                    link.want_back(now, index);
                }
            } else if same {
                continue;
            } else {
                moved.push(engine.name.to_string());
                site.moved = true;
                site.replaced = false;
                site.engine.moved(now);
            }
            self.woken.insert(index);
            effects.push(watch(index, engine));
        }
        self.status_stale = true;
        let changes = vec![
            ("engines added", added),
            ("engines moved", moved),
            ("engines removed", removed),
        ];
        (changes, dropped)
    }

    /// An engine that was never there before.
    fn add(&mut self, now: Time, engine: &model::Engine, effects: &mut Vec<Effect>) {
        let index = EngineIndex(self.sites.len() as u32);
        let site = Site::new(index, engine, &self.settings, &mut self.random);
        self.sites.push(site);
        if let Some(link) = &mut self.link {
            link.add(now);
        }
        self.woken.insert(index);
        effects.push(watch(index, engine));
    }

    /// Its engine is watched no more. Its host is given back as at the end of the agent; commands that run go on. Says how many jobs are dropped.
    fn retire(&mut self, index: EngineIndex, effects: &mut Vec<Effect>) -> usize {
        effects.push(Effect::Unwatch { index });
        self.discard(index);
        let old = &self.sites[index.at()];
        let engine = model::Engine {
            name: old.name.clone(),
            url: old.url.clone(),
            address: old.address.clone(),
        };
        let mut site = Site::new(index, &engine, &self.settings, &mut self.random);
        std::mem::swap(&mut site.engine, &mut self.sites[index.at()].engine);
        // Whatever is still on its way to the old connection is known by its number.
        site.engine.retire();
        site.retired = true;
        self.sites[index.at()] = site;
        for marked in [&mut self.woken, &mut self.starved, &mut self.writable] {
            marked.remove(&index);
        }
        if let Some(link) = &mut self.link {
            link.give_back(index);
        }
        self.undecided.drop_engine(index);
        self.lasting.drop_engine(index);
        self.jobs.drop_engine(index)
    }
}

/// Names under what became of them.
type Changes = Vec<(&'static str, Vec<String>)>;

fn watch(index: EngineIndex, engine: &model::Engine) -> Effect {
    Effect::Watch {
        index,
        engine: Box::new(engine.clone()),
    }
}

/// `places`: where each of the old ones stands now, if it is as it was.
fn entries_that_changed(
    old: &[Arc<Entry>],
    new: &[Arc<Entry>],
    places: &[Option<usize>],
) -> Changes {
    let fresh = (0..new.len()).filter(|place| !places.contains(&Some(*place)));
    let fresh: Vec<String> = fresh.map(|place| new[place].name.to_string()).collect();
    let gone = old.iter().zip(places).filter(|(_, place)| place.is_none());
    let mut gone: Vec<String> = gone.map(|(entry, _)| entry.name.to_string()).collect();
    let (changed, added): (Vec<String>, Vec<String>) =
        fresh.into_iter().partition(|name| gone.contains(name));
    gone.retain(|name| !changed.contains(name));
    vec![
        ("entries added", added),
        ("entries changed", changed),
        ("entries removed", gone),
    ]
}

/// `the file was read again: entries added: a, b; engines removed: c`
fn summary(changes: &[(&str, Vec<String>)]) -> String {
    let parts: Vec<String> = changes
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| {
            let more = match names.len().saturating_sub(NAMES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let shown: Vec<String> = names
                .iter()
                .take(NAMES)
                .map(|name| format!("`{name}`"))
                .collect();
            format!("{what}: {}{more}", shown.join(", "))
        })
        .collect();
    match parts.is_empty() {
        true => "the file was read again: nothing changed".to_owned(),
        false => format!("the file was read again: {}", parts.join("; ")),
    }
}
