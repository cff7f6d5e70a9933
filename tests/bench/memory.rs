//! Memory and size.

use std::time::Duration;

use crate::engine::Engine;
use crate::kit::TempDir;
use crate::kit::redis::Redis;
use crate::stage::{Agent, Notices, binary, engine};
use crate::table::{Table, row};

pub fn measure(table: &mut Table) {
    let size = std::fs::metadata(binary()).map_or(f64::NAN, |data| data.len() as f64 / 1e6);
    table.add(row("the binary", size, "MB").at_most(3.0));
    // All at once: memory does not hang on time.
    let scenes = [
        Scene::start(0, ""),
        Scene::start(1_000, ""),
        Scene::start(10_000, ""),
        Scene::start(10_000, "events: [{type: die, command: 'true'}]"),
    ];
    for _ in 0..3 {
        scenes.iter().for_each(Scene::await_report);
    }
    std::thread::sleep(Duration::from_millis(500));
    let held = scenes.each_ref().map(|scene| scene.agent.memory());
    for (name, at, goal) in [("0", 0, 5.0), ("1,000", 1, 7.0), ("10,000", 2, 20.0)] {
        let what = |when: &str| format!("resident, {name} containers, {when}");
        table.add(row(what("quiet"), held[at].0, "MB").at_most(goal));
        table.add(row(what("at its peak"), held[at].1, "MB").at_most(2.0 * goal));
    }
    let more = (held[3].0 - held[2].0) * 1024.0 / 10_000.0;
    let what = "resident, with handlers: more a container, of 10,000";
    table.add(row(what, more, "kB").at_most(3.0));
}

struct Scene {
    agent: Agent,
    notices: Notices,
    _engine: Engine,
    _redis: Redis,
    _folder: TempDir,
}

impl Scene {
    fn start(containers: usize, file: &str) -> Scene {
        let folder = TempDir::new();
        let engine = engine(&folder, "docker.sock", containers);
        let redis = Redis::start();
        let notices = Notices::of(&redis);
        let file = (!file.is_empty()).then(|| folder.write("events.yml", file));
        let mut more = vec!["--update-interval", "4s"];
        more.extend(file.as_ref().and_then(|path| path.to_str()));
        Scene {
            agent: Agent::watch(&engine.url(), &redis.url(), &more),
            notices,
            _engine: engine,
            _redis: redis,
            _folder: folder,
        }
    }

    fn await_report(&self) {
        self.notices.until("refresh_containers");
    }
}
