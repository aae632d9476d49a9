//! From files to Rust: compile, check, generate, polish, write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost_types::FileDescriptorProto;
use stubborn_stubs::Service;

use crate::compiled::Compiled;
use crate::config::{Config, Generated};
use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::services;
use crate::sources::Sources;
use crate::{Result, backend, names, polish, tree};

pub(crate) fn compile(config: &Config, files: &[PathBuf]) -> Result {
    let out_dir = match (&config.out_dir, env::var_os("OUT_DIR")) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.into(),
        (None, None) => {
            return Err(Diagnostic::new("nowhere to write to: OUT_DIR is not set")
                .help("call this from build.rs, or set a directory with Config::out_dir")
                .into());
        }
    };
    let sources = Sources::new(includes(config, files));
    let generated = generate_from(config, files, &sources);
    if env::var_os("OUT_DIR").is_some() {
        // Said even after a failure, so that mending the file is noticed.
        for path in sources.paths() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    let generated = generated?;
    write(&generated, &out_dir)?;
    if let Some(path) = &config.file_descriptor_set_path {
        write_if_changed(path, &generated.file_descriptor_set)?;
    }
    Ok(())
}

pub(crate) fn generate(config: &Config, files: &[PathBuf]) -> Result<Generated> {
    generate_from(config, files, &Sources::new(includes(config, files)))
}

pub(crate) fn write(generated: &Generated, directory: &Path) -> Result {
    fs::create_dir_all(directory).map_err(|e| Error::io("make the directory", directory, &e))?;
    for (name, text) in &generated.files {
        write_if_changed(&directory.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Where to look for files: as configured, else where they are.
fn includes(config: &Config, files: &[PathBuf]) -> Vec<PathBuf> {
    if !config.includes.is_empty() {
        return config.includes.clone();
    }
    let mut includes = Vec::new();
    for file in files {
        let parent = file.parent().unwrap_or(Path::new("")).to_owned();
        if !includes.contains(&parent) {
            includes.push(parent);
        }
    }
    includes
}

fn generate_from(config: &Config, files: &[PathBuf], sources: &Sources) -> Result<Generated> {
    check_config(config)?;
    if files.is_empty() {
        return Err(Diagnostic::new("no .proto file was given").into());
    }
    let Compiled { pool, files, imported } = Compiled::of(files, sources)?;
    let generated: Vec<_> = files.iter().filter(|f| is_generated(f, &files)).cloned().collect();
    let mut findings = names::check(&generated, config, sources);
    let mut found: Vec<Service> = Vec::new();
    for file in pool.files().filter(|f| generated.iter().any(|g| g.name() == f.name())) {
        // The services of an imported package that exists elsewhere exist there too.
        let elsewhere = config.is_extern(&format!(".{}", file.package_name()));
        if elsewhere && imported.contains(file.name()) {
            continue;
        }
        found.extend(services::read(&pool, &file, config, sources, &mut findings));
    }
    Error::from_findings(findings)?;

    let modules = backend::rust_modules(config, files, found)?;
    let mut out = BTreeMap::new();
    for (module, text) in &modules {
        let text = polish::polish(text).map_err(|e| {
            // Names and attributes were checked, so this is a bug here or in prost-build.
            Diagnostic::new(format!("the generated code of {module} is not Rust: {e}"))
                .help("please report this with the .proto file")
        })?;
        out.insert(tree::file_name(module), text);
    }
    let parts = modules.keys().map(|m| m.parts().map(str::to_owned).collect());
    out.insert(config.include_file.clone(), tree::modules(parts.collect()));
    Ok(Generated {
        files: out,
        file_descriptor_set: services::encode_set(&pool.files().collect::<Vec<_>>(), true),
        inputs: sources.paths(),
    })
}

/// Google's own files: `prost-types` has them.
pub(crate) fn is_known(file: &FileDescriptorProto) -> bool {
    file.package() == "google.protobuf"
}

/// Whether Rust is generated for a file. The options file has nothing that is used at run time,
/// unless somebody uses its enum in a message.
pub(crate) fn is_generated(file: &FileDescriptorProto, all: &[FileDescriptorProto]) -> bool {
    let is_options = file.name() == "stubborn/options.proto";
    !is_known(file) && (!is_options || all.iter().any(uses_semantics))
}

fn uses_semantics(file: &FileDescriptorProto) -> bool {
    fn uses(message: &prost_types::DescriptorProto) -> bool {
        message.field.iter().any(|f| f.type_name() == ".stubborn.Semantics")
            || message.nested_type.iter().any(uses)
    }
    file.message_type.iter().any(uses)
}

/// Checks what would otherwise come out as Rust that does not compile.
fn check_config(config: &Config) -> Result {
    let is_path = |path: &str| syn::parse_str::<syn::Path>(path).is_ok();
    let wrong = |what: String, help: &str| Err(Diagnostic::new(what).help(help).into());
    let runtime = config.runtime.as_str();
    if !is_path(runtime) || !(runtime.starts_with("::") || runtime.starts_with("crate")) {
        let what = format!("the runtime path `{runtime}` is not an absolute path");
        return wrong(what, "write it like `::stubborn` or `crate::runtime`");
    }
    if let Some((_, rust)) = config.extern_paths.iter().find(|(_, rust)| !is_path(rust)) {
        return wrong(format!("`{rust}` is not a path"), "write it like `::common::v1`");
    }
    for (proto, rust) in &config.renames {
        if syn::parse_str::<syn::Ident>(rust).is_err() {
            let what = format!("`{rust}`, the new name of {proto}, is not a Rust name");
            return wrong(what, "use letters, digits and underscores, and no keyword");
        }
    }
    for attribute in &config.attributes {
        let item = format!("{} struct A;", attribute.text);
        if syn::parse_str::<syn::ItemStruct>(&item).is_err() {
            let what = format!("`{}` is not an attribute", attribute.text);
            return wrong(what, "write it like `#[derive(Eq)]`");
        }
    }
    let name = Path::new(&config.include_file);
    if name.components().count() != 1 || name.file_name().is_none() {
        let what = format!("`{}` is not a file name", config.include_file);
        return wrong(what, "the module tree is written beside the packages");
    }
    Ok(())
}

/// Leaves a file alone that is as it should be, so that what depends on its time is not rebuilt.
fn write_if_changed(path: &Path, content: &[u8]) -> Result {
    match fs::read(path) {
        Ok(old) if old == content => Ok(()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("read", path, &e)),
        _ => fs::write(path, content).map_err(|e| Error::io("write", path, &e)),
    }
}
