//! What must hold of a group of whole nodes and its clients, one invariant in each file. Names as in
//! the Raft paper, figure 3, where it has them.

mod durability;
mod exactly_once;
mod leader_completeness;
mod linearizability;
mod log_matching;
mod logs;
pub(super) mod permitted;
mod replay;
mod same_state;
mod staleness;
mod state_machine_safety;
mod watched;

use stubborn_core::time::{Duration, Instant};
use stubborn_group::replica::Standing;
use stubborn_group::replication::{Durable, NodeId, Role, Write};

pub(super) use durability::Promised;
pub(super) use linearizability::Begun;

use super::ledger::{Command, Ledger};
use crate::nodes::{Broken, ElectionSafety};
use crate::replicas::History;

/// Watches a group and its clients from outside.
#[derive(Default)]
pub(super) struct Invariants {
    pub(super) history: History,
    pub(super) registers: linearizability::Registers,
    fates: exactly_once::ExactlyOnce,
    logs: logs::Logs,
    elections: ElectionSafety,
    matching: log_matching::LogMatching,
    committed: state_machine_safety::StateMachineSafety,
    leaders: leader_completeness::LeaderCompleteness,
    states: same_state::SameState,
    told: staleness::Staleness,
    pub(super) watched: watched::Watched,
}

impl Invariants {
    /// A node starts from what its disk holds.
    pub(super) fn on_start(&mut self, id: NodeId, durable: &Durable) -> Result<(), Broken> {
        self.logs.start(id, durable);
        for entry in &durable.entries {
            self.matching.on_entry(id, entry, self.logs.term_before(id, entry.at.index))?;
        }
        Ok(())
    }

    /// A node hands this to its disk.
    pub(super) fn on_write(&mut self, id: NodeId, write: &Write) -> Result<(), Broken> {
        self.logs.write(id, write);
        for entry in &write.entries {
            self.matching.on_entry(id, entry, self.logs.term_before(id, entry.at.index))?;
        }
        Ok(())
    }

    /// A node has worked, and stands so.
    pub(super) fn on_standing(&mut self, id: NodeId, standing: &Standing) -> Result<(), Broken> {
        let status = &standing.consensus;
        self.committed.on_applied(id, self.logs.of_mut(id), standing.applied, status.term)?;
        if status.role == Role::Leader {
            self.elections.on_leader(id, status.term)?;
            self.leaders.on_leader(id, status.term, self.logs.of(id), self.committed.entries())?;
        }
        Ok(())
    }

    /// A replica has applied entries up to `index`, and its state is `image`.
    pub(super) fn on_image(&mut self, id: NodeId, index: u64, image: &[u8]) -> Result<(), Broken> {
        self.states.on_image(id, index, image)
    }

    /// A client was told that its command made the count this.
    pub(super) fn counted(&mut self, command: Command, count: u64) -> Result<(), Broken> {
        self.fates.counted(command, count)
    }

    /// A client was told that its command did not run and never will.
    pub(super) fn not_executed(&mut self, command: Command) -> Result<(), Broken> {
        self.fates.not_executed(command)
    }

    /// A client was told that the session of its command is gone.
    pub(super) fn lost(&mut self, command: Command) -> Result<(), Broken> {
        self.fates.lost(command, self.committed.entries().len() as u64)
    }

    /// A client was told this count.
    pub(super) fn saw(&mut self, now: Instant, count: u64) {
        self.told.saw(now, count);
    }

    /// A client that had been told `before` was told this count by a read that might be of an older
    /// state.
    pub(super) fn on_session_read(&self, before: u64, count: u64) -> Result<(), Broken> {
        staleness::Staleness::on_session_read(before, count)
    }

    /// The same read began at `began`, and asked for a state that is at most so old.
    pub(super) fn on_stale_read(
        &self,
        began: Instant,
        at_most: Duration,
        count: u64,
    ) -> Result<(), Broken> {
        self.told.on_stale_read(began, at_most, count)
    }

    /// All is quiet, and the replicas have this ledger and this state after this entry.
    pub(super) fn at_rest(
        &self,
        ledger: &Ledger,
        index: u64,
        replay: impl FnOnce(Durable) -> Result<(Vec<u8>, Ledger), String>,
    ) -> Result<(), Broken> {
        self.registers.at_rest()?;
        self.fates.at_rest(ledger)?;
        self.watched.at_rest(|command| Some(ledger.lines.get(command)?.count))?;
        let (image, again) = replay::replay(self.committed.entries(), index, replay)?;
        self.states.is_known(index, &image)?;
        self.fates.at_rest(&again)
    }
}
