//! What the core asks the store, and what it makes of the answers.

use std::sync::Arc;

use super::engine::Predecessor;
use super::link::{Flight, Tenancy};
use super::outbox::{HAPPENINGS, Outbox, Room};
use super::{Core, Effect, Level, Site, StoreReply, StoreRequest, Time};
use crate::model::EngineIndex;
use crate::store::keys::field;
use crate::store::{
    Applied, Audit, Batch, Beaten, Burial, Claim, Fenced, Found, Happening, Holder, HostBatch,
    Notice, Opened, StoreError, Swept, Taken,
};

/// One transaction: so many containers, so many bytes; halved for each one that timed out.
const ROOM: Room = Room {
    containers: 32,
    bytes: 256 << 10,
};

/// How long a first report's containers wait for others to fill their transaction, and events for the look that they led to: an engine answers
/// some ten inspects meanwhile.
const GATHER: Time = Time::from_millis(10);

/// Of the transactions that tell of nothing but beginnings and ends of commands, one may begin in so long: in a burst each command would have its own.
const PACE: Time = Time::from_millis(10);

/// After a quiet time so many of them may begin at once.
const CREDIT: u32 = 4;

/// A lease lives 10 s after its agent's last word, and is asked for twice a second.
const LAST_LEASE: Time = Time::from_secs(11);

impl Core {
    /// The store answered.
    pub(super) fn stored(&mut self, now: Time, reply: StoreReply, effects: &mut Vec<Effect>) {
        let Some(link) = &mut self.link else {
            return;
        };
        let asked = link.answered();
        self.status_stale |= matches!(
            reply,
            StoreReply::Opened(_) | StoreReply::Taken(_) | StoreReply::Failed(_)
        );
        if !matches!(reply, StoreReply::Opened(_) | StoreReply::Failed(_)) {
            self.recovered(now, effects);
        }
        match reply {
            StoreReply::Opened(opened) => self.opened(now, opened, effects),
            StoreReply::Taken(taken) => {
                for one in taken {
                    self.taken(now, one, effects);
                }
            }
            StoreReply::Applied(Applied::Done { missing }) => {
                self.landed(now, effects);
                for (host, id) in missing {
                    let site = &mut self.sites[host.at()];
                    site.outbox.missing(&id);
                    site.engine.look_again(now, &id);
                    self.woken.insert(host);
                }
            }
            StoreReply::Applied(Applied::Fenced(fenced))
            | StoreReply::Beaten(Beaten::Fenced(fenced)) => self.fenced(now, fenced, effects),
            StoreReply::Beaten(Beaten::Done { overdue }) => {
                if let Some(link) = &mut self.link {
                    link.see_to(overdue);
                }
            }
            StoreReply::Audited(host, audit) => self.audited(now, host, &audit, effects),
            StoreReply::Buried(burials) => {
                for burial in burials {
                    effects.push(Effect::Log(Level::Warn, buried(&burial)));
                }
            }
            StoreReply::Swept(swept) => {
                if swept != Swept::default() {
                    effects.push(Effect::Log(
                        Level::Info,
                        format!(
                            "the Cache's shared sets: removed {} keys and members that no host explains, added {} that were missing",
                            swept.removed, swept.restored
                        ),
                    ));
                }
            }
            StoreReply::Once(states) => {
                if let Some(StoreRequest::Once(asks)) = asked {
                    self.jobs.answered(now, &asks, &states);
                    self.tell_jobs(effects);
                }
            }
            StoreReply::Released => {
                if let (Some(link), Some(StoreRequest::Release(hosts))) = (&mut self.link, asked) {
                    link.released(now, &hosts);
                }
            }
            StoreReply::Failed(error) => self.store_failed(now, asked, error, effects),
        }
    }

    fn opened(&mut self, now: Time, opened: Opened, effects: &mut Vec<Effect>) {
        let Some(link) = &mut self.link else {
            return;
        };
        link.opened(now);
        self.jobs.store_is_open(now);
        link.address.clone_from(&opened.address);
        self.recovered(now, effects);
        if opened.ran == Some(true) {
            self.landed(now, effects);
        }
        let lost = Fenced {
            lost: opened.lost,
            held: Vec::new(),
        };
        self.fenced(now, lost, effects);
        for site in &mut self.sites {
            if std::mem::take(&mut site.unchecked) {
                site.engine.want_round(now);
                self.woken.insert(site.index);
            }
        }
    }

    /// The store did what it was asked: says so once, if it did not before.
    fn recovered(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(link) = &mut self.link else {
            return;
        };
        if link.is_well(now) && !link.error.is_empty() {
            link.error.clear();
            self.status_stale = true;
            effects.push(Effect::Log(
                Level::Info,
                format!("the Cache answers again ({})", link.address),
            ));
        }
    }

    fn taken(&mut self, now: Time, taken: Taken, effects: &mut Vec<Effect>) {
        let index = taken.host;
        match taken.outcome {
            Ok(found) => self.ours(now, index, *found, effects),
            Err(holder) => self.held(now, index, holder, effects),
        }
    }

    /// A host is ours: everything is compared with what the store holds, and written where it is not so.
    fn ours(&mut self, now: Time, index: EngineIndex, found: Found, effects: &mut Vec<Effect>) {
        let Some(link) = &mut self.link else {
            return;
        };
        let held = matches!(link.tenancy(index), Tenancy::Held(..));
        if self.sites[index.at()].retired {
            link.set_tenancy(index, Tenancy::Leaving { back: false });
            return;
        }
        link.set_tenancy(index, Tenancy::Ours);
        if held && self.sites[index.at()].engine.is_started() {
            // Between the other's last word and our first nobody wrote the stream.
            let reason = "another agent reported this host until now".to_owned();
            self.happened(index, Happening::Gap { dropped: 0, reason });
        }
        self.outbox(index, |outbox| {
            outbox.adopt(&found.audit);
            if !found.known {
                outbox.notify(Notice::NewHost);
            }
        });
        let site = &mut self.sites[index.at()];
        site.reported = false;
        site.shared_at = now;
        site.taken_at = now;
        site.resume_ns = None;
        site.unchecked = false;
        if site.engine.is_started() {
            site.engine.read_anew();
            site.engine.want_round(now);
        } else {
            let young = found
                .age_s
                .is_some_and(|age| Time::from_secs(age) < self.settings.replay_max_age);
            site.engine.start(
                now,
                Some(Predecessor {
                    engine_id: found.engine_id,
                    resume_ns: found.resume_ns,
                    runs: (young && found.known).then_some(found.runs),
                }),
            );
            if !self.sites[index.at()].back {
                self.take_up_cut_off(now, index, &found.running_jobs, effects);
            }
        }
        self.woken.insert(index);
        self.writable.insert(index);
    }

    fn held(&mut self, now: Time, index: EngineIndex, holder: Holder, effects: &mut Vec<Effect>) {
        let Some(link) = &mut self.link else {
            return;
        };
        let site = &mut self.sites[index.at()];
        if link.gave_back(now, index) || site.retired {
            drop(link.strip(index));
            return;
        }
        let before = match link.tenancy(index) {
            Tenancy::Held(before, _) => Some(before),
            _ => None,
        };
        // The lease of an agent that crashed moves no more. Until it has run out, nobody knows where that one stopped.
        let crashed = !site.engine.is_started() && before.is_none_or(|before| *before == holder);
        let told = before.is_some_and(|before| same_holder(before, &holder));
        if crashed && !told {
            site.start_at = site.start_at.max(Some(now + LAST_LEASE));
            effects.push(Effect::Log(
                Level::Info,
                format!(
                    "host `{}`: {holder}; if that one is dead, this one takes over within {} s; if it lives, give each agent an --id of its own, or stop one",
                    site.name,
                    LAST_LEASE.as_secs()
                ),
            ));
        }
        if !crashed && (!told || !site.engine.is_started()) {
            // Two managers with one file are as they should be.
            let (level, remedy) = match (&holder, &self.settings.entries) {
                (Holder::Agent(_), Some(_)) => (
                    Level::Warn,
                    "this one stands by and takes over when that one is gone; if that one watches another engine, give each agent an --id of its own",
                ),
                _ => (
                    Level::Error,
                    "give each agent an --id of its own, or stop the other one",
                ),
            };
            let text = format!("host `{}` is not written: {holder}; {remedy}", site.name);
            effects.push(Effect::Log(level, text));
        }
        link.hold(now, index, holder);
        drop(link.strip(index));
        if !crashed {
            site.engine.start(now, None);
        }
        if site.engine.waits_for_store() {
            site.engine.end_round(now);
        }
        self.discard(index);
        self.woken.insert(index);
        self.writable.remove(&index);
    }

    fn fenced(&mut self, now: Time, fenced: Fenced, effects: &mut Vec<Effect>) {
        self.status_stale = true;
        for index in fenced.lost {
            let Some(link) = &mut self.link else {
                return;
            };
            if link.gave_back(now, index) {
                drop(link.strip(index));
                continue;
            }
            let site = &mut self.sites[index.at()];
            effects.push(Effect::Log(
                Level::Warn,
                format!("the Cache has lost host `{}`; writing it anew", site.name),
            ));
            link.set_tenancy(index, Tenancy::Wanted(now));
            let happened = link.strip(index);
            site.outbox.put_back(happened);
            site.outbox.lose();
            if site.engine.waits_for_store() {
                site.engine.end_round(now);
            }
        }
        for (index, holder) in fenced.held {
            self.held(now, index, holder, effects);
        }
    }

    /// The oldest transaction ran.
    fn landed(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(flight) = self.link.as_mut().and_then(|link| link.landed()) else {
            return;
        };
        for (index, id, revision) in &flight.settled {
            self.jobs.written(*index, id, *revision);
        }
        for share in &flight.batch.hosts {
            let ours = |link: &super::link::Link| link.is_ours(share.host);
            if !self.link.as_ref().is_some_and(ours) {
                // It is to be given back: what it says is of the past.
                continue;
            }
            if share.forget
                && let Some(link) = &mut self.link
            {
                // It may have come back while its host was on the way out.
                let away = self.sites[share.host.at()].down_since.is_some();
                link.set_tenancy(
                    share.host,
                    match away {
                        true => Tenancy::Off,
                        false => Tenancy::Wanted(now),
                    },
                );
                self.discard(share.host);
                if self.sites[share.host.at()].engine.waits_for_store() {
                    self.go_on(now, share.host);
                }
            }
            if !share.stamp {
                continue;
            }
            let site = &mut self.sites[share.host.at()];
            if site
                .closing
                .take()
                .is_some_and(|round| site.engine.round() == Some(round))
            {
                site.engine.end_round(now);
            }
            self.woken.insert(share.host);
            let level = match site.reported {
                true => Level::Debug,
                false => Level::Info,
            };
            site.reported = true;
            effects.push(Effect::Log(
                level,
                format!("Reported {} containers to the Cache", site.outbox.len()),
            ));
        }
    }

    fn audited(&mut self, now: Time, index: EngineIndex, audit: &Audit, effects: &mut Vec<Effect>) {
        if !self.sites[index.at()].engine.waits_for_store() {
            // The round that wanted to know is over, or there is none.
            if self.sites[index.at()].down_since.is_some() {
                self.audited_away(now, index, audit);
            }
            return;
        }
        let (again, differences) = self.outbox(index, |outbox| outbox.compare(audit));
        self.writable.insert(index);
        let site = &mut self.sites[index.at()];
        if differences > 0 && site.reported {
            effects.push(Effect::Log(
                Level::Warn,
                format!(
                    "host `{}`: the Cache differed in {differences} places; putting it right",
                    site.name
                ),
            ));
        }
        if site.selfcheck.is_some() {
            effects.extend(again.iter().map(|id| {
                let id = id.short();
                let text =
                    format!("selfcheck: container `{id}` is not in the Cache as it was written");
                Effect::Log(Level::Warn, text)
            }));
        }
        if again.is_empty() {
            return self.close(now, index, true);
        }
        let mut out = Vec::new();
        site.engine.repair(now, &again, &mut out);
        self.woken.insert(index);
        self.follow(now, index, out, effects);
    }

    fn store_failed(
        &mut self,
        now: Time,
        asked: Option<StoreRequest>,
        error: StoreError,
        effects: &mut Vec<Effect>,
    ) {
        let Some(link) = &mut self.link else {
            return;
        };
        if error.timed_out && matches!(asked, Some(StoreRequest::Apply(_))) {
            link.halvings = (link.halvings + 1).min(5);
        }
        link.failed(now, asked, &mut self.random);
        link.error.clone_from(&error.text);
        if link.complaints.is_new(&error.text) {
            effects.push(Effect::Log(Level::Warn, error.text));
        }
        self.jobs.store_is_down(now);
        for at in 0..self.sites.len() {
            if self.sites[at].engine.waits_for_store() {
                self.go_on(now, EngineIndex(at as u32));
            }
        }
    }

    /// Asks the store the next thing, when it is not busy.
    pub(super) fn ask_store(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        let (sites, jobs) = (&self.sites, &mut self.jobs);
        let claim = |host: EngineIndex| {
            let site = &sites[host.at()];
            Claim {
                host,
                id: site.name.clone(),
                identity: site.engine.identity(),
            }
        };
        let mut request = link.next(now, claim, || jobs.ask(now));
        if request.is_none() && link.is_free() {
            let flight = match self.stopping {
                None => self.build(now, &link),
                Some(_) => None,
            };
            request = match flight {
                Some(flight) => Some(link.fly(flight)),
                // It was the others' turn, who have nothing to ask.
                None => self.jobs.ask(now).map(|asks| link.ask_once(asks)),
            };
        }
        self.link = Some(link);
        effects.extend(request.map(Effect::Store));
    }

    /// Is it worth the time to wait for more before the next transaction is built? Most of what a small one costs is not its content's.
    fn gathers(&mut self, now: Time) -> bool {
        let count = |of: fn(&Outbox) -> Option<usize>| -> Option<usize> {
            let hosts = self.writable.iter();
            hosts.map(|index| of(&self.sites[index.at()].outbox)).sum()
        };
        let runs = count(Outbox::runs).is_some_and(|runs| (1..HAPPENINGS).contains(&runs));
        let report = count(Outbox::gathers).is_some_and(|waiting| waiting < ROOM.containers);
        // What an event led to is written with the event, as soon as the engine has said what that is.
        let events = count(Outbox::entries).is_some_and(|entries| entries < HAPPENINGS);
        let mut hosts = self.writable.iter();
        let events = events && hosts.all(|index| self.sites[index.at()].engine.is_asked());
        if self.writable.is_empty() || self.waiting_bytes >= ROOM.bytes {
            self.gather_until = None;
        } else if runs {
            self.gather_until = self.pace.next(now);
        } else if report || events {
            self.gather_until.get_or_insert(now + GATHER);
        } else {
            self.gather_until = None;
        }
        self.gather_until.is_some_and(|until| now < until)
    }

    /// The next transaction: a share of each host that has something to write, in turns.
    fn build(&mut self, now: Time, link: &super::link::Link) -> Option<Flight> {
        if self.gathers(now) {
            return None;
        }
        let mut room = Room {
            containers: (ROOM.containers >> link.halvings).max(1),
            bytes: (ROOM.bytes >> link.halvings).max(1),
        };
        let mut batch = Batch::default();
        let mut settled = Vec::new();
        // In turns: a host that fills every transaction must not keep those behind it waiting.
        let (before, after) = (
            self.writable.range(..self.next_host),
            self.writable.range(self.next_host..),
        );
        let hosts: Vec<EngineIndex> = after.chain(before).copied().collect();
        for index in hosts {
            if room.containers == 0 || room.bytes == 0 {
                self.next_host = index;
                break;
            }
            self.writable.remove(&index);
            if !link.is_ours(index) {
                continue;
            }
            let dropped_jobs = self.jobs.dropped_total;
            let resume_ns = self.resume_ns(index);
            let running_jobs = self.running_jobs(index);
            let site = &mut self.sites[index.at()];
            let before = site.outbox.bytes();
            let (engine, url, down) = (&site.engine, &site.url, site.down_since.is_some());
            let constants = (&self.settings, link.errors, dropped_jobs);
            let fields = |outbox: &Outbox, all: bool| {
                let running = outbox.running();
                let mut fields = super::tell::fields(engine, url, down, running, all, constants);
                fields.extend(running_jobs.map(|text| (field::RUNNING_JOBS, text)));
                fields
            };
            let share = site.outbox.take(&mut room, fields, &mut settled);
            self.waiting_bytes = self.waiting_bytes + site.outbox.bytes() - before;
            for id in site.outbox.robbed() {
                site.engine.look_again(now, &id);
                self.woken.insert(index);
            }
            let moved = resume_ns != site.resume_ns;
            let only = moved.then(|| HostBatch::new(index));
            if let Some(mut share) = share.or(only) {
                // It lives for some minutes only, so each resync says it again.
                if (moved || share.stamp) && !share.forget {
                    site.resume_ns = resume_ns;
                    share.resume_ns = resume_ns;
                }
                batch.hosts.push(share);
            }
            if !site.outbox.is_idle() {
                self.writable.insert(index);
            }
        }
        self.gather_until = None;
        (!batch.hosts.is_empty()).then(|| Flight {
            batch: Arc::new(batch),
            settled,
        })
    }

    /// Where a successor is to take up: before the first event that has a job not yet started, else at the last event.
    fn resume_ns(&self, index: EngineIndex) -> Option<i64> {
        let last = self.sites[index.at()].engine.resume_ns();
        let undecided = self.undecided.first_ns(index);
        match self
            .jobs
            .first_unstarted(index)
            .into_iter()
            .chain(undecided)
            .min()
        {
            Some(first) => last.map(|last| last.min(first - 1)),
            None => last,
        }
    }
}

/// How soon a transaction may begin that only tells of commands.
#[derive(Default, Debug)]
pub(super) struct Pace {
    /// When the whole credit is back.
    full_at: Time,
}

impl Pace {
    /// Counts one more, or says when that may be.
    fn next(&mut self, now: Time) -> Option<Time> {
        let full_at = self.full_at.max(now) + PACE;
        let until = full_at.saturating_sub(PACE * CREDIT);
        if now < until {
            return Some(until);
        }
        self.full_at = full_at;
        None
    }
}

impl Site {
    /// The host's id, for messages.
    pub(super) fn named(&self) -> String {
        format!("{}@{}", self.name, self.url)
    }
}

fn same_holder(a: &Holder, b: &Holder) -> bool {
    match (a, b) {
        // The number behind the colon moves with every transaction of theirs.
        (Holder::Agent(a), Holder::Agent(b)) => a.split(':').next() == b.split(':').next(),
        (a, b) => a == b,
    }
}

fn buried(burial: &Burial) -> String {
    match burial {
        Burial::Lost(host) => format!("host `{host}` is lost: its agent no longer reports"),
        Burial::Expired(host, containers) => {
            format!("host `{host}` has expired; removed it with its {containers} containers")
        }
    }
}
