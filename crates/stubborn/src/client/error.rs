//! Why a channel could not be opened.

use std::fmt;
use std::io;

use crate::journal::JournalError;
use crate::naming::ParseAddressError;
use crate::security::SecurityError;

/// Why a channel could not be opened. No call was made.
#[derive(Debug)]
pub struct ConnectError {
    address: String,
    kind: ConnectErrorKind,
}

/// What failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The address cannot be read.
    Address(ParseAddressError),
    /// No host of it has an address.
    Resolve(io::Error),
    /// A certificate, key or authority of this client cannot be used.
    Security(SecurityError),
    /// The system gives no socket.
    Socket(io::Error),
    /// No server answered; the text says what was tried.
    Unreachable(String),
    /// A server refused this client, or this client the server; the text says why.
    Refused(String),
    /// The journal cannot be used.
    Journal(JournalError),
    /// The endpoint was closed meanwhile.
    Closed,
    /// A bearer token would go to a server that has not proved who it is.
    UnverifiedBearer,
}

impl ConnectError {
    pub(crate) fn new(address: impl Into<String>, kind: ConnectErrorKind) -> Self {
        Self { address: address.into(), kind }
    }

    /// The address as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What failed.
    pub fn kind(&self) -> &ConnectErrorKind {
        &self.kind
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ConnectErrorKind::Address(error) = &self.kind {
            return write!(f, "{error}");
        }
        write!(f, "cannot connect to {}: ", self.address)?;
        match &self.kind {
            ConnectErrorKind::Address(_) => Ok(()),
            ConnectErrorKind::Resolve(error) => write!(
                f,
                "no address found: {error}; is the name spelled as it should be (HOST:PORT)?"
            ),
            ConnectErrorKind::Security(error) => write!(f, "{error}"),
            ConnectErrorKind::Journal(error) => write!(f, "{error}"),
            ConnectErrorKind::Socket(error) => write!(f, "no UDP socket: {error}"),
            ConnectErrorKind::Unreachable(why) => {
                // It names the address that was tried, which stands there already if it was the only one.
                let named = why.strip_prefix(self.address.as_str());
                let why = named.and_then(|why| why.strip_prefix(": ")).unwrap_or(why);
                write!(
                    f,
                    "{why}; is the server running there, and do UDP datagrams get through to it?"
                )
            }
            ConnectErrorKind::Refused(why) if why.contains("is not trusted") => write!(
                f,
                "{why}; use the address with ?pin= that the server printed, or give the authority \
                 or the key that it is known by (Trust::pem_file, Trust::key)"
            ),
            ConnectErrorKind::Refused(why) => f.write_str(why),
            ConnectErrorKind::Closed => f.write_str("the endpoint was closed"),
            ConnectErrorKind::UnverifiedBearer => f.write_str(
                "a bearer token is only sent to servers that prove who they are: give the authority \
                 or the key that the server is known by, and use TLS",
            ),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ConnectErrorKind::Address(error) => Some(error),
            ConnectErrorKind::Security(error) => Some(error),
            ConnectErrorKind::Journal(error) => Some(error),
            ConnectErrorKind::Resolve(error) | ConnectErrorKind::Socket(error) => Some(error),
            _ => None,
        }
    }
}
