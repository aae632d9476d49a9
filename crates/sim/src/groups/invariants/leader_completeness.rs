//! What was committed in a term is in the logs of the leaders of all later terms.

use std::collections::BTreeMap;

use stubborn_group::replication::NodeId;

use super::logs::Log;
use super::state_machine_safety::Committed;
use crate::nodes::Broken;

/// Of the leader of each term how many committed entries were looked for in its log.
#[derive(Default)]
pub(super) struct LeaderCompleteness(BTreeMap<u64, usize>);

impl LeaderCompleteness {
    pub(super) fn on_leader(
        &mut self,
        id: NodeId,
        term: u64,
        log: &Log,
        committed: &[Committed],
    ) -> Result<(), Broken> {
        let looked_for = self.0.entry(term).or_default();
        for Committed { entry, within, .. } in &committed[*looked_for..] {
            *looked_for += 1;
            let index = entry.at.index;
            // What a leader of its own or a later term has committed says nothing about this one.
            if *within >= term || index <= log.base.index {
                continue;
            }
            if log.get(index).is_none_or(|own| own.at != entry.at) {
                let what = format!(
                    "{id} leads term {term} without {:?}, which was committed in term {within} at \
                     the latest",
                    entry.at
                );
                return Err(("leader completeness", what));
            }
        }
        Ok(())
    }
}
