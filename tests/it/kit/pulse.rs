//! How late an engine without a fault is told of while something else goes wrong: its containers are renamed at a steady pace, whatever becomes of it,
//! and so are those of a control, another engine with an agent and a Redis of its own. A machine that is busy makes both late; the fault, one.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::listen::Notices;
use super::scene::{PULSE, SOON, Scene, engine};
use super::times::Times;
use super::wait_until;
use crate::engine::Engine;
use crate::engine::containers::Spec;

/// Between two beats. A stall of half a second makes a dozen of them late, not one.
const PACE: Duration = Duration::from_millis(40);

/// The fewest beats that a verdict is made of.
const FEWEST: usize = 50;

/// Each beat takes the next of so many containers: changes of one container merge when they are late.
const CONTAINERS: usize = 25;

/// So much later than the control may an engine be that has no fault.
const LATE: Duration = Duration::from_millis(100);

/// No single beat may be this much later. It is less than a stall that would matter, and more than a busy machine does to one process and not to the other.
const STALLED: Duration = Duration::from_millis(400);

/// One engine and who reports it.
struct Side<'a> {
    scene: &'a Scene,
    engine: &'a Engine,
    host: &'a str,
    ids: &'a [String],
}

/// The engine, and its control, which lives as long.
pub struct Pulse<'a> {
    scene: &'a Scene,
    engine: &'a Engine,
    host: String,
    ids: Vec<String>,
    control: Control,
    /// Beats so far: no name comes twice.
    beats: AtomicUsize,
    /// Redis shows it; not while that one is away.
    shown: bool,
}

struct Control {
    _agent: Agent,
    engine: Engine,
    scene: Scene,
    ids: Vec<String>,
}

impl<'a> Pulse<'a> {
    /// Puts containers into this engine, which is or will be reported as `host` in this scene, and starts the control.
    #[track_caller]
    pub fn of(scene: &'a Scene, host: &str, engine: &'a Engine) -> Pulse<'a> {
        Pulse {
            scene,
            engine,
            host: host.into(),
            ids: containers(engine),
            control: Control::start(),
            beats: AtomicUsize::new(0),
            shown: true,
        }
    }

    /// Only handlers are looked at, not Redis.
    pub fn of_handlers(mut self) -> Pulse<'a> {
        self.shown = false;
        self
    }

    /// The control's engine: for whatever else the engine is to carry beside its fault.
    pub fn control(&self) -> &Engine {
        &self.control.engine
    }

    /// While this is done, and for fifty beats at least, Redis and the handlers are told of the engine within 100 ms of the control, 95 of 100 beats against
    /// 95 of 100, and never with a stall.
    #[track_caller]
    pub fn is_in_time<T>(&self, what: &str, body: impl FnOnce() -> T) -> T {
        self.is_in_time_but_for(Duration::ZERO, what, body)
    }

    /// The same, but once a stall of so long is granted.
    #[track_caller]
    pub fn is_in_time_but_for<T>(
        &self,
        stall: Duration,
        what: &str,
        body: impl FnOnce() -> T,
    ) -> T {
        let side = Side {
            scene: self.scene,
            engine: self.engine,
            host: &self.host,
            ids: &self.ids,
        };
        let control = Side {
            scene: &self.control.scene,
            engine: &self.control.engine,
            host: "h",
            ids: &self.control.ids,
        };
        let (answer, late) = beat([&side, &control], &self.beats, self.shown, body);
        let granted = (stall.as_millis() / PACE.as_millis()) as usize;
        for (way, [mut ours, others]) in late {
            let others: Times = others.into_iter().collect();
            let all: Times = ours.iter().copied().collect();
            println!("{what}, {way}: {all}");
            println!("{what}, {way}, control: {others}");
            ours.sort();
            ours.truncate(ours.len().saturating_sub(granted));
            let ours: Times = ours.into_iter().collect();
            assert!(
                ours.percentile(95) <= others.percentile(95) + LATE,
                "{what}, {way}: {ours}, but the control: {others}"
            );
            assert!(
                all.worst() <= others.worst() + STALLED + stall,
                "{what}, {way}: {all}, but the control: {others}"
            );
        }
        answer
    }
}

impl Control {
    fn start() -> Control {
        let (scene, engine) = (Scene::new(), engine());
        let ids = containers(&engine);
        let agent = scene.report(&engine, &[]);
        Control {
            _agent: agent,
            engine,
            scene,
            ids,
        }
    }
}

fn containers(engine: &Engine) -> Vec<String> {
    (0..CONTAINERS)
        .map(|at| engine.run(Spec::named(&format!("{PULSE}at-rest-{at}"))))
        .collect()
}

/// When a beat was, when it showed, when its handler had run; by its number.
type Beats = HashMap<usize, Instant>;

fn lock(beats: &Mutex<Beats>) -> MutexGuard<'_, Beats> {
    beats.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets it when it is dropped, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Late = Vec<(&'static str, [Vec<Duration>; 2])>;

#[track_caller]
fn beat<T>(
    sides: [&Side<'_>; 2],
    number: &AtomicUsize,
    looks: bool,
    body: impl FnOnce() -> T,
) -> (T, Late) {
    let (over, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let touched: [Mutex<Beats>; 2] = Default::default();
    let shown: [Mutex<Beats>; 2] = Default::default();
    let handled: [Mutex<Beats>; 2] = Default::default();
    let answer = std::thread::scope(|scope| {
        let _done = Ends(&done);
        for at in 0..2 {
            let (side, touched, shown, handled) =
                (sides[at], &touched[at], &shown[at], &handled[at]);
            if looks {
                let notices = Notices::of(&side.scene.redis, "docker_events");
                let done = &done;
                scope.spawn(move || watch_notices(side, &notices, touched, shown, done));
            }
            let done = &done;
            scope.spawn(move || watch_runs(side, touched, handled, done));
        }
        let ending = Ends(&over);
        let (over, touched) = (&over, &touched);
        let ticking = scope.spawn(move || {
            let (first, began) = (number.load(Ordering::Relaxed), Instant::now());
            while !over.load(Ordering::Relaxed) || number.load(Ordering::Relaxed) < first + FEWEST {
                let beat = number.fetch_add(1, Ordering::Relaxed);
                for (side, touched) in sides.iter().zip(touched) {
                    let id = &side.ids[beat % CONTAINERS];
                    lock(touched).insert(beat, Instant::now());
                    side.engine.rename(id, &format!("{PULSE}{beat}"));
                }
                let next = began + PACE * (beat + 1 - first) as u32;
                sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let answer = body();
        drop(ending);
        let _ = ticking.join();
        wait_until(SOON, "all beats are told of", || {
            let all = lock(&touched[0]).len();
            let counts = |beats: &[Mutex<Beats>; 2]| [0, 1].map(|at| lock(&beats[at]).len());
            let told = (counts(&shown), counts(&handled));
            let whole = (!looks || told.0 == [all; 2]) && told.1 == [all; 2];
            whole.then_some(()).ok_or(format!("{told:?} of {all}"))
        });
        answer
    });
    let late = |told: &[Mutex<Beats>; 2]| {
        [0, 1].map(|at| {
            let (touched, told) = (lock(&touched[at]), lock(&told[at]));
            let mut beats: Vec<&usize> = touched.keys().collect();
            beats.sort();
            let lateness = |beat: &usize| told[beat].saturating_duration_since(touched[beat]);
            beats.into_iter().map(lateness).collect()
        })
    };
    let mut all: Late = vec![("handlers", late(&handled))];
    if looks {
        all.push(("Redis", late(&shown)));
    }
    (answer, all)
}

/// Notes when each beat's change is announced.
fn watch_notices(
    side: &Side<'_>,
    notices: &Notices,
    touched: &Mutex<Beats>,
    shown: &Mutex<Beats>,
    done: &AtomicBool,
) {
    let wanted = format!("update_container:{}:", side.host);
    while !done.load(Ordering::Relaxed) {
        let Some(notice) = notices.next(Duration::from_millis(100)) else {
            continue;
        };
        let now = Instant::now();
        let Some(id) = notice.strip_prefix(&wanted) else {
            continue;
        };
        let beats: Vec<usize> = lock(touched).keys().copied().collect();
        let mut shown = lock(shown);
        for beat in beats {
            if side.ids[beat % CONTAINERS] == id {
                shown.entry(beat).or_insert(now);
            }
        }
    }
}

/// Notes when each beat's handler has run.
fn watch_runs(side: &Side<'_>, touched: &Mutex<Beats>, handled: &Mutex<Beats>, done: &AtomicBool) {
    let wanted = format!("{} rename {PULSE}", side.host);
    let mut file = None;
    let mut text = String::new();
    while !done.load(Ordering::Relaxed) {
        if file.is_none() {
            file = File::open(side.scene.runs_path()).ok();
        }
        if let Some(file) = &mut file {
            // Whole lines come in one write each; a torn one would be read on with the next.
            let _ = file.read_to_string(&mut text);
        }
        let now = Instant::now();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text.drain(..whole).collect::<String>().lines() {
            let beat = line
                .strip_prefix(&wanted)
                .and_then(|rest| rest.split(' ').next()?.parse().ok());
            if let Some(beat) = beat.filter(|beat| lock(touched).contains_key(beat)) {
                lock(handled).entry(beat).or_insert(now);
            }
        }
        sleep(Duration::from_millis(2));
    }
}
