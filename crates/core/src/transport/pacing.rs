//! Spreading a window over its round trip, in whole batches (RFC 9002 §7.7).

use super::rtt::RttEstimator;
use crate::time::{Duration, Instant};

/// A batch is at most one segmented send: 64 segments, 64 KiB.
const MAX_BATCH_PACKETS: u64 = 64;
const MAX_BATCH_BYTES: u64 = 65_535;

/// A batch is at least two packets, so that no timer ever wakes the sender for a single one.
const MIN_BATCH_PACKETS: u64 = 2;

/// A window leaves in at most this many batches. The burst that a batch makes at the bottleneck
/// then is a small part of the eighth of a round trip from which a standing queue is told.
const BATCHES_PER_WINDOW: u64 = 32;

/// Batches are at least this far apart: timers are not finer.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// After a pause, this many packets may leave at once (RFC 9002 §7.7 allows the initial window).
const PAUSE_BURST_PACKETS: u64 = 10;

/// Whether the pacer lets packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// This many bytes may leave now. A sender with as much to send fills whole batches.
    Send(u64),
    /// Nothing more before then.
    Wait(Instant),
}

/// A token bucket that fills at 5/4 of the window per smoothed round trip and empties in batches.
///
/// Invariant: over any time `t`, at most `capacity + rate * t` bytes are let through, and a sender
/// with a full queue is woken at most 40 times per round trip and at most
/// every millisecond. Acks and probes are not paced.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Bytes that may leave; below zero while the end of the last batch is paid for.
    tokens: i64,
    filled_at: Instant,
}

impl Pacer {
    /// A pacer that lets the initial burst through at once.
    pub fn new(now: Instant, datagram: usize) -> Self {
        Self { tokens: signed(PAUSE_BURST_PACKETS * datagram as u64), filled_at: now }
    }

    /// How much may leave now, given that `wanted` bytes are ready to be sent in datagrams of
    /// `datagram` bytes.
    ///
    /// It lets a sender go on that needs less than a batch, and otherwise waits until a whole one
    /// is allowed.
    pub fn poll(
        &mut self,
        now: Instant,
        wanted: u64,
        datagram: usize,
        window: u64,
        rtt: &RttEstimator,
    ) -> Pace {
        let interval = Interval::of(window, rtt);
        let datagram = datagram as u64;
        let batch = batch(datagram, &interval);
        // The capacity also holds what a round trip shorter than the timers would lose otherwise.
        let capacity = (2 * batch).max(PAUSE_BURST_PACKETS * datagram);
        let filled = interval.bytes_in(now.since(self.filled_at));
        // Time worth less than a byte is kept for the next call.
        if filled > 0 {
            self.tokens = self.tokens.saturating_add(signed(filled)).min(signed(capacity));
            self.filled_at = now;
        }
        let needed = signed(wanted.min(batch).max(1));
        if self.tokens >= needed {
            return Pace::Send(self.tokens.unsigned_abs());
        }
        let missing = needed.saturating_sub(self.tokens).unsigned_abs();
        let wait = interval.time_for(missing).max(Duration::from_nanos(1));
        Pace::Wait(self.filled_at.max(now) + wait)
    }

    /// Paced packets of `bytes` left. More than was allowed, to fill the last packet, is paid for
    /// before the next batch.
    pub fn on_sent(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(signed(bytes));
    }

    /// The size of a batch in bytes, for traces and tests.
    pub fn batch(datagram: usize, window: u64, rtt: &RttEstimator) -> u64 {
        batch(datagram as u64, &Interval::of(window, rtt))
    }
}

/// A window's worth of bytes and the time that it is spread over.
struct Interval {
    window: u64,
    nanos: u64,
}

impl Interval {
    /// The window, spread over 4/5 of the smoothed round trip, so that pacing never is what keeps
    /// the window from being used.
    fn of(window: u64, rtt: &RttEstimator) -> Self {
        let spread = rtt.smoothed() * 4 / 5;
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
        Self { window: window.max(1), nanos: nanos.max(1_000) }
    }

    fn bytes_in(&self, time: Duration) -> u64 {
        // Nearly always small enough for a short division.
        if let Ok(nanos) = u64::try_from(time.as_nanos())
            && let Some(product) = self.window.checked_mul(nanos)
        {
            return product / self.nanos;
        }
        let bytes = u128::from(self.window) * time.as_nanos() / u128::from(self.nanos);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * u128::from(self.nanos)).div_ceil(u128::from(self.window));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A batch: a sixteenth of the window or a millisecond's worth, whichever is more, in whole
/// datagrams, and not more than one segmented send takes.
fn batch(datagram: u64, interval: &Interval) -> u64 {
    let wanted = (interval.window / BATCHES_PER_WINDOW).max(interval.bytes_in(MIN_INTERVAL));
    let most = (MAX_BATCH_BYTES / datagram).clamp(1, MAX_BATCH_PACKETS);
    (wanted / datagram).clamp(MIN_BATCH_PACKETS.min(most), most) * datagram
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: usize = 1_452;
    const D: u64 = DATAGRAM as u64;

    fn rtt(time: Duration) -> RttEstimator {
        let mut rtt = RttEstimator::default();
        rtt.update(Instant::ZERO, Duration::ZERO, time);
        rtt
    }

    /// Sends all it may for `time`, and returns the bytes sent, the sizes of the bursts and the
    /// number of wake-ups.
    fn run(window: u64, rtt: &RttEstimator, time: Duration) -> (u64, std::vec::Vec<u64>, u64) {
        let mut pacer = Pacer::new(Instant::ZERO, DATAGRAM);
        let (mut now, mut sent, mut wakes) = (Instant::ZERO, 0, 0);
        let mut bursts = std::vec::Vec::new();
        while now < Instant::ZERO + time {
            match pacer.poll(now, u64::MAX, DATAGRAM, window, rtt) {
                Pace::Send(bytes) => {
                    let whole = (bytes / D).max(1) * D;
                    pacer.on_sent(whole);
                    bursts.push(whole);
                    sent += whole;
                }
                Pace::Wait(until) => {
                    assert!(until > now, "a wait that does not wait");
                    now = until;
                    wakes += 1;
                }
            }
        }
        (sent, bursts, wakes)
    }

    #[test]
    fn a_window_is_spread_over_its_round_trip() {
        let rtt = rtt(Duration::from_millis(50));
        let (sent, _, _) = run(100 * D, &rtt, Duration::from_secs(1));
        let windows = sent as f64 / (100 * D) as f64;
        assert!((24.5..26.0).contains(&windows), "5/4 of 20 windows: {windows}");
    }

    #[test]
    fn a_packet_beyond_the_allowance_is_paid_for() {
        let rtt = rtt(Duration::from_millis(50));
        let mut pacer = Pacer::new(Instant::ZERO, DATAGRAM);
        let (mut now, mut sent) = (Instant::ZERO, 0);
        while now < Instant::ZERO + Duration::from_secs(1) {
            match pacer.poll(now, u64::MAX, DATAGRAM, 100 * D, &rtt) {
                Pace::Send(bytes) => {
                    let begun = bytes.div_ceil(D) * D;
                    pacer.on_sent(begun);
                    sent += begun;
                }
                Pace::Wait(until) => now = until,
            }
        }
        assert!(sent as f64 / (100 * D) as f64 <= 25.3, "{sent}");
    }

    #[test]
    fn bursts_are_whole_batches_and_no_packet_is_woken_for_alone() {
        for (window, ms) in [(32, 50), (100, 50), (1_000, 50), (5_000, 100), (40, 2)] {
            let rtt = rtt(Duration::from_millis(ms));
            let (sent, bursts, wakes) = run(window * D, &rtt, Duration::from_secs(1));
            let batch = Pacer::batch(DATAGRAM, window * D, &rtt);
            assert!(batch >= 2 * D);
            assert!(bursts.iter().all(|b| *b >= batch), "{window} {ms}");
            assert!(bursts[1..].iter().all(|b| *b <= 2 * batch), "{window} {ms}");
            assert!(wakes <= sent / batch + 1, "{window} {ms}: {wakes} wake-ups");
        }
    }

    #[test]
    fn a_round_trip_shorter_than_timers_is_not_chopped_up() {
        let rtt = rtt(Duration::from_micros(200));
        let batch = Pacer::batch(DATAGRAM, 200 * D, &rtt);
        assert_eq!(batch / D, MAX_BATCH_BYTES / D, "one full segmented send");
    }

    #[test]
    fn what_is_less_than_a_batch_does_not_wait_for_one() {
        let rtt = rtt(Duration::from_millis(50));
        let mut pacer = Pacer::new(Instant::ZERO, DATAGRAM);
        pacer.on_sent(9 * D);
        assert!(matches!(pacer.poll(Instant::ZERO, D, DATAGRAM, 1_000 * D, &rtt), Pace::Send(_)));
        let all = pacer.poll(Instant::ZERO, u64::MAX, DATAGRAM, 1_000 * D, &rtt);
        assert!(matches!(all, Pace::Wait(_)), "{all:?}");
    }

    #[test]
    fn after_a_long_pause_only_a_bounded_burst_leaves() {
        let rtt = rtt(Duration::from_millis(50));
        let mut pacer = Pacer::new(Instant::ZERO, DATAGRAM);
        let later = Instant::ZERO + Duration::from_secs(3_600);
        let Pace::Send(bytes) = pacer.poll(later, u64::MAX, DATAGRAM, 64 * D, &rtt) else {
            panic!("a full bucket must let packets through")
        };
        assert!(bytes <= 10 * D, "{bytes}");
    }

    #[test]
    fn datagrams_of_any_size_get_through() {
        for datagram in [1_200, 9_000, 65_507] {
            let rtt = rtt(Duration::from_millis(1));
            let mut pacer = Pacer::new(Instant::ZERO, datagram);
            let (size, mut sent) = (datagram as u64, 0);
            let wait = loop {
                match pacer.poll(Instant::ZERO, u64::MAX, datagram, 2 * size, &rtt) {
                    Pace::Send(bytes) => assert!(bytes >= size),
                    Pace::Wait(until) => break until,
                }
                pacer.on_sent(size);
                sent += 1;
                assert!(sent <= 10, "never has to wait");
            };
            assert!(wait < Instant::ZERO + Duration::from_millis(2));
        }
    }
}
