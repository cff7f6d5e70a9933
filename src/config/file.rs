//! `events.yml`: the cluster and the handlers, with every mistake in it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::nearest::nearest;
use super::reader::{Fields, Reader, expected_found};
use super::yaml::{self, Node, Value};
use super::{ConfigError, Mistake, Origin, actions, duration, is_name, url};
use crate::model::{Engine, Entry, Filter, engine_variable};

/// What a file says, as far as it could be understood; it counts only where `mistakes` is empty.
#[derive(Default, Debug)]
pub struct Contents {
    /// The engines, in the order of the file, unless it has no `cluster`.
    pub cluster: Option<Vec<Engine>>,
    /// The entries, in the order of the file.
    pub entries: Vec<Arc<Entry>>,
    /// What is wrong.
    pub mistakes: Vec<ConfigError>,
    /// What is probably not meant.
    pub warnings: Vec<String>,
}

const TOP: &[&str] = &["cluster", "events"];
const ENTRY: &[&str] = &[
    "name",
    "type",
    "from_engine",
    "from_container",
    "image_contains",
    "command",
    "log",
    "timeout",
    "grace",
    "concurrency",
];
const ENGINE_NAME: &str = "a name that begins with a letter or digit and has letters, digits, `_`, `.` and `-`, 128 at most";
const TYPES: &str =
    "one or several of Docker's words, such as `die` or `start, network/connect`, or `*` for all";

/// Reads a file's bytes; `path` is for messages.
pub fn read(path: &Path, bytes: &[u8]) -> Contents {
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
        let Some(fields) = self.fields(root, "", TOP, "a map with `cluster` and `events`") else {
            return;
        };
        if let Some(cluster) = fields.get("cluster") {
            self.cluster(cluster);
        }
        match fields.get("events").map(|node| (node, &node.value)) {
            // All entries may have been commented out.
            None | Some((_, Value::Nothing)) => {}
            Some((_, Value::List(entries))) => self.entries(entries),
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

    fn entries(&mut self, nodes: &[Node]) {
        let mut names: HashMap<String, usize> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            let number = index + 1;
            let label = format!("entry #{number}");
            let expected = "a map with `type` and `command` or `log`";
            let Some(fields) = self.fields(node, &label, ENTRY, expected) else {
                continue;
            };
            let name = self.entry_name(&fields, number, &mut names);
            let filter = self.filter(node, &fields, &label);
            let entry = self.action(node, &fields, &label, name, filter);
            self.contents.entries.push(Arc::new(entry));
        }
    }

    fn entry_name(
        &mut self,
        fields: &Fields,
        number: usize,
        names: &mut HashMap<String, usize>,
    ) -> Arc<str> {
        const EXPECTED: &str = "a name of one line that no other entry has";
        let field = format!("entry #{number}, name");
        let unnamed = format!("#{number}");
        let Some(node) = fields.get("name") else {
            return unnamed.into();
        };
        let Some(name) = self.line(node, &field, EXPECTED) else {
            return unnamed.into();
        };
        if name.starts_with('#') {
            let problem = format!(
                "`{}` begins with `#`, as the numbers of entries without a name do",
                super::cut(name)
            );
            self.wrong(node, &field, Mistake::new(problem, EXPECTED));
        }
        if let Some(first) = names.insert(name.to_lowercase(), number) {
            let problem = format!("entry #{first} has the name `{}` too", super::cut(name));
            self.wrong(node, &field, Mistake::new(problem, EXPECTED));
        }
        name.into()
    }

    fn filter(&mut self, entry: &Node, fields: &Fields, label: &str) -> Filter {
        let mut filter = Filter::default();
        let field = format!("{label}, type");
        match fields.get("type") {
            Some(node) => filter.types = self.types(node, &field),
            None => {
                let mistake = Mistake::new("the field is missing".to_owned(), TYPES);
                self.wrong(entry, &field, mistake);
            }
        }
        if let Some(node) = fields.get("from_engine") {
            let field = format!("{label}, from_engine");
            filter.engine = self.pattern(node, &field, "an engine's name or a glob");
            if let Some(pattern) = &filter.engine {
                self.warn_of_no_engine(node, &field, pattern);
            }
        }
        if let Some(node) = fields.get("from_container") {
            let field = format!("{label}, from_container");
            filter.container = self
                .pattern(node, &field, "a container's name or a glob")
                .map(|pattern| pattern.strip_prefix('/').unwrap_or(&pattern).to_owned());
        }
        if let Some(node) = fields.get("image_contains") {
            let field = format!("{label}, image_contains");
            filter.image_contains = self
                .line(node, &field, "a part of an image's name")
                .map(str::to_owned);
        }
        filter
    }

    fn action(
        &mut self,
        node: &Node,
        fields: &Fields,
        label: &str,
        name: Arc<str>,
        filter: Filter,
    ) -> Entry {
        if !fields.contains_key("command") && !fields.contains_key("log") {
            let mistake = Mistake::new(
                "it neither runs nor logs anything".to_owned(),
                "a `command`, a `log` or both",
            );
            self.wrong(node, label, mistake);
        }
        let mut shell_or_log = |name: &str, expected| {
            let node = fields.get(name)?;
            let field = format!("{label}, {name}");
            self.text(node, &field, expected).map(Arc::from)
        };
        let command = shell_or_log("command", "a command for the shell");
        let log = shell_or_log("log", "a text to log");
        Entry {
            name,
            filter,
            command,
            log,
            timeout: self.duration(fields, label, "timeout", 60, Duration::from_millis(1)),
            grace: self.duration(fields, label, "grace", 5, Duration::ZERO),
            concurrency: self.concurrency(fields, label),
        }
    }

    fn duration(
        &mut self,
        fields: &Fields,
        label: &str,
        name: &str,
        default_seconds: u64,
        least: Duration,
    ) -> Duration {
        let default = Duration::from_secs(default_seconds);
        let Some(node) = fields.get(name) else {
            return default;
        };
        let field = format!("{label}, {name}");
        // `0` is a number to YAML and a duration to Go; of any other number Go says that it lacks its unit.
        let text = match &node.value {
            Value::Whole(number) => number.to_string(),
            _ => match self.text(node, &field, duration::EXPECTED) {
                Some(text) => text.to_owned(),
                None => return default,
            },
        };
        duration::parse_at_least(&text, least).unwrap_or_else(|mistake| {
            self.wrong(node, &field, mistake);
            default
        })
    }

    fn concurrency(&mut self, fields: &Fields, label: &str) -> usize {
        const DEFAULT: usize = 8;
        let Some(node) = fields.get("concurrency") else {
            return DEFAULT;
        };
        match node.value {
            Value::Whole(number @ 1..=super::MAX_WORKERS) => number as usize,
            ref found => {
                let expected = format!("a number from 1 to {}", super::MAX_WORKERS);
                let field = format!("{label}, concurrency");
                self.wrong(node, &field, expected_found(expected, found));
                DEFAULT
            }
        }
    }

    /// The patterns of a `type`, in lower case.
    fn types(&mut self, node: &Node, field: &str) -> Vec<String> {
        let nodes = match &node.value {
            Value::List(items) if !items.is_empty() => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut types = Vec::new();
        for node in nodes {
            if let Value::Map(pairs) = &node.value
                && let [(key, value)] = pairs.as_slice()
                && let (Value::Text(key), Value::Text(value)) = (&key.value, &value.value)
            {
                let problem = "without quotes this is a map".to_owned();
                let mistake = Mistake::new(problem, format!("`\"{key}: {value}\"`, in quotes"));
                self.wrong(node, field, mistake);
                continue;
            }
            let Some(text) = self.line(node, field, TYPES) else {
                continue;
            };
            for word in split_at_commas(text) {
                types.extend(self.word(node, field, word));
            }
        }
        types
    }

    fn word(&mut self, node: &Node, field: &str, word: &str) -> Option<String> {
        let word = word.trim().to_lowercase();
        let word = match word.strip_prefix("health_status:") {
            Some(state) => format!("health_status: {}", state.trim()),
            None => word,
        };
        if word.is_empty() {
            let problem = "a word is missing before or after a comma".to_owned();
            self.wrong(node, field, Mistake::new(problem, TYPES));
            return None;
        }
        if !self.is_glob(node, field, &word) {
            return None;
        }
        if !has_wildcard(&word)
            && let Some(meant) = actions::unknown(&word)
        {
            let hint = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            self.warn(
                node,
                field,
                format!("no engine sends `{}`{hint}", super::cut(&word)),
            );
        }
        Some(word)
    }

    fn warn_of_no_engine(&mut self, node: &Node, field: &str, pattern: &str) {
        let Some(engines) = &self.contents.cluster else {
            return;
        };
        let glob = globset::GlobBuilder::new(pattern)
            .case_insensitive(true)
            .build();
        let Ok(glob) = glob.map(|glob| glob.compile_matcher()) else {
            return;
        };
        if engines.iter().any(|engine| glob.is_match(&*engine.name)) {
            return;
        }
        let meant = nearest(pattern, engines.iter().map(|engine| &*engine.name))
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let warning = format!(
            "no engine of the cluster is named `{}`{meant}",
            super::cut(pattern)
        );
        self.warn(node, field, warning);
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

/// Splits at the commas that do not stand in the braces of a glob.
fn split_at_commas(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

#[cfg(test)]
mod tests {
    use std::fmt::{Display, Write};
    use std::fs;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

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
            let said = say(&read(name, &fs::read(&path).unwrap()));
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
        let contents = read(&path, &fs::read(&path).unwrap());
        assert_eq!(lines(&contents.mistakes) + &lines(&contents.warnings), "");
        assert_eq!(contents.cluster.map(|engines| engines.len()), Some(1));
        assert!(contents.entries.len() > 2);
    }

    #[test]
    fn nothing_of_the_corpus_makes_it_panic() {
        for (name, bytes) in crate::corpus::corpus("files") {
            for mistake in read(Path::new(&name), &bytes).mistakes {
                assert!(mistake.to_string().starts_with(&name), "{mistake}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "((cluster|events|type|name|log|command|timeout|from_engine|concurrency): |- |\n|  |a|\\*|\\{|\\}|\\[|\\]|, |1|tcp://|\"|&a |\\*a|!t |\\PC){0,40}") {
            read(Path::new("f"), text.as_bytes());
        }

        #[test]
        fn every_mistake_in_an_entry_has_a_place(
            fields in proptest::collection::vec(("(name|type|from_engine|grace|log|concurrency|x|1|\\[\\])", "(die|1|~|\\[a\\]|\\{a: b\\}|\"\"|'\\*\\['|1s|!t x|true)"), 0..12)
        ) {
            let entry: String = fields.iter().map(|(key, value)| format!("   {key}: {value}\n")).collect();
            let contents = read(Path::new("f"), format!("events:\n -\n{entry}").as_bytes());
            for mistake in contents.mistakes {
                prop_assert!(matches!(mistake.origin, Origin::File(_, Some(_))), "{mistake}");
            }
        }
    }
}
