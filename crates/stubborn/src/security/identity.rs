//! A certificate with its private key.

use std::fmt;
use std::path::Path;

use super::{Fingerprint, SecurityError, Trust, read};

/// A certificate chain and its private key: who a server is, or a client that shows a certificate.
#[derive(Clone)]
pub struct Identity {
    pub(crate) tls: stubborn_tls::Identity,
    certificate_pem: String,
    key_pem: String,
}

impl Identity {
    /// Reads a certificate chain and a private key from PEM files.
    ///
    /// # Errors
    /// If a file cannot be read or holds no such thing; the error names the file.
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        private_key: impl AsRef<Path>,
    ) -> Result<Self, SecurityError> {
        let (certificate_file, key_file) = (certificates.as_ref(), private_key.as_ref());
        let (certificates, key) = (read(certificate_file)?, read(key_file)?);
        Self::from_pem(&certificates, &key).map_err(|error| {
            let about_key = stubborn_tls::Identity::from_pem(&certificates, &certificates).is_ok()
                || error.to_string().contains("private key");
            error.in_file(if about_key { key_file } else { certificate_file })
        })
    }

    /// Reads a certificate chain (one's own certificate first) and a private key from PEM text.
    ///
    /// # Errors
    /// If one of them is absent or malformed.
    pub fn from_pem(
        certificates: impl AsRef<[u8]>,
        private_key: impl AsRef<[u8]>,
    ) -> Result<Self, SecurityError> {
        let (certificates, key) = (certificates.as_ref(), private_key.as_ref());
        let tls = stubborn_tls::Identity::from_pem(certificates, key)?;
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        Ok(Self { tls, certificate_pem: text(certificates), key_pem: text(key) })
    }

    /// Makes a new key and a certificate for these DNS names and IP addresses that nobody else
    /// vouches for. Clients trust it by its [`fingerprint`](Self::fingerprint) or by its
    /// certificate. For development; a server that makes a new one at each start is a stranger
    /// after each restart.
    ///
    /// # Errors
    /// If a name is neither a DNS name nor an IP address.
    pub fn self_signed(
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, SecurityError> {
        Ok(Self::of(stubborn_tls::self_signed(names)?))
    }

    pub(super) fn of(made: stubborn_tls::SelfSigned) -> Self {
        let stubborn_tls::SelfSigned { identity, certificate_pem, key_pem } = made;
        Self { tls: identity, certificate_pem, key_pem }
    }

    /// The certificate chain as PEM, to be given to those who shall trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key as PEM. Keep it secret.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The digest of the public key, by which peers can know this identity without any authority.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn fingerprint(&self) -> Result<Fingerprint, SecurityError> {
        let digest = self.tls.key_digest();
        let unparsable = || stubborn_tls::ConfigError::Unusable("malformed certificate".into());
        Ok(Fingerprint(digest.ok_or_else(unparsable)?))
    }

    /// Trust in this identity and no other.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn trust(&self) -> Result<Trust, SecurityError> {
        Ok(Trust::key(self.fingerprint()?))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}
