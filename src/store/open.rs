//! Connecting, and what became of what was ours meanwhile.

use super::commands::Commands;
use super::encode::plain;
use super::fence::{Pending, TRIES, Transaction};
use super::keys::field;
use super::link::{Link, text};
use super::redis::RedisStore;
use super::{Opened, StoreError, errors};
use crate::config::CachePlace;
use crate::model::EngineIndex;

impl RedisStore {
    /// Connects anew, and looks what of ours is still ours.
    pub(super) fn connect(&mut self) -> Result<Opened, StoreError> {
        self.broken = None;
        self.armed.clear();
        // What waits for an answer must not be forgotten by the transaction that only proves that we may write.
        let pending = self.pending.take();
        self.link = None;
        let greeted = match (self.dial)() {
            Ok(wire) => {
                self.link = Some(Link::over(wire));
                self.greet()
            }
            Err(error) => Err(errors::unreachable(&self.options.shown_url, &error)),
        };
        self.pending = pending;
        greeted?;
        let (ran, lost) = self.recall()?;
        Ok(Opened {
            address: self.address(),
            ran,
            lost,
        })
    }

    fn address(&self) -> String {
        match &self.options.target.place {
            CachePlace::Unix(path) => path.display().to_string(),
            CachePlace::Tcp { host, port } if host.contains(':') => {
                format!("[{host}]:{port}/{}", self.options.target.database)
            }
            CachePlace::Tcp { host, port } => {
                format!("{host}:{port}/{}", self.options.target.database)
            }
        }
    }

    /// Logs in, and proves that transactions and writes are allowed by one that changes nothing.
    fn greet(&mut self) -> Result<(), StoreError> {
        let target = &self.options.target;
        let mut commands = Vec::new();
        if let Some(password) = &target.password {
            let mut login = redis::cmd("AUTH");
            login.arg(&target.username).arg(password);
            commands.push(login);
        }
        commands.push(plain(&["PING"]));
        if target.database != 0 {
            commands.push(plain(&["SELECT", &target.database.to_string()]));
        }
        self.ask(&commands)?;
        // No container has an empty id, and XX writes only what exists.
        let probe = plain(&["SET", &self.keys.container(""), "", "XX", "PX", "1"]);
        self.transact(&Transaction {
            body: Commands::of(&[probe]),
            ..Transaction::default()
        })?;
        match self.broken.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Which hosts are ours no more, and whether the transaction ran whose reply was lost.
    fn recall(&mut self) -> Result<(Option<bool>, Vec<EngineIndex>), StoreError> {
        let pending = self.pending.take();
        let mut lost = std::mem::take(&mut self.spoilt);
        let ran = self.judge(pending.as_ref(), &mut lost);
        lost.sort_unstable();
        lost.dedup();
        match ran {
            Ok(ran) => Ok((ran, lost)),
            Err(error) => {
                self.pending = pending;
                self.spoilt = lost;
                Err(error)
            }
        }
    }

    /// Reads all leases back. The old connection's bytes may still be on their way, or half read: the leases are written anew, which makes Redis refuse
    /// what comes late, and the answer final.
    fn judge(
        &mut self,
        pending: Option<&Pending>,
        lost: &mut Vec<EngineIndex>,
    ) -> Result<Option<bool>, StoreError> {
        for _ in 0..TRIES {
            let hosts: Vec<_> = self.held.keys().copied().collect();
            self.arm(&hosts)?;
            let mut ran = pending.and_then(|pending| self.compare(pending));
            if let (None, Some(pending)) = (ran, pending) {
                ran = self.marked(pending)?;
            }
            let ran = ran.filter(|_| pending.is_some_and(|pending| pending.report));
            let fenced = self.sort(&hosts);
            lost.extend(fenced.lost);
            lost.extend(fenced.held.iter().map(|(host, _)| *host));
            if pending.is_none() || self.held.is_empty() {
                return Ok(ran);
            }
            let renewal = Transaction {
                hosts: self.held.keys().copied().collect(),
                ..Transaction::default()
            };
            if self.transact(&renewal)?.is_some() {
                return Ok(ran);
            }
        }
        Err(self.contended())
    }

    /// Did this transaction run, by what it left beside the leases, which are gone?
    fn marked(&mut self, pending: &Pending) -> Result<Option<bool>, StoreError> {
        let Some((host, mark)) = &pending.mark else {
            return Ok(None);
        };
        let key = self.keys.host(self.host(*host));
        let found = self.ask(&[plain(&["HGET", &key, field::LAST_BATCH])])?;
        let ran = found.first().and_then(text).as_ref() == Some(mark);
        Ok(ran.then_some(true))
    }

    /// Did this transaction run, by the leases as they were read?
    fn compare(&mut self, pending: &Pending) -> Option<bool> {
        let mut ran = None;
        for host in &pending.hosts {
            let read = self.armed.get(host).cloned().flatten();
            let Some(hold) = self.held.get_mut(host) else {
                continue;
            };
            if read.as_ref() == Some(&pending.lease) {
                ran = Some(true);
                hold.lease.clone_from(&pending.lease);
            } else if read.as_ref() == Some(&hold.lease) {
                ran = ran.or(Some(false));
            }
        }
        ran
    }
}
