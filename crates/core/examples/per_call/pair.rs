//! A client node and a server node that are handed one another's datagrams, in virtual time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration as RealDuration;
use std::vec;

use bytes::{Bytes, BytesMut};
use stubborn_core::node::{
    ChannelConfig, ChannelEvent, ChannelKey, Event, IncomingRequest, Node, NodeConfig, RequestKey,
    ServerConfig,
};
use stubborn_core::service::{Answer, Encoded, Metadata, Method, OutgoingCall, Semantics, Shape};
use stubborn_core::time::{Duration, Instant, earliest};
use stubborn_core::transport::endpoint::{EndpointConfig, Received};
use stubborn_tls::{ServerTrust, TlsClient, TlsServer, self_signed};

use crate::allocations;

const ECHO: Method = Method::new("test.Echo/Echo", Semantics::AtMostOnce, Shape::Unary);
/// One way.
const DELAY: Duration = Duration::from_micros(50);

/// What is called, and over which path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Calls under way at any time.
    pub(crate) in_flight: usize,
    /// Bytes of each request and reply.
    pub(crate) body: usize,
    /// Bytes of the largest datagram that is tried.
    pub(crate) datagram: usize,
    /// Channels, each with a connection of its own, that take turns.
    pub(crate) connections: usize,
    /// Datagrams that a side takes at once.
    pub(crate) batch: usize,
    /// They are handed to the node one by one, so that nothing is read ahead.
    pub(crate) one_by_one: bool,
}

/// The parts of a call's way that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    ClientSend,
    ServerReceive,
    ServerSend,
    ClientReceive,
}

pub(crate) const PHASES: [Phase; 4] =
    [Phase::ClientSend, Phase::ServerReceive, Phase::ServerSend, Phase::ClientReceive];

impl Phase {
    /// Also the name of the method below that does the phase's work, after `counted_` once warm.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientSend => "client_send",
            Self::ServerReceive => "server_receive",
            Self::ServerSend => "server_send",
            Self::ClientReceive => "client_receive",
        }
    }
}

/// What a phase took so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) time: RealDuration,
    pub(crate) allocations: u64,
}

pub(crate) struct Pair {
    now: Instant,
    client: Node,
    server: Node,
    channels: Vec<ChannelKey>,
    /// Channels that have a session.
    ready: usize,
    /// The channel whose turn it is.
    turn: usize,
    /// From here on callgrind counts: it watches functions of their own.
    warm: bool,
    /// Calls to begin in the next round.
    idle: usize,
    in_flight: usize,
    batch: usize,
    one_by_one: bool,
    body: Bytes,
    resolved: usize,
    requests: VecDeque<IncomingRequest>,
    calls: Vec<OutgoingCall>,
    answers: Vec<(RequestKey, Answer)>,
    sent: Vec<u8>,
    to_server: Vec<Received>,
    to_client: Vec<Received>,
    pub(crate) packets: u64,
    spent: [Spent; 4],
}

impl Pair {
    /// Connects.
    pub(crate) fn new(load: Load) -> Self {
        let config = || NodeConfig {
            endpoint: EndpointConfig { max_probe: load.datagram, ..EndpointConfig::default() },
        };
        let made = self_signed(["server.test"]).expect("a certificate");
        let trust = ServerTrust::Roots(made.roots());
        let client_tls = TlsClient::builder(trust).build().expect("a client configuration");
        let server_tls = TlsServer::builder(made.identity).build().expect("a server configuration");
        let server = ServerConfig { tls: Arc::new(server_tls), incarnation: 256, group: false };
        let client = Node::new(config(), None, [1; 32]);
        let mut channel = ChannelConfig::new("server.test", Arc::new(client_tls));
        channel.targets = vec![address(2)];
        let mut pair = Self {
            now: Instant::ZERO,
            channels: Vec::new(),
            client,
            server: Node::new(config(), Some(server), [2; 32]),
            ready: 0,
            turn: 0,
            warm: false,
            idle: 0,
            in_flight: load.in_flight,
            batch: load.batch,
            one_by_one: load.one_by_one,
            body: vec![7; load.body].into(),
            resolved: 0,
            requests: VecDeque::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            sent: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            packets: 0,
            spent: [Spent::default(); 4],
        };
        for _ in 0..load.connections {
            pair.connect(&channel);
        }
        pair.idle = load.in_flight;
        pair
    }

    /// Opens a channel and waits for its session.
    fn connect(&mut self, channel: &ChannelConfig) {
        self.channels.push(self.client.open_channel(self.now, channel.clone()));
        for _ in 0..10_000 {
            self.round();
            if self.ready == self.channels.len() {
                return;
            }
        }
        panic!("no session after ten thousand rounds");
    }

    /// Runs until windows and tables have grown to what the calls in flight need.
    pub(crate) fn warm_up(&mut self) {
        self.run(20 * self.in_flight.max(100));
        self.warm = true;
        self.spent = [Spent::default(); 4];
    }

    /// Runs until `calls` or a few more have ended; returns how many.
    pub(crate) fn run(&mut self, calls: usize) -> usize {
        let before = self.resolved;
        for _ in 0..1_000_000 {
            if self.resolved - before >= calls {
                return self.resolved - before;
            }
            self.round();
        }
        panic!("calls stand still");
    }

    pub(crate) fn spent(&self, phase: Phase) -> Spent {
        self.spent[phase as usize]
    }

    /// Everything that can happen before time passes, there and back again.
    fn round(&mut self) {
        let (resolved, packets) = (self.resolved, self.packets);
        self.begin_calls();
        self.measured(Phase::ClientSend, Self::client_send, Self::counted_client_send);
        deliver(&mut self.sent, &mut self.packets, 1, &mut self.to_server);
        self.now += DELAY;
        self.measured(Phase::ServerReceive, Self::server_receive, Self::counted_server_receive);
        self.echo();
        self.measured(Phase::ServerSend, Self::server_send, Self::counted_server_send);
        deliver(&mut self.sent, &mut self.packets, 2, &mut self.to_client);
        self.now += DELAY;
        self.measured(Phase::ClientReceive, Self::client_receive, Self::counted_client_receive);
        let waiting = self.to_server.len() + self.to_client.len();
        if resolved == self.resolved && packets == self.packets && waiting == 0 {
            let next = earliest(self.client.poll_timeout(), self.server.poll_timeout());
            self.now = self.now.max(next.expect("a timer runs while nothing moves"));
        }
    }

    fn measured(&mut self, phase: Phase, warm: fn(&mut Self), counted: fn(&mut Self)) {
        let act = if self.warm { counted } else { warm };
        let (began, before) = (std::time::Instant::now(), allocations::so_far());
        act(self);
        let spent = &mut self.spent[phase as usize];
        spent.time += began.elapsed();
        spent.allocations += allocations::so_far() - before;
    }

    /// What a stub does before the node is asked.
    fn begin_calls(&mut self) {
        for _ in 0..std::mem::take(&mut self.idle) {
            self.calls.push(OutgoingCall {
                method: ECHO,
                request: Encoded::from_body(ECHO.id(), self.body.clone()),
                metadata: Metadata::new(),
                deadline: Some(Duration::from_secs(5)),
                wait_for_ready: None,
                reserved: None,
                max_staleness: None,
            });
        }
    }

    /// What a handler does.
    fn echo(&mut self) {
        for IncomingRequest { key, method, call, .. } in self.requests.drain(..) {
            let body = call.message().verified(method).expect("an unaltered request");
            assert_eq!(body.len(), self.body.len());
            let reply = Encoded::from_body(method, self.body.clone());
            self.answers.push((key, Answer::Reply(reply, Metadata::new())));
        }
    }

    #[inline(never)]
    fn counted_client_send(&mut self) {
        self.client_send();
    }

    #[inline(always)]
    fn client_send(&mut self) {
        for call in self.calls.drain(..) {
            self.client.call(self.now, self.channels[self.turn], call);
            self.turn = if self.turn + 1 == self.channels.len() { 0 } else { self.turn + 1 };
        }
        transmit(&mut self.client, self.now, &mut self.sent);
    }

    #[inline(never)]
    fn counted_server_receive(&mut self) {
        self.server_receive();
    }

    #[inline(always)]
    fn server_receive(&mut self) {
        let batch = self.batch.min(self.to_server.len());
        receive(&mut self.server, self.now, self.to_server.drain(..batch), self.one_by_one);
        self.server.poll_requests(self.now, &mut self.requests);
        // Of many datagrams the last ones are read only now.
        while let Some(event) = self.server.poll_event(self.now) {
            match event {
                Event::Request(request) => self.requests.push_back(request),
                other => panic!("unexpected at the server: {other:?}"),
            }
        }
    }

    #[inline(never)]
    fn counted_server_send(&mut self) {
        self.server_send();
    }

    #[inline(always)]
    fn server_send(&mut self) {
        for (request, answer) in self.answers.drain(..) {
            self.server.answer(self.now, request, answer);
        }
        transmit(&mut self.server, self.now, &mut self.sent);
    }

    #[inline(never)]
    fn counted_client_receive(&mut self) {
        self.client_receive();
    }

    #[inline(always)]
    fn client_receive(&mut self) {
        let batch = self.batch.min(self.to_client.len());
        receive(&mut self.client, self.now, self.to_client.drain(..batch), self.one_by_one);
        while let Some(event) = self.client.poll_event(self.now) {
            match event {
                Event::Resolved(_, result) => {
                    assert_eq!(result.expect("a reply").reply.body.len(), self.body.len());
                    self.idle += 1;
                    self.resolved += 1;
                }
                Event::Channel(_, ChannelEvent::Ready { .. }) => self.ready += 1,
                other => panic!("unexpected at the client: {other:?}"),
            }
        }
    }
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7400))
}

/// Each batch is preceded by its segment size.
fn transmit(node: &mut Node, now: Instant, sent: &mut Vec<u8>) {
    loop {
        let at = sent.len();
        sent.extend_from_slice(&[0; 8]);
        let Some(transmit) = node.poll_transmit(now, sent) else {
            sent.truncate(at);
            break;
        };
        let segment = transmit.segment.unwrap_or(transmit.size) as u32;
        sent[at..at + 4].copy_from_slice(&segment.to_le_bytes());
        sent[at + 4..at + 8].copy_from_slice(&(transmit.size as u32).to_le_bytes());
    }
    node.poll_timeout();
}

fn receive(node: &mut Node, now: Instant, datagrams: vec::Drain<'_, Received>, one_by_one: bool) {
    if one_by_one {
        datagrams.for_each(|datagram| node.handle(now, datagram));
    } else {
        node.handle_batch(now, datagrams);
    }
    if node.poll_timeout().is_some_and(|at| at <= now) {
        node.handle_timeout(now);
    }
}

/// What the kernel and the driver's copies do.
fn deliver(sent: &mut Vec<u8>, packets: &mut u64, from: u8, to: &mut Vec<Received>) {
    let mut rest = &sent[..];
    while let Some((header, after)) = rest.split_at_checked(8) {
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                as usize
        };
        let (segment, size) = (number(0), number(4));
        for datagram in after[..size].chunks(segment.max(1)) {
            *packets += 1;
            let data = BytesMut::from(datagram);
            let (from, local) = (address(from), Some(address(3 - from).ip()));
            to.push(Received { from, local, ecn: Default::default(), data });
        }
        rest = &after[size..];
    }
    sent.clear();
}
