//! The receiving half of the message layer: reassembly, credit, reset, stop
//! (`docs/protocol.md` sections 2 and 3; RFC 9000 §2 to §4, with messages for streams).

mod assembly;
mod incoming;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use stubborn_rope::ahead::read_queue_ahead;

use self::assembly::Held;
use self::incoming::{Incoming, Stage};
use super::message::table::MessageTable;
pub use super::message::{Credit, MessageId, SentFrame};
use super::{Code, TransportError};
use crate::limits::Limits;
use crate::wire::frame::{Frame, frame_type};
use crate::wire::varint;

/// A piece is at least about this many bytes in what an honest peer sends, on average; of smaller
/// ones, `MIN_PIECES` and one for each open message are held.
const BYTES_PER_PIECE: u64 = 512;
const MIN_PIECES: u64 = 1024;

/// What reading a message gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The next bytes; `end` if they are the last ones. Usually a slice of the receive buffer: what
    /// is kept for long is better copied, or it keeps the whole datagram in memory.
    Data {
        /// The bytes; empty only with `end`.
        data: Bytes,
        /// Whether the message ends with them.
        end: bool,
    },
    /// Nothing more yet. [`Inbox::next_readable`] names the message when there is.
    Blocked,
    /// The sender gave the message up, with this code. What was read of it is no whole message.
    Reset(u64),
    /// Nothing, for good: the message has ended before, or was stopped here.
    Ended,
}

/// A message that came in one piece.
#[derive(Debug)]
struct Whole {
    id: u64,
    data: Bytes,
    /// It is the one that counts as a slice for all that came in its packet.
    pins: bool,
}

/// The messages that the peer sends on a connection.
///
/// A connection holds at most `limits.receive_window` bytes not yet read, `limits.open_messages`
/// messages that have not ended, and pieces in proportion to both; what exceeds them is an error of
/// the peer, since its credit never allowed it (or, for pieces, since only an attack makes so many:
/// RFC 9000 §21.6). How large a message may be is not its business, since it never holds a whole one:
/// whoever assembles messages keeps to `limits.message` and [`stop`](Self::stop)s what exceeds it.
#[derive(Debug)]
pub struct Inbox {
    messages: MessageTable<Incoming>,
    held: Held,
    receive_window: u64,
    /// Credit that a message starts with: a fraction of the receive window, so that messages that
    /// nobody reads leave room for others. It grows while the message is read.
    message_window: u64,
    open_messages: u64,
    /// Bytes that came first, highest offsets added up; bytes among them that were read or dropped.
    received: u64,
    consumed: u64,
    /// Messages that have ended.
    ended: u64,
    /// MAX_DATA and MAX_MESSAGES as last announced, and whether that has to be said again.
    max_data: u64,
    max_data_lost: bool,
    max_messages: u64,
    max_messages_lost: bool,
    /// Messages that need MAX_MESSAGE_DATA, STOP_MESSAGE.
    grants: VecDeque<u64>,
    stops: VecDeque<u64>,
    /// Messages that came in one piece and that nobody has taken. They have no place in `messages`.
    whole: VecDeque<Whole>,
    /// The newest of `whole` came in the packet that is being read.
    in_packet: bool,
    /// Messages not yet accepted of which something can be read; accepted ones that were blocked.
    new: VecDeque<u64>,
    readable: VecDeque<u64>,
}

impl Inbox {
    /// Begins to read what the next message needs.
    pub(super) fn read_ahead(&self) {
        self.messages.read_ahead();
        read_queue_ahead(&self.whole);
    }

    /// An inbox that lets the peer send what `limits` allow.
    pub fn new(limits: &Limits) -> Self {
        let receive_window = limits.receive_window.clamp(1, varint::MAX / 4);
        let open_messages = limits.open_messages.clamp(1, varint::MAX / 4);
        let pieces = receive_window / BYTES_PER_PIECE + MIN_PIECES + open_messages;
        let most = (receive_window / 2).max(1);
        Self {
            messages: MessageTable::new(),
            held: Held::new(usize::try_from(pieces).unwrap_or(usize::MAX)),
            receive_window,
            message_window: (receive_window / 8).max(64 << 10).min(most),
            open_messages,
            received: 0,
            consumed: 0,
            ended: 0,
            max_data: receive_window,
            max_data_lost: false,
            max_messages: open_messages,
            max_messages_lost: false,
            grants: VecDeque::new(),
            stops: VecDeque::new(),
            whole: VecDeque::new(),
            in_packet: false,
            new: VecDeque::new(),
            readable: VecDeque::new(),
        }
    }

    /// What the transport parameters have to grant the peer.
    pub fn initial_credit(&self) -> Credit {
        Credit {
            data: self.receive_window,
            message_data: self.message_window,
            messages: self.open_messages,
        }
    }

    /// A packet begins: what comes now is of another receive buffer.
    #[inline]
    pub fn begin_packet(&mut self) {
        self.in_packet = false;
    }

    /// MESSAGE. Late copies, also of ended messages, are ignored.
    ///
    /// # Errors
    /// More than was granted, or contradictory ends: the connection cannot go on.
    #[inline]
    pub fn on_message(
        &mut self,
        id: u64,
        offset: u64,
        data: Bytes,
        fin: bool,
    ) -> Result<(), TransportError> {
        if fin && offset == 0 && id >= self.messages.next_id() && self.is_granted(id, data.len()) {
            return self.on_whole(id, data);
        }
        self.on_part(id, offset, data, fin)
    }

    #[inline(never)]
    fn on_part(
        &mut self,
        id: u64,
        offset: u64,
        data: Bytes,
        fin: bool,
    ) -> Result<(), TransportError> {
        self.open_up_to(id, frame_type::MESSAGE)?;
        let Some(message) = self.messages.get_mut(id) else { return Ok(()) };
        let end = offset.saturating_add(data.len() as u64);
        let new = message.extend(end, fin).map_err(|e| e.in_frame(frame_type::MESSAGE))?;
        account(&mut self.received, new, self.max_data, frame_type::MESSAGE)?;
        if message.is_dropped() {
            self.consumed += new;
        } else {
            let more = message.data.insert(offset, data, &mut self.held);
            let more = more.map_err(|_| too_many_pieces())?;
            if more || message.is_complete() {
                self.announce(id);
            }
        }
        self.end_if_done(id);
        Ok(())
    }

    /// A message that nothing is known of comes in one piece, as most do: it waits for its reader and
    /// needs no state of its own.
    #[inline]
    fn on_whole(&mut self, id: u64, data: Bytes) -> Result<(), TransportError> {
        account(&mut self.received, data.len() as u64, self.max_data, frame_type::MESSAGE)?;
        if id > self.messages.next_id() {
            self.open_up_to(id - 1, frame_type::MESSAGE)?;
        }
        self.messages.skip();
        let pinned = self.in_packet
            && self.whole.back_mut().is_some_and(|last| core::mem::take(&mut last.pins));
        let (data, pins) = self.held.take_whole(data, pinned);
        self.whole.push_back(Whole { id, data, pins });
        self.in_packet = true;
        self.held.check().map_err(|_| too_many_pieces())
    }

    /// True if the peer may send a message of so many bytes under a new id.
    fn is_granted(&self, id: u64, size: usize) -> bool {
        id < self.max_messages && size as u64 <= self.message_window
    }

    /// RESET_MESSAGE. A message of which everything has come is delivered all the same.
    ///
    /// # Errors
    /// As of [`on_message`](Self::on_message).
    pub fn on_reset(&mut self, id: u64, code: u64, final_size: u64) -> Result<(), TransportError> {
        self.open_up_to(id, frame_type::RESET_MESSAGE)?;
        let Some(message) = self.messages.get_mut(id) else { return Ok(()) };
        let complete = message.is_complete();
        let new =
            message.extend(final_size, true).map_err(|e| e.in_frame(frame_type::RESET_MESSAGE))?;
        account(&mut self.received, new, self.max_data, frame_type::RESET_MESSAGE)?;
        if message.is_dropped() {
            self.consumed += new;
        } else if !complete {
            self.consumed += message.drop_data(&mut self.held);
            if message.stage == Stage::Accepted {
                message.notice = Some(code);
                self.announce(id);
            }
        }
        self.end_if_done(id);
        Ok(())
    }

    /// Takes the next message that came in one piece. One that was [accepted](Self::accept) before
    /// does not come here.
    #[inline]
    pub fn take_whole(&mut self) -> Option<(MessageId, Bytes)> {
        let Whole { id, data, pins } = self.whole.pop_front()?;
        self.held.give_back_whole(pins);
        self.consumed += data.len() as u64;
        self.ended += 1;
        Some((MessageId(id), data))
    }

    /// The next message of which nobody has read yet and something can be: those that came in one
    /// piece, then the others in the order in which they became so.
    pub fn accept(&mut self) -> Option<MessageId> {
        if let Some(Whole { id, data, pins }) = self.whole.pop_front() {
            self.held.give_back_whole(pins);
            let piece = self.held.take(data);
            self.messages.put_back(id, Incoming::whole(piece, self.message_window));
            return Some(MessageId(id));
        }
        while let Some(id) = self.new.pop_front() {
            if let Some(message) = self.messages.get_mut(id).filter(|m| !m.is_dropped()) {
                message.stage = Stage::Accepted;
                return Some(MessageId(id));
            }
        }
        None
    }

    /// The next accepted message that can be read on (or has a reset to tell) after it was
    /// [`Chunk::Blocked`].
    pub fn next_readable(&mut self) -> Option<MessageId> {
        while let Some(id) = self.readable.pop_front() {
            if let Some(message) = self.messages.get_mut(id) {
                message.listed = false;
                if message.has_news() {
                    return Some(MessageId(id));
                }
            }
        }
        None
    }

    /// True if [`take_whole`](Self::take_whole), [`accept`](Self::accept) or
    /// [`next_readable`](Self::next_readable) may give a message.
    pub fn has_readable(&self) -> bool {
        !self.whole.is_empty() || !self.new.is_empty() || !self.readable.is_empty()
    }

    /// True if a message can be read to its end, or to its reset, with what is there.
    pub fn has_end(&self, id: MessageId) -> bool {
        self.messages.get(id.0).is_some_and(|m| m.is_complete() || m.notice.is_some())
    }

    /// The next bytes of an accepted message, in order. Taking them grants the peer more.
    pub fn read(&mut self, id: MessageId) -> Chunk {
        let Some(message) = self.messages.get_mut(id.0) else { return Chunk::Ended };
        if message.is_dropped() {
            let notice = message.notice.take();
            self.end_if_done(id.0);
            return notice.map_or(Chunk::Ended, Chunk::Reset);
        }
        let data = message.data.pop(&mut self.held);
        let end = message.is_read();
        if data.is_none() && !end {
            message.blocked = true;
            return Chunk::Blocked;
        }
        let data = data.unwrap_or_default();
        self.consumed += data.len() as u64;
        if end {
            self.end(id.0);
        } else if message.wants_grant() && !message.grant_queued {
            message.grant_queued = true;
            self.grants.push_back(id.0);
        }
        Chunk::Data { data, end }
    }

    /// Refuses the rest of a message: what has come is dropped, the sender is told. Does nothing if it
    /// has ended.
    ///
    /// # Panics
    /// If `code` is above 2^62 - 1: a varint cannot carry it.
    pub fn stop(&mut self, id: MessageId, code: u64) {
        assert!(code <= varint::MAX, "a stop code that no varint carries");
        let Some(message) = self.messages.get_mut(id.0) else { return };
        message.notice = None;
        self.drop_message(id.0, code);
        self.end_if_done(id.0);
    }

    /// Gives back room that nothing is in.
    pub fn shrink(&mut self) {
        self.messages.shrink();
        self.grants.shrink_to_fit();
        self.stops.shrink_to_fit();
        self.new.shrink_to_fit();
        self.readable.shrink_to_fit();
        self.whole.shrink_to_fit();
    }

    /// Bytes that came and were not read, gaps included: what the receive window bounds.
    pub fn bytes_waiting(&self) -> u64 {
        self.received - self.consumed
    }

    /// Messages begun by the peer that have not ended.
    pub fn open(&self) -> usize {
        self.messages.len() + self.whole.len()
    }

    #[cfg(test)]
    pub(crate) fn pieces(&self) -> usize {
        self.held.pieces()
    }

    #[cfg(test)]
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// True if [`write`](Self::write) has something for a packet.
    pub fn has_pending(&self) -> bool {
        if self.data_to_announce().is_some() || self.messages_to_announce().is_some() {
            return true;
        }
        if self.stops.is_empty() && self.grants.is_empty() {
            return false;
        }
        self.stops.iter().any(|id| self.messages.get(*id).is_some_and(Incoming::is_stopped))
            || self.grants.iter().any(|id| self.messages.get(*id).is_some_and(Incoming::is_growing))
    }

    /// Appends MAX_DATA, MAX_MESSAGES, STOP_MESSAGE and MAX_MESSAGE_DATA frames of at most `room`
    /// bytes to `buf`, and adds to `record` what they are. Credit is announced when a
    /// quarter (bytes of the connection) or half of it was used up, not for each message.
    pub fn write(&mut self, buf: &mut Vec<u8>, room: usize, record: &mut Vec<SentFrame>) {
        if !self.has_pending() {
            return;
        }
        let end = buf.len() + room;
        let mut put = |frame: Frame<'_>, sent: SentFrame| {
            let fits = buf.len() + frame.size() <= end;
            if fits {
                frame.encode(buf);
                record.push(sent);
            }
            fits
        };
        if let Some(value) = self.data_to_announce()
            && put(Frame::MaxData(value), SentFrame::MaxData(value))
        {
            (self.max_data, self.max_data_lost) = (value, false);
        }
        if let Some(value) = self.messages_to_announce()
            && put(Frame::MaxMessages(value), SentFrame::MaxMessages(value))
        {
            (self.max_messages, self.max_messages_lost) = (value, false);
        }
        while let Some(&id) = self.stops.front() {
            if let Some(code) = self.messages.get(id).and_then(Incoming::stop_code)
                && !put(Frame::StopMessage { id, code }, SentFrame::Stop(MessageId(id)))
            {
                return;
            }
            self.stops.pop_front();
        }
        while let Some(&id) = self.grants.front() {
            if let Some(message) = self.messages.get_mut(id) {
                if message.is_growing() {
                    let value = message.next_grant(self.receive_window / 2);
                    let sent = SentFrame::MaxMessageData { id: MessageId(id), value };
                    if !put(Frame::MaxMessageData { id, limit: value }, sent) {
                        return;
                    }
                    message.on_granted(value);
                }
                message.grant_queued = false;
            }
            self.grants.pop_front();
        }
    }

    /// A packet with this frame was lost: what it said is said again, unless something newer was.
    /// (That one was acknowledged needs no telling.)
    pub fn on_lost(&mut self, frame: &SentFrame) {
        match *frame {
            SentFrame::MaxData(value) => self.max_data_lost |= value == self.max_data,
            SentFrame::MaxMessages(value) => self.max_messages_lost |= value == self.max_messages,
            SentFrame::Stop(id) if self.messages.get(id.0).is_some_and(Incoming::is_stopped) => {
                self.stops.push_back(id.0);
            }
            SentFrame::MaxMessageData { id, value } => {
                if let Some(message) = self.messages.get_mut(id.0)
                    && message.granted() == value
                    && message.is_growing()
                    && !core::mem::replace(&mut message.grant_queued, true)
                {
                    self.grants.push_back(id.0);
                }
            }
            _ => {}
        }
    }

    /// Opens a message and all before it (RFC 9000 §3.2), if its id was granted.
    fn open_up_to(&mut self, id: u64, frame_type: u64) -> Result<(), TransportError> {
        if id >= self.max_messages {
            let reason = "more messages than were granted";
            return Err(TransportError::new(Code::MESSAGE_LIMIT_ERROR, reason).in_frame(frame_type));
        }
        while self.messages.next_id() <= id {
            self.messages.push(Incoming::new(self.message_window));
        }
        Ok(())
    }

    /// Lists a message as new or readable, if it is not listed.
    fn announce(&mut self, id: u64) {
        let Some(message) = self.messages.get_mut(id) else { return };
        match message.stage {
            Stage::Unseen => {
                message.stage = Stage::Offered;
                list(&mut self.new, id, &self.messages);
            }
            Stage::Offered => {}
            Stage::Accepted => {
                if core::mem::take(&mut message.blocked)
                    && !core::mem::replace(&mut message.listed, true)
                {
                    list(&mut self.readable, id, &self.messages);
                }
            }
        }
    }

    /// Drops what has come and whatever still comes; asks the sender to stop if more may come.
    fn drop_message(&mut self, id: u64, code: u64) {
        if let Some(message) = self.messages.get_mut(id)
            && !message.is_dropped()
        {
            self.consumed += message.drop_data(&mut self.held);
            if message.stop(code) {
                self.stops.push_back(id);
            }
        }
    }

    fn end_if_done(&mut self, id: u64) {
        if self.messages.get(id).is_some_and(Incoming::is_done) {
            self.end(id);
        }
    }

    fn end(&mut self, id: u64) {
        self.messages.remove(id);
        self.ended += 1;
    }

    /// A quarter of the window, and not half: an outbox keeps half of it for its oldest message
    /// (`send/turns.rs`), which has to get on with that half alone.
    fn data_to_announce(&self) -> Option<u64> {
        let value = self.consumed + self.receive_window;
        let due = value - self.max_data >= self.receive_window.div_ceil(4) || self.max_data_lost;
        due.then_some(value)
    }

    fn messages_to_announce(&self) -> Option<u64> {
        let value = self.ended + self.open_messages;
        let due =
            value - self.max_messages >= self.open_messages.div_ceil(2) || self.max_messages_lost;
        due.then_some(value)
    }
}

/// Puts a message in a queue for the reader. What has ended there is thrown out now and then, so that
/// the queue stays in proportion to the open messages, whether or not anybody asks for it.
fn list(queue: &mut VecDeque<u64>, id: u64, messages: &MessageTable<Incoming>) {
    if queue.len() > 2 * messages.len() + 64 {
        queue.retain(|id| messages.get(*id).is_some());
    }
    queue.push_back(id);
}

fn too_many_pieces() -> TransportError {
    TransportError::violation("too many fragments").in_frame(frame_type::MESSAGE)
}

/// Adds new bytes to the connection's account.
fn account(received: &mut u64, new: u64, max: u64, frame_type: u64) -> Result<(), TransportError> {
    *received += new;
    if *received > max {
        let reason = "more data than was granted for the connection";
        return Err(TransportError::new(Code::FLOW_CONTROL_ERROR, reason).in_frame(frame_type));
    }
    Ok(())
}
