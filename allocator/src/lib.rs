//! The static agent's memory: dlmalloc for small pieces, mappings of their own for large ones.
//!
//! musl's malloc maps and unmaps memory for pieces of 1 to 16 kB each time anew, which took a third of the agent's time. dlmalloc does not, but keeps
//! what it once had: tables and texts of megabytes, which live for milliseconds, would stay resident for ever. Those are left to musl, which gives them
//! to the system as soon as they are free.
//!
//! A package of its own, since the agent's has no unsafe code.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use dlmalloc::GlobalDlmalloc;

/// From this size on musl maps a piece by itself (`MMAP_THRESHOLD` of its mallocng is a little less).
const LARGE: usize = 128 << 10;

/// To be the `#[global_allocator]`.
#[derive(Debug)]
pub struct Allocator;

fn is_large(size: usize) -> bool {
    size >= LARGE
}

// SAFETY: a piece goes back to where it came from, because that follows from its size alone, which callers must repeat; what either of the two
// promises of its own pieces holds of all.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match is_large(layout.size()) {
            // SAFETY: the caller's promises are passed on.
            true => unsafe { System.alloc(layout) },
            // SAFETY: as above.
            false => unsafe { GlobalDlmalloc.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match is_large(layout.size()) {
            // SAFETY: as above.
            true => unsafe { System.alloc_zeroed(layout) },
            // SAFETY: as above.
            false => unsafe { GlobalDlmalloc.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match is_large(layout.size()) {
            // SAFETY: as above; a piece of this size is from there.
            true => unsafe { System.dealloc(piece, layout) },
            // SAFETY: as above.
            false => unsafe { GlobalDlmalloc.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (is_large(layout.size()), is_large(size)) {
            // SAFETY: as above; it stays where it is from.
            (true, true) => unsafe { System.realloc(piece, layout, size) },
            // SAFETY: as above.
            (false, false) => unsafe { GlobalDlmalloc.realloc(piece, layout, size) },
            // SAFETY: the caller promises that the new size makes a layout and that the piece is as large as its own says. It is copied as far as
            // both reach into a piece that nobody else has, and given back where it came from.
            _ => unsafe {
                let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
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
