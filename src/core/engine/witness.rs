//! What two inspects of a container prove: where it changed in a way that the engine tells by an event, and no such event came, one was lost.

use super::Engine;
use crate::model::{ContainerId, Event, Fields, Scope, Summary};

/// What of a container changes with an event alone. Docker tells nothing of the networks of one that does not run.
const ASPECTS: usize = 4;
const NAME: usize = 0;
const PAUSED: usize = 1;
const HEALTH: usize = 2;
const NETWORKS: usize = 3;

/// When a container was heard of, and looked at.
#[derive(Default, Debug)]
pub(super) struct Witness {
    /// The revision of the last event that told of each aspect.
    heard: [u64; ASPECTS],
    /// The revision when the last inspect was asked for, once there was one.
    looked: Option<u64>,
    /// What an inspect found changed, and no event has told yet: how the container was before, and the revision of that.
    before: Option<Box<(Summary, u64)>>,
}

impl Witness {
    /// An event of the container was told.
    pub(super) fn heard(&mut self, event: &Event, revision: u64) {
        let aspects: &[usize] = match (&*event.kind, event.verb()) {
            ("container", "rename") => &[NAME],
            ("container", "pause" | "unpause") => &[PAUSED],
            ("container", "health_status") => &[HEALTH],
            ("container", "start" | "die") => &[PAUSED, HEALTH, NETWORKS],
            ("network", _) => &[NETWORKS],
            _ => &[],
        };
        for aspect in aspects {
            self.heard[*aspect] = revision;
        }
    }

    /// An inspect found this, where the last one had found that. `true`: an event may be lost.
    pub(super) fn looked(&mut self, asked: u64, then: Option<&Summary>, now: &Summary) -> bool {
        if let (Some(looked), Some(then), None) = (self.looked, then, &self.before)
            && !self.untold(then, looked, now).is_empty()
        {
            self.before = Some(Box::new((then.clone(), looked)));
        }
        self.looked = Some(asked);
        self.waits()
    }

    /// Is there a change that no event has told yet?
    pub(super) fn waits(&self) -> bool {
        self.before.is_some()
    }

    /// The moment is over in which events might still have come: those that did not.
    pub(super) fn lost(&mut self, now: &Summary) -> Vec<Change> {
        let before = self.before.take();
        before.map_or_else(Vec::new, |before| self.untold(&before.0, before.1, now))
    }

    fn untold(&self, then: &Summary, looked: u64, now: &Summary) -> Vec<Change> {
        let silent = |aspect: usize| self.heard[aspect] <= looked;
        let mut changes = Vec::new();
        if silent(NAME) && then.name != now.name {
            let old = ("oldName", format!("/{}", then.name));
            changes.push(Change::new("rename", vec![old]));
        }
        // Another run, or none: that is told by other events.
        if !then.running || !now.running || then.started_at != now.started_at {
            return changes;
        }
        if silent(PAUSED) && then.paused != now.paused {
            let action = if now.paused { "pause" } else { "unpause" };
            changes.push(Change::new(action, Vec::new()));
        }
        if silent(HEALTH) && then.health != now.health {
            // What it is before its first check, no event tells.
            let action = match &*now.health {
                "healthy" => Some("health_status: healthy"),
                "unhealthy" => Some("health_status: unhealthy"),
                _ => None,
            };
            changes.extend(action.map(|action| Change::new(action, Vec::new())));
        }
        if silent(NETWORKS) {
            for (action, these, those) in [
                ("disconnect", &then.networks, &now.networks),
                ("connect", &now.networks, &then.networks),
            ] {
                let only = these.iter().filter(|network| !those.contains(network));
                changes.extend(only.map(|(name, id)| Change {
                    network: Some(id.clone()),
                    ..Change::new(action, vec![("name", name.to_string())])
                }));
            }
        }
        changes
    }
}

/// An event that was lost.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) action: &'static str,
    /// Attributes of its own.
    attributes: Vec<(&'static str, String)>,
    /// It is the event of this network.
    network: Option<Box<str>>,
}

impl Change {
    pub(super) fn new(action: &'static str, attributes: Vec<(&'static str, String)>) -> Self {
        Change {
            action,
            attributes,
            network: None,
        }
    }

    /// The event, made up of what is known of its container.
    pub(super) fn event(self, id: &ContainerId, facts: &Summary, time_ns: i64) -> Event {
        let mut attributes = Fields::default();
        match self.network {
            Some(_) => attributes.push("container", id.as_str()),
            None => {
                attributes.push("image", &facts.image);
                attributes.push("name", &facts.name);
            }
        }
        for (name, value) in &self.attributes {
            attributes.push(name, value);
        }
        Event {
            kind: if self.network.is_some() {
                "network"
            } else {
                "container"
            }
            .into(),
            action: self.action.into(),
            id: self.network.unwrap_or_else(|| id.as_str().into()),
            attributes,
            time_ns,
            scope: Scope::MadeUp,
        }
    }
}

impl Engine {
    /// Podman's events of networks name their container as their object.
    pub(super) fn about(&self, event: &Event) -> Option<ContainerId> {
        let known = || {
            let container = (&*event.kind == "network").then_some(&*event.id);
            container.filter(|id| self.containers.contains_key(*id))
        };
        event.container().or_else(known).map(ContainerId::from)
    }
}
