//! A Redis, fake engines and an `events.yml` whose one handler writes down what it is run for: what most tests of faults begin with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::agent::Agent;
use super::oracle::{self, Host};
use super::redis::Redis;
use super::{TempDir, wait_until};
use crate::engine::Engine;
use crate::engine::http::Place;

/// The events that the handler wants.
const TYPES: &str = "start, die, pause, unpause, rename, destroy, oom, restart";

/// What stands there; it goes with the test.
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
        let cluster: String = engines
            .iter()
            .map(|(name, url)| format!("  {name}: {url}\n"))
            .collect();
        // One write of one short line: lines of two commands never mix.
        let file = format!(
            "cluster:\n{cluster}events:\n  - name: note\n    type: {TYPES}\n    concurrency: 16\n    command: >-\n      \
             printf '%s %s %s %s\\n' \"$FROM_ENGINE\" \"$EVENT_TYPE\" \"$FROM_CONTAINER\" \"$EVENT_INFERRED\" >> {}\n",
            self.folder.join("runs").display()
        );
        let file = self.folder.write("events.yml", &file);
        let mut args = vec![format!("-cache={}", self.redis.url())];
        args.extend(options.iter().map(|option| option.to_string()));
        args.push(file.to_string_lossy().into_owned());
        Agent::start_with(&args, variables)
    }

    /// What the handler was run for, and how often: `host start web` and `host die web inferred`.
    pub fn runs(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(self.folder.join("runs")).unwrap_or_default();
        let mut runs = BTreeMap::new();
        for line in text.lines() {
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

    /// A number of a host's hash; 0 where it is not there.
    pub fn number(&self, host: &str, field: &str) -> u64 {
        let key = format!("docker:hosts:{host}");
        let found: Option<u64> = self.redis.query(&["HGET", &key, field]);
        found.unwrap_or(0)
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
