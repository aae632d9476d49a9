//! `stubborn sim`

mod bad_links;
mod replicas;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use replicas::Kind;
use serde_json::{Value, json};
use stubborn_sim::{Batch, CallCounts, Failure, Report, WorldCounts};

use crate::error::{Error, Exit};
use crate::output::{Output, Style};

/// Run the system in a simulated world where everything goes wrong, and check every promise
///
/// Time is virtual, and everything follows from one seed: a run that breaks a promise can be
/// repeated exactly. Without options a hundred seeds run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run this one seed
    #[arg(long, value_name = "N", conflicts_with_all = ["runs", "first", "bench"])]
    seed: Option<u64>,
    /// Write what happened in the run, a line for each event
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,
    /// Write the connections of the run as qlog, a file for each side of one in this folder
    #[arg(long, value_name = "DIR", requires = "seed", conflicts_with_all = ["replicas", "groups", "completions"])]
    qlog: Option<PathBuf>,
    /// Run so many seeds
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "bench")]
    runs: u64,
    /// The first of the seeds
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "bench")]
    first: u64,
    /// Seeds that run at the same time; by default one for each core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Measure how fast a world of five hosts at 5 % loss runs
    #[arg(long)]
    bench: bool,
    /// Run groups of replicas instead of servers: consensus on disks that lose what was not synced
    #[arg(long, conflicts_with = "bench")]
    replicas: bool,
    /// Run groups of whole nodes and their clients: replicated services, with exactly once checked
    #[arg(long, conflicts_with_all = ["bench", "replicas"])]
    groups: bool,
    /// Run servers that keep their sessions in a database that they share, and their clients: exactly once
    /// without consensus
    #[arg(long, conflicts_with_all = ["bench", "replicas", "groups"])]
    completions: bool,
    /// With --groups: let groups be for so many hours of simulated time at 30 % loss, and count the
    /// elections, of which none is needed; and how long clients wait when leaders die at 20 % loss
    #[arg(long, value_name = "HOURS", requires = "groups", conflicts_with_all = ["seed", "cuts"])]
    calm: Option<f64>,
    /// With --groups: cut links between nodes so that most of them cannot speak to most others
    #[arg(long, requires = "groups", conflicts_with = "seed")]
    cuts: bool,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    if args.bench {
        return bench(out);
    }
    if args.replicas {
        return replicas::run(Kind::Replicas, &args, out);
    }
    if let Some(hours) = args.calm {
        return bad_links::calm(hours, &args, out);
    }
    if args.cuts {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        return bad_links::cuts(&args, args.threads.unwrap_or_else(cores), out);
    }
    if args.groups {
        return replicas::run(Kind::Groups, &args, out);
    }
    if args.completions {
        return replicas::run(Kind::Completions, &args, out);
    }
    match args.seed {
        Some(seed) => replay(seed, args.trace.as_deref(), args.qlog.as_deref(), out),
        None => explore(&args, out),
    }
}

fn replay(seed: u64, trace: Option<&Path>, qlog: Option<&Path>, out: &Output) -> Result<(), Error> {
    let writer = trace.map(create).transpose()?;
    let made = |path: &Path| {
        let folder = stubborn_sim::QlogFolder::of_simulation(path);
        folder.map_err(|error| Error::io("make", path, &error))
    };
    let recording = qlog.map(made).transpose()?.map(|folder| folder.recording());
    let report = stubborn_sim::simulate_recorded(seed, writer, recording.unwrap_or_default())
        .map_err(|failure| broken(&failure, ""))?;
    check_written(&report, trace)?;
    out.json(&to_json(&report));
    out.line(format_args!(
        "seed {seed}: every promise was kept in {} of simulated time; trace hash {:016x}",
        seconds(report.simulated),
        report.trace_hash
    ));
    out.line(calls_line(&report.calls));
    if let Some(path) = trace {
        out.line(format_args!("{} events are in {}", report.events, path.display()));
    }
    Ok(())
}

fn create(path: &Path) -> Result<Box<dyn Write + Send>, Error> {
    let file = File::create(path).map_err(|error| Error::io("write", path, &error))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// A trace that could not be written says nothing about the run, which kept every promise.
fn check_written(report: &Report, trace: Option<&Path>) -> Result<(), Error> {
    let (Some(kind), Some(path)) = (report.unwritten, trace) else { return Ok(()) };
    Err(Error::io("write", path, &kind.into()).with("seed", report.seed))
}

fn explore(args: &Args, out: &Output) -> Result<(), Error> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or_else(cores);
    let bar = progress(args.runs, out);
    let start = Instant::now();
    let batch = stubborn_sim::explore_seeds(args.first, args.runs, threads, |done| {
        bar.set_position(done);
    });
    bar.finish_and_clear();
    if let Some(failure) = &batch.failure {
        return Err(broken(failure, ""));
    }
    let missing = batch.missing();
    summary(&batch, start.elapsed(), out);
    // A short batch cannot be expected to reach every race.
    if args.runs >= RUNS_THAT_REACH_EVERY_RACE && !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Error::new(
            Exit::Failed,
            format!("these races were never reached, so the batch proves little: {missing}"),
        ));
    }
    Ok(())
}

/// With so many runs a race that is never reached is a mistake in the simulator.
const RUNS_THAT_REACH_EVERY_RACE: u64 = 100;

fn progress(runs: u64, out: &Output) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(runs).with_style(style)
}

fn summary(batch: &Batch<WorldCounts>, took: Duration, out: &Output) {
    let races: serde_json::Map<String, Value> = batch
        .counts
        .races
        .named()
        .map(|(name, count)| (name.replace(' ', "_"), count.into()))
        .collect();
    out.json(&json!({
        "runs": batch.runs,
        "simulated_s": batch.simulated.as_secs_f64(),
        "calls": calls_json(&batch.counts.calls),
        "races": races,
    }));
    let good = out.paint(Style::Good, format_args!("{} runs kept every promise", batch.runs));
    out.line(format_args!(
        "{good}: {} of simulated time in {}",
        seconds(batch.simulated),
        seconds(took)
    ));
    out.line(calls_line(&batch.counts.calls));
    let reached: Vec<String> =
        batch.counts.races.named().map(|(name, count)| format!("{name} {count}")).collect();
    out.line(format_args!("races reached: {}", reached.join(", ")));
}

fn bench(out: &Output) -> Result<(), Error> {
    let speed = stubborn_sim::measure_speed().map_err(|failure| broken(&failure, ""))?;
    let rate = speed.simulated.as_secs_f64() / speed.took.as_secs_f64();
    out.json(&json!({
        "simulated_s": speed.simulated.as_secs_f64(),
        "took_s": speed.took.as_secs_f64(),
        "simulated_s_per_s": rate,
        "calls": speed.calls,
        "datagrams": speed.datagrams,
    }));
    out.line(format_args!(
        "{} of a world of 5 hosts at 5 % loss in {}: {rate:.0} simulated seconds per second on one \
         core ({} calls, {} datagrams)",
        seconds(speed.simulated),
        seconds(speed.took),
        speed.calls,
        speed.datagrams
    ));
    Ok(())
}

fn broken(failure: &Failure, world: &str) -> Error {
    let seed = failure.seed;
    Error::new(Exit::Failed, failure.to_string())
        .with_hint(format!("repeat it with: stubborn sim {world}--seed {seed} --trace FILE"))
        .with("seed", failure.seed)
        .with("promise", failure.violation.promise)
}

fn to_json(report: &Report) -> Value {
    json!({
        "seed": report.seed,
        "trace_hash": format!("{:016x}", report.trace_hash),
        "events": report.events,
        "simulated_s": report.simulated.as_secs_f64(),
        "calls": calls_json(&report.calls),
    })
}

fn calls_json(calls: &CallCounts) -> Value {
    json!({
        "begun": calls.begun,
        "runs": calls.runs,
        "executed": calls.executed,
        "not_executed": calls.not_executed,
        "lost": calls.lost,
        "unanswered": calls.unanswered,
    })
}

fn calls_line(calls: &CallCounts) -> String {
    format!(
        "{} calls: {} executed, {} not executed, {} lost with their server's memory, {} unanswered \
         reads; the others were given up by their callers",
        calls.begun, calls.executed, calls.not_executed, calls.lost, calls.unanswered
    )
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
