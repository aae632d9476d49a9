//! Writes the outbox's frames into the room that a packet has left.

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use super::outgoing::Outgoing;
use super::short::{Frames, Short};
use crate::transport::message::{MessageId, SentFrame};
use crate::wire::frame::{Frame, MessageHeader};

/// A fragment shorter than this is not worth its header, unless it is the rest.
const MIN_FRAGMENT: usize = 16;

/// From so many bytes on, the end of a packet is left to whoever seals it.
const MIN_END: usize = 1 << 10;

pub(super) struct Packet<'a> {
    buf: &'a mut Vec<u8>,
    /// Where `buf` has to end.
    end: usize,
    /// The room that there was at first: about what the next packet will have.
    capacity: usize,
    record: &'a mut Vec<SentFrame>,
    /// Whether the end of the packet may be left out.
    leaves_end: bool,
    /// What was left out.
    pub(super) left: Option<Bytes>,
}

impl<'a> Packet<'a> {
    pub(super) fn new(buf: &'a mut Vec<u8>, room: usize, record: &'a mut Vec<SentFrame>) -> Self {
        Self { end: buf.len() + room, capacity: room, buf, record, leaves_end: false, left: None }
    }

    /// One whose last bytes may be [`left`](Self::left) out: zeros stand in their place.
    pub(super) fn leaving_end(self) -> Self {
        Self { leaves_end: true, ..self }
    }

    pub(super) fn room(&self) -> usize {
        self.end - self.buf.len()
    }

    /// Writes a MESSAGE frame with as much of `range` as fits and is worth it. Returns the position
    /// after it; `None` if it is better to wait for the next packet.
    pub(super) fn data(&mut self, id: u64, message: &Outgoing, range: Range<u64>) -> Option<u64> {
        let start = range.start;
        let length = self.part(id, start, message.bytes_in(&range))?;
        let mut header = MessageHeader { id, offset: start, end: false };
        let length = self.frame(&mut header, message, &range, length);
        self.record.push(SentFrame::Data { id: MessageId(id), start, length });
        Some(start + u64::from(length))
    }

    /// How many of the `wanted` bytes of a message from `start` on fit; `None` if it is better to wait
    /// for the next packet.
    pub(super) fn part(&self, id: u64, start: u64, wanted: u64) -> Option<usize> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let header = MessageHeader { id, offset: start, end: false };
        let length = header.room(self.room())?.min(wanted);
        (length == wanted || self.worth_splitting(&header, length, wanted)).then_some(length)
    }

    /// Writes the frames of `count` messages from `first` on, which fit.
    #[inline]
    pub(super) fn run(&mut self, first: u64, count: u32, frames: &[u8]) {
        debug_assert!(frames.len() <= self.room());
        self.buf.extend_from_slice(frames);
        self.record.push(SentFrame::Run { first: MessageId(first), count });
    }

    /// Writes the frame of a short message a second time; false if it does not fit.
    pub(super) fn copy_short(&mut self, id: u64, short: &Short, frames: &Frames) -> bool {
        let frame = frames.get(short.frame());
        if frame.len() > self.room() {
            return false;
        }
        self.buf.extend_from_slice(frame);
        let length = short.positions().end as u32;
        self.record.push(SentFrame::Copy { id: MessageId(id), start: 0, length });
        true
    }

    /// Writes a second MESSAGE frame with all of `range`; false if it does not fit.
    pub(super) fn copy(&mut self, id: u64, message: &Outgoing, range: Range<u64>) -> bool {
        let start = range.start;
        let wanted = usize::try_from(message.bytes_in(&range)).unwrap_or(usize::MAX);
        let mut header = MessageHeader { id, offset: start, end: false };
        if header.room(self.room()).is_none_or(|room| room < wanted) {
            return false;
        }
        let length = self.frame(&mut header, message, &range, wanted);
        self.record.push(SentFrame::Copy { id: MessageId(id), start, length });
        true
    }

    /// Appends a frame with the first `length` bytes of `range`. Returns the positions in it.
    fn frame(
        &mut self,
        header: &mut MessageHeader,
        message: &Outgoing,
        range: &Range<u64>,
        length: usize,
    ) -> u32 {
        header.end = message.ends_with(range, length);
        header.encode(Some(length), self.buf);
        let fills = self.buf.len() + length == self.end;
        let least = if self.leaves_end && fills { MIN_END } else { usize::MAX };
        self.left = message.copy_but_end(range.start, length, least, self.buf);
        debug_assert!(self.buf.len() <= self.end);
        let positions = length as u64 + u64::from(header.end);
        // A packet is at most 64 KiB.
        u32::try_from(positions).unwrap_or(u32::MAX)
    }

    /// Writes a MESSAGE frame with all of a message; false if it does not fit.
    pub(super) fn whole(&mut self, id: u64, message: &Outgoing) -> bool {
        let header = MessageHeader { id, offset: 0, end: true };
        // What does not fit memory does not fit a packet.
        let size = usize::try_from(message.size()).unwrap_or(usize::MAX / 2);
        if header.size(Some(size)) + size > self.room() {
            return false;
        }
        header.encode(Some(size), self.buf);
        message.copy(0, size, self.buf);
        debug_assert!(self.buf.len() <= self.end);
        let length = size as u32 + 1;
        self.record.push(SentFrame::Data { id: MessageId(id), start: 0, length });
        true
    }

    /// A short message is not cut in two to fill the last quarter of a packet: two frames cost both
    /// ends more than the empty bytes, and either of two packets could then be lost.
    fn worth_splitting(&self, header: &MessageHeader, length: usize, wanted: usize) -> bool {
        let fits_the_next = header.room(self.capacity).is_some_and(|room| room >= wanted);
        length >= MIN_FRAGMENT && !(fits_the_next && self.room() < self.capacity / 4)
    }

    /// Writes a frame without payload; false if it does not fit.
    pub(super) fn control(&mut self, frame: &Frame<'_>, sent: SentFrame) -> bool {
        let fits = frame.size() <= self.room();
        if fits {
            frame.encode(self.buf);
            self.record.push(sent);
        }
        fits
    }
}
