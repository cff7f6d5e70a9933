//! One filter, made ready to be asked: does an event pass all its fields?

use std::cell::OnceCell;

use super::subject::{Fact, Subject};
use super::{Field, OWN_WORDS};
use crate::glob;
use crate::model::{Cause, ExitCodes, Filter, Patterns};

/// The answer of one field, or of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It passes.
    Yes,
    /// This field says no.
    No(Field),
    /// An inspect must tell, for this field.
    Pending(Field),
}

/// A filter with its patterns compiled.
#[derive(Debug)]
pub struct Matcher {
    types: Globs,
    engines: Globs,
    containers: Globs,
    images: Globs,
    image_contains: Vec<String>,
    labels: Vec<(String, Option<Pattern>)>,
    all_labels: bool,
    exit_codes: ExitCodes,
    causes: Vec<Cause>,
}

/// A subject's texts in lower case; those that only few entries ask for, when the first one does.
#[derive(Debug)]
pub struct Lowered<'a> {
    pub subject: &'a Subject<'a>,
    word: String,
    /// Where it is more than the word: `health_status: unhealthy` can be named with what stands behind the colon, too.
    full: Option<String>,
    engine: OnceCell<String>,
    container: OnceCell<Fact<String>>,
    image: OnceCell<Fact<String>>,
}

impl<'a> Lowered<'a> {
    pub fn new(subject: &'a Subject<'a>) -> Self {
        let event = subject.event;
        let full = || match &*event.kind {
            "container" => event.action.to_lowercase(),
            kind => format!("{kind}/{}", event.action).to_lowercase(),
        };
        Lowered {
            subject,
            word: event.word().to_lowercase(),
            full: event.action.contains(':').then(full),
            engine: OnceCell::new(),
            container: OnceCell::new(),
            image: OnceCell::new(),
        }
    }

    fn engine(&self) -> &str {
        self.engine
            .get_or_init(|| self.subject.engine.to_lowercase())
    }

    fn container(&self) -> &Fact<String> {
        self.container
            .get_or_init(|| lowered(self.subject.container))
    }

    fn image(&self) -> &Fact<String> {
        self.image.get_or_init(|| lowered(self.subject.image))
    }
}

fn lowered(fact: Fact<&str>) -> Fact<String> {
    match fact {
        Fact::Is(text) => Fact::Is(text.to_lowercase()),
        Fact::None => Fact::None,
        Fact::Pending => Fact::Pending,
    }
}

impl Matcher {
    /// Compiles a filter; its patterns were checked when the file was read, and one that is no glob is compared as it stands.
    pub fn new(filter: &Filter) -> Self {
        let label = |(name, value): &(String, Option<String>)| {
            let value = value.as_ref().map(|text| Pattern::new(text.clone()));
            (name.clone(), value)
        };
        Matcher {
            types: Globs::new(&filter.types),
            engines: Globs::new(&filter.engines),
            containers: Globs::new(&filter.containers),
            images: Globs::new(&filter.images),
            image_contains: filter.image_contains.clone(),
            labels: filter.labels.labels.iter().map(label).collect(),
            all_labels: filter.labels.all,
            exit_codes: filter.exit_codes.clone(),
            causes: filter.causes.clone(),
        }
    }

    /// Is there a `type` for it?
    pub fn has_type(&self, lowered: &Lowered) -> bool {
        let is_own = lowered.word.starts_with(OWN_WORDS);
        // `*` and its like mean what engines tell, never what we say of engines.
        let meant = |pattern: &&Pattern| !is_own || pattern.begins_with(OWN_WORDS);
        let fits = |pattern: &Pattern| {
            let full = lowered.full.as_deref();
            pattern.fits(&lowered.word) || full.is_some_and(|full| pattern.fits(full))
        };
        let Globs { any, none } = &self.types;
        let wanted = match any.is_empty() {
            true => none.is_empty() || !is_own,
            false => any.iter().filter(meant).any(fits),
        };
        wanted && !none.iter().filter(meant).any(fits)
    }

    /// Asks all fields but `type`: what one of them refuses is refused, whatever the others will know one day.
    pub fn others(&self, lowered: &Lowered) -> Answer {
        let mut answer = Answer::Yes;
        for field in Field::ALL.into_iter().skip(1) {
            match self.field(field, lowered) {
                Fact::Is(true) => {}
                Fact::Is(false) | Fact::None => return Answer::No(field),
                Fact::Pending if answer == Answer::Yes => answer = Answer::Pending(field),
                Fact::Pending => {}
            }
        }
        answer
    }

    /// Asks one field. What it asks for and the event does not have, does not match.
    fn field(&self, field: Field, lowered: &Lowered) -> Fact<bool> {
        let subject = lowered.subject;
        match field {
            Field::Type => Fact::Is(self.has_type(lowered)),
            Field::FromEngine => {
                let is_asked = !self.engines.is_empty();
                Fact::Is(!is_asked || self.engines.fit(lowered.engine()))
            }
            Field::FromContainer if self.containers.is_empty() => Fact::Is(true),
            Field::FromContainer => lowered
                .container()
                .as_ref()
                .is(|it| self.containers.fit(it)),
            Field::Image if self.images.is_empty() => Fact::Is(true),
            Field::Image => lowered.image().as_ref().is(|it| self.images.fit(it)),
            Field::ImageContains if self.image_contains.is_empty() => Fact::Is(true),
            Field::ImageContains => {
                let mut parts = self.image_contains.iter();
                subject
                    .image
                    .is(|image| parts.any(|part| image.contains(part)))
            }
            Field::Labels => self.labels(subject),
            Field::ExitCode => {
                let ExitCodes { any, none } = &self.exit_codes;
                if any.is_empty() && none.is_empty() {
                    return Fact::Is(true);
                }
                let within =
                    |code: i64| move |(from, to): &(i64, i64)| (*from..=*to).contains(&code);
                subject.exit_code.is(|code| {
                    (any.is_empty() || any.iter().any(within(code)))
                        && !none.iter().any(within(code))
                })
            }
            Field::Cause if self.causes.is_empty() => Fact::Is(true),
            Field::Cause => subject.cause().is(|cause| self.causes.contains(&cause)),
        }
    }

    fn labels(&self, subject: &Subject) -> Fact<bool> {
        let mut pending = false;
        for (name, value) in &self.labels {
            let fits = match subject.label(name) {
                Fact::Is(label) => value.as_ref().is_none_or(|value| value.fits(label)),
                Fact::None => false,
                Fact::Pending => {
                    pending = true;
                    continue;
                }
            };
            if fits != self.all_labels {
                return Fact::Is(fits);
            }
        }
        match pending {
            true => Fact::Pending,
            false => Fact::Is(self.all_labels || self.labels.is_empty()),
        }
    }
}

impl<T> Fact<T> {
    fn is(self, what: impl FnOnce(T) -> bool) -> Fact<bool> {
        match self {
            Fact::Is(value) => Fact::Is(what(value)),
            Fact::None => Fact::Is(false),
            Fact::Pending => Fact::Pending,
        }
    }

    fn as_ref(&self) -> Fact<&T> {
        match self {
            Fact::Is(value) => Fact::Is(value),
            Fact::None => Fact::None,
            Fact::Pending => Fact::Pending,
        }
    }
}

#[derive(Debug)]
struct Globs {
    any: Vec<Pattern>,
    none: Vec<Pattern>,
}

impl Globs {
    fn new(patterns: &Patterns) -> Self {
        let compiled = |texts: &[String]| -> Vec<Pattern> {
            let texts = texts.iter().map(|text| text.to_lowercase());
            texts.map(Pattern::new).collect()
        };
        Globs {
            any: compiled(&patterns.any),
            none: compiled(&patterns.none),
        }
    }

    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }

    fn fit(&self, text: &str) -> bool {
        (self.any.is_empty() || self.any.iter().any(|pattern| pattern.fits(text)))
            && !self.none.iter().any(|pattern| pattern.fits(text))
    }
}

/// A glob; most are plain texts, which are compared much faster.
#[derive(Debug)]
enum Pattern {
    Text(String),
    /// With the plain text that it begins with, which rules most texts out.
    Glob(String, glob::Globs),
}

/// What makes a text a glob.
const WILD: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

impl Pattern {
    fn new(text: String) -> Self {
        let Some(wild) = text.find(WILD) else {
            return Pattern::Text(text);
        };
        match glob::Globs::new([text.as_str()], glob::Case::Counts) {
            Ok(glob) => Pattern::Glob(text[..wild].to_owned(), glob),
            Err(_) => Pattern::Text(text),
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Pattern::Text(own) => own == text,
            Pattern::Glob(begin, glob) => text.starts_with(begin) && glob.fit(text),
        }
    }

    fn begins_with(&self, text: &str) -> bool {
        match self {
            Pattern::Text(own) | Pattern::Glob(own, _) => own.starts_with(text),
        }
    }
}
