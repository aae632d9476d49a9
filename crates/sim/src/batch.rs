//! Many runs of one scenario, a seed each, and what was met in them.

use std::future::Future;
use std::io::Write;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::explorer::{caught, each_seed};
use crate::world::{Failure, Report, Settings, World, run};

/// What was met in runs.
pub trait Counts: Copy + Default + AddAssign + Send + 'static {
    /// Each count and its name. A batch in which one of them is zero proves little.
    fn named(&self) -> impl Iterator<Item = (&'static str, u64)>;
}

/// What a batch of runs was.
#[derive(Clone, Debug, Default)]
pub struct Batch<C> {
    /// Runs that kept every promise.
    pub runs: u64,
    /// The world's time that passed in them.
    pub simulated: Duration,
    /// What was met.
    pub counts: C,
    /// The failed run with the lowest seed.
    pub failure: Option<Failure>,
}

impl<C: Counts> Batch<C> {
    /// What no run has met.
    pub fn missing(&self) -> Vec<&'static str> {
        self.counts.named().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    fn add(&mut self, result: Result<(Report, C), Failure>) {
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

/// Runs a scenario of one seed that counts what it meets.
pub(crate) fn simulate_counting<C, F>(
    seed: u64,
    trace: Option<Box<dyn Write + Send>>,
    scenario: impl FnOnce(World) -> F,
) -> Result<(Report, C), Failure>
where
    C: Counts,
    F: Future<Output = C>,
{
    let settings = Settings { trace, ..Settings::new(seed) };
    let counts = Arc::new(Mutex::new(C::default()));
    let result = caught(seed, || {
        let counts = Arc::clone(&counts);
        run(settings, move |world| async move {
            let counted = scenario(world).await;
            *counts.lock().unwrap_or_else(PoisonError::into_inner) = counted;
        })
    });
    let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
    result.map(|report| (report, counts))
}

/// Runs `runs` seeds from `first` on, on `threads` threads, until one fails. `progress` is told after
/// each run how many there were.
pub(crate) fn explore_batch<C: Counts>(
    (first, runs): (u64, u64),
    threads: usize,
    simulate: impl Fn(u64) -> Result<(Report, C), Failure> + Sync,
    progress: impl Fn(u64) + Sync,
) -> Batch<C> {
    let batch = Mutex::new(Batch::default());
    each_seed(first, runs, threads, |seed, done| {
        let result = simulate(seed);
        let fine = result.is_ok();
        batch.lock().unwrap_or_else(PoisonError::into_inner).add(result);
        progress(done);
        fine
    });
    batch.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a struct of counts: each field with what it counts and the name that is shown.
macro_rules! counts {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $shown:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $crate::batch::Counts for $name {
            fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($shown, self.$field),)*].into_iter()
            }
        }

        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

pub(crate) use counts;
