//! The cuts of the OmniPaxos paper (Ng et al., EuroSys 2023, section 2): links between nodes are lost
//! so that most of them cannot speak to most others, while each still reaches somebody. A group goes on
//! serving since its nodes relay for one another.

use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_group::replication::{Members, NodeId};

use super::client::{Client, Manners};
use super::cluster::{Cluster, Habits};
use super::scenario::{heal, settle};
use crate::batch::counts;
use crate::network::Guard;
use crate::nodes::{Nodes, host};
use crate::world::{World, millis, secs};

/// Which links are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All but those to one node, which does not lead: it alone reaches a majority.
    QuorumLoss,
    /// The same, the leader has died, and the one node that the others reach lags behind: by itself
    /// it cannot be elected, and nobody else reaches a majority.
    Constrained,
    /// All but those of a chain with the leader at one end.
    Chained,
}

impl Cut {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::QuorumLoss, Self::Constrained, Self::Chained];
}

counts! {
    /// What was met in runs of groups that were cut.
    CutCounts {
        /// Runs.
        cuts: "cuts",
        /// Microseconds from the cut to the end of the first command that was begun after it, over all
        /// runs.
        first_us: "microseconds to the first commit",
        /// Runs in which that took longer than five election timeouts.
        late: "late",
    }
}

/// First commits come within so many election timeouts of a cut.
const TIMEOUTS: u32 = 5;

/// How long a cut lasts.
const LASTS: Duration = secs(2);

/// How long after the links are back nodes may go on relaying.
const DIRECT_AGAIN: Duration = secs(2);

pub(super) async fn cut(world: World, cut: Cut, size: u64) -> CutCounts {
    let mut random = world.random();
    let habits = Habits::calm(Duration::from_micros(100 + random.below(2_000)));
    let timeout = habits.settings.tick * habits.settings.consensus.election;
    let cluster = Cluster::new(world.clone(), habits, random.fork());
    let nodes: Vec<NodeId> = (1..=size).filter_map(NodeId::new).collect();
    cluster.start(&nodes, None, &Members::of(nodes.iter().copied()));
    for id in 1..=size {
        let client =
            Client::new(cluster.clone(), id, Manners::plain(0.0, 1 + random.below(20_000)));
        world.spawn(client.run());
    }
    let weather = world.network().delay(Duration::ZERO, Duration::from_micros(random.below(3_000)));
    world.sleep(millis(1_500 + random.below(500))).await;

    let Some(leader) = cluster.leader() else {
        cluster.judge(Err(("liveness", "nobody leads a group that nothing ails".into())));
        return CutCounts::default();
    };
    let mut others: Vec<NodeId> = nodes.iter().copied().filter(|id| *id != leader).collect();
    shuffle(&mut others, &mut random);
    if cut == Cut::Constrained {
        let lags = world.network().host(&host(others[0])).cut();
        world.sleep(millis(100 + random.below(200))).await;
        drop(lags);
    }
    let guards = cut.links(&world, leader, &others);
    let at = world.now();
    let first = first_commit(&cluster, at).await;
    let late = first > timeout * TIMEOUTS;
    if late {
        let what = format!(
            "the first commit after the cut took {first:?}, {leader} led:{}",
            cluster.standings()
        );
        cluster.judge(Err(("cuts are masked", what)));
    }
    world.sleep(LASTS).await;
    let dead = (cut == Cut::Constrained).then_some(leader);
    let unled = cluster.unled().into_iter().filter(|id| Some(*id) != dead).collect::<Vec<_>>();
    if !late && !unled.is_empty() {
        let what = format!("{LASTS:?} after it {unled:?} have no leader:{}", cluster.standings());
        cluster.judge(Err(("cuts are masked", what)));
    }
    drop((guards, weather));
    if !late {
        world.sleep(DIRECT_AGAIN).await;
        let relaying = cluster.lock().relaying.clone();
        if !relaying.is_empty() {
            let what = format!("{DIRECT_AGAIN:?} after healing {relaying:?} relay still");
            cluster.judge(Err(("the direct way is taken again", what)));
        }
    }
    heal(&cluster);
    settle(&cluster, size).await;
    CutCounts {
        cuts: 1,
        first_us: u64::try_from(first.as_micros()).unwrap_or(u64::MAX),
        late: u64::from(late),
    }
}

impl Cut {
    /// Loses the links. `others` are all but the leader, drawn by lot; the first is the hub.
    fn links(self, world: &World, leader: NodeId, others: &[NodeId]) -> Vec<Guard> {
        let mut line = vec![leader];
        line.extend(others);
        let mut guards = Vec::new();
        if self == Self::Constrained {
            guards.push(world.network().host(&host(leader)).cut());
        }
        for (a, first) in line.iter().enumerate() {
            for (b, second) in line.iter().enumerate().skip(a + 1) {
                let kept = match self {
                    Self::QuorumLoss | Self::Constrained => a == 1 || b == 1,
                    Self::Chained => b == a + 1,
                };
                if !kept {
                    guards.push(world.network().between(&host(*first), &host(*second)).cut());
                }
            }
        }
        guards
    }
}

/// How long after `at` the first command was answered that was begun after it.
async fn first_commit(cluster: &Cluster, at: Instant) -> Duration {
    loop {
        let ended =
            cluster.lock().answered.values().filter(|(begun, _)| *begun >= at).map(|a| a.1).min();
        if let Some(ended) = ended {
            return ended.since(at);
        }
        if cluster.world.now().since(at) > LASTS {
            return LASTS;
        }
        cluster.world.sleep(millis(1)).await;
    }
}

fn shuffle(nodes: &mut [NodeId], random: &mut Random) {
    for at in (1..nodes.len()).rev() {
        nodes.swap(at, random.below(at as u64 + 1) as usize);
    }
}
