//! An identity that can be replaced while it is in use.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::{ConfigError, Identity};

/// The certificate and key that handshakes use now. Those that have begun go on with what they began
/// with, and so do connections.
pub struct CurrentIdentity {
    provider: Arc<CryptoProvider>,
    key: RwLock<Arc<CertifiedKey>>,
}

impl CurrentIdentity {
    /// # Errors
    /// When certificate and key do not belong together, or the key cannot be used.
    pub(crate) fn new(
        identity: Identity,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, ConfigError> {
        let key = RwLock::new(certified(identity, &provider)?);
        Ok(Self { provider, key })
    }

    /// Uses this identity from the next handshake on.
    ///
    /// # Errors
    /// When certificate and key do not belong together, or the key cannot be used; the one of before
    /// stays.
    pub fn replace(&self, identity: Identity) -> Result<(), ConfigError> {
        let key = certified(identity, &self.provider)?;
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    fn now(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn certified(
    identity: Identity,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, ConfigError> {
    let Identity { chain, key } = identity;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

impl ResolvesClientCert for CurrentIdentity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // A server that could not check the signature is shown nothing, as rustls does it.
        Some(self.now()).filter(|certified| certified.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for CurrentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentIdentity(..)")
    }
}
