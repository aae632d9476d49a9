//! Reliable, encrypted messages over datagrams: recovery, congestion control, path MTU discovery.

pub mod ack;
mod cid;
pub mod congestion;
pub mod connection;
pub mod copies;
pub mod crypto;
pub mod ecn;
pub mod endpoint;
pub mod error;
pub mod loss;
pub mod message;
pub mod mtu;
pub mod pacing;
pub mod probe;
pub mod ranges;
pub mod receive;
pub mod record;
pub mod rtt;
pub mod send;
pub mod timers;
mod token;

pub use crate::wire::{ConnectionId, Side, Space};
pub use error::{Code, TransportError};
