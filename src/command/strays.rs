//! Children that left the group of their command but not the agent's session: those of `timeout`, say, or of a shell after `set -m`.
//!
//! They are known by their `EVENT_RUN`, as the environment they were started with has it. To find them takes a look at every process, so it is only
//! done where a run is ended by force, and when the agent stops. `setsid` is the way out of the session.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::group::Stat;
use super::{LOOK, UNKILLABLE};

/// How long those that commands left behind have between TERM and KILL when the agent stops: the default `grace`.
const GRACE: Duration = Duration::from_secs(5);

/// A live process of our session that has an `EVENT_RUN`.
pub(super) struct Stray {
    pid: Pid,
    pub group: Option<Pid>,
    pub run: String,
}

impl Stray {
    pub fn signal(&self, signal: Signal) {
        // It fails when the process ended just now, which is what was wanted.
        let _ = kill_process(self.pid, signal);
    }
}

/// What the last look at all processes found, and when it began.
static LAST: Mutex<Option<(Instant, Arc<[Stray]>)>> = Mutex::new(None);

/// All with an `EVENT_RUN`, members of their command's group too. Where hundreds of runs end at once they share a look: one that began after the
/// caller asked is as good as its own.
pub(super) fn look() -> Arc<[Stray]> {
    let asked = Instant::now();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((began, found)) = &*last
        && *began >= asked
    {
        return found.clone();
    }
    let began = Instant::now();
    let found: Arc<[Stray]> = find().into();
    *last = Some((began, found.clone()));
    found
}

fn find() -> Vec<Stray> {
    let Some(ours) = Stat::read(Path::new("/proc/self")) else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let folder = process.path();
            let stat = Stat::read(&folder)?;
            if !stat.lives || stat.session != ours.session {
                return None;
            }
            Some(Stray {
                pid: Pid::from_raw(pid)?,
                group: Pid::from_raw(stat.group),
                run: run_of(&folder)?,
            })
        })
        .collect()
}

/// The `EVENT_RUN` a process was started with; `None` too where it is not ours to read.
fn run_of(process: &Path) -> Option<String> {
    let environment = fs::read(process.join("environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let run = variables.find_map(|variable| variable.strip_prefix(b"EVENT_RUN="))?;
    String::from_utf8(run.to_vec()).ok()
}

/// Ends what commands that ended well have left in our session: TERM, then KILL after five seconds. `runs` is the id of a run, or what the ids of
/// all runs begin with before their last `-`. Returns when they are gone.
pub fn end_leftovers(runs: &str) {
    let is_ours = |stray: &&Stray| {
        let rest = stray.run.strip_prefix(runs);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let started = Instant::now();
    let mut signal = Some(Signal::TERM);
    loop {
        let found = look();
        let left: Vec<&Stray> = found.iter().filter(is_ours).collect();
        if left.is_empty() || started.elapsed() >= GRACE + UNKILLABLE {
            return;
        }
        if started.elapsed() >= GRACE {
            signal = Some(Signal::KILL);
        }
        if let Some(signal) = signal.take() {
            left.iter().for_each(|stray| stray.signal(signal));
        }
        thread::sleep(LOOK);
    }
}
