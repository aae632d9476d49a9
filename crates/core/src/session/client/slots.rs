//! The slots of a client: held or not, idle or busy, and what has to be said of each.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{ClientSession, Fate, Sent};
use crate::session::{MAX_SEQUENCE, SlotChange, SlotPosition};

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    /// The lists that name the slot already, so that they never name it twice.
    pub(super) in_fences: bool,
    pub(super) in_unreleased: bool,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    /// Granted; the last number settled. `unreleased`: the server may still keep its outcome.
    Idle {
        last: u64,
        unreleased: bool,
    },
    Busy(InFlight),
    /// Given back with this number, or never granted.
    NotHeld {
        last: u64,
    },
    /// The two sides disagree about it: never used again.
    Retired,
}

#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) sequence: u64,
    pub(super) sent: Sent,
    pub(super) working: bool,
    pub(super) abandoned: bool,
    pub(super) fence: Fence,
    /// The journal has it, or none is kept: it may be sent.
    pub(super) journalled: bool,
    /// It is settled; its slot is in use until the journal has the outcome.
    pub(super) answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    None,
    Waiting,
    UnderWay,
}

/// The fences that are to be sent, and how many are under way.
#[derive(Clone, Debug)]
pub(super) struct Fences {
    /// Each slot at most once; may name some whose call was settled in another way since.
    pub(super) waiting: VecDeque<u32>,
    pub(super) under_way: usize,
    pub(super) bound: usize,
}

impl Entry {
    pub(super) fn new(state: State) -> Self {
        Self { state, in_fences: false, in_unreleased: false }
    }
}

impl InFlight {
    /// A call that an earlier process made.
    pub(super) fn left(sequence: u64, working: bool) -> Self {
        let (sent, fence) = (Sent::Whole, Fence::None);
        let (journalled, answered) = (true, false);
        Self { sequence, sent, working, abandoned: true, fence, journalled, answered }
    }

    /// Whether it is the number `sequence`, and not settled.
    pub(super) fn is(&self, sequence: u64) -> bool {
        self.sequence == sequence && !self.answered
    }

    pub(super) fn fate(&self) -> Fate {
        if self.sent == Sent::Whole { Fate::Lost } else { Fate::NeverSent }
    }
}

impl Fences {
    pub(super) fn list(&mut self, slot: u32, listed: &mut bool) {
        if !core::mem::replace(listed, true) {
            self.waiting.push_back(slot);
        }
    }
}

impl ClientSession {
    /// Slots that the server asked for and that are settled, for a RETURN_SLOTS.
    pub fn take_returns(&mut self) -> Vec<SlotPosition> {
        if self.attached { core::mem::take(&mut self.returning) } else { Vec::new() }
    }

    /// The server grants slots or asks for some back.
    pub fn slots_changed(&mut self, change: &SlotChange) {
        for grant in &change.granted {
            self.granted(grant.slot, grant.sequence);
        }
        if change.version > self.version {
            self.version = change.version;
            self.wanted = change.wanted.clamp(1, self.max_slots.max(1));
        }
        self.give_back();
    }

    /// The first of the slots granted at opening that was never used.
    pub(super) fn untouched(&mut self) -> Option<u32> {
        let slot = u32::try_from(self.slots.len()).ok().filter(|slot| *slot < self.span)?;
        self.slots.push(Entry::new(State::Idle { last: 0, unreleased: false }));
        Some(slot)
    }

    /// Takes an idle slot for the call of its next number, which an earlier process made.
    pub(super) fn take(&mut self, slot: u32) -> bool {
        if slot >= self.max_slots || (slot >= self.span && slot as usize >= self.slots.len()) {
            return false;
        }
        self.grow(slot);
        let State::Idle { last, .. } = self.slots[slot as usize].state else { return false };
        self.free.retain(|free| *free != slot);
        self.slots[slot as usize].state = State::Busy(InFlight::left(last + 1, false));
        self.busy += 1;
        true
    }

    pub(super) fn settle(&mut self, slot: u32, sequence: u64) {
        self.drop_fence(slot);
        match &mut self.slots[slot as usize].state {
            State::Busy(flight) if self.journal => flight.answered = true,
            _ => self.let_go_of(slot, sequence),
        }
    }

    /// The outcome need not be kept any longer.
    pub(super) fn let_go_of(&mut self, slot: u32, sequence: u64) {
        self.vacate(slot, State::Idle { last: sequence, unreleased: true });
        self.list_unreleased(slot);
    }

    /// A busy slot becomes idle.
    #[inline(always)]
    pub(super) fn vacate(&mut self, slot: u32, idle: State) {
        self.busy -= 1;
        if matches!(idle, State::Idle { last, .. } if last >= MAX_SEQUENCE) {
            // Its numbers are used up.
            self.slots[slot as usize].state = State::Retired;
            self.held -= 1;
            return;
        }
        self.slots[slot as usize].state = idle;
        self.free.push(slot);
        self.give_back();
    }

    pub(super) fn list_unreleased(&mut self, slot: u32) {
        if !core::mem::replace(&mut self.slots[slot as usize].in_unreleased, true) {
            self.unreleased.push(slot);
        }
    }

    /// The two sides disagree about a slot: it is not used again.
    pub(super) fn retire(&mut self, slot: u32) {
        self.drop_fence(slot);
        match core::mem::replace(&mut self.slots[slot as usize].state, State::Retired) {
            State::Busy(_) => (self.busy, self.held) = (self.busy - 1, self.held - 1),
            State::Idle { .. } => {
                self.free.retain(|free| *free != slot);
                self.held -= 1;
            }
            State::NotHeld { .. } | State::Retired => {}
        }
    }

    pub(super) fn want_fence(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        if let State::Busy(flight) = &mut entry.state
            && flight.fence == Fence::None
            // It has started, and its answer comes by itself.
            && !flight.working
        {
            flight.fence = Fence::Waiting;
            self.fences.list(slot, &mut entry.in_fences);
        }
    }

    pub(super) fn drop_fence(&mut self, slot: u32) {
        if let State::Busy(flight) = &mut self.slots[slot as usize].state {
            if flight.fence == Fence::UnderWay {
                self.fences.under_way -= 1;
            }
            flight.fence = Fence::None;
        }
    }

    /// A slot is granted, its first call to take the number `first`. A copy of a grant whose slot was
    /// given back since names a number that is too low.
    pub(super) fn granted(&mut self, slot: u32, first: u64) {
        if slot >= self.max_slots || first == 0 || first > MAX_SEQUENCE {
            return;
        }
        self.grow(slot);
        if let State::NotHeld { last } = self.slots[slot as usize].state
            && (last == 0 || first > last + 1 || cfg!(feature = "planted-regrant"))
        {
            let state = State::Idle { last: first - 1, unreleased: false };
            self.slots[slot as usize].state = state;
            self.free.push(slot);
            self.held += 1;
        }
    }

    /// Makes sure that the table has `slot`.
    pub(super) fn grow(&mut self, slot: u32) {
        while self.slots.len() <= slot as usize {
            match self.untouched() {
                Some(untouched) => self.free.push(untouched),
                None => self.slots.push(Entry::new(State::NotHeld { last: 0 })),
            }
        }
    }

    /// Gives back idle slots while there are more than the server wants.
    pub(super) fn give_back(&mut self) {
        while self.held > self.wanted {
            // The least recently used first, so that the others stay warm.
            let slot = if self.free.is_empty() {
                let Some(slot) = self.untouched() else { return };
                slot
            } else {
                self.free.remove(0)
            };
            let state = &mut self.slots[slot as usize].state;
            if let State::Idle { last, .. } = *state {
                *state = State::NotHeld { last };
                self.returning.push(SlotPosition { slot, sequence: last });
                self.held -= 1;
            }
        }
    }
}
