//! The threads `sync:<engine>` and `slow:<engine>`: ask an engine what the core wants to know.
//!
//! A syncer serves one ask after another. An inspect waits for its container's lock, for ever if that container is stuck: one that is not answered
//! within 500 ms moves to a slow thread, which exists only while there is such a one, and the next is asked. While there is one, the others get 50 ms:
//! twenty that hang must not cost their engine ten seconds, and whoever is only slow is answered there as soon.
//!
//! That a container is as it was is no news: such answers wait for the next one that is, or for the end of their ask, so that a quiet resync does not
//! wake the core for each.
//!
//! Where all hang it is the engine that does. A syncer to which nothing was answered for some seconds, because nothing was asked or because all of it
//! was in vain, asks the engine whether it answers at all before anything else.
//!
//! All end when the asks' sender is dropped and their [`Socket`]s are shut.

use std::collections::{HashSet, VecDeque};
use std::iter;
use std::ops::ControlFlow;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::{Generation, Input, Inspected, Inspection, Unlisted};
use crate::docker::client::{Client, DockerErrorKind, LIST_LIMIT};
use crate::docker::document::{Masker, document};
use crate::docker::socket::Socket;
use crate::inbox::Door;
use crate::model::{Address, ContainerId, EngineIndex, Row, answer_digest};
use crate::queue::Receiver;
use crate::threads;

/// A start keeps its container's lock for about 250 ms.
const PATIENCE: Duration = Duration::from_millis(500);

/// The same while another inspect hangs: many times what an answer takes an engine that is well.
const IMPATIENCE: Duration = Duration::from_millis(50);

/// How long a slow thread waits for an answer before it asks again. The engine keeps each question that hangs, so they are to be few; only when
/// there are more containers than threads do they take turns.
const SLOW_ALONE: Duration = Duration::from_secs(30);
const SLOW_TURN: Duration = Duration::from_secs(2);

/// The most slow threads of an engine, and the most of them that wait for containers known to hang: those that are only slow are to find one free.
const SLOW_THREADS: usize = 12;
const HUNG_THREADS: usize = 8;

/// After so long without an answer the engine is asked whether it still answers: it may be frozen, and a stream on which nothing comes does not tell.
/// A list may be asked for just before: both together take less than half a minute.
const QUIET: Duration = Duration::from_secs(10);

/// The core believes in a silence only when it is told of it twice.
const PINGS: usize = 2;

/// How long an answer waits that is no news, unless the next one hangs.
const HELD: Duration = Duration::from_millis(50);

/// How many inspects the engine has at a time: it works on one while the answer to another is decoded.
const AT_ONCE: usize = 2;

/// What the core wants to know.
#[derive(Clone, Debug)]
pub struct Ask {
    /// On which connection.
    pub generation: Generation,
    /// The version to speak.
    pub api_version: Arc<str>,
    /// The question.
    pub question: Question,
}

/// A list, or inspects.
#[derive(Clone, Debug)]
pub enum Question {
    /// What is there?
    List,
    /// What are these like?
    Inspect {
        /// Which.
        inspections: Vec<Inspection>,
        /// And do the list's filters let them through?
        check_filters: bool,
    },
}

/// What is the same for all questions to one engine.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Whose.
    pub engine: EngineIndex,
    /// Its name, for the slow thread's.
    pub name: Arc<str>,
    /// Where it answers.
    pub address: Address,
    /// Stopped containers are wanted as well.
    pub all: bool,
    /// Docker's list filters.
    pub filters: Arc<[(String, String)]>,
    /// What is masked.
    pub masker: Arc<Masker>,
    /// Where answers go.
    pub door: Door,
}

/// What one syncer is made of.
#[derive(Debug)]
pub struct Syncer {
    desk: Desk,
    asks: Receiver<Ask>,
    socket: Socket,
    client: Option<(Generation, Client)>,
    /// When the engine answered last, whatever it said.
    answered: Instant,
    slow: Arc<Slow>,
}

impl Syncer {
    /// Asks nothing yet. `sockets` are what a stop shuts: the syncer's and the slow threads'.
    pub fn new(desk: Desk, asks: Receiver<Ask>, sockets: (Socket, Socket)) -> Self {
        let slow = Slow {
            desk: desk.clone(),
            socket: sockets.1,
            state: Mutex::default(),
        };
        Syncer {
            desk,
            asks,
            socket: sockets.0,
            client: None,
            answered: Instant::now(),
            slow: Arc::new(slow),
        }
    }

    /// Serves one ask; `Break` when there will be no more.
    pub fn run(&mut self) -> ControlFlow<()> {
        let ask = match self.asks.receive(Some(self.answered + QUIET)) {
            Ok(ask) => ask,
            Err(RecvTimeoutError::Timeout) => {
                let desk = &self.desk;
                let mut engine = self.client.iter_mut();
                if engine.all(|(generation, client)| desk.ping(*generation, client)) {
                    self.answered = Instant::now();
                }
                return ControlFlow::Continue(());
            }
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        };
        let mut client = self.client(ask.generation);
        match ask.question {
            Question::List => {
                let mut answer = Answer::list(&self.desk, ask.generation);
                let list = self.desk.list(&mut client, &ask.api_version);
                if !matches!(
                    list,
                    Err(Unlisted {
                        timed_out: true,
                        ..
                    })
                ) {
                    self.answered = Instant::now();
                }
                answer.list = Some(list);
            }
            Question::Inspect {
                inspections,
                check_filters,
            } => {
                let mut answer = Answer::inspects(&self.desk, ask.generation, inspections);
                // It is not kept: a process with many engines would keep many.
                let mut body = Vec::new();
                while let Some(inspection) = answer.open.front().cloned() {
                    if self.answered.elapsed() >= QUIET
                        && self.desk.ping(ask.generation, &mut client)
                    {
                        self.answered = Instant::now();
                    }
                    let slow = SlowAsk {
                        generation: ask.generation,
                        api_version: ask.api_version.clone(),
                        inspection,
                        check_filters,
                    };
                    let patience = match self.slow.is_idle() {
                        true => PATIENCE,
                        false => IMPATIENCE,
                    };
                    // A container whose membership is asked for has its list in between.
                    let at_once = if check_filters { 1 } else { AT_ONCE };
                    let ids = answer.open.iter().map(|one| &one.id).take(at_once);
                    let result = self
                        .desk
                        .inspect(&mut client, &slow, ids, patience, &mut body);
                    let moved = result == Inspected::Slow;
                    answer.next(result);
                    if moved {
                        self.slow.add(slow, patience == PATIENCE);
                    } else {
                        self.answered = Instant::now();
                    }
                }
            }
        }
        self.client = Some((ask.generation, client));
        ControlFlow::Continue(())
    }

    /// A client of this generation: after a reconnect the socket leads to another process, perhaps to another engine.
    fn client(&mut self, generation: Generation) -> Client {
        match self.client.take() {
            Some((of, client)) if of == generation => client,
            _ => {
                let client = Client::new(&self.desk.address);
                // A stopped client fails every call at once, and says so.
                self.socket.hold(client.closer());
                client
            }
        }
    }
}

impl Desk {
    /// Does the engine still answer? Where it does not the core is told.
    fn ping(&self, generation: Generation, client: &mut Client) -> bool {
        for _ in 0..PINGS {
            match client.ping() {
                Err(error) if error.kind == DockerErrorKind::Timeout => {
                    self.door.put(Input::Unanswered {
                        engine: self.engine,
                        generation,
                        error: error.text,
                    });
                }
                // An engine that is away breaks its stream as well, and the core hears of it by that.
                Ok(()) | Err(_) => return true,
            }
        }
        false
    }

    fn list(&self, client: &mut Client, api_version: &str) -> Result<Vec<Row>, Unlisted> {
        let deadline = Instant::now() + LIST_LIMIT;
        let mut list = |filters: &[(String, String)]| {
            let left = deadline.saturating_duration_since(Instant::now());
            let rows = client.list(api_version, self.all, filters, None, left);
            rows.map_err(|error| Unlisted {
                timed_out: error.kind == DockerErrorKind::Timeout,
                error: error.text,
            })
        };
        let mut rows = list(&[])?;
        if !self.filters.is_empty() {
            let members: HashSet<ContainerId> =
                list(&self.filters)?.into_iter().map(|row| row.id).collect();
            for row in &mut rows {
                row.member = members.contains(&row.id);
            }
        }
        Ok(rows)
    }

    /// Asks for a container, the first of `ids`, and tells the engine which are the next. What it answers stands in `body`.
    fn inspect<'i>(
        &self,
        client: &mut Client,
        ask: &SlowAsk,
        ids: impl Iterator<Item = &'i ContainerId>,
        limit: Duration,
        body: &mut Vec<u8>,
    ) -> Inspected {
        threads::rehearse();
        let deadline = Instant::now() + limit;
        let mut member = None;
        if ask.check_filters {
            let only = Some(&ask.inspection.id);
            // A list may be older than the event, and show a container that has just started as none that runs: whether it does, the inspect says.
            match client.list(&ask.api_version, true, &self.filters, only, limit) {
                Ok(rows) => member = Some(!rows.is_empty()),
                Err(error) if error.kind == DockerErrorKind::Timeout => return Inspected::Slow,
                Err(error) => return Inspected::Failed(error.text),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let Inspection { id, known } = &ask.inspection;
        match client.inspect_first(body, &ask.api_version, ids, left) {
            Ok(false) => Inspected::Gone,
            Ok(true) if known.is_some_and(|known| known == answer_digest(body)) => {
                Inspected::Same { member }
            }
            Ok(true) => match document(body, &self.masker) {
                Ok(document) if !document.fields.iter().any(|it| it == ("id", id.as_str())) => {
                    // A proxy that mixes up who asked what.
                    Inspected::Failed(format!(
                        "the inspect of container `{}` is that of another",
                        id.short()
                    ))
                }
                Ok(document) => Inspected::Found {
                    document: Arc::new(document),
                    member,
                },
                Err(error) => Inspected::Failed(format!(
                    "failed to read the inspect of container `{}`: {error}",
                    id.short()
                )),
            },
            Err(error) if error.kind == DockerErrorKind::Timeout => Inspected::Slow,
            Err(error) => Inspected::Failed(error.text),
        }
    }

    fn answer(&self, generation: Generation, id: ContainerId, by_slow: bool, result: Inspected) {
        self.door.put(Input::Inspected {
            engine: self.engine,
            generation,
            id,
            by_slow,
            result,
        });
    }
}

/// What the core still waits for. Whatever is left when it is dropped, by a panic or at the end, is answered as failed: the core counts on an answer.
struct Answer<'a> {
    desk: &'a Desk,
    generation: Generation,
    list: Option<Result<Vec<Row>, Unlisted>>,
    /// The inspects that are not answered yet,
    open: VecDeque<Inspection>,
    /// and what was answered to those before, since when.
    held: Vec<(ContainerId, Inspected)>,
    held_since: Instant,
}

impl<'a> Answer<'a> {
    fn list(desk: &'a Desk, generation: Generation) -> Self {
        let mut answer = Answer::inspects(desk, generation, Vec::new());
        answer.list = Some(Err(Unlisted {
            error: "the syncer panicked".to_owned(),
            timed_out: false,
        }));
        answer
    }

    fn inspects(desk: &'a Desk, generation: Generation, inspections: Vec<Inspection>) -> Self {
        Answer {
            desk,
            generation,
            list: None,
            open: inspections.into(),
            held: Vec::new(),
            held_since: Instant::now(),
        }
    }

    fn next(&mut self, result: Inspected) {
        let Some(Inspection { id, .. }) = self.open.pop_front() else {
            return;
        };
        if self.held.is_empty() {
            self.held_since = Instant::now();
        }
        let is_news = !matches!(result, Inspected::Same { .. });
        self.held.push((id, result));
        if is_news || self.open.is_empty() || self.held_since.elapsed() >= HELD {
            for (id, result) in self.held.drain(..) {
                self.desk.answer(self.generation, id, false, result);
            }
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if let Some(result) = self.list.take() {
            self.desk.door.put(Input::Listed {
                engine: self.desk.engine,
                generation: self.generation,
                result,
            });
        }
        while !self.open.is_empty() {
            self.next(Inspected::Failed("the syncer panicked".to_owned()));
        }
    }
}

#[derive(Clone, Debug)]
struct SlowAsk {
    generation: Generation,
    api_version: Arc<str>,
    inspection: Inspection,
    check_filters: bool,
}

/// The inspects that hang.
#[derive(Debug)]
struct Slow {
    desk: Desk,
    socket: Socket,
    state: Mutex<SlowState>,
}

#[derive(Default, Debug)]
struct SlowState {
    /// Those that were given little time.
    fresh: VecDeque<SlowAsk>,
    /// Those that were given enough.
    hung: VecDeque<SlowAsk>,
    /// How many threads work on them.
    threads: usize,
    /// How many of these wait for one that was given enough time before.
    waiting: usize,
    /// What theirs are made from, and closed by; made anew when the first of them starts.
    client: Option<Client>,
}

impl Slow {
    /// Does none hang?
    fn is_idle(&self) -> bool {
        self.lock().threads == 0
    }

    /// Asks on another thread. `hangs`: it was given enough time to answer.
    fn add(self: &Arc<Self>, ask: SlowAsk, hangs: bool) {
        let mut state = self.lock();
        match hangs {
            true => state.hung.push_back(ask),
            false => state.fresh.push_back(ask),
        }
        if state.threads == SLOW_THREADS {
            return;
        }
        if state.threads == 0 {
            let client = Client::new(&self.desk.address);
            self.socket.hold(client.closer());
            state.client = Some(client);
        }
        let Some(client) = state.client.as_ref().map(Client::another) else {
            return;
        };
        let slow = self.clone();
        let work = move || slow.work(client);
        match threads::spawn(&format!("slow:{}", self.desk.name), work) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads > 0 => log::warn!("{error}"),
            Err(error) => {
                log::warn!("{error}");
                let fresh = std::mem::take(&mut state.fresh);
                let hung = std::mem::take(&mut state.hung);
                for ask in fresh.into_iter().chain(hung) {
                    let failed = Inspected::Failed(error.to_string());
                    let id = ask.inspection.id;
                    self.desk.answer(ask.generation, id, true, failed);
                }
            }
        }
    }

    fn work(&self, mut client: Client) {
        loop {
            let Some((ask, limit)) = self.lock().next() else {
                return;
            };
            let inspect = || {
                let (id, mut body) = (iter::once(&ask.inspection.id), Vec::new());
                self.desk.inspect(&mut client, &ask, id, limit, &mut body)
            };
            let result = threads::catch(inspect).unwrap_or_else(|panic| {
                log::error!("thread `slow:{}` {panic}", self.desk.name);
                Inspected::Failed(panic)
            });
            let mut state = self.lock();
            state.waiting -= usize::from(limit != PATIENCE);
            match result {
                Inspected::Slow => state.hung.push_back(ask),
                result => {
                    let id = ask.inspection.id;
                    self.desk.answer(ask.generation, id, true, result);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, SlowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlowState {
    /// What a thread is to ask next, and how long; `None`: it is to end.
    fn next(&mut self) -> Option<(SlowAsk, Duration)> {
        if let Some(ask) = self.fresh.pop_front() {
            return Some((ask, PATIENCE));
        }
        if self.waiting < HUNG_THREADS
            && let Some(ask) = self.hung.pop_front()
        {
            self.waiting += 1;
            // One thread at least is soon free for who only took a little longer.
            let alone = self.hung.is_empty() && self.waiting < HUNG_THREADS;
            return Some((ask, if alone { SLOW_ALONE } else { SLOW_TURN }));
        }
        self.threads -= 1;
        if self.threads == 0 {
            self.client = None;
        }
        None
    }
}
