//! Streams as stubs and handlers see them: senders that wait for room, and readers.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::{IntoFuture, Ready, poll_fn, ready};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll};

use prost::Message;

use super::client::{
    Channel, IncomingReply, MOCKED, OutgoingCall, decode_reply, no_number, not_sent,
};
use super::encoded::{DecodeError, Encoded};
use super::metadata::{Metadata, MetadataError};
use super::method::{Method, MethodId};
use super::outcome::{CallError, Outcome, text};
use super::status::{Code, Status};
use crate::session::CallId;
use crate::time::Duration;

/// One end of a stream: implemented by whatever carries it, for its client and for its handler.
///
/// Of each kind of waiting one task at a time is woken: the one that polled last.
pub trait Port: Send + Sync + 'static {
    /// The next message from the other side; `None` when no more come.
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>>;

    /// Sends a message once there is room for it, taking it out of `message`.
    ///
    /// # Errors
    /// If it is not taken at all.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>>;

    /// At the client: no further message is sent.
    fn end(&self);

    /// At the client: how the call ended, told once. Messages that came before can be taken still.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>>;

    /// At the client: nobody wants the call any more. Its handler is stopped. Without effect once it
    /// has ended.
    fn cancel(&self);
}

/// Why a stream took no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The call has ended, or its messages were ended before: its outcome says more.
    Over,
    /// The message has more than this many bytes.
    TooLarge(u64),
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over => f.write_str("the stream is over: the outcome of its call says why"),
            Self::TooLarge(limit) => {
                write!(f, "the message is larger than {limit} bytes: raise limits.message")
            }
        }
    }
}

impl core::error::Error for NotTaken {}

impl From<NotTaken> for Status {
    fn from(why: NotTaken) -> Self {
        let code = match why {
            NotTaken::Over => Code::Cancelled,
            NotTaken::TooLarge(_) => Code::ResourceExhausted,
        };
        Self::new(code, text(format_args!("{why}")))
    }
}

async fn send<M: Message>(port: &dyn Port, id: MethodId, message: &M) -> Result<(), NotTaken> {
    let mut message = Some(Encoded::new(id, message));
    poll_fn(|cx| port.poll_send(cx, &mut message)).await
}

// --- at the handler ------------------------------------------------------------------------------

/// The messages of a client, for a handler: in order, each once.
///
/// A handler that takes none stalls its client, and nobody else.
pub struct Requests<Q> {
    port: Arc<dyn Port>,
    method: MethodId,
    kind: PhantomData<fn() -> Q>,
}

impl<Q: Message + Default> Requests<Q> {
    /// The messages at this port; for generated code.
    pub fn new(port: Arc<dyn Port>, method: MethodId) -> Self {
        Self { port, method, kind: PhantomData }
    }

    /// The next message; `None` when the client has sent its last one.
    ///
    /// Cancel safe: a message is taken only if it is returned.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn message(&mut self) -> Result<Option<Q>, Status> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// As [`message`](Self::message), to be polled.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Q>, Status>> {
        let Poll::Ready(message) = self.port.poll_take(cx) else { return Poll::Pending };
        let message = message.map(|message| message.into_message(self.method)).transpose();
        Poll::Ready(message.map_err(|error| {
            let code = match error {
                DecodeError::Digest => Code::DataLoss,
                DecodeError::Malformed(_) => Code::InvalidArgument,
            };
            Status::new(code, text(format_args!("a message of the stream: {error}")))
        }))
    }
}

impl<Q> fmt::Debug for Requests<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

/// Sends the replies of a handler that streams them.
pub struct ReplySender<R> {
    port: Arc<dyn Port>,
    method: MethodId,
    kind: PhantomData<fn(R)>,
}

impl<R: Message> ReplySender<R> {
    /// Sends at this port; for generated code.
    pub fn new(port: Arc<dyn Port>, method: MethodId) -> Self {
        Self { port, method, kind: PhantomData }
    }

    /// Sends a message, waiting while the client reads too slowly. It is on its way when this returns;
    /// whether it has arrived is not known.
    ///
    /// # Errors
    /// If the stream is over, or the message is too large. Both become a [`Status`] by `?`.
    pub async fn send(&mut self, message: &R) -> Result<(), NotTaken> {
        send(&*self.port, self.method, message).await
    }
}

impl<R> fmt::Debug for ReplySender<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplySender")
    }
}

// --- at the client -------------------------------------------------------------------------------

/// A call of a method that streams: configure it, then await it, which begins it. Awaiting it takes no
/// time: whether a server can be reached shows when the stream is used.
#[must_use = "a stream begins when it is awaited"]
pub struct StreamCall<S> {
    channel: Option<Channel>,
    call: Option<OutgoingCall>,
    /// What a mock has made of it.
    mocked: Option<Result<Arc<dyn Port>, CallError>>,
    invalid: Option<MetadataError>,
    kind: PhantomData<fn() -> S>,
}

/// What a stream is at its client, once it has begun.
pub trait StreamKind: Sized {
    /// Of the stream at this port.
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self;
}

impl Channel {
    /// A call of `method` that streams messages of the server.
    pub fn server_streaming<Q: Message, R>(
        &self,
        method: &Method,
        request: &Q,
    ) -> StreamCall<Replies<R>> {
        self.raw_streaming(method, Encoded::new(method.id(), request))
    }

    /// A call of `method` that streams messages of this client.
    pub fn client_streaming<Q, R>(&self, method: &Method) -> StreamCall<ClientStream<Q, R>> {
        self.raw_streaming(method, Encoded::from_rope(method.id(), Default::default()))
    }

    /// A call of `method` that streams messages both ways.
    pub fn bidi_streaming<Q, R>(&self, method: &Method) -> StreamCall<BidiStream<Q, R>> {
        self.raw_streaming(method, Encoded::from_rope(method.id(), Default::default()))
    }

    /// A call of `method` that streams, with a request that is encoded already: an empty one if the
    /// client streams.
    pub fn raw_streaming<S>(&self, method: &Method, request: Encoded) -> StreamCall<S> {
        let call = OutgoingCall {
            method: method.clone(),
            request,
            metadata: Metadata::new(),
            deadline: None,
            wait_for_ready: None,
            reserved: None,
            max_staleness: None,
        };
        StreamCall {
            channel: Some(self.clone()),
            call: Some(call),
            mocked: None,
            invalid: None,
            kind: PhantomData,
        }
    }
}

impl<S> StreamCall<S> {
    /// A call that fails when it is awaited: for mocks of generated clients.
    pub fn failed(error: CallError) -> Self {
        Self::mocked(Err(error))
    }

    fn mocked(port: Result<Arc<dyn Port>, CallError>) -> Self {
        let (channel, call, invalid) = (None, None, None);
        Self { channel, call, mocked: Some(port), invalid, kind: PhantomData }
    }

    /// How long the stream may be open. Then its handler is stopped.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        if let Some(call) = &mut self.call {
            call.deadline = Some(deadline);
        }
        self
    }

    /// Waits for a server to become reachable (until the deadline) instead of failing.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        if let Some(call) = &mut self.call {
            call.wait_for_ready = Some(wait);
        }
        self
    }

    /// Adds metadata. An invalid pair makes the call fail, not executed, when it is awaited.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        if let Some(call) = &mut self.call {
            self.invalid = self.invalid.or(call.metadata.insert(key, value).err());
        }
        self
    }

    /// The id of the call, known before anything is sent. Waits for a session and a free slot.
    ///
    /// # Errors
    /// If no server can be reached.
    pub async fn id(&mut self) -> Result<CallId, CallError> {
        let (Some(channel), Some(call)) = (&self.channel, &mut self.call) else {
            return Err(no_number("a mocked call", "it was never sent"));
        };
        if let Some(id) = call.reserved {
            return Ok(id);
        }
        let id = channel.0.reserve(&call.method).await?;
        call.reserved = Some(id);
        Ok(id)
    }

    /// Begins the call and hands out its port.
    ///
    /// # Errors
    /// If it fails at once.
    pub fn begin(mut self) -> Result<Arc<dyn Port>, CallError> {
        if let Some(mocked) = self.mocked.take() {
            return mocked;
        }
        if let (Some(error), Some(call)) = (self.invalid, &self.call) {
            return Err(not_sent(call.method.name(), error));
        }
        match (&self.channel, self.call.take()) {
            (Some(channel), Some(call)) => channel.0.open(call),
            _ => Err(no_number("a mocked call", "it was never sent")),
        }
    }
}

impl<R: Message + Default> StreamCall<Replies<R>> {
    /// A call that has its replies and its end already: for mocks of generated clients.
    pub fn resolved(messages: impl IntoIterator<Item = R>, end: Result<(), CallError>) -> Self {
        let encode = |message: R| Encoded::new(MOCKED.id(), &message);
        let messages = messages.into_iter().map(encode).collect();
        Self::mocked(Ok(Arc::new(Canned { messages, next: AtomicUsize::new(0), end })))
    }
}

impl<S: StreamKind> IntoFuture for StreamCall<S> {
    type Output = Result<S, CallError>;
    type IntoFuture = Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let method = self.call.as_ref().map_or(MOCKED, |call| call.method.clone());
        ready(self.begin().map(|port| S::begun(port, &method)))
    }
}

impl<S> Drop for StreamCall<S> {
    fn drop(&mut self) {
        let id = self.call.as_ref().and_then(|call| call.reserved);
        if let (Some(id), Some(channel)) = (id, &self.channel) {
            channel.0.abandon(id);
        }
    }
}

impl<S> fmt::Debug for StreamCall<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.call {
            Some(call) => write!(f, "StreamCall({})", call.method),
            None => f.write_str("StreamCall"),
        }
    }
}

/// What a client has of a stream that has begun.
struct Begun {
    port: Arc<dyn Port>,
    method: Method,
}

impl Begun {
    /// The end of the call, decoded.
    fn poll_end<R: Message + Default>(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Finished<R>, CallError>> {
        let Poll::Ready(end) = self.port.poll_end(cx) else { return Poll::Pending };
        Poll::Ready(end.and_then(|IncomingReply { reply, metadata, stream }| {
            let taken = stream.map_or(0, |end| end.taken);
            let reply = decode_reply(&self.method, None, reply);
            let reply = reply.map_err(|error| error.with_taken(Some(taken)))?;
            Ok(Finished { reply, taken, metadata })
        }))
    }

    fn poll_message<R: Message + Default>(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<R>, CallError>> {
        let Poll::Ready(message) = self.port.poll_take(cx) else { return Poll::Pending };
        let Some(message) = message else { return Poll::Ready(Ok(None)) };
        Poll::Ready(message.into_message(self.method.id()).map(Some).map_err(|error| {
            self.port.cancel();
            let why = text(format_args!("a message of the stream cannot be read: {error}"));
            let outcome = Outcome::Executed(Status::new(Code::DataLoss, why));
            CallError::new(String::from(self.method.name()), outcome)
        }))
    }
}

/// A call whose client streams: send messages, then [`finish`](Self::finish).
///
/// Dropping it before that cancels the call: its handler is stopped, and never takes what was sent for
/// the whole.
#[must_use = "a stream that is dropped is cancelled"]
pub struct ClientStream<Q, R> {
    requests: RequestSender<Q>,
    kind: PhantomData<fn() -> R>,
}

/// How a stream ended that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished<R> {
    /// The reply.
    pub reply: R,
    /// How many of the client's messages the handler took.
    pub taken: u64,
    /// Metadata that came with the reply.
    pub metadata: Metadata,
}

impl<Q: Message, R: Message + Default> ClientStream<Q, R> {
    /// Sends a message, waiting while the server takes them too slowly. It is on its way when this
    /// returns; [`finish`](Self::finish) tells how many were taken.
    ///
    /// # Errors
    /// If the call has ended: [`finish`](Self::finish) says how. Or the message is too large.
    pub async fn send(&mut self, message: &Q) -> Result<(), NotTaken> {
        self.requests.send(message).await
    }

    /// Says that no further message comes, and waits for the reply.
    ///
    /// # Errors
    /// [`CallError`] says whether the call ran, and [`CallError::taken`] how many messages the handler
    /// took.
    pub async fn finish(mut self) -> Result<Finished<R>, CallError> {
        self.requests.end();
        let guard = Cancelling(&self.requests.begun);
        let end = poll_fn(|cx| guard.0.poll_end(cx)).await;
        core::mem::forget(guard);
        end
    }
}

/// Cancels the call when it is dropped.
struct Cancelling<'a>(&'a Begun);

impl Drop for Cancelling<'_> {
    fn drop(&mut self) {
        self.0.port.cancel();
    }
}

impl<Q, R> StreamKind for ClientStream<Q, R> {
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self {
        Self { requests: RequestSender::begun(port, method), kind: PhantomData }
    }
}

impl<Q, R> fmt::Debug for ClientStream<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientStream({})", self.requests.begun.method)
    }
}

/// The replies of a server that streams.
///
/// Dropping it before its end cancels the call: the handler is stopped.
#[must_use = "a stream that is dropped is cancelled"]
pub struct Replies<R> {
    begun: Begun,
    over: bool,
    kind: PhantomData<fn() -> R>,
}

impl<R: Message + Default> Replies<R> {
    /// The next message: in order, each once. `None` when the handler has ended well and all of its
    /// messages were returned. One that nobody asks for stalls the handler, and nobody else.
    ///
    /// Cancel safe: a message is taken only if it is returned.
    ///
    /// # Errors
    /// How the call ended, if not well; told once, after the messages that came before.
    pub async fn message(&mut self) -> Result<Option<R>, CallError> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// As [`message`](Self::message), to be polled.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<R>, CallError>> {
        if self.over {
            return Poll::Ready(Ok(None));
        }
        let Poll::Ready(message) = self.begun.poll_message(cx) else { return Poll::Pending };
        if !matches!(message, Ok(None)) {
            self.over = message.is_err();
            return Poll::Ready(message);
        }
        let Poll::Ready(end) = self.begun.port.poll_end(cx) else { return Poll::Pending };
        self.over = true;
        Poll::Ready(end.map(|_| None))
    }
}

impl<R> StreamKind for Replies<R> {
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self {
        let begun = Begun { port, method: method.clone() };
        Self { begun, over: false, kind: PhantomData }
    }
}

impl<R> Drop for Replies<R> {
    fn drop(&mut self) {
        if !self.over {
            self.begun.port.cancel();
        }
    }
}

impl<R> fmt::Debug for Replies<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replies({})", self.begun.method)
    }
}

/// Sends the messages of a client that streams. Dropping it before [`end`](Self::end) cancels the call.
#[must_use = "a stream that is dropped is cancelled"]
pub struct RequestSender<Q> {
    begun: Begun,
    ended: bool,
    kind: PhantomData<fn(Q)>,
}

impl<Q> RequestSender<Q> {
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self {
        let begun = Begun { port, method: method.clone() };
        Self { begun, ended: false, kind: PhantomData }
    }

    /// Says that no further message comes.
    pub fn end(&mut self) {
        if !core::mem::replace(&mut self.ended, true) {
            self.begun.port.end();
        }
    }
}

impl<Q: Message> RequestSender<Q> {
    /// Sends a message, waiting while the server takes them too slowly. It is on its way when this
    /// returns.
    ///
    /// # Errors
    /// If the call has ended: its replies say how. Or the message is too large.
    pub async fn send(&mut self, message: &Q) -> Result<(), NotTaken> {
        send(&*self.begun.port, self.begun.method.id(), message).await
    }
}

impl<Q> Drop for RequestSender<Q> {
    fn drop(&mut self) {
        if !self.ended {
            self.begun.port.cancel();
        }
    }
}

impl<Q> fmt::Debug for RequestSender<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestSender({})", self.begun.method)
    }
}

/// A call that streams both ways. Dropping it before its end cancels it.
#[must_use = "a stream that is dropped is cancelled"]
pub struct BidiStream<Q, R> {
    requests: RequestSender<Q>,
    replies: Replies<R>,
}

impl<Q: Message, R: Message + Default> BidiStream<Q, R> {
    /// See [`RequestSender::send`].
    ///
    /// # Errors
    /// If the call has ended: [`message`](Self::message) says how. Or the message is too large.
    pub async fn send(&mut self, message: &Q) -> Result<(), NotTaken> {
        self.requests.send(message).await
    }

    /// Says that no further message comes. Replies go on.
    pub fn end(&mut self) {
        self.requests.end();
    }

    /// See [`Replies::message`].
    ///
    /// # Errors
    /// How the call ended, if not well; told once, after the messages that came before.
    pub async fn message(&mut self) -> Result<Option<R>, CallError> {
        self.replies.message().await
    }

    /// Both halves, for two tasks. Dropping either before its end cancels the call.
    pub fn split(self) -> (RequestSender<Q>, Replies<R>) {
        (self.requests, self.replies)
    }
}

impl<Q, R> StreamKind for BidiStream<Q, R> {
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self {
        let requests = RequestSender::begun(Arc::clone(&port), method);
        Self { requests, replies: Replies::begun(port, method) }
    }
}

impl<Q, R> fmt::Debug for BidiStream<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BidiStream({})", self.requests.begun.method)
    }
}

/// The replies of a mock.
struct Canned {
    messages: Vec<Encoded>,
    next: AtomicUsize,
    end: Result<(), CallError>,
}

impl Port for Canned {
    fn poll_take(&self, _: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(self.messages.get(next).cloned())
    }

    fn poll_send(
        &self,
        _: &mut Context<'_>,
        _: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        Poll::Ready(Err(NotTaken::Over))
    }

    fn end(&self) {}

    fn poll_end(&self, _: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        Poll::Ready(self.end.clone().map(|()| IncomingReply::default()))
    }

    fn cancel(&self) {}
}
