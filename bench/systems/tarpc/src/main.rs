//! tarpc: its serde transport over TCP, with bincode.

use bench_driver::protocol::{Ready, ServerOptions};
use bench_driver::{Announce, Client, Result, System, Target, run, runtime};
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tarpc::serde_transport::{self, Transport};
use tarpc::server::{self, BaseChannel, Channel};
use tarpc::{client, context};
use tokio::net::{TcpListener, TcpStream};
use tokio_serde::formats::Bincode;
use tokio_util::codec::LengthDelimitedCodec;

/// The largest message that either side takes.
const MESSAGE: usize = 64 << 20;

/// Calls that wait in the queues of both sides, and calls in flight: 100 and 1,000 by default.
const CALLS: usize = 4_096;

fn main() {
    run::<Tarpc>()
}

#[tarpc::service]
trait Echo {
    /// Returns what it was sent.
    async fn echo(payload: Bytes) -> Bytes;
    /// Takes what it is sent, and says how much that was.
    async fn upload(payload: Bytes) -> u64;
}

#[derive(Clone)]
struct Handler;

impl Echo for Handler {
    async fn echo(self, _: context::Context, payload: Bytes) -> Bytes {
        payload
    }

    async fn upload(self, _: context::Context, payload: Bytes) -> u64 {
        payload.len() as u64
    }
}

#[derive(Clone, Copy)]
struct Tarpc;

impl System for Tarpc {
    type Client = Connection;

    fn variant(name: &str) -> Option<Self> {
        (name == "tarpc").then_some(Self)
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        runtime(options.workers)?.block_on(async {
            let listener = TcpListener::bind((options.bind, 0)).await?;
            announce.ready(&Ready { address: listener.local_addr()?, trust: String::new() });
            loop {
                let transport = transport(listener.accept().await?.0)?;
                let config = server::Config { pending_response_buffer: CALLS };
                let calls = BaseChannel::new(config, transport).execute(Handler.serve());
                tokio::spawn(calls.for_each(async |call| drop(tokio::spawn(call))));
            }
        })
    }

    async fn connect(&self, target: &Target) -> Result<Connection> {
        let transport = transport(TcpStream::connect(target.server.address).await?)?;
        let mut config = client::Config::default();
        config.max_in_flight_requests = CALLS;
        config.pending_request_buffer = CALLS;
        Ok(Connection(EchoClient::new(config, transport).spawn()))
    }
}

type Bincoded<I, O> = Transport<TcpStream, I, O, Bincode<I, O>>;

fn transport<I, O>(stream: TcpStream) -> Result<Bincoded<I, O>>
where
    I: for<'a> Deserialize<'a>,
    O: Serialize,
{
    stream.set_nodelay(true)?;
    let frames = LengthDelimitedCodec::builder().max_frame_length(MESSAGE).new_framed(stream);
    Ok(serde_transport::new(frames, Bincode::default()))
}

struct Connection(EchoClient);

impl Client for Connection {
    async fn echo(&self, payload: Bytes) -> Result<usize> {
        Ok(self.0.echo(context::current(), payload).await?.len())
    }

    async fn upload(&self, payload: Bytes) -> Result<usize> {
        Ok(self.0.upload(context::current(), payload).await? as usize)
    }
}
