//! The other nodes of the group: channels to them, who they are proved to be, and through whom they
//! are reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use stubborn_core::limits::{MIN_DATAGRAM, RELAYED_AT_ONCE};
use stubborn_core::node::{CallKey, ChannelConfig, ChannelKey, Node};
use stubborn_core::service::{
    Encoded, IncomingReply, Metadata, Method, OutgoingCall, Semantics, Shape,
};
use stubborn_core::time::{Duration, Instant};
use stubborn_core::transport::endpoint::{Ecn, Received};

use super::config::{GroupConfig, Peer};
use super::overlay::{MOST_RELAYS, Overlay};
use super::pieces::{Arrival, Arrived, Departure, Piece};
use super::receipts::{self, Receipts};
use super::relay::{AROUND, Allowance, Relayed, made_up};
use super::roster::Hearsay;
use crate::replica::{Packet, PacketKind, Seat};
use crate::replication::NodeId;

/// What nodes of a group tell one another, so that it arrives if it can.
pub(super) const TELL: Method =
    Method::new("stubborn.group.v1.Peer/Tell", Semantics::Read, Shape::Unary);

/// The same, at most once, in one datagram.
pub(super) const BEAT: Method =
    Method::new("stubborn.group.v1.Peer/Beat", Semantics::Maybe, Shape::Unary);

/// Bytes of a packet that fits into a datagram with all that is around it.
const BEAT_BYTES: usize = 900;

/// Packets under way to a peer at once; a further one is dropped, and consensus makes up for it.
const UNDER_WAY: usize = 256;

/// How long a packet is under way at most.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// The first byte of what a peer tells: a whole packet, or a piece of one; whom it hears; a datagram
/// that is relayed; that it asks who the members are; or who they are.
const WHOLE: u8 = 0;
const PART: u8 = 4;
const HELLO: u8 = 2;
const RELAYED: u8 = 3;
const WHO: u8 = 5;
const MEMBERS: u8 = 6;

/// Places besides its address at which a peer is looked for because of orders in the log.
const PLACES: usize = 4;

/// Ticks between two hellos to a node that is heard.
const HELLO_TICKS: u32 = 2;

#[derive(Debug)]
pub(super) struct Peers {
    id: NodeId,
    config: GroupConfig,
    links: BTreeMap<NodeId, Link>,
    calls: BTreeMap<CallKey, Sent>,
    /// The number of the last packet that was sent in pieces. The first one is drawn at each start: else
    /// a receiver would put the rest of a packet behind the beginning of one from before a restart.
    departures: u64,
    overlay: Overlay,
    greets_at: Instant,
    allowance: Allowance,
}

#[derive(Debug)]
struct Link {
    peer: Peer,
    /// Where it spoke from last, if that is somewhere else than it is said to be: it may have moved, and
    /// this node may not know yet that the group has agreed to it, or need its vote to learn that.
    spoke_from: Option<SocketAddr>,
    /// Where it is to be by orders of which this node does not know that they are committed.
    ordered: Vec<SocketAddr>,
    direct: Lane,
    /// The way through other nodes, once it was needed.
    relayed: Option<Lane>,
    /// Who is at its address, under its name.
    seen: Option<[u8; 32]>,
    /// Whether it is being asked, until it answers, whether it is reached directly.
    knocks: bool,
    /// Datagrams that are relayed by it, of those that are repeated.
    relays: usize,
    departure: Option<Departure>,
    arrival: Arrival,
}

/// One of the ways to a peer.
#[derive(Clone, Copy, Debug)]
struct Lane {
    channel: ChannelKey,
    under_way: usize,
}

/// Which of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Relayed,
}

/// What is under way to a peer.
#[derive(Clone, Copy, Debug)]
struct Sent {
    to: NodeId,
    by: Way,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Packet,
    /// The packet's number and the place of the piece.
    Piece(u64, u64),
    Knock,
    Relayed,
}

/// What the end of a call means.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was none to a peer.
    NoPeers,
    /// Nothing more.
    Over,
    /// The peer had something to tell in turn: a packet for the replica.
    Told(NodeId, Bytes),
}

/// What a peer has told.
#[derive(Debug)]
pub(super) enum Heard {
    /// A whole packet for the replica.
    Packet(Bytes),
    /// What came in pieces.
    Pieces(Vec<Arrived>),
    /// Whom it hears.
    Hello,
    /// A datagram that another node has sent through this peer.
    Datagram(Received),
    /// It asks who the members are.
    Who,
    /// It says who they are.
    Members(Hearsay),
}

impl Peers {
    /// Packets in pieces are numbered from `departures` on, which must be drawn.
    pub(super) fn new(
        now: Instant,
        node: &mut Node,
        config: &GroupConfig,
        departures: u64,
    ) -> Self {
        let mut peers = Self {
            id: config.id,
            config: config.clone(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            departures,
            overlay: Overlay::new(now, silence(config), std::iter::empty()),
            greets_at: now + config.settings.tick * HELLO_TICKS,
            allowance: Allowance::new(now),
        };
        config.peers.iter().for_each(|peer| peers.set(now, node, peer.clone()));
        peers
    }

    /// A peer is there, or somewhere else than before.
    fn set(&mut self, now: Instant, node: &mut Node, peer: Peer) {
        if peer.id == self.id {
            return;
        }
        if let Some(link) = self.links.get_mut(&peer.id) {
            let moved = link.peer.address != peer.address;
            link.peer = peer;
            if moved {
                link.ordered.clear();
                node.set_targets(now, link.direct.channel, link.addresses());
            }
            return;
        }
        let channel = node.open_channel(now, channel(&peer, peer.address, &self.config));
        self.overlay.add(now, peer.id);
        let link = Link {
            peer,
            spoke_from: None,
            ordered: Vec::new(),
            direct: Lane { channel, under_way: 0 },
            relayed: None,
            seen: None,
            knocks: false,
            relays: 0,
            departure: None,
            arrival: Arrival::default(),
        };
        self.links.insert(link.peer.id, link);
    }

    /// The group's members, and where they are: those that this node is configured with stay where its
    /// configuration says, as long as the group has not changed its `founders`. Who is no member is
    /// spoken to no more. Returns those whose names are to be looked up.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        node: &mut Node,
        seats: &[(NodeId, Seat)],
        founders: bool,
    ) -> Vec<(NodeId, String)> {
        let named = |id: &NodeId| seats.iter().any(|(seat, _)| seat == id);
        let gone: Vec<NodeId> = self.links.keys().copied().filter(|id| !named(id)).collect();
        for id in gone {
            self.overlay.remove(id);
            self.calls.retain(|_, sent| sent.to != id);
            let lanes =
                self.links.remove(&id).map(|link| link.lanes().copied().collect::<Vec<_>>());
            for lane in lanes.unwrap_or_default() {
                node.close_channel(now, lane.channel);
            }
        }
        let mut unknown = Vec::new();
        for (id, seat) in seats {
            if founders && let Some(link) = self.links.get_mut(id) {
                link.peer.identity = seat.key.as_slice().try_into().ok().or(link.peer.identity);
                continue;
            }
            match seat.address.parse() {
                Ok(address) => self.found(now, node, *id, seat, address),
                Err(_) => unknown.push((*id, seat.address.clone())),
            }
        }
        unknown
    }

    /// A member is at this address.
    pub(super) fn found(
        &mut self,
        now: Instant,
        node: &mut Node,
        id: NodeId,
        seat: &Seat,
        address: SocketAddr,
    ) {
        let name = (self.config.name_of)(id);
        let identity = seat.key.as_slice().try_into().ok();
        self.set(now, node, Peer { id, address, name, identity });
    }

    /// A peer may be at this address, too: whoever is there must show the peer's name.
    pub(super) fn may_be_at(
        &mut self,
        now: Instant,
        node: &mut Node,
        id: NodeId,
        address: SocketAddr,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.addresses().contains(&address) {
            link.ordered.truncate(PLACES - 1);
            link.ordered.insert(0, address);
            node.set_targets(now, link.direct.channel, link.addresses());
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.links.is_empty()).then_some(self.greets_at)
    }

    /// Tells everybody whom this node hears, when that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, node: &mut Node) {
        if now < self.greets_at {
            return;
        }
        let pause = self.config.settings.tick * HELLO_TICKS;
        let late = now.since(self.greets_at);
        self.greets_at = if late > pause { now + pause } else { self.greets_at + pause };
        for (id, link) in &mut self.links {
            let mut hello = vec![HELLO];
            hello.append(&mut self.overlay.hello(now, *id));
            let connected = node.channel_connection(link.direct.channel).is_some();
            if connected && self.overlay.hears(now, *id) {
                tell_once(now, node, link.direct.channel, hello);
            } else if !link.knocks {
                // This also makes a connection where there is none, and wakes one that is silent.
                link.knocks = true;
                let mut knock = call(&TELL, hello);
                knock.deadline = Some(silence(&self.config) * 2);
                let key = node.call(now, link.direct.channel, knock);
                self.calls.insert(key, Sent { to: *id, by: Way::Direct, what: What::Knock });
            }
        }
    }

    /// Through whom a peer is reached that this node cannot reach by itself.
    pub(super) fn relay(&self, now: Instant, to: NodeId) -> Option<NodeId> {
        self.overlay.relay(now, to)
    }

    /// Whether a peer and this node hear each other, with nobody between.
    pub(super) fn is_direct(&self, now: Instant, id: NodeId) -> bool {
        self.overlay.is_direct(now, id)
    }

    /// The peer that has this identity.
    pub(super) fn find(&mut self, node: &Node, identity: &[u8; 32]) -> Option<NodeId> {
        for (id, link) in &mut self.links {
            let known = link.peer.identity.or_else(|| {
                let shown = link.lanes().find_map(|lane| identity_at(node, lane));
                link.seen = shown.or(link.seen);
                link.seen
            });
            if known.as_ref() == Some(identity) {
                return Some(*id);
            }
        }
        None
    }

    /// Somebody speaks whom this node does not know. It may be a peer whose certificate it has not
    /// seen, because it had nothing to tell it: those are connected to.
    pub(super) fn meet(&mut self, now: Instant, node: &mut Node) {
        let ids: Vec<NodeId> = self.links.keys().copied().collect();
        for id in ids {
            let link = &self.links[&id];
            let unknown = link.peer.identity.is_none()
                && link.lanes().all(|lane| {
                    node.channel_connection(lane.channel).is_none() && lane.under_way == 0
                });
            if unknown {
                self.tell(now, node, id, Vec::new());
            }
        }
    }

    /// Sends a packet: with a receipt that its receiver waits for, if there is one.
    pub(super) fn send(
        &mut self,
        now: Instant,
        node: &mut Node,
        receipts: &mut Receipts,
        packet: Packet,
    ) {
        let Packet { to, bytes, kind, state } = packet;
        let size = self.config.settings.piece_bytes;
        if state.is_some() || bytes.len() > size {
            let Some(link) = self.links.get_mut(&to) else { return };
            // Of large packets the one that is under way comes first.
            if link.departure.is_none() {
                self.departures = self.departures.wrapping_add(1);
                let number = self.departures;
                link.departure = Some(match state {
                    Some(state) => Departure::state(number, size, &bytes, &state),
                    None => Departure::packet(number, size, bytes),
                });
                self.send_pieces(now, node, to);
            }
            return;
        }
        let Some((_, lane)) = self.lane(now, node, to) else { return };
        let mut body = Vec::with_capacity(bytes.len() + 1);
        body.push(WHOLE);
        body.extend_from_slice(&bytes);
        // Only what waits for a connection has one made.
        let connected = node.channel_connection(lane.channel).is_some();
        if kind == PacketKind::Beat && bytes.len() <= BEAT_BYTES && connected {
            tell_once(now, node, lane.channel, body);
        } else if let Some(key) = receipts.take(to) {
            receipts::answer(now, node, key, body.into());
        } else {
            self.tell(now, node, to, body);
        }
    }

    /// Asks everybody who the members are.
    pub(super) fn ask_for_members(&mut self, now: Instant, node: &mut Node) {
        self.tell_all(now, node, &[WHO]);
    }

    /// Tells everybody with which folder this node begins.
    pub(super) fn introduce(&mut self, now: Instant, node: &mut Node, packet: &[u8]) {
        self.tell_all(now, node, &[&[WHOLE], packet].concat());
    }

    fn tell_all(&mut self, now: Instant, node: &mut Node, body: &[u8]) {
        let ids: Vec<NodeId> = self.links.keys().copied().collect();
        ids.into_iter().for_each(|id| self.tell(now, node, id, body.to_vec()));
    }

    /// Tells a peer who the members are.
    pub(super) fn tell_members(
        &mut self,
        now: Instant,
        node: &mut Node,
        to: NodeId,
        members: &Hearsay,
    ) {
        let mut body = vec![MEMBERS];
        members.encode(&mut body);
        self.tell(now, node, to, body);
    }

    /// Tells a peer something so that it arrives if it can, unless too much is under way to it.
    fn tell(&mut self, now: Instant, node: &mut Node, to: NodeId, body: Vec<u8>) {
        let Some((by, lane)) = self.lane(now, node, to) else { return };
        if lane.under_way < UNDER_WAY {
            lane.under_way += 1;
            let key = node.call(now, lane.channel, call(&TELL, body));
            self.calls.insert(key, Sent { to, by, what: What::Packet });
        }
    }

    /// Those to whom something large is on its way.
    pub(super) fn sending(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.iter().filter(|(_, link)| link.departure.is_some()).map(|(id, _)| *id)
    }

    /// The number of what is on its way to a peer in pieces.
    #[cfg(test)]
    pub(super) fn departing(&self, to: NodeId) -> Option<u64> {
        self.links[&to].departure.as_ref().map(Departure::number)
    }

    /// Has a datagram for a peer passed on by a neighbour, if there is one that can.
    pub(super) fn pass(&mut self, now: Instant, node: &mut Node, to: NodeId, datagram: &[u8]) {
        let datagram = Bytes::copy_from_slice(datagram);
        self.send_on(now, node, Relayed { from: self.id, to, hops: MOST_RELAYS, datagram });
    }

    /// Sends a datagram to the next node on its way.
    fn send_on(&mut self, now: Instant, node: &mut Node, relayed: Relayed) {
        let through = match self.overlay.is_direct(now, relayed.to) {
            true => relayed.to,
            false => match self.overlay.relay(now, relayed.to) {
                Some(through) => through,
                None => return,
            },
        };
        let Some(link) = self.links.get_mut(&through) else { return };
        let channel = link.direct.channel;
        let size = relayed.datagram.len();
        let mut body = Vec::with_capacity(size + AROUND);
        body.push(RELAYED);
        relayed.encode(&mut body);
        // A datagram that does not fit into another one is too large for this path, unless all paths
        // must carry it.
        if size + AROUND <= room(node, channel) {
            tell_once(now, node, channel, body);
        } else if size <= MIN_DATAGRAM && link.relays < RELAYED_AT_ONCE {
            link.relays += 1;
            let key = node.call(now, channel, call(&TELL, body));
            self.calls.insert(key, Sent { to: through, by: Way::Direct, what: What::Relayed });
        }
    }

    /// The way to a peer that works, as far as is known.
    fn lane(&mut self, now: Instant, node: &mut Node, to: NodeId) -> Option<(Way, &mut Lane)> {
        let relayed = self.overlay.relay(now, to).is_some();
        let link = self.links.get_mut(&to)?;
        if !relayed {
            return Some((Way::Direct, &mut link.direct));
        }
        let (peer, config) = (&link.peer, &self.config);
        let lane = link.relayed.get_or_insert_with(|| {
            let config = channel(peer, made_up(to), config);
            Lane { channel: node.open_channel(now, config), under_way: 0 }
        });
        Some((Way::Relayed, lane))
    }

    fn send_pieces(&mut self, now: Instant, node: &mut Node, to: NodeId) {
        let Some((by, lane)) = self.lane(now, node, to) else { return };
        let channel = lane.channel;
        let departure = self.links.get_mut(&to).and_then(|link| link.departure.as_mut());
        let Some(departure) = departure else { return };
        while let Some(piece) = departure.next() {
            let mut body = Vec::with_capacity(piece.bytes.len() + 32);
            body.push(PART);
            piece.encode(&mut body);
            let key = node.call(now, channel, call(&TELL, body));
            self.calls.insert(key, Sent { to, by, what: What::Piece(piece.of, piece.at) });
        }
    }

    /// A call has ended; if it was one to a peer, and arrived, with what it was answered.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        node: &mut Node,
        key: CallKey,
        answer: Option<&IncomingReply>,
    ) -> Ended {
        let Some(Sent { to, by, what }) = self.calls.remove(&key) else { return Ended::NoPeers };
        let arrived = answer.is_some();
        if arrived && by == Way::Direct {
            self.overlay.heard(now, to);
        }
        let Some(link) = self.links.get_mut(&to) else { return Ended::Over };
        match (what, &mut link.departure) {
            (What::Packet, _) => match (by, &mut link.relayed) {
                (Way::Relayed, Some(lane)) => lane.under_way -= 1,
                _ => link.direct.under_way -= 1,
            },
            (What::Knock, _) => link.knocks = false,
            (What::Relayed, _) => link.relays -= 1,
            (What::Piece(of, at), Some(departure)) if departure.number() == of => {
                departure.ended(at, arrived);
                if departure.is_over() {
                    link.departure = None;
                }
                self.send_pieces(now, node, to);
            }
            (What::Piece(..), _) => {}
        }
        let told = answer.and_then(|answer| self.told(node, to, by, answer));
        told.map_or(Ended::Over, |packet| Ended::Told(to, packet))
    }

    /// The packet in what a peer has answered, if there is one and the peer is who it is to be.
    fn told(&self, node: &Node, from: NodeId, by: Way, answer: &IncomingReply) -> Option<Bytes> {
        let body = answer.reply.verified(TELL.id()).ok()?;
        let packet = body.first().is_some_and(|first| *first == WHOLE).then(|| body.slice(1..))?;
        let link = self.links.get(&from)?;
        let lane = match by {
            Way::Direct => &link.direct,
            Way::Relayed => link.relayed.as_ref()?,
        };
        let proved = identity_at(node, lane)?;
        link.peer.identity.is_none_or(|known| known == proved).then_some(packet)
    }

    /// What a peer has told, directly from an address or through others. None if it is not for the
    /// replica, and for what is malformed.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        node: &mut Node,
        from: NodeId,
        at: Option<SocketAddr>,
        body: &Bytes,
    ) -> Option<Heard> {
        let directly = at.is_some();
        if let Some(at) = at {
            self.overlay.heard(now, from);
            self.spoke_from(now, node, from, at);
        }
        match *body.first()? {
            WHOLE => Some(Heard::Packet(body.slice(1..))),
            PART => {
                let piece = Piece::decode(&body.slice(1..))?;
                Some(Heard::Pieces(self.links.get_mut(&from)?.arrival.take(piece)))
            }
            HELLO if directly => {
                self.overlay.greeted(now, self.id, from, &body[1..]);
                Some(Heard::Hello)
            }
            WHO => Some(Heard::Who),
            MEMBERS => Hearsay::decode(&body[1..]).map(Heard::Members),
            RELAYED if directly => self.relayed(now, node, Relayed::decode(&body.slice(1..))?),
            _ => None,
        }
    }

    /// A peer, as its certificate proves, speaks from an address: it is spoken to there as well where it
    /// does not answer at its own. Whoever is there must show the peer's name, too.
    fn spoke_from(&mut self, now: Instant, node: &mut Node, from: NodeId, at: SocketAddr) {
        let Some(link) = self.links.get_mut(&from) else { return };
        if link.peer.address != at && link.spoke_from != Some(at) {
            link.spoke_from = Some(at);
            node.set_targets(now, link.direct.channel, link.addresses());
        }
    }

    /// A datagram came that was sent through others: it is for this node, or to be passed on.
    fn relayed(&mut self, now: Instant, node: &mut Node, relayed: Relayed) -> Option<Heard> {
        if relayed.to == self.id {
            return self.links.contains_key(&relayed.from).then(|| {
                let data = BytesMut::from(&relayed.datagram[..]);
                let from = made_up(relayed.from);
                Heard::Datagram(Received { from, local: None, ecn: Ecn::NotEct, data })
            });
        }
        if let Some(hops) = relayed.hops.checked_sub(1)
            && self.allowance.take(now, relayed.datagram.len())
        {
            self.send_on(now, node, Relayed { hops, ..relayed });
        }
        None
    }
}

impl Link {
    /// Where it may be, the likeliest first.
    fn addresses(&self) -> Vec<SocketAddr> {
        let from = self.spoke_from.filter(|from| *from != self.peer.address);
        let ordered = self.ordered.iter().copied().filter(|at| Some(*at) != from);
        std::iter::once(self.peer.address).chain(from).chain(ordered).collect()
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.direct).chain(&self.relayed)
    }
}

/// Who is at the other end, under the name of the peer.
fn identity_at(node: &Node, lane: &Lane) -> Option<[u8; 32]> {
    let connection = node.channel_connection(lane.channel)?;
    let proved = node.endpoint().connection(connection)?.peer_identity()?;
    Some(proved.key_digest)
}

/// The largest body that is sent in one datagram.
fn room(node: &Node, channel: ChannelKey) -> usize {
    let connection = node.channel_connection(channel);
    let connection = connection.and_then(|handle| node.endpoint().connection(handle));
    connection.and_then(|connection| connection.max_unreliable()).unwrap_or(0)
}

/// How long a node is silent before others are asked for help: a part of an election timeout, as a
/// follower that the leader does not reach shall hear of it in time.
fn silence(config: &GroupConfig) -> Duration {
    config.settings.tick * config.settings.consensus.election
}

/// Sends something in a datagram, once, if there is a connection.
fn tell_once(now: Instant, node: &mut Node, channel: ChannelKey, body: Vec<u8>) {
    // It resolves at once; that nobody was told is not worth a word.
    let key = node.call(now, channel, call(&BEAT, body));
    node.abandon(now, key);
}

fn channel(peer: &Peer, address: SocketAddr, config: &GroupConfig) -> ChannelConfig {
    let patience = config.settings.tick * config.settings.consensus.election;
    ChannelConfig {
        targets: vec![address],
        session: false,
        wait_for_ready: true,
        backoff_min: patience / 4,
        backoff_max: patience * 2,
        attempt_timeout: patience * 10,
        // Nodes that are further apart cannot keep a leader. Without it a node that was started again
        // waits a second where its first datagram is lost, and the group waits for the node.
        expected_rtt: Some(patience / 5),
        ..ChannelConfig::new(peer.name.clone(), config.client.clone())
    }
}

fn call(method: &Method, body: Vec<u8>) -> OutgoingCall {
    OutgoingCall {
        method: method.clone(),
        request: Encoded::from_body(method.id(), body.into()),
        metadata: Metadata::new(),
        deadline: Some(PATIENCE),
        wait_for_ready: None,
        reserved: None,
        max_staleness: None,
    }
}
