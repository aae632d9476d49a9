//! Messages of `buffa`, whose generator takes the descriptors of our compiler: no `protoc`.

use std::collections::BTreeMap;

use ::buffa::Message as _;
use buffa_codegen::context::CodeGenContext;
use buffa_codegen::generated::descriptor::FileDescriptorProto as BuffaFile;
use buffa_codegen::{BytesRepr, CodeGenConfig, GeneratedFileKind, MapRepr};
use prost_build::{Comments, Module};
use prost_reflect::prost::Message as _;
use prost_types::{FileDescriptorProto, ServiceDescriptorProto};
use stubborn_stubs::Service;

use crate::config::{AttributeKind, Config, full_path};
use crate::diagnostic::Diagnostic;
use crate::pipeline::{is_generated, is_known};
use crate::stubs::{self, MethodTypes};
use crate::{Result, comments};

pub(super) fn rust_modules(
    config: &Config,
    files: Vec<FileDescriptorProto>,
    services: Vec<Service>,
) -> Result<BTreeMap<Module, String>> {
    let wrong = |why: String| Diagnostic::new(format!("the messages cannot be generated: {why}"));
    let options = options(config);
    let descriptors = files.iter().map(|file| BuffaFile::decode_from_slice(&file.encode_to_vec()));
    let descriptors = descriptors
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| wrong(e.to_string()))?;
    let is_here = |file: &&FileDescriptorProto| {
        is_generated(file, &files)
            && !is_known(file)
            && !config.is_extern(&format!(".{}", file.package()))
    };
    let here: Vec<_> = files.iter().filter(is_here).collect();
    let names: Vec<_> = here.iter().map(|file| file.name().to_owned()).collect();
    let written = buffa_codegen::generate(&descriptors, &names, &options)
        .map_err(|e| wrong(e.to_string()))?;
    let mut modules = BTreeMap::new();
    for file in written.into_iter().filter(|f| f.kind == GeneratedFileKind::PackageMod) {
        modules.insert(Module::from_protobuf_package_name(&file.package), file.content);
    }
    let types = CodeGenContext::for_generate(&descriptors, &names, &options);
    let mut services: BTreeMap<_, _> =
        services.into_iter().map(|service| (service.full_name.clone(), service)).collect();
    for file in here {
        let module = Module::from_protobuf_package_name(file.package());
        for (index, described) in file.service.iter().enumerate() {
            let full_name = match file.package() {
                "" => described.name().to_owned(),
                package => format!("{package}.{}", described.name()),
            };
            let Some(service) = services.remove(&full_name) else { continue };
            let methods = method_types(file, index, described, &types)?;
            let comment = comment(file, &[6, index as i32]);
            let text = stubs::write(config, &service, comment, methods, Some("Buffa"));
            modules.entry(module.clone()).or_default().push_str(&text);
        }
    }
    modules.retain(|_, text| !text.trim().is_empty());
    Ok(modules)
}

fn options(config: &Config) -> CodeGenConfig {
    let mut options = CodeGenConfig::default();
    // Handlers and callers have messages of their own, which borrow nothing.
    options.generate_views = false;
    options.emit_register_fn = false;
    options.file_per_package = true;
    options.extern_paths.clone_from(&config.extern_paths);
    let all = |paths: &[String]| paths.iter().map(|path| full_path(path)).collect::<Vec<_>>();
    let bytes = all(&config.bytes).into_iter().map(|path| (path, BytesRepr::Bytes));
    options.bytes_fields = bytes.collect();
    let maps = all(&config.btree_maps).into_iter().map(|path| (path, MapRepr::BTreeMap));
    options.map_fields = maps.collect();
    for attribute in &config.attributes {
        let attributes = match attribute.kind {
            AttributeKind::Type => &mut options.type_attributes,
            AttributeKind::Message => &mut options.message_attributes,
            AttributeKind::Enum => &mut options.enum_attributes,
            AttributeKind::Field => &mut options.field_attributes,
        };
        attributes.push((full_path(&attribute.path), attribute.text.clone()));
    }
    options
}

/// The types of a service's methods, as they are named in the module of its package.
fn method_types(
    file: &FileDescriptorProto,
    service: usize,
    described: &ServiceDescriptorProto,
    types: &CodeGenContext<'_>,
) -> Result<Vec<MethodTypes>> {
    let type_of = |name: &str| {
        types.rust_type_relative(name, file.package(), 0).ok_or_else(|| {
            let name = name.trim_start_matches('.');
            Diagnostic::new(format!("{name} has no type in Rust"))
                .help("give it one with Config::extern_path")
        })
    };
    let methods = described.method.iter().enumerate().map(|(index, method)| {
        Ok(MethodTypes {
            request: type_of(method.input_type())?,
            reply: type_of(method.output_type())?,
            comment: comment(file, &[6, service as i32, 2, index as i32]),
        })
    });
    methods.collect()
}

/// The comment of what stands at this path of a file.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> Vec<String> {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let Some(location) = locations.into_iter().find(|location| location.path == path) else {
        return Vec::new();
    };
    let lines = |text: &Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
    };
    comments::tidy(&comments::lines(&Comments {
        leading_detached: Vec::new(),
        leading: lines(&location.leading_comments),
        trailing: lines(&location.trailing_comments),
    }))
}
