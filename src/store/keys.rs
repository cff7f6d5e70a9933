//! Names of keys, fields and channels: the contract with whoever reads the store. Nothing else spells one.

/// Names everything under one prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    /// The first word of every name.
    prefix: String,
}

impl Keys {
    /// All names under `prefix`.
    pub fn new(prefix: &str) -> Self {
        Keys {
            prefix: prefix.to_owned(),
        }
    }

    /// A name in parts behind the prefix: a batch spells dozens of them, and to format them was a tenth of the writer's work.
    fn key(&self, parts: &[&str]) -> String {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = String::with_capacity(self.prefix.len() + length);
        key.push_str(&self.prefix);
        parts.iter().for_each(|part| key.push_str(part));
        key
    }

    /// Set: ids of the hosts that report.
    pub fn hosts(&self) -> String {
        self.key(&[":hosts"])
    }

    /// Hash: what is known of a host.
    pub fn host(&self, host: &str) -> String {
        self.key(&[":hosts:", host])
    }

    /// Set: ids of a host's running containers.
    pub fn host_containers(&self, host: &str) -> String {
        self.key(&[":hosts:", host, ":containers"])
    }

    /// Set: ids of a host's other containers.
    pub fn host_stopped(&self, host: &str) -> String {
        self.key(&[":hosts:", host, ":stopped"])
    }

    /// Hash: container name -> id.
    pub fn names(&self, host: &str) -> String {
        self.key(&[":hosts:", host, ":names"])
    }

    /// Hash: container id -> image; what must be cleaned up if the host is lost.
    pub fn manifest(&self, host: &str) -> String {
        self.key(&[":hosts:", host, ":manifest"])
    }

    /// String: `boot:seq` of the agent that writes this host.
    pub fn lease(&self, host: &str) -> String {
        self.key(&[":hosts:", host, ":lease"])
    }

    /// String: from which event on, in ns, a successor has to look again.
    pub fn resume(&self, host: &str) -> String {
        self.key(&[":hosts:", host, ":resume"])
    }

    /// String: the host id under which an engine reports.
    pub fn engine(&self, identity: &str) -> String {
        self.key(&[":engines:", identity])
    }

    /// Sorted set: host -> second until which its agent's lease runs.
    pub fn alive(&self) -> String {
        self.key(&[":alive"])
    }

    /// Set: ids of all running containers of all hosts.
    pub fn containers(&self) -> String {
        self.key(&[":containers"])
    }

    /// Hash: one container, flattened.
    pub fn container(&self, id: &str) -> String {
        self.key(&[":containers:", id])
    }

    /// String: one container, as Docker gave it.
    pub fn json(&self, id: &str) -> String {
        self.key(&[":containers:", id, ":json"])
    }

    /// Set: images that run somewhere.
    pub fn images(&self) -> String {
        self.key(&[":images"])
    }

    /// Set: hosts where an image runs.
    pub fn image_hosts(&self, image: &str) -> String {
        self.key(&[":images:", image, ":hosts"])
    }

    /// Set: containers in which an image runs.
    pub fn image_containers(&self, image: &str) -> String {
        self.key(&[":images:", image, ":containers"])
    }

    /// Stream: what happened.
    pub fn events(&self) -> String {
        self.key(&[":events"])
    }

    /// Stream: what handlers did.
    pub fn runs(&self) -> String {
        self.key(&[":runs"])
    }

    /// String: the number of the janitor's next round, when it may begin, in ms, and where its search for keys goes on.
    pub fn janitor(&self) -> String {
        self.key(&[":janitor"])
    }

    /// String: which agent runs a command that only one is to run, or that it was run.
    pub fn once(&self, command: u128) -> String {
        self.key(&[":once:", &format!("{command:032x}")])
    }

    /// Matches all of these names, and may match others; a prefix has no letters that mean anything in a pattern.
    pub fn pattern(&self) -> String {
        self.key(&[":*"])
    }

    /// Whose key this is and what type it is to be of, if it has the form of a container's, an image's or a host's.
    pub fn owner<'a>(&self, key: &'a str) -> Option<(Owner<'a>, &'static str)> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix(':')?;
        let (family, name) = rest.split_once(':')?;
        match family {
            "containers" => match name.split_once(':') {
                None => Some((Owner::Container(name), "hash")),
                Some((id, "json")) => Some((Owner::Container(id), "string")),
                Some(_) => None,
            },
            "images" => match name.rsplit_once(':') {
                Some((image, "hosts" | "containers")) => Some((Owner::Image(image), "set")),
                _ => None,
            },
            "hosts" => match name.split_once(':') {
                None => Some((Owner::Host(name), "hash")),
                Some((host, "containers" | "stopped")) => Some((Owner::Host(host), "set")),
                Some((host, "names" | "manifest")) => Some((Owner::Host(host), "hash")),
                Some((host, "lease" | "resume")) => Some((Owner::Host(host), "string")),
                Some(_) => None,
            },
            _ => None,
        }
    }

    /// Channel: notices of changes.
    pub fn channel(&self) -> String {
        format!("{}_events", self.prefix)
    }
}

/// Whose a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner<'a> {
    /// A container's, by its id.
    Container(&'a str),
    /// An image's.
    Image(&'a str),
    /// A host's, by its id.
    Host(&'a str),
}

/// Fields of a host's hash that the store itself reads or writes.
pub mod field {
    /// Seconds, Redis's clock: when a full resync last reached the engine.
    pub const LAST_UPDATE: &str = "last_update";
    /// Seconds between two resyncs.
    pub const UPDATE_INTERVAL: &str = "update_interval";
    /// How many containers run.
    pub const RUNNING: &str = "containers_running";
    /// `up`, `down`, `lost`, `stopped`.
    pub const STATUS: &str = "status";
    /// Commands that run, a line of JSON each; only with handlers.
    pub const RUNNING_JOBS: &str = "running_jobs";
    /// Names the last transaction that wrote into a stream.
    pub const LAST_BATCH: &str = "last_batch";
    /// Fields whose values only the store knows.
    pub const OF_THE_STORE: [&str; 2] = [LAST_UPDATE, LAST_BATCH];
    /// Docker's own id of the engine.
    pub const ENGINE_ID: &str = "engine_id";
    /// The field of a container's hash that names the host it runs on.
    pub const HOST: &str = "host";
    /// A container's name, as Docker writes it.
    pub const NAME: &str = "name";
    /// The reference a container was started by.
    pub const IMAGE: &str = "config_image";
    /// When a container was started.
    pub const STARTED_AT: &str = "state_startedat";
}
