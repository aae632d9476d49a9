//! The CRYPTO bytes of one packet number space, both ways (RFC 9000 §7.5, §19.6).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::super::error::{Code, TransportError};
use super::super::ranges::RangeSet;

/// Bytes that a peer may send ahead of what can be handed to TLS: several certificate chains.
const INCOMING_BUFFER: u64 = 64 << 10;

/// Pieces that incoming bytes may be in: more are no handshake.
const INCOMING_PIECES: usize = 128;

/// Handshake bytes to the peer: kept until acknowledged, sent again when lost.
#[derive(Debug, Default)]
pub(super) struct CryptoOut {
    /// Everything below is acknowledged.
    base: u64,
    /// Never sent from here on.
    next: u64,
    /// `None` while nothing is to be sent or acknowledged: then the stream takes no memory.
    unsettled: Option<Box<Unsettled>>,
}

/// Bytes from a stream's `base` on, and what became of them; at least one.
#[derive(Debug, Default)]
struct Unsettled {
    data: Vec<u8>,
    acked: RangeSet,
    lost: RangeSet,
}

impl CryptoOut {
    pub(super) const fn new() -> Self {
        Self { base: 0, next: 0, unsettled: None }
    }

    /// Appends what `write` appends to the buffer it is given.
    pub(super) fn append<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut unsettled = self.unsettled.take().unwrap_or_default();
        let written = write(&mut unsettled.data);
        self.unsettled = Some(unsettled).filter(|unsettled| !unsettled.data.is_empty());
        written
    }

    fn end(&self) -> u64 {
        self.base + self.len() as u64
    }

    /// True if there are bytes to send, new or lost.
    pub(super) fn wants_to_send(&self) -> bool {
        let Some(unsettled) = &self.unsettled else { return false };
        self.next < self.end() || !unsettled.lost.is_empty()
    }

    /// Bytes kept.
    pub(super) fn len(&self) -> usize {
        self.unsettled.as_ref().map_or(0, |unsettled| unsettled.data.len())
    }

    /// The next bytes to send, at most `room`; they count as sent from here on. Lost ones first.
    pub(super) fn take(&mut self, room: usize) -> Option<(u64, &[u8])> {
        if room == 0 {
            return None;
        }
        let whole = self.end();
        let unsettled = self.unsettled.as_mut()?;
        let range = match unsettled.lost.first() {
            Some(lost) => {
                let end = lost.end.min(lost.start + room as u64);
                unsettled.lost.remove(lost.start..end);
                lost.start..end
            }
            None if self.next < whole => {
                let end = whole.min(self.next + room as u64);
                let range = self.next..end;
                self.next = end;
                range
            }
            None => return None,
        };
        let from = (range.start - self.base) as usize;
        Some((range.start, &unsettled.data[from..from + (range.end - range.start) as usize]))
    }

    /// Offset that [`take`](Self::take) would begin at, for computing a frame's overhead.
    pub(super) fn next_offset(&self) -> u64 {
        let lost = self.unsettled.as_ref().and_then(|unsettled| unsettled.lost.min());
        lost.unwrap_or(self.next)
    }

    /// The peer has these bytes.
    pub(super) fn on_acked(&mut self, range: Range<u64>) {
        let Some(unsettled) = &mut self.unsettled else { return };
        unsettled.lost.remove(range.clone());
        unsettled.acked.insert(range);
        if let Some(first) = unsettled.acked.range_of(self.base) {
            unsettled.data.drain(..(first.end - self.base) as usize);
            self.base = first.end;
            unsettled.acked.remove_below(first.end);
        }
        if unsettled.data.is_empty() {
            self.unsettled = None;
        }
    }

    /// A packet with these bytes was lost.
    pub(super) fn on_lost(&mut self, range: Range<u64>) {
        let Some(unsettled) = &mut self.unsettled else { return };
        let start = range.start.max(self.base);
        if start >= range.end {
            return;
        }
        let missing: Vec<_> = unsettled.acked.gaps(start..range.end).collect();
        for gap in missing {
            unsettled.lost.insert(gap);
        }
    }

    /// Sends everything that is not acknowledged again: a probe, or a handshake begun anew.
    pub(super) fn resend_all(&mut self) {
        self.on_lost(self.base..self.next);
    }
}

/// Handshake bytes from the peer, put in order.
#[derive(Debug, Default)]
pub(super) struct CryptoIn {
    delivered: u64,
    /// `None` while nothing waits: then the stream takes no memory.
    waiting: Option<Box<Waiting>>,
}

/// Bytes from `delivered` on; those outside `present` are not there yet.
#[derive(Debug, Default)]
struct Waiting {
    data: Vec<u8>,
    present: RangeSet,
}

impl CryptoIn {
    pub(super) const fn new() -> Self {
        Self { delivered: 0, waiting: None }
    }

    /// Takes in a frame's bytes.
    ///
    /// # Errors
    /// `CRYPTO_BUFFER_EXCEEDED` when the peer runs too far ahead.
    pub(super) fn insert(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TransportError> {
        let end = offset + bytes.len() as u64;
        if end > self.delivered + INCOMING_BUFFER {
            return Err(TransportError::new(Code::CRYPTO_BUFFER_EXCEEDED, "too far ahead"));
        }
        let start = offset.max(self.delivered);
        if start >= end {
            return Ok(());
        }
        let (from, to) = ((start - self.delivered) as usize, (end - self.delivered) as usize);
        let waiting = self.waiting.get_or_insert_default();
        if waiting.data.len() < to {
            waiting.data.resize(to, 0);
        }
        waiting.data[from..to].copy_from_slice(&bytes[(start - offset) as usize..]);
        waiting.present.insert(start..end);
        if waiting.present.len() > INCOMING_PIECES {
            return Err(TransportError::new(Code::CRYPTO_BUFFER_EXCEEDED, "too many pieces"));
        }
        Ok(())
    }

    /// Takes out the bytes that are next in order, if any are there.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let waiting = self.waiting.as_mut()?;
        let ready = waiting.present.range_of(self.delivered)?;
        let rest = waiting.data.split_off((ready.end - self.delivered) as usize);
        waiting.present.remove_below(ready.end);
        self.delivered = ready.end;
        let ready = core::mem::replace(&mut waiting.data, rest);
        if waiting.data.is_empty() {
            self.waiting = None;
        }
        Some(ready)
    }

    /// True if [`take`](Self::take) has something.
    pub(super) fn has_ready(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.present.contains(self.delivered))
    }

    /// True if everything up to `end` has been taken.
    pub(super) fn is_delivered(&self, end: u64) -> bool {
        end <= self.delivered
    }

    /// Drops what waits behind a gap: its keys are gone.
    pub(super) fn discard(&mut self) {
        self.waiting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(bytes: &[u8]) -> CryptoOut {
        let mut out = CryptoOut::default();
        out.append(|data| data.extend_from_slice(bytes));
        out
    }

    #[test]
    fn lost_handshake_bytes_are_sent_again_and_acknowledged_ones_are_not() {
        let mut out = out(b"abcdefgh");
        assert_eq!(out.take(3), Some((0, &b"abc"[..])));
        assert_eq!(out.take(100), Some((3, &b"defgh"[..])));
        assert_eq!(out.take(100), None);
        out.on_acked(4..6);
        out.on_lost(3..8);
        assert_eq!(out.take(100), Some((3, &b"d"[..])));
        assert_eq!(out.take(1), Some((6, &b"g"[..])));
        out.on_acked(0..8);
        assert!(!out.wants_to_send() && out.len() == 0);
        out.on_lost(0..8);
        assert!(!out.wants_to_send());
    }

    #[test]
    fn handshake_bytes_come_out_in_order_whatever_order_they_came_in() {
        let mut input = CryptoIn::default();
        input.insert(4, b"ef").unwrap();
        assert_eq!(input.take(), None);
        assert!(!input.has_ready());
        input.insert(0, b"abc").unwrap();
        input.insert(1, b"bcde").unwrap();
        assert_eq!(input.take().unwrap(), b"abcdef");
        input.insert(2, b"cdef").unwrap();
        assert_eq!(input.take(), None);
    }

    #[test]
    fn a_peer_cannot_make_us_buffer_more_than_the_bound() {
        let mut input = CryptoIn::default();
        assert!(input.insert(INCOMING_BUFFER, b"x").is_err());
        let mut input = CryptoIn::default();
        let refused = (0..1_000).find(|i| input.insert(1 + i * 2, b"x").is_err());
        assert_eq!(refused, Some(INCOMING_PIECES as u64));
    }
}
