//! What the parts of `events.yml` have in common: the values of fields, and the places of mistakes.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use super::file::Contents;
use super::machine::Machine;
use super::nearest::nearest;
use super::yaml::{self, Node, Value};
use super::{ConfigError, Mistake, Origin, duration};

/// More mistakes than this are counted only.
const MAX_MISTAKES: usize = 100;

/// Walks the tree and collects.
pub struct Reader<'a> {
    /// The file's name, for messages.
    pub path: &'a Path,
    /// The file's text.
    pub text: &'a str,
    /// Where it is read.
    pub machine: &'a Machine<'a>,
    /// What was understood so far.
    pub contents: &'a mut Contents,
    /// The number of mistakes that are counted only.
    pub unlisted: usize,
}

/// A map whose fields are known: the whole file, an entry, a `not`.
pub struct Section<'n> {
    /// Where it stands.
    pub node: &'n Node,
    /// What it is called, `entry #2`; nothing for the whole file.
    pub label: String,
    fields: HashMap<&'static str, &'n Node>,
}

impl<'n> Section<'n> {
    /// Is the field there?
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// It has no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// What a field is called in messages.
    pub fn field(&self, name: &str) -> String {
        match &*self.label {
            "" => super::cut(name),
            label => format!("{label}, {}", super::cut(name)),
        }
    }

    /// A field, if it is there, and what it is called in messages.
    pub fn get(&self, name: &str) -> Option<(&'n Node, String)> {
        Some((*self.fields.get(name)?, self.field(name)))
    }
}

impl Reader<'_> {
    /// Is this a glob? If not, says so.
    pub fn is_glob(&mut self, node: &Node, field: &str, pattern: &str) -> bool {
        let Err(mistake) = super::glob(pattern) else {
            return true;
        };
        self.wrong(node, field, mistake);
        false
    }

    /// A text without line breaks.
    pub fn line<'n>(&mut self, node: &'n Node, field: &str, expected: &str) -> Option<&'n str> {
        let text = self.text(node, field, expected)?.trim();
        if text.contains(char::is_control) {
            let problem = format!(
                "`{}` has a line break or a control character",
                super::cut(text)
            );
            self.wrong(node, field, Mistake::new(problem, expected));
            return None;
        }
        Some(text)
    }

    /// A text that may be empty.
    pub fn value<'n>(&mut self, node: &'n Node, field: &str, expected: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) if text.trim().is_empty() => Some(text),
            _ => self.text(node, field, expected),
        }
    }

    /// A text with something in it. YAML's own idea of numbers and truth would change what was written (`1e3`), so they are refused.
    pub fn text<'n>(&mut self, node: &'n Node, field: &str, expected: &str) -> Option<&'n str> {
        let mistake = match &node.value {
            Value::Text(text) if text.contains('\0') => {
                Mistake::new("it has a NUL character".to_owned(), expected)
            }
            Value::Text(text) if !text.trim().is_empty() => return Some(text),
            Value::Text(_) => Mistake::new("it is empty".to_owned(), expected),
            found @ (Value::Truth(_) | Value::Whole(_) | Value::Number(_)) => {
                Mistake::new(format!("{found} is not in quotes"), expected)
            }
            found @ Value::Tagged(_) => {
                let problem =
                    format!("found {found}; a text that begins with `!` must stand in quotes");
                Mistake::new(problem, expected)
            }
            found => expected_found(expected, found),
        };
        self.wrong(node, field, mistake);
        None
    }

    /// The parts of one text, split at commas.
    pub fn parts_of<'n>(&mut self, node: &'n Node, field: &str, expected: &str) -> Vec<&'n str> {
        let Some(text) = self.line(node, field, expected) else {
            return Vec::new();
        };
        let (missing, parts): (Vec<&str>, Vec<&str>) = split_at_commas(text)
            .into_iter()
            .map(str::trim)
            .partition(|part| bare(part).1.is_empty());
        for part in missing {
            let problem = match part {
                "" => "a word is missing before or after a comma",
                _ => "a word is missing after a `!`",
            };
            self.wrong(node, field, Mistake::new(problem, expected));
        }
        parts
    }

    /// One of some words.
    pub fn one_word<T: Copy>(
        &mut self,
        node: &Node,
        field: &str,
        text: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*meaning);
        }
        let known = || words.iter().map(|(word, _)| *word);
        let problem = format!("found `{}`", super::cut(text));
        let mistake = Mistake::new(problem, one_of(known())).near(nearest(text, known()));
        self.wrong(node, field, mistake);
        None
    }

    /// A truth value, false where the field is missing.
    pub fn truth(&mut self, section: &Section, name: &str) -> bool {
        let Some((node, field)) = section.get(name) else {
            return false;
        };
        match &node.value {
            Value::Truth(truth) => *truth,
            found => {
                let mistake = expected_found("`true` or `false`, without quotes", found);
                self.wrong(node, &field, mistake);
                false
            }
        }
    }

    /// A whole number.
    pub fn number(&mut self, section: &Section, name: &str, least: u64, most: u64) -> Option<u64> {
        let (node, field) = section.get(name)?;
        match node.value {
            Value::Whole(number) if (least..=most).contains(&number) => Some(number),
            ref found => {
                let expected = format!("a number from {least} to {most}");
                self.wrong(node, &field, expected_found(expected, found));
                None
            }
        }
    }

    /// A duration of at least this.
    pub fn duration(&mut self, section: &Section, name: &str, least: Duration) -> Option<Duration> {
        let (node, field) = section.get(name)?;
        // `0` is a number to YAML and a duration to Go; of any other number Go says that it lacks its unit.
        let text = match &node.value {
            Value::Whole(number) => number.to_string(),
            _ => self.text(node, &field, duration::EXPECTED)?.to_owned(),
        };
        match duration::parse_at_least(&text, least) {
            Ok(duration) => Some(duration),
            Err(mistake) => {
                self.wrong(node, &field, mistake);
                None
            }
        }
    }

    /// A map with its fields by their names. Says what is unknown and what stands twice. The known fields come in groups.
    pub fn section<'n>(
        &mut self,
        node: &'n Node,
        label: &str,
        known: &[&[&'static str]],
        expected: &str,
    ) -> Option<Section<'n>> {
        let Value::Map(pairs) = &node.value else {
            self.wrong(node, label, expected_found(expected, &node.value));
            return None;
        };
        let known: Vec<&'static str> = known.concat();
        let mut section = Section {
            node,
            label: label.to_owned(),
            fields: HashMap::new(),
        };
        let mut first_keys: HashMap<&'static str, &Node> = HashMap::new();
        for (key, value) in pairs {
            let given = match &key.value {
                Value::Text(text) => text.clone(),
                found => found.to_string(),
            };
            let field = section.field(&given);
            let Some(name) = known.iter().find(|name| **name == given) else {
                let meant = nearest(&given, known.iter().copied());
                let expected = match meant {
                    Some(_) => String::new(),
                    None => one_of(known.iter().copied()),
                };
                let mistake = Mistake::new("there is no such field", expected);
                self.wrong(key, &field, mistake.near(meant));
                continue;
            };
            if let Some(first) = first_keys.get(name) {
                let line = yaml::place_of(self.text, first).map_or(0, |place| place.line);
                let problem = format!("the field stands in line {line} too");
                self.wrong(key, &field, Mistake::new(problem, "each field once"));
                continue;
            }
            first_keys.insert(name, key);
            section.fields.insert(name, value);
        }
        Some(section)
    }

    /// A mistake, with its place.
    pub fn error(&self, node: &Node, field: &str, mistake: Mistake) -> ConfigError {
        ConfigError {
            origin: Origin::File(self.path.to_owned(), yaml::place_of(self.text, node)),
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            mistake,
        }
    }

    /// Notes a mistake.
    pub fn wrong(&mut self, node: &Node, field: &str, mistake: Mistake) {
        if self.contents.mistakes.len() >= MAX_MISTAKES {
            self.unlisted += 1;
            return;
        }
        let error = self.error(node, field, mistake);
        self.contents.mistakes.push(error);
    }

    /// Notes a warning.
    pub fn warn(&mut self, node: &Node, field: &str, warning: String) {
        if self.contents.warnings.len() < MAX_MISTAKES {
            let place = self.place(node, field);
            self.contents.warnings.push(format!("{place}: {warning}"));
        }
    }

    /// Where a field stands, for a message.
    pub fn place(&self, node: &Node, field: &str) -> String {
        let origin = Origin::File(self.path.to_owned(), yaml::place_of(self.text, node));
        format!("{origin}: {field}")
    }
}

/// Something else stands there.
pub fn expected_found(expected: impl Into<String>, found: &dyn Display) -> Mistake {
    Mistake::new(format!("found {found}"), expected)
}

/// The values of a list, or the one that stands there instead of a list.
pub fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) if !items.is_empty() => items,
        _ => std::slice::from_ref(node),
    }
}

/// Does a value take away? It without its `!` then.
pub fn bare(text: &str) -> (bool, &str) {
    match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    }
}

/// Splits at the commas that do not stand in the braces of a glob.
pub fn split_at_commas(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

/// Words, for a message.
fn one_of<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    format!("one of {}", words.join(", "))
}
