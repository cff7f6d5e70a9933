//! The one channel into the core, with a credit for each engine.
//!
//! Nobody blocks here. A reader without credit drops the event and raises its engine's flag, which the core sees with that engine's next input as a
//! gap of that engine alone: one engine's storm costs the others nothing. All else is bounded by what the core has asked for: 64 answers an engine,
//! one reply of the store, one end for each command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use crate::core::{Generation, Input};
use crate::model::{EngineIndex, Event};
use crate::queue::{Receiver, Sender, queue};

/// Events of one engine that may wait for the core, about 1 kB each: a burst of 10,000 is promised to be handled whole, however busy the core is.
const EVENTS: u32 = 16_384;

#[derive(Debug)]
struct Credit {
    events: AtomicU32,
    lost: AtomicBool,
}

/// The core's end.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Input>,
    /// A door for those who bring what comes from an engine.
    door: Door,
    credits: Vec<Arc<Credit>>,
    /// A gap that is to be told before the next input.
    overrun: Option<EngineIndex>,
}

/// Everybody else's end.
#[derive(Clone, Debug)]
pub struct Door {
    sender: Sender<Input>,
}

/// The end of one engine's reader.
#[derive(Clone, Debug)]
pub struct Gate {
    door: Door,
    credit: Arc<Credit>,
}

/// An empty inbox.
pub fn inbox() -> (Inbox, Door) {
    let (sender, receiver) = queue(usize::MAX);
    let door = Door { sender };
    let inbox = Inbox {
        receiver,
        door: door.clone(),
        credits: Vec::new(),
        overrun: None,
    };
    (inbox, door)
}

impl Door {
    /// Puts in whatever is not an event.
    pub fn put(&self, input: Input) {
        // The core ends before those who feed it; what comes then is of no use any more, and dropped.
        self.sender.send(input);
    }
}

impl Gate {
    /// The way in for all that is not an event.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Puts in whatever is not an event.
    pub fn put(&self, input: Input) {
        self.door.put(input);
    }

    /// Puts in an event, or counts it as lost when its engine has no credit left. The core hears of it by [`Gate::wake`], for all that came together.
    pub fn event(&self, engine: EngineIndex, generation: Generation, event: Event) {
        let credit = &self.credit;
        let left = |events: u32| events.checked_sub(1);
        if credit
            .events
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, left)
            .is_err()
        {
            credit.lost.store(true, Ordering::Release);
            // The core may have taken all that waited in between: then no event of this engine is left that would tell it.
            if credit.events.load(Ordering::Acquire) == EVENTS
                && credit.lost.swap(false, Ordering::AcqRel)
            {
                self.put(Input::Overrun { engine });
            }
            return;
        }
        self.door.sender.add(Input::Event {
            engine,
            generation,
            event,
        });
    }

    /// Has the core look at the events that were put in.
    pub fn wake(&self) {
        self.door.sender.wake();
    }
}

impl Inbox {
    /// The gate of an engine; all gates that were ever made for it share one credit.
    pub fn gate(&mut self, engine: EngineIndex) -> Gate {
        while self.credits.len() <= engine.at() {
            self.credits.push(Arc::new(Credit {
                events: AtomicU32::new(EVENTS),
                lost: AtomicBool::new(false),
            }));
        }
        Gate {
            door: self.door.clone(),
            credit: self.credits[engine.at()].clone(),
        }
    }

    /// The next input; `None` when there is none by then.
    pub fn next(&mut self, until: Option<Instant>) -> Option<Input> {
        if let Some(engine) = self.overrun.take() {
            return Some(Input::Overrun { engine });
        }
        let input = self.receiver.receive(until).ok()?;
        Some(self.credited(input))
    }

    /// The next input that is there already.
    pub fn waiting(&mut self) -> Option<Input> {
        if let Some(engine) = self.overrun.take() {
            return Some(Input::Overrun { engine });
        }
        let input = self.receiver.waiting()?;
        Some(self.credited(input))
    }

    fn credited(&mut self, input: Input) -> Input {
        if let Input::Event { engine, .. } = &input {
            let credit = &self.credits[engine.at()];
            credit.events.fetch_add(1, Ordering::AcqRel);
            if credit.lost.swap(false, Ordering::Acquire) {
                self.overrun = Some(*engine);
            }
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EngineIndex = EngineIndex(0);
    const B: EngineIndex = EngineIndex(1);

    #[test]
    fn an_engine_without_credit_loses_its_own_events_and_says_so_once() {
        let (mut inbox, _) = inbox();
        let (a, b) = (inbox.gate(A), inbox.gate(B));
        for _ in 0..EVENTS + 10 {
            a.event(A, 1, Event::default());
        }
        b.event(B, 1, Event::default());
        let mut events = [0, 0];
        let mut overruns = Vec::new();
        while let Some(input) = inbox.waiting() {
            match input {
                Input::Event { engine, .. } => events[engine.at()] += 1,
                Input::Overrun { engine } => overruns.push(engine),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(events, [EVENTS, 1]);
        assert_eq!(overruns, [A]);
        inbox.gate(A).event(A, 1, Event::default());
        assert!(matches!(inbox.waiting(), Some(Input::Event { .. })));
        assert!(inbox.waiting().is_none());
    }
}
