//! One run of a group of whole nodes: everything that can go wrong, then a world in which nothing is
//! wrong any more, where every call has to end and all replicas agree.

use std::collections::BTreeSet;
use std::time::Duration;

use stubborn_core::limits::Limits;
use stubborn_core::random::Random;
use stubborn_group::replica::Settings;
use stubborn_group::replication::{self, MemberChange, Members, NodeId};

use super::NodeCounts;
use super::client::Client;
use super::cluster::{Cluster, Habits, Order, host};
use crate::network::{Guard, Network, Rule};
use crate::oracle::Violation;
use crate::world::{World, millis, secs};

/// After the faults are lifted every call ends within this time, and the replicas agree.
const BOUND: Duration = secs(15);

/// Runs the scenario of the world's seed.
pub(super) async fn scenario(world: World) -> NodeCounts {
    let mut random = world.random();
    let habits = habits(&mut random);
    let voters = if random.chance(0.6) { 3 } else { 5 };
    let spare = if random.chance(0.4) { 1 + random.below(2) } else { 0 };
    let nodes: Vec<NodeId> = (1..=voters + spare).filter_map(NodeId::new).collect();
    let first = Members::of(nodes[..voters as usize].iter().copied());
    let cluster = Cluster::new(world.clone(), habits, random.fork());
    cluster.start(&nodes, &first);
    let clients = 1 + random.below(4);
    for id in 1..=clients {
        let client = Client::new(cluster.clone(), id);
        let (reads, pause) = (random.unit() * 0.6, 1 + random.below(40_000));
        world.spawn(client.run(reads, pause, random.unit() * 0.5));
    }
    let weather: Vec<Guard> =
        (0..random.below(3)).map(|_| world.network().add(rule(&mut random))).collect();
    let length = Duration::from_millis(2_000 + random.below(8_000));
    for _ in 0..1 + random.below(10) {
        let begins = Duration::from_millis(random.below(length.as_millis() as u64));
        let (cluster, nodes) = (cluster.clone(), nodes.clone());
        let trouble = Trouble { cluster, random: random.fork(), nodes };
        world.spawn(trouble.run(begins));
    }
    world.sleep(length).await;
    drop(weather);
    heal(&cluster, &nodes);
    settle(&cluster, clients).await;
    cluster.lock().counts
}

fn habits(random: &mut Random) -> Habits {
    let consensus =
        replication::Settings { keep: random.below(20), ..replication::Settings::default() };
    let few = random.chance(0.2);
    let settings = Settings {
        consensus,
        limits: Limits { sessions: 64, slots: 16, ..Limits::default() },
        snapshot_entries: 5 + random.below(200),
        pending: if few { 1 + random.below(3) as usize } else { 1_024 },
        ..Settings::default()
    };
    Habits {
        sync: Duration::from_micros(100 + random.below(8_000)),
        crash: if random.chance(0.4) { random.unit() * 0.004 } else { 0.0 },
        settings,
    }
}

fn heal(cluster: &Cluster, nodes: &[NodeId]) {
    {
        let mut shared = cluster.lock();
        shared.healed = true;
        shared.order = None;
    }
    cluster.world.network().heal();
    for id in nodes {
        cluster.world.skew(&host(*id), 0);
        cluster.world.resume(&host(*id));
        cluster.restart(*id);
    }
}

/// Waits until every call has ended and all replicas agree.
async fn settle(cluster: &Cluster, clients: u64) {
    let begun = cluster.world.now();
    while cluster.world.now().since(begun) < BOUND {
        let done = cluster.lock().clients_done == clients;
        if let Some(ledger) = done.then(|| cluster.agreed()).flatten() {
            let verdict = cluster.lock().judge.at_rest(&ledger);
            return cluster.judge(verdict);
        }
        cluster.world.sleep(millis(20)).await;
    }
    let open = clients - cluster.lock().clients_done;
    let standings = cluster.standings();
    let what = format!(
        "{open} clients wait, or the replicas do not agree, {BOUND:?} after healing:{standings}"
    );
    let now = cluster.world.now();
    cluster.world.state().accuse(Err(Violation::new("liveness", now, what)));
}

/// Something that goes wrong for a while.
struct Trouble {
    cluster: Cluster,
    random: Random,
    nodes: Vec<NodeId>,
}

impl Trouble {
    async fn run(mut self, begins: Duration) {
        let world = self.cluster.world.clone();
        world.sleep(begins).await;
        if self.cluster.lock().healed {
            return;
        }
        let lasts = Duration::from_millis(10 + self.random.below(3_000));
        let guard = match self.random.below(12) {
            0 | 1 => {
                let node = self.node();
                self.cluster.crash(node, lasts);
                None
            }
            2 => {
                self.cluster.lock().counts.all_at_once += 1;
                self.nodes.iter().for_each(|node| self.cluster.crash(*node, lasts));
                None
            }
            3 => {
                self.pause(lasts).await;
                None
            }
            4 => Some(self.cut()),
            5 => Some(self.one_way().cut()),
            6 => {
                let (a, b) = (host(self.node()), host(self.node()));
                self.cluster.lock().counts.partial += u64::from(a != b);
                (a != b).then(|| world.network().between(&a, &b).cut())
            }
            7 => {
                let rule = rule(&mut self.random);
                Some(self.one_way().add(rule))
            }
            8 => {
                // A clock that goes at half to three times its speed, or jumps.
                let name = host(self.node());
                match self.random.below(3) {
                    0 => world.jump(&name, lasts),
                    1 => world.jump_back(&name, lasts),
                    _ => world.skew(&name, self.random.below(2_500_000) as i32 - 500_000),
                }
                None
            }
            9 => {
                let name = format!("client-{}", 1 + self.random.below(4));
                let known = world.knows(&name);
                known.then(|| world.network().host(&name).cut())
            }
            10 => {
                let order = Order::Transfer(self.node());
                self.cluster.lock().order = Some(order);
                None
            }
            _ => {
                let order = Order::Change(self.change());
                self.cluster.lock().order = Some(order);
                None
            }
        };
        world.sleep(lasts).await;
        drop(guard);
    }

    async fn pause(&mut self, lasts: Duration) {
        let name = host(self.node());
        self.cluster.lock().counts.pauses += 1;
        self.cluster.world.pause(&name);
        self.cluster.world.sleep(lasts).await;
        self.cluster.world.resume(&name);
    }

    fn node(&mut self) -> NodeId {
        self.nodes[self.random.below(self.nodes.len() as u64) as usize]
    }

    /// Cuts some nodes off from all others, clients among them.
    fn cut(&mut self) -> Guard {
        let count = 1 + self.random.below(2);
        let names: BTreeSet<String> = (0..count).map(|_| host(self.node())).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.cluster.lock().counts.partitions += 1;
        self.cluster.world.network().across(&names).cut()
    }

    /// Other members: as many voters as there were, or a few more or less; now and then learners.
    fn change(&mut self) -> MemberChange {
        let mut change = MemberChange::default();
        let wanted = 3 + self.random.below(3) as usize;
        while change.voters.len() < wanted.min(self.nodes.len()) {
            change.voters.insert(self.node());
        }
        for node in self.nodes.iter().filter(|node| !change.voters.contains(node)) {
            let learns = self.random.chance(0.3);
            let set = if learns { &mut change.learners } else { &mut change.remove };
            set.insert(*node);
        }
        change
    }

    fn one_way(&mut self) -> Network {
        let from = self.node();
        let to = self.nodes.iter().copied().find(|node| *node != from).unwrap_or(from);
        self.cluster.world.network().one_way(&host(from), &host(to))
    }
}

fn rule(random: &mut Random) -> Rule {
    match random.below(6) {
        0 | 1 => Rule::Lose(random.unit() * 0.3),
        2 => Rule::Duplicate { chance: random.unit() * 0.5, later: millis(random.below(2_000)) },
        3 => Rule::Reorder { chance: random.unit() * 0.5, later: millis(random.below(500)) },
        4 => Rule::Corrupt(random.unit() * 0.05),
        _ => Rule::Delay { base: millis(random.below(20)), jitter: millis(random.below(40)) },
    }
}
