use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use std::vec;

use proptest::collection::vec as list;
use proptest::prelude::*;

use super::kinds::*;
use super::*;
use crate::rpc::codec::{Malformed, MessageBuffer};
use crate::rpc::kept::Kept;
use crate::rpc::stream::{Content, Credit, Part};
use crate::rpc::watch::Watch;
use crate::service::{Code, Encoded, Metadata, MethodId, NotExecuted, Shape, Status, StreamEnd};
use crate::session::{
    CallId, JournalSlot, NotExecutedReason, Opened, QueryAnswer, SessionSecret, SlotChange,
    SlotPosition, Succession,
};

const ID: u64 = (1 << 62) - 1;

fn position() -> impl Strategy<Value = SlotPosition> {
    (any::<u32>(), 0..=ID).prop_map(|(slot, sequence)| SlotPosition { slot, sequence })
}

fn session() -> impl Strategy<Value = SessionId> {
    (any::<u64>(), any::<u64>()).prop_map(|(incarnation, number)| SessionId { incarnation, number })
}

fn secret() -> impl Strategy<Value = SessionSecret> {
    any::<[u8; 32]>().prop_map(SessionSecret::new)
}

fn metadata() -> impl Strategy<Value = Metadata> {
    list(("[a-z0-9._-]{1,8}", list(any::<u8>(), 0..20)), 0..4).prop_map(|pairs| {
        let mut metadata = Metadata::new();
        for (key, value) in pairs {
            metadata.insert(key, value).unwrap();
        }
        metadata
    })
}

fn body() -> impl Strategy<Value = Bytes> {
    list(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn request() -> impl Strategy<Value = RequestPayload> {
    (any::<u64>(), proptest::option::of(0..1u64 << 50), any::<u64>(), metadata(), body()).prop_map(
        |(method, deadline, digest, metadata, body)| RequestPayload {
            method: MethodId(method),
            deadline: deadline.map(Duration::from_micros),
            digest,
            metadata,
            body: body.into(),
        },
    )
}

fn reply() -> impl Strategy<Value = ReplyPayload> {
    let status = proptest::option::of((1..=16u64, "\\PC{0,20}", body()));
    let stream = proptest::option::of((0..=ID, 0..=ID));
    (any::<u64>(), status, metadata(), body(), stream).prop_map(|parts| {
        let (digest, status, metadata, body, stream) = parts;
        let stream = stream.map(|(taken, sent)| Box::new(StreamEnd { taken, sent }));
        let status = status.map(|(code, message, details)| {
            Status::new(Code::from_number(code), message)
                .with_details(details)
                .with_metadata(metadata.clone())
        });
        ReplyPayload { digest, status, metadata, body: body.into(), stream }
    })
}

fn why() -> impl Strategy<Value = NotExecuted> {
    (0..9u64, "\\PC{0,20}", 0..1_000_000u64).prop_map(|(number, detail, pause)| {
        let reason = NotExecutedReason::from_wire(number).unwrap();
        let why = NotExecuted::because(reason, detail);
        if pause % 2 == 0 { why } else { why.with_retry_after(Duration::from_millis(pause)) }
    })
}

fn shape() -> impl Strategy<Value = Shape> {
    let all = [Shape::ClientStreaming, Shape::ServerStreaming, Shape::BidiStreaming];
    proptest::sample::select(all.to_vec())
}

fn part() -> impl Strategy<Value = Part> {
    let content = prop_oneof![
        (0..=ID, any::<u64>(), body()).prop_map(|(index, digest, body)| Content::Message {
            index,
            message: Encoded { body: body.into(), digest }
        }),
        (0..=ID).prop_map(|count| Content::End { count }),
        (0..=ID, 0..=ID, 0..=ID).prop_map(|(received, taken, limit)| Content::Credit(Credit {
            received,
            taken,
            limit
        })),
    ];
    (position(), content).prop_map(|(at, content)| Part {
        slot: at.slot,
        sequence: at.sequence,
        content,
    })
}

fn watching() -> impl Strategy<Value = Watch> {
    let stale = proptest::option::of((0..=ID, 0..1u64 << 50));
    (stale, 0..=ID, 0..=ID, 0..1u64 << 50).prop_map(|(stale, position, room, hold)| Watch {
        stale: stale
            .map(|(seen, micros)| Staleness { seen, at_most: Duration::from_micros(micros) }),
        position,
        room,
        hold: Duration::from_micros(hold),
    })
}

fn succession() -> impl Strategy<Value = Succession> {
    let slot = (position(), any::<bool>()).prop_map(|(at, answered)| JournalSlot {
        slot: at.slot,
        sequence: at.sequence,
        answered,
    });
    let known = proptest::option::of(list(slot, 0..20));
    (any::<u64>(), list(any::<u64>(), 0..=Succession::MAX_HOLDERS), known)
        .prop_map(|(holder, after, known)| Succession { holder, after, known })
}

fn to_server() -> impl Strategy<Value = ToServer> {
    prop_oneof![
        (any::<[u8; 16]>(), any::<u32>())
            .prop_map(|(nonce, slots)| ToServer::Open { nonce, slots }),
        (session(), secret(), proptest::option::of(succession())).prop_map(
            |(session, secret, succession)| ToServer::Attach { session, secret, succession }
        ),
        (position(), request()).prop_map(|(at, payload)| ToServer::Request {
            slot: at.slot,
            sequence: at.sequence,
            payload
        }),
        position().prop_map(|at| ToServer::Fence { slot: at.slot, sequence: at.sequence }),
        list(position(), 0..50).prop_map(ToServer::Release),
        list(position(), 0..50).prop_map(ToServer::ReturnSlots),
        (0..=ID, session(), position(), secret()).prop_map(|(query, session, at, secret)| {
            let call = CallId { session, slot: at.slot, sequence: at.sequence };
            ToServer::Query { query, call, secret }
        }),
        (0..=ID, request()).prop_map(|(read, payload)| ToServer::Read { read, payload }),
        (0..=ID, 0..=ID, 0..1u64 << 50, request()).prop_map(|(read, seen, micros, payload)| {
            let stale = Staleness { seen, at_most: Duration::from_micros(micros) };
            ToServer::StaleRead { read, stale, payload }
        }),
        (0..=ID).prop_map(|read| ToServer::CancelRead { read }),
        (0..=ID, watching(), request()).prop_map(|(read, watch, payload)| ToServer::Watch {
            read,
            watch,
            payload
        }),
        request().prop_map(ToServer::Maybe),
        Just(ToServer::CloseSession),
        Just(ToServer::Left),
        (position(), shape(), 0..=ID, request()).prop_map(|(at, shape, window, payload)| {
            ToServer::Stream { slot: at.slot, sequence: at.sequence, shape, window, payload }
        }),
        part().prop_map(ToServer::Part),
        (position(), any::<bool>()).prop_map(|(at, overdue)| ToServer::CancelStream {
            slot: at.slot,
            sequence: at.sequence,
            overdue
        }),
    ]
}

fn to_client() -> impl Strategy<Value = ToClient> {
    prop_oneof![
        (any::<[u8; 16]>(), session(), secret(), 0..=ID, any::<u32>(), 0..=ID).prop_map(
            |(nonce, session, secret, epoch, slots, seconds)| ToClient::Opened {
                nonce,
                opened: Opened {
                    session,
                    secret,
                    epoch,
                    slots,
                    retention: Duration::from_secs(seconds),
                }
            }
        ),
        (position(), reply()).prop_map(|(at, reply)| ToClient::Reply {
            slot: at.slot,
            sequence: at.sequence,
            reply
        }),
        (position(), why()).prop_map(|(at, why)| ToClient::NotExecuted {
            slot: at.slot,
            sequence: at.sequence,
            why
        }),
        (0..=ID, any::<u32>(), list(position(), 0..50)).prop_map(|(version, wanted, granted)| {
            ToClient::Slots(SlotChange { version, wanted, granted })
        }),
        (0..=ID, reply()).prop_map(|(query, reply)| ToClient::Outcome {
            query,
            answer: QueryAnswer::Done(reply)
        }),
        (0..=ID, reply()).prop_map(|(read, reply)| ToClient::ReadReply { read, reply }),
        (0..=ID, why()).prop_map(|(read, why)| ToClient::ReadNotExecuted { read, why }),
        (0..=ID).prop_map(|read| ToClient::ReadTooStale { read }),
        (0..=ID, 0..=ID, list(any::<u8>(), 0..2_000)).prop_map(|(read, position, messages)| {
            ToClient::Watched { read, position, messages: bytes::Bytes::from(messages).into() }
        }),
        (0..=ID, list("[a-z0-9.:]{0,30}", 0..9))
            .prop_map(|(version, addresses)| ToClient::Members { version, addresses }),
        Just(ToClient::Draining),
        part().prop_map(ToClient::Part),
        position().prop_map(|at| ToClient::NoStream { slot: at.slot, sequence: at.sequence }),
    ]
}

#[test]
fn a_list_longer_than_what_follows_is_refused_without_being_allocated() {
    let mut bytes = Vec::from([RELEASE]);
    crate::wire::varint::encode(60_000, &mut bytes);
    assert_eq!(ToServer::decode(bytes.into()), Err(Malformed));
}

#[test]
fn bytes_after_a_message_make_it_malformed() {
    let (head, _) = ToServer::Fence { slot: 1, sequence: 2 }.encode(&mut MessageBuffer::default());
    let mut bytes = head.to_vec();
    bytes.push(0);
    assert_eq!(ToServer::decode(bytes.into()), Err(Malformed));
}

fn new_reply(reply: ReplyPayload) -> (Parts, Kept) {
    ToClient::new_reply(3, 70_000, reply, &mut MessageBuffer::default())
}

#[test]
fn a_status_of_ok_still_says_that_the_handler_failed() {
    let reply = ReplyPayload {
        digest: 0,
        status: Some(Status::new(Code::Ok, String::from("odd"))),
        metadata: Metadata::new(),
        body: Rope::EMPTY,
        stream: None,
    };
    let read = ReplyPayload::from_kept(&new_reply(reply).1).unwrap();
    assert_eq!(read.status.map(|status| status.code()), Some(Code::Unknown));
}

proptest! {
    #[test]
    fn a_reply_is_the_same_when_it_is_sent_first_and_when_it_is_repeated(reply in reply()) {
        let (parts, kept) = new_reply(reply.clone());
        let repeated = ToClient::kept_reply(3, 70_000, &kept, &mut MessageBuffer::default());
        prop_assert_eq!(join(parts.clone()), join(repeated));
        let sent = ToClient::Reply { slot: 3, sequence: 70_000, reply };
        prop_assert_eq!(ToClient::decode(join(parts)), Ok(sent));
    }

    #[test]
    fn a_plain_reply_reads_as_any_other_and_no_other_as_plain(message in to_client()) {
        let bytes = join(message.clone().encode(&mut MessageBuffer::default()));
        let plain = PlainReply::read(&bytes).map(|read| ToClient::Reply {
            slot: read.slot,
            sequence: read.sequence,
            reply: ReplyPayload {
                digest: read.digest,
                status: None,
                metadata: Metadata::new(),
                body: bytes.slice(read.body..).into(),
                stream: None,
            },
        });
        let is_plain = matches!(&message, ToClient::Reply { reply, .. }
            if reply.status.is_none() && reply.metadata.is_empty() && reply.stream.is_none());
        prop_assert_eq!(plain, is_plain.then_some(message));
    }

    #[test]
    fn a_plain_request_reads_as_any_other_and_no_other_as_plain(message in to_server()) {
        let bytes = join(message.clone().encode(&mut MessageBuffer::default()));
        let plain = PlainRequest::read(&bytes).map(|read| ToServer::Request {
            slot: read.slot,
            sequence: read.sequence,
            payload: RequestPayload {
                method: read.method,
                deadline: read.deadline,
                digest: read.digest,
                metadata: Metadata::new(),
                body: bytes.slice(read.body..).into(),
            },
        });
        let is_plain =
            matches!(&message, ToServer::Request { payload, .. } if payload.metadata.is_empty());
        prop_assert_eq!(plain, is_plain.then_some(message));
    }

    #[test]
    fn what_a_client_sends_reads_as_the_same(message in to_server()) {
        prop_assert_eq!(ToServer::decode(join(message.clone().encode(&mut MessageBuffer::default()))), Ok(message));
    }

    #[test]
    fn what_a_server_sends_reads_as_the_same(message in to_client()) {
        prop_assert_eq!(ToClient::decode(join(message.clone().encode(&mut MessageBuffer::default()))), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = ToServer::decode(bytes.clone().into());
        let _ = ToClient::decode(bytes.into());
    }

    #[test]
    fn a_message_cut_short_is_malformed_or_has_a_shorter_body(
        message in to_server(), keep in 0.0..1.0f64,
    ) {
        let whole = join(message.encode(&mut MessageBuffer::default()));
        let cut = whole.slice(..(whole.len() as f64 * keep) as usize);
        let _ = ToServer::decode(cut);
    }
}

#[test]
fn the_place_in_the_log_stands_in_front_of_a_message_and_is_taken_off() {
    for index in [0, 1, 1 << 20, ID] {
        let message = ToClient::Draining.encode(&mut MessageBuffer::default());
        let (written, _) = as_of(index, message.clone());
        let mut rest = Bytes::from(written);
        assert_eq!(take_as_of(&mut rest), Some(index));
        assert_eq!(rest, message.0);
        assert_eq!(take_as_of(&mut rest), None);
        assert_eq!(rest, message.0);
    }
    let mut torn = Bytes::from_static(&[AS_OF, 0xc0]);
    assert_eq!(take_as_of(&mut torn), None);
    assert_eq!(torn, [AS_OF, 0xc0][..]);
}
