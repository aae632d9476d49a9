//! The server's side: services on a UDP port.

mod access;
mod builder;
mod current;
mod error;
mod gate;
mod handle;
mod intercept;
mod once;
mod permissions;
mod services;
mod share;
mod subjects;

pub use access::{Access, AccessError, AccessFile};
#[cfg(feature = "replica")]
pub(crate) use builder::recording;
#[cfg(any(feature = "grpc", feature = "replica"))]
pub(crate) use builder::resolve;
pub use builder::{Server, ServerBuilder};
pub use error::ServeError;

#[cfg(feature = "replica")]
pub(crate) use current::CurrentGate;
pub(crate) use gate::AUTHORIZATION;
#[cfg(feature = "replica")]
pub(crate) use gate::{Authenticator, Gate as Callers};
pub use handle::{DrainReport, ServerHandle, WorkerStats};
pub use intercept::Incoming;
#[cfg(feature = "tower")]
pub(crate) use intercept::Interceptor;
pub use permissions::Permissions;
pub(crate) use services::Services;
#[cfg(feature = "replica")]
pub(crate) use subjects::Subjects;
