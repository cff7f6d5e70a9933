//! Golden cases: `fixtures/core/*.case`, one situation a file; its name is the sentence that it proves.
//!
//! A case is what happens, line by line, and under each line, indented, what the core makes of it: `+2s` before a line of the answer says how much
//! later it came. Whatever the core asks is answered at once, unless the case holds it back. `BLESS=1` writes the answers anew; read the diff.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::docker::{T0, Told};
use super::store::Fate;
use super::words::words;
use super::world::{World, settings};
use crate::core::{Input, Settings, StoreRequest, StreamEnd, Time};
use crate::model::{
    Cause, Debounce, EngineIndex, Entry, ExitCodes, Filter, Labels, OnBusy, Order, Patterns,
    Queueing,
};

/// Something of an engine, or the store, that is not let through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Hold {
    Streams,
    Events,
    Lists,
    Inspects,
    Store,
}

struct Case {
    world: World,
    held: BTreeSet<Hold>,
    /// What becomes of the next transaction.
    fate: Fate,
    /// Containers whose inspects hang.
    stuck: BTreeSet<String>,
}

#[test]
fn every_case_holds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/core");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("failed to read {}: {error}", directory.display()))
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "case"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no case in {}", directory.display());
    let mut failed = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a case can be read");
        let played = match std::panic::catch_unwind(|| play(&text)) {
            Ok(played) => played,
            Err(_) => {
                failed.push(format!("{}: see above", path.display()));
                continue;
            }
        };
        if played == text {
            continue;
        }
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, played).expect("a case can be written");
        } else {
            failed.push(format!(
                "{}\n{}",
                path.display(),
                difference(&text, &played)
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} cases do not hold; BLESS=1 writes them anew\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// The first lines that differ.
fn difference(wanted: &str, found: &str) -> String {
    let same = wanted
        .lines()
        .zip(found.lines())
        .take_while(|(wanted, found)| wanted == found)
        .count();
    let rest = |text: &str, mark: &str| {
        let lines = text.lines().skip(same).take(4);
        lines.fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{mark} {line}");
            text
        })
    };
    format!(
        "line {}:\n{}{}",
        same + 1,
        rest(wanted, "-"),
        rest(found, "+")
    )
}

/// The case with the answers as they are.
fn play(text: &str) -> String {
    let mut played = String::new();
    let mut case: Option<Case> = None;
    let mut header = settings(&["a"]);
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        played.push_str(line);
        played.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<&str> = line.split_whitespace().collect();
        if case.is_none() && configure(&mut header, &parts) {
            continue;
        }
        let case = case.get_or_insert_with(|| Case::new(header.clone()));
        let start = case.world.now;
        case.command(line, &parts);
        // Nobody notices these.
        if !matches!(
            parts[0],
            "there" | "hold" | "store" | "stick" | "unheard" | "edit"
        ) {
            case.flow();
        }
        for (at, effect) in std::mem::take(&mut case.world.effects) {
            for text in words(&effect) {
                let late = at.saturating_sub(start);
                match late {
                    Time::ZERO => writeln!(played, "  {text}"),
                    late => writeln!(played, "  +{late:?} {text}"),
                }
                .expect("a string takes everything");
            }
        }
    }
    played
}

/// `name=value` among the words.
fn value<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words
        .iter()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// `name:value,other:value`
fn pairs(text: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let pairs = text.into_iter().flat_map(|text| text.split(','));
    let pairs = pairs.filter_map(|pair| pair.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn time(text: &str) -> Time {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .unwrap_or_else(|_| panic!("`{text}` is no time"));
    match &text[digits.len()..] {
        "ms" => Time::from_millis(number as u64),
        "s" => Time::from_secs_f64(number),
        "m" => Time::from_secs_f64(number * 60.0),
        "h" => Time::from_secs_f64(number * 3600.0),
        _ => panic!("`{text}` is no time"),
    }
}

/// What the words of an entry say of its queue.
fn queueing(words: &[&str]) -> Queueing {
    let usual = Queueing::default();
    let number = |name| value(words, name).map(|text| text.parse().expect("a number"));
    let span = |name| value(words, name).map(time);
    Queueing {
        concurrency: number("concurrency").map_or(usual.concurrency, |n: u32| n as usize),
        order: match value(words, "order") {
            None | Some("container") => Order::Container,
            Some("none") => Order::None,
            Some(other) => panic!("`{other}` is no order"),
        },
        on_busy: match value(words, "on_busy") {
            None | Some("queue") => OnBusy::Queue,
            Some("skip") => OnBusy::Skip,
            Some("replace") => OnBusy::Replace,
            Some(other) => panic!("nobody does `{other}`"),
        },
        debounce: span("debounce").map(|quiet| Debounce {
            quiet,
            max: span("debounce_max").unwrap_or(quiet * 10),
        }),
        cooldown: span("cooldown").unwrap_or(usual.cooldown),
        retries: number("retries").unwrap_or(usual.retries),
        backoff: span("backoff").unwrap_or(usual.backoff),
    }
}

/// Lines before the first command; `false` for one that is a command.
fn configure(settings: &mut Settings, words: &[&str]) -> bool {
    match words[0] {
        "engines" => settings.engines = super::world::settings(&words[1..]).engines,
        "interval" => settings.interval = time(words[1]),
        "no-cache" => settings.cache = None,
        "all" | "filtered" | "selfcheck" | "forget-after" => {
            let cache = settings.cache.as_mut().expect("there is a cache");
            match words[0] {
                "all" => cache.all = true,
                "filtered" => cache.filtered = true,
                "selfcheck" => cache.selfcheck = true,
                _ => cache.forget_after = time(words[1]),
            }
        }
        "entry" => {
            let patterns = |text: &str| Patterns {
                any: match text {
                    "-" => Vec::new(),
                    text => text.split(',').map(str::to_owned).collect(),
                },
                none: Vec::new(),
            };
            let given = |name| value(words, name).map_or_else(Patterns::default, patterns);
            let filter = Filter {
                types: patterns(words[2]),
                engines: given("engine"),
                containers: given("container"),
                labels: Labels {
                    labels: pairs(value(words, "labels"))
                        .map(|(name, value)| (name, Some(value)))
                        .collect(),
                    all: true,
                },
                exit_codes: ExitCodes {
                    any: value(words, "exit")
                        .map(|code| code.parse().expect("a number"))
                        .map(|code| (code, code))
                        .into_iter()
                        .collect(),
                    none: Vec::new(),
                },
                causes: match value(words, "cause") {
                    None => Vec::new(),
                    Some("crash") => vec![Cause::Crash],
                    Some("stop") => vec![Cause::Stop],
                    Some(_) => vec![Cause::Oom],
                },
                ..Filter::default()
            };
            let entry = Entry {
                name: words[1].into(),
                filter,
                command: Some("true".into()).filter(|_| !words.contains(&"no-command")),
                log: value(words, "log").map(Into::into),
                lasting: value(words, "for").map_or(Time::ZERO, time),
                existing: words.contains(&"existing"),
                once: words.contains(&"once"),
                queueing: queueing(words),
                ..Entry::default()
            };
            settings.entries.get_or_insert_default().push(entry.into());
        }
        _ => return false,
    }
    true
}

impl Case {
    fn new(settings: Settings) -> Self {
        let mut world = World::new(settings);
        world.keep = true;
        Case {
            world,
            held: BTreeSet::new(),
            fate: Fate::Served,
            stuck: BTreeSet::new(),
        }
    }

    /// Lets through whatever is not held back, until there is nothing left.
    fn flow(&mut self) {
        self.world.settle();
        for _ in 0..10_000 {
            if !self.once() {
                return;
            }
            self.world.settle();
        }
        panic!("there is no end to it");
    }

    fn once(&mut self) -> bool {
        let free = |hold: Hold| !self.held.contains(&hold);
        if self.world.haunt() {
            return true;
        }
        let (streams, events, store) = (free(Hold::Streams), free(Hold::Events), free(Hold::Store));
        if store && self.world.request.is_some() {
            let fate = match self.world.request {
                Some(StoreRequest::Apply(_)) => std::mem::replace(&mut self.fate, Fate::Served),
                _ => Fate::Served,
            };
            return self.world.serve(fate);
        }
        for at in 0..self.world.dockers.len() {
            if (streams && self.world.open_stream(at)) || (events && self.world.hear(at)) {
                return true;
            }
            if self.compute(at) {
                return true;
            }
            let hold = match self.world.next_is_list(at) {
                true => Hold::Lists,
                false => Hold::Inspects,
            };
            if !self.held.contains(&hold) && self.world.answer(at) {
                return true;
            }
            let thawed = |id: &str| !self.stuck.contains(id);
            let hung = self.world.threads[at].hung.iter();
            let which = hung
                .map(|hung| thawed(hung.id.as_str()))
                .position(|free| free);
            if let Some(which) = which {
                return self.world.unhang(at, which);
            }
        }
        false
    }

    /// Answers are made when they are asked for, and hold what was so then, however long they are held back.
    fn compute(&mut self, at: usize) -> bool {
        match self.world.next_inspect(at) {
            Some(id) if self.stuck.contains(id.as_str()) => self.world.hang(at),
            _ => self.world.compute(at),
        }
    }

    fn wait(&mut self, time: Time) {
        let target = self.world.now + time;
        self.flow();
        let mut spins = 0;
        while let Some(at) = self.world.deadline()
            && at <= target
        {
            spins = if at > self.world.now { 0 } else { spins + 1 };
            assert!(spins < 100, "the core spins");
            self.world.now = self.world.now.max(at);
            self.flow();
        }
        self.world.now = target;
    }

    fn command(&mut self, line: &str, words: &[&str]) {
        match words[0] {
            "wait" => self.wait(time(words[1])),
            "hold" | "let" => {
                let hold = match words[1] {
                    "streams" => Hold::Streams,
                    "events" => Hold::Events,
                    "lists" => Hold::Lists,
                    "inspects" => Hold::Inspects,
                    "store" => Hold::Store,
                    other => panic!("`{other}` cannot be held back"),
                };
                if words[0] == "hold" {
                    self.held.insert(hold);
                } else {
                    self.held.remove(&hold);
                }
            }
            // One answer, while the others are held back.
            "inspected" => {
                let at = self.index(words[1]);
                self.world.compute(at);
                assert!(self.world.answer(at), "it was asked nothing");
            }
            "stop" => self.world.step(Input::Stop),
            "edit" => self.edit(&words[1..]),
            "reload" => self.world.reload(),
            "report" => self.world.step(Input::Report),
            "end" | "fail" => {
                let id = words[1].parse().expect("a job's number");
                let code = i32::from(words[0] == "fail");
                assert!(self.world.end_run(id, code), "no job {id} runs");
            }
            "new-process" => self.world.new_process(),
            "store" => self.store(words),
            "engine" => self.engine(line, words),
            "dropped" | "unheard" => {
                let told = match words[0] {
                    "dropped" => Told::Dropped,
                    _ => Told::Never,
                };
                self.container(&words[1..], told);
            }
            _ => self.container(words, Told::Yes),
        }
    }

    /// `engine a cut`, and what else can become of an engine.
    fn engine(&mut self, line: &str, words: &[&str]) {
        let at = self.index(words[1]);
        let engine = EngineIndex(at as u32);
        let docker = &mut self.world.dockers[at];
        let end = match words[2] {
            "cut" => StreamEnd::Failed("connection reset by peer".into()),
            "close" | "dies" => StreamEnd::Closed,
            "silent" => StreamEnd::Silent,
            "hangs" => {
                assert!(self.world.hang(at), "it was asked nothing");
                return;
            }
            "answers-no-ping" => return self.world.answers_no_ping(at),
            "renew" => {
                assert!(self.world.renew(at), "no stream is open");
                return;
            }
            "back" => {
                docker.alive = true;
                return;
            }
            "back-without-ring" => {
                docker.alive = true;
                docker.ring.clear();
                return;
            }
            "is" => {
                *docker = super::docker::Docker::new(words[3]);
                return;
            }
            "clock" => {
                let back = words[3].strip_prefix('-');
                let step = time(back.unwrap_or(words[3])).as_nanos() as i64;
                docker.skew_ns += if back.is_some() { -step } else { step };
                return;
            }
            "overrun" => return self.world.step(Input::Overrun { engine }),
            _ => panic!("`{line}` makes no sense"),
        };
        if words[2] == "dies" {
            docker.alive = false;
            if docker.stream.is_none() {
                return;
            }
        }
        assert!(self.world.end_stream(at, end), "no stream is open");
    }

    /// `start a/web`, and what else can become of a container.
    fn container(&mut self, words: &[&str], told: Told) {
        let now = self.world.now;
        let (engine, id) = words[1]
            .split_once('/')
            .unwrap_or_else(|| panic!("{words:?}?"));
        let at = self.index(engine);
        if words[0] == "stick" {
            self.stuck.insert(id.to_owned());
            return;
        }
        if words[0] == "unstick" {
            self.stuck.remove(id);
            return;
        }
        if words[0] == "answer" {
            // The engine makes the answer now; it arrives when the inspect no longer hangs.
            let mut hung = self.world.threads[at].hung.iter();
            let which = hung.position(|hung| hung.id.as_str() == id);
            self.world.unhang(at, which.expect("its inspect hangs"));
            return;
        }
        let docker = &mut self.world.dockers[at];
        let name = value(words, "name").unwrap_or(id);
        let image = value(words, "image").unwrap_or("img");
        match words[0] {
            "create" | "run" | "there" => {
                let told = if words[0] == "there" {
                    Told::Never
                } else {
                    told
                };
                let labels = pairs(value(words, "labels")).collect();
                docker.create_with(now, id, name, image, labels, told);
                if let Some(container) = docker.containers.get_mut(id) {
                    container.member = !words.contains(&"filtered-out");
                    container.size = value(words, "size").map_or(0, |n| n.parse().expect("bytes"));
                }
                if words[0] != "create" && !words.contains(&"stopped") {
                    docker.start(now, id, told);
                }
            }
            "start" => docker.start(now, id, told),
            "die" => {
                let code = value(words, "code").map_or(1, |code| code.parse().expect("a number"));
                docker.die(now, id, code, told);
            }
            "kill" | "oom" => docker.emit(now, "container", words[0], id, told),
            "restart" => {
                docker.die(now, id, 0, told);
                docker.start(now, id, told);
            }
            "rename" => docker.rename(now, id, name, told),
            "destroy" => docker.destroy(now, id, told),
            "remove" => {
                docker.die(now, id, 0, told);
                docker.destroy(now, id, told);
            }
            "image" => {
                let container = docker.containers.get_mut(id).expect("it is there");
                image.clone_into(&mut container.image);
                docker.emit(now, "container", "update", id, told);
            }
            "exec" => docker.emit(now, "container", "exec_start", id, told),
            "connect" => docker.emit(now, "network", "connect", id, told),
            "pause" | "unpause" | "update" => docker.change(now, id, words[0], told),
            other => panic!("`{other}` makes no sense"),
        }
    }

    /// The file says something else, which is noticed when it is read again: `edit engines a c`, `edit entry …` (a new one, or in place of the one of
    /// that name), `edit without greet`.
    fn edit(&mut self, words: &[&str]) {
        let settings = &mut self.world.settings;
        let entries = settings.entries.get_or_insert_default();
        match words {
            ["without", name] => entries.retain(|entry| *entry.name != **name),
            ["entry", name, ..] => {
                let place = entries.iter().position(|entry| *entry.name == **name);
                assert!(configure(settings, words), "{words:?} makes no sense");
                if let (Some(place), Some(entries)) = (place, &mut settings.entries) {
                    entries.swap_remove(place);
                }
            }
            _ => assert!(configure(settings, words), "{words:?} makes no sense"),
        }
    }

    /// `store down`, and what else can become of the store.
    fn store(&mut self, words: &[&str]) {
        let now = self.world.now;
        match words[1] {
            "down" => self.world.store.up = false,
            "up" => self.world.store.up = true,
            "flush" => self.world.store.flush(),
            "loses-the-reply-of-what-ran" => self.fate = Fate::LostAfter,
            "loses-what-did-not-run" => self.fate = Fate::LostBefore,
            "other" => {
                let at = self.index(words[2]);
                let until = now + time(words[3]);
                self.world.store.hosts[at].lease = Some(("other:1".into(), until));
            }
            "forgets" => {
                let (_, id) = words[2].split_once('/').expect("an engine and a container");
                self.world.store.keys.remove(id);
            }
            "misplaces" => {
                let (engine, id) = words[2].split_once('/').expect("an engine and a container");
                let at = self.index(engine);
                self.world.store.hosts[at].running.remove(id);
            }
            "invents" => {
                let (engine, id) = words[2].split_once('/').expect("an engine and a container");
                let at = self.index(engine);
                let host = &mut self.world.store.hosts[at];
                host.running.insert(id.to_owned());
                host.manifest.insert(id.to_owned(), "img".to_owned());
            }
            "rival" => match words[2] {
                "comes" => self.world.store.rival = true,
                "dies" => self.world.store.rival = false,
                "is-done" => self.world.store.rival_is_done(now),
                other => panic!("another agent cannot `{other}`"),
            },
            "is-right" => self.world.compare().unwrap_or_else(|text| panic!("{text}")),
            other => panic!("the store cannot `{other}`"),
        }
    }

    fn index(&self, name: &str) -> usize {
        let found = self.world.names.iter().position(|known| known == name);
        found.unwrap_or_else(|| panic!("there is no engine `{name}`"))
    }
}

/// A stamp as a time of the case: `1.5s`.
pub fn stamp(ns: i64) -> String {
    let time = |ns: i64| format!("{:?}", Time::from_millis(ns as u64 / 1_000_000));
    match ns - T0 {
        late if late >= 0 => time(late),
        early => format!("-{}", time(-early)),
    }
}
