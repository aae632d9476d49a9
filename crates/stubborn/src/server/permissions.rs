//! Who may call what.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use stubborn_core::service::{CallContext, Method, MethodId, ServiceDescriptor};

/// Says whether a caller may make a call.
type Rule = Arc<dyn Fn(&CallContext) -> bool + Send + Sync>;

/// Services that describe others.
const REFLECTION: [&str; 3] = [
    "stubborn.v1.Reflection",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];
const METRICS: &str = "stubborn.metrics.v1.Metrics";
const HEALTH: &str = "grpc.health.v1.Health";

/// Who may call which methods of a server ([`ServerBuilder::authorize`]). What no rule names is refused,
/// those services included that a server adds by itself: reflection, health and metrics.
///
/// ```
/// use stubborn::Permissions;
///
/// let permissions = Permissions::new()
///     .allow("bank.v1.Bank", |call| call.peer.spiffe().is_some_and(|id| {
///         id.trust_domain() == "bank.example"
///     }))
///     .allow_spiffe("bank.v1.Bank/Transfer", ["spiffe://bank.example/teller"])
///     .allow_anybody("bank.v1.Rates")
///     .allow_health();
/// ```
///
/// [`ServerBuilder::authorize`]: crate::ServerBuilder::authorize
#[derive(Clone, Default)]
#[must_use = "permissions are given to ServerBuilder::authorize"]
pub struct Permissions {
    rules: Vec<Named>,
}

#[derive(Clone)]
struct Named {
    /// `package.Service` or `package.Service/Method`.
    name: String,
    /// Whether the server may be without it.
    optional: bool,
    rule: Rule,
}

/// Rules by method.
pub(crate) struct Rules(BTreeMap<MethodId, Rule>);

impl Permissions {
    /// Nobody may call anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets callers call a method (`package.Service/Method`) or all methods of a service
    /// (`package.Service`) if the rule says so of the call. The rule of a method stands before that of
    /// its service. It runs before the handler, on the thread that serves: it must not block.
    pub fn allow(
        self,
        name: impl Into<String>,
        rule: impl Fn(&CallContext) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(name.into(), false, Arc::new(rule))
    }

    /// Lets callers in whose certificate bears one of these SPIFFE ids. One that is malformed lets
    /// nobody in.
    pub fn allow_spiffe(
        self,
        name: impl Into<String>,
        ids: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let ids: Vec<String> = ids.into_iter().map(Into::into).collect();
        self.allow(name, move |call| {
            call.peer.spiffe().is_some_and(|caller| ids.iter().any(|id| caller == id.as_str()))
        })
    }

    /// Lets callers in whose token is of one of these subjects
    /// ([`ServerBuilder::authenticate`](crate::ServerBuilder::authenticate)).
    pub fn allow_subjects(
        self,
        name: impl Into<String>,
        subjects: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let subjects: Vec<String> = subjects.into_iter().map(Into::into).collect();
        self.allow(name, move |call| {
            let subject = call.peer.subject.as_deref();
            subject.is_some_and(|caller| subjects.iter().any(|subject| subject == caller))
        })
    }

    /// Lets everybody in, also without certificate and token.
    pub fn allow_anybody(self, name: impl Into<String>) -> Self {
        self.allow(name, |_| true)
    }

    /// Lets callers of whom the rule says so ask which services there are: `stubborn ls`, `grpcurl`.
    pub fn allow_reflection(
        mut self,
        rule: impl Fn(&CallContext) -> bool + Send + Sync + 'static,
    ) -> Self {
        let rule: Rule = Arc::new(rule);
        for name in REFLECTION {
            self = self.with(name.into(), true, Arc::clone(&rule));
        }
        self
    }

    /// Lets callers of whom the rule says so ask for metrics (`stubborn.metrics.v1.Metrics`), if that
    /// service lets them, too.
    pub fn allow_metrics(
        self,
        rule: impl Fn(&CallContext) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(METRICS.into(), true, Arc::new(rule))
    }

    /// Lets everybody ask how the services are (`grpc.health.v1.Health`), as load balancers do.
    pub fn allow_health(self) -> Self {
        self.allow_health_to(|_| true)
    }

    pub(super) fn allow_health_to(
        self,
        rule: impl Fn(&CallContext) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(HEALTH.into(), true, Arc::new(rule))
    }

    fn with(mut self, name: String, optional: bool, rule: Rule) -> Self {
        self.rules.push(Named { name, optional, rule });
        self
    }

    /// The rules of a server with these services.
    ///
    /// # Errors
    /// What a rule names that is not there, or that two rules name.
    pub(crate) fn resolve<'a>(
        &self,
        services: impl Iterator<Item = &'a ServiceDescriptor>,
    ) -> Result<Rules, String> {
        let services: Vec<_> = services.collect();
        let mut rules = BTreeMap::new();
        let mut seen = Vec::new();
        // Those of services first, so that those of methods take their place.
        let (methods, whole): (Vec<_>, Vec<_>) =
            self.rules.iter().partition(|named| named.name.contains('/'));
        for Named { name, optional, rule } in whole.into_iter().chain(methods) {
            if seen.contains(&name) {
                return Err(format!("two permissions name {name}"));
            }
            seen.push(name);
            let service = name.split_once('/').map_or(name.as_str(), |(service, _)| service);
            let service = services.iter().find(|known| known.name == service);
            let methods = service.iter().flat_map(|service| service.methods);
            let named: Vec<&Method> =
                methods.filter(|method| !name.contains('/') || method.name() == name).collect();
            if named.is_empty() && !optional {
                return Err(format!("a permission names {name}, which this server does not have"));
            }
            rules.extend(named.iter().map(|method| (method.id(), Arc::clone(rule))));
        }
        Ok(Rules(rules))
    }
}

impl Rules {
    pub(super) fn allow(&self, method: &Method, context: &CallContext) -> bool {
        self.0.get(&method.id()).is_some_and(|rule| rule(context))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|named| &named.name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::{Semantics, Shape};

    use super::*;

    const LOOK: Method = Method::new("a.B/Look", Semantics::Read, Shape::Unary);
    const CHANGE: Method = Method::new("a.B/Change", Semantics::AtMostOnce, Shape::Unary);
    static SERVICE: ServiceDescriptor =
        ServiceDescriptor { name: "a.B", methods: &[LOOK, CHANGE], file_descriptor_set: &[] };

    fn resolve(permissions: Permissions) -> Result<Rules, String> {
        permissions.resolve([&SERVICE].into_iter())
    }

    fn allows(permissions: Permissions, method: &Method) -> bool {
        resolve(permissions).unwrap().allow(method, &CallContext::default())
    }

    #[test]
    fn what_no_rule_names_is_refused() {
        assert!(!allows(Permissions::new(), &LOOK));
        let look = Permissions::new().allow_anybody("a.B/Look");
        assert!(allows(look.clone(), &LOOK) && !allows(look, &CHANGE));
    }

    #[test]
    fn the_rule_of_a_method_stands_before_that_of_its_service_in_any_order() {
        let nobody = |p: Permissions| p.allow("a.B/Change", |_| false);
        let service = |p: Permissions| p.allow_anybody("a.B");
        for both in [nobody(service(Permissions::new())), service(nobody(Permissions::new()))] {
            assert!(allows(both.clone(), &LOOK) && !allows(both, &CHANGE));
        }
    }

    #[test]
    fn a_rule_for_what_is_not_there_or_a_second_one_is_an_error() {
        for name in ["a.B/Lock", "a.C", "a", "a.B/", ""] {
            let error = resolve(Permissions::new().allow_anybody(name)).err().unwrap();
            assert!(error.contains(name) && error.contains("does not have"), "{error}");
        }
        let twice = Permissions::new().allow_anybody("a.B").allow("a.B", |_| false);
        assert!(resolve(twice).err().unwrap().contains("two permissions"));
        assert!(resolve(Permissions::new().allow_health()).is_ok(), "it may be without");
    }
}
