//! The log's time, as its leader tells it.

use stubborn_core::time::Instant;

/// A leader's clock: the time that the log had when the term began, and what has passed since. Thus
/// a change of leaders never takes time back, and whatever the clocks of two machines say is never
/// compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogClock(Option<Term>);

#[derive(Clone, Copy, Debug)]
struct Term {
    /// On this replica's clock.
    began: Instant,
    /// On the log's.
    log: Instant,
}

impl LogClock {
    /// This replica leads: the log's time was `log` when all that was before its term was applied.
    pub(super) fn start(&mut self, now: Instant, log: Instant) {
        self.0 = Some(Term { began: now, log });
    }

    /// It leads no more.
    pub(super) fn stop(&mut self) {
        self.0 = None;
    }

    /// The log's time; none if this replica does not lead, or has not applied what was before its
    /// term.
    pub(super) fn at(&self, now: Instant) -> Option<Instant> {
        let Term { began, log } = self.0?;
        Some(log + now.since(began))
    }
}
