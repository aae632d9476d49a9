//! The sending half of the message layer: fragmentation, turns, credit, retransmission, reset
//! (`docs/protocol.md` sections 2 and 3; RFC 9000 §2 to §4, with messages for streams).

mod outgoing;
mod packet;
mod short;
#[cfg(test)]
mod tests;
mod turns;

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use stubborn_rope::Rope;

use self::outgoing::Outgoing;
use self::packet::Packet;
use self::short::{Frames, Message};
use self::turns::{Allowance, TURN, Turns};
use super::message::table::MessageTable;
pub use super::message::{Credit, MessageId, SentFrame};
use super::{Code, TransportError};
use crate::limits::{Limits, MAX_MESSAGE};
use crate::wire::fields::{Fields, Head};
use crate::wire::frame::{Frame, frame_type};
use crate::wire::varint;

/// Places of ended messages that are kept, so that steady sending allocates none.
const SPARE: usize = 64;

/// Room in a packet with which [`Outbox::write`] always gets on, in bytes.
pub const MIN_ROOM: usize = 64;

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// As many messages as `limits.queued_messages` allows are queued or unacknowledged. An
    /// [`OutboxEvent::Writable`] follows when there is room again.
    Full,
    /// Larger than [`MAX_MESSAGE`].
    TooLarge,
    /// The connection is over. An outbox never gives this; it is for the connection around it.
    Closed,
}

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "too many messages are queued on this connection",
            Self::TooLarge => "the message is larger than 4 GiB",
            Self::Closed => "the connection is closed",
        })
    }
}

impl core::error::Error for SendError {}

/// What became of the messages of an [`Outbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxEvent {
    /// The peer's transport holds every byte of a message for which [`Outbox::tell_acked`] asked. The
    /// last event of a message.
    Acked(MessageId),
    /// The peer will not read on; what is left is not sent. The last event of a message.
    Stopped {
        /// The message.
        id: MessageId,
        /// The peer's code.
        code: u64,
    },
    /// There is room again after [`SendError::Full`].
    Writable,
}

/// The messages that this side sends on a connection.
///
/// Messages take turns of about one packet, lost ranges go before new ones, and short messages share
/// packets. Payload is copied into the packet, that of short messages also before. An outbox is bounded by `limits.queued_messages`
/// (messages not yet acknowledged) and `limits.send_window` (bytes sent and not acknowledged). Nothing
/// is written before [`on_peer_credit`](Self::on_peer_credit).
#[derive(Debug)]
pub struct Outbox {
    messages: MessageTable<Message>,
    /// Of the short ones among them.
    frames: Frames,
    max_queued: usize,
    send_window: u64,
    /// What the peer granted; `None` before anything is known of it.
    credit: Option<Credit>,
    /// New bytes ever sent: what `credit.data` limits.
    data_sent: u64,
    /// Bytes sent and not acknowledged: what `send_window` limits.
    in_flight: u64,
    /// Ids below are within `credit.messages` and had themselves put in a queue.
    admitted: u64,
    /// Ids below are known to the peer, because this or a higher one was in a packet.
    opened: u64,
    turns: Turns,
    /// Messages with lost ranges.
    lost: VecDeque<u64>,
    /// Messages whose RESET_MESSAGE has to be sent.
    resets: VecDeque<u64>,
    /// The limits that the peer was told to block us.
    told_data_blocked: Option<u64>,
    told_messages_blocked: Option<u64>,
    /// Messages whose acknowledgement is told: few, since most are answered.
    told_acked: BTreeSet<u64>,
    /// Of messages that have ended; kept for their memory.
    #[expect(clippy::vec_box, reason = "they go back into the table of messages as they are")]
    spare: Vec<Box<Outgoing>>,
    events: VecDeque<OutboxEvent>,
    refused: bool,
}

/// What of a message is sent next: its new positions, of which a packet takes what it has room for.
#[derive(Debug)]
pub struct Part {
    id: u64,
    range: Range<u64>,
}

/// Of a message whose first bytes are written already.
struct NoHead;

impl Head for NoHead {
    fn size(&self) -> usize {
        0
    }

    fn write(&self, _: &mut Fields<'_>) {}
}

impl Outbox {
    /// Begins to read what the next message needs.
    pub(super) fn read_ahead(&self) {
        self.messages.read_ahead();
        self.frames.read_ahead();
        self.turns.read_ahead();
    }

    /// An outbox of a connection that knows nothing of its peer yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            messages: MessageTable::new(),
            frames: Frames::default(),
            max_queued: limits.queued_messages,
            send_window: limits.send_window,
            credit: None,
            data_sent: 0,
            in_flight: 0,
            admitted: 0,
            opened: 0,
            turns: Turns::default(),
            lost: VecDeque::new(),
            resets: VecDeque::new(),
            told_data_blocked: None,
            told_messages_blocked: None,
            told_acked: BTreeSet::new(),
            spare: Vec::new(),
            events: VecDeque::new(),
            refused: false,
        }
    }

    /// Queues a message made of `head` and then `body`. If it is longer than about a packet, neither is
    /// copied until it goes into a packet, and both are held until it is acknowledged or given up.
    pub fn queue(&mut self, head: Bytes, body: impl Into<Rope>) -> Result<MessageId, SendError> {
        let body = body.into();
        self.check_room(head.len(), body.len())?;
        // In several pieces are long ones only.
        let short = if let [body] = body.pieces() {
            self.queue_frame(&NoHead, [&head, body])
        } else {
            None
        };
        Ok(short.unwrap_or_else(|| self.queue_other(head, body)))
    }

    /// The same with a head that the caller keeps.
    pub fn queue_written(&mut self, head: &[u8], body: Rope) -> Result<MessageId, SendError> {
        self.check_room(head.len(), body.len())?;
        let short =
            if let [body] = body.pieces() { self.queue_frame(&NoHead, [head, body]) } else { None };
        Ok(short.unwrap_or_else(|| self.queue_other(Bytes::copy_from_slice(head), body)))
    }

    /// The same with a head that is written where it stays, and a body of which the caller keeps the
    /// bytes: for short ones, since a long one is copied.
    #[inline]
    pub fn queue_short(&mut self, head: &impl Head, body: &[u8]) -> Result<MessageId, SendError> {
        self.check_room(head.size(), body.len())?;
        Ok(match self.queue_frame(head, [body, &[]]) {
            Some(id) => id,
            None => {
                let mut written = Vec::new();
                Fields::append(&mut written, |fields| head.write(fields));
                self.queue_other(written.into(), Bytes::copy_from_slice(body).into())
            }
        })
    }

    fn queue_other(&mut self, head: Bytes, body: Rope) -> MessageId {
        let granted = self.credit.map_or(0, |c| c.message_data);
        let mut message = Outgoing::new(head, body, granted);
        let id = self.messages.next_id();
        if id == self.admitted && self.credit.is_some_and(|credit| id < credit.messages) {
            self.admitted += 1;
            self.turns.push(id, &mut message);
        }
        let message = match self.spare.pop() {
            Some(mut place) => {
                *place = message;
                place
            }
            None => Box::new(message),
        };
        self.messages.push(Message::Other(message));
        MessageId(id)
    }

    #[inline]
    fn check_room(&mut self, head: usize, body: usize) -> Result<(), SendError> {
        if head as u64 + body as u64 > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        if self.is_full() {
            self.refused = true;
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Queues a message that is short and that the peer lets us send whole; `None` if it is not.
    #[inline]
    fn queue_frame(&mut self, head: &impl Head, rest: [&[u8]; 2]) -> Option<MessageId> {
        let size = (head.size() + rest[0].len() + rest[1].len()) as u64;
        let credit = self.credit.as_ref()?;
        let id = self.messages.next_id();
        let may = id == self.admitted && id < credit.messages;
        if !may || size > TURN.min(credit.message_data) {
            return None;
        }
        self.admitted += 1;
        self.turns.push_short(id, size);
        let short = self.frames.push(id, head, rest);
        self.messages.push(Message::Short(short));
        if self.frames.is_wasteful() {
            self.unpack_all();
        }
        Some(MessageId(id))
    }

    /// Asks for [`OutboxEvent::Acked`] of a message that has not ended.
    pub fn tell_acked(&mut self, id: MessageId) {
        if self.messages.get(id.0).is_some() {
            self.told_acked.insert(id.0);
        }
    }

    /// True while no further message is taken.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= self.max_queued
    }

    /// Asks for [`OutboxEvent::Writable`] when a message would be taken again.
    pub fn want_room(&mut self) {
        self.refused |= self.is_full();
    }

    /// Gives a message up: what is not sent yet never will be. Does nothing if it has ended.
    /// Returns [`ever_fully_sent`](Self::ever_fully_sent), which no later event changes.
    ///
    /// # Panics
    /// If `code` is above 2^62 - 1: a varint cannot carry it.
    pub fn reset(&mut self, id: MessageId, code: u64) -> bool {
        assert!(code <= varint::MAX, "a reset code that no varint carries");
        let Some(message) = self.unpack(id.0) else {
            return self.ever_fully_sent(id);
        };
        if message.reset.is_none() {
            let in_flight = message.bytes_in_flight();
            message.give_up(code);
            self.in_flight -= in_flight;
            self.turns.forget(id.0);
            if id.0 < self.admitted {
                self.resets.push_back(id.0);
            }
        }
        self.ever_fully_sent(id)
    }

    /// True if every byte of the message was in a packet at least once. If not, the peer cannot have
    /// acted on the whole of it, and after [`reset`](Self::reset) it never will.
    ///
    /// Of a message that has ended (acknowledged, or its reset was) this says true, which is the
    /// cautious answer; ask `reset` for the exact one.
    pub fn ever_fully_sent(&self, id: MessageId) -> bool {
        match self.messages.get(id.0) {
            Some(message) => message.fully_sent(),
            None => id.0 < self.messages.next_id(),
        }
    }

    /// Gives back room that nothing is in.
    pub fn shrink(&mut self) {
        self.messages.shrink();
        self.frames.shrink();
        self.turns.shrink();
        self.spare = Vec::new();
        self.lost.shrink_to_fit();
        self.resets.shrink_to_fit();
        self.events.shrink_to_fit();
    }

    /// True if no message waits for anything: all are acknowledged or their reset is.
    pub fn is_empty(&self) -> bool {
        self.messages.len() == 0
    }

    /// Bytes sent and not acknowledged.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    #[cfg(test)]
    pub(crate) fn data_sent(&self) -> u64 {
        self.data_sent
    }

    /// The next event. To be asked for until there is none each time after `queue`, `on_acked` and
    /// `on_stop`: they are kept in a queue that only this empties.
    pub fn poll_event(&mut self) -> Option<OutboxEvent> {
        self.events.pop_front()
    }

    /// Takes the peer's initial credit from its transport parameters, or what is remembered of them for
    /// early data. May be called again; credit never shrinks (RFC 9000 §7.4.1).
    pub fn on_peer_credit(&mut self, initial: Credit) {
        let known = self.credit.get_or_insert_default();
        known.data = known.data.max(initial.data);
        known.messages = known.messages.max(initial.messages);
        known.message_data = known.message_data.max(initial.message_data);
        let message_data = known.message_data;
        self.turns.set_window(known.data);
        let mut freed = Vec::new();
        for (id, message) in self.messages.iter_mut() {
            if message.other_mut().is_some_and(|m| m.grant(message_data)) {
                freed.push(id);
            }
        }
        for id in freed {
            self.take_turns(id);
        }
        self.admit();
    }

    /// Forgets that anything was sent: the server has not kept the early data. Everything goes out
    /// again under the credit that [`on_peer_credit`](Self::on_peer_credit) then brings. The caller
    /// forgets the 0-RTT packets too: their frames must not be reported any more.
    pub fn on_early_data_rejected(&mut self) {
        self.credit = None;
        (self.data_sent, self.in_flight, self.admitted, self.opened) = (0, 0, 0, 0);
        self.turns.clear();
        self.lost.clear();
        self.resets.clear();
        (self.told_data_blocked, self.told_messages_blocked) = (None, None);
        self.unpack_all();
        for message in self.messages.iter_mut().filter_map(|(_, message)| message.other_mut()) {
            message.rewind(0);
        }
    }

    /// MAX_DATA.
    pub fn on_max_data(&mut self, value: u64) {
        let credit = self.credit.get_or_insert_default();
        credit.data = credit.data.max(value);
    }

    /// MAX_MESSAGE_DATA.
    ///
    /// # Errors
    /// The message was never opened (RFC 9000 §19.10).
    pub fn on_max_message_data(&mut self, id: u64, value: u64) -> Result<(), TransportError> {
        self.check_opened(id, frame_type::MAX_MESSAGE_DATA)?;
        if self.other_mut(id).is_some_and(|m| m.grant(value)) {
            self.take_turns(id);
        }
        Ok(())
    }

    /// MAX_MESSAGES.
    pub fn on_max_messages(&mut self, value: u64) {
        let credit = self.credit.get_or_insert_default();
        credit.messages = credit.messages.max(value);
        self.admit();
    }

    /// STOP_MESSAGE: answered with RESET_MESSAGE (RFC 9000 §3.5).
    ///
    /// # Errors
    /// The message was never opened (RFC 9000 §19.5).
    pub fn on_stop(&mut self, id: u64, code: u64) -> Result<(), TransportError> {
        self.check_opened(id, frame_type::STOP_MESSAGE)?;
        if self.messages.get(id).is_some_and(|m| !m.is_reset()) {
            self.reset(MessageId(id), code);
            self.events.push_back(OutboxEvent::Stopped { id: MessageId(id), code });
        }
        Ok(())
    }

    /// A packet with this frame was acknowledged.
    pub fn on_acked(&mut self, frame: &SentFrame) {
        match *frame {
            SentFrame::Run { first, count } => {
                self.on_acked_run(first.0..first.0 + u64::from(count), None);
            }
            SentFrame::Data { id, start, length } | SentFrame::Copy { id, start, length } => {
                let range = start..start + u64::from(length);
                self.on_acked_run(id.0..id.0 + 1, Some(range));
            }
            SentFrame::Reset(id) => self.end(id),
            _ => {}
        }
    }

    /// These positions of messages, or all of each, have arrived.
    fn on_acked_run(&mut self, ids: Range<u64>, range: Option<Range<u64>>) {
        let Self { messages, frames, told_acked, spare, events, in_flight, .. } = self;
        messages.end_run(ids, |id, message| {
            let ended = match message {
                // A short one is in its packet whole, and so is every copy.
                Message::Short(short) => {
                    *in_flight -= short.size();
                    frames.end(short);
                    true
                }
                Message::Other(other) if other.reset.is_some() => false,
                Message::Other(other) => {
                    *in_flight -= other.on_acked(range.clone().unwrap_or(0..u64::MAX));
                    let ended = other.fully_acked();
                    if ended && spare.len() < SPARE {
                        spare.extend(message.take_place());
                    }
                    ended
                }
            };
            if ended && !told_acked.is_empty() && told_acked.remove(&id) {
                events.push_back(OutboxEvent::Acked(MessageId(id)));
            }
            ended
        });
        frames.tidy();
        self.tell_writable();
    }

    /// A packet with this frame was lost.
    pub fn on_lost(&mut self, frame: &SentFrame) {
        match *frame {
            SentFrame::Run { first, count } => {
                for id in first.0..first.0 + u64::from(count) {
                    self.on_lost_part(id, None);
                }
            }
            SentFrame::Data { id, start, length } => {
                self.on_lost_part(id.0, Some(start..start + u64::from(length)));
            }
            SentFrame::Reset(id) if self.messages.get(id.0).is_some() => {
                self.resets.push_back(id.0);
            }
            SentFrame::DataBlocked(at) => {
                self.told_data_blocked.take_if(|told| *told == at);
            }
            SentFrame::MessagesBlocked(at) => {
                self.told_messages_blocked.take_if(|told| *told == at);
            }
            _ => {}
        }
    }

    /// These positions of a message, or all, have to be sent again unless they have arrived.
    fn on_lost_part(&mut self, id: u64, range: Option<Range<u64>>) {
        let Some(message) = self.unpack(id) else { return };
        let range = range.unwrap_or(0..message.size() + 1);
        if message.reset.is_none()
            && message.on_lost(range)
            && !core::mem::replace(&mut message.in_lost, true)
        {
            self.lost.push_back(id);
        }
    }

    /// True if [`write`](Self::write) has something for a packet.
    pub fn has_pending(&self) -> bool {
        if self.credit.is_none() || self.has_nothing_queued() {
            return false;
        }
        self.has_pending_data()
            || self.resets.iter().any(|id| self.messages.get(*id).is_some())
            || self.data_blocked().is_some()
            || self.messages_blocked().is_some()
    }

    /// The cheap answer, right most of the time when there is nothing to send.
    #[inline]
    fn has_nothing_queued(&self) -> bool {
        self.turns.is_empty()
            && self.lost.is_empty()
            && self.resets.is_empty()
            && self.admitted == self.messages.next_id()
    }

    /// True if [`write_data`](Self::write_data) has something for a packet.
    pub fn has_pending_data(&self) -> bool {
        // Most often a short message is next.
        if let Some(next) = self.turns.next_of_short()
            && let Some(Message::Short(_)) = self.messages.get(next.start)
            && self.allowance().bytes() > 0
        {
            return true;
        }
        self.lost.iter().any(|id| self.other(*id).is_some_and(|m| m.first_lost().is_some()))
            || self.turns.next(&self.messages, self.allowance()).is_some()
    }

    /// About how many bytes [`write`](Self::write) could write now; counted no further than 64 KiB,
    /// which is as much as leaves at once.
    pub fn bytes_to_send(&self) -> u64 {
        const ENOUGH: u64 = 64 << 10;
        const HEADER: u64 = 8;
        let new = self.allowance().bytes();
        // Most often short ones are all that waits, and nothing holds them up.
        let (short, bytes) = self.turns.short();
        let short = bytes + short * HEADER;
        let only_short = self.lost.is_empty() && self.turns.next_of_short().is_some();
        if short.min(new) >= ENOUGH || (only_short && bytes <= new) {
            return short.min(ENOUGH);
        }
        let waiting = self
            .lost
            .iter()
            .copied()
            .chain(self.turns.iter())
            .filter_map(|id| self.messages.get(id));
        let mut sum = 0;
        for message in waiting {
            sum += message.bytes_waiting(new);
            if sum >= ENOUGH {
                break;
            }
        }
        sum
    }

    /// True if a message longer than about a packet may have something to send.
    pub fn has_long(&self) -> bool {
        self.turns.has_long()
    }

    /// What the next packet begins with, if that is a part of a long message and nothing goes before it:
    /// to be asked again after whatever changes the outbox.
    pub fn next_part(&self) -> Option<Part> {
        if !self.lost.is_empty() || !self.resets.is_empty() || !self.turns.has_long() {
            return None;
        }
        let (id, range) = self.turns.next(&self.messages, self.allowance())?;
        self.other(id).map(|_| Part { id, range })
    }

    /// Like [`write_but_end`](Self::write_but_end), for a packet that begins with
    /// [`next_part`](Self::next_part), so that it is not asked again whose turn it is.
    pub fn write_part(
        &mut self,
        part: Part,
        buf: &mut Vec<u8>,
        room: usize,
        record: &mut Vec<SentFrame>,
    ) -> Option<Bytes> {
        let packet = &mut Packet::new(buf, room, record).leaving_end();
        if self.write_turn(packet, part) {
            self.write_fresh(packet);
            self.write_blocked(packet);
        }
        packet.left.take()
    }

    /// Appends frames of at most `room` bytes to `buf` and adds to `record` what they are. Whenever
    /// [`has_pending`](Self::has_pending), [`MIN_ROOM`] is room enough to write something.
    pub fn write(&mut self, buf: &mut Vec<u8>, room: usize, record: &mut Vec<SentFrame>) {
        if let Some(end) = self.write_but_end(buf, room, record) {
            let at = buf.len() - end.len();
            buf[at..].copy_from_slice(&end);
        }
    }

    /// The same, but where all of `room` is used, the last bytes may be left out: they are returned,
    /// and as many zeros stand in their place. Whoever encrypts them reads them where they are, and so
    /// saves a copy.
    pub fn write_but_end(
        &mut self,
        buf: &mut Vec<u8>,
        room: usize,
        record: &mut Vec<SentFrame>,
    ) -> Option<Bytes> {
        if self.credit.is_none() || self.has_nothing_queued() {
            return None;
        }
        let packet = &mut Packet::new(buf, room, record).leaving_end();
        if !self.resets.is_empty() {
            self.write_resets(packet);
        }
        if !self.lost.is_empty() {
            self.write_lost(packet);
        }
        self.write_fresh(packet);
        if !self.has_nothing_queued() {
            self.write_blocked(packet);
        }
        packet.left.take()
    }

    /// Like [`write`](Self::write), but MESSAGE frames only: what a 0-RTT packet may carry.
    pub fn write_data(&mut self, buf: &mut Vec<u8>, room: usize, record: &mut Vec<SentFrame>) {
        let packet = &mut Packet::new(buf, room, record);
        self.write_lost(packet);
        self.write_fresh(packet);
    }

    /// Appends copies of MESSAGE frames that packets under way carry, in at most `room` bytes, and
    /// adds to `record` what they are. Frames whose message has ended need none. Returns how many of
    /// `frames` are done with; the rest found no room.
    pub fn write_copies(
        &mut self,
        frames: &[SentFrame],
        buf: &mut Vec<u8>,
        room: usize,
        record: &mut Vec<SentFrame>,
    ) -> usize {
        let packet = &mut Packet::new(buf, room, record);
        for (done, frame) in frames.iter().enumerate() {
            let (ids, range) = match *frame {
                SentFrame::Run { first, count } => (first.0..first.0 + u64::from(count), None),
                SentFrame::Data { id, start, length } => {
                    (id.0..id.0 + 1, Some(start..start + u64::from(length)))
                }
                _ => continue,
            };
            for id in ids {
                let fits = match self.messages.get(id) {
                    Some(Message::Short(short)) => packet.copy_short(id, short, &self.frames),
                    Some(Message::Other(other)) if other.reset.is_none() => {
                        packet.copy(id, other, range.clone().unwrap_or(0..other.size() + 1))
                    }
                    _ => true,
                };
                if !fits {
                    return done;
                }
            }
        }
        frames.len()
    }

    /// True if a copy of one of these frames could still be of use.
    pub fn is_worth_copying(&self, frames: &[SentFrame]) -> bool {
        let lives = |id: u64| self.messages.get(id).is_some_and(|m| !m.is_reset());
        frames.iter().any(|frame| match *frame {
            SentFrame::Run { first, count } => (first.0..first.0 + u64::from(count)).any(lives),
            SentFrame::Data { id, .. } => lives(id.0),
            _ => false,
        })
    }

    fn write_resets(&mut self, packet: &mut Packet<'_>) {
        while let Some(&id) = self.resets.front() {
            if let Some(message) = self.other(id)
                && let Some(code) = message.reset
            {
                let frame = Frame::ResetMessage { id, code, final_size: message.bytes_sent() };
                if !packet.control(&frame, SentFrame::Reset(MessageId(id))) {
                    return;
                }
                self.opened = self.opened.max(id + 1);
            }
            self.resets.pop_front();
        }
    }

    fn write_lost(&mut self, packet: &mut Packet<'_>) {
        while let Some(&id) = self.lost.front() {
            if let Some(message) = self.messages.get_mut(id).and_then(Message::other_mut) {
                while let Some(range) = message.first_lost() {
                    let start = range.start;
                    let Some(end) = packet.data(id, message, range) else { return };
                    message.on_lost_resent(start..end);
                }
                message.in_lost = false;
            }
            self.lost.pop_front();
        }
    }

    fn write_fresh(&mut self, packet: &mut Packet<'_>) {
        loop {
            self.write_short(packet);
            if self.turns.is_empty() {
                return;
            }
            self.turns.tidy(&mut self.messages);
            let Some((id, range)) = self.turns.next(&self.messages, self.allowance()) else {
                return;
            };
            // A short one stays what it is if it does not get its turn in this packet.
            if let Some(Message::Short(short)) = self.messages.get(id) {
                if packet.part(id, range.start, range.end.min(short.size())).is_none() {
                    return;
                }
                self.unpack(id);
            }
            if !self.write_turn(packet, Part { id, range }) {
                return;
            }
        }
    }

    /// True if more may fit after it.
    fn write_turn(&mut self, packet: &mut Packet<'_>, Part { id, range }: Part) -> bool {
        let Some(message) = self.messages.get_mut(id).and_then(Message::other_mut) else {
            return false;
        };
        let start = range.start;
        let Some(end) = packet.data(id, message, range) else { return false };
        message.on_fresh_sent(end);
        let bytes = message.bytes_in(&(start..end));
        self.data_sent += bytes;
        self.in_flight += bytes;
        self.opened = self.opened.max(id + 1);
        self.turns.on_sent(id, message, start..end, bytes);
        // If it fills the packet, nobody has to be asked what fits.
        let filled = packet.left.is_some();
        if filled && message.fully_sent() {
            self.turns.tidy(&mut self.messages);
        }
        !filled
    }

    /// Short messages that nothing holds up, one after the other: what most packets are made of.
    fn write_short(&mut self, packet: &mut Packet<'_>) {
        while let Some(ids) = self.turns.next_of_short() {
            let first = ids.start;
            if !self.write_run(packet, ids) && !self.write_whole(packet, first) {
                break;
            }
        }
    }

    /// Those of `ids` whose frames lie one behind the other, as far as they fit. False if the first
    /// does not, or is none of these.
    fn write_run(&mut self, packet: &mut Packet<'_>, ids: Range<u64>) -> bool {
        let (room, allowance) = (packet.room() as u64, self.allowance().bytes());
        let (first, mut count, mut bytes) = (ids.start, 0, 0);
        let mut run = 0..0;
        for message in self.messages.recent_mut(ids) {
            let Some(Message::Short(short)) = message else { break };
            let frame = short.frame();
            if count == 0 {
                run = frame.start..frame.start;
            }
            let fits = frame.end - run.start <= room && bytes + short.size() <= allowance;
            if frame.start != run.end || !fits {
                break;
            }
            short.sent = true;
            run.end = frame.end;
            bytes += short.size();
            count += 1;
        }
        if count == 0 {
            return false;
        }
        packet.run(first, count, self.frames.get(run));
        self.on_short_sent(first, u64::from(count), bytes);
        true
    }

    /// The first of the short messages, if nothing of it was sent and all of it fits.
    fn write_whole(&mut self, packet: &mut Packet<'_>, id: u64) -> bool {
        let allowance = self.allowance().bytes();
        let Some(message) = self.messages.get_mut(id) else { return false };
        let size = message.size();
        if size > allowance {
            return false;
        }
        match message {
            Message::Short(short) => {
                let frame = self.frames.get(short.frame());
                if short.sent || frame.len() > packet.room() {
                    return false;
                }
                short.sent = true;
                packet.run(id, 1, frame);
            }
            Message::Other(other) => {
                if !other.is_whole() || !packet.whole(id, other) {
                    return false;
                }
                other.on_whole_sent();
                other.in_turns = false;
            }
        }
        self.on_short_sent(id, 1, size);
        true
    }

    #[inline]
    fn on_short_sent(&mut self, first: u64, count: u64, bytes: u64) {
        self.turns.pop_short(count, bytes);
        self.data_sent += bytes;
        self.in_flight += bytes;
        self.opened = self.opened.max(first + count);
    }

    /// The message, if it has not ended and is no short one to which nothing has happened.
    fn other(&self, id: u64) -> Option<&Outgoing> {
        self.messages.get(id).and_then(Message::other)
    }

    fn other_mut(&mut self, id: u64) -> Option<&mut Outgoing> {
        self.messages.get_mut(id).and_then(Message::other_mut)
    }

    /// The message, if it has not ended, as one to which anything may happen.
    fn unpack(&mut self, id: u64) -> Option<&mut Outgoing> {
        let granted = self.credit.map_or(0, |c| c.message_data);
        let other = self.messages.get_mut(id)?.unpack(granted, &mut self.frames);
        self.frames.tidy();
        Some(other)
    }

    /// Makes all messages such, so that the frames of short ones take no memory.
    #[cold]
    fn unpack_all(&mut self) {
        let granted = self.credit.map_or(0, |c| c.message_data);
        for (_, message) in self.messages.iter_mut() {
            message.unpack(granted, &mut self.frames);
        }
        self.frames.tidy();
    }

    fn write_blocked(&mut self, packet: &mut Packet<'_>) {
        if let Some(at) = self.data_blocked()
            && packet.control(&Frame::DataBlocked(at), SentFrame::DataBlocked(at))
        {
            self.told_data_blocked = Some(at);
        }
        if let Some(at) = self.messages_blocked()
            && packet.control(&Frame::MessagesBlocked(at), SentFrame::MessagesBlocked(at))
        {
            self.told_messages_blocked = Some(at);
        }
    }

    /// New bytes that may be sent now, over all messages.
    fn allowance(&self) -> Allowance {
        Allowance {
            credit: self.credit.map_or(0, |c| c.data).saturating_sub(self.data_sent),
            window: self.send_window.saturating_sub(self.in_flight),
        }
    }

    /// The limit at which the peer's MAX_DATA holds up a message, if the peer was not told.
    fn data_blocked(&self) -> Option<u64> {
        let limit = self.credit?.data;
        let blocked = self.data_sent >= limit
            && self.told_data_blocked != Some(limit)
            && self.turns.next(&self.messages, self.allowance()).is_none()
            && self.turns.next(&self.messages, Allowance::UNBOUNDED).is_some();
        blocked.then_some(limit)
    }

    /// The count at which the peer's MAX_MESSAGES holds up a message, if the peer was not told.
    fn messages_blocked(&self) -> Option<u64> {
        let limit = self.credit?.messages;
        let blocked = limit < self.messages.next_id() && self.told_messages_blocked != Some(limit);
        blocked.then_some(limit)
    }

    /// Queues the messages that MAX_MESSAGES now lets out.
    fn admit(&mut self) {
        let Some(credit) = self.credit else { return };
        while self.admitted < credit.messages.min(self.messages.next_id()) {
            let id = self.admitted;
            self.admitted += 1;
            match self.messages.get(id).map(Message::is_reset) {
                Some(true) => self.resets.push_back(id),
                Some(false) => self.take_turns(id),
                None => {}
            }
        }
    }

    /// Queues a message for its turn, once it is admitted.
    fn take_turns(&mut self, id: u64) {
        if id < self.admitted
            && let Some(message) = self.messages.get_mut(id).and_then(Message::other_mut)
        {
            self.turns.push(id, message);
        }
    }

    fn end(&mut self, id: MessageId) {
        self.messages.remove(id.0);
        if !self.told_acked.is_empty() {
            self.told_acked.remove(&id.0);
        }
        self.tell_writable();
    }

    #[inline]
    fn tell_writable(&mut self) {
        if self.refused && self.messages.len() < self.max_queued {
            self.refused = false;
            self.events.push_back(OutboxEvent::Writable);
        }
    }

    fn check_opened(&self, id: u64, frame_type: u64) -> Result<(), TransportError> {
        if id < self.opened {
            return Ok(());
        }
        let reason = "about a message that was never opened";
        Err(TransportError::new(Code::MESSAGE_STATE_ERROR, reason).in_frame(frame_type))
    }
}
