//! How commands are queued and run: the fields that an entry and `defaults` have in common.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Mistake;
use super::machine::Thing;
use super::reader::{Reader, Section, expected_found};
use super::user::{self, user};
use super::yaml::{Node, Value};
use crate::model::{Debounce, OnBusy, Order, Queueing, Running, User};

/// The fields.
pub const HOW: &[&str] = &[
    "timeout",
    "grace",
    "concurrency",
    "on_busy",
    "order",
    "debounce",
    "debounce_max",
    "cooldown",
    "retries",
    "backoff",
    "shell",
    "dir",
    "env",
    "user",
];

/// The least time that is worth waiting for.
const MILLISECOND: Duration = Duration::from_millis(1);

/// Between two tries nobody waits longer than this.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);

/// More tries than this are a month of them.
const MAX_RETRIES: u64 = 1000;

/// Unless `debounce_max` is given, it is so many times `debounce`.
const DEBOUNCE_MAX: u32 = 10;

/// How variables begin that tell a command of its event.
const OURS: &[&str] = &["FROM_", "EVENT_", "ENGINE_", "LABEL_"];

/// What the fields say.
#[derive(Clone, Default)]
pub struct How {
    /// How commands are queued; without `debounce`, see [`How::queueing`].
    queueing: Queueing,
    /// How one is run.
    pub running: Running,
    debounce: Duration,
    debounce_max: Option<Duration>,
}

impl How {
    /// How commands are queued.
    pub fn queueing(&self) -> Queueing {
        let debounce = Debounce {
            quiet: self.debounce,
            max: self.debounce_max(),
        };
        Queueing {
            debounce: Some(debounce).filter(|debounce| !debounce.quiet.is_zero()),
            ..self.queueing.clone()
        }
    }

    fn debounce_max(&self) -> Duration {
        let ten_times = self.debounce.saturating_mul(DEBOUNCE_MAX);
        self.debounce_max.unwrap_or(ten_times)
    }
}

impl Reader<'_> {
    /// What holds for all entries that say nothing else.
    pub fn defaults(&mut self, node: &Node, label: &str) -> How {
        const EXPECTED: &str = "a map of the fields that say how commands run";
        // All of them may have been commented out.
        if node.value == Value::Nothing {
            return How::default();
        }
        match self.section(node, label, &[HOW], EXPECTED) {
            Some(section) => {
                let how = self.how(&section, &How::default());
                self.check_debounce(&section, &how);
                how
            }
            None => How::default(),
        }
    }

    /// How the commands of an entry are queued and run.
    pub fn how_of_entry(&mut self, entry: &Section, defaults: &How) -> How {
        let how = self.how(entry, defaults);
        self.check_debounce(entry, &how);
        if let Some((node, field)) = entry.get("debounce_max")
            && how.debounce.is_zero()
            && !entry.has("debounce")
        {
            let problem = "there is no `debounce` that it could bound";
            self.wrong(node, &field, Mistake::new(problem, "a `debounce` as well"));
        }
        if let Some((node, field)) = entry.get("backoff")
            && how.queueing.retries == 0
            && !entry.has("retries")
        {
            self.warn(
                node,
                &field,
                "without `retries` it has no effect".to_owned(),
            );
        }
        how
    }

    fn how(&mut self, section: &Section, base: &How) -> How {
        const ON_BUSY: &[(&str, OnBusy)] = &[
            ("queue", OnBusy::Queue),
            ("skip", OnBusy::Skip),
            ("replace", OnBusy::Replace),
        ];
        const ORDER: &[(&str, Order)] = &[("container", Order::Container), ("none", Order::None)];
        let mut how = base.clone();
        let queueing = &mut how.queueing;
        let number = self.number(section, "concurrency", 1, super::MAX_WORKERS);
        if let (Some((node, field)), Some(number)) = (section.get("concurrency"), number) {
            queueing.concurrency = number as usize;
            let place = self.place(node, &field);
            self.contents.concurrencies.push((number as usize, place));
        }
        set(
            &mut queueing.on_busy,
            self.choice(section, "on_busy", ON_BUSY),
        );
        set(&mut queueing.order, self.choice(section, "order", ORDER));
        let cooldown = self.duration(section, "cooldown", Duration::ZERO);
        set(&mut queueing.cooldown, cooldown);
        let number = self.number(section, "retries", 0, MAX_RETRIES);
        set(&mut queueing.retries, number.map(|number| number as u32));
        set(&mut queueing.backoff, self.backoff(section));
        set(
            &mut how.debounce,
            self.duration(section, "debounce", Duration::ZERO),
        );
        if let Some(max) = self.duration(section, "debounce_max", MILLISECOND) {
            how.debounce_max = Some(max);
        }
        let running = &mut how.running;
        set(
            &mut running.timeout,
            self.duration(section, "timeout", MILLISECOND),
        );
        set(
            &mut running.grace,
            self.duration(section, "grace", Duration::ZERO),
        );
        set(&mut running.shell, self.shell(section));
        if let Some(dir) = self.dir(section) {
            running.dir = Some(dir.into());
        }
        self.env(section, &mut running.env);
        if let Some(user) = self.user(section) {
            running.user = Some(user);
        }
        how
    }

    /// One of some words, as the value of a field.
    fn choice<T: Copy>(&mut self, section: &Section, name: &str, words: &[(&str, T)]) -> Option<T> {
        let (node, field) = section.get(name)?;
        let text = self.line(node, &field, "a word")?;
        self.one_word(node, &field, text, words)
    }

    /// Tells of a `debounce_max` below its `debounce`, at that of the two which stands here.
    fn check_debounce(&mut self, section: &Section, how: &How) {
        let (quiet, max) = (how.debounce, how.debounce_max());
        let here = section
            .get("debounce_max")
            .or_else(|| section.get("debounce"));
        if let Some((node, field)) = here
            && max < quiet
        {
            let problem = format!("`debounce_max` is {max:?}, `debounce` {quiet:?}");
            let expected = "a `debounce_max` that is not the shorter one";
            self.wrong(node, &field, Mistake::new(problem, expected));
        }
    }

    fn backoff(&mut self, section: &Section) -> Option<Duration> {
        let backoff = self.duration(section, "backoff", MILLISECOND)?;
        if backoff > MAX_BACKOFF
            && let Some((node, field)) = section.get("backoff")
        {
            let problem = "no wait between two tries is longer than an hour";
            self.wrong(node, &field, Mistake::new(problem, "an hour at most"));
        }
        Some(backoff)
    }

    /// The program and its arguments.
    fn shell(&mut self, section: &Section) -> Option<Arc<[String]>> {
        const EXPECTED: &str = "a program and its arguments, the command is the last one: `[bash, -euo, pipefail, -c]`";
        let (node, field) = section.get("shell")?;
        let words = match &node.value {
            Value::List(words) if !words.is_empty() => words,
            found => {
                self.wrong(node, &field, expected_found(EXPECTED, found));
                return None;
            }
        };
        let texts: Option<Vec<String>> = words
            .iter()
            .map(|word| self.text(word, &field, EXPECTED).map(str::to_owned))
            .collect();
        let shell = texts?;
        let program = &shell[0];
        let shown = super::cut(program);
        let is_path = program.contains('/');
        if is_path && !program.starts_with('/') {
            let problem = format!("`{shown}` is no absolute path");
            let expected = "the absolute path of a program, or its bare name";
            self.wrong(node, &field, Mistake::new(problem, expected));
            return None;
        }
        if !self.machine.has_program(program) {
            let place = if is_path { "" } else { " in the PATH" };
            self.warn(
                node,
                &field,
                format!("there is no program `{shown}`{place}"),
            );
        }
        Some(shell.into())
    }

    fn dir<'n>(&mut self, section: &Section<'n>) -> Option<&'n str> {
        const EXPECTED: &str = "the absolute path of a folder";
        let (node, field) = section.get("dir")?;
        let dir = self.text(node, &field, EXPECTED)?;
        let shown = super::cut(dir);
        if !dir.starts_with('/') {
            let problem = format!("`{shown}` is no absolute path");
            self.wrong(node, &field, Mistake::new(problem, EXPECTED));
            return None;
        }
        if (self.machine.look)(Path::new(dir)) != Some(Thing::Folder) {
            self.warn(node, &field, format!("there is no folder `{shown}`"));
        }
        Some(dir)
    }

    /// Adds variables; of one that is there already the value is replaced.
    fn env(&mut self, section: &Section, env: &mut Vec<(String, String)>) {
        const NAME: &str = "a name of letters, digits and `_` that begins with no digit";
        const VALUE: &str = "a text, numbers and truth values in quotes";
        let Some((node, field)) = section.get("env") else {
            return;
        };
        let pairs = match &node.value {
            Value::Map(pairs) => pairs,
            found => {
                let expected = "a map of variables to their values";
                return self.wrong(node, &field, expected_found(expected, found));
            }
        };
        let mut names: Vec<&str> = Vec::new();
        for (key, value) in pairs {
            let Some(name) = self.text(key, &field, NAME) else {
                continue;
            };
            let shown = super::cut(name);
            if !is_variable(name) {
                let problem = format!("`{shown}` is no name of a variable");
                self.wrong(key, &field, Mistake::new(problem, NAME));
                continue;
            }
            if let Some(prefix) = OURS.iter().find(|prefix| name.starts_with(**prefix)) {
                let problem = format!("what begins with `{prefix}` tells a command of its event");
                self.wrong(
                    key,
                    &format!("{field}.{shown}"),
                    Mistake::new(problem, "another name"),
                );
                continue;
            }
            if names.contains(&name) {
                let problem = format!("the variable `{shown}` stands here twice");
                self.wrong(key, &field, Mistake::new(problem, "each variable once"));
                continue;
            }
            names.push(name);
            let Some(value) = self.value(value, &format!("{field}.{shown}"), VALUE) else {
                continue;
            };
            match env.iter_mut().find(|(known, _)| known == name) {
                Some((_, before)) => *before = value.to_owned(),
                None => env.push((name.to_owned(), value.to_owned())),
            }
        }
    }

    fn user(&mut self, section: &Section) -> Option<User> {
        let (node, field) = section.get("user")?;
        let text = match &node.value {
            Value::Whole(number) => number.to_string(),
            _ => self.line(node, &field, user::EXPECTED)?.to_owned(),
        };
        let mistake = match (self.machine.files)(Path::new(user::FILE)) {
            Err(error) => Mistake::new(format!("failed to read {}: {error}", user::FILE), ""),
            Ok(passwd) => match user(&text, &String::from_utf8_lossy(&passwd)) {
                Err(mistake) => mistake,
                Ok(user) if self.machine.is_root => return Some(user),
                Ok(_) => Mistake::new(
                    "only root may run commands as somebody else",
                    "an agent that runs as root, or no `user`",
                ),
            },
        };
        self.wrong(node, &field, mistake);
        None
    }
}

/// Replaces what is there by what was given.
fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

/// Can the shell name this variable?
fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
