//! Keys as bytes, for snapshots of replicated state: the same keys are the same bytes.
//!
//! ```text
//! image     form 8 | records
//! record    ended at 8 | digest 8 | owner | subject | address | key | end
//! ```
//! Records are in the order in which their calls ended. What can be counted anew is not in it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::from_utf8;

use bytes::Bytes;

use super::{Ended, KeyAccount, KeyLimits, KeyedEnd, Keys, Record, bytes_of, key_of};
use crate::session::server::{ImageOf, Reader, Unsound, Writer};
use crate::time::Instant;

/// The form of the bytes.
const FORM: u64 = 1;

/// The pieces of a [frozen](Keys::freeze) table. Each ends after a record: none is larger than it was to
/// be and a record.
#[derive(Debug)]
pub struct KeyImage<E> {
    left: VecDeque<Arc<Ended<E>>>,
    begun: bool,
    piece: usize,
}

impl<E> Clone for KeyImage<E> {
    fn clone(&self) -> Self {
        Self { left: self.left.clone(), ..*self }
    }
}

impl<W: Clone, E: KeyedEnd + ImageOf> Keys<W, E> {
    /// Everything that later answers depend on but the limits, as it is now, in pieces of about `piece`
    /// bytes. The table goes on.
    ///
    /// # Panics
    /// If a call is running: the state is not that after an entry of a log.
    pub fn freeze(&self, piece: usize) -> KeyImage<E> {
        assert_eq!(self.ended.len(), self.records.len(), "a call is in one entry of the log");
        KeyImage { left: self.ended.clone(), begun: false, piece }
    }
}

impl<E: ImageOf> Iterator for KeyImage<E> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        let w = &mut Writer(&mut piece);
        if !core::mem::replace(&mut self.begun, true) {
            w.number(FORM);
        }
        while w.0.len() < self.piece
            && let Some(ended) = self.left.pop_front()
        {
            ended.write(w);
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl<E: ImageOf> Ended<E> {
    fn write(&self, w: &mut Writer<'_>) {
        let (account, key) = &self.name;
        w.number(self.at.as_nanos()).number(self.digest);
        w.option(account.owner.as_ref(), |w, owner| {
            w.raw(owner);
        });
        w.option(account.subject.as_ref(), |w, subject| {
            w.sized(subject.as_bytes());
        });
        match &self.payer.1 {
            None => w.number(0),
            Some(IpAddr::V4(address)) => w.number(4).raw(&address.octets()),
            Some(IpAddr::V6(address)) => w.number(6).raw(&address.octets()),
        };
        w.sized(key.as_bytes()).value(&self.end);
    }
}

/// Reads a table from the pieces of an [image](Keys::freeze) as they come.
#[derive(Debug)]
pub struct KeyReader<W, E> {
    keys: Keys<W, E>,
    begun: bool,
}

impl<W: Clone, E: KeyedEnd> Default for KeyReader<W, E> {
    fn default() -> Self {
        Self { keys: Keys::new(KeyLimits::default()), begun: false }
    }
}

impl<W: Clone, E: KeyedEnd + ImageOf> KeyReader<W, E> {
    /// Takes the next piece, to which it does not refer.
    ///
    /// # Errors
    /// If it is none of an image, or of a table that cannot be.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Unsound> {
        let r = &mut Reader(piece);
        if !core::mem::replace(&mut self.begun, true) && r.number()? != FORM {
            return Err(Unsound);
        }
        while !r.0.is_empty() {
            self.keys.adopt(r)?;
        }
        Ok(())
    }

    /// The table, with these limits, when all pieces were taken.
    ///
    /// # Errors
    /// If the first one is missing.
    pub fn finish(self, limits: KeyLimits) -> Result<Keys<W, E>, Unsound> {
        if self.begun { Ok(Keys { limits, ..self.keys }) } else { Err(Unsound) }
    }
}

impl<W: Clone, E: KeyedEnd + ImageOf> Keys<W, E> {
    /// Puts the next record of an image behind the others.
    fn adopt(&mut self, r: &mut Reader<'_>) -> Result<(), Unsound> {
        let (at, digest) = (Instant::from_nanos(r.number()?), r.number()?);
        let owner = r.option(Reader::array)?;
        let subject = r.option(|r| from_utf8(r.sized()?).map(Arc::from).map_err(|_| Unsound))?;
        let address = match r.number()? {
            0 => None,
            4 => Some(Ipv4Addr::from(r.array::<4>()?).into()),
            6 => Some(Ipv6Addr::from(r.array::<16>()?).into()),
            _ => return Err(Unsound),
        };
        let key = key_of(r.sized()?).ok_or(Unsound)?;
        let end: E = r.value()?;
        let account = KeyAccount { owner, subject };
        let wrong_payer = address.is_some() && !account.is_anonymous();
        let early = self.ended.back().is_some_and(|before| at < before.at);
        if wrong_payer || early || !end.ran() {
            return Err(Unsound);
        }
        let bytes = bytes_of(key, end.size());
        let payer = (account.clone(), address);
        let name = (account, Arc::from(key));
        let ended = Arc::new(Ended { at, name, digest, payer, bytes, end });
        let record = Record::Ended(Arc::clone(&ended));
        if self.records.insert(ended.name.clone(), record).is_some() {
            return Err(Unsound);
        }
        *self.payers.entry(ended.payer.clone()).or_default() += 1;
        self.bytes += ended.bytes;
        self.ended.push_back(ended);
        Ok(())
    }
}
