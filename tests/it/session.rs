//! The old README's session on the machine's own engine: each line there gives an answer of the same form.

use std::collections::BTreeSet;
use std::process::Command;

use crate::kit::agent::Agent;
use crate::kit::docker::Machine;
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::process::{Process, run};
use crate::kit::redis::Redis;
use crate::kit::scene::SOON;
use crate::kit::{seconds, wait_until};

/// `redis-cli`, as it answers at a terminal.
fn cli(redis: &Redis, words: &[&str]) -> String {
    let port = redis.port().to_string();
    let args = [&["--no-raw", "-p", &port], words].concat();
    run("redis-cli", &args).trim_end().to_owned()
}

/// `1) "a"`, `2) "b"` -> a, b.
fn members(answer: &str) -> BTreeSet<String> {
    let member = |(index, line): (usize, &str)| {
        let (number, member) = line.trim_start().split_once(") ").unwrap();
        assert_eq!(number, (index + 1).to_string(), "{answer}");
        member.trim_matches('"').to_owned()
    };
    answer.lines().enumerate().map(member).collect()
}

/// With each digit as `9`.
fn form(text: &str) -> String {
    let digit = |c: char| if c.is_ascii_digit() { '9' } else { c };
    text.chars().map(digit).collect()
}

#[test]
fn the_old_readmes_session() {
    need!(redis, docker);
    let redis = Redis::start();
    let machine = Machine::get();
    let docker = &machine.docker;
    let ids: BTreeSet<String> = ["a", "b", "c", "d"]
        .map(|name| docker.run(name, &["-it"], &["sh"]))
        .into();
    let agent = Agent::start(&[
        format!("-cache={}", redis.url()),
        format!("-docker={}", docker.url),
        "-id=ubuntu".into(),
        "-updateInterval=2m0s".into(),
    ]);
    agent.wait_log("Reported", SOON);
    let log = agent.log();
    let lines: Vec<String> = log.lines().map(form).collect();
    assert_eq!(
        lines[0],
        "9999/99/99 99:99:99 Started monitoring Docker events (ubuntu)"
    );
    assert!(
        lines[1].starts_with("9999/99/99 99:99:99 Reported 9"),
        "{log}"
    );
    assert!(lines[1].ends_with(" containers to the Cache"), "{log}");

    assert_eq!(cli(&redis, &["smembers", "docker:hosts"]), "1) \"ubuntu\"");
    // Other tests have containers on this engine as well.
    let running = cli(
        &redis,
        &["hget", "docker:hosts:ubuntu", "containers_running"],
    );
    assert!(
        running.trim_matches('"').parse::<usize>().unwrap() >= 4,
        "{running}"
    );
    let version = cli(&redis, &["hget", "docker:hosts:ubuntu", "docker_version"]);
    let parts: Vec<&str> = version.trim_matches('"').split(';').collect();
    assert!(
        parts.len() == 3 && parts[1].starts_with("git-") && parts[2].starts_with("go1."),
        "{version}"
    );
    let told = members(&cli(
        &redis,
        &["smembers", "docker:hosts:ubuntu:containers"],
    ));
    assert!(ids.is_subset(&told), "{told:?}");

    let first = ids.first().unwrap();
    let key = format!("docker:containers:{first}");
    let field = |name: &str| cli(&redis, &["hget", &key, name]);
    let inspected = |format: &str| docker.docker(&["inspect", "--format", format, first]);
    let address = inspected("{{.NetworkSettings.IPAddress}}");
    assert!(address.split('.').count() == 4, "{address}");
    assert_eq!(field("networksettings_ipaddress"), format!("\"{address}\""));
    assert_eq!(field("config_cmd"), r#""[\"sh\"]""#);
    assert_eq!(field("config_hostname"), format!("\"{}\"", &first[..12]));
    assert_eq!(field("config_image"), format!("\"{}\"", docker.image));
    assert_eq!(
        field("state_pid"),
        format!("\"{}\"", inspected("{{.State.Pid}}"))
    );
    let json = cli(&redis, &["get", &format!("{key}:json")]);
    assert!(
        json.starts_with(&format!(r#""{{\"Id\":\"{first}\",\"Created\":"#)),
        "{json}"
    );

    let port = redis.port().to_string();
    let subscriber = Process::start(Command::new("redis-cli").args([
        "--no-raw",
        "-p",
        &port,
        "subscribe",
        "docker_events",
    ]));
    subscriber.wait_log("3) (integer) 1", SOON);
    let new = docker.run("e", &[], &[]);
    let notice = format!("1) \"message\"\n2) \"docker_events\"\n3) \"new_container:ubuntu:{new}\"");
    subscriber.wait_log(&notice, SOON);

    wait_until(seconds(60), "Redis equals the engine for a moment", || {
        oracle::check(&redis, "docker", &[Host::up("ubuntu", docker.running())])
    });
}
