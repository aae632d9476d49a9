//! What travels within a stream: `docs/protocol.md` section 4.

use bytes::Bytes;

use super::Credit;
use crate::rpc::codec::{Malformed, MessageBuffer, Reader};
use crate::rpc::message::Parts;
use crate::service::Encoded;

pub(in crate::rpc) const MESSAGE: u8 = 0x20;
pub(in crate::rpc) const END: u8 = 0x21;
pub(in crate::rpc) const CREDIT: u8 = 0x22;

/// Bodies up to this many bytes are copied out of the buffer that they came in: it may be much larger,
/// and would be held until the application takes the message.
const COPIED: usize = 32 << 10;

/// A part of a stream that has come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) content: Content,
}

/// What it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// The message with this index.
    Message { index: u64, message: Encoded },
    /// So many messages are all: the sender is done.
    End { count: u64 },
    /// How far the receiver is.
    Credit(Credit),
}

/// A part that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PartRef<'a> {
    Message { index: u64, message: &'a Encoded },
    End { count: u64 },
    Credit(Credit),
}

impl PartRef<'_> {
    pub(crate) fn encode(self, slot: u32, sequence: u64, buffer: &mut MessageBuffer) -> Parts {
        let mut w = buffer.writer();
        match self {
            Self::Message { index, message } => {
                w.position(MESSAGE, slot, sequence);
                w.varint(index).fixed64(message.digest);
                return buffer.finish_ref(&message.body);
            }
            Self::End { count } => {
                w.position(END, slot, sequence);
                w.varint(count);
            }
            Self::Credit(credit) => {
                w.position(CREDIT, slot, sequence);
                w.varint(credit.received).varint(credit.taken).varint(credit.limit);
            }
        }
        buffer.finish(stubborn_rope::Rope::EMPTY)
    }
}

impl Part {
    /// Whether a message of this kind is a part of a stream.
    pub(in crate::rpc) fn is_kind(kind: u8) -> bool {
        matches!(kind, MESSAGE | END | CREDIT)
    }

    /// What follows the kind.
    pub(in crate::rpc) fn decode(kind: u8, r: &mut Reader) -> Result<Self, Malformed> {
        let (slot, sequence) = (r.varint32()?, r.varint()?);
        let content = match kind {
            MESSAGE => {
                let (index, digest) = (r.varint()?, r.fixed64()?);
                Content::Message { index, message: Encoded { body: own(r.rest()).into(), digest } }
            }
            END => Content::End { count: r.varint()? },
            CREDIT => Content::Credit(Credit {
                received: r.varint()?,
                taken: r.varint()?,
                limit: r.varint()?,
            }),
            _ => return Err(Malformed),
        };
        Ok(Self { slot, sequence, content })
    }

    /// To be encoded again.
    pub(crate) fn encode(&self, buffer: &mut MessageBuffer) -> Parts {
        let part = match &self.content {
            Content::Message { index, message } => PartRef::Message { index: *index, message },
            Content::End { count } => PartRef::End { count: *count },
            Content::Credit(credit) => PartRef::Credit(*credit),
        };
        part.encode(self.slot, self.sequence, buffer)
    }
}

fn own(body: Bytes) -> Bytes {
    if body.len() <= COPIED { Bytes::copy_from_slice(&body) } else { body }
}
