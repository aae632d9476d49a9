//! The lease of a leader: for so long nobody else leads, and reads need no question.
//!
//! A majority that answers a question of this leader has heard it at the time when it was asked, or
//! later, and none of them votes for another node before an election timeout has passed since then
//! (Raft thesis, section 6.4.1, with the leader stickiness of section 4.2.3). A node that starts
//! again votes for nobody as long, since it has forgotten whom it heard. What is assumed beside that
//! of clocks is in `docs/decisions/0017-leases.md`.

use stubborn_core::time::{Duration, Instant};

/// Ticks by which a lease is shorter than an election timeout: a follower's first tick may come at
/// once and its second one late, and the rest is for clocks that do not go at one speed.
const MARGIN: u32 = 3;

/// A leader's lease, if leases are wanted.
#[derive(Debug)]
pub(super) struct Lease {
    length: Option<Duration>,
    until: Option<Instant>,
    /// The leader has asked another node to succeed it: that one needs not wait.
    barred: bool,
}

impl Lease {
    /// Leases are wanted, or not; an election timeout has so many ticks of this length.
    pub(super) fn new(wanted: bool, election: u32, tick: Duration) -> Self {
        let length = tick * election.saturating_sub(MARGIN);
        let length = (wanted && !length.is_zero()).then_some(length);
        Self { length, until: None, barred: false }
    }

    /// A majority has answered what this leader asked then.
    pub(super) fn renew(&mut self, asked: Instant) {
        if let Some(length) = self.length
            && !self.barred
        {
            self.until = self.until.max(Some(asked + length));
        }
    }

    /// Whether nobody else leads now.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether it is time to renew it.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let (Some(length), Some(until)) = (self.length, self.until) else { return false };
        until.since(now) < length / 2
    }

    /// Another node is asked to lead: it may do so at once, and in this term at any time.
    pub(super) fn bar(&mut self) {
        (self.barred, self.until) = (true, None);
    }

    /// Term or leader are others.
    pub(super) fn end(&mut self) {
        (self.barred, self.until) = (false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_lease_ends_before_a_majority_may_vote_for_another() {
        let mut lease = Lease::new(true, 10, TICK);
        assert!(!lease.holds(at(0)));
        lease.renew(at(100));
        lease.renew(at(50));
        assert!(lease.holds(at(169)) && !lease.holds(at(170)));
        assert!(!lease.is_due(at(130)) && lease.is_due(at(140)));
    }

    #[test]
    fn none_is_had_where_none_is_wanted_or_another_node_was_asked_to_lead() {
        let mut lease = Lease::new(false, 10, TICK);
        lease.renew(at(100));
        assert!(!lease.holds(at(100)));
        let mut lease = Lease::new(true, 10, TICK);
        lease.renew(at(100));
        lease.bar();
        lease.renew(at(110));
        assert!(!lease.holds(at(111)));
        lease.end();
        lease.renew(at(120));
        assert!(lease.holds(at(121)));
    }
}
