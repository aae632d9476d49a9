//! How long the calls of each method take.

use alloc::collections::BTreeMap;

use crate::service::MethodId;
use crate::time::{Duration, Instant};

/// Methods whose times are known; a further one takes the place of another.
const METHODS: usize = 1_024;

/// Mean deviations above the mean that hardly any call exceeds: of a normal distribution it is one in a
/// hundred, as a mean deviation is 0.8 standard deviations.
const DEVIATIONS: u64 = 3;

/// A time that was not measured for so long, and for so many times itself, may be wrong by now.
const FRESH: Duration = Duration::from_millis(200);
const TIMES: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Times(BTreeMap<MethodId, Time>);

/// In nanoseconds. Both follow what is measured as round-trip times are followed (RFC 6298 §2).
#[derive(Clone, Copy, Debug)]
struct Time {
    mean: u64,
    deviation: u64,
    measured: Instant,
}

impl Times {
    /// A call has taken so long.
    pub(super) fn measured(&mut self, now: Instant, method: MethodId, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 2);
        if let Some(time) = self.0.get_mut(&method) {
            let off = time.mean.abs_diff(took);
            time.deviation = time.deviation - time.deviation / 8 + off / 8;
            time.mean = time.mean - time.mean / 8 + took / 8;
            time.measured = now;
            return;
        }
        // Peers may make methods up.
        if self.0.len() == METHODS {
            self.0.pop_first();
        }
        self.0.insert(method, Time { mean: took, deviation: took / 4, measured: now });
    }

    /// The mean; nothing of a method that is not known.
    pub(super) fn mean(&self, method: MethodId) -> Duration {
        Duration::from_nanos(self.0.get(&method).map_or(0, |time| time.mean))
    }

    /// What hardly any call exceeds, but no more than twice the mean: where some take far longer than others,
    /// most are worth a try.
    pub(super) fn at_most(&self, method: MethodId) -> Duration {
        let above = |time: &Time| time.deviation.saturating_mul(DEVIATIONS).min(time.mean);
        Duration::from_nanos(self.0.get(&method).map_or(0, |time| time.mean + above(time)))
    }

    /// A call is refused because of this time. One that is too long would keep away the calls that could
    /// prove it wrong, so that it fades with each of them once it is old.
    pub(super) fn doubt(&mut self, now: Instant, method: MethodId) {
        let Some(time) = self.0.get_mut(&method) else { return };
        let fresh = FRESH.max(Duration::from_nanos(time.mean).saturating_mul(TIMES));
        if now.since(time.measured) > fresh {
            time.mean -= time.mean / 32;
            time.deviation -= time.deviation / 32;
        }
    }
}
