//! gRPC's server reflection, from the descriptors that stubs carry.

mod files;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use stubborn_core::service::{
    Answer, Call, Encoded, Handling, Metadata, Method, Port, RegisterError, Registry, ReplySender,
    Requests, Semantics, Service, ServiceDescriptor, Shape, Status,
};

use super::generated::grpc::reflection::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    SERVER_REFLECTION_DESCRIPTOR, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use files::{Files, renamed};

/// Files and bytes of names that one stream is sent are bounded by the files that there are.
struct Reflection {
    files: Arc<Files>,
    descriptor: &'static ServiceDescriptor,
}

/// The same protocol under the name that it had before it was settled, by which older clients ask.
static ALPHA: ServiceDescriptor = ServiceDescriptor {
    name: "grpc.reflection.v1alpha.ServerReflection",
    methods: &[Method::new(
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Semantics::Read,
        Shape::BidiStreaming,
    )],
    file_descriptor_set: &[],
};

/// Its files: those of the settled one, renamed.
static ALPHA_FILES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    renamed(
        SERVER_REFLECTION_DESCRIPTOR.file_descriptor_set,
        "grpc/reflection/v1/",
        "grpc/reflection/v1alpha/",
        "grpc.reflection.v1",
        "grpc.reflection.v1alpha",
    )
});

/// Adds both, which describe what the registry holds, `more`, and themselves.
pub(super) fn add(
    registry: &mut Registry,
    more: impl IntoIterator<Item = &'static ServiceDescriptor>,
) -> Result<(), RegisterError> {
    let both = [&SERVER_REFLECTION_DESCRIPTOR, &ALPHA];
    let descriptors: Vec<_> = registry.descriptors().chain(more).chain(both).collect();
    let files = Arc::new(Files::new(&descriptors, &ALPHA_FILES));
    for descriptor in both {
        registry.add(Arc::new(Reflection { files: files.clone(), descriptor }))?;
    }
    Ok(())
}

impl Service for Reflection {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        self.descriptor
    }

    fn call(&self, _: usize, _: Call<Encoded>) -> Handling {
        Box::pin(async { Answer::Status(Status::unimplemented("the method streams")) })
    }

    fn stream(&self, method: usize, _: Call<Encoded>, port: Arc<dyn Port>) -> Handling {
        let id = self.descriptor.methods[method].id();
        let files = self.files.clone();
        Box::pin(async move {
            let requests = Requests::new(port.clone(), id);
            match answer_all(&files, requests, ReplySender::new(port, id)).await {
                Ok(()) => Answer::Reply(Encoded::new(id, &()), Metadata::new()),
                Err(status) => Answer::Status(status),
            }
        })
    }
}

async fn answer_all(
    files: &Files,
    mut requests: Requests<ServerReflectionRequest>,
    mut replies: ReplySender<ServerReflectionResponse>,
) -> Result<(), Status> {
    let mut sent = BTreeSet::new();
    while let Some(request) = requests.message().await? {
        let answer = answer(files, &mut sent, &request);
        let reply = ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        };
        replies.send(&reply).await?;
    }
    Ok(())
}

fn answer(
    files: &Files,
    sent: &mut BTreeSet<usize>,
    request: &ServerReflectionRequest,
) -> MessageResponse {
    use MessageRequest as Ask;
    let found = match &request.message_request {
        Some(Ask::FileByFilename(name)) => files.named(name),
        Some(Ask::FileContainingSymbol(symbol)) => files.declaring(symbol),
        Some(Ask::FileContainingExtension(extension)) => {
            files.extending(&extension.containing_type, extension.extension_number)
        }
        Some(Ask::AllExtensionNumbersOfType(name)) => {
            return match files.extensions_of(name) {
                None => error(stubborn::Code::NotFound, "there is no such message here"),
                Some(extension_number) => {
                    let base_type_name = name.clone();
                    let numbers = ExtensionNumberResponse { base_type_name, extension_number };
                    MessageResponse::AllExtensionNumbersResponse(numbers)
                }
            };
        }
        Some(Ask::ListServices(_)) => {
            let service = |name: &&str| ServiceResponse { name: (*name).to_owned() };
            let service = files.services().iter().map(service).collect();
            return MessageResponse::ListServicesResponse(ListServiceResponse { service });
        }
        None => return error(stubborn::Code::InvalidArgument, "nothing was asked"),
    };
    match found {
        None => error(stubborn::Code::NotFound, "no file here has it"),
        Some(file) => {
            let file_descriptor_proto = files.with_imports(file, sent);
            let files = FileDescriptorResponse { file_descriptor_proto };
            MessageResponse::FileDescriptorResponse(files)
        }
    }
}

fn error(code: stubborn::Code, why: &str) -> MessageResponse {
    let (error_code, error_message) = (code as i32, why.to_owned());
    MessageResponse::ErrorResponse(ErrorResponse { error_code, error_message })
}

#[cfg(test)]
mod tests;
