//! Redis is killed, emptied, set back, frozen, replaced; its answers get lost; somebody writes into its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis::Value;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::faults_setting::{Diary, HOST, agent, engine, engine_with, settle};
use crate::kit::need::need;
use crate::kit::proxy::{Proxy, Way};
use crate::kit::redis::Redis;
use crate::kit::{seconds, wait_until};

/// A machine whose two cores are busy is so much slower than a quiet one.
const BUSY: u32 = 5;

/// Changes containers in all ways that leave traces: some go, some come, one gets another name.
fn change(engine: &Engine, round: usize) {
    let running: Vec<String> = engine.running().into_iter().collect();
    engine.kill(&running[0], 9);
    engine.destroy(&running[0]);
    engine.rename(&running[1], &format!("renamed-{round}"));
    engine.run(Spec::named(&format!("new-{round}")).image(&format!("new-{round}")));
}

/// One handler more runs: all that happened before had its chance to start one.
#[track_caller]
fn assert_no_other_handler_ran(diary: &Diary, engine: &Engine, before: &[String]) {
    let id = engine.run(Spec::named("last"));
    diary.wait_lines(before.len() + 1, seconds(30));
    let now = diary.lines();
    assert_eq!(now[before.len()..], [format!("start {id}")]);
}

#[test]
fn fault_14_a_redis_that_comes_back_empty_is_filled_within_a_second_of_the_reconnect() {
    need!(redis);
    let engine = engine_with(30);
    let mut redis = Redis::start();
    let diary = Diary::of("start, die");
    let agent = agent(
        &engine.url(),
        &redis.url(),
        &["-updateInterval=60s", &diary.arg()],
    );
    settle(&redis, &engine, seconds(30));
    let before = diary.lines();
    for round in 1..4 {
        // Lists are a second apart, whatever happens; the last one shall not stand in the way.
        wait_until(seconds(10), "the last list is two seconds ago", || {
            let now: (u64, u64) = redis.query(&["TIME"]);
            let last: u64 = redis.query(&["HGET", "docker:hosts:h", "last_update"]);
            now.0 >= last + 2
        });
        redis.kill9();
        redis.restart_empty();
        wait_until(seconds(10), "the agent connects again", || {
            agent.log().matches("the Cache answers again").count() == round
        });
        let began = Instant::now();
        settle(&redis, &engine, seconds(1) * BUSY);
        println!(
            "round {round}: filled {:?} after the reconnect",
            began.elapsed()
        );
    }
    assert_no_other_handler_ran(&diary, &engine, &before);
    settle(&redis, &engine, seconds(10));
}

#[test]
fn fault_14_a_redis_that_comes_back_with_an_old_dump_is_put_right_and_no_handler_runs_for_it() {
    need!(redis);
    let engine = engine_with(12);
    let mut redis = Redis::start();
    let diary = Diary::of("start, die");
    let _agent = agent(
        &engine.url(),
        &redis.url(),
        &["-updateInterval=60s", &diary.arg()],
    );
    settle(&redis, &engine, seconds(30));
    redis.save();
    change(&engine, 0);
    diary.wait_lines(2, seconds(30));
    settle(&redis, &engine, seconds(10));
    redis.kill9();
    // What happens while it is away reaches the handlers, and Redis later.
    change(&engine, 1);
    diary.wait_lines(4, seconds(30));
    let before = diary.lines();
    redis.restart();
    let began = Instant::now();
    settle(&redis, &engine, seconds(2) * BUSY);
    println!("put right {:?} after the start", began.elapsed());
    assert_no_other_handler_ran(&diary, &engine, &before);
    settle(&redis, &engine, seconds(10));
}

#[test]
fn fault_14_a_flush_while_nothing_happens_is_noticed_by_the_heartbeat_and_healed_within_5_s() {
    need!(redis);
    let engine = engine_with(12);
    let redis = Redis::start();
    let diary = Diary::of("*");
    let agent = agent(
        &engine.url(),
        &redis.url(),
        &["-updateInterval=60s", &diary.arg()],
    );
    settle(&redis, &engine, seconds(30));
    for flush in ["FLUSHALL", "FLUSHDB"] {
        redis.query::<()>(&[flush]);
        let began = Instant::now();
        settle(&redis, &engine, seconds(5) * BUSY);
        println!("{flush}: healed after {:?}", began.elapsed());
    }
    assert_eq!(diary.lines(), [""; 0]);
    assert!(agent.log().contains("the Cache has lost host `h`"));
}

/// Keys and members of a host's own, and what somebody does to them. CID is a container that runs, NAME its name.
const OWN: [&str; 16] = [
    "DEL docker:containers:CID",
    "DEL docker:containers:CID:json",
    "DEL docker:containers:CID docker:containers:CID:json",
    "SREM docker:hosts:h:containers CID",
    "SADD docker:hosts:h:containers ghost",
    "SADD docker:hosts:h:stopped CID",
    "SADD docker:hosts:h:stopped ghost",
    "HDEL docker:hosts:h:names NAME",
    "HSET docker:hosts:h:names foreign CID",
    "HSET docker:hosts:h:names NAME ghost",
    "HDEL docker:hosts:h:manifest CID",
    "HSET docker:hosts:h:manifest ghost busybox",
    "DEL docker:hosts:h:containers",
    "DEL docker:hosts:h:names docker:hosts:h:manifest",
    "DEL docker:hosts:h",
    "SREM docker:hosts h",
];

/// The same of shared sets.
const SHARED: [&str; 10] = [
    "SREM docker:containers CID",
    "SADD docker:containers ghost",
    "DEL docker:containers",
    "SREM docker:images image-1",
    "SADD docker:images ghost",
    "DEL docker:images:image-1:hosts",
    "DEL docker:images:image-1:containers",
    "SADD docker:images:ghost:hosts h",
    "SADD docker:images:image-1:containers ghost",
    "SADD docker:hosts ghost",
];

/// Does one thing to Redis by hand.
fn meddle(redis: &Redis, line: &str, id: &str) {
    let name: String = redis.query(&["HGET", &format!("docker:containers:{id}"), "name"]);
    let line = line
        .replace("CID", id)
        .replace("NAME", name.trim_start_matches('/'));
    redis.query::<Value>(&line.split(' ').collect::<Vec<_>>());
}

#[test]
fn fault_14_what_somebody_did_to_a_hosts_own_keys_is_put_right_within_an_interval() {
    need!(redis);
    let engine = engine_with(6);
    let redis = Redis::start();
    let diary = Diary::of("*");
    let _agent = agent(
        &engine.url(),
        &redis.url(),
        &["-updateInterval=1s", &diary.arg()],
    );
    settle(&redis, &engine, seconds(30));
    let id = engine.running().into_iter().next().unwrap_or_default();
    for line in OWN {
        meddle(&redis, line, &id);
        let began = Instant::now();
        settle(&redis, &engine, seconds(1) * 2 * BUSY);
        println!("{line}: right after {:?}", began.elapsed());
    }
    assert_eq!(diary.lines(), [""; 0]);
}

#[test]
fn fault_14_what_somebody_did_to_shared_sets_is_put_right_within_ten_intervals() {
    need!(redis);
    let engine = engine_with(6);
    let redis = Redis::start();
    let diary = Diary::of("*");
    let _agent = agent(
        &engine.url(),
        &redis.url(),
        &["-updateInterval=1s", &diary.arg()],
    );
    settle(&redis, &engine, seconds(30));
    let id = engine.running().into_iter().next().unwrap_or_default();
    // All at once: ten intervals are long.
    for line in SHARED {
        meddle(&redis, line, &id);
    }
    let began = Instant::now();
    settle(&redis, &engine, seconds(10) * BUSY);
    println!("right after {:?}", began.elapsed());
    assert_eq!(diary.lines(), [""; 0]);
}

/// Every value that stands under a container's id is that container's.
fn check_values(redis: &Redis, engine: &Engine) {
    for id in engine.running() {
        let key = format!("docker:containers:{id}");
        let hash: BTreeMap<String, String> = redis.query(&["HGETALL", &key]);
        assert_eq!(hash.get("id"), Some(&id));
        let json: String = redis.query(&["GET", &format!("{key}:json")]);
        let json: serde_json::Value =
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("{key}:json: {error}"));
        assert_eq!(json["Id"], *id);
    }
}

#[test]
fn fault_15_a_redis_frozen_within_a_report_of_1000_containers_holds_the_writer_for_one_deadline() {
    need!(redis);
    let engine = engine_with(1000);
    let mut redis = Redis::start();
    let agent = agent(&engine.url(), &redis.url(), &["-updateInterval=60s"]);
    let mut connection = redis.connect();
    wait_until(seconds(60), "the report is under way", || {
        crate::kit::redis::ask::<usize>(&mut connection, &["DBSIZE"]).is_ok_and(|size| size > 150)
    });
    redis.freeze();
    let frozen = Instant::now();
    agent.wait_log(
        "no answer in time; is Redis overloaded or stopped?",
        seconds(20),
    );
    let held = frozen.elapsed();
    println!("the writer was back after {held:?}");
    assert!(
        held < seconds(9),
        "one deadline is 5 s, but it took {held:?}"
    );
    redis.thaw();
    let size: usize = redis.query(&["DBSIZE"]);
    assert!(size < 1900, "the report was over before Redis was frozen");
    settle(&redis, &engine, seconds(60));
    check_values(&redis, &engine);
}

#[test]
fn fault_15_after_a_write_that_broke_off_in_the_middle_the_connection_is_not_used_again() {
    need!(redis);
    let engine = engine_with(10);
    let redis = Redis::start();
    let proxy = Proxy::tcp(&redis.url());
    let agent = agent(&engine.url(), &proxy.redis_url(), &["-updateInterval=60s"]);
    settle(&redis, &engine, seconds(30));
    // Larger than all that sockets hold on the way: the write itself does not come to its end.
    proxy.stall(Way::Requests, true);
    let large = "x".repeat(9 << 20);
    engine.run(Spec::named("large").label("large", &large));
    engine.rename(
        &engine.running().into_iter().next().unwrap_or_default(),
        "b",
    );
    agent.wait_log(
        "no answer in time; is Redis overloaded or stopped?",
        seconds(30),
    );
    proxy.stall(Way::Requests, false);
    settle(&redis, &engine, seconds(60));
    check_values(&redis, &engine);
    assert!(proxy.accepted() >= 2);
}

/// All entries of the stream of events, without their ids.
fn stream(redis: &Redis) -> Vec<BTreeMap<String, String>> {
    let entries: Vec<(String, BTreeMap<String, String>)> =
        redis.query(&["XRANGE", "docker:events", "-", "+"]);
    entries.into_iter().map(|(_, fields)| fields).collect()
}

#[test]
fn fault_17_an_answer_that_is_lost_after_the_transaction_ran_leaves_no_entry_twice() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let proxy = Proxy::tcp(&redis.url());
    let agent = agent(&engine.url(), &proxy.redis_url(), &["-updateInterval=2s"]);
    settle(&redis, &engine, seconds(30));
    let published = engine.events_published();
    let mut lost = 0;
    for round in 0..30 {
        // The answer to one of the next transactions is cut off: at its first byte, in its middle, or just behind it.
        proxy.cut_after(
            Way::Replies,
            [0, 1, 20, 60, 100, 150, 400, 900, 2000][round % 9],
        );
        let accepted = proxy.accepted();
        change(&engine, round);
        wait_until(seconds(30), "the agent connects again", || {
            proxy.accepted() > accepted
        });
        lost += 1;
    }
    for round in 30..36 {
        // All of it is lost, and the connection stays open for a moment.
        proxy.lose(Way::Replies, true);
        let (before, accepted) = (stream(&redis).len(), proxy.accepted());
        change(&engine, round);
        // Should the answer to a heartbeat be the lost one, the agent gives up after 5 s and connects anew.
        wait_until(seconds(30), "a transaction ran", || {
            stream(&redis).len() > before || proxy.accepted() > accepted
        });
        proxy.cut();
        proxy.lose(Way::Replies, false);
        lost += 1;
    }
    // An image that lost its last host leaves the shared set with the next sweep, where the answer before was the lost one.
    settle(&redis, &engine, seconds(20) * BUSY);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for entry in stream(&redis) {
        assert_ne!(entry["action"], "gap", "{entry:?}");
        let key = format!("{} {} {}", entry["time"], entry["action"], entry["id"]);
        *seen.entry(key).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!(twice, [], "{}", agent.log());
    assert_eq!(seen.len() as u64, engine.events_published() - published);
    println!("{lost} answers lost, {} entries, none twice", seen.len());
}

#[test]
fn fault_17_an_answer_that_is_lost_and_then_the_lease_leave_no_entry_twice() {
    need!(redis);
    let engine = engine_with(5);
    let redis = Redis::start();
    let proxy = Proxy::tcp(&redis.url());
    let agent = agent(&engine.url(), &proxy.redis_url(), &["-updateInterval=60s"]);
    settle(&redis, &engine, seconds(30));
    let published = engine.events_published();
    for round in 0..5 {
        proxy.lose(Way::Replies, true);
        let (before, accepted) = (stream(&redis).len(), proxy.accepted());
        change(&engine, round);
        wait_until(seconds(30), "a transaction ran", || {
            stream(&redis).len() > before || proxy.accepted() > accepted
        });
        // As after ten seconds without a way to Redis.
        proxy.refuse(true);
        proxy.cut();
        redis.query::<()>(&["DEL", "docker:hosts:h:lease"]);
        proxy.lose(Way::Replies, false);
        proxy.refuse(false);
        settle(&redis, &engine, seconds(30));
    }
    let entries = stream(&redis);
    let seen: BTreeSet<String> = entries
        .iter()
        .map(|entry| format!("{} {} {}", entry["time"], entry["action"], entry["id"]))
        .collect();
    assert_eq!(seen.len(), entries.len(), "{}", agent.log());
    assert_eq!(seen.len() as u64, engine.events_published() - published);
}

#[test]
fn fault_18_a_failover_to_a_replica_that_missed_the_last_writes_is_healed() {
    need!(redis);
    let engine = engine_with(20);
    let mut master = Redis::start();
    let replica = Redis::start();
    let wire = Proxy::tcp(&master.url());
    let proxy = Proxy::tcp(&master.url());
    let port = wire.redis_url();
    let port = port.rsplit(':').next().unwrap_or_default();
    replica.query::<()>(&["REPLICAOF", "127.0.0.1", port]);
    let diary = Diary::of("start, die");
    let agent = agent(
        &engine.url(),
        &proxy.redis_url(),
        &["-updateInterval=60s", &diary.arg()],
    );
    settle(&master, &engine, seconds(30));
    wait_until(seconds(30), "the replica has followed", || {
        replica.keys("docker:containers:") == master.keys("docker:containers:")
    });
    wire.stall(Way::Replies, true);
    change(&engine, 0);
    settle(&master, &engine, seconds(30));
    assert_ne!(
        replica.keys("docker:containers:"),
        master.keys("docker:containers:"),
        "the replica missed nothing"
    );
    diary.wait_lines(2, seconds(30));
    master.kill9();
    // First it is still a replica, then the new master.
    proxy.lead_to(&replica.url());
    proxy.cut();
    agent.wait_log("READONLY", seconds(30));
    let before = diary.lines();
    replica.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    let began = Instant::now();
    settle(&replica, &engine, seconds(3) * BUSY);
    println!("healed {:?} after the promotion", began.elapsed());
    assert_no_other_handler_ran(&diary, &engine, &before);
    settle(&replica, &engine, seconds(10));
    let hosts: BTreeSet<String> = replica.query(&["SMEMBERS", "docker:hosts"]);
    assert_eq!(hosts, BTreeSet::from([HOST.to_owned()]));
}

#[test]
fn fault_18_a_master_that_is_set_back_without_a_broken_connection_is_noticed_by_the_heartbeat() {
    need!(redis);
    let engine = engine();
    engine.run(Spec::named("a"));
    let redis = Redis::start();
    let agent = agent(&engine.url(), &redis.url(), &["-updateInterval=60s"]);
    settle(&redis, &engine, seconds(30));
    let lease = "docker:hosts:h:lease";
    let old: String = redis.query(&["GET", lease]);
    change_one(&redis, &engine);
    // An older state of everything: what came later is gone, the lease has the value that it had then.
    let newest = engine.running().into_iter().find(|id| {
        redis.query::<Option<String>>(&["HGET", &format!("docker:containers:{id}"), "name"])
            == Some("/later".into())
    });
    let key = format!("docker:containers:{}", newest.unwrap_or_default());
    redis.query::<()>(&["DEL", &key, &format!("{key}:json")]);
    redis.query::<()>(&["SET", lease, &old, "PX", "10000"]);
    agent.wait_log("the Cache has lost host `h`", Duration::from_secs(10));
    settle(&redis, &engine, seconds(3) * BUSY);
}

fn change_one(redis: &Redis, engine: &Engine) {
    engine.run(Spec::named("later"));
    settle(redis, engine, seconds(30));
}
