//! `once: true`: of all agents that see an event, one runs the command. A key a command says who does, or that it was done.
//!
//! The key holds the agent that has the command and lives as long as a lease unless that one renews it; once the command has ended it holds a word,
//! for as long as another agent may yet come with the same event. No host's lease is needed: an agent that writes no host has its share too.

use redis::Value;

use super::StoreError;
use super::encode::plain;
use super::fence::LEASE_MS;
use super::link::{number, text};
use super::redis::{RedisStore, seconds};

/// What the key holds when the command has ended.
const DONE: &str = "done";

/// How long that is known at least, in seconds.
const DONE_S: u64 = 300;

/// A word about a command that one agent is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnceAsk {
    /// Names the command's entry and event, alike on every agent.
    pub key: u128,
    /// The run's number in this process.
    pub run: u64,
    /// Which word.
    pub wish: OnceWish,
}

/// What is said of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnceWish {
    /// We want to run it, or do.
    Lease,
    /// It has ended, and nobody is to run it any more.
    Done,
}

/// Who has a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnceState {
    /// We do, for the time of a lease from now on.
    Ours,
    /// Another agent does, or another run of ours.
    Theirs,
    /// It has ended.
    Done,
}

impl RedisStore {
    /// Takes, renews or ends leases on commands; answers who has each of them, in the same order.
    pub(super) fn ask_once(&mut self, asks: &[OnceAsk]) -> Result<Vec<OnceState>, StoreError> {
        let lease = LEASE_MS.to_string();
        // Half of it may pass until the other agent sees the event, the other half until it can ask.
        let life = 2 * seconds(self.options.replay_max_age).max(DONE_S);
        let life = (life * 1000).to_string();
        let own = |ask: &OnceAsk| format!("{}:{}", self.options.boot, ask.run);
        let mut commands = Vec::new();
        for ask in asks {
            let key = self.keys.once(ask.key);
            commands.push(match ask.wish {
                OnceWish::Lease => plain(&["SET", &key, &own(ask), "PX", &lease, "NX"]),
                OnceWish::Done => plain(&["SET", &key, DONE, "PX", &life]),
            });
            commands.push(plain(&["GET", &key]));
        }
        let owners: Vec<String> = asks.iter().map(own).collect();
        let replies = self.ask(&commands)?;
        let mut renew = Vec::new();
        let mut states = Vec::new();
        for (place, (replies, own)) in replies.chunks(2).zip(&owners).enumerate() {
            let is_new = !matches!(replies, [Value::Nil, _]);
            states.push(match replies.last().and_then(text) {
                Some(word) if word == DONE => OnceState::Done,
                Some(owner) if owner == *own => {
                    if !is_new {
                        renew.push(place);
                    }
                    OnceState::Ours
                }
                _ => OnceState::Theirs,
            });
        }
        // Only now: it would cut the life of the word `done` short.
        let renewals = renew
            .iter()
            .map(|place| plain(&["PEXPIRE", &self.keys.once(asks[*place].key), &lease]));
        let renewals: Vec<_> = renewals.collect();
        if !renewals.is_empty() {
            for (place, reply) in renew.iter().zip(self.ask(&renewals)?) {
                if number(&reply) != Some(1) {
                    // It ran out in between; whoever asks next may have it.
                    states[*place] = OnceState::Theirs;
                }
            }
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;
    use std::time::Duration;

    use super::super::Store;
    use super::super::memory::{Loss, Memory};
    use super::super::testing::*;
    use super::*;

    fn lease(key: u128, run: u64) -> OnceAsk {
        let wish = OnceWish::Lease;
        OnceAsk { key, run, wish }
    }

    fn done(key: u128) -> OnceAsk {
        OnceAsk {
            wish: OnceWish::Done,
            ..lease(key, 1)
        }
    }

    fn open(mut store: RedisStore) -> RedisStore {
        store.open().expect("open");
        store
    }

    #[test]
    fn of_many_that_ask_at_once_one_has_each_command() {
        const COMMANDS: usize = 256;
        let server = Server::start(&[]);
        let start = Barrier::new(8);
        let all: Vec<Vec<OnceState>> = thread::scope(|scope| {
            let agents: Vec<_> = (0..8)
                .map(|agent| {
                    let (server, start) = (&server, &start);
                    scope.spawn(move || {
                        let mut store = open(server.store(&format!("boot{agent}")));
                        let asks: Vec<OnceAsk> =
                            (0..COMMANDS).map(|key| lease(key as u128, 1)).collect();
                        start.wait();
                        // One request for all would be served as a whole; small ones meet.
                        asks.chunks(4)
                            .flat_map(|asks| store.once(asks).expect("once"))
                            .collect()
                    })
                })
                .collect();
            agents
                .into_iter()
                .map(|agent| agent.join().expect("an agent"))
                .collect()
        });
        for key in 0..COMMANDS {
            let states = all.iter().map(|states| states[key]);
            let (ours, theirs): (Vec<_>, Vec<_>) =
                states.partition(|state| *state == OnceState::Ours);
            assert_eq!((ours.len(), theirs.len()), (1, 7), "command {key}");
        }
    }

    #[test]
    fn a_lease_runs_out_unless_it_is_renewed_and_the_end_is_known_for_ten_minutes() {
        let memory = Memory::default();
        let seconds = |seconds| memory.advance(Duration::from_secs(seconds));
        let mut first = open(memory.store(options("/nowhere".into(), "first")));
        let mut second = open(memory.store(options("/nowhere".into(), "second")));
        let mut ask = |who: u8, ask: OnceAsk| match who {
            1 => first.once(&[ask]).expect("once")[0],
            _ => second.once(&[ask]).expect("once")[0],
        };
        assert_eq!(ask(1, lease(7, 1)), OnceState::Ours);
        for _ in 0..6 {
            seconds(2);
            assert_eq!(ask(1, lease(7, 1)), OnceState::Ours);
            assert_eq!(ask(2, lease(7, 1)), OnceState::Theirs);
        }
        // Another run of the same agent is another's as well.
        assert_eq!(ask(1, lease(7, 2)), OnceState::Theirs);
        seconds(9);
        assert_eq!(ask(2, lease(7, 5)), OnceState::Theirs);
        seconds(2);
        assert_eq!(ask(2, lease(7, 5)), OnceState::Ours);
        assert_eq!(ask(1, lease(7, 1)), OnceState::Theirs);
        assert_eq!(ask(2, done(7)), OnceState::Done);
        seconds(599);
        assert_eq!(ask(1, lease(7, 1)), OnceState::Done);
        // To have asked made it no longer.
        seconds(2);
        assert_eq!(ask(1, lease(7, 1)), OnceState::Ours);
    }

    #[test]
    fn a_lost_reply_leaves_no_doubt_about_who_has_it() {
        let memory = Memory::default();
        let mut store = open(memory.store(options("/nowhere".into(), "boot")));
        memory.lose_next(Loss::Reply);
        store.once(&[lease(7, 1)]).expect_err("it was lost");
        let mut other = open(memory.store(options("/nowhere".into(), "other")));
        assert_eq!(other.once(&[lease(7, 1)]), Ok(vec![OnceState::Theirs]));
        store.open().expect("open");
        assert_eq!(store.once(&[lease(7, 1)]), Ok(vec![OnceState::Ours]));
    }

    #[test]
    fn it_does_not_end_what_an_agent_watches_for_its_hosts() {
        let server = Server::start(&[]);
        let mut store = server.holding("boot", &[0]);
        super::super::testing::done(store.apply(&report(0, vec![put("c1", "ubuntu")])));
        let states = store.once(&[lease(1, 1), lease(2, 2), done(3)]);
        let wanted = [OnceState::Ours, OnceState::Ours, OnceState::Done];
        assert_eq!(states, Ok(wanted.to_vec()));
        server
            .client()
            .ask("SET docker:hosts:a:lease other:1 PX 10000");
        let applied = store.apply(&report(0, vec![]));
        assert!(
            matches!(applied, Ok(super::super::Applied::Fenced(_))),
            "{applied:?}"
        );
    }
}
