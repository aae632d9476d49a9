//! Which servers have lied. What one of them says of its own calls is worth nothing, and nobody is accused
//! for it; what is promised of all other calls holds.

use std::collections::{BTreeMap, BTreeSet};

use stubborn_core::session::CallId;

use crate::world::HostId;

#[derive(Default)]
pub(crate) struct Lies {
    incarnations: BTreeSet<u64>,
    /// How often a liar has taken the place of a server.
    times: BTreeMap<HostId, u64>,
}

impl Lies {
    /// A process that lies takes the place of a server.
    pub(crate) fn begin(&mut self, server: HostId, incarnation: u64) {
        self.incarnations.insert(incarnation);
        *self.times.entry(server).or_default() += 1;
    }

    /// How often that has happened.
    pub(crate) fn times(&self, server: HostId) -> u64 {
        self.times.get(&server).copied().unwrap_or(0)
    }

    /// Whether this is the memory of a liar.
    pub(crate) fn is_of_one(&self, incarnation: u64) -> bool {
        self.incarnations.contains(&incarnation)
    }

    /// Whether the number is of a session that a liar opened.
    pub(crate) fn told(&self, call: CallId) -> bool {
        self.is_of_one(call.session.incarnation)
    }
}
