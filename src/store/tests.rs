//! The store against a real Redis.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::link::{items, number, text, texts};
use super::redis::RedisStore;
use super::testing::*;
use super::*;

fn fenced(applied: Result<Applied, StoreError>) -> Fenced {
    match applied {
        Ok(Applied::Fenced(fenced)) => fenced,
        other => panic!("the transaction was not refused: {other:?}"),
    }
}

fn overdue(beaten: Result<Beaten, StoreError>) -> Vec<String> {
    match beaten {
        Ok(Beaten::Done { overdue }) => overdue,
        other => panic!("the heartbeat failed: {other:?}"),
    }
}

const A: EngineIndex = EngineIndex(0);
const B: EngineIndex = EngineIndex(1);

#[test]
fn a_report_writes_every_key_of_the_contract_and_no_other() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    done(store.apply(&report(
        0,
        vec![put("c1", "ubuntu"), put("c2", "ubuntu:22")],
    )));
    let keys = [
        "docker:alive",
        "docker:containers",
        "docker:containers:c1",
        "docker:containers:c1:json",
        "docker:containers:c2",
        "docker:containers:c2:json",
        "docker:hosts",
        "docker:hosts:a",
        "docker:hosts:a:containers",
        "docker:hosts:a:manifest",
        "docker:hosts:a:names",
        "docker:images",
        "docker:images:ubuntu:22:containers",
        "docker:images:ubuntu:22:hosts",
        "docker:images:ubuntu:containers",
        "docker:images:ubuntu:hosts",
    ];
    assert_eq!(client.keys(), keys);
    assert_eq!(
        client.list("SMEMBERS docker:images"),
        ["ubuntu", "ubuntu:22"]
    );
    assert_eq!(client.text("HGET docker:containers:c1 host"), "a");
    assert_eq!(
        client.text("GET docker:containers:c1:json"),
        "{\"Id\":\"c1\"}"
    );
    assert_eq!(client.text("HGET docker:hosts:a:names name-c1"), "c1");
    assert_eq!(client.text("HGET docker:hosts:a:manifest c2"), "ubuntu:22");
    assert_eq!(client.text("GET docker:engines:engine0@machine0"), "a");
    for key in keys {
        let ttl: i64 = client
            .text(&format!("TTL {key}"))
            .parse()
            .expect("a number");
        let own = key.contains(":hosts:a") && !key.ends_with("manifest")
            || key.starts_with("docker:containers:");
        // The heartbeat sees to the sorted set.
        let wanted = match key {
            "docker:alive" => 86_390..=86_400,
            _ if own => 350..=360,
            _ => 86_390..=86_400,
        };
        assert!(wanted.contains(&ttl), "{key} lives {ttl} s");
    }
    let now: u64 = client
        .list("TIME")
        .iter()
        .map(|word| word.parse().unwrap_or(0))
        .max()
        .unwrap_or(0);
    let updated: u64 = client
        .text("HGET docker:hosts:a last_update")
        .parse()
        .expect("seconds");
    assert!(now.abs_diff(updated) <= 2, "{updated} is not {now}");

    done(store.apply(&batch(0, |share| {
        share.names_left = vec!["name-c1".into()];
        share.drops = vec![gone("c1", "ubuntu")];
        share.images_left = vec!["ubuntu".into()];
    })));
    let left: Vec<String> = keys
        .iter()
        .filter(|key| {
            !key.contains("c1")
                && !key.starts_with("docker:images:ubuntu:c")
                && !key.starts_with("docker:images:ubuntu:h")
        })
        .map(|key| key.to_string())
        .collect();
    assert_eq!(client.keys(), left);
    assert_eq!(client.list("SMEMBERS docker:images"), ["ubuntu:22"]);
    assert_eq!(client.list("HKEYS docker:hosts:a:names"), ["name-c2"]);
    assert_eq!(client.list("HKEYS docker:hosts:a:manifest"), ["c2"]);
    assert_eq!(client.list("SMEMBERS docker:containers"), ["c2"]);

    done(store.apply(&batch(0, |share| {
        share.drops = vec![gone("c2", "ubuntu:22")];
        share.images_left = vec!["ubuntu:22".into()];
        share.forget = true;
        share.notices = vec![Notice::ExpiredHost];
    })));
    assert_eq!(client.list("KEYS *"), [] as [&str; 0]);
    let fenced = fenced(store.apply(&report(0, vec![])));
    assert_eq!(fenced.lost, [A], "a host that was forgotten is not held");
}

#[test]
fn a_replaced_container_keeps_no_field_and_no_wrong_type() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    let fields = [("state_pid", "1"), ("state_error", "x")];
    done(store.apply(&report(0, vec![put_with("c1", "i", true, &fields)])));
    done(store.apply(&report(0, vec![put_with("c1", "i", true, &fields[..1])])));
    assert_eq!(
        client.list("HKEYS docker:containers:c1"),
        ["host", "name", "state_pid"]
    );
    client.ask("SET docker:containers:c1 text");
    client.ask("DEL docker:containers:c1:json");
    client.ask("SADD docker:containers:c1:json member");
    done(store.apply(&report(0, vec![put("c1", "i")])));
    assert_eq!(client.text("TYPE docker:containers:c1"), "hash");
    assert_eq!(client.text("TYPE docker:containers:c1:json"), "string");
}

#[test]
fn a_stopped_container_changes_its_sets_and_comes_back() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    done(store.apply(&report(0, vec![put("c1", "i")])));
    done(store.apply(&batch(0, |share| {
        let mut stopped = put_with("c1", "i", false, &[]);
        stopped.image_left = Some("i".into());
        share.puts = vec![stopped];
        share.images_left = vec!["i".into()];
    })));
    assert_eq!(client.list("SMEMBERS docker:hosts:a:stopped"), ["c1"]);
    for gone in [
        "docker:containers",
        "docker:hosts:a:containers",
        "docker:images",
        "docker:images:i:hosts",
        "docker:images:i:containers",
    ] {
        assert_eq!(client.text(&format!("EXISTS {gone}")), "0", "{gone}");
    }
    assert_eq!(client.text("HGET docker:hosts:a:manifest c1"), "i");
    done(store.apply(&report(0, vec![put("c1", "i")])));
    assert_eq!(client.text("EXISTS docker:hosts:a:stopped"), "0");
    assert_eq!(client.list("SMEMBERS docker:images:i:containers"), ["c1"]);
    let audit = store.audit(A).expect("audit");
    assert_eq!(audit.running, ["c1".into()]);
    assert_eq!(audit.names, [("name-c1".to_owned(), "c1".to_owned())]);
    assert_eq!(audit.manifest, [("c1".into(), "i".to_owned())]);
    assert!(audit.listed && audit.stopped.is_empty());
    assert_eq!(audit.fields["update_interval"], "120");
}

#[test]
fn a_touch_renews_and_tells_what_is_missing() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    done(store.apply(&report(
        0,
        ["c1", "c2", "c3"].map(|id| put(id, "i")).to_vec(),
    )));
    client.ask("DEL docker:containers:c1");
    client.ask("DEL docker:containers:c2:json");
    client.ask("EXPIRE docker:containers:c3 10");
    let missing = done(store.apply(&batch(0, |share| {
        share.touches = ["c1", "c2", "c3"].map(ContainerId::from).to_vec();
    })));
    assert_eq!(missing, [(A, "c1".into()), (A, "c2".into())]);
    assert_eq!(client.text("TTL docker:containers:c3"), "360");
}

#[test]
fn shared_and_own_keys_of_a_wrong_type_heal() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    let whole = report(0, vec![put("c1", "i")]);
    done(store.apply(&whole));
    for key in [
        "hosts",
        "containers",
        "images",
        "images:i:hosts",
        "images:i:containers",
        "hosts:a",
        "hosts:a:containers",
        "hosts:a:names",
        "hosts:a:manifest",
    ] {
        client.ask(&format!("DEL docker:{key}"));
        client.ask(&format!("SET docker:{key} text"));
        let error = store.apply(&whole).expect_err("a key of a wrong type");
        assert!(
            error.text.contains(&format!("`docker:{key}`")) && !error.uncertain,
            "{error}"
        );
        let opened = store.open().expect("open");
        assert_eq!((opened.ran, opened.lost), (None, vec![A]), "{key}");
        assert!(store.take(&claims(&[0])).expect("take")[0].outcome.is_ok());
        done(store.apply(&whole));
    }
    client.ask("DEL docker:alive");
    client.ask("SET docker:alive text");
    store
        .beat(&claims(&[0]))
        .expect_err("a key of a wrong type");
    store.open().expect("open");
    store.take(&claims(&[0])).expect("take");
    assert_eq!(client.text("TYPE docker:alive"), "zset");
    client.ask("DEL docker:hosts:a:containers");
    client.ask("SET docker:hosts:a:containers text");
    store.audit(A).expect_err("a key of a wrong type");
    assert_eq!(client.text("EXISTS docker:hosts:a:containers"), "0");
}

#[test]
fn no_reader_sees_half_a_container() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let image = |even| if even { "even" } else { "odd" };
    done(store.apply(&report(0, vec![put("c", image(true))])));
    let socket = server.socket();
    let stop = Arc::new(());
    let alive = Arc::downgrade(&stop);
    let reader = thread::spawn(move || {
        let mut client = Client::connect(socket);
        let mut looks = 0;
        while alive.strong_count() > 0 {
            client.ask("MULTI");
            client.ask("HGET docker:containers:c config_image");
            client.ask("SMEMBERS docker:images:even:containers");
            client.ask("SMEMBERS docker:images:odd:containers");
            client.ask("HGET docker:hosts:a:manifest c");
            client.ask("EXISTS docker:containers:c:json");
            let seen = client.ask("EXEC");
            let seen = items(&seen);
            let name = text(&seen[0]).expect("a container without its hash");
            let (even, odd) = (texts(&seen[1]).len(), texts(&seen[2]).len());
            assert_eq!((even, odd), if name == "even" { (1, 0) } else { (0, 1) });
            assert_eq!(text(&seen[3]).as_ref(), Some(&name));
            assert_eq!(number(&seen[4]), Some(1));
            looks += 1;
        }
        looks
    });
    for round in 0..300 {
        let even = round % 2 == 1;
        let mut next = put("c", image(even));
        next.image_left = Some(image(!even).into());
        done(store.apply(&batch(0, |share| {
            share.puts = vec![next];
            share.images_left = vec![image(!even).into()];
        })));
    }
    drop(stop);
    assert!(reader.join().expect("the reader saw something half") > 10);
}

#[test]
fn a_lease_that_ran_out_or_was_flushed_or_overwritten_stops_the_writer() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.holding("boot", &[0, 1]);
    let whole = report(0, vec![put("c1", "i")]);
    // Every case but the first finds the transaction armed already, with the change between arming and EXEC.
    let own = client.text("GET docker:hosts:a:lease");
    let restored = "SET docker:hosts:a:lease boot:1";
    assert_ne!(own, "boot:1");
    for change in [
        "DEL docker:hosts:a:lease",
        "PEXPIRE docker:hosts:a:lease 1",
        "FLUSHALL",
        restored,
    ] {
        store.take(&claims(&[0, 1])).expect("take");
        done(store.apply(&whole));
        client.ask("DEL docker:containers:c1");
        client.ask(change);
        if change.starts_with("PEXPIRE") {
            until("the lease runs out", || {
                client.text("EXISTS docker:hosts:a:lease") == "0"
            });
        }
        let lost = fenced(store.apply(&whole)).lost;
        let all = if change == "FLUSHALL" {
            vec![A, B]
        } else {
            vec![A]
        };
        assert_eq!(lost, all, "{change}");
        assert_eq!(client.text("EXISTS docker:containers:c1"), "0", "{change}");
        assert_eq!(
            fenced(store.apply(&whole)).lost,
            [A],
            "it is not held any more"
        );
    }
    store.take(&claims(&[0, 1])).expect("take");
    client.ask("SET docker:hosts:a:lease other:1 PX 9000");
    let held = fenced(store.apply(&whole)).held;
    assert_eq!(held, [(A, Holder::Agent("other:1".into()))]);
    assert_eq!(client.text("GET docker:hosts:a:lease"), "other:1");
    let taken = store.take(&claims(&[0])).expect("take");
    assert_eq!(taken[0].outcome, Err(Holder::Agent("other:1".into())));
    done(store.apply(&report(1, vec![put("c2", "i")])));
}

#[test]
fn a_foreign_writer_between_beats_is_noticed_by_the_beat() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.holding("boot", &[0]);
    assert_eq!(overdue(store.beat(&claims(&[0]))), [] as [&str; 0]);
    client.ask("FLUSHALL");
    let Ok(Beaten::Fenced(fenced)) = store.beat(&claims(&[0])) else {
        panic!("the flush was not noticed");
    };
    assert_eq!(fenced.lost, [A]);
    assert_eq!(client.list("KEYS *"), [] as [&str; 0]);
}

#[test]
fn a_touched_lease_that_still_is_ours_does_not_stop_the_writer() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.holding("boot", &[0]);
    client.ask("PEXPIRE docker:hosts:a:lease 9000");
    done(store.apply(&report(0, vec![put("c1", "i")])));
}

#[test]
fn more_hosts_than_are_watched_at_once_are_fenced_as_well() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.store("boot");
    store.open().expect("open");
    let all: Vec<u32> = (0..150).collect();
    let taken = store.take(&claims(&all)).expect("take");
    assert!(taken.iter().all(|taken| taken.outcome.is_ok()));
    assert_eq!(overdue(store.beat(&claims(&all))), [] as [&str; 0]);
    done(store.apply(&report(149, vec![put("c1", "i")])));
    client.ask("DEL docker:hosts:h:lease");
    assert_eq!(
        fenced(store.apply(&report(7, vec![]))).lost,
        [EngineIndex(7)]
    );
    done(store.apply(&report(8, vec![put("c2", "i")])));
    client.ask("SET docker:hosts:j:lease other:1");
    let Ok(Beaten::Fenced(fenced)) = store.beat(&claims(&all)) else {
        panic!("a host that is not held was renewed");
    };
    assert_eq!(fenced.lost, [EngineIndex(7)]);
    assert_eq!(fenced.held.len(), 1);
}

#[test]
fn of_agents_that_race_for_a_host_one_gets_it() {
    let server = Server::start(&[]);
    let barrier = Barrier::new(8);
    let won: usize = thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let mut store = server.store(&format!("boot{racer}"));
                let barrier = &barrier;
                scope.spawn(move || {
                    store.open().expect("open");
                    barrier.wait();
                    let taken = store.take(&claims(&[0])).expect("take");
                    match &taken[0].outcome {
                        Ok(found) => {
                            assert!(!found.known && found.age_s.is_none());
                            done(store.apply(&report(0, vec![put("c1", "i")])));
                            1
                        }
                        Err(Holder::Agent(lease)) => {
                            assert!(lease.starts_with("boot"));
                            assert_eq!(fenced(store.apply(&report(0, vec![]))).lost, [A]);
                            0
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("a racer failed"))
            .sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn a_lease_that_is_no_agents_keeps_nobody_from_a_host() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.store("boot");
    store.open().expect("open");
    for key in ["docker:hosts:a:lease", "docker:engines:engine0@machine0"] {
        client.ask(&format!("SET {key} x PX 9000"));
        let outcome = store.take(&claims(&[0])).expect("take").remove(0).outcome;
        assert!(outcome.is_err(), "{key} was an agent's");
        for foreign in ["", " PX 20000", " EX 1000000"] {
            client.ask(&format!("SET {key} x{foreign}"));
            let outcome = store.take(&claims(&[0])).expect("take").remove(0).outcome;
            assert!(outcome.is_ok(), "{key}{foreign}: {outcome:?}");
            done(store.apply(&report(0, vec![])));
        }
        client.ask(&format!("DEL {key}"));
    }
}

#[test]
fn a_lease_or_a_time_that_is_no_agents_keeps_no_dead_host() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut janitor = server.holding("janitor", &[1]);
    for line in [
        "SET docker:hosts:a:lease x",
        "SET docker:hosts:a:lease x EX 1000000",
        "ZADD docker:alive 9999999999 a",
    ] {
        let mut dead = server.holding("dead", &[0]);
        done(dead.apply(&report(0, vec![put("c1", "i")])));
        drop(dead);
        client.ask("DEL docker:hosts:a:lease docker:engines:engine0@machine0 docker:janitor");
        client.ask("ZREM docker:alive a");
        client.ask("HSET docker:hosts:a last_update 1 update_interval 0");
        client.ask(line);
        janitor.sweep().expect("sweep");
        until("it is overdue, and expired", || {
            let overdue = overdue(janitor.beat(&claims(&[1])));
            janitor.bury(&overdue).expect("bury");
            client.text("EXISTS docker:hosts:a docker:containers:c1") == "0"
        });
    }
}

#[test]
fn one_engine_is_reported_under_one_host_id() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let mut second = server.store("boot2");
    second.open().expect("open");
    let same = vec![Claim {
        host: B,
        id: host_id(1),
        identity: claims(&[0])[0].identity.clone(),
    }];
    let taken = second.take(&same).expect("take");
    assert_eq!(taken[0].outcome, Err(Holder::Host("a".into())));
    assert_eq!(client.text("EXISTS docker:hosts:b:lease"), "0");
    // It may come to light only when the engine is asked who it is.
    let unknown = vec![Claim {
        host: B,
        id: host_id(1),
        identity: None,
    }];
    assert!(second.take(&unknown).expect("take")[0].outcome.is_ok());
    let Ok(Beaten::Fenced(found)) = second.beat(&same) else {
        panic!("the same engine was reported twice");
    };
    assert_eq!(found.held, [(B, Holder::Host("a".into()))]);
    assert_eq!(fenced(second.apply(&report(1, vec![]))).lost, [B]);
    assert_eq!(overdue(first.beat(&claims(&[0]))), [] as [&str; 0]);
    assert_eq!(client.list("ZRANGE docker:alive 0 -1"), ["a"]);
    assert_eq!(client.text("EXISTS docker:hosts:b:lease"), "0");
    // Both in one process, in one request.
    let mut twice = server.store("boot3");
    twice.open().expect("open");
    let identity: Option<Arc<str>> = Some("x@y".into());
    let two = [1, 2].map(|host| Claim {
        host: EngineIndex(host),
        id: host_id(host),
        identity: identity.clone(),
    });
    client.ask("DEL docker:hosts:b:lease");
    let taken = twice.take(&two).expect("take");
    assert!(taken[0].outcome.is_ok());
    assert_eq!(taken[1].outcome, Err(Holder::Host("b".into())));
}

#[test]
fn after_a_lost_reply_open_says_whether_it_ran() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(&server);
    let mut client = server.client();
    let mut store = RedisStore::new(options(proxy.socket.clone(), "boot"));
    store.open().expect("open");
    store.take(&claims(&[0])).expect("take");
    let cut = |answers: usize| {
        proxy
            .answers
            .store(answers, std::sync::atomic::Ordering::SeqCst)
    };

    cut(0);
    let error = store
        .apply(&report(0, vec![put("c1", "i")]))
        .expect_err("the answer was cut");
    assert!(error.uncertain && !error.timed_out, "{error:?}");
    assert_eq!(
        error.text,
        "failed to talk to Redis `unix:///private`: the connection was closed"
    );
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (Some(true), vec![]));
    assert_eq!(client.text("EXISTS docker:containers:c1"), "1");
    done(store.apply(&report(0, vec![put("c1", "i")])));

    // Redis closes before it reads the transaction.
    client.ask("CLIENT KILL TYPE normal SKIPME yes");
    let error = store
        .apply(&report(0, vec![put("c2", "i")]))
        .expect_err("the connection was closed");
    assert!(error.uncertain);
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (Some(false), vec![]));
    assert_eq!(client.text("EXISTS docker:containers:c2"), "0");

    cut(0);
    store
        .apply(&report(0, vec![put("c3", "i")]))
        .expect_err("the answer was cut");
    client.ask("FLUSHALL");
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (None, vec![A]));

    // A lost heartbeat is nobody's question, and costs nobody a lease.
    store.take(&claims(&[0])).expect("take");
    cut(0);
    let error = store.beat(&claims(&[0])).expect_err("the answer was cut");
    assert!(!error.uncertain);
    let opened = store.open().expect("open");
    assert_eq!((opened.ran, opened.lost), (None, vec![]));
    done(store.apply(&report(0, vec![])));
}

#[test]
fn a_stopped_server_is_given_up_within_the_deadline() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    server.signal(Signal::STOP);
    let begun = Instant::now();
    let puts: Vec<Put> = (0..100).map(|id| put(&format!("c{id}"), "i")).collect();
    let error = store.apply(&report(0, puts)).expect_err("nobody answers");
    let took = begun.elapsed();
    server.signal(Signal::CONT);
    assert!(error.timed_out && error.uncertain, "{error:?}");
    let limits = Duration::from_millis(4_900)..Duration::from_millis(6_000);
    assert!(limits.contains(&took), "{took:?}");
    // It may run late, while we connect anew; what open says of it has to be the last word.
    let opened = store.open().expect("open");
    assert_eq!(opened.lost, []);
    let mut client = server.client();
    until("the old connection is gone", || {
        client.text("CLIENT LIST").lines().count() == 2
    });
    let exists = client.text("EXISTS docker:containers:c99") == "1";
    assert_eq!(opened.ran, Some(exists));
    done(store.apply(&report(0, vec![])));
}

#[test]
fn what_a_successor_finds() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    let mut whole = report(
        0,
        vec![put_with(
            "c1",
            "i",
            true,
            &[("config_image", "i"), ("state_startedat", "then")],
        )],
    );
    whole.hosts[0].fields.push(("engine_id", "E".to_owned()));
    whole.hosts[0].resume_ns = Some(42);
    done(store.apply(&whole));
    assert_eq!(client.text("TTL docker:hosts:a:resume"), "300");
    store.release(&[A]).expect("release");
    assert_eq!(client.text("HGET docker:hosts:a status"), "stopped");
    assert_eq!(
        client.text("EXISTS docker:hosts:a:lease docker:engines:engine0@machine0"),
        "0"
    );
    assert_eq!(
        fenced(store.apply(&whole)).lost,
        [A],
        "what was released is not held"
    );
    let mut next = server.store("next");
    next.open().expect("open");
    let taken = next.take(&claims(&[0])).expect("take").remove(0);
    let found = taken.outcome.expect("a free lease");
    assert!(found.known && found.age_s.is_some_and(|age| age <= 2));
    assert_eq!(
        (found.status.as_str(), found.engine_id.as_str()),
        ("stopped", "E")
    );
    assert_eq!(found.resume_ns, Some(42));
    assert_eq!(
        found.runs,
        [FoundRun {
            id: "c1".into(),
            name: "name-c1".into(),
            image: "i".into(),
            started_at: "then".into()
        }]
    );
    // Whoever lost its host to another must not end the other's lease.
    let mut late = server.holding("late", &[1]);
    client.ask("SET docker:hosts:b:lease other:1");
    late.release(&[B]).expect("release");
    assert_eq!(client.text("GET docker:hosts:b:lease"), "other:1");
    assert_eq!(client.text("EXISTS docker:hosts:b"), "0");
}

#[test]
fn an_image_leaves_with_its_last_host() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let mut second = server.holding("boot2", &[1]);
    done(first.apply(&report(0, vec![put("c1", "i")])));
    done(second.apply(&report(1, vec![put("c2", "i")])));
    let leave = |host, id: &str| {
        batch(host, |share| {
            share.drops = vec![gone(id, "i")];
            share.images_left = vec!["i".into()];
        })
    };
    done(first.apply(&leave(0, "c1")));
    assert_eq!(client.list("SMEMBERS docker:images"), ["i"]);
    assert_eq!(client.list("SMEMBERS docker:images:i:hosts"), ["b"]);
    assert_eq!(client.list("SMEMBERS docker:images:i:containers"), ["c2"]);
    // The other host starts it again before the first looks: the next transaction must not suffer.
    done(first.apply(&report(0, vec![put("c1", "i")])));
    done(second.apply(&leave(1, "c2")));
    done(first.apply(&leave(0, "c1")));
    assert_eq!(
        client.text("EXISTS docker:images docker:images:i:hosts docker:images:i:containers"),
        "0"
    );
    // Two hosts that start and stop it all the time.
    thread::scope(|scope| {
        for (host, store) in [(0, &mut first), (1, &mut second)] {
            scope.spawn(move || {
                let id = format!("d{host}");
                for _ in 0..200 {
                    done(store.apply(&report(host, vec![put(&id, "i")])));
                    done(store.apply(&leave(host, &id)));
                }
                done(store.apply(&report(host, vec![put(&id, "i")])));
            });
        }
    });
    assert_eq!(client.list("SMEMBERS docker:images"), ["i"]);
    assert_eq!(client.list("SMEMBERS docker:images:i:hosts"), ["a", "b"]);
}

/// Lets a host's agent die, and its data grow old.
fn let_die(client: &mut Client, id: &str) {
    client.ask(&format!("DEL docker:hosts:{id}:lease"));
    client.ask(&format!("ZADD docker:alive 1 {id}"));
    client.ask(&format!("HSET docker:hosts:{id} last_update 1"));
}

#[test]
fn a_dead_host_is_marked_once_and_expired_once() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut dead = server.holding("dead", &[0]);
    let puts: Vec<Put> = (0..1_200).map(|id| put(&format!("c{id}"), "i")).collect();
    done(dead.apply(&report(0, puts)));
    let mut other = server.holding("other", &[1]);
    // It moved: its agent was given another id, and reports it under that.
    done(other.apply(&report(1, vec![put("c7", "i"), put("d", "j")])));
    let mut listener = server.client();
    listener.ask("SUBSCRIBE docker_events");

    client.ask("DEL docker:hosts:a:lease");
    client.ask("ZADD docker:alive 1 a");
    let mut racers: Vec<RedisStore> = (0..10)
        .map(|racer| server.store(&format!("racer{racer}")))
        .collect();
    for racer in &mut racers {
        racer.open().expect("open");
    }
    let bury = |racers: &mut Vec<RedisStore>| -> Vec<Burial> {
        let barrier = Barrier::new(racers.len());
        thread::scope(|scope| {
            let running: Vec<_> = racers
                .iter_mut()
                .map(|racer| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        racer.bury(&["a".to_owned()]).expect("bury")
                    })
                })
                .collect();
            running
                .into_iter()
                .flat_map(|racer| racer.join().expect("a racer failed"))
                .collect()
        })
    };
    assert_eq!(bury(&mut racers), [Burial::Lost("a".into())]);
    assert_eq!(client.text("HGET docker:hosts:a status"), "lost");
    assert_eq!(bury(&mut racers), []);

    client.ask("HSET docker:hosts:a last_update 1");
    let mut burials = Vec::new();
    until("somebody expires the host", || {
        burials.extend(bury(&mut racers));
        client.text("EXISTS docker:hosts:a") == "0"
    });
    assert!(
        matches!(&burials[..], [Burial::Expired(host, count)] if host == "a" && *count <= 1_199),
        "{burials:?}"
    );
    assert_eq!(bury(&mut racers), []);
    let keys = [
        "alive",
        "containers",
        "containers:c7",
        "containers:c7:json",
        "containers:d",
        "containers:d:json",
        "hosts",
        "hosts:b",
        "hosts:b:containers",
        "hosts:b:manifest",
        "hosts:b:names",
        "images",
        "images:i:containers",
        "images:i:hosts",
        "images:j:containers",
        "images:j:hosts",
    ];
    assert_eq!(client.keys(), keys.map(|key| format!("docker:{key}")));
    assert_eq!(client.list("SMEMBERS docker:containers"), ["c7", "d"]);
    assert_eq!(client.list("SMEMBERS docker:images:i:containers"), ["c7"]);
    assert_eq!(client.list("SMEMBERS docker:images:i:hosts"), ["b"]);
    assert_eq!(client.list("ZRANGE docker:alive 0 -1"), ["b"]);
    for line in ["host_down:a", "expired_host:a"] {
        assert_eq!(
            texts(&listener.receive()),
            ["message", "docker_events", line]
        );
    }
    client.ask("PUBLISH docker_events end");
    assert_eq!(
        texts(&listener.receive())[2],
        "end",
        "each notice came once"
    );
}

#[test]
fn a_host_that_lives_is_not_buried_and_ours_is_not_overdue() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let mut second = server.holding("boot2", &[1, 2]);
    done(first.apply(&report(0, vec![put("c1", "i")])));
    client.ask("HSET docker:hosts:a last_update 1");
    client.ask("ZADD docker:alive 1 a 1 b 1 c");
    assert_eq!(
        overdue(second.beat(&claims(&[1]))),
        ["a"],
        "a heartbeat that is late is not overdue to itself"
    );
    assert_eq!(
        second.bury(&["a".into()]).expect("bury"),
        [],
        "its lease lives"
    );
    assert_eq!(overdue(first.beat(&claims(&[0]))), ["c"], "others see it");
    assert_eq!(first.bury(&["c".into()]).expect("bury"), []);
    client.ask("DEL docker:hosts:a:lease");
    assert_eq!(
        second.bury(&["a".into()]).expect("bury"),
        [],
        "it was heard of in time"
    );
    // Somebody who only watches sees the same.
    client.ask("ZADD docker:alive 1 a");
    let mut idle = server.store("idle");
    idle.open().expect("open");
    assert_eq!(overdue(idle.beat(&[])), ["a", "c"]);
    done(second.apply(&report(1, vec![])));
}

#[test]
fn a_host_that_was_stopped_is_expired_without_being_lost() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    done(first.apply(&report(0, vec![put("c1", "i")])));
    first.release(&[A]).expect("release");
    let mut second = server.holding("boot2", &[1]);
    client.ask("ZADD docker:alive 1 a");
    assert_eq!(second.bury(&["a".into()]).expect("bury"), []);
    let_die(&mut client, "a");
    assert_eq!(
        second.bury(&["a".into()]).expect("bury"),
        [Burial::Expired("a".into(), 1)]
    );
    assert_eq!(client.keys(), ["docker:alive"]);
    // All keys of another ran out before anybody was there to see it.
    client.ask("ZADD docker:alive 1 c");
    assert_eq!(
        second.bury(&["c".into()]).expect("bury"),
        [Burial::Expired("c".into(), 0)]
    );
    assert_eq!(client.list("ZRANGE docker:alive 0 -1"), ["b"]);
}

#[test]
fn a_host_whose_engine_is_reported_under_another_id_is_expired_at_once() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let mut second = server.store("boot2");
    second.open().expect("open");
    // Its engine has not answered yet; what stands there is from an earlier life.
    let mut claim = claims(&[1]);
    let identity = claims(&[0])[0].identity.clone();
    claim[0].identity = None;
    assert!(second.take(&claim).expect("take")[0].outcome.is_ok());
    done(second.apply(&report(1, vec![put("c1", "i")])));
    claim[0].identity = identity;
    let Ok(Beaten::Fenced(found)) = second.beat(&claim) else {
        panic!("the same engine was reported twice");
    };
    assert_eq!(found.held, [(B, Holder::Host("a".into()))]);
    let mut burials = Vec::new();
    until("it is expired", || {
        for id in overdue(first.beat(&claims(&[0]))) {
            burials.extend(first.bury(&[id]).expect("bury"));
        }
        !burials.is_empty()
    });
    assert_eq!(burials, [Burial::Expired("b".into(), 1)]);
    assert_eq!(client.list("SMEMBERS docker:hosts"), [] as [&str; 0]);
    assert_eq!(client.text("EXISTS docker:containers:c1"), "0");
}

#[test]
fn a_host_whose_engine_was_long_away_is_expired_two_intervals_after_its_agent_died() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut dead = server.holding("dead", &[0]);
    done(dead.apply(&report(0, vec![put("c1", "i")])));
    client.ask("HSET docker:hosts:a last_update 1 status down");
    client.ask("DEL docker:hosts:a:lease");
    let now: u64 = texts(&client.ask("TIME"))[0].parse().expect("seconds");
    client.ask(&format!("ZADD docker:alive {} a", now - 1));
    let mut other = server.holding("other", &[1]);
    let mut bury = || other.bury(&["a".into()]).expect("bury");
    assert_eq!(bury(), [Burial::Lost("a".into())]);
    assert_eq!(bury(), [], "its containers may well run on");
    client.ask("ZADD docker:alive 1 a");
    assert_eq!(bury(), [Burial::Expired("a".into(), 1)]);
}

#[test]
fn the_janitor_removes_what_no_manifest_explains() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let mut second = server.holding("boot2", &[1]);
    done(first.apply(&report(0, vec![put("c1", "i"), put("c2", "j")])));
    done(second.apply(&report(1, vec![put("c3", "i")])));
    let before = client.keys();
    client.ask("SADD docker:containers x1 x2");
    client.ask("SADD docker:images:i:containers x1 c2");
    client.ask("SADD docker:images:i:hosts c ghost");
    client.ask("SADD docker:images:j:hosts b");
    client.ask("SADD docker:images none ghostly");
    client.ask("SADD docker:images:ghostly:hosts ghost");
    client.ask("SADD docker:images:ghostly:containers x1");
    // Explained, although the hash that would say so is gone.
    client.ask("DEL docker:containers:c3");
    client.ask("SADD docker:hosts orphan");
    let swept = first.sweep().expect("sweep");
    // Of the images' own sets only those of the first round's images are among them.
    assert!(swept.removed >= 4, "{swept:?}");
    assert_eq!(swept.restored, 0);
    client.ask("SADD docker:containers x1");
    let early = second.sweep().expect("sweep");
    assert_eq!(early, Swept::default(), "once an interval");
    rounds(&mut client, &mut second);
    client.ask("SREM docker:hosts orphan");
    let mut expected: BTreeSet<String> = before.into_iter().collect();
    expected.remove("docker:containers:c3");
    assert_eq!(client.keys().into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(
        client.list("SMEMBERS docker:containers"),
        ["c1", "c2", "c3"]
    );
    assert_eq!(client.list("SMEMBERS docker:images"), ["i", "j"]);
    assert_eq!(client.list("SMEMBERS docker:images:i:hosts"), ["a", "b"]);
    assert_eq!(
        client.list("SMEMBERS docker:images:i:containers"),
        ["c1", "c3"]
    );
    assert_eq!(client.list("SMEMBERS docker:images:j:hosts"), ["a"]);
    assert_eq!(
        client.list("ZRANGE docker:alive 0 -1"),
        ["a", "b", "orphan"]
    );
    done(first.apply(&report(0, vec![])));
}

/// As many rounds of the janitor as it takes to look at everything, as if an interval passed between each two.
fn rounds(client: &mut Client, store: &mut RedisStore) -> Swept {
    let mut all = Swept::default();
    for round in 0..8 {
        client.ask(&format!("SET docker:janitor {round}:0"));
        let swept = store.sweep().expect("sweep");
        all.removed += swept.removed;
        all.restored += swept.restored;
    }
    all
}

#[test]
fn the_janitor_restores_what_is_missing() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let stopped = put_with("c4", "k", false, &[]);
    let puts = vec![put("c1", "i"), put("c2", "j"), put("c3", "j"), stopped];
    done(first.apply(&report(0, puts)));
    let before = client.keys();
    // What only a stopped container explains is foreign.
    client.ask("SADD docker:containers c4");
    client.ask("SADD docker:images k");
    client.ask("SREM docker:containers c1 c3");
    client.ask("DEL docker:images docker:images:j:containers");
    client.ask("SREM docker:images:i:hosts a");
    // Both faults of one image.
    client.ask("SADD docker:images:i:containers ghost");
    let swept = rounds(&mut client, &mut first);
    assert_eq!((swept.removed, swept.restored), (2, 7), "{swept:?}");
    assert_eq!(client.keys(), before);
    for (set, members) in [
        ("docker:containers", vec!["c1", "c2", "c3"]),
        ("docker:images", vec!["i", "j"]),
        ("docker:images:i:hosts", vec!["a"]),
        ("docker:images:i:containers", vec!["c1"]),
        ("docker:images:j:containers", vec!["c2", "c3"]),
    ] {
        assert_eq!(client.list(&format!("SMEMBERS {set}")), members, "{set}");
        let left = number(&client.ask(&format!("TTL {set}"))).unwrap_or(-1);
        assert!(left > 86_000, "{set}: {left}");
    }
}

#[test]
fn the_janitor_removes_keys_of_nobody_and_no_others() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    // Its agent has the lease, and is listed nowhere at this moment.
    let mut second = server.holding("boot2", &[1]);
    done(first.apply(&report(0, vec![put("c1", "i"), put("c2", "i")])));
    done(second.apply(&report(1, vec![])));
    client.ask("SREM docker:hosts b");
    client.ask("ZREM docker:alive b");
    for line in [
        "SET other:containers:x 1",
        "SET docker2:containers:x 1",
        "SET dockerx 1",
        "SET docker:containers:x:y 1",
        "SET docker:hosts:a:y 1",
        "SET docker:images:x 1",
        "SET docker:y:z 1",
    ] {
        client.ask(line);
    }
    let before = client.keys();
    for line in [
        "HSET docker:containers:ghost host a",
        "SET docker:containers:ghost:json {}",
        "RPUSH docker:containers:list x",
        "SADD docker:images:none:hosts a",
        "SADD docker:images:none:1:containers c1",
        "HSET docker:hosts:foreign status up",
        "SADD docker:hosts:foreign:containers ghost",
        "SADD docker:hosts:foreign:stopped ghost",
        "HSET docker:hosts:foreign:names n ghost",
        "HSET docker:hosts:foreign:manifest ghost i",
        "SET docker:hosts:foreign:lease x",
        "SET docker:hosts:foreign:resume 1",
        "SET docker:containers:c1 x",
        "DEL docker:containers:c2:json",
        "HSET docker:containers:c2:json x y",
    ] {
        client.ask(line);
    }
    let swept = first.sweep().expect("sweep");
    assert_eq!(swept.removed, 14, "{swept:?}");
    let mut expected: BTreeSet<String> = before.into_iter().collect();
    for key in ["docker:containers:c1", "docker:containers:c2:json"] {
        assert!(expected.remove(key), "{key}");
    }
    assert_eq!(client.keys().into_iter().collect::<BTreeSet<_>>(), expected);
    // Somebody deleted all lists of hosts: nobody is judged by what is left.
    client.ask("DEL docker:hosts docker:alive");
    assert_eq!(rounds(&mut client, &mut first), Swept::default());
}

#[test]
fn the_janitor_harms_nobody_who_writes_meanwhile() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let mut second = server.holding("boot2", &[1]);
    let over = Instant::now() + Duration::from_secs(2);
    let writer = thread::spawn(move || {
        let mut round = 0u32;
        while Instant::now() < over {
            let (id, image) = (format!("c{}", round % 7), format!("i{}", round % 5));
            let old = format!("i{}", (round + 3) % 5);
            done(second.apply(&batch(1, |share| {
                share.puts = vec![put(&id, &image)];
                share.puts[0].image_left = Some(old.as_str().into());
            })));
            done(second.apply(&batch(1, |share| {
                share.drops = vec![gone(&id, &image)];
                share.names_left = vec![format!("name-{id}").into()];
                share.images_left = vec![image.as_str().into()];
            })));
            round += 1;
        }
        done(second.apply(&report(1, vec![put("c1", "i1"), put("c2", "i2")])));
        second
    });
    while Instant::now() < over {
        rounds(&mut client, &mut first);
    }
    let second = writer.join().expect("the writer");
    let before = client.keys();
    assert_eq!(client.list("SMEMBERS docker:containers"), ["c1", "c2"]);
    assert_eq!(client.list("SMEMBERS docker:images"), ["i1", "i2"]);
    assert_eq!(client.list("SMEMBERS docker:images:i1:hosts"), ["b"]);
    assert_eq!(rounds(&mut client, &mut first), Swept::default());
    assert_eq!(client.keys(), before);
    drop(second);
}

#[test]
fn streams_and_notices() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut listener = server.client();
    listener.ask("SUBSCRIBE docker_events");
    let mut store = server.holding("boot", &[0]);
    let event = Event {
        kind: "container".into(),
        action: "die".into(),
        id: "c1".into(),
        attributes: vec![("image".into(), "i".into()), ("name".into(), "web".into())],
        time_ns: 5,
        ..Event::default()
    };
    done(store.apply(&batch(0, |share| {
        share.happened = vec![
            Happening::Event {
                event: Arc::new(event),
                inferred: true,
            },
            Happening::Gap {
                dropped: 3,
                reason: "full".into(),
            },
        ];
        share.notices = vec![
            Notice::DeleteContainer("c1".into()),
            Notice::RefreshContainers,
        ];
    })));
    let entries = client.ask("XRANGE docker:events - +");
    let entries: Vec<Vec<String>> = items(&entries)
        .iter()
        .map(|entry| texts(&items(entry)[1]))
        .collect();
    assert_eq!(
        entries[0].join(" "),
        "host a type container action die id c1 name web image i time 5 origin inferred"
    );
    assert!(
        entries[1]
            .join(" ")
            .starts_with("host a type docker-cache action gap reason full dropped 3 time 1"),
        "{entries:?}"
    );
    for line in ["delete_container:a:c1", "refresh_containers:a"] {
        assert_eq!(texts(&listener.receive())[2], line);
    }
}

#[test]
fn refusals_are_named_with_their_remedy() {
    let server = Server::start(&["--requirepass", "s3cret"]);
    let mut client = server.client();
    let error = |password: Option<&str>, user: Option<&str>| {
        let mut options = options(server.socket(), "boot");
        options.target.password = password.map(str::to_owned);
        options.target.username = user.map(str::to_owned);
        let mut store = RedisStore::new(options);
        let opened = store.open();
        opened
            .and_then(|_| store.take(&claims(&[0])))
            .map(|_| store)
            .map_err(|error| error.text)
    };
    let none = error(None, None).err().expect("no password");
    assert!(
        none.contains("NOAUTH") && none.contains("--cache-password-file"),
        "{none}"
    );
    let wrong = error(Some("guess"), None).err().expect("a wrong password");
    assert!(
        wrong.contains("WRONGPASS") && !wrong.contains("guess"),
        "{wrong}"
    );
    let mut store = error(Some("s3cret"), None).expect("the right password");
    client.ask("AUTH s3cret");
    client.ask("ACL SETUSER agent on >pass ~docker:* &docker_events +@all -multi");
    let multi = error(Some("pass"), Some("agent"))
        .err()
        .expect("no transactions");
    assert!(
        multi.contains("NOPERM") && multi.contains("`MULTI`"),
        "{multi}"
    );
    client.ask("ACL SETUSER agent ~docker:* &docker_events +@all");
    let mut agent = error(Some("pass"), Some("agent")).expect("the prefix is all it takes");
    done(agent.apply(&report(0, vec![])));
    client.ask("ACL SETUSER agent -publish");
    let publish = agent
        .apply(&report(0, vec![put("c1", "i")]))
        .expect_err("no notices");
    assert!(
        publish.text.contains("`PUBLISH`") && !publish.uncertain,
        "{publish}"
    );
    assert_eq!(
        client.text("EXISTS docker:containers:c1"),
        "0",
        "Redis would not queue it, so nothing ran"
    );

    client.ask("DEL docker:hosts:a:lease");
    store.take(&claims(&[0])).expect("take");
    client.ask("CONFIG SET maxmemory 1");
    let memory = store
        .apply(&report(0, vec![put("c1", "i")]))
        .expect_err("no memory");
    assert!(memory.text.contains("maxmemory"), "{memory}");
    assert!(
        error(Some("s3cret"), None)
            .err()
            .expect("no memory")
            .contains("maxmemory"),
        "open says so already"
    );
    client.ask("CONFIG SET maxmemory 0");
    client.ask("REPLICAOF 127.0.0.1 1");
    let replica = error(Some("s3cret"), None).err().expect("a replica");
    assert!(
        replica.contains("READONLY") || replica.contains("MASTERDOWN"),
        "{replica}"
    );
    client.ask("REPLICAOF NO ONE");
    client.ask("CONFIG SET maxclients 1");
    let many = error(Some("s3cret"), None).err().expect("too many clients");
    assert!(many.contains("maxclients"), "{many}");
}

#[test]
fn what_is_no_redis_is_said_to_be_none() {
    let folder = std::env::temp_dir().join(format!("docker-cache-foreign-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let socket = folder.join("socket");
    let open = || {
        RedisStore::new(options(socket.clone(), "boot"))
            .open()
            .expect_err("no Redis")
            .text
    };
    assert!(open().contains("there is no such socket"), "{}", open());
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .expect("an answer");
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
    });
    assert!(open().contains("does not speak Redis's protocol"));
    server.join().expect("the server");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_tcp_address_and_a_database_number() {
    // No port is free for sure; the system picks one, and redis-server takes it a moment later.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.expect("a free port").port();
    let server = Server::start(&["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    let mut options = options(server.socket(), "boot");
    options.target.place = crate::config::CachePlace::Tcp {
        host: "localhost".into(),
        port,
    };
    options.target.database = 3;
    let mut store = RedisStore::new(options.clone());
    assert_eq!(
        store.open().expect("open").address,
        format!("localhost:{port}/3")
    );
    store.take(&claims(&[0])).expect("take");
    done(store.apply(&report(0, vec![put("c1", "i")])));
    let mut client = server.client();
    assert_eq!(client.keys(), [] as [&str; 0]);
    client.ask("SELECT 3");
    assert_eq!(client.text("EXISTS docker:containers:c1"), "1");
    options.target.database = 99;
    let error = RedisStore::new(options)
        .open()
        .expect_err("no such database");
    assert!(error.text.contains("`databases`"), "{error}");
    drop(server);
    let error = store.beat(&claims(&[0])).expect_err("it is gone");
    assert!(error.text.ends_with("the connection was closed"), "{error}");
    let error = store.open().expect_err("it is gone");
    assert!(
        error
            .text
            .contains("connection refused; is redis-server running there?"),
        "{error}"
    );
    assert!(!error.text.contains("os error"), "{error}");
}
