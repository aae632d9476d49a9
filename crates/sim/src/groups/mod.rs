//! Groups of whole nodes in the simulated world: the group node that ships on disks that lose what
//! was not synced, and clients that are real client nodes.

mod client;
mod cluster;
mod judge;
mod ledger;
mod process;
mod scenario;

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use stubborn_group::replication;

use crate::world::{Failure, Report, Settings, run};

/// What was met in the runs of groups of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Commands that were answered.
    pub counted: u64,
    /// Commands that were proved not to have run.
    pub not_executed: u64,
    /// Commands whose outcome had to be asked for.
    pub asked: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Entries that were applied, over all replicas.
    pub applied: u64,
    /// Nodes that lost power.
    pub crashes: u64,
    /// Times that all nodes lost power at once.
    pub all_at_once: u64,
    /// Nodes that were paused.
    pub pauses: u64,
    /// Parts of the group that were cut off.
    pub partitions: u64,
    /// Pairs of nodes that were cut from one another alone.
    pub partial: u64,
    /// Snapshots that were taken.
    pub snapshots: u64,
    /// Snapshots that were sent to laggards and installed.
    pub installed: u64,
    /// Changes of members that were proposed.
    pub member_changes: u64,
    /// Leaders that were asked to be succeeded.
    pub transfers: u64,
}

impl NodeCounts {
    /// Each count and its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("commands", self.counted),
            ("proved not executed", self.not_executed),
            ("outcomes asked for", self.asked),
            ("reads", self.reads),
            ("entries applied", self.applied),
            ("crashes", self.crashes),
            ("crashes of all at once", self.all_at_once),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("partial partitions", self.partial),
            ("snapshots", self.snapshots),
            ("snapshots installed", self.installed),
            ("member changes", self.member_changes),
            ("leadership transfers", self.transfers),
        ]
        .into_iter()
    }

    fn note_write(&mut self, write: &replication::Write) {
        self.snapshots += u64::from(write.compact.is_some());
        self.installed += u64::from(write.snapshot.is_some());
    }
}

impl std::ops::AddAssign for NodeCounts {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.not_executed += other.not_executed;
        self.asked += other.asked;
        self.reads += other.reads;
        self.applied += other.applied;
        self.crashes += other.crashes;
        self.all_at_once += other.all_at_once;
        self.pauses += other.pauses;
        self.partitions += other.partitions;
        self.partial += other.partial;
        self.snapshots += other.snapshots;
        self.installed += other.installed;
        self.member_changes += other.member_changes;
        self.transfers += other.transfers;
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
    let settings = Settings { trace, ..Settings::new(seed) };
    let counts = Arc::new(Mutex::new(NodeCounts::default()));
    let result = crate::explorer::caught(seed, || {
        let counts = Arc::clone(&counts);
        run(settings, move |world| async move {
            let counted = scenario::scenario(world).await;
            *counts.lock().unwrap_or_else(PoisonError::into_inner) = counted;
        })
    });
    let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
    result.map(|report| (report, counts))
}

/// What a batch of runs was.
#[derive(Clone, Debug, Default)]
pub struct NodeBatch {
    /// Runs that kept every promise.
    pub runs: u64,
    /// The world's time that passed in them.
    pub simulated: std::time::Duration,
    /// What was met.
    pub counts: NodeCounts,
    /// The failed run with the lowest seed.
    pub failure: Option<Failure>,
}

/// Runs the scenario of whole nodes with `runs` seeds from `first` on, on `threads` threads, until
/// one fails. `progress` is told after each run how many there were.
pub fn explore_node_seeds(
    first: u64,
    runs: u64,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> NodeBatch {
    let batch = Mutex::new(NodeBatch::default());
    crate::explorer::each_seed(first, runs, threads, |seed, done| {
        let result = simulate_nodes(seed, None);
        let fine = result.is_ok();
        batch.lock().unwrap_or_else(PoisonError::into_inner).add(result);
        progress(done);
        fine
    });
    batch.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl NodeBatch {
    /// What no run has met.
    pub fn missing(&self) -> Vec<&'static str> {
        self.counts.named().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    fn add(&mut self, result: Result<(Report, NodeCounts), Failure>) {
        match result {
            Ok((report, counts)) => {
                self.runs += 1;
                self.simulated += report.simulated;
                self.counts += counts;
            }
            Err(failure) => {
                if self.failure.as_ref().is_none_or(|other| failure.seed < other.seed) {
                    self.failure = Some(failure);
                }
            }
        }
    }
}
