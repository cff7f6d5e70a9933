//! From what was typed to a [`Config`]: each value from its option, else its variable, else its default.

mod explained;
mod fired;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, Contents};
use super::machine::Machine;
use super::{
    CacheConfig, CacheTarget, Config, ConfigError, HandlersConfig, Mistake, Origin, Refused,
    duration, is_name, url, values,
};
use crate::args::{self, Typed, Verb};
use crate::model::Engine;

pub use explained::Explained;
pub use fired::Fired;

/// A variable of the environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The content of a file, [`read_file`](super::read_file) in earnest.
pub type Files<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// A configuration, and what is strange about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// The configuration.
    pub config: Config,
    /// What is probably not meant, a line each.
    pub warnings: Vec<String>,
    /// Whose events are explained, where that is what is to be done.
    pub explained: Option<Explained>,
    /// What is fired, where that is what is to be done.
    pub fired: Option<Fired>,
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

/// The least time between two resyncs, and of everything that Redis counts in seconds.
const SECOND: Duration = Duration::from_secs(1);

/// `DOCKER_HOST`, unless it is empty.
pub(crate) fn docker_host(variables: Variables) -> Option<OsString> {
    variables("DOCKER_HOST").filter(|value| !value.is_empty())
}

/// Checks everything and tells all mistakes at once. Reads `events.yml`, the password's file and `/etc/passwd`, and nothing else; looks whether the
/// folders and programs that `events.yml` names are there.
pub(super) fn build_on(machine: &Machine, typed: Typed) -> Result<Built, Refused> {
    let mut builder = Builder {
        typed: &typed,
        machine,
        errors: Vec::new(),
    };
    let contents = builder.read_events_file();
    let config = builder.config(&contents);
    let explained = builder.explained(config.as_ref());
    let fired = builder.fired(config.as_ref());
    let mut mistakes = contents.mistakes;
    mistakes.append(&mut builder.errors);
    let handlers = config.as_ref().and_then(|config| config.handlers.as_ref());
    let crowded = handlers.map(|handlers| file::crowded(&contents.concurrencies, handlers.workers));
    let mut warnings = contents.warnings;
    warnings.extend(crowded.unwrap_or_default());
    match config {
        Some(config) if mistakes.is_empty() => Ok(Built {
            config,
            warnings,
            explained,
            fired,
        }),
        _ => Err(Refused { mistakes, warnings }),
    }
}

/// A value as the user gave it.
struct Given {
    text: String,
    origin: Origin,
}

struct Builder<'a> {
    typed: &'a Typed,
    machine: &'a Machine<'a>,
    errors: Vec<ConfigError>,
}

impl Builder<'_> {
    /// None where a value is missing for a mistake, which is in `errors` then.
    fn config(&mut self, contents: &Contents) -> Option<Config> {
        let at_least_a_second = |text: &str| duration::parse_at_least(text, SECOND);
        let options = &self.typed.options;
        let update_interval = self.value(
            "update-interval",
            &options.update_interval,
            at_least_a_second,
        );
        let replay_max_age =
            self.value("replay-max-age", &options.replay_max_age, at_least_a_second);
        let stream_max_age =
            self.value("stream-max-age", &options.stream_max_age, at_least_a_second);
        let redact = self.value("redact", &options.redact, values::redact);
        let log_format = self.value("log-format", &options.log_format, values::log_format);
        let workers = self.value("workers", &options.workers, |text| {
            values::number(text, 1, super::MAX_WORKERS)
        });
        let engines = match &contents.cluster {
            Some(engines) => self.cluster(engines),
            None => self.one_engine().map(|engine| vec![engine]),
        };
        let cache = self.cache();
        if matches!(cache, Some(None)) {
            self.errors.extend_from_slice(&contents.without_cache);
        }
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
            stream_max_age: stream_max_age?,
            redact: redact?,
            log_format: log_format?,
        })
    }

    fn read_events_file(&mut self) -> Contents {
        let Some(path) = &self.typed.file else {
            return Contents::default();
        };
        match (self.machine.files)(path) {
            Ok(bytes) => file::read(path, &bytes, self.machine),
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
        // `explain` wants to know which of them events come from.
        let id = (&options.id, self.typed.verb != Verb::Explain);
        for (name, (typed, refused)) in [("id", id), ("docker", (&options.docker, true))] {
            if refused && let Some(given) = self.given(name, typed) {
                let mistake = Mistake::new(
                    "the file has a `cluster`, which gives the engines and their names",
                    "either `--id` and `--docker` or a `cluster`",
                );
                self.wrong(given.origin, mistake);
            }
        }
        Some(engines.to_vec())
    }

    fn one_engine(&mut self) -> Option<Engine> {
        let host_name = &*self.machine.host_name;
        let name = match self.given("id", &self.typed.options.id) {
            Some(given) => self.parsed(&given, |text| values::name(text, "host id")),
            None if is_name(host_name) => Some(host_name.to_owned()),
            None => {
                let shown = super::cut(host_name);
                let problem = format!("this machine's host name `{shown}` is no host id");
                let expected = format!("a host id, given by `--id`: {}", values::NAME);
                self.wrong(Origin::Option("id"), Mistake::new(problem, expected));
                None
            }
        };
        let given = match self.given("docker", &self.typed.options.docker) {
            Some(given) => Some(given),
            None => match docker_host(self.machine.variables) {
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
        let prefix = self.value("prefix", &options.prefix, |text| {
            values::name(text, "prefix")
        });
        let all = self.value("all", &options.all, values::truth);
        let selfcheck = self.value("selfcheck", &options.selfcheck, values::truth);
        let filters = self.filters();
        let forget_after = self.value("forget-after", &options.forget_after, |text| {
            duration::parse_at_least(text, SECOND)
        });
        let stream_maxlen = self.value("stream-maxlen", &options.stream_maxlen, |text| {
            values::number(text, 1, u64::from(u32::MAX))
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
            selfcheck: selfcheck?,
            filters,
            forget_after: forget_after?,
            stream_maxlen: stream_maxlen?,
        }))
    }

    /// Adds the password from a file, where there is one.
    fn with_password(&mut self, mut target: CacheTarget, origin: Origin) -> Option<CacheTarget> {
        const EXPECTED: &str = "a file whose only line is the password";
        const READABLE: &str = "a file that the agent's user may read";
        // systemd gives the unit's user what it may read, but inside of a container whose mounts are private it does not.
        const GIVEN: &str = "a credential that systemd lets the agent's user read; where it cannot, as in some containers, an empty `LoadCredential=` in the unit, and a `--cache-password-file` if there is a password";
        let typed = &self.typed.options.cache_password_file;
        let (path, file_origin, wanted) = match self.given("cache-password-file", typed) {
            Some(given) => (PathBuf::from(given.text), given.origin, true),
            None => match (self.machine.variables)("CREDENTIALS_DIRECTORY") {
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
        match (self.machine.files)(&path).map(values::password) {
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
                let expected = match error.kind() {
                    io::ErrorKind::PermissionDenied if wanted => READABLE,
                    io::ErrorKind::PermissionDenied => GIVEN,
                    _ => EXPECTED,
                };
                let problem = format!("failed to read file `{shown}`: {error}");
                self.wrong(file_origin, Mistake::new(problem, expected));
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
            .filter_map(|given| self.parsed(given, values::filter))
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
        let value = (self.machine.variables)(&variable).filter(|value| !value.is_empty())?;
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

#[cfg(test)]
mod tests;
