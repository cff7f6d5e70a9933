//! The fake engine keeps moby's rules: what is tested against it would else be tested against a fancy.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::engine::containers::Spec;
use crate::engine::events::{QUEUE, RING, Schema};
use crate::engine::http::{Place, http_date, rfc3339};
use crate::engine::{Behaviour, Engine, Route};
use crate::kit::http::{Reply, Stream, get};
use crate::kit::{TempDir, seconds, wait_until};

fn tcp() -> Engine {
    Engine::listen(&Place::Tcp("127.0.0.1:0".into())).unwrap()
}

fn ids(list: &Reply) -> BTreeSet<String> {
    let rows = list.json();
    let ids = rows.as_array().unwrap().iter();
    ids.map(|row| row["Id"].as_str().unwrap().to_owned())
        .collect()
}

/// Subscribes, and knows that it is subscribed.
fn subscribe(engine: &Engine, query: &str) -> Stream {
    let before = engine.subscribers();
    let stream = Stream::open(engine.place(), &format!("/v1.41/events{query}"));
    wait_until(seconds(5), "the stream is subscribed", || {
        engine.subscribers() > before
    });
    stream
}

#[test]
fn a_unix_socket_answers_what_an_agent_asks() {
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
    let web = engine.run(Spec::named("web").label("tier", "front").env("A", "1"));
    let job = engine.create(Spec::named("job"));

    let ping = get(engine.place(), "/_ping");
    assert_eq!((ping.status, ping.body.as_str()), (200, "OK"));
    assert!(
        ping.headers.contains("Api-Version: 1.41\r\n"),
        "{}",
        ping.headers
    );
    assert!(ping.headers.contains(" GMT\r\n"), "{}", ping.headers);
    assert_eq!(
        get(engine.place(), "/v1.41/info").json()["ContainersRunning"],
        1
    );
    assert_eq!(
        get(engine.place(), "/v1.41/version").json()["ApiVersion"],
        "1.41"
    );

    let list = |query: &str| {
        ids(&get(
            engine.place(),
            &format!("/v1.41/containers/json{query}"),
        ))
    };
    assert_eq!(list(""), [web.clone()].into());
    assert_eq!(list("?all=1"), [web.clone(), job.clone()].into());
    assert_eq!(
        list("?all=1&filters=%7B%22label%22%3A%5B%22tier%3Dfront%22%5D%7D"),
        [web.clone()].into()
    );
    assert_eq!(
        list("?all=1&filters=%7B%22label%22%3A%7B%22tier%3Dback%22%3Atrue%7D%7D"),
        [].into()
    );
    assert_eq!(
        list("?filters=%7B%22status%22%3A%5B%22created%22%5D%7D"),
        [job.clone()].into()
    );
    let only = format!("?all=1&filters=%7B%22id%22%3A%5B%22{job}%22%5D%7D");
    assert_eq!(list(&only), [job].into());

    let inspect = get(engine.place(), &format!("/v1.41/containers/{web}/json"));
    let json = inspect.json();
    assert!(inspect.body.len() > 4500, "{} bytes", inspect.body.len());
    assert_eq!(json["Id"], *web);
    assert_eq!(json["Name"], "/web");
    assert_eq!(json["State"]["Status"], "running");
    assert_eq!(json["Config"]["Labels"]["tier"], "front");
    assert_eq!(json["Config"]["Env"][0], "A=1");
    assert_eq!(
        json["NetworkSettings"]["IPAddress"],
        json["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    );
    assert_eq!(
        get(engine.place(), "/containers/web/json").json()["Id"],
        *web
    );
}

#[test]
fn errors_have_the_words_of_moby() {
    let engine = tcp();
    let missing = get(engine.place(), "/v1.41/containers/nope/json");
    assert_eq!(
        (missing.status, missing.message()),
        (404, "No such container: nope".into())
    );
    let new = get(engine.place(), "/v1.99/info");
    let text = "client version 1.99 is too new. Maximum supported API version is 1.41";
    assert_eq!((new.status, new.message().as_str()), (400, text));
    let old = get(engine.place(), "/v1.2/info");
    let text = "client version 1.2 is too old. Minimum supported API version is 1.12, please upgrade your client to a newer version";
    assert_eq!((old.status, old.body.as_str()), (400, text));
    engine.version("29.0.0", (1, 44), (1, 52));
    assert!(
        get(engine.place(), "/v1.41/events")
            .message()
            .contains("API version is 1.44")
    );
}

#[test]
fn a_stream_tells_what_happens_in_the_order_of_moby() {
    let engine = tcp();
    let mut stream = subscribe(&engine, "");
    let id = engine.run(Spec::named("a").label("exitCode", "label"));
    engine.exec(&id, "/bin/sh -c id");
    engine.health(&id, "unhealthy");
    engine.rename(&id, "b");
    engine.stop(&id);
    engine.start(&id);
    engine.destroy(&id);
    let mut actions = Vec::new();
    loop {
        let event = stream.event().unwrap();
        let action = event["Action"].as_str().unwrap().to_owned();
        match action.as_str() {
            "die" => assert_eq!(
                event["Actor"]["Attributes"]["exitCode"], "label",
                "labels lie"
            ),
            "rename" => assert_eq!(event["Actor"]["Attributes"]["oldName"], "/a"),
            "start" => assert_eq!(event["from"], "busybox:latest"),
            _ => {}
        }
        actions.push(action);
        if actions.last().unwrap() == "destroy" {
            break;
        }
    }
    let wanted = "create,connect,start,exec_create: /bin/sh -c id,exec_start: /bin/sh -c id,exec_die,\
                  health_status: unhealthy,rename,kill,die,disconnect,stop,connect,start,destroy";
    assert_eq!(actions.join(","), wanted);
}

#[test]
fn since_reads_the_ring_and_until_ends_the_stream() {
    let engine = tcp();
    let id = engine.run(Spec::named("a"));
    for _ in 0..RING + 50 {
        engine.top(&id);
    }
    let now = engine.now_ns() / 1_000_000_000;
    let past = |since: &str| {
        let path = format!("/v1.41/events?since={since}&until={}", now + 1);
        let mut stream = Stream::open(engine.place(), &path);
        let mut count = 0;
        while stream.event().is_some() {
            count += 1;
        }
        count
    };
    assert_eq!(past("0.000000000"), RING, "the ring holds no more");
    engine.ring_size(10);
    assert_eq!(past("0"), 10);
    assert_eq!(past(&(now + 1).to_string()), 0);
    assert_eq!(
        get(engine.place(), "/v1.41/events?since=5&until=4").status,
        400
    );
}

#[test]
fn a_reader_that_stalls_costs_the_engine_100_ms_an_event_and_loses_events() {
    let engine = tcp();
    let id = engine.run(Spec::named("a"));
    let stream = subscribe(&engine, "");
    // Nobody reads: the sockets' buffers fill (lines of 100 kB), then the queue.
    let long = "x".repeat(100_000);
    let mut told = 0;
    while engine.events_dropped() == 0 {
        told += 1;
        assert!(told < QUEUE + 500, "the queue took {told} events");
        engine.emit(&id, "top", &[("long", &long)]);
    }
    let began = Instant::now();
    engine.top(&id);
    assert!(
        began.elapsed() >= Duration::from_millis(95),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(engine.events_dropped(), 2);
    drop(stream);
    wait_until(
        seconds(5),
        "the engine sees that the reader hung up",
        || engine.subscribers() == 0,
    );
}

#[test]
fn it_hangs_and_lies_when_told_to() {
    let engine = tcp();
    let id = engine.run(Spec::named("a"));
    let inspect = format!("/v1.41/containers/{id}/json");
    engine.misbehave(Route::InspectOf(id.clone()), Behaviour::Hang);
    let place = engine.place().clone();
    let waiting = std::thread::spawn(move || get(&place, &inspect).status);
    wait_until(seconds(5), "the inspect hangs", || {
        engine.requests(&Route::InspectOf(id.clone())) == 1
    });
    assert_eq!(
        get(engine.place(), "/v1.41/containers/json").status,
        200,
        "nothing else hangs"
    );
    assert!(!waiting.is_finished());
    engine.behave(&Route::InspectOf(id.clone()));
    assert_eq!(waiting.join().unwrap(), 200);

    engine.misbehave(Route::List, Behaviour::Status(500, "no".into()));
    let list = get(engine.place(), "/v1.41/containers/json");
    assert_eq!((list.status, list.message().as_str()), (500, "no"));
    engine.behave(&Route::List);

    engine.stale_list(true);
    engine.stop(&id);
    assert_eq!(
        ids(&get(engine.place(), "/v1.41/containers/json")),
        [id.clone()].into()
    );
    engine.stale_list(false);
    assert_eq!(
        ids(&get(engine.place(), "/v1.41/containers/json")),
        [].into()
    );

    engine.misbehave(Route::List, Behaviour::Late(Duration::from_millis(50)));
    let began = Instant::now();
    get(engine.place(), "/v1.41/containers/json");
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[test]
fn it_refuses_and_comes_back_when_told_to() {
    // By a path: a port that is given up may be another's at once.
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
    engine.refuse();
    assert!(engine.place().connect().is_err());
    engine.come_up().unwrap();
    assert_eq!(get(engine.place(), "/_ping").status, 200);
}

#[test]
fn a_restart_cuts_streams_and_forgets_events() {
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
    let id = engine.run(Spec::named("a"));
    let mut stream = subscribe(&engine, "");
    engine.go_down();
    assert!(engine.place().connect().is_err());
    engine.die(&id, 1);
    engine.come_up().unwrap();
    assert!(stream.event().is_none());
    let mut past = Stream::open(engine.place(), "/v1.41/events?since=1&until=2000000000.5");
    engine.start(&id);
    assert_eq!(
        past.event().unwrap()["Action"],
        "connect",
        "the death was told to nobody"
    );
}

#[test]
fn streams_break_in_every_way() {
    let engine = tcp();
    let id = engine.run(Spec::named("a"));
    let mut stream = subscribe(&engine, "");
    engine.drop_next_events(2);
    engine.top(&id);
    engine.top(&id);
    engine.pause(&id);
    assert_eq!(stream.actions_until("pause"), ["pause"]);
    assert_eq!(engine.events_dropped(), 2);

    engine.emit_bytes("garbage\n");
    assert_eq!(stream.line().unwrap(), b"garbage\n");
    engine.slice(true);
    engine.unpause(&id);
    assert_eq!(stream.actions_until("unpause"), ["unpause"]);
    engine.slice(false);
    let schemas = [
        (Schema::JsonSeq, b'\x1e', "Action", true),
        (Schema::New, b'{', "status", false),
        (Schema::Old, b'{', "Action", false),
    ];
    for (schema, first, field, there) in schemas {
        engine.schema(schema);
        engine.top(&id);
        let line = stream.line().unwrap();
        assert_eq!(line[0], first);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text.contains(&format!("\"{field}\"")), there, "{text}");
    }
    engine.schema(Schema::Both);

    let mut silent = subscribe(&engine, "");
    engine.silence_streams();
    engine.cut_stream_after(100);
    let mut cut = subscribe(&engine, "");
    engine.top(&id);
    assert!(cut.event().is_none(), "it is cut within the first event");
    wait_until(seconds(5), "its subscription is over", || {
        engine.subscribers() == 2
    });
    let mut ended = subscribe(&engine, "");
    engine.end_streams();
    assert!(ended.event().is_none());
    engine.go_down();
    assert!(silent.event().is_none(), "nothing came while it was silent");
}

#[test]
fn dates_are_those_of_the_calendar() {
    assert_eq!(
        http_date(1_795_351_751_000_000_000),
        "Sun, 22 Nov 2026 12:49:11 GMT"
    );
    assert_eq!(
        rfc3339(1_795_351_751_918_845_300),
        "2026-11-22T12:49:11.9188453Z"
    );
    assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
    assert_eq!(rfc3339(-1_000_000_000), "1969-12-31T23:59:59Z");
}
