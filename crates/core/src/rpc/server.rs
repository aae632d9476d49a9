//! The server half: requests in, answers out, every numbered one through the slot table.

mod drain;
mod group;
mod overload;
mod places;
mod query;
mod stream;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use stubborn_rope::ahead::read_ahead;

use super::admission::{Admission, Ended, Ticket};
use super::arena::Arena;
use super::assembly::Progress;
use super::borrowed::Borrowed;
use super::context::{Context, Outgoing, close_code};
use super::desk::{Caller, Desk, Verdict, Violation, larger_than};
use super::event::{Event, IncomingRequest, RequestKey};
use super::kept::{Kept, ShortReply};
use super::message::{
    Parts, PlainRequest, ReplyHead, ReplyPayload, RequestPayload, Staleness, ToClient, ToServer,
    as_of, session_reference,
};
use super::trace::{CallLog, CallName, CallStep, StepKind, in_order};
use super::watch::Watch;
use crate::limits::Limits;
use crate::service::{
    Answer, Call, CallContext, Clock, Encoded, Metadata, MethodId, NotExecuted, Peer, RequestKind,
    Shape,
};
use crate::session::{
    Attachment, CallId, Claim, NotExecutedReason, SessionId, SessionSecret, Sessions, Succession,
};
use crate::time::{Duration, Instant, earliest};
use crate::transport::endpoint::{ByHandle, ConnectionHandle};

use self::drain::Drain;
use self::group::Group;
use self::stream::{Place, Streams};
pub use places::{PlaceEnd, PlaceRequest};
pub use query::{Finding, IncomingQuery, QueryKey};

/// The server half of a node.
#[derive(Debug)]
pub(crate) struct Server {
    desk: Desk,
    /// At a replica, which keeps no sessions of its own.
    group: Option<Group>,
    clients: Arena<Client>,
    by_handle: ByHandle<u64>,
    requests: Arena<Pending>,
    admission: Admission,
    /// How long before it was handed over a message may have come.
    away: Duration,
    /// How many of the requests are places of calls that came by another way.
    places: usize,
    /// The calls that wait for a handler, for fences.
    waiting: BTreeMap<CallId, RequestKey>,
    streams: Streams,
    /// Since it is asked to leave.
    drain: Option<Drain>,
    log: CallLog,
}

/// One accepted connection.
#[derive(Debug)]
struct Client {
    handle: ConnectionHandle,
    peer: Arc<Peer>,
    attachment: Option<Attachment>,
    reads: BTreeMap<u64, RequestKey>,
    /// Said, of a server that drains, that nothing of its session is under way.
    left: bool,
    outgoing: Outgoing,
}

/// A request whose handler is to be started or runs.
#[derive(Debug)]
struct Pending {
    kind: PendingKind,
    ticket: Ticket,
    method: MethodId,
    deadline: Option<Instant>,
    came: Instant,
}

#[derive(Clone, Copy, Debug)]
enum PendingKind {
    Numbered {
        attachment: Attachment,
        slot: u32,
        sequence: u64,
    },
    Read {
        client: u64,
        read: u64,
        trace: Option<[u64; 2]>,
    },
    Maybe,
    Stream {
        place: Place,
        sequence: u64,
        shape: Shape,
    },
    /// A place for a call that came by another way.
    Place,
}

/// How a read is to be answered.
#[derive(Debug)]
struct How {
    stale: Option<Staleness>,
    watch: Option<Box<Watch>>,
}

impl How {
    /// From the state of now.
    const NOW: Self = Self { stale: None, watch: None };

    fn watch(watch: Watch) -> Self {
        Self { stale: watch.stale, watch: Some(Box::new(watch)) }
    }
}

impl Server {
    pub(crate) fn new(incarnation: u64, limits: &Limits) -> Self {
        Self {
            desk: Desk {
                sessions: Sessions::new(incarnation, limits),
                borrowed: Some(Borrowed::default()),
            },
            group: None,
            clients: Arena::default(),
            by_handle: ByHandle::default(),
            requests: Arena::default(),
            admission: Admission::new(limits),
            away: Duration::ZERO,
            places: 0,
            waiting: BTreeMap::new(),
            streams: Streams::default(),
            drain: None,
            log: CallLog::new(limits.call_steps),
        }
    }

    pub(crate) fn sessions(&self) -> &Sessions<Kept> {
        &self.desk.sessions
    }

    /// How many streams there are, and the bytes that they hold.
    pub(crate) fn streams(&self) -> (usize, u64) {
        (self.streams.len(), self.streams.held())
    }

    /// What happened lately to a call, and whether that is kept.
    pub(crate) fn call_steps(&self, name: CallName) -> (bool, Vec<CallStep>) {
        let mut steps = self.log.steps(name);
        let id = |session, slot: &u32, sequence: &u64| {
            name == CallName::Id(CallId { session, slot: *slot, sequence: *sequence })
        };
        for (_, pending) in self.requests.iter().filter(|_| self.log.is_on()) {
            let (is_it, kind) = match &pending.kind {
                PendingKind::Numbered { attachment, slot, sequence } => {
                    (id(attachment.session(), slot, sequence), StepKind::Executing)
                }
                PendingKind::Stream { place, sequence, .. } => {
                    let of_trace = self.streams.trace(*place) == Some(name);
                    let passed = self.streams.passed(*place);
                    (of_trace || id(place.0, &place.1, sequence), StepKind::Streaming(passed))
                }
                PendingKind::Read { trace, .. } => {
                    (trace.map(CallName::Trace) == Some(name), StepKind::Executing)
                }
                PendingKind::Maybe | PendingKind::Place => continue,
            };
            if is_it {
                let at = pending.came;
                steps.extend([StepKind::Came, kind].map(|kind| CallStep { at, kind }));
            }
        }
        in_order(&mut steps);
        (self.log.is_on(), steps)
    }

    /// For a driver that has calls of its own to tell of.
    pub(crate) fn call_log(&mut self) -> &mut CallLog {
        &mut self.log
    }

    /// Requests whose handlers have not answered, but for those that came by another way.
    pub(crate) fn executing(&self) -> usize {
        self.requests.len() - self.places
    }

    /// A client's handshake is done.
    pub(crate) fn connected(&mut self, cx: &mut Context<'_>, handle: ConnectionHandle) {
        let Some(connection) = cx.endpoint.connection(handle) else { return };
        let identity = connection.peer_identity();
        let peer = Arc::new(Peer {
            address: Some(connection.remote_address()),
            identity: identity.map(|identity| identity.key_digest),
            owner: identity.map(|identity| identity.owner),
            names: identity.map(|identity| identity.names.clone()).unwrap_or_default(),
            subject: None,
        });
        let client = self.clients.insert(Client {
            handle,
            peer,
            attachment: None,
            reads: BTreeMap::new(),
            left: false,
            outgoing: Outgoing::default(),
        });
        self.by_handle.insert(handle, client);
        if self.drain.is_some() {
            self.ask_to_leave(cx, client);
        }
    }

    /// Begins to read what a message on this connection will need.
    pub(crate) fn read_ahead(&self, handle: ConnectionHandle) {
        if let Some(&client) = self.by_handle.get(&handle) {
            self.clients.read_ahead(client);
        }
    }

    /// Begins to read what lies behind that, its session.
    pub(crate) fn read_further_ahead(&self, handle: ConnectionHandle) {
        let client = self.by_handle.get(&handle).and_then(|client| self.clients.get(*client));
        if let Some(Client { attachment: Some(attachment), peer, .. }) = client {
            read_ahead(&**peer);
            self.desk.sessions.read_ahead(attachment);
        }
    }

    /// A message has come, or will not come. It is taken out of `progress`.
    pub(crate) fn progress(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        progress: &mut Progress,
    ) {
        let Some(&client) = self.by_handle.get(&handle) else { return };
        let handled = match progress {
            Progress::Whole(bytes) => self.message(cx, client, bytes),
            Progress::TooLarge(start) => self.too_large(cx, client, core::mem::take(start)),
            Progress::Reset => Ok(()),
        };
        if let Err(Violation(reason)) = handled {
            cx.close(handle, close_code::PROTOCOL, reason);
        }
    }

    /// An unreliable message came: a `maybe` call. Anything else is ignored, as if it was lost.
    pub(crate) fn unreliable(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        data: Bytes,
    ) {
        let Some(&client) = self.by_handle.get(&handle) else { return };
        if let Ok(ToServer::Maybe(payload)) = ToServer::decode(data)
            && self.requests.len() < cx.limits.maybe_calls
        {
            self.start(cx, client, PendingKind::Maybe, None, payload);
        }
    }

    /// A connection has room again.
    pub(crate) fn writable(&mut self, cx: &mut Context<'_>, handle: ConnectionHandle) {
        if let Some(client) = self.by_handle.get(&handle).and_then(|c| self.clients.get_mut(*c)) {
            client.outgoing.flush(cx.endpoint, handle, |_, _| {});
        }
        if let Some(&client) = self.by_handle.get(&handle) {
            self.pump_waiting(cx, client);
        }
    }

    /// A connection is over: its reads are cancelled, its session is remembered.
    pub(crate) fn lost(&mut self, cx: &mut Context<'_>, handle: ConnectionHandle) {
        let Some(key) = self.by_handle.remove(&handle) else { return };
        let Some(client) = self.clients.remove(key) else { return };
        for key in client.reads.into_values() {
            self.cancel(cx, key);
        }
        if let Some(group) = &mut self.group {
            group.left(key);
        }
        if let Some(attachment) = client.attachment {
            if self.desk.refusal(&attachment).is_none() {
                self.part_streams(cx, attachment.session(), None);
            }
            // When two attempts of one client cross, the one that it uses may be the one that
            // attached first, and the other one that is given up took the session with it.
            if let Some(old) = self.desk.sessions.detach(cx.now, &attachment) {
                let refusal = crate::session::Refusal::Superseded;
                let reference = session_reference(attachment.session());
                self.send(cx, old, ToClient::Refused { reference, refusal });
            }
        }
        self.start_waiting(cx);
        self.check_drained(cx);
    }

    /// Whether a request is still to be started: not if its deadline has passed in the meantime, its
    /// caller has gone or its connection's session was taken over before it began.
    pub(crate) fn may_start(&mut self, cx: &mut Context<'_>, key: RequestKey) -> bool {
        let Some(pending) = self.requests.get(key.0) else { return false };
        if pending.deadline.is_none_or(|deadline| deadline > cx.now) {
            return true;
        }
        self.overdue(cx, key);
        false
    }

    /// A handler is done, or was never started.
    #[inline]
    pub(crate) fn answer(&mut self, cx: &mut Context<'_>, key: RequestKey, answer: Answer) {
        self.finish(cx, key, answer);
        self.start_waiting(cx);
    }

    fn finish(&mut self, cx: &mut Context<'_>, key: RequestKey, answer: Answer) {
        let Some(pending) = self.requests.get(key.0) else { return };
        let Pending { kind, ticket, method, deadline, came } = pending;
        let (came, ended) =
            (*came, Ended { ticket: *ticket, method: *method, deadline: *deadline });
        // Fields are taken from where they lie: a copy of all of them is slow to take apart.
        match kind {
            PendingKind::Numbered { attachment, slot, sequence } => {
                let (attachment, slot, sequence) = (*attachment, *slot, *sequence);
                if ended.ticket == Ticket::WAITING {
                    self.forget_waiting(attachment.session(), slot, sequence);
                }
                let call = CallId { session: attachment.session(), slot, sequence };
                match answer {
                    Answer::Reply(..) => self.log.done(cx.now, call, came),
                    _ => self.log.failed(cx.now, call, came),
                }
                self.forget(cx.now, key, ended);
                self.answer_numbered(cx, attachment, slot, sequence, answer);
            }
            // Its request stays until its messages are sent.
            PendingKind::Stream { place, sequence, .. } => {
                let (place, sequence) = (*place, *sequence);
                return self.answer_stream(cx, place, sequence, answer);
            }
            PendingKind::Read { client, read, trace } => {
                let (client, read, trace) = (*client, *read, *trace);
                note_read(&mut self.log, cx.now, trace, came, !matches!(answer, Answer::Reply(..)));
                self.forget(cx.now, key, ended);
                self.answer_read(cx, client, read, answer);
            }
            PendingKind::Place => {
                self.forget(cx.now, key, ended);
                self.places -= 1;
                if let Answer::NotExecuted(why) = answer {
                    cx.events.push(Event::Refused(key, why));
                }
            }
            PendingKind::Maybe => self.forget(cx.now, key, ended),
        }
        self.check_drained(cx);
    }

    /// A request has left.
    #[inline]
    fn forget(&mut self, now: Instant, key: RequestKey, ended: Ended) {
        self.admission.end(now, ended);
        self.requests.discard(key.0);
    }

    #[cold]
    fn forget_waiting(&mut self, session: SessionId, slot: u32, sequence: u64) {
        self.waiting.remove(&CallId { session, slot, sequence });
    }

    /// Sets how many slots a session may have; those above are asked back.
    pub(crate) fn limit_slots(&mut self, cx: &mut Context<'_>, limit: u32) {
        for (client, change) in self.desk.sessions.limit_slots(limit) {
            self.send(cx, client, ToClient::Slots(change));
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let drain = self.drain.as_ref().and_then(Drain::next_timeout);
        let streams = earliest(self.streams.next_timeout(), drain);
        let sessions = earliest(self.desk.sessions.next_timeout(), self.desk.next_timeout());
        let own = earliest(sessions, streams);
        earliest(own, self.admission.next_timeout())
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.desk.sessions.expire(cx.now);
        self.desk.handle_timeout(cx.now);
        self.streams_due(cx);
        self.relieve(cx);
        self.drain_due(cx);
    }

    fn message(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        bytes: &mut Bytes,
    ) -> Result<(), Violation> {
        if self.group.is_some() {
            return self.group_message(cx, client, core::mem::take(bytes));
        }
        if let Some(request) = PlainRequest::read(bytes) {
            let PlainRequest { slot, sequence, method, deadline, digest, body } = request;
            let mut bytes = core::mem::take(bytes);
            bytes.advance(body);
            let (body, metadata) = (bytes.into(), Metadata::new());
            let payload = RequestPayload { method, deadline, digest, metadata, body };
            return self.request(cx, client, slot, sequence, payload);
        }
        let message = ToServer::decode(core::mem::take(bytes));
        let message = message.map_err(|_| Violation("malformed message"))?;
        match message {
            ToServer::Open { nonce, slots } => self.open(cx, client, nonce, slots)?,
            ToServer::Attach { session, secret, succession } => {
                self.attach(cx, client, session, secret, succession)?;
            }
            ToServer::Request { slot, sequence, payload } => {
                self.request(cx, client, slot, sequence, payload)?;
            }
            ToServer::Fence { slot, sequence } => self.fence(cx, client, slot, sequence)?,
            ToServer::Release(list) => {
                let attachment = self.attachment(client)?;
                let verdict = self.desk.release(&attachment, &list)?;
                for at in &list {
                    self.release_stream(attachment.session(), at.slot, at.sequence);
                }
                self.say(cx, client, verdict);
                self.check_drained(cx);
            }
            ToServer::ReturnSlots(list) => {
                let attachment = self.attachment(client)?;
                let verdict = self.desk.return_slots(&attachment, &list)?;
                self.say(cx, client, verdict);
            }
            ToServer::Stream { slot, sequence, shape, window, payload } => {
                self.open_stream(cx, client, (slot, sequence), (shape, window), payload)?;
            }
            ToServer::Part(part) => self.stream_part(cx, client, part)?,
            ToServer::CancelStream { slot, sequence, overdue } => {
                self.cancel_stream(cx, client, (slot, sequence), overdue)?;
            }
            ToServer::Query { query, call, secret } => self.query(cx, client, query, call, secret),
            ToServer::Read { read, payload } => self.read(cx, client, read, How::NOW, payload)?,
            // Its state is never old.
            ToServer::StaleRead { read, payload, .. } => {
                self.read(cx, client, read, How::NOW, payload)?;
            }
            ToServer::Watch { read, watch, payload } => {
                self.read(cx, client, read, How::watch(watch), payload)?;
            }
            ToServer::CancelRead { read } => self.cancel_read(cx, client, read),
            ToServer::Maybe(_) => return Err(Violation("a maybe call came as a message")),
            ToServer::Left => self.left(cx, client),
            ToServer::CloseSession => {
                let attachment = self.attachment(client)?;
                if self.desk.refusal(&attachment).is_none() {
                    self.end_streams(cx, attachment.session());
                }
                self.desk.close(cx.now, &attachment);
                self.check_drained(cx);
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        nonce: [u8; 16],
        slots: u32,
    ) -> Result<(), Violation> {
        let Some(caller) = self.caller(client) else { return Ok(()) };
        let attached = self.attachment(client).ok();
        let secret = SessionSecret::new(cx.random.bytes());
        let (verdict, attachment) =
            self.desk.open(&caller, attached.as_ref(), nonce, slots, secret)?;
        self.set_attachment(client, attachment);
        self.say(cx, client, verdict);
        if attachment.is_some() {
            for (client, change) in self.desk.share_slots(cx.limits) {
                self.send(cx, client, ToClient::Slots(change));
            }
        }
        Ok(())
    }

    fn attach(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        session: SessionId,
        secret: SessionSecret,
        succession: Option<Succession>,
    ) -> Result<(), Violation> {
        let Some(caller) = self.caller(client) else { return Ok(()) };
        let attached = self.attachment(client).ok();
        let (verdict, attachment) =
            self.desk.attach(&caller, attached.as_ref(), session, secret, succession.as_ref())?;
        if attachment.is_some() {
            self.part_streams(cx, session, Some(client));
        }
        self.set_attachment(client, attachment);
        self.say(cx, client, verdict);
        Ok(())
    }

    #[inline]
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        slot: u32,
        sequence: u64,
        payload: RequestPayload,
    ) -> Result<(), Violation> {
        let attachment = self.attachment(client)?;
        let verdict = if self.drain.is_some() && self.may_come_late(client) {
            self.desk.late_request(&attachment, slot, sequence, payload.digest)?
        } else {
            self.desk.request(&attachment, slot, sequence, payload.digest)?
        };
        match verdict {
            Verdict::Execute => {
                let id = CallId { session: attachment.session(), slot, sequence };
                self.release_stream(id.session, slot, sequence);
                let kind = PendingKind::Numbered { attachment, slot, sequence };
                self.start(cx, client, kind, Some(id), payload);
            }
            verdict => {
                let call = CallId { session: attachment.session(), slot, sequence };
                if let Verdict::Say(ToClient::Working { .. }) = verdict {
                    self.log.executes_again(cx.now, call);
                } else {
                    self.log.push(cx.now, call, StepKind::CameAgain);
                }
                self.say(cx, client, verdict);
            }
        }
        Ok(())
    }

    /// Hands a request to the driver.
    #[inline]
    fn start(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        kind: PendingKind,
        id: Option<CallId>,
        payload: RequestPayload,
    ) -> Option<RequestKey> {
        self.start_as(cx, client, kind, id, How::NOW, payload)
    }

    fn start_as(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        kind: PendingKind,
        id: Option<CallId>,
        how: How,
        payload: RequestPayload,
    ) -> Option<RequestKey> {
        let state = self.clients.get_mut(client)?;
        let deadline = payload.deadline.map(|left| cx.now + left);
        let (request_kind, read) = match &kind {
            PendingKind::Numbered { .. } => (RequestKind::Numbered, None),
            PendingKind::Read { read, .. } => (RequestKind::Read, Some(*read)),
            PendingKind::Maybe => (RequestKind::Maybe, None),
            PendingKind::Stream { shape, .. } => (RequestKind::Stream(*shape), None),
            PendingKind::Place => unreachable!("a place is asked for, not sent"),
        };
        // A group of replicas has a bound of its own, in front of its log.
        let counted = self.group.is_none() && !matches!(kind, PendingKind::Stream { .. });
        let ticket = if counted { self.admission.begin(cx.now) } else { Ticket::UNCOUNTED };
        let method = payload.method;
        let came = cx.now;
        let key =
            RequestKey(self.requests.insert(Pending { kind, ticket, method, deadline, came }));
        if let Some(read) = read {
            state.reads.insert(read, key);
        }
        let peer = Arc::clone(&state.peer);
        // It is large to move: it is made where it is wanted.
        let request = || IncomingRequest {
            key,
            method,
            kind: request_kind,
            stale: how.stale.map(Box::new),
            watch: how.watch,
            call: Call::new(
                Encoded { body: payload.body, digest: payload.digest },
                CallContext {
                    id,
                    peer,
                    metadata: payload.metadata,
                    deadline,
                    clock: Clock::default(),
                },
            ),
        };
        if ticket == Ticket::WAITING {
            self.wait(cx, Box::new(request()));
        } else {
            cx.events.push_request(request());
        }
        Some(key)
    }

    fn fence(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        slot: u32,
        sequence: u64,
    ) -> Result<(), Violation> {
        let attachment = self.attachment(client)?;
        let call = CallId { session: attachment.session(), slot, sequence };
        self.log.push(cx.now, call, StepKind::FenceCame);
        if self.fence_waiting(cx, &attachment, call) {
            return Ok(());
        }
        let verdict = self.desk.fence(&attachment, slot, sequence)?;
        self.say(cx, client, verdict);
        Ok(())
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        read: u64,
        how: How,
        payload: RequestPayload,
    ) -> Result<(), Violation> {
        let Some(state) = self.clients.get(client) else { return Ok(()) };
        if state.reads.contains_key(&read) {
            return Err(Violation("a read's id was used twice"));
        }
        let refuse = if self.drain.is_some() {
            Some(NotExecutedReason::Draining)
        } else if state.reads.len() >= cx.limits.reads as usize {
            Some(NotExecutedReason::Overloaded)
        } else {
            None
        };
        let trace = match CallName::trace_of(&payload.metadata) {
            Some(CallName::Trace(trace)) => Some(trace),
            _ => None,
        };
        if let Some(reason) = refuse {
            note_read(&mut self.log, cx.now, trace, cx.now, true);
            let why = NotExecuted::new(reason);
            self.send(cx, client, ToClient::ReadNotExecuted { read, why });
        } else {
            let kind = PendingKind::Read { client, read, trace };
            self.start_as(cx, client, kind, None, how, payload);
        }
        Ok(())
    }

    fn cancel_read(&mut self, cx: &mut Context<'_>, client: u64, read: u64) {
        let Some(state) = self.clients.get_mut(client) else { return };
        if let Some(key) = state.reads.remove(&read) {
            self.cancel(cx, key);
            self.start_waiting(cx);
            self.check_drained(cx);
        }
    }

    /// Nobody waits for a read any more.
    fn cancel(&mut self, cx: &mut Context<'_>, key: RequestKey) {
        if let Some(pending) = self.requests.remove(key.0) {
            if let PendingKind::Read { trace: Some(trace), .. } = pending.kind {
                self.log.push(pending.came, CallName::Trace(trace), StepKind::Came);
            }
            self.admission.withdraw(pending.ticket);
            cx.events.push(Event::Cancelled(key));
        }
    }

    /// A request that is larger than allowed never runs: its number is fenced.
    fn too_large(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        start: Bytes,
    ) -> Result<(), Violation> {
        let message =
            ToServer::decode(start.clone()).map_err(|_| Violation("malformed message"))?;
        let limit = cx.limits.message;
        match message {
            ToServer::Request { .. } | ToServer::Stream { .. } if self.group.is_some() => {
                self.group_too_large(cx, client, start)?;
            }
            ToServer::Request { slot, sequence, .. } => {
                let attachment = self.attachment(client)?;
                let verdict = self.desk.too_large(&attachment, slot, sequence, limit)?;
                self.say(cx, client, verdict);
            }
            ToServer::Stream { slot, sequence, .. } => {
                let attachment = self.attachment(client)?;
                let verdict = self.desk.too_large(&attachment, slot, sequence, limit)?;
                self.say(cx, client, verdict);
            }
            ToServer::Part(part) => self.stream_too_large(cx, client, &part)?,
            ToServer::Read { read, .. }
            | ToServer::StaleRead { read, .. }
            | ToServer::Watch { read, .. } => {
                self.send(cx, client, ToClient::ReadNotExecuted { read, why: larger_than(limit) });
            }
            _ => return Err(Violation("a control message is too large")),
        }
        Ok(())
    }

    fn answer_numbered(
        &mut self,
        cx: &mut Context<'_>,
        attachment: Attachment,
        slot: u32,
        sequence: u64,
        answer: Answer,
    ) {
        if self.group.is_none()
            && let Answer::Reply(reply, metadata) = &answer
            && metadata.is_empty()
            && let Some(reply) = ShortReply::of(reply)
        {
            return self.answer_shortly(cx, attachment, slot, sequence, reply);
        }
        let told = self.desk.finish(cx.now, &attachment, slot, sequence, answer, cx.buffer);
        if let Some((client, parts)) = told {
            self.send_parts(cx, client, parts);
        }
    }

    /// What nearly all answers are, by a way of their own: as [`Desk::finish`].
    fn answer_shortly(
        &mut self,
        cx: &mut Context<'_>,
        attachment: Attachment,
        slot: u32,
        sequence: u64,
        reply: ShortReply<'_>,
    ) {
        let sessions = &mut self.desk.sessions;
        let completion = sessions.complete(cx.now, &attachment, slot, sequence, reply);
        let client = completion.and_then(|completion| self.clients.get_mut(completion.connection?));
        if let Some(client) = client {
            let head = ReplyHead { slot, sequence, digest: reply.digest };
            client.outgoing.send_short(cx, client.handle, (&head, reply.body), 0);
        }
    }

    fn answer_read(&mut self, cx: &mut Context<'_>, client: u64, read: u64, answer: Answer) {
        let Some(state) = self.clients.get_mut(client) else { return };
        state.reads.remove(&read);
        let message = match ReplyPayload::of(answer) {
            Ok(reply) => ToClient::ReadReply { read, reply },
            Err(why) => ToClient::ReadNotExecuted { read, why },
        };
        self.send(cx, client, message);
    }

    fn claim(&self, client: u64, secret: SessionSecret) -> Claim {
        let certificate = self.clients.get(client).and_then(|client| client.peer.owner());
        Claim { certificate, secret }
    }

    fn attachment(&self, client: u64) -> Result<Attachment, Violation> {
        self.clients
            .get(client)
            .and_then(|client| client.attachment)
            .ok_or(Violation("a call came before a session was opened or attached"))
    }

    /// The connection, as sessions know it.
    fn caller(&self, client: u64) -> Option<Caller<u64>> {
        let peer = &self.clients.get(client)?.peer;
        Some(Caller { connection: client, identity: peer.owner(), address: peer.address?.ip() })
    }

    fn set_attachment(&mut self, client: u64, attachment: Option<Attachment>) {
        if let (Some(client), Some(_)) = (self.clients.get_mut(client), attachment) {
            client.attachment = attachment;
        }
    }

    fn say(&mut self, cx: &mut Context<'_>, client: u64, verdict: Verdict) {
        if let Some(parts) = verdict.encode(cx.buffer) {
            self.send_parts(cx, client, parts);
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, client: u64, message: ToClient) {
        let parts = message.encode(cx.buffer);
        self.send_parts(cx, client, parts);
    }

    fn send_parts(&mut self, cx: &mut Context<'_>, client: u64, parts: Parts) {
        let parts = match &self.group {
            Some(group) => as_of(group.applied(), parts),
            None => parts,
        };
        if let Some(client) = self.clients.get_mut(client) {
            client.outgoing.send(cx, client.handle, parts, 0);
        }
    }
}

/// The end of a read, for those who ask what became of its trace.
fn note_read(
    log: &mut CallLog,
    now: Instant,
    trace: Option<[u64; 2]>,
    came: Instant,
    failed: bool,
) {
    let Some(trace) = trace.map(CallName::Trace) else { return };
    if failed {
        log.failed(now, trace, came);
    } else {
        log.done_as(now, trace, came);
    }
}
