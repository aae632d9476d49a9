//! Backups: a state machine and the entries after it, in one file that can be restored anywhere.
//!
//! ```text
//! file      "STBBACK1" | head | state machine in pieces | entries in pieces
//! head      checksum 8 | length 4 | version 4, group 8, node 8, made 8, place in the log 16, members
//! entry     index 8, term 8, kind 1, length 4, bytes
//! ```

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use stubborn_core::wire::Reader;
use stubborn_group::replica::refounding;
use stubborn_group::replication::{
    Ballot, Entry, EntryKind, Members, NodeId, Position, Write as LogWrite,
};

use crate::error::{Doing, Error, corrupt};
use crate::fields::{members, node_id, number, position, put, put_members, put_position};
use crate::medium::Medium;
use crate::pieces::{PieceReader, PieceWriter};
use crate::recover::Scan;
use crate::snapshot::{SnapshotReader, open_head, sealed_head};
use crate::store::NewFolder;
use crate::sum::Salt;
use crate::survey::guard;
use crate::{Identity, Options};

const MAGIC: &[u8; 8] = b"STBBACK1";
const VERSION: u32 = 1;
/// What a backup is called in messages.
const FILE: &str = "the backup";

const STATE: Salt = Salt::stream(1);
const ENTRIES: Salt = Salt::stream(2);

/// Bytes of an entry before its data.
const ENTRY_HEADER: usize = 21;

/// Where a backup comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// The group.
    pub group: u64,
    /// The node that made it.
    pub node: NodeId,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// The last entry that is in the state machine.
    pub at: Position,
    /// The members after that entry.
    pub members: Members,
}

/// Writes a backup: the state machine, then the entries after it, if any. A node that serves gives
/// its state machine as it is after one entry, and needs no entries; nothing is held but a piece.
pub struct BackupWriter<W: Write> {
    part: Part<W>,
    last: Position,
}

enum Part<W: Write> {
    State(PieceWriter<W>),
    Entries(PieceWriter<W>),
}

impl<W: Write> BackupWriter<W> {
    /// Begins one.
    ///
    /// # Errors
    /// Of `out`.
    pub fn begin(mut out: W, info: &BackupInfo) -> io::Result<Self> {
        let mut fields = VERSION.to_be_bytes().to_vec();
        put(&mut fields, info.group);
        put(&mut fields, info.node.get());
        put(&mut fields, info.made);
        put_position(&mut fields, info.at);
        put_members(&mut fields, &info.members);
        out.write_all(&sealed_head(MAGIC, &fields))?;
        Ok(Self { part: Part::State(PieceWriter::new(out, STATE)), last: info.at })
    }

    /// Adds bytes of the state machine.
    ///
    /// # Errors
    /// Of `out`.
    ///
    /// # Panics
    /// After an entry: that is a bug of the caller.
    pub fn state(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.part {
            Part::State(pieces) => pieces.write(bytes),
            Part::Entries(_) => panic!("the state machine comes before the entries"),
        }
    }

    /// Ends the state machine, and adds the entries after it.
    ///
    /// # Errors
    /// Of `out`.
    ///
    /// # Panics
    /// If an entry does not follow the one before it: that is a bug of the caller.
    pub fn entries<'a>(mut self, entries: impl IntoIterator<Item = &'a Entry>) -> io::Result<Self> {
        let mut pieces = match self.part {
            Part::State(state) => PieceWriter::new(state.finish()?.0, ENTRIES),
            Part::Entries(pieces) => pieces,
        };
        for entry in entries {
            assert_eq!(entry.at.index, self.last.index + 1, "an entry follows the one before it");
            self.last = entry.at;
            let mut header = Vec::with_capacity(ENTRY_HEADER);
            put_position(&mut header, entry.at);
            header.push(u8::from(entry.kind == EntryKind::Members));
            let length = u32::try_from(entry.data.len()).map_err(io::Error::other)?;
            header.extend_from_slice(&length.to_be_bytes());
            pieces.write(&header)?;
            pieces.write(&entry.data)?;
        }
        Ok(Self { part: Part::Entries(pieces), last: self.last })
    }

    /// Ends it. A file has to be synced by the caller.
    ///
    /// # Errors
    /// Of `out`.
    pub fn finish(self) -> io::Result<W> {
        match self.entries([])?.part {
            Part::Entries(pieces) => Ok(pieces.finish()?.0),
            Part::State(_) => unreachable!("the state machine has ended"),
        }
    }
}

/// Makes a backup of the folder of a node that is stopped: its snapshot and all entries after it, also
/// those that it does not know to be committed, since somebody may have been told that they are.
/// `made`: seconds since 1970.
///
/// # Errors
/// As of [`verify`](crate::verify), and of `out`.
pub fn back_up<W: Write>(
    medium: &dyn Medium,
    out: W,
    made: u64,
    mut progress: impl FnMut(u64),
) -> Result<(BackupInfo, Position), Error> {
    let Some(_guard) = guard(medium)? else { return Err(Error::InUse) };
    let mut scan = Scan::read(medium, &mut |_, _| {})?;
    let mut snapshot = SnapshotReader::open(medium, &scan.identity, scan.replay.snapshot)?;
    let info = BackupInfo {
        group: scan.identity.group,
        node: scan.identity.node,
        made,
        at: snapshot.info().at,
        members: snapshot.info().members.clone(),
    };
    let mut writer = BackupWriter::begin(out, &info).doing("write", FILE)?;
    let mut done = 0;
    while let Some(piece) = snapshot.next_piece()? {
        writer.state(piece).doing("write", FILE)?;
        done += piece.len() as u64;
        progress(done);
    }
    let last = scan.replay.last();
    let entries = scan.replay.take_entries();
    let writer = writer.entries(&entries).doing("write", FILE)?;
    let mut out = writer.finish().doing("write", FILE)?;
    out.flush().doing("write", FILE)?;
    Ok((info, last))
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the backup came from.
    pub from: BackupInfo,
    /// The last entry.
    pub last: Position,
}

/// Makes the folder of a node of a new group from a backup. Every first member of the new group is
/// restored from the same backup with the same group and members. All entries of the backup count as
/// committed; those that changed the members of the old group do nothing. A last entry begins the new
/// group ([`refounding`]): it is another incarnation, and has none of the sessions of the old one.
///
/// # Errors
/// [`Error::Corrupt`] if the backup is damaged, [`Error::Occupied`] if the folder holds a node; of the
/// disk. Then the folder holds no node.
pub fn restore(
    input: impl Read,
    medium: Arc<dyn Medium>,
    identity: Identity,
    members: Members,
    options: Options,
) -> Result<Restored, Error> {
    let mut input = input;
    let from = read_info(&mut input)?;
    let mut folder = NewFolder::begin(medium, identity)?;
    let mut snapshot = folder.snapshot(from.at, members)?;
    let mut pieces = PieceReader::new(input, STATE);
    while advance(&mut pieces, || "the state machine".to_owned())? {
        snapshot.write(pieces.piece())?;
    }
    let mut entries = EntryReader::new(pieces.into_inner(), from.at);
    let mut last = from.at;
    let store = folder.finish(snapshot.finish()?, options, |store| {
        while let Some(chunk) = entries.next_chunk()? {
            last = chunk.last().map_or(last, |entry| entry.at);
            store.append(&[LogWrite { entries: chunk, ..LogWrite::default() }])?;
        }
        // The log of the old group ends here.
        last = Position { index: last.index + 1, term: last.term.max(1) };
        let data = refounding(identity.group);
        let entries = vec![Entry { at: last, kind: EntryKind::Command, data }];
        let ballot = Some(Ballot { term: last.term, vote: None, committed: last.index });
        store.append(&[LogWrite { entries, ballot, ..LogWrite::default() }])
    })?;
    store.close()?;
    Ok(Restored { from, last })
}

/// Where a backup comes from, read from its beginning.
///
/// # Errors
/// [`Error::Corrupt`] if it is none; of `input`.
pub fn read_info(input: &mut impl Read) -> Result<BackupInfo, Error> {
    let damaged = |why| corrupt(FILE, 0, "its head", why);
    let fields = match open_head(input, MAGIC) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged("it is no backup, or its checksum is wrong"));
        }
        fields => fields.doing("read", FILE)?,
    };
    let mut reader = Reader::new(&fields);
    match reader.u32() {
        Ok(VERSION) => {}
        Ok(found) => return Err(Error::Version { file: FILE.into(), found }),
        Err(_) => return Err(damaged("it is too short")),
    }
    let info = info_fields(&mut reader).filter(|info| reader.is_empty() && info.at.is_sound());
    info.ok_or_else(|| damaged("its fields make no sense"))
}

fn info_fields(reader: &mut Reader<'_>) -> Option<BackupInfo> {
    Some(BackupInfo {
        group: number(reader).ok()?,
        node: node_id(reader).ok()??,
        made: number(reader).ok()?,
        at: position(reader).ok()?,
        members: members(reader).ok()?,
    })
}

/// Reads the next piece; false at the end.
fn advance<R: Read>(
    pieces: &mut PieceReader<R>,
    what: impl FnOnce() -> String,
) -> Result<bool, Error> {
    match pieces.advance() {
        Ok(end) => Ok(end.is_none()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(corrupt(FILE, pieces.position(), what(), "it is damaged, or cut short"))
        }
        Err(error) => Err(error).doing("read", FILE),
    }
}

/// Reads entries, some at a time.
struct EntryReader<R> {
    pieces: PieceReader<R>,
    /// Bytes of pieces that are no whole entry yet.
    rest: Vec<u8>,
    last: Position,
}

impl<R: Read> EntryReader<R> {
    fn new(input: R, last: Position) -> Self {
        Self { pieces: PieceReader::new(input, ENTRIES), rest: Vec::new(), last }
    }

    /// The next entries; none at the end.
    fn next_chunk(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let Self { pieces, rest, last } = self;
        let what = |last: &Position| format!("what follows entry {}", last.index);
        loop {
            if !advance(pieces, || what(last))? {
                return match rest.is_empty() {
                    true => Ok(None),
                    false => Err(corrupt(FILE, pieces.position(), what(last), "it is cut short")),
                };
            }
            rest.extend_from_slice(pieces.piece());
            let mut reader = Reader::new(rest);
            let mut entries = Vec::new();
            let mut used = 0;
            while let Ok((entry, kind)) = take_entry(&mut reader) {
                let follows = entry.at.index == last.index + 1 && entry.at.term >= last.term;
                if !follows || kind > 1 {
                    let why = "the entry does not follow the one before it";
                    return Err(corrupt(FILE, pieces.position(), what(last), why));
                }
                *last = entry.at;
                entries.push(entry);
                used = rest.len() - reader.remaining();
            }
            rest.drain(..used);
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
        }
    }
}

/// An entry for the new group, and its kind in the old one. Changes of the old group's members are
/// none of the new one's.
fn take_entry(reader: &mut Reader<'_>) -> Result<(Entry, u8), stubborn_core::wire::Malformed> {
    let at = position(reader)?;
    let kind = reader.u8()?;
    let length = reader.u32()?;
    let data = reader.bytes(length.into())?;
    let data = if kind == 0 { Bytes::copy_from_slice(data) } else { Bytes::new() };
    Ok((Entry { at, kind: EntryKind::Command, data }, kind))
}
