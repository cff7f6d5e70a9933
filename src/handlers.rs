//! The threads that run commands, `handler:<n>`: started on demand, gone after ten idle seconds.
//!
//! Core decides what runs, and how much at once. The jobs that wait here wait only for a thread that is on its way.
//! Nothing here blocks the caller: [`Pool::run`] holds the lock for as long as it takes to start a thread at most. A worker blocks in
//! [`command::run`], which the cancel word and its own deadline end, and in the log.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use crate::command::{self, BaseEnvironment, Cancel, OUTPUT_LIMIT};
use crate::model::{Exit, Job, Run};
use crate::threads::{self, Hung, Thread};

/// How long a thread waits for its next job before it ends: an idle agent has none of them.
const IDLE: Duration = Duration::from_secs(10);

/// Takes the result of each job, by the job's id. It must not block.
pub type Report = Arc<dyn Fn(u64, Run) + Send + Sync>;

/// The pool. Dropped without [`Pool::stop`], its running commands are cancelled and nobody waits for them.
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// An empty pool.
    pub fn new(base: BaseEnvironment, report: Report) -> Pool {
        let runner = move |job: &Job, cancel: &Cancel| command::run(job, cancel, &base);
        Pool::with_runner(IDLE, Box::new(runner), report)
    }

    fn with_runner(idle: Duration, runner: Box<Runner>, report: Report) -> Pool {
        let shared = Shared {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            runner,
            report,
            idle,
        };
        Pool {
            shared: Arc::new(shared),
        }
    }

    /// Runs a job on a thread of the pool. Its result is reported in any case: from that thread, or from this one when no thread could be started.
    pub fn run(&self, job: Box<Job>) {
        let shared = &self.shared;
        let mut state = shared.lock();
        let spare = state.spare.pop().map(Ok);
        let cancel = match spare.unwrap_or_else(|| Cancel::new().map(Arc::new)) {
            Ok(cancel) => cancel,
            Err(error) => {
                drop(state);
                let why = format!("failed to make what would end it: {error}");
                return shared.refuse(&job, why);
            }
        };
        if state.cancelled {
            cancel.cancel(Exit::Cancelled);
        }
        state.cancels.insert(job.id, cancel.clone());
        state.waiting.push_back((job, cancel));
        let mut refused = None;
        if state.idle < state.waiting.len() {
            match shared.start_worker(&state) {
                Ok((number, thread)) => {
                    state.threads.insert(number, thread);
                    state.idle += 1;
                }
                // Those that run will come to it.
                Err(error) if !state.threads.is_empty() => log::warn!("{error}"),
                Err(error) => refused = state.waiting.pop_back().map(|(job, _)| (job, error)),
            }
        }
        if let Some((job, _)) = &refused {
            state.cancels.remove(&job.id);
        }
        drop(state);
        shared.wake.notify_one();
        if let Some((job, error)) = refused {
            shared.refuse(&job, error.to_string());
        }
    }

    /// Ends one command, with its grace, because a newer event takes its place. One that has ended already is no concern of anybody.
    pub fn end(&self, id: u64) {
        if let Some(cancel) = self.shared.lock().cancels.get(&id) {
            cancel.cancel(Exit::Replaced);
        }
    }

    /// Ends all commands, each with its grace, for good: what is given to [`Pool::run`] from now on is not started and reported as cancelled.
    pub fn cancel_all(&self) {
        let mut state = self.shared.lock();
        state.cancelled = true;
        for cancel in state.cancels.values() {
            cancel.cancel(Exit::Cancelled);
        }
    }

    /// Cancels all commands and waits for all threads until then; says which did not end.
    pub fn stop(&self, deadline: Instant) -> Vec<Hung> {
        self.cancel_all();
        let mut state = self.shared.lock();
        state.stopping = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.shared.wake.notify_all();
        threads
            .into_values()
            .filter_map(|thread| thread.join_by(deadline).err())
            .collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.cancel_all();
        self.shared.lock().stopping = true;
        self.shared.wake.notify_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// What runs a job: [`command::run`], but for tests.
type Runner = dyn Fn(&Job, &Cancel) -> Run + Send + Sync;

struct Shared {
    state: Mutex<State>,
    /// Told of each job, and of the stop.
    wake: Condvar,
    runner: Box<Runner>,
    report: Report,
    idle: Duration,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Box<Job>, Arc<Cancel>)>,
    /// The words to end the commands that wait here or run, by their jobs' ids.
    cancels: HashMap<u64, Arc<Cancel>>,
    /// Words that were not said, for the next commands: each holds a descriptor, which takes the core some microseconds to make.
    spare: Vec<Arc<Cancel>>,
    /// All were ended, and none is started any more.
    cancelled: bool,
    /// Threads that have no job: they wait for one, or come for it in a moment, as those do that tell of their last one's end.
    idle: usize,
    stopping: bool,
    /// By number, from 1. Each thread takes itself out.
    threads: BTreeMap<usize, Thread>,
}

impl Shared {
    /// Nothing that can panic happens under this lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread under the lowest free number.
    fn start_worker(self: &Arc<Self>, state: &State) -> io::Result<(usize, Thread)> {
        let taken = state.threads.keys();
        let number = (1..).zip(taken).find(|(free, taken)| free != *taken);
        let number = number.map_or(state.threads.len() + 1, |(free, _)| free);
        let shared = Arc::clone(self);
        let body = move || {
            while let Some((job, cancel)) = shared.next(number) {
                shared.serve(&job, &cancel);
            }
        };
        Ok((number, threads::spawn(&format!("handler:{number}"), body)?))
    }

    /// The next job for thread `number`; `None`, when it shall end.
    fn next(&self, number: usize) -> Option<(Box<Job>, Arc<Cancel>)> {
        let mut state = self.lock();
        let patience_ends = Instant::now() + self.idle;
        loop {
            if let Some(job) = state.waiting.pop_front() {
                state.idle -= 1;
                return Some(job);
            }
            let patience = patience_ends.saturating_duration_since(Instant::now());
            if state.stopping || patience.is_zero() {
                state.idle -= 1;
                state.threads.remove(&number);
                let threads = state.threads.len();
                state.spare.truncate(threads);
                return None;
            }
            state = match self.wake.wait_timeout(state, patience) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn serve(&self, job: &Job, cancel: &Cancel) {
        if cancel.why().is_none() {
            log::info!("{}: started", named(job));
        }
        let started = Instant::now();
        let run = || {
            threads::rehearse();
            (self.runner)(job, cancel)
        };
        let run = threads::catch(run).unwrap_or_else(|panic| not_started(panic, started.elapsed()));
        report(job, || tell(job, &run));
        // The log may have blocked, the rest does not: what core starts in answer needs no other thread.
        let mut state = self.lock();
        state.idle += 1;
        let cancel = state.cancels.remove(&job.id);
        let unsaid = cancel.filter(|cancel| cancel.why().is_none());
        state.spare.extend(unsaid);
        drop(state);
        report(job, || (self.report)(job.id, run));
    }

    /// Reports a job that no thread can take.
    fn refuse(&self, job: &Job, why: String) {
        let run = not_started(why, Duration::ZERO);
        report(job, || tell(job, &run));
        report(job, || (self.report)(job.id, run));
    }
}

/// Tells of a run's end, as far as that goes without a panic.
fn report(job: &Job, told: impl FnOnce()) {
    if let Err(panic) = threads::catch(told) {
        log::error!(
            "failed to report run {} of `{}`: {panic}",
            job.run,
            job.entry.name
        );
    }
}

fn not_started(why: String, took: Duration) -> Run {
    Run {
        exit: Exit::NotStarted(why),
        output: Vec::new(),
        cut: false,
        took,
    }
}

/// What a run is called in the log.
pub(crate) fn named(job: &Job) -> String {
    let attempt = match job.attempt {
        ..=1 => String::new(),
        attempt => format!(", attempt {attempt}"),
    };
    format!(
        "handler `{}`, run {} for {} of {} on {}{attempt}",
        job.entry.name, job.run, job.word, job.subject, job.engine
    )
}

/// Logs the end of a run.
fn tell(job: &Job, run: &Run) {
    let level = match run.exit {
        // That a newer event takes its place is what the entry asks for.
        Exit::Code(0) | Exit::Replaced => Level::Info,
        _ => Level::Warn,
    };
    if log::log_enabled!(level) {
        for line in lines(job, run) {
            log::log!(level, "{line}");
        }
    }
}

/// One line on how a run ended, and its output. Each line of the output names its run: several may be told at once.
fn lines(job: &Job, run: &Run) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {}, after {:.3} s",
        named(job),
        run.exit,
        run.took.as_secs_f64(),
    )];
    let name = format!("{}[{}]|", job.entry.name, job.run);
    if run.cut {
        lines.push(format!("{name} … (the last {OUTPUT_LIMIT} bytes follow)"));
    }
    let output = text(run);
    let output = output.lines().map(str::trim_end);
    lines.extend(
        output
            .filter(|line| !line.is_empty())
            .map(|line| format!("{name} {line}")),
    );
    lines
}

/// The output as text. Where it was cut in the middle of a character, it begins with the next one.
fn text(run: &Run) -> String {
    let is_inside = |byte: &u8| run.cut && (0x80..0xc0).contains(byte);
    let inside = run.output.iter().take(3).take_while(|byte| is_inside(byte));
    String::from_utf8_lossy(&run.output[inside.count()..]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crossbeam_channel::{Receiver, bounded, unbounded};

    use super::*;

    /// Longer than anything here takes on a loaded machine; a wait that reaches it is a failure.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    fn job(id: u64, command: &str) -> Box<Job> {
        Box::new(Job {
            id,
            run: format!("1a2b3c4d-{id}"),
            ..command::test_job(command)
        })
    }

    fn ended(exit: Exit) -> Run {
        Run {
            exit,
            output: Vec::new(),
            cut: false,
            took: Duration::ZERO,
        }
    }

    fn reports() -> (Report, Receiver<(u64, Run)>) {
        let (sender, results) = unbounded();
        let report: Report = Arc::new(move |id, run| drop(sender.send((id, run))));
        (report, results)
    }

    fn real_pool() -> (Pool, Receiver<(u64, Run)>) {
        let (report, results) = reports();
        let pool = Pool::new(BaseEnvironment::of_process(), report);
        (pool, results)
    }

    fn pool_of(
        idle: Duration,
        runner: impl Fn(&Job, &Cancel) -> Run + Send + Sync + 'static,
    ) -> (Pool, Receiver<(u64, Run)>) {
        let (report, results) = reports();
        let pool = Pool::with_runner(idle, Box::new(runner), report);
        (pool, results)
    }

    fn threads_of(pool: &Pool) -> usize {
        pool.shared.lock().threads.len()
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let deadline = soon();
        while !condition() {
            assert!(Instant::now() < deadline, "{what}: not in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn every_job_is_run_and_reported_once() {
        let (pool, results) = real_pool();
        for id in 0..40 {
            pool.run(job(id, &format!("echo {id}; exit {id}")));
        }
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            let (id, run) = results.recv_deadline(soon()).expect("a result");
            assert_eq!(run.exit, Exit::Code(id as i32));
            assert_eq!(run.output, format!("{id}\n").into_bytes());
            assert!(seen.insert(id), "{id} was reported twice");
        }
        assert_eq!(pool.stop(soon()), []);
        assert!(results.is_empty());
    }

    #[test]
    fn what_core_starts_runs_at_once() {
        let (release, released) = bounded::<()>(0);
        let (begin, begun) = unbounded();
        let (pool, results) = pool_of(IDLE, move |_, _| {
            let name = std::thread::current().name().map(str::to_owned);
            let _ = begin.send(name.unwrap_or_default());
            let _ = released.recv();
            ended(Exit::Code(0))
        });
        for id in 0..10 {
            pool.run(job(id, ""));
        }
        let names: BTreeSet<String> = (0..10)
            .map(|_| begun.recv_deadline(soon()).expect("ten run at once"))
            .collect();
        let expected = (1..=10).map(|number| format!("handler:{number}"));
        assert_eq!(names, expected.collect());
        drop(release);
        for _ in 0..10 {
            results.recv_deadline(soon()).expect("a result");
        }
    }

    #[test]
    fn an_idle_thread_takes_the_next_job_and_ends_at_last() {
        let idle = Duration::from_millis(300);
        let (pool, results) = pool_of(idle, |_, _| ended(Exit::Code(0)));
        assert_eq!(threads_of(&pool), 0);
        let idle_threads = || pool.shared.lock().idle;
        for id in 0..100 {
            pool.run(job(id, ""));
            results.recv_deadline(soon()).expect("a result");
            wait_for("a thread waits", || idle_threads() == 1);
        }
        assert_eq!(threads_of(&pool), 1);
        wait_for("the idle thread ends", || threads_of(&pool) == 0);
        pool.run(job(100, ""));
        results.recv_deadline(soon()).expect("a result");
    }

    #[test]
    fn a_panic_is_the_failure_of_its_job_alone() {
        let (pool, results) = pool_of(IDLE, |job, _| match job.id {
            1 => panic!("of a test"),
            _ => ended(Exit::Code(0)),
        });
        pool.run(job(1, ""));
        let (id, run) = results.recv_deadline(soon()).expect("a result");
        let Exit::NotStarted(why) = run.exit else {
            panic!("it panicked, and ended as {:?}", run.exit);
        };
        assert_eq!(id, 1);
        assert!(why.starts_with("panicked at src/handlers.rs:"), "{why}");
        wait_for("its thread waits", || pool.shared.lock().idle == 1);
        pool.run(job(2, ""));
        let (id, run) = results.recv_deadline(soon()).expect("a result");
        assert_eq!((id, run.exit), (2, Exit::Code(0)));
        assert_eq!(threads_of(&pool), 1);
    }

    #[test]
    fn a_stop_ends_running_commands_and_starts_no_more() {
        let (pool, results) = real_pool();
        for id in 0..3 {
            pool.run(job(id, "exec sleep 1000"));
        }
        assert_eq!(pool.stop(soon()), []);
        let mut ids = BTreeSet::new();
        for _ in 0..3 {
            let (id, run) = results.recv_deadline(soon()).expect("a result");
            assert_eq!(run.exit, Exit::Cancelled);
            ids.insert(id);
        }
        assert_eq!(ids.len(), 3);
        pool.run(job(3, "true"));
        let (_, run) = results.recv_deadline(soon()).expect("a result");
        assert_eq!(run.exit, Exit::Cancelled);
    }

    #[test]
    fn one_command_is_ended_and_the_others_go_on() {
        let (pool, results) = real_pool();
        for id in [1, 2] {
            pool.run(job(id, "exec sleep 1000"));
        }
        // Whether its thread has come to it or not.
        pool.end(2);
        pool.end(4);
        let take = |wanted| {
            let (id, run) = results.recv_deadline(soon()).expect("a result");
            assert_eq!((id, run.exit), wanted);
        };
        take((2, Exit::Replaced));
        pool.run(job(3, "exit 3"));
        take((3, Exit::Code(3)));
        pool.end(1);
        take((1, Exit::Replaced));
        wait_for("nothing is left of them", || {
            pool.shared.lock().cancels.is_empty()
        });
        assert_eq!(pool.stop(soon()), []);
    }

    #[test]
    fn a_stop_names_who_hangs() {
        let (release, released) = bounded::<()>(0);
        let (pool, _results) = pool_of(IDLE, move |_, _| {
            let _ = released.recv();
            ended(Exit::Code(0))
        });
        pool.run(job(1, ""));
        let hung = pool.stop(Instant::now());
        assert_eq!(hung.len(), 1);
        assert_eq!(hung[0].name, "handler:1");
        drop(release);
    }

    #[test]
    fn the_log_tells_the_run_and_its_output_line_by_line() {
        let mut job = job(17, "");
        let mut run = Run {
            exit: Exit::Code(3),
            output: b"\xa4hello\r\n\n  w\xffrld \nlast".to_vec(),
            cut: true,
            took: Duration::from_millis(1234),
        };
        assert_eq!(
            lines(&job, &run),
            [
                "handler `test`, run 1a2b3c4d-17 for die of web-1 on foo: exit status 3, after 1.234 s",
                "test[1a2b3c4d-17]| … (the last 4096 bytes follow)",
                "test[1a2b3c4d-17]| hello",
                "test[1a2b3c4d-17]|   w\u{fffd}rld",
                "test[1a2b3c4d-17]| last",
            ]
        );
        run.output.clear();
        run.cut = false;
        assert_eq!(lines(&job, &run).len(), 1);
        job.attempt = 2;
        assert_eq!(
            named(&job),
            "handler `test`, run 1a2b3c4d-17 for die of web-1 on foo, attempt 2"
        );
    }
}
