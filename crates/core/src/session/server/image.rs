//! Sessions as bytes, for snapshots of replicated state: the same sessions are the same bytes.
//!
//! Numbers take eight bytes, the most significant first. What can be counted anew is not in it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::account::Account;
use super::replicated::Aging;
use super::table::SlotTable;
use super::{Session, Sessions};
use crate::limits::Limits;
use crate::session::{Footprint, KeptReply, MAX_SEQUENCE, Owner, SessionId, SessionSecret, Slot};
use crate::time::{Duration, Instant};

/// The form of the bytes.
const FORM: u64 = 1;

/// Bytes that are no image of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsound;

/// A value that can be part of an image: a kept reply, or the name of a connection.
pub trait ImageOf: Sized {
    /// Appends the bytes. They must be the same for the same value.
    fn write(&self, out: &mut Vec<u8>);

    /// The value of exactly these bytes, which it may not refer to.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl<R: KeptReply + ImageOf, C: Copy + Eq + ImageOf> Sessions<R, C> {
    /// Appends everything that later answers depend on, the limits included.
    ///
    /// # Panics
    /// If a call is executing, or the sessions are not [replicated](Self::replicated): the state is
    /// not that after an entry of a log.
    pub fn write_image(&self, out: &mut Vec<u8>) {
        assert_eq!(self.footprint.executing, 0, "a call is in one entry of the log");
        let Aging::Silence { now } = self.aging else { panic!("the sessions are not replicated") };
        let w = &mut Writer(out);
        w.number(FORM).number(self.incarnation).number(now.as_nanos());
        write_limits(w, &self.limits);
        w.number(self.slot_limit.into()).number(self.next_number).flag(self.draining);
        w.number(self.table.len() as u64);
        for session in &self.table {
            w.flag(session.is_some());
            if let Some(session) = session {
                session.write(w);
            }
        }
        for vacant in &self.vacant {
            w.number((*vacant).into());
        }
    }

    /// The sessions of an image. Bounds of limits that no answer of sessions depends on are the
    /// defaults.
    ///
    /// # Errors
    /// If the bytes are no image, or one of sessions that cannot be.
    pub fn read_image(bytes: &[u8]) -> Result<Self, Unsound> {
        let r = &mut Reader(bytes);
        if r.number()? != FORM {
            return Err(Unsound);
        }
        let (group, now) = (r.number()?, Instant::from_nanos(r.number()?));
        let limits = read_limits(r)?;
        let mut sessions = Self::replicated(group, &limits);
        sessions.aging = Aging::Silence { now };
        (sessions.slot_limit, sessions.next_number) = (r.number32()?, r.counter()?);
        sessions.draining = r.flag()?;
        let length = r.number32()?;
        for index in 0..length {
            let session = if r.flag()? { Some(Session::read(r, group)?) } else { None };
            sessions.table.push(None);
            if let Some(session) = session {
                sessions.adopt(index, session)?;
            }
        }
        let mut vacant = BTreeSet::new();
        for _ in sessions.by_number.len()..sessions.table.len() {
            let index = r.number32()?;
            let free = sessions.table.get(index as usize).is_some_and(Option::is_none);
            if !free || !vacant.insert(index) {
                return Err(Unsound);
            }
            sessions.vacant.push(index);
        }
        let issued = sessions.by_number.last_key_value().map_or(0, |(number, _)| *number);
        if !r.0.is_empty() || issued >= sessions.next_number {
            return Err(Unsound);
        }
        Ok(sessions)
    }

    /// Puts a session of an image in its place, and counts what it holds.
    fn adopt(&mut self, index: u32, session: Session<R, C>) -> Result<(), Unsound> {
        let expires = session.expires.ok_or(Unsound)?;
        let twice = self.by_number.insert(session.id.number, index).is_some()
            | self.by_nonce.insert(session.nonce, index).is_some();
        if twice || session.id.number == 0 {
            return Err(Unsound);
        }
        *self.accounts.entry(session.account).or_default() += 1;
        self.expiries.insert((expires, index));
        self.slots_held += u64::from(session.slots.held());
        self.footprint.exchange(Footprint::default(), session.footprint);
        self.table[index as usize] = Some(session);
        Ok(())
    }
}

impl<R: KeptReply + ImageOf, C: ImageOf> Session<R, C> {
    fn write(&self, w: &mut Writer<'_>) {
        w.number(self.id.number).number(self.epoch).number(self.wish.into());
        match &self.owner {
            Owner::Certificate(identity) => w.flag(true).raw(identity),
            Owner::Anonymous(secret) => w.flag(false).raw(secret.expose()),
        };
        w.option(self.nonce.0.as_ref(), |w, identity| {
            w.raw(identity);
        });
        w.raw(&self.nonce.1);
        match self.account {
            Account::Certificate(identity) => w.number(0).raw(&identity),
            Account::Address(IpAddr::V4(address)) => w.number(4).raw(&address.octets()),
            Account::Address(IpAddr::V6(address)) => w.number(6).raw(&address.octets()),
        };
        w.option(self.connection.as_ref(), |w, connection| w.value(connection));
        w.option(self.expires.as_ref(), |w, at| {
            w.number(at.as_nanos());
        });
        self.slots.write(w);
    }

    fn read(r: &mut Reader<'_>, incarnation: u64) -> Result<Self, Unsound> {
        let id = SessionId { incarnation, number: r.number()? };
        let (epoch, wish) = (r.counter()?, r.number32()?);
        let owner = match r.flag()? {
            true => Owner::Certificate(r.array()?),
            false => Owner::Anonymous(SessionSecret::new(r.array()?)),
        };
        let nonce = (r.option(Reader::array)?, r.array()?);
        let account = match r.number()? {
            0 => Account::Certificate(r.array()?),
            4 => Account::Address(Ipv4Addr::from(r.array::<4>()?).into()),
            6 => Account::Address(Ipv6Addr::from(r.array::<16>()?).into()),
            _ => return Err(Unsound),
        };
        let connection = r.option(Reader::value)?;
        let expires = r.option(|r| r.number().map(Instant::from_nanos))?;
        let slots = SlotTable::read(r)?;
        Ok(Self {
            id,
            owner,
            nonce,
            account,
            epoch,
            connection,
            before: None,
            closing: false,
            expires,
            wish,
            footprint: slots.footprint(),
            slots,
        })
    }
}

impl<R: KeptReply + ImageOf> SlotTable<R> {
    fn write(&self, w: &mut Writer<'_>) {
        w.number(self.span.into()).number(self.wanted.into()).number(self.version);
        w.number(self.highest).number(self.entries.len() as u64);
        for entry in &self.entries {
            w.option(entry.as_ref(), |w, slot| {
                let mut bytes = Vec::new();
                slot.write_image(&mut bytes, R::write);
                w.sized(&bytes);
            });
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Unsound> {
        let (span, wanted) = (r.number32()?, r.number32()?);
        let (version, highest, length) = (r.counter()?, r.counter()?, r.number32()?);
        let mut entries = Vec::new();
        for _ in 0..length {
            entries.push(r.option(|r| Slot::read_image(r.sized()?, R::read).ok_or(Unsound))?);
        }
        let used = entries.iter().flatten().map(Slot::last).max().unwrap_or(0);
        if used > highest {
            return Err(Unsound);
        }
        let granted = entries.iter().flatten().count() as u32;
        let held = granted.checked_add(span.saturating_sub(length)).ok_or(Unsound)?;
        Ok(Self { span, entries, held, wanted, version, highest })
    }
}

/// Those bounds that the answers of sessions depend on.
fn write_limits(w: &mut Writer<'_>, limits: &Limits) {
    w.number(limits.sessions as u64);
    w.number(limits.sessions_per_identity as u64);
    w.number(limits.sessions_per_address as u64);
    w.number(limits.slots.into()).number(limits.slots_in_all);
    w.number(limits.kept_reply as u64).number(limits.kept_replies);
    w.number(nanos(limits.retention));
}

fn read_limits(r: &mut Reader<'_>) -> Result<Limits, Unsound> {
    Ok(Limits {
        sessions: r.size()?,
        sessions_per_identity: r.size()?,
        sessions_per_address: r.size()?,
        slots: r.number32()?,
        slots_in_all: r.number()?,
        kept_reply: r.size()?,
        kept_replies: r.number()?,
        retention: Duration::from_nanos(r.number()?),
        ..Limits::default()
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.raw(&[flag.into()])
    }

    fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).raw(bytes)
    }

    fn value(&mut self, value: &impl ImageOf) {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        self.sized(&bytes);
    }

    fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unsound> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Unsound)?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64, Unsound> {
        self.array().map(u64::from_be_bytes)
    }

    /// A number that can be counted on for longer than anything runs.
    fn counter(&mut self) -> Result<u64, Unsound> {
        self.number().and_then(|n| if n <= MAX_SEQUENCE { Ok(n) } else { Err(Unsound) })
    }

    fn number32(&mut self) -> Result<u32, Unsound> {
        u32::try_from(self.number()?).map_err(|_| Unsound)
    }

    fn size(&mut self) -> Result<usize, Unsound> {
        usize::try_from(self.number()?).map_err(|_| Unsound)
    }

    fn flag(&mut self) -> Result<bool, Unsound> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Unsound),
        }
    }

    fn sized(&mut self) -> Result<&'a [u8], Unsound> {
        let size = self.size()?;
        let (bytes, rest) = self.0.split_at_checked(size).ok_or(Unsound)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn value<T: ImageOf>(&mut self) -> Result<T, Unsound> {
        T::read(self.sized()?).ok_or(Unsound)
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unsound>,
    ) -> Result<Option<T>, Unsound> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }
}
