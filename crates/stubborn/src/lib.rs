//! RPC whose calls always resolve.
//!
//! Every call has a number before it is sent, and ends in one of these: a reply, or an
//! [`Outcome`] that says whether it ran. Loss, duplication, restarts and broken paths do not change
//! that.
//!
//! - Servers: [`Server`], [`Identity`].
//! - Clients: [`connect`], [`ChannelBuilder`], [`Trust`]; generated clients wrap a [`Channel`].
//! - Plain datagrams, without any promise: [`datagram`].
//!
//! What is re-exported from `stubborn-core` is what generated stubs are written against.

// Generated stubs name everything by `::stubborn`, also those inside this crate.
extern crate self as stubborn;

pub mod capture;
pub mod client;
pub mod codec;
pub mod datagram;
pub mod deadline;
mod driver;
mod generated;
pub mod group;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod health;
pub mod in_process;
pub mod journal;
pub mod keeper;
pub mod kv;
mod macros;
pub mod metrics;
pub mod naming;
pub mod qlog;
pub mod reflection;
#[cfg(feature = "replica")]
pub mod replica;
pub mod reply;
pub mod security;
pub mod server;
pub mod steps;
#[cfg(feature = "tower")]
pub mod tower;
pub mod trace;

pub use client::service_config;
pub use client::{
    Bearer, ChannelBuilder, ClientEndpoint, ConnectError, Connection, Token, connect,
};
pub use driver::ChannelStatus;
pub use journal::{Journal, JournalError};
pub use keeper::SessionKeeper;
pub use metrics::MetricsFor;
#[cfg(feature = "replica")]
pub use replica::{Arriving, Replica, ReplicaBuilder, ReplicaError, ReplicaHandle};
pub use security::{Authority, Fingerprint, Identity, IdentityFiles, KeyLog, SecurityError, Trust};
pub use server::{
    Access, AccessError, AccessFile, DrainReport, Incoming, Permissions, ServeError, Server,
    ServerBuilder, ServerHandle, WorkerStats,
};
pub use stubborn_core::identity::{SpiffeId, SpiffeIdError};
pub use stubborn_core::limits::{Concurrency, Limits};
pub use stubborn_core::node::{Load, SessionTicket, Shed};
pub use stubborn_core::service::details;
pub use stubborn_core::service::{
    Answer, Applied, Begun, BidiStream, BoxFuture, CALL_ID, Call, CallContext, CallError,
    CallState, Caller, Channel, ClientStream, Clock, Code, DecodeError, Detail, Encoded, Finished,
    Handling, Image, IncomingReply, MAX_METADATA, Machine, Metadata, MetadataError, Method,
    MethodId, Next, NotExecuted, NotTaken, Outcome, OutgoingCall, PRIORITY, Peer, Piece, Port,
    Priority, RegisterError, Registry, Replies, ReplySender, RequestSender, Requests, RestoreError,
    Semantics, Service, ServiceDescriptor, Shape, Status, StreamCall, StreamEnd, StreamKind,
    UnaryCall,
};
pub use stubborn_core::session::{
    CallId, KeyLimits, NotExecutedReason, ParseIdError, SessionId, SessionSecret,
};

/// ```
/// use stubborn::{Identity, Server, Status};
///
/// #[stubborn::service(package = "greeting.v1")]
/// pub trait Greeting {
///     /// Greets somebody by name.
///     async fn greet(&self, name: String, loudly: bool) -> Result<String, Status>;
/// }
///
/// struct Polite;
///
/// impl Greeting for Polite {
///     async fn greet(&self, name: String, loudly: bool) -> Result<String, Status> {
///         Ok(format!("Hello, {name}{}", if loudly { "!" } else { "." }))
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let identity = Identity::self_signed(["localhost"])?;
/// let pin = identity.fingerprint()?;
/// let server = Server::bind("127.0.0.1:0").identity(identity);
/// let server = server.service(GreetingServer::new(Polite)).start().await?;
///
/// let address = format!("stubborn://{}?pin={pin}", server.local_addr());
/// let client = GreetingClient::connect(&address).await?;
/// assert_eq!(client.greet("you".into(), true).await?, "Hello, you!");
/// # Ok(())
/// # }
/// ```
///
#[cfg(feature = "traits")]
pub use stubborn_macros::service;

/// The messages of generated code are made with these.
#[doc(hidden)]
pub use {prost, prost_types};

/// What most programs need: `use stubborn::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Call, CallError, CallId, CallState, Channel, Code, Identity, NotExecuted, Outcome, Server,
        Status, Trust,
    };
}

/// How calls end, under one name.
pub mod outcome {
    pub use crate::{CallError, CallId, CallState, NotExecuted, NotExecutedReason, Outcome};
}
