//! A client's socket, which its channels share.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use stubborn_core::limits::Limits;
use stubborn_core::transport::record::Recording;
use tokio::runtime::{Handle, Id};

use crate::datagram::Socket;
use crate::driver::{self, Shared, Stage};
use crate::metrics::{SnapshotReply, Source};
use crate::qlog;

/// A client's socket and the task that drives it. Channels made with clones of it share both; each
/// channel still has its own connection and session. It ends when the last clone and the last
/// channel are dropped.
///
/// Without one of its own, a channel uses the endpoint that its tokio runtime shares.
#[derive(Clone)]
pub struct ClientEndpoint(Arc<Guard>);

struct Guard(Arc<Shared>, Source);

/// One shared endpoint per runtime: an endpoint lives no longer than the runtime that drives it.
static SHARED: Mutex<Option<HashMap<Id, Weak<Guard>>>> = Mutex::new(None);

impl ClientEndpoint {
    /// An endpoint with a socket of its own on a free port, with the default limits.
    ///
    /// # Errors
    /// If the system gives no socket or no entropy.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Self::start(Socket::bind_any()?, Limits::default())
    }

    /// An endpoint with a socket of its own on a free port, with these limits: for example on the
    /// size of replies.
    ///
    /// # Errors
    /// If the system gives no socket or no entropy.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_limits(limits: Limits) -> io::Result<Self> {
        Self::start(Socket::bind_any()?, limits)
    }

    /// An endpoint on this local address (port 0: a free one), with these limits.
    ///
    /// # Errors
    /// If the system refuses the address or gives no entropy.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(local: SocketAddr, limits: Limits) -> io::Result<Self> {
        Self::start(Socket::bind(local)?, limits)
    }

    /// The same as [`with_limits`](Self::with_limits), and records each connection in a file of this
    /// folder, as qlog.
    ///
    /// # Errors
    /// If the system gives no socket or no entropy.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_qlog(limits: Limits, folder: impl Into<Option<qlog::Folder>>) -> io::Result<Self> {
        let recording = folder.into().map(|folder| folder.recording()).unwrap_or_default();
        Self::start_recorded(Socket::bind_any()?, limits, recording)
    }

    /// From now on looks for datagrams for this long before it sleeps; zero, as at the beginning, for
    /// only as long as that pays (at most 50 microseconds). That spares the time that the system takes
    /// to wake a thread, and costs processor time: other tasks of the runtime's thread wait meanwhile.
    pub fn busy_poll(&self, time: Duration) {
        self.shared().set_busy_poll(time);
    }

    /// The address of its socket.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().local
    }

    /// What was counted and measured of the calls and links of all channels of this endpoint, at most so
    /// many links one by one.
    pub fn metrics(&self, links: usize) -> SnapshotReply {
        self.0.1.snapshot(links)
    }

    /// Closes every channel of this endpoint, in all its clones, and waits until the servers' leave
    /// was handed to the network. Channels that are dropped before close their sessions.
    pub async fn close(self) {
        let mut stage = self.shared().stage.subscribe();
        self.shared().advance(Stage::Leaving);
        // An error means that the driver is gone, which is what is waited for.
        let _ = stage.wait_for(|stage| *stage == Stage::Ended).await;
    }

    /// The endpoint of this runtime; made if there is none.
    pub(crate) fn shared_one() -> io::Result<Self> {
        let runtime = Handle::current().id();
        let mut registry = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = registry.get_or_insert_with(HashMap::new);
        let alive = |guard: &Arc<Guard>| *guard.0.stage.borrow() < Stage::Leaving;
        if let Some(guard) = endpoints.get(&runtime).and_then(Weak::upgrade).filter(alive) {
            return Ok(Self(guard));
        }
        let endpoint = Self::new()?;
        endpoints.retain(|_, guard| guard.strong_count() > 0);
        endpoints.insert(runtime, Arc::downgrade(&endpoint.0));
        Ok(endpoint)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    fn start(socket: Socket, limits: Limits) -> io::Result<Self> {
        Self::start_recorded(socket, limits, Recording::default())
    }

    fn start_recorded(socket: Socket, limits: Limits, recording: Recording) -> io::Result<Self> {
        let (shared, _task) = driver::start(socket, limits, None, recording)?;
        let source = Source::new();
        source.set_nodes([Arc::downgrade(&shared)]);
        Ok(Self(Arc::new(Guard(shared, source))))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.advance(Stage::Leaving);
    }
}

impl fmt::Debug for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientEndpoint({})", self.local_addr())
    }
}
