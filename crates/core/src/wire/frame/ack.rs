//! ACK frames (RFC 9000 §19.3): which packets arrived, as descending ranges.

use alloc::vec::Vec;
use core::ops::Range;

use super::frame_type;
use crate::wire::{Malformed, Reader, varint};

/// An ACK frame. The ranges stay encoded; they were checked when the frame was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The highest packet number acknowledged.
    pub largest: u64,
    /// Microseconds between the arrival of `largest` and the sending of this frame.
    pub delay: u64,
    /// How packets were marked on their way, when the sender counts that.
    pub ecn: Option<EcnCounts>,
    first_range: u64,
    count: u64,
    ranges: &'a [u8],
}

/// Packets that arrived in this space with each ECN mark (RFC 9000 §19.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// Marked ECT(0).
    pub ect0: u64,
    /// Marked ECT(1).
    pub ect1: u64,
    /// Marked CE: a router was congested.
    pub ce: u64,
}

impl<'a> Ack<'a> {
    /// The acknowledged packet numbers, highest first; never empty, never touching one another.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + Clone + use<'a> {
        let first = self.largest - self.first_range..self.largest + 1;
        let mut reader = Reader::new(self.ranges);
        let mut smallest = first.start;
        let more = core::iter::from_fn(move || {
            let next = next_range(smallest, &mut reader).ok()?;
            smallest = next.start;
            Some(next)
        });
        core::iter::once(first).chain(more)
    }

    pub(super) fn decode(with_ecn: bool, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let largest = r.varint()?;
        let delay = r.varint()?;
        let count = r.varint()?;
        let first_range = r.varint()?;
        let mut smallest = largest.checked_sub(first_range).ok_or(Malformed)?;
        let before = *r;
        // Each range takes at least two bytes, so the packet's size bounds this loop.
        for _ in 0..count {
            smallest = next_range(smallest, r)?.start;
        }
        let mut ranges = before;
        let ranges = ranges.bytes((before.remaining() - r.remaining()) as u64)?;
        let ecn = if with_ecn {
            Some(EcnCounts { ect0: r.varint()?, ect1: r.varint()?, ce: r.varint()? })
        } else {
            None
        };
        Ok(Self { largest, delay, ecn, first_range, count, ranges })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(type_byte(self.ecn));
        for value in [self.largest, self.delay, self.count, self.first_range] {
            varint::encode(value, out);
        }
        out.extend_from_slice(self.ranges);
        self.ecn.into_iter().flat_map(EcnCounts::fields).for_each(|n| varint::encode(n, out));
    }

    pub(super) fn size(&self) -> usize {
        let fixed = [self.largest, self.delay, self.count, self.first_range];
        let ecn = self.ecn.into_iter().flat_map(EcnCounts::fields);
        1 + self.ranges.len() + fixed.into_iter().chain(ecn).map(varint::size).sum::<usize>()
    }
}

impl EcnCounts {
    /// No packet was marked.
    pub const NONE: Self = Self { ect0: 0, ect1: 0, ce: 0 };

    fn fields(self) -> [u64; 3] {
        [self.ect0, self.ect1, self.ce]
    }
}

/// The range below the one that starts at `smallest`: a gap, then a length, each less by one.
fn next_range(smallest: u64, r: &mut Reader<'_>) -> Result<Range<u64>, Malformed> {
    let gap = r.varint()?;
    let length = r.varint()?;
    let end = smallest.checked_sub(gap + 1).ok_or(Malformed)?;
    let start = end.checked_sub(length + 1).ok_or(Malformed)?;
    Ok(start..end)
}

/// Appends an ACK frame of `ranges`, which come highest first and neither touch nor are empty, with
/// as many of them as fit into `room` bytes. Appends nothing and returns false when `room` does not
/// even take the first or there is none. `delay` is in microseconds.
///
/// # Panics
/// If a packet number is above 2^62 - 1; if the ranges are not as said.
pub fn encode_ack(
    ranges: impl IntoIterator<Item = Range<u64>, IntoIter: Clone>,
    delay: u64,
    ecn: Option<EcnCounts>,
    room: usize,
    out: &mut Vec<u8>,
) -> bool {
    let mut ranges = ranges.into_iter();
    let Some(first) = ranges.next() else { return false };
    let delay = delay.min(varint::MAX);
    let (largest, first_range) = (first.end - 1, first.end - 1 - first.start);
    let ecn_size = ecn.into_iter().flat_map(EcnCounts::fields).map(varint::size).sum::<usize>();
    let fixed = [largest, delay, first_range].map(varint::size).iter().sum::<usize>();
    // The count is written before the ranges: reserve for it what all of them would need at most.
    let Some(room) = room.checked_sub(1 + fixed + ecn_size) else { return false };
    let Some(fitting) = ranges_that_fit(first.start, ranges.clone(), room) else { return false };

    out.push(type_byte(ecn));
    for value in [largest, delay, fitting as u64, first_range] {
        varint::encode(value, out);
    }
    for_each_gap(first.start, ranges.take(fitting), |gap, length| {
        varint::encode(gap, out);
        varint::encode(length, out);
        true
    });
    ecn.into_iter().flat_map(EcnCounts::fields).for_each(|n| varint::encode(n, out));
    true
}

/// How many of `ranges` fit into `room` together with their count; `None` when not even the count.
fn ranges_that_fit(
    smallest: u64,
    ranges: impl Iterator<Item = Range<u64>>,
    room: usize,
) -> Option<usize> {
    let mut fitting = 0;
    let mut used = 0;
    if room < varint::size(0) {
        return None;
    }
    for_each_gap(smallest, ranges, |gap, length| {
        used += varint::size(gap) + varint::size(length);
        let fits = used + varint::size(fitting as u64 + 1) <= room;
        fitting += usize::from(fits);
        fits
    });
    Some(fitting)
}

/// Calls `f` with each range's encoded gap and length until it returns false.
fn for_each_gap(
    mut smallest: u64,
    ranges: impl Iterator<Item = Range<u64>>,
    mut f: impl FnMut(u64, u64) -> bool,
) {
    for range in ranges {
        assert!(
            range.start < range.end && range.end < smallest,
            "ranges must descend with gaps between them"
        );
        if !f(smallest - range.end - 1, range.end - range.start - 1) {
            return;
        }
        smallest = range.start;
    }
}

fn type_byte(ecn: Option<EcnCounts>) -> u8 {
    (if ecn.is_some() { frame_type::ACK_ECN } else { frame_type::ACK }) as u8
}
