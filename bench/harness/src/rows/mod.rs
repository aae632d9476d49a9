//! The rows: what is measured, where, and what it is to show.

mod bottleneck;
mod large;
mod lossy;
mod memory;
mod sharing;
mod small;

use std::time::Duration;

use bench_driver::protocol::Work;
use link::Faults;

use crate::catalogue::{Part, System};
use crate::goal::Goal;
use crate::measure::Measure;

/// The variants of ours, by name.
pub(crate) const OURS: &str = "ours";
pub(crate) const YIELDING: &str = "ours-yielding";
pub(crate) const BUSY_POLLING: &str = "ours-busy-polling";

/// A second client of ours beside the first, and a TCP connection beside ours.
pub(crate) const RIVAL: &str = "ours-rival";
pub(crate) const TCP_CUBIC: &str = "tcp-cubic";

/// The floor of paths that lose packets.
pub(crate) const FLOOR_R: &str = "floor-r";

/// Who takes part on such paths, beside ours.
const ON_LOSSY_PATHS: &[&str] =
    &[FLOOR_R, "quinn", "tonic-cubic", "tonic-bbr", "tarpc-cubic", "tarpc-bbr"];

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
    /// Large requests of all that take part, at the same time.
    Together {
        payload: usize,
        in_flight: usize,
        /// Who takes part beside ours.
        rival: Option<&'static str>,
    },
}

/// What lies between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    /// The machine's loopback as it is.
    Loopback,
    /// A loopback of its own with this MTU.
    LoopbackMtu(u32),
    /// Two namespaces and a path between them that loses packets.
    Lossy(LossyPath),
    /// Two namespaces and a path of 100 Mbit/s and 20 ms with a queue of one bandwidth-delay product.
    Bottleneck,
}

impl Network {
    /// What the path does to packets of each direction; nothing on a loopback.
    pub(crate) fn faults(self) -> Option<Faults> {
        match self {
            Self::Loopback | Self::LoopbackMtu(_) => None,
            Self::Lossy(path) => Some(path.faults()),
            Self::Bottleneck => Some(Faults {
                delay: Duration::from_millis(10),
                rate: 100_000_000,
                queue: 250_000,
                ..Faults::default()
            }),
        }
    }
}

/// A path that loses packets, and is as long one way as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LossyPath {
    /// Without the time that the machine itself takes.
    pub(crate) round_trip_us: u32,
    /// Percent of packets, each way.
    pub(crate) loss: u8,
}

impl LossyPath {
    /// What it does to packets of each direction.
    fn faults(self) -> Faults {
        let one_way = Duration::from_micros(self.round_trip_us.into()) / 2;
        Faults::loss_and_delay(f64::from(self.loss) / 100.0, one_way)
    }

    fn name(self) -> String {
        format!("{}ms-{}%", self.round_trip_ms(), self.loss)
    }

    fn title(self) -> String {
        format!("RTT {} ms, {} % lost each way", self.round_trip_ms(), self.loss)
    }

    fn round_trip_ms(self) -> f64 {
        f64::from(self.round_trip_us) / 1e3
    }
}

/// All rows, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    [
        small::rows(),
        large::rows(),
        memory::rows(),
        sharing::rows(),
        lossy::rows(),
        bottleneck::rows(),
    ]
    .concat()
}

impl Row {
    /// Whether its network is not a loopback.
    pub(crate) fn is_bad(&self) -> bool {
        self.network.faults().is_some()
    }

    fn is_lossy(&self) -> bool {
        matches!(self.network, Network::Lossy(_))
    }

    /// Whether this system takes part.
    pub(crate) fn includes(&self, system: &System) -> bool {
        if let Task::Together { rival, .. } = self.task {
            return self.ours.contains(&system.id) || rival == Some(system.id);
        }
        let fits = match self.is_lossy() {
            true => system.part == Part::Ours || ON_LOSSY_PATHS.contains(&system.id),
            false => system.congestion_control().is_none() && system.id != FLOOR_R,
        };
        if !fits {
            return false;
        }
        match (system.part, self.task) {
            (Part::Ours, _) => self.ours.contains(&system.id),
            (Part::Floor, Task::Load { payload, .. }) if self.is_lossy() => payload <= 1_400,
            (Part::Floor, Task::Load { payload, connections: 1, workers: 1, .. }) => {
                // More does not fit the smallest path without being cut by IP.
                payload <= 1_400
            }
            (Part::Floor, _) => false,
            (Part::Peer, Task::Load { workers, .. }) => workers == 1 || system.workers,
            (Part::Peer, Task::Idle { .. }) => true,
            (_, Task::Together { .. }) => false,
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
