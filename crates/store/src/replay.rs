//! Puts the records of a log together again: what a node's disk holds.

use stubborn_group::replication::{Ballot, Entry, Position};

use crate::record::{Head, Record, SnapshotRef};

/// The state of a log after some of its records.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) ballot: Ballot,
    pub(crate) snapshot: SnapshotRef,
    /// The entry before `entries`; its term is 0 where it is not known and not needed.
    before: Position,
    /// The entries that are not known to be in the snapshot.
    entries: Vec<Entry>,
    /// The number of the last batch.
    pub(crate) batch: u64,
    pub(crate) run: u32,
}

impl Replay {
    pub(crate) fn start(head: &Head) -> Self {
        Self {
            ballot: head.ballot,
            snapshot: head.snapshot,
            before: head.last,
            entries: Vec::new(),
            batch: head.batch.wrapping_sub(1),
            run: head.run,
        }
    }

    /// The last entry of the log.
    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.before, |entry| entry.at)
    }

    /// Applies a record.
    ///
    /// # Errors
    /// If nothing that was written in order can say so.
    pub(crate) fn apply(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Entry(entry) => self.append(entry),
            Record::Ballot(ballot) => {
                self.ballot = ballot;
                Ok(())
            }
            Record::Snapshot { snapshot, installed: true } => {
                self.ballot.committed = self.ballot.committed.max(snapshot.at.index);
                self.snapshot = snapshot;
                self.before = snapshot.at;
                self.entries.clear();
                Ok(())
            }
            Record::Snapshot { snapshot, installed: false } => self.compact(snapshot),
            Record::Opened | Record::Sealed(_) => Ok(()),
        }
    }

    fn append(&mut self, entry: Entry) -> Result<(), &'static str> {
        let index = entry.at.index;
        if index <= self.snapshot.at.index || index > self.last().index.saturating_add(1) {
            return Err("the entry does not follow the one before it");
        }
        if index <= self.before.index {
            // It takes the place of entries in segments that are not needed any more.
            self.before = Position { index: index - 1, term: 0 };
            self.entries.clear();
        }
        self.entries.truncate((index - self.before.index - 1) as usize);
        if entry.at.term < self.last().term {
            return Err("the entry is of an earlier term than the one before it");
        }
        self.entries.push(entry);
        Ok(())
    }

    fn compact(&mut self, snapshot: SnapshotRef) -> Result<(), &'static str> {
        let Position { index, term } = snapshot.at;
        if index > self.last().index || index < self.snapshot.at.index {
            return Err("the snapshot is not of this log");
        }
        if index > self.before.index {
            let covered = (index - self.before.index) as usize;
            if self.entries[covered - 1].at.term != term {
                return Err("the snapshot is not of this log");
            }
            self.entries.drain(..covered);
            self.before = snapshot.at;
        }
        self.snapshot = snapshot;
        Ok(())
    }

    /// The last entry that is not there any more.
    pub(crate) fn before(&self) -> u64 {
        self.before.index
    }

    /// The entries after the snapshot, taken out.
    pub(crate) fn take_entries(&mut self) -> Vec<Entry> {
        self.before = self.last();
        std::mem::take(&mut self.entries)
    }
}
