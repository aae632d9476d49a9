//! The thread that writes: everything that waits becomes durable with one sync (group commit).

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use stubborn_group::replication::{Snapshot, Write};
use stubborn_store::{Error, FinishedSnapshot, Store};

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

fn work(store: Store, waiting: &Receiver<(u64, Write)>, report: &Reporter) -> Result<(), Error> {
    let (mut writes, mut is_rested) = (Vec::new(), true);
    let mut writer = Writer { store, snapshot: None };
    loop {
        is_rested &= !writer.adopt_if_finished()?;
        let first = match waiting.recv_timeout(IDLE) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                if !is_rested {
                    writer.store.rest()?;
                    is_rested = true;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return writer.close(),
        };
        let mut number = first.0;
        writes.push(first.1);
        for (next, write) in waiting.try_iter().take(TOGETHER - 1) {
            number = next;
            writes.push(write);
        }
        is_rested = false;
        let syncs = writer.write_all(&mut writes)?;
        report.tell(|progress| {
            progress.written = number;
            progress.writes += writes.len() as u64;
            progress.syncs += syncs;
        });
        writes.clear();
    }
}

/// The store, and a snapshot of this node's own that is being written beside it.
struct Writer {
    store: Store,
    snapshot: Option<JoinHandle<Result<FinishedSnapshot, Error>>>,
}

impl Writer {
    /// Writes in order, with one sync for all. A snapshot of this node's own is written by another
    /// thread, and counts when it is finished: nothing waits for it. Returns how many syncs it were.
    fn write_all(&mut self, writes: &mut [Write]) -> Result<u64, Error> {
        let snapshot = writes.iter_mut().rev().find_map(|write| write.compact.take());
        // Of several the last one says it all.
        writes.iter_mut().for_each(|write| write.compact = None);
        self.store.write(writes)?;
        if let Some(snapshot) = snapshot {
            self.begin_snapshot(snapshot)?;
        }
        let is_synced = |write: &Write| write.must_sync || write.snapshot.is_some();
        Ok(u64::from(writes.iter().any(is_synced)))
    }

    fn begin_snapshot(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        self.adopt()?;
        let Snapshot { at, members, data } = snapshot;
        let mut writer = self.store.begin_snapshot(at, members)?;
        let write = move || {
            writer.write(&data)?;
            writer.finish()
        };
        let thread = thread::Builder::new().name("stubborn-snapshot".into()).spawn(write);
        let thread = thread.map_err(|error| Error::Failed(error.to_string()))?;
        self.snapshot = Some(thread);
        Ok(())
    }

    /// Returns whether it was.
    fn adopt_if_finished(&mut self) -> Result<bool, Error> {
        let is_finished = self.snapshot.as_ref().is_some_and(JoinHandle::is_finished);
        if is_finished {
            self.adopt()?;
        }
        Ok(is_finished)
    }

    /// Lets the snapshot that is being written count, once it is finished.
    fn adopt(&mut self) -> Result<(), Error> {
        let Some(thread) = self.snapshot.take() else { return Ok(()) };
        let panicked = |_| Error::Failed("the thread that writes a snapshot panicked".into());
        self.store.compact(thread.join().map_err(panicked)??)
    }

    fn close(mut self) -> Result<(), Error> {
        self.adopt()?;
        self.store.close()
    }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use stubborn_group::replication::{Durable, Entry, EntryKind, Members, NodeId, Position};
    use stubborn_store::{Folder, Identity, Options};

    use super::*;

    #[test]
    fn a_snapshot_is_written_beside_the_log_and_counts_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::make(home.path()).unwrap());
        let node = NodeId::new(1).unwrap();
        let members = Members::of([node]);
        let identity = Identity { group: 0x100, node, created: 0 };
        let new = Durable::new_group(members.clone());
        let store = Store::create(folder.clone(), identity, &new, Options::default()).unwrap();
        let disk = Disk::start(store).unwrap();
        for index in 1..=20 {
            let at = Position { index, term: 1 };
            let data = Bytes::from(vec![7; 100]);
            let entries = vec![Entry { at, kind: EntryKind::Command, data }];
            disk.write(index, Write { entries, must_sync: true, ..Write::default() });
            if index % 5 == 3 {
                let data = Bytes::from(vec![index as u8; 600_000]);
                let snapshot = Snapshot { at, members: members.clone(), data };
                disk.write(index, Write { compact: Some(snapshot), ..Write::default() });
            }
        }
        let progress = disk.finish();
        assert_eq!((progress.written, progress.failed), (20, None));
        let (store, recovered) = Store::open(folder, Options::default()).unwrap();
        let durable = store.durable(recovered).unwrap();
        assert_eq!((durable.snapshot.at.index, durable.entries.len()), (18, 2));
        assert_eq!(durable.snapshot.data, vec![18; 600_000]);
    }
}
