//! The leader dies again and again on a lossy network: how long do clients wait?

use std::time::Duration;

use stubborn_core::time::Instant;
use stubborn_group::replication::{Members, NodeId};

use super::client::{Client, Manners};
use super::cluster::{Cluster, Habits};
use super::scenario::{heal, settle};
use crate::batch::counts;
use crate::nodes::Nodes;
use crate::world::{World, millis};

counts! {
    /// What was met in runs in which leaders die.
    DeathCounts {
        /// Leaders that died.
        deaths: "deaths",
        /// Microseconds without a leader, all together.
        leaderless_us: "microseconds without a leader",
        /// Microseconds without an answer, all together, for the client that waited longest.
        gap_us: "microseconds without an answer",
        /// Waits of more than 200 ms.
        over_200_ms: "over 200 ms",
        /// Waits of more than 300 ms.
        over_300_ms: "over 300 ms",
        /// Waits of more than half a second.
        over_500_ms: "over 500 ms",
    }
}

/// How long a leader stays dead.
const DEAD: Duration = millis(1_000);

/// How long a group is left in peace after a leader has come back.
const PEACE: u64 = 1_000;

/// A group of so many nodes and as many clients, between all of which this part of the datagrams is lost.
pub(super) async fn deaths(world: World, size: u64, loss: f64, deaths: u64) -> DeathCounts {
    let mut random = world.random();
    let habits = Habits::calm(millis(2));
    let cluster = Cluster::new(world.clone(), habits, random.fork());
    let nodes: Vec<NodeId> = (1..=size).filter_map(NodeId::new).collect();
    cluster.start(&nodes, None, &Members::of(nodes.iter().copied()));
    for id in 1..=size {
        let client = Client::new(cluster.clone(), id, Manners::plain(0.0, 5_000));
        world.spawn(client.run());
    }
    let loss = world.network().lose(loss);
    let mut counts = DeathCounts::default();
    for _ in 0..deaths {
        world.sleep(millis(PEACE + random.below(500))).await;
        let Some(leader) = cluster.leader() else { continue };
        let at = world.now();
        cluster.crash(leader, DEAD);
        let (leaderless, gap) = recovery(&cluster, leader, at, size).await;
        cluster.note(leader.get(), || {
            format!("{leader} died, none led for {leaderless:?}, a client waited for {gap:?}")
        });
        counts.deaths += 1;
        counts.leaderless_us += u64::try_from(leaderless.as_micros()).unwrap_or(u64::MAX);
        counts.gap_us += u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        counts.over_200_ms += u64::from(gap > millis(200));
        counts.over_300_ms += u64::from(gap > millis(300));
        counts.over_500_ms += u64::from(gap > millis(500));
        world.sleep(DEAD).await;
    }
    drop(loss);
    heal(&cluster);
    settle(&cluster, size).await;
    counts
}

/// How long it took until another node led, and until every client had an answer.
async fn recovery(
    cluster: &Cluster,
    dead: NodeId,
    at: Instant,
    clients: u64,
) -> (Duration, Duration) {
    let mut leaderless = None;
    loop {
        let now = cluster.world.now();
        if leaderless.is_none() && cluster.leader().is_some_and(|leader| leader != dead) {
            leaderless = Some(now.since(at));
        }
        let answered: Vec<Instant> = {
            let shared = cluster.lock();
            shared.answered.values().filter(|(begun, _)| *begun >= at).map(|a| a.1).collect()
        };
        let last = answered.iter().max().copied().filter(|_| answered.len() as u64 == clients);
        if let Some(last) = last.or((now.since(at) > DEAD * 3).then_some(now)) {
            let gap = last.since(at);
            return (leaderless.unwrap_or(gap), gap);
        }
        cluster.world.sleep(millis(1)).await;
    }
}
