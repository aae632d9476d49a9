//! Where the numbers of a process's server or client come from: its nodes, and its door.

use std::cmp::Reverse;
#[cfg(feature = "grpc")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::sync::{OnceLock, Weak};
use std::time::Instant;

use stubborn_core::node::{CallName, CallStep, Node, in_order};
use stubborn_core::time::Instant as CoreInstant;

use super::meter::{Meters, Sum};
use super::{Door, Held, SnapshotReply, Traffic, held, links};
#[cfg(feature = "grpc")]
use super::{DoorBook, Side};
use crate::driver::Shared;

/// Links that are told one by one if nobody says how many, and at most.
pub(crate) const USUAL_LINKS: usize = 32;
pub(crate) const MOST_LINKS: usize = 256;

/// The nodes of a server or a client.
pub(crate) struct Source {
    since: Instant,
    /// Set once they are started.
    nodes: OnceLock<Vec<Weak<Shared>>>,
    /// What comes in over gRPC, once there is a door.
    #[cfg(feature = "grpc")]
    door: OnceLock<OpenDoor>,
}

/// The door for gRPC.
#[cfg(feature = "grpc")]
struct OpenDoor {
    book: Arc<Mutex<DoorBook>>,
    /// Set once it is open.
    traffic: OnceLock<Box<dyn Fn() -> Door + Send + Sync>>,
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
        Self {
            since: Instant::now(),
            nodes: OnceLock::new(),
            #[cfg(feature = "grpc")]
            door: OnceLock::new(),
        }
    }

    /// The nodes, which are known once they are started.
    pub(crate) fn set_nodes(&self, nodes: impl IntoIterator<Item = Weak<Shared>>) {
        let _ = self.nodes.set(nodes.into_iter().collect());
    }

    /// The server has a door, whose calls are in this book.
    #[cfg(feature = "grpc")]
    pub(crate) fn set_door(&self, book: Arc<Mutex<DoorBook>>) {
        let _ = self.door.set(OpenDoor { book, traffic: OnceLock::new() });
    }

    /// The door is open, and tells so what it counts of its connections.
    #[cfg(feature = "grpc")]
    pub(crate) fn set_door_traffic(&self, traffic: impl Fn() -> Door + Send + Sync + 'static) {
        if let Some(door) = self.door.get() {
            let _ = door.traffic.set(Box::new(traffic));
        }
    }

    /// What happened to a call at the server's workers, whose clock is one: what it shows now, whether
    /// steps are kept, and these.
    pub(crate) fn call_steps(&self, name: CallName) -> (CoreInstant, bool, Vec<CallStep>) {
        let (mut now, mut kept, mut steps) = (CoreInstant::ZERO, false, Vec::new());
        for node in self.nodes.get().into_iter().flatten().filter_map(Weak::upgrade) {
            let Some((on, more)) = node.look(|state| state.call_steps(name)) else { continue };
            now = now.max(node.clock.now());
            kept |= on;
            steps.extend(more);
        }
        #[cfg(feature = "grpc")]
        if let Some(door) = self.door.get() {
            let (on, more) = door.book().call_steps(name, now);
            kept |= on;
            steps.extend(more);
        }
        in_order(&mut steps);
        (now, kept, steps)
    }

    /// What was counted, with so many links one by one at most. Takes the lock of each node in turn: not
    /// to be called under one.
    pub(crate) fn snapshot(&self, most_links: usize) -> SnapshotReply {
        let mut all = Gathering::new(most_links);
        #[cfg(feature = "grpc")]
        if let Some(door) = self.door.get() {
            door.book().meter.add_to(Side::Server, &mut all.calls);
            all.told.grpc = door.traffic.get().map(|traffic| traffic());
        }
        for node in self.nodes.get().into_iter().flatten().filter_map(Weak::upgrade) {
            node.look(|state| all.add(&state.node, &state.meters));
        }
        all.tell(self.since.elapsed())
    }
}

#[cfg(feature = "grpc")]
impl OpenDoor {
    fn book(&self) -> MutexGuard<'_, DoorBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.traffic.merge(&node.endpoint().traffic().into());
    }

    pub(crate) fn tell(mut self, uptime: std::time::Duration) -> SnapshotReply {
        self.told.links.sort_by_key(|link| Reverse(link.datagrams()));
        self.told.links.truncate(self.most_links);
        SnapshotReply {
            uptime_ns: u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX),
            methods: self.calls.0,
            traffic: Some(self.traffic),
            held: Some(self.held),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..self.told
        }
    }
}

impl SnapshotReply {
    /// Adds what another part of this program, or another process, has counted. Times since the start
    /// are the longer one.
    pub fn merge(&mut self, other: &Self) {
        self.uptime_ns = self.uptime_ns.max(other.uptime_ns);
        let mut calls = Sum(std::mem::take(&mut self.methods));
        other.methods.iter().for_each(|other| calls.add(other));
        self.methods = calls.0;
        self.links.extend(other.links.iter().cloned());
        self.links.sort_by_key(|link| Reverse(link.datagrams()));
        self.traffic.get_or_insert_default().merge(&other.traffic.unwrap_or_default());
        self.held.get_or_insert_default().add(&other.held.unwrap_or_default());
        if let Some(other) = &other.grpc {
            self.grpc.get_or_insert_default().merge(other);
        }
        if self.version.is_empty() {
            self.version.clone_from(&other.version);
        }
    }
}

impl Door {
    fn merge(&mut self, other: &Self) {
        self.open += other.open;
        self.connections += other.connections;
        self.refused += other.refused;
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Count, MethodCalls};

    fn told(method: &str, name: &str) -> SnapshotReply {
        let calls = MethodCalls {
            method: method.into(),
            replied: 2,
            statuses: vec![Count { name: name.into(), count: 1 }],
            ..MethodCalls::default()
        };
        let traffic = Some(Traffic { packets_sent: 3, ..Traffic::default() });
        SnapshotReply { methods: vec![calls], traffic, ..SnapshotReply::default() }
    }

    #[test]
    fn what_two_parts_of_a_program_have_counted_is_one() {
        let mut all = told("b", "aborted");
        for other in [told("a", "aborted"), told("b", "unknown"), told("b", "aborted")] {
            all.merge(&other);
        }
        let [a, b] = &all.methods[..] else { panic!("{all:?}") };
        assert_eq!((a.ended(), b.replied, b.statuses.len(), b.ended()), (3, 6, 2, 9));
        assert_eq!(all.traffic.unwrap().packets_sent, 12);
    }
}
