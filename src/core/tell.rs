//! How things are called: a host's fields, lines of the log.

use super::engine::Engine;
use super::jobs::{Waiting, Why};
use super::link::Tenancy;
use super::{Core, Effect, Level, Settings, Site, Time, rules};
use crate::model::{ENGINE, Event};

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

/// The name (without a slash) of the container that an event is about, as the event has it, else as the last inspect did.
pub(super) fn container<'a>(event: &'a Event, engine: &'a Engine) -> &'a str {
    let facts = || engine.facts(event.container()?);
    rules::name(event, engine.known(), facts).unwrap_or_default()
}

/// What a command is about, for the log: a container's or an engine's name, else the object's id.
pub fn object<'a>(event: &'a Event, container: &'a str) -> &'a str {
    let name = match &*event.kind {
        ENGINE => event.attribute("name"),
        _ => Some(container).filter(|name| !name.is_empty()),
    };
    name.unwrap_or(&event.id)
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

/// Why an event starts nothing.
pub(super) fn left(job: &Waiting, why: Why, site: &Site) -> String {
    let why = match why {
        Why::Cooldown => "its last command was started less than `cooldown` ago",
        Why::Busy => "others run or wait, and `on_busy` is `skip`",
        Why::Replaced => "a newer event takes its place",
        Why::Full(_) => "too many wait",
        Why::Elsewhere => "another agent ran it, and `once` is `true`",
        Why::Late(_) => "the Cache was away for too long",
    };
    format!(
        "handler `{}`: nothing starts for {}: {why}",
        job.entry.name,
        about(job, site)
    )
}

/// Another agent took us for dead.
pub(super) fn twice(job: &Waiting, site: &Site) -> String {
    format!(
        "handler `{}`: another agent runs for {} as well: this one could not renew its lease in time",
        job.entry.name,
        about(job, site)
    )
}

/// A command failed, and that is not the end of it.
pub(super) fn tried_again(job: &Waiting, delay: Time, site: &Site) -> String {
    format!(
        "handler `{}`: try {} of {} for {} in {delay:.1?}",
        job.entry.name,
        job.attempt + 1,
        job.entry.queueing.retries + 1,
        about(job, site)
    )
}

/// `die of /web on foo`
fn about(job: &Waiting, site: &Site) -> String {
    let container = container(&job.event, &site.engine);
    let subject = subject(&job.event, container);
    format!("{} of {subject} on {}", job.event.word(), site.name)
}

impl Core {
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
        for site in self.watched() {
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
        let watched: Vec<&Site> = self.watched().collect();
        let down: Vec<&str> = watched
            .iter()
            .filter(|site| site.engine.is_down())
            .map(|site| &*site.name)
            .collect();
        let mut text = match watched.as_slice() {
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
        if let Some(site) = watched.iter().find(|site| site.replaced) {
            text += &format!("; another engine than before answers at {}", site.url);
        }
        if let Some(held) = watched.iter().find_map(|site| self.holder(site)) {
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
