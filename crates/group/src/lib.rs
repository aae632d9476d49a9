//! What makes a group of nodes one: replication by consensus.
//!
//! Deterministic as core is: no clock, no entropy, no I/O, no unordered iteration. Ticks, frames
//! and what the disk has taken come in; writes, frames and committed entries go out.

#![forbid(unsafe_code)]

pub mod node;
pub mod replica;
pub mod replication;
mod served;

pub use served::{Ending, Served};
