//! Who waits for the end of what was begun at a node: found by indices, without a search.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use stubborn_core::node::CallKey;

use super::shared::Ended;
use crate::metrics::Begun;

/// Whoever waits. Bound: what the node has under way, and what has ended and was not fetched yet.
#[derive(Default)]
pub(crate) struct Waiters {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The entry of each call under way, by the index of its key.
    by_call: Vec<u32>,
    /// Entries of calls whose index the node has given to another one before it said how they ended:
    /// what was begun between two looks at its events.
    displaced: BTreeMap<CallKey, u32>,
}

#[derive(Default)]
struct Entry {
    generation: u32,
    waiter: Option<(CallKey, Waiter)>,
    /// Of a call: when it began.
    begun: Option<Begun>,
}

/// Somebody who waits for the end of a call, reservation or question.
pub(crate) enum Waiter {
    Waiting(Waker),
    Ready(Ended),
}

/// Names somebody who waits. Never used again for somebody else, but after 2^32 others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterKey {
    index: u32,
    generation: u32,
}

impl WaiterKey {
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl Waiters {
    /// Somebody waits for the end of `call`, which is measured if it was begun.
    pub(crate) fn insert(
        &mut self,
        call: CallKey,
        waker: Waker,
        begun: Option<Begun>,
    ) -> WaiterKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            u32::try_from(self.entries.len() - 1).expect("calls are bounded far below 2^32")
        });
        if call.index() >= self.by_call.len() {
            self.by_call.resize(call.index() + 1, 0);
        }
        let before = mem::replace(&mut self.by_call[call.index()], index);
        if let Some((other, Waiter::Waiting(_))) = self.waiter(before)
            && other.index() == call.index()
        {
            self.displaced.insert(*other, before);
        }
        let entry = &mut self.entries[index as usize];
        entry.waiter = Some((call, Waiter::Waiting(waker)));
        entry.begun = begun;
        WaiterKey { index, generation: entry.generation }
    }

    /// What `take` makes of what somebody was told, or `None` and `waker` is woken later.
    ///
    /// # Errors
    /// If nobody waits under this key.
    #[inline(always)]
    pub(super) fn poll<T>(
        &mut self,
        key: WaiterKey,
        waker: &Waker,
        take: impl FnOnce(&mut Ended) -> T,
    ) -> Result<Option<T>, Unknown> {
        let entry = self.entries.get_mut(key.index as usize).ok_or(Unknown)?;
        if entry.generation != key.generation {
            return Err(Unknown);
        }
        match &mut entry.waiter {
            None => Err(Unknown),
            Some((_, Waiter::Waiting(waiting))) => {
                waiting.clone_from(waker);
                Ok(None)
            }
            // Taken out where it lies: a reply is large to move.
            Some((call, Waiter::Ready(ended))) => {
                let (call, taken) = (*call, take(ended));
                entry.waiter = None;
                self.vacate(key, call);
                Ok(Some(taken))
            }
        }
    }

    /// Tells who waits for the end of `call`, and returns whom to wake, and when the call was begun.
    /// Nobody waits for what was abandoned.
    #[inline(always)]
    pub(super) fn settle(&mut self, call: CallKey, ended: Ended) -> Option<(Waker, Option<Begun>)> {
        let mut index = *self.by_call.get(call.index())?;
        if !self.displaced.is_empty()
            && let Some(displaced) = self.displaced.remove(&call)
        {
            index = displaced;
        }
        let Entry { waiter, begun, .. } = self.entries.get_mut(index as usize)?;
        match waiter {
            Some((own, waiter @ Waiter::Waiting(_))) if *own == call => {
                match mem::replace(waiter, Waiter::Ready(ended)) {
                    Waiter::Waiting(waker) => Some((waker, begun.take())),
                    Waiter::Ready(_) => unreachable!("it was waiting a line ago"),
                }
            }
            _ => None,
        }
    }

    /// When the call was begun whose end somebody waits for under this key; told once.
    pub(super) fn take_begun(&mut self, key: WaiterKey) -> Option<Begun> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.begun.take() } else { None }
    }

    /// Nobody waits under this key any more.
    pub(crate) fn remove(&mut self, key: WaiterKey) -> Option<(CallKey, Waiter)> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let waiter = entry.waiter.take()?;
        self.vacate(key, waiter.0);
        Some(waiter)
    }

    /// The entry is empty and may be another one's.
    fn vacate(&mut self, key: WaiterKey, call: CallKey) {
        let entry = &mut self.entries[key.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index);
        if !self.displaced.is_empty() {
            self.displaced.remove(&call);
        }
    }

    fn waiter(&self, index: u32) -> Option<&(CallKey, Waiter)> {
        self.entries.get(index as usize)?.waiter.as_ref()
    }

    /// Nothing will happen any more: everybody is told so. Returns whom to wake.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        let waiting = self.entries.iter_mut().filter_map(|entry| match &mut entry.waiter {
            Some((_, waiter @ Waiter::Waiting(_))) => {
                match mem::replace(waiter, Waiter::Ready(Ended::Gone)) {
                    Waiter::Waiting(waker) => Some(waker),
                    Waiter::Ready(_) => None,
                }
            }
            _ => None,
        });
        waiting.collect()
    }
}

/// Nobody waits under a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;
