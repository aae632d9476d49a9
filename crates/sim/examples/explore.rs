//! Explores seeds until one breaks a promise: `explore RUNS [FIRST]`, or until each of some promises was
//! broken by one: `explore RUNS [FIRST] breaking PROMISE...`; `explore groups RUNS [FIRST]`
//! for groups of whole nodes, `explore operated RUNS [FIRST]` for those of them whose members an operator
//! changes, `explore completions RUNS [FIRST]` for servers with completion records, with `breaking
//! PROMISE...`, too. Exits with 1 if one did. With the environment variable `TRACE` the first
//! seed alone (of groups, not operated) is run, and its trace written to that file.
//!
//! `stubborn sim` does the same for users; this is for builds with a planted bug.

use std::process::ExitCode;

use stubborn_sim::{Batch, Counts, Failure};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let operated = words.next_if(|word| word == "operated").is_some();
    let groups = words.next_if(|word| word == "groups").is_some();
    let completions = words.next_if(|word| word == "completions").is_some();
    let number = |argument: String| {
        argument.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {argument}"))
    };
    let runs = words.next_if(|word| word != "breaking").map_or(100, number);
    let first = words.next_if(|word| word != "breaking").map_or(0, number);
    let promises: Vec<String> = words.skip(1).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if let Some(path) = std::env::var_os("TRACE") {
        let file = std::fs::File::create(path).expect("a file to write to");
        let trace = Box::new(std::io::BufWriter::new(file));
        let run = if completions {
            stubborn_sim::simulate_completions(first, Some(trace)).map(|(report, _)| report)
        } else if groups || operated {
            stubborn_sim::simulate_nodes(first, Some(trace)).map(|(report, _)| report)
        } else {
            stubborn_sim::simulate(first, Some(trace))
        };
        return match run.map(|report| report.unwritten) {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some(why)) => {
                println!("the trace could not be written: {why}");
                ExitCode::FAILURE
            }
            Err(failure) => {
                println!("{failure}");
                ExitCode::FAILURE
            }
        };
    }
    if !promises.is_empty() {
        let of_completions = |first, runs| {
            stubborn_sim::explore_completion_seeds(first, runs, threads, |_| {}).failure
        };
        let of_servers =
            |first, runs| stubborn_sim::explore_seeds(first, runs, threads, |_| {}).failure;
        return match completions {
            true => break_all(promises, first, first + runs, of_completions),
            false => break_all(promises, first, first + runs, of_servers),
        };
    }
    if completions {
        tell(&stubborn_sim::explore_completion_seeds(first, runs, threads, |_| {}))
    } else if operated {
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

/// Goes on after a seed that broke a promise, until each of `promises` was broken.
fn break_all(
    mut promises: Vec<String>,
    mut first: u64,
    end: u64,
    explore: impl Fn(u64, u64) -> Option<Failure>,
) -> ExitCode {
    while first < end && !promises.is_empty() {
        let Some(failure) = explore(first, end - first) else { break };
        if let Some(index) = promises.iter().position(|wanted| failure.violation.promise == wanted)
        {
            promises.remove(index);
            println!("{failure}");
        }
        first = failure.seed + 1;
    }
    println!("not broken: {promises:?}");
    if promises.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
