//! The fake's containers: their state, and what list and inspect say of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::http::rfc3339;

/// An inspect of a real engine; names between `@` stand for what differs from container to container.
const INSPECT: &str = include_str!("inspect.json");

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Its name, without a slash.
    pub name: String,
    /// The image as it was asked for; `busybox:latest` when empty.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// It has a health check: parts of its inspect then change all the time.
    pub health_check: bool,
    /// It is removed when it dies.
    pub auto_remove: bool,
}

impl Spec {
    /// A container of this name and nothing special.
    pub fn named(name: &str) -> Spec {
        Spec {
            name: name.into(),
            ..Spec::default()
        }
    }

    /// With an image.
    pub fn image(mut self, image: &str) -> Spec {
        self.image = image.into();
        self
    }

    /// With a label.
    pub fn label(mut self, key: &str, value: &str) -> Spec {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Spec {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// With a health check.
    pub fn health_check(mut self) -> Spec {
        self.health_check = true;
        self
    }

    /// To be removed when it dies.
    pub fn auto_remove(mut self) -> Spec {
        self.auto_remove = true;
        self
    }
}

/// Docker's `State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Runs.
    Running,
    /// Runs, frozen.
    Paused,
    /// Between two runs.
    Restarting,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl Status {
    /// Docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    /// Does a container in this state stand in Docker's default list?
    pub fn is_running(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Restarting)
    }
}

/// A container.
#[derive(Clone, Debug)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// What it was created as; `name` changes when it is renamed.
    pub spec: Spec,
    /// What it does.
    pub status: Status,
    /// `healthy`, `unhealthy`, `starting`; empty without a check.
    pub health: String,
    /// `State.ExitCode`.
    pub exit_code: i64,
    /// The kernel killed something in it.
    pub oom: bool,
    /// `HostConfig.Memory`.
    pub memory: u64,
    /// Names of its networks.
    pub networks: Vec<String>,
    created_ns: i64,
    started_ns: i64,
    finished_ns: i64,
    restarts: u32,
    /// Distinguishes addresses, ports and processes.
    number: u64,
}

impl Container {
    /// A new one, not started.
    pub fn new(mut spec: Spec, number: u64, now_ns: i64) -> Container {
        if spec.image.is_empty() {
            spec.image = "busybox:latest".into();
        }
        Container {
            id: new_id(),
            health: if spec.health_check { "starting" } else { "" }.into(),
            spec,
            status: Status::Created,
            exit_code: 0,
            oom: false,
            memory: 0,
            networks: vec!["bridge".into()],
            created_ns: now_ns,
            started_ns: 0,
            finished_ns: 0,
            restarts: 0,
            number,
        }
    }

    /// It runs from now on.
    pub fn begin(&mut self, now_ns: i64) {
        if self.started_ns > 0 {
            self.restarts += 1;
        }
        self.status = Status::Running;
        self.started_ns = now_ns;
        self.exit_code = 0;
        self.oom = false;
    }

    /// It ran until now.
    pub fn end(&mut self, exit_code: i64, now_ns: i64) {
        self.status = Status::Exited;
        self.finished_ns = now_ns;
        self.exit_code = exit_code;
    }

    /// The attributes that each of its events has: image and name, and its labels *over* them, as moby does it. `extra` goes below the labels too.
    pub fn attributes(&self, extra: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> = extra
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        all.insert("image".into(), self.spec.image.clone());
        all.insert("name".into(), self.spec.name.clone());
        all.extend(self.spec.labels.clone());
        all.into_iter().collect()
    }

    /// Do Docker's list filters let it through? `Err` names a filter that Docker does not know.
    pub fn passes(&self, filters: &BTreeMap<String, Vec<String>>) -> Result<bool, String> {
        for (key, values) in filters {
            let passes = match key.as_str() {
                "id" => values.iter().any(|value| self.id.starts_with(value)),
                "name" => values.iter().any(|value| {
                    self.spec
                        .name
                        .contains(value.trim_start_matches(['^', '/']))
                }),
                "status" => values.iter().any(|value| self.status.word() == value),
                "health" => values.contains(&self.health),
                "label" => values.iter().all(|value| match value.split_once('=') {
                    Some((label, wanted)) => {
                        self.spec.labels.get(label).map(String::as_str) == Some(wanted)
                    }
                    None => self.spec.labels.contains_key(value),
                }),
                _ => return Err(format!("invalid filter '{key}'")),
            };
            if !passes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Its row in a list.
    pub fn row(&self) -> Value {
        json!({
            "Id": self.id,
            "Names": [format!("/{}", self.spec.name)],
            "Image": self.spec.image,
            "ImageID": format!("sha256:{}", image_id(&self.spec.image)),
            "Command": "sh -c 'exec serve'",
            "Created": self.created_ns / 1_000_000_000,
            "Ports": [],
            "Labels": self.spec.labels,
            "State": self.status.word(),
            "Status": self.status.word(),
            "HostConfig": { "NetworkMode": "default" },
            "NetworkSettings": { "Networks": self.networks() },
            "Mounts": [],
        })
    }

    /// The answer to an inspect. `now_ns` shows in the parts that change without an event when there is a health check.
    pub fn inspect(&self, now_ns: i64) -> String {
        let mut out = String::with_capacity(INSPECT.len() + 1024);
        for (place, piece) in INSPECT.trim_end().split('@').enumerate() {
            if place % 2 == 0 {
                out.push_str(piece);
            } else {
                out.push_str(&self.value(piece, now_ns));
            }
        }
        out
    }

    fn value(&self, name: &str, now_ns: i64) -> String {
        let running = self.status.is_running();
        match name {
            "id" => self.id.clone(),
            "short" => self.id[..12].into(),
            "created" => rfc3339(self.created_ns),
            "status" => json!(self.status.word()).to_string(),
            "running" => running.to_string(),
            "paused" => (self.status == Status::Paused).to_string(),
            "restarting" => (self.status == Status::Restarting).to_string(),
            "oom" => self.oom.to_string(),
            "dead" => (self.status == Status::Dead).to_string(),
            "pid" if running => (20_000 + self.number).to_string(),
            "pid" => "0".into(),
            "exit_code" => self.exit_code.to_string(),
            "started" => stamp(self.started_ns),
            "finished" => stamp(self.finished_ns),
            "health" if self.health.is_empty() => String::new(),
            "health" => format!(
                r#","Health":{{"Status":"{}","FailingStreak":0,"Log":[{{"Start":"{now}","End":"{now}","ExitCode":0,"Output":""}}]}}"#,
                self.health,
                now = rfc3339(now_ns)
            ),
            // A check that runs just now stands here; whether one does is chance.
            "exec_ids" if !self.health.is_empty() && now_ns % 2 == 0 => {
                json!([format!("{now_ns:064x}")]).to_string()
            }
            "exec_ids" => "null".into(),
            "image_id" => image_id(&self.spec.image),
            "name" => json!(format!("/{}", self.spec.name)).to_string(),
            "restarts" => self.restarts.to_string(),
            "port" => self.port().to_string(),
            "auto_remove" => self.spec.auto_remove.to_string(),
            "memory" => self.memory.to_string(),
            "env" => {
                let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
                let mut all = self.spec.env.clone();
                all.push(path.into());
                json!(all).to_string()
            }
            "image" => json!(self.spec.image).to_string(),
            "labels" => json!(self.spec.labels).to_string(),
            "ports" if running => json!({
                "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": self.port().to_string() }]
            })
            .to_string(),
            "ports" => "{}".into(),
            "gateway" if self.address().is_empty() => String::new(),
            "gateway" => "172.17.0.1".into(),
            "address" => self.address(),
            "networks" => self.networks().to_string(),
            other => unreachable!("inspect.json names `{other}`, which nobody knows"),
        }
    }

    fn port(&self) -> u64 {
        32_768 + self.number % 28_000
    }

    /// Its address on the bridge; none while it does not run.
    fn address(&self) -> String {
        if !self.status.is_running() || !self.networks.iter().any(|name| name == "bridge") {
            return String::new();
        }
        format!(
            "172.17.{}.{}",
            self.number / 250 % 256,
            2 + self.number % 250
        )
    }

    fn networks(&self) -> Value {
        let each = self.networks.iter().map(|name| {
            let address = match (name.as_str(), self.status.is_running()) {
                (_, false) => String::new(),
                ("bridge", _) => self.address(),
                _ => format!("10.0.{}.{}", self.number / 250 % 256, 2 + self.number % 250),
            };
            let network = json!({
                "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": image_id(name),
                "EndpointID": "", "Gateway": "", "IPAddress": address, "IPPrefixLen": 16,
                "MacAddress": "", "DriverOpts": null,
            });
            (name.clone(), network)
        });
        Value::Object(each.collect())
    }
}

/// A time, or Go's zero time.
fn stamp(ns: i64) -> String {
    if ns == 0 {
        "0001-01-01T00:00:00Z".into()
    } else {
        rfc3339(ns)
    }
}

/// 64 hex digits that no other engine of this or another process gives.
pub fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let seed = clock ^ (u64::from(std::process::id()) << 40) ^ count.rotate_left(20);
    hex(seed)
}

/// A fixed digest of an image's or a network's name, 64 hex digits.
pub fn image_id(name: &str) -> String {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hex(seed)
}

/// Spreads a number over 64 hex digits (splitmix64, four rounds).
fn hex(mut seed: u64) -> String {
    let mut out = String::with_capacity(64);
    for _ in 0..4 {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.push_str(&format!("{:016x}", mixed ^ (mixed >> 31)));
    }
    out
}
