//! `stubborn sim --replicas`, `--groups` and `--completions`: services that outlive their servers, in the
//! simulated world.

use std::time::Instant;

use serde_json::{Value, json};
use stubborn_sim::{
    Batch, Counts, Failure, Report, explore_completion_seeds, explore_group_seeds,
    explore_node_seeds, simulate_completions, simulate_group, simulate_nodes,
};

use super::{Args, RUNS_THAT_REACH_EVERY_RACE, broken, check_written, create, progress, seconds};
use crate::error::{Error, Exit};
use crate::output::{Output, Style};

/// Which scenario.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Consensus alone.
    Replicas,
    /// Whole nodes with their clients.
    Groups,
    /// Servers that share a database, with their clients.
    Completions,
}

impl Kind {
    fn flag(self) -> &'static str {
        match self {
            Self::Replicas => "--replicas ",
            Self::Groups => "--groups ",
            Self::Completions => "--completions ",
        }
    }
}

pub(super) fn run(kind: Kind, args: &Args, out: &Output) -> Result<(), Error> {
    match args.seed {
        Some(seed) => replay(kind, seed, args, out),
        None => explore(kind, args, out),
    }
}

fn replay(kind: Kind, seed: u64, args: &Args, out: &Output) -> Result<(), Error> {
    let writer = args.trace.as_deref().map(create).transpose()?;
    match kind {
        Kind::Replicas => tell_run(kind, simulate_group(seed, writer, None), args, out),
        Kind::Groups => tell_run(kind, simulate_nodes(seed, writer), args, out),
        Kind::Completions => tell_run(kind, simulate_completions(seed, writer), args, out),
    }
}

fn tell_run<C: Counts>(
    kind: Kind,
    result: Result<(Report, C), Failure>,
    args: &Args,
    out: &Output,
) -> Result<(), Error> {
    let (report, counts) = result.map_err(|failure| broken(&failure, kind.flag()))?;
    check_written(&report, args.trace.as_deref())?;
    let seed = report.seed;
    out.json(&json!({
        "seed": seed,
        "trace_hash": format!("{:016x}", report.trace_hash),
        "events": report.events,
        "simulated_s": report.simulated.as_secs_f64(),
        "counts": to_json(&counts),
    }));
    out.line(format_args!(
        "seed {seed}: every invariant held in {} of simulated time; trace hash {:016x}",
        seconds(report.simulated),
        report.trace_hash
    ));
    out.line(line(&counts));
    Ok(())
}

fn explore(kind: Kind, args: &Args, out: &Output) -> Result<(), Error> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let (first, runs, threads) = (args.first, args.runs, args.threads.unwrap_or_else(cores));
    let bar = progress(args.runs, out);
    let progress = |done| bar.set_position(done);
    let start = Instant::now();
    match kind {
        Kind::Replicas => {
            let batch = explore_group_seeds(first, runs, threads, None, progress);
            bar.finish_and_clear();
            tell_batch(kind, &batch, start, args, out)
        }
        Kind::Groups => {
            let batch = explore_node_seeds(first, runs, threads, progress);
            bar.finish_and_clear();
            tell_batch(kind, &batch, start, args, out)
        }
        Kind::Completions => {
            let batch = explore_completion_seeds(first, runs, threads, progress);
            bar.finish_and_clear();
            tell_batch(kind, &batch, start, args, out)
        }
    }
}

fn tell_batch<C: Counts>(
    kind: Kind,
    batch: &Batch<C>,
    start: Instant,
    args: &Args,
    out: &Output,
) -> Result<(), Error> {
    if let Some(failure) = &batch.failure {
        return Err(broken(failure, kind.flag()));
    }
    out.json(&json!({
        "runs": batch.runs,
        "simulated_s": batch.simulated.as_secs_f64(),
        "counts": to_json(&batch.counts),
    }));
    let good = out.paint(Style::Good, format_args!("{} runs kept every invariant", batch.runs));
    out.line(format_args!(
        "{good}: {} of simulated time in {}",
        seconds(batch.simulated),
        seconds(start.elapsed())
    ));
    out.line(line(&batch.counts));
    let missing = batch.missing();
    if args.runs >= RUNS_THAT_REACH_EVERY_RACE && !missing.is_empty() {
        let missing = missing.join(", ");
        let message = format!("these were never met, so the batch proves little: {missing}");
        return Err(Error::new(Exit::Failed, message));
    }
    Ok(())
}

fn to_json(counts: &impl Counts) -> Value {
    counts.named().map(|(name, count)| (name.replace(' ', "_"), Value::from(count))).collect()
}

fn line(counts: &impl Counts) -> String {
    counts.named().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
