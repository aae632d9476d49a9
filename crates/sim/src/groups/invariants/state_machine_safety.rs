//! Two replicas never apply different entries at the same index.

use stubborn_group::replication::{Entry, NodeId};

use super::logs::Log;
use crate::nodes::Broken;

/// The log of the group: what was committed, from the first entry on.
#[derive(Default)]
pub(super) struct StateMachineSafety(Vec<Committed>);

/// An entry that a replica has applied.
pub(super) struct Committed {
    pub(super) entry: Entry,
    by: NodeId,
    /// It was committed in this term or before.
    pub(super) within: u64,
}

impl StateMachineSafety {
    /// A node has applied its log up to `applied`, in this term at the latest.
    pub(super) fn on_applied(
        &mut self,
        id: NodeId,
        log: &mut Log,
        applied: u64,
        term: u64,
    ) -> Result<(), Broken> {
        for index in log.checked..=applied {
            let Some(entry) = log.get(index) else { continue };
            let place = index as usize - 1;
            match self.0.get(place) {
                Some(first) if first.entry != *entry => {
                    let what = format!(
                        "at index {index} {} applied one of term {}, {id} one of term {}",
                        first.by, first.entry.at.term, entry.at.term
                    );
                    return Err(("state machine safety", what));
                }
                Some(_) => {}
                None if place == self.0.len() => {
                    self.0.push(Committed { entry: entry.clone(), by: id, within: term });
                }
                None => {
                    let what = format!("{id} has applied entry {index}, and nobody those before");
                    return Err(("state machine safety", what));
                }
            }
        }
        log.checked = log.checked.max(applied + 1);
        Ok(())
    }

    pub(super) fn entries(&self) -> &[Committed] {
        &self.0
    }
}
