//! tonic: gRPC over HTTP/2 and TCP, plain and with TLS.

use std::time::Duration;

use bench_driver::protocol::{Ready, ServerOptions};
use bench_driver::{Announce, Client, Result, System, Target, certificate, run, runtime};
use bytes::Bytes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use tonic::{Request, Response, Status};

#[allow(unreachable_pub)]
mod stubs {
    tonic::include_proto!("bench.v1");
}

use stubs::echo_client::EchoClient;
use stubs::echo_server::{Echo, EchoServer};
use stubs::{Payload, Received};

/// The largest message that either side takes.
const MESSAGE: usize = 64 << 20;

/// HTTP/2 windows: as large as the largest request; larger ones are no faster.
const WINDOW: u32 = 16 << 20;

/// HTTP/2 frames that the server takes: with 16 KiB, the default, large requests are 1.7 times slower.
const FRAME: u32 = 1 << 20;

/// HTTP/2's streams at once; hyper's server lets 200 by default.
const STREAMS: u32 = 4_096;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

fn main() {
    run::<Tonic>()
}

#[derive(Clone, Copy)]
struct Tonic {
    tls: bool,
}

impl System for Tonic {
    type Client = Connection;

    fn variant(name: &str) -> Option<Self> {
        match name {
            "tonic" => Some(Self { tls: false }),
            "tonic-tls" => Some(Self { tls: true }),
            _ => None,
        }
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        runtime(options.workers)?.block_on(async {
            let mut server = Server::builder()
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_concurrent_streams(STREAMS)
                .max_frame_size(FRAME)
                .http2_keepalive_interval(Some(KEEP_ALIVE));
            let mut trust = String::new();
            if self.tls {
                let made = certificate::make()?;
                let identity = Identity::from_pem(&made.certificate_pem, &made.key_pem);
                server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
                trust = made.certificate_pem;
            }
            let incoming = TcpIncoming::bind((options.bind, 0).into())?.with_nodelay(Some(true));
            announce.ready(&Ready { address: incoming.local_addr()?, trust });
            let service = EchoServer::new(Handler)
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE);
            Ok(server.add_service(service).serve_with_incoming(incoming).await?)
        })
    }

    async fn connect(&self, target: &Target) -> Result<Connection> {
        let scheme = if self.tls { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", target.server.address))?
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        if self.tls {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&target.server.trust))
                .domain_name(certificate::NAME);
            endpoint = endpoint.tls_config(tls)?;
        }
        let client = EchoClient::new(endpoint.connect().await?)
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE);
        Ok(Connection(client))
    }
}

struct Handler;

#[tonic::async_trait]
impl Echo for Handler {
    async fn echo(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn upload(&self, request: Request<Payload>) -> Result<Response<Received>, Status> {
        Ok(Response::new(Received { bytes: request.get_ref().data.len() as u64 }))
    }
}

struct Connection(EchoClient<Channel>);

impl Client for Connection {
    async fn echo(&self, data: Bytes) -> Result<usize> {
        Ok(self.0.clone().echo(Payload { data }).await?.get_ref().data.len())
    }

    async fn upload(&self, data: Bytes) -> Result<usize> {
        Ok(self.0.clone().upload(Payload { data }).await?.get_ref().bytes as usize)
    }
}
