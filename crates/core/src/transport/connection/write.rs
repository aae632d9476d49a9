//! Packets and frames that go out.

use alloc::vec::Vec;

use bytes::Bytes;

use super::super::ecn::Ecn;
use super::super::loss::SentPacket;
use super::super::record::{Event, Packet};
use super::super::send::Part;
use super::close::{CloseReason, State};
use super::space::{Contents, Control};
use super::transmit::Permit;
use super::{Connection, Space};
use crate::limits::MIN_DATAGRAM;
use crate::time::{Duration, Instant};
use crate::wire::PacketType;
use crate::wire::frame::{
    DatagramHeader, Frame, NewConnectionId, crypto_header, crypto_room, encode_ack,
};
use crate::wire::packet::{Header, PacketWriter};

/// Header, longest packet number and tag of a 1-RTT packet.
pub(super) const ONE_RTT_OVERHEAD: usize = 1 + 8 + 4 + 16;

/// A further packet is put into a datagram only with this much room: whatever it wants to send, it
/// can then send some of it.
const MIN_PACKET: usize = 160;

/// Packets that are written outside the usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    PathChallenge([u8; 8]),
    PathResponse([u8; 8]),
    MtuProbe,
}

/// A packet being written.
pub(super) struct Draft {
    pub(super) writer: PacketWriter,
    space: Space,
    pub(super) tag_len: usize,
    pub(super) contents: Contents,
    ack_eliciting: bool,
    /// What belongs at the end of a full packet in place of zeros.
    end: Option<Bytes>,
}

impl Draft {
    /// Bytes of frames that still fit, if the packet may end at `end` of the buffer.
    fn room(&self, end: usize, buf: &[u8]) -> usize {
        self.writer.room(end - self.writer.start(), self.tag_len, buf)
    }

    fn is_empty(&self, buf: &[u8]) -> bool {
        self.writer.payload_len(buf) == 0
    }
}

/// A datagram that was written.
pub(super) struct Datagram {
    /// Its bytes; 0 if there was nothing to send.
    pub(super) size: usize,
    /// It ends with a part of a long message, and so carries all that goes before messages.
    pub(super) filled: bool,
}

/// An acknowledgement beside which there is room for an unreliable message takes so much at most.
const MOST_ACK: usize = 160;

impl Connection {
    /// Appends a datagram of at most `limit` bytes with whatever waits and is permitted, from all
    /// spaces (RFC 9000 §12.2).
    pub(super) fn write_datagram(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        limit: usize,
        permit: Permit,
        mark: Ecn,
    ) -> Datagram {
        let start = buf.len();
        let end = start + limit;
        let mut pad = false;
        let mut filled = false;
        let spaces = if self.spaces.is_data_only() { &[Space::Data][..] } else { &Space::ALL };
        for &space in spaces {
            // What is padded for its Initial packet is full; 1-RTT packets get their own datagram.
            if (space == Space::Data && pad) || (buf.len() > start && end - buf.len() < MIN_PACKET)
            {
                break;
            }
            if !self.has_keys(space) || !self.wants_to_send(space, permit) {
                continue;
            }
            let Some(mut draft) = self.begin_packet(space, buf) else { continue };
            self.write_frames(now, &mut draft, buf, end, permit);
            if draft.is_empty(buf) {
                self.abandon_packet(draft, buf);
                continue;
            }
            // RFC 9000 §14.1: a client pads all, a server those that elicit an acknowledgement.
            pad |= space == Space::Initial && (self.side.is_client() || draft.ack_eliciting);
            filled = draft.end.is_some() && !self.is_before_messages();
            let packet_end = buf.len() + draft.tag_len;
            let more_follow = space == Space::Initial
                && end - packet_end.min(end) >= MIN_PACKET
                && self.has_keys(Space::Handshake)
                && self.wants_to_send(Space::Handshake, permit);
            let padded_to = match space {
                Space::Data => self.batch_padding(&draft, buf, end),
                _ if pad && !more_follow => Some((start + MIN_DATAGRAM).min(end)),
                _ => None,
            };
            if let Some(to) = padded_to {
                draft.writer.pad_to(to - draft.writer.start(), draft.tag_len, buf);
            }
            self.finish_packet(now, draft, buf, mark, padded_to.is_some());
            if space == Space::Handshake && self.side.is_client() {
                // RFC 9001 §4.9.1.
                self.discard(Space::Initial);
            }
        }
        debug_assert!(!pad || buf.len() - start >= MIN_DATAGRAM.min(limit), "unpadded Initial");
        Datagram { size: buf.len() - start, filled }
    }

    /// Appends a further datagram of a batch, after one that was [filled](Datagram::filled), where a long
    /// message has more to send: nothing has come since that would go before it, so nothing else is asked.
    pub(super) fn write_further(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        limit: usize,
        mark: Ecn,
        part: Part,
    ) -> usize {
        let start = buf.len();
        let end = start + limit;
        let Some(mut draft) = self.begin_packet(Space::Data, buf) else { return 0 };
        let room = draft.room(end, buf);
        draft.end = self.outbox.write_part(part, buf, room, &mut draft.contents.messages);
        if draft.is_empty(buf) {
            self.abandon_packet(draft, buf);
            return 0;
        }
        draft.ack_eliciting = true;
        let padded_to =
            if draft.end.is_some() { None } else { self.batch_padding(&draft, buf, end) };
        if let Some(to) = padded_to {
            draft.writer.pad_to(to - draft.writer.start(), draft.tag_len, buf);
        }
        self.finish_packet(now, draft, buf, mark, padded_to.is_some());
        buf.len() - start
    }

    /// True while a packet may have to carry what goes before messages, though the one before was full
    /// of these: what did not fit there, what is said again and again, what belongs to the handshake.
    fn is_before_messages(&self) -> bool {
        !self.unreliable.is_empty()
            || self.is_copying()
            || self.recovery.probe.due() > 0
            || !self.spaces.is_data_only()
    }

    /// A batch needs datagrams of one size: one that is nearly full while more waits is filled up.
    fn batch_padding(&self, draft: &Draft, buf: &[u8], end: usize) -> Option<usize> {
        let room = draft.room(end, buf);
        let size = end - draft.writer.start();
        (draft.ack_eliciting
            && room > 0
            && room <= size / 4
            && self.config.max_segments > 1
            && self.outbox.has_pending())
        .then_some(end)
    }

    fn has_keys(&self, space: Space) -> bool {
        match space {
            // Before the handshake is complete the peer of a server is nobody yet.
            Space::Data => self.data_keys.is_some() && self.handshake.is_complete(),
            _ => self.spaces[space.index()].keys.is_some(),
        }
    }

    /// True if there is something that congestion control and pacing may then let out.
    pub(super) fn has_anything_to_send(&self) -> bool {
        if self.spaces.is_data_only() {
            return self.has_keys(Space::Data) && self.wants_to_send(Space::Data, Permit::All);
        }
        Space::ALL
            .into_iter()
            .any(|space| self.has_keys(space) && self.wants_to_send(space, Permit::All))
    }

    /// True if all that there is to send is an acknowledgement that may wait, `longest` in all.
    pub(in super::super) fn may_wait(&self, now: Instant, longest: Duration) -> bool {
        let data = &self.spaces[Space::Data.index()];
        matches!(self.state, State::Established)
            && self.spaces.is_data_only()
            && data.received.ack_may_wait(now, longest)
            && !data.ping
            && self.recovery.probe.due() == 0
            && !self.data_wants_to_send()
            && self.migration.answers.is_empty()
            && !self.path.proof.challenge_due()
    }

    fn wants_to_send(&self, space: Space, permit: Permit) -> bool {
        let s = &self.spaces[space.index()];
        if s.received.ack_pending() {
            return true;
        }
        let elicits = match permit {
            Permit::All => true,
            Permit::Probe => self.recovery.probe_space == space,
            Permit::Acks => false,
        };
        elicits
            && (s.ping
                || s.crypto_out.wants_to_send()
                || (self.recovery.probe.due() > 0 && self.recovery.probe_space == space)
                || (space == Space::Data && self.data_wants_to_send()))
    }

    fn data_wants_to_send(&self) -> bool {
        self.handshake.done_due
            || !self.migration.to_announce.is_empty()
            || self.remote_ids.has_retired()
            || !self.unreliable.is_empty()
            || self.inbox.has_pending()
            || self.outbox.has_pending()
            || self.copy_is_due()
    }

    fn begin_packet(&mut self, space: Space, buf: &mut Vec<u8>) -> Option<Draft> {
        let remote = self.remote_ids.active().id;
        let local = self.local_ids.handshake_id();
        let s = &mut self.spaces[space.index()];
        let (header, tag_len) = match space {
            Space::Data => {
                let keys = self.data_keys.as_ref()?;
                (Header::one_rtt(remote, keys.phase()), keys.tag_len())
            }
            Space::Handshake => {
                (Header::handshake(remote, local), s.keys.as_ref()?.local.packet.tag_len())
            }
            Space::Initial => {
                let tag_len = s.keys.as_ref()?.local.packet.tag_len();
                (Header::initial(remote, local, self.handshake.token()), tag_len)
            }
        };
        let number = s.sent.take_number(&mut self.random);
        let header = header.with_version(self.version);
        let reused = cfg!(feature = "planted-reused-number") && number % 64 == 63;
        let written = number - u64::from(reused);
        let writer = PacketWriter::begin(&header, written, s.sent.largest_acked(), buf);
        let contents = Contents { messages: self.recovery.record(), ..Contents::default() };
        Some(Draft { writer, space, tag_len, contents, ack_eliciting: false, end: None })
    }

    fn abandon_packet(&mut self, draft: Draft, buf: &mut Vec<u8>) {
        draft.writer.abandon(buf);
        self.recovery.reuse(draft.contents.messages);
    }

    /// Appends the frames of a packet, the most urgent first.
    fn write_frames(
        &mut self,
        now: Instant,
        draft: &mut Draft,
        buf: &mut Vec<u8>,
        end: usize,
        permit: Permit,
    ) {
        let space = draft.space;
        let probing = self.recovery.probe.due() > 0 && self.recovery.probe_space == space;
        let elicit = permit == Permit::All || (permit == Permit::Probe && probing);
        self.write_ack(now, draft, buf, end);
        if elicit {
            let before = buf.len();
            self.write_crypto(draft, buf, end);
            if space == Space::Data {
                self.write_control(draft, buf, end);
                self.write_unreliable(draft, buf, end);
                let room = draft.room(end, buf);
                self.inbox.write(buf, room, &mut draft.contents.messages);
                let room = draft.room(end, buf);
                draft.end = self.outbox.write_but_end(buf, room, &mut draft.contents.messages);
                self.write_copies(draft, buf, end);
            }
            draft.ack_eliciting |= buf.len() > before;
            let s = &mut self.spaces[space.index()];
            if (s.ping || probing) && !draft.ack_eliciting && draft.room(end, buf) > 0 {
                Frame::Ping.encode(buf);
                draft.ack_eliciting = true;
            }
            if draft.ack_eliciting {
                s.ping = false;
            }
            if probing && draft.ack_eliciting {
                self.recovery.probe.on_probe_sent();
            }
        }
        let s = &self.spaces[space.index()];
        if !draft.ack_eliciting
            && !draft.is_empty(buf)
            && s.received.should_elicit_ack()
            && !s.sent.is_full()
            && draft.room(end, buf) > 0
        {
            Frame::Ping.encode(buf);
            draft.ack_eliciting = true;
        }
    }

    /// An acknowledgement rides on whatever goes out, and is not delayed (docs/protocol.md
    /// section 1). On a lossy path it is repeated with each packet until the peer has confirmed it.
    fn write_ack(&mut self, now: Instant, draft: &mut Draft, buf: &mut Vec<u8>, end: usize) {
        let room = draft.room(end, buf);
        let again = self.is_copying();
        // A large unreliable message goes alone: beside a repeated acknowledgement it would never fit.
        let alone = draft.space == Space::Data
            && self.unreliable.front().is_some_and(|data| data.len() + MOST_ACK > room);
        let received = &mut self.spaces[draft.space.index()].received;
        if !received.ack_pending() && (!again || alone) {
            return;
        }
        let Some(ack) = received.to_ack(now) else { return };
        let delay = u64::try_from(ack.delay.as_micros()).unwrap_or(u64::MAX);
        if encode_ack(received.ack_ranges(), delay, ack.ecn, room, buf) {
            draft.contents.ack = Some(received.on_ack_sent());
        }
    }

    fn write_crypto(&mut self, draft: &mut Draft, buf: &mut Vec<u8>, end: usize) {
        let out = &mut self.spaces[draft.space.index()].crypto_out;
        while out.wants_to_send() {
            let Some(room) = crypto_room(out.next_offset(), draft.room(end, buf)) else { return };
            let Some((offset, data)) = out.take(room) else { return };
            crypto_header(offset, data.len(), buf);
            buf.extend_from_slice(data);
            draft.contents.control.push(Control::Crypto(offset..offset + data.len() as u64));
        }
    }

    fn write_control(&mut self, draft: &mut Draft, buf: &mut Vec<u8>, end: usize) {
        if self.handshake.done_due && draft.room(end, buf) > 0 {
            Frame::HandshakeDone.encode(buf);
            self.handshake.done_due = false;
            draft.contents.control.push(Control::HandshakeDone);
        }
        while let Some(sequence) = self.migration.to_announce.last().copied() {
            if let Some(local) = self.local_ids.get(sequence) {
                let frame = Frame::NewConnectionId(NewConnectionId {
                    sequence,
                    retire_prior_to: 0,
                    id: local.id,
                    reset_token: local.token,
                });
                if frame.size() > draft.room(end, buf) {
                    return;
                }
                frame.encode(buf);
                draft.contents.control.push(Control::NewConnectionId(sequence));
            }
            self.migration.to_announce.pop();
        }
        while draft.room(end, buf) >= 9 {
            let Some(sequence) = self.remote_ids.next_retired() else { return };
            Frame::RetireConnectionId(sequence).encode(buf);
            draft.contents.control.push(Control::RetireConnectionId(sequence));
        }
    }

    /// Unreliable messages go out once, in the order in which they were queued.
    fn write_unreliable(&mut self, draft: &mut Draft, buf: &mut Vec<u8>, end: usize) {
        while let Some(data) = self.unreliable.front() {
            let room = draft.room(end, buf);
            if DatagramHeader.size(Some(data.len())) + data.len() > room {
                // One that does not fit a packet of its own never will: the path has shrunk.
                if draft.is_empty(buf) {
                    self.unreliable.pop_front();
                    continue;
                }
                return;
            }
            Frame::Datagram(data).encode(buf);
            self.unreliable.pop_front();
        }
    }

    /// Writes one packet of a special kind as a datagram of `size` bytes.
    pub(super) fn write_special(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        kind: Kind,
        size: usize,
        in_flight: bool,
    ) -> Option<usize> {
        let mut draft = self.begin_packet(Space::Data, buf)?;
        draft.ack_eliciting = true;
        let frame = match kind {
            Kind::PathChallenge(token) => Frame::PathChallenge(token),
            Kind::PathResponse(token) => Frame::PathResponse(token),
            Kind::MtuProbe => Frame::Ping,
        };
        if frame.size() > draft.room(draft.writer.start() + size, buf) {
            self.abandon_packet(draft, buf);
            return None;
        }
        frame.encode(buf);
        draft.writer.pad_to(size, draft.tag_len, buf);
        let start = draft.writer.start();
        let number = draft.writer.number();
        let probe = kind == Kind::MtuProbe;
        if probe {
            self.path.mtu.on_probe_sent(number);
        }
        let flags = Flags { marked: false, mtu_probe: probe, in_flight };
        self.seal_packet(now, draft, buf, flags);
        Some(buf.len() - start)
    }

    /// Writes CONNECTION_CLOSE packets for all spaces into one datagram.
    pub(super) fn write_close(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        limit: usize,
        reason: &CloseReason,
    ) -> usize {
        let start = buf.len();
        let end = start + limit;
        let spaces: Vec<Space> = Space::ALL
            .into_iter()
            .filter(|space| match space {
                Space::Data => self.data_keys.is_some(),
                _ => self.spaces[space.index()].keys.is_some(),
            })
            .collect();
        let pad = spaces.first() == Some(&Space::Initial);
        for (n, space) in spaces.iter().enumerate() {
            let Some(mut draft) = self.begin_packet(*space, buf) else { continue };
            self.write_ack(now, &mut draft, buf, end);
            // Each of the packets left gets its share of the room.
            let share = draft.room(end, buf) / (spaces.len() - n);
            let frame = reason.frame(*space == Space::Data, share);
            if frame.size() > draft.room(end, buf) {
                self.abandon_packet(draft, buf);
                continue;
            }
            frame.encode(buf);
            if pad && n + 1 == spaces.len() {
                draft.writer.pad_to(end - draft.writer.start(), draft.tag_len, buf);
            }
            self.seal_packet(now, draft, buf, Flags::default());
        }
        buf.len() - start
    }

    fn finish_packet(
        &mut self,
        now: Instant,
        draft: Draft,
        buf: &mut Vec<u8>,
        mark: Ecn,
        padded: bool,
    ) {
        let flags = Flags {
            marked: mark == Ecn::Ect0,
            mtu_probe: false,
            // Padding counts too (RFC 9002 §2).
            in_flight: draft.ack_eliciting || padded,
        };
        self.path.ecn.on_sent(mark);
        self.seal_packet(now, draft, buf, flags);
    }

    /// Encrypts the packet and remembers it.
    fn seal_packet(&mut self, now: Instant, draft: Draft, buf: &mut Vec<u8>, flags: Flags) {
        let Draft { writer, space, tag_len, contents, ack_eliciting, end } = draft;
        let end = end.as_deref().unwrap_or_default();
        let s = &mut self.spaces[space.index()];
        let planted = cfg!(feature = "planted-reused-number");
        let number = if planted { s.sent.next_number() - 1 } else { writer.number() };
        if let Some(record) = &mut self.record {
            let packet_type = match space {
                Space::Initial => PacketType::Initial,
                Space::Handshake => PacketType::Handshake,
                Space::Data => PacketType::OneRtt,
            };
            let size = buf.len() - writer.start() + tag_len;
            let mut frames = writer.payload(buf).to_vec();
            let from = frames.len() - end.len();
            frames[from..].copy_from_slice(end);
            record.take(now, Event::Sent(Packet { packet_type, number, size, frames: &frames }));
        }
        let size = match (&mut self.data_keys, &s.keys) {
            (Some(keys), _) if space == Space::Data => {
                let (header_key, packet_key) = keys.local();
                let size = writer.finish_with_end(header_key, packet_key, end, buf);
                keys.on_sealed(number);
                size
            }
            (_, Some(keys)) => writer.finish(&*keys.local.header, &*keys.local.packet, buf),
            _ => unreachable!("a packet was begun without keys"),
        };
        s.sent.on_sent(
            number,
            SentPacket {
                time: now,
                size: size as u32,
                ack_eliciting,
                in_flight: flags.in_flight,
                marked: flags.marked,
                mtu_probe: flags.mtu_probe,
                contents,
            },
        );
        self.recovery.last_sent = now;
        self.counters.packets_sent += 1;
        if ack_eliciting && !core::mem::replace(&mut self.recovery.sent_since_received, true) {
            self.reset_idle(now);
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Flags {
    marked: bool,
    mtu_probe: bool,
    in_flight: bool,
}
