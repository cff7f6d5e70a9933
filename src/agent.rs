//! Wiring, and nothing else: which channel leads where, what is started first and stopped last.
//!
//! Start: the inbox, the writer, the readers and syncers, core last, so that nobody misses its effects. Stop: the core gives the leases back and says
//! when the last command has ended; then the channels are dropped and the sockets shut, and every thread is waited for, briefly, by name.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGINT, SIGPIPE, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::command::BaseEnvironment;
use crate::config::{CacheConfig, Config};
use crate::core::backoff::Random;
use crate::core::{CacheSettings, Core, Input, Settings};
use crate::docker::document::Masker;
use crate::docker::socket::Socket;
use crate::driver::{self, Outlets};
use crate::handlers::Pool;
use crate::inbox::{Door, inbox};
use crate::model::EngineIndex;
use crate::notify::Notifier;
use crate::reader::Reader;
use crate::store::redis::{Options, RedisStore};
use crate::syncer::{Desk, Syncer};
use crate::threads::{self, Ended, Thread};
use crate::writer;

/// How long the threads have to end once their sockets are shut.
const JOIN: Duration = Duration::from_millis(200);

/// One list and two asks of inspects are under way at the most; one more of each after a reconnect.
const ASKS: usize = 8;

/// Starts everything, waits for the end, stops everything.
///
/// # Errors
/// The system refused what cannot be done without: a thread, a pipe, a signal handler.
pub fn run(config: Config) -> io::Result<ExitCode> {
    let boot = boot_id();
    let seed = boot.bytes().fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let mut random = Random::new(seed);
    let (inbox, door) = inbox(config.engines.len());
    let (ended, ends) = bounded(2);
    let mut stage = Stage::new();
    let engines = start_engines(&config, &door, &mut random, &mut stage)?;
    let writer = match &config.cache {
        None => None,
        Some(cache) => Some(start_writer(
            &config, cache, boot, &door, &ended, &mut stage,
        )?),
    };
    let notifier = Arc::new(Notifier::of_process());
    let outlets = Outlets {
        readers: engines.0,
        syncers: engines.1,
        writer,
        pool: start_pool(&config, &door)?,
        notifier: notifier.clone(),
    };
    let core = Core::new(settings(&config, seed));
    let (give_back, back) = bounded(1);
    let body = move || {
        let _ = give_back.send(driver::run(core, inbox, outlets));
    };
    stage
        .threads
        .push(threads::spawn_fatal("core", ended, body)?);
    start_signals(door, notifier.clone())?;
    notifier.ready();
    Ok(wait(&ends, &back, stage))
}

/// Everything that has to be stopped.
struct Stage {
    threads: Vec<Thread>,
    sockets: Vec<Socket>,
    /// Dropped at the end: a thread that pauses after a panic goes on no more.
    going: Sender<()>,
    stop: Receiver<()>,
}

impl Stage {
    fn new() -> Self {
        let (going, stop) = bounded(0);
        Stage {
            threads: Vec::new(),
            sockets: Vec::new(),
            going,
            stop,
        }
    }
}

type EngineOutlets = (
    Vec<Sender<crate::reader::Order>>,
    Vec<Sender<crate::syncer::Ask>>,
);

fn start_engines(
    config: &Config,
    door: &Door,
    random: &mut Random,
    stage: &mut Stage,
) -> io::Result<EngineOutlets> {
    let cache = config.cache.as_ref();
    let patterns = cache.map_or(&[][..], |cache| &cache.redact);
    let masker = Masker::new(patterns).map_err(io::Error::other)?;
    let masker = Arc::new(masker);
    let filters: Arc<[(String, String)]> = cache.map_or(&[][..], |cache| &cache.filters).into();
    let mut outlets: EngineOutlets = (Vec::new(), Vec::new());
    for (index, engine) in config.engines.iter().enumerate() {
        let index = EngineIndex(index as u32);
        let (order, orders) = bounded(1);
        let socket = Socket::default();
        let mut reader = Reader {
            engine: index,
            address: engine.address.clone(),
            max_age: config.stream_max_age,
            random: Random::new(random.draw()),
            orders,
            door: door.clone(),
            socket: socket.clone(),
        };
        stage.sockets.push(socket);
        stage.threads.push(threads::supervise(
            &format!("read:{}", engine.name),
            stage.stop.clone(),
            move || reader.run(),
        )?);

        let (ask, asks) = bounded(ASKS);
        let sockets = (Socket::default(), Socket::default());
        stage.sockets.extend([sockets.0.clone(), sockets.1.clone()]);
        let desk = Desk {
            engine: index,
            name: engine.name.clone(),
            address: engine.address.clone(),
            all: cache.is_some_and(|cache| cache.all),
            filters: filters.clone(),
            masker: masker.clone(),
            door: door.clone(),
        };
        let mut syncer = Syncer::new(desk, asks, sockets);
        stage.threads.push(threads::supervise(
            &format!("sync:{}", engine.name),
            stage.stop.clone(),
            move || syncer.run(),
        )?);
        outlets.0.push(order);
        outlets.1.push(ask);
    }
    Ok(outlets)
}

fn start_writer(
    config: &Config,
    cache: &CacheConfig,
    boot: String,
    door: &Door,
    ended: &Sender<Ended>,
    stage: &mut Stage,
) -> io::Result<Sender<crate::core::StoreRequest>> {
    let store = RedisStore::new(Options {
        target: cache.target.clone(),
        shown_url: cache.shown_url.clone(),
        prefix: cache.prefix.clone(),
        hosts: config
            .engines
            .iter()
            .map(|engine| engine.name.clone())
            .collect(),
        ttl: config.update_interval * 3,
        interval: config.update_interval,
        stream_maxlen: cache.stream_maxlen,
        boot,
        with_runs: config.handlers.is_some(),
        replay_max_age: config.replay_max_age,
        selfcheck: cache.selfcheck,
    });
    let (request, requests) = bounded(1);
    let door = door.clone();
    let body = move || writer::run(store, &requests, &door);
    let thread = threads::spawn_fatal("writer", ended.clone(), body)?;
    stage.threads.push(thread);
    Ok(request)
}

fn start_pool(config: &Config, door: &Door) -> io::Result<Option<Pool>> {
    let Some(handlers) = &config.handlers else {
        return Ok(None);
    };
    let door = door.clone();
    let report = Arc::new(move |job, run| door.put(Input::Ended { job, run }));
    Pool::new(handlers.workers, BaseEnvironment::of_process(), report).map(Some)
}

fn settings(config: &Config, seed: u64) -> Settings {
    let handlers = config.handlers.as_ref();
    Settings {
        engines: config.engines.clone(),
        cache: config.cache.as_ref().map(|cache| CacheSettings {
            all: cache.all,
            filtered: !cache.filters.is_empty(),
            forget_after: cache.forget_after,
            selfcheck: cache.selfcheck,
        }),
        entries: handlers.map(|handlers| handlers.entries.clone()),
        workers: handlers.map_or(1, |handlers| handlers.workers),
        interval: config.update_interval,
        replay_max_age: config.replay_max_age,
        version: env!("CARGO_PKG_VERSION"),
        seed,
    }
}

/// The thread `signals`. A second request to stop ends the process where it stands.
fn start_signals(door: Door, notifier: Arc<Notifier>) -> io::Result<()> {
    // A reader of our log that goes away must not take us with it.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGPIPE])?;
    threads::spawn("signals", move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGUSR1 => door.put(Input::Report),
                SIGPIPE => {}
                _ if stopping => std::process::exit(0),
                _ => {
                    stopping = true;
                    notifier.stopping();
                    door.put(Input::Stop);
                }
            }
        }
    })
    .map(drop)
}

/// Waits for the first thread that ends although it should not, or for the core's good end; then stops the others.
fn wait(ends: &Receiver<Ended>, back: &Receiver<Outlets>, stage: Stage) -> ExitCode {
    let Ok(ended) = ends.recv() else {
        return ExitCode::FAILURE;
    };
    let (Ok(outlets), None) = (back.try_recv(), &ended.panic) else {
        // A core that panics takes the writer's requests with it, and the writer's end may be heard of first.
        let ended = match ended.panic {
            None => ends.recv_timeout(JOIN).unwrap_or(ended),
            Some(_) => ended,
        };
        log::error!(
            "thread `{}` has ended; so does the agent, to be started anew",
            ended.name
        );
        return ExitCode::FAILURE;
    };
    let deadline = Instant::now() + JOIN;
    let Outlets {
        pool,
        readers,
        syncers,
        writer,
        notifier: _,
    } = outlets;
    drop((readers, syncers, writer, stage.going));
    for socket in &stage.sockets {
        socket.shut();
    }
    let mut hung = pool.map_or_else(Vec::new, |pool| pool.stop(deadline));
    for thread in stage.threads {
        hung.extend(thread.join_by(deadline).err());
    }
    for hung in hung {
        log::warn!("{hung}");
    }
    log::info!("Stopped");
    ExitCode::SUCCESS
}

/// Tells this process from every other: the kernel's own random id.
fn boot_id() -> String {
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    match random.trim() {
        "" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let nanos = now.map_or(0, |now| now.as_nanos());
            format!("{:x}-{:x}", std::process::id(), nanos)
        }
        uuid => uuid.replace('-', ""),
    }
}
