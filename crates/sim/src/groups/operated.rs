//! What is known of a group whose members an operator changes: whom it wants, with whom each node is
//! configured, which clients there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use stubborn_group::node::Peer;
use stubborn_group::replica::{Roster, Seat};
use stubborn_group::replication::{Members, NodeId};

use super::cluster::Cluster;
use crate::nodes::{Nodes, host};
use crate::world::{SimCaller, millis};

pub(super) struct Operated {
    founders: Roster,
    /// The addresses with which clients begin.
    first: Vec<(NodeId, SocketAddr)>,
    /// Who is to be a member, as the group has answered last.
    pub(super) wanted: BTreeMap<NodeId, Seat>,
    /// The version of the roster that a node has applied last.
    pub(super) version: u64,
    /// Who was asked to leave.
    pub(super) removed: BTreeSet<NodeId>,
    /// Those of them who may not have left yet.
    pub(super) leaving: BTreeMap<NodeId, Seat>,
    /// Its disk is gone, and nobody has taken its place yet.
    pub(super) lost: Option<NodeId>,
    /// Those that have lost their folder while they joined.
    pub(super) forgetful: BTreeSet<NodeId>,
    /// With whom each node is configured.
    peers: BTreeMap<NodeId, Vec<Peer>>,
    pub(super) clients: BTreeMap<u64, SimCaller>,
    /// The operator has nothing more to do.
    pub(super) is_done: bool,
}

impl Operated {
    /// A node's disk is refused: it is gone for good.
    pub(super) fn lost(&mut self, id: NodeId) {
        if self.wanted.contains_key(&id) {
            self.lost = Some(id);
        }
    }

    /// Whether these are the members that the operator wants.
    pub(super) fn wants(&self, members: &Members) -> bool {
        members.learners.is_empty() && members.voters.iter().eq(self.wanted.keys())
    }
}

impl Cluster {
    /// From now on, which is before nodes are started, members are changed by an operator alone.
    pub(super) fn operate(&self, founders: &[NodeId]) {
        founders.iter().for_each(|id| self.give_address(*id));
        let seats: BTreeMap<_, _> = founders.iter().map(|id| (*id, self.seat(*id))).collect();
        let first = founders.iter().map(|id| (*id, self.address(*id))).collect();
        let peers = self.peers(&seats);
        self.lock().operated = Some(Operated {
            founders: Roster::of(seats.clone()),
            first,
            wanted: seats,
            version: 0,
            removed: BTreeSet::new(),
            leaving: BTreeMap::new(),
            lost: None,
            forgetful: BTreeSet::new(),
            peers: founders.iter().map(|id| (*id, peers.clone())).collect(),
            clients: BTreeMap::new(),
            is_done: false,
        });
    }

    /// Where a node is, as an operator writes it: with the address of its host, or the name.
    pub(super) fn seat(&self, id: NodeId) -> Seat {
        let address = self.address(id);
        let named = self.chance(0.3);
        let address =
            if named { format!("{}:{}", host(id), address.port()) } else { address.to_string() };
        Seat { address, key: self.world.key_of(&host(id)).to_vec() }
    }

    fn peers(&self, seats: &BTreeMap<NodeId, Seat>) -> Vec<Peer> {
        let peer = |(id, seat): (&NodeId, &Seat)| {
            let address = self.world.look_up(&seat.address)?;
            let identity = seat.key.as_slice().try_into().ok();
            Some(Peer { id: *id, address, name: host(*id), identity })
        };
        seats.iter().filter_map(peer).collect()
    }

    /// Starts a node with an empty disk that the group was told of.
    pub(super) fn join(&self, id: NodeId) {
        self.bring_up_to_date(id);
        self.lock().counts.joined += 1;
        self.add(id);
    }

    /// A node that joins loses its folder, and tries again under its number.
    pub(super) fn lose_folder(&self, id: NodeId) {
        self.note(id.get(), || format!("{id} loses its folder"));
        self.world.kill(&host(id));
        self.with_operated(|operated| operated.forgetful.insert(id));
        self.lock().counts.folders_lost += 1;
        self.give_folder(id);
        self.crash(id, millis(1 + self.below(300)));
    }

    /// Whether a node has lost its folder while it joined.
    pub(super) fn has_lost_folder(&self, id: NodeId) -> bool {
        self.lock().operated.as_ref().is_some_and(|operated| operated.forgetful.contains(&id))
    }

    /// Whether a member is gone for good, as long as it counts as one, or has lost its folder and may be
    /// refused for it.
    pub(super) fn is_wounded(&self) -> bool {
        let shared = self.lock();
        let Some(Operated { wanted, lost, forgetful, .. }) = &shared.operated else { return false };
        let latest = shared.standings.values().max_by_key(|(standing, _)| standing.applied);
        let mut members = latest.iter().flat_map(|(standing, _)| standing.members.all());
        lost.is_some()
            || forgetful.iter().any(|id| wanted.contains_key(id))
            || members.any(|id| shared.retired.contains(&id))
    }

    /// Members that know no leader, and nobody who is there and could tell them who the members are: not
    /// even by asking others. One that is to leave is a member until it has: nothing may be agreed on without
    /// its vote.
    pub(super) fn strangers(&self) -> Vec<NodeId> {
        let unled = self.unled();
        let shared = self.lock();
        let Some(Operated { wanted, leaving, .. }) = &shared.operated else { return Vec::new() };
        let is_member = |id: &NodeId| wanted.contains_key(id) || leaving.contains_key(id);
        let there = shared.standings.iter().filter(|(id, _)| is_member(id));
        let there: BTreeMap<_, _> = there.map(|(id, (standing, _))| (*id, standing)).collect();
        let knows = |id: NodeId, whom: &BTreeSet<NodeId>| {
            there[&id].members.all().any(|other| other != id && whom.contains(&other))
        };
        let latest = there.values().max_by_key(|standing| standing.applied);
        let is_up_to_date = |id: &NodeId| latest.is_some_and(|l| there[id].members == l.members);
        let everybody: BTreeSet<NodeId> = there.keys().copied().collect();
        let mut informed: BTreeSet<_> = everybody.iter().copied().filter(is_up_to_date).collect();
        // Who knows one that is, even by way of others.
        while let Some(further) =
            everybody.difference(&informed).copied().find(|id| knows(*id, &informed))
        {
            informed.insert(further);
        }
        let is_stranger = |id: &NodeId| !knows(*id, &everybody) || !informed.contains(id);
        unled.into_iter().filter(|id| is_member(id) && is_stranger(id)).collect()
    }

    /// Members all of whose peers were replaced or lost while they were away are started again, with a
    /// configuration that is brought up to date.
    pub(super) fn start_strangers(&self) {
        for id in self.strangers() {
            self.bring_up_to_date(id);
            self.crash(id, millis(1 + self.below(300)));
        }
    }

    /// Configures a node with the members that there are: with those that leave, too, until the group
    /// is without them. Until then they may be all that has the log.
    pub(super) fn bring_up_to_date(&self, id: NodeId) {
        let done = self.is_in_line();
        let seats = self.with_operated(|operated| {
            if done {
                operated.leaving.clear();
            }
            let Operated { wanted, leaving, .. } = operated;
            wanted.iter().chain(leaving.iter()).map(|(id, seat)| (*id, seat.clone())).collect()
        });
        let peers = self.peers(&seats);
        self.with_operated(|operated| operated.peers.insert(id, peers));
    }

    /// With whom a node is configured that starts now, and with whom the group began, as far as that
    /// is written there. Half of them have a configuration that was brought up to date.
    pub(super) fn configured(&self, id: NodeId) -> (Vec<Peer>, Roster) {
        if self.lock().operated.is_none() {
            let peers = self.addresses().into_iter().map(|(id, address)| Peer {
                id,
                address,
                name: host(id),
                identity: None,
            });
            return (peers.collect(), Roster::default());
        }
        if self.chance(0.5) {
            self.bring_up_to_date(id);
        }
        self.with_operated(|operated| {
            let founded = operated.founders.seats().contains_key(&id);
            let roster = if founded { operated.founders.clone() } else { Roster::default() };
            (operated.peers[&id].clone(), roster)
        })
    }

    /// The addresses with which clients begin.
    pub(super) fn first_addresses(&self) -> Vec<(NodeId, SocketAddr)> {
        let first = self.lock().operated.as_ref().map(|operated| operated.first.clone());
        first.unwrap_or_else(|| self.addresses())
    }

    /// Whether an operator has something to do yet.
    pub(super) fn is_operated(&self) -> bool {
        self.lock().operated.as_ref().is_some_and(|operated| !operated.is_done)
    }

    /// # Panics
    /// If there is no operator: only what it does comes here.
    pub(super) fn with_operated<T>(&self, act: impl FnOnce(&mut Operated) -> T) -> T {
        act(self.lock().operated.as_mut().expect("an operator changes the members"))
    }

    /// The clients that have something to do and do not know one of these addresses, come what may.
    pub(super) fn who_knows_none(&self, addresses: &[SocketAddr]) -> Vec<u64> {
        let clients: Vec<(u64, SimCaller)> = {
            let shared = self.lock();
            let clients = shared.operated.iter().flat_map(|operated| &operated.clients);
            let busy = clients.filter(|(id, _)| !shared.clients_done.contains(id));
            busy.map(|(id, caller)| (*id, caller.clone())).collect()
        };
        let ignorant = |(_, caller): &(u64, SimCaller)| !caller.knows_one_of(addresses);
        clients.into_iter().filter(ignorant).map(|(id, _)| id).collect()
    }

    /// Gives these addresses to the clients that know none of them, and nobody who is there and could
    /// tell them, as a stranger could not: a name service would. Whether there were some.
    pub(super) fn tell_forlorn_clients(&self, addresses: &[SocketAddr]) -> bool {
        let strangers = self.strangers();
        let (wanted, lost, clients) =
            self.with_operated(|o| (o.wanted.clone(), o.lost, o.clients.clone()));
        let there = wanted.iter().filter(|(id, _)| Some(**id) != lost && !strangers.contains(id));
        let there: Vec<SocketAddr> =
            there.filter_map(|(_, seat)| self.world.look_up(&seat.address)).collect();
        let ignorant = self.who_knows_none(addresses).into_iter();
        let ignorant = ignorant.filter_map(|id| clients.get(&id));
        let forlorn: Vec<_> = ignorant.filter(|caller| !caller.knows_one_of(&there)).collect();
        forlorn.iter().for_each(|caller| caller.lead_to(addresses.to_vec()));
        !forlorn.is_empty()
    }

    /// Gives these addresses to the clients that know none of them.
    pub(super) fn lead_clients_to(&self, addresses: &[SocketAddr]) {
        let clients = self.with_operated(|operated| operated.clients.clone());
        let ignorant = self.who_knows_none(addresses).into_iter();
        ignorant
            .filter_map(|id| clients.get(&id))
            .for_each(|caller| caller.lead_to(addresses.to_vec()));
    }

    /// A node has applied this version of the roster.
    pub(super) fn note_roster(&self, version: u64) {
        if let Some(operated) = &mut self.lock().operated {
            operated.version = operated.version.max(version);
        }
    }

    /// Whether consensus has the members that the operator wants.
    pub(super) fn is_in_line(&self) -> bool {
        let shared = self.lock();
        let latest = shared.standings.values().max_by_key(|(standing, _)| standing.applied);
        latest.is_some_and(|(standing, _)| {
            let wants = shared.operated.as_ref().is_some_and(|o| o.wants(&standing.members));
            wants && !standing.members.is_changing()
        })
    }

    /// The others say that a node has left the group, and its process ends. Now and then somebody
    /// starts it again, and the same is said.
    pub(super) fn has_left(&self, id: NodeId) {
        let removed =
            self.lock().operated.as_ref().is_some_and(|operated| operated.removed.contains(&id));
        if !removed {
            let what = format!("{id} was told that it has left, and nobody asked for that");
            return self.judge(Err(("only who is removed leaves", what)));
        }
        self.lock().counts.left += 1;
        self.note(id.get(), || format!("{id} has left"));
        if !self.is_healed() && self.chance(0.4) {
            return self.crash(id, millis(1 + self.below(1_500)));
        }
        {
            let mut shared = self.lock();
            shared.retired.insert(id);
            shared.standings.remove(&id);
        }
        self.world.kill(&host(id));
    }

    /// A node goes on at another address, which the group was told of.
    pub(super) fn relocate(&self, id: NodeId, address: SocketAddr) {
        {
            let mut shared = self.lock();
            shared.addresses.insert(id, address);
            shared.counts.relocated += 1;
        }
        let is_there = self.nodes().contains(&id);
        if is_there {
            self.crash(id, millis(1 + self.below(300)));
        }
    }
}
