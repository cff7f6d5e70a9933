//! Runs one job: `sh -c COMMAND` in a process group of its own, with a deadline and a bounded memory of what it wrote.
//!
//! One thread, one loop around `poll`: the one pipe for output and errors (so that they stand in the order written), the shell's pidfd, the word to cancel, the deadline. The loop blocks nowhere else.
//!
//! A run is over when its whole process *group* is gone, not when the shell is: what a command leaves in the background still counts against its
//! timeout, and is ended with it, so nothing outlives a run unnoticed. Who wants to leave a daemon behind says so with `setsid`; such a process is no
//! member of the group, is left alone, and is not waited for even where it holds the pipe. The end is TERM to the group, then KILL after the grace.
//!
//! No `pre_exec` and no search of the `PATH`: either makes std fork instead of calling `posix_spawn`, which costs 50 ms a run in a large process.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, test_kill_process_group,
    waitpgid,
};

use crate::model::{Exit, Job, Run};

/// How much of a command's output is kept, in bytes.
pub const OUTPUT_LIMIT: usize = 4096;

/// The kernel's limit for one string of an environment or of a command line, its final NUL included (`MAX_ARG_STRLEN`).
const STRING_LIMIT: usize = 128 * 1024;

/// What is still in the pipe after the last process of the group ended is read for so long; only a process outside the group can hold it open.
const LINGER: Duration = Duration::from_millis(200);

/// How often the group is looked at once its shell has ended: no descriptor tells of the others.
const LOOK: Duration = Duration::from_millis(50);

/// How long after KILL a group may take to vanish. Only a process that hangs in the kernel takes longer, and nothing can be done about it.
const UNKILLABLE: Duration = Duration::from_secs(1);

/// A longer timeout than this is as good as none; it keeps `Instant` from overflowing.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The word to end all commands that were started with it. It cannot be taken back.
#[derive(Debug)]
pub struct Cancel {
    /// Written once and never read, so it stays readable for everybody who polls it.
    event: OwnedFd,
}

impl Cancel {
    /// Not cancelled yet. Fails when the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Cancel {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Ends all commands, running and yet to be run.
    pub fn cancel(&self) {
        // The only failure is a counter at its maximum, which is as readable as can be.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Was [`Cancel::cancel`] called?
    pub fn is_cancelled(&self) -> bool {
        let mut fds = [PollFd::new(&self.event, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

/// The only variables of the agent's own environment that a command gets to see.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BaseEnvironment {
    variables: Vec<(&'static str, OsString)>,
}

impl BaseEnvironment {
    /// Takes `PATH`, `HOME`, `LANG` and `TZ`, those that are set, from this process.
    pub fn of_process() -> Self {
        BaseEnvironment {
            variables: ["PATH", "HOME", "LANG", "TZ"]
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
        }
    }
}

/// Runs a job to its end, which comes at the latest after its timeout, its grace and about a second.
pub fn run(job: &Job, cancel: &Cancel, base: &BaseEnvironment) -> Run {
    let started = Instant::now();
    let ended = |exit, tail: Tail| Run {
        exit,
        output: tail.bytes.into(),
        cut: tail.cut,
        took: started.elapsed(),
    };
    if cancel.is_cancelled() {
        return ended(Exit::Cancelled, Tail::default());
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
    shell: Child,
    /// The shell's process group; its number is the shell's own.
    group: Pid,
    /// Readable when the shell has ended. Kernels before 5.3 and some sandboxes have none: then the shell is looked at every [`LOOK`].
    pidfd: Option<OwnedFd>,
    /// What it writes to its standard output and error, until both have ended.
    output: Option<io::PipeReader>,
    tail: Tail,
    /// How the shell ended.
    status: Option<Result<ExitStatus, String>>,
    /// When to look next whether others of the group live.
    next_look: Instant,
    /// Why we end it, if we do: [`Exit::TimedOut`] or [`Exit::Cancelled`].
    stop: Option<Exit>,
    /// KILL was sent.
    killed: bool,
    /// When patience ends: the timeout, then the grace, then [`UNKILLABLE`].
    deadline: Instant,
}

impl Running {
    fn start(job: &Job, base: &BaseEnvironment, started: Instant) -> Result<Running, String> {
        check_strings(job)?;
        let pipe_failed = |error| format!("failed to make a pipe for the output: {error}");
        let (output, input) = io::pipe().map_err(pipe_failed)?;
        let errors = input.try_clone().map_err(pipe_failed)?;
        // Cannot fail on a pipe. Without it a command that reads its own output through /proc could make a read here block.
        let _ = rustix::io::ioctl_fionbio(&output, true);
        let shell = Command::new("/bin/sh")
            .arg("-c")
            .arg(&*job.command)
            .env_clear()
            .envs(base.variables.iter().map(|(name, value)| (name, value)))
            .envs(job.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("failed to start shell `/bin/sh`: {error}"))?;
        let group = Pid::from_child(&shell);
        Ok(Running {
            shell,
            group,
            pidfd: pidfd_open(group, PidfdFlags::empty()).ok(),
            output: Some(output),
            tail: Tail::default(),
            status: None,
            next_look: started,
            stop: None,
            killed: false,
            deadline: started + job.timeout.min(FOREVER),
        })
    }

    /// The loop. It ends when the group is gone, or cannot be got rid of.
    fn follow(&mut self, job: &Job, cancel: &Cancel) -> Exit {
        loop {
            self.read();
            if self.is_over() {
                break;
            }
            let expired = Instant::now() >= self.deadline;
            if self.stop.is_none() && cancel.is_cancelled() {
                self.terminate(Exit::Cancelled, job.grace);
            } else if self.stop.is_none() && expired {
                self.terminate(Exit::TimedOut, job.grace);
            } else if expired && !self.killed {
                self.kill();
            } else if expired {
                break;
            }
            self.wait(Some(cancel));
        }
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
        let mut until = self.deadline;
        if let Some(cancel) = cancel {
            if self.stop.is_none() {
                fds.push(PollFd::new(&cancel.event, PollFlags::IN));
            }
            match &self.pidfd {
                Some(pidfd) if self.status.is_none() => {
                    fds.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
                }
                None if self.status.is_none() => until = until.min(Instant::now() + LOOK),
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
        let mut buffer = [0; 16 * 1024];
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

    /// Has the shell ended, and with it all others of its group?
    fn is_over(&mut self) -> bool {
        if self.status.is_none() {
            self.status = match self.shell.try_wait() {
                Ok(status) => status.map(Ok),
                Err(error) => Some(Err(format!("failed to wait for shell `/bin/sh`: {error}"))),
            };
        }
        let now = Instant::now();
        if self.status.is_none() || now < self.next_look {
            return false;
        }
        self.next_look = now + LOOK;
        let is_over =
            test_kill_process_group(self.group) == Err(Errno::SRCH) || !group_lives(self.group);
        // Where the agent is process 1, orphans of the group became its children and are its to reap.
        while let Ok(Some(_)) = waitpgid(self.group, WaitOptions::NOHANG) {}
        is_over
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
        // It fails when the last of them ended just now, which is what was wanted.
        let _ = kill_process_group(self.group, signal);
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

/// Refuses what the kernel would refuse, with a text that names the culprit.
fn check_strings(job: &Job) -> Result<(), String> {
    if job.command.len() >= STRING_LIMIT || job.command.contains('\0') {
        return Err(format!(
            "failed to start shell `/bin/sh`: the command holds a NUL byte or is longer than {} bytes",
            STRING_LIMIT - 1
        ));
    }
    for (name, value) in &job.environment {
        if name.contains('\0') || value.contains('\0') {
            return Err(format!(
                "failed to pass variable `{name}`: its value holds a NUL byte"
            ));
        }
        // `NAME=value` and a NUL.
        let length = name.len() + value.len() + 2;
        if length > STRING_LIMIT {
            return Err(format!(
                "failed to pass variable `{name}`: its value is {} bytes long, {} more than the kernel allows",
                value.len(),
                length - STRING_LIMIT
            ));
        }
    }
    Ok(())
}

/// Does anybody of this process group live? A zombie that its parent (a careless process 1) does not reap is dead, though a signal still reaches it.
fn group_lives(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let is_process = process.file_name().as_encoded_bytes()[0].is_ascii_digit();
        is_process
            && fs::read(process.path().join("stat"))
                .is_ok_and(|stat| is_live_member(&String::from_utf8_lossy(&stat), group))
    })
}

/// Reads a line of `/proc/<pid>/stat`: `pid (name) state parent group …`, where the name may hold anything, brackets and spaces too.
fn is_live_member(stat: &str, group: Pid) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = rest.split(' ');
    let state = fields.next();
    !matches!(state, Some("Z" | "X"))
        && fields.nth(1).and_then(|text| text.parse().ok()) == Some(group.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// Longer than anything here takes on a loaded machine; a wait that reaches it is a failure.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn job(command: &str) -> Job {
        Job {
            id: 1,
            entry: "test".into(),
            subject: "web-1".into(),
            word: "die".into(),
            engine: "foo".into(),
            command: command.into(),
            environment: Vec::new(),
            timeout: PATIENCE,
            grace: PATIENCE,
        }
    }

    fn run_job(job: &Job) -> Run {
        let cancel = Cancel::new().expect("a descriptor is free");
        run(job, &cancel, &BaseEnvironment::of_process())
    }

    fn text(run: &Run) -> String {
        String::from_utf8_lossy(&run.output).into_owned()
    }

    /// A folder of this test's own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("command-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("the folder for temporary files is writable");
            Folder(path)
        }

        fn file(&self, name: &str) -> String {
            self.0.join(name).display().to_string()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn lives(pid: &str) -> bool {
        let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "{what} did not come true");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn tells_how_a_command_ended() {
        assert_eq!(run_job(&job("exit 0")).exit, Exit::Code(0));
        assert_eq!(run_job(&job("exit 7")).exit, Exit::Code(7));
        assert_eq!(run_job(&job("nonsense-command")).exit, Exit::Code(127));
        assert_eq!(run_job(&job("kill -9 $$")).exit, Exit::Signal(9));
        let run = run_job(&job("echo out; echo err >&2; cat; echo end"));
        assert_eq!(run.exit, Exit::Code(0), "its input is empty");
        assert!(!run.cut);
        for line in ["out\n", "err\n", "end\n"] {
            assert!(text(&run).contains(line), "{:?}", text(&run));
        }
    }

    #[test]
    fn keeps_the_last_4_kib_of_10_mb() {
        let run = run_job(&job(
            "head -c 10000000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2; printf 'the end'",
        ));
        assert_eq!(run.exit, Exit::Code(0));
        assert!(run.cut);
        assert_eq!(run.output.len(), OUTPUT_LIMIT);

        let run = run_job(&job(
            "head -c 4089 /dev/zero | tr '\\0' x; printf 'the end'",
        ));
        assert_eq!(run.output.len(), OUTPUT_LIMIT);
        assert!(text(&run).ends_with("xthe end"));
        assert!(!run.cut);
    }

    #[test]
    fn a_tail_keeps_the_newest_bytes() {
        let mut tail = Tail::default();
        tail.push(&[b'a'; OUTPUT_LIMIT]);
        assert!(!tail.cut);
        tail.push(b"bc");
        assert!(tail.cut);
        let bytes: Vec<u8> = tail.bytes.into();
        assert_eq!(bytes.len(), OUTPUT_LIMIT);
        assert!(bytes.starts_with(b"aa") && bytes.ends_with(b"abc"));
    }

    #[test]
    fn the_environment_is_what_the_job_says_and_four_variables_more() {
        let mut job = job("tr '\\0' '\\n' </proc/$$/environ");
        job.environment = vec![
            ("EVENT_TYPE".into(), "die".into()),
            ("TZ".into(), "of the job".into()),
        ];
        let base = BaseEnvironment {
            variables: vec![
                ("PATH", "/usr/bin:/bin".into()),
                ("TZ", "of the agent".into()),
            ],
        };
        let cancel = Cancel::new().expect("a descriptor is free");
        let run = run(&job, &cancel, &base);
        let output = text(&run);
        let mut lines: Vec<&str> = output.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["EVENT_TYPE=die", "PATH=/usr/bin:/bin", "TZ=of the job"]
        );
        for (name, _) in BaseEnvironment::of_process().variables {
            assert!(["PATH", "HOME", "LANG", "TZ"].contains(&name));
        }
    }

    #[test]
    fn values_stay_data() {
        let folder = Folder::new("data");
        let evil = format!(
            "$(touch {0})`touch {0}`'; touch {0} \"\n; touch {0}\t$HOME \u{1b}[31m äß",
            folder.file("pwned")
        );
        let mut job = job("printf %s \"$FROM_CONTAINER\"");
        job.environment = vec![("FROM_CONTAINER".into(), evil.clone())];
        let run = run_job(&job);
        assert_eq!(run.exit, Exit::Code(0));
        assert_eq!(text(&run), evil);
        assert!(!Path::new(&folder.file("pwned")).exists());
    }

    #[test]
    fn the_longest_value_passes_and_what_the_kernel_refuses_is_refused_by_name() {
        let longest = STRING_LIMIT - "V".len() - 2;
        let mut job = job("printf %s ${#V}");
        job.environment = vec![("V".into(), "x".repeat(longest))];
        let run = run_job(&job);
        assert_eq!(
            (run.exit.clone(), text(&run)),
            (Exit::Code(0), longest.to_string())
        );

        job.environment[0].1.push('x');
        let Exit::NotStarted(why) = run_job(&job).exit else {
            panic!("a value that is too long was passed");
        };
        assert!(why.starts_with("failed to pass variable `V`: "), "{why}");

        job.environment[0].1 = "a\0b".into();
        assert_eq!(
            run_job(&job).exit,
            Exit::NotStarted("failed to pass variable `V`: its value holds a NUL byte".into())
        );

        job.environment = (0..40)
            .map(|number| (format!("V{number}"), "x".repeat(100_000)))
            .collect();
        let Exit::NotStarted(why) = run_job(&job).exit else {
            panic!("4 MB of environment were passed");
        };
        assert!(
            why.starts_with("failed to start shell `/bin/sh`: "),
            "{why}"
        );
    }

    /// Runs into the timeout with a command that says `ready` last; a machine too loaded for that gets more time.
    fn run_into_timeout(mut job: Job) -> Run {
        job.timeout = Duration::from_millis(200);
        loop {
            let run = run_job(&job);
            assert_eq!(run.exit, Exit::TimedOut);
            assert!(run.took >= job.timeout);
            if text(&run).starts_with("ready\n") {
                return run;
            }
            job.timeout *= 2;
            assert!(job.timeout < PATIENCE, "the command never got ready");
        }
    }

    #[test]
    fn a_timeout_ends_the_whole_group() {
        let folder = Folder::new("group");
        let pids = folder.file("pids");
        run_into_timeout(job(&format!(
            "echo $$ >{pids}; sleep 1000 & echo $! >>{pids}
             (sleep 1000 >/dev/null 2>&1 & echo $! >>{pids}; echo ready; wait) & sleep 1000"
        )));
        let pids = fs::read_to_string(pids).expect("the command wrote it");
        assert_eq!(pids.lines().count(), 3);
        for pid in pids.lines() {
            assert!(!lives(pid), "{pid} outlived the run");
        }
    }

    #[test]
    fn who_ignores_term_is_killed_after_the_grace() {
        let folder = Folder::new("stubborn");
        let pid = folder.file("pid");
        // The shell obeys, its child in the background does not and has closed the pipes.
        let mut job = job(&format!(
            "(trap '' TERM; echo ready; exec sleep 1000 >/dev/null 2>&1) & echo $! >{pid}; sleep 1000"
        ));
        job.grace = Duration::from_millis(300);
        let started = Instant::now();
        let run = run_into_timeout(job);
        assert!(run.took >= Duration::from_millis(200 + 300));
        assert!(started.elapsed() < PATIENCE);
        assert!(!lives(
            &fs::read_to_string(pid).expect("the command wrote it")
        ));
    }

    #[test]
    fn who_obeys_term_has_its_grace_after_the_shell_ended() {
        let run = run_into_timeout(job(
            "sh -c 'trap \"sleep 0.4; echo tidied up; exit\" TERM; echo ready; while :; do sleep 0.01; done' & \
             sleep 1000",
        ));
        assert!(text(&run).ends_with("tidied up\n"), "{:?}", text(&run));
        assert!(run.took < PATIENCE, "the whole grace was waited for");
    }

    #[test]
    fn what_is_left_in_the_background_belongs_to_the_run() {
        let folder = Folder::new("background");
        let done = folder.file("done");
        let run = run_job(&job(&format!(
            "(sleep 0.3; touch {done}) >/dev/null 2>&1 & exit 3"
        )));
        assert_eq!(run.exit, Exit::Code(3));
        assert!(Path::new(&done).exists(), "it was not waited for");

        let mut job = job("sleep 1000 >/dev/null 2>&1 & exit 0");
        job.timeout = Duration::from_millis(200);
        assert_eq!(run_job(&job).exit, Exit::TimedOut);
    }

    #[test]
    fn a_daemon_that_holds_the_pipes_is_not_waited_for() {
        let folder = Folder::new("daemon");
        let pid = folder.file("pid");
        let run = run_job(&job(&format!(
            "setsid sh -c 'echo $$ >{pid}; exec sleep 1000' & \
             while ! test -s {pid}; do sleep 0.01; done; echo done"
        )));
        let pid = fs::read_to_string(pid).expect("the command wrote it");
        assert!(lives(&pid), "it was ended with the group");
        let daemon: i32 = pid.trim().parse().expect("a number");
        let daemon = Pid::from_raw(daemon).expect("not zero");
        rustix::process::kill_process(daemon, Signal::KILL).expect("it is ours");
        assert_eq!(run.exit, Exit::Code(0));
        assert_eq!(text(&run), "done\n");
        assert!(run.took < PATIENCE);
    }

    #[test]
    fn a_command_that_never_stops_writing_is_ended_in_time() {
        let mut job = job("yes & yes >&2");
        job.timeout = Duration::from_millis(200);
        let run = run_job(&job);
        assert_eq!(run.exit, Exit::TimedOut);
        assert!(run.cut && run.output.len() == OUTPUT_LIMIT);
    }

    #[test]
    fn cancel_gives_the_grace_and_no_more() {
        let folder = Folder::new("cancel");
        let cancel = Arc::new(Cancel::new().expect("a descriptor is free"));
        assert!(!cancel.is_cancelled());
        let cases = [
            ("polite", "", PATIENCE),
            ("stubborn", "trap '' TERM; ", Duration::from_millis(200)),
        ];
        let runs: Vec<_> = cases
            .iter()
            .map(|(name, first, grace)| {
                let mut job = job(&format!("{first}touch {}; sleep 1000", folder.file(name)));
                job.timeout = Duration::MAX;
                job.grace = *grace;
                let cancel = Arc::clone(&cancel);
                thread::spawn(move || run(&job, &cancel, &BaseEnvironment::of_process()))
            })
            .collect();
        for (name, ..) in &cases {
            let file = folder.file(name);
            wait_for("the start of both", || Path::new(&file).exists());
        }
        let cancelled = Instant::now();
        cancel.cancel();
        cancel.cancel();
        for run in runs {
            assert_eq!(run.join().expect("no panic").exit, Exit::Cancelled);
        }
        assert!(cancelled.elapsed() >= Duration::from_millis(200));
        assert!(cancelled.elapsed() < PATIENCE);

        let late = folder.file("late");
        let late_job = job(&format!("touch {late}"));
        let run = run(&late_job, &cancel, &BaseEnvironment::of_process());
        assert_eq!(run.exit, Exit::Cancelled);
        assert!(!Path::new(&late).exists(), "it was started all the same");
    }

    /// Counts what belongs to the whole process, so it runs in one of its own.
    #[test]
    fn quick_runs_leave_no_zombie_and_no_descriptor() {
        const ALONE: &str = "DOCKER_CACHE_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let myself = std::env::current_exe().expect("it is running");
            let output = Command::new(myself)
                .args(["--exact", "--nocapture"])
                .arg("command::tests::quick_runs_leave_no_zombie_and_no_descriptor")
                .env(ALONE, "1")
                .output()
                .expect("it can be run again");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
            assert!(said.contains("1 passed"), "{said}");
            return;
        }
        // As where the agent is process 1: whom the shell leaves becomes our child.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .expect("Linux knows it");
        let descriptors = || {
            fs::read_dir("/proc/self/fd")
                .expect("a mounted /proc")
                .count()
        };
        run_job(&job("true"));
        let before = descriptors();
        for number in 0..200 {
            // Some leave a child that is alive, the others one that may be a zombie.
            let pause = if number % 20 == 0 { "sleep 0.02; " } else { "" };
            let run = run_job(&job(&format!(
                "({pause}exit 9) & echo {number}; exit {number}"
            )));
            assert_eq!(run.exit, Exit::Code(number));
            assert_eq!(text(&run), format!("{number}\n"));
        }
        assert_eq!(descriptors(), before);
        let children = rustix::process::wait(WaitOptions::NOHANG);
        assert_eq!(children.err(), Some(Errno::CHILD));
    }

    #[test]
    fn a_process_is_recognised_by_its_group() {
        let group = Pid::from_raw(42).expect("not zero");
        assert!(is_live_member("43 (a) Z 1 (b) S 1 42 7 0\n", group));
        assert!(!is_live_member("43 (sleep) S 42 7 42 0\n", group));
        assert!(!is_live_member("43 (sleep) Z 1 42 7 0\n", group));
        assert!(!is_live_member("", group));
    }
}
