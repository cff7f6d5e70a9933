//! `docker-cache fire`: one entry, run now for an event that is made up.

use std::fs;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::containers::Spec;
use crate::kit::TempDir;
use crate::kit::agent::Agent;
use crate::kit::docker::Machine;
use crate::kit::need::need;
use crate::kit::stand::{SOON, Stand};
use crate::kit::wait_until;

/// What the program says to `fire FILE` and these words, separated by blanks.
fn fire(file: &str, words: &str) -> Output {
    Agent::command()
        .args(["fire", file])
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Prints its variables but those whose values differ from run to run, and copies its input.
const NOTE: &str = r#"env | grep -E '^(FROM|EVENT|LABEL|ENGINE)_' | grep -vE '^EVENT_(TIME|RUN)=' | sort; cat > "DIR/NAME-input""#;

#[test]
fn a_command_is_told_what_the_agent_would_tell_it() {
    let stand = Stand::new();
    let entry = |name: &str| {
        format!(
            "  - name: note-{name}\n    type: die\n    labels: [team, db.password]\n    command: |\n      {}\n",
            NOTE.replace("NAME", name)
        )
    };
    let out = "exec > DIR/agent-output; ";
    let agents = entry("agent").replace("env |", &format!("{out}env |"));
    let file = stand.file(&(agents + &entry("fire")));
    let mut agent = Agent::start(&[file.clone(), "--cache=none".into()]);
    stand.wait_stream();
    let id = stand.engine.run(
        Spec::named("web-1")
            .image("ubuntu:22.04")
            .label("team", "$(core)")
            .label("db.password", "hush"),
    );
    stand.engine.die(&id, 3);
    let parsed = |name: &str| serde_json::from_str::<Value>(&stand.read(name)).ok();
    wait_until(SOON, "the agent's command has run", || {
        parsed("agent-input").is_some() && parsed("fire-input").is_some()
    });
    assert!(agent.stop(SOON).success());
    fs::remove_file(stand.path("fire-input")).expect("the agent's command wrote it");

    let output = fire(&file, "--entry note-fire --container web-1");
    let (code, out, err) = texts(&output);
    assert_eq!(code, Some(0), "{err}");
    // But for its own entry's name, which no variable has.
    assert_eq!(out, stand.read("agent-output"));
    assert!(out.contains("LABEL_DB_PASSWORD=hush\nLABEL_TEAM=$(core)\n"));
    assert!(out.contains("EVENT_EXIT_CODE=3\n") && out.contains("EVENT_INFERRED=\n"));
    let (Some(mut agents), Some(mut fired)) = (parsed("agent-input"), parsed("fire-input")) else {
        panic!("`{}` is no JSON", stand.read("fire-input"));
    };
    assert_eq!(fired["container"]["Config"]["Labels"]["db.password"], "***");
    for told in [&mut agents, &mut fired] {
        assert!(told["event"]["time"].as_i64() > Some(1_600_000_000));
        assert!(
            told["run"]
                .as_str()
                .is_some_and(|run| run.contains('-') && run.len() >= 10)
        );
        for (field, name) in [("event", "time"), ("event", "timeNano")] {
            told[field][name] = json!(0);
        }
        told["run"] = json!("");
        told["entry"] = json!("");
    }
    assert_eq!(fired, agents);

    // The words on the standard error: what begins and how it ends.
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    for (line, end) in [(lines[0], ": started"), (lines[1], " s")] {
        assert!(line.starts_with("handler `note-fire`, run "), "{line}");
        assert!(
            line.contains("-1 for die of web-1 on foo: ") && line.ends_with(end),
            "{line}"
        );
    }
    assert!(lines[1].contains(": exit status 0, after "), "{err}");
}

const ENTRIES: &str = r#"
  - {name: seven, type: die, from_container: "db-*", command: echo out; echo err >&2; exit 7}
  - {name: slow, type: die, timeout: 100ms, grace: 100ms, command: sleep 1000}
  - {name: killed, type: die, command: kill -9 $$}
  - {name: lost, type: die, dir: /nowhere, command: "true"}
  - {name: long, type: die, command: echo begun; touch DIR/begun; trap 'echo ended; exit 1' TERM; sleep 1000 & wait}
  - {name: words, type: die, log: it died, command: 'echo "$EVENT_TYPE $EVENT_ACTION"'}
  - {existing: true, command: 'echo "$EVENT_TYPE $FROM_CONTAINER"'}
  - {name: away, type: engine/down, command: 'echo "$EVENT_TYPE $EVENT_ID ${FROM_CONTAINER:-nobody}"'}
  - {name: pull, type: image/pull, image: ["*x", "nginx:1"], command: 'echo "$FROM_IMAGE $EVENT_ID"'}
  - {name: big, type: die, command: "printf '%05000d' 1"}
"#;

#[test]
fn its_exit_code_is_the_commands() {
    let stand = Stand::new();
    let file = stand.file(ENTRIES);
    let id = stand.engine.run(Spec::named("web-1"));
    let note = "note: from_container asks for `db-*`, it is `web-1`; fired all the same\n";
    for (entry, code, wanted, says) in [
        ("seven", 7, "out\nerr\n", "exit status 7, after "),
        ("#1", 7, "out\nerr\n", note),
        ("slow", 124, "", "timed out and was killed, after "),
        ("killed", 137, "", "killed by signal 9, after "),
        ("lost", 1, "", "could not be started: failed to start shell"),
        ("words", 0, "die die\n", "log: it died\n"),
        ("#7", 0, "existing web-1\n", "exit status 0"),
    ] {
        let words = format!("--entry {entry} --container {}", &id[..12]);
        let (status, out, err) = texts(&fire(&file, &words));
        assert_eq!((status, &*out), (Some(code), wanted), "{entry}: {err}");
        assert!(err.contains(says), "{entry}: {err}");
        assert_eq!(
            err.contains(note),
            ["seven", "#1"].contains(&entry),
            "{err}"
        );
    }
    let health = fire(
        &file,
        "--entry words --container web-1 --type health_status",
    );
    let (_, out, err) = texts(&health);
    assert_eq!(out, "health_status health_status\n");
    assert!(err.contains("note: type asks for `die`, it is `health_status`"));
    let (_, out, err) = texts(&fire(&file, "--entry pull"));
    assert_eq!(out, "nginx:1 nginx:1\n", "{err}");
    assert!(
        err.contains(" for image/pull of nginx:1 on foo: started"),
        "{err}"
    );
    let words = "--entry pull --type network/connect --container web-1";
    let (_, out, err) = texts(&fire(&file, words));
    assert_eq!(out, "busybox:latest nginx:1\n", "{err}");
    stand.engine.engine_id("Q2:ID");
    let (_, out, err) = texts(&fire(&file, "--entry away"));
    assert_eq!(out, "engine/down Q2:ID nobody\n", "{err}");
    let (_, out, err) = texts(&fire(&file, "--entry big --container web-1"));
    assert_eq!(out.len(), 4096, "{err}");
    assert!(err.contains("… (the last 4096 bytes follow)"), "{err}");
    assert_eq!(stand.engine.subscribers(), 0);
}

#[test]
fn the_readme_shows_what_is_said() {
    const README: &str = include_str!("../../README.md");
    let shown = README.split_once("$ docker-cache fire events.yml ");
    let (words, shown) = shown
        .and_then(|(_, rest)| rest.split_once("```")?.0.split_once('\n'))
        .expect("the README shows it");
    let stand = Stand::new();
    let file = stand.file(
        "  - {name: greet, type: die, cause: crash, command: 'echo \"$FROM_CONTAINER is gone\"'}\n",
    );
    stand.engine.run(Spec::named("web-1"));
    let both = fs::File::create(stand.path("said")).expect("a file in a folder of ours");
    let status = Agent::command()
        .args(["fire", &file])
        .args(words.split(' '))
        .stdin(Stdio::null())
        .stdout(both.try_clone().expect("a descriptor is left"))
        .stderr(both)
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    // Each run has its own id and time.
    let bare = |text: &str| {
        let words = text.split_inclusive([' ', '\n']);
        let is_word = |word: &&str| !word.trim_end().ends_with("-1") || word.starts_with("web");
        let words = words.filter(is_word).filter(|word| !word.starts_with("0."));
        words.collect::<String>()
    };
    assert_eq!(bare(&stand.read("said")), bare(shown));
}

#[test]
fn what_cannot_be_fired_is_said() {
    let stand = Stand::new();
    let file = stand.file(ENTRIES);
    stand.engine.run(Spec::named("web-1"));
    for (words, code, says) in [
        (
            "--entry sevn --container web-1",
            2,
            "--entry: no entry is named `sevn`; did you mean `seven`?",
        ),
        (
            "--entry seven --container web-2",
            2,
            "error: no container is called `web-2` on foo\n",
        ),
        (
            "--entry seven --container ../info",
            2,
            "--container: `../info` is no container's name; expected a container's name or id",
        ),
        (
            "--entry seven --container web-1 --engine fo",
            2,
            "--engine: no engine is named `fo`; did you mean `foo`?",
        ),
    ] {
        let (status, out, err) = texts(&fire(&file, words));
        assert_eq!((status, &*out), (Some(code), ""), "{words}: {err}");
        assert!(err.contains(says), "{words}: {err}");
    }
    let (status, _, err) = texts(&fire("/nowhere.yml", "--entry a --container b"));
    assert_eq!(status, Some(2));
    assert!(
        err.contains("/nowhere.yml: failed to read the file"),
        "{err}"
    );

    // The first engine that has it, past those that do not answer.
    let text = fs::read_to_string(&file).expect("it was written");
    let nobody = "cluster:\n  none: tcp://127.0.0.1:1\n";
    let file = stand
        .folder
        .write("two.yml", &text.replace("cluster:\n", nobody));
    let file = file.display().to_string();
    let (status, out, err) = texts(&fire(&file, "--entry words --container web-1"));
    assert_eq!((status, &*out), (Some(0), "die die\n"), "{err}");
    assert!(err.contains("note: none: failed to ping"), "{err}");
    assert!(err.contains(" for die of web-1 on foo: started"), "{err}");
    for words in [
        "--entry words --container web-2",
        "--entry words --container web-1 --engine none",
    ] {
        let (status, _, err) = texts(&fire(&file, words));
        assert_eq!(status, Some(1), "{err}");
        assert!(err.contains("error: no engine that answers has"), "{err}");
    }
}

#[test]
fn a_signal_ends_the_command_with_its_grace() {
    let stand = Stand::new();
    let file = stand.file(ENTRIES);
    stand.engine.run(Spec::named("web-1"));
    let words = ["fire", &file, "--entry=long", "--container=web-1"];
    let mut fire = Agent::start(&words);
    wait_until(SOON, "the command runs", || {
        stand.folder.join("begun").exists()
    });
    fire.signal(Signal::INT);
    assert_eq!(fire.wait_exit(SOON).code(), Some(130), "{}", fire.log());
    let said = fire.log();
    assert!(said.contains("begun\nended\n"), "{said}");
    assert!(
        said.contains(": was ended by a signal to `fire`, after "),
        "{said}"
    );
}

#[test]
fn a_container_of_a_real_engine_is_found_by_its_name_or_id() {
    need!(docker);
    let machine = Machine::get();
    let docker = &machine.docker;
    let folder = TempDir::new();
    let text = format!(
        "cluster: {{local: '{}'}}\nevents:\n  - {{name: who, type: [die], labels: [team], command: 'echo \"$FROM_CONTAINER_ID $FROM_CONTAINER $LABEL_TEAM\"'}}\n",
        docker.url
    );
    let file = folder.write("events.yml", &text).display().to_string();
    let id = docker.run("fired", &["--label", "team=core"], &[]);
    let name = format!("{}fired", docker.prefix);
    for container in [&name, &format!("/{name}"), &id, &id[..12].to_owned()] {
        let output = fire(&file, &format!("--entry who --container {container}"));
        let (code, out, err) = texts(&output);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(out, format!("{id} {name} core\n"), "{err}");
    }
}
