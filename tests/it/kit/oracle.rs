//! What must be so after quiet: Redis equals `docker ps` of each engine, key for key, and nothing else stands under the prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::Connection;
use serde_json::Value;

use super::http::get;
use super::redis::{Redis, ask};
use super::wait_until;
use crate::engine::http::Place;

/// What one host is to hold.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its id in Redis.
    pub id: String,
    /// What `docker ps` shows there, full ids.
    pub running: BTreeSet<String>,
    /// With `--all`: what `docker ps -a` shows beyond that.
    pub stopped: BTreeSet<String>,
    /// `up`, unless the test wants it otherwise.
    pub status: String,
    /// Where to ask what the documents must say.
    pub engine: Option<Place>,
}

impl Host {
    /// A host that is up and has these containers.
    pub fn up(id: &str, running: BTreeSet<String>) -> Host {
        Host {
            id: id.into(),
            running,
            stopped: BTreeSet::new(),
            status: "up".into(),
            engine: None,
        }
    }

    /// Its documents say what this engine says now: without it, a rename that went unseen goes unseen here too.
    pub fn at(mut self, engine: &Place) -> Host {
        self.engine = Some(engine.clone());
        self
    }

    /// And these stopped ones (`--all`).
    pub fn stopped(mut self, stopped: BTreeSet<String>) -> Host {
        self.stopped = stopped;
        self
    }

    /// With another status: `down`, `lost`, `stopped`.
    pub fn status(mut self, status: &str) -> Host {
        self.status = status.into();
        self
    }

    fn all(&self) -> BTreeSet<String> {
        &self.running | &self.stopped
    }
}

/// Waits until all is as it must be; what is to be so is asked anew each time.
#[track_caller]
pub fn settle(redis: &Redis, prefix: &str, limit: Duration, hosts: impl Fn() -> Vec<Host>) {
    let what = format!("what stands under `{prefix}:` equals the engines");
    wait_until(limit, &what, || check(redis, prefix, &hosts()));
}

/// Is all as it must be? `Err` lists each difference on a line.
pub fn check(redis: &Redis, prefix: &str, hosts: &[Host]) -> Result<(), String> {
    let mut check = Check {
        redis: redis.connect(),
        prefix: prefix.into(),
        wrong: Vec::new(),
        explained: BTreeSet::new(),
        longest_ms: 0,
        images: BTreeMap::new(),
    };
    for host in hosts {
        check.host(host);
    }
    check.shared(hosts);
    check.nothing_else(redis.keys(&format!("{prefix}:")));
    if check.wrong.is_empty() {
        Ok(())
    } else {
        Err(check.wrong.join("\n"))
    }
}

/// Fields that the hash of a host which is up must have; an engine that never answered has told little.
const HOST_FIELDS: [&str; 12] = [
    "containers_running",
    "docker_version",
    "last_update",
    "update_interval",
    "status",
    "docker_url",
    "engine_id",
    "api_version",
    "os",
    "kernel",
    "architecture",
    "agent_version",
];

const DAY_MS: i64 = 86_400_000;

struct Check {
    redis: Connection,
    prefix: String,
    wrong: Vec<String>,
    /// Keys that were looked at: whatever else stands there is wrong.
    explained: BTreeSet<String>,
    /// The longest life that a shared key may have.
    longest_ms: i64,
    /// Image to (hosts, containers).
    images: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
}

impl Check {
    fn host(&mut self, host: &Host) {
        let key = self.key(&format!("hosts:{}", host.id));
        let hash: BTreeMap<String, String> = self.get("HGETALL", &key);
        for field in HOST_FIELDS.iter().filter(|_| host.status == "up") {
            self.expect(hash.contains_key(*field), || {
                format!("{key} has no field {field}")
            });
        }
        let field = |name: &str| hash.get(name).map_or("", String::as_str);
        let count = host.running.len().to_string();
        self.equal(
            &format!("{key} containers_running"),
            field("containers_running"),
            &*count,
        );
        self.equal(&format!("{key} status"), field("status"), &*host.status);
        let interval_ms = field("update_interval").parse::<f64>().unwrap_or(0.0) * 1000.0;
        self.expect(interval_ms > 0.0, || {
            format!("{key} update_interval is no number of seconds")
        });
        self.expect(field("last_update").parse::<u64>().is_ok(), || {
            format!("{key} last_update is no number of seconds")
        });
        let life_ms = 3 * interval_ms as i64;
        self.longest_ms = self.longest_ms.max(life_ms).max(DAY_MS);
        // It outlives the search for a dead agent.
        self.lives(&key, life_ms.max(30_000));

        self.set(
            &format!("hosts:{}:containers", host.id),
            &host.running,
            life_ms,
        );
        self.set(
            &format!("hosts:{}:stopped", host.id),
            &host.stopped,
            life_ms,
        );
        let (mut names, mut manifest) = (BTreeMap::new(), BTreeMap::new());
        for id in host.all() {
            let (name, image) = self.container(host, &id, life_ms);
            names.insert(name, id.clone());
            manifest.insert(id.clone(), image.clone());
            if host.running.contains(&id) {
                let (hosts, containers) = self.images.entry(image).or_default();
                hosts.insert(host.id.clone());
                containers.insert(id);
            }
        }
        self.hash(&format!("hosts:{}:names", host.id), &names, life_ms);
        self.hash(
            &format!("hosts:{}:manifest", host.id),
            &manifest,
            life_ms.max(DAY_MS),
        );
        if host.status == "up" || host.status == "down" {
            let lease = self.key(&format!("hosts:{}:lease", host.id));
            self.lives(&lease, 10_000);
        }
        let resume = self.key(&format!("hosts:{}:resume", host.id));
        if self.get::<bool>("EXISTS", &resume) {
            self.lives(&resume, DAY_MS);
        }
    }

    /// One container's two keys; answers its name, without a slash, and its image.
    fn container(&mut self, host: &Host, id: &str, life_ms: i64) -> (String, String) {
        let key = self.key(&format!("containers:{id}"));
        let hash: BTreeMap<String, String> = self.get("HGETALL", &key);
        let field = |name: &str| hash.get(name).map_or("", String::as_str);
        self.lives(&key, life_ms);
        self.equal(&format!("{key} host"), field("host"), &*host.id);
        self.equal(&format!("{key} id"), field("id"), id);
        let running = matches!(field("state_status"), "running" | "paused" | "restarting");
        let wanted = host.running.contains(id);
        self.expect(running == wanted, || {
            format!("{key} state_status is `{}`", field("state_status"))
        });

        let json_key = format!("{key}:json");
        let text: String = self
            .get::<Option<String>>("GET", &json_key)
            .unwrap_or_default();
        self.lives(&json_key, life_ms);
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        self.equal(
            &format!("{json_key} Id"),
            json["Id"].as_str().unwrap_or(""),
            id,
        );
        for (path, name) in [
            ("/Name", "name"),
            ("/Config/Image", "config_image"),
            ("/State/Status", "state_status"),
            ("/State/StartedAt", "state_startedat"),
        ] {
            let said = json.pointer(path).and_then(Value::as_str).unwrap_or("");
            self.equal(&format!("{key} {name} and its JSON"), field(name), said);
        }
        for volatile in ["state_health_log", "execids"] {
            self.expect(!hash.contains_key(volatile), || {
                format!("{key} has a field {volatile}")
            });
        }
        self.expect(
            json.get("ExecIDs").is_none() && json.pointer("/State/Health/Log").is_none(),
            || format!("{json_key} holds ExecIDs or State.Health.Log"),
        );
        if let Some(engine) = &host.engine {
            self.document(engine, id, &json);
        }
        let name = field("name").trim_start_matches('/').to_owned();
        (name, field("config_image").to_owned())
    }

    /// The parts of a document that events change are as the engine has them.
    fn document(&mut self, engine: &Place, id: &str, found: &Value) {
        let reply = get(engine, &format!("/containers/{id}/json"));
        let mut wanted: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        if let Some(health) = wanted
            .pointer_mut("/State/Health")
            .and_then(Value::as_object_mut)
        {
            health.remove("Log");
        }
        for part in [
            "Name",
            "State",
            "RestartCount",
            "HostConfig",
            "Mounts",
            "NetworkSettings",
        ] {
            self.equal(
                &format!("{id} {part} and the engine's"),
                &found[part],
                &wanted[part],
            );
        }
    }

    fn shared(&mut self, hosts: &[Host]) {
        let longest_ms = self.longest_ms.max(DAY_MS);
        let ids: BTreeSet<String> = hosts.iter().map(|host| host.id.clone()).collect();
        let running = hosts.iter().flat_map(|host| host.running.clone()).collect();
        self.set("hosts", &ids, longest_ms);
        self.set("containers", &running, longest_ms);
        let images = std::mem::take(&mut self.images);
        self.set("images", &images.keys().cloned().collect(), longest_ms);
        for (image, (hosts, containers)) in images {
            self.set(&format!("images:{image}:hosts"), &hosts, longest_ms);
            self.set(
                &format!("images:{image}:containers"),
                &containers,
                longest_ms,
            );
        }
        let alive = self.key("alive");
        let members: Vec<String> =
            ask(&mut self.redis, &["ZRANGE", &alive, "0", "-1"]).unwrap_or_default();
        self.equal(&alive, &members.into_iter().collect::<BTreeSet<_>>(), &ids);
        self.engines(hosts);
        // Both are logs: what is in them is each test's own matter.
        for stream in ["events", "runs"] {
            let key = self.key(stream);
            let kind: String = self.get("TYPE", &key);
            let fits = kind == "stream" || kind == "none";
            self.expect(fits, || format!("{key} is a {kind}"));
        }
        self.commands();
        let janitor = self.key("janitor");
        if self.get::<bool>("EXISTS", &janitor) {
            self.lives(&janitor, longest_ms);
        }
    }

    /// Each engine that is reported by a living agent is reported under one host id.
    fn engines(&mut self, hosts: &[Host]) {
        let keys: BTreeSet<String> = ask(
            &mut self.redis,
            &["KEYS", &format!("{}:engines:*", self.prefix)],
        )
        .unwrap_or_default();
        let mut told = BTreeSet::new();
        for key in keys {
            let host: String = self.get::<Option<String>>("GET", &key).unwrap_or_default();
            self.lives(&key, 10_000);
            self.explained.insert(key);
            told.insert(host);
        }
        let up = hosts.iter().filter(|host| host.status == "up");
        let wanted: BTreeSet<String> = up.map(|host| host.id.clone()).collect();
        self.expect(wanted.is_subset(&told), || {
            format!("engines: reported under {told:?}, wanted {wanted:?}")
        });
        for host in told
            .iter()
            .filter(|host| !hosts.iter().any(|known| known.id == **host))
        {
            self.wrong
                .push(format!("engines: one is reported under `{host}`"));
        }
    }

    /// Commands that one agent is to run: each is leased, or done for as long as another agent may come with the same event.
    fn commands(&mut self) {
        let pattern = format!("{}:once:*", self.prefix);
        let keys: BTreeSet<String> = ask(&mut self.redis, &["KEYS", &pattern]).unwrap_or_default();
        for key in keys {
            let state: Option<String> = self.get("GET", &key);
            // One may have run out since the keys were asked for.
            if let Some(state) = state {
                self.lives(&key, if state == "done" { 600_000 } else { 10_000 });
            }
            self.explained.insert(key);
        }
    }

    fn nothing_else(&mut self, keys: BTreeSet<String>) {
        for key in keys.difference(&self.explained) {
            self.wrong.push(format!("{key} should not be there"));
        }
    }

    /// A set has exactly these members; an empty one is not there.
    fn set(&mut self, name: &str, wanted: &BTreeSet<String>, life_ms: i64) {
        let key = self.key(name);
        let members: BTreeSet<String> = self.get("SMEMBERS", &key);
        self.equal(&key, &members, wanted);
        if !wanted.is_empty() {
            self.lives(&key, life_ms);
        }
    }

    fn hash(&mut self, name: &str, wanted: &BTreeMap<String, String>, life_ms: i64) {
        let key = self.key(name);
        let fields: BTreeMap<String, String> = self.get("HGETALL", &key);
        self.equal(&key, &fields, wanted);
        if !wanted.is_empty() {
            self.lives(&key, life_ms);
        }
    }

    /// It is there and has a life of at most so long.
    fn lives(&mut self, key: &str, life_ms: i64) {
        let ttl_ms: i64 = self.get("PTTL", key);
        self.expect(ttl_ms >= 0 && ttl_ms <= life_ms, || match ttl_ms {
            -2 => format!("{key} is not there"),
            -1 => format!("{key} has no TTL"),
            _ => format!("{key} lives {ttl_ms} ms, at most {life_ms} ms are right"),
        });
    }

    /// A key's full name; it may stand there.
    fn key(&mut self, name: &str) -> String {
        let key = format!("{}:{name}", self.prefix);
        self.explained.insert(key.clone());
        if name.starts_with("containers:") {
            self.explained.insert(format!("{key}:json"));
        }
        key
    }

    fn get<T: redis::FromRedisValue + Default>(&mut self, command: &str, key: &str) -> T {
        match ask(&mut self.redis, &[command, key]) {
            Ok(value) => value,
            Err(error) => {
                self.wrong.push(format!("{command} {key}: {error}"));
                T::default()
            }
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(
        &mut self,
        what: &str,
        found: &T,
        wanted: &T,
    ) {
        self.expect(found == wanted, || {
            format!("{what}: found {found:?}, wanted {wanted:?}")
        });
    }

    fn expect(&mut self, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(why());
        }
    }
}
