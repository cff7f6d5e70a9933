//! A model of the central store: what a [`Batch`] does, over maps, with leases that run out and replies that get lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::{StoreReply, StoreRequest, Time};
use crate::model::{ContainerId, EngineIndex};
use crate::store::{
    Applied, Audit, Batch, Beaten, Claim, Fenced, Found, FoundRun, Holder, HostBatch, OnceAsk,
    OnceState, OnceWish, Opened, StoreError, Swept, Taken,
};

const LEASE: Time = Time::from_secs(10);

/// The process and the run of the other agent.
const RIVAL: (u32, u64) = (0, 1);

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Served,
    /// It was done, and the reply was lost.
    LostAfter,
    /// The connection broke before it was done.
    LostBefore,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    pub host: usize,
    pub digest: u64,
    shape: u64,
    name: String,
    image: String,
    started_at: String,
    pub expires: Time,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Host {
    pub known: bool,
    pub fields: BTreeMap<String, String>,
    pub running: BTreeSet<String>,
    pub stopped: BTreeSet<String>,
    pub names: BTreeMap<String, String>,
    pub manifest: BTreeMap<String, String>,
    /// Of the four above but the manifest.
    expires: Time,
    pub last_update: Option<Time>,
    resume: Option<(i64, Time)>,
    pub lease: Option<(String, Time)>,
}

/// All that the store holds, and the state of our connection to it.
#[derive(Debug)]
pub struct Store {
    pub hosts: Vec<Host>,
    pub keys: BTreeMap<String, Key>,
    pub containers: BTreeSet<String>,
    pub images: BTreeSet<String>,
    pub image_hosts: BTreeMap<String, BTreeSet<usize>>,
    pub image_containers: BTreeMap<String, BTreeSet<String>>,
    /// Who runs what only one is to run, and which of its runs; nobody any more when it was done.
    pub once: BTreeMap<u128, (Option<(u32, u64)>, Time)>,
    /// Another agent sees everything first, and takes what it can.
    pub rival: bool,
    pub ttl: Time,
    pub resume_ttl: Time,
    pub up: bool,
    pub boot: u32,
    /// Faults in what a transaction says; a bug of the core.
    pub faults: Vec<String>,
    connected: bool,
    held: BTreeMap<usize, String>,
    pending: Option<(String, Vec<usize>, bool)>,
    sequence: u64,
}

impl Store {
    pub fn new(hosts: usize, interval: Time) -> Self {
        Store {
            hosts: vec![Host::default(); hosts],
            keys: BTreeMap::new(),
            containers: BTreeSet::new(),
            images: BTreeSet::new(),
            image_hosts: BTreeMap::new(),
            image_containers: BTreeMap::new(),
            once: BTreeMap::new(),
            rival: false,
            ttl: interval * 3,
            resume_ttl: Time::from_secs(300),
            up: true,
            boot: 1,
            faults: Vec::new(),
            connected: false,
            held: BTreeMap::new(),
            pending: None,
            sequence: 0,
        }
    }

    /// Another process takes our place at this end; what we held runs out by itself.
    pub fn new_process(&mut self) {
        self.boot += 1;
        self.connected = false;
        self.held.clear();
        self.pending = None;
    }

    /// FLUSHALL.
    pub fn flush(&mut self) {
        for host in &mut self.hosts {
            *host = Host::default();
        }
        self.keys.clear();
        self.containers.clear();
        self.images.clear();
        self.image_hosts.clear();
        self.image_containers.clear();
        self.once.clear();
    }

    /// What has run out of time goes.
    pub fn expire(&mut self, now: Time) {
        self.keys.retain(|_, key| key.expires > now);
        self.once.retain(|_, (_, until)| *until > now);
        for host in &mut self.hosts {
            if host.lease.as_ref().is_some_and(|(_, at)| *at <= now) {
                host.lease = None;
            }
            if host.resume.is_some_and(|(_, at)| at <= now) {
                host.resume = None;
            }
            if host.expires <= now {
                host.fields.clear();
                host.running.clear();
                host.stopped.clear();
                host.names.clear();
                host.last_update = None;
            }
        }
    }

    pub fn serve(&mut self, now: Time, request: &StoreRequest, fate: Fate) -> StoreReply {
        self.expire(now);
        let opening = matches!(request, StoreRequest::Open);
        if !self.up || (!opening && !self.connected) {
            self.connected = false;
            return failed("failed to reach Redis `model`: it is down", false);
        }
        if opening && fate != Fate::Served {
            return failed("failed to reach Redis `model`: it is down", false);
        }
        let apply = matches!(request, StoreRequest::Apply(_));
        let hosts = match request {
            StoreRequest::Apply(batch) => batch.hosts.iter().map(|share| share.host.at()).collect(),
            StoreRequest::Beat(claims) => claims.iter().map(|claim| claim.host.at()).collect(),
            _ => Vec::new(),
        };
        if fate == Fate::LostBefore {
            self.pending = Some((self.next_lease(), hosts, apply));
            self.connected = false;
            return failed("failed to talk to Redis `model`: connection reset", apply);
        }
        let held = self.held.clone();
        let reply = self.answer(now, request);
        if fate == Fate::LostAfter {
            let lease = format!("{}:{}", self.boot, self.sequence);
            let ran = !matches!(
                reply,
                StoreReply::Applied(Applied::Fenced(_)) | StoreReply::Beaten(Beaten::Fenced(_))
            );
            if ran && !hosts.is_empty() {
                self.pending = Some((lease, hosts, apply));
            }
            // We do not know what came of it.
            if !matches!(request, StoreRequest::Release(_)) {
                self.held = held;
            }
            self.connected = false;
            return failed("failed to talk to Redis `model`: connection reset", apply);
        }
        reply
    }

    fn next_lease(&mut self) -> String {
        self.sequence += 1;
        format!("{}:{}", self.boot, self.sequence)
    }

    fn answer(&mut self, now: Time, request: &StoreRequest) -> StoreReply {
        match request {
            StoreRequest::Open => StoreReply::Opened(self.open(now)),
            StoreRequest::Take(claims) => {
                StoreReply::Taken(claims.iter().map(|claim| self.take(now, claim)).collect())
            }
            StoreRequest::Apply(batch) => StoreReply::Applied(self.apply(now, batch)),
            StoreRequest::Beat(claims) => {
                let hosts: Vec<usize> = claims.iter().map(|claim| claim.host.at()).collect();
                match self.renew(now, &hosts) {
                    Ok(()) => StoreReply::Beaten(Beaten::Done {
                        overdue: Vec::new(),
                    }),
                    Err(fenced) => StoreReply::Beaten(Beaten::Fenced(fenced)),
                }
            }
            StoreRequest::Audit(host) => {
                StoreReply::Audited(*host, Box::new(self.audit(host.at())))
            }
            StoreRequest::Bury(_) => StoreReply::Buried(Vec::new()),
            StoreRequest::Sweep => StoreReply::Swept(Swept::default()),
            StoreRequest::Once(asks) => {
                StoreReply::Once(asks.iter().map(|ask| self.once(now, ask)).collect())
            }
            StoreRequest::Release(hosts) => {
                for host in hosts {
                    if self.held.remove(&host.at()).is_some() {
                        let host = &mut self.hosts[host.at()];
                        host.lease = None;
                        host.fields.insert("status".into(), "stopped".into());
                    }
                }
                StoreReply::Released
            }
        }
    }

    /// The other agent has run all that it took.
    pub fn rival_is_done(&mut self, now: Time) {
        for (owner, until) in self.once.values_mut() {
            if *owner == Some(RIVAL) {
                (*owner, *until) = (None, now + 2 * self.resume_ttl);
            }
        }
    }

    fn once(&mut self, now: Time, ask: &OnceAsk) -> OnceState {
        let own = Some((self.boot, ask.run));
        let entry = self.once.entry(ask.key);
        let first = if self.rival { Some(RIVAL) } else { own };
        let (owner, until) = entry.or_insert((first, now + LEASE));
        if ask.wish == OnceWish::Done {
            (*owner, *until) = (None, now + 2 * self.resume_ttl);
        } else if *owner == own {
            *until = now + LEASE;
        }
        match owner {
            None => OnceState::Done,
            owner if *owner == own => OnceState::Ours,
            _ => OnceState::Theirs,
        }
    }

    fn open(&mut self, now: Time) -> Opened {
        self.connected = true;
        let mut ran = None;
        if let Some((lease, hosts, report)) = self.pending.take() {
            for host in hosts {
                let Some(held) = self.held.get_mut(&host) else {
                    continue;
                };
                let read = self.hosts[host].lease.as_ref().map(|(lease, _)| lease);
                if read == Some(&lease) {
                    ran = Some(true);
                    held.clone_from(&lease);
                } else if read == Some(&*held) {
                    ran = ran.or(Some(false));
                }
            }
            ran = ran.filter(|_| report);
        }
        let held: Vec<usize> = self.held.keys().copied().collect();
        let fenced = self.sort(&held);
        let mut lost = fenced.lost;
        lost.extend(fenced.held.into_iter().map(|(host, _)| host));
        let rest: Vec<usize> = self.held.keys().copied().collect();
        let _ = self.renew(now, &rest);
        Opened {
            address: "model".into(),
            ran,
            lost,
        }
    }

    /// Which of these are not ours; they are held no more.
    fn sort(&mut self, hosts: &[usize]) -> Fenced {
        let mut fenced = Fenced::default();
        for host in hosts {
            let read = self.hosts[*host].lease.as_ref().map(|(lease, _)| lease);
            let index = EngineIndex(*host as u32);
            match (self.held.get(host), read) {
                (Some(held), Some(lease)) if held == lease => continue,
                (Some(_), Some(lease)) if !lease.starts_with(&format!("{}:", self.boot)) => {
                    fenced.held.push((index, Holder::Agent(lease.clone())));
                }
                _ => fenced.lost.push(index),
            }
            self.held.remove(host);
        }
        fenced
    }

    fn renew(&mut self, now: Time, hosts: &[usize]) -> Result<(), Fenced> {
        let fenced = self.sort(hosts);
        if fenced != Fenced::default() {
            return Err(fenced);
        }
        let lease = self.next_lease();
        for host in hosts {
            self.hosts[*host].lease = Some((lease.clone(), now + LEASE));
            self.held.insert(*host, lease.clone());
        }
        Ok(())
    }

    fn take(&mut self, now: Time, claim: &Claim) -> Taken {
        let lease = self.next_lease();
        let own = format!("{}:", self.boot);
        let host = &mut self.hosts[claim.host.at()];
        let outcome = match &host.lease {
            Some((other, _)) if !other.starts_with(&own) => Err(Holder::Agent(other.clone())),
            _ => {
                host.lease = Some((lease.clone(), now + LEASE));
                host.expires = now + self.ttl;
                self.held.insert(claim.host.at(), lease);
                Ok(Box::new(self.found(now, claim.host.at())))
            }
        };
        Taken {
            host: claim.host,
            outcome,
        }
    }

    fn found(&self, now: Time, host: usize) -> Found {
        let state = &self.hosts[host];
        let field = |name: &str| state.fields.get(name).cloned().unwrap_or_default();
        let word = |id: &String, word: fn(&Key) -> &String| {
            let key = self.keys.get(id).filter(|_| state.running.contains(id));
            key.map(word).cloned().unwrap_or_default()
        };
        let stopped = |id: &&String| !state.stopped.contains(*id);
        let listed: BTreeSet<&String> = state.manifest.keys().filter(stopped).collect();
        let ids = listed.into_iter().chain(&state.running);
        let runs = ids.collect::<BTreeSet<_>>().into_iter().map(|id| FoundRun {
            id: id.as_str().into(),
            name: word(id, |key| &key.name),
            image: word(id, |key| &key.image),
            started_at: word(id, |key| &key.started_at),
        });
        Found {
            known: state.known,
            status: field("status"),
            engine_id: field("engine_id"),
            running_jobs: field("running_jobs"),
            age_s: state.last_update.map(|at| (now - at).as_secs()),
            resume_ns: state.resume.map(|(ns, _)| ns),
            audit: self.audit(host),
            runs: runs.collect(),
        }
    }

    pub fn audit(&self, host: usize) -> Audit {
        let state = &self.hosts[host];
        let ids = |ids: &BTreeSet<String>| ids.iter().map(String::as_str).collect();
        let pairs = |pairs: &BTreeMap<String, String>| {
            let words = pairs.iter().flat_map(|(name, value)| [name, value]);
            words.map(String::as_str).collect()
        };
        Audit {
            running: ids(&state.running),
            stopped: ids(&state.stopped),
            names: pairs(&state.names),
            manifest: pairs(&state.manifest),
            listed: state.known,
            fields: state.fields.clone(),
            documents: Vec::new(),
        }
    }

    fn apply(&mut self, now: Time, batch: &Batch) -> Applied {
        let hosts: Vec<usize> = batch.hosts.iter().map(|share| share.host.at()).collect();
        if let Err(fenced) = self.renew(now, &hosts) {
            return Applied::Fenced(fenced);
        }
        let mut missing = Vec::new();
        for share in &batch.hosts {
            self.share(now, share, &mut missing);
        }
        Applied::Done { missing }
    }

    fn share(
        &mut self,
        now: Time,
        share: &HostBatch,
        missing: &mut Vec<(EngineIndex, ContainerId)>,
    ) {
        let at = share.host.at();
        let ttl = now + self.ttl;
        for name in &share.names_left {
            self.hosts[at].names.remove(&**name);
        }
        for gone in &share.drops {
            let id = gone.id.as_str();
            self.keys.remove(id);
            self.containers.remove(id);
            if let Some(image) = &gone.image {
                remove(&mut self.image_containers, image, &id.to_owned());
            }
            let host = &mut self.hosts[at];
            host.running.remove(id);
            host.stopped.remove(id);
            host.manifest.remove(id);
        }
        for put in &share.puts {
            self.put(now, at, put);
        }
        for image in &share.images_left {
            remove(&mut self.image_hosts, image, &at);
            if !self.image_hosts.contains_key(&**image) {
                self.images.remove(&**image);
            }
        }
        for id in &share.touches {
            match self.keys.get_mut(id.as_str()) {
                Some(key) => key.expires = ttl,
                None => missing.push((share.host, id.clone())),
            }
        }
        for (id, image) in &share.reassert {
            self.shared(at, id.as_str(), image);
        }
        self.host(now, share);
    }

    fn put(&mut self, now: Time, at: usize, put: &crate::store::Put) {
        let id = put.id.as_str();
        let summary = &put.document.summary;
        let ttl = now + self.ttl;
        let key = Key {
            host: at,
            digest: put.document.digest,
            shape: put.document.shape,
            name: summary.name.to_string(),
            image: summary.image.to_string(),
            started_at: summary.started_at.to_string(),
            expires: ttl,
        };
        let old = self.keys.insert(id.to_owned(), key);
        // A key that somebody deleted is whole again by what is written.
        if let (true, Some(old)) = (put.shaped, old) {
            assert_eq!(old.shape, put.document.shape, "a field stays that is none");
        }
        if !put.named {
            let names = &mut self.hosts[at].names;
            names.insert(summary.name.to_string(), id.to_owned());
        }
        if put.placed {
            return;
        }
        if let Some(image) = &put.image_left {
            remove(&mut self.image_containers, image, &id.to_owned());
        }
        let host = &mut self.hosts[at];
        host.expires = host.expires.max(ttl);
        host.manifest
            .insert(id.to_owned(), summary.image.to_string());
        if summary.running {
            host.running.insert(id.to_owned());
            host.stopped.remove(id);
            self.shared(at, id, &summary.image);
        } else {
            host.stopped.insert(id.to_owned());
            host.running.remove(id);
            self.containers.remove(id);
        }
    }

    fn shared(&mut self, host: usize, id: &str, image: &str) {
        self.containers.insert(id.to_owned());
        self.images.insert(image.to_owned());
        self.image_hosts
            .entry(image.to_owned())
            .or_default()
            .insert(host);
        self.image_containers
            .entry(image.to_owned())
            .or_default()
            .insert(id.to_owned());
    }

    fn host(&mut self, now: Time, share: &HostBatch) {
        let host = &mut self.hosts[share.host.at()];
        for name in &share.fields_left {
            host.fields.remove(name);
        }
        for (name, value) in &share.fields {
            host.fields.insert((*name).to_owned(), value.clone());
        }
        host.known |= share.enlist;
        if !share.fields.is_empty() || share.stamp {
            host.expires = host.expires.max(now + self.ttl);
        }
        if share.stamp {
            host.last_update = Some(now);
        }
        if share.renew {
            host.expires = now + self.ttl;
        }
        if let Some(ns) = share.resume_ns {
            host.resume = Some((ns, now + self.resume_ttl));
        }
        let told = host.fields.get("containers_running");
        if !share.forget && told != Some(&host.running.len().to_string()) {
            self.faults.push(format!(
                "{now:?}: containers_running is {told:?}, but {} run: {share:?}",
                host.running.len()
            ));
        }
        for (name, id) in &host.names {
            if !host.manifest.contains_key(id) && !share.forget {
                self.faults
                    .push(format!("{now:?}: `{name}` names {id}, which is not there"));
            }
        }
        if share.forget {
            *host = Host::default();
            self.held.remove(&share.host.at());
        }
    }
}

fn remove<T: Ord>(sets: &mut BTreeMap<String, BTreeSet<T>>, name: &str, member: &T) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(member);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}

fn failed(text: &str, uncertain: bool) -> StoreReply {
    StoreReply::Failed(StoreError {
        text: text.to_owned(),
        uncertain,
        timed_out: false,
    })
}
