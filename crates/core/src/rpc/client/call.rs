//! One call, reservation or question of this node's user.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;

use crate::rpc::SessionTicket;
use crate::rpc::event::ChannelKey;
use crate::rpc::message::{PayloadRef, RequestPayload};
use crate::service::{
    CallError, Encoded, Metadata, Method, NotExecuted, Outcome, Semantics, Shape, text,
};
use crate::session::{CallId, NotExecutedReason};
use crate::time::{Duration, Instant};
use crate::transport::connection::MessageId;
use crate::transport::endpoint::ConnectionHandle;

/// What somebody waits for.
#[derive(Debug)]
pub(super) struct ClientCall {
    pub(super) channel: ChannelKey,
    pub(super) began: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) wait_for_ready: bool,
    pub(super) work: Work,
    pub(super) state: State,
    /// When [`super::Client::handle_timeout`] looks at it next.
    pub(super) timer: Option<Instant>,
    pub(super) earlier: Earlier,
}

/// What the copies of a call may have done that were sent before the one in hand, or before the call
/// came to wait again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// There is none, or it is proved that none of them ran and none ever will.
    CannotHaveRun,
    /// One of them may have run: a read that was sent on another connection, or an idempotent call
    /// whose server has lost its memory since. No answer to a later copy proves otherwise.
    MayHaveRun,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// A call that takes a slot.
    Numbered(Request),
    /// A read.
    Read(Request),
    /// A number is wanted.
    Reservation,
    /// The outcome of a call is wanted.
    Question { id: CallId, ticket: Option<Box<SessionTicket>> },
}

/// What is sent for a call.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) encoded: Encoded,
    pub(super) metadata: Metadata,
    /// The number was reserved and so is known to the user: no other call may take it.
    pub(super) reserved: bool,
    /// How old the state may be that a read is answered from; none if it has to be that of now.
    pub(super) max_staleness: Option<Duration>,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum State {
    /// Waits in the channel for a server and, if it takes one, a slot.
    Waiting,
    /// Has a number in the session of a link.
    Numbered { link: u64, id: CallId, sending: Option<Sending>, fencing: bool },
    /// Was sent as a read on the connection of a link.
    Reading { link: u64, read: u64 },
    /// Was sent as a query on the connection of a link.
    Asking { link: u64, query: u64 },
    /// A stream of reads whose reader has messages to take before more are asked for.
    Paused,
    /// Waits for the answer that settles a call in flight of the same session.
    Listening,
}

/// A request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) connection: ConnectionHandle,
    pub(super) message: MessageId,
}

impl Request {
    /// To be filled in.
    pub(super) const EMPTY: Self = Self {
        method: Method::new("", Semantics::Maybe, Shape::Unary),
        encoded: Encoded::EMPTY,
        metadata: Metadata::new(),
        reserved: false,
        max_staleness: None,
    };
}

impl ClientCall {
    /// To be filled in.
    pub(super) const EMPTY: Self = Self {
        channel: ChannelKey(0),
        began: Instant::ZERO,
        deadline: None,
        wait_for_ready: false,
        work: Work::Reservation,
        state: State::Waiting,
        timer: None,
        earlier: Earlier::CannotHaveRun,
    };

    pub(super) fn request(&self) -> Option<&Request> {
        match &self.work {
            Work::Numbered(request) | Work::Read(request) => Some(request),
            Work::Reservation | Work::Question { .. } => None,
        }
    }

    pub(super) fn method_name(&self) -> Cow<'static, str> {
        match &self.work {
            Work::Numbered(request) | Work::Read(request) => {
                Cow::Owned(String::from(request.method.name()))
            }
            Work::Reservation => Cow::Borrowed("reservation of a call id"),
            Work::Question { .. } => Cow::Borrowed("question for an outcome"),
        }
    }

    /// Whether a copy that was sent before the one in hand may have run.
    pub(super) fn may_have_run(&self) -> bool {
        self.earlier == Earlier::MayHaveRun
    }

    pub(super) fn id(&self) -> Option<CallId> {
        match (&self.state, &self.work) {
            (State::Numbered { id, .. }, _) | (_, Work::Question { id, .. }) => Some(*id),
            _ => None,
        }
    }

    /// The payload as it is sent at `now`.
    pub(super) fn payload(&self, now: Instant) -> Option<RequestPayload> {
        self.payload_ref(now).map(|payload| payload.to_owned())
    }

    /// The same without a copy.
    pub(super) fn payload_ref(&self, now: Instant) -> Option<PayloadRef<'_>> {
        let request = self.request()?;
        Some(PayloadRef {
            method: request.method.id(),
            deadline: self.deadline.map(|deadline| deadline.since(now)),
            digest: request.encoded.digest,
            metadata: &request.metadata,
            body: &request.encoded.body,
        })
    }

    /// The error that says that it did not run and never will; or what can be said instead, if an
    /// earlier copy may have run.
    pub(super) fn not_executed(
        &self,
        reason: NotExecutedReason,
        detail: impl Into<Cow<'static, str>>,
    ) -> CallError {
        self.error(Outcome::NotExecuted(NotExecuted::because(reason, detail)))
    }

    pub(super) fn error(&self, outcome: Outcome) -> CallError {
        let error = match (outcome, self.earlier) {
            (Outcome::NotExecuted(why), Earlier::MayHaveRun) => {
                let unproved = match self.work {
                    Work::Read(_) => Outcome::Unanswered,
                    _ => Outcome::Lost,
                };
                let why = text(format_args!(
                    "the last copy did not run ({why}), an earlier one may have"
                ));
                CallError::new(self.method_name(), unproved).because(why)
            }
            (outcome, _) => CallError::new(self.method_name(), outcome),
        };
        error.with_id(self.id())
    }

    /// How long the caller has been waiting, for people.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        let waited = now.since(self.began);
        Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
    }
}
