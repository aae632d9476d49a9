//! The explorer: runs seed after seed and looks for one that breaks a promise.

pub(crate) mod client;
pub(crate) mod faults;
mod hostile;
mod lossy;
mod overload;
mod probe;
mod rolling;
mod scenario;
mod speed;
mod spreading;
mod streaming;
mod unwell;
mod watched;

pub use lossy::{LossyFigures, LossyWork, Resender, measure_lossy};
pub use speed::{Speed, measure_speed};

use std::future::Future;
use std::io::Write;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use stubborn_core::time::Instant;
use stubborn_core::transport::record::Recording;

use crate::batch::{Batch, Counts, explore_batch};
use crate::oracle::{CallCounts, RaceCounts, Violation};
use crate::world::{Failure, Report, Settings, World, run};

/// Runs the explorer's scenario of one seed: every class of failure, in a combination that the seed
/// says.
///
/// # Errors
/// If a promise was broken, a panic among them.
pub fn simulate(seed: u64, trace: Option<Box<dyn Write + Send>>) -> Result<Report, Failure> {
    simulate_recorded(seed, trace, Recording::default())
}

/// The same, and records the connections of all hosts: nothing goes otherwise for it.
///
/// # Errors
/// As of [`simulate`].
pub fn simulate_recorded(
    seed: u64,
    trace: Option<Box<dyn Write + Send>>,
    recording: Recording,
) -> Result<Report, Failure> {
    let mut settings = Settings { trace, ..Settings::new(seed) };
    settings.endpoint.recording = recording;
    caught(seed, || run(settings, scenario::scenario))
}

/// A panic is a broken promise too.
pub(crate) fn caught(
    seed: u64,
    run: impl FnOnce() -> Result<Report, Failure>,
) -> Result<Report, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let violation = Violation::new("no panic", Instant::ZERO, what);
        Err(Failure { seed, violation, trace_hash: 0 })
    })
}

/// What was met in runs of the explorer's scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldCounts {
    /// What became of the calls.
    pub calls: CallCounts,
    /// Which races were met.
    pub races: RaceCounts,
}

impl Counts for WorldCounts {
    fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.races.named().chain([("message of a stream", self.calls.streamed)])
    }
}

impl AddAssign for WorldCounts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.races += other.races;
    }
}

/// Runs the explorer's scenario with `runs` seeds from `first` on, on `threads` threads, until one
/// fails. `progress` is told after each run how many there were.
pub fn explore_seeds(
    first: u64,
    runs: u64,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Batch<WorldCounts> {
    let simulate = |seed| {
        simulate(seed, None).map(|report| {
            let counts = WorldCounts { calls: report.calls, races: report.races };
            (report, counts)
        })
    };
    explore_batch((first, runs), threads, simulate, progress)
}

/// Calls `run_one` with each seed and the number of runs so far, until it says that one failed.
pub(crate) fn each_seed(
    first: u64,
    runs: u64,
    threads: usize,
    run_one: impl Fn(u64, u64) -> bool + Sync,
) {
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(runs) {
                        return;
                    }
                    // Seeds are taken in order: what is lower than a failed one is under way.
                    if !run_one(seed, done.fetch_add(1, Ordering::Relaxed) + 1) {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// Runs a scenario in `seeds` worlds, one for each seed from 0 on. With `STUBBORN_SEED=N` in the
/// environment only that seed runs, and with `STUBBORN_TRACE=FILE` its trace is written.
///
/// # Panics
/// If a run breaks a promise or the scenario panics, after the line that repeats the run was
/// printed.
pub fn explore<F, Fut>(seeds: u64, scenario: F)
where
    F: Fn(World) -> Fut,
    Fut: Future<Output = ()>,
{
    let only = std::env::var("STUBBORN_SEED").ok().map(|seed| {
        seed.parse::<u64>().unwrap_or_else(|_| panic!("STUBBORN_SEED is no number: {seed}"))
    });
    let range = only.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in range {
        let mut settings = Settings::new(seed);
        if let (Some(_), Ok(path)) = (only, std::env::var("STUBBORN_TRACE")) {
            let file = std::fs::File::create(&path)
                .unwrap_or_else(|error| panic!("the trace {path} cannot be written: {error}"));
            settings.trace = Some(Box::new(std::io::BufWriter::new(file)));
        }
        let result = catch_unwind(AssertUnwindSafe(|| run(settings, &scenario)));
        match result {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => panic!("{failure}\n{}", replay_line(seed)),
            Err(panic) => {
                eprintln!("{}", replay_line(seed));
                resume_unwind(panic);
            }
        }
    }
}

fn replay_line(seed: u64) -> String {
    let test = std::thread::current().name().unwrap_or("TEST").to_owned();
    format!("to repeat it: STUBBORN_SEED={seed} cargo test {test}")
}
