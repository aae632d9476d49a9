//! What replicas tell one another, as bytes.
//!
//! A packet is a version (one byte), the group's id (8 bytes) and messages, each a kind (one byte)
//! and its own bytes behind their length.

use bytes::Bytes;
use stubborn_core::wire::{Reader, varint};

use super::entry::{Item, decode_items, encode_items};
use crate::replication::{FolderId, Frame};

const VERSION: u8 = 1;

/// What a replica tells another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Consensus.
    Frame(Frame),
    /// To the leader: write this into the log.
    Forward(Vec<Item>),
    /// To the leader: up to where is the log committed? The answer tells the question's number.
    AskIndex(u64),
    /// The answer: the log is committed up to here.
    Index { read: u64, index: u64 },
    /// To the leader: the versions of commands that each machine of the sender supports.
    Supports(Vec<(u32, u32)>),
    /// From which folder the packet comes, and for which it is, if the sender knows that.
    Folders { from: FolderId, to: Option<FolderId> },
    /// What a later program says.
    Unknown,
}

/// Why a packet of a peer was not listened to. The replica has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// It is none of the protocol's.
    Malformed,
    /// The sender is a member of another group, or of one that was restored since.
    OtherGroup(u64),
    /// The sender is known by another folder, or this node is.
    OtherFolder,
    /// Consensus refuses it.
    Refused(crate::replication::Refusal),
}

impl std::fmt::Display for PacketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed => f.write_str("the packet is malformed"),
            Self::OtherGroup(group) => write!(f, "the sender belongs to the group {group:x}"),
            Self::OtherFolder => f.write_str("the number is known with another folder"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for PacketError {}

const FRAME: u8 = 1;
const FORWARD: u8 = 2;
const ASK_INDEX: u8 = 3;
const INDEX: u8 = 4;
const SUPPORTS: u8 = 5;
const FOLDERS: u8 = 6;

/// The packet of these messages.
pub(super) fn encode(group: u64, messages: &[Message]) -> Bytes {
    let mut out = Vec::with_capacity(64);
    out.push(VERSION);
    out.extend_from_slice(&group.to_be_bytes());
    let mut body = Vec::new();
    for message in messages {
        body.clear();
        let kind = match message {
            Message::Frame(frame) => {
                put(FRAME, &frame.encode(), &mut out);
                continue;
            }
            Message::Forward(items) => {
                encode_items(items, &mut body);
                FORWARD
            }
            Message::AskIndex(read) => {
                body.extend_from_slice(&read.to_be_bytes());
                ASK_INDEX
            }
            Message::Index { read, index } => {
                body.extend_from_slice(&read.to_be_bytes());
                varint::encode(*index, &mut body);
                INDEX
            }
            Message::Supports(versions) => {
                for (least, most) in versions {
                    body.extend_from_slice(&least.to_be_bytes());
                    body.extend_from_slice(&most.to_be_bytes());
                }
                SUPPORTS
            }
            Message::Folders { from, to } => {
                let both = [Some(*from), *to];
                both.iter()
                    .flatten()
                    .for_each(|id| body.extend_from_slice(&id.get().to_be_bytes()));
                FOLDERS
            }
            Message::Unknown => continue,
        };
        put(kind, &body, &mut out);
    }
    out.into()
}

/// The messages of a packet of this group.
pub(super) fn decode(group: u64, bytes: &Bytes) -> Result<Vec<Message>, PacketError> {
    let mut reader = Reader::new(bytes);
    if reader.u8() != Ok(VERSION) {
        return Err(PacketError::Malformed);
    }
    let sender = reader.array().map(u64::from_be_bytes).map_err(|_| PacketError::Malformed)?;
    if sender != group {
        return Err(PacketError::OtherGroup(sender));
    }
    let mut messages = Vec::new();
    while !reader.is_empty() {
        messages.push(read(&mut reader, bytes).ok_or(PacketError::Malformed)?);
    }
    Ok(messages)
}

fn put(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    varint::encode(body.len() as u64, out);
    out.extend_from_slice(body);
}

fn read(reader: &mut Reader<'_>, bytes: &Bytes) -> Option<Message> {
    let kind = reader.u8().ok()?;
    let body = bytes.slice_ref(reader.length_prefixed().ok()?);
    let mut inner = Reader::new(&body);
    let message = match kind {
        FRAME => return Some(Message::Frame(Frame::decode(&body).ok()?)),
        FORWARD => Message::Forward(decode_items(&mut inner, &body)?),
        ASK_INDEX => Message::AskIndex(u64::from_be_bytes(inner.array().ok()?)),
        INDEX => Message::Index {
            read: u64::from_be_bytes(inner.array().ok()?),
            index: inner.varint().ok()?,
        },
        SUPPORTS => {
            let mut versions = Vec::new();
            while !inner.is_empty() {
                let mut number = || inner.array().map(u32::from_be_bytes).ok();
                versions.push((number()?, number()?));
            }
            Message::Supports(versions)
        }
        FOLDERS => {
            let mut folder = || FolderId::new(u64::from_be_bytes(inner.array().ok()?));
            let from = folder()?;
            Message::Folders { from, to: folder() }
        }
        _ => return Some(Message::Unknown),
    };
    inner.is_empty().then_some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::{Origin, What};
    use super::*;

    #[test]
    fn messages_survive_the_way_and_those_of_other_groups_are_told() {
        let item = Item {
            origin: Origin { life: 7, serial: 9 },
            what: What::Command(Bytes::from_static(b"do")),
        };
        let folder = FolderId::new(u64::MAX).unwrap();
        let messages = vec![
            Message::Frame(Frame::Succeed { term: 3 }),
            Message::Forward(vec![item]),
            Message::AskIndex(u64::MAX),
            Message::Index { read: 1, index: 70_000 },
            Message::Supports(vec![(1, 2), (3, u32::MAX)]),
            Message::Folders { from: folder, to: None },
            Message::Folders { from: folder, to: FolderId::new(9) },
        ];
        let packet = encode(5, &messages);
        assert_eq!(decode(5, &packet), Ok(messages));
        assert_eq!(decode(6, &packet), Err(PacketError::OtherGroup(5)));
    }

    #[test]
    fn what_a_later_program_says_is_passed_over() {
        let mut packet = encode(5, &[Message::AskIndex(1)]).to_vec();
        put(200, b"news", &mut packet);
        put(SUPPORTS, &[0, 0, 0, 1, 0, 0, 0, 2], &mut packet);
        let told = [Message::AskIndex(1), Message::Unknown, Message::Supports(vec![(1, 2)])];
        assert_eq!(decode(5, &packet.into()).unwrap(), told);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut packet = vec![VERSION, 0, 0, 0, 0, 0, 0, 0, 0];
            packet.extend_from_slice(&bytes);
            let _ = decode(0, &packet.into());
        }
    }
}
