//! Hosts whose agents are gone.

use std::sync::Barrier;
use std::thread;

use super::{A, B, overdue};
use crate::store::link::texts;
use crate::store::redis::RedisStore;
use crate::store::testing::*;
use crate::store::*;

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
