//! Streams at the server: a call whose request and reply are followed by messages.
//!
//! A stream holds its slot from its request on: it executes until its handler has ended and all of its
//! messages were handed to a connection. Its messages stay here until the client has them, also past
//! that, so that a path may be lost at any time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::mem;

use super::{PendingKind, Server, Violation};
use crate::limits::Limits;
use crate::rpc::context::Context;
use crate::rpc::desk::Verdict;
use crate::rpc::event::{Event, RequestKey, StreamKey, StreamRead, StreamRefusal};
use crate::rpc::message::{RequestPayload, ToClient};
use crate::rpc::stream::{Arrived, Broken, Content, Inbox, OVERHEAD, Outbox, Part, PartRef};
use crate::rpc::trace::{CallName, Passed, StepKind};
use crate::service::{
    Answer, Code, Encoded, NotExecuted, Priority, Shape, Status, StreamEnd, text,
};
use crate::session::{Attachment, CallId, NotExecutedReason, SessionId};
use crate::time::{Instant, earliest};

/// The window of a stream when the others have used up what there is.
const LEAST_WINDOW: u64 = 16 << 10;

/// Where a stream is: it holds its slot, so there is one at most.
pub(super) type Place = (SessionId, u32);

/// Every stream of the server's clients.
///
/// Bounds: [`Limits::streams`], and what they hold [`Limits::stream_memory`] and two windows of each.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: BTreeMap<Place, Stream>,
    /// Those that wait for room in a connection.
    waiting: BTreeSet<(u64, Place)>,
    due: BTreeSet<(Instant, Place)>,
    /// The windows of all.
    granted: u64,
    /// What all hold.
    held: u64,
}

#[derive(Debug)]
struct Stream {
    sequence: u64,
    request: RequestKey,
    attachment: Attachment,
    /// The connection that its messages go to; `None` until the client says how far it is.
    connection: Option<u64>,
    /// Messages of the client, if it streams.
    inbox: Option<Inbox>,
    outbox: Outbox,
    /// The handler's answer, until all messages before it were sent.
    answer: Option<Answer>,
    state: State,
    owes_credit: bool,
    deadline: Option<Instant>,
    /// When it ends if its client has not come back.
    leaves_at: Option<Instant>,
    due: Option<Instant>,
    window: u64,
    /// What it counted last in [`Streams::held`].
    held: u64,
    /// The client has sent its last message.
    half_closed: bool,
    /// What the call is known by to people who ask for it by its trace.
    trace: Option<CallName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The handler is at work.
    Running,
    /// The handler has ended, or was stopped: its answer waits for its messages.
    Ending,
    /// The slot has the answer; the messages are kept until they have arrived.
    Done,
}

impl Streams {
    /// Bytes that they hold.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn trace(&self, place: Place) -> Option<CallName> {
        self.open.get(&place)?.trace
    }

    /// How many messages have passed at this place.
    pub(super) fn passed(&self, place: Place) -> Passed {
        self.open.get(&place).map(Stream::passed).unwrap_or_default()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        Some(self.due.first()?.0)
    }

    fn window(&self, limits: &Limits) -> u64 {
        let left = (limits.stream_memory / 2).saturating_sub(self.granted);
        limits.stream_window.min(left.max(LEAST_WINDOW))
    }

    fn insert(&mut self, place: Place, stream: Stream) {
        self.remove(place);
        self.granted += stream.window;
        self.open.insert(place, stream);
        self.note(place);
    }

    fn remove(&mut self, place: Place) -> Option<Stream> {
        let stream = self.open.remove(&place)?;
        self.granted -= stream.window;
        self.held -= stream.held;
        if let Some(due) = stream.due {
            self.due.remove(&(due, place));
        }
        if let Some(connection) = stream.connection {
            self.waiting.remove(&(connection, place));
        }
        Some(stream)
    }

    /// Brings the sums and timers in line with a stream that was changed.
    fn note(&mut self, place: Place) {
        let Some(stream) = self.open.get_mut(&place) else { return };
        let held = stream.outbox.held() + stream.inbox.as_ref().map_or(0, Inbox::held);
        self.held = self.held - stream.held + held;
        stream.held = held;
        let deadline = stream.deadline.filter(|_| stream.state == State::Running);
        let due = earliest(deadline, stream.leaves_at);
        if due != stream.due {
            if let Some(before) = stream.due {
                self.due.remove(&(before, place));
            }
            if let Some(at) = due {
                self.due.insert((at, place));
            }
            stream.due = due;
        }
    }

    fn of_session(&self, session: SessionId) -> alloc::vec::Vec<Place> {
        if self.open.is_empty() {
            return alloc::vec::Vec::new();
        }
        self.open.range((session, 0)..=(session, u32::MAX)).map(|(place, _)| *place).collect()
    }

    fn get(&mut self, place: Place, sequence: u64) -> Option<&mut Stream> {
        self.open.get_mut(&place).filter(|stream| stream.sequence == sequence)
    }
}

impl Server {
    /// A request came that opens a stream.
    pub(super) fn open_stream(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        (slot, sequence): (u32, u64),
        (shape, credit): (Shape, u64),
        payload: RequestPayload,
    ) -> Result<(), Violation> {
        let attachment = self.attachment(client)?;
        let id = CallId { session: attachment.session(), slot, sequence };
        let overloaded = self.admission.is_overloaded(cx.now);
        if overloaded || self.streams.len() >= cx.limits.streams {
            let mut verdict = self.desk.fence(&attachment, slot, sequence)?;
            if let Verdict::Say(ToClient::NotExecuted { why, .. }) = &mut verdict {
                let said = "the server has too many streams";
                *why = if overloaded {
                    let priority = Priority::of(&payload.metadata);
                    self.admission.refuse_stream(cx.now, priority, cx.random)
                } else {
                    NotExecuted::because(NotExecutedReason::Overloaded, said)
                };
            }
            self.log.failed(cx.now, id, cx.now);
            self.say(cx, client, verdict);
            return Ok(());
        }
        let verdict = self.desk.request(&attachment, slot, sequence, payload.digest)?;
        let Verdict::Execute = verdict else {
            self.log.push(cx.now, id, StepKind::CameAgain);
            self.say(cx, client, verdict);
            return Ok(());
        };
        let trace = CallName::trace_of(&payload.metadata);
        let place = (id.session, slot);
        let deadline = payload.deadline.map(|left| cx.now + left);
        let kind = PendingKind::Stream { place, sequence, shape };
        let Some(request) = self.start(cx, client, kind, Some(id), payload) else { return Ok(()) };
        let window = self.streams.window(cx.limits);
        let stream = Stream {
            sequence,
            request,
            attachment,
            connection: Some(client),
            inbox: shape.client_streams().then(|| Inbox::new(window)),
            outbox: Outbox::new(window, credit),
            answer: None,
            state: State::Running,
            owes_credit: shape.client_streams(),
            deadline,
            leaves_at: None,
            due: None,
            window,
            held: 0,
            half_closed: false,
            trace,
        };
        self.streams.insert(place, stream);
        self.pump(cx, place);
        Ok(())
    }

    /// A part of a stream came. What is of no stream is late, or of one that has ended.
    pub(super) fn stream_part(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        part: Part,
    ) -> Result<(), Violation> {
        let attachment = self.attachment(client)?;
        if let Some(verdict) = self.desk.refusal(&attachment) {
            self.say(cx, client, verdict);
            return Ok(());
        }
        let Part { slot, sequence, content } = part;
        let place = (attachment.session(), slot);
        let is_credit = matches!(content, Content::Credit(_));
        let end = match content {
            Content::End { count } => Some(count),
            _ => None,
        };
        let (held, most) = (self.streams.held, cx.limits.stream_memory);
        let Some(stream) = self.streams.get(place, sequence) else {
            if is_credit {
                self.send(cx, client, ToClient::NoStream { slot, sequence });
            }
            return Ok(());
        };
        let before = stream.connection;
        let overdraws = match stream.arrived(client, content, cx) {
            Ok(()) => held > most && stream.is_overdrawn(),
            Err(Broken(why)) => return Err(Violation(why)),
        };
        let resumed = stream.connection != before;
        let end = end.filter(|_| !mem::replace(&mut stream.half_closed, true));
        let step = if resumed { Some(StepKind::Resumed) } else { end.map(StepKind::HalfClosed) };
        if let Some(kind) = step {
            for name in stream.names(place) {
                self.log.push(cx.now, name, kind);
            }
        }
        self.streams.note(place);
        if overdraws {
            let why = Status::resource_exhausted("the server's streams hold all they may");
            self.stop(cx, place, why);
        }
        self.pump(cx, place);
        Ok(())
    }

    /// The client wants no more of a call: as a fence, and the handler of a stream is stopped.
    pub(super) fn cancel_stream(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        (slot, sequence): (u32, u64),
        overdue: bool,
    ) -> Result<(), Violation> {
        let attachment = self.attachment(client)?;
        let verdict = self.desk.fence(&attachment, slot, sequence)?;
        let place = (attachment.session(), slot);
        let executing = matches!(verdict, Verdict::Say(ToClient::Working { .. }));
        if !executing || self.streams.get(place, sequence).is_none() {
            self.say(cx, client, verdict);
            return Ok(());
        }
        let why = if overdue {
            Status::new(Code::DeadlineExceeded, "the deadline passed while the stream was open")
        } else {
            Status::new(Code::Cancelled, "the caller cancelled the stream")
        };
        self.stop(cx, place, why);
        Ok(())
    }

    /// A message of a stream was larger than this side takes.
    pub(super) fn stream_too_large(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        part: &Part,
    ) -> Result<(), Violation> {
        let place = (self.attachment(client)?.session(), part.slot);
        if self.streams.get(place, part.sequence).is_some() {
            let limit = cx.limits.message;
            let why = format_args!("a message is larger than the {limit} bytes that it takes");
            self.stop(cx, place, Status::resource_exhausted(text(why)));
        }
        Ok(())
    }

    pub(crate) fn send_message(
        &mut self,
        cx: &mut Context<'_>,
        key: RequestKey,
        message: Encoded,
    ) -> Result<(), StreamRefusal> {
        if message.body.len() as u64 > cx.limits.message {
            return Err(StreamRefusal::TooLarge(cx.limits.message));
        }
        let Some((place, stream)) = self.running(key) else { return Err(StreamRefusal::Over) };
        stream.outbox.push(message).map_err(StreamRefusal::Full)?;
        self.streams.note(place);
        self.pump(cx, place);
        Ok(())
    }

    pub(crate) fn take_message(&mut self, cx: &mut Context<'_>, key: RequestKey) -> StreamRead {
        let Some((place, stream)) = self.running(key) else { return StreamRead::End };
        let Some(inbox) = &mut stream.inbox else { return StreamRead::End };
        match inbox.take() {
            Some(message) => {
                let owes = inbox.owes_credit();
                stream.owes_credit |= owes;
                self.streams.note(place);
                if owes {
                    self.pump(cx, place);
                }
                StreamRead::Message(message)
            }
            None if inbox.is_over() => StreamRead::End,
            None => StreamRead::Blocked,
        }
    }

    /// The handler of a stream has ended, or was never started.
    pub(super) fn answer_stream(
        &mut self,
        cx: &mut Context<'_>,
        place: Place,
        sequence: u64,
        answer: Answer,
    ) {
        let Some(stream) = self.streams.get(place, sequence) else { return };
        if stream.state != State::Running {
            return;
        }
        stream.state = State::Ending;
        stream.outbox.end();
        if matches!(answer, Answer::NotExecuted(_)) {
            stream.outbox.cut();
        }
        stream.answer = Some(answer);
        self.pump(cx, place);
    }

    /// Forgets the messages of streams whose end the client knows.
    pub(super) fn release_stream(&mut self, session: SessionId, slot: u32, sequence: u64) {
        let place = (session, slot);
        let known = |stream: &Stream| stream.state == State::Done && stream.sequence <= sequence;
        if self.streams.open.get(&place).is_some_and(known) {
            self.streams.remove(place);
        }
    }

    /// A connection has room again.
    pub(super) fn pump_waiting(&mut self, cx: &mut Context<'_>, client: u64) {
        loop {
            let nowhere = SessionId { incarnation: 0, number: 0 };
            let Some(&(of, place)) = self.streams.waiting.range((client, (nowhere, 0))..).next()
            else {
                return;
            };
            if of != client || !self.has_room(cx, client) {
                return;
            }
            self.streams.waiting.remove(&(client, place));
            self.pump(cx, place);
        }
    }

    /// A connection is over, or its session was given to another one: streams wait for their client.
    pub(super) fn part_streams(
        &mut self,
        cx: &Context<'_>,
        session: SessionId,
        now_at: Option<u64>,
    ) {
        for place in self.streams.of_session(session) {
            let Some(stream) = self.streams.open.get_mut(&place) else { continue };
            if stream.connection.is_some() && stream.connection == now_at {
                continue;
            }
            if let Some(before) = stream.connection.take() {
                self.streams.waiting.remove(&(before, place));
                if stream.state != State::Done {
                    for name in stream.names(place) {
                        self.log.push(cx.now, name, StepKind::Parted);
                    }
                }
            }
            stream.leaves_at.get_or_insert(cx.now + cx.limits.stream_patience);
            self.streams.note(place);
        }
    }

    /// The client is done with its session.
    pub(super) fn end_streams(&mut self, cx: &mut Context<'_>, session: SessionId) {
        for place in self.streams.of_session(session) {
            self.stop(cx, place, Status::new(Code::Cancelled, "the client closed its session"));
            self.streams.remove(place);
        }
    }

    /// Ends the streams whose time has come.
    pub(super) fn streams_due(&mut self, cx: &mut Context<'_>) {
        while let Some(&(at, place)) = self.streams.due.first() {
            if at > cx.now {
                return;
            }
            let Some(stream) = self.streams.open.get(&place) else { return };
            if stream.leaves_at.is_some_and(|at| at <= cx.now) {
                let away = "the caller was away for too long";
                self.stop(cx, place, Status::new(Code::Cancelled, away));
                self.streams.remove(place);
            } else {
                let why = "the deadline passed while the stream was open";
                self.stop(cx, place, Status::new(Code::DeadlineExceeded, why));
            }
        }
    }

    /// Stops a stream: its handler if it is at work, and what was not sent yet.
    fn stop(&mut self, cx: &mut Context<'_>, place: Place, why: Status) {
        let Some(stream) = self.streams.open.get_mut(&place) else { return };
        if stream.state == State::Done {
            return;
        }
        if stream.state == State::Running {
            stream.answer = Some(if cx.events.withdraw(stream.request) {
                Answer::NotExecuted(not_started(&why))
            } else {
                cx.events.push(Event::Cancelled(stream.request));
                Answer::Status(why)
            });
            stream.state = State::Ending;
        }
        stream.outbox.cut();
        self.complete(cx, place);
    }

    /// Sends what a stream has to send, as far as there is credit and room; then its end.
    fn pump(&mut self, cx: &mut Context<'_>, place: Place) {
        let Some(stream) = self.streams.open.get_mut(&place) else { return };
        if let Some(connection) = stream.connection
            && let Some(client) = self.clients.get_mut(connection)
        {
            let (slot, sequence) = (place.1, stream.sequence);
            while stream.owes_credit || stream.outbox.can_transmit() {
                if !client.outgoing.has_room(cx.endpoint, client.handle) {
                    self.streams.waiting.insert((connection, place));
                    break;
                }
                let part = if mem::take(&mut stream.owes_credit) {
                    let Some(inbox) = &mut stream.inbox else { continue };
                    PartRef::Credit(inbox.credit())
                } else {
                    let Some((index, message)) = stream.outbox.transmit() else { break };
                    PartRef::Message { index, message }
                };
                let parts = part.encode(slot, sequence, cx.buffer);
                client.outgoing.send(cx, client.handle, parts, 0);
            }
        }
        let ends = stream.state == State::Ending && stream.outbox.is_transmitted();
        let gone = stream.state == State::Done && stream.outbox.is_received();
        self.streams.note(place);
        if ends {
            self.complete(cx, place);
        } else if gone {
            self.streams.remove(place);
        }
    }

    /// All that a stream says is sent: its slot gets its answer.
    fn complete(&mut self, cx: &mut Context<'_>, place: Place) {
        let Some(stream) = self.streams.open.get_mut(&place) else { return };
        let Some(answer) = stream.answer.take() else { return };
        stream.state = State::Done;
        let (passed, names) = (stream.passed(), stream.names(place));
        let end = StreamEnd {
            taken: stream.inbox.take().map_or(0, |inbox| inbox.taken()),
            sent: stream.outbox.count(),
        };
        let (attachment, sequence, request) = (stream.attachment, stream.sequence, stream.request);
        if stream.outbox.is_received() {
            self.streams.remove(place);
        } else {
            self.streams.note(place);
        }
        if let Some(pending) = self.requests.remove(request.0) {
            self.admission.withdraw(pending.ticket);
            let failed = !matches!(answer, Answer::Reply(..));
            for name in names {
                self.log.stream_ended(cx.now, name, pending.came, passed, failed);
            }
        }
        let desk = &mut self.desk;
        let (now, slot) = (cx.now, place.1);
        let told = desk.finish_as(now, &attachment, slot, sequence, answer, Some(end), cx.buffer);
        if let Some((client, parts)) = told {
            self.send_parts(cx, client, parts);
        }
        self.check_drained(cx);
    }

    fn running(&mut self, key: RequestKey) -> Option<(Place, &mut Stream)> {
        let PendingKind::Stream { place, sequence, .. } = self.requests.get(key.0)?.kind else {
            return None;
        };
        let stream = self.streams.get(place, sequence)?;
        (stream.state == State::Running).then_some((place, stream))
    }

    fn has_room(&self, cx: &mut Context<'_>, client: u64) -> bool {
        let client = self.clients.get(client);
        client.is_some_and(|client| client.outgoing.has_room(cx.endpoint, client.handle))
    }
}

fn not_started(why: &Status) -> NotExecuted {
    let reason = match why.code() {
        Code::DeadlineExceeded => NotExecutedReason::Deadline,
        Code::ResourceExhausted => NotExecutedReason::Overloaded,
        _ => NotExecutedReason::Cancelled,
    };
    NotExecuted::because(reason, String::from(why.message()))
}

impl Stream {
    fn passed(&self) -> Passed {
        let received = self.inbox.as_ref().map_or(0, Inbox::taken);
        Passed { received, sent: self.outbox.count() }
    }

    /// What people may ask for it by.
    fn names(&self, (session, slot): Place) -> impl Iterator<Item = CallName> + use<> {
        let id = CallId { session, slot, sequence: self.sequence };
        [Some(CallName::Id(id)), self.trace].into_iter().flatten()
    }

    /// A part came from `client`.
    fn arrived(
        &mut self,
        client: u64,
        content: Content,
        cx: &mut Context<'_>,
    ) -> Result<(), Broken> {
        let key = StreamKey::Request(self.request);
        match content {
            Content::Message { index, message } => {
                let Some(inbox) = self.inbox.as_mut() else { return self.unexpected() };
                if inbox.arrive(index, message, cx.limits.message + OVERHEAD)? == Arrived::Copy {
                    return Ok(());
                }
            }
            Content::End { count } => {
                let Some(inbox) = self.inbox.as_mut() else { return self.unexpected() };
                inbox.end_at(count)?;
            }
            Content::Credit(credit) => {
                if self.outbox.credit(credit)? && self.state == State::Running {
                    cx.events.push(Event::Writable(key));
                }
                if self.connection != Some(client) {
                    self.connection = Some(client);
                    self.leaves_at = None;
                    self.outbox.rewind();
                    self.owes_credit = self.inbox.is_some();
                }
            }
        }
        if let Some(inbox) = &mut self.inbox
            && self.state == State::Running
            && inbox.has_news()
        {
            cx.events.push(Event::Readable(key));
        }
        Ok(())
    }

    /// The client streams though it said that it would not; unless the stream is over.
    fn unexpected(&self) -> Result<(), Broken> {
        if self.state == State::Done {
            Ok(())
        } else {
            Err(Broken("a stream that was not announced"))
        }
    }

    fn is_overdrawn(&self) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.held() > inbox.window())
    }
}
