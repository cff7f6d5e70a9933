//! What the pieces that threads keep take in all: a process of its own, which has no other memory that comes and goes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use docker_cache_allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident bytes of this process.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = pages.split(' ').nth(1).expect("its second number");
    pages.parse::<usize>().expect("a number") * 4096
}

/// Words of all sizes that a thread keeps.
fn words() -> Vec<Box<[u8]>> {
    let sizes = (1..=300).map(|size| vec![size as u8; size].into_boxed_slice());
    sizes.collect()
}

#[test]
fn a_thread_that_ends_leaves_nothing_behind() {
    let _alone = alone();
    let live = || {
        let thread = std::thread::spawn(|| drop(words()));
        thread.join().expect("it ends");
    };
    (0..100).for_each(|_| live());
    let before = resident();
    (0..3_000).for_each(|_| live());
    let more = resident().saturating_sub(before);
    assert!(more < 8 << 20, "{more} bytes");
}

#[test]
fn what_one_thread_takes_another_may_free() {
    let _alone = alone();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<Box<[u8]>>>(8);
    let other = std::thread::spawn(move || {
        for words in receiver {
            for word in words {
                assert!(word.iter().all(|byte| *byte == word.len() as u8));
            }
        }
    });
    let send = |times: usize| {
        (0..times).for_each(|_| sender.send(words()).expect("it listens"));
    };
    send(100);
    let before = resident();
    send(2_000);
    let more = resident().saturating_sub(before);
    drop(sender);
    other.join().expect("all were whole");
    assert!(more < 8 << 20, "{more} bytes");
}
