//! Memory and size.

use std::time::Duration;

use crate::stage::{Agent, Folder, Redis, binary, engine, next};
use crate::table::Table;

pub fn measure(table: &mut Table) {
    let size = std::fs::metadata(binary()).map_or(0, |data| data.len());
    table.at_most("the binary", size as f64 / 1e6, "MB", 3.0);
    for (containers, resident) in [(0, 5.0), (1_000, 7.0), (10_000, 20.0)] {
        let (now, peak) = after_some_resyncs(containers, "");
        table.at_most(
            &format!("resident, {containers} containers, quiet"),
            now,
            "MB",
            resident,
        );
        table.at_most(
            &format!("resident, {containers} containers, at its peak"),
            peak,
            "MB",
            2.0 * resident,
        );
    }
    let (plain, _) = after_some_resyncs(10_000, "");
    let (handling, _) = after_some_resyncs(10_000, "events: [{type: die, command: 'true'}]");
    table.at_most(
        "with handlers: more a container, of 10,000",
        (handling - plain) * 1000.0 / 10_000.0,
        "kB",
        3.0,
    );
}

fn after_some_resyncs(containers: usize, file: &str) -> (f64, f64) {
    let folder = Folder::new();
    let engine = engine(&folder, "docker.sock", containers);
    let redis = Redis::start();
    let notices = redis.notices(&["refresh_containers"]);
    let file = (!file.is_empty()).then(|| folder.write("events.yml", file));
    let mut arguments = vec!["--update-interval", "5s"];
    arguments.extend(file.as_ref().and_then(|path| path.to_str()));
    let agent = Agent::start(Some(&engine), Some(&redis), &arguments);
    for _ in 0..3 {
        next(&notices, "a report");
    }
    std::thread::sleep(Duration::from_millis(500));
    agent.process.memory()
}
