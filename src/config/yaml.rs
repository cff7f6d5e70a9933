//! `events.yml` as a tree whose nodes know where they stand.
//!
//! serde_yaml tells a place only in its errors. So the tree is read once, each node with its number in the order of reading; where a node stands is found
//! by reading the text again and failing on purpose at that number. Places are wanted for mistakes only, which are few.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// A line and a column of a file, both from 1; a column is a character.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A value of the file.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    number: usize,
    /// What stands there.
    pub value: Value,
}

/// What can stand in a file.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Nothing,
    /// `true` or `false` without quotes.
    Truth(bool),
    /// A whole number, not negative, without quotes.
    Whole(u64),
    /// Another number without quotes.
    Number(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in its order, with all of its keys even where one stands twice.
    Map(Vec<(Node, Node)>),
    /// Anything with a tag (`!name`).
    Tagged(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Nothing => f.write_str("nothing"),
            Value::Truth(truth) => write!(f, "the truth value `{truth}`"),
            Value::Whole(number) => write!(f, "the number {number}"),
            Value::Number(number) => write!(f, "the number {number}"),
            Value::Text(text) => write!(f, "the text `{}`", super::cut(text)),
            Value::List(items) if items.is_empty() => f.write_str("an empty list"),
            Value::Map(pairs) if pairs.is_empty() => f.write_str("an empty map"),
            Value::List(_) => f.write_str("a list"),
            Value::Map(_) => f.write_str("a map"),
            Value::Tagged(tag) => write!(f, "the tag `!{}`", super::cut(tag)),
        }
    }
}

/// Why a text is no YAML.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// Where, unless it concerns the whole file.
    pub place: Option<Place>,
    /// Why.
    pub problem: String,
}

/// A file has no more values than this, aliases counted as often as they are used; a real one has a hundred.
const MAX_NODES: usize = 20_000;

/// Reads a whole text.
pub fn read(text: &str) -> Result<Node, Unreadable> {
    if let Some(unreadable) = control_character(text) {
        return Err(unreadable);
    }
    traverse(text, usize::MAX).map_err(|error| {
        let place = error.location().map(|location| Place {
            line: location.line(),
            column: location.column(),
        });
        Unreadable {
            problem: explain(&error.to_string(), place),
            place: place.or_else(|| second_document(text)),
        }
    })
}

/// Finds where a node of this text stands. A node that an alias stands for is found at its anchor.
pub fn place_of(text: &str, node: &Node) -> Option<Place> {
    let location = traverse(text, node.number).err()?.location()?;
    Some(Place {
        line: location.line(),
        column: location.column(),
    })
}

fn traverse(text: &str, fail_at: usize) -> Result<Node, serde_yaml::Error> {
    let count = Cell::new(0);
    let seed = Tree {
        count: &count,
        fail_at,
    };
    seed.deserialize(serde_yaml::Deserializer::from_str(text))
}

/// The parser's own error for these carries no line.
fn control_character(text: &str) -> Option<Unreadable> {
    let allowed =
        |c: char| !c.is_control() && c != '\u{feff}' || matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let (at, found) = text.char_indices().find(|(_, c)| !allowed(*c))?;
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some(Unreadable {
        place: Some(Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }),
        problem: format!(
            "the control character U+{:04X} may not stand here",
            found as u32
        ),
    })
}

/// The parser's words, without the place that is told before them, with a remedy for the usual causes.
fn explain(message: &str, place: Option<Place>) -> String {
    let mut problem = message.to_owned();
    if let Some(Place { line, column }) = place {
        problem = problem.replacen(&format!(" at line {line} column {column}"), "", 1);
    }
    let remedy = if problem.starts_with("mapping values are not allowed") {
        "; a text that holds `: ` must stand in quotes"
    } else if problem.contains("more than one document") {
        problem = "a second document begins here".to_owned();
        "; remove the line `---` before it"
    } else if problem.contains("found character that cannot start any token") {
        "; indent by spaces, not tabs, and put a text that begins with `@`, `%` or a backquote in quotes"
    } else if problem.contains("while scanning an alias") || problem == "unknown anchor" {
        "; a text that begins with `*` must stand in quotes"
    } else if problem.contains("while scanning a tag") {
        "; a text that begins with `!` must stand in quotes"
    } else {
        ""
    };
    problem + remedy
}

/// Where the second document of a text begins.
fn second_document(text: &str) -> Option<Place> {
    let second = serde_yaml::Deserializer::from_str(text).nth(1)?;
    let location = second.deserialize_any(Stop).err()?.location()?;
    Some(Place {
        line: location.line(),
        column: location.column(),
    })
}

/// Reads one node and all below it.
#[derive(Clone, Copy)]
struct Tree<'c> {
    count: &'c Cell<usize>,
    fail_at: usize,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let number = self.count.get();
        if number == self.fail_at {
            return deserializer.deserialize_any(Stop);
        }
        if number == MAX_NODES {
            return Err(D::Error::custom(format!(
                "the file has more than {MAX_NODES} values"
            )));
        }
        self.count.set(number + 1);
        let value = deserializer.deserialize_any(self)?;
        Ok(Node { number, value })
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Truth(truth))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(self)? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(key) = map.next_key_seed(self)? {
            nodes.push((key, map.next_value_seed(self)?));
        }
        Ok(Value::Map(nodes))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        let (tag, content) = tagged.variant_seed(PhantomData::<String>)?;
        content.newtype_variant_seed(PhantomData::<IgnoredAny>)?;
        Ok(Value::Tagged(tag))
    }
}

/// Refuses whatever comes (as a visitor does by default), so that the parser says where it stands.
struct Stop;

impl<'de> Visitor<'de> for Stop {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(node: &Node) -> Vec<&Node> {
        let mut nodes = vec![node];
        match &node.value {
            Value::List(items) => nodes.extend(items.iter().flat_map(all)),
            Value::Map(pairs) => {
                nodes.extend(pairs.iter().flat_map(|(k, v)| [all(k), all(v)].concat()));
            }
            _ => {}
        }
        nodes
    }

    fn places(text: &str) -> Vec<String> {
        let tree = read(text).unwrap();
        let place = |node: &Node| {
            let Place { line, column } = place_of(text, node).unwrap();
            format!("{line}:{column} {}", node.value)
        };
        all(&tree).into_iter().map(place).collect()
    }

    #[test]
    fn each_node_knows_its_place() {
        let text = "# a comment\n\na: &x  # another\n  - {b: 'ü', c: [1,\n     true]}\n\"q k\":\n  |\n  two\n  lines\nd: *x\nn:\n";
        assert_eq!(
            places(text),
            [
                "3:1 a map",
                "3:1 the text `a`",
                "3:4 a list",
                "4:5 a map",
                "4:6 the text `b`",
                "4:9 the text `ü`",
                "4:14 the text `c`",
                "4:17 a list",
                "4:18 the number 1",
                "5:6 the truth value `true`",
                "6:1 the text `q k`",
                "7:3 the text `two…`",
                "10:1 the text `d`",
                // An alias leads to its anchor.
                "3:4 a list",
                "4:5 a map",
                "4:6 the text `b`",
                "4:9 the text `ü`",
                "4:14 the text `c`",
                "4:17 a list",
                "4:18 the number 1",
                "5:6 the truth value `true`",
                "11:1 the text `n`",
                "11:3 nothing",
            ]
        );
    }

    #[test]
    fn keys_that_stand_twice_are_all_there() {
        let Value::Map(pairs) = read("a: 1\na: 2\n").unwrap().value else {
            panic!("not a map")
        };
        assert_eq!(pairs.len(), 2);
    }

    #[test]
    fn tags_are_kept_as_such() {
        assert_eq!(
            places("[!x 1, !y {a: b}, c]"),
            [
                "1:1 a list",
                "1:2 the tag `!x`",
                "1:8 the tag `!y`",
                "1:19 the text `c`"
            ]
        );
    }

    #[test]
    fn a_tree_that_grows_by_aliases_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            text += &format!("a{level}: &a{level} [{below}]\n");
        }
        let problem = read(&text).unwrap_err().problem;
        assert!(problem.contains("20000 values"), "{problem}");
        let deep = "[".repeat(1_000);
        assert!(read(&deep).unwrap_err().problem.contains("recursion limit"));
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        let place = |text: &str| {
            let unreadable = read(text).unwrap_err();
            let Place { line, column } = unreadable.place.unwrap();
            format!("{line}:{column} {}", unreadable.problem)
        };
        assert_eq!(
            place("a: 1\n---\nb: 2\n"),
            "3:1 a second document begins here; remove the line `---` before it"
        );
        assert_eq!(
            place("a: x\nü: \u{7}"),
            "2:4 the control character U+0007 may not stand here"
        );
        assert_eq!(
            place("t: health_status: unhealthy"),
            "1:17 mapping values are not allowed in this context; a text that holds `: ` must stand in quotes"
        );
        assert_eq!(
            place("a:\n  - type: *\n"),
            "2:12 did not find expected alphabetic or numeric character, while scanning an alias at line 2 column 11; a text that begins with `*` must stand in quotes"
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(a|b| |\n|\t|: |- |\\[|\\]|\\{|\\}|, |&a |\\*a|!t |'|\"|#|\\||>|---|\\.\\.\\.|~|1|\\?|%|\\PC){0,40}") {
            if let Ok(tree) = read(&text) {
                for node in all(&tree) {
                    // An empty file has no place, all else has.
                    prop_assert!(place_of(&text, node).is_some() || node.value == Value::Nothing);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&String::from_utf8_lossy(&bytes));
        }
    }
}
