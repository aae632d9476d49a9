//! What a node's process does with its disk: as the driver that ships, one sync for all that waits,
//! and snapshots of its own beside the log.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use stubborn_core::service::Pieces;
use stubborn_core::time::Instant;
use stubborn_group::replication::{Snapshot, Write};
use stubborn_store::{Error, FinishedSnapshot, SnapshotWriter, Store};

use super::cluster::Cluster;
use super::disk::NodeDisk;
use crate::nodes::Nodes;
use crate::world::millis;

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// After so long without a write the store notes what is synced, as that of the driver.
const IDLE: Duration = millis(200);

pub(super) struct Storage {
    cluster: Cluster,
    disk: NodeDisk,
    store: Store,
    /// Not handed to the store yet.
    waiting: Vec<(u64, Write)>,
    /// The sync that is under way.
    sync: Option<Sync>,
    /// A snapshot of this node's own that is being written.
    snapshot: Option<(Sleep, Writing, Write)>,
    last_write: Instant,
    is_rested: bool,
}

/// How far a snapshot is.
enum Writing {
    Pieces(SnapshotWriter, Pieces),
    Finished(FinishedSnapshot),
}

struct Sync {
    sleep: Sleep,
    /// Everything up to this number is durable then.
    number: u64,
    compact: Option<Snapshot>,
}

impl Storage {
    pub(super) fn new(cluster: Cluster, disk: NodeDisk, store: Store) -> Self {
        let last_write = cluster.world.now();
        Self {
            cluster,
            disk,
            store,
            waiting: Vec::new(),
            sync: None,
            snapshot: None,
            last_write,
            is_rested: false,
        }
    }

    /// Hands a write over. They are written in the order of their numbers.
    pub(super) fn write(&mut self, number: u64, write: Write) {
        self.waiting.push((number, write));
    }

    /// Whether a sync or a snapshot has come to its end: then [`Self::go_on`].
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (&mut self.sync, &mut self.snapshot) {
            (Some(sync), _) => sync.sleep.as_mut().poll(cx),
            (None, Some((sleep, ..))) => sleep.as_mut().poll(cx),
            (None, None) => Poll::Pending,
        }
    }

    /// Ends what has come to its end. Returns the number up to which everything is durable by it.
    pub(super) fn go_on(&mut self) -> Result<Option<u64>, Error> {
        if let Some(Sync { number, compact, .. }) = self.sync.take() {
            self.store.sync()?;
            self.disk.note_synced();
            if let Some(snapshot) = compact {
                self.begin_snapshot(snapshot)?;
            }
            return Ok(Some(number));
        }
        self.write_on(1 + self.cluster.below(4))?;
        Ok(None)
    }

    /// Begins to write what waits, unless a sync is under way. Returns the number up to which
    /// everything counts as written without one.
    pub(super) fn begin(&mut self) -> Result<Option<u64>, Error> {
        let Some(number) = self.waiting.last().map(|(number, _)| *number) else { return Ok(None) };
        if self.sync.is_some() {
            return Ok(None);
        }
        let mut writes: Vec<Write> = self.waiting.drain(..).map(|(_, write)| write).collect();
        let compact = writes.iter_mut().rev().find_map(|write| write.compact.take());
        writes.iter_mut().for_each(|write| write.compact = None);
        let must_sync = writes.iter().any(|write| write.must_sync || write.snapshot.is_some());
        (self.last_write, self.is_rested) = (self.cluster.world.now(), false);
        writes.iter().for_each(|write| self.disk.note_written(write));
        self.store.append(&writes)?;
        if must_sync {
            let sleep = self.sleep();
            self.sync = Some(Sync { sleep, number, compact });
            return Ok(None);
        }
        if let Some(snapshot) = compact {
            self.begin_snapshot(snapshot)?;
        }
        Ok(Some(number))
    }

    /// Notes what is synced when nothing has been written for a while, or `now`. Returns whether
    /// everything is on the disk and said to be.
    pub(super) fn rest(&mut self, now: bool) -> Result<bool, Error> {
        if self.sync.is_some() || !self.waiting.is_empty() {
            return Ok(false);
        }
        if !self.is_rested && (now || self.cluster.world.now().since(self.last_write) >= IDLE) {
            self.store.rest()?;
            self.is_rested = true;
        }
        Ok(self.is_rested)
    }

    fn begin_snapshot(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        while self.snapshot.is_some() {
            self.write_on(u64::MAX)?;
        }
        let writer = self.store.begin_snapshot(snapshot.at, snapshot.members.clone())?;
        let writing = Writing::Pieces(writer, snapshot.data.pieces());
        let write = Write { compact: Some(snapshot), ..Write::default() };
        self.snapshot = Some((self.sleep(), writing, write));
        Ok(())
    }

    /// Writes so many pieces of a snapshot, or lets it count when it is finished.
    fn write_on(&mut self, pieces: u64) -> Result<(), Error> {
        let Some((_, writing, write)) = self.snapshot.take() else { return Ok(()) };
        let finished = match writing {
            Writing::Pieces(mut writer, mut rest) => {
                let mut left = 0..pieces;
                let mut ended = false;
                while left.next().is_some() && !ended {
                    match rest.next() {
                        Some(piece) => writer.write(&piece.expect("it is in memory"))?,
                        None => ended = true,
                    }
                }
                let writing = match ended {
                    true => Writing::Finished(writer.finish()?),
                    false => Writing::Pieces(writer, rest),
                };
                self.snapshot = Some((self.sleep(), writing, write));
                return Ok(());
            }
            Writing::Finished(finished) => finished,
        };
        self.disk.note_written(&write);
        self.store.compact(finished)?;
        self.disk.note_synced();
        self.is_rested = false;
        Ok(())
    }

    fn sleep(&self) -> Sleep {
        let slow = self.cluster.chance(self.cluster.habits.slow_syncs);
        self.cluster.lock().counts.slow_syncs += u64::from(slow);
        let most = if slow { millis(800) } else { self.cluster.habits.sync };
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        let takes = Duration::from_micros(1 + self.cluster.below(most.max(1)));
        Box::pin(self.cluster.world.sleep(takes))
    }
}
