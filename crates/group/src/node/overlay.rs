//! Who hears whom, and through whom a node is reached that does not hear this one.
//!
//! Every node tells its neighbours now and then whom it hears and how far everybody is from it, a
//! distance vector as in RIP (RFC 2453): 1 is a node that it hears and that hears it, and at most so
//! many nodes may stand between two others that the longest chain of five nodes holds together. After
//! Nifty (Alfatafta et al., OSDI 2020), which masks partial partitions in this way.

use std::collections::BTreeMap;

use stubborn_core::time::{Duration, Instant};
use stubborn_core::wire::{Reader, varint};

use crate::replication::NodeId;

/// Nodes that may stand between two others: those of a chain of five.
pub(super) const MOST_RELAYS: u8 = 3;

/// Nodes that a hello names at most; one that names more is none.
const MOST_NODES: usize = 64;

/// In a hello, beside a node's distance: it is heard.
const HEARD: u8 = 0x80;

#[derive(Debug)]
pub(super) struct Overlay {
    /// How long a neighbour is silent before it counts as cut off from this node.
    silence: Duration,
    neighbours: BTreeMap<NodeId, Neighbour>,
}

#[derive(Debug)]
struct Neighbour {
    /// When it last spoke to this node, with nobody between.
    heard: Instant,
    /// Whether it hears this node, as far as it has told.
    hears_us: bool,
    /// How far from it others are.
    distances: BTreeMap<NodeId, u8>,
}

impl Overlay {
    /// Until the opposite is known, everybody hears everybody.
    pub(super) fn new(
        now: Instant,
        silence: Duration,
        neighbours: impl Iterator<Item = NodeId>,
    ) -> Self {
        let mut overlay = Self { silence, neighbours: BTreeMap::new() };
        neighbours.for_each(|id| overlay.add(now, id));
        overlay
    }

    /// There is a further node.
    pub(super) fn add(&mut self, now: Instant, id: NodeId) {
        let new = || Neighbour { heard: now, hears_us: true, distances: BTreeMap::new() };
        self.neighbours.entry(id).or_insert_with(new);
    }

    /// A node has left.
    pub(super) fn remove(&mut self, id: NodeId) {
        self.neighbours.remove(&id);
    }

    /// A neighbour spoke to this node, with nobody between.
    pub(super) fn heard(&mut self, now: Instant, from: NodeId) {
        if let Some(neighbour) = self.neighbours.get_mut(&from) {
            neighbour.heard = now;
        }
    }

    /// A neighbour said how it stands.
    pub(super) fn greeted(&mut self, now: Instant, own: NodeId, from: NodeId, hello: &[u8]) {
        let (Some(told), Some(neighbour)) = (decode(hello), self.neighbours.get_mut(&from)) else {
            return;
        };
        neighbour.heard = now;
        neighbour.hears_us = told.get(&own).is_some_and(|told| told & HEARD != 0);
        neighbour.distances = told
            .into_iter()
            .map(|(id, told)| (id, told & !HEARD))
            .filter(|(id, distance)| *id != own && (1..=MOST_RELAYS).contains(distance))
            .collect();
    }

    /// What a neighbour is told. Ways that lead through itself are not mentioned to it.
    pub(super) fn hello(&self, now: Instant, to: NodeId) -> Vec<u8> {
        let mut out = Vec::with_capacity(3 * self.neighbours.len());
        for (id, neighbour) in &self.neighbours {
            let heard = if self.is_recent(now, neighbour) { HEARD } else { 0 };
            let distance = match self.distance(now, *id) {
                Some((distance, through)) if through != to && distance <= MOST_RELAYS => distance,
                _ => 0,
            };
            if heard | distance != 0 {
                varint::encode(id.get(), &mut out);
                out.push(heard | distance);
            }
        }
        out
    }

    /// Whether a node and this one hear each other, with nobody between.
    pub(super) fn is_direct(&self, now: Instant, id: NodeId) -> bool {
        self.neighbours
            .get(&id)
            .is_some_and(|neighbour| neighbour.hears_us && self.is_recent(now, neighbour))
    }

    /// Whether this node hears that one, with nobody between.
    pub(super) fn hears(&self, now: Instant, id: NodeId) -> bool {
        self.neighbours.get(&id).is_some_and(|neighbour| self.is_recent(now, neighbour))
    }

    /// Through whom a node is reached that cannot be reached without help.
    pub(super) fn relay(&self, now: Instant, to: NodeId) -> Option<NodeId> {
        if cfg!(feature = "planted-no-relay") {
            return None;
        }
        let (_, through) = self.distance(now, to)?;
        (through != to).then_some(through)
    }

    /// How far a node is, and the neighbour on the way.
    fn distance(&self, now: Instant, to: NodeId) -> Option<(u8, NodeId)> {
        if self.is_direct(now, to) {
            return Some((1, to));
        }
        let ways = self.neighbours.iter().filter(|(id, _)| self.is_direct(now, **id));
        ways.filter_map(|(id, way)| Some((way.distances.get(&to)? + 1, *id))).min()
    }

    fn is_recent(&self, now: Instant, neighbour: &Neighbour) -> bool {
        now.since(neighbour.heard) < self.silence
    }
}

/// What a hello says of each node. None if it is malformed.
fn decode(hello: &[u8]) -> Option<BTreeMap<NodeId, u8>> {
    let mut reader = Reader::new(hello);
    let mut told = BTreeMap::new();
    while !reader.is_empty() {
        let id = NodeId::new(reader.varint().ok()?)?;
        told.insert(id, reader.u8().ok()?);
        if told.len() > MOST_NODES {
            return None;
        }
    }
    Some(told)
}

#[cfg(test)]
#[path = "overlay/tests.rs"]
mod tests;
