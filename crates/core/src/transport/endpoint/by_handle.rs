//! What others keep of connections.

use alloc::vec::Vec;

use super::ConnectionHandle;

/// A value for each of some connections, found without a search: it is asked for with each message.
#[derive(Debug)]
pub(crate) struct ByHandle<T> {
    /// By the handle's slot, with its generation.
    entries: Vec<Option<(u32, T)>>,
}

impl<T> Default for ByHandle<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> ByHandle<T> {
    /// Sets the value of a connection; that of an earlier one in the same slot is dropped.
    pub(crate) fn insert(&mut self, handle: ConnectionHandle, value: T) {
        let slot = handle.slot as usize;
        if self.entries.len() <= slot {
            self.entries.resize_with(slot + 1, || None);
        }
        self.entries[slot] = Some((handle.generation, value));
    }

    #[inline]
    pub(crate) fn get(&self, handle: &ConnectionHandle) -> Option<&T> {
        let (generation, value) = self.entries.get(handle.slot as usize)?.as_ref()?;
        (*generation == handle.generation).then_some(value)
    }

    #[inline]
    pub(crate) fn contains_key(&self, handle: &ConnectionHandle) -> bool {
        self.get(handle).is_some()
    }

    pub(crate) fn remove(&mut self, handle: &ConnectionHandle) -> Option<T> {
        self.get(handle)?;
        self.entries[handle.slot as usize].take().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(slot: u32, generation: u32) -> ConnectionHandle {
        ConnectionHandle { slot, generation }
    }

    #[test]
    fn a_connection_in_the_slot_of_an_earlier_one_is_not_taken_for_it() {
        let mut values = ByHandle::default();
        values.insert(handle(3, 0), 'a');
        assert_eq!((values.get(&handle(3, 0)), values.get(&handle(3, 1))), (Some(&'a'), None));
        values.insert(handle(3, 1), 'b');
        assert_eq!((values.remove(&handle(3, 0)), values.get(&handle(3, 1))), (None, Some(&'b')));
        assert_eq!((values.remove(&handle(3, 1)), values.remove(&handle(9, 0))), (Some('b'), None));
        assert!(!values.contains_key(&handle(3, 1)));
    }
}
