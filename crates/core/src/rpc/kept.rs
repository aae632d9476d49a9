//! Replies as slots keep them.

use bytes::Bytes;

use super::codec::Writer;
use crate::session::KeptReply;

/// Replies up to this many bytes, with digest, status and metadata, are kept in the slot itself: a
/// small reply then costs no allocation and no memory beside the slot's.
const SMALL: usize = 94;

/// A reply as a slot keeps it: everything but the body encoded, then the body. It owns its memory.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Small { len: u8, bytes: [u8; SMALL] },
    Large { head: Bytes, body: Bytes },
}

impl Kept {
    pub(crate) fn new(head: &[u8], body: &Bytes) -> Self {
        let len = head.len() + body.len();
        if len > SMALL {
            return Self::Large { head: Bytes::copy_from_slice(head), body: body.clone() };
        }
        let mut bytes = [0; SMALL];
        bytes[..head.len()].copy_from_slice(head);
        bytes[head.len()..len].copy_from_slice(body);
        Self::Small { len: len as u8, bytes }
    }

    /// Writes all but the body that is returned.
    pub(crate) fn write(&self, w: &mut Writer<'_>) -> Bytes {
        match self {
            Self::Small { len, bytes } => {
                w.raw(&bytes[..usize::from(*len)]);
                Bytes::new()
            }
            Self::Large { head, body } => {
                w.raw(head);
                body.clone()
            }
        }
    }

    /// The same as owned bytes.
    pub(crate) fn parts(&self) -> (Bytes, Bytes) {
        match self {
            Self::Small { len, bytes } => {
                (Bytes::copy_from_slice(&bytes[..usize::from(*len)]), Bytes::new())
            }
            Self::Large { head, body } => (head.clone(), body.clone()),
        }
    }
}

impl KeptReply for Kept {
    fn size(&self) -> usize {
        match self {
            Self::Small { len, .. } => usize::from(*len),
            Self::Large { head, body } => head.len() + body.len(),
        }
    }
}
