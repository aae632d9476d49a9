//! Reads what a folder holds: identity, log and which files belong to it.

use std::collections::BTreeSet;

use crate::error::{Doing, Error, corrupt};
use crate::medium::Medium;
use crate::replay::Replay;
use crate::segment::{Next, Segment, name, number};
use crate::{Identity, identity, snapshot};

/// What a folder holds, as far as the log says.
pub(crate) struct Scan {
    pub(crate) identity: Identity,
    pub(crate) replay: Replay,
    /// The segments, oldest first; at least one.
    pub(crate) segments: Vec<ScannedSegment>,
    /// Files of ours that are not needed: the store removes them when it is opened.
    pub(crate) leftovers: Vec<String>,
    /// Whether the log ends in a write that did not get through.
    pub(crate) torn: bool,
}

/// A segment that was read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedSegment {
    pub(crate) number: u64,
    /// Bytes that belong to the log.
    pub(crate) used: u64,
    /// Bytes of the file.
    pub(crate) length: u64,
    /// The last entry that any batch of it names.
    pub(crate) max_index: u64,
}

impl Scan {
    /// Reads the log. `progress` is told how many bytes of segments were read of how many.
    pub(crate) fn read(
        medium: &dyn Medium,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let names: BTreeSet<String> =
            medium.list().doing("list", "the folder")?.into_iter().collect();
        if !names.contains(identity::FILE) {
            return Err(Error::NoNode);
        }
        let identity = Identity::read(medium)?;
        let all: BTreeSet<u64> = names.iter().filter_map(|name| number(name)).collect();
        let chain = last_in_a_row(&all);
        let mut log = Log::read(medium, identity, &chain, progress)?;
        let old = all.iter().filter(|number| chain.first().is_none_or(|first| *number < first));
        let mut leftovers: Vec<String> = old.map(|number| name(*number)).collect();
        leftovers.extend(log.unused.take().map(name));
        let current = snapshot::name(log.replay.snapshot.at.index);
        leftovers.extend(names.into_iter().filter(|name| {
            snapshot::is_unfinished(name)
                || *name == identity::UNFINISHED
                || (snapshot::index(name).is_some() && *name != current)
        }));
        let Log { replay, segments, torn, .. } = log;
        Ok(Self { identity, replay, segments, leftovers, torn })
    }
}

/// The log is in the segments of the last numbers without a gap. Older ones are there when names
/// were removed and some of that was not synced.
fn last_in_a_row(numbers: &BTreeSet<u64>) -> Vec<u64> {
    let mut row: Vec<u64> = Vec::new();
    for number in numbers.iter().rev() {
        if row.last().is_some_and(|after| number + 1 != *after) {
            break;
        }
        row.push(*number);
    }
    row.reverse();
    row
}

struct Log {
    replay: Replay,
    segments: Vec<ScannedSegment>,
    torn: bool,
    /// A segment that was made and not used yet.
    unused: Option<u64>,
}

impl Log {
    fn read(
        medium: &dyn Medium,
        identity: Identity,
        chain: &[u64],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let Some((first, rest)) = chain.split_first() else {
            return Err(corrupt(&name(1), 0, "the log", "no segment of it is there"));
        };
        let open = |number: u64| {
            let file = medium.open_to_read(&name(number)).doing("open", &name(number))?;
            Segment::open(file, identity, number)
        };
        let mut segment = open(*first)?;
        let replay = Replay::start(&segment.head);
        let mut log = Self { replay, segments: Vec::new(), torn: false, unused: None };
        let mut total = segment.length();
        let mut done = 0;
        for number in rest.iter().map(Some).chain([None]) {
            let next = number.map(|number| open(*number)).transpose()?;
            total += next.as_ref().map_or(0, Segment::length);
            log.read_segment(&mut segment, &mut |read| progress(done + read, total))?;
            done += segment.length();
            match next {
                Some(next) if segment.sealed == Some(next.head.segment) => segment = next,
                Some(next) => {
                    // Sealing is the last step of going on in another segment.
                    log.must_be_unused(&segment, next, rest.last())?;
                    break;
                }
                None => {}
            }
        }
        log.check_end(&segment)?;
        Ok(log)
    }

    fn read_segment(
        &mut self,
        segment: &mut Segment,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        if segment.head.batch != self.replay.batch.wrapping_add(1) {
            let what = format!("what follows entry {}", self.replay.last().index);
            return Err(corrupt(&segment.name, 0, what, "batches are missing before the segment"));
        }
        while segment.sealed.is_none() {
            progress(segment.offset);
            if let Next::End { torn } = segment.next(&mut self.replay)? {
                self.torn = torn;
                break;
            }
        }
        self.segments.push(ScannedSegment {
            number: segment.head.segment,
            used: segment.offset,
            length: segment.length(),
            max_index: segment.max_index,
        });
        Ok(())
    }

    fn must_be_unused(
        &mut self,
        segment: &Segment,
        mut next: Segment,
        last: Option<&u64>,
    ) -> Result<(), Error> {
        if last != Some(&next.head.segment) || next.has_batches()? {
            let what = format!("what follows entry {}", self.replay.last().index);
            let why = "it ends before it is said to go on in another segment";
            return Err(corrupt(&segment.name, segment.offset, what, why));
        }
        self.unused = Some(next.head.segment);
        Ok(())
    }

    fn check_end(&self, segment: &Segment) -> Result<(), Error> {
        if let (Some(next), None) = (segment.sealed, self.unused) {
            let what = format!("what follows entry {}", self.replay.last().index);
            return Err(corrupt(&name(next), 0, what, "the segment is missing"));
        }
        if self.replay.before() > self.replay.snapshot.at.index {
            let first = self.segments.first().map_or(1, |segment| segment.number);
            let what = format!("what follows entry {}", self.replay.snapshot.at.index);
            let why = "segments before it are missing";
            return Err(corrupt(&name(first), 0, what, why));
        }
        Ok(())
    }
}
