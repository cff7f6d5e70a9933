//! The small pieces that a thread keeps, by size: taken and put back without a lock, some at a time from and to the heap.

use std::alloc::Layout;
use std::cell::Cell;
use std::iter;
use std::ptr;
use std::sync::OnceLock;

use libc::{c_void, pthread_key_t};

use crate::heap;

/// So many sizes are kept; beyond the largest, pieces are too few to matter.
const CLASSES: usize = 15;

/// A thread keeps up to so many bytes of each size. There may be thousands of threads.
const KEPT: usize = 1024;

/// Pieces of one size. The sizes are those that dlmalloc rounds to: a multiple of its alignment with the word that it needs itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Class(usize);

impl Class {
    /// Of a piece that is kept.
    pub fn of(layout: Layout) -> Option<Class> {
        let class = layout.size().saturating_sub(WORD + 1) / ALIGN;
        (class < CLASSES && layout.align() <= ALIGN).then_some(Class(class))
    }

    fn size(self) -> usize {
        3 * WORD + ALIGN * self.0
    }

    /// So many are kept.
    fn most(self) -> usize {
        KEPT / self.size()
    }
}

const WORD: usize = size_of::<usize>();

/// How dlmalloc aligns what asks for no more.
const ALIGN: usize = 2 * WORD;

/// A piece that waits to be taken.
struct Free {
    next: *mut Free,
}

struct List {
    first: Cell<*mut Free>,
    len: Cell<usize>,
}

/// Whether a thread keeps pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It had none yet.
    New,
    Open,
    /// It has ended, but for what others do at its end; or nobody would tell when it does.
    Closed,
}

struct Cache {
    state: Cell<State>,
    lists: [List; CLASSES],
}

thread_local! {
    /// It has no destructor of Rust's, to register which takes memory.
    static CACHE: Cache = const {
        Cache {
            state: Cell::new(State::New),
            lists: [const {
                List {
                    first: Cell::new(ptr::null_mut()),
                    len: Cell::new(0),
                }
            }; CLASSES],
        }
    };
}

/// A piece of this size, aligned to two words, which nobody else has; null when there is no memory.
pub fn take(class: Class) -> *mut u8 {
    CACHE.with(|cache| cache.take(class))
}

/// Takes a piece back.
///
/// # Safety
/// It is from [`take`], of the same class, on whatever thread, and nobody uses it any more.
pub unsafe fn put(class: Class, piece: *mut u8) {
    // SAFETY: the caller promises the same.
    CACHE.with(|cache| unsafe { cache.put(class, piece) });
}

impl Cache {
    fn take(&self, class: Class) -> *mut u8 {
        match self.lists[class.0].pop() {
            piece if piece.is_null() => self.fill(class),
            piece => piece,
        }
    }

    unsafe fn put(&self, class: Class, piece: *mut u8) {
        if self.state.get() != State::Open && !self.open() {
            // SAFETY: as `take` made it.
            return unsafe { heap().free(piece, class.size(), ALIGN) };
        }
        let list = &self.lists[class.0];
        // SAFETY: the caller gives it to us.
        unsafe { list.push(piece) };
        if list.len.get() > class.most() {
            self.give_back(class, class.most() / 2);
        }
    }

    /// A piece from the heap, and some more for the next times.
    #[cold]
    fn fill(&self, class: Class) -> *mut u8 {
        let more = match self.state.get() == State::Open || self.open() {
            true => class.most() / 2,
            false => 0,
        };
        let mut heap = heap();
        // SAFETY: no size here is 0, and the alignment is a power of two.
        let mut piece = || unsafe { heap.malloc(class.size(), ALIGN) };
        let first = piece();
        let others = iter::repeat_with(piece).take(more);
        for other in others.take_while(|other| !other.is_null()) {
            // SAFETY: it is new.
            unsafe { self.lists[class.0].push(other) };
        }
        first
    }

    /// Gives pieces back until so many are left.
    #[cold]
    fn give_back(&self, class: Class, left: usize) {
        let list = &self.lists[class.0];
        let mut heap = heap();
        while list.len.get() > left {
            // SAFETY: it is from this heap, and in this list alone.
            unsafe { heap.free(list.pop(), class.size(), ALIGN) };
        }
    }

    /// From now on pieces are kept, since the thread's end will be told; unless it was.
    #[cold]
    fn open(&self) -> bool {
        if self.state.get() == State::New {
            self.state.set(match at_end_of_thread() {
                true => State::Open,
                false => State::Closed,
            });
        }
        self.state.get() == State::Open
    }
}

/// Has [`close`] called when this thread ends. Nothing here takes memory from this heap.
fn at_end_of_thread() -> bool {
    static KEY: OnceLock<Option<pthread_key_t>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `key` is written where the call says that it succeeded.
        let made = unsafe { libc::pthread_key_create(&raw mut key, Some(close)) };
        (made == 0).then_some(key)
    });
    // SAFETY: the key is valid. Its value is nothing but a sign that there is something to do.
    key.is_some_and(|key| unsafe { libc::pthread_setspecific(key, ptr::dangling()) == 0 })
}

/// Gives all back. What others free at this thread's end, or still take, goes past the cache.
extern "C" fn close(_: *mut c_void) {
    CACHE.with(|cache| {
        cache.state.set(State::Closed);
        (0..CLASSES).for_each(|class| cache.give_back(Class(class), 0));
    });
}

impl List {
    /// Null when there is none.
    fn pop(&self) -> *mut u8 {
        let first = self.first.get();
        if !first.is_null() {
            // SAFETY: what is in a list was given to it whole.
            self.first.set(unsafe { (*first).next });
            self.len.set(self.len.get() - 1);
        }
        first.cast()
    }

    /// # Safety
    /// The piece is large enough for a `Free`, and given to this list.
    unsafe fn push(&self, piece: *mut u8) {
        let free = piece.cast::<Free>();
        let next = self.first.replace(free);
        // SAFETY: as the caller promises.
        unsafe { free.write(Free { next }) };
        self.len.set(self.len.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_room_for_each_of_its_sizes() {
        let class = |size, align| Class::of(Layout::from_size_align(size, align).expect("valid"));
        let largest = Class(CLASSES - 1).size();
        for size in 1..=largest {
            let room = class(size, 1).expect("it is kept").size();
            assert!((size..size + 3 * WORD).contains(&room), "{size}: {room}");
            assert_eq!(room % ALIGN, WORD, "{size}: {room}");
        }
        assert!(class(largest + 1, 1).is_none());
        assert!(class(WORD, ALIGN).is_some());
        assert!(class(WORD, 2 * ALIGN).is_none());
        let mut classes = (0..CLASSES).map(Class);
        assert!(classes.all(|class| class.size() * class.most() <= KEPT && class.most() >= 2));
    }
}
