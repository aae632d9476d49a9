//! The system's monotonic clock as the core's time.

use std::time::{Duration, Instant as StdInstant};

use stubborn_core::service::Clock;
use stubborn_core::time::Instant;

/// Maps between the two kinds of instants. The core's zero is when the node was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeClock {
    zero: StdInstant,
}

impl NodeClock {
    pub(crate) fn start() -> Self {
        Self { zero: StdInstant::now() }
    }

    pub(crate) fn now(self) -> Instant {
        let elapsed = self.zero.elapsed();
        // Asked for with every call: without a product of 128 bits. 2^64 nanoseconds are 584 years.
        let nanos = elapsed.as_secs().saturating_mul(1_000_000_000);
        Instant::from_nanos(nanos.saturating_add(elapsed.subsec_nanos().into()))
    }

    /// The same instant on the system's clock; `None` if it lies too far ahead to be one.
    pub(crate) fn to_std(self, at: Instant) -> Option<StdInstant> {
        self.zero.checked_add(Duration::from_nanos(at.as_nanos()))
    }

    /// A handle for handlers.
    pub(crate) fn handle(self) -> Clock {
        Clock::new(move || self.now())
    }
}
