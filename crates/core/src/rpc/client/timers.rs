//! When calls and links are to be looked at.
//!
//! A link moves its timer now and then, a call sets one and mostly ends before it fires. So calls'
//! timers are a heap from which nothing is taken before its time: an entry whose call has ended or
//! has another timer since is stale, and thrown away when it comes to the top or when most are.

use alloc::collections::{BTreeSet, BinaryHeap};
use core::cmp::Reverse;

use super::call::ClientCall;
use crate::rpc::arena::Arena;
use crate::time::Instant;

/// Whose timer it is. Of those that are due at one instant, calls come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Call(u64),
    Link(u64),
}

/// Stale entries that are always kept: cleaning up few gains nothing.
const SLACK: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Timers {
    calls: BinaryHeap<Reverse<(Instant, u64)>>,
    links: BTreeSet<(Instant, u64)>,
}

impl Timers {
    /// A call's `timer` was set to `at`.
    pub(super) fn set_call(&mut self, at: Instant, key: u64, calls: &Arena<ClientCall>) {
        if self.calls.len() > 2 * calls.len() + SLACK {
            self.calls.retain(|Reverse(entry)| is_current(*entry, calls));
        }
        self.calls.push(Reverse((at, key)));
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
        while let Some(Reverse(entry)) = self.calls.peek()
            && !is_current(*entry, calls)
        {
            self.calls.pop();
        }
        let call = self.calls.peek().map(|Reverse((at, key))| (*at, Timer::Call(*key)));
        let link = self.links.first().map(|(at, key)| (*at, Timer::Link(*key)));
        match (call, link) {
            (Some(call), Some(link)) => Some(call.min(link)),
            (one, other) => one.or(other),
        }
    }

    /// Takes out what [`first`](Self::first) has named.
    pub(super) fn pop(&mut self, (at, timer): (Instant, Timer)) {
        match timer {
            Timer::Call(_) => {
                self.calls.pop();
            }
            Timer::Link(key) => {
                self.links.remove(&(at, key));
            }
        }
    }
}

fn is_current((at, key): (Instant, u64), calls: &Arena<ClientCall>) -> bool {
    calls.get(key).is_some_and(|call| call.timer == Some(at))
}
