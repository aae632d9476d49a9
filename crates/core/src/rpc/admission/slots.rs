//! Slots that sessions may have under load: calls that would only wait here wait at their clients,
//! which costs the server nothing.

use crate::time::{Duration, Instant};

/// Slots that are never taken back.
const LEAST: u32 = 16;

/// How often the number changes at most while the queue stands, and how long it must not have stood
/// before slots are given again, twice as many each time.
const TAKE: Duration = Duration::from_millis(250);
const GIVE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct SlotPressure {
    most: u32,
    limit: u32,
    changed: Instant,
    /// When slots are given again, if some were taken.
    give_at: Option<Instant>,
}

impl SlotPressure {
    pub(super) fn new(most: u32) -> Self {
        Self { most, limit: most, changed: Instant::ZERO, give_at: None }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.give_at
    }

    /// The number for each session, if it is another one from now on: four times what may run at once, shared
    /// among the sessions that are there.
    pub(super) fn share(
        &mut self,
        now: Instant,
        stands: bool,
        concurrency: u32,
        sessions: impl FnOnce() -> usize,
    ) -> Option<u32> {
        if stands {
            if now.since(self.changed) >= TAKE {
                let sessions = u32::try_from(sessions()).unwrap_or(u32::MAX).max(1);
                let share = concurrency.saturating_mul(4) / sessions;
                // A small change is not worth telling everybody.
                let limit = share.clamp(LEAST.min(self.most), self.limit);
                if limit < self.limit - self.limit / 4 {
                    self.limit = limit;
                    self.changed = now;
                    self.give_at = Some(now + GIVE);
                    return Some(limit);
                }
            }
            if self.give_at.is_some() {
                self.give_at = Some(now + GIVE);
            }
            return None;
        }
        if self.give_at.is_none_or(|at| at > now) {
            return None;
        }
        self.limit = self.limit.saturating_mul(2).min(self.most);
        self.changed = now;
        self.give_at = (self.limit < self.most).then(|| now + GIVE);
        Some(self.limit)
    }
}
