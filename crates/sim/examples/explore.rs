//! Explores seeds until one breaks a promise: `explore RUNS [FIRST]`, and `explore groups RUNS [FIRST]`
//! for groups of whole nodes, `explore operated RUNS [FIRST]` for those of them whose members an operator
//! changes. Exits with 1 if one did. With the environment variable `TRACE` the first
//! seed of groups alone is run, and its trace written to that file.
//!
//! `stubborn sim` does the same for users; this is for builds with a planted bug.

use std::process::ExitCode;

use stubborn_sim::{Batch, Counts};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let operated = words.next_if(|word| word == "operated").is_some();
    let groups = words.next_if(|word| word == "groups").is_some();
    let mut arguments = words.map(|argument| {
        argument.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {argument}"))
    });
    let runs = arguments.next().unwrap_or(100);
    let first = arguments.next().unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if (groups || operated)
        && let Some(path) = std::env::var_os("TRACE")
    {
        let file = std::fs::File::create(path).expect("a file to write to");
        let trace = Box::new(std::io::BufWriter::new(file));
        return match stubborn_sim::simulate_nodes(first, Some(trace)) {
            Ok(_) => ExitCode::SUCCESS,
            Err(failure) => {
                println!("{failure}");
                ExitCode::FAILURE
            }
        };
    }
    if operated {
        tell(&stubborn_sim::explore_operated_seeds(first, runs, threads, |_| {}))
    } else if groups {
        tell(&stubborn_sim::explore_node_seeds(first, runs, threads, |_| {}))
    } else {
        tell(&stubborn_sim::explore_seeds(first, runs, threads, |_| {}))
    }
}

fn tell(batch: &Batch<impl Counts>) -> ExitCode {
    if let Some(failure) = &batch.failure {
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    let counts: Vec<_> =
        batch.counts.named().map(|(name, count)| format!("{name} {count}")).collect();
    println!("{} runs kept every promise: {}", batch.runs, counts.join(", "));
    ExitCode::SUCCESS
}
