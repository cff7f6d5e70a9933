//! Wiring, and nothing else: which channel leads where, what is started first and stopped last.
//!
//! Start: the inbox, the writer, the readers and syncers, core last, so that nobody misses its effects. Stop: the core gives the leases back and says
//! when the last command has ended; then the channels are dropped and the sockets shut, and every thread is waited for, briefly, by name.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::command::{self, BaseEnvironment};
use crate::config::{CacheConfig, Config, Source};
use crate::core::backoff::Random;
use crate::core::{CacheSettings, Core, Input, Settings, StoreRequest};
use crate::docker::document::Masker;
use crate::driver::{self, Outlets};
use crate::engines::{Engines, Shared};
use crate::handlers::Pool;
use crate::inbox::{Door, Inbox, inbox};
use crate::logging;
use crate::model::EngineIndex;
use crate::notify::Notifier;
use crate::queue;
use crate::reload::Reloader;
use crate::store::redis::{Options, RedisStore};
use crate::threads::{self, Ended, Thread};
use crate::writer;

/// How long the threads have to end once their sockets are shut.
const JOIN: Duration = Duration::from_millis(200);

/// How long a zombie may stand where nobody but process 1 can reap it.
const REAP: Duration = Duration::from_secs(1);

/// Starts everything, waits for the end, stops everything. `source` is read again when a signal asks for it.
///
/// # Errors
/// The system refused what cannot be done without: a thread, a pipe, a signal handler.
pub fn run(config: Config, source: Source) -> io::Result<ExitCode> {
    let boot = boot_id();
    let name = boot.chars().take(8).collect::<String>();
    let seed = boot.bytes().fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let (mut inbox, door) = inbox();
    let (ended, ends) = bounded(2);
    let mut threads = Vec::new();
    let signals = catch_signals()?;
    let engines = start_engines(&config, &mut inbox, Random::new(seed))?;
    let mut writer = None;
    if let Some(cache) = &config.cache {
        let (request, thread) = start_writer(&config, cache, boot, &door, &ended)?;
        writer = Some(request);
        threads.push(thread);
    }
    let notifier = Arc::new(Notifier::of_process());
    let (reloaded, taken_over) = bounded(1);
    let outlets = Outlets {
        engines,
        writer,
        pool: start_pool(&config, &door),
        reloaded,
        notifier: notifier.clone(),
    };
    let core = Core::new(settings(&config, &name, seed));
    let (give_back, back) = bounded(1);
    let body = move || {
        let _ = give_back.send(driver::run(core, inbox, outlets));
    };
    threads.push(threads::spawn_fatal("core", ended, body)?);
    let reload = start_reload(source, taken_over, &door, &notifier)?;
    start_signals(signals, door, reload, notifier.clone())?;
    notifier.ready();
    Ok(wait(&name, &ends, &back, threads))
}

fn start_engines(config: &Config, inbox: &mut Inbox, random: Random) -> io::Result<Engines> {
    let cache = config.cache.as_ref();
    let masker = Masker::new(&config.redact).map_err(io::Error::other)?;
    let mut engines = Engines::new(Shared {
        stream_max_age: config.stream_max_age,
        all: cache.is_some_and(|cache| cache.all),
        filters: cache.map_or(&[][..], |cache| &cache.filters).into(),
        masker: Arc::new(masker),
        random,
        handlers: config.handlers.is_some(),
    });
    for (index, engine) in config.engines.iter().enumerate() {
        let index = EngineIndex(index as u32);
        engines.watch(index, engine.clone(), inbox.gate(index))?;
    }
    Ok(engines)
}

fn start_writer(
    config: &Config,
    cache: &CacheConfig,
    boot: String,
    door: &Door,
    ended: &Sender<Ended>,
) -> io::Result<(queue::Sender<StoreRequest>, Thread)> {
    let store = RedisStore::new(Options {
        target: cache.target.clone(),
        shown_url: cache.shown_url.clone(),
        prefix: cache.prefix.clone(),
        ttl: config.update_interval * 3,
        interval: config.update_interval,
        stream_maxlen: cache.stream_maxlen,
        boot,
        replay_max_age: config.replay_max_age,
        selfcheck: cache.selfcheck,
    });
    let (request, requests) = queue::queue(1);
    let door = door.clone();
    let body = move || writer::run(store, requests, &door);
    let thread = threads::spawn_fatal("writer", ended.clone(), body)?;
    Ok((request, thread))
}

fn start_pool(config: &Config, door: &Door) -> Option<Pool> {
    config.handlers.as_ref()?;
    let door = door.clone();
    let report = Arc::new(move |job, run| door.put(Input::Ended { job, run }));
    let base = BaseEnvironment::of_process();
    Some(Pool::new(base, report))
}

fn settings(config: &Config, boot: &str, seed: u64) -> Settings {
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
        boot: boot.to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        seed,
        clock_ns: clock_ns(),
    }
}

/// This machine's clock, in ns since 1970.
fn clock_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as i64)
}

/// The thread `reload`, where there is a file to read again.
fn start_reload(
    source: Source,
    reloaded: Receiver<()>,
    door: &Door,
    notifier: &Arc<Notifier>,
) -> io::Result<Option<Sender<()>>> {
    if source.file().is_none() {
        return Ok(None);
    }
    let (ask, asks) = bounded(1);
    let mut reloader = Reloader {
        source,
        asks,
        reloaded,
        door: door.clone(),
        notifier: notifier.clone(),
    };
    let never = crossbeam_channel::never::<()>();
    threads::supervise("reload", never, move || reloader.run())?;
    Ok(Some(ask))
}

/// The signals that the agent heeds. A reader of our log that goes away must not take us with it.
///
/// They are caught before any command starts, as [`docker_cache_spawn::spawn`] asks; what comes until somebody listens waits.
fn catch_signals() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGPIPE])
}

/// The thread `signals`. A second request to stop ends the process where it stands.
fn start_signals(
    mut signals: Signals,
    door: Door,
    reload: Option<Sender<()>>,
    notifier: Arc<Notifier>,
) -> io::Result<()> {
    threads::spawn("signals", move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGUSR1 => door.put(Input::Report),
                SIGPIPE => {}
                SIGHUP if stopping => {}
                SIGHUP => match &reload {
                    // One that waits already will see what is there now.
                    Some(reload) => drop(reload.try_send(())),
                    None => log::info!("no file was given, so there is nothing to read again"),
                },
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
fn wait(
    name: &str,
    ends: &Receiver<Ended>,
    back: &Receiver<Outlets>,
    threads: Vec<Thread>,
) -> ExitCode {
    let Some(ended) = first_end(ends) else {
        return ExitCode::FAILURE;
    };
    let (Ok(outlets), None) = (back.try_recv(), &ended.panic) else {
        // A core that panics takes the writer's requests with it, and the writer's end may be heard of first.
        let ended = match ended.panic {
            None => ends.recv_timeout(JOIN).unwrap_or(ended),
            Some(_) => ended,
        };
        logging::last_words(format_args!(
            "thread `{}` has ended; so does the agent, to be started anew",
            ended.name
        ));
        return ExitCode::FAILURE;
    };
    let deadline = Instant::now() + JOIN;
    let Outlets {
        mut engines,
        writer,
        pool,
        reloaded: _,
        notifier: _,
    } = outlets;
    drop(writer);
    engines.end();
    let mut hung = pool.map_or_else(Vec::new, |pool| pool.stop(deadline));
    hung.extend(engines.join_by(deadline));
    for thread in threads {
        hung.extend(thread.join_by(deadline).err());
    }
    for hung in hung {
        log::warn!("{hung}");
    }
    command::end_leftovers(name);
    log::info!("Stopped");
    ExitCode::SUCCESS
}

/// Waits on the main thread for the first thread that ends. Process 1 reaps orphans meanwhile, also those that left their command's group long ago.
fn first_end(ends: &Receiver<Ended>) -> Option<Ended> {
    if !command::is_init() {
        return ends.recv().ok();
    }
    loop {
        match ends.recv_timeout(REAP) {
            Ok(ended) => return Some(ended),
            Err(RecvTimeoutError::Timeout) => command::reap_orphans(),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Tells this process from every other: the kernel's own random id.
pub(crate) fn boot_id() -> String {
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
