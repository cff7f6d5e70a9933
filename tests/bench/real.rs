//! The same with a real engine: what it costs to follow one, and what that costs the engine.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::bare::{self, Docker, list_and_inspect};
use crate::engine::http::Place;
use crate::kit::docker::Dockerd;
use crate::kit::redis::Redis;
use crate::kit::{http, need};
use crate::stage::{Agent, Notices, cpu, median, quantile};
use crate::table::{Table, row};

/// Of each; the engine remembers 256 events, and what they are stamped with is asked for in between.
const SAMPLES: usize = 200;
const BATCHES: usize = 5;
const REST: Duration = Duration::from_millis(5);
const RUNNING: usize = 5;
/// Created and never started: they cost a test less, and an inspect as much.
const CREATED: usize = 25;

pub fn measure(table: &mut Table) {
    if !need::dockerd() {
        table.note("skipped: rows of the real engine; they need root, dockerd, docker and a static busybox".into());
        return;
    }
    let mirrored = Real::start();
    let redis = Redis::start();
    quiet(&mirrored, &redis, table);
    latency(&mirrored, &Real::start(), &redis, table);
}

/// An engine of our own with containers.
struct Real {
    place: Place,
    ids: Vec<String>,
    pid: u32,
    _dockerd: Dockerd,
}

impl Real {
    fn start() -> Real {
        let dockerd = Dockerd::start();
        let docker = &dockerd.docker;
        let create = |_| docker.docker(&["create", "--net", "none", &docker.image, "true"]);
        let mut ids: Vec<String> = (0..CREATED).map(create).collect();
        ids.extend((0..RUNNING).map(|at| dockerd.run(&at.to_string(), &[], &[])));
        let place = docker.place();
        let Place::Unix(socket) = &place else {
            panic!("a private engine is on a unix socket");
        };
        let file = socket.parent().unwrap_or(Path::new("")).join("pid");
        let pid = std::fs::read_to_string(file).ok();
        Real {
            ids,
            pid: pid
                .and_then(|text| text.trim().parse().ok())
                .expect("dockerd's pid"),
            place,
            _dockerd: dockerd,
        }
    }

    /// Seconds of dockerd's processor for this, less what it takes anyway.
    fn cpu_of(&self, idle: f64, work: impl FnOnce()) -> f64 {
        let (before, start) = (cpu(self.pid), SystemTime::now());
        work();
        let took = start.elapsed().unwrap_or_default().as_secs_f64();
        cpu(self.pid) - before - idle * took
    }
}

/// What a resync costs dockerd when nothing happens.
fn quiet(real: &Real, redis: &Redis, table: &mut Table) {
    const ROUNDS: usize = 10;
    let rest = Duration::from_secs(3);
    let idle = real.cpu_of(0.0, || std::thread::sleep(rest)) / rest.as_secs_f64();
    let notices = Notices::of(redis);
    let [mut ours, mut asking, mut listing] = [const { Vec::new() }; 3];
    {
        let more = ["--all", "--update-interval", "1s"];
        let _agent = Agent::watch(&real.place.url(), &redis.url(), &more);
        notices.until("refresh_containers");
        notices.until("refresh_containers");
        for _ in 0..ROUNDS {
            ours.push(real.cpu_of(idle, || drop(notices.until("refresh_containers"))));
        }
    }
    redis.flush();
    for _ in 0..2 * ROUNDS {
        asking.push(real.cpu_of(idle, || list_and_inspect(&real.place, &real.ids)));
        listing.push(real.cpu_of(idle, || list_and_inspect(&real.place, &[])));
    }
    let [ours, asking, listing] =
        [ours, asking, listing].map(|all| median(&all) * 1e6 / real.ids.len() as f64);
    let what = "real engine, a quiet resync, a container: dockerd's processor time";
    table.add(row(what, ours, "us").beside("bare list and inspects", asking));
    let what = "real engine: the same for a list alone";
    table.add(row(what, listing, "us").beside("bare list and inspects", asking));
}

/// From the engine's own stamp of an event to its notice.
fn latency(mirrored: &Real, looped: &Real, redis: &Redis, table: &mut Table) {
    let notices = Notices::of(redis);
    let _agent = Agent::watch(&mirrored.place.url(), &redis.url(), &["--all"]);
    notices.until("refresh_containers");
    bare::mirror(&looped.place, redis, &looped.ids);
    let sides = [mirrored, looped];
    let mut late = [const { Vec::new() }; 2];
    for _ in 0..BATCHES {
        let mut heard = [const { Vec::new() }; 2];
        let since = SystemTime::now();
        for number in 0..SAMPLES {
            for (real, heard) in sides.iter().zip(&mut heard) {
                let id = &real.ids[number % real.ids.len()];
                http::post(
                    &real.place,
                    &format!("/containers/{id}/rename?name=n{number}"),
                );
                heard.push(notices.until(id).clock);
                // What an engine still does for one sample is not to slow down the next, which is the other's.
                std::thread::sleep(REST);
            }
        }
        for ((real, heard), late) in sides.iter().zip(heard).zip(&mut late) {
            let stamps = stamps(&real.place, since);
            assert_eq!(stamps.len(), SAMPLES, "an event for each sample");
            let one = |(heard, stamp): (SystemTime, Duration)| nanos(heard).saturating_sub(stamp);
            let all = heard.into_iter().zip(stamps).map(one);
            late.extend(all.map(|late| late.as_secs_f64() * 1e6));
        }
    }
    let [ours, bare] = late;
    for (what, part, goal) in [("median", 0.5, 1.3), ("99 of 100", 0.99, 3.0)] {
        let what = format!("event to notice, real engine, {what}");
        table.add(
            row(what, quantile(&ours, part), "us")
                .beside("bare loop", quantile(&bare, part))
                .at_most(goal),
        );
    }
}

/// The engine's stamps of all events since.
fn stamps(engine: &Place, since: SystemTime) -> Vec<Duration> {
    let stamp = |time: Duration| format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    let (since, until) = (stamp(nanos(since)), stamp(nanos(SystemTime::now())));
    let mut docker = Docker::connect(engine);
    let told = docker.get(&format!("/events?since={since}&until={until}"));
    let events = serde_json::Deserializer::from_slice(told).into_iter::<Value>();
    let nanos = events.map(|event| event.ok()?["timeNano"].as_u64());
    nanos.flatten().map(Duration::from_nanos).collect()
}

fn nanos(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
