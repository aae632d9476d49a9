//! `stubborn sim --replicas` and `--groups`: groups of replicas in the simulated world.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stubborn_sim::{
    Failure, explore_group_seeds, explore_node_seeds, simulate_group, simulate_nodes,
};

use super::{Args, RUNS_THAT_REACH_EVERY_RACE, broken, create, progress, seconds};
use crate::error::{Error, Exit};
use crate::output::{Output, Style};

/// Which scenario.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Consensus alone.
    Replicas,
    /// Whole nodes with their clients.
    Groups,
}

type Counts = Vec<(&'static str, u64)>;

/// What a batch of either scenario was.
struct Batch {
    runs: u64,
    simulated: Duration,
    counts: Counts,
    missing: Vec<&'static str>,
    failure: Option<Failure>,
}

impl Kind {
    fn flag(self) -> &'static str {
        match self {
            Self::Replicas => "--replicas ",
            Self::Groups => "--groups ",
        }
    }

    fn explore(self, args: &Args, threads: usize, progress: impl Fn(u64) + Sync) -> Batch {
        match self {
            Self::Replicas => {
                let batch = explore_group_seeds(args.first, args.runs, threads, None, progress);
                let (counts, missing) = (batch.counts.named().collect(), batch.missing());
                let (runs, simulated) = (batch.runs, batch.simulated);
                Batch { runs, simulated, counts, missing, failure: batch.failure }
            }
            Self::Groups => {
                let batch = explore_node_seeds(args.first, args.runs, threads, progress);
                let (counts, missing) = (batch.counts.named().collect(), batch.missing());
                let (runs, simulated) = (batch.runs, batch.simulated);
                Batch { runs, simulated, counts, missing, failure: batch.failure }
            }
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
    let result = match kind {
        Kind::Replicas => simulate_group(seed, writer, None)
            .map(|(report, counts)| (report, counts.named().collect::<Counts>())),
        Kind::Groups => {
            simulate_nodes(seed, writer).map(|(report, counts)| (report, counts.named().collect()))
        }
    };
    let (report, counts) = result.map_err(|failure| broken(&failure, kind.flag()))?;
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
    let threads = args.threads.unwrap_or_else(cores);
    let bar = progress(args.runs, out);
    let start = Instant::now();
    let batch = kind.explore(args, threads, |done| bar.set_position(done));
    bar.finish_and_clear();
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
    if args.runs >= RUNS_THAT_REACH_EVERY_RACE && !batch.missing.is_empty() {
        let missing = batch.missing.join(", ");
        let message = format!("these were never met, so the batch proves little: {missing}");
        return Err(Error::new(Exit::Failed, message));
    }
    Ok(())
}

fn to_json(counts: &[(&'static str, u64)]) -> Value {
    counts.iter().map(|(name, count)| (name.replace(' ', "_"), Value::from(*count))).collect()
}

fn line(counts: &[(&'static str, u64)]) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
