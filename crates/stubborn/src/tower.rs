//! Layers of `tower`, on both sides.
//!
//! At a server, [`ServerBuilder::layer`](crate::ServerBuilder::layer) puts a layer around the handlers of
//! all services:
//!
//! ```
//! # fn example(server: stubborn::ServerBuilder) -> stubborn::ServerBuilder {
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//!
//! let layers = ServiceBuilder::new()
//!     .load_shed()
//!     .concurrency_limit(64)
//!     .timeout(Duration::from_secs(5));
//! server.layer(layers)
//! # }
//! ```
//!
//! At a client, [`layered`] puts one around a channel, whose stubs stay as they are:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tower::limit::ConcurrencyLimitLayer;
//!
//! let channel = stubborn::connect("stubborn://bank.example:7400").await?;
//! let channel = stubborn::tower::layered(channel, ConcurrencyLimitLayer::new(8));
//! # Ok(()) }
//! ```
//!
//! A layer that ends a call by itself takes nothing from what the call's outcome says. Where it lets the
//! call through to nobody the outcome is `NotExecuted`; where it stops waiting for it, a server says
//! that the handler was stopped, and a client that the outcome is pending, with the id to ask by.
//!
//! Layers have to be cloneable; [`tower::buffer`](https://docs.rs/tower) makes others so. Retries are
//! channels' own: a layer that makes a call a second time gets the outcome of the first as pending.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use stubborn_core::service::{
    Answer, Begun, BoxFuture, CallError, CallState, Caller, Channel, Code, Handling, IncomingReply,
    Method, NotExecuted, Outcome, OutgoingCall, Port, Status,
};
use stubborn_core::session::{CallId, NotExecutedReason as Reason};
use tower_layer::Layer;
use tower_service::Service;

use crate::server::{Incoming, Interceptor};

type BoxError = Box<dyn Error + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// --- at a server -----------------------------------------------------------------------------------

/// The handlers of a server: what the innermost layer hands calls to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handlers(());

impl Service<Incoming> for Handlers {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, incoming: Incoming) -> Self::Future {
        let handling = incoming.run();
        Box::pin(async move { Ok(handling.await) })
    }
}

/// A layer around handlers, as a server keeps it.
pub(crate) struct Layered<S>(Mutex<S>);

impl<S> Layered<S> {
    pub(crate) fn new(layer: &impl Layer<Handlers, Service = S>) -> Self {
        Self(Mutex::new(layer.layer(Handlers::default())))
    }
}

impl<S> Interceptor for Layered<S>
where
    S: Service<Incoming, Response = Answer, Future: Send> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    fn intercept(&self, mut incoming: Incoming) -> Handling {
        let mut service = lock(&self.0).clone();
        let begun = Arc::new(AtomicBool::new(false));
        incoming.tell_when_begun(&begun);
        Box::pin(async move {
            let left = incoming.context().time_left();
            let ready = poll_fn(|cx| service.poll_ready(cx).map_err(Into::<BoxError>::into));
            let ready = match left {
                None => ready.await,
                Some(left) => match tokio::time::timeout(left, ready).await {
                    Ok(ready) => ready,
                    Err(_) => return Answer::NotExecuted(NotExecuted::new(Reason::Deadline)),
                },
            };
            let served = match ready {
                Ok(()) => service.call(incoming).await.map_err(Into::into),
                Err(error) => Err(error),
            };
            served.unwrap_or_else(|error| stopped(begun.load(Ordering::Acquire), &error))
        })
    }
}

/// What a layer's error makes of a call whose handler has begun, or has not.
fn stopped(begun: bool, error: &BoxError) -> Answer {
    if begun {
        let why = format!("a layer of the server stopped the handler: {error}");
        Answer::Status(Status::new(Code::Cancelled, why))
    } else {
        let why = format!("a layer of the server refused the call: {error}");
        Answer::NotExecuted(NotExecuted::because(Reason::Overloaded, why))
    }
}

// --- at a client -----------------------------------------------------------------------------------

/// The unary calls of a channel: what the innermost layer hands calls to.
#[derive(Clone)]
pub struct Calls {
    channel: Channel,
    /// Calls that have not come here yet.
    unsent: Unsent,
}

type Unsent = Arc<Mutex<BTreeSet<CallId>>>;

impl Service<OutgoingCall> for Calls {
    type Response = IncomingReply;
    type Error = CallError;
    type Future = BoxFuture<Result<IncomingReply, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: OutgoingCall) -> Self::Future {
        match call.reserved {
            Some(id) if !lock(&self.unsent).remove(&id) => {
                let error = pending(&call.method, Some(id), "it was sent before");
                Box::pin(std::future::ready(Err(error)))
            }
            _ => self.channel.call(call),
        }
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

/// A channel over this one whose unary calls go through a layer. Streams do not.
pub fn layered<L>(channel: Channel, layer: L) -> Channel
where
    L: Layer<Calls>,
    L::Service: Service<OutgoingCall, Response = IncomingReply> + Clone + Send + 'static,
    <L::Service as Service<OutgoingCall>>::Error: Into<BoxError>,
    <L::Service as Service<OutgoingCall>>::Future: Send,
{
    let unsent = Unsent::default();
    let calls = Calls { channel: channel.clone(), unsent: unsent.clone() };
    Channel::new(Around { channel, unsent, service: Mutex::new(layer.layer(calls)) })
}

struct Around<S> {
    channel: Channel,
    unsent: Unsent,
    service: Mutex<S>,
}

/// A number that no call has used yet: it is given up when this is dropped.
struct Reserved {
    channel: Channel,
    unsent: Unsent,
    id: Option<CallId>,
}

impl Reserved {
    /// Whether the call has not been sent; then it never will be.
    fn give_up(&mut self) -> bool {
        let Some(id) = self.id.take() else { return false };
        let unsent = lock(&self.unsent).remove(&id);
        if unsent {
            Caller::abandon(&self.channel, id);
        }
        unsent
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<S> Caller for Around<S>
where
    S: Service<OutgoingCall, Response = IncomingReply, Future: Send> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    fn call(&self, mut call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        let (channel, unsent) = (self.channel.clone(), self.unsent.clone());
        let mut service = lock(&self.service).clone();
        Box::pin(async move {
            // The number comes first, so that it can be asked for whatever the layer does.
            if call.method.takes_slot() && call.reserved.is_none() {
                call.reserved = Some(channel.reserve(&call.method).await?);
            }
            let (method, id) = (call.method.clone(), call.reserved);
            lock(&unsent).extend(id);
            let mut reserved = Reserved { channel, unsent, id };
            let ready = poll_fn(|cx| service.poll_ready(cx).map_err(Into::<BoxError>::into));
            let served = match ready.await {
                Ok(()) => service.call(call).await.map_err(Into::into),
                Err(error) => Err(error),
            };
            let error = match served {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let error = match error.downcast::<CallError>() {
                Ok(error) => return Err(*error),
                Err(error) => error,
            };
            let why = format!("a layer of the client gave up: {error}");
            if reserved.give_up() {
                let outcome = Outcome::NotExecuted(NotExecuted::because(Reason::NeverSent, why));
                return Err(CallError::new(method.name().to_owned(), outcome).with_id(id));
            }
            Err(pending(&method, id, why))
        })
    }

    fn begin(&self, call: &mut OutgoingCall, _: &Waker) -> Begun {
        Begun::Future(Caller::call(self, call.take()))
    }

    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>> {
        self.channel.reserve(method)
    }

    fn abandon(&self, id: CallId) {
        Caller::abandon(&self.channel, id);
    }

    fn open(&self, call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        Caller::open(&self.channel, call)
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        Caller::outcome(&self.channel, id)
    }
}

/// The call was sent, and nobody waits for it here.
fn pending(method: &Method, id: Option<CallId>, why: impl Into<String>) -> CallError {
    let outcome = id.map_or(Outcome::Unanswered, Outcome::Pending);
    CallError::new(method.name().to_owned(), outcome).with_id(id).because(why.into())
}
