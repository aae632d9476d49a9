//! Who is let in: whose token it is, and whether they may call this.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use stubborn_core::service::{CallContext, Metadata, Method, NotExecuted, Peer};
use stubborn_core::session::NotExecutedReason as Reason;

use super::permissions::Rules;
use super::subjects::Subjects;

/// The metadata that tokens come in (RFC 6750 §2.1).
pub(crate) const AUTHORIZATION: &str = "authorization";

const SCHEME: &str = "bearer";

/// Says whose token it is; `None` if nobody's.
pub(crate) type Authenticator = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Lets callers in, or not.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    pub(crate) authenticator: Option<Authenticator>,
    /// None if everybody may call everything.
    pub(crate) rules: Option<Arc<Rules>>,
    /// Whose sessions are; none if that is not looked at.
    pub(crate) subjects: Option<Arc<Subjects>>,
}

impl Gate {
    pub(super) fn is_open(&self) -> bool {
        self.authenticator.is_none() && self.rules.is_none()
    }

    /// Looks whose token the call has, and whether they may make it. The call then knows the subject.
    ///
    /// # Errors
    /// Why it does not run.
    pub(crate) fn admit(
        &self,
        method: &Method,
        context: &mut CallContext,
    ) -> Result<(), NotExecuted> {
        // A hook is foreign code, and what it lets in is unknown if it panics.
        let judged = catch_unwind(AssertUnwindSafe(|| {
            self.authenticate(context)?;
            self.authorize(method, context)
        }));
        judged.unwrap_or_else(|_| refuse(Reason::PermissionDenied, "a hook panicked"))
    }

    fn authenticate(&self, context: &mut CallContext) -> Result<(), NotExecuted> {
        let Some(authenticator) = &self.authenticator else { return Ok(()) };
        let Some(token) = token(&context.metadata)? else {
            // Whether anonymous callers may call is for the rules to say.
            return match &self.rules {
                Some(_) => Ok(()),
                None => refuse(Reason::Unauthenticated, "this server wants a token"),
            };
        };
        let Some(subject) = authenticator(token) else {
            return refuse(Reason::Unauthenticated, "the token is not accepted");
        };
        let subject: Arc<str> = subject.into();
        if let (Some(subjects), Some(id)) = (&self.subjects, context.id)
            && !subjects.belongs(id.session, &subject)
        {
            let why = "the session belongs to another identity: a channel has one token's identity";
            return refuse(Reason::PermissionDenied, why);
        }
        context.peer = Arc::new(Peer { subject: Some(subject), ..Peer::clone(&context.peer) });
        Ok(())
    }

    fn authorize(&self, method: &Method, context: &CallContext) -> Result<(), NotExecuted> {
        match &self.rules {
            Some(rules) if !rules.allow(method, context) => {
                let peer = &context.peer;
                let known = peer.subject.is_some() || peer.identity.is_some();
                let reason = match known || self.authenticator.is_none() {
                    true => Reason::PermissionDenied,
                    false => Reason::Unauthenticated,
                };
                refuse(reason, "")
            }
            _ => Ok(()),
        }
    }
}

/// The token of a call.
///
/// # Errors
/// If there is something else in its place.
fn token(metadata: &Metadata) -> Result<Option<&str>, NotExecuted> {
    let mut values = metadata.iter().filter(|(key, _)| *key == AUTHORIZATION);
    let Some((_, value)) = values.next() else { return Ok(None) };
    let text = std::str::from_utf8(value).ok().and_then(|text| text.split_once(' '));
    match (text, values.next()) {
        (Some((scheme, token)), None)
            if scheme.eq_ignore_ascii_case(SCHEME) && !token.trim().is_empty() =>
        {
            Ok(Some(token.trim()))
        }
        _ => refuse(Reason::Unauthenticated, "authorization is one value: Bearer TOKEN"),
    }
}

fn refuse<T>(reason: Reason, why: &'static str) -> Result<T, NotExecuted> {
    Err(if why.is_empty() { NotExecuted::new(reason) } else { NotExecuted::because(reason, why) })
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::{Semantics, ServiceDescriptor, Shape};
    use stubborn_core::session::{CallId, SessionId};

    use super::super::permissions::Permissions;
    use super::*;

    const CHANGE: Method = Method::new("a.B/Change", Semantics::AtMostOnce, Shape::Unary);
    static SERVICE: ServiceDescriptor =
        ServiceDescriptor { name: "a.B", methods: &[CHANGE], file_descriptor_set: &[] };

    fn call(authorization: &[&str]) -> CallContext {
        let mut context = CallContext::default();
        for value in authorization {
            context.metadata.insert(AUTHORIZATION, *value).unwrap();
        }
        context
    }

    /// Tokens are of whom they name, in small letters.
    fn gate(permissions: Option<Permissions>) -> Gate {
        let small = |token: &str| token.chars().all(|c| c.is_ascii_lowercase());
        let authenticator = move |token: &str| small(token).then(|| token.to_owned());
        let resolve = |p: Permissions| Arc::new(p.resolve([&SERVICE].into_iter()).unwrap());
        Gate {
            authenticator: Some(Arc::new(authenticator)),
            rules: permissions.map(resolve),
            subjects: Some(Arc::new(Subjects::new(8))),
        }
    }

    fn refused(gate: &Gate, mut context: CallContext) -> Option<Reason> {
        gate.admit(&CHANGE, &mut context).err().map(|why| why.reason)
    }

    #[test]
    fn what_is_no_bearer_token_or_nobodys_is_refused() {
        let gate = gate(None);
        for wrong in [
            &[][..],
            &["ada"],
            &["Basic ada"],
            &["Bearer "],
            &["Bearer"],
            &["Bearer ADA"],
            &["Bearer ada", "Bearer bob"],
        ] {
            assert_eq!(refused(&gate, call(wrong)), Some(Reason::Unauthenticated), "{wrong:?}");
        }
        let mut context = call(&["bearer  ada"]);
        gate.admit(&CHANGE, &mut context).unwrap();
        assert_eq!(context.peer.subject.as_deref(), Some("ada"));
    }

    #[test]
    fn rules_decide_of_callers_without_a_token_and_of_subjects() {
        let open = gate(Some(Permissions::new().allow_anybody("a.B")));
        assert_eq!(refused(&open, call(&[])), None);
        assert_eq!(refused(&open, call(&["Bearer ADA"])), Some(Reason::Unauthenticated));
        let ada = gate(Some(Permissions::new().allow_subjects("a.B", ["ada"])));
        assert_eq!(refused(&ada, call(&[])), Some(Reason::Unauthenticated));
        assert_eq!(refused(&ada, call(&["Bearer bob"])), Some(Reason::PermissionDenied));
        assert_eq!(refused(&ada, call(&["Bearer ada"])), None);
    }

    #[test]
    fn a_hook_that_panics_lets_nobody_in() {
        let gate = gate(Some(Permissions::new().allow("a.B", |_| panic!("as its test wants"))));
        assert_eq!(refused(&gate, call(&["Bearer ada"])), Some(Reason::PermissionDenied));
    }

    #[test]
    fn a_session_belongs_to_the_subject_of_its_first_call() {
        let gate = gate(None);
        let of = |session: u64, who: &str| {
            let session = SessionId { incarnation: 1, number: session };
            let id = Some(CallId { session, slot: 0, sequence: 1 });
            refused(&gate, CallContext { id, ..call(&[&format!("Bearer {who}")]) })
        };
        assert_eq!(of(1, "ada"), None);
        assert_eq!(of(1, "bob"), Some(Reason::PermissionDenied));
        assert_eq!(of(2, "bob"), None);
        assert_eq!(of(1, "ada"), None);
    }
}
