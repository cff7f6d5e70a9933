//! What runs where stands in Redis: each change at once, with its notice; all of it, and nothing else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::engine::containers::Spec;
use crate::engine::http::Place;
use crate::engine::{Behaviour, Route};
use crate::kit::agent::Agent;
use crate::kit::docker::{Dockerd, Machine};
use crate::kit::listen::{Monitor, Notices};
use crate::kit::need::need;
use crate::kit::oracle::{self, Host};
use crate::kit::redis::{Redis, ask};
use crate::kit::scene::{SOON, Stage, engine};
use crate::kit::{seconds, wait_until};

#[test]
fn timed_ten_containers_that_come_and_go_leave_redis_equal_to_docker_ps_within_2_s() {
    need!(redis, dockerd);
    let redis = Redis::start();
    let engine = Dockerd::start();
    let _agent = Agent::watch("h", &engine.docker.url, &redis.url(), Agent::SELDOM_S);
    let live = |number: u32| {
        for round in 0..3 {
            let name = format!("c{number}");
            let id = engine.run(&name, &["--rm"], &[]);
            let renamed = format!("{}renamed{number}", engine.docker.prefix);
            engine.docker.docker(&["rename", &id, &renamed]);
            if number.is_multiple_of(2) {
                engine.docker.docker(&["pause", &id]);
            }
            // The last of every third stays, some of them paused.
            if !number.is_multiple_of(3) || round < 2 {
                if number.is_multiple_of(2) {
                    engine.docker.docker(&["unpause", &id]);
                }
                engine.docker.docker(&["kill", &id]);
                // The name is free again only when the container is gone.
                while engine.docker.try_docker(&["inspect", &id]).is_ok() {}
            }
        }
    };
    std::thread::scope(|scope| {
        for number in 0..10 {
            scope.spawn(move || live(number));
        }
    });
    let ended = Instant::now();
    let running = engine.docker.running();
    assert_eq!(running.len(), 4);
    oracle::settle(&redis, "docker", SOON, || {
        vec![Host::up("h", running.clone())]
    });
    let took = ended.elapsed();
    println!("equal to `docker ps` after {took:?}");
    assert!(took < seconds(2), "{took:?}");
}

/// A health check that succeeds once there is a file.
const HEALTHY_AFTER_A_WHILE: [&str; 4] =
    ["--health-cmd", "test -f /well", "--health-interval", "1s"];

/// A real engine, an agent that reports our containers there as `h`, and what it says.
struct Real {
    agent: Agent,
    notices: Notices,
    redis: Redis,
    machine: Machine,
}

impl Real {
    fn start(options: &[&str]) -> Real {
        let redis = Redis::start();
        let machine = Machine::get();
        let notices = Notices::of(&redis, "docker_events");
        let filter = machine.filter();
        let options = [&["--filter", &filter], options].concat();
        let (engine, cache) = (&machine.docker.url, redis.url());
        let agent = Agent::watch_with("h", engine, &cache, Agent::SELDOM_S, &options);
        agent.wait_log("Reported", SOON);
        Real {
            agent,
            notices,
            redis,
            machine,
        }
    }

    fn docker(&self, args: &[&str]) {
        self.machine.docker.docker(args);
    }

    /// When a notice of this word comes for the container, its hash has a field with such a value.
    #[track_caller]
    fn shows(&self, word: &str, id: &str, field: &str, fits: impl Fn(&str) -> bool) {
        let key = format!("docker:containers:{id}");
        let notice = format!("{word}:h:{id}");
        self.notices.until_so(&notice, SOON, || {
            let value: Option<String> = self.redis.query(&["HGET", &key, field]);
            let value = value.unwrap_or_default();
            fits(&value)
                .then_some(())
                .ok_or(format!("{field} is `{value}`"))
        });
    }

    /// When this notice comes for the container, it is (or is not) in this set.
    #[track_caller]
    fn belongs(&self, word: &str, id: &str, set: &str, wanted: bool) {
        self.notices.until_so(&format!("{word}:h:{id}"), SOON, || {
            let is: bool = self.redis.query(&["SISMEMBER", set, id]);
            (is == wanted)
                .then_some(())
                .ok_or(format!("in {set}: {is}"))
        });
    }

    /// Stops, renames, restarts and so on; the container runs at the end.
    fn go_through_changes(&self) -> String {
        let docker = &self.machine.docker;
        let network = self.machine.network("net");
        // An engine can answer nothing about a container whose health check runs while it is paused.
        let checked = docker.run("checked", &HEALTHY_AFTER_A_WHILE, &[]);
        self.belongs("new_container", &checked, "docker:containers", true);
        self.docker(&["exec", &checked, "sh", "-c", "echo > /well"]);
        self.shows("update_container", &checked, "state_health", |text| {
            text.contains(r#""Status":"healthy""#)
        });
        self.docker(&["kill", &checked]);
        self.belongs("delete_container", &checked, "docker:containers", false);

        let id = docker.run("a", &["--memory", "64m"], &[]);
        self.shows("new_container", &id, "state_running", |text| text == "true");
        let renamed = format!("{}b", docker.prefix);
        self.docker(&["rename", &id, &renamed]);
        self.shows("update_container", &id, "name", |text| {
            text == format!("/{renamed}")
        });
        let names: Vec<String> = self.redis.query(&["HGETALL", "docker:hosts:h:names"]);
        assert_eq!(names, [renamed, id.clone()]);

        self.docker(&["pause", &id]);
        self.shows("update_container", &id, "state_status", |text| {
            text == "paused"
        });
        self.docker(&["unpause", &id]);
        self.shows("update_container", &id, "state_status", |text| {
            text == "running"
        });
        self.docker(&["update", "--cpu-shares", "512", &id]);
        self.shows("update_container", &id, "hostconfig_cpushares", |text| {
            text == "512"
        });
        self.docker(&["network", "connect", &network, &id]);
        self.shows(
            "update_container",
            &id,
            "networksettings_networks",
            |text| text.contains(&network),
        );
        self.docker(&["network", "disconnect", &network, &id]);
        self.shows(
            "update_container",
            &id,
            "networksettings_networks",
            |text| !text.contains(&network),
        );
        id
    }
}

#[test]
fn each_change_shows_at_once_with_its_notice() {
    need!(redis, docker);
    let real = Real::start(&[]);
    let told = real.notices.until("refresh_containers:h", SOON);
    assert_eq!(told, ["new_host:h", "refresh_containers:h"]);
    let id = real.go_through_changes();
    let key = format!("docker:containers:{id}");
    let started: String = real.redis.query(&["HGET", &key, "state_startedat"]);
    real.docker(&["restart", &id]);
    // An inspect may fall between its end and its new start.
    let last = |text: &String| text.starts_with("new_") || text.starts_with("update_");
    wait_until(SOON, "the new start shows", || {
        let now: Option<String> = real.redis.query(&["HGET", &key, "state_startedat"]);
        now.is_some_and(|now| now != started) && real.notices.so_far().iter().any(last)
    });
    real.docker(&["kill", &id]);
    real.belongs("delete_container", &id, "docker:containers", false);
    assert!(!real.redis.query::<bool>(&["EXISTS", &key]));
    real.docker(&["rm", &id]);
    let fleeting = real.machine.docker.run("c", &["--rm"], &[]);
    real.belongs("new_container", &fleeting, "docker:containers", true);
    real.docker(&["kill", &fleeting]);
    real.belongs("delete_container", &fleeting, "docker:containers", false);
    oracle::settle(&real.redis, "docker", SOON, || {
        vec![Host::up("h", real.machine.docker.own_running())]
    });
    assert_eq!(real.notices.so_far(), [""; 0]);
    drop(real.agent);
}

#[test]
fn with_all_stopped_containers_stay_until_they_are_removed() {
    need!(redis, docker);
    let real = Real::start(&["--all"]);
    let docker = &real.machine.docker;
    let create = |name: &str, command: &[&str]| {
        let name = format!("{}{name}", docker.prefix);
        let mut words = vec![
            "create",
            "--label",
            &docker.label,
            "--name",
            &name,
            &docker.image,
        ];
        words.extend(command);
        let id = docker.docker(&words);
        real.belongs("new_container", &id, "docker:hosts:h:stopped", true);
        id
    };
    let created = create("z", &["true"]);
    // Each step waits for the one before: what runs a moment after it was made may be told of once or twice.
    let id = create("a", &["sleep", "1000"]);
    real.docker(&["start", &id]);
    real.belongs("update_container", &id, "docker:containers", true);
    real.docker(&["kill", &id]);
    real.shows("update_container", &id, "state_exitcode", |text| {
        text == "137"
    });
    real.docker(&["start", &id]);
    real.belongs("update_container", &id, "docker:containers", true);
    real.docker(&["stop", &id]);
    real.belongs("update_container", &id, "docker:hosts:h:stopped", true);
    real.docker(&["rm", &id]);
    real.belongs("delete_container", &id, "docker:hosts:h:stopped", false);
    oracle::settle(&real.redis, "docker", SOON, || {
        let host = Host::up("h", docker.own_running());
        vec![host.stopped([created.clone()].into())]
    });
}

#[test]
fn changes_of_many_containers_while_the_engine_is_slow_to_tell() {
    need!(redis);
    let mut ids = Vec::new();
    let stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        ids.extend((0..30).map(|number| engine.run(Spec::named(&format!("c{number}")))));
    });
    let late = Behaviour::Late(Duration::from_millis(50));
    stage.engine.misbehave(Route::Inspect, late);
    for id in &ids {
        stage.engine.update(id, 1 << 26);
        stage.engine.update(id, 1 << 27);
    }
    wait_until(SOON, "all show", || {
        ids.iter()
            .all(|id| stage.field(id, "hostconfig_memory") == "134217728")
    });
    stage.settle();
}

#[test]
fn an_inspect_that_hangs_does_not_delay_one_that_is_only_slow() {
    need!(redis);
    let mut ids = Vec::new();
    let stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        ids.extend(["a", "b"].map(|name| engine.run(Spec::named(name))));
    });
    let [stuck, slow] = [0, 1].map(|number| Route::InspectOf(ids[number].clone()));
    stage.engine.misbehave(stuck.clone(), Behaviour::Hang);
    let before = stage.engine.requests(&stuck);
    stage.engine.update(&ids[0], 1 << 26);
    wait_until(SOON, "the slow thread waits for it", || {
        stage.engine.requests(&stuck) == before + 2
    });
    let late = Behaviour::Late(Duration::from_millis(700));
    stage.engine.misbehave(slow.clone(), late);
    stage.engine.update(&ids[1], 1 << 27);
    wait_until(SOON, "the slow one shows", || {
        stage.field(&ids[1], "hostconfig_memory") == "134217728"
    });
    // It is asked once and not again and again: an engine keeps each question that hangs.
    assert_eq!(stage.engine.requests(&stuck), before + 2);
    stage.engine.behave(&stuck);
    stage.engine.behave(&slow);
    wait_until(SOON, "the stuck one shows", || {
        stage.field(&ids[0], "hostconfig_memory") == "67108864"
    });
    stage.settle();
}

#[test]
fn out_of_memory_shows_with_all() {
    need!(redis);
    let mut id = String::new();
    let stage = Stage::start(Agent::SELDOM_S, &["--all"], |engine| {
        id = engine.run(Spec::named("a"))
    });
    stage.engine.oom(&id);
    let notice = format!("update_container:h:{id}");
    stage.notices.until_so(&notice, SOON, || {
        let oom = stage.field(&id, "state_oomkilled");
        (oom == "true").then_some(()).ok_or(oom)
    });
    stage.engine.die(&id, 137);
    stage.notices.until_so(&notice, SOON, || {
        let code = stage.field(&id, "state_exitcode");
        (code == "137").then_some(()).ok_or(code)
    });
    oracle::settle(&stage.redis, "docker", SOON, || {
        vec![stage.host().stopped(stage.engine.stopped())]
    });
}

fn secretive() -> Spec {
    Spec::named("a")
        .env("DB_PASSWORD", "hunter2")
        .env("BACKEND", "redis://user:hunter2@example.com/1")
        .env("PLAIN", "visible")
        .env("NICKNAME", "bunny")
        .label("com.example.api_token", "hunter2")
}

#[test]
fn secrets_do_not_reach_redis() {
    need!(redis);
    let mut id = String::new();
    let stage = Stage::start(Agent::SELDOM_S, &[], |engine| id = engine.run(secretive()));
    stage.engine.exec(&id, "mysql -phunter2");
    stage.engine.update(&id, 1 << 26);
    stage
        .notices
        .until(&format!("update_container:h:{id}"), SOON);
    stage.settle();
    let all = stage.redis.everything();
    assert!(!all.contains("hunter2"), "{all}");
    assert!(!stage.agent.log().contains("hunter2"));
    let env = stage.field(&id, "config_env");
    assert!(
        env.contains("DB_PASSWORD=") && env.contains("PLAIN=visible"),
        "{env}"
    );
    assert!(env.contains("example.com/1"), "{env}");
    let labels = stage.field(&id, "config_labels");
    assert!(labels.contains("com.example.api_token"), "{labels}");
}

#[test]
fn the_list_of_secrets_may_be_another_or_none() {
    need!(redis);
    let mut id = String::new();
    let options = ["--redact", "NICK*"];
    let stage = Stage::start(Agent::SELDOM_S, &options, |engine| {
        id = engine.run(secretive())
    });
    let env = stage.field(&id, "config_env");
    assert!(
        env.contains("DB_PASSWORD=hunter2") && !env.contains("bunny"),
        "{env}"
    );
    drop(stage);
    let stage = Stage::start(Agent::SELDOM_S, &["--redact", "none"], |engine| {
        id = engine.run(secretive());
    });
    let env = stage.field(&id, "config_env");
    assert!(
        env.contains("bunny") && env.contains("user:hunter2@"),
        "{env}"
    );
    stage.settle();
}

#[test]
fn flattening_goes_two_levels_deep() {
    need!(redis);
    let mut id = String::new();
    let stage = Stage::start(Agent::SELDOM_S, &[], |engine| {
        id = engine.run(Spec::named("a").label("a", "b").health_check());
    });
    let field = |name: &str| stage.field(&id, name);
    assert_eq!(field("name"), "/a");
    assert_eq!(field("config_cmd"), r#"["sh","-c","exec serve"]"#);
    assert_eq!(field("config_labels"), r#"{"a":"b"}"#);
    assert_eq!(field("config_hostname"), &id[..12]);
    assert_eq!(field("state_running"), "true");
    assert!(field("state_pid").parse::<u32>().is_ok());
    assert_eq!(field("hostconfig_memory"), "0");
    assert!(field("networksettings_ipaddress").starts_with("172.17."));
    assert!(field("networksettings_ports").starts_with('{'));
    assert_eq!(field("host"), "h");
    let key = format!("docker:containers:{id}");
    let names: BTreeSet<String> = stage.redis.query(&["HKEYS", &key]);
    for absent in [
        "config_entrypoint",
        "execids",
        "state_health_log",
        "state",
        "config",
    ] {
        assert!(!names.contains(absent), "{absent} in {names:?}");
    }
    assert!(names.iter().all(|name| *name == name.to_lowercase()));
    stage.settle();
}

/// Commands that read a shared set, or everything, as a whole; and scripts.
fn is_greedy(words: &[String]) -> bool {
    match words[0].as_str() {
        "KEYS" | "EVAL" | "EVALSHA" | "FCALL" => true,
        "SMEMBERS" | "HGETALL" => !words[1].starts_with("docker:hosts:h"),
        _ => false,
    }
}

#[test]
fn one_container_costs_one_hset_and_nothing_is_read_as_a_whole() {
    need!(redis);
    let stage = Stage::start(2, &[], |engine| {
        engine.run(Spec::named("a"));
    });
    let monitor = Monitor::of(&stage.redis);
    let id = stage.engine.run(Spec::named("b"));
    let mut commands = monitor.until_notice(&format!("new_container:h:{id}"), SOON);
    for _ in 0..3 {
        commands.extend(monitor.until_notice("refresh_containers:h", SOON));
    }
    let key = format!("docker:containers:{id}");
    let hsets = commands
        .iter()
        .filter(|words| words[0] == "HSET" && words[1] == key);
    assert_eq!(hsets.count(), 1);
    let greedy: Vec<_> = commands.iter().filter(|words| is_greedy(words)).collect();
    assert!(greedy.is_empty(), "{greedy:?}");
    stage.settle();
}

#[test]
fn when_nothing_changed_a_resync_only_keeps_keys_alive() {
    need!(redis);
    let stage = Stage::start(2, &[], |engine| {
        for name in ["a", "b", "c"] {
            engine.run(Spec::named(name).health_check());
        }
    });
    let monitor = Monitor::of(&stage.redis);
    let mut commands = Vec::new();
    for _ in 0..4 {
        commands.extend(monitor.until_notice("refresh_containers:h", SOON));
    }
    let allowed = |words: &&Vec<String>| {
        let key = words.get(1).map_or("", String::as_str);
        match words[0].as_str() {
            // Leases, the clock, what is compared.
            "MULTI" | "EXEC" | "WATCH" | "UNWATCH" | "TIME" | "PING" => true,
            name if name.starts_with("GET") || name.ends_with("EXPIRE") => true,
            "EXISTS" | "TYPE" | "HGETALL" | "SMEMBERS" | "SISMEMBER" | "ZRANGEBYSCORE" => true,
            "MGET" | "HGET" | "HMGET" | "PTTL" | "SCAN" | "SSCAN" | "HSCAN" | "SCARD"
            | "ZSCORE" | "ZRANGE" | "ZUNION" => true,
            "SET" => {
                key.ends_with(":lease")
                    || key.starts_with("docker:engines:")
                    || ["docker:janitor", "docker:hosts:h:resume"].contains(&key)
            }
            "ZADD" => key == "docker:alive",
            "HSET" => key == "docker:hosts:h",
            // The host's own place, with its fields.
            "SADD" => key == "docker:hosts",
            "PUBLISH" => words[2] == "refresh_containers:h",
            _ => false,
        }
    };
    let others: Vec<_> = commands.iter().filter(|words| !allowed(words)).collect();
    assert!(others.is_empty(), "{others:#?}");
    stage.settle();
}

#[test]
fn another_prefix_is_used_for_every_name() {
    need!(redis);
    let (engine, redis) = (engine(), Redis::start());
    let id = engine.run(Spec::named("a"));
    let notices = Notices::of(&redis, "mine_events");
    let options = ["--prefix", "mine"];
    let _agent = Agent::watch_with("h", &engine.url(), &redis.url(), Agent::SELDOM_S, &options);
    notices.until("refresh_containers:h", SOON);
    oracle::settle(&redis, "mine", SOON, || {
        vec![Host::up("h", [id.clone()].into())]
    });
    let foreign: Vec<String> = redis
        .keys("")
        .into_iter()
        .filter(|key| !key.starts_with("mine:"))
        .collect();
    assert_eq!(foreign, [""; 0]);
}

#[test]
fn redis_behind_a_unix_socket_and_a_database_of_its_own() {
    need!(redis);
    let (engine, redis) = (engine(), Redis::start());
    let id = engine.run(Spec::named("a"));
    let url = redis.socket_url().replace("redis+unix", "unix");
    let agent = Agent::watch("h", &engine.url(), &url, Agent::SELDOM_S);
    oracle::settle(&redis, "docker", SOON, || {
        vec![Host::up("h", [id.clone()].into())]
    });
    drop(agent);
    redis.flush();
    let agent = Agent::watch(
        "h",
        &engine.url(),
        &format!("{}/3", redis.url()),
        Agent::SELDOM_S,
    );
    agent.wait_log("Reported", SOON);
    assert!(redis.keys("").is_empty());
    let mut connection = redis.connect();
    let _: () = ask(&mut connection, &["SELECT", "3"]).unwrap();
    let hosts: Vec<String> = ask(&mut connection, &["SMEMBERS", "docker:hosts"]).unwrap();
    assert_eq!(hosts, ["h"]);
}

#[test]
fn the_password_comes_from_a_file_or_from_systemd() {
    need!(redis);
    let folder = crate::kit::TempDir::new();
    let file = folder.write("cache-password", "s3cret\n");
    let engine = engine();
    let redis = Redis::start_with(&["--requirepass", "s3cret"]);
    let args = |more: &[String]| {
        let mut args = vec!["-id=h".into(), "-updateInterval=2m".into()];
        args.push(format!("-docker={}", engine.url()));
        args.push(format!("-cache={}", redis.url()));
        args.extend_from_slice(more);
        args
    };
    let none = Agent::start(&args(&[]));
    none.wait_log("password", SOON);
    drop(none);
    let by_file = Agent::start(&args(&[format!(
        "--cache-password-file={}",
        file.display()
    )]));
    by_file.wait_log("Reported", SOON);
    drop(by_file);
    let path = folder.path().to_string_lossy();
    let by_systemd = Agent::start_with(&args(&[]), &[("CREDENTIALS_DIRECTORY", &path)]);
    by_systemd.wait_log("Reported", SOON);
    assert!(!by_systemd.log().contains("s3cret"));
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", by_systemd.pid())).unwrap();
    assert!(!arguments.contains("s3cret"));
}

#[test]
fn an_engine_behind_a_unix_socket() {
    need!(redis);
    let folder = crate::kit::TempDir::new();
    let engine = crate::engine::Engine::listen(&Place::Unix(folder.join("d.sock"))).unwrap();
    let redis = Redis::start();
    let _agent = Agent::watch("h", &engine.url(), &redis.url(), Agent::SELDOM_S);
    let id = engine.run(Spec::named("a"));
    oracle::settle(&redis, "docker", seconds(20), || {
        vec![Host::up("h", [id.clone()].into())]
    });
}
