//! What the manifests of all hosts explain: the members that shared sets are to have, and whose keys may stand there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::StoreError;
use super::encode::plain;
use super::fence::LEASE_MS;
use super::keys::{Keys, Owner, field};
use super::link::{items, number, pairs, text, texts};
use super::redis::RedisStore;
use super::take::is_agents;

/// The most hosts that are asked for in one round trip.
const HOSTS: usize = 16;

/// What is explained.
#[derive(Default)]
pub(super) struct Explained {
    /// Hosts that report, and those whose agent is dead until they are expired.
    pub hosts: BTreeSet<String>,
    /// All their containers, whether they run or not.
    containers: HashSet<Arc<str>>,
    /// Each shared set with its members.
    pub sets: HashMap<String, HashMap<Arc<str>, Reason>>,
    /// Images that run somewhere.
    pub images: BTreeSet<Arc<str>>,
}

/// Why somebody may be a member of a shared set.
pub(super) struct Reason {
    /// The host that says so.
    pub host: Arc<str>,
    /// It is known to run, so that the set must have it; else it is only not known to be stopped.
    pub runs: bool,
}

impl Explained {
    /// One container of a host.
    fn container(&mut self, keys: &Keys, host: &Arc<str>, id: Arc<str>, image: &str, runs: bool) {
        self.member(keys.containers(), &id, host, runs);
        if image.is_empty() {
            return;
        }
        let image: Arc<str> = match self.images.get(image) {
            Some(image) => image.clone(),
            None => image.into(),
        };
        self.member(keys.images(), &image, host, runs);
        self.member(keys.image_hosts(&image), host, host, runs);
        self.member(keys.image_containers(&image), &id, host, runs);
        self.images.insert(image);
    }

    fn member(&mut self, set: String, member: &Arc<str>, host: &Arc<str>, runs: bool) {
        let members = self.sets.entry(set).or_default();
        if runs || !members.contains_key(member) {
            let host = host.clone();
            members.insert(member.clone(), Reason { host, runs });
        }
    }

    /// Why this set may have this member, if it may.
    pub fn reason(&self, set: &str, member: &str) -> Option<&Reason> {
        self.sets.get(set)?.get(member)
    }

    /// May this one have keys?
    pub fn knows(&self, owner: Owner) -> bool {
        match owner {
            Owner::Container(id) => self.containers.contains(id),
            Owner::Image(image) => self.images.contains(image),
            Owner::Host(host) => self.hosts.contains(host),
        }
    }
}

/// What a host says of itself.
struct Account {
    manifest: Vec<(String, String)>,
    running: HashSet<String>,
    stopped: HashSet<String>,
}

impl Account {
    /// Its manifest, its sets, and its hash: status and how many containers run.
    fn read(replies: &[redis::Value]) -> (Account, Option<usize>) {
        let set = |reply| texts(reply).into_iter().collect();
        let account = Account {
            manifest: pairs(&replies[0]),
            running: set(&replies[1]),
            stopped: set(&replies[2]),
        };
        let hash = items(&replies[3]);
        let count = hash.get(1).and_then(number).unwrap_or(0);
        let reported = hash.first().and_then(text).is_some();
        (
            account,
            reported.then(|| usize::try_from(count).unwrap_or(0)),
        )
    }

    /// Does it fit together? One transaction writes all of it, so what does not was deleted by somebody, and more may be gone.
    fn is_whole(&self, count: Option<usize>) -> bool {
        let listed: HashSet<&String> = self.manifest.iter().map(|(id, _)| id).collect();
        let mut members = self.running.iter().chain(&self.stopped);
        count.is_some_and(|count| count <= self.running.len())
            && members.all(|id| listed.contains(id))
    }
}

impl RedisStore {
    /// Reads the manifests of all hosts. `None`: nobody must be judged by this, for a host of our own is not listed at this moment, so others that live
    /// may be missing too; or a host that lives contradicts itself, and its agent puts that right with its next resync.
    pub(super) fn explain(&mut self) -> Result<Option<Explained>, StoreError> {
        let mut hosts = self.listed_hosts()?;
        // A host that lives and misses among the hosts will be there again soon.
        let ask = plain(&["ZRANGE", &self.keys.alive(), "0", "-1", "WITHSCORES"]);
        let alive = pairs(&self.ask(&[ask])?[0]);
        let now = self.now().as_secs();
        let in_time = |end: &str| {
            let end = end.parse::<u64>();
            end.is_ok_and(|end| end > now && end <= now + LEASE_MS / 1000)
        };
        let timely = alive.iter().filter(|(_, end)| in_time(end));
        let timely: HashSet<String> = timely.map(|(host, _)| host.clone()).collect();
        hosts.extend(alive.into_iter().map(|(host, _)| host));
        if !self
            .held
            .keys()
            .all(|host| hosts.contains(self.host(*host)))
        {
            return Ok(None);
        }
        let mut explained = Explained::default();
        // Its members may all be gone.
        for set in [self.keys.containers(), self.keys.images()] {
            explained.sets.entry(set).or_default();
        }
        let all: Vec<Arc<str>> = hosts.iter().map(|host| host.as_str().into()).collect();
        for hosts in all.chunks(HOSTS) {
            let questions = hosts.iter().flat_map(|host| {
                [
                    plain(&["HGETALL", &self.keys.manifest(host)]),
                    plain(&["SMEMBERS", &self.keys.host_containers(host)]),
                    plain(&["SMEMBERS", &self.keys.host_stopped(host)]),
                    plain(&[
                        "HMGET",
                        &self.keys.host(host),
                        field::STATUS,
                        field::RUNNING,
                    ]),
                    plain(&["PTTL", &self.keys.lease(host)]),
                ]
            });
            let replies = self.ask_about_others(&questions.collect::<Vec<_>>())?;
            for (host, replies) in hosts.iter().zip(replies.chunks(5)) {
                let (account, count) = Account::read(replies);
                let lives = is_agents(&replies[4]) || timely.contains(&**host);
                if lives && !account.is_whole(count) {
                    return Ok(None);
                }
                for (id, image) in account.manifest {
                    let runs = account.running.contains(&id);
                    let rests = account.stopped.contains(&id);
                    let id: Arc<str> = id.into();
                    explained.containers.insert(id.clone());
                    if !rests {
                        explained.container(&self.keys, host, id, &image, runs);
                    }
                }
            }
        }
        explained.hosts = hosts;
        Ok(Some(explained))
    }
}
