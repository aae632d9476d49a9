//! What nearly all requests and replies are, written and read by ways of their own.

use super::kinds::{REPLY, REQUEST};
use crate::service::MethodId;
use crate::time::Duration;
use crate::wire::fields::{Fields, Head};
use crate::wire::varint;

/// The fields of a REPLY without a status and without metadata, which nearly all are. They are few, so
/// that they are read much faster than a message of any kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainReply {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) digest: u64,
    /// Where its body begins.
    pub(crate) body: usize,
}

/// The same of a REQUEST without metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainRequest {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) method: MethodId,
    pub(crate) deadline: Option<Duration>,
    pub(crate) digest: u64,
    /// Where its body begins.
    pub(crate) body: usize,
}

impl PlainReply {
    /// `None` for any other message, and for one that is malformed.
    #[inline]
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (slot, sequence, rest) = position(message, REPLY)?;
        let (digest, rest) = rest.split_first_chunk()?;
        // The code of the status, and the number of pairs.
        let rest = rest.strip_prefix(&[0, 0])?;
        let body = message.len() - rest.len();
        Some(Self { slot, sequence, digest: u64::from_be_bytes(*digest), body })
    }
}

impl PlainRequest {
    /// `None` for any other message, and for one that is malformed.
    #[inline]
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (slot, sequence, rest) = position(message, REQUEST)?;
        let (method, rest) = rest.split_first_chunk()?;
        let (micros, rest) = varint::decode(rest)?;
        let (digest, rest) = rest.split_first_chunk()?;
        // The number of pairs.
        let rest = rest.strip_prefix(&[0])?;
        Some(Self {
            slot,
            sequence,
            method: MethodId(u64::from_be_bytes(*method)),
            deadline: micros.checked_sub(1).map(Duration::from_micros),
            digest: u64::from_be_bytes(*digest),
            body: message.len() - rest.len(),
        })
    }
}

/// The first fields of the REQUEST message of a [short request](super::PayloadRef::short_request).
pub(crate) struct RequestHead {
    pub(super) slot: u32,
    pub(super) sequence: u64,
    pub(super) method: MethodId,
    /// As [`duration_number`](crate::rpc::codec::duration_number) writes it.
    pub(super) deadline: u64,
    pub(super) digest: u64,
}

impl Head for RequestHead {
    #[inline]
    fn size(&self) -> usize {
        position_size(self.slot, self.sequence) + 8 + varint::size(self.deadline) + 8 + 1
    }

    #[inline]
    fn write(&self, fields: &mut Fields<'_>) {
        fields.byte(REQUEST).varint(self.slot.into()).varint(self.sequence);
        fields.fixed64(self.method.0).varint(self.deadline);
        // The number of pairs.
        fields.fixed64(self.digest).byte(0);
    }
}

/// The first fields of the REPLY message of a [short reply](crate::rpc::kept::ShortReply).
pub(crate) struct ReplyHead {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) digest: u64,
}

impl Head for ReplyHead {
    #[inline]
    fn size(&self) -> usize {
        position_size(self.slot, self.sequence) + 8 + 2
    }

    #[inline]
    fn write(&self, fields: &mut Fields<'_>) {
        fields.byte(REPLY).varint(self.slot.into()).varint(self.sequence);
        // The code of the status and the number of pairs.
        fields.fixed64(self.digest).byte(0).byte(0);
    }
}

/// Slot and sequence number at the front of a message of this kind, and what follows them.
#[inline]
pub(super) fn position(message: &[u8], kind: u8) -> Option<(u32, u64, &[u8])> {
    let rest = message.strip_prefix(&[kind])?;
    let (slot, rest) = varint::decode(rest)?;
    let (sequence, rest) = varint::decode(rest)?;
    Some((u32::try_from(slot).ok()?, sequence, rest))
}

/// Bytes of a kind, a slot and a number.
#[inline]
fn position_size(slot: u32, sequence: u64) -> usize {
    1 + varint::size(slot.into()) + varint::size(sequence)
}
