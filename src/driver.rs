//! The thread `core`: feeds the machine with inputs and the time, and carries its effects out. It waits for nothing but the inbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::{Core, Effect, Input, Level, StoreRequest, Time};
use crate::engines::Engines;
use crate::handlers::Pool;
use crate::inbox::Inbox;
use crate::model::EngineIndex;
use crate::notify::Notifier;
use crate::queue;
use crate::reader::Order;
use crate::syncer::{Ask, Question};
use crate::threads;

/// Inputs that are taken in before what follows from them is done: enough for large transactions, and soon over.
const BURST: usize = 512;

/// A store that has not answered a request for so long is not going to: its own deadlines are far below.
const STUCK: Duration = Duration::from_secs(60);

/// Where the effects go. None of the sends blocks: the core keeps count of what is under way.
#[derive(Debug)]
pub struct Outlets {
    /// To the engines.
    pub engines: Engines,
    /// To the writer, where there is a cache.
    pub writer: Option<queue::Sender<StoreRequest>>,
    /// To the commands.
    pub pool: Option<Pool>,
    /// To whoever reads the file again.
    pub reloaded: crossbeam_channel::Sender<()>,
    /// To the service manager.
    pub notifier: Arc<Notifier>,
}

/// Runs the machine until it says that all is done; gives the outlets back, to be shut.
pub fn run(mut core: Core, mut inbox: Inbox, mut outlets: Outlets) -> Outlets {
    let start = Instant::now();
    let mut effects = Vec::new();
    let mut watchdog = Watchdog::new(&outlets.notifier);
    loop {
        core.settle(start.elapsed(), &mut effects);
        for effect in effects.drain(..) {
            watchdog.effect(&effect);
            if outlets.perform(effect, &mut inbox) {
                return outlets;
            }
        }
        watchdog.feed(&outlets.notifier);
        let until = [
            core.deadline().and_then(|at| start.checked_add(at)),
            watchdog.next,
        ];
        let Some(input) = inbox.next(until.into_iter().flatten().min()) else {
            continue;
        };
        threads::rehearse();
        let now: Time = start.elapsed();
        watchdog.input(&input);
        core.step(now, input, &mut effects);
        for _ in 1..BURST {
            let Some(input) = inbox.waiting() else {
                break;
            };
            watchdog.input(&input);
            core.step(now, input, &mut effects);
        }
    }
}

impl Outlets {
    /// Carries one effect out; `true` when it was the last.
    fn perform(&mut self, effect: Effect, inbox: &mut Inbox) -> bool {
        match effect {
            Effect::Watch { index, engine } => {
                let gate = inbox.gate(index);
                if let Err(error) = self.engines.watch(index, *engine, gate) {
                    log::error!("{error}");
                }
            }
            Effect::Unwatch { index } => self.engines.unwatch(index),
            Effect::Reloaded => {
                // Who asked is gone at the most.
                let _ = self.reloaded.try_send(());
            }
            Effect::Connect {
                engine,
                generation,
                since,
            } => self.engines.connect(engine, Order { generation, since }),
            Effect::List {
                engine,
                generation,
                api_version,
            } => self.ask(engine, generation, api_version, Question::List),
            Effect::Inspect {
                engine,
                generation,
                api_version,
                inspections,
                check_filters,
            } => {
                let question = Question::Inspect {
                    inspections,
                    check_filters,
                };
                self.ask(engine, generation, api_version, question);
            }
            Effect::Store(request) => {
                if let Some(writer) = &self.writer {
                    // The core counts what it has asked: one request at a time.
                    writer.send(request);
                }
            }
            Effect::Run(job) => {
                if let Some(pool) = &self.pool {
                    pool.run(job);
                }
            }
            Effect::EndRun(id) => {
                if let Some(pool) = &self.pool {
                    pool.end(id);
                }
            }
            Effect::CancelRuns => {
                if let Some(pool) = &self.pool {
                    pool.cancel_all();
                }
            }
            Effect::Log(level, text) => log::log!(log_level(level), "{text}"),
            Effect::Status(text) => self.notifier.status(&text),
            Effect::Stopped => return true,
        }
        false
    }

    fn ask(
        &self,
        engine: EngineIndex,
        generation: u64,
        api_version: std::sync::Arc<str>,
        question: Question,
    ) {
        let ask = Ask {
            generation,
            api_version,
            question,
        };
        self.engines.ask(engine, ask);
    }
}

fn log_level(level: Level) -> log::Level {
    match level {
        Level::Error => log::Level::Error,
        Level::Warn => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
    }
}

/// Feeds the service manager's watchdog while core and writer make progress.
struct Watchdog {
    every: Option<Duration>,
    next: Option<Instant>,
    /// When the store was asked what it has not answered.
    asked: Option<Instant>,
}

impl Watchdog {
    fn new(notifier: &Notifier) -> Self {
        let every = notifier.watchdog_interval().map(|limit| limit / 3);
        Watchdog {
            every,
            next: every.map(|every| Instant::now() + every),
            asked: None,
        }
    }

    fn effect(&mut self, effect: &Effect) {
        if matches!(effect, Effect::Store(_)) {
            self.asked = Some(Instant::now());
        }
    }

    fn input(&mut self, input: &Input) {
        if matches!(input, Input::Stored(_)) {
            self.asked = None;
        }
    }

    fn feed(&mut self, notifier: &Notifier) {
        let now = Instant::now();
        let (Some(every), Some(next)) = (self.every, self.next) else {
            return;
        };
        if next > now {
            return;
        }
        self.next = Some(now + every);
        if self.asked.is_none_or(|asked| now - asked < STUCK) {
            notifier.watchdog();
        }
    }
}
