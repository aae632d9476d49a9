//! Sessions as bytes, for snapshots of replicated state: the same sessions are the same bytes.
//!
//! Numbers take eight bytes, the most significant first. What can be counted anew is not in it.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::account::Account;
use super::held::Held;
use super::replicated::Aging;
use super::table::SlotTable;
use super::{Session, Sessions};
use crate::limits::Limits;
use crate::session::{Footprint, KeptReply, MAX_SEQUENCE, Owner, SessionId, SessionSecret, Slot};
use crate::time::{Duration, Instant};

/// The form of the bytes.
const FORM: u64 = 2;

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
    /// Everything that later answers depend on, the limits included, as it is now, in pieces of about
    /// `piece` bytes. The sessions go on: what they change from now on is copied.
    ///
    /// # Panics
    /// If a call is executing, or the sessions are not [replicated](Self::replicated): the state is
    /// not that after an entry of a log.
    pub fn freeze(&mut self, piece: usize) -> ImagePieces<R, C> {
        assert_eq!(self.footprint.executing, 0, "a call is in one entry of the log");
        let Aging::Silence { now } = self.aging else { panic!("the sessions are not replicated") };
        let mut head = Vec::new();
        let w = &mut Writer(&mut head);
        w.number(FORM).number(self.incarnation).number(now.as_nanos());
        write_limits(w, &self.limits);
        w.number(self.slot_limit.into()).number(self.next_number).flag(self.draining);
        w.number(self.table.len() as u64);
        let table = self.table.iter_mut().map(|place| {
            let frozen = place.take()?.freeze();
            *place = Some(Held::Shared(Arc::clone(&frozen)));
            Some(frozen)
        });
        let frozen = Frozen { head, table: table.collect(), vacant: self.vacant.clone() };
        ImagePieces { frozen: Arc::new(frozen), next: Next::Head, piece }
    }
}

/// Sessions as they were at one moment.
#[derive(Debug)]
struct Frozen<R, C> {
    head: Vec<u8>,
    table: Vec<Option<Arc<Session<R, C>>>>,
    vacant: Vec<u32>,
}

/// The pieces of [frozen](Sessions::freeze) sessions. Each ends after a session's head or one of its
/// slots: none is larger than it was to be and a kept reply.
#[derive(Debug)]
pub struct ImagePieces<R, C> {
    frozen: Arc<Frozen<R, C>>,
    next: Next,
    piece: usize,
}

/// What is written next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Head,
    Session(usize),
    Slot { session: usize, slot: usize },
    Vacant(usize),
    Nothing,
}

impl<R, C> Clone for ImagePieces<R, C> {
    fn clone(&self) -> Self {
        Self { frozen: Arc::clone(&self.frozen), next: self.next, piece: self.piece }
    }
}

impl<R: KeptReply + ImageOf, C: ImageOf> Iterator for ImagePieces<R, C> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        while piece.len() < self.piece && !matches!(self.next, Next::Nothing) {
            self.next = self.frozen.write(self.next, &mut Writer(&mut piece));
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl<R: KeptReply + ImageOf, C: ImageOf> Frozen<R, C> {
    /// Writes what is next, and returns what follows it.
    fn write(&self, next: Next, w: &mut Writer<'_>) -> Next {
        match next {
            Next::Head => {
                w.raw(&self.head);
                Next::Session(0)
            }
            Next::Session(session) => match self.table.get(session) {
                None => Next::Vacant(0),
                Some(None) => {
                    w.flag(false);
                    Next::Session(session + 1)
                }
                Some(Some(found)) => {
                    w.flag(true);
                    found.write(w);
                    Next::Slot { session, slot: 0 }
                }
            },
            Next::Slot { session, slot } => {
                let slots = self.table[session].as_ref().map(|session| &session.slots);
                let Some(entry) = slots.and_then(|slots| slots.entries.get(slot)) else {
                    return Next::Session(session + 1);
                };
                w.option(entry.as_ref(), |w, slot| {
                    let mut bytes = Vec::new();
                    slot.write_image(&mut bytes, R::write);
                    w.sized(&bytes);
                });
                Next::Slot { session, slot: slot + 1 }
            }
            Next::Vacant(at) => match self.vacant.get(at) {
                Some(vacant) => {
                    w.number((*vacant).into());
                    Next::Vacant(at + 1)
                }
                None => Next::Nothing,
            },
            Next::Nothing => Next::Nothing,
        }
    }
}

/// Reads sessions from the pieces of an [image](Sessions::freeze) as they come. Bounds of limits that
/// no answer of sessions depends on are the defaults.
#[derive(Debug)]
pub struct ImageReader<R, C> {
    /// None before the head.
    sessions: Option<Sessions<R, C>>,
    /// Sessions that are to come, vacant places included.
    left: u32,
    /// A session whose slots come, and how many of them are left.
    begun: Option<(Session<R, C>, u32)>,
    /// The places of which it was said that they are vacant.
    vacant: BTreeSet<u32>,
}

impl<R: KeptReply + ImageOf, C: Copy + Eq + ImageOf> Default for ImageReader<R, C> {
    fn default() -> Self {
        Self { sessions: None, left: 0, begun: None, vacant: BTreeSet::new() }
    }
}

impl<R: KeptReply + ImageOf, C: Copy + Eq + ImageOf> ImageReader<R, C> {
    /// Takes the next piece.
    ///
    /// # Errors
    /// If the bytes are none of an image, or of sessions that cannot be.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Unsound> {
        let r = &mut Reader(piece);
        while !r.0.is_empty() {
            self.read(r)?;
        }
        Ok(())
    }

    /// The sessions, when all pieces were taken.
    ///
    /// # Errors
    /// If some are missing.
    pub fn finish(self) -> Result<Sessions<R, C>, Unsound> {
        let sessions = self.sessions.ok_or(Unsound)?;
        let places = sessions.by_number.len() + sessions.vacant.len();
        let issued = sessions.by_number.last_key_value().map_or(0, |(number, _)| *number);
        let is_whole = self.left == 0 && self.begun.is_none() && places == sessions.table.len();
        if is_whole && issued < sessions.next_number { Ok(sessions) } else { Err(Unsound) }
    }

    fn read(&mut self, r: &mut Reader<'_>) -> Result<(), Unsound> {
        let Some(sessions) = &mut self.sessions else {
            let (sessions, left) = Sessions::read_head(r)?;
            (self.sessions, self.left) = (Some(sessions), left);
            return Ok(());
        };
        if let Some((session, left)) = &mut self.begun {
            session.slots.read_slot(r)?;
            *left -= 1;
        } else if self.left > 0 {
            self.left -= 1;
            sessions.table.push(None);
            if r.flag()? {
                self.begun = Some(Session::read(r, sessions.incarnation)?);
            }
        } else {
            let index = r.number32()?;
            let free = sessions.table.get(index as usize).is_some_and(Option::is_none);
            if !free || !self.vacant.insert(index) {
                return Err(Unsound);
            }
            sessions.vacant.push(index);
        }
        if let Some((session, _)) = self.begun.take_if(|(_, left)| *left == 0) {
            sessions.adopt(session.with_slots()?)?;
        }
        Ok(())
    }
}

impl<R: KeptReply + ImageOf, C: Copy + Eq + ImageOf> Sessions<R, C> {
    /// The beginning of an image, and how many places there are.
    fn read_head(r: &mut Reader<'_>) -> Result<(Self, u32), Unsound> {
        if r.number()? != FORM {
            return Err(Unsound);
        }
        let (group, now) = (r.number()?, Instant::from_nanos(r.number()?));
        let limits = read_limits(r)?;
        let mut sessions = Self::replicated(group, &limits);
        sessions.aging = Aging::Silence { now };
        (sessions.slot_limit, sessions.next_number) = (r.number32()?, r.counter()?);
        sessions.draining = r.flag()?;
        Ok((sessions, r.number32()?))
    }

    /// Puts a session of an image in the last place, and counts what it holds.
    fn adopt(&mut self, session: Session<R, C>) -> Result<(), Unsound> {
        let index = (self.table.len() - 1) as u32;
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
        self.table[index as usize] = Some(Held::Own(session));
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
        w.option(self.holder.as_ref(), |w, holder| {
            w.number(*holder);
        });
        w.option(self.connection.as_ref(), |w, connection| w.value(connection));
        w.option(self.expires.as_ref(), |w, at| {
            w.number(at.as_nanos());
        });
        self.slots.write_head(w);
    }

    /// The session without its slots, and how many of them follow.
    fn read(r: &mut Reader<'_>, incarnation: u64) -> Result<(Self, u32), Unsound> {
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
        let holder = r.option(Reader::number)?;
        let connection = r.option(Reader::value)?;
        let expires = r.option(|r| r.number().map(Instant::from_nanos))?;
        let (slots, length) = SlotTable::read_head(r)?;
        let session = Self {
            id,
            owner,
            nonce,
            account,
            epoch,
            holder,
            connection,
            before: None,
            closing: false,
            expires,
            wish,
            footprint: Footprint::default(),
            slots,
        };
        Ok((session, length))
    }

    /// All its slots were read.
    fn with_slots(mut self) -> Result<Self, Unsound> {
        self.slots.complete()?;
        self.footprint = self.slots.footprint();
        Ok(self)
    }
}

impl<R: KeptReply + ImageOf> SlotTable<R> {
    fn write_head(&self, w: &mut Writer<'_>) {
        w.number(self.span.into()).number(self.wanted.into()).number(self.version);
        w.number(self.highest).number(self.entries.len() as u64);
    }

    /// The table without its slots, and how many of them follow.
    fn read_head(r: &mut Reader<'_>) -> Result<(Self, u32), Unsound> {
        let (span, wanted) = (r.number32()?, r.number32()?);
        let (version, highest, length) = (r.counter()?, r.counter()?, r.number32()?);
        Ok((Self { span, entries: Vec::new(), held: 0, wanted, version, highest }, length))
    }

    fn read_slot(&mut self, r: &mut Reader<'_>) -> Result<(), Unsound> {
        let entry = r.option(|r| Slot::read_image(r.sized()?, R::read).ok_or(Unsound))?;
        self.entries.push(entry);
        Ok(())
    }

    /// All its slots were read.
    fn complete(&mut self) -> Result<(), Unsound> {
        let used = self.entries.iter().flatten().map(Slot::last).max().unwrap_or(0);
        let untouched = self.span.saturating_sub(self.entries.len() as u32);
        let granted = self.entries.iter().flatten().count() as u32;
        self.held = granted.checked_add(untouched).ok_or(Unsound)?;
        if used > self.highest { Err(Unsound) } else { Ok(()) }
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

/// Writes an image.
pub(in crate::session) struct Writer<'a>(pub(in crate::session) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(in crate::session) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(in crate::session) fn number(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    pub(in crate::session) fn flag(&mut self, flag: bool) -> &mut Self {
        self.raw(&[flag.into()])
    }

    pub(in crate::session) fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).raw(bytes)
    }

    pub(in crate::session) fn value(&mut self, value: &impl ImageOf) {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        self.sized(&bytes);
    }

    pub(in crate::session) fn option<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T),
    ) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Reads an image.
pub(in crate::session) struct Reader<'a>(pub(in crate::session) &'a [u8]);

impl<'a> Reader<'a> {
    pub(in crate::session) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unsound> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Unsound)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(in crate::session) fn number(&mut self) -> Result<u64, Unsound> {
        self.array().map(u64::from_be_bytes)
    }

    /// A number that can be counted on for longer than anything runs.
    pub(in crate::session) fn counter(&mut self) -> Result<u64, Unsound> {
        self.number().and_then(|n| if n <= MAX_SEQUENCE { Ok(n) } else { Err(Unsound) })
    }

    pub(in crate::session) fn number32(&mut self) -> Result<u32, Unsound> {
        u32::try_from(self.number()?).map_err(|_| Unsound)
    }

    pub(in crate::session) fn size(&mut self) -> Result<usize, Unsound> {
        usize::try_from(self.number()?).map_err(|_| Unsound)
    }

    pub(in crate::session) fn flag(&mut self) -> Result<bool, Unsound> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Unsound),
        }
    }

    pub(in crate::session) fn sized(&mut self) -> Result<&'a [u8], Unsound> {
        let size = self.size()?;
        let (bytes, rest) = self.0.split_at_checked(size).ok_or(Unsound)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(in crate::session) fn value<T: ImageOf>(&mut self) -> Result<T, Unsound> {
        T::read(self.sized()?).ok_or(Unsound)
    }

    pub(in crate::session) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unsound>,
    ) -> Result<Option<T>, Unsound> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }
}
