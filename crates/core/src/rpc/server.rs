//! The server half: requests in, answers out, every numbered one through the slot table.

mod query;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use bytes::Bytes;

use super::arena::Arena;
use super::assembly::Progress;
use super::context::{Context, Outgoing, close_code};
use super::event::{Event, IncomingRequest, RequestKey};
use super::kept::Kept;
use super::message::{Parts, ReplyPayload, RequestPayload, ToClient, ToServer, session_reference};
use crate::limits::Limits;
use crate::service::{Answer, Call, CallContext, Clock, Encoded, NotExecuted, Peer, RequestKind};
use crate::session::{
    self, Attachment, CallId, Claim, Decision, NotExecutedReason, OpenRequest, Refused,
    SessionSecret, Sessions,
};
use crate::time::Instant;
use crate::transport::endpoint::ConnectionHandle;

pub use query::{Finding, IncomingQuery, QueryKey};

/// The server half of a node.
#[derive(Debug)]
pub(crate) struct Server {
    sessions: Sessions<Kept>,
    clients: Arena<Client>,
    by_handle: BTreeMap<ConnectionHandle, u64>,
    requests: Arena<Pending>,
    draining: bool,
    drained: bool,
}

/// One accepted connection.
#[derive(Debug)]
struct Client {
    handle: ConnectionHandle,
    peer: Arc<Peer>,
    attachment: Option<Attachment>,
    reads: BTreeMap<u64, RequestKey>,
    outgoing: Outgoing,
}

/// A request whose handler is to be started or runs.
#[derive(Debug)]
struct Pending {
    kind: PendingKind,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum PendingKind {
    Numbered { attachment: Attachment, slot: u32, sequence: u64 },
    Read { client: u64, read: u64 },
    Maybe,
}

/// What of a message went wrong so far that the connection is closed.
struct Violation(&'static str);

impl Server {
    pub(crate) fn new(incarnation: u64, limits: &Limits) -> Self {
        Self {
            sessions: Sessions::new(incarnation, limits),
            clients: Arena::default(),
            by_handle: BTreeMap::new(),
            requests: Arena::default(),
            draining: false,
            drained: false,
        }
    }

    pub(crate) fn sessions(&self) -> &Sessions<Kept> {
        &self.sessions
    }

    /// Requests whose handlers have not answered.
    pub(crate) fn executing(&self) -> usize {
        self.requests.len()
    }

    /// A client's handshake is done.
    pub(crate) fn connected(&mut self, cx: &mut Context<'_>, handle: ConnectionHandle) {
        let Some(connection) = cx.endpoint.connection(handle) else { return };
        let peer = Arc::new(Peer {
            address: Some(connection.remote_address()),
            identity: connection.peer_identity().map(|identity| identity.key_digest),
        });
        let client = self.clients.insert(Client {
            handle,
            peer,
            attachment: None,
            reads: BTreeMap::new(),
            outgoing: Outgoing::default(),
        });
        self.by_handle.insert(handle, client);
        if self.draining {
            self.send(cx, client, ToClient::Draining);
        }
    }

    /// A message has come, or will not come.
    pub(crate) fn progress(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        progress: Progress,
    ) {
        let Some(&client) = self.by_handle.get(&handle) else { return };
        let handled = match progress {
            Progress::Whole(bytes) => self.message(cx, client, bytes),
            Progress::TooLarge(start) => self.too_large(cx, client, start),
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
    }

    /// A connection is over: its reads are cancelled, its session is remembered.
    pub(crate) fn lost(&mut self, cx: &mut Context<'_>, handle: ConnectionHandle) {
        let Some(client) = self.by_handle.remove(&handle) else { return };
        let Some(client) = self.clients.remove(client) else { return };
        for key in client.reads.into_values() {
            self.requests.remove(key.0);
            cx.events.push_back(Event::Cancelled(key));
        }
        if let Some(attachment) = client.attachment {
            // When two attempts of one client cross, the one that it uses may be the one that
            // attached first, and the other one that is given up took the session with it.
            if let Some(old) = self.sessions.detach(cx.now, &attachment) {
                let refusal = crate::session::Refusal::Superseded;
                let reference = session_reference(attachment.session());
                self.send(cx, old, ToClient::Refused { reference, refusal });
            }
        }
        self.check_drained(cx);
    }

    /// Whether a request is still to be started: not if its deadline has passed in the meantime, its
    /// caller has gone or its connection's session was taken over before it began.
    pub(crate) fn may_start(&mut self, cx: &mut Context<'_>, key: RequestKey) -> bool {
        let Some(pending) = self.requests.get(key.0) else { return false };
        if pending.deadline.is_none_or(|deadline| deadline > cx.now) {
            return true;
        }
        let why = NotExecuted::because(
            NotExecutedReason::Deadline,
            "its deadline passed in the server's queue",
        );
        self.answer(cx, key, Answer::NotExecuted(why));
        false
    }

    /// A handler is done, or was never started.
    pub(crate) fn answer(&mut self, cx: &mut Context<'_>, key: RequestKey, answer: Answer) {
        let Some(pending) = self.requests.remove(key.0) else { return };
        match pending.kind {
            PendingKind::Numbered { attachment, slot, sequence } => {
                self.answer_numbered(cx, attachment, slot, sequence, answer);
            }
            PendingKind::Read { client, read } => self.answer_read(cx, client, read, answer),
            PendingKind::Maybe => {}
        }
        self.check_drained(cx);
    }

    /// No new sessions and calls from now on.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>) {
        self.draining = true;
        self.sessions.drain();
        for client in self.clients.keys() {
            self.send(cx, client, ToClient::Draining);
        }
        self.check_drained(cx);
    }

    /// Sets how many slots a session may have; those above are asked back.
    pub(crate) fn limit_slots(&mut self, cx: &mut Context<'_>, limit: u32) {
        for (client, change) in self.sessions.limit_slots(limit) {
            self.send(cx, client, ToClient::Slots(change));
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.sessions.next_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.sessions.expire(now);
    }

    fn message(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        bytes: Bytes,
    ) -> Result<(), Violation> {
        let message = ToServer::decode(bytes).map_err(|_| Violation("malformed message"))?;
        match message {
            ToServer::Open { nonce, slots } => self.open(cx, client, nonce, slots)?,
            ToServer::Attach { session, secret } => self.attach(cx, client, session, secret)?,
            ToServer::Request { slot, sequence, payload } => {
                self.request(cx, client, slot, sequence, payload)?;
            }
            ToServer::Fence { slot, sequence } => self.fence(cx, client, slot, sequence)?,
            ToServer::Release(list) => {
                let attachment = self.attachment(client)?;
                for position in list {
                    let released =
                        self.sessions.release(&attachment, position.slot, position.sequence);
                    if !self.accepted(cx, client, &attachment, released)? {
                        break;
                    }
                }
                self.check_drained(cx);
            }
            ToServer::ReturnSlots(list) => {
                let attachment = self.attachment(client)?;
                let returned = self.sessions.return_slots(&attachment, &list);
                if let Some(change) =
                    self.unless_refused(cx, client, &attachment, returned)?.flatten()
                {
                    self.send(cx, client, ToClient::Slots(change));
                }
            }
            ToServer::Query { query, call, secret } => self.query(cx, client, query, call, secret),
            ToServer::Read { read, payload } => self.read(cx, client, read, payload)?,
            ToServer::CancelRead { read } => self.cancel_read(cx, client, read),
            ToServer::Maybe(_) => return Err(Violation("a maybe call came as a message")),
            ToServer::CloseSession => {
                let attachment = self.attachment(client)?;
                // Closing what is gone already is no error.
                let _ = self.sessions.close(cx.now, &attachment);
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
        let Some(state) = self.clients.get(client) else { return Ok(()) };
        let Some(address) = state.peer.address else { return Ok(()) };
        let request = OpenRequest {
            nonce,
            certificate: state.peer.identity,
            address: address.ip(),
            slots_wanted: slots,
            fresh_secret: SessionSecret::new(cx.random.bytes()),
            connection: client,
        };
        match self.sessions.open(&request) {
            Ok((opened, attachment)) => {
                self.one_session(client, |attached| attached == attachment.session())?;
                self.set_attachment(client, attachment);
                self.send(cx, client, ToClient::Opened { nonce, opened });
                self.share_slots(cx);
            }
            Err(refusal) => {
                self.send(cx, client, ToClient::Refused { reference: nonce, refusal });
            }
        }
        Ok(())
    }

    fn attach(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        session: session::SessionId,
        secret: SessionSecret,
    ) -> Result<(), Violation> {
        self.one_session(client, |attached| attached == session)?;
        let claim = self.claim(client, secret);
        match self.sessions.attach(session, &claim, client) {
            Ok((attached, attachment)) => {
                self.set_attachment(client, attachment);
                self.send(cx, client, ToClient::Attached(attached));
            }
            Err(refusal) => {
                let reference = session_reference(session);
                self.send(cx, client, ToClient::Refused { reference, refusal });
            }
        }
        Ok(())
    }

    /// A connection speaks for one session in its life: else a late request could run after its
    /// session was lost to the client.
    fn one_session(
        &self,
        client: u64,
        same: impl FnOnce(session::SessionId) -> bool,
    ) -> Result<(), Violation> {
        let attached = self.clients.get(client).and_then(|client| client.attachment);
        match attached {
            Some(attachment) if !same(attachment.session()) => {
                Err(Violation("a second session on one connection"))
            }
            _ => Ok(()),
        }
    }

    fn request(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        slot: u32,
        sequence: u64,
        payload: RequestPayload,
    ) -> Result<(), Violation> {
        let attachment = self.attachment(client)?;
        let decided = self.sessions.request(&attachment, slot, sequence, payload.digest);
        match self.unless_refused(cx, client, &attachment, decided)? {
            None => {}
            Some(Decision::Answer(answer)) => self.repeat(cx, client, slot, sequence, answer),
            Some(Decision::FalseRetry) => {
                self.send(cx, client, ToClient::FalseRetry { slot, sequence });
            }
            Some(Decision::Execute) => {
                let id = CallId { session: attachment.session(), slot, sequence };
                let kind = PendingKind::Numbered { attachment, slot, sequence };
                self.start(cx, client, kind, Some(id), payload);
            }
        }
        Ok(())
    }

    /// Hands a request to the driver.
    fn start(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        kind: PendingKind,
        id: Option<CallId>,
        payload: RequestPayload,
    ) {
        let Some(state) = self.clients.get_mut(client) else { return };
        let deadline = payload.deadline.map(|left| cx.now + left);
        let (request_kind, read) = match &kind {
            PendingKind::Numbered { .. } => (RequestKind::Numbered, None),
            PendingKind::Read { read, .. } => (RequestKind::Read, Some(*read)),
            PendingKind::Maybe => (RequestKind::Maybe, None),
        };
        let key = RequestKey(self.requests.insert(Pending { kind, deadline }));
        if let Some(read) = read {
            state.reads.insert(read, key);
        }
        let context = CallContext {
            id,
            peer: Arc::clone(&state.peer),
            metadata: payload.metadata,
            deadline,
            clock: Clock::default(),
        };
        let encoded = Encoded { body: payload.body, digest: payload.digest };
        cx.events.push_back(Event::Request(IncomingRequest {
            key,
            method: payload.method,
            kind: request_kind,
            call: Call::new(encoded, context),
        }));
    }

    fn fence(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        slot: u32,
        sequence: u64,
    ) -> Result<(), Violation> {
        let attachment = self.attachment(client)?;
        let fenced = self.sessions.fence(&attachment, slot, sequence);
        if let Some(answer) = self.unless_refused(cx, client, &attachment, fenced)? {
            self.repeat(cx, client, slot, sequence, answer);
        }
        Ok(())
    }

    /// Answers a copy, or a fence, from the slot's memory.
    fn repeat(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        slot: u32,
        sequence: u64,
        answer: session::Answer<Kept>,
    ) {
        let message = match answer {
            session::Answer::Reply(kept) => {
                let parts = ToClient::kept_reply(slot, sequence, &kept, cx.buffer);
                return self.send_parts(cx, client, parts);
            }
            session::Answer::Working => ToClient::Working { slot, sequence },
            session::Answer::NotKept => ToClient::NotKept { slot, sequence },
            session::Answer::Stale => ToClient::Stale { slot, sequence },
            session::Answer::NotExecuted(reason) => {
                ToClient::NotExecuted { slot, sequence, why: NotExecuted::new(reason) }
            }
        };
        self.send(cx, client, message);
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        read: u64,
        payload: RequestPayload,
    ) -> Result<(), Violation> {
        let Some(state) = self.clients.get(client) else { return Ok(()) };
        if state.reads.contains_key(&read) {
            return Err(Violation("a read's id was used twice"));
        }
        let refuse = if self.draining {
            Some(NotExecutedReason::Draining)
        } else if state.reads.len() >= cx.limits.reads as usize {
            Some(NotExecutedReason::Overloaded)
        } else {
            None
        };
        if let Some(reason) = refuse {
            let why = NotExecuted::new(reason);
            self.send(cx, client, ToClient::ReadNotExecuted { read, why });
        } else {
            self.start(cx, client, PendingKind::Read { client, read }, None, payload);
        }
        Ok(())
    }

    fn cancel_read(&mut self, cx: &mut Context<'_>, client: u64, read: u64) {
        let Some(state) = self.clients.get_mut(client) else { return };
        if let Some(key) = state.reads.remove(&read) {
            self.requests.remove(key.0);
            cx.events.push_back(Event::Cancelled(key));
            self.check_drained(cx);
        }
    }

    /// A request that is larger than allowed never runs: its number is fenced.
    fn too_large(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        start: Bytes,
    ) -> Result<(), Violation> {
        let message = ToServer::decode(start).map_err(|_| Violation("malformed message"))?;
        let why = NotExecuted::because(
            NotExecutedReason::TooLarge,
            crate::service::text(format_args!(
                "the request is larger than the {} bytes that the server takes",
                cx.limits.message
            )),
        );
        match message {
            ToServer::Request { slot, sequence, .. } => {
                let attachment = self.attachment(client)?;
                let fenced = self.sessions.fence(&attachment, slot, sequence);
                match self.unless_refused(cx, client, &attachment, fenced)? {
                    Some(session::Answer::NotExecuted(_)) => {
                        self.send(cx, client, ToClient::NotExecuted { slot, sequence, why });
                    }
                    Some(answer) => self.repeat(cx, client, slot, sequence, answer),
                    None => {}
                }
            }
            ToServer::Read { read, .. } => {
                self.send(cx, client, ToClient::ReadNotExecuted { read, why });
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
        let reply = match answer {
            Answer::NotExecuted(why) => {
                let given_up =
                    self.sessions.give_up(cx.now, &attachment, slot, sequence, why.reason);
                if let Some(Some(client)) = given_up {
                    self.send(cx, client, ToClient::NotExecuted { slot, sequence, why });
                }
                return;
            }
            Answer::Reply(encoded, metadata) => {
                ReplyPayload { digest: encoded.digest, status: None, metadata, body: encoded.body }
            }
            Answer::Status(status) => status_payload(status),
        };
        let kept = reply.to_kept(cx.buffer);
        let completion = self.sessions.complete(cx.now, &attachment, slot, sequence, &kept);
        if let Some(client) = completion.and_then(|completion| completion.connection) {
            let parts = ToClient::kept_reply(slot, sequence, &kept, cx.buffer);
            self.send_parts(cx, client, parts);
        }
    }

    fn answer_read(&mut self, cx: &mut Context<'_>, client: u64, read: u64, answer: Answer) {
        let Some(state) = self.clients.get_mut(client) else { return };
        state.reads.remove(&read);
        let message = match answer {
            Answer::NotExecuted(why) => ToClient::ReadNotExecuted { read, why },
            Answer::Reply(encoded, metadata) => ToClient::ReadReply {
                read,
                reply: ReplyPayload {
                    digest: encoded.digest,
                    status: None,
                    metadata,
                    body: encoded.body,
                },
            },
            Answer::Status(status) => ToClient::ReadReply { read, reply: status_payload(status) },
        };
        self.send(cx, client, message);
    }

    /// When nearly all slots are granted, sessions that have more than their share give some back.
    fn share_slots(&mut self, cx: &mut Context<'_>) {
        let all = cx.limits.slots_in_all;
        if self.sessions.slots_held() > all - all / 8 {
            let share = all / (self.sessions.len() as u64).max(1);
            self.limit_slots(cx, u32::try_from(share).unwrap_or(u32::MAX));
        }
    }

    fn check_drained(&mut self, cx: &mut Context<'_>) {
        let done = self.sessions.is_drained() && self.requests.len() == 0;
        if self.draining && !self.drained && done {
            self.drained = true;
            cx.events.push_back(Event::Drained);
        }
    }

    fn claim(&self, client: u64, secret: SessionSecret) -> Claim {
        let certificate = self.clients.get(client).and_then(|client| client.peer.identity);
        Claim { certificate, secret }
    }

    fn attachment(&self, client: u64) -> Result<Attachment, Violation> {
        self.clients
            .get(client)
            .and_then(|client| client.attachment)
            .ok_or(Violation("a call came before a session was opened or attached"))
    }

    fn set_attachment(&mut self, client: u64, attachment: Attachment) {
        if let Some(client) = self.clients.get_mut(client) {
            client.attachment = Some(attachment);
        }
    }

    /// Passes a result on; a refusal is told to the client, a violation closes the connection.
    fn unless_refused<T>(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        attachment: &Attachment,
        result: Result<T, Refused>,
    ) -> Result<Option<T>, Violation> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Refused::Session(refusal)) => {
                let reference = session_reference(attachment.session());
                self.send(cx, client, ToClient::Refused { reference, refusal });
                Ok(None)
            }
            Err(Refused::Violation(violation)) => Err(Violation(violation.as_str())),
        }
    }

    fn accepted(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        attachment: &Attachment,
        result: Result<(), Refused>,
    ) -> Result<bool, Violation> {
        Ok(self.unless_refused(cx, client, attachment, result)?.is_some())
    }

    fn send(&mut self, cx: &mut Context<'_>, client: u64, message: ToClient) {
        let parts = message.encode(cx.buffer);
        self.send_parts(cx, client, parts);
    }

    fn send_parts(&mut self, cx: &mut Context<'_>, client: u64, parts: Parts) {
        if let Some(client) = self.clients.get_mut(client) {
            client.outgoing.send(cx.endpoint, client.handle, parts, 0);
        }
    }
}

fn status_payload(status: crate::service::Status) -> ReplyPayload {
    let metadata = status.metadata().clone();
    ReplyPayload { digest: 0, status: Some(status), metadata, body: Bytes::new() }
}
