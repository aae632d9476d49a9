//! The thread that writes: everything that waits becomes durable with one sync (group commit).

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use stubborn_group::replication::Write;
use stubborn_store::{Error, Store};

/// Writes that are made durable together, at most.
const TOGETHER: usize = 4_096;

/// After so long without a write the store notes what is synced.
const IDLE: Duration = Duration::from_millis(200);

/// The way to the thread. Dropping it lets the thread write what was handed over, and end.
pub(super) struct Disk {
    jobs: Option<Sender<(u64, Write)>>,
    report: Arc<Mutex<Report>>,
    thread: Option<JoinHandle<()>>,
}

/// What the disk has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Everything up to this number is durable.
    pub(super) written: u64,
    /// Syncs, and the writes that they have made durable, since the start.
    pub(super) syncs: u64,
    pub(super) writes: u64,
    /// Why nothing is written any more.
    pub(super) failed: Option<String>,
}

#[derive(Default)]
struct Report {
    progress: Progress,
    waker: Option<Waker>,
}

impl Disk {
    /// Lets a thread of its own write to this store.
    pub(super) fn start(store: Store) -> io::Result<Self> {
        let (jobs, waiting) = channel();
        let report = Arc::<Mutex<Report>>::default();
        let told = Arc::clone(&report);
        let thread = thread::Builder::new().name("stubborn-disk".into()).spawn(move || {
            let end = Reporter(told);
            if let Err(error) = work(store, &waiting, &end) {
                end.tell(|progress| progress.failed = Some(error.to_string()));
            }
        })?;
        Ok(Self { jobs: Some(jobs), report, thread: Some(thread) })
    }

    /// Hands a write over. They are written in the order of their numbers.
    pub(super) fn write(&self, number: u64, write: Write) {
        if let Some(jobs) = &self.jobs {
            // If the thread has ended, its report says why.
            let _ = jobs.send((number, write));
        }
    }

    /// What is done by now; `waker` is woken when there is more.
    pub(super) fn progress(&self, waker: &Waker) -> Progress {
        let mut report = lock(&self.report);
        match &mut report.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        report.progress.clone()
    }

    /// Waits until all that was handed over is durable, and the folder is closed.
    pub(super) fn finish(mut self) -> Progress {
        self.end();
        lock(&self.report).progress.clone()
    }

    fn end(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end();
    }
}

fn work(
    mut store: Store,
    waiting: &Receiver<(u64, Write)>,
    report: &Reporter,
) -> Result<(), Error> {
    let (mut writes, mut is_rested) = (Vec::new(), true);
    loop {
        let first = match waiting.recv_timeout(IDLE) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                if !is_rested {
                    store.rest()?;
                    is_rested = true;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return store.close(),
        };
        let mut number = first.0;
        writes.push(first.1);
        for (next, write) in waiting.try_iter().take(TOGETHER - 1) {
            number = next;
            writes.push(write);
        }
        is_rested = false;
        let syncs = write_all(&mut store, &mut writes)?;
        report.tell(|progress| {
            progress.written = number;
            progress.writes += writes.len() as u64;
            progress.syncs += syncs;
        });
        writes.clear();
    }
}

/// Writes in order, with one sync for all; a snapshot of this node's own takes one more. Returns how
/// many it were.
fn write_all(store: &mut Store, writes: &mut [Write]) -> Result<u64, Error> {
    let (mut rest, mut syncs) = (writes, 0);
    while let Some(at) = rest.iter().position(|write| write.compact.is_some()) {
        let (now, later) = rest.split_at_mut(at + 1);
        let snapshot = now[at].compact.take();
        syncs += write_plain(store, now)?;
        if let Some(snapshot) = snapshot {
            store.compact_with(&snapshot)?;
            syncs += 1;
        }
        rest = later;
    }
    Ok(syncs + write_plain(store, rest)?)
}

fn write_plain(store: &mut Store, writes: &[Write]) -> Result<u64, Error> {
    store.write(writes)?;
    Ok(u64::from(writes.iter().any(|write| write.must_sync || write.snapshot.is_some())))
}

/// Tells the driver. When it is dropped by a panic, that is told as well.
struct Reporter(Arc<Mutex<Report>>);

impl Reporter {
    fn tell(&self, change: impl FnOnce(&mut Progress)) {
        let mut report = lock(&self.0);
        change(&mut report.progress);
        let waker = report.waker.take();
        drop(report);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell(|progress| progress.failed = Some("its thread panicked".into()));
        }
    }
}

fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
