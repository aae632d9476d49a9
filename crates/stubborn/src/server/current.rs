//! The gate of a server or a replica, which may be exchanged while calls come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stubborn_core::service::ServiceDescriptor;

use super::access::Access;
use super::gate::{Authenticator, Gate};
use super::permissions::Permissions;

/// The gate that calls pass now.
pub(crate) struct CurrentGate {
    /// What permissions may name.
    services: Vec<&'static ServiceDescriptor>,
    /// What the application has given, for when a file names no tokens.
    authenticator: Option<Authenticator>,
    gate: Mutex<Arc<Gate>>,
    /// Nobody is asked who calls, or kept from anything: told without the lock.
    open: AtomicBool,
}

impl CurrentGate {
    /// This one, until it is exchanged, before these services.
    pub(crate) fn new(services: Vec<&'static ServiceDescriptor>, gate: Gate) -> Self {
        Self {
            services,
            authenticator: gate.authenticator.clone(),
            open: gate.is_open().into(),
            gate: Mutex::new(Arc::new(gate)),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The one that a call which comes now has to pass. No lock is held while it does: a hook may
    /// exchange it.
    pub(crate) fn now(&self) -> Arc<Gate> {
        Arc::clone(&self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes by these permissions from the next call on.
    ///
    /// # Errors
    /// If they cannot be meant so: those of before stay.
    pub(crate) fn permit(&self, permissions: &Permissions) -> Result<(), String> {
        self.exchange(permissions, |gate| gate.authenticator.clone())
    }

    /// The same, and by the tokens of a file if it names some; else those that the application knows.
    pub(crate) fn give(&self, access: &Access) -> Result<(), String> {
        let tokens = access.authenticator().or_else(|| self.authenticator.clone());
        self.exchange(access.permissions(), |_| tokens)
    }

    fn exchange(
        &self,
        permissions: &Permissions,
        authenticator: impl FnOnce(&Gate) -> Option<Authenticator>,
    ) -> Result<(), String> {
        let rules = Some(Arc::new(permissions.resolve(self.services.iter().copied())?));
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let subjects = gate.subjects.clone();
        *gate = Arc::new(Gate { authenticator: authenticator(&gate), rules, subjects });
        self.open.store(false, Ordering::Release);
        Ok(())
    }
}

impl Default for CurrentGate {
    fn default() -> Self {
        Self::new(Vec::new(), Gate::default())
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::{CallContext, Method, Semantics, Shape};
    use stubborn_core::session::NotExecutedReason as Reason;

    use super::*;

    const CHANGE: Method = Method::new("a.B/Change", Semantics::AtMostOnce, Shape::Unary);
    static SERVICE: ServiceDescriptor =
        ServiceDescriptor { name: "a.B", methods: &[CHANGE], file_descriptor_set: &[] };

    fn refused(gate: &CurrentGate, token: &str) -> Option<Reason> {
        let mut context = CallContext::default();
        context.metadata.insert("authorization", format!("Bearer {token}")).unwrap();
        gate.now().admit(&CHANGE, &mut context).err().map(|why| why.reason)
    }

    #[test]
    fn a_token_that_a_file_names_no_more_is_nobodys() {
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let rule = "a.B = subject:ada\n";
        let gate = CurrentGate::new(vec![&SERVICE], Gate::default());
        assert!(gate.is_open());
        gate.give(&format!("{rule}token ada = {digest}").parse().unwrap()).unwrap();
        assert!(!gate.is_open());
        assert_eq!(refused(&gate, "test"), None);
        gate.give(&rule.parse().unwrap()).unwrap();
        assert_eq!(refused(&gate, "test"), Some(Reason::PermissionDenied));
    }

    #[test]
    fn without_tokens_in_a_file_those_of_the_application_stay() {
        let authenticator: Authenticator = Arc::new(|token| Some(token.to_owned()));
        let authenticator = Some(authenticator);
        let gate = CurrentGate::new(vec![&SERVICE], Gate { authenticator, ..Gate::default() });
        gate.give(&"a.B = subject:ada".parse().unwrap()).unwrap();
        assert_eq!(refused(&gate, "ada"), None);
        assert_eq!(refused(&gate, "bob"), Some(Reason::PermissionDenied));
        gate.permit(&Permissions::new().allow_subjects("a.B", ["bob"])).unwrap();
        assert_eq!(refused(&gate, "bob"), None);
    }
}
