//! The central store as it is: a Redis, or whatever speaks its protocol and has transactions.
//!
//! One connection, used by the thread that calls, which waits for each request's answers. `fence` has the transactions, `open`, `take` and `rivals` the leases,
//! `once` those of commands, `lost`, `sweep` and `search` what other agents left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::commands::Commands;
use super::encode::{Encoder, plain};
use super::fence::{LEASE_MS, Pending, REQUEST_LIMIT, Ran, Transaction};
use super::keys::{Keys, field};
use super::link::{self, Link, Wire, number, text, texts};
use super::rivals::Rival;
use super::{
    Applied, Audit, Batch, Beaten, Burial, Claim, Fenced, Holder, HostBatch, OnceAsk, OnceState,
    Opened, Store, StoreError, Swept, Taken,
};
use crate::config::CacheTarget;
use crate::model::EngineIndex;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long shared sets live at least, in seconds.
const DAY_S: u64 = 86_400;

/// Whoever finds an agent dead says so in its host's hash, which must live longer than its lease and the search for it; in seconds.
const SEARCH_S: u64 = 30;

/// The most overdue hosts that a heartbeat asks for.
const OVERDUE: &str = "100";

/// What a store is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis answers, and as whom.
    pub target: CacheTarget,
    /// The URL without its password, for messages.
    pub shown_url: String,
    /// The first word of every key.
    pub prefix: String,
    /// Time to live of containers' and hosts' keys: three intervals.
    pub ttl: Duration,
    /// Time between two full resyncs.
    pub interval: Duration,
    /// Time to live of `resume`.
    pub replay_max_age: Duration,
    /// About how many entries a stream keeps.
    pub stream_maxlen: u64,
    /// Names this process in its leases; never used before by any other.
    pub boot: String,
    /// An audit reads every document back: [`super::Audit::documents`].
    pub selfcheck: bool,
}

/// How to get a new connection.
pub(super) type Dial = Box<dyn Fn() -> io::Result<Box<dyn Wire>> + Send>;

/// A host that is ours.
#[derive(Default)]
pub(super) struct Hold {
    /// Its lease, as we wrote it last.
    pub lease: String,
    /// The engine's identity, as it was claimed last.
    pub identity: Option<Arc<str>>,
}

/// The central store in Redis.
pub struct RedisStore {
    pub(super) options: Options,
    pub(super) keys: Keys,
    /// How to connect.
    pub(super) dial: Dial,
    /// The connection; none before `open` and after an error.
    pub(super) link: Option<Link>,
    /// Why the connection broke behind a transaction that ran.
    pub(super) broken: Option<StoreError>,
    /// When the present request must be over.
    pub(super) deadline: Instant,
    /// The ids of all hosts that were ever claimed.
    pub(super) ids: BTreeMap<EngineIndex, Arc<str>>,
    /// The hosts that are ours.
    pub(super) held: BTreeMap<EngineIndex, Hold>,
    /// Hosts that others held when we asked last.
    pub(super) rivals: BTreeMap<EngineIndex, Rival>,
    /// Leases that are watched, as they were read.
    pub(super) armed: BTreeMap<EngineIndex, Option<String>>,
    /// Counts transactions.
    pub(super) sequence: u64,
    /// The transaction whose reply has not come.
    pub(super) pending: Option<Pending>,
    /// Images that a host ceased to run, and that may have to leave the set of all: behind the next transaction, should its reply be lost the one after it.
    emptied: BTreeSet<String>,
    /// Hosts of a transaction that ran in part.
    pub(super) spoilt: Vec<EngineIndex>,
    /// Redis's clock, and when it was read.
    pub(super) clock: Option<(Instant, Duration)>,
}

impl RedisStore {
    /// A store that is not connected yet.
    pub fn new(options: Options) -> Self {
        let place = options.target.place.clone();
        let dial = move || link::connect(&place, CONNECT_LIMIT);
        RedisStore::dialing(options, Box::new(dial))
    }

    /// A store that connects in a way of its own.
    pub(super) fn dialing(options: Options, dial: Dial) -> Self {
        RedisStore {
            dial,
            keys: Keys::new(&options.prefix),
            options,
            link: None,
            broken: None,
            deadline: Instant::now() + REQUEST_LIMIT,
            ids: BTreeMap::new(),
            held: BTreeMap::new(),
            rivals: BTreeMap::new(),
            armed: BTreeMap::new(),
            sequence: 0,
            pending: None,
            emptied: BTreeSet::new(),
            spoilt: Vec::new(),
            clock: None,
        }
    }

    /// The id of a host; empty for one that was never claimed, of which nothing is ever written.
    pub(super) fn host(&self, host: EngineIndex) -> &str {
        self.ids.get(&host).map_or("", |id| id)
    }

    pub(super) fn encoder(&self) -> Encoder<'_> {
        let ttl_s = seconds(self.options.ttl);
        Encoder {
            keys: &self.keys,
            ttl_s,
            host_ttl_s: ttl_s.max(SEARCH_S),
            shared_ttl_s: ttl_s.max(DAY_S),
            resume_ttl_s: seconds(self.options.replay_max_age),
            stream_maxlen: self.options.stream_maxlen,
            now: self.now(),
            commands: Commands::default(),
            touched: Vec::new(),
            counted: Vec::new(),
        }
    }

    /// Takes images out of the set of all whose last host left; `counts` are the sizes of their `:hosts`, read under a watch.
    ///
    /// Whoever starts such an image meanwhile changes the watched set, and this does not run. Should it fail, the sweep does it later.
    pub(super) fn leave_images(&mut self, images: &[String], counts: &[Value]) {
        let empty = images.iter().zip(counts);
        let empty = empty.filter(|(_, count)| number(count) == Some(0));
        let mut command = redis::cmd("SREM");
        command.arg(self.keys.images());
        let mut any = false;
        for (image, _) in empty {
            command.arg(image);
            any = true;
        }
        if !any {
            return;
        }
        let transaction = Transaction {
            body: Commands::of(&[command]),
            ..Transaction::default()
        };
        if let Err(error) = self.transact(&transaction) {
            self.broken = Some(error);
        }
    }

    /// Watches the `:hosts` sets of images, and asks how large they are.
    pub(super) fn watch_images(&self, images: &[String]) -> Vec<Cmd> {
        let mut commands = Vec::new();
        if !images.is_empty() {
            let mut watch = redis::cmd("WATCH");
            for image in images {
                watch.arg(self.keys.image_hosts(image));
            }
            commands.push(watch);
        }
        commands.extend(
            images
                .iter()
                .map(|image| plain(&["SCARD", &self.keys.image_hosts(image)])),
        );
        commands
    }

    /// The transaction of a heartbeat.
    fn heartbeat(&self, claims: &[Claim]) -> Transaction {
        let until = (self.now().as_secs() + LEASE_MS / 1000).to_string();
        let limit = LEASE_MS.to_string();
        let mut alive = redis::cmd("ZADD");
        alive.arg(self.keys.alive());
        let mut engines = Vec::new();
        for claim in claims {
            let host = self.host(claim.host);
            alive.arg(&until).arg(host);
            if let Some(identity) = &claim.identity {
                let key = self.keys.engine(identity);
                // Whoever was first stays; what stands there tells whether that was us.
                engines.push(plain(&["SET", &key, host, "PX", &limit, "NX"]));
                engines.push(plain(&["PEXPIRE", &key, &limit]));
                engines.push(plain(&["GET", &key]));
            }
        }
        let ttl = self.encoder().shared_ttl_s.to_string();
        let resume_ttl = self.encoder().resume_ttl_s.to_string();
        let mut body = Commands::of(&engines);
        body.push(&alive);
        // A successor takes up where we stopped, however long ago the last event was.
        body.extend(claims.iter().map(|claim| {
            let key = self.keys.resume(self.host(claim.host));
            plain(&["EXPIRE", &key, &resume_ttl])
        }));
        body.push(&plain(&["EXPIRE", &self.keys.alive(), &ttl]));
        Transaction {
            hosts: claims.iter().map(|claim| claim.host).collect(),
            body,
            then: vec![self.ask_overdue()],
            ..Transaction::default()
        }
    }

    fn ask_overdue(&self) -> Cmd {
        let now = format!("({}", self.now().as_secs());
        let alive = self.keys.alive();
        plain(&["ZRANGEBYSCORE", &alive, "-inf", &now, "LIMIT", "0", OVERDUE])
    }

    /// Which of these engines are reported under another host id, by what the heartbeat read.
    /// Those hosts are given up.
    fn elsewhere(&mut self, claims: &[Claim], replies: &[Value]) -> Result<Fenced, StoreError> {
        let mut fenced = Fenced::default();
        let claims = claims.iter().filter(|claim| claim.identity.is_some());
        for (claim, replies) in claims.zip(replies.chunks(3)) {
            match replies.get(2).and_then(text) {
                Some(owner) if owner != self.host(claim.host) => {
                    fenced.held.push((claim.host, Holder::Host(owner)));
                }
                _ => {
                    if let Some(hold) = self.held.get_mut(&claim.host) {
                        hold.identity.clone_from(&claim.identity);
                    }
                }
            }
        }
        let hosts: Vec<_> = fenced.held.iter().map(|(host, _)| *host).collect();
        self.give_back(&hosts, Farewell::ForGood)?;
        Ok(fenced)
    }
}

impl Store for RedisStore {
    fn open(&mut self) -> Result<Opened, StoreError> {
        self.begin();
        self.connect()
    }

    fn take(&mut self, claims: &[Claim]) -> Result<Vec<Taken>, StoreError> {
        self.begin();
        self.take_hosts(claims)
    }

    fn apply(&mut self, batch: &Batch) -> Result<Applied, StoreError> {
        self.begin();
        // A stream's entry is there twice if the transaction is run twice, so one whose reply was lost must be known by more than its lease.
        let told = |share: &&HostBatch| !share.happened.is_empty() && !share.forget;
        let told = batch.hosts.iter().find(told).map(|share| share.host);
        let mark = told.map(|host| (host, format!("{}:{}", self.options.boot, self.sequence)));
        let mut encoder = self.encoder();
        for share in &batch.hosts {
            let identity = self.held.get(&share.host);
            let identity = identity.and_then(|hold| hold.identity.as_deref());
            let mark = mark.as_ref().filter(|(host, _)| *host == share.host);
            let mark = mark.map(|(_, mark)| mark.as_str());
            encoder.host(self.host(share.host), identity, mark, share);
        }
        let (touched, counted) = (encoder.touched, encoder.counted);
        let body = encoder.commands;
        let left = batch.hosts.iter().flat_map(|share| &share.images_left);
        self.emptied.extend(left.map(|image| image.to_string()));
        let images: Vec<String> = self.emptied.iter().cloned().collect();
        let leaving = batch.hosts.iter().filter(|share| share.forget);
        let transaction = Transaction {
            hosts: batch.hosts.iter().map(|share| share.host).collect(),
            leaving: leaving.map(|share| share.host).collect(),
            body,
            then: self.watch_images(&images),
            report: true,
            mark,
        };
        let Ran { replies, then } = match self.fenced(&transaction)? {
            Ok(ran) => ran,
            Err(fenced) => return Ok(Applied::Fenced(fenced)),
        };
        if let Some((_, counts)) = then.split_first() {
            self.leave_images(&images, counts);
        }
        if self.broken.is_none() {
            self.emptied.clear();
        }
        let renewed = |place: usize| replies.get(place).and_then(number) == Some(1);
        let missing = touched
            .into_iter()
            .filter(|(place, ..)| !renewed(*place) || !renewed(place + 1))
            .map(|(_, host, id)| (host, id));
        let has = |place: usize, count| replies.get(place).and_then(number) == Some(count);
        let others = counted
            .into_iter()
            .filter(|(place, count, ..)| !has(*place, *count))
            .map(|(_, _, host, id)| (host, id));
        let missing = missing.chain(others).collect();
        Ok(Applied::Done { missing })
    }

    fn beat(&mut self, claims: &[Claim]) -> Result<Beaten, StoreError> {
        self.begin();
        let overdue = if claims.is_empty() {
            let ask = [plain(&["TIME"]), self.ask_overdue()];
            self.ask(&ask)?.pop()
        } else {
            let transaction = self.heartbeat(claims);
            let Ran { replies, mut then } = match self.fenced(&transaction)? {
                Ok(ran) => ran,
                Err(fenced) => return Ok(Beaten::Fenced(fenced)),
            };
            let fenced = self.elsewhere(claims, &replies)?;
            if fenced != Fenced::default() {
                return Ok(Beaten::Fenced(fenced));
            }
            then.pop()
        };
        let mut overdue = overdue.map_or_else(Vec::new, |reply| texts(&reply));
        let ours = |id: &String| self.held.keys().any(|host| self.host(*host) == id);
        overdue.retain(|id| !ours(id));
        Ok(Beaten::Done { overdue })
    }

    fn audit(&mut self, host: EngineIndex) -> Result<Audit, StoreError> {
        self.begin();
        self.read_audit(host)
    }

    fn bury(&mut self, overdue: &[String]) -> Result<Vec<Burial>, StoreError> {
        self.begin();
        self.bury_hosts(overdue)
    }

    fn sweep(&mut self) -> Result<Swept, StoreError> {
        self.begin();
        self.sweep_all()
    }

    fn once(&mut self, asks: &[OnceAsk]) -> Result<Vec<OnceState>, StoreError> {
        self.begin();
        self.ask_once(asks)
    }

    fn release(&mut self, hosts: &[EngineIndex]) -> Result<(), StoreError> {
        self.begin();
        self.give_back(hosts, Farewell::Stopped)
    }
}

/// Why a host is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// We stop; a successor may be here soon.
    Stopped,
    /// Its engine is reported under another host id: the next who looks expires it.
    ForGood,
}

impl RedisStore {
    /// Gives hosts back, as far as they are ours.
    fn give_back(&mut self, hosts: &[EngineIndex], why: Farewell) -> Result<(), StoreError> {
        loop {
            let mut ours = hosts.to_vec();
            ours.retain(|host| self.held.contains_key(host));
            if ours.is_empty() {
                return Ok(());
            }
            let exist = ours
                .iter()
                .map(|host| plain(&["EXISTS", &self.keys.host(self.host(*host))]));
            let exist = self.ask(&exist.collect::<Vec<_>>())?;
            let mut body = Commands::default();
            for (host, exists) in ours.iter().zip(exist) {
                self.farewell(*host, why, number(&exists) == Some(1), &mut body);
            }
            let transaction = Transaction {
                hosts: ours.clone(),
                leaving: ours,
                body,
                ..Transaction::default()
            };
            // Hosts that turn out not to be ours need no farewell from us; the others are tried again.
            if self.fenced(&transaction)?.is_ok() {
                return Ok(());
            }
        }
    }

    /// Gives one host back. From now on it counts as overdue, so that somebody sees to it if no successor does.
    fn farewell(&self, host: EngineIndex, why: Farewell, reported: bool, body: &mut Commands) {
        let id = self.host(host);
        let now = self.now().as_secs().to_string();
        if reported {
            let hash = self.keys.host(id);
            body.push(&match why {
                Farewell::Stopped => plain(&["HSET", &hash, field::STATUS, "stopped"]),
                Farewell::ForGood => plain(&["DEL", &hash]),
            });
            body.push(&plain(&["ZADD", &self.keys.alive(), &now, id]));
        } else {
            body.push(&plain(&["ZREM", &self.keys.alive(), id]));
        }
        let mut gone = redis::cmd("DEL");
        gone.arg(self.keys.lease(id));
        let identity = self
            .held
            .get(&host)
            .and_then(|hold| hold.identity.as_deref());
        gone.arg(identity.map(|identity| self.keys.engine(identity)));
        body.push(&gone);
    }
}

/// A duration in whole seconds, none shorter than one.
pub(super) fn seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}
