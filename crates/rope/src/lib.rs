//! Bytes in pieces, so that a message is encoded without a copy of its large fields.
//!
//! A crate of its own for one reason: prost writes into a [`bytes::BufMut`], which cannot be
//! implemented without `unsafe`, and core forbids it. So [`ahead`] is here too: what else core needs
//! that takes `unsafe`.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod ahead;
mod encode;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

/// Bytes that lie in one piece or in several. Cloning shares them.
///
/// ```
/// # use bytes::Bytes;
/// # use stubborn_rope::Rope;
/// let rope = Rope::from(Bytes::from_static(b"in one piece"));
/// assert_eq!((rope.len(), rope.pieces().len()), (12, 1));
/// ```
#[derive(Clone)]
pub struct Rope(Repr);

#[derive(Clone)]
enum Repr {
    One(Bytes),
    /// None of them is empty.
    Many(Arc<[Bytes]>),
}

impl Rope {
    /// No bytes.
    pub const EMPTY: Self = Self(Repr::One(Bytes::new()));

    /// The encoding of a message. Fields of type [`Bytes`] that are large share their memory with the
    /// message; everything else is copied once.
    pub fn encode<M: prost::Message>(message: &M) -> Self {
        encode::encode(message)
    }

    /// How many bytes they are together.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::One(bytes) => bytes.len(),
            Repr::Many(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Repr::One(bytes) => bytes.is_empty(),
            Repr::Many(_) => false,
        }
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.0 {
            Repr::One(bytes) => core::slice::from_ref(bytes),
            Repr::Many(pieces) => pieces,
        }
    }

    /// All bytes in one piece. Copies them if they are in several.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::One(bytes) => bytes,
            Repr::Many(_) => self.to_vec().into(),
        }
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().concat()
    }

    /// The parts of the pieces that lie in `range`, in order. What is beyond the end is left out.
    pub fn slices(&self, range: Range<usize>) -> impl Iterator<Item = (&Bytes, Range<usize>)> {
        let mut start = 0;
        self.pieces().iter().filter_map(move |piece| {
            let at = start;
            start += piece.len();
            let from = range.start.max(at);
            let to = range.end.min(start);
            (from < to).then(|| (piece, from - at..to - at))
        })
    }
}

impl Default for Rope {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<Bytes> for Rope {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::One(bytes))
    }
}

impl From<Vec<u8>> for Rope {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl FromIterator<Bytes> for Rope {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut pieces: Vec<_> =
            pieces.into_iter().filter(|piece: &Bytes| !piece.is_empty()).collect();
        match pieces.len() {
            0 | 1 => pieces.pop().unwrap_or_default().into(),
            _ => Self(Repr::Many(pieces.into())),
        }
    }
}

/// Two ropes are equal if their bytes are, however they are cut.
impl PartialEq for Rope {
    fn eq(&self, other: &Self) -> bool {
        if let (Repr::One(a), Repr::One(b)) = (&self.0, &other.0) {
            return a == b;
        }
        let bytes = |rope| Self::pieces(rope).iter().flatten();
        self.len() == other.len() && bytes(self).eq(bytes(other))
    }
}

impl Eq for Rope {}

impl core::fmt::Debug for Rope {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0 {
            Repr::One(bytes) => bytes.fmt(f),
            Repr::Many(pieces) => f.debug_list().entries(pieces.iter()).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rope_is_as_small_as_its_only_piece() {
        assert_eq!(size_of::<Rope>(), size_of::<Bytes>());
    }

    #[test]
    fn empty_pieces_are_left_out() {
        let rope: Rope =
            [Bytes::new(), Bytes::from_static(b"x"), Bytes::new()].into_iter().collect();
        assert!(matches!(rope.0, Repr::One(_)));
        assert!(Rope::from_iter([Bytes::new()]).is_empty());
    }

    proptest! {
        #[test]
        fn slices_are_those_of_the_bytes_in_one_piece(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..6),
            start in 0usize..40, length in 0usize..40,
        ) {
            let whole = pieces.concat();
            let rope: Rope = pieces.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(rope.len(), whole.len());
            prop_assert_eq!(rope.is_empty(), whole.is_empty());
            let mut cut = vec![];
            for (piece, part) in rope.slices(start..start + length) {
                cut.extend_from_slice(&piece[part]);
            }
            let wanted = whole.iter().skip(start).take(length).copied().collect::<Vec<_>>();
            prop_assert_eq!(cut, wanted);
            prop_assert_eq!(&rope, &Rope::from(whole.clone()));
            prop_assert_eq!(rope.into_bytes(), whole);
        }
    }
}
