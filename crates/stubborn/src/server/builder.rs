//! What a server is made of.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::limits::Limits;
use stubborn_core::node::ServerConfig;
use stubborn_core::service::{Answer, Registry, Service};
use stubborn_core::session::KeyLimits;
use stubborn_core::transport::record::Recording;
use stubborn_tls::{ClientCertificates, TlsServer};

use super::access::{Access, AccessFile};
use super::error::ServeError;
use super::handle::{DrainReport, ServerHandle};
use super::intercept::Incoming;
use super::permissions::Permissions;
use super::services::{Before, Middleware, Services};
use super::share::share;
use crate::datagram::{Socket, SocketGroup, bind_group};
use crate::driver::{self, Serving};
use crate::health::Health;
use crate::keeper::SessionKeeper;
#[cfg(feature = "prometheus")]
use crate::metrics::{Bound, USUAL_LINKS, prometheus_text};
use crate::metrics::{MetricsFor, Source};
use crate::qlog;
use crate::security::{Identity, IdentityFiles, KeyLog, Trust};

/// How long a drain waits by default.
const DRAIN: Duration = Duration::from_secs(30);

/// Services on a UDP port.
///
/// ```no_run
/// # async fn example(bank: impl stubborn::Service) -> Result<(), Box<dyn std::error::Error>> {
/// use stubborn::{Identity, Server};
///
/// Server::bind("0.0.0.0:7400")
///     .identity(Identity::from_pem_files("server.crt", "server.key")?)
///     .service(bank)
///     .run_until(async { tokio::time::sleep(std::time::Duration::from_secs(3600)).await })
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub enum Server {}

impl Server {
    /// A server that listens on this UDP address once it is started, for example `0.0.0.0:7400`
    /// (all IPv4 addresses), `[::]:7400` (all addresses) or `127.0.0.1:0` (a free port of this
    /// machine alone).
    pub fn bind(address: impl ToString) -> ServerBuilder {
        ServerBuilder {
            address: address.to_string(),
            identity: None,
            files: None,
            clients: None,
            key_log: None,
            anonymous: false,
            middleware: Middleware::default(),
            keys: KeyLimits::default(),
            recording: Recording::default(),
            services: Vec::new(),
            keeper: None,
            limits: Limits::default(),
            drain: DRAIN,
            reflection: true,
            health: Some(Health::new()),
            metrics: MetricsFor::default(),
            source: Arc::new(Source::new()),
            workers: 1,
            kernel_steering: true,
            busy_poll: Duration::ZERO,
            #[cfg(feature = "grpc")]
            grpc: None,
            #[cfg(feature = "prometheus")]
            prometheus: None,
        }
    }
}

/// A server that is not started yet.
#[must_use = "a server does nothing before it is started"]
pub struct ServerBuilder {
    address: String,
    identity: Option<Identity>,
    files: Option<IdentityFiles>,
    clients: Option<Trust>,
    key_log: Option<KeyLog>,
    /// Whether clients without a certificate are let in beside those.
    anonymous: bool,
    middleware: Middleware,
    keys: KeyLimits,
    recording: Recording,
    services: Vec<Arc<dyn Service>>,
    keeper: Option<Arc<dyn SessionKeeper>>,
    limits: Limits,
    drain: Duration,
    reflection: bool,
    health: Option<Health>,
    metrics: MetricsFor,
    source: Arc<Source>,
    workers: usize,
    kernel_steering: bool,
    busy_poll: Duration,
    #[cfg(feature = "grpc")]
    grpc: Option<crate::grpc::Grpc>,
    #[cfg(feature = "prometheus")]
    prometheus: Option<String>,
}

impl ServerBuilder {
    /// The certificate and key that clients know the server by. Required: there are no unencrypted
    /// connections.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The same from files that are renewed while the server runs: the new certificate and key are used
    /// from the next handshake on, over datagrams and gRPC, and connections stay. What cannot be used
    /// leaves the identity of before, and is told.
    pub fn identity_files(mut self, files: IdentityFiles) -> Self {
        self.files = Some(files);
        self
    }

    /// Lets in only clients that show a certificate which one of these authorities signed (mutual
    /// TLS). Their sessions then belong to their certificates.
    pub fn client_roots(mut self, authorities: Trust) -> Self {
        self.clients = Some(authorities);
        self
    }

    /// Writes the secrets of connections down, for those who capture packets: whoever reads the file
    /// reads what is sent. Off by default; no environment variable turns it on by itself, but
    /// [`KeyLog::from_env`] honours `SSLKEYLOGFILE`.
    pub fn key_log(mut self, log: impl Into<Option<KeyLog>>) -> Self {
        self.key_log = log.into();
        self
    }

    /// The same, but lets clients in that show no certificate, too: they are anonymous, or known by
    /// their tokens.
    pub fn optional_client_roots(mut self, authorities: Trust) -> Self {
        self.anonymous = true;
        self.client_roots(authorities)
    }

    /// Knows callers by bearer tokens, which calls bring in the metadata `authorization`: `subject`
    /// says whose token it is, `None` if nobody's. Handlers and [`Permissions`] find the subject in
    /// [`Peer::subject`]. It runs for each call, on the thread that serves, and must not block; what it
    /// compares with secrets it has to compare in constant time.
    ///
    /// A call whose token is not accepted does not run. One without a token does not either, unless
    /// there are permissions: then they decide. A session belongs to the subject of its first token: a
    /// call in it with the token of another one does not run
    /// ([`many_subjects_in_a_session`](Self::many_subjects_in_a_session)).
    ///
    /// [`Peer::subject`]: crate::Peer::subject
    pub fn authenticate(
        mut self,
        subject: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.middleware.authenticator = Some(Arc::new(subject));
        self
    }

    /// Lets the calls of one session bring tokens of several subjects: for clients that call for
    /// others, each with a token of its own. What is kept of a call is then told to whoever has the
    /// session.
    pub fn many_subjects_in_a_session(mut self) -> Self {
        self.middleware.many_subjects = true;
        self
    }

    /// Lets callers call only what is allowed to them. A call that is not allowed ends as
    /// [`NotExecuted`](crate::NotExecuted) with the reason `PermissionDenied` (`Unauthenticated` where
    /// a token could help): its handler is never started. gRPC's clients see the same code.
    ///
    /// They can be [exchanged](ServerHandle::authorize) while the server runs.
    pub fn authorize(mut self, permissions: Permissions) -> Self {
        self.middleware.permissions = Some(permissions);
        self
    }

    /// Permissions and tokens as a file has them: in place of [`authorize`](Self::authorize), and of
    /// [`authenticate`](Self::authenticate) if it names tokens.
    pub fn access(mut self, access: &Access) -> Self {
        self.middleware.permissions = Some(access.permissions().clone());
        if let Some(authenticator) = access.authenticator() {
            self.middleware.authenticator = Some(authenticator);
        }
        self
    }

    /// The same from a file that may change while the server runs: what is new in it holds from the next
    /// call on, over datagrams and gRPC. What cannot be used leaves what was before, and is told.
    pub fn access_file(mut self, file: AccessFile) -> Self {
        self.middleware.access = Some(file);
        self
    }

    /// Bounds on what is remembered of calls that name themselves (metadata `stubborn-call-id`), as child
    /// calls do: a copy of one runs once, and gets the first reply.
    pub fn keys(mut self, limits: KeyLimits) -> Self {
        self.keys = limits;
        self
    }

    /// Puts this between callers and handlers, of all services and by whatever way calls come. The one
    /// that was added first has the call first. Calls that are not let in do not come here.
    ///
    /// ```
    /// # fn example(server: stubborn::ServerBuilder) -> stubborn::ServerBuilder {
    /// use stubborn::{Incoming, Server};
    ///
    /// server.intercept(|call: Incoming| async move {
    ///     let (method, began) = (call.method(), std::time::Instant::now());
    ///     let answer = call.run().await;
    ///     println!("{method}: {:?}", began.elapsed());
    ///     answer
    /// })
    /// # }
    /// ```
    pub fn intercept<F, R>(mut self, interceptor: F) -> Self
    where
        F: Fn(Incoming) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        self.middleware.interceptors.push(Arc::new(interceptor));
        self
    }

    /// The same as a layer of `tower`, around the handlers of all services: see [`tower`](crate::tower).
    /// Layers that see one another's readiness, as one that sheds load does, are given as one stack.
    #[cfg(feature = "tower")]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: tower_layer::Layer<crate::tower::Handlers>,
        L::Service: tower_service::Service<Incoming, Response = Answer> + Clone + Send + 'static,
        <L::Service as tower_service::Service<Incoming>>::Future: Send,
        <L::Service as tower_service::Service<Incoming>>::Error:
            Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.middleware.interceptors.push(Arc::new(crate::tower::Layered::new(&layer)));
        self
    }

    /// Records each connection in a file of this folder, as qlog. Off by default; no environment
    /// variable turns it on by itself, but [`qlog::Folder::from_env`](crate::qlog::Folder::from_env)
    /// honours `QLOGDIR`.
    pub fn qlog(mut self, folder: impl Into<Option<qlog::Folder>>) -> Self {
        self.recording = recording(folder.into());
        self
    }

    /// Adds a service: what the generator emitted, around a handler.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push(Arc::new(service));
        self
    }

    /// Keeps sessions and the ends of calls in the database that the services keep their state in:
    /// calls then run exactly once across restarts and kill -9, and at any of the servers that share
    /// the database. The crate `stubborn-completion` has keepers for several databases.
    pub fn completions(mut self, keeper: impl SessionKeeper) -> Self {
        self.keeper = Some(Arc::new(keeper));
        self
    }

    /// Bounds on what clients can make this server hold.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long a drain waits for calls that are executing and for replies that are not released
    /// yet. 30 s by default. What is still executing then is dropped.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain = timeout;
        self
    }

    /// Whether the server tells callers which services it has (`stubborn.v1.Reflection`), which
    /// `stubborn ls` and `stubborn call` use. On by default.
    pub fn reflection(mut self, on: bool) -> Self {
        self.reflection = on;
        self
    }

    /// Tells by this how the services are, to those who ask by gRPC's protocol (`grpc.health.v1.Health`),
    /// over datagrams as over gRPC; `None` for not at all. By default every service serves until the
    /// server drains. [`ServerHandle::health`] is the same one.
    pub fn health(mut self, health: impl Into<Option<Health>>) -> Self {
        self.health = health.into();
        self
    }

    /// Who may ask the server what it counts and measures (`stubborn.metrics.v1.Metrics`), as
    /// `stubborn top` does. By default callers with a certificate and those on the same machine.
    pub fn metrics(mut self, who: MetricsFor) -> Self {
        self.metrics = who;
        self
    }

    /// How many workers share the server's connections and sessions: each is a thread with a socket
    /// of its own on the same port, and runs the handlers of its calls on it. 1 by default: then the
    /// server is a task of the runtime that starts it. 0 means one for each CPU. At most 256; 1 where
    /// the system does not let sockets share a port.
    ///
    /// More workers are for more CPUs than one can keep busy. A session, and with it a channel, stays
    /// with one worker, so a single channel is not served faster. [`Limits`] are those of the whole
    /// server: each worker gets its share of what they count in all.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Looks for datagrams for this long before a worker sleeps; zero, the default, for only as long
    /// as that pays (at most 50 microseconds).
    /// That spares the time that the system takes to wake a thread, and costs processor time: up to
    /// a whole processor for each worker while calls come. 20 to 50 microseconds are of use where
    /// calls take little longer than that.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.busy_poll = time;
        self
    }

    /// Whether the kernel is asked to give each datagram to the worker that it is for (Linux). On by
    /// default. Where it is off, not possible or refused, workers hand datagrams to one another,
    /// which costs more and changes nothing else.
    pub fn kernel_steering(mut self, on: bool) -> Self {
        self.kernel_steering = on;
        self
    }

    /// Also answers gRPC, over TCP on the same port number: the same services, with the same identity.
    #[cfg(feature = "grpc")]
    pub fn grpc(mut self, door: crate::grpc::Grpc) -> Self {
        self.grpc = Some(door);
        self
    }

    /// Tells Prometheus what the server counts and measures: over plain HTTP, at this TCP address
    /// (`127.0.0.1:9400`; port 0 is a free one), path `/metrics`. Whoever reaches that address is told.
    #[cfg(feature = "prometheus")]
    pub fn prometheus(mut self, address: impl ToString) -> Self {
        self.prometheus = Some(address.to_string());
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// If the address is taken, there is no identity, or two services cannot stand together.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(feature = "prometheus")]
    pub async fn start(mut self) -> Result<ServerHandle, ServeError> {
        let Some(address) = self.prometheus.take() else { return self.start_services().await };
        let bound = Bound::at(&address).await.map_err(|e| ServeError::Bind(address, e))?;
        let source = Arc::clone(&self.source);
        let mut handle = self.start_services().await?;
        let told = move || {
            let told = prometheus_text(&source.snapshot(USUAL_LINKS), None);
            Box::pin(std::future::ready(Some(told))) as crate::BoxFuture<_>
        };
        handle.set_exporter(bound.open(Arc::new(told)));
        Ok(handle)
    }

    /// Starts the server.
    ///
    /// # Errors
    /// If the address is taken, there is no identity, or two services cannot stand together.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(not(feature = "prometheus"))]
    pub async fn start(self) -> Result<ServerHandle, ServeError> {
        self.start_services().await
    }

    async fn start_services(mut self) -> Result<ServerHandle, ServeError> {
        if let Some(files) = &self.files {
            self.identity = Some(files.read()?);
        }
        #[cfg(feature = "grpc")]
        if let Some(door) = self.grpc.take() {
            return crate::grpc::start(self, door).await;
        }
        let address = resolve(&self.address).await?;
        let registry = self.registry()?;
        let before = self.before(&registry)?;
        self.start_at(address, registry, before).await
    }

    /// Starts the server on this address, without a door.
    pub(crate) async fn start_at(
        self,
        address: SocketAddr,
        registry: Registry,
        before: Arc<Before>,
    ) -> Result<ServerHandle, ServeError> {
        let tls = Arc::new(self.tls()?);
        let (current, files) = (tls.identity().clone(), self.files.clone());
        let mut incarnation = [0; 8];
        getrandom::fill(&mut incarnation)
            .map_err(|error| ServeError::Entropy(io::Error::other(error)))?;
        let incarnation = match &self.keeper {
            Some(keeper) => keeper.group(),
            None => u64::from_be_bytes(incarnation),
        };
        let config = ServerConfig { tls, incarnation, group: self.keeper.is_some() };
        if let Some(keeper) = &self.keeper {
            keeper.set_limits(&self.limits);
        }
        let recording = self.recording.clone();
        let access = self.middleware.access.clone();
        let services = Services::new(registry, Arc::clone(&before));
        let serving = Serving { config, services, keeper: self.keeper.clone() };
        let source = Arc::clone(&self.source);
        let health = self.health.clone().unwrap_or_default();
        let taken = |error| ServeError::Bind(self.address.clone(), error);
        let group =
            bind_group(address, self.worker_count(), self.kernel_steering).map_err(taken)?;
        let SocketGroup { mut sockets, steered } = group;
        if sockets.len() == 1 {
            let socket = sockets.pop().expect("a group has a socket");
            let socket = Socket::from_std(socket).map_err(taken)?;
            let (shared, task) = driver::start(socket, self.limits, Some(serving), recording)
                .map_err(ServeError::Entropy)?;
            shared.set_busy_poll(self.busy_poll);
            let handle = ServerHandle::one(shared, task, source, self.drain);
            let handle = handle.with_health(health).identified(&current, files);
            return Ok(handle.guarded(before, access));
        }
        let limits = share(&self.limits, sockets.len());
        let (group, workers) = driver::start_workers(sockets, limits, serving, recording)
            .await
            .map_err(ServeError::Worker)?;
        for worker in &workers {
            worker.shared.set_busy_poll(self.busy_poll);
        }
        let handle = ServerHandle::several(group, workers, steered, source, self.drain);
        let handle = handle.with_health(health).identified(&current, files);
        Ok(handle.guarded(before, access))
    }

    /// Runs the server until `shutdown` is ready, then drains it: it refuses new sessions, lets
    /// calls end, and leaves when every kept reply is released or at the drain timeout.
    ///
    /// # Errors
    /// As [`start`](Self::start); and at once when a worker panics, which ends the server.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn run_until(
        self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<DrainReport, ServeError> {
        self.start().await?.until(shutdown).await
    }

    /// Runs the server for ever.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn run(self) -> Result<(), ServeError> {
        self.run_until(std::future::pending()).await.map(|_| ())
    }

    fn worker_count(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let wanted = if self.workers == 0 { cpus() } else { self.workers };
        wanted.min(driver::MAX_WORKERS)
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn has_reflection(&self) -> bool {
        self.reflection
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn limits_now(&self) -> &Limits {
        &self.limits
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    pub(crate) fn registry(&self) -> Result<Registry, ServeError> {
        let mut registry = Registry::new();
        for service in &self.services {
            registry.add(Arc::clone(service))?;
        }
        if let Some(health) = &self.health {
            health.add(&mut registry)?;
        }
        crate::metrics::add(&mut registry, &self.source, self.metrics)?;
        if self.reflection {
            crate::reflection::add(&mut registry, [])?;
        }
        Ok(registry)
    }

    /// What stands before the handlers of these services.
    pub(crate) fn before(&self, registry: &Registry) -> Result<Arc<Before>, ServeError> {
        let keys = self.keeper.is_none().then(|| self.keys.clone());
        self.middleware.before(registry, &self.limits, keys).map_err(ServeError::Permissions)
    }

    /// Who the server is, and whom it lets in.
    pub(crate) fn security(&self) -> Result<(&Identity, ClientCertificates), ServeError> {
        let identity = self.identity.as_ref().ok_or(ServeError::NoIdentity)?;
        let clients = match &self.clients {
            None => ClientCertificates::NotAsked,
            Some(trust) => {
                let roots = trust.roots()?.ok_or(ServeError::ClientTrust)?;
                match self.anonymous {
                    true => ClientCertificates::Optional(roots),
                    false => ClientCertificates::Required(roots),
                }
            }
        };
        Ok((identity, clients))
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn keys_logged(&self) -> Option<&KeyLog> {
        self.key_log.as_ref()
    }

    fn tls(&self) -> Result<TlsServer, ServeError> {
        let (identity, clients) = self.security()?;
        let builder = TlsServer::builder(identity.tls.clone())
            .client_certificates(clients)
            .key_log(self.key_log.clone());
        Ok(builder.build().map_err(crate::security::SecurityError::from)?)
    }
}

pub(crate) fn recording(folder: Option<qlog::Folder>) -> Recording {
    folder.map(|folder| folder.recording()).unwrap_or_default()
}

pub(crate) async fn resolve(address: &str) -> Result<SocketAddr, ServeError> {
    let failed = |error| ServeError::Address(address.to_owned(), error);
    let mut found = tokio::net::lookup_host(address).await.map_err(failed)?;
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    found.next().ok_or_else(|| failed(none()))
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|s| s.descriptor().name).collect();
        f.debug_struct("ServerBuilder")
            .field("address", &self.address)
            .field("services", &services)
            .finish_non_exhaustive()
    }
}
