//! A call at its server, in its trace and its span.

use std::sync::Arc;

use stubborn_core::service::{Answer, CallContext};

use super::Trace;
#[cfg(feature = "tracing")]
use super::server::ServerSpan;

/// A call that came, until its answer.
pub(crate) struct Arrived {
    /// What calls from inside it carry.
    trace: Option<Arc<Trace>>,
    #[cfg(feature = "tracing")]
    span: ServerSpan,
}

#[cfg(feature = "tracing")]
impl Arrived {
    pub(crate) fn new(method: impl FnOnce() -> &'static str, context: &CallContext) -> Self {
        let (span, trace) = ServerSpan::new(method(), context);
        Self { trace, span }
    }

    /// Runs a part of the handler.
    pub(crate) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        super::enter(self.trace.as_ref(), || self.span.enter(f))
    }

    /// This is what became of it.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        self.span.answered(answer);
    }
}

#[cfg(not(feature = "tracing"))]
impl Arrived {
    pub(crate) fn new(_: impl FnOnce() -> &'static str, context: &CallContext) -> Self {
        Self { trace: Trace::of(&context.metadata) }
    }

    /// Runs a part of the handler.
    pub(crate) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        super::enter(self.trace.as_ref(), f)
    }

    /// This is what became of it.
    pub(crate) fn answered(&mut self, _: &Answer) {}
}
