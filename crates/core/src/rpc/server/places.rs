//! Places among the handlers of a server, for calls that come by another way than its connections.
//!
//! They wait in the same queue, run under the same limit, and are refused for the same reasons.

use super::{Pending, PendingKind, Server};
use crate::rpc::admission::{Applicant, Ended, Entry, Ticket};
use crate::rpc::context::Context;
use crate::rpc::event::RequestKey;
use crate::service::{MethodId, NotExecuted, Priority};
use crate::time::Instant;

/// A call that asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceRequest {
    /// Its method.
    pub method: MethodId,
    /// How much it matters.
    pub priority: Priority,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// Bytes that it holds while it waits.
    pub bytes: u64,
}

/// How a call leaves its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceEnd {
    /// Its handler has ended.
    Answered,
    /// Nobody waits for it any more, or its handler was not started: its time says nothing.
    Withdrawn,
}

impl Server {
    /// A call asks for a place. Returns its key, and whether it has the place at once.
    pub(crate) fn ask_place(
        &mut self,
        cx: &mut Context<'_>,
        request: PlaceRequest,
    ) -> (RequestKey, bool) {
        let PlaceRequest { method, priority, deadline, bytes } = request;
        let ticket = self.admission.begin(cx.now);
        let (kind, came) = (PendingKind::Place, cx.now);
        let key =
            RequestKey(self.requests.insert(Pending { kind, ticket, method, deadline, came }));
        self.places += 1;
        let waits = ticket == Ticket::WAITING;
        if waits {
            let entry = Entry::Place(key);
            self.enqueue(cx, Applicant { entry, method, priority, deadline, bytes });
        }
        (key, !waits)
    }

    /// A call leaves its place, or does not wait for one any more. One that was refused is ignored.
    pub(crate) fn leave_place(&mut self, cx: &mut Context<'_>, key: RequestKey, end: PlaceEnd) {
        let place = |pending: &Pending| matches!(pending.kind, PendingKind::Place);
        if !self.requests.get(key.0).is_some_and(place) {
            return;
        }
        let Some(Pending { ticket, method, deadline, .. }) = self.requests.remove(key.0) else {
            return;
        };
        self.places -= 1;
        match end {
            PlaceEnd::Answered => self.admission.end(cx.now, Ended { ticket, method, deadline }),
            PlaceEnd::Withdrawn => self.admission.withdraw(ticket),
        }
        self.start_waiting(cx);
        self.check_drained(cx);
    }

    /// A stream that comes by another way is to begin: not while so much more comes than can be run.
    ///
    /// # Errors
    /// When to come back.
    pub(crate) fn may_begin_stream(
        &mut self,
        cx: &mut Context<'_>,
        priority: Priority,
    ) -> Result<(), NotExecuted> {
        if !self.admission.is_overloaded(cx.now) {
            return Ok(());
        }
        Err(self.admission.refuse_stream(cx.now, priority, cx.random))
    }
}
