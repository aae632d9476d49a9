//! A store that fails, or waits, where a test wants.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use stubborn_completion::CompletionError;
use stubborn_completion::store::{
    CompletionStore, CompletionTransaction, Counts, ServiceRow, SessionRow, StoreError,
};
use stubborn_core::session::{SlotPosition, SlotRecord, SlotReport};

use super::Till;

/// A place between two steps of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Look,
    Begin,
    LockSlot,
    SlotLocked,
    SaveSlot,
    SlotSaved,
    Commit,
    Committed,
    /// The same of a transaction that opens, attaches or forgets a session.
    SessionCommit,
    SessionCommitted,
}

/// All of them, in the order in which a call comes by.
pub const STEPS: [Step; 8] = [
    Step::Look,
    Step::Begin,
    Step::LockSlot,
    Step::SlotLocked,
    Step::SaveSlot,
    Step::SlotSaved,
    Step::Commit,
    Step::Committed,
];

pub type Waiting = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// Is asked at each step, and may fail it or never return.
pub type Hook = Arc<dyn Fn(Step) -> Waiting + Send + Sync>;

#[derive(Clone)]
pub struct Faulty<S> {
    pub inner: S,
    pub hook: Hook,
}

impl<S> Faulty<S> {
    pub fn new<F>(inner: S, hook: impl Fn(Step) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        Self { inner, hook: Arc::new(move |step| Box::pin(hook(step))) }
    }
}

pub struct FaultyTransaction<T> {
    inner: T,
    hook: Hook,
    /// It is about a slot: openings and the like are left alone.
    of_slot: bool,
}

impl<S: CompletionStore> CompletionStore for Faulty<S> {
    type Transaction = FaultyTransaction<S::Transaction>;

    async fn begin(&self) -> Result<Self::Transaction, StoreError> {
        (self.hook)(Step::Begin).await?;
        let inner = self.inner.begin().await?;
        Ok(FaultyTransaction { inner, hook: Arc::clone(&self.hook), of_slot: false })
    }

    async fn service(&self, fresh_group: u64) -> Result<ServiceRow, StoreError> {
        self.inner.service(fresh_group).await
    }

    async fn look(
        &self,
        session: u64,
        slot: u32,
    ) -> Result<Option<(SessionRow, Option<SlotRecord>)>, StoreError> {
        (self.hook)(Step::Look).await?;
        self.inner.look(session, slot).await
    }

    async fn make_slot(&self, session: u64, slot: u32) -> Result<(), StoreError> {
        self.inner.make_slot(session, slot).await
    }

    async fn advance(&self, seen: u64, by: u64) -> Result<u64, StoreError> {
        self.inner.advance(seen, by).await
    }

    async fn renew(&self, sessions: &[u64], expires: u64) -> Result<(), StoreError> {
        self.inner.renew(sessions, expires).await
    }

    async fn kept(&self) -> Result<u64, StoreError> {
        self.inner.kept().await
    }

    async fn expired(&self, time: u64) -> Result<Vec<u64>, StoreError> {
        self.inner.expired(time).await
    }
}

impl<T: CompletionTransaction> CompletionTransaction for FaultyTransaction<T> {
    type Native = T::Native;

    fn native(&mut self) -> &mut T::Native {
        self.inner.native()
    }

    async fn lock_service(&mut self) -> Result<ServiceRow, StoreError> {
        self.inner.lock_service().await
    }

    async fn save_service(&mut self, row: &ServiceRow) -> Result<(), StoreError> {
        self.inner.save_service(row).await
    }

    async fn count(&mut self, account: &[u8]) -> Result<Counts, StoreError> {
        self.inner.count(account).await
    }

    async fn spare(
        &mut self,
        account: Option<&[u8]>,
        before: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.inner.spare(account, before).await
    }

    async fn opened_with(&mut self, nonce: &[u8]) -> Result<Option<u64>, StoreError> {
        self.inner.opened_with(nonce).await
    }

    async fn insert_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
        self.inner.insert_session(row).await
    }

    async fn lock_session(&mut self, session: u64) -> Result<Option<SessionRow>, StoreError> {
        self.inner.lock_session(session).await
    }

    async fn save_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
        self.inner.save_session(row).await
    }

    async fn delete_session(&mut self, session: u64) -> Result<(), StoreError> {
        self.inner.delete_session(session).await
    }

    async fn reports(&mut self, session: u64) -> Result<Vec<SlotReport>, StoreError> {
        self.inner.reports(session).await
    }

    async fn lock_slot(
        &mut self,
        session: u64,
        slot: u32,
    ) -> Result<Option<(SessionRow, SlotRecord)>, StoreError> {
        self.of_slot = true;
        (self.hook)(Step::LockSlot).await?;
        let locked = self.inner.lock_slot(session, slot).await?;
        (self.hook)(Step::SlotLocked).await?;
        Ok(locked)
    }

    async fn save_slot(
        &mut self,
        session: u64,
        slot: u32,
        record: &SlotRecord,
    ) -> Result<(), StoreError> {
        (self.hook)(Step::SaveSlot).await?;
        self.inner.save_slot(session, slot, record).await?;
        (self.hook)(Step::SlotSaved).await
    }

    async fn release(&mut self, session: u64, list: &[SlotPosition]) -> Result<(), StoreError> {
        self.inner.release(session, list).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        if !self.of_slot {
            (self.hook)(Step::SessionCommit).await?;
            self.inner.commit().await?;
            return (self.hook)(Step::SessionCommitted).await;
        }
        (self.hook)(Step::Commit).await?;
        self.inner.commit().await?;
        (self.hook)(Step::Committed).await
    }
}

impl<S: Till> Till for Faulty<S> {
    fn add(
        native: &mut <S::Transaction as CompletionTransaction>::Native,
        amount: i64,
    ) -> impl Future<Output = Result<i64, CompletionError>> + Send {
        S::add(native, amount)
    }

    async fn total(&self) -> i64 {
        self.inner.total().await
    }
}

impl<S> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}
