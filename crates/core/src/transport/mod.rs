//! Reliable, encrypted messages over datagrams: recovery, congestion control, path MTU discovery.

pub mod connection;
pub mod endpoint;
pub mod ranges;
