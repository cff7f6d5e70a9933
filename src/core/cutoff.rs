//! What the store knows of the commands that run, one JSON object a line: should the agent crash, its successor reads there what was cut off.
//!
//! It is written with every transaction, so it is short, and whoever reads the store may read it: of an event's attributes it has Docker's own, none of
//! the labels that moby copies among them.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::input;
use crate::docker::wire;
use crate::model::Event;

/// Attributes that Docker itself gives events.
const ATTRIBUTES: [&str; 9] = [
    "name",
    "image",
    "exitCode",
    "execDuration",
    "signal",
    "oldName",
    "container",
    "type",
    "reason",
];

/// A command that runs, or ran when the last agent wrote last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// Its entry's name.
    pub entry: Arc<str>,
    /// Its run's id.
    pub run: String,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// How many events it stood for.
    pub count: u64,
    /// The container's name, else the object's id.
    pub subject: String,
    /// The event was found by a resync or told only after an outage.
    pub inferred: bool,
    /// With `once`: what all agents call it. Before an engine has said who it is, a successor could not tell.
    pub once: Option<u128>,
    /// The event, without the labels among its attributes.
    pub event: Arc<Event>,
}

#[derive(Serialize)]
struct Written<'a> {
    entry: &'a str,
    run: &'a str,
    attempt: u32,
    count: u64,
    subject: &'a str,
    inferred: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    once: Option<u128>,
    #[serde(serialize_with = "input::event")]
    event: &'a Event,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    entry: Cow<'a, str>,
    run: String,
    attempt: u32,
    count: u64,
    subject: String,
    inferred: bool,
    once: Option<u128>,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// These commands, a line each.
pub fn write(commands: impl Iterator<Item = Command>) -> String {
    let line = |command: Command| {
        let event = &*command.event;
        let attributes = event.attributes.iter();
        let own = attributes.filter(|(name, _)| ATTRIBUTES.contains(name));
        let event = Event {
            kind: event.kind.clone(),
            action: event.action.clone(),
            id: event.id.clone(),
            attributes: own.collect(),
            ..*event
        };
        serde_json::to_string(&Written {
            entry: &command.entry,
            run: &command.run,
            attempt: command.attempt,
            count: command.count,
            subject: &command.subject,
            inferred: command.inferred,
            once: command.once,
            event: &event,
        })
        .ok()
    };
    let lines: Vec<String> = commands.filter_map(line).collect();
    lines.join("\n")
}

/// The commands of such a text. A line that another version of the agent wrote otherwise says nothing.
pub fn read(text: &str) -> impl Iterator<Item = Command> {
    text.lines().filter_map(|line| {
        let read: Read = serde_json::from_str(line).ok()?;
        let event = wire::event(read.event.get().as_bytes()).ok()??;
        Some(Command {
            entry: (*read.entry).into(),
            run: read.run,
            attempt: read.attempt,
            count: read.count,
            subject: read.subject,
            inferred: read.inferred,
            once: read.once,
            event: event.into(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_without_labels() {
        let event = |labels: &[(&str, &str)]| {
            let own = [("image", "ubuntu"), ("name", "web\t1\n")];
            let all = own.iter().chain(labels);
            Event {
                kind: "container".into(),
                action: "health_status: unhealthy".into(),
                id: "c1".into(),
                attributes: all.copied().collect(),
                time_ns: 5_000_000_007,
                ..Event::default()
            }
        };
        let command = |event: Event| Command {
            entry: "greet".into(),
            run: "1a2b3c4d-7".into(),
            attempt: 2,
            count: 3,
            subject: "web \"1\"\n".into(),
            inferred: true,
            once: None,
            event: event.into(),
        };
        let text = write([command(event(&[("token", "hush")])), command(event(&[]))].into_iter());
        assert!(!text.contains("hush"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"entry":"greet","run":"1a2b3c4d-7","attempt":2,"count":3,"subject":"web \"1\"\n","inferred":true,"event":{"Type":"container","Action":"health_status: unhealthy","Actor":{"ID":"c1","Attributes":{"image":"ubuntu","name":"web\t1\n"}},"scope":"local","time":5,"timeNano":5000000007}}"#
        );
        let found: Vec<Command> = read(&format!("{text}\nslow\tstart\tfirst\n\n{{}}\n")).collect();
        assert_eq!(found, [command(event(&[])), command(event(&[]))]);
        let once = Command {
            once: Some(u128::MAX - 1),
            ..command(event(&[]))
        };
        let text = write([once.clone()].into_iter());
        assert_eq!(read(&text).collect::<Vec<Command>>(), [once]);
        assert_eq!(write([].into_iter()), "");
    }
}
