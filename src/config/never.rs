//! Entries that no event will ever match: nothing in them is wrong, and none is meant so.

use super::filter::names;
use super::reader::{Reader, Section};
use crate::model::{Cause, ExitCodes, Filter, Patterns};

impl Reader<'_> {
    /// Warns of what can never match.
    pub fn check_matches(&mut self, section: &Section, filter: &Filter, existing: bool) {
        if !existing {
            self.check_types(section, &filter.types);
            self.check_objects(section, &filter.types);
        }
        self.check_ends(section, &filter.types, existing);
        self.check_codes(section, filter);
    }

    fn check_types(&mut self, section: &Section, types: &Patterns) {
        let Patterns { any, none } = types;
        if let Some((node, field)) = section.get("type")
            && !any.is_empty()
            && any
                .iter()
                .all(|word| none.contains(word) || names(none, word))
        {
            let warning = "what is asked for is taken away again: nothing ever matches";
            self.warn(node, &field, warning.to_owned());
        }
    }

    /// Who asks for a container or an image, where the events have none.
    fn check_objects(&mut self, section: &Section, types: &Patterns) {
        let kinds =
            |may: fn(&str) -> bool| types.any.is_empty() || types.any.iter().any(|it| may(it));
        let containers = kinds(of_containers);
        let images = kinds(|pattern| of_containers(pattern) || is_of("image", pattern));
        for (name, known, what) in [
            ("from_container", containers, "container"),
            ("labels", containers, "container"),
            ("image", images, "image"),
            ("image_contains", images, "image"),
        ] {
            if let Some((node, field)) = section.get(name)
                && !known
            {
                let warning =
                    format!("no event of these types is about a {what}: nothing ever matches");
                self.warn(node, &field, warning.replace("a image", "an image"));
            }
        }
    }

    /// Who asks for the end of a container, where none can come.
    fn check_ends(&mut self, section: &Section, types: &Patterns, existing: bool) {
        for name in ["exit_code", "cause"] {
            let Some((node, field)) = section.get(name) else {
                continue;
            };
            if !may_be(types, "die") {
                let warning = "only a `die` has one: nothing ever matches";
                self.warn(node, &field, warning.to_owned());
            } else if existing {
                let warning = "a container that runs has none: `existing` has no effect";
                self.warn(node, &field, warning.to_owned());
            }
        }
    }

    fn check_codes(&mut self, section: &Section, filter: &Filter) {
        let ExitCodes { any, none } = &filter.exit_codes;
        let Some((node, field)) = section.get("exit_code") else {
            return;
        };
        let taken =
            |(from, to): &(i64, i64)| none.iter().any(|(low, high)| low <= from && to <= high);
        if !any.is_empty() && any.iter().all(taken) {
            let warning = "what is asked for is taken away again: nothing ever matches";
            self.warn(node, &field, warning.to_owned());
        }
        if filter.causes == [Cause::Crash] && any == &[(0, 0)] {
            let warning = "a crash never has 0: nothing ever matches";
            self.warn(node, &field, warning.to_owned());
        }
    }
}

/// Can this pattern of a `type` mean events that are about a container?
fn of_containers(pattern: &str) -> bool {
    let joins = ["network/connect", "network/disconnect"];
    let pattern = [pattern.to_owned()];
    !pattern[0].contains('/')
        || is_wild(&pattern[0])
        || joins.iter().any(|word| names(&pattern, word))
}

/// Is it about this kind of object?
fn is_of(kind: &str, pattern: &str) -> bool {
    let of = pattern
        .split_once('/')
        .map_or("container", |(kind, _)| kind);
    of == kind || is_wild(pattern)
}

/// Does it leave open what it is about?
fn is_wild(pattern: &str) -> bool {
    let kind = pattern.split('/').next().unwrap_or_default();
    kind.contains(['*', '?', '[', '{'])
}

/// Can an event of this word be of these types? Our own words, `engine/…`, are only named by what begins like them.
pub fn may_be(types: &Patterns, word: &str) -> bool {
    let is_own = word.starts_with("engine/");
    let any = types
        .any
        .iter()
        .filter(|pattern| !is_own || pattern.starts_with("engine/"));
    let any: Vec<String> = any.cloned().collect();
    let wanted = names(&any, word) || (types.any.is_empty() && !is_own);
    wanted && !names(&types.none, word)
}
