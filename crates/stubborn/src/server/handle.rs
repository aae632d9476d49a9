//! A server that runs.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::driver::{Shared, Stage};

/// A server that runs. Dropping it stops the server at once: clients are told, handlers that have
/// not ended are dropped. [`drain`](Self::drain) is the orderly way.
pub struct ServerHandle {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    drain_timeout: Duration,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Whether every request was answered and every kept reply released. If not, the drain timeout
    /// ended it.
    pub complete: bool,
    /// Handlers that had not ended and were dropped.
    pub dropped_handlers: usize,
}

impl ServerHandle {
    pub(super) fn new(shared: Arc<Shared>, task: JoinHandle<()>, drain_timeout: Duration) -> Self {
        Self { shared, task: Some(task), drain_timeout }
    }

    /// The address that the server listens on, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Sessions that the server remembers.
    pub fn sessions(&self) -> usize {
        self.shared.look(|state| state.node.sessions()).unwrap_or(0)
    }

    /// Refuses new sessions, tells clients to go elsewhere, lets calls end, and leaves when every
    /// kept reply is released or at the drain timeout.
    pub async fn drain(mut self) -> DrainReport {
        self.shared.change(|state, now| state.node.drain(now));
        let mut stage = self.shared.stage.subscribe();
        let drained = stage.wait_for(|stage| *stage >= Stage::Drained);
        let complete = tokio::time::timeout(self.drain_timeout, drained).await.is_ok();
        let dropped_handlers = self.shared.look(|state| state.handlers.len()).unwrap_or(0);
        self.shared.advance(Stage::Leaving);
        self.ended().await;
        DrainReport { complete, dropped_handlers }
    }

    /// Stops at once and tells the clients.
    pub async fn stop(mut self) {
        self.shared.advance(Stage::Leaving);
        self.ended().await;
    }

    /// Stops as if the process had died: clients are told nothing and the port is free again. For
    /// tests of what clients then see.
    pub async fn kill(mut self) {
        self.shared.advance(Stage::Killed);
        self.ended().await;
    }

    async fn ended(&mut self) {
        if let Some(task) = self.task.take() {
            // An error is a panic of the driver or the end of the runtime: ended as well.
            let _ = task.await;
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.shared.advance(Stage::Leaving);
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerHandle({})", self.local_addr())
    }
}
