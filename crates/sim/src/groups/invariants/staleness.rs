//! A read of an older state is no older than its caller allows, and a session never goes back in time.

use stubborn_core::time::{Duration, Instant};

use crate::nodes::Broken;

/// When each count that was larger than any before was first told to a client.
#[derive(Default)]
pub(super) struct Staleness(Vec<(Instant, u64)>);

impl Staleness {
    /// A client was told this count.
    pub(super) fn saw(&mut self, now: Instant, count: u64) {
        if self.0.last().is_none_or(|(_, largest)| *largest < count) {
            self.0.push((now, count));
        }
    }

    /// A client that had been told `before` was told this count.
    pub(super) fn on_session_read(before: u64, count: u64) -> Result<(), Broken> {
        if count >= before {
            return Ok(());
        }
        Err(("sessions", format!("a client saw {count} after it had seen {before}")))
    }

    /// A read began at `began`, asked for a state that is at most so old, and was told this count.
    pub(super) fn on_stale_read(
        &self,
        began: Instant,
        at_most: Duration,
        count: u64,
    ) -> Result<(), Broken> {
        let known = self.0.partition_point(|(told, _)| *told + at_most <= began);
        let Some((_, least)) = known.checked_sub(1).map(|last| self.0[last]) else {
            return Ok(());
        };
        if count >= least {
            return Ok(());
        }
        let what = format!("a read of a state at most {at_most:?} old saw {count}, not {least}");
        Err(("staleness", what))
    }
}
