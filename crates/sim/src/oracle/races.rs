//! Which races a run reached. A batch of runs that never reached one proves nothing about it.

use stubborn_core::session::Races;

/// How often runs met the situations that the protocol's rules are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaceCounts {
    /// What servers counted.
    pub servers: Races,
    /// Servers killed while a handler was at work.
    pub restarts_mid_call: u64,
}

impl RaceCounts {
    /// Each race that a batch has to reach, and how often it did.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Races {
            fences_first,
            starts_first,
            late_starts,
            kept_replies,
            slots_returned,
            takeovers,
            refusals,
        } = self.servers;
        [
            ("fence before start", fences_first),
            ("fence after start", starts_first),
            ("start after fence", late_starts),
            ("answer from a kept reply", kept_replies),
            ("slot shrink", slots_returned),
            ("attach from two connections", takeovers),
            ("refusal for want of room", refusals),
            ("restart mid-call", self.restarts_mid_call),
        ]
        .into_iter()
    }
}

impl std::ops::AddAssign for RaceCounts {
    fn add_assign(&mut self, other: Self) {
        self.servers += other.servers;
        self.restarts_mid_call += other.restarts_mid_call;
    }
}
