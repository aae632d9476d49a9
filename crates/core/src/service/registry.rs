//! The services of a server, found by the method that a request names. Servers over UDP and in the
//! simulated world share it, so that both refuse the same requests.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::encoded::Encoded;
use super::method::{Method, MethodId, Semantics, ServiceDescriptor, Shape};
use super::outcome::NotExecuted;
use super::server::{Answer, Call, Handling, RequestKind, Service};
use super::stream::Port;
use crate::session::NotExecutedReason;

/// The services of a server.
#[derive(Clone, Default)]
pub struct Registry {
    services: Vec<Arc<dyn Service>>,
    methods: BTreeMap<MethodId, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    service: usize,
    method: usize,
}

/// Why a service was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterError {
    /// A service of this name is there already.
    Doubled(&'static str),
    /// Two methods of different names have the same id: one of them must be renamed.
    Collision(String, String),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubled(name) => write!(f, "the service {name} was added twice"),
            Self::Collision(one, other) => write!(
                f,
                "the methods {one} and {other} have the same id on the wire: rename one of them"
            ),
        }
    }
}

impl core::error::Error for RegisterError {}

impl Registry {
    /// No services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    ///
    /// # Errors
    /// If it is there already or a method's id is taken; nothing is added then.
    pub fn add(&mut self, service: Arc<dyn Service>) -> Result<(), RegisterError> {
        let descriptor = service.descriptor();
        if self.descriptors().any(|other| other.name == descriptor.name) {
            return Err(RegisterError::Doubled(descriptor.name));
        }
        for (index, method) in descriptor.methods.iter().enumerate() {
            let taken = self.method(method.id()).map(Method::name).or_else(|| {
                let same = |other: &&Method| other.id() == method.id();
                descriptor.methods[..index].iter().find(same).map(Method::name)
            });
            if let Some(other) = taken {
                return Err(RegisterError::Collision(other.into(), method.name().into()));
            }
        }
        let at = self.services.len();
        for (index, method) in descriptor.methods.iter().enumerate() {
            self.methods.insert(method.id(), Entry { service: at, method: index });
        }
        self.services.push(service);
        Ok(())
    }

    /// The services, in the order in which they were added.
    pub fn descriptors(&self) -> impl Iterator<Item = &'static ServiceDescriptor> + '_ {
        self.services.iter().map(|service| service.descriptor())
    }

    /// The method with this id.
    pub fn method(&self, id: MethodId) -> Option<&'static Method> {
        let entry = self.methods.get(&id)?;
        Some(&self.services[entry.service].descriptor().methods[entry.method])
    }

    /// Starts the handler of a request.
    ///
    /// # Errors
    /// The answer to give if no handler is started: the method is unknown, streams, or was called
    /// in a way that could break its promise. A call with side effects that comes as a read or as
    /// a `maybe` call has no number, so it could run twice: it is refused. A number too many does
    /// no harm: a read or a `maybe` call may come with one.
    pub fn dispatch(
        &self,
        id: MethodId,
        kind: RequestKind,
        call: Call<Encoded>,
    ) -> Result<Handling, Answer> {
        let Some(entry) = self.methods.get(&id) else {
            return Err(refuse("the server does not have the method"));
        };
        let service = &self.services[entry.service];
        let method = &service.descriptor().methods[entry.method];
        if method.shape() != Shape::Unary {
            return Err(refuse(format!("{method} streams: {COMPILE}")));
        }
        let fits = match kind {
            RequestKind::Stream(_) => {
                return Err(refuse(format!("{method} is no stream: {COMPILE}")));
            }
            RequestKind::Numbered => true,
            RequestKind::Read => method.semantics() == Semantics::Read,
            RequestKind::Maybe => method.semantics() == Semantics::Maybe,
        };
        if !fits {
            return Err(refuse(format!(
                "{method} was called without a number, but at this server it is {}: {COMPILE}",
                promise(method.semantics())
            )));
        }
        Ok(service.call(entry.method, call))
    }

    /// Starts the handler of a stream, whose messages are at `port`.
    ///
    /// # Errors
    /// The answer to give if no handler is started: the method is unknown, or streams otherwise.
    pub fn dispatch_stream(
        &self,
        id: MethodId,
        shape: Shape,
        call: Call<Encoded>,
        port: Arc<dyn Port>,
    ) -> Result<Handling, Answer> {
        let Some(entry) = self.methods.get(&id) else {
            return Err(refuse("the server does not have the method"));
        };
        let service = &self.services[entry.service];
        let method = &service.descriptor().methods[entry.method];
        if method.shape() != shape {
            return Err(refuse(format!("{method} streams otherwise at this server: {COMPILE}")));
        }
        Ok(service.stream(entry.method, call, port))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.descriptors().map(|d| d.name)).finish()
    }
}

/// What to do when the two sides know different methods.
const COMPILE: &str = "compile the caller with the server's .proto file";

fn refuse(why: impl Into<Cow<'static, str>>) -> Answer {
    Answer::NotExecuted(NotExecuted::because(NotExecutedReason::UnknownMethod, why))
}

fn promise(semantics: Semantics) -> &'static str {
    match semantics {
        Semantics::Maybe => "a maybe method",
        Semantics::AtMostOnce => "at most once",
        Semantics::Idempotent => "idempotent, not a read",
        Semantics::Read => "a read",
        Semantics::ExactlyOnce => "exactly once",
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;

    use bytes::Bytes;

    use super::super::metadata::Metadata;
    use super::super::server::CallContext;
    use super::*;

    struct Fixed(&'static ServiceDescriptor);

    impl Service for Fixed {
        fn descriptor(&self) -> &'static ServiceDescriptor {
            self.0
        }

        fn call(&self, _: usize, request: Call<Encoded>) -> Handling {
            let reply = request.into_message();
            Box::pin(async move { Answer::Reply(reply, Metadata::new()) })
        }
    }

    const METHODS: &[Method] = &[
        Method::new("a.B/Change", Semantics::AtMostOnce, Shape::Unary),
        Method::new("a.B/Look", Semantics::Read, Shape::Unary),
        Method::new("a.B/Tell", Semantics::Maybe, Shape::Unary),
        Method::new("a.B/Watch", Semantics::Read, Shape::ServerStreaming),
    ];
    static SERVICE: ServiceDescriptor =
        ServiceDescriptor { name: "a.B", methods: METHODS, file_descriptor_set: &[] };
    static TWIN: ServiceDescriptor =
        ServiceDescriptor { name: "a.Twin", methods: METHODS, file_descriptor_set: &[] };

    fn registry() -> Registry {
        let mut registry = Registry::new();
        registry.add(Arc::new(Fixed(&SERVICE))).unwrap();
        registry
    }

    fn started(method: &str, kind: RequestKind) -> bool {
        let id = MethodId::of(method);
        let call = Call::new(Encoded::from_body(id, Bytes::new()), CallContext::default());
        match registry().dispatch(id, kind, call) {
            Ok(_) => true,
            Err(Answer::NotExecuted(why)) => {
                assert_eq!(why.reason, NotExecutedReason::UnknownMethod);
                false
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_with_side_effects_is_refused_without_a_number() {
        assert!(started("a.B/Change", RequestKind::Numbered));
        assert!(!started("a.B/Change", RequestKind::Read));
        assert!(!started("a.B/Change", RequestKind::Maybe));
        assert!(!started("a.B/Tell", RequestKind::Read));
    }

    #[test]
    fn a_read_or_maybe_call_may_come_with_a_number() {
        for kind in [RequestKind::Numbered, RequestKind::Read] {
            assert!(started("a.B/Look", kind));
        }
        for kind in [RequestKind::Numbered, RequestKind::Maybe] {
            assert!(started("a.B/Tell", kind));
        }
    }

    #[test]
    fn unknown_methods_and_streams_are_refused() {
        assert!(!started("a.B/Nothing", RequestKind::Numbered));
        assert!(!started("a.B/Watch", RequestKind::Read));
    }

    #[test]
    fn a_doubled_service_and_a_doubled_method_are_both_told_and_add_nothing() {
        let mut registry = registry();
        let again = registry.add(Arc::new(Fixed(&SERVICE)));
        assert_eq!(again, Err(RegisterError::Doubled("a.B")));
        let twin = registry.add(Arc::new(Fixed(&TWIN)));
        assert!(matches!(twin, Err(RegisterError::Collision(..))));
        assert_eq!(registry.descriptors().count(), 1);
    }
}
