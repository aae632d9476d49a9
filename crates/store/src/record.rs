//! What the log is made of: a head, then batches of records.
//!
//! ```text
//! segment   head (4,096 bytes), then batches, each at a multiple of 8
//! head      "STBLOG01" | one record of kind HEAD | zeros
//! batch     checksum 8 | length 4 | run 4 | number 8 | synced 8 | records
//! record    checksum 8 | length 4 | kind 1 | fields
//! ```
//!
//! A batch is what was written at once. Its number is one more than that of the batch before it, in
//! whichever segment that is. `run` counts how often the folder was opened: the first batch of a run
//! is synced before another is written, so what an earlier run left behind a torn batch is never
//! taken for a part of the log. `synced` is how far the segment was known to be synced when the
//! batch was written: what is damaged before that was damaged after it was synced.

use bytes::Bytes;
use stubborn_core::wire::{Malformed, Reader};
use stubborn_group::replication::{Ballot, Entry, EntryKind, NodeId, Position};

use crate::Identity;
use crate::fields::{count, flag, node_id, number, position, put, put_position};
use crate::sum::Salt;

/// Where the first batch of a segment stands.
pub(crate) const HEAD_SIZE: u64 = 4_096;
pub(crate) const BATCH_HEADER: usize = 32;
pub(crate) const RECORD_HEADER: usize = 13;

const MAGIC: &[u8; 8] = b"STBLOG01";
pub(crate) const VERSION: u32 = 1;

/// Bytes of a batch at most. All that is written at once stands in one.
pub(crate) const MAX_BATCH: usize = 1 << 31;

const HEAD: u8 = 1;
const COMMAND: u8 = 2;
const MEMBERS: u8 = 3;
const BALLOT: u8 = 4;
const SNAPSHOT: u8 = 5;
const OPENED: u8 = 6;
const SEALED: u8 = 7;

/// A snapshot in a file of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SnapshotRef {
    pub(crate) at: Position,
    /// Bytes of the state machine.
    pub(crate) length: u64,
    /// The checksum of all of them.
    pub(crate) sum: u64,
}

/// What a segment begins with: all that is to be known of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) identity: Identity,
    /// The segment's number.
    pub(crate) segment: u64,
    /// Of its first batch.
    pub(crate) batch: u64,
    pub(crate) run: u32,
    pub(crate) ballot: Ballot,
    pub(crate) snapshot: SnapshotRef,
    /// The last entry before it.
    pub(crate) last: Position,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Entry(Entry),
    Ballot(Ballot),
    /// A snapshot counts from here on; `installed`: and takes the place of the whole log.
    Snapshot {
        snapshot: SnapshotRef,
        installed: bool,
    },
    /// The folder was opened, and all before this is synced.
    Opened,
    /// The log goes on in this segment.
    Sealed(u64),
}

/// What stands before the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Of the records.
    pub(crate) length: u32,
    pub(crate) run: u32,
    pub(crate) number: u64,
    pub(crate) synced: u64,
}

impl BatchHeader {
    fn encode(&self, salt: Salt, offset: u64) -> [u8; BATCH_HEADER] {
        let mut out = [0; BATCH_HEADER];
        out[8..12].copy_from_slice(&self.length.to_be_bytes());
        out[12..16].copy_from_slice(&self.run.to_be_bytes());
        out[16..24].copy_from_slice(&self.number.to_be_bytes());
        out[24..32].copy_from_slice(&self.synced.to_be_bytes());
        let sum = salt.sum(offset, &out[8..]);
        out[..8].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// None if there is none at this place.
    pub(crate) fn decode(bytes: &[u8; BATCH_HEADER], salt: Salt, offset: u64) -> Option<Self> {
        let header = Self::read(bytes).ok()?;
        (bytes[..8] == salt.sum(offset, &bytes[8..]).to_be_bytes()).then_some(header)
    }

    /// The fields, whether the checksum is right or not.
    pub(crate) fn read(bytes: &[u8; BATCH_HEADER]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(&bytes[8..]);
        Ok(Self {
            length: reader.u32()?,
            run: reader.u32()?,
            number: number(&mut reader)?,
            synced: number(&mut reader)?,
        })
    }

    /// Where the next batch begins, after one at `offset`.
    pub(crate) fn next(&self, offset: u64) -> u64 {
        (offset + BATCH_HEADER as u64 + u64::from(self.length)).next_multiple_of(8)
    }
}

/// A batch that is being put together.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    salt: Salt,
    offset: u64,
}

impl Batch {
    /// Begins one that will stand at `offset`, in memory that is used again.
    pub(crate) fn begin(mut bytes: Vec<u8>, salt: Salt, offset: u64) -> Self {
        bytes.clear();
        bytes.resize(BATCH_HEADER, 0);
        Self { bytes, salt, offset }
    }

    pub(crate) fn entry(&mut self, entry: &Entry) {
        let kind = match entry.kind {
            EntryKind::Command => COMMAND,
            EntryKind::Members => MEMBERS,
        };
        self.record(kind, |out| {
            put_position(out, entry.at);
            out.extend_from_slice(&entry.data);
        });
    }

    pub(crate) fn ballot(&mut self, ballot: &Ballot) {
        self.record(BALLOT, |out| put_ballot(out, ballot));
    }

    pub(crate) fn snapshot(&mut self, snapshot: &SnapshotRef, installed: bool) {
        self.record(SNAPSHOT, |out| {
            put_snapshot(out, snapshot);
            out.push(u8::from(installed));
        });
    }

    pub(crate) fn opened(&mut self) {
        self.record(OPENED, |_| {});
    }

    pub(crate) fn sealed(&mut self, next: u64) {
        self.record(SEALED, |out| put(out, next));
    }

    /// Any record; what it says may make no sense.
    pub(crate) fn record(&mut self, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        let offset = self.offset + start as u64;
        put_record(&mut self.bytes, self.salt, offset, kind, fields);
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes to be written, a multiple of 8.
    pub(crate) fn finish(mut self, number: u64, run: u32, synced: u64) -> Vec<u8> {
        let length = (self.bytes.len() - BATCH_HEADER) as u32;
        let header = BatchHeader { length, run, number, synced };
        self.bytes[..BATCH_HEADER].copy_from_slice(&header.encode(self.salt, self.offset));
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.bytes
    }
}

/// Where a batch stops making sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRecord {
    /// Records before it that are good.
    pub(crate) good: usize,
    /// From the beginning of the records.
    pub(crate) offset: usize,
    pub(crate) why: &'static str,
}

/// Takes the records of a batch apart that stand at `offset` of the file.
pub(crate) fn decode_records(
    bytes: &[u8],
    salt: Salt,
    offset: u64,
) -> Result<Vec<Record>, (Vec<Record>, BadRecord)> {
    let mut records = Vec::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let at = bytes.len() - reader.remaining();
        match take_record(&mut reader, salt, offset + at as u64).and_then(decode_record) {
            Ok(record) => records.push(record),
            Err(why) => {
                let good = records.len();
                return Err((records, BadRecord { good, offset: at, why }));
            }
        }
    }
    Ok(records)
}

impl Head {
    /// The first bytes of a segment.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let salt = Salt::log(&self.identity, self.segment);
        put_record(&mut out, salt, MAGIC.len() as u64, HEAD, |out| {
            out.extend_from_slice(&VERSION.to_be_bytes());
            put(out, self.segment);
            put(out, self.batch);
            out.extend_from_slice(&self.run.to_be_bytes());
            put_ballot(out, &self.ballot);
            put_snapshot(out, &self.snapshot);
            put_position(out, self.last);
        });
        out.resize(HEAD_SIZE as usize, 0);
        out
    }

    /// Reads the first bytes of segment `segment`.
    pub(crate) fn decode(
        bytes: &[u8],
        identity: Identity,
        segment: u64,
    ) -> Result<Self, HeadError> {
        let content =
            bytes.strip_prefix(MAGIC).ok_or(HeadError::Bad("it does not begin as one"))?;
        let mut reader = Reader::new(content);
        let salt = Salt::log(&identity, segment);
        let record = take_record(&mut reader, salt, MAGIC.len() as u64).map_err(HeadError::Bad)?;
        let (HEAD, fields) = record else { return Err(HeadError::Bad("it is something else")) };
        let mut reader = Reader::new(fields);
        let version = reader.u32().map_err(|_| HeadError::Bad("it is too short"))?;
        if version != VERSION {
            return Err(HeadError::Version(version));
        }
        Self::fields(&mut reader, identity).map_err(|_| HeadError::Bad("its fields make no sense"))
    }

    fn fields(reader: &mut Reader<'_>, identity: Identity) -> Result<Self, Malformed> {
        let head = Self {
            identity,
            segment: count(reader)?,
            batch: count(reader)?,
            run: reader.u32()?,
            ballot: ballot(reader)?,
            snapshot: snapshot(reader)?,
            last: position(reader)?,
        };
        if reader.is_empty() { Ok(head) } else { Err(Malformed) }
    }
}

pub(crate) enum HeadError {
    Bad(&'static str),
    Version(u32),
}

fn put_record(
    out: &mut Vec<u8>,
    salt: Salt,
    offset: u64,
    kind: u8,
    fields: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER]);
    fields(out);
    let length = (out.len() - start - RECORD_HEADER) as u32;
    out[start + 8..start + 12].copy_from_slice(&length.to_be_bytes());
    out[start + 12] = kind;
    let sum = salt.sum(offset, &out[start + 8..]);
    out[start..start + 8].copy_from_slice(&sum.to_be_bytes());
}

/// Takes a record's kind and fields off the front, once its checksum is right.
fn take_record<'a>(
    reader: &mut Reader<'a>,
    salt: Salt,
    offset: u64,
) -> Result<(u8, &'a [u8]), &'static str> {
    let whole = reader.rest();
    let mut inner = Reader::new(whole);
    let parts = inner.array::<8>().and_then(|sum| Ok((sum, inner.u32()?)));
    let (sum, length) = parts.map_err(|_| "it is cut short")?;
    let size = RECORD_HEADER + length as usize;
    let record = whole.get(..size).ok_or("its length is wrong")?;
    if salt.sum(offset, &record[8..]).to_be_bytes() != sum {
        return Err("its checksum is wrong");
    }
    *reader = Reader::new(&whole[size..]);
    Ok((record[12], &record[RECORD_HEADER..]))
}

fn decode_record((kind, fields): (u8, &[u8])) -> Result<Record, &'static str> {
    let mut reader = Reader::new(fields);
    let record = record_fields(kind, &mut reader).map_err(|_| "its fields make no sense")?;
    if reader.is_empty() { Ok(record) } else { Err("it is too long") }
}

fn record_fields(kind: u8, reader: &mut Reader<'_>) -> Result<Record, Malformed> {
    let entry = |reader: &mut Reader<'_>, kind| {
        let at = position(reader)?;
        Ok(Record::Entry(Entry { at, kind, data: Bytes::copy_from_slice(reader.rest()) }))
    };
    match kind {
        COMMAND => entry(reader, EntryKind::Command),
        MEMBERS => entry(reader, EntryKind::Members),
        BALLOT => ballot(reader).map(Record::Ballot),
        SNAPSHOT => Ok(Record::Snapshot { snapshot: snapshot(reader)?, installed: flag(reader)? }),
        OPENED => Ok(Record::Opened),
        SEALED => number(reader).map(Record::Sealed),
        _ => Err(Malformed),
    }
}

fn put_ballot(out: &mut Vec<u8>, ballot: &Ballot) {
    put(out, ballot.term);
    put(out, ballot.vote.map_or(0, NodeId::get));
    put(out, ballot.committed);
}

fn ballot(reader: &mut Reader<'_>) -> Result<Ballot, Malformed> {
    Ok(Ballot { term: count(reader)?, vote: node_id(reader)?, committed: count(reader)? })
}

fn put_snapshot(out: &mut Vec<u8>, snapshot: &SnapshotRef) {
    put_position(out, snapshot.at);
    put(out, snapshot.length);
    put(out, snapshot.sum);
}

fn snapshot(reader: &mut Reader<'_>) -> Result<SnapshotRef, Malformed> {
    Ok(SnapshotRef { at: position(reader)?, length: number(reader)?, sum: number(reader)? })
}
