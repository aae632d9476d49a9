//! A replica that runs.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
#[cfg(feature = "grpc")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use stubborn_core::time::Instant;
use stubborn_tls::{ConfigError, CurrentIdentity, TlsClient};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::backup::{Backup, given_up};
use super::builder::Plan;
use super::door::Door;
use super::error::ReplicaError;
use crate::generated::stubborn::group::v1::{
    BackupReply, BackupRequest, ChangeMembersRequest, Group, MembersReply, MembersRequest,
    StatusReply, StatusRequest,
};
use crate::metrics::{Metrics, MetricsFor, SnapshotReply, SnapshotRequest, links_of};
use crate::security::{Fingerprint, Identity, IdentityFiles, SecurityError};
use crate::server::{AccessFile, Permissions, ServeError};
use crate::{Call, Status};

/// A replica that runs, on a thread of its own. Dropping it stops the replica: what it has promised
/// is on the disk.
pub struct ReplicaHandle {
    control: Arc<Control>,
    local: SocketAddr,
    /// Set when the thread has ended: nothing of the replica is left then.
    ended: watch::Receiver<bool>,
    renewal: Renewal,
    door: Arc<Door>,
    /// Look for renewed certificates and permissions.
    watching: Vec<AbortHandle>,
    /// Where gRPC is answered.
    #[cfg(feature = "grpc")]
    grpc: Option<Arc<crate::grpc::ReplicaDoor>>,
    /// Where Prometheus is answered.
    #[cfg(feature = "prometheus")]
    exporter: Option<crate::metrics::Exporter>,
}

/// What the handle and the thread share.
#[derive(Default)]
pub(crate) struct Control {
    state: Mutex<State>,
    /// Whether the replica knows who leads.
    led: watch::Sender<bool>,
    /// Tells what the door for gRPC has counted of its connections.
    #[cfg(feature = "grpc")]
    door_traffic: OnceLock<Box<dyn Fn() -> crate::metrics::Door + Send + Sync>>,
}

#[derive(Default)]
struct State {
    stop: bool,
    driver: Option<Waker>,
    standing: StatusReply,
    failure: Option<ReplicaError>,
    /// Who wants to know what was counted.
    asked: Vec<oneshot::Sender<SnapshotReply>>,
    /// What was counted when the driver began to answer who asks for it.
    counted: Option<SnapshotReply>,
    /// The state that somebody fetches.
    backup: Option<Backup>,
    /// When the driver looked last.
    now: Instant,
}

/// By what the identity of a replica is renewed, as a server and as a client of the others.
#[derive(Clone)]
pub(super) struct Renewal {
    server: Arc<CurrentIdentity>,
    client: Arc<TlsClient>,
    /// By which the others know it.
    key: Fingerprint,
    #[cfg(feature = "grpc")]
    grpc: Option<Arc<crate::grpc::ReplicaDoor>>,
}

impl Renewal {
    pub(super) fn of(plan: &Plan) -> Result<Self, ReplicaError> {
        let key = plan.identity.fingerprint().map_err(ServeError::from)?;
        let (server, client) = (plan.tls.identity().clone(), plan.client.clone());
        Ok(Self {
            server,
            client,
            key,
            #[cfg(feature = "grpc")]
            grpc: None,
        })
    }

    fn replace(&self, identity: &Identity) -> Result<(), SecurityError> {
        if identity.fingerprint()? != self.key {
            let why = "the other members know this node by the key of its first certificate: \
                       renew the certificate for the same key";
            return Err(ConfigError::Unusable(why.into()).into());
        }
        self.server.replace(identity.tls.clone())?;
        #[cfg(feature = "grpc")]
        if let Some(door) = &self.grpc {
            door.replace(identity)?;
        }
        Ok(self.client.replace_identity(identity.tls.clone())?)
    }
}

impl ReplicaHandle {
    /// Proves to be this from the next handshake on; connections stay. It is a renewed certificate for
    /// the key of before, by which the other members know the node.
    ///
    /// # Errors
    /// If it is one for another key, or cannot be used: the one of before stays.
    pub fn reload(&self, identity: &Identity) -> Result<(), SecurityError> {
        self.renewal.replace(identity)
    }

    /// Goes by these permissions from the next call on. Calls that were let in before run, and streams of
    /// reads are judged anew within half a second.
    ///
    /// # Errors
    /// [`ReplicaError::Settings`] if a rule names what the replica does not have, or two name the same:
    /// the permissions of before stay.
    pub fn authorize(&self, permissions: &Permissions) -> Result<(), ReplicaError> {
        self.door.permit(permissions).map_err(ReplicaError::Settings)
    }

    /// The same replica, whose certificate and permissions are looked for in these files.
    pub(super) fn watch(&mut self, files: Option<IdentityFiles>, access: Option<AccessFile>) {
        let renewal = self.renewal.clone();
        let watch = |files: IdentityFiles| {
            let replace = move |identity: &Identity| renewal.replace(identity);
            tokio::spawn(files.watch(replace)).abort_handle()
        };
        let door = Arc::clone(&self.door);
        let watch_access = |file: AccessFile| {
            tokio::spawn(file.watch(move |access| door.give_access(access))).abort_handle()
        };
        self.watching = files.map(watch).into_iter().chain(access.map(watch_access)).collect();
    }

    pub(super) fn new(
        control: Arc<Control>,
        local: SocketAddr,
        ended: watch::Receiver<bool>,
        renewal: Renewal,
        door: Arc<Door>,
    ) -> Self {
        Self {
            control,
            local,
            ended,
            renewal,
            door,
            watching: Vec::new(),
            #[cfg(feature = "grpc")]
            grpc: None,
            #[cfg(feature = "prometheus")]
            exporter: None,
        }
    }

    /// Answers gRPC at this door for as long as the replica runs.
    #[cfg(feature = "grpc")]
    pub(super) fn set_door(&mut self, door: crate::grpc::ReplicaDoor) {
        let door = Arc::new(door);
        let (closed, mut ended) = (Arc::clone(&door), self.ended.clone());
        tokio::spawn(async move {
            let _ = ended.wait_for(|ended| *ended).await;
            closed.close();
        });
        self.renewal.grpc = Some(Arc::clone(&door));
        self.grpc = Some(door);
    }

    #[cfg(feature = "prometheus")]
    pub(super) fn set_exporter(&mut self, bound: Option<crate::metrics::Bound>) {
        use crate::metrics::{USUAL_LINKS, prometheus_text};
        let (control, ended) = (Arc::clone(&self.control), self.ended.clone());
        let told = move || {
            let (control, ended) = (Arc::clone(&control), ended.clone());
            Box::pin(async move {
                let told = control.metrics(ended, USUAL_LINKS).await?;
                Some(prometheus_text(&told, Some(&control.standing())))
            }) as crate::BoxFuture<_>
        };
        self.exporter = bound.map(|bound| bound.open(Arc::new(told)));
    }

    /// Where Prometheus is told what the replica counts, if it is, with the port that the system chose.
    #[cfg(feature = "prometheus")]
    pub fn prometheus_addr(&self) -> Option<SocketAddr> {
        self.exporter.as_ref().map(crate::metrics::Exporter::local_addr)
    }

    /// The address that the replica listens on, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// How the replica stands.
    pub fn status(&self) -> StatusReply {
        self.control.standing()
    }

    /// What the replica has counted since it started, what it holds, and its links, at most so many one by
    /// one (256 at most): those to its clients and to the other members. Calls are those that its own
    /// clients have made: a command from when it came to when it was applied, a read from when it came to
    /// when it was answered. None are in flight here. `None` if the replica has ended.
    pub async fn metrics(&self, links: usize) -> Option<SnapshotReply> {
        self.control.metrics(self.ended.clone(), links).await
    }

    /// Ready when the replica has ended without being asked to, or was stopped.
    ///
    /// # Errors
    /// Why it has ended.
    pub async fn ended(&self) -> Result<(), ReplicaError> {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
        self.control.lock().failure.take().map_or(Ok(()), Err)
    }

    /// Stops the replica: its peers and clients are told, its disk is synced and closed. Calls that came
    /// over gRPC have a second to end before.
    ///
    /// # Errors
    /// If the replica had ended before, why.
    pub async fn stop(self) -> Result<(), ReplicaError> {
        #[cfg(feature = "grpc")]
        if let Some(door) = &self.grpc {
            door.drain().await;
        }
        self.control.stop();
        self.ended().await
    }

    /// Runs until `shutdown` is ready, then stops.
    ///
    /// # Errors
    /// At once when the replica ends without being asked to.
    pub async fn until(self, shutdown: impl Future<Output = ()>) -> Result<(), ReplicaError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut ended = Box::pin(self.ended());
        let early = std::future::poll_fn(|cx| match ended.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => shutdown.as_mut().poll(cx).map(|()| None),
        })
        .await;
        drop(ended);
        match early {
            Some(result) => result,
            None => self.stop().await,
        }
    }
}

impl Drop for ReplicaHandle {
    fn drop(&mut self) {
        self.watching.iter().for_each(AbortHandle::abort);
        self.control.stop();
    }
}

impl fmt::Debug for ReplicaHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaHandle").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the driver what was counted; `None` once it has ended.
    async fn metrics(
        &self,
        mut ended: watch::Receiver<bool>,
        links: usize,
    ) -> Option<SnapshotReply> {
        let (told, answer) = oneshot::channel();
        self.wake(|state| state.asked.push(told));
        let mut told = tokio::select! {
            told = answer => told.ok()?,
            _ = ended.wait_for(|ended| *ended) => return None,
        };
        told.links.truncate(links);
        Some(told)
    }

    fn stop(&self) {
        self.wake(|state| state.stop = true);
    }

    /// Changes the state and has the driver look at it.
    fn wake(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Whether the driver is to stop, and whether somebody asks; it is woken when that changes.
    pub(super) fn look(&self, driver: &Waker) -> (bool, bool) {
        let mut state = self.lock();
        match &mut state.driver {
            Some(known) => known.clone_from(driver),
            none => *none = Some(driver.clone()),
        }
        (state.stop, !state.asked.is_empty())
    }

    /// Who wants to know what was counted.
    pub(super) fn take_asked(&self) -> Vec<oneshot::Sender<SnapshotReply>> {
        std::mem::take(&mut self.lock().asked)
    }

    /// The next question for what was counted is answered by this.
    pub(super) fn counted(&self, counted: SnapshotReply) {
        self.lock().counted = Some(counted);
    }

    pub(super) fn fail(&self, failure: ReplicaError) {
        self.lock().failure.get_or_insert(failure);
    }

    pub(super) fn stands(&self, now: Instant, standing: StatusReply) {
        let leads = standing.leader != 0;
        self.led.send_if_modified(|led| std::mem::replace(led, leads) != leads);
        let mut state = self.lock();
        (state.standing, state.now) = (standing, now);
        state.backup.take_if(|backup| backup.is_stale(now));
    }

    /// Whether the replica knows who leads, now and from now on.
    #[cfg(feature = "grpc")]
    pub(crate) fn led(&self) -> watch::Receiver<bool> {
        self.led.subscribe()
    }

    /// There is a door, which tells so what it counts of its connections.
    #[cfg(feature = "grpc")]
    pub(crate) fn set_door_traffic(
        &self,
        traffic: impl Fn() -> crate::metrics::Door + Send + Sync + 'static,
    ) {
        let _ = self.door_traffic.set(Box::new(traffic));
    }

    /// What the door has counted of its connections, if there is one.
    #[cfg(feature = "grpc")]
    pub(super) fn door_traffic(&self) -> Option<crate::metrics::Door> {
        self.door_traffic.get().map(|traffic| traffic())
    }

    pub(super) fn hold(&self, backup: Backup) {
        self.lock().backup = Some(backup);
    }

    pub(super) fn standing(&self) -> StatusReply {
        self.lock().standing.clone()
    }
}

/// Answers `stubborn status` and `stubborn backup`.
pub(super) struct Board(pub(super) Arc<Control>);

impl Group for Board {
    async fn status(&self, _: Call<StatusRequest>) -> Result<StatusReply, Status> {
        Ok(self.0.standing())
    }

    async fn backup(&self, call: Call<BackupRequest>) -> Result<BackupReply, Status> {
        let mut state = self.0.lock();
        let now = state.now;
        let backup = state.backup.as_mut().ok_or_else(given_up)?;
        backup.piece(now, call.backup, call.offset)
    }

    async fn members(&self, _: Call<MembersRequest>) -> Result<MembersReply, Status> {
        Err(Status::internal("the group answers this itself"))
    }

    async fn change_members(&self, _: Call<ChangeMembersRequest>) -> Result<MembersReply, Status> {
        Err(Status::internal("the group answers this itself"))
    }
}

/// Answers `stubborn top`.
pub(super) struct Meter {
    pub(super) control: Arc<Control>,
    pub(super) who: MetricsFor,
}

impl Metrics for Meter {
    async fn snapshot(&self, call: Call<SnapshotRequest>) -> Result<SnapshotReply, Status> {
        let counted = self.control.lock().counted.take();
        self.who.admit(&call.context().peer)?;
        let mut counted = counted.ok_or_else(|| Status::internal("the driver counts first"))?;
        counted.links.truncate(links_of(&call));
        Ok(counted)
    }
}
