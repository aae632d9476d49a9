//! Writes the outbox's frames into the room that a packet has left.

use alloc::vec::Vec;
use core::ops::Range;

use super::outgoing::Outgoing;
use crate::transport::message::{MessageId, SentFrame, frame};
use crate::wire::varint;

/// A fragment shorter than this is not worth its header, unless it is the rest.
const MIN_FRAGMENT: usize = 16;

pub(super) struct Packet<'a> {
    buf: &'a mut Vec<u8>,
    /// Where `buf` has to end.
    end: usize,
    /// The room that there was at first: about what the next packet will have.
    capacity: usize,
    record: &'a mut Vec<SentFrame>,
}

impl<'a> Packet<'a> {
    pub(super) fn new(buf: &'a mut Vec<u8>, room: usize, record: &'a mut Vec<SentFrame>) -> Self {
        Self { end: buf.len() + room, capacity: room, buf, record }
    }

    fn room(&self) -> usize {
        self.end - self.buf.len()
    }

    /// Writes a MESSAGE frame with as much of `range` as fits and is worth it. Returns the position
    /// after it; `None` if it is better to wait for the next packet.
    pub(super) fn data(&mut self, id: u64, message: &Outgoing, range: Range<u64>) -> Option<u64> {
        let start = range.start;
        let wanted = usize::try_from(message.bytes_in(&range)).unwrap_or(usize::MAX);
        let header = 1 + varint::size(id) + if start > 0 { varint::size(start) } else { 0 };
        let length = fitting(self.room().checked_sub(header)?, wanted)?;
        if length < wanted && !self.worth_splitting(header, length, wanted) {
            return None;
        }
        let fin = message.ends_with(&range, length);
        let before = self.buf.len();
        let flags = frame::MESSAGE_LENGTH
            | if start > 0 { frame::MESSAGE_OFFSET } else { 0 }
            | if fin { frame::MESSAGE_FIN } else { 0 };
        varint::encode(frame::MESSAGE | flags, self.buf);
        varint::encode(id, self.buf);
        if start > 0 {
            varint::encode(start, self.buf);
        }
        varint::encode(length as u64, self.buf);
        message.copy(start, length, self.buf);
        debug_assert!(self.buf.len() <= self.end && self.buf.len() > before);
        let positions = length as u64 + u64::from(fin);
        // A packet is at most 64 KiB.
        let length = u32::try_from(positions).unwrap_or(u32::MAX);
        self.record.push(SentFrame::Data { id: MessageId(id), start, length });
        Some(start + positions)
    }

    /// A short message is not cut in two to fill the last quarter of a packet: two frames cost both
    /// ends more than the empty bytes, and either of two packets could then be lost.
    fn worth_splitting(&self, header: usize, length: usize, wanted: usize) -> bool {
        let fits_the_next = header + varint::MAX_SIZE + wanted <= self.capacity;
        length >= MIN_FRAGMENT && !(fits_the_next && self.room() < self.capacity / 4)
    }

    pub(super) fn reset(&mut self, id: u64, code: u64, final_size: u64) -> bool {
        let fields = [frame::RESET_MESSAGE, id, code, final_size];
        self.control(&fields, SentFrame::Reset(MessageId(id)))
    }

    pub(super) fn data_blocked(&mut self, at: u64) -> bool {
        self.control(&[frame::DATA_BLOCKED, at], SentFrame::DataBlocked(at))
    }

    pub(super) fn messages_blocked(&mut self, at: u64) -> bool {
        self.control(&[frame::MESSAGES_BLOCKED, at], SentFrame::MessagesBlocked(at))
    }

    fn control(&mut self, fields: &[u64], sent: SentFrame) -> bool {
        let fits = fields.iter().map(|f| varint::size(*f)).sum::<usize>() <= self.room();
        if fits {
            fields.iter().for_each(|f| varint::encode(*f, self.buf));
            self.record.push(sent);
        }
        fits
    }
}

/// The most bytes, up to `wanted`, that fit into `room` together with their length as a varint.
fn fitting(room: usize, wanted: usize) -> Option<usize> {
    [(1, 0x3f), (2, 0x3fff), (4, 0x3fff_ffff)]
        .into_iter()
        .filter_map(|(prefix, most)| Some(room.checked_sub(prefix)?.min(most).min(wanted)))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_frame_counts_against_its_room() {
        for room in 1..20_000 {
            let n = fitting(room, usize::MAX).unwrap();
            assert!(n + varint::size(n as u64) <= room);
            let more = n + 1;
            assert!(more + varint::size(more as u64) > room, "{room}: {n} is not the most");
        }
        assert_eq!(fitting(0, 5), None);
        assert_eq!(fitting(1, 0), Some(0));
        assert_eq!(fitting(100, 7), Some(7));
    }
}
