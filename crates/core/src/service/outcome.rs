//! How a call ends: the promise, as types.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::net::SocketAddr;

use super::status::Status;
use crate::session::{CallId, NotExecutedReason};
use crate::time::Duration;

/// What became of a call that returned no reply.
///
/// `docs/semantics.md` says when each arises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran, once, and the handler said this.
    Executed(Status),
    /// It did not run and never will: sending it anywhere is safe.
    NotExecuted(NotExecuted),
    /// It is still executing, or the server cannot be reached: ask later with this id.
    Pending(CallId),
    /// The memory of its session is gone: whether it ran cannot be known, and asking again is
    /// useless. The server refuses every later copy.
    Lost,
    /// Only for reads and `maybe` calls: no reply came. It has no side effects (or was sent without a
    /// promise), so it may be sent again anywhere.
    Unanswered,
}

/// Why a call did not run, in a word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotExecuted {
    /// The kind of reason.
    pub reason: NotExecutedReason,
    /// More, for people; may be empty.
    pub detail: Cow<'static, str>,
    /// In milliseconds; zero for none. No call is to be moved for it.
    retry_after: u32,
}

impl NotExecuted {
    /// A reason without more to say.
    pub const fn new(reason: NotExecutedReason) -> Self {
        Self { reason, detail: Cow::Borrowed(""), retry_after: 0 }
    }

    /// A reason with a sentence for people.
    pub fn because(reason: NotExecutedReason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), retry_after: 0 }
    }

    /// The same with a hint when to come back, in whole milliseconds.
    pub fn with_retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX).max(1);
        self
    }

    /// When it may be worth to come back to this server, if it has said so.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after > 0).then(|| Duration::from_millis(self.retry_after.into()))
    }
}

impl fmt::Display for NotExecuted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{}", self.reason)
        } else {
            f.write_str(&self.detail)
        }
    }
}

/// A call that returned no reply: what failed, where, and whether it ran.
#[derive(Clone, Debug)]
pub struct CallError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    method: Cow<'static, str>,
    peer: Option<SocketAddr>,
    id: Option<CallId>,
    outcome: Outcome,
    detail: Cow<'static, str>,
    taken: Option<u64>,
}

impl CallError {
    /// An error of a call of `method` (a full name) that ended with `outcome`.
    pub fn new(method: impl Into<Cow<'static, str>>, outcome: Outcome) -> Self {
        Self(Box::new(Inner {
            method: method.into(),
            peer: None,
            id: None,
            outcome,
            detail: Cow::Borrowed(""),
            taken: None,
        }))
    }

    /// The same, at this server.
    #[must_use]
    pub fn at(mut self, peer: Option<SocketAddr>) -> Self {
        self.0.peer = peer;
        self
    }

    /// The same, with the id of the call.
    #[must_use]
    pub fn with_id(mut self, id: Option<CallId>) -> Self {
        self.0.id = id;
        self
    }

    /// The same, with what led to it, for people.
    #[must_use]
    pub fn because(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// The same of a stream, with how many of the client's messages the handler took.
    #[must_use]
    pub fn with_taken(mut self, taken: Option<u64>) -> Self {
        self.0.taken = taken;
        self
    }

    /// Of a stream: how many of the client's messages the handler took. Exact if the call was executed
    /// or was not; if that is not known, it took at least so many.
    pub fn taken(&self) -> Option<u64> {
        self.0.taken
    }

    /// What became of the call.
    pub fn outcome(&self) -> &Outcome {
        &self.0.outcome
    }

    /// What became of the call, by value.
    pub fn into_outcome(self) -> Outcome {
        self.0.outcome
    }

    /// The full name of the method.
    pub fn method(&self) -> &str {
        &self.0.method
    }

    /// The server that was asked, if the call got that far.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// The id of the call, if it got one.
    pub fn call_id(&self) -> Option<CallId> {
        self.0.id
    }

    /// The status, if the handler ran and refused.
    pub fn status(&self) -> Option<&Status> {
        match &self.0.outcome {
            Outcome::Executed(status) => Some(status),
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { method, peer, outcome, detail, .. } = &*self.0;
        f.write_str(method)?;
        if let Some(peer) = peer {
            write!(f, " at {peer}")?;
        }
        match outcome {
            Outcome::Executed(status) => write!(f, ": {status}")?,
            Outcome::NotExecuted(why) => write!(f, ": not executed: {why}")?,
            Outcome::Pending(_) => f.write_str(": outcome not known yet")?,
            Outcome::Lost => f.write_str(": outcome lost with the server's memory")?,
            Outcome::Unanswered => f.write_str(": no reply")?,
        }
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        match outcome {
            Outcome::Pending(id) => write!(f, " (ask again with id {id})"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for CallError {}

/// What a server says of a call when asked for its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallState<R> {
    /// It ran, once, and returned this reply.
    Replied(R),
    /// It ran, once, and the handler said this.
    Executed(Status),
    /// It ran, once; its reply was too large to be kept.
    ReplyNotKept,
    /// It did not run and never will.
    NotExecuted(NotExecuted),
    /// It is executing now: ask later.
    Executing,
    /// It has not arrived. Not final: a copy may still be under way. Only its own session can make
    /// it final.
    NotArrived,
    /// It was settled and its reply released: the caller that owned it knew the outcome.
    AlreadySettled,
    /// The server does not know the session (any more): whether it ran cannot be known.
    Lost,
}

impl<R> CallState<R> {
    /// Converts the reply, keeping every other state.
    pub fn try_map<T, E>(self, f: impl FnOnce(R) -> Result<T, E>) -> Result<CallState<T>, E> {
        Ok(match self {
            Self::Replied(r) => CallState::Replied(f(r)?),
            Self::Executed(s) => CallState::Executed(s),
            Self::ReplyNotKept => CallState::ReplyNotKept,
            Self::NotExecuted(n) => CallState::NotExecuted(n),
            Self::Executing => CallState::Executing,
            Self::NotArrived => CallState::NotArrived,
            Self::AlreadySettled => CallState::AlreadySettled,
            Self::Lost => CallState::Lost,
        })
    }
}

/// Formats a message that names a cause, for errors' details.
pub(crate) fn text(args: fmt::Arguments<'_>) -> Cow<'static, str> {
    match args.as_str() {
        Some(s) => Cow::Borrowed(s),
        None => {
            let mut s = String::new();
            let _ = fmt::write(&mut s, args);
            Cow::Owned(s)
        }
    }
}
