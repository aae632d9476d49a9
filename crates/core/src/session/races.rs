//! How often a server met the situations that its rules are for, so that a test can tell whether it
//! reached them.

/// Counts of races, since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Races {
    /// Fences that came before their call, which then never started.
    pub fences_first: u64,
    /// Fences that came when their call had started or ended.
    pub starts_first: u64,
    /// Requests that came after they were fenced.
    pub late_starts: u64,
    /// Copies of requests that were answered with the kept reply.
    pub kept_replies: u64,
    /// Slots that clients gave back.
    pub slots_returned: u64,
    /// Sessions attached to by a connection while another one had them.
    pub takeovers: u64,
    /// Calls that were refused before their handlers began, for want of room.
    pub refusals: u64,
}

impl core::ops::AddAssign for Races {
    fn add_assign(&mut self, other: Self) {
        self.fences_first += other.fences_first;
        self.starts_first += other.starts_first;
        self.late_starts += other.late_starts;
        self.kept_replies += other.kept_replies;
        self.slots_returned += other.slots_returned;
        self.takeovers += other.takeovers;
        self.refusals += other.refusals;
    }
}
