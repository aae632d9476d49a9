//! A [`CompletionTransaction`] over ordered keys and values, for databases without SQL.
//!
//! Keys, all numbers in big-endian order: `"g"` is the row of all sessions; `"n" session` a session;
//! `"o" nonce` the number of the session that it opened; `"s" session slot` a slot.

use stubborn_core::session::{RecordedState, SlotPosition, SlotRecord, SlotReport};

use crate::row::{self, Columns};
use crate::store::{Counts, ServiceRow, SessionRow, StoreError};

/// Keys and their values.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Values that a transaction reads and writes; what it wrote it reads.
pub(crate) trait Kv: Send {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError>;
    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError>;
    /// Keys and values that begin so, in the order of the keys.
    fn scan(&mut self, prefix: &[u8]) -> Result<Entries, StoreError>;
}

const SERVICE: &[u8] = b"g";
const SESSION: &[u8] = b"n";

fn session_key(session: u64) -> Vec<u8> {
    [SESSION, &session.to_be_bytes()].concat()
}

fn nonce_key(nonce: &[u8]) -> Vec<u8> {
    [b"o", nonce].concat()
}

fn slots_key(session: u64) -> Vec<u8> {
    [&b"s"[..], &session.to_be_bytes()].concat()
}

fn slot_key(session: u64, slot: u32) -> Vec<u8> {
    [&slots_key(session)[..], &slot.to_be_bytes()].concat()
}

pub(crate) fn service(kv: &mut impl Kv) -> Result<Option<ServiceRow>, StoreError> {
    let Some(value) = kv.get(SERVICE)? else { return Ok(None) };
    let mut fields = Fields(&value);
    let row = ServiceRow {
        group: fields.number()?,
        time: fields.number()?,
        next_session: fields.number()?,
    };
    fields.end().map(|()| Some(row))
}

/// The row of all sessions; made if there is none.
pub(crate) fn service_or_new(kv: &mut impl Kv, fresh: u64) -> Result<ServiceRow, StoreError> {
    if let Some(row) = service(kv)? {
        return Ok(row);
    }
    let row = ServiceRow { group: fresh, time: 0, next_session: 1 };
    save_service(kv, &row).map(|()| row)
}

pub(crate) fn save_service(kv: &mut impl Kv, row: &ServiceRow) -> Result<(), StoreError> {
    let numbers = [row.group, row.time, row.next_session].map(u64::to_be_bytes);
    kv.put(SERVICE, numbers.concat())
}

pub(crate) fn advance(kv: &mut impl Kv, seen: u64, by: u64) -> Result<u64, StoreError> {
    let mut row = service(kv)?.ok_or_else(|| StoreError::damaged("no row of its sessions"))?;
    if row.time == seen {
        row.time += by;
        save_service(kv, &row)?;
    }
    Ok(row.time)
}

pub(crate) fn renew(kv: &mut impl Kv, sessions: &[u64], expires: u64) -> Result<(), StoreError> {
    for number in sessions {
        if let Some(mut row) = session(kv, *number)?.filter(|row| !row.is_closed()) {
            row.expires = row.expires.max(expires);
            save_session(kv, &row)?;
        }
    }
    Ok(())
}

/// Reads the slots of one session after the other.
pub(crate) fn kept(kv: &mut impl Kv) -> Result<u64, StoreError> {
    let mut kept = 0;
    for row in sessions(kv)? {
        for (_, value) in kv.scan(&slots_key(row.number))? {
            if let RecordedState::Done { reply, .. } = read_slot(&value)?.record()?.state {
                kept += reply.len() as u64;
            }
        }
    }
    Ok(kept)
}

pub(crate) fn expired(kv: &mut impl Kv, time: u64) -> Result<Vec<u64>, StoreError> {
    let mut rows = sessions(kv)?;
    rows.retain(|row| row.expires <= time);
    Ok(rows.into_iter().map(|row| row.number).collect())
}

pub(crate) fn count(kv: &mut impl Kv, account: &[u8]) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    for row in sessions(kv)? {
        counts.of_account += u64::from(row.account == account);
        counts.sessions += 1;
        counts.slots += u64::from(row.slots);
    }
    Ok(counts)
}

pub(crate) fn spare(
    kv: &mut impl Kv,
    account: Option<&[u8]>,
    before: u64,
) -> Result<Option<u64>, StoreError> {
    let mut rows = sessions(kv)?;
    rows.retain(|row| {
        row.expires <= before && account.is_none_or(|account| row.account == account)
    });
    rows.sort_by_key(|row| row.expires);
    for row in rows {
        let settled = |report: &SlotReport| {
            use stubborn_core::session::SlotState::{Idle, Released};
            matches!(report.state, Idle | Released)
        };
        if reports(kv, row.number)?.iter().all(settled) {
            return Ok(Some(row.number));
        }
    }
    Ok(None)
}

pub(crate) fn opened_with(kv: &mut impl Kv, nonce: &[u8]) -> Result<Option<u64>, StoreError> {
    let Some(value) = kv.get(&nonce_key(nonce))? else { return Ok(None) };
    let mut fields = Fields(&value);
    fields.number().map(Some)
}

pub(crate) fn insert_session(kv: &mut impl Kv, row: &SessionRow) -> Result<(), StoreError> {
    kv.put(&nonce_key(&row.nonce), row.number.to_be_bytes().to_vec())?;
    save_session(kv, row)
}

pub(crate) fn session(kv: &mut impl Kv, number: u64) -> Result<Option<SessionRow>, StoreError> {
    let value = kv.get(&session_key(number))?;
    value.map(|value| read_session(number, &value)).transpose()
}

pub(crate) fn save_session(kv: &mut impl Kv, row: &SessionRow) -> Result<(), StoreError> {
    let mut out = [row.epoch, u64::from(row.slots), row.expires].map(u64::to_be_bytes).concat();
    let (certificate, secret) = row.owner_columns();
    for part in
        [&certificate.unwrap_or_default(), &secret.unwrap_or_default(), &row.nonce, &row.account]
    {
        // All are far shorter.
        out.push(u8::try_from(part.len()).map_err(|_| StoreError::damaged("a long key"))?);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(row.holder.map(u64::to_be_bytes).as_ref().map_or(&[], |holder| holder));
    kv.put(&session_key(row.number), out)
}

/// With its slots.
pub(crate) fn delete_session(kv: &mut impl Kv, number: u64) -> Result<(), StoreError> {
    let Some(row) = session(kv, number)? else { return Ok(()) };
    for (key, _) in kv.scan(&slots_key(number))? {
        kv.delete(&key)?;
    }
    kv.delete(&nonce_key(&row.nonce))?;
    kv.delete(&session_key(number))
}

pub(crate) fn reports(kv: &mut impl Kv, number: u64) -> Result<Vec<SlotReport>, StoreError> {
    let rows = kv.scan(&slots_key(number))?;
    let report = |(key, value): (Vec<u8>, Vec<u8>)| {
        let slot = key.last_chunk().copied().map(u32::from_be_bytes);
        let slot = slot.ok_or_else(|| StoreError::damaged("the key of a slot"))?;
        let columns = read_slot(&value)?;
        row::report(slot.into(), columns.sequence, columns.state)
    };
    rows.into_iter().map(report).collect()
}

pub(crate) fn slot(
    kv: &mut impl Kv,
    session: u64,
    slot: u32,
) -> Result<Option<SlotRecord>, StoreError> {
    let value = kv.get(&slot_key(session, slot))?;
    value.map(|value| read_slot(&value)?.record()).transpose()
}

pub(crate) fn save_slot(
    kv: &mut impl Kv,
    session: u64,
    slot: u32,
    record: &SlotRecord,
) -> Result<(), StoreError> {
    let Columns { sequence, state, mark, reply } = Columns::of(record);
    let mut out = [sequence, state, mark].map(i64::to_be_bytes).concat();
    out.extend_from_slice(reply.as_deref().unwrap_or_default());
    kv.put(&slot_key(session, slot), out)
}

pub(crate) fn release(
    kv: &mut impl Kv,
    session: u64,
    list: &[SlotPosition],
) -> Result<(), StoreError> {
    use stubborn_core::session::RecordedState::{Idle, Released};
    for position in list {
        let Some(mut record) = slot(kv, session, position.slot)? else { continue };
        if record.sequence == position.sequence && !matches!(record.state, Idle | Released) {
            record.state = Released;
            save_slot(kv, session, position.slot, &record)?;
        }
    }
    Ok(())
}

fn sessions(kv: &mut impl Kv) -> Result<Vec<SessionRow>, StoreError> {
    let rows = kv.scan(SESSION)?;
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        let number = key.last_chunk().copied().map(u64::from_be_bytes);
        read_session(number.ok_or_else(|| StoreError::damaged("the key of a session"))?, &value)
    };
    rows.into_iter().map(read).collect()
}

fn read_session(number: u64, value: &[u8]) -> Result<SessionRow, StoreError> {
    let mut fields = Fields(value);
    let (epoch, slots, expires) = (fields.number()?, fields.number()?, fields.number()?);
    let slots = u32::try_from(slots).map_err(|_| StoreError::damaged("the slots of a session"))?;
    let (certificate, secret) = (fields.sized()?, fields.sized()?);
    let some = |bytes: Vec<u8>| Some(bytes).filter(|bytes| !bytes.is_empty());
    let owner = SessionRow::owner_of(some(certificate), some(secret))?;
    let (nonce, account) = (fields.sized()?, fields.sized()?);
    let holder = if fields.0.is_empty() { None } else { Some(fields.number()?) };
    fields.end()?;
    Ok(SessionRow { number, owner, nonce, account, epoch, holder, slots, expires })
}

fn read_slot(value: &[u8]) -> Result<Columns, StoreError> {
    let mut fields = Fields(value);
    let mut number = || fields.number().map(u64::cast_signed);
    let (sequence, state, mark) = (number()?, number()?, number()?);
    let reply = (state == row::DONE).then(|| fields.0.to_vec());
    Ok(Columns { sequence, state, mark, reply })
}

/// What is left of a value.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self) -> Result<u64, StoreError> {
        let (number, rest) = self.0.split_first_chunk().ok_or_else(Self::torn)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*number))
    }

    fn sized(&mut self) -> Result<Vec<u8>, StoreError> {
        let (length, rest) = self.0.split_first().ok_or_else(Self::torn)?;
        let (bytes, rest) = rest.split_at_checked((*length).into()).ok_or_else(Self::torn)?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    fn end(&self) -> Result<(), StoreError> {
        if self.0.is_empty() { Ok(()) } else { Err(Self::torn()) }
    }

    fn torn() -> StoreError {
        StoreError::damaged("a value of another length")
    }
}

/// Implements [`CompletionTransaction`](crate::store::CompletionTransaction) but for `Native`,
/// `native` and `commit`, for a type with a method `kv` that gives a [`Kv`].
macro_rules! transaction_over_kv {
    () => {
        async fn lock_service(&mut self) -> Result<ServiceRow, StoreError> {
            kv::service(self.kv())?.ok_or_else(|| StoreError::damaged("no row of its sessions"))
        }

        async fn save_service(&mut self, row: &ServiceRow) -> Result<(), StoreError> {
            kv::save_service(self.kv(), row)
        }

        async fn count(&mut self, account: &[u8]) -> Result<Counts, StoreError> {
            kv::count(self.kv(), account)
        }

        async fn spare(
            &mut self,
            account: Option<&[u8]>,
            before: u64,
        ) -> Result<Option<u64>, StoreError> {
            kv::spare(self.kv(), account, before)
        }

        async fn opened_with(&mut self, nonce: &[u8]) -> Result<Option<u64>, StoreError> {
            kv::opened_with(self.kv(), nonce)
        }

        async fn insert_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
            kv::insert_session(self.kv(), row)
        }

        async fn lock_session(&mut self, session: u64) -> Result<Option<SessionRow>, StoreError> {
            kv::session(self.kv(), session)
        }

        async fn save_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
            kv::save_session(self.kv(), row)
        }

        async fn delete_session(&mut self, session: u64) -> Result<(), StoreError> {
            kv::delete_session(self.kv(), session)
        }

        async fn reports(&mut self, session: u64) -> Result<Vec<SlotReport>, StoreError> {
            kv::reports(self.kv(), session)
        }

        // One transaction is there at a time: it has every lock.
        async fn lock_slot(
            &mut self,
            session: u64,
            slot: u32,
        ) -> Result<Option<(SessionRow, SlotRecord)>, StoreError> {
            let Some(row) = kv::session(self.kv(), session)? else { return Ok(None) };
            let record = kv::slot(self.kv(), session, slot)?;
            Ok(Some((row, record.unwrap_or(SlotRecord::UNUSED))))
        }

        async fn save_slot(
            &mut self,
            session: u64,
            slot: u32,
            record: &SlotRecord,
        ) -> Result<(), StoreError> {
            kv::save_slot(self.kv(), session, slot, record)
        }

        async fn release(&mut self, session: u64, list: &[SlotPosition]) -> Result<(), StoreError> {
            kv::release(self.kv(), session, list)
        }
    };
}
pub(crate) use transaction_over_kv;
