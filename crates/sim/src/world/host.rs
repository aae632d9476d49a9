//! A simulated host: a node, its services, and what of both survives a crash.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use stubborn_core::node::{
    CallKey, ChannelConfig, ChannelKey, Node, NodeConfig, RequestKey, ServerConfig, SessionTicket,
    StreamKey,
};
use stubborn_core::random::Random;
use stubborn_core::service::{CallError, CallState, Clock, IncomingReply, Registry};
use stubborn_core::session::CallId;
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::EndpointConfig;

use super::clock::HostClock;
use super::journal::SimJournal;
use super::kept::{Kept, Offer};
use super::stream::Waiters;
use crate::crypto::HostTls;
use crate::network::Datagram;

/// Names a host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostId(pub(crate) u32);

/// Makes what a host offers anew at each start.
pub(crate) type Factory = Arc<dyn Fn() -> Offer + Send + Sync>;

/// Bytes that a host's socket buffers while the host does not read.
const SOCKET_BUFFER: usize = 256 << 10;

pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) clock: HostClock,
    /// Starts so far, so that what belongs to an earlier life is told.
    pub(crate) life: u32,
    pub(crate) alive: Option<Alive>,
    pub(crate) paused: bool,
    /// Time that the host takes for each datagram.
    pub(crate) slowness: Duration,
    pub(crate) busy_until: Instant,
    pub(crate) inbox: VecDeque<Datagram>,
    inbox_bytes: usize,
    /// When timers are queued for this host, the earliest last.
    pub(crate) timers: Vec<Instant>,
    pub(crate) dirty: bool,
    pub(crate) factory: Option<Factory>,
    /// Its sessions are not in its memory.
    pub(crate) is_kept: bool,
    pub(crate) endpoint: EndpointConfig,
    pub(crate) tls: HostTls,
    pub(crate) sockets: BTreeMap<u16, RawSocket>,
}

/// What a host loses when it is killed.
pub(crate) struct Alive {
    pub(crate) node: Node,
    pub(crate) services: Registry,
    pub(crate) clock: Clock,
    /// Set if sessions are not in the node.
    pub(crate) kept: Option<Kept>,
    incarnation: u64,
    pub(crate) channels: BTreeMap<u32, OpenChannel>,
    pub(crate) waiting: BTreeMap<CallKey, Waiting>,
    /// Handlers at work, by task.
    pub(crate) handlers: BTreeMap<RequestKey, usize>,
    /// Who waits at which stream.
    pub(crate) streams: BTreeMap<StreamKey, Waiters>,
    pub(crate) draining: bool,
    pub(crate) drained: bool,
}

/// A channel as its user asked for it; each life of the host opens it anew.
#[derive(Clone)]
pub(crate) struct ChannelPlan {
    pub(crate) host: HostId,
    pub(crate) servers: Vec<HostId>,
    pub(crate) config: ChannelConfig,
    pub(crate) journal: Option<SimJournal>,
}

pub(crate) struct OpenChannel {
    pub(crate) key: ChannelKey,
    /// The servers that it knows.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) ticket: Option<SessionTicket>,
    /// To which memory of each server the channel was last attached.
    pub(crate) attached: BTreeMap<HostId, u64>,
    /// Where its session is.
    pub(crate) home: Option<HostId>,
}

/// A call, reservation or question that somebody waits for.
pub(crate) enum Waiting {
    For(Option<Waker>),
    Over(Box<Ending>),
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Call(Result<IncomingReply, CallError>),
    Reserved(Result<CallId, CallError>),
    Outcome(Result<CallState<IncomingReply>, CallError>),
}

/// A socket for plain datagrams.
#[derive(Default)]
pub(crate) struct RawSocket {
    pub(crate) inbox: VecDeque<Datagram>,
    pub(crate) bytes: usize,
    pub(crate) waker: Option<Waker>,
}

impl RawSocket {
    /// Takes a datagram in; false if there is no room.
    pub(crate) fn take_in(&mut self, datagram: Datagram) -> bool {
        if self.bytes + datagram.data.len() > SOCKET_BUFFER {
            return false;
        }
        self.bytes += datagram.data.len();
        self.inbox.push_back(datagram);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }
}

impl Host {
    pub(crate) fn new(
        name: &str,
        address: SocketAddr,
        now: Instant,
        endpoint: EndpointConfig,
        tls: HostTls,
    ) -> Self {
        Self {
            name: name.to_owned(),
            address,
            clock: HostClock::new(now),
            life: 0,
            alive: None,
            paused: false,
            slowness: Duration::ZERO,
            busy_until: Instant::ZERO,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            timers: Vec::new(),
            dirty: false,
            factory: None,
            is_kept: false,
            endpoint,
            tls,
            sockets: BTreeMap::new(),
        }
    }

    /// Starts the host with an empty memory; if sessions are kept elsewhere, with what they are of.
    pub(crate) fn start(
        &mut self,
        services: Registry,
        clock: Clock,
        random: &mut Random,
        kept: Option<(u64, Kept)>,
    ) {
        assert!(self.alive.is_none(), "{} runs already", self.name);
        let drawn = random.u64();
        let (incarnation, kept) = match kept {
            Some((group, kept)) => (group, Some(kept)),
            None => (drawn, None),
        };
        self.is_kept = kept.is_some();
        let server = self.factory.is_some().then(|| ServerConfig {
            tls: Arc::clone(&self.tls.server),
            incarnation,
            group: kept.is_some(),
        });
        let config = NodeConfig { endpoint: self.endpoint.clone() };
        self.life += 1;
        self.alive = Some(Alive {
            node: Node::new(config, server, random.bytes()),
            services,
            clock,
            kept,
            incarnation,
            channels: BTreeMap::new(),
            waiting: BTreeMap::new(),
            handlers: BTreeMap::new(),
            streams: BTreeMap::new(),
            draining: false,
            drained: false,
        });
    }

    /// Names the memory that the host has, so that a destroyed one is told: its incarnation, or
    /// zero for none.
    pub(crate) fn memory(&self) -> u64 {
        self.alive.as_ref().map_or(0, |alive| alive.incarnation)
    }

    /// Whether what is due to the host is to be done now.
    pub(crate) fn is_awake(&self) -> bool {
        self.alive.is_some() && !self.paused
    }

    /// Buffers a datagram that cannot be read now; false if there is no room.
    pub(crate) fn buffer(&mut self, datagram: Datagram) -> bool {
        if self.inbox_bytes + datagram.data.len() > SOCKET_BUFFER {
            return false;
        }
        self.inbox_bytes += datagram.data.len();
        self.inbox.push_back(datagram);
        true
    }

    /// The next buffered datagram.
    pub(crate) fn unbuffer(&mut self) -> Option<Datagram> {
        let datagram = self.inbox.pop_front()?;
        self.inbox_bytes -= datagram.data.len();
        Some(datagram)
    }

    pub(crate) fn forget_inbox(&mut self) {
        self.inbox.clear();
        self.inbox_bytes = 0;
    }
}
