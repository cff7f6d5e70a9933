//! The queues on an event's way: from all to the core, from the core to a syncer and to the writer.
//!
//! Whoever puts something in wakes the receiver when the queue is open to it again. A channel of crossbeam or of std wakes it within its own lock: on
//! a machine with few processors the woken thread runs at once, meets that lock, sleeps, and is woken a second time. With the four times that such a
//! channel yields before it sleeps, that was 2.5 % of an event's way from the engine to the notice.
//!
//! A receiver takes all that waits at once, so that a flood costs it one lock for many, and its senders hardly ever meet it there.

use std::collections::VecDeque;
use std::mem;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Room that is kept for what comes next; what a flood took beyond it is given back.
const KEPT: usize = 64;

/// An empty queue. More than `room` in it at a time is a fault of whoever sends.
pub fn queue<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::new(),
            sleeps: false,
            closed: false,
        }),
        wake: Condvar::new(),
        room,
    });
    let receiver = Receiver {
        shared: shared.clone(),
        taken: VecDeque::new(),
    };
    (Sender(Arc::new(Senders(shared))), receiver)
}

/// An end that puts in, one of many.
#[derive(Debug)]
pub struct Sender<T>(Arc<Senders<T>>);

/// The end that takes out. Dropped, what is in the queue goes with it, and what comes after it.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// What waited when it looked last.
    taken: VecDeque<T>,
}

/// All senders: dropped with the last of them.
#[derive(Debug)]
struct Senders<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
    room: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// The receiver is to be woken.
    sleeps: bool,
    /// One of the two sides is gone.
    closed: bool,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Puts an item in, and does not wait. Where the receiver is gone it is dropped.
    ///
    /// # Panics
    /// There is no room, although the sender keeps count of what it has sent: that must not pass unseen.
    pub fn send(&self, item: T) {
        self.rouse(self.put(item));
    }

    /// The same for one of many that follow at once: a receiver that sleeps sleeps on until [`Sender::wake`], which must come.
    ///
    /// # Panics
    /// As above.
    pub fn add(&self, item: T) {
        drop(self.put(item));
    }

    /// Wakes a receiver that sleeps although there is something for it.
    pub fn wake(&self) {
        self.rouse(self.0.0.lock());
    }

    fn rouse(&self, mut state: MutexGuard<'_, State<T>>) {
        let sleeps = !state.items.is_empty() && mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
            self.0.0.wake.notify_one();
        }
    }

    fn put(&self, item: T) -> MutexGuard<'_, State<T>> {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if state.closed {
            // Its drop is none of the lock's business.
            drop(state);
            drop(item);
            return shared.lock();
        }
        let full = state.items.len() >= shared.room;
        if full {
            drop(state);
            panic!("more was asked of a thread than it has room for");
        }
        state.items.push_back(item);
        state
    }
}

impl<T> Receiver<T> {
    /// The next item; waits for it, by then.
    ///
    /// # Errors
    /// None has come by then, or none will come any more.
    pub fn receive(&mut self, until: Option<Instant>) -> Result<T, RecvTimeoutError> {
        if let Some(item) = self.taken.pop_front() {
            return Ok(item);
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(item) = take(&mut self.taken, &mut state) {
                return Ok(item);
            }
            if state.closed {
                return Err(RecvTimeoutError::Disconnected);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(RecvTimeoutError::Timeout);
            }
            state.sleeps = true;
            let wake = &self.shared.wake;
            state = match left {
                None => wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => wake
                    .wait_timeout(state, left)
                    .map_or_else(|error| error.into_inner().0, |(state, _)| state),
            };
            state.sleeps = false;
        }
    }

    /// The next item, if it is there already.
    pub fn waiting(&mut self) -> Option<T> {
        let there = self.taken.pop_front();
        there.or_else(|| take(&mut self.taken, &mut self.shared.lock()))
    }
}

/// Takes all that waits in place of what was taken before, of which nothing is left; gives the first of it.
fn take<T>(taken: &mut VecDeque<T>, state: &mut State<T>) -> Option<T> {
    taken.shrink_to(KEPT);
    mem::swap(taken, &mut state.items);
    taken.pop_front()
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.shared.lock();
            state.closed = true;
            mem::take(&mut state.items)
        };
        drop(left);
    }
}

impl<T> Drop for Senders<T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_one();
    }
}

impl<T> Shared<T> {
    /// Nothing that can panic is done under the lock, so that what it guards is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Nothing that is right takes so long.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_many_put_in_comes_out_once_and_in_the_order_of_each() {
        const SENDERS: usize = 4;
        const EACH: usize = 20_000;
        let (sender, mut receiver) = queue(usize::MAX);
        let threads = [(); SENDERS].map(|()| sender.clone());
        let threads: Vec<_> = threads
            .into_iter()
            .enumerate()
            .map(|(who, sender)| {
                thread::spawn(move || {
                    for number in 0..EACH {
                        sender.send((who, number));
                        if number % 1000 == who {
                            // Lets the receiver fall asleep now and then.
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut next = [0; SENDERS];
        while let Ok((who, number)) = receiver.receive(Some(Instant::now() + LONG)) {
            assert_eq!(number, next[who]);
            next[who] += 1;
        }
        assert_eq!(next, [EACH; SENDERS]);
        for thread in threads {
            thread.join().expect("it only sends");
        }
        assert_eq!(receiver.receive(None), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_receiver_that_sleeps_is_woken_for_each_item() {
        let (ask, mut asks) = queue(1);
        let (answer, mut answers) = queue(1);
        let other = thread::spawn(move || {
            while let Ok(number) = asks.receive(None) {
                answer.send(number + 1);
            }
        });
        for number in 0..5_000 {
            ask.send(number);
            let until = Some(Instant::now() + LONG);
            assert_eq!(answers.receive(until), Ok(number + 1));
        }
        drop(ask);
        other.join().expect("it ends with its asks");
        assert_eq!(answers.receive(None), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn the_last_sender_that_goes_wakes_the_receiver() {
        let (sender, mut receiver) = queue::<()>(1);
        let (second, waits) = (
            sender.clone(),
            thread::spawn(move || receiver.receive(None)),
        );
        drop(sender);
        assert!(!waits.is_finished(), "one is left");
        drop(second);
        let end = waits.join().expect("it only receives");
        assert_eq!(end, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn nothing_by_then_is_no_end() {
        let (sender, mut receiver) = queue(2);
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        assert_eq!(receiver.receive(soon()), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.waiting(), None);
        sender.send('a');
        sender.send('b');
        drop(sender);
        let past = Some(Instant::now());
        assert_eq!(receiver.receive(past), Ok('a'), "what is there is taken");
        assert_eq!(receiver.waiting(), Some('b'));
        assert_eq!(receiver.waiting(), None);
        assert_eq!(receiver.receive(past), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn what_is_added_wakes_nobody_before_its_time_and_is_not_forgotten() {
        let (sender, mut receiver) = queue(4);
        sender.wake();
        let (taken, all) = mpsc::channel();
        let thread = thread::spawn(move || {
            while let Ok(item) = receiver.receive(None) {
                taken.send(item).expect("it is waited for");
            }
        });
        for round in 0..100 {
            sender.add(3 * round);
            sender.add(3 * round + 1);
            match round % 2 {
                0 => sender.wake(),
                _ => sender.send(3 * round + 2),
            }
            let expected = (3 * round..3 * round + 2 + round % 2).collect::<Vec<_>>();
            let got: Vec<_> = expected.iter().map(|_| all.recv_timeout(LONG)).collect();
            assert_eq!(got, expected.into_iter().map(Ok).collect::<Vec<_>>());
        }
        drop(sender);
        thread.join().expect("it only receives");
        let (sender, mut receiver) = queue(1);
        let asleep = thread::spawn(move || receiver.receive(None));
        let shared = &sender.0.0;
        while !shared.lock().sleeps {
            thread::yield_now();
        }
        sender.add(());
        assert!(shared.lock().sleeps, "it is told later");
        sender.wake();
        assert_eq!(asleep.join().expect("it only receives"), Ok(()));
    }

    #[test]
    fn what_nobody_will_take_is_dropped() {
        let (sender, mut receiver) = queue(usize::MAX);
        let item = Arc::new(());
        for _ in 0..3 {
            sender.send(item.clone());
        }
        assert!(receiver.waiting().is_some());
        assert_eq!(Arc::strong_count(&item), 3);
        drop(receiver);
        assert_eq!(Arc::strong_count(&item), 1);
        sender.send(item.clone());
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn what_a_flood_took_is_given_back() {
        let (sender, mut receiver) = queue(usize::MAX);
        for round in 0..2 {
            (0..10_000).for_each(|number| sender.send(number));
            (0..10_000).for_each(|number| assert_eq!(receiver.waiting(), Some(number)));
            assert_eq!(receiver.waiting(), None, "round {round}");
        }
        sender.send(0);
        assert_eq!(receiver.waiting(), Some(0));
        let left = receiver
            .taken
            .capacity()
            .max(receiver.shared.lock().items.capacity());
        assert!(left <= 2 * KEPT, "{left}");
    }

    #[test]
    #[should_panic(expected = "more was asked of a thread than it has room for")]
    fn more_than_there_is_room_for_does_not_pass_unseen() {
        let (sender, _receiver) = queue(1);
        sender.send(1);
        sender.send(2);
    }
}
