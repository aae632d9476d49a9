//! Everything that can be chosen about a channel.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::node::{ChannelConfig, SessionTicket};
use stubborn_core::service::{Channel, OutgoingCall};

use super::bearer::{Around, Bearer};
use super::connection::Connection;
use super::endpoint::ClientEndpoint;
use super::error::{ConnectError, ConnectErrorKind};
use super::service_config::{
    self, Balancing, CircuitBreaker, MethodConfig, OutlierDetection, RetryPolicy, ServiceConfig,
    ServiceConfigError,
};
use crate::driver::ChannelStatus;
use crate::journal::Opened;
use crate::naming::{Address, Resolver, at_least_one, follow, look_up_members};
use crate::security::{Identity, IdentityFiles, KeyLog, Trust};

/// The pause before names are looked up again after every address has failed.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

/// Opens a channel with other settings than the defaults.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use stubborn::{ChannelBuilder, Trust};
///
/// let channel = ChannelBuilder::new("stubborn://bank.example:7400")
///     .trust(Trust::pem_file("ca.pem")?)
///     .deadline(std::time::Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a channel is opened by connect"]
pub struct ChannelBuilder {
    address: String,
    resolver: Option<Box<dyn Resolver>>,
    server_name: Option<String>,
    trust: Option<Trust>,
    identity: Option<Identity>,
    files: Option<IdentityFiles>,
    key_log: Option<KeyLog>,
    endpoint: Option<ClientEndpoint>,
    journal: Option<PathBuf>,
    settled_by_hand: bool,
    around: Around,
    settings: Settings,
}

#[derive(Debug, Default)]
struct Settings {
    slots: Option<u32>,
    deadline: Option<Duration>,
    wait_for_ready: bool,
    settle_grace: Option<Duration>,
    unreachable_after: Option<Duration>,
    backoff: Option<(Duration, Duration)>,
    attempt_timeout: Option<Duration>,
    resume: Option<SessionTicket>,
    reads_only: bool,
    stays: bool,
    service: Option<ServiceConfig>,
}

impl ChannelBuilder {
    /// A channel to this address; see [`Address`] for how it is written.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            resolver: None,
            server_name: None,
            trust: None,
            identity: None,
            files: None,
            key_log: None,
            endpoint: None,
            journal: None,
            settled_by_hand: false,
            around: Around::default(),
            settings: Settings::default(),
        }
    }

    /// Finds the servers by this resolver. The address then only says who they must prove to be, by
    /// its first host, `?name=` or `?pin=`.
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Some(Box::new(resolver));
        self
    }

    /// Which servers to believe. By default the key that the address pins, else the authorities
    /// that the system trusts.
    pub fn trust(mut self, trust: impl Into<Trust>) -> Self {
        self.trust = Some(trust.into());
        self
    }

    /// The name that the server's certificate must bear. By default the one that the address gives
    /// with `?name=`, else its first host.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The certificate to show to servers that ask for one. The session then belongs to it.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Writes the secrets of connections down, for those who capture packets: whoever reads the file
    /// reads what is sent. Off by default; no environment variable turns it on by itself, but
    /// [`KeyLog::from_env`] honours `SSLKEYLOGFILE`.
    pub fn key_log(mut self, log: impl Into<Option<KeyLog>>) -> Self {
        self.key_log = log.into();
        self
    }

    /// The same from files that are renewed while the channel is open: the new certificate and key are
    /// shown from the next handshake on ([`Connection::reload`]). Over gRPC they are read once.
    pub fn identity_files(mut self, files: IdentityFiles) -> Self {
        self.files = Some(files);
        self
    }

    /// Takes a bearer token along with each call, in the metadata `authorization`. Only servers get it
    /// that have proved who they are: [`Trust::insecure`] and `grpc://` do not go with it. It is never
    /// printed, and not written into journals.
    pub fn bearer(mut self, bearer: Bearer) -> Self {
        self.around.bearer = Some(bearer);
        self
    }

    /// Lets this see each call before it is sent, and change it: [`Channel::intercept`]. The one that
    /// was added first has the call first.
    pub fn intercept<F>(mut self, interceptor: F) -> Self
    where
        F: Fn(&mut OutgoingCall) -> Result<(), Cow<'static, str>> + Send + Sync + 'static,
    {
        self.around.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Uses this endpoint instead of the one that the runtime shares.
    pub fn endpoint(mut self, endpoint: &ClientEndpoint) -> Self {
        self.endpoint = Some(endpoint.clone());
        self
    }

    /// Slots to ask for: calls in flight at once. 1,024 by default; the server may grant fewer.
    pub fn slots(mut self, slots: u32) -> Self {
        self.settings.slots = Some(slots);
        self
    }

    /// The deadline of calls that state none. By default they have none: they wait as long as the
    /// server can be reached.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = Some(deadline);
        self
    }

    /// Whether calls wait until a server can be reached, and [`connect`](Self::connect) with them,
    /// instead of failing once every address was tried.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.settings.wait_for_ready = wait;
        self
    }

    /// How long after its deadline a call still waits for the fence that settles it; then it ends
    /// as pending. Half a second by default.
    pub fn settle_grace(mut self, grace: Duration) -> Self {
        self.settings.settle_grace = Some(grace);
        self
    }

    /// How long no server has to answer before a call without a deadline ends as pending. A minute
    /// by default.
    pub fn unreachable_after(mut self, time: Duration) -> Self {
        self.settings.unreachable_after = Some(time);
        self
    }

    /// The first pause between attempts to connect, and the longest one to which it doubles, with
    /// jitter. 50 ms and 1 s by default.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.backoff = Some((first, longest));
        self
    }

    /// How long one attempt to connect may take before the next address is tried. 3 s by default.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_timeout = Some(timeout);
        self
    }

    /// Attaches to a session of an earlier channel instead of opening a new one: calls of it that
    /// are not settled can then be settled for good. Its server is looked for at each address in
    /// turn. A later attach elsewhere takes the session over.
    pub fn resume(mut self, ticket: SessionTicket) -> Self {
        self.settings.resume = Some(ticket);
        self
    }

    /// Keeps a journal in this file, which begins empty or is that of an earlier process: then its
    /// session is resumed, and [`Connection::journal`] has the calls whose outcomes were not told. See
    /// [`journal`](crate::journal).
    ///
    /// Each call is synced to the file before it is sent. Beside the file are made `PATH.lock` and
    /// `PATH.new`. It takes the place of [`resume`](Self::resume). Members of a group that it has are
    /// tried beside the address of this channel: the group may have moved on meanwhile.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Keeps a call in the journal until the application settles it ([`Journal::settle`]), also when
    /// its outcome was told: for who writes outcomes down elsewhere, and may be killed in between. The
    /// journal keeps the latest 4,096 outcomes.
    ///
    /// [`Journal::settle`]: crate::journal::Journal::settle
    pub fn settled_by_hand(mut self) -> Self {
        self.settled_by_hand = true;
        self
    }

    /// Carries reads and `maybe` calls only. The server then keeps no session for this channel, and a
    /// group need not agree on one: it can be asked how it stands even when it cannot agree on
    /// anything. [`open`](Self::open) and [`connect`](Self::connect) do not wait then.
    pub fn reads_only(mut self) -> Self {
        self.settings.reads_only = true;
        self
    }

    /// Goes nowhere else than to its address, whatever a group tells of its members.
    #[cfg(all(feature = "grpc", feature = "replica"))]
    pub(crate) fn stays(mut self) -> Self {
        self.settings.stays = true;
        self
    }

    /// How calls are spread over servers that are no group. By default all go to one server, and the
    /// next one is used when it fails.
    pub fn balancing(mut self, balancing: Balancing) -> Self {
        self.settings.service.get_or_insert_default().balancing = balancing;
        self
    }

    /// Leaves servers out for a while that can be reached and answer badly. By default none is.
    pub fn outlier_detection(mut self, detection: OutlierDetection) -> Self {
        self.settings.service.get_or_insert_default().outliers = Some(detection);
        self
    }

    /// Bounds what one server is asked at once. By default only its slots do.
    pub fn circuit_breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.settings.service.get_or_insert_default().breaker = Some(breaker);
        self
    }

    /// How calls that failed are made again where that is safe; `None`: not at all. By default there
    /// are three attempts. Methods with settings of their own ([`method`](Self::method)) are not
    /// concerned.
    pub fn retry(mut self, policy: impl Into<Option<RetryPolicy>>) -> Self {
        self.settings.service.get_or_insert_default().retry = policy.into();
        self
    }

    /// Settings of some methods: deadline, retries or hedging.
    pub fn method(mut self, config: MethodConfig) -> Self {
        self.settings.service.get_or_insert_default().methods.push(config);
        self
    }

    /// Everything about choosing servers and making calls again. It takes the place of what was chosen
    /// before.
    pub fn service(mut self, config: ServiceConfig) -> Self {
        self.settings.service = Some(config);
        self
    }

    /// The same as JSON in the shape of gRPC's service config; see
    /// [`service_config`](crate::service_config).
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn service_config(self, json: &str) -> Result<Self, ServiceConfigError> {
        Ok(self.service(service_config::parse(json)?))
    }

    /// Opens the channel and waits until a server has answered.
    ///
    /// # Errors
    /// If the address cannot be read or resolved, no server answers, or its certificate is not
    /// trusted.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(self) -> Result<Channel, ConnectError> {
        #[cfg(feature = "grpc")]
        if crate::grpc::is_grpc(&self.address) {
            let address = self.address.clone();
            let failed = |error| ConnectError::new(address, ConnectErrorKind::Security(error));
            let mut this = self;
            if let Some(files) = &this.files {
                this.identity = Some(files.read().map_err(failed)?);
            }
            return crate::grpc::connect(this).await;
        }
        Ok(self.open().await?.channel())
    }

    /// The same, but returns the connection with its state, session and counters.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub async fn open(self) -> Result<Connection, ConnectError> {
        if self.settings.reads_only {
            return self.open_now().await;
        }
        let text = self.address.clone();
        let failed = |kind| ConnectError::new(text.clone(), kind);
        let wait = self.settings.wait_for_ready;
        let connection = self.open_now().await?;
        let mut status = connection.status();
        loop {
            status = match status {
                ChannelStatus::Ready { .. } => return Ok(connection),
                ChannelStatus::Unreachable(why) if !wait => {
                    return Err(failed(ConnectErrorKind::Unreachable(why.into())));
                }
                ChannelStatus::Refused(why) => {
                    return Err(failed(ConnectErrorKind::Refused(why.into())));
                }
                ChannelStatus::Closed => return Err(failed(ConnectErrorKind::Closed)),
                waiting @ (ChannelStatus::Connecting | ChannelStatus::Unreachable(_)) => {
                    connection.status_other(&waiting).await
                }
            };
        }
    }

    /// Opens the channel without waiting for a server; only names are looked up first. Calls wait
    /// for the first server that answers.
    ///
    /// # Errors
    /// If the address cannot be read or resolved, or a certificate cannot be used.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub async fn open_now(self) -> Result<Connection, ConnectError> {
        let text = self.address;
        let failed = |kind| ConnectError::new(text.clone(), kind);
        let address: Address = text.parse().map_err(|e| failed(ConnectErrorKind::Address(e)))?;
        let trust = self.trust.or_else(|| address.pin().map(Trust::key)).unwrap_or_default();
        if self.around.bearer.is_some() && !trust.is_verifying() {
            return Err(failed(ConnectErrorKind::UnverifiedBearer));
        }
        let identity = match &self.files {
            Some(files) => Some(files.read().map_err(|e| failed(ConnectErrorKind::Security(e)))?),
            None => self.identity,
        };
        let tls = trust
            .client(identity.as_ref(), self.key_log.as_ref())
            .map_err(|e| failed(ConnectErrorKind::Security(e)))?;
        let changes = self.resolver.is_some() || address.may_change();
        let mut resolver = match self.resolver {
            Some(resolver) => resolver,
            None => address.resolver().map_err(|e| failed(ConnectErrorKind::Resolve(e)))?,
        };
        let journal = match self.journal.filter(|_| !self.settings.reads_only) {
            None => None,
            Some(path) => {
                let by_hand = self.settled_by_hand;
                let opening = tokio::task::spawn_blocking(move || Opened::open(&path, by_hand));
                let opened = opening.await.map_err(|_| failed(ConnectErrorKind::Closed))?;
                Some(opened.map_err(|error| failed(ConnectErrorKind::Journal(error)))?)
            }
        };
        // They may have moved on while no process had the journal open.
        let members = journal.as_ref().map(Opened::members).unwrap_or_default();
        let members = look_up_members(members).await;
        let targets = loop {
            match resolver.next().await.and_then(at_least_one) {
                Ok(targets) => {
                    let others = members.into_iter().filter(|member| !targets.contains(member));
                    break targets.iter().copied().chain(others.collect::<Vec<_>>()).collect();
                }
                Err(_) if !members.is_empty() => break members,
                Err(_) if self.settings.wait_for_ready => tokio::time::sleep(RESOLVE_AGAIN).await,
                Err(error) => return Err(failed(ConnectErrorKind::Resolve(error))),
            }
        };
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint,
            None => ClientEndpoint::shared_one()
                .map_err(|error| failed(ConnectErrorKind::Socket(error)))?,
        };
        let name = self.server_name.unwrap_or_else(|| address.server_name());
        let mut config = ChannelConfig { targets, ..ChannelConfig::new(name, tls.clone()) };
        self.settings.apply(&mut config);
        let shared = std::sync::Arc::downgrade(endpoint.shared());
        let mut open = Connection::open(endpoint, config, journal)
            .map_err(|error| failed(ConnectErrorKind::Socket(error)))?
            .ok_or_else(|| failed(ConnectErrorKind::Closed))?;
        open.around = self.around;
        open.identified(tls, self.files);
        if changes {
            let task = tokio::spawn(follow(resolver, shared, open.keys(), open.status()));
            open.set_resolver(task.abort_handle());
        }
        Ok(Connection::new(open))
    }
}

/// What of a channel's choices there is for a server of gRPC.
#[cfg(feature = "grpc")]
pub(crate) struct GrpcChoices {
    pub(crate) address: String,
    pub(crate) server_name: Option<String>,
    pub(crate) trust: Option<Trust>,
    pub(crate) identity: Option<Identity>,
    pub(crate) files: Option<IdentityFiles>,
    pub(crate) key_log: Option<KeyLog>,
    pub(crate) around: Around,
    pub(crate) deadline: Option<Duration>,
    pub(crate) wait_for_ready: bool,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) resolver: Option<Box<dyn Resolver>>,
    pub(crate) service: ServiceConfig,
}

#[cfg(feature = "grpc")]
impl ChannelBuilder {
    pub(crate) fn into_grpc(self) -> GrpcChoices {
        GrpcChoices {
            address: self.address,
            server_name: self.server_name,
            trust: self.trust,
            identity: self.identity,
            files: self.files,
            key_log: self.key_log,
            around: self.around,
            deadline: self.settings.deadline,
            wait_for_ready: self.settings.wait_for_ready,
            attempt_timeout: self.settings.attempt_timeout,
            backoff: self.settings.backoff,
            resolver: self.resolver,
            service: self.settings.service.unwrap_or_default(),
        }
    }
}

impl Settings {
    fn apply(self, config: &mut ChannelConfig) {
        fn set<T>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        set(&mut config.slots, self.slots);
        config.deadline = self.deadline;
        config.wait_for_ready = self.wait_for_ready;
        set(&mut config.settle_grace, self.settle_grace);
        set(&mut config.unreachable_after, self.unreachable_after);
        if let Some((first, longest)) = self.backoff {
            config.backoff_min = first;
            config.backoff_max = longest.max(first);
        }
        set(&mut config.attempt_timeout, self.attempt_timeout);
        config.resume = self.resume;
        set(&mut config.service, self.service);
        config.session = !self.reads_only;
        config.follows_members = !self.stays;
    }
}

impl fmt::Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("address", &self.address)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
