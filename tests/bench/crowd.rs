//! Many engines in one agent, and many agents on one Redis.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::kit::TempDir;
use crate::kit::redis::Redis;
use crate::stage::{Agent, Notices, Spent, engine};
use crate::table::{Table, row};

/// 1,000 engines of 10 containers in one process.
pub fn engines(table: &mut Table) {
    const ENGINES: usize = 1_000;
    let folder = TempDir::new();
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
    let notices = Notices::of(&redis);
    let (cache, file) = (redis.url(), file.to_string_lossy());
    let agent = Agent::start(&["--cache", &cache, &file]);
    for _ in 0..ENGINES {
        notices.until("refresh_containers");
    }
    let report = agent.started.elapsed().as_secs_f64();
    // Past the first reports' echoes.
    std::thread::sleep(Duration::from_secs(4));
    let (before, start) = (agent.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let quiet = (agent.cpu() - before) / start.elapsed().as_secs_f64() * 100.0;
    let (now, peak) = agent.memory();
    let threads = agent.threads() as f64;
    let what = |of: &str| format!("1,000 engines of 10 containers: {of}");
    table.add(row(what("resident"), now, "MB").at_most(128.0));
    table.add(row(what("resident at its peak"), peak, "MB"));
    table.add(row(what("threads"), threads, "").at_most(2_010.0));
    table.add(row(what("of a core when quiet"), quiet, "%").at_most(2.0));
    table.add(row(what("all reported within"), report, "s"));
    drop(engines);
}

const INTERVAL: Duration = Duration::from_secs(10);

/// 100 agents of 100 containers each on one Redis, beside some that have one each, and one that has none: it does its housework alone.
pub fn agents(table: &mut Table) {
    const ALONE: usize = 4;
    let idle = Site::start(0);
    let alone: [Site; ALONE] = std::array::from_fn(|_| Site::start(1));
    let many = Site::start(100);
    alone.iter().for_each(Site::await_rhythm);
    many.await_rhythm();
    let sites: Vec<&Site> = [&idle, &many].into_iter().chain(&alone).collect();
    let (before, start) = (
        sites.iter().map(|site| Spent::of(&site.redis)),
        Instant::now(),
    );
    let before: Vec<Spent> = before.collect();
    many.notices.so_far();
    std::thread::sleep(INTERVAL * 2);
    let spent = sites.iter().zip(before);
    let cpu = spent.map(|(site, before)| Spent::since(&site.redis, before).cpu);
    let cpu: Vec<f64> = cpu.collect();
    let a_minute = 60.0 / start.elapsed().as_secs_f64() * 1e3;
    let of_many = (cpu[1] - cpu[0]) / 100.0 * a_minute;
    let of_one = (cpu[2..].iter().sum::<f64>() / ALONE as f64 - cpu[0]) * a_minute;
    table.add(
        row(
            "100 agents of 100 containers: Redis's processor time an agent and minute",
            of_many,
            "ms",
        )
        .beside("one agent alone", of_one)
        .at_most(1.2),
    );
    let densest = many.densest(start) * 100.0;
    let what = "100 agents: resyncs in the densest twentieth of the interval, of all";
    table.add(row(what, densest, "%").at_most(20.0));
}

/// A Redis with agents.
struct Site {
    redis: Redis,
    notices: Notices,
    agents: Vec<Agent>,
    _engines: Vec<Engine>,
    _folder: TempDir,
}

impl Site {
    fn start(agents: usize) -> Site {
        let folder = TempDir::new();
        let redis = Redis::start();
        let notices = Notices::of(&redis);
        let each = 0..agents;
        let engines: Vec<Engine> = each
            .map(|number| engine(&folder, &format!("{number}.sock"), 100))
            .collect();
        let watch = |(number, engine): (usize, &Engine)| {
            let more = [
                "--update-interval",
                "10s",
                "--id",
                &format!("host-{number}"),
            ];
            Agent::watch(&engine.url(), &redis.url(), &more)
        };
        Site {
            agents: engines.iter().enumerate().map(watch).collect(),
            redis,
            notices,
            _engines: engines,
            _folder: folder,
        }
    }

    /// The second reports begin the rhythm.
    fn await_rhythm(&self) {
        for _ in 0..2 * self.agents.len() {
            self.notices.until("refresh_containers");
        }
    }

    /// The largest part of the agents that resynced within a twentieth of the interval since then.
    fn densest(&self, start: Instant) -> f64 {
        let notices = self.notices.so_far();
        let resyncs = notices
            .iter()
            .filter(|notice| notice.text.starts_with("refresh_containers"));
        let times: Vec<Duration> = resyncs.map(|notice| notice.at - start).collect();
        let behind = |from: &Duration| {
            let window = *from..*from + INTERVAL / 20;
            times.iter().filter(|at| window.contains(at)).count()
        };
        let most = times.iter().map(behind).max().unwrap_or(0);
        most as f64 / self.agents.len() as f64
    }
}
