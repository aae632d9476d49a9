//! The rows, and what statements do to them.

use std::collections::{BTreeMap, BTreeSet};

use stubborn_completion::StoreError;
use stubborn_completion::store::{Counts, ServiceRow, SessionRow};
use stubborn_core::session::{RecordedState, SlotPosition, SlotRecord, SlotReport, SlotState};
use stubborn_core::time::Instant;

use super::{Database, Lock, Stop, TxId};
use crate::completions::ledger::Effect;

/// What was committed.
pub(in crate::completions) struct Rows {
    pub(in crate::completions) service: ServiceRow,
    pub(in crate::completions) sessions: BTreeMap<u64, SessionRow>,
    pub(in crate::completions) slots: BTreeMap<(u64, u32), SlotRecord>,
    /// Numbers of sessions that were removed.
    pub(in crate::completions) removed: BTreeSet<u64>,
}

/// What a transaction has changed and not committed; `None` for a row that it removed.
#[derive(Default)]
pub(super) struct Changes {
    service: Option<ServiceRow>,
    sessions: BTreeMap<u64, Option<SessionRow>>,
    slots: BTreeMap<(u64, u32), Option<SlotRecord>>,
    pub(super) effects: Vec<Effect>,
}

impl Rows {
    pub(super) fn new(group: u64) -> Self {
        Self {
            service: ServiceRow { group, time: 0, next_session: 1 },
            sessions: BTreeMap::new(),
            slots: BTreeMap::new(),
            removed: BTreeSet::new(),
        }
    }

    /// Bytes of the replies that are kept.
    pub(in crate::completions) fn kept(&self) -> u64 {
        let bytes = |record: &SlotRecord| match &record.state {
            RecordedState::Done { reply, .. } => reply.len() as u64,
            _ => 0,
        };
        self.slots.values().map(bytes).sum()
    }

    fn expired(&self, time: u64) -> Vec<u64> {
        let rows = self.sessions.values().filter(|row| row.expires <= time);
        rows.map(|row| row.number).take(1_000).collect()
    }
}

impl Changes {
    pub(super) fn apply(self, rows: &mut Rows) -> Vec<Effect> {
        if let Some(service) = self.service {
            // Servers move its time on meanwhile only if this transaction did not lock it.
            rows.service = service;
        }
        for (number, row) in self.sessions {
            match row {
                Some(row) => drop(rows.sessions.insert(number, row)),
                None => {
                    rows.sessions.remove(&number);
                    rows.removed.insert(number);
                }
            }
        }
        for (key, record) in self.slots {
            match record {
                Some(record) => rows.slots.insert(key, record),
                None => rows.slots.remove(&key),
            };
        }
        self.effects
    }
}

/// Statements outside transactions: each is one of its own.
impl Database {
    pub(in crate::completions) fn look(
        &mut self,
        now: Instant,
        session: u64,
        slot: u32,
    ) -> Option<(SessionRow, Option<SlotRecord>)> {
        self.settle(now);
        let row = self.committed.sessions.get(&session)?.clone();
        Some((row, self.committed.slots.get(&(session, slot)).cloned()))
    }

    pub(in crate::completions) fn make_slot(
        &mut self,
        now: Instant,
        session: u64,
        slot: u32,
    ) -> Result<(), Stop> {
        self.settle(now);
        let removes = |changes: &Changes| matches!(changes.sessions.get(&session), Some(None));
        if self.open.values().any(|open| removes(&open.changes)) {
            return Err(Stop::Waits);
        }
        if self.committed.sessions.contains_key(&session) {
            self.committed.slots.entry((session, slot)).or_insert(SlotRecord::UNUSED);
        }
        Ok(())
    }

    pub(in crate::completions) fn advance(
        &mut self,
        now: Instant,
        seen: u64,
        by: u64,
    ) -> Result<u64, Stop> {
        self.free(now, Lock::Service)?;
        let time = &mut self.committed.service.time;
        if *time == seen {
            *time += by;
        }
        Ok(*time)
    }

    pub(in crate::completions) fn renew(
        &mut self,
        now: Instant,
        session: u64,
        expires: u64,
    ) -> Result<(), Stop> {
        self.free(now, Lock::Session(session))?;
        if let Some(row) = self.committed.sessions.get_mut(&session)
            && !row.is_closed()
        {
            row.expires = row.expires.max(expires);
        }
        Ok(())
    }

    pub(in crate::completions) fn expired(&mut self, now: Instant, time: u64) -> Vec<u64> {
        self.settle(now);
        self.committed.expired(time)
    }
}

/// Statements of a transaction, which is there.
impl Database {
    pub(in crate::completions) fn lock_service(&mut self, id: TxId) -> Result<ServiceRow, Stop> {
        self.lock_or_wait(id, Lock::Service)?;
        Ok(self.living(id)?.changes.service.unwrap_or(self.committed.service))
    }

    pub(in crate::completions) fn save_service(
        &mut self,
        id: TxId,
        row: ServiceRow,
    ) -> Result<(), Stop> {
        self.lock_or_wait(id, Lock::Service)?;
        self.living(id)?.changes.service = Some(row);
        Ok(())
    }

    /// The sessions as the transaction sees them.
    fn sessions(&self, id: TxId) -> BTreeMap<u64, &SessionRow> {
        let rows = self.committed.sessions.iter();
        let mut rows: BTreeMap<_, _> = rows.map(|(number, row)| (*number, row)).collect();
        let changed = self.open.get(&id).into_iter().flat_map(|open| &open.changes.sessions);
        for (number, row) in changed {
            match row {
                Some(row) => rows.insert(*number, row),
                None => rows.remove(number),
            };
        }
        rows
    }

    fn session(&self, id: TxId, number: u64) -> Option<SessionRow> {
        let changed = self.open.get(&id).and_then(|open| open.changes.sessions.get(&number));
        match changed {
            Some(row) => row.clone(),
            None => self.committed.sessions.get(&number).cloned(),
        }
    }

    /// The slots of a session as the transaction sees them.
    fn slots(&self, id: TxId, session: u64) -> BTreeMap<u32, SlotRecord> {
        let range = (session, 0)..=(session, u32::MAX);
        let rows = self.committed.slots.range(range.clone());
        let mut rows: BTreeMap<_, _> = rows.map(|((_, slot), row)| (*slot, row.clone())).collect();
        let changed = self.open.get(&id).map(|open| open.changes.slots.range(range));
        for ((_, slot), row) in changed.into_iter().flatten() {
            match row {
                Some(row) => rows.insert(*slot, row.clone()),
                None => rows.remove(slot),
            };
        }
        rows
    }

    pub(in crate::completions) fn count(&mut self, id: TxId, account: &[u8]) -> Counts {
        let rows = self.sessions(id);
        let of_account = rows.values().filter(|row| row.account == account).count() as u64;
        let slots = rows.values().map(|row| u64::from(row.slots)).sum();
        Counts { of_account, sessions: rows.len() as u64, slots }
    }

    pub(in crate::completions) fn spare(
        &mut self,
        id: TxId,
        account: Option<&[u8]>,
        before: u64,
    ) -> Option<u64> {
        let unsettled = |number: u64| {
            self.slots(id, number).values().any(|record| {
                !matches!(record.state, RecordedState::Idle | RecordedState::Released)
            })
        };
        let rows = self.sessions(id);
        let spare = rows.values().filter(|row| {
            row.expires <= before
                && account.is_none_or(|account| row.account == account)
                && !unsettled(row.number)
        });
        spare.min_by_key(|row| (row.expires, row.number)).map(|row| row.number)
    }

    pub(in crate::completions) fn opened_with(&mut self, id: TxId, nonce: &[u8]) -> Option<u64> {
        self.sessions(id).values().find(|row| row.nonce == nonce).map(|row| row.number)
    }

    pub(in crate::completions) fn insert_session(
        &mut self,
        id: TxId,
        row: SessionRow,
    ) -> Result<(), Stop> {
        self.lock_or_wait(id, Lock::Session(row.number))?;
        self.living(id)?.changes.sessions.insert(row.number, Some(row));
        Ok(())
    }

    pub(in crate::completions) fn lock_session(
        &mut self,
        id: TxId,
        number: u64,
    ) -> Result<Option<SessionRow>, Stop> {
        if self.session(id, number).is_none() {
            return Ok(None);
        }
        self.lock_or_wait(id, Lock::Session(number))?;
        Ok(self.session(id, number))
    }

    pub(in crate::completions) fn save_session(
        &mut self,
        id: TxId,
        row: SessionRow,
    ) -> Result<(), Stop> {
        self.lock_or_wait(id, Lock::Session(row.number))?;
        if self.session(id, row.number).is_some() {
            self.living(id)?.changes.sessions.insert(row.number, Some(row));
        }
        Ok(())
    }

    pub(in crate::completions) fn delete_session(
        &mut self,
        id: TxId,
        number: u64,
    ) -> Result<(), Stop> {
        let slots: Vec<u32> = self.slots(id, number).into_keys().collect();
        for slot in &slots {
            self.lock_at_once(id, Lock::Slot(number, *slot))?;
        }
        self.lock_or_wait(id, Lock::Session(number))?;
        let changes = &mut self.living(id)?.changes;
        changes.slots.extend(slots.into_iter().map(|slot| ((number, slot), None)));
        changes.sessions.insert(number, None);
        Ok(())
    }

    pub(in crate::completions) fn reports(&mut self, id: TxId, session: u64) -> Vec<SlotReport> {
        let state = |state: &RecordedState| match state {
            RecordedState::Idle => SlotState::Idle,
            RecordedState::Done { .. } => SlotState::Done,
            RecordedState::NotKept { .. } => SlotState::NotKept,
            RecordedState::Released => SlotState::Released,
            RecordedState::Fenced(_) => SlotState::Fenced,
        };
        let report = |(slot, record): (u32, SlotRecord)| SlotReport {
            slot,
            sequence: record.sequence,
            state: state(&record.state),
        };
        self.slots(id, session).into_iter().map(report).collect()
    }

    pub(in crate::completions) fn lock_slot(
        &mut self,
        id: TxId,
        session: u64,
        slot: u32,
    ) -> Result<Option<(SessionRow, SlotRecord)>, Stop> {
        if !self.slots(id, session).contains_key(&slot) {
            return Ok(None);
        }
        self.lock_at_once(id, Lock::Slot(session, slot))?;
        let record = self.slots(id, session).remove(&slot);
        Ok(self.session(id, session).zip(record))
    }

    pub(in crate::completions) fn save_slot(
        &mut self,
        id: TxId,
        session: u64,
        slot: u32,
        record: SlotRecord,
    ) -> Result<(), Stop> {
        if self.locks.get(&Lock::Slot(session, slot)) != Some(&id) {
            let why = "a slot is written that is not locked";
            return Err(Stop::Fails(StoreError::Broken(why.into())));
        }
        self.living(id)?.changes.slots.insert((session, slot), Some(record));
        Ok(())
    }

    pub(in crate::completions) fn release(
        &mut self,
        id: TxId,
        session: u64,
        list: &[SlotPosition],
    ) -> Result<(), Stop> {
        for position in list {
            let key = (session, position.slot);
            let found = self.slots(id, session).remove(&position.slot);
            let fits = found.is_some_and(|record| {
                record.sequence == position.sequence && record.state != RecordedState::Idle
            });
            if fits && self.try_lock(id, Lock::Slot(session, position.slot)).is_ok() {
                let (sequence, state) = (position.sequence, RecordedState::Released);
                let released = SlotRecord { sequence, state };
                self.living(id)?.changes.slots.insert(key, Some(released));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn row_for_tests(number: u64) -> SessionRow {
    use stubborn_core::session::{Owner, SessionSecret};
    SessionRow {
        number,
        owner: Owner::Anonymous(SessionSecret::new([1; 32])),
        nonce: vec![1],
        account: vec![1],
        epoch: 1,
        holder: None,
        slots: 1,
        expires: 1_000,
    }
}
