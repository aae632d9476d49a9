//! When each connection wants to be called, and which one first.

use alloc::vec::Vec;

use crate::time::Instant;

/// A heap with one place for each slot that has a timeout, which the slot knows: a timeout that moves
/// a little, as they do with every packet, is changed where it lies.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    heap: Vec<Entry>,
    /// By slot: the place in `heap`, plus one; 0 for none.
    places: Vec<u32>,
}

/// The order among equal times is that of the slots, so that it never depends on history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    slot: u32,
}

impl Timeouts {
    /// Sets, moves or (`None`) stops the timeout of a slot.
    pub(super) fn set(&mut self, slot: u32, at: Option<Instant>) {
        match (self.place(slot), at) {
            (Some(place), Some(at)) if self.heap[place].at == at => {}
            (Some(place), Some(at)) => {
                self.heap[place].at = at;
                self.settle(place);
            }
            (Some(place), None) => self.remove(place),
            (None, Some(at)) => {
                let index = slot as usize;
                if self.places.len() <= index {
                    self.places.resize(index + 1, 0);
                }
                self.heap.push(Entry { at, slot });
                self.settle(self.heap.len() - 1);
            }
            (None, None) => {}
        }
    }

    /// The earliest timeout and its slot.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.heap.first().map(|first| (first.at, first.slot))
    }

    fn place(&self, slot: u32) -> Option<usize> {
        let place = *self.places.get(slot as usize)?;
        (place > 0).then(|| place as usize - 1)
    }

    fn remove(&mut self, place: usize) {
        let removed = self.heap.swap_remove(place);
        self.places[removed.slot as usize] = 0;
        if place < self.heap.len() {
            self.settle(place);
        }
    }

    /// Moves an entry up or down to where it belongs.
    fn settle(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 && entry < self.heap[(place - 1) / 2] {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        while let Some(child) = self.smaller_child(place)
            && self.heap[child] < entry
        {
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, entry);
    }

    fn smaller_child(&self, place: usize) -> Option<usize> {
        let left = 2 * place + 1;
        let right = left + 1;
        match (self.heap.get(left)?, self.heap.get(right)) {
            (first, Some(second)) if second < first => Some(right),
            _ => Some(left),
        }
    }

    fn put(&mut self, place: usize, entry: Entry) {
        self.heap[place] = entry;
        self.places[entry.slot as usize] = place as u32 + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_earliest_comes_first_whatever_moves(
            steps in prop::collection::vec((0u32..12, prop::option::of(0u64..40)), 1..200)
        ) {
            let mut timeouts = Timeouts::default();
            let mut model = BTreeMap::new();
            for (slot, at) in steps {
                let at = at.map(Instant::from_nanos);
                timeouts.set(slot, at);
                match at {
                    Some(at) => drop(model.insert(slot, at)),
                    None => drop(model.remove(&slot)),
                }
                let first = model.iter().map(|(slot, at)| (*at, *slot)).min();
                prop_assert_eq!(timeouts.first(), first);
                prop_assert_eq!(timeouts.heap.len(), model.len());
            }
        }
    }
}
