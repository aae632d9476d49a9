//! One call: from its headers to its trailers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method as HttpMethod, StatusCode, header};
use http_body::Body as HttpBody;
use stubborn_core::service::{
    Answer, Call, CallContext, Code, Encoded, Metadata, Method, MethodId, NotExecuted, Peer,
    RequestKind, Semantics, Shape, Status,
};
use stubborn_core::session::{
    Begin, KeyedEnd, Keys, LONGEST_KEY, NotExecutedReason as Reason, Ticket, key_of,
};
use stubborn_rope::Rope;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Streaming;
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, EncodeBody, SingleMessageCompressionOverride};
use tonic::metadata::MetadataMap;

use super::intake::{Intake, Watched};
use super::port::DoorPort;
use super::{Handlers, Inner, Place, Stage};
use crate::codec::RawCodec;
use crate::outlet::{Early, Next, Outlet};
use crate::{CALL_ID, NOT_EXECUTED, words};

/// The latest that a deadline can lie ahead; one beyond is none.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How a handler ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it said.
    pub answer: Answer,
    /// What goes ahead of it; of a stream only if no message went before.
    pub early: Early,
    /// The answer is a status that no handler has said: what became of the call is not known here, or
    /// not yet.
    pub unknown: bool,
}

impl Ended {
    /// With nothing ahead.
    pub fn of(answer: Answer) -> Self {
        Self { answer, early: Early::default(), unknown: false }
    }

    /// What became of the call is not known, for this reason.
    pub fn unknown(why: Status) -> Self {
        Self { unknown: true, ..Self::of(Answer::Status(why)) }
    }
}

impl KeyedEnd for Ended {
    fn ran(&self) -> bool {
        self.answer.ran()
    }

    fn size(&self) -> usize {
        self.answer.size() + self.early.metadata.size()
    }

    fn without_reply(&self) -> Self {
        Self::of(self.answer.without_reply())
    }
}

/// The end of a call with a key, for its copies: none while it runs.
pub(super) type Copies = watch::Receiver<Kept>;

type Kept = Option<Arc<Ended>>;

/// What a connection is to its calls.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) door: Arc<Inner>,
    pub(super) peer: Arc<Peer>,
}

type Failure = tonic::Status;

/// Answers one request.
pub(super) async fn serve<B>(caller: Caller, request: http::Request<B>) -> http::Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let content = request.headers().get(header::CONTENT_TYPE);
    let grpc = content.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if request.method() != HttpMethod::POST || !grpc {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let mut response = match Arriving::new(caller, request) {
        Ok(arriving) => arriving.answer().await,
        Err(refused) => refused.into_http(),
    };
    let offered = http::HeaderValue::from_static("identity,gzip");
    response.headers_mut().insert("grpc-accept-encoding", offered);
    response
}

/// A call whose headers were read.
struct Arriving {
    caller: Caller,
    method: &'static Method,
    peer: Arc<Peer>,
    metadata: Metadata,
    deadline: Option<Instant>,
    requests: Streaming<Bytes>,
    intake: Arc<Intake>,
    encodings: Encodings,
    permit: OwnedSemaphorePermit,
}

/// How the messages of a call may be compressed.
#[derive(Clone, Copy)]
struct Encodings {
    request: Option<CompressionEncoding>,
    /// Whether the caller reads gzip.
    accepted: bool,
}

impl Arriving {
    /// # Errors
    /// If no handler is started.
    fn new<B>(caller: Caller, request: http::Request<B>) -> Result<Self, Failure>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let name = parts.uri.path().strip_prefix('/').unwrap_or_default();
        let method = caller.door.handlers.method(MethodId::of(name));
        let Some(method) = method.filter(|method| method.name() == name) else {
            return Err(refuse(Reason::UnknownMethod, format!("the server has no method {name}")));
        };
        // While it drains, calls still come on connections whose clients have not been told yet: GOAWAY
        // promises that those below its last stream run (RFC 9113 §6.8).
        if *caller.door.stage.borrow() == Stage::Closed {
            return Err(refuse(Reason::Draining, "the server is draining"));
        }
        let Ok(permit) = caller.door.calls.clone().try_acquire_owned() else {
            return Err(refuse(Reason::Overloaded, "too many calls at once"));
        };
        let encodings = Encodings::of(&parts.headers)?;
        let deadline = words::timeout_from(&parts.headers)
            .filter(|timeout| *timeout < FAR)
            .map(|timeout| Instant::now() + timeout);
        let mut metadata = words::metadata_of(&MetadataMap::from_headers(parts.headers))
            .map_err(|error| refuse(Reason::Malformed, error.to_string()))?;
        if encodings.request.is_some() {
            // For handlers that want to know; too much metadata leaves it out.
            let _ = metadata.insert("grpc-encoding", "gzip");
        }
        let peer = caller.peer.clone();
        let mut context = CallContext { peer, metadata, ..CallContext::default() };
        caller.door.handlers.admit(method, &mut context).map_err(|answer| failure(&answer))?;
        let CallContext { peer, metadata, .. } = context;
        let intake = Intake::new(&caller.door.budget);
        let body = Watched::new(body, intake.clone());
        let largest = usize::try_from(caller.door.limits.message).unwrap_or(usize::MAX);
        let requests = Streaming::new_request(RawCodec, body, encodings.request, Some(largest));
        Ok(Self { caller, method, peer, metadata, deadline, requests, intake, encodings, permit })
    }

    async fn answer(self) -> http::Response<Body> {
        let answered = match self.method.shape() {
            Shape::Unary => self.unary().await,
            _ => self.stream().await,
        };
        answered.unwrap_or_else(Failure::into_http)
    }

    // --- unary ---------------------------------------------------------------------------------

    async fn unary(mut self) -> Result<http::Response<Body>, Failure> {
        let (method, deadline, encodings) = (self.method, self.deadline, self.encodings);
        let key = self.key()?;
        let request = until(deadline, self.only_message()).await;
        let request = request.unwrap_or_else(|| {
            Err(refuse(Reason::Deadline, "the deadline passed before the request was here"))
        })?;
        let call = Call::new(Encoded::from_body(method.id(), request), self.context());
        let ended = match key {
            Some(key) if !self.caller.door.handlers.know_ids() => self.run_once(call, &key).await?,
            _ => {
                let place = self.place(&call).await;
                self.run(call, place.map_err(|why| words::not_executed_to(&why))?)
            }
        };
        let ended = until(deadline, ended).await;
        respond(ended.ok_or_else(|| late(method))??, encodings)
    }

    /// The id that the caller has given its call.
    ///
    /// # Errors
    /// If it cannot be one, or the method takes none.
    fn key(&self) -> Result<Option<String>, Failure> {
        let Some(key) = self.metadata.get(CALL_ID) else { return Ok(None) };
        let Some(key) = key_of(key) else {
            let why = format!("{CALL_ID} is 1 to {LONGEST_KEY} visible ASCII characters");
            return Err(refuse(Reason::Malformed, why));
        };
        if self.method.shape() != Shape::Unary {
            let why = format!("{} streams: {CALL_ID} is for unary methods", self.method);
            return Err(refuse(Reason::Malformed, why));
        }
        Ok(self.method.takes_slot().then(|| key.to_owned()))
    }

    /// Reads the request, and that no other follows.
    async fn only_message(&mut self) -> Result<Bytes, Failure> {
        let message = self.requests.message().await.map_err(unread)?;
        let more = match &message {
            Some(_) => self.requests.message().await.map_err(unread)?.is_some(),
            None => false,
        };
        if self.intake.is_broken() {
            return Err(refuse(Reason::Cancelled, "the request broke off"));
        }
        self.intake.release();
        match message {
            Some(message) if !more => Ok(message),
            Some(_) => Err(refuse(Reason::Malformed, "more than one message in the request")),
            None => Err(refuse(Reason::Malformed, "no message in the request")),
        }
    }

    /// Waits for a place among the handlers, within the deadline.
    fn place(
        &self,
        call: &Call<Encoded>,
    ) -> impl Future<Output = Result<Box<dyn Place>, NotExecuted>> + Send + use<> {
        let (handlers, deadline) = (&self.caller.door.handlers, self.deadline);
        let placing = handlers.place(self.method, call.context(), call.message().body.len());
        async move {
            let passed = "its deadline passed in the server's queue";
            let placed = until(deadline, placing).await;
            placed.unwrap_or_else(|| Err(NotExecuted::because(Reason::Deadline, passed)))
        }
    }

    /// Starts the handler. A call with side effects runs to its end, whatever becomes of its caller.
    fn run(self, call: Call<Encoded>, place: Box<dyn Place>) -> Running {
        let (method, handlers) = (self.method, self.caller.door.handlers.clone());
        let (done, ended) = oneshot::channel();
        let permit = self.permit;
        let task = self.caller.door.spawn(async move {
            let ended = handle(&*handlers, method, call, place).await;
            // Nobody waits: it has ended all the same.
            let _ = done.send(Arc::new(ended));
            drop(permit);
        });
        let dropped = (method.semantics() == Semantics::Read).then(|| AbortOnDrop(task));
        Box::pin(async move {
            let _dropped = dropped;
            ended.await.map_err(|_| stopped())
        })
    }

    /// Begins the call unless it has begun before.
    async fn run_once(self, call: Call<Encoded>, key: &str) -> Result<Running, Failure> {
        let door = self.caller.door.clone();
        let (account, address) = (self.peer.key_account(), self.peer.address);
        let address = address.map(|address| address.ip());
        let now = door.handlers.now();
        let (done, copies) = watch::channel(None);
        let digest = call.message().digest;
        let begun = door.keys().begin(now, account, address, key, digest, copies);
        match begun {
            Begin::Run(ticket) => Ok(self.run_keyed(call, ticket, done).await),
            Begin::Known(ended) => {
                door.handlers.copied(&self.metadata);
                Ok(Box::pin(std::future::ready(Ok(ended))))
            }
            Begin::Wait(done) => {
                door.handlers.copied(&self.metadata);
                Ok(Box::pin(end_of(done)))
            }
            Begin::Other => Err(refuse(
                Reason::FalseRetry,
                format!("this {CALL_ID} is taken by another request"),
            )),
            Begin::Full => {
                Err(refuse(Reason::Overloaded, "too many calls with ids are remembered"))
            }
        }
    }

    /// Runs a call with an id when there is a place for it, whatever becomes of its caller: copies of it
    /// may wait here, too. Returns when it has begun, or never will.
    async fn run_keyed(
        self,
        call: Call<Encoded>,
        ticket: Ticket,
        copies: watch::Sender<Kept>,
    ) -> Running {
        let (method, door, placing) = (self.method, self.caller.door.clone(), self.place(&call));
        let (begins, begun) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let permit = self.permit;
        self.caller.door.spawn(async move {
            // Kept to the end by a call that does not begin: who waits finds what became of it.
            let mut begins = Some(begins);
            let ended = Arc::new(match placing.await {
                Ok(place) => {
                    drop(begins.take());
                    handle(&*door.handlers, method, call, place).await
                }
                Err(why) => Ended::of(Answer::NotExecuted(why)),
            });
            door.keys().finish(door.handlers.now(), ticket, &ended);
            // Who waits gets the whole reply.
            copies.send_replace(Some(ended.clone()));
            // Nobody waits: it has ended all the same.
            let _ = done.send(ended);
            drop((begins, permit));
        });
        // Nothing is ever sent: it is dropped.
        let _ = begun.await;
        Box::pin(async move { ended.await.map_err(|_| stopped()) })
    }

    fn context(&self) -> CallContext {
        let handlers = &self.caller.door.handlers;
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        CallContext {
            id: None,
            peer: self.peer.clone(),
            metadata: self.metadata.clone(),
            deadline: self.deadline.map(|at| handlers.now() + left(at)),
            ..CallContext::default()
        }
    }

    // --- streams -------------------------------------------------------------------------------

    async fn stream(mut self) -> Result<http::Response<Body>, Failure> {
        self.key()?;
        let may = self.caller.door.handlers.may_begin_stream(self.method, &self.metadata);
        may.map_err(|why| words::not_executed_to(&why))?;
        let (method, shape, deadline) = (self.method, self.method.shape(), self.deadline);
        let request = if shape.client_streams() {
            Encoded::from_rope(method.id(), Rope::default())
        } else {
            let request = until(deadline, self.only_message()).await;
            let late =
                || refuse(Reason::Deadline, "the deadline passed before the request was here");
            Encoded::from_body(method.id(), request.ok_or_else(late)??)
        };
        let call = Call::new(request, self.context());
        let Self { caller, requests, intake, encodings, permit, .. } = self;
        let Inner { limits, handlers, .. } = &*caller.door;
        let outlet = Arc::new(Outlet::new(limits.stream_window, limits.message));
        let port = Arc::new(DoorPort {
            handlers: handlers.clone(),
            method: method.id(),
            requests: shape.client_streams().then(|| Mutex::new(requests)),
            intake,
            outlet: outlet.clone(),
        });
        let kind = RequestKind::Stream(shape);
        let started = handlers.start(kind, method.id(), call, Some(port));
        let handler = started.map_err(|answer| failure(&answer))?;
        let end = outlet.clone();
        let work = async move {
            end.end(handler.await);
            drop(permit);
        };
        let task = AbortOnDrop(caller.door.spawn(work));
        let sleep = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let mut replies =
            OutletStream { outlet, sleep, task, single: !shape.server_streams(), last: None };
        let early = std::future::poll_fn(|cx| replies.poll_early(cx)).await;
        match std::future::poll_fn(|cx| replies.poll_first(cx)).await {
            Some(Err(mut failed)) if failed.code() != tonic::Code::Ok => {
                let _ = words::headers_of(&early.metadata, failed.metadata_mut());
                Err(failed)
            }
            first => Ok(response(early, encodings, Ahead { first: Some(first), rest: replies })),
        }
    }
}

/// The end of a unary call that is under way.
type Running = Pin<Box<dyn Future<Output = Result<Arc<Ended>, Failure>> + Send>>;

/// Runs a handler in its place.
async fn handle(
    handlers: &dyn Handlers,
    method: &Method,
    call: Call<Encoded>,
    place: Box<dyn Place>,
) -> Ended {
    match handlers.start(RequestKind::Numbered, method.id(), call, None) {
        Ok(handler) => {
            let ended = handler.await;
            place.answered();
            ended
        }
        Err(answer) => Ended::of(answer),
    }
}

/// The end of a call that another one is a copy of.
async fn end_of(mut done: Copies) -> Result<Arc<Ended>, Failure> {
    let ended = done.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
    ended.ok_or_else(stopped)
}

fn stopped() -> Failure {
    words::executing(tonic::Code::Unavailable, "the server stopped while the call was executing")
}

/// Ends the task when it is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a handler that streams sends, as the body of a response.
struct OutletStream {
    outlet: Arc<Outlet>,
    /// Until the deadline.
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    task: AbortOnDrop,
    /// Whether the handler's answer is the one message of the stream.
    single: bool,
    /// The trailers, when the reply went before.
    last: Option<Failure>,
}

impl OutletStream {
    fn poll_deadline(&mut self, cx: &mut Context<'_>) {
        if self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
            self.sleep = None;
            self.task.0.abort();
            let passed = Status::new(Code::DeadlineExceeded, "the deadline has passed");
            self.outlet.end(Ended::of(Answer::Status(passed)));
        }
    }

    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Early> {
        self.poll_deadline(cx);
        self.outlet.poll_early(cx)
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Rope, Failure>>> {
        Pin::new(self).poll_next(cx)
    }
}

impl Stream for OutletStream {
    type Item = Result<Rope, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(last) = self.last.take() {
            return Poll::Ready(Some(Err(last)));
        }
        self.poll_deadline(cx);
        let Poll::Ready(next) = self.outlet.poll_next(cx) else { return Poll::Pending };
        Poll::Ready(Some(match next {
            Next::Message(message) => Ok(message),
            Next::End(Ended { answer: Answer::Reply(reply, metadata), .. }) => {
                let trailers = trailers(&metadata);
                if self.single {
                    self.last = Some(trailers);
                    Ok(reply.body)
                } else {
                    Err(trailers)
                }
            }
            Next::End(ended) => Err(end_of_failed(&ended)),
        }))
    }
}

/// A stream whose first item was taken.
struct Ahead<S> {
    first: Option<Option<Result<Rope, Failure>>>,
    rest: S,
}

impl<S: Stream<Item = Result<Rope, Failure>> + Unpin> Stream for Ahead<S> {
    type Item = Result<Rope, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.first.take() {
            Some(first) => Poll::Ready(first),
            None => Pin::new(&mut self.rest).poll_next(cx),
        }
    }
}

// --- responses -----------------------------------------------------------------------------------

impl Encodings {
    /// # Errors
    /// If messages come compressed in a way that is not known here.
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let text = |key: &str| headers.get(key).and_then(|value| value.to_str().ok());
        let request = match text("grpc-encoding") {
            None | Some("identity") => None,
            Some("gzip") => Some(CompressionEncoding::Gzip),
            Some(other) => {
                let why = format!("messages compressed by {other} are not read here; gzip is");
                return Err(refuse(Reason::UnknownMethod, why));
            }
        };
        let accepted = text("grpc-accept-encoding").unwrap_or_default();
        let accepted = accepted.split(',').any(|encoding| encoding.trim() == "gzip");
        Ok(Self { request, accepted })
    }

    /// How replies are compressed: as the request was, unless the handler says otherwise.
    fn reply(self, wanted: Option<bool>) -> Option<CompressionEncoding> {
        let compress = self.accepted && wanted.unwrap_or(self.request.is_some());
        compress.then_some(CompressionEncoding::Gzip)
    }
}

fn respond(ended: Arc<Ended>, encodings: Encodings) -> Result<http::Response<Body>, Failure> {
    let ended = Arc::unwrap_or_clone(ended);
    match ended.answer {
        Answer::Reply(reply, metadata) => {
            let items = [Ok(reply.body), Err(trailers(&metadata))];
            Ok(response(ended.early, encodings, tokio_stream::iter(items)))
        }
        _ => {
            let mut failed = end_of_failed(&ended);
            let _ = words::headers_of(&ended.early.metadata, failed.metadata_mut());
            Err(failed)
        }
    }
}

fn response<S>(early: Early, encodings: Encodings, messages: S) -> http::Response<Body>
where
    S: Stream<Item = Result<Rope, Failure>> + Send + 'static,
{
    let encoding = encodings.reply(early.compress);
    let mut map = MetadataMap::new();
    // What gRPC cannot carry stays behind: the reply is worth more.
    let _ = words::headers_of(&early.metadata, &mut map);
    let inherit = SingleMessageCompressionOverride::Inherit;
    let body = EncodeBody::new_server(RawCodec, messages, encoding, inherit, None);
    let mut response = http::Response::new(Body::new(body));
    *response.headers_mut() = map.into_headers();
    let content = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    if encoding.is_some() {
        let gzip = http::HeaderValue::from_static("gzip");
        response.headers_mut().insert("grpc-encoding", gzip);
    }
    response
}

/// The end of a call that went well.
fn trailers(metadata: &Metadata) -> Failure {
    let mut map = MetadataMap::new();
    let _ = words::headers_of(metadata, &mut map);
    tonic::Status::with_metadata(tonic::Code::Ok, "", map)
}

/// The end of a call that began and returned no reply.
fn end_of_failed(ended: &Ended) -> Failure {
    match &ended.answer {
        Answer::Status(status) if ended.unknown => words::status_to(status),
        answer => failure(answer),
    }
}

/// The end of a call that returned no reply.
fn failure(answer: &Answer) -> Failure {
    match answer {
        Answer::Status(status) if status.code() != Code::Ok => words::executed_to(status),
        Answer::NotExecuted(why) => words::not_executed_to(why),
        // A handler that fails with OK.
        _ => tonic::Status::internal("the handler failed without saying how"),
    }
}

fn refuse(reason: Reason, why: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    words::not_executed_to(&NotExecuted::because(reason, why))
}

/// The request could not be read, so that no handler was started.
fn unread(mut status: Failure) -> Failure {
    let reason = match status.code() {
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Reason::TooLarge,
        _ => Reason::Malformed,
    };
    status.metadata_mut().insert(NOT_EXECUTED, reason.to_wire().into());
    status
}

/// The deadline of a unary call has passed. A read ends with it.
fn late(method: &Method) -> Failure {
    let code = tonic::Code::DeadlineExceeded;
    if method.semantics() == Semantics::Read {
        return tonic::Status::new(code, "the deadline has passed");
    }
    words::executing(code, "the deadline has passed; the call goes on to its end")
}

/// The output, or `None` if the deadline passes before.
async fn until<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        None => Some(future.await),
        Some(at) => tokio::time::timeout_at(at, pin!(future)).await.ok(),
    }
}

impl Inner {
    pub(super) fn keys(&self) -> std::sync::MutexGuard<'_, Keys<Copies, Arc<Ended>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
