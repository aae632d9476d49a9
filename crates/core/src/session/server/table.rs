//! The slots of one session at the server: which are granted, and above which number they start.

use alloc::vec::Vec;

use crate::session::{
    Footprint, KeptReply, QueryAnswer, Slot, SlotChange, SlotPosition, SlotReport, SlotState,
    Violation,
};

/// The slots of a session. The table grows when a slot is first used.
#[derive(Clone, Debug)]
pub(super) struct SlotTable<R> {
    /// Slots granted at opening, from number 1. Those at or above `entries.len()` are untouched.
    pub(super) span: u32,
    /// `None` is a slot that was given back.
    pub(super) entries: Vec<Option<Slot<R>>>,
    pub(super) held: u32,
    pub(super) wanted: u32,
    pub(super) version: u64,
    /// The highest number that any slot of the session has seen: with it, a slot that was given
    /// back can be forgotten.
    pub(super) highest: u64,
}

/// Where a message for a slot goes.
pub(super) enum Place<'a, R> {
    /// A granted slot.
    Granted(&'a mut Slot<R>),
    /// The slot was given back and the number is from before: a late copy of something settled.
    GivenBack,
}

impl<R: KeptReply> SlotTable<R> {
    pub(super) fn new(span: u32) -> Self {
        Self { span, entries: Vec::new(), held: span, wanted: span, version: 0, highest: 0 }
    }

    /// Slots that are granted.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    pub(super) fn span(&self) -> u32 {
        self.span
    }

    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The slot that a message with this number is for.
    pub(super) fn place(&mut self, slot: u32, sequence: u64) -> Result<Place<'_, R>, Violation> {
        let index = slot as usize;
        if index >= self.entries.len() {
            if slot >= self.span {
                return Err(Violation::NotGranted);
            }
            self.grow(index + 1);
        }
        match &mut self.entries[index] {
            Some(slot) => Ok(Place::Granted(slot)),
            None if sequence <= self.highest => Ok(Place::GivenBack),
            None => Err(Violation::NotGranted),
        }
    }

    /// To be called when `sequence` was used in any slot.
    pub(super) fn used(&mut self, sequence: u64) {
        self.highest = self.highest.max(sequence);
    }

    /// The client gives `slot` back, settled up to `sequence`. Returns what the slot held, or `None`
    /// for a late copy, which changes nothing.
    pub(super) fn take_back(
        &mut self,
        slot: u32,
        sequence: u64,
    ) -> Result<Option<Footprint>, Violation> {
        let Place::Granted(entry) = self.place(slot, sequence)? else { return Ok(None) };
        if sequence < entry.last() {
            return Ok(None);
        }
        let before = entry.footprint();
        entry.release(sequence)?;
        self.entries[slot as usize] = None;
        self.held -= 1;
        Ok(Some(before))
    }

    /// Sets how many slots the client should hold, and grants what is missing to that number.
    pub(super) fn resize(&mut self, wanted: u32) -> SlotChange {
        self.wanted = wanted;
        self.version += 1;
        let mut granted = Vec::new();
        if self.held < wanted {
            self.grant(wanted - self.held, &mut granted);
        }
        SlotChange { version: self.version, wanted, granted }
    }

    /// What is known of a number, without changing anything.
    pub(super) fn query(&self, slot: u32, sequence: u64) -> QueryAnswer<R> {
        match self.entries.get(slot as usize) {
            Some(Some(slot)) => slot.query(sequence),
            Some(None) if sequence <= self.highest => QueryAnswer::AlreadySettled,
            _ => QueryAnswer::NotArrived,
        }
    }

    /// The slots that differ from one granted at opening and never used.
    pub(super) fn reports(&self) -> Vec<SlotReport> {
        let mut reports = Vec::new();
        for (slot, entry) in (0u32..).zip(&self.entries) {
            match entry {
                Some(entry) if entry.last() == 0 && slot < self.span => {}
                Some(entry) => {
                    reports.push(SlotReport { slot, sequence: entry.last(), state: entry.state() })
                }
                None => {
                    reports.push(SlotReport { slot, sequence: 0, state: SlotState::NotGranted })
                }
            }
        }
        reports
    }

    /// The slots that were used or granted later.
    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot<R>> {
        self.entries.iter_mut().flatten()
    }

    /// What all slots hold, counted anew.
    pub(super) fn footprint(&self) -> Footprint {
        let mut sum = Footprint::default();
        for slot in self.entries.iter().flatten() {
            sum.exchange(Footprint::default(), slot.footprint());
        }
        sum
    }

    /// Grants `count` more, those given back first.
    fn grant(&mut self, count: u32, granted: &mut Vec<SlotPosition>) {
        // One number is left out, so that a late copy of the giving back, which carries the highest
        // number that its slot may have seen, cannot mean the slot as granted again.
        let floor = if cfg!(feature = "planted-regrant") { 0 } else { self.highest + 1 };
        self.highest = self.highest.max(floor);
        self.grow(self.span as usize);
        let mut free = 0;
        for _ in 0..count {
            while self.entries.get(free).is_some_and(Option::is_some) {
                free += 1;
            }
            if free == self.entries.len() {
                self.entries.push(None);
            }
            self.entries[free] = Some(Slot::new(floor));
            granted.push(SlotPosition { slot: free as u32, sequence: floor + 1 });
        }
        self.held += count;
    }

    fn grow(&mut self, len: usize) {
        // Most sessions make one call after the other, and need no room for more.
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(len);
        }
        while self.entries.len() < len {
            self.entries.push(Some(Slot::new(0)));
        }
    }
}
