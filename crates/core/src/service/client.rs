//! What generated client stubs call: a channel to a service, over whatever network.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::{Future, IntoFuture};
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use prost::Message;

use super::encoded::Encoded;
use super::metadata::{Metadata, MetadataError};
use super::method::{Method, Semantics, Shape};
use super::outcome::{CallError, CallState, NotExecuted, Outcome};
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
}

/// A reply as a channel hands it to a stub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncomingReply {
    /// The encoded reply, not yet checked.
    pub reply: Encoded,
    /// Metadata that came with it.
    pub metadata: Metadata,
}

/// The way to a server: implemented over UDP, over a simulated network, and in process.
pub trait Caller: Send + Sync + 'static {
    /// Makes a call. Dropping the future abandons it: a read is cancelled; any other call is fenced
    /// if it has not started, else runs to its end and its outcome stays available.
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>>;

    /// Begins a call without a future on the heap, if this caller can: then its end is asked for with
    /// [`poll_begun`](Self::poll_begun). `waker` is woken when it has ended.
    fn begin(&self, call: OutgoingCall, waker: &Waker) -> Begun {
        let _ = waker;
        Begun::Future(self.call(call))
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
pub struct Channel(Arc<dyn Caller>);

impl Channel {
    /// A channel over this implementation.
    pub fn new(caller: impl Caller) -> Self {
        Self(Arc::new(caller))
    }

    /// A unary call of `method`, not sent until it is awaited.
    pub fn unary<Q: Message, R>(&self, method: &Method, request: &Q) -> UnaryCall<R> {
        self.raw_unary(method, Encoded::new(method.id(), request))
    }

    /// The same with a request that is encoded already.
    pub fn raw_unary<R>(&self, method: &Method, request: Encoded) -> UnaryCall<R> {
        UnaryCall::new(
            self.clone(),
            OutgoingCall {
                method: method.clone(),
                request,
                metadata: Metadata::new(),
                deadline: None,
                wait_for_ready: None,
                reserved: None,
            },
        )
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
        self.0.outcome(id).await?.try_map(|incoming| decode_reply(method, Some(id), &incoming))
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
    state: State<R>,
    reply: PhantomData<fn() -> R>,
}

// Calls are moved a few times and would be allocated once otherwise, which costs more.
#[allow(clippy::large_enum_variant)]
enum State<R> {
    Live { channel: Channel, call: OutgoingCall, invalid: Option<MetadataError> },
    Resolved(Box<Result<R, CallError>>),
    Spent,
}

impl<R> UnaryCall<R> {
    fn new(channel: Channel, call: OutgoingCall) -> Self {
        let state = State::Live { channel, call, invalid: None };
        Self { state, reply: PhantomData }
    }

    /// A call that has its result already: for mocks of generated clients.
    pub fn resolved(result: Result<R, CallError>) -> Self {
        Self { state: State::Resolved(Box::new(result)), reply: PhantomData }
    }

    /// Waits no longer than this for the reply. The deadline travels with the call.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.edit(|call| call.deadline = Some(deadline))
    }

    /// Waits for a server to become reachable (until the deadline) instead of failing at once.
    pub fn wait_for_ready(self, wait: bool) -> Self {
        self.edit(|call| call.wait_for_ready = Some(wait))
    }

    /// Adds metadata. An invalid pair makes the call fail, not executed, when it is awaited.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        if let State::Live { call, invalid, .. } = &mut self.state {
            *invalid = invalid.or(call.metadata.insert(key, value).err());
        }
        self
    }

    fn edit(mut self, change: impl FnOnce(&mut OutgoingCall)) -> Self {
        if let State::Live { call, .. } = &mut self.state {
            change(call);
        }
        self
    }

    /// Makes the call and returns the reply as it came: neither checked nor decoded.
    ///
    /// # Errors
    /// [`CallError`] says whether the call ran. A mocked call, which has no encoded reply, ends as
    /// never sent.
    pub async fn raw(mut self) -> Result<IncomingReply, CallError> {
        match self.launch() {
            Stage::Resolved(_) => Err(no_number("a mocked call", "it has no encoded reply")),
            stage => Flight { stage }.await,
        }
    }

    /// Takes the call out, to be made.
    fn launch(&mut self) -> Stage<R> {
        match core::mem::replace(&mut self.state, State::Spent) {
            State::Live { channel, call, invalid: None } => Stage::New(channel, call),
            State::Live { channel, call, invalid: Some(error) } => {
                if let Some(id) = call.reserved {
                    channel.0.abandon(id);
                }
                Stage::Failed(not_sent(call.method.name(), error))
            }
            State::Resolved(result) => Stage::Resolved(result),
            State::Spent => unreachable!("a call is spent by consuming it"),
        }
    }

    /// The id of the call, known before anything is sent. Waits for a session and a free slot.
    ///
    /// # Errors
    /// If no server can be reached, or the method takes no number (reads and `maybe` calls).
    pub async fn id(&mut self) -> Result<CallId, CallError> {
        let State::Live { channel, call, .. } = &mut self.state else {
            return Err(no_number("a mocked call", "it was never sent"));
        };
        if let Some(id) = call.reserved {
            return Ok(id);
        }
        if !call.method.semantics().takes_slot() {
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

impl<R: Message + Default + 'static> UnaryCall<R> {
    /// Makes the call and returns the reply with its metadata.
    ///
    /// # Errors
    /// [`CallError`] says whether the call ran.
    pub async fn with_metadata(self) -> Result<(R, Metadata), CallError> {
        let mut calling = self.into_future();
        core::future::poll_fn(|cx| calling.poll_parts(cx)).await
    }
}

impl<R> Drop for UnaryCall<R> {
    fn drop(&mut self) {
        if let State::Live { channel, call, .. } = &self.state
            && let Some(id) = call.reserved
        {
            channel.0.abandon(id);
        }
    }
}

impl<R: Message + Default + 'static> IntoFuture for UnaryCall<R> {
    type Output = Result<R, CallError>;
    type IntoFuture = Calling<R>;

    fn into_future(mut self) -> Calling<R> {
        let (method, id) = match &self.state {
            State::Live { call, .. } => (call.method.clone(), call.reserved),
            State::Resolved(_) | State::Spent => (MOCKED, None),
        };
        Calling { flight: Flight { stage: self.launch() }, method, id }
    }
}

/// The method of a call that was never sent.
const MOCKED: Method = Method::new("a mocked call", Semantics::Read, Shape::Unary);

/// A unary call that is being made. See [`Caller::call`] for what dropping it does.
#[must_use = "a call is sent when it is awaited"]
pub struct Calling<R> {
    flight: Flight<R>,
    method: Method,
    id: Option<CallId>,
}

/// How far a call is, up to its reply as it came.
struct Flight<R> {
    stage: Stage<R>,
}

#[allow(clippy::large_enum_variant)]
enum Stage<R> {
    New(Channel, OutgoingCall),
    Key(Channel, Method, u64),
    Future(BoxFuture<Result<IncomingReply, CallError>>),
    Failed(CallError),
    Resolved(Box<Result<R, CallError>>),
    Over,
}

impl<R: Message + Default + 'static> Calling<R> {
    fn poll_parts(&mut self, cx: &mut Context<'_>) -> Poll<Result<(R, Metadata), CallError>> {
        if let Stage::Resolved(_) = self.flight.stage
            && let Stage::Resolved(result) = core::mem::replace(&mut self.flight.stage, Stage::Over)
        {
            return Poll::Ready(result.map(|reply| (reply, Metadata::new())));
        }
        let Poll::Ready(result) = Pin::new(&mut self.flight).poll(cx) else { return Poll::Pending };
        Poll::Ready(result.and_then(|incoming| {
            let message = decode_reply(&self.method, self.id, &incoming)?;
            Ok((message, incoming.metadata))
        }))
    }
}

impl<R: Message + Default + 'static> Future for Calling<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_parts(cx).map_ok(|(reply, _)| reply)
    }
}

impl<R> fmt::Debug for Calling<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calling({})", self.method)
    }
}

// Nothing in them is pinned: futures are on the heap, and a reply is only ever moved.
impl<R> Unpin for Calling<R> {}
impl<R> Unpin for Flight<R> {}

impl<R> Future for Flight<R> {
    type Output = Result<IncomingReply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.stage {
                Stage::Key(channel, method, key) => {
                    let polled = channel.0.poll_begun(*key, method, cx.waker());
                    if polled.is_ready() {
                        self.stage = Stage::Over;
                    }
                    return polled;
                }
                Stage::Future(future) => {
                    let polled = future.as_mut().poll(cx);
                    if polled.is_ready() {
                        self.stage = Stage::Over;
                    }
                    return polled;
                }
                Stage::New(..) | Stage::Failed(_) => {}
                Stage::Resolved(_) | Stage::Over => {
                    unreachable!("a call is not polled after its end")
                }
            }
            match core::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Failed(error) => return Poll::Ready(Err(error)),
                Stage::New(channel, call) => {
                    let method = call.method.clone();
                    self.stage = match channel.0.begin(call, cx.waker()) {
                        Begun::Key(key) => {
                            self.stage = Stage::Key(channel, method, key);
                            return Poll::Pending;
                        }
                        Begun::Future(future) => Stage::Future(future),
                        Begun::Failed(error) => Stage::Failed(error),
                    };
                }
                _ => unreachable!("it was one of these a line ago"),
            }
        }
    }
}

impl<R> Drop for Flight<R> {
    fn drop(&mut self) {
        match &self.stage {
            Stage::Key(channel, _, key) => channel.0.leave(*key),
            Stage::New(channel, OutgoingCall { reserved: Some(id), .. }) => {
                channel.0.abandon(*id);
            }
            _ => {}
        }
    }
}

impl<R> fmt::Debug for UnaryCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Live { call, .. } => write!(f, "UnaryCall({})", call.method),
            State::Resolved(_) | State::Spent => f.write_str("UnaryCall(resolved)"),
        }
    }
}

fn decode_reply<R: Message + Default>(
    method: &Method,
    id: Option<CallId>,
    incoming: &IncomingReply,
) -> Result<R, CallError> {
    incoming.reply.decode(method.id()).map_err(|error| {
        // It ran: only its reply cannot be read.
        let status = super::status::Status::new(
            super::status::Code::DataLoss,
            super::outcome::text(format_args!("executed, but its reply cannot be read: {error}")),
        );
        CallError::new(String::from(method.name()), Outcome::Executed(status)).with_id(id)
    })
}

fn no_number(method: impl Into<Cow<'static, str>>, why: &'static str) -> CallError {
    let reason = NotExecuted::because(NotExecutedReason::NeverSent, why);
    CallError::new(method, Outcome::NotExecuted(reason))
}

fn not_sent(method: &str, error: MetadataError) -> CallError {
    let detail = super::outcome::text(format_args!("{error}"));
    let reason = NotExecuted::because(NotExecutedReason::NeverSent, detail);
    CallError::new(String::from(method), Outcome::NotExecuted(reason))
}
