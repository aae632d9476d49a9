//! Short messages on their way out, kept as the frames that they are sent as.
//!
//! Most messages are short, go out whole, in the order in which they were queued, and arrive. So each
//! is written once, when it is queued, as a MESSAGE frame behind the one before it: a packet takes a
//! run of them in one copy, and its acknowledgement frees the run. Whatever else happens to one (loss,
//! reset, being cut in two) happens to an [`Outgoing`] made from it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use stubborn_rope::Rope;
use stubborn_rope::ahead::read_ahead_at;

use super::outgoing::Outgoing;
use crate::transport::ranges::RangeSet;
use crate::wire::fields::{Fields, Head};
use crate::wire::frame::MessageHeader;

/// Bytes of ended messages that may lie between those of live ones, beside four times these.
const WASTE: u64 = 64 << 10;

/// A message of which all, or nothing, was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    /// Where its frame stands, counted over all frames ever written.
    at: u64,
    header: u8,
    size: u16,
    pub(super) sent: bool,
}

impl Short {
    /// Bytes of the message.
    #[inline]
    pub(super) fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// Positions, as [`Outgoing`] counts them: the bytes and the end mark.
    #[inline]
    pub(super) fn positions(&self) -> Range<u64> {
        0..self.size() + 1
    }

    /// Where its frame stands.
    #[inline]
    pub(super) fn frame(&self) -> Range<u64> {
        self.at..self.at + u64::from(self.header) + self.size()
    }
}

/// A message on its way out.
#[derive(Debug)]
pub(super) enum Message {
    /// Short, and nothing unusual has happened to it.
    Short(Short),
    /// Any other.
    Other(Box<Outgoing>),
}

// The table of messages has one for each that is queued or not acknowledged.
const _: () = assert!(size_of::<Option<Message>>() <= 16);

impl Message {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Short(short) => short.size(),
            Self::Other(other) => other.size(),
        }
    }

    pub(super) fn other(&self) -> Option<&Outgoing> {
        match self {
            Self::Short(_) => None,
            Self::Other(other) => Some(other),
        }
    }

    pub(super) fn other_mut(&mut self) -> Option<&mut Outgoing> {
        match self {
            Self::Short(_) => None,
            Self::Other(other) => Some(other),
        }
    }

    /// True if it was given up.
    pub(super) fn is_reset(&self) -> bool {
        self.other().is_some_and(|other| other.reset.is_some())
    }

    /// As [`Outgoing::fully_sent`].
    pub(super) fn fully_sent(&self) -> bool {
        match self {
            Self::Short(short) => short.sent,
            Self::Other(other) => other.fully_sent(),
        }
    }

    /// As [`Outgoing::wants_turn`].
    pub(super) fn wants_turn(&self) -> bool {
        match self {
            Self::Short(short) => !short.sent,
            Self::Other(other) => other.wants_turn(),
        }
    }

    /// As [`Outgoing::fresh`].
    pub(super) fn fresh(&self, credit: u64) -> Option<Range<u64>> {
        match self {
            Self::Short(short) if short.sent => None,
            Self::Short(short) if short.size() <= credit => Some(short.positions()),
            Self::Short(_) => (credit > 0).then_some(0..credit),
            Self::Other(other) => other.fresh(credit),
        }
    }

    /// As [`Outgoing::bytes_waiting`].
    pub(super) fn bytes_waiting(&self, credit: u64) -> u64 {
        match self {
            Self::Short(_) => self.fresh(credit).map_or(0, |range| range.end + 8),
            Self::Other(other) => other.bytes_waiting(credit),
        }
    }

    /// Takes the place of one that has ended, and what it holds with it. What is left is to be dropped.
    pub(super) fn take_place(&mut self) -> Option<Box<Outgoing>> {
        let none = Short { at: 0, header: 0, size: 0, sent: true };
        match core::mem::replace(self, Self::Short(none)) {
            Self::Short(_) => None,
            Self::Other(mut other) => {
                *other = Outgoing::new(Bytes::new(), Rope::EMPTY, 0);
                Some(other)
            }
        }
    }

    /// From here on anything may happen to it. `granted`: bytes that the peer lets us send of it.
    pub(super) fn unpack(&mut self, granted: u64, frames: &mut Frames) -> &mut Outgoing {
        if let Self::Short(short) = self {
            let bytes = Bytes::copy_from_slice(frames.message(short));
            let mut other = Outgoing::new(bytes, Rope::EMPTY, granted.max(short.size()));
            // It waits for its turn until it is sent.
            other.in_turns = !short.sent;
            if short.sent {
                other.on_whole_sent();
            }
            frames.end(short);
            *self = Self::Other(Box::new(other));
        }
        match self {
            Self::Other(other) => other,
            Self::Short(_) => unreachable!("it has just become another"),
        }
    }
}

/// The frames of short messages that have not ended.
///
/// Invariant: positions from `start` on are in `bytes`; below `live_from`, and in `ended`, no message
/// lives; `live` bytes are of messages that do.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    start: u64,
    live_from: u64,
    live: u64,
    /// Frames above `live_from` whose messages have ended before older ones.
    ended: RangeSet,
}

impl Frames {
    /// Begins to read where the next frame goes.
    pub(super) fn read_ahead(&self) {
        read_ahead_at(self.bytes.as_ptr(), 256);
        self.ended.read_ahead();
    }

    /// Writes the frame of a message of at most 65,535 bytes, which are those of `head` and of `rest`.
    #[inline]
    pub(super) fn push(&mut self, id: u64, head: &impl Head, rest: [&[u8]; 2]) -> Short {
        let at = self.start + self.bytes.len() as u64;
        let size = head.size() + rest[0].len() + rest[1].len();
        let before = self.bytes.len();
        Fields::append(&mut self.bytes, |fields| {
            MessageHeader::write_whole(id, size, fields);
            head.write(fields);
        });
        rest.into_iter().filter(|part| !part.is_empty()).for_each(|part| {
            self.bytes.extend_from_slice(part);
        });
        let written = self.bytes.len() - before;
        self.live += written as u64;
        debug_assert!(size <= usize::from(u16::MAX) && size < written);
        Short { at, header: (written - size) as u8, size: size as u16, sent: false }
    }

    /// The frames at these positions.
    #[inline]
    pub(super) fn get(&self, at: Range<u64>) -> &[u8] {
        &self.bytes[(at.start - self.start) as usize..(at.end - self.start) as usize]
    }

    /// The bytes of a message.
    pub(super) fn message(&self, short: &Short) -> &[u8] {
        &self.get(short.frame())[usize::from(short.header)..]
    }

    /// The message has ended, or lives on elsewhere.
    #[inline]
    pub(super) fn end(&mut self, short: &Short) {
        let frame = short.frame();
        self.live -= frame.end - frame.start;
        if frame.start == self.live_from {
            self.live_from = frame.end;
        } else {
            self.ended.insert(frame);
        }
    }

    /// Frees the memory of what has ended, if there is enough of it. To be called after
    /// [`end`](Self::end).
    pub(super) fn tidy(&mut self) {
        while let Some(next) = self.ended.first()
            && next.start == self.live_from
        {
            self.live_from = next.end;
            self.ended.pop_first();
        }
        // Bytes move at most once for each that is freed.
        let unused = (self.live_from - self.start) as usize;
        if 2 * unused >= self.bytes.len() {
            self.bytes.drain(..unused);
            self.start = self.live_from;
        }
    }

    /// True if few live ones hold the memory of many that have ended: then they had better live
    /// elsewhere.
    #[inline]
    pub(super) fn is_wasteful(&self) -> bool {
        self.bytes.len() as u64 > 4 * self.live + WASTE
    }

    /// Gives back room that nothing is in.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ended.shrink();
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }
}
