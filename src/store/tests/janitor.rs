//! What the janitor removes and restores, and what it leaves alone.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::store::link::number;
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
