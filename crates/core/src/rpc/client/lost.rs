//! Connections that end and sessions that are gone: what becomes of the calls in flight.

use alloc::vec::Vec;

use super::Client;
use super::call::{Earlier, State};
use super::link::{Live, Occupant};
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::{CallKey, ChannelEvent, Event};
use crate::service::{CallState, NotExecuted, Outcome, Semantics, text};
use crate::session::{Fate, NotExecutedReason};
use crate::transport::connection::ConnectionError;
use crate::transport::endpoint::ConnectionHandle;

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
    pub(super) fn requeue(&mut self, live: Live) {
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
    pub(super) fn session_lost(&mut self, cx: &mut Context<'_>, key: u64, why: &'static str) {
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
            self.finish_question(cx, question, Ok(CallState::Lost));
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
    pub(super) fn ended(&mut self, cx: &mut Context<'_>, key: u64, occupant: Occupant, fate: Fate) {
        for question in occupant.questions {
            self.finish_question(cx, question, Ok(fate_state(fate)));
        }
        if let Some(call) = occupant.call {
            self.end_lost(cx, key, call, fate, "the server has forgotten the call");
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
            if fate == Fate::Lost
                && let Some(call) = self.calls.get_mut(call_key.0)
            {
                call.earlier = Earlier::MayHaveRun;
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
