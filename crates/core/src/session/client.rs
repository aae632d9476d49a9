//! The client half: which slots are free, what is in flight, and what has to be said about it.

mod attach;
mod journal;
mod slots;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use stubborn_rope::ahead::read_ahead;

pub use self::attach::Reconciled;
pub use self::journal::JournalSlot;
use self::slots::{Entry, Fence, Fences, InFlight, State};
use super::{Answer, CallId, Opened, SessionId, SlotPosition};

/// A client's side of one session.
///
/// It hands out a call's id before anything is sent, sends n+1 on a slot only when n is settled, and
/// settles abandoned calls by fences in the background. The caller moves the bytes: it tells what
/// was sent and what came back, and asks for the fences, releases and returned slots to send.
///
/// Messages of connections other than the one that attached last should not be handed in, apart from
/// answers about calls: those are facts wherever they come from.
#[derive(Clone, Debug)]
pub struct ClientSession {
    id: SessionId,
    epoch: u64,
    attached: bool,
    /// What an earlier process left is not known before the first attach.
    resuming: bool,
    /// Numbers wait for the journal before they are sent, and outcomes before they are let go.
    journal: bool,
    /// Slots granted at opening. Those at or above `slots.len()` are untouched.
    span: u32,
    slots: Vec<Entry>,
    /// Idle slots that have been used, the most recent last.
    free: Vec<u32>,
    held: u32,
    busy: u32,
    wanted: u32,
    version: u64,
    max_slots: u32,
    fences: Fences,
    /// Slots with an outcome that the server need not keep any longer; may name some that have moved
    /// on since.
    unreleased: Vec<u32>,
    returning: Vec<SlotPosition>,
    /// Answers about calls in flight.
    answers: u64,
}

/// How much of a call has been sent.
///
/// Whole means that on some connection its last byte was sent at least once: from then on the server
/// may have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// Not a byte.
    #[default]
    Nothing,
    /// Some bytes, and on no connection all of them.
    Part,
    /// All of it.
    Whole,
}

/// What came of abandoning a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// Part of it was never sent: it is not executed and never will be. The caller must send no more
    /// of it.
    NeverSent,
    /// Its outcome is not known yet. A fence will settle it in the background.
    Pending,
    /// It is not in flight: it was settled before.
    Settled,
}

/// What came of asking for the outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is in flight: an answer will settle it.
    UnderWay,
    /// It was settled before.
    Settled,
    /// No call of this session can have that id.
    Unknown,
}

/// What an answer from the server means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The answer settles the call, and its slot is free again.
    Settled {
        /// Whether the call had been abandoned, so that nobody waits for it any more.
        abandoned: bool,
    },
    /// The call is being executed; its answer follows.
    Working,
    /// The server settled the number before, with another owner of the session or against the
    /// protocol: whether the call ran cannot be known. Its slot is not used again.
    Lost,
    /// A late copy of what is known already.
    Ignored,
}

/// What became of a call in flight when its session was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Part of it was never sent: it did not run and never will.
    NeverSent,
    /// Whether it ran cannot be known.
    Lost,
}

impl ClientSession {
    /// Begins to read its slots.
    pub fn read_ahead(&self) {
        read_ahead(&self.slots[..]);
        read_ahead(&self.free[..]);
    }

    /// The session that the server opened. `max_slots` bounds how many slots it may hold
    /// ([`crate::limits::Limits::slots`]), `max_fences` the fences under way at once
    /// ([`crate::limits::Limits::background_fences`]).
    pub fn new(opened: &Opened, max_slots: u32, max_fences: usize) -> Self {
        let span = opened.slots.min(max_slots);
        let fences = Fences { waiting: VecDeque::new(), under_way: 0, bound: max_fences.max(1) };
        Self {
            id: opened.session,
            epoch: opened.epoch,
            attached: true,
            resuming: false,
            journal: false,
            span,
            slots: Vec::new(),
            free: Vec::new(),
            held: span,
            busy: 0,
            wanted: span,
            version: 0,
            max_slots,
            fences,
            unreleased: Vec::new(),
            returning: Vec::new(),
            answers: 0,
        }
    }

    /// A session that an earlier process opened, to be attached to. Calls that it left without
    /// letting the server go of their outcomes count as abandoned ones in flight:
    /// [`Self::ask`] settles each.
    pub fn resume(session: SessionId, max_slots: u32, max_fences: usize) -> Self {
        let opened = Opened {
            session,
            secret: super::SessionSecret::NONE,
            epoch: 0,
            slots: 0,
            retention: crate::time::Duration::ZERO,
        };
        Self { attached: false, resuming: true, ..Self::new(&opened, max_slots, max_fences) }
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether the session has a connection, so that calls can be sent.
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Calls in flight, abandoned ones included.
    pub fn in_flight(&self) -> u32 {
        self.busy
    }

    /// Whether nothing that the server has seen, or may see, is unsettled. Numbers that were reserved
    /// and not used may be left.
    pub fn is_quiet(&self) -> bool {
        let unused = |slot: &State| match slot {
            State::Busy(flight) => flight.sent == Sent::Nothing && flight.fence == Fence::None,
            _ => true,
        };
        self.busy == 0 || self.slots.iter().all(|entry| unused(&entry.state))
    }

    /// Whether the number was reserved, and nobody can have seen it.
    pub fn is_unused(&self, call: CallId) -> bool {
        self.progress(call) == Some((Sent::Nothing, false))
    }

    /// Slots that the server granted and that were not given back.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Whether there is a free slot.
    pub fn has_room(&self) -> bool {
        self.busy < self.wanted
    }

    /// Takes a free slot and names the call that goes on it, before anything is sent. `None` if
    /// every slot is in use: the call waits until one is settled or granted.
    #[inline]
    pub fn reserve(&mut self) -> Option<CallId> {
        if self.busy >= self.wanted {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.untouched()?,
        };
        let state = &mut self.slots[slot as usize].state;
        let State::Idle { last, .. } = *state else {
            debug_assert!(false, "a free slot is idle");
            return None;
        };
        let sequence = last + 1;
        *state = State::Busy(InFlight {
            sequence,
            sent: Sent::Nothing,
            working: false,
            abandoned: false,
            fence: Fence::None,
            journalled: !self.journal,
            answered: false,
        });
        self.busy += 1;
        Some(self.call(slot, sequence))
    }

    /// More of the call has been sent; on any connection, so that it never becomes less.
    pub fn sent(&mut self, call: CallId, sent: Sent) {
        if let Some(flight) = self.own(call) {
            flight.sent = flight.sent.max(sent);
        }
    }

    /// How much of the call has been sent, and whether the server said that it is executing; `None`
    /// if it is not in flight.
    pub fn progress(&self, call: CallId) -> Option<(Sent, bool)> {
        match &self.slots.get(call.slot as usize)?.state {
            State::Busy(flight) if call.session == self.id && flight.is(call.sequence) => {
                Some((flight.sent, flight.working))
            }
            _ => None,
        }
    }

    /// Nobody waits for the call any more: its deadline passed or its future was dropped. What is
    /// not sent must not be sent any more; the rest is settled by a fence in the background.
    pub fn abandon(&mut self, call: CallId) -> Abandoned {
        let Some(flight) = self.own(call) else { return Abandoned::Settled };
        flight.abandoned = true;
        match flight.sent {
            Sent::Nothing if flight.fence == Fence::None => {
                // Nobody can have the number: the next call takes it.
                let last = call.sequence - 1;
                self.vacate(call.slot, State::Idle { last, unreleased: false });
                Abandoned::NeverSent
            }
            Sent::Whole => {
                self.want_fence(call.slot);
                Abandoned::Pending
            }
            // The number is burnt: the server may have seen the beginning.
            Sent::Nothing | Sent::Part => {
                self.want_fence(call.slot);
                Abandoned::NeverSent
            }
        }
    }

    /// Asks the server what became of the call, and makes sure that it does not start if it has not.
    /// Of a resumed session this can also be a call that the server has not seen.
    pub fn ask(&mut self, call: CallId) -> Asked {
        let CallId { slot, sequence, .. } = call;
        if call.session != self.id {
            return Asked::Unknown;
        }
        let idle = match self.slots.get(slot as usize).map(|entry| &entry.state) {
            Some(State::Busy(flight)) => flight.sequence,
            Some(State::Idle { last, .. } | State::NotHeld { last }) => *last,
            Some(State::Retired) => return Asked::Unknown,
            None => 0,
        };
        let busy = self.flight(slot, sequence).is_some();
        if busy {
            self.want_fence(slot);
            Asked::UnderWay
        } else if sequence <= idle {
            Asked::Settled
        } else if sequence == idle + 1 && self.take(slot) {
            self.want_fence(slot);
            Asked::UnderWay
        } else {
            Asked::Unknown
        }
    }

    /// The server's answer about a number.
    pub fn answer<R>(&mut self, slot: u32, sequence: u64, answer: &Answer<R>) -> Effect {
        let Some(flight) = self.flight(slot, sequence) else { return Effect::Ignored };
        let abandoned = flight.abandoned;
        flight.working |= matches!(answer, Answer::Working);
        self.answers += 1;
        match answer {
            Answer::Working => {
                // It has started, so that a fence would not be answered otherwise.
                self.drop_fence(slot);
                Effect::Working
            }
            Answer::Stale => {
                self.retire(slot);
                Effect::Lost
            }
            Answer::Reply(_) | Answer::NotKept | Answer::NotExecuted(_) => {
                self.settle(slot, sequence);
                Effect::Settled { abandoned }
            }
        }
    }

    /// How many answers about calls in flight have come.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// The server has pushed a number back without looking at it. Names the call if it is in flight:
    /// it is to be sent again later, or its [fence](Self::fence_again) is.
    pub fn pushed_back(&self, slot: u32, sequence: u64) -> Option<CallId> {
        let call = self.call(slot, sequence);
        self.progress(call).map(|_| call)
    }

    /// If the call is being fenced, its fence is handed out again by [`Self::next_fence`], and the
    /// request need not be sent. Returns whether it is.
    pub fn fence_again(&mut self, call: CallId) -> bool {
        let Some(flight) = self.own(call) else { return false };
        match flight.fence {
            Fence::None => return false,
            Fence::Waiting => {}
            Fence::UnderWay => {
                flight.fence = Fence::Waiting;
                self.fences.under_way -= 1;
                let entry = &mut self.slots[call.slot as usize];
                self.fences.list(call.slot, &mut entry.in_fences);
            }
        }
        true
    }

    /// The server refused the request because another one has its number: this request was not
    /// executed and never will be. The slot stays in use until a fence has told what the other one
    /// became. Returns false for a late copy.
    pub fn false_retry(&mut self, slot: u32, sequence: u64) -> bool {
        let Some(flight) = self.flight(slot, sequence) else { return false };
        let news = !flight.abandoned;
        flight.abandoned = true;
        flight.sent = Sent::Whole;
        self.want_fence(slot);
        news
    }

    /// The next fence to send, if the session is attached and not too many are under way.
    pub fn next_fence(&mut self) -> Option<SlotPosition> {
        while self.attached && self.fences.under_way < self.fences.bound {
            let slot = self.fences.waiting.pop_front()?;
            let entry = &mut self.slots[slot as usize];
            entry.in_fences = false;
            if let State::Busy(flight) = &mut entry.state
                && flight.fence == Fence::Waiting
                && flight.journalled
            {
                flight.fence = Fence::UnderWay;
                self.fences.under_way += 1;
                return Some(SlotPosition { slot, sequence: flight.sequence });
            }
        }
        None
    }

    /// Up to `most` outcomes that the server need not keep any longer, for a RELEASE. A slot that is
    /// used again needs none: its next number says the same.
    pub fn take_releases(&mut self, most: usize) -> Vec<SlotPosition> {
        let mut releases = Vec::new();
        while self.attached && releases.len() < most {
            let Some(slot) = self.unreleased.pop() else { break };
            let entry = &mut self.slots[slot as usize];
            entry.in_unreleased = false;
            if let State::Idle { last, unreleased } = &mut entry.state
                && core::mem::take(unreleased)
            {
                releases.push(SlotPosition { slot, sequence: *last });
            }
        }
        releases
    }

    /// The connection has ended, or another attach has superseded it. Calls stay in flight; what was
    /// asked and not answered is asked again after attaching.
    pub fn detached(&mut self) {
        self.attached = false;
        for (slot, entry) in (0u32..).zip(&mut self.slots) {
            if let State::Busy(flight) = &mut entry.state
                && flight.fence == Fence::UnderWay
            {
                flight.fence = Fence::Waiting;
                self.fences.list(slot, &mut entry.in_fences);
            }
        }
        self.fences.under_way = 0;
    }

    /// The server has no memory of the session: it said so itself ([`super::Refusal::is_lost`]), or
    /// the process that opened it is known to be dead. Says what became of each call in flight, in
    /// the order of their slots.
    ///
    /// The word of another server that is merely reached by the same name is not enough: a late copy
    /// could still run at the first.
    pub fn lost(self) -> Vec<(CallId, Fate)> {
        let mut fates = Vec::new();
        for (slot, entry) in (0u32..).zip(&self.slots) {
            if let State::Busy(flight) = &entry.state
                && !flight.answered
            {
                fates.push((self.call(slot, flight.sequence), flight.fate()));
            }
        }
        fates
    }

    fn call(&self, slot: u32, sequence: u64) -> CallId {
        CallId { session: self.id, slot, sequence }
    }

    fn own(&mut self, call: CallId) -> Option<&mut InFlight> {
        if call.session == self.id { self.flight(call.slot, call.sequence) } else { None }
    }

    fn flight(&mut self, slot: u32, sequence: u64) -> Option<&mut InFlight> {
        match &mut self.slots.get_mut(slot as usize)?.state {
            State::Busy(flight) if flight.is(sequence) => Some(flight),
            _ => None,
        }
    }
}
