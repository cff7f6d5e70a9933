//! What most tests of the cache begin with: a fake engine, a Redis and an agent that reports the one to the other.

use super::agent::Agent;
use super::listen::Notices;
use super::oracle::{self, Host};
use super::redis::Redis;
use super::seconds;
use crate::engine::Engine;
use crate::engine::http::Place;

/// Far more than anything here takes, and far less than an interval of two minutes, at whose end a resync would put right what an event did not.
pub const SOON: std::time::Duration = seconds(20);

/// The host `h`, all under `docker:`.
pub struct Stage {
    /// Reports `engine` to `redis` as `h`.
    pub agent: Agent,
    /// Watched.
    pub engine: Engine,
    /// Written.
    pub redis: Redis,
    /// All notices since before the agent's start.
    pub notices: Notices,
    interval_s: u64,
    options: Vec<String>,
}

impl Stage {
    /// Starts all three with this interval and these further options, and waits for the first report. `furnish` puts containers into the engine before.
    #[track_caller]
    pub fn start(interval_s: u64, options: &[&str], furnish: impl FnOnce(&Engine)) -> Stage {
        let engine = engine();
        furnish(&engine);
        let redis = Redis::start();
        let notices = Notices::of(&redis, "docker_events");
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        let agent = Agent::watch_with("h", &engine.url(), &redis.url(), interval_s, &options);
        agent.wait_log("Reported", SOON);
        Stage {
            agent,
            engine,
            redis,
            notices,
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
        self.redis
            .query::<Option<String>>(&["HGET", "docker:hosts:h", name])
            .unwrap_or_default()
    }

    /// A field of a container's hash.
    #[track_caller]
    pub fn field(&self, id: &str, name: &str) -> String {
        let key = format!("docker:containers:{id}");
        self.redis
            .query::<Option<String>>(&["HGET", &key, name])
            .unwrap_or_default()
    }
}

/// A fake engine on a port of its own.
#[track_caller]
pub fn engine() -> Engine {
    Engine::listen(&Place::Tcp("127.0.0.1:0".into()))
        .unwrap_or_else(|error| panic!("failed to start a fake engine: {error}"))
}
