//! The client's process: threads with connections, and the clock.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::protocol::{ClientOptions, Load, Outcome, Ready, Task};
use crate::server::local_runtime;
use crate::system::{System, Target};
use crate::{Recorder, Result, idle, load, process};

pub(crate) fn perform<S: System>(system: &S, options: ClientOptions) -> Result<Outcome> {
    match options.task {
        Task::Load(load) => {
            let start = |share| start_thread(system.clone(), options.server.clone(), share);
            measure(&load, options.server_pid, start)
        }
        Task::Idle(idle) => local_runtime()?.block_on(idle::perform(system, &options, idle)),
    }
}

/// What one thread is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// The share of this thread: with its connections and its calls in flight.
    pub(crate) load: Load,
    /// The number of its first connection.
    pub(crate) first: usize,
}

/// A thread that has connected and waits for the word.
pub(crate) struct Started {
    pub(crate) go: oneshot::Sender<(Instant, Instant)>,
    pub(crate) thread: JoinHandle<Result<Recorder>>,
}

/// Runs the load on its threads, and looks at processor time and memory around it.
pub(crate) fn measure(
    load: &Load,
    server_pid: i32,
    start: impl Fn(Share) -> Result<Started>,
) -> Result<Outcome> {
    let threads = shares(load).map(start).collect::<Result<Vec<_>>>()?;
    let from = Instant::now() + Duration::from_millis(load.warm_up_ms);
    let to = from + Duration::from_millis(load.measure_ms);
    let mut running = Vec::new();
    for Started { go, thread } in threads {
        // If it is gone, joining it tells why.
        let _ = go.send((from, to));
        running.push(thread);
    }
    let own = std::process::id() as i32;
    let used = || Ok::<_, crate::Error>((process::cpu_time(own)?, process::cpu_time(server_pid)?));
    thread::sleep(from.saturating_duration_since(Instant::now()));
    let before = used()?;
    thread::sleep(to.saturating_duration_since(Instant::now()));
    let after = used()?;
    let mut all = Recorder::new(from, to);
    for thread in running {
        all.add(thread.join().map_err(|_| "a thread of the client panicked")??);
    }
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let mut report = all.into_report();
    report.client_cpu_ns = nanos(after.0.saturating_sub(before.0));
    report.server_cpu_ns = nanos(after.1.saturating_sub(before.1));
    report.client_peak = process::memory(own)?.peak;
    report.server_peak = process::memory(server_pid)?.peak;
    Ok(Outcome::Load(report))
}

/// The load, divided over its threads as evenly as can be.
fn shares(load: &Load) -> impl Iterator<Item = Share> {
    let load = *load;
    let part = move |whole: usize, index: usize| {
        whole / load.threads + usize::from(index < whole % load.threads)
    };
    let mut first = 0;
    (0..load.threads).map(move |index| {
        let share = Load {
            connections: part(load.connections, index),
            in_flight: part(load.in_flight, index),
            ..load
        };
        let share = Share { load: share, first };
        first += share.load.connections;
        share
    })
}

fn start_thread<S: System>(system: S, server: Ready, share: Share) -> Result<Started> {
    let (connected, is_connected) = mpsc::channel();
    let (go, times) = oneshot::channel();
    let thread = thread::spawn(move || {
        local_runtime()?.block_on(async {
            let mut clients = Vec::new();
            for index in share.first..share.first + share.load.connections {
                clients.push(system.connect(&Target { server: server.clone(), index }).await?);
            }
            let _ = connected.send(());
            let (from, to) = times.await.map_err(|_| "the measurement was given up")?;
            load::perform(clients, &share.load, Recorder::new(from, to)).await
        })
    });
    wait_for(&is_connected, go, thread)
}

/// Waits until the thread has connected, or returns why it has not.
pub(crate) fn wait_for(
    is_connected: &mpsc::Receiver<()>,
    go: oneshot::Sender<(Instant, Instant)>,
    thread: JoinHandle<Result<Recorder>>,
) -> Result<Started> {
    if is_connected.recv().is_ok() {
        return Ok(Started { go, thread });
    }
    match thread.join() {
        Ok(Err(error)) => Err(error),
        _ => Err("a thread of the client panicked while it connected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Work;

    #[test]
    fn a_load_is_divided_evenly_and_nothing_is_forgotten() {
        let load = Load {
            work: Work::Echo,
            payload: 64,
            in_flight: 10,
            connections: 3,
            threads: 2,
            warm_up_ms: 0,
            measure_ms: 0,
        };
        let parts: Vec<_> =
            shares(&load).map(|s| (s.first, s.load.connections, s.load.in_flight)).collect();
        assert_eq!(parts, [(0, 2, 5), (2, 1, 5)]);
    }
}
