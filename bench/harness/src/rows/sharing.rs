//! The same 1,024 calls over more connections, and over more workers.

use bench_driver::protocol::Work;

use super::small::SMALL;
use super::{Network, OURS, Row, Task};
use crate::measure::Measure;

pub(super) fn rows() -> Vec<Row> {
    let task = |connections, workers| Task::Load {
        work: Work::Echo,
        payload: SMALL,
        in_flight: 1_024,
        connections,
        workers,
    };
    let row = |id, title, task| Row {
        id,
        title,
        task,
        network: Network::Loopback,
        main: Measure::CallsPerSecond,
        ours: &[OURS],
        goals: Vec::new(),
        slow: false,
    };
    let mut rows: Vec<_> = [10, 100, 1_000]
        .map(|connections| {
            let title = format!("64 B echo, 1,024 in flight over {connections} connections");
            row(format!("64B-1024-over-{connections}"), title, task(connections, 1))
        })
        .into();
    rows.push(row(
        "64B-1024-workers-2".into(),
        "64 B echo, 1,024 in flight over 8 connections, two workers on two cores".into(),
        task(8, 2),
    ));
    rows
}
