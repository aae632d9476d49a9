//! Puts the bytes of one message in order, in bounded memory.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};

/// Pieces of at least this many bytes keep their receive buffer: it is mostly payload.
const LARGE: usize = 16 << 10;

/// Shorter pieces that a connection may hold as slices of receive buffers, each of which may pin up
/// to 64 KiB. Further ones are copied. Whole messages that came in one packet count as one.
const MAX_SLICES: usize = 256;

/// Copied neighbours are merged up to this many bytes.
const MERGED: usize = 16 << 10;

/// What all messages of a connection hold together.
#[derive(Debug)]
pub(super) struct Held {
    /// Pieces, and among them short slices of receive buffers.
    pieces: usize,
    slices: usize,
    max_pieces: usize,
}

impl Held {
    pub(super) const fn new(max_pieces: usize) -> Self {
        Self { pieces: 0, slices: 0, max_pieces }
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> usize {
        self.pieces
    }

    /// Keeps `data`: as it is, or as a copy where that frees a receive buffer.
    pub(super) fn take(&mut self, data: Bytes) -> Piece {
        self.pieces += 1;
        if data.len() >= LARGE {
            Piece::Slice(data)
        } else if self.slices < MAX_SLICES {
            self.slices += 1;
            Piece::Slice(data)
        } else {
            Piece::Copy(BytesMut::from(&data[..]))
        }
    }

    /// Keeps a message that came in one piece, as [`take`](Self::take) does. If `pinned`, the slice
    /// that counts for its receive buffer stops to: this one does from now on. Returns whether it
    /// counts.
    #[inline]
    pub(super) fn take_whole(&mut self, data: Bytes, pinned: bool) -> (Bytes, bool) {
        self.pieces += 1;
        if !pinned && (data.len() >= LARGE || self.slices >= MAX_SLICES) {
            let large = data.len() >= LARGE;
            return (if large { data } else { Bytes::copy_from_slice(&data) }, false);
        }
        self.slices += usize::from(!pinned);
        (data, true)
    }

    /// Ends what [`take_whole`](Self::take_whole) began for a message that counted, or did not.
    #[inline]
    pub(super) fn give_back_whole(&mut self, counts: bool) {
        self.pieces -= 1;
        self.slices -= usize::from(counts);
    }

    /// Whether the pieces are within their bound.
    #[inline]
    pub(super) fn check(&self) -> Result<(), TooManyPieces> {
        (self.pieces <= self.max_pieces).then_some(()).ok_or(TooManyPieces)
    }

    pub(super) fn give_back(&mut self, piece: &Piece) {
        self.pieces -= 1;
        if matches!(piece, Piece::Slice(data) if data.len() < LARGE) {
            self.slices -= 1;
        }
    }
}

/// Bytes that follow one another in memory.
#[derive(Debug)]
pub(super) enum Piece {
    /// Part of a receive buffer.
    Slice(Bytes),
    /// Bytes of our own.
    Copy(BytesMut),
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Slice(data) => data.len() as u64,
            Self::Copy(data) => data.len() as u64,
        }
    }

    /// Appends what directly follows, if that does not cost a piece of its own.
    fn merge(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Copy(own) if own.len() + data.len() <= MERGED => {
                own.extend_from_slice(data);
                true
            }
            _ => false,
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Slice(data) => data,
            Self::Copy(data) => data.freeze(),
        }
    }
}

/// There are more pieces than a connection may hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyPieces;

/// The bytes of a message that came and were not read yet.
///
/// Bytes that continue the message line up in a queue; only those that came early go into a tree, so
/// that neither a short message nor a long one in order costs a tree operation.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Bytes below were read.
    read: u64,
    /// Bytes below have come without a gap.
    contiguous: u64,
    /// Front of the queue from `read` to `contiguous`; apart, so that a single piece allocates nothing.
    first: Option<Piece>,
    rest: VecDeque<Piece>,
    /// Pieces past a gap, by offset; they do not overlap.
    early: BTreeMap<u64, Piece>,
}

impl Assembly {
    /// The bytes of a message that came in one piece.
    pub(super) fn of(piece: Piece) -> Self {
        Self { contiguous: piece.len(), first: Some(piece), ..Self::default() }
    }

    pub(super) fn read(&self) -> u64 {
        self.read
    }

    pub(super) fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Adds bytes at `offset`; what is there already is not taken again. Returns whether more can be
    /// read now.
    pub(super) fn insert(
        &mut self,
        mut offset: u64,
        mut data: Bytes,
        held: &mut Held,
    ) -> Result<bool, TooManyPieces> {
        let before = self.contiguous;
        if let Some(known) = self.contiguous.checked_sub(offset) {
            offset = self.contiguous;
            data.advance(usize::try_from(known).unwrap_or(usize::MAX).min(data.len()));
        }
        if offset == self.contiguous {
            self.append(data, held);
        } else {
            self.keep_early(offset, data, held);
        }
        held.check().map(|()| self.contiguous > before)
    }

    /// Adds bytes that start where the contiguous ones end, and what came early after them.
    fn append(&mut self, mut data: Bytes, held: &mut Held) {
        while !data.is_empty() {
            let gap = match self.early.first_key_value() {
                Some((start, _)) => usize::try_from(start - self.contiguous).unwrap_or(usize::MAX),
                None => usize::MAX,
            };
            let new = data.split_to(gap.min(data.len()));
            self.contiguous += new.len() as u64;
            let tail = self.rest.back_mut().or(self.first.as_mut());
            if !tail.is_some_and(|tail| tail.merge(&new)) {
                let piece = held.take(new);
                self.push(piece);
            }
            while let Some(next) = self.early.first_entry()
                && *next.key() == self.contiguous
            {
                let piece = next.remove();
                self.contiguous += piece.len();
                data.advance(usize::try_from(piece.len()).unwrap_or(usize::MAX).min(data.len()));
                self.push(piece);
            }
        }
    }

    fn push(&mut self, piece: Piece) {
        if self.first.is_none() {
            self.first = Some(piece);
        } else {
            self.rest.push_back(piece);
        }
    }

    /// Adds the bytes past a gap that are not there yet.
    fn keep_early(&mut self, offset: u64, data: Bytes, held: &mut Held) {
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let before = self.early.range(..=at).next_back();
            let before = before.map(|(start, piece)| (*start, *start + piece.len()));
            if let Some((_, covered)) = before
                && covered > at
            {
                at = covered;
                continue;
            }
            let upto = self.early.range(at..).next().map_or(end, |(start, _)| (*start).min(end));
            // Both are within `data`, so they fit.
            let new = data.slice((at - offset) as usize..(upto - offset) as usize);
            let merged = before
                .filter(|(_, touching)| *touching == at)
                .and_then(|(start, _)| self.early.get_mut(&start))
                .is_some_and(|piece| piece.merge(&new));
            if !merged {
                self.early.insert(at, held.take(new));
            }
            at = upto;
        }
    }

    /// Takes the next bytes.
    pub(super) fn pop(&mut self, held: &mut Held) -> Option<Bytes> {
        let piece = self.first.take()?;
        self.first = self.rest.pop_front();
        self.read += piece.len();
        held.give_back(&piece);
        Some(piece.into_bytes())
    }

    /// Drops everything that was not read.
    pub(super) fn clear(&mut self, held: &mut Held) {
        let waiting = self.first.take().into_iter().chain(self.rest.drain(..));
        waiting.for_each(|piece| held.give_back(&piece));
        core::mem::take(&mut self.early).values().for_each(|piece| held.give_back(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn numbered(len: usize) -> Bytes {
        (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
    }

    #[test]
    fn a_single_piece_is_handed_on_without_a_copy() {
        let (mut assembly, mut held) = (Assembly::default(), Held::new(10));
        let data = numbered(100);
        assert_eq!(assembly.insert(0, data.clone(), &mut held), Ok(true));
        let out = assembly.pop(&mut held).unwrap();
        assert_eq!((out.as_ptr(), out.len()), (data.as_ptr(), data.len()));
        assert_eq!((held.pieces, held.slices), (0, 0));
    }

    #[test]
    fn tiny_pieces_in_order_are_merged_and_do_not_pin_receive_buffers() {
        let (mut assembly, mut held) = (Assembly::default(), Held::new(1000));
        let data = numbered(100_000);
        for n in 0..data.len() {
            assembly.insert(n as u64, data.slice(n..n + 1), &mut held).unwrap();
        }
        assert!(held.slices <= MAX_SLICES && held.pieces <= MAX_SLICES + 100_000 / MERGED + 1);
        let mut out = Vec::new();
        while let Some(bytes) = assembly.pop(&mut held) {
            out.extend_from_slice(&bytes);
        }
        assert_eq!((out, held.pieces, held.slices), (data.to_vec(), 0, 0));
    }

    #[test]
    fn too_many_pieces_are_refused() {
        let (mut assembly, mut held) = (Assembly::default(), Held::new(10));
        let data = numbered(100);
        let results: Vec<_> =
            (1..12).map(|n| assembly.insert(n * 2, data.slice(..1), &mut held)).collect();
        assert_eq!(results[..10], [const { Ok(false) }; 10]);
        assert_eq!(results[10], Err(TooManyPieces));
        assembly.clear(&mut held);
        assert_eq!((held.pieces, held.slices), (0, 0));
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_gives_the_bytes_once(
            pieces in prop::collection::vec((0usize..3000, 1usize..600, any::<bool>()), 1..200)
        ) {
            let data = numbered(4000);
            let (mut assembly, mut held) = (Assembly::default(), Held::new(usize::MAX));
            let mut there = alloc::vec![false; data.len()];
            let mut out = Vec::new();
            for (start, len, read) in pieces {
                let before = there.iter().take_while(|b| **b).count();
                there[start..start + len].fill(true);
                let after = there.iter().take_while(|b| **b).count();
                let more = assembly.insert(start as u64, data.slice(start..start + len), &mut held);
                prop_assert_eq!(more, Ok(after > before));
                prop_assert_eq!(assembly.contiguous(), after as u64);
                while read && let Some(bytes) = assembly.pop(&mut held) {
                    out.extend_from_slice(&bytes);
                    prop_assert_eq!(assembly.read(), out.len() as u64);
                }
            }
            while let Some(bytes) = assembly.pop(&mut held) {
                out.extend_from_slice(&bytes);
            }
            prop_assert_eq!(out.len() as u64, assembly.contiguous());
            prop_assert_eq!(&out[..], &data[..out.len()]);
            assembly.clear(&mut held);
            prop_assert_eq!((held.pieces, held.slices), (0, 0));
        }
    }
}
