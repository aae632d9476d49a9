//! A simulated disk: what is written may be lost until it is synced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stubborn_core::random::Random;
use stubborn_group::replication::{Durable, Snapshot, Write};

/// The disk of a replica. It outlives the process: clones are the same disk.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<Contents>>);

struct Contents {
    durable: Durable,
    /// Written, not synced, in order.
    unsynced: Vec<Record>,
    random: Random,
}

/// What is written at once. A checksum lets a record that is half written count as not written.
#[derive(Clone)]
pub(super) enum Record {
    /// Of consensus.
    Work(Box<Write>),
    /// A snapshot of the node's own state machine.
    Compact(Snapshot),
}

impl Disk {
    pub(super) fn new(durable: Durable, random: Random) -> Self {
        Self(Arc::new(Mutex::new(Contents { durable, unsynced: Vec::new(), random })))
    }

    /// What is there after a crash: of what was not synced some of the first records, by chance.
    pub(super) fn recover(&self) -> Durable {
        let mut contents = self.lock();
        let count = contents.unsynced.len() as u64 + 1;
        let kept = contents.random.below(count) as usize;
        let records: Vec<Record> = std::mem::take(&mut contents.unsynced);
        records.into_iter().take(kept).for_each(|record| contents.apply(record));
        contents.durable.clone()
    }

    pub(super) fn write(&self, record: Record) {
        self.lock().unsynced.push(record);
    }

    /// How many records are not synced.
    pub(super) fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// The first so many records are there for good.
    pub(super) fn sync(&self, records: usize) {
        let mut contents = self.lock();
        let synced: Vec<Record> = contents.unsynced.drain(..records).collect();
        synced.into_iter().for_each(|record| contents.apply(record));
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn apply(&mut self, record: Record) {
        let durable = &mut self.durable;
        match record {
            Record::Work(write) => {
                let write = *write;
                if let Some(snapshot) = write.snapshot {
                    durable.ballot.committed = durable.ballot.committed.max(snapshot.at.index);
                    durable.snapshot = snapshot;
                    durable.entries.clear();
                }
                if let Some(first) = write.entries.first().map(|entry| entry.at.index) {
                    durable.entries.retain(|entry| entry.at.index < first);
                }
                durable.entries.extend(write.entries);
                durable.ballot = write.ballot.unwrap_or(durable.ballot);
            }
            Record::Compact(snapshot) if snapshot.at.index > durable.snapshot.at.index => {
                durable.entries.retain(|entry| entry.at.index > snapshot.at.index);
                durable.snapshot = snapshot;
            }
            Record::Compact(_) => {}
        }
    }
}
