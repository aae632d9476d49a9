//! Who is let in: asked at the node that a client is connected to, before anything of its call is in the
//! log or answered.
//!
//! A refused call with a number cannot be answered at once: a copy of it may be on its way through
//! another node that lets it in, and the slot's next number counts on this one. So a fence for the number
//! takes the call's place in the log ([`SessionCommand::refuse`]), and the client is told what the group
//! makes of it. Commands that another node forwards are not judged again: it is known by its key.

use stubborn_core::node::{IncomingRequest, SessionCommand};
use stubborn_core::service::{Answer, Call, CallContext, Encoded, MethodId, NotExecuted};
use stubborn_core::time::{Duration, Instant};

use super::GroupNode;
use crate::served::Ending;

/// Judges calls of clients. What the nodes of the group say to each other is not judged.
pub trait Gate: Send + Sync {
    /// Whether every call is let in as it is: then none is looked at.
    fn is_open(&self) -> bool {
        false
    }

    /// Whether the call is let in. May put into its context whom its token is of.
    ///
    /// # Errors
    /// Why it is not: it then never runs.
    fn admit(
        &self,
        method: MethodId,
        request: &Encoded,
        context: &mut CallContext,
    ) -> Result<(), NotExecuted>;
}

impl GroupNode {
    /// Judges a command that is a call. One that is not let in is only fenced.
    pub(super) fn judge(&mut self, command: &mut SessionCommand) {
        let Some(gate) = self.gate.as_ref().filter(|gate| !gate.is_open()) else { return };
        let Some((method, call)) = command.asks() else { return };
        let (request, mut context) = call.into_parts();
        match gate.admit(method, &request, &mut context) {
            Ok(()) => command.admitted(context.peer),
            Err(why) => {
                let ending = Ending::NotExecuted(why.reason);
                self.replica.served.note(method, ending, Duration::ZERO);
                command.refuse(why);
            }
        }
    }

    /// The request, if it is let in; else it is answered. Nothing is kept of one without a number.
    pub(super) fn let_in(
        &mut self,
        now: Instant,
        request: IncomingRequest,
    ) -> Option<IncomingRequest> {
        let gate = self.gate.as_ref().filter(|gate| !gate.is_open());
        let Some(gate) = gate else { return Some(request) };
        let IncomingRequest { key, method, kind, stale, watch, call } = request;
        let (message, mut context) = call.into_parts();
        if let Err(why) = gate.admit(method, &message, &mut context) {
            let ending = Ending::NotExecuted(why.reason);
            self.replica.served.note(method, ending, Duration::ZERO);
            self.node.answer(now, key, Answer::NotExecuted(why));
            return None;
        }
        let call = Call::new(message, context);
        Some(IncomingRequest { key, method, kind, stale, watch, call })
    }
}
