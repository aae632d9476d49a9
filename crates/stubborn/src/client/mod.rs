//! The client's side: from the address of a service to a [`Channel`].

mod bearer;
mod builder;
mod caller;
mod connection;
mod endpoint;
mod error;
mod late;
pub mod service_config;
mod stream;

pub use bearer::{Bearer, Token};
pub use builder::ChannelBuilder;
#[cfg(feature = "grpc")]
pub(crate) use builder::GrpcChoices;
pub(crate) use caller::{NodeCaller, ask};
pub(crate) use connection::Open;
pub use connection::{Connection, ConnectionStats, EcnState};
pub use endpoint::ClientEndpoint;
pub use error::{ConnectError, ConnectErrorKind};

use crate::Channel;

/// Connects to a service, for example `stubborn://bank.example:7400`, with the defaults: the
/// system's trusted authorities (or the key that the address pins), the runtime's shared endpoint.
///
/// [`ChannelBuilder`] has everything that can be chosen.
///
/// # Errors
/// If the address cannot be read or resolved, no server answers, or its certificate is not
/// trusted.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn connect(address: &str) -> Result<Channel, ConnectError> {
    ChannelBuilder::new(address).connect().await
}
