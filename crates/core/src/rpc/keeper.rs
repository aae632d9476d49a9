//! The seam between a server and who keeps its sessions elsewhere than in its memory: in the database
//! that the service keeps its state in.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{ClientMessage, Finding, IncomingQuery, SessionCommand};
use crate::limits::Limits;
use crate::service::{Answer, BoxFuture, Call, Encoded, MethodId};
use crate::session::SessionId;
use crate::time::Instant;

/// Keeps the sessions of servers.
///
/// A server with a keeper holds connections only. What a client asks of its session goes to the keeper,
/// which runs the call, keeps its end and says what to tell the client.
pub trait SessionKeeper: Send + Sync + 'static {
    /// What the sessions are of: drawn at random when the database was first used, the same at every
    /// server that shares it. Its lowest byte is 0.
    fn group(&self) -> u64;

    /// The bounds of a server that is about to start.
    fn set_limits(&self, limits: &Limits);

    /// A client's message that changes sessions. The keeper tells the client what comes of it, with
    /// [`Front::tell`].
    fn command(&self, front: Arc<dyn Front>, command: SessionCommand) -> BoxFuture<()>;

    /// What is known of a call that somebody asks about.
    fn query(&self, query: IncomingQuery) -> BoxFuture<Finding>;

    /// What is to be done now and then as long as the server runs: sessions that have a connection
    /// here are renewed, others expire.
    fn keep(&self, front: Arc<dyn Front>) -> BoxFuture<()>;
}

/// A server as its keeper sees it.
pub trait Front: Send + Sync + 'static {
    /// The time of the server's clock, which is monotonic and not that of the database.
    fn now(&self) -> Instant;

    /// Tells a client. One that is gone is told nothing.
    fn tell(&self, client: u64, message: ClientMessage);

    /// Runs the handler of a call to its end. A panic of the handler is an answer, too.
    fn run(&self, method: MethodId, call: Call<Encoded>) -> BoxFuture<Answer>;

    /// The sessions that have a connection to this server.
    fn attached(&self) -> Vec<SessionId>;
}
