//! Streams at the client: what is sent and received beside the call itself.
//!
//! The call of a stream is placed, numbered and settled as any other; its reply is held back until the
//! messages before it are here.

use alloc::vec::Vec;

use super::call::State;
use super::follow::Follow;
use super::{CallKey, Client};
use crate::limits::Limits;
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::{Event, StreamKey, StreamRead, StreamRefusal};
use crate::rpc::message::{ReplyPayload, ToServer};
use crate::rpc::stream::{Broken, Content, Inbox, OVERHEAD, Outbox, Part, PartRef};
use crate::service::{CallError, Code, Encoded, IncomingReply, Shape, Status, StreamEnd, text};
use crate::session::{Answer, CallId};
use crate::transport::endpoint::ConnectionHandle;

/// The messages of one stream. It stays until its user leaves it, also past the call's end: what has
/// come can still be read.
///
/// Bound: two windows of [`Limits::stream_window`] and two messages.
#[derive(Debug)]
pub(super) struct Stream {
    shape: Shape,
    /// Messages of the server, if it streams.
    pub(super) inbox: Option<Inbox>,
    outbox: Outbox,
    /// The server has said how far it is, on the present connection: messages may be sent.
    in_step: bool,
    /// The number of messages was told on the present connection.
    end_told: bool,
    owes_credit: bool,
    /// The reply came and messages before it have not.
    reply: Option<ReplyPayload>,
    /// Messages that are missing do not come any more, for this reason.
    gone: Option<Status>,
    end: Option<StreamEnd>,
    /// The call has ended.
    over: bool,
    /// Of a stream of reads at a group: it takes no slot.
    pub(super) follow: Option<Follow>,
}

/// A stream that its caller has left and whose handler is to be stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancel {
    pub(super) id: CallId,
    pub(super) overdue: bool,
    /// On the present connection.
    pub(super) sent: bool,
}

/// What is said of streams at a group that it does not run.
pub(super) const NO_STREAMS: &str = "a group of replicas runs only streams of the server that have no side \
                          effects (NO_SIDE_EFFECTS), and no number can be reserved for them";

/// What is said of streams on a channel with a journal, which does not write them down.
pub(super) const NO_STREAMS_WITH_JOURNAL: &str =
    "a channel with a journal makes only streams of reads, at groups of replicas: use one without";

impl Stream {
    fn new(shape: Shape, limits: &Limits) -> Self {
        Self {
            shape,
            inbox: shape.server_streams().then(|| Inbox::new(limits.stream_window)),
            outbox: Outbox::new(limits.stream_window, 0),
            in_step: false,
            end_told: false,
            owes_credit: false,
            reply: None,
            gone: None,
            end: None,
            over: false,
            follow: None,
        }
    }

    /// Messages that the server's handler took, as far as is known.
    fn taken(&self) -> u64 {
        self.end.map_or(self.outbox.taken(), |end| end.taken)
    }
}

impl Client {
    /// A call of a method that streams has begun.
    pub(super) fn add_stream(&mut self, cx: &Context<'_>, key: CallKey, shape: Shape) {
        self.streams.insert(key.0, Stream::new(shape, cx.limits));
    }

    pub(super) fn is_stream(&self, key: CallKey) -> bool {
        !self.streams.is_empty() && self.streams.contains_key(&key.0)
    }

    /// What the server may send unasked, for the request.
    pub(super) fn stream_window(&mut self, key: CallKey) -> u64 {
        let inbox = self.streams.get_mut(&key.0).and_then(|stream| stream.inbox.as_mut());
        inbox.map_or(0, |inbox| inbox.credit().limit)
    }

    pub(crate) fn send_message(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        message: Encoded,
    ) -> Result<(), StreamRefusal> {
        let Some(stream) = self.streams.get_mut(&key.0) else { return Err(StreamRefusal::Over) };
        let takes = stream.shape.client_streams() && !stream.over && !stream.outbox.is_ended();
        if !takes {
            return Err(StreamRefusal::Over);
        }
        if message.body.len() as u64 > cx.limits.message {
            return Err(StreamRefusal::TooLarge(cx.limits.message));
        }
        stream.outbox.push(message).map_err(StreamRefusal::Full)?;
        self.pump_stream(cx, key);
        Ok(())
    }

    pub(crate) fn end_messages(&mut self, cx: &mut Context<'_>, key: CallKey) {
        if let Some(stream) = self.streams.get_mut(&key.0) {
            stream.outbox.end();
            self.pump_stream(cx, key);
        }
    }

    pub(crate) fn take_message(&mut self, cx: &mut Context<'_>, key: CallKey) -> StreamRead {
        let Some(stream) = self.streams.get_mut(&key.0) else { return StreamRead::End };
        let Some(inbox) = &mut stream.inbox else { return StreamRead::End };
        match inbox.take() {
            Some(message) => {
                if stream.follow.is_some() {
                    self.follow_on(cx, key);
                } else if !stream.over && inbox.owes_credit() {
                    stream.owes_credit = true;
                    self.pump_stream(cx, key);
                }
                StreamRead::Message(message)
            }
            None if stream.over => StreamRead::End,
            None => StreamRead::Blocked,
        }
    }

    /// The user is done with the stream, or with reading it.
    pub(super) fn forget_stream(&mut self, key: CallKey) {
        self.streams.remove(&key.0);
    }

    /// A part of a stream came.
    pub(super) fn stream_part(
        &mut self,
        cx: &mut Context<'_>,
        link: u64,
        handle: ConnectionHandle,
        part: Part,
    ) {
        let Some(key) = self.stream_of(link, part.slot, part.sequence) else { return };
        let live = self.links.get(link).and_then(|link| link.live.as_ref());
        let is_live = live.is_some_and(|live| live.handle == handle);
        let arrived = self.part_arrived(cx, key, is_live, part.content);
        if let Err(Broken(why)) = arrived {
            return cx.close(handle, close_code::PROTOCOL, why);
        }
        self.pump_stream(cx, key);
        self.settle_stream(cx, link, key);
    }

    fn part_arrived(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        is_live: bool,
        content: Content,
    ) -> Result<(), Broken> {
        let Some(stream) = self.streams.get_mut(&key.0) else { return Ok(()) };
        match content {
            Content::Message { index, message } => {
                let Some(inbox) = &mut stream.inbox else {
                    return Err(Broken("a stream that was not asked for"));
                };
                inbox.arrive(index, message, cx.limits.message + OVERHEAD)?;
                if inbox.has_news() {
                    cx.events.push(Event::Readable(StreamKey::Call(key)));
                }
            }
            Content::Credit(credit) if is_live => {
                if stream.outbox.credit(credit)? {
                    cx.events.push(Event::Writable(StreamKey::Call(key)));
                }
                if !core::mem::replace(&mut stream.in_step, true) {
                    stream.outbox.rewind();
                }
            }
            // Of a connection that was given up: the next one says it again.
            Content::Credit(_) => {}
            Content::End { .. } => return Err(Broken("a server ends a stream by its reply")),
        }
        Ok(())
    }

    /// A reply came, perhaps before the messages that it ends.
    pub(super) fn stream_reply(
        &mut self,
        cx: &mut Context<'_>,
        link: u64,
        (slot, sequence): (u32, u64),
        reply: ReplyPayload,
    ) {
        let key = self.stream_of(link, slot, sequence);
        let Some(stream) = key.and_then(|key| self.streams.get_mut(&key.0)) else {
            return self.answer(cx, link, slot, sequence, Answer::Reply(reply), None);
        };
        stream.end = reply.stream.as_deref().copied();
        stream.reply = Some(reply);
        self.settle_stream(cx, link, key.unwrap_or(CallKey(u64::MAX)));
    }

    /// The server does not have the messages of a stream any more.
    pub(super) fn no_stream(&mut self, cx: &mut Context<'_>, link: u64, slot: u32, sequence: u64) {
        let Some(key) = self.stream_of(link, slot, sequence) else { return };
        let away = "the stream ran to its end, but this client was away for so long that the rest of \
                    its messages was not kept";
        self.give_up_rest(cx, link, key, Status::new(Code::DataLoss, away));
    }

    /// A message of a stream was larger than this side takes.
    pub(super) fn stream_too_large(&mut self, cx: &mut Context<'_>, link: u64, part: &Part) {
        let Some(key) = self.stream_of(link, part.slot, part.sequence) else { return };
        let limit = cx.limits.message;
        let why = format_args!(
            "a message of the stream is larger than the {limit} bytes that this side takes"
        );
        if let Some(State::Numbered { id, .. }) = self.calls.get(key.0).map(|call| &call.state) {
            let id = *id;
            self.want_cancel(link, id, false);
            self.after_sending(cx, link);
        }
        self.give_up_rest(cx, link, key, Status::resource_exhausted(text(why)));
    }

    fn give_up_rest(&mut self, cx: &mut Context<'_>, link: u64, key: CallKey, why: Status) {
        if let Some(stream) = self.streams.get_mut(&key.0) {
            stream.gone.get_or_insert(why);
            self.settle_stream(cx, link, key);
        }
    }

    /// Settles the call of a stream whose reply has come, once the messages before it have.
    fn settle_stream(&mut self, cx: &mut Context<'_>, link: u64, key: CallKey) {
        let Some(stream) = self.streams.get_mut(&key.0) else { return };
        let Some(end) = stream.reply.as_ref().and_then(|reply| reply.stream.as_deref()) else {
            return;
        };
        let missing = stream.inbox.as_ref().is_some_and(|inbox| inbox.received() < end.sent);
        if missing && stream.gone.is_none() {
            return;
        }
        let Some(mut reply) = stream.reply.take() else { return };
        if missing {
            reply.status = stream.gone.take();
        }
        let Some(State::Numbered { id, .. }) = self.calls.get(key.0).map(|call| &call.state) else {
            return;
        };
        let (slot, sequence) = (id.slot, id.sequence);
        self.answer(cx, link, slot, sequence, Answer::Reply(reply), None);
    }

    /// The call of a stream has ended: its reader and its sender hear so.
    pub(super) fn stream_ended(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        result: Result<IncomingReply, CallError>,
    ) -> Result<IncomingReply, CallError> {
        let Some(stream) = self.streams.get_mut(&key.0) else { return result };
        stream.over = true;
        stream.outbox.end();
        let taken = stream.taken();
        if let Some(inbox) = &mut stream.inbox {
            // Nothing more comes, so that whoever waits is to look.
            let _ = inbox.end_at(inbox.received());
            inbox.has_news();
        }
        cx.events.push(Event::Readable(StreamKey::Call(key)));
        cx.events.push(Event::Writable(StreamKey::Call(key)));
        result.map_err(|error| error.with_taken(Some(taken)))
    }

    /// The session is attached to a new connection, and the server knows the call: both sides tell
    /// how far the stream is.
    pub(super) fn resume_stream(&mut self, cx: &mut Context<'_>, key: CallKey) {
        if self.streams.is_empty() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&key.0) {
            stream.owes_credit = true;
            self.pump_stream(cx, key);
        }
    }

    /// Whether a call may be made again under another number: of a stream only if nothing of it has gone
    /// either way.
    pub(super) fn may_begin_again(&self, key: CallKey) -> bool {
        let fresh = |stream: &Stream| {
            let received = stream.inbox.as_ref().map_or(0, Inbox::received);
            stream.outbox.is_untouched() && received == 0 && !stream.end_told && !stream.over
        };
        self.streams.is_empty() || self.streams.get(&key.0).is_none_or(fresh)
    }

    /// The call is made again.
    pub(super) fn begin_again(&mut self, key: CallKey) {
        if let Some(stream) = self.streams.get_mut(&key.0) {
            (stream.in_step, stream.owes_credit) = (false, false);
            stream.outbox.restart();
        }
    }

    /// The link's connection is not, or not any more, what streams were in step with.
    pub(super) fn part_streams(&mut self, link: u64) {
        if !self.streams.is_empty() {
            for key in self.streams_of(link) {
                if let Some(stream) = self.streams.get_mut(&key.0) {
                    (stream.in_step, stream.end_told) = (false, false);
                }
            }
        }
        let session = self.links.get_mut(link).and_then(|link| link.session.as_mut());
        for cancel in session.into_iter().flat_map(|session| &mut session.cancels) {
            cancel.sent = false;
        }
    }

    /// A connection has room again.
    pub(super) fn pump_streams(&mut self, cx: &mut Context<'_>, link: u64) {
        if self.streams.is_empty() {
            return;
        }
        for key in self.streams_of(link) {
            self.pump_stream(cx, key);
        }
    }

    /// Sends what a stream has to send, as far as there is credit and room.
    pub(super) fn pump_stream(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(stream) = self.streams.get_mut(&key.0).filter(|stream| !stream.over) else {
            return;
        };
        let Some(State::Numbered { link, id, .. }) = self.calls.get(key.0).map(|call| &call.state)
        else {
            return;
        };
        let Some(link) = self.links.get_mut(*link).filter(|link| link.is_ready()) else { return };
        let Some(live) = link.live.as_mut() else { return };
        loop {
            let sends = stream.in_step && stream.outbox.can_transmit();
            let outbox = &stream.outbox;
            let ends = stream.in_step
                && stream.shape.client_streams()
                && outbox.is_ended()
                && outbox.is_transmitted()
                && !stream.end_told;
            if !(stream.owes_credit || sends || ends)
                || !live.outgoing.has_room(cx.endpoint, live.handle)
            {
                return;
            }
            let part = if core::mem::take(&mut stream.owes_credit) {
                let credit = stream.inbox.as_mut().map(Inbox::credit);
                PartRef::Credit(credit.unwrap_or_default())
            } else if ends {
                stream.end_told = true;
                PartRef::End { count: stream.outbox.count() }
            } else {
                let Some((index, message)) = stream.outbox.transmit() else { return };
                PartRef::Message { index, message }
            };
            let parts = part.encode(id.slot, id.sequence, cx.buffer);
            live.outgoing.send(cx, live.handle, parts, u64::MAX);
        }
    }

    /// Notes that a stream's handler is to be stopped. [`Self::after_sending`] sends it.
    pub(super) fn want_cancel(&mut self, link: u64, id: CallId, overdue: bool) {
        if let Some(session) = self.links.get_mut(link).and_then(|link| link.session.as_mut())
            && session.cancels.iter().all(|cancel| cancel.id != id)
        {
            session.cancels.push(Cancel { id, overdue, sent: false });
        }
    }

    /// Sends the cancels that are not sent, and forgets those of calls that are settled.
    pub(super) fn send_cancels(&mut self, cx: &mut Context<'_>, link: u64) {
        let Some(link) = self.links.get_mut(link) else { return };
        let none = link.session.as_ref().is_none_or(|session| session.cancels.is_empty());
        if none || !link.is_ready() {
            return;
        }
        let (Some(live), Some(session)) = (link.live.as_mut(), link.session.as_mut()) else {
            return;
        };
        let slots = &session.slots;
        session.cancels.retain(|cancel| slots.progress(cancel.id).is_some());
        for cancel in session.cancels.iter_mut().filter(|cancel| !cancel.sent) {
            cancel.sent = true;
            let Cancel { id, overdue, .. } = *cancel;
            let message = ToServer::CancelStream { slot: id.slot, sequence: id.sequence, overdue };
            let message = message.encode(cx.buffer);
            live.outgoing.send(cx, live.handle, message, u64::MAX);
        }
    }

    /// The stream that waits for what becomes of this number.
    fn stream_of(&mut self, link: u64, slot: u32, sequence: u64) -> Option<CallKey> {
        if self.streams.is_empty() {
            return None;
        }
        let session = self.links.get(link)?.session.as_ref()?;
        let key = session.occupants.get(slot as usize)?.call?;
        let State::Numbered { id, .. } = &self.calls.get(key.0)?.state else { return None };
        (id.sequence == sequence && self.is_stream(key)).then_some(key)
    }

    fn streams_of(&self, link: u64) -> Vec<CallKey> {
        let own = |key: &&u64| {
            let state = self.calls.get(**key).map(|call| &call.state);
            matches!(state, Some(State::Numbered { link: of, .. }) if *of == link)
        };
        self.streams.keys().filter(own).map(|key| CallKey(*key)).collect()
    }
}
