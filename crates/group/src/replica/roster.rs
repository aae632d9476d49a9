//! Who is to belong to the group, and where each is: a part of the replicated state.
//!
//! The roster says what is wanted. Consensus has the members that there are; the leader brings them in
//! line with the roster, step by step ([`Replica::reconcile`]), and so does the next leader if this
//! one fails. A number that has left is never given again: whoever bore it may have promised things.

use std::collections::{BTreeMap, BTreeSet};

use stubborn_core::node::SessionCommand;
use stubborn_core::service::{Answer, CallContext, Encoded, Metadata, Method, MethodId, Status};
use stubborn_core::service::{Semantics, Shape};
use stubborn_core::wire::{Reader, varint};

use super::Replica;
use super::entry::{Record, What};
use crate::replication::{Entry, FolderId, MemberChange, Members, NodeId, Role};

/// Changes the roster, from any client with a certificate.
pub(crate) const CHANGE: Method =
    Method::new("stubborn.group.v1.Group/ChangeMembers", Semantics::ExactlyOnce, Shape::Unary);

/// Tells the roster.
pub(crate) const MEMBERS: Method =
    Method::new("stubborn.group.v1.Group/Members", Semantics::Read, Shape::Unary);

/// Members that a group may have.
const MOST: usize = 31;

/// Bytes of an address.
const ADDRESS: usize = 300;

/// Entries by which a learner may lag when it is made a voter.
const LEVEL: u64 = 200;

/// A member's place in the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// HOST:PORT, where the others reach it.
    pub address: String,
    /// SHA-256 of the public key info of its certificate; of a group without certificates none.
    pub key: Vec<u8>,
}

/// What an operator asks of a group: a call of a client with a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RosterChange {
    /// Who comes, and who moves to another address: then without a key, or with the one that is known.
    pub add: Vec<(NodeId, Seat)>,
    /// Who leaves.
    pub remove: Vec<NodeId>,
}

impl RosterChange {
    /// The method that takes it. It is answered with what [`Roster::of_reply`] reads, or refused.
    pub const METHOD: Method = CHANGE;

    /// The request.
    pub fn encode(&self) -> Encoded {
        let add = self.add.iter().map(|(id, seat)| wire::Member {
            node: id.get(),
            address: seat.address.clone(),
            key: seat.key.clone(),
            folder: 0,
        });
        let remove = self.remove.iter().map(|id| id.get()).collect();
        Encoded::new(CHANGE.id(), &wire::Change { add: add.collect(), remove })
    }
}

/// The members that a group is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    seats: BTreeMap<NodeId, Seat>,
    /// Those that have left, as they were.
    left: BTreeMap<NodeId, Seat>,
    /// With which folder each of them all has begun, once it has.
    folders: BTreeMap<NodeId, FolderId>,
    /// With whom the group began.
    founders: BTreeSet<NodeId>,
    /// The entry of the log that changed it last; 0 as long as it is that of the founders.
    version: u64,
}

impl Roster {
    /// The roster of a new group.
    pub fn of(seats: impl IntoIterator<Item = (NodeId, Seat)>) -> Self {
        let seats: BTreeMap<_, _> = seats.into_iter().collect();
        let founders = seats.keys().copied().collect();
        Self { seats, founders, ..Self::default() }
    }

    /// What a change was answered with; none if that is no roster. Of those who have left it has the
    /// numbers alone.
    pub fn of_reply(reply: &Encoded) -> Option<Self> {
        let told = reply.decode::<wire::Members>(CHANGE.id()).ok()?;
        let numbers = |ids: Vec<u64>| ids.into_iter().map(NodeId::new).collect::<Option<Vec<_>>>();
        let folder = |member: &wire::Member| {
            Some((NodeId::new(member.node)?, FolderId::new(member.folder)?))
        };
        let folders = told.members.iter().filter_map(folder).collect();
        let seats = told.members.into_iter().map(|member| {
            let seat = Seat { address: member.address, key: member.key };
            Some((NodeId::new(member.node)?, seat))
        });
        let nowhere = Seat { address: String::new(), key: Vec::new() };
        let left = numbers(told.left)?.into_iter().map(|id| (id, nowhere.clone())).collect();
        let founders = numbers(told.founders)?.into_iter().collect();
        let seats = seats.collect::<Option<_>>()?;
        Some(Self { seats, left, folders, founders, version: told.version })
    }

    /// Whether nobody is in it: the group's members are changed by hand.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Who is to be a member, and where.
    pub fn seats(&self) -> &BTreeMap<NodeId, Seat> {
        &self.seats
    }

    /// The entry of the log that changed it last; 0 as long as it is that of the founders.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the node has left the group, by its number or its key.
    pub fn has_left(&self, key: &[u8]) -> Option<NodeId> {
        self.left.iter().find(|(_, seat)| seat.key == key).map(|(id, _)| *id)
    }

    /// With which folder this node has begun, if it has, also if it is about to leave.
    pub fn folder(&self, id: NodeId) -> Option<FolderId> {
        self.folders.get(&id).copied()
    }

    /// A node has begun with this folder, unless it had with another one.
    pub(super) fn begun(&mut self, id: NodeId, folder: FolderId) {
        if self.seat(id).is_some() {
            self.folders.entry(id).or_insert(folder);
        }
    }

    /// Where this node is, also if it is about to leave.
    pub(crate) fn seat(&self, id: NodeId) -> Option<&Seat> {
        self.seats.get(&id).or_else(|| self.left.get(&id))
    }

    /// What a client asked for, or why not. All or nothing.
    fn change(&mut self, index: u64, wanted: &wire::Change) -> Result<(), String> {
        let mut seats = self.seats.clone();
        let mut left = self.left.clone();
        for add in &wanted.add {
            let id = NodeId::new(add.node).ok_or("a member's number is not 0")?;
            if left.contains_key(&id) {
                return Err(format!(
                    "{id} has left the group: a node that comes back needs a new number"
                ));
            }
            let sound = add.address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            if !sound || add.address.len() > ADDRESS {
                return Err(format!("{:?} is no address: expected HOST:PORT", add.address));
            }
            let key = match (seats.get(&id), add.key.len()) {
                (Some(seat), 0) => seat.key.clone(),
                (Some(seat), _) if seat.key != add.key => {
                    return Err(format!(
                        "{id} is a member with another key: a node with a new key needs a new \
                         number"
                    ));
                }
                (_, 32) => add.key.clone(),
                _ => return Err("the key of a new member is the 32 bytes of its digest".into()),
            };
            let others = seats.iter().chain(&left).filter(|(other, _)| **other != id);
            if let Some((other, _)) = others.into_iter().find(|(_, seat)| seat.key == key) {
                return Err(format!("{other} has or had the same key"));
            }
            seats.insert(id, Seat { address: add.address.clone(), key });
        }
        for number in &wanted.remove {
            let gone = NodeId::new(*number).and_then(|id| Some((id, seats.remove(&id)?)));
            let known = NodeId::new(*number).is_some_and(|id| left.contains_key(&id));
            match gone {
                Some((id, seat)) => drop(left.insert(id, seat)),
                None if known => {}
                None => return Err(format!("n{number} is no member")),
            }
        }
        if seats.is_empty() || seats.len() > MOST {
            return Err(format!("a group has 1 to {MOST} members"));
        }
        if (&seats, &left) != (&self.seats, &self.left) {
            (self.seats, self.left, self.version) = (seats, left, index);
        }
        Ok(())
    }

    /// Carries out a request of a client.
    pub(super) fn command(
        &mut self,
        index: u64,
        context: &CallContext,
        request: &Encoded,
    ) -> Answer {
        let change = match request.decode::<wire::Change>(CHANGE.id()) {
            Ok(change) => change,
            Err(error) => return Answer::unreadable(error),
        };
        if context.peer.identity.is_none() {
            let why = "only who shows a certificate may change the members";
            return Answer::Status(Status::permission_denied(why));
        }
        if self.is_empty() {
            let why = "this group's members are changed by hand";
            return Answer::Status(Status::failed_precondition(why));
        }
        match self.change(index, &change) {
            Ok(()) => self.tell(CHANGE.id()),
            Err(why) => Answer::Status(Status::invalid_argument(why)),
        }
    }

    /// Tells a client who is in it.
    pub(super) fn tell(&self, method: MethodId) -> Answer {
        let member = |(id, seat): (&NodeId, &Seat)| wire::Member {
            node: id.get(),
            address: seat.address.clone(),
            key: seat.key.clone(),
            folder: self.folder(*id).map_or(0, FolderId::get),
        };
        let told = wire::Members {
            members: self.seats.iter().map(member).collect(),
            left: self.left.keys().map(|id| id.get()).collect(),
            founders: self.founders.iter().map(|id| id.get()).collect(),
            version: self.version,
        };
        Answer::Reply(Encoded::new(method, &told), Metadata::new())
    }

    /// Appends it: version, seats, those who left, founders, each list behind its length.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        varint::encode(self.version, out);
        for seats in [&self.seats, &self.left] {
            varint::encode(seats.len() as u64, out);
            for (id, seat) in seats {
                varint::encode(id.get(), out);
                for bytes in [seat.address.as_bytes(), &seat.key] {
                    varint::encode(bytes.len() as u64, out);
                    out.extend_from_slice(bytes);
                }
            }
        }
        varint::encode(self.founders.len() as u64, out);
        self.founders.iter().for_each(|id| varint::encode(id.get(), out));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.varint().ok()?;
        let (seats, left) = (decode_seats(reader)?, decode_seats(reader)?);
        let count = reader.varint().ok()?;
        let mut founders = BTreeSet::new();
        for _ in 0..count {
            founders.insert(NodeId::new(reader.varint().ok()?)?);
        }
        Some(Self { seats, left, folders: BTreeMap::new(), founders, version })
    }

    /// Appends with which folders nodes have begun, if any has: a program from before there were folders
    /// reads a roster in which none has.
    pub(super) fn encode_folders(&self, out: &mut Vec<u8>) {
        if self.folders.is_empty() {
            return;
        }
        varint::encode(self.folders.len() as u64, out);
        for (id, folder) in &self.folders {
            varint::encode(id.get(), out);
            out.extend_from_slice(&folder.get().to_be_bytes());
        }
    }

    /// Takes what is left of a state's head.
    pub(super) fn decode_folders(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let count = if reader.is_empty() { 0 } else { reader.varint().ok()? };
        for _ in 0..count {
            let id = NodeId::new(reader.varint().ok()?)?;
            let folder = FolderId::new(u64::from_be_bytes(reader.array().ok()?))?;
            self.folders.insert(id, folder);
        }
        Some(())
    }
}

fn decode_seats(reader: &mut Reader<'_>) -> Option<BTreeMap<NodeId, Seat>> {
    let count = reader.varint().ok()?;
    let mut seats = BTreeMap::new();
    for _ in 0..count {
        let id = NodeId::new(reader.varint().ok()?)?;
        let address = std::str::from_utf8(reader.length_prefixed().ok()?).ok()?.to_owned();
        let key = reader.length_prefixed().ok()?.to_vec();
        seats.insert(id, Seat { address, key });
    }
    Some(seats)
}

/// The next change of members that brings a group in line with its roster; `level` says which nodes
/// have nearly all of the log, and those in `absent` have not begun. New ones learn first, and all who are to
/// vote begin at once with the end of those who leave.
fn next_change(
    roster: &Roster,
    members: &Members,
    absent: &BTreeSet<NodeId>,
    level: impl Fn(NodeId) -> bool,
) -> Option<MemberChange> {
    let mut change = MemberChange::default();
    let wanted = |id: &NodeId| roster.seats.contains_key(id);
    let comes = |id: &&NodeId| !members.voters.contains(id) && !absent.contains(id);
    for id in roster.seats.keys().filter(comes) {
        if !members.learners.contains(id) {
            change.learners.insert(*id);
        } else if level(*id) {
            change.voters.insert(*id);
        }
    }
    if !change.learners.is_empty() {
        change.voters.clear();
        return Some(change);
    }
    let voters = members.voters.iter().chain(&members.learners);
    let gone: BTreeSet<NodeId> = voters.copied().filter(|id| !wanted(id)).collect();
    let learning =
        roster.seats.keys().any(|id| !members.voters.contains(id) && !change.voters.contains(id));
    // A member leaves when those that take its place are there.
    if !learning {
        change.remove = gone;
    }
    (!change.is_empty() && carries_on(members, &change, level)).then_some(change)
}

/// Whether those who vote after a change can agree on the next one: most of them are there now. Otherwise the
/// leader waits for them, or for an order that does without them, while the group serves as it is.
fn carries_on(members: &Members, change: &MemberChange, level: impl Fn(NodeId) -> bool) -> bool {
    let stay = members.voters.difference(&change.remove);
    let voters: BTreeSet<NodeId> = stay.chain(&change.voters).copied().collect();
    let there = voters.iter().filter(|id| level(**id)).count();
    there > voters.len() / 2
}

/// What a leader does to bring the members in line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Change(MemberChange),
    /// Lets this one lead, who stays.
    Transfer(NodeId),
}

/// The next step of the leader `own`. One that is to leave lets another one lead first; where none of
/// those who stay has a vote yet, they get theirs before it leaves.
fn next_step(
    roster: &Roster,
    members: &Members,
    absent: &BTreeSet<NodeId>,
    own: NodeId,
    level: impl Fn(NodeId) -> bool,
) -> Option<Step> {
    let mut change = next_change(roster, members, absent, &level)?;
    if change.remove.contains(&own) {
        let stays = |id: &NodeId| *id != own && roster.seats.contains_key(id) && level(*id);
        if let Some(heir) = members.voters.iter().copied().find(stays) {
            return Some(Step::Transfer(heir));
        }
        change.remove.clear();
    }
    (!change.is_empty()).then_some(Step::Change(change))
}

impl Replica {
    /// Brings the members in line with the roster, if this replica leads.
    pub(super) fn reconcile(&mut self) {
        let status = self.consensus.status();
        let roster = self.state.roster();
        if status.role != Role::Leader || roster.is_empty() {
            return;
        }
        let members = self.consensus.members();
        if members.is_changing() {
            return;
        }
        let level = |id| id == self.id || self.consensus.lag(id).is_some_and(|lag| lag <= LEVEL);
        // What is refused now, or lost, is tried again with the next tick.
        match next_step(roster, members, &self.without_folder(), self.id, level) {
            Some(Step::Change(change)) => drop(self.consensus.change_members(&change)),
            Some(Step::Transfer(heir)) => drop(self.transfer(heir)),
            None => {}
        }
    }
}

impl Replica {
    /// Where members are to be by orders in the log of which this replica does not know that they are
    /// committed.
    pub(crate) fn ordered_addresses(&self) -> Vec<(NodeId, String)> {
        let commands = self.consensus.unapplied().filter(Entry::is_command);
        let records = commands.filter_map(|entry| Record::decode(&entry.data));
        let items = records.flat_map(|record| record.items);
        items.filter_map(|item| order(item.what)).flat_map(addresses).collect()
    }
}

/// What an operator asks for, if it is that.
fn order(what: What) -> Option<wire::Change> {
    let What::Command(bytes) = what else { return None };
    let (method, call) = SessionCommand::decode(bytes).ok()?.asks()?;
    let may = method == CHANGE.id() && call.context().peer.identity.is_some();
    may.then(|| call.message().decode(CHANGE.id()).ok()).flatten()
}

fn addresses(change: wire::Change) -> impl Iterator<Item = (NodeId, String)> {
    let added = change.add.into_iter().filter(|member| member.address.len() <= ADDRESS);
    added.filter_map(|member| Some((NodeId::new(member.node)?, member.address)))
}

/// What travels: `stubborn/group.proto` of the crate that has the generated code.
pub(crate) mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Change {
        #[prost(message, repeated, tag = "1")]
        pub(crate) add: Vec<Member>,
        #[prost(uint64, repeated, tag = "2")]
        pub(crate) remove: Vec<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Member {
        #[prost(uint64, tag = "1")]
        pub(crate) node: u64,
        #[prost(string, tag = "2")]
        pub(crate) address: String,
        #[prost(bytes = "vec", tag = "3")]
        pub(crate) key: Vec<u8>,
        #[prost(uint64, tag = "4")]
        pub(crate) folder: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Members {
        #[prost(message, repeated, tag = "1")]
        pub(crate) members: Vec<Member>,
        #[prost(uint64, repeated, tag = "2")]
        pub(crate) left: Vec<u64>,
        #[prost(uint64, repeated, tag = "3")]
        pub(crate) founders: Vec<u64>,
        #[prost(uint64, tag = "4")]
        pub(crate) version: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn seat(number: u8) -> Seat {
        Seat { address: format!("10.0.0.{number}:7400"), key: vec![number; 32] }
    }

    fn roster() -> Roster {
        Roster::of((1..=3).map(|number| (id(number.into()), seat(number))))
    }

    fn change(add: &[(u64, &str, u8)], remove: &[u64]) -> wire::Change {
        let member = |(node, address, key): &(u64, &str, u8)| wire::Member {
            node: *node,
            address: (*address).to_owned(),
            key: if *key == 0 { Vec::new() } else { vec![*key; 32] },
            folder: 0,
        };
        wire::Change { add: add.iter().map(member).collect(), remove: remove.to_vec() }
    }

    #[test]
    fn members_come_move_and_leave_and_the_roster_survives_a_snapshot() {
        let mut roster = roster();
        assert_eq!(roster.version(), 0);
        roster.change(7, &change(&[(4, "d.example:1", 4), (2, "b.example:2", 0)], &[1])).unwrap();
        assert_eq!(roster.version(), 7);
        assert_eq!(roster.seats()[&id(2)].address, "b.example:2");
        assert_eq!(roster.has_left(&[1; 32]), Some(id(1)));
        // The same again changes nothing.
        roster.change(8, &change(&[(4, "d.example:1", 4)], &[1])).unwrap();
        assert_eq!(roster.version(), 7);
        let mut bytes = Vec::new();
        roster.encode(&mut bytes);
        assert_eq!(Roster::decode(&mut Reader::new(&bytes)), Some(roster));
        for end in 0..bytes.len() {
            assert_eq!(Roster::decode(&mut Reader::new(&bytes[..end])), None, "{end}");
        }
    }

    #[test]
    fn what_would_harm_the_group_is_refused_and_changes_nothing() {
        let mut roster = roster();
        roster.change(5, &change(&[], &[3])).unwrap();
        for (add, remove, why) in [
            (vec![(3, "c.example:1", 3)], vec![], "needs a new number"),
            (vec![(2, "b.example:1", 9)], vec![], "with another key"),
            (vec![(4, "d.example:1", 2)], vec![], "the same key"),
            (vec![(4, "d.example:1", 3)], vec![], "the same key"),
            (vec![(4, "d.example", 4)], vec![], "no address"),
            (vec![(4, "d.example:1", 0)], vec![], "32 bytes"),
            (vec![(0, "d.example:1", 4)], vec![], "not 0"),
            (vec![], vec![1, 2], "1 to 31 members"),
            (vec![], vec![9], "no member"),
        ] {
            let before = roster.clone();
            let error = roster.change(9, &change(&add, &remove)).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert_eq!(roster, before);
        }
    }

    #[test]
    fn new_members_learn_before_they_vote_and_others_leave_then() {
        let all = BTreeSet::new();
        let mut roster = roster();
        roster.change(5, &change(&[(4, "d.example:1", 4)], &[1])).unwrap();
        let mut members = Members::of([1, 2, 3].map(id));
        let learn = next_change(&roster, &members, &all, |_| false).unwrap();
        assert_eq!(learn, MemberChange { learners: [id(4)].into(), ..MemberChange::default() });
        members.learners.insert(id(4));
        assert_eq!(next_change(&roster, &members, &all, |_| false), None);
        let swap = next_change(&roster, &members, &all, |_| true).unwrap();
        assert_eq!((swap.voters, swap.remove), ([id(4)].into(), [id(1)].into()));
        let done = Members::of([2, 3, 4].map(id));
        assert_eq!(next_change(&roster, &done, &all, |_| true), None);
    }

    #[test]
    fn who_has_not_begun_gets_no_part_and_nobody_leaves_for_it() {
        let mut roster = roster();
        let come = [(4, "d.example:1", 4), (5, "e.example:1", 5)];
        roster.change(5, &change(&come, &[1])).unwrap();
        let mut members = Members::of([1, 2, 3].map(id));
        let learn = next_change(&roster, &members, &[id(4)].into(), |_| true).unwrap();
        assert_eq!(learn, MemberChange { learners: [id(5)].into(), ..MemberChange::default() });
        members.learners.insert(id(5));
        let votes = next_change(&roster, &members, &[id(4)].into(), |_| true).unwrap();
        assert_eq!(votes, MemberChange { voters: [id(5)].into(), ..MemberChange::default() });
    }

    #[test]
    fn nobody_leaves_where_those_who_stay_could_agree_on_nothing_more() {
        let all = BTreeSet::new();
        let (mut roster, members) = (roster(), Members::of([1, 2, 3].map(id)));
        let is_there = |one: NodeId| one != id(2);
        roster.change(5, &change(&[], &[1])).unwrap();
        assert_eq!(next_step(&roster, &members, &all, id(3), is_there), None);
        // Neither does its leader let another one lead for nothing.
        assert_eq!(next_step(&roster, &members, &all, id(1), is_there), None);
        let leaves = MemberChange { remove: [id(1)].into(), ..MemberChange::default() };
        assert_eq!(next_step(&roster, &members, &all, id(3), |_| true), Some(Step::Change(leaves)));
        // Without the one that is not there they can.
        roster.change(6, &change(&[], &[2])).unwrap();
        let leave = MemberChange { remove: [1, 2].map(id).into(), ..MemberChange::default() };
        assert_eq!(next_step(&roster, &members, &all, id(3), is_there), Some(Step::Change(leave)));
    }

    #[test]
    fn the_folder_that_a_node_has_begun_with_is_its_only_one_for_ever() {
        let (mut roster, folder) = (roster(), |number| FolderId::new(number).unwrap());
        roster.begun(id(2), folder(70));
        roster.begun(id(2), folder(71));
        roster.begun(id(9), folder(72));
        roster.change(5, &change(&[], &[2])).unwrap();
        assert_eq!((roster.folder(id(2)), roster.folder(id(9))), (Some(folder(70)), None));
        let mut bytes = Vec::new();
        roster.encode(&mut bytes);
        let head = bytes.len();
        roster.encode_folders(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let mut read = Roster::decode(&mut reader).unwrap();
        read.decode_folders(&mut reader).unwrap();
        assert_eq!(read, roster);
        for end in head + 1..bytes.len() {
            assert_eq!(read.decode_folders(&mut Reader::new(&bytes[head..end])), None, "{end}");
        }
    }

    #[test]
    fn a_leader_that_leaves_with_all_who_vote_gives_votes_to_those_who_come_and_leads_no_more() {
        let all = BTreeSet::new();
        let mut roster = roster();
        let come = [(4, "d.example:1", 4), (5, "e.example:1", 5)];
        roster.change(5, &change(&come, &[1, 2, 3])).unwrap();
        let mut members = Members::of([1, 2, 3].map(id));
        members.learners = [4, 5].map(id).into();
        let votes = MemberChange { voters: [4, 5].map(id).into(), ..MemberChange::default() };
        assert_eq!(next_step(&roster, &members, &all, id(2), |_| true), Some(Step::Change(votes)));
        let both = Members::of([1, 2, 3, 4, 5].map(id));
        assert_eq!(next_step(&roster, &both, &all, id(2), |_| true), Some(Step::Transfer(id(4))));
        let leave = MemberChange { remove: [1, 2, 3].map(id).into(), ..MemberChange::default() };
        assert_eq!(next_step(&roster, &both, &all, id(4), |_| true), Some(Step::Change(leave)));
        assert_eq!(next_step(&roster, &Members::of([4, 5].map(id)), &all, id(4), |_| true), None);
    }
}
