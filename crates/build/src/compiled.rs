//! What the compiler makes of all files together.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use protox::Compiler;

use crate::Result;
use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::sources::Sources;

/// All files that were given, and what they import.
pub(crate) struct Compiled {
    /// With custom options.
    pub(crate) pool: DescriptorPool,
    /// Without custom options, as `prost-build` reads them; what is imported goes before.
    pub(crate) files: Vec<FileDescriptorProto>,
    /// The names of those which nobody gave.
    pub(crate) imported: BTreeSet<String>,
}

impl Compiled {
    /// Compiles these files.
    ///
    /// # Errors
    /// What is wrong with them, and where.
    pub(crate) fn of(files: &[PathBuf], sources: &Sources) -> Result<Self> {
        let written = Self::from(files, sources);
        // Names written out in full have lost their places in the files, which errors show.
        written.or_else(|error| Self::from(files, &sources.qualified()).map_err(|_| error))
    }

    fn from(files: &[PathBuf], sources: &Sources) -> Result<Self> {
        let mut compiler = Compiler::with_file_resolver(sources.clone());
        compiler.include_imports(true).include_source_info(true);
        for file in files {
            compiler.open_file(file).map_err(|e| explain(&e, file, sources))?;
        }
        let imports = compiler.files().filter(|file| file.is_import());
        Ok(Self {
            imported: imports.map(|file| file.name().to_owned()).collect(),
            files: compiler.file_descriptor_set().file,
            pool: compiler.descriptor_pool(),
        })
    }
}

fn explain(error: &protox::Error, file: &Path, sources: &Sources) -> Error {
    let message = error.to_string();
    if message.contains("is not in any include path") && !file.exists() {
        let finding = Diagnostic::new(format!("file {} does not exist", file.display()));
        let here = env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
        return finding.help(format!("paths are relative to {here}")).into();
    }
    sources.explain(error)
}
