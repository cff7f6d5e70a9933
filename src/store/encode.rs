//! One host's share of a transaction as Redis commands; pure, so that each line can be read in a test.
//!
//! A container costs one `HSET` with all its fields. Memberships of all its containers are merged: one `SADD` or `SREM` a set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::commands::Commands;
use super::keys::{Keys, field};
use super::{Gone, Happening, HostBatch, Notice, Put};
use crate::model::{ContainerId, EngineIndex};

/// What the encoding of a batch depends on beside the batch.
pub(super) struct Encoder<'a> {
    /// All names.
    pub keys: &'a Keys,
    /// Time to live of a host's and its containers' keys, in seconds.
    pub ttl_s: u64,
    /// Time to live of a host's hash, in seconds.
    pub host_ttl_s: u64,
    /// Time to live of shared sets and manifests, in seconds.
    pub shared_ttl_s: u64,
    /// Time to live of `resume`, in seconds.
    pub resume_ttl_s: u64,
    /// About how many entries a stream keeps.
    pub stream_maxlen: u64,
    /// Redis's own clock, since 1970.
    pub now: Duration,
    /// The commands so far.
    pub commands: Commands,
    /// Which containers were touched, with the place of the first of the two commands that do it.
    pub touched: Vec<(usize, EngineIndex, ContainerId)>,
    /// Which containers were written over, with the place of the command that counts their fields, and how many they are to be.
    pub counted: Vec<(usize, i64, EngineIndex, ContainerId)>,
}

impl Encoder<'_> {
    /// Appends the commands of one host's share; `identity` is the engine's, where it is known, and `mark` what the share is known by should its reply be
    /// lost.
    pub fn host(
        &mut self,
        host: &str,
        identity: Option<&str>,
        mark: Option<&str>,
        batch: &HostBatch,
    ) {
        let names_left = batch.names_left.iter().map(|name| &**name);
        self.many("HDEL", &self.keys.names(host), names_left);
        self.drops(host, &batch.drops);
        for put in &batch.puts {
            self.document(host, batch.host, put);
        }
        let moved = batch.puts.iter().filter(|put| !put.placed);
        self.memberships(host, &moved.collect::<Vec<_>>());
        self.names(host, &batch.puts);
        for image in &batch.images_left {
            self.add(&["SREM", &self.keys.image_hosts(image), host]);
        }
        self.touches(batch);
        self.reassert(host, &batch.reassert);
        self.fields(host, mark, batch);
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
            self.many("DEL", first, rest.iter().map(String::as_str));
        }
        let ids = || drops.iter().map(|gone| gone.id.as_str());
        self.many("SREM", &self.keys.host_containers(host), ids());
        self.many("SREM", &self.keys.host_stopped(host), ids());
        self.many("SREM", &self.keys.containers(), ids());
        self.many("HDEL", &self.keys.manifest(host), ids());
        self.leave_images(
            drops
                .iter()
                .filter_map(|gone| Some((gone.image.as_ref()?, &gone.id))),
        );
    }

    /// Takes containers out of the sets of images that they no longer run.
    fn leave_images<'b>(&mut self, left: impl Iterator<Item = (&'b Arc<str>, &'b ContainerId)>) {
        for (image, ids) in by_image(left) {
            self.many("SREM", &self.keys.image_containers(image), ids.into_iter());
        }
    }

    /// The two keys of one container, as if nothing had been there. Where all that is there is written over, Redis is spared to build it anew, and
    /// asked whether that was all: another host may have written a container of this id, or a human.
    fn document(&mut self, host: &str, index: EngineIndex, put: &Put) {
        let (hash, json) = (self.keys.container(&put.id.0), self.keys.json(&put.id.0));
        let (ttl, document) = (self.ttl_s.to_string(), &put.document);
        if !put.shaped {
            self.add(&["DEL", &hash]);
        }
        // The same as `many`, without an iterator of iterators, for what most of a batch consists of.
        let fields = &document.fields;
        self.commands.begin(2 * fields.len() + 4, fields.bytes());
        let head = [("HSET", &*hash)].into_iter();
        for (one, other) in head.chain(fields.iter()).chain([(field::HOST, host)]) {
            self.commands.word(one);
            self.commands.word(other);
        }
        self.commands.end();
        if put.shaped {
            let named = document.fields.get(field::HOST).is_some();
            let count = document.fields.len() + usize::from(!named);
            let place = self.commands.len();
            self.counted
                .push((place, count as i64, index, put.id.clone()));
            self.add(&["HLEN", &hash]);
        }
        self.add(&["SET", &json, &document.json, "EX", &ttl]);
        self.add(&["EXPIRE", &hash, &ttl]);
    }

    fn memberships(&mut self, host: &str, puts: &[&Put]) {
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
            &self.keys.host_stopped(host),
            up.iter().map(|id| &**id),
        );
        self.grow(
            self.keys.host_stopped(host),
            down.iter().map(|id| &**id),
            self.ttl_s,
        );
        self.many(
            "SREM",
            &self.keys.host_containers(host),
            down.iter().map(|id| &**id),
        );
        self.many("SREM", &self.keys.containers(), down.iter().map(|id| &**id));
        self.running(
            host,
            running
                .iter()
                .map(|put| (&put.id, &put.document.summary.image)),
        );

        let images = puts
            .iter()
            .flat_map(|put| [put.id.as_str(), &*put.document.summary.image]);
        let key = self.keys.manifest(host);
        self.many("HSET", &key, images);
        self.expire(&key, self.shared_ttl_s);
    }

    fn names(&mut self, host: &str, puts: &[Put]) {
        let names = puts
            .iter()
            .filter(|put| !put.named && !put.document.summary.name.is_empty())
            .flat_map(|put| [&*put.document.summary.name, put.id.as_str()]);
        let key = self.keys.names(host);
        if self.many("HSET", &key, names) {
            self.expire(&key, self.ttl_s);
        }
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

    /// The same, and their places in the host's own set and in its manifest.
    fn reassert(&mut self, host: &str, running: &[(ContainerId, Arc<str>)]) {
        self.running(host, running.iter().map(|(id, image)| (id, image)));
        let ids = running.iter().map(|(id, _)| id.as_str());
        self.grow(self.keys.host_containers(host), ids, self.ttl_s);
        let images = running.iter().flat_map(|(id, image)| [id.as_str(), image]);
        let key = self.keys.manifest(host);
        if self.many("HSET", &key, images) {
            self.expire(&key, self.shared_ttl_s);
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
    fn fields(&mut self, host: &str, mark: Option<&str>, batch: &HostBatch) {
        let now = self.now.as_secs().to_string();
        let fields = batch
            .fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(batch.stamp.then_some((field::LAST_UPDATE, now.as_str())))
            .flat_map(|(name, value)| [name, value]);
        let fields = fields.chain(mark.into_iter().flat_map(|mark| [field::LAST_BATCH, mark]));
        let key = self.keys.host(host);
        let left = batch.fields_left.iter().map(String::as_str);
        self.many("HDEL", &key, left);
        if self.many("HSET", &key, fields) {
            self.expire(&key, self.host_ttl_s);
        }
        if batch.enlist {
            self.grow(self.keys.hosts(), [host].into_iter(), self.shared_ttl_s);
        }
        if let Some(resume) = batch.resume_ns {
            let (resume, ttl) = (resume.to_string(), self.resume_ttl_s.to_string());
            self.add(&["SET", &self.keys.resume(host), &resume, "EX", &ttl]);
        }
    }

    fn renewals(&mut self, host: &str, batch: &HostBatch) {
        if batch.renew {
            self.expire(&self.keys.host(host), self.host_ttl_s);
            self.expire(&self.keys.host_containers(host), self.ttl_s);
            self.expire(&self.keys.host_stopped(host), self.ttl_s);
            self.expire(&self.keys.names(host), self.ttl_s);
            self.expire(&self.keys.manifest(host), self.shared_ttl_s);
        }
        if batch.renew_shared {
            self.expire(&self.keys.hosts(), self.shared_ttl_s);
            self.expire(&self.keys.alive(), self.shared_ttl_s);
            self.expire(&self.keys.containers(), self.shared_ttl_s);
            self.expire(&self.keys.images(), self.shared_ttl_s);
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
        self.commands.push(&command);
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
                if &*event.kind != "container"
                    && let Some(container) = event.container()
                {
                    command.arg("container").arg(container);
                }
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
                let what = if run.end.is_some() { "end" } else { "start" };
                command.arg("what").arg(what);
                command.arg("run").arg(&run.run);
                command.arg("entry").arg(&*run.entry);
                command.arg("type").arg(&run.word);
                command.arg("subject").arg(&run.subject);
                command.arg("attempt").arg(run.attempt);
                if let Some(end) = &run.end {
                    command.arg("exit").arg(end.exit.word());
                    command.arg("took_ms").arg(end.took_ms);
                    command.arg("output").arg(&end.output);
                }
            }
        }
        self.commands.push(&command);
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
        self.commands.push_words(words.iter().copied());
    }

    /// Appends a command with a key and all these words, unless there are none.
    fn many<'a, 'b: 'a>(
        &mut self,
        name: &'a str,
        key: &'a str,
        words: impl Iterator<Item = &'b str> + Clone,
    ) -> bool {
        let any = words.clone().next().is_some();
        if any {
            let words = words.map(|word| -> &'a str { word });
            let words = [name, key].into_iter().chain(words);
            self.commands.push_words(words);
        }
        any
    }

    /// Adds members to a set and renews its time to live, unless there are none.
    fn grow<'b>(
        &mut self,
        key: String,
        members: impl Iterator<Item = &'b str> + Clone,
        ttl_s: u64,
    ) {
        if self.many("SADD", &key, members) {
            self.expire(&key, ttl_s);
        }
    }

    fn expire(&mut self, key: &str, seconds: u64) {
        self.add(&["EXPIRE", key, &seconds.to_string()]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Exit};
    use crate::store::testing::{gone, put, put_with};
    use crate::store::{RunEnd, RunRecord};

    /// The commands of one host's share, a line each.
    fn lines(fill: impl FnOnce(&mut HostBatch)) -> String {
        let keys = Keys::new("p");
        let mut encoder = Encoder {
            keys: &keys,
            ttl_s: 360,
            host_ttl_s: 360,
            shared_ttl_s: 86_400,
            resume_ttl_s: 300,
            stream_maxlen: 10_000,
            now: Duration::new(1_700_000_000, 5),
            commands: Commands::default(),
            touched: Vec::new(),
            counted: Vec::new(),
        };
        let mut batch = HostBatch::new(EngineIndex(0));
        fill(&mut batch);
        let told = !batch.happened.is_empty() && !batch.forget;
        let mark = Some("boot:7").filter(|_| told);
        encoder.host("h", Some("E@m"), mark, &batch);
        for (place, _, id) in &encoder.touched {
            let command = encoder.commands.get(*place);
            let words: Vec<_> = command.args_iter().map(word).collect();
            assert_eq!(words[1], keys.container(id.as_str()));
        }
        let all = &encoder.commands;
        let lines = (0..all.len()).map(|at| all.get(at)).map(|command| {
            let words: Vec<_> = command.args_iter().map(word).collect();
            words.join(" ")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn word(argument: redis::Arg<&[u8]>) -> String {
        match argument {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("a cursor"),
        }
    }

    #[test]
    fn nothing_to_do_is_nothing() {
        assert_eq!(lines(|_| ()), "");
    }

    #[test]
    fn memberships_of_all_puts_are_merged() {
        let text = lines(|share| {
            let mut moved = put("c2", "new");
            moved.image_left = Some("old".into());
            let mut stopped = put_with("c4", "new", false, &[]);
            stopped.image_left = Some("new".into());
            share.names_left = vec!["x".into(), "y".into()];
            share.puts = vec![put("c1", "i"), moved, put("c3", "i"), stopped];
            share.images_left = vec!["old".into()];
        });
        let expected = "\
HDEL p:hosts:h:names x y
DEL p:containers:c1
HSET p:containers:c1 name /name-c1 config_image i host h
SET p:containers:c1:json {\"Id\":\"c1\"} EX 360
EXPIRE p:containers:c1 360
DEL p:containers:c2
HSET p:containers:c2 name /name-c2 config_image new host h
SET p:containers:c2:json {\"Id\":\"c2\"} EX 360
EXPIRE p:containers:c2 360
DEL p:containers:c3
HSET p:containers:c3 name /name-c3 config_image i host h
SET p:containers:c3:json {\"Id\":\"c3\"} EX 360
EXPIRE p:containers:c3 360
DEL p:containers:c4
HSET p:containers:c4 name /name-c4 host h
SET p:containers:c4:json {\"Id\":\"c4\"} EX 360
EXPIRE p:containers:c4 360
SREM p:images:new:containers c4
SREM p:images:old:containers c2
SADD p:hosts:h:containers c1 c2 c3
EXPIRE p:hosts:h:containers 360
SREM p:hosts:h:stopped c1 c2 c3
SADD p:hosts:h:stopped c4
EXPIRE p:hosts:h:stopped 360
SREM p:hosts:h:containers c4
SREM p:containers c4
SADD p:containers c1 c2 c3
EXPIRE p:containers 86400
SADD p:images i new
EXPIRE p:images 86400
SADD p:images:i:hosts h
EXPIRE p:images:i:hosts 86400
SADD p:images:i:containers c1 c3
EXPIRE p:images:i:containers 86400
SADD p:images:new:hosts h
EXPIRE p:images:new:hosts 86400
SADD p:images:new:containers c2
EXPIRE p:images:new:containers 86400
HSET p:hosts:h:manifest c1 i c2 new c3 i c4 new
EXPIRE p:hosts:h:manifest 86400
HSET p:hosts:h:names name-c1 c1 name-c2 c2 name-c3 c3 name-c4 c4
EXPIRE p:hosts:h:names 360
SREM p:images:old:hosts h";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_stands_in_its_place_is_not_put_there_again() {
        let text = lines(|share| {
            let mut changed = put("c1", "i");
            changed.placed = true;
            let mut renamed = changed.clone();
            renamed.id = "c2".into();
            changed.named = true;
            changed.shaped = true;
            share.puts = vec![changed, renamed];
            share.happened = vec![Happening::Gap {
                dropped: 0,
                reason: "none".into(),
            }];
        });
        let expected = "\
HSET p:containers:c1 name /name-c1 config_image i host h
HLEN p:containers:c1
SET p:containers:c1:json {\"Id\":\"c1\"} EX 360
EXPIRE p:containers:c1 360
DEL p:containers:c2
HSET p:containers:c2 name /name-c1 config_image i host h
SET p:containers:c2:json {\"Id\":\"c1\"} EX 360
EXPIRE p:containers:c2 360
HSET p:hosts:h:names name-c1 c2
EXPIRE p:hosts:h:names 360
HSET p:hosts:h last_batch boot:7
EXPIRE p:hosts:h 360
XADD p:events MAXLEN ~ 10000 * host h type docker-cache action gap reason none dropped 0 time 1700000000000000005";
        assert_eq!(text, expected);
    }

    #[test]
    fn drops_take_everything_along() {
        let text = lines(|share| {
            let unknown = Gone {
                id: "c3".into(),
                image: None,
            };
            share.drops = vec![gone("c1", "i"), gone("c2", "i"), unknown];
            share.images_left = vec!["i".into()];
            share.notices = vec![Notice::DeleteContainer("c1".into())];
        });
        let expected = "\
DEL p:containers:c1 p:containers:c1:json p:containers:c2 p:containers:c2:json p:containers:c3 p:containers:c3:json
SREM p:hosts:h:containers c1 c2 c3
SREM p:hosts:h:stopped c1 c2 c3
SREM p:containers c1 c2 c3
HDEL p:hosts:h:manifest c1 c2 c3
SREM p:images:i:containers c1 c2
SREM p:images:i:hosts h
PUBLISH p_events delete_container:h:c1";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_resync_without_changes_only_keeps_alive() {
        let text = lines(|share| {
            share.touches = vec!["c1".into(), "c2".into()];
            share.reassert = vec![("c1".into(), "i".into())];
            share.fields = vec![("containers_running", "2".to_owned())];
            share.stamp = true;
            share.enlist = true;
            share.renew = true;
            share.renew_shared = true;
            share.resume_ns = Some(7);
            share.notices = vec![Notice::RefreshContainers];
        });
        let expected = "\
EXPIRE p:containers:c1 360
EXPIRE p:containers:c1:json 360
EXPIRE p:containers:c2 360
EXPIRE p:containers:c2:json 360
SADD p:containers c1
EXPIRE p:containers 86400
SADD p:images i
EXPIRE p:images 86400
SADD p:images:i:hosts h
EXPIRE p:images:i:hosts 86400
SADD p:images:i:containers c1
EXPIRE p:images:i:containers 86400
SADD p:hosts:h:containers c1
EXPIRE p:hosts:h:containers 360
HSET p:hosts:h:manifest c1 i
EXPIRE p:hosts:h:manifest 86400
HSET p:hosts:h containers_running 2 last_update 1700000000
EXPIRE p:hosts:h 360
SADD p:hosts h
EXPIRE p:hosts 86400
SET p:hosts:h:resume 7 EX 300
EXPIRE p:hosts:h 360
EXPIRE p:hosts:h:containers 360
EXPIRE p:hosts:h:stopped 360
EXPIRE p:hosts:h:names 360
EXPIRE p:hosts:h:manifest 86400
EXPIRE p:hosts 86400
EXPIRE p:alive 86400
EXPIRE p:containers 86400
EXPIRE p:images 86400
PUBLISH p_events refresh_containers:h";
        assert_eq!(text, expected);
    }

    #[test]
    fn happenings_and_the_end_of_a_host() {
        let text = lines(|share| {
            let event = Event {
                kind: "network".into(),
                action: "connect".into(),
                id: "n".into(),
                attributes: [("name", "bridge"), ("container", "c")]
                    .into_iter()
                    .collect(),
                time_ns: 9,
                ..Event::default()
            };
            let run = RunRecord {
                run: "1a2b3c4d-3".into(),
                entry: "greet".into(),
                word: "die".into(),
                subject: "web".into(),
                attempt: 2,
                end: None,
            };
            let ended = RunRecord {
                end: Some(RunEnd {
                    exit: Exit::Code(2),
                    took_ms: 15,
                    output: "oops".into(),
                }),
                ..run.clone()
            };
            share.happened = vec![
                Happening::Event {
                    event: Arc::new(event),
                    inferred: false,
                },
                Happening::Gap {
                    dropped: 0,
                    reason: "overrun".into(),
                },
                Happening::Run(Arc::new(run)),
                Happening::Run(Arc::new(ended)),
            ];
            share.forget = true;
            share.notices = vec![Notice::HostDown, Notice::HostUp, Notice::ExpiredHost];
        });
        let expected = "\
DEL p:hosts:h p:hosts:h:containers p:hosts:h:stopped p:hosts:h:names p:hosts:h:manifest p:hosts:h:resume p:hosts:h:lease p:engines:E@m
SREM p:hosts h
ZREM p:alive h
XADD p:events MAXLEN ~ 10000 * host h type network action connect id n name bridge image  container c time 9 origin seen
XADD p:events MAXLEN ~ 10000 * host h type docker-cache action gap reason overrun dropped 0 time 1700000000000000005
XADD p:runs MAXLEN ~ 10000 * host h what start run 1a2b3c4d-3 entry greet type die subject web attempt 2
XADD p:runs MAXLEN ~ 10000 * host h what end run 1a2b3c4d-3 entry greet type die subject web attempt 2 exit 2 took_ms 15 output oops
PUBLISH p_events host_down:h
PUBLISH p_events host_up:h
PUBLISH p_events expired_host:h";
        assert_eq!(text, expected);
    }
}
