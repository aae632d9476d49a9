//! Explores seeds until one breaks a promise: `explore RUNS [FIRST]`. Exits with 1 if one did.
//!
//! `stubborn sim` does the same for users; this is for builds with a planted bug.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| {
        argument.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {argument}"))
    });
    let runs = arguments.next().unwrap_or(100);
    let first = arguments.next().unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let batch = stubborn_sim::explore_seeds(first, runs, threads, |_| {});
    match batch.failure {
        Some(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
        None => {
            println!("{} runs kept every promise", batch.runs);
            ExitCode::SUCCESS
        }
    }
}
