//! Traces: which calls belong together across services, by the W3C's trace context.
//!
//! The names under which it travels as metadata are the W3C's, so that services of other systems take
//! part.

/// The metadata key of the trace that a call belongs to, and of the span that made it
/// (<https://www.w3.org/TR/trace-context/>, section 3.2).
pub const TRACEPARENT: &str = "traceparent";

/// The metadata key of what tracing systems have to say of that trace (section 3.3).
pub const TRACESTATE: &str = "tracestate";
