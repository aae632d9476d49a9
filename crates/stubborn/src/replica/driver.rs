//! Drives a node of a group over a real socket and a real disk: one task, on a thread of its own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

use stubborn_core::limits::MAX_DATAGRAM;
use stubborn_core::node::{Event, IncomingRequest, NodeConfig};
use stubborn_core::service::{Answer, Call, Clock, Encoded, Metadata, MethodId, Registry, Status};
use stubborn_core::time::{Duration, Instant, earliest};
use stubborn_core::transport::endpoint::{EndpointConfig, Received};
use stubborn_group::Served;
use stubborn_group::node::{GroupConfig, GroupEvent, GroupNode, Peer};
use stubborn_group::replica::{Replica, Roster, Settings};
use stubborn_group::replication::{NodeId, Role, Write};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};

use super::backup::{self, Backup};
use super::builder::{self, Plan};
use super::deferral::Deferral;
use super::disk::{Disk, Progress};
use super::error::ReplicaError;
use super::handle::{Control, Renewal, ReplicaHandle};
use crate::datagram::{ReceiveBuffers, Socket, bind_group};
use crate::driver::{
    GLANCE, LONGEST_FOR_COMMITS, NodeClock, Outgoing, Patience, Timer, yield_to_others,
};
use crate::group::{BackupReply, BackupRequest, Role as ToldRole, StatusReply};
use crate::metrics::{self, Ending, Gathering, MOST_LINKS, Meters, MetricsFor, SnapshotReply};
use crate::server::ServeError;
use crate::steps::{self, CallRequest};

/// What is asked of a node about one call.
const TRACE: &str = "stubborn.trace.v1.Trace/Call";

/// Receives per system call.
const BATCH: usize = 32;

/// Rounds of receiving and sending before other tasks of the thread get their turn.
const ROUNDS: usize = 16;

/// The pause before a name is looked up again that was not found.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// How old what `status` tells may be.
const FRESH: Duration = Duration::from_millis(20);

/// How long what only says that something arrived waits for something that it can leave with: about as
/// long as a commit takes on a good disk.
const RECEIPTS_WAIT: Duration = LONGEST_FOR_COMMITS;

/// The name that the certificates of all members bear, by which they are called.
pub(super) const SHARED_NAME: &str = "node.stubborn";

/// The name that the certificate of a member bears.
pub(super) fn member_name(node: u64) -> String {
    format!("node-{node}.stubborn")
}

/// Starts a replica's thread, and waits until it listens.
pub(super) async fn start(plan: Plan) -> Result<ReplicaHandle, ReplicaError> {
    let control = Arc::clone(&plan.control);
    let renewal = Renewal::of(&plan)?;
    let door = Arc::clone(&plan.door);
    let (report, ready) = oneshot::channel();
    let (end, ended) = watch::channel(false);
    let told = Arc::clone(&control);
    thread::Builder::new()
        .name(format!("stubborn-node-{}", plan.node.get()))
        .spawn(move || {
            // Told last, after everything that the thread held is gone, also when it panics.
            let _end = End(end, told);
            run(plan, report);
        })
        .map_err(ServeError::Worker)?;
    let local = ready.await.map_err(|_| ReplicaError::Stopped("its thread panicked".into()))??;
    Ok(ReplicaHandle::new(control, local, ended, renewal, door))
}

struct End(watch::Sender<bool>, Arc<Control>);

impl Drop for End {
    fn drop(&mut self) {
        if thread::panicking() {
            let why = "it panicked (its message stands above)";
            self.1.fail(ReplicaError::Stopped(why.into()));
        }
        self.0.send_replace(true);
    }
}

fn run(plan: Plan, report: oneshot::Sender<Result<std::net::SocketAddr, ReplicaError>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(report.send(Err(ServeError::Worker(error).into()))),
    };
    let driver = {
        let _context = runtime.enter();
        match Driver::new(plan) {
            Ok(driver) => driver,
            Err(error) => return drop(report.send(Err(error))),
        }
    };
    let control = Arc::clone(&driver.control);
    let _ = report.send(Ok(driver.socket.local_addr()));
    if let Err(error) = runtime.block_on(driver) {
        control.fail(error);
    }
}

struct Driver {
    node: GroupNode,
    clock: NodeClock,
    socket: Socket,
    buffers: ReceiveBuffers,
    received: Vec<Received>,
    outgoing: Outgoing,
    timer: Timer,
    patience: Patience,
    disk: Option<Disk>,
    /// What was not handed to the disk yet.
    writes: Vec<(u64, Write)>,
    /// It waits until it is seen that nothing else has come.
    writes_wait: bool,
    /// Until when they may wait, of a leader.
    deferral: Deferral,
    write_by: Option<Instant>,
    id: NodeId,
    /// What is durable, as far as the node knows.
    progress: Progress,
    registry: Registry,
    requests: Vec<IncomingRequest>,
    /// Where members are whose names were looked up.
    found: (UnboundedSender<Found>, UnboundedReceiver<Found>),
    control: Arc<Control>,
    meters: Meters,
    describes: Describes,
    /// Backups that were begun.
    backups: u64,
    /// When `status` has to be told anew.
    stale_at: Instant,
}

/// A member, the name that was looked up, and where it is.
type Found = (NodeId, String, std::net::SocketAddr);

/// What `status` tells that never changes.
struct Describes {
    group: u64,
    node: u64,
    services: Vec<String>,
}

impl Driver {
    /// Must be called in the runtime that is to drive the socket.
    fn new(plan: Plan) -> Result<Self, ReplicaError> {
        let Plan { group, node: id, listen, tls, peers, machines, .. } = plan;
        let taken = |error| ServeError::Bind(listen.to_string(), error);
        let mut bound = bind_group(listen, 1, false).map_err(taken)?;
        let socket = bound.sockets.pop().expect("a group has a socket");
        let socket = Socket::from_std(socket).map_err(taken)?;
        let endpoint = EndpointConfig {
            max_segments: socket.max_segments(),
            max_udp_payload: socket.max_udp_payload(),
            max_probe: MAX_DATAGRAM,
            recording: plan.recording.clone(),
            ..EndpointConfig::default()
        };
        let describes = Describes {
            group,
            node: id.get(),
            services: machines.descriptors().map(|d| d.name.to_owned()).collect(),
        };
        let peers = peers.into_iter().map(|peer| Peer {
            id: peer.node,
            address: peer.address,
            name: member_name(peer.node.get()),
            identity: Some(peer.key.0),
        });
        let config = GroupConfig {
            group,
            id,
            folder: plan.store.identity().folder,
            peers: peers.collect(),
            roster: Roster::of(plan.roster),
            name_of: |node| member_name(node.get()),
            node: NodeConfig { endpoint },
            server: Arc::new(tls),
            client: plan.client,
            settings: Settings { lease: plan.lease, ..Settings::default() },
            gate: Some(plan.door),
        };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| ServeError::Entropy(io::Error::other(error)))?;
        let clock = NodeClock::start();
        let mut meters = Meters::new(&plan.registry);
        machines.descriptors().for_each(|service| meters.served.know(service));
        let mut node = GroupNode::new(clock.now(), config, plan.durable, machines, seed)
            .map_err(|fault| ReplicaError::Stopped(fault.to_string()))?;
        node.count_served();
        node.hold_receipts(RECEIPTS_WAIT);
        let disk = Disk::start(plan.store).map_err(ServeError::Worker)?;
        Ok(Self {
            node,
            clock,
            socket,
            buffers: ReceiveBuffers::new(BATCH),
            received: Vec::new(),
            outgoing: Outgoing::new(),
            timer: Timer::new(clock),
            patience: Patience::of(LONGEST_FOR_COMMITS),
            disk: Some(disk),
            writes: Vec::new(),
            writes_wait: false,
            deferral: Deferral::default(),
            write_by: None,
            id,
            progress: Progress::default(),
            registry: plan.registry,
            requests: Vec::new(),
            found: unbounded_channel(),
            control: plan.control,
            meters,
            describes,
            backups: 0,
            stale_at: Instant::ZERO,
        })
    }
}

impl Future for Driver {
    type Output = Result<(), ReplicaError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for _ in 0..ROUNDS {
            let (stopped, asked) = this.control.look(cx.waker());
            if stopped {
                return Poll::Ready(this.leave());
            }
            if asked {
                this.tell_counted();
            }
            let received = this.receive(cx);
            if received {
                this.patience.received();
            }
            this.take_found(cx);
            this.note_written(cx.waker())?;
            this.digest()?;
            let mut flushed = this.poll_flush(cx);
            if this.write(received) || received {
                continue;
            }
            if !flushed.is_pending() && this.patience.stays_awake(this.clock.now()) {
                if this.glance() {
                    this.patience.received();
                    continue;
                }
                thread::yield_now();
                let _ = yield_to_others(cx);
                return Poll::Pending;
            }
            // What its disk is at is told soon, and takes them along.
            if this.node.is_holding_receipts() && !this.is_writing() {
                this.node.hold_receipts(Duration::ZERO);
                flushed = this.poll_flush(cx);
                this.node.hold_receipts(RECEIPTS_WAIT);
            }
            let at = earliest(this.node.poll_timeout(), this.write_by);
            // With a full socket, timers that want to send more have to wait.
            if flushed.is_pending() && at.is_some_and(|at| at <= this.clock.now()) {
                return Poll::Pending;
            }
            if this.timer.poll_due(cx, at).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Driver {
    /// Takes a batch from the socket. False if nothing had come.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let received = &mut self.received;
        let polled = self.socket.poll_receive(cx, &mut self.buffers, |chunk| {
            let (from, local, ecn) = (chunk.from, chunk.local, chunk.ecn);
            chunk.for_each(|data| received.push(Received { from, local, ecn, data }));
        });
        // A socket that fails for good goes silent, as a dead network does.
        matches!(polled, Poll::Ready(Ok(_)))
    }

    /// Looks for datagrams for a moment. True if some came.
    fn glance(&mut self) -> bool {
        let until = self.clock.now() + GLANCE;
        loop {
            let received = &mut self.received;
            self.socket.receive_now(&mut self.buffers, |chunk| {
                let (from, local, ecn) = (chunk.from, chunk.local, chunk.ecn);
                chunk.for_each(|data| received.push(Received { from, local, ecn, data }));
            });
            if !self.received.is_empty() {
                return true;
            }
            if self.clock.now() >= until {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Has written what is to be. A follower that has nothing else to do writes itself: what is to be
    /// said waits for that alone, and to hand it over would take as long again. A leader goes on: its
    /// followers' disks are enough, and as long as they are fast, its own comes after them. True if
    /// there is something new to be done.
    fn write(&mut self, received: bool) -> bool {
        self.write_by = None;
        if self.writes.is_empty() {
            return false;
        }
        let Some(disk) = &mut self.disk else { return false };
        let replica = self.node.replica();
        let leads = replica.leader() == Some(self.id);
        if leads {
            let now = self.clock.now();
            self.write_by = self.deferral.until(now, &self.writes, replica.committed());
            if self.write_by.is_some() {
                return false;
            }
        }
        self.deferral.end();
        if !leads && disk.may_write_here(&self.writes) {
            if received && !std::mem::replace(&mut self.writes_wait, true) {
                return true;
            }
            if !received && disk.write_here(&mut self.writes) {
                self.writes_wait = false;
                return true;
            }
        }
        self.writes_wait = false;
        disk.write(&mut self.writes);
        false
    }

    /// The disk's thread has something to do.
    fn is_writing(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.is_writing(self.progress.written))
    }

    /// Tells the node what is durable.
    fn note_written(&mut self, waker: &Waker) -> Result<(), ReplicaError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let progress = disk.progress(waker);
        if let Some(why) = progress.failed {
            return Err(ReplicaError::Disk(why));
        }
        if progress.written > self.progress.written {
            self.node.written(progress.written);
        }
        self.progress = progress;
        Ok(())
    }

    /// Lets the node work: input, timers, events, writes.
    fn digest(&mut self) -> Result<(), ReplicaError> {
        let now = self.clock.now();
        for datagram in self.received.drain(..) {
            self.node.handle(now, datagram);
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_timeout(now);
        }
        loop {
            while let Some(event) = self.node.poll_event(now) {
                match event {
                    GroupEvent::Node(Event::Request(request)) => self.requests.push(request),
                    // Nothing else begins calls or channels, and local answers are ready at once.
                    GroupEvent::Node(_) => {}
                    GroupEvent::Leader(_) => self.stale_at = now,
                    GroupEvent::LookUp(node, address) => self.look_up(node, address),
                    GroupEvent::Stopped => return Err(self.stopped()),
                }
            }
            if self.requests.is_empty() {
                break;
            }
            self.serve(now);
        }
        while let Some(write) = self.node.poll_write() {
            self.writes.push(write);
        }
        while let Some(Served { method, ending, took }) = self.node.poll_served() {
            self.meters.served.count(method, took, ending.into());
        }
        if now >= self.stale_at {
            self.stale_at = now + FRESH;
            self.control.stands(now, self.standing());
        }
        Ok(())
    }

    /// Looks a member's name up, aside, until it is found.
    fn look_up(&self, node: NodeId, name: String) {
        let found = self.found.0.clone();
        tokio::spawn(async move {
            loop {
                if let Ok(address) = builder::look_up(&name).await {
                    let _ = found.send((node, name, address));
                    return;
                }
                tokio::time::sleep(LOOK_UP_EVERY).await;
            }
        });
    }

    /// Takes what was looked up.
    fn take_found(&mut self, cx: &mut Context<'_>) {
        let now = self.clock.now();
        while let Poll::Ready(Some((node, name, address))) = self.found.1.poll_recv(cx) {
            self.node.found(now, node, &name, address);
        }
    }

    fn stopped(&self) -> ReplicaError {
        let fault = self.node.fault().map(ToString::to_string);
        ReplicaError::Stopped(fault.unwrap_or_else(|| "it does not say why".into()))
    }

    /// Answers what is not replicated: reflection and status.
    fn serve(&mut self, now: Instant) {
        self.control.stands(now, self.standing());
        let mut requests = std::mem::take(&mut self.requests);
        for request in requests.drain(..) {
            let IncomingRequest { key, method, kind, call, .. } = request;
            if method == MethodId::of(backup::METHOD) && begins_backup(&call) {
                let state = self.node.freeze();
                let replica = self.node.replica();
                self.backups += 1;
                // Numbers of an earlier process are not used again.
                let number = replica.life().wrapping_add(self.backups).max(1);
                let head = head_of_backup(&self.describes, number, replica);
                self.control.hold(Backup::new(now, head, &state));
            }
            if method == MethodId::of(metrics::METHOD) {
                let counted = self.counted();
                self.control.counted(counted);
            }
            if method == MethodId::of(TRACE) {
                let answer = self.trace(now, &call);
                self.node.answer(now, key, answer);
                continue;
            }
            let (message, mut context) = call.into_parts();
            context.clock = Clock::standing(now);
            let call = crate::Call::new(message, context);
            let answer = match self.registry.dispatch(method, kind, call) {
                Err(answer) => answer,
                Ok(mut handling) => {
                    match handling.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(answer) => answer,
                        Poll::Pending => {
                            Answer::Status(Status::internal("a local answer is not ready"))
                        }
                    }
                }
            };
            let took = self.clock.now().since(now);
            self.meters.served.count(method, took, Ending::of_answer(&answer));
            self.node.answer(now, key, answer);
        }
        self.requests = requests;
    }

    /// Tells who has asked through the handle.
    fn tell_counted(&mut self) {
        let counted = self.counted();
        for asked in self.control.take_asked() {
            let _ = asked.send(counted.clone());
        }
    }

    fn counted(&mut self) -> SnapshotReply {
        self.meters.served.set_in_flight(self.node.in_flight());
        let mut all = Gathering::new(MOST_LINKS);
        all.add(self.node.node(), &self.meters);
        #[cfg_attr(not(feature = "grpc"), allow(unused_mut))]
        let mut told = all.tell(Duration::from_nanos(self.clock.now().as_nanos()));
        #[cfg(feature = "grpc")]
        {
            told.grpc = self.control.door_traffic();
        }
        told
    }

    /// What happened to a call here.
    fn trace(&self, now: Instant, call: &Call<Encoded>) -> Answer {
        let told = || {
            MetricsFor::Known.admit(&call.context().peer)?;
            let method = MethodId::of(TRACE);
            let request = call.message().decode::<CallRequest>(method);
            let request = request.map_err(|_| Status::invalid_argument("malformed"))?;
            let steps = self.node.call_steps(steps::name_of(&request)?);
            let mut reply = steps::reply(now, true, &steps);
            reply.node = self.describes.node;
            reply.leader = self.node.replica().leader().map_or(0, NodeId::get);
            Ok::<_, Status>(Encoded::new(method, &reply))
        };
        match told() {
            Ok(reply) => Answer::Reply(reply, Metadata::new()),
            Err(status) => Answer::Status(status),
        }
    }

    fn standing(&self) -> StatusReply {
        let standing = self.node.standing();
        let status = standing.consensus;
        let millis = |at: Instant| at.as_nanos() / 1_000_000;
        let role = match status.role {
            Role::Follower => ToldRole::Follower,
            Role::Candidate => ToldRole::Candidate,
            Role::Leader => ToldRole::Leader,
        };
        StatusReply {
            group: self.describes.group,
            node: self.describes.node,
            role: role.into(),
            leader: status.leader.map_or(0, |leader| leader.get()),
            term: status.term,
            last: status.last.index,
            committed: status.committed,
            applied: standing.applied,
            snapshot: standing.snapshot,
            sessions: standing.sessions as u64,
            pending: standing.pending as u64,
            log_time_ms: millis(standing.time),
            uptime_ms: millis(self.clock.now()),
            voters: standing.members.voters.iter().map(|node| node.get()).collect(),
            learners: standing.members.learners.iter().map(|node| node.get()).collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            services: self.describes.services.clone(),
            syncs: self.progress.syncs,
            writes: self.progress.writes,
        }
    }

    /// Sends all that the node has to send. Pending if the socket is full.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { outgoing, clock, node, socket, .. } = self;
        outgoing.poll_flush(cx, socket, |outgoing| {
            let now = clock.now();
            outgoing.take(|bytes| node.poll_transmit(now, bytes));
        })
    }

    /// Tells peers and clients, and closes the disk.
    fn leave(&mut self) -> Result<(), ReplicaError> {
        let now = self.clock.now();
        self.node.close(now);
        let cx = &mut Context::from_waker(Waker::noop());
        // What a full socket does not take now is lost: the others learn it by their timers.
        let _ = self.poll_flush(cx);
        if let Some(disk) = &mut self.disk {
            disk.write(&mut self.writes);
        }
        let failed = self.disk.take().and_then(|disk| disk.finish().failed);
        failed.map_or(Ok(()), |why| Err(ReplicaError::Disk(why)))
    }
}

fn begins_backup(call: &Call<Encoded>) -> bool {
    let request = call.message().decode::<BackupRequest>(MethodId::of(backup::METHOD));
    request.is_ok_and(|request| request.backup == 0)
}

fn head_of_backup(describes: &Describes, backup: u64, replica: &Replica) -> BackupReply {
    let (at, members) = (replica.applied_at(), replica.standing().members);
    BackupReply {
        backup,
        group: describes.group,
        node: describes.node,
        index: at.index,
        term: at.term,
        voters: members.voters.iter().map(|node| node.get()).collect(),
        learners: members.learners.iter().map(|node| node.get()).collect(),
        ..BackupReply::default()
    }
}
