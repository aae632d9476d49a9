//! Spans that OpenTelemetry's layer for `tracing` sees: their ids are its, so that what is exported and
//! what travels are the same.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::Trace;

/// The call that a span continues was made elsewhere.
pub(super) fn set_parent(span: &Span, came: &Trace) {
    if let Some(context) = context_of(came) {
        let parent = opentelemetry::Context::new().with_remote_span_context(context);
        // An error means that no layer is there to hear it.
        let _ = span.set_parent(parent);
    }
}

/// What the layer knows the span by; `None` if there is no layer.
pub(super) fn trace_of(span: &Span) -> Option<Trace> {
    let context = span.context();
    let context = context.span().span_context().clone();
    if !context.is_valid() {
        return None;
    }
    let flags = context.trace_flags().to_u8();
    let parent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
    let state = Some(context.trace_state().header()).filter(|state| !state.is_empty());
    Some(Trace { parent, state })
}

fn context_of(trace: &Trace) -> Option<SpanContext> {
    let flags = u8::from_str_radix(trace.flags(), 16).ok()?;
    let state = trace.state.as_deref().and_then(|state| state.parse().ok());
    Some(SpanContext::new(
        TraceId::from_hex(trace.trace_id()).ok()?,
        SpanId::from_hex(trace.span_id()).ok()?,
        TraceFlags::new(flags),
        true,
        state.unwrap_or_default(),
    ))
}
