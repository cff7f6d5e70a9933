//! How an entry's commands wait for each other, field by field: an agent at work, real commands, and what they wrote.
//!
//! Times are bounded from below, which holds however busy the machine is; that something happens at all is waited for.

use std::time::Duration;

use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::stand::{SOON, Stand};
use crate::kit::wait_until;

/// Goes on until it may end.
const HOLD: &str = "while [ ! -e DIR/go ]; do sleep 0.05; done";

/// So many events of these containers, and all of them have come to the entries: `seen` is the last one's.
fn update(stand: &Stand, ids: &[&String]) {
    let before = stand.lines("seen").len();
    for (number, id) in ids.iter().enumerate() {
        stand.engine.update(id, number as u64 + 1);
    }
    stand.wait_lines("seen", before + ids.len());
}

/// Entries, with one more that notes each event.
fn listen(stand: &Stand, entries: &str) -> Agent {
    let entries = entries.replace("HOLD", HOLD);
    let seen =
        "  - {name: seen, type: update, concurrency: 1, order: none, command: echo >> DIR/seen}\n";
    stand.listen(&(entries + seen))
}

fn numbers(line: &str) -> Vec<u64> {
    let words = line.split(' ');
    words.map(|word| word.parse().expect("a number")).collect()
}

#[test]
fn without_an_order_the_commands_of_one_container_run_at_once() {
    let stand = Stand::new();
    let mut agent = listen(
        &stand,
        r#"
  - {name: any, type: update, order: none, concurrency: 3, command: 'echo >> DIR/any; HOLD'}
  - {name: each, type: update, concurrency: 3, command: 'echo >> DIR/each; HOLD'}
"#,
    );
    let id = stand.engine.run(Spec::named("a"));
    update(&stand, &[&id, &id, &id, &id]);
    stand.wait_lines("any", 3);
    stand.wait_lines("each", 1);
    assert_eq!(
        (stand.lines("any").len(), stand.lines("each").len()),
        (3, 1)
    );
    stand.folder.write("go", "");
    stand.wait_lines("any", 4);
    stand.wait_lines("each", 4);
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_busy_entry_skips_or_replaces() {
    let stand = Stand::new();
    let mut agent = listen(
        &stand,
        r#"
  - {name: skip, type: update, on_busy: skip, command: 'echo $EVENT_TIME >> DIR/skip; HOLD'}
  - name: replace
    type: update
    on_busy: replace
    command: 'trap "echo ended >> DIR/replace; exit" TERM; echo begun >> DIR/replace; sleep 1000 & wait'
"#,
    );
    let id = stand.engine.run(Spec::named("a"));
    update(&stand, &[&id]);
    stand.wait_lines("replace", 1);
    update(&stand, &[&id]);
    let lines = stand.wait_lines("replace", 3);
    assert_eq!(lines, ["begun", "ended", "begun"]);
    assert_eq!(stand.lines("skip").len(), 1);
    let log = agent.log();
    let replaced = log
        .lines()
        .find(|line| line.contains("because a newer event"));
    assert!(
        replaced.is_some_and(|line| !line.contains("warning")),
        "{log}"
    );
    // Only what comes when nothing runs any more runs.
    stand.folder.write("go", "");
    agent.wait_log("handler `skip`, run ", SOON);
    wait_until(SOON, "the first has ended", || {
        let ended = |line: &str| line.contains("`skip`") && line.contains("exit status 0");
        agent.log().lines().any(ended)
    });
    update(&stand, &[&id]);
    let times = stand.wait_lines("skip", 2);
    assert_eq!(times.len(), 2);
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_debounced_entry_runs_when_it_is_quiet_or_has_collected_for_long_enough() {
    let stand = Stand::new();
    let mut agent = listen(
        &stand,
        r#"
  - {name: late, type: update, debounce: 3s, debounce_max: 5s, command: 'echo "$EVENT_TIME $EVENT_COUNT $(date +%s%N)" >> DIR/out'}
"#,
    );
    let id = stand.engine.run(Spec::named("a"));
    let first_ns = stand.engine.now_ns() as u64;
    let mut events = 0;
    // It is never quiet, and yet it runs.
    while stand.lines("out").is_empty() {
        update(&stand, &[&id]);
        events += 1;
        assert!(events < 10_000, "it never runs");
    }
    let told = numbers(&stand.wait_lines("out", 1)[0]);
    let (newest, count, ran) = (told[0], told[1], told[2]);
    assert!(ran - first_ns >= 5_000_000_000, "{told:?}");
    assert!(
        newest > first_ns && count > 1 && count <= events,
        "{told:?}"
    );
    // What came since is one run more, once it was quiet for long enough.
    update(&stand, &[&id]);
    events += 1;
    let told = numbers(&stand.wait_lines("out", 2)[1]);
    assert!(told[2] - told[0] >= 3_000_000_000, "{told:?}");
    assert_eq!(told[1], events - count, "each event counts once");
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_cooldown_keeps_a_container_quiet_for_so_long() {
    let stand = Stand::new();
    let mut agent = listen(
        &stand,
        r#"
  - {name: hour, type: update, cooldown: 1h, command: echo $FROM_CONTAINER >> DIR/hour}
  - {name: second, type: update, from_container: a, cooldown: 1s, command: 'date +%s%N >> DIR/second'}
"#,
    );
    let (a, b) = (
        stand.engine.run(Spec::named("a")),
        stand.engine.run(Spec::named("b")),
    );
    update(&stand, &[&a]);
    stand.wait_lines("hour", 1);
    update(&stand, &[&a, &b]);
    assert_eq!(stand.wait_lines("hour", 2), ["a", "b"]);
    while stand.lines("second").len() < 2 {
        update(&stand, &[&a]);
    }
    let times = stand.wait_lines("second", 2);
    let between = numbers(&times[1])[0] - numbers(&times[0])[0];
    // A shell may be slower to begin than the next one.
    assert!(between >= 900_000_000, "{between} ns");
    assert_eq!(stand.lines("hour"), ["a", "b"]);
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_failed_command_is_tried_again_with_growing_waits_as_often_as_asked() {
    let stand = Stand::new();
    let mut agent = listen(
        &stand,
        r#"
  - {name: never, type: update, retries: 3, backoff: 400ms, command: 'echo "$EVENT_ATTEMPT $(date +%s%N) $EVENT_RUN" >> DIR/out; exit 3'}
  - {name: second, type: update, retries: 3, backoff: 1ms, command: 'echo $EVENT_ATTEMPT >> DIR/second; exit $((2 - EVENT_ATTEMPT))'}
"#,
    );
    let id = stand.engine.run(Spec::named("a"));
    update(&stand, &[&id]);
    let lines = stand.wait_lines("out", 4);
    let tries: Vec<(&str, u64, &str)> = lines
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0], words[1].parse().expect("ns"), words[2])
        })
        .collect();
    assert_eq!(
        tries
            .iter()
            .map(|(attempt, ..)| *attempt)
            .collect::<Vec<_>>(),
        ["1", "2", "3", "4"]
    );
    assert!(
        tries.iter().all(|(.., run)| *run == tries[0].2),
        "{lines:?}"
    );
    for (pair, least) in tries.windows(2).zip([400_u64, 800, 1600]) {
        let waited = Duration::from_nanos(pair[1].1 - pair[0].1);
        // Give or take a tenth, and the time that a shell takes to begin.
        assert!(
            waited >= Duration::from_millis(least * 8 / 10),
            "{waited:?} of {least} ms"
        );
    }
    wait_until(SOON, "the last try has ended", || {
        agent.log().matches("`never`, run ").count() == 8
    });
    update(&stand, &[&id]);
    // Its turn comes when nothing is left of the first.
    assert!(stand.wait_lines("out", 5)[4].starts_with("1 "));
    assert_eq!(stand.wait_lines("second", 4)[..2], ["1", "2"]);
    assert!(agent.stop(SOON).success());
}

#[test]
fn defaults_hold_for_what_an_entry_does_not_say() {
    let stand = Stand::new();
    let file = stand.file(
        r#"
  - {name: mine, type: start, env: {B: own}, command: 'echo "$A $B" >> DIR/out; exec sleep 1000'}
  - {name: own, type: start, timeout: 60s, command: 'sleep 0.5; echo "$A $B" >> DIR/out'}
defaults:
  timeout: 200ms
  env: {A: both, B: default}
"#,
    );
    let mut agent = Agent::start(&[file, "--cache=none".into()]);
    stand.wait_stream();
    stand.engine.run(Spec::named("a"));
    let mut lines = stand.wait_lines("out", 2);
    lines.sort();
    assert_eq!(lines, ["both default", "both own"]);
    agent.wait_log(
        "for start of a on foo: timed out and was killed, after 0.",
        SOON,
    );
    agent.wait_log("for start of a on foo: exit status 0, after ", SOON);
    let log = agent.log();
    assert!(
        !log.lines()
            .any(|line| line.contains("`own`") && line.contains("timed out")),
        "{log}"
    );
    assert!(agent.stop(SOON).success());
}
