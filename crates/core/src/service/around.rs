//! Channels around channels: what stands between stubs and the way to a server.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::future::ready;
use core::task::{Poll, Waker};

use super::client::{Begun, BoxFuture, Caller, Channel, IncomingReply, OutgoingCall};
use super::method::Method;
use super::outcome::{CallError, CallState, NotExecuted, Outcome};
use super::stream::Port;
use crate::session::{CallId, NotExecutedReason};

/// Hands everything on, so that a caller can stand around a channel.
impl Caller for Channel {
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        self.0.call(call)
    }

    fn begin(&self, call: &mut OutgoingCall, waker: &Waker) -> Begun {
        self.0.begin(call, waker)
    }

    fn poll_begun(
        &self,
        key: u64,
        method: &Method,
        waker: &Waker,
    ) -> Poll<Result<IncomingReply, CallError>> {
        self.0.poll_begun(key, method, waker)
    }

    fn leave(&self, key: u64) {
        self.0.leave(key);
    }

    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>> {
        self.0.reserve(method)
    }

    fn abandon(&self, id: CallId) {
        self.0.abandon(id);
    }

    fn open(&self, call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        self.0.open(call)
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        self.0.outcome(id)
    }
}

impl Channel {
    /// A channel over this one on which `interceptor` sees each call before it is sent, and may change
    /// it: add metadata, or shorten its deadline. If it returns an error the call is not sent, and ends
    /// as not executed with that text.
    pub fn intercept<F>(self, interceptor: F) -> Self
    where
        F: Fn(&mut OutgoingCall) -> Result<(), Cow<'static, str>> + Send + Sync + 'static,
    {
        Self::new(Intercepted { inner: self, interceptor })
    }
}

struct Intercepted<F> {
    inner: Channel,
    interceptor: F,
}

impl<F> Intercepted<F>
where
    F: Fn(&mut OutgoingCall) -> Result<(), Cow<'static, str>>,
{
    fn prepare(&self, call: &mut OutgoingCall) -> Result<(), CallError> {
        let Err(why) = (self.interceptor)(call) else { return Ok(()) };
        if let Some(id) = call.reserved {
            self.inner.0.abandon(id);
        }
        let why = NotExecuted::because(NotExecutedReason::NeverSent, why);
        let error = CallError::new(String::from(call.method.name()), Outcome::NotExecuted(why));
        Err(error.with_id(call.reserved))
    }
}

impl<F> Caller for Intercepted<F>
where
    F: Fn(&mut OutgoingCall) -> Result<(), Cow<'static, str>> + Send + Sync + 'static,
{
    fn call(&self, mut call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        match self.prepare(&mut call) {
            Ok(()) => self.inner.0.call(call),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn begin(&self, call: &mut OutgoingCall, waker: &Waker) -> Begun {
        match self.prepare(call) {
            Ok(()) => self.inner.0.begin(call, waker),
            Err(error) => Begun::Failed(error),
        }
    }

    fn poll_begun(
        &self,
        key: u64,
        method: &Method,
        waker: &Waker,
    ) -> Poll<Result<IncomingReply, CallError>> {
        self.inner.0.poll_begun(key, method, waker)
    }

    fn leave(&self, key: u64) {
        self.inner.0.leave(key);
    }

    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>> {
        self.inner.0.reserve(method)
    }

    fn abandon(&self, id: CallId) {
        self.inner.0.abandon(id);
    }

    fn open(&self, mut call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        self.prepare(&mut call)?;
        self.inner.0.open(call)
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        self.inner.0.outcome(id)
    }
}
