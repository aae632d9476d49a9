//! gRPC: the same services for its clients, and its servers for the same stubs.
//!
//! A server with [`ServerBuilder::grpc`], and a replica with `ReplicaBuilder::grpc`, answers gRPC over TCP
//! on its own port number: every method and stream (at a replica streams of reads only), deadlines,
//! metadata, statuses with details, gzip, [health](crate::health) and server reflection.
//! What a handler sends beside its reply is said with [`reply`](crate::reply). In a status whose details
//! gRPC's own clients shall read, these are an encoded `google.rpc.Status`, as gRPC has it.
//!
//! A call that carries the metadata `stubborn-call-id` runs once, however often it is sent: a copy gets
//! the reply of the first. Ids are kept for an hour after the call: by a server in memory ([`KeyLimits`]), by
//! a group of replicas in what they replicate, so that a copy may come to any of them. They
//! belong to the caller's certificate; callers without one share them, so that theirs should be random,
//! for example UUIDs. The same id with another request is refused, and so is a call for whose id there is no
//! room.
//!
//! Calls come under the server's limit on handlers ([`Limits::concurrency`](crate::Limits::concurrency))
//! as those over datagrams do, with their deadline and their priority (metadata `stubborn-priority`). One
//! that is refused does not run; it ends as `UNAVAILABLE`, with `grpc-retry-pushback-ms` where the server
//! knows when there may be room. Questions about [health](crate::health) are always answered.
//!
//! Servers of gRPC are called by the address `grpcs://HOST[:PORT][,HOST[:PORT]]`, or `grpc://` without TLS,
//! with [`connect`](crate::connect) or [`ChannelBuilder::connect`](crate::ChannelBuilder::connect): the
//! same stubs, over a TCP connection to each server, made anew when it breaks. Balancing, outliers, the
//! circuit breaker, retries and resolvers are chosen as for datagrams; nothing is hedged. gRPC does not tell
//! of every call whether it ran; what it cannot tell ends as [`Outcome::Lost`](crate::Outcome::Lost), of a
//! read as `Unanswered`. What no server has looked at is sent again at once; a call that may have run is
//! made again only if it is a read, or idempotent and its settings say so.
//!
//! [`ServerBuilder::grpc`]: crate::ServerBuilder::grpc

mod ask;
mod client;
mod generated;
mod handlers;
mod reflection;
#[cfg(feature = "replica")]
mod replica;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use stubborn_grpc::door::{ALPN, Door, DoorConfig, Security, Traffic};
use stubborn_tls::{ClientCertificates, CurrentIdentity, tcp_server};
use tokio::net::TcpListener;

pub use self::ask::Reflected;
pub use crate::health::Health;
pub(crate) use client::{connect, is_grpc};
#[cfg(feature = "replica")]
pub(crate) use replica::{Beside, Opening, ReplicaDoor};
pub use stubborn_grpc::door::KeyLimits;
pub use stubborn_grpc::{CALL_ID, EXECUTING, NOT_EXECUTED};

use crate::security::{Identity, KeyLog, SecurityError};
use crate::server::{ServeError, ServerBuilder, ServerHandle, Services, resolve};
use handlers::DoorHandlers;

/// Ports that are tried where the system chooses one: it has to be free for both protocols.
const PORTS_TRIED: usize = 32;

/// How a server, or a replica, answers gRPC.
///
/// ```no_run
/// # async fn example(bank: impl stubborn::Service) -> Result<(), Box<dyn std::error::Error>> {
/// use stubborn::{Identity, Server, grpc::Grpc};
///
/// Server::bind("0.0.0.0:7400")
///     .identity(Identity::from_pem_files("server.crt", "server.key")?)
///     .service(bank)
///     .grpc(Grpc::new())
///     .run()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a door is opened by ServerBuilder::grpc or ReplicaBuilder::grpc"]
pub struct Grpc {
    plain: Plain,
    keys: KeyLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Never,
    Also,
    Only,
}

impl Default for Grpc {
    fn default() -> Self {
        Self::new()
    }
}

impl Grpc {
    /// Over TLS 1.3, with the server's identity and the same clients as over datagrams.
    pub fn new() -> Self {
        Self { plain: Plain::Never, keys: KeyLimits::default() }
    }

    /// Without TLS: for a network that nobody else reaches, or behind a proxy that ends TLS. What is
    /// sent can be read and changed on its way.
    pub fn plain(mut self) -> Self {
        self.plain = Plain::Only;
        self
    }

    /// Over TLS, and also without where the client begins so.
    pub fn plain_too(mut self) -> Self {
        self.plain = Plain::Also;
        self
    }

    /// Bounds on what a server remembers of calls with ids. At a replica it has no effect: a group
    /// remembers them within the bounds of its sessions.
    pub fn keys(mut self, limits: KeyLimits) -> Self {
        self.keys = limits;
        self
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc")
            .field("plain", &self.plain)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// A door of a running server.
pub(crate) struct OpenDoor {
    /// None without TLS.
    identity: Option<Arc<CurrentIdentity>>,
    door: Door,
}

impl OpenDoor {
    /// No new calls: those that are there end.
    pub(crate) async fn drain(&self) {
        self.door.drain().await;
    }

    pub(crate) fn identity(&self) -> Option<&Arc<CurrentIdentity>> {
        self.identity.as_ref()
    }

    pub(crate) fn executing(&self) -> usize {
        self.door.executing()
    }

    pub(crate) fn close(&self) {
        self.door.close();
    }
}

/// Starts a server with its door.
pub(crate) async fn start(server: ServerBuilder, grpc: Grpc) -> Result<ServerHandle, ServeError> {
    let (own, clients) = server.security()?;
    let (security, identity) = security(own, &clients, server.keys_logged(), grpc.plain)?;
    let limits = server.limits_now().clone();
    let mut registry = server.registry()?;
    if server.has_reflection() {
        reflection::add(&mut registry, [])?;
    }
    let address = resolve(server.address()).await?;
    let name = server.address().to_owned();
    let taken = |error| ServeError::Bind(name.clone(), error);
    let listener = listen(address).await.map_err(taken)?;
    let address: SocketAddr = listener.local_addr().map_err(taken)?;
    // Permissions may name what only the door has.
    let before = server.before(&registry)?;
    let own = server.registry()?;
    let source = server.source();
    let mut handle = server.start_at(address, own, before.clone()).await?;
    let services = Services::of_admitted(registry, before);
    let nodes = handle.nodes();
    let handlers = Arc::new(DoorHandlers::new(services, &source, limits.call_steps, nodes));
    let config = DoorConfig { security, limits, keys: grpc.keys };
    let door = Door::open(listener, handlers, config).map_err(|e| ServeError::Bind(name, e))?;
    let traffic = door.traffic();
    source.set_door_traffic(move || told(traffic()));
    handle.set_door(OpenDoor { identity, door });
    Ok(handle)
}

/// Listens at an address whose port is free for datagrams, too.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = if address.port() == 0 { PORTS_TRIED } else { 1 };
    loop {
        tries -= 1;
        let listener = TcpListener::bind(address).await?;
        // It may be free for TCP only.
        let both = listener.local_addr().and_then(std::net::UdpSocket::bind);
        match both {
            Ok(_) => return Ok(listener),
            Err(error) if tries == 0 || error.kind() != io::ErrorKind::AddrInUse => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
}

fn told(traffic: Traffic) -> crate::metrics::Door {
    let Traffic { open, connections, refused, bytes_received, bytes_sent } = traffic;
    crate::metrics::Door { open, connections, refused, bytes_received, bytes_sent }
}

fn security(
    identity: &Identity,
    clients: &ClientCertificates,
    key_log: Option<&KeyLog>,
    plain: Plain,
) -> Result<(Security, Option<Arc<CurrentIdentity>>), ServeError> {
    if plain == Plain::Only {
        return Ok((Security::Plain, None));
    }
    let (config, identity) = tcp_server(&identity.tls, clients, &[ALPN], key_log)
        .map_err(|error| ServeError::from(SecurityError::from(error)))?;
    let security = match plain {
        Plain::Also => Security::Either(config),
        _ => Security::Tls(config),
    };
    Ok((security, Some(identity)))
}
