//! What is shown while the measurement runs: the last interval, and the connections' state.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use stubborn::client::ConnectionStats;

use super::measure::histogram;
use crate::error::Error;

/// How often it is renewed.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// Where the threads of the measurement put what is to be shown.
#[derive(Clone)]
pub(super) struct Live(Arc<Mutex<Interval>>);

/// One interval, over all connections.
pub(super) struct Interval {
    latency: Histogram<u64>,
    packets_sent: u64,
    packets_lost: u64,
    /// The smallest of all connections.
    window: u64,
    /// The longest of all connections.
    rtt: Duration,
}

impl Live {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self(Arc::new(Mutex::new(Interval::new()?))))
    }

    /// Adds what one connection has done; `before` are its counters the last time.
    pub(super) fn add(
        &self,
        latency: &Histogram<u64>,
        before: &ConnectionStats,
        now: &ConnectionStats,
    ) {
        let mut interval = self.lock();
        // Both have the same bounds.
        let _ = interval.latency.add(latency);
        interval.packets_sent += now.packets_sent.saturating_sub(before.packets_sent);
        interval.packets_lost += now.packets_lost.saturating_sub(before.packets_lost);
        interval.window = interval.window.min(now.window);
        let rtt = Duration::from_nanos(u64::try_from(now.rtt.as_nanos()).unwrap_or(u64::MAX));
        interval.rtt = interval.rtt.max(rtt);
    }

    /// The interval that ends now, if anything came in it.
    pub(super) fn take(&self) -> Option<Interval> {
        let next = Interval::new().ok()?;
        let mut interval = self.lock();
        (interval.window < u64::MAX).then(|| std::mem::replace(&mut *interval, next))
    }

    fn lock(&self) -> MutexGuard<'_, Interval> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interval {
    fn new() -> Result<Self, Error> {
        let (packets_sent, packets_lost) = (0, 0);
        let rtt = Duration::ZERO;
        Ok(Self { latency: histogram()?, packets_sent, packets_lost, window: u64::MAX, rtt })
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.latency.len() as f64 / INTERVAL.as_secs_f64();
        let micros = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        let loss = 100.0 * self.packets_lost as f64 / self.packets_sent.max(1) as f64;
        write!(
            f,
            "{rate:.0} calls/s  p50 {:.1}  p99 {:.1} µs  loss {loss:.2} %  window {} KiB  RTT {:.1} µs",
            micros(0.5),
            micros(0.99),
            self.window >> 10,
            self.rtt.as_secs_f64() * 1e6,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_in_which_nothing_came_is_not_shown_and_a_taken_one_is_gone() {
        let live = Live::new().unwrap();
        assert!(live.take().is_none());
        let mut latency = histogram().unwrap();
        latency.record(20_000).unwrap();
        let before = ConnectionStats::default();
        let mut now = ConnectionStats::default();
        (now.packets_sent, now.packets_lost, now.window) = (200, 1, 64 << 10);
        live.add(&latency, &before, &now);
        let shown = live.take().unwrap().to_string();
        assert!(shown.starts_with("4 calls/s  p50 20.0"), "{shown}");
        assert!(shown.contains("loss 0.50 %  window 64 KiB"), "{shown}");
        assert!(live.take().is_none());
    }
}
