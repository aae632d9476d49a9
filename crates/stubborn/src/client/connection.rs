//! An open channel with what stubs do not need: its state, its session, its counters.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use stubborn_core::node::{ChannelConfig, ChannelKey, SessionTicket};
use stubborn_core::service::{CallError, CallState, Channel, IncomingReply};
use stubborn_core::session::{CallId, SessionId};
use stubborn_tls::TlsClient;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::bearer::Around;
use super::caller::{self, NodeCaller};
use super::endpoint::ClientEndpoint;
use super::service_config::{ChannelCounters, EndpointStats};
use crate::driver::{ChannelState, ChannelStatus, Shared};
use crate::journal::{Handle, Job, Journal, Opened};
use crate::metrics::SnapshotReply;
use crate::security::{Fingerprint, Identity, IdentityFiles, SecurityError};

pub use stubborn_core::transport::connection::{EcnState, Stats as ConnectionStats};

/// A way to a service, with what stubs do not need. Cheap to clone; clones share it, and it closes
/// when the last clone, channel and call of it are dropped.
#[derive(Clone)]
pub struct Connection(Arc<Open>);

/// A channel that is open at a node. Dropping it closes it.
pub(crate) struct Open {
    endpoint: ClientEndpoint,
    pub(super) key: ChannelKey,
    /// Of calls that state none.
    pub(super) deadline: Option<Duration>,
    status: watch::Receiver<ChannelStatus>,
    resolver: Option<AbortHandle>,
    pub(crate) journal: Option<Arc<Handle>>,
    /// Channels for the calls of earlier sessions of the journal.
    earlier: Vec<(SessionId, Arc<Open>)>,
    pub(crate) around: Around,
    /// Who this client is, as long as it is that of the channel.
    tls: Option<Arc<TlsClient>>,
    /// Looks for renewed certificates.
    watching: Option<AbortHandle>,
}

impl Connection {
    /// Opens a channel; `None` if the endpoint has ended.
    ///
    /// # Errors
    /// If the system gives no thread for the journal.
    pub(super) fn open(
        endpoint: ClientEndpoint,
        mut config: ChannelConfig,
        journal: Option<Opened>,
    ) -> io::Result<Option<Open>> {
        if let Some(journal) = &journal {
            journal.configure(&mut config);
        }
        let others: Vec<_> = journal.iter().flat_map(|journal| journal.others(&config)).collect();
        let jobs = || journal.as_ref().map(Opened::jobs);
        let Some(mut open) = Open::new(&endpoint, config, jobs()) else { return Ok(None) };
        let mut earlier = Vec::new();
        for (session, config) in others {
            let Some(open) = Open::new(&endpoint, config, jobs()) else { return Ok(None) };
            earlier.push((session, open));
        }
        if let Some(journal) = journal {
            let channels = earlier.iter().map(|(session, open)| (*session, open.key)).collect();
            let journal = journal.start(Arc::downgrade(open.shared()), open.key, channels)?;
            let journal = Arc::new(journal);
            for (session, mut other) in earlier {
                other.journal = Some(Arc::clone(&journal));
                open.earlier.push((session, Arc::new(other)));
            }
            open.journal = Some(journal);
        }
        Ok(Some(open))
    }

    pub(super) fn new(open: Open) -> Self {
        Self(Arc::new(open))
    }

    /// The channel, for stubs.
    pub fn channel(&self) -> Channel {
        let caller = NodeCaller::new(Arc::clone(&self.0));
        #[cfg(feature = "tracing")]
        let caller = crate::trace::Traced(caller);
        self.0.around.channel(Channel::new(caller))
    }

    /// The journal, if the channel keeps one ([`ChannelBuilder::journal`]).
    ///
    /// [`ChannelBuilder::journal`]: crate::ChannelBuilder::journal
    pub fn journal(&self) -> Option<Journal> {
        Journal::of(&self.0)
    }

    /// What is known of the way to the servers now.
    pub fn status(&self) -> ChannelStatus {
        self.0.status.borrow().clone()
    }

    /// Waits until the status is another one than `than`, and returns it.
    pub async fn status_other(&self, than: &ChannelStatus) -> ChannelStatus {
        let mut status = self.0.status.clone();
        match status.wait_for(|status| status != than).await {
            Ok(status) => status.clone(),
            Err(_) => ChannelStatus::Closed,
        }
    }

    /// What it takes to ask for outcomes of this session's calls from elsewhere, also from another
    /// process. It holds a secret. `None` while no session is open.
    pub fn ticket(&self) -> Option<SessionTicket> {
        self.0.shared().look(|state| state.node.session(self.0.key)).flatten()
    }

    /// The server's address, counters and estimates; `None` while there is no connection.
    pub fn stats(&self) -> Option<(SocketAddr, ConnectionStats)> {
        self.0.shared().look(|state| state.node.channel_stats(self.0.key)).flatten()
    }

    /// The servers of the channel, in the order of their addresses: state and counters of each.
    pub fn endpoints(&self) -> Vec<EndpointStats> {
        let endpoints = self.0.shared().change(|state, now| state.node.endpoints(now, self.0.key));
        endpoints.unwrap_or_default()
    }

    /// What the channel did beyond sending each call once.
    pub fn counters(&self) -> ChannelCounters {
        let counters = self.0.shared().look(|state| state.node.channel_counters(self.0.key));
        counters.unwrap_or_default()
    }

    /// What was counted and measured of the calls and links of all channels that share this one's
    /// endpoint, at most so many links one by one.
    pub fn metrics(&self, links: usize) -> SnapshotReply {
        self.0.endpoint.metrics(links)
    }

    /// Who the server proved to be: the digest of its key, and its certificate chain as DER, its own
    /// certificate first. `None` while there is no connection.
    pub fn server_identity(&self) -> Option<(Fingerprint, Vec<Vec<u8>>)> {
        self.0
            .shared()
            .look(|state| {
                let handle = state.node.channel_connection(self.0.key)?;
                let identity = state.node.endpoint().connection(handle)?.peer_identity()?;
                Some((Fingerprint(identity.key_digest), identity.certificates.clone()))
            })
            .flatten()
    }

    /// Shows this certificate from the next handshake on. The connection that is there stays as it is.
    ///
    /// A session belongs to the SPIFFE id of the certificate that opened it, or without one to its key: a
    /// certificate that is renewed for the same id, or with the same key, keeps it. With another one the
    /// next connection is refused the session, and what is not settled of it is lost.
    ///
    /// # Errors
    /// If certificate and key do not belong together, or cannot be used: the one of before stays.
    pub fn reload(&self, identity: &Identity) -> Result<(), SecurityError> {
        self.0.tls.as_ref().map_or(Ok(()), |tls| renew(tls, identity))
    }

    /// Asks what became of a call of the session that the ticket belongs to. From elsewhere than
    /// the call's own session the answer only reads: it fences nothing.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn outcome_of(
        &self,
        id: CallId,
        ticket: Option<SessionTicket>,
    ) -> Result<CallState<IncomingReply>, CallError> {
        caller::ask(&self.0, id, ticket).await
    }
}

impl Open {
    /// Opens a channel at the node; `None` if the endpoint has ended.
    fn new(
        endpoint: &ClientEndpoint,
        config: ChannelConfig,
        journal: Option<Sender<Job>>,
    ) -> Option<Self> {
        let (sender, status) = watch::channel(ChannelStatus::Connecting);
        let deadline = config.deadline;
        let key = endpoint.shared().change(|state, now| {
            let key = state.node.open_channel(now, config);
            state.channels.insert(key, ChannelState::new(sender, journal));
            key
        })?;
        let endpoint = endpoint.clone();
        let (resolver, journal, earlier) = (None, None, Vec::new());
        let around = Around::default();
        Some(Self {
            endpoint,
            key,
            deadline,
            status,
            resolver,
            journal,
            earlier,
            around,
            tls: None,
            watching: None,
        })
    }

    /// The channel that has a session of the journal: this one, unless it is an earlier session.
    pub(crate) fn of_session(open: &Arc<Self>, session: SessionId) -> Arc<Self> {
        let earlier = open.earlier.iter().find(|(earlier, _)| *earlier == session);
        Arc::clone(earlier.map_or(open, |(_, earlier)| earlier))
    }

    /// The channel and those of earlier sessions.
    pub(super) fn keys(&self) -> Vec<ChannelKey> {
        let earlier = self.earlier.iter().map(|(_, open)| open.key);
        earlier.chain([self.key]).collect()
    }

    /// By what its handshakes are made, which files may renew.
    pub(super) fn identified(&mut self, tls: Arc<TlsClient>, files: Option<IdentityFiles>) {
        let renewed = Arc::clone(&tls);
        let watch = |files: IdentityFiles| {
            let replace = move |identity: &Identity| renew(&renewed, identity);
            tokio::spawn(files.watch(replace)).abort_handle()
        };
        self.watching = files.map(watch);
        self.tls = Some(tls);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.endpoint.shared()
    }

    pub(super) fn status(&self) -> watch::Receiver<ChannelStatus> {
        self.status.clone()
    }

    /// The task that looks names up again; it ends with the channel.
    pub(super) fn set_resolver(&mut self, task: AbortHandle) {
        self.resolver = Some(task);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in self.resolver.iter().chain(&self.watching) {
            task.abort();
        }
        let key = self.key;
        self.endpoint.shared().change(|state, now| {
            state.channels.remove(&key);
            state.node.close_channel(now, key);
        });
    }
}

fn renew(tls: &TlsClient, identity: &Identity) -> Result<(), SecurityError> {
    Ok(tls.replace_identity(identity.tls.clone())?)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.status()).finish()
    }
}
