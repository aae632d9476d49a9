//! Why a journal cannot be used.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a journal cannot be used. Nothing in the file was changed.
#[derive(Debug)]
pub struct JournalError {
    path: PathBuf,
    kind: JournalErrorKind,
}

/// What is wrong with it.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// The file cannot be read or written.
    Io(io::Error),
    /// Another process has it open.
    InUse,
    /// It is no journal, or one of another version.
    NotAJournal,
    /// It was changed after it was written: what is at this offset does not match its checksum, and
    /// more follows.
    Damaged {
        /// From the beginning of the file, in bytes.
        offset: u64,
        /// What is wrong there.
        why: &'static str,
    },
}

impl JournalError {
    pub(super) fn new(path: &Path, kind: JournalErrorKind) -> Self {
        Self { path: path.to_owned(), kind }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn kind(&self) -> &JournalErrorKind {
        &self.kind
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the journal {} ", self.path.display())?;
        match &self.kind {
            JournalErrorKind::Io(error) => write!(f, "cannot be used: {error}"),
            JournalErrorKind::InUse => f.write_str("is in use by another process"),
            JournalErrorKind::NotAJournal => {
                f.write_str("is no journal, or one of another version: name another file")
            }
            JournalErrorKind::Damaged { offset, why } => write!(
                f,
                "is damaged at byte {offset}: {why}. What became of its calls can still be asked for \
                 by their ids"
            ),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            JournalErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}
