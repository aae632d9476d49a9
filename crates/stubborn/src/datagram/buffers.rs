//! Buffers to receive into, which are lent to whoever reads what came and used again after that.
//!
//! Copying each datagram out of its buffer costs as much as opening it, so a large one is handed on as
//! it lies. A buffer is free again as soon as nothing of it is kept; how many may be kept is bounded.

#![expect(unsafe_code, reason = "no safe way to use memory again without writing it: see `whole`")]

use std::collections::VecDeque;

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta};

/// Room for one receive: a datagram of any size, or a batch that the kernel has put together.
pub(super) const RECEIVE_SIZE: usize = 64 << 10;

/// From so many bytes on, what was received is handed on without a copy.
const LEND_FROM: usize = 24 << 10;

/// Buffers lent at once. What a program keeps of a small message may pin a whole buffer; when so many
/// are pinned, datagrams are copied out of theirs.
const MAX_LENT: usize = 16;

/// Lent buffers that are looked at to find one that is free again.
const LOOKED_AT: usize = 4;

/// Where received bytes are put before they are handed on.
pub(crate) struct ReceiveBuffers {
    /// Each is `RECEIVE_SIZE` bytes long.
    pub(super) buffers: Vec<BytesMut>,
    pub(super) metas: Vec<RecvMeta>,
    pub(super) lent: Lent,
}

impl ReceiveBuffers {
    /// Room for `batch` receives in one system call.
    pub(crate) fn new(batch: usize) -> Self {
        let batch = batch.clamp(1, BATCH_SIZE);
        Self {
            buffers: (0..batch).map(|_| BytesMut::zeroed(RECEIVE_SIZE)).collect(),
            metas: vec![RecvMeta::default(); batch],
            lent: Lent::default(),
        }
    }
}

/// The unused ends of buffers that were handed on, the oldest first: their way back.
#[derive(Default)]
pub(super) struct Lent(VecDeque<BytesMut>);

impl Lent {
    /// The first `size` bytes of `buffer`, which is replaced if they are not copied.
    pub(super) fn take(&mut self, buffer: &mut BytesMut, size: usize) -> BytesMut {
        if (LEND_FROM..RECEIVE_SIZE).contains(&size)
            && let Some(other) = self.replacement()
        {
            let mut taken = std::mem::replace(buffer, other);
            self.0.push_back(taken.split_off(size));
            return taken;
        }
        BytesMut::from(&buffer[..size])
    }

    /// A buffer that was lent and is free again, or a new one while there may be more.
    fn replacement(&mut self) -> Option<BytesMut> {
        for _ in 0..self.0.len().min(LOOKED_AT) {
            let end = self.0.pop_front()?;
            match whole(end) {
                Ok(buffer) => return Some(buffer),
                Err(end) => self.0.push_back(end),
            }
        }
        (self.0.len() < MAX_LENT).then(|| BytesMut::zeroed(RECEIVE_SIZE))
    }
}

/// The whole buffer that `end` is the end of, unless somebody still has a part of it.
fn whole(mut end: BytesMut) -> Result<BytesMut, BytesMut> {
    end.clear();
    if !end.try_reclaim(RECEIVE_SIZE) {
        return Err(end);
    }
    // SAFETY: the capacity is at least `RECEIVE_SIZE`, says `try_reclaim`, which allocates nothing: the
    // memory is that of a buffer which `BytesMut::zeroed` has initialised to exactly `RECEIVE_SIZE`
    // bytes. `end` alone refers to it now, and nobody can have made any of it uninitialised since.
    unsafe { end.set_len(RECEIVE_SIZE) };
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lend(lent: &mut Lent, buffer: &mut BytesMut, size: usize) -> (BytesMut, *const u8) {
        let at = buffer.as_ptr();
        (lent.take(buffer, size), at)
    }

    #[test]
    fn a_large_datagram_is_handed_on_as_it_lies_and_its_buffer_is_used_again() {
        let mut lent = Lent::default();
        let mut buffer = BytesMut::zeroed(RECEIVE_SIZE);
        let (first, at) = lend(&mut lent, &mut buffer, 60_000);
        assert_eq!((first.as_ptr(), first.len(), buffer.len()), (at, 60_000, RECEIVE_SIZE));
        drop(first);
        let (second, _) = lend(&mut lent, &mut buffer, 60_000);
        assert_eq!((buffer.as_ptr(), buffer.len()), (at, RECEIVE_SIZE), "the first one's");
        drop(second);
    }

    #[test]
    fn a_small_datagram_does_not_keep_a_buffer() {
        let mut lent = Lent::default();
        let mut buffer = BytesMut::zeroed(RECEIVE_SIZE);
        let (small, at) = lend(&mut lent, &mut buffer, LEND_FROM - 1);
        assert_ne!(small.as_ptr(), at);
        assert!(lent.0.is_empty());
    }

    #[test]
    fn what_is_kept_of_buffers_is_bounded_and_the_rest_is_copied() {
        let mut lent = Lent::default();
        let mut buffer = BytesMut::zeroed(RECEIVE_SIZE);
        let kept: Vec<_> =
            (0..2 * MAX_LENT).map(|_| lend(&mut lent, &mut buffer, 30_000)).collect();
        let in_place = kept.iter().filter(|(data, at)| data.as_ptr() == *at).count();
        assert_eq!((in_place, lent.0.len()), (MAX_LENT, MAX_LENT));
        drop(kept);
        let (data, at) = lend(&mut lent, &mut buffer, 30_000);
        assert_eq!(data.as_ptr(), at, "they are free again");
    }
}
