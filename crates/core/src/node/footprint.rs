//! What a node holds, for comparing with its bounds.

use crate::rpc::{Assembly, Client, Server};
use crate::transport::endpoint::Endpoint;

/// What a node holds now. Each field has its bound in [`Limits`](crate::limits::Limits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Footprint {
    /// Connections, of both halves.
    pub connections: usize,
    /// Sessions that the server half remembers.
    pub sessions: usize,
    /// Slots that those sessions have.
    pub slots: u64,
    /// Bytes of replies kept for sessions.
    pub kept_replies: u64,
    /// Bytes of replies kept for connections.
    pub held_replies: u64,
    /// Requests whose handlers have not answered.
    pub executing: usize,
    /// Streams at the server half.
    pub streams: usize,
    /// Bytes that they hold.
    pub stream_bytes: u64,
    /// Bytes of messages that are being put together.
    pub assembling: u64,
    /// Calls that this node's users wait for.
    pub calls: usize,
}

impl Footprint {
    pub(super) fn of(
        endpoint: &Endpoint,
        server: Option<&Server>,
        client: &Client,
        assembly: &Assembly,
    ) -> Self {
        let sessions = server.map(Server::sessions);
        let held = sessions.map(|sessions| sessions.footprint()).unwrap_or_default();
        Self {
            connections: endpoint.connections().count(),
            sessions: sessions.map_or(0, |sessions| sessions.len()),
            slots: sessions.map_or(0, |sessions| sessions.slots_held()),
            kept_replies: held.kept,
            held_replies: held.held,
            executing: server.map_or(0, Server::executing),
            streams: server.map_or(0, |server| server.streams().0),
            stream_bytes: server.map_or(0, |server| server.streams().1),
            assembling: assembly.held(),
            calls: client.pending(),
        }
    }
}
