//! quinn: QUIC with a stream for each call, as its documentation does requests and replies.

use std::sync::Arc;
use std::time::Duration;

use bench_driver::protocol::{Ready, ServerOptions, Work};
use bench_driver::{
    Announce, Client, Result, System, Target, certificate, echo_or_count, run, runtime,
};
use bytes::Bytes;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};

/// The largest message that either side reads.
const MESSAGE: usize = 64 << 20;

fn main() {
    run::<Quinn>()
}

#[derive(Clone, Copy)]
struct Quinn;

/// Flow control that is never what limits, and idle connections are kept alive; otherwise the
/// defaults. That includes path MTU discovery up to 1,452 bytes: with larger packets, which it does
/// not cut by GSO as well, bulk was slower on every path.
fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(32 << 20))
        .receive_window(VarInt::from_u32(64 << 20))
        .send_window(64 << 20)
        .keep_alive_interval(Some(Duration::from_secs(15)));
    config
}

impl System for Quinn {
    type Client = Streams;

    fn variant(name: &str) -> Option<Self> {
        (name == "quinn").then_some(Self)
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        runtime(options.workers)?.block_on(async {
            let made = certificate::make()?;
            let chain = vec![CertificateDer::from_pem_slice(made.certificate_pem.as_bytes())?];
            let key = PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes())?;
            let mut config = ServerConfig::with_single_cert(chain, key)?;
            let mut transport = transport();
            // It holds memory for as many as it allows, which are 100 by default.
            let streams = u32::try_from(2 * options.in_flight)?.max(100);
            transport.max_concurrent_bidi_streams(VarInt::from_u32(streams));
            config.transport_config(Arc::new(transport));
            let endpoint = Endpoint::server(config, (options.bind, 0).into())?;
            let address = endpoint.local_addr()?;
            announce.ready(&Ready { address, trust: made.certificate_pem });
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        serve_connection(connection, options.work).await;
                    }
                });
            }
            Ok(())
        })
    }

    async fn connect(&self, target: &Target) -> Result<Streams> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(target.server.trust.as_bytes())?)?;
        let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
        config.transport_config(Arc::new(transport()));
        let endpoint = endpoint(target)?;
        let connecting = endpoint.connect_with(config, target.server.address, certificate::NAME)?;
        Ok(Streams(connecting.await?))
    }
}

/// The endpoint that the connections of this thread share.
fn endpoint(target: &Target) -> Result<Endpoint> {
    thread_local!(static ENDPOINT: std::cell::OnceCell<Endpoint> = const { std::cell::OnceCell::new() });
    ENDPOINT.with(|cell| {
        if let Some(endpoint) = cell.get() {
            return Ok(endpoint.clone());
        }
        let any: std::net::IpAddr = match target.server.address.is_ipv4() {
            true => std::net::Ipv4Addr::UNSPECIFIED.into(),
            false => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let endpoint = Endpoint::client((any, 0).into())?;
        Ok(cell.get_or_init(|| endpoint).clone())
    })
}

async fn serve_connection(connection: Connection, work: Work) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        tokio::spawn(async move {
            let Ok(request) = receive.read_to_end(MESSAGE).await else { return };
            if send.write_chunk(echo_or_count(work, request.into())).await.is_ok() {
                let _ = send.finish();
            }
        });
    }
}

struct Streams(Connection);

impl Streams {
    async fn call(&self, payload: Bytes) -> Result<Vec<u8>> {
        let (mut send, mut receive) = self.0.open_bi().await?;
        send.write_chunk(payload).await?;
        send.finish()?;
        Ok(receive.read_to_end(MESSAGE).await?)
    }
}

impl Client for Streams {
    async fn echo(&self, payload: Bytes) -> Result<usize> {
        Ok(self.call(payload).await?.len())
    }

    async fn upload(&self, payload: Bytes) -> Result<usize> {
        let reply = self.call(payload).await?;
        Ok(u64::from_le_bytes(reply.as_slice().try_into()?) as usize)
    }
}
