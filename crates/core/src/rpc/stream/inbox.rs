//! The receiving end of a direction.

use alloc::collections::{BTreeMap, VecDeque};

use super::{Broken, Credit, OVERHEAD, cost};
use crate::service::Encoded;

/// Messages from the other side, until the application takes them: in order, each once.
///
/// Bound: the window and one message. A sender that does not keep to it is [`Broken`].
#[derive(Debug)]
pub(crate) struct Inbox {
    /// In order and without a gap, from the next to take on.
    ready: VecDeque<Encoded>,
    /// Those that overtook others.
    ahead: BTreeMap<u64, Encoded>,
    taken: u64,
    taken_cost: u64,
    /// What both tables count.
    held: u64,
    window: u64,
    /// The limit that the sender was told last.
    told: u64,
    end: Option<u64>,
    /// The application found nothing: there is somebody to tell when there is something.
    wanted: bool,
}

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// It had come before.
    Copy,
    /// It, or what waited for it, can be taken, or it waits for others.
    New,
}

impl Inbox {
    /// Nothing has come. The sender may send what counts `window` unasked, or once it is told.
    pub(crate) fn new(window: u64) -> Self {
        Self {
            ready: VecDeque::new(),
            ahead: BTreeMap::new(),
            taken: 0,
            taken_cost: 0,
            held: 0,
            window: window.max(1),
            told: 0,
            end: None,
            wanted: false,
        }
    }

    /// A message has come. `largest` is what one may count.
    ///
    /// # Errors
    /// If no correct sender sends it.
    pub(crate) fn arrive(
        &mut self,
        index: u64,
        message: Encoded,
        largest: u64,
    ) -> Result<Arrived, Broken> {
        if index < self.received() || self.ahead.contains_key(&index) {
            if cfg!(feature = "planted-repeated-message") && index + 1 == self.received() {
                self.held += cost(&message);
                self.ready.push_back(message);
                return Ok(Arrived::New);
            }
            return Ok(Arrived::Copy);
        }
        if self.end.is_some_and(|end| index >= end) {
            return Err(Broken("a message of a stream after its end"));
        }
        let size = cost(&message);
        // Every message before it counts something, and what all count together is bounded.
        let far = index - self.taken > self.window / OVERHEAD;
        if far || self.held.saturating_add(size) > self.window.saturating_add(largest) {
            return Err(Broken("more of a stream than its window allows"));
        }
        self.held += size;
        if index > self.received() {
            self.ahead.insert(index, message);
            return Ok(Arrived::New);
        }
        self.ready.push_back(message);
        while let Some(message) = self.ahead.remove(&self.received()) {
            self.ready.push_back(message);
        }
        Ok(Arrived::New)
    }

    /// The sender says that `count` messages are all.
    ///
    /// # Errors
    /// If that contradicts what has come.
    pub(crate) fn end_at(&mut self, count: u64) -> Result<(), Broken> {
        let beyond = self.ahead.last_key_value().map_or(self.received(), |(last, _)| last + 1);
        if count < beyond || self.end.is_some_and(|end| end != count) {
            return Err(Broken("a stream ends at two places"));
        }
        self.end = Some(count);
        Ok(())
    }

    /// The next message, for the application.
    pub(crate) fn take(&mut self) -> Option<Encoded> {
        let Some(message) = self.ready.pop_front() else {
            self.wanted = true;
            return None;
        };
        self.taken += 1;
        self.taken_cost += cost(&message);
        self.held -= cost(&message);
        Some(message)
    }

    /// Messages that have come without a gap: the index that is expected next.
    pub(crate) fn received(&self) -> u64 {
        self.taken + self.ready.len() as u64
    }

    /// Messages that the application has taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// What it holds.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Whether all messages were taken that there are.
    pub(crate) fn is_over(&self) -> bool {
        self.end == Some(self.taken)
    }

    /// Whether somebody who found nothing is to be told that there is something now, or nothing more
    /// to come.
    pub(crate) fn has_news(&mut self) -> bool {
        (!self.ready.is_empty() || self.is_over()) && core::mem::take(&mut self.wanted)
    }

    /// Whether so much was taken that the sender should be told.
    pub(crate) fn owes_credit(&self) -> bool {
        self.end.is_none_or(|end| end > self.received())
            && self.limit().saturating_sub(self.told) > self.window / 4
    }

    /// What to tell the sender; it counts as told.
    pub(crate) fn credit(&mut self) -> Credit {
        self.told = self.limit();
        Credit { received: self.received(), taken: self.taken, limit: self.told }
    }

    fn limit(&self) -> u64 {
        self.taken_cost.saturating_add(self.window)
    }
}
