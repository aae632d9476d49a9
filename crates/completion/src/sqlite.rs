//! Completions in SQLite.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{FromRow, Row, SqliteConnection};
use stubborn_core::session::{SlotPosition, SlotRecord, SlotReport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::completions::Completions;
use crate::error::CompletionError;
use crate::row::{self, Columns};
use crate::sql::{FORM, SessionColumns, schema, session_row, sql_rows, sql_store, sql_transaction};
use crate::store::{
    CompletionStore, CompletionTransaction, Counts, ServiceRow, SessionRow, StoreError,
};

/// Completions in an SQLite database, which servers on one machine may share.
pub type SqliteCompletions = Completions<Sqlite>;

/// How long a connection waits for the lock of another process before it says so.
const BUSY: Duration = Duration::from_millis(250);

/// An SQLite database that has, beside the application's, the tables `stubborn_service`,
/// `stubborn_session` and `stubborn_slot`.
///
/// SQLite has one writer at a time: a call whose transaction has begun makes all others wait. A process
/// that is stopped in the middle of one keeps them waiting until it goes on or is killed.
#[derive(Clone)]
pub struct Sqlite {
    pool: SqlitePool,
    /// Of this process one writes at a time; the others wait in turn, without a connection.
    writer: Arc<Semaphore>,
}

/// The transaction of a [`Sqlite`].
pub struct SqliteTransaction {
    transaction: sqlx::Transaction<'static, sqlx::Sqlite>,
    _writer: OwnedSemaphorePermit,
}

impl Completions<Sqlite> {
    /// Opens the database of this file, or makes it, and makes the tables if they are not there. It has
    /// a write-ahead log, and each commit is synced.
    ///
    /// # Errors
    /// If it cannot be opened or the tables cannot be made.
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new().connect_with(options).await.map_err(fault)?;
        Self::with_pool(pool).await
    }

    /// Uses this pool of connections. What a commit is worth is up to their settings: with
    /// `synchronous` below `FULL` a power failure takes back what was told to clients.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn with_pool(pool: SqlitePool) -> Result<Self, StoreError> {
        for statement in schema!("BLOB") {
            sqlx::query(statement).execute(&pool).await.map_err(fault)?;
        }
        Self::new(Sqlite { pool, writer: Arc::new(Semaphore::new(1)) }).await
    }

    /// The pool, for what is no call with a number.
    pub fn pool(&self) -> &SqlitePool {
        &self.store().pool
    }
}

impl Sqlite {
    /// The pool of connections.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }
}

impl CompletionStore for Sqlite {
    type Transaction = SqliteTransaction;

    async fn begin(&self) -> Result<SqliteTransaction, StoreError> {
        let writer = Arc::clone(&self.writer).acquire_owned().await;
        let writer = writer.map_err(|error| StoreError::Broken(error.to_string()))?;
        // Takes the lock at once: a transaction that begins by reading may find it taken later.
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
        Ok(SqliteTransaction { transaction, _writer: writer })
    }

    sql_store!();
}

impl SqliteTransaction {
    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

impl CompletionTransaction for SqliteTransaction {
    type Native = SqliteConnection;

    fn native(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    // The one writer has every lock.
    sql_transaction!(service: "", session: "", slot: "", slots: "", free: "");

    async fn commit(self) -> Result<(), StoreError> {
        let committed = self.transaction.commit().await;
        committed.map_err(|error| StoreError::Unknown(error.to_string()))
    }
}

sql_rows!(SqliteRow);

/// What an error means, where nothing was to be committed (sqlite.org/rescode.html).
fn fault(error: sqlx::Error) -> StoreError {
    let why = error.to_string();
    let code = match &error {
        sqlx::Error::Database(said) => said.code().and_then(|code| code.parse::<i32>().ok()),
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => {
            return StoreError::Unavailable(why);
        }
        _ => None,
    };
    // Extended codes have the plain one in their lowest byte.
    match code.map(|code| code & 0xff) {
        // BUSY, LOCKED.
        Some(5 | 6) => StoreError::Locked,
        // NOMEM, IOERR, FULL, CANTOPEN.
        Some(7 | 10 | 13 | 14) => StoreError::Unavailable(why),
        _ => StoreError::Broken(why),
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sqlite")
    }
}

/// For handlers, what an error of their own statements means.
pub(crate) fn handler_fault(error: sqlx::Error) -> CompletionError {
    fault(error).into()
}
