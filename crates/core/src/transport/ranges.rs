//! A bounded set of integers, kept as ranges: which packets arrived, which bytes are there, which
//! messages have ended.

use alloc::vec::Vec;
use core::ops::Range;

use stubborn_rope::ahead::read_ahead;

/// A set of `u64`, held as disjoint ranges in ascending order that never touch one another.
///
/// The ranges live in a sorted `Vec`: these sets hold few ranges, most changes are at the end, and
/// a steady stream of in-order numbers neither allocates nor moves anything. An insertion in the
/// middle costs time linear in [`len`](Self::len), so a set that a peer can fragment must be kept
/// short by its owner: check `len` after inserting, or call [`keep_highest`](Self::keep_highest).
///
/// `u64::MAX` itself cannot be a member (ranges are half open); protocol numbers end at 2^62 - 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range<u64>>,
}

impl RangeSet {
    /// Begins to read it.
    pub fn read_ahead(&self) {
        read_ahead(&self.ranges[..]);
    }

    /// Gives back room that no range is in.
    pub fn shrink(&mut self) {
        self.ranges.shrink_to_fit();
    }

    /// The empty set; allocates nothing.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// True if nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The number of ranges (not of members): what memory and time depend on.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The number of members.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }

    /// True if `value` is a member.
    pub fn contains(&self, value: u64) -> bool {
        self.range_of(value).is_some()
    }

    /// True if every value of `range` is a member; an empty range is always contained.
    pub fn contains_range(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.range_of(range.start).is_some_and(|r| range.end <= r.end)
    }

    /// True if any value of `range` is a member.
    pub fn overlaps(&self, range: Range<u64>) -> bool {
        !range.is_empty()
            && self
                .ranges
                .get(self.first_ending_after(range.start))
                .is_some_and(|r| r.start < range.end)
    }

    /// The whole range that `value` is a member of.
    pub fn range_of(&self, value: u64) -> Option<Range<u64>> {
        let r = self.ranges.get(self.first_ending_after(value))?;
        (r.start <= value).then(|| r.clone())
    }

    /// The smallest member.
    pub fn min(&self) -> Option<u64> {
        self.ranges.first().map(|r| r.start)
    }

    /// The largest member.
    pub fn max(&self) -> Option<u64> {
        self.ranges.last().map(|r| r.end - 1)
    }

    /// The range with the smallest members.
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.first().cloned()
    }

    /// The range with the largest members.
    pub fn last(&self) -> Option<Range<u64>> {
        self.ranges.last().cloned()
    }

    /// The ranges, ascending; `.rev()` gives them descending, as an ACK frame lists them.
    pub fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + Clone + '_ {
        self.ranges.iter().cloned()
    }

    /// Adds one value; false if it was a member already.
    pub fn insert_one(&mut self, value: u64) -> bool {
        debug_assert!(value < u64::MAX, "u64::MAX cannot be a member");
        self.insert(value..value.saturating_add(1))
    }

    /// Adds a range; false if every value of it was a member already (so also for an empty range).
    pub fn insert(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return false;
        }
        // In-order arrival, the common case: the last range grows.
        if let Some(last) = self.ranges.last_mut()
            && last.start <= range.start
            && range.start <= last.end
        {
            let grew = range.end > last.end;
            last.end = last.end.max(range.end);
            return grew;
        }
        // Ranges from `from` to before `to` overlap or touch the new one and merge with it.
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = from + self.ranges[from..].partition_point(|r| r.start <= range.end);
        if from == to {
            self.ranges.insert(from, range);
            return true;
        }
        let merged =
            self.ranges[from].start.min(range.start)..self.ranges[to - 1].end.max(range.end);
        if to - from == 1 && self.ranges[from] == merged {
            return false;
        }
        self.ranges[from] = merged;
        self.ranges.drain(from + 1..to);
        true
    }

    /// Takes a range out; true if any value of it was a member. May split one range in two.
    pub fn remove(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return false;
        }
        let from = self.first_ending_after(range.start);
        let to = from + self.ranges[from..].partition_point(|r| r.start < range.end);
        if from == to {
            return false;
        }
        let before = self.ranges[from].start..range.start;
        let after = range.end..self.ranges[to - 1].end;
        match (before.is_empty(), after.is_empty()) {
            (true, true) => drop(self.ranges.drain(from..to)),
            (false, true) => {
                self.ranges[from] = before;
                self.ranges.drain(from + 1..to);
            }
            (true, false) => {
                self.ranges[to - 1] = after;
                self.ranges.drain(from..to - 1);
            }
            (false, false) if to - from == 1 => {
                self.ranges[from] = before;
                self.ranges.insert(to, after);
            }
            (false, false) => {
                self.ranges[from] = before;
                self.ranges[to - 1] = after;
                self.ranges.drain(from + 1..to - 1);
            }
        }
        true
    }

    /// Takes out every value below `bound`.
    pub fn remove_below(&mut self, bound: u64) {
        self.remove(0..bound);
    }

    /// Takes out and returns the range with the smallest members.
    pub fn pop_first(&mut self) -> Option<Range<u64>> {
        (!self.ranges.is_empty()).then(|| self.ranges.remove(0))
    }

    /// Takes out and returns the range with the largest members.
    pub fn pop_last(&mut self) -> Option<Range<u64>> {
        self.ranges.pop()
    }

    /// Forgets the lowest ranges until at most `bound` are left; returns the smallest value that
    /// stayed if anything was forgotten.
    pub fn keep_highest(&mut self, bound: usize) -> Option<u64> {
        let excess = self.ranges.len().checked_sub(bound).filter(|n| *n > 0)?;
        self.ranges.drain(..excess);
        self.min()
    }

    /// The parts of `within` that are not members, ascending.
    pub fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut ranges = self.ranges[self.first_ending_after(within.start)..].iter();
        let (mut at, end) = (within.start, within.end);
        core::iter::from_fn(move || {
            while at < end {
                let (gap, next) = match ranges.next() {
                    Some(r) => (at..r.start.min(end), r.end),
                    None => (at..end, end),
                };
                at = next;
                if !gap.is_empty() {
                    return Some(gap);
                }
            }
            None
        })
    }

    /// Takes everything out and keeps the memory.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Index of the first range that has a member at or above `value`.
    fn first_ending_after(&self, value: u64) -> usize {
        self.ranges.partition_point(|r| r.end <= value)
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec;
    use proptest::prelude::*;

    fn listed(set: &RangeSet) -> Vec<Range<u64>> {
        set.iter().collect()
    }

    #[test]
    fn touching_and_overlapping_ranges_become_one() {
        let mut set = RangeSet::new();
        assert!(set.insert(10..20));
        assert!(set.insert(30..40));
        assert!(set.insert(20..30));
        assert_eq!(listed(&set), vec![10..40]);
        assert!(!set.insert(15..35), "nothing of it was new");
        assert!(!set.insert(7..7), "an empty range adds nothing");
        assert!(set.insert(0..100));
        assert_eq!(listed(&set), vec![0..100]);
    }

    #[test]
    fn removing_the_middle_splits_and_removing_across_trims_both_ends() {
        let mut set: RangeSet = [0..10, 20..30, 40..50].into_iter().collect();
        assert!(set.remove(22..24));
        assert_eq!(listed(&set), vec![0..10, 20..22, 24..30, 40..50]);
        assert!(set.remove(5..45));
        assert_eq!(listed(&set), vec![0..5, 45..50]);
        assert!(!set.remove(5..45));
        set.remove_below(46);
        assert_eq!(listed(&set), vec![46..50]);
    }

    #[test]
    fn only_the_highest_ranges_are_kept_when_a_peer_fragments_the_set() {
        let mut set: RangeSet = (0..100).map(|n| n * 2..n * 2 + 1).collect();
        assert_eq!(set.keep_highest(10), Some(180));
        assert_eq!(set.len(), 10);
        assert_eq!(set.keep_highest(10), None, "nothing more to forget");
        assert!(!set.contains(178) && set.contains(198));
    }

    #[test]
    fn gaps_are_what_is_missing_within_the_asked_range_only() {
        let set: RangeSet = [5..10, 20..30].into_iter().collect();
        assert_eq!(set.gaps(0..40).collect::<Vec<_>>(), vec![0..5, 10..20, 30..40]);
        assert_eq!(set.gaps(7..25).collect::<Vec<_>>(), vec![10..20]);
        assert_eq!(set.gaps(6..8).count(), 0);
        assert_eq!(RangeSet::new().gaps(3..3).count(), 0);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0u64..64, 0u64..12), 1..80)
        ) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (add, start, length) in steps {
                let range = start..start + length;
                if add {
                    let new = range.clone().any(|v| !model.contains(&v));
                    model.extend(range.clone());
                    prop_assert_eq!(set.insert(range), new);
                } else {
                    let any = range.clone().any(|v| model.contains(&v));
                    model.retain(|v| !range.contains(v));
                    prop_assert_eq!(set.remove(range), any);
                }
                prop_assert!(set.ranges.windows(2).all(|w| w[0].end < w[1].start));
                prop_assert!(set.ranges.iter().all(|r| !r.is_empty()));
                prop_assert!((0..80).all(|v| set.contains(v) == model.contains(&v)));
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert!((0..80).all(|v| set.overlaps(v..v + 3)
                    == (v..v + 3).any(|v| model.contains(&v))));
                let missing: BTreeSet<u64> = set.gaps(3..70).flatten().collect();
                prop_assert!((3..70).all(|v| missing.contains(&v) != model.contains(&v)));
                prop_assert_eq!(set.min(), model.first().copied());
                prop_assert_eq!(set.max(), model.last().copied());
            }
        }
    }
}
