//! Why a replica could not start, or go on.

use std::fmt;
use std::io;
use std::path::PathBuf;

use stubborn_core::service::RegisterError;

use crate::security::SecurityError;
use crate::server::ServeError;

/// Why a replica could not start, or has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplicaError {
    /// A setting is missing or contradicts another; the text says which.
    Settings(String),
    /// The address to listen on, or the identity, cannot be used.
    Serve(ServeError),
    /// The address of a member cannot be resolved.
    Member(String, io::Error),
    /// The folder cannot be used as a replica's: its path, and why.
    Folder(PathBuf, String),
    /// The folder holds no node, and was not to be made.
    NoNode(PathBuf),
    /// The group does not take this node in; the text says why.
    Join(String),
    /// The disk refused a write or a sync. The node has stopped: what it had promised before is on
    /// the disk.
    Disk(String),
    /// The node has stopped because it cannot go on safely; the text says why.
    Stopped(String),
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(why) => f.write_str(why),
            Self::Serve(error) => error.fmt(f),
            Self::Member(address, error) => {
                write!(f, "the member {address} cannot be looked up: {error}")
            }
            Self::Folder(path, why) => write!(f, "{}: {why}", path.display()),
            Self::NoNode(path) => write!(
                f,
                "{} holds no node: a new group makes it at its first start; a node that has lost \
                 its disk must come back under another number",
                path.display()
            ),
            Self::Join(why) => write!(f, "this node cannot join: {why}"),
            Self::Disk(why) => write!(
                f,
                "the node has stopped because its disk failed: {why}; start it again when the disk \
                 is well"
            ),
            Self::Stopped(why) => write!(f, "the node has stopped: {why}"),
        }
    }
}

impl std::error::Error for ReplicaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Serve(error) => Some(error),
            Self::Member(_, error) => Some(error),
            _ => None,
        }
    }
}

impl From<ServeError> for ReplicaError {
    fn from(error: ServeError) -> Self {
        Self::Serve(error)
    }
}

impl From<SecurityError> for ReplicaError {
    fn from(error: SecurityError) -> Self {
        Self::Serve(error.into())
    }
}

impl From<RegisterError> for ReplicaError {
    fn from(error: RegisterError) -> Self {
        Self::Serve(error.into())
    }
}
