//! The values of options, each from its text.

use super::nearest::nearest;
use super::{LogFormat, Mistake, glob, is_name};

/// What a host id and a prefix look like.
pub const NAME: &str = "letters, digits, `_`, `.` and `-`, a letter or digit first, 128 at most";

/// A host id or a prefix.
pub fn name(text: &str, what: &str) -> Result<String, Mistake> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(Mistake::new(
            format!("`{}` is no {what}", super::cut(text)),
            NAME,
        )),
    }
}

/// A number within these bounds.
pub fn number(text: &str, least: u64, most: u64) -> Result<u64, Mistake> {
    match text.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) && !text.starts_with('+') => Ok(number),
        _ => Err(Mistake::new(
            format!("found `{}`", super::cut(text)),
            format!("a number from {least} to {most}"),
        )),
    }
}

/// A truth value, as Go's flags and shells write it.
pub fn truth(text: &str) -> Result<bool, Mistake> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Mistake::new(
            format!("found `{}`", super::cut(text)),
            "`true` or `false`",
        )),
    }
}

/// The form of the log.
pub fn log_format(text: &str) -> Result<LogFormat, Mistake> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Mistake::new(
            format!("found `{}`", super::cut(text)),
            "`text` or `json`",
        )),
    }
}

/// Patterns of names whose values are masked.
pub fn redact(text: &str) -> Result<Vec<String>, Mistake> {
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

/// A filter of the list of containers, key and value.
pub fn filter(text: &str) -> Result<(String, String), Mistake> {
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
pub fn password(content: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(content).ok()?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Some(line.to_owned()).filter(|password| !password.is_empty())
}
