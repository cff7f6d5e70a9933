//! What was typed, not yet what it means: that is `config.rs`.
//!
//! The old tool spelled its options as Go does (`-updateInterval=2m0s`), argh wants `--update-interval 2m0s`. A step in front of argh, driven by the
//! table [`OPTIONS`], turns all spellings into argh's own; of an option that stands twice the last one counts, as in Go. The table also gives the help,
//! the variables of the environment and the defaults.

mod options;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use argh::FromArgs;

use crate::config::{self, Variables, nearest};

pub use options::{OPTIONS, OptionSpec};
pub(crate) use options::{default_of, variable};

/// The values of the options that were typed, as they were typed. argh never shows these descriptions, [`OPTIONS`] has them.
///
/// No `Debug`: a URL may have a password.
#[derive(FromArgs, Clone, Default)]
pub struct Options {
    /// host id
    #[argh(option)]
    pub id: Option<String>,
    /// engine's URL
    #[argh(option)]
    pub docker: Option<String>,
    /// cache's URL, or `none`
    #[argh(option)]
    pub cache: Option<String>,
    /// duration
    #[argh(option)]
    pub update_interval: Option<String>,
    /// first word of all keys
    #[argh(option)]
    pub prefix: Option<String>,
    /// truth value
    #[argh(option)]
    pub all: Option<String>,
    /// filters, as KEY=VALUE
    #[argh(option)]
    pub filter: Vec<String>,
    /// patterns, or `none`
    #[argh(option)]
    pub redact: Option<String>,
    /// duration
    #[argh(option)]
    pub forget_after: Option<String>,
    /// duration
    #[argh(option)]
    pub replay_max_age: Option<String>,
    /// duration
    #[argh(option)]
    pub stream_max_age: Option<String>,
    /// number
    #[argh(option)]
    pub stream_maxlen: Option<String>,
    /// number
    #[argh(option)]
    pub workers: Option<String>,
    /// path
    #[argh(option)]
    pub cache_password_file: Option<String>,
    /// truth value
    #[argh(option)]
    pub selfcheck: Option<String>,
    /// name or URL
    #[argh(option)]
    pub engine: Option<String>,
    /// name, or number behind `#`
    #[argh(option)]
    pub entry: Option<String>,
    /// name or id
    #[argh(option)]
    pub container: Option<String>,
    /// event's word, of `--type`
    #[argh(option, long = "type")]
    pub kind: Option<String>,
    /// word
    #[argh(option)]
    pub log_format: Option<String>,
    /// verb and file
    #[argh(positional)]
    words: Vec<String>,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Verb {
    /// Be the agent.
    #[default]
    Run,
    /// Say whether the configuration is right, and end.
    Check,
    /// Say which entries events would trigger, and run nothing.
    Explain,
    /// Run one entry now, as if something had happened to a container.
    Fire,
}

/// A command line.
#[derive(Clone, Default)]
pub struct Typed {
    /// What to do.
    pub verb: Verb,
    /// The file of handlers.
    pub file: Option<PathBuf>,
    /// The options.
    pub options: Options,
    /// Called by the name `docker-eventsd`: the cache is off unless asked for.
    pub eventsd: bool,
}

/// The program ends before it began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// What to print, with its line ends.
    pub text: String,
    /// Print it to the standard output, not to the standard error.
    pub stdout: bool,
    /// The exit code: 0 for help and version, 2 for a wrong command line.
    pub code: u8,
}

/// The old name of the part that runs handlers.
const EVENTSD: &str = "docker-eventsd";

/// Words that will be verbs one day.
const RESERVED: &[&str] = &["cache", "docker-cli-plugin-metadata"];

/// Reads a command line. `program` is how we were called, `arguments` are without it; the variables are for the help.
pub fn parse(
    program: &str,
    arguments: impl Iterator<Item = OsString>,
    variables: Variables,
) -> Result<Typed, Ended> {
    let name = Path::new(program)
        .file_name()
        .and_then(|name| name.to_str());
    let program = name.unwrap_or("docker-cache");
    let wrong = |problem: String| Ended {
        text: format!("{program}: {problem}\nsee `{program} -h`\n"),
        stdout: false,
        code: 2,
    };
    let said = |text: String| Ended {
        text,
        stdout: true,
        code: 0,
    };
    let plain = match plain(arguments).map_err(wrong)? {
        Plain::Help => return Err(said(help(program, variables))),
        Plain::Version => {
            let version = env!("CARGO_PKG_VERSION");
            return Err(said(format!("docker-cache {version}\n")));
        }
        Plain::Line(line) => line,
    };
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    let mut options = Options::from_args(&[program], &plain)
        .map_err(|early| wrong(early.output.trim_end().to_owned()))?;
    let words = std::mem::take(&mut options.words);
    let eventsd = program == EVENTSD;
    let (verb, file) = verb_and_file(words, eventsd).map_err(wrong)?;
    Ok(Typed {
        verb,
        file,
        options,
        eventsd,
    })
}

/// A command line in argh's own spelling.
enum Plain {
    Help,
    Version,
    Line(Vec<String>),
}

fn plain(mut arguments: impl Iterator<Item = OsString>) -> Result<Plain, String> {
    let mut options: Vec<(&OptionSpec, String)> = Vec::new();
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        let argument = utf8(argument)?;
        if argument == "--" {
            for argument in arguments.by_ref() {
                words.push(utf8(argument)?);
            }
            break;
        }
        let Some(option) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            words.push(argument);
            continue;
        };
        let option = option.strip_prefix('-').unwrap_or(option);
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        match name {
            "h" | "help" => return Ok(Plain::Help),
            "V" | "version" => return Ok(Plain::Version),
            _ => {}
        }
        let spec = find(name)?;
        let value = match value {
            Some(value) => value,
            None if spec.value.is_empty() => "true".to_owned(),
            None => value_of(spec, arguments.next())?,
        };
        if !spec.may_repeat() {
            options.retain(|(other, _)| *other != spec);
        }
        options.push((spec, value));
    }
    let options = options
        .into_iter()
        .flat_map(|(spec, value)| [format!("--{}", spec.name), value]);
    // After `--` argh takes a word as a word, whatever it begins with.
    Ok(Plain::Line(
        options.chain(["--".to_owned()]).chain(words).collect(),
    ))
}

fn find(name: &str) -> Result<&'static OptionSpec, String> {
    let known = OPTIONS
        .iter()
        .find(|spec| spec.name == name || spec.camel_case() == name);
    known.ok_or_else(|| {
        let others = ["help", "version"];
        let names = OPTIONS.iter().map(|spec| spec.name).chain(others);
        let hint = match nearest(name, names) {
            Some(meant) => format!("; did you mean `--{meant}`?"),
            None => String::new(),
        };
        format!("there is no option `{}`{hint}", dashed(name))
    })
}

fn dashed(name: &str) -> String {
    let dashes = if name.chars().count() > 1 { "--" } else { "-" };
    format!("{dashes}{}", name.escape_debug())
}

fn value_of(spec: &OptionSpec, next: Option<OsString>) -> Result<String, String> {
    let name = spec.name;
    let Some(value) = next else {
        return Err(format!("the option `--{name}` lacks its {}", spec.value));
    };
    // Not shown: it may be a URL with a password.
    value
        .into_string()
        .map_err(|_| format!("the value of the option `--{name}` is not UTF-8"))
}

fn utf8(argument: OsString) -> Result<String, String> {
    argument.into_string().map_err(|argument| {
        let shown = argument.to_string_lossy();
        // What follows an option's `=` may be a URL with a password.
        let shown = match shown.split_once('=') {
            Some((name, _)) if name.starts_with('-') => format!("{name}=…"),
            _ => shown.into_owned(),
        };
        format!("the argument `{}` is not UTF-8", shown.escape_debug())
    })
}

/// What to say of the variables that are named like an option's and belong to none. They stop nothing: an orchestrator may have set them.
pub fn stray_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = OPTIONS.iter().map(OptionSpec::variable).collect();
    let mut strays: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("DOCKER_CACHE_") && !known.contains(name))
        .collect();
    strays.sort();
    let told = |name: String| {
        let hint = match nearest(&name, known.iter().map(String::as_str)) {
            Some(meant) => format!("; did you mean `{meant}`?"),
            None => String::new(),
        };
        format!("{}: no option has this variable{hint}", name.escape_debug())
    };
    strays.into_iter().map(told).collect()
}

fn verb_and_file(words: Vec<String>, eventsd: bool) -> Result<(Verb, Option<PathBuf>), String> {
    let mut words = words.into_iter().peekable();
    let verb = match words.peek().map(String::as_str) {
        Some("run") => Some(Verb::Run),
        Some("check") => Some(Verb::Check),
        Some("explain") => Some(Verb::Explain),
        Some("fire") => Some(Verb::Fire),
        Some(word) if RESERVED.contains(&word) => {
            return Err(format!(
                "`{word}` is a reserved word that does nothing in this version; a file of that name is given as `./{word}`"
            ));
        }
        _ => None,
    };
    if verb.is_some() {
        words.next();
    }
    let known = verb.is_some();
    let verb = verb.unwrap_or_default();
    let file = words.next();
    if file.as_deref() == Some("") {
        return Err("the file's name is empty".to_owned());
    }
    if let Some(word) = words.next() {
        let word = word.escape_debug();
        let first = file.filter(|_| !known).unwrap_or_default();
        let hint = match nearest(&first, ["run", "check", "explain", "fire"]) {
            Some(meant) => format!("; did you mean `{meant}`?"),
            None => String::new(),
        };
        return Err(format!(
            "there is one file at most, `{word}` is too much{hint}"
        ));
    }
    match (verb, &file) {
        (Verb::Check, None) => Err("`check` lacks its file: `check events.yml`".to_owned()),
        (Verb::Explain, None) => Err("`explain` lacks its file: `explain events.yml`".to_owned()),
        (Verb::Fire, None) => Err("`fire` lacks its file: `fire events.yml`".to_owned()),
        (Verb::Run, None) if eventsd => Err(format!(
            "the file of handlers is missing: `{EVENTSD} events.yml`"
        )),
        _ => Ok((verb, file.map(PathBuf::from))),
    }
}

/// The text of `-h`.
fn help(program: &str, variables: Variables) -> String {
    let eventsd = program == EVENTSD;
    let file = if eventsd {
        "events.yml"
    } else {
        "[events.yml]"
    };
    let mut text = format!(
        "Usage: {program} [options] {file}\n       {program} check [options] events.yml\n       {program} explain [options] events.yml\n       \
         {program} fire --entry NAME --container CONTAINER [options] events.yml\n\n\
         Mirrors Docker engines into a central Redis in real time, and runs commands on\n\
         container events as events.yml says. With `check` it only looks for mistakes.\n\
         With `explain` it reads events from its standard input, as\n\
         `docker events --format '{{{{json .}}}}'` prints them, and says of each entry whether it\n\
         would run, and which filter says no. With `fire` it runs one entry now, as if\n\
         something had happened to the container, and shows what comes of it.\n\n\
         Options:\n"
    );
    for spec in OPTIONS {
        let option = format!("--{} {}", spec.name, spec.value);
        let about = spec.about.replace('\n', "\n        ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}\n        {about}", option.trim_end());
        let default = default_here(spec, eventsd, variables);
        if !default.is_empty() {
            let _ = writeln!(text, "        Default: {}", wrapped(&default));
        }
    }
    text.push_str(
        "  -h, --help\n        Print this help.\n  -V, --version\n        Print the version.\n\n\
         An option may also be spelled as Go does: -updateInterval=2m0s. One that is not\n\
         typed is taken from the environment: --update-interval from\n\
         DOCKER_CACHE_UPDATE_INTERVAL. Durations are 500ms, 90s, 2m0s or 1.5h.\n\n\
         Exit codes: 0 stopped by a signal, 2 wrong options or file, 1 anything else; of\n\
         `fire` that of the command, 124 when it took too long.\n",
    );
    text
}

/// A list that is too long for one line goes on, behind a comma, on the next.
fn wrapped(list: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for item in list.split_inclusive(',') {
        if length > 0 && length + item.len() > 72 {
            lines.push_str("\n        ");
            length = 0;
        }
        lines.push_str(item);
        length += item.len();
    }
    lines
}

/// The default on this machine.
fn default_here(spec: &OptionSpec, eventsd: bool, variables: Variables) -> String {
    match spec.name {
        "id" => config::host_name(),
        "cache" if eventsd => "none".to_owned(),
        "docker" => match config::docker_host(variables) {
            Some(url) => format!("{} (DOCKER_HOST)", config::masked(&url.to_string_lossy())),
            None => spec.default.to_owned(),
        },
        _ if spec.value.is_empty() => String::new(),
        _ => spec.default.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn parsed(program: &str, arguments: &[&str]) -> Result<Typed, Ended> {
        let none = |_: &str| None;
        parse(program, arguments.iter().map(OsString::from), &none)
    }

    fn typed(arguments: &[&str]) -> Typed {
        match parsed("docker-cache", arguments) {
            Ok(typed) => typed,
            Err(ended) => panic!("{arguments:?}: {}", ended.text),
        }
    }

    fn refused(arguments: &[&str]) -> String {
        let ended = parsed("docker-cache", arguments).err().unwrap();
        assert_eq!((ended.stdout, ended.code), (false, 2), "{arguments:?}");
        ended.text.lines().next().unwrap().to_owned()
    }

    #[test]
    fn every_option_in_every_spelling() {
        for spec in OPTIONS {
            let name = spec.name;
            let camel = spec.camel_case();
            let spellings = [
                format!("-{name}=v"),
                format!("--{name}=v"),
                format!("-{camel}=v"),
                format!("--{camel}=v"),
            ];
            for spelling in &spellings {
                assert_eq!(
                    value(&typed(&[spelling]).options, name),
                    ["v"],
                    "{spelling}"
                );
            }
            if !spec.value.is_empty() {
                let option = format!("-{camel}");
                assert_eq!(
                    value(&typed(&[&option, "v"]).options, name),
                    ["v"],
                    "{option}"
                );
                assert_eq!(value(&typed(&[&option, "-v=1"]).options, name), ["-v=1"]);
            }
        }
        assert_eq!(value(&typed(&["-all", "x.yml"]).options, "all"), ["true"]);
    }

    fn value<'o>(options: &'o Options, name: &str) -> Vec<&'o str> {
        let one = |value: &'o Option<String>| value.as_deref().into_iter().collect();
        match name {
            "id" => one(&options.id),
            "docker" => one(&options.docker),
            "cache" => one(&options.cache),
            "update-interval" => one(&options.update_interval),
            "prefix" => one(&options.prefix),
            "all" => one(&options.all),
            "filter" => options.filter.iter().map(String::as_str).collect(),
            "redact" => one(&options.redact),
            "forget-after" => one(&options.forget_after),
            "replay-max-age" => one(&options.replay_max_age),
            "stream-max-age" => one(&options.stream_max_age),
            "stream-maxlen" => one(&options.stream_maxlen),
            "workers" => one(&options.workers),
            "cache-password-file" => one(&options.cache_password_file),
            "selfcheck" => one(&options.selfcheck),
            "engine" => one(&options.engine),
            "entry" => one(&options.entry),
            "container" => one(&options.container),
            "type" => one(&options.kind),
            "log-format" => one(&options.log_format),
            other => panic!("`{other}` has no field"),
        }
    }

    #[test]
    fn the_last_of_an_option_counts_and_filters_add_up() {
        let options = typed(&["-id=a", "--filter", "b", "-id", "c", "-filter=d"]).options;
        assert_eq!(value(&options, "id"), ["c"]);
        assert_eq!(value(&options, "filter"), ["b", "d"]);
    }

    #[test]
    fn verbs_and_files() {
        let words = |arguments: &[&str]| {
            let Typed { verb, file, .. } = typed(arguments);
            (verb, file.map(|file| file.to_str().unwrap().to_owned()))
        };
        let run = |file: &str| (Verb::Run, Some(file.to_owned()));
        assert_eq!(words(&[]), (Verb::Run, None));
        assert_eq!(words(&["run"]), (Verb::Run, None));
        assert_eq!(words(&["events.yml", "-id=x"]), run("events.yml"));
        assert_eq!(words(&["run", "events.yml"]), run("events.yml"));
        assert_eq!(words(&["-id", "x", "run", "run"]), run("run"));
        assert_eq!(words(&["./check"]), run("./check"));
        assert_eq!(words(&["--", "-odd"]), run("-odd"));
        assert_eq!(words(&["-"]), run("-"));
        assert_eq!(words(&["help"]), run("help"));
        assert_eq!(words(&["check", "f"]), (Verb::Check, Some("f".to_owned())));
        assert_eq!(
            words(&["explain", "f"]),
            (Verb::Explain, Some("f".to_owned()))
        );
        assert_eq!(words(&["fire", "f"]), (Verb::Fire, Some("f".to_owned())));
    }

    #[test]
    fn a_variable_that_no_option_has_is_told() {
        let names = |names: &[&str]| stray_variables(names.iter().map(OsString::from));
        let ours: Vec<String> = OPTIONS.iter().map(OptionSpec::variable).collect();
        let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
        assert_eq!(names(&ours), [""; 0]);
        assert_eq!(names(&["DOCKER_HOST", "DOCKER_CACHED"]), [""; 0]);
        assert_eq!(
            names(&["DOCKER_CACHE_UPDATEINTERVAL", "DOCKER_CACHE_GREETING"]),
            [
                "DOCKER_CACHE_GREETING: no option has this variable",
                "DOCKER_CACHE_UPDATEINTERVAL: no option has this variable; did you mean `DOCKER_CACHE_UPDATE_INTERVAL`?",
            ]
        );
    }

    #[test]
    fn what_is_refused_and_why() {
        for (arguments, text) in [
            (
                &["-cahce=redis://:hush@h"][..],
                "there is no option `--cahce`; did you mean `--cache`?",
            ),
            (
                &["--updateinterval=1s"],
                "there is no option `--updateinterval`; did you mean `--update-interval`?",
            ),
            (&["-v"], "there is no option `-v`"),
            (
                &["---id=x"],
                "there is no option `---id`; did you mean `--id`?",
            ),
            (&["-=x"], "there is no option `-`"),
            (&["-id"], "the option `--id` lacks its NAME"),
            (
                &["a.yml", "b.yml"],
                "there is one file at most, `b.yml` is too much",
            ),
            (
                &["chek", "a.yml"],
                "there is one file at most, `a.yml` is too much; did you mean `check`?",
            ),
            (
                &["check", "fire", "a.yml"],
                "there is one file at most, `a.yml` is too much",
            ),
            (&["check"], "`check` lacks its file: `check events.yml`"),
            (
                &["explain"],
                "`explain` lacks its file: `explain events.yml`",
            ),
            (&["fire"], "`fire` lacks its file: `fire events.yml`"),
            (
                &["cache"],
                "`cache` is a reserved word that does nothing in this version; a file of that name is given as `./cache`",
            ),
            (&[""], "the file's name is empty"),
        ] {
            assert_eq!(refused(arguments), format!("docker-cache: {text}"));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        for (before, bytes, text) in [
            (
                None,
                "caf?.yml",
                "the argument `caf\u{fffd}.yml` is not UTF-8",
            ),
            (
                None,
                "-cache=redis://:hush?@h",
                "the argument `-cache=…` is not UTF-8",
            ),
            (
                Some("-cache"),
                "redis://:hush?@h",
                "the value of the option `--cache` is not UTF-8",
            ),
        ] {
            let bytes: Vec<u8> = bytes
                .bytes()
                .map(|b| if b == b'?' { 0xe9 } else { b })
                .collect();
            let arguments = before.map(OsString::from).into_iter();
            let arguments = arguments.chain([OsString::from_vec(bytes)]);
            let ended = parse("docker-cache", arguments, &|_| None).err().unwrap();
            assert!(
                ended.text.starts_with(&format!("docker-cache: {text}\n")),
                "{}",
                ended.text
            );
        }
    }

    #[test]
    fn called_by_the_old_name() {
        let typed = parsed("/usr/bin/docker-eventsd", &["events.yml"])
            .ok()
            .unwrap();
        assert!(typed.eventsd);
        let ended = parsed("docker-eventsd", &[]).err().unwrap();
        assert!(
            ended.text.contains("the file of handlers is missing"),
            "{}",
            ended.text
        );
        let help = parsed("docker-eventsd", &["-h"]).err().unwrap().text;
        assert!(
            help.starts_with("Usage: docker-eventsd [options] events.yml\n"),
            "{help}"
        );
    }

    #[test]
    fn help_lists_all_options_with_the_defaults_of_this_machine() {
        for spelling in ["-h", "--help", "-help"] {
            let variables =
                |name: &str| (name == "DOCKER_HOST").then(|| "tcp://me:hush@node:1".into());
            let arguments = ["-id=x", spelling].map(OsString::from);
            let ended = parse("./docker-cache", arguments.into_iter(), &variables)
                .err()
                .unwrap();
            assert_eq!((ended.stdout, ended.code), (true, 0));
            for spec in OPTIONS {
                assert!(
                    ended.text.contains(
                        &format!("\n  --{} {}", spec.name, spec.value)
                            .trim_end()
                            .to_owned()
                    )
                );
            }
            for text in [
                config::host_name().as_str(),
                "tcp://***@node:1 (DOCKER_HOST)",
                "redis://localhost:6379",
                "Default: 2m\n",
            ] {
                assert!(
                    ended.text.contains(text),
                    "{text} is not in\n{}",
                    ended.text
                );
            }
            let longest = ended.text.lines().map(str::len).max();
            assert!(longest <= Some(135), "{longest:?}");
        }
        let version = parsed("docker-cache", &["-V"]).err().unwrap();
        assert_eq!(
            version.text,
            format!("docker-cache {}\n", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!((version.stdout, version.code), (true, 0));
    }

    #[test]
    fn nothing_of_the_corpus_makes_it_panic() {
        // An argument a line.
        for (name, bytes) in crate::corpus::corpus("arguments") {
            let lines = bytes.split(|byte| *byte == b'\n');
            let arguments = lines.map(|line| OsString::from_vec(line.to_vec()));
            if let Err(ended) = parse("docker-cache", arguments, &|_| None) {
                assert!(ended.text.ends_with('\n'), "{name}: {}", ended.text);
                assert_eq!(ended.stdout, ended.code == 0, "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(arguments in proptest::collection::vec("(-|--|---)?(id|cache|all|filter|updateInterval|h|V|run|check|explain|fire|=|\\PC){0,3}", 0..6)) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if let Err(ended) = parsed("docker-cache", &arguments) {
                prop_assert!(ended.text.ends_with('\n'));
                prop_assert_eq!(ended.stdout, ended.code == 0);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(arguments: Vec<Vec<u8>>) {
            let arguments = arguments.into_iter().map(OsString::from_vec);
            let _ = parse("docker-cache", arguments, &|_| None);
        }
    }
}
