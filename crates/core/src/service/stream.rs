//! Streams as stubs and handlers see them: senders that wait for room, and readers.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::{self, Vec};
use core::fmt;
use core::future::{IntoFuture, Ready, poll_fn, ready};
use core::task::{Context, Poll};

use prost::Message;

use super::client::{
    Channel, IncomingReply, MOCKED, OutgoingCall, decode_reply, no_number, not_encoded, not_sent,
};
use super::codec::{Codec, Decode, Encode, Prost, decoder, encoder};
use super::encoded::{DecodeError, Encoded};
use super::metadata::{Metadata, MetadataError};
use super::method::{Method, MethodId};
use super::outcome::{CallError, Outcome, text};
use super::priority::{PRIORITY, Priority};
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
    /// The message has no encoded form.
    Unencodable,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over => f.write_str("the stream is over: the outcome of its call says why"),
            Self::TooLarge(limit) => {
                write!(f, "the message is larger than {limit} bytes: raise limits.message")
            }
            Self::Unencodable => f.write_str("the message has a value that its codec cannot write"),
        }
    }
}

impl core::error::Error for NotTaken {}

impl From<NotTaken> for Status {
    fn from(why: NotTaken) -> Self {
        let code = match why {
            NotTaken::Over => Code::Cancelled,
            NotTaken::TooLarge(_) => Code::ResourceExhausted,
            NotTaken::Unencodable => Code::Internal,
        };
        Self::new(code, text(format_args!("{why}")))
    }
}

async fn send(port: &dyn Port, message: Encoded) -> Result<(), NotTaken> {
    let mut message = Some(message);
    poll_fn(|cx| port.poll_send(cx, &mut message)).await
}

// --- at the handler ------------------------------------------------------------------------------

/// The messages of a client, for a handler: in order, each once.
///
/// A handler that takes none stalls its client, and nobody else.
pub struct Requests<Q> {
    port: Arc<dyn Port>,
    method: MethodId,
    decode: Decode<Q>,
}

impl<Q> Requests<Q> {
    /// The messages at this port; for generated code.
    pub fn new(port: Arc<dyn Port>, method: MethodId) -> Self
    where
        Q: Message + Default,
    {
        Self::with(Prost, port, method)
    }

    /// As [`new`](Self::new), of messages of this codec's.
    pub fn with<C: Codec<Q>>(_: C, port: Arc<dyn Port>, method: MethodId) -> Self {
        Self { port, method, decode: decoder::<C, Q>() }
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
        let message =
            message.map(|mut message| (self.decode)(&mut message, self.method)).transpose();
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
    encode: Encode<R>,
}

impl<R> ReplySender<R> {
    /// Sends at this port; for generated code.
    pub fn new(port: Arc<dyn Port>, method: MethodId) -> Self
    where
        R: Message + Default,
    {
        Self::with(Prost, port, method)
    }

    /// As [`new`](Self::new), of messages of this codec's.
    pub fn with<C: Codec<R>>(_: C, port: Arc<dyn Port>, method: MethodId) -> Self {
        Self { port, method, encode: encoder::<C, R>() }
    }

    /// Sends a message, waiting while the client reads too slowly. It is on its way when this returns;
    /// whether it has arrived is not known.
    ///
    /// # Errors
    /// If the stream is over, or the message is too large. Both become a [`Status`] by `?`.
    pub async fn send(&mut self, message: &R) -> Result<(), NotTaken> {
        let message = (self.encode)(self.method, message).map_err(|_| NotTaken::Unencodable)?;
        send(&*self.port, message).await
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
    /// Of a call that is never sent: what a mock has made of it, or why it cannot be.
    settled: Option<Box<Result<S, CallError>>>,
    invalid: Option<MetadataError>,
    begun: Start<S>,
}

/// Makes of a port what the stream is at its client.
type Start<S> = fn(Arc<dyn Port>, &Method) -> S;

/// What a stream is at its client, once it has begun.
pub trait StreamKind: Sized {
    /// Of the stream at this port.
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self;
}

impl Channel {
    /// A call of `method` that streams messages of the server.
    pub fn server_streaming<Q: Message, R: Message + Default>(
        &self,
        method: &Method,
        request: &Q,
    ) -> StreamCall<Replies<R>> {
        self.raw_streaming(method, Encoded::new(method.id(), request))
    }

    /// A call of `method` that streams messages of this client.
    pub fn client_streaming<Q: Message + Default, R: Message + Default>(
        &self,
        method: &Method,
    ) -> StreamCall<ClientStream<Q, R>> {
        self.client_streaming_with(Prost, method)
    }

    /// A call of `method` that streams messages both ways.
    pub fn bidi_streaming<Q: Message + Default, R: Message + Default>(
        &self,
        method: &Method,
    ) -> StreamCall<BidiStream<Q, R>> {
        self.bidi_streaming_with(Prost, method)
    }

    /// As [`server_streaming`](Self::server_streaming), with messages of this codec's. A request that
    /// cannot be encoded makes the call fail, not executed, when it is awaited.
    pub fn server_streaming_with<C: Codec<Q> + Codec<R>, Q, R>(
        &self,
        codec: C,
        method: &Method,
        request: &Q,
    ) -> StreamCall<Replies<R>> {
        match Encoded::with(codec, method.id(), request) {
            Ok(request) => self.streaming(method, request, Replies::at::<C>),
            Err(error) => StreamCall::failed(not_encoded(method.name(), &error)),
        }
    }

    /// As [`client_streaming`](Self::client_streaming), with messages of this codec's.
    pub fn client_streaming_with<C: Codec<Q> + Codec<R>, Q, R>(
        &self,
        _: C,
        method: &Method,
    ) -> StreamCall<ClientStream<Q, R>> {
        self.streaming(method, empty(method), ClientStream::at::<C>)
    }

    /// As [`bidi_streaming`](Self::bidi_streaming), with messages of this codec's.
    pub fn bidi_streaming_with<C: Codec<Q> + Codec<R>, Q, R>(
        &self,
        _: C,
        method: &Method,
    ) -> StreamCall<BidiStream<Q, R>> {
        self.streaming(method, empty(method), BidiStream::at::<C>)
    }

    /// A call of `method` that streams, with a request that is encoded already: an empty one if the
    /// client streams.
    pub fn raw_streaming<S: StreamKind>(&self, method: &Method, request: Encoded) -> StreamCall<S> {
        self.streaming(method, request, S::begun)
    }

    fn streaming<S>(&self, method: &Method, request: Encoded, begun: Start<S>) -> StreamCall<S> {
        let (channel, call) = (Some(self.clone()), Some(OutgoingCall::new(method, request)));
        StreamCall { channel, call, settled: None, invalid: None, begun }
    }
}

/// What a client sends that streams its messages.
fn empty(method: &Method) -> Encoded {
    Encoded::from_rope(method.id(), Default::default())
}

impl<S> StreamCall<S> {
    /// A call that fails when it is awaited: for mocks of generated clients.
    pub fn failed(error: CallError) -> Self {
        Self::settled(Err(error))
    }

    fn settled(result: Result<S, CallError>) -> Self {
        let (channel, call, invalid) = (None, None, None);
        let begun: Start<S> = |_, _| unreachable!("a call that is never sent has no port");
        Self { channel, call, settled: Some(Box::new(result)), invalid, begun }
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

    /// Says how much the call matters where a server cannot run all that it is asked for: sets the
    /// metadata [`PRIORITY`].
    pub fn priority(mut self, priority: Priority) -> Self {
        if let Some(call) = &mut self.call {
            let set = call.metadata.set(PRIORITY, priority.as_str());
            self.invalid = self.invalid.or(set.err());
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
    /// If it fails at once. A mocked call, which has no port, ends as never sent.
    pub fn begin(mut self) -> Result<Arc<dyn Port>, CallError> {
        if let Some(Err(error)) = self.settled.take().map(|settled| *settled) {
            return Err(error);
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

impl<R> StreamCall<Replies<R>> {
    /// A call that has its replies and its end already: for mocks of generated clients.
    pub fn resolved(messages: impl IntoIterator<Item = R>, end: Result<(), CallError>) -> Self {
        let messages = messages.into_iter().collect::<Vec<_>>().into_iter();
        let source = Source::Canned { messages, end };
        Self::settled(Ok(Replies { source, over: false }))
    }
}

impl<S> IntoFuture for StreamCall<S> {
    type Output = Result<S, CallError>;
    type IntoFuture = Ready<Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        if let Some(settled) = self.settled.take() {
            return ready(*settled);
        }
        let method = self.call.as_ref().map_or(MOCKED, |call| call.method.clone());
        let begun = self.begun;
        ready(self.begin().map(|port| begun(port, &method)))
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
    fn poll_end<R>(
        &self,
        cx: &mut Context<'_>,
        decode: Decode<R>,
    ) -> Poll<Result<Finished<R>, CallError>> {
        let Poll::Ready(end) = self.port.poll_end(cx) else { return Poll::Pending };
        Poll::Ready(end.and_then(|IncomingReply { mut reply, metadata, stream }| {
            let taken = stream.map_or(0, |end| end.taken);
            let reply = decode_reply(&self.method, None, &mut reply, decode);
            let reply = reply.map_err(|error| error.with_taken(Some(taken)))?;
            Ok(Finished { reply, taken, metadata })
        }))
    }

    fn poll_message<R>(
        &self,
        cx: &mut Context<'_>,
        decode: Decode<R>,
    ) -> Poll<Result<Option<R>, CallError>> {
        let Poll::Ready(message) = self.port.poll_take(cx) else { return Poll::Pending };
        let Some(mut message) = message else { return Poll::Ready(Ok(None)) };
        Poll::Ready(decode(&mut message, self.method.id()).map(Some).map_err(|error| {
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
    decode: Decode<R>,
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

impl<Q, R> ClientStream<Q, R> {
    fn at<C: Codec<Q> + Codec<R>>(port: Arc<dyn Port>, method: &Method) -> Self {
        Self { requests: RequestSender::at::<C>(port, method), decode: decoder::<C, R>() }
    }

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
        let end = poll_fn(|cx| guard.0.poll_end(cx, self.decode)).await;
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

impl<Q: Message + Default, R: Message + Default> StreamKind for ClientStream<Q, R> {
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self {
        Self::at::<Prost>(port, method)
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
    source: Source<R>,
    over: bool,
}

/// Where replies come from.
enum Source<R> {
    Port(Begun, Decode<R>),
    /// A mock.
    Canned {
        messages: vec::IntoIter<R>,
        end: Result<(), CallError>,
    },
}

impl<R> Replies<R> {
    fn at<C: Codec<R>>(port: Arc<dyn Port>, method: &Method) -> Self {
        let begun = Begun { port, method: method.clone() };
        Self { source: Source::Port(begun, decoder::<C, R>()), over: false }
    }

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
        let Poll::Ready(message) = self.source.poll_message(cx) else { return Poll::Pending };
        if !matches!(message, Ok(None)) {
            self.over = message.is_err();
            return Poll::Ready(message);
        }
        let Poll::Ready(end) = self.source.poll_end(cx) else { return Poll::Pending };
        self.over = true;
        Poll::Ready(end.map(|()| None))
    }
}

impl<R> Source<R> {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<R>, CallError>> {
        match self {
            Self::Port(begun, decode) => begun.poll_message(cx, *decode),
            Self::Canned { messages, .. } => Poll::Ready(Ok(messages.next())),
        }
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        match self {
            Self::Port(begun, _) => begun.port.poll_end(cx).map_ok(|_| ()),
            Self::Canned { end, .. } => Poll::Ready(end.clone()),
        }
    }
}

impl<R: Message + Default> StreamKind for Replies<R> {
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self {
        Self::at::<Prost>(port, method)
    }
}

impl<R> Drop for Replies<R> {
    fn drop(&mut self) {
        if let (Source::Port(begun, _), false) = (&self.source, self.over) {
            begun.port.cancel();
        }
    }
}

impl<R> fmt::Debug for Replies<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Port(begun, _) => write!(f, "Replies({})", begun.method),
            Source::Canned { .. } => write!(f, "Replies({MOCKED})"),
        }
    }
}

/// Sends the messages of a client that streams. Dropping it before [`end`](Self::end) cancels the call.
#[must_use = "a stream that is dropped is cancelled"]
pub struct RequestSender<Q> {
    begun: Begun,
    ended: bool,
    encode: Encode<Q>,
}

impl<Q> RequestSender<Q> {
    fn at<C: Codec<Q>>(port: Arc<dyn Port>, method: &Method) -> Self {
        let begun = Begun { port, method: method.clone() };
        Self { begun, ended: false, encode: encoder::<C, Q>() }
    }

    /// Says that no further message comes.
    pub fn end(&mut self) {
        if !core::mem::replace(&mut self.ended, true) {
            self.begun.port.end();
        }
    }
}

impl<Q> RequestSender<Q> {
    /// Sends a message, waiting while the server takes them too slowly. It is on its way when this
    /// returns.
    ///
    /// # Errors
    /// If the call has ended: its replies say how. Or the message is too large.
    pub async fn send(&mut self, message: &Q) -> Result<(), NotTaken> {
        let message = (self.encode)(self.begun.method.id(), message);
        send(&*self.begun.port, message.map_err(|_| NotTaken::Unencodable)?).await
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

impl<Q, R> BidiStream<Q, R> {
    fn at<C: Codec<Q> + Codec<R>>(port: Arc<dyn Port>, method: &Method) -> Self {
        let requests = RequestSender::at::<C>(Arc::clone(&port), method);
        Self { requests, replies: Replies::at::<C>(port, method) }
    }

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

impl<Q: Message + Default, R: Message + Default> StreamKind for BidiStream<Q, R> {
    fn begun(port: Arc<dyn Port>, method: &Method) -> Self {
        Self::at::<Prost>(port, method)
    }
}

impl<Q, R> fmt::Debug for BidiStream<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BidiStream({})", self.requests.begun.method)
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{BoxFuture, Caller};
    use super::super::method::{Semantics, Shape};
    use super::super::outcome::CallState;
    use super::*;

    const WATCH: Method = Method::new("a.B/Watch", Semantics::Read, Shape::ServerStreaming);

    /// Says what priority a stream has that it refuses.
    struct Refusing;

    impl Caller for Refusing {
        fn call(&self, _: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
            unimplemented!("nobody calls")
        }

        fn open(&self, call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
            Err(no_number(Priority::of(&call.metadata).as_str(), "it is refused"))
        }

        fn reserve(&self, _: &Method) -> BoxFuture<Result<CallId, CallError>> {
            unimplemented!("nobody reserves")
        }

        fn abandon(&self, _: CallId) {}

        fn outcome(&self, _: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
            unimplemented!("nobody asks")
        }
    }

    #[test]
    fn a_stream_carries_the_priority_that_was_said_last() {
        let channel = Channel(Arc::new(Refusing));
        let begin = |change: fn(StreamCall<Replies<()>>) -> StreamCall<Replies<()>>| {
            let Err(error) = change(channel.server_streaming(&WATCH, &())).begin() else {
                panic!("it is refused");
            };
            String::from(error.method())
        };
        assert_eq!(begin(|stream| stream), "normal");
        assert_eq!(begin(|stream| stream.priority(Priority::Low).priority(Priority::High)), "high");
    }
}
