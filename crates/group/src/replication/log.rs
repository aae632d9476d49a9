//! The log in memory, as the library reads it: the entries after the snapshot, and some before it
//! for followers that are a little behind.

use std::cell::Cell;

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use stubborn_core::service::Image;

use super::Position;
use super::translate::snapshot_to;

pub(super) struct Log {
    hard_state: HardState,
    /// The latest one, without its state.
    snapshot: Snapshot,
    /// What a node gets that needs entries from before `entries`: kept only as long as one does, since
    /// of what changes meanwhile there are two copies.
    offered: Option<super::Snapshot>,
    /// Index and term of the entry before `entries`.
    compacted: (u64, u64),
    entries: Vec<Entry>,
    /// The last applied entry that changed the members. A snapshot from before it is of no use to
    /// who joined by it: the library ignores a snapshot in which it does not find itself.
    members_changed: u64,
    /// A snapshot was asked for, and the one that is here is too old.
    wanted: Cell<bool>,
}

impl Log {
    pub(super) fn new(hard_state: HardState, snapshot: Snapshot, entries: Vec<Entry>) -> Self {
        let meta = snapshot.get_metadata();
        let compacted = (meta.index, meta.term);
        Self {
            hard_state,
            snapshot,
            offered: None,
            compacted,
            entries,
            members_changed: compacted.0,
            wanted: Cell::new(false),
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    /// Whether term or vote have changed.
    pub(super) fn set_hard_state(&mut self, hard_state: HardState) -> bool {
        let old = std::mem::replace(&mut self.hard_state, hard_state);
        (old.term, old.vote) != (self.hard_state.term, self.hard_state.vote)
    }

    /// Takes a snapshot of a leader in the place of all that is here.
    pub(super) fn install(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        self.compacted = (meta.index, meta.term);
        self.hard_state.commit = self.hard_state.commit.max(meta.index);
        self.entries.clear();
        self.members_changed = self.compacted.0;
        self.snapshot = snapshot;
        self.offered = None;
        self.wanted.set(false);
    }

    /// A node that needs it may have this snapshot.
    pub(super) fn offer(&mut self, snapshot: super::Snapshot) {
        self.offered = Some(snapshot);
        self.wanted.set(false);
    }

    /// Nobody needs a snapshot.
    pub(super) fn withdraw(&mut self) {
        self.offered = None;
        self.wanted.set(false);
    }

    /// The state of the snapshot at this place, if it is on offer.
    pub(super) fn state_at(&self, at: Position) -> Option<Image> {
        let offered = self.offered.as_ref().filter(|offered| offered.at == at);
        offered.map(|offered| offered.data.clone())
    }

    /// The entry of this index has changed the members.
    pub(super) fn note_members(&mut self, index: u64) {
        self.members_changed = index;
    }

    /// Whether a follower waits for a newer snapshot than there is.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.wanted.get()
    }

    /// Puts entries in the place of those at their indices and after.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.compacted.0 && first.index <= self.last() + 1,
            "entries from {} on do not fit a log of {} to {}",
            first.index,
            self.compacted.0 + 1,
            self.last()
        );
        self.entries.truncate((first.index - self.compacted.0 - 1) as usize);
        self.entries.extend_from_slice(entries);
    }

    /// Takes a snapshot of this node's state machine, and drops the entries that are in it but for
    /// the last `keep`; for a node that is being sent an older snapshot, for the last `keep_most`.
    pub(super) fn compact(&mut self, snapshot: Snapshot, keep: u64, keep_most: u64) {
        let index = snapshot.get_metadata().index;
        self.snapshot = snapshot;
        // Who gets what is on offer needs the entries after it.
        let needed = self.offered.as_ref().map_or(index, |offered| offered.at.index);
        let upto = index.saturating_sub(keep).min(needed.max(index.saturating_sub(keep_most)));
        if upto <= self.compacted.0 {
            return;
        }
        let dropped = (upto - self.compacted.0) as usize;
        self.compacted = (upto, self.entries[dropped - 1].term);
        self.entries.drain(..dropped);
    }

    /// The entries after this index, up to the other one.
    pub(super) fn after(&self, index: u64, last: u64) -> &[Entry] {
        let place = |index: u64| {
            usize::try_from(index.saturating_sub(self.compacted.0)).map_or(0, |place| place)
        };
        let end = place(last).min(self.entries.len());
        &self.entries[place(index).min(end)..end]
    }

    fn find(&self, index: u64) -> Result<u64, Error> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        if index < self.compacted.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let place = (index - self.compacted.0 - 1) as usize;
        let entry = self.entries.get(place).ok_or(Error::Store(StorageError::Unavailable))?;
        Ok(entry.term)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state: ConfState = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.compacted.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries up to {high} of a log up to {}", self.last());
        let range = (low - self.compacted.0 - 1) as usize..(high - self.compacted.0 - 1) as usize;
        let entries = &self.entries[range];
        let Some(limit) = max_size.into() else { return Ok(entries.to_vec()) };
        let mut size = 0;
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size += u64::from(entry.compute_size());
            first || size <= limit
        };
        Ok(entries.iter().take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.find(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.compacted.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // One from before the first entry would be followed by entries that are not here.
        let least = request_index.max(self.members_changed).max(self.compacted.0);
        match self.offered.as_ref().filter(|offered| offered.at.index >= least) {
            Some(offered) => Ok(snapshot_to(offered)),
            None => {
                self.wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
