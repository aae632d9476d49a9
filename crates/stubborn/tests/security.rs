//! Who is let in, and what stands before the handlers.

mod common;

use std::fs;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Note, soon};
use stubborn::client::ConnectErrorKind;
use stubborn::{
    AccessError, AccessFile, Answer, Authority, Bearer, Call, CallContext, CallError, CallState,
    Channel, ChannelBuilder, Encoded, Handling, Identity, Incoming, Metadata, Method, NotExecuted,
    NotExecutedReason, Outcome, Permissions, Port, Replies, Semantics, ServeError, Server,
    ServerBuilder, ServerHandle, Service, ServiceDescriptor, Shape, Token, Trust,
};
use tokio::sync::watch;

const LOOK: Method = Method::new("gate.v1.Gate/Look", Semantics::Read, Shape::Unary);
const CHANGE: Method = Method::new("gate.v1.Gate/Change", Semantics::AtMostOnce, Shape::Unary);
const TELL: Method = Method::new("gate.v1.Gate/Tell", Semantics::Maybe, Shape::Unary);
const DOWN: Method =
    Method::new("gate.v1.Gate/Down", Semantics::AtMostOnce, Shape::ServerStreaming);
const UP: Method = Method::new("gate.v1.Gate/Up", Semantics::AtMostOnce, Shape::ClientStreaming);

static GATE: ServiceDescriptor = ServiceDescriptor {
    name: "gate.v1.Gate",
    methods: &[LOOK, CHANGE, TELL, DOWN, UP],
    file_descriptor_set: &[],
};

/// Counts its handlers, and answers with what it knows of the caller.
#[derive(Clone)]
struct Gate(Arc<watch::Sender<u64>>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    fn started(&self) -> u64 {
        *self.0.borrow()
    }

    fn handle(&self, method: usize, context: &CallContext) -> Handling {
        self.0.send_modify(|started| *started += 1);
        let id = GATE.methods[method].id();
        let spiffe = context.peer.spiffe().map(ToString::to_string);
        let who = spiffe.or(context.peer.subject.as_deref().map(ToOwned::to_owned));
        let text = |key| context.metadata.get_str(key);
        let said = text("said").or(text("traceparent")).unwrap_or_default();
        let note = Note::data(format!("{}{said}", who.unwrap_or_default()));
        Box::pin(async move { Answer::Reply(Encoded::new(id, &note), Metadata::new()) })
    }
}

impl Service for Gate {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &GATE
    }

    fn call(&self, method: usize, request: Call<Encoded>) -> Handling {
        self.handle(method, request.context())
    }

    fn stream(&self, method: usize, request: Call<Encoded>, _: Arc<dyn Port>) -> Handling {
        self.handle(method, request.context())
    }
}

/// An authority, a server that it has signed, and what it serves.
struct Site {
    authority: Authority,
    gate: Gate,
}

impl Site {
    fn new() -> Self {
        Self { authority: Authority::generate().unwrap(), gate: Gate::new() }
    }

    fn server(&self) -> ServerBuilder {
        let identity = self.authority.issue_node(["localhost", "127.0.0.1"]).unwrap();
        Server::bind("127.0.0.1:0")
            .identity(identity)
            .optional_client_roots(self.authority.trust())
            .service(self.gate.clone())
    }

    fn to(&self, server: &ServerHandle) -> ChannelBuilder {
        ChannelBuilder::new(server.local_addr().to_string()).trust(self.authority.trust())
    }

    async fn channel(&self, server: &ServerHandle, identity: Option<Identity>) -> Channel {
        let mut builder = self.to(server);
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        soon(builder.connect()).await.unwrap()
    }
}

async fn call(channel: &Channel, method: &Method) -> Result<String, CallError> {
    let reply = soon(channel.unary::<_, Note>(method, &Note::default()).into_future()).await;
    reply.map(|note| String::from_utf8(note.data.into()).unwrap())
}

async fn call_as(channel: &Channel, method: &Method, token: &str) -> Result<String, CallError> {
    let call = channel.unary::<_, Note>(method, &Note::default());
    let call = call.metadata("authorization", format!("Bearer {token}"));
    soon(call.into_future()).await.map(|note| String::from_utf8(note.data.into()).unwrap())
}

/// Why the call did not run.
fn why(result: Result<impl std::fmt::Debug, CallError>) -> NotExecutedReason {
    match result.unwrap_err().outcome() {
        Outcome::NotExecuted(why) => why.reason,
        other => panic!("{other:?}"),
    }
}

const WEB: &str = "spiffe://bank.example/web";

#[tokio::test]
async fn a_handler_and_the_permissions_know_the_spiffe_id_that_a_caller_has_proved() {
    let site = Site::new();
    let permissions = Permissions::new().allow_spiffe("gate.v1.Gate", [WEB]);
    let server = site.server().authorize(permissions).start().await.unwrap();
    let issue = |name| site.authority.issue_client(name).unwrap();
    let web = site.channel(&server, Some(issue(WEB))).await;
    assert_eq!(call(&web, &CHANGE).await.unwrap(), WEB);
    assert_eq!(call(&web, &LOOK).await.unwrap(), WEB);
    for stranger in [Some(issue("spiffe://bank.example/cron")), Some(issue("web")), None] {
        let stranger = site.channel(&server, stranger).await;
        assert_eq!(why(call(&stranger, &CHANGE).await), NotExecutedReason::PermissionDenied);
        assert_eq!(why(call(&stranger, &LOOK).await), NotExecutedReason::PermissionDenied);
    }
    assert_eq!(site.gate.started(), 2);
}

#[tokio::test]
async fn what_no_permission_names_never_starts_a_handler_of_whatever_kind() {
    let site = Site::new();
    let permissions = Permissions::new().allow_anybody("gate.v1.Gate/Look");
    let server = site.server().authorize(permissions).start().await.unwrap();
    let channel = site.channel(&server, None).await;
    let denied = NotExecutedReason::PermissionDenied;
    let mut change = channel.unary::<_, Note>(&CHANGE, &Note::default());
    let id = soon(change.id()).await.unwrap();
    assert_eq!(why(soon(change.into_future()).await), denied);
    let state = soon(channel.outcome::<Note>(&CHANGE, id)).await.unwrap();
    assert!(matches!(state, CallState::NotExecuted(ref why) if why.reason == denied), "{state:?}");
    let down = channel.server_streaming::<_, Note>(&DOWN, &Note::default());
    let mut replies: Replies<Note> = soon(down.into_future()).await.unwrap();
    assert_eq!(why(soon(replies.message()).await), denied);
    let up = channel.client_streaming::<Note, Note>(&UP);
    let up = soon(up.into_future()).await.unwrap();
    assert_eq!(why(soon(up.finish()).await), denied);
    soon(channel.unary::<_, Note>(&TELL, &Note::default()).into_future()).await.unwrap();
    let reflection = stubborn::reflection::ReflectionClient::new(channel.clone());
    let list = reflection.list_services(stubborn::reflection::ListServicesRequest {});
    assert_eq!(why(soon(list.into_future()).await), denied);
    // It comes after what was told.
    call(&channel, &LOOK).await.unwrap();
    assert_eq!(site.gate.started(), 1);
}

#[tokio::test]
async fn reflection_is_open_to_those_to_whom_it_is_allowed() {
    let site = Site::new();
    let permissions = Permissions::new().allow_reflection(|_| true).allow_health();
    let server = site.server().authorize(permissions).start().await.unwrap();
    let channel = site.channel(&server, None).await;
    let reflection = stubborn::reflection::ReflectionClient::new(channel);
    let list = reflection.list_services(stubborn::reflection::ListServicesRequest {});
    let services = soon(list.into_future()).await.unwrap().services;
    assert!(services.iter().any(|service| service == GATE.name), "{services:?}");
}

#[tokio::test]
async fn a_permission_for_a_method_that_is_not_there_keeps_the_server_from_starting() {
    let permissions = Permissions::new().allow_anybody("gate.v1.Gate/Lok");
    let error = Site::new().server().authorize(permissions).start().await.unwrap_err();
    assert!(matches!(&error, ServeError::Permissions(_)), "{error}");
    assert!(error.to_string().contains("gate.v1.Gate/Lok"), "{error}");
}

#[tokio::test]
async fn a_server_goes_by_new_permissions_while_it_runs_and_keeps_those_of_before_if_they_are_wrong()
 {
    let site = Site::new();
    let server = site.server().workers(2).start().await.unwrap();
    let channel = site.channel(&server, None).await;
    call(&channel, &CHANGE).await.unwrap();
    server.authorize(&Permissions::new().allow_anybody("gate.v1.Gate/Look")).unwrap();
    assert_eq!(why(call(&channel, &CHANGE).await), NotExecutedReason::PermissionDenied);
    call(&channel, &LOOK).await.unwrap();
    let error = server.authorize(&Permissions::new().allow_anybody("gate.v1.Gat")).unwrap_err();
    assert!(matches!(error, ServeError::Permissions(why) if why.contains("gate.v1.Gat")));
    call(&channel, &LOOK).await.unwrap();
    server.authorize(&Permissions::new().allow_anybody("gate.v1.Gate")).unwrap();
    call(&channel, &CHANGE).await.unwrap();
    assert_eq!(site.gate.started(), 4);
}

#[tokio::test]
async fn a_server_takes_permissions_and_tokens_from_a_file_and_a_token_that_is_taken_out_is_nobodys()
 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.conf");
    // Nobody sees half of it.
    let write = |text: &str| {
        fs::write(folder.path().join("next"), text).unwrap();
        fs::rename(folder.path().join("next"), &path).unwrap();
    };
    let rule = "gate.v1.Gate = subject:ada\n";
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    write("gate.v1.Gat = anybody");
    let told = Arc::new(watch::Sender::new((0, 0)));
    let tell = {
        let told = told.clone();
        move |result: &Result<(), AccessError>| {
            told.send_modify(|(good, wrong)| match result {
                Ok(()) => *good += 1,
                Err(_) => *wrong += 1,
            });
        }
    };
    let site = Site::new();
    let file = AccessFile::new(&path).every(Duration::from_millis(5)).tell(tell);
    let error = site.server().access_file(file.clone()).start().await.unwrap_err().to_string();
    assert!(error.contains("access.conf: a permission names gate.v1.Gat"), "{error}");
    write(&format!("{rule}token ada = {digest}"));
    let server = site.server().access_file(file).start().await.unwrap();
    let channel = site.channel(&server, None).await;
    assert_eq!(call_as(&channel, &CHANGE, "test").await.unwrap(), "ada");
    write("gate.v1.Gate = everybody");
    soon(told.subscribe().wait_for(|(_, wrong)| *wrong == 1)).await.unwrap();
    assert_eq!(call_as(&channel, &CHANGE, "test").await.unwrap(), "ada");
    write(rule);
    soon(told.subscribe().wait_for(|(good, _)| *good == 1)).await.unwrap();
    let refused = call_as(&channel, &CHANGE, "test").await;
    assert_eq!(why(refused), NotExecutedReason::PermissionDenied);
}

#[tokio::test]
async fn interceptors_see_each_call_in_their_order_and_may_answer_themselves() {
    let site = Site::new();
    let passed = Arc::new(AtomicU64::new(0));
    let count = passed.clone();
    let server = site
        .server()
        .intercept(move |mut call: Incoming| {
            count.fetch_add(1, Ordering::Relaxed);
            call.context_mut().metadata.insert("said", "first").unwrap();
            async move { call.run().await }
        })
        .intercept(|call: Incoming| async move {
            assert_eq!(call.context().metadata.get_str("said"), Some("first"));
            if call.method().name() == LOOK.name() {
                let why = NotExecuted::because(NotExecutedReason::Overloaded, "not now");
                return Answer::NotExecuted(why);
            }
            call.run().await
        })
        .start()
        .await
        .unwrap();
    let channel = site.channel(&server, None).await;
    assert_eq!(call(&channel, &CHANGE).await.unwrap(), "first");
    let look = channel.unary::<_, Note>(&LOOK, &Note::default());
    let look = look.deadline(Duration::from_secs(1));
    assert_eq!(why(soon(look.into_future()).await), NotExecutedReason::Overloaded);
    let down = channel.server_streaming::<_, Note>(&DOWN, &Note::default());
    let mut replies: Replies<Note> = soon(down.into_future()).await.unwrap();
    assert!(soon(replies.message()).await.unwrap().is_none());
    assert_eq!(site.gate.started(), 2);
    assert!(passed.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn callers_are_known_by_their_tokens_and_a_session_belongs_to_one_of_them() {
    let site = Site::new();
    let server = site
        .server()
        .authenticate(|token| token.strip_prefix("secret of ").map(ToOwned::to_owned))
        .authorize(Permissions::new().allow_subjects("gate.v1.Gate", ["ada", "bob"]))
        .start()
        .await
        .unwrap();
    let channel = site.channel(&server, None).await;
    assert_eq!(why(call(&channel, &CHANGE).await), NotExecutedReason::Unauthenticated);
    let wrong = call_as(&channel, &CHANGE, "guessed").await;
    assert_eq!(why(wrong), NotExecutedReason::Unauthenticated);
    assert_eq!(call_as(&channel, &CHANGE, "secret of ada").await.unwrap(), "ada");
    let other = call_as(&channel, &CHANGE, "secret of bob").await;
    assert_eq!(why(other), NotExecutedReason::PermissionDenied);
    let bobs = site.channel(&server, None).await;
    assert_eq!(call_as(&bobs, &CHANGE, "secret of bob").await.unwrap(), "bob");
    let eve = site.channel(&server, None).await;
    let denied = call_as(&eve, &CHANGE, "secret of eve").await;
    assert_eq!(why(denied), NotExecutedReason::PermissionDenied);
    assert_eq!(site.gate.started(), 2);
}

#[tokio::test]
async fn a_session_is_its_spiffe_ids_whatever_key_and_nobody_elses() {
    let site = Site::new();
    let server = site.server().start().await.unwrap();
    let issue = |name| Some(site.authority.issue_client(name).unwrap());
    let open = |identity: Option<Identity>, ticket| {
        let mut builder = site.to(&server).identity(identity.unwrap());
        if let Some(ticket) = ticket {
            builder = builder.resume(ticket);
        }
        async move { soon(builder.open()).await.unwrap() }
    };
    let web = open(issue(WEB), None).await;
    let mut change = web.channel().unary::<_, Note>(&CHANGE, &Note::default());
    let id = soon(change.id()).await.unwrap();
    soon(change.into_future()).await.unwrap();
    let ticket = web.ticket().unwrap();
    // Another certificate of the same id, with another key, after a renewal for example.
    let renewed = open(issue(WEB), None).await;
    let state = soon(renewed.outcome_of(id, Some(ticket.clone()))).await.unwrap();
    assert!(matches!(state, CallState::Replied(_) | CallState::AlreadySettled), "{state:?}");
    let thief = open(issue("spiffe://bank.example/thief"), None).await;
    let state = soon(thief.outcome_of(id, Some(ticket.clone()))).await;
    assert!(!matches!(state, Ok(CallState::Replied(_) | CallState::AlreadySettled)), "{state:?}");
    let resumed = open(issue(WEB), Some(ticket)).await;
    assert_eq!(resumed.ticket().unwrap().session, id.session);
}

fn tokens_are_names(server: ServerBuilder) -> ServerBuilder {
    server.authenticate(|token| Some(token.to_owned()))
}

#[tokio::test]
async fn a_channel_takes_its_token_along_with_calls_and_streams_and_fetches_the_next_one() {
    let site = Site::new();
    let server = tokens_are_names(site.server()).many_subjects_in_a_session().start();
    let server = server.await.unwrap();
    let fetched = Arc::new(AtomicU64::new(0));
    let count = fetched.clone();
    // Each is old at once.
    let bearer = Bearer::fetched(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let token = Token::new(format!("t{number}")).good_for(Duration::ZERO);
        async move { if number == 3 { Err("away") } else { Ok(token) } }
    });
    let channel = soon(site.to(&server).bearer(bearer).connect()).await.unwrap();
    assert_eq!(call(&channel, &CHANGE).await.unwrap(), "t0");
    assert_eq!(call(&channel, &LOOK).await.unwrap(), "t1");
    let up = soon(channel.client_streaming::<Note, Note>(&UP).into_future()).await.unwrap();
    assert_eq!(soon(up.finish()).await.unwrap().reply.data, "t2");
    let error = call(&channel, &CHANGE).await.unwrap_err();
    assert!(error.to_string().contains("away"), "{error}");
    assert_eq!(why(Err::<(), _>(error)), NotExecutedReason::NeverSent);
    let lasting = site.to(&server).bearer(Bearer::token("ada")).connect();
    let lasting = soon(lasting).await.unwrap();
    for _ in 0..2 {
        assert_eq!(call(&lasting, &CHANGE).await.unwrap(), "ada");
    }
    assert_eq!(call_as(&lasting, &CHANGE, "bob").await.unwrap(), "bob", "a call's own goes first");
}

#[tokio::test]
async fn a_token_is_not_sent_to_a_server_that_need_not_prove_who_it_is() {
    let site = Site::new();
    let server = tokens_are_names(site.server()).start().await.unwrap();
    let open = ChannelBuilder::new(server.local_addr().to_string()).trust(Trust::insecure());
    let error = soon(open.bearer(Bearer::token("ada")).connect()).await.unwrap_err();
    assert!(matches!(error.kind(), ConnectErrorKind::UnverifiedBearer), "{error}");
    let key = ChannelBuilder::new(server.local_addr().to_string());
    assert!(soon(key.bearer(Bearer::token("ada")).connect()).await.is_err());
}

#[tokio::test]
async fn a_token_is_not_written_into_the_journal() {
    let site = Site::new();
    let server = tokens_are_names(site.server()).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    let builder = site.to(&server).journal(&file).settled_by_hand();
    let bearer = Bearer::token("hush-hush");
    let channel = soon(builder.bearer(bearer).connect()).await.unwrap();
    assert_eq!(call(&channel, &CHANGE).await.unwrap(), "hush-hush");
    let written = std::fs::read(&file).unwrap();
    let has = |what: &str| written.windows(what.len()).any(|bytes| bytes == what.as_bytes());
    assert!(has("gate.v1.Gate/Change") && !has("Bearer"));
}

#[tokio::test]
async fn interceptors_of_a_channel_change_calls_and_keep_them_from_being_sent() {
    let site = Site::new();
    let server = site.server().start().await.unwrap();
    let builder = site
        .to(&server)
        .intercept(|call| {
            call.metadata.insert("said", "one").map_err(|error| error.to_string().into())
        })
        .intercept(|call| match call.method.name() == LOOK.name() {
            true => Err("not today".into()),
            false => call.metadata.set("said", "two").map_err(|error| error.to_string().into()),
        });
    let channel = soon(builder.connect()).await.unwrap();
    assert_eq!(call(&channel, &CHANGE).await.unwrap(), "two");
    let error = call(&channel, &LOOK).await.unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    assert_eq!(why(Err::<(), _>(error)), NotExecutedReason::NeverSent);
}

#[tokio::test]
async fn the_calls_of_a_handler_carry_its_trace() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let site = Site::new();
    let child = site.server().start().await.unwrap();
    let next = site.channel(&child, None).await;
    let parent = site.server().intercept(move |_: Incoming| {
        let call = next.unary::<_, Note>(&LOOK, &Note::default());
        async move {
            let reply = call.await.unwrap();
            Answer::Reply(Encoded::new(CHANGE.id(), &reply), Metadata::new())
        }
    });
    let parent = parent.start().await.unwrap();
    let channel = site.channel(&parent, None).await;
    let traced = channel.unary::<_, Note>(&CHANGE, &Note::default()).metadata("traceparent", TRACE);
    assert_eq!(soon(traced.into_future()).await.unwrap().data, TRACE);
    assert_eq!(call(&channel, &CHANGE).await.unwrap(), "");
}
