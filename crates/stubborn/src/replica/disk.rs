//! The thread that writes: everything that waits becomes durable with one sync (group commit). Where
//! the node's own thread has nothing else to do it may write itself ([`Disk::write_here`]): to hand a
//! little over and to hear of it takes longer than a good disk takes for a sync.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stubborn_group::replication::{Snapshot, Write};
use stubborn_store::{Error, FinishedSnapshot, Store};

/// Writes that are made durable together, at most.
const TOGETHER: usize = 4_096;

/// After so long without a write the store notes what is synced.
const IDLE: Duration = Duration::from_millis(200);

/// Bytes of entries that are written by the node's thread, at most.
const LITTLE: usize = 64 << 10;

/// A sync that takes longer keeps the node's thread from writing itself for so many times as long: of
/// its time it spends a small part waiting for a slow disk, and a good one's slow sync is soon forgotten.
const SLOW: Duration = Duration::from_millis(2);
const PAUSE: u32 = 10;

/// The way to the thread. Dropping it lets the thread write what was handed over, and end.
pub(super) struct Disk {
    jobs: Option<Sender<(u64, Write)>>,
    /// The last write that was handed over to the thread.
    handed: u64,
    /// None when it is closed.
    writer: Arc<Mutex<Option<Writer>>>,
    /// Until then every write is handed over.
    slow_until: Option<Instant>,
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

impl Progress {
    fn note(&mut self, number: u64, writes: usize, syncs: u64) {
        self.written = number;
        self.writes += writes as u64;
        self.syncs += syncs;
    }
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
        let writer = Writer { store, snapshot: None, next: None, is_rested: true, writes: 0 };
        let writer = Arc::new(Mutex::new(Some(writer)));
        let theirs = Arc::clone(&writer);
        let thread = thread::Builder::new().name("stubborn-disk".into()).spawn(move || {
            let end = Reporter(told);
            if let Err(error) = work(&theirs, &waiting, &end) {
                end.tell(|progress| progress.failed = Some(error.to_string()));
            }
        })?;
        let thread = Some(thread);
        Ok(Self { jobs: Some(jobs), handed: 0, writer, slow_until: None, report, thread })
    }

    /// Hands writes over. They are written in the order of their numbers.
    pub(super) fn write(&mut self, writes: &mut Vec<(u64, Write)>) {
        for (number, write) in writes.drain(..) {
            self.handed = number;
            if let Some(jobs) = &self.jobs {
                // If the thread has ended, its report says why.
                let _ = jobs.send((number, write));
            }
        }
    }

    /// Whether so little may be written by this thread, which waits for the sync.
    pub(super) fn may_write_here(&self, writes: &[(u64, Write)]) -> bool {
        let is_small = |write: &Write| write.snapshot.is_none() && write.compact.is_none();
        let entries = writes.iter().flat_map(|(_, write)| &write.entries);
        self.slow_until.is_none_or(|until| Instant::now() >= until)
            && writes.iter().all(|(_, write)| is_small(write))
            && entries.map(|entry| entry.data.len()).sum::<usize>() <= LITTLE
            && lock(&self.report).progress.written >= self.handed
    }

    /// What was handed over was not all written when `written` was.
    pub(super) fn is_writing(&self, written: u64) -> bool {
        written < self.handed
    }

    /// Writes on this thread, and returns whether that was done: not if the other thread is at it.
    pub(super) fn write_here(&mut self, writes: &mut Vec<(u64, Write)>) -> bool {
        let Ok(mut writer) = self.writer.try_lock() else { return false };
        let Some(writer) = writer.as_mut() else { return false };
        let Some((number, _)) = writes.last() else { return true };
        let (number, started) = (*number, Instant::now());
        let mut batch: Vec<Write> = writes.drain(..).map(|(_, write)| write).collect();
        let written = writer.write_all(&mut batch);
        let took = started.elapsed();
        if took > SLOW {
            self.slow_until = Some(started + took + PAUSE * took);
        }
        self.handed = number;
        let progress = &mut lock(&self.report).progress;
        match written {
            Ok(syncs) => progress.note(number, batch.len(), syncs),
            Err(error) => progress.failed = Some(error.to_string()),
        }
        true
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
    writer: &Mutex<Option<Writer>>,
    waiting: &Receiver<(u64, Write)>,
    report: &Reporter,
) -> Result<(), Error> {
    let (mut writes, mut seen) = (Vec::new(), 0);
    loop {
        let came = waiting.recv_timeout(IDLE);
        let mut held = lock(writer);
        let Some(writer) = held.as_mut() else { return Ok(()) };
        writer.adopt_if_finished()?;
        let first = match came {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                // The node's thread may have written meanwhile.
                if std::mem::replace(&mut seen, writer.writes) == writer.writes {
                    writer.rest()?;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => {
                return held.take().map_or(Ok(()), Writer::close);
            }
        };
        let mut number = first.0;
        writes.push(first.1);
        for (next, write) in waiting.try_iter().take(TOGETHER - 1) {
            number = next;
            writes.push(write);
        }
        let syncs = writer.write_all(&mut writes)?;
        drop(held);
        report.tell(|progress| progress.note(number, writes.len(), syncs));
        writes.clear();
    }
}

/// The store, and a snapshot of this node's own that is being written beside it.
struct Writer {
    store: Store,
    snapshot: Option<JoinHandle<Result<FinishedSnapshot, Error>>>,
    /// The latest one that is to be written after it.
    next: Option<Snapshot>,
    /// Nothing was written since the store noted what is synced.
    is_rested: bool,
    /// Calls of `write_all` so far.
    writes: u64,
}

impl Writer {
    /// Writes in order, with one sync for all. A snapshot of this node's own is written by another
    /// thread, and counts when it is finished: nothing waits for it. Returns how many syncs it were.
    fn write_all(&mut self, writes: &mut [Write]) -> Result<u64, Error> {
        self.is_rested = false;
        self.writes += 1;
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

    /// The other thread makes the pieces as well, from a copy that the node does not wait for.
    fn begin_snapshot(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        if self.snapshot.is_some() {
            self.next = Some(snapshot);
            return Ok(());
        }
        let Snapshot { at, members, data } = snapshot;
        let writer = self.store.begin_snapshot(at, members)?;
        let write = move || writer.write_all(&data);
        let thread = thread::Builder::new().name("stubborn-snapshot".into()).spawn(write);
        let thread = thread.map_err(|error| Error::Failed(error.to_string()))?;
        self.snapshot = Some(thread);
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Error> {
        if !std::mem::replace(&mut self.is_rested, true) {
            self.store.rest()?;
        }
        Ok(())
    }

    fn adopt_if_finished(&mut self) -> Result<(), Error> {
        if self.snapshot.as_ref().is_some_and(JoinHandle::is_finished) {
            self.is_rested = false;
            self.adopt()?;
        }
        Ok(())
    }

    /// Lets the snapshot that is being written count, once it is finished.
    fn adopt(&mut self) -> Result<(), Error> {
        let Some(thread) = self.snapshot.take() else { return Ok(()) };
        let panicked = |_| Error::Failed("the thread that writes a snapshot panicked".into());
        self.store.compact(thread.join().map_err(panicked)??)?;
        match self.next.take() {
            // The leader's took the place of the whole log meanwhile.
            Some(next) if next.at <= self.store.last() => self.begin_snapshot(next),
            _ => Ok(()),
        }
    }

    fn close(mut self) -> Result<(), Error> {
        while self.snapshot.is_some() {
            self.adopt()?;
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let identity = Identity { group: 0x100, node, created: 0, folder: None };
        let new = Durable::new_group(members.clone());
        let store = Store::create(folder.clone(), identity, &new, Options::default()).unwrap();
        let mut disk = Disk::start(store).unwrap();
        for index in 1..=20 {
            let at = Position { index, term: 1 };
            let data = Bytes::from(vec![7; 100]);
            let entries = vec![Entry { at, kind: EntryKind::Command, data }];
            let mut writes = vec![(index, Write { entries, must_sync: true, ..Write::default() })];
            // Some are written here, where the thread has nothing to do.
            if index % 2 == 0 || !disk.may_write_here(&writes) || !disk.write_here(&mut writes) {
                disk.write(&mut writes);
            }
            assert!(writes.is_empty());
            if index % 5 == 3 {
                let data = vec![index as u8; 600_000].into();
                let snapshot = Snapshot { at, members: members.clone(), data };
                let mut writes =
                    vec![(index, Write { compact: Some(snapshot), ..Write::default() })];
                assert!(!disk.may_write_here(&writes));
                disk.write(&mut writes);
            }
        }
        let progress = disk.finish();
        assert_eq!((progress.written, progress.failed), (20, None));
        let (store, recovered) = Store::open(folder, Options::default()).unwrap();
        let durable = store.durable(recovered).unwrap();
        assert_eq!((durable.snapshot.at.index, durable.entries.len()), (18, 2));
        assert_eq!(durable.snapshot.data, vec![18; 600_000].into());
    }
}
