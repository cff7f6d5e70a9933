//! Many commands at once: none is lost, and who hangs holds up nobody else.
// Measured figures are for who runs a test by hand.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::redis::Redis;
use crate::kit::stand::{SOON, Stand};
use crate::kit::times::Times;
use crate::kit::{seconds, wait_until};

/// Ten thousand commands take a while on a busy machine.
const LATER: Duration = seconds(400);

#[test]
fn ten_thousand_events_in_a_burst_run_ten_thousand_commands_each_container_in_order() {
    need!(redis);
    const EVENTS: usize = 10_000;
    let redis = Redis::start();
    let stand = Stand::new();
    let ids: Vec<String> = (0..100)
        .map(|number| stand.engine.run(Spec::named(&format!("c{number}"))))
        .collect();
    // One write of one short line: those of two commands never mix.
    let mut agent = stand.listen_and_report(
        "  - {type: update, concurrency: 4, command: 'echo \"$FROM_CONTAINER $EVENT_TIME\" >> DIR/out'}\n",
        &redis,
    );
    let began = Instant::now();
    for number in 0..EVENTS {
        let id = &ids[number % ids.len()];
        stand.engine.update(id, (number as u64) << 12);
        if number % 500 == 0 {
            // An engine drops what its reader does not take for 100 ms, and the machine may be that busy.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let (blown, published) = (began.elapsed(), stand.engine.events_published());
    wait_until(LATER, "all commands have run", || {
        let text = stand.read("out");
        let count = text.lines().count();
        let done = count >= EVENTS && text.ends_with('\n');
        done.then_some(()).ok_or(format!("{count} lines"))
    });
    println!(
        "{EVENTS} events in {blown:.1?}, their commands in {:.1?}, {} kB",
        began.elapsed(),
        agent.rss_kb()
    );
    assert_eq!(stand.engine.events_dropped(), 0, "of {published}");
    stand.settle(&redis);
    assert!(agent.stop(SOON).success());
    let lines = stand.lines("out");
    assert_eq!(lines.len(), EVENTS);
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &lines {
        let (name, time) = line.split_once(' ').expect("two words");
        let time = time.parse().expect("nanoseconds");
        assert!(
            last.insert(name, time) < Some(time),
            "{line} is out of order"
        );
    }
    let all: BTreeSet<&String> = lines.iter().collect();
    assert_eq!((all.len(), last.len()), (EVENTS, ids.len()));
}

/// How late the commands of the entry `quick` began, of events one after the other.
fn quick(stand: &Stand, name: &str) -> Times {
    let count = 40;
    (0..count)
        .map(|number| {
            let before = stand.lines("quick").len();
            stand.engine.run(Spec::named(&format!("{name}-{number}")));
            let line = stand.wait_lines("quick", before + 1).remove(before);
            let (began, event) = line.split_once(' ').expect("two words");
            let ns = |text: &str| text.parse::<u64>().expect("nanoseconds");
            Duration::from_nanos(ns(began).saturating_sub(ns(event)))
        })
        .collect()
}

#[test]
fn timed_two_hundred_hung_commands_of_one_entry_delay_another_entry_by_less_than_50_ms() {
    for workers in [256, 64] {
        let stand = Stand::new();
        let entries = r#"
  - {name: hung, type: start, from_container: hung-*, concurrency: 200, command: echo >> DIR/hung; exec sleep 1000, grace: 100ms}
  - {name: quick, type: start, from_container: quick-*, command: 'echo "$(date +%s%N) $EVENT_TIME" >> DIR/quick'}
"#;
        let file = stand.file(entries);
        let workers_option = format!("--workers={workers}");
        let mut agent = Agent::start(&[file, "--cache=none".into(), workers_option]);
        stand.wait_stream();
        let control = quick(&stand, "quick-before");
        for number in 0..200 {
            stand.engine.run(Spec::named(&format!("hung-{number}")));
        }
        // A slot is kept for the entry that runs nothing.
        let hang = 200.min(workers - 1);
        stand.wait_lines("hung", hang);
        let beside = quick(&stand, "quick-beside");
        println!("{hang} hang of {workers} workers: {beside}; none: {control}");
        assert!(
            beside.median() < control.median() + Duration::from_millis(50),
            "{beside}; without hung ones {control}"
        );
        assert_eq!(stand.lines("hung").len(), hang);
        assert!(agent.stop(SOON).success());
    }
}

#[test]
fn an_entry_that_runs_nothing_waits_for_nobody_however_many_hang() {
    let stand = Stand::new();
    let hang = |number: usize| {
        format!(
            "  - {{name: e{number}, type: start, from_container: c{number}-*, command: echo >> DIR/hung; exec sleep 1000, grace: 100ms}}\n"
        )
    };
    let entries: String = (0..8).map(hang).collect();
    let last = "  - {type: die, command: echo >> DIR/quick}\n";
    let file = stand.file(&(entries + last));
    let mut agent = Agent::start(&[file, "--cache=none".into(), "--workers=2".into()]);
    stand.wait_stream();
    for number in 0..16 {
        stand
            .engine
            .run(Spec::named(&format!("c{}-{number}", number % 8)));
    }
    stand.wait_lines("hung", 8);
    let id = stand.engine.run(Spec::named("other"));
    stand.engine.die(&id, 0);
    stand.wait_lines("quick", 1);
    assert_eq!(
        stand.lines("hung").len(),
        8,
        "the second of each needs a slot"
    );
    assert!(agent.stop(SOON).success());
}
