//! Reliable, encrypted messages over datagrams: recovery, congestion control, path MTU discovery.

pub mod ranges;
