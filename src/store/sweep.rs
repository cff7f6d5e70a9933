//! The janitor: members of shared sets that no manifest explains.
//!
//! Nothing that works leaves such members; a crash of Redis between two saves, a foreign hand, or an agent of another version may. Sets are read in
//! steps, and a member goes only by a transaction that watches what would explain it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::Cmd;

use super::encode::plain;
use super::fence::Transaction;
use super::keys::field;
use super::link::{items, number, text, texts};
use super::redis::{RedisStore, seconds};
use super::{StoreError, Swept};

/// About how many members are read in one round trip.
const STEP: &str = "500";

/// The most questions that are asked in one round trip.
const QUESTIONS: usize = 5_000;

/// How long a round may take; what it did not reach has to wait for a round on a faster day.
const PATIENCE: Duration = Duration::from_secs(3);

/// A round.
struct Round {
    /// The members of `<p>:hosts` and of `<p>:alive`.
    hosts: Vec<String>,
    /// When it must be over.
    end: Instant,
    /// Members removed.
    removed: usize,
}

impl RedisStore {
    /// A round through the shared sets, if no agent made one in this interval.
    pub(super) fn sweep_sets(&mut self) -> Result<Swept, StoreError> {
        let interval = seconds(self.options.interval).to_string();
        let (janitor, boot) = (self.keys.janitor(), self.options.boot.clone());
        let got = self.ask(&[plain(&["SET", &janitor, &boot, "NX", "EX", &interval])])?;
        if text(&got[0]).is_none() {
            return Ok(Swept::default());
        }
        let mut round = Round {
            hosts: Vec::new(),
            end: Instant::now() + PATIENCE,
            removed: 0,
        };
        let key = self.keys.hosts();
        let mut cursor = None;
        while let Some(step) = self.scan(&round, &key, &mut cursor)? {
            round.hosts.extend(step);
        }
        self.mourn(&round.hosts)?;
        // A host that lives and misses among the hosts will be there again soon; until then its members are not to be touched.
        let alive = self.ask(&[plain(&["ZRANGE", &self.keys.alive(), "0", "-1"])])?;
        round.hosts.extend(texts(&alive[0]));
        round.hosts.sort_unstable();
        round.hosts.dedup();
        let key = self.keys.containers();
        self.sweep_containers(&mut round, &key, None)?;
        self.sweep_images(&mut round)?;
        Ok(Swept {
            removed: round.removed,
        })
    }

    /// The next members of a set; `None` at its end, or when time is over.
    fn scan(
        &mut self,
        round: &Round,
        key: &str,
        cursor: &mut Option<String>,
    ) -> Result<Option<Vec<String>>, StoreError> {
        if cursor.as_deref() == Some("0") || Instant::now() >= round.end {
            return Ok(None);
        }
        let from = cursor.as_deref().unwrap_or("0");
        let replies = self.ask(&[plain(&["SSCAN", key, from, "COUNT", STEP])])?;
        let [next, members] = items(&replies[0]) else {
            return Ok(None);
        };
        *cursor = text(next);
        Ok(Some(texts(members)))
    }

    /// Sees to it that hosts become overdue that neither have a lease nor a time at which it ends.
    fn mourn(&mut self, hosts: &[String]) -> Result<(), StoreError> {
        let alive = self.keys.alive();
        let ask = hosts.iter().flat_map(|host| {
            [
                plain(&["EXISTS", &self.keys.lease(host)]),
                plain(&["ZSCORE", &alive, host]),
            ]
        });
        let replies = self.ask_many(&ask.collect::<Vec<_>>())?;
        let now = self.now().as_secs().to_string();
        let known = hosts.iter().zip(replies.chunks(2));
        let orphans =
            known.filter(|(_, known)| number(&known[0]) == Some(0) && number(&known[1]).is_none());
        let mourn: Vec<Cmd> = orphans
            .map(|(host, _)| plain(&["ZADD", &alive, "NX", &now, host]))
            .collect();
        self.ask_many(&mourn)?;
        Ok(())
    }

    /// Removes containers from a set (all of them, or one image's) that no host has; the hosts that the others are on.
    fn sweep_containers(
        &mut self,
        round: &mut Round,
        key: &str,
        image: Option<&str>,
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut hosts = BTreeSet::new();
        let mut cursor = None;
        while let Some(ids) = self.scan(round, key, &mut cursor)? {
            let owners = self.owners(&round.hosts, &ids, image)?;
            let mut suspects = Vec::new();
            for (id, owner) in ids.into_iter().zip(owners) {
                match owner {
                    Some(owner) => {
                        hosts.insert(owner);
                    }
                    None => suspects.push(id),
                }
            }
            if suspects.is_empty() {
                continue;
            }
            // Whoever puts such a container writes its hash: asked again under a watch, the answer stands.
            let mut watch = redis::cmd("WATCH");
            for id in &suspects {
                watch.arg(self.keys.container(id));
            }
            self.rewatch(watch)?;
            let owners = self.owners(&round.hosts, &suspects, image)?;
            let suspects = suspects.into_iter().zip(owners);
            let orphans = suspects.filter(|(_, owner)| owner.is_none());
            let orphans: Vec<String> = orphans.map(|(id, _)| id).collect();
            round.removed += self.remove_members(key, &orphans)?;
        }
        Ok(hosts)
    }

    /// Images, and where they run.
    fn sweep_images(&mut self, round: &mut Round) -> Result<(), StoreError> {
        let key = self.keys.images();
        let mut cursor = None;
        while let Some(images) = self.scan(round, &key, &mut cursor)? {
            for image in &images {
                let key = self.keys.image_containers(image);
                let explained = self.sweep_containers(round, &key, Some(image))?;
                self.sweep_image_hosts(round, image, &explained)?;
            }
            let mut watch = self.watch_images(&images);
            if watch.is_empty() {
                continue;
            }
            self.rewatch(watch.remove(0))?;
            let counts = self.ask_many(&watch)?;
            round.removed += counts
                .iter()
                .filter(|count| number(count) == Some(0))
                .count();
            self.leave_images(&images, &counts);
        }
        Ok(())
    }

    /// Removes hosts from an image's set that have no container of it.
    fn sweep_image_hosts(
        &mut self,
        round: &mut Round,
        image: &str,
        explained: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let key = self.keys.image_hosts(image);
        let mut cursor = None;
        while let Some(hosts) = self.scan(round, &key, &mut cursor)? {
            for host in hosts.iter().filter(|host| !explained.contains(*host)) {
                let manifest = self.keys.manifest(host);
                self.rewatch(plain(&["WATCH", &manifest]))?;
                let images = self.ask(&[plain(&["HVALS", &manifest])])?;
                let runs = texts(&images[0]).iter().any(|other| other == image);
                if !(runs && round.hosts.contains(host)) {
                    round.removed += self.remove_members(&key, std::slice::from_ref(host))?;
                }
            }
        }
        Ok(())
    }

    /// On which of the hosts each container is, by the manifests; with an image, only where it runs that image.
    fn owners(
        &mut self,
        hosts: &[String],
        ids: &[String],
        image: Option<&str>,
    ) -> Result<Vec<Option<String>>, StoreError> {
        let explains = |reply: &redis::Value| {
            text(reply).is_some_and(|found| image.is_none_or(|image| image == found))
        };
        // Its own hash names the host of nearly every container: one question more, instead of one for each host.
        let ask = ids
            .iter()
            .map(|id| plain(&["HGET", &self.keys.container(id), field::HOST]));
        let named = self.ask_many(&ask.collect::<Vec<_>>())?;
        let named: Vec<String> = named
            .iter()
            .map(|name| text(name).unwrap_or_default())
            .collect();
        let ask = ids
            .iter()
            .zip(&named)
            .map(|(id, host)| plain(&["HGET", &self.keys.manifest(host), id]));
        let replies = self.ask_many(&ask.collect::<Vec<_>>())?;
        let mut owners = Vec::with_capacity(ids.len());
        for ((id, host), reply) in ids.iter().zip(named).zip(&replies) {
            if explains(reply) && hosts.contains(&host) {
                owners.push(Some(host));
                continue;
            }
            let ask = hosts
                .iter()
                .map(|host| plain(&["HGET", &self.keys.manifest(host), id]));
            let replies = self.ask_many(&ask.collect::<Vec<_>>())?;
            let place = replies.iter().position(explains);
            owners.push(place.map(|place| hosts[place].clone()));
        }
        Ok(owners)
    }

    /// Watches these keys and nothing else.
    fn rewatch(&mut self, watch: Cmd) -> Result<(), StoreError> {
        self.armed.clear();
        self.ask(&[plain(&["UNWATCH"]), watch])?;
        Ok(())
    }

    /// Removes members, unless what is watched has changed; how many.
    fn remove_members(&mut self, key: &str, members: &[String]) -> Result<usize, StoreError> {
        if members.is_empty() {
            return Ok(0);
        }
        let mut command = redis::cmd("SREM");
        command.arg(key).arg(members);
        let ran = self.transact(&Transaction {
            body: vec![command],
            ..Transaction::default()
        })?;
        let count = ran.and_then(|ran| ran.replies.first().and_then(number));
        Ok(count.map_or(0, |count| usize::try_from(count).unwrap_or(0)))
    }

    /// Asks all of these, in as many round trips as it takes.
    fn ask_many(&mut self, commands: &[Cmd]) -> Result<Vec<redis::Value>, StoreError> {
        let mut replies = Vec::with_capacity(commands.len());
        for commands in commands.chunks(QUESTIONS) {
            replies.extend(self.ask(commands)?);
        }
        Ok(replies)
    }
}
