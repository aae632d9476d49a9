//! One run of a group: replicas, clients, everything that can go wrong, then a world in which
//! nothing is wrong any more, where every question has to be answered and all replicas agree.

use std::collections::BTreeSet;
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_group::replication::{MemberChange, Members, NodeId};

use super::client::Client;
use super::group::{Group, Habits, Order, TICK, host};
use super::{GroupCounts, Sabotage};
use crate::network::{Guard, Network, Rule};
use crate::oracle::Violation;
use crate::world::{World, millis, secs};

/// After the faults are lifted every question is answered within this time, and the replicas agree.
const BOUND: Duration = secs(10);

/// Runs the scenario of the world's seed.
pub(super) async fn scenario(world: World, sabotage: Option<Sabotage>) -> GroupCounts {
    let mut random = world.random();
    let habits = Habits {
        sync: Duration::from_micros(100 + random.below(8_000)),
        crash: if random.chance(0.4) { random.unit() * 0.01 } else { 0.0 },
        snapshot_every: 5 + random.below(200),
        keep: random.below(20),
        sabotage,
    };
    let voters = if random.chance(0.5) { 3 } else { 5 };
    let spare = random.below(3);
    let nodes: Vec<NodeId> = (1..=voters + spare).filter_map(NodeId::new).collect();
    let first = Members::of(nodes[..voters as usize].iter().copied());
    let group = Group::new(world.clone(), habits, random.fork());
    nodes.iter().for_each(|id| group.add(*id, &first));
    let clients = 1 + random.below(4);
    for id in 1..=clients {
        let client = Client::new(group.clone(), id, random.chance(0.5));
        world.spawn(client.run(random.unit() * 0.7, 1 + random.below(40_000)));
    }
    let weather: Vec<Guard> =
        (0..random.below(3)).map(|_| world.network().add(rule(&mut random))).collect();
    let length = Duration::from_millis(2_000 + random.below(10_000));
    let episodes = 1 + random.below(12);
    for _ in 0..episodes {
        let begins = Duration::from_millis(random.below(length.as_millis() as u64));
        let trouble = Trouble { group: group.clone(), random: random.fork(), nodes: nodes.clone() };
        world.spawn(trouble.run(begins));
    }
    world.sleep(length).await;
    drop(weather);
    heal(&group, &nodes);
    settle(&group, clients).await;
    group.lock().counts
}

fn heal(group: &Group, nodes: &[NodeId]) {
    {
        let mut shared = group.lock();
        shared.healed = true;
        shared.order = None;
    }
    group.world.network().heal();
    for id in nodes {
        group.set_tick(*id, TICK);
        group.world.resume(&host(*id));
        group.restart(*id);
    }
}

/// Waits until every question is answered and all replicas agree.
async fn settle(group: &Group, clients: u64) {
    let begun = group.world.now();
    let done = |group: &Group| {
        let clients_done = group.lock().counts.clients_done;
        if clients_done == clients { group.agreed() } else { None }
    };
    while group.world.now().since(begun) < BOUND {
        if let Some(value) = done(group) {
            let verdict = group.lock().invariants.at_rest(value);
            return group.judge(verdict);
        }
        group.world.sleep(millis(20)).await;
    }
    let open = clients - group.lock().counts.clients_done;
    let standings = group.standings();
    let what = format!(
        "{open} clients wait, or the replicas do not agree, {BOUND:?} after healing:{standings}"
    );
    let now = group.world.now();
    group.world.state().accuse(Err(Violation::new("liveness", now, what)));
}

/// Something that goes wrong for a while.
struct Trouble {
    group: Group,
    random: Random,
    nodes: Vec<NodeId>,
}

impl Trouble {
    async fn run(mut self, begins: Duration) {
        self.group.world.sleep(begins).await;
        if self.group.lock().healed {
            return;
        }
        let lasts = Duration::from_millis(10 + self.random.below(3_000));
        match self.random.below(12) {
            0 | 1 => {
                let node = self.node();
                self.group.crash(node, lasts);
            }
            2 => self.nodes.iter().for_each(|node| self.group.crash(*node, lasts)),
            3 => self.pause(lasts).await,
            4 => {
                let guard = self.cut();
                self.group.world.sleep(lasts).await;
                drop(guard);
            }
            5 => {
                let guard = self.one_way().cut();
                self.group.world.sleep(lasts).await;
                drop(guard);
            }
            6 => {
                let (a, b) = (host(self.node()), host(self.node()));
                let guard = (a != b).then(|| self.group.world.network().between(&a, &b).cut());
                self.group.world.sleep(lasts).await;
                drop(guard);
            }
            7 => {
                let rule = rule(&mut self.random);
                let guard = self.one_way().add(rule);
                self.group.world.sleep(lasts).await;
                drop(guard);
            }
            8 => {
                // A clock that goes at a third to three times its speed.
                let node = self.node();
                let tick = TICK.mul_f64(0.33 + self.random.unit() * 2.7);
                self.group.set_tick(node, tick);
            }
            9 => {
                let order = Order::Transfer(self.node());
                self.group.lock().order = Some(order);
            }
            _ => {
                let order = Order::Change(self.change());
                self.group.lock().order = Some(order);
            }
        }
    }

    async fn pause(&mut self, lasts: Duration) {
        let name = host(self.node());
        self.group.lock().counts.pauses += 1;
        self.group.world.pause(&name);
        self.group.world.sleep(lasts).await;
        self.group.world.resume(&name);
    }

    fn node(&mut self) -> NodeId {
        self.nodes[self.random.below(self.nodes.len() as u64) as usize]
    }

    /// Cuts some nodes off from all others, clients among them.
    fn cut(&mut self) -> Guard {
        let count = 1 + self.random.below(2);
        let names: BTreeSet<String> = (0..count).map(|_| host(self.node())).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.group.lock().counts.partitions += 1;
        self.group.world.network().across(&names).cut()
    }

    fn one_way(&mut self) -> Network {
        let from = self.node();
        let to = self.nodes.iter().copied().find(|node| *node != from).unwrap_or(from);
        self.group.world.network().one_way(&host(from), &host(to))
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
}

fn rule(random: &mut Random) -> Rule {
    match random.below(5) {
        0 | 1 => Rule::Lose(random.unit() * 0.4),
        2 => Rule::Duplicate { chance: random.unit() * 0.5, later: millis(random.below(2_000)) },
        3 => Rule::Reorder { chance: random.unit() * 0.5, later: millis(random.below(500)) },
        _ => Rule::Delay { base: millis(random.below(20)), jitter: millis(random.below(40)) },
    }
}
