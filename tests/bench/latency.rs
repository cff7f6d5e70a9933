//! From an event to the notice that a subscriber gets, its data readable.

use std::time::{Duration, Instant};

use crate::bare;
use crate::engine::Engine;
use crate::kit::TempDir;
use crate::kit::redis::Redis;
use crate::stage::{Agent, Notices, engine, ids, quantile};
use crate::table::{Table, row};

/// Of each; the 99th hundredth has twelve above it.
const SAMPLES: usize = 1_200;

pub fn measure(table: &mut Table) {
    let folder = TempDir::new();
    let (mirrored, looped) = (
        engine(&folder, "ours.sock", 100),
        engine(&folder, "bare.sock", 100),
    );
    let redis = Redis::start();
    let notices = Notices::of(&redis);
    let _agent = Agent::watch(&mirrored.url(), &redis.url(), &[]);
    notices.until("refresh_containers");
    bare::mirror(looped.place(), &redis, &ids(&looped));
    let [mut ours, mut limits] = [const { Vec::new() }; 2];
    let all = [ids(&mirrored), ids(&looped)];
    for number in 0..SAMPLES {
        let memory = 1_000_000 + number as u64;
        let at = number % all[0].len();
        ours.push(sample(&mirrored, &all[0][at], memory, &notices));
        limits.push(sample(&looped, &all[1][at], memory, &notices));
    }
    for (what, part, goal) in [("median", 0.5, 2.0), ("99 of 100", 0.99, 3.0)] {
        let what = format!("event to notice, fake engine, {what}");
        table.add(
            row(what, quantile(&ours, part) * 1e6, "us")
                .beside("bare loop", quantile(&limits, part) * 1e6)
                .at_most(goal),
        );
    }
}

/// Changes a container and waits for its notice: seconds.
fn sample(engine: &Engine, id: &str, memory: u64, notices: &Notices) -> f64 {
    let start = Instant::now();
    engine.update(id, memory);
    let took = notices.until(id).at - start;
    // Apart, as real events are: a burst shares what it costs.
    std::thread::sleep(Duration::from_millis(2));
    took.as_secs_f64()
}
