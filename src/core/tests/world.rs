//! The core among models: engines, a store, and between them queues in which answers wait until somebody lets them through.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::docker::{Docker, Stream, T0};
use super::store::{Fate, Store};
use crate::core::engine::Counters;
use crate::core::{
    Core, Effect, Generation, Input, Inspected, Inspection, Reload, Settings, Since, StoreRequest,
    StreamEnd, Time, Unlisted,
};
use crate::model::{ContainerId, EngineIndex, Exit, Hello, Job, Order, Row, Run};

/// The syncer has room for so many asks; the core has to count.
const ASKS: usize = 3;

/// What an engine was asked and has not answered.
#[derive(Debug)]
pub enum Question {
    List(Option<Result<Vec<Row>, Unlisted>>),
    Inspect {
        inspections: VecDeque<Inspection>,
        check_filters: bool,
        /// The answer to the first of them, once the engine has made it.
        answer: Option<Inspected>,
    },
}

#[derive(Debug)]
pub struct Ask {
    pub generation: Generation,
    pub question: Question,
}

/// An inspect that hangs.
#[derive(Debug)]
pub struct Hung {
    pub generation: Generation,
    pub id: ContainerId,
    pub check_filters: bool,
    pub answer: Option<Inspected>,
}

/// What the engine said of itself, and when.
type Said = (Hello, Time);

/// One engine's threads: its reader and its syncer.
#[derive(Debug, Default)]
pub struct Threads {
    /// A stream is to be opened, and the engine may have said hello.
    pub order: Option<(Generation, Since, Option<Said>)>,
    pub asks: VecDeque<Ask>,
    /// The number under which the syncer was asked last.
    pub asked: Generation,
    pub hung: Vec<Hung>,
}

#[derive(Debug)]
pub struct World {
    pub now: Time,
    pub settings: Settings,
    pub core: Core,
    /// The names of the engines that were ever watched by this process or the ones before, by their index.
    pub names: Vec<String>,
    pub dockers: Vec<Docker>,
    pub threads: Vec<Threads>,
    /// Threads that were told to end, by their engine, with what their streams had told and nobody heard.
    pub ghosts: VecDeque<(usize, Threads, Option<Stream>)>,
    pub store: Store,
    /// What the store was asked.
    pub request: Option<StoreRequest>,
    /// Commands that run.
    pub running: BTreeMap<u64, Job>,
    /// Those of them that are told to end.
    pub told: BTreeSet<u64>,
    /// Events that commands ran for, by entry; those that were collected each for itself, those that were tried again once.
    pub events: BTreeMap<Arc<str>, u64>,
    /// All that the entry `all` ever started: `<ns> <action> <id> <inferred>`, by engine.
    pub ran: Vec<(usize, String, bool)>,
    pub stopped: bool,
    /// How often the core has taken a file over.
    pub reloaded: usize,
    /// Effects that nobody has looked at; filled when `keep` is set.
    pub effects: Vec<(Time, Effect)>,
    pub keep: bool,
    /// Streams broke, or engines died.
    pub broke: bool,
}

impl World {
    pub fn new(settings: Settings) -> Self {
        let engines = settings.engines.len();
        World {
            now: Time::ZERO,
            core: Core::new(settings.clone()),
            names: settings
                .engines
                .iter()
                .map(|engine| engine.name.to_string())
                .collect(),
            dockers: (0..engines)
                .map(|n| Docker::new(&format!("E{n}")))
                .collect(),
            threads: (0..engines).map(|_| Threads::default()).collect(),
            ghosts: VecDeque::new(),
            store: Store::new(engines, settings.interval),
            request: None,
            running: BTreeMap::new(),
            told: BTreeSet::new(),
            events: BTreeMap::new(),
            ran: Vec::new(),
            stopped: false,
            reloaded: 0,
            effects: Vec::new(),
            keep: false,
            broke: false,
            settings,
        }
    }

    /// A new process in place of the old one, which left no trace but in the store.
    pub fn new_process(&mut self) {
        self.core = Core::new(self.settings.clone());
        for (docker, threads) in self.dockers.iter_mut().zip(&mut self.threads) {
            docker.stream = None;
            docker.next = None;
            *threads = Threads::default();
        }
        self.ghosts.clear();
        self.store.new_process();
        self.request = None;
        self.running.clear();
        self.told.clear();
        self.stopped = false;
        // Its clock begins anew, ours goes on: the core is only ever told differences.
        self.settle();
    }

    /// One input, without what follows from it.
    pub fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.core.step(self.now, input, &mut effects);
        self.perform(effects);
    }

    pub fn settle(&mut self) {
        let mut effects = Vec::new();
        self.core.settle(self.now, &mut effects);
        self.perform(effects);
    }

    /// What must hold whenever the core is at rest.
    pub fn check(&self) {
        assert!(self.store.faults.is_empty(), "{}", self.store.faults[0]);
        let bytes: usize = self.core.sites.iter().map(|site| site.outbox.bytes()).sum();
        assert_eq!(self.core.waiting_bytes, bytes, "bytes that wait");
    }

    pub fn counters(&self, at: usize) -> Counters {
        *self.core.sites[at].engine.counters()
    }

    /// The next moment at which the core wants to be asked.
    pub fn deadline(&self) -> Option<Time> {
        self.core.deadline()
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if self.keep {
                self.effects.push((self.now, effect.clone()));
            }
            match effect {
                Effect::Watch { index, engine } => self.watch(index, &engine.name),
                Effect::Unwatch { index } => self.unwatch(index.at()),
                Effect::Reloaded => self.reloaded += 1,
                Effect::Connect {
                    engine,
                    generation,
                    since,
                } => {
                    let order = &mut self.threads[engine.at()].order;
                    assert!(order.is_none(), "two orders for one reader");
                    *order = Some((generation, since, None));
                }
                Effect::List {
                    engine, generation, ..
                } => self.ask(engine, generation, Question::List(None)),
                Effect::Inspect {
                    engine,
                    generation,
                    inspections,
                    check_filters,
                    ..
                } => {
                    let count = inspections.len();
                    assert!((1..=32).contains(&count), "{count} inspects");
                    let question = Question::Inspect {
                        inspections: inspections.into(),
                        check_filters,
                        answer: None,
                    };
                    self.ask(engine, generation, question);
                }
                Effect::Store(request) => {
                    let before = self.request.replace(request);
                    assert!(before.is_none(), "two requests to the store at once");
                }
                Effect::Run(job) => {
                    let variable = |name: &str| {
                        let found = job.environment.iter().find(|(key, _)| key == name);
                        found.map_or("", |(_, value)| value).to_owned()
                    };
                    let named = |name: &&String| **name != *job.engine;
                    let engine = self.names.iter().take_while(named).count();
                    let text = format!(
                        "{} {} {}",
                        variable("EVENT_TIME"),
                        variable("EVENT_TYPE"),
                        variable("EVENT_ID")
                    );
                    self.beside(&job);
                    let count = variable("EVENT_COUNT").parse().expect("a number");
                    *self.events.entry(job.entry.name.clone()).or_default() +=
                        if job.attempt == 1 { count } else { 0 };
                    if &*job.entry.name == "all" {
                        let inferred = variable("EVENT_INFERRED") == "1";
                        self.ran.push((engine, text, inferred));
                    }
                    self.running.insert(job.id, *job);
                }
                Effect::EndRun(id) => {
                    assert!(self.running.contains_key(&id), "#{id} does not run");
                    assert!(self.told.insert(id), "#{id} was told to end before");
                }
                Effect::Stopped => self.stopped = true,
                Effect::CancelRuns | Effect::Log(..) | Effect::Status(_) => {}
            }
        }
    }

    /// A job may only start where its entry and its container let it.
    fn beside(&self, job: &Job) {
        let about = |job: &Job| {
            let names = ["FROM_CONTAINER_ID", "EVENT_ID"];
            let variable = |name| job.environment.iter().find(|(key, _)| key == name);
            let mut values = names.into_iter().filter_map(variable);
            values.find(|(_, id)| !id.is_empty()).cloned()
        };
        let queueing = &job.entry.queueing;
        let same = |other: &&Job| other.entry.name == job.entry.name;
        let others: Vec<&Job> = self.running.values().filter(same).collect();
        assert!(others.len() < queueing.concurrency, "too many: {job:?}");
        let entries = self
            .settings
            .entries
            .as_ref()
            .map_or(0, |entries| entries.len());
        let most = self.settings.workers + entries;
        assert!(self.running.len() < most, "no slot");
        let mut line = others.iter().filter(|other| other.engine == job.engine);
        assert!(
            queueing.order == Order::None || line.all(|other| about(other) != about(job)),
            "two at once: {job:?}"
        );
    }

    /// The file says what `settings` say by now.
    pub fn reload(&mut self) {
        let before = self.reloaded;
        self.step(Input::Reload(Box::new(Reload {
            engines: self.settings.engines.clone(),
            entries: self.settings.entries.clone().unwrap_or_default(),
        })));
        assert_eq!(self.reloaded, before + 1, "a reload is answered");
    }

    /// Is the engine of this index in the file?
    pub fn is_watched(&self, at: usize) -> bool {
        let mut engines = self.settings.engines.iter();
        engines.any(|engine| *engine.name == self.names[at])
    }

    fn watch(&mut self, index: EngineIndex, name: &str) {
        match self.names.get(index.at()) {
            Some(known) => assert_eq!(known, name, "an index means another engine"),
            None => {
                assert_eq!(self.names.len(), index.at(), "an index was left out");
                self.dockers.push(Docker::new(&format!("E{}", index.at())));
                self.threads.push(Threads::default());
                self.store.hosts.push(super::store::Host::default());
                self.names.push(name.to_owned());
            }
        }
        self.unwatch(index.at());
    }

    /// Its threads end; what they had been asked is answered as they go.
    fn unwatch(&mut self, at: usize) {
        let stream = self.dockers[at].stream.take();
        self.dockers[at].next = None;
        let threads = std::mem::take(&mut self.threads[at]);
        self.ghosts.push_back((at, threads, stream));
    }

    /// Threads that were told to end say their last words. `false` when there are none.
    pub fn haunt(&mut self) -> bool {
        let Some((at, threads, stream)) = self.ghosts.pop_front() else {
            return false;
        };
        let engine = EngineIndex(at as u32);
        let ended = || "the connection was shut".to_owned();
        let order = threads.order.map(|(generation, ..)| generation);
        let open = stream.as_ref().map(|stream| stream.generation);
        for event in stream.into_iter().flat_map(|stream| {
            stream
                .wire
                .into_iter()
                .map(move |event| (stream.generation, event))
        }) {
            self.step(Input::Event {
                engine,
                generation: event.0,
                event: event.1,
            });
        }
        if let Some(generation) = open.or(order) {
            let end = StreamEnd::Failed(ended());
            self.step(Input::Disconnected {
                engine,
                generation,
                end,
            });
        }
        for ask in threads.asks {
            let generation = ask.generation;
            match ask.question {
                Question::List(_) => self.step(Input::Listed {
                    engine,
                    generation,
                    result: Err(Unlisted {
                        error: ended(),
                        timed_out: false,
                    }),
                }),
                Question::Inspect { inspections, .. } => {
                    for Inspection { id, .. } in inspections {
                        let result = Inspected::Failed(ended());
                        self.step(Input::Inspected {
                            engine,
                            generation,
                            id,
                            by_slow: false,
                            result,
                        });
                    }
                }
            }
        }
        for hung in threads.hung {
            let (generation, id) = (hung.generation, hung.id);
            let result = Inspected::Failed(ended());
            self.step(Input::Inspected {
                engine,
                generation,
                id,
                by_slow: true,
                result,
            });
        }
        true
    }

    fn ask(&mut self, engine: EngineIndex, generation: Generation, question: Question) {
        let threads = &mut self.threads[engine.at()];
        threads.asked = generation;
        let asks = &mut threads.asks;
        asks.push_back(Ask {
            generation,
            question,
        });
        assert!(asks.len() <= ASKS, "{} asks wait: {asks:?}", asks.len());
    }

    // ---- the reader

    /// The next step of opening a stream: hello, then the subscription. `true` when something was done.
    pub fn open_stream(&mut self, at: usize) -> bool {
        let engine = EngineIndex(at as u32);
        let docker = &mut self.dockers[at];
        let Some((generation, since, hello)) = self.threads[at].order.take() else {
            return false;
        };
        if !docker.alive {
            self.step(Input::Disconnected {
                engine,
                generation,
                end: StreamEnd::Failed("failed to connect: connection refused".into()),
            });
            return true;
        }
        match hello {
            None => {
                let hello = Some((docker.hello(self.now), self.now));
                self.threads[at].order = Some((generation, since, hello));
            }
            Some((mut hello, then)) => {
                hello.clock_ns += self.now.saturating_sub(then).as_nanos() as i64;
                docker.stream = Some(docker.subscribe(generation, since, &hello));
                self.step(Input::Connected {
                    engine,
                    generation,
                    hello: Box::new(hello),
                });
            }
        }
        true
    }

    /// One event of the stream arrives.
    pub fn hear(&mut self, at: usize) -> bool {
        let Some(stream) = &mut self.dockers[at].stream else {
            return false;
        };
        let generation = stream.generation;
        let Some(event) = stream.hear() else {
            return false;
        };
        let text = super::docker::text(&event);
        self.dockers[at].dropped.remove(&text);
        self.step(Input::Event {
            engine: EngineIndex(at as u32),
            generation,
            event,
        });
        true
    }

    /// The stream ends; what was under way is lost.
    pub fn end_stream(&mut self, at: usize, end: StreamEnd) -> bool {
        self.dockers[at].next = None;
        let Some(stream) = self.dockers[at].stream.take() else {
            return false;
        };
        self.step(Input::Disconnected {
            engine: EngineIndex(at as u32),
            generation: stream.generation,
            end,
        });
        true
    }

    /// The next stream is opened before this one ends: what happens from now on is told by both.
    pub fn overlap(&mut self, at: usize) -> bool {
        let docker = &mut self.dockers[at];
        let Some(stream) = docker.stream.as_ref().filter(|_| docker.alive) else {
            return false;
        };
        let hello = docker.hello(self.now);
        let next = docker.subscribe(stream.generation, stream.since, &hello);
        docker.next = Some((next, hello, self.now));
        true
    }

    /// The stream ends at its time, and all it told has come.
    pub fn renew(&mut self, at: usize) -> bool {
        if self.dockers[at].next.is_none() && !self.overlap(at) {
            return false;
        }
        while self.hear(at) {}
        let docker = &mut self.dockers[at];
        let Some((stream, mut hello, then)) = docker.next.take() else {
            return false;
        };
        hello.clock_ns += self.now.saturating_sub(then).as_nanos() as i64;
        let generation = stream.generation;
        docker.stream = Some(stream);
        self.step(Input::Connected {
            engine: EngineIndex(at as u32),
            generation,
            hello: Box::new(hello),
        });
        true
    }

    // ---- the syncer

    /// Is a list what the engine is to answer next?
    pub fn next_is_list(&self, at: usize) -> bool {
        let next = self.threads[at].asks.front();
        next.is_some_and(|ask| matches!(ask.question, Question::List(_)))
    }

    /// The container whose inspect the engine is to answer next, if it has not made the answer.
    pub fn next_inspect(&self, at: usize) -> Option<&ContainerId> {
        match &self.threads[at].asks.front()?.question {
            Question::Inspect {
                inspections,
                answer: None,
                ..
            } => inspections.front().map(|one| &one.id),
            _ => None,
        }
    }

    /// The engine makes the answer to what it was asked first.
    pub fn compute(&mut self, at: usize) -> bool {
        let (all, filtered) = self.listing();
        let docker = &self.dockers[at];
        let Some(ask) = self.threads[at].asks.front_mut() else {
            return false;
        };
        match &mut ask.question {
            Question::List(answer @ None) => {
                *answer = Some(match docker.alive {
                    true => Ok(docker.list(all, filtered)),
                    false => Err(Unlisted {
                        error: "failed to list containers: connection refused".into(),
                        timed_out: false,
                    }),
                });
            }
            Question::Inspect {
                inspections,
                check_filters,
                answer: answer @ None,
            } => {
                let Some(one) = inspections.front() else {
                    return false;
                };
                *answer = Some(inspect(docker, one, *check_filters && filtered));
            }
            _ => return false,
        }
        true
    }

    /// The answer that was made arrives.
    pub fn answer(&mut self, at: usize) -> bool {
        let Some(mut ask) = self.threads[at].asks.pop_front() else {
            return false;
        };
        let engine = EngineIndex(at as u32);
        let generation = ask.generation;
        match &mut ask.question {
            Question::List(answer) => {
                let Some(result) = answer.take() else {
                    self.threads[at].asks.push_front(ask);
                    return false;
                };
                self.step(Input::Listed {
                    engine,
                    generation,
                    result,
                });
            }
            Question::Inspect {
                inspections,
                answer,
                ..
            } => {
                let Some(result) = answer.take() else {
                    self.threads[at].asks.push_front(ask);
                    return false;
                };
                let Inspection { id, .. } = inspections.pop_front().expect("it was answered");
                if !inspections.is_empty() {
                    self.threads[at].asks.push_front(ask);
                }
                self.step(Input::Inspected {
                    engine,
                    generation,
                    id,
                    by_slow: false,
                    result,
                });
            }
        }
        true
    }

    /// The engine does not answer the syncer, which has nothing else to ask.
    pub fn answers_no_ping(&mut self, at: usize) {
        self.step(Input::Unanswered {
            engine: EngineIndex(at as u32),
            generation: self.threads[at].asked,
            error: "failed to ping: it did not answer in time".into(),
        });
    }

    /// What the engine is to answer next hangs: an inspect moves out of the way, a list is given up.
    pub fn hang(&mut self, at: usize) -> bool {
        let Some(ask) = self.threads[at].asks.front_mut() else {
            return false;
        };
        let generation = ask.generation;
        let (inspections, check_filters, answer) = match &mut ask.question {
            Question::Inspect {
                inspections,
                check_filters,
                answer,
            } => (inspections, check_filters, answer),
            Question::List(answer) => {
                *answer = Some(Err(Unlisted {
                    error: "failed to list containers: it did not answer in time".into(),
                    timed_out: true,
                }));
                return self.answer(at);
            }
        };
        let Some(id) = inspections.front().map(|one| one.id.clone()) else {
            return false;
        };
        let check_filters = *check_filters;
        *answer = Some(Inspected::Slow);
        self.threads[at].hung.push(Hung {
            generation,
            id,
            check_filters,
            answer: None,
        });
        self.answer(at)
    }

    /// A hanging inspect is answered by the engine, then by us.
    pub fn unhang(&mut self, at: usize, which: usize) -> bool {
        let filtered = self.listing().1;
        let docker = &self.dockers[at];
        let Some(hung) = self.threads[at].hung.get_mut(which) else {
            return false;
        };
        match hung.answer.take() {
            None => {
                let whole = Inspection {
                    id: hung.id.clone(),
                    known: None,
                };
                hung.answer = Some(inspect(docker, &whole, hung.check_filters && filtered));
            }
            Some(result) => {
                let hung = self.threads[at].hung.remove(which);
                self.step(Input::Inspected {
                    engine: EngineIndex(at as u32),
                    generation: hung.generation,
                    id: hung.id,
                    by_slow: true,
                    result,
                });
            }
        }
        true
    }

    fn listing(&self) -> (bool, bool) {
        let cache = self.settings.cache.as_ref();
        (
            cache.is_some_and(|cache| cache.all),
            cache.is_some_and(|cache| cache.filtered),
        )
    }

    // ---- the store and the commands

    pub fn serve(&mut self, fate: Fate) -> bool {
        let Some(request) = self.request.take() else {
            return false;
        };
        let reply = self.store.serve(self.now, &request, fate);
        self.step(Input::Stored(reply));
        true
    }

    pub fn end_run(&mut self, id: u64, code: i32) -> bool {
        if self.running.remove(&id).is_none() {
            return false;
        }
        let run = Run {
            exit: match self.told.remove(&id) {
                true => Exit::Replaced,
                false => Exit::Code(code),
            },
            output: Vec::new(),
            cut: false,
            took: Time::from_millis(5),
        };
        self.step(Input::Ended { job: id, run });
        true
    }

    // ---- the oracle

    /// Does the store hold what the engines have, and nothing else?
    pub fn compare(&self) -> Result<(), String> {
        let (all, filtered) = self.listing();
        let mut wanted = Store::new(self.dockers.len(), self.settings.interval);
        let shared: Vec<_> = (0..self.dockers.len())
            .filter(|at| self.is_watched(*at))
            .flat_map(|at| {
                let containers = &self.dockers[at].containers;
                containers.iter().map(move |(id, of)| (at, id, of))
            })
            .filter(|(_, _, of)| (all || of.running) && (of.member || !filtered))
            .collect();
        let mut differences = Vec::new();
        for (at, id, of) in &shared {
            let host = &mut wanted.hosts[*at];
            host.names.insert(of.name.clone(), (*id).clone());
            host.manifest.insert((*id).clone(), of.image.clone());
            if of.running {
                host.running.insert((*id).clone());
                wanted.containers.insert((*id).clone());
                wanted.images.insert(of.image.clone());
                let hosts = wanted.image_hosts.entry(of.image.clone());
                hosts.or_default().insert(*at);
                let ids = wanted.image_containers.entry(of.image.clone());
                ids.or_default().insert((*id).clone());
            } else {
                host.stopped.insert((*id).clone());
            }
            let digest = super::docker::document(id, of).digest;
            match self.store.keys.get(*id) {
                Some(key) if key.host == *at && key.digest == digest => {}
                key => differences.push(format!("container {id} of {at}: {key:?}")),
            }
        }
        for id in self.store.keys.keys() {
            if !shared.iter().any(|(_, of, _)| *of == id) {
                differences.push(format!("container {id} is not to be there"));
            }
        }
        let mut same = |what: &str, wanted: String, found: String| {
            if wanted != found {
                differences.push(format!("{what}: wanted {wanted}, found {found}"));
            }
        };
        for (at, (wanted, found)) in wanted.hosts.iter().zip(&self.store.hosts).enumerate() {
            let text = |host: &super::store::Host| {
                format!(
                    "{:?} {:?} {:?} {:?}",
                    host.running, host.stopped, host.names, host.manifest
                )
            };
            same(&format!("host {at}"), text(wanted), text(found));
            let field = |name: &str| found.fields.get(name).cloned();
            let count = wanted.running.len().to_string();
            same(
                "status",
                "Some(\"up\")".into(),
                format!("{:?}", field("status")),
            );
            same(
                "count",
                format!("{:?}", Some(count)),
                format!("{:?}", field("containers_running")),
            );
        }
        let text = |store: &Store| {
            format!(
                "{:?} {:?} {:?} {:?}",
                store.containers, store.images, store.image_hosts, store.image_containers
            )
        };
        same("shared", text(&wanted), text(&self.store));
        match differences.is_empty() {
            true => Ok(()),
            false => Err(differences.join("\n")),
        }
    }
}

fn inspect(docker: &Docker, asked: &Inspection, check_filters: bool) -> Inspected {
    match docker.alive {
        true => docker.inspect(asked, check_filters),
        false => Inspected::Failed("failed to inspect: connection refused".into()),
    }
}

/// Settings for engines of these names, with a cache and no handlers.
pub fn settings(names: &[&str]) -> Settings {
    // `a`, or `a=elsewhere` for one at another address.
    let engine = |word: &&str| {
        let (name, socket) = word.split_once('=').unwrap_or((word, word));
        crate::model::Engine {
            name: Arc::from(name),
            url: format!("unix:///{socket}.sock").into(),
            address: crate::model::Address::Unix(format!("/{socket}.sock").into()),
        }
    };
    Settings {
        engines: names.iter().map(engine).collect(),
        cache: Some(crate::core::CacheSettings {
            all: false,
            filtered: false,
            forget_after: Time::from_secs(3600),
            selfcheck: false,
        }),
        entries: None,
        workers: 8,
        interval: Time::from_secs(120),
        replay_max_age: Time::from_secs(300),
        boot: "boot".into(),
        version: "test",
        clock_ns: T0,
        // With this one the first engines' places are near the end of the interval: what a case does in a minute holds no resync that it did not ask for.
        seed: 8002,
    }
}
