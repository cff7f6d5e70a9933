//! The entries of `events.yml`: each one's name, what it does, and what of it does not go together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Mistake;
use super::filter::{FILTER, TYPES};
use super::how::{HOW, How};
use super::never::may_be;
use super::reader::{Reader, Section};
use super::yaml::Node;
use crate::model::{Entry, Labels, Patterns, label_variable};

/// The fields of an entry.
pub const ENTRY: [&[&str]; 4] = [NAME, FILTER, DOES, HOW];

/// What an entry is called.
const NAME: &[&str] = &["name"];

/// What it does, and for what beside the events that its filters let through.
const DOES: &[&str] = &["not", "for", "existing", "once", "command", "log"];

/// A warning.
const NO_COMMAND: &str = "without a `command` it has no effect";

impl Reader<'_> {
    /// Reads all entries.
    pub fn entries(&mut self, nodes: &[Node], defaults: &How) {
        let mut names: HashMap<String, usize> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            let number = index + 1;
            let label = format!("entry #{number}");
            let expected = "a map with `type` and `command` or `log`";
            let Some(section) = self.section(node, &label, &ENTRY, expected) else {
                continue;
            };
            let name = self.entry_name(&section, number, &mut names);
            let entry = self.entry(&section, name, defaults);
            self.contents.entries.push(Arc::new(entry));
        }
    }

    fn entry_name(
        &mut self,
        section: &Section,
        number: usize,
        names: &mut HashMap<String, usize>,
    ) -> Arc<str> {
        const EXPECTED: &str = "a name of one line that no other entry has";
        let unnamed = format!("#{number}");
        let Some((node, field)) = section.get("name") else {
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

    fn entry(&mut self, section: &Section, name: Arc<str>, defaults: &How) -> Entry {
        let mut filter = self.filter(section);
        let existing = self.truth(section, "existing");
        if !section.has("type") {
            if existing {
                filter.types.none.push("*".to_owned());
            } else {
                let mistake = Mistake::new("the field is missing", TYPES);
                self.wrong(section.node, &section.field("type"), mistake);
            }
        }
        self.check_labels(section, &filter.labels);
        self.check_matches(section, &filter, existing);
        let lasting = self.lasting(section, &filter.types);
        if !section.has("command") && !section.has("log") {
            let mistake = Mistake::new(
                "it neither runs nor logs anything",
                "a `command`, a `log` or both",
            );
            self.wrong(section.node, &section.label, mistake);
        }
        self.check_command(section);
        let mut text = |name: &str, expected| {
            let (node, field) = section.get(name)?;
            self.text(node, &field, expected).map(Arc::from)
        };
        let command = text("command", "a command for the shell");
        let log = text("log", "a text to log");
        let how = self.how_of_entry(section, defaults);
        Entry {
            name,
            filter,
            not: self.not(section),
            lasting,
            existing,
            once: self.once(section),
            command,
            log,
            queueing: how.queueing(),
            running: how.running,
        }
    }

    /// `for`, which is about engines that are down and up again.
    fn lasting(&mut self, section: &Section, types: &Patterns) -> Duration {
        let lasting = self.duration(section, "for", Duration::ZERO);
        let is_known = !types.any.is_empty() || !types.none.is_empty();
        if let Some((node, field)) = section.get("for")
            && is_known
            && !["engine/down", "engine/up"]
                .iter()
                .any(|word| may_be(types, word))
        {
            let problem = "only `engine/down` and `engine/up` last";
            let mistake = Mistake::new(problem, "one of them as a `type`, or no `for`");
            self.wrong(node, &field, mistake);
        }
        lasting.unwrap_or_default()
    }

    fn once(&mut self, section: &Section) -> bool {
        let once = self.truth(section, "once");
        if let Some((node, field)) = section.get("once")
            && once
        {
            let problem = "the agents of a cluster agree by the cache, which is off";
            let mistake = Mistake::new(problem, "a `--cache`, or no `once`");
            let error = self.error(node, &field, mistake);
            self.contents.without_cache.push(error);
            if !section.has("command") {
                self.warn(node, &field, NO_COMMAND.to_owned());
            }
        }
        once
    }

    /// The labels that are asked for are variables of the command.
    fn check_labels(&mut self, section: &Section, labels: &Labels) {
        let Some((node, field)) = section.get("labels") else {
            return;
        };
        let mut seen: Vec<(&str, String)> = Vec::new();
        for (name, _) in &labels.labels {
            let variable = label_variable(name);
            let alike = seen.iter().find(|(_, other)| *other == variable);
            if let Some((other, _)) = alike
                && other != name
            {
                let problem = format!(
                    "`{}` and `{}` would share the variable `{}`",
                    super::cut(other),
                    super::cut(name),
                    super::cut(&variable)
                );
                let expected = "labels that differ by more than case, `_`, `.` and `-`";
                self.wrong(node, &field, Mistake::new(problem, expected));
            }
            seen.push((name, variable));
        }
    }

    /// What is about a command, where there is none.
    fn check_command(&mut self, section: &Section) {
        if section.has("command") || !section.has("log") {
            return;
        }
        for name in HOW {
            if let Some((node, field)) = section.get(name) {
                self.warn(node, &field, NO_COMMAND.to_owned());
            }
        }
    }
}
