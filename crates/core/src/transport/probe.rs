//! The probe timeout with its back-off (RFC 9002 §6.2), shared by the packet number spaces of a
//! connection.

use super::rtt::RttEstimator;
use crate::time::{Duration, Instant};

/// The longest probe timeout. RFC 8961 §4 wants a bound of at least 60 s; connections that give up
/// earlier do so by their idle timeout.
pub const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Probes sent at each expiry: with one, a single loss would double the wait (RFC 9002 §6.2.4).
const PROBES_PER_TIMEOUT: u8 = 2;

/// The least time between two prompts. With no answer from the peer, one second is the timeout that
/// RFC 8961 §4 allows without knowledge of the path, so a caller that makes many calls during an
/// outage does not undo the back-off.
const PROMPT_GAP: Duration = Duration::from_secs(1);

/// Counts expiries of the probe timeout and says how long the next one is and how many probes are
/// due.
///
/// Invariant: without an acknowledgement the timeout at least doubles with each expiry, up to
/// [`MAX_PROBE_TIMEOUT`].
#[derive(Clone, Debug, Default)]
pub struct ProbeTimeout {
    backoff: u32,
    due: u8,
    prompted: Option<Instant>,
}

impl ProbeTimeout {
    /// No expiry yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expiries since the last acknowledgement.
    pub fn backoff(&self) -> u32 {
        self.backoff
    }

    /// How long after the last ack-eliciting packet the timeout expires.
    pub fn timeout(&self, rtt: &RttEstimator) -> Duration {
        let factor = 1u32.checked_shl(self.backoff).unwrap_or(u32::MAX);
        rtt.probe_timeout_base().saturating_mul(factor).min(MAX_PROBE_TIMEOUT)
    }

    /// When the timeout of a space expires whose last ack-eliciting packet was sent at
    /// `last_eliciting_sent`. The connection takes the earliest over its spaces; the Data space
    /// counts only once the handshake is confirmed (RFC 9002 §6.2.1).
    pub fn deadline(&self, rtt: &RttEstimator, last_eliciting_sent: Instant) -> Instant {
        last_eliciting_sent + self.timeout(rtt)
    }

    /// The timeout expired: two probes are due, and the next timeout is twice as long. Nothing is
    /// declared lost by it (RFC 9002 §6.2.4).
    pub fn on_expired(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
        self.due = PROBES_PER_TIMEOUT;
    }

    /// The peer acknowledged something new: the back-off ends. A client does not call this for
    /// Initial packets before it knows that the server has validated its address (RFC 9002
    /// §6.2.1).
    pub fn on_acked(&mut self) {
        *self = Self::new();
    }

    /// Something suggests that the path works again or that somebody is waiting: a new call, an
    /// address change, or any authenticated packet. If the timeout has expired before, probes are
    /// due now rather than at the end of the back-off; at most once a second. True if so.
    pub fn prompt(&mut self, now: Instant, rtt: &RttEstimator) -> bool {
        // Asked for every call, and nothing has expired as a rule.
        if self.backoff == 0 {
            return false;
        }
        let gap = PROMPT_GAP.max(rtt.probe_timeout_base());
        if self.prompted.is_some_and(|at| now.since(at) < gap) {
            return false;
        }
        // These probes put the next expiry off. The first ones are a gift; later ones take its place,
        // or a peer that says nothing would never be seen to while somebody prompts.
        match self.prompted.replace(now) {
            None => self.due = PROBES_PER_TIMEOUT,
            Some(_) => self.on_expired(),
        }
        true
    }

    /// An answer is awaited and the peer has been silent for seconds: probes are due now, whatever
    /// the timeout. After a peer that stood still for long it may be far longer than the path needs.
    /// It counts as an expiry: these probes put the next one off, so that without it none would ever
    /// come, and a silence would not be seen however long it lasts.
    pub fn insist(&mut self, now: Instant) {
        self.prompted = Some(now);
        self.on_expired();
    }

    /// Probes still to be sent. They go out whatever the congestion window says, and count against
    /// it (RFC 9002 §7.5).
    pub fn due(&self) -> u8 {
        self.due
    }

    /// A probe was sent, or there was nothing to send it with.
    pub fn on_probe_sent(&mut self) {
        self.due = self.due.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MICROSECOND: Duration = Duration::from_micros(1);

    fn at(s: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(s)
    }

    #[test]
    fn each_expiry_doubles_the_timeout_up_to_a_minute_and_an_ack_ends_that() {
        let rtt = RttEstimator::new(SECOND / 3 + MICROSECOND);
        let mut probe = ProbeTimeout::new();
        let mut last = probe.timeout(&rtt);
        assert!(last >= SECOND);
        for _ in 0..5 {
            probe.on_expired();
            assert_eq!(probe.timeout(&rtt), last * 2);
            last = probe.timeout(&rtt);
        }
        for _ in 0..100 {
            probe.on_expired();
        }
        assert_eq!(probe.timeout(&rtt), MAX_PROBE_TIMEOUT);
        assert_eq!(probe.deadline(&rtt, at(1)), at(61));
        probe.on_acked();
        assert!(probe.timeout(&rtt) < SECOND + SECOND / 10);
        assert_eq!(probe.due(), 0);
    }

    #[test]
    fn two_probes_are_due_per_expiry_and_no_more() {
        let mut probe = ProbeTimeout::new();
        assert_eq!(probe.due(), 0);
        probe.on_expired();
        assert_eq!(probe.due(), 2);
        probe.on_probe_sent();
        probe.on_expired();
        assert_eq!(probe.due(), 2, "unsent ones do not pile up");
        for _ in 0..3 {
            probe.on_probe_sent();
        }
        assert_eq!(probe.due(), 0);
    }

    #[test]
    fn a_prompt_during_the_back_off_probes_at_once_but_only_once_a_second() {
        let rtt = RttEstimator::new(SECOND / 3 + MICROSECOND);
        let mut probe = ProbeTimeout::new();
        assert!(!probe.prompt(at(0), &rtt), "nothing is overdue yet");
        for _ in 0..6 {
            probe.on_expired();
        }
        while probe.due() > 0 {
            probe.on_probe_sent();
        }
        let before = probe.timeout(&rtt);
        assert!(probe.prompt(at(30), &rtt));
        assert_eq!(probe.due(), 2);
        assert_eq!(probe.timeout(&rtt), before, "the back-off itself stands until an ack comes");
        assert!(!probe.prompt(at(30), &rtt));
        assert!(probe.prompt(at(32), &rtt));
    }

    #[test]
    fn prompts_that_bring_no_answer_count_as_expiries() {
        let rtt = RttEstimator::new(SECOND / 3 + MICROSECOND);
        let mut probe = ProbeTimeout::new();
        probe.on_expired();
        for (second, backoff) in [(2, 1), (4, 2), (12, 3)] {
            assert!(probe.prompt(at(second), &rtt));
            assert_eq!(probe.backoff(), backoff);
        }
        probe.on_acked();
        assert!(!probe.prompt(at(13), &rtt), "nothing has expired");
    }
}
