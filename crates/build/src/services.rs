//! The services of the compiled files, with all that the emitters need beside the types of
//! requests and replies.

use std::collections::BTreeSet;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FileDescriptor, MethodDescriptor, ReflectMessage,
    ServiceDescriptor, Value,
};
use stubborn_stubs::{Files, Method, Semantics, Service};

use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::semantics;
use crate::sources::Sources;

/// Reads the services of one file. Findings are added to what is handed in.
pub(crate) fn read(
    pool: &DescriptorPool,
    file: &FileDescriptor,
    config: &Config,
    sources: &Sources,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for service in file.services() {
        let files = match services.first() {
            None => Files::Own(with_imports(file).into()),
            Some(first) => Files::With(first.rust_name.clone()),
        };
        let mut methods = Vec::new();
        for method in service.methods() {
            match semantics::read(pool, &method, sources) {
                Ok(semantics) => methods.push(read_method(&service, &method, semantics, config)),
                Err(finding) => findings.push(finding),
            }
        }
        services.push(Service {
            full_name: service.full_name().to_owned(),
            rust_name: config.service_name(service.full_name(), service.name()),
            deprecated: is_deprecated(&service.options()),
            methods,
            files,
        });
    }
    services
}

fn read_method(
    service: &ServiceDescriptor,
    method: &MethodDescriptor,
    semantics: Semantics,
    config: &Config,
) -> Method {
    let full_name = format!("{}/{}", service.full_name(), method.name());
    Method {
        rust_name: config.method_name(&full_name, method.name()),
        full_name,
        deprecated: is_deprecated(&method.options()),
        semantics,
        shape: semantics::shape(method),
    }
}

fn is_deprecated(options: &DynamicMessage) -> bool {
    let value = options.get_field_by_name("deprecated");
    value.and_then(|v| v.as_bool()).unwrap_or(false)
}

/// The encoded set of a file and its imports, imports first, options of any kind included, without
/// comments and positions.
pub(crate) fn with_imports(file: &FileDescriptor) -> Vec<u8> {
    let mut files = Vec::new();
    collect(file, &mut BTreeSet::new(), &mut files);
    encode_set(&files, false)
}

fn collect(file: &FileDescriptor, seen: &mut BTreeSet<String>, files: &mut Vec<FileDescriptor>) {
    if seen.insert(file.name().to_owned()) {
        for import in file.dependencies() {
            collect(&import, seen, files);
        }
        files.push(file.clone());
    }
}

/// Encodes a `google.protobuf.FileDescriptorSet`. The way over dynamic messages keeps options that
/// are extensions, which the static types would drop.
pub(crate) fn encode_set(files: &[FileDescriptor], with_source_info: bool) -> Vec<u8> {
    let descriptor = FileDescriptorProto::default().descriptor();
    let files = files.iter().map(|file| {
        let encoded = file.encode_to_vec();
        let mut message = DynamicMessage::decode(descriptor.clone(), encoded.as_slice())
            .expect("a compiled file is a FileDescriptorProto");
        if !with_source_info {
            message.clear_field_by_name("source_code_info");
        }
        Value::Message(message)
    });
    let mut set = FileDescriptorSet::default().transcode_to_dynamic();
    set.set_field_by_name("file", Value::List(files.collect()));
    set.encode_to_vec()
}
