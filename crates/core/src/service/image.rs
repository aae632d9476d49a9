//! The state of a machine as bytes, in pieces: larger than what anybody holds in memory at once.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use bytes::Bytes;

use super::machine::RestoreError;

/// The pieces of an [`Image`], in order.
pub type Pieces = Box<dyn Iterator<Item = Result<Bytes, RestoreError>> + Send>;

/// A state as it was at one moment, as bytes in pieces. What it was made from goes on meanwhile.
///
/// The pieces are made when they are asked for, on any thread, and as often as they are asked for:
/// once for the disk, and once for each replica that needs them. Clones are cheap, and give the same
/// pieces.
///
/// A small state is one piece: `Image::from(bytes)`. For a large one see
/// [`in_pieces`](Self::in_pieces).
#[derive(Clone)]
pub struct Image(Arc<dyn Fn() -> Pieces + Send + Sync>);

impl Image {
    /// Bytes after which a machine with a large state is to begin another piece: what is held for a
    /// piece, and how long nothing else is done for it, follows from this.
    pub const PIECE: usize = 64 << 10;

    /// The state that an iterator gives piece by piece, each of about [`PIECE`](Self::PIECE) bytes. The iterator
    /// owns what it reads: a copy of the state that is cheap to make, such as a persistent map, so that
    /// nothing stands still for it. The same state must give the same pieces on every replica.
    pub fn in_pieces<I>(pieces: I) -> Self
    where
        I: Iterator<Item = Bytes> + Clone + Send + Sync + 'static,
    {
        Self(Arc::new(move || Box::new(pieces.clone().map(Ok))))
    }

    /// The pieces that `open` reads from somewhere, which may fail.
    pub fn read_by(open: impl Fn() -> Pieces + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// Its pieces. After an error there are no more.
    pub fn pieces(&self) -> Pieces {
        (self.0)()
    }

    /// All bytes at once: of a small state.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn to_bytes(&self) -> Result<Bytes, RestoreError> {
        let mut pieces = self.pieces();
        let Some(first) = pieces.next().transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = pieces.next().transpose()? else { return Ok(first) };
        let mut all = [first, second].concat();
        for piece in pieces {
            all.extend_from_slice(&piece?);
        }
        Ok(all.into())
    }
}

impl From<Bytes> for Image {
    fn from(bytes: Bytes) -> Self {
        Self::in_pieces(core::iter::once(bytes))
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl Default for Image {
    /// No bytes.
    fn default() -> Self {
        Self::in_pieces(core::iter::empty())
    }
}

/// Of the same bytes, however they are cut. Reads all of both.
impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        let (mut ours, mut theirs) = (self.pieces(), other.pieces());
        let (mut a, mut b) = (Bytes::new(), Bytes::new());
        loop {
            match (refill(&mut a, &mut ours), refill(&mut b, &mut theirs)) {
                (Ok(true), Ok(true)) => {}
                (Ok(false), Ok(false)) => return true,
                _ => return false,
            }
            let size = a.len().min(b.len());
            if a.split_to(size) != b.split_to(size) {
                return false;
            }
        }
    }
}

impl Eq for Image {}

/// Takes a piece where nothing is left. False at the end.
fn refill(rest: &mut Bytes, pieces: &mut Pieces) -> Result<bool, RestoreError> {
    while rest.is_empty() {
        match pieces.next() {
            Some(piece) => *rest = piece?,
            None => return Ok(false),
        }
    }
    Ok(true)
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Image")
    }
}

/// A piece of a snapshot that a machine is to take the state of: the bytes of one piece of an
/// [`Image`], as they were.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    bytes: &'a [u8],
    is_first: bool,
    is_last: bool,
}

impl<'a> Piece<'a> {
    /// A piece, which may be the first or the last one.
    pub fn new(bytes: &'a [u8], is_first: bool, is_last: bool) -> Self {
        Self { bytes, is_first, is_last }
    }

    /// All of a snapshot that has one piece.
    pub fn only(bytes: &'a [u8]) -> Self {
        Self::new(bytes, true, true)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether a snapshot begins with it: what was restored of another one before is to be dropped.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether the snapshot ends with it: its state counts from now on.
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec;

    use super::*;

    fn cut(pieces: &[&'static [u8]]) -> Image {
        let pieces: Vec<Bytes> = pieces.iter().map(|piece| Bytes::from_static(piece)).collect();
        Image::in_pieces(pieces.into_iter())
    }

    fn broken() -> Image {
        Image::read_by(|| {
            let pieces = vec![Ok(Bytes::from_static(b"a")), Err(RestoreError::new("torn"))];
            Box::new(pieces.into_iter())
        })
    }

    #[test]
    fn an_image_gives_its_pieces_as_often_as_it_is_asked() {
        let image = cut(&[b"one", b"", b"two"]);
        for _ in 0..2 {
            let pieces: Vec<_> = image.clone().pieces().map(Result::unwrap).collect();
            assert_eq!(pieces, ["one", "", "two"]);
        }
        assert_eq!(image.to_bytes().unwrap(), "onetwo");
        assert_eq!(format!("{image:?}"), "Image");
    }

    #[test]
    fn images_of_the_same_bytes_are_equal_however_they_are_cut() {
        assert_eq!(cut(&[b"on", b"", b"e"]), cut(&[b"one"]));
        assert_eq!(cut(&[b""]), Image::default());
        assert_ne!(cut(&[b"on", b"e"]), cut(&[b"on"]));
        assert_ne!(cut(&[b"on"]), cut(&[b"on", b"x"]));
        assert_ne!(cut(&[b"one"]), cut(&[b"onx"]));
    }

    #[test]
    fn an_image_that_cannot_be_read_says_so_and_equals_none() {
        assert!(broken().to_bytes().is_err());
        assert_ne!(broken(), cut(&[b"a"]));
        assert_ne!(broken(), broken());
    }
}
