//! Cuts groups as the OmniPaxos paper does: `cuts RUNS [FIRST]`. Prints how long the first commit
//! took, on the mean of all seeds; exits with 1 if one took longer than five election timeouts.
//!
//! `cuts calm NODES SECONDS [SEED]` counts the elections of a group that nothing ails but a loss of
//! 30 % of all datagrams.
//!
//! `cuts deaths NODES DEATHS [SEED]` kills leaders at a loss of 20 % and tells how long clients wait.
//!
//! `stubborn sim --groups` does the same for users; this is for builds with a planted bug.

use std::process::ExitCode;
use std::time::Duration;

use stubborn_sim::{Cut, explore_cuts, simulate_calm, simulate_deaths};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let dies = words.next_if(|word| word == "deaths").is_some();
    let calm = words.next_if(|word| word == "calm").is_some();
    let mut numbers =
        words.map(|word| word.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {word}")));
    if dies {
        let nodes = numbers.next().unwrap_or(3);
        let (loss, deaths) = (0.2, numbers.next().unwrap_or(20));
        let seed = numbers.next().unwrap_or(0);
        let trace = std::env::var_os("TRACE").map(|path| {
            let file = std::fs::File::create(path).expect("a file to write to");
            Box::new(std::io::BufWriter::new(file)) as Box<dyn std::io::Write + Send>
        });
        let result = simulate_deaths(seed, nodes, loss, deaths, trace);
        println!("{nodes} nodes, seed {seed}: {:?}", result.map(|(_, counts)| counts));
        return ExitCode::SUCCESS;
    }
    if calm {
        let nodes = numbers.next().unwrap_or(3);
        let lasts = Duration::from_secs(numbers.next().unwrap_or(60));
        let seed = numbers.next().unwrap_or(0);
        let result = simulate_calm(seed, nodes, 0.3, lasts, None);
        println!("{nodes} nodes, seed {seed}: {:?}", result.map(|(_, counts)| counts));
        return ExitCode::SUCCESS;
    }
    let (runs, first) = (numbers.next().unwrap_or(20), numbers.next().unwrap_or(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut fine = true;
    for (cut, nodes) in Cut::ALL.into_iter().flat_map(|cut| [(cut, 3), (cut, 5)]) {
        let batch = explore_cuts((first, runs), cut, nodes, threads, |_| {});
        let mean = batch.counts.first_us / batch.runs.max(1) / 1_000;
        println!("{cut:?} with {nodes} nodes: {} runs, first commit after {mean} ms", batch.runs);
        if let Some(failure) = batch.failure {
            println!("{failure}");
            fine = false;
        }
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
