//! What is committed is in the logs of all later leaders.

use stubborn_group::replication::{NodeId, Position, Status};

use super::Broken;

#[derive(Default)]
pub(super) struct LeaderCompleteness {
    committed: Position,
}

impl LeaderCompleteness {
    pub(super) fn on_committed(&mut self, at: Position) {
        if at.index > self.committed.index {
            self.committed = at;
        }
    }

    pub(super) fn on_leader(&self, node: NodeId, status: &Status) -> Result<(), Broken> {
        let later = status.term > self.committed.term;
        if !later || status.last.index >= self.committed.index {
            return Ok(());
        }
        let what = format!(
            "{node} leads term {} with a log up to {:?}, but {:?} was committed before",
            status.term, status.last, self.committed
        );
        Err(("leader completeness", what))
    }
}
