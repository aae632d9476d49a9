//! Calls of 64 bytes over one connection.

use bench_driver::protocol::Work;

use super::{BUSY_POLLING, Network, OURS, Row, Task, YIELDING};
use crate::goal::{Against, Bound, Goal};
use crate::measure::Measure;

/// Bytes of a small call.
pub(super) const SMALL: usize = 64;

pub(super) fn rows() -> Vec<Row> {
    let p50 = |system, times| Goal {
        system,
        measure: Measure::P50Us,
        against: Against::System("udp-tokio"),
        bound: Bound::AtMost(times),
    };
    let cpu = Goal {
        system: OURS,
        measure: Measure::CpuUsPerCall,
        against: Against::BestPeer,
        bound: Bound::AtMost(1.0 / 3.0),
    };
    let faster = Goal::faster_than_peers;
    vec![
        row(
            1,
            Measure::P50Us,
            &[OURS, BUSY_POLLING],
            vec![p50(OURS, 1.25), p50(BUSY_POLLING, 0.6)],
        ),
        row(
            16,
            Measure::CallsPerSecond,
            &[OURS, YIELDING, BUSY_POLLING],
            vec![faster(OURS, 2.3), faster(YIELDING, 1.8), faster(BUSY_POLLING, 4.0)],
        ),
        row(128, Measure::CallsPerSecond, BOTH, vec![faster(OURS, 3.0), faster(YIELDING, 2.3)]),
        row(
            1_024,
            Measure::CallsPerSecond,
            BOTH,
            vec![faster(OURS, 3.0), faster(YIELDING, 2.0), cpu],
        ),
    ]
}

const BOTH: &[&str] = &[OURS, YIELDING];

fn row(in_flight: usize, main: Measure, ours: &'static [&'static str], goals: Vec<Goal>) -> Row {
    let task =
        Task::Load { work: Work::Echo, payload: SMALL, in_flight, connections: 1, workers: 1 };
    Row {
        id: format!("64B-{in_flight}"),
        title: format!("64 B echo, {in_flight} in flight"),
        task,
        network: Network::Loopback,
        main,
        ours,
        goals,
        slow: false,
    }
}
