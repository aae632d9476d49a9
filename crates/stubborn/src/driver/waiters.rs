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
    /// The entry of each call that somebody waits for, by the index of its key; else [`NOBODY`].
    by_call: Vec<u32>,
    /// Entries of calls whose index the node has given to another one before it said how they ended:
    /// what was begun between two looks at its events.
    displaced: BTreeMap<CallKey, u32>,
}

/// No entry.
const NOBODY: u32 = u32::MAX;

#[derive(Default)]
struct Entry {
    generation: u32,
    waiter: Option<(CallKey, Waiter)>,
}

/// Somebody who waits for the end of a call, reservation or question.
pub(crate) enum Waiter {
    /// Of a call: with its beginning, for who measures.
    Waiting(Waker, Option<Begun>),
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
            self.by_call.resize(call.index() + 1, NOBODY);
        }
        let before = mem::replace(&mut self.by_call[call.index()], index);
        if before != NOBODY {
            self.displace(before);
        }
        let entry = &mut self.entries[index as usize];
        entry.waiter = Some((call, Waiter::Waiting(waker, begun)));
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
            Some((_, Waiter::Waiting(waiting, _))) => {
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
        let place = self.by_call.get_mut(call.index())?;
        let mut index = *place;
        if !self.displaced.is_empty()
            && let Some(displaced) = self.displaced.remove(&call)
        {
            index = displaced;
        }
        match &mut self.entries.get_mut(index as usize)?.waiter {
            Some((own, waiter @ Waiter::Waiting(..))) if *own == call => {
                if index == *place {
                    *place = NOBODY;
                }
                match mem::replace(waiter, Waiter::Ready(ended)) {
                    Waiter::Waiting(waker, begun) => Some((waker, begun)),
                    Waiter::Ready(_) => unreachable!("it was waiting a line ago"),
                }
            }
            _ => None,
        }
    }

    /// Nobody waits under this key any more.
    pub(crate) fn remove(&mut self, key: WaiterKey) -> Option<(CallKey, Waiter)> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let waiter = entry.waiter.take()?;
        if let Some(place) = self.by_call.get_mut(waiter.0.index()).filter(|at| **at == key.index) {
            *place = NOBODY;
        }
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

    /// The node has given the index of the call that waits in this entry to another one.
    #[cold]
    fn displace(&mut self, index: u32) {
        let waiter = self.entries.get(index as usize).and_then(|entry| entry.waiter.as_ref());
        if let Some((call, Waiter::Waiting(..))) = waiter {
            self.displaced.insert(*call, index);
        }
    }

    /// Nothing will happen any more: everybody is told so. Returns whom to wake.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        let waiting = self.entries.iter_mut().filter_map(|entry| match &mut entry.waiter {
            Some((_, waiter @ Waiter::Waiting(..))) => {
                match mem::replace(waiter, Waiter::Ready(Ended::Gone)) {
                    Waiter::Waiting(waker, _) => Some(waker),
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
