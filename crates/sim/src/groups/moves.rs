//! Members of a group of two move to other addresses again and again, one of them or both by one order, and
//! each time both lose power before they need to have heard that the change is committed: then they know the
//! old addresses alone, and without the other one's vote neither can learn more.

use std::time::Duration;

use stubborn_group::replication::{Members, NodeId};

use super::NodeCounts;
use super::client::{Client, Manners};
use super::cluster::{Cluster, Habits};
use super::operator::{Operator, Wishes};
use super::scenario::{heal, settle};
use crate::nodes::Nodes;
use crate::world::{World, millis};

/// After a move the group answers within this time.
const BOUND: Duration = millis(5_000);

/// So many moves.
pub(super) async fn moves(world: World, moves: u64, together: bool) -> NodeCounts {
    let mut random = world.random();
    let cluster = Cluster::new(world.clone(), Habits::calm(millis(2)), random.fork());
    let nodes: Vec<NodeId> = (1..=2).filter_map(NodeId::new).collect();
    cluster.operate(&nodes);
    cluster.start(&nodes, None, &Members::of(nodes.iter().copied()));
    let wishes = Wishes { pause: 1, wipes: false, least: 2, replaces_all: false };
    let mut operator = Operator::new(cluster.clone(), 3, wishes, random.fork());
    let client = Client::new(cluster.clone(), 1, Manners::plain(0.0, 5_000));
    world.spawn(client.run());
    for turn in 0..moves {
        world.sleep(millis(200 + random.below(300))).await;
        if together {
            operator.relocate_all(&nodes, goes_on(cluster.clone(), turn)).await;
        } else {
            let (moves, stays) = (nodes[turn as usize % 2], nodes[1 - turn as usize % 2]);
            operator.relocate(&[moves]).await;
            cluster.crash(stays, millis(1 + random.below(300)));
            goes_on(cluster.clone(), turn).await;
        }
    }
    operator.ends();
    heal(&cluster);
    settle(&cluster, 2).await;
    cluster.lock().counts
}

/// Waits until a call that begins now is answered.
async fn goes_on(cluster: Cluster, turn: u64) {
    let at = cluster.world.now();
    let answered = || cluster.lock().answered.values().any(|(begun, _)| *begun >= at);
    while !answered() {
        if cluster.world.now().since(at) > BOUND {
            let what = format!("{BOUND:?} after move {turn}:{}", cluster.standings());
            return cluster.judge(Err(("liveness", what)));
        }
        cluster.world.sleep(millis(10)).await;
    }
}
