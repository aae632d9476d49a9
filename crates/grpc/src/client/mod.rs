//! Generated stubs call a gRPC server.
//!
//! gRPC cannot say of every call whether it ran. What it can say is kept apart:
//!
//! | what happened | outcome |
//! |---|---|
//! | no byte of the request was handed to a connection, or the server did not look at the stream: it refused it (RFC 9113 §8.7), or said GOAWAY with an earlier stream as its last (§6.8) | `NotExecuted` |
//! | the server says so ([`NOT_EXECUTED`](crate::NOT_EXECUTED)) | `NotExecuted` |
//! | a status of the server, other than the three that also stand for a failure on the way | `Executed` |
//! | `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `CANCELLED`; a connection that broke; the deadline passed here | `Lost`; of a read `Unanswered` |
//!
//! What the first row has is sent again at once by itself, to whichever server is next. Unary calls are made
//! again beyond that by the channel's policy; a call with side effects only after the first two rows.
//!
//! Each server has one connection. Which of them gets a call, and which are left out, is decided by what
//! channels over datagrams use for that, too.

mod again;
mod balancer;
mod caller;
mod connect;
mod outcome;
mod outgoing;
mod pool;
mod stream;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::rpc::ServiceConfig;
use stubborn_core::service::Metadata;
use stubborn_tls::TcpClient;
use stubborn_tls::rustls::pki_types::ServerName;

pub use caller::{GrpcCaller, Targets};

/// The shorter of what a caller asked for, else of the second, and what its surroundings leave.
pub type Shorten = fn(Option<Duration>, Option<Duration>) -> Option<Duration>;

/// Adds to the metadata of a call what it inherits from its surroundings.
pub type Carry = fn(&mut Metadata);

/// What a client of gRPC's servers is made of.
#[derive(Clone)]
pub struct ClientConfig {
    /// The servers, best first, until others are [told](Targets).
    pub targets: Vec<SocketAddr>,
    /// How calls are spread over them, whom they leave out, and which are made again. Calls are not hedged.
    pub service: ServiceConfig,
    /// The first pause between attempts to connect, and the longest.
    pub backoff: (Duration, Duration),
    /// What draws are made from.
    pub seed: [u8; 32],
    /// Whom the servers have to be, as `HOST:PORT`.
    pub authority: String,
    /// How connections are secured; `None` for not at all.
    pub tls: Option<(TcpClient, ServerName<'static>)>,
    /// Dropped when nobody uses the client any more.
    pub kept: Option<Arc<dyn Any + Send + Sync>>,
    /// The deadline of calls that state none.
    pub deadline: Option<Duration>,
    /// Works out the deadline of a call.
    pub shorten: Shorten,
    /// Adds what it inherits otherwise.
    pub carry: Carry,
    /// Whether calls wait for a server that can be reached, if they do not say.
    pub wait_for_ready: bool,
    /// How long an attempt to connect to one address may take.
    pub attempt_timeout: Duration,
    /// The largest message, in bytes.
    pub message: usize,
    /// Bytes of a stream's messages that wait to be sent.
    pub stream_window: u64,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientConfig({})", self.authority)
    }
}
