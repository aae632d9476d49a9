//! What a call costs: a client node and a server node in one process, no sockets, virtual time, the
//! TLS that ships. 64 bytes, or `--body` of them in datagrams of at most `--datagram` bytes, are echoed
//! with a fixed number of calls in flight, over one connection or over `--connections` in turn, of
//! whose datagrams each side takes all at once or `--batch`.
//!
//! ```text
//! cargo run --release -p stubborn-core --example per_call                    time and allocations
//! cargo run --release -p stubborn-core --example per_call -- --instructions  callgrind counts
//! cargo run --release -p stubborn-core --example per_call -- --only 128 --seconds 5   for a profiler
//! ```
//!
//! With `--check` the counts are compared with the baseline beside this file, with `--bless` they
//! become it.

mod allocations;
mod instructions;
mod pair;

use std::time::{Duration, Instant};

use pair::{Load, PHASES, Pair};

/// Calls in flight.
const LEVELS: [usize; 4] = [1, 16, 128, 1024];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value")).as_str())
    };
    let number = |name: &str| value(name).map(|text| text.parse::<usize>().expect("a number"));
    let load = |in_flight| Load {
        in_flight,
        body: number("--body").unwrap_or(64),
        datagram: number("--datagram").unwrap_or(1_472),
        connections: number("--connections").unwrap_or(1),
        batch: number("--batch").unwrap_or(usize::MAX),
        one_by_one: arguments.iter().any(|argument| argument == "--one-by-one"),
    };
    if let Some(calls) = number("--calls") {
        let in_flight = number("--only").expect("--calls goes with --only");
        return count_for_callgrind(load(in_flight), calls);
    }
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    if given("--check") {
        std::process::exit(instructions::check());
    }
    if given("--bless") {
        std::process::exit(instructions::bless());
    }
    if given("--instructions") {
        std::process::exit(instructions::print());
    }
    let seconds = Duration::from_secs(number("--seconds").unwrap_or(1) as u64);
    let levels = number("--only").map_or(LEVELS.to_vec(), |level| vec![level]);
    print_times(levels.into_iter().map(load), seconds);
}

/// What callgrind watches: it collects in the function of one phase only.
fn count_for_callgrind(load: Load, calls: usize) {
    let mut pair = Pair::new(load);
    pair.warm_up();
    pair.run(calls);
}

fn print_times(loads: impl Iterator<Item = Load>, time: Duration) {
    println!("echo, both nodes in one process; ns and allocations per call");
    print!("{:>9} {:>10} {:>8}", "in flight", "calls/s", "both ns");
    PHASES.iter().for_each(|phase| print!("  {:>22}", phase.name()));
    println!("{:>10}", "packets");
    for load in loads {
        let in_flight = load.in_flight;
        let mut pair = Pair::new(load);
        pair.warm_up();
        let (end, mut calls) = (Instant::now() + time, 0);
        let packets = pair.packets;
        while Instant::now() < end {
            calls += pair.run(in_flight.max(100));
        }
        let per_call = |time: Duration| time.as_secs_f64() * 1e9 / calls as f64;
        let both = per_call(PHASES.iter().map(|phase| pair.spent(*phase).time).sum());
        print!("{in_flight:>9} {:>10.0} {both:>8.0}", 1e9 / both);
        for phase in PHASES {
            let spent = pair.spent(phase);
            let allocations = spent.allocations as f64 / calls as f64;
            print!("  {:>8.0} ns {allocations:>6.2} all.", per_call(spent.time));
        }
        println!("{:>10.3}", (pair.packets - packets) as f64 / calls as f64);
    }
}
