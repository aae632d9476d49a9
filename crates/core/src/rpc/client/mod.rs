//! The client half: channels to services, links to their servers, calls in flight.
//!
//! A [`Channel`](channel::Channel) has a [`Link`](link::Link) per server address. New calls use the
//! first link that answers; a link that has unsettled calls goes on trying even when the channel has
//! moved on, because only its own server can say what became of them.

mod attach;
mod attempt;
mod balance;
mod call;
mod channel;
mod choose;
mod deadline;
mod drain;
mod follow;
mod held;
mod journal;
mod link;
mod lost;
mod memory;
mod place;
mod replicas;
mod resume;
mod retry;
mod second;
mod settle;
mod stale;
mod stream;
mod timers;
mod waiting;
mod watch;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use stubborn_rope::ahead::read_ahead;

use self::call::{ClientCall, Request, State, Work};
use self::channel::Channel;
use self::link::Link;
use self::retry::Retries;
use self::stream::{NO_STREAMS_WITH_JOURNAL, Stream};
use self::timers::{Timer, Timers};
use super::arena::Arena;
use super::config::{ChannelConfig, SessionTicket};
use super::context::{Context, close_code};
use super::event::{CallKey, ChannelKey, Event};
use super::message::ToServer;
use crate::service::{
    CallError, CallState, IncomingReply, Method, Outcome, OutgoingCall, Semantics, Shape,
};
use crate::session::{CallId, NotExecutedReason};
use crate::time::{Duration, Instant};
use crate::transport::connection::{MessageId, Stats};
use crate::transport::endpoint::{ByHandle, ConnectionHandle};

/// How long a connection stays to say goodbye.
const LINGER: Duration = Duration::from_millis(500);

/// The client half of a node.
#[derive(Debug, Default)]
pub(crate) struct Client {
    channels: Vec<Channel>,
    links: Arena<Link>,
    calls: Arena<ClientCall>,
    by_handle: ByHandle<u64>,
    timers: Timers,
    /// Links of which messages of the present batch may have freed slots.
    answered: Vec<u64>,
    /// By the key of their call.
    streams: BTreeMap<u64, Stream>,
    /// Calls that were or may be sent more than once.
    retries: Retries,
    /// The first of the bytes by which links choose their servers' workers.
    steer_from: Option<u8>,
}

impl Client {
    pub(crate) fn steer_from(&mut self, first: u8) {
        self.steer_from = Some(first);
    }

    pub(crate) fn open_channel(
        &mut self,
        cx: &mut Context<'_>,
        mut config: ChannelConfig,
    ) -> ChannelKey {
        let targets = core::mem::take(&mut config.targets);
        let resume = config.resume.take();
        let key = ChannelKey(u32::try_from(self.channels.len()).expect("fewer than 2^32 channels"));
        self.channels.push(Channel::new(config));
        if let (Some(ticket), Some(target)) = (resume, targets.first()) {
            self.resume(cx, key, *target, ticket);
        }
        self.set_targets(cx, key, targets);
        key
    }

    pub(crate) fn set_targets(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        targets: Vec<SocketAddr>,
    ) {
        let Some(channel) = self.channels.get_mut(key.0 as usize) else { return };
        if channel.closed {
            return;
        }
        let mut old = core::mem::take(&mut channel.links);
        let in_use = old.get(channel.current).copied();
        let mut links = Vec::new();
        for target in targets {
            let same = old
                .iter()
                .position(|link| self.links.get(*link).is_some_and(|link| link.address == target));
            let link = match same {
                Some(index) => old.remove(index),
                None => {
                    let mut link = Link::new(key, target, channel.config.backoff_min);
                    link.sessionless = !channel.config.session;
                    self.links.insert(link)
                }
            };
            if !links.contains(&link) {
                links.push(link);
            }
        }
        channel.current = links.iter().position(|link| Some(*link) == in_use).unwrap_or(0);
        channel.failed_in_turn = 0;
        let others = links.len() > 1 || !old.is_empty();
        channel.links = links;
        self.rebalance(key);
        if others {
            self.end_bound(cx, key);
        }
        for link in old {
            self.end_all_held_at(cx, link);
            self.rehome(cx, link);
            self.retire(cx, link);
        }
        // Those that are new stand by, too: of the others none may be there any more.
        self.keep_standbys(cx, key);
        // Reads that waited at a replica which is none any more go to another one.
        self.pump(cx, key);
        self.seek_server(cx, key);
    }

    pub(crate) fn close_channel(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(key.0 as usize) else { return };
        channel.closed = true;
        channel.current = 0;
        let links = core::mem::take(&mut channel.links);
        let calls: Vec<CallKey> = self
            .calls
            .iter()
            .filter(|(_, call)| call.channel == key)
            .map(|(call, _)| CallKey(call))
            .collect();
        for call in calls {
            self.give_up(cx, call, "the channel was closed");
        }
        for link in links {
            if self.is_left_to_journal(link) {
                self.remove_link(cx, link);
            } else {
                self.retire(cx, link);
            }
        }
    }

    /// Begins a call; request and metadata are taken out of `outgoing`.
    pub(crate) fn call(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        outgoing: &mut OutgoingCall,
    ) -> CallKey {
        let reserved = outgoing.reserved;
        let semantics = outgoing.method.semantics();
        let (deadline, wait) = self.as_configured(key, outgoing);
        let streams = outgoing.method.shape() != Shape::Unary;
        let shape = outgoing.method.shape();
        let numbered = semantics.takes_slot() || streams;
        let hedged = self.channels[key.0 as usize].policies.hedges;
        let call = self.begin(cx, key, deadline, wait, |call| {
            let work =
                if numbered { Work::Numbered(Request::EMPTY) } else { Work::Read(Request::EMPTY) };
            call.work = work;
            if let Work::Numbered(request) | Work::Read(request) = &mut call.work {
                request.method = outgoing.method.clone();
                core::mem::swap(&mut request.encoded, &mut outgoing.request);
                core::mem::swap(&mut request.metadata, &mut outgoing.metadata);
                request.reserved = reserved.is_some();
                request.max_staleness = outgoing.max_staleness;
            }
        });
        if streams {
            self.add_stream(cx, call, shape);
        }
        if self.refuse_at_once(cx, call) {
            return call;
        }
        match (semantics, reserved) {
            (Semantics::Maybe, _) if !streams => self.send_maybe(cx, call),
            (_, Some(id)) => self.use_reserved(cx, call, id),
            (_, None) => self.enqueue(cx, call),
        }
        if hedged {
            self.plan_hedge(cx, call);
        }
        call
    }

    pub(crate) fn reserve(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        _method: &Method,
    ) -> CallKey {
        let call = self.begin(cx, key, None, None, |call| call.work = Work::Reservation);
        if !self.refuse_at_once(cx, call) {
            self.enqueue(cx, call);
        }
        call
    }

    pub(crate) fn outcome(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        id: CallId,
        ticket: Option<SessionTicket>,
    ) -> CallKey {
        let work = Work::Question { id, ticket: ticket.map(Box::new) };
        let call = self.begin(cx, key, None, None, |call| call.work = work);
        if self.refuse_at_once(cx, call) {
            return call;
        }
        let remembered = self.channels[key.0 as usize].memory.recall(id);
        if let Some(state) = remembered {
            self.finish_question(cx, call, Ok(state));
        } else if !self.listen(cx, call, id) {
            self.enqueue(cx, call);
        }
        call
    }

    /// Nobody waits any more: no event comes of the call.
    pub(crate) fn abandon(&mut self, cx: &mut Context<'_>, key: CallKey) {
        self.forget_retries(cx, key);
        self.leave(cx, key);
        self.forget_stream(key);
        self.remove_call(key);
    }

    /// A reserved number will not be used.
    pub(crate) fn abandon_reserved(&mut self, cx: &mut Context<'_>, key: ChannelKey, id: CallId) {
        if let Some(link) = self.link_of_session(key, id) {
            self.fence_in_background(cx, link, id);
        }
    }

    pub(crate) fn session(&self, key: ChannelKey) -> Option<SessionTicket> {
        Some(self.current_link(key)?.session.as_ref()?.ticket.clone())
    }

    /// Whether calls are in flight that a group of replicas has to commit.
    pub(crate) fn awaits_commit(&self) -> bool {
        let mut sessions = self.links.iter().filter_map(|(_, link)| link.session.as_ref());
        sessions.any(|session| session.group && session.slots.in_flight() > 0)
    }

    pub(crate) fn stats(
        &self,
        endpoint: &crate::transport::endpoint::Endpoint,
        key: ChannelKey,
    ) -> Option<(SocketAddr, Stats)> {
        let link = self.current_link(key)?;
        let connection = endpoint.connection(link.live.as_ref()?.handle)?;
        Some((link.address, connection.stats()))
    }

    pub(crate) fn connection(&self, key: ChannelKey) -> Option<ConnectionHandle> {
        Some(self.current_link(key)?.live.as_ref()?.handle)
    }

    pub(crate) fn owns(&self, handle: ConnectionHandle) -> bool {
        self.by_handle.contains_key(&handle)
    }

    /// Begins to read what a message on this connection will need.
    pub(crate) fn read_ahead(&self, handle: ConnectionHandle) {
        if let Some(&key) = self.by_handle.get(&handle) {
            self.links.read_ahead(key);
        }
    }

    /// Begins to read what lies behind that.
    pub(crate) fn read_further_ahead(&self, handle: ConnectionHandle) {
        let link = self.by_handle.get(&handle).and_then(|key| self.links.get(*key));
        let Some(link) = link else { return };
        if let Some(channel) = self.channels.get(link.channel.0 as usize) {
            read_ahead(channel);
        }
        if let Some(session) = &link.session {
            session.slots.read_ahead();
            read_ahead(&session.occupants[..]);
        }
    }

    /// Begins to read which links the channel has, where its next call looks first.
    pub(crate) fn read_links_ahead(&self, handle: ConnectionHandle) {
        let link = self.by_handle.get(&handle).and_then(|key| self.links.get(*key));
        if let Some(channel) = link.and_then(|link| self.channels.get(link.channel.0 as usize)) {
            read_ahead(&channel.links[..]);
        }
    }

    /// The peer holds all of a message: a goodbye has arrived, so the connection may close.
    pub(crate) fn acked(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        message: MessageId,
    ) {
        let Some(&key) = self.by_handle.get(&handle) else { return };
        let live = self.links.get(key).and_then(|link| link.live.as_ref());
        if live.is_some_and(|live| live.handle == handle && live.goodbye == Some(message)) {
            self.remove_link(cx, key);
        }
    }

    /// Servers that this client keeps up with, those included that it only takes leave of.
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// Calls, reservations and questions that somebody waits for.
    pub(crate) fn pending(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn next_timeout(&mut self) -> Option<Instant> {
        self.first_timer().map(|(at, _)| at)
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        while let Some((at, timer)) = self.first_timer() {
            if at > cx.now {
                return;
            }
            self.timers.pop((at, timer));
            match timer {
                Timer::Call(key) => {
                    if let Some(call) = self.calls.get_mut(key) {
                        call.timer = None;
                    }
                    self.call_due(cx, CallKey(key));
                }
                Timer::Link(key) => {
                    if let Some(link) = self.links.get_mut(key) {
                        link.timer = None;
                    }
                    self.link_due(cx, key);
                }
                Timer::Retries => self.retries_due(cx),
            }
        }
    }

    /// The deadline of a call, and whether it waits for a server, as its method is configured.
    fn as_configured(
        &self,
        key: ChannelKey,
        call: &OutgoingCall,
    ) -> (Option<Duration>, Option<bool>) {
        let channel = &self.channels[key.0 as usize];
        let own = channel.policies.of(&channel.config.service, &call.method);
        let Some(own) = own else { return (call.deadline, call.wait_for_ready) };
        let deadline = call.deadline.or(channel.config.deadline);
        (crate::time::earliest(deadline, own.timeout), call.wait_for_ready.or(own.wait_for_ready))
    }

    /// Begins a call, of which `set` says what is to be done. It is large to move, so all of it is
    /// written where it stays.
    #[inline]
    fn begin(
        &mut self,
        cx: &Context<'_>,
        channel: ChannelKey,
        deadline: Option<Duration>,
        wait_for_ready: Option<bool>,
        set: impl FnOnce(&mut ClientCall),
    ) -> CallKey {
        let config = &self.channels[channel.0 as usize].config;
        let deadline = deadline.or(config.deadline).map(|deadline| cx.now + deadline);
        let wait_for_ready = wait_for_ready.unwrap_or(config.wait_for_ready);
        let key = CallKey(self.calls.insert(ClientCall::EMPTY));
        if let Some(call) = self.calls.get_mut(key.0) {
            call.channel = channel;
            call.began = cx.now;
            call.deadline = deadline;
            call.wait_for_ready = wait_for_ready;
            set(call);
        }
        self.set_call_timer(key, deadline);
        key
    }

    /// Ends a call that cannot be made at all. Returns whether it did.
    fn refuse_at_once(&mut self, cx: &mut Context<'_>, key: CallKey) -> bool {
        let Some(call) = self.calls.get(key.0) else { return true };
        let channel = &self.channels[call.channel.0 as usize];
        let size = call.request().map_or(0, |request| request.encoded.body.len() as u64);
        let stale = call.request().is_some_and(|request| request.max_staleness.is_some());
        let needs_session = !matches!(call.work, Work::Read(_) | Work::Question { .. });
        let error = if channel.closed {
            call.not_executed(NotExecutedReason::Cancelled, "the channel is closed")
        } else if needs_session && !channel.config.session {
            let why = "the channel keeps no session: it carries reads and maybe calls only";
            call.not_executed(NotExecutedReason::Cancelled, why)
        } else if stale && !matches!(call.work, Work::Read(_)) {
            let why = "only a read may be answered from an older state";
            call.not_executed(NotExecutedReason::NeverSent, why)
        } else if channel.config.journal.is_some() && self.is_stream(key) && !self.may_follow(key) {
            let why = NO_STREAMS_WITH_JOURNAL;
            call.not_executed(NotExecutedReason::NeverSent, why)
        } else if channel.waiting.len() >= cx.limits.waiting_calls {
            call.not_executed(
                NotExecutedReason::Overloaded,
                "too many calls wait for this server: send fewer at once",
            )
        } else if size > cx.limits.message {
            let detail = crate::service::text(format_args!(
                "the request has {size} bytes and {} are allowed: raise limits.message on both sides",
                cx.limits.message
            ));
            call.not_executed(NotExecutedReason::TooLarge, detail)
        } else {
            return false;
        };
        self.finish(cx, key, Err(error));
        true
    }

    /// Ends whatever `key` is with an error, or a call with a reply.
    fn finish(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        result: Result<IncomingReply, CallError>,
    ) {
        self.finish_here(cx, key, result);
    }

    /// The same where many calls end: what is large to move is written where it stays.
    #[inline(always)]
    fn finish_here(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        mut result: Result<IncomingReply, CallError>,
    ) {
        if self.is_stream(key) {
            result = self.stream_ended(cx, key, result);
        }
        if !self.retries.is_empty() {
            result = self.end_retries(cx, key, result);
        }
        let Some(call) = self.forget_waiting(key) else { return };
        match &call.work {
            Work::Numbered(_) | Work::Read(_) => cx.events.push(Event::Resolved(key, result)),
            Work::Reservation | Work::Question { .. } => {
                let Err(error) = result else { unreachable!("only calls end with a reply") };
                cx.events.push(match &call.work {
                    Work::Reservation => Event::Reserved(key, Err(error)),
                    _ => Event::Outcome(key, Err(error)),
                });
            }
        }
        self.calls.discard(key.0);
    }

    fn finish_question(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        result: Result<CallState<IncomingReply>, CallError>,
    ) {
        let Some(call) = self.remove_call(key) else { return };
        let result = match (&call.work, result) {
            (Work::Question { id, .. }, Ok(state)) => {
                Ok(self.channels[call.channel.0 as usize].memory.judge(*id, state))
            }
            (_, result) => result,
        };
        cx.events.push(Event::Outcome(key, result));
    }

    fn remove_call(&mut self, key: CallKey) -> Option<ClientCall> {
        self.forget_waiting(key)?;
        self.calls.remove(key.0)
    }

    /// The call waits in no queue any more.
    fn forget_waiting(&mut self, key: CallKey) -> Option<&ClientCall> {
        let call = self.calls.get(key.0)?;
        if matches!(call.state, State::Waiting) {
            self.channels[call.channel.0 as usize].waiting.forget(key, &call.work);
        }
        Some(call)
    }

    fn set_call_timer(&mut self, key: CallKey, at: Option<Instant>) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        if call.timer == at {
            return;
        }
        call.timer = at;
        if let Some(at) = at {
            self.timers.set_call(at, key.0, &self.calls);
        }
    }

    /// Brings a link's timer in line with what it waits for. To be called after every change of it.
    fn set_link_timer(&mut self, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let at = link.next_timeout();
        if link.timer == at {
            return;
        }
        let old = core::mem::replace(&mut link.timer, at);
        self.timers.move_link(key, old, at);
    }

    fn current_link(&self, key: ChannelKey) -> Option<&Link> {
        let channel = self.channels.get(key.0 as usize)?;
        self.links.get(*channel.links.get(channel.current)?)
    }

    fn link_of_session(&self, key: ChannelKey, id: CallId) -> Option<u64> {
        let channel = self.channels.get(key.0 as usize)?;
        channel.all_links().into_iter().find(|link| {
            let session = self.links.get(*link).and_then(|link| link.session.as_ref());
            session.is_some_and(|session| session.slots.id() == id.session)
        })
    }

    /// A link that the channel does not use any more: it stays until its calls are settled, then
    /// closes its session.
    fn retire(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.retired = true;
        self.channels[link.channel.0 as usize].retired.push(key);
        self.dismiss_if_done(cx, key);
    }

    /// Ends a retired link once nothing of it is unsettled: says goodbye, then closes.
    fn dismiss_if_done(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        if !link.retired || link.has_unsettled() {
            return;
        }
        link.retry_at = None;
        let said = link.live.as_ref().is_none_or(|live| live.goodbye.is_some());
        if said && link.linger_until.is_some_and(|until| until > cx.now) {
            return;
        }
        if link.sessionless || link.session.is_none() {
            return self.remove_link(cx, key);
        }
        let Some(live) = link.live.as_mut().filter(|live| live.goodbye.is_none()) else {
            return self.remove_link(cx, key);
        };
        let goodbye = ToServer::CloseSession.encode(cx.buffer);
        live.goodbye = live.outgoing.send(cx, live.handle, goodbye, 0);
        if let Some(goodbye) = live.goodbye
            && let Some(connection) = cx.endpoint.connection_mut(live.handle)
        {
            connection.tell_acked(goodbye);
        }
        link.linger_until = Some(cx.now + LINGER);
        self.set_link_timer(key);
    }

    fn remove_link(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.remove(key) else { return };
        self.timers.move_link(key, link.timer, None);
        let standby = link.standby.map(|standby| {
            let handle = standby.handle;
            self.requeue(standby);
            handle
        });
        let handles = link.live.map(|live| live.handle).into_iter().chain(standby);
        for handle in handles.chain(link.attempt.map(|attempt| attempt.handle)) {
            self.by_handle.remove(&handle);
            cx.close(handle, close_code::DONE, "");
        }
        let channel = &mut self.channels[link.channel.0 as usize];
        channel.retired.retain(|other| *other != key);
        channel.links.retain(|other| *other != key);
    }

    /// The channel is closed: each of its calls ends as well as can be said now.
    fn give_up(&mut self, cx: &mut Context<'_>, key: CallKey, why: &'static str) {
        let outcome = self.leave(cx, key);
        let Some(call) = self.calls.get(key.0) else { return };
        let error = match (outcome, &call.work) {
            (Some(outcome), _) => call.error(outcome).because(why),
            (None, Work::Question { id, .. }) => call.error(Outcome::Pending(*id)).because(why),
            (None, _) => call.not_executed(NotExecutedReason::Cancelled, why),
        };
        self.finish(cx, key, Err(error));
    }

    fn method_of(&self, key: CallKey) -> Cow<'static, str> {
        self.calls.get(key.0).map_or(Cow::Borrowed(""), ClientCall::method_name)
    }

    fn unanswered(&self, key: CallKey, why: impl Into<Cow<'static, str>>) -> CallError {
        CallError::new(self.method_of(key), Outcome::Unanswered).because(why)
    }
}
