//! Which of a channel's servers gets new calls, and which one is tried next.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::Client;
use super::call::Work;
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::{CallKey, ChannelEvent, ChannelKey, Event};
use crate::service::{Outcome, text};
use crate::session::NotExecutedReason;

impl Client {
    /// Makes sure that a server is sought if somebody wants one.
    pub(super) fn seek_server(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        if self.spreads(key) {
            return self.seek_all(cx, key);
        }
        if !self.channels[key.0 as usize].wants_server() {
            return;
        }
        self.shun(key);
        let channel = &self.channels[key.0 as usize];
        let Some(&link_key) = channel.links.get(channel.current) else { return };
        let Some(link) = self.links.get(link_key) else { return };
        if link.is_idle() {
            self.start_attempt(cx, link_key);
        }
    }

    /// Gets another server ready while the current one is silent, if there is another.
    pub(super) fn seek_other(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        if self.spreads(key) {
            self.move_reads(key);
            return self.pump(cx, key);
        }
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

    /// A server that has answered is the one to use, unless the one in use is good; attempts at
    /// others that were made beside it end.
    pub(super) fn win(&mut self, cx: &mut Context<'_>, key: u64) {
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
            let stays = self.wants_standby(other) || self.keeps_connected(other);
            let Some(link) = self.links.get_mut(other) else { continue };
            if core::mem::take(&mut link.yielded) && link.session.is_none() && !stays {
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
    pub(super) fn yield_turn(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let channel_key = link.channel;
        if let Some(attempt) = link.attempt.as_mut() {
            attempt.yields_at = None;
        }
        if self.seek_beside(cx, key) {
            return;
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

    pub(super) fn move_on(
        &mut self,
        cx: &mut Context<'_>,
        channel_key: ChannelKey,
        failed: u64,
        reason: Cow<'static, str>,
    ) {
        if self.spreads(channel_key) {
            return self.failed_among_all(cx, channel_key, failed, reason);
        }
        let yielded =
            self.links.get_mut(failed).is_some_and(|link| core::mem::take(&mut link.yielded));
        let channel = &mut self.channels[channel_key.0 as usize];
        let is_current = channel.links.get(channel.current) == Some(&failed);
        if !is_current && !yielded {
            // Calls may have waited for this one alone, since it was opening a session.
            return self.seek_server(cx, channel_key);
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
        channel.eager &= channel.config.wait_for_ready;
        cx.events.push(Event::Channel(channel_key, ChannelEvent::Unreachable(reason.clone())));
        self.fail_fast(cx, channel_key, &reason);
        self.seek_server(cx, channel_key);
    }

    /// Reads that wait for a server which has gone silent go to one that answers: they have no side
    /// effects, so it does not matter whether they run twice.
    pub(super) fn move_reads(&mut self, channel: ChannelKey) {
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

    fn pump_or_seek(&mut self, cx: &mut Context<'_>, channel: ChannelKey) {
        self.pump(cx, channel);
        self.seek_server(cx, channel);
    }

    /// Every target was tried: calls that do not wait for a server fail, safely.
    pub(super) fn fail_fast(&mut self, cx: &mut Context<'_>, key: ChannelKey, why: &str) {
        let channel = &self.channels[key.0 as usize];
        let waiting: Vec<CallKey> = channel.waiting.all().collect();
        for call_key in waiting {
            let Some(call) = self.calls.get(call_key.0) else { continue };
            if call.wait_for_ready {
                continue;
            }
            let detail = text(format_args!("no server could be reached: {why}"));
            let error = match (&call.work, call.may_have_run()) {
                (Work::Read(_), true) => call.error(Outcome::Unanswered).because(detail),
                (Work::Question { id, .. }, _) => call.error(Outcome::Pending(*id)).because(detail),
                _ => call.not_executed(NotExecutedReason::NeverSent, detail),
            };
            self.finish(cx, call_key, Err(error));
        }
    }
}
