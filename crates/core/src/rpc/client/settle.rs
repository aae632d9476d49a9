//! What the server says, and what it makes of the calls that wait.

use bytes::{Buf, Bytes};

use super::Client;
use super::call::{State, Work};
use super::link::Occupant;
use crate::rpc::assembly::Progress;
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::CallKey;
use crate::rpc::message::{PlainReply, ReplyPayload, ToClient, session_reference, take_as_of};
use crate::service::{CallState, Code, Encoded, IncomingReply, NotExecuted, Outcome, Status};
use crate::session::{Answer, CallId, Effect, NotExecutedReason, QueryAnswer, Refusal, SlotChange};
use crate::transport::endpoint::ConnectionHandle;

/// Changes of slots kept until the opening is answered, at most. A server sends few.
const EARLY_CHANGES: usize = 16;

impl Client {
    /// A message has come, or will not come. It is taken out of `progress`.
    pub(crate) fn progress(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        progress: &mut Progress,
    ) {
        let Some(&key) = self.by_handle.get(&handle) else { return };
        let message = match progress {
            Progress::Whole(bytes) => {
                self.note_place(key, bytes);
                match PlainReply::read(bytes) {
                    Some(reply) if self.replied(cx, key, &reply, bytes) => return,
                    _ => ToClient::decode(core::mem::take(bytes)),
                }
            }
            Progress::TooLarge(start) => {
                self.note_place(key, start);
                return self.too_large(cx, key, handle, core::mem::take(start));
            }
            Progress::Reset => return,
        };
        match message {
            Ok(message) => self.message(cx, key, handle, message),
            Err(_) => cx.close(handle, close_code::PROTOCOL, "malformed message"),
        }
    }

    /// Takes note of the place in the group's log that stands in front of a replica's message, and
    /// takes it off.
    #[inline]
    fn note_place(&mut self, key: u64, message: &mut Bytes) {
        if let Some(index) = take_as_of(message) {
            self.saw(key, index);
        }
    }

    fn message(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        message: ToClient,
    ) {
        match message {
            // What was asked on another connection is not answered on this one.
            ToClient::Outcome { .. }
            | ToClient::ReadReply { .. }
            | ToClient::ReadNotExecuted { .. }
            | ToClient::ReadTooStale { .. }
            | ToClient::Watched { .. }
                if !self.carries(key, handle) => {}
            ToClient::Opened { nonce, opened } => self.opened(cx, key, handle, nonce, &opened),
            ToClient::Attached(attached) => self.attached(cx, key, handle, &attached),
            ToClient::Refused { reference, refusal } => {
                self.refused(cx, key, handle, reference, refusal);
            }
            ToClient::Reply { slot, sequence, reply } if reply.stream.is_some() => {
                self.stream_reply(cx, key, (slot, sequence), reply);
            }
            ToClient::Part(part) => self.stream_part(cx, key, handle, part),
            ToClient::NoStream { slot, sequence } => self.no_stream(cx, key, slot, sequence),
            ToClient::Reply { slot, sequence, reply } => {
                self.answer(cx, key, slot, sequence, Answer::Reply(reply), None);
            }
            ToClient::Working { slot, sequence } => {
                self.answer(cx, key, slot, sequence, Answer::Working, None);
            }
            ToClient::NotExecuted { slot, sequence, why } => {
                let answer = Answer::NotExecuted(why.reason);
                self.answer(cx, key, slot, sequence, answer, Some(why));
            }
            ToClient::NotKept { slot, sequence } => {
                self.answer(cx, key, slot, sequence, Answer::NotKept, None);
            }
            ToClient::Stale { slot, sequence } => {
                self.answer(cx, key, slot, sequence, Answer::Stale, None);
            }
            ToClient::FalseRetry { slot, sequence } => self.false_retry(cx, key, slot, sequence),
            ToClient::Slots(change) => self.slots_changed(key, handle, change),
            ToClient::Outcome { query, answer } => self.queried(cx, key, query, answer),
            ToClient::ReadReply { read, reply } => self.read_reply(cx, key, read, reply),
            ToClient::ReadNotExecuted { read, why } => self.read_refused(cx, key, read, why),
            ToClient::ReadTooStale { read } => self.read_too_stale(key, read),
            ToClient::Watched { read, position, messages } => {
                let messages = messages.into_bytes();
                if let Err(why) = self.followed(cx, key, (read, position), messages) {
                    cx.close(handle, close_code::PROTOCOL, why);
                }
            }
            ToClient::Busy { slot, sequence, after } => {
                self.pushed_back(cx, key, slot, sequence, after);
            }
            ToClient::SessionBusy { after, .. } => self.session_busy(cx, key, handle, after),
            ToClient::Members { version, addresses } => {
                self.members_changed(cx, key, version, addresses);
            }
            ToClient::Draining => self.drains(cx, key, handle),
        }
    }

    /// Whether reads and queries go by this connection of a link.
    fn carries(&self, key: u64, handle: ConnectionHandle) -> bool {
        let Some(link) = self.links.get(key) else { return false };
        link.live.iter().chain(&link.standby).any(|carrier| carrier.handle == handle)
    }

    /// Slots are granted or asked back: on the connection that carries the session, or that is
    /// about to. A late message of another one may be of a session that is gone.
    fn slots_changed(&mut self, key: u64, handle: ConnectionHandle, change: SlotChange) {
        let Some(link) = self.links.get_mut(key) else { return };
        let on_live = link.live.as_ref().is_some_and(|live| live.handle == handle);
        let on_attempt = link.attempt.as_ref().is_some_and(|attempt| attempt.handle == handle);
        match link.session.as_mut() {
            Some(session) if on_live || on_attempt => session.slots.slots_changed(&change),
            None if on_attempt && link.early_changes.len() < EARLY_CHANGES => {
                link.early_changes.push(change);
            }
            _ => {}
        }
        self.after_answer(key);
    }

    /// What nearly all answers are: a plain reply to a call that is waited for, and no more. Its body is
    /// taken out of `bytes`. False if it is none, and nothing was done.
    fn replied(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        reply: &PlainReply,
        bytes: &mut Bytes,
    ) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        let waits = |occupant: &mut Occupant| {
            if occupant.questions.is_empty() { occupant.call } else { None }
        };
        // With a journal, what an answer means is written down first: `answer` does that.
        let journal = link.session.as_ref().is_some_and(|session| session.slots.keeps_journal());
        if journal {
            return false;
        }
        let Some(call) = link.occupant(reply.slot).and_then(waits) else { return false };
        let Some(session) = link.session.as_mut() else { return false };
        // From here as in `answer`.
        let effect = session.slots.answer(reply.slot, reply.sequence, &Answer::Reply(()));
        if !matches!(effect, Effect::Settled { .. }) {
            return true;
        }
        if let Some(occupant) = session.occupants.get_mut(reply.slot as usize) {
            occupant.call = None;
        }
        if link.release_at.is_none() {
            self.arm_release(cx.now, key);
        }
        let mut body = core::mem::take(bytes);
        body.advance(reply.body);
        let reply = Encoded { body: body.into(), digest: reply.digest };
        self.finish_here(cx, call, Ok(IncomingReply { reply, ..IncomingReply::default() }));
        self.after_answer(key);
        true
    }

    /// The server's word about a number of the session.
    pub(super) fn answer(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        slot: u32,
        sequence: u64,
        answer: Answer<ReplyPayload>,
        why: Option<NotExecuted>,
    ) {
        let Some(session) = self.links.get_mut(key).and_then(|link| link.session.as_mut()) else {
            return;
        };
        let id = CallId { session: session.slots.id(), slot, sequence };
        match session.slots.answer(slot, sequence, &answer) {
            Effect::Ignored => return,
            Effect::Working => self.working(cx, key, id),
            Effect::Lost => self.settled(cx, key, id, CallState::Lost),
            Effect::Settled { .. } => self.settled(cx, key, id, state_of(answer, why)),
        }
        self.after_answer(key);
    }

    /// A call in flight has ended: whoever waits for it hears so.
    fn settled(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        id: CallId,
        state: CallState<IncomingReply>,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        let occupant = link.take_occupant(id.slot);
        self.settle_occupant(cx, key, id, occupant, state);
    }

    /// The same, for who waited in the call's slot.
    pub(super) fn settle_occupant(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        id: CallId,
        occupant: Occupant,
        state: CallState<IncomingReply>,
    ) {
        self.journal_outcome(cx, key, id, &state);
        self.arm_release(cx.now, key);
        for question in occupant.questions {
            self.finish_question(cx, question, Ok(state.clone()));
        }
        match occupant.call {
            Some(call) => self.resolve(cx, key, call, state),
            None => self.remember(key, id, state),
        }
    }

    fn resolve(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        call_key: CallKey,
        state: CallState<IncomingReply>,
    ) {
        if let CallState::NotExecuted(why) = &state
            && self.move_call(cx.now, key, call_key, why.reason)
        {
            return;
        }
        let peer = self.links.get(key).map(|link| link.address);
        let result = outcome_of(state);
        self.note_end(cx.now, key, result.as_ref().map(drop));
        if let Err(outcome) = &result
            && self.try_again(cx, call_key, key, outcome)
        {
            return;
        }
        let Some(call) = self.calls.get(call_key.0) else { return };
        let result = result.map_err(|outcome| call.error(outcome).at(peer));
        let result = match (result, call.deadline) {
            (Err(error), Some(deadline)) if deadline <= cx.now => {
                let waited = call.waited(cx.now);
                Err(error.because(crate::service::text(format_args!("after {waited:?}"))))
            }
            (result, _) => result,
        };
        self.finish(cx, call_key, result);
    }

    pub(super) fn remember(&mut self, link: u64, id: CallId, state: CallState<IncomingReply>) {
        if let Some(link) = self.links.get(link) {
            self.channels[link.channel.0 as usize].memory.remember(id, state);
        }
    }

    /// The call is executing: questions are answered, and a caller whose deadline has passed leaves.
    fn working(&mut self, cx: &mut Context<'_>, key: u64, id: CallId) {
        let Some(occupant) = self.links.get_mut(key).and_then(|link| link.occupant(id.slot)) else {
            return;
        };
        let (questions, call) = (core::mem::take(&mut occupant.questions), occupant.call);
        for question in questions {
            self.finish_question(cx, question, Ok(CallState::Executing));
        }
        let Some(call) = call else { return };
        let overdue = !self.is_stream(call)
            && self
                .calls
                .get(call.0)
                .is_some_and(|call| matches!(call.state, State::Numbered { fencing: true, .. }));
        if overdue {
            self.end_unsettled(cx, call, "it is still executing".into());
        }
    }

    fn false_retry(&mut self, cx: &mut Context<'_>, key: u64, slot: u32, sequence: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(session) = link.session.as_mut() else { return };
        if !session.slots.false_retry(slot, sequence) {
            return;
        }
        let address = link.address;
        let call = link.occupant(slot).and_then(|occupant| occupant.call.take());
        if let Some(call_key) = call
            && let Some(call) = self.calls.get(call_key.0)
        {
            let error = call.not_executed(
                NotExecutedReason::FalseRetry,
                "its number was used for another request: two clients share one session",
            );
            self.finish(cx, call_key, Err(error.at(Some(address))));
        }
        self.after_answer(key);
    }

    fn queried(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        query: u64,
        answer: QueryAnswer<ReplyPayload>,
    ) {
        let Some(live) = self.links.get_mut(key).and_then(|link| link.live.as_mut()) else {
            return;
        };
        let Some(call) = live.queries.remove(&query) else { return };
        if matches!(answer, QueryAnswer::UnknownSession) && self.may_be_elsewhere(key, call) {
            let why = "this server never had the session: ask the one that has";
            let error = self.calls.get(call.0).and_then(|question| {
                Some(question.error(Outcome::Pending(question.id()?)).because(why))
            });
            if let Some(error) = error {
                self.finish_question(cx, call, Err(error));
            }
            return self.after_answer(key);
        }
        let state = match answer {
            QueryAnswer::NotArrived => CallState::NotArrived,
            QueryAnswer::Executing => CallState::Executing,
            QueryAnswer::Done(reply) => state_of(Answer::Reply(reply), None),
            QueryAnswer::NotKept => CallState::ReplyNotKept,
            QueryAnswer::NotExecuted(reason) => CallState::NotExecuted(NotExecuted::new(reason)),
            QueryAnswer::AlreadySettled => CallState::AlreadySettled,
            QueryAnswer::UnknownSession => CallState::Lost,
        };
        self.finish_question(cx, call, Ok(state));
        self.after_answer(key);
    }

    /// Whether the session that is asked about may be known to another server of the channel, so
    /// that the word of this one does not make its calls lost.
    fn may_be_elsewhere(&self, key: u64, question: CallKey) -> bool {
        let Some(link) = self.links.get(key) else { return false };
        let Some(asked) = self.calls.get(question.0).and_then(|call| call.id()) else {
            return false;
        };
        let asked = asked.session.incarnation;
        let here = link.session.as_ref().map(|session| session.slots.id().incarnation);
        // A replica of another group never has it.
        let may = |link: &u64| {
            let link = self.links.get(*link);
            link.is_some_and(|link| link.group.is_none_or(|group| group == asked))
        };
        let links = &self.channels[link.channel.0 as usize].links;
        links.len() > 1 && Some(asked) != here && links.iter().any(may)
    }

    /// The server does not let us ask about a session.
    pub(super) fn question_refused(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        reference: [u8; 16],
        refusal: Refusal,
    ) {
        let Some(live) = self.links.get_mut(key).and_then(|link| link.live.as_mut()) else {
            return;
        };
        let asked = live.queries.clone();
        for (query, call_key) in asked {
            let Some(call) = self.calls.get(call_key.0) else { continue };
            let Work::Question { id, .. } = &call.work else { continue };
            if session_reference(id.session) != reference {
                continue;
            }
            let error = call.error(Outcome::Pending(*id)).because(crate::service::text(
                format_args!("the server does not answer for this session: {refusal}"),
            ));
            if let Some(live) = self.links.get_mut(key).and_then(|link| link.live.as_mut()) {
                live.queries.remove(&query);
            }
            self.finish_question(cx, call_key, Err(error));
        }
        self.after_answer(key);
    }

    fn read_reply(&mut self, cx: &mut Context<'_>, key: u64, read: u64, reply: ReplyPayload) {
        let state = state_of(Answer::Reply(reply), None);
        self.end_read(cx, key, read, outcome_of(state));
    }

    fn read_refused(&mut self, cx: &mut Context<'_>, key: u64, read: u64, why: NotExecuted) {
        self.end_read(cx, key, read, Err(Outcome::NotExecuted(why)));
    }

    fn end_read(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        read: u64,
        result: Result<IncomingReply, Outcome>,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        let address = link.address;
        let Some(call_key) = link.take_read(read) else { return };
        link.share.reads += 1;
        self.note_end(cx.now, key, result.as_ref().map(drop));
        self.after_answer(key);
        if let Err(outcome) = &result
            && (self.follow_elsewhere(key, call_key, outcome)
                || self.move_read(cx.now, key, call_key, outcome)
                || self.copy_failed(cx, call_key, outcome)
                || self.try_again(cx, call_key, key, outcome))
        {
            return;
        }
        if let Some(call) = self.calls.get(call_key.0) {
            let result = result.map_err(|outcome| call.error(outcome).at(Some(address)));
            self.finish(cx, call_key, result);
        }
    }

    /// A reply that is larger than this side takes: it was executed, that much is known.
    fn too_large(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        start: bytes::Bytes,
    ) {
        let limit = cx.limits.message;
        let status = || {
            let said = format_args!(
                "executed, but its reply is larger than the {limit} bytes that this side takes: \
                 raise limits.message"
            );
            Status::new(Code::ResourceExhausted, crate::service::text(said))
        };
        match ToClient::decode(start) {
            Ok(
                ToClient::ReadReply { .. } | ToClient::Watched { .. } | ToClient::Outcome { .. },
            ) if !self.carries(key, handle) => {}
            Ok(ToClient::Reply { slot, sequence, mut reply }) => {
                reply.status = Some(status());
                self.answer(cx, key, slot, sequence, Answer::Reply(reply), None);
            }
            Ok(ToClient::Part(part)) => self.stream_too_large(cx, key, &part),
            Ok(ToClient::ReadReply { read, .. } | ToClient::Watched { read, .. }) => {
                self.end_read(cx, key, read, Err(Outcome::Executed(status())));
            }
            Ok(ToClient::Outcome { query, answer: QueryAnswer::Done(mut reply) }) => {
                reply.status = Some(status());
                self.queried(cx, key, query, QueryAnswer::Done(reply));
            }
            _ => cx.close(handle, close_code::PROTOCOL, "a control message is too large"),
        }
    }

    /// Notes that something may have left room for what waits: see [`Self::after_answers`].
    pub(super) fn after_answer(&mut self, key: u64) {
        if !self.answered.contains(&key) {
            self.answered.push(key);
        }
    }

    /// To be called after the messages of a batch, after timers, and after calls were given up: where
    /// slots were freed, or the circuit breaker lets more pass, the next calls are sent.
    /// Once for all of them, as it looks at the whole link.
    pub(crate) fn after_answers(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.answered.pop() {
            let Some(channel) = self.links.get(key).map(|link| link.channel) else { continue };
            self.send_held(cx, key);
            self.pump(cx, channel);
            self.after_sending(cx, key);
        }
    }

    /// Ends a call that has a number and whose outcome is not known, leaving a fence behind.
    pub(super) fn end_unsettled(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        why: alloc::borrow::Cow<'static, str>,
    ) {
        let Some(call) = self.calls.get(key.0) else { return };
        let link = match call.state {
            State::Numbered { link, .. } => Some(link),
            _ => None,
        };
        let peer = link.and_then(|link| Some(self.links.get(link)?.address));
        let id = call.id();
        if let Some(link) = link {
            self.note_failure(cx.now, link, false);
        }
        let outcome = self.leave(cx, key);
        let Some(call) = self.calls.get(key.0) else { return };
        let error = match outcome {
            Some(outcome) => call.error(outcome).because(why),
            None => call.not_executed(
                NotExecutedReason::Deadline,
                crate::service::text(format_args!("part of it was never sent: {why}")),
            ),
        };
        self.finish(cx, key, Err(error.at(peer).with_id(id)));
    }
}

fn incoming(reply: ReplyPayload) -> IncomingReply {
    IncomingReply {
        reply: Encoded { body: reply.body, digest: reply.digest },
        metadata: reply.metadata,
        stream: reply.stream,
    }
}

fn state_of(answer: Answer<ReplyPayload>, why: Option<NotExecuted>) -> CallState<IncomingReply> {
    match answer {
        Answer::Reply(ReplyPayload { status: Some(status), .. }) => CallState::Executed(status),
        Answer::Reply(reply) => CallState::Replied(incoming(reply)),
        Answer::NotKept => CallState::ReplyNotKept,
        Answer::NotExecuted(reason) => {
            CallState::NotExecuted(why.unwrap_or(NotExecuted::new(reason)))
        }
        Answer::Working => CallState::Executing,
        Answer::Stale => CallState::Lost,
    }
}

pub(super) fn outcome_of(state: CallState<IncomingReply>) -> Result<IncomingReply, Outcome> {
    Err(match state {
        CallState::Replied(reply) => return Ok(reply),
        CallState::Executed(status) => Outcome::Executed(status),
        CallState::ReplyNotKept => Outcome::Executed(Status::new(
            Code::DataLoss,
            "executed; its reply was too large to be kept when the connection broke",
        )),
        CallState::NotExecuted(why) => Outcome::NotExecuted(why),
        CallState::Executing
        | CallState::NotArrived
        | CallState::AlreadySettled
        | CallState::Lost => Outcome::Lost,
    })
}
