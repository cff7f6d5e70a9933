//! What a command is told on its standard input and in its environment; all of it is data.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::containers::Spec;
use crate::kit::TempDir;
use crate::kit::agent::Agent;
use crate::kit::docker::Machine;
use crate::kit::http;
use crate::kit::need::need;
use crate::kit::redis::Redis;
use crate::kit::stand::{SOON, Stand};
use crate::kit::wait_until;

/// Adds its standard input to a file, whole lines at a time.
const NOTE: &str = "cat > DIR/$EVENT_RUN; cat DIR/$EVENT_RUN >> DIR/out";

/// So many objects that commands found on their standard input.
#[track_caller]
fn inputs(stand: &Stand, count: usize) -> Vec<Value> {
    let lines = stand.wait_lines("out", count);
    lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("a line is one JSON object"))
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("it is an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn the_standard_input_tells_the_event_the_engine_and_the_container() {
    let stand = Stand::new();
    stand.engine.engine_id("Q2:ID");
    let mut agent = stand.listen(&format!(
        "  - {{name: note, type: 'start, die, network/connect, image/pull', concurrency: 1, command: '{NOTE}'}}\n"
    ));
    let id = stand.engine.run(
        Spec::named("web-1")
            .image("ubuntu:22.04")
            .label("team", "core")
            .env("DB_PASSWORD", "hush"),
    );
    let told = inputs(&stand, 2);
    let start = told
        .iter()
        .find(|told| told["event"]["Action"] == "start")
        .expect("the start is told");
    // In whatever order; the fixed one is no promise.
    let expected = [
        "attempt",
        "container",
        "count",
        "engine",
        "entry",
        "event",
        "inferred",
        "run",
    ];
    assert_eq!(keys(start), expected);
    let ns = start["event"]["timeNano"].as_i64().expect("a number");
    assert_eq!(
        start["event"],
        json!({
            "Type": "container",
            "Action": "start",
            "Actor": {"ID": id, "Attributes": {"image": "ubuntu:22.04", "name": "web-1", "team": "core"}},
            "scope": "local",
            "time": ns / 1_000_000_000,
            "timeNano": ns,
        })
    );
    let engine = json!({"name": "foo", "url": stand.engine.url(), "id": "Q2:ID"});
    assert_eq!(start["engine"], engine);
    let container = &start["container"];
    assert_eq!(container["Id"], *id);
    assert_eq!(container["State"]["Running"], true);
    assert_eq!(container["Config"]["Labels"]["team"], "core");
    // As the cache has it, also where there is none.
    let inspect = http::get(
        stand.engine.place(),
        &format!("/v1.41/containers/{id}/json"),
    )
    .json();
    assert_eq!(container["NetworkSettings"], inspect["NetworkSettings"]);
    let env = container["Config"]["Env"].as_array().expect("a list");
    assert!(env.contains(&json!("DB_PASSWORD=***")), "{env:?}");
    assert_eq!(
        (&start["attempt"], &start["count"], &start["inferred"]),
        (&json!(1), &json!(1), &json!(false))
    );
    assert_eq!(start["entry"], "note");
    let connect = told.iter().find(|told| told["event"]["Type"] == "network");
    assert_eq!(connect.expect("it is told")["container"]["Id"], *id);

    stand.engine.die(&id, 3);
    let die = inputs(&stand, 3).remove(2);
    assert_eq!(die["container"]["State"]["Running"], false);
    assert_eq!(die["container"]["State"]["ExitCode"], 3);
    assert_eq!(keys(&die), expected);

    stand
        .engine
        .emit_raw_event("image", "pull", "sha256:1", vec![]);
    let pull = inputs(&stand, 4).remove(3);
    assert_eq!(pull["container"], Value::Null);
    assert_eq!(pull["event"]["Type"], "image");
    assert!(agent.stop(SOON).success());
}

#[test]
fn of_a_container_that_is_gone_the_last_document_is_told() {
    let stand = Stand::new();
    let mut agent = stand.listen(&format!(
        "  - {{type: [start, die, destroy], command: '{NOTE}'}}\n"
    ));
    let id = stand.engine.run(Spec::named("job").auto_remove());
    let start = inputs(&stand, 1).remove(0);
    assert_eq!(start["container"]["State"]["Running"], true);
    stand.engine.die(&id, 3);
    let [die, destroy] = &inputs(&stand, 3)[1..] else {
        panic!("both are told");
    };
    for told in [die, destroy] {
        assert_eq!(told["container"]["Id"], *id);
    }
    // An inspect after the end may have come before the removal.
    let gone = die["container_gone"] == true;
    assert!(gone || die["container"]["State"]["Running"] == false);
    assert_eq!(destroy["container_gone"], true);
    // One that is removed long after it ended, and forgotten but for its document.
    let id = stand.engine.run(Spec::named("old"));
    inputs(&stand, 4);
    stand.engine.die(&id, 0);
    let die = inputs(&stand, 5).remove(4);
    assert_eq!(die["container"]["State"]["Running"], false);
    assert_eq!(die.get("container_gone"), None);
    stand.engine.destroy(&id);
    let destroy = inputs(&stand, 6).remove(5);
    assert_eq!(destroy["container"]["State"]["Running"], false);
    assert_eq!(destroy["container_gone"], true);
    assert!(agent.stop(SOON).success());
}

#[test]
fn what_is_inferred_says_why() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let entries = format!("  - {{type: [start, die], command: '{NOTE}'}}\n");
    let mut agent = stand.listen_and_report(&entries, &redis);
    let seen = stand.engine.run(Spec::named("seen"));
    let unseen = stand.engine.run(Spec::named("unseen"));
    inputs(&stand, 2);
    stand.settle(&redis);
    agent.kill9();
    stand.engine.die(&seen, 1);
    // The engine does not even remember it.
    stand.engine.quiet(true);
    stand.engine.die(&unseen, 1);
    stand.engine.quiet(false);
    let mut agent = stand.listen_and_report(&entries, &redis);
    let told: BTreeMap<String, Value> = inputs(&stand, 4)
        .drain(2..)
        .map(|told| {
            let name = told["event"]["Actor"]["Attributes"]["name"].clone();
            (name.as_str().unwrap_or_default().to_owned(), told)
        })
        .collect();
    for (name, reason) in [
        ("seen", "the engine told it only after an outage"),
        ("unseen", "no event told it: a resync found it"),
    ] {
        let told = &told[name];
        assert_eq!(told["event"]["Action"], "die");
        assert_eq!(told["inferred"], true, "{told}");
        assert_eq!(told["reason"], reason);
    }
    assert!(agent.stop(SOON).success());
}

/// Names and values that somebody who starts a container may think up; `DIR` is the test's folder.
fn evil(folder: &str) -> [(&'static str, String); 4] {
    [
        (
            "com.example.sub",
            format!("$(touch {folder}/pwned)`touch {folder}/pwned`"),
        ),
        (
            "quote",
            format!("'; touch {folder}/pwned; rm -rf {folder}/keep"),
        ),
        (
            "lines",
            format!("a\nb\"\\\ntouch {folder}/pwned\n\u{1b}[31m ä"),
        ),
        ("big", "x".repeat(100_000)),
    ]
}

/// An entry whose command writes down each of these labels and its standard input.
fn labels_entry(extra: &str) -> String {
    format!(
        "  - name: note
    type: start
    labels: [com.example.sub, quote, lines, big, absent{extra}]
    command: |
      printf %s \"$LABEL_COM_EXAMPLE_SUB\" > DIR/com.example.sub
      printf %s \"$LABEL_QUOTE\" > DIR/quote
      printf %s \"$LABEL_LINES\" > DIR/lines
      printf %s \"$LABEL_BIG\" > DIR/big
      printf '%s\\n' \"${{LABEL_ABSENT-unset}}\" \"${{#LABEL_HUGE}}\" \"$FROM_CONTAINER\" > DIR/rest
      {NOTE}
"
    )
}

#[test]
fn names_and_labels_are_data_however_evil_and_long() {
    let stand = Stand::new();
    let folder = stand.path("").trim_end_matches('/').to_owned();
    fs::create_dir(stand.folder.join("keep")).unwrap();
    let name = format!("$(touch {folder}/pwned)");
    let mut spec = Spec::named(&name).label("huge", &"y".repeat(200_000));
    for (label, value) in evil(&folder) {
        spec = spec.label(label, &value);
    }
    let mut agent = stand.listen(&labels_entry(", huge"));
    stand.engine.run(spec);
    let told = inputs(&stand, 1).remove(0);
    for (label, value) in evil(&folder) {
        assert_eq!(stand.read(label), value);
        assert_eq!(told["event"]["Actor"]["Attributes"][label], *value);
        assert_eq!(told["container"]["Config"]["Labels"][label], *value);
    }
    assert_eq!(stand.lines("rest"), ["", "0", &name]);
    let huge = told["container"]["Config"]["Labels"]["huge"].as_str();
    assert_eq!(huge.map(str::len), Some(200_000));
    assert_eq!(told["container"]["Name"], format!("/{name}"));
    agent.wait_log(
        "label `huge` does not fit into a variable; `LABEL_HUGE` is empty, the standard input has it",
        SOON,
    );
    assert!(!Path::new(&stand.path("pwned")).exists());
    assert!(Path::new(&stand.path("keep")).exists());
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_real_engine_s_labels_are_data_too_and_its_events_are_told_as_it_sent_them() {
    need!(docker);
    let machine = Machine::get();
    let docker = &machine.docker;
    let folder = TempDir::new();
    let path = folder.join("").display().to_string();
    let path = path.trim_end_matches('/');
    fs::create_dir(folder.join("keep")).unwrap();
    let text = format!(
        "cluster: {{local: '{}'}}\nevents:\n{}",
        docker.url,
        labels_entry(&format!("]\n    from_container: [\"{}*\"", docker.prefix))
    );
    let file = folder.write("events.yml", &text.replace("DIR", path));
    let mut agent = Agent::start(&[file.display().to_string(), "--cache=none".into()]);
    agent.wait_log("Started monitoring", SOON);
    let labels: Vec<String> = evil(path)
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let mut options = Vec::new();
    for label in &labels {
        options.extend(["--label", label]);
    }
    let id = docker.run("evil", &options, &[]);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    wait_until(SOON, "the command has run", || read("out").ends_with('\n'));
    let told: Value = serde_json::from_str(&read("out")).expect("one JSON object");
    for (label, value) in evil(path) {
        assert_eq!(read(label), value);
        assert_eq!(told["container"]["Config"]["Labels"][label], *value);
    }
    assert!(!folder.join("pwned").exists() && folder.join("keep").exists());
    let until = told["event"]["time"].as_i64().unwrap_or(0) + 1;
    let sent = docker.docker(&[
        "events",
        "--since=0",
        &format!("--until={until}"),
        &format!("--filter=container={id}"),
        "--filter=event=start",
        "--format={{json .}}",
    ]);
    let mut sent: Value = serde_json::from_str(sent.trim()).expect("one event");
    // What the oldest clients knew; today's engines leave it out.
    for old in ["status", "id", "from"] {
        sent.as_object_mut().expect("an object").remove(old);
    }
    assert_eq!(told["event"], sent);
    assert_eq!(told["container"]["Id"], *id);
    assert_eq!(told["container"]["State"]["Running"], true);
    assert!(agent.stop(SOON).success());
}

#[test]
fn labels_are_told_in_plain_whoever_told_of_them_and_stand_masked_elsewhere() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let entries = r#"
  - name: note
    type: [start, die, network/connect]
    existing: true
    labels: {db.password: hush, db.url: "http://me:hush@*"}
    log: noted
    command: 'echo "$EVENT_TYPE $EVENT_INFERRED $LABEL_DB_PASSWORD $LABEL_DB_URL" >> DIR/out'
  - {name: never, type: [die, network/connect], labels: {db.password: "not $(it)"}, log: never}
"#;
    let spec = |name: &str| {
        Spec::named(name)
            .label("db.password", "hush")
            .label("db.url", "http://me:hush@h/")
    };
    let old = stand.engine.run(spec("old"));
    let mut agent = stand.listen_and_report(entries, &redis);
    let told = |word: &str| format!("{word} hush http://me:hush@h/");
    assert_eq!(stand.wait_lines("out", 1), [told("existing ")]);
    stand.engine.connect(&old, "net");
    assert_eq!(stand.wait_lines("out", 2)[1], told("network/connect "));
    stand.engine.run(spec("new").auto_remove());
    stand.wait_lines("out", 4);
    stand.settle(&redis);
    agent.kill9();
    // Nobody tells of this one's end.
    stand.engine.quiet(true);
    stand.engine.die(&old, 1);
    stand.engine.quiet(false);
    let mut agent = stand.listen_and_report(entries, &redis);
    // What still runs exists for the new agent too.
    let lines = stand.wait_lines("out", 6);
    assert!(lines.contains(&told("die 1")), "{lines:?}");
    agent.signal(Signal::USR1);
    agent.wait_log(" commands run, ", SOON);
    stand.settle(&redis);
    let kept = redis.everything();
    assert!(
        kept.contains("running_jobs") && !kept.contains("hush"),
        "{kept}"
    );
    assert!(!agent.log().contains("hush"), "{}", agent.log());
    assert!(agent.stop(SOON).success());
}
