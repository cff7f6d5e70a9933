//! The janitor: members of shared sets, and keys, that no manifest explains; and members that a manifest explains and that are missing.
//!
//! Nothing that works leaves such things; a crash of Redis between two saves, a foreign hand, or an agent of another version may. What looks wrong is
//! only a doubt: it is judged by manifests that are read again, in a transaction that watches what whoever makes it right would write.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::commands::Commands;
use super::encode::plain;
use super::explained::{Explained, Reason};
use super::fence::{LEASE_MS, Transaction};
use super::keys::Owner;
use super::link::{append, bytes, foreign, items, number, text};
use super::redis::RedisStore;
use super::scan::Scan;
use super::take::is_agents;
use super::{StoreError, Swept};
use crate::model::{Words, digest};

/// The most sets that are read in one round trip; each is a bit of a score, which is exact up to 53 of them.
const SETS: usize = 50;

/// A set that is to have no more members than these is read with others by one command, as a whole.
const FEW: usize = 100;

/// The most questions that are asked in one round trip.
const QUESTIONS: usize = 5_000;

/// The most doubts that are judged by one transaction.
const DOUBTS: usize = 500;

/// In so many rounds the sets of every image are looked into once: a fault in one of them is to be over within ten.
const TURNS: u64 = 8;

/// How long a round may take; what it did not reach has to wait for a round on a faster day.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something that looks wrong.
pub(super) struct Doubt {
    /// What is wrong with it.
    pub fault: Fault,
    /// Keys that are written by whoever makes this right.
    pub watch: Vec<String>,
}

/// What may be wrong.
pub(super) enum Fault {
    /// A member of a set that nobody explains; it need not be text.
    Foreign(String, Vec<u8>),
    /// A member that a set has not, although it runs on this host.
    Missing(String, Arc<str>, Arc<str>),
    /// A key of nobody, or of a wrong type; its name need not be text.
    Key(Vec<u8>),
}

/// A round of the janitor.
struct Round {
    /// Its number.
    turn: u64,
    /// When the next one may begin, in ms.
    next_ms: u128,
    /// Where the search for keys goes on.
    cursor: String,
}

impl Round {
    /// As the janitor's key tells it.
    fn parse(text: &str) -> Round {
        let mut parts = text.split(':');
        let turn = parts.next().and_then(|turn| turn.parse().ok());
        let next_ms = parts.next().and_then(|next| next.parse().ok());
        let cursor = parts.next().filter(|cursor| cursor.parse::<u64>().is_ok());
        Round {
            turn: turn.unwrap_or(0),
            next_ms: next_ms.unwrap_or(0),
            cursor: cursor.unwrap_or("0").to_owned(),
        }
    }
}

impl RedisStore {
    /// A round through the shared sets and the keys, if no agent made one in this interval.
    pub(super) fn sweep_all(&mut self) -> Result<Swept, StoreError> {
        let Some(mut round) = self.next_round()? else {
            return Ok(Swept::default());
        };
        let end = Instant::now() + PATIENCE;
        self.mend_shared()?;
        self.mourn()?;
        let Some(accounts) = self.accounts()? else {
            return Ok(Swept::default());
        };
        let explained = Explained::by(&accounts, &self.keys);
        let mut doubts = self.doubt_members(&explained, round.turn, end)?;
        round.cursor = self.doubt_keys(&explained, round.cursor, end, &mut doubts)?;
        let mut swept = Swept::default();
        for doubts in doubts.chunks(DOUBTS) {
            if Instant::now() >= end {
                break;
            }
            self.try_doubts(doubts, &mut swept)?;
        }
        // One that did not come so far is made again: who looks for what comes by turns has to wait for no second one.
        round.turn = round.turn.wrapping_add(1);
        let told = self.tell_round(&round);
        self.ask(&[told])?;
        Ok(swept)
    }

    /// Becomes the janitor of this interval, unless there is one: then `None`. Whoever it is goes on where the last one ended.
    fn next_round(&mut self) -> Result<Option<Round>, StoreError> {
        let key = self.keys.janitor();
        self.armed.clear();
        let replies = self.ask(&[
            plain(&["UNWATCH"]),
            plain(&["WATCH", &key]),
            plain(&["GET", &key]),
        ])?;
        let mut round = Round::parse(&text(&replies[2]).unwrap_or_default());
        let next_ms = round.next_ms;
        let (now_ms, interval_ms) = (self.now().as_millis(), self.options.interval.as_millis());
        // One that is further away was said before the clock stepped back.
        if (now_ms..=now_ms + interval_ms).contains(&next_ms) && next_ms > now_ms {
            return Ok(None);
        }
        // All agents ask once an interval: a little less, or whoever is early by a hair comes an interval late.
        round.next_ms = now_ms + interval_ms * 9 / 10;
        let ran = self.transact(&Transaction {
            body: Commands::of(&[self.tell_round(&round)]),
            ..Transaction::default()
        })?;
        Ok(ran.map(|_| round))
    }

    fn tell_round(&self, round: &Round) -> Cmd {
        let ttl = self.encoder().shared_ttl_s.to_string();
        let value = format!("{}:{}:{}", round.turn, round.next_ms, round.cursor);
        plain(&["SET", &self.keys.janitor(), &value, "EX", &ttl])
    }

    /// Shared keys whose types and times somebody may have changed, but for the sets that [`RedisStore::doubt_members`] looks into.
    fn mend_shared(&mut self) -> Result<(), StoreError> {
        self.mend_types(&[self.keys.alive()], "zset")?;
        self.mend_types(&[self.keys.events(), self.keys.runs()], "stream")?;
        let hosts = [self.keys.hosts()];
        self.mend_types(&hosts, "set")?;
        self.mend_times(&hosts)
    }

    /// Sees to it that these keys are of this type.
    fn mend_types(&mut self, keys: &[String], kind: &str) -> Result<(), StoreError> {
        let ask = keys.iter().map(|key| plain(&["TYPE", key]));
        let replies = self.ask(&ask.collect::<Vec<_>>())?;
        for (key, found) in keys.iter().zip(&replies) {
            if text(found).is_some_and(|found| found != kind && found != "none") {
                self.delete_unless(key, kind)?;
            }
        }
        Ok(())
    }

    /// Sees to it that these shared sets neither end soon nor never.
    fn mend_times(&mut self, keys: &[String]) -> Result<(), StoreError> {
        let ask = keys.iter().map(|key| plain(&["PTTL", key]));
        let replies = self.ask(&ask.collect::<Vec<_>>())?;
        let ttl_s = self.encoder().shared_ttl_s;
        let usual = ttl_s * 500..=ttl_s * 1000;
        let mut renewals = Vec::new();
        for (key, left) in keys.iter().zip(&replies) {
            let left_ms = match number(left) {
                // There is no such key.
                Some(-2) | None => continue,
                Some(left) => u64::try_from(left).unwrap_or(0),
            };
            if !usual.contains(&left_ms) {
                renewals.push(plain(&["EXPIRE", key, &ttl_s.to_string()]));
            }
        }
        self.ask_many(&renewals)?;
        Ok(())
    }

    /// Sees to it that hosts become overdue that have neither an agent's lease nor a time at which one ends.
    fn mourn(&mut self) -> Result<(), StoreError> {
        let alive = self.keys.alive();
        let timed = self.ask(&[plain(&["ZRANGE", &alive, "0", "-1"])])?;
        let key = self.keys.hosts();
        let mut hosts = Words::default();
        let mut unreadable = Vec::from_iter(foreign("ZREM", &alive, &timed[0], 1));
        self.scan(&[(Scan::Set, key.clone())], None, |_, found| {
            unreadable.extend(foreign("SREM", &key, found, 1));
            append(&mut hosts, found, 1);
        })?;
        self.ask_many(&unreadable)?;
        let ask = hosts.iter().flat_map(|host| {
            [
                plain(&["PTTL", &self.keys.lease(host)]),
                plain(&["ZSCORE", &alive, host]),
            ]
        });
        let replies = self.ask_many(&ask.collect::<Vec<_>>())?;
        let now = self.now().as_secs();
        // Redis's clock was set back, or somebody wrote it, where the end is further away than any agent says.
        let ends = |score: &Value| {
            let end = number(score).and_then(|end| u64::try_from(end).ok());
            end.is_some_and(|end| end <= now + LEASE_MS / 1000)
        };
        let known = hosts.iter().zip(replies.chunks(2));
        let orphans = known.filter(|(_, known)| !is_agents(&known[0]) && !ends(&known[1]));
        // An agent that came meanwhile has a lease, and says its own time at its next heartbeat.
        let now = now.to_string();
        let mourn: Vec<Cmd> = orphans
            .map(|(host, _)| plain(&["ZADD", &alive, &now, host]))
            .collect();
        self.ask_many(&mourn)?;
        Ok(())
    }

    /// Members of shared sets that nobody explains, and those that are missing: of all containers, of all images, and of a share of the images' own.
    fn doubt_members(
        &mut self,
        explained: &Explained,
        turn: u64,
        end: Instant,
    ) -> Result<Vec<Doubt>, StoreError> {
        let images = explained.images.iter();
        let images = images.filter(|image| digest(image) % TURNS == turn % TURNS);
        let of_images = images.flat_map(|image| {
            [
                self.keys.image_hosts(image),
                self.keys.image_containers(image),
            ]
        });
        let are_few = |set: &String| explained.sets.get(set).is_some_and(|set| set.len() <= FEW);
        let (few, mut many): (Vec<String>, Vec<String>) = of_images.partition(are_few);
        many.extend([self.keys.containers(), self.keys.images()]);
        let few = few.chunks(SETS).map(|keys| (keys, true));
        let many = many.chunks(SETS).map(|keys| (keys, false));
        let mut doubts = Vec::new();
        for (keys, are_few) in many.chain(few) {
            if Instant::now() >= end {
                break;
            }
            let wanted: Vec<_> = keys.iter().map(|set| explained.sets.get(set)).collect();
            let mut met = vec![HashSet::new(); keys.len()];
            let mut strangers = Vec::new();
            let mut meet = |at: usize, member: &[u8]| {
                let Some(wanted) = wanted[at] else { return };
                let name = str::from_utf8(member).ok();
                match name.and_then(|name| wanted.get_key_value(name)) {
                    Some((name, _)) => drop(met[at].insert(*name)),
                    None => strangers.push((at, member.to_owned())),
                }
            };
            let few = are_few && self.meet_few(keys, &mut meet)?;
            if !few {
                self.mend_types(keys, "set")?;
            }
            let all = few || self.meet_many(keys, end, &mut meet)?;
            for (at, member) in strangers {
                doubts.push(self.foreign(&keys[at], &member));
            }
            if !all {
                break;
            }
            self.mend_times(keys)?;
            for ((set, wanted), met) in keys.iter().zip(wanted).zip(met) {
                let missing = wanted.into_iter().flatten();
                let missing =
                    missing.filter(|(member, reason)| reason.runs && !met.contains(*member));
                doubts.extend(missing.map(|(member, reason)| Doubt {
                    fault: Fault::Missing(set.clone(), (*member).into(), reason.host.into()),
                    watch: vec![self.keys.manifest(reason.host)],
                }));
            }
        }
        Ok(doubts)
    }

    /// A member that nobody explains: whoever puts a container writes its hash, its host's manifest and its image's hosts.
    fn foreign(&self, set: &str, member: &[u8]) -> Doubt {
        let name = String::from_utf8_lossy(member);
        let watch = match self.keys.owner(set) {
            None if set == self.keys.images() => self.keys.image_hosts(&name),
            Some((Owner::Image(image), _)) if set == self.keys.image_hosts(image) => {
                self.keys.manifest(&name)
            }
            _ => self.keys.container(&name),
        };
        Doubt {
            fault: Fault::Foreign(set.to_owned(), member.to_owned()),
            watch: vec![watch],
        }
    }

    /// The members of `<p>:hosts` that an agent may have written.
    pub(super) fn listed_hosts(&mut self) -> Result<BTreeSet<String>, StoreError> {
        let mut hosts = Words::default();
        self.scan(&[(Scan::Set, self.keys.hosts())], None, |_, found| {
            append(&mut hosts, found, 1);
        })?;
        Ok(hosts.iter().map(str::to_owned).collect())
    }

    /// Shows all members of these sets, by one command that says of each the sum of its sets' bits. False where it is refused, and nothing is shown: one
    /// of them is no set, or Redis is too old.
    fn meet_few(
        &mut self,
        keys: &[String],
        mut meet: impl FnMut(usize, &[u8]),
    ) -> Result<bool, StoreError> {
        let mut union = redis::cmd("ZUNION");
        union.arg(keys.len()).arg(keys).arg("WEIGHTS");
        for at in 0..keys.len() {
            union.arg(1u64 << at);
        }
        union.arg("WITHSCORES");
        let Some(reply) = self.ask_what_may_be_refused(&union)? else {
            return Ok(false);
        };
        let scored = items(&reply).chunks_exact(2).map(|scored| {
            // A sorted set has scores of its own.
            let bits = number(&scored[1]).and_then(|bits| u64::try_from(bits).ok())?;
            (bits >> keys.len() == 0).then(|| (bytes(&scored[0]), bits))
        });
        let Some(scored) = scored.collect::<Option<Vec<_>>>() else {
            return Ok(false);
        };
        for (member, bits) in scored {
            let sets = (0..keys.len()).filter(|at| bits >> at & 1 == 1);
            sets.for_each(|at| meet(at, member));
        }
        Ok(true)
    }

    /// Shows all members of these sets in steps; false when time is over before that.
    fn meet_many(
        &mut self,
        keys: &[String],
        end: Instant,
        mut meet: impl FnMut(usize, &[u8]),
    ) -> Result<bool, StoreError> {
        let sets: Vec<_> = keys.iter().map(|key| (Scan::Set, key.clone())).collect();
        self.scan(&sets, Some(end), |at, found| {
            items(found)
                .iter()
                .for_each(|member| meet(at, bytes(member)));
        })
    }

    /// Looks again at what is in doubt, and puts right what is wrong, unless somebody is about to.
    fn try_doubts(&mut self, doubts: &[Doubt], swept: &mut Swept) -> Result<(), StoreError> {
        let mut watch = redis::cmd("WATCH");
        for key in doubts.iter().flat_map(|doubt| &doubt.watch) {
            watch.arg(key);
        }
        self.armed.clear();
        self.ask(&[plain(&["UNWATCH"]), watch])?;
        let Some(accounts) = self.accounts()? else {
            return Ok(());
        };
        let explained = Explained::by(&accounts, &self.keys);
        let keys = doubts.iter().filter_map(|doubt| match &doubt.fault {
            Fault::Key(key) => Some(key.as_slice()),
            Fault::Foreign(..) | Fault::Missing(..) => None,
        });
        let wrong = self.wrong_keys(&explained, &keys.collect::<Vec<_>>())?;
        let (body, restores) = self.remedy(doubts, &explained, &wrong);
        if body.is_empty() {
            return Ok(());
        }
        let ran = self.transact(&Transaction {
            body,
            ..Transaction::default()
        })?;
        let replies = ran.map_or_else(Vec::new, |ran| ran.replies);
        // Behind each restoration stands the renewal of its set.
        for (place, reply) in replies.iter().enumerate() {
            let count = number(reply).map_or(0, |count| usize::try_from(count).unwrap_or(0));
            match place.checked_sub(replies.len() - 2 * restores) {
                None => swept.removed += count,
                Some(place) if place % 2 == 0 => swept.restored += count,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Removals, and behind them, for so many sets, a restoration and a renewal.
    fn remedy(
        &self,
        doubts: &[Doubt],
        explained: &Explained,
        wrong: &[&[u8]],
    ) -> (Commands, usize) {
        let mut foreign: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
        let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for doubt in doubts {
            match &doubt.fault {
                Fault::Foreign(set, member)
                    if !explained
                        .sets
                        .get(set)
                        .is_some_and(|wanted| is_wanted(wanted, member)) =>
                {
                    foreign.entry(set).or_default().push(member);
                }
                Fault::Missing(set, member, host) => {
                    let reason = explained.reason(set, member);
                    if reason.is_some_and(|reason| reason.runs && reason.host == &**host) {
                        missing.entry(set).or_default().push(member);
                    }
                }
                Fault::Foreign(..) | Fault::Key(_) => {}
            }
        }
        let mut body = Commands::default();
        if !wrong.is_empty() {
            let mut command = redis::cmd("DEL");
            command.arg(wrong);
            body.push(&command);
        }
        for (set, members) in foreign {
            let mut command = redis::cmd("SREM");
            command.arg(set).arg(members);
            body.push(&command);
        }
        let (restores, ttl) = (missing.len(), self.encoder().shared_ttl_s.to_string());
        for (set, members) in missing {
            let mut command = redis::cmd("SADD");
            command.arg(set).arg(members);
            body.push(&command);
            body.push(&plain(&["EXPIRE", set, &ttl]));
        }
        (body, restores)
    }

    /// Asks all of these, in as many round trips as it takes.
    pub(super) fn ask_many(&mut self, commands: &[Cmd]) -> Result<Vec<redis::Value>, StoreError> {
        let mut replies = Vec::with_capacity(commands.len());
        for commands in commands.chunks(QUESTIONS) {
            replies.extend(self.ask(commands)?);
        }
        Ok(replies)
    }
}

/// Is a set to have this member?
fn is_wanted(wanted: &HashMap<&str, Reason>, member: &[u8]) -> bool {
    std::str::from_utf8(member).is_ok_and(|member| wanted.contains_key(member))
}
