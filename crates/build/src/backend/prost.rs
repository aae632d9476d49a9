//! Messages of `prost`.

use std::collections::BTreeMap;

use prost_build::Module;
use prost_types::FileDescriptorProto;
use stubborn_stubs::Service;

use crate::Result;
use crate::config::{AttributeKind, Config};
use crate::diagnostic::Diagnostic;
use crate::pipeline::{is_generated, is_known};
use crate::stubs::StubGenerator;

/// Runs `prost-build` over all files; it needs to see also those that exist elsewhere.
pub(super) fn rust_modules(
    config: &Config,
    files: Vec<FileDescriptorProto>,
    services: Vec<Service>,
) -> Result<BTreeMap<Module, String>> {
    let runtime = config.runtime.trim_end_matches("::");
    let mut prost = prost_build::Config::new();
    prost.prost_path(format!("{runtime}::prost"));
    prost.prost_types_path(format!("{runtime}::prost_types"));
    prost.btree_map(&config.btree_maps);
    prost.bytes(&config.bytes);
    for (proto, rust) in &config.extern_paths {
        prost.extern_path(proto, rust);
    }
    for attribute in &config.attributes {
        let (path, text) = (&attribute.path, &attribute.text);
        match attribute.kind {
            AttributeKind::Type => prost.type_attribute(path, text),
            AttributeKind::Message => prost.message_attribute(path, text),
            AttributeKind::Enum => prost.enum_attribute(path, text),
            AttributeKind::Field => prost.field_attribute(path, text),
        };
    }
    let all = files.clone();
    let mut files = files;
    for file in &mut files {
        // prost-build expects something from every service that it is shown, so it is not shown
        // those that exist elsewhere.
        let prefix =
            if file.package().is_empty() { "".into() } else { file.package().to_owned() + "." };
        file.service.retain(|s| {
            let full_name = format!("{prefix}{}", s.name());
            services.iter().any(|read| read.full_name == full_name)
        });
    }
    prost.service_generator(Box::new(StubGenerator::new(config, services)));
    let requests = files
        .into_iter()
        .filter(|f| is_generated(f, &all) || is_known(f))
        .map(|f| (Module::from_protobuf_package_name(f.package()), f))
        .collect();
    let modules = prost
        .generate(requests)
        .map_err(|e| Diagnostic::new(format!("the messages cannot be generated: {e}")))?;
    Ok(modules.into_iter().filter(|(_, text)| !text.trim().is_empty()).collect())
}
