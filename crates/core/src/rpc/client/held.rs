//! Idempotent calls that may have run, and whose server has lost its memory or does not run them now: each
//! waits for that server, since at another one it could undo what was written meanwhile.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::Client;
use super::call::{Earlier, State};
use crate::rpc::context::Context;
use crate::rpc::event::CallKey;
use crate::service::Outcome;
use crate::session::CallId;

impl Client {
    /// Lets a call wait until the server of a link can run it again. It waits in no other queue.
    pub(super) fn hold(&mut self, cx: &mut Context<'_>, key: CallKey, link_key: u64) {
        let Some(link) = self.links.get_mut(link_key).filter(|link| !link.retired) else {
            return self.end_held(cx, key, "its server was lost, then replaced".into());
        };
        let Some(call) = self.calls.get_mut(key.0) else { return };
        call.state = State::Waiting;
        call.earlier = Earlier::MayHaveRun;
        if link.held.len() > self.calls.len() {
            let calls = &self.calls;
            link.held.retain(|held| calls.get(held.0).is_some());
        }
        link.held.push_back(key);
        if link.is_idle() {
            self.start_attempt(cx, link_key);
        }
        self.after_answer(link_key);
    }

    /// Sends what waits for this server, as far as it has slots for it.
    pub(super) fn send_held(&mut self, cx: &mut Context<'_>, link_key: u64) {
        let mut sent = false;
        while let Some((key, id)) = self.next_held(link_key) {
            self.occupy(cx, link_key, key, id);
            sent = true;
        }
        if sent {
            self.after_sending(cx, link_key);
        }
    }

    /// The first that waits for this server, and a number for it.
    fn next_held(&mut self, link: u64) -> Option<(CallKey, CallId)> {
        let link = self.links.get_mut(link)?;
        let waits = |key: &CallKey| {
            self.calls.get(key.0).is_some_and(|call| matches!(call.state, State::Waiting))
        };
        while link.held.pop_front_if(|key| !waits(key)).is_some() {}
        if link.held.is_empty() || !link.is_ready() || link.is_draining() {
            return None;
        }
        let id = link.session.as_mut()?.slots.reserve()?;
        link.held.pop_front().map(|key| (key, id))
    }

    /// The server could not be reached: what does not wait for it ends.
    pub(super) fn fail_held(&mut self, cx: &mut Context<'_>, link: u64, why: Cow<'static, str>) {
        self.end_all_held(cx, link, true, why);
    }

    /// The server is no target any more: nothing waits for it any longer.
    pub(super) fn end_all_held_at(&mut self, cx: &mut Context<'_>, link: u64) {
        self.end_all_held(cx, link, false, "its server was lost, then replaced".into());
    }

    fn end_all_held(
        &mut self,
        cx: &mut Context<'_>,
        link: u64,
        only_hasty: bool,
        why: Cow<'static, str>,
    ) {
        let Some(link) = self.links.get_mut(link).filter(|link| !link.held.is_empty()) else {
            return;
        };
        let held: Vec<CallKey> = link.held.iter().copied().collect();
        if !only_hasty {
            link.held.clear();
        }
        for key in held {
            let Some(call) = self.calls.get(key.0) else { continue };
            if !(only_hasty && call.wait_for_ready) {
                self.end_held(cx, key, why.clone());
            }
        }
    }

    fn end_held(&mut self, cx: &mut Context<'_>, key: CallKey, why: Cow<'static, str>) {
        let Some(call) = self.calls.get(key.0) else { return };
        let error = call.error(Outcome::Lost).because(why);
        self.finish(cx, key, Err(error));
    }
}
