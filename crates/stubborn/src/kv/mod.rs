//! Keys and values on a group of replicas: the service `stubborn.kv.v1.Kv`, its client, and the
//! machine that `stubborn up` and `stubborn node` run.
//!
//! Changes run exactly once and have revisions; reads see every change that ended before them. Who
//! watches is told the changes from a revision on, in order and each once, whichever replicas fail.

mod history;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod tree;

pub use crate::generated::stubborn::kv::v1::*;
pub use store::Store;

/// Bytes of a key at most.
pub const MAX_KEY: usize = 1 << 10;

/// Bytes of a value at most.
pub const MAX_VALUE: usize = 256 << 10;

/// Bytes of all keys and values at most, with [`PAIR`] for each of them. Every replica of a group
/// must count alike, so this is no setting.
pub const MAX_BYTES: u64 = 512 << 20;

/// What a pair counts beside its bytes.
pub const PAIR: u64 = 64;

/// Bytes of the latest changes that are kept for those who watch, with [`PAIR`] for each of them.
/// Every replica of a group must count alike, so this is no setting.
pub const HISTORY: u64 = 16 << 20;

/// Changes in one reply to who watches, at most.
const WATCHED_AT_ONCE: usize = 1_000;

/// Bytes of changes, with [`PAIR`] for each, after which such a reply ends.
const WATCHED_BYTES: u64 = 64 << 10;

/// Pairs in a page of a list at most.
pub const MAX_PAGE: usize = 1_000;

/// Bytes of keys and values after which a page of a list ends.
const PAGE_BYTES: usize = 1 << 20;
