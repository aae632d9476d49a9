//! Small and large calls over paths that lose packets.

use bench_driver::protocol::Work;

use super::small::SMALL;
use super::{FLOOR_R, LossyPath, Network, OURS, Row, Task};
use crate::goal::{Against, Bound, Goal};
use crate::measure::Measure;

/// Round-trip times in microseconds: a rack, a continent.
const NEAR: u32 = 200;
const FAR: u32 = 20_000;

/// Percent of packets lost each way.
const LOSSES: [u8; 3] = [1, 5, 20];

/// One connection makes too few calls over a long path for a p99 in a few seconds: so many calls
/// one after the other, on a connection each.
const SIDE_BY_SIDE: usize = 20;

pub(super) fn rows() -> Vec<Row> {
    let rate = |times| against_floor(Measure::CallsPerSecond, Bound::AtLeast(times));
    let p99 = |times| against_floor(Measure::P99Us, Bound::AtMost(times));
    let mut rows = Vec::new();
    rows.extend(LOSSES.map(|loss| small(NEAR, loss, 1, 1, vec![p99(1.3), rate(0.9)])));
    rows.extend(LOSSES.map(|loss| small(NEAR, loss, 16, 1, vec![rate(0.8)])));
    rows.extend(LOSSES.map(|loss| small(FAR, loss, 1, SIDE_BY_SIDE, vec![p99(1.2)])));
    rows.extend(LOSSES.map(|loss| small(FAR, loss, 16, 1, vec![rate(0.95)])));
    for (loss, megabits) in [(0, 250.0), (1, 130.0), (5, 90.0), (20, 40.0)] {
        rows.push(large(FAR, loss, Against::Nothing, megabits));
    }
    rows.extend(LOSSES.map(|loss| large(NEAR, loss, Against::BestPeer, 1.5)));
    rows
}

fn against_floor(measure: Measure, bound: Bound) -> Goal {
    Goal { system: OURS, measure, against: Against::System(FLOOR_R), bound }
}

/// `each` calls in flight on each connection.
fn small(round_trip_us: u32, loss: u8, each: usize, connections: usize, goals: Vec<Goal>) -> Row {
    let path = LossyPath { round_trip_us, loss };
    let over = match connections {
        1 => String::new(),
        several => format!(" on each of {several} connections"),
    };
    let in_flight = each * connections;
    Row {
        id: format!("{}-64B-{each}", path.name()),
        title: format!("{}: 64 B echo, {each} in flight{over}", path.title()),
        task: Task::Load { work: Work::Echo, payload: SMALL, in_flight, connections, workers: 1 },
        network: Network::Lossy(path),
        main: goals.first().map_or(Measure::CallsPerSecond, |goal| goal.measure),
        ours: &[OURS],
        goals,
        slow: false,
    }
}

fn large(round_trip_us: u32, loss: u8, against: Against, at_least: f64) -> Row {
    let path = LossyPath { round_trip_us, loss };
    let measure = Measure::MbitPerSecond;
    Row {
        id: format!("{}-1MiB", path.name()),
        title: format!("{}: 1 MiB request, 1 in flight", path.title()),
        task: Task::Load {
            work: Work::Upload,
            payload: 1 << 20,
            in_flight: 1,
            connections: 1,
            workers: 1,
        },
        network: Network::Lossy(path),
        main: measure,
        ours: &[OURS],
        goals: vec![Goal { system: OURS, measure, against, bound: Bound::AtLeast(at_least) }],
        slow: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_titles_say_what_the_path_does() {
        let rows = rows();
        assert_eq!((rows.len(), rows[0].id.as_str()), (19, "0.2ms-1%-64B-1"));
        assert!(rows.iter().any(|row| row.id == "20ms-0%-1MiB"));
        let title =
            "RTT 20 ms, 20 % lost each way: 64 B echo, 1 in flight on each of 20 connections";
        assert!(rows.iter().any(|row| row.title == title));
    }
}
