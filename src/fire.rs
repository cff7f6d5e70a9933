//! The verb `fire`: runs one entry now, for an event that is made up, and shows what comes of it. No Redis is asked for anything.
//!
//! The command is told and run as the agent would tell and run it. The event is as Docker would send it, but for what only the real one can know: of
//! an object that is no container, its name and id, which are made up too.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::agent;
use crate::args::Ended;
use crate::command::{self, BaseEnvironment, Cancel, OUTPUT_LIMIT};
use crate::config::{Config, Fired};
use crate::core::environment;
use crate::core::input::{self, Input};
use crate::core::known::Known;
use crate::core::rules::{Rules, Subject, Verdict};
use crate::core::tell;
use crate::docker::client::{Client, Connection, DockerError};
use crate::docker::document::{Masker, document};
use crate::handlers;
use crate::logging;
use crate::model::{
    ContainerId, Document, ENGINE, Engine, Entry, Event, Exit, Hello, Job, Run, Scope, Summary,
};
use crate::threads;

/// How long the engine may take for each of its answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was given is wrong.
const USAGE: u8 = 2;

/// What timeout(1) exits with when it ended its command.
const TIMED_OUT: u8 = 124;

/// Shells add it to the number of the signal that ended a command.
const SIGNALLED: i32 = 128;

/// Runs the entry: the exit code, which is the command's own where it has one.
///
/// # Errors
/// Nothing was run: what to say, and the exit code.
pub fn run(config: &Config, fired: &Fired) -> Result<u8, Ended> {
    let entries = config.handlers.as_ref().map(|handlers| &*handlers.entries);
    let entry = entries.and_then(|entries| entries.get(fired.place));
    let Some(entry) = entry else {
        return Err(ended(USAGE, "there is no such entry"));
    };
    let masker = Masker::new(&config.redact);
    let masker = masker.map_err(|error| ended(1, &error))?;
    let found = find(fired, &masker)?;
    let event = found.event(&fired.event, made_up(entry));
    let id = event.container().map(ContainerId::from);
    let mut known = Known::default();
    let facts = found.document.as_ref().map(|document| &document.summary);
    if let (Some(id), Some(facts)) = (&id, facts) {
        // What the agent would know of it, once it had heard the event and looked.
        known.heard(id, &event, 1, Some(facts));
        known.seen(id, 1, facts);
    }
    let mut subject = Subject::new(&event, &found.engine.name, &known, facts, 1);
    subject.settle();
    let said = Rules::new(std::slice::from_ref(entry)).verdict(0, &subject);
    if let Verdict::Refused(reason) | Verdict::Pending(reason) = said {
        let shown = |name: &str, value: &str| masker.shown(name, value);
        let reason = reason.say(entry, &subject, &shown);
        complain(&format!("note: {reason}; fired all the same"));
    }
    if let Some(text) = &entry.log {
        complain(&format!("log: {text}"));
    }
    if entry.command.is_none() {
        return Ok(0);
    }
    start(&job(config, entry, &found, &subject))
}

/// An engine, and what it says of the container.
struct Found {
    engine: Engine,
    hello: Hello,
    /// What the cache would get, and the labels as Docker's events have them.
    document: Option<Document>,
}

/// What an object is called that is no container: an image as the entry's `image` asks for it, if that is in plain words.
fn made_up(entry: &Entry) -> &str {
    let is_plain = |text: &&String| !text.contains(['*', '?', '[', '{', '\\']);
    let filter = &entry.filter;
    let mut images = filter.images.any.iter().chain(&filter.image_contains);
    images.find(is_plain).map_or("made-up", |image| image)
}

/// Looks for the container on one engine after the other. Without one, the first that answers will do.
fn find(fired: &Fired, masker: &Masker) -> Result<Found, Ended> {
    let mut silent = false;
    for engine in &fired.engines {
        let (hello, bytes) = match ask(engine, fired.container.as_deref()) {
            Ok((hello, Some(bytes))) => (hello, bytes),
            Ok((hello, None)) if fired.container.is_none() => {
                return Ok(Found {
                    engine: engine.clone(),
                    hello,
                    document: None,
                });
            }
            Ok((_, None)) => continue,
            Err(error) => {
                silent = true;
                complain(&format!("note: {}: {}", engine.name, error.text));
                continue;
            }
        };
        let document = document(&bytes, masker).map_err(|error| ended(1, &error.text))?;
        return Ok(Found {
            engine: engine.clone(),
            hello,
            document: Some(document),
        });
    }
    let names: Vec<&str> = fired.engines.iter().map(|engine| &*engine.name).collect();
    let names = names.join(", ");
    Err(match (&fired.container, silent) {
        (None, _) => ended(1, &format!("no engine answers of {names}")),
        (Some(name), true) => ended(
            1,
            &format!("no engine that answers has a container `{name}`"),
        ),
        (Some(name), false) => ended(
            USAGE,
            &format!("no container is called `{name}` on {names}"),
        ),
    })
}

/// What an engine says of itself and of a container.
fn ask(engine: &Engine, container: Option<&str>) -> Result<(Hello, Option<Vec<u8>>), DockerError> {
    let hello = Connection::new(&engine.address).hello(PATIENCE)?;
    let bytes = match container {
        // An engine takes a name or the beginning of an id for an id.
        Some(name) => {
            let mut client = Client::new(&engine.address);
            client.inspect(&hello.api_version, &name.into(), PATIENCE)?
        }
        None => None,
    };
    Ok((hello, bytes))
}

impl Found {
    /// The event, as Docker would send it now. Labels stand over the event's own attributes, but for name and image.
    fn event(&self, fired: &Event, made_up: &str) -> Event {
        let facts = self.document.as_ref().map(|document| &document.summary);
        let mut attributes: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut id = made_up;
        match (&*fired.kind, facts) {
            ("container", Some(facts)) => {
                id = self.id();
                attributes.extend(
                    facts
                        .labels
                        .iter()
                        .flat_map(|labels| labels.iter().cloned()),
                );
                attributes.retain(|(name, _)| !matches!(&**name, "name" | "image"));
                attributes.extend(own_attributes(fired, facts, &attributes));
            }
            (_, Some(_)) => {
                attributes.push(("container".into(), self.id().into()));
                attributes.push(("name".into(), made_up.into()));
            }
            (ENGINE, None) => {
                id = &self.hello.engine_id;
                attributes.push(("name".into(), (&*self.engine.name).into()));
                attributes.push(("reason".into(), "it was made up by `fire`".into()));
            }
            (_, None) => attributes.push(("name".into(), made_up.into())),
        }
        attributes.sort();
        Event {
            kind: fired.kind.clone(),
            action: fired.action.clone(),
            id: id.into(),
            attributes: attributes.into_iter().collect(),
            time_ns: self.hello.clock_ns,
            scope: Scope::MadeUp,
        }
    }

    /// The container's full id.
    fn id(&self) -> &str {
        let document = self.document.as_ref();
        let id = document.and_then(|document| document.fields.get("id"));
        id.unwrap_or("")
    }
}

/// What Docker itself puts into an event of this container.
fn own_attributes(
    fired: &Event,
    facts: &Summary,
    labels: &[(Box<str>, Box<str>)],
) -> Vec<(Box<str>, Box<str>)> {
    let mut own = vec![
        ("name".into(), (&*facts.name).into()),
        ("image".into(), (&*facts.image).into()),
    ];
    let hidden = labels.iter().any(|(name, _)| &**name == "exitCode");
    if &*fired.action == "die" && !hidden {
        own.push(("exitCode".into(), facts.exit_code.to_string().into()));
    }
    own
}

/// The command, with all that it is told.
fn job(config: &Config, entry: &Arc<Entry>, found: &Found, subject: &Subject) -> Job {
    let run: String = agent::boot_id()
        .chars()
        .take(8)
        .chain("-1".chars())
        .collect();
    let event = subject.event;
    let input = Input {
        event,
        engine: input::Engine {
            name: &found.engine.name,
            url: &found.engine.url,
            id: &found.hello.engine_id,
        },
        container: found.document.as_ref().map(|document| &*document.json),
        container_gone: false,
        inferred: false,
        reason: None,
        attempt: 1,
        run: &run,
        entry: &entry.name,
        count: 1,
    };
    let engines = config.engines.iter();
    let engines = engines.map(|engine| (&*engine.name, &*engine.url));
    let exit_code = subject.exit_code.known();
    let exit_code = exit_code.map_or(String::new(), |code| code.to_string());
    let mut variables = environment::variables(engines, subject, &input, &exit_code);
    let (labels, unfit) = environment::labels(entry, subject);
    variables.extend(labels);
    for what in unfit {
        complain(&format!("note: {what}"));
    }
    Job {
        id: 1,
        input: input.bytes(),
        entry: entry.clone(),
        subject: tell::object(event, subject.container.known().unwrap_or_default()).to_owned(),
        word: event.word(),
        engine: found.engine.name.clone(),
        attempt: 1,
        environment: variables,
        run,
    }
}

/// Runs the command to its end and shows what it wrote: its exit code.
fn start(job: &Job) -> Result<u8, Ended> {
    let failed = |error: io::Error| ended(1, &error.to_string());
    let cancel = Arc::new(Cancel::new().map_err(failed)?);
    let signalled = cancel_by_signals(&cancel).map_err(failed)?;
    complain(&format!("{}: started", handlers::named(job)));
    let run = command::run(job, &cancel, &BaseEnvironment::of_process());
    command::end_leftovers(&job.run);
    if run.cut {
        complain(&format!("… (the last {OUTPUT_LIMIT} bytes follow)"));
    }
    // A reader that went away changes nothing.
    let mut out = io::stdout().lock();
    let _ = out.write_all(&run.output).and_then(|()| out.flush());
    let signal = signalled.try_recv().ok();
    let how = match &run.exit {
        Exit::Cancelled => "was ended by a signal to `fire`".to_owned(),
        exit => exit.to_string(),
    };
    complain(&format!(
        "{}: {how}, after {:.3} s",
        handlers::named(job),
        run.took.as_secs_f64()
    ));
    Ok(exit_code(&run, signal))
}

fn exit_code(run: &Run, signal: Option<i32>) -> u8 {
    let code = match run.exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => SIGNALLED + signal,
        Exit::Cancelled => SIGNALLED + signal.unwrap_or(SIGTERM),
        Exit::TimedOut => TIMED_OUT.into(),
        Exit::NotStarted(_) | Exit::Replaced | Exit::CutOff => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

/// The first signal ends the command with its grace, and is told by what this returns; a second one ends us at once.
fn cancel_by_signals(cancel: &Arc<Cancel>) -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (sender, signalled) = bounded(1);
    let cancel = cancel.clone();
    threads::spawn("signals", move || {
        for signal in signals.forever() {
            if sender.try_send(signal).is_err() {
                std::process::exit(SIGNALLED + signal);
            }
            cancel.cancel(Exit::Cancelled);
        }
    })?;
    Ok(signalled)
}

fn ended(code: u8, text: &str) -> Ended {
    Ended {
        text: format!("error: {}\n", logging::escape(text)),
        stdout: false,
        code,
    }
}

fn complain(text: &str) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr().lock(), "{}", logging::escape(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(exit: Exit) -> Run {
        Run {
            exit,
            output: Vec::new(),
            cut: false,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn the_exit_code_is_the_commands_own_or_what_shells_make_of_its_end() {
        for (exit, signal, code) in [
            (Exit::Code(0), None, 0),
            (Exit::Code(255), Some(SIGINT), 255),
            (Exit::Signal(9), None, 137),
            (Exit::TimedOut, None, 124),
            (Exit::Cancelled, Some(SIGINT), 130),
            (Exit::NotStarted(String::new()), None, 1),
        ] {
            assert_eq!(exit_code(&ran(exit), signal), code);
        }
    }

    #[test]
    fn the_event_is_as_docker_would_send_it() {
        let labels = [("team", "core"), ("name", "liar"), ("exitCode", "x")];
        let labels = labels.map(|(name, value)| (Box::from(name), Box::from(value)));
        let mut found = Found {
            engine: Engine {
                name: "foo".into(),
                url: "tcp://h:1".into(),
                address: crate::model::Address::Unix("/d".into()),
            },
            hello: Hello {
                clock_ns: 7,
                engine_id: "Q2".into(),
                ..Hello::default()
            },
            document: Some(Document {
                fields: [("id", "c1")].into_iter().collect(),
                summary: Summary {
                    name: "web-1".into(),
                    image: "i".into(),
                    exit_code: 3,
                    labels: Some(labels[..2].into()),
                    ..Summary::default()
                },
                ..Document::default()
            }),
        };
        let event = |found: &Found, kind: &str, action: &str| {
            let fired = Event {
                kind: kind.into(),
                action: action.into(),
                ..Event::default()
            };
            let event = found.event(&fired, "made-up");
            assert_eq!(event.time_ns, 7);
            let attributes = event.attributes.iter();
            let attributes = attributes.map(|(name, value)| format!(" {name}={value}"));
            format!("{}{}", event.id, attributes.collect::<String>())
        };
        let die = "c1 exitCode=3 image=i name=web-1 team=core";
        assert_eq!(event(&found, "container", "die"), die);
        let start = "c1 image=i name=web-1 team=core";
        assert_eq!(event(&found, "container", "start"), start);
        assert_eq!(
            event(&found, "network", "connect"),
            "made-up container=c1 name=made-up"
        );
        // A label hides the real one, as ever.
        let document = found.document.as_mut().expect("it is there");
        document.summary.labels = Some(labels.into());
        let hidden = "c1 exitCode=x image=i name=web-1 team=core";
        assert_eq!(event(&found, "container", "die"), hidden);
        found.document = None;
        let down = "Q2 name=foo reason=it was made up by `fire`";
        assert_eq!(event(&found, "engine", "down"), down);
        assert_eq!(event(&found, "image", "pull"), "made-up name=made-up");
    }
}
