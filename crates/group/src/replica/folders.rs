//! With which folder each node has begun. What a node has promised is in its folder alone: one that comes
//! with another folder under the same number has promised nothing, and is refused.
//!
//! Packets say from which folder they come, and for which they are, as far as the sender knows the
//! receiver's. A leader writes the first folder that it hears of from a node into the log, which makes it a
//! part of the roster, before the node gets any part in consensus. So whoever counts a node's vote, or
//! what it has acknowledged, has applied the entry that says whose word counts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stubborn_core::time::{Duration, Instant};

use super::Replica;
use super::entry::{Item, Origin, What};
use super::message::{self, Message, PacketError};
use super::settings::{FOLDERS_SINCE, Fault};
use crate::replication::{FolderId, NodeId, Role};

/// How often a node that is no member yet tells the others its folder.
const INTRODUCES_EVERY: Duration = Duration::from_millis(300);

/// What a replica knows of folders beside the roster.
#[derive(Debug, Default)]
pub(super) struct Folders {
    /// Its own.
    own: Option<FolderId>,
    /// Of nodes that the roster has without one, as this leader has heard.
    heard: BTreeMap<NodeId, FolderId>,
    introduces_at: Instant,
}

impl Folders {
    /// What was told to another leader counts for nothing here.
    pub(super) fn leader_changed(&mut self) {
        self.heard.clear();
    }
}

/// The bytes of an entry that says with which folder a node has begun, 8 of each number.
fn encode(node: NodeId, folder: FolderId) -> Bytes {
    [node.get(), folder.get()].into_iter().flat_map(u64::to_be_bytes).collect()
}

pub(super) fn decode(bytes: &[u8]) -> Option<(NodeId, FolderId)> {
    let (node, folder) = bytes.split_first_chunk::<8>()?;
    let folder = u64::from_be_bytes(folder.try_into().ok()?);
    Some((NodeId::new(u64::from_be_bytes(*node))?, FolderId::new(folder)?))
}

impl Replica {
    /// Its folder. Without one, folders are not looked at.
    pub fn in_folder(&mut self, folder: FolderId) {
        self.folders.own = Some(folder);
    }

    /// What a packet to this node begins with.
    pub(super) fn heading(&self, to: NodeId) -> Option<Message> {
        let to = self.state.roster().folder(to);
        Some(Message::Folders { from: self.folders.own?, to })
    }

    /// What a node tells all others that is no member yet, as far as it knows, when that is due.
    pub(crate) fn introduction(&mut self, now: Instant) -> Option<Bytes> {
        let from = self.folders.own?;
        if now < self.folders.introduces_at || self.members().contains(self.id) {
            return None;
        }
        self.folders.introduces_at = now + INTRODUCES_EVERY;
        Some(message::encode(self.group, &[Message::Folders { from, to: None }]))
    }

    /// Whether the packet comes from the folder that the roster knows of its sender, and is for this one. If
    /// it is for another folder, this replica has begun anew under a number whose promises it does not have,
    /// and stops.
    pub(super) fn check_folders(
        &mut self,
        from: NodeId,
        messages: &[Message],
    ) -> Result<(), PacketError> {
        let looks = !cfg!(feature = "planted-any-folder");
        let said = messages.iter().find_map(|message| match message {
            Message::Folders { from, to } => Some((*from, *to)),
            _ => None,
        });
        let (theirs, meant) = said.map_or((None, None), |(from, to)| (Some(from), to));
        if looks && meant.is_some_and(|meant| self.folders.own.is_some_and(|own| own != meant)) {
            self.fault.get_or_insert(Fault::OtherFolder);
            return Err(PacketError::OtherFolder);
        }
        let roster = self.state.roster();
        match (roster.folder(from), theirs) {
            (Some(known), theirs) if looks && theirs != Some(known) => {
                Err(PacketError::OtherFolder)
            }
            (None, Some(theirs)) if roster.seats().contains_key(&from) => {
                if self.consensus.status().role == Role::Leader {
                    self.folders.heard.insert(from, theirs);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes into the log with which folders nodes have begun, if this replica leads.
    pub(super) fn note_folders(&mut self, now: Instant) {
        let leads = self.consensus.status().role == Role::Leader;
        let (true, Some(time)) = (leads && self.knows_folders(), self.clock.at(now)) else {
            return;
        };
        let own = self.folders.own.map(|folder| (self.id, folder));
        let heard = self.folders.heard.iter().map(|(id, folder)| (*id, *folder)).chain(own);
        let missing = self.without_folder();
        let item = |(id, folder): (NodeId, FolderId)| {
            let origin = Origin { life: folder.get(), serial: 0 };
            Item { origin, what: What::Folder(encode(id, folder)) }
        };
        let items: Vec<Item> = heard.filter(|(id, _)| missing.contains(id)).map(item).collect();
        // What is refused now, or lost, is tried again with the next tick.
        let _ = self.propose(time, items);
    }

    /// Those of the roster that have to begin before they get a part in consensus.
    pub(super) fn without_folder(&self) -> BTreeSet<NodeId> {
        let roster = self.state.roster();
        let missing = |id: &NodeId| self.knows_folders() && roster.folder(*id).is_none();
        roster.seats().keys().copied().filter(missing).collect()
    }

    fn knows_folders(&self) -> bool {
        self.folders.own.is_some() && self.version() >= FOLDERS_SINCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_node_survives_the_log() {
        let (node, folder) = (NodeId::new(4).unwrap(), FolderId::new(u64::MAX - 1).unwrap());
        let bytes = encode(node, folder);
        assert_eq!(decode(&bytes), Some((node, folder)));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "{end}");
        }
        assert_eq!(decode(&[0; 16]), None);
    }
}
