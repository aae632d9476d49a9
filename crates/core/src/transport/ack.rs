//! Which packets arrived and which of them are still to be acknowledged (RFC 9000 §13.2).
//!
//! `max_ack_delay` is zero in this protocol: whoever receives acknowledges at the end of its poll,
//! so there is no ack timer. Who knows that something else follows at once may hold an
//! acknowledgement back for it ([`Endpoint::hold_acks`](super::endpoint::Endpoint::hold_acks)).

use alloc::collections::VecDeque;
use core::ops::Range;

use super::ecn::{Ecn, EcnCounts};
use super::ranges::RangeSet;
use crate::time::{Duration, Instant};

/// Ranges remembered to recognise duplicates. Packets below the lowest count as duplicates: in a
/// path that loses a fifth of all packets that is more than a thousand packets back.
const MAX_SEEN_RANGES: usize = 256;

/// Ranges that an ACK frame lists at most. Each number is listed in many frames before its range is
/// pushed out, so dropping the oldest costs at worst a needless retransmission (RFC 9000 §13.2.3).
pub const MAX_ACK_RANGES: usize = 64;

/// Late arrivals remembered until an ACK frame that lists them is acknowledged.
const MAX_LATE: usize = 64;

/// Packets that may wait for one acknowledgement: a sender's window opens by it.
const MOST_HELD: u8 = 4;

/// ACK frames sent without one of them being acknowledged, after which an ack is asked for.
const ACKS_BEFORE_PING: u32 = 32;

/// The packets received in one packet number space.
///
/// Invariant: a number that was accepted once is a duplicate for ever, however many ranges are
/// forgotten.
#[derive(Clone, Debug, Default)]
pub struct ReceivedPackets {
    /// Everything received, for recognising duplicates; below `floor` all counts as received.
    seen: RangeSet,
    floor: u64,
    /// What ACK frames list: received, and not yet known to be known by the peer.
    unreported: RangeSet,
    /// Packets that came in order or late, counted: a clock for `late`.
    arrivals: u64,
    /// Packets that came after a higher one, with their place in `arrivals`.
    late: VecDeque<(u64, u64)>,
    largest_at: Instant,
    pending: bool,
    /// Something came that the sender must hear of at once (RFC 9000 §13.2.1).
    urgent: bool,
    /// Ack-eliciting packets since the last ACK frame.
    unanswered: u8,
    counts: EcnCounts,
    acks_unconfirmed: u32,
}

/// The fields of an ACK frame; the ranges come from [`ReceivedPackets::ack_ranges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckFields {
    /// The largest number received.
    pub largest: u64,
    /// How long ago the largest arrived.
    pub delay: Duration,
    /// Counts of marks, if any packet was marked.
    pub ecn: Option<EcnCounts>,
}

/// Kept with a sent packet that carried an ACK frame; given back when that packet is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckSent {
    largest: u64,
    arrivals: u64,
}

impl ReceivedPackets {
    /// Begins to read what the next packet needs.
    pub fn read_ahead(&self) {
        self.seen.read_ahead();
        self.unreported.read_ahead();
    }

    /// Gives back room that nothing is in.
    pub fn shrink(&mut self) {
        self.seen.shrink();
        self.unreported.shrink();
        self.late.shrink_to_fit();
    }

    /// Nothing received.
    pub const fn new() -> Self {
        Self {
            seen: RangeSet::new(),
            floor: 0,
            unreported: RangeSet::new(),
            arrivals: 0,
            late: VecDeque::new(),
            largest_at: Instant::ZERO,
            pending: false,
            urgent: false,
            unanswered: 0,
            counts: EcnCounts::NONE,
            acks_unconfirmed: 0,
        }
    }

    /// True if `number` was received before, or is so old that this is no longer known. Such a
    /// packet must not be processed (RFC 9000 §12.3).
    pub fn is_duplicate(&self, number: u64) -> bool {
        // Most come in order.
        self.largest().is_some_and(|largest| number <= largest)
            && (number < self.floor || self.seen.contains(number))
    }

    /// The largest number received, from which truncated numbers are expanded.
    pub fn largest(&self) -> Option<u64> {
        self.seen.max()
    }

    /// Takes in an authenticated packet. False if it is a duplicate and must be dropped.
    #[must_use = "a duplicate must not be processed"]
    pub fn on_received(
        &mut self,
        number: u64,
        now: Instant,
        mark: Ecn,
        ack_eliciting: bool,
    ) -> bool {
        if self.is_duplicate(number) {
            return false;
        }
        let largest_before = self.largest();
        let in_order = largest_before.is_none_or(|largest| number == largest + 1);
        self.urgent |= !in_order || mark == Ecn::Ce;
        self.seen.insert_one(number);
        if self.seen.len() > MAX_SEEN_RANGES {
            // A quarter at once, so that a fragmented set is not shifted for every packet.
            self.floor = self.seen.keep_highest(MAX_SEEN_RANGES * 3 / 4).unwrap_or(self.floor);
        }
        self.unreported.insert_one(number);
        if cfg!(feature = "planted-false-ack") && number > 0 {
            self.unreported.insert_one(number - 1);
        }
        self.unreported.keep_highest(MAX_ACK_RANGES);
        self.arrivals += 1;
        if largest_before.is_none_or(|largest| number > largest) {
            self.largest_at = now;
        } else {
            if self.late.len() == MAX_LATE {
                self.late.pop_front();
            }
            self.late.push_back((self.arrivals, number));
        }
        mark.count(&mut self.counts);
        self.pending |= ack_eliciting;
        self.unanswered = self.unanswered.saturating_add(u8::from(ack_eliciting));
        true
    }

    /// True if an acknowledgement is pending that may wait for something to ride on: all came in
    /// order, nothing was marked, it is not much, and the last of it came less than `longest` ago.
    pub fn ack_may_wait(&self, now: Instant, longest: Duration) -> bool {
        self.pending
            && !self.urgent
            && self.unanswered <= MOST_HELD
            && now.since(self.largest_at) < longest
    }

    /// True if an ack-eliciting packet has not been acknowledged: an ACK frame goes out at the end
    /// of the poll. Packets that elicit nothing never make this true, so two endpoints do not
    /// acknowledge one another's acks (RFC 9000 §13.2.1).
    pub fn ack_pending(&self) -> bool {
        self.pending
    }

    /// The fields of an ACK frame to send now; `None` if there is nothing to list. Whoever sends a
    /// packet anyway may add the frame even if none is pending.
    pub fn to_ack(&self, now: Instant) -> Option<AckFields> {
        let largest = self.unreported.max()?;
        Some(AckFields {
            largest,
            delay: now.since(self.largest_at),
            ecn: (self.counts != EcnCounts::default()).then_some(self.counts),
        })
    }

    /// The ranges to list, descending; at most [`MAX_ACK_RANGES`]. A frame that has no room for
    /// all of them leaves out the last.
    pub fn ack_ranges(&self) -> impl ExactSizeIterator<Item = Range<u64>> + Clone + '_ {
        self.unreported.iter().rev()
    }

    /// An ACK frame was put into a packet; what is returned is to be kept with that packet.
    pub fn on_ack_sent(&mut self) -> AckSent {
        self.pending = false;
        self.urgent = false;
        self.unanswered = 0;
        self.acks_unconfirmed = self.acks_unconfirmed.saturating_add(1);
        AckSent { largest: self.unreported.max().unwrap_or(0), arrivals: self.arrivals }
    }

    /// A packet that carried an ACK frame was acknowledged: the peer knows all that the frame
    /// listed, so later frames need not list it again (RFC 9000 §13.2.4).
    pub fn on_ack_acked(&mut self, ack: AckSent) {
        self.acks_unconfirmed = 0;
        self.unreported.remove_below(ack.largest.saturating_add(1));
        while self.late.front().is_some_and(|(at, _)| *at <= ack.arrivals) {
            self.late.pop_front();
        }
        // What came after the frame was written, though below its largest, it did not list.
        for (_, number) in &self.late {
            if *number <= ack.largest {
                self.unreported.insert_one(*number);
            }
        }
        self.unreported.keep_highest(MAX_ACK_RANGES);
    }

    /// True if the next packet that carries an ACK should also elicit one (a PING), because many
    /// acks have gone out without the peer confirming any, and their ranges pile up. Becomes true
    /// at most once per 32 acks, so it cannot make two endpoints ping one another for ever.
    pub fn should_elicit_ack(&self) -> bool {
        self.unreported.len() > 4
            && self.acks_unconfirmed > 0
            && self.acks_unconfirmed.is_multiple_of(ACKS_BEFORE_PING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn at(us: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(us)
    }

    fn receive(space: &mut ReceivedPackets, number: u64) -> bool {
        space.on_received(number, at(number), Ecn::NotEct, true)
    }

    fn ranges(space: &ReceivedPackets) -> Vec<Range<u64>> {
        space.ack_ranges().collect()
    }

    #[test]
    fn a_number_is_accepted_once_also_after_its_range_was_confirmed() {
        let mut space = ReceivedPackets::new();
        assert!(receive(&mut space, 3));
        assert!(!receive(&mut space, 3));
        let ack = space.on_ack_sent();
        space.on_ack_acked(ack);
        assert!(space.is_duplicate(3) && !receive(&mut space, 3));
        assert!(receive(&mut space, 2), "a late one that was never seen is still welcome");
    }

    #[test]
    fn a_peer_that_leaves_gaps_makes_neither_set_grow_without_bound() {
        let mut space = ReceivedPackets::new();
        for n in 0..10_000 {
            assert!(receive(&mut space, n * 2));
        }
        assert!(space.seen.len() <= MAX_SEEN_RANGES);
        assert_eq!(ranges(&space).len(), MAX_ACK_RANGES);
        assert!(space.is_duplicate(0) && space.is_duplicate(1), "forgotten counts as received");
        assert!(!space.is_duplicate(19_997));
        assert_eq!(space.largest(), Some(19_998));
    }

    #[test]
    fn acks_alone_are_never_acknowledged() {
        let mut space = ReceivedPackets::new();
        assert!(space.on_received(0, at(0), Ecn::NotEct, false));
        assert!(!space.ack_pending());
        assert!(receive(&mut space, 1));
        assert!(space.ack_pending());
        space.on_ack_sent();
        assert!(!space.ack_pending());
    }

    #[test]
    fn an_acknowledgement_of_little_that_came_in_order_may_wait_for_a_while() {
        let mut space = ReceivedPackets::new();
        let may_wait =
            |space: &ReceivedPackets| space.ack_may_wait(at(9), Duration::from_micros(9));
        assert!(!may_wait(&space), "there is none");
        for n in 0..4 {
            assert!(receive(&mut space, n) && (n == 0 || may_wait(&space)));
        }
        assert!(receive(&mut space, 4) && !may_wait(&space), "much");
        space.on_ack_sent();
        assert!(receive(&mut space, 6) && !may_wait(&space), "one is missing");
        space.on_ack_sent();
        assert!(receive(&mut space, 5) && !may_wait(&space), "a late one");
        space.on_ack_sent();
        assert!(receive(&mut space, 7) && may_wait(&space));
        assert!(!space.ack_may_wait(at(9), Duration::from_micros(2)), "it has waited");
        assert!(space.on_received(8, at(8), Ecn::Ce, true) && !may_wait(&space), "marked");
    }

    #[test]
    fn the_delay_runs_from_the_arrival_of_the_largest_number() {
        let mut space = ReceivedPackets::new();
        assert_eq!(space.to_ack(at(0)), None);
        assert!(space.on_received(5, at(100), Ecn::Ect0, true));
        assert!(space.on_received(2, at(160), Ecn::Ce, true));
        let fields = space.to_ack(at(180)).unwrap();
        assert_eq!((fields.largest, fields.delay), (5, Duration::from_micros(80)));
        assert_eq!(fields.ecn, Some(EcnCounts { ect0: 1, ect1: 0, ce: 1 }));
        assert_eq!(ranges(&space), vec![5..6, 2..3]);
    }

    #[test]
    fn ranges_are_listed_until_an_ack_of_them_is_acknowledged() {
        let mut space = ReceivedPackets::new();
        for n in [0, 1, 4] {
            assert!(receive(&mut space, n));
        }
        let first = space.on_ack_sent();
        assert!(receive(&mut space, 2), "late: the first frame did not list it");
        assert!(receive(&mut space, 7));
        assert_eq!(ranges(&space), vec![7..8, 4..5, 0..3]);
        space.on_ack_acked(first);
        assert_eq!(ranges(&space), vec![7..8, 2..3]);
        let second = space.on_ack_sent();
        space.on_ack_acked(second);
        assert_eq!(ranges(&space), vec![]);
        space.on_ack_acked(first);
        assert_eq!(ranges(&space), vec![], "an old confirmation brings nothing back");
    }

    #[test]
    fn a_receiver_that_only_acknowledges_asks_for_an_ack_now_and_then() {
        let mut space = ReceivedPackets::new();
        let mut asked = 0;
        for n in 0..320 {
            assert!(receive(&mut space, n * 2));
            asked += u32::from(space.should_elicit_ack());
            space.on_ack_sent();
        }
        assert!((8..=10).contains(&asked), "{asked}");
    }
}
