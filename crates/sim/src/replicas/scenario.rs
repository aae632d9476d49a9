//! One run of a group: replicas, clients, everything that can go wrong, then a world in which
//! nothing is wrong any more, where every question has to be answered and all replicas agree.

use std::time::Duration;

use stubborn_group::replication::{Members, NodeId};

use super::client::Client;
use super::group::{Group, Habits, TICK};
use super::{GroupCounts, Sabotage};
use crate::network::Guard;
use crate::nodes::{Nodes, Trouble, host, rule};
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
        (0..random.below(3)).map(|_| world.network().add(rule(&mut random, false))).collect();
    let length = Duration::from_millis(2_000 + random.below(10_000));
    let episodes = 1 + random.below(12);
    for _ in 0..episodes {
        let begins = Duration::from_millis(random.below(length.as_millis() as u64));
        let trouble = Trouble { nodes: group.clone(), random: random.fork(), corrupts: false };
        world.spawn(trouble.run(begins, |trouble, _| clock(trouble)));
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
        let clients_done = group.lock().clients_done;
        if clients_done == clients { group.agreed() } else { None }
    };
    while group.world.now().since(begun) < BOUND {
        if let Some(value) = done(group) {
            let verdict = group.lock().invariants.at_rest(value);
            return group.judge(verdict);
        }
        group.world.sleep(millis(20)).await;
    }
    let open = clients - group.lock().clients_done;
    let standings = group.standings();
    let what = format!(
        "{open} clients wait, or the replicas do not agree, {BOUND:?} after healing:{standings}"
    );
    group.judge(Err(("liveness", what)));
}

/// A clock that goes at a third to three times its speed.
fn clock(trouble: &mut Trouble<Group>) -> Option<Guard> {
    let node = trouble.node();
    let tick = TICK.mul_f64(0.33 + trouble.random.unit() * 2.7);
    trouble.nodes.set_tick(node, tick);
    None
}
