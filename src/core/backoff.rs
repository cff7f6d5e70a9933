//! When to try again, and when to say so: delays that grow, with jitter from a seed, so that a hundred agents do not knock at once.

use super::Time;

/// A small generator of pseudo-random numbers (splitmix64, Steele, Lea and Flood 2014); for jitter, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time from `from` up to `to`.
    pub fn between(&mut self, from: Time, to: Time) -> Time {
        let room = to.saturating_sub(from).as_nanos() as u64;
        from + Time::from_nanos(self.draw() % room.saturating_add(1).max(1))
    }
}

/// The schedule of one thing that is tried until it works.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Time,
    cap: Time,
    failures: u32,
}

impl Backoff {
    /// Delays begin near `first` and end at `cap`.
    pub fn new(first: Time, cap: Time) -> Self {
        Backoff {
            first,
            cap,
            failures: 0,
        }
    }

    /// The next delay: twice the last one, at most `cap`; the upper half of it is drawn.
    pub fn next(&mut self, random: &mut Random) -> Time {
        let full = self
            .first
            .saturating_mul(1 << self.failures.min(16))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        random.between(full / 2, full)
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// No command waits longer than this for its next try.
const LONGEST: Time = Time::from_secs(3600);

/// How long a command that failed so often waits for its next try: `first`, then twice as long each time; give or take a tenth.
pub fn retry_delay(first: Time, failures: u32, random: &mut Random) -> Time {
    let doublings = failures.saturating_sub(1).min(31);
    let full = first.saturating_mul(1 << doublings).min(LONGEST);
    random
        .between(full - full / 10, full + full / 10)
        .min(LONGEST)
}

/// What was said of one thing that does not work: each cause once, however often it is tried and however the causes take turns.
#[derive(Clone, Default, Debug)]
pub struct Complaints(Vec<String>);

impl Complaints {
    /// More causes than this are words that differ each time.
    const MOST: usize = 8;

    /// Is this to be said? It counts as said from here on.
    pub fn is_new(&mut self, cause: &str) -> bool {
        let new = self.0.len() < Self::MOST && !self.0.iter().any(|said| said == cause);
        if new {
            self.0.push(cause.to_owned());
        }
        new
    }

    /// It works: the next failure is news.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_never_beyond() {
        let mut random = Random::new(7);
        let cap = Time::from_secs(10);
        let mut backoff = Backoff::new(Time::from_millis(100), cap);
        let delays: Vec<Time> = (0..40).map(|_| backoff.next(&mut random)).collect();
        assert!(delays[0] >= Time::from_millis(50) && delays[0] <= Time::from_millis(100));
        assert!(delays.iter().all(|delay| *delay <= cap));
        assert!(delays[20..].iter().all(|delay| *delay >= cap / 2));
        assert!(
            delays[20..].iter().any(|delay| *delay != delays[20]),
            "no jitter"
        );
        backoff.reset();
        assert!(backoff.next(&mut random) <= Time::from_millis(100));
    }

    #[test]
    fn tries_of_a_command_are_ever_further_apart_up_to_an_hour() {
        let mut random = Random::new(3);
        let mut near = |failures: u32, full: Time| {
            let delays: Vec<Time> = (0..50)
                .map(|_| retry_delay(Time::from_secs(2), failures, &mut random))
                .collect();
            let fits = |delay: &Time| *delay >= full - full / 10 && *delay <= full + full / 10;
            assert!(delays.iter().all(fits), "{failures}: {delays:?}");
            assert!(delays.iter().any(|delay| *delay != delays[0]), "no jitter");
            delays
        };
        near(1, Time::from_secs(2));
        near(2, Time::from_secs(4));
        near(9, Time::from_secs(512));
        for failures in [12, 40, u32::MAX] {
            let delays = near(failures, LONGEST);
            assert!(delays.iter().all(|delay| *delay <= LONGEST));
        }
        assert_eq!(retry_delay(Time::ZERO, 5, &mut random), Time::ZERO);
    }

    #[test]
    fn each_cause_is_said_once_until_it_works_again() {
        let mut complaints = Complaints::default();
        let said = |complaints: &mut Complaints| {
            let causes = ["closed", "reset", "closed", "reset"];
            causes.map(|cause| complaints.is_new(cause))
        };
        assert_eq!(said(&mut complaints), [true, true, false, false]);
        complaints.clear();
        assert_eq!(said(&mut complaints), [true, true, false, false]);
        let many = (0..100).filter(|number| complaints.is_new(&number.to_string()));
        assert_eq!(many.count(), Complaints::MOST - 2);
    }
}
