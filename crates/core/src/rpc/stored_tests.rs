use std::sync::Arc;

use super::*;
use crate::rpc::message::{RequestPayload, join};
use crate::service::{Metadata, Status};
use crate::session::{RecordedState, Slot, SlotRecord};
use crate::time::Duration;

const SESSION: SessionId = SessionId { incarnation: 0x700, number: 3 };
const ID: CallId = CallId { session: SESSION, slot: 2, sequence: 9 };

fn command(attached: bool, message: ToServer) -> SessionCommand {
    SessionCommand {
        client: 1,
        attached: attached.then_some(Attaching { session: SESSION, epoch: 4 }),
        peer: Arc::new(Peer { address: Some("1.2.3.4:5".parse().unwrap()), ..Peer::default() }),
        fresh_secret: None,
        deadline: Deadline::Left(Duration::from_secs(2)),
        has_id: false,
        said: Said::Message(join(message.encode(&mut MessageBuffer::default()))),
    }
}

fn request() -> ToServer {
    let encoded = Encoded::from_body(MethodId(5), Bytes::from_static(b"pay"));
    let payload = RequestPayload {
        method: MethodId(5),
        deadline: None,
        digest: encoded.digest,
        metadata: Metadata::new(),
        body: encoded.body,
    };
    ToServer::Request { slot: ID.slot, sequence: ID.sequence, payload }
}

fn said(message: ClientMessage) -> ToClient {
    match message.0 {
        Content::Answer(parts) | Content::Attached(_, parts) => {
            ToClient::decode(join(parts)).unwrap()
        }
        Content::Close(reason) => panic!("{reason}"),
    }
}

#[test]
fn a_request_asks_to_run_under_its_number_until_its_deadline() {
    let now = Instant::from_nanos(7);
    let ask = command(true, request()).ask(now).unwrap();
    assert_eq!(ask.attached, Some((SESSION, 4)));
    let Asked::Run { id, method, call, .. } = ask.asked else { panic!("{:?}", ask.asked) };
    assert_eq!((id, method), (ID, MethodId(5)));
    assert_eq!(call.context().deadline, Some(now + Duration::from_secs(2)));
}

#[test]
fn a_request_that_is_too_large_asks_for_a_fence() {
    let mut large = command(true, request());
    let Said::Message(start) = large.said else { unreachable!() };
    large.said = Said::TooLarge { start, limit: 3 };
    match large.ask(Instant::ZERO).unwrap().asked {
        Asked::Fence { id, why } => {
            assert_eq!((id, why.reason), (ID, NotExecutedReason::TooLarge));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_no_correct_client_sends_closes_its_connection() {
    let bad = [
        command(false, request()),
        command(true, ToServer::CancelRead { read: 1 }),
        command(true, ToServer::ReturnSlots(Vec::new())),
        SessionCommand {
            said: Said::Message(Bytes::from_static(b"\xff")),
            ..command(true, request())
        },
    ];
    for command in bad {
        let told = command.ask(Instant::ZERO).unwrap_err();
        assert!(matches!(told.0, Content::Close(_)), "{told:?}");
    }
}

#[test]
fn a_kept_reply_comes_back_as_the_handler_gave_it_and_damaged_bytes_as_not_kept() {
    let encoded = Encoded::from_body(MethodId(5), Bytes::from_static(b"paid"));
    let record = record_of(Answer::Reply(encoded.clone(), Metadata::new())).unwrap();
    match said(ClientMessage::known(ID, session::Answer::Reply(record))) {
        ToClient::Reply { slot, sequence, reply } => {
            assert_eq!((slot, sequence), (ID.slot, ID.sequence));
            assert_eq!((reply.body.to_vec(), reply.digest), (b"paid".to_vec(), encoded.digest));
        }
        other => panic!("{other:?}"),
    }
    let refused = record_of(Answer::Status(Status::not_found("no such account"))).unwrap();
    match said(ClientMessage::known(ID, session::Answer::Reply(refused))) {
        ToClient::Reply { reply, .. } => {
            assert_eq!(reply.status.unwrap().message(), "no such account");
        }
        other => panic!("{other:?}"),
    }
    let damaged = Bytes::from_static(b"?");
    let told = said(ClientMessage::known(ID, session::Answer::Reply(damaged)));
    assert_eq!(told, ToClient::NotKept { slot: ID.slot, sequence: ID.sequence });
}

#[test]
fn a_slot_survives_being_a_row_in_every_state_but_executing() {
    let states = [
        RecordedState::Idle,
        RecordedState::Done { digest: 3, reply: Bytes::from_static(b"r") },
        RecordedState::NotKept { digest: 3 },
        RecordedState::Released,
        RecordedState::Fenced(NotExecutedReason::Deadline),
    ];
    for state in states {
        let record = SlotRecord { sequence: 6, state };
        let mut slot = Slot::of_record(record.clone()).unwrap();
        assert_eq!(slot.record(), Some(record));
        slot.request(7, 1).unwrap();
        assert_eq!(slot.record(), None);
    }
    assert_eq!(Slot::of_record(SlotRecord { sequence: 1 << 62, state: RecordedState::Idle }), None);
}
