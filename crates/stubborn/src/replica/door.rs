//! What stands before the log and the machines of a replica: whose token it is, who may call what, and what
//! the application puts there.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stubborn_core::service::{
    CallContext, Encoded, Method, MethodId, NotExecuted, ServiceDescriptor,
};
use stubborn_core::session::NotExecutedReason;
use stubborn_group::node::Gate;

use super::error::ReplicaError;
use crate::server::{Access, Authenticator, Callers, Permissions, Subjects};

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

    /// What is known of the call. A call that comes again has the same id.
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
        let callers = Callers {
            authenticator: self.authenticator.clone(),
            rules: None,
            subjects: (!self.many_subjects).then(|| Arc::new(Subjects::new(sessions))),
        };
        let methods = services.iter().flat_map(|service| service.methods);
        let door = Door {
            methods: methods.map(|method| (method.id(), method)).collect(),
            services,
            callers: Mutex::new(Arc::new(callers)),
            interceptors: self.interceptors.clone(),
            open: (self.authenticator.is_none() && self.interceptors.is_empty()).into(),
        };
        if let Some(permissions) = &self.permissions {
            door.permit(permissions).map_err(ReplicaError::Settings)?;
        }
        Ok(Arc::new(door))
    }
}

/// Lets calls of a replica's own clients in, or not.
pub(super) struct Door {
    services: Vec<&'static ServiceDescriptor>,
    methods: BTreeMap<MethodId, &'static Method>,
    callers: Mutex<Arc<Callers>>,
    interceptors: Vec<Interceptor>,
    /// Nobody is asked who calls, or kept from anything.
    open: AtomicBool,
}

impl Door {
    /// Goes by these permissions from now on.
    ///
    /// # Errors
    /// If they cannot be meant so: those of before stay.
    pub(super) fn permit(&self, permissions: &Permissions) -> Result<(), String> {
        self.exchange(permissions, None)
    }

    /// The same with the tokens of a file, if it names some.
    pub(super) fn give_access(&self, access: &Access) -> Result<(), String> {
        self.exchange(access.permissions(), access.authenticator())
    }

    fn exchange(
        &self,
        permissions: &Permissions,
        authenticator: Option<Authenticator>,
    ) -> Result<(), String> {
        let rules = permissions.resolve(self.services.iter().copied())?;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exchanged = Callers::clone(&callers);
        exchanged.rules = Some(Arc::new(rules));
        if authenticator.is_some() {
            exchanged.authenticator = authenticator;
        }
        *callers = Arc::new(exchanged);
        self.open.store(false, Ordering::Release);
        Ok(())
    }

    fn callers(&self) -> Arc<Callers> {
        Arc::clone(&self.callers.lock().unwrap_or_else(PoisonError::into_inner))
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
        self.open.load(Ordering::Acquire)
    }

    fn admit(
        &self,
        method: MethodId,
        request: &Encoded,
        context: &mut CallContext,
    ) -> Result<(), NotExecuted> {
        let callers = self.callers();
        let Some(method) = self.methods.get(&method) else {
            // Another member may have it, of a newer program. No permission of this one names it.
            return match callers.rules {
                Some(_) => Err(denied("this replica does not have the method")),
                None => Ok(()),
            };
        };
        callers.admit(method, context)?;
        if context.peer.subject.as_ref().is_some_and(|subject| subject.len() > LONGEST_SUBJECT) {
            let why = "the subject of the token is too long";
            return Err(NotExecuted::because(NotExecutedReason::Unauthenticated, why));
        }
        self.intercept(&Arriving { method, request, context })
    }
}

fn denied(why: &'static str) -> NotExecuted {
    NotExecuted::because(NotExecutedReason::PermissionDenied, why)
}
