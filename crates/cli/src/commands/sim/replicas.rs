//! `stubborn sim --replicas`: groups of replicas in the simulated world.

use std::time::Instant;

use serde_json::{Value, json};
use stubborn_sim::{GroupCounts, explore_group_seeds, simulate_group};

use super::{Args, RUNS_THAT_REACH_EVERY_RACE, broken, create, progress, seconds};
use crate::error::{Error, Exit};
use crate::output::{Output, Style};

pub(super) fn run(args: &Args, out: &Output) -> Result<(), Error> {
    match args.seed {
        Some(seed) => replay(seed, args, out),
        None => explore(args, out),
    }
}

fn replay(seed: u64, args: &Args, out: &Output) -> Result<(), Error> {
    let writer = args.trace.as_deref().map(create).transpose()?;
    let (report, counts) =
        simulate_group(seed, writer, None).map_err(|failure| broken(&failure, "--replicas "))?;
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

fn explore(args: &Args, out: &Output) -> Result<(), Error> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or_else(cores);
    let bar = progress(args.runs, out);
    let start = Instant::now();
    let batch = explore_group_seeds(args.first, args.runs, threads, None, |done| {
        bar.set_position(done);
    });
    bar.finish_and_clear();
    if let Some(failure) = &batch.failure {
        return Err(broken(failure, "--replicas "));
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

fn to_json(counts: &GroupCounts) -> Value {
    counts.named().map(|(name, count)| (name.replace(' ', "_"), Value::from(count))).collect()
}

fn line(counts: &GroupCounts) -> String {
    counts.named().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
