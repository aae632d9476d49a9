//! What must hold in every world, one invariant in each file.

pub(crate) mod amplification;
mod at_most_once;
pub(crate) mod calls;
pub(crate) mod integrity;
pub(crate) mod lies;
mod liveness;
mod lost;
pub(crate) mod memory;
mod one_server;
mod outcomes;
mod races;
pub(crate) mod starts;
mod streams;
mod wire;

use std::fmt;

use stubborn_core::time::Instant;

pub use calls::CallCounts;
pub(crate) use liveness::BOUND;
pub use races::RaceCounts;
pub use wire::WireCounts;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub promise: &'static str,
    /// When it was seen to be broken.
    pub at: Instant,
    /// How.
    pub what: String,
}

impl Violation {
    /// A broken promise.
    pub fn new(promise: &'static str, at: Instant, what: impl Into<String>) -> Self {
        Self { promise, at, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = crate::world::Stamp(self.at).to_string();
        write!(f, "{} broken at {} s: {}", self.promise, stamp.trim_start(), self.what)
    }
}

/// What is watched in every world, whatever runs in it.
#[derive(Default)]
pub(crate) struct WorldOracles {
    pub(crate) amplification: amplification::Amplification,
    pub(crate) memory: memory::Memory,
    pub(crate) starts: starts::Starts,
    pub(crate) wire: WireCounts,
}
