//! Prints what calls take over paths that lose packets, in virtual time, beside a bare ping-pong that
//! resends after its round trip and a millisecond: `cargo run --release -p stubborn-sim --example
//! lossy [FILTER]`. With TICK=1000 in the environment timers are rounded up to 1,000 µs, as tokio's
//! are.

use std::process::ExitCode;
use std::time::Duration;

use stubborn_sim::{Failure, LossyWork, Resender, measure_lossy};

const LOSSES: [f64; 4] = [0.0, 0.01, 0.05, 0.2];

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    match rows(&filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn rows(filter: &str) -> Result<(), Failure> {
    println!(
        "work                         loss     p50 ms   p99 ms   max ms    rate/s  datagrams/call  p99/floor  rate/floor"
    );
    for round_trip in [Duration::from_micros(200), Duration::from_millis(20)] {
        for in_flight in [1, 16] {
            for loss in LOSSES {
                let calls = if in_flight == 1 { 5_000 } else { 20_000 };
                let work = LossyWork::small(round_trip, loss, in_flight, calls);
                row(filter, &format!("{round_trip:?} rtt, {in_flight} in flight"), work)?;
            }
        }
    }
    for round_trip in [Duration::from_micros(200), Duration::from_millis(20)] {
        for loss in LOSSES {
            let work = LossyWork::large(round_trip, loss, 200);
            row(filter, &format!("{round_trip:?} rtt, 1 MiB"), work)?;
        }
    }
    Ok(())
}

fn row(filter: &str, name: &str, work: LossyWork) -> Result<(), Failure> {
    if !format!("{name}, {}", work.loss).contains(filter) {
        return Ok(());
    }
    let tick = std::env::var("TICK").ok().and_then(|us| us.parse().ok()).unwrap_or(0);
    let ours = measure_lossy(1, LossyWork { tick: Duration::from_micros(tick), ..work })?;
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    print!(
        "{name:<28} {:>4} %  {:>8.2} {:>8.2} {:>8.2} {:>9.0}  {:>14.1}",
        work.loss * 100.0,
        ms(ours.p50),
        ms(ours.p99),
        ms(ours.max),
        ours.rate,
        ours.datagrams_per_call,
    );
    if work.request > 1_000 {
        println!("  {:>9.0} Mbit/s", ours.bits_per_second(work.request) / 1e6);
    } else {
        let floor = Resender::new(work.round_trip, work.loss);
        println!(
            "  {:>9.2}  {:>10.2}",
            ms(ours.p99) / ms(floor.quantile(0.99)),
            ours.rate / (work.in_flight as f64 * floor.rate()),
        );
    }
    Ok(())
}
