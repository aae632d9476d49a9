//! Certificates: who one is, and whom one trusts.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;

use crate::ConfigError;

/// A certificate chain and its private key.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a chain (one's own certificate first) and a private key (PKCS #8, PKCS #1 or SEC 1) from
    /// PEM text. Both may stand in the same text.
    ///
    /// # Errors
    /// When a block is absent or malformed. Whether key and certificate belong together is checked
    /// when the identity is used.
    pub fn from_pem(certificates: &[u8], private_key: &[u8]) -> Result<Self, ConfigError> {
        let chain = certificates_from_pem(certificates)?;
        let key = PrivateKeyDer::from_pem_slice(private_key)
            .map_err(|e| ConfigError::pem(e, ConfigError::NoPrivateKey))?;
        Ok(Self { chain, key })
    }

    /// Takes a chain and a private key (PKCS #8, PKCS #1 or SEC 1) as DER.
    ///
    /// # Errors
    /// When the chain is empty or the key of none of these kinds.
    pub fn from_der(chain: Vec<Vec<u8>>, private_key: Vec<u8>) -> Result<Self, ConfigError> {
        if chain.is_empty() {
            return Err(ConfigError::NoCertificate);
        }
        let key = PrivateKeyDer::try_from(private_key)
            .map_err(|why| ConfigError::Unusable(format!("private key: {why}")))?;
        Ok(Self { chain: chain.into_iter().map(CertificateDer::from).collect(), key })
    }

    /// The chain as DER, one's own certificate first.
    pub fn chain(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.chain.iter().map(AsRef::as_ref)
    }

    /// The digest of the public key, by which peers know this identity; `None` when the certificate
    /// cannot be parsed.
    pub fn key_digest(&self) -> Option<[u8; 32]> {
        key_digest(self.chain.first()?)
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Certificates of authorities whose signatures count.
#[derive(Clone, Debug)]
pub struct Roots(pub(crate) Arc<RootCertStore>);

impl Roots {
    /// Every certificate in PEM text.
    ///
    /// # Errors
    /// When there is none, or one is malformed.
    pub fn from_pem(certificates: &[u8]) -> Result<Self, ConfigError> {
        Self::from_certificates(certificates_from_pem(certificates)?)
    }

    /// Certificates as DER.
    ///
    /// # Errors
    /// When there is none, or one is malformed.
    pub fn from_der(certificates: Vec<Vec<u8>>) -> Result<Self, ConfigError> {
        Self::from_certificates(certificates.into_iter().map(CertificateDer::from))
    }

    fn from_certificates(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, ConfigError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates {
            store.add(certificate)?;
        }
        if store.is_empty() {
            return Err(ConfigError::NoCertificate);
        }
        Ok(Self(Arc::new(store)))
    }
}

impl From<RootCertStore> for Roots {
    /// A store that the caller filled, for example with the system's authorities.
    fn from(store: RootCertStore) -> Self {
        Self(Arc::new(store))
    }
}

/// SHA-256 of the subject public key info of a DER certificate: the identity that it proves. `None`
/// when the certificate cannot be parsed.
pub fn key_digest(certificate: &[u8]) -> Option<[u8; 32]> {
    let certificate = CertificateDer::from(certificate);
    let key = ParsedCertificate::try_from(&certificate).ok()?.subject_public_key_info();
    Some(sha256(&key))
}

/// SHA-256 of these bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| ConfigError::pem(e, ConfigError::NoCertificate))?;
    if certificates.is_empty() { Err(ConfigError::NoCertificate) } else { Ok(certificates) }
}
