//! What the janitor removes and restores, and what it leaves alone.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::A;
use crate::store::link::number;
use crate::store::link::text;
use crate::store::redis::RedisStore;
use crate::store::testing::*;
use crate::store::*;

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
fn sets_of_many_members_and_a_redis_that_cannot_read_sets_together_are_no_hindrance() {
    for options in [&[][..], &["--rename-command", "ZUNION", ""]] {
        let server = Server::start(options);
        let mut client = server.client();
        let mut store = server.holding("boot", &[0]);
        let many = (0..150).map(|at| put(&format!("c{at}"), "many"));
        let few = (150..400).map(|at| put(&format!("c{at}"), &format!("i{}", at % 125)));
        done(store.apply(&report(0, many.chain(few).collect())));
        let before = client.keys();
        client.ask("SREM docker:images:many:containers c7");
        client.ask("SADD docker:images:many:containers ghost");
        for image in 0..125 {
            client.ask(&format!(
                "SREM docker:images:i{image}:containers c{}",
                250 + image
            ));
            client.ask(&format!("SADD docker:images:i{image}:hosts ghost c{image}"));
        }
        // Each is right among others, but not here.
        client.ask("SADD docker:images:i1:containers c200 c7");
        let swept = rounds(&mut client, &mut store);
        assert_eq!((swept.removed, swept.restored), (253, 126), "{swept:?}");
        assert_eq!(client.text("SCARD docker:images:many:containers"), "150");
        assert_eq!(client.keys(), before);
        for image in 0..125 {
            let set = format!("SMEMBERS docker:images:i{image}");
            let hosts = client.list(&format!("{set}:hosts"));
            assert_eq!(hosts, ["a"], "{image}");
            let two = |one: i32| [format!("c{one}"), format!("c{}", one + 125)];
            let wanted = two(if image < 25 { 250 + image } else { 125 + image });
            let containers = client.list(&format!("{set}:containers"));
            assert_eq!(containers, wanted, "{image}");
        }
    }
}

#[test]
fn a_sorted_set_with_the_right_members_does_not_pass_for_a_set() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.holding("boot", &[0]);
    done(store.apply(&report(0, vec![put("c1", "i"), put("c2", "j")])));
    for score in ["1", "2", "-1", "0.5", "1e300", "inf"] {
        for line in [
            "DEL docker:images:i:hosts docker:images:j:containers",
            &format!("ZADD docker:images:i:hosts {score} a"),
            &format!("ZADD docker:images:j:containers {score} c2"),
        ] {
            client.ask(line);
        }
        rounds(&mut client, &mut store);
        rounds(&mut client, &mut store);
        assert_eq!(client.list("SMEMBERS docker:images:i:hosts"), ["a"]);
        assert_eq!(client.list("SMEMBERS docker:images:j:containers"), ["c2"]);
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

/// Deletions that leave a host without its own word on what it runs. Its agent lives and puts them right with its next resync.
#[test]
fn the_janitor_leaves_a_host_that_lives_alone_while_its_own_keys_contradict_each_other() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut first = server.holding("boot1", &[0]);
    let mut second = server.holding("boot2", &[1, 2]);
    done(first.apply(&report(0, vec![put("c1", "i")])));
    let stopped = |id: &str, image: &str| put_with(id, image, false, &[]);
    let puts = vec![put("c2", "i"), put("c3", "own"), stopped("c4", "k")];
    let whole = report(1, puts);
    done(second.apply(&whole));
    // None of its containers runs.
    let still = report(2, vec![stopped("c5", "k")]);
    done(second.apply(&still));
    for line in [
        "DEL docker:hosts:b:manifest docker:hosts:c:manifest",
        "DEL docker:hosts:b:manifest docker:hosts:b:containers",
        "DEL docker:hosts:b docker:hosts:b:containers docker:hosts:b:stopped docker:hosts:b:names docker:hosts:b:manifest",
        "DEL docker:hosts:b docker:hosts:b:containers docker:hosts:b:stopped docker:hosts:b:names docker:hosts:b:manifest docker:hosts:b:lease",
        "DEL docker:hosts:b:manifest docker:hosts:b:containers docker:hosts docker:alive",
        "DEL docker:hosts:c:manifest docker:hosts:c:stopped docker:hosts:c:names",
        "SREM docker:hosts:b:containers c2",
        "HDEL docker:hosts:b:manifest c4",
        "SET docker:hosts:b:manifest x",
    ] {
        client.ask(line);
        client.ask("HSET docker:containers:ghost host b");
        let mended = ["docker:containers:ghost", "docker:hosts:b:manifest"];
        let keys = |client: &mut Client| -> Vec<String> {
            let mut keys = client.keys();
            keys.retain(|key| !mended.contains(&key.as_str()));
            keys
        };
        let before = keys(&mut client);
        for round in 0..10 {
            client.ask(&format!("SET docker:janitor {round}:0"));
            first.sweep().expect("sweep");
        }
        assert_eq!(keys(&mut client), before, "{line}");
        for (set, members) in [
            ("docker:containers", vec!["c1", "c2", "c3"]),
            ("docker:images", vec!["i", "own"]),
            ("docker:images:i:containers", vec!["c1", "c2"]),
            ("docker:images:own:hosts", vec!["b"]),
        ] {
            assert_eq!(client.list(&format!("SMEMBERS {set}")), members, "{line}");
        }
        // The next resyncs of both.
        for (report, host) in [
            (&report(0, vec![put("c1", "i")]), 0),
            (&whole, 1),
            (&still, 2),
        ] {
            let store = if host == 0 { &mut first } else { &mut second };
            store.take(&claims(&[host])).expect("take");
            done(store.apply(report));
            store.beat(&claims(&[host])).expect("beat");
        }
        rounds(&mut client, &mut first);
        assert_eq!(client.text("EXISTS docker:containers:ghost"), "0", "{line}");
    }
}

#[test]
fn names_that_are_not_text_are_removed() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.holding("boot", &[0]);
    done(store.apply(&report(0, vec![put("c1", "i")])));
    let before = client.keys();
    let bad: &[u8] = b"\xff\xfe";
    let key = |name: &str| [b"docker:".as_slice(), name.as_bytes(), bad].concat();
    let foreign: [&[&[u8]]; 12] = [
        &[b"SADD", b"docker:containers", bad],
        &[b"SADD", b"docker:images", bad],
        &[b"SADD", b"docker:images:i:hosts", bad],
        &[b"SADD", b"docker:images:i:containers", bad],
        &[b"SADD", b"docker:hosts", bad],
        &[b"ZADD", b"docker:alive", b"1", bad],
        &[b"SADD", b"docker:hosts:a:containers", bad],
        &[b"SADD", b"docker:hosts:a:stopped", bad],
        &[b"HSET", b"docker:hosts:a", bad, b"x"],
        &[b"HSET", b"docker:hosts:a:names", bad, b"c1"],
        &[b"HSET", b"docker:hosts:a:manifest", bad, b"i"],
        &[b"HSET", b"docker:hosts:a:names", b"foreign", bad],
    ];
    for words in foreign {
        client.bytes(words);
    }
    for name in ["containers:", "images:", "hosts:"] {
        let end = if name == "images:" { ":hosts" } else { "" };
        let key = [key(name), end.into()].concat();
        client.bytes(&[b"SADD", &key, b"x"]);
    }
    // Of a form that no agent writes: not ours.
    let other = key("other:");
    client.bytes(&[b"SET", &other, b"x"]);
    let audit = store.audit(A).expect("audit");
    assert!(audit.running.iter().eq(["c1"]));
    assert_eq!(audit.names.pairs().count(), 2, "{audit:?}");
    for (set, wanted) in [
        ("SCARD docker:hosts:a:containers", "1"),
        ("SCARD docker:hosts:a:stopped", "0"),
    ] {
        assert_eq!(client.text(set), wanted, "{set}");
    }
    for (hash, wanted) in [("", "3"), (":names", "2"), (":manifest", "1")] {
        let line = format!("HLEN docker:hosts:a{hash}");
        assert_eq!(client.text(&line), wanted, "{line}");
    }
    rounds(&mut client, &mut store);
    for set in [
        "containers",
        "images",
        "images:i:hosts",
        "images:i:containers",
        "hosts",
    ] {
        assert_eq!(client.text(&format!("SCARD docker:{set}")), "1", "{set}");
    }
    assert_eq!(client.text("ZCARD docker:alive"), "1");
    assert_eq!(
        client.text("EXISTS docker:hosts:a docker:containers:c1"),
        "2"
    );
    client.bytes(&[b"DEL", &other]);
    assert_eq!(client.keys(), before);
}

#[test]
fn shared_keys_that_would_live_for_ever_or_are_of_a_wrong_type_are_put_right_without_a_write() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut store = server.holding("boot", &[0]);
    done(store.apply(&report(0, vec![put("c1", "i")])));
    let before = client.keys();
    let sets = [
        "hosts",
        "containers",
        "images",
        "images:i:hosts",
        "images:i:containers",
    ];
    for change in ["PERSIST KEY", "EXPIRE KEY 60", "EXPIRE KEY 1000000"] {
        for set in sets {
            client.ask(&change.replace("KEY", &format!("docker:{set}")));
        }
        rounds(&mut client, &mut store);
        for set in sets {
            let line = format!("TTL docker:{set}");
            let left: u64 = client.text(&line).parse().expect("a time to live");
            assert!(
                (86_000..=86_400).contains(&left),
                "{change}: {set} lives {left} s"
            );
        }
    }
    for set in sets.iter().chain(&["alive", "events", "runs"]) {
        client.ask(&format!("SET docker:{set} x"));
    }
    client.ask("HSET docker:hosts:a:resume x y");
    rounds(&mut client, &mut store);
    store.beat(&claims(&[0])).expect("beat");
    rounds(&mut client, &mut store);
    done(store.apply(&report(0, vec![])));
    assert_eq!(client.keys(), before);
    for set in sets {
        assert_eq!(client.text(&format!("SCARD docker:{set}")), "1", "{set}");
    }
}

#[test]
fn whoever_is_the_janitor_goes_on_where_the_last_one_ended() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut stores: Vec<RedisStore> = (0..3)
        .map(|agent| server.holding(&format!("boot{agent}"), &[agent]))
        .collect();
    for (agent, store) in (0..).zip(&mut stores) {
        done(store.apply(&report(agent, vec![])));
    }
    // More than one round doubts.
    for many in 0..12_000 {
        client.send(&["SET", &format!("docker:containers:ghost{many}"), "x"]);
    }
    for _ in 0..12_000 {
        client.receive();
    }
    let mut monitor = server.client();
    monitor.ask("MONITOR");
    for (turn, store) in stores.iter_mut().enumerate() {
        let last = client.text("GET docker:janitor");
        let cursor = last.rsplit(':').next().filter(|_| turn > 0).unwrap_or("0");
        assert_eq!(cursor == "0", turn == 0, "{last}");
        client.ask(&format!("SET docker:janitor {turn}:0:{cursor}"));
        store.sweep().expect("sweep");
        let first = loop {
            let line = text(&monitor.receive()).expect("a line");
            if let Some((_, words)) = line.split_once("\"SCAN\" ") {
                break words.split(' ').next().unwrap_or_default().to_owned();
            }
        };
        assert_eq!(first, format!("\"{cursor}\""));
        client.ask("PING end");
        while !text(&monitor.receive())
            .expect("a line")
            .ends_with("\"PING\" \"end\"")
        {}
    }
    assert_eq!(client.text("EXISTS docker:containers:ghost1"), "0");
    assert!(client.text("GET docker:janitor").starts_with("3:"));
}
