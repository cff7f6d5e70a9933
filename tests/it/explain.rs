//! `docker-cache explain`: which entries events would trigger and which filter says no, from recorded lines and from live engines.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::agent::Agent;
use crate::kit::docker::Machine;
use crate::kit::need::need;
use crate::kit::{TempDir, seconds, wait_until};

const SOON: Duration = seconds(60);

/// Entries whose commands would leave something behind.
const ENTRIES: &str = r#"
  - {name: greet, type: die, command: touch DIR/ran}
  - {name: alarm, type: die, cause: crash, command: touch DIR/ran}
  - {name: promote, type: die, from_container: "db-*", command: touch DIR/ran}
  - {name: backend, type: network/connect, labels: {tier: web}, command: touch DIR/ran}
  - {name: bad, type: die, exit_code: "1..125", log: it ended badly}
"#;

struct Stand {
    folder: TempDir,
    file: String,
}

impl Stand {
    fn new(cluster: &str, entries: &str) -> Stand {
        let folder = TempDir::new();
        let text = format!("cluster:\n{cluster}events:{entries}");
        let text = text.replace("DIR", &folder.path().display().to_string());
        let file = folder.write("events.yml", &text).display().to_string();
        Stand { folder, file }
    }

    /// The program with these arguments and this input, in UTC.
    fn explain(&self, args: &[&str], input: &str) -> Output {
        let input = self.folder.write("input", input);
        let output = Agent::command()
            .args(["explain", &self.file])
            .args(args)
            .env("TZ", "UTC0")
            .stdin(File::open(input).unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(!self.folder.join("ran").exists(), "something was run");
        output
    }

    /// What it says of this input, to its good end.
    #[track_caller]
    fn said(&self, args: &[&str], input: &str) -> String {
        let output = self.explain(args, input);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*err), (Some(0), ""));
        String::from_utf8(output.stdout).unwrap()
    }
}

const FOO: &str = "  foo: tcp://127.0.0.1:1\n  bar: tcp://127.0.0.1:2\n";

/// What is said of the first event whose line begins so, without that line.
fn verdicts<'t>(text: &'t str, event: &str) -> Vec<&'t str> {
    let lines = text.lines().skip_while(|line| !line.starts_with(event));
    let lines = lines.skip(1).take_while(|line| line.starts_with("  "));
    lines.map(str::trim_start).collect()
}

#[test]
fn recorded_events_of_every_engine_are_explained() {
    let stand = Stand::new(FOO, ENTRIES);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/docker");
    let engines = ["20.10.24", "26.1.5", "28.5.2", "podman/4.3.1"];
    for engine in engines {
        let path: PathBuf = fixtures.join(engine).join("events.jsonl");
        let lines = fs::read_to_string(&path).unwrap();
        let said = stand.said(&[], &lines);
        let events = said.lines().filter(|line| !line.starts_with(' '));
        let told = lines.lines().filter(|line| !line.trim().is_empty());
        assert_eq!(events.count(), told.count(), "{engine}:\n{said}");
        assert!(
            !said.contains("hunter2"),
            "{engine}: a command line is shown"
        );
        let dies = said
            .lines()
            .filter(|line| line.starts_with("die of exited "));
        assert_eq!(dies.count(), 1, "{engine}:\n{said}");
        let exited = verdicts(&said, "die of exited ");
        let expected = [
            "greet    would run",
            "alarm    would run",
            "promote  no: from_container asks for `db-*`, it is `exited`",
            "backend  no: type asks for `network/connect`, it is `die`",
            "bad      would log",
        ];
        assert_eq!(exited, expected, "{engine}");
        if !engine.starts_with("podman") {
            let liar = verdicts(&said, "die of labels-lie ");
            let hidden = "perhaps: exit_code asks for `1..125`, which a label `exitCode` hides: only an inspect tells";
            assert_eq!(liar[4], format!("bad      {hidden}"), "{engine}");
            assert_eq!(liar[1], "alarm    no: cause asks for `crash`, it is `stop`");
        }
    }
}

/// As dockerd 28.5.2 sends it.
fn line(action: &str, name: &str, attribute: &str) -> String {
    format!(
        r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"6830810d","Attributes":{{{attribute},"image":"ubuntu:22.04","name":"{name}"}}}},"scope":"local","time":1795348862,"timeNano":1795348862893254447}}"#
    ) + "\n"
}

#[test]
fn the_readme_shows_what_is_said() {
    let entries = r#"
  - {name: greet, type: die, command: touch DIR/ran}
  - {name: alarm, type: die, cause: crash, command: touch DIR/ran}
  - {name: promote, type: die, from_container: "db-*", command: touch DIR/ran}
"#;
    let stand = Stand::new(FOO, entries);
    let kill = line("kill", "web-1", r#""signal":"15""#);
    let die = line("die", "web-1", r#""exitCode":"143""#);
    let said = stand.said(&[], &(kill + &die));
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&said), "the README does not show\n{said}");
}

#[test]
fn bad_lines_are_named_and_skipped() {
    let stand = Stand::new(FOO, ENTRIES);
    let die = line("die", "db-1", r#""exitCode":"0""#);
    let output = stand.explain(
        &[],
        &format!("\n{die}no event\n\u{1e}{die}{{}}\n{{\"Action\":\"di"),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (out, err) = (output.stdout, output.stderr);
    let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    assert_eq!(
        out.matches("die of db-1 (ubuntu:22.04) on foo, ").count(),
        2
    );
    assert!(out.contains("  promote  would run\n"), "{out}");
    assert!(
        out.contains("  alarm    no: cause asks for `crash`, it ended by itself, and well\n"),
        "{out}"
    );
    let begins = [
        "line 3: failed to decode event `no event`",
        "line 5: ",
        "line 6: ",
    ];
    assert_eq!(err.lines().count(), begins.len(), "{err}");
    for (line, begin) in err.lines().zip(begins) {
        assert!(line.starts_with(begin), "{err}");
    }
}

#[test]
fn lines_may_come_from_another_engine_of_the_cluster() {
    let entries = "\n  - {type: die, from_engine: bar, log: x}\n";
    let stand = Stand::new(FOO, entries);
    let die = line("die", "web", r#""exitCode":"0""#);
    let foo = stand.said(&[], &die);
    assert!(
        foo.ends_with("  #1  no: from_engine asks for `bar`, it is `foo`\n"),
        "{foo}"
    );
    let bar = stand.said(&["--id=bar"], &die);
    assert!(bar.ends_with("  #1  would log\n"), "{bar}");
}

#[test]
fn a_bad_file_and_an_unknown_engine_end_with_2_and_one_that_is_down_with_1() {
    for (entries, args, code, text) in [
        (
            "\n  - {type: die, comand: x}\n",
            &[][..],
            2,
            "there is no such field; did you mean `command`?",
        ),
        (
            ENTRIES,
            &["--engine=baz"],
            2,
            "--engine: no engine is named `baz`; did you mean `bar`?",
        ),
        (
            ENTRIES,
            &["--engine=foo"],
            1,
            "failed to ping engine `tcp://127.0.0.1:1`",
        ),
    ] {
        let output = Stand::new(FOO, entries).explain(args, "");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(err.contains(text), "{err}");
        assert!(output.stdout.is_empty());
    }
    let nothing = Agent::command()
        .arg("explain")
        .stdin(Stdio::null())
        .output();
    assert_eq!(nothing.unwrap().status.code(), Some(2));
}

#[test]
fn whoever_is_to_type_events_is_told_so() {
    let stand = Stand::new(FOO, ENTRIES);
    let told = "reading events from the standard input";
    let quiet = stand.explain(&[], "");
    assert!(!String::from_utf8_lossy(&quiet.stderr).contains(told));
    // `script` runs it at a terminal of its own, and ends its input.
    let typed = Command::new("script")
        .args([
            "-qec",
            &format!("'{}' explain '{}'", Agent::PROGRAM, stand.file),
        ])
        .arg("/dev/null")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&typed.stdout);
    assert!(shown.contains(told), "{shown}");
    assert!(typed.status.success(), "{shown}");
}

#[test]
fn whoever_read_enough_may_go() {
    let stand = Stand::new(FOO, ENTRIES);
    let input = line("die", "web", r#""exitCode":"0""#).repeat(10_000);
    let input = stand.folder.write("input", &input);
    let command = format!(
        "'{}' explain '{}' < '{}' | head -n 1",
        Agent::PROGRAM,
        stand.file,
        input.display()
    );
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", &command])
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), &*output.stderr),
        (Some(0), &b""[..]),
        "{output:?}"
    );
}

#[test]
fn a_live_engine_is_asked_for_what_events_do_not_tell() {
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
    let stand = Stand::new(&format!("  foo: {}\n", engine.url()), ENTRIES);
    let there = engine.run(Spec::named("there").label("tier", "web"));
    let mut explain =
        Agent::start_with(&["explain", &stand.file, "--engine=foo"], &[("TZ", "UTC0")]);
    explain.wait_log("until Ctrl-C", SOON);
    wait_until(SOON, "the stream is open", || engine.subscribers() == 1);
    engine.connect(&there, "net");
    let liar = engine.run(Spec::named("liar").label("exitCode", "0"));
    engine.die(&liar, 3);
    engine.kill(&there, 15);
    engine.die(&there, 143);
    explain.wait_log("die of there", SOON);
    explain.wait_log("exit code 143, stop", SOON);
    explain.signal(Signal::INT);
    assert_eq!(explain.wait_exit(SOON).code(), Some(0));
    let said = explain.log();
    assert_eq!(
        verdicts(&said, "network/connect of there ")[3],
        "backend  would run",
        "{said}"
    );
    assert!(said.contains("die of liar"), "{said}");
    let liar = verdicts(&said, "die of liar ");
    assert_eq!(liar[1], "alarm    would run", "{said}");
    assert_eq!(liar[4], "bad      would log", "{said}");
    assert_eq!(
        verdicts(&said, "die of there ")[1],
        "alarm    no: cause asks for `crash`, it is `stop`",
        "{said}"
    );
    assert!(!stand.folder.join("ran").exists());
}

#[test]
fn the_machines_own_engine_is_explained() {
    need!(docker);
    let machine = Machine::get();
    let docker = &machine.docker;
    let stand = Stand::new(&format!("  foo: {}\n", docker.url), ENTRIES);
    let mut explain = Agent::start(&["explain", &stand.file, "--engine", &docker.url]);
    explain.wait_log("until Ctrl-C", SOON);
    let name = |name: &str| format!("{}{name}", docker.prefix);
    // Until the stream is open, nothing is heard of.
    wait_until(SOON, "the stream is open", || {
        let probe = docker.run("probe", &[], &["true"]);
        docker.docker(&["rm", "-f", &probe]);
        explain.log().contains(&format!("die of {}", name("probe")))
    });
    docker.run(
        "crashed",
        &["--label", "exitCode=0"],
        &["sh", "-c", "exit 7"],
    );
    let hup = ["--stop-signal", "HUP"];
    let stopped = docker.run(
        "stopped",
        &hup,
        &["sh", "-c", "trap 'exit 3' HUP; while :; do sleep 0.1; done"],
    );
    docker.docker(&["kill", "-s", "HUP", &stopped]);
    docker.run(
        "network",
        &["--label", "tier=web", "--network", &machine.network("n")],
        &["true"],
    );
    for last in ["die of {}crashed", "die of {}stopped", "die of {}network"] {
        explain.wait_log(&last.replace("{}", &docker.prefix), SOON);
    }
    wait_until(SOON, "all is said", || {
        let said = explain.log();
        verdicts(&said, &format!("die of {}", name("network"))).len() == 5
            && verdicts(&said, &format!("die of {}", name("stopped"))).len() == 5
    });
    explain.signal(Signal::INT);
    assert_eq!(explain.wait_exit(SOON).code(), Some(0));
    let said = explain.log();
    let of = |word: &str, who: &str| verdicts(&said, &format!("{word} of {} ", name(who)));
    assert_eq!(of("die", "crashed")[1], "alarm    would run", "{said}");
    assert_eq!(of("die", "crashed")[4], "bad      would log", "{said}");
    assert_eq!(
        of("die", "stopped")[1],
        "alarm    no: cause asks for `crash`, it is `stop`",
        "{said}"
    );
    assert_eq!(
        of("network/connect", "network")[3],
        "backend  would run",
        "{said}"
    );
}

#[test]
fn no_secret_and_no_long_value_is_shown() {
    let entries = r#"
  - {name: secret, type: die, labels: {db.password: x, db.url: x, long: x}, log: x}
  - {name: name, type: die, from_container: web, log: x}
"#;
    let long = "y".repeat(100_000);
    let die = line(
        "die",
        &long,
        &format!(
            r#""exitCode":"0","db.password":"hush","db.url":"http://me:hush@h/","long":"{long}""#
        ),
    );
    let said = Stand::new(FOO, entries).said(&[], &die);
    assert!(!said.contains("hush"), "{said}");
    let cut = "y".repeat(55);
    assert!(
        said.contains(&format!(
            "it has `db.password=***`, `db.url=http://me:***@h/`, `long={cut}…`\n"
        )),
        "{said}"
    );
    assert!(
        said.contains(&format!("asks for `web`, it is `{cut}yyyyy…`\n")),
        "{said}"
    );
}
