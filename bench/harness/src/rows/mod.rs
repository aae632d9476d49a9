//! The rows: what is measured, where, and what it is to show.

mod large;
mod memory;
mod sharing;
mod small;

use bench_driver::protocol::Work;

use crate::catalogue::{Part, System};
use crate::goal::Goal;
use crate::measure::Measure;

/// The variants of ours, by name.
pub(crate) const OURS: &str = "ours";
pub(crate) const YIELDING: &str = "ours-yielding";

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its name on the command line and in the JSON.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) task: Task,
    pub(crate) network: Network,
    /// The figure that the row is about.
    pub(crate) main: Measure,
    /// The variants of ours that take part.
    pub(crate) ours: &'static [&'static str],
    pub(crate) goals: Vec<Goal>,
    /// Whether `--quick` leaves it out.
    pub(crate) slow: bool,
}

/// What the processes do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Task {
    Load {
        work: Work,
        payload: usize,
        in_flight: usize,
        connections: usize,
        /// Threads of the server, and of the client.
        workers: usize,
    },
    Idle {
        connections: usize,
    },
}

/// What lies between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    /// The machine's loopback as it is.
    Loopback,
    /// A loopback of its own with this MTU.
    LoopbackMtu(u32),
}

/// All rows, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    [small::rows(), large::rows(), memory::rows(), sharing::rows()].concat()
}

impl Row {
    /// Whether this system takes part.
    pub(crate) fn includes(&self, system: &System) -> bool {
        match (system.part, self.task) {
            (Part::Ours, _) => self.ours.contains(&system.id),
            (Part::Floor, Task::Load { payload, connections: 1, workers: 1, .. }) => {
                // More does not fit the smallest path without being cut by IP.
                payload <= 1_400
            }
            (Part::Floor, _) => false,
            (Part::Peer, Task::Load { workers, .. }) => workers == 1 || system.workers,
            (Part::Peer, Task::Idle { .. }) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn names_are_told_apart_and_goals_speak_of_what_takes_part() {
        let rows = all();
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(rows.iter().position(|other| other.id == row.id), Some(index), "{}", row.id);
            for id in row.ours {
                assert!(catalogue::find(id).is_some(), "{id}");
            }
            for goal in &row.goals {
                assert!(row.ours.contains(&goal.system), "{}: {}", row.id, goal.system);
            }
        }
    }
}
