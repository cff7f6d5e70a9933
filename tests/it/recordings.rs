//! What real engines answered, through the real client; every version and form that an engine may speak; and what makes no sense at all.
//!
//! A little server replays the files of `fixtures/docker/<version>`; `tests/record` makes them.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use docker_cache::docker::client::{Client, Connection, DockerErrorKind, Events, MAX_API};
use docker_cache::docker::document::{Masker, document};

use docker_cache::model::{Address, ContainerId, Event};
use serde_json::Value;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::events::Schema;
use crate::engine::http::{Listener, Place, Request};
use crate::kit::TempDir;
use crate::kit::need::need;
use crate::kit::scene::{SOON, Scene};

/// The recordings of one engine, served on a socket.
struct Recorded {
    folder: PathBuf,
    place: PathBuf,
    _home: TempDir,
}

impl Recorded {
    /// Answers each path with a file of the folder until the test ends.
    fn serve(folder: &Path) -> Recorded {
        let home = TempDir::new();
        let place = home.join("d");
        let (listener, _) = Listener::bind(&Place::Unix(place.clone())).unwrap();
        let files = folder.to_owned();
        std::thread::spawn(move || {
            while let Ok(mut conn) = listener.accept() {
                let files = files.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(conn.try_clone().unwrap());
                    while let Ok(Some(request)) = Request::read(&mut reader) {
                        let answer = answer(&files, &request);
                        if conn.write_all(&answer).is_err() || request.path == "/events" {
                            break;
                        }
                    }
                    conn.shutdown();
                });
            }
        });
        Recorded {
            folder: folder.to_owned(),
            place,
            _home: home,
        }
    }

    fn address(&self) -> Address {
        Address::Unix(self.place.clone())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let path = self.folder.join(name);
        std::fs::read(&path)
            .unwrap_or_else(|error| panic!("failed to read `{}`: {error}", path.display()))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// A file as it is, or as the body of a 200.
fn answer(folder: &Path, request: &Request) -> Vec<u8> {
    let whole = |name: &str| std::fs::read(folder.join(name)).unwrap_or_default();
    let body = |name: &str| {
        let body = whole(name);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    };
    let filtered = |text: &str| {
        request
            .query
            .get("filters")
            .is_some_and(|filters| filters.contains(text))
    };
    match request.path.as_str() {
        "/_ping" => whole("ping.http"),
        "/info" => body("info.json"),
        "/version" => body("version.json"),
        // What is asked for by these times is the stream as it came, and the same lines without their framing.
        "/events"
            if request
                .query
                .get("since")
                .is_some_and(|since| since.starts_with("1.")) =>
        {
            whole("events.http")
        }
        "/events" => {
            let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for part in whole("events.jsonl").chunks(777) {
                out.extend(format!("{:x}\r\n", part.len()).into_bytes());
                out.extend(part);
                out.extend(b"\r\n");
            }
            [out, b"0\r\n\r\n".to_vec()].concat()
        }
        "/containers/json" => match request.version {
            Some((1, ..=20)) => whole("version-too-old.http"),
            Some((1, 90..)) => whole("version-too-new.http"),
            _ if filtered("no-such-filter") => whole("list-400.http"),
            _ if filtered("empty") => body("list-empty.json"),
            _ if request.query.get("all").is_some_and(|all| all == "1") => body("list-all.json"),
            _ => body("list.json"),
        },
        path => match path
            .strip_prefix("/containers/")
            .and_then(|rest| rest.strip_suffix("/json"))
        {
            Some(name) if folder.join(format!("{name}.json")).exists() => {
                body(&format!("{name}.json"))
            }
            _ => whole("inspect-404.http"),
        },
    }
}

/// Folders that hold recordings, by the version in their path.
fn recorded() -> BTreeMap<String, PathBuf> {
    fn walk(folder: &Path, name: &str, found: &mut BTreeMap<String, PathBuf>) {
        if folder.join("ping.http").exists() {
            found.insert(name.to_owned(), folder.to_owned());
            return;
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let part = entry.file_name().to_string_lossy().into_owned();
            walk(&entry.path(), &format!("{name}/{part}"), found);
        }
    }
    let mut found = BTreeMap::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/docker"),
        "",
        &mut found,
    );
    assert!(
        found.len() >= 4,
        "recordings are missing: {:?}",
        found.keys()
    );
    found
}

fn each(check: impl Fn(&str, &Recorded)) {
    for (version, folder) in recorded() {
        check(&version, &Recorded::serve(&folder));
    }
}

fn text<'a>(json: &'a Value, path: &str) -> &'a str {
    json.pointer(path).and_then(Value::as_str).unwrap_or("")
}

#[test]
fn fault_12_what_every_recorded_engine_says_of_itself_is_understood() {
    each(|version, engine| {
        let hello = Connection::new(&engine.address()).hello(SOON).unwrap();
        let (info, said) = (engine.json("info.json"), engine.json("version.json"));
        assert_eq!(hello.engine_id, text(&info, "/ID"), "{version}");
        assert_eq!(hello.host_name, text(&info, "/Name"), "{version}");
        assert_eq!(hello.os, text(&info, "/OperatingSystem"), "{version}");
        assert_eq!(hello.kernel, text(&info, "/KernelVersion"), "{version}");
        assert_eq!(
            hello.architecture,
            text(&info, "/Architecture"),
            "{version}"
        );
        assert_eq!(Some(hello.cpus), info["NCPU"].as_u64(), "{version}");
        assert_eq!(Some(hello.memory), info["MemTotal"].as_u64(), "{version}");
        assert!(
            hello.docker_version.starts_with(text(&said, "/Version")),
            "{version}: {}",
            hello.docker_version
        );
        assert!(
            hello.clock_ns > 1_700_000_000_000_000_000,
            "{version}: {}",
            hello.clock_ns
        );
        let number = |text: &str| {
            text.split_once('.')
                .and_then(|(_, minor)| minor.parse::<u32>().ok())
        };
        let theirs = number(text(&said, "/ApiVersion"));
        assert_eq!(
            number(&hello.api_version),
            theirs.min(number(MAX_API)),
            "{version}"
        );
    });
}

fn told(mut events: Events) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        match events.next(Instant::now() + SOON) {
            Ok(Some(event)) => all.push(event),
            Ok(None) => return all,
            // A recording may end where its client hung up.
            Err(error) if error.kind == DockerErrorKind::Broken => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn fault_12_every_recorded_event_is_decoded() {
    each(|version, engine| {
        // A connection serves one stream: this server hangs up behind it, and may do so only after the next question was sent.
        let stream = |since_ns| {
            told(
                Connection::new(&engine.address())
                    .events("1.41", since_ns, 3_000_000_000)
                    .unwrap(),
            )
        };
        let events = stream(2_000_000_000);
        let lines = String::from_utf8(engine.bytes("events.jsonl")).unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(events.len(), lines.len(), "{version}");
        assert!(
            lines.len() > 50,
            "{version}: {} events are no recording",
            lines.len()
        );
        for (event, line) in events.iter().zip(&lines) {
            assert_eq!(&*event.kind, text(line, "/Type"), "{version}: {line}");
            assert_eq!(&*event.id, text(line, "/Actor/ID"), "{version}: {line}");
            assert_eq!(
                Some(event.time_ns),
                line["timeNano"].as_i64(),
                "{version}: {line}"
            );
            let action = text(line, "/Action");
            match (event.verb(), action) {
                ("die", "died" | "die") | ("destroy", "remove" | "destroy") => {}
                (verb, action) if verb.starts_with("exec_") => {
                    assert!(action.starts_with(verb));
                    assert!(
                        !event.action.contains(' '),
                        "{version}: a command line: {}",
                        event.action
                    );
                }
                ("health_status", "health_status") => {}
                _ => assert_eq!(&*event.action, action, "{version}: {line}"),
            }
            let attributes = line.pointer("/Actor/Attributes").and_then(Value::as_object);
            for (name, value) in attributes
                .into_iter()
                .flatten()
                .filter(|(name, _)| *name != "containerExitCode")
            {
                assert_eq!(event.attribute(name), value.as_str(), "{version}: {line}");
            }
            if event.verb() == "die" {
                assert!(event.attribute("exitCode").is_some(), "{version}: {line}");
            }
        }
        let live = stream(1_000_000_000);
        assert!(
            !live.is_empty(),
            "{version}: the stream as it came holds no event"
        );
    });
}

#[test]
fn fault_12_every_recorded_list_and_inspect_is_decoded() {
    let clear = Masker::new(&[]).unwrap();
    each(|version, engine| {
        let mut client = Client::new(&engine.address());
        for (all, file) in [(false, "list.json"), (true, "list-all.json")] {
            let rows = client.list("1.41", all, &[], None, SOON).unwrap();
            let json = engine.json(file);
            let wanted: Vec<(&str, bool)> = json
                .as_array()
                .unwrap()
                .iter()
                .map(|row| {
                    (
                        text(row, "/Id"),
                        !matches!(
                            text(row, "/State"),
                            "created" | "exited" | "dead" | "configured" | "stopped"
                        ),
                    )
                })
                .collect();
            let found: Vec<(&str, bool)> = rows
                .iter()
                .map(|row| (row.id.as_str(), row.running))
                .collect();
            assert_eq!(found, wanted, "{version}/{file}");
        }
        let empty = [("label".to_owned(), "empty".to_owned())];
        assert_eq!(
            client.list("1.41", true, &empty, None, SOON).unwrap(),
            [],
            "{version}"
        );

        let mut count = 0;
        for entry in std::fs::read_dir(&engine.folder).unwrap().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = file
                .strip_suffix(".json")
                .filter(|name| name.starts_with("inspect-"))
            else {
                continue;
            };
            count += 1;
            let bytes = client
                .inspect("1.41", &ContainerId::from(name), SOON)
                .unwrap()
                .unwrap();
            let document = document(&bytes, &clear).unwrap();
            let mut wanted = engine.json(&file);
            let name = text(&wanted, "/Name").trim_start_matches('/').to_owned();
            assert_eq!(*document.summary.name, *name, "{version}/{file}");
            assert_eq!(
                *document.summary.image,
                *text(&wanted, "/Config/Image"),
                "{version}/{file}"
            );
            let state = text(&wanted, "/State/Status");
            let running = matches!(state, "running" | "paused" | "restarting");
            assert_eq!(
                document.summary.running, running,
                "{version}/{file}: {state}"
            );
            assert!(
                document.fields.get("state_status") == Some(state),
                "{version}/{file}"
            );
            if let Some(all) = wanted.as_object_mut() {
                all.remove("ExecIDs");
            }
            for health in ["/State/Health", "/State/Healthcheck"] {
                if let Some(health) = wanted.pointer_mut(health).and_then(Value::as_object_mut) {
                    health.remove("Log");
                }
            }
            let mut json: Value = serde_json::from_str(&document.json).unwrap();
            if let Some(health) = json
                .pointer_mut("/State/Healthcheck")
                .and_then(Value::as_object_mut)
            {
                health.remove("Log");
            }
            assert_eq!(
                json, wanted,
                "{version}/{file}: the document is the inspect"
            );
        }
        assert!(count >= 5, "{version}: {count} inspects");
    });
}

#[test]
fn fault_12_every_recorded_refusal_is_told_as_what_it_is() {
    each(|version, engine| {
        let mut client = Client::new(&engine.address());
        let gone = client.inspect("1.41", &ContainerId::from("no-such-container"), SOON);
        assert_eq!(gone, Ok(None), "{version}: 404 is an answer");
        let filters = [("no-such-filter".to_owned(), "x".to_owned())];
        let error = client
            .list("1.41", false, &filters, None, SOON)
            .unwrap_err();
        assert!(
            matches!(error.kind, DockerErrorKind::Status(400 | 500)),
            "{version}: {error}"
        );
        assert!(error.text.contains("no-such-filter"), "{version}: {error}");
        // Podman takes any version.
        for (api, words) in [("1.10", "is too old"), ("1.99", "is too new")] {
            match client.list(api, false, &[], None, SOON) {
                Ok(_) => assert!(version.contains("podman"), "{version} takes {api}"),
                Err(error) => {
                    assert_eq!(
                        error.kind,
                        DockerErrorKind::Status(400),
                        "{version}: {error}"
                    );
                    assert!(
                        error.text.contains(words) && error.text.contains(api),
                        "{version}: {error}"
                    );
                }
            }
        }
    });
}

#[test]
fn fault_12_every_version_of_the_api_and_every_schema_is_spoken() {
    need!(redis);
    let scene = Scene::new();
    let schemas = [Schema::Both, Schema::New, Schema::JsonSeq];
    // From 1.40 to what does not exist yet; the newest ones refuse what is older than 1.44.
    let engines: Vec<(String, u32, Engine)> = (40..=56)
        .map(|minor| {
            let engine = scene.engine(&format!("s{minor}"));
            let oldest = if minor > 48 { (1, 44) } else { (1, 24) };
            engine.version(&format!("{minor}.0.0"), oldest, (1, minor));
            engine.schema(schemas[minor as usize % schemas.len()]);
            engine.run(
                Spec::named("a")
                    .label("exitCode", "lies")
                    .label("signal", "lies"),
            );
            (format!("v{minor}"), minor, engine)
        })
        .collect();
    let urls: Vec<String> = engines.iter().map(|(_, _, engine)| engine.url()).collect();
    let named: Vec<(&str, &str)> = engines
        .iter()
        .zip(&urls)
        .map(|((name, _, _), url)| (name.as_str(), url.as_str()))
        .collect();
    let agent = scene.watch(&named, &[]);
    let all: Vec<(&str, &Engine)> = engines
        .iter()
        .map(|(name, _, engine)| (name.as_str(), engine))
        .collect();
    scene.settle(SOON, &all);
    let newest: u32 = MAX_API.trim_start_matches("1.").parse().unwrap();
    let mut wanted = Vec::new();
    for (name, minor, engine) in &engines {
        let spoken: String =
            scene
                .redis
                .query(&["HGET", &format!("docker:hosts:{name}"), "api_version"]);
        assert_eq!(spoken, format!("1.{}", newest.min(*minor)), "{name}");
        let id = engine.run(Spec::named("b").label("exitCode", "lies"));
        engine.die(&id, 3);
        wanted.extend(["start", "die"].map(|word| format!("{name} {word} b")));
    }
    let lines: Vec<&str> = wanted.iter().map(String::as_str).collect();
    scene.expect_runs(SOON, &lines);
    scene.settle(SOON, &all);

    // An engine that is exchanged for an older one in the middle: what was agreed on is too new now.
    let (name, _, engine) = &engines[11];
    engine.version("20.10.24", (1, 12), (1, 41));
    engine.schema(Schema::Old);
    engine.restart().unwrap();
    let key = format!("docker:hosts:{name}");
    crate::kit::wait_until(SOON, "the older version is spoken", || {
        let spoken: String = scene.redis.query(&["HGET", &key, "api_version"]);
        spoken == "1.41"
    });
    let pauses = format!("{name} pause a");
    engine.pause(engine.running().first().unwrap());
    crate::kit::wait_until(SOON, "its events are understood", || {
        // Its stamps are of whole seconds: it may seem to have happened before the stream was open.
        scene.runs().keys().any(|run| run.starts_with(&pauses))
    });
    scene.settle(SOON, &all);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

#[test]
fn fault_12_an_engine_that_is_too_new_is_refused_with_a_clear_line() {
    need!(redis);
    let scene = Scene::new();
    let (new, fit) = (scene.engine("n"), scene.engine("f"));
    new.version("99.0.0", (1, 80), (1, 90));
    fit.run(Spec::named("a"));
    let agent = scene.watch(&[("new", &new.url()), ("fit", &fit.url())], &[]);
    let line =
        format!("client version {MAX_API} is too old. Minimum supported API version is 1.80");
    agent.wait_log(&line, SOON);
    crate::kit::wait_until(SOON, "the other engine is reported", || {
        let found: Option<u64> =
            scene
                .redis
                .query(&["HGET", "docker:hosts:fit", "containers_running"]);
        found == Some(1)
    });
    new.version("99.0.1", (1, 40), (1, 90));
    scene.settle(SOON, &[("new", &new), ("fit", &fit)]);
    assert_eq!(
        agent.log().matches("is too old").count(),
        1,
        "said once: {}",
        agent.log()
    );
}

#[test]
fn fault_12_lines_that_make_no_sense_are_told_skipped_and_harm_nothing() {
    need!(redis);
    let scene = Scene::new();
    let engine = scene.engine("d");
    let id = engine.run(Spec::named("a"));
    let agent = scene.report(&engine, &[]);
    let event = |kind: &str, action: &str, extra: &str| {
        format!(
            "{{\"Type\":\"{kind}\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"x\",\"Attributes\":{{\"name\":\"n\"{extra}}}}},\"timeNano\":{}}}\n",
            engine.now_ns()
        )
    };
    let long = event(
        "container",
        "sing",
        &format!(",\"long\":\"{}\"", "x".repeat(10 << 20)),
    );
    let odd: [Vec<u8>; 12] = [
        b"garbage\n".to_vec(),
        b"\n\r\n\x1e\n".to_vec(),
        b"{\"Type\":\"container\",\"Action\":\"sing\",\"Actor\":{\"ID\":\"\xff\xfe\"}}\n".to_vec(),
        b"{\"Type\":7,\"Action\":[],\"Actor\":null}\n".to_vec(),
        b"{}\n[]\nnull\n0\n\"\"\n".to_vec(),
        b"\x00\x01\x02\n".to_vec(),
        "{\"a\":".repeat(5000).into_bytes(),
        b"\n".to_vec(),
        event("spaceship", "launch", "").into_bytes(),
        event("container", "sing", ",\"exitCode\":\"a\",\"signal\":\"b\"").into_bytes(),
        event("container", "", "").into_bytes(),
        long.into_bytes(),
    ];
    for bytes in odd {
        engine.emit_bytes(bytes);
    }
    engine.pause(&id);
    scene.expect_runs(SOON, &["h pause a"]);
    // No event has 17 MB: that stream is given up, and the next one begins behind it.
    engine.emit_bytes(vec![b'x'; 17 << 20]);
    engine.unpause(&id);
    scene.expect_runs(SOON, &["h pause a", "h unpause a inferred"]);
    scene.settle(SOON, &[("h", &engine)]);
    agent.wait_log("a line is longer than 16 MiB", SOON);
    let log = agent.log();
    assert!(
        log.contains("`garbage`") && log.lines().count() < 40 && !log.contains("panicked"),
        "{log}"
    );
    assert!(
        log.lines().all(|line| line.len() < 1000),
        "no line of the log is long"
    );
}
