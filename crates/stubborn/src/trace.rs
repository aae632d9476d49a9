//! Traces that travel: a call made inside a handler carries the trace context of the handler's own.
//!
//! It is what W3C Trace Context says (`traceparent`, `tracestate`), in the metadata of calls. What came is
//! passed on as it is, unless the call has a context of its own.
//!
//! With the feature `tracing` calls have spans on both sides, for whatever subscriber the program has:
//! `rpc.client` and `rpc.server`, at level info, target `stubborn`. Where somebody looks at them, each has
//! an id of its own and the trace goes on from it, or begins with it; the fields `trace_id`, `span_id` and
//! `parent_span_id` say so in a log. With the feature `opentelemetry` these are the ids that the layer of
//! `tracing-opentelemetry` exports, if there is one. Where nobody looks, a span costs next to nothing and
//! the trace passes through unchanged.

mod arrived;
#[cfg(feature = "tracing")]
mod client;
#[cfg(feature = "tracing")]
mod ids;
#[cfg(feature = "opentelemetry")]
mod otel;
#[cfg(feature = "tracing")]
mod server;
#[cfg(feature = "tracing")]
mod span;

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use stubborn_core::service::{CallContext, Metadata};

pub(crate) use arrived::Arrived;
#[cfg(feature = "tracing")]
pub(crate) use client::Traced;

/// The metadata key of the trace that a call belongs to, and of the span that made it
/// (<https://www.w3.org/TR/trace-context/>, section 3.2).
pub const TRACEPARENT: &str = "traceparent";

/// The metadata key of what tracing systems have to say of that trace (section 3.3).
pub const TRACESTATE: &str = "tracestate";

/// The longest state that is passed on (W3C Trace Context §3.3.1.5 asks for at least this).
const LONGEST_STATE: usize = 512;

/// The longest context; version 00 has 55 bytes, later ones may have more.
const LONGEST_PARENT: usize = 128;

/// The trace context of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    parent: String,
    state: Option<String>,
}

thread_local! {
    /// That of the handler that this thread polls at this moment.
    static CURRENT: RefCell<Option<Arc<Trace>>> = const { RefCell::new(None) };
}

impl Trace {
    /// The context that came with a call; none if there is none, or a malformed one.
    pub(crate) fn of(metadata: &Metadata) -> Option<Arc<Self>> {
        if metadata.is_empty() {
            return None;
        }
        let parent = metadata.get_str(TRACEPARENT).filter(|parent| is_parent(parent))?.to_owned();
        let state = metadata.get_str(TRACESTATE).filter(|state| state.len() <= LONGEST_STATE);
        Some(Arc::new(Self { parent, state: state.map(ToOwned::to_owned) }))
    }

    /// Puts it into the metadata of a call that has none.
    fn write(&self, metadata: &mut Metadata) {
        // What is too much together is left out: the call is worth more.
        if metadata.insert(TRACEPARENT, self.parent.as_str()).is_ok()
            && let Some(state) = &self.state
        {
            let _ = metadata.insert(TRACESTATE, state.as_str());
        }
    }
}

/// Runs a future in the trace of a call: calls made in it carry its context. For tasks that a handler
/// spawns, which do not inherit it by themselves.
pub async fn within<F: Future>(context: &CallContext, future: F) -> F::Output {
    let trace = Trace::of(&context.metadata);
    let mut future = pin!(future);
    std::future::poll_fn(|cx| enter(trace.as_ref(), || future.as_mut().poll(cx))).await
}

/// Runs `f` in this trace, or outside of any, then restores what was before, also on a panic.
pub(crate) fn enter<R>(trace: Option<&Arc<Trace>>, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<Trace>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let outer = self.0.take();
            CURRENT.with(|current| current.replace(outer));
        }
    }
    if trace.is_none() && CURRENT.with_borrow(Option::is_none) {
        return f();
    }
    let _restore = Restore(CURRENT.with(|current| current.replace(trace.cloned())));
    f()
}

/// Adds the context of the handler that runs here to a call that it makes, unless the call has one.
pub(crate) fn carry(metadata: &mut Metadata) {
    CURRENT.with_borrow(|current| {
        let Some(trace) = current else { return };
        if metadata.get(TRACEPARENT).is_some() {
            return;
        }
        trace.write(metadata);
    });
}

/// Whether it is `version-traceid-parentid-flags` (W3C Trace Context §3.2.2); of versions to come only
/// the beginning is known.
fn is_parent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str, length| hex(part, length) && part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let (version, trace) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (parent, flags) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    text.len() <= LONGEST_PARENT
        && hex(version, 2)
        && version != "ff"
        && some(trace, 32)
        && some(parent, 16)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn metadata(parent: &str, state: &str) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert(TRACEPARENT, parent).unwrap();
        metadata.insert(TRACESTATE, state).unwrap();
        metadata
    }

    #[test]
    fn a_malformed_context_is_not_passed_on() {
        for malformed in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(Trace::of(&metadata(malformed, "")), None, "{malformed}");
        }
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(Trace::of(&metadata(later, "")).is_some());
    }

    #[test]
    fn a_call_carries_the_context_of_its_handler_unless_it_has_its_own() {
        let trace = Trace::of(&metadata(PARENT, "a=1"));
        let (mut plain, mut own) = (Metadata::new(), Metadata::new());
        own.insert(TRACEPARENT, "mine").unwrap();
        enter(trace.as_ref(), || {
            carry(&mut plain);
            carry(&mut own);
            enter(None, || assert!(CURRENT.with_borrow(Option::is_none)));
        });
        assert_eq!(
            (plain.get_str(TRACEPARENT), plain.get_str(TRACESTATE)),
            (Some(PARENT), Some("a=1"))
        );
        assert_eq!((own.get_str(TRACEPARENT), own.len()), (Some("mine"), 1));
        let mut outside = Metadata::new();
        carry(&mut outside);
        assert!(outside.is_empty());
        let long = Trace::of(&metadata(PARENT, &"x".repeat(LONGEST_STATE + 1)));
        assert_eq!(long.unwrap().state, None);
    }
}
