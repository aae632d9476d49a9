//! What a node and its server half are made with.

use alloc::sync::Arc;

use crate::transport::crypto::ServerTls;
use crate::transport::endpoint::EndpointConfig;

/// What a [`Node`](super::Node) is made with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The transport below; its `limits` hold for the whole node.
    pub endpoint: EndpointConfig,
}

/// What the server half of a node is made with.
#[derive(Clone)]
pub struct ServerConfig {
    /// Certificates and keys.
    pub tls: Arc<dyn ServerTls>,
    /// Drawn anew each time the process starts: by it clients learn of a restart.
    pub incarnation: u64,
    /// Whether the node is a replica: the incarnation is then the group's id, and sessions are in the
    /// group's [`SessionTable`](super::SessionTable). What changes them comes out as
    /// [`Event::Command`](super::Event::Command).
    pub group: bool,
}
