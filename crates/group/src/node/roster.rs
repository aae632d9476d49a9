//! A node follows the roster of its group: it speaks to whoever is in it, and tells its clients where
//! the members are.

use std::net::SocketAddr;

use stubborn_core::service::{CallError, Code, Outcome, Status};
use stubborn_core::time::{Duration, Instant};
use stubborn_core::wire::{Reader, varint};

use super::{GroupConfig, GroupEvent, GroupNode, Peer};
use crate::replica::Seat;
use crate::replication::{Members, NodeId, Position};

/// Between two questions who the members are.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Members that a peer may name.
const MOST: u64 = 64;

/// The roster and the members that this node has followed last.
#[derive(Debug, Default)]
pub(super) struct Followed {
    seats: Vec<(NodeId, Seat)>,
    members: Members,
    version: u64,
    /// Those that this node is configured with.
    configured: Vec<(NodeId, Seat)>,
    /// What a peer says of a later roster than that of this node.
    hearsay: Hearsay,
    /// When peers may be asked again.
    asks_at: Instant,
    /// Where members are to be by orders of which this node does not know that they are committed.
    ordered: Vec<(NodeId, String)>,
    /// The end of the log when such orders were looked for.
    looked_at: Position,
}

/// Who belongs to a group, or is about to leave it, as one of its nodes tells another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hearsay {
    version: u64,
    seats: Vec<(NodeId, Seat)>,
}

impl Followed {
    /// Of a node that is configured with these.
    pub(super) fn new(config: &GroupConfig) -> Self {
        let known = config.peers.iter().filter(|peer| peer.id != config.id);
        let seat = |peer: &Peer| {
            let seat = Seat { address: peer.address.to_string(), key: peer.identity?.to_vec() };
            Some((peer.id, seat))
        };
        Self { configured: known.filter_map(seat).collect(), ..Self::default() }
    }
}

impl Hearsay {
    /// Appends it: the version, how many there are, and for each its number, address and key.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        varint::encode(self.version, out);
        varint::encode(self.seats.len() as u64, out);
        for (id, seat) in &self.seats {
            varint::encode(id.get(), out);
            for bytes in [seat.address.as_bytes(), &seat.key] {
                varint::encode(bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (version, count) = (reader.varint().ok()?, reader.varint().ok()?);
        let mut seats = Vec::new();
        for _ in 0..count.min(MOST) {
            let id = NodeId::new(reader.varint().ok()?)?;
            let address = std::str::from_utf8(reader.length_prefixed().ok()?).ok()?.to_owned();
            let key = reader.length_prefixed().ok()?.to_vec();
            seats.push((id, Seat { address, key }));
        }
        (count <= MOST && reader.is_empty()).then_some(Self { version, seats })
    }
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
    /// The driver has looked up where a member is that is said to be at `name`: it may be somewhere else
    /// by now.
    pub fn found(&mut self, now: Instant, id: NodeId, name: &str, address: SocketAddr) {
        let seats = self.followed.seats.iter().chain(&self.followed.hearsay.seats);
        let known = seats.into_iter().find(|(other, _)| *other == id);
        let seat = known.filter(|(_, seat)| seat.address == name);
        if let Some((_, seat)) = seat {
            return self.peers.found(now, &mut self.node, id, seat, address);
        }
        if self.followed.ordered.iter().any(|(other, at)| *other == id && at == name) {
            self.peers.may_be_at(now, &mut self.node, id, address);
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
        let mut seats: Vec<_> = ids.filter_map(|id| Some((id, roster.seat(id)?.clone()))).collect();
        let version = roster.version();
        let followed = std::mem::take(&mut self.followed);
        let Followed { configured, mut hearsay, asks_at, looked_at, .. } = followed;
        if hearsay.version <= version {
            hearsay = Hearsay::default();
        }
        // While this node catches up, it does not forget whom it has heard of, or was told of when it was
        // started: it may have been away when all the others came.
        for (id, seat) in hearsay.seats.iter().chain(&configured) {
            let known = seats.iter().any(|(other, _)| other == id);
            if !known && roster.seat(*id).is_none() && roster.has_left(&seat.key).is_none() {
                seats.push((*id, seat.clone()));
            }
        }
        let addresses: Vec<String> =
            roster.seats().values().map(|seat| seat.address.clone()).collect();
        let members = members.clone();
        self.followed = Followed {
            seats,
            members,
            version,
            configured,
            hearsay,
            asks_at,
            ordered: Vec::new(),
            looked_at,
        };
        let seats = &self.followed.seats;
        for (id, address) in self.peers.follow(now, &mut self.node, seats, version == 0) {
            self.events.push_back(GroupEvent::LookUp(id, address));
        }
        if changed {
            self.node.tell_members(now, version, &addresses);
        }
    }

    /// Without a leader this node does not learn what is committed. Members may be where orders say that
    /// are in its log beyond that, and one of them may be needed for a leader: they are tried there, too.
    pub(super) fn follow_orders(&mut self, now: Instant) {
        let last = self.replica.last();
        if self.replica.leader().is_some() || self.followed.looked_at == last {
            return;
        }
        self.followed.looked_at = last;
        self.followed.ordered = self.replica.ordered_addresses();
        for (id, address) in &self.followed.ordered {
            match address.parse() {
                Ok(address) => self.peers.may_be_at(now, &mut self.node, *id, address),
                Err(_) => self.events.push_back(GroupEvent::LookUp(*id, address.clone())),
            }
        }
    }

    /// Somebody with a certificate speaks whom this node does not know. It may be a member of which
    /// this node has not heard: one that joined while this node was down, or that led the group when
    /// this one was to take its place. The peers are asked.
    pub(super) fn ask_for_members(&mut self, now: Instant) {
        if now >= self.followed.asks_at {
            self.followed.asks_at = now + ASK_EVERY;
            self.peers.ask_for_members(now, &mut self.node);
        }
    }

    /// Tells a peer who the members are.
    pub(super) fn tell_peer_members(&mut self, now: Instant, to: NodeId) {
        let Followed { seats, version, .. } = &self.followed;
        if !seats.is_empty() {
            let known = Hearsay { version: *version, seats: seats.clone() };
            self.peers.tell_members(now, &mut self.node, to, &known);
        }
    }

    /// A peer says who the members are. Who is in a later roster than this node's is spoken to, too,
    /// until this node has that one.
    pub(super) fn heard_of_members(&mut self, now: Instant, hearsay: Hearsay) {
        let own = self.replica.roster();
        let later = own.is_empty() || hearsay.version > own.version();
        if !later || hearsay.version < self.followed.hearsay.version {
            return;
        }
        for (id, seat) in &hearsay.seats {
            if self.followed.seats.iter().any(|(other, _)| other == id) {
                continue;
            }
            match seat.address.parse() {
                Ok(address) => self.peers.found(now, &mut self.node, *id, seat, address),
                Err(_) => self.events.push_back(GroupEvent::LookUp(*id, seat.address.clone())),
            }
        }
        self.followed.hearsay = hearsay;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::{World, elsewhere, home, id};

    #[test]
    fn what_a_peer_says_of_the_members_is_read_as_it_was_written_and_nothing_else_is() {
        let seat = |n: u8| Seat { address: format!("n{n}.example:7400"), key: vec![n; 32] };
        let seats = (1..4).map(|n| (NodeId::new(n.into()).unwrap(), seat(n))).collect();
        let hearsay = Hearsay { version: 70, seats };
        let mut bytes = Vec::new();
        hearsay.encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(Hearsay::decode(&bytes[..end]), None, "{end}");
        }
        assert_eq!(Hearsay::decode(&bytes), Some(hearsay));
        bytes.push(0);
        assert_eq!(Hearsay::decode(&bytes), None);
        let many = Hearsay { version: 1, seats: vec![(NodeId::new(1).unwrap(), seat(1)); 65] };
        let mut bytes = Vec::new();
        many.encode(&mut bytes);
        assert_eq!(Hearsay::decode(&bytes), None);
    }
    #[test]
    fn a_name_that_is_found_after_its_member_has_moved_leads_nobody_back() {
        let mut world = World::new();
        world.start(1, home(1), &[]);
        let (now, old, new) = (world.now, "old.test:7400", "new.test:7400");
        for (version, name) in [(1, old), (2, new)] {
            let seat = Seat { address: name.to_owned(), key: vec![2; 32] };
            let hearsay = Hearsay { version, seats: vec![(id(2), seat)] };
            world.at(home(1)).heard_of_members(now, hearsay);
        }
        world.run_until(0, |_| false);
        assert_eq!(world.asked, [(id(2), old.to_owned()), (id(2), new.to_owned())]);
        // The older name takes longer to look up.
        world.at(home(1)).found(now, id(2), new, elsewhere(2));
        world.at(home(1)).found(now, id(2), old, home(2));
        world.run_until(2_000, |_| false);
        assert_eq!(world.spoken_to, [elsewhere(2)].into());
    }
}
