//! The thread `read:<engine>`: opens the engine's stream when the core orders it, and drains it into the inbox.
//!
//! While a stream is open nothing here waits for anything but the engine: an engine makes all its containers wait for a reader that does not read
//! (moby `daemon/events`: 100 ms an event, then it drops it). Each stream is bounded, so that one that died without a word is noticed; the next one
//! is opened a moment before, so that the engine always has somebody to tell. The thread ends when the orders' sender is dropped and its
//! [`Socket`] is shut.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::core::backoff::Random;
use crate::core::{Generation, Input, Since, StreamEnd};
use crate::docker::client::{Connection, DockerErrorKind, Events, INFO_LIMIT};
use crate::docker::socket::Socket;
use crate::inbox::Gate;
use crate::model::{Address, EngineIndex, Hello};
use crate::threads;

/// How long before the end of a stream the engine is asked who it is, for the next one. That may take its time, in which nobody reads.
const GREET: Duration = Duration::from_secs(1);

/// How long it may take; in so much time an engine would have to tell a thousand events before it waited for us.
const GREET_LIMIT: Duration = Duration::from_secs(5);

/// How long before its end the next stream is opened: an engine sends the headers first and subscribes after. What it tells in this time is told
/// twice, and waits on the next stream, where the engine has room for a thousand events.
const OVERLAP: Duration = Duration::from_millis(100);

/// How much longer than it was to last a stream may live: the engine ends it itself, if it lives.
const OVERTIME: Duration = Duration::from_secs(2);

/// Lines of one stream that make no sense and are told; more would fill the log.
const BAD_LINES: u32 = 5;

/// Open a stream.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The connection's number.
    pub generation: Generation,
    /// From when on it is to tell.
    pub since: Since,
}

/// What one reader is made of.
#[derive(Debug)]
pub struct Reader {
    /// Whose.
    pub engine: EngineIndex,
    /// Where it answers.
    pub address: Address,
    /// The longest that a stream is kept before it is renewed; the upper half is drawn.
    pub max_age: Duration,
    /// For that draw.
    pub random: Random,
    /// Where orders come from.
    pub orders: Receiver<Order>,
    /// Where what is read goes.
    pub door: Gate,
    /// What a stop shuts.
    pub socket: Socket,
}

impl Reader {
    /// Serves one order.
    pub fn run(&mut self) -> ControlFlow<()> {
        let Ok(order) = self.orders.recv() else {
            return ControlFlow::Break(());
        };
        // The core waits for the end of what it ordered, whatever happens here.
        let mut report = Report {
            engine: self.engine,
            generation: order.generation,
            end: StreamEnd::Failed("the reader panicked".to_owned()),
            door: self.door.clone(),
        };
        report.end = match self.stream(order) {
            Ok(end) => end,
            Err(text) => StreamEnd::Failed(text),
        };
        ControlFlow::Continue(())
    }

    /// Follows the engine until it is lost: one stream after the other.
    fn stream(&mut self, order: Order) -> Result<StreamEnd, String> {
        let mut since = order.since;
        let mut stream = self.open(self.greet(INFO_LIMIT)?, &mut since)?;
        loop {
            self.door.put(Input::Connected {
                engine: self.engine,
                generation: order.generation,
                hello: Box::new(stream.hello.clone()),
            });
            let due = stream.ends - GREET;
            if self.drain(&mut stream, order.generation, &mut since, due)? {
                return Ok(StreamEnd::Closed);
            }
            let greeting = self.greet(GREET_LIMIT)?;
            let due = stream.ends - OVERLAP;
            self.drain(&mut stream, order.generation, &mut since, due)?;
            let mut next = self.open(greeting, &mut since)?;
            let opened = Instant::now();
            let latest = stream.ends.max(opened) + OVERTIME;
            if !self.drain(&mut stream, order.generation, &mut since, latest)? {
                return Ok(StreamEnd::Silent);
            }
            next.hello.clock_ns += opened.elapsed().as_nanos() as i64;
            stream = next;
        }
    }

    /// Connects, and asks the engine who it is.
    fn greet(&self, limit: Duration) -> Result<Greeting, String> {
        let began = Instant::now();
        let connection = Connection::new(&self.address);
        if !self.socket.hold(connection.closer()) {
            return Err("the agent stops".to_owned());
        }
        let hello = connection.hello(limit).map_err(|error| error.text)?;
        Ok(Greeting {
            connection,
            hello,
            took: began.elapsed(),
            at: Instant::now(),
        })
    }

    /// Opens a stream.
    fn open(&mut self, greeting: Greeting, since: &mut Since) -> Result<Stream, String> {
        let mut hello = greeting.hello;
        hello.clock_ns += greeting.at.elapsed().as_nanos() as i64;
        let span = self.random.between(self.max_age / 2, self.max_age);
        let ends = Instant::now() + span;
        let since_ns = since.begin_ns(hello.clock_ns);
        let until_ns = hello.clock_ns + (greeting.took + span).as_nanos() as i64;
        let events = greeting
            .connection
            .events(&hello.api_version, since_ns, until_ns)
            .map_err(|error| error.text)?;
        *since = since.opened(hello.clock_ns);
        Ok(Stream {
            events,
            hello,
            ends,
            bad_lines: 0,
        })
    }

    /// Passes on what a stream tells, until `by`. `true`: the engine ended it.
    fn drain(
        &self,
        stream: &mut Stream,
        generation: Generation,
        since: &mut Since,
        by: Instant,
    ) -> Result<bool, String> {
        loop {
            match stream.events.next(by) {
                Ok(Some(event)) => {
                    threads::rehearse();
                    since.told(event.time_ns);
                    self.door.event(self.engine, generation, event);
                }
                Ok(None) => return Ok(true),
                Err(error) if error.kind == DockerErrorKind::BadLine => {
                    stream.bad_lines += 1;
                    if stream.bad_lines <= BAD_LINES {
                        log::warn!("{error}");
                    }
                }
                Err(error) if error.kind == DockerErrorKind::Timeout => return Ok(false),
                Err(error) => return Err(error.text),
            }
        }
    }
}

/// An engine that said who it is.
struct Greeting {
    connection: Connection,
    hello: Hello,
    /// How long it took over it: its clock may stand so much later than it said.
    took: Duration,
    /// When it had said it.
    at: Instant,
}

/// An open stream.
struct Stream {
    events: Events,
    /// What the engine said of itself.
    hello: Hello,
    /// When the engine is to end it.
    ends: Instant,
    /// Lines that made no sense.
    bad_lines: u32,
}

/// Tells the core how a connection ended, even when it ended by a panic.
struct Report {
    engine: EngineIndex,
    generation: Generation,
    end: StreamEnd,
    door: Gate,
}

impl Drop for Report {
    fn drop(&mut self) {
        self.door.put(Input::Disconnected {
            engine: self.engine,
            generation: self.generation,
            end: self.end.clone(),
        });
    }
}
