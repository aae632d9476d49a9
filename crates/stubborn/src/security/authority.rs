//! A certificate authority of one's own.

use std::fmt;
use std::path::Path;

use stubborn_tls::{ConfigError, Usage};

use super::{Identity, SecurityError, Trust, read};

/// A key that signs certificates: for the nodes of a group, which believe each other by it, and for
/// those who may call them.
pub struct Authority(stubborn_tls::Authority);

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    /// If the system gives no entropy.
    pub fn generate() -> Result<Self, SecurityError> {
        Ok(Self(stubborn_tls::Authority::generate()?))
    }

    /// Reads one that was made by [`generate`](Self::generate) from PEM files.
    ///
    /// # Errors
    /// If a file cannot be read or holds no such thing; the error names the file.
    pub fn from_pem_files(
        certificate: impl AsRef<Path>,
        private_key: impl AsRef<Path>,
    ) -> Result<Self, SecurityError> {
        let (certificate, private_key) = (certificate.as_ref(), private_key.as_ref());
        let text = |file: &Path| {
            String::from_utf8(read(file)?).map_err(|_| {
                let wrong = ConfigError::MalformedPem("not UTF-8".into());
                SecurityError::from(wrong).in_file(file)
            })
        };
        stubborn_tls::Authority::from_pem(&text(certificate)?, &text(private_key)?)
            .map(Self)
            .map_err(|error| SecurityError::from(error).in_file(private_key))
    }

    /// Makes a key and a certificate for a node: it serves under these DNS names and IP addresses,
    /// and calls other nodes. One of the names may be a SPIFFE id.
    ///
    /// # Errors
    /// If a name is none of these, or two are SPIFFE ids.
    pub fn issue_node(
        &self,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Identity, SecurityError> {
        Ok(Identity::of(self.0.issue(names, Usage::Node)?))
    }

    /// Makes a key and a certificate for somebody who calls, known by a DNS name or a SPIFFE id
    /// (`spiffe://TRUST-DOMAIN/PATH`); nobody can pass for a node with it.
    ///
    /// # Errors
    /// If the name is neither.
    pub fn issue_client(&self, name: &str) -> Result<Identity, SecurityError> {
        Ok(Identity::of(self.0.issue([name], Usage::Client)?))
    }

    /// Trust in what this authority has signed.
    pub fn trust(&self) -> Trust {
        Trust::of(self.0.roots())
    }

    /// The certificate as PEM, to be given to those who shall trust it.
    pub fn certificate_pem(&self) -> &str {
        self.0.certificate_pem()
    }

    /// The private key as PEM. Keep it secret: whoever has it can pass for any node.
    pub fn key_pem(&self) -> &str {
        self.0.key_pem()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}
