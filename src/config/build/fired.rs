//! What the verb `fire` runs, and for what.

use super::super::actions;
use super::super::nearest::nearest;
use super::{Builder, Given};
use crate::args::Verb;
use crate::config::{Config, Mistake, Origin, cut};
use crate::model::{EXISTING, Engine, Entry, Event};

/// What the verb `fire` runs, and for what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fired {
    /// The entry, by its place in the file.
    pub place: usize,
    /// The event, of which so far nothing but its kind and its action is known.
    pub event: Event,
    /// The container's name, or the beginning of its id; none for an event that is about no container.
    pub container: Option<String>,
    /// The engines that may have it, to be asked in this order; at least one.
    pub engines: Vec<Engine>,
}

impl Builder<'_> {
    /// What `fire` is to do.
    pub(super) fn fired(&mut self, config: Option<&Config>) -> Option<Fired> {
        let options = &self.typed.options;
        if self.typed.verb != Verb::Fire {
            for (name, typed) in [
                ("entry", &options.entry),
                ("container", &options.container),
                ("type", &options.kind),
            ] {
                if typed.is_some() {
                    let mistake = Mistake::new("it is for the verb `fire`", "");
                    self.wrong(Origin::Option(name), mistake);
                }
            }
            return None;
        }
        let entry = self.given("entry", &options.entry);
        let container = self.given("container", &options.container);
        let word = self.given("type", &options.kind);
        let engine = self.given("engine", &options.engine);
        let word = word.map(|given| self.parsed(&given, known_word));
        let config = config?;
        let engines = match engine {
            Some(named) => vec![self.engine_named(&config.engines, &named, "")?],
            None => config.engines.clone(),
        };
        let entries = config.handlers.as_ref().map(|handlers| &*handlers.entries);
        let entries: Vec<&Entry> = entries
            .into_iter()
            .flatten()
            .map(|entry| &**entry)
            .collect();
        let place = self.place(&entries, entry)?;
        let event = event(&word.unwrap_or_else(|| Some(usual_word(entries[place])))?);
        let container = self.container(&event, container)?;
        Some(Fired {
            place,
            event,
            container,
            engines,
        })
    }

    /// The place of the entry that is named.
    fn place(&mut self, entries: &[&Entry], given: Option<Given>) -> Option<usize> {
        let names = || entries.iter().map(|entry| &*entry.name);
        let Some(given) = given else {
            let expected = format!("one of {}", names().collect::<Vec<_>>().join(", "));
            let mistake = Mistake::new("`fire` needs to know what to run", expected);
            self.wrong(Origin::Option("entry"), mistake);
            return None;
        };
        let number = given
            .text
            .strip_prefix('#')
            .and_then(|text| text.parse().ok());
        let numbered = number.and_then(|number: usize| number.checked_sub(1));
        let found = names()
            .position(|name| name == given.text)
            .or(numbered.filter(|place| *place < entries.len()));
        if found.is_none() {
            let problem = format!("no entry is named `{}`", cut(&given.text));
            let expected = format!("one of {}", names().collect::<Vec<_>>().join(", "));
            // One number is as near as another.
            let named = names().filter(|name| !name.starts_with('#'));
            let mistake = Mistake::new(problem, expected).near(nearest(&given.text, named));
            self.wrong(given.origin, mistake);
        }
        found
    }

    /// The container, where the event is about one. The outer `None` is a mistake.
    fn container(&mut self, event: &Event, given: Option<Given>) -> Option<Option<String>> {
        let has_one = match &*event.kind {
            "container" => true,
            "network" => matches!(&*event.action, "connect" | "disconnect"),
            _ => false,
        };
        let (origin, mistake) = match given {
            None if !has_one => return Some(None),
            Some(given) if !has_one => {
                let problem = format!("an event `{}` is about no container", event.word());
                (given.origin, Mistake::new(problem, ""))
            }
            Some(given) => {
                let name = given.text.trim_start_matches('/').to_owned();
                if is_container(&name) {
                    return Some(Some(name));
                }
                let problem = format!("`{}` is no container's name", cut(&name));
                (
                    given.origin,
                    Mistake::new(problem, "a container's name or id"),
                )
            }
            None => {
                let problem = format!("an event `{}` is about a container", event.word());
                let mistake = Mistake::new(problem, "a container's name or id");
                (Origin::Option("container"), mistake)
            }
        };
        self.wrong(origin, mistake);
        None
    }
}

/// Can a container be called so? It becomes a part of a path that the engine is asked for.
fn is_container(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_fit)
}

/// A word that `type` knows, or that EVENT_TYPE may be.
fn known_word(text: &str) -> Result<String, Mistake> {
    let word = text.to_lowercase();
    match actions::unknown(&word) {
        Some(_) if word == EXISTING => Ok(word),
        None => Ok(word),
        Some(meant) => {
            let problem = format!("no engine sends an event `{}`", cut(text));
            let expected = "`die`, `health_status: unhealthy`, `network/connect` and the like";
            Err(Mistake::new(problem, expected).near(meant))
        }
    }
}

/// The first word that the entry asks for in plain words.
fn usual_word(entry: &Entry) -> String {
    let types = &entry.filter.types;
    let is_plain = |word: &&String| !word.contains(['*', '?', '[', '{', '\\']);
    match types.any.iter().find(is_plain) {
        Some(word) => word.clone(),
        None if types.any.is_empty() && entry.existing => EXISTING.to_owned(),
        None => "start".to_owned(),
    }
}

/// What `die`, `health_status: unhealthy` and `network/connect` stand for.
fn event(word: &str) -> Event {
    let (kind, action) = word.split_once('/').unwrap_or(("container", word));
    Event {
        kind: kind.into(),
        action: action.into(),
        ..Event::default()
    }
}
