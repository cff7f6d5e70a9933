//! What a command is told by its environment; `input` is what it finds on its standard input.

use std::borrow::Cow;

use super::input::Input;
use super::rules::Subject;
use crate::model::{Entry, engine_variable, label_variable};

/// The kernel takes no variable that is longer than 128 kB in all (`MAX_ARG_STRLEN`); a label may be.
const VARIABLE_LIMIT: usize = 128 << 10;

/// Nor an environment of more than some MB; the labels of a command get so much of it.
const LABELS_LIMIT: usize = 1 << 20;

/// The variables of every command. `engines` are the names and URLs of the cluster.
pub fn variables<'a>(
    engines: impl Iterator<Item = (&'a str, &'a str)>,
    subject: &Subject,
    input: &Input,
    exit_code: &str,
) -> Vec<(Cow<'static, str>, String)> {
    let event = input.event;
    let mut variables: Vec<(Cow<'static, str>, String)> = engines
        .map(|(name, url)| (engine_variable(name).into(), url.to_owned()))
        .collect();
    let mut set = |name: &'static str, value: &str| variables.push((name.into(), value.into()));
    set("FROM_ENGINE", input.engine.name);
    set(
        "FROM_CONTAINER",
        subject.container.known().unwrap_or_default(),
    );
    set("FROM_CONTAINER_ID", event.container().unwrap_or_default());
    set("FROM_IMAGE", subject.image.known().unwrap_or_default());
    set("EVENT_TYPE", &event.word());
    set("EVENT_ACTION", &event.action);
    set("EVENT_TIME", &event.time_ns.to_string());
    set("EVENT_ID", &event.id);
    set("EVENT_EXIT_CODE", exit_code);
    set("EVENT_INFERRED", if input.inferred { "1" } else { "" });
    set("EVENT_COUNT", &input.count.to_string());
    set("EVENT_ATTEMPT", &input.attempt.to_string());
    set("EVENT_RUN", input.run);
    variables
}

/// The variables for the labels that the entry lists, empty for those that the container lacks; and of those that no variable can hold, what is to be
/// said.
pub fn labels(entry: &Entry, subject: &Subject) -> (Vec<(Cow<'static, str>, String)>, Vec<String>) {
    let (mut variables, mut unfit) = (Vec::new(), Vec::new());
    let mut left = LABELS_LIMIT;
    for (name, _) in &entry.filter.labels.labels {
        let value = subject.label(name).known().unwrap_or_default();
        let variable = label_variable(name);
        // `NAME=value` and a NUL.
        let length = variable.len() + value.len() + 2;
        let fits = length <= left.min(VARIABLE_LIMIT) && !value.contains('\0');
        if fits {
            left -= length;
        } else {
            unfit.push(format!(
                "label `{name}` does not fit into a variable; `{variable}` is empty, the standard input has it"
            ));
        }
        let value = if fits { value } else { "" };
        variables.push((variable.into(), value.to_owned()));
    }
    (variables, unfit)
}
