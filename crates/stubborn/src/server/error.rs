//! Why a server could not start, or go on.

use std::fmt;
use std::io;

use stubborn_core::service::RegisterError;

use crate::security::SecurityError;

/// Why a server could not start, or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The address to listen on cannot be read or resolved.
    Address(String, io::Error),
    /// The system refuses the address.
    Bind(String, io::Error),
    /// No identity was given, and there is no unencrypted mode.
    NoIdentity,
    /// A certificate, key or authority cannot be used.
    Security(SecurityError),
    /// Clients can only be let in by authorities, not by a key or at random.
    ClientTrust,
    /// Two services or methods cannot stand beside each other.
    Service(RegisterError),
    /// Permissions that cannot be meant so.
    Permissions(String),
    /// The system gives no entropy.
    Entropy(io::Error),
    /// A worker's thread could not be started.
    Worker(io::Error),
    /// The server ran, and has ended because a worker panicked.
    Failed,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, error) => {
                write!(f, "cannot listen on {address:?}: {error} (expected IP:PORT)")
            }
            Self::Bind(address, error) => match error.kind() {
                io::ErrorKind::AddrInUse => write!(
                    f,
                    "cannot listen on {address}: another program uses this UDP port; stop it or \
                     choose another port"
                ),
                io::ErrorKind::PermissionDenied => write!(
                    f,
                    "cannot listen on {address}: not permitted (ports below 1024 need privileges)"
                ),
                _ => write!(f, "cannot listen on {address}: {error}"),
            },
            Self::NoIdentity => f.write_str(
                "a server needs an identity: .identity(Identity::from_pem_files(..)?), or for \
                 development .identity(Identity::self_signed([\"localhost\"])?)",
            ),
            Self::Security(error) => write!(f, "{error}"),
            Self::ClientTrust => f.write_str(
                "clients are let in by authorities: use Trust::pem_file or Trust::pem for them",
            ),
            Self::Service(error) => write!(f, "{error}"),
            Self::Permissions(why) => f.write_str(why),
            Self::Entropy(error) => write!(f, "the system gives no entropy: {error}"),
            Self::Worker(error) => write!(f, "a worker could not be started: {error}"),
            Self::Failed => f.write_str(
                "the server has ended: a worker panicked (its message stands above), and what it \
                 remembered of its sessions is gone; start the server anew",
            ),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(_, error)
            | Self::Bind(_, error)
            | Self::Entropy(error)
            | Self::Worker(error) => Some(error),
            Self::Security(error) => Some(error),
            Self::Service(error) => Some(error),
            Self::NoIdentity | Self::ClientTrust | Self::Permissions(_) | Self::Failed => None,
        }
    }
}

impl From<SecurityError> for ServeError {
    fn from(error: SecurityError) -> Self {
        Self::Security(error)
    }
}

impl From<RegisterError> for ServeError {
    fn from(error: RegisterError) -> Self {
        Self::Service(error)
    }
}
