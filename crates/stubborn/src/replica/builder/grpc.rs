//! The door for gRPC of a replica that is being started.

use std::net::SocketAddr;
use std::sync::Arc;

use stubborn_core::service::{Registry, ServiceDescriptor};
use stubborn_group::replication::NodeId;

use super::ReplicaBuilder;
use crate::grpc::{Beside, Opening};
use crate::replica::door::Door;
use crate::replica::driver::member_name;
use crate::replica::error::ReplicaError;
use crate::replica::guests::Guests;
use crate::replica::handle::Control;
use crate::server::ServeError;

impl ReplicaBuilder {
    /// Listens for gRPC, if that is to be answered; `listen` then has the port that is free for both.
    pub(super) async fn listen_for_grpc(
        &mut self,
        listen: &mut SocketAddr,
        registry: &Registry,
        control: &Arc<Control>,
    ) -> Result<Option<Opening>, ReplicaError> {
        let Some(grpc) = &self.grpc else { return Ok(None) };
        let identity = self.identity.as_ref().ok_or(ServeError::NoIdentity)?;
        let (clients, key_log) = (self.clients()?, self.key_log.as_ref());
        let mut opening = Opening::at(*listen, grpc, identity, &clients, key_log).await?;
        *listen = opening.local_addr();
        let services: Vec<&'static ServiceDescriptor> =
            self.machines.descriptors().chain(registry.descriptors()).collect();
        opening.serve(services, |registry| self.add_health(registry, control))?;
        let own = identity.fingerprint().map_err(ServeError::from)?;
        self.middleware.guests = Some(Guests::new(own.0));
        Ok(Some(opening))
    }

    /// What the door stands beside.
    pub(super) fn beside(
        &self,
        node: NodeId,
        entrance: &Arc<Door>,
        control: &Arc<Control>,
    ) -> Result<Beside, ReplicaError> {
        Ok(Beside {
            name: member_name(node.get()),
            identity: self.identity.clone().ok_or(ServeError::NoIdentity)?,
            authority: self.authority.clone().ok_or(ServeError::ClientTrust)?,
            entrance: Arc::clone(entrance),
            control: Arc::clone(control),
            health: self.health.clone(),
        })
    }
}
