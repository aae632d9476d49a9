//! What passed over the wire, in numbers.

use std::collections::BTreeMap;

use crate::network::Dropped;

/// Counts of datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Datagrams that reached a node.
    pub delivered: u64,
    /// Bytes in them.
    pub bytes: u64,
    dropped: BTreeMap<Dropped, u64>,
}

impl WireCounts {
    pub(crate) fn delivered(&mut self, size: usize) {
        self.delivered += 1;
        self.bytes += size as u64;
    }

    pub(crate) fn dropped(&mut self, why: Dropped) {
        *self.dropped.entry(why).or_default() += 1;
    }

    /// Datagrams that came to an end, whether they arrived or not.
    pub fn sent(&self) -> u64 {
        self.delivered + self.lost()
    }

    /// Datagrams that did not arrive, for whatever reason.
    pub fn lost(&self) -> u64 {
        self.dropped.values().sum()
    }
}
