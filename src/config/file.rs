//! `events.yml`: the cluster and the handlers, with every mistake in it.

use std::path::Path;
use std::sync::Arc;

use super::how::How;
use super::machine::Machine;
use super::reader::{Reader, expected_found};
use super::yaml::{self, Node, Value};
use super::{ConfigError, Mistake, Origin, is_name, url};
use crate::model::{Engine, Entry, engine_variable};

/// What a file says, as far as it could be understood; it counts only where `mistakes` is empty.
#[derive(Default, Debug)]
pub struct Contents {
    /// The engines, in the order of the file, unless it has no `cluster`.
    pub cluster: Option<Vec<Engine>>,
    /// The entries, in the order of the file.
    pub entries: Vec<Arc<Entry>>,
    /// What is wrong where there is no cache.
    pub without_cache: Vec<ConfigError>,
    /// Each `concurrency`, and where it stands.
    pub concurrencies: Vec<(usize, String)>,
    /// What is wrong.
    pub mistakes: Vec<ConfigError>,
    /// What is probably not meant.
    pub warnings: Vec<String>,
}

const TOP: &[&str] = &["cluster", "defaults", "events"];
const ENGINE_NAME: &str = "a name that begins with a letter or digit and has letters, digits, `_`, `.` and `-`, 128 at most";

/// Reads a file's bytes; `path` is for messages.
pub fn read(path: &Path, bytes: &[u8], machine: &Machine) -> Contents {
    let mut contents = Contents::default();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].split(|b| *b == b'\n').count();
            let problem = format!("line {line} is not UTF-8");
            contents.mistakes.push(ConfigError {
                origin: Origin::File(path.to_owned(), None),
                field: None,
                mistake: Mistake::new(problem, "a YAML file in UTF-8"),
            });
            return contents;
        }
    };
    match yaml::read(text) {
        Ok(root) => Reader {
            path,
            text,
            machine,
            contents: &mut contents,
            unlisted: 0,
        }
        .whole(&root),
        Err(unreadable) => contents.mistakes.push(ConfigError {
            origin: Origin::File(path.to_owned(), unreadable.place),
            field: None,
            mistake: Mistake::new(unreadable.problem, ""),
        }),
    }
    contents
}

/// Warnings for each `concurrency` that needs more workers than there are.
pub fn crowded(concurrencies: &[(usize, String)], workers: usize) -> Vec<String> {
    let too_high = concurrencies.iter().filter(|(number, _)| *number > workers);
    let warning = |(_, place): &(usize, String)| {
        format!(
            "{place}: no more than {workers} run at once, all entries together; `--workers` says so"
        )
    };
    too_high.map(warning).collect()
}

impl Reader<'_> {
    fn whole(mut self, root: &Node) {
        self.top(root);
        let place = |error: &ConfigError| match &error.origin {
            Origin::File(_, place) => *place,
            _ => None,
        };
        self.contents.mistakes.sort_by_key(place);
        if self.unlisted > 0 {
            self.contents.mistakes.push(ConfigError {
                origin: Origin::File(self.path.to_owned(), None),
                field: None,
                mistake: Mistake::new(format!("{} more mistakes", self.unlisted), ""),
            });
        }
    }

    fn top(&mut self, root: &Node) {
        let expected = "a map with `cluster` and `events`";
        let Some(top) = self.section(root, "", &[TOP], expected) else {
            return;
        };
        if let Some((cluster, _)) = top.get("cluster") {
            self.cluster(cluster);
        }
        let defaults = match top.get("defaults") {
            Some((node, label)) => self.defaults(node, &label),
            None => How::default(),
        };
        match top.get("events").map(|(node, _)| (node, &node.value)) {
            // All entries may have been commented out.
            None | Some((_, Value::Nothing)) => {}
            Some((_, Value::List(entries))) => self.entries(entries, &defaults),
            Some((node, found)) => {
                self.wrong(node, "events", expected_found("a list of entries", found));
            }
        }
    }

    fn cluster(&mut self, node: &Node) {
        const EXPECTED: &str = "a map of at least one engine's name to its URL";
        let mut engines = Vec::new();
        let mut names = Vec::new();
        // The cluster counts as given from here on, whatever is wrong with it.
        self.contents.cluster = Some(Vec::new());
        let pairs = match &node.value {
            Value::Map(pairs) if !pairs.is_empty() => pairs,
            found => return self.wrong(node, "cluster", expected_found(EXPECTED, found)),
        };
        for (key, value) in pairs {
            let Some(name) = self.text(key, "cluster", ENGINE_NAME) else {
                continue;
            };
            if !is_name(name) {
                let problem = format!("`{}` is no name of an engine", super::cut(name));
                self.wrong(key, "cluster", Mistake::new(problem, ENGINE_NAME));
                continue;
            }
            let field = format!("cluster.{name}");
            if let Some(mistake) = alike(name, &names) {
                self.wrong(key, &field, mistake);
            }
            names.push(name);
            let Some(url) = self.text(value, &field, url::EXPECTED_ENGINE) else {
                continue;
            };
            let address = match url::engine(url) {
                Ok(address) => address,
                Err(mistake) => {
                    self.wrong(value, &field, mistake);
                    continue;
                }
            };
            engines.push(Engine {
                name: name.into(),
                url: url.into(),
                address,
            });
        }
        self.contents.cluster = Some(engines);
    }
}

/// What is wrong with an engine's name beside those that the file has before it.
fn alike(name: &str, others: &[&str]) -> Option<Mistake> {
    let variable = engine_variable(name);
    let other = others
        .iter()
        .find(|other| engine_variable(other) == variable)?;
    let problem = match *other == name {
        true => format!("the engine `{name}` stands here twice"),
        false => {
            format!("the engines `{other}` and `{name}` would share the variable `{variable}`")
        }
    };
    let expected = "names that differ by more than case, `_`, `.` and `-`";
    Some(Mistake::new(problem, expected))
}

#[cfg(test)]
mod tests {
    use std::fmt::{Display, Write};
    use std::fs;
    use std::io;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::filter::FILTER;
    use super::super::how::HOW;
    use super::super::machine::Thing;
    use super::*;

    /// A machine with few folders, programs and users.
    fn machine() -> Machine<'static> {
        const PASSWD: &str =
            "root:x:0:0:root:/root:/bin/sh\nbackup:x:34:35::/var/backups:/bin/sh\n";
        Machine {
            host_name: "ubuntu".to_owned(),
            variables: &|name| (name == "PATH").then(|| "/usr/bin:/bin".into()),
            files: &|path| match path.to_str() {
                Some("/etc/passwd") => Ok(PASSWD.into()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
            look: &|path| match path.to_str()? {
                "/bin/sh" | "/bin/bash" | "/usr/bin/python3" => Some(Thing::Program),
                "/srv" | "/var/backups" => Some(Thing::Folder),
                "/etc/passwd" => Some(Thing::Other),
                _ => None,
            },
            is_root: true,
        }
    }

    /// Every file of a folder says what its neighbour `.expected` holds; BLESS=1 writes what is said now, to be looked at.
    fn walk(folder: &str, say: fn(&Contents) -> String) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut count = 0;
        let mut wrong = String::new();
        for path in fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().path())
        {
            if path.extension().is_none_or(|extension| extension != "yml") {
                continue;
            }
            count += 1;
            let name = Path::new(path.file_name().unwrap());
            let said = say(&read(name, &fs::read(&path).unwrap(), &machine()));
            let expected = path.with_extension("expected");
            if std::env::var_os("BLESS").is_some() {
                fs::write(&expected, &said).unwrap();
            }
            let expected = fs::read_to_string(&expected).unwrap_or_default();
            if said != expected {
                writeln!(wrong, "{name:?} says\n{said}not\n{expected}").unwrap();
            }
        }
        assert!(count > 0, "no file in {}", folder.display());
        assert_eq!(wrong, "");
    }

    fn lines(lines: impl IntoIterator<Item = impl Display>) -> String {
        lines.into_iter().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn broken_files_tell_all_their_mistakes() {
        walk("fixtures/config/broken", |contents| {
            assert!(!contents.mistakes.is_empty());
            lines(&contents.mistakes)
        });
    }

    #[test]
    fn good_files_mean_what_they_say() {
        walk("fixtures/config/good", |contents| {
            let engines = contents.cluster.as_ref().map_or(String::new(), |engines| {
                lines(engines.iter().map(|engine| format!("{engine:?}")))
            });
            let entries = lines(contents.entries.iter().map(|entry| format!("{entry:#?}")));
            let warnings = lines(
                contents
                    .warnings
                    .iter()
                    .map(|line| format!("warning: {line}")),
            );
            lines(&contents.mistakes) + &engines + &entries + &warnings
        });
    }

    #[test]
    fn the_example_at_the_top_is_right() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("events.yml");
        let text = fs::read_to_string(&path).unwrap();
        // What is commented out is right too.
        let all: String = text
            .lines()
            .map(|line| match line.strip_prefix("  # ") {
                Some(entry) if entry.starts_with(['-', ' ']) => format!("  {entry}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        for (text, entries) in [(&text, 4), (&all, 8)] {
            let contents = read(&path, text.as_bytes(), &machine());
            assert_eq!(lines(&contents.mistakes) + &lines(&contents.warnings), "");
            assert_eq!(contents.cluster.map(|engines| engines.len()), Some(1));
            assert_eq!(contents.entries.len(), entries);
        }
    }

    #[test]
    fn nothing_of_the_corpus_makes_it_panic() {
        for (name, bytes) in crate::corpus::corpus("files") {
            for mistake in read(Path::new(&name), &bytes, &machine()).mistakes {
                assert!(mistake.to_string().starts_with(&name), "{mistake}");
            }
        }
    }

    /// A field of an entry, or nearly.
    fn field() -> impl Strategy<Value = String> {
        let known = [
            &["name", "not", "for", "existing", "once", "command", "log"],
            FILTER,
            HOW,
        ]
        .concat();
        prop_oneof![
            9 => proptest::sample::select(known).prop_map(str::to_owned),
            1 => "(x|1|\\[\\])",
        ]
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "((cluster|defaults|events|type|name|log|command|timeout|from_engine|concurrency|labels|not|exit_code|env|shell|user|debounce): |- |\n|  |a|\\*|\\{|\\}|\\[|\\]|, |1|tcp://|\"|&a |\\*a|!t |\\PC){0,40}") {
            read(Path::new("f"), text.as_bytes(), &machine());
        }

        #[test]
        fn every_mistake_in_an_entry_has_a_place(
            fields in proptest::collection::vec((field(), "(die|engine/\\*|1|0|~|!x|\\[a\\]|\\[a=b, \"!0\"\\]|\\{a: b\\}|\\{type: a, 1: b\\}|\\[\\{\\}, \\{image: \"!\"\\}\\]|\"\"|\"!\"|\"!a, , b\"|'\\*\\['|1s|2..1|/x|!t x|true)"), 0..12),
            defaults in proptest::collection::vec((field(), "(1s|2|x|\\[\\]|\\{A: b\\})"), 0..4),
        ) {
            let lines = |indent: &str, fields: &[(String, String)]| -> String {
                fields.iter().map(|(key, value)| format!("{indent}{key}: {value}\n")).collect()
            };
            let text = format!("defaults:\n{}events:\n -\n{}", lines(" ", &defaults), lines("   ", &fields));
            let contents = read(Path::new("f"), text.as_bytes(), &machine());
            for mistake in &contents.mistakes {
                prop_assert!(matches!(mistake.origin, Origin::File(_, Some(_))), "{mistake}\n{text}");
            }
            for warning in &contents.warnings {
                prop_assert!(warning.starts_with("f:") && warning[2..].starts_with(|c: char| c.is_ascii_digit()), "{warning}\n{text}");
            }
        }
    }
}
