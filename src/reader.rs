//! The thread `read:<engine>`: opens the engine's stream when the core orders it, and drains it into the inbox.
//!
//! While a stream is open nothing here waits for anything but what it tells: an engine makes all its containers wait for a reader that does not read
//! (moby `daemon/events`: 100 ms an event, then it drops it). Each stream is bounded, so that one that died without a word is noticed; the next one
//! is opened a moment before, by the thread `next:<engine>`, which also asks the engine who it is: that may take seconds. A reader ends when the
//! orders' sender is dropped and its [`Socket`]s are shut.
//!
//! A renewal is as well what shows that the engine dropped events, as long as it remembers them: its last 256. So where it tells many, the stream is
//! renewed before its time.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use crate::core::backoff::Random;
use crate::core::{Generation, Input, Since, StreamEnd};
use crate::docker::client::{Connection, DockerError, DockerErrorKind, Events, INFO_LIMIT};
use crate::docker::socket::Socket;
use crate::inbox::Gate;
use crate::model::{Address, EngineIndex, Event, Fields, Hello};
use crate::threads;

/// How long before the end of a stream the engine is asked who it is, for the next one: as long as the slowest of its answers may take, so that an
/// engine under load is in time. Not much sooner: another may answer by then.
const GREET: Duration = INFO_LIMIT;

/// An engine's clock is known as exactly as it said it soon. By one that is taken to stand earlier than it does, what was lost a moment ago looks as
/// if it were only late.
const DOUBTFUL: Duration = Duration::from_millis(500);

/// How long before its end the next stream is opened: an engine sends the headers first and subscribes after. What it tells in this time is told
/// twice, and waits on the next stream, where the engine has room for a thousand events.
const OVERLAP: Duration = Duration::from_millis(100);

/// How much longer than it was to last a stream may live: the engine ends it itself, if it lives.
const OVERTIME: Duration = Duration::from_secs(2);

/// After so many events a stream is renewed before its time: the engine remembers 256 of them (moby `eventsLimit`), and tells more while we ask.
const MANY: u32 = 192;

/// How long after such a renewal the next one may follow: it costs the engine three requests and us its memory, read once more.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// How long after one that did not succeed.
const CHECK_LATER: Duration = Duration::from_secs(3);

/// How often is looked whether the next stream is open then. It is not read yet, and where events come fast they wait there.
const GLANCE: Duration = Duration::from_millis(20);

/// How long the first event of the next stream is waited for meanwhile, each time.
const PEEK: Duration = Duration::from_millis(1);

/// How long a stream may take to tell what the next one has not.
const CATCH_UP: Duration = Duration::from_secs(1);

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
    /// There may be handlers, which are told all that an event says.
    pub handlers: bool,
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
        let Err(end) = self.stream(order);
        report.end = end;
        ControlFlow::Continue(())
    }

    /// Follows the engine until it is lost: one stream after the other.
    fn stream(&mut self, order: Order) -> Result<Infallible, StreamEnd> {
        let mut since = order.since;
        let span = self.span();
        let greeting = greet(&self.address, &self.sockets[0], &Hello::default())?;
        let mut stream = greeting.open(since, span)?;
        since = since.opened(stream.hello.clock_ns);
        let mut check_at = Instant::now();
        loop {
            self.door.put(Input::Connected {
                engine: self.engine,
                generation: order.generation,
                hello: Box::new(stream.hello.clone()),
            });
            let mut reading = Reading {
                stream,
                generation: order.generation,
                since: &mut since,
            };
            let mut next = loop {
                let due = reading.stream.ends - GREET;
                match self.drain(&mut reading, due, Some(check_at))? {
                    Pause::Ended => return Err(StreamEnd::Closed),
                    Pause::Due => break self.renew(&mut reading)?,
                    Pause::Many => {}
                }
                let next = self.renew_early(&mut reading)?;
                let wait = next.as_ref().map_or(CHECK_LATER, |_| CHECK_AGAIN);
                check_at = Instant::now() + wait;
                if let Some(next) = next {
                    break next;
                }
            };
            next.hello.clock_ns += next.opened.elapsed().as_nanos() as i64;
            stream = next;
            self.sockets.swap(0, 1);
        }
    }

    /// Has the next stream opened, and reads this one to its end.
    fn renew(&mut self, reading: &mut Reading<'_>) -> Result<Stream, StreamEnd> {
        let next = self.prepare(&reading.stream.hello);
        let due = reading.stream.ends - OVERLAP;
        // A process that was frozen meanwhile finds the stream at its end.
        if self.drain(reading, due, None)? == Pause::Ended && Instant::now() < due {
            return Err(StreamEnd::Closed);
        }
        next.open(*reading.since);
        let latest = reading.stream.ends.max(Instant::now()) + reading.stream.slack + OVERTIME;
        if self.drain(reading, latest, None)? == Pause::Due {
            return Err(StreamEnd::Silent);
        }
        Ok(next.opened()?)
    }

    /// Has the next stream opened while this one has long to live, and reads this one until it has told what the next one does not. `None`: the next
    /// one was not opened; then this one goes on.
    fn renew_early(&mut self, reading: &mut Reading<'_>) -> Result<Option<Stream>, StreamEnd> {
        let next = self.prepare(&reading.stream.hello);
        next.open(*reading.since);
        let mut opened = loop {
            if self.drain(reading, Instant::now() + GLANCE, None)? == Pause::Ended {
                return Err(StreamEnd::Closed);
            }
            match next.answers.try_recv() {
                Ok(Ok(opened)) => break opened,
                Err(TryRecvError::Empty) => {}
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => return Ok(None),
            }
        };
        let by = Instant::now() + CATCH_UP;
        while !opened.takes_over(reading.stream.told_ns) && Instant::now() < by {
            // That nothing came for a moment does not mean that nothing is on its way: an engine under load writes late.
            if self.drain(reading, Instant::now() + GLANCE, None)? == Pause::Ended {
                break;
            }
        }
        Ok(Some(opened))
    }

    /// How long a stream is to last.
    fn span(&mut self) -> Duration {
        self.random.between(self.max_age / 2, self.max_age)
    }

    /// Has the next stream opened, while this one is read.
    fn prepare(&mut self, before: &Hello) -> Next {
        let (order, orders) = bounded::<Since>(1);
        let (answer, answers) = bounded(1);
        let (address, socket, span) = (self.address.clone(), self.sockets[1].clone(), self.span());
        let before = before.clone();
        let work = move || {
            threads::rehearse();
            let opened = greet(&address, &socket, &before).and_then(|greeting| {
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

    /// Passes on what a stream tells until `by`, or until it told many events, but not before `check_at`.
    fn drain(
        &self,
        reading: &mut Reading<'_>,
        by: Instant,
        check_at: Option<Instant>,
    ) -> Result<Pause, String> {
        let pause = self.pass_on(reading, by, check_at);
        self.door.wake();
        pause
    }

    /// The same, but for the last that was told: whoever calls this wakes the core.
    fn pass_on(
        &self,
        reading: &mut Reading<'_>,
        by: Instant,
        check_at: Option<Instant>,
    ) -> Result<Pause, String> {
        let stream = &mut reading.stream;
        loop {
            // To be woken for each of many would cost the core more than they do.
            if !stream.has_next() {
                self.door.wake();
            }
            let check_at = check_at.filter(|_| stream.fresh >= MANY);
            if check_at.is_some_and(|at| at <= Instant::now()) {
                return Ok(Pause::Many);
            }
            match stream.next(check_at.map_or(by, |at| at.min(by))) {
                Ok(Some(event)) => {
                    threads::rehearse();
                    reading.since.told(event.time_ns);
                    stream.note(event.time_ns);
                    let event = match self.handlers || !event.is_noise() {
                        true => event,
                        // Core asks when it was and no more, and tells them apart by that: they are stamped in ns. A storm of them costs least where
                        // memory is given back by whom it was taken.
                        false => Event {
                            id: Box::default(),
                            attributes: Fields::default(),
                            ..event
                        },
                    };
                    self.door.event(self.engine, reading.generation, event);
                }
                Ok(None) => return Ok(Pause::Ended),
                Err(error) if error.kind == DockerErrorKind::Timeout => {
                    if by <= Instant::now() {
                        return Ok(Pause::Due);
                    }
                }
                Err(error) if error.kind == DockerErrorKind::BadLine => {}
                Err(error) => return Err(error.text),
            }
        }
    }
}

/// What is being read.
struct Reading<'a> {
    stream: Stream,
    /// The connection's number.
    generation: Generation,
    /// Where the next stream is to begin.
    since: &'a mut Since,
}

/// Why a stream is not read on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// The engine ended it.
    Ended,
    /// The time has come.
    Due,
    /// It told about as many events as the engine remembers.
    Many,
}

/// Connects, and asks the engine who it is, which said `before` where it was asked before.
fn greet(address: &Address, socket: &Socket, before: &Hello) -> Result<Greeting, String> {
    let mut connection = Connection::new(address);
    if !socket.hold(connection.closer()) {
        return Err("the agent stops".to_owned());
    }
    let mut ask = |before: &Hello| {
        let began = Instant::now();
        let hello = connection.hello_again(before, INFO_LIMIT);
        let hello = hello.map_err(|error| error.text)?;
        Ok::<_, String>((began.elapsed(), Instant::now(), hello))
    };
    let (mut took, mut at, mut hello) = ask(before)?;
    // An engine that is slow will be so again, but a process that was frozen between question and answer is so only once.
    if took > DOUBTFUL {
        let again = ask(&hello)?;
        if again.0 < took {
            (took, at, hello) = again;
        }
    }
    Ok(Greeting {
        connection,
        hello,
        took,
        at,
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
            first: None,
            opened_ns: hello.clock_ns + self.took.as_nanos() as i64,
            hello,
            opened,
            ends: opened + span,
            slack: self.took,
            told_ns: 0,
            fresh: 0,
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
    /// It is time to open it.
    fn open(&self, since: Since) {
        // Where nobody takes it the answer says why.
        let _ = self.order.try_send(since);
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
    /// Its first event, where that was looked at before its time.
    first: Option<Event>,
    /// What the engine said of itself.
    hello: Hello,
    /// When it was asked for.
    opened: Instant,
    /// That by the engine's clock, or somewhat later.
    opened_ns: i64,
    /// When the engine is to end it.
    ends: Instant,
    /// How much later it may be by its clock.
    slack: Duration,
    /// The stamp of the last event that it told.
    told_ns: i64,
    /// Those that happened since it was opened: the engine remembers so many fewer of those before.
    fresh: u32,
    /// Lines that made no sense.
    bad_lines: u32,
}

impl Stream {
    /// Waits until `by` for the next event; `None` at its end. A line that makes no sense is told, and an error after which the stream may be read on.
    fn next(&mut self, by: Instant) -> Result<Option<Event>, DockerError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let next = self.events.next(by);
        if let Err(error) = &next
            && error.kind == DockerErrorKind::BadLine
        {
            self.bad_lines += 1;
            if self.bad_lines <= BAD_LINES {
                log::warn!("{error}");
            }
        }
        next
    }

    /// Was the next one read already?
    fn has_next(&self) -> bool {
        self.first.is_some() || self.events.has_next()
    }

    /// Has the stream before it, which told up to there, told all that this one does not? An engine sends the headers first and subscribes after: of what
    /// happens in between this one has the last 256 events. And what is on its way on the other one is not to look as if it had been lost.
    fn takes_over(&mut self, told_ns: i64) -> bool {
        // The last event that was told is told once more, so there is one soon. Its end, and any failure, will be met again.
        self.first = self.next(Instant::now() + PEEK).ok().flatten();
        let first = self.first.as_ref();
        first.is_some_and(|first| first.time_ns <= told_ns) && self.opened_ns <= told_ns
    }

    fn note(&mut self, time_ns: i64) {
        self.told_ns = time_ns;
        self.fresh += u32::from(time_ns > self.opened_ns);
    }
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
