//! Many engines in one agent, and many agents on one Redis.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::stage::{Agent, Folder, Redis, engine, next};
use crate::table::Table;

/// 1,000 engines of 10 containers in one process.
pub fn engines(table: &mut Table) {
    const ENGINES: usize = 1_000;
    let folder = Folder::new();
    let mut file = "cluster:\n".to_owned();
    let engines: Vec<_> = (0..ENGINES)
        .map(|number| {
            let engine = engine(&folder, &format!("{number}.sock"), 10);
            let _ = writeln!(file, "  host-{number}: {}", engine.url());
            engine
        })
        .collect();
    let file = folder.write("events.yml", &file);
    let redis = Redis::start();
    let notices = redis.notices(&["refresh_containers"]);
    let agent = Agent::start(
        None,
        Some(&redis),
        &[
            "--update-interval",
            "60s",
            file.to_str().unwrap_or_default(),
        ],
    );
    for _ in 0..ENGINES {
        next(&notices, "the first reports");
    }
    let report = agent.started.elapsed();
    // Quiet: past the first reports' echoes, before the next resyncs.
    std::thread::sleep(Duration::from_secs(5));
    let (before, start) = (agent.process.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(15));
    let quiet = (agent.process.cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    let (now, peak) = agent.process.memory();
    table.at_most("1,000 engines of 10 containers: resident", now, "MB", 128.0);
    table.at_most(
        "1,000 engines: threads",
        agent.process.threads() as f64,
        "",
        2_010.0,
    );
    table.at_most("1,000 engines, quiet: of a core", quiet * 100.0, "%", 2.0);
    table.note(format!(
        "1,000 engines: first reports within {:.1} s, {peak:.0} MB at the peak",
        report.as_secs_f64()
    ));
    drop(engines);
}

/// 100 agents of 100 containers each on one Redis.
pub fn agents(table: &mut Table) {
    let alone = cost_of(1);
    let many = cost_of(100);
    table.ratio(
        "100 agents on one Redis: its processor time an agent, beside one alone",
        (many.cpu * 1e3, "ms/min"),
        (alone.cpu * 1e3, "ms/min"),
        1.2,
    );
    table.at_most(
        "100 agents: most resyncs within a twentieth of the interval, of all",
        many.densest * 100.0,
        "%",
        20.0,
    );
}

struct Cost {
    /// Seconds of Redis's processor an agent and minute.
    cpu: f64,
    densest: f64,
}

fn cost_of(agents: usize) -> Cost {
    const INTERVAL: Duration = Duration::from_secs(10);
    let folder = Folder::new();
    let redis = Redis::start();
    let notices = redis.notices(&["refresh_containers"]);
    let engines: Vec<_> = (0..agents)
        .map(|number| engine(&folder, &format!("{number}.sock"), 100))
        .collect();
    let running: Vec<Agent> = engines
        .iter()
        .enumerate()
        .map(|(number, engine)| {
            Agent::start(
                Some(engine),
                Some(&redis),
                &[
                    "--update-interval",
                    "10s",
                    "--id",
                    &format!("host-{number}"),
                ],
            )
        })
        .collect();
    for _ in 0..2 * agents {
        next(&notices, "the first reports");
    }
    while notices.try_recv().is_ok() {}
    let (before, start) = (redis.spent(), Instant::now());
    std::thread::sleep(INTERVAL * 3);
    let (after, took) = (redis.spent(), start.elapsed());
    let mut times: Vec<Duration> = notices
        .try_iter()
        .map(|(at, _)| at.saturating_duration_since(start))
        .collect();
    times.sort_unstable();
    let window = INTERVAL / 20;
    let densest = times
        .iter()
        .map(|from| {
            times
                .iter()
                .filter(|at| *at >= from && **at < *from + window)
                .count()
        })
        .max()
        .unwrap_or(0);
    drop(running);
    Cost {
        cpu: (after.cpu - before.cpu) / agents as f64 / took.as_secs_f64() * 60.0,
        densest: densest as f64 / agents as f64,
    }
}
