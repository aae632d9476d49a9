//! A bottleneck that ours shares with other traffic.

use super::{Network, OURS, RIVAL, Row, TCP_CUBIC, Task};
use crate::goal::{Against, Bound, Goal};
use crate::measure::Measure;

/// Large enough to be a stream, small enough to count.
const REQUEST: usize = 256 << 10;

/// 2 MiB, four times what the path and its queue hold: no sender waits for calls.
const IN_FLIGHT: usize = 8;

pub(super) fn rows() -> Vec<Row> {
    let ours = |measure, against, bound| Goal { system: OURS, measure, against, bound };
    let rate = Measure::MbitPerSecond;
    // Neither has less than a third where one has at most twice what the other has.
    let fair = |rival| {
        let against = Against::System(rival);
        vec![ours(rate, against, Bound::AtLeast(0.5)), ours(rate, against, Bound::AtMost(2.0))]
    };
    // A queue is kept full that is full most of the time.
    let not_full = ours(Measure::QueueFullPercent, Against::Nothing, Bound::AtMost(50.0));
    let most = ours(rate, Against::Nothing, Bound::AtLeast(85.0));
    let mut with_itself = fair(RIVAL);
    with_itself.push(not_full);
    vec![
        row("alone", "ours alone", &[OURS], None, vec![most, not_full]),
        row("tcp", "TCP CUBIC alone, for comparison", &[], Some(TCP_CUBIC), vec![]),
        row("itself", "ours against itself", &[OURS, RIVAL], None, with_itself),
        row("cubic", "ours against TCP CUBIC", &[OURS], Some(TCP_CUBIC), fair(TCP_CUBIC)),
    ]
}

fn row(
    id: &str,
    title: &str,
    ours: &'static [&'static str],
    rival: Option<&'static str>,
    goals: Vec<Goal>,
) -> Row {
    Row {
        id: format!("share-{id}"),
        title: format!("100 Mbit/s, RTT 20 ms, a queue of one BDP: {title}"),
        task: Task::Together { payload: REQUEST, in_flight: IN_FLIGHT, rival },
        network: Network::Bottleneck,
        main: Measure::MbitPerSecond,
        ours,
        goals,
        slow: false,
    }
}
