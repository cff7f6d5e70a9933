//! Who may write a host, and what stops whoever may not.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::{A, B, fenced, overdue};
use crate::store::link::texts;
use crate::store::testing::*;
use crate::store::*;

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
fn a_lease_that_the_store_lost_is_its_agents_for_a_heartbeat() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("first", &[0]);
    let mut second = server.store("second");
    second.open().expect("open");
    // The same id, and the same engine under another one.
    let other_id = vec![Claim {
        host: B,
        id: host_id(1),
        identity: claims(&[0])[0].identity.clone(),
    }];
    for change in [
        "FLUSHALL",
        "DEL docker:hosts:a:lease docker:engines:engine0@machine0",
        "DEL docker:hosts:a:lease docker:engines:engine0@machine0 docker:alive",
    ] {
        for claim in [&claims(&[0]), &other_id] {
            let mut holder = || second.take(claim).expect("take").remove(0).outcome;
            let held = holder().expect_err("the first lives");
            client.ask(change);
            for _ in 0..3 {
                assert_eq!(holder(), Err(held.clone()), "{change}");
            }
            let Ok(Beaten::Fenced(fenced)) = first.beat(&claims(&[0])) else {
                panic!("{change} was not noticed");
            };
            assert_eq!(fenced.lost, [A]);
            assert!(first.take(&claims(&[0])).expect("take")[0].outcome.is_ok());
            holder().expect_err("the first has it again");
        }
    }
    // Should it be dead, the wait has an end.
    client.ask("FLUSHALL");
    let begun = Instant::now();
    until("the second has it", || {
        second.take(&claims(&[0])).expect("take")[0].outcome.is_ok()
    });
    assert!(begun.elapsed() > Duration::from_secs(2));
}

#[test]
fn a_lease_that_was_given_back_or_ended_at_its_time_is_free_at_once() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for end in ["release", "expire"] {
        let mut first = server.holding("first", &[0]);
        done(first.apply(&report(0, vec![])));
        let mut second = server.store("second");
        second.open().expect("open");
        let mut take = || second.take(&claims(&[0])).expect("take").remove(0).outcome;
        take().expect_err("the first lives");
        if end == "release" {
            first.release(&[A]).expect("release");
        } else {
            // As ten seconds after its last heartbeat.
            let now = texts(&client.ask("TIME")).remove(0);
            client.ask(&format!("ZADD docker:alive {now} a"));
            client.ask("DEL docker:hosts:a:lease docker:engines:engine0@machine0");
        }
        take().expect("it is free");
        second.release(&[A]).expect("release");
    }
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
