//! Values under keys that are never reused: an index and a generation.

use alloc::vec::Vec;

use stubborn_rope::ahead::read_ahead;

/// A growable table. Keys are 64 bits: the index below, the generation above.
///
/// Iteration is by index, so it is the same for the same history.
#[derive(Clone, Debug)]
pub(crate) struct Arena<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            u32::try_from(self.entries.len() - 1).expect("tables are bounded far below 2^32")
        });
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.1.is_none());
        entry.1 = Some(value);
        key(index, entry.0)
    }

    /// Begins to read a value, which may be gone.
    pub(crate) fn read_ahead(&self, key: u64) {
        if let Some(entry) = self.entries.get(index(key)) {
            read_ahead(entry);
        }
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let entry = self.entries.get(index(key))?;
        (entry.0 == generation(key)).then_some(entry.1.as_ref()).flatten()
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let entry = self.entries.get_mut(index(key))?;
        (entry.0 == generation(key)).then_some(entry.1.as_mut()).flatten()
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let entry = self.entries.get_mut(index(key))?;
        if entry.0 != generation(key) {
            return None;
        }
        let value = entry.1.take()?;
        self.vacate(key);
        Some(value)
    }

    /// A generation that would wrap retires its index instead of repeating a key.
    fn vacate(&mut self, key: u64) {
        let entry = &mut self.entries[index(key)];
        if let Some(next) = entry.0.checked_add(1) {
            entry.0 = next;
            self.free.push(index(key) as u32);
        }
    }

    /// Removes a value where it is: a large one is not moved.
    pub(crate) fn discard(&mut self, key: u64) {
        let Some(entry) = self.entries.get_mut(index(key)) else { return };
        if entry.0 != generation(key) || entry.1.is_none() {
            return;
        }
        entry.1 = None;
        self.vacate(key);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().enumerate().filter_map(|(i, (generation, value))| {
            value.as_ref().map(|value| (key(i as u32, *generation), value))
        })
    }

    pub(crate) fn keys(&self) -> Vec<u64> {
        self.iter().map(|(key, _)| key).collect()
    }
}

const fn key(index: u32, generation: u32) -> u64 {
    (generation as u64) << 32 | index as u64
}

/// The index of a key: no two values in the table have the same.
pub(crate) const fn index(key: u64) -> usize {
    (key & 0xffff_ffff) as usize
}

const fn generation(key: u64) -> u32 {
    (key >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_what_was_removed_finds_nothing_though_its_place_is_taken_again() {
        let mut arena = Arena::default();
        let old = arena.insert('a');
        assert_eq!(arena.remove(old), Some('a'));
        let new = arena.insert('b');
        assert_ne!(old, new);
        assert_eq!((arena.get(old), arena.get(new)), (None, Some(&'b')));
        assert_eq!((arena.remove(old), arena.len()), (None, 1));
    }
}
