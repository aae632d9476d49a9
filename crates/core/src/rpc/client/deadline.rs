//! Deadlines: what becomes of a call whose caller stops waiting.
//!
//! A deadline proves nothing by itself. What was not sent is taken back; a numbered call is fenced,
//! and ends when the fence is answered, or as pending when that takes too long.

use super::Client;
use super::call::{State, Work};
use crate::rpc::context::Context;
use crate::rpc::event::CallKey;
use crate::service::{Outcome, text};
use crate::session::{NotExecutedReason, Sent};

impl Client {
    /// A call's timer fired: its deadline, or the end of the grace after it.
    pub(super) fn call_due(&mut self, cx: &mut Context<'_>, key: CallKey) {
        if self.follow_due(cx, key) {
            return;
        }
        let Some(call) = self.calls.get(key.0) else { return };
        match call.state {
            State::Waiting => self.waited_in_vain(cx, key),
            State::Numbered { fencing: false, .. } => self.fence_overdue(cx, key),
            State::Numbered { fencing: true, link, .. } => {
                let address = self.links.get(link).map(|link| link.address);
                let waited = call.waited(cx.now);
                let why = match address {
                    Some(address) => text(format_args!("no answer from {address} for {waited:?}")),
                    None => text(format_args!("no answer for {waited:?}")),
                };
                self.end_unsettled(cx, key, why);
            }
            State::Reading { link, .. } => {
                let waited = call.waited(cx.now);
                let peer = self.links.get(link).map(|link| link.address);
                let why = text(format_args!("no reply within its deadline of {waited:?}"));
                self.note_failure(cx.now, link, false);
                let error = self.unanswered(key, why).at(peer);
                self.leave(cx, key);
                self.finish(cx, key, Err(error));
            }
            State::Paused => {
                let waited = call.waited(cx.now);
                let why = text(format_args!("its deadline of {waited:?} passed"));
                let error = self.unanswered(key, why);
                self.finish(cx, key, Err(error));
            }
            State::Asking { .. } | State::Listening => {
                let error = match call.id() {
                    Some(id) => call.error(Outcome::Pending(id)),
                    None => call.error(Outcome::Unanswered),
                };
                self.leave(cx, key);
                self.finish(cx, key, Err(error.because("no server answered in time")));
            }
        }
    }

    fn waited_in_vain(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get(key.0) else { return };
        let waited = call.waited(cx.now);
        let error = match (&call.work, call.may_have_run()) {
            (Work::Read(_), true) => call
                .error(Outcome::Unanswered)
                .because(text(format_args!("no reply within its deadline of {waited:?}"))),
            (Work::Question { id, .. }, _) => call.error(Outcome::Pending(*id)),
            _ => call.not_executed(
                NotExecutedReason::Deadline,
                text(format_args!(
                    "its deadline of {waited:?} passed while it waited for a server or a free slot"
                )),
            ),
        };
        self.finish(cx, key, Err(error));
    }

    /// The deadline of a numbered call has passed: ask, and make sure that it does not start.
    fn fence_overdue(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        let channel = call.channel;
        let State::Numbered { link, id, sending, fencing } = &mut call.state else { return };
        *fencing = true;
        let (link_key, id, sending) = (*link, *id, *sending);
        let streams = self.is_stream(key);
        self.note_sent(cx, link_key, id, sending);
        let Some(session) = self.links.get_mut(link_key).and_then(|link| link.session.as_mut())
        else {
            return;
        };
        match session.slots.progress(id) {
            Some((Sent::Nothing | Sent::Part, _)) => {
                self.end_unsettled(cx, key, "its deadline passed".into());
            }
            Some((Sent::Whole, _)) if streams => {
                self.want_cancel(link_key, id, true);
                // Its handler is stopped, and the answer says how far it came.
                let grace = self.channels[channel.0 as usize].config.settle_grace;
                self.set_call_timer(key, Some(cx.now + grace));
                self.after_sending(cx, link_key);
            }
            Some((Sent::Whole, true)) => {
                self.end_unsettled(cx, key, "its deadline passed while it was executing".into());
            }
            Some((Sent::Whole, false)) => {
                session.slots.ask(id);
                let grace = self.channels[channel.0 as usize].config.settle_grace;
                self.set_call_timer(key, Some(cx.now + grace));
                self.after_sending(cx, link_key);
            }
            None => debug_assert!(false, "a call with a number is in flight"),
        }
    }
}
