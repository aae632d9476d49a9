//! What stands before the log and the machines of a replica: whose token it is, who may call what, and what
//! the application puts there.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use stubborn_core::service::{
    CallContext, Encoded, Method, MethodId, NotExecuted, ServiceDescriptor,
};
use stubborn_core::session::NotExecutedReason;
use stubborn_group::node::Gate;

use super::error::ReplicaError;
#[cfg(feature = "grpc")]
use super::guests::{Guest, Guests};
use crate::server::{Access, Authenticator, Callers, CurrentGate, Permissions, Subjects};

/// Bytes of a subject: it stands in the log with every call of its sessions.
const LONGEST_SUBJECT: usize = 256;

/// A call that has come to a replica from a client of its own, as an interceptor sees it
/// ([`ReplicaBuilder::intercept`](crate::ReplicaBuilder::intercept)): before anything of it is in the log,
/// or before the machine is asked.
pub struct Arriving<'a> {
    method: &'static Method,
    request: &'a Encoded,
    context: &'a CallContext,
}

impl Arriving<'_> {
    /// The method that is called.
    pub fn method(&self) -> &'static Method {
        self.method
    }

    /// The encoded request.
    pub fn request(&self) -> &Encoded {
        self.request
    }

    /// What is known of the call. A call that comes again has the same id; one over gRPC has none, but for
    /// the one in its metadata.
    pub fn context(&self) -> &CallContext {
        self.context
    }
}

impl fmt::Debug for Arriving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arriving({})", self.method)
    }
}

type Interceptor = Arc<dyn Fn(&Arriving<'_>) -> Result<(), NotExecuted> + Send + Sync>;

/// What an application has chosen to stand there.
#[derive(Default)]
pub(super) struct Middleware {
    pub(super) authenticator: Option<Authenticator>,
    pub(super) many_subjects: bool,
    pub(super) permissions: Option<Permissions>,
    pub(super) interceptors: Vec<Interceptor>,
    /// Those who call over gRPC, if anybody may.
    #[cfg(feature = "grpc")]
    pub(super) guests: Option<Arc<Guests>>,
}

impl Middleware {
    /// The door of a replica with these services and room for so many sessions.
    ///
    /// # Errors
    /// If permissions cannot be meant so.
    pub(super) fn door(
        &self,
        services: Vec<&'static ServiceDescriptor>,
        sessions: usize,
    ) -> Result<Arc<Door>, ReplicaError> {
        let gate = Callers {
            authenticator: self.authenticator.clone(),
            rules: None,
            subjects: (!self.many_subjects).then(|| Arc::new(Subjects::new(sessions))),
        };
        let methods = services.iter().flat_map(|service| service.methods);
        let door = Door {
            methods: methods.map(|method| (method.id(), method)).collect(),
            callers: CurrentGate::new(services, gate),
            interceptors: self.interceptors.clone(),
            #[cfg(feature = "grpc")]
            guests: self.guests.clone(),
        };
        if let Some(permissions) = &self.permissions {
            door.permit(permissions).map_err(ReplicaError::Settings)?;
        }
        Ok(Arc::new(door))
    }
}

/// Lets calls of a replica's own clients in, or not.
pub(crate) struct Door {
    methods: BTreeMap<MethodId, &'static Method>,
    callers: CurrentGate,
    interceptors: Vec<Interceptor>,
    #[cfg(feature = "grpc")]
    guests: Option<Arc<Guests>>,
}

impl Door {
    /// Goes by these permissions from now on.
    ///
    /// # Errors
    /// If they cannot be meant so: those of before stay.
    pub(super) fn permit(&self, permissions: &Permissions) -> Result<(), String> {
        self.callers.permit(permissions)
    }

    /// The same with the tokens of a file, if it names some.
    pub(super) fn give_access(&self, access: &Access) -> Result<(), String> {
        self.callers.give(access)
    }

    /// Whether calls come of which the node has to look whose they are.
    #[cfg(feature = "grpc")]
    fn has_guests(&self) -> bool {
        self.guests.is_some()
    }

    #[cfg(not(feature = "grpc"))]
    fn has_guests(&self) -> bool {
        false
    }

    /// Makes a call that came over gRPC its caller's. Returns whether it was judged before.
    #[cfg(feature = "grpc")]
    fn recognise(&self, method: MethodId, context: &mut CallContext) -> Result<bool, NotExecuted> {
        let Some(guests) = &self.guests else { return Ok(false) };
        let has_number = || self.methods.get(&method).is_some_and(|method| has_number(method));
        Ok(guests.recognise(context)? && has_number())
    }

    #[cfg(not(feature = "grpc"))]
    fn recognise(&self, _: MethodId, _: &mut CallContext) -> Result<bool, NotExecuted> {
        Ok(false)
    }

    fn intercept(&self, call: &Arriving<'_>) -> Result<(), NotExecuted> {
        self.interceptors.iter().try_for_each(|interceptor| {
            let judged = catch_unwind(AssertUnwindSafe(|| interceptor(call)));
            judged.unwrap_or_else(|_| Err(denied("an interceptor panicked")))
        })
    }
}

impl Gate for Door {
    fn is_open(&self) -> bool {
        self.callers.is_open() && self.interceptors.is_empty() && !self.has_guests()
    }

    fn admit(
        &self,
        method: MethodId,
        request: &Encoded,
        context: &mut CallContext,
    ) -> Result<(), NotExecuted> {
        if self.recognise(method, context)? {
            return Ok(());
        }
        let callers = self.callers.now();
        let Some(method) = self.methods.get(&method) else {
            // Another member may have it, of a newer program. No permission of this one names it.
            return match callers.rules {
                Some(_) => Err(denied("this replica does not have the method")),
                None => Ok(()),
            };
        };
        Self::let_in(&callers, method, context)?;
        self.intercept(&Arriving { method, request, context })
    }
}

#[cfg(feature = "grpc")]
impl Door {
    /// A method of this replica.
    pub(crate) fn method(&self, id: MethodId) -> Option<&'static Method> {
        self.methods.get(&id).copied()
    }

    /// Judges who calls over gRPC, and knows their token afterwards.
    ///
    /// # Errors
    /// Why they may not.
    pub(crate) fn admit_guest(
        &self,
        method: &Method,
        context: &mut CallContext,
    ) -> Result<(), NotExecuted> {
        Self::let_in(&self.callers.now(), method, context)
    }

    /// Begins a call over gRPC whose caller was let in. One that takes a number is judged here, before it
    /// has any; a read is judged at the node.
    ///
    /// # Errors
    /// Why it does not run.
    pub(crate) fn receive_guest(
        &self,
        method: &'static Method,
        request: &Encoded,
        context: &CallContext,
    ) -> Result<Guest, NotExecuted> {
        if has_number(method) {
            self.intercept(&Arriving { method, request, context })?;
        }
        let guests = self.guests.as_ref().ok_or_else(|| denied("nobody calls over gRPC here"))?;
        Ok(guests.enter(Arc::clone(&context.peer)))
    }
}

impl Door {
    fn let_in(
        callers: &Callers,
        method: &Method,
        context: &mut CallContext,
    ) -> Result<(), NotExecuted> {
        callers.admit(method, context)?;
        if context.peer.subject.as_ref().is_some_and(|subject| subject.len() > LONGEST_SUBJECT) {
            let why = "the subject of the token is too long";
            return Err(NotExecuted::because(NotExecutedReason::Unauthenticated, why));
        }
        Ok(())
    }
}

/// Whether its calls come to the node with a number; also those of streams of reads come as reads.
#[cfg(feature = "grpc")]
fn has_number(method: &Method) -> bool {
    method.semantics().takes_slot()
}

fn denied(why: &'static str) -> NotExecuted {
    NotExecuted::because(NotExecutedReason::PermissionDenied, why)
}
