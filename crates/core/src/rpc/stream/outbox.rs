//! The sending end of a direction.

use alloc::collections::VecDeque;

use super::{Broken, Credit, cost};
use crate::service::Encoded;

/// Messages on their way to the other side.
///
/// Each is kept until the other side has it in memory, since the connection that carried it may be lost.
/// Bound: `bound` and one message; a further one is not taken until some have arrived.
#[derive(Debug)]
pub(crate) struct Outbox {
    kept: VecDeque<Encoded>,
    /// The index of the first kept message, and what all before it count.
    first: u64,
    freed: u64,
    /// The index of the next message to transmit on the present connection, and what all before it count.
    next: u64,
    spent: u64,
    /// The index above all that were ever transmitted.
    highest: u64,
    /// What the kept messages count.
    held: u64,
    bound: u64,
    limit: u64,
    taken: u64,
    ended: bool,
    /// A message was not taken for want of room: there is somebody to tell when there is some.
    refused: bool,
}

impl Outbox {
    /// No messages. The other side takes what counts `limit` unasked.
    pub(crate) fn new(bound: u64, limit: u64) -> Self {
        Self {
            kept: VecDeque::new(),
            first: 0,
            freed: 0,
            next: 0,
            spent: 0,
            highest: 0,
            held: 0,
            bound: bound.max(1),
            limit,
            taken: 0,
            ended: false,
            refused: false,
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// The message, if there is no room for it; [`credit`](Self::credit) says when there is.
    pub(crate) fn push(&mut self, message: Encoded) -> Result<(), Encoded> {
        debug_assert!(!self.ended, "a message after the end");
        if !self.has_room() {
            self.refused = true;
            return Err(message);
        }
        self.held += cost(&message);
        self.kept.push_back(message);
        Ok(())
    }

    /// Whether a further message would be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.held < self.bound
    }

    /// No further messages come.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Messages that were taken in all.
    pub(crate) fn count(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Messages that the other side's application is known to have taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// What the kept messages count.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Whether [`transmit`](Self::transmit) has one.
    pub(crate) fn can_transmit(&self) -> bool {
        self.next < self.count() && self.spent < self.limit
    }

    /// Whether all that was taken has been transmitted on the present connection.
    pub(crate) fn is_transmitted(&self) -> bool {
        self.next == self.count()
    }

    /// Whether the other side has all that was taken.
    pub(crate) fn is_received(&self) -> bool {
        self.kept.is_empty()
    }

    /// The next message for the connection, with its index, as far as there is credit.
    pub(crate) fn transmit(&mut self) -> Option<(u64, &Encoded)> {
        if self.spent >= self.limit {
            return None;
        }
        let index = self.next;
        let message = self.kept.get(usize::try_from(index - self.first).ok()?)?;
        self.next += 1;
        self.spent += cost(message);
        self.highest = self.highest.max(self.next);
        Some((index, message))
    }

    /// The other side tells how far it is. Returns whether there is room for a message again for
    /// somebody who was refused.
    ///
    /// # Errors
    /// If it claims what was never sent.
    pub(crate) fn credit(&mut self, credit: Credit) -> Result<bool, Broken> {
        if credit.received > self.highest || credit.taken > credit.received {
            return Err(Broken("credit for messages of a stream that were not sent"));
        }
        self.limit = self.limit.max(credit.limit);
        self.taken = self.taken.max(credit.taken);
        while self.first < credit.received
            && let Some(message) = self.kept.pop_front()
        {
            self.first += 1;
            self.freed += cost(&message);
            self.held -= cost(&message);
        }
        if self.next < self.first {
            (self.next, self.spent) = (self.first, self.freed);
        }
        Ok(self.held <= self.bound / 2 && core::mem::take(&mut self.refused))
    }

    /// The connection is another one: what is not known to have arrived is transmitted again.
    pub(crate) fn rewind(&mut self) {
        (self.next, self.spent) = (self.first, self.freed);
    }

    /// Whether nothing was transmitted on any connection.
    pub(crate) fn is_untouched(&self) -> bool {
        self.highest == 0 && self.first == 0
    }

    /// Begins anew towards another receiver, which has granted nothing yet.
    pub(crate) fn restart(&mut self) {
        debug_assert!(self.is_untouched(), "messages that the first receiver may have freed");
        (self.next, self.spent, self.limit) = (0, 0, 0);
    }

    /// Drops what was not transmitted: nobody wants it. No further messages come.
    pub(crate) fn cut(&mut self) {
        self.ended = true;
        while self.count() > self.next {
            let Some(message) = self.kept.pop_back() else { return };
            self.held -= cost(&message);
        }
    }
}
