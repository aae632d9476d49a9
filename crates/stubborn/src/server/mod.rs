//! The server's side: services on a UDP port.

mod builder;
mod error;
mod handle;
mod share;

#[cfg(any(feature = "grpc", feature = "replica"))]
pub(crate) use builder::resolve;
pub use builder::{Server, ServerBuilder};
pub use error::ServeError;
pub use handle::{DrainReport, ServerHandle, WorkerStats};
