//! The service through which a server describes the others, and its client; generated from
//! `stubborn/reflection.proto`.

use std::sync::Arc;

use stubborn_core::service::{Call, RegisterError, Registry, ServiceDescriptor, Status};

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
        Ok(FileDescriptorsReply { file_descriptor_set: descriptor.file_descriptor_set.into() })
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
