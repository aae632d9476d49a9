//! Replicated services: a replica is a state machine, a log that it shares with the other members of
//! its group, and the node that clients and members reach it by.
//!
//! A call runs exactly once, whatever fails short of a majority, and clients may talk to any member:
//! they name several addresses and need to know nothing else.

mod backup;
mod builder;
mod config;
mod deferral;
mod disk;
mod door;
mod driver;
mod error;
#[cfg(feature = "grpc")]
mod guests;
mod handle;
mod join;

pub use builder::{Replica, ReplicaBuilder};
pub use config::{Clients, ConfiguredMember, GrpcPort, NodeConfig, parse_group};
pub use door::Arriving;
pub use error::ReplicaError;
pub use handle::ReplicaHandle;

#[cfg(feature = "grpc")]
pub(crate) use {door::Door, guests::Guest, handle::Control};
