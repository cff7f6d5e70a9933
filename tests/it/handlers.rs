//! `events.yml` at work: which commands run, what they are told, in which order, and what holds nobody up.
//!
//! No engine at a foreign address is ever dialled: where a test wants one that is down, it takes a place of this machine where nobody listens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::kit::agent::Agent;
use crate::kit::docker::Machine;
use crate::kit::need::need;
use crate::kit::oracle::Host;
use crate::kit::process::lives;
use crate::kit::proxy::{Proxy, Way};
use crate::kit::redis::Redis;
use crate::kit::stand::{SOON, Stand, runs};
use crate::kit::{TempDir, free_port, seconds, wait_until};

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// The file of the README of old, with one of its engines at a place of this machine and the other nowhere.
fn old_file(stand: &Stand, first: &str, second: &str) -> String {
    let text = include_str!("../../fixtures/config/good/design_example.yml");
    assert!(
        text.contains("tcp://192.168.59.103:2375") && text.contains("unix:///var/run/docker.sock")
    );
    let text = text
        .replace("tcp://192.168.59.103:2375", first)
        .replace("unix:///var/run/docker.sock", second);
    stand
        .folder
        .write("events.yml", &text)
        .display()
        .to_string()
}

/// A `docker` that notes how it was called.
fn docker_stub(stand: &Stand) -> String {
    let folder = stand.folder.join("bin");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("docker");
    fs::write(
        &program,
        format!("#!/bin/sh\necho \"$*\" >> {}\n", stand.path("calls")),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    )
}

#[test]
fn the_old_file_works_with_one_of_its_engines_down() {
    let folder = TempDir::new();
    let engine = Engine::listen(&Place::Tcp("127.0.0.1:0".into())).unwrap();
    let stand = Stand { engine, folder };
    let url = stand.engine.url();
    let nowhere = format!("unix://{}", stand.path("nowhere"));
    let file = old_file(&stand, &url, &nowhere);
    let path = docker_stub(&stand);
    let mut agent = Agent::start_with(&[file, "--cache=none".into()], &[("PATH", &path)]);
    stand.wait_stream();
    let other = stand.engine.run(Spec::named("db-1").image("ubuntu:22.04"));
    stand.engine.kill(&other, 9);
    let web = stand.engine.run(Spec::named("web-1").image("ubuntu:22.04"));
    stand.engine.kill(&web, 9);
    let call = format!("-H {url} exec -- echo hello world");
    assert_eq!(stand.wait_lines("calls", 2), [call.clone(), call]);
    for word in ["kill", "die"] {
        let line = format!("This is a test (handler `greet`: {word} from foo@{url} on /web-1)");
        agent.wait_log(&line, SOON);
    }
    let log = agent.log();
    assert_eq!(count(&log, "This is a test"), 2, "{log}");
    assert_eq!(count(&log, "Listening to events..."), 1);
    assert!(
        log.contains(&format!(
            "Uncaught event: type create from foo@{url} on /web-1"
        )),
        "{log}"
    );
    // `kill` and `die` have an entry, whatever its other filters say.
    assert!(
        !log.contains("type die from") && !log.contains("Uncaught event: type kill"),
        "{log}"
    );
    assert!(
        log.contains("engine `bar`: "),
        "the other engine is missed: {log}"
    );
    assert!(agent.stop(SOON).success());

    // The other way round: the filter names the engine that is down.
    let nowhere = format!("tcp://127.0.0.1:{}", free_port());
    let file = old_file(&stand, &nowhere, &url);
    let mut agent = Agent::start_with(&[file, "--cache=none".into()], &[("PATH", &path)]);
    stand.wait_stream();
    let web = stand.engine.run(Spec::named("web-2").image("ubuntu:22.04"));
    stand.engine.kill(&web, 9);
    stand.engine.destroy(&web);
    agent.wait_log(
        &format!("Uncaught event: type destroy from bar@{url} on /web-2"),
        SOON,
    );
    assert_eq!(count(&agent.log(), "This is a test"), 0);
    assert!(agent.stop(SOON).success());
    assert_eq!(stand.lines("calls").len(), 2);
}

#[test]
fn every_entry_that_matches_runs_and_one_that_does_not_stops_none() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - {type: die, command: 'echo first $FROM_CONTAINER >> DIR/out'}
  - {type: die, from_container: "other-*", command: echo wrong name >> DIR/out}
  - {type: die, from_engine: bar, command: echo wrong engine >> DIR/out}
  - {type: die, image_contains: nginx, command: echo wrong image >> DIR/out}
  - {type: start, command: 'echo start $FROM_CONTAINER >> DIR/out'}
  - {type: DIE, from_engine: FO*, from_container: /WEB-?, image_contains: ubuntu, command: 'echo last $FROM_CONTAINER >> DIR/out'}
"#,
    );
    let id = stand
        .engine
        .run(Spec::named("web-1").image("library/ubuntu:22.04"));
    stand.engine.die(&id, 0);
    let lines: BTreeSet<String> = stand.wait_lines("out", 3).into_iter().collect();
    let expected = ["start web-1", "first web-1", "last web-1"].map(str::to_owned);
    assert_eq!(lines, expected.into());
    stand.flush("out");
    assert!(
        !stand.read("out").contains("wrong"),
        "{}",
        stand.read("out")
    );
    assert!(agent.stop(SOON).success());
}

/// Writes the environment of the shell as it was given, without what the shell adds.
const ENVIRON: &str =
    r"tr '\0' '\n' < /proc/$$/environ > DIR/$EVENT_TIME.tmp; mv DIR/$EVENT_TIME.tmp DIR/env";

fn environment(stand: &Stand) -> BTreeMap<String, String> {
    wait_until(SOON, "the environment is written", || {
        stand.folder.join("env").exists()
    });
    let lines = stand.lines("env");
    fs::remove_file(stand.folder.join("env")).unwrap();
    let pairs = lines.iter().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_command_sees_the_event_and_nothing_else_of_the_agents_environment() {
    let stand = Stand::new();
    let nowhere = format!("unix://{}", stand.path("nowhere"));
    let text = format!(
        "cluster:\n  foo-1: {}\n  Bar: {nowhere}\nevents:\n  - type: die, \"health_status: unhealthy\", oom\n    command: \"{}\"\n",
        stand.engine.url(),
        ENVIRON.replace('\\', "\\\\"),
    )
    .replace("type: die, \"health_status: unhealthy\", oom", "type: [die, \"health_status: unhealthy\", oom]")
    .replace("DIR", &stand.path(""));
    let file = stand
        .folder
        .write("events.yml", &text)
        .display()
        .to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut agent = Agent::start_with(
        &[file],
        &[
            ("PATH", &path),
            ("HOME", "/h"),
            ("LANG", "C"),
            ("TZ", "CET-1"),
            ("DOCKER_CACHE_CACHE", "none"),
            ("SECRET", "of the agent"),
            ("LD_LIBRARY_PATH", "/nowhere"),
        ],
    );
    stand.wait_stream();
    let before = stand.engine.now_ns();
    let id = stand.engine.run(Spec::named("web-1").image("ubuntu:22.04"));
    let expected = |word: &str, action: &str, code: &str| {
        let pairs = [
            ("PATH", &*path),
            ("HOME", "/h"),
            ("LANG", "C"),
            ("TZ", "CET-1"),
            ("FROM_ENGINE", "foo-1"),
            ("FROM_CONTAINER", "web-1"),
            ("FROM_CONTAINER_ID", &id),
            ("FROM_IMAGE", "ubuntu:22.04"),
            ("ENGINE_FOO_1", &stand.engine.url()),
            ("ENGINE_BAR", &nowhere),
            ("EVENT_TYPE", word),
            ("EVENT_ACTION", action),
            ("EVENT_ID", &id),
            ("EVENT_EXIT_CODE", code),
            ("EVENT_COUNT", "1"),
            ("EVENT_INFERRED", ""),
            ("EVENT_COUNT", "1"),
            ("EVENT_ATTEMPT", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        BTreeMap::from(pairs)
    };
    let check = |word: &str, action: &str, code: &str| {
        let mut found = environment(&stand);
        let time = found
            .remove("EVENT_TIME")
            .unwrap_or_default()
            .parse::<i64>();
        assert!(
            time.is_ok_and(|time| time >= before && time <= stand.engine.now_ns()),
            "ns of the engine's clock"
        );
        let run = found.remove("EVENT_RUN").unwrap_or_default();
        let (boot, number) = run.split_once('-').unwrap_or_default();
        assert!(boot.len() == 8 && number.parse::<u64>().is_ok(), "{run}");
        assert_eq!(found, expected(word, action, code));
    };
    stand.engine.health(&id, "unhealthy");
    check("health_status", "health_status: unhealthy", "");
    stand.engine.oom(&id);
    check("oom", "oom", "");
    stand.engine.die(&id, 3);
    check("die", "die", "3");
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_network_has_the_name_of_the_container_that_it_meets() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - {type: network/connect, from_container: web-1, image_contains: ubuntu, command: 'echo $EVENT_TYPE $EVENT_ACTION $FROM_CONTAINER $FROM_CONTAINER_ID $FROM_IMAGE $EVENT_ID >> DIR/out'}
  - {type: network/*, from_container: web-1, log: a network}
"#,
    );
    // `network connect` comes before anybody can have inspected the container.
    let id = stand.engine.run(Spec::named("web-1").image("ubuntu:22.04"));
    stand.engine.connect(&id, "backend");
    let bridge = crate::engine::containers::image_id("bridge");
    let backend = crate::engine::containers::image_id("backend");
    let line = |id: &str, network: &str| {
        format!("network/connect connect web-1 {id} ubuntu:22.04 {network}")
    };
    let expected = [line(&id, &bridge), line(&id, &backend)];
    assert_eq!(stand.wait_lines("out", 2), expected);
    stand.engine.disconnect(&id, "backend");
    agent.wait_log(
        "a network (handler `#2`: network/disconnect from foo@",
        SOON,
    );
    assert!(agent.log().contains("on /web-1)"));
    // Nor after it is gone: its last network is left then.
    let spec = Spec::named("web-1").image("ubuntu:22.04").auto_remove();
    let id = stand.engine.run(spec);
    assert_eq!(stand.wait_lines("out", 3)[2], line(&id, &bridge));
    let disconnects = || count(&agent.log(), "network/disconnect from foo@");
    assert_eq!(disconnects(), 1);
    stand.engine.die(&id, 0);
    wait_until(SOON, "the last disconnect was told", || disconnects() == 2);
    assert!(agent.stop(SOON).success());
}

#[test]
fn an_exit_code_is_the_events_own_also_where_a_label_pretends_to_be_one() {
    need!(redis);
    let entries = r#"
  - {type: die, command: 'now=$(date +%s%N); echo $FROM_CONTAINER "$EVENT_EXIT_CODE" $(( (now - EVENT_TIME) / 1000000 )) >> DIR/out'}
"#;
    let redis = Redis::start();
    for cached in [true, false] {
        let stand = Stand::new();
        let mut agent = match cached {
            true => stand.listen_and_report(entries, &redis),
            false => stand.listen(entries),
        };
        let run = |name: &str, code: i64, spec: fn(Spec) -> Spec| {
            let id = stand.engine.run(spec(Spec::named(name)));
            stand.engine.die(&id, code);
        };
        run("honest", 3, |spec| spec);
        run("honest-rm", 4, |spec| spec.auto_remove());
        run("liar", 5, |spec| spec.label("exitCode", "77"));
        // Nobody can know it: better nothing than a stranger's word.
        run("liar-rm", 6, |spec| {
            spec.label("exitCode", "77").auto_remove()
        });
        for line in stand.wait_lines("out", 4) {
            let words: Vec<&str> = line.split(' ').collect();
            let expected = match words[0] {
                "honest" => "3",
                "honest-rm" => "4",
                // An inspect that takes a second is not waited for.
                "liar" if words[2].parse::<u64>().is_ok_and(|ms| ms < 950) => "5",
                "liar" => words[1],
                _ => "",
            };
            assert_eq!(words[1], expected, "with a cache: {cached}: {line}");
            assert_ne!(words[1], "77", "{line}");
        }
        if cached {
            stand.settle(&redis);
        }
        assert!(agent.stop(SOON).success());
        redis.flush();
    }
}

#[test]
fn names_are_data_and_never_a_part_of_the_command() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - type: start
    name: "$(touch DIR/pwned-entry)"
    log: "$(touch DIR/pwned-log)"
    command: printf '%s|%s\n' "$FROM_CONTAINER" "$FROM_IMAGE" >> DIR/out
"#,
    );
    let name = format!("$(touch {})", stand.path("pwned-name"));
    let image = format!(
        "`touch {}`; touch {} #",
        stand.path("pwned-image"),
        stand.path("pwned-more")
    );
    let label = format!("$(touch {})", stand.path("pwned-label"));
    stand
        .engine
        .run(Spec::named(&name).image(&image).label("x", &label));
    assert_eq!(stand.wait_lines("out", 1), [format!("{name}|{image}")]);
    agent.wait_log("exit status 0", SOON);
    let pwned: Vec<PathBuf> = fs::read_dir(stand.folder.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("pwned"))
        .collect();
    assert!(pwned.is_empty(), "{pwned:?}");
    assert!(agent.stop(SOON).success());
}

/// Commands that note how late they began: `name milliseconds answer`.
fn late(question: &str) -> String {
    format!(
        "now=$(date +%s%N); answer=$({question}); echo $EVENT_TYPE $FROM_CONTAINER $(( (now - EVENT_TIME) / 1000000 )) $answer >> DIR/out"
    )
}

/// `start web-1 12 1`: the milliseconds and the answer.
fn late_lines(lines: &[String]) -> Vec<(String, u64, String)> {
    lines
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(words.len() >= 3, "{line}");
            let answer = words.get(3).copied().unwrap_or("").to_owned();
            (words[0].to_owned(), words[2].parse().unwrap(), answer)
        })
        .collect()
}

#[test]
fn a_command_finds_in_redis_the_state_that_its_event_led_to() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let question = format!(
        "redis-cli -p {} EXISTS docker:containers:$FROM_CONTAINER_ID",
        redis.port()
    );
    let mut agent = stand.listen_and_report(
        &format!(
            "  - {{type: 'start, die', command: '{}'}}\n",
            late(&question)
        ),
        &redis,
    );
    let began = Instant::now();
    let mut in_time = Vec::new();
    for number in 0.. {
        let id = stand.engine.run(Spec::named(&format!("web-{number}")));
        stand.wait_lines("out", 2 * number + 1);
        stand.engine.die(&id, 0);
        let lines = late_lines(&stand.wait_lines("out", 2 * number + 2));
        // A command waits for Redis for 250 ms and no longer; on a machine that is busy enough it may be too early then.
        in_time = lines.into_iter().filter(|(_, ms, _)| *ms < 240).collect();
        if in_time.len() >= 10 {
            break;
        }
        assert!(began.elapsed() < 2 * SOON, "the machine is too busy");
    }
    for (word, ms, answer) in &in_time {
        let expected = if word == "start" { "1" } else { "0" };
        assert_eq!(answer, expected, "{word} after {ms} ms: {in_time:?}");
    }
    stand.settle(&redis);
    assert!(agent.stop(SOON).success());
}

#[test]
fn no_command_runs_before_redis_has_taken_what_its_event_led_to() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let wire = Proxy::tcp(&redis.url());
    let question = format!(
        "redis-cli -p {} EXISTS docker:containers:$FROM_CONTAINER_ID",
        redis.port()
    );
    // An image's event leads to nothing in Redis: its command runs at once, and later than a command that did not wait.
    let entries = format!(
        "  - {{type: start, command: '{}'}}\n  - {{type: image/tag, command: sleep 0.05; echo >> DIR/marks}}\n",
        late(&question)
    );
    let cache = format!("--cache={}", wire.redis_url());
    let mut agent = Agent::start(&[stand.file(&entries), cache]);
    stand.wait_stream();
    stand.settle(&redis);
    let (mut seen, start) = (0, Instant::now());
    for number in 0.. {
        assert!(start.elapsed() < 2 * SOON, "the machine is too busy");
        let began = Instant::now();
        wire.stall(Way::Requests, true);
        stand.engine.run(Spec::named(&format!("web-{number}")));
        stand
            .engine
            .emit_raw_event("image", "tag", "sha256:1", Vec::new());
        stand.wait_lines("marks", number + 1);
        let ran = stand.lines("out").len() > number;
        // Who has waited for a quarter of a second waits no longer.
        let in_time = began.elapsed() < Duration::from_millis(240);
        wire.stall(Way::Requests, false);
        let lines = late_lines(&stand.wait_lines("out", number + 1));
        let (_, ms, answer) = &lines[number];
        assert!(
            !(in_time && ran),
            "it ran while Redis had nothing: {lines:?}"
        );
        if *ms < 240 {
            assert_eq!(answer, "1", "{lines:?}");
            seen += 1;
        }
        if seen == 3 {
            break;
        }
    }
    assert!(
        seen > 0,
        "the machine is too busy: {:?}",
        stand.lines("out")
    );
    stand.settle(&redis);
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_command_waits_for_a_slow_redis_a_moment_and_for_one_that_is_down_not_at_all() {
    need!(redis);
    let mut redis = Redis::start();
    let stand = Stand::new();
    let mut agent = stand.listen_and_report(
        &format!("  - {{type: start, command: '{}'}}\n", late("true")),
        &redis,
    );
    redis.freeze();
    stand.engine.run(Spec::named("frozen"));
    let frozen = late_lines(&stand.wait_lines("out", 1));
    assert!(
        frozen[0].1 >= 200,
        "it had to wait for the frozen Redis: {frozen:?}"
    );
    redis.thaw();
    stand.settle(&redis);
    redis.kill9();
    agent.wait_log("failed to", SOON);
    for number in 0..10 {
        stand.engine.run(Spec::named(&format!("web-{number}")));
        stand.wait_lines("out", number + 2);
    }
    let lines = late_lines(&stand.lines("out")[1..]);
    // Whoever waits, waits for a quarter of a second.
    assert!(lines.iter().any(|(_, ms, _)| *ms < 200), "{lines:?}");
    redis.restart();
    stand.settle(&redis);
    assert!(agent.stop(SOON).success());
}

#[test]
fn an_entry_whose_commands_hang_delays_no_other() {
    let stand = Stand::new();
    let mut agent = stand.listen(&format!(
        "  - {{name: hung, type: start, command: echo >> DIR/hung; exec sleep 1000, grace: 100ms}}\n  - {{name: quick, type: start, command: '{}'}}\n",
        late("true")
    ));
    for number in 0..80 {
        stand.engine.run(Spec::named(&format!("web-{number}")));
    }
    let lines = late_lines(&stand.wait_lines("out", 80));
    for number in 80..100 {
        stand.engine.run(Spec::named(&format!("web-{number}")));
        stand.wait_lines("out", number + 1);
    }
    let quick = late_lines(&stand.lines("out")[80..]);
    // The machine is busy with other tests; a queue behind the hung entry would be felt by every single one.
    let best = quick.iter().map(|(_, ms, _)| *ms).min();
    assert!(best < Some(50), "{quick:?}");
    assert_eq!(
        stand.lines("hung").len(),
        8,
        "so many of an entry run at once"
    );
    let worst = quick.iter().chain(&lines).map(|(_, ms, _)| *ms).max();
    assert!(
        worst < Some(30_000),
        "nobody waits for the hung ones to time out: {worst:?} ms"
    );
    assert!(agent.stop(SOON).success());
}

#[test]
fn events_of_one_container_reach_an_entry_in_order() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - {type: "*", command: 'sleep 0.0$((EVENT_TIME / 1000 % 5)); echo $EVENT_TYPE $EVENT_TIME >> DIR/$FROM_CONTAINER'}
"#,
    );
    let ids: Vec<String> = (0..4)
        .map(|number| stand.engine.run(Spec::named(&format!("web-{number}"))))
        .collect();
    for _ in 0..5 {
        for id in &ids {
            stand.engine.restart_container(id);
        }
    }
    for number in 0..4 {
        // Four at the start, and seven for each restart.
        let lines = stand.wait_lines(&format!("web-{number}"), 3 + 5 * 7);
        let words: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(words[..3], ["create", "network/connect", "start"]);
        for restart in words[3..].chunks(7) {
            let expected = [
                "kill",
                "die",
                "network/disconnect",
                "stop",
                "network/connect",
                "start",
                "restart",
            ];
            assert_eq!(restart, expected, "{lines:?}");
        }
        let times: Vec<i64> = lines
            .iter()
            .filter_map(|line| line.split(' ').nth(1)?.parse().ok())
            .collect();
        assert!(times.is_sorted(), "{lines:?}");
    }
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_timeout_ends_the_whole_group_gently_and_then_not() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - name: gentle
    type: start
    timeout: 300ms
    command: |
      trap 'echo bye; echo gentle >> DIR/termed; exit 7' TERM
      echo begun; sleep 1000 & echo $! >> DIR/pids; echo $$ >> DIR/pids; wait
  - name: deaf
    type: start
    timeout: 300ms
    grace: 200ms
    command: |
      trap '' TERM
      sleep 1000 & echo $! >> DIR/pids; echo $$ >> DIR/pids
      while :; do sleep 1000; done
"#,
    );
    stand.engine.run(Spec::named("web-1"));
    wait_until(SOON, "both have ended", || {
        count(
            &agent.log(),
            " for start of web-1 on foo: timed out and was killed",
        ) == 2
    });
    let log = agent.log();
    assert!(
        log.contains("gentle[") && log.contains("]| begun") && log.contains("]| bye"),
        "{log}"
    );
    let pids = stand.lines("pids");
    assert_eq!(pids.len(), 4);
    let left: Vec<&String> = pids.iter().filter(|pid| lives(pid)).collect();
    assert!(left.is_empty(), "{left:?} outlived the timeout");
    assert_eq!(stand.lines("termed"), ["gentle"]);
    assert!(agent.stop(SOON).success());
}

#[test]
fn the_log_has_the_end_of_what_a_command_wrote() {
    let stand = Stand::new();
    let mut agent = stand.listen(
        r#"
  - name: talker
    type: start
    command: i=0; while [ $i -lt 2000 ]; do echo "line $i of many"; i=$((i + 1)); done; echo the end >&2; exit 9
"#,
    );
    stand.engine.run(Spec::named("web-1"));
    agent.wait_log("the end", SOON);
    let log = agent.log();
    assert!(
        log.contains("-1 for start of web-1 on foo: exit status 9, after "),
        "{log}"
    );
    assert!(log.contains("-1]| … (the last 4096 bytes follow)"), "{log}");
    assert!(
        log.contains("-1]| line 1999 of many") && !log.contains("line 100 of many"),
        "{log}"
    );
    let told: usize = log
        .lines()
        .filter_map(|line| Some(line.split_once("-1]| ")?.1.len() + 1))
        .sum();
    assert!((3900..4300).contains(&told), "{told} bytes were told");
    assert!(agent.stop(SOON).success());
}

#[test]
fn what_no_entry_catches_is_told_and_noise_is_not() {
    let stand = Stand::new();
    let mut agent = stand.listen("  - {type: pause, from_container: x, log: paused}\n");
    let id = stand.engine.run(Spec::named("grave_euclid"));
    stand.engine.exec(&id, "/bin/sh -c 'mysql -phush'");
    stand.engine.top(&id);
    stand.engine.pause(&id);
    stand.engine.die(&id, 0);
    let url = stand.engine.url();
    agent.wait_log(
        &format!("Uncaught event: type die from foo@{url} on /grave_euclid"),
        SOON,
    );
    let log = agent.log();
    for word in ["create", "start"] {
        let line = format!("Uncaught event: type {word} from foo@{url} on /grave_euclid\n");
        assert_eq!(count(&log, &line), 1, "{log}");
    }
    for absent in ["exec", "top", "hush", "type pause", "paused"] {
        assert!(!log.replace(&url, "").contains(absent), "{absent}: {log}");
    }
    assert!(agent.stop(SOON).success());
}

#[test]
fn the_old_name_runs_handlers_without_a_cache() {
    let stand = Stand::new();
    let link = stand.folder.join("docker-eventsd");
    std::os::unix::fs::symlink(Agent::PROGRAM, &link).unwrap();
    let file = stand.file("  - {type: start, command: 'echo $FROM_CONTAINER >> DIR/out'}\n");
    let clean = Agent::command();
    let mut command = Command::new(&link);
    for (name, value) in clean.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut agent = Agent::spawn(command.arg(&file));
    stand.wait_stream();
    stand.engine.run(Spec::named("web-1"));
    assert_eq!(stand.wait_lines("out", 1), ["web-1"]);
    assert!(
        !agent.threads().contains(&"writer".to_owned()),
        "there is no cache: {:?}",
        agent.threads()
    );
    assert!(!agent.log().contains("Cache"), "{}", agent.log());
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_file_without_a_cluster_watches_the_engine_of_the_command_line() {
    let stand = Stand::new();
    let text = format!(
        "events:\n  - {{type: start, command: 'echo $FROM_ENGINE $ENGINE_NODE_1 >> {}'}}\n",
        stand.path("out")
    );
    let file = stand
        .folder
        .write("events.yml", &text)
        .display()
        .to_string();
    let docker = format!("-docker={}", stand.engine.url());
    let mut agent = Agent::start(&["-cache=none".to_owned(), "-id=node.1".into(), docker, file]);
    stand.wait_stream();
    stand.engine.run(Spec::named("web-1"));
    assert_eq!(
        stand.wait_lines("out", 1),
        [format!("node.1 {}", stand.engine.url())]
    );
    assert!(agent.stop(SOON).success());
}

#[test]
fn nothing_fires_for_what_was_there_before_the_start() {
    need!(redis);
    let entries = "  - {type: '*', command: 'echo $EVENT_TYPE $FROM_CONTAINER >> DIR/out'}\n";
    for cached in [false, true] {
        let redis = Redis::start();
        let stand = Stand::new();
        stand.engine.run(Spec::named("before"));
        let gone = stand.engine.run(Spec::named("gone").auto_remove());
        stand.engine.die(&gone, 1);
        let mut agent = match cached {
            true => stand.listen_and_report(entries, &redis),
            false => stand.listen(entries),
        };
        let lines = stand.flush("out");
        assert!(
            !lines
                .iter()
                .any(|line| line.contains("before") || line.contains("gone")),
            "{lines:?}"
        );
        assert!(agent.stop(SOON).success());
    }
}

#[test]
fn what_happened_while_the_agent_was_away_runs_once() {
    need!(redis);
    let redis = Redis::start();
    let stand = Stand::new();
    let entries = "  - {type: 'start, die', command: 'echo $EVENT_TYPE $FROM_CONTAINER \"$EVENT_INFERRED\" >> DIR/out'}\n";
    let mut agent = stand.listen_and_report(entries, &redis);
    let old = stand.engine.run(Spec::named("old"));
    let dying = stand.engine.run(Spec::named("dying"));
    wait_until(SOON, "both runs are told", || {
        runs(&redis, "end").len() == 2
    });
    stand.settle(&redis);
    agent.kill9();
    wait_until(SOON, "the stream is closed", || {
        stand.engine.subscribers() == 0
    });
    let new = stand.engine.run(Spec::named("new"));
    stand.engine.die(&dying, 1);
    let short = stand.engine.run(Spec::named("short"));
    stand.engine.die(&short, 2);
    // At once, as systemd does it: the lease of the dead one still lives.
    let mut agent = Agent::start(&[stand.file(entries), format!("--cache={}", redis.url())]);
    let lines = stand.wait_lines("out", 6);
    stand.settle(&redis);
    let expected = [
        "start old ",
        "start dying ",
        "start new 1",
        "die dying 1",
        "start short 1",
        "die short 1",
    ];
    assert_eq!(
        lines.iter().collect::<BTreeSet<_>>(),
        expected.map(str::to_owned).iter().collect()
    );
    // What comes out for this one came after all that went before.
    stand.engine.die(&new, 0);
    stand.engine.die(&old, 0);
    let lines = stand.wait_lines("out", 8);
    assert_eq!(
        lines[6..].iter().collect::<BTreeSet<_>>(),
        ["die new ", "die old "].map(str::to_owned).iter().collect()
    );
    stand.settle(&redis);
    assert_eq!(stand.lines("out").len(), 8);
    assert!(agent.stop(SOON).success());

    // After a clean stop the successor takes up at once.
    let late = stand.engine.run(Spec::named("late"));
    let mut agent = Agent::start(&[stand.file(entries), format!("--cache={}", redis.url())]);
    assert_eq!(stand.wait_lines("out", 9)[8], "start late 1");
    stand.engine.die(&late, 0);
    assert_eq!(stand.wait_lines("out", 10)[9], "die late ");
    stand.settle(&redis);
    assert!(agent.stop(SOON).success());
}

#[test]
fn a_real_engine_says_the_same() {
    need!(redis, docker);
    let redis = Redis::start();
    let machine = Machine::get();
    let docker = &machine.docker;
    let folder = TempDir::new();
    let out = folder.join("out").display().to_string();
    let glob = format!("{}*", docker.prefix);
    let question = format!(
        "$(redis-cli -p {} EXISTS docker:containers:$FROM_CONTAINER_ID)",
        redis.port()
    );
    let text = format!(
        r#"
cluster:
  local: {}
  nowhere: tcp://127.0.0.1:{}
events:
  - type: start, die
    from_container: "{glob}"
    image_contains: {}
    command: exists={question}; late=$(( ($(date +%s%N) - EVENT_TIME) / 1000000 )); echo $EVENT_TYPE $FROM_CONTAINER $FROM_IMAGE "code=$EVENT_EXIT_CODE" $exists $late >> {out}
  - type: network/connect
    from_container: "{glob}"
    command: echo $EVENT_TYPE $FROM_CONTAINER $FROM_CONTAINER_ID >> {out}-net
"#,
        docker.url,
        free_port(),
        docker.image,
    );
    let file = folder.write("events.yml", &text).display().to_string();
    let mut agent = Agent::start(&[
        file,
        format!("--cache={}", redis.url()),
        format!("--filter={}", machine.filter()),
    ]);
    let report = || {
        let up = Host::up("local", docker.own_running());
        vec![up]
    };
    wait_until(SOON, "the engine is reported", || {
        redis
            .query::<Option<String>>(&["HGET", "docker:hosts:local", "last_update"])
            .is_some()
    });
    let name = format!("{}web", docker.prefix);
    let id = docker.run(
        "web",
        &["--label", "name=evil", "--label", "image=evil"],
        &[],
    );
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    wait_until(SOON, "the start was told", || read(&out).ends_with('\n'));
    docker.docker(&["kill", &id]);
    // `docker run --rm -d` of something short: gone before anybody can inspect it.
    docker.run("job", &["--rm"], &["sh", "-c", "exit 3"]);
    docker.run("liar", &["--label", "exitCode=77"], &["sh", "-c", "exit 5"]);
    wait_until(SOON, "all commands have run", || {
        match read(&out).lines().count() {
            6 => Ok(()),
            _ => Err(read(&out)),
        }
    });
    let text = read(&out);
    let mut told = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[2], words.len()), (&*docker.image, 6), "{line}");
        let late: u64 = words[5].parse().unwrap();
        // Of a short one the start may have been written and gone again.
        let expected = if words[0] == "start" { "1" } else { "0" };
        if late < 240 && words[1] == name {
            assert_eq!(words[4], expected, "{line}");
        }
        told.insert(format!("{} {}", words[0], words[1]), words[3].to_owned());
    }
    let code = |key: String| told.get(&key).map(String::as_str).unwrap_or("-");
    assert_eq!(code(format!("start {name}")), "code=");
    assert_eq!(code(format!("die {name}")), "code=137");
    assert_eq!(code(format!("die {}job", docker.prefix)), "code=3");
    // The engine is given a second to say how it ended; a stranger's word is never taken.
    let liar = format!("die {}liar", docker.prefix);
    let late = text.lines().find(|line| line.starts_with(&liar));
    let late = late.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    let given_up = late >= Some(950) && code(liar.clone()) == "code=";
    assert!(given_up || code(liar) == "code=5", "{text}");
    assert!(
        read(&format!("{out}-net")).contains(&format!("network/connect {name} {id}\n")),
        "{}",
        read(&format!("{out}-net"))
    );
    docker.docker(&["start", &id]);
    wait_until(SOON, "what runs is reported", || {
        let members: BTreeSet<String> = redis.query(&["SMEMBERS", "docker:hosts:local:containers"]);
        let wanted = report().remove(0).running;
        match members == wanted && !wanted.is_empty() {
            true => Ok(()),
            false => Err(format!("{members:?}, wanted {wanted:?}")),
        }
    });
    assert!(agent.stop(seconds(30)).success());
}
