//! Whom a client trusts.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Once};

use stubborn_tls::rustls::RootCertStore;
use stubborn_tls::{KeyLog, Roots, ServerTrust, TlsClient};

use super::{Identity, SecurityError, read};

/// SHA-256 of a public key (of the subject public key info of a certificate). It stays the same
/// when a certificate is renewed with the same key. Printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Which servers a client believes, or which clients a server lets in.
#[derive(Clone, Debug)]
pub struct Trust(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    Roots(Roots),
    Key(Fingerprint),
    Anybody,
}

impl Trust {
    /// Servers whose certificate is for their name and signed by an authority that this machine
    /// trusts. The default.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// Certificates that are signed by an authority in this PEM file, or stand in it themselves.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub fn pem_file(file: impl AsRef<Path>) -> Result<Self, SecurityError> {
        let file = file.as_ref();
        Self::pem(read(file)?).map_err(|error| error.in_file(file))
    }

    /// The same from PEM text.
    ///
    /// # Errors
    /// If it holds no certificate.
    pub fn pem(certificates: impl AsRef<[u8]>) -> Result<Self, SecurityError> {
        Ok(Self(Kind::Roots(Roots::from_pem(certificates.as_ref())?)))
    }

    /// The server that owns this key, whatever its certificate says. As safe as an authority, if
    /// the fingerprint came by a safe way.
    pub fn key(fingerprint: Fingerprint) -> Self {
        Self(Kind::Key(fingerprint))
    }

    /// Anybody, even an attacker in between. What is sent is encrypted, but nobody knows for whom.
    /// Warns on standard error when it is first used.
    pub fn insecure() -> Self {
        Self(Kind::Anybody)
    }

    pub(super) fn of(roots: Roots) -> Self {
        Self(Kind::Roots(roots))
    }

    /// Whether servers have to prove who they are.
    pub(crate) fn is_verifying(&self) -> bool {
        !matches!(self.0, Kind::Anybody)
    }

    /// The TLS configuration of a client with this trust.
    pub(crate) fn client(
        &self,
        identity: Option<&Identity>,
        key_log: Option<&KeyLog>,
    ) -> Result<Arc<TlsClient>, SecurityError> {
        let mut builder = TlsClient::builder(self.servers()?).key_log(key_log.cloned());
        if let Some(identity) = identity {
            builder = builder.identity(identity.tls.clone());
        }
        Ok(Arc::new(builder.build()?))
    }

    /// The same for TLS over TCP, with these application protocols.
    #[cfg(feature = "grpc")]
    pub(crate) fn tcp_client(
        &self,
        identity: Option<&Identity>,
        protocols: &[&[u8]],
        key_log: Option<&KeyLog>,
    ) -> Result<stubborn_tls::TcpClient, SecurityError> {
        let identity = identity.map(|identity| &identity.tls);
        Ok(stubborn_tls::tcp_client(&self.servers()?, identity, protocols, key_log)?)
    }

    fn servers(&self) -> Result<ServerTrust, SecurityError> {
        Ok(match &self.0 {
            Kind::System => ServerTrust::Roots(system_roots()?),
            Kind::Roots(roots) => ServerTrust::Roots(roots.clone()),
            Kind::Key(fingerprint) => ServerTrust::Key(fingerprint.0),
            Kind::Anybody => {
                warn_of_anybody();
                ServerTrust::DangerouslyAcceptAnyCertificate
            }
        })
    }

    /// The authorities; `None` if this trust is not one in authorities.
    pub(crate) fn roots(&self) -> Result<Option<Roots>, SecurityError> {
        match &self.0 {
            Kind::System => system_roots().map(Some),
            Kind::Roots(roots) => Ok(Some(roots.clone())),
            Kind::Key(_) | Kind::Anybody => Ok(None),
        }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self::system()
    }
}

impl From<Fingerprint> for Trust {
    fn from(fingerprint: Fingerprint) -> Self {
        Self::key(fingerprint)
    }
}

fn system_roots() -> Result<Roots, SecurityError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let why = found.errors.first().map(|e| format!(" ({e})")).unwrap_or_default();
        return Err(SecurityError::no_system_roots(why));
    }
    Ok(Roots::from(store))
}

fn warn_of_anybody() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        eprintln!(
            "stubborn: WARNING: the server's certificate is not checked; anybody in between can \
             read and change everything"
        );
    });
}

/// Why a text is not a fingerprint: it is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseFingerprintError;

impl fmt::Display for ParseFingerprintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fingerprint is 64 hex digits: SHA-256 of the server's public key")
    }
}

impl std::error::Error for ParseFingerprintError {}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return Err(ParseFingerprintError);
        }
        let mut digest = [0; 32];
        for (byte, digits) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| ParseFingerprintError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseFingerprintError)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_survives_being_printed_and_read() {
        let print = Identity::self_signed(["localhost"]).unwrap().fingerprint().unwrap();
        assert_eq!(print.to_string().parse(), Ok(print));
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let long = "0".repeat(65);
        let signs = format!("+{}", "0".repeat(63));
        let wide = "é".repeat(32);
        for text in ["", "00", &long, &signs, &wide] {
            assert_eq!(text.parse::<Fingerprint>(), Err(ParseFingerprintError), "{text}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let error = Trust::pem_file("/nonexistent/ca.pem").unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/ca.pem: cannot be read"), "{error}");
        let error = Identity::from_pem_files("/nonexistent/a.crt", "b.key").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/a.crt"), "{error}");
    }
}
