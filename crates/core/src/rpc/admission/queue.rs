//! Calls that wait at a server until a handler may be started for them.
//!
//! What matters more goes first. Among equals the one that came first does, until the queue has not been
//! empty for a tenth of a second: then it is no burst any more, and those that have waited longest are
//! the ones that will not make it. The newest goes first from then on, and nothing waits for longer than
//! a quarter of its time (adaptive LIFO and controlled delay, after Maurer, "Fail at Scale", ACM Queue
//! 2015, and CoDel, RFC 8289). Calls without a deadline are patient: they are served in order, take
//! turns with the others of their priority, and only leave when there is no room.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::rpc::event::{IncomingRequest, RequestKey};
use crate::service::{MethodId, Priority};
use crate::time::{Duration, Instant};

/// How long a queue may not be empty before it is more than a burst.
pub(super) const BURST: Duration = Duration::from_millis(100);

/// What a call may wait at least when the queue stands.
const LEAST_PATIENCE: Duration = Duration::from_millis(5);

/// Bound: [`Limits::queued_calls`](crate::limits::Limits::queued_calls) and
/// [`Limits::queued_bytes`](crate::limits::Limits::queued_bytes), kept by who pushes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    levels: [Level; Priority::ALL.len()],
    len: usize,
    bytes: u64,
    /// Since when it is not empty.
    filled: Option<Instant>,
}

#[derive(Debug, Default)]
struct Level {
    /// Calls with a deadline, the oldest first.
    hasty: VecDeque<Waiting>,
    patient: VecDeque<Waiting>,
    /// Whose turn it is, while the queue stands.
    patient_next: bool,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    pub(super) since: Instant,
    pub(super) method: MethodId,
    pub(super) deadline: Option<Instant>,
    pub(super) priority: Priority,
    pub(super) bytes: u64,
}

/// What waits.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A request of this node's clients.
    Request(Box<IncomingRequest>),
    /// A call that came by another way.
    Place(RequestKey),
}

impl Entry {
    pub(crate) fn key(&self) -> RequestKey {
        match self {
            Self::Request(request) => request.key,
            Self::Place(key) => *key,
        }
    }
}

impl Waiting {
    /// Until when it may wait in a queue that stands.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        let time = self.deadline?.since(self.since);
        Some(self.since + (time / 4).max(LEAST_PATIENCE))
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it has not been empty for so long that it is more than a burst.
    pub(super) fn stands(&self, now: Instant) -> bool {
        self.filled.is_some_and(|filled| now.since(filled) >= BURST)
    }

    /// How many would be served before a call that comes now.
    pub(super) fn ahead(&self, now: Instant, priority: Priority) -> usize {
        let newest_first = self.stands(now);
        let before = |one: &Priority| *one > priority || *one == priority && !newest_first;
        let levels = Priority::ALL.into_iter().filter(before);
        levels.map(|one| self.levels[one as usize].len()).sum()
    }

    pub(super) fn push(&mut self, now: Instant, waiting: Waiting) {
        self.filled.get_or_insert(now);
        self.len += 1;
        self.bytes += waiting.bytes;
        let level = &mut self.levels[waiting.priority as usize];
        match waiting.deadline {
            Some(_) => level.hasty.push_back(waiting),
            None => level.patient.push_back(waiting),
        }
    }

    /// The one whose turn it is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Waiting> {
        let newest_first = self.stands(now);
        let level = self.levels.iter_mut().rev().find(|level| level.len() > 0)?;
        let waiting = level.pop(newest_first);
        self.removed(waiting)
    }

    /// The one that gives way to a call of this priority: the oldest of what matters less; in a queue
    /// that stands, the oldest of what matters as much, too.
    pub(super) fn give_way(&mut self, now: Instant, to: Priority) -> Option<Waiting> {
        let stands = self.stands(now);
        let gives = |one: &Priority| *one < to || *one == to && stands;
        for priority in Priority::ALL.into_iter().filter(gives) {
            let level = &mut self.levels[priority as usize];
            // Of equals, a patient one is not driven out by another patient one.
            let found = level
                .hasty
                .pop_front()
                .or_else(|| if priority < to { level.patient.pop_back() } else { None });
            if found.is_some() {
                return self.removed(found);
            }
        }
        None
    }

    /// Takes out what is `over`, and what has waited for as long as it may.
    pub(super) fn sweep(
        &mut self,
        now: Instant,
        mut over: impl FnMut(&Waiting) -> bool,
    ) -> Vec<Waiting> {
        let stands = self.stands(now);
        let mut out = Vec::new();
        for level in &mut self.levels {
            for queue in [&mut level.hasty, &mut level.patient] {
                let mut kept = VecDeque::with_capacity(queue.len());
                for waiting in queue.drain(..) {
                    let tired = stands && waiting.patience_ends().is_some_and(|at| at <= now);
                    if tired || over(&waiting) {
                        out.push(waiting);
                    } else {
                        kept.push_back(waiting);
                    }
                }
                *queue = kept;
            }
        }
        for waiting in &out {
            self.count_out(waiting);
        }
        out
    }

    fn removed(&mut self, waiting: Option<Waiting>) -> Option<Waiting> {
        if let Some(waiting) = &waiting {
            self.count_out(waiting);
        }
        waiting
    }

    fn count_out(&mut self, waiting: &Waiting) {
        self.len -= 1;
        self.bytes -= waiting.bytes;
        if self.len == 0 {
            self.filled = None;
        }
    }
}

impl Level {
    fn len(&self) -> usize {
        self.hasty.len() + self.patient.len()
    }

    fn pop(&mut self, newest_first: bool) -> Option<Waiting> {
        if newest_first {
            self.patient_next = !self.patient_next;
            let first = if self.patient_next { self.patient.pop_front() } else { None };
            return first.or_else(|| self.hasty.pop_back()).or_else(|| self.patient.pop_front());
        }
        let came = |queue: &VecDeque<Waiting>| queue.front().map(|waiting| waiting.since);
        match (came(&self.hasty), came(&self.patient)) {
            (Some(hasty), Some(patient)) if patient < hasty => self.patient.pop_front(),
            (None, _) => self.patient.pop_front(),
            _ => self.hasty.pop_front(),
        }
    }
}
