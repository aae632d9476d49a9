//! Every protocol decision of Stubborn, as state machines without I/O.
//!
//! Time, randomness and bytes come in; datagrams, events and the next timeout go out. Nothing here
//! reads a clock, draws entropy, opens a socket or iterates in an unordered way, so the same inputs
//! always give the same outputs: what the simulator proves is what ships.
//!
//! Start reading at [`node::Node`], which composes the layers:
//! [`wire`] (bytes), [`transport`] (reliable, encrypted messages), [`session`] (slots, sequence
//! numbers, outcomes), [`rpc`] (calls in flight). [`service`] holds what generated stubs are
//! written against.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub use stubborn_rope::ahead;

pub mod datagram;
pub mod identity;
pub mod limits;
pub mod node;
pub mod random;
pub mod rpc;
pub mod service;
pub mod session;
pub mod time;
pub mod transport;
pub mod wire;
