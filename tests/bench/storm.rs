//! As many events as the engine can tell.

use std::time::{Duration, Instant};

use crate::stage::{Agent, Folder, Redis, engine, next, until};
use crate::table::Table;

pub fn measure(table: &mut Table) {
    wanted(table);
    unwanted(table);
}

/// 40,000 events that change something: none may be dropped, and the cache must be right soon after the last.
fn wanted(table: &mut Table) {
    const EVENTS: u64 = 40_000;
    let folder = Folder::new();
    let engine = engine(&folder, "docker.sock", 300);
    let redis = Redis::start();
    let notices = redis.notices(&["refresh_containers"]);
    let _agent = Agent::start(Some(&engine), Some(&redis), &[]);
    next(&notices, "the first report");
    let ids: Vec<String> = engine.running().into_iter().collect();
    let before = redis.spent();
    let start = Instant::now();
    for number in 0..EVENTS {
        engine.update(&ids[number as usize % ids.len()], number + 1);
    }
    let end = Instant::now();
    let mut connection = redis.connect();
    let wanted: Vec<(String, u64)> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| {
            let last = (EVENTS - 1 - at as u64) / ids.len() as u64 * ids.len() as u64 + at as u64;
            (format!("docker:containers:{id}"), last + 1)
        })
        .collect();
    until("the cache is right", || {
        wanted.iter().all(|(key, memory)| {
            let value: Option<u64> = redis::cmd("HGET")
                .arg(key)
                .arg("hostconfig_memory")
                .query(&mut connection)
                .expect("HGET");
            value == Some(*memory)
        })
    });
    let late = end.elapsed();
    let after = redis.spent();
    table.at_most(
        "storm of 40,000 events: dropped by the engine",
        engine.events_dropped() as f64,
        "events",
        0.0,
    );
    table.at_most(
        "storm: right again after the last event",
        late.as_secs_f64(),
        "s",
        0.5,
    );
    table.at_most(
        "storm: commands to Redis an event",
        (after.commands - before.commands) / EVENTS as f64,
        "",
        3.0,
    );
    table.note(format!(
        "the storm came at {:.0} events a second",
        EVENTS as f64 / (end - start).as_secs_f64()
    ));
}

/// Events that nobody wants, as many a second as one core takes.
fn unwanted(table: &mut Table) {
    const EVENTS: usize = 400_000;
    let folder = Folder::new();
    let engine = engine(&folder, "docker.sock", 10);
    let redis = Redis::start();
    let notices = redis.notices(&["refresh_containers"]);
    let agent = Agent::start(Some(&engine), Some(&redis), &[]);
    next(&notices, "the first report");
    let id = engine.running().into_iter().next().unwrap_or_default();
    let line = exec_line(&id);
    // Hundreds in one piece: the engine's own cost is not what is measured.
    let piece = line.repeat(200);
    let before = agent.process.cpu();
    let start = Instant::now();
    for _ in 0..EVENTS / 200 {
        engine.emit_bytes(piece.clone());
    }
    let mut last = agent.process.cpu();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = agent.process.cpu();
        if now - last < Duration::from_millis(2) {
            break;
        }
        last = now;
    }
    let cpu = agent.process.cpu() - before;
    table.at_least(
        "events no one wants, a second of one core",
        EVENTS as f64 / cpu.as_secs_f64(),
        "",
        200_000.0,
    );
    table.note(format!(
        "they came within {:.1} s",
        start.elapsed().as_secs_f64()
    ));
}

fn exec_line(id: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"status":"exec_start: sh -c true","id":"{id}","from":"busybox:latest","Type":"container","Action":"exec_start: sh -c true","Actor":{{"ID":"{id}","Attributes":{{"execID":"{id}","image":"busybox:latest","name":"web-1"}}}},"scope":"local","time":1700000000,"timeNano":1700000000000000000}}"#
    );
    (text + "\n").into_bytes()
}
