//! With which shell a command runs, where, as whom, and what it reads.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::User;

/// A job that is given this on its standard input.
fn fed(command: &str, input: Vec<u8>) -> Job {
    Job {
        input,
        ..job(command)
    }
}

fn why(run: &Run) -> &str {
    match &run.exit {
        Exit::NotStarted(why) => why,
        exit => panic!("it ended as {exit:?}"),
    }
}

#[test]
fn a_shell_is_given_its_arguments_and_is_found_by_the_path_of_the_agent() {
    let mut job = job("$0 $1 nothing is expanded");
    running(&mut job).shell = ["echo", "-n", "--"].map(str::to_owned).into();
    assert_eq!(text(&run_job(&job)), "-- $0 $1 nothing is expanded");

    let folder = Folder::new("shells");
    let program = folder.file("own-shell");
    fs::write(&program, "#!/bin/sh\necho \"own: $*\"\n").expect("it can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    running(&mut job).shell = ["own-shell", "-x"].map(str::to_owned).into();
    // What has no execute bit, or is a folder, is no program of this name.
    for other in ["plain/own-shell", "folder/own-shell/x"] {
        let other = PathBuf::from(folder.file(other));
        fs::create_dir_all(other.parent().expect("it has one")).expect("a folder");
        fs::write(other, "no program").expect("it can be written");
    }
    let paths = ["plain", "folder", "."].map(|name| folder.file(name));
    let mut base = BaseEnvironment {
        variables: vec![("PATH", format!("relative:{}", paths.join(":")).into())],
    };
    let cancel = Cancel::new().expect("a descriptor is free");
    let ended = run(&job, &cancel, &base);
    assert_eq!(text(&ended), "own: -x $0 $1 nothing is expanded\n");
    base.variables[0].1 = "/nowhere".into();
    assert_eq!(
        why(&run(&job, &cancel, &base)),
        "failed to find shell `own-shell` in the agent's PATH"
    );
    running(&mut job).shell = ["/nowhere/sh".to_owned()].into();
    assert!(why(&run_job(&job)).starts_with("failed to start shell `/nowhere/sh`: No such file"));
}

#[test]
fn a_command_runs_in_its_folder() {
    let folder = Folder::new("dir");
    let mut job = job("pwd");
    running(&mut job).dir = Some(folder.0.clone());
    assert_eq!(
        text(&run_job(&job)).trim_end(),
        folder.file("").trim_end_matches('/')
    );
    running(&mut job).dir = Some("/nowhere".into());
    let run = run_job(&job);
    assert!(why(&run).starts_with("failed to start shell `/bin/sh` in `/nowhere`: "));
}

#[test]
fn an_entry_s_variables_stand_behind_those_of_the_job_and_before_those_of_the_agent() {
    let mut job = job("echo $A $B $LANG");
    running(&mut job).env = [("A", "entry"), ("B", "$(echo entry)"), ("LANG", "tlh")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    job.environment = vec![("A".into(), "job".into())];
    assert_eq!(text(&run_job(&job)), "job $(echo entry) tlh\n");
    running(&mut job).env[1].1 = "x".repeat(STRING_LIMIT);
    assert!(why(&run_job(&job)).starts_with("failed to pass variable `B`: "));
}

#[test]
fn another_user_has_its_own_group_and_home_and_no_other_groups() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let mut job = job("id -u; id -g; id -G; echo $HOME");
    running(&mut job).user = Some(User {
        name: "nobody".into(),
        uid: 65534,
        gid: 65533,
        home: "/nonexistent".into(),
    });
    assert_eq!(text(&run_job(&job)), "65534\n65533\n65533\n/nonexistent\n");
    // What it leaves behind is ended all the same.
    running(&mut job).timeout = Duration::from_millis(200);
    Arc::make_mut(&mut job.entry).command = Some("sleep 1000 & exec sleep 1000".into());
    assert_eq!(run_job(&job).exit, Exit::TimedOut);
}

#[test]
fn the_input_is_read_to_its_end_however_long_it_is() {
    for length in [1, 4096, 65_536, 65_537, 3_000_000] {
        let input: Vec<u8> = (0..length).map(|n: u32| (n % 251) as u8).collect();
        let sum = input.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let run = run_job(&fed(
            "od -An -v -tu1 -w1 | awk '{ sum += $1 } END { print NR, sum }'",
            input,
        ));
        assert_eq!(text(&run), format!("{length} {sum}\n"));
        assert_eq!(run.exit, Exit::Code(0));
    }
    // Slowly, too.
    let run = run_job(&fed(
        "sleep 0.2; head -c 100000 | wc -c; sleep 0.2; wc -c",
        vec![b'x'; 200_000],
    ));
    assert_eq!(text(&run), "100000\n100000\n");
}

#[test]
fn who_does_not_read_the_input_is_not_harmed() {
    let much = vec![b'x'; 1_000_000];
    for (command, told) in [
        ("echo done", "done\n"),
        (
            "exec 0<&-; echo closed; sleep 0.1; echo done",
            "closed\ndone\n",
        ),
        (
            "head -c 10; echo; sleep 0.1; echo done",
            "xxxxxxxxxx\ndone\n",
        ),
    ] {
        let run = run_job(&fed(command, much.clone()));
        assert_eq!((run.exit, run.output), (Exit::Code(0), told.into()));
        assert!(run.took < PATIENCE);
    }
    // What is left in the background holds the input, reads nothing and is no member of the group.
    let folder = Folder::new("holder");
    let pid = folder.file("pid");
    let run = run_job(&fed(
        &format!(
            "setsid sh -c 'echo $$ >{pid}; exec sleep 1000' >/dev/null 2>&1 & \
             while ! test -s {pid}; do sleep 0.01; done"
        ),
        much.clone(),
    ));
    let mut holder = String::new();
    fs::File::open(&pid)
        .and_then(|mut file| file.read_to_string(&mut holder))
        .expect("the command wrote it");
    let holder = Pid::from_raw(holder.trim().parse().expect("a number")).expect("not zero");
    rustix::process::kill_process(holder, Signal::KILL).expect("it is ours");
    assert_eq!(run.exit, Exit::Code(0));
    assert!(run.took < PATIENCE);
    // It waits for the end of its timeout asleep, not spinning on a pipe that is full.
    let mut idle = fed("exec sleep 1000", much);
    running(&mut idle).timeout = Duration::from_millis(500);
    let before = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    assert_eq!(run_job(&idle).exit, Exit::TimedOut);
    let after = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let ns = (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec;
    assert!(ns < 100_000_000, "{ns} ns of work");
}
