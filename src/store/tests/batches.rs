//! What a transaction writes, and what a reader sees of it.

use std::thread;

use super::{A, fenced};
use crate::store::link::{items, number, text, texts};
use crate::store::testing::*;
use crate::store::*;

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
fn a_container_of_the_same_shape_is_written_over_and_whole_whatever_became_of_its_keys() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    let over = |pid: &str| {
        let mut put = put_with("c1", "i", true, &[("state_pid", pid)]);
        put.shaped = true;
        report(0, vec![put])
    };
    done(store.apply(&report(
        0,
        vec![put_with("c1", "i", true, &[("state_pid", "1")])],
    )));
    let whole = |client: &mut Client, pid: &str| {
        assert_eq!(
            client.list("HKEYS docker:containers:c1"),
            ["host", "name", "state_pid"]
        );
        assert_eq!(client.text("HGET docker:containers:c1 state_pid"), pid);
        assert_eq!(client.text("TYPE docker:containers:c1:json"), "string");
        for key in ["c1", "c1:json"] {
            let ttl = client.ask(&format!("TTL docker:containers:{key}"));
            assert!(number(&ttl).is_some_and(|ttl| ttl > 0), "{key}: {ttl:?}");
        }
    };
    assert!(done(store.apply(&over("2"))).is_empty());
    whole(&mut client, "2");
    client.ask("HDEL docker:containers:c1 name");
    assert!(done(store.apply(&over("2"))).is_empty());
    whole(&mut client, "2");
    // What another host left there, or a human.
    client.ask("HSET docker:containers:c1 foreign 1");
    assert_eq!(done(store.apply(&over("2"))), [(A, "c1".into())]);
    let mut anew = over("2");
    anew.hosts[0].puts[0].shaped = false;
    assert!(done(store.apply(&anew)).is_empty());
    whole(&mut client, "2");
    client.ask("DEL docker:containers:c1 docker:containers:c1:json");
    done(store.apply(&over("3")));
    whole(&mut client, "3");
    client.ask("SET docker:containers:c1 text");
    let refused = store.apply(&over("4")).expect_err("it is no hash");
    assert!(refused.text.contains("WRONGTYPE"), "{}", refused.text);
    assert_eq!(
        client.text("TYPE docker:containers:c1"),
        "none",
        "it was removed"
    );
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
    assert!(audit.running.iter().eq(["c1"]));
    assert!(audit.names.pairs().eq([("name-c1", "c1")]));
    assert!(audit.manifest.pairs().eq([("c1", "i")]));
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
    let audit = store.audit(A).expect("audit");
    assert!(audit.running.is_empty());
    assert_eq!(client.text("EXISTS docker:hosts:a:containers"), "0");
}

#[test]
fn however_many_keys_are_of_a_wrong_type_one_refusal_is_all_they_cost() {
    let server = Server::start(&[]);
    let mut store = server.holding("boot", &[0]);
    let mut client = server.client();
    let mut whole = report(0, vec![put("c1", "i")]);
    whole.hosts[0].happened = vec![Happening::Gap {
        dropped: 0,
        reason: "for the stream".into(),
    }];
    done(store.apply(&whole));
    let keys = [
        "hosts",
        "containers",
        "images",
        "images:i:hosts",
        "images:i:containers",
        "hosts:a",
        "hosts:a:containers",
        "hosts:a:names",
        "hosts:a:manifest",
        "events",
    ];
    for key in keys {
        client.ask(&format!("SET docker:{key} text"));
    }
    store.apply(&whole).expect_err("keys of a wrong type");
    for key in keys {
        let line = format!("EXISTS docker:{key}");
        assert_eq!(client.text(&line), "0", "{key}");
    }
    store.open().expect("open");
    store.take(&claims(&[0])).expect("take");
    done(store.apply(&whole));
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
        attributes: [("image", "i"), ("name", "web")].into_iter().collect(),
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
