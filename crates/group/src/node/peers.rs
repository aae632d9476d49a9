//! The other nodes of the group: channels to them, and who they are proved to be.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::node::{CallKey, ChannelConfig, ChannelKey, Node};
use stubborn_core::service::{Encoded, Metadata, Method, OutgoingCall, Semantics, Shape};
use stubborn_core::time::{Duration, Instant};

use super::config::{GroupConfig, Peer};
use super::pieces::{Arrival, Departure, PIECE, Piece};
use crate::replica::{Packet, PacketKind};
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

/// The largest packet that is put together from pieces: what bounds a snapshot.
pub(super) const MAX_PACKET: u64 = 4 << 30;

/// The first byte of what a peer tells: a whole packet, or a piece of one.
const WHOLE: u8 = 0;
const PART: u8 = 1;

#[derive(Debug)]
pub(super) struct Peers {
    links: BTreeMap<NodeId, Link>,
    calls: BTreeMap<CallKey, Sent>,
    /// Packets that were sent in pieces.
    departures: u64,
}

#[derive(Debug)]
struct Link {
    peer: Peer,
    channel: ChannelKey,
    /// Who is at its address, under its name.
    seen: Option<[u8; 32]>,
    under_way: usize,
    departure: Option<Departure>,
    arrival: Arrival,
}

/// A packet or a piece under way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    to: NodeId,
    /// The packet's number and the place of the piece.
    piece: Option<(u64, u64)>,
}

impl Peers {
    pub(super) fn new(now: Instant, node: &mut Node, config: &GroupConfig) -> Self {
        let links = config.peers.iter().filter(|peer| peer.id != config.id).map(|peer| {
            let channel = node.open_channel(now, channel(peer, config));
            let link = Link {
                peer: peer.clone(),
                channel,
                seen: None,
                under_way: 0,
                departure: None,
                arrival: Arrival::default(),
            };
            (peer.id, link)
        });
        Self { links: links.collect(), calls: BTreeMap::new(), departures: 0 }
    }

    /// The peer that has this identity.
    pub(super) fn find(&mut self, node: &Node, identity: &[u8; 32]) -> Option<NodeId> {
        for (id, link) in &mut self.links {
            let known = link.peer.identity.or_else(|| {
                let connection = node.channel_connection(link.channel)?;
                let proved = node.endpoint().connection(connection)?.peer_identity()?;
                link.seen = Some(proved.key_digest);
                link.seen
            });
            if known.or(link.seen).as_ref() == Some(identity) {
                return Some(*id);
            }
        }
        None
    }

    /// Somebody speaks whom this node does not know. It may be a peer whose certificate it has not
    /// seen, because it had nothing to tell it: those are connected to.
    pub(super) fn meet(&mut self, now: Instant, node: &mut Node) {
        for (id, link) in &mut self.links {
            let unknown = link.peer.identity.is_none()
                && node.channel_connection(link.channel).is_none()
                && link.under_way == 0;
            if unknown {
                link.under_way += 1;
                let key = node.call(now, link.channel, call(&TELL, Vec::new()));
                self.calls.insert(key, Sent { to: *id, piece: None });
            }
        }
    }

    pub(super) fn send(&mut self, now: Instant, node: &mut Node, packet: Packet) {
        let Packet { to, bytes, kind } = packet;
        let Some(link) = self.links.get_mut(&to) else { return };
        if bytes.len() > PIECE {
            // Of large packets the one that is under way comes first.
            if link.departure.is_none() {
                self.departures += 1;
                link.departure = Some(Departure::new(self.departures, bytes));
                self.send_pieces(now, node, to);
            }
            return;
        }
        let mut body = Vec::with_capacity(bytes.len() + 1);
        body.push(WHOLE);
        body.extend_from_slice(&bytes);
        // Only what waits for a connection has one made.
        let connected = node.channel_connection(link.channel).is_some();
        if kind == PacketKind::Beat && bytes.len() <= BEAT_BYTES && connected {
            // It resolves at once; that nobody was told is not worth a word.
            let key = node.call(now, link.channel, call(&BEAT, body));
            node.abandon(now, key);
        } else if link.under_way < UNDER_WAY {
            link.under_way += 1;
            let key = node.call(now, link.channel, call(&TELL, body));
            self.calls.insert(key, Sent { to, piece: None });
        }
    }

    fn send_pieces(&mut self, now: Instant, node: &mut Node, to: NodeId) {
        let Some(link) = self.links.get_mut(&to) else { return };
        let Some(departure) = &mut link.departure else { return };
        while let Some(piece) = departure.next() {
            let mut body = Vec::with_capacity(piece.bytes.len() + 32);
            body.push(PART);
            piece.encode(&mut body);
            let key = node.call(now, link.channel, call(&TELL, body));
            self.calls.insert(key, Sent { to, piece: Some((piece.of, piece.at)) });
        }
    }

    /// A call has ended. Returns whether it was one to a peer.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        node: &mut Node,
        key: CallKey,
        arrived: bool,
    ) -> bool {
        let Some(Sent { to, piece }) = self.calls.remove(&key) else { return false };
        let Some(link) = self.links.get_mut(&to) else { return true };
        match (piece, &mut link.departure) {
            (None, _) => link.under_way -= 1,
            (Some((of, at)), Some(departure)) if departure.number() == of => {
                departure.ended(at, arrived);
                if departure.is_over() {
                    link.departure = None;
                }
                self.send_pieces(now, node, to);
            }
            (Some(_), _) => {}
        }
        true
    }

    /// What a peer has told: the packet, if it is whole. None also for what is malformed.
    pub(super) fn heard(&mut self, from: NodeId, body: &Bytes) -> Option<Bytes> {
        match *body.first()? {
            WHOLE => Some(body.slice(1..)),
            PART => {
                let piece = Piece::decode(&body.slice(1..))?;
                self.links.get_mut(&from)?.arrival.take(piece, MAX_PACKET)
            }
            _ => None,
        }
    }
}

fn channel(peer: &Peer, config: &GroupConfig) -> ChannelConfig {
    let patience = config.settings.tick * config.settings.consensus.election;
    ChannelConfig {
        targets: vec![peer.address],
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
