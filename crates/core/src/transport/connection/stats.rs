//! Counters and estimates of one connection.

use crate::time::Duration;

/// Whether ECN is in use on a path (RFC 9000 §13.4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnState {
    /// Packets are marked, and no report has confirmed yet that marks survive the path.
    #[default]
    Testing,
    /// The peer reports our marks: congestion marks are reacted to.
    Capable,
    /// The path or the peer loses marks: packets are not marked.
    Failed,
}

/// What a connection counts, each as [`Stats`] tells it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) datagrams_sent: u64,
    pub(super) datagrams_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) packets_sent: u64,
    pub(super) packets_received: u64,
    pub(super) packets_lost: u64,
    pub(super) packets_resent: u64,
    pub(super) packets_dropped: u64,
    pub(super) probe_timeouts: u64,
    pub(super) ecn_ce_received: u64,
    pub(super) migrations: u64,
}

/// A snapshot of a connection's counters and estimates. Sizes are bytes of UDP payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Smallest round-trip time seen on this path.
    pub min_rtt: Duration,
    /// The congestion window.
    pub window: u64,
    /// Bytes sent and neither acknowledged nor lost.
    pub in_flight: u64,
    /// The largest datagram that the path is known to carry.
    pub mtu: usize,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received, authenticated or not.
    pub datagrams_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received and authenticated.
    pub packets_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Packets that carried something a second time, probes included.
    pub packets_resent: u64,
    /// Packets dropped since they did not authenticate, were duplicates, or had no keys.
    pub packets_dropped: u64,
    /// Probe timeouts that fired.
    pub probe_timeouts: u64,
    /// Probe timeouts in a row without an answer.
    pub probe_timeouts_in_a_row: u32,
    /// Key updates completed, initiated by either side.
    pub key_updates: u64,
    /// Whether ECN is in use.
    pub ecn: EcnState,
    /// Packets that arrived with a congestion mark.
    pub ecn_ce_received: u64,
    /// Paths validated after a change of address.
    pub migrations: u64,
}

/// What connections have counted, added up: those there are and those that were. Sizes are bytes of UDP
/// payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Connections.
    pub connections: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received, authenticated or not.
    pub datagrams_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received and authenticated.
    pub packets_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Packets that carried something a second time, probes included.
    pub packets_resent: u64,
    /// Packets dropped since they did not authenticate, were duplicates, or had no keys.
    pub packets_dropped: u64,
    /// Probe timeouts that fired.
    pub probe_timeouts: u64,
    /// Paths validated after a change of address.
    pub migrations: u64,
}

impl Traffic {
    /// Adds a connection.
    pub(in crate::transport) fn add(&mut self, stats: &Stats) {
        self.connections += 1;
        self.datagrams_sent += stats.datagrams_sent;
        self.datagrams_received += stats.datagrams_received;
        self.bytes_sent += stats.bytes_sent;
        self.bytes_received += stats.bytes_received;
        self.packets_sent += stats.packets_sent;
        self.packets_received += stats.packets_received;
        self.packets_lost += stats.packets_lost;
        self.packets_resent += stats.packets_resent;
        self.packets_dropped += stats.packets_dropped;
        self.probe_timeouts += stats.probe_timeouts;
        self.migrations += stats.migrations;
    }
}
