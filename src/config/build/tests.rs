//! The configuration, built from words, variables and files that no machine has.

use std::os::unix::ffi::OsStringExt;

use super::super::{CachePlace, LogFormat};
use super::*;
use crate::model::{Address, Event};

/// What the program is given: its name and arguments, variables, files.
struct World<'a> {
    line: &'a str,
    variables: &'a [(&'a str, &'a str)],
    files: &'a [(&'a str, &'a str)],
    host_name: &'a str,
    is_root: bool,
}

/// The content of a file that may not be read.
const DENIED: &str = "(denied)";

const WORLD: World = World {
    line: "docker-cache",
    variables: &[],
    files: &[],
    host_name: "ubuntu",
    is_root: true,
};

impl World<'_> {
    fn build(&self) -> Result<Built, String> {
        let variables = |name: &str| {
            let (_, value) = self.variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(value))
        };
        let files = |path: &Path| {
            let found = self.files.iter().find(|(name, _)| Path::new(name) == path);
            let (_, content) = found.ok_or(io::ErrorKind::NotFound)?;
            if *content == DENIED {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(content.as_bytes().to_vec())
        };
        let machine = Machine {
            host_name: self.host_name.to_owned(),
            variables: &variables,
            files: &files,
            look: &|_| None,
            is_root: self.is_root,
        };
        let mut words = self.line.split(' ').map(OsString::from);
        let program = words.next().unwrap().into_string().unwrap();
        let typed = args::parse(&program, words, &variables).map_err(|ended| ended.text)?;
        build_on(&machine, typed).map_err(|refused| {
            let lines: Vec<String> = refused.mistakes.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }

    fn config(&self) -> Config {
        self.build().unwrap().config
    }

    fn cache(&self) -> CacheConfig {
        self.config().cache.unwrap()
    }

    fn errors(&self) -> String {
        self.build().unwrap_err()
    }
}

fn line(line: &str) -> World<'_> {
    World { line, ..WORLD }
}

#[test]
fn nothing_typed_is_the_documented_defaults() {
    let config = WORLD.config();
    let engine = &config.engines[0];
    assert_eq!((&*engine.name, config.engines.len()), ("ubuntu", 1));
    assert_eq!(engine.address, Address::Unix("/var/run/docker.sock".into()));
    assert_eq!(config.update_interval, Duration::from_secs(120));
    assert_eq!(config.replay_max_age, Duration::from_secs(300));
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.handlers, None);
    assert!(
        config.redact.contains(&"*PASSWORD*".to_owned()),
        "{:?}",
        config.redact
    );
    let cache = config.cache.unwrap();
    let place = CachePlace::Tcp {
        host: "localhost".to_owned(),
        port: 6379,
    };
    assert_eq!(cache.target.place, place);
    assert_eq!(cache.shown_url, "redis://localhost:6379");
    assert_eq!((cache.prefix.as_str(), cache.all), ("docker", false));
    assert_eq!(cache.filters, []);
    assert_eq!(cache.forget_after, Duration::from_secs(3600));
    assert_eq!(cache.stream_maxlen, 10_000);
}

#[test]
fn the_old_readme_s_command_line() {
    let config = line("./docker-cache -cache=redis://localhost:6379 -docker=unix:///var/run/docker.sock -id=box -updateInterval=2m0s").config();
    assert_eq!(&*config.engines[0].name, "box");
    assert_eq!(config, line("docker-cache --id box").config());
}

#[test]
fn typed_wins_over_the_environment_and_that_over_the_default() {
    let variables = &[
        ("DOCKER_CACHE_PREFIX", "env"),
        ("DOCKER_CACHE_ALL", "1"),
        ("DOCKER_CACHE_FILTER", "label=a,name=b"),
        ("DOCKER_CACHE_REDACT", "none"),
        ("DOCKER_CACHE_UPDATE_INTERVAL", ""),
        ("DOCKER_HOST", "tcp://node:1"),
    ];
    let world = World { variables, ..WORLD };
    let config = world.config();
    assert_eq!(&*config.engines[0].url, "tcp://node:1");
    assert_eq!(config.update_interval, Duration::from_secs(120));
    let cache = world.cache();
    assert_eq!((cache.prefix.as_str(), cache.all), ("env", true));
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(cache.filters, [pair("label", "a"), pair("name", "b")]);
    assert!(config.redact.is_empty());
    let line = "docker-cache -prefix typed --all=false -filter label=x=y,z -filter status=paused -redact=A*,*b -docker tcp://n";
    let world = World {
        line,
        variables,
        ..WORLD
    };
    let cache = world.cache();
    assert_eq!((cache.prefix.as_str(), cache.all), ("typed", false));
    assert_eq!(
        cache.filters,
        [pair("label", "x=y,z"), pair("status", "paused")]
    );
    let config = world.config();
    assert_eq!(config.redact, ["A*", "*b"]);
    assert_eq!(&*config.engines[0].url, "tcp://n");
}

#[test]
fn an_empty_docker_host_is_none() {
    let variables = &[("DOCKER_HOST", "")];
    let config = World { variables, ..WORLD }.config();
    assert_eq!(&*config.engines[0].url, "unix:///var/run/docker.sock");
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_source() {
    let world = World {
        line: "docker-cache -id=-x --update-interval 0 -prefix=a:b --all=maybe -filter=lable=a -filter label -filter id=x -redact=a,,b -forget-after 1w -stream-maxlen=0 -log-format xml -cache redis://:hush@h/x events.yml",
        variables: &[
            ("DOCKER_HOST", "ssh://node"),
            ("DOCKER_CACHE_WORKERS", "+5"),
            ("DOCKER_CACHE_REPLAY_MAX_AGE", "999ms"),
        ],
        files: &[("events.yml", "events: [{type: die}]")],
        ..WORLD
    };
    let expected = "\
events.yml:1:10: entry #1: it neither runs nor logs anything; expected a `command`, a `log` or both
--update-interval: `0` is less than 1s; expected a duration such as `2m0s`, `1.5h` or `500ms`
DOCKER_CACHE_REPLAY_MAX_AGE: `999ms` is less than 1s; expected a duration such as `2m0s`, `1.5h` or `500ms`
--redact: a pattern of `a,,b` is empty; expected patterns of names, such as `*PASSWORD*,*_KEY`, or `none`
--log-format: found `xml`; expected `text` or `json`
DOCKER_CACHE_WORKERS: found `+5`; expected a number from 1 to 1024
--id: `-x` is no host id; expected letters, digits, `_`, `.` and `-`, a letter or digit first, 128 at most
DOCKER_HOST: `ssh://node`: engines behind `ssh://` are not supported yet; expected `unix:///var/run/docker.sock`, `tcp://HOST:2375` or `http://HOST:2375`
--prefix: `a:b` is no prefix; expected letters, digits, `_`, `.` and `-`, a letter or digit first, 128 at most
--all: found `maybe`; expected `true` or `false`
--filter: `lable=a` is by no filter that Docker's list of containers has; did you mean `label`?; expected KEY=VALUE, where KEY is one of ancestor, before, exited, expose, health, is-task, isolation, label, name, network, publish, since, status, volume
--filter: `label` has no value; expected KEY=VALUE, where KEY is one of ancestor, before, exited, expose, health, is-task, isolation, label, name, network, publish, since, status, volume
--filter: `id=x` is by no filter that Docker's list of containers has; expected KEY=VALUE, where KEY is one of ancestor, before, exited, expose, health, is-task, isolation, label, name, network, publish, since, status, volume
--forget-after: `1w` is no duration: `w` is no unit (ns, us, ms, s, m, h are); expected a duration such as `2m0s`, `1.5h` or `500ms`
--stream-maxlen: found `0`; expected a number from 1 to 4294967295
--cache: `redis://***@h/x`: the database is not a number; expected `redis://[USER:PASSWORD@]HOST[:6379][/DATABASE]`, `unix:///PATH[?db=DATABASE]` or `none`";
    assert_eq!(world.errors(), expected);
}

#[test]
fn a_host_name_that_is_no_id_asks_for_one() {
    let world = World {
        host_name: "my host",
        ..WORLD
    };
    assert!(
        world.errors().contains("given by `--id`"),
        "{}",
        world.errors()
    );
    let line = "docker-cache -id ok";
    World { line, ..world }.config();
}

#[test]
fn a_cluster_gives_the_engines() {
    let files = &[(
        "e.yml",
        "cluster: {a: 'tcp://a', b: 'tcp://b'}\nevents: [{type: die, log: x}]",
    )];
    let world = World {
        line: "docker-cache e.yml -workers=3",
        files,
        ..WORLD
    };
    let built = world.build().unwrap();
    let names: Vec<&str> = built
        .config
        .engines
        .iter()
        .map(|engine| &*engine.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(built.config.handlers.as_ref().unwrap().workers, 3);
    assert!(built.config.cache.is_some());
    assert_eq!(
        built.checked(Path::new("e.yml")),
        "e.yml: ok, 2 engines, 1 entry"
    );
    let line = "docker-cache -docker=tcp://c e.yml";
    let variables = &[("DOCKER_CACHE_ID", "x"), ("DOCKER_HOST", "ssh://not-asked")];
    let world = World {
        line,
        variables,
        files,
        ..WORLD
    };
    assert_eq!(
        world.errors(),
        "DOCKER_CACHE_ID: the file has a `cluster`, which gives the engines and their names; expected either `--id` and `--docker` or a `cluster`\n\
         --docker: the file has a `cluster`, which gives the engines and their names; expected either `--id` and `--docker` or a `cluster`"
    );
}

#[test]
fn a_file_without_cluster_watches_one_engine() {
    let files = &[("e.yml", "events: [{type: die, log: x}]")];
    let line = "docker-cache -docker=tcp://c -id c e.yml";
    let config = World {
        line,
        files,
        ..WORLD
    }
    .config();
    assert_eq!(&*config.engines[0].name, "c");
    assert_eq!(config.handlers.unwrap().workers, 64);
    let errors = self::line("docker-cache e.yml").errors();
    assert!(
        errors.starts_with("e.yml: failed to read the file: "),
        "{errors}"
    );
}

#[test]
fn the_cache_can_be_switched_off_if_something_is_left_to_do() {
    let files = &[("e.yml", "events: []")];
    for (line, on) in [
        ("docker-cache e.yml", true),
        ("docker-cache -cache none e.yml", false),
        ("/usr/bin/docker-eventsd e.yml", false),
        ("docker-eventsd -cache redis://h e.yml", true),
    ] {
        let config = World {
            line,
            files,
            ..WORLD
        }
        .config();
        assert_eq!(config.cache.is_some(), on, "{line}");
    }
    let variables = &[("DOCKER_CACHE_CACHE", "redis://h")];
    let line = "docker-eventsd e.yml";
    assert!(
        World {
            line,
            files,
            variables,
            ..WORLD
        }
        .config()
        .cache
        .is_some()
    );
    let errors = self::line("docker-cache -cache=none").errors();
    assert!(errors.contains("nothing to do"), "{errors}");
}

#[test]
fn once_needs_a_cache() {
    let files = &[(
        "e.yml",
        "events:\n - {type: die, once: true, command: x}\n - {type: die, once: false, command: x}",
    )];
    let said = |line: &str| {
        World {
            line,
            files,
            ..WORLD
        }
        .build()
        .map(|_| ())
    };
    let mistake = "e.yml:2:22: entry #1, once: the agents of a cluster agree by the cache, which is off; expected a `--cache`, or no `once`";
    assert_eq!(said("docker-cache e.yml"), Ok(()));
    assert_eq!(
        said("docker-cache -cache none e.yml"),
        Err(mistake.to_owned())
    );
    assert_eq!(said("docker-eventsd e.yml"), Err(mistake.to_owned()));
    // Told beside all others, too.
    let errors = said("docker-cache -cache=none -workers=0 e.yml").unwrap_err();
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

#[test]
fn who_wants_more_at_once_than_there_are_workers_is_warned() {
    let files = &[(
        "e.yml",
        "defaults: {concurrency: 65}\nevents: [{type: die, command: x, concurrency: 64}, {type: die, command: x, concurrency: 3}]",
    )];
    let warnings = |line: &str| {
        let world = World {
            line,
            files,
            ..WORLD
        };
        world.build().unwrap().warnings
    };
    let warning = |place: &str, workers: u64| {
        format!(
            "e.yml:{place}, concurrency: no more than {workers} run at once, all entries together; `--workers` says so"
        )
    };
    let defaults = warning("1:25: defaults", 64);
    assert_eq!(warnings("docker-cache e.yml"), [defaults]);
    let few = warnings("docker-cache e.yml -workers=8");
    assert_eq!(
        few,
        [warning("1:25: defaults", 8), warning("2:47: entry #1", 8)]
    );
    assert_eq!(warnings("docker-cache e.yml -workers=65"), [""; 0]);
}

#[test]
fn another_user_needs_root() {
    let files = &[
        ("e.yml", "events: [{type: die, command: x, user: backup}]"),
        ("/etc/passwd", "backup:x:34:35::/var/backups:/bin/sh\n"),
    ];
    let said = |is_root| {
        let line = "docker-cache e.yml";
        World {
            line,
            files,
            is_root,
            ..WORLD
        }
        .build()
    };
    let handlers = said(true).unwrap().config.handlers.unwrap();
    let user = handlers.entries[0].running.user.clone().unwrap();
    assert_eq!(
        (user.uid, user.gid, user.home),
        (34, 35, "/var/backups".into())
    );
    assert_eq!(
        said(false).unwrap_err(),
        "e.yml:1:40: entry #1, user: only root may run commands as somebody else; expected an agent that runs as root, or no `user`"
    );
    let files = &files[..1];
    let errors = World {
        line: "docker-cache e.yml",
        files,
        ..WORLD
    }
    .errors();
    assert!(
        errors.contains("user: failed to read /etc/passwd: "),
        "{errors}"
    );
}

#[test]
fn passwords_come_from_files_too() {
    let files = &[
        ("/p", "hush\n"),
        ("/empty", "\n"),
        ("/run/cred/cache-password", "of systemd\r\n"),
        ("/run/shut/cache-password", DENIED),
        ("/shut", DENIED),
    ];
    let variables = &[("CREDENTIALS_DIRECTORY", "/run/cred")];
    let password = |line: &str, variables| {
        let world = World {
            line,
            variables,
            files,
            ..WORLD
        };
        world
            .build()
            .map(|built| built.config.cache.unwrap().target.password)
    };
    let some = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(password("docker-cache", &[]), Ok(None));
    assert_eq!(password("docker-cache", variables), some("of systemd"));
    assert_eq!(
        password("docker-cache", &[("CREDENTIALS_DIRECTORY", "/other")]),
        Ok(None)
    );
    assert_eq!(
        password("docker-cache -cachePasswordFile=/p", variables),
        some("hush")
    );
    assert_eq!(
        password(
            "docker-cache -cache redis://me@h -cachePasswordFile=/p",
            &[]
        ),
        some("hush")
    );
    assert_eq!(
        password("docker-cache -cache redis://:own@h", variables),
        some("own")
    );
    for (line, problem) in [
        (
            "docker-cache --cache-password-file /empty",
            "is empty or not UTF-8",
        ),
        (
            "docker-cache --cache-password-file /none",
            "failed to read file `/none`",
        ),
        (
            "docker-cache -cache redis://:own@h -cachePasswordFile /p",
            "has a password already",
        ),
        (
            "docker-cache -cache redis://me@h",
            "has a user and no password",
        ),
        (
            "docker-cache --cache-password-file /shut",
            "expected a file that the agent's user may read",
        ),
    ] {
        let error = password(line, &[]).unwrap_err();
        assert!(error.contains(problem), "{line}: {error}");
    }
    let shut = &[("CREDENTIALS_DIRECTORY", "/run/shut")];
    assert_eq!(
        password("docker-cache", shut).unwrap_err(),
        "CREDENTIALS_DIRECTORY: failed to read file `/run/shut/cache-password`: permission denied; \
         expected a credential that systemd lets the agent's user read; where it cannot, as in some containers, \
         an empty `LoadCredential=` in the unit, and a `--cache-password-file` if there is a password"
    );
}

#[test]
fn a_configuration_can_be_printed_without_its_password() {
    let built = line("docker-cache -cache redis://me:hush@h")
        .build()
        .unwrap();
    let printed = format!("{built:?}");
    assert!(
        printed.contains("redis://***@h") && !printed.contains("hush"),
        "{printed}"
    );
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    let variables =
        |name: &str| (name == "DOCKER_CACHE_ID").then(|| OsString::from_vec(vec![b'a', 0xff]));
    let files = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let machine = Machine::this("h".to_owned(), &variables, &files);
    let refused = build_on(&machine, Typed::default()).unwrap_err();
    assert_eq!(
        refused.mistakes[0].to_string(),
        "DOCKER_CACHE_ID: the value is not UTF-8; expected text"
    );
}

#[test]
fn explain_is_about_an_engine_of_the_cluster_or_one_at_a_url() {
    let files = &[
        (
            "two.yml",
            "cluster:\n  foo: tcp://a:1\n  bar: tcp://b:2\nevents:\n  - {type: die, log: x}\n",
        ),
        ("none.yml", "events:\n  - {type: die, log: x}\n"),
    ];
    let explained = |line: &str, variables: &[(&str, &str)]| {
        let built = World {
            line: &format!("docker-cache {line}"),
            files,
            variables,
            ..WORLD
        }
        .build()?;
        let told = |explained: Explained| {
            let Engine { name, url, .. } = &explained.engine;
            format!("{name} {url}{}", if explained.live { " live" } else { "" })
        };
        Ok(built.explained.map_or(String::new(), told))
    };
    for (line, told) in [
        ("two.yml", ""),
        ("explain two.yml", "foo tcp://a:1"),
        ("explain two.yml -id=bar", "bar tcp://b:2"),
        ("explain two.yml --engine bar", "bar tcp://b:2 live"),
        ("explain two.yml --engine tcp://b:2", "bar tcp://b:2 live"),
        ("explain two.yml --engine tcp://c:3", "foo tcp://c:3 live"),
        (
            "explain two.yml --engine tcp://c:3 -id bar",
            "bar tcp://c:3 live",
        ),
        ("explain none.yml", "ubuntu unix:///var/run/docker.sock"),
        ("explain none.yml -id=x -docker=tcp://h:1", "x tcp://h:1"),
        (
            "explain none.yml --engine=ubuntu",
            "ubuntu unix:///var/run/docker.sock live",
        ),
    ] {
        assert_eq!(
            explained(line, &[]),
            Ok::<_, String>(told.to_owned()),
            "{line}"
        );
    }
    let variable = [("DOCKER_CACHE_ENGINE", "bar")];
    assert_eq!(
        explained("explain two.yml", &variable),
        Ok("bar tcp://b:2 live".to_owned())
    );
    assert_eq!(explained("two.yml", &variable), Ok(String::new()));
    for (line, text) in [
        (
            "two.yml --engine foo",
            "--engine: it is for the verbs `explain` and `fire`",
        ),
        (
            "explain two.yml --engine baz",
            "--engine: no engine is named `baz`; did you mean `bar`?; expected one of foo, bar, or a URL",
        ),
        (
            "explain two.yml --id baz",
            "--id: no engine is named `baz`; did you mean `bar`?; expected one of foo, bar, or a URL",
        ),
    ] {
        assert_eq!(explained(line, &[]), Err(text.to_owned()), "{line}");
    }
    assert!(
        explained("explain two.yml --engine ssh://x", &[])
            .is_err_and(|text| text.starts_with("--engine: "))
    );
}

#[test]
fn fire_is_about_an_entry_an_event_and_a_container() {
    let yaml = "cluster:\n  foo: tcp://a:1\n  bar: tcp://b:2\nevents:\n  - {name: greet, type: '*, !exec_*, die', log: x}\n  - {existing: true, log: x}\n  - {name: joined, type: network/connect, log: x}\n  - {name: all, type: '*', log: x}\n  - {name: away, type: engine/down, log: x}\n  - {name: sick, type: ['health_status: unhealthy'], log: x}\n";
    let fired = |line: &str| {
        let built = World {
            line: &format!("docker-cache {line}"),
            files: &[("e.yml", yaml)],
            ..WORLD
        }
        .build()?;
        let told = |fired: Fired| {
            let engines: Vec<&str> = fired.engines.iter().map(|engine| &*engine.name).collect();
            let Event { kind, action, .. } = &fired.event;
            let container = fired.container.as_deref().unwrap_or("-");
            let engines = engines.join(",");
            format!("{} {kind} {action} {container} {engines}", fired.place)
        };
        Ok(built.fired.map_or(String::new(), told))
    };
    for (line, told) in [
        ("e.yml", ""),
        (
            "fire e.yml --entry greet --container /web-1",
            "0 container die web-1 foo,bar",
        ),
        (
            "fire e.yml --entry greet --container web --engine bar --type Stop",
            "0 container stop web bar",
        ),
        (
            "fire e.yml --entry #2 --container w",
            "1 container existing w foo,bar",
        ),
        (
            "fire e.yml --entry #1 --container w --type existing",
            "0 container existing w foo,bar",
        ),
        (
            "fire e.yml --entry joined --container w",
            "2 network connect w foo,bar",
        ),
        (
            "fire e.yml --entry all --container w",
            "3 container start w foo,bar",
        ),
        ("fire e.yml --entry away", "4 engine down - foo,bar"),
        (
            "fire e.yml --entry all --type image/pull --engine foo",
            "3 image pull - foo",
        ),
        (
            "fire e.yml --entry sick --container w",
            "5 container health_status: unhealthy w foo,bar",
        ),
    ] {
        assert_eq!(fired(line), Ok::<_, String>(told.to_owned()), "{line}");
    }
    const NAMES: &str = "one of greet, #2, joined, all, away, sick";
    for (line, text) in [
        (
            "e.yml --entry greet",
            "--entry: it is for the verb `fire`".to_owned(),
        ),
        (
            "explain e.yml --type die",
            "--type: it is for the verb `fire`".to_owned(),
        ),
        (
            "fire e.yml --container w",
            format!("--entry: `fire` needs to know what to run; expected {NAMES}"),
        ),
        (
            "fire e.yml --entry gret --container w",
            format!("--entry: no entry is named `gret`; did you mean `greet`?; expected {NAMES}"),
        ),
        (
            "fire e.yml --entry #7 --container w",
            format!("--entry: no entry is named `#7`; expected {NAMES}"),
        ),
        (
            "fire e.yml --entry greet",
            "--container: an event `die` is about a container; expected a container's name or id"
                .to_owned(),
        ),
        (
            "fire e.yml --entry greet --container=/",
            "--container: `` is no container's name; expected a container's name or id".to_owned(),
        ),
        (
            "fire e.yml --entry away --container w",
            "--container: an event `engine/down` is about no container".to_owned(),
        ),
        (
            "fire e.yml --entry greet --container w --type dye",
            "--type: no engine sends an event `dye`; did you mean `die`?; expected `die`, `health_status: unhealthy`, `network/connect` and the like".to_owned(),
        ),
        (
            "fire e.yml --entry greet --container w --engine baz",
            "--engine: no engine is named `baz`; did you mean `bar`?; expected one of foo, bar".to_owned(),
        ),
    ] {
        assert_eq!(fired(line), Err(text), "{line}");
    }
}
