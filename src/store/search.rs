//! The janitor's search for keys that have the form of ours, but nobody they could be of; and for keys of a wrong type, which a renewal of their time to
//! live does not notice.
//!
//! It goes through all keys of the database. It never takes long at once: what a round does not reach the next one does, whichever agent makes that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::StoreError;
use super::encode::plain;
use super::explained::Explained;
use super::fence::LEASE_MS;
use super::keys::Owner;
use super::link::{bytes, items, number, text};
use super::redis::RedisStore;
use super::sweep::{Doubt, Fault};

/// The types that our keys have.
const TYPES: [&str; 3] = ["hash", "string", "set"];

/// How many keys Redis looks at in one step.
const STEP: &str = "1000";

/// How long a round may search: a few hundred thousand keys.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most keys that one round doubts.
const DOUBTS: usize = 5_000;

/// A key without a reason goes by itself when its time is over: one of a container that lives no longer than so many intervals is left to that. So
/// nobody deletes what an agent renews, whatever became of its manifest.
const INTERVALS: u32 = 10;

impl RedisStore {
    /// Searches on from this cursor and adds keys that look wrong; where it ended, `0` after the last key.
    pub(super) fn doubt_keys(
        &mut self,
        explained: &Explained,
        mut cursor: String,
        end: Instant,
        doubts: &mut Vec<Doubt>,
    ) -> Result<String, StoreError> {
        let end = end.min(Instant::now() + PATIENCE);
        let pattern = self.keys.pattern();
        let most = doubts.len() + DOUBTS;
        loop {
            // The same step for each type, which costs less than to ask for the type of each key.
            let step = plain(&["SCAN", &cursor, "MATCH", &pattern, "COUNT", STEP]);
            let of_type = |kind: &&str| step.clone().arg("TYPE").arg(*kind).clone();
            let mut steps: Vec<Cmd> = TYPES.iter().map(of_type).collect();
            steps.push(step);
            let replies = self.ask(&steps)?;
            let Some([next, found]) = replies.last().map(items) else {
                return Ok("0".to_owned());
            };
            let mut types = HashMap::new();
            for (kind, reply) in TYPES.iter().zip(&replies) {
                let found = items(reply).get(1).map_or(&[][..], items);
                types.extend(found.iter().map(|key| (bytes(key), *kind)));
            }
            let right = |key: &[u8]| {
                let owner = self.keys.owner(str::from_utf8(key).ok()?);
                let (owner, kind) = owner?;
                Some(types.get(key) == Some(&kind) && explained.knows(owner))
            };
            let mut keys: Vec<&[u8]> = items(found).iter().map(bytes).collect();
            keys.retain(|key| right(key) != Some(true));
            for key in self.wrong_keys(explained, &keys)? {
                doubts.push(self.doubt(key));
            }
            cursor = text(next).unwrap_or_default();
            if cursor == "0" || Instant::now() >= end || doubts.len() >= most {
                return Ok(cursor);
            }
        }
    }

    fn doubt(&self, key: &[u8]) -> Doubt {
        let name = String::from_utf8_lossy(key);
        let mut watch = vec![name.to_string()];
        match self.keys.owner(&name) {
            Some((Owner::Container(id), _)) => watch.push(self.keys.container(id)),
            Some((Owner::Host(host), _)) => watch.push(self.keys.lease(host)),
            Some((Owner::Image(_), _)) | None => {}
        }
        Doubt {
            fault: Fault::Key(key.to_owned()),
            watch,
        }
    }

    /// Which of these keys are of nobody, or of a wrong type.
    pub(super) fn wrong_keys<'a>(
        &mut self,
        explained: &Explained,
        keys: &[&'a [u8]],
    ) -> Result<Vec<&'a [u8]>, StoreError> {
        let mut ours = Vec::new();
        let mut questions: Vec<Cmd> = Vec::new();
        for key in keys {
            let name = String::from_utf8_lossy(key);
            let Some((owner, kind)) = self.keys.owner(&name) else {
                continue;
            };
            let (timed, limit) = match owner {
                Owner::Container(_) => (key.to_vec(), self.options.interval * INTERVALS),
                // A host's agent has its lease before anything else is written.
                Owner::Host(host) => (
                    self.keys.lease(host).into_bytes(),
                    Duration::from_millis(LEASE_MS),
                ),
                Owner::Image(_) => (key.to_vec(), Duration::ZERO),
            };
            ours.push((*key, kind, explained.knows(owner), limit));
            for (verb, key) in [("TYPE", *key), ("PTTL", &timed)] {
                let mut question = redis::cmd(verb);
                question.arg(key);
                questions.push(question);
            }
        }
        let replies = self.ask_many(&questions)?;
        let judged = ours.into_iter().zip(replies.chunks(2));
        let wrong = judged.filter_map(|((key, kind, known, limit), replies)| {
            let found = text(&replies[0]).unwrap_or_default();
            let excused = known || ends_within(&replies[1], limit);
            (found != "none" && (found != kind || !excused)).then_some(key)
        });
        Ok(wrong.collect())
    }
}

/// Will a key be gone so soon, by the reply to its `PTTL`?
fn ends_within(left: &Value, limit: Duration) -> bool {
    let left = number(left).and_then(|left| u64::try_from(left).ok());
    left.is_some_and(|left| Duration::from_millis(left) <= limit)
}
