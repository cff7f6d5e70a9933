//! The way to the store: one request at a time, what to ask next, and which hosts are ours to write.
//!
//! The heartbeat goes before everything else, then leases of hosts, in turns with all that follows leases of commands, then what was cut off and has to be repeated, comparisons, writes, and last what is done
//! for others (dead hosts, shared sets). Nothing here is lost when a request fails: it is asked again once the store is back.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Time;
use super::backoff::{Backoff, Complaints, Random};
use super::message::StoreRequest;
use crate::model::{ContainerId, EngineIndex};
use crate::store::{Batch, Claim, Happening, Holder, HostBatch, OnceAsk};

/// Leases live 10 s; four renewals may fail before one is lost.
const BEAT: Time = Time::from_secs(2);

/// How soon a host that another agent holds is asked for again: a clean stop of that one is noticed at once.
const ASK_HELD: Time = Time::from_millis(500);

/// May we write a host?
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tenancy {
    /// We want to, and ask from this time on.
    Wanted(Time),
    /// Yes.
    Ours,
    /// Somebody else does; we ask again at this time.
    Held(Holder, Time),
    /// We do not want to: its engine has been away for too long, or is watched no more.
    Off,
    /// Yes, but it is to be given back, for its engine is watched no more. `back`: it is again by now, so the host is to be taken anew after that.
    Leaving {
        /// Its engine is watched again.
        back: bool,
    },
}

/// A transaction that was built and is not known to have run.
#[derive(Debug)]
pub struct Flight {
    /// What it writes.
    pub batch: Arc<Batch>,
    /// The revisions that it makes true.
    pub settled: Vec<(EngineIndex, ContainerId, u64)>,
}

/// The connection to the store as the core sees it.
#[derive(Debug)]
pub struct Link {
    busy: Option<StoreRequest>,
    open: bool,
    open_at: Time,
    /// When it connected after something other than the connecting had failed: until it has served for a while, that may fail again.
    on_trial: Option<Time>,
    backoff: Backoff,
    tenancy: Vec<Tenancy>,
    beat_at: Time,
    sweep_at: Time,
    sweep_every: Time,
    overdue: Vec<String>,
    audits: BTreeSet<EngineIndex>,
    /// Transactions to be run before any other; the first may be under way.
    flights: VecDeque<Flight>,
    /// The last request was about commands: others have their turn.
    asked_once: bool,
    /// The leases are given back, and nothing else is asked any more.
    leaving: bool,
    /// Where it answered last.
    pub address: String,
    /// Why the store does not answer; empty when it does.
    pub error: String,
    /// What was logged of that.
    pub complaints: Complaints,
    /// Requests that failed.
    pub errors: u64,
    /// Half of what a transaction may hold, as often as one has timed out.
    pub halvings: u32,
}

impl Link {
    /// A store that was never asked, for so many hosts.
    pub fn new(hosts: usize, sweep_every: Time) -> Self {
        Link {
            busy: None,
            open: false,
            open_at: Time::ZERO,
            on_trial: None,
            backoff: Backoff::new(Time::from_millis(100), Time::from_secs(1)),
            tenancy: vec![Tenancy::Wanted(Time::ZERO); hosts],
            beat_at: Time::ZERO,
            sweep_at: sweep_every,
            sweep_every,
            overdue: Vec::new(),
            audits: BTreeSet::new(),
            flights: VecDeque::new(),
            asked_once: false,
            leaving: false,
            address: String::new(),
            error: String::new(),
            complaints: Complaints::default(),
            errors: 0,
            halvings: 0,
        }
    }

    /// An engine said who it is: claim that before anything of it is written.
    pub fn claim(&mut self, now: Time) {
        self.beat_at = now;
    }

    /// Does the store answer, as far as we know?
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Can it be asked now?
    pub fn is_free(&self) -> bool {
        self.open && self.busy.is_none()
    }

    /// May we write this host?
    pub fn tenancy(&self, host: EngineIndex) -> &Tenancy {
        &self.tenancy[host.at()]
    }

    /// We may.
    pub fn is_ours(&self, host: EngineIndex) -> bool {
        self.tenancy[host.at()] == Tenancy::Ours
    }

    /// Changes what we may.
    pub fn set_tenancy(&mut self, host: EngineIndex, tenancy: Tenancy) {
        self.tenancy[host.at()] = tenancy;
        if !self.is_ours(host) {
            self.audits.remove(&host);
        }
    }

    /// One more host.
    pub fn add(&mut self, now: Time) {
        self.tenancy.push(Tenancy::Wanted(now));
    }

    /// The host's engine is watched no more.
    pub fn give_back(&mut self, host: EngineIndex) {
        let ours = matches!(self.tenancy(host), Tenancy::Ours | Tenancy::Leaving { .. });
        self.set_tenancy(
            host,
            match ours {
                true => Tenancy::Leaving { back: false },
                false => Tenancy::Off,
            },
        );
    }

    /// The host's engine is watched again.
    pub fn want_back(&mut self, now: Time, host: EngineIndex) {
        let leaving = matches!(self.tenancy(host), Tenancy::Leaving { .. });
        self.set_tenancy(
            host,
            match leaving {
                true => Tenancy::Leaving { back: true },
                false => Tenancy::Wanted(now),
            },
        );
    }

    /// The host is not ours any more. `false`: it was not to be given back either.
    pub fn gave_back(&mut self, now: Time, host: EngineIndex) -> bool {
        let Tenancy::Leaving { back } = *self.tenancy(host) else {
            return false;
        };
        self.set_tenancy(
            host,
            match back {
                true => Tenancy::Wanted(now),
                false => Tenancy::Off,
            },
        );
        true
    }

    /// Somebody else writes this host; ask again soon.
    pub fn hold(&mut self, now: Time, host: EngineIndex, holder: Holder) {
        self.set_tenancy(host, Tenancy::Held(holder, now + ASK_HELD));
    }

    /// Compare this host with the store.
    pub fn audit(&mut self, host: EngineIndex) {
        self.audits.insert(host);
    }

    /// Hosts whose agents are dead.
    pub fn see_to(&mut self, overdue: Vec<String>) {
        self.overdue = overdue;
    }

    /// Give the leases back, and do nothing more.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// The leases of these hosts were given back.
    pub fn released(&mut self, now: Time, hosts: &[EngineIndex]) {
        for host in hosts {
            if !self.gave_back(now, *host) {
                self.set_tenancy(*host, Tenancy::Off);
            }
        }
    }

    /// There is nothing left to give back, or nobody to give it to.
    pub fn has_left(&self) -> bool {
        let all = || self.ours().is_empty() && self.to_give_back().is_empty();
        self.leaving && self.busy.is_none() && (!self.open || all())
    }

    /// The newest of them, for revisions that it makes true as well.
    pub fn last_flight(&mut self) -> Option<&mut Flight> {
        self.flights.back_mut()
    }

    /// The first of them ran.
    pub fn landed(&mut self) -> Option<Flight> {
        self.halvings = self.halvings.saturating_sub(1);
        self.flights.pop_front()
    }

    /// These hosts are not ours any more: their share of what did not run is taken out, and what had happened is given back.
    pub fn strip(&mut self, host: EngineIndex) -> Vec<Happening> {
        let mut happened = Vec::new();
        for flight in &mut self.flights {
            if !flight.batch.hosts.iter().any(|share| share.host == host) {
                continue;
            }
            let (theirs, rest): (Vec<HostBatch>, Vec<HostBatch>) = flight
                .batch
                .hosts
                .iter()
                .cloned()
                .partition(|share| share.host == host);
            happened.extend(theirs.into_iter().flat_map(|share| share.happened));
            flight.batch = Arc::new(Batch { hosts: rest });
            flight.settled.retain(|(settled, _, _)| *settled != host);
        }
        self.flights.retain(|flight| !flight.batch.hosts.is_empty());
        happened
    }

    /// The store answered: what had been asked?
    pub fn answered(&mut self) -> Option<StoreRequest> {
        self.busy.take()
    }

    /// It is connected.
    pub fn opened(&mut self, now: Time) {
        self.open = true;
        self.beat_at = now;
        self.on_trial = self.on_trial.map(|_| now);
    }

    /// It has just answered: is all well again since it failed last? Where connecting works and the rest is refused, delays go on growing, and what was
    /// said is not said again.
    pub fn is_well(&mut self, now: Time) -> bool {
        let well = self.open && self.on_trial.is_none_or(|since| since + BEAT <= now);
        if well {
            self.on_trial = None;
            self.complaints.clear();
            self.backoff.reset();
        }
        well
    }

    /// The connection is gone; what had been asked is asked again.
    pub fn failed(&mut self, now: Time, asked: Option<StoreRequest>, random: &mut Random) {
        self.open = false;
        self.on_trial = (asked != Some(StoreRequest::Open)).then_some(now);
        self.errors += 1;
        self.open_at = now + self.backoff.next(random);
        if let Some(StoreRequest::Audit(host)) = asked
            && self.is_ours(host)
        {
            self.audit(host);
        }
    }

    /// What to ask now beside a new transaction, if anything and if nothing is under way. `claim` says what is claimed with a host, `once` what is to be
    /// asked of commands that one agent is to run.
    pub fn next(
        &mut self,
        now: Time,
        claim: impl Fn(EngineIndex) -> Claim,
        once: impl FnOnce() -> Option<Arc<[OnceAsk]>>,
    ) -> Option<StoreRequest> {
        if self.busy.is_some() {
            return None;
        }
        let request = self.choose(now, claim, once)?;
        self.busy = Some(request.clone());
        Some(request)
    }

    /// A new transaction: to be asked for when there was nothing else to ask.
    pub fn fly(&mut self, flight: Flight) -> StoreRequest {
        let request = StoreRequest::Apply(flight.batch.clone());
        self.flights.push_back(flight);
        self.busy = Some(request.clone());
        request
    }

    /// What is to be asked of commands: likewise.
    pub fn ask_once(&mut self, asks: Arc<[OnceAsk]>) -> StoreRequest {
        self.asked_once = true;
        let request = StoreRequest::Once(asks);
        self.busy = Some(request.clone());
        request
    }

    fn choose(
        &mut self,
        now: Time,
        claim: impl Fn(EngineIndex) -> Claim,
        once: impl FnOnce() -> Option<Arc<[OnceAsk]>>,
    ) -> Option<StoreRequest> {
        if !self.open {
            return (self.open_at <= now && !self.leaving).then_some(StoreRequest::Open);
        }
        let claims =
            |hosts: Vec<EngineIndex>| -> Vec<Claim> { hosts.into_iter().map(&claim).collect() };
        if self.leaving {
            // Nobody is to run again what has ended here.
            if let Some(asks) = once() {
                return Some(StoreRequest::Once(asks));
            }
            let mut held = self.ours();
            held.extend(self.to_give_back());
            return (!held.is_empty()).then_some(StoreRequest::Release(held));
        }
        if self.beat_at <= now {
            self.beat_at = now + BEAT;
            let ours = self.ours();
            if !ours.is_empty() {
                return Some(StoreRequest::Beat(claims(ours)));
            }
        }
        // Before others are taken: an engine may be watched under another name now. What was cut off goes first, for it may write these hosts.
        let left = self.to_give_back();
        if !left.is_empty() && self.flights.is_empty() {
            return Some(StoreRequest::Release(left));
        }
        let due: Vec<EngineIndex> = self.due(now);
        if left.is_empty() && !due.is_empty() {
            return Some(StoreRequest::Take(claims(due)));
        }
        if !std::mem::take(&mut self.asked_once)
            && let Some(asks) = once()
        {
            self.asked_once = true;
            return Some(StoreRequest::Once(asks));
        }
        if let Some(flight) = self.flights.front() {
            return Some(StoreRequest::Apply(flight.batch.clone()));
        }
        if let Some(host) = self.audits.pop_first() {
            return Some(StoreRequest::Audit(host));
        }
        if !self.overdue.is_empty() {
            return Some(StoreRequest::Bury(std::mem::take(&mut self.overdue)));
        }
        if self.sweep_at <= now {
            self.sweep_at = now + self.sweep_every;
            // Who writes no host has no business in the shared sets.
            if !self.ours().is_empty() {
                return Some(StoreRequest::Sweep);
            }
        }
        None
    }

    /// Hosts that are ours.
    pub fn ours(&self) -> Vec<EngineIndex> {
        self.hosts(|tenancy| *tenancy == Tenancy::Ours)
    }

    fn due(&self, now: Time) -> Vec<EngineIndex> {
        self.hosts(|tenancy| match tenancy {
            Tenancy::Wanted(at) | Tenancy::Held(_, at) => *at <= now,
            Tenancy::Ours | Tenancy::Off | Tenancy::Leaving { .. } => false,
        })
    }

    fn to_give_back(&self) -> Vec<EngineIndex> {
        self.hosts(|tenancy| matches!(tenancy, Tenancy::Leaving { .. }))
    }

    fn hosts(&self, wanted: impl Fn(&Tenancy) -> bool) -> Vec<EngineIndex> {
        self.tenancy
            .iter()
            .enumerate()
            .filter(|(_, tenancy)| wanted(tenancy))
            .map(|(index, _)| EngineIndex(index as u32))
            .collect()
    }

    /// When there is something to ask although nothing happened.
    pub fn deadline(&self) -> Option<Time> {
        if self.busy.is_some() || self.leaving {
            return None;
        }
        if !self.open {
            return Some(self.open_at);
        }
        let due = self.tenancy.iter().filter_map(|tenancy| match tenancy {
            Tenancy::Wanted(at) | Tenancy::Held(_, at) => Some(*at),
            Tenancy::Ours | Tenancy::Off | Tenancy::Leaving { .. } => None,
        });
        due.chain([self.beat_at, self.sweep_at]).min()
    }
}
