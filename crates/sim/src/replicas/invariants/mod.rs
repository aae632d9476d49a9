//! What must hold in every group, one invariant in each file. Names as in the Raft paper, figure 3.

mod leader_completeness;
mod linearizability;
mod state_machine_safety;

use stubborn_group::replication::{Entry, NodeId, Role, Status};

use super::counter::Counter;
use crate::nodes::{Broken, ElectionSafety};

pub(crate) use linearizability::{History, Operation};

/// Watches a group from outside.
#[derive(Default)]
pub(super) struct Invariants {
    elections: ElectionSafety,
    leaders: leader_completeness::LeaderCompleteness,
    machines: state_machine_safety::StateMachineSafety,
    history: linearizability::History,
}

impl Invariants {
    /// A replica has worked.
    pub(super) fn on_status(&mut self, node: NodeId, status: &Status) -> Result<(), Broken> {
        if status.role != Role::Leader {
            return Ok(());
        }
        self.elections.on_leader(node, status.term)?;
        self.leaders.on_leader(node, status)
    }

    /// A replica has applied an entry; this is its state machine afterwards.
    pub(super) fn on_applied(
        &mut self,
        node: NodeId,
        entry: &Entry,
        counter: &Counter,
    ) -> Result<(), Broken> {
        self.leaders.on_committed(entry.at);
        self.machines.on_applied(node, entry, counter.hash())
    }

    /// A client has begun something.
    pub(super) fn begin(&mut self) -> Operation {
        self.history.begin()
    }

    /// A client was told what the counter is after its own command.
    pub(super) fn on_counted(&mut self, operation: &Operation, value: u64) -> Result<(), Broken> {
        self.history.on_counted(operation, value)
    }

    /// A client was told what the counter is.
    pub(super) fn on_read(&mut self, operation: &Operation, value: u64) -> Result<(), Broken> {
        self.history.on_read(operation, value)
    }

    /// All is quiet: the counter is this, and so many commands were answered.
    pub(super) fn at_rest(&self, value: u64) -> Result<(), Broken> {
        self.history.at_rest(value)
    }
}
