//! Calls that end without a reply, and what it takes to ask for their outcome later.

use std::future::Future;

use stubborn::{CallError, CallId, Connection, NotExecuted, NotExecutedReason, Outcome};

use crate::error::Error;
use crate::remote::Link;
use crate::tickets;

/// Waits for what a call needs before it can be sent, a session above all, unless Ctrl-C comes first.
pub(crate) async fn before_sending<T>(
    method: &str,
    ready: impl Future<Output = Result<T, impl Into<Error>>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            let why = NotExecuted::because(NotExecutedReason::NeverSent, "interrupted before it was sent");
            Err(CallError::new(method.to_owned(), Outcome::NotExecuted(why)).into())
        }
        ready = ready => ready.map_err(Into::into),
    }
}

/// Waits for the answer to a call, unless Ctrl-C comes first: then it may have run.
pub(crate) async fn unless_interrupted<T>(
    method: &str,
    id: Option<CallId>,
    answer: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    tokio::select! {
        // Listened for from before the call is sent.
        biased;
        _ = tokio::signal::ctrl_c() => {
            let outcome = id.map_or(Outcome::Unanswered, Outcome::Pending);
            Err(CallError::new(method.to_owned(), outcome).with_id(id).because("interrupted"))
        }
        answer = answer => answer,
    }
}

/// Says what became of a call without a reply, and keeps what a new process needs to ask for the outcome
/// of one that is pending: its session must stay.
pub(crate) fn told(link: &Link, addr: &str, error: CallError) -> Error {
    let Outcome::Pending(id) = *error.outcome() else { return error.into() };
    let kept = link
        .connection()
        .and_then(Connection::ticket)
        .ok_or_else(|| Error::internal("the session is gone"))
        .and_then(|ticket| tickets::keep(id, &ticket, error.method()));
    let converted = Error::from(error);
    match kept {
        Ok(()) => converted
            .with_hint(format!("the call is {id}; ask again with: stubborn outcome {addr} {id}")),
        Err(why) => converted.with_hint(format!(
            "the call is {id}, but its outcome cannot be asked for later: {why}"
        )),
    }
}
