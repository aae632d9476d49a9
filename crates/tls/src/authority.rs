//! A certificate authority of one's own: for the nodes of a group and those who may call them.

use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use stubborn_core::identity::{SpiffeId, SpiffeIdError};

use crate::{ConfigError, Identity, Roots, SelfSigned};

/// A key that signs certificates, and the certificate by which others know it.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key_pem: String,
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To serve, and to call others: a node of a group.
    Node,
    /// To call only: nobody can pass for a server with it.
    Client,
}

impl Authority {
    /// Makes a new key (ECDSA P-256) and a certificate for it.
    ///
    /// # Errors
    /// When the system gives no entropy.
    pub fn generate() -> Result<Self, ConfigError> {
        let key = KeyPair::generate().map_err(unusable)?;
        let certificate = parameters(&key).self_signed(&key).map_err(unusable)?;
        Ok(Self::of(key, certificate.pem()))
    }

    /// Reads one that was made by [`generate`](Self::generate).
    ///
    /// # Errors
    /// When certificate or key are malformed, or do not belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, ConfigError> {
        let key = KeyPair::from_pem(key_pem).map_err(unusable)?;
        let identity = Identity::from_pem(certificate_pem.as_bytes(), key_pem.as_bytes())?;
        let own = parameters(&key).self_signed(&key).map_err(unusable)?;
        // The name of the authority follows from its key, so that it need not be read.
        if identity.key_digest() != crate::key_digest(own.der()) {
            return Err(ConfigError::KeyMismatch);
        }
        Ok(Self::of(key, certificate_pem.to_owned()))
    }

    fn of(key: KeyPair, certificate_pem: String) -> Self {
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(parameters(&key), key), certificate_pem, key_pem }
    }

    /// Makes a new key and a certificate for these names: DNS names, IP addresses, and at most one
    /// SPIFFE id. The first is the one that people read.
    ///
    /// # Errors
    /// When a name is none of these, or there are two SPIFFE ids.
    pub fn issue(
        &self,
        names: impl IntoIterator<Item = impl Into<String>>,
        usage: Usage,
    ) -> Result<SelfSigned, ConfigError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        let (uris, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|n| n.contains("://"));
        if uris.len() > 1 {
            return Err(ConfigError::Unusable("a certificate has one SPIFFE id at most".into()));
        }
        let mut wanted = CertificateParams::new(names).map_err(unusable)?;
        for uri in uris {
            let wrong = |why: SpiffeIdError| ConfigError::Unusable(format!("{uri}: {why}"));
            let id = SpiffeId::from_str(&uri).map_err(wrong)?;
            let name = id.as_str().try_into().map_err(unusable)?;
            wanted.subject_alt_names.push(SanType::URI(name));
        }
        wanted.distinguished_name = DistinguishedName::new();
        wanted.distinguished_name.push(DnType::CommonName, common_name);
        wanted.use_authority_key_identifier_extension = true;
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = match usage {
            Usage::Node => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let key = KeyPair::generate().map_err(unusable)?;
        let certificate = wanted.signed_by(&key, &self.issuer).map_err(unusable)?;
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let identity = Identity::from_pem(certificate_pem.as_bytes(), key_pem.as_bytes())?;
        Ok(SelfSigned { identity, certificate_pem, key_pem })
    }

    /// Roots that trust what this authority has signed.
    pub fn roots(&self) -> Roots {
        Roots::from_pem(self.certificate_pem.as_bytes()).expect("it was read or made before")
    }

    /// The certificate as PEM, to be given to those who shall trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key as PEM. Whoever has it can pass for anybody.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

fn parameters(key: &KeyPair) -> CertificateParams {
    let mut own = CertificateParams::default();
    let digest = crate::identity::sha256(&key.subject_public_key_info());
    let short: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    own.distinguished_name = DistinguishedName::new();
    own.distinguished_name.push(DnType::CommonName, format!("stubborn authority {short}"));
    own.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    own
}

fn unusable(error: rcgen::Error) -> ConfigError {
    ConfigError::Unusable(error.to_string())
}
