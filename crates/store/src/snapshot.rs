//! Snapshots, each in a file of its own: written aside, synced, renamed, and counted only once the
//! log says so.
//!
//! ```text
//! file      "STBSNAP1" | head | state machine as a stream of pieces
//! head      checksum 8 | length 4 | version 4, group 8, node 8, place in the log 16, members
//! ```

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use stubborn_core::service::{Image, Pieces, RestoreError};
use stubborn_core::wire::Reader;
use stubborn_group::replication::{Members, Position};

use crate::Identity;
use crate::error::{Doing, Error, corrupt};
use crate::fields::{members, node_id, number, position, put, put_members, put_position};
use crate::medium::{Medium, Stream};
use crate::pieces::{PieceReader, PieceWriter, Whole};
use crate::record::SnapshotRef;
use crate::sum::Salt;

const MAGIC: &[u8; 8] = b"STBSNAP1";
const VERSION: u32 = 1;
const PREFIX: &str = "snapshot-";
const UNFINISHED: &str = ".new";

/// Bytes after which a snapshot that is being written is synced: a sync of the log that comes meanwhile
/// has no more of it to wait for.
const SYNC_EVERY: usize = 8 << 20;

/// Bytes of a head at most: a few numbers and the members.
const MAX_HEAD: usize = 64 << 10;

/// The name of a snapshot's file.
pub(crate) fn name(index: u64) -> String {
    format!("{PREFIX}{index:020}")
}

/// The last entry in the snapshot of this name.
pub(crate) fn index(file: &str) -> Option<u64> {
    let index: u64 = file.strip_prefix(PREFIX)?.parse().ok()?;
    (name(index) == file).then_some(index)
}

/// Whether this is a snapshot that is, or was, being written.
pub(crate) fn is_unfinished(file: &str) -> bool {
    file.strip_suffix(UNFINISHED).is_some_and(|name| index(name).is_some())
}

/// What is known of a snapshot without reading the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last entry that is in it.
    pub at: Position,
    /// The members after that entry.
    pub members: Members,
    /// Bytes of the state machine.
    pub length: u64,
}

/// Writes a snapshot aside, piece by piece, while the log goes on: it needs not the store, and may
/// be moved to another thread. A snapshot that is not finished, or not handed to the store, does
/// not count; its file is removed when the folder is opened next.
pub struct SnapshotWriter {
    medium: Arc<dyn Medium>,
    aside: String,
    at: Position,
    members: Members,
    pieces: PieceWriter<Stream>,
    /// Bytes that were written since the last sync.
    unsynced: usize,
}

/// A snapshot that is whole and synced, for [`Store::compact`](crate::Store::compact) or
/// [`Store::install`](crate::Store::install).
#[derive(Debug)]
#[must_use = "it counts only once the store has it"]
pub struct FinishedSnapshot {
    pub(crate) aside: String,
    pub(crate) info: SnapshotInfo,
    pub(crate) reference: SnapshotRef,
}

impl FinishedSnapshot {
    /// What is in it.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }
}

impl SnapshotWriter {
    pub(crate) fn begin(
        medium: Arc<dyn Medium>,
        identity: &Identity,
        at: Position,
        members: Members,
    ) -> Result<Self, Error> {
        let aside = name(at.index) + UNFINISHED;
        let mut stream = Stream::new(medium.create(&aside).doing("make", &aside)?);
        stream.write_all(&head(identity, at, &members)).doing("write", &aside)?;
        let salt = Salt::snapshot(identity, at.index);
        let pieces = PieceWriter::new(stream, salt);
        Ok(Self { medium, aside, at, members, pieces, unsynced: 0 })
    }

    /// Adds bytes of the state machine.
    ///
    /// # Errors
    /// If they cannot be written: a full disk. The snapshot is then of no use.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.pieces.write(bytes).doing("write", &self.aside)?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.pieces.out_mut().file.sync().doing("sync", &self.aside)?;
        }
        Ok(())
    }

    /// Writes a whole state machine, piece by piece, and finishes.
    ///
    /// # Errors
    /// If it cannot be read or written. The snapshot is then of no use.
    pub fn write_all(mut self, state: &Image) -> Result<FinishedSnapshot, Error> {
        for piece in state.pieces() {
            self.write(&piece.map_err(|error| Error::Failed(error.to_string()))?)?;
        }
        self.finish()
    }

    /// Where the snapshot stands in the log.
    pub fn at(&self) -> Position {
        self.at
    }

    /// All bytes are there: syncs them.
    ///
    /// # Errors
    /// If that fails. The snapshot is then of no use.
    pub fn finish(self) -> Result<FinishedSnapshot, Error> {
        let Self { medium, aside, at, members, pieces, .. } = self;
        let (mut stream, Whole { length, sum }) = pieces.finish().doing("write", &aside)?;
        stream.file.sync().doing("sync", &aside)?;
        drop((stream, medium));
        let info = SnapshotInfo { at, members, length };
        Ok(FinishedSnapshot { aside, info, reference: SnapshotRef { at, length, sum } })
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pieces.write(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a snapshot's state machine, checked piece by piece. It stays readable after the store has
/// gone on to a later snapshot.
pub struct SnapshotReader {
    file: String,
    info: SnapshotInfo,
    expected: SnapshotRef,
    /// Bytes before the pieces.
    head: u64,
    pieces: PieceReader<Stream>,
}

impl SnapshotReader {
    pub(crate) fn open(
        medium: &dyn Medium,
        identity: &Identity,
        expected: SnapshotRef,
    ) -> Result<Self, Error> {
        let file = name(expected.at.index);
        let opened = match medium.open_to_read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt(&file, 0, "the snapshot", "it is missing"));
            }
            opened => opened.doing("open", &file)?,
        };
        let mut stream = Stream::new(opened);
        let (at, members) = read_head(&mut stream, identity, &file)?;
        if at != expected.at {
            return Err(corrupt(&file, 0, "the head of the snapshot", "it is of another place"));
        }
        let info = SnapshotInfo { at, members, length: expected.length };
        let salt = Salt::snapshot(identity, at.index);
        let head = stream.offset;
        Ok(Self { file, info, expected, head, pieces: PieceReader::new(stream, salt) })
    }

    /// What is in it.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// The next bytes; none at the end, where all of them were checked.
    ///
    /// # Errors
    /// If they cannot be read, or are not what was written.
    pub fn next_piece(&mut self) -> Result<Option<&[u8]>, Error> {
        let what = || format!("the snapshot of entry {}", self.expected.at.index);
        let offset = self.head + self.pieces.position();
        let whole = match self.pieces.advance() {
            Ok(None) => None,
            Ok(Some(whole)) => Some(whole),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(corrupt(&self.file, offset, what(), "a piece of it is damaged"));
            }
            Err(error) => return Err(error).doing("read", &self.file),
        };
        match whole {
            None => Ok(Some(self.pieces.piece())),
            Some(Whole { length, sum })
                if (length, sum) == (self.expected.length, self.expected.sum) =>
            {
                Ok(None)
            }
            Some(_) => {
                Err(corrupt(&self.file, offset, what(), "it is not the one that the log names"))
            }
        }
    }
}

/// The state machine of a snapshot that was opened, as pieces.
pub(crate) fn pieces(opened: Result<SnapshotReader, Error>) -> Pieces {
    let told = |error: Error| RestoreError::new(error.to_string());
    let mut reader = Some(opened);
    Box::new(std::iter::from_fn(move || match reader.take()? {
        Err(error) => Some(Err(told(error))),
        Ok(mut open) => match open.next_piece() {
            Err(error) => Some(Err(told(error))),
            Ok(None) => None,
            Ok(Some(piece)) => {
                let piece = Bytes::copy_from_slice(piece);
                reader = Some(Ok(open));
                Some(Ok(piece))
            }
        },
    }))
}

fn head(identity: &Identity, at: Position, members: &Members) -> Vec<u8> {
    let mut fields = VERSION.to_be_bytes().to_vec();
    put(&mut fields, identity.group);
    put(&mut fields, identity.node.get());
    put_position(&mut fields, at);
    put_members(&mut fields, members);
    sealed_head(MAGIC, &fields)
}

fn read_head(
    stream: &mut Stream,
    identity: &Identity,
    file: &str,
) -> Result<(Position, Members), Error> {
    let damaged = |why| corrupt(file, 0, "the head of the snapshot", why);
    let fields = match open_head(stream, MAGIC) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged("its checksum is wrong"));
        }
        fields => fields.doing("read", file)?,
    };
    let mut reader = Reader::new(&fields);
    match reader.u32() {
        Ok(VERSION) => {}
        Ok(found) => return Err(Error::Version { file: file.to_owned(), found }),
        Err(_) => return Err(damaged("it is too short")),
    }
    let owner = (number(&mut reader), node_id(&mut reader));
    if owner != (Ok(identity.group), Ok(Some(identity.node))) {
        return Err(damaged("it is another node's"));
    }
    match (position(&mut reader), members(&mut reader)) {
        (Ok(at), Ok(members)) if reader.is_empty() => Ok((at, members)),
        _ => Err(damaged("its fields make no sense")),
    }
}

/// Fields of a file's head with what it begins with, their length and a checksum.
pub(crate) fn sealed_head(magic: &[u8; 8], fields: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    put(&mut out, 0);
    out.extend_from_slice(&(fields.len() as u32).to_be_bytes());
    out.extend_from_slice(fields);
    let sum = Salt::none().sum(0, &out[16..]);
    out[8..16].copy_from_slice(&sum.to_be_bytes());
    out
}

/// The fields of a file's head. [`io::ErrorKind::InvalidData`] if there is none.
pub(crate) fn open_head(input: &mut impl Read, magic: &[u8; 8]) -> io::Result<Vec<u8>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let cut_short = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => bad(),
        _ => error,
    };
    let mut front = [0; 20];
    input.read_exact(&mut front).map_err(cut_short)?;
    let length = u32::from_be_bytes([front[16], front[17], front[18], front[19]]) as usize;
    if front[..8] != *magic || length > MAX_HEAD {
        return Err(bad());
    }
    let mut rest = front[16..].to_vec();
    rest.resize(4 + length, 0);
    input.read_exact(&mut rest[4..]).map_err(cut_short)?;
    if front[8..16] != Salt::none().sum(0, &rest).to_be_bytes() {
        return Err(bad());
    }
    Ok(rest.split_off(4))
}
