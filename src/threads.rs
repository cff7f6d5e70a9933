//! The only place that starts threads: each has a name, an end that can be waited for, and a panic that is told once.
//!
//! A panic in a thread from here is caught at the thread's top and logged in one line (``thread `core` panicked at src/x.rs:12: message``). What it
//! means is the caller's choice: nothing more ([`spawn`]), the end of the process ([`spawn_fatal`]), or a new start ([`supervise`]).
//! Panics elsewhere (in `main`, in tests) are reported as Rust always does.

use std::any::Any;
use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

/// The pause after a first panic of a supervised thread; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause. A body that ran longer than this before it panicked has recovered: the next pause is the first again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A running thread. Dropped without [`Thread::join_by`], it runs on.
#[derive(Debug)]
pub struct Thread {
    name: String,
    handle: JoinHandle<()>,
    /// Disconnected when the body has returned and was dropped.
    done: Receiver<Infallible>,
}

impl Thread {
    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its body has returned.
    pub fn has_ended(&self) -> bool {
        matches!(self.done.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Waits for its end until then.
    ///
    /// # Errors
    /// It still runs; it is left to itself.
    pub fn join_by(self, deadline: Instant) -> Result<(), Hung> {
        match self.done.recv_deadline(deadline) {
            Err(RecvTimeoutError::Disconnected) => {
                // It has nothing left to do, and its panics were caught.
                let _ = self.handle.join();
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err(Hung { name: self.name }),
            Ok(never) => match never {},
        }
    }
}

/// A thread that did not end by its deadline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hung {
    /// Its name.
    pub name: String,
}

impl fmt::Display for Hung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread `{}` did not end in time", self.name)
    }
}

impl Error for Hung {}

/// The end of a thread that was started by [`spawn_fatal`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// `panicked at src/x.rs:12: message`, unless it returned by itself. It was logged already.
    pub panic: Option<String>,
}

/// Starts a thread. The kernel (`ps -T`, `top -H`) shows the first 15 bytes of its name.
///
/// # Errors
/// The system has no thread left.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    start(name, |name| {
        let _ = run(name, body);
    })
}

/// Starts a thread whose end somebody must hear of. The channel needs room for one message of each such thread; what finds none is dropped.
///
/// # Errors
/// The system has no thread left.
pub fn spawn_fatal(
    name: &str,
    ended: Sender<Ended>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    start(name, move |name| {
        let panic = run(name, body).err();
        let _ = ended.try_send(Ended {
            name: name.to_owned(),
            panic,
        });
    })
}

/// Starts a thread that runs its body again and again until it breaks. After a panic it pauses first (1 s, doubling to 10 s); a message on `stop`, or
/// its other end dropped, ends that pause and the thread.
///
/// # Errors
/// The system has no thread left.
pub fn supervise<T: Send + 'static>(
    name: &str,
    stop: Receiver<T>,
    body: impl FnMut() -> ControlFlow<()> + Send + 'static,
) -> io::Result<Thread> {
    start(name, move |name| repeat(name, FIRST_PAUSE, &stop, body))
}

/// In debug builds, lets a test see what becomes of the others when this thread fails in the middle of its work: where the file that
/// `DOCKER_CACHE_TEST_FAULT` names says `panic <thread>` or `hang <thread>` of this one, it does so, once. Release builds know nothing of it.
pub fn rehearse() {
    #[cfg(debug_assertions)]
    {
        static FILE: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os("DOCKER_CACHE_TEST_FAULT"));
        let Some(file) = file else { return };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let current = std::thread::current();
        match text.trim_end().split_once(' ') {
            Some((fault, name)) if current.name() == Some(name) => {
                let _ = std::fs::remove_file(file);
                assert!(fault != "panic", "a fault that was asked for");
                loop {
                    std::thread::park();
                }
            }
            _ => {}
        }
    }
}

/// Runs something and catches its panic, which it does not log: the error is `panicked at src/x.rs:12: message`.
///
/// # Errors
/// It panicked.
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(install_hook);
    let outer = CATCHING.replace(Catching::Yes);
    // Nobody sees what a panic left half done: the body is dropped with all that it owns.
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    let inner = CATCHING.replace(outer);
    result.map_err(|payload| match inner {
        Catching::Caught(text) => text,
        // The hook does not run for `resume_unwind`.
        Catching::Yes | Catching::No => format!("panicked: {}", message(&*payload)),
    })
}

/// What a panic on this thread meets.
enum Catching {
    /// Nobody of ours.
    No,
    /// A [`catch`].
    Yes,
    /// A [`catch`], which will find this text.
    Caught(String),
}

thread_local! {
    static CATCHING: RefCell<Catching> = const { RefCell::new(Catching::No) };
}

/// Only a hook learns where a panic happened. This one keeps that for [`catch`] to tell, and leaves all other panics to the hook before it.
fn install_hook() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let ours = CATCHING.with_borrow_mut(|catching| {
            // A second panic on the way out of the first aborts the process: that one must be printed.
            let first = matches!(catching, Catching::Yes);
            if first {
                *catching = Catching::Caught(describe(info));
            }
            first
        });
        if !ours {
            others(info);
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = message(info.payload());
    match info.location() {
        Some(place) => format!("panicked at {}:{}: {message}", place.file(), place.line()),
        None => format!("panicked: {message}"),
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with something that is no text")
}

fn start(name: &str, body: impl FnOnce(&str) + Send + 'static) -> io::Result<Thread> {
    // The operating system's names end at a NUL, and std panics at one.
    let name = name.replace('\0', "");
    let (guard, done) = bounded(0);
    let own_name = name.clone();
    let handle = Builder::new()
        .name(name.clone())
        .spawn(move || {
            // Dropped last, after the body and all it owned.
            let _guard: Sender<Infallible> = guard;
            body(&own_name);
        })
        .map_err(|error| {
            let text = format!("failed to start thread `{name}`: {error}");
            io::Error::new(error.kind(), text)
        })?;
    Ok(Thread { name, handle, done })
}

/// Runs a thread's body and logs its panic.
fn run<T>(name: &str, body: impl FnOnce() -> T) -> Result<T, String> {
    catch(body).inspect_err(|text| log::error!("thread `{name}` {text}"))
}

fn repeat<T>(
    name: &str,
    first_pause: Duration,
    stop: &Receiver<T>,
    mut body: impl FnMut() -> ControlFlow<()>,
) {
    let mut pause = first_pause;
    loop {
        let started = Instant::now();
        match run(name, &mut body) {
            Ok(ControlFlow::Break(())) => return,
            Ok(ControlFlow::Continue(())) => pause = first_pause,
            Err(_) => {
                if started.elapsed() > LONGEST_PAUSE {
                    pause = first_pause;
                }
                match stop.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    /// A receiver that disconnects when the sender is dropped.
    fn stopper() -> (Sender<()>, Receiver<()>) {
        bounded(0)
    }

    #[test]
    fn a_thread_has_its_name_and_ends() {
        let (sender, names) = bounded(1);
        let thread = spawn("read:a-very-long-engine\0", move || {
            let kernel = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
            let own = std::thread::current().name().map(str::to_owned);
            let _ = sender.send((own, kernel));
        })
        .expect("a thread is free");
        assert_eq!(thread.name(), "read:a-very-long-engine");
        let (own, kernel) = names.recv_deadline(soon()).expect("it says its name");
        assert_eq!(own.as_deref(), Some("read:a-very-long-engine"));
        assert_eq!(kernel, "read:a-very-lon\n");
        assert_eq!(thread.join_by(soon()), Ok(()));
    }

    #[test]
    fn who_hangs_is_named() {
        let (stop, stopped) = stopper();
        let thread =
            spawn("hang", move || while stopped.recv().is_ok() {}).expect("a thread is free");
        let hung = thread.join_by(Instant::now()).expect_err("it hangs");
        assert_eq!(hung.to_string(), "thread `hang` did not end in time");
        drop(stop);
    }

    #[test]
    fn whether_it_has_ended_can_be_asked_without_waiting() {
        let (stop, stopped) = stopper();
        let thread =
            spawn("asked", move || while stopped.recv().is_ok() {}).expect("a thread is free");
        assert!(!thread.has_ended());
        drop(stop);
        let deadline = soon();
        while !thread.has_ended() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn join_waits_for_what_the_body_owned() {
        struct Slow(Sender<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let (sender, dropped) = bounded(1);
        let slow = Slow(sender);
        let thread = spawn("drop", move || drop(slow)).expect("a thread is free");
        assert_eq!(thread.join_by(soon()), Ok(()));
        assert_eq!(dropped.try_recv(), Ok(()));
    }

    #[test]
    fn a_panic_is_caught_with_its_place_and_its_message() {
        let line = line!() + 1;
        let text = catch(|| panic!("no {} today", "luck")).expect_err("it panics");
        assert_eq!(
            text,
            format!("panicked at src/threads.rs:{line}: no luck today")
        );
        let text = catch(|| panic::resume_unwind(Box::new("plain"))).expect_err("it panics");
        assert_eq!(text, "panicked: plain");
        let text = catch(|| std::panic::panic_any(7)).expect_err("it panics");
        assert!(text.ends_with(": with something that is no text"), "{text}");
        assert_eq!(catch(|| 7), Ok(7));
    }

    #[test]
    fn a_catch_inside_a_catch_leaves_the_outer_one_whole() {
        let text = catch(|| {
            let inner = catch(|| panic!("inner"));
            assert!(inner.expect_err("it panics").ends_with(": inner"));
            panic!("outer");
        });
        let text = text.expect_err("it panics");
        assert!(
            text.starts_with("panicked at ") && text.ends_with(": outer"),
            "{text}"
        );
    }

    #[test]
    fn a_panic_ends_neither_the_process_nor_the_wait() {
        let thread = spawn("panics", || panic!("of a test")).expect("a thread is free");
        assert_eq!(thread.join_by(soon()), Ok(()));
    }

    #[test]
    fn the_end_of_a_fatal_thread_is_told() {
        let (sender, ended) = bounded(2);
        let _core = spawn_fatal("core", sender.clone(), || panic!("of a test"));
        let core = ended.recv_deadline(soon()).expect("it ended");
        assert_eq!(core.name, "core");
        let panic = core.panic.expect("it panicked");
        assert!(panic.starts_with("panicked at src/threads.rs:"), "{panic}");

        let _writer = spawn_fatal("writer", sender, || ());
        let writer = ended.recv_deadline(soon()).expect("it ended");
        assert_eq!((writer.name.as_str(), writer.panic), ("writer", None));
    }

    #[test]
    fn a_supervised_body_starts_anew_after_a_panic_until_it_breaks() {
        let (_stop, stopped) = stopper();
        let mut calls = 0;
        repeat("again", Duration::from_millis(1), &stopped, || {
            calls += 1;
            match calls {
                1 | 2 | 4 => panic!("of a test"),
                3 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        assert_eq!(calls, 5);
    }

    #[test]
    fn the_pauses_double_and_begin_anew_after_a_success() {
        let (_stop, stopped) = stopper();
        let mut calls = 0;
        let mut starts = Vec::new();
        repeat("pauses", Duration::from_millis(20), &stopped, || {
            starts.push(Instant::now());
            calls += 1;
            match calls {
                1..=3 => panic!("of a test"),
                _ => ControlFlow::Break(()),
            }
        });
        let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (pause, least_ms) in pauses.iter().zip([20, 40, 80]) {
            assert!(*pause >= Duration::from_millis(least_ms), "{pauses:?}");
        }
    }

    #[test]
    fn a_stop_ends_the_pause() {
        let (stop, stopped) = stopper();
        let calls = Arc::new(AtomicU32::new(0));
        let (sender, panics) = bounded(1);
        let counted = Arc::clone(&calls);
        let an_hour = Duration::from_secs(3600);
        let thread = spawn("paused", move || {
            repeat("paused", an_hour, &stopped, || {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = sender.send(());
                panic!("of a test");
            });
        })
        .expect("a thread is free");
        panics.recv_deadline(soon()).expect("it was called");
        drop(stop);
        assert_eq!(thread.join_by(soon()), Ok(()));
        assert_eq!(calls.load(Ordering::Relaxed), 1);

        let (stop, stopped) = stopper();
        drop(stop);
        let thread = supervise("stopped", stopped, || panic!("of a test"));
        assert_eq!(thread.expect("a thread is free").join_by(soon()), Ok(()));
    }
}
