//! The first full report, and the one after a flush.

use crate::bare::{Docker, list_and_inspect};
use crate::engine::Engine;
use crate::kit::TempDir;
use crate::kit::redis::Redis;
use crate::recorder::{Recorder, pipeline};
use crate::stage::{Agent, Notices, engine, ids, median, timed};
use crate::table::{Table, row};

/// 1,000 and 10,000 containers, from exec to `refresh_containers`.
pub fn measure(table: &mut Table) {
    let small = compare(1_000, 9, 0);
    let large = compare(10_000, 3, 2);
    table.note(format!(
        "the fake engine answers {:.0} inspects a second to a bare client, each of {} bytes",
        1_000.0 / small.asking,
        small.inspect_bytes
    ));
    for (name, took) in [("1,000", &small), ("10,000", &large)] {
        let what = format!("first report of {name} containers");
        table.add(
            row(what, took.report, "s")
                .beside("bare loop", took.limit)
                .at_most(1.3),
        );
    }
    table.add(
        row(
            "first report, a container: of 10,000",
            large.report * 1e2,
            "us",
        )
        .beside("of 1,000", small.report * 1e3)
        .at_most(1.2),
    );
    table.add(
        row(
            "10,000 containers again after FLUSHALL, from notice",
            large.refill,
            "s",
        )
        .beside("first report", large.report)
        .at_most(1.5),
    );
}

/// Seconds, each a median.
struct Took {
    report: f64,
    refill: f64,
    limit: f64,
    asking: f64,
    inspect_bytes: usize,
}

/// So many reports, and so many after a flush.
fn compare(containers: usize, times: usize, refill_times: usize) -> Took {
    let folder = TempDir::new();
    let engine = engine(&folder, "docker.sock", containers);
    let ids = ids(&engine);
    let redis = Redis::start();
    let bytes = recorded(&engine, &redis);
    let [mut reports, mut refills, mut limits, mut asking] = [const { Vec::new() }; 4];
    // In turns, so that a noisy minute spoils both alike.
    for _ in 0..times {
        redis.flush();
        let (report, refill) = report_twice(&engine, &redis, refills.len() < refill_times);
        reports.push(report);
        refills.extend(refill);
        redis.flush();
        asking.push(timed(|| list_and_inspect(engine.place(), &ids)));
        limits.push(asking[asking.len() - 1] + pipeline(&redis, &bytes));
    }
    Took {
        report: median(&reports),
        refill: median(&refills),
        limit: median(&limits),
        asking: median(&asking),
        inspect_bytes: Docker::connect(engine.place()).inspect(&ids[0]).len(),
    }
}

/// What an agent says to Redis for its first report.
fn recorded(engine: &Engine, redis: &Redis) -> Vec<u8> {
    let recorder = Recorder::before(redis);
    let notices = Notices::of(redis);
    let _agent = Agent::watch(&engine.url(), &recorder.url, &[]);
    notices.until("refresh_containers");
    recorder.said()
}

/// Seconds from exec to the first report, and those for another after a flush if that is wanted.
fn report_twice(engine: &Engine, redis: &Redis, again: bool) -> (f64, Option<f64>) {
    let notices = Notices::of(redis);
    let agent = Agent::watch(&engine.url(), &redis.url(), &[]);
    let report = notices.until("refresh_containers").at - agent.started;
    let refill = again.then(|| {
        redis.flush();
        // The heartbeat notices it; the host is taken anew then.
        let begun = notices.until("new_host").at;
        let ended = notices.until("refresh_containers").at;
        (ended - begun).as_secs_f64()
    });
    (report.as_secs_f64(), refill)
}
