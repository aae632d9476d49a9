//! Reading and writing the fields of messages. The reader never panics and never allocates by a
//! number that the peer chose.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use stubborn_rope::Rope;

use crate::service::{MAX_METADATA, Metadata};
use crate::session::{SessionId, SlotPosition};
use crate::time::Duration;
use crate::wire::fields::{Fields, Head};
use crate::wire::varint;

/// Bytes that are no message of the protocol, or no command of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the bytes are malformed")
    }
}

impl core::error::Error for Malformed {}

/// Entries of one list at most; longer ones are sent in several messages.
pub(crate) const MAX_LIST: usize = 65_536;

/// Bodies up to this many bytes are copied behind the first bytes of their message: that costs less
/// than to hold and send two pieces.
pub(crate) const COPIED: usize = 512;

/// Larger buffers are not kept.
const KEPT: usize = 16 << 10;

/// Where messages are encoded: what one was written into comes [back](Self::take_back) once it is
/// sent, so that none needs an allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct MessageBuffer {
    draft: Vec<u8>,
}

impl MessageBuffer {
    /// Begins a message.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        self.draft.clear();
        Writer(&mut self.draft)
    }

    /// A message of two parts, of which the second was written elsewhere.
    pub(crate) fn joined(&mut self, head: &impl Head, tail: &[u8]) -> (Vec<u8>, Rope) {
        self.draft.clear();
        Fields::append(&mut self.draft, |fields| head.write(fields));
        self.draft.extend_from_slice(tail);
        (core::mem::take(&mut self.draft), Rope::EMPTY)
    }

    /// The message that was written, with the body that follows it.
    pub(crate) fn finish(&mut self, body: Rope) -> (Vec<u8>, Rope) {
        match body.len() <= COPIED {
            true => (self.with_tail(&body), Rope::EMPTY),
            false => (core::mem::take(&mut self.draft), body),
        }
    }

    /// The same with a body that its owner keeps.
    pub(crate) fn finish_ref(&mut self, body: &Rope) -> (Vec<u8>, Rope) {
        match body.len() <= COPIED {
            true => (self.with_tail(body), Rope::EMPTY),
            false => (core::mem::take(&mut self.draft), body.clone()),
        }
    }

    fn with_tail(&mut self, tail: &Rope) -> Vec<u8> {
        tail.pieces().iter().for_each(|piece| self.draft.extend_from_slice(piece));
        core::mem::take(&mut self.draft)
    }

    /// Takes back what a message was written into.
    #[inline]
    pub(crate) fn take_back(&mut self, written: Vec<u8>) {
        if written.capacity() <= KEPT && self.draft.capacity() == 0 {
            self.draft = written;
        }
    }
}

/// Microseconds plus one, 0 for none; what is too long for a varint is none.
#[inline]
pub(crate) fn duration_number(duration: Option<Duration>) -> u64 {
    // The usual ones without a division of 128 bits.
    let micros =
        |d: Duration| d.as_secs().checked_mul(1_000_000)?.checked_add(u64::from(d.subsec_micros()));
    duration.and_then(micros).filter(|m| *m < varint::MAX).map_or(0, |m| m + 1)
}

pub(crate) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Writes to the end of `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    /// Bytes that were written so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What was written so far.
    pub(crate) fn written(&self) -> &[u8] {
        self.0
    }

    pub(crate) fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn varint(&mut self, value: u64) -> &mut Self {
        varint::encode(value, self.0);
        self
    }

    pub(crate) fn fixed64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.sized(text.as_bytes())
    }

    pub(crate) fn session(&mut self, session: SessionId) -> &mut Self {
        self.fixed64(session.incarnation).fixed64(session.number)
    }

    pub(crate) fn position(&mut self, kind: u8, slot: u32, sequence: u64) {
        self.byte(kind).varint(slot.into()).varint(sequence);
    }

    pub(crate) fn positions(&mut self, list: &[SlotPosition]) {
        self.varint(list.len() as u64);
        for position in list {
            self.varint(position.slot.into()).varint(position.sequence);
        }
    }

    /// See [`duration_number`].
    pub(crate) fn duration(&mut self, duration: Option<Duration>) -> &mut Self {
        self.varint(duration_number(duration))
    }

    pub(crate) fn metadata(&mut self, metadata: &Metadata) -> &mut Self {
        self.varint(metadata.len() as u64);
        for (key, value) in metadata.iter() {
            self.text(key).sized(value);
        }
        self
    }
}

pub(crate) struct Reader {
    bytes: Bytes,
    /// How much of them is read.
    at: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    fn left(&self) -> &[u8] {
        // `at` never goes past the end, which the compiler cannot know.
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let left = self.left();
        let (value, rest) = varint::decode(left).ok_or(Malformed)?;
        self.at += left.len() - rest.len();
        Ok(value)
    }

    pub(crate) fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed)
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = *self.left().first_chunk().ok_or(Malformed)?;
        self.at += N;
        Ok(array)
    }

    pub(crate) fn sized(&mut self) -> Result<Bytes, Malformed> {
        let size = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        if size > self.left().len() {
            return Err(Malformed);
        }
        let start = self.at;
        self.at += size;
        Ok(self.bytes.slice(start..self.at))
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.sized()?.to_vec()).map_err(|_| Malformed)
    }

    pub(crate) fn session(&mut self) -> Result<SessionId, Malformed> {
        Ok(SessionId { incarnation: self.fixed64()?, number: self.fixed64()? })
    }

    pub(crate) fn duration(&mut self) -> Result<Option<Duration>, Malformed> {
        Ok(self.varint()?.checked_sub(1).map(Duration::from_micros))
    }

    pub(crate) fn metadata(&mut self) -> Result<Metadata, Malformed> {
        let count = self.varint()?;
        if count > (MAX_METADATA / 4) as u64 {
            return Err(Malformed);
        }
        let mut metadata = Metadata::new();
        for _ in 0..count {
            let (key, value) = (self.text()?, self.sized()?);
            metadata.insert(key, value).map_err(|_| Malformed)?;
        }
        Ok(metadata)
    }

    /// A count and that many entries. Grows with what is there, not with what the count claims.
    pub(crate) fn list<T>(
        &mut self,
        entry: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.varint()?;
        if count > MAX_LIST as u64 {
            return Err(Malformed);
        }
        (0..count).map(|_| entry(self)).collect()
    }

    pub(crate) fn positions(&mut self) -> Result<Vec<SlotPosition>, Malformed> {
        self.list(|r| Ok(SlotPosition { slot: r.varint32()?, sequence: r.varint()? }))
    }

    /// Everything to the end.
    pub(crate) fn rest(&mut self) -> Bytes {
        let mut rest = core::mem::take(&mut self.bytes);
        rest.advance(core::mem::take(&mut self.at));
        rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}
