//! What nodes of a group tell one another, as bytes: frames of our own, so that a library's parser
//! never sees the network.
//!
//! A frame is a kind (one byte) and its fields in the order in which they are declared: numbers as
//! variable-length integers, lists with their length before them.

use bytes::Bytes;
use stubborn_core::wire::{Reader, varint};

use super::{Entry, EntryKind, Members, NodeId, Position, Snapshot};

/// Entries of one frame at most.
pub const MAX_ENTRIES: usize = 4_096;

/// Members of a group at most, of each sort.
const MAX_MEMBERS: usize = 64;

/// A frame that is none of the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the frame is malformed")
    }
}

impl std::error::Error for Malformed {}

/// What a node tells another one. The paper's names: Raft, figure 2, and thesis sections 3.10
/// (leadership transfer), 6.4 (reads) and 9.6 (pre-vote).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A candidate asks for a vote, or whether it would get one.
    RequestVote {
        /// Only asks whether.
        pre: bool,
        /// The term it wants to lead.
        term: u64,
        /// The end of its log.
        last: Position,
        /// What it knows to be committed.
        committed: Position,
        /// The leader wants to be succeeded by it: its own lease does not count.
        transfer: bool,
    },
    /// The answer to that.
    Vote {
        /// Only says whether.
        pre: bool,
        /// The term that was asked for, or a later one.
        term: u64,
        /// Whether it votes for the candidate.
        granted: bool,
        /// What it knows to be committed.
        committed: Position,
    },
    /// A leader's entries.
    Append {
        /// The leader's term.
        term: u64,
        /// The entry before them.
        previous: Position,
        /// What is committed.
        committed: u64,
        /// Their kinds, terms and data; their indices follow `previous`.
        entries: Vec<Entry>,
    },
    /// The answer to that, and to a snapshot.
    Appended {
        /// The follower's term.
        term: u64,
        /// The last entry that is the same, or the one before what is refused.
        index: u64,
        /// What the follower knows to be committed.
        committed: u64,
        /// The entries do not fit: where they may.
        refused: Option<Position>,
        /// A snapshot at or after this is wanted; 0 for none.
        wants_snapshot: u64,
    },
    /// A leader is there.
    Heartbeat {
        /// The leader's term.
        term: u64,
        /// What is committed, as far as the follower has it.
        committed: u64,
        /// The read that it confirms.
        read: Option<u64>,
    },
    /// The answer to that.
    Heartbeaten {
        /// The follower's term.
        term: u64,
        /// What the follower knows to be committed.
        committed: u64,
        /// The read that it confirms.
        read: Option<u64>,
    },
    /// A leader's state machine, for a node whose next entries the leader does not have any more.
    Install {
        /// The leader's term.
        term: u64,
        /// The state machine.
        snapshot: Snapshot,
    },
    /// The leader wants to be succeeded, now.
    Succeed {
        /// The leader's term.
        term: u64,
    },
}

const REQUEST_VOTE: u8 = 1;
const VOTE: u8 = 2;
const APPEND: u8 = 3;
const APPENDED: u8 = 4;
const HEARTBEAT: u8 = 5;
const HEARTBEATEN: u8 = 6;
const INSTALL: u8 = 7;
const SUCCEED: u8 = 8;

impl Frame {
    /// The sender's term.
    pub fn term(&self) -> u64 {
        match self {
            Self::RequestVote { term, .. }
            | Self::Vote { term, .. }
            | Self::Append { term, .. }
            | Self::Appended { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::Heartbeaten { term, .. }
            | Self::Install { term, .. }
            | Self::Succeed { term } => *term,
        }
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If it installs a state that cannot be read. A large state is no part of a frame: it is sent
    /// after it, and left out of it.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::RequestVote { pre, term, last, committed, transfer } => {
                start(&mut out, REQUEST_VOTE, *term);
                position(&mut out, *last);
                position(&mut out, *committed);
                out.push(u8::from(*pre) | u8::from(*transfer) << 1);
            }
            Self::Vote { pre, term, granted, committed } => {
                start(&mut out, VOTE, *term);
                position(&mut out, *committed);
                out.push(u8::from(*pre) | u8::from(*granted) << 1);
            }
            Self::Append { term, previous, committed, entries } => {
                start(&mut out, APPEND, *term);
                position(&mut out, *previous);
                varint::encode(*committed, &mut out);
                encode_entries(&mut out, entries);
            }
            Self::Appended { term, index, committed, refused, wants_snapshot } => {
                start(&mut out, APPENDED, *term);
                varint::encode(*index, &mut out);
                varint::encode(*committed, &mut out);
                varint::encode(*wants_snapshot, &mut out);
                out.push(u8::from(refused.is_some()));
                refused.iter().for_each(|hint| position(&mut out, *hint));
            }
            Self::Heartbeat { term, committed, read } => {
                heartbeat(&mut out, HEARTBEAT, *term, *committed, *read);
            }
            Self::Heartbeaten { term, committed, read } => {
                heartbeat(&mut out, HEARTBEATEN, *term, *committed, *read);
            }
            Self::Install { term, snapshot } => {
                start(&mut out, INSTALL, *term);
                encode_snapshot(&mut out, snapshot);
            }
            Self::Succeed { term } => start(&mut out, SUCCEED, *term),
        }
        out.into()
    }

    /// The frame of these bytes.
    ///
    /// # Errors
    /// If they are none, or more than one.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let frame = Self::read(&mut reader, bytes).ok_or(Malformed)?;
        if reader.is_empty() { Ok(frame) } else { Err(Malformed) }
    }

    fn read(reader: &mut Reader<'_>, bytes: &Bytes) -> Option<Self> {
        let kind = reader.u8().ok()?;
        let term = number(reader)?;
        Some(match kind {
            REQUEST_VOTE => {
                let (last, committed) = (read_position(reader)?, read_position(reader)?);
                let [pre, transfer] = two_flags(reader)?;
                Self::RequestVote { pre, term, last, committed, transfer }
            }
            VOTE => {
                let committed = read_position(reader)?;
                let [pre, granted] = two_flags(reader)?;
                Self::Vote { pre, term, granted, committed }
            }
            APPEND => {
                let (previous, committed) = (read_position(reader)?, number(reader)?);
                let entries = read_entries(reader, bytes, previous.index)?;
                Self::Append { term, previous, committed, entries }
            }
            APPENDED => Self::Appended {
                term,
                index: number(reader)?,
                committed: number(reader)?,
                wants_snapshot: number(reader)?,
                refused: if flag(reader)? { Some(read_position(reader)?) } else { None },
            },
            HEARTBEAT => {
                let (committed, read) = read_heartbeat(reader)?;
                Self::Heartbeat { term, committed, read }
            }
            HEARTBEATEN => {
                let (committed, read) = read_heartbeat(reader)?;
                Self::Heartbeaten { term, committed, read }
            }
            INSTALL => Self::Install { term, snapshot: read_snapshot(reader, bytes)? },
            SUCCEED => Self::Succeed { term },
            _ => return None,
        })
    }
}

fn start(out: &mut Vec<u8>, kind: u8, term: u64) {
    out.push(kind);
    varint::encode(term, out);
}

fn position(out: &mut Vec<u8>, position: Position) {
    varint::encode(position.index, out);
    varint::encode(position.term, out);
}

fn heartbeat(out: &mut Vec<u8>, kind: u8, term: u64, committed: u64, read: Option<u64>) {
    start(out, kind, term);
    varint::encode(committed, out);
    out.push(u8::from(read.is_some()));
    read.iter().for_each(|read| out.extend_from_slice(&read.to_be_bytes()));
}

fn encode_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    varint::encode(entries.len() as u64, out);
    for entry in entries {
        out.push(u8::from(entry.kind == EntryKind::Members));
        varint::encode(entry.at.term, out);
        sized(out, &entry.data);
    }
}

fn encode_snapshot(out: &mut Vec<u8>, snapshot: &Snapshot) {
    position(out, snapshot.at);
    let Members { voters, learners, outgoing, learners_next, leaves_by_itself } = &snapshot.members;
    for set in [voters, learners, outgoing, learners_next] {
        varint::encode(set.len() as u64, out);
        set.iter().for_each(|node| varint::encode(node.get(), out));
    }
    out.push(u8::from(*leaves_by_itself));
    let data = snapshot.data.to_bytes().expect("what is sent in one frame is in memory");
    sized(out, &data);
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::encode(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn number(reader: &mut Reader<'_>) -> Option<u64> {
    // Half of what a varint carries: a sum of two, or one more, never overflows.
    reader.varint().ok().filter(|number| *number <= varint::MAX / 2)
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    let byte = reader.u8().ok()?;
    (byte <= 1).then_some(byte == 1)
}

fn two_flags(reader: &mut Reader<'_>) -> Option<[bool; 2]> {
    let byte = reader.u8().ok()?;
    (byte <= 3).then_some([byte & 1 != 0, byte & 2 != 0])
}

fn read_position(reader: &mut Reader<'_>) -> Option<Position> {
    Some(Position { index: number(reader)?, term: number(reader)? })
}

fn read_heartbeat(reader: &mut Reader<'_>) -> Option<(u64, Option<u64>)> {
    let committed = number(reader)?;
    let read = if flag(reader)? { Some(u64::from_be_bytes(reader.array().ok()?)) } else { None };
    Some((committed, read))
}

fn read_entries(reader: &mut Reader<'_>, bytes: &Bytes, previous: u64) -> Option<Vec<Entry>> {
    let count = usize::try_from(number(reader)?).ok().filter(|count| *count <= MAX_ENTRIES)?;
    let mut entries = Vec::with_capacity(count.min(reader.remaining()));
    for index in (previous + 1..).take(count) {
        let kind = if flag(reader)? { EntryKind::Members } else { EntryKind::Command };
        let at = Position { index, term: number(reader)? };
        entries.push(Entry { at, kind, data: read_sized(reader, bytes)? });
    }
    Some(entries)
}

fn read_snapshot(reader: &mut Reader<'_>, bytes: &Bytes) -> Option<Snapshot> {
    let at = read_position(reader)?;
    let members = Members {
        voters: read_nodes(reader)?,
        learners: read_nodes(reader)?,
        outgoing: read_nodes(reader)?,
        learners_next: read_nodes(reader)?,
        leaves_by_itself: flag(reader)?,
    };
    Some(Snapshot { at, members, data: read_sized(reader, bytes)?.into() })
}

fn read_nodes(reader: &mut Reader<'_>) -> Option<std::collections::BTreeSet<NodeId>> {
    let count = usize::try_from(number(reader)?).ok().filter(|count| *count <= MAX_MEMBERS)?;
    let mut nodes = std::collections::BTreeSet::new();
    for _ in 0..count {
        // Twice the same node is no set.
        if !nodes.insert(NodeId::new(number(reader)?)?) {
            return None;
        }
    }
    Some(nodes)
}

fn read_sized(reader: &mut Reader<'_>, bytes: &Bytes) -> Option<Bytes> {
    let data = reader.length_prefixed().ok()?;
    Some(bytes.slice_ref(data))
}
