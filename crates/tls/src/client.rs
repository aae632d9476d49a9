//! A client's configuration.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::quic::{ClientConnection, Suite};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use stubborn_core::transport::crypto::{
    ClientTls, InitialCrypto, Keys, RETRY_TAG_LENGTH, TlsSession,
};
use stubborn_core::transport::{ConnectionId, Side, TransportError};

use crate::session::Session;
use crate::{
    ALPN, ConfigError, CurrentIdentity, Environment, Identity, KeyLog, Roots, key_digest, keys,
};

/// Servers whose sessions a client remembers, to resume them.
const REMEMBERED_SERVERS: usize = 256;

/// Which servers a client believes.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// Those whose certificate is signed by one of these authorities and is for the server's name.
    Roots(Roots),
    /// Those that prove to own the key with this digest ([`key_digest`]), whatever their certificate
    /// says: name, dates and issuer are not looked at.
    Key([u8; 32]),
    /// Anybody, even an attacker in between: the connection is encrypted, but it is not known to whom.
    /// For tests and for looking at a server whose certificate is not known yet.
    DangerouslyAcceptAnyCertificate,
}

/// A client's TLS configuration.
#[derive(Clone)]
pub struct TlsClient {
    /// Clones share it, so that they are renewed together.
    config: Arc<RwLock<Arc<ClientConfig>>>,
    provider: Arc<CryptoProvider>,
    resumes: bool,
    initial: Suite,
}

/// Options of a [`TlsClient`].
#[derive(Clone, Debug)]
pub struct TlsClientBuilder {
    trust: ServerTrust,
    identity: Option<Identity>,
    environment: Environment,
    early_data: bool,
    key_log: Option<KeyLog>,
}

impl TlsClient {
    /// A client that believes the servers that `trust` says.
    pub fn builder(trust: ServerTrust) -> TlsClientBuilder {
        let environment = Environment::default();
        TlsClientBuilder { trust, identity: None, environment, early_data: false, key_log: None }
    }
}

impl TlsClient {
    /// Shows this identity from the next handshake on. What is remembered of sessions is forgotten: a
    /// session that is resumed shows no certificate, so the server would take it for the old identity's.
    ///
    /// # Errors
    /// When certificate and key do not belong together, or the key cannot be used; the one of before
    /// stays.
    pub fn replace_identity(&self, identity: Identity) -> Result<(), ConfigError> {
        let identity = CurrentIdentity::new(identity, self.provider.clone())?;
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        let mut renewed = ClientConfig::clone(&config);
        renewed.client_auth_cert_resolver = Arc::new(identity);
        renewed.resumption = resumption(self.resumes);
        *config = Arc::new(renewed);
        Ok(())
    }
}

fn resumption(resumes: bool) -> Resumption {
    match resumes {
        true => Resumption::in_memory_sessions(REMEMBERED_SERVERS),
        false => Resumption::disabled(),
    }
}

impl TlsClientBuilder {
    /// The certificate to show to servers that ask for one.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Where cryptography, randomness and time come from.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Whether 0-RTT keys are offered on resumption; off by default. What is sent with them can be
    /// replayed by an attacker.
    pub fn early_data(mut self, enable: bool) -> Self {
        self.early_data = enable;
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
    /// When the identity or the provider cannot be used.
    pub fn build(self) -> Result<TlsClient, ConfigError> {
        let Environment { provider, time, resumption } = self.environment.clone();
        let builder = ClientConfig::builder_with_details(provider.clone(), time)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match self.trust {
            ServerTrust::Roots(roots) => builder.with_root_certificates(roots.0),
            ServerTrust::Key(digest) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ByKey { provider, pin: Some(digest) })),
            ServerTrust::DangerouslyAcceptAnyCertificate => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ByKey { provider, pin: None })),
        };
        let mut config = match self.identity {
            Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        if let Some(log) = &self.key_log {
            config.key_log = log.to_rustls();
        }
        config.enable_early_data = self.early_data && resumption;
        config.resumption = self::resumption(resumption);
        let initial = self.environment.initial_suite()?;
        let config = Arc::new(RwLock::new(Arc::new(config)));
        let provider = self.environment.provider;
        Ok(TlsClient { config, provider, resumes: resumption, initial })
    }
}

impl InitialCrypto for TlsClient {
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

impl ClientTls for TlsClient {
    fn start(
        &self,
        _version: u32,
        server_name: &str,
        parameters: &[u8],
    ) -> Result<Box<dyn TlsSession>, TransportError> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
            TransportError::internal(format!(
                "{server_name:?} is neither a DNS name nor an IP address"
            ))
        })?;
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let connection = ClientConnection::new(config, keys::LABELS, name, parameters.to_vec())
            .map_err(|e| TransportError::internal(e.to_string()))?;
        Ok(Box::new(Session::new(connection.into())))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient(..)")
    }
}

/// Looks at nothing but the key of a certificate, if at that, but makes the server prove that it has
/// the private key: the peer identity of such a connection is the one that it really talks to.
#[derive(Debug)]
pub(crate) struct ByKey {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) pin: Option<[u8; 32]>,
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.pin {
            Some(pin) if key_digest(end_entity) != Some(pin) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
