//! Commands that end well, badly, late, or not at all.

mod how;
mod strays;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use super::group::Stat;
use super::start::STRING_LIMIT;
use super::*;
use crate::model::Entry;

/// Longer than anything here takes on a loaded machine; a wait that reaches it is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command as an event of a container would start it.
pub(crate) fn job(command: &str) -> Job {
    Job {
        id: 1,
        run: "boot-1".into(),
        entry: Arc::new(Entry {
            name: "test".into(),
            command: Some(command.into()),
            running: crate::model::Running {
                timeout: PATIENCE,
                grace: PATIENCE,
                ..crate::model::Running::default()
            },
            ..Entry::default()
        }),
        subject: "web-1".into(),
        word: "die".into(),
        engine: "foo".into(),
        attempt: 1,
        environment: Vec::new(),
        input: Vec::new(),
    }
}

fn running(job: &mut Job) -> &mut crate::model::Running {
    &mut Arc::make_mut(&mut job.entry).running
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
        .map(|number| (format!("V{number}").into(), "x".repeat(100_000)))
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
    running(&mut job).timeout = Duration::from_millis(200);
    loop {
        let run = run_job(&job);
        assert_eq!(run.exit, Exit::TimedOut);
        assert!(run.took >= running(&mut job).timeout);
        if text(&run).starts_with("ready\n") {
            return run;
        }
        running(&mut job).timeout *= 2;
        assert!(
            running(&mut job).timeout < PATIENCE,
            "the command never got ready"
        );
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
    running(&mut job).grace = Duration::from_millis(300);
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
    running(&mut job).timeout = Duration::from_millis(200);
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
    running(&mut job).timeout = Duration::from_millis(200);
    let run = run_job(&job);
    assert_eq!(run.exit, Exit::TimedOut);
    assert!(run.cut && run.output.len() == OUTPUT_LIMIT);
}

#[test]
fn cancel_gives_the_grace_and_no_more() {
    let folder = Folder::new("cancel");
    let cancel = Arc::new(Cancel::new().expect("a descriptor is free"));
    assert_eq!(cancel.why(), None);
    let cases = [
        ("polite", "", PATIENCE),
        ("stubborn", "trap '' TERM; ", Duration::from_millis(200)),
    ];
    let runs: Vec<_> = cases
        .iter()
        .map(|(name, first, grace)| {
            let mut job = job(&format!("{first}touch {}; sleep 1000", folder.file(name)));
            running(&mut job).timeout = Duration::MAX;
            running(&mut job).grace = *grace;
            let cancel = Arc::clone(&cancel);
            thread::spawn(move || run(&job, &cancel, &BaseEnvironment::of_process()))
        })
        .collect();
    for (name, ..) in &cases {
        let file = folder.file(name);
        wait_for("the start of both", || Path::new(&file).exists());
    }
    let cancelled = Instant::now();
    cancel.cancel(Exit::Cancelled);
    cancel.cancel(Exit::Replaced);
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
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("Linux knows it");
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
fn a_process_is_recognised_by_its_group_and_session() {
    let stat = |lives, group, session| {
        Some(Stat {
            lives,
            group,
            session,
        })
    };
    let odd = "43 (a) Z 1 (b) S 1 42 7 0\n";
    assert_eq!(Stat::parse(odd), stat(true, 42, 7));
    assert_eq!(Stat::parse("43 (sleep) Z 1 42 0 0\n"), stat(false, 42, 0));
    assert_eq!(Stat::parse(""), None);
}
