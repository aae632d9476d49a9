//! What a session says about a call, with the numbers that stand for it on the wire.

use core::fmt;

/// Why a call did not run and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotExecutedReason {
    /// Its number was fenced before the request arrived.
    Fenced,
    /// Its deadline had passed when the server was about to start it, or before it was sent.
    Deadline,
    /// The caller gave it up before it was sent.
    Cancelled,
    /// The server had no room for it, or the client had too many calls waiting.
    Overloaded,
    /// The server is draining: new calls go elsewhere.
    Draining,
    /// The server does not have the method.
    UnknownMethod,
    /// The request could not be read: its body is no message of the method's type.
    Malformed,
    /// The request's body is not the one that its digest was made of: it was altered between the
    /// two stubs.
    Corrupted,
    /// Part of the request was never sent, so that no server can have it.
    NeverSent,
    /// The number is taken by another request.
    FalseRetry,
    /// The request is larger than one of the two sides takes.
    TooLarge,
    /// The server does not know who calls: no token came, or one that it does not accept.
    Unauthenticated,
    /// The server knows who calls, and does not let them.
    PermissionDenied,
}

impl NotExecutedReason {
    const ALL: [Self; 13] = [
        Self::Fenced,
        Self::Deadline,
        Self::Cancelled,
        Self::Overloaded,
        Self::Draining,
        Self::UnknownMethod,
        Self::Malformed,
        Self::Corrupted,
        Self::NeverSent,
        Self::FalseRetry,
        Self::TooLarge,
        Self::Unauthenticated,
        Self::PermissionDenied,
    ];

    /// The number on the wire.
    pub const fn to_wire(self) -> u64 {
        match self {
            Self::Fenced => 0,
            Self::Deadline => 1,
            Self::Cancelled => 2,
            Self::Overloaded => 3,
            Self::Draining => 4,
            Self::UnknownMethod => 5,
            Self::Malformed => 6,
            Self::Corrupted => 7,
            Self::NeverSent => 8,
            Self::FalseRetry => 9,
            Self::TooLarge => 10,
            Self::Unauthenticated => 11,
            Self::PermissionDenied => 12,
        }
    }

    /// The reason of a number; `None` for one that this version does not know. The call is not
    /// executed either way: treat an unknown reason as [`Self::Fenced`].
    pub fn from_wire(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.to_wire() == number)
    }
}

impl fmt::Display for NotExecutedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced => "fenced before it arrived",
            Self::Deadline => "its deadline passed before it started",
            Self::Cancelled => "cancelled before it started",
            Self::Overloaded => "too many calls at once",
            Self::Draining => "the server is draining",
            Self::UnknownMethod => "the server does not have the method",
            Self::Malformed => "the request could not be read",
            Self::Corrupted => "the request was altered on its way",
            Self::NeverSent => "part of the request was never sent",
            Self::FalseRetry => "its number is taken by another request",
            Self::TooLarge => "the request is too large",
            Self::Unauthenticated => "the server does not know who calls",
            Self::PermissionDenied => "the caller may not call this",
        })
    }
}

/// Why a server refuses a session: to open it, to attach to it, or to take a message for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// This server never issued the id, or lost its memory since. It is never opened again.
    Unknown,
    /// This server issued the id and has forgotten the session: retention passed, or it was closed.
    Expired,
    /// The session belongs to another identity, or the secret is wrong.
    Denied,
    /// No room for a further session.
    Full,
    /// The server is draining and opens no sessions.
    Draining,
    /// A later attach took the session over: this connection's epoch is old. Attach again if the
    /// session is still wanted here.
    Superseded,
    /// Another process has used a copy of this one's journal since: the session is not its own.
    TakenOver,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Expired,
        Self::Denied,
        Self::Full,
        Self::Draining,
        Self::Superseded,
        Self::TakenOver,
    ];

    /// The number on the wire.
    pub const fn to_wire(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Expired => 1,
            Self::Denied => 2,
            Self::Full => 3,
            Self::Draining => 4,
            Self::Superseded => 5,
            Self::TakenOver => 6,
        }
    }

    /// The refusal of a number; `None` for one that this version does not know.
    pub fn from_wire(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.to_wire() == number)
    }

    /// Whether the server has no memory of the session and never will: the calls in flight are
    /// settled by [`super::ClientSession::lost`].
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Unknown | Self::Expired)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the server does not know the session",
            Self::Expired => "the server has forgotten the session",
            Self::Denied => "the session belongs to another identity",
            Self::Full => "the server has no room for a further session",
            Self::Draining => "the server is draining",
            Self::Superseded => "another connection has taken the session over",
            Self::TakenOver => "another process has used the session with a copy of the journal",
        })
    }
}

impl core::error::Error for Refusal {}

/// A message that no correct client sends. The connection is closed with a protocol error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A number further than the slot's next.
    Gap,
    /// The number n+1, or the release of n, while n is still executing.
    Unsettled,
    /// A slot that is not granted.
    NotGranted,
}

impl Violation {
    /// The violation in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "a sequence number was left out",
            Self::Unsettled => "a sequence number followed one that is still executing",
            Self::NotGranted => "the slot is not granted",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for Violation {}

/// Why a message for a session was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Answered with REFUSED.
    Session(Refusal),
    /// The peer broke the protocol: its connection is closed.
    Violation(Violation),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Session(refusal)
    }
}

impl From<Violation> for Refused {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(refusal) => refusal.fmt(f),
            Self::Violation(violation) => violation.fmt(f),
        }
    }
}

impl core::error::Error for Refused {}

/// What a server remembers of a call that was asked for from outside its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryAnswer<R> {
    /// The server has not seen the number. Not final: a copy may still arrive and run.
    NotArrived,
    /// It is executing.
    Executing,
    /// It was executed; this is the reply.
    Done(R),
    /// It was executed; the reply is not kept.
    NotKept,
    /// It was not executed and never will be.
    NotExecuted(NotExecutedReason),
    /// The client that made the call has learnt its outcome; the server no longer has it.
    AlreadySettled,
    /// The server has no such session: it restarted, or retention passed.
    UnknownSession,
}

impl<R> QueryAnswer<R> {
    /// The same with what `change` makes of the kept reply; without a reply if that is nothing.
    pub(crate) fn map_reply<T>(self, change: impl FnOnce(R) -> Option<T>) -> QueryAnswer<T> {
        match self {
            Self::Done(reply) => change(reply).map_or(QueryAnswer::NotKept, QueryAnswer::Done),
            Self::NotArrived => QueryAnswer::NotArrived,
            Self::Executing => QueryAnswer::Executing,
            Self::NotKept => QueryAnswer::NotKept,
            Self::AlreadySettled => QueryAnswer::AlreadySettled,
            Self::NotExecuted(reason) => QueryAnswer::NotExecuted(reason),
            Self::UnknownSession => QueryAnswer::UnknownSession,
        }
    }

    /// The number on the wire: the state of OUTCOME.
    pub const fn to_wire(&self) -> u64 {
        match self {
            Self::NotArrived => 0,
            Self::Executing => 1,
            Self::Done(_) => 2,
            Self::NotKept => 3,
            Self::AlreadySettled => 4,
            Self::NotExecuted(_) => 5,
            Self::UnknownSession => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_refusal_survives_the_wire_and_unknown_numbers_are_told() {
        for reason in NotExecutedReason::ALL {
            assert_eq!(NotExecutedReason::from_wire(reason.to_wire()), Some(reason));
        }
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_wire(refusal.to_wire()), Some(refusal));
        }
        assert_eq!(NotExecutedReason::from_wire(13), None);
        assert_eq!(Refusal::from_wire(u64::MAX), None);
    }

    #[test]
    fn only_a_server_without_memory_of_the_session_makes_its_calls_lost() {
        let lost: std::vec::Vec<_> =
            Refusal::ALL.into_iter().filter(|refusal| refusal.is_lost()).collect();
        assert_eq!(lost, [Refusal::Unknown, Refusal::Expired]);
    }
}
