//! What an engine's news mean for its host in the store.

use super::engine::{Report, Room};
use super::link::{Link, Tenancy};
use super::outbox::{Outbox, Wanted};
use super::{AHEAD, BUDGET, Core, Effect, Level, Site, Time};
use crate::model::{self, EngineIndex};
use crate::store::{Audit, Happening, Notice};

impl Core {
    /// A container is so.
    pub(super) fn state(
        &mut self,
        now: Time,
        index: EngineIndex,
        id: model::ContainerId,
        report: Report,
        revision: u64,
    ) {
        self.jobs.seen(index, &id, revision);
        let Some(link) = &self.link else {
            return;
        };
        if !link.is_open() || !link.is_ours(index) {
            // Nobody waits for a store that does not take it.
            self.jobs.written(index, &id, revision);
        }
        if matches!(link.tenancy(index), Tenancy::Held(..) | Tenancy::Off) {
            return;
        }
        let site = &mut self.sites[index.at()];
        if let Some(check) = &mut site.selfcheck {
            let gaps = site.engine.counters().gaps;
            match &report {
                Report::Document(document) => check.saw(now, &id, Some(document), revision, gaps),
                Report::Same(_) => check.saw_same(&id, revision),
                Report::Nothing => check.saw(now, &id, None, revision, gaps),
            }
        }
        let full = !link.is_open() && self.waiting_bytes >= BUDGET;
        let wanted = match report {
            Report::Document(_) if full => None,
            Report::Document(document) => {
                Some(self.outbox(index, |outbox| outbox.want(&id, Some(document), revision)))
            }
            Report::Same(digest) => site.outbox.want_same(&id, digest, revision),
            Report::Nothing => Some(self.outbox(index, |outbox| outbox.want(&id, None, revision))),
        };
        let site = &mut self.sites[index.at()];
        let Some(wanted) = wanted else {
            if full {
                site.postponed.insert(id);
            } else {
                site.engine.look_later(&id);
                self.woken.insert(index);
            }
            return;
        };
        site.postponed.remove(&id);
        let Some(link) = &mut self.link else {
            return;
        };
        match wanted {
            Wanted::Later => {
                self.writable.insert(index);
            }
            Wanted::Already if site.outbox.settles_later(&id, revision) => {}
            Wanted::Already => match link.last_flight() {
                Some(flight) => flight.settled.push((index, id, revision)),
                None => self.jobs.written(index, &id, revision),
            },
        }
    }

    /// How much may be asked of the engines. A store that is away delays nothing: what is too much to be kept for it is looked at once more when it is
    /// back.
    pub(super) fn room(&mut self) -> Room {
        if !self.link.as_ref().is_some_and(Link::is_open) {
            return Room::All;
        }
        match self.waiting_bytes {
            ..AHEAD => {
                for site in &mut self.sites {
                    for id in std::mem::take(&mut site.postponed) {
                        site.engine.look_later(&id);
                        self.woken.insert(site.index);
                    }
                }
                Room::All
            }
            AHEAD..BUDGET => Room::Urgent,
            _ => Room::None,
        }
    }

    /// Changes what waits for the store, and keeps count of the bytes.
    pub(super) fn outbox<T>(
        &mut self,
        index: EngineIndex,
        change: impl FnOnce(&mut Outbox) -> T,
    ) -> T {
        let outbox = &mut self.sites[index.at()].outbox;
        let before = outbox.bytes();
        let done = change(outbox);
        self.waiting_bytes = self.waiting_bytes + outbox.bytes() - before;
        done
    }

    /// What waits for a host, and what is known of it, is of no more use; should it be reported again, all of it is.
    pub(super) fn discard(&mut self, index: EngineIndex) {
        self.outbox(index, Outbox::discard);
        self.sites[index.at()].engine.read_anew();
    }

    pub(super) fn happened(&mut self, index: EngineIndex, happening: Happening) {
        let Some(link) = &self.link else {
            return;
        };
        let for_others = matches!(
            link.tenancy(index),
            Tenancy::Held(..) | Tenancy::Off | Tenancy::Leaving { back: false }
        );
        if !for_others {
            self.sites[index.at()].outbox.happened(happening);
            self.writable.insert(index);
        }
    }

    pub(super) fn up(&mut self, now: Time, index: EngineIndex, effects: &mut Vec<Effect>) {
        self.status_stale = true;
        let site = &mut self.sites[index.at()];
        let was_down = site.down_since.take().is_some();
        effects.push(Effect::Log(
            Level::Info,
            format!("Started monitoring Docker events ({})", site.name),
        ));
        if let Some(link) = &mut self.link {
            link.claim(now);
        }
        match &mut self.link {
            // The host was forgotten: it will be a new one.
            Some(link) if *link.tenancy(index) == Tenancy::Off => {
                link.set_tenancy(index, Tenancy::Wanted(now));
            }
            Some(_) if was_down => {
                site.outbox.keep();
                site.outbox.notify(Notice::HostUp);
                self.writable.insert(index);
            }
            _ => {}
        }
        if was_down {
            self.engine_event(now, index, "up", "the engine answers again", effects);
        }
    }

    pub(super) fn down(&mut self, now: Time, index: EngineIndex, effects: &mut Vec<Effect>) {
        self.status_stale = true;
        let site = &mut self.sites[index.at()];
        site.down_since = Some(now);
        let why = site.engine.error().to_owned();
        if self.link.is_some() {
            site.outbox.notify(Notice::HostDown);
            self.writable.insert(index);
        }
        self.engine_event(now, index, "down", &why, effects);
    }

    /// Another engine answers: nothing of the old one may stand beside what the new one has.
    pub(super) fn replaced(&mut self, now: Time, index: EngineIndex, effects: &mut Vec<Effect>) {
        if let Some(link) = &mut self.link {
            link.claim(now);
        }
        self.status_stale = true;
        let site = &mut self.sites[index.at()];
        site.replaced = !site.moved;
        effects.push(Effect::Log(
            if site.moved { Level::Info } else { Level::Warn },
            format!(
                "engine `{}`: another engine answers at {}; its containers replace those of the old one",
                site.name, site.url
            ),
        ));
        let outbox = &site.outbox;
        let old: Vec<_> = outbox.known().chain(outbox.waiting()).cloned().collect();
        for id in old {
            self.state(now, index, id, Report::Nothing, 0);
        }
    }

    /// A resync has looked at everything: compare with the store, where that is ours.
    pub(super) fn looked(&mut self, now: Time, index: EngineIndex) {
        let site = &self.sites[index.at()];
        let known = site.outbox.known();
        let mut left: Vec<model::ContainerId> = known
            .filter(|id| !site.engine.reports(id))
            .cloned()
            .collect();
        left.sort_unstable();
        for id in left {
            self.state(now, index, id, Report::Nothing, 0);
        }
        match &mut self.link {
            Some(link) if link.is_ours(index) && link.is_open() => link.audit(index),
            _ => self.go_on(now, index),
        }
    }

    /// The store is not there, or not ours: the engine's round does not wait for it. Once the store is back there will be another.
    pub(super) fn go_on(&mut self, now: Time, index: EngineIndex) {
        let site = &mut self.sites[index.at()];
        site.unchecked = true;
        site.engine.end_round(now);
    }

    /// A resync is due, and the engine does not answer: its host is kept alive. What somebody changed of it is put right as far as that is known, for
    /// nobody is judged while a host that lives contradicts itself.
    pub(super) fn unreachable(&mut self, now: Time, index: EngineIndex) {
        let away = self.sites[index.at()].down_since.is_some();
        match &mut self.link {
            Some(link) if away && link.is_ours(index) && link.is_open() => link.audit(index),
            _ => self.close(now, index, false),
        }
    }

    /// This is what the store says of a host whose engine is away.
    pub(super) fn audited_away(&mut self, now: Time, index: EngineIndex, audit: &Audit) {
        let outbox = &self.sites[index.at()].outbox;
        if outbox.is_forgotten() || outbox.is_closing() {
            return;
        }
        if self.outbox(index, |outbox| outbox.compare_away(audit)) {
            // With what is renewed hourly it is all said again.
            self.outbox(index, |outbox| outbox.close(false, true, false));
            self.writable.insert(index);
        } else {
            self.close(now, index, false);
        }
    }

    /// Ends a resync in the store.
    pub(super) fn close(&mut self, now: Time, index: EngineIndex, stamp: bool) {
        let link = self.link.as_ref().filter(|link| link.is_ours(index));
        let open = link.is_some_and(Link::is_open);
        if stamp && !open {
            return self.go_on(now, index);
        }
        if link.is_none() {
            return;
        }
        let site = &mut self.sites[index.at()];
        if stamp {
            site.closing = site.engine.round();
        }
        if !stamp && site.outbox.is_closing() {
            return;
        }
        let hour = Time::from_secs(3600);
        let renew = now.saturating_sub(site.shared_at) >= hour;
        if renew {
            site.shared_at = now;
        }
        // What was written so lately lives until the next resync, also where that takes its time.
        let lately = now.saturating_sub(site.taken_at) < self.settings.interval / 2;
        site.outbox.close(stamp, renew, lately);
        self.writable.insert(index);
    }

    /// When this host leaves the store, if that is for us to do.
    pub(super) fn forget_at(&self, site: &Site) -> Option<Time> {
        let after = self.settings.cache.as_ref()?.forget_after;
        let since = site.down_since?;
        let ours = self.link.as_ref()?.is_ours(site.index);
        (ours && !site.outbox.is_forgotten()).then_some(since + after)
    }

    /// What a self-check found.
    pub(super) fn tell_doubts(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for site in &mut self.sites {
            let engine = &site.engine;
            if engine.told_by().is_none_or(|at| at > now) {
                continue;
            }
            if let Some(check) = &mut site.selfcheck {
                let lines = check.settle(now, |id| engine.revision(id), engine.counters().gaps);
                effects.extend(lines.into_iter().map(|line| Effect::Log(Level::Warn, line)));
            }
        }
    }

    /// Engines that have been away for longer than `forget_after` take their host with them.
    pub(super) fn forget_lost_engines(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for index in (0..self.sites.len() as u32).map(EngineIndex) {
            let site = &self.sites[index.at()];
            if self.forget_at(site).is_some_and(|at| at <= now) {
                let site = &mut self.sites[index.at()];
                effects.push(Effect::Log(
                    Level::Warn,
                    format!(
                        "engine `{}` has been down for too long; its host leaves the Cache",
                        site.name
                    ),
                ));
                site.reported = false;
                site.engine.read_anew();
                self.outbox(index, Outbox::forget);
                self.writable.insert(index);
            }
        }
    }
}
