//! What the parts of `events.yml` have in common: the values of fields, and the places of mistakes.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use super::file::Contents;
use super::nearest::nearest;
use super::yaml::{self, Node, Value};
use super::{ConfigError, Mistake, Origin};

/// More mistakes than this are counted only.
const MAX_MISTAKES: usize = 100;

/// Walks the tree and collects.
pub struct Reader<'a> {
    /// The file's name, for messages.
    pub path: &'a Path,
    /// The file's text.
    pub text: &'a str,
    /// What was understood so far.
    pub contents: &'a mut Contents,
    /// The number of mistakes that are counted only.
    pub unlisted: usize,
}

/// The fields of a map by their names.
pub type Fields<'n> = HashMap<&'static str, &'n Node>;

impl Reader<'_> {
    /// A glob of one line.
    pub fn pattern(&mut self, node: &Node, field: &str, expected: &str) -> Option<String> {
        let pattern = self.line(node, field, expected)?;
        self.is_glob(node, field, pattern)
            .then(|| pattern.to_owned())
    }

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
            found => expected_found(expected, found),
        };
        self.wrong(node, field, mistake);
        None
    }

    /// The fields of a map by their names. Says what is unknown and what stands twice.
    pub fn fields<'n>(
        &mut self,
        node: &'n Node,
        label: &str,
        known: &'static [&'static str],
        expected: &str,
    ) -> Option<Fields<'n>> {
        let Value::Map(pairs) = &node.value else {
            self.wrong(node, label, expected_found(expected, &node.value));
            return None;
        };
        let mut fields = Fields::new();
        let mut first_keys: HashMap<&'static str, &Node> = HashMap::new();
        for (key, value) in pairs {
            let given = match &key.value {
                Value::Text(text) => text.clone(),
                found => found.to_string(),
            };
            let field = match label {
                "" => super::cut(&given),
                label => format!("{label}, {}", super::cut(&given)),
            };
            let Some(name) = known.iter().find(|name| **name == given) else {
                let list = known.iter().map(|name| format!("`{name}`"));
                let mistake = Mistake::new(
                    "there is no such field".to_owned(),
                    format!("one of {}", list.collect::<Vec<_>>().join(", ")),
                );
                let meant = nearest(&given, known.iter().copied());
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
            fields.insert(name, value);
        }
        Some(fields)
    }

    /// Notes a mistake.
    pub fn wrong(&mut self, node: &Node, field: &str, mistake: Mistake) {
        if self.contents.mistakes.len() >= MAX_MISTAKES {
            self.unlisted += 1;
            return;
        }
        let place = yaml::place_of(self.text, node);
        self.contents.mistakes.push(ConfigError {
            origin: Origin::File(self.path.to_owned(), place),
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            mistake,
        });
    }

    /// Notes a warning.
    pub fn warn(&mut self, node: &Node, field: &str, warning: String) {
        if self.contents.warnings.len() < MAX_MISTAKES {
            let origin = Origin::File(self.path.to_owned(), yaml::place_of(self.text, node));
            self.contents
                .warnings
                .push(format!("{origin}: {field}: {warning}"));
        }
    }
}

/// Something else stands there.
pub fn expected_found(expected: impl Into<String>, found: &dyn Display) -> Mistake {
    Mistake::new(format!("found {found}"), expected)
}
