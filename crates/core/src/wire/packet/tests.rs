use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::super::protection::OpenError;
use super::super::{VERSION, varint};
use super::*;

/// Keys that keep the shape of real ones (16-byte tag and sample) without cryptography. The tag is a
/// checksum over number, header and payload.
struct Toy;

fn checksum(number: u64, parts: [&[u8]; 2]) -> [u8; 16] {
    let hash = parts.iter().flat_map(|p| p.iter()).fold(number ^ 0x9e37_79b9_7f4a_7c15, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    });
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&hash.to_be_bytes());
    tag[8..].copy_from_slice(&hash.rotate_left(32).to_be_bytes());
    tag
}

impl PacketKey for Toy {
    fn seal(&self, number: u64, header: &[u8], payload: &mut [u8]) {
        let (text, tag) = payload.split_at_mut(payload.len() - 16);
        tag.copy_from_slice(&checksum(number, [header, text]));
        text.iter_mut().for_each(|b| *b ^= 0x5a);
    }

    fn open(&self, number: u64, header: &[u8], payload: &mut [u8]) -> Result<usize, OpenError> {
        let length = payload.len().checked_sub(16).ok_or(OpenError)?;
        let (text, tag) = payload.split_at_mut(length);
        text.iter_mut().for_each(|b| *b ^= 0x5a);
        if checksum(number, [header, text]) == *tag { Ok(length) } else { Err(OpenError) }
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

impl HeaderKey for Toy {
    fn protect(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) {
        assert_eq!(sample.len(), 16);
        let bits = if *first & LONG_HEADER != 0 { 0x0f } else { 0x1f };
        *first ^= sample[0] & bits;
        number.iter_mut().zip(&sample[1..]).for_each(|(b, m)| *b ^= m);
    }

    fn unprotect(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) {
        assert_eq!(number.len(), 4);
        let bits = if *first & LONG_HEADER != 0 { 0x0f } else { 0x1f };
        *first ^= sample[0] & bits;
        let length = usize::from(*first & NUMBER_LENGTH) + 1;
        number[..length].iter_mut().zip(&sample[1..]).for_each(|(b, m)| *b ^= m);
    }

    fn sample_len(&self) -> usize {
        16
    }
}

const LOCAL: ConnectionId = ConnectionId::from_local([9; 8]);

fn decode(bytes: &[u8]) -> Result<(Packet, Option<BytesMut>), PacketError> {
    Packet::decode(BytesMut::from(bytes), &[VERSION])
}

fn protected(bytes: &[u8]) -> (ProtectedPacket, Option<BytesMut>) {
    match decode(bytes).expect("a packet") {
        (Packet::Protected(packet), rest) => (packet, rest),
        (other, _) => panic!("{other:?}"),
    }
}

fn write(header: &Header<'_>, number: u64, payload: &[u8], out: &mut Vec<u8>) {
    let writer = PacketWriter::begin(header, number, number.checked_sub(3), out);
    out.extend_from_slice(payload);
    let size = out.len() - writer.start() + 16;
    assert!(writer.finish(&Toy, &Toy, out) >= size);
}

fn open(packet: ProtectedPacket, expected: u64) -> Result<OpenedPacket, PacketError> {
    let packet = packet.unprotect(&Toy)?;
    let number = packet.number(expected);
    packet.open(&Toy, number)
}

fn headers(peer: ConnectionId) -> [Header<'static>; 5] {
    [
        Header::initial(LOCAL, peer, b"token"),
        Header::handshake(LOCAL, peer),
        Header::zero_rtt(LOCAL, peer),
        Header::one_rtt(LOCAL, false),
        Header::one_rtt(LOCAL, true),
    ]
}

#[test]
fn coalesced_packets_come_out_one_by_one() {
    let peer = ConnectionId::new(&[1, 2, 3]).unwrap();
    let mut datagram = Vec::new();
    for (n, header) in headers(peer).iter().take(4).enumerate() {
        write(header, 10 + n as u64, &[n as u8; 30], &mut datagram);
    }
    let mut rest = Some(BytesMut::from(&datagram[..]));
    let types =
        [PacketType::Initial, PacketType::Handshake, PacketType::ZeroRtt, PacketType::OneRtt];
    for (n, packet_type) in types.into_iter().enumerate() {
        let (packet, next) = protected(&rest.take().expect("another packet"));
        assert_eq!(packet.packet_type(), packet_type);
        assert_eq!(packet.token(), if n == 0 { &b"token"[..] } else { b"" });
        assert_eq!(packet.destination(), LOCAL);
        assert_eq!(packet.source(), if n == 3 { ConnectionId::EMPTY } else { peer });
        let opened = open(packet, 10).expect("authentic");
        assert_eq!((opened.number, &opened.payload[..]), (10 + n as u64, &[n as u8; 30][..]));
        rest = next;
    }
    assert!(rest.is_none());
}

#[test]
fn a_payload_of_one_byte_is_padded_until_the_sample_fits() {
    for header in headers(LOCAL) {
        let mut out = Vec::new();
        write(&header, 0, &[1], &mut out);
        let opened = open(protected(&out).0, 0).expect("authentic");
        assert_eq!(opened.payload[0], 1);
        assert!(opened.payload[1..].iter().all(|byte| *byte == 0), "only padding added");
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_every_cut_refused() {
    for header in headers(LOCAL) {
        let mut out = Vec::new();
        write(&header, 77, b"some frames here", &mut out);
        for bit in 0..out.len() * 8 {
            let mut altered = out.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            if let Ok((Packet::Protected(packet), _)) = decode(&altered) {
                assert!(open(packet, 77).is_err(), "bit {bit} of {header:?}");
            }
        }
        for length in 0..out.len() {
            if let Ok((Packet::Protected(packet), _)) = decode(&out[..length]) {
                assert!(open(packet, 77).is_err(), "cut at {length}");
            }
        }
    }
}

#[test]
fn reserved_bits_are_the_peers_fault_only_in_an_authentic_packet() {
    for (header, bit) in [(headers(LOCAL)[1], 0x04), (headers(LOCAL)[3], 0x08)] {
        let mut out = Vec::new();
        let writer = PacketWriter::begin(&header, 5, None, &mut out);
        out[0] |= bit;
        out.extend_from_slice(&[1; 20]);
        writer.finish(&Toy, &Toy, &mut out);
        assert_eq!(open(protected(&out).0, 5), Err(PacketError::ReservedBits));
        let last = out.len() - 1;
        out[last] ^= 1;
        assert_eq!(open(protected(&out).0, 5), Err(PacketError::NotAuthentic));
    }
}

#[test]
fn the_key_phase_is_read_from_short_headers_only() {
    for (header, phase) in headers(LOCAL).into_iter().zip([false, false, false, false, true]) {
        let mut out = Vec::new();
        write(&header, 1, &[1; 20], &mut out);
        let packet = protected(&out).0.unprotect(&Toy).unwrap();
        assert_eq!(packet.key_phase(), phase);
        assert_eq!(packet.open(&Toy, 1).unwrap().key_phase, phase);
    }
}

#[test]
fn a_packet_of_another_version_yields_its_ids_of_any_length() {
    let mut bytes = vec![0x80, 0, 0, 0, 9, 255];
    bytes.extend_from_slice(&[1; 255]);
    bytes.push(30);
    bytes.extend_from_slice(&[2; 30]);
    let Ok((Packet::OtherVersion(other), None)) = decode(&bytes) else { panic!() };
    assert_eq!(other.version, 9);
    assert_eq!((&other.destination[..], &other.source[..]), (&[1; 255][..], &[2; 30][..]));
    assert_eq!(destination(&bytes), Some(&[1; 255][..]));

    let mut answer = Vec::new();
    encode_version_negotiation(0x2a, &other.source, &other.destination, &[VERSION, 7], &mut answer);
    let Ok((Packet::VersionNegotiation(vn), None)) = decode(&answer) else { panic!() };
    assert_eq!((&vn.destination[..], &vn.source[..]), (&[2; 30][..], &[1; 255][..]));
    assert_eq!(vn.versions().collect::<Vec<_>>(), [VERSION, 7]);
    answer.pop();
    assert_eq!(decode(&answer).unwrap_err(), PacketError::Malformed);
    answer.truncate(answer.len() - 7);
    assert_eq!(decode(&answer).unwrap_err(), PacketError::Malformed, "no versions at all");
}

#[test]
fn a_retry_packet_is_read_back_and_one_without_a_token_refused() {
    let mut bytes = Vec::new();
    let source = ConnectionId::new(&[5; 20]).unwrap();
    encode_retry(VERSION, &LOCAL, &source, b"prove it", &mut bytes);
    let untagged = bytes.clone();
    bytes.extend_from_slice(&[0xee; 16]);
    let Ok((Packet::Retry(retry), None)) = decode(&bytes) else { panic!() };
    assert_eq!((retry.destination, retry.source), (LOCAL, source));
    assert_eq!((&retry.token[..], retry.tag), (&b"prove it"[..], [0xee; 16]));
    assert_eq!(retry.untagged, untagged);

    let mut bytes = Vec::new();
    encode_retry(VERSION, &LOCAL, &source, b"", &mut bytes);
    bytes.extend_from_slice(&[0xee; 16]);
    assert_eq!(decode(&bytes).unwrap_err(), PacketError::Malformed);
}

#[test]
fn a_stateless_reset_looks_like_a_short_packet_and_shows_its_token() {
    let mut bytes = Vec::new();
    encode_stateless_reset(&[0xff; 5], &[7; 16], &mut bytes);
    let (packet, _) = protected(&bytes);
    assert_eq!(packet.packet_type(), PacketType::OneRtt);
    assert_eq!(packet.reset_token(), Some([7; 16]));
    bytes.remove(1);
    assert_eq!(protected(&bytes).0.reset_token(), None, "20 bytes");
}

#[test]
fn packets_without_the_fixed_bit_are_dropped() {
    for header in headers(LOCAL) {
        let mut out = Vec::new();
        write(&header, 1, &[1; 20], &mut out);
        out[0] &= !FIXED_BIT;
        assert_eq!(decode(&out).unwrap_err(), PacketError::Malformed);
    }
}

#[test]
fn a_length_beyond_the_datagram_is_malformed() {
    let mut bytes = vec![0xe0];
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    varint::encode(varint::MAX, &mut bytes);
    bytes.extend_from_slice(&[0; 50]);
    assert_eq!(decode(&bytes).unwrap_err(), PacketError::Malformed);
}

#[test]
fn room_and_padding_agree_with_the_finished_size() {
    for header in headers(LOCAL) {
        let mut out = vec![0; 7];
        let writer = PacketWriter::begin(&header, 300, Some(1), &mut out);
        out.push(1);
        let room = writer.room(1200, 16, &out);
        assert_eq!(writer.payload_len(&out), 1);
        writer.pad_to(1200, 16, &mut out);
        assert_eq!(writer.payload_len(&out), 1 + room);
        assert_eq!(writer.room(1200, 16, &out), 0);
        assert_eq!(writer.finish(&Toy, &Toy, &mut out), 1200);
        assert_eq!(out.len(), 1207);
    }
    let mut out = vec![1];
    PacketWriter::begin(&headers(LOCAL)[0], 0, None, &mut out).abandon(&mut out);
    assert_eq!(out, [1]);
}

proptest! {
    #[test]
    fn any_packet_survives(
        kind in 0usize..5,
        source in proptest::collection::vec(any::<u8>(), 0..=20),
        number in 0u64..1 << 40,
        payload in proptest::collection::vec(any::<u8>(), 1..1500),
        before: Vec<u8>,
    ) {
        let source = ConnectionId::new(&source).unwrap();
        let header = headers(source)[kind];
        let mut out = before.clone();
        write(&header, number, &payload, &mut out);
        prop_assert_eq!(&out[..before.len()], &before[..]);
        let (packet, rest) = protected(&out[before.len()..]);
        prop_assert!(rest.is_none());
        prop_assert_eq!(packet.size(), out.len() - before.len());
        let opened = open(packet, number).unwrap();
        prop_assert_eq!(opened.number, number);
        prop_assert_eq!(&opened.payload[..payload.len()], &payload[..]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, long: bool, ours: bool) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first |= if long { 0xc0 } else { 0x40 };
        }
        if ours && bytes.len() > 5 {
            bytes[1..5].copy_from_slice(&VERSION.to_be_bytes());
        }
        if let Some([first, ..]) = destination(&bytes) {
            prop_assert_eq!(steering_byte(&bytes), Some(*first));
        }
        let mut rest = Some(BytesMut::from(&bytes[..]));
        while let Some(datagram) = rest.take() {
            let before = datagram.len();
            let Ok((packet, next)) = Packet::decode(datagram, &[VERSION]) else { break };
            if let Packet::Protected(packet) = packet {
                let _ = (packet.reset_token(), packet.token().len());
                let _ = open(packet, 5);
            }
            prop_assert!(next.as_ref().is_none_or(|n| n.len() < before && !n.is_empty()));
            rest = next;
        }
    }
}
