//! Groups of whole nodes in the simulated world: the group node that ships and the store that ships,
//! on disks that fail in every way, and clients that are real client nodes.

mod calm;
mod client;
mod cluster;
mod crashing;
mod crowded;
mod cuts;
mod deaths;
mod disk;
mod gate;
mod invariants;
mod ledger;
mod moves;
mod operated;
mod operator;
mod process;
mod scenario;
mod storage;
mod watcher;

use std::io::Write;
use std::time::Duration;

use stubborn_group::replication;

use crate::batch::{Batch, counts, explore_batch, simulate_counting};
use crate::world::{Failure, Report};

pub use calm::CalmCounts;
pub use crowded::CrowdedCounts;
pub use cuts::{Cut, CutCounts};
pub use deaths::DeathCounts;

counts! {
    /// What was met in the runs of groups of nodes.
    NodeCounts {
        /// Commands that were answered.
        counted: "commands",
        /// Commands that were proved not to have run.
        not_executed: "proved not executed",
        /// Of those, the ones that their client was not permitted.
        refused_calls: "not permitted",
        /// Groups whose members came to read a newer version of the group itself.
        newer_groups: "newer forms of sessions",
        /// Commands that are lost with their session, which expired.
        lost: "lost with their session",
        /// Commands that two sessions sent under one id.
        twice: "sent by two sessions",
        /// Commands whose outcome had to be asked for.
        asked: "outcomes asked for",
        /// Changes of registers that were answered.
        puts: "changes of registers",
        /// Clients that were killed.
        client_crashes: "clients killed",
        /// Commands that a client which was started again had to ask for or send again.
        taken_up: "commands taken up from journals",
        /// Copies of journals that a second process was started on.
        copied: "copies of journals used",
        /// Processes that were refused for it.
        refused: "processes refused for a copy",
        /// Sessions that moved to another replica with calls under way.
        moved: "sessions moved with calls under way",
        /// Reads that were answered.
        reads: "reads",
        /// Groups whose nodes came to run a newer version of their commands, one after another.
        upgrades: "upgrades",
        /// Reads that might be answered from an older state.
        stale_reads: "reads of older states",
        /// Messages that those who watch were told.
        watched: "messages watched",
        /// Entries that were applied, over all replicas.
        applied: "entries applied",
        /// Nodes that lost power.
        crashes: "crashes",
        /// Times that all nodes lost power at once.
        all_at_once: "crashes of all at once",
        /// Operations of a disk at which power was lost.
        torn_writes: "power lost at a write",
        /// Disks that were full.
        full_disks: "full disks",
        /// Operations of a disk that failed.
        failed_disks: "failed disks",
        /// Syncs that took long.
        slow_syncs: "slow syncs",
        /// Disks that were damaged while their node was down.
        damaged: "damaged disks",
        /// Of those, the ones that were refused, so that a new node took their node's place.
        replaced: "nodes replaced",
        /// Nodes that were paused.
        pauses: "pauses",
        /// Parts of the group that were cut off.
        partitions: "partitions",
        /// Pairs of nodes that were cut from one another alone.
        partial: "partial partitions",
        /// Snapshots that were taken.
        snapshots: "snapshots",
        /// Snapshots that were sent to laggards and installed.
        installed: "snapshots installed",
        /// Changes of members that were proposed.
        member_changes: "member changes",
        /// Changes of members that an operator ordered.
        ordered: "orders of operators",
        /// Orders that were refused, as they had to be.
        refused_orders: "orders refused",
        /// Nodes that were added by an operator.
        joined: "nodes joined",
        /// Folders that nodes lost while they joined.
        folders_lost: "folders lost while joining",
        /// Nodes that were refused for it.
        folders_refused: "refused for another folder",
        /// Nodes that stopped because the others said that they had left.
        left: "nodes that left",
        /// Nodes that moved to another address.
        relocated: "nodes moved",
        /// Groups none of whose members was at an address that its clients began with.
        all_replaced: "groups at new addresses",
        /// Names of members that were looked up.
        looked_up: "names looked up",
        /// Leaders that were asked to be succeeded.
        transfers: "leadership transfers",
    }
}

impl NodeCounts {
    fn note_write(&mut self, write: &replication::Write) {
        self.snapshots += u64::from(write.compact.is_some());
        self.installed += u64::from(write.snapshot.is_some());
    }
}

/// Runs the scenario of whole nodes of one seed.
///
/// # Errors
/// If a promise was broken, a panic among them.
pub fn simulate_nodes(
    seed: u64,
    trace: Option<Box<dyn Write + Send>>,
) -> Result<(Report, NodeCounts), Failure> {
    simulate_counting(seed, trace, scenario::scenario)
}

/// Runs the scenario of whole nodes with `runs` seeds from `first` on, on `threads` threads, until
/// one fails. `progress` is told after each run how many there were.
pub fn explore_node_seeds(
    first: u64,
    runs: u64,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Batch<NodeCounts> {
    explore_batch((first, runs), threads, |seed| simulate_nodes(seed, None), progress)
}

/// The same with so many of the seeds from `first` on in which an operator changes the members.
pub fn explore_operated_seeds(
    first: u64,
    runs: u64,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Batch<NodeCounts> {
    let seed = |place| scenario::operated_seed(first, place);
    explore_batch((0, runs), threads, |place| simulate_nodes(seed(place), None), progress)
}

/// Runs a group of so many nodes that a cut of the OmniPaxos paper hits.
///
/// # Errors
/// If a promise was broken: among them that the first commit comes within five election timeouts.
pub fn simulate_cut(
    seed: u64,
    cut: Cut,
    nodes: u64,
    trace: Option<Box<dyn Write + Send>>,
) -> Result<(Report, CutCounts), Failure> {
    simulate_counting(seed, trace, |world| cuts::cut(world, cut, nodes))
}

/// The same with `runs` seeds from `first` on, on `threads` threads, until one fails.
pub fn explore_cuts(
    (first, runs): (u64, u64),
    cut: Cut,
    nodes: u64,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Batch<CutCounts> {
    let simulate = |seed| simulate_cut(seed, cut, nodes, None);
    explore_batch((first, runs), threads, simulate, progress)
}

/// Runs a group of so many nodes that nothing ails but a network which loses datagrams with this
/// probability, and counts the elections of which none is needed.
///
/// # Errors
/// If a promise was broken.
pub fn simulate_calm(
    seed: u64,
    nodes: u64,
    loss: f64,
    lasts: Duration,
    trace: Option<Box<dyn Write + Send>>,
) -> Result<(Report, CalmCounts), Failure> {
    simulate_counting(seed, trace, |world| calm::calm(world, nodes, loss, lasts))
}

/// Runs a group of three nodes that answer one read at a time, where many come at once.
///
/// # Errors
/// If a promise was broken.
pub fn simulate_crowded(
    seed: u64,
    lasts: Duration,
    trace: Option<Box<dyn Write + Send>>,
) -> Result<(Report, CrowdedCounts), Failure> {
    simulate_counting(seed, trace, |world| crowded::crowded(world, lasts))
}

/// Runs a group of so many nodes, on a network that loses datagrams with this probability, whose
/// leader dies so many times, and tells how long clients waited for an answer.
///
/// # Errors
/// If a promise was broken.
pub fn simulate_deaths(
    seed: u64,
    nodes: u64,
    loss: f64,
    deaths: u64,
    trace: Option<Box<dyn Write + Send>>,
) -> Result<(Report, DeathCounts), Failure> {
    simulate_counting(seed, trace, |world| deaths::deaths(world, nodes, loss, deaths))
}

/// Runs a group of two nodes that move to other addresses so many times, in turn or together, and lose
/// power then.
///
/// # Errors
/// If a promise was broken.
pub fn simulate_moves(
    seed: u64,
    moves: u64,
    together: bool,
    trace: Option<Box<dyn Write + Send>>,
) -> Result<(Report, NodeCounts), Failure> {
    simulate_counting(seed, trace, |world| moves::moves(world, moves, together))
}
