//! Explicit congestion notification: code points, counts, and the check that the path and the peer
//! really carry them (RFC 9000 §13.4, RFC 8085 §3.1.7).

/// The two ECN bits of an IP header (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// The sender does not take part.
    #[default]
    NotEct,
    /// ECT(1).
    Ect1,
    /// ECT(0): what we send.
    Ect0,
    /// Congestion experienced: a router would have dropped the packet otherwise.
    Ce,
}

impl Ecn {
    /// From the two lowest bits of the traffic class; the others are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }
}

/// How many packets arrived with each mark, since the start of a packet number space (RFC 9000
/// §19.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// Marked ECT(0).
    pub ect0: u64,
    /// Marked ECT(1).
    pub ect1: u64,
    /// Marked CE.
    pub ce: u64,
}

impl EcnCounts {
    /// Counts one arrived packet.
    pub fn count(&mut self, mark: Ecn) {
        match mark {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ect0 += 1,
            Ecn::Ect1 => self.ect1 += 1,
            Ecn::Ce => self.ce += 1,
        }
    }

    /// True while no marked packet has arrived: then an ACK frame needs no counts.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// Packets marked before the first verdict (RFC 9000 §A.4 suggests ten).
const TESTING_PACKETS: u64 = 10;

/// What the check of a path has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Marking the first packets.
    Testing,
    /// Waiting for the first packets' acks, not marking further ones.
    Unknown,
    /// Marks arrive and are reported: marking all packets.
    Capable,
    /// The path or the peer loses marks: never marking again on this path.
    Failed,
}

/// The check of one path in one packet number space (RFC 9000 §13.4.2.1).
///
/// Invariant: once failed it stays failed, and no CE report is believed before or after that.
#[derive(Clone, Debug)]
pub struct EcnValidation {
    state: State,
    /// Packets sent with ECT(0).
    marked: u64,
    marked_lost: u64,
    /// How many of these were sent on earlier paths of the connection.
    before: u64,
    /// The last counts that were believed.
    seen: EcnCounts,
}

impl Default for EcnValidation {
    fn default() -> Self {
        Self::new()
    }
}

impl EcnValidation {
    /// A path of which nothing is known yet.
    pub const fn new() -> Self {
        Self {
            state: State::Testing,
            marked: 0,
            marked_lost: 0,
            before: 0,
            seen: EcnCounts { ect0: 0, ect1: 0, ce: 0 },
        }
    }

    /// A path where marking is not tried, for sockets that cannot set or read the bits.
    pub const fn disabled() -> Self {
        let mut off = Self::new();
        off.state = State::Failed;
        off
    }

    /// The check of the path that the connection has moved to: it begins anew, but the peer's counts
    /// go on over all paths.
    pub const fn of_next_path(&self) -> Self {
        Self { state: State::Testing, before: self.marked, marked_lost: 0, ..*self }
    }

    /// The mark that the next packet is to carry.
    pub fn mark(&self) -> Ecn {
        match self.state {
            State::Testing | State::Capable => Ecn::Ect0,
            State::Unknown | State::Failed => Ecn::NotEct,
        }
    }

    /// True once the path is known to carry marks.
    pub fn is_capable(&self) -> bool {
        self.state == State::Capable
    }

    /// True once marking has been given up on this path.
    pub fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// A packet was sent with `mark`.
    pub fn on_sent(&mut self, mark: Ecn) {
        if mark == Ecn::Ect0 {
            self.marked += 1;
            if self.state == State::Testing && self.marked - self.before >= TESTING_PACKETS {
                self.state = State::Unknown;
            }
        }
    }

    /// `packets` of those sent with ECT(0) were declared lost. When every one of the first ones is,
    /// the path is taken to drop marked packets (RFC 9000 §13.4.2).
    pub fn on_lost(&mut self, packets: u64) {
        self.marked_lost += packets;
        let undecided = matches!(self.state, State::Testing | State::Unknown);
        let marked = self.marked - self.before;
        if undecided && marked >= TESTING_PACKETS && self.marked_lost >= marked {
            self.state = State::Failed;
        }
    }

    /// An ACK frame that raised the largest acknowledged number (others can be reordered and are
    /// not to be passed in) newly acknowledged `marked` packets sent with ECT(0) and carried
    /// `counts`. True if it reports congestion (RFC 9002 §7.1).
    #[must_use = "a report of congestion has to reach the congestion controller"]
    pub fn on_ack(&mut self, marked: u64, counts: Option<EcnCounts>) -> bool {
        if self.state == State::Failed {
            return false;
        }
        let Some(counts) = counts else {
            // A peer or path that loses the marks of packets that did arrive.
            if marked > 0 {
                self.state = State::Failed;
            }
            return false;
        };
        if !self.plausible(marked, counts) {
            self.state = State::Failed;
            return false;
        }
        let congested = counts.ce > self.seen.ce;
        self.seen = counts;
        if marked > 0 {
            self.state = State::Capable;
        }
        congested
    }

    /// Counts never fall, cover what was newly acknowledged, and never exceed what was sent.
    fn plausible(&self, marked: u64, counts: EcnCounts) -> bool {
        let (Some(ect0), Some(ce)) =
            (counts.ect0.checked_sub(self.seen.ect0), counts.ce.checked_sub(self.seen.ce))
        else {
            return false;
        };
        ect0.saturating_add(ce) >= marked
            && counts.ect0.saturating_add(counts.ce) <= self.marked
            && counts.ect1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ect0: u64, ce: u64) -> Option<EcnCounts> {
        Some(EcnCounts { ect0, ect1: 0, ce })
    }

    fn after_sending(packets: u64) -> EcnValidation {
        let mut path = EcnValidation::new();
        for _ in 0..packets {
            path.on_sent(path.mark());
        }
        path
    }

    #[test]
    fn bits_survive_the_round_trip() {
        for bits in 0..4 {
            assert_eq!(Ecn::from_bits(bits | 0xfc).bits(), bits);
        }
    }

    #[test]
    fn marking_pauses_after_ten_packets_until_a_report_confirms_the_path() {
        let mut path = after_sending(11);
        assert_eq!(path.mark(), Ecn::NotEct);
        assert!(!path.on_ack(10, counts(10, 0)));
        assert!(path.is_capable());
        assert_eq!(path.mark(), Ecn::Ect0);
    }

    #[test]
    fn a_rising_ce_count_reports_congestion_once() {
        let mut path = after_sending(10);
        assert!(path.on_ack(5, counts(4, 1)));
        assert!(!path.on_ack(5, counts(9, 1)));
        path.on_sent(Ecn::Ect0);
        assert!(path.on_ack(1, counts(9, 2)));
    }

    #[test]
    fn missing_short_falling_or_invented_counts_end_marking_for_good() {
        for (marked, report) in [
            (3, None),
            (3, counts(2, 0)),
            (3, counts(11, 0)),
            (0, counts(10, 1)),
            (1, Some(EcnCounts { ect0: 1, ect1: 1, ce: 0 })),
            (1, counts(u64::MAX, u64::MAX)),
        ] {
            let mut path = after_sending(10);
            assert!(!path.on_ack(marked, report), "{marked} {report:?}");
            assert_eq!(path.mark(), Ecn::NotEct, "{marked} {report:?}");
            assert!(!path.on_ack(10, counts(10, 0)), "it stays failed");
            assert_eq!(path.mark(), Ecn::NotEct);
        }
        let mut path = after_sending(10);
        assert!(!path.on_ack(5, counts(5, 0)));
        assert!(!path.on_ack(1, counts(4, 2)));
        assert!(!path.is_capable(), "counts never fall");
    }

    #[test]
    fn a_path_that_drops_every_marked_packet_is_no_longer_marked() {
        let mut path = after_sending(10);
        path.on_lost(9);
        assert_eq!(path.state, State::Unknown);
        path.on_lost(1);
        assert_eq!(path.state, State::Failed);
        assert_eq!(EcnValidation::disabled().mark(), Ecn::NotEct);
    }
}
