//! When a leader tells the others how far the log is committed. The next entry says so anyway, and
//! while a client makes one call after the other that is soon: words of their own, and the answers to
//! them, would meet its next call. So they wait a moment, unless another replica waits for them.

use stubborn_core::time::{Duration, Instant};

/// How long they wait at most. Whoever watches or reads an older state elsewhere is told so much later.
const MOMENT: Duration = Duration::from_millis(1);

/// What the others have to hear of.
#[derive(Debug, Default)]
pub(super) struct Telling {
    by: Option<Instant>,
    /// A client of another replica waits for the entry of this index.
    awaited: u64,
}

impl Telling {
    /// Another replica waits until it hears that the entry of this index is committed.
    pub(super) fn is_awaited(&mut self, index: u64) {
        self.awaited = self.awaited.max(index);
    }

    /// Whether the others are to be told now. The log is committed up to `committed`, and they have
    /// heard of `told`.
    pub(super) fn is_due(&mut self, now: Instant, told: u64, committed: u64) -> bool {
        if told >= committed {
            self.by = None;
            return false;
        }
        let awaited = told < self.awaited && self.awaited <= committed;
        let due = awaited || now >= *self.by.get_or_insert(now + MOMENT);
        if due {
            self.by = None;
        }
        due
    }

    /// When they are to be told at the latest.
    pub(super) fn by(&self) -> Option<Instant> {
        self.by
    }

    /// Term or leader are others.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_is_told_after_a_moment() {
        let (mut telling, start) = (Telling::default(), Instant::ZERO);
        assert!(!telling.is_due(start, 4, 5));
        assert_eq!(telling.by(), Some(start + MOMENT));
        assert!(!telling.is_due(start + MOMENT / 2, 4, 6), "a later entry does not put it off");
        assert!(telling.is_due(start + MOMENT, 4, 6));
        assert!(!telling.is_due(start + MOMENT, 6, 6));
        assert_eq!(telling.by(), None);
    }

    #[test]
    fn what_the_next_entry_has_told_is_not_told_again() {
        let (mut telling, start) = (Telling::default(), Instant::ZERO);
        assert!(!telling.is_due(start, 4, 5));
        assert!(!telling.is_due(start + MOMENT, 5, 5));
        assert_eq!(telling.by(), None);
    }

    #[test]
    fn what_another_replica_waits_for_is_told_as_soon_as_it_is_committed() {
        let (mut telling, start) = (Telling::default(), Instant::ZERO);
        telling.is_awaited(6);
        assert!(!telling.is_due(start, 4, 5), "not committed yet");
        assert!(telling.is_due(start, 4, 6));
        assert!(!telling.is_due(start, 6, 7), "nobody waits for the entry after it");
    }
}
