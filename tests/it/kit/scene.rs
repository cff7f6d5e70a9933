//! What most tests begin with: a Redis, fake engines and an agent that reports the ones to the other ([`Scene`]); or just one of each ([`Stage`]).

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use super::agent::Agent;
use super::listen::Notices;
use super::oracle::{self, Host};
use super::redis::Redis;
use super::{TempDir, seconds, wait_until};
use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;

/// Far more than anything here takes.
pub const SOON: Duration = seconds(30);

/// Containers named so are renamed at a steady pace ([`super::pulse`]): what the handler is run for there is not counted.
pub const PULSE: &str = "pulse-";

/// The events that the handler wants.
const TYPES: &str = "start, die, pause, unpause, rename, destroy, oom, restart";

/// A Redis, a folder for engines' sockets, and what the one handler of the agents here wrote down. It goes with the test.
pub struct Scene {
    /// A Redis of the test's own.
    pub redis: Redis,
    folder: TempDir,
}

impl Scene {
    /// An empty Redis, no engine and no run.
    pub fn new() -> Scene {
        Scene {
            redis: Redis::start(),
            folder: TempDir::new(),
        }
    }

    /// A fake engine on a socket of this name.
    #[track_caller]
    pub fn engine(&self, name: &str) -> Engine {
        let place = Place::Unix(self.folder.join(name));
        Engine::listen(&place)
            .unwrap_or_else(|error| panic!("failed to listen at `{}`: {error}", place.url()))
    }

    /// A path in the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the handler writes what it is run for.
    pub fn runs_path(&self) -> PathBuf {
        self.folder.join("runs")
    }

    /// Starts an agent for these engines, each under its name, with the handler and these options as well.
    #[track_caller]
    pub fn watch(&self, engines: &[(&str, &str)], options: &[&str]) -> Agent {
        self.watch_with(engines, options, &[])
    }

    /// The same, with variables.
    #[track_caller]
    pub fn watch_with(
        &self,
        engines: &[(&str, &str)],
        options: &[&str],
        variables: &[(&str, &str)],
    ) -> Agent {
        self.watch_through(&self.redis.url(), engines, options, variables)
    }

    /// The same by another way to the Redis.
    #[track_caller]
    pub fn watch_through(
        &self,
        cache: &str,
        engines: &[(&str, &str)],
        options: &[&str],
        variables: &[(&str, &str)],
    ) -> Agent {
        let file = self.write_file(engines);
        let mut args = vec![format!("-cache={cache}")];
        args.extend(options.iter().map(|option| option.to_string()));
        args.push(file.to_string_lossy().into_owned());
        Agent::start_with(&args, variables)
    }

    /// Writes the `events.yml` of these engines and the handler; a running agent reads it when it gets SIGHUP.
    pub fn write_file(&self, engines: &[(&str, &str)]) -> PathBuf {
        let cluster: String = engines
            .iter()
            .map(|(name, url)| format!("  {name}: {url}\n"))
            .collect();
        // One write of one short line: lines of two commands never mix.
        let file = format!(
            "cluster:\n{cluster}events:\n  - name: note\n    type: {TYPES}\n    concurrency: 16\n    command: >-\n      \
             printf '%s %s %s %s\\n' \"$FROM_ENGINE\" \"$EVENT_TYPE\" \"$FROM_CONTAINER\" \"$EVENT_INFERRED\" >> {}\n",
            self.runs_path().display()
        );
        self.folder.write("events.yml", &file)
    }

    /// Starts an agent that reports this engine as `h`, and waits for the first report.
    #[track_caller]
    pub fn report(&self, engine: &Engine, options: &[&str]) -> Agent {
        let agent = self.watch(&[("h", &engine.url())], options);
        settle(&self.redis, engine, SOON);
        agent
    }

    /// What the handler was run for, and how often: `host start web` and `host die web inferred`.
    pub fn runs(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(self.runs_path()).unwrap_or_default();
        let mut runs = BTreeMap::new();
        let counts = |line: &&str| !line.split(' ').nth(2).unwrap_or("").starts_with(PULSE);
        for line in text.lines().filter(counts) {
            let words = line.trim_end();
            let line = match words.strip_suffix(" 1") {
                Some(words) => format!("{words} inferred"),
                None => words.to_owned(),
            };
            *runs.entry(line).or_default() += 1;
        }
        runs
    }

    /// Waits until the handler was run for each of these once, and fails at once when it was run for anything else or twice.
    #[track_caller]
    pub fn expect_runs(&self, limit: Duration, wanted: &[&str]) {
        let wanted: BTreeMap<String, usize> =
            wanted.iter().map(|line| (line.to_string(), 1)).collect();
        let mut runs = BTreeMap::new();
        wait_until(limit, "the handler was run for all it should", || {
            runs = self.runs();
            let missing: Vec<_> = wanted
                .keys()
                .filter(|line| !runs.contains_key(*line))
                .collect();
            let missed = format!("missing {missing:?} of {runs:?}");
            missing.is_empty().then_some(()).ok_or(missed)
        });
        assert_eq!(runs, wanted, "each once, and nothing else");
    }

    /// A field of a host's hash; nothing where it is not there.
    #[track_caller]
    pub fn host_field(&self, host: &str, field: &str) -> String {
        self.hash_field(&format!("docker:hosts:{host}"), field)
    }

    /// A number of a host's hash; 0 where it is not there.
    #[track_caller]
    pub fn number(&self, host: &str, field: &str) -> u64 {
        self.host_field(host, field).parse().unwrap_or(0)
    }

    /// A field of a container's hash; nothing where it is not there.
    #[track_caller]
    pub fn field(&self, id: &str, name: &str) -> String {
        self.hash_field(&format!("docker:containers:{id}"), name)
    }

    #[track_caller]
    fn hash_field(&self, key: &str, field: &str) -> String {
        let found: Option<String> = self.redis.query(&["HGET", key, field]);
        found.unwrap_or_default()
    }

    /// Waits for a number in a host's hash.
    #[track_caller]
    pub fn expect_number(&self, limit: Duration, host: &str, field: &str, wanted: u64) {
        wait_until(limit, &format!("{field} of {host} is {wanted}"), || {
            let found = self.number(host, field);
            (found == wanted)
                .then_some(())
                .ok_or(format!("it is {found}"))
        });
    }

    /// The oracle: Redis equals these engines, and nothing else is there.
    #[track_caller]
    pub fn settle(&self, limit: Duration, engines: &[(&str, &Engine)]) {
        oracle::settle(&self.redis, "docker", limit, || hosts(engines));
    }
}

/// What the oracle is to find of engines that are up.
pub fn hosts(engines: &[(&str, &Engine)]) -> Vec<Host> {
    let host =
        |(name, engine): &(&str, &Engine)| Host::up(name, engine.running()).at(engine.place());
    engines.iter().map(host).collect()
}

/// Waits until Redis holds this engine as the host `h`, and nothing else.
#[track_caller]
pub fn settle(redis: &Redis, engine: &Engine, limit: Duration) {
    oracle::settle(redis, "docker", limit, || hosts(&[("h", engine)]));
}

/// A fake engine on a port of its own.
#[track_caller]
pub fn engine() -> Engine {
    Engine::listen(&Place::Tcp("127.0.0.1:0".into()))
        .unwrap_or_else(|error| panic!("failed to start a fake engine: {error}"))
}

/// The same with so many containers.
#[track_caller]
pub fn engine_with(containers: usize) -> Engine {
    let engine = engine();
    for at in 0..containers {
        engine.run(Spec::named(&format!("c{at}")).image(&format!("image-{}", at % 3)));
    }
    engine
}

/// A scene of one engine, reported as `h` by an agent without handlers.
pub struct Stage {
    /// Reports `engine` as `h`.
    pub agent: Agent,
    /// Watched.
    pub engine: Engine,
    /// All notices since before the agent's start.
    pub notices: Notices,
    scene: Scene,
    interval_s: u64,
    options: Vec<String>,
}

impl Deref for Stage {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Scene {
        &mut self.scene
    }
}

impl Stage {
    /// Starts all with this interval and these further options, and waits for the first report. `furnish` puts containers into the engine before.
    #[track_caller]
    pub fn start(interval_s: u64, options: &[&str], furnish: impl FnOnce(&Engine)) -> Stage {
        let (scene, engine) = (Scene::new(), engine());
        furnish(&engine);
        let notices = Notices::of(&scene.redis, "docker_events");
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        let (from, to) = (engine.url(), scene.redis.url());
        let agent = Agent::watch_with("h", &from, &to, interval_s, &options);
        agent.wait_log("Reported", SOON);
        Stage {
            agent,
            engine,
            notices,
            scene,
            interval_s,
            options,
        }
    }

    /// Starts another agent in place of the one that ended.
    pub fn successor(&mut self) {
        let (engine, redis) = (self.engine.url(), self.redis.url());
        self.agent = Agent::watch_with("h", &engine, &redis, self.interval_s, &self.options);
    }

    /// Waits until Redis equals the engine.
    #[track_caller]
    pub fn settle(&self) {
        oracle::settle(&self.redis, "docker", SOON, || vec![self.host()]);
    }

    /// What Redis is to hold of the engine, without `--all`.
    pub fn host(&self) -> Host {
        Host::up("h", self.engine.running())
    }

    /// A field of the host's hash.
    #[track_caller]
    pub fn host_field(&self, name: &str) -> String {
        self.scene.host_field("h", name)
    }
}
