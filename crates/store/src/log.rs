//! Appends to the log: batch after batch, segment after segment.
//!
//! A segment is written over zeros, or over an older segment that is not needed any more, so that a
//! sync has nothing to do but write data: where a file grows, its file system writes a journal too.

use std::collections::VecDeque;
use std::sync::Arc;

use stubborn_group::replication::{Ballot, Position};

use crate::Identity;
use crate::direct::BLOCK;
use crate::error::{Doing, Error};
use crate::medium::{Medium, MediumFile, SyncedFile};
use crate::record::{Batch, HEAD_SIZE, Head, MAX_BATCH, SnapshotRef};
use crate::recover::Scan;
use crate::segment::name;
use crate::sum::Salt;

/// The file of a segment that waits to be used again.
pub(crate) const SPARE: &str = "log-spare";
/// A segment until its head is synced.
pub(crate) const UNFINISHED: &str = "log-new";

/// Bytes that wait for a sync, at most.
const MOST_HELD: usize = 8 << 20;

/// How the log uses the disk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes after which the log goes on in another file. A snapshot frees whole files only.
    pub segment: u64,
    /// Bytes of zeros that are written at once ahead of a log that has no older file to write over.
    pub step: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment: 64 << 20, step: 1 << 20 }
    }
}

/// What a segment that begins now has to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    pub(crate) ballot: Ballot,
    pub(crate) snapshot: SnapshotRef,
    /// The last entry.
    pub(crate) last: Position,
}

pub(crate) struct Log {
    medium: Arc<dyn Medium>,
    identity: Identity,
    options: Options,
    file: Box<dyn MediumFile>,
    /// Where writes are durable when they return: then nothing is written before it is to be synced.
    direct: Option<Box<dyn SyncedFile>>,
    /// What is to be written with the next sync, from `synced` on.
    held: Vec<u8>,
    /// The segments before the current one, oldest first.
    older: VecDeque<Older>,
    /// The current segment: its number and its name.
    segment: u64,
    name: String,
    /// Where the next batch goes.
    offset: u64,
    /// Bytes of the file: so far there is something to write over.
    prepared: u64,
    synced: u64,
    /// The number of the last batch.
    batch: u64,
    run: u32,
    /// The last entry that any batch of the current segment names.
    max_index: u64,
    has_spare: bool,
    /// Memory of the last batch.
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Older {
    number: u64,
    max_index: u64,
}

impl Log {
    /// Makes the log of a new node; the names are not synced.
    pub(crate) fn create(
        medium: Arc<dyn Medium>,
        identity: Identity,
        options: Options,
        tip: &Tip,
    ) -> Result<Self, Error> {
        let head = Head {
            identity,
            segment: 1,
            batch: 1,
            run: 1,
            ballot: tip.ballot,
            snapshot: tip.snapshot,
            last: tip.last,
        };
        let file = write_segment(&*medium, &head, false)?;
        let direct = open_synced(&*medium, &name(1))?;
        Ok(Self {
            medium,
            identity,
            options,
            file,
            direct,
            held: Vec::new(),
            older: VecDeque::new(),
            segment: 1,
            name: name(1),
            offset: HEAD_SIZE,
            prepared: HEAD_SIZE,
            synced: HEAD_SIZE,
            batch: 0,
            run: 1,
            max_index: 0,
            has_spare: false,
            buffer: Vec::new(),
        })
    }

    /// Goes on where a log ends that was read. What was read is synced first: it may be there only
    /// because the process that wrote it died, and not the machine.
    pub(crate) fn resume(
        medium: Arc<dyn Medium>,
        options: Options,
        scan: &Scan,
        has_spare: bool,
    ) -> Result<Self, Error> {
        let older = scan.segments.split_last().map_or(&[][..], |(_, older)| older);
        let current = scan.segments.last().expect("a log that was read has a segment");
        let name = name(current.number);
        let file = medium.open(&name).doing("open", &name)?;
        let direct = open_synced(&*medium, &name)?;
        let older = older.iter();
        let mut log = Self {
            identity: scan.identity,
            options,
            file,
            direct,
            held: Vec::new(),
            older: older.map(|s| Older { number: s.number, max_index: s.max_index }).collect(),
            segment: current.number,
            name,
            offset: current.used,
            prepared: current.length,
            synced: current.used,
            batch: scan.replay.batch,
            run: scan.replay.run.saturating_add(1),
            max_index: current.max_index,
            has_spare,
            buffer: Vec::new(),
            medium,
        };
        let mut batch = log.begin();
        batch.opened();
        log.append(batch)?;
        log.sync()?;
        Ok(log)
    }

    /// Begins a batch at the end.
    pub(crate) fn begin(&mut self) -> Batch {
        let salt = Salt::log(&self.identity, self.segment);
        Batch::begin(std::mem::take(&mut self.buffer), salt, self.offset)
    }

    /// Writes a batch that was begun after the last one was written.
    pub(crate) fn append(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.size() > MAX_BATCH {
            return Err(Error::TooLarge);
        }
        let bytes = batch.finish(self.batch + 1, self.run, self.synced);
        self.write(self.offset, &bytes)?;
        self.batch += 1;
        self.offset += bytes.len() as u64;
        self.buffer = bytes;
        if self.held.len() >= MOST_HELD { self.sync() } else { Ok(()) }
    }

    /// Writes what comes next, or holds it for the next sync.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.prepare(offset + bytes.len() as u64)?;
        if self.direct.is_some() {
            self.held.extend_from_slice(bytes);
        } else {
            self.file.write_at(offset, bytes).doing("write", &self.name)?;
        }
        Ok(())
    }

    /// An entry of this index is in the batch that will be written next.
    pub(crate) fn names_entry(&mut self, index: u64) {
        self.max_index = self.max_index.max(index);
    }

    /// Makes durable all that was written.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if self.synced < self.offset {
            match &mut self.direct {
                Some(file) => {
                    file.write_at(self.synced, &self.held).doing("write", &self.name)?;
                    self.held.clear();
                }
                None => self.file.sync().doing("sync", &self.name)?,
            }
            self.synced = self.offset;
        }
        Ok(())
    }

    /// Notes in the log that all before is synced, without syncing the note if that takes more. It is
    /// repeated up to the next block, so that a block which is lost does not take it along with what
    /// it speaks of.
    pub(crate) fn note_synced(&mut self) -> Result<(), Error> {
        let (first, synced) = (self.offset, self.synced);
        let next_block = first.next_multiple_of(BLOCK as u64);
        let (mut notes, mut last) = (Vec::new(), 0);
        while last < next_block {
            last = self.offset;
            let note = self.begin().finish(self.batch + 1, self.run, synced);
            notes.extend_from_slice(&note);
            self.batch += 1;
            self.offset += note.len() as u64;
            self.buffer = note;
        }
        self.write(first, &notes)?;
        if self.direct.is_some() { self.sync() } else { Ok(()) }
    }

    /// Whether something waits in memory for the next sync.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether there is something that is not synced.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced == self.offset
    }

    /// Whether the next batch belongs into another segment.
    pub(crate) fn is_full(&self) -> bool {
        self.offset >= self.options.segment
    }

    /// Goes on in another segment. First that one is made, then this one is sealed: a segment that
    /// is sealed and last has lost its successor.
    pub(crate) fn rotate(&mut self, tip: &Tip) -> Result<(), Error> {
        let head = Head {
            identity: self.identity,
            segment: self.segment + 1,
            batch: self.batch + 2,
            run: self.run,
            ballot: tip.ballot,
            snapshot: tip.snapshot,
            last: tip.last,
        };
        let file = write_segment(&*self.medium, &head, self.has_spare)?;
        self.has_spare = false;
        self.medium.sync_names().doing("sync", "the folder")?;
        let prepared = file.length().doing("read", &name(head.segment))?;
        let mut batch = self.begin();
        batch.sealed(head.segment);
        self.append(batch)?;
        self.sync()?;
        self.older.push_back(Older { number: self.segment, max_index: self.max_index });
        self.file = file;
        self.direct = open_synced(&*self.medium, &name(head.segment))?;
        self.segment = head.segment;
        self.name = name(head.segment);
        self.offset = HEAD_SIZE;
        self.synced = HEAD_SIZE;
        self.prepared = prepared;
        self.max_index = 0;
        Ok(())
    }

    /// What older segments name is not needed any more: the log was replaced, and that is synced.
    pub(crate) fn forget_older_entries(&mut self) {
        self.older.iter_mut().for_each(|segment| segment.max_index = 0);
    }

    /// Removes the oldest segments, as far as all entries in them are covered by a snapshot that is
    /// synced. One file is kept, to be written over.
    pub(crate) fn drop_covered(&mut self, index: u64) -> Result<(), Error> {
        while let Some(oldest) = self.older.front().filter(|older| older.max_index <= index) {
            let file = name(oldest.number);
            if self.has_spare {
                self.medium.remove(&file).doing("remove", &file)?;
            } else {
                self.medium.rename(&file, SPARE).doing("rename", &file)?;
                self.has_spare = true;
            }
            self.older.pop_front();
        }
        Ok(())
    }

    /// Writes zeros ahead now, while nothing waits for the disk, if less than half of what is written at
    /// once is left.
    pub(crate) fn prepare_ahead(&mut self) -> Result<(), Error> {
        let left = self.prepared.saturating_sub(self.offset);
        if left >= self.options.step / 2 || self.prepared >= self.options.segment {
            return Ok(());
        }
        self.prepare(self.prepared + 1)?;
        // Or the next sync would have to write them.
        if self.direct.is_none() { self.file.sync().doing("sync", &self.name) } else { Ok(()) }
    }

    /// Bytes of zeros ahead, so that the file grows rarely.
    fn prepare(&mut self, end: u64) -> Result<(), Error> {
        if end <= self.prepared {
            return Ok(());
        }
        let prepared = end.next_multiple_of(self.options.step.max(8));
        let zeros = vec![0; (prepared - self.prepared) as usize];
        self.file.write_at(self.prepared, &zeros).doing("write", &self.name)?;
        if self.direct.is_some() {
            // What is in the cache would have to be written before each write past it.
            self.file.sync().doing("sync", &self.name)?;
        }
        self.prepared = prepared;
        Ok(())
    }
}

fn open_synced(medium: &dyn Medium, name: &str) -> Result<Option<Box<dyn SyncedFile>>, Error> {
    medium.open_synced(name).doing("open", name)
}

/// Makes a segment, of the spare file if there is one. Its content is synced, its name is not.
fn write_segment(
    medium: &dyn Medium,
    head: &Head,
    from_spare: bool,
) -> Result<Box<dyn MediumFile>, Error> {
    let mut file = if from_spare {
        // The spare file may still have the name of a segment on the disk.
        medium.sync_names().doing("sync", "the folder")?;
        medium.rename(SPARE, UNFINISHED).doing("rename", SPARE)?;
        medium.open(UNFINISHED).doing("open", UNFINISHED)?
    } else {
        medium.create(UNFINISHED).doing("make", UNFINISHED)?
    };
    file.write_at(0, &head.encode()).doing("write", UNFINISHED)?;
    file.sync().doing("sync", UNFINISHED)?;
    let name = name(head.segment);
    medium.rename(UNFINISHED, &name).doing("rename", UNFINISHED)?;
    Ok(file)
}
