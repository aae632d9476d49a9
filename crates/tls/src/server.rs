//! A server's configuration.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::quic::{ServerConnection, Suite};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use stubborn_core::transport::crypto::{
    InitialCrypto, Keys, OpenError, RESET_TOKEN_LENGTH, RETRY_TAG_LENGTH, ServerTls, TlsSession,
};
use stubborn_core::transport::{ConnectionId, Side, TransportError};

use crate::resumption::RememberedSessions;
use crate::secret::ServerSecret;
use crate::session::Session;
use crate::{ALPN, ConfigError, CurrentIdentity, Environment, Identity, KeyLog, Roots, keys};

/// Tickets that a client gets with each connection. It needs one to resume, and gets another when it
/// has done so.
const TICKETS: usize = 1;

/// Whether clients show certificates.
#[derive(Clone, Debug, Default)]
pub enum ClientCertificates {
    /// They are not asked for one.
    #[default]
    NotAsked,
    /// They may show one; if they do, one of these authorities must have signed it.
    Optional(Roots),
    /// They must show one that one of these authorities signed (mutual TLS).
    Required(Roots),
}

/// A server's TLS configuration.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    identity: Arc<CurrentIdentity>,
    initial: Suite,
    secret: Arc<ServerSecret>,
}

/// Options of a [`TlsServer`].
pub struct TlsServerBuilder {
    identity: Identity,
    clients: ClientCertificates,
    environment: Environment,
    early_data: bool,
    secret: Option<[u8; 32]>,
    key_log: Option<KeyLog>,
}

impl TlsServer {
    /// A server that proves to be `identity`.
    pub fn builder(identity: Identity) -> TlsServerBuilder {
        TlsServerBuilder {
            identity,
            clients: ClientCertificates::default(),
            environment: Environment::default(),
            early_data: false,
            secret: None,
            key_log: None,
        }
    }
}

impl TlsServer {
    /// The identity, which may be replaced: clones and connections to come have the new one.
    pub fn identity(&self) -> &Arc<CurrentIdentity> {
        &self.identity
    }
}

impl TlsServerBuilder {
    /// Whether clients show certificates; by default they are not asked.
    pub fn client_certificates(mut self, clients: ClientCertificates) -> Self {
        self.clients = clients;
        self
    }

    /// Where cryptography, randomness and time come from.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Whether 0-RTT packets of clients that resume are taken; off by default. The ticket that they
    /// need is good for one use and for this process only, which bounds replays, but the caller must
    /// still take nothing but reads from them (RFC 9001 §5.6).
    pub fn early_data(mut self, enable: bool) -> Self {
        self.early_data = enable;
        self
    }

    /// The secret that the keys for address validation tokens and stateless resets are derived from;
    /// by default the private key. Servers that share a secret know each other's tokens.
    pub fn secret(mut self, secret: [u8; 32]) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Where the secrets of connections are written down; nowhere by default.
    pub fn key_log(mut self, log: impl Into<Option<KeyLog>>) -> Self {
        self.key_log = log.into();
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// When identity, roots or provider cannot be used; in particular [`ConfigError::KeyMismatch`].
    pub fn build(self) -> Result<TlsServer, ConfigError> {
        let Environment { provider, time, resumption } = self.environment.clone();
        let secret = match &self.secret {
            Some(secret) => ServerSecret::derive(secret),
            None => ServerSecret::derive(self.identity.key.secret_der()),
        };
        let provider_of_key = provider.clone();
        let builder = ServerConfig::builder_with_details(provider.clone(), time)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match self.clients {
            ClientCertificates::NotAsked => builder.with_no_client_auth(),
            ClientCertificates::Optional(roots) | ClientCertificates::Required(roots)
                if roots.0.is_empty() =>
            {
                return Err(ConfigError::NoCertificate);
            }
            ClientCertificates::Optional(roots) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.0, provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| ConfigError::Unusable(e.to_string()))?,
            ),
            ClientCertificates::Required(roots) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.0, provider)
                    .build()
                    .map_err(|e| ConfigError::Unusable(e.to_string()))?,
            ),
        };
        let identity = Arc::new(CurrentIdentity::new(self.identity, provider_of_key)?);
        let mut config = builder.with_cert_resolver(identity.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        if let Some(log) = &self.key_log {
            config.key_log = log.to_rustls();
        }
        if resumption {
            config.session_storage = Arc::new(RememberedSessions::default());
            config.send_tls13_tickets = TICKETS;
            // QUIC knows no size limit for early data other than flow control (RFC 9001 §4.6.1).
            config.max_early_data_size = if self.early_data { u32::MAX } else { 0 };
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let initial = self.environment.initial_suite()?;
        Ok(TlsServer { config: Arc::new(config), identity, initial, secret: Arc::new(secret) })
    }
}

impl InitialCrypto for TlsServer {
    fn initial_keys(&self, _version: u32, destination: &ConnectionId, side: Side) -> Keys {
        keys::initial_keys(self.initial, destination, side)
    }

    fn retry_tag(
        &self,
        _version: u32,
        original_destination: &ConnectionId,
        packet: &[u8],
    ) -> [u8; RETRY_TAG_LENGTH] {
        keys::retry_tag(original_destination, packet)
    }
}

impl ServerTls for TlsServer {
    fn start(
        &self,
        _version: u32,
        parameters: &[u8],
    ) -> Result<Box<dyn TlsSession>, TransportError> {
        let connection =
            ServerConnection::new(self.config.clone(), keys::LABELS, parameters.to_vec())
                .map_err(|e| TransportError::internal(e.to_string()))?;
        Ok(Box::new(Session::new(connection.into())))
    }

    fn seal_token(&self, nonce: [u8; 16], plaintext: &[u8], associated: &[u8]) -> Vec<u8> {
        self.secret.seal(nonce, plaintext, associated)
    }

    fn open_token(&self, token: &[u8], associated: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.secret.open(token, associated)
    }

    fn reset_token(&self, id: &ConnectionId) -> [u8; RESET_TOKEN_LENGTH] {
        self.secret.reset_token(id)
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer(..)")
    }
}

impl fmt::Debug for TlsServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServerBuilder")
            .field("identity", &self.identity)
            .field("clients", &self.clients)
            .field("early_data", &self.early_data)
            .finish_non_exhaustive()
    }
}
