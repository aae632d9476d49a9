//! Looks at a folder without changing it.

use std::any::Any;

use stubborn_group::replication::{Ballot, Position};

use crate::error::{Doing, Error};
use crate::medium::Medium;
use crate::recover::Scan;
use crate::segment::name;
use crate::snapshot::SnapshotReader;
use crate::store::LOCK;
use crate::{Identity, SnapshotInfo};

/// What a node's folder holds.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Whose it is.
    pub identity: Identity,
    /// What it has promised.
    pub ballot: Ballot,
    /// The snapshot, with the members after it.
    pub snapshot: SnapshotInfo,
    /// The last entry of the log.
    pub last: Position,
    /// Entries after the snapshot.
    pub entries: u64,
    /// Entries after the snapshot that change the members.
    pub member_changes: u64,
    /// How often the folder was opened.
    pub opened: u32,
    /// The segments of the log, oldest first.
    pub segments: Vec<SegmentSurvey>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files that the store removes when it is opened next.
    pub leftovers: Vec<String>,
    /// Whether the log ends in a write that did not get through; the store cuts it off when it is
    /// opened next.
    pub torn: bool,
    /// Whether a process has the folder open. Then this is how it was a moment ago.
    pub in_use: bool,
}

/// A segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSurvey {
    /// Its name.
    pub file: String,
    /// Bytes that belong to the log.
    pub used: u64,
    /// Bytes of the file.
    pub length: u64,
}

/// How far a check is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// So many were read.
    pub done: u64,
    /// Of so many; it may grow.
    pub total: u64,
}

/// Reads the log of a folder, but not the state machine.
///
/// # Errors
/// [`Error::NoNode`]; [`Error::Corrupt`] if the log is damaged.
pub fn survey(medium: &dyn Medium) -> Result<Survey, Error> {
    // A folder that is in use changes while it is read, and may look damaged then.
    const ATTEMPTS: usize = 5;
    for _ in 1..ATTEMPTS {
        let guard = guard(medium)?;
        let result = look(medium, guard.is_none(), &mut |_| {});
        if result.is_ok() || guard.is_some() {
            return result.map(|(survey, _)| survey);
        }
    }
    look(medium, true, &mut |_| {}).map(|(survey, _)| survey)
}

/// Reads and checks everything in a folder that no process has open.
///
/// # Errors
/// [`Error::NoNode`]; [`Error::InUse`]; [`Error::Corrupt`] for the first thing that is damaged.
pub fn verify(medium: &dyn Medium, mut progress: impl FnMut(Progress)) -> Result<Survey, Error> {
    let Some(_guard) = guard(medium)? else { return Err(Error::InUse) };
    let (survey, mut snapshot) = look(medium, false, &mut progress)?;
    let log: u64 = survey.segments.iter().map(|segment| segment.length).sum();
    let total = log + survey.snapshot.length;
    let mut done = log;
    while let Some(piece) = snapshot.next_piece()? {
        done += piece.len() as u64;
        progress(Progress { done, total });
    }
    Ok(survey)
}

fn look(
    medium: &dyn Medium,
    in_use: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Survey, SnapshotReader), Error> {
    let mut scan = Scan::read(medium, &mut |done, total| progress(Progress { done, total }))?;
    let snapshot = SnapshotReader::open(medium, &scan.identity, scan.replay.snapshot)?;
    let mut bytes = 0;
    for name in medium.list().doing("list", "the folder")? {
        // Other files than ours may be there, and may not be read by everybody.
        bytes += medium.open_to_read(&name).and_then(|file| file.length()).unwrap_or(0);
    }
    let segment = |segment: &crate::recover::ScannedSegment| SegmentSurvey {
        file: name(segment.number),
        used: segment.used,
        length: segment.length,
    };
    let last = scan.replay.last();
    let entries = scan.replay.take_entries();
    let changes = entries.iter().filter(|entry| !entry.is_command() && !entry.data.is_empty());
    let survey = Survey {
        identity: scan.identity,
        ballot: scan.replay.ballot,
        snapshot: snapshot.info().clone(),
        last,
        entries: entries.len() as u64,
        member_changes: changes.count() as u64,
        opened: scan.replay.run,
        segments: scan.segments.iter().map(segment).collect(),
        bytes,
        leftovers: scan.leftovers,
        torn: scan.torn,
        in_use,
    };
    Ok((survey, snapshot))
}

/// Keeps other processes out while the folder is read; none if one is in.
pub(crate) fn guard(medium: &dyn Medium) -> Result<Option<Box<dyn Any + Send>>, Error> {
    let names = medium.list().doing("list", "the folder")?;
    // A copy of a folder may be without the file, and is left as it is.
    if !names.iter().any(|name| name == LOCK) {
        return Ok(Some(Box::new(())));
    }
    medium.lock(LOCK).doing("lock", LOCK)
}
