//! Telling the processor which memory is needed soon, so that it is on its way while other work is done.
//!
//! A hint and nothing else: it reads nothing that the program could see, never faults, and may name any
//! address. It pays where what comes next is known, is not in the caches, and is found by following
//! pointers: each of those would be waited for (about 100 ns), one after the other.

use alloc::collections::VecDeque;
use core::mem::size_of_val;

/// Bytes that a processor reads at once.
const LINE: usize = 64;

/// Larger values are read ahead no further than this: they would only push out others.
const MOST: usize = 4 << 10;

/// Begins to read a value, without what it points to.
#[inline]
pub fn read_ahead<T: ?Sized>(value: &T) {
    read_ahead_at(core::ptr::from_ref(value).cast(), size_of_val(value));
}

/// Begins to read so many bytes from an address on, which may be any.
#[inline]
pub fn read_ahead_at(at: *const u8, bytes: usize) {
    if bytes == 0 {
        return;
    }
    let first = at.addr() % LINE;
    let lines = (first + bytes.min(MOST)).div_ceil(LINE);
    for line in 0..lines {
        machine::hint(at.wrapping_sub(first).wrapping_add(line * LINE));
    }
}

/// Begins to read the front of a queue, or where its first value will be.
#[inline]
pub fn read_queue_ahead<T>(queue: &VecDeque<T>) {
    let front = queue.as_slices().0;
    read_ahead_at(front.as_ptr().cast(), size_of_val(front).clamp(1, 2 * LINE));
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod machine {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    #[inline]
    #[allow(unsafe_code, reason = "the instruction has no safe face")]
    pub(super) fn hint(address: *const u8) {
        // SAFETY: PREFETCHT0 changes no register, flag or memory and raises no exception, whatever the
        // address is (Intel SDM volume 2, PREFETCHh; AMD APM volume 3, PREFETCHlevel). Every x86-64
        // processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod machine {
    pub(super) fn hint(_address: *const u8) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_may_be_read_ahead() {
        read_ahead(&[0u8; 1000]);
        read_ahead::<[u64]>(&[]);
        read_ahead_at(core::ptr::null(), 1);
        read_ahead_at(usize::MAX as *const u8, usize::MAX);
        read_ahead_at(0xdead_beef_dead_beef_usize as *const u8, 500);
    }
}
