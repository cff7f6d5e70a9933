//! The README is true: its redis-cli session is answered as it shows, its files of handlers work as they stand.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::kit::agent::Agent;
use crate::kit::docker::{Dockerd, Machine};
use crate::kit::need::need;
use crate::kit::process::{Process, run};
use crate::kit::redis::Redis;
use crate::kit::{TempDir, seconds, wait_until};

const README: &str = include_str!("../../README.md");

/// The engine that the README's files name.
const SOCKET: &str = "unix:///var/run/docker.sock";

/// A line that is typed, and what the README shows as its answer.
fn session() -> Vec<(Vec<String>, Vec<String>)> {
    let mut session: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut answers = false;
    for line in README.lines() {
        if let Some(typed) = line.strip_prefix("$ redis-cli ") {
            let words = typed.split_whitespace().map(str::to_owned).collect();
            session.push((words, Vec::new()));
            answers = true;
        } else if line.starts_with("```") {
            answers = false;
        } else if answers && let Some((_, shown)) = session.last_mut() {
            shown.push(line.to_owned());
        }
    }
    session
}

/// What sort of thing a line of redis-cli's answer is.
fn kind(line: &str) -> String {
    let bare = line.split_once(") ").map_or(line, |(_, rest)| rest);
    let value = bare.trim_matches('"').replace("\\\"", "\"");
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let kind = match &*value {
        text if is_id(text) => "a container's id",
        text if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            "a container's short id"
        }
        text if text.parse::<u64>().is_ok() => "a number",
        text if text.parse::<std::net::Ipv4Addr>().is_ok() => "an address",
        text if text.split(';').count() == 3 && text.contains(";git-") && text.contains(";go") => {
            "an engine's version"
        }
        text if text.starts_with("{\"Id\":\"") => "an inspect",
        text if text.starts_with("[\"") && text.ends_with("\"]") => "a list",
        text if text.starts_with("new_container:ubuntu:") && is_id(&text[21..]) => "a notice",
        "(integer) 1" => "an integer",
        text if !text.is_empty() && !text.starts_with('(') => "a word",
        other => return format!("something else: {other}"),
    };
    // The numbers of a list's lines belong to its form.
    match line.starts_with("1) ") || line.starts_with("2) ") || line.starts_with("3) ") {
        true => format!("{}) {kind}", &line[..1]),
        false => kind.to_owned(),
    }
}

#[test]
fn the_redis_cli_session_is_answered_as_the_readme_shows_it() {
    need!(redis, docker);
    let redis = Redis::start();
    let machine = Machine::get();
    let ids: Vec<String> = ["a", "b"]
        .iter()
        .map(|name| machine.docker.run(name, &[], &["sleep", "600"]))
        .collect();
    let _agent = Agent::watch("ubuntu", &machine.docker.url, &redis.url(), Agent::SELDOM_S);
    wait_until(seconds(30), "the containers are reported", || {
        let known: Vec<String> = redis.query(&["SMEMBERS", "docker:hosts:ubuntu:containers"]);
        ids.iter().all(|id| known.contains(id))
    });
    let session = session();
    assert!(session.len() >= 9, "the README lost its session");
    for (mut words, shown) in session {
        for word in &mut words {
            for part in word.clone().split(':').filter(|part| part.len() == 64) {
                *word = word.replace(part, &ids[0]);
            }
        }
        if words[0] == "subscribe" {
            subscribe(&machine, &redis, &words, &shown);
            continue;
        }
        let port = redis.port().to_string();
        let mut args = vec!["--no-raw", "-p", &port];
        args.extend(words.iter().map(String::as_str));
        let answer = run("redis-cli", &args);
        let kinds = |lines: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            lines.map(kind).take(2).collect()
        };
        assert_eq!(
            kinds(&mut answer.lines()),
            kinds(&mut shown.iter().map(String::as_str)),
            "redis-cli {} answered:\n{answer}",
            words.join(" ")
        );
    }
}

fn subscribe(machine: &Machine, redis: &Redis, words: &[String], shown: &[String]) {
    let folder = TempDir::new();
    let heard = folder.join("heard");
    let script = format!(
        "exec redis-cli --no-raw -p {} {} > {}",
        redis.port(),
        words.join(" "),
        heard.display()
    );
    let mut listener = Command::new("sh")
        .args(["-c", &script])
        .spawn()
        .expect("sh starts");
    wait_until(seconds(10), "somebody listens", || {
        let listening: (String, u64) = redis.query(&["PUBSUB", "NUMSUB", &words[1]]);
        listening.1 == 1
    });
    machine.docker.run("c", &[], &["sleep", "600"]);
    let kinds: Vec<String> = shown.iter().map(|line| kind(line)).collect();
    let result = std::panic::catch_unwind(|| {
        wait_until(
            seconds(20),
            "the notice comes as the README shows it",
            || {
                let text = std::fs::read_to_string(&heard).unwrap_or_default();
                let heard: Vec<String> = text.lines().map(kind).collect();
                match heard
                    .windows(3)
                    .any(|lines| lines == &kinds[kinds.len() - 3..])
                {
                    true => Ok(()),
                    false => Err(text),
                }
            },
        );
    });
    let _ = listener.kill();
    let _ = listener.wait();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// The README's files of handlers.
fn files() -> Vec<&'static str> {
    let blocks = README.split("```yaml\n").skip(1);
    blocks
        .filter_map(|block| block.split_once("```").map(|(yaml, _)| yaml))
        .collect()
}

#[test]
fn every_file_in_the_readme_is_right() {
    let folder = TempDir::new();
    let files = files();
    assert_eq!(files.len(), 4, "one that shows the fields, three use cases");
    for yaml in files {
        let path = folder.write("events.yml", yaml);
        let output = Agent::command()
            .arg("check")
            .arg(&path)
            .output()
            .expect("the agent starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(!said.contains("warning"), "{said}");
    }
}

/// What the README's load balancer has of its own.
const HAPROXY: &str = "defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend all
  bind unix@HOME/front
  default_backend web
";

#[test]
fn the_use_cases_of_the_readme_work_as_they_stand() {
    need!(dockerd, haproxy);
    let dockerd = Dockerd::start();
    let docker = &dockerd.docker;
    let home = TempDir::new();
    let home_path = home.path().to_string_lossy().into_owned();
    let run = |name: &str, options: &[&str], script: &str| {
        let start = ["run", "-d", "--name", name, "--label", &docker.label];
        let command = [&docker.image, "sh", "-c", script];
        docker.docker(&[&start[..], options, &command[..]].concat())
    };
    let network = "web";
    docker.docker(&["network", "create", "--label", &docker.label, network]);
    let web = ["--net", network, "--label", "com.example.role=web"];
    run("web-0", &web, "sleep 600");

    std::fs::create_dir(home.join("backends")).expect("a folder in a folder of ours");
    home.write("web.cfg", "backend web\n");
    home.write("haproxy.cfg", &HAPROXY.replace("HOME", &home_path));
    let path = |name: &str| home.join(name).to_string_lossy().into_owned();
    let (pid, own, backends) = (path("haproxy.pid"), path("haproxy.cfg"), path("web.cfg"));
    let balancer = Process::start(
        Command::new("haproxy").args(["-W", "-p", &pid, "-f", &own, "-f", &backends]),
    );
    wait_until(seconds(20), "the load balancer runs", || {
        home.join("haproxy.pid").exists()
    });
    let _agents: Vec<Agent> = files()[1..]
        .iter()
        .enumerate()
        .map(|(number, yaml)| {
            let yaml = yaml.replace(SOCKET, &docker.url);
            let path = home.write(&format!("{number}.yml"), &yaml);
            let path = path.to_string_lossy().into_owned();
            let agent = Agent::start_with(&["-cache=none", &path], &[("HOME", &home_path)]);
            agent.wait_log("Started monitoring Docker events", seconds(30));
            agent
        })
        .collect();

    // The master dies: the slave is promoted by what its own /promote does.
    let none = ["--net", "none"];
    let slave = "printf '#!/bin/sh\\necho yes > /promoted\\n' > /promote; /bin/busybox chmod +x /promote; sleep 600";
    run("mysql-slave", &none, slave);
    run("mysql-master", &none, "sleep 600");
    docker.docker(&["kill", "mysql-master"]);
    wait_until(seconds(20), "the slave is promoted", || {
        let said = docker.try_docker(&["exec", "mysql-slave", "cat", "/promoted"]);
        said.as_deref() == Ok("yes")
    });

    // Backends come and go; one was there before.
    run("web-1", &web, "sleep 600");
    run("other", &["--net", network], "sleep 600");
    let servers = |names: &[&str]| {
        let line = |name: &&str| {
            let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
            let address = docker.docker(&["inspect", "-f", format, name]);
            assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
            format!("  server {name} {address}:80")
        };
        names.iter().map(line).collect::<BTreeSet<String>>()
    };
    let wait_servers = |wanted: BTreeSet<String>| {
        wait_until(seconds(20), "the servers stand in the file", || {
            let text = std::fs::read_to_string(&backends).unwrap_or_default();
            let mut lines = text.lines().map(str::to_owned);
            let is_so = lines.next().as_deref() == Some("backend web")
                && lines.collect::<BTreeSet<String>>() == wanted;
            is_so.then_some(()).ok_or(text)
        });
        crate::kit::process::run("haproxy", &["-c", "-f", &own, "-f", &backends]);
    };
    wait_servers(servers(&["web-0", "web-1"]));
    balancer.wait_log("Reloading HAProxy", seconds(20));
    docker.docker(&["rm", "-f", "web-0"]);
    wait_servers(servers(&["web-1"]));

    // And all of it was logged.
    wait_until(seconds(20), "everything is logged", || {
        let text = std::fs::read_to_string(home.join("events.jsonl")).unwrap_or_default();
        let mut told = BTreeSet::new();
        for line in text.lines() {
            // One may be written just now.
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let attributes = &event["Actor"]["Attributes"];
            told.insert(format!(
                "{} {} {} {} {}",
                event["engine"].as_str().unwrap_or_default(),
                event["Type"].as_str().unwrap_or_default(),
                event["Action"].as_str().unwrap_or_default(),
                attributes["name"].as_str().unwrap_or_default(),
                attributes["exitCode"].as_str().unwrap_or_default(),
            ));
        }
        let wanted = [
            "all container die mysql-master 137",
            "all container start web-1 ",
            "all network connect web ",
            "all container die web-0 137",
            "all container destroy web-0 ",
        ];
        match wanted.iter().all(|line| told.contains(*line)) {
            true => Ok(()),
            false => Err(text),
        }
    });
}
