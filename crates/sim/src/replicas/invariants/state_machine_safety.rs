//! Two replicas never apply different entries at the same index, and are the same after it.

use std::collections::BTreeMap;

use stubborn_group::replication::{Entry, NodeId};
use xxhash_rust::xxh3::xxh3_64;

use super::Broken;

#[derive(Default)]
pub(super) struct StateMachineSafety {
    /// By index: term, hash of the entry, hash of the machine after it.
    applied: BTreeMap<u64, (u64, u64, u64)>,
}

impl StateMachineSafety {
    pub(super) fn on_applied(
        &mut self,
        node: NodeId,
        entry: &Entry,
        machine: u64,
    ) -> Result<(), Broken> {
        let seen = (entry.at.term, xxh3_64(&entry.data), machine);
        let first = *self.applied.entry(entry.at.index).or_insert(seen);
        if first == seen {
            return Ok(());
        }
        let what = format!("{node} applied at {:?} what others did not", entry.at);
        Err(("state machine safety", what))
    }
}
