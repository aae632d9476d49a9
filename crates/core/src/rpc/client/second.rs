//! A second server for copies of reads: a channel that uses one server after the other would have nowhere
//! to send them. It is connected when a hedged read begins, and left when none has for a while.

use super::Client;
use super::link::Link;
use crate::rpc::context::Context;
use crate::rpc::event::ChannelKey;
use crate::time::Duration;

/// How long the second server stays connected after the last hedged read: less than a connection may be
/// idle, so that its session is closed in an orderly way.
const STAYS: Duration = Duration::from_secs(10);

impl Client {
    /// A hedged read begins: makes sure that one server is connected, or about to be, beside the one in
    /// use. Where calls are spread all are, and in a group there are standbys.
    pub(super) fn seek_second(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        let channel = &mut self.channels[key.0 as usize];
        channel.hedged_at = cx.now;
        let count = channel.links.len();
        if count < 2 || channel.closed || self.spreads(key) {
            return;
        }
        let channel = &self.channels[key.0 as usize];
        let in_use = channel.links.get(channel.current).and_then(|link| self.links.get(*link));
        if !in_use.is_some_and(|link| link.is_ready() && link.group.is_none()) {
            return;
        }
        let others = (1..count).map(|step| channel.links[(channel.current + step) % count]);
        let of = |key: u64| self.links.get(key);
        let serves =
            |link: &Link| link.attempt.is_some() || link.live.is_some() && !link.is_shunned();
        let second = others.clone().find(|other| of(*other).is_some_and(serves));
        let found = second.or_else(|| others.clone().find(|o| of(*o).is_some_and(Link::is_idle)));
        let Some(link) = found.and_then(|found| self.links.get_mut(found)) else { return };
        link.leave_at.get_or_insert(cx.now + STAYS);
        if let Some(idle) = found.filter(|_| second.is_none()) {
            self.start_attempt(cx, idle);
        }
    }

    /// The server for a copy of a read where calls are not balanced: another one that is ready.
    pub(super) fn second_of(&self, key: ChannelKey, used: &[u64]) -> Option<u64> {
        let links = self.channels[key.0 as usize].links.iter().copied();
        let fit = |link: &Link| link.is_ready() && !link.is_shunned() && link.group.is_none();
        links.filter(|link| !used.contains(link)).find(|key| self.links.get(*key).is_some_and(fit))
    }

    /// Leaves a server that was connected for copies, if there were none for a while and nothing else is
    /// under way there: its link makes place for one that is not connected.
    pub(super) fn leave_second(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.leave_at = None;
        let channel = &self.channels[link.channel.0 as usize];
        let index = channel.links.iter().position(|other| *other == key);
        let Some(index) = index.filter(|index| *index != channel.current) else { return };
        let over = channel.hedged_at + STAYS;
        if over > cx.now || link.has_unsettled() || !link.held.is_empty() {
            link.leave_at = Some(over.max(cx.now + Duration::from_secs(1)));
            return;
        }
        let channel_key = link.channel;
        let mut fresh = Link::new(channel_key, link.address, channel.config.backoff_min);
        fresh.sessionless = link.sessionless;
        fresh.share = core::mem::take(&mut link.share);
        let fresh = self.links.insert(fresh);
        self.channels[channel_key.0 as usize].links[index] = fresh;
        self.recount(fresh);
        self.rebalance(channel_key);
        self.retire(cx, key);
    }
}
