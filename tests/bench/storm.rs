//! As many events as the engine can tell.

use std::time::{Duration, Instant};

use redis::Connection;

use crate::kit::TempDir;
use crate::kit::redis::{Redis, ask};
use crate::stage::{Agent, Notices, Spent, engine, ids, until};
use crate::table::{Table, row};

pub fn measure(table: &mut Table) {
    wanted(table);
    unwanted(table);
}

/// 40,000 events that change something: none may be dropped, and the cache must be right soon after the last.
fn wanted(table: &mut Table) {
    const EVENTS: usize = 40_000;
    let folder = TempDir::new();
    let engine = engine(&folder, "docker.sock", 300);
    let redis = Redis::start();
    let notices = Notices::of(&redis);
    let _agent = Agent::watch(&engine.url(), &redis.url(), &[]);
    notices.until("refresh_containers");
    let ids = ids(&engine);
    let before = Spent::of(&redis);
    let start = Instant::now();
    // All get the same number in a round: that of the last one is what must be there in the end.
    let rounds = EVENTS.div_ceil(ids.len());
    for round in 1..=rounds {
        ids.iter().for_each(|id| engine.update(id, round as u64));
    }
    let end = Instant::now();
    let mut connection = redis.connect();
    until("the cache is right", || {
        let is_right = |id: &String| memory(&mut connection, id) == Some(rounds);
        ids.iter().all(is_right)
    });
    let late = end.elapsed().as_secs_f64();
    let spent = Spent::since(&redis, before);
    let events = (rounds * ids.len()) as f64;
    let rate = events / (end - start).as_secs_f64();
    table.note(format!("the storm came at {rate:.0} events a second"));
    let what = |of: &str| format!("storm of 40,000 events: {of}");
    let dropped = engine.events_dropped() as f64;
    table.add(row(what("dropped by the engine"), dropped, "").at_most(0.0));
    table.add(row(what("right again after the last"), late, "s").at_most(0.5));
    let commands = spent.commands / events;
    table.add(row(what("commands to Redis an event"), commands, "").at_most(3.0));
}

fn memory(connection: &mut Connection, id: &str) -> Option<usize> {
    let key = format!("docker:containers:{id}");
    ask(connection, &["HGET", &key, "hostconfig_memory"]).expect("HGET")
}

/// Events that nobody wants, as many a second as one core takes.
fn unwanted(table: &mut Table) {
    const EVENTS: usize = 400_000;
    let folder = TempDir::new();
    let engine = engine(&folder, "docker.sock", 10);
    let redis = Redis::start();
    let notices = Notices::of(&redis);
    let agent = Agent::watch(&engine.url(), &redis.url(), &[]);
    notices.until("refresh_containers");
    // Hundreds in one piece: the engine's own cost is not what is measured.
    let piece = exec_line(&ids(&engine)[0]).repeat(200);
    let before = agent.cpu();
    for _ in 0..EVENTS / 200 {
        engine.emit_bytes(piece.clone());
    }
    let mut last = agent.cpu();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = agent.cpu();
        if now - last < 0.002 {
            break;
        }
        last = now;
    }
    let rate = EVENTS as f64 / (agent.cpu() - before);
    table.add(row("events no one wants, a second of one core", rate, "").at_least(200_000.0));
}

fn exec_line(id: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"status":"exec_start: sh -c true","id":"{id}","from":"busybox:latest","Type":"container","Action":"exec_start: sh -c true","Actor":{{"ID":"{id}","Attributes":{{"execID":"{id}","image":"busybox:latest","name":"web-1"}}}},"scope":"local","time":1700000000,"timeNano":1700000000000000000}}"#
    );
    (text + "\n").into_bytes()
}
