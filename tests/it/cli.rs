//! What the program says and how it ends when it does not run: help, mistakes, `check`. And that nothing has been started then.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::agent::Agent;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::redis::Redis;
use crate::kit::{TempDir, seconds, wait_until};

/// How it ended.
#[derive(Debug)]
struct Called {
    code: Option<i32>,
    out: String,
    err: String,
}

fn call<S: AsRef<OsStr>>(args: &[S]) -> Called {
    end(Agent::command().args(args))
}

/// Runs it to its end, which must come soon.
#[track_caller]
fn end(command: &mut Command) -> Called {
    let folder = TempDir::new();
    let (out, err) = (folder.join("out"), folder.join("err"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let mut status = None;
    for _ in 0..3000 {
        status = child.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let called = Called {
        code: status.and_then(|status| status.code()),
        out: read(&out),
        err: read(&err),
    };
    assert!(status.is_some(), "{command:?} did not end: {called:?}");
    called
}

/// Servers that note who knocks.
struct Doors {
    redis: TcpListener,
    engine: UnixListener,
    folder: TempDir,
}

impl Doors {
    fn new() -> Doors {
        let folder = TempDir::new();
        let doors = Doors {
            redis: TcpListener::bind("127.0.0.1:0").unwrap(),
            engine: UnixListener::bind(folder.join("d")).unwrap(),
            folder,
        };
        doors.redis.set_nonblocking(true).unwrap();
        doors.engine.set_nonblocking(true).unwrap();
        doors
    }

    fn cache(&self) -> String {
        format!("-cache=redis://{}", self.redis.local_addr().unwrap())
    }

    fn engine_url(&self) -> String {
        format!("unix://{}", self.folder.join("d").display())
    }

    fn docker(&self) -> String {
        format!("-docker={}", self.engine_url())
    }

    /// Whoever knocked stands in the queue of the listener, though it is gone by now.
    #[track_caller]
    fn nobody_knocked(&self) {
        assert!(self.redis.accept().is_err(), "somebody connected to Redis");
        assert!(
            self.engine.accept().is_err(),
            "somebody connected to the engine"
        );
    }
}

#[test]
fn help_and_version_go_to_the_standard_output() {
    for option in ["-h", "--help", "-help"] {
        let called = call(&[option]);
        assert_eq!((called.code, &*called.err), (Some(0), ""), "{called:?}");
        assert!(
            called
                .out
                .starts_with("Usage: docker-cache [options] [events.yml]\n"),
            "{}",
            called.out
        );
        for text in [
            "--update-interval DURATION",
            "Default: 2m\n",
            "redis://localhost:6379",
            "unix:///var/run/docker.sock",
        ] {
            assert!(
                called.out.contains(text),
                "{text} is missing:\n{}",
                called.out
            );
        }
    }
    let called = call(&["--version"]);
    assert_eq!(
        called.out,
        format!("docker-cache {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(called.code, Some(0));
}

#[test]
fn a_wrong_command_line_ends_with_2_and_names_what_was_meant() {
    let doors = Doors::new();
    for (wrong, text) in [
        ("-updateIntervall=2m", "did you mean `--update-interval`?"),
        ("-cahce=redis://x", "did you mean `--cache`?"),
        ("-v", "there is no option `-v`"),
        ("cache", "`cache` is a reserved word"),
        ("fire", "`fire` lacks its file"),
        (
            "-updateInterval=2",
            "--update-interval: `2` is no duration: a unit is missing",
        ),
        (
            "-updateInterval=-2m",
            "--update-interval: `-2m` is no duration",
        ),
        ("-updateInterval=0s", "--update-interval: "),
        ("-id=a b", "--id: "),
        ("-id=-a", "--id: "),
        ("-id=a/b", "--id: "),
        ("-id=", "--id: "),
        ("-prefix=a:b", "--prefix: "),
        ("-prefix=", "--prefix: "),
        ("-docker=ssh://host", "--docker: "),
        ("-docker=unix://run/docker.sock", "--docker: "),
        ("-docker=tcp://host:99999", "--docker: "),
        ("-cache=http://host", "--cache: "),
        ("-cache=redis://:hush@host:port", "--cache: "),
        ("-filter=label", "--filter: "),
        ("-workers=0", "--workers: "),
        ("-logFormat=xml", "--log-format: "),
        ("-cache=none", "there is nothing to do"),
        ("-cachePasswordFile=/nowhere/x", "/nowhere/x"),
        (
            "/nowhere/events.yml",
            "/nowhere/events.yml: failed to read the file",
        ),
    ] {
        let called = call(&[doors.docker(), doors.cache(), wrong.to_owned()]);
        assert_eq!(
            (called.code, &*called.out),
            (Some(2), ""),
            "{wrong}: {called:?}"
        );
        assert!(called.err.contains(text), "{wrong}: {}", called.err);
        assert!(
            !called.err.contains("hush"),
            "a password is shown: {}",
            called.err
        );
        assert!(!called.err.contains("panicked"), "{}", called.err);
    }
    doors.nobody_knocked();
}

#[test]
fn all_mistakes_of_the_command_line_are_told_at_once() {
    let called = call(&[
        "-id=a b",
        "-updateInterval=2",
        "-docker=ssh://h",
        "-cache=http://h",
        "-prefix=:",
    ]);
    assert_eq!(called.code, Some(2));
    let lines: Vec<&str> = called.err.lines().collect();
    for option in [
        "--id: ",
        "--update-interval: ",
        "--docker: ",
        "--cache: ",
        "--prefix: ",
    ] {
        let count = lines.iter().filter(|line| line.starts_with(option)).count();
        assert_eq!(count, 1, "{option}:\n{}", called.err);
    }
    assert_eq!(lines.len(), 5, "{}", called.err);
}

#[test]
fn a_bad_file_prints_all_its_mistakes_and_starts_nothing() {
    let doors = Doors::new();
    let file = doors.folder.write(
        "events.yml",
        &format!(
            "cluster:\n  foo: {}\n  bar: ssh://x\nevents:\n  - type: die\n    comand: touch {}\n  - type: start\n    timeout: 5\n    log: x\n",
            doors.engine_url(),
            doors.folder.join("ran").display(),
        ),
    );
    let file = file.to_string_lossy().into_owned();
    for first in [vec![], vec!["run"], vec!["check"]] {
        let mut command = Agent::command();
        command.args(&first).arg(&file).arg(doors.cache());
        let called = end(&mut command);
        assert_eq!(called.code, Some(2), "{called:?}");
        // A warning is told beside them, where each verb tells its own.
        let warning = format!(
            "warning: {file}:8:14: entry #2, timeout: without a `command` it has no effect\n"
        );
        let (out, err) = match first[..] {
            ["check"] => (warning, String::new()),
            _ => (String::new(), warning),
        };
        assert_eq!(called.out, out);
        assert!(called.err.starts_with(&err), "{}", called.err);
        for text in [
            format!("{file}:3:8: cluster.bar: "),
            format!("{file}:5:5: entry #1: it neither runs nor logs anything"),
            format!(
                "{file}:6:5: entry #1, comand: there is no such field; did you mean `command`?"
            ),
            format!("{file}:8:14: entry #2, timeout: `5` is no duration"),
        ] {
            assert!(
                called.err.contains(&text),
                "{text} is missing:\n{}",
                called.err
            );
        }
        let mistakes = called.err.lines().filter(|line| line.starts_with(&file));
        assert_eq!(mistakes.count(), 4, "{}", called.err);
    }
    doors.nobody_knocked();
    assert!(!doors.folder.join("ran").exists());
}

#[test]
fn the_program_says_of_broken_files_what_is_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config/broken");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        let mut command = Agent::command();
        let name = path.file_name().unwrap();
        let called = end(command.arg("check").arg(name).current_dir(&folder));
        let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap();
        assert_eq!(called.code, Some(2), "{}", path.display());
        assert_eq!(called.err, expected, "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "no file in {}", folder.display());
}

#[test]
fn check_says_what_a_good_file_has_and_starts_nothing() {
    let doors = Doors::new();
    let text = format!(
        "cluster:\n  foo: {}\nevents:\n  - type: dye, die\n    command: touch {}\n",
        doors.engine_url(),
        doors.folder.join("ran").display(),
    );
    let file = doors.folder.write("events.yml", &text);
    let file = file.to_string_lossy().into_owned();
    let called = call(&["check".to_owned(), file.clone(), doors.cache()]);
    assert_eq!((called.code, &*called.err), (Some(0), ""), "{called:?}");
    let lines: Vec<&str> = called.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", called.out);
    assert!(
        lines[0].starts_with("warning: ") && lines[0].contains("dye") && lines[0].contains("die"),
        "a word that no engine sends is told: {}",
        lines[0]
    );
    assert_eq!(lines[1], format!("{file}: ok, 1 engine, 1 entry"));
    // It is told beside mistakes, too.
    let broken = doors
        .folder
        .write("broken.yml", &text.replace("command", "comand"));
    let called = call(&["check".into(), broken.into_os_string()]);
    assert_eq!(called.code, Some(2));
    assert!(
        called.err.contains("did you mean `command`?"),
        "{}",
        called.err
    );
    assert!(called.out.contains("did you mean `die`?"), "{}", called.out);
    doors.nobody_knocked();
    assert!(!doors.folder.join("ran").exists());
}

#[test]
fn a_file_with_a_cluster_wants_no_other_engine() {
    let doors = Doors::new();
    let text = format!(
        "cluster:\n  foo: {}\nevents:\n  - type: die\n    log: x\n",
        doors.engine_url()
    );
    let file = doors
        .folder
        .write("events.yml", &text)
        .to_string_lossy()
        .into_owned();
    let called = call(&[file.clone(), doors.cache(), doors.docker(), "-id=x".into()]);
    assert_eq!(called.code, Some(2));
    let lines: Vec<&str> = called.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", called.err);
    assert!(
        lines.iter().any(|line| line.starts_with("--id: ")),
        "{}",
        called.err
    );
    assert!(
        lines.iter().any(|line| line.starts_with("--docker: ")),
        "{}",
        called.err
    );
    doors.nobody_knocked();
}

#[test]
fn the_old_name_wants_a_file() {
    let folder = TempDir::new();
    let link = folder.join("docker-eventsd");
    std::os::unix::fs::symlink(Agent::PROGRAM, &link).unwrap();
    let called = end(&mut Command::new(&link));
    assert_eq!((called.code, &*called.out), (Some(2), ""));
    assert!(
        called.err.contains("the file of handlers is missing"),
        "{}",
        called.err
    );
    let called = end(Command::new(&link).arg("-h"));
    assert!(
        called
            .out
            .starts_with("Usage: docker-eventsd [options] events.yml\n"),
        "{}",
        called.out
    );
    assert!(called.out.contains("Default: none\n"), "{}", called.out);
}

#[test]
fn a_mistake_in_the_environment_is_named_by_its_variable() {
    let doors = Doors::new();
    let mut command = Agent::command();
    command.args([doors.docker(), doors.cache()]);
    command.envs([
        ("DOCKER_CACHE_UPDATE_INTERVAL", "soon"),
        ("DOCKER_CACHE_ALL", "perhaps"),
    ]);
    let called = end(&mut command);
    assert_eq!(called.code, Some(2), "{called:?}");
    assert!(
        called
            .err
            .contains("DOCKER_CACHE_UPDATE_INTERVAL: `soon` is no duration"),
        "{}",
        called.err
    );
    assert!(called.err.contains("DOCKER_CACHE_ALL: "), "{}", called.err);
    // What was typed counts, not what the variable says.
    let mut command = Agent::command();
    command.args([doors.docker(), doors.cache(), "-updateInterval=2".into()]);
    command.env("DOCKER_CACHE_UPDATE_INTERVAL", "2m");
    let called = end(&mut command);
    assert!(
        called.err.starts_with("--update-interval: "),
        "{}",
        called.err
    );
    doors.nobody_knocked();
}

#[test]
fn a_variable_that_no_option_has_is_told_and_stops_nothing() {
    let nowhere = ["-docker=unix:///nowhere", "-cache=unix:///nowhere"];
    let mut agent = Agent::start_with(&nowhere, &[("DOCKER_CACHE_CHACHE", "redis://x")]);
    let told = "warning: DOCKER_CACHE_CHACHE: no option has this variable; did you mean `DOCKER_CACHE_CACHE`?";
    agent.wait_log(told, seconds(10));
    agent.wait_log("engine `", seconds(10));
    assert!(agent.stop(seconds(10)).success());
}

#[test]
fn the_whole_configuration_may_come_from_the_environment() {
    need!(redis);
    let redis = Redis::start();
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
    engine.run(Spec::named("web").label("tier", "front"));
    let back = engine.create(Spec::named("db").label("tier", "back"));
    let mut agent = Agent::start_with::<&str>(
        &[],
        &[
            ("DOCKER_CACHE_ID", "from-env"),
            ("DOCKER_HOST", "unix:///nowhere/at/all"),
            ("DOCKER_CACHE_DOCKER", &engine.url()),
            ("DOCKER_CACHE_CACHE", &redis.url()),
            ("DOCKER_CACHE_UPDATE_INTERVAL", "7s"),
            ("DOCKER_CACHE_PREFIX", "px"),
            ("DOCKER_CACHE_ALL", "true"),
        ],
    );
    let host = || vec![Host::up("from-env", engine.running()).stopped(engine.stopped())];
    oracle::settle(&redis, "px", seconds(30), host);
    assert_eq!(
        redis.query::<String>(&["HGET", "px:hosts:from-env", "update_interval"]),
        "7"
    );
    assert!(redis.query::<bool>(&["EXISTS", &format!("px:containers:{back}")]));
    assert!(redis.keys("docker").is_empty());
    assert!(agent.stop(seconds(10)).success());
}

#[test]
fn every_line_of_the_log_is_json_when_asked_for() {
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Unix(folder.join("d"))).unwrap();
    let file = folder.write(
        "events.yml",
        "events:\n  - name: greet\n    type: start\n    log: \"a \\\"word\\\"\"\n    command: printf 'one\\n\\033[31mtwo\\n'; exit 3\n",
    );
    let mut agent = Agent::start(&[
        "--cache=none".to_owned(),
        "--log-format=json".to_owned(),
        format!("--docker={}", engine.url()),
        file.to_string_lossy().into_owned(),
    ]);
    agent.wait_log("Started monitoring", seconds(30));
    wait_until(seconds(30), "the stream is open", || {
        engine.subscribers() == 1
    });
    engine.run(Spec::named("we\"b\n"));
    agent.wait_log("exit status 3", seconds(30));
    assert!(agent.stop(seconds(10)).success());
    agent.wait_log("Stopped", seconds(10));
    let log = agent.log();
    let mut messages = Vec::new();
    for line in log.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["time", "level", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
        messages.push(line["message"].as_str().unwrap().to_owned());
    }
    assert!(
        messages
            .iter()
            .any(|text| text.starts_with("a \"word\" (handler `greet`: start from ")),
        "{messages:?}"
    );
    assert!(
        messages.iter().any(|text| text.contains("\u{1b}[31mtwo")),
        "{messages:?}"
    );
}
