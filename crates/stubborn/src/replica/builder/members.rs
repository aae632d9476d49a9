//! With whom a replica that is being started makes a group.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use stubborn_group::replica::Seat;
use stubborn_group::replication::NodeId;

use super::{ReplicaBuilder, missing};
use crate::naming::Address;
use crate::replica::error::ReplicaError;
use crate::replica::join;
use crate::security::Fingerprint;
use crate::server::ServeError;

/// How long the name of a member is looked up again until it is found.
const RESOLVE: Duration = Duration::from_secs(60);

/// A member as the application names it.
pub(super) struct Member {
    pub(super) node: u64,
    pub(super) address: String,
    pub(super) key: Fingerprint,
}

/// A member as the driver knows it.
pub(in crate::replica) struct Peer {
    pub(in crate::replica) node: NodeId,
    pub(in crate::replica) address: SocketAddr,
    pub(in crate::replica) key: Fingerprint,
}

impl ReplicaBuilder {
    /// The number of the group and of this node.
    pub(super) fn who(&self) -> Result<(u64, NodeId), ReplicaError> {
        let group = self.group.filter(|group| *group != 0 && group & 0xff == 0);
        let group = group.ok_or_else(|| missing(".group(..), a number whose lowest byte is 0"))?;
        let node = self.node.and_then(NodeId::new);
        let node = node.ok_or_else(|| missing(".node(NUMBER), a number other than 0"))?;
        let numbers: BTreeSet<_> = self.members.iter().map(|member| member.node).collect();
        let keys: BTreeSet<_> = self.members.iter().map(|member| member.key.0).collect();
        if numbers.len() != self.members.len() || keys.len() != self.members.len() {
            let why = "two members of the group have the same number or the same key";
            return Err(ReplicaError::Settings(why.into()));
        }
        if !numbers.contains(&node.get()) || numbers.contains(&0) {
            let why = format!("no member of the group has the number of this node, {}", node.get());
            return Err(ReplicaError::Settings(why));
        }
        Ok((group, node))
    }

    /// The other members. Their names may not be known yet, on machines that start together.
    pub(super) async fn peers(&self, own: NodeId) -> Result<Vec<Peer>, ReplicaError> {
        let mut peers = Vec::new();
        for member in self.members.iter().filter(|member| member.node != own.get()) {
            let node = NodeId::new(member.node).expect("checked");
            let address = look_up(&member.address).await?;
            peers.push(Peer { node, address, key: member.key });
        }
        Ok(peers)
    }

    /// Where the members are with which a new group begins, and by which keys they are known. Who joins
    /// has nothing to say about that.
    pub(super) fn roster(&self) -> Vec<(NodeId, Seat)> {
        let members = self.members.iter().filter(|_| !self.join);
        let seated = members.filter_map(|member| {
            let seat = Seat { address: member.address.clone(), key: member.key.0.to_vec() };
            Some((NodeId::new(member.node)?, seat))
        });
        seated.collect()
    }

    /// The numbers of those with whom the group began: as they are named here, or, for a node that joins, as
    /// the others say.
    pub(super) async fn founders(&self, node: NodeId) -> Result<Vec<u64>, ReplicaError> {
        if self.join && !self.holds_node() {
            return self.ask_to_join(node).await;
        }
        Ok(self.named())
    }

    /// The numbers of the members that are named here.
    pub(super) fn named(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.node).collect()
    }

    async fn ask_to_join(&self, node: NodeId) -> Result<Vec<u64>, ReplicaError> {
        let key = self.members.iter().find(|member| member.node == node.get());
        let key = key.map(|member| member.key.0).unwrap_or_default();
        let others = self.members.iter().filter(|member| member.node != node.get());
        let others: Vec<&str> = others.map(|member| member.address.as_str()).collect();
        let identity = self.identity.clone().ok_or(ServeError::NoIdentity)?;
        let authority = self.authority.clone().ok_or(ServeError::ClientTrust)?;
        join::ask(&others, identity, authority, node.get(), &key).await
    }
}

pub(in crate::replica) async fn look_up(text: &str) -> Result<SocketAddr, ReplicaError> {
    let unknown = |error| ReplicaError::Member(text.to_owned(), error);
    let address: Address =
        text.parse().map_err(|error| unknown(io::Error::other(format!("{error}"))))?;
    let until = tokio::time::Instant::now() + RESOLVE;
    loop {
        match address.look_up().await {
            Ok(found) => return Ok(found[0]),
            Err(error) if tokio::time::Instant::now() >= until => return Err(unknown(error)),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
