//! Completions in memory: for tests, and for services whose state is in memory, too.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stubborn_core::session::{SlotPosition, SlotRecord, SlotReport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::completions::Completions;
use crate::kv::{self, Entries, Kv, transaction_over_kv};
use crate::store::{
    CompletionStore, CompletionTransaction, Counts, ServiceRow, SessionRow, StoreError,
};

/// Completions and a state `T` in memory. They survive a server, but not its process.
pub type MemoryCompletions<T> = Completions<Memory<T>>;

/// A state in memory. A transaction works on a copy of it, which takes its place when it is committed;
/// one is there at a time.
pub struct Memory<T>(Arc<Shared<T>>);

struct Shared<T> {
    committed: Mutex<Committed<T>>,
    writer: Arc<Semaphore>,
}

struct Committed<T> {
    state: T,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The transaction of a [`Memory`].
pub struct MemoryTransaction<T> {
    writes: Writes<T>,
    state: T,
    _writer: OwnedSemaphorePermit,
}

/// Changes that are not committed.
struct Writes<T> {
    store: Arc<Shared<T>>,
    changed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<T: Clone + Send + 'static> Completions<Memory<T>> {
    /// Completions beside this state.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub async fn in_memory(state: T) -> Result<Self, StoreError> {
        let committed = Mutex::new(Committed { state, rows: BTreeMap::new() });
        let writer = Arc::new(Semaphore::new(1));
        Self::new(Memory(Arc::new(Shared { committed, writer }))).await
    }

    /// A copy of the state as it was last committed.
    pub fn state(&self) -> T {
        self.store().state()
    }
}

impl<T: Clone + Send + 'static> Memory<T> {
    /// A copy of the state as it was last committed.
    pub fn state(&self) -> T {
        self.0.committed().state.clone()
    }

    /// Acts on the rows in a transaction of its own.
    async fn change<R>(
        &self,
        act: impl FnOnce(&mut Writes<T>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut tx = self.begin().await?;
        let result = act(&mut tx.writes)?;
        tx.commit().await?;
        Ok(result)
    }

    /// What was committed, for reading.
    fn read(&self) -> Writes<T> {
        Writes { store: Arc::clone(&self.0), changed: BTreeMap::new() }
    }
}

impl<T: Clone + Send + 'static> CompletionStore for Memory<T> {
    type Transaction = MemoryTransaction<T>;

    async fn begin(&self) -> Result<MemoryTransaction<T>, StoreError> {
        let writer = Arc::clone(&self.0.writer).acquire_owned().await;
        let writer = writer.map_err(|error| StoreError::Broken(error.to_string()))?;
        let state = self.0.committed().state.clone();
        Ok(MemoryTransaction { writes: self.read(), state, _writer: writer })
    }

    async fn service(&self, fresh_group: u64) -> Result<ServiceRow, StoreError> {
        if let Some(row) = kv::service(&mut self.read())? {
            return Ok(row);
        }
        self.change(|kv| kv::service_or_new(kv, fresh_group)).await
    }

    async fn look(
        &self,
        session: u64,
        slot: u32,
    ) -> Result<Option<(SessionRow, Option<SlotRecord>)>, StoreError> {
        let kv = &mut self.read();
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
        self.change(|kv| kv::renew(kv, sessions, expires)).await
    }

    async fn kept(&self) -> Result<u64, StoreError> {
        kv::kept(&mut self.read())
    }

    async fn expired(&self, time: u64) -> Result<Vec<u64>, StoreError> {
        kv::expired(&mut self.read(), time)
    }
}

impl<T> MemoryTransaction<T> {
    fn kv(&mut self) -> &mut Writes<T> {
        &mut self.writes
    }
}

impl<T: Clone + Send + 'static> CompletionTransaction for MemoryTransaction<T> {
    type Native = T;

    fn native(&mut self) -> &mut T {
        &mut self.state
    }

    transaction_over_kv!();

    async fn commit(self) -> Result<(), StoreError> {
        let mut committed = self.writes.store.committed();
        committed.state = self.state;
        for (key, value) in self.writes.changed {
            match value {
                Some(value) => committed.rows.insert(key, value),
                None => committed.rows.remove(&key),
            };
        }
        Ok(())
    }
}

impl<T: Send> Kv for Writes<T> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(changed) = self.changed.get(key) {
            return Ok(changed.clone());
        }
        Ok(self.store.committed().rows.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.changed.insert(key.to_vec(), Some(value));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.changed.insert(key.to_vec(), None);
        Ok(())
    }

    fn scan(&mut self, prefix: &[u8]) -> Result<Entries, StoreError> {
        let from = || (Bound::Included(prefix), Bound::Unbounded);
        let begins = |key: &[u8]| key.starts_with(prefix);
        let committed = self.store.committed();
        let before = committed.rows.range::<[u8], _>(from());
        let mut found: BTreeMap<_, _> = before
            .take_while(|(key, _)| begins(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let changed = self.changed.range::<[u8], _>(from());
        for (key, value) in changed.take_while(|(key, _)| begins(key)) {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }
}

impl<T> Shared<T> {
    fn committed(&self) -> MutexGuard<'_, Committed<T>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Memory<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
