//! Certificates for development and tests.

use crate::{ConfigError, Identity, Roots};

/// A certificate that was just made, with its key: by [`self_signed`], for which nobody but itself
/// vouches, or by an [`Authority`](crate::Authority).
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// Certificate and key, to be served.
    pub identity: Identity,
    /// The certificate as PEM, to be given to those who shall trust it.
    pub certificate_pem: String,
    /// The private key as PEM.
    pub key_pem: String,
}

impl SelfSigned {
    /// Roots that trust this certificate, if it was signed by itself, and no other.
    pub fn roots(&self) -> Roots {
        let certificate = self.identity.chain[0].to_vec();
        Roots::from_der(vec![certificate]).expect("a certificate that was just made parses")
    }
}

/// Makes a new key (ECDSA P-256) and a self-signed certificate for these DNS names and IP addresses.
///
/// # Errors
/// When a name is neither a DNS name nor an IP address.
pub fn self_signed(
    names: impl IntoIterator<Item = impl Into<String>>,
) -> Result<SelfSigned, ConfigError> {
    let names: Vec<String> = names.into_iter().map(Into::into).collect();
    let unusable = |error: rcgen::Error| ConfigError::Unusable(error.to_string());
    // People look at the subject, programs at the alternative names.
    let common_name = names.first().cloned().unwrap_or_else(|| "self-signed".to_owned());
    let mut parameters = rcgen::CertificateParams::new(names).map_err(unusable)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    let key = rcgen::KeyPair::generate().map_err(unusable)?;
    let certificate = parameters.self_signed(&key).map_err(unusable)?;
    let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
    let identity = Identity::from_pem(certificate_pem.as_bytes(), key_pem.as_bytes())?;
    Ok(SelfSigned { identity, certificate_pem, key_pem })
}
