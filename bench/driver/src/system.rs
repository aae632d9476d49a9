//! What is implemented for each RPC system.

use std::future::Future;

use bytes::Bytes;

use crate::protocol::{Ready, ServerOptions, Work};
use crate::server::{self, Announce};
use crate::{Result, client};

/// An RPC system, in one variant: how it serves and how it is called.
pub trait System: Clone + Send + Sync + 'static {
    type Client: Client;

    /// The variant with this name.
    fn variant(name: &str) -> Option<Self>;

    /// Serves until the process ends; announces its address once it listens. It chooses its
    /// runtime itself: [`server::runtime`] is the usual one.
    ///
    /// # Errors
    /// If it cannot serve.
    fn serve(&self, options: ServerOptions, announce: Announce) -> Result;

    /// Opens a connection. Runs on a runtime of one thread, where `spawn_local` works.
    ///
    /// # Errors
    /// If the server does not answer.
    fn connect(&self, target: &Target) -> impl Future<Output = Result<Self::Client>>;
}

/// A connection, on which several calls can be in flight.
pub trait Client: 'static {
    /// Sends the payload, returns how many bytes came back.
    ///
    /// # Errors
    /// What the system says.
    fn echo(&self, payload: Bytes) -> impl Future<Output = Result<usize>>;

    /// Sends the payload, returns how many bytes the server says to have received.
    ///
    /// # Errors
    /// What the system says.
    fn upload(&self, payload: Bytes) -> impl Future<Output = Result<usize>>;

    /// Makes one of them.
    ///
    /// # Errors
    /// What the system says.
    fn call(&self, work: Work, payload: Bytes) -> impl Future<Output = Result<usize>> {
        async move {
            match work {
                Work::Echo => self.echo(payload).await,
                Work::Upload => self.upload(payload).await,
            }
        }
    }
}

/// What a connection is opened to.
#[derive(Clone, Debug)]
pub struct Target {
    pub server: Ready,
    /// Counts the connections of this process.
    pub index: usize,
}

/// The `main` of a system's program. Ends the process.
pub fn run<S: System>() -> ! {
    server::main(
        |variant, options, announce| known::<S>(variant)?.serve(options, announce),
        |variant, options| client::perform(&known::<S>(variant)?, options),
    )
}

fn known<S: System>(variant: &str) -> Result<S> {
    S::variant(variant).ok_or_else(|| format!("there is no variant named {variant}").into())
}
