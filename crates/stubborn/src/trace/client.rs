//! Spans of calls at their client.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use stubborn_core::service::{
    Begun, BoxFuture, CallError, CallState, Caller, Encoded, IncomingReply, Metadata, Method,
    NotTaken, OutgoingCall, Port,
};
use stubborn_core::session::CallId;
use tracing::Span;

use super::{CURRENT, Trace, span};

/// A caller whose calls have spans, as far as anybody looks at them.
pub(crate) struct Traced<C>(pub(crate) C);

/// The span of a call until its end.
struct Open {
    span: Span,
    over: bool,
}

impl Open {
    /// `None` if nobody looks at it. A call that carries a trace of its own keeps that.
    fn begin(method: &Method, metadata: &mut Metadata) -> Option<Self> {
        let span = span::of_client(method.name());
        if !span::is_seen(&span) {
            return None;
        }
        let own = Trace::of(metadata);
        let outer = CURRENT.with_borrow(Clone::clone);
        if own.is_none()
            && let Some(inside) = span::identify(&span, outer.as_deref())
        {
            inside.write(metadata);
        }
        Some(Self { span, over: false })
    }

    fn ended(&mut self, result: &Result<IncomingReply, CallError>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        match result {
            Ok(_) => span::replied(&self.span),
            Err(error) => span::failed(&self.span, error),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.over {
            span::abandoned(&self.span);
        }
    }
}

/// A unary call in its span.
struct Watched {
    open: Open,
    call: BoxFuture<Result<IncomingReply, CallError>>,
}

impl Future for Watched {
    type Output = Result<IncomingReply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { open, call } = &mut *self;
        let polled = open.span.in_scope(|| call.as_mut().poll(cx));
        if let Poll::Ready(result) = &polled {
            open.ended(result);
        }
        polled
    }
}

impl<C: Caller> Caller for Traced<C> {
    fn call(&self, mut call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        match Open::begin(&call.method, &mut call.metadata) {
            None => self.0.call(call),
            Some(open) => Box::pin(Watched { open, call: self.0.call(call) }),
        }
    }

    fn begin(&self, call: &mut OutgoingCall, waker: &Waker) -> Begun {
        match Open::begin(&call.method, &mut call.metadata) {
            None => self.0.begin(call, waker),
            Some(open) => Begun::Future(Box::pin(Watched { open, call: self.0.call(call.take()) })),
        }
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

    fn open(&self, mut call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        let Some(mut open) = Open::begin(&call.method, &mut call.metadata) else {
            return self.0.open(call);
        };
        match self.0.open(call) {
            Ok(port) => Ok(Arc::new(TracedPort { open: Mutex::new(open), port })),
            Err(error) => {
                let failed = Err(error);
                open.ended(&failed);
                failed.map(|_| unreachable!("it has failed"))
            }
        }
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        self.0.outcome(id)
    }
}

/// A stream in its span.
struct TracedPort {
    open: Mutex<Open>,
    port: Arc<dyn Port>,
}

impl Port for TracedPort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        self.port.poll_take(cx)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        self.port.poll_send(cx, message)
    }

    fn end(&self) {
        self.port.end();
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        let polled = self.port.poll_end(cx);
        if let Poll::Ready(result) = &polled {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).ended(result);
        }
        polled
    }

    fn cancel(&self) {
        self.port.cancel();
    }
}
