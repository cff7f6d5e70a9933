//! The threads of the engines, a slot for each: started, given work, ended, while those of other engines go on.
//!
//! Nothing here blocks the caller: threads that are to end are told so, and whoever waits for them does so at the very end, with all others.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::core::backoff::Random;
use crate::core::{Input, StreamEnd};
use crate::docker::document::Masker;
use crate::docker::socket::Socket;
use crate::inbox::Gate;
use crate::model::{Engine, EngineIndex};
use crate::queue;
use crate::reader::{Order, Reader};
use crate::syncer::{Ask, Desk, Syncer};
use crate::threads::{self, Hung, Thread};

/// One list and two asks of inspects are under way at the most; one more of each after a reconnect.
const ASKS: usize = 8;

/// What is the same for the threads of all engines.
#[derive(Debug)]
pub struct Shared {
    /// The longest that a stream is kept before it is renewed.
    pub stream_max_age: Duration,
    /// Stopped containers are wanted as well.
    pub all: bool,
    /// Docker's list filters.
    pub filters: Arc<[(String, String)]>,
    /// What is masked.
    pub masker: Arc<Masker>,
    /// For jitter.
    pub random: Random,
    /// There may be handlers.
    pub handlers: bool,
}

/// All engines' threads.
#[derive(Debug)]
pub struct Engines {
    shared: Shared,
    slots: Vec<Slot>,
    /// Those that were told to end and may not have.
    leaving: Vec<Thread>,
}

#[derive(Debug)]
struct Slot {
    engine: Engine,
    gate: Gate,
    /// None while the engine is not watched, or where the system had no thread left.
    crew: Option<Crew>,
}

/// A reader and a syncer. Dropped, they end.
#[derive(Debug)]
struct Crew {
    orders: Sender<Order>,
    asks: queue::Sender<Ask>,
    sockets: [Socket; 4],
    threads: Vec<Thread>,
    /// Dropped with the crew: a thread that pauses after a panic goes on no more.
    _going: Sender<()>,
}

impl Engines {
    /// No engine yet.
    pub fn new(shared: Shared) -> Self {
        Engines {
            shared,
            slots: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Watches an engine: a new one, one that had left, or one that is to be reached in another way from now on.
    ///
    /// # Errors
    /// The system has no thread left; each connect will try again.
    pub fn watch(&mut self, index: EngineIndex, engine: Engine, gate: Gate) -> io::Result<()> {
        self.unwatch(index);
        let slot = Slot {
            engine,
            gate,
            crew: None,
        };
        match self.slots.get_mut(index.at()) {
            Some(place) => *place = slot,
            // The core gives the indices, one after the other.
            None => self.slots.push(slot),
        }
        self.man(index)
    }

    /// Ends an engine's threads, and waits for none of them.
    pub fn unwatch(&mut self, index: EngineIndex) {
        let crew = self
            .slots
            .get_mut(index.at())
            .and_then(|slot| slot.crew.take());
        if let Some(crew) = crew {
            self.leaving.retain(|thread| !thread.has_ended());
            self.leaving.extend(crew.end());
        }
    }

    /// Has a stream opened. The core waits for its end, whatever happens here.
    pub fn connect(&mut self, index: EngineIndex, order: Order) {
        let ready = self.man(index);
        let Some(slot) = self.slots.get(index.at()) else {
            return;
        };
        match (ready, &slot.crew) {
            (Ok(()), Some(crew)) => give(&crew.orders, order),
            (Err(error), _) => slot.gate.put(Input::Disconnected {
                engine: index,
                generation: order.generation,
                end: StreamEnd::Failed(error.to_string()),
            }),
            (Ok(()), None) => {}
        }
    }

    /// Asks an engine.
    pub fn ask(&self, index: EngineIndex, ask: Ask) {
        let slot = self.slots.get(index.at());
        if let Some(crew) = slot.and_then(|slot| slot.crew.as_ref()) {
            crew.asks.send(ask);
        }
    }

    /// Tells all threads to end.
    pub fn end(&mut self) {
        for slot in &mut self.slots {
            self.leaving
                .extend(slot.crew.take().into_iter().flat_map(Crew::end));
        }
    }

    /// Waits until then for the threads that were told to end; says which did not.
    pub fn join_by(self, deadline: Instant) -> Vec<Hung> {
        self.leaving
            .into_iter()
            .filter_map(|thread| thread.join_by(deadline).err())
            .collect()
    }

    /// Starts the threads of a slot that has none.
    fn man(&mut self, index: EngineIndex) -> io::Result<()> {
        match self.slots.get_mut(index.at()) {
            Some(slot) if slot.crew.is_none() => {
                slot.crew = Some(crew(&mut self.shared, index, slot)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Crew {
    /// Tells the threads to end.
    fn end(self) -> Vec<Thread> {
        for socket in &self.sockets {
            socket.shut();
        }
        self.threads
    }
}

fn crew(shared: &mut Shared, index: EngineIndex, slot: &Slot) -> io::Result<Crew> {
    let (engine, gate) = (&slot.engine, &slot.gate);
    let (going, stop) = bounded::<()>(0);
    let (order, orders) = bounded(1);
    let sockets: [Socket; 4] = Default::default();
    let mut reader = Reader {
        engine: index,
        name: engine.name.clone(),
        address: engine.address.clone(),
        max_age: shared.stream_max_age,
        random: Random::new(shared.random.draw()),
        handlers: shared.handlers,
        orders,
        door: gate.clone(),
        sockets: [sockets[0].clone(), sockets[1].clone()],
    };
    let (ask, asks) = queue::queue(ASKS);
    let desk = Desk {
        engine: index,
        name: engine.name.clone(),
        address: engine.address.clone(),
        all: shared.all,
        filters: shared.filters.clone(),
        masker: shared.masker.clone(),
        door: gate.door().clone(),
    };
    let mut syncer = Syncer::new(desk, asks, (sockets[2].clone(), sockets[3].clone()));
    let mut crew = Crew {
        orders: order,
        asks: ask,
        sockets,
        threads: Vec::new(),
        _going: going,
    };
    // Should the second not start, the first ends with the crew.
    let name = format!("read:{}", engine.name);
    let read = threads::supervise(&name, stop.clone(), move || reader.run())?;
    crew.threads.push(read);
    let name = format!("sync:{}", engine.name);
    let sync = threads::supervise(&name, stop, move || syncer.run())?;
    crew.threads.push(sync);
    Ok(crew)
}

/// Gives without waiting. The core counts what it has given, so a full channel is a fault of ours that must not pass unseen.
fn give<T>(sender: &Sender<T>, item: T) {
    if let Err(error) = sender.try_send(item) {
        assert!(
            !error.is_full(),
            "more was asked of a thread than it has room for"
        );
    }
}
