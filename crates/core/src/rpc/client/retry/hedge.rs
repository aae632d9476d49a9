//! Hedging: a read that takes long is sent to further servers, the first answer wins (gRFC A6).
//!
//! One copy is that of the call's state, the others are kept here. A copy whose connection ends is gone
//! without a word, as long as another one is under way.

use super::{Copies, Retry, note_attempts};
use crate::rpc::client::Client;
use crate::rpc::client::call::{Earlier, State, Work};
use crate::rpc::client::link::Link;
use crate::rpc::context::Context;
use crate::rpc::event::CallKey;
use crate::rpc::message::ToServer;
use crate::rpc::policy::HedgingPolicy;
use crate::service::{Outcome, Shape};
use crate::time::Duration;

/// The pause after which a copy is tried again for which there was no server.
const NO_SERVER: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Hedge {
    policy: HedgingPolicy,
    /// Copies beside that of the call's state: link and number of the read.
    copies: Copies,
}

impl Client {
    /// A read begins: plans its copies, if its method is hedged.
    pub(in crate::rpc::client) fn plan_hedge(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get(key.0) else { return };
        let Work::Read(request) = &call.work else { return };
        let channel = &self.channels[call.channel.0 as usize];
        let Some(policy) = channel.policies.hedging(&channel.config.service, &request.method)
        else {
            return;
        };
        if policy.max_attempts < 2 || request.method.shape() != Shape::Unary {
            return;
        }
        let (channel, at) = (call.channel, cx.now + policy.delay);
        let hedge = Some(Hedge { policy: policy.clone(), copies: Copies::new() });
        self.retries.calls.insert(key.0, Retry { attempts: 1, hedge, ..Retry::default() });
        self.retries.set_due(key, Some(at));
        self.seek_second(cx, channel);
    }

    /// The delay is over: sends a copy to a server that has none.
    pub(super) fn hedge_due(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get(key.0) else { return };
        let Some(retry) = self.retries.calls.get(&key.0) else { return };
        let Some(hedge) = &retry.hedge else { return };
        let (channel, delay) = (call.channel, hedge.policy.delay);
        if retry.attempts >= hedge.policy.max_attempts {
            return;
        }
        let State::Reading { link, .. } = call.state else {
            return self.retries.set_due(key, Some(cx.now + delay.max(NO_SERVER)));
        };
        let state = &mut self.channels[channel.0 as usize];
        if !state.tokens.allow() {
            state.counters.throttled += 1;
            return;
        }
        let mut used: alloc::vec::Vec<u64> = hedge.copies.iter().map(|(link, _)| *link).collect();
        used.push(link);
        let sent = self.hedge_target(cx, key, &used).is_some_and(|to| self.send_copy(cx, key, to));
        let pause = if sent { delay } else { delay.max(NO_SERVER) };
        self.retries.set_due(key, Some(cx.now + pause));
    }

    /// Another server for a copy: a ready one, or a replica that stands by.
    fn hedge_target(&mut self, cx: &mut Context<'_>, key: CallKey, used: &[u64]) -> Option<u64> {
        let channel = self.calls.get(key.0)?.channel;
        if let Some(link) = self.pick(cx, channel, Some(key), false, used) {
            return Some(link);
        }
        if self.channels[channel.0 as usize].balance.is_none()
            && let Some(link) = self.second_of(channel, used)
        {
            return Some(link);
        }
        let links = &self.channels[channel.0 as usize].links;
        let group = links.iter().find_map(|link| {
            self.links.get(*link).filter(|link| link.is_ready()).and_then(|link| link.group)
        })?;
        let stands_by = |key: &u64| self.standby_of(cx.endpoint, group, *key).is_some();
        links.iter().copied().find(|key| !used.contains(key) && stands_by(key))
    }

    fn send_copy(&mut self, cx: &mut Context<'_>, key: CallKey, to: u64) -> bool {
        let Some(retry) = self.retries.calls.get_mut(&key.0) else { return false };
        let Some(call) = self.calls.get_mut(key.0) else { return false };
        let before = retry.attempts;
        note_attempts(call, before);
        let (channel, payload) = (call.channel, call.payload(cx.now));
        let (Some(link), Some(payload)) = (self.links.get_mut(to), payload) else { return false };
        let read = link.next_number();
        let Some(carrier) = link.live.as_mut().or(link.standby.as_mut()) else { return false };
        carrier.reads.insert(read, key);
        let message = ToServer::Read { read, payload }.encode(cx.buffer);
        carrier.outgoing.send(cx, carrier.handle, message, key.0);
        link.share.attempts += 1;
        link.share.hedges += 1;
        retry.attempts += 1;
        if let Some(hedge) = &mut retry.hedge {
            hedge.copies.push((to, read));
        }
        self.channels[channel.0 as usize].counters.hedges += 1;
        self.watch_copy(cx, to);
        true
    }

    /// A copy was sent: its server is watched for silence.
    fn watch_copy(&mut self, cx: &mut Context<'_>, to: u64) {
        let Some(link) = self.links.get_mut(to) else { return };
        match link.standby.as_ref().filter(|_| link.live.is_none()) {
            Some(standby) => {
                let handle = standby.handle;
                self.watch_standby(cx, to, handle);
            }
            None => self.after_sending(cx, to),
        }
    }

    /// A copy, or the only one, failed so. Returns whether the read goes on: by another copy, or by
    /// one that is sent now.
    pub(in crate::rpc::client) fn copy_failed(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        outcome: &Outcome,
    ) -> bool {
        let Some(hedge) = self.retries.calls.get(&key.0).and_then(|retry| retry.hedge.as_ref())
        else {
            return false;
        };
        let passes = match outcome {
            Outcome::Executed(status) => hedge.policy.non_fatal.contains(status.code()),
            Outcome::NotExecuted(why) => super::may_pass(why.reason),
            _ => false,
        };
        let spent = self.retries.calls[&key.0].attempts >= hedge.policy.max_attempts;
        let Some(channel) = self.calls.get(key.0).map(|call| call.channel) else { return false };
        if !passes {
            // The read ends here. Of the others nobody knows whether they run.
            if self.has_copy_under_way(key)
                && let Some(call) = self.calls.get_mut(key.0)
            {
                call.earlier = Earlier::MayHaveRun;
            }
            return false;
        }
        self.count_failure(channel);
        if matches!(outcome, Outcome::Executed(_))
            && let Some(call) = self.calls.get_mut(key.0)
        {
            // Whatever becomes of the other copies, that is known.
            let last = call.error(outcome.clone());
            call.earlier = Earlier::MayHaveRun;
            if let Some(retry) = self.retries.calls.get_mut(&key.0) {
                retry.last = Some(last);
            }
        }
        if super::PushBack::of(outcome, false) == super::PushBack::Never {
            self.retries.set_due(key, None);
            return self.adopt_copy(key);
        }
        if !spent {
            self.retries.set_due(key, Some(cx.now));
        }
        if self.adopt_copy(key) {
            return true;
        }
        if spent || !self.channels[channel.0 as usize].tokens.allow() {
            return false;
        }
        // None is left: the next one is sent as the read itself.
        if let Some(retry) = self.retries.calls.get_mut(&key.0) {
            retry.attempts += 1;
            let delay = retry.hedge.as_ref().map_or(NO_SERVER, |hedge| hedge.policy.delay);
            self.retries.set_due(key, Some(cx.now + delay));
        }
        self.enqueue_again(key);
        true
    }

    fn has_copy_under_way(&self, key: CallKey) -> bool {
        let hedge = self.retries.calls.get(&key.0).and_then(|retry| retry.hedge.as_ref());
        let in_hand = match self.calls.get(key.0).map(|call| &call.state) {
            Some(State::Reading { link, read }) => Some((*link, *read)),
            _ => None,
        };
        let mut all = hedge.iter().flat_map(|hedge| &hedge.copies).copied().chain(in_hand);
        all.any(|(link, read)| {
            let link = self.links.get(link);
            let mut carriers = link.iter().flat_map(|link| link.live.iter().chain(&link.standby));
            carriers.any(|carrier| carrier.reads.get(&read) == Some(&key))
        })
    }

    /// The copy in hand may be gone: goes on with one that is under way. Returns whether there is one.
    pub(in crate::rpc::client) fn adopt_copy(&mut self, key: CallKey) -> bool {
        let Some(retry) = self.retries.calls.get_mut(&key.0) else { return false };
        let Some(hedge) = &mut retry.hedge else { return false };
        let links = &self.links;
        let under_way = |link: u64, read: u64| {
            let carriers = |link: &Link| {
                let mut all = link.live.iter().chain(&link.standby);
                all.any(|carrier| carrier.reads.get(&read) == Some(&key))
            };
            links.get(link).is_some_and(carriers)
        };
        hedge.copies.retain(|(link, read)| under_way(*link, *read));
        let Some(call) = self.calls.get_mut(key.0) else { return false };
        if let State::Reading { link, read } = call.state
            && under_way(link, read)
        {
            return true;
        }
        let Some((link, read)) = hedge.copies.pop() else { return false };
        call.state = State::Reading { link, read };
        true
    }

    /// The read has ended: the other copies are of no use.
    pub(super) fn cancel_copies(&mut self, cx: &mut Context<'_>, key: CallKey, hedge: Hedge) {
        let in_hand = match self.calls.get(key.0).map(|call| &call.state) {
            Some(State::Reading { link, read }) => Some((*link, *read)),
            _ => None,
        };
        for (link, read) in hedge.copies.into_iter().chain(in_hand) {
            self.cancel_read(cx, link, read);
        }
    }
}
