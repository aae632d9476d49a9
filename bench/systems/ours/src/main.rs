//! Stubborn, as it ships: through generated stubs, encrypted, with deadlines and outcomes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bench_driver::protocol::{Ready, ServerOptions};
use bench_driver::{Announce, Client, Result, System, Target, run, runtime, yield_once};
use bytes::Bytes;
use stubborn::{Call, ChannelBuilder, ClientEndpoint, Identity, Limits, Server, Status};

#[allow(unreachable_pub)]
mod stubs {
    stubborn::include_protos!();
}

use stubs::bench::v1::{Echo, EchoClient, EchoServer, Payload, Received};

/// The deadline of every call.
const DEADLINE: Duration = Duration::from_secs(10);

/// Connections that come from one address: a server grants an address 1,024 anonymous sessions.
const PER_ADDRESS: usize = 1_000;

fn main() {
    run::<Ours>()
}

/// How long both sides look for datagrams before they sleep, where they are told to.
const BUSY_POLL: Duration = Duration::from_micros(50);

#[derive(Clone, Copy, PartialEq)]
enum Ours {
    /// As it ships, with handlers that are ready at once.
    Ready,
    /// Handlers let other tasks run first, so that each call becomes a task.
    Yielding,
    /// Both sides look for datagrams for a while before they sleep.
    BusyPolling,
}

impl System for Ours {
    type Client = Connection;

    fn variant(name: &str) -> Option<Self> {
        match name {
            "ours" => Some(Self::Ready),
            "ours-yielding" => Some(Self::Yielding),
            "ours-busy-polling" => Some(Self::BusyPolling),
            _ => None,
        }
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        // With several workers the server has threads of its own.
        runtime(1)?.block_on(async {
            let identity = Identity::self_signed(["localhost"])?;
            let trust = identity.fingerprint()?.to_string();
            let server = Server::bind(format!("{}:0", options.bind))
                .identity(identity)
                .service(EchoServer::new(*self))
                .workers(options.workers)
                .busy_poll(self.busy_poll())
                .start()
                .await?;
            announce.ready(&Ready { address: server.local_addr(), trust });
            std::future::pending().await
        })
    }

    async fn connect(&self, target: &Target) -> Result<Connection> {
        let address = format!("stubborn://{}?pin={}", target.server.address, target.server.trust);
        let mut builder = ChannelBuilder::new(address);
        let neighbour = (target.index / PER_ADDRESS) as u8;
        if neighbour > 0 && target.server.address.ip() == IpAddr::from(Ipv4Addr::LOCALHOST) {
            builder = builder.endpoint(&neighbouring_endpoint(neighbour)?);
        } else if *self == Self::BusyPolling {
            let endpoint = ClientEndpoint::new()?;
            endpoint.busy_poll(self.busy_poll());
            builder = builder.endpoint(&endpoint);
        }
        Ok(Connection(EchoClient::new(builder.connect().await?)))
    }
}

impl Ours {
    fn busy_poll(self) -> Duration {
        if self == Self::BusyPolling { BUSY_POLL } else { Duration::ZERO }
    }
}

/// The endpoint of this thread on 127.0.0.1 plus `neighbour`.
fn neighbouring_endpoint(neighbour: u8) -> Result<ClientEndpoint> {
    thread_local! {
        static ENDPOINTS: std::cell::RefCell<std::collections::BTreeMap<u8, ClientEndpoint>> =
            const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
    }
    ENDPOINTS.with_borrow_mut(|endpoints| {
        if let Some(endpoint) = endpoints.get(&neighbour) {
            return Ok(endpoint.clone());
        }
        let address = Ipv4Addr::new(127, 0, 0, 1 + neighbour);
        let endpoint = ClientEndpoint::bind((address, 0).into(), Limits::default())?;
        endpoints.insert(neighbour, endpoint.clone());
        Ok(endpoint)
    })
}

impl Echo for Ours {
    async fn echo(&self, call: Call<Payload>) -> Result<Payload, Status> {
        if *self == Self::Yielding {
            yield_once().await;
        }
        Ok(call.into_message())
    }

    async fn upload(&self, call: Call<Payload>) -> Result<Received, Status> {
        if *self == Self::Yielding {
            yield_once().await;
        }
        Ok(Received { bytes: call.data.len() as u64 })
    }
}

struct Connection(EchoClient);

impl Client for Connection {
    async fn echo(&self, data: Bytes) -> Result<usize> {
        Ok(self.0.echo(Payload { data }).deadline(DEADLINE).await?.data.len())
    }

    async fn upload(&self, data: Bytes) -> Result<usize> {
        Ok(self.0.upload(Payload { data }).deadline(DEADLINE).await?.bytes as usize)
    }
}
