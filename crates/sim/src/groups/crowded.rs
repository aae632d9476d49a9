//! A group of which so many read that reads wait: they lose nothing by it, and the group does not notice.

use std::time::Duration;

use stubborn_core::limits::Concurrency;
use stubborn_group::replication::{Members, NodeId};

use super::client::{Client, Manners};
use super::cluster::{Cluster, Habits};
use super::scenario::{heal, settle};
use crate::batch::counts;
use crate::world::{World, millis, secs};

counts! {
    /// What was met in runs of groups of which many read at once.
    CrowdedCounts {
        /// Elections after the first leader was found.
        elections: "elections",
        /// Commands that were answered.
        commands: "commands",
        /// Reads that were answered.
        reads: "reads",
        /// Turns of nodes after which reads waited.
        crowded: "turns that left reads waiting",
    }
}

/// How long a new group has to find its first leader.
const BEGINS: Duration = secs(2);

const CLIENTS: u64 = 3;

/// Three nodes, each of which answers one read in a turn, and clients that do many things at once.
pub(super) async fn crowded(world: World, lasts: Duration) -> CrowdedCounts {
    let mut random = world.random();
    let habits = Habits { places: Concurrency::Fixed(1), ..Habits::calm(millis(2)) };
    let cluster = Cluster::new(world.clone(), habits, random.fork());
    let nodes: Vec<NodeId> = (1..=3).filter_map(NodeId::new).collect();
    cluster.start(&nodes, None, &Members::of(nodes.iter().copied()));
    world.sleep(BEGINS).await;
    let term = cluster.term();
    for id in 1..=CLIENTS {
        let manners = Manners { hands: 8, ..Manners::plain(0.8, 60_000) };
        world.spawn(Client::new(cluster.clone(), id, manners).run());
    }
    world.sleep(lasts).await;
    let elections = cluster.term() - term;
    heal(&cluster);
    settle(&cluster, CLIENTS).await;
    let shared = cluster.lock();
    let (commands, reads) = (shared.counts.counted, shared.counts.reads);
    CrowdedCounts { elections, commands, reads, crowded: shared.crowded }
}
