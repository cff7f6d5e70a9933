//! Effects as lines of a case.

use super::cases::stamp;
use crate::core::{Effect, Level, Since, StoreRequest};
use crate::model::{ContainerId, EngineIndex};
use crate::store::{Claim, Happening, HostBatch, Notice, OnceWish};

/// Fields of a host that a case shows.
const FIELDS: [&str; 4] = ["containers_running", "status", "gaps", "drift"];

/// What an effect looks like; heartbeats, the status line and the quiet part of the log say nothing.
pub fn words(effect: &Effect) -> Vec<String> {
    vec![match effect {
        Effect::Watch { index, engine } => format!("watch {} at {}", name(*index), engine.url),
        Effect::Unwatch { index } => format!("watch {} no more", name(*index)),
        Effect::Reloaded => return Vec::new(),
        Effect::Connect { engine, since, .. } => {
            let since = match since {
                Since::Now => "now".to_owned(),
                Since::At { oldest_ns, .. } => stamp(*oldest_ns),
            };
            format!("connect {} since {since}", name(*engine))
        }
        Effect::List { engine, .. } => format!("list {}", name(*engine)),
        Effect::Inspect {
            engine,
            inspections,
            check_filters,
            ..
        } => {
            let ids: Vec<_> = inspections.iter().map(|one| one.id.clone()).collect();
            let filters = if *check_filters {
                " and its filters"
            } else {
                ""
            };
            format!("inspect {}/{}{filters}", name(*engine), list(&ids))
        }
        Effect::Store(request) => return store(request),
        Effect::Run(job) => {
            let inferred = job
                .environment
                .iter()
                .any(|(name, value)| name == "EVENT_INFERRED" && value == "1");
            let inferred = if inferred { ", inferred" } else { "" };
            let tries = match job.attempt {
                1 => String::new(),
                attempt => format!(", attempt {attempt}"),
            };
            let count = job.environment.iter();
            let count = count.filter(|(name, value)| name == "EVENT_COUNT" && value != "1");
            let count: String = count.map(|(_, n)| format!(", for {n} events")).collect();
            let input = String::from_utf8_lossy(&job.input);
            let mut variables = job.environment.iter();
            let of_none = variables.any(|(name, id)| name == "FROM_CONTAINER_ID" && id.is_empty());
            let document = match input.contains(r#""container":null"#) {
                true if of_none => "",
                true => ", of nothing that is known",
                false if input.contains(r#""container_gone":true"#) => ", of what is gone",
                false => "",
            };
            format!(
                "run #{} {}: {} of {}/{}{count}{inferred}{document}{tries}",
                job.id, job.entry.name, job.word, job.engine, job.subject
            )
        }
        Effect::EndRun(id) => format!("end #{id}"),
        Effect::CancelRuns => "cancel all commands".to_owned(),
        Effect::Log(Level::Debug, _) | Effect::Status(_) => return Vec::new(),
        Effect::Log(level, text) => format!("{}: {text}", format!("{level:?}").to_lowercase()),
        Effect::Stopped => "stopped".to_owned(),
    }]
}

fn store(request: &StoreRequest) -> Vec<String> {
    let claims = |claims: &[Claim]| {
        let names: Vec<String> = claims.iter().map(|claim| name(claim.host)).collect();
        names.join(" ")
    };
    vec![match request {
        StoreRequest::Open => "store: open".to_owned(),
        StoreRequest::Take(hosts) => format!("store: take {}", claims(hosts)),
        StoreRequest::Beat(_) | StoreRequest::Sweep => return Vec::new(),
        StoreRequest::Apply(batch) => return batch.hosts.iter().map(share).collect(),
        StoreRequest::Audit(host) => format!("store: audit {}", name(*host)),
        StoreRequest::Bury(hosts) => format!("store: bury {}", hosts.join(" ")),
        StoreRequest::Once(asks) => {
            let words = asks.iter().map(|ask| match ask.wish {
                OnceWish::Lease => format!("lease {}", ask.run),
                OnceWish::Done => format!("done {}", ask.run),
            });
            format!("store: once {}", words.collect::<Vec<_>>().join(", "))
        }
        StoreRequest::Release(hosts) => {
            let names: Vec<String> = hosts.iter().map(|host| name(*host)).collect();
            format!("store: release {}", names.join(" "))
        }
    }]
}

fn share(share: &HostBatch) -> String {
    let mut parts = Vec::new();
    let mut say = |part: String| parts.push(part);
    if !share.names_left.is_empty() {
        say(format!("names left {}", share.names_left.join(" ")));
    }
    for gone in &share.drops {
        say(format!("drop {}", gone.id));
    }
    for put in &share.puts {
        let summary = &put.document.summary;
        let name = match *summary.name == *put.id.0 {
            true => String::new(),
            false => format!(" named {}", summary.name),
        };
        let stopped = if summary.running { "" } else { " stopped" };
        let image = put.image_left.as_ref();
        let left = image.map_or(String::new(), |image| format!(" leaving {image}"));
        say(format!("put {}{name}{stopped}{left}", put.id));
    }
    if !share.images_left.is_empty() {
        say(format!("images left {}", share.images_left.join(" ")));
    }
    if !share.touches.is_empty() {
        say(format!("touch {}", list(&share.touches)));
    }
    if !share.reassert.is_empty() {
        let ids: Vec<ContainerId> = share.reassert.iter().map(|(id, _)| id.clone()).collect();
        say(format!("reassert {}", list(&ids)));
    }
    for (name, value) in share
        .fields
        .iter()
        .filter(|(name, _)| FIELDS.contains(name))
    {
        say(format!("{name}={value}"));
    }
    if !share.fields_left.is_empty() {
        say(format!("fields left {}", share.fields_left.join(" ")));
    }
    for (set, word) in [
        (share.stamp, "stamp"),
        (share.renew, "renew"),
        (share.renew_shared, "renew shared sets"),
        (share.forget, "forget the host"),
    ] {
        if set {
            say(word.to_owned());
        }
    }
    if let Some(ns) = share.resume_ns {
        say(format!("resume at {}", stamp(ns)));
    }
    for happening in &share.happened {
        say(match happening {
            Happening::Event { event, inferred } => {
                let inferred = if *inferred { " (inferred)" } else { "" };
                format!("happened {} {}{inferred}", event.word(), event.id)
            }
            Happening::Gap { dropped, .. } => format!("happened a gap of {dropped}"),
            Happening::Run(run) => {
                let number = run.run.rsplit('-').next().unwrap_or_default();
                match &run.end {
                    None => format!("happened run #{number} started"),
                    Some(end) => format!("happened run #{number} {}", end.exit),
                }
            }
        });
    }
    for notice in &share.notices {
        say(match notice {
            Notice::NewHost => "say new_host".to_owned(),
            Notice::NewContainer(id) => format!("say new_container {id}"),
            Notice::UpdateContainer(id) => format!("say update_container {id}"),
            Notice::DeleteContainer(id) => format!("say delete_container {id}"),
            Notice::RefreshContainers => "say refresh_containers".to_owned(),
            Notice::HostDown => "say host_down".to_owned(),
            Notice::HostUp => "say host_up".to_owned(),
            Notice::ExpiredHost => "say expired_host".to_owned(),
        });
    }
    format!("write {}: {}", name(share.host), parts.join("; "))
}

/// Engines of a case are called a, b, c.
fn name(engine: EngineIndex) -> String {
    char::from(b'a' + engine.0 as u8).to_string()
}

fn list(ids: &[ContainerId]) -> String {
    let mut ids: Vec<&str> = ids.iter().map(ContainerId::as_str).collect();
    ids.sort_unstable();
    ids.join(",")
}
