//! The log of every node, as it was handed to its disk.

use std::collections::BTreeMap;

use stubborn_group::replication::{Durable, Entry, NodeId, Position, Write};

#[derive(Default)]
pub(super) struct Logs(BTreeMap<NodeId, Log>);

/// A node's log. Entries that its own snapshots have replaced are in it still.
pub(super) struct Log {
    /// What was before the first entry.
    pub(super) base: Position,
    entries: BTreeMap<u64, Entry>,
    /// The first entry that was not compared with those of others when it was applied.
    pub(super) checked: u64,
}

impl Logs {
    pub(super) fn start(&mut self, id: NodeId, durable: &Durable) {
        let entries = durable.entries.iter().map(|entry| (entry.at.index, entry.clone()));
        let base = durable.snapshot.at;
        let checked = base.index + 1;
        self.0.insert(id, Log { base, entries: entries.collect(), checked });
    }

    pub(super) fn write(&mut self, id: NodeId, write: &Write) {
        let log = self.of_mut(id);
        if let Some(snapshot) = &write.snapshot {
            *log =
                Log { base: snapshot.at, entries: BTreeMap::new(), checked: snapshot.at.index + 1 };
        }
        if let Some(first) = write.entries.first() {
            log.entries.split_off(&first.at.index);
        }
        log.entries.extend(write.entries.iter().map(|entry| (entry.at.index, entry.clone())));
    }

    pub(super) fn of(&self, id: NodeId) -> &Log {
        &self.0[&id]
    }

    pub(super) fn of_mut(&mut self, id: NodeId) -> &mut Log {
        self.0.get_mut(&id).expect("a node starts before it writes")
    }

    /// The term of the entry before this one, if the node has it.
    pub(super) fn term_before(&self, id: NodeId, index: u64) -> Option<u64> {
        let log = self.of(id);
        if log.base.index + 1 == index {
            return Some(log.base.term);
        }
        log.get(index - 1).map(|entry| entry.at.term)
    }
}

impl Log {
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(&index)
    }
}
