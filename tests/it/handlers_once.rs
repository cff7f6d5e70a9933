//! `once: true`: two managers with one file and one Redis, of which one runs a command for each event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::redis::Redis;
use crate::kit::{TempDir, seconds, wait_until};

/// Longer than anything takes on a loaded machine.
const SOON: Duration = Duration::from_secs(60);

/// Writes what it is run for, and by which agent: one write of one short line, so that lines of two commands never mix.
const NOTE: &str = "echo $EVENT_TYPE $FROM_CONTAINER $PPID >> OUT";

/// The same, and goes on until it may end or its agent is gone.
const LONG: &str = "echo begin $FROM_CONTAINER $PPID >> OUT; while kill -0 $PPID && [ ! -e GO ]; do sleep 0.1; done; kill -0 $PPID && echo end $FROM_CONTAINER $PPID >> OUT";

/// Managers, and what they stand on, which ends after them.
struct Cluster {
    agents: Vec<Agent>,
    engine: Engine,
    redis: Redis,
    folder: TempDir,
}

impl Cluster {
    /// Two agents that listen; the first reports the engine.
    #[track_caller]
    fn start(entries: &str) -> Cluster {
        let folder = TempDir::new();
        let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let entries = entries
            .replace("NOTE", NOTE)
            .replace("LONG", LONG)
            .replace("OUT", &path("out"))
            .replace("GO", &path("go"));
        let text = format!("cluster:\n  foo: {}\nevents:\n{entries}", engine.url());
        folder.write("events.yml", &text);
        let mut cluster = Cluster {
            agents: Vec::new(),
            engine,
            redis: Redis::start(),
            folder,
        };
        for count in 1..=2 {
            let agent = cluster.agent();
            cluster.agents.push(agent);
            wait_until(SOON, "the agent listens", || {
                cluster.engine.subscribers() == count
            });
            cluster.settle();
        }
        cluster
    }

    fn agent(&self) -> Agent {
        let file = self.folder.join("events.yml").display().to_string();
        let cache = format!("--cache={}", self.redis.url());
        Agent::start(&[cache, "--update-interval=2s".into(), file])
    }

    /// The cache is as it must be, whoever writes it.
    #[track_caller]
    fn settle(&self) {
        oracle::settle(&self.redis, "docker", SOON, || {
            vec![Host::up("foo", self.engine.running())]
        });
    }

    /// What commands wrote, without the agents.
    fn lines(&self) -> Vec<String> {
        let cut = |line: String| line.rsplit_once(' ').map(|(text, _)| text.to_owned());
        self.raw().into_iter().filter_map(cut).collect()
    }

    fn raw(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("out")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for so many lines.
    #[track_caller]
    fn wait_lines(&self, count: usize) -> Vec<String> {
        wait_until(SOON, &format!("commands wrote {count} lines"), || {
            let lines = self.lines();
            match lines.len() >= count {
                true => Ok(()),
                false => Err(format!("{} lines: {lines:?}", lines.len())),
            }
        });
        self.lines()
    }

    /// Waits until no agent has a job that waits or runs.
    #[track_caller]
    fn wait_idle(&mut self) {
        for agent in &mut self.agents {
            wait_until(SOON, "the agent has nothing to do", || {
                let from = agent.log().len();
                agent.signal(Signal::USR1);
                agent.wait_log_from(from, " commands run, ", SOON);
                let log = agent.log();
                match log[from..].contains(" 0 commands run, 0 jobs wait, ") {
                    true => Ok(()),
                    false => Err(log[from..].to_owned()),
                }
            });
        }
    }

    /// The agent that wrote the last line, and no longer one of them.
    fn take_last(&mut self) -> Agent {
        let raw = self.raw();
        let pid = raw.last().and_then(|line| line.rsplit_once(' '));
        let pid: u32 = pid.and_then(|(_, pid)| pid.parse().ok()).unwrap();
        let place = self.agents.iter().position(|agent| agent.pid() == pid);
        self.agents.remove(place.expect("one of our agents"))
    }

    /// What stands in the keys of commands.
    fn keys(&self) -> Vec<String> {
        let keys = self.redis.keys("docker:once:");
        let read = |key: &String| self.redis.query::<String>(&["GET", key]);
        keys.iter().map(read).collect()
    }
}

#[test]
fn two_agents_run_each_of_two_hundred_events_once_and_in_order() {
    need!(redis);
    let mut cluster = Cluster::start("  - {type: [start, die], once: true, command: NOTE}\n");
    let mut wanted = BTreeSet::new();
    for number in 0..100 {
        let name = format!("c{number}");
        let id = cluster.engine.run(Spec::named(&name));
        cluster.engine.stop(&id);
        wanted.extend([format!("start {name}"), format!("die {name}")]);
    }
    cluster.wait_lines(200);
    cluster.wait_idle();
    let lines = cluster.lines();
    assert_eq!(lines.len(), 200, "one twice: {lines:?}");
    assert_eq!(lines.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    let mut begun = BTreeMap::new();
    for line in &lines {
        let (word, name) = line.split_once(' ').unwrap();
        let before = begun.insert(name, word);
        assert_eq!(before, (word == "die").then_some("start"), "{line}");
    }
    let keys = cluster.keys();
    assert_eq!(keys, vec!["done"; 200]);
    cluster.settle();
    for agent in &mut cluster.agents {
        assert!(agent.stop(SOON).success());
    }
    assert_eq!(cluster.lines().len(), 200);
}

#[test]
fn what_a_killed_agent_ran_another_one_runs_and_takes_the_cache_over_as_well() {
    need!(redis);
    let mut cluster = Cluster::start("  - {type: start, once: true, command: 'LONG'}\n");
    cluster.engine.run(Spec::named("web"));
    assert_eq!(cluster.wait_lines(1), ["begin web"]);
    let killed = Instant::now();
    cluster.take_last().kill9();
    assert_eq!(cluster.wait_lines(2), ["begin web", "begin web"]);
    let took = killed.elapsed();
    assert!(took >= seconds(7), "its lease still ran: {took:?}");
    assert!(took < seconds(12) + seconds(8), "{took:?}");
    cluster.folder.write("go", "");
    assert_eq!(cluster.wait_lines(3), ["begin web", "begin web", "end web"]);
    cluster.wait_idle();
    cluster.settle();
    // The next ones are run at once, and a third agent that comes finds nothing to do.
    cluster.engine.run(Spec::named("db"));
    cluster.wait_lines(5);
    let third = cluster.agent();
    cluster.agents.push(third);
    wait_until(SOON, "the agent listens", || {
        cluster.engine.subscribers() == 2
    });
    cluster.wait_idle();
    assert_eq!(cluster.lines()[3..], ["begin db", "end db"]);
    cluster.settle();
}

#[test]
fn what_a_stop_cuts_off_another_agent_runs() {
    need!(redis);
    let mut cluster = Cluster::start("  - {type: start, once: true, command: 'LONG'}\n");
    cluster.engine.run(Spec::named("web"));
    cluster.wait_lines(1);
    assert!(cluster.take_last().stop(SOON).success());
    assert_eq!(cluster.wait_lines(2), ["begin web", "begin web"]);
    cluster.folder.write("go", "");
    assert_eq!(cluster.wait_lines(3)[2], "end web");
    cluster.settle();
}

#[test]
fn a_redis_that_forgets_all_starts_nothing_twice_that_still_runs() {
    need!(redis);
    let mut cluster = Cluster::start("  - {type: start, once: true, command: 'LONG'}\n");
    cluster.engine.run(Spec::named("web"));
    cluster.wait_lines(1);
    cluster.redis.restart_empty();
    wait_until(SOON, "the lease is taken anew", || {
        cluster.keys().len() == 1
    });
    // Longer than until the other one asks, and than a lease.
    let taken = Instant::now();
    wait_until(SOON, "a lease's time is over", || {
        taken.elapsed() > seconds(14)
    });
    cluster.folder.write("go", "");
    cluster.wait_lines(2);
    cluster.wait_idle();
    assert_eq!(cluster.lines(), ["begin web", "end web"]);
    cluster.settle();
}

#[test]
fn without_a_redis_a_command_waits_and_those_of_other_entries_do_not() {
    need!(redis);
    let mut cluster = Cluster::start(
        "  - {type: start, once: true, command: NOTE}\n  - {type: start, command: 'echo each $FROM_CONTAINER $PPID >> OUT'}\n",
    );
    cluster.redis.kill9();
    cluster.engine.run(Spec::named("web"));
    assert_eq!(cluster.wait_lines(2), ["each web", "each web"]);
    cluster.redis.restart_empty();
    assert_eq!(cluster.wait_lines(3)[2], "start web");
    cluster.wait_idle();
    assert_eq!(cluster.lines().len(), 3, "{:?}", cluster.lines());
    cluster.settle();
}
