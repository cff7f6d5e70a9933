//! A verdict in words: what an entry asks for, and what was found instead.

use std::fmt::Display;

use super::{Fact, Field, Reason, Subject, Verdict, is_existing};
use crate::model::{Cause, Entry, ExitCodes, Filter, Patterns};

/// How a label's value, by its name, is shown to people: it may be a secret.
pub type Shown<'a> = &'a dyn Fn(&str, &str) -> String;

/// No value is shown in full that has more characters.
const LENGTH: usize = 60;

impl Verdict {
    /// `would run`, ``no: from_container asks for `db-*`, it is `web-1` ``, `perhaps: …` where an inspect would have to tell.
    pub fn say(self, entry: &Entry, subject: &Subject, shown: Shown) -> String {
        match self {
            Verdict::Runs => match (&entry.command, &entry.log) {
                (Some(_), _) | (None, None) => "would run".to_owned(),
                (None, Some(_)) => "would log".to_owned(),
            },
            Verdict::Refused(reason) => format!("no: {}", reason.say(entry, subject, shown)),
            Verdict::Pending(reason) => format!("perhaps: {}", reason.say(entry, subject, shown)),
        }
    }
}

impl Reason {
    /// ``from_container asks for `db-*`, it is `web-1` ``.
    pub fn say(self, entry: &Entry, subject: &Subject, shown: Shown) -> String {
        let name = |place: usize| match entry.not.len() {
            0 | 1 => "not".to_owned(),
            _ => format!("not #{}", place + 1),
        };
        match self {
            Reason::Filter(Field::Type) if entry.filter.types.is_empty() => {
                let found = subject.event.word();
                format!("it asks for existing containers, it is `{found}`")
            }
            Reason::Filter(Field::Type) if is_existing(subject.event) => {
                "it does not ask for existing containers".to_owned()
            }
            Reason::Filter(field) => field.say(&entry.filter, subject, shown),
            Reason::Not(place, None) => {
                let asked = entry.not.get(place).map_or_else(String::new, all_asked);
                format!("{} takes away {asked}", name(place))
            }
            Reason::Not(place, Some(field)) => {
                let said = entry
                    .not
                    .get(place)
                    .map(|not| field.say(not, subject, shown));
                format!("{}: {}", name(place), said.unwrap_or_default())
            }
        }
    }
}

impl Field {
    /// As it is called in the file.
    pub fn name(self) -> &'static str {
        match self {
            Field::Type => "type",
            Field::FromEngine => "from_engine",
            Field::FromContainer => "from_container",
            Field::Image => "image",
            Field::ImageContains => "image_contains",
            Field::Labels => "labels",
            Field::ExitCode => "exit_code",
            Field::Cause => "cause",
        }
    }

    fn say(self, filter: &Filter, subject: &Subject, shown: Shown) -> String {
        let asked = self.asked(filter);
        format!(
            "{} asks for {asked}, {}",
            self.name(),
            self.found(filter, subject, shown)
        )
    }

    /// What a filter asks for in this field; empty when nothing.
    fn asked(self, filter: &Filter) -> String {
        match self {
            Field::Type => patterns(&filter.types),
            Field::FromEngine => patterns(&filter.engines),
            Field::FromContainer => patterns(&filter.containers),
            Field::Image => patterns(&filter.images),
            Field::ImageContains => list(&filter.image_contains),
            Field::Labels => {
                let labels = &filter.labels;
                let text = |(name, value): &(String, Option<String>)| match value {
                    Some(value) => quoted(&format!("{name}={value}")),
                    None => quoted(name),
                };
                let texts: Vec<String> = labels.labels.iter().map(text).collect();
                texts.join(if labels.all { " and " } else { " or " })
            }
            Field::ExitCode => exit_codes(&filter.exit_codes),
            Field::Cause => list(filter.causes.iter().map(|cause| word(*cause))),
        }
    }

    fn found(self, filter: &Filter, subject: &Subject, shown: Shown) -> String {
        let it_is = |fact: Fact<&str>, none: &str, pending: &str| match fact {
            Fact::Is(text) => format!("it is {}", quoted(text)),
            Fact::None => none.to_owned(),
            Fact::Pending => pending.to_owned(),
        };
        const UNTOLD: &str = "which only an inspect tells";
        const HIDDEN: &str = "which a label `exitCode` hides: only an inspect tells";
        match self {
            Field::Type => {
                let event = subject.event;
                match &*event.kind {
                    "container" => format!("it is `{}`", event.action),
                    _ => format!("it is `{}`", event.word()),
                }
            }
            Field::FromEngine => format!("it is `{}`", subject.engine),
            Field::FromContainer => it_is(subject.container, "there is no container", UNTOLD),
            Field::Image | Field::ImageContains => {
                it_is(subject.image, "there is no image", UNTOLD)
            }
            Field::Labels => labels_found(filter, subject, (shown, UNTOLD)),
            Field::ExitCode => match subject.exit_code {
                Fact::Is(code) => format!("it is {code}"),
                Fact::None => "there is none".to_owned(),
                Fact::Pending => HIDDEN.to_owned(),
            },
            Field::Cause => {
                let cause = match subject.cause() {
                    Fact::Is(cause) => Fact::Is(word(cause)),
                    Fact::None => Fact::None,
                    Fact::Pending => Fact::Pending,
                };
                let none = match subject.exit_code {
                    Fact::Is(0) => "it ended by itself, and well",
                    _ => "only a `die` has one",
                };
                let pending = format!("and its exit code is one {HIDDEN}");
                it_is(cause, none, &pending)
            }
        }
    }
}

/// A cause as it is called in the file.
pub fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Crash => "crash",
        Cause::Stop => "stop",
        Cause::Oom => "oom",
    }
}

/// Those of the labels asked for that the container has otherwise, or not at all.
fn labels_found(filter: &Filter, subject: &Subject, (shown, untold): (Shown, &str)) -> String {
    let mut has = Vec::new();
    let mut lacks = Vec::new();
    for (name, _) in &filter.labels.labels {
        match subject.label(name) {
            Fact::Is(value) => has.push(format!("{name}={}", shown(name, value))),
            Fact::None => lacks.push(name),
            Fact::Pending => return untold.to_owned(),
        }
    }
    match (has.is_empty(), lacks.is_empty()) {
        (false, true) => format!("it has {}", list(has)),
        (true, _) => format!("it has no {}", list(lacks)),
        (false, false) => format!("it has {} and no {}", list(has), list(lacks)),
    }
}

fn all_asked(filter: &Filter) -> String {
    let asked = |field: &Field| match field.asked(filter) {
        text if text.is_empty() => None,
        text => Some(format!("{} {text}", field.name())),
    };
    let all: Vec<String> = Field::ALL.iter().filter_map(asked).collect();
    match all.is_empty() {
        true => "everything".to_owned(),
        false => all.join(" with "),
    }
}

fn patterns(patterns: &Patterns) -> String {
    let none = patterns.none.iter().map(|text| format!("!{text}"));
    list(patterns.any.iter().cloned().chain(none))
}

fn exit_codes(codes: &ExitCodes) -> String {
    let range = |sign: &str, (from, to): &(i64, i64)| match from == to {
        true => format!("{sign}{from}"),
        false => format!("{sign}{from}..{to}"),
    };
    let any = codes.any.iter().map(|codes| range("", codes));
    list(any.chain(codes.none.iter().map(|codes| range("!", codes))))
}

fn list(texts: impl IntoIterator<Item = impl Display>) -> String {
    let texts = texts.into_iter().map(|text| quoted(&text.to_string()));
    texts.collect::<Vec<String>>().join(", ")
}

/// A text in the middle of a sentence, which it does not drown.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}
