//! A client node, a server node and the network between them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crate::group::{Group, REPLICAS};
use crate::handlers::Handlers;
use bytes::{Bytes, BytesMut};
use stubborn_core::limits::Limits;
use stubborn_core::node::{
    CallKey, ChannelConfig, ChannelEvent, ChannelKey, Event, IncomingRequest, JournalEntry,
    JournalStart, Node, NodeConfig, RequestKey, RequestKind, ServerConfig, ServiceConfig,
    SessionTicket, Staleness,
};
use stubborn_core::random::Random;
use stubborn_core::service::{
    Answer, CallError, CallState, Encoded, IncomingReply, Metadata, Method, MethodId, NotExecuted,
    OutgoingCall, Semantics, Shape, Status,
};
use stubborn_core::session::{CallId, NotExecutedReason, worker_incarnation};
use stubborn_core::time::{Duration, Instant, earliest};
use stubborn_core::transport::endpoint::{EndpointConfig, Received};
use stubborn_core::wire::packet::steering_byte;
use stubborn_tls::{SelfSigned, ServerTrust, TlsClient, TlsServer, self_signed};

pub(crate) const ECHO: Method = Method::new("test.Echo/Echo", Semantics::AtMostOnce, Shape::Unary);
pub(crate) const SLOW: Method = Method::new("test.Echo/Slow", Semantics::AtMostOnce, Shape::Unary);
pub(crate) const FAIL: Method = Method::new("test.Echo/Fail", Semantics::AtMostOnce, Shape::Unary);
pub(crate) const READ: Method = Method::new("test.Echo/Read", Semantics::Read, Shape::Unary);
pub(crate) const SLOW_READ: Method =
    Method::new("test.Echo/SlowRead", Semantics::Read, Shape::Unary);
pub(crate) const BEAT: Method = Method::new("test.Echo/Beat", Semantics::Maybe, Shape::Unary);
pub(crate) const AGAIN: Method =
    Method::new("test.Echo/Again", Semantics::Idempotent, Shape::Unary);

/// Fails at servers that lie, and is an echo at the others.
pub(crate) const FAULT: Method =
    Method::new("test.Echo/Fault", Semantics::AtMostOnce, Shape::Unary);
/// Is answered when the test says so, by server.
pub(crate) const HANG: Method = Method::new("test.Echo/Hang", Semantics::AtMostOnce, Shape::Unary);

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;
/// A second server, started only by the tests that need one.
pub(crate) const SPARE: usize = 2;
/// A third replica.
pub(crate) const THIRD: usize = 3;
/// All of them.
pub(crate) const SERVERS: [usize; 3] = [SERVER, SPARE, THIRD];

/// The largest datagram of a client that stalls, in bytes: acknowledgements and keepalives.
const SIGN_OF_LIFE: usize = 100;

const HOSTS: [usize; 4] = [CLIENT, SERVER, SPARE, THIRD];

/// What the network does, each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) jitter: Duration,
    pub(crate) cut: bool,
    /// Ids that clients made up lead to the wrong worker.
    pub(crate) astray: bool,
    /// The other client says that it lives, and sends nothing of its messages on.
    pub(crate) stalls: bool,
    /// Nothing reaches or leaves this host.
    pub(crate) alone: Option<usize>,
    /// To and from this host it takes ten times as long.
    pub(crate) far: Option<usize>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rules: Rules,
    /// The two servers are workers of one, at the first one's address.
    workers: bool,
    /// The channel of the client at [`SPARE`], if there is one, and how its calls ended.
    other: Option<ChannelKey>,
    pub(crate) other_results: BTreeMap<CallKey, Result<IncomingReply, CallError>>,
    pub(crate) delay: Duration,
    pub(crate) random: Random,
    pub(crate) nodes: [Option<Node>; 4],
    /// What the servers are replicas of, if they are.
    pub(crate) group: Option<Group>,
    pub(crate) wire: BTreeMap<(Instant, u64), (usize, SocketAddr, Vec<u8>)>,
    sent: u64,
    pub(crate) channel: ChannelKey,
    pub(crate) results: BTreeMap<CallKey, Result<IncomingReply, CallError>>,
    pub(crate) reserved: BTreeMap<CallKey, Result<CallId, CallError>>,
    pub(crate) outcomes: BTreeMap<CallKey, Result<CallState<IncomingReply>, CallError>>,
    pub(crate) tickets: Vec<SessionTicket>,
    pub(crate) channel_events: Vec<ChannelEvent>,
    /// What the server's handlers ran, in order: method name and body.
    pub(crate) ran: Vec<(String, Bytes)>,
    /// On which host each ran.
    pub(crate) ran_at: Vec<usize>,
    /// Reads that may be answered from an older state: where they came, and what they ask for.
    pub(crate) stale: Vec<(usize, Staleness)>,
    /// Requests of the slow method that nobody has answered.
    pub(crate) slow: VecDeque<(RequestKey, Bytes)>,
    /// Requests that hang, and where.
    pub(crate) hanging: Vec<(usize, RequestKey, MethodId)>,
    /// Servers that say that they cannot do what they are asked for.
    pub(crate) lying: Vec<usize>,
    /// What they say about coming back.
    pub(crate) push_back: Option<&'static str>,
    /// Servers that have no room.
    pub(crate) refusing: Vec<usize>,
    /// Servers that take half a second for a read.
    pub(crate) slow_at: Vec<usize>,
    /// What each request said of attempts before it.
    pub(crate) previous_attempts: Vec<Option<String>>,
    pub(crate) cancelled: usize,
    /// Since when, and until when, the server's only thread runs handlers: nothing is received or sent.
    pub(crate) computing: Option<(Instant, Instant)>,
    /// Calls by another way that were given a place, and that were refused one.
    pub(crate) placed: Vec<RequestKey>,
    pub(crate) not_placed: Vec<(RequestKey, NotExecuted)>,
    pub(crate) drained: bool,
    /// Servers that drained, and may go.
    pub(crate) drained_at: Vec<usize>,
    /// What the client has asked to be written down.
    pub(crate) journal: Vec<JournalEntry>,
    /// Handlers of streams, of every server.
    pub(crate) handlers: Handlers,
    limits: Limits,
    incarnation: u64,
}

struct Identities {
    server: SelfSigned,
}

fn identities() -> &'static Identities {
    static IDENTITIES: OnceLock<Identities> = OnceLock::new();
    IDENTITIES
        .get_or_init(|| Identities { server: self_signed(["server.test"]).expect("a certificate") })
}

pub(crate) fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8 + 1], 7400))
}

impl World {
    pub(crate) fn new(seed: u8) -> Self {
        Self::with_limits(seed, Limits::default())
    }

    pub(crate) fn with_limits(seed: u8, limits: Limits) -> Self {
        let mut random = Random::from_seed([seed; 32]);
        let config = node_config(&limits);
        let mut client = Node::new(config, None, random.bytes());
        let channel = open_channel(&mut client, Instant::ZERO, None);
        let mut world = Self {
            now: Instant::ZERO,
            rules: Rules::default(),
            workers: false,
            other: None,
            other_results: BTreeMap::new(),
            delay: Duration::from_millis(5),
            random,
            nodes: [Some(client), None, None, None],
            group: None,
            wire: BTreeMap::new(),
            sent: 0,
            channel,
            results: BTreeMap::new(),
            reserved: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            tickets: Vec::new(),
            channel_events: Vec::new(),
            ran: Vec::new(),
            ran_at: Vec::new(),
            stale: Vec::new(),
            slow: VecDeque::new(),
            hanging: Vec::new(),
            lying: Vec::new(),
            push_back: None,
            refusing: Vec::new(),
            slow_at: Vec::new(),
            previous_attempts: Vec::new(),
            cancelled: 0,
            computing: None,
            placed: Vec::new(),
            not_placed: Vec::new(),
            drained: false,
            drained_at: Vec::new(),
            journal: Vec::new(),
            handlers: Handlers::default(),
            limits,
            incarnation: 100,
        };
        world.start_server();
        world
    }

    /// A world whose server consists of two workers, [`SERVER`] and [`SPARE`].
    pub(crate) fn with_workers(seed: u8) -> Self {
        let mut world = Self::new(seed);
        world.workers = true;
        world.restart_workers();
        world
    }

    /// Starts a second client, at [`SPARE`].
    pub(crate) fn add_client(&mut self) {
        let mut client = Node::new(node_config(&self.limits), None, self.random.bytes());
        self.other = Some(open_channel(&mut client, self.now, None));
        self.nodes[SPARE] = Some(client);
    }

    /// A call of the second client.
    pub(crate) fn call_from_other(&mut self, method: &Method, body: Bytes) -> CallKey {
        let (now, channel) = (self.now, self.other.expect("a second client"));
        self.node(SPARE).call(now, channel, outgoing(method, body))
    }

    /// A world whose servers are three replicas of one group.
    pub(crate) fn with_group(seed: u8) -> Self {
        let mut world = Self::new(seed);
        world.make_group();
        world.set_targets(&REPLICAS);
        world
    }

    /// Starts every replica anew, with the memory of a new group.
    pub(crate) fn make_group(&mut self) {
        self.incarnation += 256;
        self.group = Some(Group::new(self.incarnation, &self.limits));
        for host in REPLICAS {
            self.start_as(host, self.incarnation, 0);
        }
    }

    /// Starts somebody at a host who says that he is a replica of a group that nobody else knows.
    pub(crate) fn pose_as_replica(&mut self, host: usize) {
        self.incarnation += 256;
        self.group = Some(Group::new(self.incarnation, &self.limits));
        self.start_as(host, self.incarnation, 0);
    }

    pub(crate) fn restart_workers(&mut self) {
        self.incarnation += 256;
        for (worker, host) in (0..).zip([SERVER, SPARE]) {
            let incarnation = worker_incarnation(self.incarnation, worker);
            self.start_as(host, incarnation, worker);
        }
    }

    /// Gives the client another channel to the server. The calls from now on are made on it.
    pub(crate) fn open_channel(&mut self) {
        self.open_channel_with(None);
    }

    pub(crate) fn open_channel_with(&mut self, resume: Option<SessionTicket>) {
        let now = self.now;
        self.channel = open_channel(self.client(), now, resume);
    }

    /// Gives the client a channel that begins with all of these targets, and a session to resume.
    pub(crate) fn resume_at(&mut self, ticket: SessionTicket, hosts: &[usize]) {
        let targets = hosts.iter().map(|host| address(*host)).collect();
        let (now, config) = (self.now, channel_config(Some(ticket)));
        self.channel = self.client().open_channel(now, ChannelConfig { targets, ..config });
    }

    /// Starts the client anew, with a journal that holds this.
    pub(crate) fn restart_client(
        &mut self,
        resume: Option<SessionTicket>,
        journal: JournalStart,
        slots: u32,
    ) {
        let mut client = Node::new(node_config(&self.limits), None, self.random.bytes());
        let config = ChannelConfig { journal: Some(journal), slots, ..channel_config(resume) };
        self.channel = client.open_channel(self.now, config);
        self.nodes[CLIENT] = Some(client);
        self.journal.clear();
        self.results.clear();
        self.outcomes.clear();
    }

    /// Uses a channel from here on that keeps no session.
    pub(crate) fn open_channel_without_session(&mut self) {
        let (now, config) = (self.now, channel_config(None));
        let config = ChannelConfig { session: false, ..config };
        self.channel = self.client().open_channel(now, config);
    }

    /// A client of three servers, all of them connected.
    pub(crate) fn of_three(seed: u8, service: ServiceConfig) -> Self {
        let mut world = Self::new(seed);
        world.start(SPARE);
        world.start(THIRD);
        world.open_channel_to(&SERVERS, service);
        world.run(500);
        world
    }

    /// Uses a channel from here on to these servers, with this way of choosing among them.
    pub(crate) fn open_channel_to(&mut self, hosts: &[usize], service: ServiceConfig) {
        let targets = hosts.iter().map(|host| address(*host)).collect();
        let (now, config) = (self.now, channel_config(None));
        let config = ChannelConfig { targets, service, ..config };
        self.channel = self.client().open_channel(now, config);
    }

    /// Calls that were sent to a server, as the client counts them.
    pub(crate) fn attempts_at(&mut self, host: usize) -> u64 {
        let (now, channel) = (self.now, self.channel);
        let endpoints = self.client().endpoints(now, channel);
        endpoints.iter().find(|e| e.address == address(host)).expect("a target").attempts
    }

    /// Answers what hangs at a server.
    pub(crate) fn answer_hanging(&mut self, host: usize) {
        let now = self.now;
        let all = std::mem::take(&mut self.hanging);
        let (answered, others) = all.into_iter().partition(|(at, ..)| *at == host);
        self.hanging = others;
        let answered: Vec<(usize, RequestKey, MethodId)> = answered;
        for (_, key, method) in answered {
            let reply = Encoded::from_body(method, Bytes::new());
            self.node(host).answer(now, key, Answer::Reply(reply, Metadata::new()));
        }
    }

    /// Uses a channel from here on that waits for a server.
    pub(crate) fn open_channel_that_waits(&mut self) {
        let (now, config) = (self.now, channel_config(None));
        let config = ChannelConfig { wait_for_ready: true, ..config };
        self.channel = self.client().open_channel(now, config);
    }

    pub(crate) fn client(&mut self) -> &mut Node {
        self.nodes[CLIENT].as_mut().expect("the client lives")
    }

    pub(crate) fn server(&mut self) -> &mut Node {
        self.node(SERVER)
    }

    pub(crate) fn node(&mut self, host: usize) -> &mut Node {
        self.nodes[host].as_mut().expect("the node lives")
    }

    pub(crate) fn kill(&mut self, host: usize) {
        self.nodes[host] = None;
        self.hanging.retain(|(at, ..)| *at != host);
    }

    /// Takes a host off the network; its memory stays.
    pub(crate) fn take(&mut self, host: usize) -> Node {
        self.nodes[host].take().expect("the node lives")
    }

    pub(crate) fn put_back(&mut self, host: usize, node: Node) {
        self.nodes[host] = Some(node);
    }

    pub(crate) fn set_targets(&mut self, hosts: &[usize]) {
        let (now, channel) = (self.now, self.channel);
        let targets = hosts.iter().map(|host| address(*host)).collect();
        self.client().set_targets(now, channel, targets);
    }

    pub(crate) fn kill_server(&mut self) {
        self.nodes[SERVER] = None;
        self.handlers.kill(SERVER);
        self.slow.clear();
    }

    pub(crate) fn start_server(&mut self) {
        self.start(SERVER);
    }

    pub(crate) fn start(&mut self, host: usize) {
        if let Some(group) = &self.group {
            return self.start_as(host, group.table.group(), 0);
        }
        self.incarnation += 256; // The last byte is the worker.
        self.start_as(host, self.incarnation, 0);
    }

    /// Starts the server anew with these limits, which the client does not have.
    pub(crate) fn restart_server_with(&mut self, limits: Limits) {
        let own = std::mem::replace(&mut self.limits, limits);
        self.start_server();
        self.limits = own;
    }

    fn start_as(&mut self, host: usize, incarnation: u64, worker: u8) {
        let identity = identities().server.identity.clone();
        let tls = TlsServer::builder(identity).build().expect("a server configuration");
        let server = ServerConfig { tls: Arc::new(tls), incarnation, group: self.group.is_some() };
        let seed = self.random.bytes();
        let mut config = node_config(&self.limits);
        config.endpoint.worker = worker;
        self.nodes[host] = Some(Node::new(config, Some(server), seed));
    }

    pub(crate) fn call(
        &mut self,
        method: &Method,
        body: &'static [u8],
        deadline: Option<u64>,
    ) -> CallKey {
        self.call_with(method, Bytes::from_static(body), deadline, None)
    }

    pub(crate) fn call_with(
        &mut self,
        method: &Method,
        body: Bytes,
        deadline: Option<u64>,
        reserved: Option<CallId>,
    ) -> CallKey {
        self.call_as(method, body, deadline, reserved, None)
    }

    pub(crate) fn patient_call(&mut self, method: &Method, body: &'static [u8]) -> CallKey {
        self.call_as(method, Bytes::from_static(body), None, None, Some(true))
    }

    /// A read of a state that may be so many milliseconds old.
    pub(crate) fn stale_read(&mut self, method: &Method, at_most: u64) -> CallKey {
        let (now, channel) = (self.now, self.channel);
        let max_staleness = Some(Duration::from_millis(at_most));
        let body = Bytes::from_static(b"state");
        let call = OutgoingCall { max_staleness, ..outgoing(method, body) };
        self.client().call(now, channel, call)
    }

    fn call_as(
        &mut self,
        method: &Method,
        body: Bytes,
        deadline: Option<u64>,
        reserved: Option<CallId>,
        wait_for_ready: Option<bool>,
    ) -> CallKey {
        let (now, channel) = (self.now, self.channel);
        let deadline = deadline.map(Duration::from_millis);
        let call = OutgoingCall { deadline, wait_for_ready, reserved, ..outgoing(method, body) };
        self.client().call(now, channel, call)
    }

    pub(crate) fn outcome(&mut self, id: CallId) -> CallState<IncomingReply> {
        self.outcome_with(id, None)
    }

    pub(crate) fn outcome_with(
        &mut self,
        id: CallId,
        ticket: Option<SessionTicket>,
    ) -> CallState<IncomingReply> {
        let (now, channel) = (self.now, self.channel);
        let key = self.client().outcome(now, channel, id, ticket);
        assert!(self.run_until(5_000, |w| w.outcomes.contains_key(&key)), "no outcome came");
        self.outcomes.remove(&key).unwrap().expect("an outcome")
    }

    pub(crate) fn answer_slow(&mut self) {
        let (key, body) = self.slow.pop_front().expect("a slow request waits");
        let now = self.now;
        let answer = Answer::Reply(Encoded::from_body(SLOW.id(), body), Metadata::new());
        self.server().answer(now, key, answer);
    }

    pub(crate) fn result(&mut self, key: CallKey) -> Result<Bytes, CallError> {
        self.result_within(key, 60_000)
    }

    pub(crate) fn result_within(&mut self, key: CallKey, millis: u64) -> Result<Bytes, CallError> {
        let began = self.now;
        assert!(
            self.run_until(millis, |w| w.results.contains_key(&key)),
            "call not resolved within {millis} ms of {began:?}"
        );
        self.results.remove(&key).unwrap().map(|reply| reply.reply.body.into_bytes())
    }

    /// Runs until `done`, or for so many virtual milliseconds. Returns whether it was done.
    pub(crate) fn run_until(&mut self, millis: u64, done: impl FnMut(&mut Self) -> bool) -> bool {
        self.run_to(self.now + Duration::from_millis(millis), done)
    }

    fn run_to(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let next = self.next_moment();
            match next {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => {
                    self.now = end;
                    return false;
                }
            }
            self.tick();
        }
    }

    /// Goes on to the next moment at which something happens.
    pub(crate) fn step(&mut self) {
        self.settle();
        if let Some(at) = self.next_moment() {
            self.now = self.now.max(at);
            self.tick();
            self.settle();
        }
    }

    pub(crate) fn run(&mut self, millis: u64) {
        self.run_until(millis, |_| false);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_to(self.now + time, |_| false);
    }

    fn next_moment(&mut self) -> Option<Instant> {
        let mut next = self.wire.first_key_value().map(|((at, _), _)| *at);
        next = earliest(next, self.group.as_ref().and_then(Group::next_moment));
        let stuck = self.is_stuck(SERVER);
        for (host, node) in self.nodes.iter_mut().enumerate() {
            if let Some(node) = node
                && !(host == SERVER && stuck)
            {
                next = earliest(next, node.poll_timeout());
            }
        }
        next
    }

    /// Whether a host's thread has no time for its node.
    fn is_stuck(&self, host: usize) -> bool {
        host == SERVER && self.computing.is_some_and(|(_, until)| until >= self.now)
    }

    fn tick(&mut self) {
        let now = self.now;
        let mut arrived = [const { Vec::new() }; 4];
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > now {
                break;
            }
            if entry.get().0 == SERVER
                && let Some((_, until)) = self.computing.filter(|(_, until)| *until >= now)
            {
                // It lies in the socket.
                let (number, datagram) = (entry.key().1, entry.remove());
                self.wire.insert((until + Duration::from_nanos(1), number), datagram);
                continue;
            }
            let (to, from, data) = entry.remove();
            let data = BytesMut::from(&data[..]);
            let local = Some(address(to).ip());
            arrived[to].push(Received { from, local, ecn: Default::default(), data });
        }
        for (node, mut batch) in self.nodes.iter_mut().zip(arrived) {
            if let Some(node) = node {
                node.handle_batch(now, batch.drain(..));
            }
        }
        self.apply_log();
        let stuck = self.is_stuck(SERVER);
        for (host, node) in self.nodes.iter_mut().enumerate() {
            let Some(node) = node else { continue };
            if !(host == SERVER && stuck) && node.poll_timeout().is_some_and(|at| at <= now) {
                node.handle_timeout(now);
            }
        }
    }

    /// Handles events and sends, until nothing is left to do at this moment.
    pub(crate) fn settle(&mut self) {
        let now = self.now;
        loop {
            let mut quiet = true;
            for host in HOSTS {
                if self.is_stuck(host) {
                    continue;
                }
                while let Some(event) =
                    self.nodes[host].as_mut().and_then(|node| node.poll_event(now))
                {
                    quiet = false;
                    self.event(host, event);
                }
                quiet &= !self.transmit(host);
            }
            if quiet {
                return;
            }
        }
    }

    fn transmit(&mut self, host: usize) -> bool {
        let mut any = false;
        loop {
            let mut buf = Vec::new();
            let now = self.now;
            let Some(node) = self.nodes[host].as_mut() else { return any };
            let Some(transmit) = node.poll_transmit(now, &mut buf) else { return any };
            any = true;
            let segment = transmit.segment.unwrap_or(transmit.size).max(1);
            let Some(to) = HOSTS.into_iter().find(|to| address(*to) == transmit.to) else {
                continue;
            };
            for datagram in buf.chunks(segment) {
                self.put_on_wire(host, to, datagram);
            }
        }
    }

    fn put_on_wire(&mut self, from: usize, to: usize, datagram: &[u8]) {
        let rules = self.rules;
        let stalled = rules.stalls && from == SPARE && datagram.len() > SIGN_OF_LIFE;
        let concerns = |host: usize| host == from || host == to;
        let cut = rules.cut || rules.alone.is_some_and(concerns);
        let delay = if rules.far.is_some_and(concerns) { self.delay * 10 } else { self.delay };
        if cut || stalled || self.random.chance(rules.loss) {
            return;
        }
        let from = if self.workers && from == SPARE { SERVER } else { from };
        let to = if self.workers && to == SERVER { self.worker_of(datagram) } else { to };
        let copies = 1 + usize::from(self.random.chance(rules.duplicate));
        for _ in 0..copies {
            let jitter = self.random.unit() * rules.jitter.as_secs_f64();
            let at = self.now + delay + Duration::from_secs_f64(jitter);
            self.sent += 1;
            self.wire.insert((at, self.sent), (to, address(from), datagram.to_vec()));
        }
    }

    fn worker_of(&self, datagram: &[u8]) -> usize {
        let byte = steering_byte(datagram).expect("a datagram with a destination");
        let made_up = byte > 1;
        let wrong = self.rules.astray && made_up;
        let worker = if wrong { 1 - byte % 2 } else { byte % 2 };
        [SERVER, SPARE][usize::from(worker)]
    }

    fn event(&mut self, host: usize, event: Event) {
        match event {
            Event::Request(request) if matches!(request.kind, RequestKind::Stream(_)) => {
                self.start_handler(host, request);
            }
            Event::Readable(key) | Event::Writable(key) => self.stream_moved(host, key),
            Event::Resolved(key, result) if host == SPARE && self.other.is_some() => {
                self.other_results.insert(key, result);
            }
            Event::Channel(..) if host == SPARE && self.other.is_some() => {}
            Event::Resolved(key, result) => {
                assert!(self.results.insert(key, result).is_none(), "resolved twice");
            }
            Event::Reserved(key, result) => {
                self.reserved.insert(key, result);
            }
            Event::Outcome(key, result) => {
                self.outcomes.insert(key, result);
            }
            Event::Channel(_, event) => {
                if let ChannelEvent::Ready { ticket, .. } = &event {
                    self.tickets.push(ticket.clone());
                }
                self.channel_events.push(event);
            }
            Event::Request(request) => self.serve(host, request),
            Event::Cancelled(key) => {
                self.cancelled += 1;
                self.handlers.stop(host, key);
                self.slow.retain(|(other, _)| *other != key);
                self.hanging.retain(|(at, other, _)| (*at, *other) != (host, key));
            }
            Event::Query(query) if self.group.is_some() => {
                let group = self.group.as_ref().expect("a group");
                let (now, finding) = (self.now, group.table.query(&query));
                self.node(host).answer_query(now, query.key, finding);
            }
            Event::Query(query) => {
                assert!(self.workers, "a server without workers asks itself");
                let finding = self.node([SERVER, SPARE][usize::from(query.worker())]).find(&query);
                let now = self.now;
                self.node(host).answer_query(now, query.key, finding);
            }
            Event::Command(command) => self.command(host, command),
            Event::Drained => {
                self.drained = true;
                self.drained_at.push(host);
            }
            Event::Journal(_, entry) => self.journal.push(entry),
            Event::Placed(place) => self.placed.push(place),
            Event::Refused(place, why) => self.not_placed.push((place, why)),
        }
    }

    fn serve(&mut self, host: usize, request: IncomingRequest) {
        let IncomingRequest { key, method, call, stale, watch, .. } = request;
        if let Some(watch) = watch {
            return self.watched(host, key, &watch);
        }
        if let Some(stale) = stale {
            self.stale.push((host, *stale));
            if self.the_group().too_stale.contains(&host) {
                let now = self.now;
                return self.node(host).too_stale(now, key);
            }
        }
        let methods = [&ECHO, &SLOW, &FAIL, &READ, &SLOW_READ, &BEAT, &AGAIN, &FAULT, &HANG];
        let method = methods.into_iter().find(|m| m.id() == method).expect("a known method");
        let body = call.message().verified(method.id()).expect("an unaltered request");
        // Copies out of the receive buffer, as decoding would.
        let body = Bytes::copy_from_slice(&body);
        self.ran.push((method.name().to_string(), body.clone()));
        self.ran_at.push(host);
        let now = self.now;
        let previous = call.context().metadata.get_str("grpc-previous-rpc-attempts");
        self.previous_attempts.push(previous.map(str::to_owned));
        if method == &HANG || method == &READ && self.slow_at.contains(&host) {
            self.hanging.push((host, key, method.id()));
        } else if self.refusing.contains(&host) {
            let why = NotExecuted::new(NotExecutedReason::Overloaded);
            self.node(host).answer(now, key, Answer::NotExecuted(why));
        } else if [&FAULT, &READ, &AGAIN].contains(&method) && self.lying.contains(&host) {
            let mut metadata = Metadata::new();
            if let Some(push_back) = self.push_back {
                metadata.insert("grpc-retry-pushback-ms", push_back).expect("a pair");
            }
            let status = Status::unavailable("it lies").with_metadata(metadata);
            self.node(host).answer(now, key, Answer::Status(status));
        } else if method == &SLOW || method == &SLOW_READ {
            self.slow.push_back((key, body));
        } else if method == &FAIL {
            self.node(host).answer(now, key, Answer::Status(Status::not_found("no such thing")));
        } else {
            let reply = Encoded::from_body(method.id(), body);
            self.node(host).answer(now, key, Answer::Reply(reply, Metadata::new()));
        }
    }
}

fn open_channel(client: &mut Node, now: Instant, resume: Option<SessionTicket>) -> ChannelKey {
    client.open_channel(now, channel_config(resume))
}

fn channel_config(resume: Option<SessionTicket>) -> ChannelConfig {
    let tls = TlsClient::builder(ServerTrust::Roots(identities().server.roots()))
        .build()
        .expect("a client configuration");
    let mut config = ChannelConfig::new("server.test", Arc::new(tls));
    config.targets = vec![address(SERVER)];
    config.resume = resume;
    config
}

pub(crate) fn outgoing(method: &Method, body: Bytes) -> OutgoingCall {
    OutgoingCall {
        method: method.clone(),
        request: Encoded::from_body(method.id(), body),
        metadata: Metadata::new(),
        deadline: None,
        wait_for_ready: None,
        reserved: None,
        max_staleness: None,
    }
}

fn node_config(limits: &Limits) -> NodeConfig {
    NodeConfig { endpoint: EndpointConfig { limits: limits.clone(), ..EndpointConfig::default() } }
}
