//! Replicas that have applied the same entries are the same, byte for byte: their machines, their
//! sessions, and which of those have expired.

use std::collections::BTreeMap;

use stubborn_group::replication::NodeId;
use xxhash_rust::xxh3::xxh3_64;

use crate::nodes::Broken;

/// The state of the first replica that came to an entry.
#[derive(Default)]
pub(super) struct SameState(BTreeMap<u64, (NodeId, u64)>);

impl SameState {
    pub(super) fn on_image(&mut self, id: NodeId, index: u64, image: &[u8]) -> Result<(), Broken> {
        let hash = xxh3_64(image);
        let (first, known) = *self.0.entry(index).or_insert((id, hash));
        if known == hash {
            return Ok(());
        }
        let what = format!("{first} and {id} have different states after entry {index}");
        Err(("replicas are the same", what))
    }

    /// A state that was made from the log alone is that of the replicas.
    pub(super) fn is_known(&self, index: u64, image: &[u8]) -> Result<(), Broken> {
        match self.0.get(&index) {
            Some((_, hash)) if *hash == xxh3_64(image) => Ok(()),
            Some((id, _)) => {
                let what = format!("{id} has another state after entry {index} than its log says");
                Err(("replicas are the same", what))
            }
            None => Err(("replicas are the same", format!("nobody is known to be at {index}"))),
        }
    }
}
