//! Servers with completion records in the simulated world: the keeper that ships, at several servers that
//! share a simulated database, and clients that are real client nodes.

mod client;
mod database;
mod ledger;
mod resume;
mod scenario;
mod store;
mod till;
mod trouble;

use std::io::Write;

use crate::batch::{Batch, counts, explore_batch, simulate_counting};
use crate::world::{Failure, Report};

counts! {
    /// What was met in the runs of servers with completion records.
    CompletionCounts {
        /// Calls that clients made.
        begun: "calls",
        /// Handlers that were started.
        runs: "handlers started",
        /// Rows of the application's that were committed.
        effects: "effects",
        /// Calls that were answered with a reply.
        replied: "replies",
        /// Calls that were answered with their handler's status.
        statuses: "statuses",
        /// Calls of which it was told that the reply is not kept.
        not_kept: "replies not kept",
        /// Calls that were proved not to have run.
        not_executed: "proved not executed",
        /// Calls that are lost with their session, which expired.
        lost: "lost with their session",
        /// Calls whose outcome had to be asked for.
        asked: "outcomes asked for",
        /// Calls that a client which was started again had to ask for or make again.
        taken_up: "calls taken up from journals",
        /// Outcomes that another process was told.
        asked_elsewhere: "outcomes told elsewhere",
        /// Statements that did not get to the database.
        unavailable: "statements refused",
        /// Rows that another transaction had locked.
        locked: "rows found locked",
        /// Commits that failed.
        failed_commits: "commits failed",
        /// Commits of which the server did not learn whether they happened.
        unknown_commits: "commits of unknown end",
        /// Commits that happened after the server was told that it is not known.
        late_commits: "late commits",
        /// Transactions that the database ended because nothing happened in them.
        killed_idle: "idle transactions ended",
        /// Servers that were killed while transactions were open.
        killed_mid_call: "servers killed mid-call",
        /// Servers that were stopped while transactions were open, and went on.
        paused_mid_call: "servers stopped mid-call",
        /// Sessions that moved to another server with calls under way.
        moved: "sessions moved with calls under way",
        /// Sessions that were removed, since they had expired.
        removed: "sessions removed",
    }
}

/// Runs the scenario of servers with completion records of one seed.
///
/// # Errors
/// If a promise was broken, a panic among them.
pub fn simulate_completions(
    seed: u64,
    trace: Option<Box<dyn Write + Send>>,
) -> Result<(Report, CompletionCounts), Failure> {
    simulate_counting(seed, trace, scenario::scenario)
}

/// Runs it with `runs` seeds from `first` on, on `threads` threads, until one fails. `progress` is told
/// after each run how many there were.
pub fn explore_completion_seeds(
    first: u64,
    runs: u64,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Batch<CompletionCounts> {
    explore_batch((first, runs), threads, |seed| simulate_completions(seed, None), progress)
}
