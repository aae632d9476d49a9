//! How a replica is started.

use std::net::SocketAddr;
use std::sync::Arc;

use stubborn_core::limits::Limits;
use stubborn_core::service::{Machines, RegisterError, Registry, ServiceDescriptor};
use stubborn_core::transport::record::Recording;
use stubborn_group::replica::Seat;
use stubborn_group::replication::{Durable, NodeId};
use stubborn_store::Store;
use stubborn_tls::{ClientCertificates, TlsClient, TlsServer};

use super::members::Peer;
use super::{ReplicaBuilder, missing};
use crate::generated::stubborn::trace::v1::TRACE_DESCRIPTOR;
use crate::health::ReplicaHealth;
use crate::metrics::{MetricsFor, MetricsServer};
use crate::replica::door::Door;
use crate::replica::driver;
use crate::replica::error::ReplicaError;
use crate::replica::handle::{self, Control, ReplicaHandle};
use crate::security::Identity;
use crate::server::{ServeError, resolve};

/// What a replica's thread starts with.
pub(in crate::replica) struct Plan {
    pub(in crate::replica) group: u64,
    pub(in crate::replica) node: NodeId,
    pub(in crate::replica) listen: SocketAddr,
    pub(in crate::replica) identity: Identity,
    /// By which it calls the others.
    pub(in crate::replica) client: Arc<TlsClient>,
    pub(in crate::replica) tls: TlsServer,
    pub(in crate::replica) recording: Recording,
    pub(in crate::replica) lease: bool,
    pub(in crate::replica) peers: Vec<Peer>,
    /// With whom a new group begins.
    pub(in crate::replica) roster: Vec<(NodeId, Seat)>,
    pub(in crate::replica) machines: Machines,
    pub(in crate::replica) store: Store,
    pub(in crate::replica) durable: Durable,
    pub(in crate::replica) registry: Registry,
    pub(in crate::replica) door: Arc<Door>,
    pub(in crate::replica) control: Arc<Control>,
}

impl ReplicaBuilder {
    /// Starts the replica, on a thread of its own.
    ///
    /// # Errors
    /// If a setting is missing, the folder is not that of this node, it is damaged or in use, or the
    /// address is taken.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(mut self) -> Result<ReplicaHandle, ReplicaError> {
        let (group, node) = self.settled()?;
        #[cfg_attr(not(feature = "grpc"), allow(unused_mut))]
        let mut listen = self.address().await?;
        let (tls, peers) = (self.tls()?, self.peers(node).await?);
        let (store, durable) = self.store(group, node, &self.founders(node).await?)?;
        let control = Arc::<Control>::default();
        #[cfg(feature = "prometheus")]
        let exporter = self.exporter().await?;
        let registry = self.registry(&control)?;
        #[cfg(feature = "grpc")]
        let opening = self.listen_for_grpc(&mut listen, &registry, &control).await?;
        #[cfg_attr(not(feature = "grpc"), allow(unused_mut))]
        let mut services = self.services(&registry);
        #[cfg(feature = "grpc")]
        services.extend(opening.iter().flat_map(crate::grpc::Opening::services));
        let door = self.door(services)?;
        #[cfg(feature = "grpc")]
        let beside = self.beside(node, &door, &control)?;
        let (client, roster) = (self.client()?, self.roster());
        let plan = Plan {
            group,
            node,
            listen,
            client,
            identity: self.identity.ok_or(ServeError::NoIdentity)?,
            tls,
            recording: self.recording,
            lease: self.lease,
            peers,
            roster,
            machines: self.machines,
            store,
            durable,
            registry,
            door,
            control,
        };
        let mut handle = driver::start(plan).await?;
        #[cfg(feature = "grpc")]
        if let Some(opening) = opening {
            handle.set_door(opening.open(beside).await?);
        }
        handle.watch(self.files, self.access);
        #[cfg(feature = "prometheus")]
        handle.set_exporter(exporter);
        Ok(handle)
    }

    /// Runs the replica until it has to end.
    ///
    /// # Errors
    /// As [`start`](Self::start); and when the disk fails or the node cannot go on.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn run(self) -> Result<(), ReplicaError> {
        self.start().await?.ended().await
    }

    /// The number of the group and of this node, once all that is needed has been said.
    fn settled(&mut self) -> Result<(u64, NodeId), ReplicaError> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        if let Some(files) = &self.files {
            self.identity = Some(files.read().map_err(ServeError::from)?);
        }
        let who = self.who()?;
        if self.machines.descriptors().next().is_none() {
            return Err(missing("a state machine: .machine(BankReplica::new(ledger))"));
        }
        Ok(who)
    }

    async fn address(&self) -> Result<SocketAddr, ReplicaError> {
        let listen = self.listen.as_ref().ok_or_else(|| missing(".listen(\"0.0.0.0:7400\")"))?;
        Ok(resolve(listen).await?)
    }

    /// Who may connect.
    pub(super) fn clients(&self) -> Result<ClientCertificates, ReplicaError> {
        let roots = match &self.authority {
            Some(trust) => Some(trust.roots()?.ok_or(ServeError::ClientTrust)?),
            None => None,
        };
        match (roots, self.anybody) {
            (Some(roots), false) => Ok(ClientCertificates::Required(roots)),
            (Some(roots), true) => Ok(ClientCertificates::Optional(roots)),
            (None, _) => Err(missing(".authority(..), who signs the certificates of the members")),
        }
    }

    fn tls(&self) -> Result<TlsServer, ReplicaError> {
        let identity = self.identity.as_ref().ok_or(ServeError::NoIdentity)?;
        let clients = self.clients()?;
        let builder = TlsServer::builder(identity.tls.clone())
            .client_certificates(clients)
            .key_log(self.key_log.clone());
        Ok(builder.build().map_err(crate::security::SecurityError::from)?)
    }

    /// With what it calls the other members.
    fn client(&self) -> Result<Arc<TlsClient>, ReplicaError> {
        let identity = self.identity.as_ref().ok_or(ServeError::NoIdentity)?;
        let authority = self.authority.as_ref().ok_or(ServeError::ClientTrust)?;
        let client = authority.client(Some(identity), self.key_log.as_ref());
        Ok(client.map_err(ServeError::from)?)
    }

    #[cfg(feature = "prometheus")]
    async fn exporter(&self) -> Result<Option<crate::metrics::Bound>, ReplicaError> {
        let Some(address) = &self.prometheus else { return Ok(None) };
        let taken = |error| ServeError::Bind(address.clone(), error);
        Ok(Some(crate::metrics::Bound::at(address).await.map_err(taken)?))
    }

    /// What is not replicated: reflection and the node's own status.
    fn registry(&self, control: &Arc<Control>) -> Result<Registry, ReplicaError> {
        let mut registry = Registry::new();
        let board = handle::Board(Arc::clone(control));
        registry.add(Arc::new(crate::group::GroupServer::new(board)))?;
        if self.metrics != MetricsFor::Nobody {
            let meter = handle::Meter { control: Arc::clone(control), who: self.metrics };
            registry.add(Arc::new(MetricsServer::new(meter)))?;
        }
        let machines: Vec<&'static ServiceDescriptor> = self.machines.descriptors().collect();
        if let Some(health) = &self.health {
            let names = machines.iter().map(|descriptor| descriptor.name);
            health.know(names.chain(registry.descriptors().map(|descriptor| descriptor.name)));
        }
        self.add_health(&mut registry, control)?;
        crate::reflection::add(&mut registry, machines)?;
        Ok(registry)
    }

    pub(super) fn add_health(
        &self,
        registry: &mut Registry,
        control: &Arc<Control>,
    ) -> Result<(), RegisterError> {
        let Some(health) = &self.health else { return Ok(()) };
        let told = Arc::clone(control);
        let standing = move || told.standing();
        ReplicaHealth { health: health.clone(), standing }.add(registry)
    }

    /// What may be called over datagrams, replicated or not.
    fn services(&self, registry: &Registry) -> Vec<&'static ServiceDescriptor> {
        let own = registry.descriptors().chain([&TRACE_DESCRIPTOR]);
        self.machines.descriptors().chain(own).collect()
    }

    /// Lets callers of these services in, by the permissions of the builder and of the file.
    fn door(&self, services: Vec<&'static ServiceDescriptor>) -> Result<Arc<Door>, ReplicaError> {
        let door = self.middleware.door(services, Limits::default().sessions)?;
        if let Some(file) = &self.access {
            let given = file.read().map_err(|error| error.to_string());
            let told = |why: String| format!("{}: {why}", file.path().display());
            given
                .and_then(|access| door.give_access(&access).map_err(told))
                .map_err(ReplicaError::Settings)?;
        }
        Ok(door)
    }
}
