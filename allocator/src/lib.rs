//! The static agent's memory: small pieces from what a thread keeps of them, others from dlmalloc, large ones mapped by themselves.
//!
//! musl's malloc maps and unmaps memory for pieces of 1 to 16 kB each time anew, which took a third of the agent's time. dlmalloc does not, but keeps
//! what it once had: tables and texts of megabytes, which live for milliseconds, would stay resident for ever. Those are left to musl, which gives them
//! to the system as soon as they are free.
//!
//! dlmalloc knows one heap behind one lock, and joins each piece that comes back with its neighbours. Most pieces here are words of some bytes that live
//! for microseconds: `cache` keeps those.
//!
//! A package of its own, since the agent's has no unsafe code.

mod cache;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;

use cache::Class;

/// From this size on musl maps a piece by itself (`MMAP_THRESHOLD` of its mallocng is a little less).
const LARGE: usize = 128 << 10;

/// To be the `#[global_allocator]`.
#[derive(Debug)]
pub struct Allocator;

/// Where a piece is from, and goes back to. That follows from its size and alignment alone, which callers must repeat.
enum Home {
    Thread(Class),
    Heap,
    System,
}

impl Home {
    fn of(layout: Layout) -> Home {
        match Class::of(layout) {
            Some(class) => Home::Thread(class),
            None if layout.size() < LARGE => Home::Heap,
            None => Home::System,
        }
    }
}

/// What all threads have in common.
fn heap() -> MutexGuard<'static, Dlmalloc> {
    static HEAP: Mutex<Dlmalloc> = Mutex::new(Dlmalloc::new());
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: a piece goes back to where it came from; what each of the three promises of its own pieces holds of all.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Home::of(layout) {
            Home::Thread(class) => cache::take(class),
            // SAFETY: the caller's promises are passed on.
            Home::Heap => unsafe { heap().malloc(layout.size(), layout.align()) },
            // SAFETY: as above.
            Home::System => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Home::of(layout) {
            Home::Thread(class) => {
                let piece = cache::take(class);
                if !piece.is_null() {
                    // SAFETY: it is new, and as large as its layout says.
                    unsafe { ptr::write_bytes(piece, 0, layout.size()) };
                }
                piece
            }
            // SAFETY: as above.
            Home::Heap => unsafe { heap().calloc(layout.size(), layout.align()) },
            // SAFETY: as above.
            Home::System => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match Home::of(layout) {
            // SAFETY: as above; a piece of this layout is from there.
            Home::Thread(class) => unsafe { cache::put(class, piece) },
            // SAFETY: as above.
            Home::Heap => unsafe { heap().free(piece, layout.size(), layout.align()) },
            // SAFETY: as above.
            Home::System => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Home::of(layout), Home::of(wanted)) {
            (Home::Thread(is), Home::Thread(wanted)) if is == wanted => piece,
            // SAFETY: as above; it stays where it is from.
            (Home::Heap, Home::Heap) => unsafe {
                heap().realloc(piece, layout.size(), layout.align(), size)
            },
            // SAFETY: as above.
            (Home::System, Home::System) => unsafe { System.realloc(piece, layout, size) },
            // SAFETY: it is copied as far as both reach into a piece that nobody else has, and given back where it came from.
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(piece, moved, layout.size().min(size));
                    self.dealloc(piece, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[test]
    fn a_piece_keeps_what_it_holds_across_the_limit_in_both_directions() {
        let mut bytes: Vec<u8> = Vec::new();
        for at in 0..4 * LARGE {
            bytes.push(at as u8);
        }
        for len in [3 * LARGE, LARGE + 1, LARGE, LARGE - 1, 100, 1] {
            bytes.truncate(len);
            bytes.shrink_to_fit();
            assert!(bytes.capacity() < len + 64, "{len}: {}", bytes.capacity());
            assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        }
    }

    #[test]
    fn zeroed_pieces_are_zero_though_others_were_there_before() {
        for size in [1, 100, LARGE - 1, LARGE, 3 * LARGE] {
            drop(vec![7u8; size]);
            assert!(vec![0u8; size].iter().all(|byte| *byte == 0), "{size}");
        }
    }

    #[test]
    fn pieces_of_all_sizes_and_threads_come_and_go() {
        std::thread::scope(|scope| {
            for seed in 1..5usize {
                scope.spawn(move || {
                    let mut pieces: Vec<Vec<usize>> = Vec::new();
                    for step in 0..2_000usize {
                        let number = step.wrapping_mul(2_654_435_761 * seed);
                        match number % 3 {
                            0 if !pieces.is_empty() => {
                                let piece = pieces.swap_remove(number % pieces.len());
                                assert!(piece.iter().all(|word| *word == piece[0]));
                            }
                            _ => pieces.push(vec![number; 1 + number % (LARGE / 4)]),
                        }
                        if pieces.len() > 50 {
                            pieces.clear();
                        }
                    }
                });
            }
        });
    }
}
