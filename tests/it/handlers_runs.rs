//! Runs of commands: what the log and the stream say of them, and that nothing of them is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::process::lives;
use crate::kit::redis::Redis;
use crate::kit::stand::{SOON, Stand, runs};
use crate::kit::wait_until;

#[test]
fn a_run_has_one_name_in_the_log_in_redis_and_for_the_command() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let entries = r#"
  - {name: greet, type: start, command: 'echo $EVENT_RUN $EVENT_ATTEMPT $EVENT_COUNT >> DIR/out; echo hello; echo world >&2; exit 3'}
  - {name: slow, type: start, timeout: 100ms, command: exec sleep 1000}
"#;
    let mut agent = stand.listen_and_report(entries, &redis);
    stand.engine.run(Spec::named("web-1"));
    wait_until(SOON, "both runs are told", || {
        runs(&redis, "end").len() == 2
    });
    let told = stand.wait_lines("out", 1).remove(0);
    let run = told.strip_suffix(" 1 1").unwrap_or_default().to_owned();
    let of = |what: &str, entry: &str| {
        let mut of_it = runs(&redis, what);
        of_it.retain(|run| run["entry"] == entry);
        assert_eq!(of_it.len(), 1);
        of_it.remove(0)
    };
    let start = of("start", "greet");
    let fields = |names: &[&str], run: &std::collections::BTreeMap<String, String>| {
        names
            .iter()
            .map(|name| run[*name].clone())
            .collect::<Vec<_>>()
    };
    let common = ["host", "run", "entry", "type", "subject", "attempt"];
    let expected = ["foo", &run, "greet", "start", "web-1", "1"];
    assert_eq!(fields(&common, &start), expected);
    assert_eq!(start.len(), common.len() + 1);
    let end = of("end", "greet");
    assert_eq!(fields(&common, &end), expected);
    assert_eq!(fields(&["exit", "output"], &end), ["3", "hello\nworld\n"]);
    assert!(end["took_ms"].parse::<u64>().is_ok());
    assert_eq!(of("end", "slow")["exit"], "timeout");
    let log = agent.log();
    for line in [
        format!("handler `greet`, run {run} for start of web-1 on foo: started\n"),
        format!("handler `greet`, run {run} for start of web-1 on foo: exit status 3, after "),
        format!("greet[{run}]| hello\n"),
    ] {
        assert!(log.contains(&line), "{log}");
    }
    stand.settle(&redis);
    assert!(agent.stop(SOON).success());

    // Another agent begins to count anew, and yet no name comes twice.
    let mut agent = stand.listen_and_report(entries, &redis);
    stand.engine.run(Spec::named("web-2"));
    wait_until(SOON, "four runs are told", || {
        runs(&redis, "end").len() == 4
    });
    let names: BTreeSet<String> = runs(&redis, "end")
        .into_iter()
        .map(|run| run["run"].clone())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(agent.stop(SOON).success());
}

#[test]
fn the_stream_of_runs_is_bounded() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let file = stand.file("  - {type: start, concurrency: 64, command: 'true'}\n");
    let options = [
        file,
        format!("--cache={}", redis.url()),
        "--stream-maxlen=10".into(),
    ];
    let mut agent = Agent::start(&options);
    stand.wait_stream();
    for burst in 1..=10 {
        for number in 0..20 {
            stand.engine.run(Spec::named(&format!("c{burst}-{number}")));
        }
        wait_until(SOON, "all have run", || {
            agent.log().matches(": exit status 0, after").count() == 20 * burst
        });
    }
    // The bound is a rough one: Redis drops whole nodes of 100 entries.
    wait_until(SOON, "the last is told", || {
        let length: u64 = redis.query(&["XLEN", "docker:runs"]);
        let added: u64 = redis
            .query::<Vec<redis::Value>>(&["XINFO", "STREAM", "docker:runs"])
            .chunks(2)
            .find_map(|pair| match pair {
                [redis::Value::BulkString(name), redis::Value::Int(number)]
                    if name == b"entries-added" =>
                {
                    Some(*number as u64)
                }
                _ => None,
            })
            .unwrap_or(400);
        (added == 400 && length < 220)
            .then_some(())
            .ok_or(format!("{length} of {added}"))
    });
    assert!(agent.stop(SOON).success());
}

#[test]
fn nothing_is_left_a_grace_after_the_timeout() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - name: two
    type: start
    timeout: 1s
    grace: 1s
    command: |
      (trap '' TERM; (trap '' TERM; echo deaf >> DIR/who; exec sleep 1000) & exec sleep 1000) &
      sleep 1000 & sleep 1000
"#,
    );
    stand.engine.run(Spec::named("web-1"));
    agent.wait_log(": started", SOON);
    let started = Instant::now();
    stand.wait_lines("who", 1);
    // All of them have the event's container in their environment.
    let ours = || {
        let mut ours = Vec::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = process.file_name().to_string_lossy().into_owned();
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            let folder = stand.path("");
            if lives(&pid)
                && String::from_utf8_lossy(&environment).contains("EVENT_RUN=")
                && String::from_utf8_lossy(&environment).contains(folder.trim_end_matches('/'))
            {
                ours.push(pid);
            }
        }
        ours
    };
    wait_until(SOON, "all of them run", || ours().len() >= 4);
    agent.wait_log("timed out and was killed, after 2.", SOON);
    assert!(started.elapsed() >= Duration::from_millis(1900));
    assert_eq!(ours(), Vec::<String>::new());
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_stopped_agent_leaves_no_command_behind() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - {name: polite, type: start, grace: 30s, command: 'sleep 1000 & echo $! >> DIR/pids; echo $$ >> DIR/pids; wait'}
  - name: deaf
    type: start
    grace: 300ms
    command: |
      trap '' TERM
      sleep 1000 & echo $! >> DIR/pids; echo $$ >> DIR/pids
      while :; do sleep 1000; done
"#,
    );
    stand.engine.run(Spec::named("web-1"));
    let pids = stand.wait_lines("pids", 4);
    assert!(agent.stop(SOON).success());
    let left: Vec<&String> = pids.iter().filter(|pid| lives(pid)).collect();
    assert!(left.is_empty(), "{left:?} outlived the agent");
    assert_eq!(
        agent
            .log()
            .matches("was ended because the agent stops")
            .count(),
        2
    );
}

#[test]
fn a_stopped_agent_leaves_no_group_of_a_child_behind() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - {name: busy, type: start, grace: 1s, command: "timeout 600 sh -c 'echo $$ >> DIR/pids; exec sleep 1000'; echo after"}
  - name: monitor
    type: start
    grace: 1s
    shell: [bash, -c]
    command: "set -m; (trap '' TERM; sh -c 'echo $$ >> DIR/pids; exec sleep 1000') & wait"
  - name: well
    type: start
    command: |
      timeout 600 sh -c 'echo $$ >> DIR/left; exec sleep 1000' >/dev/null 2>&1 &
      setsid sh -c 'echo $$ >> DIR/daemon; exec sleep 1000' >/dev/null 2>&1 &
      while ! test -s DIR/left || ! test -s DIR/daemon; do sleep 0.01; done
"#,
    );
    stand.engine.run(Spec::named("web-1"));
    let mut pids = stand.wait_lines("pids", 2);
    agent.wait_log(": exit status 0, after", SOON);
    let left = stand.wait_lines("left", 1);
    assert!(lives(&left[0]), "who left a run that ended well lives on");
    pids.extend(left);
    assert!(agent.stop(SOON).success());
    let left: Vec<&String> = pids.iter().filter(|pid| lives(pid)).collect();
    assert!(left.is_empty(), "{left:?} outlived the agent");
    let daemon = stand.wait_lines("daemon", 1).remove(0);
    assert!(lives(&daemon), "what `setsid` started is nobody's");
    let daemon = Pid::from_raw(daemon.parse().unwrap()).unwrap();
    kill_process(daemon, Signal::KILL).unwrap();
}

/// The children of a process, as the kernel lists them: zombies too.
fn children(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    for task in tasks.flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(
            text.split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    children
}

#[test]
fn process_1_reaps_every_orphan_and_no_shell() {
    let stand = Stand::new();
    // Each run leaves a child that left its group and ends after it, and one that is an orphan within it.
    let file = stand.file(
        r#"
  - type: start
    concurrency: 16
    command: |
      setsid sh -c 'echo $$ >> DIR/daemons; sleep 0.4; exit 3' >/dev/null 2>&1 &
      (sh -c 'exit 4' &) ; exit 7
"#,
    );
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(Agent::PROGRAM)
        .args([&file, "--cache=none"]);
    let mut agent = Agent::spawn(&mut command);
    stand.wait_stream();
    const RUNS: usize = 60;
    for number in 0..RUNS {
        stand.engine.run(Spec::named(&format!("c{number}")));
    }
    wait_until(SOON, "all have run", || {
        let log = agent.log();
        assert!(!log.contains("failed to wait"), "{log}");
        let ended = log.matches(": exit status 7, after").count();
        (ended == RUNS).then_some(()).ok_or(log)
    });
    stand.wait_lines("daemons", RUNS);
    let inside = children(agent.pid());
    assert_eq!(inside.len(), 1, "the agent is the only child of unshare");
    let inside = inside[0];
    assert!(Path::new(&format!("/proc/{inside}/exe")).exists());
    wait_until(SOON, "nothing is left to reap", || {
        let left = children(inside);
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    });
    let pid = Pid::from_raw(inside as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(agent.wait_exit(SOON).success());
}

#[test]
fn a_command_has_the_shell_folder_variables_and_user_of_its_entry() {
    let stand = Stand::new();
    let folder = stand.path("room");
    fs::create_dir(&folder).unwrap();
    let root = rustix::process::getuid().is_root();
    let user = if root {
        "user: nobody"
    } else {
        "dir: DIR/room"
    };
    let mut agent = stand.listen(&format!(
        r#"
  - name: strict
    type: start
    shell: [bash, -euo, pipefail, -c]
    dir: DIR/room
    env: {{GREETING: "$(id)"}}
    command: 'echo "$GREETING"; pwd; id -u; false | true; echo "this is never said"'
  - name: other
    type: start
    {user}
    command: 'id -u; echo $HOME; head -c 20'
  - name: nowhere
    type: start
    dir: /nowhere
    command: 'true'
"#
    ));
    stand.engine.run(Spec::named("web-1"));
    agent.wait_log(r#"]| {"event":{"Type":"co"#, SOON);
    agent.wait_log(&format!("]| {folder}\n"), SOON);
    for end in [
        ": exit status 1, after",
        ": exit status 0, after",
        "could not be started",
    ] {
        agent.wait_log(end, SOON);
    }
    let log = agent.log();
    assert!(log.contains("]| $(id)\n"), "{log}");
    assert!(!log.contains("this is never said"), "{log}");
    let said = "failed to start shell `/bin/sh` in `/nowhere`: No such file or directory";
    assert!(log.contains(said), "{log}");
    if root {
        assert!(
            log.contains("]| 65534\n") && log.contains("]| /nonexistent\n"),
            "{log}"
        );
    }
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_command_that_was_cut_off_has_the_try_that_is_left() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let entries = r#"
  - name: slow
    type: start
    retries: 1
    labels: [team]
    command: 'cat > DIR/in.$EVENT_ATTEMPT; echo $EVENT_RUN $EVENT_ATTEMPT $LABEL_TEAM $$ >> DIR/out; exec sleep 1000'
"#;
    let mut first = stand.listen_and_report(entries, &redis);
    let id = stand.engine.run(Spec::named("web-1").label("team", "core"));
    let told = stand.wait_lines("out", 1).remove(0);
    let words: Vec<&str> = told.split(' ').collect();
    assert_eq!(words[1..3], ["1", "core"]);
    wait_until(SOON, "Redis knows what runs", || {
        let running: Option<String> = redis.query(&["HGET", "docker:hosts:foo", "running_jobs"]);
        running.is_some_and(|running| running.contains("slow"))
    });
    first.kill9();
    // Only a control group would have ended its command with it.
    let orphan = Pid::from_raw(words[3].parse().unwrap()).unwrap();
    kill_process(orphan, Signal::KILL).unwrap();
    redis.query::<()>(&["DEL", "docker:hosts:foo:lease"]);
    let mut second = stand.listen_and_report(entries, &redis);
    let again = stand.wait_lines("out", 2).remove(1);
    assert!(
        again.starts_with(&format!("{} 2 core ", words[0])),
        "{again}, after {told}"
    );
    let run = words[0];
    for line in [
        format!("run {run} for start of web-1 on foo: was cut off when the last agent ended\n"),
        format!("run {run} for start of web-1 on foo, attempt 2: started\n"),
    ] {
        second.wait_log(&line, SOON);
    }
    let input: serde_json::Value = serde_json::from_str(&stand.read("in.2")).unwrap();
    assert_eq!(input["container"]["Id"], *id);
    assert_eq!((&input["attempt"], &input["run"]), (&2.into(), &run.into()));
    wait_until(SOON, "the stream tells both starts", || {
        let of_it = |what: &str| -> Vec<String> {
            let mut of_it = runs(&redis, what);
            of_it.retain(|told| told["run"] == run);
            of_it.iter().map(|told| told["attempt"].clone()).collect()
        };
        of_it("start") == ["1", "2"] && of_it("end") == ["1"]
    });
    assert!(second.stop(SOON).success());
}
