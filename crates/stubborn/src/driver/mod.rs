//! Drives a node over a real socket: one tokio task per socket.
//!
//! The order of things in a poll is what makes small calls cheap: receive a batch; let the node
//! digest it; start handlers and answer those that are ready at once, so that the reply carries
//! the acknowledgement; let callers that were woken run first, so that their next calls ride along;
//! then send, in as few system calls as possible.

mod clock;
mod handler;
mod mailbox;
mod members;
mod outgoing;
mod patience;
#[cfg(feature = "grpc")]
mod places;
mod shared;
mod streams;
mod tasks;
mod timer;
mod together;
mod turn;
mod waiters;
mod workers;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use stubborn_core::ahead::read_ahead_at;
use stubborn_core::limits::{Limits, MAX_DATAGRAM};
use stubborn_core::node::{
    Event, Finding, IncomingQuery, IncomingRequest, Node, NodeConfig, RequestKey, RequestKind,
    ServerConfig, SessionCommand, StreamKey,
};
use stubborn_core::service::{Clock, Port};
use stubborn_core::session::CallId;
use stubborn_core::time::{Duration, Instant, earliest};
use stubborn_core::transport::endpoint::{EndpointConfig, Received};
use stubborn_core::transport::record::Recording;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) use clock::NodeClock;
pub(crate) use handler::start as start_handler;
pub(crate) use outgoing::Outgoing;
pub(crate) use patience::Patience;
#[cfg(feature = "replica")]
pub(crate) use patience::{GLANCE, LONGEST_FOR_COMMITS};
#[cfg(feature = "grpc")]
pub(crate) use places::Place;
pub use shared::ChannelStatus;
pub(crate) use shared::{ChannelState, Ended, Shared, Stage, State};
use streams::HandlerPort;
#[cfg(feature = "replica")]
pub(crate) use timer::Timer;
pub(crate) use waiters::{Waiter, WaiterKey};
pub(crate) use workers::{Group, MAX_WORKERS, Worker, start_workers};

use crate::datagram::{Chunk, ReceiveBuffers, Socket};
use crate::keeper::{COMMANDS, KeptCalls, ServerFront, SessionKeeper};
use crate::server::Services;
use handler::Handler;
use tasks::{Answers, Tasks};
#[cfg(not(feature = "replica"))]
use timer::Timer;
use workers::Member;

/// Receives per system call.
const BATCH: usize = 32;

/// Of what came at once, half is digested before what it led to is sent: then the peer works on the
/// answers to one half while this side digests the other. Less than this is not halved further, and
/// more would only fill caches; of small datagrams, as many connections have them, it takes more to do
/// so.
const LEAST_SHARE: usize = 2;
const MOST_SHARE: usize = 16;
const MOST_SMALL_SHARE: usize = 32;
const SMALL_SHARE_BYTES: usize = 24 << 10;

/// Batches that are taken in at once while calls wait, or after handlers had the thread for so long.
const CATCH_UP: usize = 32;
const LONG: Duration = Duration::from_millis(1);

/// Bytes of a task that is about to run: where it begins.
const TASK: usize = 768;

/// Rounds of receiving and sending before other tasks get their turn.
const ROUNDS: usize = 16;

/// How long closed channels may take to say goodbye to their servers before the socket is closed.
const LEAVE: Duration = Duration::from_secs(1);

/// After this time a message that a keeper could not take is to come again.
const PUSH_BACK: Duration = Duration::from_millis(50);

/// What the server half of a node is started with.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) config: ServerConfig,
    pub(crate) services: Arc<Services>,
    /// Set if sessions are not in the node.
    pub(crate) keeper: Option<Arc<dyn SessionKeeper>>,
}

/// Starts a node on a socket. The task ends when the node's stage says so.
pub(crate) fn start(
    socket: Socket,
    limits: Limits,
    server: Option<Serving>,
    recording: Recording,
) -> io::Result<(Arc<Shared>, JoinHandle<()>)> {
    let driver = Driver::new(socket, limits, server, NodeClock::start(), None, recording)?;
    let shared = Arc::clone(&driver.shared);
    Ok((shared, tokio::spawn(driver)))
}

/// The task that drives a node. It alone touches the socket; when it is dropped, the node is over.
struct Driver {
    shared: Arc<Shared>,
    services: Arc<Services>,
    socket: Arc<Socket>,
    buffers: ReceiveBuffers,
    /// Datagrams between the socket and the node; empty between polls.
    received: Vec<Received>,
    /// How many of them are digested before what they led to is sent.
    share: usize,
    outgoing: Outgoing,
    timer: Timer,
    patience: Patience,
    /// Callers were given their turn: now send.
    flush_due: bool,
    requests: VecDeque<IncomingRequest>,
    /// Requests wait for those that were answered just now.
    backlog: bool,
    /// When the node was fed last.
    fed: Instant,
    /// Handlers have had this thread for long since then.
    took_long: bool,
    /// Handlers had it since then, while nobody looked at the socket.
    away_since: Option<Instant>,
    cancelled: Vec<RequestKey>,
    answers: Answers,
    /// Handlers that were not ready and have no task of their own, as the others have elsewhere;
    /// `None` on a runtime whose other threads can run them meanwhile.
    tasks: Option<Tasks>,
    /// The node's clock, for handlers.
    clock: Clock,
    /// Questions that another worker answers.
    queries: Vec<IncomingQuery>,
    /// Callers whose calls have ended, to be woken.
    woken: Vec<Waker>,
    /// Calls that are under way beside theirs.
    under_way: usize,
    /// When to end at the latest, once that is wanted.
    leave_by: Option<Instant>,
    /// The peers were told that this is the end.
    left: bool,
    /// Its place among the server's workers, if there are several.
    member: Option<Member>,
    /// Set if sessions are not in the node.
    kept: Option<Kept>,
}

/// Sessions that are not in the node.
struct Kept {
    keeper: Arc<dyn SessionKeeper>,
    front: Arc<ServerFront>,
    /// What clients have said, on its way to the keeper.
    commands: Vec<Asked>,
    /// Everything that the keeper does for this node ends with it.
    tasks: JoinSet<()>,
}

/// What a client has said, and the call that it makes if that was not here already.
type Asked = (SessionCommand, Option<CallId>);

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..ROUNDS {
            if *this.shared.stage.borrow() == Stage::Killed {
                return Poll::Ready(());
            }
            // What callers want sent does not wait for those who hear of what has come now.
            let mut flushed = Poll::Ready(());
            if mem::take(&mut this.flush_due) {
                flushed = this.poll_flush(cx);
            }
            let received = !this.received.is_empty() || this.receive(cx);
            if received {
                this.patience.received();
            }
            let woke_callers = this.digest(cx);
            let more_handlers = this.poll_handlers(cx);
            if woke_callers {
                this.flush_due = true;
                return yield_to_others(cx);
            }
            if flushed.is_ready() {
                flushed = this.poll_flush(cx);
            }
            if *this.shared.stage.borrow() >= Stage::Leaving {
                let Some(leave_by) = this.leave_by else {
                    this.begin_leave();
                    continue;
                };
                if this.has_taken_leave(leave_by) {
                    return this.poll_leave(cx);
                }
            }
            if this.took_long && (received || more_handlers || this.backlog) {
                // Nothing is known of the socket before the runtime has looked at it.
                return yield_to_others(cx);
            }
            if received || more_handlers || this.backlog {
                continue;
            }
            if !flushed.is_pending() {
                if this.busy_receive(this.shared.busy_poll()) {
                    continue;
                }
                let now = this.shared.clock.now();
                let commit = || this.shared.lock().node.awaits_commit();
                if this.patience.stays_awake_for(now, commit) {
                    if this.busy_receive(patience::GLANCE) {
                        continue;
                    }
                    if this.patience.is_prolonged() {
                        // The replicas that it waits for may need this processor.
                        std::thread::yield_now();
                    }
                    return yield_to_others(cx);
                }
            }
            let at = this.next_due();
            // With a full socket, timers that want to send more have to wait.
            if flushed.is_pending() && at.is_some_and(|at| at <= this.shared.clock.now()) {
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

/// Lets whoever is ready run before the driver is polled again, also the runtime's main future,
/// which a task that merely wakes itself would overtake.
pub(crate) fn yield_to_others(cx: &mut Context<'_>) -> Poll<()> {
    let yielding = std::pin::pin!(tokio::task::yield_now());
    // It hands our waker to the runtime when it is first polled; nothing more is needed of it.
    yielding.poll(cx)
}

impl Driver {
    /// Must be called in the runtime that is to drive the socket.
    fn new(
        socket: Socket,
        limits: Limits,
        server: Option<Serving>,
        clock: NodeClock,
        member: Option<Member>,
        recording: Recording,
    ) -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let endpoint = EndpointConfig {
            limits,
            worker: member.as_ref().map_or(0, Member::number),
            max_segments: socket.max_segments(),
            max_udp_payload: socket.max_udp_payload(),
            max_probe: MAX_DATAGRAM,
            recording,
            ..EndpointConfig::default()
        };
        let one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        let (mut config, mut services, mut keeper) = (None, Arc::default(), None);
        if let Some(serving) = server {
            config = Some(serving.config);
            services = serving.services;
            keeper = serving.keeper;
        }
        let first = next_steer(seed[0]);
        let mut node = Node::new(NodeConfig { endpoint }, config, seed);
        node.steer_from(first);
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared::new(node, clock, Arc::clone(&socket), services.registry()));
        let kept = keeper.map(|keeper| {
            let (own, services) = (Arc::clone(&shared), Arc::clone(&services));
            let front = Arc::new(ServerFront::new(own, services, clock.handle()));
            let mut tasks = JoinSet::new();
            tasks.spawn(keeper.keep(front.clone()));
            Kept { keeper, front, commands: Vec::new(), tasks }
        });
        Ok(Self {
            shared,
            services,
            socket,
            buffers: ReceiveBuffers::new(BATCH),
            received: Vec::new(),
            share: LEAST_SHARE,
            outgoing: Outgoing::new(),
            timer: Timer::new(clock),
            patience: Patience::default(),
            flush_due: false,
            requests: VecDeque::new(),
            backlog: false,
            fed: Instant::ZERO,
            took_long: false,
            away_since: None,
            cancelled: Vec::new(),
            answers: Answers::default(),
            tasks: one_thread.then(Tasks::new),
            clock: clock.handle(),
            queries: Vec::new(),
            woken: Vec::new(),
            under_way: 0,
            leave_by: None,
            left: false,
            member,
            kept,
        })
    }

    /// Sends all that the node has to send. Pending if the socket is full.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { outgoing, shared, socket, .. } = self;
        outgoing.poll_flush(cx, socket, |outgoing| outgoing.take_shared(shared))
    }

    /// When something is due at the latest.
    fn next_due(&self) -> Option<Instant> {
        let mut state = self.shared.lock();
        let at = earliest(state.node.poll_timeout(), self.leave_by);
        state.armed = self.timer.fires(at);
        at
    }

    /// Looks for datagrams for so long, and lets nobody else run meanwhile. True if some came.
    fn busy_receive(&mut self, busy: Duration) -> bool {
        // Handlers that wait may wait for what this thread has to do next.
        let handlers_wait = self.tasks.as_ref().is_some_and(|tasks| !tasks.is_empty());
        if busy == Duration::ZERO || handlers_wait {
            return false;
        }
        let until = self.shared.clock.now() + busy;
        loop {
            let received = &mut self.received;
            self.socket.receive_now(&mut self.buffers, |chunk| take(chunk, received));
            if let Some(member) = &mut self.member {
                member.sort(&mut self.received);
            }
            if !self.received.is_empty() {
                self.set_share();
                return true;
            }
            // Somebody on another thread wants something, or it takes too long.
            if self.shared.lock().is_changed() || self.shared.clock.now() >= until {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Takes a batch from the socket, and what other workers have received. False if nothing had
    /// come.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let received = &mut self.received;
        let buffers = &mut self.buffers;
        let polled = self.socket.poll_receive(cx, buffers, |chunk| take(chunk, received));
        // A socket that fails for good goes silent, as a dead network does.
        let any = matches!(polled, Poll::Ready(Ok(_)));
        let mut handed_over = false;
        if let Some(member) = &mut self.member {
            member.sort(&mut self.received);
            handed_over = member.collect(cx.waker(), &mut self.received);
        }
        self.set_share();
        any || handed_over
    }

    fn set_share(&mut self) {
        self.share = share_of(&self.received);
    }

    /// Lets the node work: input, timers, events, handlers. True if callers were woken.
    fn digest(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut woke_callers, mut served) = (false, false);
        self.catch_up(cx);
        loop {
            // What came of one share is sent before the next one is digested.
            self.feed(cx.waker(), if served { 0 } else { self.share });
            woke_callers |= !self.woken.is_empty();
            self.wake_callers();
            self.cancel();
            self.ask_keeper();
            if self.requests.is_empty() && self.queries.is_empty() {
                // Nobody waits for what came of acknowledgements, or of parts of a large message:
                // all that has come is digested, and answered in large batches.
                if woke_callers || served || self.received.is_empty() {
                    return woke_callers;
                }
                continue;
            }
            served = true;
            self.serve();
            self.ask_others();
            if self.backlog {
                // What came meanwhile may matter more than what waits.
                return woke_callers;
            }
        }
    }

    /// Wakes callers whose calls have ended; if not all, the others when what these send has left.
    fn wake_callers(&mut self) {
        let all = self.woken.len();
        let turn = if self.is_one_thread() { turn::turn_of(all, self.under_way) } else { all };
        self.woken.drain(..turn).for_each(Waker::wake);
    }

    /// Whether callers and handlers have no other thread of the runtime to run on.
    fn is_one_thread(&self) -> bool {
        self.tasks.is_some()
    }

    /// While calls wait, or handlers take long, takes in all that has come before further ones are begun:
    /// what is left in the socket ages without anybody seeing it, and may matter more.
    fn catch_up(&mut self, cx: &mut Context<'_>) {
        if !self.backlog && !self.took_long {
            return;
        }
        // How old what has come is, nobody knows: as old as this, at the most.
        let away = if self.took_long { Some(self.fed) } else { None };
        self.took_long = false;
        self.away_since = away;
        for _ in 0..CATCH_UP {
            self.feed(cx.waker(), usize::MAX);
            if !self.receive(cx) {
                break;
            }
        }
        self.away_since = None;
    }

    fn feed(&mut self, waker: &Waker, share: usize) {
        self.backlog = false;
        let mut state = self.shared.lock();
        #[cfg(test)]
        assert!(!state.panics, "a panic that a test asked for");
        state.register(waker);
        let now = self.shared.clock.now();
        self.fed = now;
        let away = self.away_since.map_or(Duration::ZERO, |since| now.since(since));
        state.node.was_away(away);
        let share = share.min(self.received.len());
        state.node.handle_batch(now, self.received.drain(..share));
        if state.node.poll_timeout().is_some_and(|at| at <= now) {
            state.node.handle_timeout(now);
        }
        loop {
            // Nearly all events of a client; others are large to move.
            if let Some((key, result)) = state.node.poll_resolved(now) {
                let woken = state.settle_call(now, key, result);
                note_woken(&mut self.woken, woken);
                continue;
            }
            let known = self.requests.len();
            state.node.poll_requests(now, &mut self.requests);
            for request in self.requests.range(known..) {
                state.meters.served.request(request.key, request.method, now);
            }
            let Some(event) = state.node.poll_event(now) else { break };
            let woken = match event {
                Event::Resolved(key, result) => state.settle_call(now, key, result),
                Event::Reserved(key, result) => state.settle(key, Ended::Reservation(result)),
                Event::Outcome(key, result) => state.settle(key, Ended::Question(result)),
                Event::Channel(key, stubborn_core::node::ChannelEvent::Members(members)) => {
                    members::follow(&mut state, now, &self.shared, key, members);
                    None
                }
                Event::Channel(key, event) => {
                    if let Some(channel) = state.channels.get_mut(&key) {
                        channel.on_event(event);
                    }
                    None
                }
                Event::Readable(key) => state.streams.readable(key),
                Event::Writable(key) => state.streams.writable(key),
                Event::Request(request) => {
                    state.meters.served.request(request.key, request.method, now);
                    self.requests.push_back(request);
                    None
                }
                Event::Cancelled(key) => {
                    self.requests.retain(|request| request.key != key);
                    state.meters.served.cancelled(key, now);
                    state.streams.forget(StreamKey::Request(key));
                    match state.handlers.remove(&key) {
                        Some(handler) => handler.abort(),
                        // Dropped later: a handler is foreign code, and the lock is held.
                        None => self.cancelled.push(key),
                    }
                    None
                }
                #[cfg(feature = "grpc")]
                Event::Placed(key) => state.places.tell(key, Ok(())),
                #[cfg(feature = "grpc")]
                Event::Refused(key, why) => state.places.tell(key, Err(why)),
                // Without a door nobody asks for places.
                #[cfg(not(feature = "grpc"))]
                Event::Placed(_) | Event::Refused(..) => None,
                Event::Query(query) => {
                    self.queries.push(query);
                    None
                }
                Event::Command(command) => {
                    let Some(kept) = &mut self.kept else {
                        unreachable!("a node without a keeper has its sessions itself")
                    };
                    if state.draining || state.commands >= COMMANDS {
                        if let Some(message) = command.push_back(PUSH_BACK) {
                            state.node.tell(now, command.client(), message);
                        }
                    } else {
                        state.commands += 1;
                        let call = KeptCalls::begin(&mut state, now, &command);
                        kept.commands.push((command, call));
                    }
                    None
                }
                Event::Journal(key, entry) => {
                    if let Some(channel) = state.channels.get(&key) {
                        channel.write_down(entry);
                    }
                    None
                }
                Event::Drained => {
                    if self.kept.is_none() {
                        self.drained();
                    }
                    None
                }
            };
            note_woken(&mut self.woken, woken);
        }
        self.under_way = state.node.calls();
        state.others_woken = self.is_one_thread() && self.woken.len() > 1;
        // Outcomes are in the database: clients learn them at another server.
        if self.kept.is_some() && state.draining && state.commands == 0 {
            self.drained();
        }
    }

    fn drained(&self) {
        self.shared.stage.send_if_modified(|stage| {
            let running = *stage == Stage::Running;
            if running {
                *stage = Stage::Drained;
            }
            running
        });
    }

    /// Gives the keeper what clients have said.
    fn ask_keeper(&mut self) {
        let Some(Kept { keeper, front, commands, tasks }) = &mut self.kept else { return };
        while tasks.try_join_next().is_some() {}
        for (command, call) in commands.drain(..) {
            let ended = CountEnd(front.clone(), call);
            let asked = keeper.command(front.clone(), command);
            tasks.spawn(async move {
                let _ended = ended;
                asked.await;
            });
        }
        for query in self.queries.drain(..) {
            let (front, key) = (front.clone(), query.key);
            let asked = keeper.query(query);
            tasks.spawn(async move { front.answer(key, asked.await) });
        }
    }

    /// Has questions answered by the workers that keep their sessions. A lock is taken at a time,
    /// so that two workers that ask one another do not wait for ever.
    fn ask_others(&mut self) {
        for query in self.queries.drain(..) {
            let found = self.member.as_ref().map(|member| member.find(&query));
            let finding = found.unwrap_or(Finding::NOTHING);
            let mut state = self.shared.lock();
            state.node.answer_query(self.shared.clock.now(), query.key, finding);
        }
    }

    /// Starts the handlers of new requests without the lock, and hands in the answers of those that
    /// are ready at once, as most are: they go out with the acknowledgement of the request.
    fn serve(&mut self) {
        let clock = self.shared.clock;
        for request in self.requests.drain(..) {
            let IncomingRequest { key, method, kind, call, .. } = request;
            let stream = matches!(kind, RequestKind::Stream(_));
            let port =
                stream.then(|| -> Arc<dyn Port> { Arc::new(HandlerPort::new(&self.shared, key)) });
            let handle = &self.clock;
            let started = handler::start(&self.services, clock, handle, port, method, kind, call);
            match (started, &mut self.tasks) {
                (Ok(handler), Some(tasks)) => tasks.start(key, handler, &mut self.answers),
                (Ok(handler), None) => start_task(&self.shared, key, handler, &mut self.answers),
                (Err(refused), _) => {
                    self.answers.add(key, |answer| *answer = Some(refused));
                }
            }
        }
        self.hand_in_answers();
    }

    /// Polls handlers that were woken. True if further ones wait for the next round.
    fn poll_handlers(&mut self, cx: &Context<'_>) -> bool {
        let Some(tasks) = &mut self.tasks else { return false };
        let more = tasks.poll(cx.waker(), &mut self.answers);
        self.hand_in_answers();
        more
    }

    fn hand_in_answers(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        let now = self.shared.clock.now();
        for (key, answer) in self.answers.drain() {
            state.meters.served.answered(key, &answer, now);
            state.node.answer(now, key, answer);
            state.streams.forget(StreamKey::Request(key));
        }
        self.backlog = state.node.has_waiting();
        self.took_long = now.since(self.fed) >= LONG;
    }

    /// Drops the handlers of requests that nobody waits for.
    fn cancel(&mut self) {
        for key in self.cancelled.drain(..) {
            if let Some(tasks) = &mut self.tasks {
                tasks.cancel(key);
            }
        }
    }

    /// Closes every channel; they then say goodbye to their servers.
    fn begin_leave(&mut self) {
        let mut state = self.shared.lock();
        let now = self.shared.clock.now();
        state.close_channels(now);
        self.leave_by = Some(now + LEAVE);
    }

    /// Whether the servers know, or it takes too long.
    fn has_taken_leave(&self, leave_by: Instant) -> bool {
        let state = self.shared.lock();
        leave_by <= self.shared.clock.now() || state.node.links() == 0
    }

    /// Tells the peers and ends.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.left = true;
        {
            let mut state = self.shared.lock();
            let now = self.shared.clock.now();
            state.node.close(now);
        }
        // What a full socket does not take now is lost: the peers learn it by their timers.
        let _ = self.poll_flush(cx);
        Poll::Ready(())
    }
}

impl Driver {
    /// The runtime ends before this task: what can be said without waiting is said. A program whose
    /// `main` returns takes leave of its servers so.
    fn leave_at_once(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.begin_leave();
        let _ = self.poll_flush(&mut cx);
        let _ = self.poll_leave(&mut cx);
    }
}

impl Drop for Driver {
    /// The task has ended, or its runtime has, or the node has panicked.
    fn drop(&mut self) {
        let killed = *self.shared.stage.borrow() == Stage::Killed;
        if !self.left && !killed && !std::thread::panicking() {
            self.leave_at_once();
        }
        let woken = self.shared.lock().end();
        let stage = self.shared.stage.send_replace(Stage::Ended);
        if let Some(member) = &self.member {
            member.ended(stage);
        }
        self.woken.drain(..).chain(woken).for_each(Waker::wake);
    }
}

/// Counts the end of a message that a keeper had, also if its task is dropped.
struct CountEnd(Arc<ServerFront>, Option<CallId>);

impl Drop for CountEnd {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

/// A task is woken soon: begins to read it, which is who waits and the future that is polled then.
#[inline]
fn note_woken(all: &mut Vec<Waker>, woken: Option<Waker>) {
    if let Some(waker) = woken {
        read_ahead_at(waker.data().cast(), TASK);
        all.push(waker);
    }
}

/// How many of these datagrams to digest before what they led to is sent.
fn share_of(received: &[Received]) -> usize {
    let half = received.len().div_ceil(2);
    let mut bytes = 0;
    let small = received[..half.min(MOST_SMALL_SHARE)].iter().take_while(|datagram| {
        bytes += datagram.data.len();
        bytes <= SMALL_SHARE_BYTES
    });
    half.clamp(LEAST_SHARE, MOST_SHARE).max(small.count())
}

/// Takes datagrams out of a receive buffer.
fn take(chunk: Chunk<'_>, received: &mut Vec<Received>) {
    let (from, local, ecn) = (chunk.from, chunk.local, chunk.ecn);
    chunk.for_each(|data| received.push(Received { from, local, ecn, data }));
}

/// Where a node's client half begins to count through a server's workers. A process draws once and
/// counts on from there, so that its endpoints spread evenly, as the channels of one endpoint do.
fn next_steer(drawn: u8) -> u8 {
    static FIRST: OnceLock<u8> = OnceLock::new();
    static NODES: AtomicU8 = AtomicU8::new(0);
    FIRST.get_or_init(|| drawn).wrapping_add(NODES.fetch_add(1, Ordering::Relaxed))
}

/// Polls a handler for the first time; if it is not ready it gets a task of its own, which polls it
/// again, so that the waker of the first poll is never needed.
fn start_task(shared: &Arc<Shared>, key: RequestKey, mut handler: Handler, answers: &mut Answers) {
    let mut cx = Context::from_waker(Waker::noop());
    if !answers.add(key, |answer| handler.poll_into(&mut cx, answer)) {
        let mut state = shared.lock();
        // Under the lock, so that the task cannot end before it is known.
        let task = tokio::spawn(finish(Arc::clone(shared), key, handler));
        state.handlers.insert(key, task.abort_handle());
    }
}

/// A handler on a task of its own.
async fn finish(shared: Arc<Shared>, key: RequestKey, handler: Handler) {
    let answer = handler.await;
    shared.change(|state, now| {
        state.handlers.remove(&key);
        state.meters.served.answered(key, &answer, now);
        state.node.answer(now, key, answer);
        state.streams.forget(StreamKey::Request(key));
    });
}
