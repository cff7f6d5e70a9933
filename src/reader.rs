//! The thread `read:<engine>`: opens the engine's stream when the core orders it, and drains it into the inbox.
//!
//! While a stream is open nothing here waits for anything but what it tells: an engine makes all its containers wait for a reader that does not read
//! (moby `daemon/events`: 100 ms an event, then it drops it). Each stream is bounded, so that one that died without a word is noticed; the next one
//! is opened a moment before, by the thread `next:<engine>`, which also asks the engine who it is: that may take seconds. A reader ends when the
//! orders' sender is dropped and its [`Socket`]s are shut.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::core::backoff::Random;
use crate::core::{Generation, Input, Since, StreamEnd};
use crate::docker::client::{Connection, DockerErrorKind, Events, INFO_LIMIT};
use crate::docker::socket::Socket;
use crate::inbox::Gate;
use crate::model::{Address, EngineIndex, Hello};
use crate::threads;

/// How long before the end of a stream the engine is asked who it is, for the next one: as long as the slowest of its answers may take, so that an
/// engine under load is in time. Not much sooner: another may answer by then.
const GREET: Duration = INFO_LIMIT;

/// How long before its end the next stream is opened: an engine sends the headers first and subscribes after. What it tells in this time is told
/// twice, and waits on the next stream, where the engine has room for a thousand events.
const OVERLAP: Duration = Duration::from_millis(100);

/// How much longer than it was to last a stream may live: the engine ends it itself, if it lives.
const OVERTIME: Duration = Duration::from_secs(2);

/// How long after its end the next one may come. What is told in between is told late; what is told much later would look as if it had been lost.
const HOLE: Duration = Duration::from_millis(500);

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
    /// Its name, for the other thread's.
    pub name: Arc<str>,
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
    /// What a stop shuts: that of the stream, and that of the next one.
    pub sockets: [Socket; 2],
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
        let span = self.span();
        let greeting = greet(&self.address, &self.sockets[0])?;
        let mut stream = greeting.open(since, span)?;
        since = since.opened(stream.hello.clock_ns);
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
            let next = self.prepare();
            let due = stream.ends - OVERLAP;
            // A process that was frozen meanwhile finds the stream at its end.
            if self.drain(&mut stream, order.generation, &mut since, due)? && Instant::now() < due {
                return Ok(StreamEnd::Closed);
            }
            let latest = next.open(since, stream.ends) + stream.slack + OVERTIME;
            if !self.drain(&mut stream, order.generation, &mut since, latest)? {
                return Ok(StreamEnd::Silent);
            }
            stream = next.opened()?;
            stream.hello.clock_ns += stream.opened.elapsed().as_nanos() as i64;
            self.sockets.swap(0, 1);
        }
    }

    /// How long a stream is to last.
    fn span(&mut self) -> Duration {
        self.random.between(self.max_age / 2, self.max_age)
    }

    /// Has the next stream opened, while this one is read.
    fn prepare(&mut self) -> Next {
        let (order, orders) = bounded::<Since>(1);
        let (answer, answers) = bounded(1);
        let (address, socket, span) = (self.address.clone(), self.sockets[1].clone(), self.span());
        let work = move || {
            let opened = greet(&address, &socket).and_then(|greeting| {
                let since = orders.recv().map_err(|_| "the stream is lost".to_owned())?;
                greeting.open(since, span)
            });
            // The reader may have given it up.
            let _ = answer.send(opened);
        };
        let failure = threads::spawn(&format!("next:{}", self.name), work).err();
        Next {
            order,
            answers,
            failure: failure.map(|error| error.to_string()),
        }
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

/// Connects, and asks the engine who it is.
fn greet(address: &Address, socket: &Socket) -> Result<Greeting, String> {
    let began = Instant::now();
    let connection = Connection::new(address);
    if !socket.hold(connection.closer()) {
        return Err("the agent stops".to_owned());
    }
    let hello = connection.hello(INFO_LIMIT).map_err(|error| error.text)?;
    Ok(Greeting {
        connection,
        hello,
        took: began.elapsed(),
        at: Instant::now(),
    })
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

impl Greeting {
    /// Opens a stream that is to last so long.
    fn open(self, since: Since, span: Duration) -> Result<Stream, String> {
        let mut hello = self.hello;
        let opened = Instant::now();
        hello.clock_ns += (opened - self.at).as_nanos() as i64;
        let since_ns = since.begin_ns(hello.clock_ns);
        let until_ns = hello.clock_ns + (self.took + span).as_nanos() as i64;
        let events = self
            .connection
            .events(&hello.api_version, since_ns, until_ns)
            .map_err(|error| error.text)?;
        Ok(Stream {
            events,
            hello,
            opened,
            ends: opened + span,
            slack: self.took,
            bad_lines: 0,
        })
    }
}

/// A stream that another thread opens.
struct Next {
    order: Sender<Since>,
    answers: Receiver<Result<Stream, String>>,
    /// There is no such thread.
    failure: Option<String>,
}

impl Next {
    /// It is time to open it; `ends`: when the one that is open is to end. Not before the later of that and now may it be over.
    fn open(&self, since: Since, ends: Instant) -> Instant {
        // Where nobody takes it the answer says why.
        let _ = self.order.try_send(since);
        ends.max(Instant::now())
    }

    /// The stream, now that the other one is over.
    fn opened(self) -> Result<Stream, String> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.answers.recv_timeout(HOLE) {
            Ok(opened) => opened,
            Err(RecvTimeoutError::Timeout) => {
                Err("the next event stream was not opened in time".to_owned())
            }
            Err(RecvTimeoutError::Disconnected) => Err("the next event stream failed".to_owned()),
        }
    }
}

/// An open stream.
struct Stream {
    events: Events,
    /// What the engine said of itself.
    hello: Hello,
    /// When it was asked for.
    opened: Instant,
    /// When the engine is to end it.
    ends: Instant,
    /// How much later it may be by its clock.
    slack: Duration,
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
