//! What callers, handlers and the driver of a node share: the node, and who waits for what.
//!
//! Callers change the node directly under the lock and then wake the driver: no queue lies between.
//! The lock is never held while anything is awaited or any foreign code runs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use stubborn_core::node::{
    CallKey, CallName, CallStep, ChannelEvent, ChannelKey, JournalEntry, Node, RequestKey,
    SessionTicket,
};
use stubborn_core::service::{CallError, CallState, IncomingReply, Method, Registry};
use stubborn_core::session::CallId;
use stubborn_core::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::clock::NodeClock;
use super::outgoing::Alone;
#[cfg(feature = "grpc")]
use super::places::Places;
use super::streams::StreamWakers;
use super::waiters::{Waiter, WaiterKey, Waiters};
use crate::datagram::Socket;
use crate::journal::Job;
use crate::keeper::KeptCalls;
use crate::metrics::{Ending, Meters};

/// A node and everything that hangs on it.
pub(crate) struct Shared {
    pub(crate) clock: NodeClock,
    pub(crate) local: SocketAddr,
    state: Mutex<State>,
    /// How long the driver looks for datagrams before it sleeps, in nanoseconds.
    busy_poll: AtomicU64,
    /// How far the node is on its way to its end.
    pub(crate) stage: watch::Sender<Stage>,
}

/// How far a node is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Running,
    /// Drained: every request answered, every kept reply released.
    Drained,
    /// To end as soon as what is queued was handed to the network.
    Leaving,
    /// To end as if the process had died: no more datagrams.
    Killed,
    /// No driver any more; nothing will happen.
    Ended,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) node: Node,
    pub(crate) waiters: Waiters,
    pub(crate) channels: HashMap<ChannelKey, ChannelState>,
    pub(crate) handlers: HashMap<RequestKey, AbortHandle>,
    /// Messages of clients that the keeper of the server's sessions has.
    pub(crate) commands: usize,
    /// The calls among them.
    pub(crate) kept_calls: KeptCalls,
    /// What comes for the keeper is pushed back from now on.
    pub(crate) draining: bool,
    pub(crate) streams: StreamWakers,
    #[cfg(feature = "grpc")]
    pub(super) places: Places,
    pub(crate) meters: Meters,
    pub(super) driver: Option<Waker>,
    /// When the driver wakes by itself.
    pub(super) armed: Option<Instant>,
    /// For callers that send by themselves, until the driver ends.
    socket: Option<Arc<Socket>>,
    pub(super) alone: Alone,
    /// Several callers have heard of replies just now, and are likely to call again together.
    pub(super) others_woken: bool,
    pub(super) ended: bool,
    /// The driver is to panic, as a bug in it would.
    #[cfg(test)]
    pub(super) panics: bool,
}

/// What a waiter is told.
#[derive(Debug)]
pub(crate) enum Ended {
    Call(Result<IncomingReply, CallError>),
    Reservation(Result<CallId, CallError>),
    Question(Result<CallState<IncomingReply>, CallError>),
    /// The node is gone.
    Gone,
}

/// What is known of a channel's way to its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelStatus {
    /// Attempts are under way and none has ended yet.
    Connecting,
    /// A session is attached: calls flow.
    Ready {
        /// The server's address.
        peer: SocketAddr,
        /// Its incarnation: another one after a restart.
        incarnation: u64,
        /// The session, for asking from elsewhere.
        ticket: SessionTicket,
    },
    /// Every address was tried and none answered; attempts go on.
    Unreachable(Cow<'static, str>),
    /// Every address was tried and at least one server refuses this client for good, or this client
    /// the server; the text says why.
    Refused(Cow<'static, str>),
    /// The channel is closed.
    Closed,
}

/// A channel as its users see it.
pub(crate) struct ChannelState {
    status: watch::Sender<ChannelStatus>,
    /// Why a server refused since the last time that one answered.
    refused: Option<Cow<'static, str>>,
    journal: Option<Sender<Job>>,
}

impl ChannelState {
    pub(crate) fn new(status: watch::Sender<ChannelStatus>, journal: Option<Sender<Job>>) -> Self {
        Self { status, refused: None, journal }
    }

    /// Hands an entry to the journal. One that is gone has nothing written and so nothing sent.
    pub(super) fn write_down(&self, entry: JournalEntry) {
        if let Some(journal) = &self.journal {
            let _ = journal.send(Job::Entry(entry));
        }
    }

    pub(crate) fn on_event(&mut self, event: ChannelEvent) {
        let status = match event {
            ChannelEvent::Ready { peer, incarnation, ticket } => {
                self.refused = None;
                ChannelStatus::Ready { peer, incarnation, ticket }
            }
            // Another address may do: told when all of them have failed.
            ChannelEvent::Refused(why) => {
                self.refused = Some(why);
                return;
            }
            ChannelEvent::Unreachable(why) => match self.refused.take() {
                Some(refused) => ChannelStatus::Refused(refused),
                None => ChannelStatus::Unreachable(why),
            },
            // The driver has taken it.
            ChannelEvent::Members(_) => return,
        };
        self.status.send_replace(status);
    }

    fn close(&self) {
        self.status.send_replace(ChannelStatus::Closed);
    }
}

impl Shared {
    pub(super) fn new(
        node: Node,
        clock: NodeClock,
        socket: Arc<Socket>,
        registry: &Registry,
    ) -> Self {
        let local = socket.local_addr();
        let state = State {
            node,
            waiters: Waiters::default(),
            channels: HashMap::new(),
            handlers: HashMap::new(),
            commands: 0,
            kept_calls: KeptCalls::default(),
            draining: false,
            streams: StreamWakers::default(),
            #[cfg(feature = "grpc")]
            places: Places::default(),
            meters: Meters::new(registry),
            driver: None,
            armed: None,
            socket: Some(socket),
            alone: Alone::default(),
            others_woken: false,
            ended: false,
            #[cfg(test)]
            panics: false,
        };
        Self {
            clock,
            local,
            state: Mutex::new(state),
            busy_poll: AtomicU64::new(0),
            stage: watch::Sender::new(Stage::Running),
        }
    }

    /// Changes the node, then wakes its driver. `None` if the node has ended.
    ///
    /// The time is read under the lock, so that the node never sees it go back.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> Option<R> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        let result = change(&mut state, self.clock.now());
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Some(result)
    }

    /// How long the driver looks for datagrams before it sleeps.
    pub(super) fn busy_poll(&self) -> Duration {
        Duration::from_nanos(self.busy_poll.load(Ordering::Relaxed))
    }

    /// Sets it; zero for not at all.
    pub(crate) fn set_busy_poll(&self, time: std::time::Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.busy_poll.store(nanos, Ordering::Relaxed);
    }

    /// Begins something. `None` if the node has ended.
    ///
    /// What is alone in flight is sent by its caller, which saves it the driver's turn; of several
    /// the driver sends as many as it can with one system call.
    pub(crate) fn begin<R>(&self, begin: impl FnOnce(&mut State, Instant) -> R) -> Option<R> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        let now = self.clock.now();
        let result = begin(&mut state, now);
        let driver = if state.send_alone(now) { None } else { state.driver.take() };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Some(result)
    }

    /// Looks at the node. `None` if it has ended.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&State) -> R) -> Option<R> {
        let state = self.lock();
        if state.ended { None } else { Some(look(&state)) }
    }

    /// Measures something, without changing the node.
    pub(crate) fn measure<R>(&self, measure: impl FnOnce(&mut Meters, Instant) -> R) -> R {
        let mut state = self.lock();
        measure(&mut state.meters, self.clock.now())
    }

    /// What a waiter was told, or `None` and it is woken later.
    pub(crate) fn poll_waiter(&self, key: WaiterKey, waker: &Waker) -> Option<Ended> {
        self.poll_end(key, waker, |ended| mem::replace(ended, Ended::Gone))
    }

    /// What `take` makes of what a waiter was told, or `None` and it is woken later.
    #[inline(always)]
    pub(crate) fn poll_end<T>(
        &self,
        key: WaiterKey,
        waker: &Waker,
        take: impl Fn(&mut Ended) -> T,
    ) -> Option<T> {
        let polled = self.lock().waiters.poll(key, waker, &take);
        polled.unwrap_or_else(|_| Some(take(&mut Ended::Gone)))
    }

    /// Moves towards the end, never back, and wakes the driver for it.
    pub(crate) fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let forward = *stage < to;
            if forward {
                *stage = to;
            }
            forward
        });
        self.change(|_, _| ());
    }

    #[cfg(test)]
    pub(crate) fn panic_driver(&self) {
        self.change(|state, _| state.panics = true);
    }

    /// Takes the lock. A panic of the node under the lock has ended its driver, which marks the
    /// node as ended: whoever looks at `ended` first never sees the torn state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What happened lately to a call, and whether that is kept.
    pub(crate) fn call_steps(&self, name: CallName) -> (bool, Vec<CallStep>) {
        let (on, mut steps) = self.node.call_steps(name);
        if on {
            steps.extend(self.kept_calls.steps(name));
        }
        (on, steps)
    }

    /// Remembers whom to wake when the node was changed.
    pub(super) fn register(&mut self, driver: &Waker) {
        match &mut self.driver {
            Some(known) => known.clone_from(driver),
            none => *none = Some(driver.clone()),
        }
    }

    /// Waits for the end of a call of this method, which was begun now.
    pub(crate) fn await_call(
        &mut self,
        now: Instant,
        key: CallKey,
        method: &Method,
        waker: Waker,
    ) -> WaiterKey {
        let begun = self.meters.called.begin_call(method, now);
        self.waiters.insert(key, waker, Some(begun))
    }

    /// Tells who waits for a call how it ended. Returns whom to wake.
    #[inline(always)]
    pub(super) fn settle_call(
        &mut self,
        now: Instant,
        key: CallKey,
        result: Result<IncomingReply, CallError>,
    ) -> Option<Waker> {
        let ending = Ending::of_result(&result);
        let (waker, begun) = self.waiters.settle(key, Ended::Call(result))?;
        if let Some(begun) = begun {
            self.meters.called.end(begun, now, ending);
        }
        Some(waker)
    }

    /// Tells who waits for something else how it ended. Returns whom to wake.
    pub(super) fn settle(&mut self, key: CallKey, ended: Ended) -> Option<Waker> {
        self.waiters.settle(key, ended).map(|(waker, _)| waker)
    }

    /// Nobody waits under this key any more.
    pub(crate) fn forget_waiter(
        &mut self,
        now: Instant,
        key: WaiterKey,
    ) -> Option<(CallKey, Waiter)> {
        let removed = self.waiters.remove(key);
        if let Some((_, Waiter::Waiting(_, Some(begun)))) = &removed {
            self.meters.called.end(*begun, now, Ending::Abandoned);
        }
        removed
    }

    /// Whether somebody has changed the node and woken the driver for it.
    pub(super) fn is_changed(&self) -> bool {
        self.driver.is_none()
    }

    /// Whether nothing of what was begun just now is left to the driver.
    fn send_alone(&mut self, now: Instant) -> bool {
        let Some(socket) = &self.socket else { return false };
        !self.others_woken
            && self.node.calls() == 1
            && self.node.is_quiet(now)
            && self.alone.send(&mut self.node, now, socket)
            && match (self.node.poll_timeout(), self.armed) {
                (Some(at), Some(armed)) => armed <= at,
                (None, _) => true,
                (Some(_), None) => false,
            }
    }

    /// Closes every channel; their users see it.
    pub(super) fn close_channels(&mut self, now: Instant) {
        for (key, channel) in &self.channels {
            channel.close();
            self.node.close_channel(now, *key);
        }
    }

    /// Nothing will happen any more: everybody who waits is told.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        self.ended = true;
        self.driver = None;
        self.socket = None;
        for (_, handler) in self.handlers.drain() {
            handler.abort();
        }
        for channel in self.channels.values() {
            channel.close();
        }
        let mut woken = self.waiters.end();
        woken.extend(self.streams.end());
        #[cfg(feature = "grpc")]
        woken.extend(self.places.end());
        woken
    }
}
