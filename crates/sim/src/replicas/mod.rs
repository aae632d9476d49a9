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
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use invariants::History;

use crate::world::{Failure, Report, Settings, run};

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

/// What was met in the runs of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Commands that were answered.
    pub counted: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Entries that were applied, over all replicas.
    pub applied: u64,
    /// Nodes that lost power.
    pub crashes: u64,
    /// Nodes that were paused.
    pub pauses: u64,
    /// Parts of the group that were cut off.
    pub partitions: u64,
    /// Snapshots that were sent to laggards and installed.
    pub snapshots: u64,
    /// Changes of members that were proposed.
    pub member_changes: u64,
    /// Leaders that were asked to be succeeded.
    pub transfers: u64,
    pub(crate) clients_done: u64,
}

impl GroupCounts {
    /// Each count and its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("commands", self.counted),
            ("reads", self.reads),
            ("entries applied", self.applied),
            ("crashes", self.crashes),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("snapshots installed", self.snapshots),
            ("member changes", self.member_changes),
            ("leadership transfers", self.transfers),
        ]
        .into_iter()
    }
}

impl std::ops::AddAssign for GroupCounts {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.reads += other.reads;
        self.applied += other.applied;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.partitions += other.partitions;
        self.snapshots += other.snapshots;
        self.member_changes += other.member_changes;
        self.transfers += other.transfers;
        self.clients_done += other.clients_done;
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
    let settings = Settings { trace, ..Settings::new(seed) };
    let counts = Arc::new(Mutex::new(GroupCounts::default()));
    let result = crate::explorer::caught(seed, || {
        let counts = Arc::clone(&counts);
        run(settings, move |world| async move {
            let counted = scenario::scenario(world, sabotage).await;
            *counts.lock().unwrap_or_else(PoisonError::into_inner) = counted;
        })
    });
    let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
    result.map(|report| (report, counts))
}

/// What a batch of group runs was.
#[derive(Clone, Debug, Default)]
pub struct GroupBatch {
    /// Runs that kept every invariant.
    pub runs: u64,
    /// The world's time that passed in them.
    pub simulated: std::time::Duration,
    /// What was met.
    pub counts: GroupCounts,
    /// The failed run with the lowest seed.
    pub failure: Option<Failure>,
}

/// Runs the group scenario with `runs` seeds from `first` on, on `threads` threads, until one fails.
/// `progress` is told after each run how many there were.
pub fn explore_group_seeds(
    first: u64,
    runs: u64,
    threads: usize,
    sabotage: Option<Sabotage>,
    progress: impl Fn(u64) + Sync,
) -> GroupBatch {
    let batch = Mutex::new(GroupBatch::default());
    crate::explorer::each_seed(first, runs, threads, |seed, done| {
        let result = simulate_group(seed, None, sabotage);
        let fine = result.is_ok();
        batch.lock().unwrap_or_else(PoisonError::into_inner).add(result);
        progress(done);
        fine
    });
    batch.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl GroupBatch {
    /// What no run has met.
    pub fn missing(&self) -> Vec<&'static str> {
        self.counts.named().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    fn add(&mut self, result: Result<(Report, GroupCounts), Failure>) {
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
