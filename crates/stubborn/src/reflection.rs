//! The service through which a server describes the others, and its client; generated from
//! `stubborn/reflection.proto`.

use std::sync::Arc;

use stubborn_core::service::codec::Signature;
use stubborn_core::service::{
    Call, Method, RegisterError, Registry, Semantics, ServiceDescriptor, Status,
};

pub use crate::generated::stubborn::v1::*;

/// What a registry holds, as a service.
struct Description {
    /// In alphabetical order.
    services: Vec<&'static ServiceDescriptor>,
}

/// Adds the service, which describes what the registry holds so far, `more`, and itself.
pub(crate) fn add(
    registry: &mut Registry,
    more: impl IntoIterator<Item = &'static ServiceDescriptor>,
) -> Result<(), RegisterError> {
    let mut services: Vec<_> = registry.descriptors().chain(more).collect();
    services.push(&REFLECTION_DESCRIPTOR);
    services.sort_by_key(|descriptor| descriptor.name);
    registry.add(Arc::new(ReflectionServer::new(Description { services })))
}

impl Reflection for Description {
    async fn list_services(
        &self,
        _: Call<ListServicesRequest>,
    ) -> Result<ListServicesReply, Status> {
        let services = self.services.iter().map(|descriptor| descriptor.name.to_owned()).collect();
        Ok(ListServicesReply { services })
    }

    async fn file_descriptors(
        &self,
        call: Call<FileDescriptorsRequest>,
    ) -> Result<FileDescriptorsReply, Status> {
        let found = self.services.iter().find(|descriptor| descriptor.name == call.service);
        let descriptor =
            found.ok_or_else(|| Status::not_found("this server has no such service"))?;
        Ok(describe(descriptor))
    }
}

fn describe(service: &ServiceDescriptor) -> FileDescriptorsReply {
    let mut reply = FileDescriptorsReply {
        file_descriptor_set: service.file_descriptor_set.into(),
        ..FileDescriptorsReply::default()
    };
    for method in service.methods {
        let Some(signature) = method.signature() else { continue };
        reply.types.extend(signature.request.types.iter().chain(&signature.reply.types).cloned());
        reply.methods.push(of_trait(method, &signature));
    }
    reply.types.sort();
    reply.types.dedup();
    reply
}

fn of_trait(method: &Method, signature: &Signature) -> TraitMethod {
    let (shape, request) = (method.shape(), &signature.request);
    let names: &[&str] = if shape.client_streams() { &[""] } else { &signature.arguments };
    let types = match names {
        [_] => vec![request.whole()],
        _ => request.parts.clone(),
    };
    let types = types.into_iter().chain(std::iter::repeat("_".to_owned()));
    let argument =
        |(name, of): (&&str, String)| TraitArgument { name: (*name).to_owned(), r#type: of };
    let promise = match method.semantics() {
        Semantics::Maybe => TraitPromise::Maybe,
        Semantics::AtMostOnce => TraitPromise::AtMostOnce,
        Semantics::ExactlyOnce => TraitPromise::ExactlyOnce,
        Semantics::Idempotent => TraitPromise::Idempotent,
        Semantics::Read => TraitPromise::Read,
    };
    TraitMethod {
        name: method.name().rsplit('/').next().unwrap_or_default().to_owned(),
        promise: promise.into(),
        client_streams: shape.client_streams(),
        server_streams: shape.server_streams(),
        format: request.format.to_owned(),
        arguments: names.iter().zip(types).map(argument).collect(),
        reply: signature.reply.whole(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_describes_its_services_and_itself() {
        let mut registry = Registry::new();
        add(&mut registry, []).unwrap();
        let name = REFLECTION_DESCRIPTOR.name;
        let itself = Description { services: registry.descriptors().collect() };
        let list = itself.list_services(Call::new(ListServicesRequest {}, Default::default()));
        assert_eq!(list.await.unwrap().services, [name]);
        let ask = |service: &str| {
            let request = FileDescriptorsRequest { service: service.into() };
            itself.file_descriptors(Call::new(request, Default::default()))
        };
        assert!(!ask(name).await.unwrap().file_descriptor_set.is_empty());
        assert_eq!(
            ask("no.Such").await.unwrap_err().code(),
            stubborn_core::service::Code::NotFound
        );
    }
}
