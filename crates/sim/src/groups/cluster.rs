//! What the processes of a group world share: disks, addresses, the judge, the dice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_core::limits::{Concurrency, Limits};
use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_group::replica::{Replica, Settings, Standing};
use stubborn_group::replication::{Durable, MemberChange, Members, NodeId, Role};
use stubborn_store::Error;
use stubborn_store::simulated::{FAILED, Fault, Loss};

use super::NodeCounts;
use super::client::{Open, OpenPut};
use super::disk::NodeDisk;
use super::invariants::Invariants;
use super::ledger::{Command, Ledger, NEWER};
use super::operated::Operated;
use super::process::Process;
use crate::nodes::{Broken, Met, Nodes, Order, host};
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
    /// The probability that a sync takes much longer.
    pub(super) slow_syncs: f64,
    /// The probability that a process meets a fault of its disk.
    pub(super) faults: f64,
    /// A disk is damaged once in the run.
    pub(super) damage: bool,
    /// All clocks go at one speed.
    pub(super) steady: bool,
    /// Nodes that start again may do so with a newer program.
    pub(super) upgrades: bool,
    /// Nodes do not let everybody count: see [`Permissions`](super::gate::Permissions).
    pub(super) permissions: bool,
    /// Sessions may expire.
    pub(super) expires: bool,
    /// How many reads a node answers in a turn.
    pub(super) places: Concurrency,
    pub(super) settings: Settings,
}

impl Habits {
    /// Nothing goes wrong with disks and clocks, and tables are small.
    pub(super) fn calm(sync: Duration) -> Self {
        let limits = Limits { sessions: 64, slots: 16, ..Limits::default() };
        Self {
            sync,
            slow_syncs: 0.0,
            faults: 0.0,
            damage: false,
            steady: true,
            upgrades: false,
            permissions: false,
            expires: false,
            places: Concurrency::ADAPTIVE,
            settings: Settings { limits, ..Settings::default() },
        }
    }
}

pub(super) struct Shared {
    pub(super) random: Random,
    pub(super) judge: Invariants,
    pub(super) counts: NodeCounts,
    /// Turns of nodes after which reads waited for a place.
    pub(super) crowded: u64,
    /// What the leader is to do next.
    pub(super) order: Option<Order>,
    /// Nothing goes wrong any more.
    pub(super) healed: bool,
    /// Clients that have nothing more to do.
    pub(super) clients_done: BTreeSet<u64>,
    /// Clients and those that went on from a copy of their journal.
    pub(super) copies: Vec<(u64, u64)>,
    /// Of those, the ones that were refused.
    pub(super) refused: BTreeSet<u64>,
    /// The last command of each client.
    pub(super) numbers: BTreeMap<u64, u64>,
    /// Commands of which nobody was told how they ended.
    pub(super) open: BTreeMap<Command, Open>,
    /// The same of changes of registers, by the value written, which is no other's.
    pub(super) open_puts: BTreeMap<u64, OpenPut>,
    /// When the last command of each client that was answered was begun, and when answered.
    pub(super) answered: BTreeMap<u64, (Instant, Instant)>,
    /// Nodes that reach some others through others only.
    pub(super) relaying: BTreeSet<NodeId>,
    pub(super) addresses: BTreeMap<NodeId, SocketAddr>,
    disks: BTreeMap<NodeId, NodeDisk>,
    /// The newest version of commands that the program of each node supports.
    programs: BTreeMap<NodeId, u32>,
    /// Whether the newer version was activated.
    upgraded: bool,
    /// Whether the newer version of the group was.
    newer_group: bool,
    first: Members,
    /// Takes the place of the first node whose disk is refused, where members are changed by hand.
    reserve: Option<NodeId>,
    /// Those that never start again: their disks were refused, or they have left the group.
    pub(super) retired: BTreeSet<NodeId>,
    /// What is known of a group whose members an operator changes.
    pub(super) operated: Option<Operated>,
    /// Its disk is to be damaged, once all of it is synced and noted to be.
    pub(super) to_damage: Option<NodeId>,
    /// Its disk is to be damaged before it starts again.
    damage_at_start: Option<NodeId>,
    /// How each node stood when it last worked, and its ledger when all is quiet.
    pub(super) standings: BTreeMap<NodeId, (Standing, Option<Ledger>)>,
}

impl Cluster {
    pub(super) fn new(world: World, habits: Habits, random: Random) -> Self {
        let shared = Shared {
            random,
            judge: Invariants::default(),
            counts: NodeCounts::default(),
            crowded: 0,
            order: None,
            healed: false,
            clients_done: BTreeSet::new(),
            copies: Vec::new(),
            refused: BTreeSet::new(),
            numbers: BTreeMap::new(),
            open: BTreeMap::new(),
            open_puts: BTreeMap::new(),
            answered: BTreeMap::new(),
            relaying: BTreeSet::new(),
            addresses: BTreeMap::new(),
            disks: BTreeMap::new(),
            programs: BTreeMap::new(),
            upgraded: false,
            newer_group: false,
            first: Members::default(),
            reserve: None,
            retired: BTreeSet::new(),
            operated: None,
            to_damage: None,
            damage_at_start: None,
            standings: BTreeMap::new(),
        };
        Self { world, habits, shared: Arc::new(Mutex::new(shared)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a journal and its copy one goes on, and no more than one: unless the session is gone, so that
    /// each opens another one.
    pub(super) fn one_of_copies(&self) -> Result<(), Broken> {
        let shared = self.lock();
        for (first, copy) in &shared.copies {
            let refused =
                [first, copy].into_iter().filter(|id| shared.refused.contains(id)).count();
            if refused == 2 || refused == 0 && !self.habits.expires {
                let what = format!("{refused} of clients {first} and {copy} were refused");
                return Err(("one of two copies of a journal", what));
            }
        }
        Ok(())
    }

    /// Gives nodes hosts, addresses and disks, and starts them. `reserve` has an address only.
    pub(super) fn start(&self, nodes: &[NodeId], reserve: Option<NodeId>, first: &Members) {
        let operated = self.lock().operated.is_some();
        if !operated {
            nodes.iter().copied().chain(reserve).for_each(|id| self.give_address(id));
        }
        {
            let mut shared = self.lock();
            shared.first = first.clone();
            shared.reserve = reserve;
        }
        nodes.iter().for_each(|id| self.add(*id));
    }

    /// Gives a node a host, if it has none, and an address that nobody has had.
    pub(super) fn give_address(&self, id: NodeId) {
        let address = self.world.address_at(&host(id));
        self.lock().addresses.insert(id, address);
    }

    /// Gives a node an empty disk and starts it.
    pub(super) fn add(&self, id: NodeId) {
        self.give_folder(id);
        self.spawn(id);
    }

    /// Gives a node a disk with an empty folder.
    pub(super) fn give_folder(&self, id: NodeId) {
        let mut shared = self.lock();
        let random = shared.random.fork();
        let new_group = Durable::new_group(shared.first.clone());
        shared.disks.insert(id, NodeDisk::new(id, new_group, random));
    }

    /// All that is on a node's disk is synced and noted to be: it is damaged as soon as it is down.
    pub(super) fn damage_at_start(&self, id: NodeId) {
        let mut shared = self.lock();
        shared.to_damage = None;
        shared.damage_at_start = Some(id);
    }

    /// A node's disk has failed: its process ends, and is started again after a while.
    pub(super) fn disk_failed(&self, id: NodeId, error: &Error) {
        {
            let counts = &mut self.lock().counts;
            *match error {
                Error::Io { error, .. } if error.kind() == ErrorKind::StorageFull => {
                    &mut counts.full_disks
                }
                error if error.to_string().ends_with(FAILED) => &mut counts.failed_disks,
                _ => &mut counts.torn_writes,
            } += 1;
        }
        let down = millis(1 + self.below(1_500));
        self.note(id.get(), || format!("{id} stops: {error}"));
        self.crash(id, down);
    }

    /// A node's disk is refused: the node is gone for good, and a new one takes its place.
    pub(super) fn retire(&self, id: NodeId, why: &Error) {
        self.note(id.get(), || format!("{id} is refused: {why}"));
        let reserve = {
            let mut shared = self.lock();
            shared.counts.replaced += 1;
            shared.retired.insert(id);
            shared.standings.remove(&id);
            shared.reserve
        };
        self.world.kill(&host(id));
        if let Some(operated) = &mut self.lock().operated {
            return operated.lost(id);
        }
        let reserve = reserve.expect("one disk is damaged at most");
        self.add(reserve);
        let cluster = self.clone();
        self.world.spawn(async move {
            let change = MemberChange {
                voters: [reserve].into(),
                remove: [id].into(),
                ..MemberChange::default()
            };
            while !cluster.is_replaced(id, reserve) {
                cluster.lock().order.get_or_insert(Order::Change(change.clone()));
                cluster.world.sleep(millis(300)).await;
            }
        });
    }

    fn is_replaced(&self, id: NodeId, by: NodeId) -> bool {
        let shared = self.lock();
        let latest = shared.standings.values().max_by_key(|(standing, _)| standing.applied);
        latest.is_some_and(|(standing, _)| {
            let members = &standing.members;
            !members.is_changing() && !members.contains(id) && members.voters.contains(&by)
        })
    }

    /// The disks fail no more.
    pub(super) fn heal_disks(&self) {
        self.lock().disks.values().for_each(NodeDisk::heal);
    }

    /// What the log alone makes of a new group.
    pub(super) fn replay(&self, log: Durable) -> Result<(Vec<u8>, Ledger), String> {
        let (settings, name) = (self.habits.settings.clone(), (GROUP, NodeId::new(u64::MAX)));
        let name = (name.0, name.1.expect("not zero"));
        let now = Instant::ZERO;
        let machines = Ledger::machines(NEWER);
        let mut replica = Replica::new(now, name, settings, log, machines, [0; 32])
            .map_err(|fault| fault.to_string())?;
        replica.flush(now);
        if let Some(fault) = replica.fault() {
            return Err(fault.to_string());
        }
        let image = replica.freeze().to_bytes().map_err(|error| error.to_string())?;
        Ok((image.to_vec(), Ledger::of(replica.machines())))
    }

    /// The newest version that the program supports with which a node starts now.
    pub(super) fn program(&self, id: NodeId) -> u32 {
        let mut shared = self.lock();
        let again = shared.programs.contains_key(&id);
        let newer = again && self.habits.upgrades && shared.random.chance(0.6);
        let most = shared.programs.entry(id).or_insert(1);
        if newer {
            *most = NEWER;
        }
        *most
    }

    /// Starts a node again with the newer program.
    pub(super) fn upgrade(&self, id: NodeId) {
        self.lock().programs.insert(id, NEWER);
        self.crash(id, millis(100));
    }

    /// The newest version of groups that a program reads: the older one of two knows the first alone.
    pub(super) fn group_version(&self, program: u32) -> u32 {
        if self.habits.upgrades && program < NEWER { program } else { Settings::VERSION }
    }

    /// Whether the group has the version that knows folders.
    pub(super) fn knows_folders(&self) -> bool {
        self.lock().newer_group
    }

    /// A replica runs commands of these versions, in a group of this one.
    pub(super) fn note_versions(&self, versions: &[u32], group: u32) {
        let mut shared = self.lock();
        if group == Settings::VERSION && !std::mem::replace(&mut shared.newer_group, true) {
            shared.counts.newer_groups += 1;
        }
        if versions == [NEWER] && !std::mem::replace(&mut shared.upgraded, true) {
            shared.counts.upgrades += 1;
        }
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

    /// The nodes that know no leader.
    pub(super) fn unled(&self) -> Vec<NodeId> {
        let shared = self.lock();
        let unled =
            |(_, (standing, _)): &(&NodeId, &(Standing, _))| standing.consensus.leader.is_none();
        shared.standings.iter().filter(unled).map(|(id, _)| *id).collect()
    }

    /// The ledger that all members have after an entry, if they all stand there.
    pub(super) fn agreed(&self) -> Option<(u64, Ledger)> {
        let shared = self.lock();
        let (first, ledger) =
            shared.standings.values().max_by_key(|(standing, _)| standing.applied)?;
        let members = &first.members;
        let stands = |id| {
            let other = shared.standings.get(id);
            other.is_some_and(|(other, others)| other.applied == first.applied && others == ledger)
        };
        let wanted = shared.operated.as_ref().is_none_or(|operated| operated.wants(members));
        let settled = wanted
            && !members.is_changing()
            && members.voters.iter().chain(&members.learners).all(stands);
        if settled { ledger.clone().map(|ledger| (first.applied, ledger)) } else { None }
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
}

impl Nodes for Cluster {
    fn world(&self) -> &World {
        &self.world
    }

    fn nodes(&self) -> Vec<NodeId> {
        let shared = self.lock();
        shared.disks.keys().copied().filter(|id| !shared.retired.contains(id)).collect()
    }

    fn is_healed(&self) -> bool {
        self.lock().healed
    }

    fn spawn(&self, id: NodeId) {
        let disk = self.lock().disks[&id].clone();
        let to_damage = self.lock().damage_at_start.take_if(|damaged| *damaged == id);
        if to_damage.is_some() {
            // What was noted to be synced is seen as it is; power is not lost besides.
            disk.restart(Loss::Nothing);
            let mut random = self.with_random(Random::fork);
            disk.damage(&mut random);
            self.lock().counts.damaged += 1;
        } else {
            disk.restart(if self.chance(0.7) { Loss::Power } else { Loss::Nothing });
        }
        if !self.is_healed() && self.chance(self.habits.faults) {
            let fault = [Fault::Crash, Fault::Crash, Fault::Full, Fault::Fails];
            let fault = fault[self.below(fault.len() as u64) as usize];
            disk.fail_soon(self.below(600), fault);
        }
        let process = Process::run(self.clone(), id, disk);
        self.world.spawn_on(&host(id), process);
    }

    fn order(&self, order: Order) {
        let mut shared = self.lock();
        // Where there is an operator, nobody else changes the members.
        if shared.operated.is_none() || matches!(order, Order::Transfer(_)) {
            shared.order = Some(order);
        }
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
