//! Which entries of `events.yml` an event triggers, and why not the others.
//!
//! [`Rules::matches`], which decides, and [`Rules::verdict`], which explains, ask the same function.

mod filter;
mod refusal;
mod subject;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::model::{EXISTING, Entry, Event};

use filter::{Answer, Lowered, Matcher};

pub use refusal::{Shown, word};
pub use subject::{Fact, Subject, name};

/// How the words begin that are not Docker's but our own.
const OWN_WORDS: &str = "engine/";

/// The entries, ready to be asked.
#[derive(Debug)]
pub struct Rules {
    entries: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    entry: Arc<Entry>,
    filter: Matcher,
    not: Vec<Matcher>,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Matches {
    /// The entries that the event triggers, by their place in the file.
    pub entries: Vec<usize>,
    /// At least one entry has a `type` for it, whatever its other filters say.
    pub caught: bool,
    /// Of at least one entry only an inspect can tell.
    pub pending: bool,
}

/// Does an event trigger an entry?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does.
    Runs,
    /// It does not, and what says no.
    Refused(Reason),
    /// That depends on something that an inspect may tell.
    Pending(Reason),
}

/// The part of an entry that says no, or that cannot say anything yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A filter.
    Filter(Field),
    /// The filter of this place in `not` matches; where that is not known, the field says why.
    Not(usize, Option<Field>),
}

/// A field of a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// `type`
    Type,
    /// `from_engine`
    FromEngine,
    /// `from_container`
    FromContainer,
    /// `image`
    Image,
    /// `image_contains`
    ImageContains,
    /// `labels`
    Labels,
    /// `exit_code`
    ExitCode,
    /// `cause`
    Cause,
}

impl Field {
    /// In the order in which they are asked, `type` before all others.
    const ALL: [Field; 8] = [
        Field::Type,
        Field::FromEngine,
        Field::FromContainer,
        Field::Image,
        Field::ImageContains,
        Field::Labels,
        Field::ExitCode,
        Field::Cause,
    ];
}

impl Rules {
    /// Compiles the entries.
    pub fn new(entries: &[Arc<Entry>]) -> Self {
        let rule = |entry: &Arc<Entry>| Rule {
            entry: entry.clone(),
            filter: Matcher::new(&entry.filter),
            not: entry.not.iter().map(Matcher::new).collect(),
        };
        Rules {
            entries: entries.iter().map(rule).collect(),
        }
    }

    /// The entry at a place.
    pub fn entry(&self, place: usize) -> &Arc<Entry> {
        &self.entries[place].entry
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
    pub fn matches(&self, subject: &Subject) -> Matches {
        let lowered = Lowered::new(subject);
        let mut answer = Matches::default();
        for (place, rule) in self.entries.iter().enumerate() {
            let verdict = rule.judge(&lowered);
            answer.caught |= verdict != Verdict::Refused(Reason::Filter(Field::Type));
            match verdict {
                Verdict::Runs => answer.entries.push(place),
                Verdict::Refused(_) => {}
                Verdict::Pending(_) => answer.pending = true,
            }
        }
        answer
    }

    /// Asks one entry.
    pub fn verdict(&self, place: usize, subject: &Subject) -> Verdict {
        self.entries[place].judge(&Lowered::new(subject))
    }
}

impl Rule {
    fn judge(&self, lowered: &Lowered) -> Verdict {
        if !self.has_type(lowered) {
            return Verdict::Refused(Reason::Filter(Field::Type));
        }
        let mut verdict = match self.filter.others(lowered) {
            Answer::Yes => Verdict::Runs,
            Answer::No(field) => return Verdict::Refused(Reason::Filter(field)),
            Answer::Pending(field) => Verdict::Pending(Reason::Filter(field)),
        };
        for (place, not) in self.not.iter().enumerate() {
            if !not.has_type(lowered) {
                continue;
            }
            match not.others(lowered) {
                Answer::Yes => return Verdict::Refused(Reason::Not(place, None)),
                Answer::Pending(field) if verdict == Verdict::Runs => {
                    verdict = Verdict::Pending(Reason::Not(place, Some(field)));
                }
                Answer::Pending(_) | Answer::No(_) => {}
            }
        }
        verdict
    }

    /// What runs already asks for `existing`, not for a `type`; and an entry may have nothing but that.
    fn has_type(&self, lowered: &Lowered) -> bool {
        let Entry {
            existing, filter, ..
        } = &*self.entry;
        match is_existing(lowered.subject.event) {
            true => *existing,
            false if *existing && filter.types.is_empty() => false,
            false => self.filter.has_type(lowered),
        }
    }
}

fn is_existing(event: &Event) -> bool {
    &*event.kind == "container" && &*event.action == EXISTING
}
