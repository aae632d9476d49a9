//! What a replica is made of.

#[cfg(feature = "grpc")]
mod grpc;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stubborn_core::limits::Limits;
use stubborn_core::service::{
    Machine, Machines, NotExecuted, RegisterError, Registry, ServiceDescriptor,
};
use stubborn_core::transport::record::Recording;
use stubborn_group::replica::Seat;
use stubborn_group::replication::{Durable, FolderId, Members, NodeId};
use stubborn_store::{Error, Folder, Options, Store};
use stubborn_tls::{ClientCertificates, TlsClient, TlsServer};

use super::config::NodeConfig;
use super::door::{Arriving, Door, Middleware};
use super::error::ReplicaError;
use super::handle::{Control, ReplicaHandle};
use super::{driver, handle, join};
use crate::generated::stubborn::trace::v1::TRACE_DESCRIPTOR;
use crate::health::{Health, ReplicaHealth};
use crate::metrics::{MetricsFor, MetricsServer};
use crate::naming::Address;
use crate::qlog;
use crate::security::{Fingerprint, Identity, IdentityFiles, KeyLog, Trust};
use crate::server::{AccessFile, Permissions, ServeError};

/// How long the name of a member is looked up again until it is found.
const RESOLVE: Duration = Duration::from_secs(60);

/// A replica of a group: a state machine whose calls run exactly once, whatever fails, as long as a
/// majority of the members is there.
///
/// ```no_run
/// # use stubborn::{Authority, Fingerprint, Identity, kv};
/// # async fn example(keys: [Fingerprint; 3]) -> Result<(), Box<dyn std::error::Error>> {
/// use stubborn::{Replica, Trust};
///
/// Replica::open("data/")
///     .group(0x5eed_0000_0000_0100)
///     .node(1)
///     .listen("0.0.0.0:7400")
///     .identity(Identity::from_pem_files("node.crt", "node.key")?)
///     .authority(Trust::pem_file("authority.crt")?)
///     .member(1, "a.example:7400", keys[0])
///     .member(2, "b.example:7400", keys[1])
///     .member(3, "c.example:7400", keys[2])
///     .machine(kv::KvReplica::new(kv::Store::new()))
///     .run()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub enum Replica {}

impl Replica {
    /// A replica with the settings of this file: see [`NodeConfig`]. Its data folder must be there, as
    /// `stubborn up --prepare` makes it.
    ///
    /// ```no_run
    /// # use stubborn::{Replica, kv};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// Replica::from_file("group/node-1/node.conf")?
    ///     .machine(kv::KvReplica::new(kv::Store::new()))
    ///     .run()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`NodeConfig::load`] and [`NodeConfig::builder`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<ReplicaBuilder, ReplicaError> {
        NodeConfig::load(path)?.builder()
    }

    /// A replica that keeps its log and its snapshots in this folder.
    pub fn open(folder: impl AsRef<Path>) -> ReplicaBuilder {
        ReplicaBuilder {
            folder: folder.as_ref().to_owned(),
            create: false,
            join: false,
            group: None,
            node: None,
            listen: None,
            identity: None,
            files: None,
            authority: None,
            anybody: false,
            key_log: None,
            recording: Recording::default(),
            lease: false,
            metrics: MetricsFor::default(),
            #[cfg(feature = "grpc")]
            grpc: None,
            #[cfg(feature = "prometheus")]
            prometheus: None,
            health: Some(Health::new()),
            middleware: Middleware::default(),
            access: None,
            members: Vec::new(),
            machines: Machines::new(),
            refused: None,
        }
    }
}

/// A replica that is not started yet.
#[must_use = "a replica does nothing before it is started"]
pub struct ReplicaBuilder {
    folder: PathBuf,
    create: bool,
    join: bool,
    group: Option<u64>,
    node: Option<u64>,
    listen: Option<String>,
    identity: Option<Identity>,
    files: Option<IdentityFiles>,
    authority: Option<Trust>,
    anybody: bool,
    key_log: Option<KeyLog>,
    recording: Recording,
    lease: bool,
    metrics: MetricsFor,
    #[cfg(feature = "grpc")]
    grpc: Option<crate::grpc::Grpc>,
    #[cfg(feature = "prometheus")]
    prometheus: Option<String>,
    health: Option<Health>,
    middleware: Middleware,
    access: Option<AccessFile>,
    members: Vec<Member>,
    machines: Machines,
    refused: Option<ReplicaError>,
}

struct Member {
    node: u64,
    address: String,
    key: Fingerprint,
}

/// A member as the driver knows it.
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
    pub(super) key: Fingerprint,
}

/// What a replica's thread starts with.
pub(super) struct Plan {
    pub(super) group: u64,
    pub(super) node: NodeId,
    pub(super) listen: SocketAddr,
    pub(super) identity: Identity,
    /// By which it calls the others.
    pub(super) client: Arc<TlsClient>,
    pub(super) tls: TlsServer,
    pub(super) recording: Recording,
    pub(super) lease: bool,
    pub(super) peers: Vec<Peer>,
    /// With whom a new group begins.
    pub(super) roster: Vec<(NodeId, Seat)>,
    pub(super) machines: Machines,
    pub(super) store: Store,
    pub(super) durable: Durable,
    pub(super) registry: Registry,
    pub(super) door: Arc<Door>,
    pub(super) control: Arc<Control>,
}

impl ReplicaBuilder {
    /// What tells this group from every other: drawn at random when the group is made, the same at all
    /// of its members. Not 0, but its lowest byte is. Required.
    pub fn group(mut self, group: u64) -> Self {
        self.group = Some(group);
        self
    }

    /// Which member this node is. Required. A node that has lost its disk never comes back under its
    /// number.
    pub fn node(mut self, number: u64) -> Self {
        self.node = Some(number);
        self
    }

    /// The address to listen on, for example `0.0.0.0:7400`. Required.
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen = Some(address.to_string());
        self
    }

    /// The node's certificate and key. Required.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The same from files that are renewed while the node runs: the new certificate is used from the
    /// next handshake on, and connections stay. The others know the node by its key, so that a
    /// certificate with another key is not used.
    pub fn identity_files(mut self, files: IdentityFiles) -> Self {
        self.files = Some(files);
        self
    }

    /// Who signs the certificates of the members and of those who may call. Required.
    pub fn authority(mut self, authority: Trust) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Lets anybody call, also without a certificate. Members are still known by their keys.
    pub fn anybody_may_call(mut self) -> Self {
        self.anybody = true;
        self
    }

    /// Lets callers call only what is allowed to them: the same [`Permissions`] as of a server. They are
    /// asked at the member that a client is connected to, before anything of its call is in the log;
    /// members may differ in them. A call that is not allowed ends as [`NotExecuted`] with the reason
    /// `PermissionDenied` (`Unauthenticated` where a token could help), and never runs, at whichever member
    /// it is made again. What is not named is refused, the group's own service `stubborn.group.v1.Group`
    /// included (`stubborn status`, `members`, `backup`; a node that joins asks for `Group/Members`), not
    /// what members say to each other.
    ///
    /// They can be [exchanged](ReplicaHandle::authorize) while the replica runs.
    pub fn authorize(mut self, permissions: Permissions) -> Self {
        self.middleware.permissions = Some(permissions);
        self
    }

    /// Permissions and tokens from a file that may change while the replica runs.
    pub fn access_file(mut self, file: AccessFile) -> Self {
        self.access = Some(file);
        self
    }

    /// Knows callers by bearer tokens, as
    /// [`ServerBuilder::authenticate`](crate::ServerBuilder::authenticate) does: `subject` says whose token
    /// it is, for [`Permissions`] and interceptors. Machines do not see it. A subject has at most 256
    /// bytes. The first token of a session at this member says whose it is here.
    pub fn authenticate(
        mut self,
        subject: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.middleware.authenticator = Some(Arc::new(subject));
        self
    }

    /// Lets the calls of one session bring tokens of several subjects.
    pub fn many_subjects_in_a_session(mut self) -> Self {
        self.middleware.many_subjects = true;
        self
    }

    /// Looks at each call that permissions let in, before it is in the log or the machine is asked, and lets
    /// it in or not. One that is not let in never runs. It runs on the thread of the node (of calls over gRPC
    /// also elsewhere, several at once) and must not block; it changes nothing of a call, since all members run what the client has sent. The one that
    /// was added first is asked first.
    ///
    /// ```
    /// # fn example(replica: stubborn::ReplicaBuilder) -> stubborn::ReplicaBuilder {
    /// use stubborn::{NotExecuted, NotExecutedReason};
    ///
    /// replica.intercept(|call| match call.request().body.len() {
    ///     ..=10_000 => Ok(()),
    ///     _ => Err(NotExecuted::because(NotExecutedReason::TooLarge, "no more than 10 kB, please")),
    /// })
    /// # }
    /// ```
    pub fn intercept(
        mut self,
        interceptor: impl Fn(&Arriving<'_>) -> Result<(), NotExecuted> + Send + Sync + 'static,
    ) -> Self {
        self.middleware.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Writes the secrets of connections down, also of those to other members, for those who capture
    /// packets: whoever reads the file reads what is sent. Off by default; no environment variable turns it on by itself, but
    /// [`KeyLog::from_env`] honours `SSLKEYLOGFILE`.
    pub fn key_log(mut self, log: impl Into<Option<KeyLog>>) -> Self {
        self.key_log = log.into();
        self
    }

    /// Records each connection in a file of this folder, as qlog. Off by default; no environment
    /// variable turns it on by itself, but [`qlog::Folder::from_env`](crate::qlog::Folder::from_env)
    /// honours `QLOGDIR`.
    pub fn qlog(mut self, folder: impl Into<Option<qlog::Folder>>) -> Self {
        self.recording = crate::server::recording(folder.into());
        self
    }

    /// Lets this node, while it leads, answer reads without a question to the others for as long as
    /// none of them can have elected another leader. That rests on the clocks of the members going at
    /// about one speed (`docs/decisions/0017-leases.md`); it is off unless it is asked for. Members
    /// may differ in it.
    pub fn lease_reads(mut self, lease: bool) -> Self {
        self.lease = lease;
        self
    }

    /// Who may ask the replica what it counts and measures (`stubborn.metrics.v1.Metrics`), as
    /// `stubborn top` does. By default callers with a certificate and those on the same machine.
    pub fn metrics(mut self, who: MetricsFor) -> Self {
        self.metrics = who;
        self
    }

    /// Answers gRPC, too: the same methods over TCP, on the same port number; see [`grpc`](crate::grpc).
    ///
    /// A call that changes something runs once at the group if it carries an id, whichever replicas its
    /// client sends it to. Queries are reads of the group, and its streams of reads are there; others are
    /// not. A replica that knows of no leader answers `UNAVAILABLE` and when to come back. Callers are
    /// those who may call over datagrams, with the same permissions; what these refuse is not in the log.
    #[cfg(feature = "grpc")]
    pub fn grpc(mut self, grpc: crate::grpc::Grpc) -> Self {
        self.grpc = Some(grpc);
        self
    }

    /// Tells Prometheus what the replica counts and measures, and how it stands: over plain HTTP, at this
    /// TCP address (`127.0.0.1:9400`; port 0 is a free one), path `/metrics`. Whoever reaches that
    /// address is told.
    #[cfg(feature = "prometheus")]
    pub fn prometheus(mut self, address: impl ToString) -> Self {
        self.prometheus = Some(address.to_string());
        self
    }

    /// Tells by this how the services are, to those who ask by gRPC's protocol (`grpc.health.v1.Health`);
    /// `None` for not at all. A service serves as long as the application says so, the replica knows of a
    /// leader, and it has applied nearly all that it knows to be committed.
    pub fn health(mut self, health: impl Into<Option<Health>>) -> Self {
        self.health = health.into();
        self
    }

    /// A member with which the group begins, this node included: its number, HOST:PORT, and the
    /// fingerprint of its key. Its certificate bears the name `node-NUMBER.stubborn`. The same at
    /// every node.
    pub fn member(mut self, node: u64, address: impl Into<String>, key: Fingerprint) -> Self {
        self.members.push(Member { node, address: address.into(), key });
        self
    }

    /// Adds a state machine: what the generator emitted, around the user's own, in the state that a
    /// new group begins with. The same ones in the same order at every node.
    pub fn machine(mut self, machine: impl Machine) -> Self {
        if let Err(error) = self.machines.add(Box::new(machine)) {
            self.refused.get_or_insert(error.into());
        }
        self
    }

    /// Makes the folder if it holds no node: for the first start of a node in a new group, and for no
    /// other. A node that has lost its disk has forgotten what it promised to the others; started
    /// anew under its number it could break the promises of the whole group.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Joins a group that runs, if the folder holds no node: the group was told of this node before
    /// (`stubborn members --add`). The members that are named here are asked with whom the group
    /// began; a number that has begun with a folder already is refused, since whoever bore it has promised
    /// things.
    pub fn join(mut self, join: bool) -> Self {
        self.join = join;
        self
    }

    /// Makes the folder of a node in a new group, and nothing else.
    ///
    /// # Errors
    /// If the folder holds a node already, or cannot be written.
    pub fn make_folder(self) -> Result<(), ReplicaError> {
        let (group, node) = self.who()?;
        let medium = self.medium(true)?;
        let founders: Vec<u64> = self.members.iter().map(|member| member.node).collect();
        let made = self.made(medium, group, node, &founders)?;
        made.close().map_err(|error| self.of_folder(&error))
    }

    /// Starts the replica, on a thread of its own.
    ///
    /// # Errors
    /// If a setting is missing, the folder is not that of this node, it is damaged or in use, or the
    /// address is taken.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(mut self) -> Result<ReplicaHandle, ReplicaError> {
        let mut founders: Vec<u64> = self.members.iter().map(|member| member.node).collect();
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        if let Some(files) = &self.files {
            self.identity = Some(files.read().map_err(ServeError::from)?);
        }
        let (group, node) = self.who()?;
        if self.machines.descriptors().next().is_none() {
            return Err(missing("a state machine: .machine(BankReplica::new(ledger))"));
        }
        let listen = self.listen.clone().ok_or_else(|| missing(".listen(\"0.0.0.0:7400\")"))?;
        #[cfg_attr(not(feature = "grpc"), allow(unused_mut))]
        let mut listen = crate::server::resolve(&listen).await?;
        let (tls, peers) = (self.tls()?, self.peers(node).await?);
        if self.join && !self.holds_node() {
            founders = self.ask_to_join(node).await?;
        }
        let (store, durable) = self.store(group, node, &founders)?;
        // Who joins has nothing to say about how the group began.
        let members = self.members.iter().filter(|_| !self.join);
        let roster = members.filter_map(|member| {
            let seat = Seat { address: member.address.clone(), key: member.key.0.to_vec() };
            Some((NodeId::new(member.node)?, seat))
        });
        let roster = roster.collect();
        let control = Arc::<Control>::default();
        #[cfg(feature = "prometheus")]
        let exporter = match self.prometheus.take() {
            Some(address) => {
                let taken = |error| ServeError::Bind(address.clone(), error);
                Some(crate::metrics::Bound::at(&address).await.map_err(taken)?)
            }
            None => None,
        };
        let registry = self.registry(&control)?;
        let own = registry.descriptors().chain([&TRACE_DESCRIPTOR]);
        #[cfg_attr(not(feature = "grpc"), allow(unused_mut))]
        let mut services: Vec<_> = self.machines.descriptors().chain(own).collect();
        #[cfg(feature = "grpc")]
        let opening = self.listen_for_grpc(&mut listen, &registry, &control).await?;
        #[cfg(feature = "grpc")]
        services.extend(opening.iter().flat_map(crate::grpc::Opening::services));
        let door = self.middleware.door(services, Limits::default().sessions)?;
        if let Some(file) = &self.access {
            let given = file.read().map_err(|error| error.to_string());
            let told = |why: String| format!("{}: {why}", file.path().display());
            given
                .and_then(|access| door.give_access(&access).map_err(told))
                .map_err(ReplicaError::Settings)?;
        }
        let identity = self.identity.ok_or(ServeError::NoIdentity)?;
        let authority = self.authority.ok_or(ServeError::ClientTrust)?;
        let client = authority.client(Some(&identity), self.key_log.as_ref());
        #[cfg(feature = "grpc")]
        let beside = crate::grpc::Beside {
            name: driver::member_name(node.get()),
            identity: identity.clone(),
            authority: authority.clone(),
            entrance: Arc::clone(&door),
            control: Arc::clone(&control),
            health: self.health.clone(),
        };
        let plan = Plan {
            group,
            node,
            listen,
            client: client.map_err(ServeError::from)?,
            identity,
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
        #[cfg_attr(not(feature = "grpc"), allow(unused_mut))]
        let mut handle = driver::start(plan).await?;
        #[cfg(feature = "grpc")]
        if let Some(opening) = opening {
            handle.set_door(opening.open(beside).await?);
        }
        #[cfg_attr(not(feature = "prometheus"), allow(unused_mut))]
        let mut handle = handle.watching(self.files, self.access);
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

    fn holds_node(&self) -> bool {
        let medium = Folder::at(&self.folder).map(Arc::new);
        medium.is_ok_and(|medium| Store::exists(&*medium))
    }

    /// With whom the group began that this node is to join.
    async fn ask_to_join(&self, node: NodeId) -> Result<Vec<u64>, ReplicaError> {
        let key = self.members.iter().find(|member| member.node == node.get());
        let key = key.map(|member| member.key.0).unwrap_or_default();
        let others = self.members.iter().filter(|member| member.node != node.get());
        let others: Vec<&str> = others.map(|member| member.address.as_str()).collect();
        let identity = self.identity.clone().ok_or(ServeError::NoIdentity)?;
        let authority = self.authority.clone().ok_or(ServeError::ClientTrust)?;
        join::ask(&others, identity, authority, node.get(), &key).await
    }

    fn who(&self) -> Result<(u64, NodeId), ReplicaError> {
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

    /// Who may connect.
    fn clients(&self) -> Result<ClientCertificates, ReplicaError> {
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

    /// The other members. Their names may not be known yet, on machines that start together.
    async fn peers(&self, own: NodeId) -> Result<Vec<Peer>, ReplicaError> {
        let mut peers = Vec::new();
        for member in self.members.iter().filter(|member| member.node != own.get()) {
            let node = NodeId::new(member.node).expect("checked");
            let address = look_up(&member.address).await?;
            peers.push(Peer { node, address, key: member.key });
        }
        Ok(peers)
    }

    fn medium(&self, make: bool) -> Result<Arc<Folder>, ReplicaError> {
        let folder = if make { Folder::make(&self.folder) } else { Folder::at(&self.folder) };
        folder.map(Arc::new).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ReplicaError::NoNode(self.folder.clone()),
            _ => ReplicaError::Folder(self.folder.clone(), error.to_string()),
        })
    }

    fn store(
        &self,
        group: u64,
        node: NodeId,
        founders: &[u64],
    ) -> Result<(Store, Durable), ReplicaError> {
        let create = self.create || self.join;
        let medium = self.medium(create)?;
        let opened = Store::open_as(medium.clone(), Options::default(), group, node.get());
        let (store, recovered) = match opened {
            Err(Error::NoNode) if create => {
                self.made(medium.clone(), group, node, founders)?
                    .close()
                    .map_err(|error| self.of_folder(&error))?;
                Store::open_as(medium, Options::default(), group, node.get())
            }
            opened => opened,
        }
        .map_err(|error| self.of_folder(&error))?;
        let durable = store.durable(recovered).map_err(|error| self.of_folder(&error))?;
        Ok((store, durable))
    }

    fn made(
        &self,
        medium: Arc<Folder>,
        group: u64,
        node: NodeId,
        founders: &[u64],
    ) -> Result<Store, ReplicaError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut folder = [0; 8];
        getrandom::fill(&mut folder)
            .map_err(|error| ServeError::Entropy(std::io::Error::other(error)))?;
        let folder = FolderId::new(u64::from_be_bytes(folder));
        let identity = stubborn_store::Identity { group, node, created: now, folder };
        let members = founders.iter().filter_map(|number| NodeId::new(*number));
        let new = Durable::new_group(Members::of(members));
        Store::create(medium, identity, &new, Options::default())
            .map_err(|error| self.of_folder(&error))
    }

    fn of_folder(&self, error: &Error) -> ReplicaError {
        match error {
            Error::NoNode => ReplicaError::NoNode(self.folder.clone()),
            other => ReplicaError::Folder(self.folder.clone(), other.to_string()),
        }
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

    fn add_health(
        &self,
        registry: &mut Registry,
        control: &Arc<Control>,
    ) -> Result<(), RegisterError> {
        let Some(health) = &self.health else { return Ok(()) };
        let told = Arc::clone(control);
        let standing = move || told.standing();
        ReplicaHealth { health: health.clone(), standing }.add(registry)
    }
}

impl fmt::Debug for ReplicaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaBuilder")
            .field("folder", &self.folder)
            .field("node", &self.node)
            .field("listen", &self.listen)
            .field("machines", &self.machines)
            .finish_non_exhaustive()
    }
}

fn missing(what: &str) -> ReplicaError {
    ReplicaError::Settings(format!("a replica needs {what}"))
}

pub(super) async fn look_up(text: &str) -> Result<SocketAddr, ReplicaError> {
    let unknown = |error| ReplicaError::Member(text.to_owned(), error);
    let address: Address =
        text.parse().map_err(|error| unknown(std::io::Error::other(format!("{error}"))))?;
    let until = tokio::time::Instant::now() + RESOLVE;
    loop {
        match address.look_up().await {
            Ok(found) => return Ok(found[0]),
            Err(error) if tokio::time::Instant::now() >= until => return Err(unknown(error)),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
