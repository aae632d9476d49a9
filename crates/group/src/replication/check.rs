//! What a peer says is checked before the library sees it: the library trusts its peers, and panics
//! where they contradict themselves.

use std::fmt;

use raft::RawNode;

use super::log::Log;
use super::{Entry, Frame, Position};

/// Why a frame of a peer was not listened to. The node has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Term 0 is nobody's.
    NoTerm,
    /// There is no such place in a log.
    NoSuchPlace,
    /// Entries, or a snapshot, are newer than the leader that sends them, or go back in time.
    TermsOutOfOrder,
    /// A vote, or the frames of a leader, of this node's own number.
    FromItself,
    /// Committed entries would change.
    ContradictsCommitted,
    /// A follower says that it has entries which were never written; or this node, when it led, has
    /// sent them and then lost them with its power before they were synced.
    NeverWritten,
    /// Members that no group can have.
    UnsoundMembers,
    /// The leader counts on entries that this node does not have: either the leader lies, or this
    /// node's disk has lost what it had promised to keep. A node that lost its disk has to join as
    /// a new one.
    CountsOnLostEntries,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTerm => "the frame has no term",
            Self::NoSuchPlace => "there is no such place in a log",
            Self::TermsOutOfOrder => "terms are out of order",
            Self::FromItself => "the sender has the number of this node",
            Self::ContradictsCommitted => "committed entries would change",
            Self::NeverWritten => "the follower has entries that were never written",
            Self::UnsoundMembers => "no group can have such members",
            Self::CountsOnLostEntries => "the leader counts on entries that this node has lost",
        })
    }
}

impl std::error::Error for Refusal {}

/// Whether the library can take this frame in its present state.
pub(super) fn check(node: &RawNode<Log>, frame: &Frame) -> Result<(), Refusal> {
    let raft = &node.raft;
    if frame.term() == 0 {
        return Err(Refusal::NoTerm);
    }
    if !places(frame).all(Position::is_sound) {
        return Err(Refusal::NoSuchPlace);
    }
    match frame {
        Frame::Append { term, previous, entries, .. } => {
            check_terms(*term, *previous, entries)?;
            if *term < raft.term {
                return Ok(()); // it is only told so
            }
            check_committed(node, entries)
        }
        // Of an older term: the library ignores it.
        Frame::Heartbeat { term, committed, .. } => {
            if *term >= raft.term && *committed > raft.raft_log.last_index() {
                return Err(Refusal::CountsOnLostEntries);
            }
            Ok(())
        }
        Frame::Appended { index, refused, .. } => {
            let last = raft.raft_log.last_index();
            if refused.is_none() && *index > last {
                return Err(Refusal::NeverWritten);
            }
            Ok(())
        }
        Frame::Install { term, snapshot } => {
            if snapshot.at.term > *term || snapshot.at.term == 0 || snapshot.at.index == 0 {
                return Err(Refusal::TermsOutOfOrder);
            }
            if !snapshot.members.is_sound() {
                return Err(Refusal::UnsoundMembers);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The places in the log that a frame names.
fn places(frame: &Frame) -> impl Iterator<Item = Position> {
    let (first, second) = match frame {
        Frame::RequestVote { last, committed, .. } => (Some(*last), Some(*committed)),
        Frame::Vote { committed, .. } => (Some(*committed), None),
        Frame::Append { previous, .. } => (Some(*previous), None),
        Frame::Install { snapshot, .. } => (Some(snapshot.at), None),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

fn check_terms(leader: u64, previous: Position, entries: &[Entry]) -> Result<(), Refusal> {
    let mut before = previous.term;
    for entry in entries {
        if entry.at.term < before || entry.at.term == 0 {
            return Err(Refusal::TermsOutOfOrder);
        }
        before = entry.at.term;
    }
    if before > leader { Err(Refusal::TermsOutOfOrder) } else { Ok(()) }
}

fn check_committed(node: &RawNode<Log>, entries: &[Entry]) -> Result<(), Refusal> {
    let log = &node.raft.raft_log;
    let committed = entries.iter().take_while(|entry| entry.at.index <= log.committed);
    for entry in committed {
        // What is compacted cannot be compared any more; the library leaves it alone.
        if log.term(entry.at.index).is_ok_and(|term| term != 0 && term != entry.at.term) {
            return Err(Refusal::ContradictsCommitted);
        }
    }
    Ok(())
}
