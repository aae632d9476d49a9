//! A session whose client keeps a journal: a number is written down before anything is said of it to
//! the server, and its outcome before the server may let go of it. So whoever reads the journal after
//! a crash knows every number that the server can have, and every outcome that it has no more.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::slots::{Entry, Fence, InFlight, State};
use super::{ClientSession, Reconciled, Sent};
use crate::session::{Attached, CallId, MAX_SEQUENCE, SessionId};

/// The last number that a journal has of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSlot {
    /// The slot.
    pub slot: u32,
    /// The number.
    pub sequence: u64,
    /// Whether its outcome is in the journal too.
    pub answered: bool,
}

impl ClientSession {
    /// From here on each number waits for [`journalled`](Self::journalled) before it is sent, and
    /// each slot for [`let_go`](Self::let_go) before it is used again.
    pub fn keep_journal(&mut self) {
        self.journal = true;
    }

    /// Whether numbers and outcomes wait for a journal.
    pub fn keeps_journal(&self) -> bool {
        self.journal
    }

    /// A session that an earlier process opened and kept a journal of. Calls without an outcome there
    /// are in flight again: each is sent again under its number, or [asked](Self::ask) for.
    pub fn resume_journal(
        session: SessionId,
        journal: &[JournalSlot],
        max_slots: u32,
        max_fences: usize,
    ) -> Self {
        let mut resumed = Self::resume(session, max_slots, max_fences);
        resumed.journal = true;
        for known in journal {
            if known.slot >= max_slots || known.sequence == 0 || known.sequence > MAX_SEQUENCE {
                continue;
            }
            resumed.grow(known.slot);
            let state = if known.answered {
                State::Idle { last: known.sequence, unreleased: false }
            } else {
                resumed.busy += 1;
                let left = InFlight::left(known.sequence, false);
                State::Busy(InFlight { abandoned: false, ..left })
            };
            resumed.slots[known.slot as usize].state = state;
        }
        resumed
    }

    /// Whether the call may be sent: the journal has it.
    pub fn may_send(&self, call: CallId) -> bool {
        let entry = self.slots.get(call.slot as usize).map(|entry| &entry.state);
        matches!(entry, Some(State::Busy(flight)) if flight.is(call.sequence) && flight.journalled)
    }

    /// The call goes into the journal now: from here on it counts as sent, since a later process may
    /// send what it finds there.
    pub fn journalling(&mut self, call: CallId) {
        self.sent(call, Sent::Whole);
    }

    /// The journal has the call, for good: it may be sent, and fenced.
    pub fn journalled(&mut self, call: CallId) {
        let Some(flight) = self.own(call) else { return };
        flight.journalled = true;
        if flight.fence == Fence::Waiting {
            let entry = &mut self.slots[call.slot as usize];
            self.fences.list(call.slot, &mut entry.in_fences);
        }
    }

    /// The journal has the call's outcome, for good: the server need not keep it any longer, and the
    /// slot is free.
    pub fn let_go(&mut self, call: CallId) {
        let entry = self.slots.get(call.slot as usize).map(|entry| &entry.state);
        if call.session == self.id
            && let Some(State::Busy(flight)) = entry
            && flight.sequence == call.sequence
            && flight.answered
        {
            self.let_go_of(call.slot, call.sequence);
        }
    }

    /// What the journal has, taken out of the table for the server's report to be put there.
    pub(super) fn take_known(&mut self) -> Vec<Entry> {
        self.free.clear();
        self.unreleased.clear();
        self.busy = 0;
        self.fences.waiting = VecDeque::new();
        core::mem::take(&mut self.slots)
    }

    /// Puts what the journal has over what the server reported, which [`Self::adopt`] made calls of
    /// nobody of. Returns what to do about each call in flight.
    pub(super) fn take_up(
        &mut self,
        known: Vec<Entry>,
        attached: &Attached,
    ) -> Vec<(CallId, Reconciled)> {
        let mut calls = Vec::new();
        if known.is_empty() {
            return calls;
        }
        self.grow(known.len() as u32 - 1);
        let reports = self.reports(attached);
        let mut answered = Vec::new();
        for (slot, entry) in (0u32..).zip(known) {
            match entry.state {
                State::Busy(flight) => {
                    let sequence = flight.sequence;
                    self.put_in_flight(slot, flight);
                    let report = &reports[slot as usize];
                    let todo = self.reconcile(report, attached.version, sequence);
                    calls.push((self.call(slot, sequence), todo));
                }
                State::Idle { last, .. } => answered.push((slot, last)),
                State::NotHeld { .. } | State::Retired => {}
            }
        }
        for (slot, last) in answered {
            self.put_answered(slot, last);
        }
        calls
    }

    fn put_in_flight(&mut self, slot: u32, flight: InFlight) {
        self.free.retain(|free| *free != slot);
        let entry = &mut self.slots[slot as usize];
        if flight.fence != Fence::None {
            self.fences.list(slot, &mut entry.in_fences);
        }
        let flight = InFlight {
            fence: if flight.fence == Fence::None { Fence::None } else { Fence::Waiting },
            ..flight
        };
        match core::mem::replace(&mut entry.state, State::Busy(flight)) {
            State::Busy(_) => {}
            State::Idle { .. } => self.busy += 1,
            State::NotHeld { .. } | State::Retired => {
                self.busy += 1;
                self.held += 1;
            }
        }
    }

    /// The journal has the outcome of the slot's last number, so that the server need not keep it.
    fn put_answered(&mut self, slot: u32, last: u64) {
        if matches!(&self.slots[slot as usize].state, State::Busy(flight) if flight.sequence == last)
        {
            self.let_go_of(slot, last);
        }
    }
}
