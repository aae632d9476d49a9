//! The round-trip time estimate of a path (RFC 9002 §5) and the probe timeout that follows from it
//! (RFC 9002 §6.2.1).

use crate::time::{Duration, Instant};

/// The finest difference that timers are trusted with (RFC 9002 §6.1.2).
pub const GRANULARITY: Duration = Duration::from_millis(1);

/// Assumed of a path that nothing is known of. Three of these make the first probe timeout: 300 ms.
///
/// RFC 9002 §6.2.2 recommends 333 ms, and with that a second: who loses their first datagrams twice on
/// the way then waits for three, longer than an attempt to connect lasts. Nothing is taken for lost when
/// the timeout expires (§6.2.1), so on a path that is slower it costs a few datagrams, fewer with each
/// expiry, which to an address that is not proven are no more than ever (RFC 9000 §8.1). Chromium's QUIC
/// assumes as much.
pub const INITIAL_RTT: Duration = Duration::from_millis(100);

/// The most of a reported ack delay that is believed; RFC 9000's default for `max_ack_delay`.
pub const MAX_ACK_DELAY_CREDIT: Duration = Duration::from_millis(25);

/// Smoothed round-trip time, its variation, and its minimum.
///
/// Invariant: once there is a sample, `min <= latest`, and an ack delay never brings a sample below
/// `min`, so a peer cannot talk the estimate down.
#[derive(Clone, Debug)]
pub struct RttEstimator {
    smoothed: Duration,
    variance: Duration,
    latest: Duration,
    latest_path: Duration,
    min: Duration,
    samples: u64,
    /// A slowly falling maximum of the ack delays that the peer reports. It stands where RFC 9002
    /// has `max_ack_delay`, which is zero in this protocol: a peer that polls slowly for a while
    /// must not draw a probe on every call.
    peer_delay: Duration,
    first_sample: Option<Instant>,
    /// What [`probe_timeout_base`](Self::probe_timeout_base) and [`loss_delay`](Self::loss_delay) give:
    /// they are asked for with each packet, and change with samples only.
    timeout_base: Duration,
    loss_delay: Duration,
}

impl Default for RttEstimator {
    fn default() -> Self {
        Self::new(INITIAL_RTT)
    }
}

/// The longest base of a probe timeout. A peer that stood still, or a clock that jumped, leaves an
/// estimate of many seconds behind; what was lost then would not be noticed before anybody gives up.
/// The exponential back-off goes on from here (RFC 8961 §4).
///
/// RFC 6298 §2.5 allows no maximum below 60 s, but for a timeout that takes packets for lost. This one
/// does not (RFC 9002 §6.2.4): on a path that is really slower than this, it costs probes after 3, 6,
/// 12 s, which count against the window, until the answer comes. Persistent congestion (§7.6) is then
/// found after nine seconds, which errs towards sending less.
const MAX_PROBE_TIMEOUT_BASE: Duration = Duration::from_secs(3);

impl RttEstimator {
    /// An estimator without samples. `initial` is [`INITIAL_RTT`], or what an earlier connection
    /// over the same path measured (RFC 9002 §6.2.2); the first sample replaces it.
    pub fn new(initial: Duration) -> Self {
        let initial = initial.clamp(GRANULARITY, Duration::from_secs(10));
        let mut made = Self {
            smoothed: initial,
            variance: initial / 2,
            latest: initial,
            latest_path: initial,
            min: initial,
            samples: 0,
            peer_delay: Duration::ZERO,
            first_sample: None,
            timeout_base: Duration::ZERO,
            loss_delay: Duration::ZERO,
        };
        made.derive();
        made
    }

    /// Takes in a sample: the time from sending the largest newly acknowledged packet to its
    /// acknowledgement, and the delay that the peer reports to have made (zero for the Initial
    /// space, where it cannot be trusted; RFC 9002 §5.3).
    pub fn update(&mut self, now: Instant, ack_delay: Duration, sample: Duration) {
        self.take(now, ack_delay, sample);
        self.derive();
    }

    fn take(&mut self, now: Instant, ack_delay: Duration, sample: Duration) {
        self.latest = sample;
        self.latest_path = sample;
        self.samples += 1;
        if self.first_sample.is_none() {
            self.first_sample = Some(now);
            self.min = sample;
            self.smoothed = sample;
            self.variance = sample / 2;
            return;
        }
        self.min = self.min.min(sample);
        let delay = ack_delay.min(MAX_ACK_DELAY_CREDIT);
        self.peer_delay = delay.max(self.peer_delay - self.peer_delay / 8);
        let adjusted = if sample >= self.min + delay { sample - delay } else { sample };
        self.latest_path = adjusted;
        self.variance = self.variance * 3 / 4 + self.smoothed.abs_diff(adjusted) / 4;
        self.smoothed = self.smoothed * 7 / 8 + adjusted / 8;
    }

    fn derive(&mut self) {
        self.timeout_base =
            (self.smoothed + (self.variance * 4).max(GRANULARITY) + self.peer_delay)
                .min(MAX_PROBE_TIMEOUT_BASE);
        self.loss_delay = (self.smoothed.max(self.latest) * 9 / 8).max(GRANULARITY);
    }

    /// The moving average of the samples, the peer's delays taken off.
    pub fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// The mean deviation of the samples.
    pub fn variance(&self) -> Duration {
        self.variance
    }

    /// The last sample as measured.
    pub fn latest(&self) -> Duration {
        self.latest
    }

    /// The last sample with the peer's delay taken off: what the path itself took.
    pub fn latest_path(&self) -> Duration {
        self.latest_path
    }

    /// How many samples there were.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The smallest sample since the start or since [`forget_min`](Self::forget_min).
    pub fn min(&self) -> Duration {
        self.min
    }

    /// When the first sample came; `None` while the estimate is only assumed.
    pub fn first_sample(&self) -> Option<Instant> {
        self.first_sample
    }

    /// Lets the last sample be the minimum: after persistent congestion the path may be another
    /// one (RFC 9002 §5.2).
    pub fn forget_min(&mut self) {
        self.min = self.latest;
    }

    /// The probe timeout without back-off: `srtt + max(4 * rttvar, 1 ms)` (RFC 9002 §6.2.1), plus
    /// the delay that the peer has lately been making; at most three seconds.
    pub fn probe_timeout_base(&self) -> Duration {
        self.timeout_base
    }

    /// How long after a later packet was acknowledged a packet may still be on its way: 9/8 of the
    /// larger of smoothed and latest (RFC 9002 §6.1.2).
    pub fn loss_delay(&self) -> Duration {
        self.loss_delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn without_path_knowledge_the_first_timeout_is_three_tenths_of_a_second() {
        assert_eq!(RttEstimator::default().probe_timeout_base(), 300 * MS);
    }

    #[test]
    fn a_remembered_time_seeds_the_timeout_and_the_first_sample_replaces_it() {
        let mut rtt = RttEstimator::new(40 * MS);
        assert_eq!(rtt.probe_timeout_base(), 120 * MS);
        assert_eq!(rtt.first_sample(), None);
        rtt.update(after(5), 3 * MS, 10 * MS);
        assert_eq!((rtt.smoothed(), rtt.variance(), rtt.min()), (10 * MS, 5 * MS, 10 * MS));
        assert_eq!(rtt.first_sample(), Some(after(5)));
        assert_eq!(RttEstimator::new(Duration::ZERO).smoothed(), GRANULARITY);
    }

    #[test]
    fn samples_weigh_one_eighth_and_their_deviation_one_quarter() {
        let mut rtt = RttEstimator::default();
        rtt.update(after(1), Duration::ZERO, 80 * MS);
        rtt.update(after(2), Duration::ZERO, 160 * MS);
        assert_eq!(rtt.smoothed(), 90 * MS);
        assert_eq!(rtt.variance(), 50 * MS);
        assert_eq!(rtt.probe_timeout_base(), 290 * MS);
    }

    #[test]
    fn the_timeout_never_comes_closer_to_the_average_than_a_millisecond() {
        let mut rtt = RttEstimator::default();
        for n in 0..200 {
            rtt.update(after(n), Duration::ZERO, Duration::from_micros(50));
        }
        assert!(rtt.probe_timeout_base() >= rtt.smoothed() + GRANULARITY);
        assert_eq!(rtt.loss_delay(), GRANULARITY);
    }

    #[test]
    fn a_slow_handler_at_the_peer_does_not_inflate_the_estimate_but_delays_the_probe() {
        let mut rtt = RttEstimator::default();
        rtt.update(after(0), Duration::ZERO, MS);
        for n in 0..100 {
            rtt.update(after(n), 5 * MS, 6 * MS);
        }
        assert!(rtt.smoothed() < 2 * MS, "{:?}", rtt.smoothed());
        assert!(rtt.probe_timeout_base() > 6 * MS, "or every slow call draws a probe");
        for n in 0..40 {
            rtt.update(after(n), Duration::ZERO, MS);
        }
        assert!(rtt.probe_timeout_base() < 4 * MS, "the allowance falls again");
    }

    #[test]
    fn a_lying_ack_delay_cannot_bring_the_estimate_below_the_minimum() {
        let mut rtt = RttEstimator::default();
        rtt.update(after(0), Duration::ZERO, 10 * MS);
        for n in 0..100 {
            rtt.update(after(n), Duration::from_secs(3_600), 12 * MS);
        }
        assert!(rtt.smoothed() >= rtt.min());
        assert!(rtt.probe_timeout_base() < Duration::from_millis(100), "the credit is bounded");
    }

    #[test]
    fn forgetting_the_minimum_takes_the_latest_sample() {
        let mut rtt = RttEstimator::default();
        rtt.update(after(0), Duration::ZERO, 10 * MS);
        rtt.update(after(1), Duration::ZERO, 30 * MS);
        rtt.forget_min();
        assert_eq!(rtt.min(), 30 * MS);
    }

    #[test]
    fn a_packet_is_overdue_nine_eighths_of_a_round_trip_after_it_was_sent() {
        let mut rtt = RttEstimator::default();
        rtt.update(after(0), Duration::ZERO, 80 * MS);
        assert_eq!(rtt.loss_delay(), 90 * MS);
        rtt.update(after(0), Duration::ZERO, 160 * MS);
        assert_eq!(rtt.loss_delay(), 180 * MS, "the latest counts when it is larger");
    }
}
