//! The decoders of `stubborn_core::wire`. Whatever decodes must encode to something that decodes to
//! the same.

use bytes::BytesMut;
use stubborn_core::wire::frame::{Frame, Frames};
use stubborn_core::wire::packet::{
    OpenedPacket, Packet, PacketError, ProtectedPacket, destination,
};
use stubborn_core::wire::params::TransportParameters;
use stubborn_core::wire::protection::{HeaderKey, OpenError, PacketKey};
use stubborn_core::wire::{PacketType, Side, VERSION, varint};

/// Varints, one after the other.
pub fn fuzz_varint(data: &[u8]) {
    let mut rest = data;
    while let Some((value, after)) = varint::decode(rest) {
        let mut shortest = Vec::new();
        varint::encode(value, &mut shortest);
        assert!(shortest.len() <= rest.len() - after.len());
        assert_eq!(shortest.len(), varint::size(value));
        assert_eq!(varint::decode(&shortest), Some((value, &[][..])));
        rest = after;
    }
    assert!(rest.len() < varint::MAX_SIZE);
}

/// A datagram of packets, then the frames in those of them that carry any. Keys without cryptography
/// let the fuzzer through to what an authentic peer could send.
pub fn fuzz_packet(data: &[u8]) {
    let _ = destination(data);
    let mut rest = Some(BytesMut::from(data));
    while let Some(datagram) = rest.take() {
        let size = datagram.len();
        let Ok((packet, next)) = Packet::decode(datagram, &[VERSION]) else { return };
        assert!(next.as_ref().is_none_or(|next| !next.is_empty() && next.len() < size));
        match packet {
            Packet::Protected(packet) => {
                let _ = (packet.token().len(), packet.reset_token());
                if let Ok(opened) = open(packet) {
                    frames(&opened.payload, opened.packet_type, Side::Server);
                }
            }
            Packet::VersionNegotiation(negotiation) => {
                assert!(negotiation.versions().count() * 4 < size);
            }
            Packet::Retry(retry) => assert!(!retry.token.is_empty() && retry.untagged.len() < size),
            Packet::OtherVersion(other) => assert!(other.version != 0 && other.version != VERSION),
        }
        rest = next;
    }
}

/// A payload; the first byte says in which packet from whom.
pub fn fuzz_frame(data: &[u8]) {
    let Some((first, payload)) = data.split_first() else { return };
    let packet = match first & 3 {
        0 => PacketType::OneRtt,
        1 => PacketType::Initial,
        2 => PacketType::Handshake,
        _ => PacketType::ZeroRtt,
    };
    frames(payload, packet, if first & 4 == 0 { Side::Server } else { Side::Client });
}

/// Transport parameters; the first byte says from whom.
pub fn fuzz_params(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let sender = if first & 1 == 0 { Side::Server } else { Side::Client };
    if let Ok(decoded) = TransportParameters::decode(bytes, sender) {
        let again = TransportParameters::decode(&decoded.encode(), sender);
        assert_eq!(again.as_ref(), Ok(&decoded));
    }
}

fn frames(payload: &[u8], packet: PacketType, sender: Side) {
    for frame in Frames::new(payload, packet, sender).map_while(Result::ok) {
        let mut encoded = Vec::new();
        frame.encode(&mut encoded);
        assert_eq!(encoded.len(), frame.size());
        let mut again = Frames::new(&encoded, packet, sender);
        assert_eq!(again.next(), Some(Ok(frame)));
        assert_eq!(again.next(), None);
        if let Frame::Ack(ack) = frame {
            let mut below = ack.largest + 2;
            for range in ack.ranges() {
                assert!(range.start < range.end && range.end < below);
                below = range.start;
            }
        }
    }
}

fn open(packet: ProtectedPacket) -> Result<OpenedPacket, PacketError> {
    let packet = packet.unprotect(&Transparent)?;
    let number = packet.number(1 << 20);
    packet.open(&Transparent, number)
}

/// Keys that change nothing and find everything authentic.
pub struct Transparent;

impl PacketKey for Transparent {
    fn seal(&self, _number: u64, _header: &[u8], _payload: &mut [u8]) {}

    fn open(&self, _number: u64, _header: &[u8], payload: &mut [u8]) -> Result<usize, OpenError> {
        payload.len().checked_sub(self.tag_len()).ok_or(OpenError)
    }

    fn tag_len(&self) -> usize {
        16
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

impl HeaderKey for Transparent {
    fn protect(&self, _sample: &[u8], _first: &mut u8, _number: &mut [u8]) {}

    fn unprotect(&self, _sample: &[u8], _first: &mut u8, _number: &mut [u8]) {}

    fn sample_len(&self) -> usize {
        16
    }
}
