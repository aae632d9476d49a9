//! What a server holds for connections that do nothing.

use super::{Network, OURS, Row, Task};
use crate::goal::{Against, Bound, Goal};
use crate::measure::Measure;

pub(super) fn rows() -> Vec<Row> {
    let row = |connections, slow| Row {
        id: format!("idle-{connections}"),
        title: format!("{connections} idle connections"),
        task: Task::Idle { connections },
        network: Network::Loopback,
        main: Measure::KibPerConnection,
        ours: &[OURS],
        goals: vec![Goal {
            system: OURS,
            measure: Measure::KibPerConnection,
            against: Against::Nothing,
            bound: Bound::AtMost(6.0),
        }],
        slow,
    };
    vec![row(1_000, false), row(10_000, true)]
}
