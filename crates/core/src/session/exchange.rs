//! What the two halves tell each other about a session as a whole. `docs/protocol.md` section 4 has
//! the bytes.

use alloc::vec::Vec;

use super::{SessionId, SessionSecret, SlotReport};
use crate::time::Duration;

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
