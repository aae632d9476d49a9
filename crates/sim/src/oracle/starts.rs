//! By number: no call starts twice, none starts that was reported not executed or lost, and what
//! was reported executed has started.

use std::collections::BTreeSet;

use stubborn_core::service::{CallError, Outcome};
use stubborn_core::session::CallId;

#[derive(Default)]
pub(crate) struct Starts {
    started: BTreeSet<CallId>,
    /// Reported as not executed or lost: no later copy may start.
    over: BTreeSet<CallId>,
}

impl Starts {
    /// A server hands a call to its service.
    pub(crate) fn started(&mut self, call: CallId) -> Result<(), String> {
        if !self.started.insert(call) {
            return Err(format!("the call {call} started twice"));
        }
        if self.over.contains(&call) {
            return Err(format!("the call {call} started after it was reported not to run"));
        }
        Ok(())
    }

    /// The service refused it before any handler ran.
    pub(crate) fn refused(&mut self, call: CallId) {
        self.started.remove(&call);
    }

    /// A client was told how its call ended.
    pub(crate) fn reported(&mut self, error: &CallError) -> Result<(), String> {
        let Some(call) = error.call_id() else { return Ok(()) };
        match error.outcome() {
            Outcome::NotExecuted(_) if self.started.contains(&call) => {
                Err(format!("the call {call} was reported not executed, but it started"))
            }
            Outcome::NotExecuted(_) | Outcome::Lost => {
                self.over.insert(call);
                Ok(())
            }
            Outcome::Executed(_) if !self.started.contains(&call) => {
                Err(format!("the call {call} was reported executed, but it never started"))
            }
            Outcome::Executed(_) | Outcome::Pending(_) | Outcome::Unanswered => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::NotExecuted;
    use stubborn_core::session::{NotExecutedReason, SessionId};

    use super::*;

    const CALL: CallId =
        CallId { session: SessionId { incarnation: 7, number: 1 }, slot: 0, sequence: 1 };

    fn not_executed() -> CallError {
        let why = NotExecuted::new(NotExecutedReason::Fenced);
        CallError::new("a.B/C", Outcome::NotExecuted(why)).with_id(Some(CALL))
    }

    #[test]
    fn a_second_start_is_seen() {
        let mut starts = Starts::default();
        assert!(starts.started(CALL).is_ok());
        assert!(starts.started(CALL).is_err());
    }

    #[test]
    fn a_start_before_and_one_after_the_report_are_seen() {
        let mut starts = Starts::default();
        assert!(starts.reported(&not_executed()).is_ok());
        assert!(starts.started(CALL).is_err());
        assert!(starts.reported(&not_executed()).is_err());
    }

    #[test]
    fn a_request_that_no_handler_saw_did_not_start() {
        let mut starts = Starts::default();
        assert!(starts.started(CALL).is_ok());
        starts.refused(CALL);
        assert!(starts.reported(&not_executed()).is_ok());
    }
}
