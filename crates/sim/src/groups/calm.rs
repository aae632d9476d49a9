//! A group on a lossy network with nothing else wrong: nobody has a reason to stand for election.

use std::time::Duration;

use stubborn_group::replication::{Members, NodeId};

use super::client::{Client, Manners};
use super::cluster::{Cluster, Habits};
use super::scenario::{heal, settle};
use crate::batch::counts;
use crate::nodes::Nodes;
use crate::world::{World, millis, secs};

counts! {
    /// What was met in runs of groups that only a lossy network ails.
    CalmCounts {
        /// Elections after the first leader was found.
        elections: "needless elections",
        /// Commands that were answered.
        commands: "commands",
        /// Reads that were answered.
        reads: "reads",
    }
}

/// How long a new group has to find its first leader, before the network gets bad.
const BEGINS: Duration = secs(2);

/// How often terms are looked at.
const LOOK_EVERY: Duration = millis(50);

/// A group of so many nodes and two clients, between all of which this part of the datagrams is lost.
pub(super) async fn calm(world: World, size: u64, loss: f64, lasts: Duration) -> CalmCounts {
    let mut random = world.random();
    let sync = millis(2);
    let cluster = Cluster::new(world.clone(), Habits::calm(sync), random.fork());
    let nodes: Vec<NodeId> = (1..=size).filter_map(NodeId::new).collect();
    cluster.start(&nodes, None, &Members::of(nodes.iter().copied()));
    for id in 1..=2 {
        let client = Client::new(cluster.clone(), id, Manners::plain(0.3, 200_000));
        world.spawn(client.run());
    }
    world.sleep(BEGINS).await;
    let loss = world.network().lose(loss);
    let (mut term, mut elections) = (cluster.term(), 0);
    let begun = world.now();
    while world.now().since(begun) < lasts {
        world.sleep(LOOK_EVERY).await;
        let now = cluster.term();
        if now > term {
            elections += now - term;
            let leader = cluster.leader();
            cluster.note(now, || format!("needless: term {now}, {leader:?} leads"));
            term = now;
        }
    }
    drop(loss);
    heal(&cluster);
    settle(&cluster, 2).await;
    let counts = cluster.lock().counts;
    CalmCounts { elections, commands: counts.counted, reads: counts.reads }
}
