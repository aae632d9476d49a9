//! Packets and frames that come in.

use core::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};

use super::super::cid;
use super::super::ecn::Ecn;
use super::super::error::{Code, TransportError};
use super::super::record::{Event, Packet as PacketRecord};
use super::close::State;
use super::ids::RemoteId;
use super::keys::Opened;
use super::{Connection, ConnectionError, ConnectionId, Space};
use crate::time::Instant;
use crate::wire::PacketType;
use crate::wire::frame::{Frame, Frames};
use crate::wire::packet::{OpenedPacket, Packet, PacketError, ProtectedPacket};

/// Packets kept until their keys are there: a flight that overtook the one before it.
const EARLY_PACKETS: usize = 16;

/// Where a packet came from, and how.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Origin {
    pub(in super::super) from: SocketAddr,
    pub(in super::super) local: Option<IpAddr>,
    pub(in super::super) ecn: Ecn,
    /// Bytes of the whole datagram.
    pub(in super::super) size: usize,
}

/// A packet that came before its keys.
pub(super) struct EarlyPacket {
    packet: ProtectedPacket,
    origin: Origin,
}

impl Connection {
    /// Takes in a datagram that is addressed to one of our ids. After it, or after several at the same
    /// time, follows [`after_datagrams`](Self::after_datagrams).
    pub(in super::super) fn on_datagram(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        self.counters.datagrams_received += 1;
        self.counters.bytes_received += data.len() as u64;
        match &mut self.state {
            State::Handshaking | State::Established => {}
            State::Closing(closing) => return closing.on_datagram(),
            State::Draining { .. } | State::Drained => return,
        }
        if !self.may_come_from(origin.from) {
            self.counters.packets_dropped += 1;
            return;
        }
        let held_back = self.may_not_send();
        self.count_received(origin);
        if held_back {
            self.set_recovery_timer();
        }
        let mut rest = Some(data);
        let mut destination = None;
        while let Some(data) = rest.take() {
            let Ok((packet, more)) = Packet::decode(data, &[self.version]) else {
                self.counters.packets_dropped += 1;
                return;
            };
            rest = more;
            match packet {
                Packet::Protected(packet) => {
                    // RFC 9000 §12.2: all packets of a datagram have one destination.
                    if *destination.get_or_insert(packet.destination()) == packet.destination() {
                        self.on_packet(now, origin, packet);
                    }
                }
                Packet::Retry(retry) => self.on_retry(&retry),
                Packet::VersionNegotiation(offer) => self.on_version_negotiation(now, &offer),
                Packet::OtherVersion(_) => self.counters.packets_dropped += 1,
            }
            if !self.state.is_open() {
                return;
            }
        }
    }

    /// What is done once for all datagrams that came together.
    pub(in super::super) fn after_datagrams(&mut self, now: Instant) {
        if self.recovery.last_received == now && self.state.is_open() {
            self.reset_idle(now);
            self.reset_keepalive(now);
            self.note_activity(now);
        }
    }

    fn on_packet(&mut self, now: Instant, origin: Origin, packet: ProtectedPacket) {
        if self.keys_are_missing(packet.packet_type()) {
            if self.keys_may_come(packet.packet_type()) && self.early.len() < EARLY_PACKETS {
                self.early.push(EarlyPacket { packet, origin });
            } else {
                self.counters.packets_dropped += 1;
            }
            return;
        }
        let reset_token = packet.reset_token();
        let (space, size) = (packet.packet_type().space(), packet.size());
        match self.open(packet) {
            Ok((packet, with)) => {
                if let Err(error) = self.on_opened(now, origin, (space, size), &packet, with) {
                    self.fail(now, error);
                }
            }
            Err(PacketError::ReservedBits) => {
                self.fail(now, TransportError::violation("reserved header bits are set"));
            }
            Err(PacketError::Malformed) => self.counters.packets_dropped += 1,
            Err(PacketError::NotAuthentic) => self.on_not_authentic(now, reset_token),
        }
    }

    /// True if a packet cannot be opened now.
    fn keys_are_missing(&self, packet: PacketType) -> bool {
        match packet {
            PacketType::Initial | PacketType::Handshake => {
                self.spaces[packet.space().index()].keys.is_none()
            }
            // RFC 9001 §5.7: a server reads no 1-RTT packet before the handshake is complete.
            PacketType::OneRtt => self.data_keys.is_none() || !self.handshake.is_complete(),
            PacketType::ZeroRtt => true,
        }
    }

    /// True if it may be opened later.
    fn keys_may_come(&self, packet: PacketType) -> bool {
        match packet {
            PacketType::Handshake => !self.handshake.is_confirmed() && self.data_keys.is_none(),
            PacketType::OneRtt => true,
            PacketType::Initial | PacketType::ZeroRtt => false,
        }
    }

    /// Takes up the packets that came before their keys.
    pub(super) fn take_early_packets(&mut self, now: Instant) {
        for early in core::mem::take(&mut self.early) {
            if self.state.is_open() {
                self.on_packet(now, early.origin, early.packet);
            }
        }
    }

    fn open(&mut self, packet: ProtectedPacket) -> Result<(OpenedPacket, Opened), PacketError> {
        let space = &self.spaces[packet.packet_type().space().index()];
        let tls = &mut *self.tls;
        let expected = space.received.largest().map_or(0, |largest| largest + 1);
        if packet.packet_type() == PacketType::OneRtt {
            let keys = self.data_keys.as_mut().ok_or(PacketError::NotAuthentic)?;
            let packet = packet.unprotect(&*keys.remote_header)?;
            let number = packet.number(expected);
            let (key, with) = keys.remote(number, packet.key_phase(), tls);
            return Ok((packet.open(key, number)?, with));
        }
        let keys = &space.keys.as_ref().ok_or(PacketError::NotAuthentic)?.remote;
        let packet = packet.unprotect(&*keys.header)?;
        let number = packet.number(expected);
        Ok((packet.open(&*keys.packet, number)?, Opened::Current))
    }

    /// It is somebody else's, altered, or a stateless reset (RFC 9000 §10.3.1).
    fn on_not_authentic(&mut self, now: Instant, reset_token: Option<[u8; 16]>) {
        self.counters.packets_dropped += 1;
        let is_reset = reset_token.is_some_and(|token| {
            let compare =
                |same: bool, ours: [u8; 16]| same | cid::equal_in_constant_time(&ours, &token);
            self.remote_ids.tokens().fold(false, compare)
        });
        if is_reset {
            self.on_stateless_reset(now);
            return;
        }
        self.open_failures += 1;
        let limit = self.data_keys.as_ref().map_or(u64::MAX, |keys| keys.integrity_limit());
        if self.open_failures >= limit {
            self.fail(now, TransportError::new(Code::AEAD_LIMIT_REACHED, "too many forgeries"));
        }
    }

    /// The peer has lost its state of this connection.
    pub(in super::super) fn on_stateless_reset(&mut self, now: Instant) {
        self.drain(now, ConnectionError::Reset);
    }

    fn on_opened(
        &mut self,
        now: Instant,
        origin: Origin,
        (space, size): (Space, usize),
        packet: &OpenedPacket,
        with: Opened,
    ) -> Result<(), TransportError> {
        // Nothing may happen twice, key updates included (RFC 9000 §12.3).
        if self.spaces[space.index()].received.is_duplicate(packet.number)
            || !self.is_from_the_peer(space, packet)
        {
            self.counters.packets_dropped += 1;
            return Ok(());
        }
        self.counters.packets_received += 1;
        if let Some(record) = &mut self.record {
            let OpenedPacket { packet_type, number, payload: frames, .. } = packet;
            let (packet_type, number) = (*packet_type, *number);
            record.take(now, Event::Received(PacketRecord { packet_type, number, size, frames }));
        }
        self.counters.ecn_ce_received += u64::from(origin.ecn == Ecn::Ce);
        if space == Space::Data
            && let Some(keys) = &mut self.data_keys
        {
            keys.on_opened(packet.number, with, &mut *self.tls)?;
            if keys.has_new_past() {
                let keep_until = now + 3 * self.path.rtt.probe_timeout_base();
                keys.keep_past_until(keep_until);
                self.timers.set(super::super::timers::Timer::KeyDiscard, keep_until);
            }
        }
        let newest =
            self.spaces[space.index()].received.largest().is_none_or(|l| packet.number > l);
        let mut seen = Seen::default();
        let mut frames = Frames::new(&packet.payload, packet.packet_type, self.side.peer());
        loop {
            // What most packets are made of, by the shortest way.
            if let Some(first) = frames.next_message()? {
                (seen.ack_eliciting, seen.beyond_probing) = (true, true);
                self.inbox.begin_packet();
                let mut next = Some(first);
                while let Some(m) = next {
                    let data = packet.payload.slice_ref(m.data);
                    self.inbox.on_message(m.id, m.offset, data, m.end)?;
                    next = frames.next_message()?;
                }
            }
            let Some(frame) = frames.next() else { break };
            let frame = frame?;
            seen.ack_eliciting |= frame.is_ack_eliciting();
            seen.beyond_probing |= !frame.is_probing();
            self.on_frame(now, origin, space, packet, with, &frame)?;
            if !self.state.is_open() {
                return Ok(());
            }
        }
        let fresh = self.spaces[space.index()].received.on_received(
            packet.number,
            now,
            origin.ecn,
            seen.ack_eliciting,
        );
        debug_assert!(fresh, "a duplicate was processed");
        self.after_packet(now, origin, space, newest && seen.beyond_probing)
    }

    /// The ids of long headers are the peer's own (RFC 9000 §7.2): the first authentic one sets it.
    fn is_from_the_peer(&mut self, space: Space, packet: &OpenedPacket) -> bool {
        space == Space::Data || self.handshake.accept_source(packet.source, &mut self.remote_ids)
    }

    fn after_packet(
        &mut self,
        now: Instant,
        origin: Origin,
        space: Space,
        follow: bool,
    ) -> Result<(), TransportError> {
        self.recovery.sent_since_received = false;
        self.recovery.last_received = now;
        if space == Space::Handshake && self.side.is_server() {
            // Only who received our Initial can have these keys (RFC 9000 §8.1).
            self.path.proof.validate();
            self.discard(Space::Initial);
        }
        if space != Space::Data || self.spaces[space.index()].crypto_in.has_ready() {
            self.read_tls(now)?;
        }
        if space == Space::Handshake {
            self.on_handshake_packet_read();
        }
        if follow && origin.from != self.path.remote && self.state.is_open() {
            self.migrate(now, origin)?;
        }
        if self.inbox.has_readable() {
            self.tell_readable();
        }
        // Whatever got through shows that the path lives.
        self.probe_early(now);
        Ok(())
    }

    fn on_frame(
        &mut self,
        now: Instant,
        origin: Origin,
        space: Space,
        packet: &OpenedPacket,
        with: Opened,
        frame: &Frame<'_>,
    ) -> Result<(), TransportError> {
        match *frame {
            Frame::Padding(_) | Frame::Ping => {}
            Frame::DataBlocked(_) | Frame::MessagesBlocked(_) => {}
            Frame::Ack(ack) => self.on_ack(now, space, &ack, with)?,
            Frame::Crypto { offset, data } => self.on_crypto(space, offset, data)?,
            Frame::Message(m) => {
                self.inbox.begin_packet();
                let data = packet.payload.slice_ref(m.data);
                self.inbox.on_message(m.id, m.offset, data, m.end)?;
            }
            Frame::ResetMessage { id, code, final_size } => {
                self.inbox.on_reset(id, code, final_size)?;
            }
            Frame::StopMessage { id, code } => {
                self.outbox.on_stop(id, code)?;
                self.tell_outbox_events();
            }
            Frame::MaxData(limit) => self.outbox.on_max_data(limit),
            Frame::MaxMessageData { id, limit } => self.outbox.on_max_message_data(id, limit)?,
            Frame::MaxMessages(limit) => self.outbox.on_max_messages(limit),
            Frame::NewConnectionId(new) => {
                let id =
                    RemoteId { sequence: new.sequence, id: new.id, token: Some(new.reset_token) };
                self.remote_ids.insert(id, new.retire_prior_to)?;
                self.announce_tokens();
            }
            Frame::RetireConnectionId(sequence) => {
                self.on_retire_id(sequence, packet.destination)?;
            }
            Frame::PathChallenge(token) => self.migration.answer(origin, token),
            Frame::PathResponse(token) => self.on_path_response(token),
            Frame::ConnectionClose { code, frame_type, reason } => {
                self.on_transport_close(now, code, frame_type, reason);
            }
            Frame::ApplicationClose { code, reason } => {
                let reason = Bytes::copy_from_slice(reason);
                self.drain(now, ConnectionError::PeerClosed { code, reason });
            }
            Frame::HandshakeDone => self.confirm(),
            Frame::Datagram(data) => self.tell_unreliable(packet.payload.slice_ref(data)),
        }
        Ok(())
    }

    fn on_transport_close(&mut self, now: Instant, code: u64, frame: u64, reason: &[u8]) {
        let code = Code(code);
        let error = if code == Code::CONNECTION_REFUSED {
            ConnectionError::Refused
        } else {
            let text = alloc::string::String::from_utf8_lossy(reason).into_owned();
            let mut error = TransportError::new(code, text);
            error.frame = (frame != 0).then_some(frame);
            ConnectionError::PeerTransport(error)
        };
        self.drain(now, error);
    }

    fn on_retire_id(
        &mut self,
        sequence: u64,
        carried_by: ConnectionId,
    ) -> Result<(), TransportError> {
        if let Some(id) = self.local_ids.retire(sequence, carried_by)? {
            self.id_changes.push_back(super::IdChange::Remove(id));
            self.issue_ids();
        }
        Ok(())
    }
}

/// What the frames of a packet were like.
#[derive(Default)]
struct Seen {
    ack_eliciting: bool,
    beyond_probing: bool,
}
