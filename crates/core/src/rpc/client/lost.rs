//! Connections that end and sessions that are gone: what becomes of the calls in flight.

use alloc::vec::Vec;

use super::Client;
use super::call::{Earlier, State};
use super::link::{Live, Occupant};
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::{CallKey, ChannelEvent, ChannelKey, Event};
use crate::service::{CallState, NotExecuted, Outcome, Semantics, Shape, text};
use crate::session::{CallId, Fate, NotExecutedReason};
use crate::transport::connection::ConnectionError;
use crate::transport::endpoint::ConnectionHandle;

/// Where the server is that the calls of a lost session may have run at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// At the link that had the session, with another memory.
    Here,
    /// Nowhere: it was a group, and no target is of it any more. Who answers at the link is another one.
    Gone,
}

impl Client {
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
                cx.events.push(Event::Channel(channel, event));
            }
            self.attempt_failed(cx, key, why);
        } else if link.live.as_ref().is_some_and(|live| live.handle == handle)
            && let Some(live) = link.live.take()
        {
            link.last_error = why;
            self.live_gone(cx, key, live);
        } else if link.standby.as_ref().is_some_and(|standby| standby.handle == handle) {
            self.standby_lost(cx, key);
        }
    }

    /// Gives the live connection up and attaches anew on another one.
    pub(super) fn reconnect(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(live) = self.links.get_mut(key).and_then(|link| link.live.take()) else { return };
        cx.close(live.handle, close_code::DONE, "");
        self.by_handle.remove(&live.handle);
        self.live_gone(cx, key, live);
    }

    /// The live connection has ended: notes what had been sent, then gets another one if it is
    /// needed.
    fn live_gone(&mut self, cx: &mut Context<'_>, key: u64, live: Live) {
        self.note_all_sent(cx, key);
        if let Some(session) = self.links.get_mut(key).and_then(|link| link.session.as_mut()) {
            session.slots.detached();
        }
        self.part_streams(key);
        self.requeue(live);
        if self.fail_over(cx, key) {
            return;
        }
        let Some(link) = self.links.get_mut(key) else { return };
        link.silent_since.get_or_insert(cx.now);
        // The next connection may be good.
        link.suspect = false;
        let (channel, unsettled) = (link.channel, link.has_unsettled());
        if link.retired && !unsettled {
            return self.dismiss_if_done(cx, key);
        }
        let idle = link.attempt.is_none() && link.retry_at.is_none();
        let held = !link.held.is_empty();
        if idle && (unsettled || held || self.keeps_connected(key)) {
            self.start_attempt(cx, key);
        }
        self.pump(cx, channel);
        self.set_link_timer(key);
    }

    /// Reads and questions that were on a connection which ended go to the next one.
    pub(super) fn requeue(&mut self, live: Live) {
        for call in live.reads.into_values().chain(live.queries.into_values()) {
            self.enqueue_again(call);
        }
    }

    /// Notes how much of each request was sent, while the connection knows it still.
    pub(super) fn note_all_sent(&mut self, cx: &Context<'_>, key: u64) {
        let Some(session) = self.links.get(key).and_then(|link| link.session.as_ref()) else {
            return;
        };
        let calls: Vec<CallKey> =
            session.occupants.iter().filter_map(|occupant| occupant.call).collect();
        for call in calls {
            if let Some(State::Numbered { link, id, sending, .. }) =
                self.calls.get_mut(call.0).map(|call| &mut call.state)
            {
                let (link, id, sending) = (*link, *id, sending.take());
                self.note_sent(cx, link, id, sending);
            }
        }
    }

    /// The server has no memory of the session: every call in flight ends.
    pub(super) fn session_lost(&mut self, cx: &mut Context<'_>, key: u64, why: &'static str) {
        self.note_all_sent(cx, key);
        let Some(link) = self.links.get_mut(key) else { return };
        link.early_changes.clear();
        let channel = link.channel;
        let asked = self.questions_for(key);
        let Some(link) = self.links.get_mut(key) else { return };
        let at = link.group;
        let Some(session) = link.session.take() else { return };
        self.recount(key);
        self.channels[channel.0 as usize].memory.lose(session.slots.id());
        for question in asked {
            self.finish_question(cx, question, Ok(CallState::Lost));
        }
        let mut occupants = session.occupants;
        let journal = session.slots.keeps_journal();
        let gone = session.group && at != Some(session.slots.id().incarnation);
        let server = if gone { Server::Gone } else { Server::Here };
        for (id, fate) in session.slots.lost() {
            if journal {
                self.write_outcome(cx, channel, id, fate_state(fate));
            }
            let occupant =
                occupants.get_mut(id.slot as usize).map(core::mem::take).unwrap_or_default();
            for question in occupant.questions {
                self.finish_question(cx, question, Ok(fate_state(fate)));
            }
            match occupant.call {
                Some(call) => self.end_lost(cx, (key, server), call, fate, why),
                None => self.remember(key, id, fate_state(fate)),
            }
        }
        // What runs again may find another server ready, or has to have one sought.
        self.pump(cx, channel);
    }

    /// The session is kept by the server but not for us any more: its calls end as pending.
    pub(super) fn leave_session(&mut self, cx: &mut Context<'_>, key: u64) {
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

    /// One slot of an attached session is not remembered as it must be.
    pub(super) fn ended(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        id: CallId,
        occupant: Occupant,
        fate: Fate,
    ) {
        self.journal_outcome(cx, key, id, &fate_state(fate));
        for question in occupant.questions {
            self.finish_question(cx, question, Ok(fate_state(fate)));
        }
        if let Some(call) = occupant.call {
            let why = "the server has forgotten the call";
            self.end_lost(cx, (key, Server::Here), call, fate, why);
        }
    }

    /// A call whose session is gone. An idempotent one that cannot have run goes to any server; one
    /// that may have run goes on at the same server or nowhere.
    fn end_lost(
        &mut self,
        cx: &mut Context<'_>,
        (key, server): (u64, Server),
        call_key: CallKey,
        fate: Fate,
        why: &'static str,
    ) {
        let Some(call) = self.calls.get(call_key.0) else { return };
        // Elsewhere than at the server that it began at it runs only if it cannot have run, or may twice.
        let repeatable = call.request().is_some_and(|request| {
            request.method.semantics() == Semantics::Idempotent
                && request.method.shape() == Shape::Unary
                && !request.reserved
        });
        let in_time = call.deadline.is_none_or(|deadline| deadline > cx.now);
        let may_have_run = fate == Fate::Lost || call.earlier == Earlier::MayHaveRun;
        let elsewhere =
            call.request().is_some_and(|request| self.may_cross(call.channel, &request.method));
        let channel = &self.channels[call.channel.0 as usize];
        let here = server == Server::Here;
        let no_other = elsewhere || here && !self.may_hold(key) && channel.links == [key];
        let no_other = no_other || cfg!(feature = "planted-crossing");
        if repeatable && in_time && (no_other || !may_have_run) {
            if let Some(call) = self.calls.get_mut(call_key.0).filter(|_| may_have_run) {
                call.earlier = Earlier::MayHaveRun;
            }
            return self.enqueue_again(call_key);
        }
        if repeatable && in_time && here && self.may_hold(key) {
            return self.hold(cx, call_key, key);
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

    /// Whether calls may wait for the server of a link, and for no other one. A group's replicas are one
    /// server; a journal has written down already that the call is lost.
    pub(super) fn may_hold(&self, key: u64) -> bool {
        let Some(link) = self.links.get(key) else { return false };
        link.group.is_none() && !link.retired && !self.has_journal(key)
    }

    /// A channel has other servers than the one that it had: what waits to run again at that one
    /// must not run at them.
    pub(super) fn end_bound(&mut self, cx: &mut Context<'_>, channel: ChannelKey) {
        let waiting: Vec<CallKey> = self.channels[channel.0 as usize].waiting.numbered().collect();
        for key in waiting {
            let Some(call) = self.calls.get(key.0) else { continue };
            let crosses =
                call.request().is_some_and(|request| self.may_cross(channel, &request.method));
            if call.earlier == Earlier::MayHaveRun && !crosses {
                let error = call.error(Outcome::Lost).because("its server was lost, then replaced");
                self.finish(cx, key, Err(error));
            }
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

fn fate_state<R>(fate: Fate) -> CallState<R> {
    match fate {
        Fate::NeverSent => CallState::NotExecuted(NotExecuted::new(NotExecutedReason::NeverSent)),
        Fate::Lost => CallState::Lost,
    }
}
