//! The span of a call at its server.

use std::sync::Arc;

use stubborn_core::service::{Answer, CallContext, Code};
use tracing::Span;

use super::{Trace, span};

/// The span of a call that came, until its answer.
pub(super) struct ServerSpan {
    span: Span,
    answered: bool,
}

impl ServerSpan {
    /// The span of a call, and the trace that calls from inside it carry: that of the span, if anybody
    /// looks at it, else the one that came.
    pub(super) fn new(method: &str, context: &CallContext) -> (Self, Option<Arc<Trace>>) {
        let came = Trace::of(&context.metadata);
        let span = span::of_server(method);
        if !span::is_seen(&span) {
            return (Self { span: Span::none(), answered: true }, came);
        }
        if let Some(id) = context.id {
            span.record("rpc.stubborn.call_id", tracing::field::display(id));
        }
        if let Some(address) = context.peer.address {
            span.record("network.peer.address", tracing::field::display(address));
        }
        #[cfg(feature = "opentelemetry")]
        if let Some(came) = &came {
            super::otel::set_parent(&span, came);
        }
        let inside = span::identify(&span, came.as_deref());
        (Self { span, answered: false }, inside.or(came))
    }

    /// Runs a part of the handler.
    pub(super) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        self.span.in_scope(f)
    }

    pub(super) fn answered(&mut self, answer: &Answer) {
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        match answer {
            Answer::Reply(..) => span::replied(&self.span),
            Answer::Status(status) => {
                span::said(&self.span, status.code(), is_fault(status.code()));
            }
            Answer::NotExecuted(why) => span::not_executed(&self.span, why.reason),
        }
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        if !self.answered {
            span::abandoned(&self.span);
        }
    }
}

/// Codes that say that the server has failed; others are the caller's business (OpenTelemetry's
/// conventions for gRPC).
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
