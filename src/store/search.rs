//! The janitor's search for keys that have the form of ours, but nobody they could be of; and for containers' keys of a wrong type, which a renewal
//! of their time to live does not notice.
//!
//! A search goes through all keys of the database three times: for the hashes, the texts, and all. It never takes long at once: what a round
//! does not reach the next one does.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use redis::Cmd;

use super::StoreError;
use super::encode::plain;
use super::explained::Explained;
use super::keys::Owner;
use super::link::{items, text, texts};
use super::redis::RedisStore;
use super::sweep::{Doubt, Fault};
use super::take::is_agents;
use crate::model::digest;

/// What is searched for, one after the other; the last is any type.
const TYPES: [Option<&str>; 3] = [Some("hash"), Some("string"), None];

/// How many keys Redis looks at in one step.
const STEP: &str = "1000";

/// How long a round may search.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most keys that one round doubts.
const DOUBTS: usize = 5_000;

/// How far a search has come.
#[derive(Default)]
pub(super) struct Search {
    /// Which of [`TYPES`].
    pass: usize,
    /// Where in it, as Redis said; empty at its beginning.
    cursor: String,
    /// Digests of hashes and texts that are to be hashes and texts.
    fit: HashSet<u64>,
}

impl RedisStore {
    /// Searches on, from where the last round ended; adds keys that look wrong.
    pub(super) fn doubt_keys(
        &mut self,
        explained: &Explained,
        end: Instant,
        doubts: &mut Vec<Doubt>,
    ) -> Result<(), StoreError> {
        let end = end.min(Instant::now() + PATIENCE);
        let pattern = self.keys.pattern();
        let most = doubts.len() + DOUBTS;
        while Instant::now() < end && doubts.len() < most {
            let Some(wanted) = TYPES.get(self.search.pass).copied() else {
                self.search = Search::default();
                return Ok(());
            };
            let from = match self.search.cursor.as_str() {
                "" => "0",
                cursor => cursor,
            };
            let mut step = plain(&["SCAN", from, "MATCH", &pattern, "COUNT", STEP]);
            if let Some(wanted) = wanted {
                step.arg("TYPE").arg(wanted);
            }
            let replies = self.ask(&[step])?;
            let [next, found] = items(&replies[0]) else {
                return Ok(());
            };
            for key in texts(found) {
                self.look_at_key(&key, wanted, explained, doubts);
            }
            self.search.cursor = text(next).unwrap_or_default();
            if self.search.cursor == "0" {
                self.search.cursor.clear();
                self.search.pass += 1;
            }
        }
        Ok(())
    }

    fn look_at_key(
        &mut self,
        key: &str,
        searched: Option<&str>,
        explained: &Explained,
        doubts: &mut Vec<Doubt>,
    ) {
        let Some((owner, kind)) = self.keys.owner(key) else {
            return;
        };
        if searched.is_some() {
            if searched == Some(kind) {
                self.search.fit.insert(digest(key));
            }
            return;
        }
        let fits = match owner {
            Owner::Container(_) => self.search.fit.contains(&digest(key)),
            // Whoever reads these notices.
            Owner::Image(_) | Owner::Host(_) => true,
        };
        if explained.knows(owner) && fits {
            return;
        }
        let mut watch = vec![key.to_owned()];
        match owner {
            Owner::Container(id) => watch.push(self.keys.container(id)),
            Owner::Host(host) => watch.push(self.keys.lease(host)),
            Owner::Image(_) => {}
        }
        doubts.push(Doubt {
            fault: Fault::Key(key.to_owned()),
            watch,
        });
    }

    /// Which of these keys are of nobody, or of a wrong type.
    pub(super) fn wrong_keys<'a>(
        &mut self,
        explained: &Explained,
        keys: &[&'a str],
    ) -> Result<Vec<&'a str>, StoreError> {
        let mut known = Vec::new();
        let mut questions: Vec<Cmd> = Vec::new();
        for key in keys {
            let Some((owner, kind)) = self.keys.owner(key) else {
                continue;
            };
            // A host's agent has its lease before anything else is written.
            let lease = match owner {
                Owner::Host(host) => self.keys.lease(host),
                Owner::Container(_) | Owner::Image(_) => self.keys.lease(""),
            };
            known.push((*key, kind, explained.knows(owner)));
            questions.push(plain(&["TYPE", key]));
            questions.push(plain(&["PTTL", &lease]));
        }
        let replies = self.ask_many(&questions)?;
        let judged = known.into_iter().zip(replies.chunks(2));
        let wrong = judged.filter_map(|((key, kind, known), replies)| {
            let fits = text(&replies[0]).is_some_and(|found| found == kind);
            let leased = is_agents(&replies[1]);
            (!(known || leased) || !fits).then_some(key)
        });
        Ok(wrong.collect())
    }
}
