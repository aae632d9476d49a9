//! What generated client stubs call: a channel to a service, over whatever network.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use prost::Message;

use super::codec::{Codec, Decode, EncodeError, Prost, decoder};
use super::encoded::{DecodeError, Encoded};
use super::metadata::{CALL_ID, Metadata, MetadataError};
use super::method::{Method, Semantics, Shape};
use super::outcome::{CallError, CallState, NotExecuted, Outcome};
use super::priority::{PRIORITY, Priority};
use super::server::CallContext;
use super::stream::Port;
use crate::session::{CallId, NotExecutedReason};
use crate::time::Duration;

/// A future on the heap.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// A call as a stub hands it to a channel.
#[derive(Clone, Debug)]
pub struct OutgoingCall {
    /// The method.
    pub method: Method,
    /// The encoded request.
    pub request: Encoded,
    /// Metadata that travels with it.
    pub metadata: Metadata,
    /// How long the caller waits; `None` for the channel's default.
    pub deadline: Option<Duration>,
    /// Whether to wait for a server instead of failing when none can be reached.
    pub wait_for_ready: Option<bool>,
    /// The number that was reserved for it, if its id was asked for before it was sent.
    pub reserved: Option<CallId>,
    /// For a read at a group of replicas: how old the state may be that it is answered from. None
    /// where it has to be that of now.
    pub max_staleness: Option<Duration>,
}

impl OutgoingCall {
    /// A call as it is before anything is set about it.
    pub(super) fn new(method: &Method, request: Encoded) -> Self {
        Self {
            method: method.clone(),
            request,
            metadata: Metadata::new(),
            deadline: None,
            wait_for_ready: None,
            reserved: None,
            max_staleness: None,
        }
    }

    /// The same call with the request and the metadata, which are gone from this one.
    pub fn take(&mut self) -> Self {
        Self {
            method: self.method.clone(),
            request: core::mem::take(&mut self.request),
            metadata: core::mem::take(&mut self.metadata),
            ..*self
        }
    }
}

/// A reply as a channel hands it to a stub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncomingReply {
    /// The encoded reply, not yet checked.
    pub reply: Encoded,
    /// Metadata that came with it.
    pub metadata: Metadata,
    /// Of a stream: how it ended. On the heap, so that no other reply makes room for it.
    pub stream: Option<Box<StreamEnd>>,
}

/// How a stream ended: with it both sides know that nothing is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamEnd {
    /// Messages of the client that the handler has taken.
    pub taken: u64,
    /// Messages that the server has sent.
    pub sent: u64,
}

/// The way to a server: implemented over UDP, over a simulated network, and in process.
pub trait Caller: Send + Sync + 'static {
    /// Makes a call. Dropping the future abandons it: a read is cancelled; any other call is fenced
    /// if it has not started, else runs to its end and its outcome stays available.
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>>;

    /// Begins a call without a future on the heap, if this caller can: then its end is asked for with
    /// [`poll_begun`](Self::poll_begun). `waker` is woken when it has ended. Request and metadata are
    /// taken out of `call`.
    fn begin(&self, call: &mut OutgoingCall, waker: &Waker) -> Begun {
        let _ = waker;
        Begun::Future(self.call(call.take()))
    }

    /// The end of a call that was begun under this key, told once. Until then the waker is woken when
    /// it has ended.
    fn poll_begun(
        &self,
        key: u64,
        method: &Method,
        waker: &Waker,
    ) -> Poll<Result<IncomingReply, CallError>> {
        let _ = (key, waker);
        unreachable!("{method} was not begun under a key")
    }

    /// Abandons a call that was begun under this key and whose end was not told.
    fn leave(&self, key: u64) {
        let _ = key;
    }

    /// Reserves a slot's next number for a call that is to be made, waiting for a session and a
    /// free slot.
    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>>;

    /// Gives up a reserved number: it is fenced.
    fn abandon(&self, id: CallId);

    /// Begins a call of a method that streams. Dropping the last reference to the port cancels it.
    ///
    /// # Errors
    /// If this caller carries no streams, or the call fails at once.
    fn open(&self, call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        let why = "this channel carries no streams";
        let why = NotExecuted::because(NotExecutedReason::NeverSent, why);
        Err(CallError::new(String::from(call.method.name()), Outcome::NotExecuted(why)))
    }

    /// Asks what became of a call. From the session that owns it the answer is final: a call that
    /// has not started is fenced.
    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>>;
}

/// A call that a [`Caller`] has begun.
pub enum Begun {
    /// It is asked for under this key.
    Key(u64),
    /// It is this future.
    Future(BoxFuture<Result<IncomingReply, CallError>>),
    /// It has failed at once.
    Failed(CallError),
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "Begun({key:#x})"),
            Self::Future(_) => f.write_str("Begun(future)"),
            Self::Failed(error) => write!(f, "Begun({error})"),
        }
    }
}

/// A way to a server. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Channel(pub(super) Arc<dyn Caller>);

impl Channel {
    /// A channel over this implementation.
    pub fn new(caller: impl Caller) -> Self {
        Self(Arc::new(caller))
    }

    /// A unary call of `method`, not sent until it is awaited.
    pub fn unary<Q: Message, R: Message + Default>(
        &self,
        method: &Method,
        request: &Q,
    ) -> UnaryCall<R> {
        self.raw_unary(method, Encoded::new(method.id(), request))
    }

    /// The same with a request that is encoded already.
    pub fn raw_unary<R: Message + Default>(
        &self,
        method: &Method,
        request: Encoded,
    ) -> UnaryCall<R> {
        UnaryCall::new(self.clone(), OutgoingCall::new(method, request), decoder::<Prost, R>())
    }

    /// As [`unary`](Self::unary), with messages of this codec's. A request that cannot be encoded makes
    /// the call fail, not executed, when it is awaited.
    pub fn unary_with<C: Codec<Q> + Codec<R>, Q, R>(
        &self,
        codec: C,
        method: &Method,
        request: &Q,
    ) -> UnaryCall<R> {
        let (request, failed) = match Encoded::with(codec, method.id(), request) {
            Ok(request) => (request, None),
            Err(error) => (Encoded::default(), Some(not_encoded(method.name(), &error))),
        };
        let call = OutgoingCall::new(method, request);
        let mut call = UnaryCall::new(self.clone(), call, decoder::<C, R>());
        if let Some(error) = failed {
            call.stage = Stage::Failed(error);
        }
        call
    }

    /// Makes a call that is put together already. See [`Caller::call`] for what dropping the future
    /// does.
    pub fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        self.0.call(call)
    }

    /// Asks what became of a call of `method`, decoding the reply if it is kept.
    ///
    /// # Errors
    /// If no server answers in time ([`Outcome::Pending`]) or the kept reply cannot be read.
    pub async fn outcome<R: Message + Default>(
        &self,
        method: &Method,
        id: CallId,
    ) -> Result<CallState<R>, CallError> {
        self.outcome_with(Prost, method, id).await
    }

    /// As [`outcome`](Self::outcome), with messages of this codec's.
    ///
    /// # Errors
    /// As [`outcome`](Self::outcome).
    pub async fn outcome_with<C: Codec<R>, R>(
        &self,
        _: C,
        method: &Method,
        id: CallId,
    ) -> Result<CallState<R>, CallError> {
        let state = self.0.outcome(id).await?;
        let decode = decoder::<C, R>();
        state.try_map(|mut incoming| decode_reply(method, Some(id), &mut incoming.reply, decode))
    }

    /// The same, for a call of any method: the reply is handed out as it came.
    ///
    /// # Errors
    /// If no server answers in time ([`Outcome::Pending`]).
    pub async fn raw_outcome(&self, id: CallId) -> Result<CallState<IncomingReply>, CallError> {
        self.0.outcome(id).await
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

/// A unary call: configure it, then await it.
///
/// Cancellation: dropping the call before it is awaited sends nothing (a reserved number is
/// fenced); dropping it while it is awaited is described at [`Caller::call`].
#[must_use = "a call is sent when it is awaited"]
pub struct UnaryCall<R> {
    /// `None` for a mocked call.
    channel: Option<Channel>,
    /// It is large to move, so it stays here and its parts are taken out.
    call: OutgoingCall,
    stage: Stage<R>,
    decode: Decode<R>,
    invalid: Option<MetadataError>,
}

/// How far a call is.
enum Stage<R> {
    New,
    Key(u64),
    Future(BoxFuture<Result<IncomingReply, CallError>>),
    Failed(CallError),
    Resolved(Box<Result<R, CallError>>),
    Over,
}

impl<R> UnaryCall<R> {
    fn new(channel: Channel, call: OutgoingCall, decode: Decode<R>) -> Self {
        Self { channel: Some(channel), call, stage: Stage::New, decode, invalid: None }
    }

    /// A call that has its result already: for mocks of generated clients.
    pub fn resolved(result: Result<R, CallError>) -> Self {
        let call = OutgoingCall::new(&MOCKED, Encoded::default());
        let stage = Stage::Resolved(Box::new(result));
        // A result that is there already is never decoded.
        let decode: Decode<R> = |_, _| Err(DecodeError::Digest);
        Self { channel: None, call, stage, decode, invalid: None }
    }

    /// Waits no longer than this for the reply. The deadline travels with the call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.call.deadline = Some(deadline);
        self
    }

    /// Waits for a server to become reachable (until the deadline) instead of failing at once.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.call.wait_for_ready = Some(wait);
        self
    }

    /// Lets a read be answered from a state that is up to this much older than now: by the replica of
    /// the group that is likely to answer first, mostly without a question to the others. What this
    /// channel has seen before, its own writes among it, is in that state all the same. Of a server
    /// that is no replica it changes nothing; a call that is no read fails, not executed.
    pub fn max_staleness(mut self, at_most: Duration) -> Self {
        self.call.max_staleness = Some(at_most);
        self
    }

    /// Adds metadata. An invalid pair makes the call fail, not executed, when it is awaited.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.invalid = self.invalid.or(self.call.metadata.insert(key, value).err());
        self
    }

    /// Says how much the call matters where a server cannot run all that it is asked for: sets the
    /// metadata [`PRIORITY`].
    pub fn priority(mut self, priority: Priority) -> Self {
        let set = self.call.metadata.set(PRIORITY, priority.as_str());
        self.invalid = self.invalid.or(set.err());
        self
    }

    /// Gives the call an id that is derived from the call whose handler makes it: `child` tells the
    /// calls of one handler apart. A handler that runs again, here or in another process, and makes the
    /// same call as the same child, gets the first run's reply; the call does not run twice. See
    /// `docs/semantics.md`, "Nested calls", for how long.
    ///
    /// Of a parent without an id (a read, a `maybe` call) the call fails, not executed.
    pub fn derived_from(mut self, parent: &CallContext, child: u64) -> Self {
        match parent.child_id(child) {
            Ok(id) => self.metadata(CALL_ID, id),
            Err(error) => {
                self.invalid = self.invalid.or(Some(error));
                self
            }
        }
    }

    /// Makes the call and returns the reply as it came: neither checked nor decoded.
    ///
    /// # Errors
    /// [`CallError`] says whether the call ran. A mocked call, which has no encoded reply, ends as
    /// never sent.
    pub async fn raw(mut self) -> Result<IncomingReply, CallError> {
        if let Stage::Resolved(_) = self.stage {
            return Err(no_number("a mocked call", "it has no encoded reply"));
        }
        core::future::poll_fn(|cx| self.poll_reply(cx)).await
    }

    /// The id of the call, known before anything is sent. Waits for a session and a free slot.
    ///
    /// # Errors
    /// If no server can be reached, or the method takes no number (reads and `maybe` calls).
    pub async fn id(&mut self) -> Result<CallId, CallError> {
        let Self { channel: Some(channel), call, stage, .. } = self else {
            return Err(no_number("a mocked call", "it was never sent"));
        };
        if let Stage::Failed(error) = stage {
            return Err(error.clone());
        }
        if let Some(id) = call.reserved {
            return Ok(id);
        }
        if !call.method.takes_slot() {
            return Err(no_number(
                String::from(call.method.name()),
                "reads and maybe calls have no number",
            ));
        }
        let id = channel.0.reserve(&call.method).await?;
        call.reserved = Some(id);
        Ok(id)
    }
}

impl<R> UnaryCall<R> {
    /// Makes the call and returns the reply with its metadata.
    ///
    /// # Errors
    /// [`CallError`] says whether the call ran.
    pub async fn with_metadata(mut self) -> Result<(R, Metadata), CallError> {
        core::future::poll_fn(|cx| self.poll_parts(cx)).await
    }

    fn poll_parts(&mut self, cx: &mut Context<'_>) -> Poll<Result<(R, Metadata), CallError>> {
        if let Stage::Resolved(_) = self.stage
            && let Stage::Resolved(result) = core::mem::replace(&mut self.stage, Stage::Over)
        {
            return Poll::Ready(result.map(|reply| (reply, Metadata::new())));
        }
        let Poll::Ready(result) = self.poll_reply(cx) else { return Poll::Pending };
        Poll::Ready(result.and_then(|IncomingReply { mut reply, metadata, .. }| {
            let (method, id) = (&self.call.method, self.call.reserved);
            let message = decode_reply(method, id, &mut reply, self.decode)?;
            Ok((message, metadata))
        }))
    }

    /// The reply as it came.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        if let Stage::New = self.stage {
            self.begin(cx);
            if let Stage::Key(_) = self.stage {
                return Poll::Pending;
            }
        }
        let polled = match (&mut self.stage, &self.channel) {
            (Stage::Key(key), Some(channel)) => {
                channel.0.poll_begun(*key, &self.call.method, cx.waker())
            }
            (Stage::Future(future), _) => future.as_mut().poll(cx),
            (Stage::Failed(_), _) => match core::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Failed(error) => Poll::Ready(Err(error)),
                _ => unreachable!("it had failed a line ago"),
            },
            _ => unreachable!("a call is not polled after its end"),
        };
        if polled.is_ready() {
            self.stage = Stage::Over;
        }
        polled
    }

    fn begin(&mut self, cx: &mut Context<'_>) {
        if let Some(error) = self.invalid {
            self.abandon();
            self.stage = Stage::Failed(not_sent(self.call.method.name(), error));
            return;
        }
        let Some(channel) = &self.channel else { return };
        self.stage = match channel.0.begin(&mut self.call, cx.waker()) {
            Begun::Key(key) => Stage::Key(key),
            Begun::Future(future) => Stage::Future(future),
            Begun::Failed(error) => Stage::Failed(error),
        };
    }

    /// Gives up the number that was reserved, if the call was not begun.
    fn abandon(&self) {
        if let (Stage::New, Some(id), Some(channel)) =
            (&self.stage, self.call.reserved, &self.channel)
        {
            channel.0.abandon(id);
        }
    }
}

/// Makes the call. See [`Caller::call`] for what dropping it does.
impl<R> Future for UnaryCall<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_parts(cx).map_ok(|(reply, _)| reply)
    }
}

// Nothing in it is pinned: futures are on the heap, and a reply is only ever moved.
impl<R> Unpin for UnaryCall<R> {}

impl<R> Drop for UnaryCall<R> {
    fn drop(&mut self) {
        match (&self.stage, &self.channel) {
            (Stage::Key(key), Some(channel)) => channel.0.leave(*key),
            _ => self.abandon(),
        }
    }
}

impl<R> fmt::Debug for UnaryCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stage {
            Stage::Resolved(_) => f.write_str("UnaryCall(resolved)"),
            _ => write!(f, "UnaryCall({})", self.call.method),
        }
    }
}

/// The method of a call that was never sent.
pub(super) const MOCKED: Method = Method::new("a mocked call", Semantics::Read, Shape::Unary);

pub(super) fn decode_reply<R>(
    method: &Method,
    id: Option<CallId>,
    reply: &mut Encoded,
    decode: Decode<R>,
) -> Result<R, CallError> {
    decode(reply, method.id()).map_err(|error| {
        // It ran: only its reply cannot be read.
        let status = super::status::Status::new(
            super::status::Code::DataLoss,
            super::outcome::text(format_args!("executed, but its reply cannot be read: {error}")),
        );
        CallError::new(String::from(method.name()), Outcome::Executed(status)).with_id(id)
    })
}

pub(super) fn no_number(method: impl Into<Cow<'static, str>>, why: &'static str) -> CallError {
    let reason = NotExecuted::because(NotExecutedReason::NeverSent, why);
    CallError::new(method, Outcome::NotExecuted(reason))
}

pub(super) fn not_sent(method: &str, error: MetadataError) -> CallError {
    let detail = super::outcome::text(format_args!("{error}"));
    let reason = NotExecuted::because(NotExecutedReason::NeverSent, detail);
    CallError::new(String::from(method), Outcome::NotExecuted(reason))
}

pub(super) fn not_encoded(method: &str, error: &EncodeError) -> CallError {
    let detail = super::outcome::text(format_args!("{error}"));
    let reason = NotExecuted::because(NotExecutedReason::NeverSent, detail);
    CallError::new(String::from(method), Outcome::NotExecuted(reason))
}
