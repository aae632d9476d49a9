//! At most one leader is elected in a term.

use std::collections::BTreeMap;

use stubborn_group::replication::NodeId;

use super::Broken;

#[derive(Default)]
pub(crate) struct ElectionSafety(BTreeMap<u64, NodeId>);

impl ElectionSafety {
    pub(crate) fn on_leader(&mut self, node: NodeId, term: u64) -> Result<(), Broken> {
        let leader = *self.0.entry(term).or_insert(node);
        if leader == node {
            return Ok(());
        }
        Err(("election safety", format!("{leader} and {node} both lead term {term}")))
    }
}
