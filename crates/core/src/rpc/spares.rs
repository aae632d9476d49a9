//! Memory to put large messages together in, used again and again.
//!
//! Fresh memory of a megabyte costs as much as what is done with it: the system has to find and clear
//! its pages. So the buffer of a message that has been dealt with serves the next one.

use alloc::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::time::{Duration, Instant};

/// Smaller buffers are not worth keeping.
const LEAST: usize = 16 << 10;

/// Buffers kept at most, and the bytes of all of them.
const MOST: usize = 32;
const MOST_BYTES: usize = 64 << 20;

/// Kept buffers that are looked at to find one that nobody uses any more.
const LOOKED_AT: usize = 4;

/// How long memory is kept that nothing was put together in.
const KEPT: Duration = Duration::from_secs(1);

/// Buffers of messages that were handed on. Each is free again once nothing of its message is kept.
///
/// What a buffer is no more than a quarter full of is copied out, so that a small message does not
/// hold the memory of a large one.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: VecDeque<Spare>,
    bytes: usize,
    now: Instant,
    used: Instant,
}

#[derive(Debug)]
struct Spare {
    /// The unused end of the buffer, by which the whole is got back.
    end: BytesMut,
    size: usize,
}

impl Spares {
    pub(super) fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        (!self.buffers.is_empty()).then(|| self.used + KEPT)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            (self.buffers, self.bytes) = (VecDeque::new(), 0);
        }
    }

    /// Appends `data` to a message. When its buffer is full, a larger one that is free takes over; else
    /// it grows to twice its size.
    pub(super) fn append(&mut self, message: &mut BytesMut, data: &[u8]) {
        let needed = message.len() + data.len();
        if needed > message.capacity() {
            match self.take(2 * needed) {
                Some(mut larger) => {
                    larger.extend_from_slice(message);
                    self.keep(core::mem::replace(message, larger));
                }
                None => message.reserve(data.len().max(message.len())),
            }
        }
        message.extend_from_slice(data);
    }

    /// The bytes of a message that is complete. Its buffer is kept.
    pub(super) fn finish(&mut self, mut message: BytesMut) -> Bytes {
        let size = message.capacity();
        if size < LEAST {
            return message.freeze();
        }
        if message.len() <= size / 4 {
            let copy = Bytes::copy_from_slice(&message);
            self.keep(message);
            return copy;
        }
        let whole = message.split().freeze();
        self.keep_end(message, size);
        whole
    }

    /// An empty buffer of at least this size, the smallest, if one is free.
    fn take(&mut self, size: usize) -> Option<BytesMut> {
        for _ in 0..LOOKED_AT {
            let fitting = self.buffers.iter().enumerate().filter(|(_, spare)| spare.size >= size);
            let (at, _) = fitting.min_by_key(|(_, spare)| spare.size)?;
            let mut spare = self.buffers.remove(at)?;
            debug_assert!(spare.end.is_empty());
            if spare.end.try_reclaim(spare.size) {
                self.bytes -= spare.size;
                self.used = self.now;
                return Some(spare.end);
            }
            self.buffers.push_back(spare);
        }
        None
    }

    fn keep(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        let size = buffer.capacity();
        self.keep_end(buffer, size);
    }

    fn keep_end(&mut self, end: BytesMut, size: usize) {
        if !(LEAST..=MOST_BYTES).contains(&size) {
            return;
        }
        self.buffers.push_back(Spare { end, size });
        self.bytes += size;
        self.used = self.now;
        while (self.buffers.len() > MOST || self.bytes > MOST_BYTES)
            && let Some(oldest) = self.buffers.pop_front()
        {
            self.bytes -= oldest.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn put_together(spares: &mut Spares, size: usize) -> Bytes {
        let mut message = BytesMut::new();
        for piece in vec![7; size].chunks(1_452) {
            spares.append(&mut message, piece);
        }
        assert_eq!(message.len(), size);
        spares.finish(message)
    }

    #[test]
    fn the_memory_of_a_message_that_is_dealt_with_serves_the_next_one() {
        let mut spares = Spares::default();
        drop(put_together(&mut spares, 1 << 20));
        let held = spares.bytes();
        let first = put_together(&mut spares, 1 << 20);
        let at = first.as_ptr();
        drop(first);
        assert_eq!(put_together(&mut spares, 1 << 20).as_ptr(), at);
        assert_eq!(spares.bytes(), held);
    }

    #[test]
    fn a_message_that_is_kept_keeps_its_bytes() {
        let mut spares = Spares::default();
        let kept: Vec<_> = (0..50).map(|n| put_together(&mut spares, 100_000 + n)).collect();
        for (n, message) in kept.iter().enumerate() {
            assert_eq!(message.len(), 100_000 + n);
            assert!(message.iter().all(|byte| *byte == 7));
        }
        assert!(spares.buffers.len() <= MOST && spares.bytes() <= MOST_BYTES);
    }

    #[test]
    fn a_small_message_does_not_hold_a_large_buffer() {
        let mut spares = Spares::default();
        drop(put_together(&mut spares, 8 << 20));
        let small = put_together(&mut spares, 3_000);
        let mut large = spares.take(4 << 20).expect("nothing uses it");
        large.extend_from_slice(&[9; 3_000]);
        assert!(small.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn memory_that_is_not_used_is_given_back() {
        let mut spares = Spares::default();
        drop(put_together(&mut spares, 1 << 20));
        let at = spares.next_timeout().unwrap();
        spares.handle_timeout(at - Duration::from_nanos(1));
        assert!(spares.bytes() > 0);
        spares.handle_timeout(at);
        assert_eq!((spares.bytes(), spares.next_timeout()), (0, None));
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut spares = Spares::default();
        let huge = put_together(&mut spares, MOST_BYTES + 1);
        assert_eq!(spares.bytes(), 0);
        drop(huge);
        for size in [40 << 20, 30 << 20, 20 << 20] {
            put_together(&mut spares, size);
            assert!(spares.bytes() <= MOST_BYTES);
        }
    }
}
