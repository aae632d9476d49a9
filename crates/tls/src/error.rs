//! What can be wrong with a configuration, and how TLS errors are told.

use std::borrow::Cow;
use std::fmt;

use rustls::pki_types::pem;
use rustls::{AlertDescription, CertificateError};
use stubborn_core::transport::{Code, TransportError};

/// Why certificates, keys or options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The PEM text holds no certificate.
    NoCertificate,
    /// The PEM text holds no private key.
    NoPrivateKey,
    /// The PEM text is damaged.
    MalformedPem(String),
    /// The private key belongs to another certificate.
    KeyMismatch,
    /// The certificate, key or provider is of a kind that cannot be used.
    Unusable(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => {
                f.write_str("no certificate found: expected a PEM block \"CERTIFICATE\"")
            }
            Self::NoPrivateKey => {
                f.write_str("no private key found: expected a PEM block \"PRIVATE KEY\"")
            }
            Self::MalformedPem(why) => write!(f, "malformed PEM: {why}"),
            Self::KeyMismatch => f.write_str("the private key does not belong to the certificate"),
            Self::Unusable(why) => write!(f, "unusable TLS configuration: {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<rustls::Error> for ConfigError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
                Self::KeyMismatch
            }
            other => Self::Unusable(other.to_string()),
        }
    }
}

impl ConfigError {
    /// A PEM error; `absent` when nothing of the wanted kind was found.
    pub(crate) fn pem(error: pem::Error, absent: Self) -> Self {
        match error {
            pem::Error::NoItemsFound => absent,
            other => Self::MalformedPem(other.to_string()),
        }
    }
}

/// The transport error for a TLS error (RFC 9001 §4.8), with a text that helps whoever reads it.
pub(crate) fn transport_error(
    error: &rustls::Error,
    alert: Option<AlertDescription>,
) -> TransportError {
    let alert = alert.map_or(u8::from(AlertDescription::HandshakeFailure), u8::from);
    TransportError::new(Code::crypto(alert), explain(error))
}

fn explain(error: &rustls::Error) -> Cow<'static, str> {
    use CertificateError::*;
    match error {
        rustls::Error::NoCertificatesPresented => {
            "the client sent no certificate, and this server requires one".into()
        }
        rustls::Error::NoApplicationProtocol => "the peer does not speak stubborn/1".into(),
        rustls::Error::InvalidCertificate(why) => match why {
            // A certificate that signs itself is held against every authority of the same name, or
            // against all: which of these errors is left is chance.
            UnknownIssuer
            | BadSignature
            | UnsupportedSignatureAlgorithmContext { .. }
            | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                "the peer's certificate is not trusted: it is not signed by an authority that is \
                 known here"
                    .into()
            }
            ApplicationVerificationFailure => {
                "the peer's certificate is not trusted: its key is not the one that is expected"
                    .into()
            }
            Expired | ExpiredContext { .. } => {
                format!("the peer's certificate has expired: {why}").into()
            }
            NotValidYet | NotValidYetContext { .. } => {
                format!("the peer's certificate is not valid yet: {why}").into()
            }
            NotValidForName | NotValidForNameContext { .. } => {
                format!("the peer's certificate is for another name: {why}").into()
            }
            _ => format!("the peer's certificate is not valid: {why}").into(),
        },
        other => format!("TLS: {other}").into(),
    }
}
