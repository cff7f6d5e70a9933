//! A resync of an engine on which nothing happens.

use docker_cache::docker::document::{Masker, document};
use docker_cache::model::DEFAULT_SECRETS;

use crate::bare::Docker;
use crate::engine::Route;
use crate::kit::TempDir;
use crate::kit::redis::Redis;
use crate::stage::{Agent, Notices, Spent, engine, ids, median, timed};
use crate::table::{Table, row};

const CONTAINERS: usize = 1_000;
const ROUNDS: usize = 5;

pub fn measure(table: &mut Table) {
    let folder = TempDir::new();
    let engine = engine(&folder, "docker.sock", CONTAINERS);
    let answers = answers(&engine);
    let redis = Redis::start();
    let notices = Notices::of(&redis);
    let agent = Agent::watch(&engine.url(), &redis.url(), &["--update-interval", "3s"]);
    // The second one begins the rhythm.
    notices.until("refresh_containers");
    notices.until("refresh_containers");
    let before = Spent::of(&redis);
    let inspects = engine.requests(&Route::Inspect);
    let [mut ours, mut decoding] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        decoding.push(decode(&answers));
        let cpu = agent.cpu();
        notices.until("refresh_containers");
        ours.push(agent.cpu() - cpu);
    }
    let spent = Spent::since(&redis, before);
    let asked = engine.requests(&Route::Inspect) - inspects;
    let looked = (ROUNDS * CONTAINERS) as f64;
    let what = |of: &str| format!("quiet resync, a container: {of}");
    let commands = spent.commands / looked;
    table.add(row(what("commands to Redis"), commands, "").at_most(2.2));
    table.add(row(what("bytes to Redis"), spent.bytes / looked, "bytes").at_most(260.0));
    table.add(row(what("inspects"), asked as f64 / looked, "").at_most(1.0));
    let us = |samples: &[f64]| median(samples) * 1e6 / CONTAINERS as f64;
    table.add(
        row(what("our processor time"), us(&ours), "us")
            .beside("decoding alone", us(&decoding))
            .at_most(2.0),
    );
    let cpu = spent.cpu * 1e6 / looked;
    table.add(row(what("Redis's processor time"), cpu, "us"));
}

fn answers(engine: &crate::engine::Engine) -> Vec<Vec<u8>> {
    let mut docker = Docker::connect(engine.place());
    let ids = ids(engine);
    ids.iter().map(|id| docker.inspect(id).to_vec()).collect()
}

/// Seconds for all answers, the best of three: nothing but the processor's time.
fn decode(answers: &[Vec<u8>]) -> f64 {
    let patterns: Vec<String> = DEFAULT_SECRETS.split(',').map(str::to_owned).collect();
    let masker = Masker::new(&patterns).expect("the patterns are good");
    let all = || {
        for answer in answers {
            std::hint::black_box(document(answer, &masker).expect("an inspect"));
        }
    };
    (0..3).map(|_| timed(all)).fold(f64::MAX, f64::min)
}
