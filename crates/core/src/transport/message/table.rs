//! The messages under way, by id.

use alloc::collections::{BTreeMap, VecDeque};
use core::ops::Range;

use stubborn_rope::ahead::read_queue_ahead;

/// Values under ids that are given out in order and taken back in nearly that order.
///
/// Recent ids live in a window indexed by their distance from its front, so that a short message
/// costs neither a tree operation nor, in a steady state, an allocation. A long-lived one that would
/// stretch the window moves to a tree. Memory follows the number of live values, never the ids; what
/// is below [`next_id`](Self::next_id) and not here has ended.
#[derive(Debug)]
pub(crate) struct MessageTable<T> {
    /// The id of the window's front.
    base: u64,
    recent: VecDeque<Option<T>>,
    recent_live: usize,
    old: BTreeMap<u64, T>,
}

/// A window up to this length is never worth compacting.
const SHORT: usize = 64;

impl<T> MessageTable<T> {
    pub(crate) const fn new() -> Self {
        Self { base: 0, recent: VecDeque::new(), recent_live: 0, old: BTreeMap::new() }
    }

    /// Begins to read the oldest of the recent values.
    pub(crate) fn read_ahead(&self) {
        read_queue_ahead(&self.recent);
    }

    /// The id that the next pushed value gets.
    #[inline]
    pub(crate) fn next_id(&self) -> u64 {
        self.base + self.recent.len() as u64
    }

    /// The number of live values.
    pub(crate) fn len(&self) -> usize {
        self.recent_live + self.old.len()
    }

    /// Adds a value under the next id.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> u64 {
        let id = self.next_id();
        // In two steps, so that the value is written where it stays.
        self.recent.resize_with(self.recent.len() + 1, || None);
        if let Some(place) = self.recent.back_mut() {
            *place = Some(value);
        }
        self.recent_live += 1;
        self.compact();
        id
    }

    /// Uses up the next id for a value that has ended before it was added.
    #[inline]
    pub(crate) fn skip(&mut self) {
        if self.recent.is_empty() {
            self.base += 1;
        } else {
            self.recent.push_back(None);
            self.compact();
        }
    }

    /// Adds a value under an id that was skipped.
    ///
    /// # Panics
    /// If the id is still to come.
    pub(crate) fn put_back(&mut self, id: u64, value: T) {
        assert!(id < self.next_id(), "an id that was not given out");
        let before = match id.checked_sub(self.base) {
            Some(index) => {
                self.recent_live += 1;
                self.recent[index as usize].replace(value)
            }
            None => self.old.insert(id, value),
        };
        debug_assert!(before.is_none(), "an id that is in use");
    }

    pub(crate) fn get(&self, id: u64) -> Option<&T> {
        match id.checked_sub(self.base) {
            Some(index) => self.recent.get(usize::try_from(index).ok()?)?.as_ref(),
            None => self.old.get(&id),
        }
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        match id.checked_sub(self.base) {
            Some(index) => self.recent.get_mut(usize::try_from(index).ok()?)?.as_mut(),
            None => self.old.get_mut(&id),
        }
    }

    /// Ends an id; false if it had ended. The value is dropped where it lies: it is large to move.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let Some(index) = id.checked_sub(self.base) else {
            return self.old.remove(&id).is_some();
        };
        let place = usize::try_from(index).ok().and_then(|index| self.recent.get_mut(index));
        let Some(place) = place.filter(|place| place.is_some()) else { return false };
        *place = None;
        self.recent_live -= 1;
        self.trim();
        true
    }

    /// The places of a run of ids, up to the first that is not among the recent ones.
    #[inline]
    pub(crate) fn recent_mut(&mut self, ids: Range<u64>) -> impl Iterator<Item = &mut Option<T>> {
        let len = self.recent.len();
        let index = |id: u64| usize::try_from(id - self.base).map_or(len, |index| index.min(len));
        let range = if ids.start < self.base { 0..0 } else { index(ids.start)..index(ids.end) };
        self.recent.range_mut(range)
    }

    /// Shows each live value of a run of ids to `ends`, and ends those for which it is true.
    #[inline]
    pub(crate) fn end_run(&mut self, ids: Range<u64>, mut ends: impl FnMut(u64, &mut T) -> bool) {
        for id in ids.start..ids.end.min(self.base) {
            if self.old.get_mut(&id).is_some_and(|value| ends(id, value)) {
                self.old.remove(&id);
            }
        }
        let ids = ids.start.max(self.base)..ids.end.max(self.base);
        let mut ended = 0;
        for (id, place) in (ids.start..).zip(self.recent_mut(ids)) {
            if place.as_mut().is_some_and(|value| ends(id, value)) {
                *place = None;
                ended += 1;
            }
        }
        self.recent_live -= ended;
        self.trim();
    }

    /// All live values, in the order of their ids.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        let recent = (self.base..).zip(&mut self.recent);
        let recent = recent.filter_map(|(id, value)| Some((id, value.as_mut()?)));
        self.old.iter_mut().map(|(id, value)| (*id, value)).chain(recent)
    }

    /// Gives back room that nothing is in.
    pub(crate) fn shrink(&mut self) {
        self.recent.shrink_to_fit();
    }

    /// Keeps the window short after values have ended.
    #[inline]
    fn trim(&mut self) {
        while let Some(None) = self.recent.front() {
            self.recent.pop_front();
            self.base += 1;
        }
        self.compact();
    }

    #[inline]
    fn compact(&mut self) {
        while self.recent.len() > SHORT && self.recent.len() > 4 * self.recent_live {
            self.retire_front();
        }
    }

    fn retire_front(&mut self) {
        if let Some(front) = self.recent.pop_front() {
            if let Some(value) = front {
                self.recent_live -= 1;
                self.old.insert(self.base, value);
            }
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn a_long_lived_message_does_not_stretch_the_window() {
        let mut table = MessageTable::new();
        let old = table.push("old");
        for _ in 0..100_000 {
            let id = table.push("short");
            assert!(table.remove(id));
        }
        assert_eq!((table.len(), table.get(old)), (1, Some(&"old")));
        assert!(table.recent.capacity() <= 4 * SHORT, "{}", table.recent.capacity());
        assert!(table.remove(old));
        assert_eq!((table.remove(old), table.next_id()), (false, 100_001));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_and_stays_in_proportion(steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>()), 1..600)) {
            let mut table = MessageTable::new();
            let mut model = BTreeMap::new();
            for (step, pick) in steps {
                if step < 2 {
                    let id = table.push(table.next_id() * 3);
                    model.insert(id, id * 3);
                } else if step == 2 {
                    table.skip();
                } else if step == 5 && table.next_id() > 0 {
                    let first = pick.index(table.next_id() as usize) as u64;
                    let ids = first..first + 5;
                    let mut shown = Vec::new();
                    table.end_run(ids.clone(), |id, value| {
                        shown.push((id, *value));
                        id % 3 != 0
                    });
                    let live = model.range(ids.clone()).map(|(id, value)| (*id, *value));
                    prop_assert_eq!(shown, live.collect::<Vec<_>>());
                    model.retain(|id, _| !ids.contains(id) || id % 3 == 0);
                } else if table.next_id() > 0 {
                    let id = pick.index(table.next_id() as usize) as u64;
                    if step == 3 {
                        prop_assert_eq!(table.remove(id), model.remove(&id).is_some());
                    } else {
                        model.entry(id).or_insert_with(|| {
                            table.put_back(id, id * 3);
                            id * 3
                        });
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert!(table.recent.len() <= SHORT.max(4 * table.len()));
            }
            for id in 0..table.next_id() + 3 {
                prop_assert_eq!(table.get(id), model.get(&id));
                prop_assert_eq!(table.get_mut(id).copied(), model.get(&id).copied());
            }
            let all: Vec<_> = table.iter_mut().map(|(id, v)| (id, *v)).collect();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }
}
