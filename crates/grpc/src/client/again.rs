//! Unary calls that are made again: at once where no server has looked at them (gRFC A6 calls these
//! transparent retries), and by the channel's policy where what is known of the call allows it, as over
//! datagrams (`docs/decisions/0025-balancing.md`).

use std::time::Duration;

use stubborn_core::rpc::{MethodConfig, Policies, RetryPolicy, ServiceConfig};
use stubborn_core::service::{CallError, Code, Method, Outcome, Semantics};
use stubborn_core::session::NotExecutedReason as Reason;
use tonic::metadata::MetadataMap;

use super::outcome::unknown;
use crate::PUSHBACK;

/// By this key a client says how often it has tried before.
pub(super) const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// How often a call goes out again at once that a server has refused unseen (A6: once).
pub(super) const UNSEEN: u32 = 1;

/// How often one does that no connection has taken. A6 names no bound; a connection is left after each,
/// so that this many were there and ended at the wrong moment.
pub(super) const UNSENT: u32 = 16;

/// What there is to know of a call's attempts so far.
pub(super) struct Attempts<'a> {
    method: &'a Method,
    policy: Option<&'a RetryPolicy>,
    /// An idempotent call may run again at another server.
    elsewhere: bool,
    made: u32,
    /// Attempts since the server said last when to come back: the pauses begin anew then.
    since_push_back: u32,
    unseen: u32,
    unsent: u32,
    may_have_run: bool,
    /// How the last attempt ended that was executed.
    last: Option<CallError>,
}

/// Another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// How long to wait, and whether the pause is to be drawn.
    pub(super) pause: Duration,
    pub(super) drawn: bool,
    /// At the same server or nowhere.
    pub(super) there: bool,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(method: &'a Method, config: &'a ServiceConfig, policies: &Policies) -> Self {
        let own = policies.of(config, method);
        let idempotent = method.semantics() == Semantics::Idempotent;
        Self {
            method,
            policy: policies.retry(config, method),
            elsewhere: idempotent && own.is_some_and(|own: &MethodConfig| own.idempotent_elsewhere),
            made: 1,
            since_push_back: 1,
            unseen: UNSEEN,
            unsent: UNSENT,
            may_have_run: false,
            last: None,
        }
    }

    /// Attempts that a server has looked at, or may have, with the one that comes next.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Nothing of an attempt was sent: whether there is another one at once.
    pub(super) fn after_unsent(&mut self) -> bool {
        take(&mut self.unsent)
    }

    /// A server has not looked at an attempt: whether there is another one at once.
    pub(super) fn after_unseen(&mut self) -> bool {
        take(&mut self.unseen)
    }

    /// An attempt ended so, with these headers: whether the policy has another one. `alone`: it can only
    /// go to the same server again, so that what that one says of coming back counts.
    pub(super) fn after(
        &mut self,
        error: &CallError,
        headers: &MetadataMap,
        alone: bool,
    ) -> Option<Next> {
        let there = self.may_go(error.outcome());
        match error.outcome() {
            Outcome::NotExecuted(_) => {}
            Outcome::Executed(_) => {
                self.may_have_run = true;
                self.last = Some(error.clone());
            }
            Outcome::Pending(_) | Outcome::Lost | Outcome::Unanswered => self.may_have_run = true,
        }
        let (there, policy) = (there?, self.policy?);
        if self.made >= policy.max_attempts {
            return None;
        }
        let heard = alone || !matches!(error.outcome(), Outcome::NotExecuted(_));
        let (pause, drawn) = match headers.get(PUSHBACK).filter(|_| heard) {
            None => (policy.pause(self.since_push_back), true),
            Some(value) => {
                let pause = value.to_str().ok().and_then(|text| text.parse::<u32>().ok())?;
                self.since_push_back = 0;
                (Duration::from_millis(pause.into()), false)
            }
        };
        self.made += 1;
        self.since_push_back += 1;
        Some(Next { pause, drawn, there })
    }

    /// Whether what is known allows another attempt, and then whether only at the same server.
    fn may_go(&self, outcome: &Outcome) -> Option<bool> {
        let listed = |code: Code| self.policy.is_some_and(|policy| policy.codes.contains(code));
        let semantics = self.method.semantics();
        match (outcome, semantics) {
            (Outcome::NotExecuted(why), _)
                if !matches!(why.reason, Reason::Overloaded | Reason::Draining) =>
            {
                None
            }
            (Outcome::NotExecuted(_), Semantics::Read) => Some(false),
            (Outcome::NotExecuted(_), _) if !self.may_have_run || self.elsewhere => Some(false),
            (Outcome::NotExecuted(_), Semantics::Idempotent) => Some(true),
            (Outcome::Executed(status), _) if !listed(status.code()) => None,
            (Outcome::Executed(_), Semantics::Read) => Some(false),
            (Outcome::Executed(_), Semantics::Idempotent) => Some(!self.elsewhere),
            // It may still run, and a late copy could undo a newer write.
            (Outcome::Lost, Semantics::Idempotent) if self.elsewhere => {
                listed(Code::Unavailable).then_some(false)
            }
            (Outcome::Unanswered, Semantics::Read) => listed(Code::Unavailable).then_some(false),
            _ => None,
        }
    }

    /// What is to be said of the call whose last attempt ended so: no less than what is known of those
    /// before.
    pub(super) fn told(self, error: CallError) -> CallError {
        match (error.outcome(), self.last) {
            (Outcome::Executed(_) | Outcome::Pending(_), _) => error,
            (_, Some(last)) => last,
            (Outcome::NotExecuted(why), None) if self.may_have_run => {
                unknown(self.method, why.to_string())
            }
            _ => error,
        }
    }
}

fn take(left: &mut u32) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

#[cfg(test)]
mod tests {
    use stubborn_core::rpc::MethodName;
    use stubborn_core::service::{NotExecuted, Shape, Status};

    use super::*;

    fn method(semantics: Semantics) -> Method {
        Method::new("a.B/C", semantics, Shape::Unary)
    }

    fn after(
        semantics: Semantics,
        config: &ServiceConfig,
        outcomes: &[Outcome],
    ) -> (Option<Next>, Outcome) {
        let method = method(semantics);
        let policies = Policies::new(config);
        let mut attempts = Attempts::new(&method, config, &policies);
        let mut next = None;
        for outcome in outcomes {
            let error = CallError::new("a.B/C", outcome.clone());
            next = attempts.after(&error, &MetadataMap::new(), false);
        }
        let last = CallError::new("a.B/C", outcomes.last().unwrap().clone());
        (next, attempts.told(last).into_outcome())
    }

    fn overloaded() -> Outcome {
        Outcome::NotExecuted(NotExecuted::new(Reason::Overloaded))
    }

    fn unavailable() -> Outcome {
        Outcome::Executed(Status::unavailable("no"))
    }

    #[test]
    fn a_call_is_made_again_as_far_as_what_is_known_of_it_allows() {
        let config = ServiceConfig::default();
        let (any, there) = (Some(false), Some(true));
        use Semantics::{AtMostOnce, Idempotent, Read};
        for (semantics, outcome, expected) in [
            (AtMostOnce, overloaded(), any),
            (AtMostOnce, unavailable(), None),
            (AtMostOnce, Outcome::Lost, None),
            (Idempotent, unavailable(), there),
            (Idempotent, Outcome::Lost, None),
            (Read, unavailable(), any),
            (Read, Outcome::Unanswered, any),
            (Read, Outcome::Executed(Status::not_found("no")), None),
            (Read, Outcome::NotExecuted(NotExecuted::new(Reason::Malformed)), None),
        ] {
            let (next, _) = after(semantics, &config, std::slice::from_ref(&outcome));
            assert_eq!(next.map(|next| next.there), expected, "{semantics:?} {outcome:?}");
        }
    }

    #[test]
    fn an_idempotent_call_crosses_to_another_server_only_where_its_settings_say_so() {
        let method = MethodConfig {
            names: vec![MethodName::Any],
            timeout: None,
            wait_for_ready: None,
            again: Default::default(),
            idempotent_elsewhere: true,
        };
        let config = ServiceConfig { methods: vec![method], ..ServiceConfig::default() };
        for outcome in [unavailable(), Outcome::Lost] {
            let (next, _) = after(Semantics::Idempotent, &config, &[outcome]);
            assert_eq!(next.map(|next| next.there), Some(false));
        }
        let (next, _) = after(Semantics::AtMostOnce, &config, &[Outcome::Lost]);
        assert_eq!(next, None);
    }

    #[test]
    fn the_outcome_is_no_worse_and_no_better_than_what_is_known() {
        let config = ServiceConfig::default();
        let told = |semantics, outcomes: &[Outcome]| after(semantics, &config, outcomes).1;
        assert_eq!(told(Semantics::Read, &[unavailable(), overloaded()]), unavailable());
        let (read, lost) = (Semantics::Read, Outcome::Unanswered);
        assert_eq!(told(read, &[lost.clone(), overloaded()]), lost, "it may have run");
        assert_eq!(told(Semantics::AtMostOnce, &[overloaded()]), overloaded());
    }

    #[test]
    fn there_are_as_many_attempts_as_the_policy_says_after_pauses_that_the_server_may_choose() {
        let config = ServiceConfig::default();
        let (method, policies) = (method(Semantics::Read), Policies::new(&config));
        let mut attempts = Attempts::new(&method, &config, &policies);
        let error = CallError::new("a.B/C", unavailable());
        let mut headers = MetadataMap::new();
        let next = attempts.after(&error, &headers, false).unwrap();
        assert_eq!((next.pause, next.drawn), (Duration::from_millis(50), true));
        headers.insert(PUSHBACK, 7.into());
        let next = attempts.after(&error, &headers, false).unwrap();
        assert_eq!((next.pause, next.drawn), (Duration::from_millis(7), false));
        assert_eq!(attempts.after(&error, &headers, false), None, "three in all");
        headers.insert(PUSHBACK, (-1).into());
        let mut attempts = Attempts::new(&method, &config, &policies);
        assert_eq!(attempts.after(&error, &headers, false), None, "the server says never");
    }

    #[test]
    fn what_no_server_has_seen_goes_out_again_at_once_but_not_for_ever() {
        let config = ServiceConfig::default();
        let (method, policies) = (method(Semantics::AtMostOnce), Policies::new(&config));
        let mut attempts = Attempts::new(&method, &config, &policies);
        assert!(attempts.after_unseen() && !attempts.after_unseen());
        assert_eq!((0..100).filter(|_| attempts.after_unsent()).count(), UNSENT as usize);
        assert_eq!(attempts.made(), 1, "no attempt of the policy's");
    }
}
