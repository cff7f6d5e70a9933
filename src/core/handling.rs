//! From an event to the commands that it triggers, and what is told of their ends.

use std::sync::Arc;

use super::jobs::{self, Outcome, Trigger, Why};
use super::rules::{Matches, Subject};
use super::undecided::{News, PATIENCE};
use super::{Core, Effect, Level, Site, Time, tell};
use crate::model::{self, ENGINE, EngineIndex, Entry, Event, Scope};
use crate::store::Happening;

impl Core {
    /// Something happened: into the stream, and to the handlers.
    pub(super) fn event(
        &mut self,
        now: Time,
        index: EngineIndex,
        event: Arc<Event>,
        inferred: bool,
        revision: u64,
        effects: &mut Vec<Effect>,
    ) {
        if !event.is_noise() && !event.is_own() {
            let event = event.clone();
            self.happened(index, Happening::Event { event, inferred });
        }
        if self.settings.entries.is_none() {
            return;
        }
        let engine = &mut self.sites[index.at()].engine;
        let id = event.container().unwrap_or_default();
        let news = News {
            inferred,
            revision,
            asked: engine.known().cause(id, event.time_ns),
            at: now,
            event: event.clone(),
        };
        if inferred {
            engine.note_inferred(&event);
        }
        if self.undecided.is_full() {
            // Nobody waits for inspects in such a storm.
            for waiting in self.undecided.take(index, id) {
                self.decide(index, &waiting, true, effects);
            }
            self.decide(index, &news, true, effects);
        } else if self.undecided.has(index, id) || !self.decide(index, &news, false, effects) {
            self.undecided.push(index, id, news);
        }
    }

    /// An inspect that was asked for at this revision was answered: what waited for it goes on.
    pub(super) fn decide_known(
        &mut self,
        now: Time,
        index: EngineIndex,
        id: &str,
        revision: u64,
        effects: &mut Vec<Effect>,
    ) {
        // What has not begun when the agent stops is left to the next one.
        if self.stopping.is_some() {
            return;
        }
        let mut waiting = self.undecided.take(index, id);
        while let Some(news) = waiting.front() {
            let settled = news.revision <= revision || news.at + PATIENCE <= now;
            if !self.decide(index, news, settled, effects) {
                break;
            }
            waiting.pop_front();
        }
        self.undecided.put_back(index, id, waiting);
    }

    /// What has waited long enough goes on with what is known.
    pub(super) fn decide_due(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while let Some((index, id)) = self.undecided.pop_due(now) {
            self.decide_known(now, index, &id, 0, effects);
        }
    }

    /// Gives an event to the entries that it triggers. `false`: only an inspect can tell which these are, and there may yet be one, since it is not
    /// `settled`.
    fn decide(
        &mut self,
        index: EngineIndex,
        news: &News,
        settled: bool,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let event = &news.event;
        let site = &self.sites[index.at()];
        let id = event.container().unwrap_or_default();
        let (known, facts) = (site.engine.known(), site.engine.facts(id));
        let mut subject = Subject::new(event, &site.name, known, facts, news.revision);
        subject.asked = news.asked.filter(|_| subject.is_end());
        if settled {
            subject.settle();
        }
        let matches = self.rules.matches(&subject);
        if matches.pending {
            return false;
        }
        let container = subject.container.known().unwrap_or_default().to_owned();
        let matches = self.let_last(index, news, matches);
        self.trigger(index, news, matches, &container, effects);
        true
    }

    fn trigger(
        &mut self,
        index: EngineIndex,
        news: &News,
        matches: Matches,
        container: &str,
        effects: &mut Vec<Effect>,
    ) {
        let site = &self.sites[index.at()];
        let event = &news.event;
        if !matches.caught && !event.is_own() {
            let level = match event.is_noise() {
                true => Level::Debug,
                false => Level::Info,
            };
            effects.push(Effect::Log(level, tell::uncaught(event, site, container)));
        }
        let write_first = self
            .link
            .as_ref()
            .is_some_and(|link| link.is_open() && link.is_ours(index));
        let hidden = event.verb() == "die"
            && news.revision > 0
            && event
                .container()
                .is_some_and(|id| site.engine.known().hides_exit_code(id));
        for place in matches.entries {
            let entry = self.rules.entry(place).clone();
            if let Some(text) = &entry.log {
                effects.push(Effect::Log(
                    Level::Info,
                    tell::logged(&entry.name, text, event, site, container),
                ));
            }
            if entry.command.is_none() {
                continue;
            }
            let trigger = Trigger {
                place,
                engine: index,
                event: event.clone(),
                inferred: news.inferred,
                revision: news.revision,
                write_first,
                hidden,
                once: self.once(index, &entry, event),
            };
            // What the event waited for counts as waiting of its job.
            self.jobs.add(news.at, trigger);
        }
        self.tell_jobs(effects);
    }

    /// With `once`: what all agents call an entry's command for an event.
    fn once(&self, index: EngineIndex, entry: &Entry, event: &Event) -> Option<u128> {
        let site = &self.sites[index.at()];
        entry.once.then(|| {
            let identity = site.engine.identity();
            let engine = identity.as_ref().unwrap_or(&site.name);
            jobs::name(engine, event, &entry.name)
        })
    }

    /// What became of jobs that do not run, or no longer.
    pub(super) fn tell_jobs(&mut self, effects: &mut Vec<Effect>) {
        for outcome in self.jobs.outcomes() {
            let (job, why) = match outcome {
                Outcome::End(id) => {
                    effects.push(Effect::EndRun(id));
                    continue;
                }
                Outcome::Left(job, why) => (job, why),
                Outcome::Twice(job) => {
                    let site = &self.sites[job.engine.at()];
                    effects.push(Effect::Log(Level::Warn, tell::twice(&job, site)));
                    continue;
                }
            };
            // A successor need not run them.
            self.writable.extend(job.engines());
            let site = &self.sites[job.engine.at()];
            effects.push(match why {
                Why::Full(count) => Effect::Log(
                    Level::Warn,
                    format!(
                        "handler `{}`: {count} jobs wait already; dropping what does not fit",
                        job.entry.name
                    ),
                ),
                Why::Late(count) => Effect::Log(
                    Level::Warn,
                    format!(
                        "handler `{}`: the Cache was away for too long; dropping {count} jobs with `once`",
                        job.entry.name
                    ),
                ),
                why => Effect::Log(Level::Debug, tell::left(&job, why, site)),
            });
        }
    }

    /// Something became of an engine itself: no event of Docker's, so the handlers alone hear of it.
    pub(super) fn engine_event(
        &mut self,
        now: Time,
        index: EngineIndex,
        action: &str,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        if self.stopping.is_some() {
            return;
        }
        let Site { name, engine, .. } = &self.sites[index.at()];
        let event = Event {
            kind: ENGINE.into(),
            action: action.into(),
            id: engine.hello().map_or("", |hello| &hello.engine_id).into(),
            attributes: [("name", &**name), ("reason", reason)]
                .into_iter()
                .collect(),
            time_ns: match engine.hello() {
                Some(_) => engine.clock_ns(now),
                None => self.settings.clock_ns + now.as_nanos() as i64,
            },
            scope: Scope::MadeUp,
        };
        self.event(now, index, Arc::new(event), false, 0, effects);
    }

    /// Of the entries that an engine's `down` or `up` triggers, those whose `for` it need not outlast.
    fn let_last(&mut self, index: EngineIndex, news: &News, mut matches: Matches) -> Matches {
        let event = &news.event;
        if &*event.kind == ENGINE && matches!(&*event.action, "down" | "up") {
            let rules = &self.rules;
            let entries = matches.entries.into_iter();
            let entries = entries.map(|place| (place, rules.entry(place).lasting));
            matches.entries = self.lasting.turned(news.at, index, event, entries);
        }
        matches
    }

    /// What had to last has lasted.
    pub(super) fn tell_lasting(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for (index, place, event) in self.lasting.over(now) {
            let news = News {
                event,
                inferred: false,
                revision: 0,
                asked: None,
                at: now,
            };
            let matches = Matches {
                entries: vec![place],
                caught: true,
                pending: false,
            };
            self.trigger(index, &news, matches, "", effects);
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Time,
        job: u64,
        run: model::Run,
        effects: &mut Vec<Effect>,
    ) {
        let random = &mut self.random;
        if let Some(ended) = self.jobs.ended(now, job, &run.exit, random) {
            let job = &ended.job;
            if let Some(delay) = ended.again {
                let site = &self.sites[job.engine.at()];
                effects.push(Effect::Log(
                    Level::Debug,
                    tell::tried_again(job, delay, site),
                ));
            }
            self.tell_run(job, Some(run));
        }
    }
}
