//! Between the library's types and ours.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft::eraftpb::{
    self, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, EntryType, HardState, Message,
    MessageType,
};
use stubborn_core::service::Image;

use super::{Ballot, Entry, EntryKind, Frame, MemberChange, Members, NodeId, Position, Snapshot};

/// What a candidate says that its leader wants to be succeeded by.
const TRANSFER: &[u8] = b"CampaignTransfer";

pub(super) fn entry_from(entry: eraftpb::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Command,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Members,
    };
    Entry { at: Position { index: entry.index, term: entry.term }, kind, data: entry.data }
}

pub(super) fn entry_to(entry: Entry) -> eraftpb::Entry {
    let mut to = eraftpb::Entry::default();
    to.set_entry_type(match entry.kind {
        EntryKind::Command => EntryType::EntryNormal,
        EntryKind::Members => EntryType::EntryConfChangeV2,
    });
    to.index = entry.at.index;
    to.term = entry.at.term;
    to.data = entry.data;
    to
}

pub(super) fn ballot_from(state: &HardState) -> Ballot {
    Ballot { term: state.term, vote: NodeId::new(state.vote), committed: state.commit }
}

pub(super) fn ballot_to(ballot: &Ballot) -> HardState {
    HardState {
        term: ballot.term,
        vote: ballot.vote.map_or(0, NodeId::get),
        commit: ballot.committed,
        ..HardState::default()
    }
}

pub(super) fn members_from(state: &ConfState) -> Members {
    let set = |nodes: &[u64]| nodes.iter().filter_map(|node| NodeId::new(*node)).collect();
    Members {
        voters: set(&state.voters),
        learners: set(&state.learners),
        outgoing: set(&state.voters_outgoing),
        learners_next: set(&state.learners_next),
        leaves_by_itself: state.auto_leave,
    }
}

pub(super) fn members_to(members: &Members) -> ConfState {
    let list = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| node.get()).collect::<Vec<_>>();
    ConfState {
        voters: list(&members.voters),
        learners: list(&members.learners),
        voters_outgoing: list(&members.outgoing),
        learners_next: list(&members.learners_next),
        auto_leave: members.leaves_by_itself,
        ..ConfState::default()
    }
}

/// The snapshot without its state: the library never sees that.
pub(super) fn snapshot_from(snapshot: &eraftpb::Snapshot) -> Snapshot {
    let meta = snapshot.get_metadata();
    Snapshot {
        at: Position { index: meta.index, term: meta.term },
        members: members_from(meta.get_conf_state()),
        data: Image::default(),
    }
}

pub(super) fn snapshot_to(snapshot: &Snapshot) -> eraftpb::Snapshot {
    let mut to = eraftpb::Snapshot::default();
    let meta = to.mut_metadata();
    meta.index = snapshot.at.index;
    meta.term = snapshot.at.term;
    meta.set_conf_state(members_to(&snapshot.members));
    to
}

pub(super) fn change_to(change: &MemberChange) -> ConfChangeV2 {
    let mut to = ConfChangeV2::default();
    let kinds = [
        (&change.voters, ConfChangeType::AddNode),
        (&change.learners, ConfChangeType::AddLearnerNode),
        (&change.remove, ConfChangeType::RemoveNode),
    ];
    for (nodes, kind) in kinds {
        for node in nodes {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = node.get();
            to.mut_changes().push(single);
        }
    }
    to
}

/// What the library wants to tell a node. None for what never leaves a node of ours.
pub(super) fn frame_from(mut message: Message) -> Option<(NodeId, Frame)> {
    let to = NodeId::new(message.to)?;
    let term = message.term;
    let last = Position { index: message.index, term: message.log_term };
    let committed = message.commit;
    let commit_position = Position { index: committed, term: message.commit_term };
    let read = || message.context.first_chunk().map(|read| u64::from_be_bytes(*read));
    let frame = match message.get_msg_type() {
        kind @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => {
            Frame::RequestVote {
                pre: kind == MessageType::MsgRequestPreVote,
                term,
                last,
                committed: commit_position,
                transfer: message.context == TRANSFER,
            }
        }
        kind @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => {
            Frame::Vote {
                pre: kind == MessageType::MsgRequestPreVoteResponse,
                term,
                granted: !message.reject,
                committed: commit_position,
            }
        }
        MessageType::MsgAppend => {
            let entries = message.take_entries().into_iter().map(entry_from).collect();
            Frame::Append { term, previous: last, committed, entries }
        }
        MessageType::MsgAppendResponse => Frame::Appended {
            term,
            index: message.index,
            committed,
            refused: message
                .reject
                .then_some(Position { index: message.reject_hint, term: message.log_term }),
            wants_snapshot: message.request_snapshot,
        },
        MessageType::MsgHeartbeat => Frame::Heartbeat { term, committed, read: read() },
        MessageType::MsgHeartbeatResponse => Frame::Heartbeaten { term, committed, read: read() },
        MessageType::MsgSnapshot => {
            Frame::Install { term, snapshot: snapshot_from(&message.take_snapshot()) }
        }
        MessageType::MsgTimeoutNow => Frame::Succeed { term },
        _ => return None,
    };
    Some((to, frame))
}

pub(super) fn frame_to(from: NodeId, to: NodeId, frame: Frame) -> Message {
    let (from, to, term) = (from.get(), to.get(), frame.term());
    let mut message = Message { from, to, term, ..Message::default() };
    match frame {
        Frame::RequestVote { pre, last, committed, transfer, .. } => {
            message.set_msg_type(match pre {
                true => MessageType::MsgRequestPreVote,
                false => MessageType::MsgRequestVote,
            });
            (message.index, message.log_term) = (last.index, last.term);
            (message.commit, message.commit_term) = (committed.index, committed.term);
            if transfer {
                message.context = Bytes::from_static(TRANSFER);
            }
        }
        Frame::Vote { pre, granted, committed, .. } => {
            message.set_msg_type(match pre {
                true => MessageType::MsgRequestPreVoteResponse,
                false => MessageType::MsgRequestVoteResponse,
            });
            message.reject = !granted;
            (message.commit, message.commit_term) = (committed.index, committed.term);
        }
        Frame::Append { previous, committed, entries, .. } => {
            message.set_msg_type(MessageType::MsgAppend);
            (message.index, message.log_term) = (previous.index, previous.term);
            message.commit = committed;
            message.set_entries(entries.into_iter().map(entry_to).collect());
        }
        Frame::Appended { index, committed, refused, wants_snapshot, .. } => {
            message.set_msg_type(MessageType::MsgAppendResponse);
            (message.index, message.commit) = (index, committed);
            message.request_snapshot = wants_snapshot;
            if let Some(hint) = refused {
                message.reject = true;
                (message.reject_hint, message.log_term) = (hint.index, hint.term);
            }
        }
        Frame::Heartbeat { committed, read, .. } => {
            message.set_msg_type(MessageType::MsgHeartbeat);
            message.commit = committed;
            message.context = read_context(read);
        }
        Frame::Heartbeaten { committed, read, .. } => {
            message.set_msg_type(MessageType::MsgHeartbeatResponse);
            message.commit = committed;
            message.context = read_context(read);
        }
        Frame::Install { snapshot, .. } => {
            message.set_msg_type(MessageType::MsgSnapshot);
            message.set_snapshot(snapshot_to(&snapshot));
        }
        Frame::Succeed { .. } => message.set_msg_type(MessageType::MsgTimeoutNow),
    }
    message
}

/// How a read is told apart in heartbeats.
pub(super) fn read_context(read: Option<u64>) -> Bytes {
    read.map_or_else(Bytes::new, |read| Bytes::copy_from_slice(&read.to_be_bytes()))
}
