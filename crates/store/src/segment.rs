//! Reads a segment of the log: batch after batch, to its end or to where it stops making sense.

use std::io;

use crate::Identity;
use crate::error::{Doing, Error, corrupt};
use crate::medium::{MediumFile, read_full};
use crate::record::{
    BATCH_HEADER, BatchHeader, HEAD_SIZE, Head, HeadError, Record, decode_records,
};
use crate::replay::Replay;
use crate::sum::Salt;

/// Bytes that are read at once.
const STEP: usize = 256 << 10;

const PREFIX: &str = "log-";

/// The name of a segment's file.
pub(crate) fn name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// The number in the name of a segment's file.
pub(crate) fn number(file: &str) -> Option<u64> {
    let number: u32 = file.strip_prefix(PREFIX)?.parse().ok()?;
    let number = u64::from(number);
    (name(number) == file).then_some(number)
}

/// Parts of a file, read in larger pieces. What it holds is bounded by the largest part.
struct Window {
    file: Box<dyn MediumFile>,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn new(file: Box<dyn MediumFile>) -> io::Result<Self> {
        let length = file.length()?;
        Ok(Self { file, length, start: 0, bytes: Vec::new() })
    }

    /// So many bytes at `offset`; none if the file ends before.
    fn get(&mut self, offset: u64, size: usize) -> io::Result<Option<&[u8]>> {
        if offset.checked_add(size as u64).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let held = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + size as u64 > held {
            let wanted = (self.length - offset).min(size.max(STEP) as u64) as usize;
            self.bytes.clear();
            self.bytes.resize(wanted, 0);
            let read = read_full(&*self.file, offset, &mut self.bytes)?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..from + size))
    }
}

/// A segment that is being read.
pub(crate) struct Segment {
    pub(crate) head: Head,
    pub(crate) name: String,
    window: Window,
    salt: Salt,
    /// Where the next batch would begin.
    pub(crate) offset: u64,
    /// The last entry that any batch of it names.
    pub(crate) max_index: u64,
    /// The next segment, once the last batch was read.
    pub(crate) sealed: Option<u64>,
}

/// What stands at the next place for a batch.
pub(crate) enum Next {
    /// So many records, which were applied.
    Batch,
    /// Nothing that is a part of the log, and nothing after it that was written later and says that
    /// this place was synced: the end. `torn`: where a write stands that did not get through.
    End { torn: bool },
}

impl Segment {
    pub(crate) fn open(
        file: Box<dyn MediumFile>,
        identity: Identity,
        number: u64,
    ) -> Result<Self, Error> {
        let name = name(number);
        let mut window = Window::new(file).doing("read", &name)?;
        let bytes = window.get(0, HEAD_SIZE as usize).doing("read", &name)?.unwrap_or_default();
        let head = Head::decode(bytes, identity, number).map_err(|error| match error {
            HeadError::Bad(why) => corrupt(&name, 0, "the head of the segment", why),
            HeadError::Version(found) => Error::Version { file: name.clone(), found },
        })?;
        let salt = Salt::log(&identity, number);
        Ok(Self { head, name, window, salt, offset: HEAD_SIZE, max_index: 0, sealed: None })
    }

    /// The file's length.
    pub(crate) fn length(&self) -> u64 {
        self.window.length
    }

    /// Whether its first batch is there.
    pub(crate) fn has_batches(&mut self) -> Result<bool, Error> {
        Ok(self.header(HEAD_SIZE)?.is_some_and(|header| header.number == self.head.batch))
    }

    /// Reads the next batch and applies its records.
    pub(crate) fn next(&mut self, replay: &mut Replay) -> Result<Next, Error> {
        let offset = self.offset;
        let header = match self.header(offset)? {
            Some(header) if header.number != replay.batch.wrapping_add(1) => {
                return self.end(replay, false, "another batch is there");
            }
            Some(header) => header,
            None => return self.end(replay, false, "no batch is there"),
        };
        let start = offset + BATCH_HEADER as u64;
        let records = self.window.get(start, header.length as usize).doing("read", &self.name)?;
        let Some(records) = records else {
            return self.end(replay, true, "the batch is longer than the file");
        };
        let records = match decode_records(records, self.salt, start) {
            Ok(records) => records,
            Err((good, bad)) => {
                let named = good.iter().rev().find_map(|record| match record {
                    Record::Entry(entry) => Some(entry.at.index),
                    _ => None,
                });
                let after = named.unwrap_or(replay.last().index);
                let at = start + bad.offset as u64;
                self.must_end(replay, at, after, bad.why)?;
                return Ok(Next::End { torn: true });
            }
        };
        // The first batch of a run is synced before others are written: one of an earlier run that
        // stands after it was left behind by a write that was torn.
        let begins_run = records.first() == Some(&Record::Opened);
        if header.run < replay.run || (header.run > replay.run && !begins_run) {
            return self.end(replay, false, "the batch is of another run");
        }
        self.apply(records, replay)?;
        replay.batch = header.number;
        replay.run = header.run;
        self.offset = header.next(offset);
        Ok(Next::Batch)
    }

    fn apply(&mut self, records: Vec<Record>, replay: &mut Replay) -> Result<(), Error> {
        for record in records {
            match &record {
                Record::Entry(entry) => self.max_index = self.max_index.max(entry.at.index),
                Record::Sealed(next) => self.sealed = Some(*next),
                _ => {}
            }
            let what = match &record {
                Record::Entry(entry) => format!("entry {}", entry.at.index),
                _ => format!("a record after entry {}", replay.last().index),
            };
            replay.apply(record).map_err(|why| corrupt(&self.name, self.offset, what, why))?;
        }
        Ok(())
    }

    fn header(&mut self, offset: u64) -> Result<Option<BatchHeader>, Error> {
        let bytes = self.window.get(offset, BATCH_HEADER).doing("read", &self.name)?;
        let bytes = bytes.and_then(|bytes| bytes.first_chunk());
        Ok(bytes.and_then(|bytes| BatchHeader::decode(bytes, self.salt, offset)))
    }

    fn end(&mut self, replay: &Replay, torn: bool, why: &'static str) -> Result<Next, Error> {
        self.must_end(replay, self.offset, replay.last().index, why)?;
        Ok(Next::End { torn })
    }

    /// The log goes no further here. If it did once, the segment is damaged.
    fn must_end(
        &mut self,
        replay: &Replay,
        offset: u64,
        after: u64,
        why: &'static str,
    ) -> Result<(), Error> {
        if self.was_synced_beyond(replay)? {
            let what = format!("what follows entry {after}");
            return Err(corrupt(&self.name, offset, what, why));
        }
        Ok(())
    }

    /// Whether a batch further on says that the place where the log ends now was synced before.
    fn was_synced_beyond(&mut self, replay: &Replay) -> Result<bool, Error> {
        let batches = self.window.length / BATCH_HEADER as u64;
        let numbers = replay.batch.saturating_add(1)..=replay.batch.saturating_add(batches);
        let mut offset = self.offset;
        while let Some(bytes) = self.window.get(offset, BATCH_HEADER).doing("read", &self.name)? {
            let Some(bytes) = bytes.first_chunk() else { break };
            // The number first: few bytes that are no batch get so far as their checksum.
            let likely = BatchHeader::read(bytes).is_ok_and(|header| {
                numbers.contains(&header.number)
                    && header.run >= replay.run
                    && header.synced > self.offset
            });
            if likely && BatchHeader::decode(bytes, self.salt, offset).is_some() {
                return Ok(true);
            }
            offset += 8;
        }
        Ok(false)
    }
}
