//! Connections by the ids that datagrams bear.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Ids that one bucket holds: with their slots they fill a line of memory.
const WIDTH: usize = 5;

/// Ids for each bucket, on average, from which on there are twice as many buckets.
const FULL: usize = 3;

/// A slot that is none.
const VACANT: u32 = u32::MAX;

/// Slots by id, found by looking at one line of memory: it is done for each datagram, and where there are
/// many connections no line is in the caches.
///
/// Our ids are random, so they spread evenly. Those that clients make up for their first packets need not
/// be: what its bucket has no room for is found in a tree, and does not make the buckets more.
#[derive(Default)]
pub(super) struct ById {
    /// A power of two of them, or none. An id's bucket is named by its last bits.
    buckets: Vec<Bucket>,
    rest: BTreeMap<u64, u32>,
    len: usize,
}

#[derive(Clone)]
#[repr(align(64))]
struct Bucket {
    ids: [u64; WIDTH],
    slots: [u32; WIDTH],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Self = Self { ids: [0; WIDTH], slots: [VACANT; WIDTH] };

    #[inline]
    fn place_of(&self, id: u64) -> Option<usize> {
        (0..WIDTH).find(|&place| self.ids[place] == id && self.slots[place] != VACANT)
    }

    fn vacant_place(&self) -> Option<usize> {
        self.slots.iter().position(|slot| *slot == VACANT)
    }

    fn entries(&self) -> impl Iterator<Item = (u64, u32)> {
        self.ids.into_iter().zip(self.slots).filter(|(_, slot)| *slot != VACANT)
    }
}

impl ById {
    #[inline]
    pub(super) fn get(&self, id: u64) -> Option<u32> {
        let bucket = self.buckets.get(self.index(id))?;
        match bucket.place_of(id) {
            Some(place) => Some(bucket.slots[place]),
            None if self.rest.is_empty() => None,
            None => self.rest.get(&id).copied(),
        }
    }

    /// Sets the slot of an id, whatever it was before.
    pub(super) fn insert(&mut self, id: u64, slot: u32) {
        debug_assert_ne!(slot, VACANT);
        self.remove(id);
        if self.len >= FULL * self.buckets.len() {
            self.grow();
        }
        self.len += 1;
        self.put(id, slot);
    }

    pub(super) fn remove(&mut self, id: u64) {
        let index = self.index(id);
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        let found = match bucket.place_of(id) {
            Some(place) => {
                bucket.slots[place] = VACANT;
                true
            }
            None => self.rest.remove(&id).is_some(),
        };
        self.len -= usize::from(found);
    }

    #[inline]
    fn index(&self, id: u64) -> usize {
        id as usize & self.buckets.len().wrapping_sub(1)
    }

    fn put(&mut self, id: u64, slot: u32) {
        let index = self.index(id);
        let bucket = &mut self.buckets[index];
        match bucket.vacant_place() {
            Some(place) => (bucket.ids[place], bucket.slots[place]) = (id, slot),
            None => drop(self.rest.insert(id, slot)),
        }
    }

    fn grow(&mut self) {
        let more = vec![Bucket::EMPTY; (2 * self.buckets.len()).max(1)];
        let buckets = core::mem::replace(&mut self.buckets, more);
        let rest = core::mem::take(&mut self.rest);
        for (id, slot) in buckets.iter().flat_map(Bucket::entries).chain(rest) {
            self.put(id, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn it_finds_what_a_tree_finds_also_among_ids_that_were_made_to_collide() {
        let mut random = Random::from_seed([7; 32]);
        let (mut index, mut tree) = (ById::default(), BTreeMap::new());
        for step in 0..50_000 {
            // A few hundred ids come and go; of every other one the last bits are the same.
            let drawn = random.u64() % 400;
            let id =
                if drawn.is_multiple_of(2) { drawn << 32 } else { drawn.wrapping_mul(0x9e37_79b9) };
            if random.u64().is_multiple_of(3) {
                index.remove(id);
                tree.remove(&id);
            } else {
                index.insert(id, step);
                tree.insert(id, step);
            }
            assert_eq!(index.len, tree.len());
            assert_eq!(index.get(id), tree.get(&id).copied());
        }
        assert!((0..400u64).all(|n| {
            [n << 32, n.wrapping_mul(0x9e37_79b9)]
                .iter()
                .all(|id| index.get(*id) == tree.get(id).copied())
        }));
        assert!(!index.rest.is_empty(), "some found no room in their bucket");
        assert!(index.buckets.len() <= 256, "{} buckets", index.buckets.len());
    }

    #[test]
    fn nearly_all_random_ids_lie_in_their_bucket() {
        let mut random = Random::from_seed([8; 32]);
        let mut index = ById::default();
        (0..20_000).for_each(|slot| index.insert(random.u64(), slot));
        assert!(index.rest.len() < 1_000, "{}", index.rest.len());
    }
}
