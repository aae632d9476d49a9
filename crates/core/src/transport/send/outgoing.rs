//! One message on its way out: what of it was sent, lost and acknowledged.
//!
//! The end of a message counts as one more position after its last byte, the *end mark*, so that
//! "everything, and that it ends here" is one range of positions and an empty message is not special.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use stubborn_rope::Rope;

use crate::transport::ranges::RangeSet;

#[derive(Debug)]
pub(super) struct Outgoing {
    head: Bytes,
    body: Rope,
    /// Bytes of head and body. Stays when a reset drops them.
    size: u64,
    /// Positions below were in a packet at least once.
    sent: u64,
    /// Bytes that the peer lets us send of this message.
    granted: u64,
    /// Positions below are acknowledged.
    acked: u64,
    /// Apart, since few messages ever have any, and all are moved about.
    gaps: Option<Box<Gaps>>,
    /// The code with which the message was given up.
    pub(super) reset: Option<u64>,
    /// Whether the id stands in the outbox's queue of turns, of losses.
    pub(super) in_turns: bool,
    pub(super) in_lost: bool,
}

/// What is not in order with a message.
#[derive(Debug, Default)]
struct Gaps {
    /// Acknowledged positions above `Outgoing::acked`.
    acked_later: RangeSet,
    /// Positions that were in lost packets only and wait to be sent again.
    lost: RangeSet,
}

impl Outgoing {
    pub(super) fn new(head: Bytes, body: Rope, granted: u64) -> Self {
        let size = head.len() as u64 + body.len() as u64;
        Self {
            head,
            body,
            size,
            sent: 0,
            granted,
            acked: 0,
            gaps: None,
            reset: None,
            in_turns: false,
            in_lost: false,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Positions in all: the bytes and the end mark.
    fn end(&self) -> u64 {
        self.size + 1
    }

    pub(super) fn fully_sent(&self) -> bool {
        self.sent == self.end()
    }

    pub(super) fn fully_acked(&self) -> bool {
        self.acked == self.end()
    }

    /// Bytes that were in a packet at least once.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.sent.min(self.size)
    }

    /// Bytes sent and not acknowledged.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        let later = self.gaps.as_ref().map(|gaps| &gaps.acked_later);
        let acked = later.map_or(0, RangeSet::count) + self.acked;
        let mark = later.is_some_and(|later| later.contains(self.size)) || self.fully_acked();
        self.bytes_sent() - (acked - u64::from(mark))
    }

    /// Bytes among these positions.
    pub(super) fn bytes_in(&self, range: &Range<u64>) -> u64 {
        range.end.min(self.size).saturating_sub(range.start)
    }

    /// Takes a higher grant; true if the message was held up by the old one.
    pub(super) fn grant(&mut self, granted: u64) -> bool {
        let held_up = self.held_up();
        self.granted = self.granted.max(granted);
        held_up && !self.held_up()
    }

    /// True while only the peer's grant for this message keeps the rest from being sent.
    pub(super) fn held_up(&self) -> bool {
        self.sent >= self.granted && self.sent < self.size
    }

    /// True if there is something to send that was never sent and that the peer's grant allows.
    pub(super) fn wants_turn(&self) -> bool {
        self.reset.is_none() && !self.fully_sent() && !self.held_up()
    }

    /// True if nothing of it was sent and all of it may be, as far as the peer's grant for this
    /// message goes.
    pub(super) fn is_whole(&self) -> bool {
        self.sent == 0 && self.size <= self.granted && self.reset.is_none()
    }

    pub(super) fn on_whole_sent(&mut self) {
        self.sent = self.end();
    }

    /// Positions never sent that may be sent now, with `credit` new bytes left for the connection.
    /// The end mark costs no credit and goes with the last byte.
    pub(super) fn fresh(&self, credit: u64) -> Option<Range<u64>> {
        let end = self.size.min(self.granted).min(self.sent.saturating_add(credit));
        let end = if end == self.size { self.end() } else { end };
        (self.sent < end).then_some(self.sent..end)
    }

    /// About how many bytes of frames could be sent now, with `credit` for new ones.
    pub(super) fn bytes_waiting(&self, credit: u64) -> u64 {
        const HEADER: u64 = 8;
        let fresh = self.fresh(credit).map_or(0, |range| range.end - range.start + HEADER);
        fresh + self.gaps.as_ref().map_or(0, |gaps| gaps.lost.count())
    }

    pub(super) fn on_fresh_sent(&mut self, end: u64) {
        debug_assert!(self.sent < end && end <= self.end());
        self.sent = end;
    }

    pub(super) fn first_lost(&self) -> Option<Range<u64>> {
        self.gaps.as_ref()?.lost.first()
    }

    pub(super) fn on_lost_resent(&mut self, range: Range<u64>) {
        if let Some(gaps) = &mut self.gaps {
            gaps.lost.remove(range);
        }
    }

    /// Counts positions as acknowledged; returns how many bytes were so for the first time.
    pub(super) fn on_acked(&mut self, range: Range<u64>) -> u64 {
        let range = range.start.max(self.acked)..range.end.min(self.sent);
        if range.is_empty() {
            return 0;
        }
        if self.gaps.is_none() && range.start == self.acked {
            self.acked = range.end;
            return self.bytes_in(&range);
        }
        let mut gaps = self.gaps.take().unwrap_or_default();
        let new = gaps.acked_later.gaps(range.clone()).map(|gap| self.bytes_in(&gap)).sum();
        gaps.lost.remove(range.clone());
        if range.start > self.acked {
            gaps.acked_later.insert(range);
        } else {
            self.acked = range.end;
            if let Some(more) = gaps.acked_later.range_of(self.acked) {
                self.acked = more.end;
            }
            gaps.acked_later.remove_below(self.acked);
        }
        self.gaps = Some(gaps);
        new
    }

    /// Counts positions as lost; true if any of them has to be sent again.
    pub(super) fn on_lost(&mut self, range: Range<u64>) -> bool {
        let range = range.start.max(self.acked)..range.end.min(self.sent);
        if range.is_empty() && self.gaps.is_none() {
            return false;
        }
        let gaps = self.gaps.get_or_insert_default();
        for gap in gaps.acked_later.gaps(range) {
            gaps.lost.insert(gap);
        }
        !gaps.lost.is_empty()
    }

    /// Gives the message up and drops its bytes. What was sent of it stays known.
    pub(super) fn give_up(&mut self, code: u64) {
        self.reset = Some(code);
        (self.head, self.body) = (Bytes::new(), Rope::EMPTY);
        self.gaps = None;
    }

    /// As if nothing had been sent yet.
    pub(super) fn rewind(&mut self, granted: u64) {
        (self.sent, self.acked, self.granted) = (0, 0, granted);
        self.gaps = None;
        (self.in_turns, self.in_lost) = (false, false);
    }

    /// Appends `length` bytes from `start` on.
    pub(super) fn copy(&self, start: u64, length: usize, out: &mut Vec<u8>) {
        let end = self.copy_but_end(start, length, usize::MAX, out);
        debug_assert!(end.is_none());
    }

    /// The same, but where they end with at least `least` bytes of one piece, zeros are appended in
    /// place of these, and they are returned.
    pub(super) fn copy_but_end(
        &self,
        start: u64,
        length: usize,
        least: usize,
        out: &mut Vec<u8>,
    ) -> Option<Bytes> {
        // Positions below `size` fit usize: the bytes are in memory.
        let (start, head) = (start as usize, self.head.len());
        let end = start + length;
        if start < head {
            out.extend_from_slice(&self.head[start..end.min(head)]);
        }
        if end <= head {
            return None;
        }
        let mut last = None;
        for next in self.body.slices(start.max(head) - head..end - head) {
            if let Some((piece, part)) = last.replace(next) {
                out.extend_from_slice(&Bytes::as_ref(piece)[part]);
            }
        }
        let (piece, part) = last?;
        if part.len() < least {
            out.extend_from_slice(&piece[part]);
            return None;
        }
        out.resize(out.len() + part.len(), 0);
        Some(piece.slice(part))
    }

    /// True if a frame of `range` that holds `length` bytes also carries the end mark.
    pub(super) fn ends_with(&self, range: &Range<u64>, length: usize) -> bool {
        range.end > self.size && range.start + length as u64 == self.size
    }
}
