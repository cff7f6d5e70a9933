//! The event stream by moby's rules: a ring of the last 256 events that `since` reads, a queue of 1,024 for each subscriber; who publishes into a
//! full queue waits 100 ms for room, then the event is dropped and nobody is told.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `container`, `network`, …
    pub kind: String,
    /// `start`, `exec_create: ls`, …
    pub action: String,
    /// The object's id.
    pub id: String,
    /// `Actor.Attributes`.
    pub attributes: Vec<(String, String)>,
    /// The engine's clock, ns since 1970.
    pub time_ns: i64,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// As every engine from 1.22 to 1.51 does: the new fields, and the old ones for containers and images.
    Both,
    /// From 1.52 on: `status`, `id` and `from` are gone.
    New,
    /// Before 1.22: `status`, `id`, `from`, `time`, and nothing else.
    Old,
    /// The new fields as JSON text sequences: each line begins with 0x1E.
    JsonSeq,
}

impl Event {
    /// The line that tells it, without a newline.
    pub fn line(&self, schema: Schema) -> String {
        let mut object = Map::new();
        let container = self.kind == "container" || self.kind == "image";
        if container && matches!(schema, Schema::Both | Schema::Old) {
            object.insert("status".into(), json!(self.action));
            object.insert("id".into(), json!(self.id));
            if let Some((_, image)) = self.attributes.iter().find(|(key, _)| key == "image") {
                object.insert("from".into(), json!(image));
            }
        }
        object.insert("time".into(), json!(self.time_ns / 1_000_000_000));
        if schema != Schema::Old {
            let attributes: Map<String, Value> = self
                .attributes
                .iter()
                .map(|(key, value)| (key.clone(), json!(value)))
                .collect();
            object.insert("Type".into(), json!(self.kind));
            object.insert("Action".into(), json!(self.action));
            let actor = json!({ "ID": self.id, "Attributes": attributes });
            object.insert("Actor".into(), actor);
            object.insert("scope".into(), json!("local"));
            object.insert("timeNano".into(), json!(self.time_ns));
        }
        let mark = if schema == Schema::JsonSeq {
            "\x1e"
        } else {
            ""
        };
        format!("{mark}{}", Value::Object(object))
    }
}

/// What a subscriber is sent.
#[derive(Debug)]
pub enum Item {
    /// An event, written in whatever schema the engine uses at that moment.
    Event(Event),
    /// These bytes as they are.
    Raw(Vec<u8>),
}

/// The ring and the subscribers.
pub struct Broker {
    inner: Mutex<Inner>,
}

struct Inner {
    ring: VecDeque<Arc<Item>>,
    ring_size: usize,
    subscribers: Vec<Arc<Subscriber>>,
    /// Of the next so many events no subscriber hears.
    to_drop: u64,
    dropped: u64,
    published: u64,
}

/// Room for events of one subscriber, as in moby.
pub const QUEUE: usize = 1024;
/// How many events the engine remembers, as in moby.
pub const RING: usize = 256;
/// How long the engine waits for room, as in moby.
pub const PATIENCE: Duration = Duration::from_millis(100);

impl Default for Broker {
    fn default() -> Self {
        Broker {
            inner: Mutex::new(Inner {
                ring: VecDeque::new(),
                ring_size: RING,
                subscribers: Vec::new(),
                to_drop: 0,
                dropped: 0,
                published: 0,
            }),
        }
    }
}

impl Broker {
    /// Remembers an event and tells it to all subscribers; waits where they have no room.
    pub fn publish(&self, item: Item) {
        let item = Arc::new(item);
        let subscribers = {
            let mut inner = self.lock();
            if matches!(*item, Item::Event(_)) {
                inner.published += 1;
                inner.ring.push_back(item.clone());
                while inner.ring.len() > inner.ring_size {
                    inner.ring.pop_front();
                }
                if inner.to_drop > 0 {
                    inner.to_drop -= 1;
                    inner.dropped += 1;
                    return;
                }
            }
            inner.subscribers.clone()
        };
        // moby offers the event to all subscribers at once: they share the 100 ms.
        let deadline = Instant::now() + PATIENCE;
        for subscriber in subscribers {
            if !subscriber.push(&item, deadline) {
                self.lock().dropped += 1;
                subscriber.lock().dropped += 1;
            }
        }
    }

    /// Subscribes; answers as well the events of the past that `since` and `until` (both inclusive, in ns) ask for.
    pub fn subscribe(
        &self,
        since_ns: Option<i64>,
        until_ns: Option<i64>,
    ) -> (Vec<Arc<Item>>, Arc<Subscriber>) {
        let mut inner = self.lock();
        let mut past = VecDeque::new();
        if since_ns.is_some() || until_ns.is_some() {
            for item in inner.ring.iter().rev() {
                let Item::Event(event) = &**item else {
                    continue;
                };
                // moby walks back and stops at the first event that is too old, though stamps are not strictly in order.
                if event.time_ns < since_ns.unwrap_or(0) {
                    break;
                }
                if until_ns.is_none_or(|until| event.time_ns <= until) {
                    past.push_front(item.clone());
                }
            }
        }
        let subscriber = Arc::new(Subscriber::default());
        inner.subscribers.push(subscriber.clone());
        (past.into(), subscriber)
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, subscriber: &Arc<Subscriber>) {
        self.lock()
            .subscribers
            .retain(|other| !Arc::ptr_eq(other, subscriber));
        subscriber.close();
    }

    /// All streams that are open now go silent: nothing comes any more, not even their end.
    pub fn silence(&self) {
        for subscriber in &self.lock().subscribers {
            subscriber.lock().silent = true;
        }
    }

    /// Ends all streams cleanly, as if their `until` had come.
    pub fn end(&self) {
        for subscriber in &self.lock().subscribers {
            subscriber.lock().ended = true;
            subscriber.changed.notify_all();
        }
    }

    /// Ends all subscriptions and forgets the past, as a restart does.
    pub fn forget(&self) {
        let mut inner = self.lock();
        inner.ring.clear();
        for subscriber in inner.subscribers.drain(..) {
            subscriber.close();
        }
    }

    /// Of the next `count` events no subscriber hears, as if its queue had been full; the ring has them.
    pub fn drop_next(&self, count: u64) {
        self.lock().to_drop = count;
    }

    /// How many events the engine remembers from now on.
    pub fn resize(&self, size: usize) {
        let mut inner = self.lock();
        inner.ring_size = size;
        while inner.ring.len() > size {
            inner.ring.pop_front();
        }
    }

    /// Events that a subscriber did not get.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// The same for each stream that is open, oldest first.
    pub fn dropped_each(&self) -> Vec<u64> {
        let inner = self.lock();
        let each = inner.subscribers.iter();
        each.map(|subscriber| subscriber.lock().dropped).collect()
    }

    /// Events so far.
    pub fn published(&self) -> u64 {
        self.lock().published
    }

    /// Streams that are open.
    pub fn subscribers(&self) -> usize {
        self.lock().subscribers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's queue.
#[derive(Default)]
pub struct Subscriber {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Item>>,
    dropped: u64,
    closed: bool,
    silent: bool,
    ended: bool,
}

/// What a stream is to do next.
pub enum Next {
    /// Write this.
    Item(Arc<Item>),
    /// The time that `until` named has come.
    Until,
    /// The engine goes down.
    Closed,
}

impl Subscriber {
    /// Waits for the next item, until the deadline where there is one. A silent stream ends only with the engine.
    pub fn next(&self, until: Option<Instant>) -> Next {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return Next::Closed;
            }
            if queue.silent {
                queue.waiting.clear();
                self.changed.notify_all();
                queue = self.wait(queue, None);
                continue;
            }
            if let Some(item) = queue.waiting.pop_front() {
                if queue.waiting.len() + 1 == QUEUE {
                    self.changed.notify_all();
                }
                return Next::Item(item);
            }
            if queue.ended || until.is_some_and(|until| until <= Instant::now()) {
                return Next::Until;
            }
            queue = self.wait(queue, until);
        }
    }

    fn push(&self, item: &Arc<Item>, deadline: Instant) -> bool {
        let mut queue = self.lock();
        while queue.waiting.len() >= QUEUE && !queue.closed {
            if Instant::now() >= deadline {
                return false;
            }
            queue = self.wait(queue, Some(deadline));
        }
        queue.waiting.push_back(item.clone());
        if queue.waiting.len() == 1 || queue.silent {
            self.changed.notify_all();
        }
        true
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait<'a>(
        &self,
        queue: MutexGuard<'a, Queue>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, Queue> {
        let Some(until) = until else {
            return self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        };
        let left = until.saturating_duration_since(Instant::now());
        self.changed
            .wait_timeout(queue, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
