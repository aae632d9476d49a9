//! The services of a server with what stands before their handlers: who is let in, which call was
//! there before, and what the application puts in between. In this order.

use std::sync::Arc;

use stubborn_core::limits::Limits;
use stubborn_core::service::{
    Answer, CALL_ID, Call, CallContext, Encoded, Handling, Method, MethodId, NotExecuted, Port,
    Registry, RequestKind,
};
use stubborn_core::session::{KeyLimits, NotExecutedReason};

use super::access::AccessFile;
use super::current::CurrentGate;
use super::gate::{Authenticator, Gate};
use super::intercept::{Incoming, Interceptor};
use super::once::Once;
use super::permissions::Permissions;
use super::subjects::Subjects;

/// The services of a server.
#[derive(Default)]
pub(crate) struct Services {
    registry: Registry,
    before: Arc<Before>,
    /// Whether calls come here that were let in before.
    admitted: bool,
}

/// What stands before the handlers. A server has one, for all ways by which calls come.
#[derive(Default)]
pub(crate) struct Before {
    pub(super) gate: CurrentGate,
    /// None if calls are kept elsewhere than in the server's memory, as in a database: an id would have
    /// to be kept there, too.
    pub(super) once: Option<Arc<Once>>,
    pub(super) interceptors: Vec<Arc<dyn Interceptor>>,
}

/// What an application has chosen to stand there.
#[derive(Default)]
pub(super) struct Middleware {
    pub(super) authenticator: Option<Authenticator>,
    pub(super) many_subjects: bool,
    pub(super) permissions: Option<Permissions>,
    /// What it says stands in place of those.
    pub(super) access: Option<AccessFile>,
    pub(super) interceptors: Vec<Arc<dyn Interceptor>>,
}

impl Middleware {
    /// # Errors
    /// If permissions cannot be meant so.
    pub(super) fn before(
        &self,
        registry: &Registry,
        limits: &Limits,
        keys: Option<KeyLimits>,
    ) -> Result<Arc<Before>, String> {
        let resolve = |permissions: &Permissions| permissions.resolve(registry.descriptors());
        let gate = Gate {
            authenticator: self.authenticator.clone(),
            rules: self.permissions.as_ref().map(resolve).transpose()?.map(Arc::new),
            subjects: (!self.many_subjects).then(|| Arc::new(Subjects::new(limits.sessions))),
        };
        let gate = CurrentGate::new(registry.descriptors().collect(), gate);
        if let Some(file) = &self.access {
            let access = file.read().map_err(|error| error.to_string())?;
            gate.give(&access).map_err(|why| format!("{}: {why}", file.path().display()))?;
        }
        let once = keys.map(|keys| Arc::new(Once::new(keys)));
        Ok(Arc::new(Before { gate, once, interceptors: self.interceptors.clone() }))
    }
}

impl Before {
    fn is_nothing(&self) -> bool {
        self.gate.is_open() && self.interceptors.is_empty()
    }
}

impl Services {
    pub(crate) fn new(registry: Registry, before: Arc<Before>) -> Arc<Self> {
        Arc::new(Self { registry, before, admitted: false })
    }

    /// The same for calls that [`admit`](Self::admit) lets in before they come here.
    #[cfg(feature = "grpc")]
    pub(crate) fn of_admitted(registry: Registry, before: Arc<Before>) -> Arc<Self> {
        Arc::new(Self { registry, before, admitted: true })
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn method(&self, id: MethodId) -> Option<&'static Method> {
        self.registry.method(id)
    }

    /// The name of a method; empty if there is none.
    pub(crate) fn name(&self, id: MethodId) -> &'static str {
        self.registry.method(id).map_or("", Method::name)
    }

    /// Starts the handler of a request, or what stands before it.
    ///
    /// # Errors
    /// The answer, if no handler is started.
    pub(crate) fn start(
        self: &Arc<Self>,
        id: MethodId,
        kind: RequestKind,
        mut call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        let bare = self.admitted || call.context().metadata.is_empty();
        if bare && self.before.is_nothing() {
            return self.handler(id, kind, call, port);
        }
        let Some(method) = self.registry.method(id) else {
            // It says that there is no such method.
            return self.handler(id, kind, call, port);
        };
        if !self.admitted {
            self.admit(method, call.context_mut())?;
        }
        // Who admits calls before they come here knows copies of them, too.
        let key = if self.admitted { None } else { Once::key(method, kind, call.context())? };
        match (key.map(ToOwned::to_owned), &self.before.once) {
            (None, _) => self.through(method, kind, call, port),
            (Some(key), Some(once)) => {
                once.run(&key, call, |call| self.through(method, kind, call, port))
            }
            (Some(_), None) => Err(Answer::NotExecuted(NotExecuted::because(
                NotExecutedReason::UnknownMethod,
                format!("{CALL_ID}: this server keeps calls in a database, and no ids beside them"),
            ))),
        }
    }

    /// Starts what the application has put before the handler, or the handler.
    fn through(
        self: &Arc<Self>,
        method: &'static Method,
        kind: RequestKind,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        if self.before.interceptors.is_empty() {
            return self.handler(method.id(), kind, call, port);
        }
        Ok(Incoming::new(self, method, kind, call, port).run())
    }

    /// Lets the caller in, or not.
    ///
    /// # Errors
    /// The answer, if not.
    pub(crate) fn admit(&self, method: &Method, context: &mut CallContext) -> Result<(), Answer> {
        let gate = &self.before.gate;
        if gate.is_open() {
            return Ok(());
        }
        gate.now().admit(method, context).map_err(Answer::NotExecuted)
    }

    pub(super) fn interceptor(&self, place: usize) -> Option<&dyn Interceptor> {
        self.before.interceptors.get(place).map(|interceptor| &**interceptor)
    }

    pub(super) fn handler(
        &self,
        id: MethodId,
        kind: RequestKind,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        match (kind, port) {
            (RequestKind::Stream(shape), Some(port)) => {
                self.registry.dispatch_stream(id, shape, call, port)
            }
            (kind, _) => self.registry.dispatch(id, kind, call),
        }
    }
}
