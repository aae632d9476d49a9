//! Explicit congestion notification: code points, counts, and the check that the path and the peer
//! really carry them (RFC 9000 §13.4, RFC 8085 §3.1.7).

pub use crate::wire::frame::EcnCounts;

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

    /// Counts a packet that arrived with this mark.
    pub fn count(self, counts: &mut EcnCounts) {
        match self {
            Self::NotEct => {}
            Self::Ect0 => counts.ect0 += 1,
            Self::Ect1 => counts.ect1 += 1,
            Self::Ce => counts.ce += 1,
        }
    }
}

/// What the counts of an ACK frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcnReport {
    /// The frame was reordered, and its counts may be older than others (RFC 9000 §13.4.2.1).
    Stale,
    /// Counts are missing although marked packets arrived, or cannot be true.
    Invalid,
    /// The counts can be true.
    Valid {
        /// More packets than before were marked CE.
        congested: bool,
        /// Packets that were sent with a mark on the present path were among those acknowledged.
        confirms_path: bool,
    },
}

/// The counts of one packet number space: what was sent, and what the peer last reported.
///
/// They go on over path changes, as the peer's do.
#[derive(Clone, Debug, Default)]
pub struct EcnReports {
    marked: u64,
    seen: EcnCounts,
}

impl EcnReports {
    /// Nothing marked, nothing reported.
    pub const fn new() -> Self {
        Self { marked: 0, seen: EcnCounts::NONE }
    }

    /// A packet was sent with ECT(0).
    pub fn on_marked(&mut self) {
        self.marked += 1;
    }

    /// Checks the counts of an ACK frame that raised the largest acknowledged number and newly
    /// acknowledged `acked` marked packets, `acked_here` of them of the present path.
    pub fn check(&mut self, acked: u64, acked_here: u64, counts: Option<EcnCounts>) -> EcnReport {
        let Some(counts) = counts else {
            let lost_marks = acked > 0;
            return if lost_marks {
                EcnReport::Invalid
            } else {
                EcnReport::Valid { congested: false, confirms_path: false }
            };
        };
        if !self.is_plausible(acked, counts) {
            return EcnReport::Invalid;
        }
        let congested = counts.ce > self.seen.ce;
        self.seen = counts;
        EcnReport::Valid { congested, confirms_path: acked_here > 0 }
    }

    /// Counts never fall, cover what was newly acknowledged, and never exceed what was sent.
    fn is_plausible(&self, acked: u64, counts: EcnCounts) -> bool {
        let (Some(ect0), Some(ce)) =
            (counts.ect0.checked_sub(self.seen.ect0), counts.ce.checked_sub(self.seen.ce))
        else {
            return false;
        };
        ect0.saturating_add(ce) >= acked
            && counts.ect0.saturating_add(counts.ce) <= self.marked
            && counts.ect1 == 0
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

/// The check of one path (RFC 9000 §13.4.2.1).
///
/// Invariant: once failed it stays failed, and from then on no CE report is believed.
#[derive(Clone, Debug)]
pub struct EcnValidation {
    state: State,
    /// Packets sent with ECT(0) on this path.
    marked: u64,
    marked_lost: u64,
}

impl Default for EcnValidation {
    fn default() -> Self {
        Self::new()
    }
}

impl EcnValidation {
    /// A path of which nothing is known yet.
    pub const fn new() -> Self {
        Self { state: State::Testing, marked: 0, marked_lost: 0 }
    }

    /// A path where marking is not tried, for sockets that cannot set or read the bits.
    pub const fn disabled() -> Self {
        Self { state: State::Failed, marked: 0, marked_lost: 0 }
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
            if self.state == State::Testing && self.marked >= TESTING_PACKETS {
                self.state = State::Unknown;
            }
        }
    }

    /// `packets` of those sent with ECT(0) were declared lost. When every one of the first ones is,
    /// the path is taken to drop marked packets (RFC 9000 §13.4.2).
    pub fn on_lost(&mut self, packets: u64) {
        self.marked_lost += packets;
        let undecided = matches!(self.state, State::Testing | State::Unknown);
        if undecided && self.marked >= TESTING_PACKETS && self.marked_lost >= self.marked {
            self.state = State::Failed;
        }
    }

    /// Takes in the report of an ACK frame of any packet number space. True if it reports congestion
    /// (RFC 9002 §7.1).
    #[must_use = "a report of congestion has to reach the congestion controller"]
    pub fn on_report(&mut self, report: EcnReport) -> bool {
        if self.state == State::Failed {
            return false;
        }
        match report {
            EcnReport::Stale => false,
            EcnReport::Invalid => {
                self.state = State::Failed;
                false
            }
            EcnReport::Valid { congested, confirms_path } => {
                if confirms_path {
                    self.state = State::Capable;
                }
                congested
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ect0: u64, ce: u64) -> Option<EcnCounts> {
        Some(EcnCounts { ect0, ect1: 0, ce })
    }

    /// A space and a path over which `packets` marked packets went.
    struct Sent {
        reports: EcnReports,
        path: EcnValidation,
    }

    impl Sent {
        fn new(packets: u64) -> Self {
            let mut sent = Self { reports: EcnReports::default(), path: EcnValidation::new() };
            for _ in 0..packets {
                sent.send();
            }
            sent
        }

        fn send(&mut self) {
            self.path.on_sent(Ecn::Ect0);
            self.reports.on_marked();
        }

        fn on_ack(&mut self, acked: u64, counts: Option<EcnCounts>) -> bool {
            let report = self.reports.check(acked, acked, counts);
            self.path.on_report(report)
        }
    }

    #[test]
    fn bits_survive_the_round_trip() {
        for bits in 0..4 {
            assert_eq!(Ecn::from_bits(bits | 0xfc).bits(), bits);
        }
    }

    #[test]
    fn marking_pauses_after_ten_packets_until_a_report_confirms_the_path() {
        let mut sent = Sent::new(10);
        assert_eq!(sent.path.mark(), Ecn::NotEct);
        assert!(!sent.on_ack(10, counts(10, 0)));
        assert!(sent.path.is_capable());
        assert_eq!(sent.path.mark(), Ecn::Ect0);
    }

    #[test]
    fn a_rising_ce_count_reports_congestion_once() {
        let mut sent = Sent::new(10);
        assert!(sent.on_ack(5, counts(4, 1)));
        assert!(!sent.on_ack(5, counts(9, 1)));
        sent.send();
        assert!(sent.on_ack(1, counts(9, 2)));
    }

    #[test]
    fn missing_short_falling_or_invented_counts_end_marking_for_good() {
        for (acked, report) in [
            (3, None),
            (3, counts(2, 0)),
            (3, counts(11, 0)),
            (0, counts(10, 1)),
            (1, Some(EcnCounts { ect0: 1, ect1: 1, ce: 0 })),
            (1, counts(u64::MAX, u64::MAX)),
        ] {
            let mut sent = Sent::new(10);
            assert!(!sent.on_ack(acked, report), "{acked} {report:?}");
            assert!(sent.path.has_failed(), "{acked} {report:?}");
            assert!(!sent.on_ack(10, counts(9, 1)), "no mark is believed any more");
            assert_eq!(sent.path.mark(), Ecn::NotEct);
        }
        let mut sent = Sent::new(10);
        assert!(!sent.on_ack(5, counts(5, 0)));
        assert!(!sent.on_ack(1, counts(4, 2)));
        assert!(sent.path.has_failed(), "counts never fall");
    }

    #[test]
    fn each_space_counts_by_itself() {
        let mut path = EcnValidation::new();
        for (packets, report) in [(2, counts(2, 0)), (1, counts(1, 0)), (5, counts(4, 1))] {
            let mut space = EcnReports::default();
            for _ in 0..packets {
                space.on_marked();
            }
            let _ = path.on_report(space.check(packets, packets, report));
            assert!(path.is_capable());
        }
    }

    #[test]
    fn a_new_path_is_tested_although_the_counts_go_on() {
        let mut sent = Sent::new(10);
        assert!(!sent.on_ack(10, counts(10, 0)));
        sent.path = EcnValidation::new();
        sent.send();
        let old_path = sent.reports.check(0, 0, counts(10, 0));
        assert!(!sent.path.on_report(old_path) && !sent.path.is_capable());
        assert!(!sent.on_ack(1, counts(11, 0)));
        assert!(sent.path.is_capable());
    }

    #[test]
    fn a_path_that_drops_every_marked_packet_is_no_longer_marked() {
        let mut path = Sent::new(10).path;
        path.on_lost(9);
        assert_eq!(path.state, State::Unknown);
        path.on_lost(1);
        assert_eq!(path.state, State::Failed);
        assert_eq!(EcnValidation::disabled().mark(), Ecn::NotEct);
    }
}
