//! Redis refuses: each reason is said in one line with its remedy, tried again with growing pauses, and forgotten once it is over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::Connection;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::proxy::Proxy;
use crate::kit::redis::{Redis, ask};
use crate::kit::scene::{SOON, engine_with, settle};
use crate::kit::{seconds, wait_until};

/// One Redis, reached over a wire that counts connections, and a connection for orders that is there before any refusal.
struct Bench {
    agent: Agent,
    proxy: Proxy,
    admin: Connection,
    redis: Redis,
    engine: Engine,
}

impl Bench {
    /// The agent connects as this user (`user:password@`, or nobody); `orders` are given to Redis before.
    fn new(redis: Redis, user: &str, orders: &[&str]) -> Bench {
        let engine = engine_with(5);
        let proxy = Proxy::tcp(&redis.url());
        let mut admin = redis.connect();
        for order in orders {
            give(&mut admin, order);
        }
        let url = proxy.redis_url().replace("//", &format!("//{user}"));
        let agent = Agent::watch("h", &engine.url(), &url, 2);
        settle(&redis, &engine, SOON);
        Bench {
            agent,
            proxy,
            admin,
            redis,
            engine,
        }
    }

    /// Waits until Redis, which refuses now, was tried many times; what it was is said once, with these words, and the pauses have grown. Then `mend`.
    #[track_caller]
    fn refused(&mut self, words: &[&str], mend: impl FnOnce(&mut Bench)) {
        self.refused_in(words, 1, mend);
    }

    /// The same where up to so many different complaints are true; none is said twice.
    #[track_caller]
    fn refused_in(&mut self, words: &[&str], most: usize, mend: impl FnOnce(&mut Bench)) {
        let told = self.agent.log().len();
        let accepted = self.proxy.accepted();
        self.engine.run(Spec::named(&format!("changed-{accepted}")));
        self.agent.wait_log_from(told, words[0], SOON);
        wait_until(SOON, "it was tried again", || {
            self.proxy.accepted() >= accepted + 3
        });
        // From here on pauses are at least 0.4 s long, and soon half a second to a second.
        let (began, tries) = (Instant::now(), self.proxy.accepted());
        wait_until(seconds(60), "it was tried many times", || {
            self.proxy.accepted() >= tries + 3
        });
        let took = began.elapsed();
        assert!(
            took > Duration::from_millis(900),
            "{words:?}: three tries within {took:?}"
        );
        let log = self.agent.log();
        let lines = own_lines(&log[told..]);
        let named = lines.iter().filter(|line| line.contains(words[0]));
        let said: Vec<&str> = named.map(|line| line.split_at(20).1).collect();
        let different: BTreeSet<&str> = said.iter().copied().collect();
        assert!(
            said.len() <= most && different.len() == said.len(),
            "{words:?} is to be said once:\n{}",
            lines.join("\n")
        );
        let line = lines.iter().find(|line| line.contains(words[0]));
        for word in words {
            let line = line.copied().unwrap_or_default();
            assert!(line.contains(word), "no `{word}` in `{line}`");
        }
        assert!(
            lines.len() <= 4,
            "{words:?}: too much is said:\n{}",
            lines.join("\n")
        );
        mend(self);
        settle(&self.redis, &self.engine, seconds(40));
        wait_until(SOON, "the end of it is said", || {
            self.agent.log()[told..].contains("the Cache answers again")
        });
        assert!(self.agent.exited().is_none());
        println!(
            "{}: {} lines, three tries in {took:?}",
            words[0],
            lines.len()
        );
    }

    fn order(&mut self, order: &str) {
        give(&mut self.admin, order);
    }

    fn drop_clients(&mut self) {
        self.order("CLIENT KILL TYPE normal SKIPME yes");
    }
}

/// The lines of a log but for what a self-check adds: keys whose time ran out while Redis refused are told one by one.
fn own_lines(log: &str) -> Vec<&str> {
    let lines = log.lines();
    lines.filter(|line| !line.contains("selfcheck")).collect()
}

#[track_caller]
fn give(admin: &mut Connection, order: &str) {
    let words: Vec<&str> = order.split(' ').collect();
    ask::<redis::Value>(admin, &words).unwrap_or_else(|error| panic!("{order}: {error}"));
}

#[test]
fn fault_16_a_redis_that_cannot_be_written_is_named_with_its_remedy_and_tried_again() {
    need!(redis);
    let mut bench = Bench::new(Redis::start(), "", &[]);
    bench.order("CONFIG SET maxmemory 1000000");
    bench.refused(&["OOM", "raise `maxmemory`"], |bench| {
        bench.order("CONFIG SET maxmemory 0");
    });
    bench.order("CONFIG SET min-replicas-to-write 1");
    bench.refused(&["NOREPLICAS", "`min-replicas-to-write`"], |bench| {
        bench.order("CONFIG SET min-replicas-to-write 0");
    });
    // Nobody listens on port 1: a replica that has lost its master.
    bench.order("REPLICAOF 127.0.0.1 1");
    bench.refused(&["READONLY", "the address of the master"], |bench| {
        bench.order("REPLICAOF NO ONE");
    });
    bench.order("CONFIG SET replica-serve-stale-data no");
    bench.order("REPLICAOF 127.0.0.1 1");
    bench.refused(&["MASTERDOWN", "the address of the master"], |bench| {
        bench.order("REPLICAOF NO ONE");
    });
}

#[test]
fn fault_16_a_redis_that_cannot_save_is_named_with_its_remedy_and_tried_again() {
    need!(redis);
    let mut bench = Bench::new(Redis::start(), "", &[]);
    let folder: (String, String) = bench.redis.query(&["CONFIG", "GET", "dir"]);
    let dump = std::path::Path::new(&folder.1).join("dump.rdb");
    std::fs::create_dir(&dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display()));
    let save = ["CONFIG", "SET", "save", "3600 1000000"];
    bench.redis.query::<()>(&save);
    bench.order("BGSAVE");
    wait_until(SOON, "the save has failed", || {
        bench
            .redis
            .query::<String>(&["INFO", "persistence"])
            .contains("rdb_last_bgsave_status:err")
    });
    bench.refused(&["MISCONF", "`stop-writes-on-bgsave-error no`"], |bench| {
        bench.order("CONFIG SET stop-writes-on-bgsave-error no")
    });
}

#[test]
fn fault_16_a_redis_that_is_busy_or_full_is_named_with_its_remedy_and_tried_again() {
    need!(redis);
    let redis = Redis::start_with(&["--lua-time-limit", "50"]);
    let mut bench = Bench::new(redis, "", &[]);
    let mut other = bench.redis.connect();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Ends by the kill, with an error.
            let _ = ask::<redis::Value>(&mut other, &["EVAL", "while true do end", "0"]);
        });
        bench.refused(&["BUSY", "SCRIPT KILL"], |bench| bench.order("SCRIPT KILL"));
    });
    bench.order("CONFIG SET maxclients 1");
    bench.drop_clients();
    bench.refused(&["too many clients", "raise `maxclients`"], |bench| {
        bench.order("CONFIG SET maxclients 100");
    });
}

#[test]
fn fault_16_a_redis_that_loads_its_data_is_named_and_tried_again() {
    need!(redis);
    let redis = Redis::start_with(&[
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let mut bench = Bench::new(redis, "", &[]);
    let fill = "for at = 1, 3000 do redis.call('SET', 'filling:' .. at, at) end";
    bench.redis.query::<()>(&["EVAL", fill, "0"]);
    bench.redis.save();
    let (told, tried) = (bench.agent.log().len(), bench.proxy.accepted());
    let began = Instant::now();
    bench.redis.restart();
    wait_until(seconds(60), "it has loaded its data", || {
        let info: String = bench.redis.query(&["INFO", "persistence"]);
        info.contains("\nloading:0")
    });
    let loaded = began.elapsed();
    // Pauses grow from 50 ms at least to half a second at least.
    let (tries, most) = (
        bench.proxy.accepted() - tried,
        5 + 2 * (loaded.as_secs() + 1),
    );
    println!("LOADING: {tries} tries in {loaded:?}");
    assert!((2..=most).contains(&tries), "{tries} tries in {loaded:?}");
    settle(&bench.redis, &bench.engine, SOON);
    let log = bench.agent.log();
    assert_eq!(log[told..].matches("LOADING").count(), 1, "{log}");
    assert!(own_lines(&log[told..]).len() <= 6, "{log}");
    assert!(log[told..].contains("it will be tried again"));
}

#[test]
fn fault_16_a_redis_that_wants_a_password_or_refuses_it_is_named_with_its_remedy_and_tried_again() {
    need!(redis);
    let mut bench = Bench::new(Redis::start(), "", &[]);
    bench.order("CONFIG SET requirepass secret");
    bench.drop_clients();
    bench.refused(&["NOAUTH", "--cache-password-file"], |bench| {
        bench.order("CONFIG SET requirepass ");
    });
    drop(bench);
    let user = "ACL SETUSER agent on >right ~* &* +@all";
    let mut bench = Bench::new(Redis::start(), "agent:right@", &[user]);
    bench.order("ACL SETUSER agent resetpass >other");
    bench.drop_clients();
    bench.refused(&["WRONGPASS", "check both"], |bench| {
        bench.order("ACL SETUSER agent >right");
    });
    assert!(
        !bench.agent.log().contains("right@"),
        "a password is logged"
    );
}

#[test]
fn fault_16_an_acl_that_allows_too_little_is_named_with_what_it_lacks_and_tried_again() {
    need!(redis);
    let user = "ACL SETUSER agent on >right ~docker:* &docker_events +@all";
    let mut bench = Bench::new(Redis::start(), "agent:right@", &[user]);
    for (take, give, word) in [
        ("-multi", "+multi", "`MULTI`"),
        ("-xadd", "+xadd", "`XADD`"),
        ("-hset", "+hset", "`HSET`"),
        ("resetchannels", "&docker_events", "`PUBLISH`"),
    ] {
        bench.order(&format!("ACL SETUSER agent {take}"));
        bench.refused(&["NOPERM", word, "ACL SETUSER"], |bench| {
            bench.order(&format!("ACL SETUSER agent {give}"));
        });
    }
    bench.order("ACL SETUSER agent resetkeys ~docker:hosts*");
    bench.drop_clients();
    // A heartbeat and a batch are refused by different commands.
    bench.refused_in(&["NOPERM", "keys"], 2, |bench| {
        bench.order("ACL SETUSER agent ~docker:*");
    });
}

#[test]
fn fault_16_an_acl_without_scripts_keys_or_dangerous_commands_is_enough() {
    need!(redis);
    let user = "ACL SETUSER agent on >right ~docker:* &docker_events +@all -@dangerous -@admin -@scripting -@blocking";
    let bench = Bench::new(Redis::start(), "agent:right@", &[user]);
    bench.engine.run(Spec::named("more"));
    settle(&bench.redis, &bench.engine, SOON);
    let log: Vec<redis::Value> = bench.redis.query(&["ACL", "LOG"]);
    assert_eq!(log, []);
}
