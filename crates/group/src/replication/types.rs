//! What consensus takes and gives.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;

use bytes::Bytes;
use stubborn_core::service::Image;

use super::Frame;

/// A node of a group. A node that has lost its disk comes back under another number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The node of this number; none for 0.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Tells a node's folder from every other one that was ever made under its number: drawn at random when the
/// folder is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderId(NonZeroU64);

impl FolderId {
    /// The folder of this number; none for 0.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {:x}", self.0)
    }
}

/// A place in the log: which entry, and in which term it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The entry's number; the first is 1.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
}

impl Position {
    /// Whether there can be such a place: the one before the first entry has neither index nor term.
    pub const fn is_sound(self) -> bool {
        (self.index == 0) == (self.term == 0)
    }
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub at: Position,
    /// What it is.
    pub kind: EntryKind,
    /// What it says; empty where a leader only marks the beginning of its term.
    pub data: Bytes,
}

impl Entry {
    /// Whether the state machine has something to do.
    pub fn is_command(&self) -> bool {
        self.kind == EntryKind::Command && !self.data.is_empty()
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A command to the state machine.
    Command,
    /// A change of the group's members, in consensus' own bytes.
    Members,
}

/// Who belongs to the group. In the midst of a change both majorities are needed: that of `voters`
/// and that of `outgoing` (joint consensus, Raft thesis section 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// They elect and commit.
    pub voters: BTreeSet<NodeId>,
    /// They only receive the log.
    pub learners: BTreeSet<NodeId>,
    /// The voters before the change that is under way; empty if there is none.
    pub outgoing: BTreeSet<NodeId>,
    /// Voters of before that become learners when the change is done.
    pub learners_next: BTreeSet<NodeId>,
    /// The change ends by itself.
    pub leaves_by_itself: bool,
}

impl Members {
    /// A group of voters.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// All who have any part in the group; some twice in the midst of a change.
    pub fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        [&self.voters, &self.learners, &self.outgoing].into_iter().flatten().copied()
    }

    /// Whether a node has any part in the group.
    pub fn contains(&self, node: NodeId) -> bool {
        [&self.voters, &self.learners, &self.outgoing].iter().any(|set| set.contains(&node))
    }

    /// Whether a change of members is under way.
    pub fn is_changing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a group can be so: what a peer says is asked this before it is believed.
    pub fn is_sound(&self) -> bool {
        !self.voters.is_empty()
            && self.learners.is_disjoint(&self.voters)
            && self.learners.is_disjoint(&self.outgoing)
            && self.learners_next.is_subset(&self.outgoing)
            && self.learners_next.is_disjoint(&self.voters)
            && (self.is_changing() || !self.leaves_by_itself)
    }
}

/// A change of members. Several at once pass through joint consensus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// Nodes that become voters.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that become learners.
    pub learners: BTreeSet<NodeId>,
    /// Nodes that leave.
    pub remove: BTreeSet<NodeId>,
}

impl MemberChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.learners.is_empty() && self.remove.is_empty()
    }
}

/// What a node has promised, and what it knows to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    /// The latest term it has seen.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The last entry that it knows to be committed.
    pub committed: u64,
}

/// The state machine up to a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that is in it.
    pub at: Position,
    /// The members after that entry.
    pub members: Members,
    /// The state machine's own bytes.
    pub data: Image,
}

/// What a node's disk holds when it starts.
#[derive(Clone, Debug)]
pub struct Durable {
    /// What it has promised.
    pub ballot: Ballot,
    /// The state machine; of a new group the empty one, at index 0, with the first members.
    pub snapshot: Snapshot,
    /// The entries after the snapshot.
    pub entries: Vec<Entry>,
}

impl Durable {
    /// A node of a new group.
    pub fn new_group(members: Members) -> Self {
        let snapshot = Snapshot { at: Position::default(), members, data: Image::default() };
        Self { ballot: Ballot::default(), snapshot, entries: Vec::new() }
    }
}

/// A frame and who it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The node.
    pub to: NodeId,
    /// What it is told.
    pub frame: Frame,
}

/// What is to be written, in the order in which it was handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Takes the place of all that is in the log.
    pub snapshot: Option<Snapshot>,
    /// The node's own state machine at a place in its log: takes the place of the snapshot before it
    /// and of the entries up to that place; those after it stay. Consensus itself asks for none.
    pub compact: Option<Snapshot>,
    /// Take the place of whatever stands at their indices and after.
    pub entries: Vec<Entry>,
    /// Takes the place of the last one.
    pub ballot: Option<Ballot>,
    /// Whether the disk has to have it before [`Consensus::written`](super::Consensus::written) is
    /// called; otherwise the next write that has to be synced takes it along.
    pub must_sync: bool,
    /// Whether nobody waits for it, unless the others are slow: entries of a leader, which the disks of
    /// the others are enough to commit.
    pub may_wait: bool,
}

impl Write {
    /// Whether there is nothing to be written.
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_none()
            && self.compact.is_none()
            && self.entries.is_empty()
            && self.ballot.is_none()
    }
}

/// A read that may be answered once the entry of this index is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// What [`Consensus::read`](super::Consensus::read) was called with.
    pub read: u64,
    /// Everything that was committed when the read began is at or before it.
    pub index: u64,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Its number: for [`Consensus::written`](super::Consensus::written).
    pub number: u64,
    /// To be written.
    pub write: Write,
    /// To be sent at once.
    pub send: Vec<Outgoing>,
    /// To be sent when `write` is on the disk, not before.
    pub send_when_written: Vec<Outgoing>,
    /// To be applied, in order. A snapshot in `write` comes first.
    pub committed: Vec<Entry>,
    /// Reads whose index is known.
    pub reads: Vec<ReadIndex>,
}
