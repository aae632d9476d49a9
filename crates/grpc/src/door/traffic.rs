//! What a door counts of its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::noticed::Notice;

/// What a door has counted of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that are open.
    pub open: u64,
    /// Connections that were taken since the start.
    pub connections: u64,
    /// Connections that were closed at once, since there were as many as may be.
    pub refused: u64,
    /// Bytes as TCP carried them, with TLS and HTTP/2.
    pub bytes_received: u64,
    /// The same of what was sent.
    pub bytes_sent: u64,
}

/// What all connections of a door count in.
#[derive(Debug, Default)]
pub(super) struct Counts {
    open: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counts {
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tell(&self) -> Traffic {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            open: get(&self.open),
            connections: get(&self.connections),
            refused: get(&self.refused),
            bytes_received: get(&self.received),
            bytes_sent: get(&self.sent),
        }
    }
}

/// A connection that is open, until it is dropped.
pub(super) struct Open(Arc<Counts>);

impl Open {
    pub(super) fn count(counts: Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Notice for Open {
    fn received(&mut self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&mut self, bytes: usize) {
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
