//! Who one is and whom one trusts. There are no unencrypted connections.

mod authority;
mod files;
mod identity;
mod trust;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use stubborn_tls::ConfigError;

pub use authority::Authority;
pub use files::IdentityFiles;
pub(crate) use files::{Listener, watch_files};
pub use identity::Identity;
pub use stubborn_tls::{KEY_LOG_VARIABLE, KeyLog};
pub use trust::{Fingerprint, ParseFingerprintError, Trust};

/// Why a certificate, key or trust anchor cannot be used.
#[derive(Debug)]
pub struct SecurityError {
    file: Option<PathBuf>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Unreadable(io::Error),
    Unusable(ConfigError),
    NoSystemRoots(String),
}

impl SecurityError {
    fn unreadable(file: &Path, error: io::Error) -> Self {
        Self { file: Some(file.to_owned()), cause: Cause::Unreadable(error) }
    }

    fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    fn no_system_roots(why: String) -> Self {
        Self { file: None, cause: Cause::NoSystemRoots(why) }
    }
}

impl From<ConfigError> for SecurityError {
    fn from(error: ConfigError) -> Self {
        Self { file: None, cause: Cause::Unusable(error) }
    }
}

impl fmt::Display for SecurityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        match &self.cause {
            Cause::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Cause::Unusable(error) => write!(f, "{error}"),
            Cause::NoSystemRoots(why) => write!(
                f,
                "this system has no list of trusted authorities{why}: name the server's authority \
                 or pin its key instead"
            ),
        }
    }
}

impl std::error::Error for SecurityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Unreadable(error) => Some(error),
            Cause::Unusable(error) => Some(error),
            Cause::NoSystemRoots(_) => None,
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(file).map_err(|error| SecurityError::unreadable(file, error))
}
