//! A server that runs.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use stubborn_core::node::Load;
use stubborn_tls::CurrentIdentity;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

use super::access::AccessFile;
use super::error::ServeError;
use super::permissions::Permissions;
use super::services::Before;
use crate::driver::{Group, Shared, Stage, Worker};
use crate::health::Health;
use crate::metrics::{SnapshotReply, Source};
use crate::security::{Identity, IdentityFiles, SecurityError};

/// A server that runs. Dropping it stops the server at once: clients are told, handlers that have
/// not ended are dropped. [`drain`](Self::drain) is the orderly way.
pub struct ServerHandle {
    workers: Vec<RunningWorker>,
    /// Set if there are several workers.
    group: Option<Arc<Group>>,
    steered: bool,
    source: Arc<Source>,
    /// How its services are.
    health: Health,
    drain_timeout: Duration,
    /// Who the server is now, wherever it listens.
    identities: Arc<Identities>,
    /// What stands before its handlers.
    before: Arc<Before>,
    /// Look for renewed certificates and permissions.
    watching: Vec<AbortHandle>,
    /// Where gRPC is answered.
    #[cfg(feature = "grpc")]
    door: Option<crate::grpc::OpenDoor>,
    /// Where Prometheus is answered.
    #[cfg(feature = "prometheus")]
    exporter: Option<crate::metrics::Exporter>,
}

/// A worker and how its end is waited for.
struct RunningWorker {
    shared: Arc<Shared>,
    end: Option<End>,
}

enum End {
    Task(JoinHandle<()>),
    Thread(oneshot::Receiver<()>),
}

/// What one worker of a server holds and does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Connections it has.
    pub connections: usize,
    /// Sessions it remembers.
    pub sessions: usize,
    /// Datagrams for it that another worker received and handed over, since the start. Few, where
    /// the kernel steers.
    pub forwarded: u64,
    /// How many calls it runs at once, how many wait, and how many it has refused.
    pub load: Load,
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
    pub(super) fn one(
        shared: Arc<Shared>,
        task: JoinHandle<()>,
        source: Arc<Source>,
        drain_timeout: Duration,
    ) -> Self {
        source.set_nodes([Arc::downgrade(&shared)]);
        let worker = RunningWorker { shared, end: Some(End::Task(task)) };
        Self {
            workers: vec![worker],
            group: None,
            steered: true,
            source,
            health: Health::new(),
            drain_timeout,
            identities: Arc::default(),
            before: Arc::default(),
            watching: Vec::new(),
            #[cfg(feature = "grpc")]
            door: None,
            #[cfg(feature = "prometheus")]
            exporter: None,
        }
    }

    /// # Panics
    /// If there is no worker.
    pub(super) fn several(
        group: Arc<Group>,
        workers: Vec<Worker>,
        steered: bool,
        source: Arc<Source>,
        drain_timeout: Duration,
    ) -> Self {
        assert!(!workers.is_empty(), "a server without workers");
        source.set_nodes(workers.iter().map(|worker| Arc::downgrade(&worker.shared)));
        let running =
            |Worker { shared, ended }| RunningWorker { shared, end: Some(End::Thread(ended)) };
        let workers = workers.into_iter().map(running).collect();
        Self {
            workers,
            group: Some(group),
            steered,
            source,
            health: Health::new(),
            drain_timeout,
            identities: Arc::default(),
            before: Arc::default(),
            watching: Vec::new(),
            #[cfg(feature = "grpc")]
            door: None,
            #[cfg(feature = "prometheus")]
            exporter: None,
        }
    }

    /// The nodes of its workers.
    #[cfg(feature = "grpc")]
    pub(crate) fn nodes(&self) -> Vec<Arc<Shared>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.shared)).collect()
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn set_door(&mut self, door: crate::grpc::OpenDoor) {
        if let Some(current) = door.identity() {
            self.identities.add(current);
        }
        self.door = Some(door);
    }

    #[cfg(feature = "prometheus")]
    pub(super) fn set_exporter(&mut self, exporter: crate::metrics::Exporter) {
        self.exporter = Some(exporter);
    }

    /// Where Prometheus is told what the server counts, if it is, with the port that the system chose.
    #[cfg(feature = "prometheus")]
    pub fn prometheus_addr(&self) -> Option<SocketAddr> {
        self.exporter.as_ref().map(crate::metrics::Exporter::local_addr)
    }

    pub(super) fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// By this the application says how its services are. It is what was given to
    /// [`ServerBuilder::health`](crate::ServerBuilder::health).
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The same server, known by this, which files may renew.
    pub(super) fn identified(
        mut self,
        current: &Arc<CurrentIdentity>,
        files: Option<IdentityFiles>,
    ) -> Self {
        self.identities.add(current);
        let identities = Arc::clone(&self.identities);
        let watch = |files: IdentityFiles| {
            tokio::spawn(files.watch(move |identity| identities.replace(identity))).abort_handle()
        };
        self.watching.extend(files.map(watch));
        self
    }

    /// The same server, with this before its handlers, which a file may change.
    pub(super) fn guarded(mut self, before: Arc<Before>, access: Option<AccessFile>) -> Self {
        self.before = Arc::clone(&before);
        let watch = |file: AccessFile| {
            tokio::spawn(file.watch(move |access| before.gate.give(access))).abort_handle()
        };
        self.watching.extend(access.map(watch));
        self
    }

    /// Goes by these permissions from the next call on, over datagrams and gRPC. Calls and streams that
    /// were let in before go on.
    ///
    /// # Errors
    /// [`ServeError::Permissions`] if a rule names what the server does not have, or two name the same:
    /// the permissions of before stay.
    pub fn authorize(&self, permissions: &Permissions) -> Result<(), ServeError> {
        self.before.gate.permit(permissions).map_err(ServeError::Permissions)
    }

    /// Proves to be this from the next handshake on, over datagrams and gRPC. Connections that are there
    /// stay as they are.
    ///
    /// # Errors
    /// If certificate and key do not belong together, or cannot be used: the identity of before stays.
    pub fn reload(&self, identity: &Identity) -> Result<(), SecurityError> {
        self.identities.replace(identity)
    }

    /// The address that the server listens on, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.workers[0].shared.local
    }

    /// Sessions that the server remembers.
    pub fn sessions(&self) -> usize {
        self.worker_stats().iter().map(|worker| worker.sessions).sum()
    }

    /// Whether every datagram reaches its worker without another one's help.
    pub fn is_steered(&self) -> bool {
        self.steered
    }

    /// What each worker holds and does.
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        let stats = |(index, worker): (usize, &RunningWorker)| {
            let looked = worker.shared.look(|state| (state.node.footprint(), state.node.load()));
            let (held, load) = looked.unwrap_or_default();
            WorkerStats {
                connections: held.connections,
                sessions: held.sessions,
                forwarded: self.group.as_ref().map_or(0, |group| group.forwarded(index)),
                load,
            }
        };
        self.workers.iter().enumerate().map(stats).collect()
    }

    /// What the server has counted since it started, what it holds, and its links, at most so many one by
    /// one. Looks at every connection, under the lock of its worker: not to be asked more often than a
    /// few times a second where there are tens of thousands.
    pub fn metrics(&self, links: usize) -> SnapshotReply {
        self.source.snapshot(links)
    }

    /// Ready when the server has ended without being asked to: a worker has panicked, and what it
    /// knew of its sessions is gone. The other workers end then too, so that clients learn at once
    /// that the server has died. The panic's own message is where the program's panics are told.
    pub async fn failed(&self) {
        // Whichever fails, the others are told to leave.
        let mut stage = self.workers[0].shared.stage.subscribe();
        let _ = stage.wait_for(|stage| *stage >= Stage::Leaving).await;
    }

    /// Waits for `shutdown`, then drains; or for the server's failure.
    pub(super) async fn until(
        self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<DrainReport, ServeError> {
        let mut failed = Box::pin(self.failed());
        let mut shutdown = std::pin::pin!(shutdown);
        let whole = std::future::poll_fn(|cx| match shutdown.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => failed.as_mut().poll(cx).map(|()| false),
        });
        let whole = whole.await;
        drop(failed);
        if whole {
            return Ok(self.drain().await);
        }
        self.stop().await;
        Err(ServeError::Failed)
    }

    /// Refuses new sessions, tells clients to go elsewhere, lets calls end, and leaves when every
    /// kept reply is released or at the drain timeout.
    pub async fn drain(mut self) -> DrainReport {
        self.health.drain();
        for worker in &self.workers {
            worker.shared.change(|state, now| {
                state.draining = true;
                state.node.drain(now);
            });
        }
        let drained = async {
            for worker in &self.workers {
                let mut stage = worker.shared.stage.subscribe();
                // An error means that the worker is gone, and with it what was to be drained.
                let _ = stage.wait_for(|stage| *stage >= Stage::Drained).await;
            }
        };
        #[cfg(feature = "grpc")]
        let drained = async {
            match &self.door {
                Some(door) => drop(tokio::join!(drained, door.drain())),
                None => drained.await,
            }
        };
        let complete = tokio::time::timeout(self.drain_timeout, drained).await.is_ok();
        let dropped = |worker: &RunningWorker| {
            worker.shared.look(|state| {
                // What a keeper has is running, or about to.
                state.node.executing() + state.commands
            })
        };
        let dropped_handlers: usize = self.workers.iter().filter_map(dropped).sum();
        #[cfg(feature = "grpc")]
        let dropped_handlers =
            dropped_handlers + self.door.as_ref().map_or(0, crate::grpc::OpenDoor::executing);
        self.advance(Stage::Leaving);
        self.ended().await;
        DrainReport { complete, dropped_handlers }
    }

    /// Stops at once and tells the clients.
    pub async fn stop(mut self) {
        self.advance(Stage::Leaving);
        self.ended().await;
    }

    /// Stops as if the process had died: clients are told nothing and the port is free again. For
    /// tests of what clients then see.
    pub async fn kill(mut self) {
        self.advance(Stage::Killed);
        self.ended().await;
    }

    fn advance(&self, stage: Stage) {
        #[cfg(feature = "grpc")]
        if let Some(door) = &self.door {
            door.close();
        }
        for worker in &self.workers {
            worker.shared.advance(stage);
        }
    }

    async fn ended(&mut self) {
        for worker in &mut self.workers {
            // An error is a panic of the driver or the end of the runtime: ended as well.
            match worker.end.take() {
                Some(End::Task(task)) => drop(task.await),
                Some(End::Thread(ended)) => drop(ended.await),
                None => {}
            }
        }
    }
}

/// Who a server is now: over datagrams, and at its door.
#[derive(Default)]
struct Identities(Mutex<Vec<Arc<CurrentIdentity>>>);

impl Identities {
    fn add(&self, current: &Arc<CurrentIdentity>) {
        self.all().push(Arc::clone(current));
    }

    /// What one of them refuses all do, so that none is left behind.
    fn replace(&self, identity: &Identity) -> Result<(), SecurityError> {
        self.all().iter().try_for_each(|current| Ok(current.replace(identity.tls.clone())?))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<CurrentIdentity>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.watching.iter().for_each(AbortHandle::abort);
        self.advance(Stage::Leaving);
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerHandle({})", self.local_addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Server;

    async fn start(workers: usize) -> ServerHandle {
        let identity = Identity::self_signed(["localhost"]).unwrap();
        Server::bind("127.0.0.1:0").identity(identity).workers(workers).start().await.unwrap()
    }

    #[tokio::test]
    async fn a_worker_that_panics_ends_the_server_at_once_with_an_error() {
        for workers in 1..=3 {
            let server = start(workers).await;
            let last = server.workers.last().unwrap().shared.clone();
            let ended = server.until(std::future::pending());
            last.panic_driver();
            assert!(matches!(ended.await, Err(ServeError::Failed)));
        }
    }

    #[tokio::test]
    async fn a_server_that_is_asked_to_end_has_not_failed() {
        let server = start(2).await;
        assert!(server.until(async {}).await.unwrap().complete);
    }
}
