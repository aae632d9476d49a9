//! Calls that name themselves by a key: a copy runs once.
//!
//! A table of its own, since a key is neither a slot nor a number: nothing acknowledges it, so that it is
//! kept for a fixed time. The table is bounded: when it is full a call is refused before it runs.
//!
//! A single server has one in its memory. A group has one as part of its replicated state: there a call
//! begins and ends while its command is applied, time is the log's, and the table is in snapshots.

mod image;

use alloc::collections::VecDeque;
use alloc::collections::btree_map::{BTreeMap, Entry};
use alloc::sync::Arc;
use core::net::IpAddr;

use crate::limits::Limits;
use crate::time::{Duration, Instant};

pub use self::image::{KeyImage, KeyReader};

/// Bytes that an entry counts beside what its caller sent and its reply.
const OVERHEAD: u64 = 512;

/// The longest key, in bytes.
pub const LONGEST_KEY: usize = 256;

/// Whose keys they are: keys of one caller mean nothing for another. Everybody who shows neither a
/// certificate nor a token is one caller: they may come back from another address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyAccount {
    /// What the sessions of its certificate belong to.
    pub owner: Option<[u8; 32]>,
    /// Whom its token is of.
    pub subject: Option<Arc<str>>,
}

/// The key that these bytes are: 1 to [`LONGEST_KEY`] visible ASCII characters. `None` if they are none.
pub fn key_of(bytes: &[u8]) -> Option<&str> {
    let sound = !bytes.is_empty() && bytes.len() <= LONGEST_KEY;
    let visible = bytes.iter().all(u8::is_ascii_graphic);
    core::str::from_utf8(bytes).ok().filter(|_| sound && visible)
}

/// The bounds of the table.
#[derive(Clone, Debug)]
pub struct KeyLimits {
    /// Keys at once.
    pub keys: usize,
    /// Keys at once of one identity, or of one address without.
    pub keys_per_caller: usize,
    /// Bytes of kept replies and keys. A call that begins counts with the largest reply that is kept.
    pub bytes: u64,
    /// The largest reply that is kept. A copy of a call with a larger one is told that it ran.
    pub reply: usize,
    /// How long after its end a call is known.
    pub retention: Duration,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

impl KeyLimits {
    /// Those that go with these bounds of sessions: keys are known as long as an outcome can be asked
    /// for, and their replies take as much again as those of sessions.
    pub fn of(limits: &Limits) -> Self {
        Self {
            keys: 65_536,
            keys_per_caller: 16_384,
            bytes: limits.kept_replies,
            reply: limits.kept_reply,
            retention: limits.retention,
        }
    }
}

/// How a call ended, for its copies.
pub trait KeyedEnd: Clone {
    /// Whether it ran.
    fn ran(&self) -> bool;

    /// Bytes that keeping it takes.
    fn size(&self) -> usize;

    /// What is kept of it if it is too large.
    fn without_reply(&self) -> Self;
}

impl<E: KeyedEnd> KeyedEnd for Arc<E> {
    fn ran(&self) -> bool {
        (**self).ran()
    }

    fn size(&self) -> usize {
        (**self).size()
    }

    fn without_reply(&self) -> Self {
        Self::new((**self).without_reply())
    }
}

/// What to do with a call that has a key.
#[derive(Debug)]
pub enum Begin<W, E> {
    /// It is new: run it, then [`Keys::finish`] it with this.
    Run(Ticket),
    /// It has run.
    Known(E),
    /// It is running.
    Wait(W),
    /// The key is taken by another request.
    Other,
    /// There is no room.
    Full,
}

/// The right to run the call of a key, and the duty to say how it ended.
#[derive(Debug)]
#[must_use = "a call that is never finished is never forgotten"]
pub struct Ticket(Name);

type Name = (KeyAccount, Arc<str>);
/// Who is charged: the identity, or without one the address.
type Payer = (KeyAccount, Option<IpAddr>);

/// A call that has a key.
#[derive(Clone)]
enum Record<W, E> {
    /// With what its copies wait by.
    Running {
        digest: u64,
        payer: Payer,
        bytes: u64,
        copies: W,
    },
    Ended(Arc<Ended<E>>),
}

/// A call that has run. It does not change any more, so that a frozen table shares it.
#[derive(Debug)]
struct Ended<E> {
    at: Instant,
    name: Name,
    digest: u64,
    payer: Payer,
    bytes: u64,
    end: E,
}

/// The table.
#[derive(Clone)]
pub struct Keys<W, E> {
    limits: KeyLimits,
    records: BTreeMap<Name, Record<W, E>>,
    payers: BTreeMap<Payer, usize>,
    bytes: u64,
    /// Those that have ended, in that order.
    ended: VecDeque<Arc<Ended<E>>>,
}

impl KeyAccount {
    /// Whether nothing is known of the caller but an address.
    fn is_anonymous(&self) -> bool {
        self.owner.is_none() && self.subject.is_none()
    }
}

impl<W, E> core::fmt::Debug for Keys<W, E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Keys").field("keys", &self.records.len()).finish_non_exhaustive()
    }
}

impl<W: Clone, E: KeyedEnd> Keys<W, E> {
    /// An empty one.
    pub fn new(limits: KeyLimits) -> Self {
        let (records, payers) = (BTreeMap::new(), BTreeMap::new());
        Self { limits, records, payers, bytes: 0, ended: VecDeque::new() }
    }

    /// A call with this key has come, from this caller, with a request of this digest. Its copies wait
    /// by `running`, if it is new.
    pub fn begin(
        &mut self,
        now: Instant,
        account: KeyAccount,
        address: Option<IpAddr>,
        key: &str,
        digest: u64,
        running: W,
    ) -> Begin<W, E> {
        self.expire(now);
        let address = if account.is_anonymous() { address } else { None };
        let payer = (account.clone(), address);
        let name = (account, Arc::from(key));
        match self.records.get(&name) {
            Some(record) if record.digest() != digest => return Begin::Other,
            Some(Record::Running { copies, .. }) => return Begin::Wait(copies.clone()),
            Some(Record::Ended(ended)) => return Begin::Known(ended.end.clone()),
            None => {}
        }
        let bytes = bytes_of(key, self.limits.reply);
        let paid = self.payers.get(&payer).copied().unwrap_or(0);
        if self.records.len() >= self.limits.keys
            || paid >= self.limits.keys_per_caller
            || self.bytes.saturating_add(bytes) > self.limits.bytes
        {
            return Begin::Full;
        }
        self.bytes += bytes;
        self.payers.insert(payer.clone(), paid + 1);
        let record = Record::Running { digest, payer, bytes, copies: running };
        self.records.insert(name.clone(), record);
        Begin::Run(Ticket(name))
    }

    /// The call of the ticket has ended so. If it did not run, its key is free again.
    pub fn finish(&mut self, now: Instant, ticket: Ticket, ended: &E) {
        let Ticket(name) = ticket;
        if !ended.ran() {
            self.remove(&name);
            return;
        }
        let large = ended.size() > self.limits.reply;
        let end = if large { ended.without_reply() } else { ended.clone() };
        let Some(record) = self.records.get_mut(&name) else { return };
        let Record::Running { digest, payer, bytes: held, .. } = record else { return };
        let bytes = bytes_of(&name.1, end.size());
        self.bytes = self.bytes - *held + bytes;
        let (digest, payer) = (*digest, payer.clone());
        let ended = Arc::new(Ended { at: now, name, digest, payer, bytes, end });
        *record = Record::Ended(Arc::clone(&ended));
        self.ended.push_back(ended);
    }

    /// Forgets what ended too long ago.
    pub fn expire(&mut self, now: Instant) {
        let retention = self.limits.retention;
        while let Some(ended) = self.ended.pop_front_if(|it| now.since(it.at) >= retention) {
            self.remove(&ended.name);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn remove(&mut self, name: &Name) {
        let Some(record) = self.records.remove(name) else { return };
        let (bytes, payer) = match record {
            Record::Running { payer, bytes, .. } => (bytes, payer),
            Record::Ended(ended) => (ended.bytes, ended.payer.clone()),
        };
        self.bytes -= bytes;
        if let Entry::Occupied(mut payer) = self.payers.entry(payer) {
            *payer.get_mut() -= 1;
            if *payer.get() == 0 {
                payer.remove();
            }
        }
    }
}

impl<W, E> Record<W, E> {
    fn digest(&self) -> u64 {
        match self {
            Self::Running { digest, .. } => *digest,
            Self::Ended(ended) => ended.digest,
        }
    }
}

/// What a key counts, with a reply of this size.
fn bytes_of(key: &str, reply: usize) -> u64 {
    (OVERHEAD + key.len() as u64).saturating_add(reply as u64)
}

#[cfg(test)]
mod tests;
