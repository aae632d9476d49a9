//! What the processes of a group world share: disks, addresses, the judge, the dice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_group::replica::{Settings, Standing};
use stubborn_group::replication::{Durable, Members, NodeId, Role};

use super::NodeCounts;
use super::judge::Judge;
use super::ledger::Ledger;
use super::process::Process;
use crate::disk::Disk;
use crate::nodes::{Met, Nodes, Order, host};
use crate::world::{World, millis};

/// The group's id: its lowest byte is that of the first and only worker.
pub(super) const GROUP: u64 = 0x6702_5500;

/// A group and the world it is in. Cheap to clone; clones are the same group.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) habits: Habits,
    shared: Arc<Mutex<Shared>>,
}

/// How the nodes of a run behave.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    /// How long a sync of the disk takes at most.
    pub(super) sync: Duration,
    /// The probability that a node crashes before or after a write or a sync.
    pub(super) crash: f64,
    /// All clocks go at one speed.
    pub(super) steady: bool,
    pub(super) settings: Settings,
}

pub(super) struct Shared {
    pub(super) random: Random,
    pub(super) judge: Judge,
    pub(super) counts: NodeCounts,
    /// What the leader is to do next.
    pub(super) order: Option<Order>,
    /// Nothing goes wrong any more.
    pub(super) healed: bool,
    pub(super) clients_done: u64,
    /// When the last command of each client that was answered was begun, and when answered.
    pub(super) answered: BTreeMap<u64, (Instant, Instant)>,
    /// Nodes that reach some others through others only.
    pub(super) relaying: BTreeSet<NodeId>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    disks: BTreeMap<NodeId, Disk>,
    /// How each node stood when it last worked, and its ledger when all is quiet.
    standings: BTreeMap<NodeId, (Standing, Option<Ledger>)>,
}

impl Cluster {
    pub(super) fn new(world: World, habits: Habits, random: Random) -> Self {
        let shared = Shared {
            random,
            judge: Judge::default(),
            counts: NodeCounts::default(),
            order: None,
            healed: false,
            clients_done: 0,
            answered: BTreeMap::new(),
            relaying: BTreeSet::new(),
            addresses: BTreeMap::new(),
            disks: BTreeMap::new(),
            standings: BTreeMap::new(),
        };
        Self { world, habits, shared: Arc::new(Mutex::new(shared)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives nodes hosts, addresses and disks, and starts them.
    pub(super) fn start(&self, nodes: &[NodeId], first: &Members) {
        for id in nodes {
            let random = self.lock().random.fork();
            let disk = Disk::new(Durable::new_group(first.clone()), random);
            let address = self.world.address_at(&host(*id));
            let mut shared = self.lock();
            shared.disks.insert(*id, disk);
            shared.addresses.insert(*id, address);
        }
        nodes.iter().for_each(|id| self.spawn(*id));
    }

    pub(super) fn address(&self, id: NodeId) -> SocketAddr {
        self.lock().addresses[&id]
    }

    pub(super) fn addresses(&self) -> Vec<(NodeId, SocketAddr)> {
        self.lock().addresses.iter().map(|(id, address)| (*id, *address)).collect()
    }

    pub(super) fn stand(&self, id: NodeId, standing: Standing, ledger: Option<Ledger>) {
        self.lock().standings.insert(id, (standing, ledger));
    }

    /// The latest term that a node was seen in.
    pub(super) fn term(&self) -> u64 {
        let shared = self.lock();
        shared.standings.values().map(|(standing, _)| standing.consensus.term).max().unwrap_or(0)
    }

    /// Who leads, in the latest term that has a leader.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let shared = self.lock();
        let leads = shared
            .standings
            .iter()
            .filter(|(_, (standing, _))| standing.consensus.role == Role::Leader);
        leads.max_by_key(|(_, (standing, _))| standing.consensus.term).map(|(id, _)| *id)
    }

    /// The ledger that all members have, if they all stand at the same place.
    pub(super) fn agreed(&self) -> Option<Ledger> {
        let shared = self.lock();
        let (first, ledger) =
            shared.standings.values().max_by_key(|(standing, _)| standing.applied)?;
        let members = &first.members;
        let stands = |id| {
            let other = shared.standings.get(id);
            other.is_some_and(|(other, others)| other.applied == first.applied && others == ledger)
        };
        let settled =
            !members.is_changing() && members.voters.iter().chain(&members.learners).all(stands);
        if settled { ledger.clone() } else { None }
    }

    /// How every node stands, in words.
    pub(super) fn standings(&self) -> String {
        let shared = self.lock();
        let lines = shared.standings.iter().map(|(id, (standing, _))| {
            let Standing { consensus, applied, pending, reads, sessions, members, .. } = standing;
            format!(
                "\n{id}: {:?} of term {}, leader {:?}, log to {}, committed {}, applied {applied}, \
                 {pending} pending, {reads} reads, {sessions} sessions, voters {:?}",
                consensus.role,
                consensus.term,
                consensus.leader,
                consensus.last.index,
                consensus.committed,
                members.voters
            )
        });
        lines.collect()
    }

    /// Loses power between two steps, by chance. Returns whether it did.
    pub(super) fn crash_maybe(&self, id: NodeId) -> bool {
        if self.lock().healed || !self.chance(self.habits.crash) {
            return false;
        }
        let down = millis(1 + self.below(1_500));
        self.crash(id, down);
        true
    }
}

impl Nodes for Cluster {
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
        let process = Process::run(self.clone(), id, disk);
        self.world.spawn_on(&host(id), process);
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
