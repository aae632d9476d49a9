//! What a client makes of the server's slots after it has attached.

use alloc::vec::Vec;

use super::slots::{Fence, InFlight, State};
use super::{ClientSession, Fate};
use crate::session::{Attached, CallId, MAX_SEQUENCE, SlotPosition, SlotReport, SlotState};

/// What to do about a call in flight after attaching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// The server has not got it: send the request, again or for the first time.
    Send,
    /// A fence settles it, which [`ClientSession::next_fence`] hands out: the server has its outcome,
    /// and telling it takes less than the request sent again; or the caller had asked for it.
    Ask,
    /// It is executing: the answer will come.
    WillCome,
    /// It was executed, and the reply is not kept. This settles it.
    NotKept,
    /// The server does not remember the slot as it must. This settles it.
    Ended(Fate),
}

impl ClientSession {
    /// The server's answer to an attach. Returns what to do about each call in flight, in the order
    /// of their slots. Of abandoned calls only those are named that this settles; fences take care
    /// of the others.
    ///
    /// An answer to an older attach than the last one answered is ignored: `None`.
    pub fn attached(&mut self, attached: &Attached) -> Option<Vec<(CallId, Reconciled)>> {
        // A group begins no new epoch when the connection that has the session attaches again.
        let known = attached.epoch == self.epoch && self.attached;
        if attached.session != self.id || attached.epoch < self.epoch || known {
            return None;
        }
        self.detached();
        self.epoch = attached.epoch;
        self.attached = true;
        if core::mem::take(&mut self.resuming) {
            let known = self.take_known();
            self.adopt(attached);
            let calls = self.take_up(known, attached);
            self.give_back();
            return Some(calls);
        }
        let mut calls = Vec::new();
        for report in self.reports(attached) {
            let slot = report.slot;
            let State::Busy(flight) = &self.slots[slot as usize].state else {
                self.reconcile_idle(&report, attached.version);
                continue;
            };
            if flight.answered {
                continue;
            }
            let (sequence, abandoned) = (flight.sequence, flight.abandoned);
            let todo = self.reconcile(&report, attached.version, sequence);
            if !abandoned || matches!(todo, Reconciled::NotKept | Reconciled::Ended(_)) {
                calls.push((self.call(slot, sequence), todo));
            }
        }
        if attached.version >= self.version {
            self.version = attached.version;
            self.wanted = attached.wanted.clamp(1, self.max_slots.max(1));
        }
        self.give_back();
        Some(calls)
    }

    /// Takes over what an earlier process left.
    fn adopt(&mut self, attached: &Attached) {
        use SlotState::{Done, Executing, Fenced, Idle, NotGranted, NotKept, Released};
        self.span = attached.span.min(self.max_slots);
        self.held = self.span;
        (self.wanted, self.version) =
            (attached.wanted.clamp(1, self.max_slots.max(1)), attached.version);
        for report in self.reports(attached) {
            let slot = report.slot as usize;
            let last = report.sequence;
            let state = match report.state {
                NotGranted => State::NotHeld { last: 0 },
                Idle | Released => {
                    let again = u64::from(cfg!(feature = "planted-reused-slot"));
                    State::Idle { last: last.saturating_sub(again), unreleased: false }
                }
                Executing | Done | NotKept | Fenced => {
                    State::Busy(InFlight::left(last, report.state == Executing))
                }
            };
            self.slots[slot].state = if last < MAX_SEQUENCE { state } else { State::Retired };
        }
        let count = |wanted: fn(&State) -> bool| {
            self.slots.iter().filter(|entry| wanted(&entry.state)).count() as u32
        };
        self.busy = count(|state| matches!(state, State::Busy(_)));
        let granted = count(|state| matches!(state, State::Busy(_) | State::Idle { .. }));
        self.held = granted + self.span.saturating_sub(self.slots.len() as u32);
        let idle = |slot: &u32| matches!(self.slots[*slot as usize].state, State::Idle { .. });
        self.free = (0..self.slots.len() as u32).filter(idle).collect();
    }

    /// What the server says of each slot in the table, which grows to those that it lists.
    pub(super) fn reports(&mut self, attached: &Attached) -> Vec<SlotReport> {
        let listed = || attached.slots.iter().filter(|report| report.slot < self.max_slots);
        if let Some(highest) = listed().map(|report| report.slot).max() {
            self.grow(highest);
        }
        let untouched = |slot| {
            let granted = slot < attached.span;
            let state = if granted { SlotState::Idle } else { SlotState::NotGranted };
            SlotReport { slot, sequence: 0, state }
        };
        let mut reports: Vec<_> = (0..self.slots.len() as u32).map(untouched).collect();
        for report in attached.slots.iter().filter(|report| report.slot < self.max_slots) {
            reports[report.slot as usize] = *report;
        }
        reports
    }

    /// A call of number `sequence` is in flight on the slot.
    pub(super) fn reconcile(
        &mut self,
        report: &SlotReport,
        version: u64,
        sequence: u64,
    ) -> Reconciled {
        use SlotState::{Done, Executing, Fenced, Idle, NotGranted, NotKept, Released};
        let slot = report.slot;
        match report.state {
            Executing if report.sequence == sequence => {
                self.set_working(slot, true);
                Reconciled::WillCome
            }
            Done | Fenced if report.sequence == sequence => {
                self.set_working(slot, false);
                self.want_fence(slot);
                Reconciled::Ask
            }
            NotKept if report.sequence == sequence => {
                self.settle(slot, sequence);
                Reconciled::NotKept
            }
            // The number before is settled, whatever an older report says of it.
            Idle | Executing | Done | NotKept | Released | Fenced if report.sequence < sequence => {
                self.set_working(slot, false);
                self.send_or_ask(slot)
            }
            // Granted after the server wrote its report.
            NotGranted if self.version > version => self.send_or_ask(slot),
            Idle | Executing | Done | NotKept | Released | Fenced | NotGranted => {
                let fate = match &self.slots[slot as usize].state {
                    State::Busy(flight) => flight.fate(),
                    _ => Fate::Lost,
                };
                self.retire(slot);
                Reconciled::Ended(fate)
            }
        }
    }

    /// The server has not seen the number: the request goes out, unless a fence does.
    fn send_or_ask(&mut self, slot: u32) -> Reconciled {
        match &self.slots[slot as usize].state {
            State::Busy(flight) if flight.abandoned || flight.fence != Fence::None => {
                self.want_fence(slot);
                Reconciled::Ask
            }
            _ => Reconciled::Send,
        }
    }

    fn set_working(&mut self, slot: u32, working: bool) {
        if working {
            self.drop_fence(slot);
        }
        if let State::Busy(flight) = &mut self.slots[slot as usize].state {
            flight.working = working;
        }
    }

    /// No call is in flight on the slot.
    fn reconcile_idle(&mut self, report: &SlotReport, version: u64) {
        let slot = report.slot;
        let overtaken = self.version > version;
        match &mut self.slots[slot as usize].state {
            State::Idle { last, unreleased } => {
                if report.state == SlotState::NotGranted && overtaken {
                    // Granted after the server wrote its report.
                    return;
                }
                if report.state == SlotState::NotGranted || report.sequence > *last {
                    return self.retire(slot);
                }
                if report.sequence < *last {
                    // The answer to its last number came on its own way.
                    return;
                }
                // A release may have been lost with the connection.
                *unreleased = !matches!(report.state, SlotState::Idle | SlotState::Released);
                if *unreleased {
                    self.list_unreleased(slot);
                }
            }
            State::NotHeld { last } => {
                let last = *last;
                if report.state == SlotState::NotGranted {
                    return;
                }
                if report.sequence > last && report.state == SlotState::Idle {
                    // Granted again; the message that said so was lost.
                    return self.granted(slot, report.sequence.saturating_add(1));
                }
                let position = SlotPosition { slot, sequence: last };
                if report.sequence == last && !self.returning.contains(&position) {
                    self.returning.push(position);
                }
            }
            State::Retired | State::Busy(_) => {}
        }
    }
}
