//! Giving waiting calls a server, a slot and a number, and sending them.

use alloc::vec::Vec;

use bytes::Bytes;

use super::call::{Earlier, Sending, State, Work};
use super::link::{Link, Live};
use super::stream::{NO_STREAMS, NO_STREAMS_WITH_JOURNAL};
use super::{Client, close_code};
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelKey, Event};
use crate::rpc::message::{ToServer, join};
use crate::service::{CALL_ID, Encoded, IncomingReply, Metadata, MethodId, Shape};
use crate::session::{Abandoned, Asked, CallId, NotExecutedReason, Sent, SessionSecret};
use crate::time::{Duration, Instant};

/// How long an idle slot keeps its reply at the server before it is released.
const RELEASE_AFTER: Duration = Duration::from_millis(200);

/// What is said of calls that name themselves at a server that keeps calls in a database, and at a replica
/// whose program is older than ids: they would have to be kept where its sessions are.
const NO_IDS: &str =
    "ids of one's own (stubborn-call-id) are kept by single servers and groups of replicas only";

/// Entries of one RELEASE at most.
const RELEASES: usize = 1_024;

impl Client {
    /// Puts a call in its queue and sends what can be sent.
    pub(super) fn enqueue(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        call.state = State::Waiting;
        let channel = call.channel;
        if matches!(call.work, Work::Numbered(_)) && self.place_at_once(cx, key, channel) {
            return;
        }
        let Some(call) = self.calls.get(key.0) else { return };
        self.channels[channel.0 as usize].waiting.push_back(key, &call.work);
        self.pump(cx, channel);
        self.break_circuit(cx, key);
    }

    /// Sends a call past the queue, if nobody waits there and there is a server and a slot, as there
    /// mostly is.
    fn place_at_once(&mut self, cx: &mut Context<'_>, key: CallKey, channel: ChannelKey) -> bool {
        let state = &self.channels[channel.0 as usize];
        if !state.waiting.is_empty() || state.balance.is_some() {
            return false;
        }
        let Some(link) = self.ready_link(channel) else { return false };
        if self.follow_at(link, key) {
            return false;
        }
        let session = self.links.get_mut(link).and_then(|link| link.session.as_mut());
        let Some(id) = session.and_then(|session| session.slots.reserve()) else { return false };
        self.occupy(cx, link, key, id);
        self.after_one_more(cx, link);
        true
    }

    /// As [`after_sending`](Self::after_sending), after a call was sent past the queue: beside others
    /// that are unsettled it changes nothing, except that somebody waits again.
    fn after_one_more(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get(key) else { return };
        let others = link.session.as_ref().is_some_and(|session| session.slots.in_flight() > 1);
        match &link.live {
            Some(live) if others && link.check_at.is_some() => {
                if let Some(connection) = cx.endpoint.connection_mut(live.handle) {
                    connection.probe(cx.now);
                }
            }
            _ => self.after_sending(cx, key),
        }
    }

    /// The same at the queue's front, for calls that were placed before.
    pub(super) fn enqueue_again(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key.0)
            && matches!(call.work, Work::Read(_))
        {
            call.earlier = Earlier::MayHaveRun;
        }
        if self.adopt_copy(key) {
            return;
        }
        let Some(call) = self.calls.get_mut(key.0) else { return };
        call.state = State::Waiting;
        self.channels[call.channel.0 as usize].waiting.push_front(key, &call.work);
    }

    /// Sends what waits, as far as there is a ready server and a free slot.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, channel: ChannelKey) {
        if self.channels[channel.0 as usize].waiting.is_empty() {
            return;
        }
        let Some(link) = self.ready_link(channel) else {
            self.fail_draining(cx, channel);
            self.watch_awaited(cx, channel);
            return self.seek_server(cx, channel);
        };
        if self.channels[channel.0 as usize].balance.is_some() {
            return self.pump_balanced(cx, channel);
        }
        self.send_others(cx, channel, link);
        while let Some(key) = self.next_numbered(cx.now, channel) {
            if self.follow_at(link, key) {
                self.channels[channel.0 as usize].waiting.pop_numbered(key);
                self.send_follow(cx, channel, link, key);
                continue;
            }
            let reserved =
                self.links.get_mut(link).and_then(|l| l.session.as_mut()?.slots.reserve());
            let Some(id) = reserved else { break };
            self.channels[channel.0 as usize].waiting.pop_numbered(key);
            self.place(cx, link, key, id);
        }
        self.after_sending(cx, link);
    }

    /// The next call that takes a slot; it stays where it waits. What matters most, in order, until the oldest has spent half
    /// of its time here: then more calls come than slots get free, the oldest would reach their server too
    /// late, and the newest goes first.
    #[inline]
    pub(super) fn next_numbered(&self, now: Instant, channel: ChannelKey) -> Option<CallKey> {
        let (oldest, newest) = self.channels[channel.0 as usize].waiting.next_numbered()?;
        Some(newest.filter(|_| self.is_half_spent(now, oldest)).unwrap_or(oldest))
    }

    fn is_half_spent(&self, now: Instant, call: CallKey) -> bool {
        let Some(call) = self.calls.get(call.0) else { return false };
        call.deadline.is_some_and(|deadline| now.since(call.began) > deadline.since(now))
    }

    /// Has servers watched that waiting calls wait for, though nothing is in flight there.
    pub(super) fn watch_awaited(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        for link in self.channels[key.0 as usize].links.clone() {
            let found = self.links.get(link).filter(|link| link.live.is_some());
            if found.is_some_and(|link| self.is_awaited(link)) {
                self.after_sending(cx, link);
            }
        }
    }

    /// The link for new calls: the current one if it is ready, else the first that is.
    fn ready_link(&self, key: ChannelKey) -> Option<u64> {
        let channel = &self.channels[key.0 as usize];
        let usable = |link: &u64| {
            let found = self.links.get(*link).filter(|link| link.is_ready() && !link.is_draining());
            found.is_some().then_some(*link)
        };
        let trusted = |link: &u64| {
            usable(link).filter(|link| self.links.get(*link).is_some_and(|link| !link.suspect))
        };
        let current = channel.links.get(channel.current);
        current
            .and_then(trusted)
            .or_else(|| channel.links.iter().find_map(trusted))
            // A single server keeps its calls, silent or not: nobody else can take them.
            .or_else(|| current.filter(|_| channel.links.len() == 1).and_then(usable))
    }

    /// Sends what takes no slot: a question to the server that has the session if it is one of ours,
    /// everything else to the ready one.
    fn send_others(&mut self, cx: &mut Context<'_>, channel: ChannelKey, ready: u64) {
        let others = self.channels[channel.0 as usize].waiting.take_others();
        let mut wanted = Vec::new();
        for key in others {
            if self.follows(key) {
                self.send_follow(cx, channel, ready, key);
                continue;
            }
            if self.send_stale(cx, channel, ready, key) {
                continue;
            }
            let owner = self.owner_of_question(key).unwrap_or(ready);
            if owner == ready || self.links.get(owner).is_some_and(Link::is_ready) {
                self.send_unnumbered(cx, owner, key);
            } else {
                if let Some(call) = self.calls.get(key.0) {
                    self.channels[channel.0 as usize].waiting.push_back(key, &call.work);
                }
                wanted.push(owner);
            }
        }
        for owner in wanted {
            let idle = self.links.get(owner).is_some_and(|link| {
                link.live.is_none() && link.attempt.is_none() && link.retry_at.is_none()
            });
            if idle {
                self.start_attempt(cx, owner);
            }
        }
    }

    /// The link whose session a waiting question is about.
    pub(super) fn owner_of_question(&self, key: CallKey) -> Option<u64> {
        let call = self.calls.get(key.0)?;
        match &call.work {
            Work::Question { id, .. } => self.link_of_session(call.channel, *id),
            _ => None,
        }
    }

    /// The questions that wait for one link because it has their session.
    pub(super) fn questions_for(&self, link: u64) -> Vec<CallKey> {
        let found = self.links.get(link);
        let Some((channel, session)) =
            found.and_then(|link| Some((link.channel, link.session.as_ref()?.slots.id())))
        else {
            return Vec::new();
        };
        let asked = self.channels[channel.0 as usize].waiting.questions(session);
        asked.filter(|key| self.owner_of_question(*key) == Some(link)).collect()
    }

    /// Gives a call, or a reservation, the number `id`.
    pub(super) fn place(&mut self, cx: &mut Context<'_>, link: u64, key: CallKey, id: CallId) {
        if matches!(self.calls.get(key.0).map(|call| &call.work), Some(Work::Reservation)) {
            self.remove_placed(key);
            cx.events.push(Event::Reserved(key, Ok(id)));
            return;
        }
        self.occupy(cx, link, key, id);
    }

    /// Sends a call under a number that it owns.
    #[inline(always)]
    pub(super) fn occupy(&mut self, cx: &mut Context<'_>, link: u64, key: CallKey, id: CallId) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        call.state = State::Numbered { link, id, sending: None, fencing: false };
        let (mut at_group, mut knows_ids) = (false, false);
        if let Some(link) = self.links.get_mut(link) {
            link.share.attempts += 1;
            (at_group, knows_ids) = (link.group.is_some(), link.ids);
            if let Some(occupant) = link.occupant(id.slot) {
                occupant.call = Some(key);
            }
        }
        if at_group && let Some(why) = self.not_for_group(key, knows_ids) {
            return self.refuse_placed(cx, key, why);
        }
        if self.is_stream(key) && self.has_journal(link) {
            return self.refuse_placed(cx, key, NO_STREAMS_WITH_JOURNAL);
        }
        if self.may_send(cx, link, key, id) {
            self.send_numbered(cx, link, key);
        }
    }

    /// Why a group does not run a call with a number.
    fn not_for_group(&self, key: CallKey, knows_ids: bool) -> Option<&'static str> {
        if self.is_stream(key) {
            return Some(NO_STREAMS);
        }
        let Work::Numbered(request) = &self.calls.get(key.0)?.work else { return None };
        (!knows_ids && has_id(&request.metadata)).then_some(NO_IDS)
    }

    /// Ends a call that was given a number in the session of a server that does not run it.
    fn refuse_placed(&mut self, cx: &mut Context<'_>, key: CallKey, why: &'static str) {
        self.leave(cx, key);
        let Some(call) = self.calls.get(key.0) else { return };
        let error = call.not_executed(NotExecutedReason::UnknownMethod, why);
        self.finish(cx, key, Err(error));
    }

    /// Sends, or sends again, the request of a call that has a number.
    pub(super) fn send_numbered(&mut self, cx: &mut Context<'_>, link_key: u64, key: CallKey) {
        let window = if self.is_stream(key) { self.stream_window(key) } else { 0 };
        let Some(call) = self.calls.get_mut(key.0) else { return };
        let State::Numbered { id, sending, .. } = &mut call.state else { return };
        let id = *id;
        *sending = None;
        let shape = call.request().map_or(Shape::Unary, |request| request.method.shape());
        let Some(payload) = call.payload_ref(cx.now) else { return };
        let Some(link) = self.links.get_mut(link_key).filter(|link| link.is_ready()) else {
            return;
        };
        if !link.session.as_ref().is_some_and(|session| session.slots.may_send(id)) {
            return;
        }
        // A group that is being upgraded: a replica that knows ids will get it.
        if link.group.is_some() && !link.ids && has_id(payload.metadata) {
            return;
        }
        let Some(live) = link.live.as_mut() else { return };
        let (slot, sequence) = (id.slot, id.sequence);
        let message = match (shape, payload.short_request(slot, sequence)) {
            (Shape::Unary, Some((head, body))) => {
                live.outgoing.send_short(cx, live.handle, (&head, body), key.0)
            }
            (Shape::Unary, None) => {
                let request = payload.encode_request(slot, sequence, cx.buffer);
                live.outgoing.send(cx, live.handle, request, key.0)
            }
            (shape, _) => {
                let request = payload.encode_stream(id, shape, window, cx.buffer);
                live.outgoing.send(cx, live.handle, request, key.0)
            }
        };
        if let Some(message) = message {
            let connection = live.handle;
            self.handed_over(key, Sending { connection, message });
        }
    }

    /// A request has been handed to its connection.
    #[inline(always)]
    pub(super) fn handed_over(&mut self, key: CallKey, sent: Sending) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        let State::Numbered { link, id, sending, .. } = &mut call.state else { return };
        *sending = Some(sent);
        let (link, id) = (*link, *id);
        if let Some(session) = self.links.get_mut(link).and_then(|link| link.session.as_mut()) {
            session.slots.sent(id, Sent::Part);
        }
    }

    pub(super) fn send_unnumbered(&mut self, cx: &mut Context<'_>, link_key: u64, key: CallKey) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        let payload = call.payload(cx.now);
        let Some(link) = self.links.get_mut(link_key) else { return };
        let number = link.next_number();
        let Some(live) = link.live.as_mut() else { return };
        let message = match (&call.work, payload) {
            (Work::Read(_), Some(payload)) => {
                live.reads.insert(number, key);
                link.share.attempts += 1;
                call.state = State::Reading { link: link_key, read: number };
                ToServer::Read { read: number, payload }
            }
            (Work::Question { id, ticket }, _) => {
                let own = link.session.as_ref().filter(|s| s.slots.id() == id.session);
                let secret = match (ticket, own) {
                    (Some(ticket), _) => ticket.secret.clone(),
                    (None, Some(session)) => session.ticket.secret.clone(),
                    (None, None) => SessionSecret::NONE,
                };
                live.queries.insert(number, key);
                call.state = State::Asking { link: link_key, query: number };
                ToServer::Query { query: number, call: *id, secret }
            }
            _ => unreachable!("what takes a slot is placed elsewhere"),
        };
        let message = message.encode(cx.buffer);
        live.outgoing.send(cx, live.handle, message, key.0);
    }

    /// Sends a `maybe` call if there is a connection; it resolves at once either way.
    pub(super) fn send_maybe(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        let (channel, payload) = (call.channel, call.payload(cx.now));
        let live = self
            .ready_link(channel)
            .and_then(|link| self.links.get(link))
            .and_then(|link| link.live.as_ref().map(|live| live.handle));
        let connection = live.and_then(|handle| cx.endpoint.connection_mut(handle));
        let result = match (connection, payload) {
            (Some(connection), Some(payload)) => {
                let datagram = join(ToServer::Maybe(payload).encode(cx.buffer));
                connection
                    .send_unreliable(datagram)
                    .map_err(|error| crate::service::text(format_args!("it was not sent: {error}")))
            }
            _ => Err("it was not sent: no server is connected".into()),
        };
        let result = match (result, self.calls.get(key.0)) {
            (Err(why), Some(call)) => Err(call.not_executed(NotExecutedReason::NeverSent, why)),
            // The reply that stubs expect: empty, with the digest of nothing.
            (Ok(_), Some(call)) => {
                let method = call.request().map_or(MethodId(0), |request| request.method.id());
                let reply = Encoded::from_body(method, Bytes::new());
                Ok(IncomingReply { reply, ..IncomingReply::default() })
            }
            (_, None) => return,
        };
        self.finish(cx, key, result);
        self.seek_server(cx, channel);
    }

    /// Sends a call under the number that was reserved for it.
    pub(super) fn use_reserved(&mut self, cx: &mut Context<'_>, key: CallKey, id: CallId) {
        let Some(call) = self.calls.get(key.0) else { return };
        let channel = call.channel;
        if self.recall_journalled(cx, key, id) {
            return;
        }
        let Some(call) = self.calls.get(key.0) else { return };
        let link = self.link_of_session(channel, id).filter(|link| {
            let session = self.links.get(*link).and_then(|link| link.session.as_ref());
            session.is_some_and(|session| session.slots.progress(id).is_some())
        });
        let Some(link) = link else {
            let error = call.not_executed(
                NotExecutedReason::NeverSent,
                "the session in which its number was reserved is gone: reserve another one",
            );
            return self.finish(cx, key, Err(error.with_id(Some(id))));
        };
        let draining = self.links.get(link).filter(|link| link.is_draining() && link.has_left());
        let session = draining.and_then(|link| link.session.as_ref());
        if session.is_some_and(|session| session.slots.is_unused(id)) {
            // Its server was told that nothing more comes.
            let why = "the server that its number is of drains: reserve another one";
            let error = call.not_executed(NotExecutedReason::Draining, why);
            self.fence_in_background(cx, link, id);
            return self.finish(cx, key, Err(error.with_id(Some(id))));
        }
        self.occupy(cx, link, key, id);
        self.after_sending(cx, link);
        self.seek_server(cx, channel);
    }

    /// Lets a question wait for the answer to a call that is in flight in its own session.
    pub(super) fn listen(&mut self, cx: &mut Context<'_>, key: CallKey, id: CallId) -> bool {
        let Some(channel) = self.calls.get(key.0).map(|call| call.channel) else { return true };
        let Some(link_key) = self.link_of_session(channel, id) else { return false };
        let Some(link) = self.links.get_mut(link_key) else { return false };
        let Some(session) = link.session.as_mut() else { return false };
        match session.slots.progress(id) {
            // A session that was resumed can still fence a number that it has not used.
            None if session.slots.ask(id) != Asked::UnderWay => return false,
            None => {}
            Some((_, true)) => {
                self.finish_question(cx, key, Ok(crate::service::CallState::Executing));
                return true;
            }
            Some((_, false)) => {
                session.slots.ask(id);
            }
        }
        if let Some(occupant) = link.occupant(id.slot) {
            occupant.questions.push(key);
        }
        if let Some(call) = self.calls.get_mut(key.0) {
            call.state = State::Listening;
        }
        self.after_sending(cx, link_key);
        self.seek_server(cx, channel);
        true
    }

    /// A number that the user knows and nobody waits for is fenced.
    pub(super) fn fence_in_background(&mut self, cx: &mut Context<'_>, link: u64, id: CallId) {
        self.journal_fence(cx, link, id);
        if let Some(session) = self.links.get_mut(link).and_then(|link| link.session.as_mut()) {
            // The user knows the number, so that no other call may take it.
            session.slots.sent(id, Sent::Part);
            session.slots.abandon(id);
        }
        self.after_sending(cx, link);
    }

    /// The caller of `key` leaves: what can be taken back is, the rest settles in the background.
    /// Returns what is to be said of it; `None` for what was never sent.
    pub(super) fn leave(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
    ) -> Option<crate::service::Outcome> {
        use crate::service::Outcome;
        let call = self.calls.get(key.0)?;
        let exposed = call.request().is_some_and(|request| request.reserved);
        match call.state {
            State::Waiting => (matches!(call.work, Work::Read(_)) && call.may_have_run())
                .then_some(Outcome::Unanswered),
            State::Numbered { link, id, sending, .. } => {
                self.leave_numbered(cx, key, link, id, sending, exposed)
            }
            State::Reading { link, read } => {
                self.after_answer(link);
                self.cancel_read(cx, link, read);
                Some(Outcome::Unanswered)
            }
            State::Asking { link, query } => {
                self.after_answer(link);
                if let Some(live) = self.links.get_mut(link).and_then(|link| link.live.as_mut()) {
                    live.queries.remove(&query);
                }
                None
            }
            State::Paused => Some(Outcome::Unanswered),
            State::Listening => None,
        }
    }

    fn leave_numbered(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        link_key: u64,
        id: CallId,
        sending: Option<Sending>,
        exposed: bool,
    ) -> Option<crate::service::Outcome> {
        self.after_answer(link_key);
        self.note_sent(cx, link_key, id, sending);
        if let Some(call) = self.calls.get(key.0).filter(|call| call.may_have_run()) {
            let status = self.retries.last_status(key);
            self.channels[call.channel.0 as usize].memory.doubt(id, status);
        }
        let link = self.links.get_mut(link_key)?;
        if let Some(live) = link.live.as_mut() {
            live.outgoing.cancel(key.0);
        }
        if let Some(occupant) = link.occupant(id.slot) {
            occupant.call = None;
        }
        let session = link.session.as_mut()?;
        if exposed {
            session.slots.sent(id, Sent::Part);
        }
        let abandoned = session.slots.abandon(id);
        if abandoned == Abandoned::Pending && self.is_stream(key) {
            self.want_cancel(link_key, id, false);
        }
        if abandoned == Abandoned::NeverSent
            && let Some(Sending { connection, message }) = sending
            && let Some(connection) = cx.endpoint.connection_mut(connection)
        {
            connection.reset(message, close_code::DONE);
        }
        self.after_sending(cx, link_key);
        (abandoned != Abandoned::NeverSent).then_some(crate::service::Outcome::Pending(id))
    }

    pub(super) fn cancel_read(&mut self, cx: &mut Context<'_>, link: u64, read: u64) {
        let Some(link) = self.links.get_mut(link) else { return };
        for carrier in link.live.iter_mut().chain(&mut link.standby) {
            if let Some(key) = carrier.reads.remove(&read) {
                carrier.outgoing.cancel(key.0);
                let cancel = ToServer::CancelRead { read }.encode(cx.buffer);
                carrier.outgoing.send(cx, carrier.handle, cancel, u64::MAX);
            }
        }
    }

    /// Tells the session how much of a request its connection has sent.
    pub(super) fn note_sent(
        &mut self,
        cx: &Context<'_>,
        link: u64,
        id: CallId,
        sending: Option<Sending>,
    ) {
        let Some(Sending { connection, message }) = sending else { return };
        // A connection that is forgotten may have sent all of it.
        let whole = cx
            .endpoint
            .connection(connection)
            .is_none_or(|connection| connection.ever_fully_sent(message));
        if whole
            && let Some(session) = self.links.get_mut(link).and_then(|link| link.session.as_mut())
        {
            session.slots.sent(id, Sent::Whole);
        }
    }

    /// Sends what the session has to say, and arms what watches over unsettled calls. To be called
    /// after every change of a link's session or queue.
    pub(super) fn after_sending(&mut self, cx: &mut Context<'_>, key: u64) {
        self.send_control(cx, key);
        self.send_cancels(cx, key);
        self.leave_drained(cx, key);
        let awaited = self.links.get(key).is_some_and(|link| self.is_awaited(link));
        let Some(link) = self.links.get_mut(key) else { return };
        let unsettled = link.has_unsettled();
        if let Some(live) = &link.live
            && let Some(connection) = cx.endpoint.connection_mut(live.handle)
        {
            connection.keep_alive(cx.now, unsettled || link.group.is_some());
            connection.await_answer(cx.now, unsettled || awaited);
            if unsettled {
                connection.probe(cx.now);
            }
        }
        if unsettled || awaited {
            let every = link.check_every();
            link.check_at.get_or_insert(cx.now + every);
        } else {
            link.check_at = None;
        }
        if !unsettled && link.retired {
            self.dismiss_if_done(cx, key);
        }
        self.set_link_timer(key);
    }

    fn send_control(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let (Some(live), Some(session)) = (link.live.as_mut(), link.session.as_mut()) else {
            return;
        };
        while let Some(fence) = session.slots.next_fence() {
            let fence = ToServer::Fence { slot: fence.slot, sequence: fence.sequence };
            let fence = fence.encode(cx.buffer);
            live.outgoing.send(cx, live.handle, fence, u64::MAX);
        }
        let returns = session.slots.take_returns();
        if !returns.is_empty() {
            let returns = ToServer::ReturnSlots(returns).encode(cx.buffer);
            live.outgoing.send(cx, live.handle, returns, u64::MAX);
        }
    }

    /// Arms the release of what was settled.
    pub(super) fn arm_release(&mut self, now: Instant, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.release_at.is_none() {
            link.release_at = Some(now + RELEASE_AFTER);
            self.set_link_timer(key);
        }
    }

    /// Releases replies of slots that have been idle.
    pub(super) fn release(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let (Some(live), Some(session)) = (link.live.as_mut(), link.session.as_mut()) else {
            return;
        };
        let releases = session.slots.take_releases(RELEASES);
        let more = releases.len() == RELEASES;
        if !more {
            link.release_at = None;
        }
        if !releases.is_empty() {
            let releases = ToServer::Release(releases).encode(cx.buffer);
            live.outgoing.send(cx, live.handle, releases, u64::MAX);
        }
        if more {
            self.arm_release(cx.now, key);
        }
    }

    /// Arms the next look at a link, if something hangs on its server still.
    pub(super) fn silence_checked(&mut self, cx: &mut Context<'_>, key: u64) {
        let awaited = self.links.get(key).is_some_and(|link| self.is_awaited(link));
        let Some(link) = self.links.get_mut(key) else { return };
        let watched = link.has_unsettled() || awaited;
        let greets = link.attempt.as_ref().is_some_and(|attempt| attempt.greeted.is_some());
        let every = link.check_every();
        link.check_at = (watched || greets).then(|| cx.now + every);
        if let Some(live) = &link.live
            && let Some(connection) = cx.endpoint.connection_mut(live.handle)
        {
            connection.await_answer(cx.now, watched);
        }
    }

    /// Whether it has to be noticed that a server which drains is gone, that a silent one speaks
    /// again, or that one which leaves calls without a slot has made place for another.
    fn is_awaited(&self, link: &Link) -> bool {
        let somebody_waits = !self.channels[link.channel.0 as usize].waiting.is_empty();
        let has_no_slot = || link.is_ready() && !link.has_unsettled();
        link.is_draining() || somebody_waits && (link.is_shunned() || has_no_slot())
    }

    fn remove_placed(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key.0) {
            call.state = State::Listening;
        }
        self.remove_call(key);
    }

    /// A connection has room again.
    pub(crate) fn writable(
        &mut self,
        cx: &mut Context<'_>,
        handle: crate::transport::endpoint::ConnectionHandle,
    ) {
        let Some(&key) = self.by_handle.get(&handle) else { return };
        let Some(link) = self.links.get_mut(key) else { return };
        let mut carriers = link.live.iter_mut().chain(&mut link.standby);
        let Some(live) = carriers.find(|carrier| carrier.handle == handle) else { return };
        let mut sent = alloc::vec::Vec::new();
        let Live { outgoing, .. } = live;
        outgoing.flush(cx.endpoint, handle, |tag, message| sent.push((tag, message)));
        for (tag, message) in sent {
            self.handed_over(CallKey(tag), Sending { connection: handle, message });
        }
        self.pump_streams(cx, key);
    }
}

/// Whether a call names itself.
fn has_id(metadata: &Metadata) -> bool {
    !metadata.is_empty() && metadata.get(CALL_ID).is_some()
}
