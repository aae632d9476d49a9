//! Packets: the headers of RFC 9000 §17 under the invariants of RFC 8999.
//!
//! Receiving goes through types, so that no step can be left out: [`Packet::decode`] takes the first
//! packet of a datagram; [`ProtectedPacket::unprotect`] removes header protection;
//! [`UnprotectedPacket::open`] decrypts. Until then nothing in a packet is authentic: errors mean
//! that it is dropped, except [`PacketError::ReservedBits`].
//!
//! Sending: [`PacketWriter::begin`] writes a header, the caller appends frames,
//! [`PacketWriter::finish`] seals. Several packets can follow one another in one datagram.

use bytes::{Buf, Bytes, BytesMut};
use core::fmt;
use core::ops::Range;

use super::connection_id::LOCAL_LENGTH;
use super::protection::{HeaderKey, PacketKey};
use super::{ConnectionId, Malformed, PacketType, Reader};

pub use encode::{
    Header, PacketWriter, encode_retry, encode_stateless_reset, encode_version_negotiation,
};

mod encode;
pub mod number;
#[cfg(test)]
mod tests;

const LONG_HEADER: u8 = 0x80;
const FIXED_BIT: u8 = 0x40;
const LONG_TYPE: u8 = 0x30;
const LONG_RESERVED: u8 = 0x0c;
const SHORT_RESERVED: u8 = 0x18;
const KEY_PHASE: u8 = 0x04;
const NUMBER_LENGTH: u8 = 0x03;

/// Bytes of the shortest datagram that can be a stateless reset (RFC 9000 §10.3).
pub const MIN_STATELESS_RESET: usize = 21;

/// Why a packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// Not a packet of this protocol, or cut short. To be dropped.
    Malformed,
    /// Not made with the key at hand, or altered. To be dropped and counted against the key's
    /// integrity limit; it may be a stateless reset.
    NotAuthentic,
    /// The peer itself set bits that must be zero: the one error here that is proven to be the peer's
    /// (PROTOCOL_VIOLATION, RFC 9000 §17.2).
    ReservedBits,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed packet",
            Self::NotAuthentic => "packet is not authentic",
            Self::ReservedBits => "reserved header bits are set",
        })
    }
}

impl core::error::Error for PacketError {}

impl From<Malformed> for PacketError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The destination connection id of a datagram's first packet, to find the worker or connection by
/// without decoding more (RFC 8999 §5). Up to 255 bytes in versions that are not ours.
pub fn destination(datagram: &[u8]) -> Option<&[u8]> {
    let mut r = Reader::new(datagram);
    let length = match r.u8().ok()? & LONG_HEADER {
        0 => LOCAL_LENGTH as u8,
        _ => {
            r.u32().ok()?;
            r.u8().ok()?
        }
    };
    r.bytes(u64::from(length)).ok()
}

/// The first byte of a datagram's destination: by it a server with several workers finds the one that
/// owns the connection. A kernel's filter program reads the same byte, so this looks at nothing but
/// the header's form. `None` if the datagram is too short.
pub fn steering_byte(datagram: &[u8]) -> Option<u8> {
    let offset = match datagram.first()? & LONG_HEADER {
        0 => STEERING_OFFSET_SHORT,
        _ => STEERING_OFFSET_LONG,
    };
    datagram.get(offset).copied()
}

/// Where [`steering_byte`] is behind a short header: after the flags.
pub const STEERING_OFFSET_SHORT: usize = 1;

/// Where [`steering_byte`] is behind a long header: after flags, version and length (RFC 8999 §5.1).
pub const STEERING_OFFSET_LONG: usize = 6;

/// A packet as far as it can be read without keys.
#[derive(Debug)]
pub enum Packet {
    /// Carries frames.
    Protected(ProtectedPacket),
    /// The server wants the client to prove its address (RFC 9000 §17.2.5).
    Retry(Retry),
    /// The server does not speak the client's version (RFC 9000 §17.2.1).
    VersionNegotiation(VersionNegotiation),
    /// A long header of a version that was not offered: all that its invariants say.
    OtherVersion(OtherVersion),
}

/// A Retry packet. Its tag is still to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The version that the packet claims.
    pub version: u32,
    /// Whom it is for.
    pub destination: ConnectionId,
    /// What the client is to send to from now on.
    pub source: ConnectionId,
    /// What the client is to bring in its next Initial packet.
    pub token: Bytes,
    /// The integrity tag (RFC 9001 §5.8).
    pub tag: [u8; 16],
    /// The packet without its tag: what the tag is over.
    pub untagged: Bytes,
}

/// A Version Negotiation packet. Nothing in it is authentic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionNegotiation {
    /// The client's source connection id, echoed; any length.
    pub destination: Bytes,
    /// The client's destination connection id, echoed; any length.
    pub source: Bytes,
    versions: Bytes,
}

impl VersionNegotiation {
    /// The versions that the server says it speaks.
    pub fn versions(&self) -> impl Iterator<Item = u32> + '_ {
        let (versions, _) = self.versions.as_chunks::<4>();
        versions.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// A packet with a long header of another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherVersion {
    /// The version; not 0.
    pub version: u32,
    /// To be echoed as source; any length.
    pub destination: Bytes,
    /// To be echoed as destination; any length.
    pub source: Bytes,
}

/// A packet whose header is protected and whose payload is encrypted.
#[derive(Debug)]
pub struct ProtectedPacket {
    header: ReceivedHeader,
    /// The whole packet.
    data: BytesMut,
    number_at: usize,
}

#[derive(Debug)]
struct ReceivedHeader {
    packet_type: PacketType,
    version: Option<u32>,
    destination: ConnectionId,
    source: ConnectionId,
    token: Range<usize>,
}

impl Packet {
    /// Takes the first packet off a datagram. Returns it and the rest of the datagram, which may hold
    /// further packets (RFC 9000 §12.2). `versions` are those whose long headers are to be read.
    ///
    /// # Errors
    /// [`PacketError::Malformed`]: the whole rest of the datagram is to be dropped.
    pub fn decode(
        datagram: BytesMut,
        versions: &[u32],
    ) -> Result<(Self, Option<BytesMut>), PacketError> {
        match datagram.first() {
            None => Err(PacketError::Malformed),
            Some(first) if first & LONG_HEADER == 0 => {
                decode_short(datagram).map(|packet| (Self::Protected(packet), None))
            }
            Some(_) => decode_long(datagram, versions),
        }
    }
}

fn decode_short(data: BytesMut) -> Result<ProtectedPacket, PacketError> {
    let mut r = Reader::new(&data);
    if r.u8()? & FIXED_BIT == 0 {
        return Err(PacketError::Malformed);
    }
    let header = ReceivedHeader {
        packet_type: PacketType::OneRtt,
        version: None,
        destination: ConnectionId::from(r.array::<LOCAL_LENGTH>()?),
        source: ConnectionId::EMPTY,
        token: 0..0,
    };
    Ok(ProtectedPacket { header, data, number_at: 1 + LOCAL_LENGTH })
}

fn decode_long(
    mut data: BytesMut,
    versions: &[u32],
) -> Result<(Packet, Option<BytesMut>), PacketError> {
    let total = data.len();
    let mut r = Reader::new(&data);
    let first = r.u8()?;
    let version = r.u32()?;
    let destination_length = r.u8()?;
    let destination = r.bytes(u64::from(destination_length))?;
    let source_length = r.u8()?;
    let source = r.bytes(u64::from(source_length))?;

    if version == 0 || !versions.contains(&version) {
        let destination = Bytes::copy_from_slice(destination);
        let source = Bytes::copy_from_slice(source);
        if version != 0 {
            return Ok((Packet::OtherVersion(OtherVersion { version, destination, source }), None));
        }
        let versions = Bytes::copy_from_slice(r.rest());
        if versions.is_empty() || !versions.len().is_multiple_of(4) {
            return Err(PacketError::Malformed);
        }
        let packet = VersionNegotiation { destination, source, versions };
        return Ok((Packet::VersionNegotiation(packet), None));
    }

    let destination = ConnectionId::new(destination).ok_or(Malformed)?;
    let source = ConnectionId::new(source).ok_or(Malformed)?;
    if first & FIXED_BIT == 0 {
        return Err(PacketError::Malformed);
    }
    let Some(packet_type) = long_type(first) else {
        let token_at = total - r.remaining();
        return decode_retry(data, version, destination, source, token_at)
            .map(|retry| (Packet::Retry(retry), None));
    };
    let token = match packet_type {
        PacketType::Initial => {
            let length = r.length_prefixed()?.len();
            let end = total - r.remaining();
            end - length..end
        }
        _ => 0..0,
    };
    let length = r.varint()?;
    let number_at = total - r.remaining();
    r.bytes(length)?;
    let rest = (!r.is_empty()).then(|| total - r.remaining());
    let rest = rest.map(|at| data.split_off(at));
    let header = ReceivedHeader { packet_type, version: Some(version), destination, source, token };
    Ok((Packet::Protected(ProtectedPacket { header, data, number_at }), rest))
}

/// The type of a long header; `None` for Retry.
const fn long_type(first: u8) -> Option<PacketType> {
    match (first & LONG_TYPE) >> 4 {
        0 => Some(PacketType::Initial),
        1 => Some(PacketType::ZeroRtt),
        2 => Some(PacketType::Handshake),
        _ => None,
    }
}

fn decode_retry(
    data: BytesMut,
    version: u32,
    destination: ConnectionId,
    source: ConnectionId,
    token_at: usize,
) -> Result<Retry, PacketError> {
    let mut untagged = data.freeze();
    let tag_at = untagged.len().checked_sub(16).filter(|at| *at > token_at).ok_or(Malformed)?;
    let mut tag = [0; 16];
    tag.copy_from_slice(&untagged.split_off(tag_at));
    let token = untagged.slice(token_at..);
    Ok(Retry { version, destination, source, token, tag, untagged })
}

impl ProtectedPacket {
    /// What kind of packet, and so which keys.
    pub fn packet_type(&self) -> PacketType {
        self.header.packet_type
    }

    /// The version; `None` in a 1-RTT packet.
    pub fn version(&self) -> Option<u32> {
        self.header.version
    }

    /// Whom the packet is for.
    pub fn destination(&self) -> ConnectionId {
        self.header.destination
    }

    /// Whom it claims to come from; [`ConnectionId::EMPTY`] in a 1-RTT packet.
    pub fn source(&self) -> ConnectionId {
        self.header.source
    }

    /// The token of an Initial packet; empty in others.
    pub fn token(&self) -> &[u8] {
        &self.data[self.header.token.clone()]
    }

    /// Bytes of the header up to the packet number.
    pub fn number_at(&self) -> usize {
        self.number_at
    }

    /// Bytes of the whole packet.
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// The last 16 bytes, which are the token if this is a stateless reset. To be taken before the
    /// packet is opened, which destroys them. `None` when it cannot be one.
    pub fn reset_token(&self) -> Option<[u8; 16]> {
        let may_be =
            self.data.len() >= MIN_STATELESS_RESET && !self.packet_type().has_long_header();
        may_be.then(|| self.data.last_chunk().copied()).flatten()
    }

    /// Removes header protection (RFC 9001 §5.4).
    ///
    /// # Errors
    /// [`PacketError::Malformed`] when the packet is too short for a sample.
    pub fn unprotect(mut self, key: &dyn HeaderKey) -> Result<UnprotectedPacket, PacketError> {
        let (header, body) = self.data.split_at_mut(self.number_at);
        let (number, rest) = body.split_first_chunk_mut::<4>().ok_or(Malformed)?;
        let sample = rest.get(..key.sample_len()).ok_or(Malformed)?;
        key.unprotect(sample, &mut header[0], number);
        let first = header[0];
        let length = usize::from(first & NUMBER_LENGTH) + 1;
        let truncated = number[..length].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
        Ok(UnprotectedPacket {
            payload_at: self.number_at + length,
            header: self.header,
            data: self.data,
            first,
            number: number::Truncated::new(truncated, length),
        })
    }
}

/// A packet without header protection. Its payload is still encrypted, and nothing is authentic yet.
#[derive(Debug)]
pub struct UnprotectedPacket {
    header: ReceivedHeader,
    data: BytesMut,
    payload_at: usize,
    first: u8,
    number: number::Truncated,
}

impl UnprotectedPacket {
    /// What kind of packet.
    pub fn packet_type(&self) -> PacketType {
        self.header.packet_type
    }

    /// The whole packet number. `expected` is one above the highest that has been received and opened
    /// in its space.
    pub fn number(&self, expected: u64) -> u64 {
        self.number.expand(expected)
    }

    /// The key phase bit; false in packets with long headers (RFC 9001 §6).
    pub fn key_phase(&self) -> bool {
        !self.packet_type().has_long_header() && self.first & KEY_PHASE != 0
    }

    /// Decrypts the payload. `number` is what [`UnprotectedPacket::number`] gave.
    ///
    /// # Errors
    /// [`PacketError::NotAuthentic`]; [`PacketError::ReservedBits`] from an authentic packet.
    pub fn open(mut self, key: &dyn PacketKey, number: u64) -> Result<OpenedPacket, PacketError> {
        let (header, payload) = self.data.split_at_mut(self.payload_at);
        let length = key.open(number, header, payload).map_err(|_| PacketError::NotAuthentic)?;
        let long = self.packet_type().has_long_header();
        if self.first & (if long { LONG_RESERVED } else { SHORT_RESERVED }) != 0 {
            return Err(PacketError::ReservedBits);
        }
        if cfg!(feature = "planted-flipped-bit") && number % 64 == 63 && length > 64 {
            self.data[self.payload_at + length - 1] ^= 1;
        }
        let key_phase = self.key_phase();
        self.data.truncate(self.payload_at + length);
        self.data.advance(self.payload_at);
        Ok(OpenedPacket {
            packet_type: self.header.packet_type,
            destination: self.header.destination,
            source: self.header.source,
            number,
            key_phase,
            payload: self.data.freeze(),
        })
    }
}

/// An authentic packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedPacket {
    /// What kind of packet.
    pub packet_type: PacketType,
    /// Whom it is for.
    pub destination: ConnectionId,
    /// Whom it comes from; [`ConnectionId::EMPTY`] in a 1-RTT packet.
    pub source: ConnectionId,
    /// The packet number.
    pub number: u64,
    /// The key phase bit.
    pub key_phase: bool,
    /// The frames, for [`Frames`](super::frame::Frames).
    pub payload: Bytes,
}
