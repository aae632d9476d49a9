//! The calls of a channel that wait for a server or a slot.

use alloc::collections::{BTreeMap, VecDeque};

use super::call::Work;
use crate::rpc::event::CallKey;
use crate::service::Priority;
use crate::session::SessionId;

/// Two queues: of what takes a slot, and of what any connection can carry.
///
/// Bound: [`Limits::waiting_calls`](crate::limits::Limits::waiting_calls), kept by who pushes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Calls and reservations that take a slot, by what matters, the least first.
    numbered: [VecDeque<CallKey>; Priority::ALL.len()],
    /// Reads and questions.
    others: VecDeque<CallKey>,
    /// Those of the others that ask about a call, by its session: a server that fails has to find
    /// them among however many reads. No queue here is empty.
    questions: BTreeMap<SessionId, VecDeque<CallKey>>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.numbered.iter().map(VecDeque::len).sum::<usize>() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbered.iter().all(VecDeque::is_empty) && self.others.is_empty()
    }

    pub(super) fn push_back(&mut self, key: CallKey, work: &Work) {
        match work {
            Work::Numbered(_) | Work::Reservation => return self.level(work).push_back(key),
            Work::Question { id, .. } => {
                self.questions.entry(id.session).or_default().push_back(key);
            }
            Work::Read(_) => {}
        }
        self.others.push_back(key);
    }

    /// The same at the queue's front, for what was placed before.
    pub(super) fn push_front(&mut self, key: CallKey, work: &Work) {
        match work {
            Work::Numbered(_) | Work::Reservation => return self.level(work).push_front(key),
            Work::Question { id, .. } => {
                self.questions.entry(id.session).or_default().push_front(key);
            }
            Work::Read(_) => {}
        }
        self.others.push_front(key);
    }

    /// Of those that take a slot and matter most: the one that has waited longest, and the one that came
    /// last if there are several.
    pub(super) fn next_numbered(&self) -> Option<(CallKey, Option<CallKey>)> {
        let level = self.numbered.iter().rev().find(|level| !level.is_empty())?;
        let newest = if level.len() > 1 { level.back().copied() } else { None };
        level.front().map(|oldest| (*oldest, newest))
    }

    /// Takes out one of these.
    pub(super) fn pop_numbered(&mut self, key: CallKey) {
        let Some(level) = self.numbered.iter_mut().rev().find(|level| !level.is_empty()) else {
            return;
        };
        if level.front() == Some(&key) {
            level.pop_front();
        } else {
            debug_assert_eq!(level.back(), Some(&key));
            level.pop_back();
        }
    }

    /// What takes a slot, in order.
    pub(super) fn numbered(&self) -> impl Iterator<Item = CallKey> {
        self.numbered.iter().rev().flatten().copied()
    }

    fn level(&mut self, work: &Work) -> &mut VecDeque<CallKey> {
        let priority = match work {
            Work::Numbered(request) => Priority::of(&request.metadata),
            _ => Priority::Normal,
        };
        &mut self.numbered[priority as usize]
    }

    /// Everything, in order: first what takes a slot.
    pub(super) fn all(&self) -> impl Iterator<Item = CallKey> {
        self.numbered().chain(self.others.iter().copied())
    }

    /// The questions about calls of a session, in order.
    pub(super) fn questions(&self, session: SessionId) -> impl Iterator<Item = CallKey> {
        self.questions.get(&session).into_iter().flatten().copied()
    }

    /// Takes out all reads and questions, in order.
    pub(super) fn take_others(&mut self) -> VecDeque<CallKey> {
        self.questions.clear();
        core::mem::take(&mut self.others)
    }

    pub(super) fn forget(&mut self, key: CallKey, work: &Work) {
        match work {
            Work::Numbered(_) | Work::Reservation => return forget_in(self.level(work), key),
            Work::Question { id, .. } => {
                if let Some(asked) = self.questions.get_mut(&id.session) {
                    forget_in(asked, key);
                    if asked.is_empty() {
                        self.questions.remove(&id.session);
                    }
                }
            }
            Work::Read(_) => {}
        }
        forget_in(&mut self.others, key);
    }
}

/// What waits longest usually ends first, so it is found soon.
fn forget_in(queue: &mut VecDeque<CallKey>, key: CallKey) {
    if let Some(index) = queue.iter().position(|other| *other == key) {
        queue.remove(index);
    }
}
