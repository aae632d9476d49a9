//! Where the numbers of a process's server or client come from: its nodes, and its door.

use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use stubborn_core::node::Node;

use super::meter::{Meters, Sum};
use super::{Held, Meter, Side, SnapshotReply, Traffic, held, links};
use crate::driver::Shared;

/// Links that are told one by one if nobody says how many, and at most.
pub(crate) const USUAL_LINKS: usize = 32;
pub(crate) const MOST_LINKS: usize = 256;

/// The nodes of a server or a client.
pub(crate) struct Source {
    since: Instant,
    /// Set once they are started.
    nodes: OnceLock<Vec<Weak<Shared>>>,
    /// What came in over gRPC.
    door: Mutex<Meter>,
}

/// A snapshot that is being put together, node by node.
pub(crate) struct Gathering {
    most_links: usize,
    calls: Sum,
    told: SnapshotReply,
    held: Held,
    traffic: Traffic,
}

impl Source {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), nodes: OnceLock::new(), door: Mutex::new(Meter::new()) }
    }

    /// The nodes, which are known once they are started.
    pub(crate) fn set_nodes(&self, nodes: impl IntoIterator<Item = Weak<Shared>>) {
        let _ = self.nodes.set(nodes.into_iter().collect());
    }

    pub(crate) fn door(&self) -> MutexGuard<'_, Meter> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted, with so many links one by one at most. Takes the lock of each node in turn: not
    /// to be called under one.
    pub(crate) fn snapshot(&self, most_links: usize) -> SnapshotReply {
        let mut all = Gathering::new(most_links);
        self.door().add_to(Side::Server, &mut all.calls);
        for node in self.nodes.get().into_iter().flatten().filter_map(Weak::upgrade) {
            node.look(|state| all.add(&state.node, &state.meters));
        }
        all.tell(self.since.elapsed())
    }
}

impl Gathering {
    pub(crate) fn new(most_links: usize) -> Self {
        Self {
            most_links,
            calls: Sum::default(),
            told: SnapshotReply::default(),
            held: Held::default(),
            traffic: Traffic::default(),
        }
    }

    pub(crate) fn add(&mut self, node: &Node, meters: &Meters) {
        meters.add_to(&mut self.calls);
        self.told.links.extend(links(node, self.most_links));
        self.held.add(&held(node));
        self.traffic.add(&node.endpoint().traffic());
    }

    pub(crate) fn tell(mut self, uptime: std::time::Duration) -> SnapshotReply {
        self.told.links.sort_by_key(|link| Reverse(link.datagrams()));
        self.told.links.truncate(self.most_links);
        SnapshotReply {
            uptime_ns: u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX),
            methods: self.calls.tell(),
            traffic: Some(self.traffic),
            held: Some(self.held),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..self.told
        }
    }
}
