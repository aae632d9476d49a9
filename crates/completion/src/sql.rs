//! What the SQL databases have in common: the statements.
//!
//! Tables, in which whole numbers that are unsigned here are stored as the signed ones of the same
//! bits:
//!
//! - `stubborn_service`: one row. `group_id`, what the sessions are of; `time_ms`, the time by which
//!   they expire; `next_session`.
//! - `stubborn_session`: a row for each. Its `number`; its owner's `certificate` (digest of its key), or
//!   else the `secret` that shows the owner; the `nonce` of its opening; the `account` that pays for
//!   it; its `epoch`; how many `slots` it has; when it `expires`, 0 once it is closed; the `holder`,
//!   which is the process that has it if its client keeps a journal.
//! - `stubborn_slot`: a row for each slot that was used. The last number in `sequence`; its `state`: 0
//!   unused, 1 done with the `reply`, 2 done and the reply not kept, 3 released, 4 fenced; in `mark`
//!   the digest of the request, or why it is fenced. A call that executes is no state: its transaction
//!   has the row's lock.

use sqlx::Error;
use stubborn_core::session::Owner;

use crate::error::CompletionError;
use crate::store::{SessionRow, StoreError};

/// In a handler that uses `?` on its own statements: the call is run again if the database will do
/// later, and ends with an internal error if not.
impl From<Error> for CompletionError {
    fn from(error: Error) -> Self {
        let database = match &error {
            Error::Database(said) => said,
            // The way to the database.
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed => return Self::Again(error.to_string()),
            _ => return Self::Refused(error.to_string()),
        };
        #[cfg(feature = "postgres")]
        if database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
            return crate::postgres::handler_fault(error);
        }
        #[cfg(feature = "sqlite")]
        if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            return crate::sqlite::handler_fault(error);
        }
        Self::Refused(error.to_string())
    }
}

/// The form of the tables.
pub(crate) const FORM: i64 = 2;

/// Statements that make the tables; `$bytes` is the type of a column of bytes.
macro_rules! schema {
    ($bytes:literal) => {
        [
            "CREATE TABLE IF NOT EXISTS stubborn_service (
                one BIGINT PRIMARY KEY CHECK (one = 1),
                form BIGINT NOT NULL,
                group_id BIGINT NOT NULL,
                time_ms BIGINT NOT NULL,
                next_session BIGINT NOT NULL)",
            concat!(
                "CREATE TABLE IF NOT EXISTS stubborn_session (
                number BIGINT PRIMARY KEY,
                certificate ",
                $bytes,
                ",
                secret ",
                $bytes,
                ",
                nonce ",
                $bytes,
                " NOT NULL UNIQUE,
                account ",
                $bytes,
                " NOT NULL,
                epoch BIGINT NOT NULL,
                slots BIGINT NOT NULL,
                expires BIGINT NOT NULL,
                holder BIGINT)"
            ),
            "CREATE INDEX IF NOT EXISTS stubborn_session_account ON stubborn_session (account)",
            "CREATE INDEX IF NOT EXISTS stubborn_session_expires ON stubborn_session (expires)",
            concat!(
                "CREATE TABLE IF NOT EXISTS stubborn_slot (
                session BIGINT NOT NULL REFERENCES stubborn_session (number) ON DELETE CASCADE,
                slot BIGINT NOT NULL,
                sequence BIGINT NOT NULL,
                state BIGINT NOT NULL,
                mark BIGINT NOT NULL,
                reply ",
                $bytes,
                ",
                PRIMARY KEY (session, slot))"
            ),
        ]
    };
}
pub(crate) use schema;

/// The columns of a session, in this order.
pub(crate) type SessionColumns =
    (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>, Vec<u8>, i64, i64, i64, Option<i64>);

pub(crate) fn session_row(columns: SessionColumns) -> Result<SessionRow, StoreError> {
    let (number, certificate, secret, nonce, account, epoch, slots, expires, holder) = columns;
    let owner: Owner = SessionRow::owner_of(certificate, secret)?;
    Ok(SessionRow {
        number: number.cast_unsigned(),
        owner,
        nonce,
        account,
        epoch: epoch.cast_unsigned(),
        holder: holder.map(i64::cast_unsigned),
        slots: u32::try_from(slots).map_err(|_| StoreError::damaged("the slots of a session"))?,
        expires: expires.cast_unsigned(),
    })
}

/// The functions of a store that need no lock, for a type with a `pool` and a function `fault` that
/// tells an error of the database.
macro_rules! sql_store {
    () => {
        async fn service(&self, fresh_group: u64) -> Result<ServiceRow, StoreError> {
            const READ: &str =
                "SELECT form, group_id, time_ms, next_session FROM stubborn_service";
            loop {
                let row: Option<(i64, i64, i64, i64)> =
                    sqlx::query_as(READ).fetch_optional(&self.pool).await.map_err(fault)?;
                let Some((form, group, time, next)) = row else {
                    const MAKE: &str =
                        "INSERT INTO stubborn_service VALUES (1, $1, $2, 0, 1) ON CONFLICT DO NOTHING";
                    let made = sqlx::query(MAKE).bind(FORM).bind(fresh_group.cast_signed());
                    made.execute(&self.pool).await.map_err(fault)?;
                    continue;
                };
                if form != FORM {
                    return Err(StoreError::Broken(format!(
                        "the tables stubborn_* have the form {form}; this program knows {FORM}"
                    )));
                }
                return Ok(ServiceRow {
                    group: group.cast_unsigned(),
                    time: time.cast_unsigned(),
                    next_session: next.cast_unsigned(),
                });
            }
        }

        async fn look(
            &self,
            session: u64,
            slot: u32,
        ) -> Result<Option<(SessionRow, Option<SlotRecord>)>, StoreError> {
            const LOOK: &str = "SELECT n.number, n.certificate, n.secret, n.nonce, n.account, \
                n.epoch, n.slots, n.expires, n.holder, c.sequence, c.state, c.mark, c.reply \
                FROM stubborn_session n LEFT JOIN stubborn_slot c \
                ON c.session = n.number AND c.slot = $2 WHERE n.number = $1";
            let look = sqlx::query(LOOK).bind(session.cast_signed()).bind(i64::from(slot));
            let Some(row) = look.fetch_optional(&self.pool).await.map_err(fault)? else {
                return Ok(None);
            };
            let sequence: Option<i64> = row.try_get(9).map_err(fault)?;
            let record = match sequence {
                None => None,
                Some(sequence) => Some(slot_columns(&row, sequence)?.record()?),
            };
            Ok(Some((read_session(&row)?, record)))
        }

        async fn make_slot(&self, session: u64, slot: u32) -> Result<(), StoreError> {
            const MAKE: &str = "INSERT INTO stubborn_slot \
                SELECT number, $2, 0, 0, 0, NULL FROM stubborn_session WHERE number = $1 \
                ON CONFLICT DO NOTHING";
            let make = sqlx::query(MAKE).bind(session.cast_signed()).bind(i64::from(slot));
            make.execute(&self.pool).await.map(|_| ()).map_err(fault)
        }

        async fn advance(&self, seen: u64, by: u64) -> Result<u64, StoreError> {
            const MOVE_ON: &str =
                "UPDATE stubborn_service SET time_ms = time_ms + $2 WHERE time_ms = $1";
            const READ: &str = "SELECT time_ms FROM stubborn_service";
            let move_on = sqlx::query(MOVE_ON).bind(seen.cast_signed()).bind(by.cast_signed());
            move_on.execute(&self.pool).await.map_err(fault)?;
            let (time,): (i64,) =
                sqlx::query_as(READ).fetch_one(&self.pool).await.map_err(fault)?;
            Ok(time.cast_unsigned())
        }

        async fn renew(&self, sessions: &[u64], expires: u64) -> Result<(), StoreError> {
            const RENEW: &str = "UPDATE stubborn_session SET expires = $2 \
                WHERE number = $1 AND expires <> 0 AND expires < $2";
            for session in sessions {
                let renew = sqlx::query(RENEW).bind(session.cast_signed());
                let renew = renew.bind(expires.cast_signed());
                renew.execute(&self.pool).await.map_err(fault)?;
            }
            Ok(())
        }

        async fn kept(&self) -> Result<u64, StoreError> {
            const KEPT: &str = "SELECT CAST(COALESCE(SUM(LENGTH(reply)), 0) AS BIGINT) \
                FROM stubborn_slot";
            let (kept,): (i64,) =
                sqlx::query_as(KEPT).fetch_one(&self.pool).await.map_err(fault)?;
            Ok(kept.cast_unsigned())
        }

        async fn expired(&self, time: u64) -> Result<Vec<u64>, StoreError> {
            const EXPIRED: &str = "SELECT number FROM stubborn_session WHERE expires <= $1 \
                ORDER BY expires LIMIT 1000";
            let rows: Vec<(i64,)> = sqlx::query_as(EXPIRED)
                .bind(time.cast_signed())
                .fetch_all(&self.pool)
                .await
                .map_err(fault)?;
            Ok(rows.into_iter().map(|(number,)| number.cast_unsigned()).collect())
        }
    };
}
pub(crate) use sql_store;

/// The functions of a transaction but for `Native`, `native` and `commit`, for a type with a method
/// `connection`. The arguments are what a SELECT ends with that locks what it reads.
macro_rules! sql_transaction {
    (
        service: $lock_service:literal,
        session: $lock_session:literal,
        slot: $lock_slot:literal,
        slots: $lock_slots:literal,
        free: $lock_free:literal $(,)?
    ) => {
        async fn lock_service(&mut self) -> Result<ServiceRow, StoreError> {
            const READ: &str = concat!(
                "SELECT group_id, time_ms, next_session FROM stubborn_service",
                $lock_service
            );
            let (group, time, next): (i64, i64, i64) =
                sqlx::query_as(READ).fetch_one(self.connection()).await.map_err(fault)?;
            Ok(ServiceRow {
                group: group.cast_unsigned(),
                time: time.cast_unsigned(),
                next_session: next.cast_unsigned(),
            })
        }

        async fn save_service(&mut self, row: &ServiceRow) -> Result<(), StoreError> {
            const SAVE: &str =
                "UPDATE stubborn_service SET group_id = $1, time_ms = $2, next_session = $3";
            let save = sqlx::query(SAVE)
                .bind(row.group.cast_signed())
                .bind(row.time.cast_signed())
                .bind(row.next_session.cast_signed());
            save.execute(self.connection()).await.map(|_| ()).map_err(fault)
        }

        async fn count(&mut self, account: &[u8]) -> Result<Counts, StoreError> {
            const COUNT: &str = "SELECT count(*), CAST(coalesce(sum(slots), 0) AS BIGINT), \
                (SELECT count(*) FROM stubborn_session WHERE account = $1) FROM stubborn_session";
            let (sessions, slots, of_account): (i64, i64, i64) = sqlx::query_as(COUNT)
                .bind(account)
                .fetch_one(self.connection())
                .await
                .map_err(fault)?;
            let [of_account, sessions, slots] =
                [of_account, sessions, slots].map(i64::cast_unsigned);
            Ok(Counts { of_account, sessions, slots })
        }

        async fn spare(
            &mut self,
            account: Option<&[u8]>,
            before: u64,
        ) -> Result<Option<u64>, StoreError> {
            const OF_ANY: &str = "SELECT number FROM stubborn_session n WHERE expires <= $1 \
                AND NOT EXISTS (SELECT 1 FROM stubborn_slot c \
                WHERE c.session = n.number AND c.state IN (1, 2, 4)) ORDER BY expires LIMIT 1";
            const OF_ACCOUNT: &str = "SELECT number FROM stubborn_session n WHERE expires <= $1 \
                AND account = $2 AND NOT EXISTS (SELECT 1 FROM stubborn_slot c \
                WHERE c.session = n.number AND c.state IN (1, 2, 4)) ORDER BY expires LIMIT 1";
            let before = before.cast_signed();
            let found: Option<(i64,)> = match account {
                None => sqlx::query_as(OF_ANY).bind(before),
                Some(account) => sqlx::query_as(OF_ACCOUNT).bind(before).bind(account.to_vec()),
            }
            .fetch_optional(self.connection())
            .await
            .map_err(fault)?;
            Ok(found.map(|(number,)| number.cast_unsigned()))
        }

        async fn opened_with(&mut self, nonce: &[u8]) -> Result<Option<u64>, StoreError> {
            const FIND: &str = "SELECT number FROM stubborn_session WHERE nonce = $1";
            let found: Option<(i64,)> = sqlx::query_as(FIND)
                .bind(nonce)
                .fetch_optional(self.connection())
                .await
                .map_err(fault)?;
            Ok(found.map(|(number,)| number.cast_unsigned()))
        }

        async fn insert_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
            const INSERT: &str = "INSERT INTO stubborn_session (number, certificate, secret, \
                nonce, account, epoch, slots, expires, holder) \
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
            let (certificate, secret) = row.owner_columns();
            let insert = sqlx::query(INSERT)
                .bind(row.number.cast_signed())
                .bind(certificate)
                .bind(secret)
                .bind(row.nonce.clone())
                .bind(row.account.clone())
                .bind(row.epoch.cast_signed())
                .bind(i64::from(row.slots))
                .bind(row.expires.cast_signed())
                .bind(row.holder.map(u64::cast_signed));
            insert.execute(self.connection()).await.map(|_| ()).map_err(fault)
        }

        async fn lock_session(&mut self, session: u64) -> Result<Option<SessionRow>, StoreError> {
            const READ: &str = concat!(
                "SELECT number, certificate, secret, nonce, account, epoch, slots, expires, holder \
                FROM stubborn_session WHERE number = $1",
                $lock_session
            );
            let row = sqlx::query(READ)
                .bind(session.cast_signed())
                .fetch_optional(self.connection())
                .await
                .map_err(fault)?;
            row.map(|row| read_session(&row)).transpose()
        }

        async fn save_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
            const SAVE: &str =
                "UPDATE stubborn_session SET epoch = $2, expires = $3, holder = $4 \
                WHERE number = $1";
            let save = sqlx::query(SAVE)
                .bind(row.number.cast_signed())
                .bind(row.epoch.cast_signed())
                .bind(row.expires.cast_signed())
                .bind(row.holder.map(u64::cast_signed));
            save.execute(self.connection()).await.map(|_| ()).map_err(fault)
        }

        async fn delete_session(&mut self, session: u64) -> Result<(), StoreError> {
            const LOCK: &str =
                concat!("SELECT slot FROM stubborn_slot WHERE session = $1", $lock_slots);
            const SLOTS: &str = "DELETE FROM stubborn_slot WHERE session = $1";
            const SESSION: &str = "DELETE FROM stubborn_session WHERE number = $1";
            for statement in [LOCK, SLOTS, SESSION] {
                let statement = sqlx::query(statement).bind(session.cast_signed());
                statement.execute(self.connection()).await.map_err(fault)?;
            }
            Ok(())
        }

        async fn reports(&mut self, session: u64) -> Result<Vec<SlotReport>, StoreError> {
            const READ: &str = "SELECT slot, sequence, state FROM stubborn_slot \
                WHERE session = $1 ORDER BY slot";
            let rows: Vec<(i64, i64, i64)> = sqlx::query_as(READ)
                .bind(session.cast_signed())
                .fetch_all(self.connection())
                .await
                .map_err(fault)?;
            rows.into_iter()
                .map(|(slot, sequence, state)| row::report(slot, sequence, state))
                .collect()
        }

        async fn lock_slot(
            &mut self,
            session: u64,
            slot: u32,
        ) -> Result<Option<(SessionRow, SlotRecord)>, StoreError> {
            const LOCK: &str = concat!(
                "SELECT n.number, n.certificate, n.secret, n.nonce, n.account, n.epoch, n.slots, \
                n.expires, n.holder, c.sequence, c.state, c.mark, c.reply \
                FROM stubborn_slot c JOIN stubborn_session n ON n.number = c.session \
                WHERE c.session = $1 AND c.slot = $2",
                $lock_slot
            );
            let lock = sqlx::query(LOCK).bind(session.cast_signed()).bind(i64::from(slot));
            let Some(row) = lock.fetch_optional(self.connection()).await.map_err(fault)? else {
                return Ok(None);
            };
            let sequence: i64 = row.try_get(9).map_err(fault)?;
            Ok(Some((read_session(&row)?, slot_columns(&row, sequence)?.record()?)))
        }

        async fn save_slot(
            &mut self,
            session: u64,
            slot: u32,
            record: &SlotRecord,
        ) -> Result<(), StoreError> {
            const SAVE: &str = "UPDATE stubborn_slot SET sequence = $3, state = $4, mark = $5, \
                reply = $6 WHERE session = $1 AND slot = $2";
            let columns = Columns::of(record);
            let save = sqlx::query(SAVE)
                .bind(session.cast_signed())
                .bind(i64::from(slot))
                .bind(columns.sequence)
                .bind(columns.state)
                .bind(columns.mark)
                .bind(columns.reply);
            match save.execute(self.connection()).await.map_err(fault)?.rows_affected() {
                1 => Ok(()),
                // It was locked, so nobody but this transaction can have removed it.
                _ => Err(StoreError::Broken("the slot's row is gone, though locked".into())),
            }
        }

        async fn release(
            &mut self,
            session: u64,
            list: &[SlotPosition],
        ) -> Result<(), StoreError> {
            const RELEASE: &str = concat!(
                "UPDATE stubborn_slot SET state = 3, mark = 0, reply = NULL WHERE session = $1 \
                AND slot IN (SELECT slot FROM stubborn_slot WHERE session = $1 AND slot = $2 \
                AND sequence = $3 AND state <> 0",
                $lock_free,
                ")"
            );
            for position in list {
                let release = sqlx::query(RELEASE)
                    .bind(session.cast_signed())
                    .bind(i64::from(position.slot))
                    .bind(position.sequence.cast_signed());
                release.execute(self.connection()).await.map_err(fault)?;
            }
            Ok(())
        }
    };
}
pub(crate) use sql_transaction;

/// Functions that read a row of `$row`.
macro_rules! sql_rows {
    ($row:ty) => {
        fn read_session(row: &$row) -> Result<SessionRow, StoreError> {
            session_row(SessionColumns::from_row(row).map_err(fault)?)
        }

        /// The state of a slot, in the columns that follow `sequence`.
        fn slot_columns(row: &$row, sequence: i64) -> Result<Columns, StoreError> {
            Ok(Columns {
                sequence,
                state: row.try_get(10).map_err(fault)?,
                mark: row.try_get(11).map_err(fault)?,
                reply: row.try_get(12).map_err(fault)?,
            })
        }
    };
}
pub(crate) use sql_rows;
