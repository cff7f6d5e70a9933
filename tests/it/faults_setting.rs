//! What the tests of faults on the store's side share: one engine that is the fake, one Redis, one agent between them.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::agent::Agent;
use crate::kit::oracle::{self, Host};
use crate::kit::redis::Redis;
use crate::kit::{TempDir, wait_until};

/// The host id of every agent here that is alone.
pub const HOST: &str = "h";

/// A fake engine on a port of its own.
pub fn engine() -> Engine {
    Engine::listen(&Place::Tcp("127.0.0.1:0".into()))
        .unwrap_or_else(|error| panic!("failed to start a fake engine: {error}"))
}

/// A fake engine with so many containers.
pub fn engine_with(containers: usize) -> Engine {
    let engine = engine();
    for at in 0..containers {
        engine.run(Spec::named(&format!("c{at}")).image(&format!("image-{}", at % 3)));
    }
    engine
}

/// The agent of `HOST`, with more arguments.
pub fn agent(docker: &str, cache: &str, more: &[&str]) -> Agent {
    let mut args = vec![
        format!("-id={HOST}"),
        format!("-docker={docker}"),
        format!("-cache={cache}"),
    ];
    args.extend(more.iter().map(|arg| arg.to_string()));
    Agent::start(&args)
}

/// Waits until Redis holds what the engine runs, under `HOST` and nothing else.
#[track_caller]
pub fn settle(redis: &Redis, engine: &Engine, limit: Duration) {
    oracle::settle(redis, "docker", limit, || {
        vec![Host::up(HOST, engine.running()).at(engine.place())]
    });
}

/// Handlers that write what they are told, a line an event: `die <container id> <inferred>`.
pub struct Diary {
    folder: TempDir,
    /// The `events.yml` to give to the agent.
    pub config: PathBuf,
}

impl Diary {
    /// Of these types of events, `*` for all.
    pub fn of(types: &str) -> Diary {
        let folder = TempDir::new();
        let path = folder.join("diary");
        let config = folder.write(
            "events.yml",
            &format!(
                "events:\n  - name: diary\n    type: \"{types}\"\n    command: echo \"$EVENT_TYPE $FROM_CONTAINER_ID $EVENT_INFERRED\" >> {}\n",
                path.display()
            ),
        );
        Diary { folder, config }
    }

    /// All that was written.
    pub fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("diary")).unwrap_or_default();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// Waits until so many lines are written.
    #[track_caller]
    pub fn wait_lines(&self, count: usize, limit: Duration) {
        wait_until(limit, &format!("{count} handlers ran"), || {
            let lines = self.lines();
            (lines.len() >= count)
                .then_some(())
                .ok_or(format!("{} ran", lines.len()))
        });
    }

    /// As an argument.
    pub fn arg(&self) -> String {
        self.config.display().to_string()
    }
}
