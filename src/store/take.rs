//! Becoming the writer of a host, and reading what the store holds of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redis::{Cmd, Value};

use super::commands::Commands;
use super::encode::plain;
use super::fence::{LEASE_MS, TRIES, Transaction};
use super::keys::field;
use super::link::{append, foreign, items, number, pairs, text};
use super::redis::{RedisStore, seconds};
use super::scan::Scan;
use super::{Audit, Claim, Found, FoundRun, Holder, StoreError, Taken};
use crate::model::{ContainerId, EngineIndex, Words, digest};

/// The most hosts that are taken by one transaction.
const CLAIMS: usize = 64;

/// The most containers that are asked for in one round trip.
const CHUNK: usize = 500;

impl RedisStore {
    /// Tries to get the leases, and reads what is there of the hosts that it got.
    pub(super) fn take_hosts(&mut self, claims: &[Claim]) -> Result<Vec<Taken>, StoreError> {
        let ids = claims.iter().map(|claim| (claim.host, claim.id.clone()));
        self.ids.extend(ids);
        let mut taken = Vec::with_capacity(claims.len());
        for claims in claims.chunks(CLAIMS) {
            let holders = self.take_leases(claims)?;
            for (claim, holder) in claims.iter().zip(holders) {
                let host = claim.host;
                let outcome = match holder {
                    Some(holder) => Err(holder),
                    None => Ok(Box::new(self.find(host)?)),
                };
                taken.push(Taken { host, outcome });
            }
        }
        Ok(taken)
    }

    /// Takes all leases that are free, or ours already, in one transaction; says who holds each of the others.
    fn take_leases(&mut self, claims: &[Claim]) -> Result<Vec<Option<Holder>>, StoreError> {
        for _ in 0..TRIES {
            let mut holders = self.watch_holders(claims)?;
            self.respect_rivals(claims, &mut holders)?;
            let free: Vec<&Claim> = claims
                .iter()
                .zip(&holders)
                .filter_map(|(claim, holder)| holder.is_none().then_some(claim))
                .collect();
            if free.is_empty() {
                return Ok(holders);
            }
            if self.transact(&self.taking(&free))?.is_some() {
                for claim in free {
                    let hold = self.held.entry(claim.host).or_default();
                    hold.identity.clone_from(&claim.identity);
                }
                return Ok(holders);
            }
        }
        Err(self.contended())
    }

    /// Watches the leases and the engines' keys of these claims, and says who holds which.
    fn watch_holders(&mut self, claims: &[Claim]) -> Result<Vec<Option<Holder>>, StoreError> {
        let engines = claims
            .iter()
            .filter_map(|claim| Some(self.keys.engine(claim.identity.as_ref()?)));
        let mut names: Vec<String> = claims
            .iter()
            .map(|claim| self.keys.lease(self.host(claim.host)))
            .collect();
        names.extend(engines);
        let mut leases = self.watch_leases(&names)?;
        let mut engines = leases.split_off(claims.len()).into_iter();

        let mut seen: HashMap<&Arc<str>, &str> = HashMap::new();
        let mut holders = Vec::with_capacity(claims.len());
        for (claim, lease) in claims.iter().zip(leases) {
            let id = self.host(claim.host);
            let reported = claim.identity.as_ref().and_then(|identity| {
                let stored = engines.next().flatten();
                // Two hosts of this very process may be one engine under two addresses.
                let first = *seen.entry(identity).or_insert(id);
                stored.or_else(|| Some(first.to_owned()))
            });
            holders.push(match (lease, reported) {
                (Some(lease), _) if !self.is_own(&lease) => Some(Holder::Agent(lease)),
                (_, Some(other)) if other != id => Some(Holder::Host(other)),
                _ => None,
            });
        }
        Ok(holders)
    }

    /// Watches these keys, and says what stands in each that is an agent's.
    fn watch_leases(&mut self, names: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        let mut commands = vec![plain(&["UNWATCH"])];
        for name in ["WATCH", "MGET"] {
            let mut command = redis::cmd(name);
            command.arg(names);
            commands.push(command);
        }
        commands.extend(names.iter().map(|name| plain(&["PTTL", name])));
        // Our own leases are watched no more.
        self.armed.clear();
        let replies = self.ask(&commands)?;
        let found = items(&replies[2]).iter().zip(&replies[3..]);
        Ok(found
            .map(|(found, left)| text(found).filter(|_| is_agents(left)))
            .collect())
    }

    /// The transaction that makes these hosts ours.
    fn taking(&self, free: &[&Claim]) -> Transaction {
        let limit = LEASE_MS.to_string();
        let until = (self.now().as_secs() + LEASE_MS / 1000).to_string();
        let ttl = seconds(self.options.ttl).to_string();
        let mut alive = redis::cmd("ZADD");
        alive.arg(self.keys.alive());
        let mut body = Commands::default();
        for claim in free {
            let id = self.host(claim.host);
            alive.arg(&until).arg(id);
            // What is found now must still be there when the first report is written against it.
            for key in [
                self.keys.host(id),
                self.keys.host_containers(id),
                self.keys.host_stopped(id),
                self.keys.names(id),
            ] {
                body.push(&plain(&["EXPIRE", &key, &ttl]));
            }
            if let Some(identity) = &claim.identity {
                let key = self.keys.engine(identity);
                body.push(&plain(&["SET", &key, id, "PX", &limit]));
            }
        }
        body.push(&alive);
        Transaction {
            hosts: free.iter().map(|claim| claim.host).collect(),
            body,
            ..Transaction::default()
        }
    }

    /// What the store holds of a host.
    fn find(&mut self, host: EngineIndex) -> Result<Found, StoreError> {
        let audit = self.read_audit(host)?;
        let id = self.host(host);
        let key = self.keys.host(id);
        let replies = self.ask(&[
            plain(&["SISMEMBER", &self.keys.hosts(), id]),
            plain(&[
                "HMGET",
                &key,
                field::STATUS,
                field::ENGINE_ID,
                field::LAST_UPDATE,
                field::RUNNING_JOBS,
            ]),
            plain(&["GET", &self.keys.resume(id)]),
        ])?;
        let fields = items(&replies[1]);
        let word = |at: usize| fields.get(at).and_then(text);
        let updated = fields.get(2).and_then(number);
        let now = self.now().as_secs();
        let runs = self.find_runs(&audit)?;
        Ok(Found {
            known: number(&replies[0]) == Some(1),
            status: word(0).unwrap_or_default(),
            engine_id: word(1).unwrap_or_default(),
            age_s: updated.map(|updated| now.saturating_sub(updated.unsigned_abs())),
            resume_ns: number(&replies[2]),
            running_jobs: word(3).unwrap_or_default(),
            audit,
            runs,
        })
    }

    /// What ran according to the store, and what may have run: all that is in the manifest and not known to be stopped.
    fn find_runs(&mut self, audit: &Audit) -> Result<Vec<FoundRun>, StoreError> {
        let mut runs = Vec::new();
        let running: Vec<&str> = audit.running.iter().collect();
        for ids in running.chunks(CHUNK) {
            let ask = ids.iter().map(|id| {
                let key = self.keys.container(id);
                plain(&["HMGET", &key, field::NAME, field::IMAGE, field::STARTED_AT])
            });
            let replies = self.ask(&ask.collect::<Vec<Cmd>>())?;
            let found = ids.iter().zip(&replies);
            runs.extend(found.map(|(id, reply)| found_run(id, items(reply))));
        }
        let known: HashSet<&str> = audit.running.iter().chain(audit.stopped.iter()).collect();
        let listed = audit.manifest.pairs().map(|(id, _)| id);
        let unknown = listed.filter(|id| !known.contains(id));
        runs.extend(unknown.map(|id| found_run(id, &[])));
        Ok(runs)
    }

    /// What the store says of one host's containers. A key of a wrong type is deleted, and said to be empty.
    pub(super) fn read_audit(&mut self, host: EngineIndex) -> Result<Audit, StoreError> {
        let id = self.host(host);
        let own = [
            (self.keys.host_containers(id), "set"),
            (self.keys.host_stopped(id), "set"),
            (self.keys.names(id), "hash"),
            (self.keys.manifest(id), "hash"),
            (self.keys.hosts(), "set"),
            (self.keys.host(id), "hash"),
        ];
        let types = self.ask(&own.each_ref().map(|(key, _)| plain(&["TYPE", key])))?;
        for ((key, kind), found) in own.iter().zip(&types) {
            if !matches!(text(found).as_deref(), Some(found) if found == "none" || found == *kind) {
                self.delete_unless(key, kind)?;
            }
        }
        let mut audit = Audit::default();
        let mut foreign_names = Vec::new();
        let keys = own[..4].iter().map(|(key, kind)| {
            let scan = if *kind == "set" {
                Scan::Set
            } else {
                Scan::Hash
            };
            (scan, key.clone())
        });
        let keys: Vec<(Scan, String)> = keys.collect();
        let show = |at: usize, found: &Value| {
            let (verb, step, words) = match at {
                0 => ("SREM", 1, &mut audit.running),
                1 => ("SREM", 1, &mut audit.stopped),
                2 => ("HDEL", 2, &mut audit.names),
                _ => ("HDEL", 2, &mut audit.manifest),
            };
            foreign_names.extend(foreign(verb, &keys[at].1, found, step));
            append(words, found, step);
        };
        self.scan(&keys, None, show)?;
        let id = self.host(host);
        let hash = self.keys.host(id);
        let replies = self.ask(&[
            plain(&["SISMEMBER", &self.keys.hosts(), id]),
            plain(&["HGETALL", &hash]),
        ])?;
        audit.listed = number(&replies[0]) == Some(1);
        audit.fields = pairs(&replies[1])
            .into_iter()
            .filter(|(name, _)| !field::OF_THE_STORE.contains(&name.as_str()))
            .collect();
        foreign_names.extend(foreign("HDEL", &hash, &replies[1], 2));
        // Nobody could ask for those.
        self.ask_many(&foreign_names)?;
        if self.options.selfcheck {
            audit.documents = self.read_documents(host, &audit.manifest)?;
        }
        Ok(audit)
    }

    /// Digests of the documents of a host's manifest.
    fn read_documents(
        &mut self,
        host: EngineIndex,
        manifest: &Words,
    ) -> Result<Vec<(ContainerId, Option<u64>, bool)>, StoreError> {
        let mut documents = Vec::new();
        let ids: Vec<&str> = manifest.pairs().map(|(id, _)| id).collect();
        for ids in ids.chunks(CHUNK) {
            let questions = ids.iter().flat_map(|id| {
                let hash = self.keys.container(id);
                let json = self.keys.json(id);
                [plain(&["GET", &json]), plain(&["HGET", &hash, field::HOST])]
            });
            let replies = self.ask(&questions.collect::<Vec<_>>())?;
            for (id, pair) in ids.iter().zip(replies.chunks(2)) {
                let digest = pair.first().and_then(text).map(|json| digest(&json));
                let ours = pair.get(1).and_then(text).as_deref() == Some(self.host(host));
                documents.push((ContainerId::from(*id), digest, ours));
            }
        }
        Ok(documents)
    }
}

/// Is a lease an agent's, by the reply to its `PTTL`? One that is not there is not, nor one that never ends or later than any agent lets it.
pub(super) fn is_agents(left: &Value) -> bool {
    let left = number(left).and_then(|left| u64::try_from(left).ok());
    left.is_some_and(|left| left <= LEASE_MS)
}

/// A container as its hash has it; where that lacks anything, only that there was one.
fn found_run(id: &str, fields: &[Value]) -> FoundRun {
    let mut words = fields.iter().map(text);
    let mut word = || words.next().flatten();
    match (word(), word(), word()) {
        (Some(name), Some(image), Some(started_at)) => FoundRun {
            id: id.into(),
            name: name.trim_start_matches('/').to_owned(),
            image,
            started_at,
        },
        _ => FoundRun {
            id: id.into(),
            name: String::new(),
            image: String::new(),
            started_at: String::new(),
        },
    }
}
