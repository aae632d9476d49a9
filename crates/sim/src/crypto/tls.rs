//! TLS configurations of simulated hosts.

use std::sync::Arc;

use stubborn_core::random::Random;
use stubborn_core::transport::crypto::{ClientTls, ServerTls};
use stubborn_tls::{ClientCertificates, Environment, ServerTrust, TlsClient, TlsServer};

use super::certificate::Authority;
use super::nonces::NonceWatch;
use super::provider::{fixed_time, provider};

/// Makes the configurations of one world's hosts.
pub(crate) struct TlsMaker {
    authority: Authority,
    environment: Environment,
    pub(crate) nonces: NonceWatch,
}

/// What a host brings to a handshake. It is durable: a restart changes nothing of it.
#[derive(Clone)]
pub(crate) struct HostTls {
    pub(crate) server: Arc<dyn ServerTls>,
    /// Without a certificate.
    pub(crate) anonymous: Arc<dyn ClientTls>,
    /// With the host's certificate.
    pub(crate) certified: Arc<dyn ClientTls>,
    /// The digest of the certificate's key.
    pub(crate) key: [u8; 32],
}

impl TlsMaker {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            authority: Authority::new(random),
            environment: Environment::deterministic(provider(), fixed_time()),
            nonces: NonceWatch::default(),
        }
    }

    pub(crate) fn host(&self, name: &str, random: &mut Random) -> HostTls {
        let identity = self.authority.issue(name, random);
        let client = TlsClient::builder(ServerTrust::Roots(self.authority.roots()))
            .environment(self.environment.clone());
        let server = TlsServer::builder(identity.clone())
            .client_certificates(ClientCertificates::Optional(self.authority.roots()))
            .environment(self.environment.clone());
        let usable = "certificates of the world's authority are usable";
        let key = identity.key_digest().expect("a certificate just made can be read");
        HostTls {
            key,
            server: self.nonces.server(Arc::new(server.build().expect(usable))),
            anonymous: self.nonces.client(Arc::new(client.clone().build().expect(usable))),
            certified: self
                .nonces
                .client(Arc::new(client.identity(identity).build().expect(usable))),
        }
    }
}
