//! The door for gRPC and the client of its servers, on the loopback: generated stubs on both sides, tonic
//! and HTTP/2 between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stubborn::grpc::{CALL_ID, Grpc, KeyLimits, NOT_EXECUTED};
use stubborn::steps::{CallRequest, Kind, TraceClient};
use stubborn::{
    Call, CallError, ChannelBuilder, Code, Concurrency, Identity, Limits, NotExecutedReason,
    Outcome, Permissions, Priority, ReplySender, Requests, Server, ServerBuilder, ServerHandle,
    Status, reply,
};
use tokio::sync::{Notify, Semaphore, watch};

/// The runtime by the name that the generator's own tests use.
mod runtime {
    pub(crate) use stubborn::*;
}

#[path = "grpc/servers.rs"]
mod servers;

mod semantics {
    include!("../../build/tests/golden/semantics/mod.rs");
}

use semantics::semantics::v1::*;

/// The longest that anything here may take; nothing waits for it unless it fails.
const LIMIT: Duration = Duration::from_secs(60);

/// What the handlers have seen.
struct Seen {
    ran: AtomicU64,
    began: watch::Sender<u64>,
    /// Each permit lets one handler that waits go on.
    gate: Semaphore,
    stopped: Notify,
    whole: AtomicU64,
}

struct Handlers(Arc<Seen>);

/// Tells when a handler is dropped.
struct Stopped(Arc<Seen>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.stopped.notify_one();
    }
}

fn text(text: impl ToString) -> Text {
    Text { text: text.to_string() }
}

impl Handlers {
    /// Does what the text says, and counts.
    async fn run(&self, call: Call<Text>) -> Result<Text, Status> {
        let ran = self.0.ran.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.began.send_modify(|began| *began += 1);
        let asked = call.text.split(' ').next().unwrap_or_default().to_owned();
        match asked.as_str() {
            "wait" => {
                let _stopped = Stopped(self.0.clone());
                self.0.gate.acquire().await.expect("never closed").forget();
                Ok(text(ran))
            }
            "refuse" => {
                Err(Status::failed_precondition("no \u{1f4b0} here\n").with_details(vec![1, 2]))
            }
            "unavailable" => Err(Status::unavailable("the handler says so")),
            "metadata" => {
                let given = call.context().metadata.get("given-bin").unwrap_or_default().to_vec();
                reply::early_metadata("early", "ahead").expect("a good key");
                reply::metadata("late-bin", given).expect("a good key");
                Ok(text(""))
            }
            "time" => {
                let left = call.context().time_left();
                Ok(text(left.map_or(0, |left| left.as_millis())))
            }
            "panic" => panic!("on purpose"),
            _ => Ok(text(ran)),
        }
    }
}

impl Kinds for Handlers {
    async fn plain(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn once(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn exactly(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn perhaps(&self, call: Call<Text>) -> Result<(), Status> {
        self.run(call).await.map(|_| ())
    }

    async fn again(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn look(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn touch(&self, _: Call<()>) -> Result<(), Status> {
        Ok(())
    }

    /// Sends as many messages as the request says, then fails if it says so.
    async fn down(&self, call: Call<Text>, mut replies: ReplySender<Text>) -> Result<(), Status> {
        let _stopped = Stopped(self.0.clone());
        let (count, then) = call.text.split_once(' ').unwrap_or((&call.text, ""));
        for n in 0..count.parse().unwrap_or(u64::MAX) {
            replies.send(&text(n)).await?;
        }
        if then.is_empty() { Ok(()) } else { Err(Status::aborted(then.to_owned())) }
    }

    /// Counts messages; fails at once with what says so.
    async fn up(&self, _: Call<()>, mut requests: Requests<Text>) -> Result<Text, Status> {
        let _stopped = Stopped(self.0.clone());
        let mut count = 0;
        while let Some(message) = requests.message().await? {
            count += 1;
            self.0.began.send_modify(|began| *began += 1);
            if message.text == "stop" {
                return Err(Status::new(Code::OutOfRange, "stopped"));
            }
        }
        self.0.whole.fetch_add(1, Ordering::Relaxed);
        Ok(text(count))
    }

    /// Sends every message back.
    async fn both(
        &self,
        _: Call<()>,
        mut requests: Requests<Text>,
        mut replies: ReplySender<Text>,
    ) -> Result<(), Status> {
        while let Some(message) = requests.message().await? {
            replies.send(&message).await?;
        }
        Ok(())
    }
}

struct World {
    server: ServerHandle,
    identity: Identity,
    seen: Arc<Seen>,
}

impl World {
    async fn new(door: Grpc) -> Self {
        Self::with(door, |server| server).await
    }

    async fn with(door: Grpc, choose: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), door, choose).await
    }

    async fn at(
        address: SocketAddr,
        door: Grpc,
        choose: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let identity = Identity::self_signed(["localhost"]).unwrap();
        let seen = Arc::new(Seen {
            ran: AtomicU64::new(0),
            began: watch::Sender::new(0),
            gate: Semaphore::new(0),
            stopped: Notify::new(),
            whole: AtomicU64::new(0),
        });
        let server = Server::bind(address)
            .identity(identity.clone())
            .service(KindsServer::new(Handlers(seen.clone())))
            .drain_timeout(LIMIT)
            .grpc(door);
        let server = choose(server).start().await.unwrap();
        Self { server, identity, seen }
    }

    fn address(&self, scheme: &str) -> String {
        let pin = self.identity.fingerprint().unwrap();
        format!("{scheme}://{}?pin={pin}", self.server.local_addr())
    }

    async fn client(&self) -> KindsClient {
        KindsClient::connect(&self.address("grpcs")).await.unwrap()
    }

    async fn began(&self, count: u64) {
        let mut began = self.seen.began.subscribe();
        began.wait_for(|began| *began >= count).await.unwrap();
    }

    fn ran(&self) -> u64 {
        self.seen.ran.load(Ordering::Relaxed)
    }
}

fn not_executed(error: &CallError) -> Option<NotExecutedReason> {
    match error.outcome() {
        Outcome::NotExecuted(why) => Some(why.reason),
        _ => None,
    }
}

async fn soon<F: IntoFuture>(what: F) -> F::Output {
    tokio::time::timeout(LIMIT, what.into_future()).await.expect("it takes too long")
}

#[tokio::test]
async fn one_service_answers_datagrams_and_grpc_on_one_port_number() {
    let world = World::new(Grpc::new()).await;
    for scheme in ["stubborn", "grpcs"] {
        let client = KindsClient::connect(&world.address(scheme)).await.unwrap();
        assert!(soon(client.plain(text("x"))).await.is_ok(), "{scheme}");
        assert!(soon(client.look(text("x"))).await.is_ok(), "{scheme}");
    }
    assert_eq!(world.ran(), 4);
}

#[tokio::test]
async fn what_is_not_encrypted_is_taken_only_where_it_is_asked_for() {
    for (door, plain, secured) in [
        (Grpc::new(), false, true),
        (Grpc::new().plain(), true, false),
        (Grpc::new().plain_too(), true, true),
    ] {
        let what = format!("{door:?}");
        let world = World::new(door).await;
        for (scheme, open) in [("grpc", plain), ("grpcs", secured)] {
            let answered = async {
                let client = KindsClient::connect(&world.address(scheme)).await.ok()?;
                client.look(text("x")).deadline(Duration::from_secs(5)).await.ok()
            };
            assert_eq!(soon(answered).await.is_some(), open, "{what} {scheme}");
        }
    }
}

#[tokio::test]
async fn a_server_with_another_key_is_not_believed() {
    let world = World::new(Grpc::new()).await;
    let other = Identity::self_signed(["localhost"]).unwrap().fingerprint().unwrap();
    let address = format!("grpcs://{}?pin={other}", world.server.local_addr());
    assert!(soon(KindsClient::connect(&address)).await.is_err());
}

#[tokio::test]
async fn statuses_and_metadata_arrive_whole() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let error = soon(client.plain(text("refuse"))).await.unwrap_err();
    let status = error.status().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!((status.message(), &status.details()[..]), ("no \u{1f4b0} here\n", &[1, 2][..]));
    for scheme in ["stubborn", "grpcs"] {
        let client = KindsClient::connect(&world.address(scheme)).await.unwrap();
        let call = client.plain(text("metadata")).metadata("given-bin", [0, 255]).with_metadata();
        let (_, metadata) = soon(call).await.unwrap();
        assert_eq!(metadata.get("late-bin"), Some(&[0, 255][..]), "{scheme}");
        assert_eq!(metadata.get_str("early"), Some("ahead"), "{scheme}");
    }
}

#[tokio::test]
async fn what_a_handler_says_is_told_from_what_happens_on_the_way() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let error = soon(client.plain(text("unavailable"))).await.unwrap_err();
    assert_eq!(error.status().map(Status::code), Some(Code::Unavailable));
    let error = soon(client.plain(text("panic"))).await.unwrap_err();
    assert_eq!(error.status().map(Status::code), Some(Code::Internal));
    assert!(soon(client.plain(text("x"))).await.is_ok());
}

/// How a call ends whose handler begins before its deadline and waits for longer. A server that is too
/// busy to begin it gets more time.
async fn outlived<C>(world: &World, call: impl Fn(Duration) -> C) -> CallError
where
    C: IntoFuture<Output = Result<Text, CallError>>,
{
    let before = *world.seen.began.borrow();
    let mut limit = Duration::from_millis(100);
    loop {
        let error = soon(call(limit)).await.unwrap_err();
        if *world.seen.began.borrow() > before {
            return error;
        }
        limit *= 2;
    }
}

#[tokio::test]
async fn a_deadline_travels_and_ends_what_has_no_effects() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let left = soon(client.look(text("time")).deadline(Duration::from_secs(50))).await.unwrap();
    let left: u64 = left.text.parse().unwrap();
    assert!((1..=50_000).contains(&left), "{left}");
    let error = outlived(&world, |limit| client.look(text("wait")).deadline(limit)).await;
    assert_eq!(*error.outcome(), Outcome::Unanswered);
    soon(world.seen.stopped.notified()).await;
    let error = outlived(&world, |limit| client.plain(text("wait")).deadline(limit)).await;
    assert_eq!(*error.outcome(), Outcome::Lost, "it may run, and does");
    world.seen.gate.add_permits(1);
    soon(world.seen.stopped.notified()).await;
}

#[tokio::test]
async fn a_method_that_the_server_does_not_have_is_not_executed() {
    const NONE: stubborn::Method = stubborn::Method::new(
        "semantics.v1.Kinds/None",
        stubborn::Semantics::AtMostOnce,
        stubborn::Shape::Unary,
    );
    let world = World::new(Grpc::new()).await;
    let channel = stubborn::connect(&world.address("grpcs")).await.unwrap();
    let error = soon(channel.unary::<_, ()>(&NONE, &text("x")).raw()).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::UnknownMethod));
}

#[tokio::test]
async fn a_request_that_is_too_large_or_no_message_is_not_executed() {
    let identity = Identity::self_signed(["localhost"]).unwrap();
    let limits = stubborn::Limits { message: 10_000, ..stubborn::Limits::default() };
    let server = Server::bind("127.0.0.1:0")
        .identity(identity.clone())
        .limits(limits)
        .grpc(Grpc::new())
        .start()
        .await
        .unwrap();
    let pin = identity.fingerprint().unwrap();
    let address = format!("grpcs://{}?pin={pin}", server.local_addr());
    let channel = stubborn::connect(&address).await.unwrap();
    const CHECK: stubborn::Method = stubborn::Method::new(
        "grpc.health.v1.Health/Check",
        stubborn::Semantics::Read,
        stubborn::Shape::Unary,
    );
    for (body, reason) in [
        (vec![0; 10_001], NotExecutedReason::TooLarge),
        (vec![255; 3], NotExecutedReason::Malformed),
    ] {
        let request = stubborn::Encoded::from_body(CHECK.id(), body.into());
        let error = soon(channel.raw_unary::<()>(&CHECK, request).raw()).await.unwrap_err();
        assert_eq!(not_executed(&error), Some(reason), "{error}");
    }
}

// --- ids -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_copy_of_a_call_runs_once_and_gets_the_same_reply() {
    let world = World::new(Grpc::new()).await;
    for _ in 0..3 {
        let client = world.client().await;
        let reply = soon(client.plain(text("x")).metadata(CALL_ID, "one")).await.unwrap();
        assert_eq!(reply.text, "1");
    }
    let client = world.client().await;
    let error = soon(client.plain(text("y")).metadata(CALL_ID, "one")).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::FalseRetry));
    let refused = || client.plain(text("refuse")).metadata(CALL_ID, "two");
    for _ in 0..2 {
        let error = soon(refused()).await.unwrap_err();
        assert_eq!(error.status().map(Status::code), Some(Code::FailedPrecondition));
    }
    assert_eq!(world.ran(), 2);
}

#[tokio::test]
async fn a_copy_of_a_call_under_way_waits_for_its_end_though_the_first_caller_is_gone() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let first = tokio::spawn(client.plain(text("wait")).metadata(CALL_ID, "one").into_future());
    soon(world.began(1)).await;
    first.abort();
    let copy = || client.plain(text("wait")).metadata(CALL_ID, "one");
    let error = soon(copy().deadline(Duration::from_millis(200))).await.unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "told that it is executing");
    world.seen.gate.add_permits(1);
    assert_eq!(soon(copy()).await.unwrap().text, "1");
    assert_eq!(world.ran(), 1);
}

#[tokio::test]
async fn a_call_for_whose_id_there_is_no_room_is_refused_before_it_runs() {
    let keys = KeyLimits { keys: 1, ..KeyLimits::default() };
    let world = World::new(Grpc::new().keys(keys)).await;
    let client = world.client().await;
    soon(client.plain(text("x")).metadata(CALL_ID, "one")).await.unwrap();
    let error = soon(client.plain(text("x")).metadata(CALL_ID, "two")).await;
    assert_eq!(not_executed(&error.unwrap_err()), Some(NotExecutedReason::Overloaded));
    soon(client.look(text("x")).metadata(CALL_ID, "three")).await.unwrap();
    assert_eq!(world.ran(), 2, "a read needs no id");
    let error = client.down(text("1")).metadata(CALL_ID, "four").await.unwrap().message().await;
    assert_eq!(not_executed(&error.unwrap_err()), Some(NotExecutedReason::Malformed));
}

#[tokio::test]
async fn the_door_tells_its_connections_and_bytes_and_what_happened_to_its_calls() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    for _ in 0..2 {
        soon(client.plain(text("x")).metadata(CALL_ID, "order-1")).await.unwrap();
    }
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let mut up = client.up().metadata("traceparent", parent).await.unwrap();
    for n in 0..3 {
        soon(up.send(&text(n))).await.unwrap();
    }
    soon(up.finish()).await.unwrap();

    let door = world.server.metrics(2).grpc.expect("it has a door");
    assert_eq!((door.open, door.connections, door.refused), (1, 1, 0));
    assert!(door.bytes_received > 100 && door.bytes_sent > 100, "{door:?}");

    let asker = stubborn::connect(&world.address("stubborn")).await.unwrap();
    let asker = TraceClient::new(asker);
    let kinds = async |name: &str| {
        let asked = soon(asker.call(CallRequest { call: name.into() }).into_future());
        let told = asked.await.unwrap();
        assert!(told.kept && told.steps.iter().all(|step| step.at_ns <= told.now_ns));
        told.steps.iter().map(|step| (step.kind(), step.received, step.sent)).collect::<Vec<_>>()
    };
    let answered = [(Kind::Came, 0, 0), (Kind::Answered, 0, 0), (Kind::CameAgain, 0, 0)];
    assert_eq!(kinds("order-1").await, answered);
    let streamed = [(Kind::Came, 0, 0), (Kind::HalfClosed, 3, 0), (Kind::Ended, 3, 0)];
    assert_eq!(kinds(trace).await, streamed);
    assert_eq!(kinds("order-2").await, []);
}

// --- load ----------------------------------------------------------------------------------------

impl World {
    /// A server with one handler at once, which is at work, and room for so many calls to wait.
    async fn busy(door: Grpc, queued_calls: usize) -> Self {
        let limits =
            Limits { concurrency: Concurrency::Fixed(1), queued_calls, ..Limits::default() };
        let world = Self::with(door, |server| server.limits(limits)).await;
        // A call over datagrams has the place.
        let client = KindsClient::connect(&world.address("stubborn")).await.unwrap();
        tokio::spawn(async move { client.plain(text("wait")).await });
        soon(world.began(1)).await;
        world
    }

    async fn waiting(&self, count: usize) {
        let all_wait = async {
            while self.server.worker_stats()[0].load.waiting != count {
                tokio::task::yield_now().await;
            }
        };
        soon(all_wait).await;
    }
}

#[tokio::test]
async fn calls_over_grpc_wait_with_the_others_and_what_matters_more_goes_first() {
    let world = World::busy(Grpc::new(), 2).await;
    let client = world.client().await;
    let normal = tokio::spawn(client.plain(text("x")).into_future());
    world.waiting(1).await;
    let high = client.plain(text("x")).priority(Priority::High);
    let high = tokio::spawn(high.into_future());
    world.waiting(2).await;
    assert_eq!(world.ran(), 1);
    world.seen.gate.add_permits(1);
    assert_eq!(soon(high).await.unwrap().unwrap().text, "2");
    assert_eq!(soon(normal).await.unwrap().unwrap().text, "3");
    let load = world.server.worker_stats()[0].load;
    assert_eq!((load.waiting, load.running, load.shed.total()), (0, 0, 0));
}

#[tokio::test]
async fn a_call_over_grpc_for_which_there_is_no_room_is_told_when_to_come_back() {
    let world = World::busy(Grpc::new(), 0).await;
    let client = world.client().await;
    for key in [None, Some("one"), Some("one")] {
        let mut call = client.plain(text("x"));
        if let Some(key) = key {
            call = call.metadata(CALL_ID, key);
        }
        let error = soon(call).await.unwrap_err();
        let Outcome::NotExecuted(why) = error.outcome() else { panic!("{error}") };
        assert_eq!(why.reason, NotExecutedReason::Overloaded);
        assert!(why.retry_after().is_some());
    }
    assert!(soon(client.look(text("x"))).await.is_err(), "a read has no place either");
    let health = stubborn::connect(&world.address("grpcs")).await.unwrap();
    let health = stubborn::health::HealthClient::new(health);
    soon(health.check(Default::default())).await.expect("how it is, it says nevertheless");
    world.seen.gate.add_permits(1);
    // What was refused is not remembered under its id.
    let again = async {
        while client.plain(text("x")).metadata(CALL_ID, "one").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(again).await;
    assert_eq!(world.ran(), 2);
}

#[tokio::test]
async fn a_refused_call_has_the_code_that_grpcs_clients_retry_and_their_push_back() {
    use tonic::codegen::http::uri::PathAndQuery;
    let world = World::busy(Grpc::new().plain_too(), 0).await;
    let address = format!("http://{}", world.server.local_addr());
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect_lazy();
    let mut client = tonic::client::Grpc::new(channel);
    let refused = async {
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Text, Text>::default();
        let path = PathAndQuery::from_static("/semantics.v1.Kinds/Plain");
        client.unary(tonic::Request::new(text("x")), path, codec).await.unwrap_err()
    };
    let status = soon(refused).await;
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let pause = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert!(pause.to_str().unwrap().parse::<i32>().unwrap() > 0, "{pause:?}");
    assert!(status.metadata().contains_key(NOT_EXECUTED));
}

#[tokio::test]
async fn a_call_over_grpc_that_nobody_waits_for_any_more_never_begins() {
    let world = World::busy(Grpc::new(), 8).await;
    let client = world.client().await;
    // Its deadline passes, with an id and without.
    for key in ["one", ""] {
        let mut call = client.plain(text("x")).deadline(Duration::from_millis(50));
        if !key.is_empty() {
            call = call.metadata(CALL_ID, key);
        }
        let error = soon(call).await.unwrap_err();
        assert!(!matches!(error.outcome(), Outcome::Executed(_)), "{error}");
        world.waiting(0).await;
    }
    // Its caller has gone.
    let gone = tokio::spawn(client.plain(text("x")).into_future());
    world.waiting(1).await;
    gone.abort();
    world.waiting(0).await;
    world.seen.gate.add_permits(1);
    assert_eq!(soon(client.plain(text("x"))).await.unwrap().text, "2");
    assert_eq!(world.ran(), 2);
}

#[tokio::test]
async fn a_call_with_an_id_keeps_its_turn_for_its_copies_though_its_caller_is_gone() {
    let world = World::busy(Grpc::new(), 8).await;
    let client = world.client().await;
    let call = || client.plain(text("x")).metadata(CALL_ID, "one").into_future();
    let first = tokio::spawn(call());
    world.waiting(1).await;
    first.abort();
    let copy = tokio::spawn(call());
    world.seen.gate.add_permits(1);
    assert_eq!(soon(copy).await.unwrap().unwrap().text, "2");
    assert_eq!(world.ran(), 2);
}

#[tokio::test]
async fn a_server_that_drains_runs_what_waits_over_grpc() {
    let world = World::busy(Grpc::new(), 8).await;
    let client = world.client().await;
    let waits = tokio::spawn(client.plain(text("x")).into_future());
    world.waiting(1).await;
    let World { server, seen, .. } = world;
    let drained = tokio::spawn(server.drain());
    tokio::task::yield_now().await;
    seen.gate.add_permits(1);
    assert_eq!(soon(waits).await.unwrap().unwrap().text, "2");
    assert!(soon(drained).await.unwrap().complete);
}

#[tokio::test]
async fn no_stream_begins_over_grpc_while_more_comes_than_can_be_run() {
    let world = World::busy(Grpc::new(), 8).await;
    let client = world.client().await;
    let _waits = tokio::spawn(client.plain(text("x")).into_future());
    world.waiting(1).await;
    // After a tenth of a second it is no burst any more.
    let refused = async {
        loop {
            let mut down = client.down(text("1")).await.unwrap();
            match down.message().await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    };
    let error = soon(refused).await;
    assert_eq!(not_executed(&error), Some(NotExecutedReason::Overloaded), "{error}");
    world.seen.gate.add_permits(1);
}

// --- streams -------------------------------------------------------------------------------------

#[tokio::test]
async fn streams_of_every_shape_end_as_their_handlers_do() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    soon(async {
        let mut down = client.down(text("1000")).await.unwrap();
        for n in 0..1_000 {
            assert_eq!(down.message().await.unwrap(), Some(text(n)));
        }
        assert_eq!(down.message().await.unwrap(), None);
        let mut down = client.down(text("1 enough")).await.unwrap();
        assert!(down.message().await.unwrap().is_some());
        let error = down.message().await.unwrap_err();
        assert_eq!(error.status().map(Status::code), Some(Code::Aborted));

        let mut up = client.up().await.unwrap();
        for n in 0..1_000 {
            up.send(&text(n)).await.unwrap();
        }
        assert_eq!(up.finish().await.unwrap().reply, text(1_000));

        let mut both = client.both().await.unwrap();
        for n in 0..100 {
            both.send(&text(n)).await.unwrap();
            assert_eq!(both.message().await.unwrap(), Some(text(n)));
        }
        both.end();
        assert_eq!(both.message().await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_ends_early_stops_a_client_that_streams() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let mut up = client.up().await.unwrap();
    up.send(&text("stop")).await.unwrap();
    let stalled = async { while up.send(&text("x".repeat(10_000))).await.is_ok() {} };
    soon(stalled).await;
    let error = soon(up.finish()).await.unwrap_err();
    assert_eq!(error.status().map(Status::code), Some(Code::OutOfRange));
}

#[tokio::test]
async fn a_stream_that_its_client_drops_is_stopped_and_never_taken_for_the_whole() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    for sent in 1..20 {
        let mut up = client.up().await.unwrap();
        for n in 0..sent {
            up.send(&text(n)).await.unwrap();
        }
        drop(up);
    }
    let mut up = client.up().await.unwrap();
    up.send(&text("x")).await.unwrap();
    soon(world.began(1)).await;
    drop(up);
    soon(world.seen.stopped.notified()).await;
    let mut down = client.down(text("for ever")).await.unwrap();
    soon(down.message()).await.unwrap();
    drop(down);
    soon(world.seen.stopped.notified()).await;
    soon(world.server.drain()).await;
    assert_eq!(world.seen.whole.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_deadline_of_a_stream_stops_its_handler() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let up = client.up().deadline(Duration::from_secs(2)).await.unwrap();
    soon(world.seen.stopped.notified()).await;
    let error = soon(up.finish()).await.unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost);
}

// --- servers that come and go --------------------------------------------------------------------

#[tokio::test]
async fn a_call_is_not_executed_where_no_server_was_reached_and_lost_where_one_died_with_it() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let call = tokio::spawn(client.plain(text("wait")).into_future());
    soon(world.began(1)).await;
    soon(world.server.kill()).await;
    assert_eq!(*soon(call).await.unwrap().unwrap_err().outcome(), Outcome::Lost);
    let again = || client.plain(text("x"));
    // The channel may find out with the first of these that its connection is gone.
    let mut error = soon(again()).await.unwrap_err();
    if not_executed(&error).is_none() {
        error = soon(again()).await.unwrap_err();
    }
    assert_eq!(not_executed(&error), Some(NotExecutedReason::NeverSent), "{error}");
    let waiting = again().wait_for_ready(true).deadline(Duration::from_millis(300));
    let error = soon(waiting).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::Deadline), "{error}");
    let refused = ChannelBuilder::new("grpc://127.0.0.1:1").connect();
    assert!(soon(refused).await.is_err());
}

#[tokio::test]
async fn a_drain_lets_calls_end_and_takes_no_new_ones() {
    let world = World::new(Grpc::new()).await;
    let client = world.client().await;
    let call = tokio::spawn(client.plain(text("wait")).into_future());
    soon(world.began(1)).await;
    let World { server, seen, identity } = world;
    let address = server.local_addr();
    let drain = tokio::spawn(server.drain());
    let pin = identity.fingerprint().unwrap();
    let closed = async {
        while KindsClient::connect(&format!("grpcs://{address}?pin={pin}")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(closed).await;
    seen.gate.add_permits(1);
    assert!(soon(call).await.unwrap().is_ok());
    assert!(soon(drain).await.unwrap().complete);
}

#[tokio::test]
async fn anonymous_callers_are_refused_where_clients_have_to_show_certificates() {
    let authority = stubborn::Authority::generate().unwrap();
    let server = Server::bind("127.0.0.1:0")
        .identity(authority.issue_node(["localhost"]).unwrap())
        .client_roots(authority.trust())
        .grpc(Grpc::new())
        .start()
        .await
        .unwrap();
    let address = format!("grpcs://{}?name=localhost", server.local_addr());
    let health = |builder: ChannelBuilder| async {
        let channel = builder.trust(authority.trust()).connect().await.ok()?;
        let check = stubborn::Method::new(
            "grpc.health.v1.Health/Check",
            stubborn::Semantics::Read,
            stubborn::Shape::Unary,
        );
        channel.unary::<_, ()>(&check, &()).raw().await.ok().map(|reply| reply.reply.body.to_vec())
    };
    assert_eq!(soon(health(ChannelBuilder::new(&address))).await, None);
    let me = authority.issue_client("me").unwrap();
    let known = soon(health(ChannelBuilder::new(&address).identity(me))).await;
    assert_eq!(known, Some(vec![8, 1]), "it serves");
}

#[tokio::test]
async fn who_is_not_let_in_over_grpc_is_told_that_nothing_ran_and_gets_no_kept_reply() {
    let world = World::with(Grpc::new(), |server| {
        server.authenticate(|token| (token.len() == 3).then(|| token.to_owned())).authorize(
            Permissions::new()
                .allow_subjects("semantics.v1.Kinds", ["ada", "bob"])
                .allow("semantics.v1.Kinds/Look", |_| false),
        )
    });
    let world = world.await;
    let client = world.client().await;
    let call = |token: &str| {
        let call = client.plain(text("x")).metadata(CALL_ID, "one");
        if token.is_empty() {
            call
        } else {
            call.metadata("authorization", format!("Bearer {token}"))
        }
    };
    assert_eq!(soon(call("ada")).await.unwrap().text, "1");
    assert_eq!(soon(call("ada")).await.unwrap().text, "1");
    for (token, why) in [
        ("", NotExecutedReason::Unauthenticated),
        ("guessed", NotExecutedReason::Unauthenticated),
        ("eve", NotExecutedReason::PermissionDenied),
    ] {
        let error = soon(call(token)).await.unwrap_err();
        assert_eq!(not_executed(&error), Some(why), "{token}");
    }
    let look = client.look(text("x")).metadata("authorization", "Bearer ada");
    let error = soon(look).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::PermissionDenied));
    let mut down = soon(client.down(text("x"))).await.unwrap();
    let error = soon(down.message()).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::Unauthenticated));
    assert_eq!(world.ran(), 1);
    assert_eq!(soon(call("bob")).await.unwrap().text, "2", "its id is not ada's");
    world.server.authorize(&Permissions::new()).unwrap();
    let error = soon(call("ada")).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::PermissionDenied));
}

#[tokio::test]
async fn the_door_proves_a_renewed_certificate_too() {
    let world = World::new(Grpc::new()).await;
    assert!(world.client().await.plain(text("x")).await.is_ok());
    let renewed = Identity::self_signed(["localhost"]).unwrap();
    world.server.reload(&renewed).unwrap();
    let old = soon(KindsClient::connect(&world.address("grpcs"))).await;
    assert!(old.is_err(), "its key is another one");
    let world = World { identity: renewed, ..world };
    assert!(world.client().await.plain(text("x")).await.is_ok());
}

#[tokio::test]
async fn a_channel_to_a_grpc_server_shows_a_renewed_certificate_from_its_next_connection_on() {
    let authority = stubborn::Authority::generate().unwrap();
    let [first, second] = [(); 2].map(|()| authority.issue_client("me").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (crt, private) = (folder.path().join("crt"), folder.path().join("key"));
    let write = |identity: &Identity| {
        std::fs::write(&crt, identity.certificate_pem()).unwrap();
        std::fs::write(&private, identity.key_pem()).unwrap();
    };
    write(&first);
    // Who called last.
    let shown = Arc::new(watch::Sender::new(None));
    let start = async |address: String| {
        let seen = shown.clone();
        let server = Server::bind(address)
            .identity(authority.issue_node(["localhost"]).unwrap())
            .client_roots(authority.trust())
            .intercept(move |call: stubborn::Incoming| {
                seen.send_replace(call.context().peer.identity);
                call.run()
            })
            .grpc(Grpc::new());
        soon(server.start()).await.unwrap()
    };
    let server = start("127.0.0.1:0".into()).await;
    let address = server.local_addr();
    let told = Arc::new(watch::Sender::new(None));
    let tell = told.clone();
    let files = stubborn::IdentityFiles::new(&crt, &private)
        .every(Duration::from_millis(5))
        .tell(move |result| tell.send_modify(|told| *told = Some(result.is_ok())));
    let builder = ChannelBuilder::new(format!("grpcs://{address}?name=localhost"))
        .trust(authority.trust())
        .identity_files(files);
    let channel = soon(builder.connect()).await.unwrap();
    let check = stubborn::Method::new(
        "grpc.health.v1.Health/Check",
        stubborn::Semantics::Read,
        stubborn::Shape::Unary,
    );
    let ask = || soon(channel.unary::<_, ()>(&check, &()).raw().into_future());
    ask().await.unwrap();
    assert_eq!(*shown.borrow(), Some(first.fingerprint().unwrap().0));
    std::fs::write(&crt, "nothing of use").unwrap();
    soon(told.subscribe().wait_for(|told| *told == Some(false))).await.unwrap();
    write(&second);
    soon(told.subscribe().wait_for(|told| *told == Some(true))).await.unwrap();
    ask().await.unwrap();
    assert_eq!(*shown.borrow(), Some(first.fingerprint().unwrap().0), "the connection of before");
    server.stop().await;
    let _server = start(address.to_string()).await;
    // What meets the connection of before is lost with it.
    while ask().await.is_err() {}
    assert_eq!(*shown.borrow(), Some(second.fingerprint().unwrap().0));
}
