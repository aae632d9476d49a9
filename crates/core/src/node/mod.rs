//! A node: one socket's worth of Stubborn, composed of transport, sessions and calls.
//!
//! # Driving contract
//! A node does nothing by itself. Whoever drives it
//!
//! 1. mutates: [`handle`](Node::handle) for each datagram that came, [`handle_timeout`] when
//!    [`poll_timeout`] is due, and the methods that begin, abandon or answer calls;
//! 2. then takes out: [`poll_event`](Node::poll_event) until `None` (acting on an event may mutate
//!    again), [`poll_transmit`](Node::poll_transmit) until `None`;
//! 3. then sleeps until there is input or [`poll_timeout`] is due.
//!
//! `now` never goes back. Handlers that are ready at once are best answered before the transmits
//! are taken out: then the reply is the acknowledgement.
//!
//! [`handle_timeout`]: Node::handle_timeout
//! [`poll_timeout`]: Node::poll_timeout

mod config;
mod footprint;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::{self, Vec};
use core::net::SocketAddr;

pub use config::{NodeConfig, ServerConfig};
pub use footprint::Footprint;

pub use crate::rpc::{
    Again, Ask, Asked, Balancing, Batch, CallKey, CallLog, CallName, CallStep, ChannelConfig,
    ChannelCounters, ChannelEvent, ChannelKey, CircuitBreaker, ClientMessage, Codes, EndpointState,
    EndpointStats, Event, FailurePercentageEjection, Finding, Front, HedgingPolicy, IDS_SINCE,
    IncomingQuery, IncomingRequest, JournalCall, JournalEntry, JournalRequest, JournalStart, Load,
    Malformed, MethodConfig, MethodName, OWNERS_SINCE, OutlierDetection, Passed, PlaceEnd,
    PlaceRequest, QueryKey, RING_KEY, RequestKey, RetryPolicy, RetryThrottling, ServiceConfig,
    SessionCommand, SessionKeeper, SessionTable, SessionTicket, Shed, Staleness, StepKind,
    StreamKey, StreamRead, StreamRefusal, SuccessRateEjection, TableReader, Told, Unrun, Watch,
    in_order, record_of,
};

pub use crate::service::RequestKind;

use crate::limits::Limits;
use crate::random::Random;
use crate::rpc::{Assembly, Client, Context, Events, MessageBuffer, Progress, Server, close_code};
use crate::service::{
    Answer, CallError, Encoded, IncomingReply, Method, NotExecuted, OutgoingCall, Priority,
};
use crate::session::{CallId, Races, SessionId};
use crate::time::{Duration, Instant, earliest};
use crate::transport::connection::{ConnectionEvent, Stats};
use crate::transport::endpoint::{ConnectionHandle, Endpoint, Received, Transmit};

/// One socket's worth of Stubborn. See the [module](self) for how to drive it.
pub struct Node {
    endpoint: Endpoint,
    server: Option<Server>,
    client: Client,
    assembly: Assembly,
    /// Empty between uses; kept for its memory.
    progresses: Vec<Progress>,
    events: Events,
    random: Random,
    buffer: MessageBuffer,
    limits: Limits,
    /// Datagrams handled since events were last passed on.
    unread: usize,
}

/// Datagrams of which what they brought waits to be read, at most: their buffers wait with it.
const READ_AT_ONCE: usize = 64;

impl Node {
    /// A node; with `server` it also accepts connections. `seed` is all the randomness it ever gets.
    pub fn new(config: NodeConfig, server: Option<ServerConfig>, seed: [u8; 32]) -> Self {
        let mut random = Random::from_seed(seed);
        let limits = config.endpoint.limits.clone();
        let incarnation = server.as_ref().map(|server| server.incarnation);
        let group = server.as_ref().is_some_and(|server| server.group);
        let tls = server.map(|server| server.tls);
        let mut endpoint = Endpoint::new(config.endpoint, tls, random.fork(), incarnation);
        let mut server = incarnation.map(|incarnation| Server::new(incarnation, &limits));
        if let (true, Some(server)) = (group, &mut server) {
            endpoint.serve_group();
            server.join_group(random.u64());
        }
        Self {
            endpoint,
            server,
            client: Client::default(),
            assembly: Assembly::new(limits.assembly, limits.message + OVERHEAD),
            progresses: Vec::new(),
            events: Events::default(),
            random,
            buffer: MessageBuffer::default(),
            limits,
            unread: 0,
        }
    }

    /// Sets the byte from which the client half counts when it chooses among a server's workers; else
    /// it is drawn. Several nodes of one process that begin at different bytes spread evenly.
    pub fn steer_from(&mut self, first: u8) {
        self.client.steer_from(first);
    }

    /// Takes in a datagram. What it brought is acted on with the next [`poll_event`](Self::poll_event),
    /// so that several that came together are read at once.
    pub fn handle(&mut self, now: Instant, datagram: Received) {
        self.endpoint.handle(now, datagram);
        self.count_handled(now, 1);
    }

    fn count_handled(&mut self, now: Instant, datagrams: usize) {
        self.unread += datagrams;
        if self.unread == READ_AT_ONCE {
            self.pass_on(now);
        }
    }

    /// Takes in datagrams that came together. The same as one by one, and cheaper: those in a row for one
    /// connection are handed to it at once, and where there are many connections, what those next in turn
    /// need is read ahead.
    pub fn handle_batch(&mut self, now: Instant, mut batch: vec::Drain<'_, Received>) {
        if self.endpoint.look_ahead(batch.as_slice()) {
            return self.handle_ahead(now, batch);
        }
        while !batch.as_slice().is_empty() {
            let handled = self.endpoint.handle_row(now, &mut batch, READ_AT_ONCE - self.unread);
            self.count_handled(now, handled);
        }
    }

    fn handle_ahead(&mut self, now: Instant, batch: vec::Drain<'_, Received>) {
        for (place, datagram) in batch.enumerate() {
            self.endpoint.read_ahead(place);
            let [half_way, near, next] = self.endpoint.connections_ahead(place);
            if let Some(server) = &self.server {
                half_way.inspect(|handle| server.read_ahead(*handle));
                near.inspect(|handle| server.read_further_ahead(*handle));
            }
            half_way.inspect(|handle| self.client.read_ahead(*handle));
            near.inspect(|handle| self.client.read_further_ahead(*handle));
            next.inspect(|handle| self.client.read_links_ahead(*handle));
            self.endpoint.handle_ahead(now, place, datagram);
            self.count_handled(now, 1);
        }
    }

    /// Lets every timer that is due at `now` fire.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.assembly.handle_timeout(now);
        self.with_client(now, |client, cx| {
            client.handle_timeout(cx);
            client.after_answers(cx);
        });
        self.with_server(now, Server::handle_timeout);
        self.end_stalled(now);
        self.pass_on(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let halves = earliest(
            self.client.next_timeout(),
            self.server.as_ref().and_then(Server::next_timeout),
        );
        let own = earliest(self.endpoint.poll_timeout(), self.assembly.next_timeout());
        earliest(own, halves)
    }

    /// Appends the next datagrams to `buf` and says where they go.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.endpoint.poll_transmit(now, buf)
    }

    /// How long acknowledgements are held back: see [`Endpoint::hold_acks`].
    pub fn hold_acks(&mut self, longest: Duration) {
        self.endpoint.hold_acks(longest);
    }

    /// The next thing to tell the driver.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        if self.events.is_empty() {
            self.pass_on(now);
        }
        self.next_request(now).map(Event::Request).or_else(|| self.events.pop())
    }

    /// Takes all requests that [`poll_event`](Self::poll_event) would tell one by one, ahead of all other
    /// events, and adds them to `requests`.
    pub fn poll_requests(&mut self, now: Instant, requests: &mut VecDeque<IncomingRequest>) {
        if self.events.is_empty() {
            self.pass_on(now);
        }
        if requests.is_empty() {
            // They are large to move; the memory of those that were taken is used for the next ones.
            self.events.swap_requests(requests);
            requests.retain(|request| self.may_start(now, request.key));
        }
        while let Some(request) = self.next_request(now) {
            requests.push_back(request);
        }
    }

    /// As [`poll_event`](Self::poll_event) where the next event is [`Event::Resolved`]; `None` where it
    /// is another one, or there is none.
    #[inline]
    pub fn poll_resolved(
        &mut self,
        now: Instant,
    ) -> Option<(CallKey, Result<IncomingReply, CallError>)> {
        if self.events.is_empty() {
            self.pass_on(now);
        }
        self.events.pop_resolved()
    }

    /// Opens a channel: connects to the first target that answers and keeps a session there.
    pub fn open_channel(&mut self, now: Instant, config: ChannelConfig) -> ChannelKey {
        self.with_client(now, |client, cx| client.open_channel(cx, config))
    }

    /// New addresses from a resolver. Calls in flight at an address that is gone stay there until
    /// they are settled.
    pub fn set_targets(&mut self, now: Instant, channel: ChannelKey, targets: Vec<SocketAddr>) {
        self.with_client(now, |client, cx| client.set_targets(cx, channel, targets));
    }

    /// Gives a channel up: its calls end as pending or not executed, and its session is closed as
    /// soon as nothing of it is unsettled.
    pub fn close_channel(&mut self, now: Instant, channel: ChannelKey) {
        self.with_client(now, |client, cx| client.close_channel(cx, channel));
    }

    /// Begins a call; ends with [`Event::Resolved`]. Deadlines in `call` count from `now`.
    ///
    /// # Panics
    /// If `channel` is of another node.
    pub fn call(&mut self, now: Instant, channel: ChannelKey, mut call: OutgoingCall) -> CallKey {
        self.begin_call(now, channel, &mut call)
    }

    /// The same, which takes request and metadata out of `call`.
    ///
    /// # Panics
    /// As [`call`](Self::call).
    pub fn begin_call(
        &mut self,
        now: Instant,
        channel: ChannelKey,
        call: &mut OutgoingCall,
    ) -> CallKey {
        self.with_client(now, |client, cx| client.call(cx, channel, call))
    }

    /// Reserves a number for a call of `method`; ends with [`Event::Reserved`].
    ///
    /// # Panics
    /// If `channel` is of another node.
    pub fn reserve(&mut self, now: Instant, channel: ChannelKey, method: &Method) -> CallKey {
        self.with_client(now, |client, cx| client.reserve(cx, channel, method))
    }

    /// Nobody waits for this call, reservation or question any more: no event will come of it. A
    /// read is cancelled; a call is fenced in the background if it has not started.
    pub fn abandon(&mut self, now: Instant, call: CallKey) {
        self.with_client(now, |client, cx| {
            client.abandon(cx, call);
            client.after_answers(cx);
        });
    }

    /// A reserved number will not be used: it is fenced.
    pub fn abandon_reserved(&mut self, now: Instant, channel: ChannelKey, id: CallId) {
        self.with_client(now, |client, cx| client.abandon_reserved(cx, channel, id));
    }

    /// Asks what became of a call; ends with [`Event::Outcome`]. `ticket` proves the right to ask
    /// about a session that is not this channel's own.
    ///
    /// # Panics
    /// If `channel` is of another node.
    pub fn outcome(
        &mut self,
        now: Instant,
        channel: ChannelKey,
        id: CallId,
        ticket: Option<SessionTicket>,
    ) -> CallKey {
        self.with_client(now, |client, cx| client.outcome(cx, channel, id, ticket))
    }

    /// The journal has this call, synced: it is sent. Answers [`JournalEntry::Call`].
    pub fn journalled(&mut self, now: Instant, channel: ChannelKey, id: CallId) {
        self.with_client(now, |client, cx| client.journalled(cx, channel, id));
    }

    /// The journal has the outcome of this call, synced: the server need not keep it any longer.
    /// Answers [`JournalEntry::Outcome`].
    pub fn let_go(&mut self, now: Instant, channel: ChannelKey, id: CallId) {
        self.with_client(now, |client, cx| client.let_go(cx, channel, id));
    }

    /// The session that a channel uses now.
    pub fn session(&self, channel: ChannelKey) -> Option<SessionTicket> {
        self.client.session(channel)
    }

    /// Counters and estimates of the connection that a channel uses now, and its server's address.
    pub fn channel_stats(&self, channel: ChannelKey) -> Option<(SocketAddr, Stats)> {
        self.client.stats(&self.endpoint, channel)
    }

    /// Whether calls are in flight that a group of replicas has to commit.
    pub fn awaits_commit(&self) -> bool {
        self.client.awaits_commit()
    }

    /// The servers of a channel, in the order of its targets.
    pub fn endpoints(&self, now: Instant, channel: ChannelKey) -> Vec<EndpointStats> {
        self.client.endpoints(now, &self.endpoint, channel)
    }

    /// What a channel did beyond sending each call once.
    pub fn channel_counters(&self, channel: ChannelKey) -> ChannelCounters {
        self.client.channel_counters(channel)
    }

    /// Servers of channels, those included that closed channels still take leave of. Once it is zero
    /// after the last channel was closed, the servers know that their sessions may be forgotten.
    pub fn links(&self) -> usize {
        self.client.links()
    }

    /// The connection that a channel uses now.
    pub fn channel_connection(&self, channel: ChannelKey) -> Option<ConnectionHandle> {
        self.client.connection(channel)
    }

    /// The transport below, for reading.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Answers a request. An answer to a request that is cancelled or unknown is ignored.
    pub fn answer(&mut self, now: Instant, request: RequestKey, answer: Answer) {
        self.with_server(now, |server, cx| server.answer(cx, request, answer));
    }

    /// A call that came to this server by another way than the node's connections asks for a place among
    /// its handlers. Returns its key, and whether it has the place at once; if not, [`Event::Placed`] or
    /// [`Event::Refused`] comes. `None` if the node is no server.
    pub fn ask_place(&mut self, now: Instant, request: PlaceRequest) -> Option<(RequestKey, bool)> {
        let mut asked = None;
        self.with_server(now, |server, cx| asked = Some(server.ask_place(cx, request)));
        asked
    }

    /// Such a call leaves its place, or does not wait for one any more. What was refused is ignored.
    pub fn leave_place(&mut self, now: Instant, place: RequestKey, end: PlaceEnd) {
        self.with_server(now, |server, cx| server.leave_place(cx, place, end));
    }

    /// Whether a stream that came by another way may begin.
    ///
    /// # Errors
    /// If much more comes than can be run: when to come back.
    pub fn may_begin_stream(
        &mut self,
        now: Instant,
        priority: Priority,
    ) -> Result<(), NotExecuted> {
        let mut may = Ok(());
        self.with_server(now, |server, cx| may = server.may_begin_stream(cx, priority));
        may
    }

    /// What this node's sessions know of the call that another worker of the server was asked for.
    pub fn find(&self, query: &IncomingQuery) -> Finding {
        self.server.as_ref().map_or(Finding::NOTHING, |server| server.find(query))
    }

    /// Answers a question that came as [`Event::Query`].
    pub fn answer_query(&mut self, now: Instant, query: QueryKey, finding: Finding) {
        self.with_server(now, |server, cx| server.answer_query(cx, query, finding));
    }

    /// From now on this replica tells its clients that it knows ids of calls: they may send calls that
    /// name themselves (metadata `stubborn-call-id`).
    pub fn serve_ids(&mut self) {
        self.endpoint.serve_ids();
    }

    /// Tells a client of this replica what the group's table answered. `client` is
    /// [`SessionCommand::client`]; one that is gone is told nothing.
    pub fn tell(&mut self, now: Instant, client: u64, message: ClientMessage) {
        self.with_server(now, |server, cx| server.tell(cx, client, message));
    }

    /// This replica has applied the group's log up to this entry: what it tells clients from now on is
    /// as of then. To be called before it tells what an entry changed.
    pub fn applied(&mut self, index: u64) {
        if let Some(server) = &mut self.server {
            server.applied(index);
        }
    }

    /// The members of this replica's group have changed, with this entry of its log: clients are told
    /// where the members are (HOST:PORT), those that attach later too.
    pub fn tell_members(&mut self, now: Instant, version: u64, addresses: &[String]) {
        self.with_server(now, |server, cx| server.tell_members(cx, version, addresses));
    }

    /// Answers a read that may be answered from an older state: this replica's is not known to be as
    /// fresh as it asks for. Its caller asks elsewhere.
    pub fn too_stale(&mut self, now: Instant, request: RequestKey) {
        self.with_server(now, |server, cx| server.too_stale(cx, request));
    }

    /// Answers a question for what follows in a stream of reads, which came with
    /// [`IncomingRequest::watch`]: these messages, with which the client has everything up to
    /// `position`. The stream is ended with [`answer`](Self::answer).
    pub fn answer_watch(
        &mut self,
        now: Instant,
        request: RequestKey,
        position: u64,
        messages: Batch,
    ) {
        self.with_server(now, |server, cx| server.answer_watch(cx, request, position, &messages));
    }

    /// Asks the clients whose sessions are attached to this replica to move to another one: it is cut
    /// off from its group. They may come back; nothing is refused.
    pub fn send_away(&mut self, now: Instant) {
        self.with_server(now, Server::send_away);
    }

    /// Sessions that have a connection to this replica: it is to renew them in the group's table now
    /// and then.
    pub fn attached_sessions(&self) -> Vec<SessionId> {
        self.server.as_ref().map(Server::attached_sessions).unwrap_or_default()
    }

    /// Sets how many slots a session may have, at least one: those above are asked back.
    pub fn limit_slots(&mut self, now: Instant, limit: u32) {
        self.with_server(now, |server, cx| server.limit_slots(cx, limit));
    }

    /// Refuses new sessions and calls and tells clients to go elsewhere; ends with
    /// [`Event::Drained`].
    pub fn drain(&mut self, now: Instant) {
        self.with_server(now, |server, cx| server.drain(cx));
    }

    /// Sends a message on a stream.
    ///
    /// # Errors
    /// The message if there is no room for it yet, or why it is not taken at all.
    pub fn send_message(
        &mut self,
        now: Instant,
        stream: StreamKey,
        message: Encoded,
    ) -> Result<(), StreamRefusal> {
        match stream {
            StreamKey::Call(call) => {
                self.with_client(now, |client, cx| client.send_message(cx, call, message))
            }
            StreamKey::Request(request) => self
                .with_server(now, |server, cx| server.send_message(cx, request, message))
                .unwrap_or(Err(StreamRefusal::Over)),
        }
    }

    /// No further message comes on a stream that this node's user began. Its replies go on.
    pub fn end_messages(&mut self, now: Instant, call: CallKey) {
        self.with_client(now, |client, cx| client.end_messages(cx, call));
    }

    /// Takes the next message of a stream. What is taken gives the sender credit for more.
    pub fn take_message(&mut self, now: Instant, stream: StreamKey) -> StreamRead {
        match stream {
            StreamKey::Call(call) => {
                self.with_client(now, |client, cx| client.take_message(cx, call))
            }
            StreamKey::Request(request) => self
                .with_server(now, |server, cx| server.take_message(cx, request))
                .unwrap_or(StreamRead::End),
        }
    }

    /// Closes every connection at once, telling the peers. What they are told is in the next
    /// transmits.
    pub fn close(&mut self, now: Instant) {
        let handles: Vec<_> = self.endpoint.connections().collect();
        for handle in handles {
            if let Some(connection) = self.endpoint.connection_mut(handle) {
                connection.close(now, close_code::DONE, bytes::Bytes::new());
            }
        }
        self.endpoint.stop_accepting();
        self.pass_on(now);
    }

    /// Calls, reservations and questions that have not ended.
    pub fn calls(&self) -> usize {
        self.client.pending()
    }

    /// What the server half does about its load.
    pub fn load(&self) -> Load {
        self.server.as_ref().map(Server::load).unwrap_or_default()
    }

    /// Whoever drives the node was busy elsewhere: until the next call of this, what is handed over may have
    /// come so long before. Calls that wait have so much less of their time left.
    pub fn was_away(&mut self, time: Duration) {
        if let Some(server) = &mut self.server {
            server.was_away(time);
        }
    }

    /// Whether requests wait for others to be answered: whoever drives it does well to look for what
    /// has come in between.
    pub fn has_waiting(&self) -> bool {
        self.server.as_ref().is_some_and(Server::has_waiting)
    }

    /// Requests that have come and were not answered.
    pub fn executing(&self) -> usize {
        self.server.as_ref().map_or(0, Server::executing)
    }

    /// True if [`poll_event`](Self::poll_event) would have nothing to tell.
    pub fn is_quiet(&mut self, now: Instant) -> bool {
        self.pass_on(now);
        self.events.is_empty()
    }

    /// Sessions that the server half remembers.
    pub fn sessions(&self) -> usize {
        self.server.as_ref().map_or(0, |server| server.sessions().len())
    }

    /// What happened lately to a call that came to the server half, in the order of time; and whether
    /// that is kept at all (`limits.call_steps`).
    pub fn call_steps(&self, name: CallName) -> (bool, Vec<CallStep>) {
        self.server.as_ref().map(|server| server.call_steps(name)).unwrap_or_default()
    }

    /// Where the server half keeps what happened to calls, for a driver that has some to add: of calls
    /// that run elsewhere. None if there is no server half.
    pub fn call_log(&mut self) -> Option<&mut CallLog> {
        self.server.as_mut().map(Server::call_log)
    }

    /// What the node holds now, to be compared with what `limits` allow.
    pub fn footprint(&self) -> Footprint {
        Footprint::of(&self.endpoint, self.server.as_ref(), &self.client, &self.assembly)
    }

    /// How often the server half met races, since it started.
    pub fn races(&self) -> Races {
        let races = |server: &Server| Races {
            refusals: server.load().shed.total(),
            ..server.sessions().races()
        };
        self.server.as_ref().map(races).unwrap_or_default()
    }

    /// The next request that is still to be started.
    fn next_request(&mut self, now: Instant) -> Option<IncomingRequest> {
        loop {
            let request = self.events.pop_request()?;
            if self.may_start(now, request.key) {
                return Some(request);
            }
        }
    }

    fn may_start(&mut self, now: Instant, request: RequestKey) -> bool {
        self.with_server(now, |server, cx| server.may_start(cx, request)).unwrap_or(false)
    }

    /// Carries what the endpoint reports to the half that owns the connection.
    fn pass_on(&mut self, now: Instant) {
        self.unread = 0;
        while let Some((handle, event)) = self.endpoint.poll_event() {
            match event {
                ConnectionEvent::Connected => self.connected(now, handle),
                ConnectionEvent::MessagesReadable => self.readable(now, handle),
                ConnectionEvent::Unreliable(data) => {
                    self.with_server(now, |server, cx| server.unreliable(cx, handle, data));
                }
                ConnectionEvent::Writable => {
                    self.with_client(now, |client, cx| client.writable(cx, handle));
                    self.with_server(now, |server, cx| server.writable(cx, handle));
                }
                ConnectionEvent::MessageAcked(message) => {
                    self.with_client(now, |client, cx| client.acked(cx, handle, message));
                }
                ConnectionEvent::MessageStopped(..) => {}
                ConnectionEvent::Lost(error) => {
                    self.assembly.forget(handle);
                    self.with_client(now, |client, cx| client.lost(cx, handle, &error));
                    self.with_server(now, |server, cx| server.lost(cx, handle));
                    self.read_what_waited(now);
                }
            }
        }
    }

    fn connected(&mut self, now: Instant, handle: ConnectionHandle) {
        if self.client.owns(handle) {
            self.with_client(now, |client, cx| client.connected(cx, handle));
        } else {
            self.with_server(now, |server, cx| server.connected(cx, handle));
        }
    }

    /// Reads the messages of a connection, as far as the assembly has room.
    fn readable(&mut self, now: Instant, handle: ConnectionHandle) {
        let somebody_waits = self.assembly.has_waiting();
        self.read_messages(now, handle);
        if somebody_waits {
            self.read_what_waited(now);
        }
    }

    /// Reads on where room was missing; each message that ends may leave room for further ones.
    fn read_what_waited(&mut self, now: Instant) {
        let mut ended = true;
        while ended {
            ended = false;
            for handle in self.assembly.waiting() {
                ended |= self.read_messages(now, handle);
            }
        }
    }

    /// Ends the connections that keep room for messages from others and do not send on.
    fn end_stalled(&mut self, now: Instant) {
        for handle in self.assembly.stalled(now) {
            if let Some(connection) = self.endpoint.connection_mut(handle) {
                let reason = b"a large message stalls while others wait for its room";
                connection.close(now, close_code::STALLED, bytes::Bytes::from_static(reason));
            }
        }
    }

    /// True if a message came to its end.
    fn read_messages(&mut self, now: Instant, handle: ConnectionHandle) -> bool {
        let Some(connection) = self.endpoint.connection_mut(handle) else { return false };
        let mut progresses = core::mem::take(&mut self.progresses);
        self.assembly.read(now, handle, connection, &mut progresses);
        let ended = !progresses.is_empty();
        let is_client = self.client.owns(handle);
        // They are taken out where they lie: large to move.
        for progress in &mut progresses {
            if is_client {
                self.with_client(now, |client, cx| client.progress(cx, handle, progress));
            } else {
                self.with_server(now, |server, cx| server.progress(cx, handle, progress));
            }
        }
        progresses.clear();
        self.progresses = progresses;
        if is_client {
            self.with_client(now, Client::after_answers);
        }
        ended
    }

    fn with_client<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Client, &mut Context<'_>) -> T,
    ) -> T {
        let Self { endpoint, client, events, random, buffer, limits, .. } = self;
        act(client, &mut Context { now, endpoint, random, events, buffer, limits })
    }

    fn with_server<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Server, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let Self { endpoint, server, events, random, buffer, limits, .. } = self;
        let server = server.as_mut()?;
        Some(act(server, &mut Context { now, endpoint, random, events, buffer, limits }))
    }
}

/// What a message may have beside its body: fields and metadata.
const OVERHEAD: u64 = 32 << 10;
