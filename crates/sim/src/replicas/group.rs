//! What the processes of a group world share: the book of addresses, the invariants, the dice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_group::replication::{Durable, Members, NodeId, Status};

use super::invariants::Invariants;
use super::replica::Replica;
use super::{GroupCounts, Sabotage};
use crate::disk::Disk;
use crate::nodes::{Met, Nodes, Order, host};
use crate::world::{World, millis};

/// A group and the world it is in. Cheap to clone; clones are the same group.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) world: World,
    pub(super) habits: Habits,
    shared: Arc<Mutex<Shared>>,
}

/// How the replicas of a run behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// How long a sync of the disk takes at most.
    pub(super) sync: Duration,
    /// The probability that a node crashes before or after a write.
    pub(super) crash: f64,
    /// Entries between two snapshots.
    pub(super) snapshot_every: u64,
    /// Entries that are kept before a snapshot.
    pub(super) keep: u64,
    pub(super) sabotage: Option<Sabotage>,
}

pub(super) struct Shared {
    pub(super) random: Random,
    pub(super) invariants: Invariants,
    pub(super) counts: GroupCounts,
    /// What the leader is to do next.
    pub(super) order: Option<Order>,
    /// Nothing goes wrong any more.
    pub(super) healed: bool,
    pub(super) clients_done: u64,
    addresses: BTreeMap<NodeId, SocketAddr>,
    disks: BTreeMap<NodeId, Disk>,
    /// How long a tick of a node's clock takes.
    ticks: BTreeMap<NodeId, Duration>,
    /// How each node stood when it last worked.
    standing: BTreeMap<NodeId, Standing>,
}

/// How a node stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) status: Status,
    /// The last entry that it has applied.
    pub(super) applied: u64,
    /// Its counter.
    pub(super) value: u64,
    pub(super) members: Members,
}

/// A tick of a clock that goes right.
pub(super) const TICK: Duration = millis(10);

impl Group {
    pub(super) fn new(world: World, habits: Habits, random: Random) -> Self {
        let shared = Shared {
            random,
            invariants: Invariants::default(),
            counts: GroupCounts::default(),
            order: None,
            healed: false,
            clients_done: 0,
            addresses: BTreeMap::new(),
            disks: BTreeMap::new(),
            ticks: BTreeMap::new(),
            standing: BTreeMap::new(),
        };
        Self { world, habits, shared: Arc::new(Mutex::new(shared)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a node a disk and a host, and starts it.
    pub(super) fn add(&self, id: NodeId, first: &Members) {
        let random = self.lock().random.fork();
        let disk = Disk::new(Durable::new_group(first.clone()), random);
        self.lock().disks.insert(id, disk);
        self.world.client(&host(id));
        self.spawn(id);
    }

    pub(super) fn register(&self, id: NodeId, address: SocketAddr) {
        self.lock().addresses.insert(id, address);
    }

    pub(super) fn address(&self, id: NodeId) -> Option<SocketAddr> {
        self.lock().addresses.get(&id).copied()
    }

    pub(super) fn node_at(&self, address: SocketAddr) -> Option<NodeId> {
        let shared = self.lock();
        shared.addresses.iter().find(|(_, other)| **other == address).map(|(id, _)| *id)
    }

    pub(super) fn tick_of(&self, id: NodeId) -> Duration {
        self.lock().ticks.get(&id).copied().unwrap_or(TICK)
    }

    pub(super) fn set_tick(&self, id: NodeId, tick: Duration) {
        self.lock().ticks.insert(id, tick);
    }

    pub(super) fn stand(&self, id: NodeId, standing: Standing) {
        self.lock().standing.insert(id, standing);
    }

    /// The value that all members have, if they all stand at the same place.
    pub(super) fn agreed(&self) -> Option<u64> {
        let shared = self.lock();
        let first = shared.standing.values().max_by_key(|standing| standing.applied)?;
        let Standing { applied, value, members, .. } = first;
        let stands = |id| shared.standing.get(id).is_some_and(|other| other.applied == *applied);
        let settled =
            !members.is_changing() && members.voters.iter().chain(&members.learners).all(stands);
        settled.then_some(*value)
    }

    /// How every node stands, in words.
    pub(super) fn standings(&self) -> String {
        let shared = self.lock();
        let lines = shared.standing.iter().map(|(id, standing)| {
            let Standing { status, applied, value, members } = standing;
            let Status { role, term, leader, committed, last } = status;
            let voters = &members.voters;
            format!(
                "\n{id}: {role:?} of term {term}, leader {leader:?}, log to {}, committed \
                 {committed}, applied {applied}, value {value}, voters {voters:?}",
                last.index
            )
        });
        lines.collect()
    }
}

impl Nodes for Group {
    fn world(&self) -> &World {
        &self.world
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.lock().disks.keys().copied().collect()
    }

    fn is_healed(&self) -> bool {
        self.lock().healed
    }

    fn spawn(&self, id: NodeId) {
        let disk = self.lock().disks[&id].clone();
        let replica = Replica::new(self.clone(), id, disk);
        self.world.spawn_on(&host(id), replica.run());
    }

    fn order(&self, order: Order) {
        self.lock().order = Some(order);
    }

    fn count(&self, met: Met) {
        let counts = &mut self.lock().counts;
        *match met {
            Met::Crash => &mut counts.crashes,
            Met::AllAtOnce => &mut counts.all_at_once,
            Met::Pause => &mut counts.pauses,
            Met::Partition => &mut counts.partitions,
            Met::Partial => &mut counts.partial,
        } += 1;
    }

    fn with_random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.lock().random)
    }
}
