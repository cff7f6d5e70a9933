//! The words that engines use in their events, so that a misspelt `type` is noticed.

use super::nearest::nearest;

/// What happens to containers; Docker's own words (moby, `api/types/events`), then what Podman says beside or instead.
const CONTAINER: &[&str] = &[
    "archive-path",
    "attach",
    "checkpoint",
    "commit",
    "copy",
    "create",
    "destroy",
    "detach",
    "die",
    "exec_create",
    "exec_detach",
    "exec_die",
    "exec_start",
    "export",
    "extract-to-dir",
    "health_status",
    "kill",
    "oom",
    "pause",
    "prune",
    "rename",
    "resize",
    "restart",
    "start",
    "stop",
    "top",
    "unpause",
    "update",
    "cleanup",
    "died",
    "exec",
    "exec_died",
    "init",
    "mount",
    "remove",
    "restore",
    "sync",
    "unmount",
];

/// What happens to everything else.
const OTHERS: &[(&str, &[&str])] = &[
    ("builder", &["prune"]),
    ("config", &["create", "remove", "update"]),
    ("daemon", &["reload"]),
    // Our own.
    ("engine", &["down", "gap", "up"]),
    (
        "image",
        &[
            "build", "create", "delete", "import", "load", "mount", "prune", "pull", "push",
            "remove", "save", "tag", "unmount", "untag",
        ],
    ),
    (
        "network",
        &[
            "connect",
            "create",
            "destroy",
            "disconnect",
            "prune",
            "remove",
            "update",
        ],
    ),
    ("node", &["create", "remove", "update"]),
    (
        "plugin",
        &[
            "create", "disable", "enable", "install", "remove", "upgrade",
        ],
    ),
    (
        "pod",
        &[
            "create", "exit", "kill", "pause", "prune", "remove", "start", "stop", "unpause",
        ],
    ),
    ("secret", &["create", "remove", "update"]),
    ("service", &["create", "remove", "update"]),
    (
        "volume",
        &["create", "destroy", "mount", "prune", "remove", "unmount"],
    ),
];

/// What a health check can say.
const HEALTH: &[&str] = &["starting", "healthy", "unhealthy", "running"];

/// If no engine ever sends this word (lower case, not a pattern): what was probably meant, if that can be told.
pub fn unknown(word: &str) -> Option<Option<String>> {
    let is_known = match (word.split_once('/'), word.split_once(": ")) {
        (Some((kind, action)), _) => OTHERS
            .iter()
            .any(|(known, actions)| *known == kind && actions.contains(&action)),
        (None, Some(("health_status", state))) => HEALTH.contains(&state),
        (None, _) => CONTAINER.contains(&word),
    };
    if is_known {
        return None;
    }
    // What EVENT_TYPE says then.
    if word == "existing" {
        return Some(Some("existing: true".to_owned()));
    }
    let others: Vec<String> = OTHERS
        .iter()
        .flat_map(|(kind, actions)| actions.iter().map(move |action| format!("{kind}/{action}")))
        .chain(HEALTH.iter().map(|state| format!("health_status: {state}")))
        .collect();
    let all = CONTAINER
        .iter()
        .copied()
        .chain(others.iter().map(String::as_str));
    Some(nearest(word, all).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_words() {
        for word in [
            "die",
            "network/connect",
            "health_status",
            "health_status: unhealthy",
            "died",
            "engine/gap",
        ] {
            assert_eq!(unknown(word), None, "{word}");
        }
        for (word, meant) in [
            ("strat", Some("start")),
            ("destory", Some("destroy")),
            ("network/conect", Some("network/connect")),
            ("health_status: unhelthy", Some("health_status: unhealthy")),
            ("tcp_disconnect", None),
            ("die: now", None),
            ("start/die", None),
            ("engine/dwon", Some("engine/down")),
            ("existing", Some("existing: true")),
        ] {
            assert_eq!(unknown(word), Some(meant.map(str::to_owned)), "{word}");
        }
    }
}
