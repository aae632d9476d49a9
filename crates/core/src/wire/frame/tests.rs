use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use super::*;
use crate::wire::fields::Fields;

const ALL_PACKETS: [PacketType; 4] =
    [PacketType::Initial, PacketType::ZeroRtt, PacketType::Handshake, PacketType::OneRtt];

fn frames(payload: &[u8]) -> Frames<'_> {
    Frames::new(payload, PacketType::OneRtt, Side::Server)
}

fn one(payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let mut frames = frames(payload);
    let frame = frames.next().expect("a frame or an error")?;
    assert_eq!(frames.next(), None);
    Ok(frame)
}

fn kind(payload: &[u8]) -> FrameErrorKind {
    one(payload).expect_err("an error").kind
}

#[test]
fn the_header_of_a_whole_message_is_what_any_header_is() {
    for (id, length) in [(0, 0), (63, 64), (64, 63), (70_000, 20_000), (1 << 40, 5)] {
        let (mut whole, mut any) = (Vec::new(), Vec::new());
        Fields::append(&mut whole, |fields| MessageHeader::write_whole(id, length, fields));
        MessageHeader { id, offset: 0, end: true }.encode(Some(length), &mut any);
        assert_eq!(whole, any);
    }
}

#[test]
fn a_packet_without_frames_is_a_violation() {
    assert_eq!(kind(&[]), FrameErrorKind::Violation);
}

#[test]
fn unknown_and_overlong_frame_types_are_violations() {
    for payload in [&[0x07][..], &[0x13], &[0x15], &[0x17], &[0x1f], &[0x32], &[0x3f], &[0x7f]] {
        assert_eq!(kind(payload), FrameErrorKind::Violation, "{payload:x?}");
    }
    assert_eq!(kind(&[0x40, 0x01]), FrameErrorKind::Violation, "PING in two bytes");
}

#[test]
fn nothing_follows_an_error() {
    let mut frames = frames(&[0x01, 0x07, 0x01]);
    assert_eq!(frames.next(), Some(Ok(Frame::Ping)));
    assert!(frames.next().unwrap().is_err());
    assert_eq!(frames.next(), None);
}

#[test]
fn every_frame_cut_short_is_an_encoding_error() {
    for frame in samples() {
        let mut whole = Vec::new();
        frame.encode(&mut whole);
        for length in 1..whole.len() {
            let cut = &whole[..length];
            if matches!(frame, Frame::Padding(_)) {
                continue;
            }
            let error = one(cut).expect_err("cut short");
            assert_eq!(error.kind, FrameErrorKind::Encoding, "{frame:?} at {length}");
            assert_eq!(error.frame, Some(u64::from(whole[0])));
        }
    }
}

#[test]
fn handshake_done_from_a_client_is_a_violation() {
    let mut frames = Frames::new(&[0x1e], PacketType::OneRtt, Side::Client);
    assert_eq!(frames.next().unwrap().unwrap_err().kind, FrameErrorKind::Violation);
    assert_eq!(one(&[0x1e]), Ok(Frame::HandshakeDone));
}

#[test]
fn frames_stand_only_where_the_table_of_the_protocol_allows() {
    use PacketType::*;
    for frame in samples() {
        let allowed: &[PacketType] = match frame {
            Frame::Padding(_) | Frame::Ping | Frame::ConnectionClose { .. } => &ALL_PACKETS,
            Frame::Ack(_) | Frame::Crypto { .. } => &[Initial, Handshake, OneRtt],
            Frame::Message(_) => &[ZeroRtt, OneRtt],
            Frame::HandshakeDone => &[],
            _ => &[OneRtt],
        };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        for packet in ALL_PACKETS {
            let result = Frames::new(&bytes, packet, Side::Client).next().unwrap();
            assert_eq!(result.is_ok(), allowed.contains(&packet), "{frame:?} in {packet:?}");
            if let Err(e) = result {
                assert_eq!(e.kind, FrameErrorKind::Violation);
            }
        }
        if allowed.contains(&ZeroRtt) {
            assert!(Frames::new(&bytes, ZeroRtt, Side::Server).next().unwrap().is_err());
        }
    }
}

#[test]
fn an_ack_of_packets_below_zero_is_an_encoding_error() {
    // largest 5, delay 0, 0 more ranges, first range reaches 6 below
    assert_eq!(kind(&[0x02, 5, 0, 0, 6]), FrameErrorKind::Encoding);
    // largest 5, first range 5..=5, then a gap that reaches below zero
    assert_eq!(kind(&[0x02, 5, 0, 1, 0, 5, 0]), FrameErrorKind::Encoding);
    assert_eq!(kind(&[0x02, 5, 0, 1, 0, 0, 4]), FrameErrorKind::Encoding);
    let Ok(Frame::Ack(ack)) = one(&[0x02, 5, 0, 1, 0, 0, 3]) else { panic!("legal") };
    assert_eq!(ack.ranges().collect::<Vec<_>>(), [5..6, 0..4]);
}

#[test]
fn an_ack_that_promises_more_ranges_than_the_packet_holds_is_an_encoding_error() {
    let mut bytes = vec![0x02];
    for value in [1_000_000, 0, varint::MAX, 0] {
        varint::encode(value, &mut bytes);
    }
    assert_eq!(kind(&bytes), FrameErrorKind::Encoding);
}

#[test]
fn an_ack_is_cut_to_the_room_that_there_is() {
    let ranges: Vec<Range<u64>> = (0..200).rev().map(|n| n * 10..n * 10 + 3).collect();
    for room in 0..600 {
        let mut out = Vec::new();
        let written = encode_ack(ranges.iter().cloned(), 7, None, room, &mut out);
        assert!(out.len() <= room);
        assert_eq!(written, !out.is_empty());
        if written {
            let Ok(Frame::Ack(ack)) = one(&out) else { panic!("{room}") };
            let got: Vec<_> = ack.ranges().collect();
            assert_eq!(got[..], ranges[..got.len()]);
        } else {
            assert!(room < 6, "an ACK of one range takes 6 bytes here");
        }
    }
    assert!(!encode_ack([], 0, None, 1000, &mut Vec::new()));
}

#[test]
fn data_that_ends_beyond_the_largest_offset_is_an_encoding_error() {
    for frame in [
        Frame::Crypto { offset: varint::MAX, data: b"x" },
        Frame::Message(Message { id: 0, offset: varint::MAX, data: b"x", end: false }),
    ] {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(kind(&bytes), FrameErrorKind::Encoding);
    }
}

#[test]
fn connection_ids_of_illegal_length_or_order_are_encoding_errors() {
    let frame = |length: u8, sequence, retire| {
        let mut bytes = vec![0x18, sequence, retire, length];
        bytes.resize(4 + usize::from(length) + 16, 0);
        bytes
    };
    assert!(one(&frame(20, 1, 1)).is_ok());
    assert_eq!(kind(&frame(0, 1, 1)), FrameErrorKind::Encoding);
    assert_eq!(kind(&frame(21, 1, 1)), FrameErrorKind::Encoding);
    assert_eq!(kind(&frame(8, 1, 2)), FrameErrorKind::Encoding);
}

#[test]
fn data_without_a_length_reaches_to_the_end_of_the_packet() {
    let mut out = Vec::new();
    MessageHeader { id: 3, offset: 9, end: true }.encode(None, &mut out);
    assert_eq!(out.len(), MessageHeader { id: 3, offset: 9, end: true }.size(None));
    out.extend_from_slice(b"rest");
    let message = Message { id: 3, offset: 9, data: b"rest", end: true };
    assert_eq!(one(&out), Ok(Frame::Message(message)));

    let mut out = Vec::new();
    DatagramHeader.encode(None, &mut out);
    out.extend_from_slice(b"rest");
    assert_eq!(one(&out), Ok(Frame::Datagram(b"rest")));
}

#[test]
fn the_room_for_data_is_used_to_the_last_byte_that_can_be_used() {
    for header in [
        MessageHeader { id: 0, offset: 0, end: false },
        MessageHeader { id: 70, offset: 20_000, end: true },
    ] {
        for room in (0..200).chain(16_370..16_420).chain([65_000]) {
            let fits = |data: usize| header.size(Some(data)) + data <= room;
            match header.room(room) {
                Some(data) => assert!(fits(data) && !fits(data + 1), "{room}: {data}"),
                None => assert!(!fits(0), "{room}"),
            }
        }
    }
    assert_eq!(crypto_room(0, 2), None);
    assert_eq!(crypto_room(0, 3), Some(0));
    assert_eq!(crypto_room(0, 1_200), Some(1_196));
}

#[test]
fn acknowledging_is_owed_for_all_but_padding_acks_and_closes() {
    for frame in samples() {
        let silent = matches!(
            frame,
            Frame::Padding(_)
                | Frame::Ack(_)
                | Frame::ConnectionClose { .. }
                | Frame::ApplicationClose { .. }
        );
        assert_eq!(frame.is_ack_eliciting(), !silent, "{frame:?}");
    }
}

/// One of each frame.
fn samples() -> Vec<Frame<'static>> {
    let Ok(Frame::Ack(ack)) = one(&[0x02, 5, 0, 1, 0, 0, 3]) else { unreachable!() };
    let Ok(Frame::Ack(ack_ecn)) = one(&[0x03, 5, 0, 0, 0, 1, 2, 3]) else { unreachable!() };
    let id = ConnectionId::from([7; 8]);
    let new = NewConnectionId { sequence: 9, retire_prior_to: 8, id, reset_token: [3; 16] };
    vec![
        Frame::Padding(3),
        Frame::Ping,
        Frame::Ack(ack),
        Frame::Ack(ack_ecn),
        Frame::ResetMessage { id: 1, code: 2, final_size: 300 },
        Frame::StopMessage { id: 1, code: 2 },
        Frame::Crypto { offset: 77, data: b"hello" },
        Frame::Message(Message { id: 1, offset: 0, data: b"abc", end: true }),
        Frame::Message(Message { id: 100, offset: 1 << 20, data: b"abc", end: false }),
        Frame::MaxData(1 << 40),
        Frame::MaxMessageData { id: 5, limit: 1 << 20 },
        Frame::MaxMessages(4096),
        Frame::DataBlocked(0),
        Frame::MessagesBlocked(63),
        Frame::NewConnectionId(new),
        Frame::RetireConnectionId(64),
        Frame::PathChallenge([1; 8]),
        Frame::PathResponse([2; 8]),
        Frame::ConnectionClose { code: 0x100, frame_type: 6, reason: b"why" },
        Frame::ApplicationClose { code: 5, reason: b"done" },
        Frame::HandshakeDone,
        Frame::Datagram(b"beat"),
    ]
}

#[test]
fn every_frame_decodes_to_what_was_encoded_and_its_size_is_known_before() {
    let mut all = Vec::new();
    for frame in samples() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), frame.size(), "{frame:?}");
        assert_eq!(one(&bytes), Ok(frame));
        all.extend_from_slice(&bytes);
    }
    let decoded: Vec<_> = frames(&all).map(Result::unwrap).collect();
    assert_eq!(decoded, samples());
}

fn number() -> impl Strategy<Value = u64> {
    (0u32..=62, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
}

proptest! {
    #[test]
    fn messages_of_any_shape_survive(id in number(), offset in number(), end: bool, data: Vec<u8>) {
        prop_assume!(offset + data.len() as u64 <= varint::MAX);
        let frame = Frame::Message(Message { id, offset, data: &data, end });
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), frame.size());
        prop_assert_eq!(one(&bytes), Ok(frame));
    }

    #[test]
    fn acks_of_any_shape_survive(
        top in 1u64 << 40..1 << 60,
        steps in vec_of((1u64..1 << 20, 1u64..1 << 20), 1..60),
        delay in number(),
        ecn in prop::option::of((number(), number(), number())),
    ) {
        let mut ranges = Vec::new();
        let mut below = top;
        for (length, gap) in steps {
            ranges.push(below - length..below);
            below -= length + gap;
        }
        let ecn = ecn.map(|(ect0, ect1, ce)| EcnCounts { ect0, ect1, ce });
        let mut bytes = Vec::new();
        prop_assert!(encode_ack(ranges.iter().cloned(), delay, ecn, 10_000, &mut bytes));
        let Ok(Frame::Ack(ack)) = one(&bytes) else { panic!("not an ACK") };
        prop_assert_eq!((ack.largest, ack.delay, ack.ecn), (top - 1, delay, ecn));
        prop_assert_eq!(ack.ranges().collect::<Vec<_>>(), ranges);
        let mut again = Vec::new();
        Frame::Ack(ack).encode(&mut again);
        prop_assert_eq!(again.len(), Frame::Ack(ack).size());
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_what_decodes_encodes_to_the_same_frame(
        payload: Vec<u8>, packet in 0usize..4, client: bool,
    ) {
        let sender = if client { Side::Client } else { Side::Server };
        for frame in Frames::new(&payload, ALL_PACKETS[packet], sender).map_while(Result::ok) {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let again = Frames::new(&bytes, ALL_PACKETS[packet], sender).next();
            prop_assert_eq!(again, Some(Ok(frame)));
            if let Frame::Ack(ack) = frame {
                prop_assert!(ack.ranges().all(|r| r.start < r.end && r.end <= ack.largest + 1));
            }
        }
    }
}
