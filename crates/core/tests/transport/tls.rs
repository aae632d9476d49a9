//! TLS configurations for the tests, made once.

use std::sync::{Arc, LazyLock};

use stubborn_core::transport::crypto::{ClientTls, ServerTls};
use stubborn_tls::{
    ClientCertificates, Identity, SelfSigned, ServerTrust, TlsClient, TlsServer, self_signed,
};

pub(crate) const NAME: &str = "server.test";

static SERVER: LazyLock<SelfSigned> = LazyLock::new(|| self_signed([NAME]).unwrap());
static CLIENT: LazyLock<SelfSigned> = LazyLock::new(|| self_signed(["client.test"]).unwrap());

/// A client that trusts the server.
pub(crate) fn pair() -> (Arc<dyn ClientTls>, Arc<dyn ServerTls>) {
    (client(&SERVER), Arc::new(server(SERVER.identity.clone())))
}

fn client(server: &SelfSigned) -> Arc<dyn ClientTls> {
    Arc::new(TlsClient::builder(ServerTrust::Roots(server.roots())).build().unwrap())
}

fn server(identity: Identity) -> TlsServer {
    TlsServer::builder(identity).build().unwrap()
}

/// Both sides show certificates. Also gives the digest of the client's key.
pub(crate) fn mutual() -> (Arc<dyn ClientTls>, Arc<dyn ServerTls>, [u8; 32]) {
    let client = TlsClient::builder(ServerTrust::Roots(SERVER.roots()))
        .identity(CLIENT.identity.clone())
        .build()
        .unwrap();
    let server = TlsServer::builder(SERVER.identity.clone())
        .client_certificates(ClientCertificates::Required(CLIENT.roots()))
        .build()
        .unwrap();
    (Arc::new(client), Arc::new(server), CLIENT.identity.key_digest().unwrap())
}

/// A server that lets in nobody without a certificate, and a client that has none.
pub(crate) fn uninvited() -> (Arc<dyn ClientTls>, Arc<dyn ServerTls>) {
    (client(&SERVER), mutual().1)
}

/// A client that trusts somebody else.
pub(crate) fn strangers() -> (Arc<dyn ClientTls>, Arc<dyn ServerTls>) {
    (client(&CLIENT), Arc::new(server(SERVER.identity.clone())))
}

/// A server whose certificate chain takes at least `size` bytes.
pub(crate) fn long_chain(size: usize) -> (Arc<dyn ClientTls>, Arc<dyn ServerTls>) {
    let made = rcgen::generate_simple_self_signed([NAME.to_string()]).unwrap();
    let own = made.cert.der().to_vec();
    let mut chain = vec![own.clone()];
    while chain.iter().map(Vec::len).sum::<usize>() < size {
        chain.push(own.clone());
    }
    let identity = Identity::from_der(chain, made.signing_key.serialize_der()).unwrap();
    let roots = stubborn_tls::Roots::from_der(vec![own]).unwrap();
    let client = TlsClient::builder(ServerTrust::Roots(roots)).build().unwrap();
    (Arc::new(client), Arc::new(server(identity)))
}
