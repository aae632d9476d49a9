//! Completions in a `redb` database: an embedded store of keys and values, for one process.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use stubborn_core::session::{SlotPosition, SlotRecord, SlotReport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::completions::Completions;
use crate::kv::{self, Entries, Kv, transaction_over_kv};
use crate::store::{
    CompletionStore, CompletionTransaction, Counts, ServiceRow, SessionRow, StoreError,
};

/// Completions in a `redb` database. One process has the file open.
pub type RedbCompletions = Completions<Redb>;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("stubborn_completions");

/// A `redb` database that has, beside the application's, the table `stubborn_completions`.
#[derive(Clone)]
pub struct Redb {
    database: Arc<Database>,
    /// One transaction writes at a time; the others wait without a thread.
    writer: Arc<Semaphore>,
}

/// The transaction of a [`Redb`].
pub struct RedbTransaction {
    transaction: WriteTransaction,
    _writer: OwnedSemaphorePermit,
}

impl Completions<Redb> {
    /// Opens the database of this file, or makes it.
    ///
    /// # Errors
    /// If it cannot be opened, for example because another process has it.
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, StoreError> {
        let database = Database::create(file).map_err(broken)?;
        Self::with_database(Arc::new(database)).await
    }

    /// Uses a database that is open. Whoever else writes to it keeps calls from beginning meanwhile:
    /// `redb` has one writer at a time, and makes others wait with their thread.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn with_database(database: Arc<Database>) -> Result<Self, StoreError> {
        let store = Redb { database, writer: Arc::new(Semaphore::new(1)) };
        // A reader needs the table.
        let tx = store.begin().await?;
        tx.transaction.open_table(TABLE).map_err(broken)?;
        tx.commit().await?;
        Self::new(store).await
    }

    /// The database, for what is no call with a number.
    pub fn database(&self) -> &Database {
        self.store().database()
    }
}

impl Redb {
    /// The database, for reading.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Acts on the rows in a transaction of its own.
    async fn change<R>(
        &self,
        act: impl FnOnce(&mut WriteTransaction) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut tx = self.begin().await?;
        let result = act(&mut tx.transaction)?;
        tx.commit().await?;
        Ok(result)
    }

    fn read(&self) -> Result<Reader, StoreError> {
        let transaction = self.database.begin_read().map_err(unavailable)?;
        transaction.open_table(TABLE).map(Reader).map_err(broken)
    }
}

impl CompletionStore for Redb {
    type Transaction = RedbTransaction;

    async fn begin(&self) -> Result<RedbTransaction, StoreError> {
        let writer = Arc::clone(&self.writer).acquire_owned().await.map_err(broken)?;
        let database = Arc::clone(&self.database);
        // It may wait for a writer of the application's own.
        let begun = tokio::task::spawn_blocking(move || database.begin_write()).await;
        let transaction = begun.map_err(unavailable)?.map_err(unavailable)?;
        Ok(RedbTransaction { transaction, _writer: writer })
    }

    async fn service(&self, fresh_group: u64) -> Result<ServiceRow, StoreError> {
        if let Some(row) = kv::service(&mut self.read()?)? {
            return Ok(row);
        }
        self.change(|kv| kv::service_or_new(kv, fresh_group)).await
    }

    async fn look(
        &self,
        session: u64,
        slot: u32,
    ) -> Result<Option<(SessionRow, Option<SlotRecord>)>, StoreError> {
        let kv = &mut self.read()?;
        let Some(row) = kv::session(kv, session)? else { return Ok(None) };
        Ok(Some((row, kv::slot(kv, session, slot)?)))
    }

    async fn make_slot(&self, _: u64, _: u32) -> Result<(), StoreError> {
        Ok(())
    }

    async fn advance(&self, seen: u64, by: u64) -> Result<u64, StoreError> {
        self.change(|kv| kv::advance(kv, seen, by)).await
    }

    async fn renew(&self, sessions: &[u64], expires: u64) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        self.change(|kv| kv::renew(kv, sessions, expires)).await
    }

    async fn kept(&self) -> Result<u64, StoreError> {
        kv::kept(&mut self.read()?)
    }

    async fn expired(&self, time: u64) -> Result<Vec<u64>, StoreError> {
        kv::expired(&mut self.read()?, time)
    }
}

impl RedbTransaction {
    fn kv(&mut self) -> &mut WriteTransaction {
        &mut self.transaction
    }
}

impl CompletionTransaction for RedbTransaction {
    type Native = WriteTransaction;

    fn native(&mut self) -> &mut WriteTransaction {
        &mut self.transaction
    }

    transaction_over_kv!();

    async fn commit(self) -> Result<(), StoreError> {
        let Self { transaction, _writer } = self;
        let unknown = |error: &dyn fmt::Display| StoreError::Unknown(error.to_string());
        // It syncs the file.
        match tokio::task::spawn_blocking(move || transaction.commit()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unknown(&error)),
            Err(error) => Err(unknown(&error)),
        }
    }
}

impl Kv for WriteTransaction {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.open_table(TABLE).map_err(broken)?;
        let value = table.get(key).map_err(unavailable)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        let mut table = self.open_table(TABLE).map_err(broken)?;
        table.insert(key, &value[..]).map_err(unavailable)?;
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let mut table = self.open_table(TABLE).map_err(broken)?;
        table.remove(key).map_err(unavailable)?;
        Ok(())
    }

    fn scan(&mut self, prefix: &[u8]) -> Result<Entries, StoreError> {
        scan(&self.open_table(TABLE).map_err(broken)?, prefix)
    }
}

/// What was committed.
struct Reader(redb::ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Kv for Reader {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.0.get(key).map_err(unavailable)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn put(&mut self, _: &[u8], _: Vec<u8>) -> Result<(), StoreError> {
        Err(StoreError::Broken("a reader does not write".into()))
    }

    fn delete(&mut self, _: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::Broken("a reader does not write".into()))
    }

    fn scan(&mut self, prefix: &[u8]) -> Result<Entries, StoreError> {
        scan(&self.0, prefix)
    }
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
) -> Result<Entries, StoreError> {
    let mut found = Vec::new();
    for entry in table.range(prefix..).map_err(unavailable)? {
        let (key, value) = entry.map_err(unavailable)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(found)
}

fn broken(error: impl fmt::Display) -> StoreError {
    StoreError::Broken(error.to_string())
}

fn unavailable(error: impl fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redb")
    }
}
