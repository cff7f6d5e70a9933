//! Redis is killed, emptied, set back, frozen, replaced; its answers get lost; somebody writes into its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis::Value;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::listen::Notices;
use crate::kit::need::need;
use crate::kit::oracle;
use crate::kit::proxy::{Proxy, Way};
use crate::kit::redis::{Redis, ask};
use crate::kit::scene::{SOON, Scene, engine_with, hosts, settle};
use crate::kit::{seconds, wait_until};

/// An engine with so many containers, reported as `h`. Only what the store is told by itself can heal it: no resync comes.
fn begin(containers: usize) -> (Scene, Engine, Agent) {
    let (scene, engine) = (Scene::new(), engine_with(containers));
    let agent = scene.report(&engine, &[]);
    (scene, engine, agent)
}

/// The same, by a wire.
fn begin_by_wire(containers: usize, interval: &str) -> (Scene, Engine, Proxy, Agent) {
    let (scene, engine) = (Scene::new(), engine_with(containers));
    let proxy = Proxy::tcp(&scene.redis.url());
    let interval = format!("-updateInterval={interval}");
    let named = [("h", &*engine.url())];
    let agent = scene.watch_through(&proxy.redis_url(), &named, &[&interval], &[]);
    settle(&scene.redis, &engine, SOON);
    (scene, engine, proxy, agent)
}

/// Changes containers in all ways that leave traces: some go, some come, one gets another name. Handlers run for four of it.
fn change(engine: &Engine, round: usize) {
    let running: Vec<String> = engine.running().into_iter().collect();
    engine.kill(&running[0], 9);
    engine.destroy(&running[0]);
    engine.rename(&running[1], &format!("renamed-{round}"));
    engine.run(Spec::named(&format!("new-{round}")).image(&format!("new-{round}")));
}

/// Waits until handlers ran for so much.
#[track_caller]
fn wait_runs(scene: &Scene, count: usize) {
    wait_until(SOON, &format!("{count} handlers ran"), || {
        let runs = scene.runs();
        let ran: usize = runs.values().sum();
        (ran >= count).then_some(()).ok_or(format!("{runs:?}"))
    });
}

/// One handler more runs: all that happened before had its chance to start one.
#[track_caller]
fn assert_no_other_handler_ran(
    scene: &Scene,
    engine: &Engine,
    mut before: BTreeMap<String, usize>,
) {
    engine.run(Spec::named("last"));
    before.insert("h start last".into(), 1);
    wait_runs(scene, before.values().sum());
    assert_eq!(scene.runs(), before);
    settle(&scene.redis, engine, SOON);
}

/// Waits until all is right, and answers how long that took.
#[track_caller]
fn healed(redis: &Redis, engine: &Engine) -> Duration {
    let began = Instant::now();
    settle(redis, engine, SOON);
    began.elapsed()
}

#[test]
fn timed_fault_14_a_redis_that_comes_back_empty_is_filled_within_a_second_of_the_reconnect() {
    need!(redis);
    let (mut scene, engine, agent) = begin(30);
    for round in 1..4 {
        // Lists are a second apart, whatever happens; the last one shall not stand in the way.
        wait_until(SOON, "the last list is two seconds ago", || {
            let now: (u64, u64) = scene.redis.query(&["TIME"]);
            now.0 >= scene.number("h", "last_update") + 2
        });
        let told = agent.log().len();
        scene.redis.kill9();
        scene.redis.restart_empty();
        agent.wait_log_from(told, "the Cache answers again", SOON);
        let took = healed(&scene.redis, &engine);
        println!("round {round}: filled {took:?} after the reconnect");
        assert!(took < seconds(1), "{took:?}");
    }
    assert_no_other_handler_ran(&scene, &engine, BTreeMap::new());
}

#[test]
fn timed_fault_14_a_redis_that_comes_back_with_an_old_dump_is_put_right_and_no_handler_runs_for_it()
{
    need!(redis);
    let (mut scene, engine, agent) = begin(12);
    scene.redis.save();
    change(&engine, 0);
    wait_runs(&scene, 4);
    settle(&scene.redis, &engine, SOON);
    scene.redis.kill9();
    // What happens while it is away reaches the handlers, and Redis later.
    change(&engine, 1);
    wait_runs(&scene, 8);
    let (before, told) = (scene.runs(), agent.log().len());
    scene.redis.restart();
    agent.wait_log_from(told, "the Cache answers again", SOON);
    let took = healed(&scene.redis, &engine);
    println!("put right {took:?} after the reconnect");
    assert!(took < seconds(1), "{took:?}");
    assert_no_other_handler_ran(&scene, &engine, before);
}

#[test]
fn timed_fault_14_a_flush_while_nothing_happens_is_noticed_by_the_heartbeat_and_healed_within_5_s()
{
    need!(redis);
    let (scene, engine, agent) = begin(12);
    for flush in ["FLUSHALL", "FLUSHDB"] {
        scene.redis.query::<()>(&[flush]);
        let took = healed(&scene.redis, &engine);
        println!("{flush}: healed after {took:?}");
        assert!(took < seconds(5), "{took:?}");
    }
    assert!(agent.log().contains("the Cache has lost host `h`"));
    assert_no_other_handler_ran(&scene, &engine, BTreeMap::new());
}

/// Keys and members of a host's own, and what somebody does to them. CID is a container that runs, NAME its name.
const OWN: [&str; 41] = [
    "DEL docker:containers:CID",
    "DEL docker:containers:CID:json",
    "DEL docker:containers:CID docker:containers:CID:json",
    "SREM docker:hosts:h:containers CID",
    "SADD docker:hosts:h:containers ghost",
    "SADD docker:hosts:h:stopped CID",
    "SADD docker:hosts:h:stopped ghost",
    "HSET docker:containers:ghost host h; SADD docker:hosts:h:containers ghost",
    "HDEL docker:hosts:h:names NAME",
    "HSET docker:hosts:h:names foreign CID",
    "HSET docker:hosts:h:names NAME ghost",
    "HDEL docker:hosts:h:manifest CID",
    "HSET docker:hosts:h:manifest ghost busybox",
    "DEL docker:hosts:h:containers",
    "DEL docker:hosts:h:names docker:hosts:h:manifest",
    "DEL docker:hosts:h",
    "HSET docker:hosts:h containers_running 99",
    "HSET docker:hosts:h status lost engine_id other",
    "HDEL docker:hosts:h status engine_id",
    "HDEL docker:hosts:h last_update update_interval",
    "HSET docker:hosts:h foreign 1 running_jobs x",
    "DEL docker:hosts:h; HSET docker:hosts:h foreign 1",
    "DEL docker:hosts:h:lease",
    "ZADD docker:alive 9999999999 h",
    "SREM docker:hosts h",
    "DEL docker:hosts",
    "DEL docker:alive",
    "DEL docker:hosts:h:manifest",
    "PERSIST docker:hosts:h:manifest",
    "PERSIST docker:hosts:h:containers",
    "PERSIST docker:containers:CID",
    "SET docker:hosts:h x",
    "SET docker:hosts:h:containers x",
    "SET docker:hosts:h:stopped x",
    "SET docker:hosts:h:names x",
    "SET docker:hosts:h:manifest x",
    "EVAL redis.call('SADD','docker:hosts:h:containers','\\255\\254') 0",
    "EVAL redis.call('SADD','docker:hosts:h:stopped','\\255\\254') 0",
    "EVAL redis.call('HSET','docker:hosts:h','\\255\\254','x') 0",
    "EVAL redis.call('HSET','docker:hosts:h:names','\\255\\254','CID') 0",
    "EVAL redis.call('HSET','docker:hosts:h:manifest','\\255\\254','x') 0",
];

/// The same of shared sets,
const SHARED: [&str; 19] = [
    "SREM docker:containers CID",
    "DEL docker:containers",
    "SREM docker:images image-1",
    "DEL docker:images",
    "DEL docker:images:image-1:hosts",
    "DEL docker:images:image-1:containers",
    "SADD docker:containers ghost",
    "SADD docker:images ghost",
    "SADD docker:images:ghost:hosts h",
    "SADD docker:images:image-1:containers ghost",
    "SADD docker:hosts ghost",
    "ZADD docker:alive 1 ghost",
    "PERSIST docker:hosts",
    "PERSIST docker:images:image-2:hosts",
    "EXPIRE docker:images:image-2:containers 1000000",
    "EVAL redis.call('SADD','docker:containers','\\255\\254') 0",
    "EVAL redis.call('SADD','docker:images:image-1:hosts','\\255\\254') 0",
    "EVAL redis.call('SADD','docker:hosts','\\255\\254') 0",
    "EVAL redis.call('ZADD','docker:alive','1','\\255\\254') 0",
];

/// and of keys that no set names, or that are of a wrong type.
const KEYS: [&str; 17] = [
    "HSET docker:containers:ghost host h",
    "SET docker:containers:ghost:json {}",
    "RPUSH docker:containers:listed x",
    "SADD docker:images:other:1:hosts h",
    "SADD docker:images:other:1:containers ghost",
    "HSET docker:hosts:foreign status up",
    "SADD docker:hosts:foreign:containers ghost",
    "HSET docker:hosts:foreign:manifest ghost busybox",
    "SET docker:hosts:foreign:lease x",
    "SET docker:containers:CID x",
    "SET docker:containers:CID:json x",
    "EVAL redis.call('SET','docker:containers:\\255\\254','x') 0",
    "SET docker:images:image-3:hosts x",
    "SET docker:images:image-3:containers x",
    "SET docker:images x",
    "SET docker:events x",
    "SET docker:runs x",
];

/// Keys of others, which are left alone.
const OTHERS: [&str; 3] = ["docker2:containers:x", "dockerx", "x:docker:containers:x"];

/// Resyncs every second, and how long so many may take: each begins a second after the last one began, on a machine that may be busy.
const OFTEN: &str = "-updateInterval=1s";
const fn intervals(count: u64) -> Duration {
    Duration::from_millis(1100 * count + 400)
}

/// A container that runs, and its name.
fn any_container(redis: &Redis, engine: &Engine) -> (String, String) {
    let id = engine.running().into_iter().next().unwrap_or_default();
    let name: String = redis.query(&["HGET", &format!("docker:containers:{id}"), "name"]);
    (id, name.trim_start_matches('/').to_owned())
}

/// Does one thing to Redis by hand.
fn meddle(redis: &Redis, line: &str, (id, name): (&str, &str)) {
    let line = line.replace("CID", id).replace("NAME", name);
    for command in line.split("; ") {
        redis.query::<Value>(&command.split(' ').collect::<Vec<_>>());
    }
}

/// The fields of the host's hash, but for those that each resync moves.
fn fields(redis: &Redis) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = redis.query(&["HGETALL", "docker:hosts:h"]);
    for moving in [
        "last_update",
        "last_batch",
        "resyncs",
        "gaps",
        "events",
        "last_event",
    ] {
        fields.remove(moving);
    }
    fields
}

/// Waits for so many more resyncs, which may take so long; what stands in Redis then must be right.
#[track_caller]
fn right_after_resyncs(
    scene: &Scene,
    engine: &Engine,
    notices: &Notices,
    (count, limit): (u64, Duration),
    what: &str,
) {
    let began = Instant::now();
    for _ in 0..count {
        notices.until("refresh_containers:h", SOON);
    }
    let took = began.elapsed();
    println!("{what}: {count} resyncs later, {took:?}");
    if let Err(wrong) = oracle::check(&scene.redis, "docker", &hosts(&[("h", engine)])) {
        panic!("{what}: not right after {count} resyncs:\n{wrong}");
    }
    assert!(took < limit, "{what}: {took:?}");
}

#[test]
fn timed_fault_14_what_somebody_did_to_a_hosts_own_keys_is_put_right_within_an_interval() {
    need!(redis);
    let (scene, engine) = (Scene::new(), engine_with(6));
    let notices = Notices::of(&scene.redis, "docker_events");
    let _agent = scene.report(&engine, &[OFTEN]);
    let (id, name) = any_container(&scene.redis, &engine);
    notices.until("refresh_containers:h", SOON);
    let right = fields(&scene.redis);
    for line in OWN {
        // None is under way.
        notices.so_far();
        notices.until("refresh_containers:h", SOON);
        meddle(&scene.redis, line, (&id, &name));
        // Leases and `docker:alive` are the heartbeats', one each two seconds: longer than this test's interval, and shorter than any of a user's. Where a
        // resync finds a lease gone, the next one is a second later at the soonest.
        let (count, limit) = match line {
            "DEL docker:hosts:h:lease" => (1, intervals(2)),
            "DEL docker:alive" => (2, intervals(2)),
            _ => (1, intervals(1)),
        };
        right_after_resyncs(&scene, &engine, &notices, (count, limit), line);
        assert_eq!(fields(&scene.redis), right, "{line}");
    }
    assert_no_other_handler_ran(&scene, &engine, BTreeMap::new());
}

#[test]
fn fault_14_a_lease_that_somebody_wrote_does_not_take_a_host_from_its_agent() {
    need!(redis);
    let (scene, engine) = (Scene::new(), engine_with(2));
    let _agent = scene.report(&engine, &[OFTEN]);
    scene.settle(SOON, &[("h", &engine)]);
    for (turn, foreign) in ["", " EX 1000000"].iter().enumerate() {
        let line = format!("SET docker:hosts:h:lease x{foreign}");
        meddle(&scene.redis, &line, ("", ""));
        engine.run(Spec::named(&format!("after{turn}")));
        scene.settle(SOON, &[("h", &engine)]);
    }
}

#[test]
fn timed_fault_14_shared_sets_and_keys_of_nobody_are_put_right_within_ten_intervals() {
    need!(redis);
    let (scene, engine) = (Scene::new(), engine_with(6));
    let notices = Notices::of(&scene.redis, "docker_events");
    let _agent = scene.report(&engine, &[OFTEN]);
    let (id, name) = any_container(&scene.redis, &engine);
    notices.so_far();
    notices.until("refresh_containers:h", SOON);
    for other in OTHERS {
        scene.redis.query::<()>(&["SET", other, "x"]);
    }
    // All at once: ten intervals are long.
    for line in SHARED.iter().chain(&KEYS) {
        meddle(&scene.redis, line, (&id, &name));
    }
    right_after_resyncs(
        &scene,
        &engine,
        &notices,
        (10, intervals(10)),
        "shared sets and keys of nobody",
    );
    for other in OTHERS {
        assert_eq!(scene.redis.query::<String>(&["GET", other]), "x");
    }
    for stream in ["docker:events", "docker:runs"] {
        assert_ne!(scene.redis.query::<String>(&["TYPE", stream]), "string");
    }
    assert_no_other_handler_ran(&scene, &engine, BTreeMap::new());
}

#[test]
fn fault_14_another_agent_does_not_take_a_living_hosts_keys_for_nobodys() {
    need!(redis);
    let (redis, engine, other) = (Redis::start(), engine_with(6), engine_with(3));
    // The first is resynced once in a minute; the other is the janitor again and again meanwhile.
    let _first = Agent::watch("h", &engine.url(), &redis.url(), 60);
    let second = Agent::watch("i", &other.url(), &redis.url(), 1);
    let settle = |limit| {
        let engines = [("h", &engine), ("i", &other)];
        oracle::settle(&redis, "docker", limit, || hosts(&engines));
    };
    settle(SOON);
    let all = || {
        (
            redis.keys("docker:containers"),
            redis.keys("docker:images"),
            redis.query::<BTreeSet<String>>(&["SMEMBERS", "docker:containers"]),
            redis.query::<BTreeSet<String>>(&["SMEMBERS", "docker:images"]),
        )
    };
    let before = all();
    let notices = Notices::of(&redis, "docker_events");
    for line in [
        "DEL docker:hosts:h:manifest",
        "SET docker:hosts:h:manifest x",
        "DEL docker:hosts:h:manifest docker:hosts:h:containers docker:hosts:h:names",
        "DEL docker:hosts:h",
    ] {
        redis.query::<Value>(&line.split(' ').collect::<Vec<_>>());
        notices.so_far();
        for _ in 0..4 {
            notices.until("refresh_containers:i", SOON);
            assert_eq!(all(), before, "{line}: {}", second.log());
        }
    }
    // Its own resync puts it right.
    settle(seconds(70));
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
fn timed_fault_15_a_redis_frozen_within_a_report_of_1000_containers_holds_the_writer_for_one_deadline()
 {
    need!(redis);
    let (mut scene, engine) = (Scene::new(), engine_with(1000));
    let agent = scene.watch(&[("h", &engine.url())], &["-updateInterval=60s"]);
    let mut connection = scene.redis.connect();
    wait_until(seconds(60), "the report is under way", || {
        ask::<usize>(&mut connection, &["DBSIZE"]).is_ok_and(|size| size > 150)
    });
    scene.redis.freeze();
    let frozen = Instant::now();
    agent.wait_log(
        "no answer in time; is Redis overloaded or stopped?",
        seconds(20),
    );
    let held = frozen.elapsed();
    println!("the writer was back after {held:?}");
    assert!(
        held < Duration::from_millis(5500),
        "one deadline is 5 s, but it took {held:?}"
    );
    scene.redis.thaw();
    let size: usize = scene.redis.query(&["DBSIZE"]);
    assert!(size < 1900, "the report was over before Redis was frozen");
    settle(&scene.redis, &engine, seconds(60));
    check_values(&scene.redis, &engine);
}

#[test]
fn fault_15_after_a_write_that_broke_off_in_the_middle_the_connection_is_not_used_again() {
    need!(redis);
    let (scene, engine, proxy, agent) = begin_by_wire(10, "24h");
    let redis = &scene.redis;
    // Larger than all that sockets hold on the way: the write itself does not come to its end.
    proxy.stall_after(Way::Requests, 1 << 20);
    let large = "x".repeat(9 << 20);
    let old = proxy.accepted();
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
    settle(redis, &engine, seconds(60));
    check_values(redis, &engine);
    wait_until(SOON, "the old connection is closed", || {
        let (_, open) = proxy.last_request(old);
        !open
    });
    let (last, _) = proxy.last_request(old);
    let last = String::from_utf8_lossy(&last);
    assert!(
        last.len() == 256 && last.bytes().all(|byte| byte == b'x'),
        "behind the value that broke off came `{last}`"
    );
    assert!(proxy.accepted() > old);
}

#[test]
fn fault_15_a_signal_while_an_answer_is_waited_for_costs_no_connection() {
    need!(redis);
    let (scene, engine, proxy, agent) = begin_by_wire(3, "24h");
    let id = engine.running().into_iter().next().unwrap_or_default();
    let accepted = proxy.accepted();
    for round in 0..5 {
        proxy.stall(Way::Replies, true);
        engine.rename(&id, &format!("renamed-{round}"));
        let written = || scene.field(&id, "name") == format!("/renamed-{round}");
        wait_until(SOON, "its answer is on its way", written);
        agent.interrupt_threads();
        proxy.stall(Way::Replies, false);
        settle(&scene.redis, &engine, SOON);
    }
    assert_eq!(proxy.accepted(), accepted, "{}", agent.log());
    assert!(!agent.log().contains("warning"), "{}", agent.log());
    assert!(
        agent.log().contains(" commands run, "),
        "no signal came: {}",
        agent.log()
    );
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
    let (scene, engine, proxy, agent) = begin_by_wire(5, "2s");
    let redis = &scene.redis;
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
        let (before, accepted) = (stream(redis).len(), proxy.accepted());
        change(&engine, round);
        // Should the answer to a heartbeat be the lost one, the agent gives up after 5 s and connects anew.
        wait_until(seconds(30), "a transaction ran", || {
            stream(redis).len() > before || proxy.accepted() > accepted
        });
        proxy.cut();
        proxy.lose(Way::Replies, false);
        lost += 1;
    }
    // An image that lost its last host leaves the shared set with the next sweep, where the answer before was the lost one.
    settle(redis, &engine, seconds(100));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for entry in stream(redis) {
        assert_ne!(entry["action"], "gap", "{entry:?}");
        let key = format!("{} {} {}", entry["time"], entry["action"], entry["id"]);
        *seen.entry(key).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!(twice, [], "{}", agent.log());
    assert_eq!(seen.len() as u64, engine.events_published() - published);
    let runs = scene.runs();
    assert!(runs.values().all(|times| *times == 1), "{runs:?}");
    println!("{lost} answers lost, {} entries, none twice", seen.len());
}

#[test]
fn fault_17_an_answer_that_is_lost_and_then_the_lease_leave_no_entry_twice() {
    need!(redis);
    let (scene, engine, proxy, agent) = begin_by_wire(5, "24h");
    let redis = &scene.redis;
    let published = engine.events_published();
    for round in 0..5 {
        proxy.lose(Way::Replies, true);
        let (before, accepted) = (stream(redis).len(), proxy.accepted());
        change(&engine, round);
        wait_until(seconds(30), "a transaction ran", || {
            stream(redis).len() > before || proxy.accepted() > accepted
        });
        // As after ten seconds without a way to Redis.
        proxy.refuse(true);
        proxy.cut();
        redis.query::<()>(&["DEL", "docker:hosts:h:lease"]);
        proxy.lose(Way::Replies, false);
        proxy.refuse(false);
        settle(redis, &engine, seconds(30));
    }
    let entries = stream(redis);
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
    let (mut scene, engine, proxy, agent) = begin_by_wire(20, "24h");
    let replica = Redis::start();
    let wire = Proxy::tcp(&scene.redis.url());
    let port = wire.redis_url();
    let port = port.rsplit(':').next().unwrap_or_default();
    replica.query::<()>(&["REPLICAOF", "127.0.0.1", port]);
    let all = |redis: &Redis| redis.keys("docker:containers:");
    wait_until(SOON, "the replica has followed", || {
        all(&replica) == all(&scene.redis)
    });
    wire.stall(Way::Replies, true);
    change(&engine, 0);
    settle(&scene.redis, &engine, SOON);
    assert_ne!(
        all(&replica),
        all(&scene.redis),
        "the replica missed nothing"
    );
    wait_runs(&scene, 4);
    scene.redis.kill9();
    // First it is still a replica, then the new master.
    proxy.lead_to(&replica.url());
    proxy.cut();
    agent.wait_log("READONLY", SOON);
    let before = scene.runs();
    replica.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    let took = healed(&replica, &engine);
    println!("healed {took:?} after the promotion");
    engine.run(Spec::named("last"));
    settle(&replica, &engine, SOON);
    wait_runs(&scene, before.values().sum::<usize>() + 1);
    assert_eq!(scene.runs().len(), before.len() + 1);
    let hosts: BTreeSet<String> = replica.query(&["SMEMBERS", "docker:hosts"]);
    assert_eq!(hosts, BTreeSet::from(["h".to_owned()]));
}

#[test]
fn fault_18_a_master_that_is_set_back_without_a_broken_connection_is_noticed_by_the_heartbeat() {
    need!(redis);
    let (scene, engine, agent) = begin(1);
    let redis = &scene.redis;
    let lease = "docker:hosts:h:lease";
    let old: String = redis.query(&["GET", lease]);
    let newest = engine.run(Spec::named("later"));
    settle(redis, &engine, SOON);
    // An older state of everything: what came later is gone, the lease has the value that it had then.
    let key = format!("docker:containers:{newest}");
    redis.query::<()>(&["DEL", &key, &format!("{key}:json")]);
    redis.query::<()>(&["SET", lease, &old, "PX", "10000"]);
    agent.wait_log("the Cache has lost host `h`", SOON);
    settle(redis, &engine, SOON);
}

#[test]
fn fault_14_a_host_whose_engine_is_away_is_put_right_and_hinders_nobody() {
    need!(redis);
    let (a, b, redis) = (engine_with(3), engine_with(3), Redis::start());
    let _first = Agent::watch("a", &a.url(), &redis.url(), 2);
    let _second = Agent::watch("b", &b.url(), &redis.url(), 2);
    let hosts = |status: &str| {
        let away = oracle::Host::up("b", b.running()).status(status);
        vec![oracle::Host::up("a", a.running()).at(a.place()), away]
    };
    oracle::settle(&redis, "docker", SOON, || hosts("up"));
    b.go_down();
    oracle::settle(&redis, "docker", SOON, || hosts("down"));
    let faults: [&[&str]; 4] = [
        &["SADD", "docker:hosts:b:containers", "nobody"],
        &["DEL", "docker:hosts:b:manifest"],
        &["DEL", "docker:hosts:b:containers"],
        &["HDEL", "docker:hosts:b", "status"],
    ];
    for fault in faults {
        redis.query::<Value>(fault);
        redis.query::<Value>(&["SADD", "docker:containers", "nobody"]);
        redis.query::<Value>(&["SADD", "docker:images:image-1:hosts", "nobody"]);
        let began = Instant::now();
        oracle::settle(&redis, "docker", SOON, || hosts("down"));
        println!("{fault:?}: {:?}", began.elapsed());
    }
}
