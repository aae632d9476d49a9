//! A simulated disk: what is written may be lost until it is synced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stubborn_core::random::Random;
use stubborn_group::replication::{Durable, Write};

/// The disk of a node. It outlives the process: clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<Contents>>);

struct Contents {
    durable: Durable,
    /// Written, not synced, in order. A checksum lets a record that is half written count as none.
    unsynced: Vec<Write>,
    random: Random,
}

impl Disk {
    pub(crate) fn new(durable: Durable, random: Random) -> Self {
        Self(Arc::new(Mutex::new(Contents { durable, unsynced: Vec::new(), random })))
    }

    /// What is there after a crash: of what was not synced some of the first records, by chance.
    pub(crate) fn recover(&self) -> Durable {
        let mut contents = self.lock();
        let count = contents.unsynced.len() as u64 + 1;
        let kept = contents.random.below(count) as usize;
        let writes: Vec<Write> = std::mem::take(&mut contents.unsynced);
        writes.into_iter().take(kept).for_each(|write| apply(&mut contents.durable, write));
        contents.durable.clone()
    }

    pub(crate) fn write(&self, write: Write) {
        self.lock().unsynced.push(write);
    }

    /// How many writes are not synced.
    pub(crate) fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// The first so many writes are there for good.
    pub(crate) fn sync(&self, writes: usize) {
        let mut contents = self.lock();
        let synced: Vec<Write> = contents.unsynced.drain(..writes).collect();
        synced.into_iter().for_each(|write| apply(&mut contents.durable, write));
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a disk holds after a write.
pub(crate) fn apply(durable: &mut Durable, write: Write) {
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
    if let Some(snapshot) = write.compact
        && snapshot.at.index > durable.snapshot.at.index
    {
        durable.entries.retain(|entry| entry.at.index > snapshot.at.index);
        durable.snapshot = snapshot;
    }
}
