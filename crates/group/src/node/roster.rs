//! A node follows the roster of its group: it speaks to whoever is in it, and tells its clients where
//! the members are.

use std::net::SocketAddr;

use stubborn_core::service::{CallError, Code, Outcome, Status};
use stubborn_core::time::Instant;

use super::{GroupEvent, GroupNode};
use crate::replica::Seat;
use crate::replication::{Members, NodeId};

/// The roster and the members that this node has followed last.
#[derive(Debug, Default)]
pub(super) struct Followed {
    seats: Vec<(NodeId, Seat)>,
    members: Members,
    version: u64,
}

/// What a node is told that has left the group and does not know.
pub(super) fn left(node: NodeId) -> Status {
    Status::failed_precondition(format!("{node} has left the group"))
}

/// Whether a peer says that this node has left.
pub(super) fn says_left(error: &CallError) -> bool {
    matches!(error.outcome(), Outcome::Executed(status) if status.code() == Code::FailedPrecondition)
}

impl GroupNode {
    /// The driver has looked up where a member is.
    pub fn found(&mut self, now: Instant, id: NodeId, address: SocketAddr) {
        let seat = self.followed.seats.iter().find(|(other, _)| *other == id);
        if let Some((_, seat)) = seat {
            self.peers.found(now, &mut self.node, id, seat, address);
        }
    }

    /// Speaks to the members that there are now, and tells clients where they are, if the roster has
    /// changed.
    pub(super) fn follow_roster(&mut self, now: Instant) {
        let (roster, members) = (self.replica.roster(), self.replica.members());
        let changed = roster.version() != self.followed.version;
        if roster.is_empty() || !changed && *members == self.followed.members {
            return;
        }
        // Who is to leave is spoken to until it has.
        let leaving = members.all().filter(|id| !roster.seats().contains_key(id));
        let ids = roster.seats().keys().copied().chain(leaving);
        let seats = ids.filter_map(|id| Some((id, roster.seat(id)?.clone()))).collect();
        let version = roster.version();
        let addresses: Vec<String> =
            roster.seats().values().map(|seat| seat.address.clone()).collect();
        self.followed = Followed { seats, members: members.clone(), version };
        let seats = &self.followed.seats;
        for (id, address) in self.peers.follow(now, &mut self.node, seats, version == 0) {
            self.events.push_back(GroupEvent::LookUp(id, address));
        }
        if changed {
            self.node.tell_members(now, version, &addresses);
        }
    }
}
