//! What is generated, from where, to where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::backend::Backend;
use crate::{Result, names, pipeline};

/// How to generate. [`Config::new`] is what [`compile`](crate::compile) uses.
///
/// ```no_run
/// fn main() -> stubborn_build::Result {
///     stubborn_build::Config::new()
///         .include("proto")
///         .type_attribute(".", "#[derive(serde::Serialize)]")
///         .server(false)
///         .compile(["proto/bank.proto"])
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) includes: Vec<PathBuf>,
    pub(crate) out_dir: Option<PathBuf>,
    pub(crate) include_file: String,
    pub(crate) runtime: String,
    pub(crate) file_descriptor_set_path: Option<PathBuf>,
    pub(crate) extern_paths: Vec<(String, String)>,
    pub(crate) renames: BTreeMap<String, String>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) btree_maps: Vec<String>,
    pub(crate) bytes: Vec<String>,
    pub(crate) client: bool,
    pub(crate) server: bool,
    pub(crate) connect: bool,
    pub(crate) backend: Backend,
}

/// An attribute, what kind of item it is for, and the path of the items.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) kind: AttributeKind,
    pub(crate) path: String,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum AttributeKind {
    Type,
    Message,
    Enum,
    Field,
}

/// What was generated, before it is written.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Rust source by file name: one per package, and the module tree that includes them.
    pub files: BTreeMap<String, String>,
    /// The encoded `google.protobuf.FileDescriptorSet` of all files, with comments.
    pub file_descriptor_set: Vec<u8>,
    /// The files on disk that were read, sorted.
    pub inputs: Vec<PathBuf>,
}

impl Generated {
    /// Writes the files into this directory, which is made if it does not exist. Files that are as
    /// they should be are left alone.
    ///
    /// # Errors
    /// If the directory cannot be made or a file cannot be written.
    pub fn write_to(&self, directory: &Path) -> Result {
        pipeline::write(self, directory)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// Client and server, into `OUT_DIR`, for the crate `stubborn`.
    pub fn new() -> Self {
        Self {
            includes: Vec::new(),
            out_dir: None,
            include_file: "_protos.rs".into(),
            runtime: "::stubborn".into(),
            file_descriptor_set_path: None,
            extern_paths: Vec::new(),
            renames: BTreeMap::new(),
            attributes: Vec::new(),
            btree_maps: Vec::new(),
            bytes: Vec::new(),
            client: true,
            server: true,
            connect: true,
            backend: Backend::Prost,
        }
    }

    /// Looks for files and imports in this directory; may be given several times, the first that
    /// has a file wins. Without any, the directories of the files themselves are searched.
    #[must_use]
    pub fn include(mut self, directory: impl Into<PathBuf>) -> Self {
        self.includes.push(directory.into());
        self
    }

    /// Writes to this directory instead of `OUT_DIR`. It is made if it does not exist.
    #[must_use]
    pub fn out_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(directory.into());
        self
    }

    /// Names the file with the module tree; `_protos.rs` by default, which is what
    /// `stubborn::include_protos!()` brings in.
    #[must_use]
    pub fn include_file(mut self, name: impl Into<String>) -> Self {
        self.include_file = name.into();
        self
    }

    /// The path of the runtime crate in generated code; `::stubborn` by default. It must be
    /// absolute (`::name` or `crate::name`) and have the service traits, `prost` and `prost_types`.
    #[must_use]
    pub fn runtime(mut self, path: impl Into<String>) -> Self {
        self.runtime = path.into();
        self
    }

    /// Also writes the encoded `google.protobuf.FileDescriptorSet` of all files, with comments.
    #[must_use]
    pub fn file_descriptor_set_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.file_descriptor_set_path = Some(path.into());
        self
    }

    /// Uses types that exist already: `extern_path("common.v1", "::common::v1")`. A package, or a
    /// single message. Nothing is generated for it.
    #[must_use]
    pub fn extern_path(mut self, proto: impl AsRef<str>, rust: impl Into<String>) -> Self {
        self.extern_paths.push((full_path(proto.as_ref()), rust.into()));
        self
    }

    /// Gives a service (`bank.v1.Bank`) or a method (`bank.v1.Bank/Transfer`) another name in Rust.
    /// On the wire nothing changes.
    #[must_use]
    pub fn rename(mut self, proto: impl AsRef<str>, rust: impl Into<String>) -> Self {
        let proto = proto.as_ref().trim_start_matches('.').to_owned();
        self.renames.insert(proto, rust.into());
        self
    }

    /// Adds an attribute to messages, enums and oneofs. `path` is a full name (`bank.v1.Account`),
    /// a package, a name's end, or `.` for all.
    #[must_use]
    pub fn type_attribute(self, path: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.attribute(AttributeKind::Type, path.into(), attribute.into())
    }

    /// Adds an attribute to messages. See [`Config::type_attribute`] for `path`.
    #[must_use]
    pub fn message_attribute(self, path: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.attribute(AttributeKind::Message, path.into(), attribute.into())
    }

    /// Adds an attribute to enums and oneofs. See [`Config::type_attribute`] for `path`.
    #[must_use]
    pub fn enum_attribute(self, path: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.attribute(AttributeKind::Enum, path.into(), attribute.into())
    }

    /// Adds an attribute to fields: `bank.v1.Account.name`, a type, a package, or `.`.
    #[must_use]
    pub fn field_attribute(self, path: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.attribute(AttributeKind::Field, path.into(), attribute.into())
    }

    fn attribute(mut self, kind: AttributeKind, path: String, text: String) -> Self {
        self.attributes.push(Attribute { kind, path, text });
        self
    }

    /// Makes `map` fields `BTreeMap`s instead of `HashMap`s, so that they are encoded in one order.
    /// See [`Config::field_attribute`] for `path`.
    #[must_use]
    pub fn btree_map(mut self, path: impl Into<String>) -> Self {
        self.btree_maps.push(path.into());
        self
    }

    /// Makes `bytes` fields `Bytes` (cheap to clone) instead of `Vec<u8>`. See
    /// [`Config::field_attribute`] for `path`.
    #[must_use]
    pub fn bytes(mut self, path: impl Into<String>) -> Self {
        self.bytes.push(path.into());
        self
    }

    /// Whether clients are generated; they are by default.
    #[must_use]
    pub fn client(mut self, generate: bool) -> Self {
        self.client = generate;
        self
    }

    /// Whether server traits are generated; they are by default.
    #[must_use]
    pub fn server(mut self, generate: bool) -> Self {
        self.server = generate;
        self
    }

    /// Whether clients get a `connect` function, for which the runtime needs one; they do by
    /// default.
    #[must_use]
    pub fn connect(mut self, generate: bool) -> Self {
        self.connect = generate;
        self
    }

    /// Whose messages stubs carry; those of `prost` by default. For another backend, paths of types and
    /// fields are full names, packages or `.`, and not a name's end.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Generates and writes. In a build script it also tells Cargo which files to watch.
    ///
    /// # Errors
    /// As [`compile`](crate::compile); also if neither an output directory is set nor `OUT_DIR`, or
    /// a file cannot be written.
    pub fn compile<P: AsRef<Path>>(&self, files: impl IntoIterator<Item = P>) -> Result {
        pipeline::compile(self, &paths(files))
    }

    /// Generates without writing.
    ///
    /// # Errors
    /// As [`compile`](crate::compile).
    pub fn generate<P: AsRef<Path>>(
        &self,
        files: impl IntoIterator<Item = P>,
    ) -> Result<Generated> {
        pipeline::generate(self, &paths(files))
    }

    pub(crate) fn service_name(&self, full_name: &str, name: &str) -> String {
        self.renames.get(full_name).cloned().unwrap_or_else(|| names::camel(name))
    }

    /// `full_name` is `package.Service/Method`.
    pub(crate) fn method_name(&self, full_name: &str, name: &str) -> String {
        self.renames.get(full_name).cloned().unwrap_or_else(|| names::method(name))
    }

    /// Whether the type with this full name, dot in front, exists elsewhere.
    pub(crate) fn is_extern(&self, full_name: &str) -> bool {
        let within = |path: &str| {
            full_name
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        within(".google.protobuf") || self.extern_paths.iter().any(|(path, _)| within(path))
    }
}

fn paths<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Vec<PathBuf> {
    files.into_iter().map(|p| p.as_ref().to_owned()).collect()
}

/// With the dot in front that stands for the root.
pub(crate) fn full_path(path: &str) -> String {
    if path.starts_with('.') { path.to_owned() } else { format!(".{path}") }
}
