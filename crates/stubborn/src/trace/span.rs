//! Spans of calls, with ids that hold together across services.
//!
//! Fields are OpenTelemetry's, as far as it has them (semantic conventions for RPC); `otel.*` are those
//! that its layer for `tracing` reads.

use std::sync::Arc;

use stubborn_core::service::{CallError, Code, Outcome};
use tracing::Span;
use tracing::field::{Empty, display};
use tracing::subscriber::NoSubscriber;

use super::{Trace, ids};

/// The service and the method in a full name.
fn parts(method: &str) -> (&str, &str) {
    method.split_once('/').unwrap_or(("", method))
}

/// A span of a call, with a parent or in the span that is entered where it is made.
macro_rules! span_of_call {
    ($name:literal, $kind:literal, $method:expr $(, parent: $parent:expr)?) => {{
        let (service, name) = parts($method);
        tracing::info_span!(
            target: "stubborn",
            $(parent: $parent,)?
            $name,
            otel.name = $method,
            otel.kind = $kind,
            otel.status_code = Empty,
            rpc.system = "stubborn",
            rpc.service = service,
            rpc.method = name,
            rpc.stubborn.outcome = Empty,
            rpc.stubborn.call_id = Empty,
            error.type = Empty,
            network.peer.address = Empty,
            trace_id = Empty,
            span_id = Empty,
            parent_span_id = Empty,
        )
    }};
}

/// A span of a call at the side that answers. Its parent is elsewhere.
pub(super) fn of_server(method: &str) -> Span {
    span_of_call!("rpc.server", "server", method, parent: None)
}

/// A span of a call at the side that asks, in the span that is entered here.
pub(super) fn of_client(method: &str) -> Span {
    span_of_call!("rpc.client", "client", method)
}

/// Whether somebody looks at a span. A thread without a subscriber makes spans, too, where another
/// thread has one that wants them all.
pub(super) fn is_seen(span: &Span) -> bool {
    span.with_subscriber(|(_, subscriber)| !subscriber.is::<NoSubscriber>()).unwrap_or(false)
}

/// Gives a span its ids, and returns the trace as it is inside: those that OpenTelemetry's layer has
/// given it, else the parent's trace, or a new one, with an id that is drawn.
pub(super) fn identify(span: &Span, parent: Option<&Trace>) -> Option<Arc<Trace>> {
    #[cfg(feature = "opentelemetry")]
    if let Some(trace) = super::otel::trace_of(span) {
        return Some(record(span, trace, parent));
    }
    let (span_id, new) = (ids::span()?, ids::trace()?);
    let (trace_id, flags) = match parent {
        Some(parent) => (parent.trace_id(), parent.flags()),
        // Somebody looks: that is what being sampled is for.
        None => (new.as_str(), "01"),
    };
    let state = parent.and_then(|parent| parent.state.clone());
    let trace = Trace { parent: format!("00-{trace_id}-{span_id}-{flags}"), state };
    Some(record(span, trace, parent))
}

fn record(span: &Span, trace: Trace, parent: Option<&Trace>) -> Arc<Trace> {
    span.record("trace_id", trace.trace_id());
    span.record("span_id", trace.span_id());
    if let Some(parent) = parent.filter(|parent| parent.trace_id() == trace.trace_id()) {
        span.record("parent_span_id", parent.span_id());
    }
    Arc::new(trace)
}

impl Trace {
    fn part(&self, index: usize) -> &str {
        self.parent.split('-').nth(index).unwrap_or_default()
    }

    pub(super) fn trace_id(&self) -> &str {
        self.part(1)
    }

    pub(super) fn span_id(&self) -> &str {
        self.part(2)
    }

    pub(super) fn flags(&self) -> &str {
        self.part(3)
    }
}

pub(super) fn replied(span: &Span) {
    span.record("rpc.stubborn.outcome", "replied");
}

pub(super) fn abandoned(span: &Span) {
    span.record("rpc.stubborn.outcome", "abandoned");
}

/// The handler said this. At the server that is an error only if it is one of the server's.
pub(super) fn said(span: &Span, code: Code, fault: bool) {
    span.record("rpc.stubborn.outcome", "executed");
    span.record("error.type", display(format_args!("{code:?}")));
    if fault {
        span.record("otel.status_code", "error");
    }
}

pub(super) fn not_executed(span: &Span, reason: stubborn_core::session::NotExecutedReason) {
    span.record("rpc.stubborn.outcome", "not_executed");
    span.record("error.type", display(format_args!("{reason:?}")));
    span.record("otel.status_code", "error");
}

pub(super) fn failed(span: &Span, error: &CallError) {
    if let Some(id) = error.call_id() {
        span.record("rpc.stubborn.call_id", display(id));
    }
    if let Some(peer) = error.peer() {
        span.record("network.peer.address", display(peer));
    }
    let outcome = match error.outcome() {
        Outcome::Executed(status) => return said(span, status.code(), true),
        Outcome::NotExecuted(why) => return not_executed(span, why.reason),
        Outcome::Pending(id) => {
            span.record("rpc.stubborn.call_id", display(id));
            "pending"
        }
        Outcome::Lost => "lost",
        Outcome::Unanswered => "unanswered",
    };
    span.record("rpc.stubborn.outcome", outcome);
    span.record("error.type", outcome);
    span.record("otel.status_code", "error");
}
