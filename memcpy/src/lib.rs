//! memcpy and its like for the static agent, in place of musl's.
//!
//! What the agent copies are words of some bytes: names and values of fields, keys, the frames around them. On x86_64 musl's `memcpy` and `memmove` are
//! `rep movsq` (src/string/x86_64/memcpy.s), which takes the processor some dozen cycles before the first byte, and its `memcmp` goes byte by byte.
//! A hash of 113 fields took three times as long to encode as with glibc. musl's `memset` treats short pieces apart and stays.
//!
//! All four are here, since musl's `memmove` needs a symbol of musl's `memcpy`, and the linker would then find two of these.
//!
//! A package of its own, since the agent's has no unsafe code, and since the compiler must not make calls of `memcpy` out of what is `memcpy` itself.

#![no_std]
#![no_builtins]

#[cfg(test)]
extern crate std;

use core::mem::MaybeUninit;

/// What is moved at a time: a register of SSE2, which every x86_64 has. What is copied need not be initialised, so no number is made of it.
type Block = MaybeUninit<u128>;
const BLOCK: usize = size_of::<Block>();

/// Copies `count` bytes between pieces that do not overlap; returns `to`. See memcpy(3).
///
/// # Safety
/// `from` may be read and `to` written for `count` bytes.
#[cfg_attr(all(target_env = "musl", not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promises are those that are asked for; what does not overlap may be copied forwards.
    unsafe {
        match count > BLOCK {
            true => forwards(to, from, count),
            false => few(to, from, count),
        }
    }
    to
}

/// Copies `count` bytes between pieces that may overlap; returns `to`. See memmove(3).
///
/// # Safety
/// `from` may be read and `to` written for `count` bytes.
#[cfg_attr(all(target_env = "musl", not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // Only where `to` lies within what is read would a write forwards change what is yet to be read.
    let within = (to as usize).wrapping_sub(from as usize) < count;
    // SAFETY: the caller's promises are those that are asked for.
    unsafe {
        match (count > BLOCK, within) {
            (false, _) => few(to, from, count),
            (true, false) => forwards(to, from, count),
            (true, true) => backwards(to, from, count),
        }
    }
    to
}

/// Which of two pieces of `count` bytes is the lesser, by the first byte in which they differ. See memcmp(3).
///
/// # Safety
/// Both may be read for `count` bytes.
#[cfg_attr(all(target_env = "musl", not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    const WORD: usize = size_of::<u64>();
    let mut at = 0;
    // SAFETY: `at` and what is read from there on stay below `count`.
    unsafe {
        while at + WORD <= count {
            let one = one.add(at).cast::<u64>().read_unaligned();
            let other = other.add(at).cast::<u64>().read_unaligned();
            if one != other {
                // The first byte of either is to weigh most.
                return if one.to_be() < other.to_be() { -1 } else { 1 };
            }
            at += WORD;
        }
        while at < count {
            let difference = i32::from(*one.add(at)) - i32::from(*other.add(at));
            if difference != 0 {
                return difference;
            }
            at += 1;
        }
    }
    0
}

/// Do two pieces of `count` bytes differ? See bcmp(3).
///
/// # Safety
/// Both may be read for `count` bytes.
#[cfg_attr(all(target_env = "musl", not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's promises are those that are asked for.
    unsafe { memcmp(one, other, count) }
}

/// At most a block, whether they overlap or not: all is read before anything is written.
///
/// # Safety
/// `from` may be read and `to` written for `count` bytes.
#[inline(always)]
unsafe fn few(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: either end is as long as the match says that there are bytes.
    unsafe {
        match count {
            0 => {}
            1 => ends::<MaybeUninit<u8>>(to, from, count),
            2..4 => ends::<MaybeUninit<u16>>(to, from, count),
            4..8 => ends::<MaybeUninit<u32>>(to, from, count),
            8..16 => ends::<MaybeUninit<u64>>(to, from, count),
            _ => to
                .cast::<Block>()
                .write_unaligned(from.cast::<Block>().read_unaligned()),
        }
    }
}

/// The first and the last bytes, as many as `T` has, which meet or overlap in the middle.
///
/// # Safety
/// `from` may be read and `to` written for `count` bytes, of which there are enough for one `T`.
#[inline(always)]
unsafe fn ends<T>(to: *mut u8, from: *const u8, count: usize) {
    let last = count - size_of::<T>();
    // SAFETY: there are enough.
    unsafe {
        let (begin, end) = (
            from.cast::<T>().read_unaligned(),
            from.add(last).cast::<T>().read_unaligned(),
        );
        to.cast::<T>().write_unaligned(begin);
        to.add(last).cast::<T>().write_unaligned(end);
    }
}

/// More than a block, from the first to the last.
///
/// # Safety
/// `from` may be read and `to` written for `count` bytes, more than a block, and `to` does not lie within what is read.
#[inline(always)]
unsafe fn forwards(to: *mut u8, from: *const u8, count: usize) {
    let last = count - BLOCK;
    // SAFETY: no block reaches beyond the last one, which is read before anything is written over it.
    unsafe {
        let end = from.add(last).cast::<Block>().read_unaligned();
        let mut at = 0;
        while at < last {
            let block = from.add(at).cast::<Block>().read_unaligned();
            to.add(at).cast::<Block>().write_unaligned(block);
            at += BLOCK;
        }
        to.add(last).cast::<Block>().write_unaligned(end);
    }
}

/// More than a block, from the last to the first.
///
/// # Safety
/// `from` may be read and `to` written for `count` bytes, more than a block, and `from` does not lie within what is written but for its begin.
#[inline(always)]
unsafe fn backwards(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: no block begins before the first one, which is read before anything is written over it.
    unsafe {
        let begin = from.cast::<Block>().read_unaligned();
        let mut at = count;
        while at > BLOCK {
            at -= BLOCK;
            let block = from.add(at).cast::<Block>().read_unaligned();
            to.add(at).cast::<Block>().write_unaligned(block);
        }
        to.cast::<Block>().write_unaligned(begin);
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    /// Longer than a few blocks, and not a multiple of one.
    const LONG: usize = 100;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 37 + 11) as u8).collect()
    }

    #[test]
    fn pieces_are_copied_and_nothing_beside_them() {
        let from = bytes(LONG + 16);
        for begin in 0..16 {
            for count in 0..LONG {
                for copy in [super::memcpy, super::memmove] {
                    let mut to = std::vec![0_u8; LONG + 32];
                    let place = to[begin..].as_mut_ptr();
                    // SAFETY: both are longer.
                    let given = unsafe { copy(place, from[begin..].as_ptr(), count) };
                    assert_eq!(given, place);
                    let mut expected = std::vec![0_u8; LONG + 32];
                    expected[begin..][..count].copy_from_slice(&from[begin..][..count]);
                    assert_eq!(to, expected, "{count} from {begin}");
                }
            }
        }
    }

    #[test]
    fn pieces_are_moved_over_themselves_in_both_directions() {
        let before = bytes(3 * LONG);
        for from in 0..LONG {
            for count in 0..LONG {
                for to in [0, 1, 7, 8, 15, 16, 17, 31, 33, LONG / 2, LONG] {
                    let mut moved = before.clone();
                    let base = moved.as_mut_ptr();
                    // SAFETY: none reaches beyond 2 * LONG.
                    unsafe { super::memmove(base.add(to), base.add(from), count) };
                    let mut expected = before.clone();
                    expected[to..][..count].copy_from_slice(&before[from..][..count]);
                    assert_eq!(moved, expected, "{count} from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn the_first_byte_that_differs_decides() {
        for count in 0..LONG {
            let one = bytes(LONG);
            // SAFETY: both are longer.
            let compare = |other: &[u8]| unsafe {
                let (one, other) = (one.as_ptr(), other.as_ptr());
                (
                    super::memcmp(one, other, count),
                    super::bcmp(one, other, count),
                )
            };
            assert_eq!(compare(&one), (0, 0));
            for at in 0..LONG {
                for (differs, later) in [(0, 255), (255, 0), (one[at] ^ 0x80, 1)] {
                    let mut other = one.clone();
                    other[at] = differs;
                    other[at + 1..].fill(later);
                    let (order, equal) = compare(&other);
                    let expected = one[..count].iter().cmp(other[..count].iter());
                    assert_eq!(order.cmp(&0), expected, "{count}, {at}");
                    assert_eq!(equal == 0, expected.is_eq(), "{count}, {at}");
                }
            }
        }
    }
}
