//! Frames: what a packet's payload is made of (docs/protocol.md section 2).
//!
//! [`Frames`] decodes a payload; the frames borrow from it, so nothing is copied or allocated.
//! A receiver that keeps data takes it with `Bytes::slice_ref`.

use alloc::vec::Vec;
use core::fmt;

use super::{ConnectionId, Malformed, PacketType, Reader, Side, varint};

pub use ack::{Ack, EcnCounts, encode_ack};
pub use data::{DatagramHeader, MessageHeader, crypto_header, crypto_room};

mod ack;
mod data;
#[cfg(test)]
mod tests;

/// The numbers that frames start with.
pub mod frame_type {
    #![allow(missing_docs, reason = "each constant is the frame of its name")]
    pub const PADDING: u64 = 0x00;
    pub const PING: u64 = 0x01;
    pub const ACK: u64 = 0x02;
    pub const ACK_ECN: u64 = 0x03;
    pub const RESET_MESSAGE: u64 = 0x04;
    pub const STOP_MESSAGE: u64 = 0x05;
    pub const CRYPTO: u64 = 0x06;
    /// The first of eight; see the bits below.
    pub const MESSAGE: u64 = 0x08;
    /// Bit of MESSAGE: the message ends with this frame's data.
    pub const MESSAGE_END: u64 = 0x01;
    /// Bit of MESSAGE: a length precedes the data, which otherwise reaches to the packet's end.
    pub const MESSAGE_LENGTH: u64 = 0x02;
    /// Bit of MESSAGE: an offset precedes the data, which otherwise starts the message.
    pub const MESSAGE_OFFSET: u64 = 0x04;
    pub const MESSAGE_LAST: u64 = 0x0f;
    pub const MAX_DATA: u64 = 0x10;
    pub const MAX_MESSAGE_DATA: u64 = 0x11;
    pub const MAX_MESSAGES: u64 = 0x12;
    pub const DATA_BLOCKED: u64 = 0x14;
    pub const MESSAGES_BLOCKED: u64 = 0x16;
    pub const NEW_CONNECTION_ID: u64 = 0x18;
    pub const RETIRE_CONNECTION_ID: u64 = 0x19;
    pub const PATH_CHALLENGE: u64 = 0x1a;
    pub const PATH_RESPONSE: u64 = 0x1b;
    pub const CONNECTION_CLOSE: u64 = 0x1c;
    pub const APPLICATION_CLOSE: u64 = 0x1d;
    pub const HANDSHAKE_DONE: u64 = 0x1e;
    pub const DATAGRAM: u64 = 0x30;
    pub const DATAGRAM_LENGTH: u64 = 0x31;
}

/// A frame; its variable parts borrow from the packet that it came in or from what is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A run of so many PADDING frames, at least one.
    Padding(usize),
    /// Asks for an acknowledgement.
    Ping,
    /// Packets that arrived.
    Ack(Ack<'a>),
    /// The sender gives a message up.
    ResetMessage {
        /// Which message.
        id: u64,
        /// Why, for the application.
        code: u64,
        /// Bytes of the message that count against the connection's flow control: the end of the
        /// furthest byte that was ever sent.
        final_size: u64,
    },
    /// The receiver will not read a message on.
    StopMessage {
        /// Which message.
        id: u64,
        /// Why, for the application.
        code: u64,
    },
    /// A part of the TLS handshake.
    Crypto {
        /// Where the data stands among the CRYPTO bytes of its space.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// A part of a message.
    Message(Message<'a>),
    /// Bytes that may be sent in all messages of the connection together.
    MaxData(u64),
    /// Bytes that may be sent of one message.
    MaxMessageData {
        /// Which message.
        id: u64,
        /// Bytes from its start.
        limit: u64,
    },
    /// How many messages may be opened over the life of the connection.
    MaxMessages(u64),
    /// The sender has more to send than this connection limit allows.
    DataBlocked(u64),
    /// The sender wants to open more messages than this limit allows.
    MessagesBlocked(u64),
    /// A further connection id to reach the sender by.
    NewConnectionId(NewConnectionId),
    /// The receiver's connection id of this sequence number will not be used any more.
    RetireConnectionId(u64),
    /// Asks for the same bytes back, to show that the path carries both ways.
    PathChallenge([u8; 8]),
    /// Answers a challenge.
    PathResponse([u8; 8]),
    /// The transport closes the connection.
    ConnectionClose {
        /// A code of RFC 9000 §20.1.
        code: u64,
        /// Type of the frame that caused it; 0 when none did or it is not known.
        frame_type: u64,
        /// For people; hopefully UTF-8.
        reason: &'a [u8],
    },
    /// The application closes the connection.
    ApplicationClose {
        /// The application's code.
        code: u64,
        /// For people; hopefully UTF-8.
        reason: &'a [u8],
    },
    /// The server has confirmed the handshake.
    HandshakeDone,
    /// An unreliable message.
    Datagram(&'a [u8]),
}

/// Part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Which message.
    pub id: u64,
    /// Where the data stands in it.
    pub offset: u64,
    /// The bytes.
    pub data: &'a [u8],
    /// The message ends after `data`.
    pub end: bool,
}

/// The fields of NEW_CONNECTION_ID (RFC 9000 §19.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConnectionId {
    /// Counts the ids that the sender has issued.
    pub sequence: u64,
    /// Ids with lower sequence numbers are to be retired. Not above `sequence`.
    pub retire_prior_to: u64,
    /// The id, 1 to 20 bytes.
    pub id: ConnectionId,
    /// What a stateless reset for this id ends with.
    pub reset_token: [u8; 16],
}

/// A payload that breaks the rules. The connection must be closed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// Type of the frame; `None` when there is none.
    pub frame: Option<u64>,
    /// What kind of breach.
    pub kind: FrameErrorKind,
    /// For people.
    pub reason: &'static str,
}

/// How a payload breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameErrorKind {
    /// The bytes are no such frame: FRAME_ENCODING_ERROR.
    Encoding,
    /// The frame may not be, or not here: PROTOCOL_VIOLATION.
    Violation,
}

impl FrameError {
    const fn encoding(frame: u64, reason: &'static str) -> Self {
        Self { frame: Some(frame), kind: FrameErrorKind::Encoding, reason }
    }

    const fn violation(frame: Option<u64>, reason: &'static str) -> Self {
        Self { frame, kind: FrameErrorKind::Violation, reason }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.frame {
            Some(frame) => write!(f, "frame {frame:#04x}: {}", self.reason),
            None => f.write_str(self.reason),
        }
    }
}

impl core::error::Error for FrameError {}

/// Decodes the frames of one packet's payload, and checks that each may stand there.
///
/// After an error it yields nothing more. A payload without frames is an error (RFC 9000 §12.4).
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: Reader<'a>,
    packet: PacketType,
    sender: Side,
    done: bool,
}

impl<'a> Frames<'a> {
    /// The frames in `payload`, which `sender` sent in a packet of type `packet`.
    pub const fn new(payload: &'a [u8], packet: PacketType, sender: Side) -> Self {
        Self { rest: Reader::new(payload), packet, sender, done: false }
    }

    /// The next frame if it is MESSAGE in a 1-RTT packet, as most are: the same as the iterator gives,
    /// by a shorter way. `None` for any other, which stays, and at the end.
    ///
    /// # Errors
    /// As of the iterator.
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<Message<'a>>, FrameError> {
        use frame_type::*;
        let Some(first) = self.rest.peek() else { return Ok(None) };
        let ty = u64::from(first);
        if !(MESSAGE..=MESSAGE_LAST).contains(&ty) || self.packet != PacketType::OneRtt {
            return Ok(None);
        }
        self.rest.skip_one();
        let Ok(message) = Message::decode(ty, &mut self.rest) else {
            self.done = true;
            return Err(FrameError::encoding(ty, "malformed"));
        };
        // Within memory, and so within 2^62, if it starts at 0.
        if message.offset > 0 {
            let checked = Frame::Message(message).check(ty);
            self.done = checked.is_err();
            checked?;
        }
        self.done |= self.rest.is_empty();
        Ok(Some(message))
    }

    fn decode(&mut self) -> Result<Frame<'a>, FrameError> {
        if let Some(message) = self.next_message()? {
            return Ok(Frame::Message(message));
        }
        let ty = self.rest.frame_type()?;
        if !may_stand(ty, self.packet, self.sender) {
            return Err(FrameError::violation(Some(ty), "frame not allowed in this packet"));
        }
        let frame = Frame::decode(ty, &mut self.rest)
            .map_err(|Malformed| FrameError::encoding(ty, "malformed"))?;
        frame.check(ty)?;
        Ok(frame)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let frame = self.decode();
        self.done = frame.is_err() || self.rest.is_empty();
        Some(frame)
    }
}

/// Whether a frame of this type may stand in this kind of packet from this side
/// (docs/protocol.md section 2, RFC 9000 §12.4).
fn may_stand(ty: u64, packet: PacketType, sender: Side) -> bool {
    use frame_type::*;
    match packet {
        PacketType::OneRtt => ty != HANDSHAKE_DONE || sender.is_server(),
        PacketType::ZeroRtt => {
            sender.is_client()
                && matches!(ty, PADDING | PING | MESSAGE..=MESSAGE_LAST | CONNECTION_CLOSE)
        }
        PacketType::Initial | PacketType::Handshake => {
            matches!(ty, PADDING | PING | ACK | ACK_ECN | CRYPTO | CONNECTION_CLOSE)
        }
    }
}

impl Reader<'_> {
    /// A known frame type in its shortest form, the only one that RFC 9000 §12.4 makes us accept. All
    /// known types take one byte, so a first byte of a longer form is an unknown type.
    fn frame_type(&mut self) -> Result<u64, FrameError> {
        use frame_type::*;
        let ty = self
            .u8()
            .map(u64::from)
            .map_err(|Malformed| FrameError::violation(None, "packet without frames"))?;
        match ty {
            PADDING..=CRYPTO
            | MESSAGE..=MAX_MESSAGES
            | DATA_BLOCKED
            | MESSAGES_BLOCKED
            | NEW_CONNECTION_ID..=HANDSHAKE_DONE
            | DATAGRAM
            | DATAGRAM_LENGTH => Ok(ty),
            _ => Err(FrameError::violation(Some(ty), "unknown frame type")),
        }
    }
}

impl<'a> Frame<'a> {
    /// The fields of a frame whose type has been read.
    fn decode(ty: u64, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        use frame_type::*;
        Ok(match ty {
            PADDING => Self::Padding(1 + r.skip_zeros()),
            PING => Self::Ping,
            ACK | ACK_ECN => Self::Ack(Ack::decode(ty == ACK_ECN, r)?),
            RESET_MESSAGE => {
                Self::ResetMessage { id: r.varint()?, code: r.varint()?, final_size: r.varint()? }
            }
            STOP_MESSAGE => Self::StopMessage { id: r.varint()?, code: r.varint()? },
            CRYPTO => Self::Crypto { offset: r.varint()?, data: r.length_prefixed()? },
            MESSAGE..=MESSAGE_LAST => Self::Message(Message::decode(ty, r)?),
            MAX_DATA => Self::MaxData(r.varint()?),
            MAX_MESSAGE_DATA => Self::MaxMessageData { id: r.varint()?, limit: r.varint()? },
            MAX_MESSAGES => Self::MaxMessages(r.varint()?),
            DATA_BLOCKED => Self::DataBlocked(r.varint()?),
            MESSAGES_BLOCKED => Self::MessagesBlocked(r.varint()?),
            NEW_CONNECTION_ID => Self::NewConnectionId(NewConnectionId::decode(r)?),
            RETIRE_CONNECTION_ID => Self::RetireConnectionId(r.varint()?),
            PATH_CHALLENGE => Self::PathChallenge(r.array()?),
            PATH_RESPONSE => Self::PathResponse(r.array()?),
            CONNECTION_CLOSE => Self::ConnectionClose {
                code: r.varint()?,
                frame_type: r.varint()?,
                reason: r.length_prefixed()?,
            },
            APPLICATION_CLOSE => {
                Self::ApplicationClose { code: r.varint()?, reason: r.length_prefixed()? }
            }
            HANDSHAKE_DONE => Self::HandshakeDone,
            DATAGRAM => Self::Datagram(r.rest()),
            DATAGRAM_LENGTH => Self::Datagram(r.length_prefixed()?),
            _ => return Err(Malformed),
        })
    }

    /// Relations between fields that decoding alone does not see.
    fn check(&self, ty: u64) -> Result<(), FrameError> {
        let (offset, data) = match self {
            Self::Crypto { offset, data } => (*offset, *data),
            Self::Message(m) => (m.offset, m.data),
            Self::NewConnectionId(new) if new.retire_prior_to > new.sequence => {
                return Err(FrameError::encoding(ty, "retires ids that were never issued"));
            }
            _ => return Ok(()),
        };
        if offset + data.len() as u64 > varint::MAX {
            return Err(FrameError::encoding(ty, "data beyond 2^62 - 1"));
        }
        Ok(())
    }

    /// True when the receiver owes an acknowledgement (RFC 9002 §2).
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(
            self,
            Self::Padding(_)
                | Self::Ack(_)
                | Self::ConnectionClose { .. }
                | Self::ApplicationClose { .. }
        )
    }

    /// True when the frame may be sent on a path that is only being tried (RFC 9000 §9.1): a packet
    /// of such frames does not move the connection to the path that it came on.
    pub const fn is_probing(&self) -> bool {
        matches!(
            self,
            Self::Padding(_)
                | Self::PathChallenge(_)
                | Self::PathResponse(_)
                | Self::NewConnectionId(_)
        )
    }

    /// Appends the frame. MESSAGE and DATAGRAM get a length, so that more can follow; see
    /// [`MessageHeader`] and [`DatagramHeader`] for the form without.
    ///
    /// # Panics
    /// If a number is above 2^62 - 1, or `retire_prior_to` above `sequence`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        use frame_type::*;
        match *self {
            Self::Padding(count) => out.resize(out.len() + count, 0),
            Self::Ping => varints([PING], out),
            Self::Ack(ack) => ack.encode(out),
            Self::ResetMessage { id, code, final_size } => {
                varints([RESET_MESSAGE, id, code, final_size], out);
            }
            Self::StopMessage { id, code } => varints([STOP_MESSAGE, id, code], out),
            Self::Crypto { offset, data } => {
                crypto_header(offset, data.len(), out);
                out.extend_from_slice(data);
            }
            Self::Message(Message { id, offset, data, end }) => {
                MessageHeader { id, offset, end }.encode(Some(data.len()), out);
                out.extend_from_slice(data);
            }
            Self::MaxData(limit) => varints([MAX_DATA, limit], out),
            Self::MaxMessageData { id, limit } => varints([MAX_MESSAGE_DATA, id, limit], out),
            Self::MaxMessages(limit) => varints([MAX_MESSAGES, limit], out),
            Self::DataBlocked(limit) => varints([DATA_BLOCKED, limit], out),
            Self::MessagesBlocked(limit) => varints([MESSAGES_BLOCKED, limit], out),
            Self::NewConnectionId(new) => new.encode(out),
            Self::RetireConnectionId(sequence) => varints([RETIRE_CONNECTION_ID, sequence], out),
            Self::PathChallenge(bytes) => fixed(PATH_CHALLENGE, &bytes, out),
            Self::PathResponse(bytes) => fixed(PATH_RESPONSE, &bytes, out),
            Self::ConnectionClose { code, frame_type, reason } => {
                varints([CONNECTION_CLOSE, code, frame_type, reason.len() as u64], out);
                out.extend_from_slice(reason);
            }
            Self::ApplicationClose { code, reason } => {
                varints([APPLICATION_CLOSE, code, reason.len() as u64], out);
                out.extend_from_slice(reason);
            }
            Self::HandshakeDone => varints([HANDSHAKE_DONE], out),
            Self::Datagram(data) => {
                DatagramHeader.encode(Some(data.len()), out);
                out.extend_from_slice(data);
            }
        }
    }

    /// Bytes that [`Frame::encode`] appends.
    ///
    /// # Panics
    /// As [`Frame::encode`].
    pub fn size(&self) -> usize {
        let numbers = |n: &[u64]| 1 + n.iter().map(|n| varint::size(*n)).sum::<usize>();
        let prefixed = |data: &[u8]| varint::size(data.len() as u64) + data.len();
        match *self {
            Self::Padding(count) => count,
            Self::Ping | Self::HandshakeDone => 1,
            Self::Ack(ack) => ack.size(),
            Self::ResetMessage { id, code, final_size } => numbers(&[id, code, final_size]),
            Self::StopMessage { id, code } => numbers(&[id, code]),
            Self::Crypto { offset, data } => numbers(&[offset]) + prefixed(data),
            Self::Message(Message { id, offset, data, end }) => {
                MessageHeader { id, offset, end }.size(Some(data.len())) + data.len()
            }
            Self::MaxMessageData { id, limit } => numbers(&[id, limit]),
            Self::MaxData(n)
            | Self::MaxMessages(n)
            | Self::DataBlocked(n)
            | Self::MessagesBlocked(n)
            | Self::RetireConnectionId(n) => numbers(&[n]),
            Self::NewConnectionId(new) => {
                numbers(&[new.sequence, new.retire_prior_to]) + 1 + new.id.len() + 16
            }
            Self::PathChallenge(_) | Self::PathResponse(_) => 1 + 8,
            Self::ConnectionClose { code, frame_type, reason } => {
                numbers(&[code, frame_type]) + prefixed(reason)
            }
            Self::ApplicationClose { code, reason } => numbers(&[code]) + prefixed(reason),
            Self::Datagram(data) => 1 + prefixed(data),
        }
    }
}

impl NewConnectionId {
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let sequence = r.varint()?;
        let retire_prior_to = r.varint()?;
        let length = r.u8()?;
        let id = ConnectionId::new(r.bytes(u64::from(length))?).ok_or(Malformed)?;
        if id.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { sequence, retire_prior_to, id, reset_token: r.array()? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.retire_prior_to <= self.sequence && !self.id.is_empty());
        varints([frame_type::NEW_CONNECTION_ID, self.sequence, self.retire_prior_to], out);
        out.push(self.id.len() as u8);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.reset_token);
    }
}

fn varints<const N: usize>(values: [u64; N], out: &mut Vec<u8>) {
    values.into_iter().for_each(|value| varint::encode(value, out));
}

fn fixed(ty: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint::encode(ty, out);
    out.extend_from_slice(bytes);
}
