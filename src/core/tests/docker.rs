//! A model of a Docker engine: its containers, its ring of events, and a stream that may lose some.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::core::{Generation, Inspected, Inspection, Since, Time};
use crate::model::{Document, Event, Hello, Row, Summary, answer_digest};

/// The engine's clock at our time zero, in ns.
pub const T0: i64 = 1_700_000_000_000_000_000;

/// The engine's ring (moby `eventsLimit`).
const RING: usize = 256;

/// How long a stream is to last, in ns: the engine replays nothing that is younger than its end.
const SPAN_NS: i64 = 600_000_000_000;

/// What the model knows of a container.
#[derive(Clone, Debug)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub running: bool,
    pub paused: bool,
    /// Counts its runs.
    pub run: u32,
    /// Counts whatever else changes its document.
    pub version: u32,
    pub exit_code: i64,
    /// The filters let it through.
    pub member: bool,
    /// Bytes of its document beside the few that it has anyway.
    pub size: usize,
    pub labels: BTreeMap<String, String>,
}

/// How an event gets lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It does not.
    Yes,
    /// The stream drops it, the ring has it.
    Dropped,
    /// Nobody ever hears of it.
    Never,
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    pub generation: Generation,
    /// Where a renewal begins.
    pub since: Since,
    /// What the reader has not read.
    pub wire: VecDeque<Event>,
    /// Events that it told and did not replay.
    pub fresh: usize,
    replayed: usize,
}

impl Stream {
    /// The next event that arrives.
    pub fn hear(&mut self) -> Option<Event> {
        let event = self.wire.pop_front()?;
        self.since.told(event.time_ns);
        match self.replayed {
            0 => self.fresh += 1,
            _ => self.replayed -= 1,
        }
        Some(event)
    }
}

/// The engine.
#[derive(Debug)]
pub struct Docker {
    pub engine_id: String,
    pub alive: bool,
    pub containers: BTreeMap<String, Container>,
    pub ring: VecDeque<Event>,
    pub stream: Option<Stream>,
    /// The next one, what was said before it, and when.
    pub next: Option<(Stream, Hello, Time)>,
    /// How far its clock is off ours, beside [`T0`].
    pub skew_ns: i64,
    stamps: i64,
    /// Events that handlers want and that were ever told, in the order in which they happened, and when: `<ns> <action> <id>`.
    pub runs: Vec<(Time, String)>,
    /// Those from before the agent came: nobody is to be told.
    pub before: BTreeSet<String>,
    /// Those that the stream dropped, and nobody has heard of since.
    pub dropped: BTreeSet<String>,
    /// Those that nobody can have heard of.
    pub unheard: BTreeSet<String>,
}

impl Docker {
    pub fn new(engine_id: &str) -> Self {
        Docker {
            engine_id: engine_id.to_owned(),
            alive: true,
            containers: BTreeMap::new(),
            ring: VecDeque::new(),
            stream: None,
            next: None,
            skew_ns: 0,
            stamps: 0,
            runs: Vec::new(),
            before: BTreeSet::new(),
            dropped: BTreeSet::new(),
            unheard: BTreeSet::new(),
        }
    }

    pub fn clock_ns(&self, now: Time) -> i64 {
        T0 + now.as_nanos() as i64 + self.skew_ns
    }

    pub fn hello(&self, now: Time) -> Hello {
        Hello {
            api_version: "1.41".into(),
            engine_id: self.engine_id.clone(),
            host_name: format!("machine-of-{}", self.engine_id),
            clock_ns: self.clock_ns(now),
            ..Hello::default()
        }
    }

    /// Somebody opens a stream: what it begins with. Like moby, it looks from the newest event back to the first one that is too old.
    pub fn subscribe(&mut self, generation: Generation, since: Since, hello: &Hello) -> Stream {
        if since == Since::Now {
            // The store did not say in time where the last agent stopped.
            let before = self.runs.iter().map(|(_, text)| text.clone());
            self.unheard.extend(before);
        }
        let since_ns = since.begin_ns(hello.clock_ns);
        let until_ns = hello.clock_ns + SPAN_NS;
        let young = |event: &&Event| event.time_ns >= since_ns;
        let mut wire: VecDeque<Event> = VecDeque::new();
        let told = self.ring.iter().rev().take_while(young);
        for event in told.filter(|event| event.time_ns <= until_ns) {
            wire.push_front(event.clone());
        }
        Stream {
            generation,
            since: since.opened(hello.clock_ns),
            replayed: wire.len(),
            fresh: 0,
            wire,
        }
    }

    /// Something happened to an object; what the event's attributes say is as of now.
    pub fn emit(&mut self, now: Time, kind: &str, action: &str, id: &str, told: Told) {
        self.stamps += 1;
        let container = self.containers.get(id);
        let mut attributes: Vec<(Box<str>, Box<str>)> = Vec::new();
        if let Some(container) = container {
            attributes.push(("image".into(), container.image.as_str().into()));
            attributes.push(("name".into(), container.name.as_str().into()));
            if action == "die" {
                let code = container.exit_code.to_string();
                attributes.push(("exitCode".into(), code.as_str().into()));
            }
            for (name, value) in &container.labels {
                attributes.retain(|(own, _)| **own != **name);
                attributes.push((name.as_str().into(), value.as_str().into()));
            }
        }
        if kind == "network" {
            attributes = vec![("container".into(), id.into())];
        }
        let event = Event {
            kind: kind.into(),
            action: action.into(),
            id: if kind == "network" {
                "net".into()
            } else {
                id.into()
            },
            attributes: attributes.into_iter().collect(),
            time_ns: self.clock_ns(now) / 1000 * 1000 + self.stamps % 1000,
            ..Event::default()
        };
        if told == Told::Never {
            return;
        }
        if kind == "container" && matches!(action, "start" | "die" | "rename" | "pause") {
            self.runs.push((now, text(&event)));
            if told == Told::Dropped {
                self.dropped.insert(text(&event));
            }
        }
        if self.ring.len() == RING
            && let Some(forgotten) = self.ring.pop_front()
            && self.dropped.remove(&text(&forgotten))
        {
            self.unheard.insert(text(&forgotten));
        }
        self.ring.push_back(event.clone());
        if told == Told::Yes {
            let next = self.next.as_mut().map(|(stream, ..)| stream);
            for stream in self.stream.as_mut().into_iter().chain(next) {
                stream.wire.push_back(event.clone());
            }
        }
    }

    pub fn create(&mut self, now: Time, id: &str, name: &str, image: &str, told: Told) {
        self.create_with(now, id, name, image, BTreeMap::new(), told);
    }

    pub fn create_with(
        &mut self,
        now: Time,
        id: &str,
        name: &str,
        image: &str,
        labels: BTreeMap<String, String>,
        told: Told,
    ) {
        let container = Container {
            name: name.to_owned(),
            image: image.to_owned(),
            running: false,
            paused: false,
            run: 0,
            version: 0,
            exit_code: 0,
            member: true,
            size: 0,
            labels,
        };
        self.containers.insert(id.to_owned(), container);
        self.emit(now, "container", "create", id, told);
    }

    pub fn start(&mut self, now: Time, id: &str, told: Told) {
        if let Some(container) = self.containers.get_mut(id) {
            container.running = true;
            container.paused = false;
            container.run += 1;
            self.emit(now, "container", "start", id, told);
        }
    }

    pub fn die(&mut self, now: Time, id: &str, code: i64, told: Told) {
        if let Some(container) = self.containers.get_mut(id) {
            container.running = false;
            container.exit_code = code;
            self.emit(now, "container", "die", id, told);
        }
    }

    pub fn destroy(&mut self, now: Time, id: &str, told: Told) {
        self.emit(now, "container", "destroy", id, told);
        self.containers.remove(id);
    }

    pub fn rename(&mut self, now: Time, id: &str, name: &str, told: Told) {
        if let Some(container) = self.containers.get_mut(id) {
            container.name = name.to_owned();
            self.emit(now, "container", "rename", id, told);
        }
    }

    /// Something about it changes that does not end its run.
    pub fn change(&mut self, now: Time, id: &str, action: &str, told: Told) {
        if let Some(container) = self.containers.get_mut(id) {
            container.version += 1;
            container.paused = match action {
                "pause" => true,
                "unpause" => false,
                _ => container.paused,
            };
            self.emit(now, "container", action, id, told);
        }
    }

    pub fn list(&self, all: bool, filtered: bool) -> Vec<Row> {
        let shown = self
            .containers
            .iter()
            .filter(|(_, container)| all || container.running);
        shown
            .map(|(id, container)| Row {
                id: id.as_str().into(),
                running: container.running,
                member: !filtered || container.member,
            })
            .collect()
    }

    pub fn inspect(&self, asked: &Inspection, check_filters: bool) -> Inspected {
        let Some(container) = self.containers.get(asked.id.as_str()) else {
            return Inspected::Gone;
        };
        let document = document(asked.id.as_str(), container);
        let member = check_filters.then_some(container.member);
        match asked.known.is_some() && asked.known == document.answer {
            true => Inspected::Same { member },
            false => Inspected::Found {
                document: Arc::new(document),
                member,
            },
        }
    }
}

pub fn text(event: &Event) -> String {
    format!("{} {} {}", event.time_ns, event.action, event.id)
}

pub fn document(id: &str, container: &Container) -> Document {
    let started_at = format!("{id}-{}", container.run);
    let json = format!(
        r#"{{"Id":"{id}","Name":"/{}","Image":"{}","Running":{},"StartedAt":"{started_at}","Version":{},"ExitCode":{}}}"#,
        container.name, container.image, container.running, container.version, container.exit_code
    );
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    Document {
        fields: [("padding", " ".repeat(container.size).as_str())]
            .into_iter()
            .collect(),
        // So it changes now and then.
        shape: u64::from(container.version / 3 % 2),
        digest: hasher.finish(),
        answer: Some(answer_digest(json.as_bytes())),
        summary: Summary {
            name: container.name.as_str().into(),
            image: container.image.as_str().into(),
            running: container.running,
            paused: container.paused,
            started_at: started_at.as_str().into(),
            started_ns: None,
            exit_code: container.exit_code,
            hides_exit_code: container.labels.contains_key("exitCode"),
            labels: Some(
                container
                    .labels
                    .iter()
                    .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                    .collect(),
            ),
            ..Summary::default()
        },
        json: json.into(),
    }
}
