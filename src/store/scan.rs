//! Sets and hashes that may be large, read in steps: no reply is large, and Redis takes long for none.
//!
//! A key of another type is as good as none. What is there from the first step to the last is shown at least once, and may be shown twice.

use std::time::Instant;

use redis::Value;

use super::StoreError;
use super::encode::plain;
use super::link::{items, text};
use super::redis::RedisStore;

/// About how many members are read at once.
const STEP: &str = "1000";

/// How a key is read in steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scan {
    /// A set: its members.
    Set,
    /// A hash: its names and values, which alternate.
    Hash,
}

impl RedisStore {
    /// Shows what these keys hold, each step with the place of its key; false when it is not over at this `end`.
    pub(super) fn scan(
        &mut self,
        keys: &[(Scan, String)],
        end: Option<Instant>,
        mut show: impl FnMut(usize, &Value),
    ) -> Result<bool, StoreError> {
        let mut open: Vec<(usize, String)> =
            (0..keys.len()).map(|at| (at, "0".to_owned())).collect();
        while !open.is_empty() {
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(false);
            }
            let ask = open.iter().map(|(at, from)| {
                let (scan, key) = &keys[*at];
                let verb = match scan {
                    Scan::Set => "SSCAN",
                    Scan::Hash => "HSCAN",
                };
                plain(&[verb, key, from, "COUNT", STEP])
            });
            let replies = self.ask_about_others(&ask.collect::<Vec<_>>())?;
            let mut rest = Vec::new();
            for ((at, _), reply) in open.into_iter().zip(&replies) {
                let [next, found] = items(reply) else {
                    continue;
                };
                show(at, found);
                rest.extend(text(next).filter(|next| next != "0").map(|next| (at, next)));
            }
            open = rest;
        }
        Ok(true)
    }
}
