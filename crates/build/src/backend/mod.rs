//! Who writes the Rust of messages. Services are written by the same emitters for all.

#[cfg(feature = "buffa")]
mod buffa;
mod prost;

use std::collections::BTreeMap;

use prost_build::Module;
use prost_types::FileDescriptorProto;
use stubborn_stubs::Service;

use crate::Result;
use crate::config::Config;

/// Whose messages stubs carry. On the wire they are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// Those of `prost`.
    #[default]
    Prost,
    /// Those of [`buffa`](https://docs.rs/buffa), version 0.9. A crate with such stubs depends on
    /// `buffa`, on `stubborn` with its feature `buffa`, and, if it uses Google's well-known types, on
    /// `buffa-types`. `google.protobuf.Empty` is that type, and not `()`.
    ///
    /// Unknown fields are kept; fields of messages are a `MessageField`, and of enums an `EnumValue`,
    /// which has room for values that are not known.
    #[cfg(feature = "buffa")]
    Buffa,
}

/// The Rust of all files, by the module of their package.
pub(crate) fn rust_modules(
    config: &Config,
    files: Vec<FileDescriptorProto>,
    services: Vec<Service>,
) -> Result<BTreeMap<Module, String>> {
    match config.backend {
        Backend::Prost => prost::rust_modules(config, files, services),
        #[cfg(feature = "buffa")]
        Backend::Buffa => buffa::rust_modules(config, files, services),
    }
}
