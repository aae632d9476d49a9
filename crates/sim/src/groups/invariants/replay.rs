//! The log alone says everything: applied anew from its first entry, without a snapshot, it gives the
//! state that the replicas have.

use stubborn_group::replication::{Ballot, Durable, Members, NodeId};

use super::super::ledger::Ledger;
use super::state_machine_safety::Committed;
use crate::nodes::Broken;

/// Applies what was committed up to `index`; `apply` starts a replica from it.
pub(super) fn replay(
    committed: &[Committed],
    index: u64,
    apply: impl FnOnce(Durable) -> Result<(Vec<u8>, Ledger), String>,
) -> Result<(Vec<u8>, Ledger), Broken> {
    let entries: Vec<_> =
        committed.iter().take(index as usize).map(|known| known.entry.clone()).collect();
    let term = entries.last().map_or(0, |entry| entry.at.term);
    if entries.len() as u64 != index {
        let what = format!("of {index} entries only {} were seen", entries.len());
        return Err(("the log says it all", what));
    }
    let ballot = Ballot { term, vote: None, committed: index };
    let members = Members::of(NodeId::new(u64::MAX));
    let durable = Durable { ballot, entries, ..Durable::new_group(members) };
    apply(durable).map_err(|what| ("the log says it all", what))
}
