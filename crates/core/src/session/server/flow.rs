//! Flow control: slots granted, asked back, and given back.

use alloc::vec::Vec;

use super::{Attachment, Sessions};
use crate::session::{Footprint, KeptReply, Refusal, Refused, SessionId, SlotChange, SlotPosition};

impl<R: KeptReply, C: Copy + Eq> Sessions<R, C> {
    /// The client gives slots back, each with the last number that it settled there. Returns what to
    /// tell it if it now has fewer than it should.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn return_slots(
        &mut self,
        attachment: &Attachment,
        returned: &[SlotPosition],
    ) -> Result<Option<SlotChange>, Refused> {
        let index = self.live(attachment)?;
        for position in returned {
            let session = self.session_mut(index);
            if let Some(freed) = session.slots.take_back(position.slot, position.sequence)? {
                session.footprint.exchange(freed, Footprint::default());
                self.footprint.exchange(freed, Footprint::default());
                self.slots_held -= 1;
                self.races.slots_returned += 1;
            }
        }
        let slots = &self.session(index).slots;
        let wanted = slots.wanted();
        Ok((slots.held() < wanted).then(|| self.resize_at(index, wanted)))
    }

    /// Sets how many slots the session should have, at least one and at most the limit. Returns what
    /// to tell its client.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::Expired`].
    pub fn resize(&mut self, id: SessionId, wanted: u32) -> Result<SlotChange, Refusal> {
        let index = self.find(id)?;
        self.session_mut(index).wish = wanted.max(1);
        Ok(self.resize_at(index, wanted))
    }

    /// Under load, or when it lifts: sets how many slots each session may have, at least one and at
    /// most [`crate::limits::Limits::slots`]. Sessions that have more are asked for the rest, those that wished for
    /// more get it. Returns what to tell whom: connection and change. A session without a
    /// connection learns it when it attaches.
    pub fn limit_slots(&mut self, limit: u32) -> Vec<(C, SlotChange)> {
        self.slot_limit = limit.clamp(1, self.limits.slots.max(1));
        let mut changes = Vec::new();
        let indexes: Vec<u32> = self.by_number.values().copied().collect();
        for index in indexes {
            let session = self.session(index);
            let connection = session.connection;
            if session.slots.wanted() != self.grantable(session.slots.held(), session.wish) {
                let change = self.resize_at(index, session.wish);
                changes.extend(connection.map(|connection| (connection, change)));
            }
        }
        changes
    }

    pub(super) fn resize_at(&mut self, index: u32, wanted: u32) -> SlotChange {
        let held = self.session(index).slots.held();
        let wanted = self.grantable(held, wanted);
        let slots = &mut self.session_mut(index).slots;
        let change = slots.resize(wanted);
        self.slots_held += change.granted.len() as u64;
        change
    }

    /// How many slots a session that has `held` may have.
    pub(super) fn grantable(&self, held: u32, wanted: u32) -> u32 {
        let left = self.limits.slots_in_all.saturating_sub(self.slots_held);
        let most = u64::from(held).saturating_add(left).min(u64::from(self.slot_limit)).max(1);
        wanted.clamp(1, u32::try_from(most).unwrap_or(u32::MAX))
    }
}
