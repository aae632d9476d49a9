//! In which order everything runs: row by row, and within a row one repetition of each system after
//! the other, so that what changes on the machine meanwhile changes for all.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bench_driver::protocol::{
    ClientOptions, Idle, Load, Outcome, ServerOptions, Task as ClientTask, Work,
};

use crate::catalogue::System;
use crate::child::{self, Server};
use crate::environment::{Cores, Place};
use crate::results::{self, Entry};
use crate::rows::{Network, Row, Task};

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    /// How long idle connections do nothing.
    pub(crate) hold: Duration,
    pub(crate) cores: Cores,
    /// Whether the processes run before everything else on them.
    pub(crate) realtime: bool,
    /// Where the programs are.
    pub(crate) programs: PathBuf,
}

/// More than any run needs beside what it measures.
const SLACK: Duration = Duration::from_secs(30);

/// More than opening ten thousand connections needs.
const OPENING: Duration = Duration::from_secs(180);

impl Plan {
    /// How many steps a row has.
    pub(crate) fn steps(&self, row: &Row, systems: usize) -> usize {
        match row.task {
            Task::Load { .. } => systems * self.repetitions,
            Task::Together { .. } => self.repetitions,
            Task::Idle { .. } => 1,
        }
    }

    /// Runs a row. `step` is told what is run before each step.
    ///
    /// # Errors
    /// Why the row cannot be run at all, in words for the user.
    pub(crate) fn run(
        &self,
        row: &Row,
        systems: &[&'static System],
        mut step: impl FnMut(&str),
    ) -> Result<results::Row, String> {
        let place = Place::make(row.network, &self.cores, self.realtime)?;
        let mut entries: Vec<_> = systems.iter().map(|system| Entry::new(system.id)).collect();
        match row.task {
            Task::Load { .. } => {
                for repetition in 0..self.repetitions {
                    for (system, entry) in systems.iter().zip(&mut entries) {
                        step(&format!("{}: {} ({})", row.id, system.id, repetition + 1));
                        if entry.failure.is_none() {
                            match place.begin(repetition, system.congestion_control()) {
                                Ok(()) => self.add(row, system, &place, entry)?,
                                Err(why) => entry.fail(why),
                            }
                        }
                    }
                }
            }
            Task::Together { .. } => {
                for repetition in 0..self.repetitions {
                    step(&format!("{}: all at once ({})", row.id, repetition + 1));
                    self.run_together(row, systems, &place, &mut entries, repetition)?;
                }
            }
            // Memory does not depend on how busy the machine is.
            Task::Idle { .. } => {
                step(&format!("{}: all systems at once", row.id));
                thread::scope(|scope| {
                    let runs: Vec<_> = systems
                        .iter()
                        .zip(&mut entries)
                        .map(|(system, entry)| {
                            let place = &place;
                            scope.spawn(move || self.add(row, system, place, entry))
                        })
                        .collect();
                    runs.into_iter()
                        .try_for_each(|run| run.join().map_err(|_| "a thread panicked")?)
                })?;
            }
        }
        let goals = row.goals.iter().map(|goal| goal.judge(&entries)).collect();
        let (id, title) = (row.id.clone(), row.title.clone());
        Ok(results::Row { id, title, main: row.main, entries, goals })
    }

    /// One repetition of all systems at the same time. What the queue did stands in the first entry.
    fn run_together(
        &self,
        row: &Row,
        systems: &[&'static System],
        place: &Place,
        entries: &mut [Entry],
        repetition: usize,
    ) -> Result<(), String> {
        let congestion_control = systems.iter().find_map(|system| system.congestion_control());
        place.begin(repetition, congestion_control)?;
        let (warm_up, measure) = self.times(row);
        let queue = thread::scope(|scope| {
            let runs: Vec<_> = systems
                .iter()
                .zip(entries.iter_mut())
                .map(|(system, entry)| scope.spawn(move || self.add(row, system, place, entry)))
                .collect();
            thread::sleep(warm_up);
            let queue = place.watch(measure);
            runs.into_iter().try_for_each(|run| run.join().map_err(|_| "a thread panicked")?)?;
            Ok::<_, String>(queue)
        })?;
        if let (Some((stats, faults)), Some(first)) = (queue, entries.first_mut()) {
            first.add_queue(&stats.forth, faults.queue);
        }
        Ok(())
    }

    /// One repetition of one system.
    fn add(
        &self,
        row: &Row,
        system: &System,
        place: &Place,
        entry: &mut Entry,
    ) -> Result<(), String> {
        let (workers, work) = match row.task {
            Task::Load { workers, work, .. } => (workers, work),
            Task::Idle { .. } => (1, Work::Echo),
            Task::Together { .. } => (1, Work::Upload),
        };
        let (for_server, for_client) = match row.task {
            Task::Load { .. } | Task::Together { .. } => {
                self.cores.split(workers).ok_or_else(|| {
                    format!("two sides with {workers} threads each need {} processors", 2 * workers)
                })?
            }
            Task::Idle { .. } => (&[][..], &[][..]),
        };
        let program = self.programs.join(system.package);
        let in_flight = match row.task {
            Task::Load { in_flight, connections, .. } => in_flight.div_ceil(connections),
            Task::Together { in_flight, .. } => in_flight,
            Task::Idle { .. } => 1,
        };
        let server =
            ServerOptions { bind: place.bind, cores: for_server.into(), workers, work, in_flight };
        match self.measure(row, system, place, &program, &server, for_client) {
            Ok(Outcome::Load(report)) => {
                let (Task::Load { payload, .. } | Task::Together { payload, .. }) = row.task else {
                    unreachable!("it was a load")
                };
                entry.add_load(&report, payload);
            }
            Ok(Outcome::Idle(report)) => entry.add_idle(&report),
            Ok(Outcome::Error(error)) | Err(error) => entry.fail(error),
        }
        Ok(())
    }

    /// How long to warm up and to measure: longer where calls take long.
    fn times(&self, row: &Row) -> (Duration, Duration) {
        match row.network {
            Network::Lossy(_) => (4 * self.warm_up, 4 * self.measure),
            Network::Bottleneck => (12 * self.warm_up, 12 * self.measure),
            _ => (self.warm_up, self.measure),
        }
    }

    fn measure(
        &self,
        row: &Row,
        system: &System,
        place: &Place,
        program: &Path,
        options: &ServerOptions,
        cores: &[usize],
    ) -> Result<Outcome, String> {
        let variant = system.variant(row.network);
        let server = Server::start(&place.server_prefix, program, &variant, options)?;
        let (warm_up, measure) = self.times(row);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let load = |work, payload, in_flight, connections, threads| {
            let (warm_up_ms, measure_ms) = (millis(warm_up), millis(measure));
            ClientTask::Load(Load {
                work,
                payload,
                in_flight,
                connections,
                threads,
                warm_up_ms,
                measure_ms,
            })
        };
        let (task, longest) = match row.task {
            Task::Load { work, payload, in_flight, connections, workers } => {
                let task = load(work, payload, in_flight, connections, workers);
                (task, warm_up + measure + SLACK)
            }
            Task::Together { payload, in_flight, .. } => {
                (load(Work::Upload, payload, in_flight, 1, 1), warm_up + measure + SLACK)
            }
            Task::Idle { connections } => {
                let idle = Idle { connections, hold_ms: millis(self.hold) };
                (ClientTask::Idle(idle), self.hold + OPENING)
            }
        };
        let (ready, server_pid) = (server.ready.clone(), server.pid());
        let client = ClientOptions { server: ready, server_pid, cores: cores.into(), task };
        child::run_client(&place.client_prefix, program, &variant, &client, longest)
    }
}
