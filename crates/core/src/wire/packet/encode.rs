//! Writing packets.

use alloc::vec::Vec;

use super::{FIXED_BIT, KEY_PHASE, LONG_HEADER, number};
use crate::wire::protection::{HeaderKey, PacketKey};
use crate::wire::{ConnectionId, PacketType, VERSION, varint};

/// The length field of long headers is written before the length is known, always in two bytes: such
/// packets are therefore shorter than 16 KiB, which no handshake needs to exceed.
const MAX_LONG_LENGTH: usize = 0x3fff;

/// The header of a packet with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    packet_type: PacketType,
    version: u32,
    destination: ConnectionId,
    source: ConnectionId,
    token: &'a [u8],
    key_phase: bool,
}

impl<'a> Header<'a> {
    /// An Initial packet; a client brings the token of the Retry packet that it got, else an empty
    /// one, as a server always does.
    pub const fn initial(destination: ConnectionId, source: ConnectionId, token: &'a [u8]) -> Self {
        Self { token, ..Self::long(PacketType::Initial, destination, source) }
    }

    /// A Handshake packet.
    pub const fn handshake(destination: ConnectionId, source: ConnectionId) -> Self {
        Self::long(PacketType::Handshake, destination, source)
    }

    /// A 0-RTT packet.
    pub const fn zero_rtt(destination: ConnectionId, source: ConnectionId) -> Self {
        Self::long(PacketType::ZeroRtt, destination, source)
    }

    /// A 1-RTT packet.
    pub const fn one_rtt(destination: ConnectionId, key_phase: bool) -> Self {
        let header = Self::long(PacketType::OneRtt, destination, ConnectionId::EMPTY);
        Self { key_phase, ..header }
    }

    const fn long(
        packet_type: PacketType,
        destination: ConnectionId,
        source: ConnectionId,
    ) -> Self {
        let (version, token) = (VERSION, &[]);
        Self { packet_type, version, destination, source, token, key_phase: false }
    }

    /// The same header with another version.
    pub const fn with_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// Bytes of the header, with a packet number of `number_length` bytes.
    pub const fn size(&self, number_length: usize) -> usize {
        let fixed = match self.packet_type {
            PacketType::OneRtt => 1 + self.destination.len(),
            _ => 1 + 4 + 1 + self.destination.len() + 1 + self.source.len() + 2,
        };
        let token = match self.packet_type {
            PacketType::Initial => varint::size(self.token.len() as u64) + self.token.len(),
            _ => 0,
        };
        fixed + token + number_length
    }

    fn encode(&self, number_length: usize, out: &mut Vec<u8>) {
        let bits = FIXED_BIT | (number_length - 1) as u8;
        if self.packet_type == PacketType::OneRtt {
            out.push(bits | if self.key_phase { KEY_PHASE } else { 0 });
            out.extend_from_slice(&self.destination);
            return;
        }
        let ty = match self.packet_type {
            PacketType::Initial => 0x00,
            PacketType::ZeroRtt => 0x10,
            PacketType::Handshake | PacketType::OneRtt => 0x20,
        };
        invariants(LONG_HEADER | bits | ty, self.version, &self.destination, &self.source, out);
        if self.packet_type == PacketType::Initial {
            varint::encode(self.token.len() as u64, out);
            out.extend_from_slice(self.token);
        }
        out.extend_from_slice(&[0; 2]);
    }
}

/// A packet that is being written at the end of a buffer.
///
/// Dropping it without [`PacketWriter::finish`] or [`PacketWriter::abandon`] leaves half a packet in
/// the buffer.
#[derive(Debug)]
#[must_use = "finish or abandon the packet"]
pub struct PacketWriter {
    start: usize,
    number_at: usize,
    payload_at: usize,
    number: u64,
    long: bool,
}

impl PacketWriter {
    /// Appends the header of packet `number` to `out`; its frames are to be appended next.
    /// `largest_acked` is the highest packet number that the peer has acknowledged in this space.
    ///
    /// # Panics
    /// As [`number::length`].
    pub fn begin(
        header: &Header<'_>,
        number: u64,
        largest_acked: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Self {
        let start = out.len();
        let length = number::length(number, largest_acked);
        header.encode(length, out);
        let number_at = out.len();
        out.extend_from_slice(&number.to_be_bytes()[8 - length..]);
        let long = header.packet_type.has_long_header();
        debug_assert_eq!(out.len() - start, header.size(length));
        Self { start, number_at, payload_at: out.len(), number, long }
    }

    /// Where the packet starts in the buffer.
    pub const fn start(&self) -> usize {
        self.start
    }

    /// The packet number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of frames written so far.
    pub fn payload_len(&self, out: &[u8]) -> usize {
        out.len() - self.payload_at
    }

    /// The frames written so far.
    pub fn payload<'a>(&self, out: &'a [u8]) -> &'a [u8] {
        &out[self.payload_at..]
    }

    /// Bytes of frames that still fit if the finished packet may have `size` bytes, tag included.
    pub fn room(&self, size: usize, tag_len: usize, out: &[u8]) -> usize {
        size.saturating_sub(out.len() - self.start + tag_len)
    }

    /// Appends PADDING so that the finished packet has at least `size` bytes, tag included.
    pub fn pad_to(&self, size: usize, tag_len: usize, out: &mut Vec<u8>) {
        let room = self.room(size, tag_len, out);
        out.resize(out.len() + room, 0);
    }

    /// Takes the packet back out of the buffer.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }

    /// Encrypts the frames and protects the header. Returns the size of the packet.
    ///
    /// # Panics
    /// If there are no frames, or a packet with a long header reaches 16 KiB.
    pub fn finish(
        self,
        header_key: &dyn HeaderKey,
        packet_key: &dyn PacketKey,
        out: &mut Vec<u8>,
    ) -> usize {
        self.finish_with_end(header_key, packet_key, &[], out)
    }

    /// The same where the last bytes of the last frame are `end`, and not what `out` ends with.
    ///
    /// # Panics
    /// Also if that frame is shorter, or the packet so short that it has to be padded.
    pub fn finish_with_end(
        self,
        header_key: &dyn HeaderKey,
        packet_key: &dyn PacketKey,
        end: &[u8],
        out: &mut Vec<u8>,
    ) -> usize {
        assert!(out.len() > self.payload_at, "a packet without frames");
        let sample_at = self.number_at + 4;
        // The sample must lie within the packet, so a tiny payload is padded (RFC 9001 §5.4.2).
        let least = sample_at + key_sample_excess(header_key, packet_key);
        assert!(end.is_empty() || out.len() >= least, "a short packet with an end of its own");
        out.resize(out.len().max(least) + packet_key.tag_len(), 0);
        if self.long {
            let length = out.len() - self.number_at;
            assert!(length <= MAX_LONG_LENGTH, "a long header on {length} bytes");
            let field = (length as u16 | 0x4000).to_be_bytes();
            out[self.number_at - 2..self.number_at].copy_from_slice(&field);
        }
        let packet = &mut out[self.start..];
        let (header, payload) = packet.split_at_mut(self.payload_at - self.start);
        match end {
            [] => packet_key.seal(self.number, header, payload),
            end => packet_key.seal_with_end(self.number, header, payload, end),
        }

        let number_at = self.number_at - self.start;
        let (head, sample) = packet.split_at_mut(number_at + 4);
        let (first, number) = head.split_at_mut(number_at);
        let number_length = self.payload_at - self.number_at;
        header_key.protect(
            &sample[..header_key.sample_len()],
            &mut first[0],
            &mut number[..number_length],
        );
        packet.len()
    }
}

/// Bytes that the plaintext must reach past the sample's start, so that tag and plaintext together
/// hold the sample.
fn key_sample_excess(header_key: &dyn HeaderKey, packet_key: &dyn PacketKey) -> usize {
    header_key.sample_len().saturating_sub(packet_key.tag_len())
}

/// Appends a Retry packet without its integrity tag, which the caller computes over exactly these
/// bytes and appends.
pub fn encode_retry(
    version: u32,
    destination: &ConnectionId,
    source: &ConnectionId,
    token: &[u8],
    out: &mut Vec<u8>,
) {
    invariants(LONG_HEADER | FIXED_BIT | 0x30, version, destination, source, out);
    out.extend_from_slice(token);
}

/// Appends a Version Negotiation packet in answer to a packet whose connection ids, of up to 255
/// bytes, are to be echoed crosswise. `unpredictable` fills the bits that have no meaning.
///
/// # Panics
/// If a connection id is longer than 255 bytes.
pub fn encode_version_negotiation(
    unpredictable: u8,
    destination: &[u8],
    source: &[u8],
    versions: &[u32],
    out: &mut Vec<u8>,
) {
    invariants(LONG_HEADER | FIXED_BIT | unpredictable, 0, destination, source, out);
    versions.iter().for_each(|version| out.extend_from_slice(&version.to_be_bytes()));
}

/// Appends a stateless reset (RFC 9000 §10.3): looks like a short packet, ends with the token. It must
/// be shorter than the datagram that it answers.
///
/// # Panics
/// If `unpredictable` is shorter than 5 bytes.
pub fn encode_stateless_reset(unpredictable: &[u8], token: &[u8; 16], out: &mut Vec<u8>) {
    assert!(unpredictable.len() >= 5, "a stateless reset shorter than 21 bytes");
    let start = out.len();
    out.extend_from_slice(unpredictable);
    out[start] = out[start] & !LONG_HEADER | FIXED_BIT;
    out.extend_from_slice(token);
}

/// What all long headers of all versions begin with (RFC 8999 §5.1).
fn invariants(first: u8, version: u32, destination: &[u8], source: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    out.extend_from_slice(&version.to_be_bytes());
    for id in [destination, source] {
        out.push(u8::try_from(id.len()).expect("a connection id of at most 255 bytes"));
        out.extend_from_slice(id);
    }
}
