//! What a disk was said to have synced is there when the node starts again; of what came after it, the
//! first so many writes, each as a whole.

use stubborn_group::replication::{Durable, Write};

use crate::disk::apply;
use crate::nodes::Broken;

/// What a disk must hold.
pub(in crate::groups) struct Promised {
    durable: Durable,
    /// May be there, in order.
    unsynced: Vec<Write>,
}

impl Promised {
    pub(in crate::groups) fn new(durable: Durable) -> Self {
        Self { durable, unsynced: Vec::new() }
    }

    pub(in crate::groups) fn written(&mut self, write: Write) {
        self.unsynced.push(write);
    }

    /// All that was written is there for good.
    pub(in crate::groups) fn synced(&mut self) {
        self.unsynced.drain(..).for_each(|write| apply(&mut self.durable, write));
    }

    /// This was found on the disk.
    pub(in crate::groups) fn found(&mut self, found: &Durable) -> Result<(), Broken> {
        let mut may_be = self.durable.clone();
        let mut rest = std::mem::take(&mut self.unsynced).into_iter();
        loop {
            if same(&may_be, found) {
                self.durable = may_be;
                return Ok(());
            }
            let Some(write) = rest.next() else { break };
            apply(&mut may_be, write);
        }
        let brief = |durable: &Durable| {
            let last = durable.entries.last().map_or(durable.snapshot.at, |entry| entry.at);
            format!("{:?}, snapshot {:?}, log to {last:?}", durable.ballot, durable.snapshot.at)
        };
        let what = format!(
            "the disk holds {}; {} was synced, {} written after it",
            brief(found),
            brief(&self.durable),
            brief(&may_be)
        );
        Err(("durability", what))
    }
}

fn same(a: &Durable, b: &Durable) -> bool {
    a.ballot == b.ballot && a.snapshot == b.snapshot && a.entries == b.entries
}
