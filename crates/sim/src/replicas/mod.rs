//! Groups of replicas in the simulated world: the gate that consensus has to pass.
//!
//! The replicas' frames travel as bare datagrams, which are lost, doubled, delayed and overtaken;
//! their disks lose what was not synced; they crash between any two steps, are paused and cut off,
//! their clocks go wrong, and their members change meanwhile.

mod client;
mod counter;
mod group;
mod invariants;
mod replica;
mod scenario;
mod wire;

use std::io::Write;

pub(crate) use invariants::{History, Operation};

use crate::batch::{Batch, counts, explore_batch, simulate_counting};
use crate::world::{Failure, Report};

/// A mistake that is made on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// What waits for the disk is sent before the disk has it: votes and acknowledgements.
    SendBeforeSync,
    /// A read is answered without asking a majority.
    ReadAlone,
    /// A command that comes twice counts twice.
    ForgetCommands,
}

counts! {
    /// What was met in the runs of groups.
    GroupCounts {
        /// Commands that were answered.
        counted: "commands",
        /// Reads that were answered.
        reads: "reads",
        /// Entries that were applied, over all replicas.
        applied: "entries applied",
        /// Nodes that lost power.
        crashes: "crashes",
        /// Times that all nodes lost power at once.
        all_at_once: "crashes of all at once",
        /// Nodes that were paused.
        pauses: "pauses",
        /// Parts of the group that were cut off.
        partitions: "partitions",
        /// Pairs of nodes that were cut from one another alone.
        partial: "partial partitions",
        /// Snapshots that were sent to laggards and installed.
        snapshots: "snapshots installed",
        /// Changes of members that were proposed.
        member_changes: "member changes",
        /// Leaders that were asked to be succeeded.
        transfers: "leadership transfers",
    }
}

/// Runs the group scenario of one seed, with a mistake if one is to be made.
///
/// # Errors
/// If an invariant was broken, a panic among them.
pub fn simulate_group(
    seed: u64,
    trace: Option<Box<dyn Write + Send>>,
    sabotage: Option<Sabotage>,
) -> Result<(Report, GroupCounts), Failure> {
    simulate_counting(seed, trace, |world| scenario::scenario(world, sabotage))
}

/// Runs the group scenario with `runs` seeds from `first` on, on `threads` threads, until one fails.
/// `progress` is told after each run how many there were.
pub fn explore_group_seeds(
    first: u64,
    runs: u64,
    threads: usize,
    sabotage: Option<Sabotage>,
    progress: impl Fn(u64) + Sync,
) -> Batch<GroupCounts> {
    explore_batch((first, runs), threads, |seed| simulate_group(seed, None, sabotage), progress)
}
