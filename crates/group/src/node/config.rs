//! What a node of a group is made with, and what it tells its driver.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use stubborn_core::node::{Event, NodeConfig};
use stubborn_core::transport::crypto::{ClientTls, ServerTls};

use super::gate::Gate;
use crate::replica::{Roster, Settings};
use crate::replication::{FolderId, NodeId};

/// What a [`GroupNode`](super::GroupNode) is made with.
#[derive(Clone)]
pub struct GroupConfig {
    /// The group's id: drawn when the group was made, the incarnation of all its replicas. Its lowest
    /// byte must be 0.
    pub group: u64,
    /// This node.
    pub id: NodeId,
    /// The folder that it has, if it is to be known by that.
    pub folder: Option<FolderId>,
    /// The other members, and whoever else may become one.
    pub peers: Vec<Peer>,
    /// With whom a new group begins; empty where members are changed by hand.
    pub roster: Roster,
    /// The name that the certificate of a member bears.
    pub name_of: fn(NodeId) -> String,
    /// The transport below.
    pub node: NodeConfig,
    /// Certificates and keys, as a server.
    pub server: Arc<dyn ServerTls>,
    /// The same as a client of its peers: with this node's certificate.
    pub client: Arc<dyn ClientTls>,
    /// How the replica is run.
    pub settings: Settings,
    /// Who may call what; `None` if everybody may.
    pub gate: Option<Arc<dyn Gate>>,
}

impl fmt::Debug for GroupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConfig")
            .field("group", &format_args!("{:x}", self.group))
            .field("id", &self.id)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// Another node of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which one.
    pub id: NodeId,
    /// Where it is.
    pub address: SocketAddr,
    /// The name that its certificate must bear. No other node's may bear it.
    pub name: String,
    /// SHA-256 of the public key info of its certificate. Without it the node is known by the
    /// certificate that it shows, under its name, where it is.
    pub identity: Option<[u8; 32]>,
}

/// What a node of a group tells its driver.
#[derive(Debug)]
pub enum GroupEvent {
    /// Something that the group has no part in: requests of methods that no machine has, and all
    /// about channels and calls that the driver itself began.
    Node(Event),
    /// Who leads, as far as this node knows, has changed.
    Leader(Option<NodeId>),
    /// A member is at this address (HOST:PORT): look the name up, and say so with
    /// [`GroupNode::found`](super::GroupNode::found).
    LookUp(NodeId, String),
    /// The replica has stopped for good: [`GroupNode::fault`](super::GroupNode::fault) says why. The
    /// driver ends the process.
    Stopped,
}
