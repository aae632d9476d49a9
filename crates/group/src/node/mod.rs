//! A node of a group: one socket, one replica.
//!
//! It composes core's [`Node`], which speaks to clients and to the other nodes, and a [`Replica`].
//! Both the driver over UDP and the simulator drive only this.
//!
//! # Driving contract
//! 1. mutate: [`handle`](GroupNode::handle) for each datagram,
//!    [`handle_timeout`](GroupNode::handle_timeout) when [`poll_timeout`](GroupNode::poll_timeout) is
//!    due, [`written`](GroupNode::written) when the disk has writes;
//! 2. then take out: [`poll_event`](GroupNode::poll_event) until none (this is where the work is
//!    done), [`poll_write`](GroupNode::poll_write) until none,
//!    [`poll_transmit`](GroupNode::poll_transmit) until none;
//! 3. then sleep until there is input, the disk is done, or the timeout is due.
//!
//! Writes go to the disk in order, on a thread of their own if need be; those that came together, or
//! while a sync was under way, are synced together.

mod config;
mod gate;
mod overlay;
mod peers;
mod pieces;
mod places;
mod receipts;
mod relay;
mod roster;
mod watches;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use stubborn_core::node::{
    Batch, CallKey, CallName, CallStep, ChannelConfig, ChannelKey, Event, IncomingQuery,
    IncomingRequest, Node, RequestKey, RequestKind, ServerConfig, Staleness, in_order,
};
use stubborn_core::random::Random;
use stubborn_core::service::{
    Answer, Encoded, Image, Machines, Metadata, MethodId, OutgoingCall, Priority, Status,
};
use stubborn_core::time::{Duration, Instant, earliest};
use stubborn_core::transport::endpoint::{Received, Transmit};

use self::peers::{BEAT, Ended, Heard, Peers, TELL};
use self::pieces::Arrived;
use self::places::Places;
use self::receipts::Receipts;
use self::relay::node_at;
use self::roster::Followed;
use self::watches::{Found, Watches, Watching};
use crate::replica::{Fault, PacketError, Replica, Standing};
use crate::replication::{Durable, MemberChange, NodeId, Refused, Write};
use crate::served::{Ending, Served};

pub use self::config::{GroupConfig, GroupEvent, Peer};
pub use self::gate::Gate;

/// How long a client is asked to wait that comes when the replica has no room for its command.
const BUSY: Duration = Duration::from_millis(50);

/// How long a read that may be answered from an older state waits for the leader's word: then its
/// client asks elsewhere.
const STALE_PATIENCE: Duration = Duration::from_millis(100);

/// How old the state may be when a question of a stream of reads is answered that there is nothing: if
/// it may be older, its client asks elsewhere.
const FRESH: Duration = Duration::from_secs(1);

/// How long a node hears of no leader before it asks its clients to try another one, and again: it
/// may be cut off, or be no member any more. Most elections are over by then.
const CUT_OFF_AFTER: Duration = Duration::from_millis(300);

/// One node of a group. See the [module](self) for how to drive it.
pub struct GroupNode {
    node: Node,
    replica: Replica,
    peers: Peers,
    receipts: Receipts,
    followed: Followed,
    gate: Option<Arc<dyn Gate>>,
    /// Reads that wait for their place in the log.
    reads: BTreeMap<u64, Read>,
    read_of: BTreeMap<RequestKey, u64>,
    places: Places,
    /// Reads that may be answered from an older state, by the time until which they wait for one that
    /// is fresh enough.
    impatient: VecDeque<(Instant, u64)>,
    next_read: u64,
    watches: Watches,
    renews_at: Instant,
    leader: Option<NodeId>,
    /// When clients were last asked to try another node.
    sent_away: Instant,
    events: VecDeque<GroupEvent>,
    stopped: bool,
    refused: Option<(NodeId, PacketError)>,
}

/// What is answered when everything that was committed before is applied.
#[derive(Debug)]
enum Read {
    Call(ReadCall),
    Watch(Box<Watching>),
    Question(Box<IncomingQuery>),
}

/// A read of a client.
#[derive(Debug)]
struct ReadCall {
    key: RequestKey,
    came: Instant,
    method: MethodId,
    request: Encoded,
    deadline: Option<Instant>,
    priority: Priority,
    /// How old the state may be.
    stale: Option<Staleness>,
    /// Its place among those that are answered, or that it waits for.
    place: Option<RequestKey>,
}

impl GroupNode {
    /// Starts a node from what its disk holds. `machines` are as a new group has them. `seed` is all
    /// the randomness it ever gets, and must be new at each start.
    ///
    /// # Errors
    /// If the disk's contents contradict themselves, or are those of other machines.
    pub fn new(
        now: Instant,
        config: GroupConfig,
        durable: Durable,
        machines: Machines,
        seed: [u8; 32],
    ) -> Result<Self, Fault> {
        let mut random = Random::from_seed(seed);
        let name = (config.group, config.id);
        let settings = config.settings.clone();
        let mut replica = Replica::new(now, name, settings, durable, machines, random.bytes())?;
        replica.begin_with(config.roster.clone());
        config.folder.into_iter().for_each(|folder| replica.in_folder(folder));
        let server =
            ServerConfig { tls: config.server.clone(), incarnation: config.group, group: true };
        let mut node = Node::new(config.node.clone(), Some(server), random.bytes());
        if config.settings.knows_ids() {
            node.serve_ids();
        }
        let peers = Peers::new(now, &mut node, &config, random.u64());
        Ok(Self {
            node,
            renews_at: now + replica.renew_every(),
            replica,
            peers,
            receipts: Receipts::default(),
            followed: Followed::new(&config),
            gate: config.gate.clone(),
            reads: BTreeMap::new(),
            read_of: BTreeMap::new(),
            places: Places::default(),
            impatient: VecDeque::new(),
            next_read: 0,
            watches: Watches::default(),
            leader: None,
            sent_away: now,
            events: VecDeque::new(),
            stopped: false,
            refused: None,
        })
    }

    /// Takes in a datagram. What it brought is acted on with the next
    /// [`poll_event`](Self::poll_event).
    pub fn handle(&mut self, now: Instant, datagram: Received) {
        // Nothing comes from a made-up address.
        if node_at(datagram.from).is_none() {
            self.node.handle(now, datagram);
        }
    }

    /// Lets every timer that is due at `now` fire.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
        self.peers.sending().for_each(|to| self.replica.is_sending(to));
        self.replica.handle_timeout(now);
        self.peers.handle_timeout(now, &mut self.node);
        self.follow_orders(now);
        if let Some(introduction) = self.replica.introduction(now) {
            self.peers.introduce(now, &mut self.node, &introduction);
        }
        self.send_away_if_cut_off(now);
        self.push_back_reads(now);
        self.end_watches(now);
        if now >= self.renews_at {
            self.renews_at = now + self.replica.renew_every();
            let sessions = self.node.attached_sessions();
            if !sessions.is_empty() {
                // If there is no room, commands flow, which renew sessions as well.
                let _ = self.replica.renew(now, &sessions);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let replica = Some(self.replica.poll_timeout().min(self.renews_at));
        let others = earliest(self.peers.poll_timeout(), self.watches.poll_timeout());
        let others = earliest(others, self.receipts.poll_timeout());
        let others = earliest(others, self.places.poll_timeout());
        earliest(earliest(self.node.poll_timeout(), others), replica)
    }

    /// The disk has all writes up to this number.
    pub fn written(&mut self, number: u64) {
        self.replica.written(number);
    }

    /// Does what is to be done at `now`, and returns the next thing to tell the driver.
    pub fn poll_event(&mut self, now: Instant) -> Option<GroupEvent> {
        if self.events.is_empty() && !self.stopped {
            self.work(now);
        }
        self.events.pop_front()
    }

    /// The next write for the disk, and its number for [`written`](Self::written).
    pub fn poll_write(&mut self) -> Option<(u64, Write)> {
        self.replica.poll_write()
    }

    /// Appends the next datagrams to `buf` and says where they go.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.leave_places(now);
        self.receipts.send_due(now, &mut self.node);
        loop {
            let start = buf.len();
            let transmit = self.node.poll_transmit(now, buf)?;
            let Some(to) = node_at(transmit.to) else { return Some(transmit) };
            for datagram in buf[start..].chunks(transmit.segment.unwrap_or(transmit.size).max(1)) {
                self.peers.pass(now, &mut self.node, to, datagram);
            }
            buf.truncate(start);
        }
    }

    /// How long what only says that something arrived waits for something that it can leave with; not at
    /// all by default. For a driver that comes back soon, and that lets nothing wait while it sleeps.
    pub fn hold_receipts(&mut self, longest: Duration) {
        self.receipts.hold(&mut self.node, longest);
    }

    /// Whether receipts are held back, once [`poll_transmit`](Self::poll_transmit) has given `None`.
    pub fn is_holding_receipts(&self) -> bool {
        self.receipts.is_holding(&self.node)
    }

    /// Answers a request that came out as [`GroupEvent::Node`].
    pub fn answer(&mut self, now: Instant, request: RequestKey, answer: Answer) {
        self.node.answer(now, request, answer);
    }

    /// Opens a channel of the driver's own, over this node's socket.
    pub fn open_channel(&mut self, now: Instant, config: ChannelConfig) -> ChannelKey {
        self.node.open_channel(now, config)
    }

    /// Begins a call on a channel of the driver's own; its end comes out as [`GroupEvent::Node`].
    pub fn call(&mut self, now: Instant, channel: ChannelKey, call: OutgoingCall) -> CallKey {
        self.node.call(now, channel, call)
    }

    /// Through whom a member is reached that this node does not hear, or that does not hear it.
    pub fn relay(&self, now: Instant, to: NodeId) -> Option<NodeId> {
        self.peers.relay(now, to)
    }

    /// The node below, for reading.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The replica, for reading.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The whole replicated state as it is now: see [`Replica::freeze`].
    pub fn freeze(&mut self) -> Image {
        self.replica.freeze()
    }

    /// How the replica stands.
    pub fn standing(&self) -> Standing {
        self.replica.standing()
    }

    /// What happened to a call here lately, in the order of time: commands in the log, and reads, which
    /// are known by their trace.
    pub fn call_steps(&self, name: CallName) -> Vec<CallStep> {
        let mut steps = self.replica.call_steps(name);
        steps.extend(self.node.call_steps(name).1);
        in_order(&mut steps);
        steps
    }

    /// The methods of calls of this node's clients that are under way, reads among them. Looks at all.
    pub fn in_flight(&self) -> Vec<MethodId> {
        let reads = self.reads.values().filter_map(|read| match read {
            Read::Call(call) => Some(call.method),
            Read::Watch(_) | Read::Question(_) => None,
        });
        reads.chain(self.replica.in_flight()).collect()
    }

    /// From now on tells of the calls that it answers, with [`poll_served`](Self::poll_served), which is
    /// to be called until it gives `None`.
    pub fn count_served(&mut self) {
        self.replica.served.start();
    }

    /// The next call of a client of this node that it has answered.
    pub fn poll_served(&mut self) -> Option<Served> {
        self.replica.served.take()
    }

    /// Why the replica has stopped for good, if it has.
    pub fn fault(&self) -> Option<&Fault> {
        self.replica.fault()
    }

    /// Whose packet was refused last, and why: none of an honest peer is.
    pub fn refused(&self) -> Option<&(NodeId, PacketError)> {
        self.refused.as_ref()
    }

    /// Proposes a change of members.
    ///
    /// # Errors
    /// If this node does not lead, or another change is under way.
    pub fn change_members(&mut self, change: &MemberChange) -> Result<(), Refused> {
        self.replica.change_members(change)
    }

    /// Lets another node lead, if it keeps up: to be done before a leader is shut down.
    ///
    /// # Errors
    /// If this one does not lead.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), Refused> {
        self.replica.transfer(to)
    }

    /// Closes every connection at once, telling the peers: what they are told is in the next
    /// transmits.
    pub fn close(&mut self, now: Instant) {
        self.node.close(now);
    }
}

impl GroupNode {
    /// Carries between node and replica until neither has anything for the other.
    fn work(&mut self, now: Instant) {
        self.places.begin_turn();
        loop {
            while let Some(event) = self.node.poll_event(now) {
                self.on_event(now, event);
            }
            self.replica.flush(now);
            self.carry_out(now);
            self.show_watches(now);
            if self.node.is_quiet(now) {
                break;
            }
        }
        self.follow_roster(now);
        let leader = self.replica.leader();
        if leader != self.leader {
            self.leader = leader;
            self.events.push_back(GroupEvent::Leader(leader));
        }
        if self.replica.fault().is_some() {
            self.stopped = true;
            self.events.push_back(GroupEvent::Stopped);
        }
    }

    fn send_away_if_cut_off(&mut self, now: Instant) {
        let since = self.replica.out_of_touch().max(self.sent_away);
        if now.since(since) >= CUT_OFF_AFTER {
            self.sent_away = now;
            self.node.send_away(now);
        }
    }

    /// Passes on what the replica has for clients and peers.
    fn carry_out(&mut self, now: Instant) {
        self.node.applied(self.replica.applied());
        while let Some(told) = self.replica.poll_told() {
            self.node.tell(now, told.client, told.message);
        }
        while let Some(read) = self.replica.poll_read() {
            if self.has_place(now, read) {
                self.answer_read(now, read);
            }
        }
        while let Some(packet) = self.replica.poll_packet() {
            self.peers.send(now, &mut self.node, &mut self.receipts, packet);
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Command(mut command) => {
                self.judge(&mut command);
                if let Err(command) = self.replica.command(now, command)
                    && let Some(busy) = command.push_back(BUSY)
                {
                    self.node.tell(now, command.client(), busy);
                }
            }
            Event::Request(request) => self.requested(now, request),
            Event::Placed(place) => self.placed(now, place),
            Event::Refused(place, why) => self.not_placed(now, place, why),
            Event::Query(query) => {
                let read = self.note_read(Read::Question(Box::new(query)));
                self.replica.read(read);
            }
            Event::Cancelled(key) => match self.read_of.remove(&key) {
                Some(read) => {
                    if let Some(Read::Call(call)) = self.reads.remove(&read) {
                        self.withdraw(now, call.place);
                    }
                    self.watches.remove(read);
                }
                None => self.events.push_back(GroupEvent::Node(Event::Cancelled(key))),
            },
            Event::Resolved(key, result) => {
                let left = result.as_ref().err().is_some_and(roster::says_left);
                match self.peers.ended(now, &mut self.node, key, result.as_ref().ok()) {
                    Ended::NoPeers => {
                        self.events.push_back(GroupEvent::Node(Event::Resolved(key, result)));
                    }
                    Ended::Over if left => self.replica.expel(),
                    Ended::Over => {}
                    Ended::Told(from, packet) => self.arrived(now, from, Arrived::Packet(packet)),
                }
            }
            event => self.events.push_back(GroupEvent::Node(event)),
        }
    }

    fn requested(&mut self, now: Instant, request: IncomingRequest) {
        if [TELL.id(), BEAT.id()].contains(&request.method) {
            return self.told_by_peer(now, request);
        }
        let Some(request) = self.let_in(now, request) else { return };
        let known = self.replica.has(request.method);
        if !known || request.kind != RequestKind::Read {
            return self.events.push_back(GroupEvent::Node(Event::Request(request)));
        }
        let IncomingRequest { key, method, call, stale, watch, .. } = request;
        let (request, context) = call.into_parts();
        let stale = stale.map(|stale| *stale);
        let read = self.note_read(match watch {
            Some(watch) => Read::Watch(Box::new(Watching { key, method, request, watch: *watch })),
            None => Read::Call(ReadCall {
                key,
                came: now,
                method,
                request,
                deadline: context.deadline,
                priority: Priority::of(&context.metadata),
                stale,
                place: None,
            }),
        });
        self.read_of.insert(key, read);
        self.begin_read(now, read, stale);
    }

    /// A read is answered when the state is known to be new enough.
    fn begin_read(&mut self, now: Instant, read: u64, stale: Option<Staleness>) {
        match stale {
            None => self.replica.read(read),
            Some(stale) => {
                self.impatient.push_back((now + STALE_PATIENCE, read));
                self.replica.read_stale(now, read, stale);
            }
        }
    }

    fn note_read(&mut self, read: Read) -> u64 {
        self.next_read += 1;
        self.reads.insert(self.next_read, read);
        self.next_read
    }

    /// Sends clients elsewhere whose reads have waited for the leader long enough.
    fn push_back_reads(&mut self, now: Instant) {
        while let Some((_, read)) = self.impatient.pop_front_if(|(until, _)| *until <= now) {
            let found = match self.reads.get(&read) {
                Some(Read::Call(call)) => Some((call.key, call.place)),
                Some(Read::Watch(watching)) => Some((watching.key, None)),
                Some(Read::Question(_)) | None => None,
            };
            if let Some((key, place)) = found {
                self.reads.remove(&read);
                self.read_of.remove(&key);
                self.withdraw(now, place);
                self.node.too_stale(now, key);
            }
        }
    }

    fn answer_read(&mut self, now: Instant, read: u64) {
        match self.reads.remove(&read) {
            Some(Read::Call(ReadCall { key, came, method, request, place, .. })) => {
                self.read_of.remove(&key);
                let answer = self.replica.query(method, &request);
                self.replica.served.note(method, Ending::of(&answer), now.since(came));
                self.node.answer(now, key, answer);
                self.places.answered(place);
            }
            Some(Read::Watch(watching)) => self.watch(now, read, *watching),
            Some(Read::Question(query)) => {
                let finding = self.replica.find(&query);
                self.node.answer_query(now, query.key, finding);
            }
            None => {} // cancelled
        }
    }

    /// Answers a question for what follows in a stream of reads, or keeps it.
    fn watch(&mut self, now: Instant, read: u64, mut watching: Watching) {
        match watching.find(self.replica.machines()) {
            what @ (Found::Nothing | Found::Unfinished) => {
                self.replica.is_fresh(now, FRESH);
                let seen = matches!(what, Found::Nothing);
                self.watches.keep(now, read, watching, seen);
            }
            what => self.answer_watch(now, watching.key, what),
        }
    }

    /// Answers questions for which there is something now.
    fn show_watches(&mut self, now: Instant) {
        let applied = self.replica.applied();
        for (key, what) in self.watches.look(now, applied, self.replica.machines()) {
            self.answer_watch(now, key, what);
        }
    }

    /// Answers questions that were kept for long enough.
    fn end_watches(&mut self, now: Instant) {
        while let Some(watching) = self.watches.take_over(now) {
            if self.replica.is_fresh(now, FRESH) {
                let nothing = Found::Messages(watching.watch.position, Batch::new());
                self.answer_watch(now, watching.key, nothing);
            } else {
                self.read_of.remove(&watching.key);
                self.node.too_stale(now, watching.key);
            }
        }
    }

    fn answer_watch(&mut self, now: Instant, key: RequestKey, what: Found) {
        self.read_of.remove(&key);
        match what {
            Found::Messages(position, messages) => {
                self.node.answer_watch(now, key, position, messages);
            }
            Found::End(answer) => self.node.answer(now, key, answer),
            Found::Nothing | Found::Unfinished => {}
        }
    }

    fn arrived(&mut self, now: Instant, from: NodeId, arrived: Arrived) {
        let taken = match arrived {
            Arrived::Packet(packet) => self.replica.receive(now, from, &packet),
            Arrived::Begun(packet) => self.replica.begin_snapshot(from, &packet),
            Arrived::State(bytes) => {
                self.replica.snapshot_piece(from, &bytes);
                Ok(())
            }
            Arrived::Ended => self.replica.end_snapshot(now, from),
        };
        if let Err(error) = taken {
            self.refused = Some((from, error));
        }
    }

    /// The node with this key has left for good: it was removed, and consensus does without it.
    fn has_left(&self, key: &[u8]) -> Option<NodeId> {
        let left = self.replica.roster().has_left(key)?;
        self.replica.does_without(left).then_some(left)
    }

    /// A node of the group tells something; that it is one, its certificate proves.
    fn told_by_peer(&mut self, now: Instant, request: IncomingRequest) {
        let IncomingRequest { key, method, call, .. } = request;
        let (request, context) = call.into_parts();
        let identity = context.peer.identity;
        let directly = context.peer.address.filter(|address| node_at(*address).is_none());
        let from = identity.and_then(|identity| self.peers.find(&self.node, &identity));
        let answer = match (from, request.verified(method)) {
            (Some(from), Ok(body)) => {
                match self.peers.heard(now, &mut self.node, from, directly, &body) {
                    Some(Heard::Packet(packet)) => {
                        self.arrived(now, from, Arrived::Packet(packet));
                        if method == TELL.id() {
                            return self.receipts.owe(now, &mut self.node, from, key);
                        }
                    }
                    Some(Heard::Pieces(arrived)) => {
                        arrived.into_iter().for_each(|arrived| self.arrived(now, from, arrived));
                    }
                    Some(Heard::Datagram(datagram)) => self.node.handle(now, datagram),
                    Some(Heard::Hello) if self.peers.is_direct(now, from) => {
                        self.replica.is_heard_by(from);
                    }
                    Some(Heard::Who) => self.tell_peer_members(now, from),
                    Some(Heard::Members(hearsay)) => self.heard_of_members(now, hearsay),
                    Some(Heard::Hello) | None => {}
                }
                Answer::Reply(Encoded::from_body(method, bytes::Bytes::new()), Metadata::new())
            }
            (None, _) => {
                if identity.is_some() {
                    self.peers.meet(now, &mut self.node);
                    self.ask_for_members(now);
                }
                let left = identity.and_then(|key| self.has_left(&key));
                Answer::Status(match left {
                    Some(node) => roster::left(node),
                    None => Status::permission_denied("only nodes of the group may"),
                })
            }
            (_, Err(error)) => Answer::unreadable(error),
        };
        self.node.answer(now, key, answer);
    }
}

impl fmt::Debug for GroupNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupNode({:?})", self.replica)
    }
}

#[cfg(test)]
mod tests;
