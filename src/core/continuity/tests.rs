//! What one stream tells, laid over what the last one told, clocks that jump included.

use super::*;

const T0: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn event(n: i64) -> Event {
    Event {
        kind: "container".into(),
        action: "start".into(),
        id: format!("c{n}").into(),
        attributes: Default::default(),
        time_ns: T0 + n * SECOND,
        ..Event::default()
    }
}

fn judge(stream: &mut Continuity, n: i64) -> (Verdict, Option<Gap>) {
    judge_at(stream, Time::ZERO, n)
}

fn judge_at(stream: &mut Continuity, now: Time, n: i64) -> (Verdict, Option<Gap>) {
    stream.judge(now, &event(n), || false)
}

fn begun() -> Continuity {
    let mut stream = Continuity::new(None);
    assert_eq!(stream.since(), Since::Now);
    stream.connected(Time::ZERO, T0, false);
    stream
}

fn at(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

#[test]
fn an_overlap_is_dropped_and_what_follows_it_is_late() {
    let mut stream = begun();
    for n in 1..=3 {
        assert_eq!(judge(&mut stream, n), (Verdict::Live, None));
    }
    stream.ended(T0 + 4 * SECOND);
    stream.connected(at(10), T0 + 10 * SECOND, false);
    for n in 1..=3 {
        assert_eq!(judge(&mut stream, n), (Verdict::Seen, None));
    }
    assert_eq!(judge(&mut stream, 5), (Verdict::Late, None));
    assert_eq!(judge(&mut stream, 11), (Verdict::Live, None));
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn an_event_between_two_seen_ones_was_dropped_by_the_engine() {
    let mut stream = begun();
    judge(&mut stream, 1);
    judge(&mut stream, 3);
    stream.ended(T0 + 4 * SECOND);
    stream.connected(at(4), T0 + 4 * SECOND, true);
    judge(&mut stream, 1);
    assert_eq!(judge(&mut stream, 2), (Verdict::Late, None));
    assert_eq!(judge(&mut stream, 3), (Verdict::Seen, Some(Gap::Dropped)));
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn what_was_inferred_is_neither_news_nor_a_gap_and_moves_no_resume_point() {
    let mut stream = begun();
    judge(&mut stream, 1);
    judge(&mut stream, 3);
    stream.ended(T0 + 4 * SECOND);
    stream.connected(at(4), T0 + 4 * SECOND, true);
    judge(&mut stream, 1);
    assert_eq!(
        stream.judge(Time::ZERO, &event(2), || true),
        (Verdict::Old, None)
    );
    assert_eq!(stream.resume_ns(), Some(T0 + 3 * SECOND));
    assert_eq!(judge(&mut stream, 3), (Verdict::Seen, None));
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn the_last_events_of_a_stream_may_be_the_dropped_ones() {
    let mut stream = begun();
    judge(&mut stream, 1);
    stream.ended(T0 + 60 * SECOND);
    stream.connected(at(60), T0 + 60 * SECOND, true);
    judge(&mut stream, 1);
    assert_eq!(judge(&mut stream, 2), (Verdict::Late, Some(Gap::Dropped)));
}

#[test]
fn a_replay_that_does_not_reach_back_is_a_gap() {
    let mut stream = begun();
    judge(&mut stream, 1);
    stream.ended(T0 + 2 * SECOND);
    stream.connected(at(900), T0 + 900 * SECOND, false);
    for n in 500..800 {
        assert_eq!(judge(&mut stream, n).0, Verdict::Late);
    }
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn a_stream_that_ends_at_once_hides_no_gap() {
    let mut stream = begun();
    judge(&mut stream, 1);
    stream.ended(T0 + 2 * SECOND);
    stream.connected(at(900), T0 + 900 * SECOND, false);
    judge(&mut stream, 800);
    stream.ended(T0 + 901 * SECOND);
    stream.connected(at(901), T0 + 901 * SECOND, true);
    assert_eq!(judge(&mut stream, 800).0, Verdict::Seen);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
}

#[test]
fn what_a_resync_has_healed_is_no_news_in_the_next_replay() {
    let mut stream = begun();
    judge(&mut stream, 1);
    stream.heal(T0 + 8 * SECOND);
    judge(&mut stream, 9);
    stream.ended(T0 + 10 * SECOND);
    stream.connected(at(10), T0 + 10 * SECOND, true);
    assert_eq!(judge(&mut stream, 1).0, Verdict::Seen);
    assert_eq!(judge(&mut stream, 7).0, Verdict::Old);
    assert_eq!(judge(&mut stream, 9).0, Verdict::Seen);
}

#[test]
fn a_clock_that_was_set_back_hides_nothing() {
    let mut stream = begun();
    judge(&mut stream, 5);
    assert_eq!(judge(&mut stream, -3600).0, Verdict::Live);
    stream.ended(T0 + 10 * SECOND);
    stream.connected(at(20), T0 - 3580 * SECOND, false);
    judge(&mut stream, 5);
    judge(&mut stream, -3600);
    assert_eq!(judge(&mut stream, -3585).0, Verdict::Late);
}

#[test]
fn a_clock_that_was_set_right_again_makes_nothing_of_before_our_time_news() {
    let mut stream = begun();
    judge(&mut stream, 5);
    judge(&mut stream, -3600);
    stream.ended(T0 - 3590 * SECOND);
    stream.connected(at(20), T0 - 3580 * SECOND, false);
    judge(&mut stream, -3600);
    assert_eq!(judge(&mut stream, -3585).0, Verdict::Late);
    stream.ended(T0 - 3570 * SECOND);
    stream.connected(at(30), T0 + 30 * SECOND, true);
    assert_eq!(judge(&mut stream, -7), (Verdict::Old, None));
    assert_eq!(judge(&mut stream, 5), (Verdict::Seen, None));
    assert_eq!(judge(&mut stream, -3600), (Verdict::Seen, None));
    assert_eq!(judge(&mut stream, -3585), (Verdict::Seen, None));
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn a_clock_that_is_set_back_during_a_replay_hides_nothing() {
    let mut stream = begun();
    judge(&mut stream, 5);
    stream.ended(T0 + 10 * SECOND);
    stream.connected(at(20), T0 + 20 * SECOND, false);
    judge(&mut stream, 5);
    assert_eq!(judge(&mut stream, -3580).0, Verdict::Late);
}

#[test]
fn a_replay_that_was_cut_short_makes_nothing_of_before_our_time_news() {
    let mut stream = Continuity::new(Some(T0 + 5 * SECOND));
    stream.connected(at(0), T0 + 60 * SECOND, false);
    assert_eq!(judge(&mut stream, 3).0, Verdict::Old);
    stream.ended(T0 + 61 * SECOND);
    stream.connected(at(2), T0 + 62 * SECOND, false);
    assert_eq!(judge(&mut stream, 3).0, Verdict::Seen);
    assert_eq!(judge(&mut stream, 5).0, Verdict::Old);
    assert_eq!(judge(&mut stream, 6).0, Verdict::Late);
}

#[test]
fn what_was_lost_and_healed_is_no_news_when_it_turns_up() {
    let mut stream = begun();
    judge(&mut stream, 1);
    stream.heal(T0 + 5 * SECOND);
    stream.ended(T0 + 60 * SECOND);
    stream.connected(at(60), T0 + 60 * SECOND, true);
    judge(&mut stream, 1);
    assert_eq!(judge(&mut stream, 2), (Verdict::Old, None));
}

#[test]
fn all_that_one_replay_shows_to_be_dropped_is_one_gap() {
    let mut stream = begun();
    judge(&mut stream, 1);
    judge(&mut stream, 4);
    stream.ended(T0 + 60 * SECOND);
    stream.connected(at(60), T0 + 60 * SECOND, true);
    judge(&mut stream, 1);
    judge(&mut stream, 2);
    assert_eq!(judge(&mut stream, 4), (Verdict::Seen, Some(Gap::Dropped)));
    assert_eq!(judge(&mut stream, 5), (Verdict::Late, None));
    assert_eq!(judge(&mut stream, 6), (Verdict::Late, None));
}

#[test]
fn a_storm_right_after_the_connect_is_no_gap() {
    let mut stream = begun();
    stream.ended(T0 + 60 * SECOND);
    stream.connected(at(60), T0 + 60 * SECOND, true);
    for n in 61..1000 {
        assert_eq!(judge(&mut stream, n).0, Verdict::Live);
    }
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn events_up_to_the_resume_point_run_nothing_again() {
    let mut stream = Continuity::new(Some(T0 + 5 * SECOND));
    stream.connected(at(0), T0 + 60 * SECOND, false);
    assert_eq!(judge(&mut stream, 5).0, Verdict::Old);
    assert_eq!(judge(&mut stream, 6).0, Verdict::Late);
    assert_eq!(judge(&mut stream, 61).0, Verdict::Live);
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn a_replay_that_comes_late_makes_nothing_of_before_our_time_news() {
    let mut stream = Continuity::new(Some(T0 + 5 * SECOND));
    stream.connected(Time::ZERO, T0 + 8 * SECOND, false);
    assert_eq!(stream.replay_over(), None);
    for (n, verdict) in [
        (4, Verdict::Old),
        (5, Verdict::Old),
        (6, Verdict::Live),
        (3, Verdict::Old),
        // From now on it is the clock that was set back.
        (11, Verdict::Live),
        (2, Verdict::Live),
    ] {
        assert_eq!(judge_at(&mut stream, at(3), n), (verdict, None), "{n}");
    }
    let mut idle = Continuity::new(Some(T0 + 5 * SECOND));
    idle.connected(Time::ZERO, T0 + 8 * SECOND, false);
    assert_eq!(idle.replay_over(), None);
    assert_eq!(judge_at(&mut idle, at(600), 1), (Verdict::Live, None));
}

#[test]
fn a_clock_that_was_set_back_while_no_agent_listened_is_a_gap_where_nothing_shows_what_is_news() {
    let mut stream = Continuity::new(Some(T0 + 5 * SECOND));
    stream.connected(at(0), T0 - 3580 * SECOND, false);
    assert_eq!(judge(&mut stream, -3590).0, Verdict::Old);
    assert_eq!(judge_at(&mut stream, at(1), -3579).0, Verdict::Live);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
    // Said once.
    stream.ended(T0 - 3520 * SECOND);
    stream.connected(at(60), T0 - 3520 * SECOND, true);
    judge(&mut stream, -3590);
    judge(&mut stream, -3579);
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn what_is_told_behind_the_last_agents_last_event_is_news_whatever_the_clock_says() {
    let mut stream = Continuity::new(Some(T0 + 5 * SECOND));
    stream.connected(at(0), T0 - 100 * SECOND, false);
    assert_eq!(judge(&mut stream, -200).0, Verdict::Old);
    // The engine's clock is still before it: it is told again all the same, as the stream is to last that long.
    let last = stream.judge(Time::ZERO, &event(5), || false);
    assert_eq!(last, (Verdict::Old, None));
    assert_eq!(judge(&mut stream, -110).0, Verdict::Late);
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn an_idle_engine_whose_clock_was_set_back_misses_nothing() {
    let mut stream = begun();
    judge(&mut stream, 5);
    for turn in 1..5 {
        let clock_ns = T0 + (60 * turn - 3600) * SECOND;
        stream.ended(clock_ns);
        stream.connected(at(60 * turn as u64), clock_ns, true);
        // moby does not replay what is younger than the `until` of the request.
        assert_eq!(stream.replay_over(), None);
    }
    stream.ended(T0 - 3000 * SECOND);
    stream.connected(at(600), T0 - 3000 * SECOND, true);
    assert_eq!(judge(&mut stream, -3100).0, Verdict::Late);
}

#[test]
fn what_is_dropped_after_the_clock_was_set_back_is_found() {
    let mut stream = begun();
    judge(&mut stream, -3600);
    judge(&mut stream, 5);
    stream.ended(T0 - 3000 * SECOND);
    stream.connected(at(600), T0 - 3000 * SECOND, true);
    judge(&mut stream, -3600);
    let dropped = judge(&mut stream, -3100);
    assert_eq!(dropped, (Verdict::Late, Some(Gap::Dropped)));
}

#[test]
fn a_busy_engine_that_forgot_where_the_last_agent_stopped_is_a_gap() {
    let mut stream = Continuity::new(Some(T0));
    let clock_ns = T0 + 60 * SECOND;
    stream.connected(at(0), clock_ns, false);
    // The engine goes on while it says how late it is: some of what it remembers is younger than that.
    for n in 0..RING as i64 {
        let event = Event {
            time_ns: clock_ns + (n - 250) * SECOND / 1000,
            ..event(n)
        };
        stream.judge(Time::ZERO, &event, || false);
    }
    // The stream is renewed before that is said.
    stream.ended(clock_ns + SECOND);
    stream.connected(at(1), clock_ns + SECOND, true);
    let newest = Event {
        time_ns: clock_ns + 5 * SECOND / 1000,
        ..event(255)
    };
    assert_eq!(stream.judge(Time::ZERO, &newest, || false).0, Verdict::Seen);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
}

#[test]
fn an_engine_that_remembers_where_the_last_agent_stopped_has_told_all() {
    let mut stream = Continuity::new(Some(T0));
    stream.connected(at(0), T0 + 900 * SECOND, false);
    for n in 0..RING as i64 + 50 {
        judge(&mut stream, n);
    }
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn an_engine_that_comes_back_with_another_clock_and_shows_nothing_it_told_before_is_a_gap() {
    let mut stream = begun();
    judge(&mut stream, 5);
    stream.ended(T0 + 10 * SECOND);
    stream.connected(at(20), T0 - 3580 * SECOND, false);
    // It may as well be from before our time.
    assert_eq!(judge(&mut stream, -3585).0, Verdict::Old);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
}

#[test]
fn where_a_successor_takes_up_does_not_move_before_the_engine_is_known_to_have_told_all() {
    let mut stream = begun();
    judge(&mut stream, 1);
    stream.ended(T0 + 2 * SECOND);
    stream.connected(at(900), T0 + 900 * SECOND, false);
    judge(&mut stream, 800);
    assert_eq!(stream.resume_ns(), Some(T0 + SECOND));
    judge(&mut stream, 1);
    assert_eq!(stream.resume_ns(), Some(T0 + 800 * SECOND));
}

#[test]
fn a_renewal_leaves_out_no_proof_that_another_clock_makes_hard() {
    let mut stream = begun();
    judge(&mut stream, 5);
    stream.ended(T0 + 10 * SECOND);
    stream.connected(at(20), T0 - 3580 * SECOND, false);
    judge(&mut stream, -3585);
    stream.ended(T0 - 3579 * SECOND);
    stream.connected(at(21), T0 - 3579 * SECOND, true);
    judge(&mut stream, -3585);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
}

#[test]
fn a_clock_that_was_set_back_to_before_old_events_makes_no_news_of_them() {
    let mut stream = begun();
    judge(&mut stream, 5);
    // An hour back, 10 s after we began.
    stream.ended(T0 - 3580 * SECOND);
    stream.connected(at(20), T0 - 3580 * SECOND, true);
    // What is older than its clock was since, and what is younger than it is, it told before our time.
    for n in [-7200, -3601, -3560, -3300, -3000] {
        assert_eq!(judge_at(&mut stream, at(20), n), (Verdict::Old, None));
    }
    assert_eq!(stream.replay_over(), None);
    // A longer stream shows more of it, and what happened since.
    stream.ended(T0 - 3000 * SECOND);
    stream.connected(at(600), T0 - 3000 * SECOND, true);
    for n in [-7200, -3601, -3560, -3300, -3000] {
        assert_eq!(judge_at(&mut stream, at(600), n), (Verdict::Seen, None));
    }
    assert_eq!(judge_at(&mut stream, at(600), -2500).0, Verdict::Old);
    assert_eq!(judge_at(&mut stream, at(601), -2999).0, Verdict::Live);
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn what_the_engine_tells_before_the_first_event_of_our_time_is_old_whatever_its_clock_says() {
    for back in [10, 300, 3600] {
        let mut stream = begun();
        // It was set back before we were told anything.
        judge(&mut stream, 5 - back);
        stream.ended(T0 + (8 - back) * SECOND);
        stream.connected(at(20), T0 + (20 - back) * SECOND, false);
        for n in [1 - back, 3 - back, 4 - back] {
            assert_eq!(judge_at(&mut stream, at(20), n), (Verdict::Old, None));
        }
        assert_eq!(judge(&mut stream, 5 - back), (Verdict::Seen, None));
        assert_eq!(judge(&mut stream, 12 - back).0, Verdict::Late);
        assert_eq!(stream.replay_over(), None, "{back}");
    }
}

#[test]
fn what_may_have_happened_since_the_clock_was_set_back_is_a_gap_where_no_order_shows_it() {
    let mut stream = begun();
    judge(&mut stream, 5);
    judge(&mut stream, -3590);
    stream.ended(T0 - 3580 * SECOND);
    stream.connected(at(20), T0 - 3580 * SECOND, true);
    // It stands before the first event that was told of those that the engine stamped since, not before the first of our time: that is hidden.
    assert_eq!(judge_at(&mut stream, at(20), -3592).0, Verdict::Old);
    assert_eq!(judge(&mut stream, -3590), (Verdict::Seen, None));
    // Cut short, it is still owed.
    stream.ended(T0 - 3579 * SECOND);
    stream.connected(at(21), T0 - 3579 * SECOND, false);
    judge(&mut stream, -3592);
    judge(&mut stream, -3590);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
    // Said once.
    stream.ended(T0 - 3520 * SECOND);
    stream.connected(at(80), T0 - 3520 * SECOND, true);
    judge(&mut stream, -3592);
    judge(&mut stream, -3590);
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn what_is_stamped_just_ahead_of_a_clock_that_was_set_back_is_not_live_before_its_time() {
    let mut stream = begun();
    stream.connected(at(1), T0 - 9 * SECOND, false);
    assert_eq!(judge_at(&mut stream, at(1), -8).0, Verdict::Old);
    assert_eq!(judge_at(&mut stream, at(2), -7).0, Verdict::Old);
    assert_eq!(judge_at(&mut stream, at(3), -7).0, Verdict::Seen);
    let mut stream = begun();
    stream.connected(at(1), T0 - 9 * SECOND, false);
    assert_eq!(judge_at(&mut stream, at(2), -8).0, Verdict::Live);
}

#[test]
fn a_step_back_that_is_passed_before_a_successor_listens_hides_nothing() {
    let mut stream = Continuity::new(Some(T0));
    // The engine looks back from its newest event, to the first one that is too old.
    let oldest_ns = T0 - REACH_NS;
    assert_eq!(
        stream.since(),
        Since::At {
            oldest_ns,
            newest_ns: T0
        }
    );
    stream.connected(at(0), T0 + 4 * SECOND, false);
    assert_eq!(judge(&mut stream, -60), (Verdict::Old, None));
    assert_eq!(judge(&mut stream, 0), (Verdict::Old, None));
    assert_eq!(judge(&mut stream, -7), (Verdict::Late, None));
    assert_eq!(judge(&mut stream, 3), (Verdict::Late, None));
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn stamps_that_descend_where_the_last_agents_last_event_is_not_found_are_a_gap() {
    let mut stream = Continuity::new(Some(T0));
    stream.connected(at(0), T0 + 4 * SECOND, false);
    assert_eq!(judge(&mut stream, -1), (Verdict::Old, None));
    assert_eq!(judge(&mut stream, -7), (Verdict::Old, None));
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
    // Stamps are never strictly in order, and an agent that was told nothing leaves no event to find.
    let mut stream = Continuity::new(Some(T0));
    stream.connected(at(0), T0 + 4 * SECOND, false);
    for n in [-60, -9, -10, -1] {
        assert_eq!(judge(&mut stream, n), (Verdict::Old, None));
    }
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn a_step_back_that_is_passed_while_an_engine_is_cut_off_that_told_nothing_yet_is_a_gap() {
    let mut stream = begun();
    stream.ended(T0 + SECOND);
    let since = Since::At {
        oldest_ns: T0 - REACH_NS,
        newest_ns: T0,
    };
    assert_eq!(stream.since(), since);
    // 10 s back.
    stream.connected(at(16), T0 + 6 * SECOND, false);
    assert_eq!(judge_at(&mut stream, at(16), -20), (Verdict::Old, None));
    assert_eq!(judge_at(&mut stream, at(16), -7), (Verdict::Old, None));
    assert_eq!(judge_at(&mut stream, at(16), 3).0, Verdict::Late);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
}

#[test]
fn a_step_back_that_is_passed_while_an_engine_is_cut_off_and_idles_is_no_gap() {
    let mut stream = begun();
    stream.ended(T0 + SECOND);
    stream.connected(at(16), T0 + 6 * SECOND, false);
    assert_eq!(judge_at(&mut stream, at(16), -20), (Verdict::Old, None));
    assert_eq!(stream.replay_over(), None);
    // Nor is one of whose clock nothing is known but that it goes.
    let mut stream = begun();
    stream.ended(T0 + SECOND);
    stream.connected(at(16), T0 + 15 * SECOND, false);
    for n in [-20, -7, -1] {
        assert_eq!(judge_at(&mut stream, at(16), n), (Verdict::Old, None));
    }
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn what_turns_up_where_the_engine_had_told_all_is_news_whatever_its_clock_says() {
    let mut stream = begun();
    judge(&mut stream, 5);
    stream.ended(T0 + 6 * SECOND);
    // Twice so far back, and right in between: then the engine has told all it had from that time.
    stream.connected(at(10), T0 - 3590 * SECOND, false);
    assert_eq!(judge_at(&mut stream, at(10), -3592).0, Verdict::Old);
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
    stream.ended(T0 - 3587 * SECOND);
    stream.connected(at(20), T0 + 20 * SECOND, false);
    judge(&mut stream, 5);
    judge(&mut stream, -3592);
    assert_eq!(stream.replay_over(), None);
    stream.ended(T0 + 25 * SECOND);
    stream.connected(at(30), T0 - 3570 * SECOND, false);
    judge(&mut stream, -3592);
    assert_eq!(judge_at(&mut stream, at(30), -3574).0, Verdict::Late);
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn an_engine_may_forget_what_it_told_late_of_before_our_time() {
    let mut stream = begun();
    judge(&mut stream, 5);
    // It says late how late it is, and is asked for all it has.
    stream.ended(T0 + 4 * SECOND);
    stream.connected(at(6), T0 + 4 * SECOND, true);
    assert_eq!(judge(&mut stream, -100).0, Verdict::Old);
    assert_eq!(judge(&mut stream, 5).0, Verdict::Seen);
    assert_eq!(stream.replay_over(), None);
    stream.ended(T0 + 10 * SECOND);
    stream.connected(at(60), T0 + 60 * SECOND, false);
    assert_eq!(judge(&mut stream, 5).0, Verdict::Seen);
    assert_eq!(judge(&mut stream, 20).0, Verdict::Late);
    assert_eq!(stream.replay_over(), None);
}

#[test]
fn what_the_engine_forgot_is_said_however_often_a_replay_is_cut_short() {
    let mut stream = Continuity::new(Some(T0));
    for turn in 0..3 {
        stream.connected(at(turn), T0 + (900 + turn as i64) * SECOND, true);
        for n in 1..=RING as i64 {
            judge(&mut stream, n);
        }
        stream.ended(T0 + (901 + turn as i64) * SECOND);
    }
    assert_eq!(stream.replay_over(), Some(Gap::Unlinked));
}

#[test]
fn what_the_engine_tells_ahead_of_its_clock_when_we_begin_is_old() {
    let mut stream = begun();
    assert_eq!(judge(&mut stream, 300), (Verdict::Old, None));
    // Its clock may stand later than it said.
    assert_eq!(judge(&mut stream, 5), (Verdict::Live, None));
    assert_eq!(judge_at(&mut stream, at(300), 301), (Verdict::Live, None));
}
