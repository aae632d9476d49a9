//! Replies as slots keep them.

use bytes::Bytes;
use stubborn_rope::Rope;

use super::codec::Writer;
use crate::service::Encoded;
use crate::session::{KeptReply, ToKeep};

/// See [`Kept::SMALL`].
const SMALL: usize = 94;

/// A reply as a slot keeps it: everything but the body encoded, then the body.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Small { len: u8, bytes: [u8; SMALL] },
    Large { head: Bytes, body: Rope },
}

impl Kept {
    /// Replies up to this many bytes, with digest, status and metadata, are kept in the slot itself: a
    /// small reply then costs no allocation and no memory beside the slot's.
    pub(crate) const SMALL: usize = SMALL;

    /// `head` is all but the body.
    pub(crate) fn new(head: &[u8], body: &Rope) -> Self {
        Self::Large { head: Bytes::copy_from_slice(head), body: body.clone() }
    }

    /// Whether it lies in memory that may hold more than the reply: a body in several pieces is no copy
    /// of what its handler returned.
    pub(crate) fn is_borrowed(&self) -> bool {
        matches!(self, Self::Large { body, .. } if body.pieces().len() > 1)
    }

    /// The same of what is written whole; `None` if that is not small.
    pub(crate) fn small(written: &[u8]) -> Option<Self> {
        let mut bytes = [0; SMALL];
        bytes.get_mut(..written.len())?.copy_from_slice(written);
        Some(Self::Small { len: written.len() as u8, bytes })
    }

    /// What of it is encoded: all, if it is short.
    #[inline]
    pub(crate) fn encoded(&self) -> &[u8] {
        match self {
            Self::Small { len, bytes } => &bytes[..usize::from(*len)],
            Self::Large { head, .. } => head,
        }
    }

    /// Writes all but the body that is returned.
    pub(crate) fn write(&self, w: &mut Writer<'_>) -> Rope {
        match self {
            Self::Small { .. } => {
                w.raw(self.encoded());
                Rope::EMPTY
            }
            Self::Large { head, body } => {
                w.raw(head);
                body.clone()
            }
        }
    }

    /// The same as owned bytes.
    pub(crate) fn parts(&self) -> (Bytes, Rope) {
        match self {
            Self::Small { len, bytes } => {
                (Bytes::copy_from_slice(&bytes[..usize::from(*len)]), Rope::EMPTY)
            }
            Self::Large { head, body } => (head.clone(), body.clone()),
        }
    }
}

impl Default for Kept {
    /// Nothing.
    fn default() -> Self {
        Self::Small { len: 0, bytes: [0; SMALL] }
    }
}

/// What nearly all replies are: short, without status and metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShortReply<'a> {
    pub(crate) digest: u64,
    pub(crate) body: &'a [u8],
}

impl<'a> ShortReply<'a> {
    /// Bytes in front of the body: the digest, the code of the status and the number of pairs.
    const HEAD: usize = 10;

    /// `None` if it is not short.
    #[inline]
    pub(crate) fn of(reply: &'a Encoded) -> Option<Self> {
        let [body] = reply.body.pieces() else { return None };
        (Self::HEAD + body.len() <= SMALL).then_some(Self { digest: reply.digest, body })
    }
}

impl ToKeep<Kept> for ShortReply<'_> {
    #[inline]
    fn kept_size(&self) -> usize {
        Self::HEAD + self.body.len()
    }

    #[inline]
    fn write(self, place: &mut Kept) {
        if let Kept::Small { len, bytes } = place {
            *len = self.kept_size() as u8;
            bytes[..8].copy_from_slice(&self.digest.to_be_bytes());
            bytes[Self::HEAD..][..self.body.len()].copy_from_slice(self.body);
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

    fn own(&mut self) {
        if let Self::Large { body, .. } = self {
            *body = core::mem::take(body).into_bytes().into();
        }
    }
}
