//! Larger calls, over paths that carry packets of different sizes.

use bench_driver::protocol::Work;

use super::{Network, OURS, Row, Task};
use crate::goal::{Against, Bound, Goal};
use crate::measure::Measure;

/// Path MTUs: Ethernet, jumbo frames, loopback.
const MTUS: [u32; 3] = [1_500, 9_000, 65_535];

pub(super) fn rows() -> Vec<Row> {
    let echo = |size, name: &str, times: [f64; 3]| {
        let rows = MTUS.iter().zip(times).map(|(mtu, times)| Row {
            id: format!("{name}-{mtu}").replace(' ', ""),
            title: format!("{name} echo, 16 in flight, MTU {mtu}"),
            task: task(Work::Echo, size, 16),
            network: Network::LoopbackMtu(*mtu),
            main: Measure::CallsPerSecond,
            ours: &[OURS],
            goals: vec![Goal::faster_than_peers(OURS, times)],
            slow: false,
        });
        rows.collect::<Vec<_>>()
    };
    let upload = MTUS.iter().zip([1.0, 1.5, 1.5]).map(|(mtu, times)| Row {
        id: format!("16MiB-{mtu}"),
        title: format!("16 MiB request, 1 in flight, MTU {mtu}"),
        task: task(Work::Upload, 16 << 20, 1),
        network: Network::LoopbackMtu(*mtu),
        main: Measure::GbitPerSecond,
        ours: &[OURS],
        goals: vec![Goal {
            system: OURS,
            measure: Measure::GbitPerSecond,
            against: Against::System("tonic"),
            bound: Bound::AtLeast(times),
        }],
        slow: false,
    });
    let mut rows = echo(1 << 10, "1 KiB", [1.0, 1.3, 1.4]);
    rows.extend(echo(32 << 10, "32 KiB", [1.0, 1.3, 1.3]));
    rows.extend(upload);
    rows
}

fn task(work: Work, payload: usize, in_flight: usize) -> Task {
    Task::Load { work, payload, in_flight, connections: 1, workers: 1 }
}
