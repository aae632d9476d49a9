//! What a node's connections have counted, and what it holds.

use stubborn_core::node::{Footprint, Node};
use stubborn_core::time::Duration;
use stubborn_core::transport::Side as LinkSide;
use stubborn_core::transport::connection::{Connection, Traffic as Counted};

use super::{Held, Link, Side, Traffic};

/// The node's links with the most datagrams, at most so many. Looks at each connection.
pub(crate) fn links(node: &Node, most: usize) -> Vec<Link> {
    let endpoint = node.endpoint();
    let datagrams = |connection: &Connection| {
        let stats = connection.stats();
        stats.datagrams_sent + stats.datagrams_received
    };
    let mut busy: Vec<_> = endpoint
        .connections()
        .filter_map(|handle| Some((datagrams(endpoint.connection(handle)?), handle)))
        .collect();
    if busy.len() > most && most > 0 {
        busy.select_nth_unstable_by_key(most - 1, |(datagrams, _)| std::cmp::Reverse(*datagrams));
    }
    busy.truncate(most);
    let connections = busy.iter().filter_map(|(_, handle)| endpoint.connection(*handle));
    connections.map(Link::of).collect()
}

/// What a node holds.
pub(crate) fn held(node: &Node) -> Held {
    let Footprint { connections, sessions, executing, streams, calls, .. } = node.footprint();
    let bytes = node.footprint();
    Held {
        connections: connections as u64,
        sessions: sessions as u64,
        slots: bytes.slots,
        kept_replies: bytes.kept_replies,
        held_replies: bytes.held_replies,
        executing: executing as u64,
        streams: streams as u64,
        stream_bytes: bytes.stream_bytes,
        assembling: bytes.assembling,
        calls: calls as u64,
    }
}

impl Link {
    fn of(connection: &Connection) -> Self {
        let stats = connection.stats();
        let side = match connection.side() {
            LinkSide::Server => Side::Server,
            LinkSide::Client => Side::Client,
        };
        Self {
            peer: connection.remote_address().to_string(),
            side: side.into(),
            rtt_ns: nanos(stats.rtt),
            min_rtt_ns: nanos(stats.min_rtt),
            window: stats.window,
            in_flight: stats.in_flight,
            mtu: stats.mtu as u64,
            traffic: Some(Traffic {
                connections: 1,
                datagrams_sent: stats.datagrams_sent,
                datagrams_received: stats.datagrams_received,
                bytes_sent: stats.bytes_sent,
                bytes_received: stats.bytes_received,
                packets_sent: stats.packets_sent,
                packets_received: stats.packets_received,
                packets_lost: stats.packets_lost,
                packets_resent: stats.packets_resent,
                packets_dropped: stats.packets_dropped,
                probe_timeouts: stats.probe_timeouts,
                migrations: stats.migrations,
            }),
        }
    }

    /// Datagrams sent and received.
    pub fn datagrams(&self) -> u64 {
        self.traffic.as_ref().map_or(0, |all| all.datagrams_sent + all.datagrams_received)
    }
}

impl Held {
    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.sessions += other.sessions;
        self.slots += other.slots;
        self.kept_replies += other.kept_replies;
        self.held_replies += other.held_replies;
        self.executing += other.executing;
        self.streams += other.streams;
        self.stream_bytes += other.stream_bytes;
        self.assembling += other.assembling;
        self.calls += other.calls;
    }
}

impl From<Counted> for Traffic {
    fn from(counted: Counted) -> Self {
        Self {
            connections: counted.connections,
            datagrams_sent: counted.datagrams_sent,
            datagrams_received: counted.datagrams_received,
            bytes_sent: counted.bytes_sent,
            bytes_received: counted.bytes_received,
            packets_sent: counted.packets_sent,
            packets_received: counted.packets_received,
            packets_lost: counted.packets_lost,
            packets_resent: counted.packets_resent,
            packets_dropped: counted.packets_dropped,
            probe_timeouts: counted.probe_timeouts,
            migrations: counted.migrations,
        }
    }
}

impl Traffic {
    pub(super) fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        self.datagrams_sent += other.datagrams_sent;
        self.datagrams_received += other.datagrams_received;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.packets_sent += other.packets_sent;
        self.packets_received += other.packets_received;
        self.packets_lost += other.packets_lost;
        self.packets_resent += other.packets_resent;
        self.packets_dropped += other.packets_dropped;
        self.probe_timeouts += other.probe_timeouts;
        self.migrations += other.migrations;
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
