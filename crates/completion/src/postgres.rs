//! Completions in PostgreSQL.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Row};
use stubborn_core::session::{SlotPosition, SlotRecord, SlotReport};

use crate::completions::Completions;
use crate::error::CompletionError;
use crate::row::{self, Columns};
use crate::sql::{FORM, SessionColumns, schema, session_row, sql_rows, sql_store, sql_transaction};
use crate::store::{
    CompletionStore, CompletionTransaction, Counts, ServiceRow, SessionRow, StoreError,
};

/// Completions in a PostgreSQL database, which several servers may share.
pub type PostgresCompletions = Completions<Postgres>;

/// How long a transaction of a handler may be idle, if nothing else is chosen.
const STALLED: Duration = Duration::from_secs(10);

/// How long a call waits for a connection of the pool before its client is asked to send it again.
const ACQUIRE: Duration = Duration::from_secs(5);

/// No two servers make the tables at a time: the key of an advisory lock.
const MAKING_TABLES: i64 = 0x7374_7562_626f_726e;

/// A PostgreSQL database that has, beside the application's, the tables `stubborn_service`,
/// `stubborn_session` and `stubborn_slot`.
///
/// All servers must use the primary: what a standby says may be old.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    begin: String,
}

/// The transaction of a [`Postgres`].
pub struct PostgresTransaction(sqlx::Transaction<'static, sqlx::Postgres>);

impl Completions<Postgres> {
    /// Connects to a database, for example `postgres://bank@db.example/bank`, and makes the tables if
    /// they are not there. The pool has as many connections as `sqlx` has by default, which are 10:
    /// as many calls execute at once.
    ///
    /// # Errors
    /// If it cannot be reached or the tables cannot be made.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let options = PgPoolOptions::new().acquire_timeout(ACQUIRE);
        Self::with_pool(options.connect(url).await.map_err(fault)?).await
    }

    /// Uses this pool of connections.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn with_pool(pool: PgPool) -> Result<Self, StoreError> {
        Self::with_stalled(pool, STALLED).await
    }

    /// Uses this pool of connections. A handler's transaction in which nothing happens for `stalled` is
    /// ended by the database, so that another server can execute the call of one that was stopped or
    /// cut off; zero for never. 10 s by default.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn with_stalled(pool: PgPool, stalled: Duration) -> Result<Self, StoreError> {
        let mut tx = begin(&pool, "BEGIN".into()).await?.0;
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MAKING_TABLES);
        lock.execute(&mut *tx).await.map_err(fault)?;
        for statement in schema!("BYTEA") {
            sqlx::query(statement).execute(&mut *tx).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        let stalled = stalled.as_millis().min(i32::MAX as u128);
        let begin = format!("BEGIN; SET LOCAL idle_in_transaction_session_timeout = {stalled}");
        Self::new(Postgres { pool, begin }).await
    }

    /// The pool, for what is no call with a number.
    pub fn pool(&self) -> &PgPool {
        &self.store().pool
    }
}

impl Postgres {
    /// The pool of connections.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl CompletionStore for Postgres {
    type Transaction = PostgresTransaction;

    async fn begin(&self) -> Result<PostgresTransaction, StoreError> {
        begin(&self.pool, self.begin.clone()).await
    }

    sql_store!();
}

/// Begins in a task of its own: where this is given up halfway, the transaction is ended when it has
/// begun. `sqlx` would hand its connection to the next one while `BEGIN` is on its way, and what that
/// one writes outside a transaction would be in this one, which nobody commits.
async fn begin(pool: &PgPool, statement: String) -> Result<PostgresTransaction, StoreError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(statement)).await });
    match begun.await {
        Ok(begun) => begun.map(PostgresTransaction).map_err(fault),
        Err(_) => Err(StoreError::Unavailable("its runtime ends".into())),
    }
}

impl PostgresTransaction {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

impl CompletionTransaction for PostgresTransaction {
    type Native = PgConnection;

    fn native(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    sql_transaction!(
        service: " FOR UPDATE",
        session: " FOR NO KEY UPDATE",
        slot: " FOR UPDATE OF c NOWAIT",
        slots: " FOR UPDATE NOWAIT",
        free: " FOR UPDATE SKIP LOCKED",
    );

    async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await.map_err(|error| match &error {
            // The database says itself that it did not commit.
            sqlx::Error::Database(said) if !is_over(said.code().as_deref()) => fault(error),
            _ => StoreError::Unknown(error.to_string()),
        })
    }
}

sql_rows!(PgRow);

/// Whether an error with this code ends the connection: the server goes down, or ends it by force.
fn is_over(code: Option<&str>) -> bool {
    code.is_none_or(|code| {
        code.starts_with("57")
            || code.starts_with("08")
            || code.starts_with("XX")
            || code == "25P03"
    })
}

/// What an error means, where nothing was to be committed (PostgreSQL manual, appendix A).
fn fault(error: sqlx::Error) -> StoreError {
    let why = error.to_string();
    let sqlx::Error::Database(said) = &error else {
        let away = matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::BeginFailed
        );
        return if away { StoreError::Unavailable(why) } else { StoreError::Broken(why) };
    };
    let code = said.code();
    match code.as_deref() {
        Some("55P03") => StoreError::Locked,
        // Serialization, deadlock; no resources; read-only: a standby.
        Some("40001" | "40P01" | "25006") => StoreError::Unavailable(why),
        Some(code) if code.starts_with("53") => StoreError::Unavailable(why),
        code if is_over(code) => StoreError::Unavailable(why),
        _ => StoreError::Broken(why),
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres")
    }
}

/// For handlers, what an error of their own statements means.
pub(crate) fn handler_fault(error: sqlx::Error) -> CompletionError {
    fault(error).into()
}
