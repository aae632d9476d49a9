//! Exactly once for services that keep their state in a database of their own.
//!
//! The sessions of a server, and what became of each numbered call, are rows of two tables beside the
//! application's. A handler changes its own tables in a transaction that also writes the record of the
//! call's end: either both are committed or neither. So a call runs once, whatever becomes of the
//! server's process, and at whichever of several servers that share the database its copies arrive.
//! There is no consensus here: the database is what they agree on.
//!
//! ```
//! use stubborn::{Call, Status};
//! use stubborn_completion::{CompletionError, MemoryCompletions};
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct Deposit { #[prost(uint64, tag = "1")] cents: u64 }
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct Balance { #[prost(uint64, tag = "1")] cents: u64 }
//!
//! struct Bank {
//!     db: MemoryCompletions<u64>,
//! }
//!
//! impl Bank {
//!     async fn deposit(&self, call: Call<Deposit>) -> Result<Balance, Status> {
//!         let mut guard = self.db.begin(&call).await?;
//!         *guard.transaction() += call.cents;
//!         let cents = *guard.transaction();
//!         guard.commit(Balance { cents }).await
//!     }
//! }
//! ```
//!
//! The server is started with the same completions:
//! `ServerBuilder::completions` of the crate `stubborn`.
//!
//! # What a handler may rely on
//! - It may be started more than once for a call: after a crash, or at two servers. Of the transactions
//!   that it begins one is committed at most.
//! - A handler that begins no transaction, or drops its guard, ends the call with what it answers; that
//!   is recorded in a transaction of its own.
//! - Where the database cannot be used, nothing is recorded and the client sends the call again: that
//!   is no outcome of the call.
//! - What it does outside the transaction is done as often as it is started.
//!
//! `docs/semantics.md` says what follows for callers.

#![forbid(unsafe_code)]

mod commands;
mod completions;
mod error;
mod guard;
mod keep;
mod kv;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redb")]
mod redb;
mod row;
mod run;
mod running;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod store;

pub use completions::Completions;
pub use error::CompletionError;
pub use guard::Guard;
pub use memory::{Memory, MemoryCompletions};
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresCompletions};
#[cfg(feature = "redb")]
pub use redb::{Redb, RedbCompletions};
#[cfg(feature = "sqlite")]
pub use sqlite::{Sqlite, SqliteCompletions};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sqlx;
pub use store::{CompletionStore, StoreError};
