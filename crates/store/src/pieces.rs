//! A stream of bytes in pieces, each with a checksum, and one over all of them at the end: what is
//! larger than memory is written and read so.
//!
//! ```text
//! piece     checksum 8 | length 4 | bytes, at most 256 KiB
//! end       checksum 8 | 2^32 - 1 as length | bytes in all 8 | checksum of all bytes 8
//! ```

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::Xxh3;

use crate::sum::Salt;

/// Bytes of a piece at most.
const PIECE: usize = 256 << 10;
const HEADER: usize = 12;
const END: u32 = u32::MAX;

/// All bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) length: u64,
    pub(crate) sum: u64,
}

pub(crate) struct PieceWriter<W> {
    out: W,
    salt: Salt,
    /// The header's place and the bytes of the piece that is being filled.
    piece: Vec<u8>,
    length: u64,
    all: Box<Xxh3>,
}

impl<W: Write> PieceWriter<W> {
    pub(crate) fn new(out: W, salt: Salt) -> Self {
        Self { out, salt, piece: vec![0; HEADER], length: 0, all: Box::new(Xxh3::new()) }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.all.update(bytes);
        while !bytes.is_empty() {
            let room = HEADER + PIECE - self.piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == HEADER + PIECE {
                self.send(PIECE as u32)?;
            }
        }
        Ok(())
    }

    /// What it writes to.
    pub(crate) fn out_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes what is left and the end. Nothing is synced.
    pub(crate) fn finish(mut self) -> io::Result<(W, Whole)> {
        if self.piece.len() > HEADER {
            self.send((self.piece.len() - HEADER) as u32)?;
        }
        let whole = Whole { length: self.length, sum: self.all.digest() };
        self.piece.extend_from_slice(&whole.length.to_be_bytes());
        self.piece.extend_from_slice(&whole.sum.to_be_bytes());
        self.send(END)?;
        Ok((self.out, whole))
    }

    fn send(&mut self, length: u32) -> io::Result<()> {
        self.piece[8..HEADER].copy_from_slice(&length.to_be_bytes());
        let sum = self.salt.sum(self.length, &self.piece[8..]);
        self.piece[..8].copy_from_slice(&sum.to_be_bytes());
        self.out.write_all(&self.piece)?;
        self.length += (self.piece.len() - HEADER) as u64;
        self.piece.truncate(HEADER);
        Ok(())
    }
}

pub(crate) struct PieceReader<R> {
    input: R,
    salt: Salt,
    /// The length and the bytes of the last piece.
    piece: Vec<u8>,
    length: u64,
    position: u64,
    all: Box<Xxh3>,
}

impl<R: Read> PieceReader<R> {
    pub(crate) fn new(input: R, salt: Salt) -> Self {
        let all = Box::new(Xxh3::new());
        Self { input, salt, piece: Vec::new(), length: 0, position: 0, all }
    }

    /// Bytes of the stream that were read in whole pieces.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads on: to the next piece, or to the end. [`io::ErrorKind::InvalidData`] if what is there
    /// was not written so.
    pub(crate) fn advance(&mut self) -> io::Result<Option<Whole>> {
        let mut sum = [0; 8];
        self.fill(&mut sum)?;
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let size = match u32::from_be_bytes(length) {
            END => 16,
            length if (length as usize) <= PIECE => length as usize,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        piece.extend_from_slice(&length);
        piece.resize(4 + size, 0);
        let filled = self.fill(&mut piece[4..]);
        self.piece = piece;
        filled?;
        if self.salt.sum(self.length, &self.piece).to_be_bytes() != sum {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.position += (HEADER + size) as u64;
        if u32::from_be_bytes(length) != END {
            self.length += size as u64;
            self.all.update(&self.piece[4..]);
            return Ok(None);
        }
        let whole = Whole { length: self.length, sum: self.all.digest() };
        let told = [whole.length.to_be_bytes(), whole.sum.to_be_bytes()];
        if self.piece[4..] != *told.as_flattened() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Some(whole))
    }

    /// The piece that was read last.
    pub(crate) fn piece(&self) -> &[u8] {
        self.piece.get(4..).unwrap_or_default()
    }

    /// What it reads from.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::ErrorKind::InvalidData.into(),
            _ => error,
        })
    }
}
