//! What a replica is made of.

mod folder;
#[cfg(feature = "grpc")]
mod grpc;
mod members;
mod start;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stubborn_core::service::{Machine, Machines, NotExecuted};
use stubborn_core::transport::record::Recording;

use self::members::Member;
use super::config::NodeConfig;
use super::door::{Arriving, Middleware};
use super::error::ReplicaError;
#[cfg(doc)]
use super::handle::ReplicaHandle;
use crate::health::Health;
use crate::metrics::MetricsFor;
use crate::qlog;
use crate::security::{Fingerprint, Identity, IdentityFiles, KeyLog, Trust};
use crate::server::{AccessFile, Permissions};

pub(super) use self::members::look_up;
pub(super) use self::start::Plan;

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
