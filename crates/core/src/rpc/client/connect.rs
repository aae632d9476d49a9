//! Getting and keeping a connection to a server, with the session attached.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::call::{State, Work};
use super::link::{Attempt, Live, Occupant, Session};
use super::{Client, close_code};
use crate::rpc::SessionTicket;
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelEvent, ChannelKey, Event};
use crate::rpc::message::{ToServer, session_reference};
use crate::service::{Outcome, Semantics, text};
use crate::session::{
    Attached, ClientSession, Fate, NotExecutedReason, Opened, Reconciled, Refusal, same_process,
};
use crate::time::{Duration, Instant};
use crate::transport::connection::ConnectionError;
use crate::transport::endpoint::ConnectionHandle;

/// Round trips that an attempt may take at least, on a path whose round-trip time is known.
const ATTEMPT_ROUND_TRIPS: u32 = 8;

/// Probe timeouts in a row after which a connection counts as silent.
const SILENT_PROBES: u32 = 3;

/// How long an attempt may take on a path whose round-trip time is known, if that is short.
const REATTEMPT: Duration = Duration::from_secs(1);

/// How long an attempt is alone before the next server gets its chance too: the Connection Attempt
/// Delay of RFC 8305 §5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How often a connection on which calls are in flight is asked whether it has the session still.
const CONFIRM_EVERY: Duration = Duration::from_secs(2);

impl Client {
    /// Makes sure that a server is sought if somebody wants one.
    pub(super) fn seek_server(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        if !self.channels[key.0 as usize].wants_server() {
            return;
        }
        self.shun(key);
        let channel = &self.channels[key.0 as usize];
        let Some(&link_key) = channel.links.get(channel.current) else { return };
        let Some(link) = self.links.get(link_key) else { return };
        if link.live.is_none() && link.attempt.is_none() && link.retry_at.is_none() {
            self.start_attempt(cx, link_key);
        }
    }

    /// Leaves a server that drains or has gone silent, if there is another one to try.
    fn shun(&mut self, key: ChannelKey) {
        let channel = &self.channels[key.0 as usize];
        let count = channel.links.len();
        let better = (0..count).map(|step| (channel.current + step) % count).find(|index| {
            self.links.get(channel.links[*index]).is_some_and(|link| !link.is_shunned())
        });
        if let Some(index) = better {
            self.channels[key.0 as usize].current = index;
        }
    }

    pub(super) fn start_attempt(&mut self, cx: &mut Context<'_>, key: u64) {
        let steer = self.steer(cx, key);
        let Some(link) = self.links.get_mut(key) else { return };
        debug_assert!(link.attempt.is_none(), "one attempt at a time");
        link.retry_at = None;
        link.silent_since.get_or_insert(cx.now);
        let channel = &self.channels[link.channel.0 as usize];
        let config = &channel.config;
        let alone = channel.links.len() < 2 || link.session.is_some();
        let yields_at = (!alone).then_some(cx.now + ATTEMPT_DELAY);
        let (name, tls) = (&config.server_name, &config.tls);
        match cx.endpoint.connect(cx.now, link.address, name, tls, link.rtt, steer) {
            Ok(handle) => {
                let patience = match link.rtt {
                    // The attempt's own back-off may have grown while the server was away: begin
                    // anew soon at first, later once a second.
                    Some(rtt) => (link.backoff * 4).min(REATTEMPT).max(rtt * ATTEMPT_ROUND_TRIPS),
                    None => config.attempt_timeout,
                };
                let gives_up_at = cx.now + patience;
                link.attempt = Some(Attempt { handle, gives_up_at, yields_at });
                self.by_handle.insert(handle, key);
                self.set_link_timer(key);
            }
            Err(error) => self.attempt_failed(cx, key, text(format_args!("{error}"))),
        }
    }

    /// The byte by which a link's connections all reach the same worker of its server: the one that
    /// knows its session, or that an opening was sent to. Links to one server take bytes in a row,
    /// so that they spread evenly over its workers however many it has.
    fn steer(&mut self, cx: &mut Context<'_>, key: u64) -> Option<u8> {
        let link = self.links.get(key)?;
        if let Some(steer) = link.steer {
            return Some(steer);
        }
        let address = link.address;
        let mut taken = [0_u32; 256];
        for (_, link) in self.links.iter().filter(|(_, link)| link.address == address) {
            if let Some(steer) = link.steer {
                taken[usize::from(steer)] += 1;
            }
        }
        let first = *self.steer_from.get_or_insert_with(|| cx.random.bytes::<1>()[0]);
        let bytes = (0..=u8::MAX).map(|step| first.wrapping_add(step));
        let steer = bytes.min_by_key(|byte| taken[usize::from(*byte)]);
        self.links.get_mut(key)?.steer = steer;
        steer
    }

    /// A handshake is done: the server is known, and with it whether it remembers the session.
    pub(crate) fn connected(&mut self, cx: &mut Context<'_>, handle: ConnectionHandle) {
        let Some(&key) = self.by_handle.get(&handle) else { return };
        let Some(incarnation) =
            cx.endpoint.connection(handle).and_then(|connection| connection.peer_incarnation())
        else {
            return self.fail_attempt(cx, key, "the server names no incarnation".into());
        };
        let session = self.links.get(key).and_then(|link| link.session.as_ref());
        match session.map(|session| session.slots.id()) {
            Some(id) if id.incarnation == incarnation => self.attach(cx, key, handle),
            // The server lives, and so does the session: only its worker was missed.
            Some(id) if same_process(id.incarnation, incarnation) => {
                if let Some(link) = self.links.get_mut(key) {
                    link.steer = Some(id.steer());
                }
                self.fail_attempt(cx, key, "another worker of the server answered".into());
            }
            Some(_) => {
                self.session_lost(cx, key, "the server restarted");
                self.open(cx, key, handle);
            }
            None => self.open(cx, key, handle),
        }
    }

    fn attach(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        let Some(session) = self.links.get(key).and_then(|link| link.session.as_ref()) else {
            return;
        };
        let SessionTicket { session, secret } = session.ticket.clone();
        self.send_on_attempt(cx, handle, ToServer::Attach { session, secret });
    }

    fn open(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        let Some(link) = self.links.get_mut(key) else { return };
        let nonce = *link.nonce.get_or_insert_with(|| cx.random.bytes());
        let slots = self.channels[link.channel.0 as usize].config.slots.min(cx.limits.slots);
        self.send_on_attempt(cx, handle, ToServer::Open { nonce, slots });
    }

    fn send_on_attempt(&self, cx: &mut Context<'_>, handle: ConnectionHandle, message: ToServer) {
        let (head, body) = message.encode();
        if let Some(connection) = cx.endpoint.connection_mut(handle) {
            // A connection without room for its first message is over, and says so by an event.
            let _ = connection.send(head, body);
        }
    }

    /// The server opened a session for an attempt.
    pub(super) fn opened(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        nonce: [u8; 16],
        opened: &Opened,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.nonce != Some(nonce) || link.session.is_some() {
            return;
        }
        link.nonce = None;
        let slots = ClientSession::new(opened, cx.limits.slots, cx.limits.background_fences);
        let ticket = SessionTicket { session: opened.session, secret: opened.secret.clone() };
        let session = link.session.insert(Session::new(slots, ticket));
        for change in core::mem::take(&mut link.early_changes) {
            session.slots.slots_changed(&change);
        }
        if opened.epoch > 1 {
            // A repeated opening: what changed since the first one is told by an attach.
            session.slots.detached();
            self.attach(cx, key, handle);
        } else {
            self.ready(cx, key, handle);
        }
    }

    /// The server attached the session to an attempt: each call in flight is taken up again.
    pub(super) fn attached(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        attached: &Attached,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(session) = link.session.as_mut() else { return };
        let Some(calls) = session.slots.attached(attached) else { return };
        // Slots that this settles are free from here on, and the next calls may take them as soon as
        // the link is ready: who waited there is looked up before.
        let mut todo = alloc::vec::Vec::with_capacity(calls.len());
        for (id, reconciled) in calls {
            let occupant = match reconciled {
                Reconciled::NotKept | Reconciled::Ended(_) => link.take_occupant(id.slot),
                Reconciled::Send | Reconciled::Ask | Reconciled::WillCome => {
                    let call = link.occupant(id.slot).and_then(|occupant| occupant.call);
                    Occupant { call, ..Occupant::default() }
                }
            };
            todo.push((id, reconciled, occupant));
        }
        self.ready(cx, key, handle);
        for (id, reconciled, occupant) in todo {
            match reconciled {
                Reconciled::Send => {
                    if let Some(call) = occupant.call {
                        self.send_numbered(cx, key, call);
                    }
                }
                Reconciled::Ask | Reconciled::WillCome => {}
                Reconciled::NotKept => {
                    self.settle_occupant(
                        cx,
                        key,
                        id,
                        occupant,
                        crate::service::CallState::ReplyNotKept,
                    );
                }
                Reconciled::Ended(fate) => self.ended(cx, key, occupant, fate),
            }
        }
        self.after_answer(cx, key);
    }

    /// An attempt becomes the live connection; the one before it is closed.
    fn ready(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        let Some(link) = self.links.get_mut(key) else { return };
        let (channel, peer) = (link.channel, link.address);
        // What the handshake measured; a connection that ends early leaves nothing better behind.
        link.rtt = cx.endpoint.connection(handle).map(|connection| connection.rtt());
        link.attempt = None;
        link.retry_at = None;
        link.silent_since = None;
        link.draining = false;
        link.suspect = false;
        link.backoff = self.channels[channel.0 as usize].config.backoff_min;
        let before = link.live.replace(Live::new(handle));
        let Some(ticket) = link.session.as_ref().map(|session| session.ticket.clone()) else {
            return;
        };
        if let Some(before) = before {
            self.by_handle.remove(&before.handle);
            cx.close(before.handle, close_code::REPLACED, "replaced by a new connection");
            self.requeue(before);
        }
        self.win(cx, key);
        let state = &mut self.channels[channel.0 as usize];
        state.failed_in_turn = 0;
        state.eager = false;
        let incarnation = ticket.session.incarnation;
        let event = ChannelEvent::Ready { peer, incarnation, ticket };
        cx.events.push_back(Event::Channel(channel, event));
        self.after_sending(cx, key);
        self.move_reads(channel);
        self.pump(cx, channel);
    }

    /// A server that has answered is the one to use, unless the one in use is good; attempts at
    /// others that were made beside it end.
    fn win(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.yielded = false;
        let channel = &self.channels[link.channel.0 as usize];
        let (links, current) = (channel.links.clone(), channel.current);
        let in_use = links.get(current).and_then(|link| self.links.get(*link));
        if !in_use.is_some_and(|link| link.is_ready() && !link.is_shunned())
            && let Some(index) = links.iter().position(|link| *link == key)
            && let Some(link) = self.links.get(key)
        {
            self.channels[link.channel.0 as usize].current = index;
        }
        for other in links.into_iter().filter(|other| *other != key) {
            let Some(link) = self.links.get_mut(other) else { continue };
            if link.yielded && link.session.is_none() {
                link.yielded = false;
                link.silent_since = None;
                if let Some(attempt) = link.attempt.take() {
                    self.by_handle.remove(&attempt.handle);
                    cx.close(attempt.handle, close_code::DONE, "");
                }
                self.set_link_timer(other);
            }
        }
    }

    /// An attempt takes long: the channel's next server gets its chance beside it, if it has not
    /// been tried yet.
    fn yield_turn(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let channel_key = link.channel;
        if let Some(attempt) = link.attempt.as_mut() {
            attempt.yields_at = None;
        }
        let channel = &self.channels[channel_key.0 as usize];
        if channel.links.get(channel.current) != Some(&key) {
            return;
        }
        let next = (channel.current + 1) % channel.links.len();
        let idle = self.links.get(channel.links[next]).is_some_and(|link| {
            link.live.is_none() && link.attempt.is_none() && link.retry_at.is_none()
        });
        if !idle {
            return;
        }
        if let Some(link) = self.links.get_mut(key) {
            link.yielded = true;
        }
        self.channels[channel_key.0 as usize].current = next;
        self.seek_server(cx, channel_key);
    }

    /// Reads that wait for a server which has gone silent go to one that answers: they have no side
    /// effects, so it does not matter whether they run twice.
    fn move_reads(&mut self, channel: ChannelKey) {
        for link in self.channels[channel.0 as usize].all_links() {
            let Some(live) = self
                .links
                .get_mut(link)
                .filter(|link| link.suspect)
                .and_then(|link| link.live.as_mut())
            else {
                continue;
            };
            let reads = core::mem::take(&mut live.reads);
            for call in reads.values() {
                live.outgoing.cancel(call.0);
            }
            for call in reads.into_values() {
                self.enqueue_again(call);
            }
        }
    }

    /// The server refuses the session.
    pub(super) fn refused(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        reference: [u8; 16],
        refusal: Refusal,
    ) {
        let Some(link) = self.links.get(key) else { return };
        let own = link.session.as_ref().map(|session| session_reference(session.slots.id()));
        let on_attempt = link.attempt.as_ref().is_some_and(|attempt| attempt.handle == handle);
        if own != Some(reference) && link.nonce != Some(reference) {
            return self.question_refused(cx, key, reference, refusal);
        }
        match refusal {
            _ if own != Some(reference) => {
                self.fail_attempt(
                    cx,
                    key,
                    text(format_args!("the server opens no session: {refusal}")),
                );
            }
            refusal if refusal.is_lost() || refusal == Refusal::Denied => {
                if refusal == Refusal::Denied {
                    // The server has the session still, so nothing of it is lost: others may ask.
                    self.leave_session(cx, key);
                }
                self.session_lost(cx, key, "the server has forgotten the session");
                if on_attempt {
                    self.open(cx, key, handle);
                } else {
                    self.reconnect(cx, key);
                }
            }
            _ if on_attempt => {
                self.fail_attempt(
                    cx,
                    key,
                    text(format_args!("the server refuses the session: {refusal}")),
                );
            }
            // Another connection attached to the session after ours.
            _ => self.reconnect(cx, key),
        }
    }

    /// Gives the live connection up and attaches anew on another one.
    fn reconnect(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(live) = self.links.get_mut(key).and_then(|link| link.live.take()) else { return };
        cx.close(live.handle, close_code::DONE, "");
        self.by_handle.remove(&live.handle);
        self.live_gone(cx, key, live);
    }

    /// A connection of this half is over.
    pub(crate) fn lost(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        error: &ConnectionError,
    ) {
        let Some(key) = self.by_handle.remove(&handle) else { return };
        let Some(link) = self.links.get_mut(key) else { return };
        let why = text(format_args!("{error}"));
        if link.attempt.as_ref().is_some_and(|attempt| attempt.handle == handle) {
            link.attempt = None;
            let channel = link.channel;
            if is_final(error) {
                let event = ChannelEvent::Refused(why.clone());
                cx.events.push_back(Event::Channel(channel, event));
            }
            self.attempt_failed(cx, key, why);
        } else if link.live.as_ref().is_some_and(|live| live.handle == handle)
            && let Some(live) = link.live.take()
        {
            link.last_error = why;
            self.live_gone(cx, key, live);
        }
    }

    /// The live connection has ended: notes what had been sent, then gets another one if it is
    /// needed.
    fn live_gone(&mut self, cx: &mut Context<'_>, key: u64, live: Live) {
        self.note_all_sent(cx, key);
        if let Some(session) = self.links.get_mut(key).and_then(|link| link.session.as_mut()) {
            session.slots.detached();
        }
        self.requeue(live);
        let Some(link) = self.links.get_mut(key) else { return };
        link.silent_since.get_or_insert(cx.now);
        let (channel, unsettled) = (link.channel, link.has_unsettled());
        if link.retired && !unsettled {
            return self.dismiss_if_done(cx, key);
        }
        if unsettled && link.attempt.is_none() && link.retry_at.is_none() {
            self.start_attempt(cx, key);
        }
        self.pump(cx, channel);
        self.set_link_timer(key);
    }

    /// Reads and questions that were on a connection which ended go to the next one.
    fn requeue(&mut self, live: Live) {
        for call in live.reads.into_values().chain(live.queries.into_values()) {
            self.enqueue_again(call);
        }
    }

    pub(super) fn note_all_sent(&mut self, cx: &Context<'_>, key: u64) {
        let Some(session) = self.links.get(key).and_then(|link| link.session.as_ref()) else {
            return;
        };
        let calls: Vec<CallKey> =
            session.occupants.iter().filter_map(|occupant| occupant.call).collect();
        for call in calls {
            if let Some(State::Numbered { link, id, sending, .. }) =
                self.calls.get(call.0).map(|call| &call.state)
            {
                let (link, id, sending) = (*link, *id, *sending);
                self.note_sent(cx, link, id, sending);
            }
        }
    }

    /// The server has no memory of the session: every call in flight ends.
    fn session_lost(&mut self, cx: &mut Context<'_>, key: u64, why: &'static str) {
        self.note_all_sent(cx, key);
        let Some(link) = self.links.get_mut(key) else { return };
        link.early_changes.clear();
        let channel = link.channel;
        let asked = self.questions_for(key);
        let Some(session) = self.links.get_mut(key).and_then(|link| link.session.take()) else {
            return;
        };
        self.channels[channel.0 as usize].memory.lose(session.slots.id());
        for question in asked {
            self.finish_question(cx, question, Ok(crate::service::CallState::Lost));
        }
        let mut occupants = session.occupants;
        for (id, fate) in session.slots.lost() {
            let occupant =
                occupants.get_mut(id.slot as usize).map(core::mem::take).unwrap_or_default();
            for question in occupant.questions {
                self.finish_question(cx, question, Ok(fate_state(fate)));
            }
            match occupant.call {
                Some(call) => self.end_lost(cx, key, call, fate, why),
                None => self.remember(key, id, fate_state(fate)),
            }
        }
    }

    /// The session is kept by the server but not for us any more: its calls end as pending.
    fn leave_session(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(session) = self.links.get(key).and_then(|link| link.session.as_ref()) else {
            return;
        };
        let calls: Vec<CallKey> =
            session.occupants.iter().filter_map(|occupant| occupant.call).collect();
        for call in calls {
            self.end_unsettled(cx, call, "the server denies the session to this client".into());
        }
        if let Some(link) = self.links.get_mut(key) {
            link.session = None;
        }
    }

    /// A call whose session is gone. Idempotent calls may run again, so they do.
    fn end_lost(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        call_key: CallKey,
        fate: Fate,
        why: &'static str,
    ) {
        let Some(call) = self.calls.get(call_key.0) else { return };
        let again = call.request().is_some_and(|request| {
            request.method.semantics() == Semantics::Idempotent && !request.reserved
        });
        if again && call.deadline.is_none_or(|deadline| deadline > cx.now) {
            if let Some(call) = self.calls.get_mut(call_key.0) {
                call.may_have_run |= fate == Fate::Lost;
            }
            return self.enqueue_again(call_key);
        }
        let error = match fate {
            Fate::NeverSent => call.not_executed(
                NotExecutedReason::NeverSent,
                text(format_args!("part of the request was never sent, and {why}")),
            ),
            Fate::Lost => call.error(Outcome::Lost).because(why),
        };
        let peer = self.links.get(key).map(|link| link.address);
        self.finish(cx, call_key, Err(error.at(peer)));
    }

    /// One slot of an attached session is not remembered as it must be.
    fn ended(&mut self, cx: &mut Context<'_>, key: u64, occupant: Occupant, fate: Fate) {
        for question in occupant.questions {
            self.finish_question(cx, question, Ok(fate_state(fate)));
        }
        if let Some(call) = occupant.call {
            self.end_lost(cx, key, call, fate, "the server has forgotten the call");
        }
    }

    /// Gives the attempt up: its connection is closed.
    pub(super) fn fail_attempt(&mut self, cx: &mut Context<'_>, key: u64, why: Cow<'static, str>) {
        let Some(link) = self.links.get_mut(key) else { return };
        if let Some(attempt) = link.attempt.take() {
            self.by_handle.remove(&attempt.handle);
            cx.close(attempt.handle, close_code::DONE, "");
        }
        self.attempt_failed(cx, key, why);
    }

    /// An attempt has failed: the channel moves on to its next server; this one is tried again later
    /// if it is needed.
    fn attempt_failed(&mut self, cx: &mut Context<'_>, key: u64, why: Cow<'static, str>) {
        let Some(link) = self.links.get_mut(key) else { return };
        let (channel_key, address) = (link.channel, link.address);
        link.last_error = why;
        let config = &self.channels[channel_key.0 as usize].config;
        let pause = cx.random.jitter(link.backoff);
        link.backoff = (link.backoff * 2).min(config.backoff_max);
        link.retry_at = Some(cx.now + pause);
        let reason = text(format_args!("{address}: {}", link.last_error));
        for question in self.questions_for(key) {
            if let Some(call) = self.calls.get(question.0)
                && let Some(id) = call.id()
            {
                let error = call.error(Outcome::Pending(id)).because(reason.clone());
                self.finish_question(cx, question, Err(error));
            }
        }
        self.move_on(cx, channel_key, key, reason);
        self.settle_unreachable(cx, key);
        self.set_link_timer(key);
    }

    fn move_on(
        &mut self,
        cx: &mut Context<'_>,
        channel_key: ChannelKey,
        failed: u64,
        reason: Cow<'static, str>,
    ) {
        let yielded =
            self.links.get_mut(failed).is_some_and(|link| core::mem::take(&mut link.yielded));
        let channel = &mut self.channels[channel_key.0 as usize];
        let is_current = channel.links.get(channel.current) == Some(&failed);
        if !is_current && !yielded {
            return;
        }
        let silent = self.links.get(failed).is_none_or(|link| !link.is_ready());
        if !silent {
            return;
        }
        if is_current {
            channel.current = (channel.current + 1) % channel.links.len().max(1);
        }
        channel.failed_in_turn += 1;
        if channel.failed_in_turn < channel.links.len() {
            return self.pump_or_seek(cx, channel_key);
        }
        channel.failed_in_turn = 0;
        channel.eager = false;
        cx.events.push_back(Event::Channel(channel_key, ChannelEvent::Unreachable(reason.clone())));
        self.fail_fast(cx, channel_key, &reason);
        self.seek_server(cx, channel_key);
    }

    fn pump_or_seek(&mut self, cx: &mut Context<'_>, channel: ChannelKey) {
        self.pump(cx, channel);
        self.seek_server(cx, channel);
    }

    /// Every target was tried: calls that do not wait for a server fail, safely.
    fn fail_fast(&mut self, cx: &mut Context<'_>, key: ChannelKey, why: &str) {
        let channel = &self.channels[key.0 as usize];
        let waiting: Vec<CallKey> =
            channel.numbered.iter().chain(&channel.others).copied().collect();
        for call_key in waiting {
            let Some(call) = self.calls.get(call_key.0) else { continue };
            if call.wait_for_ready {
                continue;
            }
            let detail = text(format_args!("no server could be reached: {why}"));
            let error = match (&call.work, call.was_sent) {
                (Work::Read(_), true) => call.error(Outcome::Unanswered).because(detail),
                (Work::Question { id, .. }, _) => call.error(Outcome::Pending(*id)).because(detail),
                _ => call.not_executed(NotExecutedReason::NeverSent, detail),
            };
            self.finish(cx, call_key, Err(error));
        }
    }

    /// A server that has been silent for too long leaves calls without a deadline pending.
    fn settle_unreachable(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get(key) else { return };
        let patience = self.channels[link.channel.0 as usize].config.unreachable_after;
        let Some(since) = link.silent_since else { return };
        if cx.now.since(since) < patience {
            return;
        }
        let address = link.address;
        let Some(session) = link.session.as_ref() else { return };
        let calls: Vec<CallKey> =
            session.occupants.iter().filter_map(|occupant| occupant.call).collect();
        for call in calls {
            let open_ended = self.calls.get(call.0).is_some_and(|call| call.deadline.is_none());
            if open_ended {
                let why = text(format_args!("{address} has not answered for {patience:?}"));
                self.end_unsettled(cx, call, why);
            }
        }
    }

    /// Looks at what is due on a link.
    pub(super) fn link_due(&mut self, cx: &mut Context<'_>, key: u64) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
        let Some(link) = self.links.get_mut(key) else { return };
        let gives_up = link.attempt.as_ref().map(|attempt| attempt.gives_up_at);
        let (retry, check, linger) =
            (due(link.retry_at), due(link.check_at), due(link.linger_until));
        let (release, expired) = (due(link.release_at), due(gives_up));
        let yields = due(link.attempt.as_ref().and_then(|attempt| attempt.yields_at));
        if release {
            link.release_at = None;
            self.release(cx, key);
        }
        if expired {
            self.fail_attempt(cx, key, "no answer in time".into());
        }
        if yields && !expired {
            self.yield_turn(cx, key);
        }
        if check {
            self.check_silence(cx, key);
        }
        if retry {
            self.retry(cx, key);
        }
        if linger {
            self.dismiss_if_done(cx, key);
        }
        self.set_link_timer(key);
    }

    fn retry(&mut self, cx: &mut Context<'_>, key: u64) {
        let asked = !self.questions_for(key).is_empty();
        let Some(link) = self.links.get_mut(key) else { return };
        link.retry_at = None;
        let channel = &self.channels[link.channel.0 as usize];
        let is_current = channel.links.get(channel.current) == Some(&key);
        let wanted = asked || link.has_unsettled() || (is_current && channel.wants_server());
        let idle = link.attempt.is_none();
        if wanted && idle && (link.live.is_none() || link.silent_since.is_some()) {
            self.start_attempt(cx, key);
        }
    }

    /// If the connection that unsettled calls depend on has gone silent, begins another one beside
    /// it: whichever answers first settles them. This schedule is its own, so that a long outage does
    /// not leave both sides deep in their back-off.
    fn check_silence(&mut self, cx: &mut Context<'_>, key: u64) {
        self.silence_checked(cx.now, key);
        self.confirm_session(cx, key);
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(connection) =
            link.live.as_ref().and_then(|live| cx.endpoint.connection(live.handle))
        else {
            return;
        };
        // The least seen, since the last one may be that of a queue or a fault which has gone.
        let least = connection.stats().min_rtt;
        link.rtt = Some(least).filter(|rtt| !rtt.is_zero()).or(link.rtt);
        if connection.stats().probe_timeouts_in_a_row < SILENT_PROBES {
            if link.attempt.is_none() {
                link.silent_since = None;
            }
            // Calls may wait for this, if every other server is shunned too.
            if core::mem::take(&mut link.suspect) {
                let channel = link.channel;
                self.pump(cx, channel);
            }
            return;
        }
        link.suspect = true;
        let channel = link.channel;
        if link.attempt.is_none() && link.retry_at.is_none() {
            self.start_attempt(cx, key);
        }
        self.seek_other(cx, channel);
    }

    /// If calls have been in flight for a while, makes sure that the session is still this
    /// connection's: when two attempts crossed, the server may have given it to the other one last,
    /// and replies go there. A server refuses whatever comes on a connection that lost its session,
    /// also an empty RETURN_SLOTS.
    fn confirm_session(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let in_flight = link.session.as_ref().is_some_and(|session| session.slots.in_flight() > 0);
        if !in_flight || link.live.is_none() {
            link.confirmed_at = cx.now;
            return;
        }
        if cx.now.since(link.confirmed_at) < CONFIRM_EVERY {
            return;
        }
        link.confirmed_at = cx.now;
        if let Some(live) = link.live.as_mut() {
            let question = crate::rpc::message::ToServer::ReturnSlots(alloc::vec::Vec::new());
            live.outgoing.send(cx.endpoint, live.handle, question.encode(), u64::MAX);
        }
    }

    /// Gets another server ready while the current one is silent, if there is another.
    fn seek_other(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        self.shun(key);
        let channel = &self.channels[key.0 as usize];
        if channel.closed {
            return;
        }
        let Some(&other) = channel.links.get(channel.current) else { return };
        let Some(link) = self.links.get(other) else { return };
        if link.is_ready() && !link.is_shunned() {
            self.move_reads(key);
            self.pump(cx, key);
        } else if link.live.is_none() && link.attempt.is_none() && link.retry_at.is_none() {
            self.start_attempt(cx, other);
        }
    }
}

/// Errors that trying again does not heal.
fn is_final(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::Transport(_)
            | ConnectionError::PeerTransport(_)
            | ConnectionError::VersionNegotiation(_)
    )
}

fn fate_state<R>(fate: Fate) -> crate::service::CallState<R> {
    match fate {
        Fate::NeverSent => crate::service::CallState::NotExecuted(
            crate::service::NotExecuted::new(NotExecutedReason::NeverSent),
        ),
        Fate::Lost => crate::service::CallState::Lost,
    }
}
