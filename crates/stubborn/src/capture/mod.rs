//! Opens captured packets with the secrets of a key log ([`KeyLog`](crate::KeyLog)).
//!
//! For tools: `stubborn pcap` makes of a capture one that a dissector can read. Whoever listens follows
//! a connection from its first packet on: of one that was captured from the middle nothing is opened.

mod connection;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use stubborn_core::wire::frame::{Frame, Frames};
use stubborn_core::wire::packet::{Packet, ProtectedPacket};
use stubborn_core::wire::{PacketType, Side, VERSION};
use stubborn_tls::LoggedSecrets;

use connection::Watched;
use messages::Messages;
pub use messages::WholeMessage;

/// Bytes of the ids of connections that endpoints issue (docs/protocol.md section 1).
const ID_LENGTH: usize = 8;

/// The least that a packet with a short header has: flags, id, number, and a sample of what is sealed.
const SHORTEST: usize = 1 + ID_LENGTH + 4 + 16;

/// A packet of a captured datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CapturedPacket {
    /// As it was captured: it says everything in clear, or could not be opened.
    Sealed(Bytes),
    /// Without its protection.
    Opened(OpenedPacket),
}

/// A packet without its protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedPacket {
    /// Who sent it.
    pub sender: Side,
    /// Its number in its space.
    pub number: u64,
    /// The key phase; false in packets with long headers.
    pub key_phase: bool,
    /// The header as it was captured, up to the packet number.
    pub header: Bytes,
    /// The frames.
    pub frames: Bytes,
    /// The messages in several packets of which this one was the last that was missing.
    pub messages: Vec<WholeMessage>,
}

/// Follows the connections of a capture.
pub struct Opener {
    secrets: LoggedSecrets,
    connections: Vec<Watched>,
    /// Which connection an id belongs to, and who sends to it.
    ids: BTreeMap<Vec<u8>, (usize, Side)>,
    messages: Messages,
}

impl Opener {
    /// With the text of a key log.
    pub fn new(key_log: &str) -> Self {
        let secrets = LoggedSecrets::parse(key_log);
        let (connections, ids) = (Vec::new(), BTreeMap::new());
        Self { secrets, connections, ids, messages: Messages::new() }
    }

    /// The connections whose first packet was seen.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The packets of a datagram, which are to be given in the order of the capture; none if it is not of
    /// this protocol, as far as can be told.
    ///
    /// What is captured at a sender or receiver may be several datagrams in one, as its kernel was
    /// given or hands them on (GSO, GRO): they are told apart by their destinations.
    pub fn datagram(&mut self, payload: &[u8]) -> Vec<CapturedPacket> {
        if !self.is_ours(payload) {
            return Vec::new();
        }
        let segment = segment(payload).max(1);
        payload.chunks(segment).flat_map(|datagram| self.packets(datagram)).collect()
    }

    fn is_ours(&self, payload: &[u8]) -> bool {
        match payload.first() {
            Some(first) if first & 0x80 == 0 => {
                payload.get(1..=ID_LENGTH).is_some_and(|id| self.ids.contains_key(id))
            }
            Some(_) => {
                let version = payload.get(1..5);
                version == Some(&VERSION.to_be_bytes()[..])
                    || version == Some(&[0; 4])
                        && stubborn_core::wire::packet::destination(payload)
                            .is_some_and(|id| self.ids.contains_key(id))
            }
            None => false,
        }
    }

    fn packets(&mut self, datagram: &[u8]) -> Vec<CapturedPacket> {
        let mut packets = Vec::new();
        let mut left = datagram;
        while !left.is_empty() {
            let (packet, rest) = match Packet::decode(BytesMut::from(left), &[VERSION]) {
                Ok(decoded) => decoded,
                Err(_) => {
                    packets.push(CapturedPacket::Sealed(Bytes::copy_from_slice(left)));
                    break;
                }
            };
            let (own, others) = left.split_at(left.len() - rest.map_or(0, |rest| rest.len()));
            packets.push(match self.open(packet, own) {
                Some(opened) => CapturedPacket::Opened(opened),
                None => CapturedPacket::Sealed(Bytes::copy_from_slice(own)),
            });
            left = others;
        }
        packets
    }

    fn open(&mut self, packet: Packet, bytes: &[u8]) -> Option<OpenedPacket> {
        let packet = match packet {
            Packet::Protected(packet) => packet,
            Packet::Retry(retry) => {
                // From here on the client sends to this id, and Initial keys are made from it.
                let (at, sender) = *self.ids.get(retry.destination.as_slice())?;
                if sender.is_server() {
                    self.connections[at].begin_anew(&retry.source);
                    self.ids.insert(retry.source.to_vec(), (at, Side::Client));
                }
                return None;
            }
            Packet::VersionNegotiation(_) | Packet::OtherVersion(_) => return None,
        };
        let (at, sender, opened) = match self.ids.get(packet.destination().as_slice()) {
            Some((at, sender)) => {
                let connection = &mut self.connections[*at];
                (*at, *sender, connection.open(*sender, packet, bytes, &self.secrets)?)
            }
            None => self.begin(packet, bytes)?,
        };
        let messages = self.take_in(at, sender, &opened);
        let Opened { number, key_phase, header, frames, .. } = opened;
        Some(OpenedPacket { sender, number, key_phase, header, frames, messages })
    }

    /// A packet to somebody who was not heard of: the first one of a connection, or nothing.
    fn begin(&mut self, packet: ProtectedPacket, bytes: &[u8]) -> Option<(usize, Side, Opened)> {
        if packet.packet_type() != PacketType::Initial {
            return None;
        }
        let destination = packet.destination();
        let mut connection = Watched::new(&destination);
        let opened = connection.open(Side::Client, packet, bytes, &self.secrets)?;
        let at = self.connections.len();
        self.connections.push(connection);
        self.ids.insert(destination.to_vec(), (at, Side::Client));
        Some((at, Side::Client, opened))
    }

    /// Learns ids, and what the keys of the next space follow from; returns messages that are whole now.
    fn take_in(&mut self, at: usize, sender: Side, opened: &Opened) -> Vec<WholeMessage> {
        let mut whole = Vec::new();
        if opened.packet_type.has_long_header() {
            self.ids.insert(opened.source.clone(), (at, sender.peer()));
        }
        for frame in Frames::new(&opened.frames, opened.packet_type, sender).map_while(Result::ok) {
            match frame {
                Frame::Crypto { offset, data } if opened.packet_type == PacketType::Initial => {
                    self.connections[at].hear(sender, offset, data);
                }
                Frame::NewConnectionId(new) => {
                    self.ids.insert(new.id.to_vec(), (at, sender.peer()));
                }
                Frame::Message(frame) => whole.extend(self.messages.take(at, sender, &frame)),
                Frame::ResetMessage { id, .. } => self.messages.reset(at, sender, id),
                _ => {}
            }
        }
        whole
    }
}

/// What a packet turned out to be.
struct Opened {
    packet_type: PacketType,
    source: Vec<u8>,
    number: u64,
    key_phase: bool,
    header: Bytes,
    frames: Bytes,
}

/// Bytes of each datagram, if there are several with short headers in one: where the destination, which
/// is not encrypted, comes again.
fn segment(payload: &[u8]) -> usize {
    let whole = payload.len();
    if payload.first().is_none_or(|first| first & 0x80 != 0) || whole < 2 * SHORTEST {
        return whole;
    }
    let id = &payload[1..=ID_LENGTH];
    let mut at = SHORTEST..=whole - SHORTEST;
    at.find(|at| payload[*at] & 0xc0 == 0x40 && payload[at + 1..].starts_with(id)).unwrap_or(whole)
}
