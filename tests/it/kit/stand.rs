//! A fake engine, a folder, and an agent that runs an `events.yml` there, with or without a Redis: what most tests of handlers begin with.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::agent::Agent;
use super::oracle::{self, Host};
use super::redis::Redis;
use super::{TempDir, seconds, wait_until};
use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;

/// Longer than anything takes on a loaded machine.
pub const SOON: Duration = seconds(60);

/// A folder, an engine that answers there, and what commands write there.
pub struct Stand {
    /// Under the name `foo` in the files of handlers.
    pub engine: Engine,
    /// Removed with the test.
    pub folder: TempDir,
}

impl Stand {
    /// An engine without containers.
    pub fn new() -> Stand {
        let folder = TempDir::new();
        let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
        Stand { engine, folder }
    }

    /// A path below the folder, for a command.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes `events.yml` with the engine under the name `foo`; `DIR` in it is the folder.
    pub fn file(&self, entries: &str) -> String {
        let text = format!("cluster:\n  foo: {}\nevents:\n{entries}", self.engine.url());
        let text = text.replace("DIR", &self.path(""));
        self.folder.write("events.yml", &text).display().to_string()
    }

    /// Starts an agent with these entries and no cache, and waits until it listens.
    #[track_caller]
    pub fn listen(&self, entries: &str) -> Agent {
        let agent = Agent::start(&[self.file(entries), "--cache=none".into()]);
        self.wait_stream();
        agent
    }

    /// The same with a cache; `foo` is reported when this returns.
    #[track_caller]
    pub fn listen_and_report(&self, entries: &str, redis: &Redis) -> Agent {
        let agent = Agent::start(&[self.file(entries), format!("--cache={}", redis.url())]);
        self.wait_stream();
        self.settle(redis);
        agent
    }

    /// Waits until an agent listens to the engine.
    #[track_caller]
    pub fn wait_stream(&self) {
        wait_until(SOON, "the stream is open", || {
            self.engine.subscribers() == 1
        });
    }

    /// The oracle.
    #[track_caller]
    pub fn settle(&self, redis: &Redis) {
        oracle::settle(redis, "docker", SOON, || {
            vec![Host::up("foo", self.engine.running())]
        });
    }

    /// What commands wrote into a file.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The same, line by line.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// Waits until commands wrote so many lines into a file.
    #[track_caller]
    pub fn wait_lines(&self, name: &str, count: usize) -> Vec<String> {
        wait_until(SOON, &format!("`{name}` has {count} lines"), || {
            let text = self.read(name);
            match text.lines().count() >= count && text.ends_with('\n') {
                true => Ok(()),
                false => Err(text),
            }
        });
        self.lines(name)
    }

    /// One event that nothing else waits for: what comes out for it came after all that went before.
    pub fn flush(&self, file: &str) -> Vec<String> {
        let id = self.engine.run(Spec::named("flush").auto_remove());
        wait_until(SOON, "the last event was handled", || {
            self.read(file).contains("flush")
        });
        self.engine.stop(&id);
        self.lines(file)
    }
}

/// What `docker:runs` has of the starts or the ends of commands.
pub fn runs(redis: &Redis, what: &str) -> Vec<BTreeMap<String, String>> {
    let entries: Vec<(String, BTreeMap<String, String>)> =
        redis.query(&["XRANGE", "docker:runs", "-", "+"]);
    let fields = entries.into_iter().map(|(_, fields)| fields);
    fields.filter(|run| run["what"] == what).collect()
}
