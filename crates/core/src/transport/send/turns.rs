//! Whose turn it is to send new data.

use alloc::collections::{BTreeSet, VecDeque};
use core::ops::Range;

use stubborn_rope::ahead::read_queue_ahead;

use super::outgoing::Outgoing;
use super::short::Message;
use crate::transport::message::table::MessageTable;

/// Bytes that a message sends before the next one has its turn: what any packet has room for. A longer
/// message is a long one.
pub(super) const TURN: u64 = 1000;

/// How many new bytes may be sent: what is left of the peer's credit for the connection, and of our
/// own send window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) credit: u64,
    pub(super) window: u64,
}

impl Allowance {
    /// No limit but those of the messages themselves.
    pub(super) const UNBOUNDED: Self = Self { credit: u64::MAX, window: u64::MAX };

    pub(super) fn bytes(self) -> u64 {
        self.credit.min(self.window)
    }

    fn keeping(self, reserve: u64) -> Self {
        Self { credit: self.credit.saturating_sub(reserve), ..self }
    }
}

/// The messages with new data to send.
///
/// Short ones, of about a packet at most, go in the order of their ids. Long ones take turns of about a
/// packet among themselves, and all short ones together have every other turn.
///
/// The last half of the connection's credit is for the oldest long message that has begun: a receiver
/// that has no room to put many messages together reads the oldest one on, and without this the parts
/// of all others could use up the credit that it needs to end.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// As runs of ids.
    short: VecDeque<Range<u64>>,
    /// Messages in `short`.
    short_count: u64,
    /// Bytes of the messages in `short`, in all.
    short_bytes: u64,
    long: VecDeque<u64>,
    /// Long messages of which a part was sent.
    begun: BTreeSet<u64>,
    /// Which kind goes first now, and how much was sent since that changed.
    long_first: bool,
    bytes: u64,
    /// Credit kept for the oldest long message, in bytes.
    reserve: u64,
}

impl Turns {
    /// Begins to read what the next message needs.
    pub(super) fn read_ahead(&self) {
        read_queue_ahead(&self.short);
    }

    /// Sizes the reserve by the credit that the peer starts with.
    pub(super) fn set_window(&mut self, credit: u64) {
        self.reserve = credit / 2;
    }

    /// Queues a message that wants a turn, if it is not queued.
    pub(super) fn push(&mut self, id: u64, message: &mut Outgoing) {
        if message.wants_turn() && !core::mem::replace(&mut message.in_turns, true) {
            if is_long(message) {
                self.long.push_back(id);
            } else {
                self.push_short(id, message.size());
            }
        }
    }

    /// Queues a short message that is not queued.
    #[inline]
    pub(super) fn push_short(&mut self, id: u64, size: u64) {
        self.short_count += 1;
        self.short_bytes += size;
        match self.short.back_mut() {
            Some(run) if run.end == id => run.end += 1,
            _ => self.short.push_back(id..id + 1),
        }
    }

    /// The messages that send next if all that wait are short ones.
    #[inline]
    pub(super) fn next_of_short(&self) -> Option<Range<u64>> {
        if self.long.is_empty() { self.short.front().cloned() } else { None }
    }

    /// The first `count` short messages, of so many bytes, want no turn any more. They are of the first
    /// run.
    #[inline]
    pub(super) fn pop_short(&mut self, count: u64, bytes: u64) {
        let Some(run) = self.short.front_mut() else { return };
        run.start += count;
        debug_assert!(run.start <= run.end);
        if run.is_empty() {
            self.short.pop_front();
        }
        self.short_count -= count;
        self.short_bytes -= bytes;
    }

    /// The number and the bytes of short messages that have not been sent whole.
    pub(super) fn short(&self) -> (u64, u64) {
        (self.short_count, self.short_bytes)
    }

    /// True if no message is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.long.is_empty()
    }

    /// True if a long message is queued.
    pub(super) fn has_long(&self) -> bool {
        !self.long.is_empty()
    }

    /// The message that sends next and the positions that it may send.
    pub(super) fn next(
        &self,
        messages: &MessageTable<Message>,
        allowance: Allowance,
    ) -> Option<(u64, Range<u64>)> {
        if self.long_first {
            self.next_long(messages, allowance).or_else(|| self.next_short(messages, allowance))
        } else {
            self.next_short(messages, allowance).or_else(|| self.next_long(messages, allowance))
        }
    }

    fn next_short(
        &self,
        messages: &MessageTable<Message>,
        allowance: Allowance,
    ) -> Option<(u64, Range<u64>)> {
        let ids = self.short.iter().flat_map(Range::clone);
        let (id, message) = first_waiting(ids, messages)?;
        Some((id, message.fresh(allowance.bytes())?))
    }

    fn next_long(
        &self,
        messages: &MessageTable<Message>,
        allowance: Allowance,
    ) -> Option<(u64, Range<u64>)> {
        let (front, message) = first_waiting(self.long.iter().copied(), messages)?;
        if let Some(range) = message.fresh(allowance.keeping(self.reserve).bytes()) {
            return Some((front, range));
        }
        let oldest = self.begun.first().copied().unwrap_or(front);
        let message = messages.get(oldest).filter(|m| m.wants_turn())?;
        Some((oldest, message.fresh(allowance.bytes())?))
    }

    /// Passes the turn on after `message` has sent `range`, with so many `bytes` in it.
    pub(super) fn on_sent(&mut self, id: u64, message: &Outgoing, range: Range<u64>, bytes: u64) {
        let long = is_long(message);
        if long && message.fully_sent() {
            self.begun.remove(&id);
        } else if long && range.start == 0 {
            self.begun.insert(id);
        }
        self.bytes += bytes;
        if self.bytes >= TURN {
            self.bytes = 0;
            self.long_first = !self.long_first;
            if self.long.front() == Some(&id) {
                self.long.rotate_left(1);
            }
        }
    }

    /// Takes messages out that came to the front and want no turn any more.
    pub(super) fn tidy(&mut self, messages: &mut MessageTable<Message>) {
        while let Some(id) = self.short.front().map(|run| run.start) {
            let size = match messages.get_mut(id) {
                Some(message) if message.wants_turn() => break,
                Some(message) => {
                    if let Some(other) = message.other_mut() {
                        other.in_turns = false;
                    }
                    message.size()
                }
                None => 0,
            };
            self.pop_short(1, size);
        }
        while let Some(id) = self.long.front() {
            match messages.get_mut(*id) {
                Some(message) if message.wants_turn() => break,
                Some(message) => {
                    if let Some(other) = message.other_mut() {
                        other.in_turns = false;
                    }
                }
                None => {}
            }
            self.long.pop_front();
        }
        if self.short.is_empty() {
            // Those that ended while they were queued.
            self.short_bytes = 0;
        }
    }

    /// A message was given up.
    pub(super) fn forget(&mut self, id: u64) {
        self.begun.remove(&id);
    }

    pub(super) fn shrink(&mut self) {
        self.short.shrink_to_fit();
        self.long.shrink_to_fit();
    }

    pub(super) fn clear(&mut self) {
        *self = Self { reserve: self.reserve, ..Self::default() };
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.short.iter().flat_map(Range::clone).chain(self.long.iter().copied())
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.short.capacity() + self.long.capacity()
    }
}

fn is_long(message: &Outgoing) -> bool {
    message.size() > TURN
}

fn first_waiting(
    queue: impl Iterator<Item = u64>,
    messages: &MessageTable<Message>,
) -> Option<(u64, &Message)> {
    let mut queued = queue.filter_map(|id| Some((id, messages.get(id)?)));
    queued.find(|(_, message)| message.wants_turn())
}
