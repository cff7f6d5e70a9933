//! From what was typed to a [`Config`]: each value from its option, else its variable, else its default.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, Contents};
use super::nearest::nearest;
use super::{
    CacheConfig, CacheTarget, Config, ConfigError, HandlersConfig, LogFormat, Mistake, Origin,
    duration, glob, is_name, url,
};
use crate::args::{self, Typed};
use crate::model::Engine;

/// A variable of the environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The content of a file, [`read_file`] in earnest.
pub type Files<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// A configuration, and what is strange about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// The configuration.
    pub config: Config,
    /// What is probably not meant, a line each.
    pub warnings: Vec<String>,
}

impl Built {
    /// What `check` says of a file without mistakes.
    pub fn checked(&self, file: &Path) -> String {
        let count = |number: usize, one: &str, many: &str| {
            format!("{number} {}", if number == 1 { one } else { many })
        };
        let handlers = self.config.handlers.as_ref();
        let entries = handlers.map_or(0, |handlers| handlers.entries.len());
        format!(
            "{}: ok, {}, {}",
            file.display(),
            count(self.config.engines.len(), "engine", "engines"),
            count(entries, "entry", "entries")
        )
    }
}

/// No file that is read here is larger; an `events.yml` has some kB, a password some bytes.
const MAX_FILE: u64 = 1 << 20;

/// The least time between two resyncs, and of everything that Redis counts in seconds.
const SECOND: Duration = Duration::from_secs(1);

const NAME: &str = "letters, digits, `_`, `.` and `-`, a letter or digit first, 128 at most";

/// Reads a file that is small, as all that is configuration.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(content)
}

/// Checks everything and tells all mistakes at once. Reads `events.yml` and the password's file, and nothing else.
pub fn build(typed: Typed, variables: Variables, files: Files) -> Result<Built, Vec<ConfigError>> {
    build_on(&host_name(), typed, variables, files)
}

/// The machine's name, the default host id.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// `DOCKER_HOST`, unless it is empty.
pub(crate) fn docker_host(variables: Variables) -> Option<OsString> {
    variables("DOCKER_HOST").filter(|value| !value.is_empty())
}

fn build_on(
    host_name: &str,
    typed: Typed,
    variables: Variables,
    files: Files,
) -> Result<Built, Vec<ConfigError>> {
    let mut builder = Builder {
        typed: &typed,
        variables,
        files,
        errors: Vec::new(),
    };
    let contents = builder.read_events_file();
    let config = builder.config(host_name, &contents);
    let mut errors = contents.mistakes;
    errors.append(&mut builder.errors);
    match config {
        Some(config) if errors.is_empty() => Ok(Built {
            config,
            warnings: contents.warnings,
        }),
        _ => Err(errors),
    }
}

/// A value as the user gave it.
struct Given {
    text: String,
    origin: Origin,
}

struct Builder<'a> {
    typed: &'a Typed,
    variables: Variables<'a>,
    files: Files<'a>,
    errors: Vec<ConfigError>,
}

impl Builder<'_> {
    /// None where a value is missing for a mistake, which is in `errors` then.
    fn config(&mut self, host_name: &str, contents: &Contents) -> Option<Config> {
        let at_least_a_second = |text: &str| duration::parse_at_least(text, SECOND);
        let options = &self.typed.options;
        let update_interval = self.value(
            "update-interval",
            &options.update_interval,
            at_least_a_second,
        );
        let replay_max_age =
            self.value("replay-max-age", &options.replay_max_age, at_least_a_second);
        let log_format = self.value("log-format", &options.log_format, log_format);
        let workers = self.value("workers", &options.workers, |text| {
            number(text, 1, super::MAX_WORKERS)
        });
        let engines = match &contents.cluster {
            Some(engines) => self.cluster(engines),
            None => self.one_engine(host_name).map(|engine| vec![engine]),
        };
        let cache = self.cache();
        let handlers = match &self.typed.file {
            None => None,
            Some(file) => Some(HandlersConfig {
                file: file.clone(),
                entries: contents.entries.clone(),
                workers: workers? as usize,
            }),
        };
        if matches!(cache, Some(None)) && handlers.is_none() {
            let problem = "the cache is off and no file has handlers: there is nothing to do";
            self.wrong(
                Origin::Option("cache"),
                Mistake::new(problem, "a cache, an `events.yml` or both"),
            );
        }
        Some(Config {
            engines: engines?,
            cache: cache?,
            handlers,
            update_interval: update_interval?,
            replay_max_age: replay_max_age?,
            log_format: log_format?,
        })
    }

    fn read_events_file(&mut self) -> Contents {
        let Some(path) = &self.typed.file else {
            return Contents::default();
        };
        match (self.files)(path) {
            Ok(bytes) => file::read(path, &bytes),
            Err(error) => {
                let mistake = Mistake::new(
                    format!("failed to read the file: {error}"),
                    "a YAML file with `cluster` and `events`",
                );
                self.wrong(Origin::File(path.clone(), None), mistake);
                Contents::default()
            }
        }
    }

    fn cluster(&mut self, engines: &[Engine]) -> Option<Vec<Engine>> {
        let options = &self.typed.options;
        for (name, typed) in [("id", &options.id), ("docker", &options.docker)] {
            if let Some(given) = self.given(name, typed) {
                let mistake = Mistake::new(
                    "the file has a `cluster`, which gives the engines and their names",
                    "either `--id` and `--docker` or a `cluster`",
                );
                self.wrong(given.origin, mistake);
            }
        }
        Some(engines.to_vec())
    }

    fn one_engine(&mut self, host_name: &str) -> Option<Engine> {
        let name = match self.given("id", &self.typed.options.id) {
            Some(given) => self.parsed(&given, |text| name(text, "host id")),
            None if is_name(host_name) => Some(host_name.to_owned()),
            None => {
                let shown = super::cut(host_name);
                let problem = format!("this machine's host name `{shown}` is no host id");
                let expected = format!("a host id, given by `--id`: {NAME}");
                self.wrong(Origin::Option("id"), Mistake::new(problem, expected));
                None
            }
        };
        let given = match self.given("docker", &self.typed.options.docker) {
            Some(given) => Some(given),
            None => match docker_host(self.variables) {
                Some(value) => Some(self.variable("DOCKER_HOST".to_owned(), value)?),
                None => None,
            },
        };
        let given = given.unwrap_or_else(|| default("docker"));
        let address = self.parsed(&given, url::engine);
        Some(Engine {
            name: name?.into(),
            url: given.text.into(),
            address: address?,
        })
    }

    /// `Some(None)` when the cache is off.
    fn cache(&mut self) -> Option<Option<CacheConfig>> {
        let options = &self.typed.options;
        let given = match self.given("cache", &options.cache) {
            Some(given) => given,
            None if self.typed.eventsd => return Some(None),
            None => default("cache"),
        };
        let prefix = self.value("prefix", &options.prefix, |text| name(text, "prefix"));
        let all = self.value("all", &options.all, truth);
        let filters = self.filters();
        let redact = self.value("redact", &options.redact, redact);
        let forget_after = self.value("forget-after", &options.forget_after, |text| {
            duration::parse_at_least(text, SECOND)
        });
        let stream_maxlen = self.value("stream-maxlen", &options.stream_maxlen, |text| {
            number(text, 1, u64::from(u32::MAX))
        });
        if given.text == "none" {
            return Some(None);
        }
        let target = self.parsed(&given, url::cache);
        let target = target.and_then(|target| self.with_password(target, given.origin));
        Some(Some(CacheConfig {
            shown_url: url::masked(&given.text),
            target: target?,
            prefix: prefix?,
            all: all?,
            filters,
            redact: redact?,
            forget_after: forget_after?,
            stream_maxlen: stream_maxlen?,
        }))
    }

    /// Adds the password from a file, where there is one.
    fn with_password(&mut self, mut target: CacheTarget, origin: Origin) -> Option<CacheTarget> {
        const EXPECTED: &str = "a file whose only line is the password";
        let typed = &self.typed.options.cache_password_file;
        let (path, file_origin, wanted) = match self.given("cache-password-file", typed) {
            Some(given) => (PathBuf::from(given.text), given.origin, true),
            None => match (self.variables)("CREDENTIALS_DIRECTORY") {
                Some(folder) if !folder.is_empty() => {
                    let origin = Origin::Variable("CREDENTIALS_DIRECTORY".to_owned());
                    (Path::new(&folder).join("cache-password"), origin, false)
                }
                _ => return self.complete(target, origin),
            },
        };
        if target.password.is_some() {
            if wanted {
                let problem = "the cache's URL has a password already";
                self.wrong(file_origin, Mistake::new(problem, "one password"));
                return None;
            }
            return Some(target);
        }
        let shown = path.display();
        match (self.files)(&path).map(password) {
            Ok(Some(password)) => {
                target.password = Some(password);
                Some(target)
            }
            Ok(None) => {
                let problem = format!("the file `{shown}` is empty or not UTF-8");
                self.wrong(file_origin, Mistake::new(problem, EXPECTED));
                None
            }
            Err(error) if !wanted && error.kind() == io::ErrorKind::NotFound => {
                self.complete(target, origin)
            }
            Err(error) => {
                let problem = format!("failed to read file `{shown}`: {error}");
                self.wrong(file_origin, Mistake::new(problem, EXPECTED));
                None
            }
        }
    }

    /// A user cannot log in without a password.
    fn complete(&mut self, target: CacheTarget, origin: Origin) -> Option<CacheTarget> {
        if target.username.is_none() || target.password.is_some() {
            return Some(target);
        }
        let expected =
            "`redis://USER:PASSWORD@…`, `redis://:PASSWORD@…` or a `--cache-password-file`";
        let problem = "the URL has a user and no password";
        self.wrong(origin, Mistake::new(problem, expected));
        None
    }

    fn filters(&mut self) -> Vec<(String, String)> {
        let typed = &self.typed.options.filter;
        let given: Vec<Given> = if typed.is_empty() {
            let all = self.given("filter", &None);
            let split = |all: Given| {
                let one = |text: &str| Given {
                    text: text.to_owned(),
                    origin: all.origin.clone(),
                };
                all.text.split(',').map(one).collect()
            };
            all.map(split).unwrap_or_default()
        } else {
            let one = |text: &String| Given {
                text: text.clone(),
                origin: Origin::Option("filter"),
            };
            typed.iter().map(one).collect()
        };
        given
            .iter()
            .filter_map(|given| self.parsed(given, filter))
            .collect()
    }

    /// The value of an option.
    fn value<T>(
        &mut self,
        name: &'static str,
        typed: &Option<String>,
        parse: impl Fn(&str) -> Result<T, Mistake>,
    ) -> Option<T> {
        let given = self.given(name, typed).unwrap_or_else(|| default(name));
        self.parsed(&given, parse)
    }

    fn given(&mut self, name: &'static str, typed: &Option<String>) -> Option<Given> {
        if let Some(text) = typed {
            return Some(Given {
                text: text.clone(),
                origin: Origin::Option(name),
            });
        }
        let variable = args::variable(name);
        let value = (self.variables)(&variable).filter(|value| !value.is_empty())?;
        self.variable(variable, value)
    }

    fn variable(&mut self, variable: String, value: OsString) -> Option<Given> {
        let origin = Origin::Variable(variable);
        match value.into_string() {
            Ok(text) => Some(Given { text, origin }),
            Err(_) => {
                self.wrong(origin, Mistake::new("the value is not UTF-8", "text"));
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        given: &Given,
        parse: impl Fn(&str) -> Result<T, Mistake>,
    ) -> Option<T> {
        match parse(&given.text) {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.wrong(given.origin.clone(), mistake);
                None
            }
        }
    }

    fn wrong(&mut self, origin: Origin, mistake: Mistake) {
        self.errors.push(ConfigError {
            origin,
            field: None,
            mistake,
        });
    }
}

fn default(name: &'static str) -> Given {
    Given {
        text: args::default_of(name).to_owned(),
        origin: Origin::Option(name),
    }
}

fn name(text: &str, what: &str) -> Result<String, Mistake> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(Mistake::new(
            format!("`{}` is no {what}", super::cut(text)),
            NAME,
        )),
    }
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, Mistake> {
    match text.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) && !text.starts_with('+') => Ok(number),
        _ => Err(Mistake::new(
            format!("found `{}`", super::cut(text)),
            format!("a number from {least} to {most}"),
        )),
    }
}

fn truth(text: &str) -> Result<bool, Mistake> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Mistake::new(
            format!("found `{}`", super::cut(text)),
            "`true` or `false`",
        )),
    }
}

fn log_format(text: &str) -> Result<LogFormat, Mistake> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Mistake::new(
            format!("found `{}`", super::cut(text)),
            "`text` or `json`",
        )),
    }
}

fn redact(text: &str) -> Result<Vec<String>, Mistake> {
    const EXPECTED: &str = "patterns of names, such as `*PASSWORD*,*_KEY`, or `none`";
    if text == "none" {
        return Ok(Vec::new());
    }
    let patterns = text.split(',').map(|pattern| {
        let pattern = pattern.trim();
        if pattern.is_empty() {
            let problem = format!("a pattern of `{}` is empty", super::cut(text));
            return Err(Mistake::new(problem, EXPECTED));
        }
        glob(pattern).map(|()| pattern.to_owned())
    });
    patterns.collect()
}

/// Docker's filters of a list of containers. Not `id`: the agent itself asks by it whether a container passes the others.
const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

fn filter(text: &str) -> Result<(String, String), Mistake> {
    let text = text.trim();
    let shown = super::cut(text);
    let expected = format!("KEY=VALUE, where KEY is one of {}", FILTERS.join(", "));
    match text.split_once('=') {
        Some((_, "")) | None => Err(Mistake::new(format!("`{shown}` has no value"), expected)),
        Some((key, value)) if FILTERS.contains(&key) => Ok((key.to_owned(), value.to_owned())),
        Some((key, _)) => {
            let problem = format!("`{shown}` is by no filter that Docker's list of containers has");
            let meant = nearest(key, FILTERS.iter().copied());
            Err(Mistake::new(problem, expected).near(meant))
        }
    }
}

/// The password in a file: all of it but the end of its line.
fn password(content: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(content).ok()?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Some(line.to_owned()).filter(|password| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::CachePlace;
    use super::*;
    use crate::model::Address;

    /// What the program is given: its name and arguments, variables, files.
    struct World<'a> {
        line: &'a str,
        variables: &'a [(&'a str, &'a str)],
        files: &'a [(&'a str, &'a str)],
        host_name: &'a str,
    }

    const WORLD: World = World {
        line: "docker-cache",
        variables: &[],
        files: &[],
        host_name: "ubuntu",
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
                Ok(content.as_bytes().to_vec())
            };
            let mut words = self.line.split(' ').map(OsString::from);
            let program = words.next().unwrap().into_string().unwrap();
            let typed = args::parse(&program, words, &variables).map_err(|ended| ended.text)?;
            build_on(self.host_name, typed, &variables, &files).map_err(|errors| {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
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
        let cache = config.cache.unwrap();
        let place = CachePlace::Tcp {
            host: "localhost".to_owned(),
            port: 6379,
        };
        assert_eq!(cache.target.place, place);
        assert_eq!(cache.shown_url, "redis://localhost:6379");
        assert_eq!((cache.prefix.as_str(), cache.all), ("docker", false));
        assert_eq!(cache.filters, []);
        assert!(
            cache.redact.contains(&"*PASSWORD*".to_owned()),
            "{:?}",
            cache.redact
        );
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
        assert!(cache.redact.is_empty());
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
        assert_eq!(cache.redact, ["A*", "*b"]);
        assert_eq!(&*world.config().engines[0].url, "tcp://n");
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
--log-format: found `xml`; expected `text` or `json`
DOCKER_CACHE_WORKERS: found `+5`; expected a number from 1 to 1024
--id: `-x` is no host id; expected letters, digits, `_`, `.` and `-`, a letter or digit first, 128 at most
DOCKER_HOST: `ssh://node`: engines behind `ssh://` are not supported yet; expected `unix:///var/run/docker.sock`, `tcp://HOST:2375` or `http://HOST:2375`
--prefix: `a:b` is no prefix; expected letters, digits, `_`, `.` and `-`, a letter or digit first, 128 at most
--all: found `maybe`; expected `true` or `false`
--filter: `lable=a` is by no filter that Docker's list of containers has; did you mean `label`?; expected KEY=VALUE, where KEY is one of ancestor, before, exited, expose, health, is-task, isolation, label, name, network, publish, since, status, volume
--filter: `label` has no value; expected KEY=VALUE, where KEY is one of ancestor, before, exited, expose, health, is-task, isolation, label, name, network, publish, since, status, volume
--filter: `id=x` is by no filter that Docker's list of containers has; expected KEY=VALUE, where KEY is one of ancestor, before, exited, expose, health, is-task, isolation, label, name, network, publish, since, status, volume
--redact: a pattern of `a,,b` is empty; expected patterns of names, such as `*PASSWORD*,*_KEY`, or `none`
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
        let errors = super::tests::line("docker-cache e.yml").errors();
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
        let errors = super::tests::line("docker-cache -cache=none").errors();
        assert!(errors.contains("nothing to do"), "{errors}");
    }

    #[test]
    fn passwords_come_from_files_too() {
        let files = &[
            ("/p", "hush\n"),
            ("/empty", "\n"),
            ("/run/cred/cache-password", "of systemd\r\n"),
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
        ] {
            let error = password(line, &[]).unwrap_err();
            assert!(error.contains(problem), "{line}: {error}");
        }
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
        let errors = build(Typed::default(), &variables, &files).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "DOCKER_CACHE_ID: the value is not UTF-8; expected text"
        );
    }

    #[test]
    fn a_huge_file_is_not_read_whole() {
        let error = read_file(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("1 MiB"), "{error}");
    }
}
