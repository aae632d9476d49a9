//! Generated stubs call a gRPC server.
//!
//! gRPC cannot say of every call whether it ran. What it can say is kept apart:
//!
//! | what happened | outcome |
//! |---|---|
//! | no byte of the request was handed to a connection, or the server refused the stream before it looked at it (RFC 9113 §8.7) | `NotExecuted` |
//! | the server says so ([`NOT_EXECUTED`](crate::NOT_EXECUTED)) | `NotExecuted` |
//! | a status of the server, other than the three that also stand for a failure on the way | `Executed` |
//! | `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `CANCELLED`; a connection that broke; the deadline passed here | `Lost`; of a read `Unanswered` |
//!
//! Nothing is sent twice, except where nothing was sent the first time.

mod caller;
mod connect;
mod outcome;
mod stream;

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::service::{BoxFuture, Metadata};
use stubborn_tls::TcpClient;
use stubborn_tls::rustls::pki_types::ServerName;

pub use caller::GrpcCaller;

/// Finds the addresses of the servers, best first.
pub type Lookup = Arc<dyn Fn() -> BoxFuture<io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The shorter of what a caller asked for, else of the second, and what its surroundings leave.
pub type Shorten = fn(Option<Duration>, Option<Duration>) -> Option<Duration>;

/// Adds to the metadata of a call what it inherits from its surroundings.
pub type Carry = fn(&mut Metadata);

/// What a client of a gRPC server is made of.
#[derive(Clone)]
pub struct ClientConfig {
    /// Finds the servers; asked before every attempt to connect.
    pub lookup: Lookup,
    /// Whom the server has to be, as `HOST:PORT`.
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
