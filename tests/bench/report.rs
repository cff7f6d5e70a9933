//! The first full report, and the one after a flush.

use std::time::{Duration, Instant};

use crate::bare::{Docker, Recorder, pipeline};
use crate::stage::{Agent, Folder, Redis, engine, next, quantile};
use crate::table::Table;

/// 1,000 and 10,000 containers, from exec to `refresh_containers`.
pub fn measure(table: &mut Table) {
    let mut per_container = Vec::new();
    for (containers, times) in [(1_000, 5), (10_000, 3)] {
        let folder = Folder::new();
        let engine = engine(&folder, "docker.sock", containers);
        let redis = Redis::start();
        let bytes = recorded(&engine, &redis);
        let mut reports = Vec::new();
        let mut limits = Vec::new();
        let mut refills = Vec::new();
        // In turns, so that a noisy minute spoils both alike.
        for _ in 0..times {
            redis.flush();
            let (report, refill) = first_report(&engine, &redis);
            reports.push(report);
            refills.push(refill);
            redis.flush();
            limits.push(loop_over(&engine) + pipeline(&redis, &bytes));
        }
        let (ours, limit) = (
            quantile(&mut reports, 0.5).as_secs_f64(),
            quantile(&mut limits, 0.5).as_secs_f64(),
        );
        per_container.push(ours / containers as f64);
        table.ratio(
            &format!("first report of {containers} containers"),
            (ours, "s"),
            (limit, "s"),
            1.3,
        );
        if containers == 10_000 {
            let refill = quantile(&mut refills, 0.5).as_secs_f64();
            table.ratio(
                "10,000 containers again after FLUSHALL, from notice, beside the first report",
                (refill, "s"),
                (ours, "s"),
                1.5,
            );
        }
        if containers == 1_000 {
            let rate = containers as f64 / quantile(&mut engine_alone(&engine), 0.5).as_secs_f64();
            table.note(format!("the fake engine answers {rate:.0} inspects a second to a bare client, each of {} bytes", size_of_inspect(&engine)));
        }
    }
    table.ratio(
        "time a container: 10,000 beside 1,000",
        (per_container[1] * 1e6, "us"),
        (per_container[0] * 1e6, "us"),
        1.2,
    );
}

/// What an agent says to Redis for its first report.
fn recorded(engine: &crate::engine::Engine, redis: &Redis) -> Vec<u8> {
    let recorder = Recorder::before(redis);
    let notices = redis.notices(&["refresh_containers"]);
    let _agent = Agent::start(Some(engine), None, &["--cache", &recorder.url]);
    next(&notices, "the first report");
    recorder.said()
}

fn first_report(engine: &crate::engine::Engine, redis: &Redis) -> (Duration, Duration) {
    let notices = redis.notices(&["refresh_containers", "new_host"]);
    let agent = Agent::start(Some(engine), Some(redis), &[]);
    let (at, _) = until_refresh(&notices);
    let report = at - agent.started;
    redis.flush();
    // It is noticed by the heartbeat; the host is taken anew then.
    let begun = next(&notices, "the flush is noticed").0;
    let (at, _) = until_refresh(&notices);
    (report, at.saturating_duration_since(begun))
}

fn until_refresh(notices: &std::sync::mpsc::Receiver<(Instant, String)>) -> (Instant, String) {
    loop {
        let notice = next(notices, "a full report");
        if notice.1.starts_with("refresh_containers") {
            return notice;
        }
    }
}

/// Connects, lists, inspects each.
fn loop_over(engine: &crate::engine::Engine) -> Duration {
    let ids = engine.running();
    let start = Instant::now();
    let mut docker = Docker::connect(engine);
    docker.get("/containers/json");
    for id in &ids {
        docker.inspect(id);
    }
    start.elapsed()
}

fn engine_alone(engine: &crate::engine::Engine) -> Vec<Duration> {
    (0..3).map(|_| loop_over(engine)).collect()
}

fn size_of_inspect(engine: &crate::engine::Engine) -> usize {
    let id = engine.running().into_iter().next().unwrap_or_default();
    Docker::connect(engine).inspect(&id).len()
}
