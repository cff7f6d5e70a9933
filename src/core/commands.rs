//! From a job that starts to its command: what that is told, what the log and the store are told of it, and of commands that were cut off.

use std::sync::Arc;

use super::cutoff::{self, Command};
use super::engine::Engine;
use super::environment;
use super::input::{self, Input};
use super::jobs::{Begun, Trigger, Waiting};
use super::rules::Subject;
use super::{Core, Effect, Level, Time, tell};
use crate::model::{EngineIndex, Entry, Exit, Job, Run};
use crate::store::{Happening, RunEnd, RunRecord};

impl Core {
    /// Starts a job's command.
    pub(super) fn begin(&mut self, waiting: Waiting, effects: &mut Vec<Effect>) {
        // The store is told what runs: should we crash, our successor runs it no second time, and knows that it was cut off.
        let engines = waiting.engines();
        self.writable.extend(engines.chain([waiting.engine]));
        let record = self.tell_run(&waiting, None);
        let job = self.job(&waiting, &record, effects);
        effects.push(Effect::Run(Box::new(job)));
    }

    /// Says in `<p>:runs` that a command was started, or how it ended.
    pub(super) fn tell_run(&mut self, job: &Waiting, end: Option<Run>) -> Arc<RunRecord> {
        let end = end.map(|run| RunEnd {
            took_ms: run.took.as_millis() as u64,
            output: match &run.exit {
                Exit::NotStarted(why) => why.clone(),
                _ => String::from_utf8_lossy(&run.output).into_owned(),
            },
            exit: run.exit,
        });
        let record = Arc::new(RunRecord {
            run: self.run_id(job),
            entry: job.entry.name.clone(),
            word: job.event.word(),
            subject: self.subject(job),
            attempt: job.attempt,
            end,
        });
        self.happened(job.engine, Happening::Run(record.clone()));
        record
    }

    /// The commands that run for an engine, for a successor; nothing without handlers.
    pub(super) fn running_jobs(&self, index: EngineIndex) -> Option<String> {
        self.settings.entries.as_ref()?;
        let command = |job: &Waiting| Command {
            entry: job.entry.name.clone(),
            run: self.run_id(job),
            attempt: job.attempt,
            count: job.count,
            subject: self.subject(job),
            inferred: job.inferred,
            once: job.once(),
            event: job.event.clone(),
        };
        Some(cutoff::write(self.jobs.running_of(index).map(command)))
    }

    /// Reports the commands that ran when the last agent wrote last: nobody knows how they ended. Those that have a try left have it now.
    pub(super) fn take_up_cut_off(
        &mut self,
        now: Time,
        index: EngineIndex,
        running_jobs: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entries) = self.settings.entries.clone() else {
            return;
        };
        for command in cutoff::read(running_jobs) {
            effects.push(Effect::Log(
                Level::Warn,
                format!(
                    "handler `{}`, run {} for {} of {} on {}: {}",
                    command.entry,
                    command.run,
                    command.event.word(),
                    command.subject,
                    self.sites[index.at()].name,
                    Exit::CutOff
                ),
            ));
            let record = RunRecord {
                run: command.run.clone(),
                entry: command.entry.clone(),
                word: command.event.word(),
                subject: command.subject.clone(),
                attempt: command.attempt,
                end: Some(RunEnd {
                    exit: Exit::CutOff,
                    took_ms: 0,
                    output: String::new(),
                }),
            };
            self.happened(index, Happening::Run(Arc::new(record)));
            let has_try = |entry: &Arc<Entry>| {
                entry.name == command.entry && command.attempt <= entry.queueing.retries
            };
            if let Some(place) = entries.iter().position(has_try) {
                self.try_again(now, index, place, command);
            }
        }
    }

    fn try_again(&mut self, now: Time, index: EngineIndex, place: usize, command: Command) {
        let engine = &mut self.sites[index.at()].engine;
        let container = command.event.container().filter(|id| !id.is_empty());
        // It is told what is so now: nothing is known of the container before the engine was asked.
        let revision = container.map_or(0, |id| engine.look_first(now, &id.into()));
        let trigger = Trigger {
            place,
            engine: index,
            once: command.once,
            inferred: command.inferred,
            event: command.event,
            revision,
            write_first: false,
            hidden: false,
        };
        let begun = Begun {
            run: command.run.into(),
            attempt: command.attempt,
            count: command.count,
        };
        self.jobs.add_again(now, trigger, begun);
    }

    /// The command of a job that starts now, with all that it is told.
    fn job(&self, waiting: &Waiting, record: &RunRecord, effects: &mut Vec<Effect>) -> Job {
        let entry = &waiting.entry;
        let site = &self.sites[waiting.engine.at()];
        let event = &waiting.event;
        let run = &record.run;
        let id = event.container().unwrap_or_default();
        let document = site.engine.document(id, waiting.revision);
        let hello = site.engine.hello();
        let input = Input {
            event,
            engine: input::Engine {
                name: &site.name,
                url: &site.url,
                id: hello.map_or("", |hello| &hello.engine_id),
            },
            container: document.as_ref().map(|(json, _)| json.as_str()),
            container_gone: document.as_ref().is_some_and(|(_, gone)| *gone),
            inferred: waiting.inferred,
            reason: waiting.inferred.then(|| input::reason(event)),
            attempt: waiting.attempt,
            run,
            entry: &entry.name,
            count: waiting.count,
        };
        let facts = site.engine.facts(id);
        let subject = Subject::new(event, &site.name, site.engine.known(), facts, 0);
        let engines = self.watched().map(|site| (&*site.name, &*site.url));
        let exit_code = exit_code(waiting, &site.engine);
        let mut environment = environment::variables(engines, &subject, &input, &exit_code);
        let (labels, unfit) = environment::labels(entry, &subject);
        environment.extend(labels);
        for what in unfit {
            effects.push(Effect::Log(
                Level::Warn,
                format!("handler `{}`, run {run}: {what}", entry.name),
            ));
        }
        Job {
            id: waiting.id,
            input: input.bytes(),
            entry: entry.clone(),
            subject: record.subject.clone(),
            word: record.word.clone(),
            engine: site.name.clone(),
            attempt: waiting.attempt,
            environment,
            run: run.clone(),
        }
    }

    /// What a run is called: all tries of a job alike.
    fn run_id(&self, job: &Waiting) -> String {
        match &job.begun {
            Some(run) => run.to_string(),
            None => format!("{}-{}", self.settings.boot, job.run),
        }
    }

    /// What a job is about, for people.
    fn subject(&self, job: &Waiting) -> String {
        let container = tell::container(&job.event, &self.sites[job.engine.at()].engine);
        tell::object(&job.event, container).to_owned()
    }
}

/// The event's exit code; where a label stands in its place, the one that an inspect found, if it still found that end.
fn exit_code(job: &Waiting, engine: &Engine) -> String {
    let event = &job.event;
    let code = match job.hidden {
        _ if event.verb() != "die" => None,
        true => {
            let code = engine.known().exit_code(&event.id, job.revision);
            code.map(|code| code.to_string())
        }
        false => event.attribute("exitCode").map(str::to_owned),
    };
    code.unwrap_or_default()
}
