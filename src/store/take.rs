//! Becoming the writer of a host, and reading what the store holds of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redis::{Cmd, Value};

use super::commands::Commands;
use super::encode::plain;
use super::fence::{LEASE_MS, TRIES, Transaction};
use super::keys::field;
use super::link::{foreign, items, number, pairs, text, texts};
use super::redis::{RedisStore, seconds};
use super::{Audit, Claim, Found, FoundRun, Holder, StoreError, Taken};
use crate::model::{ContainerId, EngineIndex, digest};

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
        for ids in audit.running.chunks(CHUNK) {
            let ask = ids.iter().map(|id| {
                let key = self.keys.container(id.as_str());
                plain(&["HMGET", &key, field::NAME, field::IMAGE, field::STARTED_AT])
            });
            let replies = self.ask(&ask.collect::<Vec<Cmd>>())?;
            let found = ids.iter().zip(&replies);
            runs.extend(found.map(|(id, reply)| found_run(id, items(reply))));
        }
        let known: HashSet<&ContainerId> = audit.running.iter().chain(&audit.stopped).collect();
        let listed = audit.manifest.iter().map(|(id, _)| id);
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
        let id = self.host(host);
        let replies = self.ask(&[
            plain(&["SMEMBERS", &self.keys.host_containers(id)]),
            plain(&["SMEMBERS", &self.keys.host_stopped(id)]),
            plain(&["HGETALL", &self.keys.names(id)]),
            plain(&["HGETALL", &self.keys.manifest(id)]),
            plain(&["SISMEMBER", &self.keys.hosts(), id]),
            plain(&["HGETALL", &self.keys.host(id)]),
        ])?;
        self.remove_foreign(host, &replies)?;
        let ids = |reply: &Value| -> Vec<ContainerId> {
            texts(reply)
                .iter()
                .map(|id| ContainerId::from(id.as_str()))
                .collect()
        };
        let documents = match self.options.selfcheck {
            true => self.read_documents(host, &replies[3])?,
            false => Vec::new(),
        };
        Ok(Audit {
            documents,
            running: ids(&replies[0]),
            stopped: ids(&replies[1]),
            names: pairs(&replies[2]),
            manifest: pairs(&replies[3])
                .into_iter()
                .map(|(id, image)| (ContainerId::from(id.as_str()), image))
                .collect(),
            listed: number(&replies[4]) == Some(1),
            fields: pairs(&replies[5])
                .into_iter()
                .filter(|(name, _)| !field::OF_THE_STORE.contains(&name.as_str()))
                .collect(),
        })
    }

    /// Removes what nobody could ask for, by the replies that an audit reads.
    fn remove_foreign(&mut self, host: EngineIndex, replies: &[Value]) -> Result<(), StoreError> {
        let id = self.host(host);
        let removals = [
            foreign("SREM", &self.keys.host_containers(id), &replies[0], 1),
            foreign("SREM", &self.keys.host_stopped(id), &replies[1], 1),
            foreign("HDEL", &self.keys.names(id), &replies[2], 2),
            foreign("HDEL", &self.keys.manifest(id), &replies[3], 2),
            foreign("HDEL", &self.keys.host(id), &replies[5], 2),
        ];
        self.ask_many(&removals.into_iter().flatten().collect::<Vec<_>>())?;
        Ok(())
    }

    /// Digests of the documents of a host's manifest.
    fn read_documents(
        &mut self,
        host: EngineIndex,
        manifest: &Value,
    ) -> Result<Vec<(ContainerId, Option<u64>, bool)>, StoreError> {
        let mut documents = Vec::new();
        for chunk in pairs(manifest).chunks(CHUNK) {
            let questions = chunk.iter().flat_map(|(id, _)| {
                let hash = self.keys.container(id);
                let json = self.keys.json(id);
                [plain(&["GET", &json]), plain(&["HGET", &hash, field::HOST])]
            });
            let replies = self.ask(&questions.collect::<Vec<_>>())?;
            for ((id, _), pair) in chunk.iter().zip(replies.chunks(2)) {
                let digest = pair.first().and_then(text).map(|json| digest(&json));
                let ours = pair.get(1).and_then(text).as_deref() == Some(self.host(host));
                documents.push((ContainerId::from(id.as_str()), digest, ours));
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
fn found_run(id: &ContainerId, fields: &[Value]) -> FoundRun {
    let mut words = fields.iter().map(text);
    let mut word = || words.next().flatten();
    match (word(), word(), word()) {
        (Some(name), Some(image), Some(started_at)) => FoundRun {
            id: id.clone(),
            name: name.trim_start_matches('/').to_owned(),
            image,
            started_at,
        },
        _ => FoundRun {
            id: id.clone(),
            name: String::new(),
            image: String::new(),
            started_at: String::new(),
        },
    }
}
