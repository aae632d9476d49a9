//! What is to be told to the other replicas, gathered into packets.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use stubborn_core::service::Image;

use super::message::{self, Message};
use crate::replication::{Frame, NodeId};

/// Bytes after which a packet is not filled further.
const PACKET: usize = 48 << 10;

/// Something to be sent to another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who it is for.
    pub to: NodeId,
    /// Its bytes; hand them to [`Replica::receive`](super::Replica::receive) there.
    pub bytes: Bytes,
    /// How it is best sent.
    pub kind: PacketKind,
    /// The state of the snapshot that the packet installs, to be sent after it:
    /// [`Replica::begin_snapshot`](super::Replica::begin_snapshot). Such a packet is not to be begun
    /// while another one is under way to that replica.
    pub state: Option<Image>,
}

/// How a packet is best sent. Consensus makes up for any that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// Another one follows soon, which says the same: not worth a repetition.
    Beat,
    /// Worth a repetition.
    Normal,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: BTreeMap<NodeId, Vec<Message>>,
    packets: VecDeque<Packet>,
}

impl Outbox {
    pub(super) fn push(&mut self, to: NodeId, message: Message) {
        self.messages.entry(to).or_default().push(message);
    }

    /// The next packet. Each begins with the heading for its receiver, if there is one; but one that
    /// installs a state says that alone, and whoever leads was believed before.
    pub(super) fn poll(
        &mut self,
        group: u64,
        heading: impl Fn(NodeId) -> Option<Message>,
    ) -> Option<Packet> {
        if self.packets.is_empty() {
            while let Some((to, messages)) = self.messages.pop_first() {
                self.pack(group, to, heading(to), messages);
            }
        }
        self.packets.pop_front()
    }

    fn pack(&mut self, group: u64, to: NodeId, heading: Option<Message>, messages: Vec<Message>) {
        let (mut together, mut size) = (Vec::new(), 0);
        for mut message in messages {
            if let Some(state) = take_state(&mut message) {
                let bytes = message::encode(group, &[message]);
                let (kind, state) = (PacketKind::Normal, Some(state));
                self.packets.push_back(Packet { to, bytes, kind, state });
                continue;
            }
            let adds = roughly(&message);
            if size + adds > PACKET {
                self.close(group, to, &heading, &mut together);
                size = 0;
            }
            together.push(message);
            size += adds;
        }
        self.close(group, to, &heading, &mut together);
    }

    fn close(
        &mut self,
        group: u64,
        to: NodeId,
        heading: &Option<Message>,
        messages: &mut Vec<Message>,
    ) {
        if messages.is_empty() {
            return;
        }
        let beat = messages.iter().all(is_beat);
        let kind = if beat { PacketKind::Beat } else { PacketKind::Normal };
        messages.splice(..0, heading.clone());
        let bytes = message::encode(group, messages);
        self.packets.push_back(Packet { to, bytes, kind, state: None });
        messages.clear();
    }
}

/// Takes a snapshot's state out of the message.
fn take_state(message: &mut Message) -> Option<Image> {
    match message {
        Message::Frame(Frame::Install { snapshot, .. }) => Some(std::mem::take(&mut snapshot.data)),
        _ => None,
    }
}

fn is_beat(message: &Message) -> bool {
    matches!(
        message,
        Message::Frame(Frame::Heartbeat { read: None, .. } | Frame::Heartbeaten { read: None, .. })
    )
}

fn roughly(message: &Message) -> usize {
    const HEAD: usize = 32;
    HEAD + match message {
        Message::Frame(Frame::Append { entries, .. }) => {
            entries.iter().map(|entry| entry.data.len() + HEAD).sum()
        }
        Message::Forward(items) => items.iter().map(|item| item.what.bytes().len() + HEAD).sum(),
        _ => 0,
    }
}
