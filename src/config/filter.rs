//! Which events an entry wants to see, and which not.

use super::nearest::nearest;
use super::reader::{Reader, Section, bare, expected_found, items, split_at_commas};
use super::yaml::{Node, Value};
use super::{Mistake, actions};
use crate::glob::{Case, Globs};
use crate::model::{Cause, ExitCodes, Filter, Labels, Patterns};

/// The fields, of an entry and of a `not`.
pub const FILTER: &[&str] = &[
    "type",
    "from_engine",
    "from_container",
    "image",
    "image_contains",
    "labels",
    "exit_code",
    "cause",
];

/// What is expected of a `type`.
pub const TYPES: &str =
    "one or several of Docker's words, such as `die` or `start, network/connect`, or `*` for all";

/// No exit code of any platform is higher, or lower than its negative.
const MAX_EXIT_CODE: i64 = u32::MAX as i64;

impl Reader<'_> {
    /// Reads the filters of an entry or of a `not`.
    pub fn filter(&mut self, section: &Section) -> Filter {
        let types = self.types(section);
        let engines = self.patterns(section, "from_engine", "an engine's name or a glob");
        if let Some((node, field)) = section.get("from_engine") {
            for pattern in engines.any.iter().chain(&engines.none) {
                self.warn_of_no_engine(node, &field, pattern);
            }
        }
        let mut containers =
            self.patterns(section, "from_container", "a container's name or a glob");
        for pattern in containers.any.iter_mut().chain(&mut containers.none) {
            *pattern = pattern.trim_start_matches('/').to_owned();
        }
        Filter {
            types,
            engines,
            containers,
            images: self.patterns(section, "image", "an image's reference or a glob"),
            image_contains: self.image_contains(section),
            labels: self.labels(section),
            exit_codes: self.exit_codes(section),
            causes: self.causes(section),
        }
    }

    /// Reads `not`: one map of filters or several.
    pub fn not(&mut self, entry: &Section) -> Vec<Filter> {
        const EXPECTED: &str = "a map of filters, or a list of such maps";
        let Some((node, field)) = entry.get("not") else {
            return Vec::new();
        };
        let nodes = items(node);
        let mut filters = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let label = match nodes.len() {
                1 => field.clone(),
                _ => format!("{field} #{}", index + 1),
            };
            let Some(section) = self.section(node, &label, &[FILTER], EXPECTED) else {
                continue;
            };
            if section.is_empty() {
                let problem = "it is empty: every event would match";
                self.wrong(node, &label, Mistake::new(problem, EXPECTED));
            }
            filters.push(self.filter(&section));
        }
        filters
    }

    /// Patterns in lower case.
    fn types(&mut self, section: &Section) -> Patterns {
        let mut types = Patterns::default();
        let Some((node, field)) = section.get("type") else {
            return types;
        };
        for node in items(node) {
            if let Value::Map(pairs) = &node.value
                && let [(key, value)] = pairs.as_slice()
                && let (Value::Text(key), Value::Text(value)) = (&key.value, &value.value)
            {
                let problem = "without quotes this is a map";
                let mistake = Mistake::new(problem, format!("`\"{key}: {value}\"`, in quotes"));
                self.wrong(node, &field, mistake);
                continue;
            }
            for part in self.parts_of(node, &field, TYPES) {
                let (taken, word) = bare(part);
                let word = self.event(node, &field, word);
                let list = if taken {
                    &mut types.none
                } else {
                    &mut types.any
                };
                list.extend(word);
            }
        }
        types
    }

    /// The pattern of an event's word.
    fn event(&mut self, node: &Node, field: &str, word: &str) -> Option<String> {
        let word = word.to_lowercase();
        let word = match word.strip_prefix("health_status:") {
            Some(state) => format!("health_status: {}", state.trim()),
            None => word,
        };
        if !self.is_glob(node, field, &word) {
            return None;
        }
        if !has_wildcard(&word)
            && let Some(meant) = actions::unknown(&word)
        {
            let hint = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            let warning = format!("no engine sends `{}`{hint}", super::cut(&word));
            self.warn(node, field, warning);
        }
        Some(word)
    }

    /// Globs for names, each a text or several in a list.
    fn patterns(&mut self, section: &Section, name: &str, expected: &str) -> Patterns {
        let mut patterns = Patterns::default();
        let Some((node, field)) = section.get(name) else {
            return patterns;
        };
        for node in items(node) {
            let Some(text) = self.line(node, &field, expected) else {
                continue;
            };
            let (taken, pattern) = bare(text);
            if pattern.is_empty() {
                let problem = "nothing stands after the `!`";
                self.wrong(node, &field, Mistake::new(problem, expected));
                continue;
            }
            if !self.is_glob(node, &field, pattern) {
                continue;
            }
            let parts = split_at_commas(text);
            if parts.len() > 1 {
                let parts: Vec<String> = parts
                    .iter()
                    .map(|part| format!("{:?}", part.trim()))
                    .collect();
                let list = super::cut(&parts.join(", "));
                self.warn(
                    node,
                    &field,
                    format!("no name has a comma; did you mean the list `[{list}]`?"),
                );
            }
            let list = if taken {
                &mut patterns.none
            } else {
                &mut patterns.any
            };
            list.push(pattern.to_owned());
        }
        patterns
    }

    fn image_contains(&mut self, section: &Section) -> Vec<String> {
        const EXPECTED: &str = "a part of an image's name";
        let Some((node, field)) = section.get("image_contains") else {
            return Vec::new();
        };
        let parts = items(node).iter();
        parts
            .filter_map(|node| self.line(node, &field, EXPECTED).map(str::to_owned))
            .collect()
    }

    fn labels(&mut self, section: &Section) -> Labels {
        const EXPECTED: &str =
            "a map of labels to values (`\"*\"` is any), or a list of `name` and `name=value`";
        let mut labels = Labels::default();
        let Some((node, field)) = section.get("labels") else {
            return labels;
        };
        let mut given: Vec<(&Node, &str, &str)> = Vec::new();
        match &node.value {
            Value::Map(pairs) if !pairs.is_empty() => {
                labels.all = true;
                for (key, value) in pairs {
                    let Some(name) = self.line(key, &field, EXPECTED) else {
                        continue;
                    };
                    let field = format!("{field}.{}", super::cut(name));
                    if given.iter().any(|(_, other, _)| *other == name) {
                        let problem = "the label stands here twice";
                        self.wrong(key, &field, Mistake::new(problem, "each label once"));
                    } else if let Some(value) = self.value(value, &field, EXPECTED) {
                        given.push((key, name, value));
                    }
                }
            }
            Value::List(texts) if !texts.is_empty() => {
                for node in texts {
                    let text = self.line(node, &field, EXPECTED);
                    given.extend(text.map(|text| {
                        let (name, value) = text.split_once('=').unwrap_or((text, "*"));
                        (node, name.trim(), value)
                    }));
                }
            }
            found => self.wrong(node, &field, expected_found(EXPECTED, found)),
        }
        for (node, name, value) in given {
            if name.is_empty() {
                self.wrong(
                    node,
                    &field,
                    Mistake::new("a label's name is missing", EXPECTED),
                );
                continue;
            }
            if name.starts_with('!') || value.starts_with('!') {
                let warning =
                    "a `!` is part of the text here; `not` has labels that must be missing";
                self.warn(node, &field, warning.to_owned());
            }
            if self.is_glob(node, &field, value) {
                let value = Some(value.to_owned()).filter(|value| value != "*");
                labels.labels.push((name.to_owned(), value));
            }
        }
        labels
    }

    fn exit_codes(&mut self, section: &Section) -> ExitCodes {
        const EXPECTED: &str = "numbers and ranges such as `137`, `\"!0\"` and `\"1..125\"`";
        let mut codes = ExitCodes::default();
        let Some((node, field)) = section.get("exit_code") else {
            return codes;
        };
        for node in items(node) {
            let whole = match node.value {
                Value::Whole(number) => Some(number.to_string()),
                _ => None,
            };
            let parts = match &whole {
                Some(number) => vec![number.as_str()],
                None => self.parts_of(node, &field, EXPECTED),
            };
            for part in parts {
                let (taken, text) = bare(part);
                match range(text) {
                    Some(range) if taken => codes.none.push(range),
                    Some(range) => codes.any.push(range),
                    None => {
                        let problem =
                            format!("`{}` is no exit code and no range", super::cut(text));
                        self.wrong(node, &field, Mistake::new(problem, EXPECTED));
                    }
                }
            }
        }
        codes
    }

    fn causes(&mut self, section: &Section) -> Vec<Cause> {
        const CAUSES: &[(&str, Cause)] = &[
            ("crash", Cause::Crash),
            ("stop", Cause::Stop),
            ("oom", Cause::Oom),
        ];
        let Some((node, field)) = section.get("cause") else {
            return Vec::new();
        };
        let mut causes = Vec::new();
        for node in items(node) {
            for part in self.parts_of(node, &field, "`crash`, `stop`, `oom` or several of them") {
                causes.extend(self.one_word(node, &field, part, CAUSES));
            }
        }
        causes
    }

    fn warn_of_no_engine(&mut self, node: &Node, field: &str, pattern: &str) {
        let Some(engines) = &self.contents.cluster else {
            return;
        };
        let Ok(glob) = Globs::new([pattern], Case::Ignored) else {
            return;
        };
        if engines.iter().any(|engine| glob.fit(&engine.name)) {
            return;
        }
        let meant = nearest(pattern, engines.iter().map(|engine| &*engine.name))
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let warning = format!(
            "no engine of the cluster is named `{}`{meant}",
            super::cut(pattern)
        );
        self.warn(node, field, warning);
    }
}

/// Does any of these patterns name this word?
pub fn names(patterns: &[String], word: &str) -> bool {
    let fits = |pattern: &String| {
        let glob = Globs::new([pattern.as_str()], Case::Ignored);
        glob.is_ok_and(|glob| glob.fit(word))
    };
    patterns.iter().any(fits)
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

/// `137`, `1..125`.
fn range(text: &str) -> Option<(i64, i64)> {
    let code = |text: &str| {
        let text = text.trim();
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number: i64 = digits
            .parse()
            .ok()
            .filter(|_| !digits.starts_with(['+', '-']))?;
        let code = if text.starts_with('-') {
            -number
        } else {
            number
        };
        (number <= MAX_EXIT_CODE).then_some(code)
    };
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (from, to) = (code(from)?, code(to)?);
    (from <= to).then_some((from, to))
}
