//! The simulated database as one server reaches it: over a way that takes time and is cut, in
//! transactions that the server may leave halfway, with commits of which it may not learn the end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_completion::store::{
    CompletionStore, CompletionTransaction, Counts, ServiceRow, SessionRow, StoreError,
};
use stubborn_core::random::Random;
use stubborn_core::session::{SlotPosition, SlotRecord, SlotReport};
use stubborn_core::time::Instant;

use super::database::{Database, End, Stop, TxId};
use super::ledger::Effect;
use super::trouble::Trouble;
use crate::world::{World, millis};

/// A database and how it fares. Clones share it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Inside>>);

pub(super) struct Inside {
    pub(super) database: Database,
    pub(super) trouble: Trouble,
    pub(super) random: Random,
}

impl Shared {
    pub(super) fn new(database: Database, trouble: Trouble, random: Random) -> Self {
        Self(Arc::new(Mutex::new(Inside { database, trouble, random })))
    }

    /// Nobody's code may run while the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The database as one server reaches it.
#[derive(Clone)]
pub(super) struct SimStore {
    world: World,
    shared: Shared,
    server: String,
}

pub(super) struct SimTransaction {
    store: SimStore,
    id: TxId,
    /// The way to the database was cut: the database will notice, too.
    lost: bool,
    /// Its commit was asked for.
    commits: bool,
}

impl SimStore {
    pub(super) fn new(world: &World, shared: &Shared, server: &str) -> Self {
        Self { world: world.clone(), shared: shared.clone(), server: server.to_owned() }
    }

    /// The way to the database or back.
    async fn travel(&self) {
        let takes = {
            let Inside { trouble, random, .. } = &mut *self.shared.lock();
            trouble.takes(random)
        };
        self.world.sleep(takes).await;
    }

    /// Gets to the database.
    async fn reach(&self) -> Result<(), StoreError> {
        self.travel().await;
        let now = self.world.now();
        if self.shared.lock().trouble.is_away(&self.server, now) {
            self.world.sleep(millis(5)).await;
            self.shared.lock().database.ledger.counts.unavailable += 1;
            return Err(StoreError::Unavailable("the way to it is cut".into()));
        }
        Ok(())
    }

    /// Asks the database, again as long as another transaction has a lock that this waits for.
    async fn ask<T>(
        &self,
        what: &'static str,
        mut act: impl FnMut(&mut Database, Instant) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        let answer = loop {
            let now = self.world.now();
            let answer = act(&mut self.shared.lock().database, now);
            match answer {
                Ok(value) => break Ok(value),
                Err(Stop::Fails(error)) => break Err(error),
                Err(Stop::Waits) => self.world.sleep(millis(3)).await,
            }
        };
        self.note(what, answer.as_ref().err());
        self.travel().await;
        answer
    }

    fn note(&self, what: &'static str, error: Option<&StoreError>) {
        let word = what.len() as u64 * 2 + u64::from(error.is_some());
        let server = &self.server;
        self.world.state().note(word, || match error {
            None => format!("{server}'s database: {what}"),
            Some(error) => format!("{server}'s database: {what}: {error}"),
        });
    }
}

impl CompletionStore for SimStore {
    type Transaction = SimTransaction;

    async fn begin(&self) -> Result<SimTransaction, StoreError> {
        self.reach().await?;
        let id = self.shared.lock().database.begin(self.world.now());
        let tx = SimTransaction { store: self.clone(), id, lost: false, commits: false };
        self.travel().await;
        Ok(tx)
    }

    async fn service(&self, _: u64) -> Result<ServiceRow, StoreError> {
        self.reach().await?;
        self.ask("service", |db, now| {
            db.settle(now);
            Ok(db.committed.service)
        })
        .await
    }

    async fn look(
        &self,
        session: u64,
        slot: u32,
    ) -> Result<Option<(SessionRow, Option<SlotRecord>)>, StoreError> {
        self.reach().await?;
        self.ask("look", |db, now| Ok(db.look(now, session, slot))).await
    }

    async fn make_slot(&self, session: u64, slot: u32) -> Result<(), StoreError> {
        self.reach().await?;
        self.ask("make slot", |db, now| db.make_slot(now, session, slot)).await
    }

    async fn advance(&self, seen: u64, by: u64) -> Result<u64, StoreError> {
        self.reach().await?;
        self.ask("advance", |db, now| db.advance(now, seen, by)).await
    }

    async fn renew(&self, sessions: &[u64], expires: u64) -> Result<(), StoreError> {
        for session in sessions {
            self.reach().await?;
            self.ask("renew", |db, now| db.renew(now, *session, expires)).await?;
        }
        Ok(())
    }

    async fn kept(&self) -> Result<u64, StoreError> {
        self.reach().await?;
        self.ask("kept", |db, now| {
            db.settle(now);
            Ok(db.committed.kept())
        })
        .await
    }

    async fn expired(&self, time: u64) -> Result<Vec<u64>, StoreError> {
        self.reach().await?;
        self.ask("expired", |db, now| Ok(db.expired(now, time))).await
    }
}

impl SimTransaction {
    /// A statement.
    async fn ask<T>(
        &mut self,
        what: &'static str,
        mut act: impl FnMut(&mut Database, TxId) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        if self.lost {
            return Err(StoreError::Unavailable("the connection is closed".into()));
        }
        self.lost = true; // also if this is dropped on the way
        self.store.reach().await?;
        self.lost = false;
        let id = self.id;
        self.store.ask(what, |db, now| db.act(id, now, &mut act)).await
    }

    /// A row of the application's, as a handler writes it.
    pub(super) async fn insert(&mut self, effect: Effect) -> Result<(), StoreError> {
        self.ask("insert", |db, id| db.insert_effect(id, effect)).await
    }

    /// The commit has come to the database.
    fn commit_there(&mut self) -> Result<(), StoreError> {
        let now = self.store.world.now();
        let Inside { database, trouble, random } = &mut *self.store.shared.lock();
        database.settle(now);
        let fate = match (self.lost, trouble.is_away(&self.store.server, now)) {
            // It is not asked for over a connection that is closed.
            (true, _) => Fate::Unknown(End::Rollback, trouble.notices(random)),
            (false, true) => trouble.cut_commit(random),
            (false, false) => trouble.commit(random),
        };
        let unknown = || Err(StoreError::Unknown("the connection was lost".into()));
        let counts = &mut database.ledger.counts;
        match fate {
            Fate::Fails => {
                counts.failed_commits += 1;
                database.end(self.id, End::Rollback, now);
                Err(StoreError::Unavailable("could not serialize".into()))
            }
            Fate::Unknown(end, later) if later.is_zero() => {
                counts.unknown_commits += 1;
                database.end(self.id, end, now);
                unknown()
            }
            Fate::Unknown(end, later) => {
                counts.late_commits += u64::from(end == End::Commit);
                database.leave(self.id, now + later, end);
                unknown()
            }
            Fate::Happens if database.end(self.id, End::Commit, now) => Ok(()),
            // The database has ended it before.
            Fate::Happens => unknown(),
        }
    }
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Happens,
    /// It fails, and that is known.
    Fails,
    /// The server does not learn how the transaction ended, or ends so much later.
    Unknown(End, Duration),
}

impl CompletionTransaction for SimTransaction {
    type Native = Self;

    fn native(&mut self) -> &mut Self {
        self
    }

    async fn lock_service(&mut self) -> Result<ServiceRow, StoreError> {
        self.ask("lock service", Database::lock_service).await
    }

    async fn save_service(&mut self, row: &ServiceRow) -> Result<(), StoreError> {
        self.ask("save service", |db, id| db.save_service(id, *row)).await
    }

    async fn count(&mut self, account: &[u8]) -> Result<Counts, StoreError> {
        self.ask("count", |db, id| Ok(db.count(id, account))).await
    }

    async fn spare(
        &mut self,
        account: Option<&[u8]>,
        before: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.ask("spare", |db, id| Ok(db.spare(id, account, before))).await
    }

    async fn opened_with(&mut self, nonce: &[u8]) -> Result<Option<u64>, StoreError> {
        self.ask("opened with", |db, id| Ok(db.opened_with(id, nonce))).await
    }

    async fn insert_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
        self.ask("insert session", |db, id| db.insert_session(id, row.clone())).await
    }

    async fn lock_session(&mut self, session: u64) -> Result<Option<SessionRow>, StoreError> {
        self.ask("lock session", |db, id| db.lock_session(id, session)).await
    }

    async fn save_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
        self.ask("save session", |db, id| db.save_session(id, row.clone())).await
    }

    async fn delete_session(&mut self, session: u64) -> Result<(), StoreError> {
        self.ask("delete session", |db, id| db.delete_session(id, session)).await
    }

    async fn reports(&mut self, session: u64) -> Result<Vec<SlotReport>, StoreError> {
        self.ask("reports", |db, id| Ok(db.reports(id, session))).await
    }

    async fn lock_slot(
        &mut self,
        session: u64,
        slot: u32,
    ) -> Result<Option<(SessionRow, SlotRecord)>, StoreError> {
        self.ask("lock slot", |db, id| db.lock_slot(id, session, slot)).await
    }

    async fn save_slot(
        &mut self,
        session: u64,
        slot: u32,
        record: &SlotRecord,
    ) -> Result<(), StoreError> {
        self.ask("save slot", |db, id| db.save_slot(id, session, slot, record.clone())).await
    }

    async fn release(&mut self, session: u64, list: &[SlotPosition]) -> Result<(), StoreError> {
        self.ask("release", |db, id| db.release(id, session, list)).await
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        self.commits = true;
        self.store.travel().await;
        let committed = self.commit_there();
        self.commits = false;
        self.store.note("commit", committed.as_ref().err());
        self.store.travel().await;
        committed
    }
}

impl Drop for SimTransaction {
    /// Its server has dropped it or died. The database ends it now, or when it notices; a commit that is
    /// on its way may arrive.
    fn drop(&mut self) {
        let now = self.store.world.now();
        let Inside { database, trouble, random } = &mut *self.store.shared.lock();
        let (end, later) = match (self.commits, self.lost) {
            (true, _) => trouble.left_commit(random),
            (false, true) => (End::Rollback, trouble.notices(random)),
            (false, false) => (End::Rollback, trouble.rolls_back(random)),
        };
        if later.is_zero() {
            database.abandon(self.id, now, end);
        } else {
            database.leave(self.id, now + later, end);
        }
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.server)
    }
}
