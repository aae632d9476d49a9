//! What the committed stubs do, over a channel that is nothing but function calls.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use prost_reflect::DescriptorPool;
use stubborn_core::service::*;
use stubborn_core::session::{CallId, NotExecutedReason, SessionId};

use crate::bank::bank::v1::*;
use crate::{helpers, legacy, semantics, shapes};

/// Nothing here ever waits.
fn now<T>(future: impl IntoFuture<Output = T>) -> T {
    let mut future = pin!(future.into_future());
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// Calls a service directly. A call's outcome is that of calling it anew.
struct Direct<S>(Arc<S>);

impl<S: Service> Caller for Direct<S> {
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        let service = Arc::clone(&self.0);
        Box::pin(async move {
            let methods = service.descriptor().methods;
            let index = methods.iter().position(|m| *m == call.method).unwrap();
            let request = Call::new(call.request, CallContext::default());
            let outcome = match service.call(index, request).await {
                Answer::Reply(reply, metadata) => {
                    return Ok(IncomingReply { reply, metadata, stream: None });
                }
                Answer::Status(status) => Outcome::Executed(status),
                Answer::NotExecuted(why) => Outcome::NotExecuted(why),
            };
            Err(CallError::new(call.method.name().to_owned(), outcome))
        })
    }

    fn reserve(&self, _: &Method) -> BoxFuture<Result<CallId, CallError>> {
        unimplemented!("no test asks for an id")
    }

    fn abandon(&self, _: CallId) {}

    fn outcome(&self, _: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        let id = BANK_DESCRIPTOR.methods[0].id();
        let reply = Encoded::new(id, &TransferReply { from_cents: 7 });
        let reply = IncomingReply { reply, ..IncomingReply::default() };
        Box::pin(async move { Ok(CallState::Replied(reply)) })
    }
}

fn channel(service: impl Service) -> Channel {
    Channel::new(Direct(Arc::new(service)))
}

#[derive(Default)]
struct Ledger {
    started: AtomicUsize,
}

impl Bank for Ledger {
    async fn transfer(&self, call: Call<TransferRequest>) -> Result<TransferReply, Status> {
        self.started.fetch_add(1, Ordering::Relaxed);
        if call.cents <= 0 {
            return Err(Status::invalid_argument("nothing to transfer"));
        }
        Ok(TransferReply { from_cents: 100 - call.cents })
    }

    async fn balance(&self, _: Call<BalanceRequest>) -> Result<BalanceReply, Status> {
        Ok(BalanceReply { cents: 100 })
    }

    async fn history(
        &self,
        call: Call<HistoryRequest>,
        mut replies: ReplySender<Entry>,
    ) -> Result<(), Status> {
        for n in 1..=3 {
            replies.send(&Entry { reference: n, cents: 10, balance_cents: 10 * n as i64 }).await?;
        }
        if call.account == "nobody" { Err(Status::not_found("no such account")) } else { Ok(()) }
    }

    async fn beat(&self, _: Call<Heartbeat>) -> Result<(), Status> {
        Ok(())
    }
}

fn transfer(cents: i64) -> TransferRequest {
    TransferRequest { from: "a".into(), to: "b".into(), cents, reference: 1 }
}

fn any_id() -> CallId {
    CallId { session: SessionId { incarnation: 1, number: 2 }, slot: 3, sequence: 4 }
}

#[test]
fn a_call_reaches_the_handler_and_its_reply_the_caller() {
    let bank = BankClient::new(channel(BankServer::new(Ledger::default())));
    assert_eq!(now(bank.transfer(transfer(1))).unwrap().from_cents, 99);
    assert_eq!(now(bank.clone().balance(BalanceRequest::default())).unwrap().cents, 100);
    now(bank.beat(Heartbeat::default())).unwrap();
}

#[test]
fn what_the_handler_refuses_was_executed() {
    let bank = BankClient::new(channel(BankServer::new(Ledger::default())));
    let error = now(bank.transfer(transfer(0))).unwrap_err();
    assert_eq!(error.status().unwrap().code(), Code::InvalidArgument);
}

#[test]
fn a_request_that_cannot_be_read_starts_no_handler() {
    let ledger = Arc::new(Ledger::default());
    let server = BankServer::from_arc(Arc::clone(&ledger));
    let id = BANK_DESCRIPTOR.methods[0].id();
    let mut bad = Encoded::new(id, &transfer(1));
    bad.digest ^= 1;
    let malformed = Encoded::from_body(id, vec![0xff].into());
    for (request, reason) in
        [(bad, NotExecutedReason::Corrupted), (malformed, NotExecutedReason::Malformed)]
    {
        match now(server.call(0, Call::new(request, CallContext::default()))) {
            Answer::NotExecuted(why) => assert_eq!(why.reason, reason),
            answer => panic!("{answer:?}"),
        }
    }
    assert_eq!(ledger.started.load(Ordering::Relaxed), 0);
}

#[test]
fn streams_and_methods_that_do_not_exist_are_unimplemented() {
    let server = BankServer::new(Ledger::default());
    assert_eq!(BANK_DESCRIPTOR.methods[2].shape(), Shape::ServerStreaming);
    for method in [2, 4, usize::MAX] {
        match now(server.call(method, Call::new(Encoded::default(), CallContext::default()))) {
            Answer::Status(status) => assert_eq!(status.code(), Code::Unimplemented),
            answer => panic!("{answer:?}"),
        }
    }
}

#[test]
fn the_outcome_of_a_call_is_asked_for_by_method_or_raw() {
    let bank = BankClient::new(channel(BankServer::new(Ledger::default())));
    let reply = TransferReply { from_cents: 7 };
    let state = now(bank.transfer_outcome(any_id())).unwrap();
    assert_eq!(state, CallState::Replied(reply));
    assert!(matches!(now(bank.outcome(any_id())).unwrap(), CallState::Replied(_)));
}

struct Broken;

impl BankCalls for Broken {
    fn transfer(&self, _: TransferRequest) -> UnaryCall<TransferReply> {
        UnaryCall::resolved(Err(CallError::new("bank.v1.Bank/Transfer", Outcome::Lost)))
    }

    fn balance(&self, _: BalanceRequest) -> UnaryCall<BalanceReply> {
        UnaryCall::resolved(Ok(BalanceReply { cents: 1 }))
    }

    fn history(&self, _: HistoryRequest) -> StreamCall<Replies<Entry>> {
        StreamCall::resolved([Entry { reference: 7, ..Entry::default() }], Ok(()))
    }

    fn beat(&self, _: Heartbeat) -> UnaryCall<()> {
        UnaryCall::resolved(Ok(()))
    }
}

#[test]
fn a_mock_takes_the_place_of_a_client() {
    fn try_it(bank: &dyn BankCalls) -> Result<TransferReply, CallError> {
        now(bank.transfer(transfer(1)))
    }
    assert_eq!(try_it(&Broken).unwrap_err().outcome(), &Outcome::Lost);
    let mut history = now(Broken.history(HistoryRequest::default())).unwrap();
    assert_eq!(now(history.message()).unwrap().map(|entry| entry.reference), Some(7));
    assert_eq!(now(history.message()).unwrap(), None);
    let client = BankClient::new(channel(BankServer::new(Ledger::default())));
    assert!(try_it(&client).is_ok());
}

#[test]
fn the_descriptor_has_every_method_with_its_semantics_and_shape() {
    use semantics::semantics::v1::{KINDS_DESCRIPTOR, NOTHING_DESCRIPTOR, ONLY_STREAMS_DESCRIPTOR};
    let methods: Vec<_> = KINDS_DESCRIPTOR
        .methods
        .iter()
        .map(|m| (m.name().rsplit('/').next().unwrap(), m.semantics(), m.shape()))
        .collect();
    let expected = [
        ("Plain", Semantics::AtMostOnce, Shape::Unary),
        ("Once", Semantics::AtMostOnce, Shape::Unary),
        ("Exactly", Semantics::ExactlyOnce, Shape::Unary),
        ("Perhaps", Semantics::Maybe, Shape::Unary),
        ("Again", Semantics::Idempotent, Shape::Unary),
        ("Look", Semantics::Read, Shape::Unary),
        ("Touch", Semantics::AtMostOnce, Shape::Unary),
        ("Down", Semantics::AtMostOnce, Shape::ServerStreaming),
        ("Up", Semantics::AtMostOnce, Shape::ClientStreaming),
        ("Both", Semantics::AtMostOnce, Shape::BidiStreaming),
    ];
    assert_eq!(methods, expected);
    assert_eq!(KINDS_DESCRIPTOR.methods[0].name(), "semantics.v1.Kinds/Plain");
    assert_eq!(NOTHING_DESCRIPTOR.methods.len(), 0);
    assert_eq!(ONLY_STREAMS_DESCRIPTOR.methods.len(), 1);
}

#[test]
fn the_descriptor_describes_the_service_to_those_who_have_no_file() {
    let pool = DescriptorPool::decode(BANK_DESCRIPTOR.file_descriptor_set).unwrap();
    let bank = pool.get_service_by_name(BANK_DESCRIPTOR.name).unwrap();
    assert_eq!(bank.methods().len(), BANK_DESCRIPTOR.methods.len());
    let semantics = pool.get_extension_by_name("stubborn.semantics").unwrap();
    let beat = bank.methods().find(|m| m.name() == "Beat").unwrap();
    assert_eq!(beat.options().get_extension(&semantics).as_enum_number(), Some(1));
}

struct Everything;

impl helpers::helpers::Service for Everything {
    async fn run(
        &self,
        _: Call<helpers::helpers::Empty>,
    ) -> Result<helpers::helpers::Empty, Status> {
        Ok(helpers::helpers::Empty {})
    }
}

#[test]
fn a_service_named_like_a_trait_of_the_runtime_works() {
    use helpers::helpers::{Empty, ServiceClient, ServiceServer};
    let client = ServiceClient::new(channel(ServiceServer::new(Everything)));
    assert_eq!(now(client.run(Empty {})).unwrap(), Empty {});
}

#[test]
fn methods_named_like_helpers_are_there_beside_them() {
    use helpers::helpers::{Empty, HelpersClient};
    // Compiled, not run: nothing answers.
    let _ = |client: HelpersClient| {
        let calls: [UnaryCall<Empty>; 5] = [
            client.new_(Empty {}),
            client.connect_(Empty {}),
            client.outcome_(Empty {}),
            client.transfer_outcome(Empty {}),
            client.format(Empty {}),
        ];
        drop(client.transfer_outcome_(any_id()));
        calls
    };
}

#[test]
fn empty_is_the_unit_and_wrappers_are_plain_types() {
    struct Garden;
    impl shapes::shapes::Shapes for Garden {
        async fn grow(
            &self,
            call: Call<shapes::shapes::Tree>,
        ) -> Result<shapes::shapes::tree::Node, Status> {
            Ok(*call.into_message().root.unwrap_or_default())
        }
        async fn deepen(
            &self,
            _: Call<shapes::shapes::tree::node::deep::Deeper>,
        ) -> Result<(), Status> {
            Ok(())
        }
        async fn now(&self, _: Call<()>) -> Result<prost_types::Timestamp, Status> {
            Ok(prost_types::Timestamp { seconds: 1, nanos: 0 })
        }
        async fn wrap(&self, call: Call<String>) -> Result<bool, Status> {
            Ok(call.into_message() == "yes")
        }
        async fn ball(
            &self,
            call: Call<shapes::shapes::Ping>,
        ) -> Result<shapes::shapes::Pong, Status> {
            Ok(shapes::shapes::Pong { ping: Some(Box::new(call.into_message())) })
        }
    }
    let client =
        shapes::shapes::ShapesClient::new(channel(shapes::shapes::ShapesServer::new(Garden)));
    assert_eq!(now(client.now(())).unwrap().seconds, 1);
    assert!(now(client.wrap("yes".into())).unwrap());
}

#[test]
fn defaults_of_proto2_are_there() {
    let old = legacy::legacy::Old::default();
    assert_eq!(old.count(), -7);
    assert_eq!(old.word(), "a \"b\"");
    assert_eq!(old.raw(), b"\x00\xff");
    assert_eq!(old.level(), legacy::legacy::old::Level::High);
}

/// The bank as a replicated machine.
#[derive(Default)]
struct Vault {
    cents: i64,
    last: u64,
}

impl BankMachine for Vault {
    fn transfer(
        &mut self,
        at: &Applied,
        request: TransferRequest,
    ) -> Result<TransferReply, Status> {
        self.last = at.index;
        if request.cents <= 0 {
            return Err(Status::invalid_argument("nothing to transfer"));
        }
        self.cents += request.cents;
        Ok(TransferReply { from_cents: self.cents })
    }

    fn balance(&self, _: BalanceRequest) -> Result<BalanceReply, Status> {
        Ok(BalanceReply { cents: self.cents })
    }

    fn snapshot(&self) -> Image {
        [self.cents.to_be_bytes(), self.last.to_be_bytes()].concat().into()
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        let Some((cents, last)) = piece.split_first_chunk::<8>() else {
            return Err(RestoreError::new("too short"));
        };
        let last = last.try_into().map_err(|_| RestoreError::new("no index"))?;
        (self.cents, self.last) = (i64::from_be_bytes(*cents), u64::from_be_bytes(last));
        Ok(())
    }
}

fn at(index: u64) -> Applied {
    Applied { index, ..Applied::default() }
}

#[test]
fn a_machine_runs_commands_answers_queries_and_is_restored() {
    let mut bank = BankReplica::new(Vault::default());
    let id = BANK_DESCRIPTOR.methods[0].id();
    let answer = bank.apply(&at(3), 0, &Encoded::new(id, &transfer(5)));
    let expected = Encoded::new(id, &TransferReply { from_cents: 5 });
    assert_eq!(answer, Answer::Reply(expected, Metadata::new()));
    let refused = bank.apply(&at(4), 0, &Encoded::new(id, &transfer(0)));
    assert!(matches!(refused, Answer::Status(status) if status.code() == Code::InvalidArgument));
    let mut other = BankReplica::new(Vault::default());
    let snapshot = bank.snapshot().to_bytes().unwrap();
    other.restore(Piece::only(&snapshot)).unwrap();
    assert!(other.restore(Piece::only(b"?")).is_err());
    let id = BANK_DESCRIPTOR.methods[1].id();
    let asked = Encoded::new(id, &BalanceRequest::default());
    let expected = Encoded::new(id, &BalanceReply { cents: 5 });
    assert_eq!(other.query(1, &asked), Answer::Reply(expected, Metadata::new()));
    assert_eq!(other.snapshot(), bank.snapshot());
}

#[test]
fn a_machine_runs_no_request_that_cannot_be_read_and_no_method_it_does_not_have() {
    let mut bank = BankReplica::new(Vault::default());
    let mut bad = Encoded::new(BANK_DESCRIPTOR.methods[0].id(), &transfer(5));
    bad.digest ^= 1;
    match bank.apply(&at(1), 0, &bad) {
        Answer::NotExecuted(why) => assert_eq!(why.reason, NotExecutedReason::Corrupted),
        answer => panic!("{answer:?}"),
    }
    // A query, a stream, a maybe call, and nothing at all.
    for method in [1, 2, 3, usize::MAX] {
        match bank.apply(&at(2), method, &Encoded::default()) {
            Answer::Status(status) => assert_eq!(status.code(), Code::Unimplemented),
            answer => panic!("{answer:?}"),
        }
    }
    assert!(matches!(bank.query(0, &Encoded::default()), Answer::Status(_)));
    assert_eq!(bank.snapshot().to_bytes().unwrap(), [0; 16][..]);
}

#[test]
fn methods_named_like_what_a_machine_does_by_itself_stand_beside_it() {
    use helpers::helpers::{ArchiveMachine, Empty};
    struct Shelf;
    impl ArchiveMachine for Shelf {
        fn snapshot_(&mut self, _: &Applied, _: Empty) -> Result<Empty, Status> {
            Ok(Empty {})
        }
        fn restore_(&self, _: Empty) -> Result<Empty, Status> {
            Ok(Empty {})
        }
        fn machine(&mut self, _: &Applied, _: Empty) -> Result<Empty, Status> {
            Ok(Empty {})
        }
        fn snapshot(&self) -> Image {
            Image::default()
        }
        fn restore(&mut self, _: Piece<'_>) -> Result<(), RestoreError> {
            Ok(())
        }
    }
    let mut shelf = helpers::helpers::ArchiveReplica::new(Shelf);
    let snapshot = shelf.snapshot().to_bytes().unwrap();
    assert!(shelf.restore(Piece::only(&snapshot)).is_ok());
}

mod buffa_bank {
    //! The same bank, with messages of another backend.

    use buffa_types::google::protobuf::Empty;
    use stubborn_core::service::{Call, Code, ReplySender, Status};

    use super::{channel, now};
    use crate::buffa::bank::v1::*;

    /// Knows one account.
    struct Till;

    impl Bank for Till {
        async fn transfer(&self, call: Call<TransferRequest>) -> Result<TransferReply, Status> {
            match call.from.as_str() {
                "alice" => Ok(TransferReply { from_cents: -call.cents, ..Default::default() }),
                other => Err(Status::not_found(other.to_owned())),
            }
        }

        async fn balance(&self, _: Call<BalanceRequest>) -> Result<BalanceReply, Status> {
            Err(Status::unimplemented("nobody asks"))
        }

        async fn history(
            &self,
            _: Call<HistoryRequest>,
            _: ReplySender<Entry>,
        ) -> Result<(), Status> {
            Err(Status::unimplemented("nobody asks"))
        }

        async fn beat(&self, _: Call<Heartbeat>) -> Result<Empty, Status> {
            Ok(Empty::default())
        }
    }

    #[test]
    fn stubs_carry_messages_of_buffa() {
        let bank = BankClient::new(channel(BankServer::new(Till)));
        let request = TransferRequest { from: "alice".into(), cents: 7, ..Default::default() };
        assert_eq!(now(bank.transfer(request)).unwrap().from_cents, -7);
        let error = now(bank.transfer(TransferRequest::default())).unwrap_err();
        assert_eq!(error.status().unwrap().code(), Code::NotFound);
        now(bank.beat(Heartbeat::default())).unwrap();
    }

    #[test]
    fn a_client_with_messages_of_prost_calls_a_server_with_messages_of_buffa() {
        use crate::bank::bank::v1 as prost;

        let bank = prost::BankClient::new(channel(BankServer::new(Till)));
        let request =
            prost::TransferRequest { from: "alice".into(), cents: 7, ..Default::default() };
        assert_eq!(now(bank.transfer(request)).unwrap().from_cents, -7);
        assert_eq!(BANK_DESCRIPTOR.methods, prost::BANK_DESCRIPTOR.methods);
    }
}
