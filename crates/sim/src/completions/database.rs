//! A database as several servers share it: rows, transactions that lock them, and transactions that
//! nobody has in hand any more. It behaves as PostgreSQL does at READ COMMITTED.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stubborn_completion::StoreError;
use stubborn_core::session::CallId;
use stubborn_core::time::Instant;

use super::ledger::{Effect, Ledger, Told};
use crate::oracle::calls::Token;
use rows::Changes;
pub(super) use rows::Rows;

/// Names a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TxId(pub(super) u64);

/// What a transaction locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lock {
    Service,
    Session(u64),
    Slot(u64, u32),
}

/// Why a statement has no result yet, or none at all.
#[derive(Debug)]
pub(super) enum Stop {
    /// Another transaction has a lock that it waits for.
    Waits,
    Fails(StoreError),
}

/// What becomes of a transaction that nobody has in hand any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Commit,
    Rollback,
}

pub(super) struct Database {
    pub(super) committed: Rows,
    pub(super) ledger: Ledger,
    open: BTreeMap<TxId, Open>,
    locks: BTreeMap<Lock, TxId>,
    next: u64,
    /// How long nothing may happen in a transaction.
    pub(super) idle: Duration,
}

/// A transaction that has not ended.
struct Open {
    changes: Changes,
    /// When the database last heard of it.
    heard: Instant,
    /// A statement of it has failed: it can only be rolled back.
    broken: bool,
    waits_for: Option<TxId>,
    /// When it ends, with nobody waiting for that.
    ends: Option<(Instant, End)>,
}

impl Database {
    pub(super) fn new(group: u64, idle: Duration) -> Self {
        Self {
            committed: Rows::new(group),
            ledger: Ledger::default(),
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            next: 0,
            idle,
        }
    }

    /// Transactions that have not ended.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn begin(&mut self, now: Instant) -> TxId {
        self.settle(now);
        self.next += 1;
        let id = TxId(self.next);
        let open = Open {
            changes: Changes::default(),
            heard: now,
            broken: false,
            waits_for: None,
            ends: None,
        };
        self.open.insert(id, open);
        id
    }

    /// Ends the transactions whose time has come: those that were left to themselves, and those in which
    /// nothing has happened for too long.
    pub(super) fn settle(&mut self, now: Instant) {
        let idle = self.idle;
        let end_of = |open: &Open| {
            let killed = (open.heard + idle, End::Rollback);
            open.ends.filter(|(at, _)| *at <= killed.0).unwrap_or(killed)
        };
        loop {
            let ends = self.open.iter().map(|(id, open)| (end_of(open), *id));
            let next = ends.min_by_key(|((at, _), id)| (*at, *id));
            let Some(((at, end), id)) = next.filter(|((at, _), _)| *at <= now) else { return };
            let left = self.open.get(&id).is_some_and(|open| open.ends.is_some());
            self.ledger.counts.killed_idle += u64::from(!left);
            self.end(id, end, at);
        }
    }

    /// Ends a transaction. False if it has ended before.
    pub(super) fn end(&mut self, id: TxId, end: End, at: Instant) -> bool {
        let Some(open) = self.open.remove(&id) else { return false };
        self.locks.retain(|_, holder| *holder != id);
        if end == End::Commit && !open.broken {
            let effects = open.changes.apply(&mut self.committed);
            for effect in effects {
                self.ledger.takes_effect(effect, at);
            }
        }
        true
    }

    /// Nobody has the transaction in hand any more; it ends so at this time, unless that was settled
    /// before.
    pub(super) fn leave(&mut self, id: TxId, at: Instant, end: End) {
        if let Some(open) = self.open.get_mut(&id) {
            open.ends.get_or_insert((at, end));
        }
    }

    /// Nobody has the transaction in hand any more, and nothing comes for it: it ends now, unless how it
    /// ends was settled before.
    pub(super) fn abandon(&mut self, id: TxId, now: Instant, end: End) {
        if self.open.get(&id).is_some_and(|open| open.ends.is_none()) {
            self.end(id, end, now);
        }
    }

    /// A statement of a transaction. What fails breaks the transaction.
    pub(super) fn act<T>(
        &mut self,
        id: TxId,
        now: Instant,
        act: impl FnOnce(&mut Self, TxId) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.settle(now);
        let open = self.living(id)?;
        open.heard = now;
        open.waits_for = None;
        if open.broken {
            let why = "the transaction is aborted";
            return Err(Stop::Fails(StoreError::Broken(why.into())));
        }
        let result = act(self, id);
        if let (Err(Stop::Fails(_)), Some(open)) = (&result, self.open.get_mut(&id)) {
            open.broken = true;
        }
        result
    }

    /// A client is told how its call ended.
    pub(super) fn told(&mut self, call: (Token, Option<CallId>), told: Told, now: Instant) {
        self.settle(now);
        self.ledger.told(call, told, &self.committed.removed, now);
    }

    /// The changes of an application.
    pub(super) fn insert_effect(&mut self, id: TxId, effect: Effect) -> Result<(), Stop> {
        self.living(id)?.changes.effects.push(effect);
        Ok(())
    }

    fn living(&mut self, id: TxId) -> Result<&mut Open, Stop> {
        self.open.get_mut(&id).ok_or_else(|| {
            Stop::Fails(StoreError::Unavailable("the database has ended the transaction".into()))
        })
    }

    // --- locks -----------------------------------------------------------------------------------

    /// Takes a lock, or tells who has it.
    fn try_lock(&mut self, id: TxId, lock: Lock) -> Result<(), TxId> {
        let holder = *self.locks.entry(lock).or_insert(id);
        if holder == id { Ok(()) } else { Err(holder) }
    }

    fn lock_or_wait(&mut self, id: TxId, lock: Lock) -> Result<(), Stop> {
        let Err(holder) = self.try_lock(id, lock) else { return Ok(()) };
        let (mut next, mut seen) = (Some(holder), BTreeSet::new());
        while let Some(other) = next.filter(|other| seen.insert(*other)) {
            if other == id {
                return Err(Stop::Fails(StoreError::Unavailable("deadlock".into())));
            }
            next = self.open.get(&other).and_then(|open| open.waits_for);
        }
        if let Some(open) = self.open.get_mut(&id) {
            open.waits_for = Some(holder);
        }
        Err(Stop::Waits)
    }

    fn lock_at_once(&mut self, id: TxId, lock: Lock) -> Result<(), Stop> {
        self.try_lock(id, lock).map_err(|_| {
            self.ledger.counts.locked += 1;
            Stop::Fails(StoreError::Locked)
        })
    }

    /// For a statement outside a transaction.
    fn free(&mut self, now: Instant, lock: Lock) -> Result<(), Stop> {
        self.settle(now);
        if self.locks.contains_key(&lock) { Err(Stop::Waits) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::session::SlotRecord;

    use super::*;
    use crate::completions::ledger::effect_for_tests;

    const ZERO: Instant = Instant::ZERO;
    const IDLE: Duration = Duration::from_secs(10);

    /// With a session, number 1, that has used slot 0.
    fn database() -> Database {
        let mut db = Database::new(0x100, IDLE);
        db.committed.sessions.insert(1, rows::row_for_tests(1));
        db.committed.slots.insert((1, 0), SlotRecord::UNUSED);
        db
    }

    fn lock_slot(db: &mut Database, id: TxId, now: Instant) -> bool {
        db.act(id, now, |db, id| db.lock_slot(id, 1, 0)).is_ok()
    }

    #[test]
    fn a_row_has_one_locker_until_its_transaction_ends() {
        let mut db = database();
        let [first, second] = [db.begin(ZERO), db.begin(ZERO)];
        assert!(lock_slot(&mut db, first, ZERO));
        assert!(!lock_slot(&mut db, second, ZERO));
        assert!(db.end(first, End::Rollback, ZERO));
        let third = db.begin(ZERO);
        assert!(lock_slot(&mut db, third, ZERO));
        assert!(
            !lock_slot(&mut db, second, ZERO),
            "a transaction whose statement failed is broken"
        );
    }

    #[test]
    fn a_transaction_in_which_nothing_happens_is_ended_and_can_do_nothing_more() {
        let mut db = database();
        let first = db.begin(ZERO);
        assert!(lock_slot(&mut db, first, ZERO));
        let second = db.begin(ZERO + IDLE);
        assert!(lock_slot(&mut db, second, ZERO + IDLE));
        assert!(!lock_slot(&mut db, first, ZERO + IDLE));
        assert!(!db.end(first, End::Commit, ZERO + IDLE));
    }

    #[test]
    fn a_commit_that_is_under_way_keeps_its_locks_until_it_happens() {
        let mut db = database();
        let first = db.begin(ZERO);
        assert!(lock_slot(&mut db, first, ZERO));
        let effect = effect_for_tests(&mut db.ledger);
        db.act(first, ZERO, |db, id| db.insert_effect(id, effect)).unwrap();
        let at = ZERO + Duration::from_secs(3);
        db.leave(first, at, End::Commit);
        let second = db.begin(ZERO);
        assert!(!lock_slot(&mut db, second, ZERO));
        assert_eq!(db.ledger.effects_of(effect.token), 0);
        db.settle(at);
        assert_eq!(db.ledger.effects_of(effect.token), 1);
        let third = db.begin(at);
        assert!(lock_slot(&mut db, third, at));
    }

    #[test]
    fn transactions_that_wait_for_each_other_are_told() {
        let mut db = database();
        let [first, second] = [db.begin(ZERO), db.begin(ZERO)];
        let session = |db: &mut Database, id| db.act(id, ZERO, |db, id| db.lock_session(id, 1));
        let service = |db: &mut Database, id| db.act(id, ZERO, Database::lock_service);
        assert!(session(&mut db, first).is_ok() && service(&mut db, second).is_ok());
        assert!(matches!(service(&mut db, first), Err(Stop::Waits)));
        assert!(matches!(session(&mut db, second), Err(Stop::Fails(StoreError::Unavailable(_)))));
    }
}
