//! What goes wrong with a folder, and how it is told.

use std::fmt;
use std::io;

use crate::Identity;

/// Why a store cannot do what it was asked for. After an error from anything that writes, the store
/// is unusable: the folder may be opened anew, by a new process at best.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused: a full disk, a failed sync, a sector that cannot be read.
    Io {
        /// What was being done, as "write" or "sync".
        doing: &'static str,
        /// To which file of the folder.
        file: String,
        /// What it said.
        error: io::Error,
    },
    /// A file does not hold what was written to it.
    Corrupt(Damage),
    /// Another process has the folder open.
    InUse,
    /// The folder holds no node: it never did, or its disk was lost. It must not be started as a node
    /// that has promised something before (`Store::create` is for new nodes).
    NoNode,
    /// The folder holds a node already.
    Occupied,
    /// The folder holds another node than the one that was asked for.
    OtherNode {
        /// Whose folder it is.
        found: Identity,
        /// The group that was asked for.
        group: u64,
        /// The node that was asked for.
        node: u64,
    },
    /// A file was written by a later version of the program.
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// What was to be written is larger than the format allows.
    TooLarge,
    /// An earlier error, which is told again, has made this store unusable.
    Failed(String),
}

/// Where a file is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file in the folder.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What should be there, as "entry 4711" or "the head of the log".
    pub what: String,
    /// How it is known.
    pub why: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, what, why } = self;
        write!(f, "{file} is damaged at offset {offset}: {what}: {why}")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, file, error } => write!(f, "cannot {doing} {file}: {error}"),
            Self::Corrupt(damage) => damage.fmt(f),
            Self::InUse => f.write_str("another process has the folder open"),
            Self::NoNode => f.write_str("the folder holds no node"),
            Self::Occupied => f.write_str("the folder holds a node already"),
            Self::OtherNode { found, group, node } => write!(
                f,
                "the folder is that of node {} of group {:016x}, not of node {node} of group \
                 {group:016x}",
                found.node.get(),
                found.group
            ),
            Self::Version { file, found } => {
                write!(f, "{file} has format version {found}, which this program does not know")
            }
            Self::TooLarge => f.write_str("what is to be written is larger than the format allows"),
            Self::Failed(why) => write!(f, "the store has failed before: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Names what was being done when the operating system refused.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, file: &str) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, file: &str) -> Result<T, Error> {
        self.map_err(|error| Error::Io { doing, file: file.to_owned(), error })
    }
}

pub(crate) fn corrupt(
    file: &str,
    offset: u64,
    what: impl Into<String>,
    why: &'static str,
) -> Error {
    Error::Corrupt(Damage { file: file.to_owned(), offset, what: what.into(), why })
}
