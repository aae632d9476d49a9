//! Gives memory back while nothing happens: most connections of a large server are idle.

use super::super::timers::Timer;
use super::Connection;
use crate::time::{Duration, Instant};

/// How long no packet has come when memory is given back, beside two round trips: on a long path a
/// pause is no rest. Short, so that a server to which many clients connect does not hold for all of them
/// what a handshake needs: freed memory stays with the process, in holes between what is kept. What is
/// given back takes a few microseconds to make again.
const QUIET: Duration = Duration::from_millis(20);

impl Connection {
    /// A packet came.
    pub(super) fn note_activity(&mut self, now: Instant) {
        // Not moved by each packet: it looks for itself how long it has been quiet.
        if self.timers.get(Timer::Rest).is_none() {
            self.timers.set(Timer::Rest, now + QUIET);
        }
    }

    pub(super) fn on_rest_timer(&mut self, now: Instant) {
        let quiet_at = self.recovery.last_received + QUIET + 2 * self.path.rtt.smoothed();
        if now < quiet_at {
            self.timers.set(Timer::Rest, quiet_at);
        } else {
            self.shrink();
        }
    }

    /// Gives back room that queues and tables do not need for what is in them.
    fn shrink(&mut self) {
        for space in self.spaces.iter_mut() {
            space.shrink();
        }
        self.outbox.shrink();
        self.inbox.shrink();
        self.id_changes.shrink_to_fit();
        self.announced_tokens.shrink_to_fit();
        self.unreliable.shrink_to_fit();
        self.events.shrink_to_fit();
        self.early.shrink_to_fit();
        self.migration.shrink();
        self.local_ids.shrink();
        self.remote_ids.shrink();
        self.random.rest();
        if let Some(keys) = &mut self.data_keys {
            keys.rest();
        }
    }
}
