//! How things are called: a host's fields, a job's environment, lines of the log.

use std::sync::Arc;

use super::engine::Engine;
use super::jobs::Waiting;
use super::link::Tenancy;
use super::{Core, Effect, Level, Settings, Site};
use crate::model::{EngineIndex, Event, Exit, Job, Run, engine_variable};
use crate::store::{Happening, RunRecord};

/// The host's fields: those that move with every batch, or all of them. `constants` are the settings, the store's errors and the dropped jobs.
pub(super) fn fields(
    engine: &Engine,
    url: &str,
    down: bool,
    running: usize,
    all: bool,
    constants: (&Settings, u64, u64),
) -> Vec<(&'static str, String)> {
    let (settings, store_errors, dropped_jobs) = constants;
    let counters = engine.counters();
    let status = if down { "down" } else { "up" };
    let mut fields = vec![
        ("containers_running", running.to_string()),
        ("status", status.to_owned()),
        ("last_event", engine.last_event_ns().to_string()),
        ("gaps", counters.gaps.to_string()),
    ];
    if !all {
        return fields;
    }
    fields.extend([
        ("update_interval", settings.interval.as_secs().to_string()),
        ("docker_url", url.to_owned()),
        ("agent_version", settings.version.to_owned()),
        ("events", counters.events.to_string()),
        ("resyncs", counters.resyncs.to_string()),
        ("drift", counters.drift.to_string()),
        ("reconnects", counters.reconnects.to_string()),
        ("dropped_jobs", dropped_jobs.to_string()),
        ("store_errors", store_errors.to_string()),
    ]);
    if let Some(hello) = engine.hello() {
        fields.extend([
            ("docker_version", hello.docker_version.clone()),
            ("engine_id", hello.engine_id.clone()),
            ("api_version", hello.api_version.clone()),
            ("os", hello.os.clone()),
            ("kernel", hello.kernel.clone()),
            ("architecture", hello.architecture.clone()),
            ("cpus", hello.cpus.to_string()),
            ("memory", hello.memory.to_string()),
        ]);
    }
    fields
}

/// The name (without a slash) and the image of the container that an event is about, as the event has them, else as the last inspect did.
pub(super) fn names(event: &Event, engine: &Engine) -> (String, String) {
    let id = event.container().unwrap_or_default();
    let (heard, facts) = (engine.known().names(id), engine.facts(id));
    let own = |name: &str| match &*event.kind {
        "container" => event.attribute(name),
        _ => None,
    };
    let name = own("name")
        .or(heard.map(|(name, _)| name))
        .or(facts.map(|facts| &*facts.name));
    let image = match &*event.kind {
        "image" => event.attribute("name").or(Some(&event.id)),
        _ => own("image")
            .or(heard.map(|(_, image)| image))
            .or(facts.map(|facts| &*facts.image)),
    };
    (
        name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image.unwrap_or_default().to_owned(),
    )
}

/// What an event is about, for people: `/name`, else the object's own name or id.
fn subject(event: &Event, container: &str) -> String {
    if !container.is_empty() {
        return format!("/{container}");
    }
    event.attribute("name").unwrap_or(&event.id).to_owned()
}

/// `Uncaught event: type create from foo@tcp://192.168.59.103:2375 on /grave_euclid`.
pub(super) fn uncaught(event: &Event, site: &Site, container: &str) -> String {
    format!(
        "Uncaught event: type {} from {} on {}",
        event.word(),
        site.named(),
        subject(event, container)
    )
}

/// The line of an entry's `log`.
pub(super) fn logged(
    entry: &str,
    text: &str,
    event: &Event,
    site: &Site,
    container: &str,
) -> String {
    format!(
        "{text} (handler `{entry}`: {} from {} on {})",
        event.word(),
        site.named(),
        subject(event, container)
    )
}

/// What `<p>:runs` keeps of a run.
pub(super) fn record(job: &Waiting, entry: &str, container: String, run: Run) -> RunRecord {
    RunRecord {
        run: job.id,
        entry: entry.into(),
        word: job.event.word(),
        subject: match container.is_empty() {
            true => job.event.id.to_string(),
            false => container,
        },
        took_ms: run.took.as_millis() as u64,
        output: match &run.exit {
            Exit::NotStarted(why) => why.clone(),
            _ => String::from_utf8_lossy(&run.output).into_owned(),
        },
        exit: run.exit,
    }
}

impl Core {
    /// The commands that run for an engine, a line each: entry, event, container; nothing without handlers.
    pub(super) fn running_jobs(&self, index: EngineIndex) -> Option<String> {
        self.settings.entries.as_ref()?;
        let line = |job: &Waiting| {
            let (container, _) = names(&job.event, &self.sites[index.at()].engine);
            let subject = match container.is_empty() {
                true => &*job.event.id,
                false => &container,
            };
            let words = [
                &*self.rules.entry(job.entry).name,
                &job.event.word(),
                subject,
            ];
            words
                .map(|word| word.replace(char::is_control, " "))
                .join("\t")
        };
        let lines: Vec<String> = self.jobs.running_of(index).map(line).collect();
        Some(lines.join("\n"))
    }

    /// Reports the commands that ran when the last agent wrote last: nobody knows how they ended.
    pub(super) fn tell_cut_off(
        &mut self,
        index: EngineIndex,
        running_jobs: &str,
        effects: &mut Vec<Effect>,
    ) {
        if self.settings.entries.is_none() {
            return;
        }
        for line in running_jobs.lines() {
            let mut words = line.split('\t');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let record = RunRecord {
                run: 0,
                entry: word().into(),
                word: word(),
                subject: word(),
                exit: Exit::CutOff,
                took_ms: 0,
                output: String::new(),
            };
            effects.push(Effect::Log(
                Level::Warn,
                format!(
                    "handler `{}`, run for {} of {} on {}: {}",
                    record.entry,
                    record.word,
                    record.subject,
                    self.sites[index.at()].name,
                    record.exit
                ),
            ));
            self.happened(index, Happening::Run(Arc::new(record)));
        }
    }

    /// The command of a job that starts now, with its environment.
    pub(super) fn job(&self, waiting: Waiting) -> Job {
        let entry = self.rules.entry(waiting.entry);
        let site = &self.sites[waiting.engine.at()];
        let event = &waiting.event;
        let (container, image) = names(event, &site.engine);
        let mut environment: Vec<(String, String)> = self
            .sites
            .iter()
            .map(|site| (engine_variable(&site.name), site.url.to_string()))
            .collect();
        let mut set = |name: &str, value: &str| environment.push((name.into(), value.into()));
        set("FROM_ENGINE", &site.name);
        set("FROM_CONTAINER", &container);
        set("FROM_CONTAINER_ID", event.container().unwrap_or_default());
        set("FROM_IMAGE", &image);
        set("EVENT_TYPE", &event.word());
        set("EVENT_ACTION", &event.action);
        set("EVENT_TIME", &event.time_ns.to_string());
        set("EVENT_ID", &event.id);
        set("EVENT_EXIT_CODE", &exit_code(&waiting, &site.engine));
        set("EVENT_INFERRED", if waiting.inferred { "1" } else { "" });
        Job {
            id: waiting.id,
            entry: entry.name.clone(),
            subject: match container.is_empty() {
                true => event.id.to_string(),
                false => container,
            },
            word: event.word(),
            engine: site.name.clone(),
            command: entry.command.clone().unwrap_or_else(|| "".into()),
            environment,
            timeout: entry.timeout,
            grace: entry.grace,
        }
    }

    /// SIGUSR1: how things are.
    pub(super) fn report(&self, effects: &mut Vec<Effect>) {
        let mut say = |text: String| effects.push(Effect::Log(Level::Info, text));
        say(format!(
            "{}; {} commands run, {} jobs wait, {} were dropped; documents of {} bytes wait for the Cache",
            self.summary(),
            self.jobs.running(),
            self.jobs.waiting(),
            self.jobs.dropped_total,
            self.waiting_bytes,
        ));
        for site in &self.sites {
            let counters = site.engine.counters();
            say(format!(
                "engine `{}` ({}): {}; {} containers in the Cache; events {}, gaps {}, resyncs {}, drift {}, reconnects {}, store_errors {}{}",
                site.name,
                site.url,
                if site.engine.is_down() { "down" } else { "up" },
                site.outbox.len(),
                counters.events,
                counters.gaps,
                counters.resyncs,
                counters.drift,
                counters.reconnects,
                self.link.as_ref().map_or(0, |link| link.errors),
                self.holder(site)
                    .map_or(String::new(), |text| format!("; {text}")),
            ));
        }
    }

    /// Tells the service manager, when there is news.
    pub(super) fn say_status(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.status_stale) {
            return;
        }
        let status = self.summary();
        if status != self.status {
            self.status.clone_from(&status);
            effects.push(Effect::Status(status));
        }
    }

    fn summary(&self) -> String {
        let down: Vec<&str> = self
            .sites
            .iter()
            .filter(|site| site.engine.is_down())
            .map(|site| &*site.name)
            .collect();
        let mut text = match self.sites.as_slice() {
            [only] => format!("watching {}", only.named()),
            sites => format!("watching {} engines", sites.len()),
        };
        match down.as_slice() {
            [] => {}
            [one] => text += &format!(", {one} is down"),
            [first, ..] => text += &format!(", {} are down, {first} among them", down.len()),
        }
        match &self.link {
            None => text += ", no Cache",
            Some(link) if !link.error.is_empty() => text += &format!("; {}", link.error),
            Some(link) if !link.is_open() => text += "; the Cache is not connected",
            Some(_) => text += "; the Cache is connected",
        }
        if let Some(site) = self.sites.iter().find(|site| site.replaced) {
            text += &format!("; another engine than before answers at {}", site.url);
        }
        if let Some(held) = self.sites.iter().find_map(|site| self.holder(site)) {
            text += &format!("; {held}");
        }
        text
    }

    /// Who writes a host in our stead.
    fn holder(&self, site: &Site) -> Option<String> {
        match self.link.as_ref()?.tenancy(site.index) {
            Tenancy::Held(holder, _) => {
                let holder = holder.to_string();
                let holder = holder
                    .split(" (lease")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                Some(format!("host `{}` is not written: {holder}", site.name))
            }
            _ => None,
        }
    }
}

/// The event's exit code; where a label stands in its place, the one that an inspect found, if it still found that end.
fn exit_code(job: &Waiting, engine: &Engine) -> String {
    let event = &job.event;
    match job.document {
        _ if event.verb() != "die" => String::new(),
        Some(revision) => engine
            .known()
            .exit_code(&event.id, revision)
            .map_or(String::new(), |code| code.to_string()),
        None => event.attribute("exitCode").unwrap_or_default().to_owned(),
    }
}
