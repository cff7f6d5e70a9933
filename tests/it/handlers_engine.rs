//! What engines themselves do, and what was there before the agent: `engine/down`, `engine/up`, `engine/gap`, `for` and `existing` of `events.yml`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::agent::Agent;
use crate::kit::docker::Dockerd;
use crate::kit::need::need;
use crate::kit::redis::Redis;
use crate::kit::{TempDir, seconds, wait_until};

/// Longer than anything takes on a loaded machine.
const SOON: Duration = Duration::from_secs(60);

/// A folder in which commands write what they are run for.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Desk {
        let folder = TempDir::new();
        Desk { folder }
    }

    /// A fake engine that answers there.
    #[track_caller]
    fn engine(&self) -> Engine {
        Engine::listen(&Place::Unix(self.folder.join("d"))).unwrap()
    }

    /// Starts an agent with these entries for the engine, under the name `foo`. `NOTE` in them is a command that writes what it is run for.
    #[track_caller]
    fn agent(&self, url: &str, cache: &str, entries: &str) -> Agent {
        // One write of one short line: lines of two commands never mix.
        let out = self.folder.join("out").display().to_string();
        let entries = entries
            .replace("NOTE", "'echo $EVENT_TYPE $FROM_CONTAINER >> OUT'")
            .replace("OUT", &out);
        let text = format!("cluster:\n  foo: {url}\nevents:\n{entries}");
        let file = self.folder.write("events.yml", &text);
        Agent::start(&[
            format!("--cache={cache}"),
            "--update-interval=2s".into(),
            file.display().to_string(),
        ])
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("out")).unwrap_or_default();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// Waits for a line.
    #[track_caller]
    fn wait_for(&self, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        wait_until(SOON, &format!("a command ran for `{wanted}`"), || {
            lines = self.lines();
            match lines.iter().any(|line| line == wanted) {
                true => Ok(()),
                false => Err(format!("{lines:?}")),
            }
        });
        lines
    }
}

fn set(lines: &[String]) -> BTreeSet<&str> {
    let all: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(all.len(), lines.len(), "one twice: {lines:?}");
    all
}

#[test]
fn a_real_engine_that_is_killed_is_down_when_that_has_lasted_and_then_up() {
    need!(dockerd);
    let desk = Desk::new();
    let mut dockerd = Dockerd::start();
    let name = format!("existing {}there", dockerd.docker.prefix);
    dockerd.run("there", &[], &[]);
    let mut agent = desk.agent(
        &dockerd.docker.url,
        "none",
        "  - {type: engine/down, for: 2s, command: NOTE}\n  - {type: engine/up, command: NOTE}\n  - {existing: true, type: destroy, command: NOTE}\n",
    );
    assert_eq!(desk.wait_for(&name), [&*name]);
    let killed = Instant::now();
    dockerd.kill9();
    assert_eq!(desk.wait_for("engine/down"), [&*name, "engine/down"]);
    assert!(killed.elapsed() >= seconds(2), "{:?}", killed.elapsed());
    dockerd.restart();
    let lines = desk.wait_for("engine/up");
    assert_eq!(lines, [&*name, "engine/down", "engine/up"]);
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_short_absence_is_told_to_those_alone_who_did_not_ask_that_it_lasts() {
    let desk = Desk::new();
    let engine = desk.engine();
    // By the time the last one runs, the first would have run as well.
    let mut agent = desk.agent(
        &engine.url(),
        "none",
        "  - {type: engine/down, for: 6s, command: NOTE}\n  - {type: engine/up, command: NOTE}\n  - {type: engine/up, for: 7s, command: 'echo it lasted >> OUT'}\n",
    );
    agent.wait_log("Started monitoring", SOON);
    engine.go_down();
    agent.wait_log("failed to ping", SOON);
    engine.come_up().unwrap();
    assert_eq!(desk.wait_for("it lasted"), ["engine/up", "it lasted"]);
    assert!(agent.stop(SOON).success());
}

#[test]
fn an_engine_that_is_away_at_the_start_is_down_and_its_containers_are_told_of_when_it_comes() {
    let desk = Desk::new();
    let engine = desk.engine();
    engine.run(Spec::named("early"));
    engine.go_down();
    let mut agent = desk.agent(
        &engine.url(),
        "none",
        "  - {name: all, type: '*', existing: true, command: NOTE}\n  - {type: engine/*, command: NOTE}\n  - {type: engine/down, log: x, command: 'echo $EVENT_TIME; echo said'}\n",
    );
    assert_eq!(desk.wait_for("engine/down"), ["engine/down"]);
    // It never told its clock, so the machine's own is told.
    agent.wait_log("]| said", SOON);
    let log = agent.log();
    let time = log
        .lines()
        .find_map(|line| line.split_once("]| ")?.1.parse::<u64>().ok());
    assert!(time > Some(1_700_000_000_000_000_000), "{log}");
    engine.come_up().unwrap();
    let lines = desk.wait_for("existing early");
    assert_eq!(lines, ["engine/down", "engine/up", "existing early"]);
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_gap_is_told() {
    let desk = Desk::new();
    let engine = desk.engine();
    let mut agent = desk.agent(
        &engine.url(),
        "none",
        "  - {type: 'engine/gap, start', command: NOTE}\n",
    );
    agent.wait_log("Started monitoring", SOON);
    engine.run(Spec::named("a"));
    desk.wait_for("start a");
    // It comes back with an empty memory: what happened meanwhile, nobody can tell.
    engine.restart().unwrap();
    assert_eq!(desk.wait_for("engine/gap"), ["start a", "engine/gap"]);
    assert!(agent.stop(SOON).success());
}

#[test]
fn what_is_there_already_is_told_of_once_by_each_agent() {
    need!(redis);
    let desk = Desk::new();
    let (engine, redis) = (desk.engine(), Redis::start());
    for name in ["a", "b", "c"] {
        engine.run(Spec::named(name).label("role", "web"));
    }
    let gone = engine.run(Spec::named("gone"));
    engine.die(&gone, 0);
    let entries = "  - {type: start, existing: true, command: 'echo $EVENT_TYPE $FROM_CONTAINER $EVENT_TIME >> OUT'}\n";
    let existing = |lines: &[String]| -> BTreeSet<String> {
        let lines = lines.iter().filter(|line| line.starts_with("existing "));
        lines.cloned().collect()
    };
    let mut agent = desk.agent(&engine.url(), &redis.url(), entries);
    wait_until(SOON, "three commands ran", || desk.lines().len() >= 3);
    let first = desk.lines();
    assert_eq!(set(&first).len(), 3, "{first:?}");

    // A new connection and resyncs are no news.
    engine.cut_all();
    agent.wait_log("engine `foo`", SOON);
    let resyncs = || -> u64 {
        let found: Option<u64> = redis.query(&["HGET", "docker:hosts:foo", "resyncs"]);
        found.unwrap_or(0)
    };
    let before = resyncs();
    wait_until(SOON, "two more resyncs", || resyncs() >= before + 2);
    engine.run(Spec::named("new"));
    let begins = |wanted: &str| desk.lines().iter().any(|line| line.starts_with(wanted));
    wait_until(SOON, "the new one started", || begins("start new "));
    assert_eq!(set(&desk.lines()).len(), 4, "{:?}", desk.lines());
    assert!(agent.stop(SOON).success());

    // The next agent is told anew, with the same times; of the new one too, whose start its predecessor told.
    std::fs::write(desk.folder.join("out"), "").unwrap();
    let mut agent = desk.agent(&engine.url(), &redis.url(), entries);
    wait_until(SOON, "four commands ran", || desk.lines().len() >= 4);
    let second = existing(&desk.lines());
    assert_eq!(second.len(), 4, "{:?}", desk.lines());
    assert!(existing(&first).is_subset(&second), "{first:?} {second:?}");
    assert!(agent.stop(SOON).success());

    // No engine sent it.
    let events: String = format!(
        "{:?}",
        redis.query::<redis::Value>(&["XRANGE", "docker:events", "-", "+"])
    );
    assert!(
        events.contains("start") && !events.contains("existing"),
        "{events}"
    );
}
