//! The rules of the queues, one by one; all together they are tried in `random`.

use super::*;
use crate::model::{Event, Order, Queueing};

const E: EngineIndex = EngineIndex(0);

/// How long a job with `once` waits for the store.
const PATIENCE: Time = Time::from_secs(300);

/// A moment, in milliseconds.
fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn entry(name: &str, queueing: Queueing) -> Arc<Entry> {
    Arc::new(Entry {
        name: name.into(),
        command: Some("true".into()),
        queueing,
        ..Entry::default()
    })
}

fn limited(concurrency: usize) -> Queueing {
    Queueing {
        concurrency,
        ..Queueing::default()
    }
}

fn trigger(place: usize, container: &str, ns: i64) -> Trigger {
    Trigger {
        place,
        engine: E,
        event: Arc::new(Event {
            kind: "container".into(),
            action: "die".into(),
            id: container.into(),
            attributes: Default::default(),
            time_ns: ns,
            ..Event::default()
        }),
        inferred: false,
        revision: 0,
        write_first: false,
        hidden: false,
        once: None,
    }
}

/// Queues, and what came of what was done with them.
struct Bench {
    jobs: Jobs,
    now: Time,
    random: Random,
}

impl Bench {
    fn new(queueing: &[Queueing], workers: usize) -> Self {
        let named =
            |(number, queueing): (usize, &Queueing)| entry(&format!("e{number}"), queueing.clone());
        let entries: Vec<_> = queueing.iter().enumerate().map(named).collect();
        Bench {
            jobs: Jobs::new(&entries, workers, PATIENCE),
            now: Time::ZERO,
            random: Random::new(1),
        }
    }

    fn one(queueing: Queueing) -> Self {
        Bench::new(&[queueing], 64)
    }

    /// Events of these containers; their stamps count up.
    fn add(&mut self, place: usize, containers: &[&str]) {
        for container in containers {
            let ns = self.jobs.next as i64;
            self.jobs.add(self.now, trigger(place, container, ns));
        }
    }

    fn at(&mut self, now: Time) -> &mut Self {
        self.now = now;
        self
    }

    /// What starts now: `a#1`, `a#2/2` for a second try, `ax3#1` for three events.
    fn started(&mut self) -> String {
        let mut started = Vec::new();
        while let Some(job) = self.jobs.start(self.now) {
            let mut text = job.event.id.to_string();
            if job.count > 1 {
                text += &format!("x{}", job.count);
            }
            text += &format!("#{}", job.id);
            if job.attempt > 1 {
                text += &format!("/{}", job.attempt);
            }
            started.push(text);
        }
        started.join(" ")
    }

    fn end(&mut self, id: u64, exit: Exit) -> Option<Time> {
        let ended = self.jobs.ended(self.now, id, &exit, &mut self.random);
        ended.expect("it runs").again
    }

    fn ends(&mut self, id: u64) {
        assert_eq!(self.end(id, Exit::Code(0)), None);
    }

    fn fails(&mut self, id: u64) -> Option<Time> {
        self.end(id, Exit::Code(1))
    }

    /// What else came of it: `end #1`, `a#2 Busy`.
    fn outcomes(&mut self) -> String {
        let outcomes = self.jobs.outcomes().into_iter();
        let texts: Vec<String> = outcomes
            .map(|outcome| match outcome {
                Outcome::End(id) => format!("end #{id}"),
                Outcome::Twice(job) => format!("{}#{} twice", job.event.id, job.id),
                Outcome::Left(job, why) => format!("{}#{} {why:?}", job.event.id, job.id),
            })
            .collect();
        texts.join(", ")
    }

    /// Nothing is left of anything.
    fn at_rest(&self) {
        let jobs = &self.jobs;
        assert_eq!((jobs.running(), jobs.waiting()), (0, 0));
        assert_eq!((jobs.deadline(), jobs.first_unstarted(E)), (None, None));
    }
}

// ---- order and concurrency

#[test]
fn one_container_runs_in_order_and_others_beside_it() {
    let mut bench = Bench::one(limited(8));
    bench.add(0, &["a", "a", "b"]);
    assert_eq!(bench.started(), "a#1 b#3");
    assert_eq!(bench.jobs.first_unstarted(E), Some(2));
    bench.ends(1);
    assert_eq!(bench.started(), "a#2");
    assert_eq!(bench.jobs.first_unstarted(E), None);
}

#[test]
fn without_an_order_one_container_runs_at_once_up_to_the_concurrency() {
    let mut bench = Bench::one(Queueing {
        order: Order::None,
        ..limited(3)
    });
    bench.add(0, &["a", "a", "b", "a", "c"]);
    assert_eq!(bench.started(), "a#1 a#2 b#3");
    bench.ends(2);
    assert_eq!(bench.started(), "a#4");
    bench.ends(1);
    bench.ends(3);
    assert_eq!(bench.started(), "c#5");
}

#[test]
fn an_entry_that_hangs_leaves_room_for_the_others() {
    let mut bench = Bench::new(&[limited(8), limited(8), limited(8)], 4);
    for n in 0..20 {
        bench.add(0, &[&format!("a{n}")]);
    }
    // Half of the slots are kept for entries at rest.
    assert_eq!(bench.started(), "a0#1 a1#2");
    bench.add(1, &["b"]);
    bench.add(2, &["c"]);
    assert_eq!(bench.started(), "b#21 c#22");
    // However few slots there are, and whoever has them.
    let mut bench = Bench::new(&[limited(8), limited(1), limited(2)], 1);
    bench.add(0, &["a", "a2"]);
    bench.add(1, &["b", "b2"]);
    bench.add(2, &["c", "c2"]);
    assert_eq!(bench.started(), "a#1 b#3 c#5");
    bench.ends(1);
    // The two that run have taken the only slot.
    assert_eq!(bench.started(), "a2#2");
}

#[test]
fn no_slot_is_kept_for_an_entry_without_a_command() {
    let entries = [
        entry("e", limited(8)),
        Arc::new(Entry {
            log: Some("so it is".into()),
            ..Entry::default()
        }),
    ];
    let mut bench = Bench::one(limited(8));
    bench.jobs = Jobs::new(&entries, 2, PATIENCE);
    bench.add(0, &["a", "b"]);
    assert_eq!(bench.started(), "a#1 b#2");
}

#[test]
fn a_full_queue_drops_and_says_so_once() {
    let mut bench = Bench::one(limited(1));
    for n in 0..WAITING as i64 {
        bench.jobs.add(bench.now, trigger(0, "a", n));
    }
    assert_eq!(bench.outcomes(), "");
    bench.add(0, &["b"]);
    assert_eq!(bench.outcomes(), "b#100001 Full(100000)");
    bench.add(0, &["b"]);
    assert_eq!(bench.outcomes(), "");
    assert_eq!(
        (bench.jobs.dropped_total, bench.jobs.waiting()),
        (2, WAITING)
    );
    assert_eq!(bench.jobs.first_unstarted(E), Some(0));
    assert_eq!(bench.started(), "a#1");
    bench.add(0, &["c", "c"]);
    assert_eq!(bench.outcomes(), "", "it is the same burst");
    bench.ends(1);
    for n in 2..=WAITING as u64 / 2 + 1 {
        assert_eq!(bench.started(), format!("a#{n}"));
        bench.ends(n);
    }
    for n in 0..=WAITING as i64 / 2 + 1 {
        bench.jobs.add(bench.now, trigger(0, "a", n));
    }
    assert_eq!(bench.outcomes().matches("Full").count(), 1);
}

#[test]
fn a_queue_is_also_full_when_it_holds_too_many_bytes() {
    let mut bench = Bench::one(limited(1));
    let mut heavy = trigger(0, "a", 1);
    let event = Arc::make_mut(&mut heavy.event);
    event.attributes.push("l", &"x".repeat(1 << 20));
    for _ in 0..200 {
        bench.jobs.add(bench.now, heavy.clone());
    }
    assert_eq!(bench.outcomes(), "a#160 Full(159)");
    bench.started();
    bench.ends(1);
    assert_eq!(bench.jobs.queues[&1].waiting.len(), 158);
}

#[test]
fn a_stop_starts_nothing_more_and_waits_for_nothing() {
    let mut bench = Bench::one(Queueing {
        retries: 3,
        ..limited(1)
    });
    bench.add(0, &["a", "b"]);
    assert_eq!(bench.started(), "a#1");
    bench.jobs.close();
    assert_eq!(bench.fails(1), None);
    bench.add(0, &["c"]);
    assert_eq!(bench.at(ms(10_000)).started(), "");
    assert_eq!((bench.jobs.running(), bench.jobs.deadline()), (0, None));
    assert_eq!(bench.jobs.first_unstarted(E), Some(2), "for a successor");
    assert_eq!((bench.jobs.waiting(), bench.jobs.dropped_total), (1, 1));
}

// ---- what a job waits for

fn held(container: &str, revision: u64, write_first: bool) -> Trigger {
    Trigger {
        revision,
        write_first,
        ..trigger(0, container, 1)
    }
}

#[test]
fn a_job_waits_for_the_store_and_for_an_inspect_but_not_for_ever() {
    let mut bench = Bench::one(limited(8));
    for (container, revision) in [("a", 7), ("b", 8), ("c", 9)] {
        bench.jobs.add(Time::ZERO, held(container, revision, true));
    }
    bench.jobs.seen(E, &"a".into(), 6);
    bench.jobs.written(E, &"a".into(), 7);
    assert_eq!(bench.started(), "", "seen too early");
    bench.jobs.seen(E, &"a".into(), 7);
    assert_eq!(bench.started(), "a#1");
    bench.jobs.seen(E, &"b".into(), 9);
    assert_eq!(bench.started(), "");
    assert_eq!(bench.jobs.deadline(), Some(ms(250)));
    assert_eq!(bench.at(ms(250)).started(), "b#2");
    bench.jobs.written(E, &"c".into(), 9);
    assert_eq!(bench.jobs.deadline(), Some(ms(1000)));
    assert_eq!(bench.at(ms(999)).started(), "");
    assert_eq!(bench.at(ms(1000)).started(), "c#3");
    assert_eq!(bench.jobs.deadline(), None);
}

#[test]
fn a_store_that_goes_down_frees_those_who_wait_for_nothing_else() {
    let mut bench = Bench::one(limited(8));
    bench.jobs.add(Time::ZERO, held("a", 7, true));
    bench.jobs.add(Time::ZERO, held("b", 7, true));
    bench.jobs.seen(E, &"a".into(), 7);
    bench.jobs.store_is_down(bench.now);
    assert_eq!(bench.started(), "a#1");
    bench.jobs.written(E, &"a".into(), 7);
    bench.ends(1);
    bench.jobs.seen(E, &"b".into(), 7);
    assert_eq!(bench.started(), "b#2");
    bench.ends(2);
    bench.at_rest();
}

#[test]
fn a_job_waits_from_its_event_on_not_from_its_turn() {
    let mut bench = Bench::one(limited(8));
    bench.jobs.add(Time::ZERO, held("a", 1, false));
    bench.jobs.add(Time::ZERO, held("a", 2, false));
    bench.jobs.seen(E, &"a".into(), 1);
    assert_eq!(bench.started(), "a#1");
    bench.at(ms(1000)).ends(1);
    assert_eq!(bench.started(), "a#2");
}

#[test]
fn what_its_container_does_later_does_not_overtake_a_job_that_waits() {
    let mut bench = Bench::one(limited(8));
    bench.jobs.add(Time::ZERO, held("a", 1, false));
    bench.add(0, &["a"]);
    assert_eq!(bench.started(), "");
    bench.jobs.seen(E, &"a".into(), 1);
    assert_eq!(bench.started(), "a#1");
    bench.ends(1);
    assert_eq!(bench.started(), "a#2");
}

// ---- on_busy

fn busy(on_busy: OnBusy, order: Order, concurrency: usize) -> Queueing {
    Queueing {
        on_busy,
        order,
        ..limited(concurrency)
    }
}

#[test]
fn skip_drops_what_its_own_container_keeps_from_starting() {
    let mut bench = Bench::one(busy(OnBusy::Skip, Order::Container, 8));
    bench.add(0, &["a", "a"]);
    assert_eq!(bench.outcomes(), "a#2 Busy", "one waits");
    assert_eq!(bench.started(), "a#1");
    bench.add(0, &["a", "b"]);
    assert_eq!(bench.outcomes(), "a#3 Busy", "one runs");
    assert_eq!(bench.started(), "b#4");
    bench.ends(1);
    bench.add(0, &["a"]);
    assert_eq!(bench.started(), "a#5");
    assert_eq!(bench.jobs.dropped_total, 0);
    assert_eq!(bench.jobs.first_unstarted(E), None);
}

#[test]
fn skip_drops_what_the_concurrency_keeps_from_starting() {
    for order in [Order::Container, Order::None] {
        let mut bench = Bench::one(busy(OnBusy::Skip, order, 2));
        bench.add(0, &["a", "b", "c"]);
        assert_eq!(bench.outcomes(), "c#3 Busy");
        assert_eq!(bench.started(), "a#1 b#2");
        bench.add(0, &["d"]);
        assert_eq!(bench.outcomes(), "d#4 Busy");
        bench.ends(1);
        bench.add(0, &["e"]);
        assert_eq!(bench.started(), "e#5");
    }
}

#[test]
fn skip_does_not_drop_what_other_entries_keep_from_starting() {
    let skip = busy(OnBusy::Skip, Order::Container, 8);
    let mut bench = Bench::new(&[limited(8), skip], 2);
    bench.add(1, &["z"]);
    bench.add(0, &["a"]);
    assert_eq!(bench.started(), "z#1 a#2");
    bench.add(1, &["a", "b"]);
    assert_eq!((bench.outcomes(), bench.started()), ("".into(), "".into()));
    bench.ends(1);
    assert_eq!(bench.started(), "a#3");
}

#[test]
fn skip_drops_what_comes_while_a_failed_command_waits() {
    let mut bench = Bench::one(Queueing {
        retries: 1,
        ..busy(OnBusy::Skip, Order::Container, 8)
    });
    bench.add(0, &["a"]);
    assert_eq!(bench.started(), "a#1");
    assert!(bench.fails(1).is_some());
    bench.add(0, &["a"]);
    assert_eq!(bench.outcomes(), "a#3 Busy");
    assert_eq!(bench.at(ms(1100)).started(), "a#2/2");
}

#[test]
fn replace_ends_what_runs_for_the_container_and_drops_what_waits() {
    let mut bench = Bench::one(busy(OnBusy::Replace, Order::Container, 8));
    bench.add(0, &["a", "b"]);
    assert_eq!(bench.started(), "a#1 b#2");
    bench.add(0, &["a"]);
    assert_eq!(bench.outcomes(), "end #1");
    bench.add(0, &["a"]);
    assert_eq!(bench.outcomes(), "a#3 Replaced", "it is told only once");
    assert_eq!(bench.started(), "");
    assert_eq!(bench.jobs.first_unstarted(E), Some(4));
    assert_eq!(bench.end(1, Exit::Replaced), None);
    assert_eq!(bench.started(), "a#4");
    assert_eq!(bench.jobs.dropped_total, 0);
}

#[test]
fn replace_ends_the_oldest_command_where_the_concurrency_is_in_the_way() {
    for order in [Order::Container, Order::None] {
        let mut bench = Bench::one(busy(OnBusy::Replace, order, 2));
        bench.add(0, &["a", "b"]);
        assert_eq!(bench.started(), "a#1 b#2");
        bench.add(0, &["c"]);
        assert_eq!(bench.outcomes(), "end #1");
        bench.end(1, Exit::Replaced);
        assert_eq!(bench.started(), "c#3");
        bench.add(0, &["d"]);
        assert_eq!(bench.outcomes(), "end #2");
    }
}

#[test]
fn replace_without_an_order_keeps_the_newest_of_those_that_wait() {
    let mut bench = Bench::one(busy(OnBusy::Replace, Order::None, 2));
    bench.add(0, &["a", "a", "a", "a"]);
    assert_eq!(bench.outcomes(), "a#1 Replaced, a#2 Replaced");
    assert_eq!(bench.started(), "a#3 a#4");
    bench.add(0, &["a", "a", "a"]);
    assert_eq!(bench.outcomes(), "end #3, a#5 Replaced, a#6 Replaced");
}

#[test]
fn what_was_replaced_is_not_tried_again() {
    let mut bench = Bench::one(Queueing {
        retries: 3,
        ..busy(OnBusy::Replace, Order::Container, 8)
    });
    bench.add(0, &["a"]);
    assert_eq!(bench.started(), "a#1");
    bench.add(0, &["a"]);
    assert_eq!(bench.fails(1), None, "it failed before it could be ended");
    assert_eq!(bench.started(), "a#2");
    assert!(bench.fails(2).is_some());
    bench.outcomes();
    bench.add(0, &["a"]);
    assert_eq!(bench.outcomes(), "a#3 Replaced", "it waited for its retry");
    assert_eq!(bench.started(), "a#4");
    bench.ends(4);
    bench.at_rest();
}

// ---- debounce

fn debounced(quiet: u64, max: u64) -> Queueing {
    let (quiet, max) = (ms(quiet), ms(max));
    Queueing {
        debounce: Some(Debounce { quiet, max }),
        ..limited(8)
    }
}

#[test]
fn debounce_runs_once_for_the_newest_event_when_it_is_quiet() {
    let mut bench = Bench::one(debounced(500, 5000));
    bench.add(0, &["a"]);
    bench.at(ms(400)).jobs.add(ms(400), trigger(0, "b", 20));
    bench.at(ms(800)).jobs.add(ms(800), trigger(0, "c", 30));
    assert_eq!(bench.jobs.deadline(), Some(ms(1300)));
    assert_eq!(bench.at(ms(1299)).started(), "");
    assert_eq!(bench.jobs.first_unstarted(E), Some(1), "the oldest");
    assert_eq!(bench.jobs.waiting(), 1);
    assert_eq!(bench.at(ms(1300)).started(), "cx3#1");
    bench.ends(1);
    bench.at_rest();
    bench.add(0, &["a"]);
    assert_eq!(bench.at(ms(1800)).started(), "a#2");
}

#[test]
fn debounce_does_not_wait_for_ever() {
    let mut bench = Bench::one(debounced(500, 1200));
    for n in 0..5 {
        bench.at(ms(n * 400)).add(0, &["a"]);
        if n == 3 {
            assert_eq!(bench.started(), "ax4#1");
        } else {
            assert_eq!(bench.started(), "");
        }
    }
}

#[test]
fn debounce_minds_the_oldest_event_of_each_engine() {
    let mut bench = Bench::one(debounced(500, 5000));
    let other = EngineIndex(1);
    for (engine, stamp) in [(E, 30), (other, 70), (E, 20), (other, 80), (E, 40)] {
        let trigger = Trigger {
            engine,
            ..trigger(0, "a", stamp)
        };
        bench.jobs.add(Time::ZERO, trigger);
    }
    assert_eq!(bench.jobs.first_unstarted(E), Some(20));
    assert_eq!(bench.jobs.first_unstarted(other), Some(70));
    let job = bench.jobs.start(ms(500)).expect("it is quiet");
    assert_eq!((job.count, job.event.time_ns), (5, 40));
    assert_eq!(job.engines().collect::<Vec<_>>(), [E, other]);
    assert_eq!(bench.jobs.first_unstarted(E), None);
    assert_eq!(bench.jobs.first_unstarted(other), None);
}

#[test]
fn a_debounced_job_waits_for_the_inspect_after_its_newest_event() {
    let mut bench = Bench::one(debounced(100, 5000));
    bench.jobs.add(Time::ZERO, held("a", 1, false));
    bench.jobs.seen(E, &"a".into(), 1);
    bench.jobs.add(ms(50), held("a", 2, false));
    assert_eq!(bench.at(ms(150)).started(), "");
    assert_eq!(bench.jobs.deadline(), Some(ms(1050)));
    bench.jobs.seen(E, &"a".into(), 2);
    assert_eq!(bench.started(), "ax2#1");
    bench.jobs.add(ms(150), held("b", 3, true));
    bench.jobs.seen(E, &"b".into(), 3);
    bench.jobs.written(E, &"b".into(), 3);
    assert_eq!(bench.at(ms(250)).started(), "b#2", "seen meanwhile");
}

// ---- cooldown

#[test]
fn cooldown_lets_a_container_start_nothing_for_a_while() {
    let mut bench = Bench::one(Queueing {
        cooldown: ms(1000),
        ..limited(8)
    });
    bench.add(0, &["a"]);
    assert_eq!(bench.at(ms(100)).started(), "a#1");
    bench.add(0, &["a", "b"]);
    assert_eq!(bench.outcomes(), "a#2 Cooldown");
    bench.at(ms(200));
    assert_eq!(bench.started(), "b#3");
    bench.ends(1);
    bench.at(ms(1099)).add(0, &["a"]);
    assert_eq!(bench.outcomes(), "a#4 Cooldown");
    bench.at(ms(1100)).add(0, &["a", "b"]);
    assert_eq!(bench.started(), "a#5");
    assert_eq!(bench.jobs.first_unstarted(E), None);
    assert_eq!(bench.jobs.dropped_total, 0);
}

#[test]
fn cooldown_begins_anew_for_those_that_waited() {
    let mut bench = Bench::one(Queueing {
        cooldown: ms(1000),
        ..limited(8)
    });
    bench.add(0, &["a", "a"]);
    assert_eq!(bench.started(), "a#1");
    bench.ends(1);
    assert_eq!(bench.started(), "", "it came before, its turn is too early");
    assert_eq!(bench.outcomes(), "a#2 Cooldown");
    bench.at_rest();
}

#[test]
fn cooldown_is_asked_when_what_was_collected_is_to_run() {
    let mut bench = Bench::one(Queueing {
        cooldown: ms(1000),
        ..debounced(100, 5000)
    });
    bench.add(0, &["a"]);
    assert_eq!(bench.at(ms(100)).started(), "a#1");
    bench.ends(1);
    bench.at(ms(900)).add(0, &["a"]);
    assert_eq!(bench.at(ms(1000)).started(), "");
    assert_eq!(bench.outcomes(), "a#2 Cooldown");
    bench.at(ms(1001)).add(0, &["a"]);
    assert_eq!(bench.at(ms(1101)).started(), "a#3");
}

#[test]
fn cooldown_forgets_containers_whose_time_is_over() {
    let mut cooldown = cooldown::Cooldown::default();
    let lane = |n: u64| -> Lane { (E, n.to_string().into()) };
    for n in 0..1000 {
        cooldown.begin(ms(n), &lane(n), ms(10));
        cooldown.begin(ms(n), &lane(0), ms(10));
    }
    assert!(cooldown.covers(ms(1005), &lane(999)) && cooldown.covers(ms(1005), &lane(0)));
    assert!(!cooldown.covers(ms(1005), &lane(5)));
    assert!(!cooldown.covers(ms(1009), &lane(0)));
    assert!(format!("{cooldown:?}").len() < 100, "{cooldown:?}");
}

// ---- retries

#[test]
fn a_failed_command_is_tried_again_later_and_later_and_then_no_more() {
    let mut bench = Bench::one(Queueing {
        retries: 2,
        backoff: ms(1000),
        ..limited(8)
    });
    bench.add(0, &["a"]);
    assert_eq!(bench.started(), "a#1");
    let first = bench.fails(1).expect("two more");
    assert!(first >= ms(900) && first <= ms(1100), "{first:?}");
    assert_eq!(bench.jobs.deadline(), Some(first));
    assert_eq!(bench.started(), "");
    assert_eq!(bench.at(first).started(), "a#2/2");
    let exit = Exit::NotStarted("no such file".into());
    let second = bench.end(2, exit).expect("one more");
    assert!(second >= ms(1800) && second <= ms(2200), "{second:?}");
    let job = bench.at(first + second).jobs.start(first + second);
    let job = job.expect("it is due");
    assert_eq!((job.id, job.run, job.attempt), (3, 1, 3));
    assert_eq!(bench.end(3, Exit::TimedOut), None);
    bench.at_rest();
}

#[test]
fn only_failures_are_tried_again() {
    for exit in [Exit::Code(0), Exit::Cancelled, Exit::Replaced] {
        let mut bench = Bench::one(Queueing {
            retries: 2,
            ..limited(8)
        });
        bench.add(0, &["a"]);
        assert_eq!(bench.started(), "a#1");
        assert_eq!(bench.end(1, exit), None);
        bench.at_rest();
    }
}

#[test]
fn a_container_waits_for_its_failed_command_which_takes_no_slot() {
    let mut bench = Bench::one(Queueing {
        retries: 1,
        ..limited(1)
    });
    bench.add(0, &["a", "a", "b"]);
    assert_eq!(bench.started(), "a#1");
    let delay = bench.fails(1).expect("one more");
    assert_eq!(bench.started(), "b#3");
    bench.ends(3);
    assert_eq!(bench.at(delay - ms(1)).started(), "");
    assert_eq!(bench.at(delay).started(), "a#4/2");
    bench.ends(4);
    assert_eq!(bench.started(), "a#2");
}

#[test]
fn without_an_order_nobody_waits_for_a_failed_command() {
    let mut bench = Bench::one(Queueing {
        retries: 1,
        order: Order::None,
        ..limited(1)
    });
    bench.add(0, &["a", "a"]);
    assert_eq!(bench.started(), "a#1");
    let delay = bench.fails(1).expect("one more");
    assert_eq!(bench.started(), "a#2");
    assert_eq!(bench.at(delay).started(), "");
    bench.ends(2);
    assert_eq!(bench.started(), "a#3/2");
}

#[test]
fn a_retry_does_not_mind_the_cooldown_and_begins_it_anew() {
    let mut bench = Bench::one(Queueing {
        retries: 1,
        cooldown: ms(5000),
        ..limited(8)
    });
    bench.add(0, &["a"]);
    assert_eq!(bench.started(), "a#1");
    let delay = bench.fails(1).expect("one more");
    assert_eq!(bench.at(delay).started(), "a#2/2");
    bench.ends(2);
    bench.at(ms(5001)).add(0, &["a"]);
    assert_eq!(bench.outcomes(), "a#3 Cooldown");
    bench.at(delay + ms(5000)).add(0, &["a"]);
    assert_eq!(bench.started(), "a#4");
}

#[test]
fn a_job_that_a_predecessor_began_is_tried_on() {
    let mut bench = Bench::one(Queueing {
        retries: 2,
        ..debounced(500, 5000)
    });
    let begun = Begun {
        run: "r-7".into(),
        attempt: 1,
        count: 3,
    };
    bench.jobs.add_again(Time::ZERO, trigger(0, "a", 1), begun);
    assert_eq!(bench.jobs.first_unstarted(E), None);
    assert_eq!(bench.started(), "ax3#1/2");
    assert!(bench.fails(1).is_some());
    assert_eq!(bench.at(ms(3000)).started(), "ax3#2/3");
    assert_eq!(bench.fails(2), None);
}

// ---- the file is read again

#[test]
fn a_reload_leaves_alone_what_did_not_change() {
    let same = Queueing {
        cooldown: ms(1000),
        retries: 1,
        ..limited(1)
    };
    let quiet = debounced(500, 5000);
    let mut bench = Bench::new(&[same.clone(), quiet.clone()], 64);
    bench.add(0, &["a", "b"]);
    bench.add(1, &["c"]);
    assert_eq!(bench.started(), "a#1");
    let entries = [
        entry("new", limited(8)),
        entry("e1", quiet),
        entry("e0", same),
    ];
    let done = bench.jobs.reload(&entries);
    assert_eq!((done.kept, done.new, done.gone, done.dropped), (2, 1, 0, 0));
    bench.at(ms(100));
    bench.add(0, &["d"]);
    bench.add(1, &["c"]);
    bench.add(2, &["a"]);
    assert_eq!(bench.outcomes(), "a#5 Cooldown");
    assert_eq!(bench.started(), "d#4");
    bench.ends(1);
    assert_eq!(bench.started(), "b#2");
    assert_eq!(bench.at(ms(600)).started(), "cx2#3");
}

#[test]
fn a_reload_drops_what_waits_for_entries_that_changed_and_lets_run_what_runs() {
    let before = Queueing {
        retries: 5,
        ..limited(1)
    };
    let mut bench = Bench::new(&[before.clone(), debounced(500, 5000), limited(8)], 64);
    bench.add(0, &["a", "b"]);
    bench.add(1, &["c", "c"]);
    bench.add(2, &["d"]);
    assert_eq!(bench.started(), "a#1 d#4");
    let done = bench
        .jobs
        .reload(&[entry("e2", limited(8)), entry("e0", limited(1))]);
    assert_eq!((done.kept, done.new, done.gone, done.dropped), (1, 1, 2, 2));
    assert_eq!((bench.jobs.dropped_total, bench.jobs.waiting()), (2, 0));
    assert_eq!(bench.jobs.first_unstarted(E), None);
    assert_eq!(bench.jobs.deadline(), None);
    bench.add(1, &["a"]);
    assert_eq!(bench.started(), "a#5", "not held up by the old entry");
    let ended = bench
        .jobs
        .ended(bench.now, 1, &Exit::Code(1), &mut bench.random)
        .expect("it runs");
    assert_eq!((&*ended.job.entry.name, ended.again), ("e0", None));
    assert_eq!(ended.job.entry.queueing, before);
    bench.ends(4);
    bench.ends(5);
    bench.at_rest();
    assert_eq!(bench.jobs.queues.len(), 2);
}

#[test]
fn a_reload_knows_an_entry_without_a_name_wherever_it_stands() {
    let unnamed = |number: usize| entry(&format!("#{number}"), limited(1));
    let mut bench = Bench::one(limited(1));
    bench.jobs = Jobs::new(&[unnamed(1), unnamed(2)], 64, PATIENCE);
    bench.add(0, &["a", "b"]);
    bench.add(1, &["c"]);
    assert_eq!(bench.started(), "a#1 c#3");
    let other = entry("#1", limited(2));
    let done = bench.jobs.reload(&[other, unnamed(2), unnamed(3)]);
    assert_eq!((done.kept, done.new, done.gone, done.dropped), (2, 1, 0, 0));
    bench.ends(1);
    let job = bench.jobs.start(bench.now).expect("its turn has come");
    assert_eq!((&*job.event.id, &*job.entry.name), ("b", "#2"));
    let named = Arc::new(Entry {
        name: "c".into(),
        ..(*unnamed(3)).clone()
    });
    assert_eq!(bench.jobs.reload(&[named]).kept, 0, "a name is a change");
}

#[test]
fn no_slot_is_kept_for_an_entry_that_is_gone() {
    let mut bench = Bench::new(&[limited(8), limited(7)], 2);
    bench.add(1, &["x"]);
    assert_eq!(bench.started(), "x#1");
    bench.jobs.reload(&[entry("e0", limited(8))]);
    bench.ends(1);
    bench.add(0, &["a", "b"]);
    assert_eq!(bench.started(), "a#2 b#3");
}

#[test]
fn an_engine_that_is_watched_no_more_takes_along_what_waits_for_it() {
    let other = EngineIndex(1);
    let of = |engine: EngineIndex, place, container, ns| Trigger {
        engine,
        ..trigger(place, container, ns)
    };
    let again = Queueing {
        retries: 5,
        ..limited(1)
    };
    let mut bench = Bench::new(&[again.clone(), again, debounced(500, 5000)], 64);
    for (engine, place, container, ns) in [
        (E, 0, "runs", 1),
        (E, 0, "waits", 2),
        (other, 0, "stays", 3),
        (E, 1, "fails", 4),
        (E, 2, "collected", 5),
    ] {
        bench.jobs.add(bench.now, of(engine, place, container, ns));
    }
    assert_eq!(bench.started(), "runs#1 fails#4");
    assert!(bench.fails(4).is_some(), "to be tried again");
    assert_eq!(bench.jobs.drop_engine(E), 3);
    assert_eq!((bench.jobs.dropped_total, bench.jobs.waiting()), (3, 1));
    assert_eq!(bench.jobs.first_unstarted(E), None);
    assert_eq!(bench.jobs.first_unstarted(other), Some(3));
    assert_eq!(bench.jobs.deadline(), None);
    assert_eq!(bench.fails(1), None, "it is not tried again");
    assert_eq!(bench.started(), "stays#3");
    bench.ends(3);
    // It may be watched again.
    bench.jobs.add(bench.now, of(E, 0, "runs", 6));
    assert_eq!(bench.started(), "runs#7");
    // What was collected of others as well goes on.
    bench.jobs.add(bench.now, of(other, 2, "a", 7));
    bench.jobs.add(bench.now, of(E, 2, "b", 8));
    assert_eq!(bench.jobs.drop_engine(E), 0);
    assert_eq!(bench.at(ms(500)).started(), "bx2#8");
}

// ---- many

/// Neither many entries nor long queues make a start dear: a scan of them would take minutes here.
#[test]
fn long_queues_of_many_entries_cost_little() {
    let mut bench = Bench::new(&vec![limited(1); 1000], 64);
    let containers: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let mut expected = 0;
    for place in 0..1000 {
        let rounds = if place == 0 { 200 } else { 1 };
        for _ in 0..rounds {
            for container in &containers {
                bench.jobs.add(bench.now, held_at(place, container));
                expected += 1;
            }
        }
    }
    for container in &containers {
        bench.jobs.seen(E, &container.as_str().into(), 1);
    }
    let mut ended = 0;
    let mut running = std::collections::VecDeque::new();
    while ended < expected {
        while let Some(job) = bench.jobs.start(bench.now) {
            running.push_back(job.id);
        }
        let id = running.pop_front().expect("something runs");
        bench.ends(id);
        ended += 1;
    }
    bench.at_rest();
}

fn held_at(place: usize, container: &str) -> Trigger {
    Trigger {
        place,
        ..held(container, 1, false)
    }
}
