//! What the rules are asked about: an event, and what is known of its container.

use crate::core::known::Known;
use crate::model::{Cause, Event, LabelList, Summary};

/// Something that an event's line does not tell by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fact<T> {
    /// It is so.
    Is(T),
    /// There is no such thing, or nobody will ever know.
    None,
    /// An inspect may tell.
    Pending,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The event.
    pub event: &'a Event,
    /// The engine's name.
    pub engine: &'a str,
    /// The container's name, without a slash.
    pub container: Fact<&'a str>,
    /// The image's reference.
    pub image: Fact<&'a str>,
    /// The labels that the container's last document has.
    pub labels: Fact<&'a LabelList>,
    /// The exit code of a `die`.
    pub exit_code: Fact<i64>,
    /// Why it died, where it did not by itself.
    pub asked: Option<Cause>,
}

/// Attributes that moby itself puts into containers' events, so that a label of that name cannot be told from them.
const OWN: [&str; 13] = [
    "name",
    "image",
    "exitCode",
    "signal",
    "oldName",
    "execID",
    "execDuration",
    "comment",
    "imageID",
    "imageRef",
    "height",
    "width",
    "path",
];

impl<'a> Subject<'a> {
    /// An event with what is known by now. `facts` are what the last inspect said; `revision` is the change of the container that the event stands for,
    /// and 0 where no inspect will follow.
    pub fn new(
        event: &'a Event,
        engine: &'a str,
        known: &'a Known,
        facts: Option<&'a Summary>,
        revision: u64,
    ) -> Self {
        let id = event.container().unwrap_or_default();
        let labels = known.labels(id);
        let fact = |text: Option<&'a str>| match text.filter(|text| !text.is_empty()) {
            Some(text) => Fact::Is(text),
            None if revision == 0 => Fact::None,
            None => Fact::Pending,
        };
        Subject {
            event,
            engine,
            container: fact(name(event, known, || facts)),
            image: fact(image(event, known, facts)),
            labels: match labels.or(facts.and_then(|facts| facts.labels.as_ref())) {
                Some(labels) => Fact::Is(labels),
                None if revision == 0 => Fact::None,
                None => Fact::Pending,
            },
            exit_code: exit_code(event, known, revision),
            asked: is_end(event)
                .then(|| known.cause(id, event.time_ns))
                .flatten(),
        }
    }

    /// Is this a container's end?
    pub fn is_end(&self) -> bool {
        is_end(self.event)
    }

    /// Nothing more will be known.
    pub fn settle(&mut self) {
        self.container.settle();
        self.image.settle();
        self.labels.settle();
        self.exit_code.settle();
    }

    /// The value of a label of its container.
    pub fn label(&self, name: &str) -> Fact<&'a str> {
        let own = OWN.contains(&name);
        if &*self.event.kind == "container"
            && !own
            && let Some(value) = self.event.attribute(name)
        {
            return Fact::Is(value);
        }
        match self.labels {
            Fact::Is(labels) => {
                let mut labels = labels.iter();
                let found = labels.find(|(known, _)| &**known == name);
                found.map_or(Fact::None, |(_, value)| Fact::Is(&**value))
            }
            // What a container's own event does not carry, the container does not have.
            Fact::Pending if &*self.event.kind != "container" || own => Fact::Pending,
            _ => Fact::None,
        }
    }

    /// Why it died. One whose exit code nobody knows is taken for a crash.
    pub fn cause(&self) -> Fact<Cause> {
        match (self.asked, self.exit_code) {
            _ if !self.is_end() => Fact::None,
            (Some(cause), _) => Fact::Is(cause),
            (None, Fact::Pending) => Fact::Pending,
            (None, Fact::Is(0)) => Fact::None,
            (None, _) => Fact::Is(Cause::Crash),
        }
    }
}

impl<T> Fact<T> {
    fn settle(&mut self) {
        if matches!(self, Fact::Pending) {
            *self = Fact::None;
        }
    }

    /// What is so, if anything is.
    pub fn known(self) -> Option<T> {
        match self {
            Fact::Is(value) => Some(value),
            Fact::None | Fact::Pending => None,
        }
    }
}

/// The name (without a slash) of the container that an event is about, as the event has it, else as the last inspect did. An event that has it saves
/// the search for its container.
pub fn name<'a>(
    event: &'a Event,
    known: &'a Known,
    facts: impl FnOnce() -> Option<&'a Summary>,
) -> Option<&'a str> {
    let heard = || Some(known.names(event.container()?)?.0);
    let name = own(event, "name").or_else(heard);
    let name = name.or_else(|| Some(&*facts()?.name));
    name.map(|name| name.trim_start_matches('/'))
}

/// Its image, likewise.
fn image<'a>(event: &'a Event, known: &'a Known, facts: Option<&'a Summary>) -> Option<&'a str> {
    if &*event.kind == "image" {
        return event.attribute("name").or(Some(&event.id));
    }
    let heard = || Some(known.names(event.container()?)?.1);
    let image = own(event, "image").or_else(heard);
    image.or_else(|| Some(&*facts?.image))
}

/// What an event says of its container itself.
fn own<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let is_own = &*event.kind == "container";
    is_own.then(|| event.attribute(name)).flatten()
}

fn is_end(event: &Event) -> bool {
    &*event.kind == "container" && event.verb() == "die"
}

/// The event's own exit code, unless a label stands in its place: then the one that an inspect found, if it still found that end.
fn exit_code(event: &Event, known: &Known, revision: u64) -> Fact<i64> {
    if !is_end(event) {
        return Fact::None;
    }
    let own = event.attribute("exitCode");
    let number = own.and_then(|text| text.parse().ok());
    if revision != 0 && (known.hides_exit_code(&event.id) || (own.is_some() && number.is_none())) {
        let found = known.exit_code(&event.id, revision);
        return found.map_or(Fact::Pending, Fact::Is);
    }
    number.map_or(Fact::None, Fact::Is)
}
