//! What the manifests of all hosts explain: the members that shared sets are to have, and whose keys may stand there.

use std::collections::{BTreeSet, HashMap, HashSet};

use redis::Value;

use super::StoreError;
use super::encode::plain;
use super::fence::LEASE_MS;
use super::keys::{Keys, Owner, field};
use super::link::{append, items, number, pairs, text};
use super::redis::RedisStore;
use super::scan::Scan;
use super::take::is_agents;
use crate::model::Words;

/// The most hosts that are asked for in one round trip.
const HOSTS: usize = 16;

/// How often a host that contradicts itself is asked again: it is read in steps, between which its agent may have written.
const AGAIN: usize = 2;

/// What the hosts say of themselves.
#[derive(Default)]
pub(super) struct Accounts {
    /// Hosts that report, and those whose agent is dead until they are expired.
    hosts: BTreeSet<String>,
    all: Vec<Account>,
}

/// What one host says of itself.
#[derive(Default)]
struct Account {
    host: String,
    manifest: Words,
    running: Words,
    stopped: Words,
}

impl Account {
    fn of(host: &str) -> Self {
        Account {
            host: host.to_owned(),
            ..Account::default()
        }
    }

    /// Does it fit together? One transaction writes all of it, so what does not was deleted by somebody, and more may be gone. `count` is how many
    /// containers run, as the host's hash has it.
    fn is_whole(&self, count: Option<usize>) -> bool {
        let listed: HashSet<&str> = self.manifest.pairs().map(|(id, _)| id).collect();
        let running: HashSet<&str> = self.running.iter().collect();
        let mut members = running.iter().copied().chain(self.stopped.iter());
        count.is_some_and(|count| count <= running.len()) && members.all(|id| listed.contains(id))
    }
}

/// What is explained by these accounts.
pub(super) struct Explained<'a> {
    /// As above.
    hosts: &'a BTreeSet<String>,
    /// All their containers, whether they run or not.
    containers: HashSet<&'a str>,
    /// Each shared set with its members.
    pub sets: HashMap<String, HashMap<&'a str, Reason<'a>>>,
    /// Images that run somewhere.
    pub images: BTreeSet<&'a str>,
}

/// Why somebody may be a member of a shared set.
pub(super) struct Reason<'a> {
    /// The host that says so.
    pub host: &'a str,
    /// It is known to run, so that the set must have it; else it is only not known to be stopped.
    pub runs: bool,
}

impl<'a> Explained<'a> {
    pub fn by(accounts: &'a Accounts, keys: &Keys) -> Self {
        let mut explained = Explained {
            hosts: &accounts.hosts,
            containers: HashSet::new(),
            // Their members may all be gone.
            sets: [keys.containers(), keys.images()]
                .map(|set| (set, HashMap::new()))
                .into(),
            images: BTreeSet::new(),
        };
        for account in &accounts.all {
            let running: HashSet<&str> = account.running.iter().collect();
            let stopped: HashSet<&str> = account.stopped.iter().collect();
            for (id, image) in account.manifest.pairs() {
                explained.containers.insert(id);
                if !stopped.contains(id) {
                    explained.container(keys, &account.host, id, image, running.contains(id));
                }
            }
        }
        explained
    }

    /// One container of a host.
    fn container(&mut self, keys: &Keys, host: &'a str, id: &'a str, image: &'a str, runs: bool) {
        self.member(keys.containers(), id, host, runs);
        if image.is_empty() {
            return;
        }
        self.member(keys.images(), image, host, runs);
        self.member(keys.image_hosts(image), host, host, runs);
        self.member(keys.image_containers(image), id, host, runs);
        self.images.insert(image);
    }

    fn member(&mut self, set: String, member: &'a str, host: &'a str, runs: bool) {
        let members = self.sets.entry(set).or_default();
        if runs || !members.contains_key(member) {
            members.insert(member, Reason { host, runs });
        }
    }

    /// Why this set may have this member, if it may.
    pub fn reason(&self, set: &str, member: &str) -> Option<&Reason<'a>> {
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

impl RedisStore {
    /// Reads the manifests of all hosts. `None`: nobody must be judged by this, for a host of our own is not listed at this moment, so others that live
    /// may be missing too; or a host that lives contradicts itself, and its agent puts that right with its next resync.
    pub(super) fn accounts(&mut self) -> Result<Option<Accounts>, StoreError> {
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
        let mut accounts = Accounts::default();
        let names: Vec<&String> = hosts.iter().collect();
        for names in names.chunks(HOSTS) {
            for (mut account, mut is_good) in self.read_accounts(names, &timely)? {
                for _ in 0..AGAIN {
                    if is_good {
                        break;
                    }
                    let host = account.host.clone();
                    if let Some(again) = self.read_accounts(&[&host], &timely)?.pop() {
                        (account, is_good) = again;
                    }
                }
                if !is_good {
                    return Ok(None);
                }
                accounts.all.push(account);
            }
        }
        accounts.hosts = hosts;
        Ok(Some(accounts))
    }

    /// What these hosts say of themselves, and whether nobody who lives contradicts himself.
    fn read_accounts(
        &mut self,
        hosts: &[&String],
        timely: &HashSet<String>,
    ) -> Result<Vec<(Account, bool)>, StoreError> {
        let mut all: Vec<Account> = hosts.iter().map(|host| Account::of(host)).collect();
        let keys = hosts.iter().flat_map(|host| {
            [
                (Scan::Hash, self.keys.manifest(host)),
                (Scan::Set, self.keys.host_containers(host)),
                (Scan::Set, self.keys.host_stopped(host)),
            ]
        });
        let keys: Vec<(Scan, String)> = keys.collect();
        self.scan(&keys, None, |at, found| {
            let account = &mut all[at / 3];
            match at % 3 {
                0 => append(&mut account.manifest, found, 2),
                1 => append(&mut account.running, found, 1),
                _ => append(&mut account.stopped, found, 1),
            }
        })?;
        let questions = hosts.iter().flat_map(|host| {
            let key = self.keys.host(host);
            [
                plain(&["HMGET", &key, field::STATUS, field::RUNNING]),
                plain(&["PTTL", &self.keys.lease(host)]),
            ]
        });
        let replies = self.ask_about_others(&questions.collect::<Vec<_>>())?;
        let judged = all.into_iter().zip(replies.chunks(2));
        let judged = judged.map(|(account, replies)| {
            let lives = is_agents(&replies[1]) || timely.contains(&account.host);
            let is_good = !lives || account.is_whole(running_count(&replies[0]));
            (account, is_good)
        });
        Ok(judged.collect())
    }
}

/// How many containers a host says it runs, by its status and that number; nothing where it has not reported.
fn running_count(reply: &Value) -> Option<usize> {
    let fields = items(reply);
    fields.first().and_then(text)?;
    let count = fields.get(1).and_then(number).unwrap_or(0);
    Some(usize::try_from(count).unwrap_or(0))
}
