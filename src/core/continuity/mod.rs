//! Does an engine's stream tell everything? Drops what it told before, and notices what it did not tell.
//!
//! The engine keeps its last 256 events and replays them to who asks (moby `daemon/events`); a subscriber that it could not reach in time loses
//! events without a word. So every new connection asks for a stretch that was seen already, and the two are laid over each other: what was seen is
//! dropped, what stands between two seen events was lost while we listened, and when nothing of the stretch comes back, more may have been lost.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Time;
use crate::core::message::{MARGIN_NS, Since};
use crate::model::Event;

/// What a renewed stream may tell again: the engine's ring, and what both streams told while both were open, some hundred events of a storm.
const MEMORY: usize = 2048;

/// The engine's ring (moby `eventsLimit`).
const RING: usize = 256;

/// How long after the connect a replay may still be coming.
const REPLAY: Time = Time::from_secs(2);

/// How long after the connect of a stream that was asked for more than our time a late replay may still tell of before it.
const LATE: Time = Time::from_secs(60);

/// So much younger than the engine's clock, as far as we know it, an event may be: the engine may take its time to say how late it is.
const SLACK_NS: i64 = 10 * 1_000_000_000;

/// So old an event may be that has not arrived, or so much younger than what the engine says of its clock.
const FLIGHT_NS: i64 = 1_000_000_000;

/// How far before our time a stream is to begin that can tell nothing we know: what the engine stamped after its clock was set back would hide the
/// rest of its ring.
const REACH_NS: i64 = 3600 * 1_000_000_000;

/// Once the engine's clock was set back, an event is only taken for live when it comes no earlier than this before its stamp.
const EARLY_NS: i64 = 100_000_000;

/// What to do with an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It just happened.
    Live,
    /// It happened while no stream was open, or was lost on the last one: new, but late.
    Late,
    /// It was told before.
    Seen,
    /// It is from before our time (or from before a gap that a resync has healed, or was inferred): look at its container, but run nothing.
    Old,
}

/// A reason to believe that events are missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gap {
    /// The replay held events that the last stream had left out.
    Dropped,
    /// The replay did not reach back to what was seen last.
    Unlinked,
}

/// What is remembered of one engine's stream.
#[derive(Debug)]
pub struct Continuity {
    /// Keys and stamps of the last events, oldest first.
    order: VecDeque<(u64, i64)>,
    /// Is each of them of our time?
    seen: HashMap<u64, bool>,
    /// The key of the first event of our time.
    first: Option<u64>,
    newest_ns: i64,
    /// Events up to this stamp run nothing: the engine's clock when we began, or where the last agent stopped.
    horizon_ns: Option<i64>,
    /// Laid over what was told before.
    replay: Option<Replay>,
    /// The engine's clock when the present connection was made.
    connected_ns: i64,
    /// When it was made by our own clock.
    connected_at: Option<Time>,
    /// Between these stamps the engine has told all it had: what turns up there later happened since.
    viewed_ns: Option<(i64, i64)>,
    /// Until then, or until something happens, events up to this stamp are told late of before our time.
    history: Option<(Time, i64)>,
    /// When the last connection ended, by the engine's clock as far as we know it.
    ended_ns: Option<i64>,
    /// Events that came on this connection are lost, and a resync tells what they led to.
    healed: bool,
}

#[derive(Debug)]
struct Replay {
    renewal: bool,
    until: Time,
    /// The engine's clock was set back: from this stamp on stands what it told since, and perhaps what it told before our time.
    back_ns: Option<i64>,
    /// From this stamp on up to that of the connection it tells all it has.
    asked_ns: i64,
    /// The last event of the connection before that this one can tell again, with its stamp; `None` when there is none.
    last: Option<(u64, i64)>,
    /// What the engine tells behind the event of this stamp, the last agent's last, is news whatever its clock says.
    landmark_ns: Option<i64>,
    /// Its clock was set back to before that: when the event does not come, nothing shows what is news.
    hidden: bool,
    /// The youngest stamp so far.
    youngest_ns: i64,
    /// Something was taken for old that may be news.
    undecided: bool,
    linked: bool,
    /// Events of the replay so far; those count that happened while the engine said how late it is.
    events: usize,
    /// One of them is from before our time: nothing of our time is forgotten.
    reaches_back: bool,
    /// A replay before this one, which was cut short, did not reach back.
    forgot: bool,
    /// A remembered event came by.
    inside: bool,
    /// Events that are new although they stand before one that was seen.
    unseen: usize,
    /// It was said that events had been dropped; all that one replay shows is one gap.
    told: bool,
    /// Of the connection before, events are lost that are no news any more.
    healed: bool,
    /// An event of our time came by: whatever its clock says, what the engine tells after it is younger.
    news: bool,
}

impl Continuity {
    /// Nothing is known yet; `resume_ns` is where the last agent stopped.
    pub fn new(resume_ns: Option<i64>) -> Self {
        Continuity {
            order: VecDeque::new(),
            seen: HashMap::new(),
            first: None,
            healed: false,
            newest_ns: 0,
            horizon_ns: resume_ns,
            replay: None,
            connected_ns: 0,
            connected_at: None,
            viewed_ns: None,
            history: None,
            ended_ns: None,
        }
    }

    /// From when on the next connection is to tell.
    pub fn since(&self) -> Since {
        let remembered = self.order.iter().map(|(_, ns)| *ns).min();
        let oldest = remembered.map(|ns| ns - MARGIN_NS);
        match oldest.or(self.horizon_ns.map(|ns| ns - REACH_NS)) {
            Some(oldest) => Since::At {
                oldest_ns: oldest.max(1),
                newest_ns: self
                    .newest_ns
                    .max(remembered.or(self.horizon_ns).unwrap_or(0)),
            },
            None => Since::Now,
        }
    }

    /// Where a successor is to take up: the stamp of the newest event, or the time we began.
    pub fn resume_ns(&self) -> Option<i64> {
        // Until it is known whether the engine forgot something, a successor has to find that out as well.
        let unproven = self.replay.as_ref().filter(|replay| !replay.linked);
        if let Some((_, last_ns)) = unproven.and_then(|replay| replay.last) {
            return Some(last_ns);
        }
        if self.newest_ns > 0 {
            Some(self.newest_ns)
        } else {
            self.horizon_ns
        }
    }

    /// A stream is open; `clock_ns` is the engine's clock.
    pub fn connected(&mut self, now: Time, clock_ns: i64, renewal: bool) {
        let before_ns = std::mem::replace(&mut self.connected_ns, clock_ns);
        let began = self.connected_at.replace(now);
        let Some(horizon_ns) = self.horizon_ns else {
            self.horizon_ns = Some(clock_ns);
            return;
        };
        // When its clock was set back, also where it has passed the horizon again, stamps do not tell what is of our time; the order in which the
        // engine tells does. The horizon itself stays: when the clock is set right again, what is from before our time still is.
        let away_ns = began.map(|began| now.saturating_sub(began).as_nanos() as i64);
        let expected_ns = away_ns.map(|away| before_ns + away);
        let back = clock_ns < horizon_ns || expected_ns.is_some_and(|ns| clock_ns + MARGIN_NS < ns);
        self.history = (!back && self.order.is_empty()).then_some((now + LATE, horizon_ns));
        let back_ns = back.then(|| away_ns.map_or(i64::MIN, |away| clock_ns - away));
        // A stream may end before its replay was over; what that had to prove is left to this one.
        let cut_short = self.replay.take();
        if cut_short.is_none()
            && let Some((_, to)) = &mut self.viewed_ns
            && expected_ns.is_some_and(|ns| (ns - clock_ns).abs() <= MARGIN_NS)
        {
            // The last connection went on to tell all.
            *to = (*to).max(self.ended_ns.filter(|_| !renewal).unwrap_or(clock_ns));
        }
        let remembered = self.order.iter().map(|(_, ns)| *ns).min();
        let asked_ns = match remembered {
            _ if clock_ns < remembered.unwrap_or(horizon_ns) => 1,
            Some(oldest) => oldest - MARGIN_NS,
            None => horizon_ns,
        };
        let undecided = cut_short.as_ref().is_some_and(|replay| replay.undecided);
        let forgot = cut_short.as_ref().is_some_and(Replay::forgot);
        let landmark_ns = cut_short.as_ref().and_then(|replay| replay.landmark_ns);
        let unproven = cut_short.filter(|replay| !replay.linked);
        // moby replays nothing that is younger than the `until` it is asked for, as all is that it stamped before its clock was set back. What it
        // told before its last 256 events it has forgotten. A renewal need not prove that it remembers; where nobody listened, it must.
        let told_again = |(_, ns): &(u64, i64)| *ns <= clock_ns + SLACK_NS;
        let last = unproven.and_then(|replay| replay.last);
        let last = last.or_else(|| {
            let ring = || self.order.iter().rev().take(RING).copied();
            let newest = ring().next().filter(|_| !renewal);
            ring().find(told_again).or(newest)
        });
        let landmark_ns = landmark_ns.or(Some(horizon_ns).filter(|_| began.is_none()));
        self.replay = Some(Replay {
            renewal,
            until: now + REPLAY,
            back_ns,
            asked_ns,
            last,
            landmark_ns,
            hidden: landmark_ns.is_some_and(|ns| clock_ns < ns),
            youngest_ns: i64::MIN,
            undecided,
            linked: false,
            events: 0,
            reaches_back: false,
            forgot,
            inside: false,
            unseen: 0,
            told: false,
            healed: std::mem::take(&mut self.healed),
            news: false,
        });
    }

    /// The stream is over; `engine_now_ns` is the engine's clock as far as we know it.
    pub fn ended(&mut self, engine_now_ns: i64) {
        self.ended_ns = Some(engine_now_ns);
    }

    /// Judges one event of the stream, and says when it proves a gap. `inferred` is asked of an event that was not told before: was it inferred?
    pub fn judge(
        &mut self,
        now: Time,
        event: &Event,
        inferred: impl FnOnce() -> bool,
    ) -> (Verdict, Option<Gap>) {
        let key = key(event);
        let known = self.seen.get(&key).copied();
        let seen = known.is_some();
        let connected = self.connected_at.unwrap_or(now);
        let clock_ns = self.connected_ns + now.saturating_sub(connected).as_nanos() as i64;
        // The first stream begins at the engine's present, and shows as well what the engine told before its clock was set back to that.
        let ahead = self.horizon_ns == Some(self.connected_ns)
            && now <= connected + REPLAY
            && event.time_ns > clock_ns + SLACK_NS;
        self.history = self
            .history
            .filter(|(until, _)| now <= *until && event.time_ns <= self.connected_ns);
        let history = self.history.is_some_and(|(_, ns)| event.time_ns <= ns);
        let (verdict, gap) = match &mut self.replay {
            None if seen => (Verdict::Seen, None),
            _ if !seen && inferred() => (Verdict::Old, None),
            None if ahead || history => (Verdict::Old, None),
            None => (Verdict::Live, None),
            Some(replay) => {
                let ns = event.time_ns;
                replay.events += usize::from(ns <= self.connected_ns + FLIGHT_NS);
                let horizon_ns = self.horizon_ns.unwrap_or(0);
                // Where the last agent stopped may be just before an event.
                replay.reaches_back |= ns <= horizon_ns + 1;
                let back = replay.back_ns.is_some();
                let viewed = |(from, to)| from <= ns && ns <= to;
                let descends = replay.landmark_ns.is_some() && ns + MARGIN_NS < replay.youngest_ns;
                replay.youngest_ns = replay.youngest_ns.max(ns);
                let moment = Moment {
                    seen,
                    ours: known == Some(true),
                    first: self.first == Some(key),
                    last: replay.last.is_some_and(|(last, _)| last == key),
                    landmark: replay
                        .landmark_ns
                        .is_some_and(|landmark| (landmark..=landmark + 1).contains(&ns)),
                    live: ns > self.connected_ns && (!back || ns <= clock_ns + EARLY_NS),
                    from_before: ns <= horizon_ns && !(back && self.viewed_ns.is_some_and(viewed)),
                    undecided: descends
                        || replay
                            .back_ns
                            .is_some_and(|from| from < ns && ns <= clock_ns + SLACK_NS),
                    complete: self.order.len() < MEMORY,
                    lost_while_connected: self.ended_ns.is_some_and(|ended| ns < ended - FLIGHT_NS),
                };
                replay.judge(&moment)
            }
        };
        if !seen {
            self.remember(key, event.time_ns, verdict != Verdict::Old);
        }
        (verdict, gap)
    }

    /// When [`Continuity::replay_over`] is to be asked.
    pub fn deadline(&self) -> Option<Time> {
        self.replay.as_ref().map(|replay| replay.until)
    }

    /// The replay must be over by now: was the stretch that was seen before in it?
    pub fn replay_over(&mut self) -> Option<Gap> {
        let replay = self.replay.take()?;
        let (from, to) = (replay.asked_ns, self.connected_ns);
        self.viewed_ns = match self.viewed_ns {
            Some((old_from, old_to)) if from <= old_to && old_from <= to => {
                Some((from.min(old_from), to.max(old_to)))
            }
            _ => Some((from, to)),
        };
        let unlinked = replay.last.is_some() && !replay.linked;
        let hidden = replay.hidden && replay.landmark_ns.is_some();
        let gap = unlinked || replay.forgot() || hidden || replay.undecided;
        gap.then_some(Gap::Unlinked)
    }

    /// A gap is being healed by a resync that asks the engine from now on: what turns up later of the time before is no news.
    pub fn heal(&mut self, engine_now_ns: i64) {
        self.horizon_ns = Some(self.horizon_ns.unwrap_or(0).max(engine_now_ns));
        self.healed = true;
    }

    fn remember(&mut self, key: u64, ns: i64, ours: bool) {
        if self.order.len() == MEMORY
            && let Some((old, _)) = self.order.pop_front()
        {
            self.seen.remove(&old);
        }
        self.first = self.first.or(ours.then_some(key));
        // What is told late of before our time is not what the engine forgets last.
        match ours || self.first.is_none() {
            true => self.order.push_back((key, ns)),
            false => self.order.push_front((key, ns)),
        }
        self.seen.insert(key, ours);
        // What a replay tells late is not where a successor is to take up. Otherwise an older stamp means that the engine's clock was set back.
        let replayed = self.replay.is_some() && self.connected_ns >= self.newest_ns;
        if ns > self.newest_ns || !replayed {
            self.newest_ns = ns;
        }
    }
}

/// What a replay is told of one event.
struct Moment {
    /// It was told before.
    seen: bool,
    /// And it was of our time.
    ours: bool,
    /// It is the first one that ever was.
    first: bool,
    /// It is the one that was told last.
    last: bool,
    /// It is the one where the last agent stopped, or the one after it.
    landmark: bool,
    /// It is younger than the connection.
    live: bool,
    /// By its stamp it is older than what concerns us.
    from_before: bool,
    /// But the engine's clock was set back, and it may have happened since.
    undecided: bool,
    /// We remember all events since the beginning.
    complete: bool,
    /// It is older than the end of the connection before.
    lost_while_connected: bool,
}

impl Replay {
    fn judge(&mut self, event: &Moment) -> (Verdict, Option<Gap>) {
        if event.seen {
            self.inside = true;
            self.linked |= event.last;
            self.news |= event.ours && !self.healed;
            // What the engine tells before all that is of our time is not.
            self.undecided &= !event.first;
            let dropped = self.unseen > 0;
            self.unseen = 0;
            return (Verdict::Seen, self.dropped(dropped));
        }
        if event.landmark {
            self.landmark_ns = None;
            self.undecided = false;
            self.news = true;
            if event.from_before {
                return (Verdict::Old, None);
            }
        }
        if event.live {
            self.news = true;
            return (Verdict::Live, None);
        }
        if event.from_before && !self.news {
            self.undecided |= event.undecided;
            return (Verdict::Old, None);
        }
        self.news = true;
        if self.renewal && self.linked {
            return match event.lost_while_connected {
                true => (Verdict::Late, self.dropped(true)),
                false => (Verdict::Live, None),
            };
        }
        if !self.linked && (self.inside || event.complete) {
            self.unseen += 1;
        }
        (Verdict::Late, None)
    }

    /// There is no event to find again, and the engine may have told more than it remembers.
    fn forgot(&self) -> bool {
        self.forgot || (self.last.is_none() && self.events >= RING && !self.reaches_back)
    }

    fn dropped(&mut self, dropped: bool) -> Option<Gap> {
        let news = dropped && !self.told;
        self.told |= dropped;
        news.then_some(Gap::Dropped)
    }
}

/// Two events with one key are one event, told twice.
fn key(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.time_ns.hash(&mut hasher);
    event.kind.hash(&mut hasher);
    event.action.hash(&mut hasher);
    event.id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
