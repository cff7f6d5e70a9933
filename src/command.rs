//! Runs one job: its shell in a process group of its own, with a deadline and a bounded memory of what it wrote.
//!
//! One thread, one loop around `poll`: the pipe for the input, the one pipe for output and errors (so that they stand in the order written), the
//! shell's pidfd, the word to end it, the deadline. The loop blocks nowhere else: a command that does not read its input is not waited for.
//!
//! A run is over when its whole process *group* is gone, not when the shell is: what a command leaves in the background still counts against its
//! timeout, and is ended with it. The end is TERM to the group, then KILL after the grace, and the same to the run's strays, which have groups of
//! their own: a run that is ended by force is over when they are gone too. One that ends well leaves them alone until the agent stops. Who wants to
//! leave a daemon behind says so with `setsid`; such a process is never signalled, nor waited for even where it holds the pipe.
//!
//! What starts the shell is a package of its own, `spawn/`, which says why it is neither std's nor `posix_spawn`.

mod cancel;
mod group;
mod start;
mod strays;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, test_kill_process_group,
    waitpgid, waitpid,
};

use group::group_lives;
use start::{Feed, Started};
use strays::Stray;

use crate::model::{Exit, Job, Run};

pub use cancel::Cancel;
pub use group::{is_init, reap_orphans};
pub use start::{BaseEnvironment, is_root};
pub use strays::end_leftovers;

/// How much of a command's output is kept, in bytes.
pub const OUTPUT_LIMIT: usize = 4096;

/// What is still in the pipe after the last process of the group ended is read for so long; only a process outside the group can hold it open.
const LINGER: Duration = Duration::from_millis(200);

/// How long a shell that neither ends nor writes is waited for before it gets a pidfd. Only one that leaves its output to a daemon ends unnoticed so long.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// How often the group is looked at once its shell has ended: no descriptor tells of the others.
const LOOK: Duration = Duration::from_millis(50);

/// How long after KILL a group may take to vanish. Only a process that hangs in the kernel takes longer, and nothing can be done about it.
const UNKILLABLE: Duration = Duration::from_secs(1);

/// A longer timeout than this is as good as none; it keeps `Instant` from overflowing.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Runs a job to its end, which comes at the latest after its timeout, its grace and about a second.
pub fn run(job: &Job, cancel: &Cancel, base: &BaseEnvironment) -> Run {
    let started = Instant::now();
    let ended = |exit, tail: Tail| Run {
        exit,
        output: tail.bytes.into(),
        cut: tail.cut,
        took: started.elapsed(),
    };
    if let Some(why) = cancel.why() {
        return ended(why.clone(), Tail::default());
    }
    match Running::start(job, base, started) {
        Ok(mut running) => {
            let exit = running.follow(job, cancel);
            ended(exit, running.tail)
        }
        Err(why) => ended(Exit::NotStarted(why), Tail::default()),
    }
}

/// A command that was started.
struct Running {
    /// The shell's process group; its number is the shell's own.
    group: Pid,
    /// The run's id, which its strays are known by.
    run: String,
    /// Readable when the shell has ended. It is made after the first wait: a command that says nothing ends with its output, and needs none. Kernels
    /// before 5.3 and some sandboxes have none at all: then the shell is looked at every [`LOOK`].
    pidfd: Option<OwnedFd>,
    /// How long the shell is waited for without.
    look: Duration,
    input: Feed,
    /// What it writes to its standard output and error, until both have ended.
    output: Option<io::PipeReader>,
    tail: Tail,
    /// How the shell ended.
    status: Option<Result<ExitStatus, String>>,
    /// The group was seen to be gone: its number may be another's now.
    group_is_gone: bool,
    /// When to look next whether others of the group live.
    next_look: Instant,
    /// Why we end it, if we do: [`Exit::TimedOut`], or what the word to end it said.
    stop: Option<Exit>,
    /// KILL was sent.
    killed: bool,
    /// When patience ends: the timeout, then the grace, then [`UNKILLABLE`].
    deadline: Instant,
}

impl Running {
    fn start(job: &Job, base: &BaseEnvironment, started: Instant) -> Result<Running, String> {
        let Started {
            group,
            input,
            output,
        } = start::start(job, base)?;
        Ok(Running {
            group,
            run: job.run.clone(),
            pidfd: None,
            look: FIRST_LOOK,
            input,
            output: Some(output),
            tail: Tail::default(),
            status: None,
            group_is_gone: false,
            next_look: started,
            stop: None,
            killed: false,
            deadline: started + job.entry.running.timeout.min(FOREVER),
        })
    }

    /// The loop. It ends when the group is gone, or cannot be got rid of.
    fn follow(&mut self, job: &Job, cancel: &Cancel) -> Exit {
        loop {
            self.wait(Some(cancel));
            self.input.write(&job.input);
            self.read();
            if self.is_over() {
                break;
            }
            let expired = Instant::now() >= self.deadline;
            if self.stop.is_none()
                && let Some(why) = cancel.why()
            {
                self.terminate(why.clone(), job.entry.running.grace);
            } else if self.stop.is_none() && expired {
                self.terminate(Exit::TimedOut, job.entry.running.grace);
            } else if expired && !self.killed {
                self.kill();
            } else if expired {
                break;
            }
            if self.look == FIRST_LOOK {
                self.look = LOOK;
                self.pidfd = pidfd_open(self.group, PidfdFlags::empty()).ok();
            }
        }
        self.input.pipe = None;
        self.deadline = Instant::now() + LINGER;
        while self.output.is_some() && Instant::now() < self.deadline {
            self.wait(None);
            self.read();
        }
        self.exit()
    }

    /// Sleeps until anything of interest may have happened; the loop finds out what it was.
    fn wait(&self, cancel: Option<&Cancel>) {
        let output = self.output.iter();
        let mut fds: Vec<PollFd<'_>> = output
            .map(|output| PollFd::new(output, PollFlags::IN))
            .collect();
        let input = self.input.pipe.iter();
        fds.extend(input.map(|input| PollFd::new(input, PollFlags::OUT)));
        let mut until = self.deadline;
        if let Some(cancel) = cancel {
            if self.stop.is_none() {
                fds.push(cancel.poll_fd());
            }
            match &self.pidfd {
                Some(pidfd) if self.status.is_none() => {
                    fds.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
                }
                None if self.status.is_none() => until = until.min(Instant::now() + self.look),
                _ => until = until.min(self.next_look),
            }
        }
        let patience = until.saturating_duration_since(Instant::now());
        let patience = Timespec {
            tv_sec: patience.as_secs() as i64, // at most FOREVER
            tv_nsec: patience.subsec_nanos().into(),
        };
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&patience));
    }

    /// Takes one helping, so that a command which never stops writing cannot keep the loop from its other duties.
    fn read(&mut self) {
        // No more than is kept: to make it is a part of what a short run takes.
        let mut buffer = [0; OUTPUT_LIMIT];
        let Some(output) = &mut self.output else {
            return;
        };
        match output.read(&mut buffer) {
            Ok(length @ 1..) => self.tail.push(&buffer[..length]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Ok(0) | Err(_) => self.output = None,
        }
    }

    /// Has the shell ended, and with it all others of its group? Where we end it, its strays too?
    fn is_over(&mut self) -> bool {
        if self.status.is_none() {
            self.status = match waitpid(Some(self.group), WaitOptions::NOHANG) {
                Ok(ended) => ended.map(|(_, status)| Ok(ExitStatus::from_raw(status.as_raw()))),
                Err(error) => Some(Err(format!("failed to wait for the shell: {error}"))),
            };
        }
        let now = Instant::now();
        if self.status.is_none() || now < self.next_look {
            return false;
        }
        self.next_look = now + LOOK;
        if !self.group_is_gone {
            let is_empty = test_kill_process_group(self.group) == Err(Errno::SRCH);
            self.group_is_gone = is_empty || !group_lives(self.group);
            // Where the agent is process 1, orphans of the group became its children and are its to reap.
            while !is_empty && let Ok(Some(_)) = waitpgid(self.group, WaitOptions::NOHANG) {}
        }
        // One that was started while others were killed is killed now.
        let again = self.killed.then_some(Signal::KILL);
        self.group_is_gone && (self.stop.is_none() || self.signal_strays(again) == 0)
    }

    /// Signals those of this run that are not in its group; how many there are.
    fn signal_strays(&self, signal: Option<Signal>) -> usize {
        let all = strays::look();
        let is_ours = |it: &&Stray| it.run == self.run && it.group != Some(self.group);
        let ours = all.iter().filter(is_ours);
        ours.inspect(|stray| signal.into_iter().for_each(|signal| stray.signal(signal)))
            .count()
    }

    fn terminate(&mut self, why: Exit, grace: Duration) {
        self.stop = Some(why);
        self.signal(Signal::TERM);
        self.deadline = Instant::now() + grace.min(FOREVER);
    }

    fn kill(&mut self) {
        self.killed = true;
        self.signal(Signal::KILL);
        self.deadline = Instant::now() + UNKILLABLE;
    }

    /// The group's number is still its own: the shell holds it until it is waited for, then those whom [`Running::is_over`] saw a moment ago.
    fn signal(&mut self, signal: Signal) {
        if !self.group_is_gone {
            // It fails when the last of them ended just now, which is what was wanted.
            let _ = kill_process_group(self.group, signal);
        }
        self.signal_strays(Some(signal));
        self.next_look = Instant::now();
    }

    fn exit(&mut self) -> Exit {
        match (self.stop.take(), self.status.take()) {
            (Some(stop), _) => stop,
            (None, Some(Ok(status))) => match status.code() {
                Some(code) => Exit::Code(code),
                None => Exit::Signal(status.signal().unwrap_or(0)),
            },
            (None, Some(Err(why))) => Exit::NotStarted(why),
            (None, None) => unreachable!("the loop ends before the shell only after a stop"),
        }
    }
}

/// The last [`OUTPUT_LIMIT`] bytes of what was pushed.
#[derive(Default)]
struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, more: &[u8]) {
        self.bytes.extend(more);
        let surplus = self.bytes.len().saturating_sub(OUTPUT_LIMIT);
        self.bytes.drain(..surplus);
        self.cut |= surplus > 0;
    }
}
#[cfg(test)]
pub(crate) use tests::job as test_job;

#[cfg(test)]
mod tests;
