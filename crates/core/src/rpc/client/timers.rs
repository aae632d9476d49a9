//! When calls and links are to be looked at.
//!
//! A link moves its timer now and then, a call sets one and mostly ends before it fires. So nothing is
//! taken from calls' timers before its time: an entry whose call has ended or has another timer since
//! is stale, and thrown away when it comes to the front or when most are. Most calls are given the same
//! time, so that their timers come in order: those are a queue, only the others a heap.

use alloc::collections::{BTreeSet, BinaryHeap, VecDeque};
use core::cmp::Reverse;

use super::call::ClientCall;
use crate::rpc::arena::Arena;
use crate::time::Instant;

/// Whose timer it is. Of those that are due at one instant, calls come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Call(u64),
    Link(u64),
    /// Calls that are made again.
    Retries,
}

/// Stale entries that are always kept: cleaning up few gains nothing.
const SLACK: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// In order of their times.
    queue: VecDeque<(Instant, u64)>,
    /// Those that were set for an earlier time than the queue's last.
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    links: BTreeSet<(Instant, u64)>,
}

impl Timers {
    /// A call's `timer` was set to `at`.
    pub(super) fn set_call(&mut self, at: Instant, key: u64, calls: &Arena<ClientCall>) {
        if self.queue.len() + self.heap.len() > 2 * calls.len() + SLACK {
            self.queue.retain(|entry| is_current(*entry, calls));
            self.heap.retain(|Reverse(entry)| is_current(*entry, calls));
        }
        if self.queue.back().is_none_or(|(last, _)| *last <= at) {
            self.queue.push_back((at, key));
        } else {
            self.heap.push(Reverse((at, key)));
        }
    }

    /// A link's timer is moved.
    pub(super) fn move_link(&mut self, key: u64, from: Option<Instant>, to: Option<Instant>) {
        if let Some(from) = from {
            self.links.remove(&(from, key));
        }
        if let Some(to) = to {
            self.links.insert((to, key));
        }
    }

    /// The next timer and its time.
    pub(super) fn first(&mut self, calls: &Arena<ClientCall>) -> Option<(Instant, Timer)> {
        while self.queue.front().is_some_and(|entry| !is_current(*entry, calls)) {
            self.queue.pop_front();
        }
        while self.heap.peek().is_some_and(|Reverse(entry)| !is_current(*entry, calls)) {
            self.heap.pop();
        }
        let queued = self.queue.front().copied();
        let call = queued.into_iter().chain(self.heap.peek().map(|Reverse(entry)| *entry)).min();
        let call = call.map(|(at, key)| (at, Timer::Call(key)));
        let link = self.links.first().map(|(at, key)| (*at, Timer::Link(*key)));
        call.into_iter().chain(link).min()
    }

    /// Takes out what [`first`](Self::first) has named.
    pub(super) fn pop(&mut self, (at, timer): (Instant, Timer)) {
        match timer {
            Timer::Call(key) if self.queue.front() == Some(&(at, key)) => {
                self.queue.pop_front();
            }
            Timer::Call(_) => {
                self.heap.pop();
            }
            Timer::Link(key) => {
                self.links.remove(&(at, key));
            }
            // Kept elsewhere.
            Timer::Retries => {}
        }
    }
}

fn is_current((at, key): (Instant, u64), calls: &Arena<ClientCall>) -> bool {
    calls.get(key).is_some_and(|call| call.timer == Some(at))
}
