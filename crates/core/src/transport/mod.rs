//! Reliable, encrypted messages over datagrams: recovery, congestion control, path MTU discovery.

pub mod connection;
pub mod crypto;
pub mod endpoint;
pub mod error;
pub mod message;
pub mod ranges;
pub mod receive;
pub mod send;

pub use crate::wire::{ConnectionId, Side, Space};
pub use error::{Code, TransportError};
