mod ids;

use std::net::SocketAddr;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use super::*;
use crate::limits::Limits;
use crate::rpc::codec::MessageBuffer;
use crate::rpc::message::{RequestPayload, ToClient, ToServer, join};
use crate::service::{Answer, Call, Encoded, Image, Metadata, MethodId, NotExecuted, Peer, Status};
use crate::session::{
    CallId, NotExecutedReason, Refusal, SessionId, SessionSecret, SlotPosition, Unsound,
};
use crate::time::{Duration, Instant};

mod owners;

const GROUP: u64 = 0x6E0;
const METHOD: MethodId = MethodId(7);
const RETENTION: Duration = Duration::from_secs(3_600);

/// Two tables, each of which applies every command, and what they ran.
struct World {
    now: Instant,
    table: SessionTable,
    other: SessionTable,
    ran: Vec<(CallId, Vec<u8>)>,
    /// What was frozen last, and how it was then.
    frozen: Option<(Image, Vec<u8>)>,
    version: u32,
}

fn limits() -> Limits {
    Limits { kept_reply: 200, kept_replies: 500, slots: 4, ..Limits::default() }
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn command(client: u64, attached: Option<Attaching>, message: ToServer) -> SessionCommand {
    let bytes = join(message.encode(&mut MessageBuffer::default()));
    let address: SocketAddr = "10.0.0.1:7".parse().unwrap();
    SessionCommand {
        client,
        attached,
        peer: Peer { address: Some(address), ..Peer::default() }.into(),
        fresh_secret: Some(SessionSecret::new([client as u8; 32])),
        deadline: Deadline::None,
        has_id: false,
        said: Said::Message(bytes),
    }
}

fn payload(body: &[u8]) -> RequestPayload {
    let encoded = Encoded::from_body(METHOD, bytes::Bytes::copy_from_slice(body));
    RequestPayload {
        method: METHOD,
        deadline: None,
        digest: encoded.digest,
        metadata: Metadata::new(),
        body: encoded.body,
    }
}

fn request(at: Attaching, slot: u32, sequence: u64, body: &[u8]) -> SessionCommand {
    command(1, Some(at), ToServer::Request { slot, sequence, payload: payload(body) })
}

/// Echoes; what begins with `!` is not executed, what begins with `?` fails.
fn run(method: MethodId, call: Call<Encoded>) -> Answer {
    let body = call.message().verified(method).expect("an unaltered request");
    match body.first() {
        Some(b'!') => Answer::NotExecuted(NotExecuted::new(NotExecutedReason::Malformed)),
        Some(b'?') => Answer::Status(Status::new(crate::service::Code::Aborted, "no")),
        _ => Answer::Reply(Encoded::from_body(method, body), Metadata::new()),
    }
}

impl World {
    fn new() -> Self {
        Self::with(&limits())
    }

    fn with(limits: &Limits) -> Self {
        let table = SessionTable::new(GROUP, limits);
        let (now, other) = (Instant::ZERO, table.clone());
        Self { now, other, table, ran: Vec::new(), frozen: None, version: 1 }
    }

    fn apply(&mut self, replica: u64, command: &SessionCommand) -> Vec<Told> {
        let mut told = Vec::new();
        let ran = &mut self.ran;
        let noted = |method, call: Call<Encoded>| {
            let id = call.context().id.expect("a numbered call");
            ran.push((id, call.message().body.to_vec()));
            run(method, call)
        };
        self.table.apply(self.now, replica, command, noted, &mut told);
        let mut again = Vec::new();
        self.other.apply(self.now, replica, command, run, &mut again);
        assert_eq!(told, again);
        self.same();
        told
    }

    fn same(&mut self) {
        let image = image(&self.table);
        assert_eq!(image, image_of_decoded(&image));
        // What was frozen before stays as it was, and can be read in pieces.
        let frozen = (self.table.freeze(), image.clone());
        let (frozen, image_then) = self.frozen.replace(frozen).unwrap_or_default();
        let mut reader = TableReader::default();
        let mut pieces = Vec::new();
        for piece in frozen.pieces() {
            let piece = piece.unwrap();
            reader.take(&piece).expect("a piece of an image");
            pieces.extend_from_slice(&piece);
        }
        assert_eq!(pieces, image_then);
        assert!(pieces.is_empty() || self::image(&reader.finish().unwrap()) == image_then);
        assert!(image == self::image(&self.other), "two replicas of one log differ");
        assert_eq!(self.table.freeze_ids(), self.other.freeze_ids());
        // One of them goes on from the snapshot of the other.
        self.other = restored(&mut self.table);
        self.other.activate(self.version);
    }

    fn activate(&mut self, version: u32) {
        self.version = version;
        self.table.activate(version);
        self.other.activate(version);
    }

    fn open(&mut self, client: u64) -> Attaching {
        let opening = command(client, None, ToServer::Open { nonce: [client as u8; 16], slots: 9 });
        attaching(&self.apply(1, &opening))
    }

    fn attach(&mut self, replica: u64, client: u64, at: Attaching) -> Vec<Told> {
        let secret = SessionSecret::new([1; 32]);
        let attach = ToServer::Attach { session: at.session, secret, succession: None };
        self.apply(replica, &command(client, None, attach))
    }
}

fn image(table: &SessionTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes
}

/// The table of another one's snapshot.
fn restored(table: &mut SessionTable) -> SessionTable {
    let mut reader = TableReader::default();
    for piece in table.freeze().pieces() {
        reader.take(&piece.unwrap()).expect("a piece of an image");
    }
    for piece in table.freeze_ids().iter().flat_map(Image::pieces) {
        reader.take_ids(&piece.unwrap()).expect("a piece of ids");
    }
    reader.finish().expect("an image")
}

fn image_of_decoded(bytes: &[u8]) -> Vec<u8> {
    image(&SessionTable::decode(bytes).expect("an image"))
}

fn attaching(told: &[Told]) -> Attaching {
    match told {
        [Told { message: ClientMessage(Content::Attached(attaching, _)), .. }] => *attaching,
        other => panic!("{other:?}"),
    }
}

fn said(told: &[Told]) -> ToClient {
    match told {
        [Told { message: ClientMessage(Content::Answer(parts)), .. }] => {
            ToClient::decode(join(parts.clone())).expect("a message")
        }
        other => panic!("{other:?}"),
    }
}

fn reply_of(told: &[Told]) -> Vec<u8> {
    match said(told) {
        ToClient::Reply { reply, .. } => reply.body.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn why(told: &[Told]) -> NotExecutedReason {
    match said(told) {
        ToClient::NotExecuted { why, .. } => why.reason,
        other => panic!("{other:?}"),
    }
}

fn refusal(told: &[Told]) -> Refusal {
    match said(told) {
        ToClient::Refused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_of_a_request_in_another_command_is_answered_with_the_kept_reply() {
    let mut world = World::new();
    let first = world.open(1);
    assert_eq!(reply_of(&world.apply(1, &request(first, 0, 1, b"pay"))), b"pay");
    let second = attaching(&world.attach(2, 1, first));
    let told = world.apply(2, &request(second, 0, 1, b"pay"));
    assert_eq!((reply_of(&told), told[0].replica), (b"pay".to_vec(), 2));
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn a_late_copy_from_the_replica_that_had_the_client_before_is_refused_and_does_not_run() {
    let mut world = World::new();
    let first = world.open(1);
    let second = attaching(&world.attach(2, 1, first));
    assert!(second.epoch > first.epoch);
    let late = world.apply(1, &request(first, 0, 1, b"late"));
    assert_eq!(refusal(&late), Refusal::Superseded);
    assert_eq!(world.ran, []);
}

#[test]
fn a_copy_of_an_attach_does_not_refuse_the_calls_that_followed_the_first() {
    let mut world = World::new();
    let first = world.open(1);
    let second = attaching(&world.attach(2, 1, first));
    assert_eq!(attaching(&world.attach(2, 1, first)), second);
    assert_eq!(reply_of(&world.apply(2, &request(second, 0, 1, b"x"))), b"x");
}

#[test]
fn a_copy_of_an_opening_finds_the_session_that_the_first_one_opened() {
    let mut world = World::new();
    let first = world.open(1);
    assert_eq!(world.open(1), first);
    assert_eq!(world.table.len(), 1);
}

#[test]
fn a_fenced_number_never_runs() {
    let mut world = World::new();
    let at = world.open(1);
    let fence = command(1, Some(at), ToServer::Fence { slot: 0, sequence: 1 });
    assert_eq!(why(&world.apply(1, &fence)), NotExecutedReason::Fenced);
    assert_eq!(why(&world.apply(1, &request(at, 0, 1, b"late"))), NotExecutedReason::Fenced);
    assert_eq!(world.ran, []);
}

#[test]
fn a_call_whose_deadline_has_passed_by_the_logs_time_is_fenced() {
    let mut world = World::new();
    let at_ = world.open(1);
    let mut late = request(at_, 0, 1, b"late");
    late.deadline = Deadline::Left(Duration::from_secs(5));
    late.waited(Duration::from_secs(3));
    late.taken_at(at(10));
    late.taken_at(at(100));
    world.now = at(12);
    assert_eq!(why(&world.apply(1, &late)), NotExecutedReason::Deadline);
    let copy = request(at_, 0, 1, b"late");
    assert_eq!(why(&world.apply(2, &copy)), NotExecutedReason::Deadline);
    assert_eq!(world.ran, []);
    let mut early = request(at_, 0, 2, b"in time");
    early.deadline = Deadline::At(at(13));
    assert_eq!(reply_of(&world.apply(1, &early)), b"in time");
}

#[test]
fn a_request_that_is_too_large_or_that_the_machine_does_not_start_is_fenced() {
    let mut world = World::new();
    let at = world.open(1);
    let mut large = request(at, 0, 1, b"large");
    let Said::Message(start) = large.said else { unreachable!() };
    large.said = Said::TooLarge { start, limit: 3 };
    assert_eq!(why(&world.apply(1, &large)), NotExecutedReason::TooLarge);
    assert_eq!(world.ran, []);
    assert_eq!(why(&world.apply(1, &request(at, 1, 1, b"!"))), NotExecutedReason::Malformed);
    assert_eq!(why(&world.apply(1, &request(at, 1, 1, b"!"))), NotExecutedReason::Malformed);
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn calls_that_the_table_ends_without_running_them_are_told_with_their_method_and_reason() {
    let mut world = World::new();
    let attached = world.open(1);
    let mut apply = |command: &SessionCommand| {
        world.table.apply(at(200), 1, command, run, &mut Vec::new()).map(|unrun| {
            assert_eq!(Some(unrun.method), command.method());
            unrun.reason
        })
    };
    let mut late = request(attached, 0, 1, b"late");
    late.deadline = Deadline::At(at(100));
    assert_eq!(apply(&late), Some(NotExecutedReason::Deadline));
    assert_eq!(apply(&late), None, "a copy is told from memory");
    assert_eq!(apply(&request(attached, 1, 1, b"one")), None, "it ran");
    assert_eq!(apply(&request(attached, 1, 1, b"two")), Some(NotExecutedReason::FalseRetry));
    let mut large = request(attached, 2, 1, b"large");
    let Said::Message(start) = large.said else { unreachable!() };
    large.said = Said::TooLarge { start, limit: 3 };
    assert_eq!(apply(&large), Some(NotExecutedReason::TooLarge));
}

#[test]
fn a_reply_beyond_the_bounds_is_not_kept_and_its_call_does_not_run_again() {
    let mut world = World::new();
    let at = world.open(1);
    let large = vec![1; 300];
    assert_eq!(reply_of(&world.apply(1, &request(at, 0, 1, &large))), large);
    let again = world.apply(1, &request(at, 0, 1, &large));
    assert_eq!(said(&again), ToClient::NotKept { slot: 0, sequence: 1 });
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn a_session_expires_by_the_logs_time_alone_and_one_that_is_heard_of_lives() {
    let mut world = World::new();
    let silent = world.open(1);
    let renewed = world.open(2);
    let calling = world.open(3);
    assert_eq!(world.table.next_expiry(), Some(Instant::ZERO + RETENTION));
    world.now = at(1_800);
    for table in [&mut world.table, &mut world.other] {
        table.renew(at(1_800), &[renewed.session]);
    }
    world.apply(1, &request(calling, 0, 1, b"there"));
    world.now = at(3_600);
    assert_eq!(world.table.advance(at(3_600)), 1);
    assert_eq!(world.other.advance(at(3_600)), 1);
    assert_eq!(refusal(&world.apply(1, &request(silent, 0, 1, b"late"))), Refusal::Expired);
    assert_eq!(reply_of(&world.apply(1, &request(renewed, 0, 1, b"a"))), b"a");
    assert_eq!(reply_of(&world.apply(1, &request(calling, 0, 2, b"b"))), b"b");
    assert_eq!(world.ran.len(), 3);
}

#[test]
fn the_logs_time_never_goes_back_in_the_table() {
    let mut world = World::new();
    world.open(1);
    world.table.advance(at(50));
    world.table.advance(at(20));
    assert_eq!(world.table.time(), at(50));
}

#[test]
fn a_session_of_another_group_is_unknown() {
    let mut world = World::new();
    let other = SessionId { incarnation: GROUP + 1, number: 1 };
    let told = world.attach(1, 1, Attaching { session: other, epoch: 1 });
    assert_eq!(refusal(&told), Refusal::Unknown);
}

#[test]
fn a_command_of_no_correct_client_closes_its_connection_and_changes_nothing() {
    let mut world = World::new();
    let at = world.open(1);
    world.apply(1, &command(1, Some(at), ToServer::Fence { slot: 3, sequence: 1 }));
    let before = image(&world.table);
    for bad in [
        command(1, None, ToServer::Fence { slot: 0, sequence: 1 }),
        request(at, 0, 2, b"gap"),
        command(1, Some(at), ToServer::CancelRead { read: 1 }),
        SessionCommand {
            said: Said::Message(bytes::Bytes::from_static(b"\xff")),
            ..request(at, 0, 1, b"")
        },
    ] {
        let told = world.apply(1, &bad);
        assert!(matches!(told[0].message.0, Content::Close(_)), "{told:?}");
    }
    assert!(image(&world.table) == before);
    assert_eq!(world.ran, []);
}

#[test]
fn a_command_that_cannot_be_taken_now_is_pushed_back_with_its_number() {
    let after = Duration::from_millis(20);
    let at = Attaching { session: SessionId { incarnation: GROUP, number: 1 }, epoch: 1 };
    let pushed = |command: &SessionCommand| {
        command.push_back(after).map(|ClientMessage(content)| match content {
            Content::Answer(parts) => ToClient::decode(join(parts)).unwrap(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(
        pushed(&request(at, 3, 9, b"x")),
        Some(ToClient::Busy { slot: 3, sequence: 9, after })
    );
    assert_eq!(
        pushed(&command(1, None, ToServer::Open { nonce: [4; 16], slots: 1 })),
        Some(ToClient::SessionBusy { reference: [4; 16], after })
    );
    assert_eq!(pushed(&command(1, Some(at), ToServer::CloseSession)), None);
    assert!(command(1, Some(at), ToServer::CloseSession).only_frees());
    assert!(!request(at, 3, 9, b"x").only_frees());
}

/// What a client may do, right or wrong.
#[derive(Clone, Debug)]
enum Step {
    Open { client: u64 },
    Attach { client: u64, session: u64 },
    Request { client: u64, slot: u32, sequence: u64, body: Vec<u8>, deadline: Option<u64> },
    Fence { client: u64, slot: u32, sequence: u64 },
    Release { client: u64, slot: u32, sequence: u64 },
    Return { client: u64, slot: u32, sequence: u64 },
    Close { client: u64 },
    Repeat { which: prop::sample::Index },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (client, slot, sequence) = (0_u64..4, 0_u32..5, 1_u64..5);
    let number = (client.clone(), slot, sequence);
    prop_oneof![
        2 => client.clone().prop_map(|client| Step::Open { client }),
        2 => (client.clone(), 1_u64..4).prop_map(|(client, session)| Step::Attach { client, session }),
        8 => (number.clone(), vec_of(any::<u8>(), 0..120), prop::option::of(0_u64..100)).prop_map(
            |((client, slot, sequence), body, deadline)| Step::Request {
                client, slot, sequence, body, deadline,
            }
        ),
        3 => number.clone()
            .prop_map(|(client, slot, sequence)| Step::Fence { client, slot, sequence }),
        2 => number.clone()
            .prop_map(|(client, slot, sequence)| Step::Release { client, slot, sequence }),
        1 => number.prop_map(|(client, slot, sequence)| Step::Return { client, slot, sequence }),
        1 => client.prop_map(|client| Step::Close { client }),
        5 => any::<prop::sample::Index>().prop_map(|which| Step::Repeat { which }),
        2 => (0_u64..2_000).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// The command of a step; each client speaks for the session that it attached last.
fn as_command(step: &Step, attached: &[Option<Attaching>]) -> Option<SessionCommand> {
    let by = |client: u64, message| {
        let at = attached[client as usize]?;
        Some(command(client, Some(at), message))
    };
    match step.clone() {
        Step::Open { client } => {
            let nonce = [client as u8; 16];
            Some(command(client, None, ToServer::Open { nonce, slots: 4 }))
        }
        Step::Attach { client, session } => {
            let session = SessionId { incarnation: GROUP, number: session };
            let secret = SessionSecret::new([client as u8; 32]);
            Some(command(client, None, ToServer::Attach { session, secret, succession: None }))
        }
        Step::Request { client, slot, sequence, body, deadline } => {
            let message = ToServer::Request { slot, sequence, payload: payload(&body) };
            let mut command = by(client, message)?;
            command.deadline = deadline.map_or(Deadline::None, |seconds| Deadline::At(at(seconds)));
            Some(command)
        }
        Step::Fence { client, slot, sequence } => by(client, ToServer::Fence { slot, sequence }),
        Step::Release { client, slot, sequence } => {
            by(client, ToServer::Release(vec![SlotPosition { slot, sequence }]))
        }
        Step::Return { client, slot, sequence } => {
            by(client, ToServer::ReturnSlots(vec![SlotPosition { slot, sequence }]))
        }
        Step::Close { client } => by(client, ToServer::CloseSession),
        Step::Repeat { .. } | Step::Wait { .. } => None,
    }
}

#[test]
fn commands_that_only_free_memory_are_merged_and_no_others() {
    let attached = Attaching { session: SessionId { incarnation: GROUP, number: 1 }, epoch: 1 };
    let by = |client, message| command(client, Some(attached), message);
    let at = |list: &[(u32, u64)]| -> Vec<SlotPosition> {
        list.iter().map(|&(slot, sequence)| SlotPosition { slot, sequence }).collect()
    };
    let release = |list: &[(u32, u64)]| by(1, ToServer::Release(at(list)));
    let give_back = |list: &[(u32, u64)]| by(1, ToServer::ReturnSlots(at(list)));
    let mut merged = release(&[(0, 3), (1, 7)]);
    assert!(merged.absorb(&release(&[(2, 1), (1, 6), (0, 4)])));
    assert_eq!(merged, release(&[(0, 4), (1, 7), (2, 1)]));
    assert!(!merged.absorb(&give_back(&[(0, 5)])));
    assert!(!merged.absorb(&by(2, ToServer::Release(at(&[(0, 9)])))), "another connection");
    assert!(!merged.absorb(&by(1, ToServer::Fence { slot: 0, sequence: 9 })));
    assert_eq!(merged, release(&[(0, 4), (1, 7), (2, 1)]));
    let mut returned = give_back(&[(3, 1)]);
    assert!(returned.absorb(&give_back(&[(4, 2)])));
    assert_eq!(returned, give_back(&[(3, 1), (4, 2)]));
    // Who closes its session has freed everything.
    assert!(returned.absorb(&by(1, ToServer::CloseSession)));
    assert!(returned.absorb(&release(&[(0, 9)])));
    assert_eq!(returned, by(1, ToServer::CloseSession));
    let mut fence = by(1, ToServer::Fence { slot: 0, sequence: 9 });
    assert!(!fence.absorb(&by(1, ToServer::CloseSession)));
}

proptest! {
    // Applying compares two tables, of which one goes on from the other's snapshot.
    #[test]
    fn two_tables_that_apply_the_same_are_the_same_bytes_and_no_number_runs_twice(
        steps in vec_of(step(), 1..60),
    ) {
        let mut world = World::new();
        let mut attached = [None; 4];
        let mut log: Vec<SessionCommand> = Vec::new();
        for step in &steps {
            let command = match step {
                Step::Wait { seconds } => {
                    world.now += Duration::from_secs(*seconds);
                    continue;
                }
                Step::Repeat { which } if !log.is_empty() => Some(which.get(&log).clone()),
                step => as_command(step, &attached),
            };
            let Some(command) = command else { continue };
            for told in world.apply(1 + command.client % 3, &command) {
                if let Content::Attached(attaching, _) = told.message.0 {
                    attached[told.client as usize] = Some(attaching);
                }
            }
            log.push(command);
        }
        let mut ids: Vec<CallId> = world.ran.iter().map(|(id, _)| *id).collect();
        let runs = ids.len();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(runs, ids.len(), "a number ran twice");
    }

    #[test]
    fn every_command_survives_being_encoded(
        client: u64, attached: Option<(u64, u64, u32)>, v6: bool,
        identity: Option<([u8; 32], Option<[u8; 32]>, bool)>, subject: Option<String>,
        refused: Option<(u32, u32, String)>,
        secret: Option<[u8; 32]>, deadline in 0..3, time in 0..u64::MAX / 2, limit: Option<u64>,
        message: Vec<u8>,
    ) {
        let address = if v6 { "[::1]:70" } else { "1.2.3.4:65535" };
        let bytes = bytes::Bytes::from(message);
        let command = SessionCommand {
            client,
            attached: attached.map(|(incarnation, number, epoch)| Attaching {
                session: SessionId { incarnation, number },
                epoch: epoch.into(),
            }),
            peer: Peer {
                address: Some(address.parse().unwrap()),
                identity: identity.map(|(key, ..)| key),
                owner: identity.and_then(|(key, owner, same)| if same { Some(key) } else { owner }),
                subject: subject.map(Into::into),
                ..Peer::default()
            }.into(),
            fresh_secret: secret.map(SessionSecret::new),
            deadline: match deadline {
                0 => Deadline::None,
                1 => Deadline::Left(Duration::from_micros(time / 4_000)),
                _ => Deadline::At(Instant::from_nanos(time)),
            },
            said: match (limit, refused) {
                (None, None) => Said::Message(bytes),
                (_, Some((slot, sequence, why))) => Said::Refused {
                    slot,
                    sequence: sequence.into(),
                    why: NotExecuted::because(NotExecutedReason::PermissionDenied, why),
                },
                (Some(limit), None) => Said::TooLarge { start: bytes, limit },
            },
            has_id: false,
        };
        let mut encoded = Vec::new();
        command.encode(&mut encoded);
        prop_assert_eq!(SessionCommand::decode(encoded.into()), Ok(command));
    }

    #[test]
    fn no_bytes_make_a_command_or_a_table_panic(bytes: Vec<u8>, altered: Vec<(prop::sample::Index, u8)>) {
        if let Ok(command) = SessionCommand::decode(bytes.clone().into()) {
            World::new().apply(1, &command);
        }
        let _ = SessionTable::decode(&bytes);
        let mut world = World::new();
        let at = world.open(1);
        world.apply(1, &request(at, 0, 1, b"kept"));
        world.apply(1, &command(1, Some(at), ToServer::Fence { slot: 2, sequence: 1 }));
        let mut image = image(&world.table);
        for (index, byte) in altered {
            *index.get_mut(&mut image) = byte;
        }
        // What still is a table can be used as one.
        if let Ok(table) = SessionTable::decode(&image) {
            let mut again = Vec::new();
            table.encode(&mut again);
            prop_assert_eq!(&again, &image);
            let mut table = table;
            let mut told = Vec::new();
            let now = table.time();
            table.apply(now, 1, &request(at, 0, 2, b"next"), run, &mut told);
            table.advance(Instant::from_nanos(u64::MAX));
        }
    }
}

#[test]
fn a_cut_image_is_unsound() {
    let mut world = World::new();
    let at = world.open(1);
    world.apply(1, &request(at, 0, 1, b"kept"));
    let image = image(&world.table);
    for length in 0..image.len() {
        assert_eq!(SessionTable::decode(&image[..length]).err(), Some(Unsound));
    }
}
