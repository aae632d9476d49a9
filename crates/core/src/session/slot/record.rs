//! A slot as a row of a table, for sessions that a database keeps.

use bytes::Bytes;

use super::{Keep, Slot, State};
use crate::session::{MAX_SEQUENCE, NotExecutedReason};

/// What a slot is between calls. One that executes is no row: its transaction has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// The last number that the slot saw, or its floor.
    pub sequence: u64,
    /// What became of that number.
    pub state: RecordedState,
}

/// What became of the last number of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedState {
    /// It was not used by a call.
    Idle,
    /// Executed, and this is the reply.
    Done {
        /// Of the request.
        digest: u64,
        /// The whole reply, as [`record_of`](crate::node::record_of) makes it.
        reply: Bytes,
    },
    /// Executed; the reply is not kept.
    NotKept {
        /// Of the request.
        digest: u64,
    },
    /// The client has learnt its outcome.
    Released,
    /// Fenced: not executed, and never will be.
    Fenced(NotExecutedReason),
}

impl SlotRecord {
    /// What a slot is that no call has used.
    pub const UNUSED: Self = Self { sequence: 0, state: RecordedState::Idle };
}

impl Slot<Bytes> {
    /// The slot of a row. `None` if its number is none that a slot can have.
    pub fn of_record(record: SlotRecord) -> Option<Self> {
        let state = match record.state {
            RecordedState::Idle => State::Idle,
            RecordedState::Done { digest, reply } => {
                State::Done { digest, reply, keep: Keep::Session }
            }
            RecordedState::NotKept { digest } => State::DoneNotKept { digest },
            RecordedState::Released => State::Released,
            RecordedState::Fenced(reason) => State::Fenced(reason),
        };
        (record.sequence <= MAX_SEQUENCE).then_some(Self { last: record.sequence, state })
    }

    /// The slot as a row; `None` while its call is executing.
    pub fn record(&self) -> Option<SlotRecord> {
        let state = match &self.state {
            State::Idle => RecordedState::Idle,
            State::Executing { .. } => return None,
            State::Done { digest, reply, .. } => {
                RecordedState::Done { digest: *digest, reply: reply.clone() }
            }
            State::DoneNotKept { digest } => RecordedState::NotKept { digest: *digest },
            State::Released => RecordedState::Released,
            State::Fenced(reason) => RecordedState::Fenced(*reason),
        };
        Some(SlotRecord { sequence: self.last, state })
    }
}
