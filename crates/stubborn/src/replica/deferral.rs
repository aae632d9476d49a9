//! When a leader writes its own log.
//!
//! What the others have on their disks is committed without the leader's (decision 0020). So the
//! leader first lets them write, and follows with many writes at once: a disk that several nodes share
//! has less to sync while a call waits for it, and so have the leader's own disk and processor. Where
//! the others are not that fast, the leader's disk counts as much as theirs, and it writes at once.

use stubborn_core::time::{Duration, Instant};
use stubborn_group::replication::Write;

/// How long the others may take to commit something before the leader's disk joins in.
const PATIENCE: Duration = Duration::from_micros(500);

/// How long the leader's disk stays behind what the others have committed.
const LONGEST: Duration = Duration::from_millis(5);

/// Bytes of entries that wait, at most.
const MOST: usize = 1 << 20;

/// Batches that are written at once between two that wait, at most, where the others are slow.
const RARELY: u32 = 255;

/// What waits to be written, and for what.
#[derive(Debug, Default)]
pub(super) struct Deferral {
    waits: Option<Waits>,
    /// Batches to be written at once until one waits again.
    skips: u32,
    /// What `skips` begins with: halved by each time that the others were fast, doubled by each that
    /// they were not.
    interval: u32,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    since: Instant,
    /// How many writes were looked at, their bytes, and the last entry in them.
    seen: usize,
    bytes: usize,
    last: u64,
    /// The others are to commit this entry, and until when.
    expected: Option<(u64, Instant)>,
}

impl Deferral {
    /// Until when these writes, of which only the last ones are new, may wait, with so much committed.
    /// None: they are to be written now.
    pub(super) fn until(
        &mut self,
        now: Instant,
        writes: &[(u64, Write)],
        committed: u64,
    ) -> Option<Instant> {
        let until = self.judge(now, writes, committed);
        if until.is_none() {
            self.waits = None;
        }
        until
    }

    /// They were written, or are to be.
    pub(super) fn end(&mut self) {
        self.waits = None;
    }

    fn judge(&mut self, now: Instant, writes: &[(u64, Write)], committed: u64) -> Option<Instant> {
        if self.waits.is_none() && self.skips > 0 {
            self.skips -= 1;
            return None;
        }
        let new = Waits { since: now, seen: 0, bytes: 0, last: 0, expected: None };
        let waits = self.waits.get_or_insert(new);
        for (_, write) in writes.get(waits.seen..).unwrap_or_default() {
            if !write.may_wait {
                return None;
            }
            waits.bytes += write.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            waits.last = write.entries.last().map_or(waits.last, |entry| entry.at.index);
        }
        waits.seen = writes.len();
        if let Some((index, by)) = waits.expected {
            if index <= committed {
                waits.expected = None;
                self.interval /= 2;
            } else if now >= by {
                self.interval = (2 * self.interval + 1).min(RARELY);
                self.skips = self.interval;
                return None;
            }
        }
        if waits.expected.is_none() && waits.last > committed {
            waits.expected = Some((waits.last, now + PATIENCE));
        }
        let end = waits.since + LONGEST;
        let until = waits.expected.map_or(end, |(_, by)| by.min(end));
        (now < until && waits.bytes <= MOST).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use stubborn_group::replication::{Entry, EntryKind, Position};

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    fn write(index: u64) -> (u64, Write) {
        let at = Position { index, term: 1 };
        let entry = Entry { at, kind: EntryKind::Command, data: Bytes::from_static(&[0; 64]) };
        let entries = vec![entry];
        (index, Write { entries, must_sync: true, may_wait: true, ..Write::default() })
    }

    #[test]
    fn what_the_others_commit_soon_is_written_together() {
        let mut deferral = Deferral::default();
        let mut writes = Vec::new();
        for index in 1..=20 {
            let now = at(index * 200);
            writes.push(write(index));
            assert_eq!(
                deferral.until(now, &writes, index - 1),
                Some(now + PATIENCE).min(Some(at(5_200)))
            );
        }
        assert_eq!(deferral.until(at(5_199), &writes, 20), Some(at(5_200)));
        assert_eq!(deferral.until(at(5_200), &writes, 20), None);
    }

    #[test]
    fn where_the_others_are_slow_nearly_everything_is_written_at_once() {
        let mut deferral = Deferral::default();
        let mut waited = 0;
        for index in 1..=2_000 {
            let now = at(index * 10_000);
            let writes = [write(index)];
            if deferral.until(now, &writes, index - 1).is_some() {
                waited += 1;
                assert_eq!(deferral.until(now + PATIENCE, &writes, index - 1), None);
            }
        }
        assert!(waited < 20, "{waited} of 2000 waited");
        let fast = (2_001..4_000).filter(|index| {
            let (now, writes) = (at(index * 10_000), [write(*index)]);
            let waits = deferral.until(now, &writes, index - 1).is_some();
            waits && deferral.until(now + PATIENCE, &writes, *index).is_some() && {
                deferral.end();
                true
            }
        });
        assert!(fast.count() > 1_000, "it does not learn that they are fast again");
    }

    #[test]
    fn what_somebody_waits_for_is_written_with_all_before_it() {
        let mut deferral = Deferral::default();
        let mut writes = vec![write(1)];
        assert!(deferral.until(at(1), &writes, 0).is_some());
        writes.push((2, Write { must_sync: true, ..Write::default() }));
        assert_eq!(deferral.until(at(2), &writes, 0), None);
    }

    #[test]
    fn so_much_waits_at_most() {
        let mut deferral = Deferral::default();
        let large = Bytes::from(vec![0; 300_000]);
        let mut writes = Vec::new();
        for index in 1..=4 {
            let (number, mut new) = write(index);
            new.entries[0].data = large.clone();
            writes.push((number, new));
            assert_eq!(deferral.until(at(index), &writes, 4).is_some(), index < 4);
        }
    }
}
