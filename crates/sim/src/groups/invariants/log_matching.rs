//! Two logs that have an entry of the same index and term are the same up to it. It is enough that
//! such entries are the same, and that those before them are of the same term.

use std::collections::BTreeMap;

use stubborn_group::replication::{Entry, NodeId};

use crate::nodes::Broken;

#[derive(Default)]
pub(super) struct LogMatching(BTreeMap<(u64, u64), Seen>);

struct Seen {
    by: NodeId,
    entry: Entry,
    before: Option<u64>,
}

impl LogMatching {
    /// An entry is in a node's log, behind one of this term, if it is known.
    pub(super) fn on_entry(
        &mut self,
        id: NodeId,
        entry: &Entry,
        before: Option<u64>,
    ) -> Result<(), Broken> {
        let seen = self.0.entry((entry.at.index, entry.at.term)).or_insert_with(|| Seen {
            by: id,
            entry: entry.clone(),
            before,
        });
        let other = seen.by;
        if seen.entry != *entry {
            let what = format!("{other} and {id} have different entries at {:?}", entry.at);
            return Err(("log matching", what));
        }
        match (seen.before, before) {
            (Some(first), Some(second)) if first != second => {
                let what = format!(
                    "before {:?} {other} has an entry of term {first}, {id} one of term {second}",
                    entry.at
                );
                Err(("log matching", what))
            }
            (None, _) => {
                seen.before = before;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
