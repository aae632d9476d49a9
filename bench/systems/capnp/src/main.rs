//! Cap'n Proto: its two-party network over TCP, buffered as in its examples.

use std::rc::Rc;

use bench_driver::protocol::{Ready, ServerOptions};
use bench_driver::{Announce, Client, Result, System, Target, local_runtime, run};
use bytes::Bytes;
use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use futures::AsyncReadExt;
use futures::io::{BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

// Generated; see echo.capnp.
#[rustfmt::skip]
#[allow(warnings)]
mod echo_capnp;

use echo_capnp::echo;

fn main() {
    run::<Capnp>()
}

#[derive(Clone, Copy)]
struct Capnp;

impl System for Capnp {
    type Client = Connection;

    fn variant(name: &str) -> Option<Self> {
        (name == "capnp").then_some(Self)
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        local_runtime()?.block_on(async {
            let listener = TcpListener::bind((options.bind, 0)).await?;
            announce.ready(&Ready { address: listener.local_addr()?, trust: String::new() });
            let service: echo::Client = capnp_rpc::new_client(Handler);
            loop {
                let network = network(listener.accept().await?.0, Side::Server)?;
                let system = RpcSystem::new(network, Some(service.clone().client));
                tokio::task::spawn_local(system);
            }
        })
    }

    async fn connect(&self, target: &Target) -> Result<Connection> {
        let stream = TcpStream::connect(target.server.address).await?;
        let mut system = RpcSystem::new(network(stream, Side::Client)?, None);
        let echo = system.bootstrap(Side::Server);
        tokio::task::spawn_local(system);
        Ok(Connection(echo))
    }
}

fn network(
    stream: TcpStream,
    side: Side,
) -> Result<Box<VatNetwork<impl futures::AsyncRead + Unpin>>> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.compat().split();
    let (reader, writer) = (BufReader::new(reader), BufWriter::new(writer));
    // The default limit on what is read of a message is 64 MiB.
    Ok(Box::new(VatNetwork::new(reader, writer, side, Default::default())))
}

struct Handler;

impl echo::Server for Handler {
    async fn echo(
        self: Rc<Self>,
        params: echo::EchoParams,
        mut results: echo::EchoResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_payload(params.get()?.get_payload()?);
        Ok(())
    }

    async fn upload(
        self: Rc<Self>,
        params: echo::UploadParams,
        mut results: echo::UploadResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_bytes(params.get()?.get_payload()?.len() as u64);
        Ok(())
    }
}

struct Connection(echo::Client);

impl Client for Connection {
    async fn echo(&self, payload: Bytes) -> Result<usize> {
        let mut request = self.0.echo_request();
        request.get().set_payload(&payload);
        let reply = request.send().promise.await?;
        Ok(reply.get()?.get_payload()?.len())
    }

    async fn upload(&self, payload: Bytes) -> Result<usize> {
        let mut request = self.0.upload_request();
        request.get().set_payload(&payload);
        let reply = request.send().promise.await?;
        Ok(reply.get()?.get_bytes() as usize)
    }
}
