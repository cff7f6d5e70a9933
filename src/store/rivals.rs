//! Hosts that another agent has, and what it means that its lease is gone.
//!
//! An agent that stops says so, and the lease of one that died ends at its time: both leave in `<p>:alive` a time that is over. A lease that is gone before
//! was lost by the store (a flush, for one), and its agent, which may well live, notices that with its next heartbeat: so long nobody else takes the host.

use std::time::Duration;

use super::encode::plain;
use super::link::{items, number};
use super::redis::RedisStore;
use super::{Claim, Holder, StoreError};

/// A heartbeat, and the time to take the host anew.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who has a host that we claim.
pub(super) struct Rival {
    /// As it was seen last.
    holder: Holder,
    /// Since when it is gone before its time, by Redis's clock.
    gone: Option<Duration>,
}

impl RedisStore {
    /// Notes who holds these claims, and holds those free for a while whose holder should still be there.
    pub(super) fn respect_rivals(
        &mut self,
        claims: &[Claim],
        holders: &mut [Option<Holder>],
    ) -> Result<(), StoreError> {
        for (claim, holder) in claims.iter().zip(holders) {
            match holder {
                Some(holder) => {
                    let rival = Rival {
                        holder: holder.clone(),
                        gone: None,
                    };
                    self.rivals.insert(claim.host, rival);
                }
                None => *holder = self.missed_rival(claim)?,
            }
        }
        Ok(())
    }

    /// Who had this claim, if that one may want it back.
    fn missed_rival(&mut self, claim: &Claim) -> Result<Option<Holder>, StoreError> {
        let Some(mut rival) = self.rivals.remove(&claim.host) else {
            return Ok(None);
        };
        let (host, key) = match &rival.holder {
            Holder::Agent(_) => (self.host(claim.host), Some(self.keys.lease(&claim.id))),
            Holder::Host(host) => {
                let identity = claim.identity.as_ref();
                (&**host, identity.map(|identity| self.keys.engine(identity)))
            }
        };
        let Some(key) = key else {
            return Ok(None);
        };
        let ask = [
            plain(&["EXISTS", &key]),
            plain(&["ZSCORE", &self.keys.alive(), host]),
            plain(&["TIME"]),
        ];
        let replies = self.ask(&ask)?;
        let time = items(&replies[2])
            .iter()
            .map(|part| number(part).unwrap_or(0));
        let time: Vec<u64> = time.map(i64::unsigned_abs).collect();
        let now = match time[..] {
            [seconds, micros] => Duration::from_secs(seconds) + Duration::from_micros(micros),
            _ => Duration::ZERO,
        };
        let over = number(&replies[1]).is_some_and(|end| end.unsigned_abs() <= now.as_secs());
        // What stands there and is no agent's was put there by somebody.
        if over || number(&replies[0]) != Some(0) {
            return Ok(None);
        }
        // A clock that was set back shall keep nobody waiting.
        let gone = rival.gone.filter(|gone| *gone <= now).unwrap_or(now);
        if now - gone >= PATIENCE {
            return Ok(None);
        }
        rival.gone = Some(gone);
        let holder = rival.holder.clone();
        self.rivals.insert(claim.host, rival);
        Ok(Some(holder))
    }
}
