//! A resync of an engine on which nothing happens.

use std::time::{Duration, Instant};

use docker_cache::docker::document::{Masker, document};
use docker_cache::model::DEFAULT_SECRETS;

use crate::bare::Docker;
use crate::stage::{Agent, Folder, Redis, engine, next};
use crate::table::Table;

const CONTAINERS: usize = 1_000;

pub fn measure(table: &mut Table) {
    let folder = Folder::new();
    let engine = engine(&folder, "docker.sock", CONTAINERS);
    let redis = Redis::start();
    let notices = redis.notices(&["refresh_containers"]);
    let agent = Agent::start(Some(&engine), Some(&redis), &["--update-interval", "4s"]);
    // The second one begins the rhythm.
    next(&notices, "the first report");
    next(&notices, "the first resync");
    let (before, cpu_before) = (redis.spent(), agent.process.cpu());
    let inspects = engine.requests(&crate::engine::Route::Inspect);
    const ROUNDS: usize = 5;
    for _ in 0..ROUNDS {
        next(&notices, "a resync");
    }
    let (after, cpu) = (redis.spent(), agent.process.cpu() - cpu_before);
    let asked = engine.requests(&crate::engine::Route::Inspect) - inspects;
    let looked = (ROUNDS * CONTAINERS) as f64;
    table.at_most(
        "quiet resync, a container: commands to Redis",
        (after.commands - before.commands) / looked,
        "",
        2.2,
    );
    table.at_most(
        "quiet resync, a container: bytes to Redis",
        (after.bytes - before.bytes) / looked,
        "bytes",
        260.0,
    );
    table.at_most(
        "quiet resync: inspects a container",
        asked as f64 / looked,
        "",
        1.0,
    );
    let decoding = decoding_alone(&engine).as_secs_f64() * 1e6 / CONTAINERS as f64;
    table.ratio(
        "quiet resync, a container: our processor time, beside decoding alone",
        (cpu.as_secs_f64() * 1e6 / looked, "us"),
        (decoding, "us"),
        2.0,
    );
    table.note(format!(
        "quiet resync: Redis spends {:.1} us of its processor a container",
        (after.cpu - before.cpu) * 1e6 / looked
    ));
}

/// The answers of all containers, decoded once.
fn decoding_alone(engine: &crate::engine::Engine) -> Duration {
    let mut docker = Docker::connect(engine);
    let answers: Vec<Vec<u8>> = engine
        .running()
        .iter()
        .map(|id| docker.inspect(id).to_vec())
        .collect();
    let patterns: Vec<String> = DEFAULT_SECRETS.split(',').map(str::to_owned).collect();
    let masker = Masker::new(&patterns).expect("the patterns are good");
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for answer in &answers {
            std::hint::black_box(document(answer, &masker).expect("an inspect"));
        }
        best = best.min(start.elapsed());
    }
    best
}
