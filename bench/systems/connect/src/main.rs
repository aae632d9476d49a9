//! Connect: its own protocol with protobuf over HTTP/2 and TCP.

use std::sync::Arc;
use std::time::Duration;

use bench_driver::protocol::{Ready, ServerOptions};
use bench_driver::{Announce, Client, Result, System, Target, run, runtime};
use bytes::Bytes;
use connectrpc::client::{ClientConfig, Http2Connection, SharedHttp2Connection};
use connectrpc::{Limits, RequestContext, Response, Router, Server, ServiceRequest, ServiceResult};

mod stubs {
    #![allow(warnings)]
    connectrpc::include_generated!();
}

use stubs::bench::v1::{Echo, EchoClient, EchoExt, Payload, Received};

/// The largest message that either side takes.
const MESSAGE: usize = 64 << 20;

/// HTTP/2 windows: as large as the largest request; larger ones are no faster.
const WINDOW: u32 = 16 << 20;

/// Calls in flight; hyper's server lets 200 by default.
const STREAMS: u32 = 4_096;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

fn main() {
    run::<Connect>()
}

#[derive(Clone, Copy)]
struct Connect;

impl System for Connect {
    type Client = Connection;

    fn variant(name: &str) -> Option<Self> {
        (name == "connect").then_some(Self)
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        runtime(options.workers)?.block_on(async {
            let limits = Limits::default()
                .with_max_message_size(MESSAGE)
                .with_max_request_body_size(MESSAGE);
            let server = Server::bind((options.bind, 0))
                .await?
                .with_http2_initial_stream_window_size(WINDOW)
                .with_http2_initial_connection_window_size(WINDOW)
                .with_max_concurrent_streams(STREAMS)
                .with_http2_keepalive_interval(KEEP_ALIVE);
            announce.ready(&Ready { address: server.local_addr()?, trust: String::new() });
            let router = Arc::new(Handler).register(Router::new());
            let service = connectrpc::ConnectRpcService::new(router).with_limits(limits);
            server.serve_with_service(service).await
        })
    }

    async fn connect(&self, target: &Target) -> Result<Connection> {
        let address: http::Uri = format!("http://{}", target.server.address).parse()?;
        let transport = Http2Connection::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_plaintext(address.clone())
            .await?
            .shared(STREAMS as usize);
        let config = ClientConfig::new(address).with_default_max_message_size(MESSAGE);
        Ok(Connection(EchoClient::new(transport, config)))
    }
}

struct Handler;

impl Echo for Handler {
    async fn echo<'a>(
        &'a self,
        _: RequestContext,
        request: ServiceRequest<'_, Payload>,
    ) -> ServiceResult<impl connectrpc::Encodable<Payload> + Send + use<'a>> {
        Response::ok(request.to_owned_message())
    }

    async fn upload<'a>(
        &'a self,
        _: RequestContext,
        request: ServiceRequest<'_, Payload>,
    ) -> ServiceResult<impl connectrpc::Encodable<Received> + Send + use<'a>> {
        Response::ok(Received { bytes: request.data.len() as u64, ..Default::default() })
    }
}

struct Connection(EchoClient<SharedHttp2Connection>);

impl Client for Connection {
    async fn echo(&self, payload: Bytes) -> Result<usize> {
        let request = Payload { data: payload.to_vec(), ..Default::default() };
        Ok(self.0.echo(request).await?.view().data.len())
    }

    async fn upload(&self, payload: Bytes) -> Result<usize> {
        let request = Payload { data: payload.to_vec(), ..Default::default() };
        Ok(self.0.upload(request).await?.view().bytes as usize)
    }
}
