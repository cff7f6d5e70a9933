//! The threads `sync:<engine>` and `slow:<engine>`: ask an engine what the core wants to know.
//!
//! A syncer serves one ask after another. An inspect waits for its container's lock, for ever if that container is stuck: one that is not answered
//! within 500 ms moves to a slow thread, which exists only while there is such a one, and the next is asked. Each has a thread of its own, up to
//! eight: one that hangs must not delay one that is only slow. All end when the asks' sender is dropped and their [`Socket`]s are shut.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::core::{Generation, Input, Inspected, Unlisted};
use crate::docker::client::{Client, DockerErrorKind};
use crate::docker::document::{Masker, document};
use crate::docker::socket::Socket;
use crate::inbox::Door;
use crate::model::{Address, ContainerId, EngineIndex, Row};
use crate::threads;

/// A start keeps its container's lock for about 250 ms.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a slow thread waits for an answer before it asks again. The engine keeps each question that hangs, so they are to be few; only when
/// there are more containers than threads do they take turns.
const SLOW_ALONE: Duration = Duration::from_secs(30);
const SLOW_TURN: Duration = Duration::from_secs(2);

/// The most slow threads of an engine: more containers that hang are an engine that hangs.
const SLOW_THREADS: usize = 8;

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
        ids: Vec<ContainerId>,
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
            slow: Arc::new(slow),
        }
    }

    /// Serves one ask; `Break` when there will be no more.
    pub fn run(&mut self) -> std::ops::ControlFlow<()> {
        let Ok(ask) = self.asks.recv() else {
            return std::ops::ControlFlow::Break(());
        };
        let client = self.client(ask.generation);
        match ask.question {
            Question::List => {
                let mut answer = Answer::list(&self.desk, ask.generation);
                answer.list = Some(self.desk.list(&client, &ask.api_version));
            }
            Question::Inspect { ids, check_filters } => {
                let mut answer = Answer::inspects(&self.desk, ask.generation, ids);
                while let Some(id) = answer.ids.front().cloned() {
                    let slow = SlowAsk {
                        generation: ask.generation,
                        api_version: ask.api_version.clone(),
                        id,
                        check_filters,
                    };
                    let result = self.desk.inspect(&client, &slow, PATIENCE);
                    let moved = result == Inspected::Slow;
                    answer.next(result);
                    if moved {
                        self.slow.add(slow);
                    }
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    /// A client of this generation: after a reconnect the socket leads to another process, perhaps to another engine.
    fn client(&mut self, generation: Generation) -> Client {
        match &self.client {
            Some((of, client)) if *of == generation => client.clone(),
            _ => {
                let client = Client::new(&self.desk.address);
                // A stopped client fails every call at once, and says so.
                self.socket.hold(client.closer());
                self.client = Some((generation, client.clone()));
                client
            }
        }
    }
}

impl Desk {
    fn list(&self, client: &Client, api_version: &str) -> Result<Vec<Row>, Unlisted> {
        let list = |filters: &[(String, String)]| {
            let rows = client.list(api_version, self.all, filters, None);
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

    fn inspect(&self, client: &Client, ask: &SlowAsk, limit: Duration) -> Inspected {
        threads::rehearse();
        let mut member = None;
        if ask.check_filters {
            let only = Some(&ask.id);
            // A list may be older than the event, and show a container that has just started as none that runs: whether it does, the inspect says.
            match client.list(&ask.api_version, true, &self.filters, only) {
                Ok(rows) => member = Some(!rows.is_empty()),
                Err(error) => return Inspected::Failed(error.text),
            }
        }
        match client.inspect(&ask.api_version, &ask.id, limit) {
            Ok(None) => Inspected::Gone,
            Ok(Some(bytes)) => match document(&bytes, &self.masker) {
                Ok(document) => Inspected::Found {
                    document: Arc::new(document),
                    member,
                },
                Err(error) => Inspected::Failed(format!(
                    "failed to read the inspect of container `{}`: {error}",
                    ask.id.short()
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
    ids: VecDeque<ContainerId>,
}

impl<'a> Answer<'a> {
    fn list(desk: &'a Desk, generation: Generation) -> Self {
        Answer {
            desk,
            generation,
            list: Some(Err(Unlisted {
                error: "the syncer panicked".to_owned(),
                timed_out: false,
            })),
            ids: VecDeque::new(),
        }
    }

    fn inspects(desk: &'a Desk, generation: Generation, ids: Vec<ContainerId>) -> Self {
        Answer {
            desk,
            generation,
            list: None,
            ids: ids.into(),
        }
    }

    fn next(&mut self, result: Inspected) {
        if let Some(id) = self.ids.pop_front() {
            self.desk.answer(self.generation, id, false, result);
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
        while !self.ids.is_empty() {
            self.next(Inspected::Failed("the syncer panicked".to_owned()));
        }
    }
}

#[derive(Clone, Debug)]
struct SlowAsk {
    generation: Generation,
    api_version: Arc<str>,
    id: ContainerId,
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
    asks: VecDeque<SlowAsk>,
    /// How many threads work on them.
    threads: usize,
    /// What they ask with; made anew when the first of them starts.
    client: Option<Client>,
}

impl Slow {
    fn add(self: &Arc<Self>, ask: SlowAsk) {
        let mut state = self.lock();
        state.asks.push_back(ask);
        if state.threads == SLOW_THREADS {
            return;
        }
        if state.threads == 0 {
            let client = Client::new(&self.desk.address);
            self.socket.hold(client.closer());
            state.client = Some(client);
        }
        let Some(client) = state.client.clone() else {
            return;
        };
        let slow = self.clone();
        let work = move || slow.work(&client);
        match threads::spawn(&format!("slow:{}", self.desk.name), work) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads > 0 => log::warn!("{error}"),
            Err(error) => {
                log::warn!("{error}");
                let asks = std::mem::take(&mut state.asks);
                for ask in asks {
                    let failed = Inspected::Failed(error.to_string());
                    self.desk.answer(ask.generation, ask.id, true, failed);
                }
            }
        }
    }

    fn work(&self, client: &Client) {
        loop {
            let (ask, alone) = {
                let mut state = self.lock();
                let Some(ask) = state.asks.pop_front() else {
                    state.threads -= 1;
                    if state.threads == 0 {
                        state.client = None;
                    }
                    return;
                };
                (ask, state.asks.is_empty())
            };
            let limit = if alone { SLOW_ALONE } else { SLOW_TURN };
            let inspect = || self.desk.inspect(client, &ask, limit);
            match threads::catch(inspect).unwrap_or_else(Inspected::Failed) {
                Inspected::Slow => self.lock().asks.push_back(ask),
                result => self.desk.answer(ask.generation, ask.id, true, result),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, SlowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
