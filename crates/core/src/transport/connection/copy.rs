//! Copies of what is under way, on a path that loses packets (`docs/decisions/0011-copies.md`).

use alloc::vec::Vec;

use super::super::copies::{COPIED_PACKETS, FEW_IN_FLIGHT};
use super::super::message::SentFrame;
use super::write::Draft;
use super::{Connection, Space};

/// Outstanding packets looked at, acknowledgements included.
const SEARCHED: usize = 16;

impl Connection {
    /// True while messages, and acknowledgements, are sent twice: losses were seen lately, or a probe
    /// timeout has expired and nothing came since.
    pub(super) fn is_copying(&self) -> bool {
        self.path.losses.is_lossy() || self.recovery.probe.backoff() > 0
    }

    /// True if a packet that carries nothing but copies is worth sending.
    pub(super) fn copy_is_due(&self) -> bool {
        let sent = &self.spaces[Space::Data.index()].sent;
        self.is_copying()
            && sent.eliciting() <= FEW_IN_FLIGHT
            && !self.outbox.has_pending_data()
            && sent
                .outstanding()
                .rev()
                .take(SEARCHED)
                .map(|(_, packet)| &packet.contents)
                .filter(|contents| !contents.messages.is_empty())
                .take(COPIED_PACKETS)
                .any(|c| !c.copied && self.outbox.is_worth_copying(&c.messages))
    }

    /// Fills the room that a packet has left with copies of what the newest packets carry, each
    /// packet whole, once.
    pub(super) fn write_copies(&mut self, draft: &mut Draft, buf: &mut Vec<u8>, end: usize) {
        if !self.is_copying() || self.outbox.has_pending_data() {
            return;
        }
        let newest = self.spaces[Space::Data.index()]
            .sent
            .outstanding_contents()
            .rev()
            .take(SEARCHED)
            .filter(|contents| !contents.messages.is_empty())
            .take(COPIED_PACKETS);
        for contents in newest.filter(|contents| !contents.copied) {
            let record: &mut Vec<SentFrame> = &mut draft.contents.messages;
            let (bytes, frames) = (buf.len(), record.len());
            let room = draft.writer.room(end - draft.writer.start(), draft.tag_len, buf);
            let done = self.outbox.write_copies(&contents.messages, buf, room, record);
            // What fits no packet whole, such as one written before the header grew, is copied as far
            // as it goes.
            if done < contents.messages.len() && frames > 0 {
                buf.truncate(bytes);
                record.truncate(frames);
                return;
            }
            contents.copied = true;
        }
    }
}
