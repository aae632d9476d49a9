//! What scenarios of groups share, whatever their nodes run: nodes lose power and start again, stand
//! still, are cut off, and get other members.

mod election_safety;
mod trouble;

use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_group::replication::{MemberChange, NodeId};

pub(crate) use election_safety::ElectionSafety;
pub(crate) use trouble::{Trouble, rule};

use crate::oracle::Violation;
use crate::world::World;

/// How a promise was broken: which one, and what was seen.
pub(crate) type Broken = (&'static str, String);

/// What an administrator asks of a leader.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Change(MemberChange),
    Transfer(NodeId),
}

/// Something that happened to nodes, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Crash,
    AllAtOnce,
    Pause,
    Partition,
    /// Two nodes were cut from one another alone.
    Partial,
}

/// Nodes in a world. Cheap to clone; clones are the same nodes.
pub(crate) trait Nodes: Clone + Send + Sized + 'static {
    fn world(&self) -> &World;

    /// Those that may run.
    fn nodes(&self) -> Vec<NodeId>;

    /// Whether nothing goes wrong any more.
    fn is_healed(&self) -> bool;

    /// Lets a node's process run on its host, which has just been started.
    fn spawn(&self, id: NodeId);

    /// Has the next leader do something.
    fn order(&self, order: Order);

    fn count(&self, met: Met);

    fn with_random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T;

    fn chance(&self, p: f64) -> bool {
        self.with_random(|random| random.chance(p))
    }

    fn below(&self, bound: u64) -> u64 {
        self.with_random(|random| random.below(bound))
    }

    /// Starts a node that was killed, if it may run.
    fn restart(&self, id: NodeId) {
        if self.nodes().contains(&id) && !self.world().is_alive(&host(id)) {
            self.world().restart(&host(id));
            self.spawn(id);
        }
    }

    /// Kills a node, and starts it again after a while.
    fn crash(&self, id: NodeId, down: Duration) {
        self.count(Met::Crash);
        self.world().kill(&host(id));
        let nodes = self.clone();
        self.world().spawn(async move {
            nodes.world().sleep(down).await;
            nodes.restart(id);
        });
    }

    /// Stops the run if a promise is broken.
    fn judge(&self, verdict: Result<(), Broken>) {
        if let Err((promise, what)) = verdict {
            let now = self.world().now();
            self.world().state().accuse(Err(Violation::new(promise, now, what)));
        }
    }

    /// Adds a line to the trace.
    fn note(&self, word: u64, line: impl FnOnce() -> String) {
        self.world().state().note(word, line);
    }
}

/// The name of a node's host.
pub(crate) fn host(id: NodeId) -> String {
    format!("node-{}", id.get())
}
