//! Calls over paths that lose packets, beside a bare ping-pong that resends (virtual time: the
//! figures are the same on every machine).

use std::time::Duration;

use stubborn_sim::{LossyWork, Resender, measure_lossy};

const LOSSES: [f64; 3] = [0.01, 0.05, 0.2];

/// Measures small calls and returns their p99 and rate as parts of the floor's.
fn beside_the_floor(work: LossyWork) -> (f64, f64) {
    let ours = measure_lossy(1, work).expect("every promise is kept");
    let floor = Resender::new(work.round_trip, work.loss);
    let p99 = ours.p99.as_secs_f64() / floor.quantile(0.99).as_secs_f64();
    (p99, ours.rate / (work.in_flight as f64 * floor.rate()))
}

fn check(round_trip: Duration, in_flight: usize, calls: usize, p99: f64, rate: f64) {
    for loss in LOSSES {
        // Timers as coarse as a runtime's.
        let tick = Duration::from_millis(1);
        let work = LossyWork { tick, ..LossyWork::small(round_trip, loss, in_flight, calls) };
        let ours = beside_the_floor(work);
        assert!(ours.0 <= p99 && ours.1 >= rate, "{work:?}: p99 and rate {ours:?} of the floor's");
    }
}

#[test]
fn single_calls_over_a_short_lossy_path_beat_a_bare_resender() {
    check(Duration::from_micros(200), 1, 3_000, 0.8, 1.05);
}

#[test]
fn single_calls_over_a_long_lossy_path_beat_a_bare_resender() {
    check(Duration::from_millis(20), 1, 3_000, 0.8, 1.0);
}

#[test]
fn many_calls_over_a_short_lossy_path_beat_a_bare_resender() {
    check(Duration::from_micros(200), 16, 10_000, 0.8, 1.05);
}

#[test]
fn many_calls_over_a_long_lossy_path_beat_a_bare_resender() {
    check(Duration::from_millis(20), 16, 10_000, 0.8, 1.0);
}

#[test]
fn large_requests_over_a_long_path_are_fast_whatever_it_loses() {
    for (loss, least) in [(0.0, 270.0), (0.01, 140.0), (0.05, 100.0), (0.2, 50.0)] {
        let large = LossyWork::large(Duration::from_millis(20), loss, 20);
        let work = LossyWork { warm_up: 10, ..large };
        let ours = measure_lossy(1, work).expect("every promise is kept");
        let megabits = ours.bits_per_second(work.request) / 1e6;
        assert!(megabits >= least, "{megabits} Mbit/s at a loss of {loss}");
    }
}

#[test]
fn the_floor_is_a_geometric_distribution() {
    let floor = Resender::new(Duration::from_micros(200), 0.2);
    assert_eq!(floor.quantile(0.5), Duration::from_micros(200));
    assert_eq!(floor.quantile(0.99), Duration::from_micros(200 + 4 * 1_200));
    assert!((1_142.0..1_144.0).contains(&floor.rate()), "{}", floor.rate());
}
