//! TLS 1.3 over TCP with the same identities and the same trust: for what speaks another protocol on
//! the same port number.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};

use crate::client::ByKey;
use crate::{ClientCertificates, ConfigError, CurrentIdentity, Identity, KeyLog, ServerTrust};

/// A server that proves to be `identity`, until that is replaced, and speaks one of these application
/// protocols (ALPN).
///
/// # Errors
/// As for [`TlsServerBuilder::build`](crate::TlsServerBuilder::build).
pub fn tcp_server(
    identity: &Identity,
    clients: &ClientCertificates,
    protocols: &[&[u8]],
    key_log: Option<&KeyLog>,
) -> Result<(Arc<ServerConfig>, Arc<CurrentIdentity>), ConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let unusable = |e: rustls::server::VerifierBuilderError| ConfigError::Unusable(e.to_string());
    let builder = match clients {
        ClientCertificates::NotAsked => builder.with_no_client_auth(),
        ClientCertificates::Optional(roots) | ClientCertificates::Required(roots) => {
            if roots.0.is_empty() {
                return Err(ConfigError::NoCertificate);
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.0.clone(), provider.clone());
            let verifier = match clients {
                ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
        }
    };
    let identity = Arc::new(CurrentIdentity::new(identity.clone(), provider)?);
    let mut config = builder.with_cert_resolver(identity.clone());
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    if let Some(log) = key_log {
        config.key_log = log.to_rustls();
    }
    Ok((Arc::new(config), identity))
}

/// A client that believes the servers that `trust` says and speaks one of these application
/// protocols.
///
/// # Errors
/// As for [`TlsClientBuilder::build`](crate::TlsClientBuilder::build).
pub fn tcp_client(
    trust: &ServerTrust,
    identity: Option<&Identity>,
    protocols: &[&[u8]],
    key_log: Option<&KeyLog>,
) -> Result<TcpClient, ConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let by_key = |pin| -> Arc<dyn ServerCertVerifier> {
        Arc::new(ByKey { provider: provider.clone(), pin })
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match trust {
        ServerTrust::Roots(roots) => builder.with_root_certificates(roots.0.clone()),
        ServerTrust::Key(digest) => {
            builder.dangerous().with_custom_certificate_verifier(by_key(Some(*digest)))
        }
        ServerTrust::DangerouslyAcceptAnyCertificate => {
            builder.dangerous().with_custom_certificate_verifier(by_key(None))
        }
    };
    let mut config = match identity.cloned() {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    if let Some(log) = key_log {
        config.key_log = log.to_rustls();
    }
    Ok(TcpClient { config: Arc::new(RwLock::new(Arc::new(config))), provider })
}

/// A client's configuration, whose identity can be replaced. Clones are renewed together.
#[derive(Clone)]
pub struct TcpClient {
    config: Arc<RwLock<Arc<ClientConfig>>>,
    provider: Arc<CryptoProvider>,
}

impl TcpClient {
    /// What the next handshake is made with.
    pub fn now(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows this identity from the next handshake on, which resumes no session of the one before.
    ///
    /// # Errors
    /// When certificate and key do not belong together, or the key cannot be used; the one of before
    /// stays.
    pub fn replace_identity(&self, identity: Identity) -> Result<(), ConfigError> {
        let identity = CurrentIdentity::new(identity, self.provider.clone())?;
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        let mut renewed = ClientConfig::clone(&config);
        renewed.client_auth_cert_resolver = Arc::new(identity);
        renewed.resumption = Resumption::default();
        *config = Arc::new(renewed);
        Ok(())
    }
}

impl fmt::Debug for TcpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpClient(..)")
    }
}
