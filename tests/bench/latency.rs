//! From an event to the notice that a subscriber gets, its data readable.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::bare::Docker;
use crate::engine::Engine;
use crate::stage::{Agent, Folder, Redis, engine, next, quantile};
use crate::table::Table;

const SAMPLES: usize = 400;

pub fn measure(table: &mut Table) {
    let folder = Folder::new();
    let engine = engine(&folder, "docker.sock", 100);
    let redis = Redis::start();
    let mut limits = bare(&engine, &redis);
    redis.flush();
    let mut ours = agent(&engine, &redis);
    let mut row = |what: &str, part: f64, goal: f64| {
        let us = |samples: &mut [Duration]| quantile(samples, part).as_secs_f64() * 1e6;
        table.ratio(what, (us(&mut ours), "us"), (us(&mut limits), "us"), goal);
    };
    row("event to notice, fake engine, median", 0.5, 2.0);
    row("event to notice, fake engine, 99 %", 0.99, 3.0);
}

/// Changes containers one by one, and waits for the notice of each.
fn sample(engine: &Engine, mut heard: impl FnMut() -> Instant) -> Vec<Duration> {
    let ids: Vec<String> = engine.running().into_iter().collect();
    (0..SAMPLES)
        .map(|number| {
            let start = Instant::now();
            engine.update(&ids[number % ids.len()], 1_000_000 + number as u64);
            let took = heard() - start;
            // Apart, as real events are: a burst shares what it costs.
            std::thread::sleep(Duration::from_millis(2));
            took
        })
        .collect()
}

fn agent(engine: &Engine, redis: &Redis) -> Vec<Duration> {
    let notices = redis.notices(&["refresh_containers", "update_container"]);
    let _agent = Agent::start(Some(engine), Some(redis), &[]);
    next(&notices, "the first report");
    sample(engine, || next(&notices, "the notice").0)
}

/// One inspect and one round trip: the event's container is inspected, and its answer written as one hash, one string and one notice.
fn bare(engine: &Engine, redis: &Redis) -> Vec<Duration> {
    let notices = redis.notices(&["update_container"]);
    let mut connection = redis.connect();
    let mut events = Docker::connect(engine).events();
    let mut docker = Docker::connect(engine);
    let fields = fields(docker.inspect(&engine.running().into_iter().next().unwrap_or_default()));
    let (stop, stopped) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                let line = events.event();
                let Some(id) = id_of(line) else { continue };
                let json = docker.inspect(&id).to_vec();
                let key = format!("bare:containers:{id}");
                let mut pipe = redis::pipe();
                pipe.atomic()
                    .del(&key)
                    .hset_multiple(&key, &fields)
                    .expire(&key, 360);
                pipe.set_ex(format!("{key}:json"), json, 360);
                pipe.publish("docker_events", format!("update_container:bare:{id}"));
                pipe.exec(&mut connection).expect("a transaction");
            }
        });
        let samples = sample(engine, || next(&notices, "the bare loop's notice").0);
        drop(stop);
        // Frees the loop from its wait.
        engine.top(&engine.running().into_iter().next().unwrap_or_default());
        samples
    })
}

fn id_of(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, rest) = text.split_once("\"ID\":\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// About as many fields, of about the same size, as the agent writes.
fn fields(inspect: &[u8]) -> Vec<(String, String)> {
    let part = inspect.len() / 110;
    let text = String::from_utf8_lossy(inspect);
    (0..110)
        .map(|at| {
            (
                format!("hostconfig_field_{at}"),
                text.chars().skip(at * part).take(part).collect(),
            )
        })
        .collect()
}
