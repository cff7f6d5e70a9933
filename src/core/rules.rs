//! Which entries of `events.yml` an event triggers, and what it is called there.

use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use crate::model::{Entry, Event, Filter};

/// The entries, ready to be asked.
#[derive(Debug)]
pub struct Rules {
    entries: Vec<(Arc<Entry>, Matcher)>,
}

#[derive(Debug)]
struct Matcher {
    types: Vec<GlobMatcher>,
    engine: Option<GlobMatcher>,
    container: Option<GlobMatcher>,
    image_contains: Option<String>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The event.
    pub event: &'a Event,
    /// The engine's name.
    pub engine: &'a str,
    /// The container's name, without a slash; empty when there is none.
    pub container: &'a str,
    /// The image's reference; empty when there is none.
    pub image: &'a str,
}

/// The answer.
#[derive(Debug, Default)]
pub struct Matches {
    /// The entries that the event triggers, by their place in the file.
    pub entries: Vec<usize>,
    /// At least one entry has a `type` for it, whatever its other filters say.
    pub caught: bool,
}

impl Rules {
    /// Compiles the entries; their patterns were checked when the file was read, and one that is no glob is compared as it stands.
    pub fn new(entries: &[Arc<Entry>]) -> Self {
        Rules {
            entries: entries
                .iter()
                .map(|entry| (entry.clone(), Matcher::new(&entry.filter)))
                .collect(),
        }
    }

    /// The entry at a place.
    pub fn entry(&self, place: usize) -> &Arc<Entry> {
        &self.entries[place].0
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Asks every entry; one that does not match never stops the next.
    pub fn matches(&self, subject: Subject) -> Matches {
        let word = subject.event.word().to_lowercase();
        // `health_status: unhealthy` can be named with what stands behind the colon, too.
        let full = match &*subject.event.kind {
            "container" => subject.event.action.to_lowercase(),
            kind => format!("{kind}/{}", subject.event.action).to_lowercase(),
        };
        let engine = subject.engine.to_lowercase();
        let container = subject.container.trim_start_matches('/').to_lowercase();
        let mut answer = Matches::default();
        for (place, (_, matcher)) in self.entries.iter().enumerate() {
            if !matcher
                .types
                .iter()
                .any(|glob| glob.is_match(&word) || glob.is_match(&full))
            {
                continue;
            }
            answer.caught = true;
            let fits = matcher
                .engine
                .as_ref()
                .is_none_or(|glob| glob.is_match(&engine))
                && matcher
                    .container
                    .as_ref()
                    .is_none_or(|glob| !container.is_empty() && glob.is_match(&container))
                && matcher
                    .image_contains
                    .as_ref()
                    .is_none_or(|part| subject.image.contains(part.as_str()));
            if fits {
                answer.entries.push(place);
            }
        }
        answer
    }
}

impl Matcher {
    fn new(filter: &Filter) -> Self {
        Matcher {
            types: filter.types.iter().map(|text| glob(text)).collect(),
            engine: filter.engine.as_deref().map(glob),
            container: filter
                .container
                .as_deref()
                .map(|text| glob(text.trim_start_matches('/'))),
            image_contains: filter.image_contains.clone(),
        }
    }
}

fn glob(text: &str) -> GlobMatcher {
    let text = text.to_lowercase();
    let escaped = || Glob::new(&globset::escape(&text));
    match Glob::new(&text).or_else(|_| escaped()) {
        Ok(glob) => glob.compile_matcher(),
        Err(error) => unreachable!("an escaped text is a glob: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entry(filter: Filter) -> Arc<Entry> {
        Arc::new(Entry {
            name: "e".into(),
            filter,
            command: Some("true".into()),
            log: None,
            timeout: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            concurrency: 8,
        })
    }

    fn types(words: &[&str]) -> Filter {
        Filter {
            types: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Filter::default()
        }
    }

    fn event(kind: &str, action: &str) -> Event {
        Event {
            kind: kind.into(),
            action: action.into(),
            id: "c1".into(),
            ..Event::default()
        }
    }

    fn ask(rules: &Rules, event: &Event, container: &str) -> (Vec<usize>, bool) {
        let matches = rules.matches(Subject {
            event,
            engine: "Foo",
            container,
            image: "library/ubuntu:22.04",
        });
        (matches.entries, matches.caught)
    }

    #[test]
    fn every_matching_entry_runs_and_one_that_does_not_match_stops_nothing() {
        let rules = Rules::new(&[
            entry(types(&["die"])),
            entry(Filter {
                container: Some("/db-*".into()),
                ..types(&["die"])
            }),
            entry(Filter {
                engine: Some("FOO".into()),
                image_contains: Some("ubuntu".into()),
                ..types(&["kill", "die"])
            }),
        ]);
        assert_eq!(
            ask(&rules, &event("container", "die"), "/Web-1"),
            (vec![0, 2], true)
        );
        assert_eq!(
            ask(&rules, &event("container", "die"), "DB-1"),
            (vec![0, 1, 2], true)
        );
        assert_eq!(
            ask(&rules, &event("container", "start"), "db-1"),
            (vec![], false)
        );
    }

    #[test]
    fn a_type_may_be_a_glob_a_whole_action_or_another_object() {
        let rules = Rules::new(&[
            entry(types(&["health_status"])),
            entry(types(&["health_status: unhealthy"])),
            entry(types(&["network/*"])),
            entry(types(&["*"])),
        ]);
        let sick = event("container", "health_status: unhealthy");
        assert_eq!(ask(&rules, &sick, "x").0, vec![0, 1, 3]);
        let well = event("container", "health_status: healthy");
        assert_eq!(ask(&rules, &well, "x").0, vec![0, 3]);
        assert_eq!(ask(&rules, &event("network", "connect"), "").0, vec![2, 3]);
    }
}
