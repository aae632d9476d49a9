//! What became of a call, as far as gRPC tells.

use std::error::Error;
use std::sync::atomic::{AtomicU8, Ordering};

use stubborn_core::service::{CallError, Method, NotExecuted, Outcome, Semantics};
use stubborn_core::session::NotExecutedReason as Reason;
use tonic::{Code, Status};

use crate::{EXECUTED, EXECUTING, words};

/// Whether the request was handed to a connection. Either it is sent, or it never is: what is decided
/// first holds.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU8);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const SHUT: u8 = 2;

impl Gate {
    /// Lets the request through, unless the gate was shut.
    pub(super) fn pass(&self) -> bool {
        let decided = self.0.compare_exchange(WAITING, SENT, Ordering::AcqRel, Ordering::Acquire);
        decided.map_or_else(|now| now == SENT, |_| true)
    }

    /// Shuts the gate; false if the request has passed.
    pub(super) fn shut(&self) -> bool {
        let decided = self.0.compare_exchange(WAITING, SHUT, Ordering::AcqRel, Ordering::Acquire);
        decided.map_or_else(|now| now == SHUT, |_| true)
    }
}

/// A call that was never sent.
pub(super) fn never_sent(method: &Method, reason: Reason, why: impl Into<String>) -> CallError {
    let why = NotExecuted::because(reason, why.into());
    CallError::new(method.name().to_owned(), Outcome::NotExecuted(why))
}

/// A call that may have run.
pub(super) fn unknown(method: &Method, why: impl Into<String>) -> CallError {
    let harmless = matches!(method.semantics(), Semantics::Read | Semantics::Maybe);
    let outcome = if harmless { Outcome::Unanswered } else { Outcome::Lost };
    CallError::new(method.name().to_owned(), outcome).because(why.into())
}

/// A call that was sent and ended with this status.
pub(super) fn failed(method: &Method, status: &Status) -> CallError {
    if let Some(why) = words::not_executed_from(status) {
        return CallError::new(method.name().to_owned(), Outcome::NotExecuted(why));
    }
    if was_refused(status) {
        return never_sent(method, Reason::Overloaded, "the server refused the stream");
    }
    let says = |key| status.metadata().contains_key(key);
    let on_the_way = status.source().is_some()
        // What an HTTP proxy says, in the words of tonic.
        || status.message().starts_with("grpc-status header missing");
    let ambiguous = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Ok
    );
    if !on_the_way && !says(EXECUTING) && (says(EXECUTED) || !ambiguous) {
        let outcome = Outcome::Executed(words::status_from(status));
        return CallError::new(method.name().to_owned(), outcome);
    }
    let mut why = format!("{}: {}", status.code().description(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    unknown(method, why)
}

/// Whether the server said that it did nothing with the stream (RFC 9113 §8.7).
fn was_refused(status: &Status) -> bool {
    let refused = |error: &h2::Error| {
        error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
    };
    chain(status).any(|error| error.downcast_ref().is_some_and(refused))
}

/// Whether there was no connection to send anything on.
pub(super) fn was_unreachable(status: &Status) -> bool {
    chain(status).any(|error| error.is::<tonic::ConnectError>())
}

fn chain(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stubborn_core::service::Shape;

    use super::*;

    const CHANGE: Method = Method::new("a.B/Change", Semantics::AtMostOnce, Shape::Unary);
    const LOOK: Method = Method::new("a.B/Look", Semantics::Read, Shape::Unary);

    fn outcome(method: &Method, status: &Status) -> Outcome {
        failed(method, status).into_outcome()
    }

    #[test]
    fn a_code_that_may_come_from_the_way_says_nothing_about_the_call() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled] {
            let status = Status::new(code, "");
            assert_eq!(outcome(&CHANGE, &status), Outcome::Lost, "{code:?}");
            assert_eq!(outcome(&LOOK, &status), Outcome::Unanswered, "{code:?}");
        }
    }

    #[test]
    fn what_only_a_handler_says_was_said_by_it() {
        let status = Status::failed_precondition("no money");
        assert!(
            matches!(outcome(&CHANGE, &status), Outcome::Executed(s) if s.message() == "no money")
        );
        let mut broken = Status::internal("broken pipe");
        broken.set_source(Arc::new(std::io::Error::other("broken pipe")));
        assert_eq!(outcome(&CHANGE, &broken), Outcome::Lost);
        let proxy = Status::unknown("grpc-status header missing, mapped from HTTP status code 500");
        assert_eq!(outcome(&CHANGE, &proxy), Outcome::Lost);
    }

    #[test]
    fn a_server_of_ours_says_what_plain_grpc_cannot() {
        let mut status = Status::unavailable("the handler says so");
        status.metadata_mut().insert(EXECUTED, 1.into());
        assert!(matches!(outcome(&CHANGE, &status), Outcome::Executed(_)));
        let status = words::not_executed_to(&NotExecuted::new(Reason::Draining));
        assert!(
            matches!(outcome(&CHANGE, &status), Outcome::NotExecuted(why) if why.reason == Reason::Draining)
        );
        let status = words::executing(Code::Aborted, "still at it");
        assert_eq!(outcome(&CHANGE, &status), Outcome::Lost);
    }

    #[test]
    fn only_a_stream_that_the_server_refused_is_known_not_to_have_run() {
        let mut status = Status::unavailable("");
        status.set_source(Arc::new(h2::Error::from(h2::Reason::REFUSED_STREAM)));
        assert_eq!(outcome(&CHANGE, &status), Outcome::Lost, "it was this side that refused");
    }

    #[test]
    fn a_request_is_sent_or_never_is() {
        let gate = Gate::default();
        assert!(gate.pass() && !gate.shut() && gate.pass());
        let gate = Gate::default();
        assert!(gate.shut() && !gate.pass() && gate.shut());
    }
}
