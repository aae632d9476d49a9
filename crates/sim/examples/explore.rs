//! Explores seeds until one breaks a promise: `explore RUNS [FIRST]`, and `explore groups RUNS [FIRST]`
//! for groups of whole nodes. Exits with 1 if one did.
//!
//! `stubborn sim` does the same for users; this is for builds with a planted bug.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let groups = words.next_if(|word| word == "groups").is_some();
    let mut arguments = words.map(|argument| {
        argument.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {argument}"))
    });
    let runs = arguments.next().unwrap_or(100);
    let first = arguments.next().unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (runs, failure) = if groups {
        let batch = stubborn_sim::explore_node_seeds(first, runs, threads, |_| {});
        (batch.runs, batch.failure)
    } else {
        let batch = stubborn_sim::explore_seeds(first, runs, threads, |_| {});
        (batch.runs, batch.failure)
    };
    match failure {
        Some(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
        None => {
            println!("{runs} runs kept every promise");
            ExitCode::SUCCESS
        }
    }
}
