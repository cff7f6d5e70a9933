//! Children that leave the group of their command, but not the agent's session.

use super::*;

/// A command that finds its run in its environment, as the agent's do.
fn named(run: &str, command: &str) -> Job {
    Job {
        run: run.into(),
        environment: vec![("EVENT_RUN".into(), run.into())],
        ..job(command)
    }
}

fn pids(file: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_timeout_ends_the_groups_of_children_and_of_no_other_run() {
    let folder = Folder::new("own-groups");
    let (file, other) = (folder.file("pids"), folder.file("other"));
    let inner = |file: &str| format!("sh -c 'echo $$ >>{file}; echo ready; exec sleep 1000'");
    let bystander = run_job(&named(
        "strays-10",
        &format!(
            "timeout 600 {} >/dev/null 2>&1 & while ! test -s {other}; do sleep 0.01; done",
            inner(&other)
        ),
    ));
    assert_eq!(bystander.exit, Exit::Code(0), "its child left the group");

    let run = run_into_timeout(named(
        "strays-1",
        &format!("timeout 600 {}; echo after", inner(&file)),
    ));
    assert!(run.took < PATIENCE, "the whole grace was waited for");
    let ended = pids(&file);
    assert!(!ended.is_empty());
    for pid in &ended {
        assert!(!lives(pid), "{pid} outlived the run");
    }
    let left = pids(&other);
    assert!(lives(&left[0]), "another run's child was ended");
    end_leftovers("strays-10");
    assert!(!lives(&left[0]));
}

#[test]
fn a_child_of_its_own_group_that_ignores_term_is_killed_after_the_grace() {
    let folder = Folder::new("stubborn-group");
    let file = folder.file("pids");
    let mut job = named(
        "strays-2",
        &format!(
            "set -m; (trap '' TERM; sh -c 'echo $$ >>{file}; echo ready; exec sleep 1000') & wait"
        ),
    );
    running(&mut job).shell = ["bash", "-c"].map(str::to_owned).into();
    running(&mut job).grace = Duration::from_millis(300);
    let run = run_into_timeout(job);
    assert!(run.took >= Duration::from_millis(200 + 300));
    for pid in pids(&file) {
        assert!(!lives(&pid), "{pid} outlived the run");
    }
}
