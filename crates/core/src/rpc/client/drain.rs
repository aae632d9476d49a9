//! Servers that drain: their calls go to others, and they are told when nothing of this client's is
//! under way to them any more, so that they can go without a call being lost.

use alloc::vec::Vec;

use super::Client;
use super::call::{Earlier, State, Work};
use super::link::Link;
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelKey};
use crate::rpc::message::ToServer;
use crate::service::Outcome;
use crate::session::NotExecutedReason;
use crate::time::{Duration, Instant};
use crate::transport::endpoint::ConnectionHandle;

/// How long a number that was reserved at a server may still be used there once it drains.
const IN_HAND: Duration = Duration::from_secs(1);

impl Client {
    /// A server asks for new calls to go elsewhere.
    pub(super) fn drains(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        if let Some(link) = self.links.get_mut(key) {
            // A replica that is cut off from its group says so too, and may be back soon.
            let group = link.session.as_ref().is_some_and(|session| session.group);
            link.set_draining((!group).then_some(handle), cx.now);
        }
        self.after_sending(cx, key);
        self.fail_over(cx, key);
    }

    /// A call with a number was not executed because its server drains: it goes to another one.
    /// Returns whether it does.
    pub(super) fn move_call(
        &mut self,
        now: Instant,
        link: u64,
        key: CallKey,
        why: NotExecutedReason,
    ) -> bool {
        if why != NotExecutedReason::Draining || !self.can_move(key) {
            return false;
        }
        self.begin_again(key);
        self.shun_drained(now, link);
        self.enqueue_again(key);
        true
    }

    /// The same for a read. One of a replica is made again as others are: it may be back soon.
    pub(super) fn move_read(
        &mut self,
        now: Instant,
        link: u64,
        key: CallKey,
        outcome: &Outcome,
    ) -> bool {
        let draining = matches!(outcome, Outcome::NotExecuted(why)
            if why.reason == NotExecutedReason::Draining);
        let single = self.links.get(link).is_some_and(|link| link.group.is_none());
        let Some(call) = self.calls.get(key.0) else { return false };
        let channel = &self.channels[call.channel.0 as usize];
        if !draining || !single || channel.closed || channel.links.len() < 2 {
            return false;
        }
        let earlier = call.earlier;
        self.shun_drained(now, link);
        self.enqueue_again(key);
        if let Some(call) = self.calls.get_mut(key.0)
            && matches!(call.state, State::Waiting)
        {
            // Of the copy that came back it is known that it did not run.
            call.earlier = earlier;
        }
        true
    }

    /// Whether a call that was not executed may go to another server by itself.
    fn can_move(&self, key: CallKey) -> bool {
        let Some(call) = self.calls.get(key.0) else { return false };
        let Some(request) = call.request().filter(|request| !request.reserved) else {
            return false;
        };
        let channel = &self.channels[call.channel.0 as usize];
        !channel.closed
            && channel.links.len() > 1
            && self.may_begin_again(key)
            && (call.earlier == Earlier::CannotHaveRun
                || self.may_cross(call.channel, &request.method))
    }

    /// Takes a server's refusal as its word that it drains, which may come later.
    fn shun_drained(&mut self, now: Instant, link: u64) {
        if let Some(link) = self.links.get_mut(link) {
            link.set_draining(link.live.as_ref().map(|live| live.handle), now);
        }
    }

    /// If every server that there is asks for new calls to go elsewhere, calls that do not wait for
    /// another one fail, safely. Of several servers one that was told that it may go counts as gone: it
    /// may be there again already.
    pub(super) fn fail_draining(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        let channel = &self.channels[key.0 as usize];
        let several = channel.links.len() > 1;
        let left = |link: &Link| link.live.as_ref().is_some_and(|live| live.left);
        let draining = |link: &u64| {
            self.links.get(*link).is_some_and(|link| link.is_draining() && !(several && left(link)))
        };
        if channel.links.is_empty() || !channel.links.iter().all(draining) {
            return;
        }
        let waiting: Vec<CallKey> = channel.waiting.all().collect();
        for call_key in waiting {
            let Some(call) = self.calls.get(call_key.0).filter(|call| !call.wait_for_ready) else {
                continue;
            };
            if matches!(call.work, Work::Question { .. }) {
                continue;
            }
            let error = call.not_executed(NotExecutedReason::Draining, "");
            self.finish(cx, call_key, Err(error));
        }
    }

    /// Tells a server that drains that it may go, once nothing of the session is under way: every
    /// reply is released, and no number follows. One that was given to the user is waited for a moment.
    /// To be called after every change of the session.
    pub(super) fn leave_drained(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get(key).filter(|link| link.drains.is_some()) else { return };
        let left = link.live.as_ref().is_none_or(|live| live.left);
        let quiet = link.session.as_ref().is_some_and(|session| session.slots.is_quiet());
        let reserved = link.session.as_ref().is_some_and(|session| session.slots.in_flight() > 0);
        let in_hand = reserved && cx.now.since(link.drains_since) < IN_HAND;
        if !link.is_draining() || !link.is_ready() || left || !quiet || in_hand {
            return;
        }
        self.release(cx, key);
        let Some(link) = self.links.get_mut(key) else { return };
        // More releases follow, and this with the last of them.
        if link.release_at.is_some_and(|at| at > cx.now) {
            return;
        }
        let Some(live) = link.live.as_mut() else { return };
        live.left = true;
        let left = ToServer::Left.encode(cx.buffer);
        live.outgoing.send(cx, live.handle, left, u64::MAX);
    }
}

impl Link {
    /// The server asks for new calls to go elsewhere, on this connection.
    fn set_draining(&mut self, connection: Option<ConnectionHandle>, now: Instant) {
        if self.drains != connection {
            (self.drains, self.drains_since) = (connection, now);
        }
    }

    /// Whether the server was told that nothing more comes.
    pub(super) fn has_left(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.left)
    }

    /// Whether the server asks, on the live connection, for new calls to go elsewhere. Once that
    /// connection is over, the server is one that is to be tried again.
    pub(super) fn is_draining(&self) -> bool {
        let live = self.live.as_ref().map(|live| live.handle);
        self.drains.is_some() && self.drains == live
    }
}
