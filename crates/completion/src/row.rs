//! The state of a slot as three columns, the same in every database.

use bytes::Bytes;
use stubborn_core::session::{NotExecutedReason, RecordedState, SlotRecord, SlotReport, SlotState};

use crate::store::StoreError;

pub(crate) const IDLE: i64 = 0;
pub(crate) const DONE: i64 = 1;
pub(crate) const NOT_KEPT: i64 = 2;
pub(crate) const RELEASED: i64 = 3;
pub(crate) const FENCED: i64 = 4;

/// A slot's row: what tables and bytes are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) sequence: i64,
    pub(crate) state: i64,
    /// The request's digest; of a fenced number the reason.
    pub(crate) mark: i64,
    pub(crate) reply: Option<Vec<u8>>,
}

impl Columns {
    pub(crate) fn of(record: &SlotRecord) -> Self {
        let (state, mark, reply) = match &record.state {
            RecordedState::Idle => (IDLE, 0, None),
            RecordedState::Done { digest, reply } => (DONE, *digest, Some(reply.to_vec())),
            RecordedState::NotKept { digest } => (NOT_KEPT, *digest, None),
            RecordedState::Released => (RELEASED, 0, None),
            RecordedState::Fenced(reason) => (FENCED, reason.to_wire(), None),
        };
        Self { sequence: record.sequence.cast_signed(), state, mark: mark.cast_signed(), reply }
    }

    pub(crate) fn record(self) -> Result<SlotRecord, StoreError> {
        let mark = self.mark.cast_unsigned();
        let state = match (self.state, self.reply) {
            (IDLE, None) => RecordedState::Idle,
            (DONE, Some(reply)) => RecordedState::Done { digest: mark, reply: Bytes::from(reply) },
            (NOT_KEPT, None) => RecordedState::NotKept { digest: mark },
            (RELEASED, None) => RecordedState::Released,
            (FENCED, None) => match NotExecutedReason::from_wire(mark) {
                Some(reason) => RecordedState::Fenced(reason),
                None => return Err(StoreError::damaged("a reason")),
            },
            _ => return Err(StoreError::damaged("the state of a slot")),
        };
        Ok(SlotRecord { sequence: self.sequence.cast_unsigned(), state })
    }
}

/// The line of an answer to an attach.
pub(crate) fn report(slot: i64, sequence: i64, state: i64) -> Result<SlotReport, StoreError> {
    let slot = u32::try_from(slot).map_err(|_| StoreError::damaged("the number of a slot"))?;
    let state = match state {
        IDLE => SlotState::Idle,
        DONE => SlotState::Done,
        NOT_KEPT => SlotState::NotKept,
        RELEASED => SlotState::Released,
        FENCED => SlotState::Fenced,
        _ => return Err(StoreError::damaged("the state of a slot")),
    };
    Ok(SlotReport { slot, sequence: sequence.cast_unsigned(), state })
}
