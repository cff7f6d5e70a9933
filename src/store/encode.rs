//! One host's share of a transaction as Redis commands; pure, so that each line can be read in a test.
//!
//! A container costs one `HSET` with all its fields. Memberships of all its containers are merged: one `SADD` or `SREM` a set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::keys::{Keys, field};
use super::{Gone, Happening, HostBatch, Notice, Put};
use crate::model::{ContainerId, EngineIndex};

/// What the encoding of a batch depends on beside the batch.
pub(super) struct Encoder<'a> {
    /// All names.
    pub keys: &'a Keys,
    /// Time to live of a host's and its containers' keys, in seconds.
    pub ttl_s: u64,
    /// Time to live of shared sets and manifests, in seconds.
    pub shared_ttl_s: u64,
    /// Time to live of `resume`, in seconds.
    pub resume_ttl_s: u64,
    /// About how many entries a stream keeps.
    pub stream_maxlen: u64,
    /// Redis's own clock, since 1970.
    pub now: Duration,
    /// The commands so far.
    pub commands: Vec<Cmd>,
    /// Which containers were touched, with the place of the first of the two commands that do it.
    pub touched: Vec<(usize, EngineIndex, ContainerId)>,
}

impl Encoder<'_> {
    /// Appends the commands of one host's share; `identity` is the engine's, where it is known.
    pub fn host(&mut self, host: &str, identity: Option<&str>, batch: &HostBatch) {
        let names_left = batch.names_left.iter().map(|name| &**name);
        self.many("HDEL", self.keys.names(host), names_left);
        self.drops(host, &batch.drops);
        for put in &batch.puts {
            self.document(host, put);
        }
        self.memberships(host, &batch.puts);
        for image in &batch.images_left {
            self.add(&["SREM", &self.keys.image_hosts(image), host]);
        }
        self.touches(batch);
        self.running(host, batch.reassert.iter().map(|(id, image)| (id, image)));
        self.fields(host, batch);
        self.renewals(host, batch);
        if batch.forget {
            self.forget(host, identity);
        }
        for happening in &batch.happened {
            self.happening(host, happening);
        }
        for notice in &batch.notices {
            self.notice(host, notice);
        }
    }

    fn drops(&mut self, host: &str, drops: &[Gone]) {
        let keys = drops
            .iter()
            .flat_map(|gone| [self.keys.container(&gone.id.0), self.keys.json(&gone.id.0)]);
        let keys: Vec<String> = keys.collect();
        if let Some((first, rest)) = keys.split_first() {
            self.many("DEL", first.clone(), rest.iter().map(String::as_str));
        }
        let ids = || drops.iter().map(|gone| gone.id.as_str());
        self.many("SREM", self.keys.host_containers(host), ids());
        self.many("SREM", self.keys.host_stopped(host), ids());
        self.many("SREM", self.keys.containers(), ids());
        self.many("HDEL", self.keys.manifest(host), ids());
        self.leave_images(
            drops
                .iter()
                .filter_map(|gone| Some((gone.image.as_ref()?, &gone.id))),
        );
    }

    /// Takes containers out of the sets of images that they no longer run.
    fn leave_images<'b>(&mut self, left: impl Iterator<Item = (&'b Arc<str>, &'b ContainerId)>) {
        for (image, ids) in by_image(left) {
            self.many("SREM", self.keys.image_containers(image), ids.into_iter());
        }
    }

    /// The two keys of one container, as if nothing had been there.
    fn document(&mut self, host: &str, put: &Put) {
        let (hash, json) = (self.keys.container(&put.id.0), self.keys.json(&put.id.0));
        self.add(&["DEL", &hash, &json]);
        let mut command = Cmd::with_capacity(
            2 * put.document.fields.len() + 4,
            put.document.size() + hash.len() + host.len(),
        );
        command.arg("HSET").arg(&hash);
        for (name, value) in &put.document.fields {
            command.arg(name).arg(value);
        }
        command.arg(field::HOST).arg(host);
        self.commands.push(command);
        self.expire(&hash, self.ttl_s);
        let mut command = Cmd::with_capacity(5, put.document.json.len() + json.len() + 20);
        command.arg("SET").arg(&json).arg(&put.document.json);
        command.arg("EX").arg(self.ttl_s);
        self.commands.push(command);
    }

    fn memberships(&mut self, host: &str, puts: &[Put]) {
        if puts.is_empty() {
            return;
        }
        let left = puts
            .iter()
            .filter_map(|put| Some((put.image_left.as_ref()?, &put.id)));
        self.leave_images(left);
        let (running, stopped): (Vec<&Put>, Vec<&Put>) =
            puts.iter().partition(|put| put.document.summary.running);

        let ids =
            |puts: &[&Put]| -> Vec<Arc<str>> { puts.iter().map(|put| put.id.0.clone()).collect() };
        let (up, down) = (ids(&running), ids(&stopped));
        self.grow(
            self.keys.host_containers(host),
            up.iter().map(|id| &**id),
            self.ttl_s,
        );
        self.many(
            "SREM",
            self.keys.host_stopped(host),
            up.iter().map(|id| &**id),
        );
        self.grow(
            self.keys.host_stopped(host),
            down.iter().map(|id| &**id),
            self.ttl_s,
        );
        self.many(
            "SREM",
            self.keys.host_containers(host),
            down.iter().map(|id| &**id),
        );
        self.many("SREM", self.keys.containers(), down.iter().map(|id| &**id));
        self.running(
            host,
            running
                .iter()
                .map(|put| (&put.id, &put.document.summary.image)),
        );

        let names = puts
            .iter()
            .filter(|put| !put.document.summary.name.is_empty())
            .flat_map(|put| [&*put.document.summary.name, put.id.as_str()]);
        let key = self.keys.names(host);
        if self.many("HSET", key.clone(), names) {
            self.expire(&key, self.ttl_s);
        }
        let images = puts
            .iter()
            .flat_map(|put| [put.id.as_str(), &*put.document.summary.image]);
        let key = self.keys.manifest(host);
        self.many("HSET", key.clone(), images);
        self.expire(&key, self.shared_ttl_s);
    }

    /// Running containers' places in the shared sets.
    fn running<'b>(
        &mut self,
        host: &str,
        running: impl Iterator<Item = (&'b ContainerId, &'b Arc<str>)> + Clone,
    ) {
        let ids = running.clone().map(|(id, _)| id.as_str());
        self.grow(self.keys.containers(), ids, self.shared_ttl_s);
        let images = by_image(
            running
                .map(|(id, image)| (image, id))
                .filter(|(image, _)| !image.is_empty()),
        );
        self.grow(
            self.keys.images(),
            images.keys().copied(),
            self.shared_ttl_s,
        );
        for (image, ids) in images {
            self.grow(
                self.keys.image_hosts(image),
                [host].into_iter(),
                self.shared_ttl_s,
            );
            self.grow(
                self.keys.image_containers(image),
                ids.into_iter(),
                self.shared_ttl_s,
            );
        }
    }

    fn touches(&mut self, batch: &HostBatch) {
        for id in &batch.touches {
            self.touched
                .push((self.commands.len(), batch.host, id.clone()));
            self.expire(&self.keys.container(&id.0), self.ttl_s);
            self.expire(&self.keys.json(&id.0), self.ttl_s);
        }
    }

    /// The host's hash, and with it its place among the hosts.
    fn fields(&mut self, host: &str, batch: &HostBatch) {
        let now = self.now.as_secs().to_string();
        let fields = batch
            .fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(batch.stamp.then_some((field::LAST_UPDATE, now.as_str())))
            .flat_map(|(name, value)| [name, value]);
        let key = self.keys.host(host);
        if self.many("HSET", key.clone(), fields) {
            self.expire(&key, self.ttl_s);
            self.grow(self.keys.hosts(), [host].into_iter(), self.shared_ttl_s);
        }
        if let Some(resume) = batch.resume_ns {
            let (resume, ttl) = (resume.to_string(), self.resume_ttl_s.to_string());
            self.add(&["SET", &self.keys.resume(host), &resume, "EX", &ttl]);
        }
    }

    fn renewals(&mut self, host: &str, batch: &HostBatch) {
        if batch.renew {
            self.expire(&self.keys.host(host), self.ttl_s);
            self.expire(&self.keys.host_containers(host), self.ttl_s);
            self.expire(&self.keys.host_stopped(host), self.ttl_s);
            self.expire(&self.keys.names(host), self.ttl_s);
        }
        if batch.renew_shared {
            self.expire(&self.keys.hosts(), self.shared_ttl_s);
            self.expire(&self.keys.alive(), self.shared_ttl_s);
            self.expire(&self.keys.containers(), self.shared_ttl_s);
            self.expire(&self.keys.images(), self.shared_ttl_s);
            self.expire(&self.keys.manifest(host), self.shared_ttl_s);
        }
    }

    /// Removes the host itself; what its containers had in shared sets is gone by its drops.
    pub fn forget(&mut self, host: &str, identity: Option<&str>) {
        let keys = self.keys;
        let engine = identity.map(|identity| keys.engine(identity));
        let mut command = redis::cmd("DEL");
        command.arg(keys.host(host)).arg(keys.host_containers(host));
        command.arg(keys.host_stopped(host)).arg(keys.names(host));
        command.arg(keys.manifest(host)).arg(keys.resume(host));
        command.arg(keys.lease(host)).arg(engine);
        self.commands.push(command);
        self.add(&["SREM", &keys.hosts(), host]);
        self.add(&["ZREM", &keys.alive(), host]);
    }

    fn happening(&mut self, host: &str, happening: &Happening) {
        let key = match happening {
            Happening::Run(_) => self.keys.runs(),
            _ => self.keys.events(),
        };
        let mut command = redis::cmd("XADD");
        command.arg(key).arg("MAXLEN").arg("~");
        command.arg(self.stream_maxlen).arg("*");
        command.arg("host").arg(host);
        match happening {
            Happening::Event { event, inferred } => {
                command.arg("type").arg(&*event.kind);
                command.arg("action").arg(&*event.action);
                command.arg("id").arg(&*event.id);
                command
                    .arg("name")
                    .arg(event.attribute("name").unwrap_or(""));
                command
                    .arg("image")
                    .arg(event.attribute("image").unwrap_or(""));
                command.arg("time").arg(event.time_ns);
                command
                    .arg("origin")
                    .arg(if *inferred { "inferred" } else { "seen" });
            }
            Happening::Gap { dropped, reason } => {
                command.arg("type").arg("docker-cache");
                command.arg("action").arg("gap");
                command.arg("reason").arg(reason);
                command.arg("dropped").arg(*dropped);
                command.arg("time").arg(self.now.as_nanos().to_string());
            }
            Happening::Run(run) => {
                command.arg("run").arg(run.run);
                command.arg("entry").arg(&*run.entry);
                command.arg("type").arg(&run.word);
                command.arg("subject").arg(&run.subject);
                command.arg("exit").arg(run.exit.word());
                command.arg("took_ms").arg(run.took_ms);
                command.arg("output").arg(&run.output);
            }
        }
        self.commands.push(command);
    }

    fn notice(&mut self, host: &str, notice: &Notice) {
        let line = match notice {
            Notice::NewHost => format!("new_host:{host}"),
            Notice::NewContainer(id) => format!("new_container:{host}:{id}"),
            Notice::UpdateContainer(id) => format!("update_container:{host}:{id}"),
            Notice::DeleteContainer(id) => format!("delete_container:{host}:{id}"),
            Notice::RefreshContainers => format!("refresh_containers:{host}"),
            Notice::HostDown => format!("host_down:{host}"),
            Notice::HostUp => format!("host_up:{host}"),
            Notice::ExpiredHost => format!("expired_host:{host}"),
        };
        self.add(&["PUBLISH", &self.keys.channel(), &line]);
    }

    /// Appends a command of plain words.
    fn add(&mut self, words: &[&str]) {
        self.commands.push(plain(words));
    }

    /// Appends a command with a key and all these words, unless there are none.
    fn many<'b>(&mut self, name: &str, key: String, words: impl Iterator<Item = &'b str>) -> bool {
        let mut command = redis::cmd(name);
        command.arg(key);
        let bare = command.args_iter().len();
        for word in words {
            command.arg(word);
        }
        let full = command.args_iter().len() > bare;
        if full {
            self.commands.push(command);
        }
        full
    }

    /// Adds members to a set and renews its time to live, unless there are none.
    fn grow<'b>(&mut self, key: String, members: impl Iterator<Item = &'b str>, ttl_s: u64) {
        if self.many("SADD", key.clone(), members) {
            self.expire(&key, ttl_s);
        }
    }

    fn expire(&mut self, key: &str, seconds: u64) {
        let mut command = redis::cmd("EXPIRE");
        command.arg(key).arg(seconds);
        self.commands.push(command);
    }
}

/// A command of plain words.
pub(super) fn plain(words: &[&str]) -> Cmd {
    let mut command = Cmd::with_capacity(words.len(), words.iter().map(|word| word.len()).sum());
    for word in words {
        command.arg(*word);
    }
    command
}

/// The ids of each image, in the order of the images' names.
fn by_image<'b>(
    pairs: impl Iterator<Item = (&'b Arc<str>, &'b ContainerId)>,
) -> BTreeMap<&'b str, Vec<&'b str>> {
    let mut images: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (image, id) in pairs {
        images.entry(image).or_default().push(id.as_str());
    }
    images
}
