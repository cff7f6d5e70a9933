//! Talking to Redis in whole requests, and the fence: a transaction that runs only while every lease it writes under is ours.
//!
//! A round trip is `MULTI`, the leases' new values, the commands, `EXEC`, and behind it `WATCH`, `MGET` of the leases and `TIME`, which arm the next
//! one. Before a transaction the values read when it was armed must be what we wrote last; from then on Redis itself refuses the `EXEC` when
//! a lease was written by anybody else, ran out, or was flushed.

use std::io;
use std::time::{Duration, Instant};

use redis::{Cmd, ServerError, Value};

use super::commands::{Commands, Pieces};
use super::encode::plain;
use super::link::{Trouble, items, number, text};
use super::redis::RedisStore;
use super::{Fenced, Holder, StoreError, errors};
use crate::model::EngineIndex;

/// How long any request may take in all.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long a lease runs, in ms; several heartbeats long.
pub(super) const LEASE_MS: u64 = 10_000;

/// The most leases that every transaction watches; with more hosts, those of the batch are armed by a round trip of their own.
const WATCH_ALL: usize = 64;

/// How often a transaction is tried that was refused although no lease changed hands.
pub(super) const TRIES: usize = 5;

/// A transaction under the leases of some hosts (or of none: then whoever asks has set watches of its own).
#[derive(Default)]
pub(super) struct Transaction {
    /// Hosts whose leases it writes.
    pub hosts: Vec<EngineIndex>,
    /// Hosts among them that are ours no more once it ran.
    pub leaving: Vec<EngineIndex>,
    /// What it does.
    pub body: Commands,
    /// What to watch and ask after it, in the same round trip.
    pub then: Vec<Cmd>,
    /// Should its reply be lost, `open` says whether it ran.
    pub report: bool,
    /// What it writes into a host's `last_batch`: that outlives the lease.
    pub mark: Option<(EngineIndex, String)>,
}

/// What a transaction that ran answered.
pub(super) struct Ran {
    /// A reply to each command of its body.
    pub replies: Vec<Value>,
    /// A reply to each question behind it; none when the connection broke there.
    pub then: Vec<Value>,
}

/// A transaction whose reply was lost.
pub(super) struct Pending {
    /// The leases' value, if it ran.
    pub lease: String,
    /// The hosts it was for.
    pub hosts: Vec<EngineIndex>,
    /// Somebody waits for the answer.
    pub report: bool,
    /// The host's `last_batch`, if it ran.
    pub mark: Option<(EngineIndex, String)>,
}

impl RedisStore {
    /// Begins a request: from now on it has its 5 s.
    pub(super) fn begin(&mut self) {
        self.deadline = Instant::now() + REQUEST_LIMIT;
    }

    /// Redis's clock, since 1970: as it was read last, plus what passed by ours.
    pub(super) fn now(&self) -> Duration {
        self.clock
            .map_or(Duration::ZERO, |(at, time)| time + at.elapsed())
    }

    /// Runs a transaction for hosts that are ours, or finds out which are not.
    pub(super) fn fenced(
        &mut self,
        transaction: &Transaction,
    ) -> Result<Result<Ran, Fenced>, StoreError> {
        for _ in 0..TRIES {
            let armed = |host| self.armed.contains_key(host) || !self.held.contains_key(host);
            if !transaction.hosts.iter().all(armed) {
                let all = self.held.keys().copied().collect::<Vec<_>>();
                let few = all.len() <= WATCH_ALL;
                self.arm(if few { &all } else { &transaction.hosts })?;
            }
            let fenced = self.sort(&transaction.hosts);
            if fenced != Fenced::default() {
                return Ok(Err(fenced));
            }
            if let Some(ran) = self.transact(transaction)? {
                return Ok(Ok(ran));
            }
            // Any lease that was watched may be the cause, not only one of the batch.
            let watched: Vec<_> = self.armed.keys().copied().collect();
            let held = watched
                .into_iter()
                .filter(|host| self.held.contains_key(host));
            let fenced = self.sort(&held.collect::<Vec<_>>());
            if fenced != Fenced::default() {
                return Ok(Err(fenced));
            }
        }
        Err(self.contended())
    }

    /// Watches the leases of these hosts and reads them, and Redis's clock.
    pub(super) fn arm(&mut self, hosts: &[EngineIndex]) -> Result<(), StoreError> {
        let mut commands = Commands::default();
        commands.push_words(["UNWATCH"].into_iter());
        self.arming(hosts, &mut commands);
        let replies = self.ask_all(&commands)?;
        self.note_armed(hosts, &replies[1..]);
        Ok(())
    }

    /// Which of these hosts are not ours, by the leases as they were read last; they are held no more.
    pub(super) fn sort(&mut self, hosts: &[EngineIndex]) -> Fenced {
        let mut fenced = Fenced::default();
        for host in hosts {
            let read = self.armed.get(host).cloned().flatten();
            match (self.held.get(host), read) {
                (Some(hold), Some(lease)) if hold.lease == lease => continue,
                (Some(_), Some(lease)) if !self.is_own(&lease) => {
                    fenced.held.push((*host, Holder::Agent(lease)));
                }
                _ => fenced.lost.push(*host),
            }
            self.held.remove(host);
        }
        fenced
    }

    /// Is this the lease of this process, be it an older one?
    pub(super) fn is_own(&self, lease: &str) -> bool {
        lease
            .rsplit_once(':')
            .is_some_and(|(boot, _)| boot == self.options.boot)
    }

    /// Sends a transaction and looks at every reply; `None` when `EXEC` refused because something watched had changed.
    pub(super) fn transact(
        &mut self,
        transaction: &Transaction,
    ) -> Result<Option<Ran>, StoreError> {
        self.sequence += 1;
        let lease = format!("{}:{}", self.options.boot, self.sequence);
        let limit = LEASE_MS.to_string();
        let after = self.hosts_after(transaction);
        let mut before = Commands::default();
        before.push_words(["MULTI"].into_iter());
        for host in &transaction.hosts {
            let key = self.keys.lease(self.host(*host));
            before.push_words(["SET", &key, &lease, "PX", &limit].into_iter());
        }
        let leases = before.len() - 1;
        let exec = before.len() + transaction.body.len();
        let mut after_it = Commands::default();
        after_it.push_words(["EXEC"].into_iter());
        self.arming(&after, &mut after_it);
        let arming = after_it.len() - 1;
        for command in &transaction.then {
            after_it.push(command);
        }
        let pieces = [&before, &transaction.body, &after_it];
        let commands = Pieces(&pieces);

        self.armed.clear();
        self.pending = Some(Pending {
            lease: lease.clone(),
            hosts: transaction.hosts.clone(),
            report: transaction.report,
            mark: transaction.mark.clone(),
        });
        self.send(commands)?;
        let outcome = self.receive_transaction(commands, exec)?;
        self.pending = None;
        let ran = matches!(outcome, Ok(Some(_)));
        if ran {
            self.settle(transaction, &lease);
        }

        let replies = match self.receive_all(commands, exec + 1) {
            Ok(replies) => replies,
            // What was written is written: that the connection broke afterwards is the next request's misfortune.
            Err(error) if ran => {
                self.broken = Some(error);
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err((refusals, true)) => {
                return Err(self.half_done(&refusals, &transaction.hosts));
            }
            Err((refusals, false)) => return Err(self.refuse(&refusals)),
        };
        let then = if replies.is_empty() {
            Vec::new()
        } else {
            self.note_armed(&after, &replies[..arming]);
            replies[arming..].to_vec()
        };
        Ok(outcome.map(|mut items| Ran {
            replies: items.split_off(leases),
            then,
        }))
    }

    /// Sends commands that are no transaction; an answer that is an error is an error.
    pub(super) fn ask(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        self.ask_all(&Commands::of(commands))
    }

    fn ask_all(&mut self, commands: &Commands) -> Result<Vec<Value>, StoreError> {
        let pieces = [commands];
        self.send(Pieces(&pieces))?;
        self.receive_all(Pieces(&pieces), 0)
    }

    /// The same for keys of others: one of a wrong type is as good as none, and whoever owns it puts it right.
    pub(super) fn ask_about_others(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        let commands = Commands::of(commands);
        let pieces = [&commands];
        self.send(Pieces(&pieces))?;
        let (replies, mut refusals) = self.receive_each(Pieces(&pieces), 0)?;
        refusals.retain(|(error, _)| error.code() != "WRONGTYPE");
        match refusals.is_empty() {
            true => Ok(replies),
            false => Err(self.refuse(&refusals)),
        }
    }

    /// The same for one command that can be done without: nothing where it is refused.
    pub(super) fn ask_what_may_be_refused(
        &mut self,
        command: &Cmd,
    ) -> Result<Option<Value>, StoreError> {
        let commands = Commands::of(std::slice::from_ref(command));
        let pieces = [&commands];
        self.send(Pieces(&pieces))?;
        let (mut replies, refusals) = self.receive_each(Pieces(&pieces), 0)?;
        Ok(replies.pop().filter(|_| refusals.is_empty()))
    }

    /// The hosts that are armed behind a transaction: all that will be held, unless they are too many.
    fn hosts_after(&self, transaction: &Transaction) -> Vec<EngineIndex> {
        let mut after: Vec<_> = self.held.keys().copied().collect();
        after.extend(&transaction.hosts);
        after.sort_unstable();
        after.dedup();
        after.retain(|host| !transaction.leaving.contains(host));
        if after.len() > WATCH_ALL {
            after.clear();
        }
        after
    }

    /// A transaction ran: its leases are what we wrote last.
    fn settle(&mut self, transaction: &Transaction, lease: &str) {
        for host in &transaction.hosts {
            if transaction.leaving.contains(host) {
                self.held.remove(host);
            } else {
                self.held.entry(*host).or_default().lease = lease.to_owned();
            }
        }
    }

    /// Appends the commands that arm a transaction for these hosts.
    fn arming(&self, hosts: &[EngineIndex], commands: &mut Commands) {
        if !hosts.is_empty() {
            let lease = |host: &EngineIndex| self.keys.lease(self.host(*host));
            let leases: Vec<String> = hosts.iter().map(lease).collect();
            for name in ["WATCH", "MGET"] {
                let leases = leases.iter().map(String::as_str);
                commands.push_words([name].into_iter().chain(leases));
            }
        }
        commands.push_words(["TIME"].into_iter());
    }

    /// Takes in the replies to [`Self::arming`].
    fn note_armed(&mut self, hosts: &[EngineIndex], replies: &[Value]) {
        if let [_, leases, _] = replies {
            let leases = items(leases).iter().map(text);
            self.armed = hosts.iter().copied().zip(leases).collect();
        }
        if let Some([seconds, micros]) = replies.last().map(items)
            && let (Some(seconds), Some(micros)) = (number(seconds), number(micros))
        {
            let time = Duration::from_secs(seconds.unsigned_abs())
                + Duration::from_micros(micros.unsigned_abs());
            self.clock = Some((Instant::now(), time));
        }
    }

    /// Sends all of these, without waiting in between.
    fn send(&mut self, commands: Pieces) -> Result<(), StoreError> {
        if let Some(error) = self.broken.take() {
            self.link = None;
            return Err(error);
        }
        let Some(link) = &mut self.link else {
            return Err(self.closed());
        };
        if let Err(trouble) = link.send(commands, self.deadline) {
            // Redis may have said why before it closed: too many clients, for one.
            if let Ok(Value::ServerError(error)) = link.receive(self.deadline) {
                return Err(self.refuse(&[(error, plain(&[]))]));
            }
            return Err(self.fail(&trouble));
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Value, StoreError> {
        let Some(link) = &mut self.link else {
            return Err(self.closed());
        };
        match link.receive(self.deadline) {
            Ok(reply) => Ok(reply),
            Err(trouble) => Err(self.fail(&trouble)),
        }
    }

    /// A reply to each command from this place on; the first that is an error is the error of all.
    fn receive_all(&mut self, commands: Pieces, from: usize) -> Result<Vec<Value>, StoreError> {
        let (replies, refusals) = self.receive_each(commands, from)?;
        match refusals.is_empty() {
            true => Ok(replies),
            false => Err(self.refuse(&refusals)),
        }
    }

    /// A reply to each command from this place on, nothing in the place of an error; and the errors.
    fn receive_each(
        &mut self,
        commands: Pieces,
        from: usize,
    ) -> Result<(Vec<Value>, Vec<Refusal>), StoreError> {
        let mut replies = Vec::new();
        let mut refusals = Vec::new();
        for at in from..commands.len() {
            match self.receive() {
                Ok(Value::ServerError(error)) => {
                    refusals.push((error, commands.get(at)));
                    replies.push(Value::Nil);
                }
                Ok(reply) => replies.push(reply),
                // Redis says why before it closes.
                Err(_) if !refusals.is_empty() => return Err(self.refuse(&refusals)),
                Err(error) => return Err(error),
            }
        }
        Ok((replies, refusals))
    }

    /// The replies from `MULTI` to `EXEC`, which stands at `exec`: those within `EXEC`'s, or nothing when it refused, or the errors with their commands and whether the
    /// others ran. `EXEC`'s own error hides that of the command that Redis would not queue, so each is looked at.
    fn receive_transaction(
        &mut self,
        commands: Pieces,
        exec: usize,
    ) -> Result<Executed, StoreError> {
        let mut refused: Vec<(ServerError, usize)> = Vec::new();
        for at in 0..exec {
            if let Value::ServerError(error) = self.receive()? {
                refused.push((error, at));
            }
        }
        let executed = match self.receive()? {
            Value::ServerError(error) => {
                // Without `MULTI`, the first, each command ran by itself.
                let ran = refused.first().is_none_or(|(_, at)| *at == 0);
                refused.push((error, exec));
                Err(ran)
            }
            Value::Nil => Ok(None),
            reply => {
                let items = reply.into_sequence().unwrap_or_default();
                refused.extend(items.iter().zip(1..).filter_map(|(item, at)| match item {
                    Value::ServerError(error) => Some((error.clone(), at)),
                    _ => None,
                }));
                match refused.is_empty() {
                    true => Ok(Some(items)),
                    false => Err(true),
                }
            }
        };
        let told = |(error, at)| (error, commands.get(at));
        Ok(executed.map_err(|ran| (refused.into_iter().map(told).collect(), ran)))
    }

    /// A command within a transaction failed while the others ran: what the store holds of these hosts must be compared anew.
    fn half_done(&mut self, refusals: &[Refusal], hosts: &[EngineIndex]) -> StoreError {
        for host in hosts {
            self.held.remove(host);
            self.spoilt.push(*host);
        }
        self.refuse(refusals)
    }

    /// Redis answered with errors, of which the first is told: the connection ends. Keys of a wrong type are removed first, so that they can be made
    /// anew.
    fn refuse(&mut self, refusals: &[Refusal]) -> StoreError {
        let wrong = refusals
            .iter()
            .filter(|(error, _)| error.code() == "WRONGTYPE");
        for (_, command) in wrong {
            // Should this fail, the same error comes again and with it the next attempt.
            let _ = self.heal(command);
        }
        self.link = None;
        match refusals.first() {
            Some((error, command)) => errors::refused(&self.options.shown_url, error, command),
            None => self.closed(),
        }
    }

    /// Deletes the key of a command, unless it has the type by now that the command wants.
    fn heal(&mut self, command: &Cmd) -> Result<(), StoreError> {
        let wanted = match errors::argument(command, 0).as_str() {
            "SADD" | "SREM" | "SCARD" | "SSCAN" | "SMEMBERS" | "SISMEMBER" => "set",
            "HSET" | "HDEL" | "HGET" | "HMGET" | "HGETALL" => "hash",
            "ZADD" | "ZREM" | "ZSCORE" | "ZRANGE" | "ZRANGEBYSCORE" => "zset",
            "XADD" => "stream",
            _ => "string",
        };
        self.delete_unless(&errors::argument(command, 1), wanted)
    }

    /// Deletes a key that is of another type than this.
    pub(super) fn delete_unless(&mut self, key: &str, wanted: &str) -> Result<(), StoreError> {
        self.armed.clear();
        let look = [
            plain(&["UNWATCH"]),
            plain(&["WATCH", key]),
            plain(&["TYPE", key]),
        ];
        let replies = self.ask(&look)?;
        if text(&replies[2]).is_some_and(|found| found != wanted && found != "none") {
            self.ask(&[plain(&["MULTI"]), plain(&["DEL", key]), plain(&["EXEC"])])?;
        }
        Ok(())
    }

    /// The network failed: the connection ends. Whoever waits for a transaction may ask `open` whether it ran.
    fn fail(&mut self, trouble: &Trouble) -> StoreError {
        self.link = None;
        let mut error = errors::broken(&self.options.shown_url, trouble);
        error.uncertain = self.pending.as_ref().is_some_and(|pending| pending.report);
        error
    }

    fn closed(&self) -> StoreError {
        errors::broken(
            &self.options.shown_url,
            &Trouble::Io(io::ErrorKind::NotConnected.into()),
        )
    }

    pub(super) fn contended(&mut self) -> StoreError {
        self.link = None;
        StoreError {
            text: format!(
                "failed to write Redis `{}`: leases change all the time although nobody else holds them; does something else write these keys?",
                self.options.shown_url
            ),
            uncertain: false,
            timed_out: false,
        }
    }
}

/// An error that Redis answered, and to what.
type Refusal = (ServerError, Cmd);

/// The items of a transaction's reply, nothing when it was refused, or errors and whether the other commands may have run.
type Executed = Result<Option<Vec<Value>>, (Vec<Refusal>, bool)>;
