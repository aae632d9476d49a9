//! What became of a call, as far as gRPC tells.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use stubborn_core::service::{CallError, Method, NotExecuted, Outcome, Semantics};
use stubborn_core::session::NotExecutedReason as Reason;
use tonic::{Code, Status};

use crate::{EXECUTED, EXECUTING, words};

/// Whether the request was handed to a connection. Either it is sent, or it never is: what is decided
/// first holds.
#[derive(Debug, Default)]
pub(super) struct Gate {
    decided: AtomicU8,
    /// The server has begun to answer.
    answered: AtomicBool,
}

const WAITING: u8 = 0;
const SENT: u8 = 1;
const SHUT: u8 = 2;

impl Gate {
    /// Lets the request through, unless the gate was shut.
    pub(super) fn pass(&self) -> bool {
        self.decide(SENT)
    }

    /// Shuts the gate; false if the request has passed.
    pub(super) fn shut(&self) -> bool {
        self.decide(SHUT)
    }

    fn decide(&self, as_: u8) -> bool {
        let decided =
            self.decided.compare_exchange(WAITING, as_, Ordering::SeqCst, Ordering::SeqCst);
        decided.map_or_else(|before| before == as_, |_| true)
    }

    /// The headers of the answer are here.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }
}

/// What is known of an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The connection has taken nothing of the request, and takes no other.
    Unsent,
    /// It was sent, and the server said that it has not looked at it. `leaving`: nor at any other on this
    /// connection.
    Unseen { leaving: bool },
    /// The server may have seen it.
    Seen,
}

impl Attempt {
    /// Of a request whose one message is behind this gate, which it shuts.
    pub(super) fn of(gate: &Gate, status: &Status) -> Self {
        if gate.shut() { Self::Unsent } else { Self::of_sent(gate, status) }
    }

    /// Of a request that begins with its headers: hyper says of one that it never handed on that it was
    /// canceled.
    pub(super) fn of_stream(gate: &Gate, status: &Status) -> Self {
        let queued = |error: &hyper::Error| error.is_canceled();
        if find(status, queued) { Self::Unsent } else { Self::of_sent(gate, status) }
    }

    fn of_sent(gate: &Gate, status: &Status) -> Self {
        // RFC 9113 §6.8: what is above the last stream that a GOAWAY names was not looked at. Only those
        // streams end by it: h2 leaves the others to their end.
        let left = |error: &h2::Error| error.is_remote() && error.is_go_away();
        // RFC 9113 §8.7.
        let refused = |error: &h2::Error| {
            error.is_remote()
                && error.is_reset()
                && error.reason() == Some(h2::Reason::REFUSED_STREAM)
        };
        match () {
            () if gate.is_answered() => Self::Seen,
            () if find(status, left) => Self::Unseen { leaving: true },
            () if find(status, refused) => Self::Unseen { leaving: false },
            () => Self::Seen,
        }
    }
}

/// A call whose server says that it has not looked at it.
pub(super) fn unseen(method: &Method, leaving: bool) -> CallError {
    if leaving {
        never_sent(method, Reason::Draining, "the server left before it looked at the stream")
    } else {
        never_sent(method, Reason::Overloaded, "the server refused the stream")
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

/// Whether an error among the causes of a status is like this.
fn find<E: Error + 'static>(status: &Status, like: impl Fn(&E) -> bool) -> bool {
    chain(status).any(|error| error.downcast_ref().is_some_and(&like))
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
    fn only_what_the_server_refused_is_known_not_to_have_run() {
        let mut status = Status::unavailable("");
        status.set_source(Arc::new(h2::Error::from(h2::Reason::REFUSED_STREAM)));
        let gate = Gate::default();
        assert!(gate.pass());
        assert_eq!(Attempt::of(&gate, &status), Attempt::Seen, "it was this side that refused");
        assert_eq!(Attempt::of(&Gate::default(), &status), Attempt::Unsent);
        assert_eq!(Attempt::of_stream(&Gate::default(), &status), Attempt::Seen);
    }

    #[test]
    fn a_request_is_sent_or_never_is() {
        let gate = Gate::default();
        assert!(gate.pass() && !gate.shut() && gate.pass());
        let gate = Gate::default();
        assert!(gate.shut() && !gate.pass() && gate.shut());
    }
}
