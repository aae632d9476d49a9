//! What goes wrong with nodes, drawn by chance.

use std::collections::BTreeSet;
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_group::replication::{MemberChange, NodeId};

use super::{Met, Nodes, Order, host};
use crate::network::{Guard, Network, Rule};
use crate::world::millis;

/// Something that goes wrong for a while.
pub(crate) struct Trouble<N> {
    pub(crate) nodes: N,
    pub(crate) random: Random,
    /// Whether datagrams may be corrupted: not where they are bare.
    pub(crate) corrupts: bool,
}

impl<N: Nodes> Trouble<N> {
    /// Lets something happen after a while: what happens to all nodes alike, or `else_`, which
    /// scenarios have of their own.
    pub(crate) async fn run(
        mut self,
        begins: Duration,
        else_: impl FnOnce(&mut Self, Duration) -> Option<Guard>,
    ) {
        let world = self.nodes.world().clone();
        world.sleep(begins).await;
        if self.nodes.is_healed() {
            return;
        }
        let lasts = Duration::from_millis(10 + self.random.below(3_000));
        let guard = match self.random.below(12) {
            0 | 1 => {
                let node = self.node();
                self.nodes.crash(node, lasts);
                None
            }
            2 => {
                self.nodes.count(Met::AllAtOnce);
                self.nodes.nodes().into_iter().for_each(|node| self.nodes.crash(node, lasts));
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
                (a != b).then(|| {
                    self.nodes.count(Met::Partial);
                    world.network().between(&a, &b).cut()
                })
            }
            7 => {
                let rule = rule(&mut self.random, self.corrupts);
                Some(self.one_way().add(rule))
            }
            8 => {
                let order = Order::Transfer(self.node());
                self.nodes.order(order);
                None
            }
            9 => {
                let order = Order::Change(self.change());
                self.nodes.order(order);
                None
            }
            _ => else_(&mut self, lasts),
        };
        world.sleep(lasts).await;
        drop(guard);
    }

    /// One of the nodes.
    pub(crate) fn node(&mut self) -> NodeId {
        let nodes = self.nodes.nodes();
        nodes[self.random.below(nodes.len() as u64) as usize]
    }

    async fn pause(&mut self, lasts: Duration) {
        let name = host(self.node());
        let world = self.nodes.world().clone();
        self.nodes.count(Met::Pause);
        world.pause(&name);
        world.sleep(lasts).await;
        world.resume(&name);
    }

    /// Cuts some nodes off from all others, clients among them.
    fn cut(&mut self) -> Guard {
        let count = 1 + self.random.below(2);
        let names: BTreeSet<String> = (0..count).map(|_| host(self.node())).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.nodes.count(Met::Partition);
        self.nodes.world().network().across(&names).cut()
    }

    fn one_way(&mut self) -> Network {
        let from = self.node();
        let to = self.nodes.nodes().into_iter().find(|node| *node != from).unwrap_or(from);
        self.nodes.world().network().one_way(&host(from), &host(to))
    }

    /// Other members: as many voters as there were, or a few more or less; now and then learners.
    fn change(&mut self) -> MemberChange {
        let (mut change, nodes) = (MemberChange::default(), self.nodes.nodes());
        let wanted = 3 + self.random.below(3) as usize;
        while change.voters.len() < wanted.min(nodes.len()) {
            change.voters.insert(self.node());
        }
        for node in nodes.iter().filter(|node| !change.voters.contains(node)) {
            let learns = self.random.chance(0.3);
            let set = if learns { &mut change.learners } else { &mut change.remove };
            set.insert(*node);
        }
        change
    }
}

/// What the network does.
pub(crate) fn rule(random: &mut Random, corrupts: bool) -> Rule {
    match random.below(5 + u64::from(corrupts)) {
        0 | 1 => Rule::Lose(random.unit() * 0.3),
        2 => Rule::Duplicate { chance: random.unit() * 0.5, later: millis(random.below(2_000)) },
        3 => Rule::Reorder { chance: random.unit() * 0.5, later: millis(random.below(500)) },
        4 => Rule::Delay { base: millis(random.below(20)), jitter: millis(random.below(40)) },
        _ => Rule::Corrupt(random.unit() * 0.05),
    }
}
