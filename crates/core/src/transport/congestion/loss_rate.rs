//! Whether sending more means losing more: the loss evidence for congestion.
//!
//! On a path that loses at random the lost part stays the same however large the window is. Where a
//! policer or a shallow queue drops what is too much, it rises with the window. So the least part
//! lost since the last cut is the reference, and a clear rise above it is congestion, though no
//! delay shows.

use crate::time::{Duration, Instant};

/// Packets in a sample at least; fewer say too little of a probability.
const SAMPLE: u64 = 256;

/// What may be lost without being taken for congestion. A path that loses more is not worth
/// pushing.
const TOLERATED: f64 = 0.3;

/// A single sample counts from a rise of 5 % and four standard deviations of the difference of two
/// samples (squared here): the overshoot of slow start is seen at once.
const SAMPLE_RISE: f64 = 0.05;
const SAMPLE_DEVIATIONS: f64 = 4.0 * 4.0 * 2.0;

/// The average over several counts from a rise of 2 % and three standard deviations of a sample
/// (which are eight of its own, and the reference, being the least of many, lies three below): slow
/// growth is seen early.
const AVERAGE_RISE: f64 = 0.02;
const AVERAGE_DEVIATIONS: f64 = 3.0 * 3.0;

/// The weight of a new sample in the average.
const WEIGHT: f64 = 0.25;

/// Compares the part lost now with the least part lost since the last cut.
#[derive(Clone, Debug)]
pub(super) struct LossRate {
    acked: u64,
    lost: u64,
    since: Option<Instant>,
    average: Option<f64>,
    /// The least average since the last cut.
    reference: f64,
}

impl LossRate {
    pub(super) const fn new() -> Self {
        Self { acked: 0, lost: 0, since: None, average: None, reference: TOLERATED }
    }

    /// Counts what was settled and, when a sample is complete, says whether it lost clearly more
    /// than the reference. A sample takes a round trip at least.
    pub(super) fn on_settled(
        &mut self,
        now: Instant,
        acked: u64,
        lost: u64,
        round_trip: Duration,
    ) -> bool {
        self.acked += acked;
        self.lost += lost;
        let since = *self.since.get_or_insert(now);
        let packets = self.acked + self.lost;
        if packets < SAMPLE || now.since(since) < round_trip {
            return false;
        }
        let part = self.lost as f64 / packets as f64;
        (self.acked, self.lost, self.since) = (0, 0, None);
        let average = self.average.map_or(part, |a| a + (part - a) * WEIGHT);
        self.average = Some(average);
        self.reference = self.reference.min(average);
        let packets = packets.min(4 * SAMPLE) as f64;
        let rose = |now: f64, least: f64, deviations: f64| {
            // A sample tells no less than one loss in 500.
            let spread = ((now + self.reference) / 2.0).max(0.002);
            let variance = spread * (1.0 - spread) / packets;
            let rise = now - self.reference;
            rise > least && rise * rise > deviations * variance
        };
        rose(part, SAMPLE_RISE, SAMPLE_DEVIATIONS)
            || rose(average, AVERAGE_RISE, AVERAGE_DEVIATIONS)
    }

    /// A packet counted as lost has arrived after all.
    pub(super) fn on_spurious(&mut self) {
        if self.lost > 0 {
            self.lost -= 1;
            self.acked += 1;
        }
    }

    /// The window was cut: what is lost from now on makes a new reference.
    pub(super) fn on_cut(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Feeds `packets` of which the part `loss` is lost, and counts the samples that rose.
    fn feed(rate: &mut LossRate, random: &mut Random, packets: u64, loss: f64) -> u32 {
        let mut rises = 0;
        for n in 0..packets {
            let lost = u64::from(random.chance(loss));
            let now = Instant::from_nanos(n);
            rises += u32::from(rate.on_settled(now, 1 - lost, lost, Duration::ZERO));
        }
        rises
    }

    #[test]
    fn a_steady_loss_rate_is_not_taken_for_congestion() {
        let mut random = Random::from_seed([5; 32]);
        for loss in [0.0, 0.01, 0.05, 0.2] {
            let mut rate = LossRate::new();
            let rises = feed(&mut rate, &mut random, 10_000 * SAMPLE, loss);
            assert!(rises <= 1, "{loss}: {rises} of 10,000 samples");
        }
    }

    #[test]
    fn a_rising_loss_rate_is_congestion_until_a_cut_sets_a_new_reference() {
        let mut random = Random::from_seed([6; 32]);
        let mut rate = LossRate::new();
        assert_eq!(feed(&mut rate, &mut random, 3 * SAMPLE, 0.02), 0);
        assert!(feed(&mut rate, &mut random, 3 * SAMPLE, 0.15) >= 2);
        rate.on_cut();
        assert_eq!(feed(&mut rate, &mut random, 3 * SAMPLE, 0.15), 0);
    }

    #[test]
    fn losing_nearly_half_is_congestion_even_from_the_start() {
        let mut random = Random::from_seed([7; 32]);
        let mut rate = LossRate::new();
        assert!(feed(&mut rate, &mut random, 2 * SAMPLE, 0.45) >= 1);
    }

    #[test]
    fn packets_that_arrive_late_are_not_counted_as_lost() {
        let mut rate = LossRate::new();
        for n in 0..100 * SAMPLE {
            let now = Instant::from_nanos(n);
            let lost = u64::from(n > 3 * SAMPLE && n % 2 == 0);
            assert!(!rate.on_settled(now, 1 - lost, lost, Duration::ZERO));
            if lost == 1 {
                rate.on_spurious();
            }
        }
    }
}
