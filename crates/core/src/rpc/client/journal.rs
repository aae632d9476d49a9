//! Channels that keep a journal: what is written before what is sent.

use super::Client;
use super::call::Work;
use crate::rpc::context::Context;
use crate::rpc::event::{
    CallKey, ChannelEvent, ChannelKey, Event, JournalCall, JournalEntry, JournalRequest,
};
use crate::service::{CallState, IncomingReply};
use crate::session::CallId;

const TAKEN_OVER: &str = "another process has used a copy of this journal since: of all copies only the \
     one that was used last may be used";

impl Client {
    /// Whether a call may be sent under its number now. If not, it goes into the journal first.
    pub(super) fn may_send(
        &mut self,
        cx: &mut Context<'_>,
        link: u64,
        key: CallKey,
        id: CallId,
    ) -> bool {
        let Some(link) = self.links.get_mut(link) else { return false };
        let Some(session) = link.session.as_mut() else { return false };
        if session.slots.may_send(id) {
            return true;
        }
        session.slots.journalling(id);
        let request = match self.calls.get(key.0).map(|call| &call.work) {
            Some(Work::Numbered(request)) => Some(JournalRequest {
                method: request.method.clone(),
                encoded: request.encoded.clone(),
                metadata: request.metadata.clone(),
            }),
            _ => None,
        };
        let entry = JournalEntry::Call(JournalCall { id, key: Some(key), request });
        cx.events.push(Event::Journal(link.channel, entry));
        false
    }

    /// A number that no request was made for will be fenced.
    pub(super) fn journal_fence(&mut self, cx: &mut Context<'_>, link: u64, id: CallId) {
        let Some(link) = self.links.get_mut(link) else { return };
        let Some(session) = link.session.as_mut() else { return };
        if session.slots.progress(id).is_none() || session.slots.may_send(id) {
            return;
        }
        session.slots.journalling(id);
        let entry = JournalEntry::Call(JournalCall { id, key: None, request: None });
        cx.events.push(Event::Journal(link.channel, entry));
    }

    pub(crate) fn journalled(&mut self, cx: &mut Context<'_>, channel: ChannelKey, id: CallId) {
        let Some(key) = self.link_of_session(channel, id) else { return };
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(session) = link.session.as_mut() else { return };
        session.slots.journalled(id);
        if !session.slots.may_send(id) {
            return;
        }
        if let Some(call) = link.occupant(id.slot).and_then(|occupant| occupant.call) {
            self.send_numbered(cx, key, call);
        }
        self.after_sending(cx, key);
    }

    pub(crate) fn let_go(&mut self, cx: &mut Context<'_>, channel: ChannelKey, id: CallId) {
        let Some(key) = self.link_of_session(channel, id) else { return };
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(session) = link.session.as_mut() else { return };
        session.slots.let_go(id);
        self.arm_release(cx.now, key);
        self.pump(cx, channel);
        self.after_sending(cx, key);
    }

    /// Writes an outcome down, if the session of this link keeps a journal.
    pub(super) fn journal_outcome(
        &mut self,
        cx: &mut Context<'_>,
        link: u64,
        id: CallId,
        state: &CallState<IncomingReply>,
    ) {
        let Some(link) = self.links.get(link) else { return };
        if link.session.as_ref().is_some_and(|session| session.slots.keeps_journal()) {
            self.write_outcome(cx, link.channel, id, state.clone());
        }
    }

    /// The same for a session that is gone.
    pub(super) fn write_outcome(
        &mut self,
        cx: &mut Context<'_>,
        channel: ChannelKey,
        id: CallId,
        state: CallState<IncomingReply>,
    ) {
        // Asked for later, it is still known here.
        self.channels[channel.0 as usize].memory.remember(id, state.clone());
        cx.events.push(Event::Journal(channel, JournalEntry::Outcome(id, state)));
    }

    /// Ends a call of an earlier process whose outcome has come by itself, before it was sent again.
    pub(super) fn recall_journalled(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        id: CallId,
    ) -> bool {
        let Some(channel) = self.calls.get(key.0).map(|call| call.channel) else { return false };
        let channel = &self.channels[channel.0 as usize];
        if channel.config.journal.is_none() {
            return false;
        }
        let Some(state) = channel.memory.recall(id) else { return false };
        self.resolve_recalled(cx, key, id, state);
        true
    }

    fn resolve_recalled(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        id: CallId,
        state: CallState<IncomingReply>,
    ) {
        let Some(call) = self.calls.get(key.0) else { return };
        let result = super::settle::outcome_of(state)
            .map_err(|outcome| call.error(outcome).with_id(Some(id)));
        self.finish(cx, key, result);
    }

    /// Whether what is unsettled in a closed channel is for the next process that opens its journal:
    /// the server is not to forget the session.
    pub(super) fn is_left_to_journal(&self, key: u64) -> bool {
        let session = self.links.get(key).and_then(|link| link.session.as_ref());
        session.is_some_and(|s| s.slots.keeps_journal() && s.slots.in_flight() > 0)
    }

    /// Whether the channel of a link keeps a journal.
    pub(super) fn has_journal(&self, link: u64) -> bool {
        let channel = self.links.get(link).map(|link| link.channel);
        channel.is_some_and(|key| self.channels[key.0 as usize].config.journal.is_some())
    }

    /// Somebody else has the session of a journal: the channel ends, and says why.
    pub(super) fn supplanted(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(channel) = self.links.get(key).map(|link| link.channel) else { return };
        let waiting: alloc::vec::Vec<CallKey> = self
            .calls
            .iter()
            .filter(|(_, call)| call.channel == channel)
            .map(|(call, _)| CallKey(call))
            .collect();
        for call in waiting {
            self.give_up(cx, call, TAKEN_OVER);
        }
        if let Some(link) = self.links.get_mut(key) {
            link.session = None;
        }
        for event in
            [ChannelEvent::Refused(TAKEN_OVER.into()), ChannelEvent::Unreachable(TAKEN_OVER.into())]
        {
            cx.events.push(Event::Channel(channel, event));
        }
        self.close_channel(cx, channel);
    }
}
