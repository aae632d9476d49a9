//! What the two halves tell each other about a session as a whole. `docs/protocol.md` section 4 has
//! the bytes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{JournalSlot, SessionId, SessionSecret, SlotReport, SlotState};
use crate::time::Duration;

/// Which process attaches, of those that have one journal one after the other. A copy of a journal makes
/// two that follow the same one: the session is with the first that attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// The process that attaches: a number that it drew.
    pub holder: u64,
    /// Those that may have the session now, if no copy was used: itself, and all that had the journal
    /// since one of them attached. At most [`MAX_HOLDERS`](Self::MAX_HOLDERS); none: whoever has it.
    pub after: Vec<u64>,
    /// The last number of each slot that its journal knows of, until it has attached once.
    pub known: Option<Vec<JournalSlot>>,
}

impl Succession {
    /// Bounds [`Self::after`].
    pub const MAX_HOLDERS: usize = 16;

    /// Whether it may take a session that this holder has, with these slots: it comes after that one,
    /// and its journal is the latest. A late copy of its own attach finds that it has the session, and
    /// numbers that it took since.
    pub fn may_attach(&self, holder: Option<u64>, slots: impl FnOnce() -> Vec<SlotReport>) -> bool {
        holder == Some(self.holder) || self.may_follow(holder) && self.is_up_to_date(slots)
    }

    fn may_follow(&self, holder: Option<u64>) -> bool {
        self.after.is_empty() || holder.is_none_or(|holder| self.after.contains(&holder))
    }

    /// Whether its journal has every number that was used, and the outcome of every number that was
    /// settled.
    fn is_up_to_date(&self, slots: impl FnOnce() -> Vec<SlotReport>) -> bool {
        let Some(known) = &self.known else { return true };
        let last: BTreeMap<u32, &JournalSlot> =
            known.iter().map(|last| (last.slot, last)).collect();
        slots().iter().all(|report| {
            let last = last.get(&report.slot);
            has_used(last.map_or(0, |last| last.sequence), report)
                && !last.is_some_and(|last| !last.answered && is_settled(last.sequence, report))
        })
    }
}

/// Whether no number above `last` was used, as far as is remembered.
fn has_used(last: u64, report: &SlotReport) -> bool {
    use SlotState::{Idle, NotGranted};
    matches!(report.state, Idle | NotGranted) || report.sequence <= last
}

/// Whether a client that journals an outcome before it lets go of it has let go of this number.
fn is_settled(sequence: u64, report: &SlotReport) -> bool {
    use SlotState::{Idle, NotGranted, Released};
    match report.state {
        // It gave the slot back.
        NotGranted => true,
        // And got it again, above the numbers of before.
        Idle | Released => report.sequence >= sequence,
        _ => report.sequence > sequence,
    }
}

/// The answer to an opening. A copy of the opening is answered with the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session's name.
    pub session: SessionId,
    /// What an anonymous client attaches with; [`SessionSecret::NONE`] for a certificate's session.
    pub secret: SessionSecret,
    /// The first epoch, unless the opening was repeated on another connection.
    pub epoch: u64,
    /// Slots 0 to this are granted, each starting at number 1.
    pub slots: u32,
    /// How long the session is remembered without a connection.
    pub retention: Duration,
}

/// The answer to an attach: everything that the client needs to know what became of its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The session's name.
    pub session: SessionId,
    /// The new epoch; connections of older ones are refused from now on.
    pub epoch: u64,
    /// Slots below this that are not listed are granted and were never used.
    pub span: u32,
    /// How many slots the client should hold.
    pub wanted: u32,
    /// Counts the changes of `wanted`.
    pub version: u64,
    /// The slots that are not as [`Self::span`] says.
    pub slots: Vec<SlotReport>,
}

/// Flow control: the server grants slots or asks for some back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// Counts the changes, since messages may overtake one another.
    pub version: u64,
    /// How many slots the client should hold: it gives back what it has above that.
    pub wanted: u32,
    /// Newly granted slots, each with the number that its first call takes.
    pub granted: Vec<SlotPosition>,
}

/// A number in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotPosition {
    /// Which slot.
    pub slot: u32,
    /// Which number.
    pub sequence: u64,
}
