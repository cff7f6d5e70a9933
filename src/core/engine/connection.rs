//! An engine's connection: opened, lost, opened again; what it means for what was asked.

use super::{AFTER_CLOSE, Engine, GOOD, Inferred, Link, Outcome, Remembered, identity};
use crate::core::Time;
use crate::core::backoff::Random;
use crate::core::continuity::Continuity;
use crate::core::known::Known;
use crate::core::message::{Effect, Generation, Level, StreamEnd};
use crate::model::Hello;

impl Engine {
    /// The reader opened a stream, or renewed the one that was open.
    pub fn connected(
        &mut self,
        now: Time,
        generation: Generation,
        hello: Box<Hello>,
        out: &mut Vec<Outcome>,
    ) {
        if generation != self.generation {
            return;
        }
        let renewal = self.is_live();
        if renewal {
            self.continuity.ended(hello.clock_ns);
        } else {
            self.link = Link::Live { since: now };
        }
        let predecessor = self.predecessor.take().unwrap_or_default();
        let replaced = match &self.hello {
            // An engine need not say who it is.
            Some(old) if old.engine_id.is_empty() || hello.engine_id.is_empty() => false,
            Some(old) => identity(old) != identity(&hello),
            None => !predecessor.is_empty() && predecessor != hello.engine_id,
        };
        self.connected_at = now;
        self.api_version = hello.api_version.as_str().into();
        let clock_ns = hello.clock_ns;
        self.hello = Some(hello);
        if replaced {
            self.forget_all();
            self.continuity = Continuity::new(Some(clock_ns));
            out.push(Outcome::Replaced);
        }
        self.continuity.connected(now, clock_ns, renewal);
        if !renewal || replaced {
            self.epoch += 1;
            self.ask_anew();
            self.counters.reconnects += u64::from(self.ever_up);
            self.want_round(now);
            // Its place may come amid this first look, which needs no second one.
            self.tick = now + self.rules.interval;
        }
        self.answers(out);
    }

    /// Something came of it.
    pub(super) fn answers(&mut self, out: &mut Vec<Outcome>) {
        self.silent = false;
        if self.down || !self.ever_up {
            self.down = false;
            self.ever_up = true;
            self.error.clear();
            self.complaints.clear();
            out.push(Outcome::Up);
        }
    }

    /// It does not answer whether it is there. Where it said nothing else since it was told so last, it does not answer at all.
    pub fn unanswered(
        &mut self,
        now: Time,
        generation: Generation,
        error: String,
        out: &mut Vec<Outcome>,
    ) {
        if generation != self.epoch || !self.is_live() {
            return;
        }
        if !std::mem::replace(&mut self.silent, true) || self.down {
            return;
        }
        out.push(Outcome::Effect(Effect::Log(Level::Warn, error.clone())));
        self.error = error;
        self.does_not_answer(out);
        // Its answer, whenever it comes, ends that.
        self.want_round(now);
    }

    /// Nothing comes of it, for the reason in `error`.
    pub(super) fn does_not_answer(&mut self, out: &mut Vec<Outcome>) {
        if !self.down {
            self.down = true;
            out.push(Outcome::Down);
        }
    }

    /// The stream is over, or was never opened.
    pub fn disconnected(
        &mut self,
        now: Time,
        generation: Generation,
        end: StreamEnd,
        random: &mut Random,
        out: &mut Vec<Outcome>,
    ) {
        if generation != self.generation {
            return;
        }
        let lived = match self.link {
            Link::Live { since } => Some(now.saturating_sub(since)),
            _ => None,
        };
        if let Some(lived) = lived {
            self.continuity.ended(self.clock_ns(now));
            if lived >= GOOD {
                self.backoff.reset();
                self.complaints.clear();
            }
        }
        self.hang_up(now);
        let delay = match (&end, lived) {
            (StreamEnd::Closed, Some(_)) => AFTER_CLOSE.max(self.backoff.next(random)),
            (_, Some(lived)) if lived >= GOOD => Time::ZERO,
            _ => self.backoff.next(random),
        };
        self.link = Link::Waiting(now + delay);
        let (what, level) = match end {
            StreamEnd::Closed => ("the engine closed the event stream".to_owned(), Level::Info),
            StreamEnd::Silent => (
                "nothing came on the event stream for longer than it was to last".to_owned(),
                Level::Warn,
            ),
            StreamEnd::Failed(error) => (error, Level::Warn),
        };
        self.error.clone_from(&what);
        if self.complaints.is_new(&what) {
            out.push(Outcome::Effect(Effect::Log(level, what)));
        }
        if lived.is_none() {
            self.does_not_answer(out);
        }
    }

    /// Whatever was asked on the dead connection is asked again on the next.
    pub(super) fn hang_up(&mut self, now: Time) {
        self.epoch += 1;
        self.round = None;
        self.tick = self.tick.min(self.next_place(now));
    }

    /// The inbox lost events of this engine.
    pub fn overrun(&mut self, now: Time, out: &mut Vec<Outcome>) {
        if !self.is_started() {
            return;
        }
        self.continuity.heal(self.clock_ns(now));
        self.gap(now, "events came faster than they could be taken", out);
    }

    /// Events are lost. Each time counts; it is said once until the resync that heals it, however much more is lost by then.
    pub(super) fn gap(&mut self, now: Time, why: &str, out: &mut Vec<Outcome>) {
        self.counters.gaps += 1;
        self.want_round(now);
        let heals = self.rounds + 1;
        if self.heals.replace(heals) != Some(heals) {
            out.push(Outcome::Gap(why.to_owned()));
        }
    }

    pub(super) fn connect(&mut self, out: &mut Vec<Outcome>) {
        self.generation += 1;
        self.link = Link::Connecting;
        out.push(Outcome::Effect(Effect::Connect {
            engine: self.index,
            generation: self.generation,
            since: self.continuity.since(),
        }));
    }

    /// The engine's clock as far as we know it.
    pub fn clock_ns(&self, now: Time) -> i64 {
        let clock_ns = self.hello.as_ref().map_or(0, |hello| hello.clock_ns);
        clock_ns + now.saturating_sub(self.connected_at).as_nanos() as i64
    }

    /// Another engine answers: whatever was known is gone, and nothing may be inferred from it.
    pub(super) fn forget_all(&mut self) {
        self.containers.clear();
        self.known = Known::default();
        self.remembered = Remembered::default();
        self.urgent.clear();
        self.background.clear();
        self.failed.clear();
        self.suspects.clear();
        self.inferred = Inferred::default();
        self.round = None;
        self.baseline = true;
    }
}
