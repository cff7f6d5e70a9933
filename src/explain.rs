//! The verb `explain`: says of events which entries they would trigger, and which filter says no to the others. Nothing is run.
//!
//! The events are lines of JSON on the standard input, or those of an engine as they happen. The rules are asked as the agent asks them. What only an
//! inspect can tell is asked of a live engine and remains a `perhaps` otherwise.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, Explained};
use crate::core::known::Known;
use crate::core::rules::{self, Fact, Rules, Subject};
use crate::docker::client::{Client, Connection, DockerErrorKind};
use crate::docker::document::{Masker, document};
use crate::docker::wire;
use crate::logging::{self, Clock};
use crate::model::{ContainerId, Engine, Event, Hello, Summary};
use crate::threads;

/// No line of events is longer.
const LINE_CAP: u64 = 16 << 20;

/// How long the engine may take to say who it is.
const GREET: Duration = Duration::from_secs(15);

/// How long one wait for an event lasts; the next one follows.
const LOOK: Duration = Duration::from_secs(60);

/// How long an inspect may take; the agent waits no longer either.
const INSPECT: Duration = Duration::from_secs(1);

/// Events that wait to be explained. An engine waits for whoever does not read, so what does not fit is dropped, and said.
const WAITING: usize = 4096;

/// How long the stream of events is to last: for as long as anybody looks.
const LASTING_NS: i64 = 365 * 24 * 3600 * 1_000_000_000;

/// Explains events until their end, or until a signal.
///
/// # Errors
/// The system refused a thread, a signal handler or the standard output, or the engine does not answer.
pub fn run(config: &Config, explained: &Explained) -> io::Result<ExitCode> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    threads::spawn("signals", move || {
        if signals.forever().next().is_some() {
            std::process::exit(0);
        }
    })?;
    let entries = config.handlers.as_ref().map(|handlers| &*handlers.entries);
    let masker = Arc::new(Masker::new(&config.redact).map_err(io::Error::other)?);
    let teller = Teller {
        rules: Rules::new(entries.unwrap_or_default()),
        masker: masker.clone(),
        engine: &explained.engine.name,
        clock: Clock::of_process(),
        known: Known::default(),
        revision: 0,
    };
    let ended = match explained.live {
        true => follow(&explained.engine, &masker, teller),
        false => wait_for_lines().and_then(|()| read(io::stdin().lock(), teller)),
    };
    match ended {
        // Whoever read our words has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

/// Says what is missing where somebody only waits for us.
fn wait_for_lines() -> io::Result<()> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    complain(
        "reading events from the standard input, a line each as `docker events --format '{{json .}}'` prints them; \
         with `--engine NAME` those of an engine are followed instead",
    )
}

/// Explains what stands in lines of JSON.
fn read(mut input: impl BufRead, mut teller: Teller) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        if (&mut input).take(LINE_CAP).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        match wire::event(&line) {
            Ok(None) => {}
            Ok(Some(event)) => say(&teller.tell(&event, &mut |_| Looked::Nobody))?,
            Err(error) => complain(&format!("line {number}: {error}"))?,
        }
    }
    Ok(())
}

/// What the thread that follows an engine says.
enum News {
    Event(Event),
    Line(String),
    Lost,
    End(String),
}

/// Explains what happens on an engine.
fn follow(engine: &Engine, masker: &Masker, mut teller: Teller) -> io::Result<()> {
    let mut connection = Connection::new(&engine.address);
    let failed = |error: crate::docker::client::DockerError| io::Error::other(error.text);
    let hello = connection.hello(GREET).map_err(failed)?;
    let mut client = Client::new(&engine.address);
    let (sender, news) = bounded(WAITING);
    let api_version = hello.api_version.clone();
    threads::spawn("events", move || {
        let end = listen(connection, &hello, &sender);
        // It is the last word: there is time to wait for room.
        let _ = sender.send(News::End(end));
    })?;
    let mut look = |id: &ContainerId| match client.inspect(&api_version, id, INSPECT) {
        Ok(None) => Looked::Gone,
        Ok(Some(bytes)) => match document(&bytes, masker) {
            Ok(document) => Looked::Found(Box::new(document.summary)),
            Err(_) => Looked::Nobody,
        },
        Err(_) => Looked::Nobody,
    };
    complain(&format!(
        "following the events of {} ({}) until Ctrl-C",
        engine.name, engine.url
    ))?;
    for news in news {
        match news {
            News::Event(event) => say(&teller.tell(&event, &mut look))?,
            News::Line(text) => complain(&text)?,
            News::Lost => complain("too much happens at once: some events are left out")?,
            News::End(text) => return Err(io::Error::other(text)),
        }
    }
    Ok(())
}

/// Reads the engine's events as fast as they come, until their end: why it was.
fn listen(connection: Connection, hello: &Hello, sender: &Sender<News>) -> String {
    let from_ns = hello.clock_ns;
    let until_ns = from_ns.saturating_add(LASTING_NS);
    let mut events = match connection.events(&hello.api_version, from_ns, until_ns) {
        Ok(events) => events,
        Err(error) => return error.text,
    };
    let mut full = false;
    loop {
        let news = match events.next(Instant::now() + LOOK) {
            Ok(Some(event)) => News::Event(event),
            Ok(None) => return "the engine has ended the stream of its events".to_owned(),
            Err(error) if error.kind == DockerErrorKind::Timeout => continue,
            Err(error) if error.kind == DockerErrorKind::BadLine => News::Line(error.text),
            Err(error) => return error.text,
        };
        // The last place is kept for the word that some were lost.
        let room = WAITING - sender.len();
        if room > 1 {
            full = false;
            let _ = sender.try_send(news);
        } else if !full {
            full = true;
            let _ = sender.try_send(News::Lost);
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn complain(text: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{}", logging::escape(text))
}

/// What came of a look at a container.
enum Looked {
    /// It is so.
    Found(Box<Summary>),
    /// There is no such container any more.
    Gone,
    /// Nobody could be asked.
    Nobody,
}

/// Puts verdicts into words, and remembers what events said.
struct Teller<'a> {
    rules: Rules,
    /// Hides secrets among the labels.
    masker: Arc<Masker>,
    engine: &'a str,
    clock: Clock,
    known: Known,
    revision: u64,
}

impl Teller<'_> {
    /// What each entry says of an event, in lines.
    fn tell(&mut self, event: &Event, look: &mut dyn FnMut(&ContainerId) -> Looked) -> String {
        let id = event.container().filter(|id| !id.is_empty());
        let id = id.filter(|_| !event.is_noise()).map(ContainerId::from);
        let mut looked = Looked::Nobody;
        let mut revision = 0;
        if let Some(id) = &id {
            self.revision += 1;
            revision = self.revision;
            if &*event.kind == "container" {
                self.known.heard(id, event, revision, None);
            }
            looked = look(id);
            if let Looked::Found(summary) = &looked {
                self.known.seen(id, revision, summary);
            }
        }
        let facts = match &looked {
            Looked::Found(summary) => Some(&**summary),
            Looked::Gone | Looked::Nobody => None,
        };
        let mut subject = Subject::new(event, self.engine, &self.known, facts, revision);
        if !matches!(looked, Looked::Nobody) {
            subject.settle();
        }
        let mut text = logging::escape(&self.head(&subject)) + "\n";
        let places = 0..self.rules.len();
        let width = places.clone().map(|place| self.name(place).chars().count());
        let width = width.max().unwrap_or(0);
        for place in places {
            let verdict = self.rules.verdict(place, &subject);
            let shown = |name: &str, value: &str| self.masker.shown(name, value);
            let said = verdict.say(self.rules.entry(place), &subject, &shown);
            let line = format!("  {:width$}  {said}", self.name(place));
            text += &(logging::escape(&line) + "\n");
        }
        text
    }

    fn name(&self, place: usize) -> &str {
        &self.rules.entry(place).name
    }

    /// `die of web-1 (ubuntu:22.04) on foo, 12:01:02, exit code 137, stop`
    fn head(&self, subject: &Subject) -> String {
        let event = subject.event;
        let what = match &*event.kind {
            "container" => event.action.to_string(),
            _ => event.word(),
        };
        let name = subject.container.known();
        let name = name.or_else(|| {
            event
                .attribute("name")
                .filter(|_| event.container().is_none())
        });
        let of = name.or(event.container()).unwrap_or(&event.id);
        let image = subject.image.known().filter(|_| &*event.kind != "image");
        let image = image.map_or(String::new(), |image| format!(" ({image})"));
        let time = self.clock.time_of_day(event.time_ns);
        let mut head = format!(
            "{what} of {}{image} on {}, {time}",
            short(of),
            subject.engine
        );
        // Writing to a String cannot fail.
        if let Fact::Is(code) = subject.exit_code {
            let _ = write!(head, ", exit code {code}");
        }
        if let Fact::Is(cause) = subject.cause() {
            let _ = write!(head, ", {}", rules::word(cause));
        }
        head
    }
}

/// An id as `docker ps` shows it; a name as it is.
fn short(text: &str) -> &str {
    let id = text.strip_prefix("sha256:").unwrap_or(text);
    match id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => &id[..12],
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cause, Entry, Filter, Labels, Patterns};

    fn teller() -> Teller<'static> {
        let masker = Masker::new(&["*PASSWORD*".to_owned()]).unwrap();
        let entry = |name: &str, filter: Filter| {
            Arc::new(Entry {
                name: name.into(),
                filter,
                command: Some("true".into()),
                ..Entry::default()
            })
        };
        let types = |word: &str| Patterns::from([word]);
        Teller {
            rules: Rules::new(&[
                entry(
                    "alarm",
                    Filter {
                        types: types("die"),
                        causes: vec![Cause::Crash],
                        ..Filter::default()
                    },
                ),
                entry(
                    "backend",
                    Filter {
                        types: types("network/connect"),
                        labels: Labels {
                            labels: vec![("tier".to_owned(), None)],
                            all: true,
                        },
                        ..Filter::default()
                    },
                ),
            ]),
            masker: Arc::new(masker),
            engine: "foo",
            clock: Clock::utc(),
            known: Known::default(),
            revision: 0,
        }
    }

    fn told(teller: &mut Teller, line: &str, looked: impl Fn() -> Looked) -> String {
        let event = wire::event(line.as_bytes()).unwrap().unwrap();
        teller.tell(&event, &mut |_| looked())
    }

    fn line(action: &str, attributes: &str) -> String {
        format!(
            r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"c1","Attributes":{{"name":"web\u001b-1","image":"i"{attributes}}}}},"timeNano":1795352582893254447}}"#
        )
    }

    const CONNECT: &str = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","name":"bridge"}},"timeNano":1795352582893254447}"#;

    #[test]
    fn what_was_heard_before_is_remembered_and_nothing_steers_a_terminal() {
        let nobody = || Looked::Nobody;
        let mut teller = teller();
        let die = line("die", r#","exitCode":"143""#);
        assert_eq!(
            told(&mut teller, &die, nobody),
            "die of web\\u{1b}-1 (i) on foo, 13:03:02, exit code 143, crash\n  \
             alarm    would run\n  \
             backend  no: type asks for `network/connect`, it is `die`\n"
        );
        told(&mut teller, &line("start", ""), nobody);
        told(&mut teller, &line("kill", r#","signal":"15""#), nobody);
        let again = told(&mut teller, &die, nobody);
        assert!(
            again.contains(
                "exit code 143, stop\n  alarm    no: cause asks for `crash`, it is `stop`\n"
            ),
            "{again}"
        );
    }

    #[test]
    fn what_a_line_does_not_tell_is_a_perhaps_unless_an_engine_can_be_asked() {
        let perhaps = told(&mut teller(), CONNECT, || Looked::Nobody);
        assert_eq!(
            perhaps,
            "network/connect of 0123456789ab on foo, 13:03:02\n  \
             alarm    no: type asks for `die`, it is `network/connect`\n  \
             backend  perhaps: labels asks for `tier`, which only an inspect tells\n"
        );
        let gone = told(&mut teller(), CONNECT, || Looked::Gone);
        assert!(
            gone.ends_with("no: labels asks for `tier`, it has no `tier`\n"),
            "{gone}"
        );
        let found = told(&mut teller(), CONNECT, || {
            Looked::Found(Box::new(Summary {
                name: "web".into(),
                image: "i".into(),
                labels: Some(Arc::new([("tier".into(), "x".into())])),
                ..Summary::default()
            }))
        });
        assert!(
            found.starts_with("network/connect of web (i) on foo, "),
            "{found}"
        );
        assert!(found.ends_with("backend  would run\n"), "{found}");
    }
}
