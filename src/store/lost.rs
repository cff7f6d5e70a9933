//! Hosts whose agents are gone: marked as lost by the first who notices, expired by one when they have been silent for two intervals.
//!
//! Every transaction here watches the dead host's lease, and writes and deletes it again: so it is refused when the host lives again, and of several
//! agents that bury one host at a time only one gets through; the others leave it alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::commands::Commands;
use super::encode::plain;
use super::fence::Transaction;
use super::keys::field;
use super::link::{items, number, pairs, text};
use super::redis::RedisStore;
use super::take::is_agents;
use super::{Burial, StoreError};

/// The most containers that one transaction removes.
const STEP: usize = 500;

/// How long one call may go on; what is left is overdue again at the next heartbeat.
const PATIENCE: Duration = Duration::from_secs(2);

/// A host whose lease is gone.
struct Dead<'a> {
    id: &'a str,
    /// What `<p>:alive` says of it: another value means that somebody did something.
    score: i64,
    /// Its status; none when its hash ran out of time.
    status: Option<String>,
    /// It has been silent for two intervals.
    old: bool,
}

impl RedisStore {
    /// Sees to each of these hosts, as far as there is time.
    pub(super) fn bury_hosts(&mut self, overdue: &[String]) -> Result<Vec<Burial>, StoreError> {
        let end = Instant::now() + PATIENCE;
        let mut burials = Vec::new();
        for id in overdue {
            if Instant::now() >= end {
                break;
            }
            self.bury_host(id, end, &mut burials)?;
        }
        Ok(burials)
    }

    fn bury_host(
        &mut self,
        id: &str,
        end: Instant,
        burials: &mut Vec<Burial>,
    ) -> Result<(), StoreError> {
        let Some(dead) = self.look_at(id)? else {
            return Ok(());
        };
        // Without a hash there is nothing to mark: its keys ran out long ago.
        if !matches!(dead.status.as_deref(), None | Some("lost" | "stopped")) {
            let mut body = self.touch(&dead);
            body.push(&plain(&[
                "HSET",
                &self.keys.host(id),
                field::STATUS,
                "lost",
            ]));
            body.push(&plain(&[
                "PUBLISH",
                &self.keys.channel(),
                &format!("host_down:{id}"),
            ]));
            if self.run(body, &[])?.is_none() {
                return Ok(());
            }
            burials.push(Burial::Lost(id.to_owned()));
        }
        if dead.old
            && let Some(removed) = self.expire_host(&dead, end)?
        {
            burials.push(Burial::Expired(id.to_owned(), removed));
        }
        Ok(())
    }

    /// Watches a host's lease and reads what it was; `None` when it is alive, or somebody saw to it already.
    fn look_at<'a>(&mut self, id: &'a str) -> Result<Option<Dead<'a>>, StoreError> {
        self.armed.clear();
        let (lease, hash) = (self.keys.lease(id), self.keys.host(id));
        let replies = self.ask(&[
            plain(&["UNWATCH"]),
            plain(&["WATCH", &lease]),
            plain(&["PTTL", &lease]),
            plain(&["ZSCORE", &self.keys.alive(), id]),
            plain(&[
                "HMGET",
                &hash,
                field::STATUS,
                field::LAST_UPDATE,
                field::UPDATE_INTERVAL,
            ]),
            plain(&["TIME"]),
        ])?;
        let now = items(&replies[5]).first().and_then(number).unwrap_or(0);
        let score = number(&replies[3]).filter(|score| *score < now);
        let Some(score) = score.filter(|_| !is_agents(&replies[2])) else {
            return Ok(None);
        };
        let fields = items(&replies[4]);
        let status = fields.first().and_then(text);
        let updated = fields.get(1).and_then(number);
        let interval = fields
            .get(2)
            .and_then(|reply| text(reply)?.parse::<f64>().ok())
            .unwrap_or(self.options.interval.as_secs_f64());
        // Its agent may be back soon, also when its engine has long been away: the time counts from the last that was heard of either.
        let heard = updated.unwrap_or(0).max(score);
        let old = status.is_none() || (now - heard) as f64 >= 2.0 * interval;
        Ok(Some(Dead {
            id,
            score,
            status,
            old,
        }))
    }

    /// Removes all that a dead host left, in steps; how many containers that were, or `None` when somebody or something came between.
    fn expire_host(&mut self, dead: &Dead, end: Instant) -> Result<Option<usize>, StoreError> {
        let manifest = self.ask(&[plain(&["HGETALL", &self.keys.manifest(dead.id)])])?;
        let manifest = pairs(&manifest[0]);
        let mut steps: Vec<&[(String, String)]> = manifest.chunks(STEP).collect();
        if steps.is_empty() {
            steps.push(&[]);
        }
        let mut removed = 0;
        let count = steps.len();
        for (place, step) in steps.into_iter().enumerate() {
            if Instant::now() >= end {
                return Ok(None);
            }
            let Some(mine) = self.watch_step(dead, step)? else {
                return Ok(None);
            };
            let mut body = self.touch(dead);
            self.remove_containers(dead.id, step, &mine, &mut body);
            if place + 1 == count {
                self.remove_host(dead.id, &mut body);
            }
            let mut images: Vec<String> = step.iter().map(|(_, image)| image.clone()).collect();
            images.sort_unstable();
            images.dedup();
            let Some(counts) = self.run(body, &images)? else {
                return Ok(None);
            };
            self.leave_images(&images, &counts);
            removed += mine.iter().filter(|mine| **mine).count();
        }
        Ok(Some(removed))
    }

    /// Watches the lease and these containers; which of them are still this host's, or `None` when the host is not ours to bury any more.
    fn watch_step(
        &mut self,
        dead: &Dead,
        step: &[(String, String)],
    ) -> Result<Option<Vec<bool>>, StoreError> {
        let lease = self.keys.lease(dead.id);
        let mut watch = redis::cmd("WATCH");
        watch.arg(&lease);
        for (id, _) in step {
            watch.arg(self.keys.container(id));
        }
        let mut commands = vec![
            plain(&["UNWATCH"]),
            watch,
            plain(&["PTTL", &lease]),
            plain(&["ZSCORE", &self.keys.alive(), dead.id]),
        ];
        commands.extend(
            step.iter()
                .map(|(id, _)| plain(&["HGET", &self.keys.container(id), field::HOST])),
        );
        self.armed.clear();
        let replies = self.ask(&commands)?;
        if is_agents(&replies[2]) || number(&replies[3]) != Some(dead.score) {
            return Ok(None);
        }
        // Its hash may have run out of time; then what is left of it is this host's as well.
        let owners = replies[4..].iter().map(text);
        Ok(Some(
            owners
                .map(|owner| owner.is_none_or(|owner| owner == dead.id))
                .collect(),
        ))
    }

    /// Takes a step's containers out of everything; those that another host has by now only out of what is this host's.
    fn remove_containers(
        &self,
        host: &str,
        step: &[(String, String)],
        mine: &[bool],
        body: &mut Commands,
    ) {
        if step.is_empty() {
            return;
        }
        let mut manifest = redis::cmd("HDEL");
        manifest.arg(self.keys.manifest(host));
        let mut keys = redis::cmd("DEL");
        let mut shared = redis::cmd("SREM");
        shared.arg(self.keys.containers());
        let mut images: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for ((id, image), mine) in step.iter().zip(mine) {
            manifest.arg(id);
            let left = images.entry(image).or_default();
            if *mine {
                keys.arg(self.keys.container(id)).arg(self.keys.json(id));
                shared.arg(id);
                left.push(id);
            }
        }
        body.push(&manifest);
        if mine.contains(&true) {
            body.extend([keys, shared]);
        }
        for (image, ids) in images {
            body.push(&plain(&["SREM", &self.keys.image_hosts(image), host]));
            if !ids.is_empty() {
                let mut command = redis::cmd("SREM");
                command.arg(self.keys.image_containers(image)).arg(ids);
                body.push(&command);
            }
        }
    }

    /// The end of a host, and of its burial.
    fn remove_host(&self, host: &str, body: &mut Commands) {
        let mut encoder = self.encoder();
        encoder.commands = std::mem::take(body);
        encoder.forget(host, None);
        *body = encoder.commands;
        body.push(&plain(&[
            "PUBLISH",
            &self.keys.channel(),
            &format!("expired_host:{host}"),
        ]));
    }

    /// Makes every other transaction fail that watches this lease, and leaves no trace.
    fn touch(&self, dead: &Dead) -> Commands {
        let lease = self.keys.lease(dead.id);
        Commands::of(&[
            plain(&["SET", &lease, &self.options.boot]),
            plain(&["DEL", &lease]),
        ])
    }

    /// Runs a burial's transaction; the sizes of these images' `:hosts` behind it, or `None` when it was refused.
    fn run(
        &mut self,
        body: Commands,
        images: &[String],
    ) -> Result<Option<Vec<redis::Value>>, StoreError> {
        let ran = self.transact(&Transaction {
            body,
            then: self.watch_images(images),
            ..Transaction::default()
        })?;
        Ok(ran.map(|ran| {
            let counts = ran.then.split_first();
            counts.map_or_else(Vec::new, |(_, counts)| counts.to_vec())
        }))
    }
}
