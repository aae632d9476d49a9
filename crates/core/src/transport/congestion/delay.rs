//! Whether packets queue on the path: the delay evidence for congestion.

use crate::time::{Duration, Instant};
use crate::transport::rtt::RttEstimator;

/// Samples looked at together. Their minimum sees through jitter, which delays single packets; a
/// standing queue delays all of them (HyStart++ likewise takes 8; RFC 9406 §4.2).
const SAMPLES: usize = 8;

/// A queue stands when it adds an eighth to the round trip (RFC 9406 §4.2 takes the same part).
/// A drop-tail queue of an eighth of the bandwidth-delay product or more is thus noticed when it
/// overflows; what is shallower is left to the loss rate.
const PART: u32 = 8;

/// A smaller excess is not told from the work of hosts: polls, interrupts, and a receiver that takes a
/// burst of packets one after the other, which took 250 microseconds and more where it was measured.
/// RFC 9406 uses 4 ms, for wide-area paths; what overflows a shorter queue is left to the loss rate.
const LEAST: Duration = Duration::from_millis(1);

/// The base is the minimum over this time and up to twice as long. A flow drains the queue that it
/// has built itself with every cut, so the base survives; a route that became longer is learnt.
const BASE_WINDOW: Duration = Duration::from_secs(150);

/// No sample.
const NONE: u64 = u64::MAX;

/// Compares the latest round-trip times with the path's lowest.
#[derive(Clone, Debug)]
pub(super) struct DelaySignal {
    /// A ring: when, and nanoseconds; [`NONE`] for none. `next` is the oldest.
    recent: [(Instant, u64); SAMPLES],
    next: u8,
    samples_seen: u64,
    /// Minimum of the current and of the former base window.
    base: [Duration; 2],
    base_since: Instant,
}

impl DelaySignal {
    pub(super) const fn new() -> Self {
        Self {
            recent: [(Instant::ZERO, NONE); SAMPLES],
            next: 0,
            samples_seen: 0,
            base: [Duration::MAX; 2],
            base_since: Instant::ZERO,
        }
    }

    /// Takes in the estimator's last sample if it is a new one.
    pub(super) fn observe(&mut self, now: Instant, rtt: &RttEstimator) {
        if rtt.samples() == self.samples_seen {
            return;
        }
        self.samples_seen = rtt.samples();
        let sample = rtt.latest_path();
        let nanos = u64::try_from(sample.as_nanos()).unwrap_or(NONE);
        let next = usize::from(self.next) % SAMPLES;
        self.recent[next] = (now, nanos);
        self.next = (next + 1) as u8;
        if now.since(self.base_since) > BASE_WINDOW {
            self.base = [Duration::MAX, self.base[0]];
            self.base_since = now;
        }
        self.base[0] = self.base[0].min(sample);
    }

    /// True if all recent samples (of the last two round trips) lie clearly above the base. Without
    /// a recent sample there is no evidence.
    pub(super) fn shows_queue(&self, now: Instant, rtt: &RttEstimator) -> bool {
        let base = self.base[0].min(self.base[1]);
        let fresh = rtt.smoothed() * 2;
        let recent = self
            .recent
            .iter()
            .filter(|(at, sample)| *sample < NONE && now.since(*at) <= fresh)
            .map(|(_, sample)| Duration::from_nanos(*sample))
            .min();
        recent.is_some_and(|r| r > base.saturating_add((base / PART).max(LEAST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Path {
        rtt: RttEstimator,
        signal: DelaySignal,
        now: Instant,
    }

    impl Path {
        fn new() -> Self {
            Self { rtt: RttEstimator::default(), signal: DelaySignal::new(), now: Instant::ZERO }
        }

        fn sample(&mut self, rtt: Duration) -> &mut Self {
            self.now += MS;
            self.rtt.update(self.now, Duration::ZERO, rtt);
            self.signal.observe(self.now, &self.rtt);
            self
        }

        fn shows_queue(&self) -> bool {
            self.signal.shows_queue(self.now, &self.rtt)
        }
    }

    #[test]
    fn a_queue_shows_once_every_recent_sample_is_an_eighth_above_the_base() {
        let mut path = Path::new();
        path.sample(80 * MS);
        for _ in 0..SAMPLES - 1 {
            path.sample(100 * MS);
            assert!(!path.shows_queue(), "the low one is still recent");
        }
        assert!(path.sample(100 * MS).shows_queue());
        assert!(!path.sample(89 * MS).shows_queue(), "less than an eighth");
    }

    #[test]
    fn jitter_of_single_packets_and_the_work_of_hosts_are_no_queue() {
        let mut path = Path::new();
        for n in 0..100u32 {
            path.sample(if n % 4 == 0 { 20 * MS } else { 35 * MS });
            assert!(!path.shows_queue());
        }
        let mut path = Path::new();
        for n in 0..100 {
            path.sample(Duration::from_micros(if n == 0 { 50 } else { 280 }));
            assert!(!path.shows_queue());
        }
    }

    #[test]
    fn old_samples_are_no_evidence() {
        let mut path = Path::new();
        path.sample(10 * MS);
        for _ in 0..SAMPLES {
            path.sample(20 * MS);
        }
        assert!(path.shows_queue());
        path.now += Duration::from_secs(1);
        assert!(!path.shows_queue());
        assert!(!DelaySignal::new().shows_queue(path.now, &path.rtt));
    }

    #[test]
    fn a_longer_route_is_learnt_in_time() {
        let mut path = Path::new();
        path.sample(10 * MS);
        for _ in 0..2 {
            path.now += BASE_WINDOW + MS;
            for _ in 0..SAMPLES {
                path.sample(20 * MS);
            }
        }
        assert!(!path.shows_queue());
    }

    #[test]
    fn the_delay_of_a_slow_peer_is_no_queue() {
        let mut path = Path::new();
        path.sample(10 * MS);
        for _ in 0..20 {
            path.now += MS;
            path.rtt.update(path.now, 8 * MS, 18 * MS);
            path.signal.observe(path.now, &path.rtt);
        }
        assert!(!path.shows_queue());
    }
}
