//! The thread `read:<engine>`: opens the engine's stream when the core orders it, and drains it into the inbox.
//!
//! While a stream is open nothing here waits for anything but the engine: an engine makes all its containers wait for a reader that does not read
//! (moby `daemon/events`: 100 ms an event, then it drops it). It ends when the orders' sender is dropped and its [`Socket`] is shut.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::core::backoff::Random;
use crate::core::{Generation, Input, Since, StreamEnd};
use crate::docker::client::{Connection, DockerErrorKind, Events};
use crate::docker::socket::Socket;
use crate::inbox::Door;
use crate::model::{Address, EngineIndex, Hello};
use crate::threads;

/// How much longer than it was to last a stream may live: the engine ends it itself, if it lives.
const OVERTIME: Duration = Duration::from_secs(10);

/// How often a reader to whom nothing is told looks whether that time is over. A limit on the silence alone would begin anew with each event.
const LOOK: Duration = Duration::from_secs(10);

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
    pub door: Door,
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
            door: &self.door,
        };
        let span = self.random.between(self.max_age / 2, self.max_age);
        report.end = match self.stream(order, span) {
            Ok(end) => end,
            Err(text) => StreamEnd::Failed(text),
        };
        ControlFlow::Continue(())
    }

    fn stream(&self, order: Order, span: Duration) -> Result<StreamEnd, String> {
        let connection = Connection::new(&self.address);
        if !self.socket.hold(connection.closer()) {
            return Err("the agent stops".to_owned());
        }
        let hello = connection.hello().map_err(|error| error.text)?;
        let opened = Instant::now();
        let until_ns = hello.clock_ns + span.as_nanos() as i64;
        let events = connection
            .events(
                &hello.api_version,
                since_ns(order.since, &hello),
                until_ns,
                LOOK,
            )
            .map_err(|error| error.text)?;
        self.door.put(Input::Connected {
            engine: self.engine,
            generation: order.generation,
            hello: Box::new(hello),
        });
        self.drain(order.generation, events, opened, span)
    }

    fn drain(
        &self,
        generation: Generation,
        mut events: Events,
        opened: Instant,
        span: Duration,
    ) -> Result<StreamEnd, String> {
        let mut bad_lines = 0;
        loop {
            match events.next() {
                Ok(Some(event)) => {
                    threads::rehearse();
                    self.door.event(self.engine, generation, event);
                    // An engine whose clock was set back would keep this stream for longer than it was meant to last.
                    if opened.elapsed() > span + OVERTIME {
                        return Ok(StreamEnd::Renewal);
                    }
                }
                Ok(None) if opened.elapsed() + Duration::from_secs(1) >= span => {
                    return Ok(StreamEnd::Renewal);
                }
                Ok(None) => return Ok(StreamEnd::Closed),
                Err(error) if error.kind == DockerErrorKind::BadLine => {
                    bad_lines += 1;
                    if bad_lines <= BAD_LINES {
                        log::warn!("{error}");
                    }
                }
                Err(error) if error.kind == DockerErrorKind::Timeout => {
                    if opened.elapsed() > span + OVERTIME {
                        return Ok(StreamEnd::Silent);
                    }
                }
                Err(error) => return Err(error.text),
            }
        }
    }
}

/// Where to begin, in the engine's clock. An engine whose clock was set back is asked for all it has: it stops looking at the first event that is
/// too old, and what it stamped since is older than what we remember.
fn since_ns(since: Since, hello: &Hello) -> i64 {
    match since {
        Since::Now => hello.clock_ns,
        Since::At { newest_ns, .. } if hello.clock_ns < newest_ns => 1,
        Since::At { oldest_ns, .. } => oldest_ns,
    }
}

/// Tells the core how a connection ended, even when it ended by a panic.
struct Report<'a> {
    engine: EngineIndex,
    generation: Generation,
    end: StreamEnd,
    door: &'a Door,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        self.door.put(Input::Disconnected {
            engine: self.engine,
            generation: self.generation,
            end: self.end.clone(),
        });
    }
}
