//! The error of this crate.

use std::fmt;
use std::io;
use std::path::Path;

use crate::diagnostic::Diagnostic;

/// Why nothing was generated.
///
/// `Display` and `Debug` both print it as compilers do, with the line of the source and a mark
/// under the place, so that `main` of a `build.rs` can return it.
pub struct Error(Vec<Diagnostic>);

impl Error {
    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.0[0].message
    }

    /// The file that it is about, if it is about one.
    pub fn file(&self) -> Option<&str> {
        Some(&self.0[0].labels.first()?.file)
    }

    /// The line, from 1.
    pub fn line(&self) -> Option<usize> {
        Some(self.0[0].labels.first()?.line)
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> Option<usize> {
        Some(self.0[0].labels.first()?.column)
    }

    /// What to do about it, where that can be said.
    pub fn help(&self) -> Option<&str> {
        self.0[0].help.as_deref()
    }

    /// One error for all of these findings; none is no error.
    pub(crate) fn from_findings(findings: Vec<Diagnostic>) -> Result<(), Self> {
        if findings.is_empty() { Ok(()) } else { Err(Self(findings)) }
    }

    pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Diagnostic::new(format!("cannot {what} {}: {error}", path.display())).into()
    }
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
